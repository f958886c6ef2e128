"""What one map sends: the function, its data and its inputs, and beside them the user's own modules."""

import io
import pickle
from collections.abc import Callable
from typing import Any

from golem_magic.errors import GolemMagicError, PayloadError
from golem_magic.payload import frames
from golem_magic.payload.frames import Frame
from golem_magic.payload.modules import Library, own_folders
from golem_magic.payload.pickler import Buffers, Ledger, pickled
from golem_magic.payload.shelf import Sources

NOTHING = Sources({}, {})


class Packer:
    """Packs one map: first common data and some inputs, then the function, then whatever else there is.

    The function's frame is the one that workers load before all others. So it
    takes along the modules of everything packed until then; what is packed
    later takes along only what is new.
    """

    def __init__(self) -> None:
        self._library = Library()
        self._ledger = Ledger(self._library)  # of everything until the function
        self._sent: Sources | None = None  # with the function, once that is packed

    def function(self, function: Callable[..., Any], name: str) -> Frame:
        """Pickle a function; the first one takes along what it and all before it need.

        Raises:
            PayloadError: It, or something it uses, cannot be pickled; the way to that is named.
        """
        stream, buffers, ledger = self._pickled(function, lambda error: f"{name}: {_reason(function, error)}")
        if self._sent is None:
            self._sent = Sources(ledger.texts(), self._library.closure(ledger.modules), own_folders())
            return _frame(stream, buffers, self._sent)
        return _frame(stream, buffers, self._new(ledger))

    def common(self, value: object) -> Frame:
        """Pickle the common data.

        Raises:
            PayloadError: Something in it cannot be pickled; the way to that is named.
        """
        stream, buffers, ledger = self._pickled(
            value, lambda error: f"the common data: {_reason(value, error)}"
        )
        return _frame(stream, buffers, self._new(ledger))

    def inputs(self, block: list[Any], first: int) -> Frame:
        """Pickle a block of inputs.

        Args:
            block: The inputs.
            first: The index of the first one.

        Raises:
            PayloadError: One of them cannot be pickled; it is named, and the way to what is wrong in it.
        """
        stream, buffers, ledger = self._pickled(block, lambda error: _wrong_input(list(block), first, error))
        return _frame(stream, buffers, self._new(ledger))

    def _pickled(
        self, value: object, explain: Callable[[Exception], str]
    ) -> tuple[io.BytesIO, Buffers, Ledger]:
        ledger = self._ledger if self._sent is None else Ledger(self._library)
        try:
            return *pickled([value], ledger), ledger
        except GolemMagicError:
            raise
        except Exception as error:
            message = f"cannot send {explain(error)}"
            raise PayloadError(message) from error

    def _new(self, ledger: Ledger) -> Sources:
        """What did not go with the function."""
        if self._sent is None or not (ledger.files or ledger.modules - self._ledger.modules):
            return NOTHING
        known_texts, known, _ = self._sent
        texts, modules = ledger.texts(), self._library.closure(ledger.modules)
        return Sources(
            {file: text for file, text in texts.items() if file not in known_texts},
            {name: module for name, module in modules.items() if name not in known},
        )


def _frame(stream: io.BytesIO, buffers: Buffers, sources: Sources) -> Frame:
    if not any(sources):
        return frames.make(stream, buffers.views)
    return frames.make(stream, buffers.views, pickle.dumps(sources, protocol=5))


def _reason(value: object, error: Exception) -> str:
    from golem_magic.payload import culprit  # needed only now, and never on a worker

    return culprit.explain(value, error)


def _wrong_input(block: list[Any], first: int, error: Exception) -> str:
    from golem_magic.payload import culprit

    position = culprit.first_step(block, error)
    if position is None:
        return f"inputs {first} to {first + len(block) - 1}: {culprit.explain(block, error)}"
    each = block[position]
    return f"input {first + position} ({type(each).__name__}): {culprit.explain(each, error)}"
