"""Ending every process that came from a task, also those that tried to get away.

A task leads a session of its own, so its session and its descendants are found by number. A
grandchild that has left both (``setsid`` and an orphan) still carries the task's mark in its
environment, which Linux shows under ``/proc``; a process that also wiped its environment is
not found. Elsewhere the mark cannot be read, and only session and descendants are.
"""

import os
import signal
import subprocess
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from golem_magic.clock import Clock, SystemClock

MARK_VARIABLE = "GOLEM_MAGIC_TASK"
MARK_LENGTH = 128  # bytes reserved in the zygote's environment, where forked tasks write their mark
GRACE_S = 2.0
DEADLINE_S = 4.5
PAUSE_S = 0.03
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A running process; ``started`` tells it from a later one with the same number."""

    pid: int
    parent: int
    session: int
    started: str


def is_alive(pid: int, started: str = "") -> bool:
    """Whether the process runs, and is the one that started then, if that is told."""
    found = _look_at(pid)
    return found is not None and (not started or found.started == started)


def start_of(pid: int) -> str:
    """When the process started, as an opaque word; empty if it does not run."""
    found = _look_at(pid)
    return found.started if found else ""


def carries_mark(pid: int, mark: str) -> bool:
    """Whether the process runs and came from the task with this mark.

    Where marks cannot be read, any process of that number will do.
    """
    return is_alive(pid) and (_is_of(pid, mark) or not (PROC / "self/stat").exists())


def find_leader(mark: str) -> int | None:
    """The process of the task with this mark; None if there is none, or marks cannot be read."""
    marked = (
        process
        for process in _all_processes().values()
        if process.session == process.pid and _is_of(process.pid, mark)
    )
    return next((process.pid for process in marked), None)


def end_tree(
    roots: Collection[int], mark: str, *, ask_roots_only: bool, clock: Clock | None = None
) -> list[int]:
    """End all processes of some tasks: SIGTERM, two seconds of grace, then SIGKILL until none is left.

    Args:
        roots: Leaders of the tasks' sessions that run now.
        mark: Beginning of the mark of these tasks.
        ask_roots_only: Whether SIGTERM goes to the roots alone: a worker of ours ends its
            descendants by itself, and takes one that dies first for a victim of its task.
        clock: Time.

    Returns:
        The processes that still run after 4.5 seconds; normally none.
    """
    clock = clock or SystemClock()
    begun_s = clock.now()
    family = _family(roots, mark, frozenset())
    _send_all(family, signal.SIGTERM, only=roots if ask_roots_only else None)
    while (family := _family(roots, mark, family)) and clock.now() - begun_s < DEADLINE_S:
        if clock.now() - begun_s >= GRACE_S:
            _send_all(family, signal.SIGKILL)
        clock.sleep(PAUSE_S)
    return sorted(process.pid for process in family)


def _send_all(
    family: Collection[Process], number: signal.Signals, only: Collection[int] | None = None
) -> None:
    for process in family:
        if only is None or process.pid in only:
            with suppress(ProcessLookupError, PermissionError):  # gone meanwhile, or not ours any more
                os.kill(process.pid, number)


def _family(roots: Collection[int], mark: str, known: Collection[Process]) -> frozenset[Process]:
    """All that run now of the sessions of ``roots``, their descendants, the marked and the known."""
    running = _all_processes()
    # Parent and session may change, number and start together never do.
    starts = {(process.pid, process.started) for process in known}
    still_known = {pid for pid, process in running.items() if (pid, process.started) in starts}
    found = {
        pid
        for pid, process in running.items()
        if pid in roots or process.session in roots or pid in still_known or _carries(pid, mark)
    }
    return frozenset(running[pid] for pid in _with_descendants(found, running))


def _with_descendants(found: set[int], running: Mapping[int, Process]) -> set[int]:
    while more := {pid for pid, process in running.items() if process.parent in found} - found:
        found = found | more
    return found


def _is_of(pid: int, mark: str) -> bool:
    """Whether the mark is this one as a whole; in a process that was only forked, blanks follow."""
    return _carries(pid, f"{mark}\0") or _carries(pid, f"{mark} ")


def _carries(pid: int, mark: str) -> bool:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except OSError:  # gone, somebody else's, or no /proc
        return False
    return f"\0{MARK_VARIABLE}={mark}".encode() in b"\0" + environment


def _all_processes() -> dict[int, Process]:
    """Every process but the dead that wait to be reaped."""
    if not (PROC / "self/stat").exists():
        return _all_by_ps()
    found = (_look_at(int(path.name)) for path in PROC.glob("[0-9]*"))
    return {process.pid: process for process in found if process}


def _look_at(pid: int) -> Process | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except FileNotFoundError:
        return None if (PROC / "self/stat").exists() else _all_by_ps(pid).get(pid)
    except OSError:  # it ended while being read
        return None
    # The name in brackets may hold anything, so count from its end: state, parent, group, session.
    fields = text[text.rindex(")") + 2 :].split()
    if fields[0] in "ZX":
        return None
    return Process(pid, int(fields[1]), int(fields[3]), fields[19])


def _all_by_ps(pid: int | None = None) -> dict[int, Process]:
    """The same from ``ps``, whose process group stands in for the session that it cannot show."""
    chosen = ["-A"] if pid is None else ["-p", str(pid)]
    command = ["ps", *chosen, "-o", "pid=,ppid=,pgid=,stat=,lstart="]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = (line.split(None, 4) for line in answer.stdout.splitlines())
    return {
        int(row[0]): Process(int(row[0]), int(row[1]), int(row[2]), row[4])
        for row in rows
        if len(row) == 5 and not row[3].startswith("Z")
    }
