"""A server that answers like the real Golem master, byte for byte, quirks included.

Judged by recorded exchanges (``tests/golem-transcripts``). Written on a raw socket server so
that order and form of the headers are Go's. The jobs really run, as child processes.
"""

import json
import posixpath
import random
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, Self

from fakes.golem_double_cluster import Cluster
from fakes.golem_double_go import GoError, HandlerCrash, Request, Server, read_jsonfile, read_lines

FaultKind = Literal[
    "hang",
    "close",
    "half-head",
    "half-body",
    "400",
    "409",
    "500",
    "garbage",
    "truncated",
    "listing",
    "html",
    "elsewhere",
    "moved",
    "away",
    "numbers",
    "nested",
    "page-500",
]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    def as_bytes(self, *, with_body: bool = True) -> bytes:
        """The handler's headers in alphabetical order, then what Go's server adds."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in sorted(self.headers.items())]
        lines.append(f"Date: {formatdate(usegmt=True)}")
        if "Content-Length" not in self.headers:
            lines.append(f"Content-Length: {len(self.body)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        return head + self.body if with_body else head


@dataclass
class Fault:
    """Misbehaviour to show to the next ``times`` requests that begin with ``prefix``.

    Attributes:
        kind: What to answer instead.
        prefix: Method and path, such as ``POST /jobs/``.
        after_work: Whether the request is carried out first, so that only its answer is lost.
    """

    kind: FaultKind
    prefix: str = ""
    times: int = 1
    after_work: bool = False


@dataclass
class GolemDouble:
    """A Golem master on a free port of this machine, with nodes that run commands.

    Attributes:
        folder: Log files are written to ``master`` in it, nodes work in ``golem_NN``.
        password: Empty checks nothing.
        slots: One node for each number.
        content: Whether ``/output/`` is served (the master's contentDirectory).
        environment: Of the tasks; None for this process's own.
        tls: Speaks TLS with it; None speaks plain HTTP.
        is_old: Writes what masters before May 2013 wrote, and no log.
        stops_ignored: So many stops to come are answered 200 and ignored.
        stops_refused: So many stops to come are answered 417.
        lie: Changes what is said of a job, as long as it is set.
        seen: Method and path of every request, in order.
    """

    folder: Path
    password: str = "test"
    slots: tuple[int, ...] = (2,)
    content: bool = True
    environment: dict[str, str] | None = None
    tls: ssl.SSLContext | None = None
    is_old: bool = False
    stops_ignored: int = 0
    stops_refused: int = 0
    lie: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    faults: list[Fault] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.folder, self.environment, is_old=self.is_old)
        for slots in self.slots:
            self.cluster.add_node(slots)
        self.closing = threading.Event()
        self._listen(0)

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, break all connections, end all tasks. Closing twice is harmless."""
        if self.closing.is_set():
            return
        self.closing.set()
        self.go_away()
        self.cluster.close()

    def go_away(self) -> None:
        """Stop listening and break all connections, as a machine that restarts. The nodes work on."""
        self._server.shutdown()
        self._server.break_connections()
        self._server.server_close()
        self._thread.join()

    def come_back(self) -> None:
        """Listen again, at the same address."""
        self._listen(self._server.server_address[1])

    def _listen(self, port: int) -> None:
        self._server = Server(self.answer, self.tls, port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="golem-double")
        self._thread.start()

    def restart(self, *, zombies: bool = False) -> None:
        """As a new master in the same directory: no job is known; its old workers may be zombies."""
        self.cluster.forget_jobs()
        if zombies:
            self.cluster.make_zombies()

    def answer(self, request: Request) -> bytes:
        """The bytes to send back.

        Raises:
            HandlerCrash: Close the connection instead.
        """
        self.seen.append(f"{request.method} {request.path}")
        fault = self._next_fault(request)
        if fault is None:
            return self._honest(request)
        if fault.after_work:
            self._honest(request)
        return self._faulty(fault.kind)

    def _next_fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and f"{request.method} {request.path}".startswith(fault.prefix):
                fault.times -= 1
                return fault
        return None

    def _faulty(self, kind: FaultKind) -> bytes:
        if kind == "hang":
            self.closing.wait()
        if kind in ("hang", "close"):
            raise HandlerCrash
        whole = FALSE_REPLIES[kind].as_bytes()
        if kind in ("half-head", "half-body"):
            raise HandlerCrash(whole[:9] if kind == "half-head" else whole[:-9])
        return whole

    def _honest(self, request: Request) -> bytes:
        try:
            reply = self._routed(request)
        except GoError as error:
            reply = failure(error.status, str(error))
        return reply.as_bytes(with_body=request.method != "HEAD")

    # --- routes ---

    def _routed(self, request: Request) -> Reply:
        path = _cleaned(request.path)
        if path in ("/jobs", "/nodes"):
            path += "/"
        if path != request.path:
            return _redirect(request, 301, path)
        if path.startswith("/jobs/"):
            return self._at(request, self._get_job, self._post_job)
        if path.startswith("/nodes/"):
            return self._at(request, self._get_node, self._post_node)
        if not self.content:
            return failure(404, "404 page not found")
        if path.startswith("/output/"):
            name = path.removeprefix("/output/")
            return serve_file(self.cluster.output / name, request.headers.get("range"))
        if path == "/html/index.html":
            return Reply(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Golem</html>\n")
        return _redirect(request, 307, "/html/index.html")

    def _at(
        self,
        request: Request,
        get: Callable[[str], Reply],
        post: Callable[[Request, list[str]], Reply],
    ) -> Reply:
        rest = request.path.split("/", 2)[2]
        if request.method == "GET":
            return get(rest)
        if request.method != "POST":
            return failure(501, "501 Not Implemented")
        if self.password and request.headers.get("x-golem-apikey") != self.password:
            return failure(403, "api key required in header")
        return post(request, rest.split("/"))

    def _get_job(self, job_id: str) -> Reply:
        with self.cluster.lock:
            if not job_id:
                return _listing([job.as_json() for job in self.cluster.jobs.values()])
            if job_id in self.cluster.jobs:
                told: dict[str, Any] = self.cluster.jobs[job_id].as_json()
                return _json_reply(to_go_json(self.lie(told) if self.lie else told))
        return failure(404, f"job {job_id} not found")

    def _post_job(self, request: Request, parts: list[str]) -> Reply:
        if parts == [""]:
            return self._submit(request)
        if len(parts) == 1:
            return failure(400, "POST /jobs/id/stop or POST /jobs/id/kill")
        with self.cluster.lock:
            job = self.cluster.jobs.get(parts[0])
            if job is None:
                return failure(404, f"job {parts[0]} not found")
            match parts[1]:
                case "stop":
                    return self._stop(job.id)
                case "kill":
                    self.cluster.kill(job)
                case "archive" if job.state != "COMPLETE":
                    return failure(409, f"unable to archive:{job.id}:{job.as_go_dump()}")
                case "archive":
                    pass  # it would vanish after 900 s: no test lasts as long
                case _:
                    return failure(501, request.path)
        return _json_reply(b"")

    def _stop(self, job_id: str) -> Reply:
        if self.stops_refused > 0:
            self.stops_refused -= 1
            return failure(417, "unable to stop")
        if self.stops_ignored > 0:
            self.stops_ignored -= 1
        else:
            self.cluster.stop(self.cluster.jobs[job_id])
        return _json_reply(b"")

    def _submit(self, request: Request) -> Reply:
        lines = read_lines(read_jsonfile(request))
        names = ("preassigned-id", "owner", "label", "type")
        job_id, owner, label, kind = (request.headers.get(f"x-golem-job-{name}", "") for name in names)
        job = self.cluster.new_job(job_id, owner, label, kind, lines)
        picture = self.cluster.create(job)
        if picture is None:
            return failure(409, f"job already exists: {job.id}")
        return _json_reply(to_go_json(picture))

    def _get_node(self, node_id: str) -> Reply:
        with self.cluster.lock:
            if not node_id:
                return _listing([node.as_json() for node in self.cluster.nodes.values()])
            if node_id in self.cluster.nodes:
                return _json_reply(to_go_json(self.cluster.nodes[node_id].as_json()))
        return failure(404, f"node {node_id} not found")

    def _post_node(self, request: Request, parts: list[str]) -> Reply:
        match parts:
            case ["restart"]:
                self.restart(zombies=True)
            case ["die"]:
                for node in list(self.cluster.nodes.values()):
                    self.cluster.lose_node(node)
            case [_] | [_, "resize"]:
                raise HandlerCrash
            case [node_id, "resize", number, *_]:
                if not re.fullmatch(r"[+-]?[0-9]+", number):
                    return failure(400, f'strconv.Atoi: parsing "{number}": invalid syntax')
                if node_id not in self.cluster.nodes:
                    return failure(404, f"node {node_id} not found")
                self.cluster.resize(self.cluster.nodes[node_id], int(number))
            case _:
                pass  # any other action is accepted and does nothing
        return _json_reply(b"")


def _cleaned(path: str) -> str:
    """As Go's router does: dots and double slashes resolved, a trailing slash kept."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


def _redirect(request: Request, status: int, target: str) -> Reply:
    if request.method not in ("GET", "HEAD"):
        return Reply(status, {"Location": target}, b"")
    body = f'<a href="{target}">{HTTPStatus(status).phrase}</a>.\n\n'.encode()
    return Reply(status, {"Content-Type": "text/html; charset=utf-8", "Location": target}, body)


def failure(status: int, text: str, headers: dict[str, str] | None = None) -> Reply:
    """Plain text, as Go's ``http.Error`` writes it."""
    plain = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
    return Reply(status, plain | (headers or {}), f"{text}\n".encode())


def _json_reply(body: bytes) -> Reply:
    return Reply(200, {"Content-Type": "application/json"}, body)


def _listing(items: list[dict[str, object]]) -> Reply:
    """The real one walks a Go map: another order at every call."""
    shuffled = random.sample(items, len(items))
    return _json_reply(to_go_json({"Items": shuffled, "NumberOfItems": len(items)}))


def to_go_json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return f"{text}\n".encode()


def serve_file(path: Path, byte_range: str | None) -> Reply:
    """A plain file with ``Range``, as Go's file server gives it."""
    if not path.is_file():
        return failure(404, "404 page not found")
    content = path.read_bytes()
    modified = formatdate(path.stat().st_mtime, usegmt=True)
    headers = {"Content-Type": "text/plain; charset=utf-8", "Last-Modified": modified}
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", byte_range or "")
    if not match:
        return Reply(200, headers | {"Accept-Ranges": "bytes", "Content-Length": str(len(content))}, content)
    first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
    if first >= len(content):
        return failure(
            416, "invalid range: failed to overlap", headers | {"Content-Range": f"bytes */{len(content)}"}
        )
    part = content[first : last + 1]
    headers |= {
        "Accept-Ranges": "bytes",
        "Content-Length": str(len(part)),
        "Content-Range": f"bytes {first}-{last}/{len(content)}",
    }
    return Reply(206, headers, part)


FALSE_REPLIES: dict[FaultKind, Reply] = {
    "400": failure(400, "unexpected EOF"),
    "409": failure(409, "job already exists: x"),
    "listing": _json_reply(b'{"Items":[],"NumberOfItems":0}\n'),
    "away": Reply(307, {"Location": "/html/index.html"}, b""),
    "500": failure(500, "internal trouble"),
    "garbage": _json_reply(b"\x00\xff{]"),
    "half-head": _json_reply(b'{"Items":[],"NumberOfItems":0}'),
    "half-body": _json_reply(b'{"Items":[],"NumberOfItems":0}'),
    "truncated": _json_reply(b'{"JobId":"x'),
    "numbers": _json_reply(b'{"JobId":7,"Progress":[1,2,3],"State":null,"Items":{"a":1}}'),
    "nested": _json_reply(b"[" * 100_000),
    "page-500": Reply(500, {"Content-Type": "text/html"}, b"<html>oh\n<b>no</b></html>"),
    "html": Reply(200, {"Content-Type": "text/html"}, b"<html>Hello</html>"),
    "elsewhere": failure(404, "no such page on this web server"),
    "moved": Reply(301, {"Location": "/jobs/"}, b""),
}
