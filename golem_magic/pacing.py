"""How long the next lease is and how rests are divided: pure rules, shared by all workers of a job.

Theory. Workers cut the inputs into *rounds* of equal *slots*; whoever opens a
round decides its length for everybody. Short leases give early results and an
even end, long ones hide the cost of the share, so the length aims at a busy
time that is a multiple of what the share costs, grows at most fourfold from
round to round (the first rounds teach the rate), and shrinks near the end.
Figures and alternatives: docs/decisions/0001-leases-on-the-share.md.
"""

import itertools
import math
from dataclasses import dataclass

from golem_magic.model import Head

TARGET_S = 0.05  # busy time of a lease on a share that costs nothing; measured, see decision 0001
CROWD = 8  # up to this many workers the server's capacity is no concern
LEASE_BYTES = 4 << 20  # outcomes of one lease, so that a reader and a kill cost little
MOST_TURNS = 64  # slots per worker in one round, when a slot is much shorter than the target
MOST_PARTS = 16  # a rest is divided among at most so many
PUBLISH_S = (0.1, 10.0)  # finished work waits at least, and at most, so long on a quick share
PUBLISH_AGE_S = 20.0  # up to this age of a worker it is the least; see decision 0011
GATHER_S = 0.1  # between two rounds while inputs trickle in: less is not felt, and makes files
PUBLISH_PART = 0.01  # of its further age: what waits between the two


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a worker has measured, all in seconds unless named otherwise.

    Attributes:
        task_s: Time per task of its last lease, None before the first.
        share_s: Claim and publication of one lease, smoothed.
        outcome_bytes: Size of one published outcome, in bytes, 0 if unknown.
        age_s: Since this worker started.
    """

    task_s: float | None = None
    share_s: float = 0.0005
    outcome_bytes: float = 0.0
    age_s: float = 0.0


def target_s(pace: Pace, workers: int) -> float:
    """Busy time that a lease should have, in seconds."""
    crowd = 0.02 * workers if workers > CROWD else 0.0
    return max(TARGET_S, 20 * pace.share_s, crowd, pace.age_s / 20)


def next_length(pace: Pace, *, previous: int, remaining: int, slots: int, workers: int) -> int:
    """Choose how many tasks each slot of the next round holds.

    Args:
        pace: What the worker that opens the round has measured.
        previous: Length of the round before, 0 for none.
        remaining: Tasks drawn and not yet in any round, >= 1.
        slots: Slots the round will have, >= 1.
        workers: Workers planned for the job, >= 1.

    Returns:
        A length in tasks, >= 1. At the very beginning 1, so that the first
        tasks return early and teach the rate; a worker that has not measured
        anything itself trusts the round before.

    Example:
        >>> next_length(Pace(), previous=0, remaining=1000, slots=2, workers=2)
        1
        >>> next_length(Pace(task_s=0.001), previous=40, remaining=10**6, slots=2, workers=2)
        50
        >>> next_length(Pace(task_s=0.001), previous=40, remaining=40, slots=2, workers=2)
        10
    """
    if pace.task_s is None:
        return max(1, min(previous, remaining // (2 * slots)))
    task_s = max(pace.task_s, 1e-8)
    crowd = 0.005 * workers if workers > CROWD else 0.0
    shortest = max(10 * pace.share_s, crowd) / task_s  # shorter would cost more than it evens out
    wanted = min(4 * max(previous, 1), target_s(pace, workers) / task_s)
    wanted = min(wanted, max(remaining / (2 * slots), shortest))
    if pace.outcome_bytes:
        wanted = min(wanted, LEASE_BYTES / pace.outcome_bytes)
    return max(1, min(int(wanted), -(-remaining // slots)))


def publish_s(pace: Pace) -> float:
    """How long finished work waits in its worker before it is published on the way, in seconds.

    What a kill costs, and how late a reader may be: 0.1 s in the first twenty seconds, then less than
    one percent of the worker's age, so that files grow with the logarithm of a job's time; in the end
    ten seconds.

    Example:
        >>> [publish_s(Pace(age_s=age)) for age in (20, 70, 86400)]
        [0.1, 0.6, 10.0]
    """
    shortest, longest = PUBLISH_S
    growing = shortest + PUBLISH_PART * (pace.age_s - PUBLISH_AGE_S)
    return max(shortest, 20 * pace.share_s, min(growing, longest))


def is_worth_a_round(pace: Pace, *, ready: int, workers: int, waited_s: float) -> bool:
    """Whether to open a round although inputs are still being drawn, and so far there are few.

    Where the source is slower than the workers, each would else make rounds of a few tasks, as fast as
    the share lets it.

    Args:
        pace: What the worker has measured.
        ready: Tasks drawn and not yet in any round.
        workers: Planned for the job.
        waited_s: Since this worker's last claim.
    """
    has_work = pace.task_s is None or ready * pace.task_s >= GATHER_S * workers
    return has_work or waited_s >= GATHER_S


def open_round(
    pace: Pace, *, previous: Head | None, staged: int, slots: int, workers: int, chunk_size: int | None
) -> Head | None:
    """Propose the round after ``previous``; None while no further task is staged.

    With a fixed ``chunk_size``, or where outcomes are large, a slot may be far
    shorter than the target for good: then each worker gets several slots in a
    row, so that rounds do not outnumber what a listing can bear.
    """
    start = previous.end if previous else 0
    remaining = staged - start
    if remaining <= 0:
        return None
    before = previous.length if previous else 0
    length = chunk_size or next_length(
        pace, previous=before, remaining=remaining, slots=slots, workers=workers
    )
    if pace.task_s is not None and (chunk_size or 2 * length * pace.outcome_bytes > LEASE_BYTES):
        turns = int(target_s(pace, workers) / (max(pace.task_s, 1e-8) * length))
        slots *= max(1, min(turns, MOST_TURNS, remaining // (4 * slots * length)))
    return Head(start, length, slots, min(staged, start + length * slots))


def stride(slots: int) -> int:
    """A step that visits every slot once and spreads few workers evenly.

    Example:
        >>> stride(1), stride(2), stride(10)
        (1, 1, 7)
    """
    step = max(1, int(slots * 0.6180339887))
    while math.gcd(step, slots) > 1:
        step += 1
    return step


def divide(start: int, end: int, workers: int) -> list[tuple[int, int]]:
    """Cut ``[start, end)`` into a few nearly equal parts, the same whoever computes them.

    Example:
        >>> divide(0, 10, 1)
        [(0, 5), (5, 10)]
        >>> divide(3, 3, 2)
        []
    """
    if start >= end:
        return []
    parts = min(end - start, 2 * workers, MOST_PARTS)
    cuts = [start + (end - start) * i // parts for i in range(parts + 1)]
    return list(itertools.pairwise(cuts))


def patience_s(pace: Pace, workers: int) -> float:
    """How long a worker without work waits for an offer before it leaves, in seconds."""
    return min(60.0, 4 * target_s(pace, workers))
