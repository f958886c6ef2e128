"""Files to cells of plain Python: magics and ``!commands`` taken out, every line still in its place."""

import ast
import json
import os
import re
import warnings
from dataclasses import dataclass
from typing import Any

from golem_magic.errors import CellError

# Cell magics whose body is Python that runs in the notebook's namespace.
_TRANSPARENT = frozenset({"capture", "golemize", "prun", "time"})
_CELL_MAGIC = re.compile(r"\s*%%(\w+)[^\n]*")
_TIMED = re.compile(r"^(\s*|[^#'\"\n]*?=\s*)%time[ \t]+(?=\S)")
_ASSIGNED = re.compile(r"^([ \t]*)([\w.,* \t\[\]()'\"]+?)\s*=\s*([!%][^=].*)$")
_MAGIC = re.compile(r"^([ \t]*)([%!?][^\n]*|[\w.%*]+\?{1,2}[ \t]*;?[ \t]*)$")
# What holds line ends or brackets that mean nothing: comments, quoted text, line ends behind a backslash.
_OPAQUE = re.compile(
    r"""\#[^\n]*|\\\n|'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*\"""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A cell of a notebook, or the whole of a script.

    Attributes:
        number: Counted from 1 among the notebook's code cells; None for a script.
        file: What tracebacks call it.
        text: As it stands in the file.
        source: As Python, line for line; empty if nothing of it can be taken.
        magics: By line number, the magics that were taken out.
        fault: Why nothing can be taken; empty if all is well.
    """

    number: int | None
    file: str
    text: str
    source: str
    magics: dict[int, str]
    fault: str = ""

    def at(self, line: int) -> str:
        """Say where a line is: ``cell 3, line 2``."""
        return f"line {line}" if self.number is None else f"cell {self.number}, line {line}"


def read_cells(path: str) -> list[Cell]:
    """Read a notebook's code cells, or a script as one cell.

    Raises:
        CellError: The file is not there, or is not what its name says.
    """
    try:
        with open(path, "rb") as opened:
            data = opened.read()
    except OSError as error:
        message = f"cannot read {path} ({error.strerror}); names of files start from {_here()}"
        raise CellError(message) from error
    if path.endswith(".ipynb"):
        return [_cell(path, number, text) for number, text in enumerate(_notebook(path, data), 1)]
    return [_script(path, data)]


def _notebook(path: str, data: bytes) -> list[str]:
    try:
        notebook = json.loads(data)
        if notebook["nbformat"] != 4:
            notebook = _upgraded(data)
        language = notebook["metadata"].get("kernelspec", {}).get("language", "python")
        texts = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
        message = f"{path} is not a notebook that can be read ({reason}): open and save it in Jupyter"
        raise CellError(message) from error
    if language != "python":
        message = f"{path} is a notebook in {language}: only functions in Python can be taken"
        raise CellError(message)
    return texts


def _upgraded(data: bytes) -> Any:
    """A notebook of another format than today's."""
    import nbformat  # takes a second with the schemas of all formats, so only where it is needed

    reads: Any = nbformat.reads  # untyped there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ids that old notebooks lack
        return reads(data.decode(), as_version=4)


def _script(path: str, data: bytes) -> Cell:
    try:
        tree = _parsed(data)
    except (SyntaxError, ValueError) as error:
        message = f"{path} is not Python ({_reason(error)}): mend it first"
        raise CellError(message) from error
    del tree
    from importlib.util import decode_source  # knows the coding line

    text = decode_source(data)
    return Cell(number=None, file=path, text=text, source=text, magics={})


def _cell(path: str, number: int, text: str) -> Cell:
    source, magics, fault = text, dict[int, str](), ""
    while not fault and (found := _CELL_MAGIC.match(source)):
        first = source[: found.end()].count("\n") + 1
        magics[first] = found.group().strip()
        if found[1] not in _TRANSPARENT:
            fault = f"is a %%{found[1]} cell"
        source = "\n" * (first - 1) + source[found.end() :]
    if not fault:
        source = _without_magics(source, magics)
        try:
            _parsed(source)
        except (SyntaxError, ValueError) as error:
            fault = f"is not Python ({_reason(error)})"
    return Cell(
        number=number,
        file=f"{path}, cell {number}",
        text=text,
        source="" if fault else source,
        magics=magics,
        fault=fault,
    )


def _without_magics(source: str, magics: dict[int, str]) -> str:
    """Take out the magics, which begin a logical line or stand behind its ``=``; note them by line."""
    parts: list[str] = []
    position, line = 0, 1
    while position < len(source):
        end = source.find("\n", position)
        first = source[position : len(source) if end < 0 else end]
        timed = _TIMED.sub(r"\1", first)
        if timed != first:
            source = source[:position] + timed + source[position + len(first) :]
            first = timed
        magic = _ASSIGNED.match(first) or _MAGIC.match(first)
        if magic is None:
            end = _logical_end(source, position)
            parts.append(source[position:end])
        else:
            end = _shell_end(source, position)
            magics[line] = first.strip()
            instead = f"{magic[1]}{magic[2]} = None" if magic.re is _ASSIGNED else f"{magic[1]}pass"
            parts.append(instead + "\n" * source.count("\n", position, end))
        line += source.count("\n", position, end)
        position = end
    return "".join(parts)


def _logical_end(source: str, position: int) -> int:
    """Where the next logical line begins."""
    depth = 0
    while position < len(source):
        if opaque := _OPAQUE.match(source, position):
            position = opaque.end()
            continue
        character = source[position]
        position += 1
        if character == "\n" and depth <= 0:
            return position
        depth += (character in "([{") - (character in ")]}")
    return position


def _shell_end(source: str, position: int) -> int:
    """Where a magic ends: with its line, unless that ends with a backslash."""
    while (end := source.find("\n", position)) >= 0:
        if not source[position:end].endswith("\\"):
            return end + 1
        position = end + 1
    return len(source)


def _parsed(source: str | bytes) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the author has seen them
        return ast.parse(source)


def _reason(error: SyntaxError | ValueError) -> str:
    line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
    return f"{error.args[0]}{line}"


def _here() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "a folder that is gone"
