"""The table of rooms, the light worker and the facade, kept true."""

import ast
import subprocess
import sys
from pathlib import Path

import golem_magic

# Grows when a room is built; the order is that of ARCHITECTURE.md.
MAY_IMPORT = {
    "errors": "",
    "clock": "",
    "cpus": "",
    "model": "",
    "pacing": "model",
    "units": "",
    "settings": "errors",
    "cells": "errors model units",
    "sources": "cells errors",
    "inputs": "errors model",
    "payload": "errors model",
    "share": "errors model pacing payload",
    "worker": "clock errors model pacing payload share",
    "master": "clock cpus errors model worker",
    "engines": "clock cpus errors model",
    "planner": "model",
    "outcomes": "errors model payload",
    "dispatcher": "clock engines errors model payload planner share",
    "results": "clock dispatcher errors model outcomes share",
    "feeder": "clock dispatcher errors inputs model payload planner share",
    "options": "errors model units",
    "inventory": "clock errors model share",
    "reuse": "clock dispatcher errors inputs model payload share",
    "surroundings": "errors",
    "client": (
        "clock dispatcher engines errors feeder inputs inventory model options outcomes payload results "
        "reuse settings share surroundings"
    ),
    "progress": "model",
    "autoload": "errors",
    "unattended": "clock errors model share",
    "magics": "cells client errors model options outcomes progress results settings sources unattended",
    "filemap": "cells client errors model progress results sources",
    "cli": "autoload client engines errors filemap model progress settings units",
    "golemize": "client errors options results settings",
    "__main__": "cli",
}
ROOT = Path(golem_magic.__file__).parent
NOTEBOOK_SIDE = {"IPython", "ipywidgets", "traitlets", "requests", "nbformat", "dask", "asyncio"}
# One home for each foreign library.
HOMES = {
    "cloudpickle": {"payload", "worker"},
    "requests": {"engines"},
    "IPython": {"magics", "progress"},
    "ipywidgets": {"progress"},
    "nbformat": {"sources"},
}


def imported_names(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def modules() -> list[tuple[Path, str]]:
    found = [(path, path.relative_to(ROOT).parts[0].removesuffix(".py")) for path in ROOT.rglob("*.py")]
    return [(path, room) for path, room in found if room != "__init__"]


def test_each_room_imports_only_what_the_table_allows() -> None:
    for path, room in modules():
        used = {name.split(".")[1] for name in imported_names(path) if name.startswith("golem_magic.")}
        extra = used - {room} - set(MAY_IMPORT[room].split())
        assert not extra, f"{path} must not import {sorted(extra)}"


def test_the_table_itself_has_no_way_back() -> None:
    rooms = list(MAY_IMPORT)
    for position, room in enumerate(rooms):
        assert set(MAY_IMPORT[room].split()) <= set(rooms[:position]), room


def test_each_foreign_library_has_one_home() -> None:
    for path, room in modules():
        for library, homes in HOMES.items():
            if any(name.split(".")[0] == library for name in imported_names(path)):
                assert room in homes, f"{path} imports {library}, whose home is {sorted(homes)}"


def test_the_worker_imports_nothing_from_the_notebook_side() -> None:
    code = "import sys, golem_magic.worker.main; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert NOTEBOOK_SIDE.isdisjoint(run.stdout.split())


def test_the_facade_lists_what_is_really_there() -> None:
    assert golem_magic.__all__ == sorted(golem_magic.__all__)
    for name in golem_magic.__all__:
        assert getattr(golem_magic, name) is not None
