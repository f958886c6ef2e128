"""Tasks that end well, badly or strangely: each has one outcome, and its neighbours theirs."""

import os
import socket
import subprocess
import sys
from array import array
from pathlib import Path
from typing import Any

import pytest
from worker.running_worker import make_job

from golem_magic import payload
from golem_magic.clock import SystemClock
from golem_magic.errors import FormatError, PayloadError, TaskError
from golem_magic.model import Failure
from golem_magic.outcomes import rebuild
from golem_magic.share import outcome_files
from golem_magic.share.book import Book
from golem_magic.share.layout import JobPaths, Lease
from golem_magic.worker.tenure import RevokedError, Tenure

CHUNKS = [1, 7, 100, None]


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("n_workers", [1, 3])
def test_every_task_is_run_once_and_has_its_value(
    share: Path, chunk_size: int | None, n_workers: int
) -> None:
    job = make_job(share, "def task(x): return x * x", range(301), workers=n_workers, chunk_size=chunk_size)

    job.work(n_workers)

    assert job.outcomes() == {x: x * x for x in range(301)}
    assert set(job.calls.values()) == {1}
    assert not job.look().open_leases()


def test_one_task_alone_and_no_task_at_all(share: Path) -> None:
    one, none = (make_job(share, "def task(x): return -x", inputs) for inputs in ([5], []))

    one.work()
    none.work()

    assert (one.outcomes(), none.outcomes()) == ({0: -5}, {})


RAISERS = """
class Own(BaseException): pass
class Mute(Exception):
    def __str__(self): raise RuntimeError("no word")
class Stuck(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = __import__("threading").Lock()

KINDS = [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration,
         MemoryError, RecursionError, Own, Mute, Stuck]

def task(x):
    kind = KINDS[x // 3 % len(KINDS)]
    if x % 3 == 1:
        raise kind("about " + str(x))  # the user's line
    return x
"""


@pytest.mark.meets("G-17", "G-19")
@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_whatever_a_task_raises_is_its_own_outcome_and_its_neighbours_are_kept(
    share: Path, chunk_size: int | None
) -> None:
    n_tasks = 66
    job = make_job(share, RAISERS, range(n_tasks), chunk_size=chunk_size)

    job.work()

    outcomes, failures = job.outcomes(), job.failures()
    assert [x for x in range(n_tasks) if outcomes.get(x) == x] == [x for x in range(n_tasks) if x % 3 != 1]
    assert set(failures) == set(range(1, n_tasks, 3))
    assert set(job.calls.values()) == {1}
    kinds = (
        "ValueError SystemExit KeyboardInterrupt GeneratorExit StopIteration StopAsyncIteration MemoryError"
    )
    assert [failures[x].type_name for x in range(1, 33, 3)] == [
        *kinds.split(),
        "RecursionError",
        "Own",
        "Mute",
        "Stuck",
    ]
    for x, failure in failures.items():
        assert failure.kind == "raised"
        assert failure.attempt == 1
        assert "in task" in failure.traceback
        assert "golem_magic" not in failure.traceback, "the worker's own frames are left out"
        if failure.type_name != "Mute":
            assert failure.message.startswith(f"about {x}")
        assert isinstance(rebuild(failure, x), Exception), "nothing that would end the kernel"
    assert failures[28].exception is not None
    assert failures[31].exception is None, "it cannot be pickled, its text must do"


UNPICKLABLE = """
class Refuses:
    def __reduce__(self): raise KeyError("never")

def task(x):
    return {3: lambda: __import__("threading").Lock(), 8: Refuses}.get(x, lambda: x)()
"""


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_a_result_that_cannot_be_pickled_fails_alone(share: Path, chunk_size: int | None) -> None:
    job = make_job(share, UNPICKLABLE, range(12), chunk_size=chunk_size)

    job.work()

    failures = job.failures()
    assert {x: failure.kind for x, failure in failures.items()} == {3: "unpicklable", 8: "unpicklable"}
    assert "lock" in failures[3].message
    assert {x for x, value in job.outcomes().items() if value == x} == set(range(12)) - {3, 8}
    assert set(job.calls.values()) == {1}


def test_a_function_that_cannot_be_loaded_fails_each_task_with_the_reason(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = tmp_path / "site-packages"  # what is not installed would travel
    packages.mkdir()
    (packages / "only_here.py").write_text("def g(x): return x")
    monkeypatch.syspath_prepend(packages)
    job = make_job(share, "def task(x): return g(x)", range(5), g=__import__("only_here").g)

    job.work()

    failures = job.failures()
    assert len(failures) == 5
    error = rebuild(failures[2], 2)
    assert isinstance(error, PayloadError)
    assert "No module named 'only_here'" in str(error)
    assert "install it" in str(error)


def test_inputs_that_were_damaged_fail_with_the_reason(share: Path) -> None:
    job = make_job(share, "def task(x): return x", range(250))
    log = Path(job.staged.paths.inputs_log(0))
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1  # within the second of three blocks
    log.write_bytes(data)

    job.work()

    failures = job.failures()
    assert set(range(100, 200)) <= set(failures)
    assert isinstance(rebuild(failures[150], 150), FormatError)
    assert len(job.outcomes()) == 250
    values = {x for x, value in job.outcomes().items() if value == x}
    assert values | set(failures) == set(range(250))
    assert values, "tasks of whole blocks have run"


BIG = """
def task(x):
    time.sleep(0.005)
    return bytes([x]) * 400_000
"""


@pytest.mark.parametrize("chunk_size", [None, 100])
def test_big_outcomes_are_published_on_the_way(share: Path, chunk_size: int | None) -> None:
    job = make_job(share, BIG, range(40), chunk_size=chunk_size)

    job.work()

    assert job.outcomes() == {x: bytes([x]) * 400_000 for x in range(40)}
    sizes = [entry.size for entry in job.look().order]
    assert max(sizes) < 10e6, "a tenth of a second of the 16 MB that all are"


MOVES = """
def task(x):
    data = jobs + os.environ["GOLEM_MAGIC_JOB"] + "/data"
    if x == 15:
        os.rename(data, data + "-away")  # the next publication fails, but not for long
        if os.fork() == 0:
            time.sleep(0.3)
            os.rename(data + "-away", data)
            os._exit(0)
    return bytes([x]) * 700_000
"""


def test_trouble_while_publishing_passes_and_is_no_outcome_of_a_task(share: Path) -> None:
    """Trouble on the share must neither become somebody's exception nor shift what follows."""
    job = make_job(share, MOVES, range(20), chunk_size=10, jobs=f"{share}/jobs/")

    job.work()

    outcomes = job.outcomes()
    assert {x: value[:1] for x, value in outcomes.items()} == {x: bytes([x]) for x in range(20)}
    assert set(job.calls.values()) == {1}
    assert "trying again" in job.log()


def test_what_a_task_prints_is_in_the_workers_log(share: Path) -> None:
    source = (
        "def task(x):\n    print('out', x)\n    print('err', x, file=sys.stderr)\n    os.system('echo child')"
    )
    job = make_job(share, source, [1, 2])

    job.work()

    lines = job.log().split("\n")
    for line in ("out 1", "out 2", "err 1", "err 2", "child"):
        assert line in lines


# --- one lease ---


@pytest.fixture
def paths(share: Path) -> JobPaths:
    job = JobPaths(str(share / "job"))
    for folder in (job.root, job.rounds, f"{job.rounds}/0", job.data):
        os.mkdir(folder)
    os.symlink("0 10 1 10", f"{job.rounds}/0/head")
    os.symlink("w+1", f"{job.rounds}/0/0-10.1")
    return job


def tenure(paths: JobPaths, values: list[Any], next_entry: int = 0, base: int = 0) -> Tenure:
    made = Tenure(
        paths,
        Lease(0, 0, 10, 1),
        "w+1",
        SystemClock(),
        lambda: False,
        base=base,
        todo=list(range(base, 10)),
        next_entry=next_entry,
    )
    made.out.extend(values)
    return made


def no_failure(error: BaseException) -> Failure:
    raise error


@pytest.mark.unit
@pytest.mark.parametrize("size", [0, 5, None])
def test_a_file_that_was_left_without_an_entry_is_written_anew(paths: JobPaths, size: int | None) -> None:
    """A try that failed half way leaves a file with exactly the name that the next try needs."""
    spent = [0.5, 0.25, 0.125]
    frame = payload.dump(([0, 1, 2], {}, (socket.gethostname(), array("f", spent).tobytes())))
    target = outcome_files.write(paths, 0, frame, (3, 0), "w+1")
    (orphan,) = Path(paths.data).iterdir()
    if size is not None:
        os.truncate(orphan, size)

    again = tenure(paths, [0, 1, 2])
    again.spent += spent
    again.publish(3, no_failure)

    assert os.readlink(f"{paths.rounds}/0/0-10.1+0") == target
    book = Book(paths)
    book.look()
    assert outcome_files.read(paths, book.order[0]) == [0, 1, 2]


@pytest.mark.unit
@pytest.mark.parametrize("entry", ["lost:client-1", "cut:3", "../../data/0-1.1.5.00000000.client-1"])
def test_a_lease_that_was_closed_takes_neither_outcomes_nor_cuts(paths: JobPaths, entry: str) -> None:
    os.symlink(entry, f"{paths.rounds}/0/0-10.1+0")
    publishes, cuts = tenure(paths, [0, 1, 2]), tenure(paths, [0, 1])

    with pytest.raises(RevokedError):
        publishes.publish(3, no_failure)
    with pytest.raises(RevokedError):
        cuts.cut(5)

    assert list(Path(paths.data).iterdir()) == [], "nobody would ever read it"
    assert os.listdir(f"{paths.rounds}/0") != []
    assert {name for name in os.listdir(f"{paths.rounds}/0") if "+" in name} == {"0-10.1+0"}


@pytest.mark.unit
def test_a_cut_gives_back_what_has_not_begun_and_nothing_else(paths: JobPaths) -> None:
    lease = tenure(paths, [0, 1, 2])

    assert lease.cut(10) is None
    assert lease.cut(3) is None, "the runner is already there: taken back"
    assert lease.todo == list(range(10))
    assert lease.cut(4) == (4, 10)
    assert lease.todo == [0, 1, 2, 3]
    assert os.readlink(f"{paths.rounds}/0/0-10.1+0") == "cut:4"


@pytest.mark.unit
def test_publications_follow_each_other_and_forget_their_values(paths: JobPaths) -> None:
    lease = tenure(paths, ["a", "b"])
    lease.publish(1, no_failure)
    lease.publish(1, no_failure)
    lease.out.append("c")
    lease.publish(3, no_failure)

    book = Book(paths)
    book.look()
    assert [(entry.start, outcome_files.read(paths, entry)) for entry in book.order] == [
        (0, ["a"]),
        (1, ["b", "c"]),
    ]
    assert lease.out == [None] * 3


def test_a_tasks_error_is_a_task_error_where_it_cannot_be_raised_as_itself(share: Path) -> None:
    job = make_job(share, "def task(x): raise StopIteration(x)", [7])

    job.work()

    assert isinstance(rebuild(job.failures()[0], 0), TaskError)


def test_six_arguments_are_wanted() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "golem_magic.worker.main", "a", "b"], capture_output=True, text=True
    )

    assert done.returncode == 2
    assert "six arguments expected" in done.stderr
