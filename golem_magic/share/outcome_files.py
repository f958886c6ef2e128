"""Files of outcomes: one frame with the values of consecutive tasks and the failures among them.

A file means nothing until an entry of a lease's log points at it; a crash
between the two leaves an orphan that nobody reads.
"""

import os
import socket
import traceback
from array import array
from contextlib import suppress
from typing import Any

from golem_magic import payload
from golem_magic.errors import FormatError, PayloadError
from golem_magic.model import Failure, WorkerId
from golem_magic.share import files
from golem_magic.share.layout import DATA_LINK, Done, JobPaths, data_name

# Where tasks ran, and the seconds that each took as float32, NaN where nobody knows; or the mean of all.
Spent = tuple[str, bytes | float]


def write(paths: JobPaths, start: int, frame: payload.Frame, counts: tuple[int, int], writer: str) -> str:
    """Put outcomes into a file of their own; give what an entry must point at.

    Args:
        paths: Of the job.
        start: Index of the first task.
        frame: ``(values, failures by position, what they took)``, pickled; a client that records that
            a worker was lost leaves out the last.
        counts: Outcomes in all, and failures among them.
        writer: Who writes, unlike anybody else: a runner's signature, as part of the name.

    Raises:
        OSError: The file could not be written; none is left.
    """
    n_tasks, n_failed = counts
    name = data_name(start, start + n_tasks, n_failed, frame.size, frame.checksum(), writer)
    path = f"{paths.data}/{name}"
    try:
        files.create(path, frame.parts)
    except FileExistsError:  # ours, from a try that failed half way: no entry can point at it yet
        os.unlink(path)
        files.create(path, frame.parts)
    return DATA_LINK + name


def remove(paths: JobPaths, target: str) -> None:
    """Take away a file that no entry points at, or whose outcomes were read and need not be kept."""
    with suppress(OSError):
        os.unlink(f"{paths.data}/{target.removeprefix(DATA_LINK)}")


def read(paths: JobPaths, entry: Done) -> list[Any]:
    """The outcomes of one entry in order: values, and a Failure where a task failed.

    Values are copies: nothing stays mapped or open. They are loaded together: where one of them
    cannot be, as its class is missing here or raises, all of them are failures that say so.

    Raises:
        FormatError: The file is short or altered.
        ShareError: It cannot be read.
    """
    frame = _fetched(paths, entry)
    try:
        values, failures, *_ = payload.unpack(frame, _words_for(entry), "notebook's")
    except PayloadError as error:
        return [_unloadable(entry, error)] * (entry.end - entry.start)
    for position, failure in failures.items():
        values[position] = failure
    return values  # type: ignore[no-any-return]  # a list was written


def read_spent(paths: JobPaths, entry: Done) -> tuple[str, list[float]] | None:
    """The machine where an entry's tasks ran and the seconds that each took; None where nobody knows.

    Raises:
        FormatError: The file is short or altered.
        ShareError: It cannot be read.
    """
    frame = _fetched(paths, entry)
    try:
        _, _, *spent = payload.unpack(frame, _words_for(entry), "notebook's")
    except PayloadError:
        return None
    if not spent:
        return None
    ((host, seconds),) = spent
    n_tasks = entry.end - entry.start
    return host, [*array("f", seconds)] if isinstance(seconds, bytes) else [seconds] * n_tasks


def _fetched(paths: JobPaths, entry: Done) -> payload.Opened:
    """The frame of an entry's outcomes, as it was written."""
    path = f"{paths.data}/{entry.file}"
    with files.explained("read", path), open(path, "rb", buffering=0, opener=files.open_own) as file:
        try:
            return payload.fetch(file, entry.size, entry.checksum)
        except FormatError as error:
            message = f"{path} is damaged ({error}): tasks {entry.start} to {entry.end - 1} cannot be read"
            raise FormatError(message) from error


def _words_for(entry: Done) -> str:
    if entry.end - entry.start == 1:
        return f"the result of task {entry.start}"
    return f"one of the results of tasks {entry.start} to {entry.end - 1}, which came together,"


def _unloadable(entry: Done, error: PayloadError) -> Failure:
    return Failure(
        kind="unloadable",
        exception=None,
        type_name=type(error.__cause__).__qualname__,
        message=str(error),
        traceback="".join(traceback.format_exception(error)),
        host=socket.gethostname(),
        worker=entry.writer,
    )


def write_fatal(paths: JobPaths, worker: WorkerId, failure: Failure) -> None:
    """Say that the job cannot be done at all, and why; the first to say so is heard.

    Raises:
        OSError: It could not be written.
    """
    with suppress(FileExistsError):
        files.create(paths.failure(worker), payload.dump(failure).parts)
    files.link(f"../workers/{worker}.failed", paths.failed)


def read_fatal(paths: JobPaths) -> Failure | None:
    """Why the job cannot be done at all, as a worker found out; None if that is not readable yet."""
    target = files.read_link(paths.failed)
    if target is None:
        return None
    name = target.removeprefix("../workers/")
    if "/" in name or not name.endswith(".failed"):
        message = f"{paths.failed} points at {target!r}, which is no file of a worker: it was altered"
        raise FormatError(message)
    path = f"{paths.workers}/{name}"
    with files.explained("read", path), open(path, "rb", opener=files.open_own) as file:
        found = payload.load(memoryview(file.read()))[0]
    if not isinstance(found, Failure):
        message = f"{path} holds no failure: it was altered"
        raise FormatError(message)
    return found


def is_kept(paths: JobPaths, entry: Done) -> bool:
    """Whether the outcomes of an entry have not been freed yet."""
    return os.path.exists(f"{paths.data}/{entry.file}")


def first_failure(paths: JobPaths, entry: Done) -> tuple[int, Failure] | None:
    """The first failed task of an entry, by index."""
    for position, outcome in enumerate(read(paths, entry)):
        if type(outcome) is Failure:
            return entry.start + position, outcome
    return None
