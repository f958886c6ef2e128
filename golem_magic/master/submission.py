"""Reading a submission: the multipart body, and the list of command lines inside it."""

import json
import os
from collections.abc import Sequence
from email.message import Message
from email.parser import BytesParser
from typing import Any

from golem_magic.master.jobs import Line, Refused


def lines_of_request(content_type: str, body: bytes) -> list[Line]:
    """Give the command lines of a ``POST /jobs/``.

    Stricter than the original server where that one crashed, hung or lost a worker: a missing
    ``jsonfile``, an empty ``Args`` and a negative ``Count`` are refused.

    Raises:
        Refused: 400 with the reason.
    """
    return _lines(_json_file(content_type, body))


def _json_file(content_type: str, body: bytes) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise Refused(400, "request Content-Type isn't multipart/form-data")
    mark = b"--" + boundary.encode("latin-1", "replace")
    pieces = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise Refused(400, "unexpected EOF")
    for piece in pieces[1:-1]:
        head, _, content = piece.partition(b"\r\n\r\n")
        part = BytesParser().parsebytes(head.lstrip() + b"\r\n\r\n", headersonly=True)
        named = part.get_param("name", header="content-disposition")
        if named == "jsonfile" and part.get_filename() is not None:
            return content
    raise Refused(400, "no file part named jsonfile (it needs a filename, too)")


def _lines(text: bytes) -> list[Line]:
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"jsonfile is not JSON: {error}") from error
    if rows is None:
        return []
    if not isinstance(rows, list):
        raise Refused(400, f"jsonfile must hold a list of lines, not {type(rows).__name__}")
    return [_line(position, row) for position, row in enumerate(rows)]


def _line(position: int, row: Any) -> Line:
    if not isinstance(row, dict):
        raise Refused(400, f"line {position} must be an object, not {type(row).__name__}")
    # The original decoder does not mind how the keys are capitalized.
    fields = {key.lower(): value for key, value in row.items()}
    count, args = fields.get("count", 0), fields.get("args") or []
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise Refused(400, f"line {position}: Count must be a whole number >= 0")
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args):
        raise Refused(400, f"line {position}: Args must be a list of strings")
    if count and not _is_command(args):
        raise Refused(400, f"line {position}: Args must name a program, in text that a system can pass on")
    return Line(count, tuple(args))


def _is_command(args: Sequence[str]) -> bool:
    """Whether it can be started at all; what cannot be is not even tried, for the sake of other tasks."""
    if not args or not args[0] or any("\0" in arg for arg in args):
        return False
    try:
        os.fsencode("".join(args))
    except UnicodeEncodeError:  # half of a surrogate pair, other than those that stand for a byte
        return False
    return True
