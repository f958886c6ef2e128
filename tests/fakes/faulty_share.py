"""A file layer that misbehaves as network file systems do, on a seed's whim, in place of ``os`` in the share.

The files are real ones in a folder. Between them and the product stand *mounts*, one per virtual host:
listings may be up to a minute old (but never older than what the host itself did there), a name that was
not found stays not found for a while even after a listing shows it, replies are lost (the step was done,
the answer is an error, or "exists"), writes and reads are short, and any call may fail. Calls from
outside of virtual threads meet no faults.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fakes.faulty_os import READ_TROUBLE, FaultyOs, failed
from fakes.virtual_time import EndedError, Process, World

STALE_S = 60.0  # the oldest listing
REMEMBERED_S = (1.0, 10.0, 60.0)  # for how long a mount may remember that a name was not found
WRITE_TROUBLE = (*READ_TROUBLE, errno.ENOSPC, errno.EDQUOT)
UNKNOWN_EFFECT = (errno.EIO, errno.ETIMEDOUT)
READS = frozenset({"listdir", "readlink", "stat", "open", "read", "fstat", "pread"})


@dataclass
class Weather:
    """How often what goes wrong, each a chance per call; after ``until`` nothing does.

    Attributes:
        stale: A listing is old.
        forgotten: A name that was not found is remembered as such.
        trouble: A call fails and has no effect.
        lost: A call has its effect, and fails.
        twice: A creation has its effect, was sent again, and answers "exists".
        late: What was written could not be kept after all, as closing tells.
        short: A write or read handles less than it was asked to.
        slow: A call takes seconds.
        spells: ``(from, to, host or None for all, errno, only writes)``: every such call fails.
    """

    until: float = float("inf")
    stale: float = 0.0
    forgotten: float = 0.0
    trouble: float = 0.0
    lost: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    short: float = 0.0
    slow: float = 0.0
    spells: list[tuple[float, float, str | None, int, bool]] = field(default_factory=list)

    @classmethod
    def drawn(cls, chance: random.Random, until: float, *, longest_spell_s: float = 45.0) -> "Weather":
        """Some of the faults, each rare or frequent: so that each is met with and without the others."""

        def rate(*rates: float) -> float:
            return chance.choice((0.0, *rates))

        weather = cls(
            until=until,
            stale=rate(0.1, 0.5, 0.95),
            forgotten=rate(0.2, 0.9),
            trouble=rate(0.005, 0.05),
            lost=rate(0.005, 0.05),
            twice=rate(0.02, 0.2),
            late=rate(0.01, 0.1),
            short=rate(0.1, 0.6),
            slow=rate(0.01, 0.03),
        )
        for _ in range(chance.choice((0, 0, 1, 2))):
            start = chance.uniform(0.5, until)
            end = min(until, start + chance.uniform(0.5, longest_spell_s))
            only_writes = chance.random() < 0.5
            number = chance.choice((errno.ENOSPC, errno.EDQUOT, errno.EIO) if only_writes else READ_TROUBLE)
            host = chance.choice((None, "h0", "h1", "desk"))
            weather.spells.append((start, end, host, number, only_writes))
        return weather


class FaultyShare:
    """The server and its mounts.

    Attributes:
        on_link: Told of every symbolic link when it is made: target, path.
        on_unlink: Told of every path before it is removed.
        written: Descriptors that were written to.
    """

    def __init__(self, root: str, world: World, weather: Weather) -> None:
        self._root = root
        self._world = world
        self.chance = random.Random(world.chance.random())
        self.weather = weather
        self.on_link: Callable[[str, str], None] = lambda _target, _path: None
        self.on_unlink: Callable[[str], None] = lambda _path: None
        self.n_faults = 0
        self._listings: dict[str, list[tuple[float, frozenset[str]]]] = {}
        self._own_change: dict[tuple[str, str], float] = {}
        self._absent: dict[tuple[str, str], float] = {}
        self._owners: dict[int, Process] = {}
        self.written: set[int] = set()

    @contextmanager
    def mounted(self, *modules: Any) -> Iterator[None]:
        """Let these modules see the share through its mounts."""
        layer = FaultyOs(self)
        using = [module for module in modules if vars(module).get("os") is os]
        for module in using:
            module.os = layer
            module.open = layer.fopen  # found before the builtin
        try:
            yield
        finally:
            for module in using:
                module.os = os
                del module.open
            for fd in list(self._owners):
                os.close(fd)

    # -- where we are ----------------------------------------------------------------------------------

    @property
    def process(self) -> Process | None:
        """The virtual process that calls; None from outside."""
        current = self._world.current
        return current.process if current is not None else None

    def knows(self, path: str) -> bool:
        """Whether a path is on the share and comes from a virtual process."""
        return self.process is not None and path.startswith(self._root)

    def hit(self, rate: float) -> bool:
        """Whether a fault of this rate happens now."""
        is_hit = self._world.now < self.weather.until and self.chance.random() < rate
        self.n_faults += is_hit
        return is_hit

    def delay(self) -> None:
        """The way to the server, mostly short."""
        slow = self.hit(self.weather.slow)
        self._world.sleep(self.chance.uniform(0.5, 15.0) if slow else self.chance.expovariate(200.0))

    def call(self, kind: str, effect: Callable[[], Any], *, creates: bool = False) -> Any:
        """Do a call with all that may befall it, whatever ``effect`` raises included."""
        process = self.process
        assert process is not None
        if process.is_dead:
            raise EndedError
        replies_late = self.chance.random() < 0.3
        if not replies_late:
            self.delay()
        self._spell(kind, process)
        trouble = READ_TROUBLE if kind in READS and not creates else WRITE_TROUBLE
        if self.hit(self.weather.trouble):
            raise failed(self.chance.choice(trouble))
        answer = effect()
        if kind not in READS and self.hit(self.weather.lost):
            replies_late, answer = False, failed(self.chance.choice(UNKNOWN_EFFECT))
        elif creates and self.hit(self.weather.twice):
            replies_late, answer = False, FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        if replies_late:
            self.delay()
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _spell(self, kind: str, process: Process) -> None:
        now = self._world.now
        for start, end, host, number, only_writes in self.weather.spells:
            if start <= now < end and host in (None, process.host) and not (only_writes and kind in READS):
                self.n_faults += 1
                raise failed(number)

    # -- names -----------------------------------------------------------------------------------------

    def changed(self, path: str) -> None:
        """Note that a name came or went."""
        folder = os.path.dirname(path)
        names = frozenset(os.listdir(folder))
        self._listings.setdefault(folder, [(float("-inf"), frozenset())]).append((self._world.now, names))
        if self.process is not None:
            self._own_change[self.process.host, folder] = self._world.now
            self._absent.pop((self.process.host, path), None)

    def listing(self, folder: str) -> list[str]:
        """The names as this mount shows them now, in any order."""
        process = self.process
        assert process is not None
        names: frozenset[str] | list[str] = os.listdir(folder)
        history = self._listings.get(folder)
        if history and self.hit(self.weather.stale):
            at = self._world.now - self.chance.uniform(0.0, STALE_S)
            at = max(at, self._own_change.get((process.host, folder), float("-inf")))
            names = next(known for since, known in reversed(history) if since <= at)
        found = sorted(names)
        self.chance.shuffle(found)
        return found

    def look_up(self, path: str) -> None:
        """Fail if this mount remembers that the name was not found."""
        process = self.process
        assert process is not None
        key = process.host, path
        if self._absent.get(key, 0.0) > self._world.now:
            raise failed(errno.ENOENT)
        if not os.path.lexists(path) and self.hit(self.weather.forgotten):
            self._absent[key] = self._world.now + self.chance.choice(REMEMBERED_S)

    def forget_absence(self, path: str) -> None:
        """A refused creation tells the mount that the name is there."""
        if self.process is not None:
            self._absent.pop((self.process.host, path), None)

    # -- descriptors: those of a process that is killed are closed with it -----------------------------

    def opened(self, fd: int) -> int:
        """Remember whose a descriptor is."""
        process = self.process
        if process is not None:
            self._owners[fd] = process
            if self._close_all not in process.on_end:
                process.on_end.append(self._close_all)
        return fd

    def is_ours(self, fd: int) -> bool:
        """Whether a descriptor was opened by the process that calls."""
        return fd in self._owners and self._owners[fd] is self.process

    def closed(self, fd: int) -> None:
        """Close a descriptor, once."""
        if self._owners.pop(fd, None) is not None:
            os.close(fd)

    def _close_all(self) -> None:
        for fd, process in list(self._owners.items()):
            if process.is_dead:
                self.closed(fd)
