"""The user's one object: results in input order while the job runs, by index, or as they come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, overload

from golem_magic import outcomes
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import ExecutionFailure, JobCancelled, JobError, ResultConsumed, ShareError
from golem_magic.model import Failure, JobId, JobSnapshot, JobState, OnError
from golem_magic.share import outcome_files
from golem_magic.share.layout import Done
from golem_magic.share.logs import Logs, read_logs

MISSING = object()


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
        *,
        on_error: OnError = "raise",
        unordered: bool = False,
        source_error: Callable[[], Exception | None] = lambda: None,
    ) -> None:
        self._dispatcher = dispatcher
        self._on_error = on_error
        self._unordered = unordered
        self._source_error = source_error
        self._own: ResultIterator | None = None
        self._cached: tuple[Done, list[Any]] | None = None

    @property
    def job_id(self) -> JobId:
        """The job's id; ``golem_magic.attach(job_id)`` finds it again from anywhere."""
        return self._dispatcher.manifest.job_id

    @property
    def progress(self) -> JobSnapshot:
        """The newest picture of the job."""
        return self._dispatcher.snapshot()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the job is over or ``timeout`` seconds have passed; tell whether it is over."""
        __tracebackhide__ = True
        self._dispatcher.wait(lambda: False, timeout)
        return self.progress.state.is_final

    def cancel(self) -> None:
        """End the job; results that are there stay readable. Doing it twice is harmless.

        Raises:
            ShareError: The workers could not be told.
        """
        self._dispatcher.cancel()

    def to_list(self) -> list[Any]:
        """All results, waiting for them."""
        __tracebackhide__ = True
        return list(self)

    def errors(self) -> dict[int, BaseException]:
        """The exceptions of the tasks that have failed so far, by task index."""
        found = outcomes.Errors()
        for entry in sorted(self._dispatcher.book.order):
            with suppress(ResultConsumed):
                for position, outcome in enumerate(self._load(entry) if entry.failed else ()):
                    if type(outcome) is Failure:
                        index = entry.start + position
                        found[index] = outcomes.rebuild(outcome, index)
        return found

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
        if self._frees:
            message = f"job {self.job_id[:8]} frees results in the order of the inputs: iterate over them"
            raise JobError(message)
        return CompletionIterator(self)

    def __iter__(self) -> Iterator[Any]:
        if self._frees:
            return self._own_pass()
        return _Values(CompletionIterator(self)) if self._unordered else ResultIterator(self)

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
        if type(outcome) is not Failure:
            return outcome
        error = outcomes.rebuild(outcome, position)
        if self._on_error == "return":
            return error
        raise error

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
        entry = self._wait_for(position)
        if entry is None:
            raise self._absence(position)
        if self._cached is None or self._cached[0] != entry:
            self._cached = (entry, self._read(entry))
        return self._cached[1][position - entry.start]

    @property
    def _frees(self) -> bool:
        return self._dispatcher.manifest.keep == "unread"

    def _own_pass(self) -> ResultIterator:
        if self._own is None:
            self._own = ResultIterator(self, self._first_kept() if self._frees else 0)
        return self._own

    def _first_kept(self) -> int:
        """The first task whose outcome has not been freed; they are freed in order."""
        book, position = self._dispatcher.book, 0
        published: list[Done] = []
        while (entry := book.entry_with(position)) is not None:
            published.append(entry)
            position = entry.end
        number = bisect_left(
            published, True, key=lambda each: outcome_files.is_kept(self._dispatcher.paths, each)
        )
        return published[number].start if number < len(published) else position

    def _read(self, entry: Done) -> list[Any]:
        """The outcomes of an entry, which count as read from now on."""
        found = self._load(entry)
        self._dispatcher.reading.note(entry)
        return found

    def _load(self, entry: Done) -> list[Any]:
        """The outcomes of an entry.

        Raises:
            ResultConsumed: They have been freed.
        """
        __tracebackhide__ = True
        try:
            return outcome_files.read(self._dispatcher.paths, entry)
        except ShareError as error:
            if self._frees and isinstance(error.__cause__, FileNotFoundError):
                message = f"results {entry.start} to {entry.end - 1} were read and freed (keep='unread')"
                raise ResultConsumed(message) from None
            raise

    def _free(self, entry: Done) -> None:
        """Give the space of an entry back: the one pass has left it behind."""
        if self._frees:
            outcome_files.remove(self._dispatcher.paths, entry.file)
            self._dispatcher.reading.note_freed(entry)

    def _wait_for(self, position: int) -> Done | None:
        """The entry that holds a task's outcome; None if it will never come."""
        __tracebackhide__ = True
        book = self._dispatcher.book
        entry = book.entry_with(position)
        if entry is None:
            self._dispatcher.reading.want(position)
            self._dispatcher.wait(lambda: self._is_there(position))
            entry = book.entry_with(position)
        return entry

    def _is_there(self, position: int) -> bool:
        n_tasks = self._dispatcher.n_tasks
        return self._dispatcher.book.entry_with(position) is not None or (
            n_tasks is not None and position >= n_tasks
        )

    def _after_gap(self, position: int) -> int:
        """Where to go on after telling why there is no outcome: once per gap if the job was given up."""
        if self._dispatcher.error is None:
            return position + 1
        following = self._dispatcher.book.next_start(position)
        return following if following is not None else max(position + 1, self._dispatcher.n_tasks or 0)

    def _is_behind_end(self, position: int) -> bool:
        n_tasks = self._dispatcher.n_tasks
        if n_tasks is None and self._dispatcher.error is not None:
            n_tasks = self._dispatcher.book.n_in_rounds  # of inputs that were never closed
        return n_tasks is not None and position >= n_tasks

    def _absence(self, position: int) -> BaseException:
        """Why a task has no outcome and will get none."""
        if self._dispatcher.fatal is not None:
            return outcomes.rebuild(self._dispatcher.fatal, None)
        if self._dispatcher.error is not None:
            return self._dispatcher.error.with_traceback(None)  # else each raise would add its frames
        if self.progress.state is JobState.CANCELLED:
            what = f"job {self.job_id[:8]} was cancelled"
            first = self.progress.first_failure
            if self._on_error == "stop" and first is not None:
                what = f"job {self.job_id[:8]} was stopped because task {first[0]} failed ({first[1]})"
            return JobCancelled(f"{what} before task {position} had an outcome")
        snapshot = self.progress
        missing = (snapshot.n_tasks or snapshot.n_staged) - snapshot.n_done - snapshot.n_failed
        return ExecutionFailure(f"{missing} tasks of job {self.job_id[:8]} gave no outcome, {position} first")


class ResultIterator:
    """One pass over the results in input order; a class, so that it can go on after an exception."""

    def __init__(self, results: Results, start: int = 0) -> None:
        self._results = results
        self._values: list[Any] = []  # of the file being read, last one first: handed out is gone
        self._end = start  # index behind that file
        self._entry: Done | None = None
        self._has_told_end = False

    @property
    def position(self) -> int:
        """Index of the task whose result comes next."""
        return self._end - len(self._values)

    def __iter__(self) -> ResultIterator:
        return self

    def __next__(self) -> Any:
        __tracebackhide__ = True
        while True:
            if not self._values:
                self._load()
            outcome = self._values.pop()
            if type(outcome) is not Failure:
                return outcome
            policy = self._results._on_error
            if policy == "skip":
                continue
            error = outcomes.rebuild(outcome, self.position - 1)
            if policy == "return":
                return error
            raise error

    def _load(self) -> None:
        """Read the file that starts here, waiting for it."""
        __tracebackhide__ = True
        results = self._results
        passed, self._entry = self._entry, None
        if passed is not None:
            results._free(passed)
        entry = results._wait_for(self._end)
        if entry is not None:
            try:
                self._values = results._read(entry)
            except ResultConsumed:  # by another kernel
                self._end = entry.end
                raise
            self._values.reverse()
            self._end, self._entry = entry.end, entry
            return
        if results._is_behind_end(self._end):
            error = None if self._has_told_end else results._source_error()
            self._has_told_end = True
            raise error or StopIteration  # what ended the inputs, once
        absence = results._absence(self._end)
        self._end = results._after_gap(self._end)
        raise absence


class CompletionIterator:
    """Pairs of task index and result, in the order in which outcomes were published."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._n_entries = 0
        self._index = 0
        self._values: list[Any] = []
        self._has_told_end = False

    def __iter__(self) -> CompletionIterator:
        return self

    def __next__(self) -> tuple[int, Any]:
        __tracebackhide__ = True
        while True:
            while not self._values:
                self._load()
            outcome = self._values.pop()
            index = self._index
            self._index += 1
            if type(outcome) is not Failure:
                return index, outcome
            policy = self._results._on_error
            if policy == "skip":
                continue
            error = outcomes.rebuild(outcome, index)
            if policy == "return":
                return index, error
            raise error

    def _load(self) -> None:
        __tracebackhide__ = True
        results = self._results
        dispatcher = results._dispatcher
        order = dispatcher.book.order
        if self._n_entries >= len(order):
            dispatcher.wait(lambda: len(order) > self._n_entries)
        if self._n_entries >= len(order):
            if dispatcher.snapshot().state is JobState.DONE:
                error = None if self._has_told_end else results._source_error()
                self._has_told_end = True
                raise error or StopIteration  # what ended the inputs, once
            raise results._absence(dispatcher.book.n_outcomes)
        entry = order[self._n_entries]
        self._n_entries += 1
        self._values = results._read(entry)
        self._values.reverse()
        self._index = entry.start


class _Values:
    """The values of pairs."""

    def __init__(self, pairs: CompletionIterator) -> None:
        self._pairs = pairs

    def __iter__(self) -> _Values:
        return self

    def __next__(self) -> Any:
        __tracebackhide__ = True
        return next(self._pairs)[1]
