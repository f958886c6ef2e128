"""Objects to bytes and back: functions by value, the user's modules and big buffers beside them.

``dump`` and ``load`` are the plain way, for what both sides can import. A
:class:`Packer` packs what a map sends: it adds the text of the user's own
modules and cells, and says what cannot be sent and where that is. A frame that
was mapped is loaded without copying; a frame that is read gives every buffer
memory of its own, so that keeping one array does not keep its neighbours.
"""

import io
import pickle
from collections.abc import Callable
from typing import Any

from golem_magic.payload import frames, shelf
from golem_magic.payload.frames import ALIGNMENT, MAGIC, Frame, Source, digest
from golem_magic.payload.packer import Packer
from golem_magic.payload.pickler import OUT_OF_BAND, pickled

__all__ = [
    "ALIGNMENT",
    "MAGIC",
    "OUT_OF_BAND",
    "Frame",
    "Packer",
    "Source",
    "digest",
    "dump",
    "dump_function",
    "load",
    "load_function",
    "read",
]


def dump(*objects: object) -> Frame:
    """Pickle ``objects``, one after the other, into one frame, without the modules they come from.

    Functions and classes of the notebook go by value, whatever has a module by
    reference. Nothing is copied that supports the buffer protocol of pickle.

    Raises:
        Exception: Whatever pickling raises; callers know what to call the object.
    """
    stream, buffers = pickled(objects, None)
    return frames.make(stream, buffers.views)


def dump_function(function: Callable[..., Any], name: str) -> Frame:
    """Pickle a function alone, as :meth:`Packer.function`.

    Raises:
        PayloadError: The function or something it uses cannot be pickled.
    """
    return Packer().function(function, name)


def load(view: memoryview, count: int = 1) -> list[Any]:
    """Load ``count`` objects from a frame in memory; their buffers are views into it.

    Raises:
        FormatError: This is not a frame.
        Exception: Whatever unpickling raises.
    """
    return _loaded(frames.opened(view), count)


def load_function(view: memoryview) -> Callable[..., Any]:
    """Load a function; tracebacks find its lines and imports find its modules from then on."""
    return load(view)[0]  # type: ignore[no-any-return]  # it was a function when it was dumped


def read(source: Source, size: int, checksum: int) -> Any:
    """Read one object from a frame of ``size`` bytes, verifying its CRC-32 on the way.

    Raises:
        FormatError: Short, altered, or not a frame.
        Exception: Whatever unpickling raises.
    """
    frame = frames.read(source, size, checksum)
    if frame.has_sources:
        return _loaded(frame, 1)[0]
    return pickle.loads(frame.stream, buffers=frame.buffers)


def _loaded(frame: frames.Opened, count: int) -> list[Any]:
    stream = io.BytesIO(frame.stream)
    if frame.has_sources:
        shelf.install(pickle.load(stream))
    unpickler = pickle.Unpickler(stream, buffers=frame.buffers)
    return [unpickler.load() for _ in range(count)]
