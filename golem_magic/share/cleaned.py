"""What cleaning a share has removed, or would remove, and how that is told."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from golem_magic.model import JobId
from golem_magic.share.retention import DAY_S

_UNITS = ("bytes", "KB", "MB", "GB", "TB")
_LISTED = 20  # jobs that are told one by one when they are gone; chosen by eye


class Gone(NamedTuple):
    """A job that was removed, or would be."""

    job_id: JobId
    why: str
    age_s: float
    n_bytes: int


@dataclass(slots=True)
class Cleaned:
    """What was removed, or would be.

    Attributes:
        dry_run: Whether nothing was touched.
        gone: The jobs.
        n_objects: Functions, common data and runtimes, and what writing such left half done.
        n_bytes: Space of all that.
        kept: How many jobs stay, by the reason.
    """

    dry_run: bool
    gone: list[Gone] = field(default_factory=list)
    n_objects: int = 0
    n_bytes: int = 0
    kept: Counter[str] = field(default_factory=Counter)

    @property
    def jobs(self) -> list[JobId]:
        """Ids of the jobs."""
        return [each.job_id for each in self.gone]

    def describe(self) -> str:
        """In words, for people: what goes and why, what stays and why."""
        verb = "would remove" if self.dry_run else "removed"
        objects = _count(self.n_objects, "unused object")
        lines = [f"{verb} {_count(len(self.gone), 'job')} and {objects}: {_size(self.n_bytes)}"]
        listed = self.gone if self.dry_run else self.gone[:_LISTED]
        lines += [
            f"  {each.job_id[:8]}  {_age(each.age_s):>8}  {_size(each.n_bytes):>8}  {each.why}"
            for each in listed
        ]
        if len(listed) < len(self.gone):
            lines.append(f"  and {_count(len(self.gone) - len(listed), 'more job')}")
        lines += [f"kept {_count(number, 'job')}: {why}" for why, number in sorted(self.kept.items())]
        return "".join(f"{line}\n" for line in lines)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _age(seconds: float) -> str:
    if seconds < 2 * DAY_S:
        return f"{max(0.0, seconds) / 3600:.0f} h"
    return f"{seconds / DAY_S:.0f} days"


def _size(n_bytes: float) -> str:
    for unit in _UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.3g} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.3g} {_UNITS[-1]}"
