"""Anything people map over, drawn once, in order, in blocks of a good size; at once, or ahead of the work."""

import threading
import time
from collections import deque
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
        source: What is drawn from.
        most: Inputs in the next block, at most.
        error: What the source raised, if it did; the inputs end there.
    """

    def __init__(self, inputs: Iterable[Any]) -> None:
        try:
            self.source: Iterator[Any] = iter(inputs)
        except TypeError as error:
            message = (
                f"inputs of type {type(inputs).__name__} cannot be iterated over: give a list or a generator"
            )
            raise PayloadError(message) from error
        self.most = 1
        self.error: Exception | None = None
        self._is_over = False

    def next_block(self) -> list[Any]:
        """The next inputs; empty when there are no more."""
        block: list[Any] = []
        step, began = 1, time.monotonic()
        most = self.most
        while not self._is_over and len(block) < most:
            if block and time.monotonic() - began > PATIENCE_S:  # an empty block would end the inputs
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
        return block

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
        return taken

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
