"""Following a job from its first input to its last outcome.

Rules of the room. Everything that changes belongs to the dispatcher's thread;
others read the snapshot, which is swapped in whole, or the book, which only
grows. A round leaves nothing half done that the next would not notice and
finish. Names are created exclusively, so a second dispatcher of the same job
does no harm. When this process dies the workers go on; whoever attaches
continues here.
"""

import os
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from golem_magic.clock import Clock, wall_time
from golem_magic.dispatcher.disk import DiskWatch
from golem_magic.dispatcher.healing import Healer
from golem_magic.dispatcher.placements import Placements
from golem_magic.dispatcher.reading import Reading
from golem_magic.dispatcher.reasons import never_came, no_workers, saying_that_it_goes_on
from golem_magic.dispatcher.rivals import Rivals
from golem_magic.dispatcher.site import Site
from golem_magic.errors import FormatError, GolemMagicError, JobError, ShareError
from golem_magic.model import Failure, JobSnapshot, JobState
from golem_magic.planner import Close, Condemn, Finish, Place, Seen, n_alive, plan
from golem_magic.share import files, jobs, outcome_files
from golem_magic.share.book import Book
from golem_magic.share.inputs_log import count_inputs
from golem_magic.share.layout import JobPaths

LOOK_S = {True: (0.001, 0.02), False: (0.005, 1.0)}  # shortest and longest pause between looks: local share?
PLAN_S = 0.05  # decisions other than "it is done" need not be taken at every look
SHARE_PATIENCE_S = 120.0  # with a share that cannot be read; chosen by feel
TIDY_S = 2.0  # so long placed workers may take to leave by themselves when the job is over


class Staging(Protocol):
    """What the dispatcher needs to know of the inputs while they are being drawn."""

    @property
    def staged(self) -> int:
        """Inputs staged so far."""


class Dispatcher:
    """Follows one job until it is over.

    Attributes:
        book: What the share says; others may read what its docstring names.
        error: Why the job was given up, None unless it FAILED.
        fatal: What became of the user's set-up function, if it failed.
        n_tasks: Number of tasks, None while inputs are being drawn or held back.
        n_drawn: The same, known here earlier: all are drawn and held back, or their source can be counted.
        reading: How far readers have come.
        hint: Something the feeder has to say to the user, such as what it waits for.
    """

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
        self.fatal: Failure | None = None
        self.n_tasks: int | None = None
        self.n_drawn: int | None = None
        self.reading, self.hint = Reading(), ""
        self._clock = clock
        self._staging = staging
        self._site = site
        self._number = jobs.become_client(paths, f"{manifest.host}-{os.getpid()}-{uuid.uuid4().hex[:8]}")
        self._beat = files.BeatWriter(paths.client_beat(self._number), through=not manifest.share_is_local)
        self._placements = Placements(paths, site, clock)
        self._healer = Healer(paths, manifest, f"client-{self._number}", clock)
        self._disk = DiskWatch(paths, manifest, clock)
        self._rivals = Rivals(paths, self._number, manifest.lease_s, clock)
        self._changed = threading.Condition()
        self._wake = threading.Event()
        self._is_started = False
        self._unwell_since_s: float | None = None
        self._share_note = ""
        self._born_s = clock.now() - max(0.0, wall_time() - manifest.created_s)
        self._ended_s: float | None = None
        self._beat_at_s = self._plan_at_s = 0.0
        self._state, self._is_cancelled = JobState.STAGING, False
        self._free_since_s: float | None = None
        self._first_failure: tuple[object, tuple[int, str] | None] = (None, None)
        self._look()
        self._catch_up()

    # -- what others use -------------------------------------------------------------------------------

    def start(self) -> None:
        """Follow the job from now on, in a thread of its own; once, however often it is asked for."""
        with self._changed:
            if self._is_started:
                return
            self._is_started = True
        name = f"golem-{self.manifest.job_id[:8]}"
        threading.Thread(target=self._follow, name=name, daemon=True).start()

    @property
    def n_inputs(self) -> int | None:
        """Number of tasks, as early as it can be known; None while inputs are being drawn."""
        return self.n_tasks if self.n_tasks is not None else self.n_drawn

    def snapshot(self) -> JobSnapshot:
        """The newest picture of the job."""
        return self._snapshot

    def wake(self) -> None:
        """Look again at once: there is something new."""
        self._wake.set()

    def close_inputs(self, n_tasks: int) -> None:
        """Learn from this process that all inputs are staged, sooner than the share would tell."""
        with self._changed:
            self.n_tasks = n_tasks
            self._snapshot = self._picture()
        self._wake.set()

    def wait(self, ready: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until ``ready()`` or the job is over, in steps that an interrupt can end."""
        __tracebackhide__ = True
        until = None if timeout_s is None else self._clock.now() + timeout_s
        with saying_that_it_goes_on(self.manifest.job_id), self._changed:
            while not ready() and not self._state.is_final:
                left = 0.5 if until is None else min(0.5, until - self._clock.now())
                if left <= 0:
                    break
                self._changed.wait(left)
        return ready()

    def cancel(self) -> None:
        """Put the marker that ends the job; what is published stays readable.

        Raises:
            ShareError: The marker could not be written.
        """
        if not self._state.is_final:
            jobs.ask_to_cancel(self.paths)
            self._plan_at_s = 0.0
            self._wake.set()

    # -- the thread: look, decide, act -----------------------------------------------------------------

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
            news = self._round()
            if self._state.is_final:
                return
            if self._wake.wait(pause_s):
                self._wake.clear()
                news = True
            pause_s = shortest_s if news else min(1.3 * pause_s, longest_s)

    def _round(self) -> bool:
        """Look, decide, act; trouble with the share may pass, and is told meanwhile."""
        try:
            news = self._look()
            if self._is_complete() or self._clock.now() >= self._plan_at_s:
                self._decide()
            elif news:
                self._publish()
        except (OSError, ShareError) as error:
            now = self._clock.now()
            self._unwell_since_s = self._unwell_since_s or now
            if isinstance(error, FormatError) or now - self._unwell_since_s > SHARE_PATIENCE_S:
                raise
            self._share_note = f"the share does not answer, asking again: {error}"
            self._publish()
            return False
        self._unwell_since_s, self._share_note = None, ""
        return news

    def _look(self) -> bool:
        news = self.book.look()
        now = self._clock.now()
        if now >= min(self._beat_at_s, self._plan_at_s):
            control = files.names(self.paths.control)
            if not control:  # our own name, at least, was in there
                message = f"{self.paths.root} is gone: mount the share again, or map again if it was removed"
                raise ShareError(message)
            self._is_cancelled = self._is_cancelled or "cancel" in control
            self._rivals.look(control)
            if "failed" in control and self.fatal is None:
                self.fatal = outcome_files.read_fatal(self.paths)
            if self.n_tasks is None and "closed" in control:
                self.n_tasks = count_inputs(self.paths)
            self._disk.look()
        if now >= self._beat_at_s:
            self._beat.beat("-")
            self._beat_at_s = now + self.manifest.beat_s
        return news

    def _is_complete(self) -> bool:
        return self.n_tasks is not None and self.book.n_outcomes >= self.n_tasks

    def _decide(self) -> None:
        self._plan_at_s = self._clock.now() + PLAN_S
        if self._is_complete():
            self._finish(JobState.DONE)
            return
        if self._is_cancelled:
            self._placements.end()
        for action in plan(self._see()):
            match action:
                case Place(count):
                    self._free_since_s = None if self._placements.place(count) else self._free_since_s
                case Close(name):
                    self._placements.excuse(self._healer.close(name))
                case Condemn(name):
                    self._healer.condemn(name)
                case Finish(state):
                    self._finish(state)
                    return
        self._publish()

    def _is_orphaned(self) -> bool:
        """Whether the client that was drawing the inputs has died over it."""
        is_staging_elsewhere = self.n_tasks is None and self._staging is None
        return is_staging_elsewhere and not self._rivals.any_alive

    def _half_staged(self) -> JobError:
        message = (
            f"job {self.manifest.job_id[:8]} lost its client while that was drawing the inputs: the "
            f"{self.book.n_outcomes} results that are there can be read, for the others map again"
        )
        return JobError(message)

    def _see(self) -> Seen:
        eagerly = self._is_cancelled or self._free_since_s is not None
        if self._placements.ask(n_outcomes=self.book.n_outcomes, eagerly=eagerly):
            self.book.look()  # who has ended may just have done the work that seems to lie about
        self._open = self.book.open_leases()
        n_free = self._count_free()
        leases = self._healer.watch(self._open, self._placements.word_on)
        is_worked_at = any(lease.silent_s <= self.manifest.lease_s for lease in leases)
        absence = self._placements.absence
        absence.look(self._placements.statuses, is_idle=bool(n_free) and not is_worked_at)
        return Seen(
            n_tasks=self.n_tasks,
            n_outcomes=self.book.n_outcomes,
            n_free=n_free,
            free_s=0.0 if self._free_since_s is None else self._clock.now() - self._free_since_s,
            leases=leases,
            lease_s=self.manifest.lease_s,
            placements=self._placements.statuses,
            workers=self.manifest.workers,
            trouble_s=self._placements.trouble_s,
            refused=self._placements.refused,
            n_bad=len(self._placements.bad),
            n_strays=self._healer.n_strays,
            n_absent=self._placements.n_absent,
            n_slots=absence.n_slots,
            is_cancelled=self._is_cancelled,
            is_hopeless=self.fatal is not None or self._is_orphaned(),
            may_place=not self._rivals.any_newer,
        )

    @property
    def _n_staged(self) -> int:
        if self.n_tasks is not None:
            return self.n_tasks
        return self._staging.staged if self._staging else self.book.n_in_rounds

    def _count_free(self) -> int:
        """Count what nobody holds, and announce what has lain about since the last decision."""
        beyond = max(0, self._n_staged - self.book.n_in_rounds)
        free = self.book.free_leases(self.manifest.workers)
        if not free and not beyond:
            self._free_since_s = None
        elif self._free_since_s is None:
            self._free_since_s = self._clock.now()
        elif free:
            offered = set(files.names(self.paths.offers))
            for lease in self.book.free_leases(self.manifest.workers, rounds_behind=2 if beyond else 0):
                if lease.offer not in offered:
                    files.touch(f"{self.paths.offers}/{lease.offer}")
        return len(free) + beyond

    def _tidy(self) -> None:
        """Let placed workers leave by themselves, then see to it; queued ones are taken back."""
        if self.error is not None:  # workers that go on may still be of use to another client
            return
        until, pause_s = self._clock.now() + TIDY_S, 0.02
        while self._clock.now() < until:
            self._placements.ask(n_outcomes=self.book.n_outcomes, now=True)
            if not n_alive(self._placements.statuses) or self._placements.trouble is not None:
                return
            self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, 0.5)
        while not self._placements.end() and self._clock.now() < until + TIDY_S:
            self._clock.sleep(pause_s)

    # -- the picture -----------------------------------------------------------------------------------

    def _finish(self, state: JobState) -> None:
        if state is JobState.FAILED and self.error is None:
            self.error = self._why_given_up()
        if self._ended_s is None:
            self._ended_s = self._clock.now()
        self._state = state
        self._publish()

    def _catch_up(self) -> None:
        """Draw the first picture, of a job found again too; if that is over, its time stands still."""
        self._open = self.book.open_leases()
        is_over = self._is_complete() or (self._is_cancelled and not self._open)
        if not is_over:
            self._publish()
            return
        with suppress(OSError):  # it is being removed
            ended_s = os.stat(self.paths.data if self._is_complete() else self.paths.cancel).st_mtime
            self._ended_s = self._born_s + max(0.0, ended_s - self.manifest.created_s)
        self._finish(JobState.DONE if self._is_complete() else JobState.CANCELLED)

    def _why_given_up(self) -> GolemMagicError:
        if self.fatal is not None:
            return JobError(f"the set-up function failed on {self.fatal.host}: {self.fatal.summary}")
        if self._is_orphaned():
            return self._half_staged()
        placed = self._placements
        if placed.trouble is not None:
            return placed.trouble
        if placed.n_absent:
            return never_came(placed.n_absent, placed.absence.n_slots)
        return no_workers(self.paths, self.manifest, self._site, placed.bad.values(), placed.last_words())

    def _publish(self) -> None:
        if not self._state.is_final:
            if self.book.top is not None:
                self._state = JobState.RUNNING
            elif self._placements.statuses:
                self._state = JobState.QUEUED
        self._find_first_failure()
        with self._changed:
            self._snapshot = self._picture()
            self._changed.notify_all()

    def _find_first_failure(self) -> None:
        entry = self.book.lowest_failing
        if entry is not None and entry is not self._first_failure[0]:
            self._first_failure = (entry, None)
            with suppress(Exception):  # what cannot be loaded here is told to whoever reads it
                found = outcome_files.first_failure(self.paths, entry)
                if found is not None:
                    self._first_failure = (entry, (found[0], found[1].summary))

    def _picture(self) -> JobSnapshot:
        is_over = self._state.is_final
        return JobSnapshot(
            job_id=self.manifest.job_id,
            function=self.manifest.function_name,
            label=self.manifest.label,
            state=self._state,
            n_tasks=self.n_inputs,
            n_staged=self._n_staged,
            n_done=self.book.n_outcomes - self.book.n_failed,
            n_failed=self.book.n_failed,
            n_running=0 if is_over else len(self._open),
            n_workers=0 if is_over else len({log.worker for log in self._open}),
            elapsed_s=(self._ended_s or self._clock.now()) - self._born_s,
            first_failure=self._first_failure[1],
            n_workers_lost=len(self.book.lost),
            last_takeover=self.book.last_takeover,
            note=self._note(),
        )

    def _note(self) -> str:
        if self.error is not None:
            return str(self.error)
        if self._state.is_final:
            return self._share_note or self.hint
        if self._site.engine is None:
            return f"only watched: its engine, {self.manifest.engine}, is not set up here"
        placing = self._placements.note(self.manifest.workers)
        return self._share_note or placing or self._disk.note or self._healer.note() or self.hint
