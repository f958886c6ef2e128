"""Leases whose workers may be lost: watched, closed, and at last given the outcome "its worker died".

Beats are compared with themselves by our own clock: the stamps of two machines
are never compared. Every act is one exclusive creation, so doing it twice, or
by two dispatchers, does no harm; "exists" means that the owner just wrote.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.model import Failure, PlacementState
from golem_magic.planner import ALIVE, SilentLease
from golem_magic.share import files, outcome_files
from golem_magic.share.book import LeaseLog
from golem_magic.share.jobs import Manifest, ask_to_cancel
from golem_magic.share.layout import JobPaths

# An engine that says "ended" is believed when as many beats are missing: its word may be a guess, and a
# worker whose lease is taken away again and again would look like one that its tasks have killed.
MISSING_BEATS = 2.0
IDLE_BEATS, IDLE_PART = 3, 0.01  # so many signs of life with so little processor time are told; as in GridMap


@dataclass(slots=True)
class _Sign:
    """The newest sign of life of one lease: an entry of its log, or a beat that names it."""

    since_s: float
    n_entries: int = -1
    beat: int | None = None
    read_at_s: float = 0.0
    cpu: list[tuple[float, float]] = field(default_factory=list)  # when, and seconds used until then

    @property
    def is_stalled(self) -> bool:
        """Whether beat after beat tells of no work: waiting is legal, so this is only told."""
        if len(self.cpu) <= IDLE_BEATS:
            return False
        (begun_s, begun), (now_s, now) = self.cpu[-IDLE_BEATS - 1], self.cpu[-1]
        return now - begun <= IDLE_PART * (now_s - begun_s)


class Healer:
    """Watches the open leases of one job; used by its dispatcher's thread alone."""

    def __init__(self, paths: JobPaths, manifest: Manifest, writer: str, clock: Clock) -> None:
        self._paths = paths
        self._manifest = manifest
        self._writer = writer
        self._clock = clock
        self._signs: dict[str, _Sign] = {}
        self._open: dict[str, LeaseLog] = {}
        self._strays: dict[str, float] = {}  # and when they last showed a sign of life

    @property
    def n_strays(self) -> int:
        """Workers that are at work although the engine says that they have ended, or does not know them."""
        return len(self._strays)

    def watch(self, leases: list[LeaseLog], word_on: Callable[[str], PlacementState]) -> list[SilentLease]:
        """How long each open lease has shown neither an entry nor a beat that names it.

        Args:
            leases: All that are open.
            word_on: Gives the engine's word on the placement of a worker.
        """
        now = self._clock.now()
        self._open = {str(log.lease): log for log in leases}
        self._signs = {name: sign for name, sign in self._signs.items() if name in self._open}
        words = {log.worker: word_on(log.worker) for log in leases}
        seen = [self._watch_one(name, log, words[log.worker]) for name, log in self._open.items()]
        for lease in seen:
            worker = self._open[lease.name].worker
            if words[worker] not in ALIVE and lease.silent_s <= self._patience_s:
                self._strays[worker] = now - lease.silent_s
        self._strays = {
            worker: at for worker, at in self._strays.items() if now - at <= self._patience_s
        }  # between two leases as well
        return seen

    def note(self) -> str:
        """Who seems to stand still; empty if nobody does."""
        for name, sign in self._signs.items():
            if sign.is_stalled and name in self._open:
                quiet_s = self._clock.now() - sign.cpu[0][0]
                return (
                    f"worker {self._open[name].worker} has used no processor for {quiet_s:.0f} s: its task "
                    f"waits for input or the network, or hangs; a timeout would end it"
                )
        return ""

    def close(self, name: str) -> str:
        """Take a lease away; what it has not done is free. Give the worker that held it."""
        log = self._open[name]
        files.link(f"lost:{self._writer}", f"{self._paths.rounds}/{name}+{log.next_entry}")
        self._signs.pop(name, None)
        return log.worker

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

    @property
    def _patience_s(self) -> float:
        return MISSING_BEATS * self._manifest.beat_s

    def _watch_one(self, name: str, log: LeaseLog, word: PlacementState) -> SilentLease:
        now = self._clock.now()
        sign = self._signs.setdefault(name, _Sign(now))
        is_doubtful = word not in ALIVE
        quiet_s = self._manifest.beat_s / 2 if is_doubtful else self._manifest.lease_s / 2
        if sign.n_entries != log.next_entry:
            sign.n_entries, sign.beat, sign.since_s = log.next_entry, None, now
            sign.cpu.clear()
        elif now - sign.since_s > quiet_s and now >= sign.read_at_s:
            sign.read_at_s = now + self._manifest.beat_s / 4
            found = files.read_beat(self._paths.beat(log.worker))
            if found is not None and found[1] == name and found[0] != sign.beat:
                sign.beat, sign.since_s = found[0], now
                sign.cpu.append((now, found.cpu_s))
        is_alone = log.lease.end - log.lease.start == 1
        silent_s = now - sign.since_s
        return SilentLease(
            name=name,
            silent_s=silent_s,
            worker_ended=word is PlacementState.ENDED and silent_s > self._patience_s,
            # The first loss was shared with neighbours: only those that the task had alone count.
            is_deadly=is_alone and log.lease.generation > self._manifest.max_attempts,
        )
