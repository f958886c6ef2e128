"""Tables as text."""

import time
from collections.abc import Sequence

from golem_magic.model import JobSnapshot, Node

_PARTS = 12  # rows at most; chosen by eye
_RECORD_S = 10.0
_LONGEST = 30  # characters of a name or label, so that a row fits a line; chosen by eye


def job_table(jobs: Sequence[JobSnapshot]) -> str:
    """Draw the jobs, one row each; the last column is done/failed/total tasks."""
    if not jobs:
        return "no jobs\n"
    return table([("job", "function", "label", "state", "done/failed/total"), *map(_row, jobs)])


def node_table(nodes: Sequence[Node]) -> str:
    """Draw the machines with their slots and how many of them are taken, by whomever."""
    rows = [(node.host, str(node.n_slots), str(node.n_running)) for node in nodes]
    if len(nodes) > 1:
        slots, running = sum(node.n_slots for node in nodes), sum(node.n_running for node in nodes)
        rows.append(("all", str(slots), str(running)))
    return table([("node", "slots", "running"), *rows])


def usage_table(records: Sequence[tuple[int, int, int, int, int]], *, begin_s: float, last_s: float) -> str:
    """Draw how much went on, in a few equal parts of a time; parts without any work are left out.

    Args:
        records: Each stands for ten seconds: second since 1970, jobs running, jobs waiting, slots
            taken, slots.
        begin_s: Where the time begins, in seconds since 1970.
        last_s: How long it is.
    """
    part_s = max(_RECORD_S, last_s / _PARTS)
    parts: dict[int, list[tuple[int, ...]]] = {}
    for record in records:
        parts.setdefault(int((record[0] - begin_s) // part_s), []).append(record)
    rows = [_part(begin_s + number * part_s, part_s, within) for number, within in sorted(parts.items())]
    return table([("from", "jobs", "waiting", "slots taken", "of"), *rows]) if rows else "no work\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Draw rows of equal length in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _part(begin_s: float, part_s: float, records: Sequence[tuple[int, ...]]) -> tuple[str, ...]:
    """The most jobs at once, and the mean of the slots that were taken."""
    _, jobs, waiting, running, slots = zip(*records, strict=True)
    taken = sum(running) * _RECORD_S / part_s
    begin = time.strftime("%a %H:%M:%S", time.localtime(begin_s))
    return begin, str(max(jobs)), str(max(waiting)), f"{min(taken, max(running)):.1f}", str(max(slots))


def _row(job: JobSnapshot) -> tuple[str, ...]:
    total = "?" if job.n_tasks is None else job.n_tasks
    counts = f"{job.n_done}/{job.n_failed}/{total}"
    state = f"{job.state}, unread" if job.is_unread else job.state
    return job.job_id[:8], _short(job.function), _short(job.label), state, counts


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
