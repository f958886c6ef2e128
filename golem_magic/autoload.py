"""The magics in every kernel and IPython of this environment, without ``%load_ext``: on, off, status.

All of them read ``etc/ipython/ipython_config.json`` in it. The file may belong to others as well, so
only our one entry is put in or taken out.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golem_magic.errors import SettingsError

EXTENSION = "golem_magic"
SECTION, KEY = "InteractiveShellApp", "extra_extensions"
FILE = "ipython_config.json"  # for terminals and kernels
KERNEL_FILE = "ipython_kernel_config.json"
SYSTEM_FOLDERS = ("/usr/local/etc/ipython", "/etc/ipython")  # read by IPython for every environment


@dataclass(frozen=True, slots=True)
class Autoload:
    """Whether kernels and terminals of this environment load the magics.

    Attributes:
        path: The file that says so for this environment.
        is_on: Whether it does.
        elsewhere: Other files that ask for the magics: for kernels only, for this user, for this machine.
    """

    path: Path
    is_on: bool
    elsewhere: tuple[Path, ...]


def status() -> Autoload:
    """Look at the file of this environment.

    Raises:
        SettingsError: It cannot be read, or is not what IPython understands.
    """
    path = _path()
    return Autoload(path, EXTENSION in _extensions(_read(path), path), _elsewhere())


def switch_on() -> Autoload:
    """Ask for the magics in every kernel and terminal started from now on; twice is harmless.

    Raises:
        SettingsError: The file cannot be read or written; it is as it was.
    """
    path = _path()
    config = _read(path)
    extensions = _extensions(config, path)
    if EXTENSION not in extensions:
        config[SECTION] = {**config.get(SECTION, {}), KEY: [*extensions, EXTENSION]}
        _write(path, config)
    return status()


def switch_off() -> Autoload:
    """Take our entry out, and nothing else; a file that held only that is removed.

    Raises:
        SettingsError: The file cannot be read or written; it is as it was.
    """
    path = _path()
    config = _read(path)
    extensions = _extensions(config, path)
    if EXTENSION in extensions:
        section = config[SECTION]
        section[KEY] = [name for name in extensions if name != EXTENSION]
        if not section[KEY]:
            del section[KEY]
        if not section:
            del config[SECTION]
        _write(path, config)
    return status()


def _path() -> Path:
    return Path(sys.prefix) / "etc/ipython" / FILE


def _elsewhere() -> tuple[Path, ...]:
    """Other files that ask for the magics; one that cannot be read says nothing."""
    home = Path(os.environ.get("IPYTHONDIR") or Path.home() / ".ipython")
    folders = [*map(Path, SYSTEM_FOLDERS), _path().parent, home / "profile_default"]
    files = [folder / name for folder in folders for name in (FILE, KERNEL_FILE)]
    return tuple(path for path in files if path != _path() and _asks_for_us(path))


def _asks_for_us(path: Path) -> bool:
    try:
        return EXTENSION in _extensions(_read(path), path)
    except SettingsError:
        return False


def _extensions(config: dict[str, Any], path: Path) -> list[str]:
    section = config.get(SECTION, {})
    found = section.get(KEY, []) if isinstance(section, dict) else None
    if isinstance(found, list):
        return found
    message = f"{path} holds {SECTION}.{KEY} in a form that is no list: repair the file or remove it"
    raise SettingsError(message)


def _read(path: Path) -> dict[str, Any]:
    """The file's content; an empty object if there is none."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        message = f"cannot read {path} ({error.strerror}): make it readable"
        raise SettingsError(message) from error
    except ValueError as error:  # broken JSON, or bytes that are not UTF-8
        message = f"{path} is not JSON ({error}), so IPython ignores it: repair the file or remove it"
        raise SettingsError(message) from error
    if isinstance(config, dict):
        return config
    message = f"{path} holds a JSON {type(config).__name__}, not an object: repair the file or remove it"
    raise SettingsError(message)


def _write(path: Path, config: dict[str, Any]) -> None:
    """Replace the file as a whole; a kernel that starts meanwhile reads the old one or the new one."""
    path = path.resolve()
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        if not config:
            path.unlink()
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        message = (
            f"cannot write {path} ({error.strerror}): ask whoever owns this environment, or use your own"
        )
        raise SettingsError(message) from error
