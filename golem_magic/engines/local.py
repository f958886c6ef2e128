"""The engine that needs no configuration: finds or starts the embedded Golem of this machine.

The embedded Golem is a process of its own, started by command and never imported, so that
jobs outlive the kernel and several kernels share one set of slots. This engine knows where
its address is, and hands everything else to :class:`GolemEngine`.

Nothing is started before the first submission. A master that vanished is replaced at the next
one, which takes up the jobs that the other had accepted.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import golem_magic
from golem_magic.clock import Clock, SystemClock
from golem_magic.cpus import usable_cpus
from golem_magic.engines.base import EngineOptions
from golem_magic.engines.golem import GolemEngine
from golem_magic.errors import EngineError
from golem_magic.model import NativeId, Node, PlacementState, PlacementStatus, WorkerSpec

START_TIMEOUT_S = 20.0  # a loaded machine with a cold disk; it takes about 0.2 s otherwise
ANSWER_TIMEOUT_S = 10.0
PAUSE_S = 0.02
N_LOG_LINES = 15
# What a master, and so its workers, must not inherit: the mark of a task, else a master started
# from inside one would count as part of it and end with it; and the password of another master.
NOT_INHERITED = ("GOLEM_MAGIC_TASK", "GOLEM_MAGIC_SERVER_PASSWORD")
ROOT = Path(golem_magic.__file__).parent.parent
# ``python -m golem_magic.master``, but without the current folder on its path, where a user's
# file may hide a standard module; and with ours at the end, for a copy that is not installed.
BOOT = """
import sys
sys.path.append(sys.argv.pop(1))
from golem_magic.master.__main__ import main
sys.exit(main())
"""
MASTER = (sys.executable, "-P", "-c", BOOT, str(ROOT))


@dataclass(frozen=True, slots=True)
class _Address:
    """What a master's address file says."""

    url: str
    password: str = field(repr=False)
    pid: int
    version: str


class LocalEngine:
    """Runs workers on this machine, as jobs of the embedded Golem.

    Args:
        state_dir: Folder of the master's address; None for :func:`default_state_dir`.
        workers: Slots of a master that has to be started; None for the usable CPUs.
        clock: Time.
    """

    def __init__(
        self, state_dir: Path | None = None, workers: int | None = None, *, clock: Clock | None = None
    ) -> None:
        self._base = (state_dir or default_state_dir()).absolute()
        self._state = self._base
        self._workers = workers
        self._clock = clock or SystemClock()
        self._connected: GolemEngine | None = None

    @classmethod
    def from_options(cls, options: EngineOptions) -> Self:
        """Build the engine from the settings; starts nothing."""
        return cls(Path(options.state_dir).expanduser() if options.state_dir else None, options.workers)

    def __repr__(self) -> str:
        return f"LocalEngine({str(self._state)!r})"

    @property
    def share_is_local(self) -> bool:
        """True: all workers run on this machine."""
        return True

    def submit(self, spec: WorkerSpec) -> NativeId:
        """Ask for workers, starting the master if there is none; see :meth:`Engine.submit`."""
        try:
            return self._golem().submit(spec)
        except EngineError:
            if self._is_served():
                raise
        self.close()
        return self._golem().submit(spec)

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        """Report on all ``ids``; all are UNKNOWN when no master runs. See :meth:`Engine.poll`."""
        golem = self._find()
        if golem is not None:
            try:
                answer = golem.poll(ids)
                return {native_id: self._settled(golem, native_id, answer[native_id]) for native_id in ids}
            except EngineError:
                if self._is_served():
                    raise
                self.close()
        nobody = PlacementStatus(state=PlacementState.UNKNOWN, reason="no master runs on this machine")
        return dict.fromkeys(ids, nobody)

    def cancel(self, ids: Collection[NativeId]) -> None:
        """End these workers and all their processes; see :meth:`Engine.cancel`."""
        golem = self._find()
        try:
            for native_id in ids if golem else ():
                assert golem is not None
                golem.kill(native_id)
        except EngineError:
            if self._is_served():
                raise
            self.close()

    def n_slots(self) -> int | None:
        """How many workers can run at once, which needs no running master."""
        golem = self._find()
        if golem is not None:
            try:
                return golem.n_slots()
            except EngineError:
                if self._is_served():
                    raise
                self.close()
        return self._workers if self._workers is not None else usable_cpus()

    def nodes(self) -> list[Node]:
        """This machine; its master is not started for that."""
        golem = self._find()
        if golem is not None:
            try:
                return golem.nodes()
            except EngineError:
                if self._is_served():
                    raise
                self.close()
        return [Node(socket.gethostname(), self.n_slots() or 0, 0)]

    def n_started(self, native_id: NativeId) -> int | None:
        """How many workers of a placement were started so far; None if it is not known."""
        golem = self._find()
        return None if golem is None else golem.n_started(native_id)

    def output(self, native_id: NativeId, kind: Literal["out", "err", "log"]) -> str | None:
        """What the processes of a placement printed, or the master's log of them; None if it is not known."""
        golem = self._find()
        return None if golem is None else golem.output(native_id, kind)

    def close(self) -> None:
        """Close the connection. The master stays while this process lives, or any job runs."""
        if self._connected is not None:
            self._connected.close()
            self._connected = None

    # --- finding and starting ---

    def _golem(self) -> GolemEngine:
        """The connection to the master, which is started if need be.

        Raises:
            EngineError: It did not start, or not in time.
        """
        deadline_s = self._clock.now() + START_TIMEOUT_S
        while (golem := self._find()) is None:
            if self._clock.now() > deadline_s:
                message = f"the embedded Golem in {self._state} does not answer{self._log_tail()}"
                raise EngineError(message, transient=True)
            self._start(deadline_s - self._clock.now())
            if not self._address_file.exists():
                self._clock.sleep(PAUSE_S)  # it has left again already, or another one is about to come
        return golem

    def _find(self) -> GolemEngine | None:
        """The connection to the running master; None if none runs."""
        if self._connected is None:
            address = self._read_address()
            if address is not None:
                self._connected = self._connect(address)
        return self._connected

    def _connect(self, address: _Address) -> GolemEngine | None:
        """Connect, and have the master stay while we live."""
        golem = GolemEngine(
            address.url, address.password, share_is_local=True, request_timeout_s=ANSWER_TIMEOUT_S
        )
        try:
            golem.request("POST", f"/clients/{os.getpid()}")
        except EngineError:  # it is leaving, or its process number is another's by now
            golem.close()
            return None
        return golem

    def _is_served(self) -> bool:
        """Whether the master we are connected to answers."""
        if self._connected is None:
            return False
        try:
            self._connected.request("POST", f"/clients/{os.getpid()}")
        except EngineError:
            return False
        return True

    @property
    def _address_file(self) -> Path:
        return self._state / "golem.json"

    def _read_address(self) -> _Address | None:
        """What the address file of our version's master says; None if there is none of use.

        A running master of another version keeps the folder; an older one is asked to leave as
        soon as it has nothing to do. Ours lives in a folder below meanwhile, and whatever runs
        there was started for us, even if the package has been replaced since.
        """
        inner = self._base / f"version-{golem_magic.__version__}"
        found = {folder: _running_master(folder) for folder in (self._base, inner)}
        base = found[self._base]
        if base is None or base.version == golem_magic.__version__:
            self._state = inner if base is None and found[inner] else self._base
        else:
            self._state = inner
            if _order(base.version) < _order(golem_magic.__version__):
                _dismiss(base)
        return found[self._state]

    def _start(self, timeout_s: float) -> None:
        """Run the command that returns when a master answers, ours or another's."""
        for folder in (*reversed(self._state.parents), self._state):
            folder.mkdir(mode=0o700, exist_ok=True)  # with parents=True, those would get the umask's mode
        command = [*MASTER, "--state", str(self._state), "--detach"]
        if self._workers is not None:
            command += ["--slots", str(self._workers)]
        environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        try:
            with open(self._state / "master.log", "ab", opener=_private) as log:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._state,
                    env=environment,
                    timeout=max(timeout_s, 0.1),
                    check=True,
                    start_new_session=True,
                )
        except subprocess.SubprocessError as error:
            message = f"the embedded Golem did not start in {self._state} ({_why(error)}){self._log_tail()}"
            raise EngineError(message) from error
        except OSError as error:
            message = (
                f"cannot write {self._state} ({error.strerror}): make room there, or set"
                " GOLEM_MAGIC_STATE to another folder"
            )
            raise EngineError(message) from error

    def _log_tail(self) -> str:
        """The end of the master's log, in words that continue a sentence."""
        with contextlib.suppress(OSError):
            lines = (self._state / "master.log").read_text(errors="replace").splitlines()[-N_LOG_LINES:]
            if lines:
                return "; the end of master.log: " + " | ".join(lines)
        return "; it has logged nothing"

    def _settled(self, golem: GolemEngine, native_id: NativeId, status: PlacementStatus) -> PlacementStatus:
        """Replace the guess about a stopped job's running tasks by what the embedded master knows."""
        if status.state is PlacementState.RUNNING and status.reason.startswith("COMPLETE/"):
            job = golem.request("GET", f"/jobs/{native_id}")
            if isinstance(job, dict) and job.get("Running") == 0:
                return replace(status, state=PlacementState.ENDED)
        return status


def _why(error: subprocess.SubprocessError) -> str:
    """The fault without the command line."""
    match error:
        case subprocess.CalledProcessError():
            return f"exit code {error.returncode}"
        case subprocess.TimeoutExpired():
            return f"not ready after {error.timeout:.0f} s"
        case _:
            return str(error)


def default_state_dir() -> Path:
    """Where this machine's master is found: one folder per user and machine.

    A home folder may be shared by machines while process numbers are not, hence the host name.
    """
    chosen, runtime = os.environ.get("GOLEM_MAGIC_STATE"), os.environ.get("XDG_RUNTIME_DIR")
    if chosen:
        return Path(chosen).expanduser()
    if runtime and Path(runtime).is_dir():
        return Path(runtime) / "golem-magic"
    return Path.home() / ".local/state/golem-magic" / socket.gethostname()


def _running_master(folder: Path) -> _Address | None:
    """What the address file in this folder says, if its master runs."""
    try:
        with (folder / "golem.json").open() as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():  # somebody else's would get our jobs
                return None
            fields = json.load(file)
        address = _Address(fields["url"], fields["password"], fields["pid"], fields["version"])
        return address if _runs(address.pid) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _dismiss(old: _Address) -> None:
    """Ask a master to leave when no job is unfinished."""
    golem = GolemEngine(old.url, old.password, share_is_local=True, request_timeout_s=ANSWER_TIMEOUT_S)
    with contextlib.suppress(EngineError):  # it is leaving already, or too old to know the word
        golem.request("POST", "/leave")
    golem.close()


def _order(version: str) -> tuple[list[int], bool, str]:
    """A key by which versions sort as they came out: ``0.1.0.dev0``, ``0.1.0``, ``0.2.0rc1``, ``0.2.0``."""
    numbers = re.match(r"[0-9]+(\.[0-9]+)*", version)
    rest = version[numbers.end() :] if numbers else version
    return [int(part) for part in re.findall("[0-9]+", numbers[0] if numbers else "")], not rest, rest


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
