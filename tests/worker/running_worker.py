"""Real workers on a staged job, and what the share says afterwards."""

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from share.chaos import Staged, by_value, stage

from golem_magic.model import Failure
from golem_magic.share import outcome_files
from golem_magic.share.book import Book

CALLED = """
import os, random, signal, sys, time

def f(x):
    with open(calls, "ab", buffering=0) as file:
        file.write(b"%d\\n" % x)
    return task(x)

"""

Outcomes = dict[int, Any]


@dataclass
class Job:
    """A staged job whose function notes each call, and then does what ``task(x)`` says."""

    staged: Staged
    calls_file: Path

    @property
    def calls(self) -> Counter[int]:
        """How often each input's call was begun."""
        return Counter(map(int, self.calls_file.read_text().split()))

    def look(self) -> Book:
        """Everything that the share says now."""
        book = Book(self.staged.paths)
        book.look()
        return book

    def outcomes(self) -> Outcomes:
        """Values and failures by index."""
        found: Outcomes = {}
        for entry in self.look().order:
            for index, outcome in enumerate(outcome_files.read(self.staged.paths, entry), entry.start):
                assert index not in found, f"two outcomes of task {index}"
                found[index] = outcome
        return found

    def failures(self) -> dict[int, Failure]:
        """Failures by index."""
        return {index: found for index, found in self.outcomes().items() if isinstance(found, Failure)}

    def log(self) -> str:
        """What all workers and their tasks wrote."""
        return "".join(file.read_text() for file in Path(self.staged.paths.workers).glob("*.log"))

    def argv(self, number: int = 0) -> list[str]:
        """The command of one worker, with what an engine appends."""
        return [*self.staged.site.argv, "0", "place", "0", str(number)]

    @contextmanager
    def worker(self, number: int = 0) -> Iterator["subprocess.Popen[bytes]"]:
        """A running worker; it is killed if it has not ended by itself."""
        worker = subprocess.Popen(self.argv(number), stdin=subprocess.DEVNULL, start_new_session=True)
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait()

    def work(self, n_workers: int = 1, timeout_s: float = 20.0) -> None:
        """Let workers run until they leave by themselves, with exit code 0."""
        workers = [
            subprocess.Popen(self.argv(number), stdin=subprocess.DEVNULL) for number in range(n_workers)
        ]
        try:
            codes = [worker.wait(timeout_s) for worker in workers]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        assert codes == [0] * n_workers, self.log()


def make_job(share: Path, task: str, inputs: Sequence[int], *, workers: int = 1, **options: Any) -> Job:
    """Stage a job. ``task`` defines ``task(x)``; further names go to its globals."""
    calls = share.parent / f"calls-{os.urandom(4).hex()}"
    calls.touch()
    own = {
        name: options.pop(name) for name in list(options) if name not in ("chunk_size", "beat_s", "lease_s")
    }
    function: Callable[..., Any] = by_value(CALLED + task, "f", calls=str(calls), **own)
    return Job(stage(share, [share], function, list(inputs), workers=workers, **options), calls)


def wait_until(holds: Callable[[], Any], what: str, timeout_s: float = 10.0) -> None:
    """Wait for an event, with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"waited {timeout_s} s for {what}"
        time.sleep(0.005)


def runner_of(keeper: int) -> int:
    """The pid of a keeper's runner, as soon as there is one."""
    children = Path(f"/proc/{keeper}/task/{keeper}/children")
    wait_until(lambda: children.read_text().split(), "a runner")
    return int(children.read_text().split()[0])


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, number)
