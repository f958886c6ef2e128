"""The open connections of the embedded Golem: only so many, and nobody silent for long.

A thread serves each connection, so connections that are merely held open would pile up threads and
descriptors. Who takes too long is hung up on; and when there are too many, whoever has been owing a
request with the password longest. Clients open a new connection when they next need one.
"""

import socket
import threading
from contextlib import suppress
from dataclasses import dataclass

from golem_magic.clock import Clock, SystemClock

MOST = 128  # descriptors: macOS gives a process 256
PATIENCE_S = 60.0  # without a whole head, or without progress of a body or an answer; chosen by feel


@dataclass(slots=True)
class _State:
    heard_s: float  # when it last made progress
    is_trusted: bool = False  # has a request with the password in service


class Connections:
    """Any thread may call.

    Args:
        most: How many stay open.
        clock: Time.
    """

    def __init__(self, most: int = MOST, clock: Clock | None = None) -> None:
        self._most = most
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._open: dict[socket.socket, _State] = {}

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: socket.socket) -> None:
        """Note a new connection, and hang up on another one, or on it, if it is one too many."""
        with self._lock:
            self._open[connection] = _State(self._clock.now())
            if len(self._open) > self._most:
                owing = [each for each, state in self._open.items() if not state.is_trusted]
                self._hang_up(min(owing, key=lambda each: self._open[each].heard_s))

    def heard(self, connection: socket.socket, *, is_trusted: bool | None = None) -> None:
        """Note that a connection has made progress.

        Args:
            connection: Which one; unknown ones are none of ours any more.
            is_trusted: Whether a request with the password is in service; None for no change.
        """
        with self._lock:
            state = self._open.get(connection)
            if state is not None:
                state.heard_s = self._clock.now()
                state.is_trusted = state.is_trusted if is_trusted is None else is_trusted

    def remove(self, connection: socket.socket) -> None:
        """Forget a connection; call it before closing, since a descriptor may be given out again."""
        with self._lock:
            self._open.pop(connection, None)

    def drop_late(self) -> None:
        """Hang up on whoever has made no progress for too long."""
        with self._lock:
            late_s = self._clock.now() - PATIENCE_S
            late = [each for each, state in self._open.items() if state.heard_s < late_s]
            for connection in late:
                self._hang_up(connection)

    def _hang_up(self, connection: socket.socket) -> None:
        """Let its thread see the end of the connection; that thread closes it."""
        del self._open[connection]
        with suppress(OSError):  # the other side was quicker
            connection.shutdown(socket.SHUT_RDWR)
