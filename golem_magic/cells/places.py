"""Where a function may be taken from besides the notebook itself: ``analysis.ipynb::score``."""

import re
from typing import NamedTuple

from golem_magic.cells.options import refuse

_PLACE = re.compile(r"(['\"]?)(?P<file>[^'\"]+?)(\1)::(?P<name>[^'\":]*)(\1)")


class Place(NamedTuple):
    """A name in a file.

    Attributes:
        file: A notebook, a script, or the name of a module.
        name: What is meant there; dots lead to attributes.
    """

    file: str
    name: str


def parse_place(text: str) -> Place | None:
    """Read ``FILE::NAME``, in quotes or with the file in quotes if there are blanks in it.

    Returns:
        None where there is no ``::``, which stands in no expression outside of its brackets.

    Raises:
        CellError: What stands behind ``::`` is no name.
    """
    bare = text[1:-1] if text[:1] in ("'", '"') and text[-1:] == text[0] and "::" in text else text
    found = _PLACE.fullmatch(bare)
    if found is None:
        return None
    place = Place(found["file"].strip(), found["name"].strip())
    if not all(part.isidentifier() for part in place.name.split(".")):
        refuse(f"{bare} is no place of a function: write FILE::NAME, such as analysis.ipynb::score")
    return place
