"""Where a worker's next lease comes from: its own released parts, the rounds, what others offer.

Create first, never look first: a name that only others make is found by
listing, and every claim is one exclusive creation.
"""

import os
import random
from collections.abc import Callable
from contextlib import suppress

from golem_magic.clock import Clock
from golem_magic.errors import FormatError, ShareError
from golem_magic.model import Head
from golem_magic.pacing import Pace, divide, is_worth_a_round, open_round, patience_s, stride
from golem_magic.share import files
from golem_magic.share.book import Book, parse_head
from golem_magic.share.inputs_log import InputReader, count_inputs
from golem_magic.share.jobs import Manifest, client_numbers
from golem_magic.share.layout import JobPaths, Lease, parse_offer
from golem_magic.share.space import space_at
from golem_magic.worker.patience import LONGEST_S, patiently

LOOK_AT_DISK_S = 1.0
PAUSE_S = (0.001, 0.02)  # between two looks of a worker without work, growing
SWEEPERS = 4  # so many workers, on average, sweep at a time


class Claims:
    """One worker's way through a job."""

    def __init__(  # noqa: PLR0913 - what a worker is, handed over once by the runner
        self,
        paths: JobPaths,
        manifest: Manifest,
        inputs: InputReader,
        clock: Clock,
        leaving: Callable[[], bool],
        signature: str,
        number: int,
    ) -> None:
        self._paths = paths
        self._clock = clock
        self._leaving = leaving
        self._manifest = manifest
        self._inputs = inputs
        self._signature = signature
        self._tried: set[Lease] = set()
        self._number = number
        self._book = Book(paths)
        self._own: list[Lease] = []
        self._announced: set[Lease] = set()
        self._n_inputs: int | None = None
        self._round = 0
        self._head: Head | None = None
        self._previous: Head | None = None
        self._slot = 0
        self._misses = 0
        self._looked_at_disk_s: float | None = None
        self._is_disk_low = False
        self._claimed_s = clock.now()
        patiently(self._join, clock, leaving)

    def next(self, pace: Pace) -> Lease | None:
        """Claim the next lease; None when there is nothing left to do here.

        Waits for inputs that are still being staged, and for offers as long as
        that promises more than it costs.
        """
        idle_since: float | None = None
        client = _ClientWatch(self._paths, self._manifest.lease_s)
        pause_s = PAUSE_S[0]
        while not self._leaving():
            is_held = patiently(self._is_held, self._clock, self._leaving)
            lease = None if is_held else patiently(lambda: self._claim(pace), self._clock, self._leaving)
            if lease is not None:
                return lease
            now = self._clock.now()
            idle_since = now if is_held else idle_since or now
            n_announced = len(self._announced)
            if patiently(self._is_over, self._clock, self._leaving):
                return None
            if len(self._announced) > n_announced:
                idle_since = now = self._clock.now()  # we have found work that nobody holds: do not leave it
            if self._n_inputs is None:
                if client.is_gone(now):
                    return None
            elif now - idle_since > patience_s(pace, self._manifest.workers):
                return None
            self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_S[1])
        return None

    def released(self, start: int, end: int, lease: Lease) -> None:
        """Announce tasks that this worker handed back, and remember to try them itself."""
        parts = [
            Lease(lease.round, a, b, lease.generation) for a, b in divide(start, end, self._manifest.workers)
        ]
        self._own = list(parts)
        for part in parts:
            files.touch(f"{self._paths.offers}/{part.offer}")

    def wait_for_inputs(self, end: int) -> None:
        """Wait until the inputs before ``end``, which others have seen, are seen from here too.

        Raises:
            ShareError: They do not show up.
        """
        until = self._clock.now() + LONGEST_S
        refresh = self._inputs.refresh
        while self._inputs.staged < end and not self._leaving():
            if patiently(refresh, self._clock, self._leaving) >= end:
                return
            if self._clock.now() > until:
                message = f"inputs before {end} are not to be seen in {self._paths.inputs_index}"
                raise ShareError(message)
            self._clock.sleep(PAUSE_S[1])

    def _is_held(self) -> bool:
        """Whether to begin nothing new: results pile up, nobody frees them, and the disk is nearly full."""
        now = self._clock.now()
        if self._looked_at_disk_s is None or now - self._looked_at_disk_s >= LOOK_AT_DISK_S:
            self._looked_at_disk_s = now
            self._is_disk_low = self._manifest.keep == "all" and space_at(self._paths.root).is_low
        return self._is_disk_low

    def _claim(self, pace: Pace) -> Lease | None:
        return self._claim_own() or self._claim_slot(pace) or self._claim_offer()

    def _claim_own(self) -> Lease | None:
        return self._first_free(self._own)

    def _claim_offer(self) -> Lease | None:
        offers = []
        for name in files.names(self._paths.offers):
            with suppress(FormatError):
                offers.append(parse_offer(name))
        return self._first_free(sorted(offers, key=lambda lease: lease.start))

    def _first_free(self, offers: list[Lease]) -> Lease | None:
        while offers:
            lease = offers.pop(0)
            taken = self._take(lease)
            with suppress(OSError):  # a hint that stays is tried in vain
                os.unlink(f"{self._paths.offers}/{lease.offer}")
            if taken:
                return lease
        return None

    def _take(self, lease: Lease) -> bool:
        """Claim a lease, once: a name that bears our signature already may be one that we have finished.

        The same name again after trouble whose effect is not known: what was claimed then is ours to run.
        """
        if lease in self._tried:
            return False
        self._tried.add(lease)
        path = f"{self._paths.rounds}/{lease}"
        return patiently(lambda: files.link(self._signature, path), self._clock, self._leaving)

    def _claim_slot(self, pace: Pace) -> Lease | None:
        """Take the next slot of the current round, or go on to the next round."""
        while True:
            if self._head is None:
                self._head = self._open_round(pace)
                if self._head is None:
                    return None
                self._enter_round()
            while self._misses < 2:
                span = self._head.slot(self._slot)
                self._slot = (self._slot + 1) % self._head.slots
                if span is not None and self._take(lease := Lease(self._round, *span, 1)):
                    self._misses, self._claimed_s = 1, self._clock.now()
                    return lease
                self._misses += 1
            self._previous, self._head, self._round = self._head, None, self._round + 1

    def _open_round(self, pace: Pace) -> Head | None:
        if self._inputs.staged <= (self._previous.end if self._previous else 0):
            self._inputs.refresh()
        if self._shall_gather(pace):
            return None
        workers = self._manifest.workers
        proposal = open_round(
            pace,
            previous=self._previous,
            staged=self._inputs.staged,
            slots=max(workers, self._number + 1),
            workers=workers,
            chunk_size=self._manifest.chunk_size,
        )
        if proposal is None:
            return None
        files.make_folder(f"{self._paths.rounds}/{self._round}")
        head = f"{self._paths.rounds}/{self._round}/head"
        if files.link(f"{proposal.start} {proposal.length} {proposal.slots} {proposal.end}", head):
            return proposal
        found = files.read_link(head)  # after a refused creation the name is not remembered as absent
        return parse_head(found) if found is not None else None

    def _shall_gather(self, pace: Pace) -> bool:
        """Whether inputs are still being drawn, and there are too few yet for a round."""
        if self._n_inputs is not None or self._manifest.chunk_size is not None:
            return False
        ready = self._inputs.refresh() - (self._previous.end if self._previous else 0)
        waited_s = self._clock.now() - self._claimed_s
        if ready <= 0 or is_worth_a_round(
            pace, ready=ready, workers=self._manifest.workers, waited_s=waited_s
        ):
            return False
        self._n_inputs = count_inputs(self._paths)
        if self._n_inputs is not None:
            self._inputs.refresh()
        return self._n_inputs is None

    def _enter_round(self) -> None:
        assert self._head is not None
        self.wait_for_inputs(self._head.end)
        self._slot = self._number * stride(self._head.slots) % self._head.slots
        self._misses = 0

    def _join(self) -> None:
        """Start with the newest round, so that a late worker catches up with nothing."""
        known = (int(name) for name in files.names(self._paths.rounds) if name.isdigit())
        for number in sorted(known, reverse=True):
            found = files.read_link(f"{self._paths.rounds}/{number}/head")
            if found is not None:
                self._round, self._head = number, parse_head(found)
                self._enter_round()
                return

    def _is_over(self) -> bool:
        """Sweep: announce what nobody holds; tell whether every task has its outcome."""
        if self._n_inputs is None:
            self._n_inputs = count_inputs(self._paths)
            if self._n_inputs is not None:
                self._inputs.refresh()
                return False  # one more round may have become possible
        if self._manifest.workers > SWEEPERS and random.random() > SWEEPERS / self._manifest.workers:
            return False
        self._book.look()
        if self._n_inputs is not None and self._book.n_outcomes >= self._n_inputs:
            return True
        for lease in self._book.free_leases(self._manifest.workers):
            files.touch(f"{self._paths.offers}/{lease.offer}")
            self._announced.add(lease)
        return False


class _ClientWatch:
    """Whether any client of the job still beats: one of them stages the inputs."""

    def __init__(self, paths: JobPaths, lease_s: float) -> None:
        self._paths = paths
        self._lease_s = lease_s
        self._last: list[object] | None = None
        self._moved_at = 0.0

    def is_gone(self, now: float) -> bool:
        numbers = sorted(client_numbers(files.names(self._paths.control)))
        beats: list[object] = [files.read_beat(self._paths.client_beat(number)) for number in numbers]
        if beats != self._last:
            self._last, self._moved_at = beats, now
        return now - self._moved_at > self._lease_s
