"""Tables as text."""

from collections.abc import Sequence

from golem_magic.model import JobSnapshot

_LONGEST = 30  # characters of a name or label, so that a row fits a line; chosen by eye


def job_table(jobs: Sequence[JobSnapshot]) -> str:
    """Draw the jobs, one row each; the last column is done/failed/total tasks."""
    if not jobs:
        return "no jobs\n"
    return table([("job", "function", "label", "state", "done/failed/total"), *map(_row, jobs)])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Draw rows of equal length in columns as wide as they need."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "".join(f"{line}\n" for line in lines)


def _row(job: JobSnapshot) -> tuple[str, ...]:
    total = "?" if job.n_tasks is None else job.n_tasks
    counts = f"{job.n_done}/{job.n_failed}/{total}"
    return job.job_id[:8], _short(job.function), _short(job.label), job.state, counts


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."
