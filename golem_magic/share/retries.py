"""A retry on the share: a job of its own with some tasks of another one, and the link that tells of it.

The link comes when all inputs are there and before a worker is asked for. Of two who retry at the same
moment one has the next number; the other takes its job back, which nobody has seen, and looks anew.
"""

import bisect
import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate

from golem_magic.model import JobId
from golem_magic.share import files, jobs
from golem_magic.share.inputs_log import InputReader, InputWriter
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths, SharePaths

_NAME = "retry-"
Span = tuple[int, int]


class Tasks:
    """Which tasks of the first job a retry runs: position here against index there.

    Args:
        spans: Half-open ranges of indexes, ascending.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self._starts = [start for start, _ in spans]
        self._ends = [end for _, end in spans]
        self._before = [0, *accumulate(end - start for start, end in spans)]

    def __len__(self) -> int:
        return self._before[-1]

    def position(self, index: int) -> int | None:
        """Where a task of the first job stands in the retry; None if it is not in it."""
        number = bisect.bisect_right(self._starts, index) - 1
        if number < 0 or index >= self._ends[number]:
            return None
        return self._before[number] + index - self._starts[number]

    def index(self, position: int) -> int:
        """The task of the first job that stands at a position."""
        number = bisect.bisect_right(self._before, position) - 1
        return self._starts[number] + position - self._before[number]


def stage(share: SharePaths, origin: Manifest, tasks: Iterable[int], created_s: float) -> Manifest:
    """Make a job that runs tasks of another one again, with copies of the blocks that hold their inputs.

    Args:
        share: Where both are.
        origin: The other one.
        tasks: Indexes, ascending.
        created_s: Seconds since 1970, for people.

    Raises:
        ShareError: Inputs cannot be read, or the job cannot be written; none is left then.
        FormatError: Inputs are not what was written.
    """
    spans = tuple(_spans(tasks))
    manifest = replace(
        origin,
        job_id=JobId(uuid.uuid4().hex),
        label=f"retry of {origin.job_id[:8]}{': ' if origin.label else ''}{origin.label}",
        retry_of=origin.job_id,
        retried=spans,
        created_s=created_s,
        host=socket.gethostname(),
    )
    paths = share.job(manifest.job_id)
    jobs.make_job(paths, manifest)
    try:
        _copy_inputs(share.job(origin.job_id), paths, spans, through=not origin.share_is_local)
    except BaseException:
        withdraw(paths)
        raise
    return manifest


def announce(origin: JobPaths, job_id: JobId, number: int) -> bool:
    """Tell readers of the first job of its retry with this number, from 0; False if there is one already.

    Raises:
        ShareError: The first job's folder cannot be written.
    """
    path = f"{origin.control}/{_NAME}{number}"
    with files.explained("write", path):
        return files.link(job_id, path)


def found(origin: JobPaths) -> list[JobId]:
    """The retries of a job, oldest first."""
    numbers = sorted(
        int(name.removeprefix(_NAME))
        for name in files.names(origin.control)
        if name.startswith(_NAME) and name.removeprefix(_NAME).isdecimal()
    )
    links = (files.read_link(f"{origin.control}/{_NAME}{number}") for number in numbers)
    return [JobId(link) for link in links if link is not None and jobs.is_id(link)]


def withdraw(paths: JobPaths) -> None:
    """Remove a retry that was not announced: no reader and no worker knows it."""
    shutil.rmtree(paths.root, ignore_errors=True)


def _spans(tasks: Iterable[int]) -> Iterator[Span]:
    start = end = -1
    for task in tasks:
        if task != end:
            if end > start:
                yield start, end
            start = task
        end = task + 1
    if end > start:
        yield start, end


def _copy_inputs(origin: JobPaths, paths: JobPaths, spans: Sequence[Span], *, through: bool) -> None:
    """Copy the blocks as they are: nothing is unpickled, and local modules go along."""
    reader, writer = InputReader(origin), InputWriter(paths, through=through)
    reader.refresh()
    for record, parts in reader.blocks(spans):
        writer.put_again(reader.raw(record), record.checksum, parts)
        writer.show(sum(count for _, count in parts))
    writer.close()
