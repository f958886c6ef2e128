"""Functions that stand in another file: ``%golem_map analysis.ipynb::score inputs``."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from golem_magic.cells import parse_place

if TYPE_CHECKING:
    from golem_magic.sources import Taken


def taken_from(text: str) -> "Taken | None":
    """Take a function out of the file that FUNCTION names; None if it names none.

    Raises:
        CellError: It cannot be taken; the message is one line.
    """
    place = parse_place(text)
    if place is None:
        return None
    from golem_magic import sources

    return sources.take(place)


@contextmanager
def importing(taken: "Taken | None", *, quiet: bool) -> Iterator[None]:
    """Say what of a file was run, and let imports find what it finds while its function is sent."""
    if taken is None:
        yield
        return
    if not quiet:
        sys.stdout.write(f"{taken.used}{taken.notes}\n")
    with taken.importing():
        yield
