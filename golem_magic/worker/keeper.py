"""The process that never runs user code: it beats, obeys, and knows what its runner died of.

A thread could not do this: a task that holds the interpreter lock for a minute
would silence it, and a dead process cannot say what killed it. The runner is a
fork, so it starts in milliseconds and shares the page that names the running
task. Only the death of the keeper itself is left to the client's dispatcher.
"""

import os
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from golem_magic.clock import Clock
from golem_magic.model import Failure, WorkerId
from golem_magic.share import files, outcome_files
from golem_magic.share.book import LeaseLog, read_lease_log
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths, SharePaths, signature
from golem_magic.worker import memory, orphans, seeds
from golem_magic.worker.page import LOADING, NONE, SETUP, Page
from golem_magic.worker.patience import patiently
from golem_magic.worker.runner import Runner

FAR_S = 3600.0
OBEY_S = 2.0  # the longest pause between two looks for the cancel marker, however rare the beats
GRACE_S = 0.5  # between asking a runner to leave and killing it, when the job is cancelled
MOST_ALIKE = 5  # deaths at one place, without any progress, before the worker gives up
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """Where a worker works: all that keeper and runner need to know."""

    share: SharePaths
    paths: JobPaths
    manifest: Manifest
    worker: WorkerId
    number: int


class Death(NamedTuple):
    """What a runner died of, and the most memory that it had."""

    cause: str
    peak_kib: int


class Keeper:
    """Forks runners one after the other until the job has nothing left for this worker."""

    def __init__(self, post: Post, clock: Clock) -> None:
        self._post = post
        self._clock = clock
        self._page = Page()
        self._beat = files.BeatWriter(post.paths.beat(post.worker), through=not post.manifest.share_is_local)
        self._attempts: dict[int, int] = {}
        self._condemned: dict[int, Failure] = {}
        self._n_runners = 0
        self._is_hopeless = False  # no runner survives the set-up function
        self._last_death = ("", 0, 0)
        self._n_alike = 0
        self._runner = 0
        self._runner_is_stopped = False
        self._kill_at_s: float | None = None
        self._timed_out: tuple[int, int] | None = None  # a task and when it began
        self._memory_at_s = 0.0
        self._too_much: int | None = None  # bytes that the runner used when it was ended for that
        self._n_load_deaths: dict[str, int] = {}  # by lease
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def run(self) -> int:
        """Work until nothing is left; give the exit code: 0 unless this worker broke itself."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._ask_to_leave())
        orphans.adopt()
        resume: LeaseLog | None = None
        while True:
            self._start_runner(resume)
            status, peak_kib = self._watch_runner()
            if (status == 0 and self._page.is_over) or self._page.leave:
                self._close_open_lease()
                return 0
            resume = self._blame(status, peak_kib)
            if self._is_hopeless:
                self._close_open_lease()
                return 0
            if self._is_stuck(resume):
                sys.stderr.write(f"golem_magic worker: its runner {_cause(status)} again and again\n")
                self._close_open_lease()
                return 1

    def _is_stuck(self, resume: LeaseLog | None) -> bool:
        """Whether runners die at one place again and again, and no task can be charged with it."""
        n_charged = sum(self._attempts.values()) + len(self._condemned)
        death = (self._page.lease, resume.done_to if resume else 0, n_charged)
        self._n_alike = self._n_alike + 1 if death == self._last_death else 1
        self._last_death = death
        return self._n_alike > MOST_ALIKE

    def _start_runner(self, resume: LeaseLog | None) -> None:
        self._page.clear()
        if resume is not None:
            self._page.lease = str(resume.lease)  # ours, whatever happens before the runner goes on with it
        self._n_runners += 1
        keeper = os.getpid()
        self._runner = os.fork()
        if self._runner:
            with suppress(OSError):  # the child does the same: whoever is first
                os.setpgid(self._runner, self._runner)
            return
        code = 1
        try:
            _forget_the_keeper(keeper)
            self._be_the_runner(resume)
            code = 0
        except BaseException:  # noqa: BLE001 - the process ends here; its log says why
            sys.excepthook(*sys.exc_info())
        finally:
            with suppress(Exception):
                sys.stdout.flush()
            os._exit(code)

    def _be_the_runner(self, resume: LeaseLog | None) -> None:
        post, loaded_before = self._post, frozenset(sys.modules)
        with suppress(OSError):  # another machine need not have it
            os.chdir(post.manifest.folder)
            sys.path.append(post.manifest.folder)
        runner = Runner(
            post.share,
            post.paths,
            post.manifest,
            post.worker,
            signature(post.worker, self._n_runners),
            post.number,
            self._page,
            self._clock,
        )
        runner.run(resume, dict(self._condemned))
        seeds.note(loaded_before)
        self._page.is_over = True

    def _watch_runner(self) -> tuple[int, int]:
        """Beat until the runner ends; give its wait status and its peak memory in KiB."""
        beat_s = self._post.manifest.beat_s
        beat_at = obey_at = self._clock.now()
        while True:
            pid, status, usage = os.wait4(self._runner, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            if pid and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
                self._end_group()
                return status, usage.ru_maxrss
            if pid:
                self._runner_is_stopped = os.WIFSTOPPED(status)
            now = self._clock.now()
            if now >= beat_at:
                # A stopped runner makes no progress: its lease must be able to lapse.
                word = "-" if self._runner_is_stopped else self._page.lease or "-"
                used_bytes = memory.used_bytes(self._runner) if memory.HAS_PROC else 0
                self._beat.beat(word, used_bytes, memory.cpu_s(self._runner))
                beat_at = now + beat_s
            if now >= obey_at:
                self._obey()
                obey_at = now + min(beat_s, OBEY_S)
            if self._kill_at_s is not None and now >= self._kill_at_s:
                self._end_group()
            until = min(
                beat_at,
                obey_at,
                self._kill_at_s or beat_at,
                self._watch_task(now),
                self._watch_memory(now),
            )
            if select.select([self._wake_read], [], [], max(0.0, until - now))[0]:
                os.read(self._wake_read, 4096)

    def _watch_task(self, now: float) -> float:
        """End the runner if its task has taken too long; say when to look again.

        A task that ends just then may have handed over to the next one: whether
        it was the late one that died is decided by what stands on the page.
        """
        limit_s = self._post.manifest.timeout_s
        if limit_s is None:
            return now + FAR_S
        task, began_ns = self._page.task, self._page.began_ns
        if task < 0:  # none
            return now + min(limit_s / 4, 0.05)
        left_s = limit_s - (time.monotonic_ns() - began_ns) / 1e9
        if left_s <= 0:
            self._timed_out = (task, began_ns)
            self._end_group()
            return now + FAR_S
        return now + max(left_s, 0.001)

    def _watch_memory(self, now: float) -> float:
        """End the runner if it uses too much memory; say when to look again."""
        limit = self._post.manifest.memory_bytes
        if limit is None:
            return now + FAR_S
        if now >= self._memory_at_s and self._too_much is None:
            used = memory.used_bytes(self._runner)
            if used > limit:
                self._too_much = used
                self._end_group()
            self._memory_at_s = self._clock.now() + memory.LOOK_S
        return self._memory_at_s

    def _obey(self) -> None:
        """Look for the cancel marker, and whether the job is still there."""
        with suppress(OSError):  # asked again at the next beat
            if self._kill_at_s is None and self._is_unwanted():
                self._page.leave = True
                self._kill_at_s = self._clock.now() + GRACE_S

    def _is_unwanted(self) -> bool:
        try:
            os.stat(self._post.paths.root)
        except FileNotFoundError:  # the job was removed
            return True
        control = files.names(self._post.paths.control)
        return "cancel" in control or "failed" in control

    def _ask_to_leave(self) -> None:
        self._page.leave = True
        self._obey()

    def _end_group(self) -> None:
        """End the runner and whatever its tasks started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._runner, signal.SIGKILL)
        orphans.end(self._clock, besides=self._runner)

    def _lease_log(self) -> LeaseLog | None:
        name = self._page.lease
        if not name:
            return None
        log = patiently(lambda: read_lease_log(self._post.paths, name), self._clock, lambda: self._page.leave)
        return log if log and not log.is_closed and not log.is_finished else None

    def _close_open_lease(self) -> None:
        """A runner that was ended in the middle of a lease leaves it to others, at once."""
        log = self._lease_log()
        if log is not None:
            path = f"{self._post.paths.rounds}/{log.lease}+{log.next_entry}"
            with suppress(OSError):  # else the lease lapses by itself
                files.link(f"lost:{self._post.worker}", path)

    def _blame(self, status: int, peak_kib: int) -> LeaseLog | None:
        """Charge the task that was running; give the lease to go on with.

        Where only the lease is known (a batch of very short tasks) nobody is
        charged: the next runner marks each task, and another death names one.
        """
        task = self._page.task
        log = self._lease_log()
        death = self._death(status, peak_kib)
        if self._timed_out is not None:
            if self._timed_out == (task, self._page.began_ns):
                self._condemned[task] = self._late(task)
            self._timed_out = None
        elif task == SETUP:
            self._blame_setup(death)
        elif task == LOADING and log is not None:
            self._blame_inputs(log, death)
        elif task != NONE and log is not None and log.done_to <= task < log.end:
            self._attempts[task] = self._attempts.get(task, 0) + 1
            if self._attempts[task] >= self._post.manifest.max_attempts:
                self._condemned[task] = self._died("ran this task", self._attempts[task], death)
        return log

    def _blame_inputs(self, log: LeaseLog, death: Death) -> None:
        """Charge all tasks of a lease whose inputs cannot be unpickled: blocks are, only as a whole."""
        name, span = str(log.lease), range(log.done_to, log.end)
        self._n_load_deaths[name] = self._n_load_deaths.get(name, 0) + 1
        if self._n_load_deaths[name] >= self._post.manifest.max_attempts:
            what = f"inputs {span[0]} to {span[-1]}" if len(span) > 1 else "the input"
            failure = self._died(f"unpickled {what}", self._n_load_deaths[name], death)
            self._condemned |= dict.fromkeys(span, failure)

    def _late(self, task: int) -> Failure:
        return Failure(
            kind="timeout",
            exception=None,
            type_name="TaskTimeout",
            message=f"it took longer than {self._post.manifest.timeout_s:g} s and was ended",
            traceback=files.tail(self._post.paths.log(self._post.worker)),
            host=socket.gethostname(),
            worker=self._post.worker,
        )

    def _blame_setup(self, death: Death) -> None:
        """Give the whole job up if the set-up function has ended its process too often."""
        self._attempts[SETUP] = self._attempts.get(SETUP, 0) + 1
        if self._attempts[SETUP] >= self._post.manifest.max_attempts:
            failure = self._died("ran the set-up function", self._attempts[SETUP], death)
            patiently(
                lambda: outcome_files.write_fatal(self._post.paths, self._post.worker, failure),
                self._clock,
                lambda: self._page.leave,
            )
            self._is_hopeless = True

    def _died(self, deed: str, attempts: int, death: Death) -> Failure:
        message = (
            f"the worker {death.cause} while it {deed}, {attempts} times out of {attempts}; "
            f"peak memory {death.peak_kib / 1024:.0f} MiB"
        )
        return Failure(
            kind="died",
            exception=None,
            type_name="WorkerDied",
            message=message,
            traceback=files.tail(self._post.paths.log(self._post.worker)),
            host=socket.gethostname(),
            worker=self._post.worker,
            attempt=attempts,
        )

    def _death(self, status: int, peak_kib: int) -> Death:
        used, self._too_much = self._too_much, None
        limit = self._post.manifest.memory_bytes
        if used is None or limit is None:
            return Death(_cause(status), peak_kib)
        cause = f"used {used >> 20} MiB of memory, more than its limit of {limit >> 20} MiB, and was ended"
        return Death(cause, peak_kib)


def _cause(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"ended with exit code {os.WEXITSTATUS(status)}"
    number = os.WTERMSIG(status)
    with suppress(ValueError):
        hint = " (often the system's answer to too little memory)" if number == signal.SIGKILL else ""
        return f"was ended by {signal.Signals(number).name}{hint}"
    return f"was ended by signal {number}"


def _forget_the_keeper(keeper: int) -> None:
    """Become a process of its own group with the usual signals, that ends when its keeper is killed."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with suppress(OSError):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != keeper:
        os._exit(1)
