"""Run a notebook function many times: a Golem job per map, its results a lazy, ordered variable."""

from golem_magic.errors import (
    CellError,
    EngineError,
    ExecutionFailure,
    FormatError,
    GolemMagicError,
    InfiniteRecursionError,
    JobCancelled,
    JobError,
    NoWorkersError,
    PayloadError,
    ResultConsumed,
    SettingsError,
    ShareError,
    TaskError,
    TaskTimeout,
    WorkerDied,
)

__all__ = [
    "CellError",
    "Client",
    "EngineError",
    "ExecutionFailure",
    "FormatError",
    "GolemMagicError",
    "InfiniteRecursionError",
    "JobCancelled",
    "JobError",
    "NoWorkersError",
    "PayloadError",
    "ResultConsumed",
    "Results",
    "SettingsError",
    "ShareError",
    "TaskError",
    "TaskTimeout",
    "WorkerDied",
    "attach",
    "golem_map",
]
__version__ = "0.1.0.dev0"

_LAZY = {"Client": "client", "attach": "client", "golem_map": "client", "Results": "results"}


def __getattr__(name: str) -> object:
    """Import the client when it is first asked for: workers and kernels that never map stay light."""
    if name not in _LAZY:
        message = f"module 'golem_magic' has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    value = getattr(import_module(f"golem_magic.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: object) -> None:
    """Register the magics (``%load_ext golem_magic``)."""
    from golem_magic.magics import load

    load(shell)


def unload_ipython_extension(shell: object) -> None:
    """Take the magics out again (``%unload_ext golem_magic``)."""
    from golem_magic.magics import unload

    unload(shell)
