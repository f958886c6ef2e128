"""A client that runs everything here at once, but sends the function through pickle as any client must."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cloudpickle

from golem_magic.errors import EngineError, JobError, PayloadError
from golem_magic.model import JobId, JobSnapshot, JobState


class HereResults:
    """Results of a job that ran here; if it runs on, it does so until ``end`` is called."""

    def __init__(self, job_id: str, function: str, label: str, values: list[Any], state: JobState) -> None:
        self.job_id = JobId(job_id)
        self._function, self._label, self._values = function, label, values
        self._state = state
        self.n_waits = 0
        self.interrupts_after: int | None = None

    @property
    def progress(self) -> JobSnapshot:
        n_tasks = len(self._values)
        return JobSnapshot(
            job_id=self.job_id,
            function=self._function,
            label=self._label,
            state=self._state,
            n_tasks=n_tasks,
            n_staged=n_tasks,
            n_done=n_tasks,
            n_failed=0,
            n_running=0,
            n_workers=0,
            elapsed_s=0.0,
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def wait(self, timeout: float | None = None) -> bool:
        """End at the second look, unless somebody presses the stop button before."""
        self.n_waits += 1
        if self.n_waits == self.interrupts_after:
            raise KeyboardInterrupt
        if self.n_waits == 2:
            self.end()
        return self._state.is_final

    def cancel(self) -> None:
        self._state = JobState.CANCELLED

    def end(self) -> None:
        self._state = JobState.DONE


class HereClient:
    """Maps in this process; jobs are done at once, unless ``jobs_run_on``."""

    def __init__(self) -> None:
        self.started: list[HereResults] = []
        self.options: dict[str, Any] = {}
        self.is_closed = False
        self.jobs_run_on = False
        self.waits_are_interrupted = False

    def map(self, function: Callable[..., Any], inputs: Iterable[Any], **options: Any) -> HereResults:
        if options.get("engine") == "nowhere":
            raise EngineError("engine 'nowhere' is not known, known are local")
        try:
            function = pickle.loads(cloudpickle.dumps(function))
        except TypeError as error:
            raise PayloadError(f"cannot send {function.__name__}: {error}") from error
        self.options = options
        more = [options["common"]] if "common" in options else []
        values = [function(*each, *more) if options.get("star") else function(each, *more) for each in inputs]
        job_id = f"{len(self.started) + 10:032x}"[::-1]
        state = JobState.RUNNING if self.jobs_run_on else JobState.DONE
        results = HereResults(job_id, function.__name__, options.get("label", ""), values, state)
        results.interrupts_after = 1 if self.waits_are_interrupted else None
        self.started.append(results)
        return results

    def attach(self, job: str) -> HereResults:
        found = [results for results in self.started if results.job_id.startswith(job)]
        if len(found) != 1:
            raise JobError(f"{len(found)} jobs begin with {job}")
        return found[0]

    def cancel(self, job: str) -> JobId:
        self.attach(job).cancel()
        return self.attach(job).job_id

    @property
    def inventory(self) -> "HereClient":
        return self

    def ids(self) -> list[JobId]:
        return [results.job_id for results in self.started]

    def jobs(self) -> list[JobSnapshot]:
        return [results.progress for results in self.started]

    def close(self) -> None:
        self.is_closed = True
        for results in self.started:
            results.end()
