"""Which running workers should make room for jobs that wait (pure).

Workers hold their slots until their job ends, so without this the first job would have the
machine to itself. Slots come free by themselves where tasks are ordinary commands; those are
never asked. Shares are counted per :attr:`Job.group`: a map whose workers made room places
them anew, and must not gain by that.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from golem_magic.master.jobs import Job, Task

MIN_TURN_S = 1.0  # chosen by feel: long against the start of a worker, short for a waiting person


@dataclass(slots=True, eq=False)
class _Share:
    """What one group holds, and wants.

    Attributes:
        staying: Its running tasks that have not been asked to leave.
        n_wanted: Its waiting tasks.
        n_coming: Slots it is about to get.
    """

    staying: list[Task] = field(default_factory=list)
    n_wanted: int = 0
    n_coming: int = 0

    @property
    def n_slots(self) -> int:
        return len(self.staying) + self.n_coming


def choose_leavers(jobs: Collection[Job], *, n_slots: int, now_s: float) -> list[Task]:
    """Name the workers to be asked to leave, so that groups of jobs share the slots evenly.

    Args:
        jobs: All jobs that run or wait.
        n_slots: Slots of the machine.
        now_s: On the clock of :attr:`Task.begun_s`.

    Returns:
        Workers, the longest running of each group first, none of which was asked before.
    """
    shares = _shares(jobs)
    n_free = n_slots - sum(len(share.staying) for share in shares)
    leavers: list[Task] = []
    while poorest := _poorest(shares):
        if n_free > 0:  # also the slots of those who are leaving already
            n_free -= 1
        elif n_free == 0 and (leaver := _next_leaver(shares, poorest, now_s)):
            leavers.append(leaver)
        else:
            break
        poorest.n_coming += 1
    return leavers


def _shares(jobs: Iterable[Job]) -> list[_Share]:
    shares: dict[tuple[str, ...], _Share] = {}
    for job in jobs:
        share = shares.setdefault(job.group, _Share())
        share.staying += [task for task in job.running.values() if not task.is_leaving]
        share.n_wanted += job.n_waiting
    return list(shares.values())


def _poorest(shares: Iterable[_Share]) -> _Share | None:
    wanting = (share for share in shares if share.n_coming < share.n_wanted)
    return min(wanting, key=lambda share: share.n_slots, default=None)


def _next_leaver(shares: Iterable[_Share], poorest: _Share, now_s: float) -> Task | None:
    """Take the eldest worker of the richest group, if that is really better off."""
    richest = max(shares, key=lambda share: share.n_slots)
    lead = richest.n_slots - poorest.n_slots
    ripe = [task for task in richest.staying if task.is_worker and now_s - task.begun_s >= MIN_TURN_S]
    if not ripe or lead < (1 if poorest.n_slots == 0 else 2):
        return None
    leaver = min(ripe, key=lambda task: task.begun_s)
    richest.staying.remove(leaver)
    return leaver
