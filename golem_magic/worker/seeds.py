"""Installed packages that tasks have imported: noted, so that later workers may start with them loaded.

Only what lies in the interpreter's own folders for installed packages counts.
A user's modules, and packages that are being edited in place, never do: what
a later worker starts with must not be able to be stale.
"""

import os
import sys
import sysconfig
from collections.abc import Collection
from contextlib import suppress

VARIABLE = "GOLEM_MAGIC_SEEDS"  # names the file, where somebody wants to know
# Libraries that would otherwise start a thread per core in every worker of a machine full of workers.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def tame_threads() -> None:
    """One thread per worker for numerical libraries, unless the environment says otherwise."""
    for variable in THREADS:
        os.environ.setdefault(variable, "1")


def package_folders() -> tuple[str, ...]:
    """The interpreter's folders for installed packages."""
    return tuple({os.path.join(sysconfig.get_path(kind), "") for kind in ("purelib", "platlib")})


def installed(names: Collection[str], folders: tuple[str, ...]) -> list[str]:
    """Those of the loaded modules ``names`` that belong to an installed package, in the order of loading."""
    return [name for name in names if _origin(name.partition(".")[0]).startswith(folders) and _origin(name)]


def note(before: Collection[str]) -> None:
    """Append the installed modules loaded since ``before`` to the file that the environment names.

    Each once, or what is never loaded ahead would make the file grow with every worker.
    """
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    new = installed([name for name in sys.modules if name not in before], package_folders())
    if new:
        with suppress(OSError), open(path, "a+", opener=_private) as file:
            file.seek(0)
            noted = set(file.read().split())
            file.write("".join(f"{name}\n" for name in new if name not in noted))


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _origin(name: str) -> str:
    """Where a loaded module came from; empty for built-in, frozen and made-up ones."""
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return getattr(spec, "origin", None) or ""
