"""Anything people map over, drawn once, in order, in blocks of a good size."""

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from golem_magic.errors import PayloadError

BLOCK_BYTES = 1 << 20
MOST_INPUTS = 8192
PATIENCE_S = 0.02  # a slow source delivers what it has, so that workers can start


class Drawer:
    """Draws blocks: the first one holds one input and teaches the size of the next.

    Attributes:
        error: What the source raised, if it did; the inputs end there.
        is_alone: It is drawn in a thread of its own. Then a ``SystemExit`` or ``KeyboardInterrupt`` is the
            source's too; in the caller's thread it is a wish of the user, and passes.
    """

    def __init__(self, inputs: Iterable[Any]) -> None:
        try:
            self._source: Iterator[Any] = iter(inputs)
        except TypeError as error:
            message = (
                f"inputs of type {type(inputs).__name__} cannot be iterated over: give a list or a generator"
            )
            raise PayloadError(message) from error
        self._most = 1
        self._limit = MOST_INPUTS
        self.error: Exception | None = None
        self.is_alone = False
        self._is_over = False

    def next_block(self) -> list[Any]:
        """The next inputs; empty when there are no more."""
        block: list[Any] = []
        step, began = 1, time.monotonic()
        most = min(self._most, self._limit)
        while not self._is_over and len(block) < most and time.monotonic() - began < PATIENCE_S:
            wanted = min(step, most - len(block))
            before = len(block)
            try:
                block.extend(islice(self._source, wanted))  # keeps what came before an exception
            except BaseException as error:
                if not isinstance(error, Exception) and not self.is_alone:
                    raise
                self.end(error)
            if len(block) - before < wanted:
                self._is_over = True
            step *= 8
        return block

    def end(self, error: BaseException) -> None:
        """End the inputs here, because of ``error``, unless they have ended already."""
        self._is_over = True
        if self.error is None and isinstance(error, Exception):
            self.error = error
        elif self.error is None:  # raised as it is, it would end the reader's cell or loop
            self.error = PayloadError(f"the inputs were ended by {type(error).__name__}: {error}")
            self.error.__cause__ = error

    def limit(self, count: int) -> None:
        """Draw at most ``count`` inputs the next time."""
        self._limit = max(1, count)

    def learn(self, n_bytes: int, count: int) -> None:
        """Size the next block by what the last one took, so that memory stays flat."""
        mean = max(1.0, n_bytes / count)
        self._most = max(1, min(MOST_INPUTS, int(BLOCK_BYTES / mean)))
