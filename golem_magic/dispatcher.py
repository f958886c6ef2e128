"""The one thread that follows a job: look at share and engine, ask the planner, act.

Rules of the file. Everything that changes belongs to this thread; others read
the snapshot, which is swapped in whole, or the book, which only grows. A round
leaves nothing half done that the next would not notice and finish. Names are
created exclusively, so a second dispatcher of the same job does no harm. When
this process dies the workers go on; whoever attaches continues here.
"""

import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.engines.base import Engine
from golem_magic.errors import EngineError, GolemMagicError, NoWorkersError
from golem_magic.model import (
    Failure,
    JobSnapshot,
    JobState,
    NativeId,
    PlacementState,
    PlacementStatus,
    WorkerSpec,
)
from golem_magic.planner import Close, Condemn, Finish, Place, Seen, SilentLease, n_alive, plan
from golem_magic.share import files, jobs, outcome_files
from golem_magic.share.book import Book, LeaseLog
from golem_magic.share.inputs_log import count_inputs
from golem_magic.share.layout import JobPaths

LOOK_S = {True: (0.001, 0.02), False: (0.005, 1.0)}  # shortest and longest pause between looks: local share?
PLAN_S = 0.05  # decisions other than "it is done" need not be taken at every look
ASK_S = (0.1, 3.0)  # pauses between two questions to the engine, growing
TIDY_S = 2.0  # so long placed workers may take to leave by themselves when the job is over


class Staging(Protocol):
    """What the dispatcher needs to know of the inputs while they are being drawn."""

    @property
    def staged(self) -> int:
        """Inputs staged so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a job runs.

    Attributes:
        engine: Gives the engine; called in the dispatcher's thread, when first needed.
        lock: Held while the engine is used: it serves all jobs of a client.
        argv: The worker's command, up to and including the manifest's digest.
        owner: Free text shown with placements.
        share_is_local: All workers see the share without slow caches.
    """

    engine: Callable[[], Engine]
    lock: threading.Lock
    argv: tuple[str, ...]
    owner: str
    share_is_local: bool


class Dispatcher:
    """Follows one job until it is over."""

    def __init__(
        self,
        paths: JobPaths,
        manifest: jobs.Manifest,
        site: Site,
        clock: Clock,
        staging: Staging | None = None,
    ) -> None:
        self.paths = paths
        self.manifest = manifest
        self.book = Book(paths)
        self.error: GolemMagicError | None = None
        self.changed = threading.Condition()
        self._site = site
        self._clock = clock
        self._staging = staging
        self._state = JobState.STAGING
        self._n_tasks: int | None = None
        self._born_s = clock.now()
        self._ended_s: float | None = None
        self._wake = threading.Event()
        self._number = jobs.become_client(paths, f"{manifest.host}-{os.getpid()}")
        self._may_place = True
        self._beat = files.BeatWriter(paths.client_beat(self._number))
        self._beat_at = 0.0
        self._plan_at = 0.0
        self._ask_at = 0.0
        self._ask_pause_s = ASK_S[0]
        self._is_cancelled = False
        self._placements: dict[NativeId, PlacementStatus] = {}
        self._n_placed = 0
        self._wish: tuple[NativeId, int] | None = None
        self._trouble: EngineError | None = None
        self._trouble_s: float | None = None
        self._retry_at = 0.0
        self._bad: dict[NativeId, int] = {}
        self._outcomes_at_bad = 0
        self._free_since: float | None = None
        self._signs: dict[str, tuple[object, float]] = {}
        self._open: list[LeaseLog] = []
        self._first_failure: tuple[int, str] | None = None
        self._first_failure_of: object = None
        self._snapshot = self._picture()
        self._recover_placements()

    # -- what others use -------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow the job from now on, in a thread of its own."""
        name = f"golem-{self.manifest.job_id[:8]}"
        threading.Thread(target=self._follow, name=name, daemon=True).start()

    def snapshot(self) -> JobSnapshot:
        """The newest picture of the job."""
        return self._snapshot

    @property
    def n_tasks(self) -> int | None:
        """Number of tasks, None while inputs are being drawn."""
        return self._n_tasks

    def close_inputs(self, n_tasks: int) -> None:
        """Learn from this process that all inputs are staged, sooner than the share would tell."""
        self._n_tasks = n_tasks
        self._wake.set()

    def wait(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until ``ready()`` or the job is over, in steps that an interrupt can end."""
        until = None if timeout_s is None else self._clock.now() + timeout_s
        with self.changed:
            while not ready() and not self._state.is_final:
                left = 0.5 if until is None else min(0.5, until - self._clock.now())
                if left <= 0:
                    break
                self.changed.wait(left)
        return ready()

    def cancel(self) -> None:
        """Put the marker that ends the job; what is published stays readable.

        Raises:
            ShareError: The marker could not be written.
        """
        if not self._state.is_final:
            jobs.ask_to_cancel(self.paths)
            self._wake.set()

    # -- the thread ------------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            self._loop()
        except Exception as error:  # noqa: BLE001 - shown to whoever reads the results
            message = f"following job {self.manifest.job_id} failed ({type(error).__name__}: {error})"
            self.error = error if isinstance(error, GolemMagicError) else GolemMagicError(message)
            self._finish(JobState.FAILED)
        finally:
            self._tidy()
            self._beat.close()

    def _loop(self) -> None:
        shortest_s, longest_s = LOOK_S[self._site.share_is_local]
        pause_s = shortest_s
        while True:
            news = self._look()
            if self._is_complete() or self._clock.now() >= self._plan_at:
                self._decide()
            elif news:
                self._publish()
            if self._state.is_final:
                return
            if self._wake.wait(pause_s):
                self._wake.clear()
                news = True
            pause_s = shortest_s if news else min(1.3 * pause_s, longest_s)

    def _look(self) -> bool:
        news = self.book.look()
        now = self._clock.now()
        if now >= self._beat_at:
            self._beat.beat("-")
            self._beat_at = now + self.manifest.beat_s
            control = files.names(self.paths.control)
            self._is_cancelled = self._is_cancelled or "cancel" in control
            self._may_place = max(jobs.client_numbers(control), default=0) <= self._number
            if self._n_tasks is None:
                self._n_tasks = count_inputs(self.paths)
        return news

    def _is_complete(self) -> bool:
        return self._n_tasks is not None and self.book.n_outcomes >= self._n_tasks

    def _decide(self) -> None:
        if self._wake.is_set() or not self._is_cancelled:
            self._is_cancelled = self._is_cancelled or "cancel" in files.names(self.paths.control)
        if self._is_cancelled:
            self._end_placements()
        seen = self._see()
        for action in plan(seen):
            match action:
                case Place(count):
                    self._place(count)
                case Close(name):
                    self._close(name)
                case Condemn(name):
                    self._condemn(name)
                case Finish(state):
                    self._finish(state)
                    return
        self._publish()
        self._plan_at = self._clock.now() + PLAN_S

    def _see(self) -> Seen:
        now = self._clock.now()
        self._ask_engine(now)
        self._open = self.book.open_leases()
        n_free = self._count_free(now)
        return Seen(
            n_tasks=self._n_tasks,
            n_staged=self._n_staged,
            n_outcomes=self.book.n_outcomes,
            n_free=n_free,
            free_s=now - self._free_since if self._free_since is not None else 0.0,
            leases=[self._watch(log, now) for log in self._open],
            lease_s=self.manifest.lease_s,
            placements=self._placements,
            workers=self.manifest.workers,
            trouble_s=now - self._trouble_s if self._trouble_s is not None else 0.0,
            refused=self._trouble is not None and not self._trouble.transient,
            n_bad=len(self._bad),
            is_cancelled=self._is_cancelled,
            may_place=self._may_place,
        )

    @property
    def _n_staged(self) -> int:
        if self._n_tasks is not None:
            return self._n_tasks
        return self._staging.staged if self._staging else self.book.n_in_rounds

    def _count_free(self, now: float) -> int:
        """Count what nobody holds, and announce what has lain about for two decisions."""
        beyond = self._n_staged - self.book.n_in_rounds
        free = self.book.free_leases(self.manifest.workers)
        count = len(free) + max(0, beyond)
        if not count:
            self._free_since = None
            return 0
        if self._free_since is None:
            self._free_since = now
        elif free and now - self._free_since > PLAN_S:
            lying = self.book.free_leases(self.manifest.workers, rounds_behind=2 if beyond > 0 else 0)
            offered = set(files.names(self.paths.offers))
            for lease in lying:
                if lease.offer not in offered:
                    files.touch(f"{self.paths.offers}/{lease.offer}")
        return count

    # -- leases ----------------------------------------------------------------------------------------

    def _watch(self, log: LeaseLog, now: float) -> SilentLease:
        """How long a lease has shown neither an entry nor a beat that names it."""
        name = str(log.lease)
        token, since = self._signs.get(name, (None, now))
        beat = None
        if now - since > self.manifest.lease_s / 2:
            beat = files.read_beat(self.paths.beat(log.worker))
        sign = (log.next_entry, beat[0] if beat and beat[1] == name else token[1] if token else None)  # type: ignore[index]  # a pair when not None
        if sign != token:
            since = now
        self._signs[name] = (sign, since)
        return SilentLease(
            name=name,
            silent_s=now - since,
            worker_ended=self._worker_has_ended(log.worker),
            is_deadly=log.lease.generation >= self.manifest.max_attempts
            and log.lease.end - log.lease.start == 1,
        )

    def _worker_has_ended(self, worker: str) -> bool:
        placement = worker.partition("-")[0]
        return any(
            native.startswith(placement) and status.state is PlacementState.ENDED
            for native, status in self._placements.items()
        )

    def _close(self, name: str) -> None:
        """Take a lease away; "exists" means that its owner just wrote, so it lives."""
        log = self._log_of(name)
        if log is not None:
            files.link(f"lost:client-{self._number}", f"{self.paths.rounds}/{name}+{log.next_entry}")
        self._signs.pop(name, None)

    def _condemn(self, name: str) -> None:
        """Record that a task's worker was lost every time it was tried."""
        log = self._log_of(name)
        if log is None:
            return
        failure = Failure(
            kind="died",
            exception=None,
            type_name="WorkerDied",
            message=f"its worker was lost {log.lease.generation} times while it held this task",
            traceback=_tail(self.paths.log(log.worker)),
            host="an unknown host",
            worker=log.worker,
            attempt=log.lease.generation,
        )
        frame = payload.dump(([None], {0: failure}))
        writer = f"client-{self._number}-{os.urandom(2).hex()}"
        target = outcome_files.write(self.paths, log.lease.start, frame, (1, 1), writer)
        if not files.link(target, f"{self.paths.rounds}/{name}+{log.next_entry}"):
            outcome_files.remove(self.paths, target)
        self._signs.pop(name, None)

    def _log_of(self, name: str) -> LeaseLog | None:
        return next((log for log in self._open if str(log.lease) == name), None)

    # -- placements ------------------------------------------------------------------------------------

    def _recover_placements(self) -> None:
        """Know what earlier clients of this job placed."""
        for name in files.names(self.paths.placements):
            count = int(files.read_link(f"{self.paths.placements}/{name}") or 0)
            self._placements[NativeId(name)] = PlacementStatus(state=PlacementState.PENDING, n_workers=count)
            self._n_placed += count

    def _place(self, count: int) -> None:
        """Ask for workers; the id is on the share before the engine knows it."""
        now = self._clock.now()
        if now < self._retry_at:
            return
        if self._wish is None:
            self._wish = (NativeId(uuid.uuid4().hex), count)
        native_id, count = self._wish
        files.link(str(count), f"{self.paths.placements}/{native_id}")
        spec = WorkerSpec(
            argv=(*self._site.argv, str(self._n_placed)),
            count=count,
            native_id=native_id,
            label=self.manifest.label or self.manifest.function_name,
            owner=self._site.owner,
        )
        try:
            with self._site.lock:
                self._site.engine().submit(spec)
        except EngineError as error:
            self._note_trouble(error, now)
            self._retry_at = now + min(5.0, max(0.2, (now - (self._trouble_s or now)) / 2))
            return
        self._wish = None
        self._trouble, self._trouble_s = None, None
        self._placements[native_id] = PlacementStatus(state=PlacementState.PENDING, n_workers=count)
        self._n_placed += count
        self._free_since = None
        self._ask_pause_s = ASK_S[0]
        self._ask_at = now + self._ask_pause_s

    def _ask_engine(self, now: float) -> None:
        """One question about all placements that have not ended, at growing intervals."""
        if now < self._ask_at:
            return
        ids = [native for native, status in self._placements.items() if _may_change(status)]
        longest_s = 0.25 if self._free_since is not None and self._site.share_is_local else ASK_S[1]
        self._ask_pause_s = min(1.5 * self._ask_pause_s, longest_s)
        self._ask_at = now + self._ask_pause_s
        if not ids:
            return
        try:
            with self._site.lock:
                answers = self._site.engine().poll(ids)
        except EngineError as error:
            self._note_trouble(error, now)
            return
        self._trouble, self._trouble_s = None, None
        self._placements.update(answers)
        if self.book.n_outcomes > self._outcomes_at_bad:
            self._bad.clear()
            self._outcomes_at_bad = self.book.n_outcomes
        for native, status in answers.items():
            if status.state is PlacementState.ENDED and status.n_errored:
                self._bad[native] = status.n_errored

    def _note_trouble(self, error: EngineError, now: float) -> None:
        self._trouble = error
        if self._trouble_s is None:
            self._trouble_s = now

    def _end_placements(self) -> None:
        ids = [native for native, status in self._placements.items() if _may_change(status)]
        if not ids:
            return
        try:
            with self._site.lock:
                self._site.engine().cancel(ids)
        except EngineError as error:
            self._note_trouble(error, self._clock.now())

    def _tidy(self) -> None:
        """Let placed workers leave by themselves, then see to it; queued ones are taken back."""
        until = self._clock.now() + TIDY_S
        pause_s = 0.02
        while self._clock.now() < until and self.error is None:
            self._ask_at = 0.0
            self._ask_engine(self._clock.now())
            if not n_alive(self._placements) or self._trouble is not None:
                break
            self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)
        if n_alive(self._placements):
            self._end_placements()

    # -- the picture -----------------------------------------------------------------------------------

    def _finish(self, state: JobState) -> None:
        if state is JobState.FAILED and self.error is None:
            self.error = self._why_failed()
        self._ended_s = self._clock.now()
        self._state = state
        self._publish()

    def _why_failed(self) -> GolemMagicError:
        if self._trouble is not None:
            return self._trouble
        logs = sorted(name for name in files.names(self.paths.workers) if name.endswith(".log"))
        tails = [tail for name in logs[-3:] if (tail := _tail(f"{self.paths.workers}/{name}").strip())]
        n_errored = sum(self._bad.values())
        said = tails[-1].splitlines()[-1] if tails else "none of them left a word"
        message = (
            f"{n_errored} workers in {len(self._bad)} placements ended before they published anything; the "
            f"last said: {said} (logs in {self.paths.workers}; does the workers' Python exist there and see "
            f"the share?)"
        )
        return NoWorkersError(message)

    def _publish(self) -> None:
        if not self._state.is_final:
            if self.book.top is not None:
                self._state = JobState.RUNNING
            elif self._placements:
                self._state = JobState.QUEUED
        self._find_first_failure()
        self._snapshot = self._picture()
        with self.changed:
            self.changed.notify_all()

    def _find_first_failure(self) -> None:
        entry = self.book.lowest_failing
        if entry is not None and entry is not self._first_failure_of:
            self._first_failure_of = entry
            found = outcome_files.first_failure(self.paths, entry)
            if found is not None:
                self._first_failure = (found[0], found[1].summary)

    def _picture(self) -> JobSnapshot:
        is_over = self._state.is_final
        return JobSnapshot(
            job_id=self.manifest.job_id,
            function=self.manifest.function_name,
            label=self.manifest.label,
            state=self._state,
            n_tasks=self._n_tasks,
            n_staged=self._n_staged,
            n_done=self.book.n_outcomes - self.book.n_failed,
            n_failed=self.book.n_failed,
            n_running=0 if is_over else len(self._open),
            n_workers=0 if is_over else len({log.worker for log in self._open}),
            elapsed_s=(self._ended_s or self._clock.now()) - self._born_s,
            first_failure=self._first_failure,
            note=self._note(),
        )

    def _note(self) -> str:
        if self.error is not None:
            return str(self.error)
        if self._trouble is not None and not self._state.is_final:
            return f"the engine does not answer, asking again: {self._trouble}"
        return ""


def _may_change(status: PlacementStatus) -> bool:
    return status.state is not PlacementState.ENDED


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - 2000))
            return log.read().decode(errors="replace")
    except OSError:
        return ""
