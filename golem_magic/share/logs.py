"""What workers and their tasks wrote: the ends of their logs."""

import os
from contextlib import suppress

from golem_magic.errors import JobError
from golem_magic.model import Failure, WorkerId
from golem_magic.share import files, outcome_files
from golem_magic.share.book import Book
from golem_magic.share.layout import JobPaths, signer

MOST_LOGS = 10
END_BYTES = 2000  # of each of several logs
WHOLE_BYTES = 100_000  # of the one that was asked for


class Logs(dict[WorkerId, str]):
    """The ends of logs by worker, the one written last first; shows itself as text.

    Attributes:
        folder: Where the whole logs lie.
        n_more: Logs that are not among these.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder
        self.n_more = 0

    def __repr__(self) -> str:
        if not self:
            return f"nothing has been written ({self.folder})"
        parts = [f"--- worker {worker}\n{text.rstrip()}" for worker, text in self.items()]
        if self.n_more:
            parts.append(f"--- and {self.n_more} more in {self.folder}")
        return "\n".join(parts)


def read_logs(paths: JobPaths, task: int | None = None) -> Logs:
    """Read what the workers of a job wrote, or the one worker that published, or holds, ``task``.

    Raises:
        JobError: Nobody has begun with that task.
    """
    logs = Logs(paths.workers)
    if task is not None:
        worker = _worker_of(paths, task)
        text = _end(paths.log(worker), WHOLE_BYTES)
        if text:
            logs[worker] = text
        return logs
    names = [name for name in files.names(paths.workers) if name.endswith(".log")]
    written = sorted((found for name in names if (found := _written(paths, name))), reverse=True)
    for _, name in written[:MOST_LOGS]:
        logs[WorkerId(name.removesuffix(".log"))] = _end(f"{paths.workers}/{name}", END_BYTES)
    logs.n_more = len(written) - len(logs)
    return logs


def _worker_of(paths: JobPaths, task: int) -> WorkerId:
    book = Book(paths)
    book.look()
    entry = book.entry_with(task)
    if entry is not None:
        worker = signer(entry.writer)
        if not worker.startswith("client-"):
            return worker
        with suppress(Exception):  # a client wrote it, of a worker that was lost: the failure names that one
            outcome = outcome_files.read(paths, entry)[task - entry.start]
            return WorkerId(outcome.worker) if type(outcome) is Failure else worker
    for log in book.open_leases():
        if log.done_to <= task < log.end:
            return log.worker
    message = f"no worker has begun with task {task} of job {os.path.basename(paths.root)[:8]}"
    raise JobError(message)


def _written(paths: JobPaths, name: str) -> tuple[float, str] | None:
    """When a log was last written to, and its name; None if it is empty."""
    with suppress(OSError):
        found = os.stat(f"{paths.workers}/{name}")
        return (found.st_mtime, name) if found.st_size else None
    return None


def _end(path: str, n_bytes: int) -> str:
    """The end of a log, from the beginning of a line."""
    text = files.tail(path, n_bytes)
    with suppress(OSError):
        if os.stat(path).st_size > n_bytes:
            return f"[...]\n{text.partition(chr(10))[2] or text}"
    return text
