"""Failed tasks that are run again: jobs of their own, whose outcomes are laid over the failures.

Nothing of the first job is changed. A retry is found by a link in that job's folder, so whoever reads
the job sees it, in this kernel or in another.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from golem_magic.clock import wall_time
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import JobError
from golem_magic.model import Failure, JobId, JobSnapshot, Timing
from golem_magic.share import outcome_files
from golem_magic.share import retries as staged
from golem_magic.share.layout import Done, JobPaths, SharePaths, signer
from golem_magic.share.retries import Tasks


class Outcome(NamedTuple):
    """An outcome, which may be None: a value, or a Failure."""

    value: Any


def timings_of(paths: JobPaths, entry: Done) -> list[Timing]:
    """What the tasks of an entry took.

    Raises:
        ShareError: Their outcomes cannot be read.
    """
    worker = signer(entry.writer)
    spent = outcome_files.read_spent(paths, entry)
    host, seconds = spent or ("", [math.nan] * (entry.end - entry.start))
    return [Timing(entry.start + at, each, host, worker) for at, each in enumerate(seconds)]


class Retry:
    """One of them.

    Attributes:
        dispatcher: Of the job that runs the tasks again.
        tasks: Which these are.
    """

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.tasks = Tasks(dispatcher.manifest.retried)
        self._cached: tuple[Done, list[Any]] | None = None
        self._lock = threading.Lock()  # two passes may read

    @property
    def is_over(self) -> bool:
        """Whether no further outcome can come."""
        return self.dispatcher.snapshot().state.is_final

    def outcome(self, task: int, *, wait: bool) -> Outcome | None:
        """What a task of the first job gave here; None if nothing, or nothing yet."""
        __tracebackhide__ = True
        position = self.tasks.position(task)
        if position is None:
            return None
        book = self.dispatcher.book
        entry = book.entry_with(position)
        if entry is None and wait:
            self.dispatcher.wait(lambda: book.entry_with(position) is not None)
            entry = book.entry_with(position)
        if entry is None:
            return None
        with self._lock:
            if self._cached is None or self._cached[0] != entry:
                self._cached = (entry, outcome_files.read(self.dispatcher.paths, entry))
            return Outcome(self._cached[1][position - entry.start])

    def is_pending(self, task: int) -> bool:
        """Whether an outcome of this task may still come."""
        return (
            self.tasks.position(task) is not None
            and not self.is_over
            and self.outcome(task, wait=False) is None
        )


class Retries:
    """All retries of one job, oldest first.

    Args:
        share: Where they are.
        first: The job.
        follow: Gives a dispatcher, not yet started, for a job on that share.
    """

    def __init__(self, share: SharePaths, first: Dispatcher, follow: Callable[[JobId], Dispatcher]) -> None:
        self._share = share
        self._first = first
        self._follow = follow
        self._all: list[Retry] = []
        self._lock = threading.Lock()  # two threads may read

    def look(self) -> None:
        """Learn of retries that others have begun; unfinished ones are followed from now on."""
        with self._lock:
            for job_id in staged.found(self._first.paths)[len(self._all) :]:
                retry = Retry(self._follow(job_id))
                if not retry.is_over:
                    retry.dispatcher.start()
                self._all.append(retry)

    def start(self, tasks: Sequence[int]) -> None:
        """Run failed tasks of the job again, those left out that are just being run again.

        Raises:
            JobError: Their inputs are not there any more.
            ShareError: They cannot be read, or the retry cannot be written.
        """
        manifest, paths = self._first.manifest, self._first.paths
        if manifest.retry_of is not None:
            job, first = manifest.job_id[:8], manifest.retry_of[:8]
            message = f"job {job} is itself a retry: attach to job {first} and retry there what still fails"
            raise JobError(message)
        if manifest.keep == "unread":
            message = (
                f"job {manifest.job_id[:8]} has freed inputs together with results (keep='unread'): "
                f"map again over the inputs that failed"
            )
            raise JobError(message)
        while True:
            self.look()
            wanted = [task for task in tasks if not any(each.is_pending(task) for each in self._all)]
            if not wanted:
                return
            retry = staged.stage(self._share, manifest, wanted, wall_time())
            if staged.announce(paths, retry.job_id, len(self._all)):
                self.look()
                return
            staged.withdraw(self._share.job(retry.job_id))  # somebody was quicker: see what is left to do

    def outcome(self, task: int, failure: Failure, *, wait: bool) -> Any:
        """The first success of a task that had failed, else the newest failure."""
        __tracebackhide__ = True
        newest: Any = failure
        for retry in list(self._all):
            found = retry.outcome(task, wait=wait)
            newest = newest if found is None else found.value
            if type(newest) is not Failure:
                break
        return newest

    def timings(self) -> Iterator[Timing]:
        """What the tasks took that were run again, oldest retry first."""
        for retry in list(self._all):
            for entry in list(retry.dispatcher.book.order):
                for each in timings_of(retry.dispatcher.paths, entry):
                    yield each._replace(task=retry.tasks.index(each.task))

    def cancel(self) -> None:
        """End those that run."""
        for retry in list(self._all):
            retry.dispatcher.cancel()

    def wait(self, timeout_s: float | None) -> None:
        """Wait until none runs, each at most so long."""
        __tracebackhide__ = True
        for retry in list(self._all):
            retry.dispatcher.wait(lambda: False, timeout_s)

    def picture(self, snapshot: JobSnapshot) -> JobSnapshot:
        """The job's picture with what its retries have changed: what is run again has not failed."""
        for retry in list(self._all):
            snapshot = _laid_over(snapshot, retry)
        return snapshot


def _laid_over(first: JobSnapshot, retry: Retry) -> JobSnapshot:
    again = retry.dispatcher.snapshot()
    is_over = again.state.is_final
    cured = again.n_done if is_over else len(retry.tasks) - again.n_failed
    first_failure = first.first_failure
    if first_failure is not None and retry.tasks.position(first_failure[0]) is not None:
        newer = again.first_failure
        first_failure = newer and (retry.tasks.index(newer[0]), newer[1])
        if is_over and newer is None and again.n_lost:
            first_failure = first.first_failure
    return replace(
        first,
        state=again.state if first.state.is_final and not is_over else first.state,
        n_done=first.n_done + again.n_done,
        n_failed=first.n_failed - cured,
        n_running=first.n_running + again.n_running,
        n_workers=first.n_workers + again.n_workers,
        n_workers_lost=first.n_workers_lost + again.n_workers_lost,
        n_retried=first.n_retried + len(retry.tasks),
        elapsed_s=first.elapsed_s + again.elapsed_s,
        first_failure=first_failure,
        note=first.note or again.note,
    )
