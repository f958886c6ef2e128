"""What the magics' lines say, and which function a cell defines. Pure: nothing is run here."""

from golem_magic.cells.commands import Command, command_options, command_words, parse_command
from golem_magic.cells.functions import function_in_cell
from golem_magic.cells.lines import MapLine, expects_function, parse_cell_line, parse_map_line
from golem_magic.cells.options import LineOptions, choices_of, help_on, nearest, words_of
from golem_magic.cells.places import Place, parse_place

__all__ = [
    "Command",
    "LineOptions",
    "MapLine",
    "Place",
    "choices_of",
    "command_options",
    "command_words",
    "expects_function",
    "function_in_cell",
    "help_on",
    "nearest",
    "parse_cell_line",
    "parse_command",
    "parse_map_line",
    "parse_place",
    "words_of",
]
