"""How much was going on: a line every ten seconds while there is work, in a file of bounded size.

A line holds five whole numbers: seconds since 1970, jobs of which a task runs, jobs that wait for
their first slot, slots taken, slots. ``golem-magic nodes --last HOURS`` reads them.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from golem_magic.clock import Clock, SystemClock, wall_time
from golem_magic.master.jobs import Job

STEP_S = 10.0  # the original's
MAX_BYTES = 1 << 18  # a day of work, or somewhat more; when reached, the older half goes


class Usage:
    """The record of one master; only its main loop writes it.

    Args:
        path: The file, which outlives the master.
        clock: Time.
    """

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._due_s = self._clock.now()

    def look(self, unfinished: Callable[[], list[Job]], *, n_running: int, n_slots: int) -> None:
        """Add a line if it is time and there is any work; call it about once a second.

        Args:
            unfinished: Gives the jobs of which something runs or will; asked if it is time.
            n_running: Slots taken.
            n_slots: Slots.
        """
        now_s = self._clock.now()
        if now_s < self._due_s or not (jobs := unfinished()):
            return
        self._due_s = now_s + STEP_S
        n_active = sum(job.n_alive > 0 for job in jobs)
        numbers = (int(wall_time()), n_active, len(jobs) - n_active, n_running, n_slots)
        with suppress(OSError):  # a full disk must not end the work
            self._append(" ".join(map(str, numbers)) + "\n")

    def _append(self, line: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line.encode())
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        if size > MAX_BYTES:
            self._shorten()

    def _shorten(self) -> None:
        newer = self._path.read_bytes()[-MAX_BYTES // 2 :]
        part = self._path.with_suffix(".part")
        part.write_bytes(newer.partition(b"\n")[2])
        part.chmod(0o600)
        part.replace(self._path)
