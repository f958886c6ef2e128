"""What is said about single tasks: time limits, set-up functions, retries, stopping at the first failure."""

import itertools
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.world import cell, embedded_client

from golem_magic import Client, JobCancelled, Results, TaskError, TaskTimeout, WorkerDied
from golem_magic.errors import PayloadError
from golem_magic.model import JobState


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("task options")) as client:
        yield client


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    """A file in which tasks note what they do, a word each."""
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


def noting(calls: Path) -> Callable[[object], int]:
    """Give a function that notes a word and says how often it has been noted by now."""
    path = str(calls)

    def note(word: object) -> int:
        with open(path, "a+") as file:
            file.write(f"{word}\n")
            file.flush()
            file.seek(0)
            return file.read().split("\n").count(str(word))

    return note


def counted(calls: Path) -> Counter[str]:
    return Counter(calls.read_text().split())


def folder_of(client: Client, results: Results) -> Path:
    assert client.settings.share is not None
    return Path(client.settings.share) / "jobs" / results.job_id


# --- time limits ---


@pytest.mark.parametrize("chunk_size", [1, 7, 100, "auto"])
def test_late_tasks_are_ended_and_no_other_even_in_c_code_that_holds_the_interpreter(
    client: Client, calls: Path, chunk_size: Any
) -> None:
    note, late = noting(calls), {3, 4, 60}

    def slow(x: int) -> int:
        if x in late:
            note(x)
            return sum(range(10**10))
        return x * x

    results = client.map(slow, range(100), timeout=0.3, chunk_size=chunk_size, on_error="return")

    found = list(results)
    assert {x for x, value in enumerate(found) if isinstance(value, TaskTimeout)} == late
    assert [value for x, value in enumerate(found) if x not in late] == [
        x * x for x in range(100) if x not in late
    ]
    assert str(found[60]) == "task 60 gave no outcome: it took longer than 0.3 s and was ended"
    assert f"task 60 on {socket.gethostname()}" in found[60].__notes__[0]
    assert counted(calls) == {"3": 1, "4": 1, "60": 1}
    assert (results.progress.n_done, results.progress.n_failed) == (97, 3)
    assert results.errors().keys() == late


def test_a_task_that_takes_most_of_its_time_is_not_hurt_nor_are_the_short_ones_around_it(
    client: Client,
) -> None:
    def task(x: int) -> int:
        time.sleep(0.75 if x in (5, 30) else 0.001)
        return x

    assert list(client.map(task, range(60), timeout=1.0)) == list(range(60))


def test_a_task_that_is_done_is_not_late_while_the_share_keeps_its_outcome_waiting(
    client: Client, calls: Path
) -> None:
    note = noting(calls)

    def task(x: int) -> int:
        note(x)
        time.sleep(0.1)
        return x

    results = client.map(task, range(12), timeout=0.4, chunk_size=4, workers=1, on_error="return")
    data = folder_of(client, results) / "data"
    wait_until(lambda: counted(calls)["5"], "a lease whose length is known")
    data.rename(data.with_name("away"))
    time.sleep(1.2)
    data.with_name("away").rename(data)

    assert list(results) == list(range(12))


def test_many_late_tasks_in_a_row_cost_no_worker(client: Client) -> None:
    results = client.map(
        lambda x: time.sleep(60), range(24), timeout=0.05, workers=1, chunk_size=24, on_error="return"
    )

    assert [type(value) for value in results] == [TaskTimeout] * 24
    assert len(list((folder_of(client, results) / "placements").iterdir())) == 1
    assert len(list((folder_of(client, results) / "workers").glob("*.log"))) == 1


def test_a_late_task_behind_slow_ones_is_not_handed_to_somebody_who_does_not_know(
    client: Client, calls: Path
) -> None:
    """They are run again before it, by a runner that does not know their pace."""
    note = noting(calls)

    def task(x: int) -> int:
        note(x)
        time.sleep(0.025)
        return sum(range(10**10)) if x == 13 else x

    results = client.map(task, range(15), timeout=0.3, chunk_size=5, workers=1, on_error="return")

    assert [type(value) for value in results] == [int] * 13 + [TaskTimeout, int]
    assert counted(calls)["13"] == 1


def test_a_late_task_is_not_tried_again(client: Client, calls: Path) -> None:
    note = noting(calls)

    def task(x: int) -> None:
        note(x)
        time.sleep(60)

    with pytest.raises(TaskTimeout):
        list(client.map(task, [0], timeout=0.2, retries=3))

    assert counted(calls) == {"0": 1}


def test_each_try_has_the_whole_time_and_pauses_count_nothing(client: Client, calls: Path) -> None:
    note = noting(calls)

    def task(x: int) -> int:
        time.sleep(0.15)
        if note(x) < 4:
            raise ValueError
        return x

    assert list(client.map(task, [7], timeout=0.45, retries=3)) == [7], "the last pause takes 0.4 s"


def test_a_time_limit_costs_short_tasks_little(client: Client) -> None:
    def seconds(timeout: float | None) -> float:
        began = time.monotonic()
        assert client.map(lambda x: x, range(200_000), timeout=timeout).wait(60)
        return time.monotonic() - began

    without, limited = (min(seconds(limit), seconds(limit)) for limit in (None, 30.0))

    print(
        f"200,000 short tasks: {without:.3f} s, with a time limit {limited:.3f} s: {limited / without:.2f} x"
    )
    assert limited < without + 200_000 * 5e-6


# --- set-up ---


@pytest.mark.meets("IP-01")
@pytest.mark.parametrize(
    "more", [{}, {"common": 100}, {"star": True}, {"star": True, "common": 100}], ids=str
)
def test_a_set_up_function_runs_once_per_worker_and_its_value_reaches_every_task(
    client: Client, calls: Path, more: dict[str, Any]
) -> None:
    note, pid = noting(calls), os.getpid

    def connect() -> tuple[int, int, object]:
        note(pid())
        return pid(), 1000, threading.Lock()  # never sent anywhere

    def task(*given: Any) -> tuple[Any, ...]:
        *others, (connected, thousand, _lock) = given
        return (*others, thousand, connected == pid())

    inputs: list[Any] = [(x, -x) for x in range(200)] if more.get("star") else list(range(200))
    results = list(client.map(task, inputs, setup=connect, chunk_size=3, **more))

    common = (100,) if "common" in more else ()
    given = inputs if more.get("star") else [(x,) for x in inputs]
    assert results == [(*each, *common, 1000, True) for each in given]
    assert 1 <= len(counted(calls)) <= 2
    assert set(counted(calls).values()) == {1}


@pytest.mark.meets("IP-01")
def test_a_set_up_function_runs_again_on_a_restarted_worker_only(client: Client, calls: Path) -> None:
    note = noting(calls)

    def task(x: int, _value: None) -> int:
        if x == 5:
            os._exit(1)
        return x

    results = client.map(task, range(50), setup=lambda: note("setup"), workers=1, on_error="return")

    assert [type(value) for value in results] == [int] * 5 + [WorkerDied] + [int] * 44
    assert 4 <= counted(calls)["setup"] <= 5, "once, and after each death"


@pytest.mark.meets("IP-02")
def test_tasks_may_be_instances_that_take_nothing_but_the_set_up_value(client: Client) -> None:
    class Adder:
        def __init__(self, n: float) -> None:
            self.n = n

        def __call__(self, value: float) -> float:
            return self.n + value

    results = client.map(Adder(float("inf")), [()] * 3, star=True, setup=lambda: 1.0)
    nan = client.map(lambda x, _: x, [float("nan"), float("-inf")], setup=lambda: None)

    assert list(results) == [float("inf")] * 3
    assert [repr(x) for x in nan] == ["nan", "-inf"]


@pytest.mark.meets("IP-05")
def test_a_worker_runs_one_task_at_a_time(client: Client, tmp_path: Path) -> None:
    folder = str(tmp_path)

    def task(x: int) -> int:
        mark = f"{folder}/{os.getpid()}"
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))  # fails while another task of this process runs
        time.sleep(0.002)
        os.unlink(mark)
        return x

    assert list(client.map(task, range(60), chunk_size=5)) == list(range(60))


def raise_value() -> None:
    raise ValueError("no connection")


def raise_exit() -> None:
    raise SystemExit(4)


def raise_unpicklable() -> None:
    raise ValueError(threading.Lock())


def die() -> None:
    os._exit(3)


SETUP_FAILURES: dict[str, tuple[Callable[[], None], type[Exception], str]] = {
    "an exception": (raise_value, ValueError, "no connection"),
    "an exit": (raise_exit, TaskError, "the set-up function raised SystemExit: 4"),
    "what cannot be sent back": (
        raise_unpicklable,
        TaskError,
        "the set-up function raised ValueError: <unlocked",
    ),
    "death": (die, WorkerDied, "the worker ended with exit code 3 while it ran the set-up function, 3 times"),
}


@pytest.mark.meets("IP-01")
@pytest.mark.parametrize("failure", SETUP_FAILURES)
def test_a_set_up_function_that_fails_is_told_once_and_ends_the_job(
    client: Client, calls: Path, failure: str
) -> None:
    (setup, kind, message), note = SETUP_FAILURES[failure], noting(calls)

    def noted() -> None:
        note("setup")
        setup()

    began = time.monotonic()
    results = client.map(lambda x, _: note("task"), range(1000), setup=noted)
    each = iter(results)

    with pytest.raises(kind, match=message) as caught:
        next(each)
    assert list(each) == [], "once"
    assert time.monotonic() - began < 10
    assert "the set-up function on " in caught.value.__notes__[0]
    assert results.progress.state is JobState.FAILED
    assert results.progress.note.startswith("the set-up function failed on ")
    assert counted(calls)["task"] == 0
    assert counted(calls)["setup"] <= (6 if failure == "death" else 2)
    assert results.errors() == {}
    with pytest.raises(kind, match=message):
        next(iter(client.attach(results.job_id)))


def test_a_set_up_function_that_cannot_be_sent_is_refused_by_name(client: Client) -> None:
    lock = threading.Lock()

    with pytest.raises(PayloadError, match="set-up function"):
        client.map(lambda x, y: x, range(3), setup=lambda: lock)


def test_a_set_up_function_may_take_longer_than_a_task(client: Client) -> None:
    results = client.map(lambda x, y: x + y, range(3), setup=lambda: time.sleep(0.6) or 10, timeout=0.3)

    assert list(results) == [10, 11, 12]


# --- retries ---


def test_a_task_that_raises_is_tried_again_with_growing_pauses(client: Client, calls: Path) -> None:
    note, path = noting(calls), f"{calls}.times"

    def task(x: int) -> int:
        with open(path, "a") as file:
            file.write(f"{time.monotonic()}\n")
        if note(x) < 4:
            raise ValueError(x)
        return x * x

    results = client.map(task, [7], retries=3)

    assert list(results) == [49]
    assert counted(calls) == {"7": 4}
    assert (results.progress.n_done, results.progress.n_failed) == (1, 0)
    times = [float(word) for word in Path(path).read_text().split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(pause >= 0.1 * 2**n for n, pause in enumerate(pauses)), pauses


@pytest.mark.parametrize("chunk_size", [1, 100])
def test_only_what_failed_is_tried_again_and_counts_once(
    client: Client, calls: Path, chunk_size: int
) -> None:
    note = noting(calls)

    def task(x: int) -> int:
        if note(x) == 1 and x in (3, 4, 99):
            raise ValueError(x)
        return x

    results = client.map(task, range(100), retries=1, chunk_size=chunk_size)

    assert list(results) == list(range(100))
    assert {x for x, count in counted(calls).items() if count == 2} == {"3", "4", "99"}
    assert (results.progress.n_done, results.progress.n_failed) == (100, 0)


def test_the_last_failure_is_told_with_the_number_of_the_try(client: Client, calls: Path) -> None:
    note = noting(calls)

    def task(x: int) -> None:
        raise ValueError(f"try {note(x)}")

    with pytest.raises(ValueError, match="try 3") as caught:
        list(client.map(task, [0], retries=2))

    assert ", attempt 3 " in caught.value.__notes__[0]
    assert counted(calls) == {"0": 3}


def test_each_try_gets_its_input_as_it_was_sent(client: Client, calls: Path) -> None:
    note = noting(calls)

    def task(x: list[int]) -> list[int]:
        x.append(-1)
        if note(x[0]) < 3:
            raise ValueError
        return x

    assert list(client.map(task, [[n] for n in range(4)], retries=2)) == [[n, -1] for n in range(4)]


def test_a_retry_waits_for_a_share_in_trouble(client: Client, calls: Path) -> None:
    note, jobs = noting(calls), f"{client.settings.share}/jobs"

    def task(x: int) -> int:
        if note(x) == 1:
            log = f"{jobs}/{os.environ['GOLEM_MAGIC_JOB']}/inputs.0.log"
            os.rename(log, f"{log}.away")
            raise ValueError
        return x

    results = client.map(task, [5], retries=1, on_error="return")
    away = folder_of(client, results) / "inputs.0.log.away"
    wait_until(away.exists, "the first try")
    time.sleep(0.4)
    away.rename(away.with_suffix(""))

    assert list(results) == [5]


CLASSES = """
class Flaky(Exception): pass
class VeryFlaky(Flaky): pass
class Other(Exception): pass

def fail(kind):
    if note(kind.__name__) == 1:
        raise kind
    return kind.__name__
"""


def test_only_exceptions_of_the_named_classes_are_tried_again(client: Client, calls: Path) -> None:
    defined = cell(CLASSES, note=noting(calls))
    fail, kinds = defined["fail"], [defined[name] for name in ("Flaky", "VeryFlaky", "Other")]
    kinds += [ConnectionError, ConnectionResetError, OSError, SystemExit]

    wanted = (defined["Flaky"], ConnectionError, SystemExit)
    results = client.map(fail, kinds, retries=5, retry_on=wanted, on_error="return")

    assert [value if isinstance(value, str) else type(value).__name__ for value in results] == [
        "Flaky", "VeryFlaky", "Other", "ConnectionError", "ConnectionResetError", "OSError", "SystemExit",
    ]  # fmt: skip
    assert {name for name, count in counted(calls).items() if count == 1} == {"Other", "OSError"}


def test_without_a_class_every_exception_is_worth_another_try_and_nothing_else(
    client: Client, calls: Path
) -> None:
    fail = cell(CLASSES, note=noting(calls))["fail"]

    found = list(client.map(fail, [ValueError, KeyboardInterrupt], retries=1, on_error="return"))

    assert found[0] == "ValueError"
    assert isinstance(found[1].__cause__, KeyboardInterrupt)
    assert counted(calls) == {"ValueError": 2, "KeyboardInterrupt": 1}


# --- stop at the first failure ---


def fail_by_raising() -> None:
    raise ZeroDivisionError("by nought")


FAILURES: dict[str, tuple[Callable[[], Any], type[Exception], dict[str, Any]]] = {
    "an exception": (fail_by_raising, ZeroDivisionError, {}),
    "an exception after retries": (fail_by_raising, ZeroDivisionError, {"retries": 1}),
    "a time limit": (lambda: time.sleep(60), TaskTimeout, {"timeout": 0.3}),
    "death": (lambda: os._exit(1), WorkerDied, {}),
    "a result that cannot be sent": (threading.Lock, TaskError, {"chunk_size": 1}),
}


@pytest.mark.meets("GR-09")
@pytest.mark.parametrize("failure", FAILURES)
def test_a_job_can_stop_at_its_first_failure(client: Client, calls: Path, failure: str) -> None:
    (fail, kind, more), note = FAILURES[failure], noting(calls)

    def task(x: int) -> int:
        if x == 4:
            note("failing")
            fail()
        if x == 4 and kind is TaskError:
            return fail()  # type: ignore[no-any-return]
        time.sleep(0.0 if x < 4 else 0.25)
        return x

    results = client.map(task, range(400), on_error="stop", **more)

    assert results.wait(20)
    took_s = results.progress.elapsed_s
    assert results.progress.state is JobState.CANCELLED
    assert took_s < 4, "a hundred seconds of work were left"
    each = iter(results)
    assert [next(each) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(kind):
        next(each)
    with pytest.raises(JobCancelled, match=r"was stopped because task 4 failed \(.+\) before task 399 had"):
        results[399]
    assert results.progress.n_done < 60
    assert set(results.errors()) == {4}


@pytest.mark.meets("GR-09")
def test_without_the_wish_to_stop_a_failure_stops_nothing(client: Client) -> None:
    results = client.map(lambda x: 1 / (x - 4), range(100))

    assert results.wait(20)
    assert results.progress.state is JobState.DONE
    assert (results.progress.n_done, results.progress.n_failed) == (99, 1)
