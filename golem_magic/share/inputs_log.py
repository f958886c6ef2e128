"""The inputs of a job: an append-only log of pickled blocks and an index of fixed-size records.

One client writes, log first, then index; workers reopen both whenever they
want more, take whole records whose checksum fits, and treat the rest as not
there yet. A crash of the client leaves whole blocks and at most one torn one,
which no record points at.
"""

import bisect
import io
import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from golem_magic import payload
from golem_magic.errors import FormatError, ShareError
from golem_magic.share import files
from golem_magic.share.layout import JobPaths
from golem_magic.share.store import check_owner

_RECORD = struct.Struct("<QQQII")  # first task, offset, size, number of tasks, checksum of the block
_CHECK = struct.Struct("<I")
RECORD_BYTES = _RECORD.size + _CHECK.size


class InputWriter:
    """Appends blocks; used by the one client that stages the job."""

    def __init__(self, paths: JobPaths) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        with files.explained("write", paths.inputs_log):
            self._log = os.open(paths.inputs_log, flags, 0o600)
            self._index = os.open(paths.inputs_index, flags, 0o600)
        self._paths = paths
        self._offset = 0
        self.staged = 0

    def append(self, frame: payload.Frame, count: int) -> None:
        """Add one block of ``count`` inputs.

        Raises:
            ShareError: It could not be written; the index does not know it then.
        """
        record = _RECORD.pack(self.staged, self._offset, frame.size, count, frame.checksum())
        with files.explained("write", self._paths.inputs_log):
            files.write_all(self._log, frame.parts)
            files.write_all(self._index, [record + _CHECK.pack(zlib.crc32(record))])
        self._offset += frame.size
        self.staged += count

    def close(self) -> None:
        """Say that no input follows, and how many there are."""
        os.close(self._log)
        os.close(self._index)
        with files.explained("write", self._paths.closed):
            files.link(str(self.staged), self._paths.closed)


class InputReader:
    """Finds inputs by task index; reopens the growing files at every look."""

    def __init__(self, paths: JobPaths) -> None:
        self._paths = paths
        self._starts: list[int] = []
        self._records: list[tuple[int, int, int, int, int]] = []
        self._cached: tuple[int, Sequence[Any]] = (-1, ())

    @property
    def staged(self) -> int:
        """Tasks known to be staged; :meth:`refresh` may learn of more."""
        return self._records[-1][0] + self._records[-1][3] if self._records else 0

    def refresh(self) -> int:
        """Read new records; give the number of tasks staged."""
        try:
            fd = os.open(self._paths.inputs_index, os.O_RDONLY | os.O_CLOEXEC)
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
            self._records.append(_RECORD.unpack(record))
            self._starts.append(self._records[-1][0])
        return self.staged

    def tasks(self, start: int, end: int) -> list[Any]:
        """The inputs of tasks ``[start, end)``, all of which are known to be staged.

        Raises:
            ShareError: A block cannot be read.
            FormatError: It is not what was written.
            Exception: Whatever unpickling raises.
        """
        found: list[Any] = []
        number = bisect.bisect_right(self._starts, start) - 1
        while start < end:
            block = self._block(number)
            first = self._starts[number]
            part = block[start - first : end - first]
            found += part
            start += len(part)
            number += 1
        return found

    def _block(self, number: int) -> Sequence[Any]:
        if self._cached[0] != number:
            _first, offset, size, count, checksum = self._records[number]
            path = self._paths.inputs_log
            with files.explained("read", path), open(path, "rb", buffering=0) as log:
                check_owner(log.fileno(), path)
                log.seek(offset)
                block = _read(log, size, checksum, f"block {number} of {path}")
            if len(block) != count:
                message = f"block {number} of {path} holds {len(block)} inputs, {count} expected"
                raise FormatError(message)
            self._cached = (number, block)
        return self._cached[1]


def _read(log: io.FileIO, size: int, checksum: int, what: str) -> Sequence[Any]:
    try:
        return payload.read(log, size, checksum)  # type: ignore[no-any-return]  # a list was written
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
