"""The keywords of a map, checked and turned into one record before anything is done with them."""

import difflib
import inspect
import operator
import os
from collections.abc import Callable, Mapping, Sized
from contextlib import suppress
from typing import Any, Final, SupportsIndex, cast, get_args

from golem_magic.errors import SettingsError
from golem_magic.model import Keep, MapOptions, OnError, qualified_name
from golem_magic.units import n_bytes


class _NotGiven:
    """Marks "no common data", which None is not."""

    def __repr__(self) -> str:
        return "NOT_GIVEN"


NOT_GIVEN: Final = _NotGiven()
DEFAULTS: Mapping[str, object] = {
    "common": NOT_GIVEN,
    "chunk_size": "auto",
    "on_error": "raise",
    "retries": 0,
    "retry_on": None,
    "timeout": None,
    "setup": None,
    "workers": None,
    "label": None,
    "star": False,
    "kwargs": False,
    "unordered": False,
    "stream": False,
    "keep": "all",
    "disk_budget": None,
    "resources": None,
    "error_log": None,
    "reuse": False,
}
# Not available yet: accepted at their default, refused otherwise.
LATER: Mapping[str, object] = {"seed": None, "cache": False}
KNOWN = (*DEFAULTS, "engine")
RESOURCES_LATER = ("cores", "walltime", "gpus")
MOST_NAMES = 8  # of an input's keys that a message shows
LEAST_MEMORY = 64 << 20  # an interpreter with numpy has about that; chosen by feel


def checked(said: Mapping[str, Any]) -> MapOptions:
    """Check the keywords of one map.

    Args:
        said: Keywords by name; the others are at their default.

    Raises:
        SettingsError: One is unknown, wrong, or not available yet; or two do not go together.
    """
    _refuse_later(said)
    said = {**DEFAULTS, **said}
    common = said["common"]
    options = MapOptions(
        common=None if common is NOT_GIVEN else common,
        has_common=common is not NOT_GIVEN,
        chunk_size=_chunk_size(said["chunk_size"]),
        on_error=on_error(said["on_error"]),
        workers=_whole(said["workers"], "workers", low=1, none_is="as many as the engine has slots"),
        label=_label(said["label"]),
        star=bool(said["star"]),
        kwargs=bool(said["kwargs"]),
        unordered=bool(said["unordered"]),
        timeout_s=_seconds(said["timeout"], "timeout"),
        setup=_setup(said["setup"]),
        retries=_whole(said["retries"], "retries", low=0) or 0,
        retry_on=_exceptions(said["retry_on"]),
        stream=bool(said["stream"]),
        keep=_keep(said["keep"]),
        disk_budget=_whole(said["disk_budget"], "disk_budget", low=1, none_is="no limit", unit=" of bytes"),
        memory_bytes=_memory(said["resources"]),
        error_log=_file(said["error_log"]),
        reuse=bool(said["reuse"]),
    )
    if options.reuse and (options.stream or options.keep == "unread" or options.disk_budget is not None):
        message = "reuse compares all inputs first: leave out stream, keep='unread' and disk_budget, or reuse"
        raise SettingsError(message)
    if options.unordered and options.keep == "unread":
        message = "keep='unread' frees results in the order of the inputs: leave unordered out"
        raise SettingsError(message)
    if options.star and options.kwargs:
        message = "star calls f(*x) and kwargs calls f(**x): give one of them"
        raise SettingsError(message)
    if options.retry_on and not options.retries:
        message = "retry_on says which exceptions are worth another try, and retries is 0: set retries too"
        raise SettingsError(message)
    return options


def function_name(function: object) -> str:
    """What a function is called in messages and pictures.

    Raises:
        SettingsError: It cannot be called, or is a coroutine or generator function.
    """
    if not callable(function):
        message = f"{function!r} cannot be called: the first argument is the function"
        raise SettingsError(message)
    name = str(getattr(function, "__name__", type(function).__name__))
    if _is_any(function, inspect.iscoroutinefunction):
        message = f"{name} is an async function: map a plain one, such as lambda x: asyncio.run({name}(x))"
        raise SettingsError(message)
    if _is_any(function, inspect.isgeneratorfunction) or _is_any(function, inspect.isasyncgenfunction):
        message = f"{name} gives a generator, which cannot be sent back: let it return a list"
        raise SettingsError(message)
    return name


def _is_any(function: object, kind: Callable[[object], bool]) -> bool:
    """Whether a function, or what an object does when it is called, is of this kind."""
    return kind(function) or kind(type(function).__call__)


def check_arguments(function: Callable[..., Any], name: str, options: MapOptions, first: list[Any]) -> None:
    """Refuse a function that cannot take what each task will give it, as far as can be told here.

    Raises:
        SettingsError: It takes fewer or needs more arguments.
    """
    spread = _spread(options, first)
    if spread is None:
        return
    n_arguments, names = spread
    n_arguments += options.has_common + (options.setup is not None)
    try:  # a wrapper's own arguments count, whatever it wraps
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*[None] * n_arguments, **dict.fromkeys(names))
    except TypeError as error:
        given = _given(n_arguments, names, options)
        remedy = f"change its parameters, {'the keys' if options.kwargs else 'star'} or common"
        message = f"{name} cannot be called with {given} ({error}): {remedy}"
        raise SettingsError(message) from error


def _spread(options: MapOptions, first: list[Any]) -> tuple[int, tuple[str, ...]] | None:
    """How many arguments an input becomes, and which by name; None where that cannot be told."""
    if not options.star and not options.kwargs:
        return 1, ()
    if not first:
        return None
    if options.kwargs:
        return 0, _names(first[0])
    return (len(first[0]), ()) if isinstance(first[0], Sized) else None


def _names(first: object) -> tuple[str, ...]:
    """The names that an input has for its parts."""
    if not isinstance(first, Mapping):
        message = (
            f"kwargs calls f(**x), and input 0 is of type {type(first).__name__}: give mappings from names "
            f"of parameters, such as {{'x': 1}}, or use star for sequences"
        )
        raise SettingsError(message)
    for key in first:
        if not isinstance(key, str):
            message = f"kwargs calls f(**x), and input 0 has the key {key!r}: let keys be names of parameters"
            raise SettingsError(message)
    return tuple(first)


def _given(n_arguments: int, names: tuple[str, ...], options: MapOptions) -> str:
    """What each task will be called with, in words."""
    place = "first" if options.kwargs else "last"
    also = f", the common data {place}" if options.has_common else ""
    also += f", the set-up value {place}" if options.setup is not None else ""
    if not options.kwargs:
        return f"{n_arguments} argument{'s' if n_arguments > 1 else ''}{also}"
    shown = ", ".join(names[:MOST_NAMES]) + (", ..." if len(names) > MOST_NAMES else "")
    return f"the keys of input 0, {shown}{also}" if names else f"no keys{also}"


def on_error(value: object) -> OnError:
    """What an iterator does at a task that failed.

    Raises:
        SettingsError: It is none of the known ways.
    """
    if isinstance(value, str) and value in get_args(OnError):
        return cast("OnError", value)
    message = f"on_error is {value!r}: give 'raise', 'return', 'skip' or 'stop'"
    raise SettingsError(message)


def _refuse_later(said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if name in KNOWN:
            continue
        if name not in LATER:
            near = difflib.get_close_matches(name, KNOWN, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"the options are {', '.join(KNOWN)}"
            message = f"unknown option {name!r}: {hint}"
            raise SettingsError(message)
        default = LATER[name]
        if type(value) is not type(default) or value != default:  # comparing an array gives no truth value
            message = f"option {name!r} is not available yet: leave it out"
            raise SettingsError(message)


def _label(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    message = f"label is {value!r}: give text"
    raise SettingsError(message)


def _chunk_size(value: object) -> int | None:
    if isinstance(value, str) and value == "auto":
        return None
    number = _index(value)
    if number is not None and number >= 1:
        return number
    message = f"chunk_size is {value!r}: give a whole number from 1 up, or 'auto'"
    raise SettingsError(message)


def _index(value: object) -> int | None:
    """A whole number of whatever library, None for anything else, truth values among it."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)
    except TypeError:  # an array has the method, and uses it only where it is a number
        return None


def _whole(value: object, name: str, *, low: int, none_is: str = "", unit: str = "") -> int | None:
    if value is None and none_is:
        return None
    number = _index(value)
    if number is not None and number >= low:
        return number
    also = f", or None for {none_is}" if none_is else ""
    message = f"{name} is {value!r}: give a whole number{unit} from {low} up{also}"
    raise SettingsError(message)


def _seconds(value: object, name: str) -> float | None:
    if value is None:
        return None
    number = value if isinstance(value, float) else _index(value)
    if number is not None and 0 < number < float("inf"):
        return float(number)
    message = f"{name} is {value!r}: give seconds above 0, or None for no limit"
    raise SettingsError(message)


def _file(value: object) -> str | None:
    """A file that workers write: absolute, since they need not work in our folder."""
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(path, str) and path and "\0" not in path and not os.path.isdir(path):
        return os.path.abspath(os.path.expanduser(path))
    message = f"error_log is {value!r}: give the path of a file that workers may write, or None"
    raise SettingsError(message)


def _memory(resources: object) -> int | None:
    """What each worker may have; of all resources only memory can be limited yet."""
    if resources is None:
        return None
    if isinstance(resources, str):
        resources = dict(part.partition("=")[::2] for part in resources.split())
    if not isinstance(resources, Mapping) or not resources:
        message = f"resources is {resources!r}: write resources='memory=2G' or resources={{'memory': '2G'}}"
        raise SettingsError(message)
    for name in resources:
        if name in RESOURCES_LATER:
            message = f"resources: {name} is not available yet, memory is: leave it out"
            raise SettingsError(message)
        if name != "memory":
            known = ("memory", *RESOURCES_LATER)
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            message = f"resources: unknown resource {name!r}: {hint}"
            raise SettingsError(message)
    memory = resources["memory"]
    with suppress(ValueError):
        number = n_bytes(memory) if isinstance(memory, str) else _index(memory)
        if number is not None and number >= LEAST_MEMORY:
            return number
    message = f"resources: memory is {memory!r}: give bytes, or text such as 500M or 2G, from 64M up"
    raise SettingsError(message)


def _setup(value: object) -> Callable[[], Any] | None:
    if value is None:
        return None
    if not callable(value):
        message = f"setup is {value!r}, which cannot be called: give a function without arguments"
        raise SettingsError(message)
    try:
        inspect.signature(value).bind()
    except TypeError as error:
        message = f"setup cannot be called without arguments ({error}): give a function that needs none"
        raise SettingsError(message) from error
    except ValueError:  # some built-in functions have no signature
        pass
    return cast("Callable[[], Any]", value)


def _exceptions(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    kinds = value if isinstance(value, tuple) else (value,)
    if not kinds or not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        message = f"retry_on is {value!r}: give an exception class, a tuple of them, or None for all"
        raise SettingsError(message)
    return tuple(qualified_name(kind) for kind in kinds)


def _keep(value: object) -> Keep:
    if isinstance(value, str) and value in get_args(Keep):
        return cast("Keep", value)
    message = f"keep is {value!r}: give 'all' or 'unread'"
    raise SettingsError(message)
