"""A TCP proxy before a Golem master that keeps every byte of the client, and can refuse to serve."""

import contextlib
import email
import json
import select
import socket
import threading
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Part:
    """One part of a form."""

    name: str
    filename: str | None
    content: bytes


@dataclass(frozen=True)
class Seen:
    """One request, as it went over the wire; names of headers in small letters."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def parts(self) -> list[Part]:
        """The parts of the form that the body holds."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode("latin-1")
        form = email.message_from_bytes(head + self.body)
        assert form.get_content_type() == "multipart/form-data"
        assert not form.defects
        found = []
        for part in form.get_payload():
            assert isinstance(part, email.message.Message)
            name, content = (
                part.get_param("name", header="content-disposition"),
                part.get_payload(decode=True),
            )
            assert isinstance(name, str)
            assert isinstance(content, bytes)
            found.append(Part(name, part.get_filename(), content))
        return found

    @property
    def lines(self) -> Any:
        """The lines of a submission: what the part ``jsonfile`` says."""
        (content,) = (part.content for part in self.parts if part.name == "jsonfile")
        return json.loads(content)


class RecordingProxy:
    """Hands bytes to and fro between clients and the server at ``target``; keeps the clients' bytes.

    Attributes:
        url: Where to connect instead of ``target``.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._said: list[bytearray] = []
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()

    def refuse(self) -> None:
        """Break all connections and refuse new ones from now on. Twice is harmless."""
        self._over.set()
        self._threads[0].join()
        for each in (each for pair in self._pairs for each in pair):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def seen(self) -> list[Seen]:
        """All whole requests so far, those of one connection in order."""
        return [request for said in list(self._said) for request in _parsed(bytes(said))]

    @property
    def submissions(self) -> list[Seen]:
        """The requests that submit a job."""
        return [request for request in self.seen if (request.method, request.path) == ("POST", "/jobs/")]

    def _start(self, run: Any, *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, name="recording-proxy")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with self._listener:
            while not self._over.is_set():
                if select.select([self._listener], [], [], 0.02)[0]:
                    client, _ = self._listener.accept()
                    self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        said = bytearray()
        self._said.append(said)
        self._pairs.append((client, server))
        self._start(self._carry, client, server, said)

    @staticmethod
    def _carry(client: socket.socket, server: socket.socket, said: bytearray) -> None:
        """Both directions, until one side has no more to say."""
        with client, server, contextlib.suppress(OSError):
            while True:
                for source in select.select([client, server], [], [])[0]:
                    piece = source.recv(1 << 16)
                    if not piece:
                        return
                    if source is client:
                        said += piece  # before it is handed on: whoever saw the effect finds the cause
                        server.sendall(piece)
                    else:
                        client.sendall(piece)


def _parsed(said: bytes) -> list[Seen]:
    requests = []
    while b"\r\n\r\n" in said:
        head, _, rest = said.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            break
        requests.append(Seen(method, path, headers, rest[:length]))
        said = rest[length:]
    return requests
