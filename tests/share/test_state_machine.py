"""Claims, tenures, closings and offers in any order, against a plain model of who may record what.

The product's own classes act on a real folder in one thread: :class:`Claims` and :class:`Tenure` of several
workers, :class:`Healer` and :class:`Book` of a dispatcher. The model knows three places for a task: free,
held under a lease, done. Calls to the share may fail, with or without having had their effect.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from golem_magic import payload
from golem_magic.dispatcher.healing import Healer
from golem_magic.model import Digest, Failure, JobId, PlacementState, WorkerId
from golem_magic.pacing import Pace
from golem_magic.share import files, jobs, outcome_files, space
from golem_magic.share.book import Book, read_lease_log
from golem_magic.share.inputs_log import InputReader, InputWriter
from golem_magic.share.layout import JobPaths, Lease, Lost, parse_entry, signature
from golem_magic.worker.claims import Claims
from golem_magic.worker.tenure import RevokedError, Tenure

pytestmark = pytest.mark.unit

FAST = "/dev/shm" if os.path.isdir("/dev/shm") else None
LEASE_S = 10.0
MAX_ATTEMPTS = 2
FAULTS = ("fails", "fails with its effect", "is sent twice")


class Trouble:
    """``os`` for the share: of the creations that follow, some go wrong in the ways that were asked for."""

    def __init__(self) -> None:
        self.coming: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def statvfs(self, _path: str) -> Any:
        return SimpleNamespace(f_blocks=1 << 30, f_bavail=1 << 30, f_frsize=4096)

    def symlink(self, target: str, path: str) -> None:
        fault = self.coming.pop() if self.coming else ""
        if fault == "fails":
            raise OSError(errno.EIO, "Input/output error")
        os.symlink(target, path)
        if fault == "fails with its effect":
            raise OSError(errno.ETIMEDOUT, "Connection timed out")
        if fault == "is sent twice":
            raise FileExistsError(errno.EEXIST, "File exists")


class Clock:
    """Nobody waits for it."""

    def __init__(self) -> None:
        self.at_s = 0.0

    def now(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.at_s += seconds


@dataclass
class Held:
    """What the model knows of a lease."""

    at: int
    end: int
    n_entries: int = 0
    is_closed: bool = False


class Worker:
    """One that claims and publishes, by the product's own means."""

    def __init__(self, machine: "Sharing", number: int) -> None:
        self.number = number
        self.id = WorkerId(f"place-{number}-aaaa")
        self.n_runners = 0
        self.beat = files.BeatWriter(machine.paths.beat(self.id))
        self.tenure: Tenure | None = None
        self.lease: Lease | None = None
        self.start_runner(machine)

    def start_runner(self, machine: "Sharing") -> None:
        self.n_runners += 1
        self.signature = signature(self.id, self.n_runners)
        reader = InputReader(machine.paths)
        reader.refresh()
        parts = (machine.paths, machine.manifest, reader, machine.clock, machine.is_leaving, self.signature)
        self.claims = Claims(*parts, self.number)

    def drop(self) -> None:
        self.tenure = self.lease = None


class Sharing(RuleBasedStateMachine):
    """The job, its workers and its dispatcher; the model is ``free``, ``held`` and ``done``."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="gm-", dir=FAST)
        self.trouble = Trouble()
        files.os = space.os = self.trouble  # type: ignore[attr-defined]
        self.clock = Clock()
        self.is_cancelled = False
        self.workers: list[Worker] = []
        self.n_values = self.n_workers = 0

    def teardown(self) -> None:
        try:
            if hasattr(self, "paths"):
                self.finish()
        finally:
            files.os = space.os = os  # type: ignore[attr-defined]
            for worker in self.workers:
                worker.beat.close()
            shutil.rmtree(self.folder)

    @initialize(
        n_tasks=st.integers(1, 30), planned=st.integers(1, 3), chunk_size=st.sampled_from([None, 1, 4, 10])
    )
    def stage(self, n_tasks: int, planned: int, chunk_size: int | None) -> None:
        share = jobs.make_share(self.folder)
        self.paths: JobPaths = share.job(JobId("0" * 32))
        self.manifest = manifest(planned, chunk_size)
        jobs.make_job(self.paths, self.manifest)
        writer = InputWriter(self.paths)
        writer.append(payload.dump(list(range(n_tasks))), n_tasks)
        writer.close()
        self.n_tasks = n_tasks
        self.free = set(range(n_tasks))
        self.held: dict[Lease, Held] = {}
        self.done: dict[int, Any] = {}
        self.seen: dict[int, Any] = {}
        self.observer, self.book = Book(self.paths), Book(self.paths)
        self.healer = Healer(self.paths, self.manifest, "client-1", self.clock)
        self.workers.append(self.new_worker())

    def is_leaving(self) -> bool:
        return self.is_cancelled

    def new_worker(self) -> Worker:
        self.n_workers += 1
        return Worker(self, self.n_workers - 1)

    @contextmanager
    def going_wrong(self, faults: list[str]) -> Iterator[None]:
        """Whoever is to leave does not try again: what its last step did, nobody there knows."""
        self.trouble.coming = [] if self.is_cancelled else list(faults)
        try:
            yield
        finally:
            self.trouble.coming = []

    def holder(self, who: int) -> tuple[Worker, Tenure, Lease]:
        """One of those that hold a lease, or take it for theirs."""
        holding = [worker for worker in self.workers if worker.tenure is not None]
        worker = holding[who % len(holding)]
        assert worker.tenure is not None
        assert worker.lease is not None
        return worker, worker.tenure, worker.lease

    def is_held(self) -> bool:
        return any(worker.tenure is not None for worker in self.workers)

    def is_idle(self) -> bool:
        return any(worker.tenure is None for worker in self.workers)

    # -- what workers do -------------------------------------------------------------------------------

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def a_worker_comes(self) -> None:
        self.workers.append(self.new_worker())

    @precondition(is_idle)
    @rule(who=st.integers(0, 3), faults=st.lists(st.sampled_from(FAULTS), max_size=4))
    def claim(self, who: int, faults: list[str]) -> None:
        idle = [worker for worker in self.workers if worker.tenure is None]
        worker = idle[who % len(idle)]
        with self.going_wrong(faults):
            lease = worker.claims.next(Pace(task_s=0.01))
            if lease is not None:
                self.note_claim(worker, lease)

    def note_claim(self, worker: Worker, lease: Lease) -> None:
        tasks = range(lease.start, lease.end)
        assert not self.is_cancelled
        assert set(tasks) <= self.free, f"{lease} was claimed although not all of it is free"
        self.free -= set(tasks)
        self.held[lease] = Held(lease.start, lease.end)
        self.hold(worker, lease, base=lease.start, end=lease.end, next_entry=0)

    def hold(self, worker: Worker, lease: Lease, *, base: int, end: int, next_entry: int) -> None:
        parts = (self.paths, lease, worker.signature, self.clock, self.is_leaving)
        worker.lease = lease
        worker.tenure = Tenure(*parts, base=base, todo=list(range(base, end)), next_entry=next_entry)

    @precondition(is_held)
    @rule(who=st.integers(0, 3), count=st.integers(1, 12))
    def run(self, who: int, count: int) -> None:
        """Alive or taken for dead: tasks are run; each run gives another value."""
        _, tenure, _ = self.holder(who)
        for task in tenure.todo[len(tenure.out) :][:count]:
            self.n_values += 1
            tenure.out.append((task, self.n_values))

    @precondition(is_held)
    @rule(who=st.integers(0, 3), faults=st.lists(st.sampled_from(FAULTS), max_size=3))
    def publish(self, who: int, faults: list[str]) -> None:
        worker, tenure, lease = self.holder(who)
        held, first, values = self.held[lease], tenure.published, tenure.out[tenure.published :]
        with self.going_wrong(faults):
            try:
                tenure.publish(len(tenure.out), None)
            except RevokedError:
                assert held.is_closed, f"{lease} is not closed, and its owner was refused"
                worker.drop()
                return
            if values:
                assert not held.is_closed, f"{lease} was continued after it was closed"
                assert held.at == tenure.base + first
                self.done.update((value[0], value) for value in values)
                held.at += len(values)
                held.n_entries += 1
                assert held.at <= held.end, f"{lease} was continued past its cut"
        if tenure.published >= len(tenure.todo):
            worker.drop()

    @precondition(is_held)
    @rule(
        who=st.integers(0, 3), keep=st.integers(0, 10), faults=st.lists(st.sampled_from(FAULTS), max_size=3)
    )
    def cut(self, who: int, keep: int, faults: list[str]) -> None:
        worker, tenure, lease = self.holder(who)
        held = self.held[lease]
        with self.going_wrong(faults):
            try:
                released = tenure.cut(keep)
            except RevokedError:
                assert held.is_closed
                worker.drop()
                return
            if released is not None:
                assert not held.is_closed
                assert (held.at <= released[0], released[1]) == (True, held.end)
                assert released[0] > tenure.base + len(tenure.out), "a task that was begun was handed back"
                held.end = released[0]
                held.n_entries += 1
                self.free |= set(range(*released))
                worker.claims.released(*released, lease)

    # -- what befalls them -----------------------------------------------------------------------------

    @precondition(lambda self: self.workers)
    @rule(who=st.integers(0, 3), whole=st.booleans())
    def crash(self, who: int, whole: bool) -> None:
        """A worker is gone; or only its runner, and the next one goes on with the lease."""
        worker = self.workers[who % len(self.workers)]
        lease = worker.lease
        worker.drop()
        if whole:
            worker.beat.close()
            self.workers.remove(worker)
            self.workers.append(self.new_worker())
            return
        worker.start_runner(self)
        log = read_lease_log(self.paths, str(lease)) if lease is not None else None
        if lease is None or log is None:
            return
        held = self.held[lease]
        facts = (log.done_to, log.end, log.next_entry, log.is_closed)
        assert facts == (held.at, held.end, held.n_entries, held.is_closed)
        if not log.is_closed and not log.is_finished:
            self.hold(worker, lease, base=log.done_to, end=log.end, next_entry=log.next_entry)

    @rule(beating=st.sets(st.integers(0, 3)), is_late=st.booleans(), faults=st.lists(st.sampled_from(FAULTS)))
    def time_passes(self, beating: set[int], is_late: bool, faults: list[str]) -> None:
        """A dispatcher watches: leases whose workers do not beat are closed; its own look may be old."""
        if self.is_cancelled:
            return
        if not is_late:
            self.book.look()
        for _ in range(3):
            lost = self.watch()
            self.clock.sleep(0.6 * LEASE_S)
            for number, worker in enumerate(self.workers):
                if number in beating:
                    worker.beat.beat(str(worker.lease or "-"))
        with self.going_wrong(faults):
            for name, is_deadly in lost:
                with suppress(OSError):  # said at the next look
                    (self.healer.condemn if is_deadly else self.healer.close)(name)
                self.note_closing(name)

    def watch(self) -> list[tuple[str, bool]]:
        leases = self.healer.watch(self.book.open_leases(), lambda _worker: PlacementState.RUNNING)
        return [(lease.name, lease.is_deadly) for lease in leases if lease.silent_s > LEASE_S]

    def note_closing(self, name: str) -> None:
        """Whether a closing had its effect is seen at the server alone: replies may be lost."""
        lease, held = next((lease, held) for lease, held in self.held.items() if str(lease) == name)
        path = f"{self.paths.rounds}/{name}+{held.n_entries}"
        if held.is_closed or not os.path.islink(path):
            return
        entry = parse_entry(os.readlink(path))
        held.is_closed = True
        held.n_entries += 1
        if isinstance(entry, Lost):
            self.free |= set(range(held.at, held.end))
            return
        assert (held.at, held.end) == (lease.start, lease.start + 1), "a task was blamed that was not alone"
        assert lease.generation > MAX_ATTEMPTS
        self.done[held.at] = "died"
        held.at = held.end

    @rule(is_late=st.booleans())
    def announce(self, is_late: bool) -> None:
        """Offers are hints: those of an old look do no harm."""
        if not is_late:
            self.book.look()
        for lease in self.book.free_leases(self.manifest.workers):
            files.touch(f"{self.paths.offers}/{lease.offer}")

    @rule()
    def offers_vanish(self) -> None:
        for name in files.names(self.paths.offers):
            os.unlink(f"{self.paths.offers}/{name}")

    @precondition(lambda self: self.done)
    @rule()
    def cancel(self) -> None:
        jobs.ask_to_cancel(self.paths)
        self.is_cancelled = True

    # -- what must hold --------------------------------------------------------------------------------

    @invariant()
    def the_share_says_what_the_model_says(self) -> None:
        if not hasattr(self, "paths"):
            return
        self.observer.look()
        self.compare(self.observer)

    def compare(self, book: Book) -> None:
        for entry in book.order:
            if entry.start not in self.seen:
                values = enumerate(outcome_files.read(self.paths, entry), entry.start)
                self.seen.update((at, "died" if type(value) is Failure else value) for at, value in values)
        assert self.seen == self.done, "an outcome was lost, doubled or changed"
        assert book.n_outcomes == len(self.done)
        free = [
            task
            for lease in book.free_leases(self.manifest.workers)
            for task in range(lease.start, lease.end)
        ]
        free += range(book.n_in_rounds, self.n_tasks)
        assert sorted(free) == sorted(self.free), "what is free is not what the model says"
        held = {log.lease: (log.done_to, log.end) for log in book.open_leases()}
        still = {lease: (each.at, each.end) for lease, each in self.held.items() if not each.is_closed}
        assert held == {lease: span for lease, span in still.items() if span[0] < span[1]}

    def finish(self) -> None:
        """Without further trouble a job with a live worker ends; what was recorded stays."""
        if not self.is_cancelled:
            for worker in self.workers:
                worker.beat.close()
            self.workers = [self.new_worker()]
            for _ in range(3 * self.n_tasks + 10):
                self.time_passes({0}, False, [])
                self.announce(False)
                if self.is_idle():
                    self.claim(0, [])
                if self.is_held():
                    self.run(0, self.n_tasks)
                    self.publish(0, [])
                self.the_share_says_what_the_model_says()
                if len(self.done) == self.n_tasks:
                    break
            assert sorted(self.done) == list(range(self.n_tasks)), "a live worker left the job unfinished"
        self.seen = {}
        afresh = Book(self.paths)
        afresh.look()
        self.compare(afresh)


def manifest(planned: int, chunk_size: int | None) -> jobs.Manifest:
    return jobs.Manifest(
        job_id=JobId("0" * 32),
        function_name="f",
        label="",
        python="",
        function=Digest(""),
        common=None,
        star=False,
        workers=planned,
        chunk_size=chunk_size,
        beat_s=2.0,
        lease_s=LEASE_S,
        max_attempts=MAX_ATTEMPTS,
        created_s=0.0,
        on_error="raise",
        host="here",
        engine="tests",
        folder="/",
        uid=os.geteuid(),
    )


HEALTHY = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


def test_any_order_of_steps_agrees_with_the_model() -> None:
    """The same examples each time: what fails here fails everywhere."""
    chosen = settings(max_examples=100, stateful_step_count=40, derandomize=True, **HEALTHY)
    run_state_machine_as_test(Sharing, settings=chosen)


@pytest.mark.slow
def test_many_more_orders_agree_too() -> None:
    """New examples each time, except where ``CI`` is set."""
    chosen = settings(
        max_examples=1500, stateful_step_count=60, derandomize="CI" in os.environ, print_blob=True, **HEALTHY
    )
    run_state_machine_as_test(Sharing, settings=chosen)


def test_the_machine_gets_everywhere() -> None:
    """The steps above are no use if what they are for does not come about."""
    machine = Sharing()
    try:
        machine.stage(n_tasks=6, planned=1, chunk_size=6)
        machine.claim(0, ["fails with its effect", "is sent twice"])
        machine.run(0, 3)
        machine.publish(0, ["is sent twice"])
        machine.cut(0, 5, ["fails"])
        machine.a_worker_comes()
        machine.time_passes(set(), False, [])
        machine.run(0, 1)
        machine.publish(0, [])
        for _ in range(12):
            machine.announce(False)
            if machine.is_idle():
                machine.claim(1, [])
            machine.time_passes(set(), False, [])
            machine.crash(1, whole=True)
        assert [span.is_closed for span in machine.held.values()].count(True) > 3
        assert "died" in machine.done.values()
        machine.the_share_says_what_the_model_says()
    finally:
        machine.teardown()
