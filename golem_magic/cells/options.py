"""The options of the magics: their words, what may follow them, and what they become.

Here text becomes a value; whether the value is allowed is for those to say who use it.
"""

import difflib
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, get_args

from golem_magic.errors import CellError
from golem_magic.model import Keep, OnError
from golem_magic.units import n_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LineOptions:
    """The options of one line, as keywords of a map are called; expressions are still text.

    Attributes:
        out: Variable that will hold the results.
        function: Name of the cell's function; ``%%golemize`` only.
        given: Names of the fields that the line set, the rest being no more than fillers.
    """

    out: str | None = None
    common: str | None = None
    function: str | None = None
    chunk_size: int | Literal["auto"] = "auto"
    on_error: OnError = "raise"
    retries: int = 0
    retry_on: str | None = None
    timeout: float | None = None
    setup: str | None = None
    workers: int | None = None
    engine: str | None = None
    label: str | None = None
    star: bool = False
    kwargs: bool = False
    unordered: bool = False
    stream: bool = False
    keep: Keep = "all"
    disk_budget: int | None = None
    resources: str | None = None
    error_log: str | None = None
    reuse: bool = False
    no_reuse: bool = False
    wait: bool = False
    quiet: bool = False
    given: frozenset[str] = frozenset()

    def expressions(self) -> dict[str, str]:
        """What the line gave as expressions, by field."""
        return {name: getattr(self, name) for name in _EXPRESSIONS if name in self.given}

    def values(self) -> dict[str, Any]:
        """What the line gave as values, by field."""
        return {name: getattr(self, name) for name in self.given - _EXPRESSIONS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    Attributes:
        field: Its field of :class:`LineOptions`.
        words: What is typed.
        means: What it is good for, for help.
        value: Turns text into a value, or raises ValueError; None for a flag.
        needs: What a value is, in words.
        shape: What a value is called in help.
        choices: The fixed words that may follow, for completion.
        magics: Where it may stand.
    """

    field: str
    words: tuple[str, ...]
    means: str
    value: Callable[[str], Any] | Literal["expression"] | None = None
    needs: str = ""
    shape: str = ""
    choices: tuple[str, ...] = ()
    magics: tuple[str, ...] = ("%%golemize", "%golem_map")


def words_of(magic: str) -> list[str]:
    """List the options of ``%%golemize`` or ``%golem_map`` as they are typed, sorted."""
    return sorted(word for word, option in OPTIONS.items() if magic in option.magics)


def choices_of(word: str) -> tuple[str, ...]:
    """List the fixed words that may follow an option; empty where anything may."""
    return OPTIONS[word].choices if word in OPTIONS else ()


def help_on(magic: str) -> list[str]:
    """Tell of each option what is typed and what it means, a line each."""
    shown = [option for option in _ALL if magic in option.magics]
    heads = [f"{', '.join(option.words)} {option.shape}".rstrip() for option in shown]
    width = max(map(len, heads)) + 2
    return [f"{head:{width}}{option.means}" for head, option in zip(heads, shown, strict=True)]


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


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]+", text):
        raise ValueError
    return int(text)


def _chunk_size(text: str) -> int | str:
    return text if text == "auto" else _whole(text)


def _word(field: str, means: str, choices: tuple[str, ...]) -> Option:
    """Make an option that takes one of some words."""

    def chosen(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    *most, last = choices
    needs = f"{', '.join(most)} or {last}"
    word = f"--{field.replace('_', '-')}"
    return Option(
        field=field, words=(word,), means=means, value=chosen, needs=needs, shape="WORD", choices=choices
    )


def _flag(field: str, means: str) -> Option:
    return Option(field=field, words=(f"--{field}",), means=means)


def _expression(field: str, words: tuple[str, ...], means: str) -> Option:
    return Option(
        field=field, words=words, means=means, value="expression", needs="an expression", shape="EXPR"
    )


_ALL = (
    Option(
        field="out",
        words=("-o", "--out"),
        means="variable for the results; a cell's default is its function's name + _results",
        value=identifier,
        needs="the name of a variable",
        shape="NAME",
    ),
    _expression(
        "common", ("-c", "--common"), "data for every task, as f's second argument; a tuple in brackets"
    ),
    Option(
        field="function",
        words=("-f", "--function"),
        means="the function, if not the last one of the cell",
        value=identifier,
        needs="the name of a function",
        shape="NAME",
        magics=("%%golemize",),
    ),
    Option(
        field="chunk_size",
        words=("--chunk-size", "--task-size"),
        means="tasks that travel together; auto, the default, follows the speed",
        value=_chunk_size,
        needs="a whole number or auto",
        shape="N|auto",
        choices=("auto",),
    ),
    _word("on_error", f"at a task that failed: {', '.join(get_args(OnError))}", get_args(OnError)),
    Option(
        field="retries",
        words=("--retries",),
        means="try a task that raised so often again, with growing pauses",
        value=_whole,
        needs="a whole number",
        shape="N",
    ),
    _expression("retry_on", ("--retry-on",), "exceptions worth another try; default: every Exception"),
    Option(
        field="timeout",
        words=("--timeout",),
        means="longest time of one task; what takes longer is ended",
        value=float,
        needs="a number of seconds",
        shape="SECONDS",
    ),
    _expression("setup", ("--setup",), "function called once per worker; tasks get its value last"),
    Option(
        field="workers",
        words=("--workers",),
        means="how many workers to place; default: as many as there are slots",
        value=_whole,
        needs="a whole number",
        shape="N",
    ),
    Option(
        field="engine",
        words=("--engine",),
        means="which engine places them",
        value=str,
        needs="the name of an engine",
        shape="NAME",
    ),
    Option(
        field="label",
        words=("--label",),
        means="shown with the job; quotes around blanks",
        value=str,
        needs="a text",
        shape="TEXT",
    ),
    _flag("star", "unpack each input: f(*x)"),
    _flag("kwargs", "unpack each input, a mapping: f(**x), or f(common, **x)"),
    _flag("unordered", "iterate in the order in which results come"),
    _flag("stream", "draw the inputs bit by bit beside the notebook, also without end"),
    _word("keep", "unread frees the space of a result once it was read", get_args(Keep)),
    Option(
        field="disk_budget",
        words=("--disk-budget",),
        means="most space of results that nobody has read yet, such as 500M or 2G",
        value=n_bytes,
        needs="a number of bytes, such as 500M or 2G",
        shape="BYTES",
    ),
    Option(
        field="error_log",
        words=("--error-log",),
        means="file to which workers append each failure, with input and traceback",
        value=str,
        needs="the path of a file",
        shape="FILE",
    ),
    Option(
        field="resources",
        words=("--resources",),
        means="what each worker may have, such as memory=2G; quotes around blanks",
        value=str,
        needs="a text such as memory=2G",
        shape="TEXT",
    ),
    _flag("reuse", "if this very job runs already here, take its results instead of a second one"),
    Option(
        field="no_reuse",
        words=("--no-reuse",),
        means="start a second job also if this unchanged cell's runs; else its results are taken",
        magics=("%%golemize",),
    ),
    _flag("wait", "wait here for the end of the job; an interrupt only stops waiting"),
    _flag("quiet", "no progress view"),
)
OPTIONS: Mapping[str, Option] = {word: option for option in _ALL for word in option.words}
_EXPRESSIONS = frozenset(option.field for option in _ALL if option.value == "expression")
# Planned; refused with a word of their own, so that nobody takes them for misspelt.
LATER = frozenset({"--seed", "--cache", "--estimate"})
