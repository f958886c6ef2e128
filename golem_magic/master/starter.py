"""The server's hand on the zygote: sends orders, passes on news, replaces it when it dies."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import golem_magic
from golem_magic.clock import Clock, SystemClock
from golem_magic.master.trees import MARK_LENGTH, MARK_VARIABLE

MAX_PAUSE_S = 5.0
SEEDS = "packages"  # file in the state folder: what tasks have imported
ROOT = Path(golem_magic.__file__).parent.parent
# Without the current folder on its path, where a user's file may hide a standard module; our
# own folder comes last, which matters only to a copy that is not installed.
BOOT = """
import sys
sys.path.append(sys.argv[1])
from golem_magic.master.zygote import main
main(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
"""


class Listener(Protocol):
    """Who is told about tasks. Called from the starter's thread."""

    def on_started(self, key: int, pid: int, *, is_worker: bool) -> None:
        """A task has a process."""

    def on_ended(self, key: int, code: int, error: str = "") -> None:
        """A task's process has ended, or could not be started: then ``error`` says why.

        ``code`` is 0, an exit code, or minus a signal.
        """

    def on_starter_lost(self) -> None:
        """The zygote died: nobody will ever say how the tasks it started ended."""

    def on_starter_back(self) -> None:
        """Tasks can be started again."""


class Starter:
    """Keeps one zygote running, in a process of its own that leaves when we are gone.

    Args:
        work: Folder that tasks run in.
        lock: Descriptor of the state folder's lock, held together with every zygote.
        clock: Time.
    """

    def __init__(self, work: Path, lock: int, clock: Clock | None = None) -> None:
        self._work = work
        self._lock = lock
        self._clock = clock or SystemClock()
        self._listener: Listener | None = None
        self._sending = threading.Lock()
        self._process, self._socket = _spawn(self._work, self._lock)

    @property
    def pid(self) -> int:
        """Process number of the zygote."""
        return self._process.pid

    def listen(self, listener: Listener) -> None:
        """Begin to pass on news, in a thread."""
        self._listener = listener
        threading.Thread(target=self._serve, name="zygote news", daemon=True).start()

    def start(self, order: Mapping[str, object]) -> None:
        """Order a task to be started; if the zygote is dying, ``on_starter_lost`` will tell."""
        try:
            with self._sending:
                self._socket.sendall(json.dumps(order).encode() + b"\n")
        except OSError:
            return

    def _serve(self) -> None:
        pause_s = 0.0
        assert self._listener is not None
        while True:
            was_ready = self._pass_on_news(self._listener)
            self._listener.on_starter_lost()
            self._socket.close()
            self._process.wait()
            # One that dies before it is warm would do so again at once.
            pause_s = 0.0 if was_ready else min(MAX_PAUSE_S, 2 * pause_s + 0.1)
            self._clock.sleep(pause_s)
            with self._sending:
                self._process, self._socket = _spawn(self._work, self._lock)
            self._listener.on_starter_back()

    def _pass_on_news(self, listener: Listener) -> bool:
        """Read until the zygote is gone; tell whether it ever was ready."""
        is_ready = False
        try:
            with self._socket.makefile("rb") as stream:
                for line in stream:
                    news = json.loads(line)
                    is_ready = is_ready or "is_ready" in news
                    _pass_on(news, listener)
        except ConnectionError:
            pass  # it died with orders unread; the same as its end
        return is_ready


def _pass_on(news: Mapping[str, Any], listener: Listener) -> None:
    if "pid" in news:
        listener.on_started(news["key"], news["pid"], is_worker=news["is_worker"])
    elif "status" in news:
        listener.on_ended(news["key"], news["status"], news.get("error", ""))


def _spawn(work: Path, lock: int) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, its = socket.socketpair()
    with its:
        arguments = [str(ROOT), str(its.fileno()), str(work.parent / SEEDS), str(lock)]
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", BOOT, *arguments],
            pass_fds=[its.fileno(), lock],
            stdin=subprocess.DEVNULL,
            cwd=work,
            start_new_session=True,
            env={**os.environ, MARK_VARIABLE: "-" * MARK_LENGTH},
        )
    return process, ours
