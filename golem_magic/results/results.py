"""The user's one object: results in input order while the job runs, by index, or as they come."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, overload

from golem_magic import outcomes
from golem_magic.clock import SystemClock
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import JobError, ResultConsumed, ShareError
from golem_magic.model import Failure, JobId, JobSnapshot, OnError, Timing
from golem_magic.results.passes import Coming, PairIterator, ResultIterator, There, Values
from golem_magic.results.published import Failed, Published
from golem_magic.results.retries import Retries, timings_of
from golem_magic.results.table import Given, library, table
from golem_magic.share import holds
from golem_magic.share.layout import Done
from golem_magic.share.logs import Logs, read_logs


class Results:
    """A lazy, ordered sequence of what the tasks gave.

    Nothing is computed or loaded before it is asked for, and nothing is kept
    after it was handed out: each ``iter()`` starts at the beginning and reads
    from the share again. ``next(results)`` has a position of its own. A task's
    exception is raised at its place; iteration can go on after it.

    Where the job keeps only what is unread, there is one pass: every ``iter()``
    and ``next()`` continue it, and what it has passed is gone from the share.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        retries: Retries,
        *,
        on_error: OnError = "raise",
        unordered: bool = False,
        source_error: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._retries = retries
        self._published = Published(dispatcher, retries, on_error, source_error)
        self._unordered = unordered
        self._clock = SystemClock()
        self._own: ResultIterator | None = None
        self._cached: tuple[Done, list[Any]] | None = None
        holds.hold(dispatcher.paths, self)

    @property
    def job_id(self) -> JobId:
        """The job's id; ``golem_magic.attach(job_id)`` finds it again from anywhere."""
        return self._dispatcher.manifest.job_id

    @property
    def progress(self) -> JobSnapshot:
        """The newest picture of the job, with what :meth:`retry_errors` has changed."""
        return self._retries.picture(self._dispatcher.snapshot())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is over or ``timeout`` seconds have passed; tell whether it is over."""
        __tracebackhide__ = True
        begun_s = self._clock.now()
        self._dispatcher.wait(lambda: False, timeout)
        left_s = None if timeout is None else max(0.0, timeout - (self._clock.now() - begun_s))
        self._retries.wait(left_s)
        return self.progress.state.is_final

    def cancel(self) -> None:
        """End the job; results that are there stay readable. Doing it twice is harmless.

        Raises:
            ShareError: The workers could not be told.
        """
        self._dispatcher.cancel()
        self._retries.cancel()

    def retry_errors(self) -> Results:
        """Run the tasks that have failed so far again, on the same inputs and with the same function.

        An iterator that has handed out an error keeps to it; a new one waits for the new outcome. Tasks
        that are just being run again are left alone, so calling this twice is harmless. It works on a
        job that still runs, and after :func:`attach`, here or in another kernel.

        Returns:
            This object, so that ``list(results.retry_errors())`` reads well.

        Raises:
            JobError: The inputs are gone (``keep="unread"``), or this is itself a retry.
            ShareError: The inputs cannot be read, or the share cannot be written.
        """
        failed = [index for index, outcome in self._failed() if type(outcome) is Failed]
        if failed:
            self._retries.start(failed)
        return self

    def available(self) -> Iterator[tuple[int, Any]]:
        """Pairs of task index and result of what is there now, in input order, without waiting.

        A task that failed and is being run again counts as failed meanwhile; errors as ``on_error`` says.
        """
        return PairIterator(self._published, There(self._published), wait=False)

    def missing(self) -> list[int]:
        """Indexes of the tasks drawn so far that have no outcome now."""
        found: list[int] = []
        position = 0
        for entry in self._published.entries():
            found += range(position, entry.start)
            position = entry.end
        return [*found, *range(position, self._dispatcher.snapshot().n_staged)]

    def to_list(self) -> list[Any]:
        """All results, waiting for them."""
        __tracebackhide__ = True
        return list(self)

    def to_frame(self) -> Any:
        """All tasks as a table, a pandas ``DataFrame``, waiting for them; whatever fails is in the table.

        Its index is that of the tasks. ``input`` is what a task was given, ``output`` its value, ``error``
        the exception where there is none, ``seconds`` what it took and ``host`` where. Inputs that have
        names for their parts become columns of their own by
        ``frame.join(pandas.DataFrame(list(frame["input"])))``.

        Raises:
            JobError: pandas is not there, or this job frees what has been read (``keep="unread"``).
            ShareError: Inputs or results cannot be read.
            Exception: What ended the inputs early, if something did, as at the end of a loop.
        """
        __tracebackhide__ = True
        if self._published.frees:
            job = self.job_id[:8]
            message = f"job {job} frees inputs and results as they are read (keep='unread'): iterate over it"
            raise JobError(message)
        library()  # or nobody needs to wait
        given = list(self._given())
        error = self._published.source_error()
        if error is not None:
            raise error
        return table(self._dispatcher.paths, given, self.timings())

    def errors(self) -> dict[int, BaseException]:
        """The exceptions of the tasks that have failed so far, by task index."""
        failed = self._failed()
        return outcomes.Errors({index: each.error for index, each in failed if type(each) is Failed})

    def timings(self) -> list[Timing]:
        """What the tasks took that have an outcome now, by task index; of a retried one, the last try.

        Reads all outcomes; those that were freed are left out.
        """
        found = {each.task: each for entry in self._published.entries() for each in self._timed(entry)}
        found |= {each.task: each for each in self._retries.timings()}
        return [found[index] for index in sorted(found)]

    def logs(self, task: int | None = None) -> Logs:
        """What the workers and their tasks wrote; with ``task``, only the worker that had that one.

        Raises:
            JobError: No worker has begun with that task.
        """
        return read_logs(self._dispatcher.paths, task)

    def as_completed(self) -> Iterator[tuple[int, Any]]:
        """Pairs of task index and result in the order in which they come; errors as ``on_error`` says.

        Raises:
            JobError: This job keeps only what is unread, and frees it in the order of the inputs.
        """
        if self._published.frees:
            message = f"job {self.job_id[:8]} frees results in the order of the inputs: iterate over them"
            raise JobError(message)
        return PairIterator(self._published, Coming(self._published), wait=True)

    def __iter__(self) -> Iterator[Any]:
        if self._published.frees:
            return self._own_pass()
        return Values(self.as_completed()) if self._unordered else ResultIterator(self._published)

    def __next__(self) -> Any:
        __tracebackhide__ = True
        return next(self._own_pass())

    def __len__(self) -> int:
        n_tasks = self._dispatcher.n_inputs
        if n_tasks is None:
            message = f"job {self.job_id[:8]} is still drawing its inputs: their number is not known yet"
            raise TypeError(message)
        return n_tasks

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        __tracebackhide__ = True
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if position < 0 or (self._dispatcher.n_inputs is not None and position >= len(self)):
            message = f"result {index} of {len(self)}"
            raise IndexError(message)
        outcome = self._outcome(position)
        if type(outcome) is not Failed:
            return outcome
        if self._published.on_error == "return":
            return outcome.error
        raise outcome.error

    def __repr__(self) -> str:
        snapshot = self.progress
        total = "?" if snapshot.n_tasks is None else snapshot.n_tasks
        line = f"<Results of {snapshot.function}: {snapshot.state}, {snapshot.n_done}/{total} done"
        if snapshot.n_failed:
            line += f", {snapshot.n_failed} failed"
        if snapshot.first_failure is not None:
            index, message = snapshot.first_failure
            line += f" (task {index}: {message})"
        return f"{line}, job {self.job_id[:8]}>"

    def _outcome(self, position: int) -> Any:
        """The outcome of one task, waiting for it; files are cached one at a time."""
        __tracebackhide__ = True
        entry = self._published.wait_for(position)
        if entry is None:
            raise self._published.absence(position)
        if self._cached is None or self._cached[0] != entry:
            self._cached = (entry, self._published.read(entry))
        outcome = self._cached[1][position - entry.start]
        return self._published.settled(position, outcome) if type(outcome) is Failure else outcome

    def _given(self) -> Iterator[Given]:
        """What each task gave, waiting for it; of those that will give nothing, why."""
        __tracebackhide__ = True
        for position in itertools.count():
            if self._published.wait_for(position) is None:
                n_tasks = self._dispatcher.n_tasks
                if position >= (self._dispatcher.snapshot().n_staged if n_tasks is None else n_tasks):
                    return
                yield Given(None, self._published.absence(position))
                continue
            outcome = self._outcome(position)
            yield Given(None, outcome.error) if type(outcome) is Failed else Given(outcome)

    def _failed(self) -> Iterator[tuple[int, Any]]:
        """The tasks that have failed in the job itself, with what has become of them, without waiting."""
        for entry in self._published.entries():
            with suppress(ResultConsumed):
                for index, outcome in enumerate(
                    self._published.load(entry) if entry.failed else (), entry.start
                ):
                    if type(outcome) is Failure:
                        yield index, self._published.settled(index, outcome, wait=False)

    def _timed(self, entry: Done) -> list[Timing]:
        try:
            return timings_of(self._dispatcher.paths, entry)
        except ShareError:
            if self._published.frees:
                return []
            raise

    def _own_pass(self) -> ResultIterator:
        if self._own is None:
            start = self._published.first_kept() if self._published.frees else 0
            self._own = ResultIterator(self._published, start)
        return self._own
