"""Every decision of the client about a running job; pure: no file, clock, thread or engine.

The dispatcher looks, asks :func:`plan`, and acts. All actions may be repeated
and are derived from what was seen, so two dispatchers of one job do no harm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from golem_magic.model import JobState, NativeId, PlacementState, PlacementStatus

SETTLE_S = 0.3  # free work must lie about so long before more workers are asked for
PATIENCE_S = {
    False: 5.0,
    True: 120.0,
}  # with an engine in trouble: before and after it first accepted workers
AHEAD_S = 2.0  # how far a stream is drawn ahead of the work, in seconds of it; chosen by feel
WINDOW_PER_WORKER = 32  # and in tasks per worker, while nothing is known
MOST_AT_ONCE = 1 << 16
MOST_BAD_PLACEMENTS = 3  # in a row, without any outcome in between
ALIVE = (PlacementState.PENDING, PlacementState.RUNNING)  # of these workers run, or are still to come


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentLease:
    """A lease that is neither finished nor closed.

    Attributes:
        name: Round and range, as the share names it.
        silent_s: Seconds without a new entry and without a beat that names it.
        worker_ended: The engine says that its worker's whole placement has ended.
        is_deadly: It covers one task whose worker was lost often enough.
    """

    name: str
    silent_s: float
    worker_ended: bool
    is_deadly: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look found.

    Attributes:
        n_tasks: Number of tasks, None while inputs are being staged.
        n_free: Leases or tasks nobody holds, as far as is known (0 is none).
        free_s: For how long there have been some without a break.
        trouble_s: Seconds since the engine last answered, 0 if it did.
        refused: The engine refused for good.
        n_bad: Placements in a row that are gone, or whose workers never came, and brought no outcome.
        n_strays: Workers at work that the engine does not count: it forgot them, or takes them for ended.
        n_absent: Workers that the engine counts and that never came.
        n_slots: Workers that the engine can run at once, None if that is not known now.
        is_hopeless: The job cannot be done: the client that was drawing the inputs has died over
            it, or the set-up function raises.
        may_place: This client is the one that places workers.
    """

    n_tasks: int | None
    n_outcomes: int
    n_free: int
    free_s: float
    leases: Sequence[SilentLease]
    lease_s: float
    placements: Mapping[NativeId, PlacementStatus]
    workers: int
    trouble_s: float = 0.0
    refused: bool = False
    n_bad: int = 0
    n_strays: int = 0
    n_absent: int = 0
    n_slots: int | None = None
    is_cancelled: bool = False
    is_hopeless: bool = False
    may_place: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """What bears on how many more inputs workers may see.

    Attributes:
        n_shown: Inputs that workers can see.
        wanted: Tasks that readers need: up to the one behind those handed to them, or the one asked for.
        outcome_bytes: Mean size of a published outcome, 0 before the first.
        unread_bytes: Outcomes on the share that no reader has been handed.
        tasks_per_s: Outcomes per second, over the job so far.
        disk_budget: Most unread bytes wanted, None for no limit.
    """

    n_shown: int
    n_outcomes: int
    wanted: int
    outcome_bytes: float
    unread_bytes: int
    workers: int
    tasks_per_s: float
    is_stream: bool
    disk_budget: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """Ask the engine for so many workers."""

    count: int


@dataclass(frozen=True, slots=True)
class Close:
    """Take a lease away from a worker that is lost."""

    name: str


@dataclass(frozen=True, slots=True)
class Condemn:
    """Give the one task of this lease the outcome "its worker died"."""

    name: str


@dataclass(frozen=True, slots=True)
class Finish:
    """The job is over."""

    state: JobState


Action = Place | Close | Condemn | Finish


def plan(seen: Seen) -> list[Action]:
    """Decide what to do now."""
    if seen.n_tasks is not None and seen.n_outcomes >= seen.n_tasks:
        return [Finish(JobState.DONE)]
    if seen.is_cancelled:
        over = all(_is_lost(lease, seen.lease_s) for lease in seen.leases)
        return [Finish(JobState.CANCELLED)] if over else []
    if seen.is_hopeless:
        return [Finish(JobState.FAILED)]
    healing: list[Action] = [
        Condemn(lease.name) if lease.is_deadly else Close(lease.name)
        for lease in seen.leases
        if _is_lost(lease, seen.lease_s)
    ]
    if _has_failed(seen):
        return [*healing, Finish(JobState.FAILED)]
    missing = _missing_workers(seen)
    return [*healing, Place(missing)] if missing else healing


def n_to_show(flow: Flow) -> int:
    """How many more inputs workers may see now; always those that a reader waits for.

    A stream runs at most ``AHEAD_S`` seconds of work ahead of what is done. A
    budget counts what is unread and what the inputs already shown will add.
    """
    n_open = flow.n_shown - flow.n_outcomes
    allowed = MOST_AT_ONCE
    if flow.is_stream:
        window = max(WINDOW_PER_WORKER * flow.workers, int(AHEAD_S * flow.tasks_per_s))
        allowed = min(allowed, window - n_open)
    if flow.disk_budget is not None:
        if flow.outcome_bytes:
            room = (flow.disk_budget - flow.unread_bytes) / flow.outcome_bytes
            allowed = min(allowed, int(room) - n_open)
        else:
            allowed = min(allowed, flow.workers - n_open)  # the first ones teach the size
    return max(0, allowed, flow.wanted - flow.n_shown)


def n_alive(placements: Mapping[NativeId, PlacementStatus]) -> int:
    """Workers that run or are still to come, by the engine's word."""
    return sum(status.n_workers - status.n_ended for status in placements.values() if status.state in ALIVE)


def _is_lost(lease: SilentLease, lease_s: float) -> bool:
    return lease.worker_ended or lease.silent_s > lease_s


def _n_to_count_on(seen: Seen) -> int:
    """Workers that work or may still come."""
    return n_alive(seen.placements) - seen.n_absent + seen.n_strays


def _missing_workers(seen: Seen) -> int:
    if not seen.may_place or not seen.n_free:
        return 0
    if seen.placements and seen.free_s < SETTLE_S:
        return 0
    return max(0, min(seen.workers - _n_to_count_on(seen), seen.n_free))


def _has_failed(seen: Seen) -> bool:
    """Nothing runs and nothing can be placed any more."""
    if not seen.may_place or any(not _is_lost(lease, seen.lease_s) for lease in seen.leases):
        return False
    if seen.trouble_s > PATIENCE_S[bool(seen.placements)]:  # what it last said of workers is old news
        return True
    if seen.n_slots and seen.n_absent >= seen.n_slots:  # every slot there is waits for one that never comes
        return True
    return _n_to_count_on(seen) <= 0 and (seen.refused or seen.n_bad >= MOST_BAD_PLACEMENTS)
