"""The form of everything pickled on the share: one stream, and the large buffers that it refers to.

A *frame* is one pickle stream with its out-of-band buffers (PEP 574)::

    magic | number of buffers, u32 | length of the stream, u64 | length of each buffer, u64 ...
    the stream, then each buffer, all of them starting at a multiple of 64 bytes

The magic is GMF1 or GMS1. The stream may hold several pickles one after the
other. In a frame of magic GMS1 the first of them is
:class:`golem_magic.payload.shelf.Sources`, a pickle on its own, which must be
put to use before the others are loaded.
"""

import hashlib
import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from golem_magic.errors import FormatError
from golem_magic.model import Digest

MAGIC = b"GMF1"
MAGIC_WITH_SOURCES = b"GMS1"
ALIGNMENT = 64
_HEAD = struct.Struct("<4sIQ")

Part = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Frame:
    """Head, stream and buffers, ready to be written."""

    pieces: list[Part]

    @property
    def parts(self) -> list[Part]:
        """All bytes in order, the padding between the pieces included."""
        head, *bodies = self.pieces
        parts, at = [head], len(head)
        for (offset, length), body in zip(_places([len(each) for each in bodies]), bodies, strict=True):
            if offset > at:
                parts.append(bytes(offset - at))
            parts.append(body)
            at = offset + length
        return parts

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(_places([len(each) for each in self.pieces[1:]])[-1])

    def checksum(self) -> int:
        """CRC-32 of all bytes."""
        value = 0
        for part in self.parts:
            value = zlib.crc32(part, value)
        return value

    def digest(self) -> Digest:
        """SHA-256 over head, stream and the CRC-32 of each buffer.

        Only the stream can execute anything when it is loaded; raw buffers are
        guarded against mix-ups by length and a checksum that costs a tenth.
        """
        head, stream, *buffers = self.pieces
        value = hashlib.sha256(head)
        value.update(stream)
        for buffer in buffers:
            value.update(zlib.crc32(buffer).to_bytes(4, "little"))
        return Digest(value.hexdigest())


class Opened(NamedTuple):
    """A frame that was read or mapped."""

    has_sources: bool
    stream: Part
    buffers: list[Part]


class Source(Protocol):
    """Where a frame is read from."""

    def readinto(self, buffer: memoryview | bytearray, /) -> int:
        """Fill ``buffer`` as far as there is data."""


def make(stream: io.BytesIO, buffers: Sequence[Part], sources: bytes | None = None) -> Frame:
    """Put a frame together.

    Args:
        stream: The pickles, without sources.
        buffers: What they refer to.
        sources: The pickle of sources, if some go along.
    """
    body: Part = stream.getbuffer() if sources is None else sources + stream.getbuffer()
    bodies = [body, *buffers]
    magic = MAGIC if sources is None else MAGIC_WITH_SOURCES
    head = _HEAD.pack(magic, len(buffers), len(body))
    head += struct.pack(f"<{len(buffers)}Q", *(len(each) for each in buffers))
    return Frame([head, *bodies])


def opened(view: memoryview) -> Opened:
    """Take a frame in memory apart, copying nothing.

    Raises:
        FormatError: This is not a frame.
    """
    head, stream, *buffers = _pieces(view)
    return Opened(_has_sources(head), stream, buffers)


def read(source: Source, size: int, checksum: int) -> Opened:
    """Read a frame of ``size`` bytes, each piece into memory of its own, verifying its CRC-32 on the way.

    Raises:
        FormatError: Short, altered, or not a frame.
    """
    reader = _Checked(source)
    head = reader.take(_HEAD.size)
    head += reader.take(min(8 * _unpack(head)[0], size))
    places = _places(_lengths(memoryview(head)))
    _check_size(places, size)  # before any memory is asked for: the lengths may be damaged
    at, pieces = len(head), []
    for offset, length in places:
        reader.take(offset - at)
        pieces.append(reader.take(length))
        at = offset + length
    if reader.checksum != checksum:
        message = f"checksum {checksum:08x} expected, {reader.checksum:08x} found"
        raise FormatError(message)
    return Opened(_has_sources(head), pieces[0], [*pieces[1:]])


def digest(view: memoryview) -> Digest:
    """The digest (:meth:`Frame.digest`) of a frame in memory."""
    return Frame(_pieces(view)).digest()


class _Checked:
    """Reads pieces and keeps a running checksum."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.checksum = 0

    def take(self, n_bytes: int) -> bytearray:
        piece = bytearray(n_bytes)
        done = 0
        while done < n_bytes:
            got = self._source.readinto(memoryview(piece)[done:])
            if not got:
                message = f"{n_bytes - done} bytes are missing at its end"
                raise FormatError(message)
            done += got
        self.checksum = zlib.crc32(piece, self.checksum)
        return piece


def _has_sources(head: Part) -> bool:
    return bytes(head[:4]) == MAGIC_WITH_SOURCES


def _unpack(head: Part) -> tuple[int, int]:
    if len(head) < _HEAD.size:
        message = f"{len(head)} bytes are too few for a frame"
        raise FormatError(message)
    magic, n_buffers, stream_length = _HEAD.unpack_from(head)
    if magic not in (MAGIC, MAGIC_WITH_SOURCES):
        message = f"it starts with {bytes(magic)!r} instead of {MAGIC!r}"
        raise FormatError(message)
    return n_buffers, stream_length


def _lengths(view: memoryview) -> list[int]:
    n_buffers, stream_length = _unpack(view)
    if 8 * n_buffers > len(view) - _HEAD.size:
        message = f"{len(view)} bytes are too few for a frame of {n_buffers} buffers"
        raise FormatError(message)
    return [stream_length, *struct.unpack_from(f"<{n_buffers}Q", view, _HEAD.size)]


def _places(lengths: list[int]) -> list[tuple[int, int]]:
    """Offset and length of the stream and of each buffer."""
    at, places = _HEAD.size + 8 * (len(lengths) - 1), []
    for length in lengths:
        at = -(-at // ALIGNMENT) * ALIGNMENT
        places.append((at, length))
        at += length
    return places


def _check_size(places: list[tuple[int, int]], size: int) -> None:
    found = sum(places[-1])
    if found != size:
        message = f"{size} bytes expected, its head speaks of {found}"
        raise FormatError(message)


def _pieces(view: memoryview) -> list[Part]:
    """Head, stream and buffers of a frame in memory."""
    places = _places(_lengths(view))
    _check_size(places, len(view))
    n_buffers = len(places) - 1
    return [view[: _HEAD.size + 8 * n_buffers], *(view[at : at + length] for at, length in places)]
