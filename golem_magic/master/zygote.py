"""The single-threaded process that starts every task: workers of ours by fork, any other by spawn.

It talks with the server over one socket, a JSON object per line::

    server -> zygote   {"key", "argv", "identity", "mark", "out", "err", "note"}   start this
    zygote -> server   {"key", "pid", "is_worker"}                                 started
                       {"key", "status"}                                           ended
                       {"key", "status", "error"}                                  could not be started
                       {"is_ready": true}                                          once, when warm

Starts and ends are also written to the task's note, before they are told.

It has no threads, so that forking is safe, and runs in the folder that the tasks run in. It
has imported what a worker needs, and the installed packages that earlier tasks used, so that
a fork is at work within milliseconds.

When the server is gone it starts nothing more and does not touch the tasks: a killed master must
cost a restart and nothing else. It lets go of the lock of the state folder, which it holds
together with its server: so the next master begins when nothing more can be started here. It
leaves when the last of its tasks has ended and is noted.
"""

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import golem_magic.worker
from golem_magic.master.seedbed import Seedbed
from golem_magic.master.taskfiles import APPENDING, append_note
from golem_magic.master.trees import MARK_LENGTH, MARK_VARIABLE
from golem_magic.worker import seeds
from golem_magic.worker.main import main as be_a_worker
from golem_magic.worker.main import own_arguments

CANNOT_START = 127  # as a shell says it
IDLE_S = 0.2  # without orders and tasks for so long, there is time to import something ahead
# By Python or by us; being ignored is inherited, and other programs do not expect it.
IGNORED_HERE = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT)


class Zygote:
    """The loop of this process: orders in, news out.

    Args:
        server: Where orders come from.
        seeds_path: File in which workers note what they have loaded.
        lock: Descriptor of the state folder's lock.
    """

    def __init__(self, server: socket.socket, seeds_path: str, lock: int) -> None:
        self._server = server
        self._lock = lock
        self._seeds_path = seeds_path
        self._seedbed = Seedbed(seeds_path)
        self._let_inherit(False)  # they were, to get here
        self._tasks: dict[int, tuple[int, str]] = {}  # process -> key, note
        self._mark_address = _mark_address()
        self._wake_in, self._wake_out = os.pipe()
        for descriptor in (self._wake_in, self._wake_out):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake_out, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until the server is gone, then see the tasks to their end."""
        with contextlib.suppress(ConnectionError):  # its death, like the end of its orders
            _warm_up()
            self._tell({"is_ready": True})
            self._serve()
        self._server.close()
        os.close(self._lock)
        self._reap(lambda _: None)
        while self._tasks:
            select.select([self._wake_in], [], [])
            os.read(self._wake_in, 4096)
            self._reap(lambda _: None)

    def _serve(self) -> None:
        pending = b""
        while True:
            may_plant = not self._tasks and sys.platform == "linux" and self._seedbed.has_wishes
            pause_s = IDLE_S if may_plant else None
            readable, _, _ = select.select([self._server.fileno(), self._wake_in], [], [], pause_s)
            if not readable:
                self._seedbed.plant_one()
                gc.freeze()
            if self._wake_in in readable:
                os.read(self._wake_in, 4096)
                self._reap(self._tell)
            if self._server.fileno() in readable:
                if not self._tasks and not pending and self._seedbed.is_stale():
                    self._start_afresh()
                received = self._server.recv(1 << 20)
                if not received:
                    return
                *orders, pending = (pending + received).split(b"\n")
                for order in orders:
                    self._start(json.loads(order))

    def _start(self, order: dict[str, Any]) -> None:
        arguments = own_arguments(order["argv"])
        if arguments is not None and self._seedbed.is_stale():
            arguments = None  # an interpreter of its own, with the packages as they are now
        try:
            pid = _spawn(order) if arguments is None else self._fork(order, arguments)
        except OSError as error:  # the task failed: no such program, or no more processes allowed
            sentence = f"Error finding {order['argv'][0]}: {error.strerror}"
            self._tell({"key": order["key"], "status": CANNOT_START, "error": sentence})
        else:
            append_note(order["note"], f"started {pid} {int(arguments is not None)}")
            self._tasks[pid] = order["key"], order["note"]
            self._tell({"key": order["key"], "pid": pid, "is_worker": arguments is not None})

    def _start_afresh(self) -> NoReturn:
        """Become a new interpreter with the same socket; what the server has sent waits there."""
        self._let_inherit(True)
        os.execv(sys.executable, sys.orig_argv)

    def _fork(self, order: dict[str, Any], arguments: list[str]) -> int:
        pid = os.fork()
        if pid == 0:
            self._become_a_worker(order, arguments)
        return pid

    def _let_inherit(self, is_inheritable: bool) -> None:
        self._server.set_inheritable(is_inheritable)
        os.set_inheritable(self._lock, is_inheritable)

    def _reap(self, tell: Callable[[dict[str, object]], None]) -> None:
        """Collect the ended tasks; all are noted, whether or not the server still listens."""
        ended: list[dict[str, object]] = []
        while found := _ended_child():
            key, note = self._tasks.pop(found[0])
            append_note(note, f"ended {found[1]}")
            ended.append({"key": key, "status": found[1]})
        for news in ended:
            tell(news)

    def _tell(self, news: dict[str, object]) -> None:
        self._server.sendall(json.dumps(news).encode() + b"\n")

    def _become_a_worker(self, order: dict[str, Any], arguments: list[str]) -> NoReturn:
        """Turn this fork into the task. Never returns, whatever happens."""
        code = 1
        try:
            self._let_go()
            _enter(order)
            self._mark(order["mark"])
            code = be_a_worker(arguments + order["identity"])
        except SystemExit as leaving:
            code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        except BaseException:  # noqa: BLE001 - a fork must never climb back into the zygote's loop
            traceback.print_exc()
        finally:
            _flush_and_exit(code)

    def _let_go(self) -> None:
        """Forget the zygote: its descriptors, its signal handlers, its frozen heap's rules."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        self._server.close()
        os.close(self._lock)
        os.close(self._wake_in)
        os.close(self._wake_out)
        gc.enable()

    def _mark(self, mark: str) -> None:
        """Make this task's processes recognizable, those it execs and those it only forks.

        A program inherits its environment when it is exec'ed. A fork that never execs shows
        the zygote's under /proc, so the mark is written over the place kept for it there.
        """
        os.environ[MARK_VARIABLE] = mark
        os.environ[seeds.VARIABLE] = self._seeds_path
        if self._mark_address:
            ctypes.memmove(self._mark_address, mark.encode()[:MARK_LENGTH].ljust(MARK_LENGTH), MARK_LENGTH)


def _mark_address() -> int:
    """Where the kernel laid down this process's mark; 0 where it cannot be shown to others anyway."""
    if not sys.platform.startswith("linux") or len(os.environ.get(MARK_VARIABLE, "")) != MARK_LENGTH:
        return 0
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    return getenv(MARK_VARIABLE.encode()) or 0


def _warm_up() -> None:
    """Import all that a worker needs, and move it out of the garbage collector's sight.

    Freezing keeps the forks' collections from touching, and so copying, the shared pages.
    """
    seeds.tame_threads()
    for module in pkgutil.iter_modules(golem_magic.worker.__path__, "golem_magic.worker."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    own_arguments(("", "", ""))  # now it remembers the code that is loaded, before files can change
    gc.disable()
    gc.collect()
    gc.freeze()


def _enter(order: dict[str, Any]) -> None:
    """Give the fork its own session and standard streams."""
    os.setsid()
    descriptors = [
        os.open(os.devnull, os.O_RDONLY),
        _open_to_append(order["out"]),
        _open_to_append(order["err"]),
    ]
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        if descriptor > 2:
            os.close(descriptor)


def _spawn(order: dict[str, Any]) -> int:
    """Start any other program; four times as fast as a fork of this much Python."""
    streams = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, order["out"], APPENDING, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, order["err"], APPENDING, 0o600),
    ]
    spawn = functools.partial(
        os.posix_spawnp,
        order["argv"][0],
        order["argv"] + order["identity"],
        {**os.environ, MARK_VARIABLE: order["mark"]},
        file_actions=streams,
        setsigmask=(),
        setsigdef=IGNORED_HERE,
    )
    try:
        return spawn(setsid=True)
    except NotImplementedError:  # an older macOS; trees.py goes by groups there anyway
        return spawn(setpgroup=0)


def _open_to_append(path: str) -> int:
    return os.open(path, APPENDING | os.O_CLOEXEC, 0o600)


def _ended_child() -> tuple[int, int] | None:
    """One child that has ended, with its exit code or minus its signal; None if there is none."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _flush_and_exit(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # a full disk, or closed by the task
            code = code or 1
    os._exit(code & 0xFF)


def main(descriptor: int, seeds_path: str, lock: int) -> None:
    """Serve the server at the other end of this socket; see :class:`Zygote`."""
    with socket.socket(fileno=descriptor) as server:
        Zygote(server, seeds_path, lock).run()
