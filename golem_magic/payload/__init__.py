"""Objects to bytes and back: functions by value, the user's modules and big buffers beside them.

``dump`` and ``load`` are the plain way, for what both sides can import. A
:class:`Packer` packs what a map sends: it adds the text of the user's own
modules and cells, and says what cannot be sent and where that is. A frame that
was mapped is loaded without copying; a frame that is read gives every buffer
memory of its own, so that keeping one array does not keep its neighbours.
"""

import io
import pickle
import socket
import traceback
from collections.abc import Callable
from typing import Any

from golem_magic.errors import PayloadError
from golem_magic.payload import frames, shelf
from golem_magic.payload.frames import ALIGNMENT, MAGIC, Frame, Opened, Source, digest
from golem_magic.payload.packer import Packer
from golem_magic.payload.pickler import OUT_OF_BAND, pickled

__all__ = [
    "ALIGNMENT",
    "MAGIC",
    "OUT_OF_BAND",
    "Frame",
    "Opened",
    "Packer",
    "Source",
    "digest",
    "dump",
    "dump_function",
    "fetch",
    "load",
    "load_function",
    "unloadable",
    "unpack",
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


def fetch(source: Source, size: int, checksum: int) -> Opened:
    """Read a frame of ``size`` bytes, verifying its CRC-32 on the way; nothing of it is run.

    Raises:
        FormatError: Short, altered, or not a frame.
    """
    return frames.read(source, size, checksum)


def unpack(frame: Opened, what: str, whose_python: str = "workers'", *, with_sources: bool = True) -> Any:
    """Load the one object of a frame; what that runs is code of the user's classes.

    Args:
        frame: As :func:`fetch` gave it.
        what: What is in it, for messages: ``inputs 3 to 9``.
        whose_python: Where something would have to be installed.
        with_sources: Put modules that came along to use: for workers only, elsewhere they would
            hide the user's own, which may have changed.

    Raises:
        PayloadError: Loading it raised, be it ``SystemExit``; that is the cause.
    """
    try:
        return _loaded(frame, 1, with_sources=with_sources)[0]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise unloadable(what, error, whose_python) from error


def unloadable(what: str, error: BaseException, whose_python: str = "workers'") -> PayloadError:
    """Say in one line that ``what`` cannot be loaded in this process, and what to do.

    Args:
        what: The objects, in words.
        error: What loading them raised.
        whose_python: Where something would have to be installed.
    """
    reason = "".join(traceback.format_exception_only(error))
    advice = "loading runs code of its class (__setstate__, __reduce__), which must work there too"
    if isinstance(error, ImportError | AttributeError):
        advice = (
            f"probably a package is missing there: install it for the {whose_python} Python, or set the "
            f"setting `python` to an interpreter that has it"
        )
    message = f"{what} cannot be loaded on {socket.gethostname()} ({' '.join(reason.split())}): {advice}"
    return PayloadError(message)


def _loaded(frame: Opened, count: int, *, with_sources: bool = True) -> list[Any]:
    if count == 1 and not frame.has_sources:
        return [pickle.loads(frame.stream, buffers=frame.buffers)]
    stream = io.BytesIO(frame.stream)
    if frame.has_sources:
        sources = pickle.load(stream)
        if with_sources:
            shelf.install(sources)
    unpickler = pickle.Unpickler(stream, buffers=frame.buffers)
    return [unpickler.load() for _ in range(count)]
