"""How the Golem double reads: HTTP, multipart and JSON, with the faults in Go's words."""

import contextlib
import json
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import BytesParser
from io import BufferedIOBase
from typing import Any
from urllib.parse import unquote

from fakes.golem_double_cluster import Lines

TLS_HANDSHAKE = b"\x16"
BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Connection: close\r\n\r\n400 Bad Request"
)


PLAIN_TO_TLS = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"


class GoError(Exception):
    """A request that the real master refuses, with its text."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class HandlerCrash(Exception):  # noqa: N818 - names what happens to the real one
    """The handler of the real master crashes: the connection is closed, with half an answer or none."""

    def __init__(self, half: bytes = b"") -> None:
        super().__init__()
        self.half = half


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])


# --- the way in and out ---


class Server(socketserver.ThreadingTCPServer):
    """Passes whole requests to ``answer`` and its bytes back, connections kept alive.

    Args:
        answer: May raise :class:`HandlerCrash` to close the connection without an answer.
        tls: Speaks TLS with it; None speaks plain HTTP.
        port: Where to listen; 0 for any.
    """

    allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self, answer: Callable[[Request], bytes], tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        self.answer = answer
        self._tls = tls
        self._connections: set[socket.socket] = set()
        self._is_closing = False
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Connection)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; with TLS, greet first."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        self.note(request, is_open=True)
        try:
            if request.recv(1, socket.MSG_PEEK) not in (TLS_HANDSHAKE, b""):
                request.recv(65_536)
                request.sendall(PLAIN_TO_TLS)
                return
            with self._tls.wrap_socket(request, server_side=True) as secure:
                super().finish_request(secure, client_address)
        except OSError:
            pass  # the client did not like what it saw
        finally:
            self.note(request, is_open=False)

    def note(self, connection: socket.socket, *, is_open: bool) -> None:
        with self._lock:
            (self._connections.add if is_open else self._connections.discard)(connection)
            if is_open and self._is_closing:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def break_connections(self) -> None:
        """End them all, those too that are just being accepted."""
        with self._lock:
            self._is_closing = True
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the other side was quicker
                    connection.shutdown(socket.SHUT_RDWR)


class _Connection(socketserver.StreamRequestHandler):
    server: Server
    disable_nagle_algorithm = True

    def handle(self) -> None:
        self.server.note(self.connection, is_open=True)
        try:
            while request := read_request(self.rfile, self.wfile):
                self.wfile.write(self.server.answer(request))
        except HandlerCrash as crash:
            with contextlib.suppress(OSError):
                self.wfile.write(crash.half)
        except OSError:
            pass  # a client that went away
        finally:
            self.server.note(self.connection, is_open=False)


def read_request(source: BufferedIOBase, sink: BufferedIOBase) -> Request | None:
    """The next request on a connection, None at its end."""
    first = source.read(1)
    if first == TLS_HANDSHAKE:
        sink.write(BAD_REQUEST)
        return None
    words = (first + source.readline()).decode("latin-1").split()
    if len(words) != 3:
        return None
    headers: dict[str, str] = {}
    while line := source.readline().rstrip(b"\r\n"):
        name, _, value = line.partition(b":")
        headers[name.decode("latin-1").lower()] = value.strip().decode("utf-8", "replace")
    if headers.get("expect", "").lower() == "100-continue":
        sink.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return Request(words[0], words[1], headers, _read_body(source, headers))


def _read_body(source: BufferedIOBase, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return source.read(int(headers.get("content-length", "0")))
    body = b""
    while size := int(source.readline().split(b";")[0] or b"0", 16):
        body += source.read(size)
        source.readline()
    source.readline()
    return body


# --- the submission ---


def read_jsonfile(request: Request) -> bytes:
    """The content of the file part ``jsonfile``.

    Raises:
        GoError: The body is not multipart, or ends early.
        HandlerCrash: There is no such part, or it has no file name.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.startswith("multipart/form-data"):
        raise GoError("request Content-Type isn't multipart/form-data")
    found = re.search(r'boundary="?([^";]+)', content_type)
    if not found:
        raise GoError("no multipart boundary param in Content-Type")
    delimiter = b"\r\n--" + found[1].encode()
    _, *parts = (b"\r\n" + request.body).split(delimiter)
    if not parts:
        raise GoError("multipart: NextPart: EOF")
    if not parts[-1].startswith(b"--"):
        raise GoError("unexpected EOF")
    for part in parts[:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        disposition = BytesParser().parsebytes(head + b"\r\n\r\n")
        name = disposition.get_param("name", header="content-disposition")
        if name == "jsonfile" and disposition.get_filename() is not None:
            return content
    raise HandlerCrash


def read_lines(content: bytes) -> Lines:
    """The submitted list as Go's decoder reads it: the first JSON value, keys in any case.

    Raises:
        GoError: It is no list of tasks.
    """
    tasks = _first_value(content.decode("utf-8", "replace").lstrip())
    if tasks is None:
        return []
    if not isinstance(tasks, list):
        raise GoError(f"json: cannot unmarshal {_kind(tasks)} into Go value of type []main.Task")
    return [_line(task) for task in tasks]


class _Float(str):
    """A number with a fraction, as written."""

    __slots__ = ()


def _first_value(text: str) -> Any:
    if not text:
        raise GoError("EOF")
    try:
        return json.JSONDecoder(parse_float=_Float).raw_decode(text)[0]
    except json.JSONDecodeError as error:
        if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg:
            raise GoError("unexpected EOF") from None
        message = f"invalid character {text[error.pos]!r} looking for beginning of value"
        raise GoError(message) from None


def _line(task: Any) -> tuple[int, list[str]]:
    if task is None:
        return 0, []
    if not isinstance(task, dict):
        raise GoError(f"json: cannot unmarshal {_kind(task)} into Go value of type main.Task")
    fields = {key.lower(): value for key, value in task.items()}
    count, args = fields.get("count"), fields.get("args")
    if count is not None and (isinstance(count, bool) or not isinstance(count, int)):
        raise GoError(f"json: cannot unmarshal {_literal(count)} into Go struct field Task.Count of type int")
    if args is not None and not isinstance(args, list):
        raise GoError(f"json: cannot unmarshal {_kind(args)} into Go struct field Task.Args of type []string")
    for arg in args or []:
        if arg is not None and (isinstance(arg, _Float) or not isinstance(arg, str)):
            message = f"json: cannot unmarshal {_kind(arg)} into Go struct field Task.Args of type string"
            raise GoError(message)
    return count or 0, [arg or "" for arg in args or []]


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() | _Float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _literal(value: Any) -> str:
    return f"number {value}" if isinstance(value, _Float) else _kind(value)
