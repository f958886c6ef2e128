"""Reading heads and bodies from a connection, whatever is sent: bounded in size, exact in length."""

import http.client
import re
from collections.abc import Callable
from email.message import Message
from io import BufferedIOBase

from golem_magic.master.jobs import Refused

MAX_HEAD_BYTES = 1 << 16
MAX_BODY_BYTES = 1 << 28
MAX_DRAINED_BYTES = 1 << 26
PIECE_BYTES = 1 << 20
LENGTH = re.compile("[0-9]{1,18}")  # more digits than any number that is in its right mind


class Head:
    """The lines of one head, or of the trailers of a chunked body; stands in for the connection.

    Args:
        connection: To read from.
    """

    def __init__(self, connection: BufferedIOBase) -> None:
        self._connection = connection
        self._left = MAX_HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        """Read a line.

        Raises:
            http.client.LineTooLong: All lines together are too long.
            ConnectionAbortedError: The connection ended in the middle: the half of a request is none.
        """
        line = self._connection.readline(min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("head")  # noqa: EM101 - the class wants the name of what is too long
        if not line.endswith(b"\n") and len(line) < limit:
            raise ConnectionAbortedError
        return line


def read(connection: BufferedIOBase, headers: Message, progress: Callable[[], None]) -> bytes:
    """Read the body that belongs to these headers.

    Args:
        connection: To read from.
        headers: Of the request.
        progress: Called after every piece.

    Raises:
        Refused: 400 or 413; where the next request begins is not known then.
    """
    codings, lengths = (headers.get_all(name, []) for name in ("Transfer-Encoding", "Content-Length"))
    if not codings:
        return _exactly(connection, _length(lengths), progress)
    # Where there are two lengths, one is wrong, and what follows would be taken for another request.
    if lengths or [coding.lower() for coding in codings] != ["chunked"]:
        raise Refused(400, "a body is chunked or has a Content-Length")
    return _chunks(connection, progress)


def drain(connection: BufferedIOBase, headers: Message) -> bool:
    """Read an unwelcome body away: closing on unread bytes would destroy the answer.

    Returns:
        Whether another request can follow.
    """
    try:
        left = _length(headers.get_all("Content-Length", []))
    except Refused:
        return False
    if left > MAX_DRAINED_BYTES or "Transfer-Encoding" in headers:
        return False
    while left > 0 and (piece := connection.read(min(PIECE_BYTES, left))):
        left -= len(piece)
    return left == 0


def _length(lengths: list[str]) -> int:
    if not lengths:
        return 0
    if len(lengths) > 1 or not LENGTH.fullmatch(lengths[0].strip()):
        raise Refused(400, "Content-Length must be one whole number")
    return int(lengths[0])


def _exactly(connection: BufferedIOBase, length: int, progress: Callable[[], None]) -> bytes:
    if length > MAX_BODY_BYTES:
        raise Refused(413, f"more than {MAX_BODY_BYTES} bytes")
    body = bytearray()
    while len(body) < length:
        piece = connection.read(min(PIECE_BYTES, length - len(body)))
        if not piece:
            raise Refused(400, "unexpected EOF")
        body += piece
        progress()
    return bytes(body)


def _chunks(connection: BufferedIOBase, progress: Callable[[], None]) -> bytes:
    body = bytearray()
    while length := _chunk_length(connection):
        if len(body) + length > MAX_BODY_BYTES:
            raise Refused(413, f"more than {MAX_BODY_BYTES} bytes")
        body += _exactly(connection, length, progress)
        if connection.readline(3).strip():
            raise Refused(400, "bad chunked body")
    trailers = Head(connection)
    try:
        while trailers.readline(MAX_HEAD_BYTES).strip():
            pass
    except http.client.LineTooLong as error:
        raise Refused(400, "the trailers are too long") from error
    return bytes(body)


def _chunk_length(connection: BufferedIOBase) -> int:
    digits = connection.readline(100).partition(b";")[0].strip()
    if not re.fullmatch(rb"[0-9a-fA-F]{1,8}", digits):
        raise Refused(400, "bad chunked body")
    return int(digits, 16)
