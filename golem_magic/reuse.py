"""The jobs that this process follows: one that is mapped again while it runs is found, not run twice.

What is run is compared by the manifests, which hold the digests of function, data and set-up function;
the inputs byte by byte, drawn in the blocks of the job that runs. All of that comes before any worker is
asked for. Bytes of pickles differ between interpreters, so other processes' jobs are not looked at.
"""

import atexit
import sys
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from golem_magic import payload
from golem_magic.clock import SystemClock
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import GolemMagicError
from golem_magic.inputs import Drawer
from golem_magic.model import JobState
from golem_magic.share import jobs, retries
from golem_magic.share.inputs_log import InputReader, InputWriter, Record
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths

EXIT_S = 5.0  # a process that ends waits so long for workers to be accepted; chosen by feel
Block = tuple[list[Any], payload.Frame]
_followed: WeakSet[Dispatcher] = WeakSet()


def note(dispatcher: Dispatcher) -> None:
    """This process follows a job from now on."""
    _followed.add(dispatcher)


def running_like(manifest: Manifest, paths: JobPaths) -> Dispatcher | None:
    """A job that runs, of which nothing has failed, and that differs from this one in its inputs at most.

    Args:
        manifest: Of the new job.
        paths: Of the new job, which tell its share.
    """
    found = (each for each in list(_followed) if _folder(each.paths) == _folder(paths) and _runs(each))
    return next((each for each in found if _is_alike(each.manifest, manifest)), None)


def has_same_inputs(
    twin: Dispatcher,
    paths: JobPaths,
    writer: InputWriter,
    drawer: Drawer,
    packer: payload.Packer,
    first: Block,
) -> bool:
    """Draw the inputs of a new job and tell whether they are those of a job that runs.

    If they are, or if this raises, the new job is gone. If not, what has been drawn is on the share and
    to be seen, ``first`` too, and the rest is still to be drawn.

    Raises:
        PayloadError: An input cannot be pickled.
        ShareError: The share cannot be read or written.
    """
    is_same = False
    try:
        is_same = _draw_alike(InputReader(twin.paths), writer, drawer, packer, first)
        is_same = is_same and drawer.error is None and _runs(twin)
    except BaseException:
        _withdraw(paths, writer)
        raise
    if is_same:
        _withdraw(paths, writer)
    else:
        writer.show(writer.hidden)
    return is_same


def _folder(paths: JobPaths) -> str:
    """Where all jobs of a share lie."""
    return paths.root.rpartition("/")[0]


def _runs(job: Dispatcher) -> bool:
    is_over = job.snapshot().state.is_final or job.book.n_failed > 0
    return job.n_tasks is not None and not is_over and not jobs.is_cancelled(job.paths)


def _is_alike(one: Manifest, other: Manifest) -> bool:
    return replace(one, job_id=other.job_id, created_s=other.created_s) == other


def _draw_alike(
    reader: InputReader, writer: InputWriter, drawer: Drawer, packer: payload.Packer, first: Block
) -> bool:
    """Draw as long as the blocks are the same; all that was drawn is hidden in the log."""
    block, frame = first
    for record, parts in reader.blocks([(0, reader.refresh())]):
        n_wanted = sum(count for _, count in parts)
        if writer.hidden:
            drawer.most = n_wanted
            block = drawer.next_block(patiently=True)
            frame = packer.inputs(block, writer.hidden)
        if block:
            writer.put(frame, len(block))
            drawer.learn(frame.size, len(block))
        if len(block) != n_wanted or not _is_written(frame, reader, record):
            return False
    rest = drawer.next_block()
    if rest:
        writer.put(packer.inputs(rest, writer.hidden), len(rest))
    return not rest


def _is_written(frame: payload.Frame, reader: InputReader, record: Record) -> bool:
    """Whether a block in a log is, byte by byte, this frame."""
    if (frame.size, frame.checksum()) != (record.size, record.checksum):
        return False
    written, at = memoryview(reader.raw(record)), 0
    for part in frame.parts:
        if written[at : at + len(part)] != part:
            return False
        at += len(part)
    return True


def _withdraw(paths: JobPaths, writer: InputWriter) -> None:
    with suppress(OSError, GolemMagicError):
        writer.close()
    retries.withdraw(paths)


@atexit.register
def _see_to_workers() -> None:
    """Before this process ends, have the engine accept workers for what was mapped a moment ago.

    A script that ends right after its map would leave a job that nobody works at. A dispatcher's thread
    is still there now.
    """
    clock = SystemClock()
    until_s = clock.now() + EXIT_S
    for job in list(_followed):
        while _is_without_workers(job) and clock.now() < until_s:
            clock.sleep(0.005)
        if _is_without_workers(job):
            sys.stderr.write(
                f"job {job.manifest.job_id[:8]} has no workers yet, since the engine has not accepted them: "
                f"attach to it from another kernel, which asks again\n"
            )


def _is_without_workers(job: Dispatcher) -> bool:
    return job.n_tasks is not None and job.snapshot().state is JobState.STAGING
