"""Running the chosen statements, once, in a namespace of their own."""

import importlib
import inspect
import linecache
import operator
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from golem_magic.cells import Place, nearest
from golem_magic.errors import CellError
from golem_magic.sources.choosing import Choice
from golem_magic.sources.reading import Cell, read_cells
from golem_magic.sources.statements import Statement, read_statements
from golem_magic.sources.words import at, listed, notes, places

FILES = (".ipynb", ".py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """Values that were taken out of a file.

    Attributes:
        values: By name, those that were asked for, the function first.
        used: What was run for them, in words: ``score: cells 2, 5 of analysis.ipynb``.
        notes: What should be known besides, though nothing is wrong: ``; not run: tidy(T) in cell 2``.
        folders: The import path as it was for them.
    """

    values: dict[str, Any]
    used: str
    notes: str = ""
    folders: tuple[str, ...]

    @property
    def function(self) -> Any:
        """What stands under the place's name; not yet seen to be a function."""
        return next(iter(self.values.values()))

    @contextmanager
    def importing(self) -> Iterator[None]:
        """Let imports find what the file finds; a function that imports when it is called is sent within."""
        with _import_path(self.folders):
            yield


def take(place: Place, *others: str) -> Taken:
    """Take a function, and other values if asked for, out of a notebook, a script or a module.

    Of a file only those statements are run that the names need, as if it was run from top to bottom;
    what stands under ``if __name__ == "__main__"`` is never run. A module is imported. The import path
    begins with the file's folder meanwhile, or the current one for a module, and is put back.

    Args:
        place: Where the function is.
        *others: More names of the same file.

    Raises:
        CellError: The file cannot be read, does not bind a name, or a statement fails: its exception is
            the cause. The message is one line.
    """
    names = (place.name, *others)
    path = os.path.expanduser(place.file)
    if path.endswith(FILES):
        return _from_file(os.path.abspath(path), names)
    return _from_module(place.file, names)


# --- modules ---


def _from_module(module_name: str, names: Sequence[str]) -> Taken:
    if not all(part.isidentifier() for part in module_name.split(".")):
        message = (
            f"{module_name} is neither a notebook (.ipynb), nor a script (.py), nor the name of a module"
        )
        raise CellError(message)
    with _import_path((os.getcwd(), *sys.path)) as path:
        importlib.invalidate_caches()
        try:
            module = importlib.import_module(module_name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            message = (
                f"module {module_name} cannot be imported ({_in_words(error)}); looked in {path[0]} first"
            )
            raise CellError(message) from error
        values = {name: _value(vars(module), name, module_name) for name in names}
        used = f"{', '.join(names)}: module {module_name}"
        return Taken(values=values, used=used, folders=tuple(path))


# --- notebooks and scripts ---


def _from_file(file: str, names: Sequence[str]) -> Taken:
    statements, faulty = read_statements(read_cells(file))
    roots = [name.partition(".")[0] for name in names]
    choice = Choice(statements, roots)
    short = os.path.basename(file)
    for root in roots:
        _check_there(root, short, statements, choice, faulty)
    chosen = [statements[position] for position in choice.positions]
    _check_values(chosen, names[0], short)
    folder = os.path.dirname(file)
    _check_loaded(chosen, folder)
    with _import_path((folder, *sys.path)) as path:
        namespace = _run(chosen, file, names[0])
        values = {name: _value(namespace, name, short) for name in names}
        return Taken(
            values=values,
            used=f"{', '.join(names)}: {places(chosen, short)}",
            notes=notes(statements, choice, namespace),
            folders=tuple(path),
        )


def _run(chosen: Sequence[Statement], file: str, name: str) -> dict[str, Any]:
    """Run statements as ``__main__``, so that what they define travels by value."""
    module = ModuleType("__main__")
    module.__package__ = ""
    if file.endswith(".py"):
        module.__file__ = file
    for cell in {id(each.cell): each.cell for each in chosen}.values():
        lines = [f"{line}\n" for line in cell.text.split("\n")]
        linecache.cache[cell.file] = (len(cell.text), None, lines, cell.file)
    importlib.invalidate_caches()
    before, sys.modules["__main__"] = sys.modules["__main__"], module  # dataclasses, say, look there
    try:
        for statement in chosen:
            _run_one(statement, vars(module), name, os.path.basename(file))
    finally:
        sys.modules["__main__"] = before
    return vars(module)


def _run_one(statement: Statement, namespace: dict[str, Any], name: str, short: str) -> None:
    try:
        exec(statement.code, namespace)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == statement.cell.file and frame.lineno]
        line = lines[0] if lines else statement.lines[0]
        text = " ".join(linecache.getline(statement.cell.file, line).split())
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = f"; names of files start from {os.getcwd()}"
        elif isinstance(error, ImportError) and "relative import" in str(error):
            hint = f"; it belongs to a package, so name it as a module: package.{short[:-3]}::{name}"
        place = f"{statement.cell.at(line)} of {short}"
        message = f"{name} needs {place}, which fails: {text}: {_in_words(error)}{hint}"
        raise CellError(message) from error


def _value(namespace: dict[str, Any], name: str, where: str) -> Any:
    root, _, rest = name.partition(".")
    if root not in namespace:
        known = [each for each in namespace if not each.startswith("__")]
        message = f"{where} does not define {root}{nearest(root, known)}"
        raise CellError(message)
    try:
        return operator.attrgetter(rest)(namespace[root]) if rest else namespace[root]
    except AttributeError as error:
        message = f"{name} is not in {where}: {error}"
        raise CellError(message) from error


# --- what can be said before anything is run ---


def _check_there(
    name: str,
    short: str,
    statements: Sequence[Statement],
    choice: Choice,
    faulty: Sequence[tuple[Cell, str]],
) -> None:
    """Refuse a name that nothing binds; a star import may, so running it tells."""
    if name not in choice.unbound or any(each.is_star for each in statements):
        return
    if name in choice.hidden:
        place = at(statements[choice.hidden[name]])
        message = (
            f"{name} is bound under the main guard only ({place}), which is not run: move it out of there"
        )
        raise CellError(message)
    mentions = [
        f"; cell {cell.number} has that word but {fault}" for cell, fault in faulty if name in cell.text
    ]
    known = {each for statement in statements for each in statement.binds}
    hint = nearest(name, sorted(known)) or (f": it defines {listed(known)}" if known else "")
    message = f"{short} does not define {name}{hint}{''.join(mentions[:1])}"
    raise CellError(message)


def _check_values(chosen: Sequence[Statement], name: str, short: str) -> None:
    """Refuse values that only the notebook's own shell could give."""
    for statement in chosen:
        if statement.magic is not None:
            what = f"gets its value from the magic line {statement.magic}: write that as Python"
        elif statement.code.co_flags & inspect.CO_COROUTINE:
            what = "awaits at the top level: call asyncio.run there"
        else:
            continue
        message = f"{name} needs {statement.cell.at(statement.lines[0])} of {short}, which {what}"
        raise CellError(message)


def _check_loaded(chosen: Sequence[Statement], folder: str) -> None:
    """Refuse to take another module, imported already under the same name, for the one beside the file."""
    for statement in chosen:
        for name in statement.modules:
            beside = [os.path.join(folder, f"{name}.py"), os.path.join(folder, name, "__init__.py")]
            loaded = getattr(sys.modules.get(name), "__file__", None)
            there = next(filter(os.path.isfile, beside), None)
            if loaded and there and os.path.realpath(loaded) != os.path.realpath(there):
                message = (
                    f"{statement.cell.at(statement.lines[0])} imports {name}, which is {there}, but {loaded} "
                    f"is imported here already: restart, or give one of them another name"
                )
                raise CellError(message)


def _in_words(error: BaseException) -> str:
    return " ".join("".join(traceback.format_exception_only(error)).split())


@contextmanager
def _import_path(folders: Sequence[str]) -> Iterator[list[str]]:
    """Give the import path for a while; the same list, since others hold it."""
    before = list(sys.path)
    sys.path[:] = dict.fromkeys(folders)
    try:
        yield sys.path
    finally:
        sys.path[:] = before
