"""The user's function as a function of one input, with common data and the set-up value bound to it."""

from collections.abc import Callable
from typing import Any, NoReturn

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.errors import GolemMagicError
from golem_magic.model import Digest
from golem_magic.share import store
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import SharePaths
from golem_magic.worker.patience import may_pass, patiently

Call = Callable[[Any], Any]


class Unreadable:
    """Stands for something that could not be loaded: each task that needs it fails with the reason."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def raise_unreadable(value: Unreadable) -> NoReturn:
    """Be the task of an input that could not be read."""
    raise value.error.with_traceback(None)


def reading(call: Call) -> Call:
    """A call for inputs of which some could not be read."""
    return lambda value: raise_unreadable(value) if type(value) is Unreadable else call(value)


class Calls:
    """Loads function, common data and set-up function once per runner.

    Attributes:
        call: Takes one input. Where the function cannot be loaded, each call raises the reason.

    Raises:
        OSError, ShareError: The share is in trouble that may pass, or this worker is to leave meanwhile:
            that is no task's outcome.
    """

    def __init__(
        self, share: SharePaths, manifest: Manifest, clock: Clock, leaving: Callable[[], bool]
    ) -> None:
        def get(digest: Digest) -> memoryview:
            return patiently(lambda: store.get(share, digest), clock, leaving)

        self._setup: Callable[[], Any] | None = None
        self._is_star = manifest.star
        self._is_kwargs = manifest.kwargs
        self._more: tuple[Any, ...] = ()
        what = manifest.function_name
        try:
            self._function = payload.load_function(get(manifest.function))
            if manifest.common:
                what = "the common data"
                self._more = (payload.load(get(manifest.common))[0],)
            if manifest.setup:
                what = "the set-up function"
                self._setup = payload.load_function(get(manifest.setup))
        except BaseException as error:  # unpickling runs the user's code
            if isinstance(error, Exception) and (may_pass(error) or leaving()):
                raise
            unreadable = Unreadable(_explained(error, what))
            self.call: Call = lambda _value: raise_unreadable(unreadable)
        else:
            self.call = self._bound()

    def set_up(self) -> None:
        """Call the set-up function, the first time; its value is every task's last argument.

        Raises:
            BaseException: Whatever it raises.
        """
        setup, self._setup = self._setup, None
        if setup is not None:
            self._more += (setup(),)
            self.call = self._bound()

    def _bound(self) -> Call:
        function, more = self._function, self._more
        if self._is_kwargs:
            return lambda value: function(*more, **value)
        if not more:
            return (lambda value: function(*value)) if self._is_star else function
        if self._is_star:
            return lambda value: function(*value, *more)
        if len(more) == 1:
            common = more[0]
            return lambda value: function(value, common)
        return lambda value: function(value, *more)


def _explained(error: BaseException, what: str) -> Exception:
    if isinstance(error, GolemMagicError):
        return error
    unloadable = payload.unloadable(what, error)
    unloadable.__cause__ = error
    return unloadable
