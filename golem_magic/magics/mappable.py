"""A function that can be mapped: ``f(x)`` runs here, ``f.map(xs)`` goes to the engine."""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from golem_magic.errors import CellError

if TYPE_CHECKING:
    from golem_magic.results import Results

Submit = Callable[..., "Results"]


class MapHere:
    """What ``f.map`` is.

    A function's attributes are pickled with it. This one must not travel: it refers to the shell
    and its client. So it pickles as None, and a worker's ``f.map`` is just that.
    """

    def __init__(self, submit: Submit, function: Callable[..., Any], defaults: Mapping[str, Any]) -> None:
        self._submit = submit
        self._function = function
        self._defaults = dict(defaults)

    def __call__(self, inputs: Iterable[Any], **options: Any) -> "Results":
        """Map the function over ``inputs`` and show the progress here.

        Args:
            inputs: Anything that can be iterated.
            **options: As of ``Client.map``, and ``quiet`` for no progress view; what the line
                of ``%%golemize`` said holds where nothing else is said here.
        """
        return self._submit(self._function, inputs, **(self._defaults | options))

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()


def make_mappable(submit: Submit, function: Callable[..., Any], defaults: Mapping[str, Any]) -> None:
    """Give ``function`` its ``map``.

    Raises:
        CellError: It takes no attributes.
    """
    try:
        function.map = MapHere(submit, function, defaults)  # type: ignore[attr-defined]  # the point of it
    except (AttributeError, TypeError) as error:
        message = f"{function!r} takes no attribute map: give INPUTS on the line, or use %golem_map"
        raise CellError(message) from error
