"""What a job's folder says about its tasks: rounds, leases, their logs, outcomes.

Names only ever get added, so what was read once stays true and is never read
again; a listing that misses names makes a reader late, not wrong. A round
whose tasks all have outcomes is not listed any more: a look costs what is
open, not what is done.
"""

import bisect
from dataclasses import dataclass, field

from golem_magic.errors import FormatError
from golem_magic.model import Head, WorkerId
from golem_magic.pacing import divide
from golem_magic.share import files
from golem_magic.share.layout import Cut, Done, Entry, JobPaths, Lease, Lost, parse_entry, parse_lease, signer


@dataclass(slots=True)
class LeaseLog:
    """A lease and what its log says so far."""

    lease: Lease
    worker: WorkerId
    entries: dict[int, Entry] = field(default_factory=dict)

    @property
    def next_entry(self) -> int:
        """Number of the first entry that is not known."""
        number = 0
        while number in self.entries:
            number += 1
        return number

    @property
    def done_to(self) -> int:
        """First task without an outcome."""
        at = self.lease.start
        for number in range(self.next_entry):
            entry = self.entries[number]
            if isinstance(entry, Done):
                at = entry.end
        return at

    @property
    def cuts(self) -> list[tuple[int, int]]:
        """What was released: ``[at, end)`` each."""
        end, parts = self.lease.end, []
        for number in range(self.next_entry):
            entry = self.entries[number]
            if isinstance(entry, Cut):
                parts.append((entry.at, end))
                end = entry.at
        return parts

    @property
    def end(self) -> int:
        """Where the lease ends now."""
        cuts = self.cuts
        return cuts[-1][0] if cuts else self.lease.end

    @property
    def is_closed(self) -> bool:
        """Whether its owner may not continue: lost, or somebody else wrote the last outcome."""
        last = self.entries.get(self.next_entry - 1)
        return isinstance(last, Lost) or (isinstance(last, Done) and signer(last.writer) != self.worker)

    def successors(self, workers: int) -> list[Lease]:
        """What became free of this lease, as leases to be had.

        A cut keeps the generation. What a closed lease left undone is the next
        one, and from the second loss on its first task stands alone: should that
        task be what kills workers, nobody else is blamed with it.
        """
        number, generation = self.lease.round, self.lease.generation
        free = [
            Lease(number, start, end, generation) for cut in self.cuts for start, end in divide(*cut, workers)
        ]
        if self.is_closed and not self.is_finished:
            first, end = self.done_to, self.end
            alone = [(first, first + 1)] if generation > 1 else []
            parts = [*alone, *divide(first + len(alone), end, workers)]
            free += [Lease(number, start, stop, generation + 1) for start, stop in parts]
        return free

    @property
    def is_finished(self) -> bool:
        """Whether every task it still covers has an outcome."""
        return self.done_to >= self.end


@dataclass(slots=True)
class Round:
    """One round as far as it is known."""

    number: int
    head: Head | None = None
    seen: set[str] = field(default_factory=set)
    leases: dict[Lease, LeaseLog] = field(default_factory=dict)
    n_outcomes: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether each of its tasks has an outcome."""
        return self.head is not None and self.n_outcomes >= self.head.end - self.head.start

    def unclaimed(self) -> list[Lease]:
        """First leases that nobody has taken."""
        ranges = self.head.ranges() if self.head else []
        wanted = (Lease(self.number, start, end, 1) for start, end in ranges)
        return [lease for lease in wanted if lease not in self.leases]


class Book:
    """All that has been read of one job; grows with every :meth:`look`.

    One thread looks. Others may read ``done``, ``order``, ``n_outcomes``, ``n_failed`` and ``n_bytes``
    at any time: each is only ever extended, by single steps of the interpreter.

    Attributes:
        lost: Workers whose lease somebody else has closed.
        last_takeover: The worker that was lost last, and the one that took over from it; None so far.
    """

    def __init__(self, paths: JobPaths) -> None:
        self._paths = paths
        self.open_rounds: dict[int, Round] = {}
        self._complete: set[int] = set()
        self.top: Round | None = None
        self.done: dict[int, Done] = {}
        self.order: list[Done] = []
        self._starts: list[int] = []
        self.n_outcomes = 0
        self.n_failed = 0
        self.n_bytes = 0
        self.lowest_failing: Done | None = None
        self.lost: set[WorkerId] = set()
        self.last_takeover: tuple[WorkerId, WorkerId] | None = None

    def look(self) -> bool:
        """Read what is new; tell whether anything was."""
        news = False
        for name in files.names(self._paths.rounds):
            number = int(name) if name.isdigit() else -1  # a file system's own names are none of ours
            if number < 0 or number in self._complete:
                continue
            known = self.open_rounds.get(number)
            if known is None:
                known = self.open_rounds[number] = Round(number)
                if self.top is None or number > self.top.number:
                    self.top = known
            news = self._look_into(known) or news
            if known.is_complete:
                self._complete.add(number)
                del self.open_rounds[number]
        return news

    def entry_with(self, task: int) -> Done | None:
        """The entry that holds a task's outcome, None if there is none yet."""
        found = self.done.get(task)
        if found is not None:
            return found
        starts = self._starts
        if len(starts) != len(self.done):
            starts = self._starts = sorted(list(self.done))  # noqa: C414 - list() first: one step, whoever adds
        position = bisect.bisect_right(starts, task) - 1
        if position < 0:
            return None
        found = self.done[starts[position]]
        return found if task < found.end else None

    def next_start(self, task: int) -> int | None:
        """The first task behind ``task`` at which an entry with outcomes begins."""
        return min((start for start in list(self.done) if start > task), default=None)

    @property
    def n_in_rounds(self) -> int:
        """Tasks that some round covers."""
        heads = [each.head for each in (self.top, *self.open_rounds.values()) if each and each.head]
        return max((head.end for head in heads), default=0)

    def free_leases(self, workers: int, *, rounds_behind: int = 0) -> list[Lease]:
        """Every lease that can be had and that nobody has taken, as far as is known.

        Args:
            workers: How many are planned; decides how rests are divided.
            rounds_behind: Leave out first leases of the newest rounds, for which
                workers may just be on their way.
        """
        free: list[Lease] = []
        newest = self.top.number - rounds_behind if self.top else 0
        for each in self.open_rounds.values():
            wanted = each.unclaimed() if each.number <= newest else []
            for log in each.leases.values():
                wanted += log.successors(workers)
            free += [lease for lease in wanted if lease not in each.leases]
        return free

    def open_leases(self) -> list[LeaseLog]:
        """Leases that may still get entries."""
        logs = (log for each in self.open_rounds.values() for log in each.leases.values())
        return [log for log in logs if not log.is_closed and not log.is_finished]

    def _look_into(self, known: Round) -> bool:
        folder = f"{self._paths.rounds}/{known.number}"
        new = [name for name in files.names(folder) if name not in known.seen]
        new.sort(key=len)  # leases before the entries of their logs
        news = False
        for name in new:
            target = files.read_link(f"{folder}/{name}")
            if target is None:  # listed, not yet readable: next look
                continue
            if not self._note(known, name, target):
                continue
            known.seen.add(name)
            news = True
        return news

    def _note(self, known: Round, name: str, target: str) -> bool:
        if name == "head":
            known.head = parse_head(target)
            return True
        lease_name, _, number = name.partition("+")
        lease = parse_lease(known.number, lease_name)
        if not number:
            known.leases[lease] = LeaseLog(lease, signer(target))
            self._note_takeover(known, lease, signer(target))
            return True
        log = known.leases.get(lease)
        if log is None:  # its lease was not readable yet
            return False
        entry = parse_entry(target)
        log.entries[int(number)] = entry
        if isinstance(entry, Done):
            self._count(known, entry)
        by = entry.by if isinstance(entry, Lost) else signer(entry.writer) if isinstance(entry, Done) else ""
        if by and by != log.worker:
            self.lost.add(log.worker)
        return True

    def _note_takeover(self, known: Round, lease: Lease, worker: WorkerId) -> None:
        """See from whom a lease of a later generation was taken over."""
        if lease.generation > 1:
            for log in known.leases.values():
                first = log.lease
                if first.generation == lease.generation - 1 and first.start <= lease.start < first.end:
                    self.last_takeover = (log.worker, worker)

    def _count(self, known: Round, entry: Done) -> None:
        n_tasks = entry.end - entry.start
        known.n_outcomes += n_tasks
        self.done[entry.start] = entry
        self.order.append(entry)
        self.n_outcomes += n_tasks
        self.n_bytes += entry.size
        if entry.failed:
            self.n_failed += entry.failed
            if self.lowest_failing is None or entry.start < self.lowest_failing.start:
                self.lowest_failing = entry


def parse_head(target: str) -> Head:
    """Read what a round's head says."""
    try:
        start, length, slots, end = map(int, target.split())
    except ValueError as error:
        message = f"{target!r} is no head of a round"
        raise FormatError(message) from error
    return Head(start, length, slots, end)


def read_lease_log(paths: JobPaths, name: str) -> LeaseLog | None:
    """One lease with its log, read afresh; None if it is not there."""
    number, _, lease_name = name.partition("/")
    folder = f"{paths.rounds}/{number}"
    target = files.read_link(f"{folder}/{lease_name}")
    if target is None:
        return None
    log = LeaseLog(parse_lease(int(number), lease_name), signer(target))
    for each in files.names(folder):
        if each.startswith(f"{lease_name}+"):
            target = files.read_link(f"{folder}/{each}")
            if target is not None:
                log.entries[int(each[len(lease_name) + 1 :])] = parse_entry(target)
    return log
