"""Where a function may be taken from besides the notebook itself: ``analysis.ipynb::score``."""

import re
from typing import NamedTuple

from golem_magic.cells.options import refuse

_PLACE = re.compile(r"""(?P<quote>['"]?)(?P<file>[^'"]+)(?P=quote)::(?P<name>[^'":]*)""")


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
        None where it is none: in expressions ``::`` stands in brackets only.

    Raises:
        CellError: What stands behind the ``::`` of a notebook or script is no name.
    """
    is_quoted = len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]
    bare = text[1:-1] if is_quoted else text
    found = _PLACE.fullmatch(bare)
    if found is None:
        return None
    place = Place(found["file"], found["name"])
    if all(part.isidentifier() for part in place.name.split(".")):
        return place
    if place.file.endswith((".ipynb", ".py")):
        refuse(f"{bare} names no function: write FILE::NAME, such as analysis.ipynb::score")
    return None
