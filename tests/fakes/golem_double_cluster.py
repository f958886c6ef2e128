"""The inside of the Golem double: its job table, its nodes, and the processes they run.

It keeps the faults of the real one, since they are what a client must survive: a lost node's
tasks are never counted, a ghost node goes on swallowing tasks, kill ends nobody, an empty job
never completes, and every completed job says SUCCESS.
"""

import contextlib
import itertools
import os
import secrets
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

Lines = list[tuple[int, list[str]]]  # how often, and which command


class GoClock:
    """Time as Go prints it: wall time with nanoseconds, and seconds since the process began.

    Compilers of 2013 leave the second part out.
    """

    def __init__(self, *, is_old: bool = False) -> None:
        self._is_old = is_old
        self._start_ns = time.monotonic_ns()

    def stamp(self) -> str:
        wall_ns = time.time_ns()
        date = datetime.fromtimestamp(wall_ns // 10**9, UTC)
        fraction = f".{wall_ns % 10**9:09}".rstrip("0").rstrip(".")
        if self._is_old:
            return f"{date:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
        seconds, nanos = divmod(time.monotonic_ns() - self._start_ns, 10**9)
        return f"{date:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC m=+{seconds}.{nanos:09}"


@dataclass(frozen=True)
class Task:
    line: int
    number: int
    args: list[str]


@dataclass(eq=False)
class Job:
    id: str
    owner: str
    label: str
    type: str
    total: int
    first_created: str
    todo: Iterator[Task]
    next_task: Task | None = None
    last_modified: str = ""
    finished: int = 0
    errored: int = 0
    state: str = "SCHEDULED"
    status: str = "READY"
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def as_json(self) -> dict[str, object]:
        """Fields in the order in which the real master writes them."""
        return {
            "JobId": self.id,
            "Uri": f"/jobs/{self.id}",
            "Owner": self.owner,
            "Label": self.label,
            "Type": self.type,
            "FirstCreated": self.first_created,
            "LastModified": self.last_modified,
            "Progress": {"Total": self.total, "Finished": self.finished, "Errored": self.errored},
            "State": self.state,
            "Status": self.status,
        }

    def as_go_dump(self) -> str:
        progress = f"{{{self.total} {self.finished} {self.errored}}}"
        head = f"{self.id} /jobs/{self.id} {self.owner} {self.label} {self.type}"
        return f"{{{head} {self.first_created} {self.last_modified} {progress} {self.state} {self.status}}}"


@dataclass(eq=False)
class Node:
    """One worker process of the real Golem, with its slots."""

    hostname: str
    max_jobs: int
    folder: Path
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    running: int = 0
    is_wedged: bool = False  # the master's loop for it hangs: it gets no tasks, and looks idle
    is_dead: bool = False  # its tasks are never counted; as a ghost it still gets some

    def as_json(self) -> dict[str, object]:
        return {
            "NodeId": self.id,
            "Uri": f"/nodes/{self.id}",
            "Hostname": f"http://{self.hostname}",
            "MaxJobs": self.max_jobs,
            "RunningJobs": self.running,
            "Running": self.running > 0,
        }


class Cluster:
    """Jobs, nodes and who runs what; every method may be called from any thread.

    Args:
        folder: The log files go to ``master``, the nodes' working directories beside it.
        environment: Of the tasks; None for this process's own.
        is_old: As before May 2013: no log, no headers in the err file, short time stamps.
    """

    def __init__(
        self, folder: Path, environment: dict[str, str] | None = None, *, is_old: bool = False
    ) -> None:
        self._is_old = is_old
        self.folder = folder
        self.output = folder / "master"
        self.output.mkdir(parents=True, exist_ok=True)
        self.lock = threading.RLock()
        self.jobs: dict[str, Job] = {}
        self.nodes: dict[str, Node] = {}
        self._ghosts: list[Node] = []
        self._clock = GoClock(is_old=is_old)
        self._environment = os.environ if environment is None else environment
        self._turn = 0
        self._threads: list[threading.Thread] = []
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False

    # --- what the REST side asks for ---

    def create(self, job: Job) -> dict[str, object] | None:
        """Take a job in; None if its id is known. The picture returned is that of the reply: SCHEDULED."""
        with self.lock:
            if job.id in self.jobs:
                return None
            self.jobs[job.id] = job
            picture = job.as_json()
            self._write(job.id, "log", b"", truncate=True)
            job.next_task = next(job.todo, None)
            self._touch(job, "RUNNING", "READY")
            self._hand_out()
            return picture

    def new_job(
        self, job_id: str, owner: str, label: str, kind: str, lines: list[tuple[int, list[str]]]
    ) -> Job:
        job_id = job_id or secrets.token_hex(16)
        return Job(
            id=job_id,
            owner=owner or "Anonymous",
            label=label or job_id,
            type=kind or "Unspecified",
            total=sum(count for count, _ in lines),
            first_created=self._clock.stamp(),
            todo=_tasks(lines),
        )

    def stop(self, job: Job) -> None:
        with self.lock:
            if job.state != "COMPLETE":
                self._touch(job, "COMPLETE", "STOPPED")

    def kill(self, job: Job) -> None:
        """Stop, and a signal that is ignored by default."""
        with self.lock:
            self.stop(job)
            for process in job.running:
                process.send_signal(signal.SIGCHLD)

    def resize(self, node: Node, max_jobs: int) -> None:
        with self.lock:
            node.max_jobs = max_jobs
            self._hand_out()

    # --- what tests do to it ---

    def add_node(self, slots: int, hostname: str = "worker-host") -> Node:
        with self.lock:
            folder = self.folder / f"golem_{len(self.nodes) + 1:02}"
            folder.mkdir(exist_ok=True)
            node = Node(hostname, slots, folder)
            self.nodes[node.id] = node
            self._hand_out()
            return node

    def lose_node(self, node: Node, *, ghost: bool = True) -> None:
        """As after kill -9 of its worker: it leaves the list, its tasks are never counted.

        As a ghost it goes on getting tasks until its free slots are used up.
        """
        with self.lock:
            self.nodes.pop(node.id, None)
            node.is_dead = True
            if ghost:
                self._ghosts.append(node)

    def make_zombies(self) -> None:
        """As workers that outlive a restart: listed, given tasks, and silent for ever."""
        with self.lock:
            for node in self.nodes.values():
                node.is_dead = True

    def forget_jobs(self) -> None:
        with self.lock:
            self.jobs.clear()

    def close(self) -> None:
        """End every process that was started here, and wait for the threads that watched them."""
        with self.lock:
            self._is_closed = True
            for process in self._processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
        for thread in list(self._threads):
            thread.join()

    # --- handing out ---

    def _hand_out(self) -> None:
        """One task at a time to any free slot, jobs taking turns."""
        while not self._is_closed:
            waiting = [job for job in self.jobs.values() if job.next_task and job.state == "RUNNING"]
            nodes = [*self._ghosts, *self.nodes.values()]
            free = [each for each in nodes if each.running < each.max_jobs and not each.is_wedged]
            if not waiting or not free:
                return
            self._turn += 1
            job = waiting[self._turn % len(waiting)]
            task, job.next_task = job.next_task, next(job.todo, None)
            assert task is not None
            self._start(free[0], job, task)

    def _start(self, node: Node, job: Job, task: Task) -> None:
        node.running += 1
        self._log(job, f"SUBMITTED to http://{node.hostname}", task)
        if node.is_dead:
            return
        thread = threading.Thread(
            target=self._run, args=(node, job, task), name=f"double-{job.id}-{task.number}"
        )
        self._threads = [each for each in self._threads if each.is_alive()] + [thread]
        thread.start()

    def _run(self, node: Node, job: Job, task: Task) -> None:
        if not task.args:
            self.lose_node(node)
            return
        is_good = self._execute(node, job, task)
        with self.lock:
            if node.is_dead or self._is_closed:
                return
            node.running -= 1
            if self.jobs.get(job.id) is job:
                self._count(job, task, is_good=is_good)
            self._hand_out()

    def _count(self, job: Job, task: Task, *, is_good: bool) -> None:
        job.finished += is_good
        job.errored += not is_good
        self._log(job, "FINISHED" if is_good else "ERRORED", task)
        job.last_modified = self._clock.stamp()
        if job.finished + job.errored >= job.total:
            self._touch(job, "COMPLETE", "SUCCESS")  # whatever happened, and also after a stop
            self._write(job.id, "log", b"COMPLETED\n")

    def _touch(self, job: Job, state: str, status: str) -> None:
        job.state, job.status, job.last_modified = state, status, self._clock.stamp()

    # --- running one task ---

    def _execute(self, node: Node, job: Job, task: Task) -> bool:
        """Run the command to its end, which includes the end of both pipes; whether it ended with 0."""
        program, fault = find_program(task.args[0], node.folder, self._environment.get("PATH", ""))
        if fault:
            self._write(job.id, "err", f"Error finding {task.args[0]}: {fault}\n".encode())
            return False
        words = [program, *task.args[1:], job.id, str(task.line), str(task.number)]
        process = self._spawn(words, node)
        if process is None:
            return False
        header = b"" if self._is_old else f'TASK : "{program}{" ".join(words[1:])}" ERRORED: \n'.encode()
        try:
            with self.lock:
                job.running.add(process)
            self._collect(job, process, header)
            return process.wait() == 0
        finally:
            with self.lock:
                job.running.discard(process)
                self._processes.discard(process)

    def _spawn(self, words: list[str], node: Node) -> subprocess.Popen[bytes] | None:
        """Start a process, as leader of a group so that it can be cleared away; None if it cannot start."""
        with self.lock:
            if self._is_closed:
                return None
            try:
                process = subprocess.Popen(
                    words,
                    cwd=node.folder,
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                )
            except (OSError, ValueError):
                return None
            self._processes.add(process)
            return process

    def _collect(self, job: Job, process: subprocess.Popen[bytes], header: bytes) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout as out, process.stderr as err:
            other = threading.Thread(target=self._copy, args=(job, "err", err, header))
            other.start()
            self._copy(job, "out", out, b"")
            other.join()

    def _copy(self, job: Job, kind: str, lines: Iterator[bytes], header: bytes) -> None:
        for line in lines:
            text = line.removesuffix(b"\n").removesuffix(b"\r")
            if text:  # the real one drops empty lines
                clean = text.decode("utf-8", "replace").encode()
                with self.lock:
                    self._write(job.id, kind, header + clean + b"\n")

    # --- files ---

    def _log(self, job: Job, event: str, task: Task) -> None:
        line = " ".join([event, job.id, str(task.number), str(task.line), *task.args])
        self._write(job.id, "log", f"{line}\n".encode())

    def _write(self, job_id: str, kind: str, content: bytes, *, truncate: bool = False) -> None:
        """Append to ``<job id>.<kind>.txt``; the id is used unchecked, as the real one does."""
        if kind == "log" and self._is_old:
            return
        with (
            contextlib.suppress(OSError),
            (self.output / f"{job_id}.{kind}.txt").open("wb" if truncate else "ab") as file,
        ):
            file.write(content)


def _tasks(lines: Lines) -> Iterator[Task]:
    numbers = itertools.count()
    for line, (count, args) in enumerate(lines):
        for _ in range(count):
            yield Task(line, next(numbers), args)


def find_program(name: str, folder: Path, path: str) -> tuple[str, str]:
    """Look a command up as Go's ``exec.LookPath`` does: its path, or the fault in Go's words."""
    if "/" in name:
        fault = _fault_of(folder / name)
        return name, fault and f'exec: "{name}": {fault.replace("PATH", name)}'
    for part in path.split(os.pathsep):
        if name and not _fault_of(Path(part) / name):
            return str(Path(part) / name), ""
    return name, f'exec: "{name}": executable file not found in $PATH'


def _fault_of(program: Path) -> str:
    try:
        mode = program.stat().st_mode
    except (OSError, ValueError):
        return "stat PATH: no such file or directory"
    return "" if stat.S_ISREG(mode) and mode & 0o111 else "permission denied"
