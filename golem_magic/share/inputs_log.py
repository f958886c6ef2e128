"""The inputs of a job: append-only logs of pickled blocks and an index of fixed-size records.

One client writes, log first, then index; workers reopen both whenever they
want more, take whole records whose checksum fits, and treat the rest as not
there yet. A crash of the client leaves whole blocks and at most one torn one,
which no record points at. What is in a log but not in the index does not exist
for workers: that is how a client holds inputs back.
"""

import bisect
import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from golem_magic import payload
from golem_magic.errors import FormatError, ShareError
from golem_magic.share import files
from golem_magic.share.layout import JobPaths

_RECORD = struct.Struct("<QQQIIII")
_CHECK = struct.Struct("<I")
RECORD_BYTES = _RECORD.size + _CHECK.size
SEGMENT_BYTES = 64 << 20  # a log is closed at about this size, so that what has been read can be removed


class Record(NamedTuple):
    """Some tasks of a block: ``n_tasks`` from task ``start`` on, which is number ``skip`` in the block."""

    start: int
    offset: int
    size: int
    n_tasks: int
    skip: int
    checksum: int
    segment: int

    @property
    def place(self) -> tuple[int, int]:
        """Where the block lies: records of one block have the same place."""
        return self.segment, self.offset


Part = tuple[int, int]  # of a block: inputs to leave out before it, and how many it has


class InputWriter:
    """Appends blocks; used by the one client that stages the job.

    Attributes:
        staged: Tasks that workers can see.
        hidden: Tasks that are in the log and not yet to be seen.

    Args:
        paths: Of the job.
        segment_bytes: About where a log ends and the next begins.
        through: Workers on other machines read along: a record must not be seen before its block.
    """

    def __init__(self, paths: JobPaths, segment_bytes: int = SEGMENT_BYTES, *, through: bool = False) -> None:
        self._paths = paths
        self._flags = files.THROUGH if through else 0
        self._segment_bytes = segment_bytes
        self._segment = 0
        self._log = _open_new(paths.inputs_log(0), self._flags)
        self._index = _open_new(paths.inputs_index, self._flags)
        self._offset = 0
        self._waiting: deque[Record] = deque()
        self._segments: dict[int, int] = {}  # a closed segment -> the task behind its last one
        self.staged = 0
        self.hidden = 0

    def append(self, frame: payload.Frame, count: int) -> None:
        """Add one block of ``count`` inputs, for workers to see.

        Raises:
            ShareError: It could not be written; the index does not know it then.
        """
        self.put(frame, count)
        self.show(count)

    def put(self, frame: payload.Frame, count: int) -> None:
        """Add one block without showing it.

        Raises:
            ShareError: It could not be written.
        """
        if self._offset >= self._segment_bytes:
            self._next_segment()
        start = self.staged + self.hidden
        record = Record(start, self._offset, frame.size, count, 0, frame.checksum(), self._segment)
        with files.explained("write", self._paths.inputs_log(self._segment)):
            files.write_all(self._log, frame.parts)
        self._waiting.append(record)
        self._offset += frame.size
        self.hidden += count

    def put_again(self, block: bytes, checksum: int, parts: Sequence[Part]) -> None:
        """Add some inputs of a block as it stands in another job's log, without showing them.

        Raises:
            ShareError: It could not be written.
        """
        if self._offset >= self._segment_bytes:
            self._next_segment()
        with files.explained("write", self._paths.inputs_log(self._segment)):
            files.write_all(self._log, [block])
        for skip, count in parts:
            start = self.staged + self.hidden
            self._waiting.append(
                Record(start, self._offset, len(block), count, skip, checksum, self._segment)
            )
            self.hidden += count
        self._offset += len(block)

    def show(self, count: int) -> None:
        """Let workers see the next ``count`` tasks, or all that there are.

        Raises:
            ShareError: The index could not be written.
        """
        while count > 0 and self._waiting:
            record = self._waiting.popleft()
            if record.n_tasks > count:
                rest = record._replace(
                    start=record.start + count, skip=record.skip + count, n_tasks=record.n_tasks - count
                )
                self._waiting.appendleft(rest)
                record = record._replace(n_tasks=count)
            packed = _RECORD.pack(*record)
            with files.explained("write", self._paths.inputs_index):
                files.write_all(self._index, [packed + _CHECK.pack(zlib.crc32(packed))])
            count -= record.n_tasks
            self.staged += record.n_tasks
            self.hidden -= record.n_tasks

    def forget(self, task: int) -> None:
        """Remove the logs all of whose tasks lie before ``task`` and will not be asked for again.

        May be called from another thread than the rest.
        """
        for segment, end in list(self._segments.items()):
            if end <= task and self._segments.pop(segment, None) is not None:
                with suppress(OSError):
                    os.unlink(self._paths.inputs_log(segment))

    def close(self) -> None:
        """Say that no input follows, and how many there are.

        Raises:
            ShareError: What was written could not be kept, or this could not be said.
        """
        _close(self._log, self._paths.inputs_log(self._segment))
        self._segments[self._segment] = self.staged
        _close(self._index, self._paths.inputs_index)
        with files.explained("write", self._paths.closed):
            files.link(str(self.staged), self._paths.closed)

    def _next_segment(self) -> None:
        _close(self._log, self._paths.inputs_log(self._segment))
        self._segments[self._segment] = self.staged + self.hidden
        self._segment += 1
        self._offset = 0
        self._log = _open_new(self._paths.inputs_log(self._segment), self._flags)


def _open_new(path: str, more: int) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | more
    with files.explained("write", path):
        return os.open(path, flags, 0o600)


def _close(fd: int, path: str) -> None:
    """Network file systems may tell only now that the disk is full."""
    with files.explained("write", path):
        os.close(fd)


class InputReader:
    """Finds inputs by task index; reopens the growing files at every look.

    Args:
        paths: Of the job.
        is_worker: Let the user's modules mean what came with the inputs; elsewhere they stay what they are.
    """

    def __init__(self, paths: JobPaths, *, is_worker: bool = True) -> None:
        self._paths = paths
        self._is_worker = is_worker
        self._starts: list[int] = []
        self._records: list[Record] = []
        self._cached: tuple[object, Sequence[Any]] = (None, ())

    @property
    def staged(self) -> int:
        """Tasks known to be staged; :meth:`refresh` may learn of more."""
        return self._records[-1].start + self._records[-1].n_tasks if self._records else 0

    def refresh(self) -> int:
        """Read new records; give the number of tasks staged."""
        try:
            fd = files.open_own(self._paths.inputs_index)  # it says what of the logs is unpickled
        except FileNotFoundError:
            return self.staged
        try:
            at = len(self._records) * RECORD_BYTES
            data = os.pread(fd, max(0, os.fstat(fd).st_size - at), at)
        finally:
            os.close(fd)
        for offset in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
            record = data[offset : offset + _RECORD.size]
            if _CHECK.unpack_from(data, offset + _RECORD.size)[0] != zlib.crc32(record):
                break
            self._records.append(Record._make(_RECORD.unpack(record)))
            self._starts.append(self._records[-1].start)
        return self.staged

    def tasks(self, start: int, end: int) -> list[Any]:
        """The inputs of tasks ``[start, end)``, all of which are known to be staged.

        Raises:
            ShareError: A block cannot be read.
            FormatError: It is not what was written.
            PayloadError: Unpickling it raised; a block is loaded as a whole.
        """
        found: list[Any] = []
        number = bisect.bisect_right(self._starts, start) - 1
        while start < end:
            record = self._records[number]
            block = self._block(record)
            first = record.skip + start - record.start
            part = block[first : first + min(end, record.start + record.n_tasks) - start]
            found += part
            start += len(part)
            number += 1
        return found

    def blocks(self, spans: Iterable[tuple[int, int]]) -> list[tuple[Record, list[Part]]]:
        """The blocks that hold the inputs of some tasks, with the parts of each that are meant.

        Args:
            spans: Half-open ranges of tasks, ascending, all of which are known to be staged.
        """
        found: list[tuple[Record, list[Part]]] = []
        for start, end in spans:
            number = bisect.bisect_right(self._starts, start) - 1
            at = start
            while at < end:
                record = self._records[number]
                stop = min(end, record.start + record.n_tasks)
                if not found or (found[-1][0].segment, found[-1][0].offset) != (
                    record.segment,
                    record.offset,
                ):
                    found.append((record, []))
                found[-1][1].append((record.skip + at - record.start, stop - at))
                at, number = stop, number + 1
        return found

    def raw(self, record: Record) -> bytes:
        """A block as it was written.

        Raises:
            ShareError: It cannot be read.
            FormatError: It is not what was written.
        """
        path = self._paths.inputs_log(record.segment)
        with files.explained("read", path), open(path, "rb", buffering=0, opener=files.open_own) as log:
            block = os.pread(log.fileno(), record.size, record.offset)
        if len(block) != record.size or zlib.crc32(block) != record.checksum:
            message = f"the block at {record.offset} of {path} is damaged: map again over the inputs"
            raise FormatError(message)
        return block

    def end_of_block(self, task: int) -> int:
        """The task behind the last one that is read together with ``task``."""
        record = self._records[bisect.bisect_right(self._starts, task) - 1]
        return record.start + record.n_tasks

    def forget(self) -> None:
        """Load what is asked for next anew, whatever was done to the inputs that were given out before."""
        self._cached = (None, ())

    def _block(self, record: Record) -> Sequence[Any]:
        key = record.place
        if self._cached[0] != key:
            path = self._paths.inputs_log(record.segment)
            what = f"the block at {record.offset} of {path}"
            with files.explained("read", path), open(path, "rb", buffering=0, opener=files.open_own) as log:
                log.seek(record.offset)
                frame = _fetch(log, record.size, record.checksum, what)
            whose = "workers'" if self._is_worker else "notebook's"
            block: Sequence[Any] = payload.unpack(  # no trouble of the share
                frame, self._words_for(record), whose, with_sources=self._is_worker
            )
            if len(block) < record.skip + record.n_tasks:
                message = f"{what} holds {len(block)} inputs, {record.skip + record.n_tasks} expected"
                raise FormatError(message)
            self._cached = (key, block)
        return self._cached[1]

    def _words_for(self, record: Record) -> str:
        """The inputs of a block, as far as they are to be seen."""
        ends = [
            each.start + each.n_tasks
            for each in self._records
            if (each.segment, each.offset) == (record.segment, record.offset)
        ]
        first, last = record.start - record.skip, ends[-1] - 1
        if first == last:
            return f"input {first}"
        return f"one of inputs {first} to {last}, which travel together,"


def _fetch(log: io.FileIO, size: int, checksum: int, what: str) -> payload.Opened:
    try:
        return payload.fetch(log, size, checksum)
    except FormatError as error:
        message = f"{what} is damaged ({error}): submit the job again"
        raise FormatError(message) from error


def count_inputs(paths: JobPaths) -> int | None:
    """How many inputs the job has; None while they are being staged (found by listing)."""
    if "closed" not in files.names(paths.control):
        return None
    text = files.read_link(paths.closed)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError as error:
        message = f"{paths.closed} says {text!r} instead of a number"
        raise ShareError(message) from error
