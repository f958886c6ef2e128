"""Properties of the rules for the length of leases: nothing is left out, nothing is done twice."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golem_magic.model import Head
from golem_magic.pacing import (
    GATHER_S,
    LEASE_BYTES,
    MOST_PARTS,
    MOST_TURNS,
    PUBLISH_S,
    Pace,
    divide,
    is_worth_a_round,
    next_length,
    open_round,
    patience_s,
    publish_s,
    stride,
)

pytestmark = pytest.mark.unit

seconds = st.floats(0, 1e6, allow_nan=False)
paces = st.builds(
    Pace,
    task_s=st.none() | seconds,
    share_s=seconds,
    outcome_bytes=st.floats(0, 1e12, allow_nan=False),
    age_s=st.floats(0, 1e8, allow_nan=False),
)
many = st.integers(1, 10**9)
workers = st.integers(1, 100_000)


@given(pace=paces, previous=st.integers(0, 10**9), remaining=many, slots=workers, n_workers=workers)
def test_a_length_is_positive_within_the_rest_and_grows_at_most_fourfold(
    pace: Pace, previous: int, remaining: int, slots: int, n_workers: int
) -> None:
    length = next_length(pace, previous=previous, remaining=remaining, slots=slots, workers=n_workers)

    assert 1 <= length <= remaining
    assert length <= 4 * max(previous, 1)


@pytest.mark.parametrize(("previous", "length"), [(0, 4), (1, 4), (10, 40), (2000, 8000)])
def test_a_length_grows_fourfold_where_nothing_else_stops_it(previous: int, length: int) -> None:
    pace = Pace(task_s=1e-6)

    assert next_length(pace, previous=previous, remaining=10**9, slots=2, workers=2) == length


@pytest.mark.unit
@pytest.mark.meets("G-33")
@pytest.mark.parametrize(
    ("task_s", "low", "high"),
    [(120.0, 1, 1), (1.0, 1, 1), (0.01, 4, 6), (1e-4, 400, 600), (1e-6, 40_000, 60_000)],
)
def test_slow_calls_are_leased_singly_and_fast_ones_by_thousands(task_s: float, low: int, high: int) -> None:
    pace, workers = Pace(task_s=task_s), 2
    length = 1
    for _ in range(20):
        length = next_length(pace, previous=length, remaining=10**9, slots=workers, workers=workers)

    assert low <= length <= high


@pytest.mark.parametrize("previous", [0, 1, 1000])
def test_a_worker_that_has_measured_nothing_does_not_lengthen(previous: int) -> None:
    length = next_length(Pace(), previous=previous, remaining=10**9, slots=2, workers=2)

    assert length == max(previous, 1)


def test_large_outcomes_make_short_leases() -> None:
    pace = Pace(task_s=1e-6, outcome_bytes=LEASE_BYTES / 3)

    assert next_length(pace, previous=1000, remaining=10**6, slots=2, workers=2) == 3


def test_a_slow_share_makes_long_leases() -> None:
    quick, slow = Pace(task_s=0.001, share_s=0.0001), Pace(task_s=0.001, share_s=0.5)

    lengths = [next_length(p, previous=10**6, remaining=10**8, slots=2, workers=2) for p in (quick, slow)]

    assert lengths == [50, 10_000]


heads = st.builds(
    lambda start, length, slots, cut: Head(start, length, slots, start + max(1, length * slots - cut)),
    st.integers(0, 10**6),
    st.integers(1, 50),
    st.integers(1, 50),
    st.integers(0, 3000),
)


@given(head=heads)
def test_the_slots_of_a_round_cover_exactly_its_tasks(head: Head) -> None:
    spans = [span for number in range(head.slots) if (span := head.slot(number)) is not None]

    assert spans == head.ranges()
    assert [task for a, b in spans for task in range(a, b)] == list(range(head.start, head.end))


@given(
    pace=paces,
    previous=st.none() | heads,
    more=st.integers(-5, 10**7),
    slots=st.integers(1, 20_000),
    n_workers=workers,
    chunk_size=st.none() | st.integers(1, 10**8),
)
def test_a_round_starts_at_the_end_of_the_last_and_covers_only_what_is_staged(
    pace: Pace, previous: Head | None, more: int, slots: int, n_workers: int, chunk_size: int | None
) -> None:
    start = previous.end if previous else 0
    staged = max(0, start + more)

    head = open_round(
        pace, previous=previous, staged=staged, slots=slots, workers=n_workers, chunk_size=chunk_size
    )

    if staged <= start:
        assert head is None
        return
    assert head is not None
    assert head.start == start < head.end <= staged
    assert head.end == min(staged, start + head.length * head.slots)
    assert slots <= head.slots <= slots * MOST_TURNS
    assert chunk_size is None or head.length == chunk_size


@pytest.mark.parametrize("chunk_size", [None, 1, 7])
@pytest.mark.parametrize(
    ("n_tasks", "task_s", "outcome_bytes", "n_workers"),
    [(200_000, 1e-6, 10, 2), (10**6, 1e-7, 10, 2), (1, 10.0, 10, 1000), (2000, 0.001, 1e6, 4)],
)
def test_a_whole_job_has_each_task_in_one_round_and_few_rounds(
    n_tasks: int, task_s: float, outcome_bytes: float, n_workers: int, chunk_size: int | None
) -> None:
    pace, rounds, lengths = Pace(), list[Head](), []
    while head := open_round(
        pace,
        previous=rounds[-1] if rounds else None,
        staged=n_tasks,
        slots=n_workers,
        workers=n_workers,
        chunk_size=chunk_size,
    ):
        rounds.append(head)
        lengths.append(head.length)
        pace = Pace(task_s=task_s, outcome_bytes=outcome_bytes)

    covered = [task_range for head in rounds for task_range in head.ranges()]
    assert covered[0][0] == 0
    assert covered[-1][1] == n_tasks
    assert all(a[1] == b[0] for a, b in itertools.pairwise(covered))
    if chunk_size is None:
        assert len(rounds) <= 100
    else:
        assert set(lengths) == {chunk_size}


@given(slots=st.integers(1, 3000))
def test_a_stride_visits_every_slot(slots: int) -> None:
    visited = {number * stride(slots) % slots for number in range(slots)}

    assert visited == set(range(slots))


@given(slots=st.integers(1, 10**12))
def test_the_stride_of_a_huge_round_has_no_common_divisor_with_it(slots: int) -> None:
    assert stride(slots) >= 1
    assert math.gcd(stride(slots), slots) == 1


@pytest.mark.parametrize("slots", [100, 1000, 10_000])
def test_few_workers_lie_evenly_in_a_round(slots: int) -> None:
    places = sorted(number * stride(slots) % slots for number in range(10))
    gaps = [b - a for a, b in zip(places, [*places[1:], places[0] + slots], strict=True)]

    assert max(gaps) <= 3 * slots / 10


@given(start=st.integers(0, 10**12), length=st.integers(-3, 10**6), n_workers=workers)
def test_a_division_is_a_partition_into_a_few_nearly_equal_parts(
    start: int, length: int, n_workers: int
) -> None:
    parts = divide(start, start + length, n_workers)

    sizes = [b - a for a, b in parts]
    assert sum(sizes) == max(0, length)
    assert len(parts) <= MOST_PARTS
    if parts:
        assert parts[0][0] == start
        assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


@given(start=st.integers(0, 1000), length=st.integers(2, 10**6), n_workers=workers)
def test_a_division_of_several_tasks_never_gives_back_the_whole(
    start: int, length: int, n_workers: int
) -> None:
    """Otherwise the name of a lease would come back within one generation."""
    assert len(divide(start, start + length, n_workers)) >= 2


@given(pace=paces, n_workers=workers)
def test_patience_has_an_end(pace: Pace, n_workers: int) -> None:
    assert 0 < patience_s(pace, n_workers) <= 60


@given(paces, st.integers(1, 10_000), st.integers(0, 10**6))
def test_few_inputs_are_gathered_but_never_for_long(pace: Pace, workers: int, ready: int) -> None:
    assert is_worth_a_round(pace, ready=ready, workers=workers, waited_s=GATHER_S)
    if pace.task_s is None or pace.task_s * ready >= GATHER_S * workers:
        assert is_worth_a_round(pace, ready=ready, workers=workers, waited_s=0.0)


@given(paces)
def test_finished_work_waits_for_a_part_of_the_age_within_bounds(pace: Pace) -> None:
    shortest, longest = PUBLISH_S
    assert shortest <= publish_s(pace) <= max(longest, 20 * pace.share_s)
    if 20 * pace.share_s <= shortest:
        assert publish_s(pace) <= max(shortest, pace.age_s / 100)
        assert publish_s(pace) == shortest or pace.age_s > 20
