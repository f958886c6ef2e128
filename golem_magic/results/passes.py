"""Passes over results: classes, since a generator would end with the first exception it lets out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from golem_magic.errors import ResultConsumed
from golem_magic.model import Failure
from golem_magic.results.published import Failed, Published
from golem_magic.share.layout import Done


class ResultIterator:
    """One pass over the results in input order."""

    def __init__(self, published: Published, start: int = 0) -> None:
        self._published = published
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
            self._values.append(outcome)  # an interrupt while waiting must not skip it
            settled = self._published.settled(self.position, outcome)
            self._values.pop()
            if type(settled) is not Failed:
                return settled
            policy = self._published.on_error
            if policy == "skip":
                continue
            if policy == "return":
                return settled.error
            raise settled.error

    def _load(self) -> None:
        """Read the file that starts here, waiting for it."""
        __tracebackhide__ = True
        published = self._published
        passed, self._entry = self._entry, None
        if passed is not None:
            published.free(passed)
        entry = published.wait_for(self._end)
        if entry is not None:
            try:
                self._values = published.read(entry)
            except ResultConsumed:  # by another kernel
                self._end = entry.end
                raise
            self._values.reverse()
            self._end, self._entry = entry.end, entry
            return
        if published.is_behind_end(self._end):
            error = None if self._has_told_end else published.source_error()
            self._has_told_end = True
            raise error or StopIteration  # what ended the inputs, once
        absence = published.absence(self._end)
        self._end = published.after_gap(self._end)
        raise absence


class PairIterator:
    """Pairs of task index and result, file by file.

    Args:
        published: Of the job.
        next_entry: Gives the next file; raises what ends the pass, StopIteration if nothing is wrong.
        wait: Wait for failed tasks that are being run again.
    """

    def __init__(self, published: Published, next_entry: Callable[[], Done], *, wait: bool) -> None:
        self._published = published
        self._next_entry = next_entry
        self._wait = wait
        self._index = 0
        self._values: list[Any] = []

    def __iter__(self) -> PairIterator:
        return self

    def __next__(self) -> tuple[int, Any]:
        __tracebackhide__ = True
        while True:
            while not self._values:
                self._load()
            outcome, index = self._values.pop(), self._index
            self._index += 1
            if type(outcome) is not Failure:
                return index, outcome
            self._values.append(outcome)  # an interrupt while waiting must not skip it
            self._index = index
            settled = self._published.settled(index, outcome, wait=self._wait)
            self._values.pop()
            self._index += 1
            if type(settled) is not Failed:
                return index, settled
            policy = self._published.on_error
            if policy == "skip":
                continue
            if policy == "return":
                return index, settled.error
            raise settled.error

    def _load(self) -> None:
        __tracebackhide__ = True
        entry = self._next_entry()
        self._values = self._published.read(entry)
        self._values.reverse()
        self._index = entry.start


class Coming:
    """The files of a job in the order in which they come, for :class:`PairIterator`."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._n_entries = 0
        self._has_told_end = False

    def __call__(self) -> Done:
        """The next file, waiting for it."""
        __tracebackhide__ = True
        published = self._published
        entry = published.entry_number(self._n_entries)
        if entry is not None:
            self._n_entries += 1
            return entry
        if published.is_done:
            error = None if self._has_told_end else published.source_error()
            self._has_told_end = True
            raise error or StopIteration  # what ended the inputs, once
        raise published.absence(published.n_outcomes)


class There:
    """The files that there are at one moment, in input order, for :class:`PairIterator`."""

    def __init__(self, published: Published) -> None:
        self._published = published
        self._entries = iter(published.entries())

    def __call__(self) -> Done:
        """The next file that has not been freed."""
        __tracebackhide__ = True
        return next(entry for entry in self._entries if self._published.is_kept(entry))


class Values:
    """The values of pairs."""

    def __init__(self, pairs: Iterator[tuple[int, Any]]) -> None:
        self._pairs = pairs

    def __iter__(self) -> Values:
        return self

    def __next__(self) -> Any:
        __tracebackhide__ = True
        return next(self._pairs)[1]
