"""What has been published of one job: waiting for it, reading it, and why something will never come."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from golem_magic import outcomes
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import ExecutionFailure, JobCancelled, ResultConsumed, ShareError
from golem_magic.model import Failure, JobState, OnError
from golem_magic.results.retries import Retries
from golem_magic.share import attention, outcome_files
from golem_magic.share.layout import Done


class Published:
    """The outcomes of a job as those who iterate need them.

    Attributes:
        on_error: What an iterator does at a task that failed.
        frees: Whether the space of what has been passed is given back.
        retries: What became of failed tasks that were run again.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        retries: Retries,
        on_error: OnError,
        source_error: Callable[[], Exception | None],
    ) -> None:
        self.on_error = on_error
        self._source_error = source_error
        self.frees = dispatcher.manifest.keep == "unread"
        self.retries = retries
        self._dispatcher = dispatcher
        self._is_noted = False

    # -- entries ---------------------------------------------------------------------------------------

    def entries(self) -> list[Done]:
        """All entries there are now, in input order."""
        return sorted(list(self._dispatcher.book.order))  # noqa: C414 - list() first: one step, whoever adds

    def entry_number(self, number: int) -> Done | None:
        """The entry that came as the ``number``-th, waiting for it; None if it will never come."""
        __tracebackhide__ = True
        order = self._dispatcher.book.order
        if number >= len(order):
            self._dispatcher.wait(lambda: len(order) > number)
        return order[number] if number < len(order) else None

    def wait_for(self, position: int) -> Done | None:
        """The entry that holds a task's outcome; None if it will never come."""
        __tracebackhide__ = True
        book = self._dispatcher.book
        entry = book.entry_with(position)
        if entry is None:
            self._dispatcher.reading.want(position)
            self._dispatcher.wait(lambda: self._is_there(position))
            entry = book.entry_with(position)
        return entry

    def first_kept(self) -> int:
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

    def is_kept(self, entry: Done) -> bool:
        """Whether the outcomes of an entry have not been freed."""
        return not self.frees or outcome_files.is_kept(self._dispatcher.paths, entry)

    # -- outcomes --------------------------------------------------------------------------------------

    def read(self, entry: Done) -> list[Any]:
        """The outcomes of an entry, which count as read from now on."""
        __tracebackhide__ = True
        found = self.load(entry)
        self._dispatcher.reading.note(entry)
        if not self._is_noted and self._is_complete:
            self._note_read()
        return found

    def load(self, entry: Done) -> list[Any]:
        """The outcomes of an entry.

        Raises:
            ResultConsumed: They have been freed.
        """
        __tracebackhide__ = True
        if entry.failed:
            self.retries.look()
        try:
            return outcome_files.read(self._dispatcher.paths, entry)
        except ShareError as error:
            if self.frees and isinstance(error.__cause__, FileNotFoundError):
                message = f"results {entry.start} to {entry.end - 1} were read and freed (keep='unread')"
                raise ResultConsumed(message) from None
            raise

    def free(self, entry: Done) -> None:
        """Give the space of an entry back: the one pass has left it behind."""
        if self.frees:
            outcome_files.remove(self._dispatcher.paths, entry.file)
            self._dispatcher.reading.note_freed(entry)

    def settled(self, index: int, failure: Failure, *, wait: bool = True) -> Any:
        """What became of a failed task: a value if it was run again with success, else :class:`Failed`.

        Args:
            index: Of the task.
            failure: Its outcome in the job itself.
            wait: Wait for it if it is being run again; else the failure stands until that has ended.
        """
        __tracebackhide__ = True
        outcome = self.retries.outcome(index, failure, wait=wait)
        return Failed(outcomes.rebuild(outcome, index)) if type(outcome) is Failure else outcome

    # -- ends and gaps ---------------------------------------------------------------------------------

    @property
    def n_outcomes(self) -> int:
        """How many outcomes there are."""
        return self._dispatcher.book.n_outcomes

    @property
    def is_done(self) -> bool:
        """Whether every task has an outcome."""
        return self._dispatcher.snapshot().state is JobState.DONE

    def is_behind_end(self, position: int) -> bool:
        """Whether there is no such task."""
        n_tasks = self._dispatcher.n_tasks
        if n_tasks is None and self._dispatcher.error is not None:
            n_tasks = self._dispatcher.book.n_in_rounds  # of inputs that were never closed
        return n_tasks is not None and position >= n_tasks

    def source_error(self) -> BaseException | None:
        """What ended the inputs, the source or the end of the client that drew; None if they just ended."""
        if self._dispatcher.n_tasks is None and self._dispatcher.error is not None:
            self._note_read()
            return self._dispatcher.error.with_traceback(None)
        return self._source_error()

    def after_gap(self, position: int) -> int:
        """Where to go on after telling why there is no outcome: once per gap if the job was given up."""
        if self._dispatcher.error is None:
            return position + 1
        following = self._dispatcher.book.next_start(position)
        return following if following is not None else max(position + 1, self._dispatcher.n_tasks or 0)

    def absence(self, position: int) -> BaseException:
        """Why a task has no outcome and will get none."""
        self._note_read()
        job = self._dispatcher.manifest.job_id[:8]
        if self._dispatcher.fatal is not None:
            return outcomes.rebuild(self._dispatcher.fatal, None)
        if self._dispatcher.error is not None:
            return self._dispatcher.error.with_traceback(None)  # else each raise would add its frames
        snapshot = self._dispatcher.snapshot()
        if snapshot.state is JobState.CANCELLED:
            what = f"job {job} was cancelled"
            first = snapshot.first_failure
            if self.on_error == "stop" and first is not None:
                what = f"job {job} was stopped because task {first[0]} failed ({first[1]})"
            return JobCancelled(f"{what} before task {position} had an outcome")
        return ExecutionFailure(f"{snapshot.n_lost} tasks of job {job} gave no outcome, {position} first")

    @property
    def _is_complete(self) -> bool:
        """As :attr:`is_done`, and known no later than the last outcome is handed out."""
        n_tasks = self._dispatcher.n_tasks
        return n_tasks is not None and self._dispatcher.book.n_outcomes >= n_tasks

    def _note_read(self) -> None:
        """Leave a note that somebody knows how the job has ended."""
        self._is_noted = True
        attention.note_read(self._dispatcher.paths)

    def _is_there(self, position: int) -> bool:
        n_tasks = self._dispatcher.n_tasks
        return self._dispatcher.book.entry_with(position) is not None or (
            n_tasks is not None and position >= n_tasks
        )


class Failed:
    """The exception of a task, told from an exception that a task returned."""

    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = error
