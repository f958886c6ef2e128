"""How much memory and processor time a runner uses, with everything that its tasks have started.

Memory that other processes share with it (mapped common data, libraries) does not count. Linux tells
all that in /proc (proc(5)); elsewhere ``ps`` is asked, which counts shared memory too.
"""

import math
import os
import subprocess

HAS_PROC = os.path.exists("/proc/self/statm")
LOOK_S = 0.05 if HAS_PROC else 1.0  # between two looks; ps is a process of its own
TICKS_S = 1 / os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def used_bytes(pid: int) -> int:
    """Memory of a process and its descendants, in bytes; processes that end meanwhile count nothing."""
    if HAS_PROC:
        return sum(map(_private_bytes, _family(pid)))
    return used_by_ps(pid)


def cpu_s(pid: int) -> float:
    """Processor time of a process and its descendants so far, in seconds; NaN where there is no /proc."""
    return sum(map(_cpu_s, _family(pid))) if HAS_PROC else math.nan


def _cpu_s(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) * TICKS_S  # its own and that of children it has waited for


def used_by_ps(pid: int) -> int:
    """The same where there is no /proc, as ``ps`` tells it."""
    command = ["ps", "-A", "-o", "pid=", "-o", "ppid=", "-o", "rss="]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = [tuple(map(int, line.split())) for line in text.splitlines()]
    family = {pid}
    while more := {child for child, parent, _ in rows if parent in family and child not in family}:
        family |= more
    return sum(1024 * kib for member, _, kib in rows if member in family)


def _family(pid: int) -> list[int]:
    found = [pid]
    for each in found:  # grows on the way
        found += _children(each)
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children += map(int, file.read().split())
    except OSError:  # it has ended, or this system does not list them
        pass
    return children


def _private_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            _size, resident, shared, *_ = map(int, file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * PAGE_BYTES
