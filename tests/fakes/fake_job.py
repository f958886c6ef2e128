"""A job that runs nowhere: threads that count, and snapshots of the counts."""

import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from golem_magic.model import JobId, JobSnapshot, JobState


class FakeJob:
    """Pretends to run ``n_tasks`` tasks, ``n_workers`` of them at a time.

    Args:
        n_tasks: Inputs, all drawn before the first task starts.
        n_workers: Tasks that are settled together.
        task_s: Seconds a task takes.
        queued_s: Seconds before the first worker comes.
        failing: Indices of the tasks that fail.
    """

    def __init__(
        self,
        n_tasks: int = 40,
        *,
        n_workers: int = 4,
        task_s: float = 0.1,
        queued_s: float = 0.2,
        failing: Collection[int] = (),
        label: str = "",
    ) -> None:
        self._n_workers, self._task_s, self._queued_s = n_workers, task_s, queued_s
        self._failing = frozenset(failing)
        self._changed = threading.Condition()
        self._cancelled = threading.Event()
        self._started_s = time.monotonic()
        self._now = JobSnapshot(
            job_id=JobId("0f3a9c1e5b7d2468ace013579bdf2468"),
            function="square",
            label=label,
            state=JobState.QUEUED,
            n_tasks=n_tasks,
            n_staged=n_tasks,
            n_done=0,
            n_failed=0,
            n_running=0,
            n_workers=0,
            elapsed_s=0.0,
        )
        threading.Thread(target=self._run, daemon=True).start()

    def snapshot(self) -> JobSnapshot:
        with self._changed:
            if self._now.state.is_final:
                return self._now
            return replace(self._now, elapsed_s=time.monotonic() - self._started_s)

    def cancel(self) -> None:
        self._cancelled.set()

    def __iter__(self) -> Iterator[int]:
        """Squares in order, each as soon as it is there; ends early if the job does."""
        for index in range(self._now.n_tasks or 0):
            with self._changed:
                self._changed.wait_for(partial(self._is_past, index))
                if self._settled <= index:
                    return
            if index not in self._failing:
                yield index * index

    def _is_past(self, index: int) -> bool:
        return self._settled > index or self._now.state.is_final

    @property
    def _settled(self) -> int:
        return self._now.n_done + self._now.n_failed

    def _run(self) -> None:
        n_tasks = self._now.n_tasks or 0
        self._cancelled.wait(self._queued_s)
        for first in range(0, n_tasks, self._n_workers):
            batch = range(first, min(first + self._n_workers, n_tasks))
            self._change(state=JobState.RUNNING, n_running=len(batch), n_workers=self._n_workers)
            if self._cancelled.wait(self._task_s):
                break
            self._settle(batch)
        over = JobState.DONE if self._settled == n_tasks else JobState.CANCELLED
        self._change(state=over, n_running=0, n_workers=0, elapsed_s=time.monotonic() - self._started_s)

    def _settle(self, batch: range) -> None:
        failed = [index for index in batch if index in self._failing]
        now = self._now
        first_failure = now.first_failure
        if failed and first_failure is None:
            first_failure = (failed[0], "ZeroDivisionError: division by zero")
        self._change(
            n_done=now.n_done + len(batch) - len(failed),
            n_failed=now.n_failed + len(failed),
            n_running=0,
            first_failure=first_failure,
        )

    def _change(self, **fields: Any) -> None:
        with self._changed:
            self._now = replace(self._now, **fields)
            self._changed.notify_all()
