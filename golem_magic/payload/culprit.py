"""Why something cannot be pickled, found after it has failed: which object, and how one gets to it.

The payload is pickled once more by Python's own slow pickler, which remembers
the chain of objects it is in. Where that ends is the culprit, and the chain is
told as one would write it: ``table.rows[3].handle``.
"""

import functools
import pickle
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import BytesIO
from types import CodeType, FunctionType, MethodType
from typing import Any, NamedTuple

from golem_magic.payload.pickler import Pickler

_LONGEST = 200  # characters of somebody else's error message
_LONGEST_KEY = 40
_DEEP = 60  # objects within each other: nobody wants to read the whole path
# By class, wherever it stands in the order of inheritance: what it is, and what to do instead.
_KINDS = {
    "ipywidgets.widgets.widget.Widget": ("a widget", "send its value instead"),
    "IPython.core.interactiveshell.InteractiveShell": (
        "the notebook's kernel object",
        "magics, !commands and get_ipython() work only in the notebook",
    ),
    "ipykernel.kernelbase.Kernel": ("the notebook's kernel object", "it exists only in the notebook"),
    "golem_magic.results.Results": ("the results of another job", "send list(results) or single values"),
    "sqlite3.Connection": ("a database connection", "connect inside the function"),
    "sqlite3.Cursor": ("a database connection's cursor", "connect inside the function"),
    "_socket.socket": ("a socket", "connect inside the function"),
    "_io._IOBase": ("an open file", "send its path, and open it inside the function"),
    "builtins.generator": ("a generator", "send a list of what it gives, or make it inside the function"),
    "builtins.coroutine": ("a coroutine", "await it here, or make it inside the function"),
    "builtins.async_generator": ("an async generator", "make it inside the function"),
    "_thread.lock": ("a lock", "make it inside the function: workers are processes of their own"),
    "_thread.RLock": ("a lock", "make it inside the function: workers are processes of their own"),
    "_thread._local": ("thread-local data", "make it inside the function"),
    "threading.Thread": ("a thread", "start it inside the function"),
    "subprocess.Popen": ("a running process", "start it inside the function"),
}
_OTHERWISE = "make it inside the function, or send what it is made from"


class _Path(NamedTuple):
    """How one gets to an object: the steps, and whether they end at it or at what holds it somehow."""

    steps: tuple[str, ...]
    is_complete: bool

    def says(self, what: str, root: str) -> str:
        text = ""
        for step in self.steps:
            text += step if step[0] in ".[" or not text else f" -> {step}"
        return f"{text or root} {'is' if self.is_complete else 'holds'} {what}"


def explain(payload: object, error: Exception, root: str = "it") -> str:
    """Say in one line what makes pickling ``payload`` fail with ``error``, where that is, and what to do.

    Args:
        payload: What was pickled.
        error: What that raised.
        root: What the payload itself is called, where it is the culprit.
    """
    return ": ".join(located(payload, error, root))


def located(payload: object, error: Exception, root: str = "it") -> tuple[str, str]:
    """The two parts of :func:`explain`: what it is and where; what to do if it was to be sent."""
    why = " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    chain = _chain(payload, error)
    for depth, each in enumerate(chain):
        for name in (f"{kind.__module__}.{kind.__qualname__}" for kind in type(each).__mro__):
            if name in _KINDS:
                what, advice = _KINDS[name]
                return f"{_path(chain[: depth + 1]).says(what, root)} ({why})", advice
    if not chain:
        return why, f"something in it cannot be pickled, {_OTHERWISE}"
    if len(chain) > _DEEP:
        return f"{_path(chain[:12]).says('nested too deeply', root)} ({why})", "send it in a flatter form"
    kind = type(chain[-1]).__name__
    article = "an" if kind[0].lower() in "aeiou" else "a"
    return f"{_path(chain).says(f'{article} {kind}', root)} ({why})", _OTHERWISE


def first_step(payload: list[Any], error: Exception) -> int | None:
    """Give the index of the item of ``payload`` that makes pickling it fail; None if it is hidden."""
    chain = _chain(payload, error)
    return next((i for i, each in enumerate(payload) if len(chain) > 1 and each is chain[1]), None)


class _Tracer(pickle._Pickler):
    """Pickles into nothing; after an exception ``chain`` leads to where it happened."""

    def __init__(self, undo: ExitStack) -> None:
        super().__init__(_Nowhere(), protocol=5, buffer_callback=lambda _buffer: False)
        self._pickler = Pickler(BytesIO(), lambda _buffer: False, None, undo)
        self.dispatch_table = self._pickler.dispatch_table
        self.chain: list[Any] = []

    def reducer_override(self, obj: Any) -> Any:
        return self._pickler.reducer_override(obj)

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        self.chain.append(obj)
        super().save(obj, save_persistent_id)  # type: ignore[misc]  # not in the stubs, but what we rely on
        self.chain.pop()


class _Nowhere:
    def write(self, data: Any) -> int:
        return len(data)


def _chain(payload: object, error: Exception) -> list[Any]:
    """The objects from the payload to the culprit; empty if this attempt fails in another way."""
    with ExitStack() as undo:
        tracer = _Tracer(undo)
        try:
            tracer.dump(payload)
        except Exception as again:  # noqa: BLE001 - what the first attempt raised, most likely
            is_same = type(again) is type(error) or isinstance(again, RecursionError)
            return tracer.chain if is_same else []
    return []


# --- the chain in words ---


def _path(chain: list[Any]) -> _Path:
    """What pickle puts between two objects, such as the tuple of an object's state, is left out."""
    steps, last, is_complete = [], chain[0], True
    for each in chain[1:]:
        step = next((words for words, child in _children(last) if child is each), None)
        is_complete = step is not None
        if step is not None:
            last = each
            steps.append(step)
    return _Path(tuple(filter(None, steps)), is_complete)


def _children(obj: Any) -> Iterator[tuple[str, Any]]:
    """Parts of an object, each with the step that leads to it; an empty one goes without saying."""
    match obj:
        case FunctionType():
            yield from _of_function(obj)
        case MethodType():
            yield from (("", obj.__func__), (".__self__", obj.__self__))
        case functools.partial():
            yield ".func", obj.func
            yield from ((f".args[{i}]", each) for i, each in enumerate(obj.args))
            yield from ((f".keywords[{name!r}]", each) for name, each in obj.keywords.items())
        case property():
            yield from (("", obj.fget), ("", obj.fset), ("", obj.fdel))
        case staticmethod() | classmethod():
            yield "", obj.__func__
        case _:
            yield from _items(obj)
    yield from _attributes(obj)


def _items(obj: Any) -> Iterator[tuple[str, Any]]:
    match obj:
        case dict():
            yield from ((f"[{_short(key)}]", each) for key, each in obj.items())
            yield from ((f"the key {_short(key)}", key) for key in obj)
        case list() | tuple() | deque():
            yield from ((f"[{i}]", each) for i, each in enumerate(obj))
        case set() | frozenset():
            yield from (("an item", each) for each in obj)
        case _:
            pass


def _of_function(function: FunctionType) -> Iterator[tuple[str, Any]]:
    code = function.__code__
    for name in _names(code):
        if name in function.__globals__:
            yield name, function.__globals__[name]
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        with suppress(ValueError):  # empty
            yield name, cell.cell_contents
    defaults = function.__defaults__ or ()
    parameters = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    for name, each in [*zip(parameters, defaults, strict=False), *(function.__kwdefaults__ or {}).items()]:
        yield f"the default of {name}", each


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _attributes(obj: Any) -> Iterator[tuple[str, Any]]:
    with suppress(Exception):  # anybody's object
        yield from ((f".{name}", each) for name, each in vars(obj).items())
    for kind in type(obj).__mro__:
        for name in getattr(kind, "__slots__", ()):
            with suppress(Exception):
                yield f".{name}", getattr(obj, name)
    if isinstance(obj, BaseException):
        yield from ((f".args[{i}]", each) for i, each in enumerate(obj.args))
    yield "", type(obj)


def _short(key: object) -> str:
    try:
        text = repr(key)
    except Exception:  # noqa: BLE001 - anybody's object
        text = f"<{type(key).__name__}>"
    return text if len(text) <= _LONGEST_KEY and "\n" not in text else f"<{type(key).__name__}>"
