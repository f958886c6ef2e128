"""Which jobs a share keeps, and why the others go: pure rules, applied by ``cleaning``.

A job and its retries are one *family*: they stay and go together, and count as one. Age is the time
since anything in the family changed last, by the share's own clock.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from golem_magic.model import JobId

DAY_S = 86_400.0
GIB = 1 << 30
STAGING_S = DAY_S  # a client that draws inputs beats all the time: a day of silence is its end
WAITING_S = 30 * DAY_S  # workers may stand in a cluster's queue for long
HALF_MADE_S = DAY_S  # making a job's folder takes a moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long and how much is kept.

    Attributes:
        read_s: Age at which a job that is over and whose results were read goes, in seconds >= 0.
        unread_s: The same for one whose results nobody has read.
        max_bytes: Most space of all jobs; above it the oldest that were read go sooner. None: no limit.
        max_jobs: Most jobs, a retry being part of its job; above it likewise.
    """

    read_s: float = 7 * DAY_S
    unread_s: float = 30 * DAY_S
    max_bytes: int | None = 20 * GIB
    max_jobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One job with its retries, as its folders show it.

    Attributes:
        jobs: Their ids, the first job's first: in this order they are removed.
        age_s: Since anything changed.
        n_bytes: Their space.
        stays: Why it cannot go whatever its age; empty if it can.
        given_up_s: Age at which one that is not over counts as given up; None for one that is over.
        is_half_made: Whether there is no manifest.
        is_read: Whether somebody has read its results.
    """

    jobs: Sequence[JobId]
    age_s: float
    n_bytes: int
    stays: str = ""
    given_up_s: float | None = None
    is_half_made: bool = False
    is_read: bool = False


def choose(families: Iterable[Family], limits: Limits) -> tuple[list[tuple[Family, str]], Counter[str]]:
    """Decide what goes, and why; count why the rest stays.

    What only a limit on space or number asks for goes oldest first, and only until the limit holds. It
    is never a job that nobody has read: those have their age.
    """
    everyone = sorted(families, key=lambda family: -family.age_s)
    going = [(family, why) for family in everyone if (why := _outlived(family, limits))]
    staying = [family for family in everyone if not _outlived(family, limits)]
    n_bytes, n_jobs = sum(family.n_bytes for family in staying), len(staying)
    kept: Counter[str] = Counter()
    for family in staying:
        why = "" if _why_kept(family) else _too_much(n_bytes, n_jobs, limits)
        if family.is_read and why:
            going.append((family, why))
            n_bytes, n_jobs = n_bytes - family.n_bytes, n_jobs - 1
        else:
            kept[_why_kept(family) or _young(family)] += len(family.jobs)
    return going, kept


def _outlived(family: Family, limits: Limits) -> str:
    """Why a family has reached its age; empty if it has not."""
    if family.stays:
        return ""
    if family.is_half_made:
        return "half made, its client died" if family.age_s > HALF_MADE_S else ""
    limit_s = limits.read_s if family.is_read else limits.unread_s
    if family.given_up_s is not None:
        limit_s = max(limits.unread_s, family.given_up_s)
        return f"not finished, no sign of life for {_days(limit_s)}" if family.age_s > limit_s else ""
    if family.age_s <= limit_s:
        return ""
    return f"{'read' if family.is_read else 'unread'}, over for more than {_days(limit_s)}"


def _why_kept(family: Family) -> str:
    if family.is_half_made:
        return "being made"
    return "not finished" if family.given_up_s is not None else family.stays


def _young(family: Family) -> str:
    return f"{'read' if family.is_read else 'unread'}, finished too short a time ago"


def _too_much(n_bytes: int, n_jobs: int, limits: Limits) -> str:
    if limits.max_bytes is not None and n_bytes > limits.max_bytes:
        return f"read, and all jobs take more than {limits.max_bytes / GIB:.3g} GiB"
    if limits.max_jobs is not None and n_jobs > limits.max_jobs:
        return f"read, and there are more than {limits.max_jobs} jobs"
    return ""


def _days(seconds: float) -> str:
    days = seconds / DAY_S
    return "1 day" if days == 1 else f"{days:.3g} days"
