"""One job in virtual time on a share that misbehaves: the product's own runners and dispatchers.

What is virtual: time, threads, ``os`` in the share's rooms, the engine, the user's function, and the
keeper's fork: a virtual keeper beats, obeys the marker and starts the next runner, as the real one does.
A referee sits at the server, where nothing is late, and sees each step that decides.
"""

import contextlib
import io
import os
import pickle
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

from fakes.faulty_share import FaultyShare, Weather
from fakes.virtual_engine import Referee, VirtualEngine
from fakes.virtual_time import Process, World

from golem_magic import payload
from golem_magic.dispatcher import Dispatcher, Site
from golem_magic.errors import GolemMagicError, WorkerDied
from golem_magic.model import (
    Failure,
    JobId,
    JobState,
    NativeId,
    WorkerId,
)
from golem_magic.payload import frames
from golem_magic.results import Results, Retries
from golem_magic.share import files, jobs, outcome_files, store
from golem_magic.share.book import Book, LeaseLog, read_lease_log
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import signature
from golem_magic.worker import runner
from golem_magic.worker.page import Page
from golem_magic.worker.patience import patiently

FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None
ROOMS = ("golem_magic.share.", "golem_magic.worker.", "golem_magic.dispatcher.", "golem_magic.results")
REAL = ("golem_magic.share.holds",)  # lets go when an object is collected: in whichever thread that is
HOSTS = ("h0", "h1")
BEAT_S, LEASE_S = 2.0, 10.0
GRACE_S = 0.5
WATCH_S = (0.3, 1.0)  # how often a runner's second thread looks: the product's 10 ms are mostly idle steps
MOST_ALIKE = 5  # as in the keeper


_call: list[Callable[[int], Any]] = []


def call(task: int) -> Any:
    """What every virtual worker finds as the user's function."""
    return _call[-1](task)


class VirtualJob:
    """A staged job with everybody who works on it.

    Args:
        seed: Decides the order of steps, the faults and all else.
        weather: What goes wrong with the share; None draws it.
        n_tasks: Inputs.
        until: When all faults end, in virtual seconds.
    """

    def __init__(
        self,
        seed: int,
        *,
        weather: Weather | None = None,
        n_tasks: int | None = None,
        n_workers: int = 3,
        until: float = 60.0,
    ) -> None:
        self.world = World(seed)
        self.chance = self.world.chance
        self.until = until
        self.n_tasks = n_tasks or self.chance.choice((6, 16, 30))
        self.n_workers = n_workers
        self.folder = tempfile.mkdtemp(prefix="gm-", dir=FAST)
        self.share = jobs.make_share(self.folder)
        self.paths = self.share.job(JobId(f"{seed:032x}"))
        self.layer = FaultyShare(self.folder, self.world, weather or Weather.drawn(self.chance, until))
        self.referee = Referee(self.paths)
        self.layer.on_link, self.layer.on_unlink = self.referee.on_link, self.referee.on_unlink
        self.task_s = self.chance.choice((0.05, 0.3, 2.0))
        self.max_attempts = self.chance.choice((100, 100, 2))  # with 2, innocent tasks get blamed
        self.executions: Counter[int] = Counter()
        self.workers: list[tuple[Process, list[Process], Page]] = []  # keeper, its runners, their page
        self.clients: list[Process] = []
        self.log = io.StringIO()
        self.readings: list[dict[int, Any]] = []
        self.states: list[JobState] = []
        self.told: list[str] = []  # errors that a user would have seen
        self.engine = VirtualEngine(self.world, self._start_worker, self.chance.choice((0.0, 5.0, 40.0)))
        self.manifest = self._stage(self.chance.choice((None, None, 5, 10)))

    # -- what tests use --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Everything virtual is in place, and taken away at the end."""
        numbers = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex=f"{self.chance.getrandbits(128):032x}"))
        stand_ins = {"threading": self.world.threading, "uuid": numbers, "WATCH_S": WATCH_S}
        stand_ins["monotonic_ns"] = lambda: round(1e9 * self.world.now)
        rooms = [
            room for name, room in sorted(sys.modules.items()) if name.startswith(ROOMS) and name not in REAL
        ]
        replaced = [(room, name) for room in rooms for name in stand_ins if name in vars(room)]
        kept = [vars(room)[name] for room, name in replaced]
        cpus = _stay_on_one_cpu()
        _call.append(self._task)
        try:
            for room, name in replaced:
                setattr(room, name, stand_ins[name])
            with self.layer.mounted(*rooms), contextlib.redirect_stderr(self.log):
                try:
                    yield
                finally:
                    self.world.close()
        finally:
            for (room, name), value in zip(replaced, kept, strict=True):
                setattr(room, name, value)
            _call.clear()
            if cpus:
                os.sched_setaffinity(0, cpus)
            shutil.rmtree(self.folder)

    def run(self, *, latest: float = 600.0) -> None:
        """Go on until a client has read everything; then check what must hold."""
        self.run_until(lambda: bool(self.states), latest=latest)
        assert self.states == [JobState.DONE], self.told
        assert sorted(self.outcomes()) == list(range(self.n_tasks))

    def run_until(self, is_over: Callable[[], bool], *, latest: float = 600.0) -> None:
        """Go on until ``is_over()``; then check what must hold at any time."""

        def fallen() -> list[BaseException]:
            mains = [*self.clients, *(keeper for keeper, _, _ in self.workers)]
            errors = [process.error for process in mains if process.error is not None]
            return [error for error in errors if not isinstance(error, OSError | GolemMagicError)]

        self.world.run(lambda: bool(self.referee.complaints) or bool(fallen()) or is_over(), latest=latest)
        for error in fallen():  # what no user should see
            raise error
        self.check()

    def check(self) -> None:
        """Each task has exactly one outcome, right, and the same for everybody who has read it."""
        assert not self.referee.complaints, self.referee.complaints
        found = self.outcomes()
        for reading in self.readings:
            for task, value in reading.items():
                is_same = value == found[task] or (isinstance(value, WorkerDied) and _is_died(found[task]))
                assert is_same, f"task {task} was {value} and is {found[task]}"

    def outcomes(self) -> dict[int, Any]:
        """All outcomes, as the server has them."""
        book = Book(self.paths)
        book.look()
        found: dict[int, Any] = {}
        for entry in book.order:
            for task, value in enumerate(outcome_files.read(self.paths, entry), entry.start):
                assert task not in found, f"two outcomes of task {task}"
                is_right = self.max_attempts == 2 if _is_died(value) else value[0] == task
                assert is_right, f"task {task} gave {value}"
                found[task] = value
        return found

    def start_client(self) -> Process:
        """A client that attaches, and again when it was told an error, until it has read every result."""
        number = len(self.clients)
        process = self.world.start(f"client {number}", "desk", lambda: self._be_a_client(process))
        self.clients.append(process)
        return process

    def start_observer(self) -> None:
        """Somebody who notes each outcome when it is first seen."""
        seen: dict[int, Any] = {}
        self.readings.append(seen)

        def observe() -> None:
            book = Book(self.paths)
            while True:
                with contextlib.suppress(OSError, GolemMagicError):
                    book.look()
                    for entry in book.order:
                        if entry.start not in seen:
                            seen.update(enumerate(outcome_files.read(self.paths, entry), entry.start))
                self.world.sleep(3.0)

        self.world.start("observer", "window", observe)

    def start_worker(self) -> Process:
        """A worker that no engine knows."""
        return self._start_worker(NativeId(f"{self.chance.getrandbits(128):032x}"), len(self.workers))

    def start_chaos(self, n_events: int, *, also_clients: bool = True) -> None:
        """Kill and stop keepers, runners and clients at random moments before the faults end."""
        times = sorted(self.chance.uniform(0.0, self.until) for _ in range(n_events))

        def strike() -> None:
            for at in times:
                self.world.sleep(max(0.0, at - self.world.now))
                self._strike(also_clients)

        self.world.start("chaos", "nowhere", strike)

    # -- parts -----------------------------------------------------------------------------------------

    def _strike(self, also_clients: bool) -> None:
        victims = [worker for worker in self.workers if not (worker[0].is_dead or worker[0].is_over)]
        kind = self.chance.choice(("keeper", "runner", "stop", "stop", "stop", "client"))
        if kind == "client" and also_clients and self.clients:
            self.world.end(self.clients[-1])
            self.start_client()
        elif kind == "client" or not victims:
            return
        keeper, runners, _ = self.chance.choice(victims)
        if kind == "keeper":
            self.world.end(keeper)
            for process in runners:
                self.world.end(process)
        elif kind == "runner" and runners:
            self.world.end(runners[-1])
        elif kind == "stop":
            self.stop((keeper, *runners[-1:]), self.chance.uniform(1.0, 5 * LEASE_S))

    def stop(self, processes: Collection[Process], seconds: float) -> None:
        """No thread of these goes on for a while."""
        for process in processes:
            process.stopped_until = self.world.now + seconds

    def _stage(self, chunk_size: int | None) -> jobs.Manifest:
        manifest = jobs.Manifest(
            job_id=JobId(os.path.basename(self.paths.root)),
            function_name="f",
            label="",
            python="",
            function=store.put(self.share, frames.make(io.BytesIO(pickle.dumps(call)), [])),
            common=None,
            star=False,
            workers=self.n_workers,
            chunk_size=chunk_size,
            beat_s=BEAT_S,
            lease_s=LEASE_S,
            max_attempts=self.max_attempts,
            created_s=0.0,
            on_error="raise",
            host="desk",
            engine="virtual",
            folder="/",
            uid=os.geteuid(),
        )
        jobs.make_job(self.paths, manifest)
        writer = InputWriter(self.paths)
        for start in range(0, self.n_tasks, 7):
            block = list(range(start, min(start + 7, self.n_tasks)))
            writer.append(payload.dump(block), len(block))
        writer.close()
        return manifest

    def _task(self, task: int) -> tuple[int, int]:
        """What the user's function does: like a random one, it gives another value each time."""
        self.executions[task] += 1
        number = self.executions[task]
        self.world.sleep(self.chance.expovariate(1 / self.task_s))
        return task, number

    def _start_worker(self, native_id: NativeId, number: int) -> Process:
        worker = WorkerId(f"{native_id[:8]}-{number}-{len(self.workers):04x}")
        host, page, runners = HOSTS[number % len(HOSTS)], Page(), []
        keeper = self.world.start(
            f"keeper {worker}", host, lambda: self._keep(worker, host, number, page, runners)
        )
        self.workers.append((keeper, runners, page))
        return keeper

    def _keep(self, worker: WorkerId, host: str, number: int, page: Page, runners: list[Process]) -> None:
        beat = files.BeatWriter(self.paths.beat(worker))
        resume: LeaseLog | None = None
        deaths: list[tuple[str, int]] = []
        while True:
            page.clear()
            if resume is not None:
                page.lease = str(resume.lease)
            signed = signature(worker, len(runners) + 1)
            post = (self.share, self.paths, self.manifest, worker, signed, number, page)
            be_a_runner = partial(self._be_a_runner, post, resume)
            runners.append(self.world.start(f"runner {signed}", host, be_a_runner))
            self._watch(runners[-1], beat, page)
            is_well = runners[-1].error is None and not runners[-1].is_dead
            resume = self._open_lease(page)
            deaths.append((page.lease, resume.done_to if resume else 0))
            if is_well or page.leave or deaths[-MOST_ALIKE - 1 :].count(deaths[-1]) > MOST_ALIKE:
                if resume is not None:
                    path = f"{self.paths.rounds}/{resume.lease}+{resume.next_entry}"
                    with contextlib.suppress(OSError):
                        files.link(f"lost:{worker}", path)
                return

    def _be_a_runner(self, post: Any, resume: LeaseLog | None) -> None:
        try:
            runner.Runner(*post, self.world.clock).run(resume)
        except Exception as error:  # noqa: BLE001 - the whole process ends, its second thread too
            process = self.layer.process
            assert process is not None
            process.error = error
            self.world.end(process)

    def _watch(self, process: Process, beat: files.BeatWriter, page: Page) -> None:
        ended = self.world.threading.Event()
        process.on_end.append(ended.set)
        while not process.is_over and not process.is_dead:
            beat.beat(page.lease or "-")
            with contextlib.suppress(OSError):
                page.leave = page.leave or "cancel" in files.names(self.paths.control)
            ended.wait(GRACE_S if page.leave else BEAT_S)
            if page.leave:
                self.world.end(process)

    def _open_lease(self, page: Page) -> LeaseLog | None:
        if not page.lease:
            return None
        log = patiently(lambda: read_lease_log(self.paths, page.lease), self.world.clock, lambda: page.leave)
        return log if log and not log.is_closed and not log.is_finished else None

    def _be_a_client(self, process: Process) -> None:
        while True:
            reading: dict[int, Any] = {}
            self.readings.append(reading)
            try:
                dispatcher = Dispatcher(self.paths, self.manifest, self._site(), self.world.clock)
                dispatcher.start()
                results = Results(
                    dispatcher, Retries(self.share, dispatcher, self._no_retry), on_error="return"
                )
                self._read(results, reading)
                while not results.wait(30.0):
                    pass
                if dispatcher.error is not None:
                    raise dispatcher.error
            except (OSError, GolemMagicError) as error:
                self._note(error)
                self.world.sleep(2.0)
                continue
            self.states.append(dispatcher.snapshot().state)
            return

    @staticmethod
    def _no_retry(job_id: JobId) -> Dispatcher:
        raise AssertionError(f"nobody has asked for the retry {job_id}")

    def _read(self, results: Results, reading: dict[int, Any]) -> None:
        """Iterate; where a result cannot be read now, go on trying."""
        each, task = iter(results), 0
        while True:
            try:
                reading[task] = next(each)
            except StopIteration:
                return
            except (OSError, GolemMagicError) as error:
                if results.progress.state.is_final and results.progress.state is not JobState.DONE:
                    return
                self._note(error)
                self.world.sleep(2.0)
            else:
                task += 1

    def _note(self, error: Exception) -> None:
        assert str(error)
        self.told.append(f"{type(error).__name__}: {error}")

    def _site(self) -> Site:
        return Site(
            engine=lambda: self.engine,  # type: ignore[arg-type,return-value]
            lock=self.world.threading.Lock(),
            argv=("worker",),
            label="f",
            owner="tests",
            share_is_local=False,
        )


def _is_died(value: object) -> bool:
    return isinstance(value, Failure) and value.kind == "died"


def _stay_on_one_cpu() -> set[int]:
    """Threads that go on one at a time do so twice as fast if they need not wake another CPU."""
    if not hasattr(os, "sched_setaffinity"):
        return set()
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus, key=lambda cpu: (cpu != os.getpid() % len(cpus), cpu))})
    return cpus
