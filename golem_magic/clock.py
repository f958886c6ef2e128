"""The time, and how to wait: the one place where tests can take hold of both."""

import time
from typing import Protocol


class Clock(Protocol):
    """What the dispatcher and the engines need of time."""

    def now(self) -> float:
        """Seconds on a clock that never goes back; only differences mean something."""

    def sleep(self, seconds: float) -> None:
        """Wait ``seconds`` (>= 0)."""


class SystemClock:
    """This machine's monotonic clock."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        time.sleep(seconds)


def wall_time() -> float:
    """Seconds since 1970 in UTC: for people to read, never for decisions."""
    return time.time()
