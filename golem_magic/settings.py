"""Where settings come from, their defaults and what is allowed.

The first place that names a setting counts: the call, what was set for this process (``%golem config``),
the environment (``GOLEM_MAGIC_*``), a JSON file (our names, golemize's, or both), the default. All
faults of all places are reported together.
"""

import difflib
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from golem_magic.errors import SettingsError

_HIDDEN = "something that is not shown"
_HERE = "%golem config"
_here: dict[str, Any] = {}  # what it has set


class Secret(str):
    """Text that hides itself from ``repr``, so that tools that show variables do not show it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'<hidden>'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one client needs to know before its first map.

    Attributes:
        engine: Name of the engine that places workers.
        share: Folder that this side and all workers can reach, an absolute path.
        server_url: Base URL of a Golem master.
        share_on_workers: The same folder's path as workers on other machines see it; None if alike.
        server_password: Its shared password; never shown.
        server_ca: PEM file of the authorities to trust instead of the system's.
        server_fingerprint: SHA-256 of the one certificate to trust, 64 hex digits in small letters.
        server_verify: False accepts any certificate.
        server_legacy_tls: Accept TLS 1.0 and short keys too.
        server_plain: Whether http may leave this machine.
        server_env_proxies: Whether the proxies that the environment names are used.
        workers: How many workers to place by default; None asks the engine.
        silence_s: Seconds without a sign of life after which a worker counts as lost; None for the engine's.
        owner: Free text shown with jobs, such as a mail address; None for user and host.
        python: The workers' interpreter, program and arguments.
        auto_clean: Whether jobs that have reached their age are removed from the share now and then.
        state_dir: Folder of the embedded Golem's address file and logs; None for its default.
        slurm_options: Further arguments of Slurm's ``sbatch``, one text as in a shell.
        notes: What was read and has no effect, in words.
    """

    engine: str = "local"
    share: str | None = None
    share_on_workers: str | None = None
    server_url: str | None = None
    server_password: str | None = field(default=None, repr=False)
    server_ca: str | None = None
    server_fingerprint: str | None = None
    server_verify: bool = True
    server_legacy_tls: bool = False
    server_plain: bool = False
    server_env_proxies: bool = False
    workers: int | None = None
    silence_s: int | None = None
    owner: str | None = None
    python: tuple[str, ...] = (sys.executable,)
    auto_clean: bool = True
    state_dir: str | None = None
    slurm_options: str | None = None
    notes: tuple[str, ...] = field(default=(), repr=False, compare=False)

    def for_engine(self, engine: str) -> "Settings":
        """Give the same settings for another engine.

        Raises:
            SettingsError: The share is only this machine's default and ``engine`` is not local.
        """
        if engine == self.engine:
            return self
        share = None if self.share == default_share() else self.share
        return _with_share(replace(self, engine=engine, share=share))


def load_settings(**overrides: object) -> Settings:
    """Collect the settings from call, environment, file and defaults, in this order.

    Args:
        **overrides: Fields of :class:`Settings`; None means "not said here". ``python`` may be text, too.

    Raises:
        SettingsError: Something is missing, unknown or out of range; names all faults at once.
    """
    return _collect(overrides)[0]


def describe_settings() -> tuple[list[tuple[str, str, str]], tuple[str, ...]]:
    """Give name, value and place of every setting as text, and the notes; a password is never shown.

    Raises:
        SettingsError: As for :func:`load_settings`.
    """
    settings, places = _collect({})
    rows = [(name, _shown(name, getattr(settings, name)), places.get(name, "default")) for name in _RULES]
    return rows, settings.notes


def _collect(overrides: dict[str, Any]) -> tuple[Settings, dict[str, str]]:
    """Give the settings, and the place of each that was named somewhere."""
    hide_secrets(overrides)
    faults: list[str] = []
    notes: list[str] = []
    path = _config_path(faults)
    in_file = _from_file(path, faults, notes) if path else {}
    in_environment = _from_environment(faults)
    in_call = _checked("the call", {k: v for k, v in overrides.items() if v is not None}, faults)
    if faults:
        raise SettingsError("; ".join(faults))
    variables = {name: variable for variable, name in _ENVIRONMENT.items()}
    places = dict.fromkeys(in_file, str(path)) | {name: variables[name] for name in in_environment}
    places |= dict.fromkeys(_here, _HERE) | dict.fromkeys(in_call, "the call")
    settings = Settings(**(in_file | in_environment | _here | in_call), notes=tuple(notes))
    return _with_share(settings), places


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if name == "server_password":
        return "set, not shown"
    return " ".join(value) if isinstance(value, tuple) else str(value)


def set_here(key: str, text: str) -> None:
    """Set something for this process, over environment and file; an empty text takes that back.

    Raises:
        SettingsError: There is no such setting, or it cannot be that; nothing has changed.
    """
    name = _GOLEMIZE.get(key, key)
    rule = _RULES.get(name)
    if rule is None:
        message = f"{key} in {_HERE} is not a setting{_nearest(key)}"
        raise SettingsError(message)
    if not text:
        _here.pop(name, None)
        return
    try:
        _here[name] = rule.check(_parsed(name, text))
    except ValueError:
        raise SettingsError(_fault(key, _HERE, text, rule)) from None


def hide_secrets(said: dict[str, Any]) -> None:
    """Replace, in place, what must not be shown by a :class:`Secret` of the same text."""
    for key, value in said.items():
        rule = _RULES.get(_GOLEMIZE.get(key, key))
        if rule is not None and rule.secret and isinstance(value, str):
            said[key] = Secret(value)


def default_share() -> str:
    """Give the folder that the local engine uses unless told otherwise."""
    return os.path.expanduser("~/.local/share/golem-magic")


def default_config() -> str:
    """Give the file that is read if it exists and ``GOLEM_MAGIC_CONFIG`` names no other."""
    return os.path.expanduser("~/.config/golem-magic/config.json")


def _with_share(settings: Settings) -> Settings:
    if settings.share is not None:
        return settings
    if settings.engine == "local":
        return replace(settings, share=default_share())
    message = (
        f"engine {settings.engine!r} needs a folder that its workers can reach too: set share in the call, "
        f"GOLEM_MAGIC_SHARE, or share (golemize: golemStagingRoot) in {default_config()}"
    )
    raise SettingsError(message)


# --- what is allowed: each check gives the value as Settings keeps it, or raises ValueError ---


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip():
        return value
    raise ValueError


def _secret(value: object) -> Secret:
    return Secret(_text(value))


def _path(value: object) -> str:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return os.path.abspath(os.path.expanduser(_text(value)))


def _path_there(value: object) -> str:
    """Other machines have another home and another current folder: only an absolute path means something."""
    text = _text(os.fspath(value) if isinstance(value, os.PathLike) else value)
    if not os.path.isabs(text):
        raise ValueError
    return os.path.normpath(text)


def _url(value: object) -> str:
    text = _text(value)
    parts = urlsplit(text if "://" in text else f"//{text}")
    if not parts.hostname or "@" in parts.netloc or parts.scheme not in ("", "http", "https"):
        raise ValueError
    return text.rstrip("/")


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise ValueError


def _flag(value: object) -> bool:
    word = value.lower() if isinstance(value, str) else value
    if isinstance(word, bool | str) and word in _FLAGS:
        return _FLAGS[word]
    raise ValueError


def _verify(value: object) -> bool:
    return value != "insecure" and _flag(value)


def _fingerprint(value: object) -> str:
    """Accept what openssl prints, with or without what stands before the digits."""
    bare = re.sub(r"[\s:]", "", re.sub(r"^\s*sha-?256[^=:]*[=:]", "", _text(value).lower()))
    if re.fullmatch("[0-9a-f]{64}", bare):
        return bare
    raise ValueError


def _command(value: object) -> tuple[str, ...]:
    if isinstance(value, str | os.PathLike):
        value = [os.fspath(value)]
    if isinstance(value, list | tuple) and value:
        return tuple(_text(word) for word in value)
    raise ValueError


@dataclass(frozen=True, slots=True)
class _Rule:
    check: Callable[[object], Any]
    allowed: str
    secret: bool = False


_FLAGS: dict[bool | str, bool] = {
    **dict.fromkeys([True, "true", "yes", "on", "1"], True),
    **dict.fromkeys([False, "false", "no", "off", "0"], False),
}
_RULES = {
    "engine": _Rule(_text, "the name of an engine"),
    "share": _Rule(_path, "the path of a folder"),
    "share_on_workers": _Rule(_path_there, "an absolute path, as workers on other machines see that folder"),
    # The URL is secret here because what makes it wrong may be a password written into it.
    "server_url": _Rule(_url, "host:port or an http(s) URL, without user and password", secret=True),
    "server_password": _Rule(_secret, "a text", secret=True),
    "server_ca": _Rule(_path, "the path of a PEM file"),
    "server_fingerprint": _Rule(_fingerprint, "a SHA-256 fingerprint, 64 hex digits"),
    "server_verify": _Rule(_verify, "true, or false or 'insecure' to accept any certificate"),
    "server_legacy_tls": _Rule(_flag, "true or false"),
    "server_plain": _Rule(_flag, "true or false"),
    "server_env_proxies": _Rule(_flag, "true or false"),
    "workers": _Rule(_count, "a whole number >= 1"),
    "owner": _Rule(_text, "a text"),
    "python": _Rule(_command, "a program, or a list of a program and its arguments"),
    "silence_s": _Rule(_count, "a whole number of seconds from 1 up"),
    "auto_clean": _Rule(_flag, "true or false"),
    "state_dir": _Rule(_path, "the path of a folder"),
    "slurm_options": _Rule(_text, "arguments of sbatch, one text as in a shell"),
}
_GOLEMIZE = {
    "serverURL": "server_url",
    "serverPassword": "server_password",
    "golemStagingRoot": "share",
    "pythonBin": "python",
}
_GOLEMIZE_UNUSED = {
    "golemResultRoot": "results come back through the share",
    "golemizeScriptPath": "the workers' code travels on the share",
    "pickleOut": "results are kept on the share",
    "taskSize": "the length of chunks follows the measured speed; --chunk-size fixes it for a map",
    "lowGolemID": "machines are the master's business",
    "highGolemID": "machines are the master's business",
}
_ENVIRONMENT = {f"GOLEM_MAGIC_{'STATE' if name == 'state_dir' else name.upper()}": name for name in _RULES}


def _checked(place: str, said: Mapping[str, object], faults: list[str]) -> dict[str, Any]:
    """Keep what is allowed of ``said`` and add a sentence to ``faults`` for everything else."""
    kept = {}
    for key, value in said.items():
        rule = _RULES.get(_GOLEMIZE.get(key, key))
        if rule is None:
            faults.append(f"{key} in {place} is not a setting{_nearest(key)}")
            continue
        try:
            kept[_GOLEMIZE.get(key, key)] = rule.check(value)
        except ValueError:
            faults.append(_fault(key, place, value, rule))
    return kept


def _fault(key: str, place: str, value: object, rule: _Rule) -> str:
    found = _HIDDEN if rule.secret and value != "" else repr(value)
    return f"{key} in {place} is {found}, allowed: {rule.allowed}"


def _nearest(key: str) -> str:
    known = [*_RULES, *_GOLEMIZE, *_GOLEMIZE_UNUSED]
    close = difflib.get_close_matches(key, known, n=1)
    return f", did you mean {close[0]}?" if close else f", known are {', '.join(_RULES)}"


# --- the places ---


def _config_path(faults: list[str]) -> str | None:
    named = os.environ.get("GOLEM_MAGIC_CONFIG")
    if not named:
        return default_config() if os.path.exists(default_config()) else None
    path = os.path.abspath(os.path.expanduser(named))
    if os.path.exists(path):
        return path
    faults.append(f"GOLEM_MAGIC_CONFIG names {path}, which does not exist: create it or unset the variable")
    return None


def _from_file(path: str, faults: list[str], notes: list[str]) -> dict[str, Any]:
    said = _read(path, faults)
    for key in [key for key in _GOLEMIZE_UNUSED if key in said]:
        notes.append(f"{key} in {path} is not used: {_GOLEMIZE_UNUSED[key]}")
        del said[key]
    for old, new in _GOLEMIZE.items():
        if old in said and new in said:
            faults.append(f"{old} and {new} in {path} say the same thing: keep one of them")
            del said[old]
    kept = _checked(path, said, faults)
    if "serverURL" in said:  # golemize knew no other engine, so its file says which one by being there
        kept.setdefault("engine", "golem")
    return kept


def _read(path: str, faults: list[str]) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            said = json.load(file)
    except OSError as error:
        faults.append(f"cannot read {path} ({error.strerror}): make it readable or remove it")
        return {}
    except ValueError as error:  # broken JSON, or bytes that are not UTF-8
        faults.append(f"{path} is not JSON ({error})")
        return {}
    if isinstance(said, dict):
        return said
    faults.append(f"{path} holds a JSON {type(said).__name__}, allowed: one object of settings")
    return {}


def _from_environment(faults: list[str]) -> dict[str, Any]:
    """Read ``GOLEM_MAGIC_*``; an empty variable counts as not set."""
    kept = {}
    for variable, name in _ENVIRONMENT.items():
        text = os.environ.get(variable)
        if not text:
            continue
        rule = _RULES[name]
        try:
            kept[name] = rule.check(_parsed(name, text))
        except ValueError:
            faults.append(_fault(variable, "the environment", text, rule))
    return kept


def _parsed(name: str, text: str) -> object:
    if name in ("workers", "silence_s"):
        return int(text)
    if name == "python" and text.startswith("["):
        return json.loads(text)
    return text
