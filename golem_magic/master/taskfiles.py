"""The files of one task while it runs: what it prints, and a note about its process.

They outlive a master that is killed, so the next one can tell which tasks were started, which of
them still run, and how the others ended. ``<job>.<task>.note`` has a line for each event::

    started <pid> <1 for a fork of ours, else 0>     by the zygote
    copied <bytes of out> <bytes of err>             by the master, when it has collected lines
    ended <0, an exit code, or minus a signal>       by the zygote

A line without its end was torn by a death and says nothing.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CREAT


@dataclass(slots=True)
class Note:
    """What is known about a task's process; ``pid`` and ``status`` are None as long as nobody has told."""

    pid: int | None = None
    is_worker: bool = False
    status: int | None = None
    copied_out: int = 0
    copied_err: int = 0


class TaskFiles:
    """Where the files of one task are. They are there from its start until its end has been counted."""

    def __init__(self, folder: Path, job_id: str, number: int) -> None:
        self._start = f"{folder}/{job_id}.{number}"  # a Path would be slow, for a thousand tasks a second

    def path(self, kind: str) -> str:
        """Where its ``out``, ``err`` or ``note`` is."""
        return f"{self._start}.{kind}"

    def read_note(self) -> Note:
        """What the note says; nothing if there is none."""
        try:
            lines = Path(self.path("note")).read_text(errors="replace").splitlines(keepends=True)
        except FileNotFoundError:
            return Note()
        note = Note()
        for line in lines:
            match line.split() if line.endswith("\n") else []:
                case ["started", pid, is_worker]:
                    note.pid, note.is_worker = int(pid), is_worker == "1"
                case ["copied", out, err]:
                    note.copied_out, note.copied_err = int(out), int(err)
                case ["ended", status]:
                    note.status = int(status)
                case _:
                    pass
        return note

    def remove(self) -> None:
        """Remove them all."""
        for kind in ("out", "err", "note"):
            with suppress(FileNotFoundError):
                os.unlink(self.path(kind))


def append_note(path: str, line: str) -> None:
    """Add a line to a note; a full disk costs the note, not the task."""
    with suppress(OSError):
        descriptor = os.open(path, APPENDING | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, f"{line}\n".encode())
        finally:
            os.close(descriptor)


def tasks_in(folder: Path) -> dict[str, set[int]]:
    """The numbers of all tasks that have files, by job."""
    found: dict[str, set[int]] = {}
    for path in folder.iterdir():
        job_id, _, rest = path.name.partition(".")
        number = rest.partition(".")[0]
        if number.isdecimal():
            found.setdefault(job_id, set()).add(int(number))
    return found
