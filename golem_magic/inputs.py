"""Anything people map over, drawn once, in order, in blocks of a good size; at once, or ahead of the work.

A plain ``for`` decides what the inputs are, except where that is never what is
meant: over a data frame it gives the columns' names, and we give its rows.
Libraries of arrays and frames are recognised if they are loaded, never
imported: without them nobody can hold one of theirs.
"""

import itertools
import math
import operator
import sys
import threading
import time
import warnings
from collections import deque, namedtuple
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from golem_magic.errors import PayloadError

BLOCK_BYTES = 1 << 20
MOST_INPUTS = 8192
PATIENCE_S = 0.02  # a slow source delivers what it has, so that workers can start


class Drawer:
    """Draws blocks: the first one holds one input and teaches the size of the next.

    Args:
        inputs: What to draw from.
        star: Each input will be spread over positional arguments.
        kwargs: Each input will be spread over arguments by name.

    Attributes:
        source: What is drawn from.
        count: How many inputs there will be, where that could be told without drawing one, else None.
        most: Inputs in the next block, at most.
        error: What the source raised, if it did; the inputs end there.

    Raises:
        PayloadError: Nothing can be drawn from these inputs.
    """

    def __init__(self, inputs: Iterable[Any], *, star: bool = False, kwargs: bool = False) -> None:
        try:
            rows = _rows(inputs, star=star, kwargs=kwargs)
        except TypeError as error:
            message = (
                f"inputs of type {type(inputs).__name__} cannot be iterated over: give a list or a generator"
            )
            raise PayloadError(message) from error
        self.source: Iterator[Any] = rows.each
        self.count = known_count(inputs)
        self.together = rows.together
        self.most = 1
        self.error: Exception | None = None
        self._is_over = False

    def next_block(self, *, patiently: bool = False) -> list[Any]:
        """The next inputs; empty when there are no more.

        Args:
            patiently: Wait until ``most`` have come, however slow the source is.
        """
        block: list[Any] = []
        step, began = 1, time.monotonic()
        most = self.most
        while not self._is_over and len(block) < most:
            is_late = not patiently and time.monotonic() - began > PATIENCE_S
            if block and is_late:  # an empty block would end the inputs
                break
            wanted = min(step, most - len(block))
            before = len(block)
            try:
                block.extend(islice(self.source, wanted))  # keeps what came before an exception
            except Exception as error:  # noqa: BLE001 - raised again where the reader gets to its place
                self.end(error)
            if len(block) - before < wanted:
                self._is_over = True
            step *= 8
        return self.together(block)

    def end(self, error: BaseException) -> None:
        """End the inputs here, because of ``error``, unless they have ended already."""
        self._is_over = True
        if self.error is None and isinstance(error, Exception):
            self.error = error
        elif self.error is None:  # raised as it is, it would end the reader's cell or loop
            self.error = PayloadError(f"the inputs were ended by {type(error).__name__}: {error}")
            self.error.__cause__ = error

    def learn(self, n_bytes: int, count: int) -> None:
        """Size the next block by what the last one took, so that memory stays flat."""
        mean = max(1.0, n_bytes / count)
        self.most = max(1, min(MOST_INPUTS, int(BLOCK_BYTES / mean)))


class Ahead:
    """Draws the rest of a source in a thread of its own, some way ahead of whoever takes it.

    A source may hang between two inputs for as long as it likes: what it gave before can be taken.
    Nothing can end one that hangs: after :meth:`stop` its thread ends when it goes on.
    """

    def __init__(self, drawer: Drawer, name: str) -> None:
        self._drawer = drawer
        self._drawn: deque[Any] = deque()
        self._most = 1
        self._news, self._room = threading.Event(), threading.Event()
        self._is_stopped = self._is_over = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether everything has been taken and nothing will follow."""
        return self._is_over and not self._drawn

    def take(self, most: int) -> list[Any]:
        """What is there, at most so much; from now on about as much again is kept ready."""
        self._news.clear()
        self._most = max(1, min(most, self._drawer.most))
        taken = [self._drawn.popleft() for _ in range(min(self._most, len(self._drawn)))]
        self._room.set()
        return self._drawer.together(taken)

    def wait(self, timeout_s: float) -> None:
        """Wait until there is something to take, but not for long."""
        self._news.wait(timeout_s)

    def stop(self) -> None:
        """Draw no more."""
        self._is_stopped = True
        self._room.set()

    def _run(self) -> None:
        try:
            for value in self._drawer.source:
                self._drawn.append(value)
                del value  # its block decides how long it lives
                self._news.set()
                while len(self._drawn) >= self._most and not self._is_stopped:
                    self._room.wait()
                    self._room.clear()
                if self._is_stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - SystemExit too is the source's here, and no wish of the user
            self._drawer.end(error)
        finally:
            self._is_over = True
            self._news.set()


# --- what people have ---


def known_count(inputs: Iterable[Any]) -> int | None:
    """How many inputs there are, where that can be told without drawing one; None elsewhere.

    What a source says of itself is believed: its length, or an iterator's hint. Products, permutations
    and combinations say nothing, but can be counted as long as nobody has drawn from them.
    """
    try:
        if type(inputs) in _COUNTED:
            return _n_combined(inputs)
        count = operator.length_hint(inputs, -1)
    except Exception:  # noqa: BLE001 - anybody's object; drawing will tell
        return None
    return count if count >= 0 else None


_COUNTED: dict[type, Callable[..., int]] = {
    itertools.product: lambda *pools: math.prod(map(len, pools)),
    itertools.permutations: lambda pool, r: math.perm(len(pool), r),
    itertools.combinations: lambda pool, r: math.comb(len(pool), r),
    itertools.combinations_with_replacement: lambda pool, r: (
        math.comb(len(pool) + r - 1, r) if pool else 0**r
    ),
}


def _n_combined(inputs: Any) -> int | None:
    """Count by what they would be pickled as: what they are made from and, once begun, where they are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 announces that 3.14 cannot pickle them: None then
        kind, made_from, *begun = inputs.__reduce__()
    return None if begun else _COUNTED[kind](*made_from)


class _Rows:
    """A source of inputs.

    Attributes:
        each: Gives them one by one.
    """

    def __init__(self, inputs: Iterable[Any]) -> None:
        self.each = iter(inputs)

    def together(self, rows: list[Any]) -> list[Any]:
        """The next rows, as they travel; called once for each row, in order."""
        return rows


class _ArrayRows(_Rows):
    """The rows of an array, or its numbers if it has one dimension: they travel as one array."""

    def __init__(self, array: Any) -> None:
        super().__init__(array)
        self._array = array
        self._at = 0

    def together(self, rows: list[Any]) -> list[Any]:
        start, self._at = self._at, self._at + len(rows)
        return _Block(rows, self._array[start : self._at]) if rows else rows


class _NamedRows(_Rows):
    """Rows that are namedtuples of one class: they travel as columns, and their class once a block."""

    def together(self, rows: list[Any]) -> list[Any]:
        if not rows:
            return rows
        columns = (list(column) for column in zip(*rows, strict=True))
        make = _Later(getattr, type(rows[0]), "_make")
        return _Block(rows, _Later(map, make, _Later(zip, *columns)))


def _rows(inputs: Any, *, star: bool, kwargs: bool) -> _Rows:
    if isinstance(inputs, _class("numpy", "ndarray")):
        return _ArrayRows(inputs)
    if isinstance(inputs, _class("pandas", "DataFrame")):
        if kwargs:
            return _Rows(_records(list(inputs.columns), inputs.itertuples(index=False, name=None)))
        return _NamedRows(inputs.itertuples(index=not star))
    if isinstance(inputs, _class("polars", "DataFrame")):
        if kwargs:
            return _Rows(_records(inputs.columns, inputs.iter_rows()))
        row = namedtuple("Row", inputs.columns, rename=True, module="polars")  # type: ignore[misc]  # not known before
        return _NamedRows(map(row._make, inputs.iter_rows()))
    if isinstance(inputs, _class("polars", "LazyFrame")):
        message = "inputs are a polars LazyFrame, whose rows are not computed yet: give frame.collect()"
        raise PayloadError(message)
    return _Rows(inputs)


def _class(library: str, name: str) -> Any:
    """A class of a library, if somebody has loaded it; else what nothing is an instance of."""
    return getattr(sys.modules.get(library), name, ())


def _records(names: list[Any], rows: Iterable[tuple[Any, ...]]) -> Iterator[dict[Any, Any]]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"kwargs spreads the frame's columns by name, and two are called {twice!r}: rename one"
        raise PayloadError(message)
    return (dict(zip(names, row, strict=True)) for row in rows)


class _Block(list[Any]):
    """Inputs that travel in a smaller form; over there they are a plain list again."""

    def __init__(self, rows: list[Any], form: Any) -> None:
        super().__init__(rows)
        self._form = form

    def __reduce__(self) -> Any:
        return list, (self._form,)


class _Later:
    """A call that is made when it is unpickled."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call
