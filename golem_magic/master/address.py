"""Who is the one master of a state folder, where clients find it, and to how many slots it was resized."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import golem_magic
from golem_magic.clock import SystemClock
from golem_magic.master.trees import is_alive

WAIT_S = 15.0
PAUSE_S = 0.01


class StateFolder:
    """The folder of one master: its address, its lock, its log and its tasks' output.

    The lock decides which of several starting masters stays: the kernel drops it with the
    process that held it, however that ended, so it is never stale and needs no guess whether a
    process number means what it meant. The holder alone writes and removes the address.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder
        for each in (*reversed(folder.parents), folder):
            each.mkdir(mode=0o700, exist_ok=True)  # with parents=True, those would get the umask's mode
        folder.chmod(0o700)
        self.address = folder / "golem.json"
        self.log = folder / "master.log"
        self.output = folder / "output"
        self.jobs = folder / "jobs"
        self.tasks = folder / "tasks"
        self.resized = folder / "slots"
        self.usage = folder / "usage"
        self.work = folder / "work"
        for inner in (self.work, self.tasks):
            inner.mkdir(mode=0o700, exist_ok=True)

    @property
    def token(self) -> str:
        """Tells the tasks of this folder's masters, one after the other, from those of others."""
        return hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]

    @contextlib.contextmanager
    def hold(self) -> Iterator[int | None]:
        """Become the master of this folder: give the lock's descriptor, or None when another one is there.

        Waits while another holds the lock but has no address: it starts, or it leaves, or it has
        died and its zygote has not noticed yet.
        """
        descriptor = os.open(self.path / "master.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            is_ours = self._wait_for_turn(descriptor)
            if is_ours:
                self.address.unlink(missing_ok=True)  # of a master that was killed
            try:
                yield descriptor if is_ours else None
            finally:
                if is_ours:
                    self.address.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def publish(self, url: str, password: str) -> None:
        """Write the address for this user alone; needs :meth:`hold`. Call it when listening.

        It appears whole: written under another name, then linked, which fails on an existing
        name as ``O_EXCL`` does.
        """
        record = {"url": url, "password": password, "pid": os.getpid(), "version": golem_magic.__version__}
        part = self.path / f"golem.json.{os.getpid()}.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(record, file)
        try:
            os.link(part, self.address)
        finally:
            part.unlink()

    def keep_size(self, n_slots: int) -> None:
        """Have the next master of this folder, too, run so many tasks at once."""
        part = self.resized.with_suffix(".part")
        with contextlib.suppress(OSError):  # a full disk must not keep anybody from suspending the work
            part.write_text(f"{n_slots}\n")
            part.replace(self.resized)

    def kept_size(self) -> int | None:
        """To how many slots a master that left work behind had been resized; None if it never was."""
        with contextlib.suppress(OSError, ValueError):
            return int(self.resized.read_text())
        return None

    def forget_size(self) -> None:
        """Have the next master begin with its own number of slots."""
        self.resized.unlink(missing_ok=True)

    def _wait_for_turn(self, descriptor: int) -> bool:
        clock = SystemClock()
        begun_s = clock.now()
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            if self._is_served():
                return False
            if clock.now() - begun_s > WAIT_S:
                message = f"{self.path} is locked by a process that does not become a master"
                raise TimeoutError(message)
            clock.sleep(PAUSE_S)

    def _is_served(self) -> bool:
        try:
            return is_alive(json.loads(self.address.read_text())["pid"])
        except (OSError, ValueError, KeyError):
            return False
