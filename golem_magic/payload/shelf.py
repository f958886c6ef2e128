"""The user's own modules on a worker: imported from what came with the function, not from its disk.

One finder stands before all others and serves what lies on the shelf. So a
module is what it was when the job was submitted, wherever the worker runs, and
``import helper`` inside a function, relative imports, classes by reference and
tracebacks work as ever. Nothing is written, no bytecode is cached.
"""

import importlib.util
import linecache
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any, NamedTuple


class Module(NamedTuple):
    """One module that is not installed.

    Attributes:
        file: Where it came from, there; data files beside it are found if that folder exists here.
        search: A package's folders; None for what is no package.
        source: Its text as it lies on the disk; None for namespace packages, which have none, and
            for what is compiled: that is imported from ``file``, if it exists here.
    """

    file: str
    search: list[str] | None
    source: bytes | None


class Sources(NamedTuple):
    """What travels beside a function.

    Attributes:
        texts: By file name, the text of cells and scripts whose functions travel by value.
        modules: By name, the modules that are not installed.
        folders: The user's own part of the import path, for what is imported by names that no text shows.
    """

    texts: dict[str, str]
    modules: dict[str, Module]
    folders: tuple[str, ...] = ()


class _Loader(SourceFileLoader):
    """Loads a module from text that came with the function."""

    def __init__(self, name: str, module: Module) -> None:
        super().__init__(name, module.file)
        self._source = module.source or b""

    def get_data(self, path: str) -> bytes:
        """The text of the module itself; anything else, such as package data, from the disk."""
        return self._source if path == self.path else super().get_data(path)

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Say that there is no time of change, so that no bytecode is looked for or written."""
        raise OSError(path)

    def exec_module(self, module: ModuleType) -> None:
        """Run it, and let tracebacks find its lines even where the file has changed meanwhile."""
        _show(self.path, importlib.util.decode_source(self._source))
        super().exec_module(module)


class _Shelf:
    """The finder."""

    def __init__(self) -> None:
        self.modules: dict[str, Module] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        module = self.modules.get(name)
        if module is None:
            return None
        if module.source is not None:
            return importlib.util.spec_from_file_location(
                name, module.file, loader=_Loader(name, module), submodule_search_locations=module.search
            )
        if module.search is not None:
            return _namespace(name, module.search, path)
        if os.path.exists(module.file):
            return importlib.util.spec_from_file_location(name, module.file)
        message = (
            f"module {name} is compiled, so it does not travel, and {module.file} is not there on "
            f"{socket.gethostname()}: install it for the workers' Python"
        )
        raise ModuleNotFoundError(message, name=name)


_shelf = _Shelf()


def install(sources: Sources) -> None:
    """Put sources to use in this process, which must be a worker: imports mean them from now on."""
    for file, text in sources.texts.items():
        _show(file, text)
    sys.path += [each for each in sources.folders if each not in sys.path]  # last: they hide nothing here
    if not sources.modules:
        return
    if _shelf not in sys.meta_path:
        sys.meta_path.insert(0, _shelf)
    _shelf.modules.update(sources.modules)
    for name, module in sources.modules.items():
        if module.source is not None:
            _forget_another(name, module.file)


def _forget_another(name: str, file: str) -> None:
    """Forget an installed package that a warm worker has loaded and that is hidden, there, by this one."""
    loaded = sys.modules.get(name)
    if loaded is None or getattr(loaded, "__file__", None) == file:
        return
    for each in [each for each in sys.modules if each == name or each.startswith(f"{name}.")]:
        del sys.modules[each]


def _namespace(name: str, search: list[str], path: Sequence[str] | None) -> ModuleSpec:
    """A namespace package of that side's folders and this one's: other parts of it may be installed here."""
    spec = ModuleSpec(name, None, is_package=True)
    here = PathFinder.find_spec(name, path)
    more = here.submodule_search_locations if here is not None and here.loader is None else None
    spec.submodule_search_locations = list(dict.fromkeys([*search, *(more or ())]))
    return spec


def _show(file: str, text: str) -> None:
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
