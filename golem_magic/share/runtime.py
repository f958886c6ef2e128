"""The worker's code as one file on the share, so that a node needs nothing but Python.

A zip archive that the interpreter runs: the rooms the worker may import, and
cloudpickle, as source and as bytecode of this Python (unchecked, PEP 552). An
interpreter of another version ignores the bytecode and can still say what is
wrong. The other rooms are there as source only: no worker imports them, but the
user's modules that travel may, and a task that maps must be told that it cannot.
"""

import hashlib
import importlib.util
import io
import marshal
import os
import zipfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from golem_magic.errors import GolemMagicError, ShareError
from golem_magic.model import Digest
from golem_magic.share import files
from golem_magic.share.layout import SharePaths

_ROOMS = ("__init__", "clock", "errors", "model", "pacing")
_FOLDERS = ("payload", "share", "worker")
_START = b"import sys\nfrom golem_magic.worker.main import main\nsys.exit(main(sys.argv[1:]))\n"


@cache
def digest() -> Digest:
    """Digest of the worker's code as it is installed here, and of the bytecode's version."""
    value = hashlib.sha256(importlib.util.MAGIC_NUMBER)
    for name, source in {**_sources(), **_client_sources()}.items():
        value.update(f"{name}\0{len(source)}\0".encode() + source)
    return Digest(value.hexdigest())


def stage(paths: SharePaths) -> str:
    """Put the runtime on the share unless it is there, whole and ours; give its path.

    An interpreter will run it before any code of ours can look at it, so this is where it is
    checked; once for all maps of a process, as long as nobody touches it. One that is there is
    touched, so that it is spared when the share is cleaned.

    Raises:
        ShareError: It could not be written.
    """
    path = paths.runtime(digest())
    with files.explained("write", path):
        if not _is_known(path) and not _is_sound(path):
            part = f"{path}.{os.urandom(8).hex()}.part"
            files.create(part, [_archive()])
            os.replace(part, path)
        os.utime(path)
        _known[path] = _state(path)
    return path


_known: dict[str, tuple[int, ...]] = {}  # runtimes that were checked, and the state that they were in


def _is_known(path: str) -> bool:
    with suppress(OSError):
        return _known.get(path) == _state(path)
    return False


def _state(path: str) -> tuple[int, ...]:
    """Changes with every change to the file, its owner and its mode included."""
    found = os.lstat(path)
    return found.st_ino, found.st_ctime_ns, found.st_size, found.st_uid, found.st_mode


def _is_sound(path: str) -> bool:
    """Whether a file is the archive of exactly our sources, and nobody else could have written it."""
    try:
        with open(path, "rb", opener=files.open_own) as file, zipfile.ZipFile(file) as archive:
            sources = {**_sources(), **_client_sources()}
            hashes = {f"{name}c": importlib.util.source_hash(source) for name, source in _sources().items()}
            return (
                sorted(archive.namelist()) == sorted([*sources, *hashes])
                and all(archive.read(name) == source for name, source in sources.items())
                and all(archive.read(name)[8:16] == wanted for name, wanted in hashes.items())
            )  # reading checks the rest of each file by its checksum
    except (OSError, ShareError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return False


@cache
def _sources() -> dict[str, bytes]:
    """Every module that workers import: name in the archive, source."""
    here = Path(__file__).parent.parent
    found = [here / f"{room}.py" for room in _ROOMS]
    found += [path for folder in _FOLDERS for path in sorted((here / folder).glob("*.py"))]
    sources = {f"golem_magic/{path.relative_to(here).as_posix()}": path.read_bytes() for path in found}
    spec = importlib.util.find_spec("cloudpickle")
    if spec is None or spec.origin is None:
        message = "cloudpickle is not installed as files: install it with pip"
        raise GolemMagicError(message)
    pickler = Path(spec.origin).parent
    sources |= {f"cloudpickle/{path.name}": path.read_bytes() for path in sorted(pickler.glob("*.py"))}
    return {"__main__.py": _START, **sources}


@cache
def _client_sources() -> dict[str, bytes]:
    """The rest of the package."""
    here = Path(__file__).parent.parent
    names = {f"golem_magic/{path.relative_to(here).as_posix()}": path for path in sorted(here.rglob("*.py"))}
    return {name: path.read_bytes() for name, path in names.items() if name not in _sources()}


def _archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, source in _sources().items():
            archive.writestr(name, source)
            archive.writestr(f"{name}c", _bytecode(name, source))
        for name, source in _client_sources().items():
            archive.writestr(name, source)
    return file.getvalue()


def _bytecode(name: str, source: bytes) -> bytes:
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    unchecked_hash = (0b01).to_bytes(4, "little")
    source_hash = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + unchecked_hash + source_hash + marshal.dumps(code)
