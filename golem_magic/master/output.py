"""The text files of a job: its log, and what its tasks print.

Each task prints into files of its own (``taskfiles.py``), so that it goes on when this master has
died. Their lines are added to the job's files, whole and each of stderr's under a header, when
the task has ended or somebody asks for the output. The log doubles as the record of which tasks
have ended: the next master reads it.
"""

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from golem_magic.clock import wall_time
from golem_magic.master.jobs import Task
from golem_magic.master.taskfiles import APPENDING, append_note

KEPT_S = 7 * 86_400.0  # like finished jobs on the share
PIECE_BYTES = 1 << 20


class OutputFolder:
    """One folder with ``<job>.out.txt``, ``.err.txt`` and ``.log.txt`` of every job.

    The first two are there when there is something in them, as the original has it.
    """

    def __init__(self, folder: Path, hostname: str) -> None:
        self.folder = folder
        self._hostname = hostname
        self._lock = threading.RLock()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, job_id: str, kind: str) -> Path:
        """Where the ``out``, ``err`` or ``log`` of a job is."""
        return self.folder / f"{job_id}.{kind}.txt"

    def open_job(self, job_id: str) -> None:
        """Begin a job with empty files, whatever an earlier master left under its id."""
        for kind in ("out", "err", "log"):
            self.path(job_id, kind).unlink(missing_ok=True)
        os.close(os.open(self.path(job_id, "log"), APPENDING | os.O_CLOEXEC, 0o600))

    # --- the log ---

    def log_submitted(self, task: Task) -> None:
        """Log that a task was handed out."""
        self._log(task, f"SUBMITTED to http://{self._hostname}")

    def log_ended(self, task: Task, *, is_good: bool) -> bool:
        """Log how a task ended, and whether it was the last of its job; tell whether that succeeded."""
        is_logged = self._log(task, "FINISHED" if is_good else "ERRORED")
        job = task.job
        if job.finished + job.errored == job.total:
            self.log_completed(job.job_id)
        return is_logged

    def log_completed(self, job_id: str) -> None:
        """Log that every task of the job has ended."""
        self._append(job_id, "log", b"COMPLETED\n")

    def read_log(self, job_id: str) -> Mapping[int, bool]:
        """Which tasks have ended, and whether well; what a death has torn is cut off."""
        path = self.path(job_id, "log")
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return {}
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            os.truncate(path, len(whole))
        return {
            int(words[2]): words[0] == b"FINISHED"
            for words in (line.split(b" ", 4) for line in whole.splitlines())
            if words[0] in (b"FINISHED", b"ERRORED")
        }

    def is_completed(self, job_id: str) -> bool:
        """Whether the log says so."""
        try:
            return (b"\n" + self.path(job_id, "log").read_bytes()).endswith(b"\nCOMPLETED\n")
        except FileNotFoundError:
            return False

    # --- what tasks print ---

    def collect(self, task: Task, *, is_over: bool) -> None:
        """Add what the task has printed since the last time: whole lines, or all if it has ended."""
        with self._lock, suppress(OSError):  # a full disk costs lines, not the job
            before = dict(task.copied)
            for kind in before:
                self._copy(task, kind, is_over=is_over)
            if task.copied != before and not is_over and task.files is not None:
                words = f"copied {task.copied['out']} {task.copied['err']}"
                append_note(task.files.path("note"), words)

    def complain(self, job_id: str, sentence: str) -> None:
        """Tell the job's owner about a task that could not be started, or was lost."""
        self._append(job_id, "err", f"{sentence}\n".encode("utf-8", "replace"))

    def sweep(self) -> None:
        """Remove what has not been written to for a week."""
        oldest = wall_time() - KEPT_S
        for path in self.folder.glob("*.txt"):
            with suppress(OSError):  # another's file, or gone already
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _copy(self, task: Task, kind: str, *, is_over: bool) -> None:
        if task.files is None:
            return
        path, begin = task.files.path(kind), task.copied[kind]
        try:
            size = os.stat(path).st_size
        except FileNotFoundError:
            return
        if size <= begin:
            return
        header = _header(task) if kind == "err" else b""
        with open(path, "rb") as file:
            end = size if is_over else _end_of_lines(file, begin, size)
            file.seek(begin)
            is_new_line = True
            while begin < end:
                piece = file.read(min(PIECE_BYTES, end - begin))
                begin += len(piece)
                text = piece.replace(b"\n", b"\n" + header)
                text = header + text if is_new_line else text
                is_new_line = piece.endswith(b"\n")
                self._append(task.job.job_id, kind, text.removesuffix(header) if is_new_line else text)
            if not is_new_line:
                self._append(task.job.job_id, kind, b"\n")
        task.copied[kind] = begin

    def _log(self, task: Task, event: str) -> bool:
        # A line break inside an argument would forge a record of its own.
        text = f"{event} {task.job.job_id} {task.number} {task.line} {_on_one_line(task.args)}\n"
        return self._append(task.job.job_id, "log", text.encode("utf-8", "replace"))

    def _append(self, job_id: str, kind: str, text: bytes) -> bool:
        """Append all of it or nothing: losing a line to a full disk is no reason to lose the job."""
        with self._lock:
            try:
                descriptor = os.open(f"{self.folder}/{job_id}.{kind}.txt", APPENDING | os.O_CLOEXEC, 0o600)
            except OSError:
                return False
            try:
                size = os.fstat(descriptor).st_size
                n_written = _write(descriptor, text)
                if n_written < len(text):
                    os.ftruncate(descriptor, size)
                return n_written == len(text)
            finally:
                os.close(descriptor)


def _write(descriptor: int, text: bytes) -> int:
    n_written = 0
    with suppress(OSError):
        while n_written < len(text):
            n_written += os.write(descriptor, text[n_written:])
    return n_written


def _header(task: Task) -> bytes:
    """What the original puts before each line on stderr; it says ERRORED even if all is well."""
    program = shutil.which(task.args[0]) or task.args[0]
    words = _on_one_line([*task.args[1:], *task.identity])
    return f'TASK : "{_on_one_line([program])}{words}" ERRORED: \n'.encode("utf-8", "replace")


def _on_one_line(words: Sequence[str]) -> str:
    return " ".join(words).replace("\r", "\\r").replace("\n", "\\n")


def _end_of_lines(file: BinaryIO, begin: int, size: int) -> int:
    """The place behind the last line feed of these bytes; ``begin`` if there is none."""
    end = size
    while end > begin:
        start = max(begin, end - PIECE_BYTES)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return begin
