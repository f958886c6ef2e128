"""The recorded exchanges with a real Golem master: reading, sending again, comparing.

What may differ is what differs between two runs of the real one: ``Date`` and ``Last-Modified``,
ids drawn by the server, time stamps and the ``Content-Length`` that follows from them, the order
of ``Items`` and of lines written by tasks that ran side by side.
"""

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

RECORDINGS = sorted((Path(__file__).parents[1] / "golem-transcripts").glob("*.http"))
STAMP = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? \+0000 UTC m=\+\d+\.\d{9}")
RANDOM_ID = re.compile(rb"\b[0-9a-f]{32}\b")
DATE = re.compile(rb"(?m)^(Date|Last-Modified): \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r$")

Exchange = tuple[bytes | None, bytes | None]


def read_recording(path: Path) -> tuple[bytes, bytes | None]:
    """Request and response; None where the connection was closed without one."""
    _, _, rest = path.read_bytes().partition(b">>> request\n")
    request, _, response = rest.rpartition(b"\n<<< ")
    if response.startswith(b"(connection closed"):
        return request, None
    return request, response.removeprefix(b"response\n").removesuffix(b"\n")


def send(url: str, request: bytes) -> bytes | None:
    """Send these bytes on a connection of their own; None if it is closed without an answer."""
    probe = b"GET /jobs/probe HTTP/1.1\r\nHost: localhost:1\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=10) as connection,
        connection.makefile("rb") as source,
    ):
        connection.sendall(request)
        if not source.peek(1):
            return None
        head = b"".join(iter(source.readline, b"\r\n"))
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        body = b"" if request.startswith(b"HEAD") else source.read(int(length[1]))
        # The next answer on the same connection follows at once: the length was true.
        connection.sendall(probe)
        assert source.readline() == b"HTTP/1.1 404 Not Found\r\n"
        return head + b"\r\n" + body


def comparable(response: bytes | None) -> bytes | None:
    """The response with everything made equal that differs between two runs of the real one."""
    if response is None:
        return None
    head, _, body = DATE.sub(rb"\1: <date>\r", response).partition(b"\r\n\r\n")
    if STAMP.search(body):
        head = re.sub(rb"Content-Length: \d+", b"Content-Length: <length>", head)
    body = RANDOM_ID.sub(b"<id>", STAMP.sub(b"<time>", body))
    if body.startswith(b'{"Items":[{'):
        start, end = len(b'{"Items":[{'), body.rindex(b"}]")
        body = body[:start] + b"},{".join(sorted(body[start:end].split(b"},{"))) + body[end:]
    if b"Last-Modified" in head:
        body = b"\n".join(sorted(body.split(b"\n")))
    return head + b"\r\n\r\n" + body
