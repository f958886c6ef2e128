"""The processes for which the master stays."""

import threading

from golem_magic.clock import Clock, SystemClock
from golem_magic.master.jobs import Refused
from golem_magic.master.trees import is_alive, start_of

FIRST_CLIENT_S = 30.0  # chosen by feel: time for whoever started the master to say so


class Clients:
    """Registered client processes, and how long the master has been without one.

    Args:
        linger_s: How long to stay without clients and without unfinished jobs; may be infinite.
        clock: Time.
    """

    def __init__(self, linger_s: float, clock: Clock | None = None) -> None:
        self._linger_s = linger_s
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._started: dict[int, str] = {}
        self._is_dismissed = False
        self._needed_until_s = self._clock.now() + max(linger_s, FIRST_CLIENT_S)

    def register(self, pid: int) -> None:
        """Stay while this process lives. Twice is harmless.

        Raises:
            Refused: 400, there is no such process.
        """
        started = start_of(pid) if pid > 0 else ""
        if not started:
            raise Refused(400, f"no process {pid}")
        with self._lock:
            self._started[pid] = started

    def dismiss(self) -> None:
        """Stay for no client any more: there is a newer master."""
        self._is_dismissed = True

    def is_time_to_leave(self, *, is_idle: bool) -> bool:
        """Whether nobody has needed us for long enough. Ask about once a second.

        Args:
            is_idle: Whether all jobs are over.
        """
        if self._is_dismissed:
            return is_idle
        with self._lock:
            gone = [pid for pid, started in self._started.items() if not is_alive(pid, started)]
            for pid in gone:
                del self._started[pid]
            now_s = self._clock.now()
            if gone or self._started or not is_idle:
                self._needed_until_s = now_s + self._linger_s
            return now_s >= self._needed_until_s
