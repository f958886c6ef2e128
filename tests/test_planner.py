"""What the client decides: a table for every action, and for what must not happen."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golem_magic.model import JobState, NativeId, PlacementState, PlacementStatus
from golem_magic.planner import (
    MOST_BAD_PLACEMENTS,
    PATIENCE_S,
    SETTLE_S,
    Action,
    Close,
    Condemn,
    Finish,
    Place,
    Seen,
    SilentLease,
    n_alive,
    plan,
)

pytestmark = pytest.mark.unit

LEASE_S = 2.0
DONE, FAILED, CANCELLED = (
    Finish(JobState.DONE),
    Finish(JobState.FAILED),
    Finish(JobState.CANCELLED),
)


def placement(state: PlacementState, n_workers: int = 2, n_ended: int = 0) -> PlacementStatus:
    return PlacementStatus(state=state, n_workers=n_workers, n_ended=n_ended)


RUNNING = {NativeId("p"): placement(PlacementState.RUNNING)}
ENDED = {NativeId("p"): placement(PlacementState.ENDED, n_ended=2)}
UNKNOWN = {NativeId("p"): placement(PlacementState.UNKNOWN)}

BUSY = Seen(
    n_tasks=100,
    n_outcomes=10,
    n_free=0,
    free_s=0.0,
    leases=(),
    lease_s=LEASE_S,
    placements=RUNNING,
    workers=2,
)


def lease(
    name: str = "0/0-9.1", silent_s: float = 0.0, *, ended: bool = False, deadly: bool = False
) -> SilentLease:
    return SilentLease(name=name, silent_s=silent_s, worker_ended=ended, is_deadly=deadly)


ALIVE, SILENT = lease("alive", LEASE_S), lease("silent", LEASE_S + 0.1)
LEFT, DEADLY = lease("left", ended=True), lease("deadly", LEASE_S + 0.1, deadly=True)

TABLE: list[tuple[str, Seen, list[Action]]] = [
    ("nothing to do while all is well", replace(BUSY, leases=(ALIVE,)), []),
    ("the first placement comes at once", replace(BUSY, n_free=100, placements={}), [Place(2)]),
    ("not before there is work", replace(BUSY, n_free=0, placements={}), []),
    ("not more than there are tasks", replace(BUSY, n_free=1, placements={}), [Place(1)]),
    ("while inputs are still drawn", replace(BUSY, n_tasks=None, n_free=9, placements={}), [Place(2)]),
    ("free work may just change hands", replace(BUSY, n_free=9, free_s=0.9 * SETTLE_S), []),
    ("all workers are there", replace(BUSY, n_free=9, free_s=9), []),
    ("ended workers are replaced", replace(BUSY, n_free=9, free_s=9, placements=ENDED), [Place(2)]),
    ("but not if nothing is free", replace(BUSY, placements=ENDED), []),
    (
        "an unknown placement is not counted on",
        replace(BUSY, n_free=9, free_s=9, placements=UNKNOWN),
        [Place(2)],
    ),
    (
        "half a placement is replaced by half",
        replace(
            BUSY, n_free=9, free_s=9, placements={NativeId("p"): placement(PlacementState.RUNNING, 2, 1)}
        ),
        [Place(1)],
    ),
    ("who is not the placing client does not", replace(BUSY, n_free=9, placements={}, may_place=False), []),
    ("a silent lease is closed", replace(BUSY, leases=(ALIVE, SILENT)), [Close("silent")]),
    ("so is one whose worker has ended", replace(BUSY, leases=(ALIVE, LEFT)), [Close("left")]),
    ("a deadly one is condemned", replace(BUSY, leases=(DEADLY, ALIVE)), [Condemn("deadly")]),
    ("a deadly task that still runs is not", replace(BUSY, leases=(lease(deadly=True),)), []),
    (
        "a watching client heals too",
        replace(BUSY, leases=(SILENT, DEADLY), may_place=False),
        [Close("silent"), Condemn("deadly")],
    ),
    ("all outcomes: done", replace(BUSY, n_outcomes=100), [DONE]),
    ("an empty job is done", replace(BUSY, n_tasks=0, n_outcomes=0, placements={}), [DONE]),
    ("done, whatever markers there are", replace(BUSY, n_outcomes=100, is_cancelled=True), [DONE]),
    ("done, even if the engine refuses by now", replace(BUSY, n_outcomes=100, refused=True), [DONE]),
    ("not done while inputs are drawn", replace(BUSY, n_tasks=None, n_outcomes=10), []),
    ("cancelled when no lease can get an entry", replace(BUSY, is_cancelled=True), [CANCELLED]),
    ("not while a lease lives", replace(BUSY, is_cancelled=True, leases=(ALIVE, SILENT)), []),
    ("a lost one does not hold it up", replace(BUSY, is_cancelled=True, leases=(SILENT, LEFT)), [CANCELLED]),
    (
        "after cancel nothing is placed",
        replace(BUSY, is_cancelled=True, n_free=9, leases=(ALIVE,), placements={}),
        [],
    ),
    ("a refusing engine fails the job", replace(BUSY, refused=True, placements={}), [FAILED]),
    ("not while workers may still come", replace(BUSY, refused=True, n_free=9), []),
    ("not while a lease lives, refused", replace(BUSY, refused=True, leases=(ALIVE,)), []),
    (
        "lost leases do not delay it",
        replace(BUSY, refused=True, leases=(SILENT,), placements=ENDED),
        [Close("silent"), FAILED],
    ),
    ("only the placing client gives up", replace(BUSY, refused=True, may_place=False), []),
    (
        "an engine that never answered",
        replace(BUSY, placements={}, trouble_s=PATIENCE_S[False] + 0.1),
        [FAILED],
    ),
    ("is given some time", replace(BUSY, placements={}, trouble_s=PATIENCE_S[False] - 0.1), []),
    (
        "one that answered once is given more",
        replace(BUSY, placements=ENDED, trouble_s=PATIENCE_S[False] + 0.1),
        [],
    ),
    ("but not for ever", replace(BUSY, placements=ENDED, trouble_s=PATIENCE_S[True] + 0.1), [FAILED]),
    ("what a silent engine last said of workers is old news", replace(BUSY, trouble_s=1e6), [FAILED]),
    ("but a lease that moves is news", replace(BUSY, trouble_s=1e6, leases=(ALIVE,)), []),
    ("the client died while it drew inputs", replace(BUSY, n_tasks=None, is_hopeless=True), [FAILED]),
    (
        "cancelled comes before that",
        replace(BUSY, n_tasks=None, is_hopeless=True, is_cancelled=True),
        [CANCELLED],
    ),
    (
        "one fewer is tried again",
        replace(BUSY, placements=ENDED, n_bad=MOST_BAD_PLACEMENTS - 1, n_free=9, free_s=9),
        [Place(2)],
    ),
    ("bad ones while others run", replace(BUSY, n_bad=MOST_BAD_PLACEMENTS), []),
    (
        "workers that the engine forgot are counted on while they work",
        replace(BUSY, n_free=9, free_s=9, placements=UNKNOWN, n_strays=2),
        [],
    ),
    ("one of them", replace(BUSY, n_free=9, free_s=9, placements=UNKNOWN, n_strays=1), [Place(1)]),
    ("workers that never came are replaced", replace(BUSY, n_free=9, free_s=9, n_absent=1), [Place(1)]),
    (
        "three times",
        replace(BUSY, n_free=9, free_s=9, n_absent=2, n_bad=MOST_BAD_PLACEMENTS, n_slots=9),
        [FAILED],
    ),
    ("not where they hold all the slots", replace(BUSY, n_free=9, free_s=9, n_absent=2, n_slots=2), [FAILED]),
    (
        "which is no matter while somebody works",
        replace(BUSY, n_free=9, free_s=9, n_absent=2, n_slots=2, leases=(ALIVE,)),
        [Place(2)],
    ),
    ("a cluster without slots may get some", replace(BUSY, n_free=9, free_s=9, n_slots=0), []),
    (
        "a refused replacement while strays work",
        replace(BUSY, refused=True, placements=UNKNOWN, n_strays=1, n_free=9),
        [],
    ),
]


@pytest.mark.meets("GR-08")
@pytest.mark.parametrize(("seen", "actions"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_table(seen: Seen, actions: list[Action]) -> None:
    assert plan(seen) == actions


@pytest.mark.parametrize(
    ("state", "n"),
    [
        (PlacementState.PENDING, 3),
        (PlacementState.RUNNING, 3),
        (PlacementState.ENDED, 0),
        (PlacementState.UNKNOWN, 0),
    ],
)
def test_workers_of_a_placement_that_may_still_work_are_alive(state: PlacementState, n: int) -> None:
    assert n_alive({NativeId("p"): placement(state, 5, 2)}) == n


leases = st.builds(
    SilentLease,
    name=st.uuids().map(str),
    silent_s=st.floats(0, 4),
    worker_ended=st.booleans(),
    is_deadly=st.booleans(),
)
counts = st.integers(0, 5)
situations = st.builds(
    Seen,
    n_tasks=st.none() | counts,
    n_outcomes=counts,
    n_free=counts,
    free_s=st.floats(0, 1),
    leases=st.lists(leases, max_size=4),
    lease_s=st.just(LEASE_S),
    placements=st.dictionaries(
        st.sampled_from([NativeId("p"), NativeId("q")]),
        st.builds(
            PlacementStatus,
            state=st.sampled_from(PlacementState),
            n_workers=st.integers(2, 4),
            n_ended=counts,
        ).map(lambda status: replace(status, n_ended=min(status.n_ended, status.n_workers))),
    ),
    workers=st.integers(1, 4),
    trouble_s=st.floats(0, 200),
    refused=st.booleans(),
    n_bad=counts,
    n_strays=counts,
    n_absent=counts,
    n_slots=st.none() | counts,
    is_cancelled=st.booleans(),
    is_hopeless=st.booleans(),
    may_place=st.booleans(),
)


def is_lost(lease: SilentLease) -> bool:
    return lease.worker_ended or lease.silent_s > LEASE_S


@given(seen=situations)
def test_what_holds_in_every_situation(seen: Seen) -> None:
    actions = plan(seen)

    finishes = [action for action in actions if isinstance(action, Finish)]
    assert finishes in ([], actions[-1:])
    places = [action for action in actions if isinstance(action, Place)]
    assert len(places) <= 1
    for place in places:
        assert seen.may_place
        assert not seen.is_cancelled
        assert not finishes
        assert (
            1
            <= place.count
            <= min(seen.n_free, seen.workers - n_alive(seen.placements) + seen.n_absent - seen.n_strays)
        )
    lost = {lease.name: lease for lease in seen.leases if is_lost(lease)}
    healed = {action.name: action for action in actions if isinstance(action, Close | Condemn)}
    assert all(isinstance(action, Condemn) == lost[name].is_deadly for name, action in healed.items())
    if not seen.is_cancelled and not seen.is_hopeless and DONE not in finishes:
        assert healed.keys() == lost.keys()
    alive = len(lost) < len(seen.leases)
    is_complete = seen.n_tasks is not None and seen.n_outcomes >= seen.n_tasks
    assert (DONE in finishes) == is_complete
    if FAILED in finishes:
        assert not seen.is_cancelled
        assert seen.is_hopeless or (not alive and seen.may_place)
    assert (CANCELLED in finishes) == (seen.is_cancelled and not alive and not is_complete)
