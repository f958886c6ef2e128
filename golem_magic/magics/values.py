"""What stands behind the names in a shell: functions to map, results of jobs."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from golem_magic.errors import CellError, GolemMagicError
from golem_magic.model import JobSnapshot


def all_names(user_ns: dict[str, Any], local_ns: Mapping[str, Any] | None) -> dict[str, Any]:
    """Give one namespace for expressions: a comprehension in them sees globals only."""
    return user_ns if local_ns is None or local_ns is user_ns else {**user_ns, **local_ns}


def function_to_map(value: object, text: str) -> Callable[..., Any]:
    """Give a value that can be mapped as it is.

    Raises:
        CellError: It cannot be called, or gives no values when it is.
    """
    if not callable(value):
        message = f"{text} cannot be mapped: it is a {type(value).__name__}, not a function"
        raise CellError(message)
    if inspect.iscoroutinefunction(value):
        message = (
            f"{text} is an async def and cannot be mapped: write a def that calls asyncio.run({text}(x))"
        )
        raise CellError(message)
    return value


def progress_of(value: Any) -> JobSnapshot | None:
    """Give the snapshot of results, None for anything else.

    Asked of the type first: objects that answer to every name must not be taken for results.
    """
    if not hasattr(type(value), "progress"):
        return None
    progress = value.progress
    return progress if isinstance(progress, JobSnapshot) else None


def is_unfinished(value: object) -> bool:
    """Whether a value is the results of a job that is not over."""
    try:
        progress = progress_of(value)
    except GolemMagicError:  # the share is gone: nothing to be seen there any more
        return False
    return progress is not None and not progress.state.is_final
