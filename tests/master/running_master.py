"""An embedded Golem in a process of its own, and a plain HTTP client for it."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DEADLINE_S = 20.0
PART = 'Content-Disposition: form-data; name="jsonfile"; filename="data.json"'


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    limit = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < limit, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has died but was not reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def multipart(content: bytes, part: str = PART, boundary: str = "B") -> bytes:
    return f"--{boundary}\r\n{part}\r\n\r\n".encode() + content + f"\r\n--{boundary}--\r\n".encode()


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Master:
    """What a test does with a running master."""

    def __init__(self, process: Any, state: Path) -> None:
        self.process = process
        self.state = state
        self.address: dict[str, Any] = json.loads((state / "golem.json").read_text())
        self.password: str | None = self.address["password"]
        self.host = self.address["url"].removeprefix("http://")

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self.host, timeout=10)
        password = {"x-golem-apikey": self.password} if self.password is not None else {}
        try:
            connection.request(method, path, body, {**password, **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.read().decode(), dict(response.getheaders()))
        finally:
            connection.close()

    def post_jobs(self, content: bytes, **headers: str) -> Answer:
        names = {f"x-golem-job-{name.replace('_', '-')}": value for name, value in headers.items()}
        body = multipart(content)
        return self.ask("POST", "/jobs/", body, {"Content-Type": "multipart/form-data; boundary=B", **names})

    def submit(self, *lines: tuple[int, Sequence[str]], **headers: str) -> str:
        listed = [{"Count": count, "Args": list(args)} for count, args in lines]
        answer = self.post_jobs(json.dumps(listed).encode(), **headers)
        assert answer.status == 200, answer
        return str(answer.json["JobId"])

    def job(self, job_id: str) -> Any:
        return self.ask("GET", f"/jobs/{job_id}").json

    def node(self) -> Any:
        (node,) = self.ask("GET", "/nodes/").json["Items"]
        return node

    def wait_for_end(self, job_id: str) -> Any:
        def is_over() -> bool:
            job = self.job(job_id)
            return bool(job["State"] == "COMPLETE" and job["Running"] == 0)

        wait_until(is_over, f"the end of {job_id}")
        return self.job(job_id)

    def output(self, job_id: str, kind: str) -> list[str]:
        """The lines; a file into which nothing was written is not there."""
        answer = self.ask("GET", f"/output/{job_id}.{kind}.txt")
        assert answer.status == 200 or (answer.status, kind) in [(404, "out"), (404, "err")], answer
        return answer.text.splitlines() if answer.status == 200 else []

    def end(self) -> None:
        """End it as the system would, and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(DEADLINE_S)


@contextlib.contextmanager
def running_master(state: Path, *options: str, slots: int = 2, log: Path | None = None) -> Iterator[Master]:
    """A master for the time of a ``with``; it stays however long no client registers.

    What it has to say goes to ``log``, if that is named.
    """
    command = [sys.executable, "-m", "golem_magic.master", "--state", str(state), "--slots", str(slots)]
    command += options if "--linger" in options else (*options, "--linger", "inf")
    environment = {**os.environ, "GOLEM_MAGIC_STATE": str(state)}
    with log.open("wb") if log else contextlib.nullcontext() as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
        assert said.startswith(b"http://127.0.0.1:"), said
        master = Master(process, state)
        try:
            yield master
        finally:
            master.end()


class Detached:
    """A process that is not our child, with what :class:`Master` asks of one."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        return None if is_running(self.pid) else 0

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = DEADLINE_S) -> None:
        wait_until(lambda: not is_running(self.pid), f"the end of process {self.pid}", timeout)


@contextlib.contextmanager
def detached_master(state: Path, slots: int = 2) -> Iterator[Master]:
    """A master started as the engine does it, for the time of a ``with``."""
    command = [sys.executable, "-m", "golem_magic.master", "--state", str(state), "--slots", str(slots)]
    subprocess.run([*command, "--linger", "inf", "--detach"], check=True, timeout=DEADLINE_S)
    master = Master(Detached(json.loads((state / "golem.json").read_text())["pid"]), state)
    try:
        yield master
    finally:
        master.end()
