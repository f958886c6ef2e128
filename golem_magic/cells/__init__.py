"""What the magics' lines say, and which function a cell defines. Pure: nothing is run here."""

from golem_magic.cells.functions import function_in_cell
from golem_magic.cells.lines import (
    Command,
    MapLine,
    command_words,
    expects_function,
    parse_cell_line,
    parse_command,
    parse_map_line,
)
from golem_magic.cells.options import LineOptions, choices_of, words_of

__all__ = [
    "Command",
    "LineOptions",
    "MapLine",
    "choices_of",
    "command_words",
    "expects_function",
    "function_in_cell",
    "parse_cell_line",
    "parse_command",
    "parse_map_line",
    "words_of",
]
