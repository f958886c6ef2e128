"""Which modules are the user's own, so that workers cannot have them, and what they need in turn.

A module is *installed* if it lies in the standard library or in a folder named
``site-packages`` or ``dist-packages``; every other one travels, as the text
that its file holds at submission. Modules are found by name: those that pickles refer to, those
that functions travelling by value import, and, transitively, whatever those
modules import anywhere in their text.
"""

import dis
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.machinery import BYTECODE_SUFFIXES, EXTENSION_SUFFIXES, SOURCE_SUFFIXES, ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from golem_magic.errors import PayloadError
from golem_magic.payload.shelf import Module

# By value anyway, or in the runtime that every worker starts with.
NEVER = frozenset({"__main__", "__mp_main__", "builtins", "golem_magic", "cloudpickle"})
_COMPILED = tuple(EXTENSION_SUFFIXES + BYTECODE_SUFFIXES)
_IMPORT_NAME = dis.opmap["IMPORT_NAME"]


class Library:
    """The user's modules, each read once: what travels is one picture of them.

    Attributes:
        made: Names of modules that were made at run time or whose text is gone. They are
            not on the worker's disk either, so what they define must travel by value.
    """

    def __init__(self) -> None:
        self.made: set[str] = set()
        self._found: dict[str, Module | None] = {}

    def find(self, name: str) -> Module | None:
        """One module; None if it is installed, made at run time, or not there."""
        if name not in self._found:
            self._found[name] = None  # while we look
            if name.partition(".")[0] not in NEVER:
                self._found[name] = self._look_for(name)
        return self._found[name]

    def closure(self, names: Iterable[str]) -> dict[str, Module]:
        """All modules that travel when these are needed, by name, in the order of names.

        Raises:
            PayloadError: One that is in use here can no longer be compiled.
        """
        todo, seen, found = list(names), set[str](), dict[str, Module]()
        while todo:
            name = todo.pop()
            if name in seen or name.partition(".")[0] in NEVER:
                continue
            seen.add(name)
            todo.append(name.rpartition(".")[0] or name)
            module = self.find(name)
            if module is not None:
                found[name] = module
                todo += _needs(name, module)
        self._add_parents(found)
        return {name: found[name] for name in sorted(found)}

    def _look_for(self, name: str) -> Module | None:
        loaded = sys.modules.get(name)
        if loaded is None:
            return self._not_imported(name)
        file, search = _places(loaded)
        if file is None and search is None:
            if not _is_part_of_installed(name, loaded):
                self.made.add(name)
            return None
        if file is None:
            return Module("", search, None) if not all(map(is_installed, search or ())) else None
        if is_installed(file):
            return None
        module = Module(file, search, _text(file, loaded))
        if module.source is None and not file.endswith(_COMPILED):
            self.made.add(name)
            return None
        return module

    def _not_imported(self, name: str) -> Module | None:
        """A module that is imported over there only: by text, without running its parents here."""
        parent, _, tail = name.rpartition(".")
        if not parent:
            return _by_finders(name)
        package = self.find(parent)
        return _in_folders(tail, package.search) if package is not None and package.search else None

    def _add_parents(self, found: dict[str, Module]) -> None:
        """Parents that are not files themselves must exist for their submodules to be imported."""
        for name in list(found):
            parent = name.rpartition(".")[0]
            while parent and parent not in found and parent in self.made:
                found[parent] = Module("", _places(sys.modules[parent])[1] or [], None)
                parent = parent.rpartition(".")[0]


def imports(code: CodeType, package: str) -> Iterator[str]:
    """Names of modules that code may import, also in the functions within it.

    ``from a import b`` gives ``a`` and ``a.b``: only the disk knows whether b is a module.

    Args:
        code: Any code object.
        package: What its relative imports start from.
    """
    if _IMPORT_NAME in code.co_code[::2]:
        before: list[Any] = [None, None]
        for instruction in dis.get_instructions(code):
            if instruction.opcode == _IMPORT_NAME:
                yield from _named(instruction.argval, before[0], before[1], package)
            before = [before[1], instruction.argval]
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from imports(constant, package)


@lru_cache(maxsize=4096)
def is_installed(path: str) -> bool:
    """Whether a file belongs to the standard library or to an installed package."""
    parts = path.split(os.sep)
    return "site-packages" in parts or "dist-packages" in parts or path.startswith(_standard_library())


def own_folders() -> tuple[str, ...]:
    """What the user has added to the import path: folders and archives that nobody installed.

    The current folder is not among them: workers go there.
    """
    named = (each for each in sys.path if os.path.isabs(each))
    return tuple(each for each in named if not is_installed(os.path.join(each, "")) and os.path.exists(each))


def _named(name: str, level: object, names: object, package: str) -> Iterator[str]:
    base = name
    if isinstance(level, int) and level > 0:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - level + 1], *filter(None, [name])])
    yield base
    if isinstance(names, tuple):
        yield from (f"{base}.{each}" for each in names if each != "*")


def _needs(name: str, module: Module) -> Iterator[str]:
    if module.source is None:
        return
    if module.search is not None:  # what it loads by ways that no text shows
        yield from [each for each in list(sys.modules) if each.startswith(f"{name}.")]
    try:
        yield from _imports_of(module.source, name if module.search is not None else name.rpartition(".")[0])
    except (SyntaxError, ValueError) as error:
        if name not in sys.modules:  # it may be meant for another Python, and never be imported
            return
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        message = (
            f"module {name} cannot travel: {module.file}{line} cannot be compiled ({error.args[0]}); workers "
            f"get the file as it is now, so finish editing it"
        )
        raise PayloadError(message) from error


@lru_cache(maxsize=1024)
def _imports_of(source: bytes, package: str) -> tuple[str, ...]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the user sees them where the module is imported
        code = compile(source, "<module>", "exec", dont_inherit=True)
    return tuple(dict.fromkeys(imports(code, package)))


def _places(module: ModuleType) -> tuple[str | None, list[str] | None]:
    """File and, of a package, the folders."""
    spec = module.__spec__ if isinstance(getattr(module, "__spec__", None), ModuleSpec) else None
    file = spec.origin if spec is not None and spec.has_location else getattr(module, "__file__", None)
    try:
        search = [str(each) for each in module.__path__]
    except (AttributeError, TypeError, KeyError):  # a namespace's looks for its parent among the modules
        search = None
    return file if isinstance(file, str) else None, search


def _is_part_of_installed(name: str, module: ModuleType) -> bool:
    """Whether a module without file is built in, or was made by an installed package."""
    loader = getattr(getattr(module, "__spec__", None), "loader", None)
    if getattr(loader, "__module__", "") in ("_frozen_importlib", "_frozen_importlib_external"):
        return True
    top = sys.modules.get(name.partition(".")[0])
    if top is None or top is module:
        return name in sys.builtin_module_names or name in sys.stdlib_module_names
    file, search = _places(top)
    return all(map(is_installed, [file] if file else search or [])) and bool(file or search)


def _text(file: str, module: ModuleType | None) -> bytes | None:
    if not file.endswith(tuple(SOURCE_SUFFIXES)):
        return None
    try:
        with open(file, "rb") as opened:
            return opened.read()
    except OSError:
        loader = getattr(module, "__loader__", None)
    try:  # in a zip archive
        return bytes(loader.get_data(file))  # type: ignore[union-attr]  # a loader without it is caught
    except (AttributeError, OSError):
        return None


def _by_finders(name: str) -> Module | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, None)
        except Exception:  # noqa: BLE001 - anybody's finder; the import over there will say what is wrong
            continue
        if spec is None:
            continue
        search = spec.submodule_search_locations
        folders = None if search is None else [str(each) for each in search]
        if spec.has_location and spec.origin and not is_installed(spec.origin):
            return Module(spec.origin, folders, _text(spec.origin, None))
        if spec.loader is None and folders and not all(map(is_installed, folders)):
            return Module("", folders, None)
        return None
    return None


def _in_folders(tail: str, folders: list[str]) -> Module | None:
    spaces = []
    for folder in folders:
        place = os.path.join(folder, tail)
        for file, search in ((os.path.join(place, "__init__.py"), [place]), (f"{place}.py", None)):
            if os.path.isfile(file):
                return None if is_installed(file) else Module(file, search, _text(file, None))
        for suffix in _COMPILED:
            if os.path.isfile(place + suffix):
                return None if is_installed(place) else Module(place + suffix, None, None)
        if os.path.isdir(place):
            spaces.append(place)
    return Module("", spaces, None) if not all(map(is_installed, spaces)) else None


@cache
def _standard_library() -> tuple[str, ...]:
    found = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), os.path.dirname(os.__file__)]
    return tuple({os.path.join(each, "") for path in found for each in (path, os.path.realpath(path))})
