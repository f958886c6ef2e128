"""The REST side of the embedded Golem: requests in, answers out, one send each."""

import email.utils
import hmac
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from golem_magic.master import bodies
from golem_magic.master.clients import Clients
from golem_magic.master.connections import Connections
from golem_magic.master.jobs import Job, Refused
from golem_magic.master.slots import Slots
from golem_magic.master.submission import lines_of_request

PASSWORD_HEADER = "x-golem-apikey"
# Used as file names and in URLs, so nothing else is let in.
SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
OUTPUT_NAME = re.compile(rf"(?:{SAFE_ID.pattern})\.(?:out|err|log)\.txt")
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost"})
PIECE_BYTES = 1 << 20
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
NOT_A_PAGE = "X-Content-Type-Options: nosniff\r\n"  # a browser must not take our text for html


class MasterServer(ThreadingHTTPServer):
    """Listens on loopback and answers each connection in a thread.

    Args:
        port: 0 chooses a free one.
        slots: The jobs.
        clients: The processes that keep this master alive.
        password: Needed for every change.
        is_open_to_read: Whether reading needs no password, as original clients expect.
        leave: Called when a request wants the master to end.
    """

    daemon_threads = True
    request_queue_size = 1024  # one more than fits would wait for a second

    def __init__(
        self,
        port: int,
        slots: Slots,
        clients: Clients,
        *,
        password: str,
        is_open_to_read: bool,
        leave: Callable[[], None],
    ) -> None:
        self.slots = slots
        self.clients = clients
        self.leave = leave
        self.connections = Connections()
        self._password = password.encode()
        self._is_open_to_read = is_open_to_read
        self.hostname = socket.gethostname()
        self.node_id = secrets.token_hex(16)
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def server_bind(self) -> None:
        """Bind without asking the name service who we are, which can take seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread, if there are not too many already."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Between two connections, and every now and then."""
        self.connections.drop_late()

    def trusts(self, password: str | None) -> bool:
        """Whether this is the password."""
        return password is not None and hmac.compare_digest(password.encode("latin-1"), self._password)

    def is_open_to(self, method: str, host: str) -> bool:
        """Whether the request may be served without a password.

        A page in a browser could read through a name that resolves to loopback; so the name
        asked for must be loopback's own.
        """
        is_reading = method in ("GET", "HEAD")
        return self._is_open_to_read and is_reading and host.rpartition(":")[0] in LOOPBACK_NAMES

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news; anything else goes to the log."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: MasterServer

    def do_GET(self) -> None:
        """Read something."""
        self._serve()

    def do_HEAD(self) -> None:
        """Look at an output file."""
        self._serve()

    def do_POST(self) -> None:
        """Change something."""
        self._serve()

    def do_PUT(self) -> None:
        """Nothing can be put."""
        self._serve()

    def do_DELETE(self) -> None:
        """Nothing can be deleted."""
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the base class's
        """Requests are not logged: a poll ten times a second would fill the disk."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that cannot be read at all."""
        del explain
        self.close_connection = True
        self._answer(code, message or HTTPStatus(code).phrase)

    def parse_request(self) -> bool:
        """Read a head, of bounded size; False if it was answered with an error."""
        rfile = self.rfile
        self.rfile = bodies.Head(rfile)  # type: ignore[assignment]  # only lines are read of it
        try:
            return super().parse_request()
        finally:
            self.rfile = rfile

    def _serve(self) -> None:
        if self.server.slots.is_retired:
            self.close_connection = True  # unanswered, as if we were gone already
            return
        try:
            self._answer_request()
        finally:
            self._hear(is_trusted=False)

    def _answer_request(self) -> None:
        try:
            self._authorize()
            self._route()
        except Refused as refused:
            self._answer(refused.status, refused.text, extra=f"{refused.extra}{NOT_A_PAGE}")
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            self._answer(500, f"{error.strerror}: {error.filename}")

    def _authorize(self) -> None:
        is_trusted = self.server.trusts(self.headers.get(PASSWORD_HEADER))
        self._hear(is_trusted=is_trusted)
        if is_trusted:
            return
        # Nobody else fills our memory.
        self.close_connection = not bodies.drain(self.rfile, self.headers) or self.close_connection
        del self.headers["Content-Length"], self.headers["Transfer-Encoding"]
        if not self.server.is_open_to(self.command, self.headers.get("Host", "")):
            raise Refused(403, "api key required in header")

    def _route(self) -> None:
        path = self.path.partition("?")[0]
        body = self._body()
        kind, *rest = path.lstrip("/").split("/")
        if not rest and kind in ("jobs", "nodes"):
            self._answer(301, "Moved Permanently", extra=f"Location: /{kind}/\r\n")
            return
        match (self.command, kind, rest):
            case ("GET", "jobs" | "nodes", _):
                self._answer_json(self._read(kind, rest))
            case ("POST", "leave", []):
                self.server.clients.dismiss()
                self._answer(200, "", JSON)
            case ("GET" | "HEAD", "output", [name]):
                self._answer_file(name)
            case ("POST", "jobs", [""]):
                self._answer_json(self._submit(body))
            case ("POST", "jobs" | "nodes" | "clients", _):
                self._act(kind, rest)
                self._answer(200, "", JSON)
            case (_, "jobs" | "nodes", _):
                raise Refused(501, "501 Not Implemented")
            case _:
                raise Refused(404, "404 page not found")

    # --- reading ---

    def _read(self, kind: str, rest: list[str]) -> object:
        name = "/".join(rest)
        if kind == "jobs":
            return _listing(self.server.slots.jobs()) if not name else self.server.slots.job(name)
        node = self._node()
        if not name:
            return _listing([node])
        if name != node["NodeId"]:
            raise Refused(404, f"node {name} not found")
        return node

    def _node(self) -> dict[str, object]:
        slots, node_id = self.server.slots, self.server.node_id
        return {
            "NodeId": node_id,
            "Uri": f"/nodes/{node_id}",
            "Hostname": f"http://{self.server.hostname}",
            "MaxJobs": slots.n_slots,
            "RunningJobs": slots.n_running,
            "Running": slots.n_running > 0,
        }

    def _answer_file(self, name: str) -> None:
        if not OUTPUT_NAME.fullmatch(name):
            raise Refused(404, "404 page not found")
        slots = self.server.slots
        slots.collect_output(name.partition(".")[0])
        try:
            file = (slots.output.folder / name).open("rb")
        except FileNotFoundError as error:
            raise Refused(404, "404 page not found") from error
        with file:
            status = os.fstat(file.fileno())
            extra = f"Last-Modified: {email.utils.formatdate(status.st_mtime, usegmt=True)}\r\n"
            begin, end = _range(self.headers.get("Range", ""), status.st_size)
            if begin >= end and status.st_size > 0:
                extra += f"Content-Range: bytes */{status.st_size}\r\n"
                raise Refused(416, "invalid range: failed to overlap", extra)
            is_part = (begin, end) != (0, status.st_size)
            extra += "Accept-Ranges: bytes\r\n"
            if is_part:
                extra += f"Content-Range: bytes {begin}-{end - 1}/{status.st_size}\r\n"
            self.wfile.write(self._head(206 if is_part else 200, TEXT, end - begin, extra))
            file.seek(begin)
            while self.command == "GET" and begin < end:
                piece = file.read(min(PIECE_BYTES, end - begin))
                self.wfile.write(piece)
                self._hear()
                begin += len(piece)

    # --- changing ---

    def _submit(self, body: bytes) -> object:
        job_id = self._text_header("x-golem-job-preassigned-id") or secrets.token_hex(16)
        if not SAFE_ID.fullmatch(job_id):
            raise Refused(400, "a job id is 1 to 64 letters, digits, '-' or '_'")
        job = Job(
            job_id=job_id,
            label=self._text_header("x-golem-job-label") or job_id,
            owner=self._text_header("x-golem-job-owner") or "Anonymous",
            kind=self._text_header("x-golem-job-type") or "Unspecified",
            lines=lines_of_request(self.headers.get("Content-Type", ""), body),
        )
        return self.server.slots.submit(job)

    def _act(self, kind: str, rest: list[str]) -> None:
        match (kind, rest):
            case ("jobs", [job_id, action]):
                self._act_on_job(job_id, action)
            case ("jobs", [_]):
                raise Refused(400, "POST /jobs/id/stop or POST /jobs/id/kill")
            case ("nodes", ["die" | "restart"]):  # whoever needs us next starts us again
                self.server.leave()
            case ("nodes", [node_id, "resize", number]):
                self._resize(node_id, number)
            case ("nodes", [_] | [_, "resize"]):
                raise Refused(400, "POST /nodes/id/resize/number")
            case ("clients", [number]):
                self.server.clients.register(_whole(number))
            case _:
                raise Refused(501, self.path)

    def _act_on_job(self, job_id: str, action: str) -> None:
        slots = self.server.slots
        actions = {"stop": slots.stop, "kill": slots.kill, "archive": slots.archive}
        if action not in actions:
            raise Refused(501, self.path)
        actions[action](job_id)

    def _resize(self, node_id: str, number: str) -> None:
        if node_id != self.server.node_id:
            raise Refused(404, f"node {node_id} not found")
        self.server.slots.resize(_whole(number))

    # --- HTTP ---

    def _text_header(self, name: str) -> str:
        """The value's bytes are UTF-8, though HTTP hands them on as Latin-1."""
        return self.headers.get(name, "").encode("latin-1", "replace").decode("utf-8", "replace")

    def _body(self) -> bytes:
        try:
            return bodies.read(self.rfile, self.headers, self._hear)
        except Refused:
            self.close_connection = True  # who knows where the next request begins
            raise

    def _hear(self, *, is_trusted: bool | None = None) -> None:
        self.server.connections.heard(self.connection, is_trusted=is_trusted)

    def _answer_json(self, value: object) -> None:
        self._answer(200, json.dumps(value, ensure_ascii=False, separators=(",", ":")), JSON)

    def _answer(self, status: int, text: str, content_type: str = TEXT, extra: str = "") -> None:
        content = f"{text}\n".encode("utf-8", "replace") if text else b""
        head = self._head(status, content_type, len(content), extra)
        self.wfile.write(head if self.command == "HEAD" else head + content)

    def _head(self, status: int, content_type: str, length: int, extra: str) -> bytes:
        closing = "Connection: close\r\n" if self.close_connection else ""
        return (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {length}\r\nDate: {self.date_time_string()}\r\n{closing}{extra}\r\n"
        ).encode("latin-1")


def _listing(items: list[dict[str, object]]) -> dict[str, object]:
    return {"Items": items, "NumberOfItems": len(items)}


def _whole(number: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,9}", number):
        raise Refused(400, f"not a number: {number}")
    return int(number)


def _range(header: str, size: int) -> tuple[int, int]:
    """Begin and end of the wanted bytes, which may be none; a form we do not know means the whole file."""
    wanted = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", header)
    if wanted is None or wanted[0] == "bytes=-" or size == 0:
        return 0, size
    if not wanted[1]:  # the last so many
        return max(0, size - int(wanted[2])), size
    return int(wanted[1]), min(size, int(wanted[2]) + 1) if wanted[2] else size
