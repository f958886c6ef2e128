"""Leases whose workers may be lost: watched, closed, and at last given the outcome "its worker died".

Beats are compared with themselves by our own clock: the stamps of two machines
are never compared. Every act is one exclusive creation, so doing it twice, or
by two dispatchers, does no harm; "exists" means that the owner just wrote.
"""

import os
from collections.abc import Callable

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.model import Failure
from golem_magic.planner import SilentLease
from golem_magic.share import files, outcome_files
from golem_magic.share.book import LeaseLog
from golem_magic.share.jobs import Manifest, ask_to_cancel
from golem_magic.share.layout import JobPaths

Sign = tuple[int, int | None]  # entries in the log, newest beat that names the lease


class Healer:
    """Watches the open leases of one job; used by its dispatcher's thread alone."""

    def __init__(self, paths: JobPaths, manifest: Manifest, writer: str, clock: Clock) -> None:
        self._paths = paths
        self._manifest = manifest
        self._writer = writer
        self._clock = clock
        self._signs: dict[str, tuple[Sign, float]] = {}
        self._open: dict[str, LeaseLog] = {}

    def watch(self, leases: list[LeaseLog], has_ended: Callable[[str], bool]) -> list[SilentLease]:
        """How long each open lease has shown neither an entry nor a beat that names it."""
        self._open = {str(log.lease): log for log in leases}
        self._signs = {name: sign for name, sign in self._signs.items() if name in self._open}
        return [self._watch_one(name, log, has_ended(log.worker)) for name, log in self._open.items()]

    def close(self, name: str) -> None:
        """Take a lease away; what it has not done is free."""
        log = self._open[name]
        files.link(f"lost:{self._writer}", f"{self._paths.rounds}/{name}+{log.next_entry}")
        self._signs.pop(name, None)

    def condemn(self, name: str) -> None:
        """Record that the worker of this lease's one task was lost every time."""
        log = self._open[name]
        generation = log.lease.generation
        failure = Failure(
            kind="died",
            exception=None,
            type_name="WorkerDied",
            message=f"its worker was lost {generation} times while it held this task",
            traceback=files.tail(self._paths.log(log.worker)),
            host="an unknown host",
            worker=log.worker,
            attempt=generation,
        )
        frame = payload.dump(([None], {0: failure}))
        writer = f"{self._writer}-{os.urandom(2).hex()}"
        target = outcome_files.write(self._paths, log.lease.start, frame, (1, 1), writer)
        if not files.link(target, f"{self._paths.rounds}/{name}+{log.next_entry}"):
            outcome_files.remove(self._paths, target)
        elif self._manifest.on_error == "stop":
            ask_to_cancel(self._paths)
        self._signs.pop(name, None)

    def _watch_one(self, name: str, log: LeaseLog, has_ended: bool) -> SilentLease:
        now = self._clock.now()
        (n_entries, beat), since = self._signs.get(name, ((-1, None), now))
        if n_entries != log.next_entry:
            n_entries, beat, since = log.next_entry, None, now
        elif now - since > self._manifest.lease_s / 2:
            found = files.read_beat(self._paths.beat(log.worker))
            if found is not None and found[1] == name and found[0] != beat:
                beat, since = found[0], now
        self._signs[name] = ((n_entries, beat), since)
        is_alone = log.lease.end - log.lease.start == 1
        return SilentLease(
            name=name,
            silent_s=now - since,
            worker_ended=has_ended,
            # The first loss was shared with neighbours: only those that the task had alone count.
            is_deadly=is_alone and log.lease.generation > self._manifest.max_attempts,
        )
