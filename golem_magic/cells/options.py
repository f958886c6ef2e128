"""The options of the magics: their words, what may follow them, and what they become."""

import difflib
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from golem_magic.errors import CellError


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOptions:
    """The options of one line; expressions are still text.

    Attributes:
        out: Variable that will hold the results.
        common: Expression of the common data.
        function: Name of the cell's function; ``%%golemize`` only.
        chunk_size: Tasks per lease; None lets it follow the measured speed.
        workers: How many to place; None asks the engine.
        given: Names of the fields that the line set, the rest being defaults.
    """

    out: str | None = None
    common: str | None = None
    function: str | None = None
    chunk_size: int | None = None
    on_error: Literal["raise", "return", "skip"] = "raise"
    workers: int | None = None
    engine: str | None = None
    label: str | None = None
    star: bool = False
    unordered: bool = False
    wait: bool = False
    quiet: bool = False
    given: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        field: Its field of :class:`LineOptions`.
        words: What is typed.
        value: Turns text into a value, or raises ValueError; None for a flag.
        needs: What a value is, in words.
        choices: The fixed words that may follow, for completion.
        magics: Where it may stand.
    """

    field: str
    words: tuple[str, ...]
    value: Callable[[str], Any] | Literal["expression"] | None = None
    needs: str = ""
    choices: tuple[str, ...] = ()
    magics: tuple[str, ...] = ("%%golemize", "%golem_map")


def words_of(magic: str) -> list[str]:
    """List the options of ``%%golemize`` or ``%golem_map`` as they are typed, sorted."""
    return sorted(word for word, option in OPTIONS.items() if magic in option.magics)


def choices_of(word: str) -> tuple[str, ...]:
    """List the fixed words that may follow an option; empty where anything may."""
    return OPTIONS[word].choices if word in OPTIONS else ()


def option_called(word: str, magic: str) -> Option:
    """Find an option by its word.

    Raises:
        CellError: It is unknown, not available yet, or for another magic.
    """
    if word in LATER:
        refuse(f"{word} is not available yet")
    if word not in OPTIONS:
        refuse(f"unknown option {word}{nearest(word, words_of(magic))}")
    option = OPTIONS[word]
    if magic not in option.magics:
        refuse(f"{word} is for {' and '.join(option.magics)} only")
    return option


def identifier(text: str) -> str:
    """Check that ``text`` can name a variable."""
    if not text.isidentifier():
        refuse(f"{text!r} cannot name a variable: use letters, digits and _")
    if keyword.iskeyword(text):
        refuse(f"{text!r} cannot name a variable: it is a keyword of Python")
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """Give the tail of a message that guesses what was meant; empty if nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


def refuse(message: str) -> NoReturn:
    """Raise the one error of this room."""
    raise CellError(message)


def _positive(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
        raise ValueError
    return int(text)


def _chunk_size(text: str) -> int | None:
    return None if text == "auto" else _positive(text)


def _on_error(text: str) -> str:
    if text == "stop":
        refuse("--on-error stop is not available yet; allowed: raise, return or skip")
    if text not in ("raise", "return", "skip"):
        raise ValueError
    return text


_ALL = (
    Option("out", ("-o", "--out"), identifier, "the name of a variable"),
    Option("common", ("-c", "--common"), "expression", "an expression"),
    Option("function", ("-f", "--function"), identifier, "the name of a function", magics=("%%golemize",)),
    Option(
        "chunk_size", ("--chunk-size", "--task-size"), _chunk_size, "a whole number >= 1 or auto", ("auto",)
    ),
    Option("on_error", ("--on-error",), _on_error, "raise, return or skip", ("raise", "return", "skip")),
    Option("workers", ("--workers",), _positive, "a whole number >= 1"),
    Option("engine", ("--engine",), str, "the name of an engine"),
    Option("label", ("--label",), str, "a text"),
    *(Option(flag, (f"--{flag}",)) for flag in ("star", "unordered", "wait", "quiet")),
)
OPTIONS: Mapping[str, Option] = {word: option for option in _ALL for word in option.words}
# Planned; refused with a word of their own, so that nobody takes them for misspelt.
LATER = {
    *("--retries", "--timeout", "--setup", "--resources", "--seed", "--kwargs"),
    *("--cache", "--stream", "--keep", "--reuse", "--estimate"),
}
