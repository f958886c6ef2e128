"""The text files of a job: its log, and what its tasks print."""

import os
from contextlib import suppress
from pathlib import Path

from golem_magic.clock import wall_time
from golem_magic.master.jobs import Task

KEPT_S = 7 * 86_400.0  # like finished jobs on the share


class OutputFolder:
    """One folder with ``<job>.out.txt``, ``.err.txt`` and ``.log.txt`` of every job.

    Tasks write the first two by themselves, each in append mode, so that a line of ordinary
    length stays whole and goes on arriving when this master has died.
    """

    def __init__(self, folder: Path, hostname: str) -> None:
        self.folder = folder
        self._hostname = hostname
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def path(self, job_id: str, kind: str) -> Path:
        """Where the ``out``, ``err`` or ``log`` of a job is."""
        return self.folder / f"{job_id}.{kind}.txt"

    def open_job(self, job_id: str) -> None:
        """Begin a job with empty files, whatever an earlier master left under its id."""
        for kind in ("out", "err"):
            self.path(job_id, kind).unlink(missing_ok=True)
        self.path(job_id, "log").write_bytes(b"")

    def log_submitted(self, task: Task) -> None:
        """Log that a task was handed out."""
        self._log(task, f"SUBMITTED to http://{self._hostname}")

    def log_ended(self, task: Task, *, is_good: bool) -> None:
        """Log how a task ended, and whether it was the last of its job."""
        self._log(task, "FINISHED" if is_good else "ERRORED")
        job = task.job
        if job.finished + job.errored == job.total:
            self.log_completed(job.job_id)

    def log_completed(self, job_id: str) -> None:
        """Log that every task of the job has ended."""
        self._append(job_id, "log", "COMPLETED\n")

    def complain(self, job_id: str, sentence: str) -> None:
        """Tell the job's owner about a task that could not be started, or was lost."""
        self._append(job_id, "err", f"{sentence}\n")

    def sweep(self) -> None:
        """Remove what has not been written to for a week."""
        oldest = wall_time() - KEPT_S
        for path in self.folder.glob("*.txt"):
            with suppress(OSError):  # another's file, or gone already
                if path.stat().st_mtime < oldest:
                    path.unlink()

    def _log(self, task: Task, event: str) -> None:
        # A line break inside an argument would forge a record of its own.
        args = " ".join(task.args).replace("\r", "\\r").replace("\n", "\\n")
        self._append(task.job.job_id, "log", f"{event} {task.job.job_id} {task.number} {task.line} {args}\n")

    def _append(self, job_id: str, kind: str, text: str) -> None:
        """Losing a log line to a full disk is no reason to lose the job."""
        with suppress(OSError):
            descriptor = os.open(
                self.path(job_id, kind), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
            try:
                os.write(descriptor, text.encode("utf-8", "replace"))
            finally:
                os.close(descriptor)
