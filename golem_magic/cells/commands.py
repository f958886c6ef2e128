"""How the line of ``%golem`` is read: a word and what it is about."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from golem_magic.cells.options import identifier, nearest, refuse
from golem_magic.errors import CellError
from golem_magic.units import n_bytes

USES: Mapping[str, str] = {
    "attach": "attach JOB [-o NAME]",
    "cancel": "cancel JOB|NAME",
    "clean": "clean [--dry-run] [--older DAYS] [--max-size SIZE] [--max-jobs N]",
    "config": "config [KEY[=VALUE]]",
    "jobs": "jobs",
    "logs": "logs JOB|NAME [TASK]",
    "nodes": "nodes",
    "retry": "retry JOB|NAME [-o NAME]",
}
_LATER = ("debug", "doctor", "resize")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "attach": ("-o", "--out"),
    "retry": ("-o", "--out"),
    "clean": ("--dry-run", "--older", "--max-size", "--max-jobs"),
}
_KEY_VALUE = re.compile(r"config\s+(\w+)(?:\s*=\s*(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What ``%golem`` was asked for.

    Attributes:
        word: What to do.
        job: The job that it is about: an id, its beginning, or a variable with results.
        out: Variable for the results of ``attach`` and ``retry``.
        task: The task whose worker's log is wanted.
        key: The setting that it is about; empty for all.
        value: Its new value, empty to go back to what it was; None to be shown what it is.
        dry_run: Whether ``clean`` shall only tell.
        older_days: How long jobs must have been over for ``clean``; None for the default.
        max_bytes: Most space of all jobs for ``clean``; None for the default.
        max_jobs: Most jobs for ``clean``; None for any number.
    """

    word: str
    job: str = ""
    out: str | None = None
    task: int | None = None
    key: str = ""
    value: str | None = None
    dry_run: bool = False
    older_days: float | None = None
    max_bytes: int | None = None
    max_jobs: int | None = None


def parse_command(line: str) -> Command:
    """Read the line of ``%golem``.

    Raises:
        CellError: The word is not known, or what it needs is missing; the message is one line.
    """
    word, *rest = line.split() or [""]
    _check_word(word)
    if word == "clean":
        return _clean(word, rest)
    if word == "config" and rest:
        return _config(word, line.strip())
    _check_options(word, rest)
    match word, rest:
        case (("jobs" | "nodes" | "config"), []):
            return Command(word=word)
        case (("attach" | "cancel" | "logs" | "retry"), [job]) if not job.startswith("-"):
            return Command(word=word, job=job)
        case ("logs", [job, task]) if task.isascii() and task.isdecimal():
            return Command(word=word, job=job, task=int(task))
        case ("attach" | "retry", [job, ("-o" | "--out"), out] | [("-o" | "--out"), out, job]):
            return Command(word=word, job=job, out=identifier(out))
        case _:
            raise _misused(word)


def command_words() -> list[str]:
    """List the words that ``%golem`` knows."""
    return list(USES)


def command_options(word: str) -> tuple[str, ...]:
    """List the options of one of them."""
    return _OPTIONS.get(word, ())


def _check_word(word: str) -> None:
    known = f"known are {', '.join(USES)}"
    if not word:
        refuse(f"%golem needs a word: {known}")
    if word in _LATER:
        refuse(f"%golem {word} is not available yet; {known}")
    if word not in USES:
        refuse(f"%golem {word} is not known{nearest(word, USES)}; {known}")


def _check_options(word: str, rest: list[str]) -> None:
    known = command_options(word)
    for each in rest:
        name = each.partition("=")[0]
        if re.match(r"--?[A-Za-z]", each) and name not in known:
            refuse(f"%golem {word} has no option {name}{nearest(name, known)}: %golem {USES[word]}")


def _clean(word: str, rest: list[str]) -> Command:
    _check_options(word, rest)
    words = [part for each in rest for part in each.split("=", 1)]
    said: dict[str, Any] = {}
    while words:
        match words:
            case ["--dry-run", *words] if "dry_run" not in said:
                said["dry_run"] = True
            case [("--older" | "--max-size" | "--max-jobs") as option, text, *words]:
                name, read = _LIMITS[option]
                if name in said:
                    raise _misused(word)
                said[name] = read(text)
            case _:
                raise _misused(word)
    return Command(word=word, **said)


def _days(text: str) -> float:
    if not re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        refuse(f"--older is {text!r}, allowed: a number of days from 0 up")
    return float(text)


def _size(text: str) -> int:
    try:
        return n_bytes(text)
    except ValueError:
        refuse(f"--max-size is {text!r}, allowed: a size such as 500M or 20G")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        refuse(f"--max-jobs is {text!r}, allowed: a whole number from 0 up")
    return int(text)


_LIMITS: Mapping[str, tuple[str, Callable[[str], float]]] = {
    "--older": ("older_days", _days),
    "--max-size": ("max_bytes", _size),
    "--max-jobs": ("max_jobs", _number),
}


def _config(word: str, line: str) -> Command:
    """Read ``config KEY=VALUE``; a value may hold blanks, and quotes around it are taken off."""
    found = _KEY_VALUE.fullmatch(line)
    if found is None:
        raise _misused(word)
    value = found[2]
    quoted = re.fullmatch(r"""(['"])(.*)\1""", value or "", re.DOTALL)
    return Command(word=word, key=found[1], value=quoted[2] if quoted else value)


def _misused(word: str) -> CellError:
    return CellError(f"%golem {word} is used as: %golem {USES[word]}")
