"""How many processors this process may really use, which is what the slots default to."""

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Count the processors that affinity and the control group's quota leave us, at least 1.

    A container with two processors' worth of quota on a machine of 64 has two.
    """
    quota = _quota()
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def _quota(own: Path = Path("/proc/self/cgroup"), top: Path = CGROUPS) -> float | None:
    """Processors granted by the tightest quota on the way up from our control group; None without one."""
    try:
        rows = [line.split(":", 2) for line in own.read_text().splitlines()]
    except OSError:  # not Linux
        return None
    limits = []
    for _, controllers, path in rows:
        if not controllers:
            limits += [_limit_v2(folder) for folder in _upwards(top, path)]
        elif "cpu" in controllers.split(","):
            limits += [_limit_v1(folder) for folder in _upwards(top / "cpu", path)]
    return min((limit for limit in limits if limit is not None), default=None)


def _upwards(top: Path, path: str) -> list[Path]:
    """Folders from the group itself up to the top; inside a container only some of them exist."""
    inner = top / path.lstrip("/")
    return [inner, *(parent for parent in inner.parents if parent.is_relative_to(top))]


def _limit_v2(folder: Path) -> float | None:
    """``cpu.max`` is "max 100000" or "200000 100000".

    Source:
        Linux kernel, Documentation/admin-guide/cgroup-v2.rst.
    """
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _limit_v1(folder: Path) -> float | None:
    """A quota of -1 means none.

    Source:
        Linux kernel, Documentation/scheduler/sched-bwc.rst.
    """
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return quota / int((folder / "cpu.cfs_period_us").read_text()) if quota > 0 else None
    except (OSError, ValueError):
        return None
