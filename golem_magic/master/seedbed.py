"""Packages that the zygote imports ahead of the workers, because tasks have used them before.

Planting happens in idle moments, one module at a time, and only what proves
harmless: a fork tries each package first, and one that fails there or starts a
thread (forking a process with threads is not safe) is never planted. When an
installed package has changed on disk the bed is stale, and whoever forks from
it must start afresh.
"""

import importlib
import os
import sys
from contextlib import suppress

REFUSED = "!"  # before the name of a package that must not be planted


class Seedbed:
    """What is planted in this process, and what is still to be.

    Args:
        path: The file in which workers note what they have loaded.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._size = 0
        self._wanted: dict[str, list[str]] = {}  # package -> its modules
        self._refused: set[str] = set()
        self._planted: dict[str, tuple[str, int, int]] = {}

    @property
    def has_wishes(self) -> bool:
        """Whether something is still to be planted; reads what workers have noted meanwhile."""
        self._read()
        return bool(self._wanted)

    def plant_one(self) -> None:
        """Import one package, unless it proves harmful."""
        package, modules = next(iter(self._wanted.items()))
        del self._wanted[package]
        if not _is_harmless(modules):
            self._refused.add(package)
            with suppress(OSError), open(self._path, "a") as file:
                file.write(f"{REFUSED}{package}\n")
            return
        _import_all(modules)
        if package in sys.modules:
            self._planted[package] = _state(package)

    def is_stale(self) -> bool:
        """Whether a planted package is not the one on disk any more."""
        return any(_state(package) != state for package, state in self._planted.items())

    def _read(self) -> None:
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            return
        if size == self._size:
            return
        self._size = size
        with open(self._path) as file:
            names = list(dict.fromkeys(file.read().split()))
        self._refused |= {name.removeprefix(REFUSED) for name in names if name.startswith(REFUSED)}
        for name in names:
            package = name.partition(".")[0]
            if name in sys.modules or package.lstrip(REFUSED) in self._refused:
                continue
            self._wanted.setdefault(package, []).append(name)


def _is_harmless(modules: list[str]) -> bool:
    """Import in a fork and see whether that works and leaves the process with one thread."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _import_all(modules)
            code = int(len(os.listdir("/proc/self/task")) > 1)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _import_all(modules: list[str]) -> None:
    for name in modules:
        with suppress(Exception):  # a module that was importable there need not be so alone
            importlib.import_module(name)


def _state(package: str) -> tuple[str, int, int]:
    """Where a package lies and when that was written; the same until it is installed anew."""
    origin = getattr(getattr(sys.modules.get(package), "__spec__", None), "origin", None) or ""
    try:
        found = os.stat(origin)
    except OSError:
        return origin, 0, 0
    return origin, found.st_mtime_ns, found.st_size
