"""What pickle and cloudpickle alone cannot do, or do without being asked to.

Functions and classes of the notebook go by value, whatever has a module by
name. The pickler notes in a :class:`Ledger` which modules and files a
payload speaks of, so that what is not installed can be sent along.
"""

import functools
import io
import linecache
import pickle
import sys
import threading
import typing
import weakref
from collections import ChainMap
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from types import CellType, FunctionType, ModuleType
from typing import Any

import cloudpickle

from golem_magic.payload.modules import Library, imports, is_installed

OUT_OF_BAND = 64 << 10
_by_value = threading.RLock()  # cloudpickle's registry of modules is the whole process's
_Cache = type(functools.cache(len))
_complete: "weakref.WeakSet[type]" = weakref.WeakSet()  # classes that travel by value and exist here


class RefusedError(TypeError):
    """Something that can be pickled, but would not be there what it is here."""


class Buffers:
    """Large buffers that stay beside the stream."""

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


class Ledger:
    """What one payload speaks of.

    Attributes:
        modules: Names of modules, of whatever kind.
        files: Where functions that travel by value came from.
    """

    def __init__(self, library: Library) -> None:
        self.modules: set[str] = set()
        self.files: set[str] = set()
        self._library = library

    def meet(self, name: str, undo: ExitStack) -> None:
        """Note a module; if nobody can import it, let what it defines travel by value until ``undo``."""
        self.modules.add(name)
        self._library.find(name)
        if name in self._library.made:
            undo.enter_context(_by_value)  # until this payload is pickled: another would end it too early
            if name not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(sys.modules[name])
                undo.callback(cloudpickle.unregister_pickle_by_value, sys.modules[name])

    def travels(self, function: FunctionType) -> None:
        """Note the lines of a function that goes by value, and what it imports when it runs."""
        code = function.__code__
        if not is_installed(code.co_filename):
            self.files.add(code.co_filename)
        self.modules.update(imports(code, function.__globals__.get("__package__") or ""))

    def texts(self) -> dict[str, str]:
        """The text of each file, where Python knows it."""
        texts = {file: "".join(linecache.getlines(file)) for file in sorted(self.files)}
        return {file: text for file, text in texts.items() if text}


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # cloudpickle is not typed
    """Pickles into ``file``.

    Args:
        file: Takes the stream.
        keep: Asked for each buffer whether it stays in the stream.
        ledger: Takes notes; without one this is the way back, and everything is there already.
        undo: What has to be undone after pickling.
    """

    def __init__(
        self,
        file: io.BytesIO,
        keep: Callable[[pickle.PickleBuffer], bool],
        ledger: Ledger | None,
        undo: ExitStack,
    ) -> None:
        super().__init__(file, protocol=5, buffer_callback=keep)
        self._ledger = ledger
        self._undo = undo
        self._holes: dict[int, _Hole] = {}
        self._widgets = getattr(sys.modules.get("ipywidgets"), "Widget", ())
        self._streams = {id(getattr(sys, name)): name for name in ("stdin", "stdout", "stderr")}

    def reducer_override(self, obj: Any) -> Any:
        """Answer pickle's question how an object is taken apart."""
        if self._ledger is not None:
            self._note(self._ledger, obj)
        if id(obj) in self._streams:  # a kernel's are no files
            return getattr, (sys, self._streams[id(obj)])
        if isinstance(obj, self._widgets):
            message = "a widget lives in the notebook and its front end"
            raise RefusedError(message)
        if isinstance(obj, BaseException) and _has_own_init(type(obj)):
            return _make_error, (type(obj), obj.args, obj.__dict__)
        if type(obj) is _Cache and not _has_name(obj):
            return _cached, (obj.__wrapped__, obj.cache_parameters())
        reduced = super().reducer_override(obj)
        if reduced is NotImplemented:
            return reduced
        return self._function(obj, reduced) if type(obj) is FunctionType else _class(obj, reduced)

    def _function(self, function: FunctionType, reduced: Any) -> Any:
        if self._ledger is not None:
            self._ledger.travels(function)
        return self._with_shared_cells(function, reduced) if function.__closure__ else reduced

    def _note(self, ledger: Ledger, obj: Any) -> None:
        name = obj.__name__ if type(obj) is ModuleType else getattr(obj, "__module__", None)
        if type(name) is str and name not in ledger.modules:
            ledger.meet(name, self._undo)

    def _with_shared_cells(self, function: FunctionType, reduced: Any) -> Any:
        """Let functions that share a variable go on sharing it: cloudpickle gives each its own."""
        make, (*others, _), (attributes, more), _, _, set_state = reduced
        cells = function.__closure__ or ()
        holes = tuple(self._holes.setdefault(id(cell), _Hole(cell)) for cell in cells)
        contents = {i: cell.cell_contents for i, cell in enumerate(cells) if not _is_empty(cell)}
        state = (set_state, (attributes, {**more, "__closure__": None}), contents)
        return make, (*others, holes), state, None, None, _fill_cells


def pickled(objects: Iterable[object], ledger: Ledger | None) -> tuple[io.BytesIO, Buffers]:
    """Pickle objects one after the other; give the stream and the buffers beside it.

    Raises:
        Exception: Whatever pickling raises.
    """
    stream, buffers = io.BytesIO(), Buffers()
    with ExitStack() as undo:
        pickler = Pickler(stream, buffers.keep, ledger, undo)
        for each in objects:
            pickler.dump(each)
    return stream, buffers


# --- reducers: how to make again what has no name over there ---


def _has_name(obj: Any) -> bool:
    """Whether an object is what its module has under its name, so that a worker can import it."""
    found: Any = None if obj.__module__ == "__main__" else sys.modules.get(obj.__module__)
    for part in getattr(obj, "__qualname__", obj.__name__).split("."):
        found = getattr(found, part, None)
    return found is obj


def _class(kind: type, reduced: Any) -> Any:
    """Let a class that is there already stay as it is: cloudpickle fills it again with every object of it.

    Results of a class of the notebook would replace its methods by copies,
    which see the notebook's variables as they were at submission.
    """
    if len(reduced) < 6:  # one of those that every Python has
        return reduced
    make, arguments, state, _, _, set_state = reduced
    state[0].pop("__slotnames__", None)  # pickle's own note, made when the first object is pickled
    _complete.add(kind)
    return make, arguments, (set_state, state), None, None, _fill_class


def _fill_class(kind: type, state: tuple[Callable[..., Any], Any]) -> type:
    set_state, others = state
    if kind not in _complete:
        set_state(kind, others)
        _complete.add(kind)
    return kind


class _Hole:
    """Stands for a variable shared by functions; becomes an empty cell, once for all of them."""

    def __init__(self, cell: CellType) -> None:
        self.cell = cell  # keeps its id from being used again

    def __reduce__(self) -> Any:
        return CellType, ()


def _is_empty(cell: CellType) -> bool:
    try:
        return cell.cell_contents is cell  # never
    except ValueError:
        return True


def _fill_cells(function: FunctionType, state: tuple[Callable[..., Any], Any, dict[int, Any]]) -> None:
    set_state, others, contents = state
    set_state(function, others)
    for i, value in contents.items():
        (function.__closure__ or ())[i].cell_contents = value


def _cached(function: Callable[..., Any], parameters: dict[str, Any]) -> Callable[..., Any]:
    """The function with an empty ``lru_cache`` around it, as it had here."""
    return functools.lru_cache(**parameters)(function)  # type: ignore[no-any-return]  # as callable as it was


def _cached_property(function: Callable[[Any], Any], name: str | None) -> Any:
    made: Any = functools.cached_property(function)
    made.attrname = name
    return made


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


def _reduce_named(obj: Any) -> Any:
    """Names of types made in cells: pickle would look for them in the worker's ``__main__``."""
    if _has_name(obj):
        return obj.__name__
    more = (obj.__supertype__,) if type(obj) is typing.NewType else ()
    return type(obj), (obj.__name__, *more)


def _reduce_file(_file: Any) -> Any:
    message = "an open file would arrive as a copy of its text"
    raise RefusedError(message)


_REDUCERS = {
    io.TextIOWrapper: _reduce_file,
    functools.cached_property: lambda obj: (_cached_property, (obj.func, obj.attrname)),  # 3.11: has a lock
    weakref.WeakKeyDictionary: lambda obj: (weakref.WeakKeyDictionary, (dict(obj),)),  # of singledispatch
    weakref.WeakValueDictionary: lambda obj: (weakref.WeakValueDictionary, (dict(obj),)),
    typing.NewType: _reduce_named,
    typing.ParamSpec: _reduce_named,
    typing.TypeVarTuple: _reduce_named,
}
Pickler.dispatch_table = ChainMap(
    {**cloudpickle.Pickler.dispatch_table.maps[0], **_REDUCERS}, *cloudpickle.Pickler.dispatch_table.maps[1:]
)
