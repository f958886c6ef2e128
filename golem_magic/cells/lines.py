r"""How the magics' lines are read.

The lines::

    %%golemize [options] [INPUTS]
    %golem_map [options] FUNCTION[,] INPUTS [options]

FUNCTION, and each EXPR of an option, is a Python expression that ends at the first blank or comma
outside brackets and quotes; FUNCTION may also be FILE::NAME. INPUTS is the rest, verbatim. Options stand
before, between or after. Behind a blank and outside brackets and quotes, a known option (``-o``, ``--out``)
is always an option and ``--word`` always means to be one; every other minus belongs to the expression. A
``#`` outside quotes starts a comment, a semicolon at the end is dropped.
"""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from golem_magic.cells.options import (
    OPTIONS,
    LineOptions,
    Option,
    option_called,
    refuse,
    words_of,
)
from golem_magic.cells.places import parse_place
from golem_magic.errors import CellError

_USAGE = {
    "%%golemize": "%%golemize [options] [INPUTS]",
    "%golem_map": "%golem_map [options] FUNCTION INPUTS",
}
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_OPTION = re.compile(r"(--[A-Za-z][\w-]*)(?==|\s|$)|(-[A-Za-z])(?=\s|$)")
_QUOTED = re.compile(
    r"""'''(?:\\.|(?!''')[^\\])*'''|\"\"\"(?:\\.|(?!\"\"\")[^\\])*\"\"\"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class MapLine:
    """What ``%%golemize`` or ``%golem_map`` was asked for.

    Attributes:
        options: Everything behind dashes.
        function: Expression of the function; None for ``%%golemize``.
        inputs: Expression of the inputs; None where ``%%golemize`` has none.
    """

    options: LineOptions
    function: str | None
    inputs: str | None


def parse_cell_line(line: str) -> MapLine:
    """Read the line of ``%%golemize``.

    Raises:
        CellError: The line is not ``[options] [INPUTS]``; the message is one line.
    """
    reader = _Reader(line, magic="%%golemize")
    reader.take_options()
    inputs = reader.take_inputs()
    options = reader.finish()
    for name in ("out", "wait"):
        if inputs is None and name in options.given:
            refuse(f"--{name} is about results, but the line has no INPUTS: {_USAGE['%%golemize']}")
    return MapLine(options, None, inputs)


def parse_map_line(line: str) -> MapLine:
    """Read the line of ``%golem_map``.

    Raises:
        CellError: The line is not ``[options] FUNCTION INPUTS``; the message is one line.
    """
    reader = _Reader(line, magic="%golem_map")
    reader.take_options()
    function = reader.take_expression("FUNCTION")
    reader.take_comma()
    reader.take_options()
    inputs = reader.take_inputs()
    options = reader.finish()
    if inputs is None:
        refuse(f"INPUTS are missing behind FUNCTION {function}: {_USAGE['%golem_map']}")
    return MapLine(options, function, inputs)


def expects_function(text: str) -> bool:
    """Tell whether FUNCTION comes next in a line of ``%golem_map`` that so far says ``text``."""
    reader = _Reader(text, magic="%golem_map")
    try:
        reader.take_options()
    except CellError:
        return False
    return reader.at_end()


class _Reader:
    """Goes through a line once, from left to right, and collects its options."""

    def __init__(self, line: str, *, magic: str) -> None:
        self._line = line.rstrip().removesuffix(";").rstrip()
        self._magic = magic
        self._position = 0
        self._options: dict[str, Any] = {}

    # --- the parts of a line ---

    def take_options(self) -> None:
        """Take options as long as they come."""
        while not self.at_end() and (word := self._option_at(self._position)):
            self._take_option(word)

    def take_expression(self, what: str) -> str:
        """Take an expression that ends at a blank or comma outside brackets and quotes."""
        rest = "" if self.at_end() else f" before {self._rest()}"
        text = self._take_until(lambda at: self._line[at].isspace() or self._line[at] in ",#")
        if not text:
            refuse(f"{what} is missing{rest}: {_USAGE[self._magic]}")
        if text == "lambda":
            refuse(f"{what} that is a lambda goes into brackets: (lambda x: ...)")
        if what == "FUNCTION" and parse_place(text):
            return text
        self._check(text, what)
        if what == "FUNCTION" and text.startswith("-"):
            refuse(f"FUNCTION cannot be {text}{self._stray_option(text)}")
        return text

    def take_comma(self) -> None:
        """Take the comma that may stand between FUNCTION and INPUTS."""
        if not self.at_end() and self._line[self._position] == ",":
            self._position += 1

    def take_inputs(self) -> str | None:
        """Take everything up to the next option or the end; None if that is nothing."""
        if self.at_end() or self._option_at(self._position):
            return None
        text = self._take_until(self._inputs_end_at).strip()
        self._check(text, "INPUTS")
        return text

    def finish(self) -> LineOptions:
        """Take the options at the end of the line and give all of them."""
        self.take_options()
        if not self.at_end():
            refuse(f"{self._rest()!r} stands behind the options: {_USAGE[self._magic]}, in this order")
        return LineOptions(**self._options, given=frozenset(self._options))

    def at_end(self) -> bool:
        """Skip blanks and tell whether nothing but a comment is left."""
        self._position = len(self._line) - len(self._rest().lstrip())
        return self._rest()[:1] in ("", "#")

    # --- options ---

    def _option_at(self, position: int) -> str | None:
        """Give the option that starts here, unknown ones too if they have two dashes."""
        found = _OPTION.match(self._line, position)
        if found is None:
            return None
        word = found.group()
        is_known = word in OPTIONS and self._magic in OPTIONS[word].magics
        return word if is_known or word.startswith("--") else None

    def _take_option(self, word: str) -> None:
        option = option_called(word, self._magic)
        if option.field in self._options:
            refuse(f"{word} is given twice")
        self._position += len(word)
        has_equals = self._rest().startswith("=")
        self._position += has_equals
        if option.value is None and has_equals:
            refuse(f"{word} takes no value")
        self._options[option.field] = True if option.value is None else self._take_value(option, word)

    def _take_value(self, option: Option, word: str) -> Any:
        nothing_comes = not self._rest().strip()
        if nothing_comes or (not self.at_end() and self._option_at(self._position)):
            hint = f"; a subtraction has a blank behind its minus: - {word[1]}" if len(word) == 2 else ""
            refuse(f"{word} needs {option.needs}{hint}")
        if option.value == "expression":
            return self.take_expression(f"EXPR of {word}")
        text = self._take_word(word)
        assert callable(option.value)
        try:
            return option.value(text)
        except ValueError:
            refuse(f"{word} is {text!r}, allowed: {option.needs}")

    def _take_word(self, option: str) -> str:
        """Take a word, or a quoted text without its quotes."""
        rest = self._rest()
        quoted = re.match(r"(['\"])(.*?)\1(?=\s|$)", rest)
        if quoted is None and rest[0] in "'\"":
            refuse(f"the quote behind {option} is not closed: {rest}")
        text = quoted.group() if quoted else rest.split(maxsplit=1)[0]
        self._position += len(text)
        return quoted.group(2) if quoted else text

    # --- expressions ---

    def _rest(self) -> str:
        return self._line[self._position :]

    def _inputs_end_at(self, at: int) -> bool:
        character = self._line[at]
        return character == "#" or (character.isspace() and self._option_at(at + 1) is not None)

    def _take_until(self, ends_at: Callable[[int], bool]) -> str:
        """Take text up to the first place outside brackets and quotes where ``ends_at`` holds."""
        start, line = self._position, self._line
        opened: list[str] = []
        while self._position < len(line) and (opened or not ends_at(self._position)):
            if line[self._position] in "'\"":
                self._skip_quoted()
            else:
                self._note_bracket(line[self._position], opened)
                self._position += 1
        if opened:
            refuse(f"a bracket is not closed, {opened[-1]} is missing: {line[start:]}")
        return line[start : self._position]

    def _skip_quoted(self) -> None:
        found = _QUOTED.match(self._line, self._position)
        if found is None:
            refuse(f"a quote is not closed: {self._rest()}")
        self._position = found.end()

    def _note_bracket(self, character: str, opened: list[str]) -> None:
        if character in _CLOSING:
            opened.append(_CLOSING[character])
        elif character in _CLOSING.values() and (not opened or opened.pop() != character):
            refuse(f"{character} closes nothing: {self._line[: self._position + 1]}")

    def _check(self, text: str, what: str) -> None:
        """Check that ``text`` can be evaluated once it stands in brackets."""
        try:
            ast.parse(f"({text}\n)", mode="eval")
        except (SyntaxError, ValueError):
            refuse(f"{what} is not an expression: {text}{self._stray_option(text)}")

    def _stray_option(self, text: str) -> str:
        """Give the tail of a message about a short option that is not one here."""
        found = re.search(r"(?<!\S)-[A-Za-z](?!\S)", text)
        if found is None:
            return ""
        word = found.group()
        if word in OPTIONS:
            return f" ({word} is for {' and '.join(OPTIONS[word].magics)} only)"
        return f" (unknown option {word}; known are {', '.join(words_of(self._magic))})"
