"""The embedded Golem survives whatever is sent to it, and does nothing for whoever lacks the password."""

import contextlib
import os
import random
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from master.running_master import Master, is_running, multipart, running_master, wait_until

from golem_magic.master.connections import MOST, PATIENCE_S, Connections

LINES = b'[{"Count":1,"Args":["/bin/true"]}]'
FORM = b"Content-Type: multipart/form-data; boundary=B\r\n"
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "get", "FOO")
AWAY = (
    "..",
    ".",
    "../jobs",
    "..%2f..",
    "%2e%2e/%2e%2e",
    "%2e%2e%2fgolem.json",
    "..\\golem.json",
    "a\0b",
    "a%00",
    "/etc/passwd",
    "//etc/passwd",
    "...",
    "~",
    "x" * 65,
    "ä",
    "*",
    "golem.json",
    "../golem.json",
)
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


@dataclass
class Target:
    """A master and what it weighed when nothing had been sent yet."""

    master: Master
    log: Path
    weight: tuple[int, int]

    @property
    def pid(self) -> int:
        return self.master.process.pid

    @property
    def key(self) -> bytes:
        return f"x-golem-apikey: {self.master.password}\r\n".encode()

    def connect(self, timeout_s: float = 20.0) -> socket.socket:
        host, _, port = self.master.host.partition(":")
        return socket.create_connection((host, int(port)), timeout=timeout_s)

    def send(self, request: bytes) -> bytes:
        """Send bytes, and give all that comes back until the other side hangs up."""
        answer = b""
        with self.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(request)
            with contextlib.suppress(OSError):  # hung up already
                connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(1 << 16):
                answer += piece
        return answer

    def now(self) -> tuple[int, int]:
        """Threads and descriptors at this moment."""
        return len(os.listdir(f"/proc/{self.pid}/task")), len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_mib(self) -> float:
        """Memory that is its own, at this moment."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("RssAnon:")[2].split()[0]) / 1024

    def check_unharmed(self) -> None:
        """The same process does an ordinary job, holds no more than before, had nothing to complain of."""
        assert self.master.process.poll() is None
        assert self.master.node()["MaxJobs"] == 2
        job_id = self.master.submit((2, ["/bin/echo", "well"]))
        assert self.master.wait_for_end(job_id)["Status"] == "SUCCESS"
        assert len(self.master.output(job_id, "out")) == 2
        assert self.log.read_text() == ""
        if sys.platform == "linux":
            wait_until(self._is_light, f"back to {self.weight} threads and descriptors")

    def _is_light(self) -> bool:
        return all(now <= before for now, before in zip(self.now(), self.weight, strict=True))


@pytest.fixture
def target(state_dir: Path, tmp_path: Path) -> Iterator[Target]:
    log = tmp_path / "said"
    with running_master(state_dir, log=log) as master:
        master.wait_for_end(master.submit((1, ["/bin/true"])))
        here = Target(master, log, (0, 0))
        if sys.platform == "linux":
            here.weight = here.now()
        yield here


def statuses(answers: bytes) -> list[int]:
    """The statuses of all answers in these bytes."""
    return [int(part[:3]) for part in answers.split(b"HTTP/1.1 ")[1:]]


# --- without the password ---


@pytest.mark.meets("GM-05")
@pytest.mark.parametrize("options", [(), ("--open-reads",)], ids=["closed", "open-reads"])
def test_without_the_password_nothing_is_changed_by_any_method_on_any_path(
    state_dir: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    with running_master(state_dir, *options, log=tmp_path / "said") as master:
        target = Target(master, tmp_path / "said", (99, 99))
        job_id = master.submit((1, ["/bin/sh", "-c", "exec sleep 60"]))
        node, right = master.node()["NodeId"], str(master.password)
        paths = [
            "/",
            "/jobs",
            "/jobs/",
            f"/jobs/{job_id}",
            f"/jobs/{job_id}/kill",
            f"/jobs/{job_id}/stop",
            "/leave",
            f"/jobs/{job_id}/archive",
            "/nodes/",
            f"/nodes/{node}",
            f"/nodes/{node}/resize/9",
            "/nodes/die",
            "/nodes/restart",
            f"/clients/{os.getpid()}",
            f"/output/{job_id}.log.txt",
            f"/jobs/?x-golem-apikey={right}",
            f"http://{right}@localhost/leave",
            "*",
        ]
        wrongs = [
            "",
            "x-golem-apikey:\r\n",
            "x-golem-apikey: wrong\r\n",
            f"x-golem-apikey: {right[:-1]}\r\n",
            f"x-golem-apikey: {right}x\r\n",
            f"x-golem-apikey: {right.swapcase()}\r\n",
            f"Authorization: Bearer {right}\r\n",
            f"Cookie: x-golem-apikey={right}\r\n",
        ]
        body = multipart(LINES)
        for wrong in wrongs:
            requests = b"".join(
                f"{method} {path} HTTP/1.1\r\nHost: localhost:1\r\n{wrong}".encode()
                + FORM
                + b"Content-Length: %d\r\n\r\n" % len(body)
                + body
                for method in METHODS[:5]
                for path in paths
            )
            found = statuses(target.send(requests))
            assert len(found) == 5 * len(paths)
            n_reads = 2 * len(paths) if options else 0
            assert set(found[n_reads:]) == {403}, (wrong, set(found))
            for method in METHODS[5:]:
                assert statuses(target.send(f"{method} /leave HTTP/1.1\r\n{wrong}\r\n".encode())) == [501]

        job = master.job(job_id)
        assert (job["State"], job["Running"]) == ("RUNNING", 1)
        assert master.ask("GET", "/jobs/").json["NumberOfItems"] == 1
        assert master.ask("POST", f"/jobs/{job_id}/kill").status == 200
        master.wait_for_end(job_id)
        target.check_unharmed()


# --- names that try to get out ---


def test_no_path_and_no_id_leads_out_of_the_folder(target: Target) -> None:
    before = sorted(path for path in target.master.state.rglob("*") if path.parent.name != "tasks")
    requests = [
        b"GET /output/%b",
        b"GET /output/%b.out.txt",
        b"GET /output/../%b",
        b"GET /jobs/%b",
        b"GET /nodes/%b",
        b"HEAD /output/%b",
        b"GET /%b",
        b"POST /jobs/%b/kill",
        b"POST /jobs/%b/archive",
        b"POST /jobs/%b/%b",
        b"POST /nodes/%b/resize/9",
        b"POST /clients/%b",
        b"GET file://%b",
    ]
    form = b"POST /jobs/ HTTP/1.1\r\n" + target.key + FORM + b"Content-Length: %d\r\n" % len(multipart(LINES))

    for name in (away.encode("latin-1") for away in AWAY):
        asked = [line.replace(b"%b", name) + b" HTTP/1.1\r\n" + target.key + b"\r\n" for line in requests]
        asked.append(form + b"x-golem-job-preassigned-id: " + name + b"\r\n\r\n" + multipart(LINES))
        for request in asked:
            answer = target.send(request)
            assert all(400 <= status < 502 for status in statuses(answer)), (request, answer)
            assert str(target.master.password).encode() not in answer

    assert sorted(path for path in target.master.state.rglob("*") if path.parent.name != "tasks") == before
    assert target.log.read_text() == ""


# --- lengths and chunks ---

SMUGGLED = b"POST /nodes/die HTTP/1.1\r\n%b\r\n"
BODIES = {
    "too large": (b"Content-Length: 268435457", b"", 413),
    "absurd": (b"Content-Length: " + b"9" * 5000, b"", 400),
    "negative": (b"Content-Length: -5", b"", 400),
    "signed": (b"Content-Length: +5", b"hello", 400),
    "hexadecimal": (b"Content-Length: 0x10", b"", 400),
    "two": (b"Content-Length: 0\r\nContent-Length: 99", SMUGGLED, 400),
    "a list": (b"Content-Length: 0, 99", SMUGGLED, 400),
    "superscript": (b"Content-Length: \xb2", b"12", 400),
    "short": (b"Content-Length: 10", b"hello", 400),
    "chunks and a length": (b"Transfer-Encoding: chunked\r\nContent-Length: 0", SMUGGLED, 400),
    "another coding": (b"Transfer-Encoding: gzip, chunked", SMUGGLED, 400),
    "two codings": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", SMUGGLED, 400),
    "a chunk too large": (b"Transfer-Encoding: chunked", b"ffffffff\r\nx", 413),
    "a chunk's length": (b"Transfer-Encoding: chunked", b"-5\r\nhello\r\n0\r\n\r\n", 400),
    "a long chunk's length": (b"Transfer-Encoding: chunked", b"0" * 70_000, 400),
    "a torn chunk": (b"Transfer-Encoding: chunked", b"10\r\nhello", 400),
    "a chunk without end": (b"Transfer-Encoding: chunked", b"5\r\nhelloX0\r\n\r\n", 400),
    "endless trailers": (b"Transfer-Encoding: chunked", b"0\r\n" + b"a: b\r\n" * 20_000, 400),
}


@pytest.mark.meets("GM-05")
def test_bodies_of_no_clear_or_no_bearable_length_are_refused_and_nothing_in_them_is_a_request(
    target: Target,
) -> None:
    for name, (headers, body, status) in BODIES.items():
        content = body.replace(b"%b", target.key)
        head = b"POST /jobs/ HTTP/1.1\r\n" + FORM + headers + b"\r\n"

        answer = target.send(head + target.key + b"\r\n" + content)
        assert statuses(answer) in ([status], []), (
            name,
            answer,
        )  # [] where closing on unread bytes destroyed it
        answer = target.send(head + b"\r\n" + content)
        assert statuses(answer) in ([403], []), (name, answer)

    assert target.master.ask("GET", "/jobs/").json["NumberOfItems"] == 1
    target.check_unharmed()


def test_a_refused_length_is_told_with_its_reason(target: Target) -> None:
    head = b"POST /jobs/ HTTP/1.1\r\n" + target.key

    assert statuses(target.send(head + b"Content-Length: 268435457\r\n\r\n")) == [413]
    assert statuses(target.send(head + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n")) == [400]
    assert statuses(target.send(b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n")) in ([414], [])
    assert statuses(target.send(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 101 + b"\r\n")) == [431]
    assert statuses(target.send(b"GET / HTTP/1.1\r\n" + (b"a: " + b"b" * 9000 + b"\r\n") * 8 + b"\r\n")) in (
        [431],
        [],
    )


def test_half_a_head_is_no_request(target: Target) -> None:
    torn = b"POST /nodes/die HTTP/1.1\r\n" + target.key

    assert target.send(torn) == b""
    assert target.send(torn + b"Content-Le") == b""
    target.check_unharmed()


def test_requests_sent_at_once_are_answered_one_after_the_other(target: Target) -> None:
    one = b"GET /jobs/ HTTP/1.1\r\n" + target.key + b"\r\n"
    bad = b"GET /jobs/none HTTP/1.1\r\n" + target.key + b"\r\n"

    assert statuses(target.send((one + bad) * 200)) == [200, 404] * 200
    target.check_unharmed()


def test_words_that_no_command_line_can_hold_do_not_end_the_tasks_of_others(target: Target) -> None:
    other = target.master.submit((1, ["/bin/sh", "-c", "exec sleep 60"]))

    for args in (r'"\ud800"', r'"/bin/\udfff"', r'"/bin/echo","\ud800"'):
        answer = target.master.post_jobs(f'[{{"Count":1,"Args":[{args}]}}]'.encode())
        assert answer.status == 400, answer

    target.master.wait_for_end(target.master.submit((0, [])))
    assert target.master.job(other)["Running"] == 1
    assert target.master.ask("POST", f"/jobs/{other}/kill").status == 200
    target.master.wait_for_end(other)
    target.check_unharmed()


# --- slow and silent ones ---


@linux_only
def test_many_half_open_connections_keep_nobody_from_being_answered(target: Target) -> None:
    beginnings = [
        b"",
        b"G",
        b"POST /jobs/ HTTP/1.1\r\nContent-",
        b"POST / HTTP/1.1\r\nContent-Length: 999\r\n\r\nabc",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 50,
    ]
    weight_mib = target.memory_mib()
    with contextlib.ExitStack() as stack:
        held = []
        for number in range(5 * MOST):
            held.append(stack.enter_context(target.connect()))
            held[-1].sendall(beginnings[number % len(beginnings)])
        times_s = [_answer_time_s(target) for _ in range(20)]
        for connection in held[-20:]:  # drip on
            with contextlib.suppress(OSError):
                connection.sendall(b"x")
        times_s += [_answer_time_s(target) for _ in range(20)]
        n_threads, n_descriptors = target.now()

        assert statistics.median(times_s) < 1, times_s
        assert n_threads <= target.weight[0] + MOST + 5
        assert n_descriptors <= target.weight[1] + MOST + 5
        assert target.memory_mib() < weight_mib + 60
    target.check_unharmed()


def _answer_time_s(target: Target) -> float:
    begun_s = time.monotonic()
    assert target.master.ask("GET", "/jobs/").status == 200
    return time.monotonic() - begun_s


@linux_only
def test_heads_and_unwelcome_bodies_are_not_kept_in_memory(target: Target) -> None:
    weight_mib = target.memory_mib()
    line = b"a: " + b"b" * 60_000 + b"\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            for start in (
                b"GET / HTTP/1.1\r\n" + line * 60,
                b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + line * 60,
            ):
                connection = stack.enter_context(target.connect())
                with contextlib.suppress(OSError):
                    connection.sendall(start)
        assert _answer_time_s(target) < 5
        assert target.memory_mib() < weight_mib + 120
    target.check_unharmed()


@pytest.mark.slow
def test_silent_connections_are_hung_up_on(target: Target) -> None:
    with target.connect(PATIENCE_S + 30) as silent, target.connect(PATIENCE_S + 30) as torn:
        torn.sendall(b"POST /jobs/ HTTP/1.1\r\n" + target.key + b"Content-Length: 100\r\n\r\nabc")
        begun_s = time.monotonic()

        assert silent.recv(1) == b""
        assert time.monotonic() - begun_s > PATIENCE_S - 10
        torn.settimeout(30)
        assert torn.recv(9000).startswith((b"", b"HTTP/1.1 400"))
    target.check_unharmed()


# --- who is hung up on ---


class Hands:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def pairs() -> Iterator[list[tuple[socket.socket, socket.socket]]]:
    made = [socket.socketpair() for _ in range(5)]
    yield made
    for pair in made:
        for each in pair:
            each.close()


def hung_up(pairs: list[tuple[socket.socket, socket.socket]]) -> list[int]:
    found = []
    for number, (_, other) in enumerate(pairs):
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            assert other.recv(1) == b""
            found.append(number)
    return found


@pytest.mark.unit
def test_of_too_many_connections_the_one_goes_that_owes_a_request_longest(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    clock = Hands()
    connections = Connections(3, clock)
    for ours, _ in pairs[:3]:
        connections.add(ours)
        clock.sleep(1)
    connections.heard(pairs[0][0], is_trusted=True)
    connections.heard(pairs[1][0])

    connections.add(pairs[3][0])
    assert hung_up(pairs) == [2]

    connections.heard(pairs[0][0], is_trusted=False)
    connections.heard(pairs[1][0], is_trusted=True)
    connections.heard(pairs[3][0], is_trusted=True)
    clock.sleep(1)
    connections.add(pairs[4][0])
    assert hung_up(pairs) == [0, 2]
    assert len(connections) == 3


@pytest.mark.unit
def test_whoever_makes_no_progress_is_hung_up_on_trusted_or_not(
    pairs: list[tuple[socket.socket, socket.socket]],
) -> None:
    clock = Hands()
    connections = Connections(9, clock)
    for ours, _ in pairs:
        connections.add(ours)
    connections.heard(pairs[1][0], is_trusted=True)
    clock.sleep(PATIENCE_S / 2)
    connections.heard(pairs[2][0])
    connections.remove(pairs[3][0])
    clock.sleep(PATIENCE_S / 2 + 1)

    connections.drop_late()

    assert hung_up(pairs) == [0, 1, 4]
    connections.remove(pairs[0][0])  # its thread has ended


# --- the storm ---


class Storm:
    """Random nonsense, and what no answer to it may be."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._random = random.Random(seed)
        self.n_sent = 0

    def blow(self, until_s: float) -> None:
        kinds: list[Callable[[], None]] = [
            self._line,
            self._headers,
            self._body,
            self._form,
            self._pipeline,
            self._hang_up,
            self._mutant,
        ]
        while time.monotonic() < until_s:
            self._random.choice(kinds)()
            self.n_sent += 1

    def _send(self, request: bytes, *, is_known: bool) -> None:
        found = statuses(self._target.send(request))
        wrong = [status for status in found if status == 500 or (not is_known and status < 400)]
        assert not wrong, (wrong, request[:2000])

    def _bytes(self, most: int) -> bytes:
        alphabet = self._random.choice(
            [bytes(range(256)), b"aZ09-_/.%", b" \t\r\n:;=,\"'\\", b"\x00\xff\xc3\x28"]
        )
        return bytes(self._random.choices(alphabet, k=self._random.randint(0, most)))

    def _key(self) -> tuple[bytes, bool]:
        """The password's header, or not."""
        is_known = self._random.random() < 0.5
        return (
            self._target.key
            if is_known
            else b"x-golem-apikey: " + self._bytes(30).replace(b"\n", b"") + b"\r\n"
        ), is_known

    def _path(self) -> bytes:
        kinds = [b"/jobs/", b"/nodes/", b"/output/", b"/clients/", b"//", b"http://", b""]
        return self._random.choice(kinds) + self._random.choice(
            [*(a.encode() for a in AWAY), self._bytes(50)]
        )

    def _line(self) -> None:
        line = self._random.choice(
            [
                self._bytes(200),
                b"GET " + self._path(),
                b"A" * self._random.randint(1, 90_000),
                b"GET / HTTP/" + self._bytes(9),
                b"\x16\x03\x01" + self._bytes(300),
            ]
        )
        self._send(line + b"\r\n" * self._random.randint(0, 3), is_known=False)

    def _headers(self) -> None:
        key, is_known = self._key()
        lines = b"".join(
            self._bytes(60) + b": " + self._bytes(3000) + b"\r\n" for _ in range(self._random.randint(0, 130))
        )
        self._send(b"GET " + self._path() + b" HTTP/1.1\r\n" + key + lines + b"\r\n", is_known=is_known)

    def _body(self) -> None:
        key, is_known = self._key()
        headers, body, _ = self._random.choice([*BODIES.values()])
        request = b"POST " + self._random.choice([b"/jobs/", self._path()]) + b" HTTP/1.1\r\n" + key + headers
        self._send(request + b"\r\n\r\n" + body.replace(b"%b", b"") + self._bytes(300), is_known=is_known)

    def _form(self) -> None:
        key, is_known = self._key()
        part = self._random.choice(
            [
                b'name="jsonfile"; filename="x"',
                b"name*=utf-9''%zz; filename*0*=a''%; filename*1=b",
                b'name="jsonfile"; filename*=' + self._bytes(40),
                self._bytes(80),
            ]
        )
        content = (
            b"--B\r\nContent-Disposition: form-data; "
            + part
            + b"\r\n\r\n"
            + self._bytes(400)
            + b"\r\n--B--\r\n"
        )
        kind = self._random.choice(
            [FORM, b"Content-Type: multipart/form-data; " + self._bytes(60).replace(b"\n", b"") + b"\r\n"]
        )
        head = b"POST /jobs/ HTTP/1.1\r\n" + key + kind + b"Content-Length: %d\r\n\r\n" % len(content)
        self._send(head + content, is_known=is_known)

    def _pipeline(self) -> None:
        key, is_known = self._key()
        one = (
            b"GET "
            + self._random.choice([b"/jobs/", b"/nodes/none", b"/output/x"])
            + b" HTTP/1.1\r\n"
            + key
            + b"\r\n"
        )
        self._send(one * self._random.randint(2, 30) + self._bytes(20), is_known=is_known)

    def _hang_up(self) -> None:
        with self._target.connect() as connection, contextlib.suppress(OSError):
            connection.sendall(
                b"GET /jobs/ HTTP/1.1\r\n" + self._key()[0] + b"\r\n" * self._random.randint(0, 1)
            )

    def _mutant(self) -> None:
        """A good submission with a few bytes changed, with the password."""
        body = bytearray(multipart(LINES))
        for _ in range(self._random.randint(0, 4)):
            at = self._random.randrange(len(body))
            body[at : at + self._random.randint(0, 3)] = self._bytes(4)
        head = (
            b"POST /jobs/ HTTP/1.1\r\n" + self._target.key + FORM + b"Content-Length: %d\r\n\r\n" % len(body)
        )
        self._send(head + body, is_known=True)


@pytest.mark.parametrize("seconds", [2.0, pytest.param(60.0, marks=pytest.mark.slow)])
def test_after_a_storm_of_nonsense_the_master_is_as_before(target: Target, seconds: float) -> None:
    """Slots are taken away meanwhile, since some of the nonsense is accepted as jobs."""
    master = target.master
    node = master.node()["NodeId"]
    assert master.ask("POST", f"/nodes/{node}/resize/0").status == 200
    seed = random.randrange(10**6)
    storms = [Storm(target, seed + number) for number in range(3)]
    failures: list[BaseException] = []
    until_s = time.monotonic() + seconds

    def blow(storm: Storm) -> None:
        try:
            storm.blow(until_s)
        except BaseException as error:  # noqa: BLE001 - raised below, in the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=blow, args=(storm,)) for storm in storms]
    for thread in threads:
        thread.start()
    times_s = []
    while any(thread.is_alive() for thread in threads):
        times_s.append(_answer_time_s(target))
        time.sleep(0.02)
    for thread in threads:
        thread.join()

    assert not failures, f"seed {seed}: {failures[0]!r}"
    assert sum(storm.n_sent for storm in storms) > 50
    assert statistics.median(times_s) < 1
    assert is_running(target.pid)
    for job in master.ask("GET", "/jobs/").json["Items"]:
        master.ask("POST", f"/jobs/{job['JobId']}/kill")
        master.wait_for_end(job["JobId"])
    assert master.ask("POST", f"/nodes/{node}/resize/2").status == 200
    target.check_unharmed()
