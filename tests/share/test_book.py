"""What a job's folder says: read in any order, and with the invariants of leases whatever happens."""

import itertools
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from golem_magic import payload
from golem_magic.errors import FormatError
from golem_magic.model import Failure, Head, WorkerId
from golem_magic.share import files, outcome_files
from golem_magic.share.book import Book, LeaseLog, parse_head, read_lease_log
from golem_magic.share.layout import (
    Cut,
    Done,
    Entry,
    JobPaths,
    Lease,
    Lost,
    data_name,
    parse_entry,
    parse_lease,
    parse_offer,
    signature,
    signer,
)

pytestmark = pytest.mark.unit

ME = WorkerId("p-0-aaaa")


def done_to(start: int, end: int, by: str = ME, failed: int = 0) -> str:
    return "../../data/" + data_name(start, end, failed, 10, 0xABC, by)


@pytest.fixture
def paths(tmp_path: Path) -> JobPaths:
    job = JobPaths(str(tmp_path / "job"))
    for folder in (job.root, *job.folders):
        os.mkdir(folder)
    return job


def put(paths: JobPaths, names: dict[str, str]) -> None:
    for name, target in names.items():
        files.make_folder(f"{paths.rounds}/{name.split('/')[0]}")
        os.symlink(target, f"{paths.rounds}/{name}")


# --- names ---


ranges = st.tuples(st.integers(0, 10**9), st.integers(1, 10**6)).map(lambda pair: (pair[0], sum(pair)))


@given(number=st.integers(0, 10**6), span=ranges, generation=st.integers(1, 99))
def test_the_name_of_a_lease_and_of_its_offer_say_all(
    number: int, span: tuple[int, int], generation: int
) -> None:
    lease = Lease(number, *span, generation)

    assert parse_offer(lease.offer) == lease
    assert parse_lease(number, str(lease).partition("/")[2]) == lease


@given(
    span=ranges,
    failed=st.integers(0, 99),
    size=st.integers(0, 2**40),
    checksum=st.integers(0, 2**32 - 1),
    writer=st.sampled_from(["p-0-aaaa", "client-3", "client-3-12ab", "a.b"]),
)
def test_a_done_entry_says_all(
    span: tuple[int, int], failed: int, size: int, checksum: int, writer: str
) -> None:
    file = data_name(*span, failed, size, checksum, writer)

    assert parse_entry("../../data/" + file) == Done(*span, failed, size, checksum, writer, file)


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *(
            (parse_entry, text)
            for text in ("", "cut:", "cut:x", "done:1", "../../data/1-2", "../../data/a.b.c.d.e")
        ),
        *((parse_offer, text) for text in ("", "1", "x_1-2.1", "1_1.1", "1_1-2", ".nfs0001")),
        *((lambda text: parse_lease(0, text), text) for text in ("", "1-2", "1-2.x", "a-b.1")),
        *((parse_head, text) for text in ("", "1 2 3", "1 2 3 x", "1 2 3 4 5")),
    ],
)
def test_what_is_no_name_of_ours_is_a_format_error(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(FormatError):
        parse(text)


def test_a_lease_is_signed_by_one_runner_of_a_worker() -> None:
    assert signature(ME, 1) != signature(ME, 2)
    assert signer(signature(ME, 12)) == ME


# --- one log ---

LEASE = Lease(0, 0, 20, 1)


def log_of(*entries: str, lease: Lease = LEASE) -> LeaseLog:
    return LeaseLog(lease, ME, {number: parse_entry(entry) for number, entry in enumerate(entries)})


LOGS: dict[str, tuple[LeaseLog, tuple[int, int, int], tuple[bool, bool]]] = {
    # entries: (done to, end, next entry), (closed, finished)
    "nothing yet": (log_of(), (0, 20, 0), (False, False)),
    "a part": (log_of(done_to(0, 5)), (5, 20, 1), (False, False)),
    "all": (log_of(done_to(0, 5), done_to(5, 20)), (20, 20, 2), (False, True)),
    "cut": (log_of("cut:8"), (0, 8, 1), (False, False)),
    "cut and done": (log_of(done_to(0, 3), "cut:8", done_to(3, 8)), (8, 8, 3), (False, True)),
    "cut twice": (log_of("cut:8", done_to(0, 2), "cut:4"), (2, 4, 3), (False, False)),
    "lost": (log_of(done_to(0, 3), "lost:client-1"), (3, 20, 2), (True, False)),
    "lost at its end": (log_of("cut:3", done_to(0, 3), "lost:client-1"), (3, 3, 3), (True, True)),
    "condemned": (log_of(done_to(0, 1, "client-1"), lease=Lease(0, 0, 1, 3)), (1, 1, 1), (True, True)),
    "another's outcome": (log_of(done_to(0, 1, "client-1")), (1, 20, 1), (True, False)),
}


@pytest.mark.parametrize(("log", "numbers", "flags"), LOGS.values(), ids=LOGS.keys())
def test_what_a_log_says(log: LeaseLog, numbers: tuple[int, int, int], flags: tuple[bool, bool]) -> None:
    assert (log.done_to, log.end, log.next_entry) == numbers
    assert (log.is_closed, log.is_finished) == flags


def test_what_lies_behind_a_missing_entry_is_not_there_yet() -> None:
    log = LeaseLog(LEASE, ME, {0: parse_entry(done_to(0, 5)), 2: Lost("client-1"), 3: Cut(9)})

    assert (log.done_to, log.end, log.next_entry, log.is_closed) == (5, 20, 1, False)


def spans(leases: list[Lease]) -> list[tuple[int, int, int]]:
    return [(lease.start, lease.end, lease.generation) for lease in leases]


SUCCESSORS: dict[str, tuple[LeaseLog, list[tuple[int, int, int]]]] = {
    "of an open one": (log_of(done_to(0, 5)), []),
    "of a finished one": (log_of(done_to(0, 20)), []),
    "of a cut": (log_of("cut:16"), [(16, 18, 1), (18, 20, 1)]),
    "of two cuts": (log_of("cut:18", "cut:16"), [(18, 19, 1), (19, 20, 1), (16, 17, 1), (17, 18, 1)]),
    "of a lost one": (log_of(done_to(0, 16), "lost:x"), [(16, 18, 2), (18, 20, 2)]),
    "of a cut and lost one": (log_of("cut:19", done_to(0, 18), "lost:x"), [(19, 20, 1), (18, 19, 2)]),
    "of one lost again": (
        log_of(done_to(0, 15), "lost:x", lease=Lease(0, 0, 20, 2)),
        [(15, 16, 3), (16, 18, 3), (18, 20, 3)],
    ),
    "of one lost at its last task": (
        log_of(done_to(0, 19), "lost:x", lease=Lease(0, 0, 20, 2)),
        [(19, 20, 3)],
    ),
    "of one task": (log_of("lost:x", lease=Lease(0, 7, 8, 1)), [(7, 8, 2)]),
    "of a condemned one": (log_of(done_to(7, 8, "client-1"), lease=Lease(0, 7, 8, 3)), []),
}


@pytest.mark.parametrize(("log", "wanted"), SUCCESSORS.values(), ids=SUCCESSORS.keys())
def test_successors(log: LeaseLog, wanted: list[tuple[int, int, int]]) -> None:
    assert spans(log.successors(workers=1)) == wanted


# --- a book ---

STORY = {
    "0/head": "0 5 2 10",
    "0/0-5.1": f"{ME}+1",
    "0/0-5.1+0": done_to(0, 2, failed=1),
    "0/0-5.1+1": "cut:4",
    "0/0-5.1+2": done_to(2, 3),
    "0/0-5.1+3": "lost:client-1",
    "0/4-5.1": "q-1-bbbb+1",
    "0/4-5.1+0": done_to(4, 5, "q-1-bbbb"),
    "0/3-4.2": "q-1-bbbb+2",
    "0/3-4.2+0": done_to(3, 4, "q-1-bbbb"),
    "0/5-10.1": "q-1-bbbb+1",
    "0/5-10.1+0": done_to(5, 10, "q-1-bbbb", failed=2),
    "1/head": "10 20 2 45",
    "1/10-30.1": f"{ME}+2",
    "1/10-30.1+0": done_to(10, 12),
    "1/10-30.1+1": "cut:20",
    "1/20-25.1": "q-1-bbbb+2",
}


def facts(book: Book) -> Any:
    return (
        sorted(book.done),
        book.n_outcomes,
        book.n_failed,
        book.lowest_failing,
        sorted(book.free_leases(workers=1)),
        sorted(str(log.lease) for log in book.open_leases()),
        book.n_in_rounds,
        sorted(book.open_rounds),
    )


def test_a_story(paths: JobPaths) -> None:
    put(paths, STORY)
    book = Book(paths)

    assert book.look()
    assert not book.look()
    assert sorted(book.done) == [0, 2, 3, 4, 5, 10]
    assert (book.n_outcomes, book.n_failed, book.n_in_rounds) == (12, 3, 45)
    assert book.lowest_failing is not None
    assert book.lowest_failing.start == 0
    assert spans(book.free_leases(workers=1)) == [(30, 45, 1), (25, 30, 1)]
    assert [str(log.lease) for log in book.open_leases()] == ["1/10-30.1", "1/20-25.1"]
    assert spans(book.free_leases(workers=1, rounds_behind=1)) == [(25, 30, 1)]
    found = [book.entry_with(task) for task in (0, 1, 2, 9, 11, 12, 50)]
    assert [entry and entry.start for entry in found] == [0, 0, 2, 5, 10, None, None]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), n_looks=st.integers(1, len(STORY)))
def test_names_may_be_seen_in_any_order(seed: int, n_looks: int) -> None:
    """A listing can miss names: an entry before its lease, a lease before its head, a log with gaps."""
    chance = random.Random(seed)
    names = list(STORY)
    chance.shuffle(names)
    looks = set(chance.sample(range(len(names)), n_looks))
    with tempfile.TemporaryDirectory() as folder:
        paths = JobPaths(folder)
        os.mkdir(paths.rounds)
        growing = Book(paths)
        for number, name in enumerate(names):
            put(paths, {name: STORY[name]})
            if number in looks:
                growing.look()
        growing.look()
        growing.look()
        at_once = Book(paths)
        at_once.look()

        assert facts(growing) == facts(at_once)


def test_a_round_whose_tasks_are_done_is_not_listed_again(paths: JobPaths) -> None:
    put(paths, STORY)
    book = Book(paths)
    book.look()

    shutil.rmtree(f"{paths.rounds}/0")
    os.mkdir(f"{paths.rounds}/0")

    assert not book.look()
    assert 0 not in book.open_rounds
    assert book.entry_with(3) is not None


def test_a_lease_is_read_afresh_with_its_log_alone(paths: JobPaths) -> None:
    put(paths, STORY)

    log = read_lease_log(paths, "0/0-5.1")

    assert log is not None
    assert (log.worker, log.done_to, log.end, log.is_closed) == (ME, 3, 4, True)
    other = read_lease_log(paths, "0/4-5.1")
    assert other is not None
    assert len(other.entries) == 1
    assert read_lease_log(paths, "0/1-2.1") is None
    assert read_lease_log(paths, "7/1-2.1") is None


def test_an_empty_job_has_nothing(paths: JobPaths) -> None:
    book = Book(paths)

    assert not book.look()
    assert facts(book) == ([], 0, 0, None, [], [], 0, [])
    assert book.entry_with(0) is None


def test_outcomes_are_read_back_with_failures_at_their_places(paths: JobPaths) -> None:
    failure = Failure(
        kind="raised", exception=None, type_name="E", message="", traceback="", host="", worker=""
    )
    target = outcome_files.write(paths, 7, payload.dump(([1, None, 3], {1: failure})), (3, 1), ME)
    entry = parse_entry(target)
    assert isinstance(entry, Done)

    assert outcome_files.read(paths, entry) == [1, failure, 3]
    assert outcome_files.first_failure(paths, entry) == (8, failure)

    (file,) = Path(paths.data).iterdir()
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(FormatError, match="tasks 7 to 9 cannot be read"):
        outcome_files.read(paths, entry)


# --- any order of claims, entries, cuts and closings ---


class Owner:
    """Somebody who took a lease and goes on with it as far as it lets him, alive or late."""

    def __init__(self, lease: Lease, worker: WorkerId) -> None:
        self.lease = lease
        self.worker = worker
        self.at, self.end = lease.start, lease.end
        self.n_entries = 0
        self.is_over = False


class Sharing(RuleBasedStateMachine):
    """Real links in a real folder, against what each task's outcome must be."""

    owners = Bundle("owners")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp(prefix="gm-")
        self.paths = JobPaths(self.folder)
        os.mkdir(self.paths.rounds)
        self.growing = Book(self.paths)
        self.n_rounds = self.end = 0
        self.workers = 2
        self.number = itertools.count()
        self.outcomes: dict[int, str] = {}
        self.taken: set[Lease] = set()
        self.closed: set[Lease] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def book(self) -> Book:
        book = Book(self.paths)
        book.look()
        return book

    def enter(self, lease: Lease, target: str, number: int) -> bool:
        """Create an entry, and keep the model's account of outcomes."""
        made = files.link(target, f"{self.paths.rounds}/{lease}+{number}")
        entry: Entry = parse_entry(target)
        if made and isinstance(entry, Done):
            for task in range(entry.start, entry.end):
                assert task not in self.outcomes, f"a second outcome of task {task}"
                self.outcomes[task] = entry.file
        return made

    @initialize(length=st.integers(1, 40), slots=st.integers(1, 2))
    def open_the_first_round(self, length: int, slots: int) -> None:
        self.open_round(length=length, slots=slots, short=0)

    @precondition(lambda self: self.n_rounds < 4)
    @rule(length=st.integers(1, 40), slots=st.integers(1, 3), short=st.integers(0, 5))
    def open_round(self, length: int, slots: int, short: int) -> None:
        end = self.end + max(1, length * slots - short)
        os.mkdir(f"{self.paths.rounds}/{self.n_rounds}")
        head = f"{self.paths.rounds}/{self.n_rounds}/head"
        assert files.link(f"{self.end} {length} {slots} {end}", head)
        self.n_rounds, self.end = self.n_rounds + 1, end

    @precondition(lambda self: self.book().free_leases(self.workers))
    @rule(target=owners, data=st.data())
    def claim(self, data: st.DataObject) -> Owner:
        lease = data.draw(st.sampled_from(sorted(self.book().free_leases(self.workers))))
        worker = WorkerId(f"w-{next(self.number)}-aaaa")
        path = f"{self.paths.rounds}/{lease}"
        assert lease not in self.taken, "a name came back"
        assert files.link(signature(worker, 1), path)
        assert not files.link(signature(WorkerId("another"), 1), path)
        self.taken.add(lease)
        return Owner(lease, worker)

    @rule(owner=owners, count=st.integers(1, 6))
    def publish(self, owner: Owner, count: int) -> None:
        """Alive or taken for dead: an owner goes on until an entry of somebody else stops it."""
        end = min(owner.end, owner.at + count)
        if owner.is_over or end == owner.at:
            return
        if self.enter(owner.lease, done_to(owner.at, end, owner.worker), owner.n_entries):
            owner.at = end
            owner.n_entries += 1
        else:
            owner.is_over = True

    @rule(owner=owners, share=st.floats(0, 1))
    def cut(self, owner: Owner, share: float) -> None:
        at = owner.at + 1 + int(share * (owner.end - owner.at))
        if owner.is_over or at >= owner.end:
            return
        if self.enter(owner.lease, f"cut:{at}", owner.n_entries):
            owner.end = at
            owner.n_entries += 1
        else:
            owner.is_over = True

    @precondition(lambda self: self.book().open_leases())
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        """A dispatcher takes a lease for lost, or condemns the one task of it; its owner may live."""
        logs = {log.lease: log for log in self.book().open_leases()}
        lease = data.draw(st.sampled_from(sorted(logs)))
        if lease.generation >= 3 and lease.end - lease.start == 1:
            target = done_to(lease.start, lease.end, "client-1", failed=1)
        else:
            target = "lost:client-1"
        assert self.enter(lease, target, logs[lease].next_entry)
        self.closed.add(lease)

    @invariant()
    def every_task_is_in_exactly_one_place(self) -> None:
        book = self.book()
        places: list[list[str]] = [[] for _ in range(self.end)]
        for entry in book.order:
            for task in range(entry.start, entry.end):
                places[task].append(f"done {entry.file}")
        for log in book.open_leases():
            assert log.lease not in self.closed
            for task in range(log.done_to, log.end):
                places[task].append(f"held {log.lease}")
        for lease in book.free_leases(self.workers):
            assert lease not in self.taken
            for task in range(lease.start, lease.end):
                places[task].append(f"free {lease}")
        assert all(len(place) == 1 for place in places), places
        found = {task: entry.file for entry in book.order for task in range(entry.start, entry.end)}
        assert found == self.outcomes, "an outcome changed or was lost"
        assert book.n_outcomes == len(self.outcomes)

    @invariant()
    def a_book_that_grew_says_the_same(self) -> None:
        self.growing.look()

        assert facts(self.growing) == facts(self.book())


Sharing.TestCase.settings = settings(max_examples=40, stateful_step_count=50, deadline=None)
TestSharing = Sharing.TestCase


def test_heads_cover_their_slots() -> None:
    assert parse_head("10 20 2 45") == Head(10, 20, 2, 45)
