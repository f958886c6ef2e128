"""Workers that were placed and do not come: who is missing, and why nobody works.

An engine counts processes that it has handed to a machine as running, also
where the machine never starts them. Whoever starts opens a log on the share:
who has no log after a while is not there, whatever the engine says.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from golem_magic.clock import Clock
from golem_magic.dispatcher.courier import Courier
from golem_magic.engines.base import TellsNodes, TellsStarted
from golem_magic.model import NativeId, Node, PlacementState, PlacementStatus
from golem_magic.planner import ALIVE
from golem_magic.share import files
from golem_magic.share.layout import JobPaths

# A worker is missing when it has not come two checks after it was due. Chosen by feel: a cold
# start of Python from a slow share takes some seconds.
CHECK_S = 30.0
EXPLAIN_S = 4.0  # without anybody at work, before that is explained; and between two looks at the nodes


@dataclass(slots=True)
class _Roll:
    """What is known of one placement.

    Attributes:
        n_started: Workers that had been handed to machines at the last check, as far as that can be known.
        n_absent: Those of them that had not come by the check after that.
    """

    check_at_s: float
    n_started: int = 0
    n_arrived: int = 0
    n_absent: int = 0


class Absence:
    """Watches for workers to come; used by the dispatcher's thread alone."""

    def __init__(self, paths: JobPaths, courier: Courier, clock: Clock) -> None:
        self._paths = paths
        self._courier = courier
        self._clock = clock
        self._rolls: dict[NativeId, _Roll] = {}
        self._idle_since_s: float | None = None
        self._nodes: list[Node] | None = None
        self._nodes_at_s = 0.0
        self._reason = ""  # why the engine lets workers wait, in its own words

    @property
    def n_slots(self) -> int | None:
        """Workers that can run at once, if that was asked for lately: nobody works."""
        return None if self._nodes is None else sum(max(0, node.n_slots) for node in self._nodes)

    def n_absent(self, native: NativeId, status: PlacementStatus) -> int:
        """Workers of a placement that count as running and have not come for long."""
        roll = self._rolls.get(native)
        return min(roll.n_absent, status.n_workers - status.n_ended) if roll and status.state in ALIVE else 0

    def is_whole(self, native: NativeId, status: PlacementStatus) -> bool:
        """Whether nobody at all of a placement has come."""
        n_absent = self.n_absent(native, status)
        return n_absent > 0 and n_absent == status.n_workers - status.n_ended

    def look(self, statuses: Mapping[NativeId, PlacementStatus], *, is_idle: bool) -> None:
        """See who has come.

        Args:
            statuses: The engine's newest word on each placement.
            is_idle: Workers are placed, there is work, and nobody is at it.
        """
        now = self._clock.now()
        waiting = [each.reason for each in statuses.values() if each.state is PlacementState.PENDING]
        self._reason = next(filter(None, waiting), "")
        if not is_idle:
            self._idle_since_s, self._nodes = None, None
        elif self._idle_since_s is None:
            self._idle_since_s, self._nodes_at_s = now, now + EXPLAIN_S
        elif (
            now >= self._nodes_at_s
            and not self._reason
            and self._courier.send("nodes", _nodes, self._see_nodes)
        ):
            self._nodes_at_s = now + EXPLAIN_S
        due = [native for native, status in statuses.items() if self._is_due(native, status)]
        if due and not self._courier.is_at("roll"):
            self._call_the_roll(due[0], statuses[due[0]])

    def note(self, planned: int) -> str:
        """Why nobody works, or how many are missing; empty while all is well."""
        idle_s = 0.0 if self._idle_since_s is None else self._clock.now() - self._idle_since_s
        n_absent = sum(roll.n_absent for roll in self._rolls.values())
        missing = (
            f"{n_absent} of the workers that were handed to machines never came: Golem's workers there may "
            f"need to be restarted"
            if n_absent
            else ""
        )
        if idle_s < EXPLAIN_S:
            return missing
        why = self._reason or _why(self._nodes, planned)
        waiting = f"no worker has been at work for {idle_s:.0f} s: {why}"
        return "; ".join(filter(None, [waiting, missing]))

    def _see_nodes(self, nodes: list[Node] | None) -> None:
        self._nodes = nodes

    def _is_due(self, native: NativeId, status: PlacementStatus) -> bool:
        if status.state not in ALIVE:
            self._rolls.pop(native, None)
            return False
        roll = self._rolls.setdefault(native, _Roll(self._clock.now() + CHECK_S))
        return self._clock.now() >= roll.check_at_s

    def _call_the_roll(self, native: NativeId, status: PlacementStatus) -> None:
        """Count who has come of those that were due at the last check; ask who is due at the next."""
        roll = self._rolls[native]
        roll.n_arrived = self._arrived()[native[:8]]
        n_known = roll.n_arrived + status.n_errored  # who ended badly need not have come
        roll.n_absent = max(0, roll.n_started - n_known)
        roll.check_at_s = self._clock.now() + CHECK_S
        if n_known >= status.n_workers:
            roll.check_at_s = math.inf
            return

        def learn(n_started: int | None) -> None:
            roll.n_started = n_started or 0

        def ask(engine: object) -> int | None:
            return engine.n_started(native) if isinstance(engine, TellsStarted) else None

        self._courier.send("roll", ask, learn)

    def _arrived(self) -> Counter[str]:
        """How many workers of each placement have opened a log; a placement goes by its first letters."""
        logs = [name for name in files.names(self._paths.workers) if name.endswith(".log")]
        workers = {tuple(name.split("-")[:2]) for name in logs}
        return Counter(placement for placement, *_ in workers)


def _nodes(engine: object) -> list[Node] | None:
    return engine.nodes() if isinstance(engine, TellsNodes) else None


def _why(nodes: list[Node] | None, planned: int) -> str:
    if nodes is None:
        return f"{planned} are asked for, and the engine does not say what it waits for"
    n_slots = sum(max(0, node.n_slots) for node in nodes)
    if not n_slots:
        return "the engine has no slots; start its workers, or give them slots"
    n_taken = sum(min(max(0, node.n_slots), node.n_running) for node in nodes)
    where = f"{n_slots} slots on {len(nodes)} machine{'s' * (len(nodes) != 1)}"
    if n_taken >= n_slots:
        return f"all {where} are taken; the job goes on when one is free"
    return (
        f"{n_slots - n_taken} of {where} are free, so they should be starting; if none comes, the machines "
        f"are overloaded, or Golem's workers there need to be restarted"
    )
