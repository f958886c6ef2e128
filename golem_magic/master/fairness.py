"""Which running workers should make room for jobs that wait (pure)."""

from collections.abc import Collection
from dataclasses import dataclass

from golem_magic.master.jobs import Job, Task

MIN_TURN_S = 1.0  # chosen by feel: long against the start of a worker, short for a waiting person


@dataclass(slots=True, eq=False)
class _Holding:
    """How many slots a job has, or will have once those that are leaving have left."""

    job: Job
    n_slots: int


def choose_leavers(jobs: Collection[Job], *, n_slots: int, now_s: float) -> list[Task]:
    """Name the workers to be asked to leave, so that jobs share the slots evenly.

    Workers hold their slots until their job ends, so without this the first job would have
    the machine to itself. Slots come free by themselves where tasks are ordinary commands;
    those are never asked.

    Args:
        jobs: All jobs that run or wait.
        n_slots: Slots of the machine.
        now_s: On the clock of :attr:`Task.begun_s`.

    Returns:
        Workers, longest running first, none of which was asked before.
    """
    n_leaving = sum(task.is_leaving for job in jobs for task in job.running.values())
    n_running = sum(len(job.running) for job in jobs)
    n_free = n_slots - n_running + n_leaving
    waiting = [_Holding(job, len(job.running)) for job in jobs if job.has_waiting]
    if not waiting or n_free < 0:
        return []
    for _ in range(n_free):
        min(waiting, key=lambda holding: holding.n_slots).n_slots += 1
    leavers: list[Task] = []
    while (leaver := _next_leaver(jobs, waiting, leavers, now_s)) is not None:
        leavers.append(leaver)
        min(waiting, key=lambda holding: holding.n_slots).n_slots += 1
    return leavers


def _next_leaver(
    jobs: Collection[Job], waiting: list[_Holding], chosen: list[Task], now_s: float
) -> Task | None:
    poorest = min(waiting, key=lambda holding: holding.n_slots)
    staying = {
        job: [task for task in job.running.values() if not task.is_leaving and task not in chosen]
        for job in jobs
        if job is not poorest.job
    }
    richest = max(staying, key=lambda job: len(staying[job]), default=None)
    if richest is None:
        return None
    lead = len(staying[richest]) - poorest.n_slots
    if lead < (1 if poorest.n_slots == 0 else 2):
        return None
    ripe = [task for task in staying[richest] if task.is_worker and now_s - task.begun_s >= MIN_TURN_S]
    return min(ripe, key=lambda task: task.begun_s, default=None)
