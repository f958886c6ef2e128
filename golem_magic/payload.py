"""Objects to bytes and back: functions by value, big buffers beside the pickle instead of in it.

A *frame* is one pickle stream with its out-of-band buffers (PEP 574)::

    magic 'GMF1' | number of buffers, u32 | length of the stream, u64 | length of each buffer, u64 ...
    the stream, then each buffer, all of them starting at a multiple of 64 bytes

The stream may hold several pickles one after the other. Buffers below 64 KiB
stay in the stream: a table of a million short arrays must not become a million
pieces. A frame that was mapped is loaded without copying; a frame that is read
gives every buffer memory of its own, so that keeping one array does not keep
its neighbours.
"""

import functools
import hashlib
import io
import linecache
import pickle
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Protocol

import cloudpickle

from golem_magic.errors import FormatError, PayloadError
from golem_magic.model import Digest

MAGIC = b"GMF1"
OUT_OF_BAND = 64 << 10
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


class Source(Protocol):
    """Where a frame is read from."""

    def readinto(self, buffer: memoryview | bytearray, /) -> int:
        """Fill ``buffer`` as far as there is data."""


_Cache = type(functools.cache(len))


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    """The function with an empty ``lru_cache`` around it, as it had here."""
    return functools.lru_cache(**parameters)(function)  # type: ignore[no-any-return]  # as callable as it was


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Remembers which files the functions that travel by value came from."""

    def __init__(self, file: io.BytesIO, keep: Callable[[pickle.PickleBuffer], bool]) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self.files: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is FunctionType and obj.__globals__.get("__name__") == "__main__":
            self.files.add(obj.__code__.co_filename)
        if isinstance(obj, BaseException) and _has_own_init(type(obj)):
            return _make_error, (type(obj), obj.args, obj.__dict__)
        if type(obj) is _Cache and obj.__module__ == "__main__":  # else it would go by name
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        return super().reducer_override(obj)


def _has_own_init(kind: type[BaseException]) -> bool:
    """Whether ``kind(*args)``, which is how exceptions unpickle, may not be how it is made."""
    return type(kind.__init__) is FunctionType and kind.__reduce__ is BaseException.__reduce__


def _make_error(kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]) -> BaseException:
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 - its __init__ wants something else than what it told its base
        error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def dump(*objects: object) -> Frame:
    """Pickle ``objects``, one after the other, into one frame.

    Functions and classes of the notebook go by value, whatever is installed by
    reference. Nothing is copied that supports the buffer protocol of pickle.

    Raises:
        Exception: Whatever pickling raises; callers know what to call the object.
    """
    stream, buffers = io.BytesIO(), _Buffers()
    pickler = _Pickler(stream, buffers.keep)
    for each in objects:
        pickler.dump(each)
    return _frame(stream, buffers)


def dump_function(function: Callable[..., Any], name: str) -> Frame:
    """Pickle a function together with the source lines of the cells it came from.

    Raises:
        PayloadError: The function or something it uses cannot be pickled.
    """
    stream, buffers = io.BytesIO(), _Buffers()
    pickler = _Pickler(stream, buffers.keep)
    try:
        pickler.dump(function)
    except Exception as error:
        message = (
            f"cannot send {name}: {error}; something it uses cannot be pickled: make it inside the function "
            f"or pass what it is made from"
        )
        raise PayloadError(message) from error
    pickler.dump({file: "".join(linecache.getlines(file)) for file in sorted(pickler.files)})
    return _frame(stream, buffers)


def load(view: memoryview, count: int = 1) -> list[Any]:
    """Load ``count`` objects from a frame in memory; their buffers are views into it.

    Raises:
        FormatError: This is not a frame.
        Exception: Whatever unpickling raises.
    """
    _head, stream, *buffers = _pieces(view)
    unpickler = pickle.Unpickler(io.BytesIO(stream), buffers=buffers)
    return [unpickler.load() for _ in range(count)]


def load_function(view: memoryview) -> Callable[..., Any]:
    """Load what :func:`dump_function` made, and let tracebacks find its source lines."""
    function, sources = load(view, 2)
    for file, text in sources.items():
        linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    return function  # type: ignore[no-any-return]  # it was a function when it was dumped


def read(source: Source, size: int, checksum: int) -> Any:
    """Read one object from a frame of ``size`` bytes, verifying its CRC-32 on the way.

    Raises:
        FormatError: Short, altered, or not a frame.
        Exception: Whatever unpickling raises.
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
    return pickle.loads(pieces[0], buffers=pieces[1:])


def digest(view: memoryview) -> Digest:
    """The digest (:meth:`Frame.digest`) of a frame in memory."""
    return Frame(_pieces(view)).digest()


class _Buffers:
    def __init__(self) -> None:
        self.views: list[memoryview] = []

    def keep(self, buffer: pickle.PickleBuffer) -> bool:
        """Answer pickle's question: true keeps the buffer in the stream."""
        try:
            view = buffer.raw()
        except BufferError:  # not contiguous: pickle copies it into the stream
            return True
        if view.nbytes < OUT_OF_BAND:
            return True
        self.views.append(view)
        return False


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


def _frame(stream: io.BytesIO, buffers: _Buffers) -> Frame:
    bodies: list[Part] = [stream.getbuffer(), *buffers.views]
    head = _HEAD.pack(MAGIC, len(bodies) - 1, len(bodies[0]))
    head += struct.pack(f"<{len(bodies) - 1}Q", *(len(body) for body in bodies[1:]))
    return Frame([head, *bodies])


def _unpack(head: bytes | bytearray | memoryview) -> tuple[int, int]:
    if len(head) < _HEAD.size:
        message = f"{len(head)} bytes are too few for a frame"
        raise FormatError(message)
    magic, n_buffers, stream_length = _HEAD.unpack_from(head)
    if magic != MAGIC:
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
