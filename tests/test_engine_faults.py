"""Engines die and lie: the job completes, or ends in a named error, and nothing is computed in vain.

Those that need no more than a second or two run always, the others with ``--slow``.
"""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.golem_double import Fault, FaultKind, GolemDouble
from fakes.world import embedded_client, is_running, master_pid, parent

from golem_magic import Client, EngineError, NoWorkersError, WorkerDied
from golem_magic.model import JobState
from golem_magic.results import Results

PASSWORD = "open sesame"


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes a minute on a cluster takes a second here."""
    monkeypatch.setitem(_constants("client", "BEAT_S"), False, 1.0)  # as on one machine: it may be loaded
    monkeypatch.setitem(_constants("client", "LEASE_S"), False, 5.0)
    monkeypatch.setitem(_constants("dispatcher.follow", "LOOK_S"), False, (0.005, 0.05))
    monkeypatch.setattr("golem_magic.engines.golem.LOST_S", 0.5)
    monkeypatch.setattr("golem_magic.dispatcher.placements.ASK_S", (0.05, 0.1))
    monkeypatch.setattr("golem_magic.dispatcher.placements.RETRY_S", (0.05, 0.2))
    monkeypatch.setattr("golem_magic.dispatcher.absence.CHECK_S", 0.7)
    monkeypatch.setattr("golem_magic.dispatcher.absence.EXPLAIN_S", 0.5)
    monkeypatch.setitem(_constants("planner", "PATIENCE_S"), False, 1.0)


def _constants(module: str, name: str) -> dict[bool, Any]:
    import importlib

    return getattr(importlib.import_module(f"golem_magic.{module}"), name)  # type: ignore[no-any-return]


@pytest.fixture
def golem(tmp_path: Path, brisk: None) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as double:
        yield double


@pytest.fixture
def client(golem: GolemDouble, share: Path) -> Iterator[Client]:
    with Client(engine="golem", server_url=golem.url, server_password=PASSWORD, share=share) as client:
        yield client


class Calls:
    """A function that notes each of its calls, and waits at every task but the first for a gate."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "calls"
        self._folder.mkdir(parents=True)

    @property
    def function(self) -> Callable[[int], int]:
        folder = str(self._folder)

        def task(x: int) -> int:
            with open(f"{folder}/{x}.{os.getpid()}.{os.getppid()}.{time.monotonic_ns()}", "w"):
                pass
            limit = time.monotonic() + 90
            while x and not os.path.exists(f"{folder}/gate") and time.monotonic() < limit:
                time.sleep(0.005)
            return x

        return task

    @property
    def per_task(self) -> Counter[int]:
        return Counter(int(name.split(".")[0]) for name in self._names())

    @property
    def keepers(self) -> set[int]:
        return {int(name.split(".")[2]) for name in self._names()}

    def _names(self) -> list[str]:
        return [name for name in os.listdir(self._folder) if name != "gate"]

    def wait_for(self, n_tasks: int) -> None:
        wait_until(lambda: len(self.per_task) >= n_tasks, f"{n_tasks} tasks begun")

    def release(self) -> None:
        (self._folder / "gate").touch()

    def kill_workers(self) -> None:
        """Whole workers, as the end of their machine would."""
        for keeper in self.keepers:
            if is_running(keeper):
                os.kill(keeper, signal.SIGKILL)
        wait_until(lambda: not any(map(is_running, self.keepers)), "the end of the workers")


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


def begun(client: Client, calls: Calls, n: int = 10) -> Results:
    """A job with two workers, each waiting in a task."""
    results = client.map(calls.function, range(n), chunk_size=1, workers=2)
    assert results[0] == 0
    calls.wait_for(3)
    return results


def placed(client: Client, results: Results) -> list[int]:
    """How many workers each placement asked for."""
    folder = Path(str(client.settings.share)) / "jobs" / results.job_id / "placements"
    return [int(os.readlink(each)) for each in folder.iterdir()]


def everything(results: Results) -> list[int]:
    """All results of a job, which must end in time."""
    assert results.wait(40), results.progress
    return list(results)


def noted(results: Results, *words: str) -> None:
    wait_until(lambda: all(word in results.progress.note for word in words), f"a note with {words}")
    assert "\n" not in results.progress.note


# --- a master that forgets, or says of workers what is not so ---


@pytest.mark.meets("GM-14", "GR-08")
def test_workers_of_a_master_that_restarted_work_on_and_are_counted(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    results = begun(client, calls)
    asked = len(golem.seen)

    golem.restart()
    wait_until(lambda: len(golem.seen) > asked + 10, "questions to the new master")

    assert placed(client, results) == [2]
    assert results.progress.n_running == 2
    calls.release()
    assert everything(results) == list(range(10))
    assert set(calls.per_task.values()) == {1}


@pytest.mark.slow
@pytest.mark.meets("GM-14", "IP-06")
def test_workers_that_died_with_a_master_that_forgot_them_are_replaced(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    results = begun(client, calls)

    golem.restart()
    calls.kill_workers()
    wait_until(lambda: len(placed(client, results)) > 1, "another placement")
    calls.release()

    assert everything(results) == list(range(10))
    assert max(calls.per_task.values()) <= 2


LIES: dict[str, dict[str, Any]] = {
    "all ended": {"Progress": {"Total": 2, "Finished": 2, "Errored": 0}},
    "all failed": {"State": "COMPLETE", "Progress": {"Total": 2, "Finished": 0, "Errored": 2}},
    "billions": {"Progress": {"Total": 10**12, "Finished": 0, "Errored": 0}},
    "more than there were": {"Progress": {"Total": 2, "Finished": 10**15, "Errored": 10**15}},
    "less than none": {"Progress": {"Total": -5, "Finished": -7, "Errored": -(10**9)}},
    "nothing": {"Progress": {"Total": 0, "Finished": 0, "Errored": 0}},
    "not begun": {"State": "SCHEDULED"},
    "stopped": {"State": "COMPLETE", "Status": "STOPPED"},
    "no numbers": {"Progress": {"Total": "many", "Finished": None, "Errored": []}},
    "beyond numbers": {"Progress": {"Total": float("inf"), "Finished": float("nan"), "Errored": 1e300}},
    "another shape": {"Progress": [2, 0, 0]},
    "an unknown state": {"State": "DREAMING", "Status": ""},
}


@pytest.mark.meets("GM-14", "GM-08")
def test_workers_that_work_are_believed_and_not_the_master(
    golem: GolemDouble, client: Client, tmp_path: Path
) -> None:
    """A lease that is taken away again and again would at last look deadly."""
    golem.cluster.add_node(len(LIES))
    all_calls = {name: Calls(tmp_path / name) for name in LIES}
    jobs = {
        name: client.map(calls.function, range(4), chunk_size=1, workers=1, label=name)
        for name, calls in all_calls.items()
    }
    for calls in all_calls.values():
        calls.wait_for(2)
    golem.lie = lambda told: {**told, **LIES[told["Label"]]}
    time.sleep(1.0)  # a dozen questions, and twice as many decisions

    for name, calls in all_calls.items():
        assert placed(client, jobs[name]) == [1], name
        calls.release()
    for name, results in jobs.items():
        assert everything(results) == list(range(4)), name
        assert set(all_calls[name].per_task.values()) == {1}, name


@pytest.mark.slow
def test_orphans_of_a_lost_node_keep_what_they_have(golem: GolemDouble, client: Client, calls: Calls) -> None:
    """The node's own process has died and was started again; what it had started runs on."""
    results = begun(client, calls)
    (node,) = golem.cluster.nodes.values()

    golem.cluster.lose_node(node, ghost=False)
    golem.cluster.add_node(2)
    assert not results.wait(1.5)  # longer than it takes to be taken for lost
    calls.release()

    assert everything(results) == list(range(10))
    assert set(calls.per_task.values()) == {1}


# --- a master in trouble ---

TROUBLES: list[FaultKind] = [
    "500",
    "page-500",
    "close",
    "half-head",
    "half-body",
    "garbage",
    "truncated",
    "numbers",
    "nested",
    "html",
    "elsewhere",
    "moved",
    "away",
    "listing",
    "409",
]


@pytest.mark.slow
@pytest.mark.meets("G-34")
def test_no_trouble_of_a_master_keeps_lost_workers_from_being_replaced(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    results = begun(client, calls)
    calls.kill_workers()

    for kind in TROUBLES:
        golem.faults[:] = [Fault(kind, times=6)]
        wait_until(lambda: golem.faults[0].times == 0, f"the end of {kind}")
        assert not results.progress.state.is_final, (kind, results.progress.note)
    calls.release()

    assert everything(results) == list(range(10))
    assert max(calls.per_task.values()) <= 2
    assert results.progress.note == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [("500", "internal trouble"), ("html", "did not reach a Golem")],
)
def test_a_master_that_never_takes_the_first_submission_ends_the_job(
    golem: GolemDouble, client: Client, kind: FaultKind, words: str
) -> None:
    assert list(client.map(abs, [-1])) == [1]  # now it has seen that this is a master
    golem.faults.append(Fault(kind, "POST /jobs/", times=10**9))

    results = client.map(abs, range(10))
    with pytest.raises(EngineError, match=words):
        everything(results)

    assert results.progress.state is JobState.FAILED


def test_a_page_of_a_gateway_at_a_submission_is_no_refusal(golem: GolemDouble, client: Client) -> None:
    assert list(client.map(abs, [-1])) == [1]  # now it has seen that this is a master
    golem.faults += [
        Fault("html", "POST /jobs/"),
        Fault("truncated", "POST /jobs/"),
        Fault("listing", "POST /"),
    ]

    assert everything(client.map(abs, range(10))) == list(range(10))
    assert [fault.times for fault in golem.faults] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.meets("GM-14", "IP-08")
def test_a_master_that_answers_but_takes_no_submissions_any_more_ends_the_job(
    golem: GolemDouble, client: Client, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions are answered meanwhile: that does not make the submissions less hopeless."""
    monkeypatch.setitem(_constants("planner", "PATIENCE_S"), True, 2.0)
    results = begun(client, calls)

    golem.restart()
    golem.faults.append(Fault("500", "POST /jobs/", times=10**9))
    calls.kill_workers()

    noted(results, "asking again", "500")
    with pytest.raises(EngineError, match="500, internal trouble"):
        everything(results)
    assert results.progress.state is JobState.FAILED
    assert results[0] == 0


@pytest.mark.slow
@pytest.mark.meets("G-34", "IP-06")
@pytest.mark.parametrize("away_s", [2, 30])
def test_a_master_that_is_away_for_a_while_is_awaited(
    golem: GolemDouble, client: Client, calls: Calls, away_s: float
) -> None:
    """Its workers have died meanwhile, so the job needs it."""
    results = begun(client, calls)
    golem.go_away()
    calls.kill_workers()
    calls.release()

    noted(results, "asking again", "nothing listens there")
    assert not results.wait(away_s)
    golem.come_back()

    assert everything(results) == list(range(10))
    assert results.progress.state is JobState.DONE


@pytest.mark.meets("IP-14")
def test_results_do_not_wait_for_a_master_that_hangs(
    golem: GolemDouble, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golem_magic.dispatcher.placements.SILENT_S", 0.5)

    def slow(x: int) -> int:
        time.sleep(0.1)
        return x

    results = client.map(slow, range(40), chunk_size=1)
    each = iter(results)
    assert next(each) == 0
    golem.faults.append(Fault("hang", "GET /", times=10**9))

    began, gaps, notes = time.monotonic(), [], set()
    for _ in each:
        gaps.append(time.monotonic() - began)
        began = time.monotonic()
        notes.add(results.progress.note.partition(" for ")[0])

    golem.close()
    assert len(gaps) == 39
    assert max(gaps) < 4  # one request is given up after ten seconds
    assert "the engine has owed an answer" in notes


# --- nodes that die, or only look alive ---


@pytest.mark.slow
@pytest.mark.meets("GM-14", "EX-14", "IP-06")
def test_workers_that_died_with_their_node_are_replaced_although_they_count_as_running(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    results = begun(client, calls)
    (node,) = golem.cluster.nodes.values()

    golem.cluster.lose_node(node, ghost=False)
    calls.kill_workers()
    noted(results, "the engine has no slots")
    golem.cluster.add_node(2)
    calls.release()

    assert everything(results) == list(range(10))
    assert next(iter(golem.cluster.jobs.values())).state == "RUNNING"
    assert max(calls.per_task.values()) <= 2


@pytest.mark.meets("GM-14")
def test_workers_that_a_node_takes_and_never_starts_are_replaced(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    """A worker that outlived its master's restart takes its slots full and says nothing."""
    golem.restart(zombies=True)
    golem.cluster.add_node(2)
    results = client.map(calls.function, range(10), chunk_size=1, workers=2)

    wait_until(lambda: len(placed(client, results)) == 2, "a second placement")
    noted(results, "2 of the workers that were handed to machines never came", "restarted")
    calls.release()

    assert everything(results) == list(range(10))
    assert placed(client, results) == [2, 2]


@pytest.mark.slow
@pytest.mark.meets("IP-08")
def test_a_cluster_that_takes_workers_and_starts_none_ends_the_job(
    golem: GolemDouble, client: Client
) -> None:
    golem.restart(zombies=True)

    results = client.map(abs, range(10))
    with pytest.raises(NoWorkersError, match=r"2 workers were handed to machines and never came.*restart"):
        everything(results)

    assert results.progress.state is JobState.FAILED


@pytest.mark.slow
@pytest.mark.meets("IP-14")
def test_a_job_that_waits_for_slots_says_so_and_is_not_placed_twice(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    first = begun(client, calls)

    second = client.map(abs, range(10))
    noted(second, "no worker has been at work for", "all 2 slots on 1 machine are taken")
    assert second.progress.state is JobState.QUEUED
    asked = len(golem.seen)
    wait_until(lambda: len(golem.seen) > asked + 60, "longer than a worker may be missing")
    assert placed(client, second) == [2]
    calls.release()

    assert everything(second) == list(range(10))
    assert everything(first) == list(range(10))
    assert second.progress.note == ""


@pytest.mark.slow
@pytest.mark.meets("IP-14")
def test_a_cluster_without_machines_is_told_and_awaited(share: Path, tmp_path: Path, brisk: None) -> None:
    with (
        GolemDouble(tmp_path / "golem", slots=(), password=PASSWORD) as golem,
        Client(engine="golem", server_url=golem.url, server_password=PASSWORD, share=share) as client,
    ):
        results = client.map(abs, range(10))
        noted(results, "the engine has no slots; start its workers")
        golem.cluster.add_node(1)

        assert everything(results) == list(range(10))


@pytest.mark.slow
@pytest.mark.meets("IP-14")
def test_workers_that_should_be_starting_and_do_not_are_told(golem: GolemDouble, client: Client) -> None:
    golem.cluster.add_node(1)
    (node, other) = golem.cluster.nodes.values()
    node.is_wedged = other.is_dead = True

    results = client.map(abs, range(10), workers=1)
    noted(results, "2 of 3 slots on 2 machines are free")
    results.cancel()

    assert results.wait(10)


@pytest.mark.slow
@pytest.mark.meets("EX-14")
def test_a_placement_that_somebody_else_ends_is_replaced(
    golem: GolemDouble, client: Client, calls: Calls
) -> None:
    results = begun(client, calls)
    (job,) = golem.cluster.jobs.values()

    golem.cluster.stop(job)
    calls.kill_workers()
    calls.release()

    assert everything(results) == list(range(10))
    assert max(calls.per_task.values()) <= 2


# --- the embedded Golem ---


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Client]:
    with embedded_client(tmp_path) as client:
        yield client


def master_of(client: Client) -> int:
    pid = master_pid(Path(str(client.settings.state_dir)))
    assert pid is not None
    return pid


@pytest.mark.meets("GM-21", "GM-14")
def test_a_killed_embedded_golem_is_not_missed_while_its_workers_work(local: Client, calls: Calls) -> None:
    results = begun(local, calls)
    keepers = calls.keepers
    first = master_of(local)

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first), "its end")
    assert not results.wait(1.5)  # longer than it takes to notice
    assert placed(local, results) == [2]
    calls.release()

    assert everything(results) == list(range(10))
    assert set(calls.per_task.values()) == {1}
    assert calls.keepers == keepers


@pytest.mark.slow
@pytest.mark.meets("GM-21", "GM-14")
def test_the_next_embedded_golem_comes_with_the_next_need_and_takes_up_the_living(
    local: Client, calls: Calls
) -> None:
    """One of two workers dies with the master: one is placed, by a new master that knows the other."""
    results = begun(local, calls)
    first = master_of(local)
    victim, survivor = sorted(calls.keepers)

    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first), "its end")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(placed(local, results)) == 2, "a replacement")
    assert sorted(placed(local, results)) == [1, 2]
    wait_until(lambda: master_pid(Path(str(local.settings.state_dir))) not in (None, first), "a new master")
    wait_until(lambda: len(calls.keepers) == 3, "the new worker")
    assert is_running(survivor)
    calls.release()

    assert everything(results) == list(range(10))
    assert sum(calls.per_task.values()) <= 11, "only what the dead one was at"


@pytest.mark.slow
@pytest.mark.meets("GM-21", "IP-06")
def test_the_end_of_master_zygote_and_workers_at_once_costs_seconds(local: Client, calls: Calls) -> None:
    results = begun(local, calls)
    first = master_of(local)
    family = {first, *calls.keepers, *(parent(keeper) for keeper in calls.keepers)} - {1, os.getpid()}

    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    calls.release()
    began = time.monotonic()

    assert everything(results) == list(range(10))
    assert time.monotonic() - began < 15
    assert max(calls.per_task.values()) <= 2
    assert sum(calls.per_task.values()) <= 12


@pytest.mark.slow
def test_an_embedded_golem_that_hangs_holds_nobody_up(local: Client, calls: Calls) -> None:
    results = begun(local, calls)
    pid = master_of(local)

    os.kill(pid, signal.SIGSTOP)
    try:
        noted(results, "the engine has owed an answer")
        calls.release()
        began = time.monotonic()
        assert everything(results) == list(range(10))
        assert time.monotonic() - began < 5
    finally:
        os.kill(pid, signal.SIGCONT)
    assert set(calls.per_task.values()) == {1}


@pytest.mark.slow
def test_a_task_that_kills_its_machines_is_still_named(golem: GolemDouble, client: Client) -> None:
    """What the engine says of ended workers must not hide that a task ends them."""

    def deadly(x: int) -> int:
        if x == 3:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        return x

    results = client.map(deadly, range(6), on_error="return", chunk_size=1)
    values = everything(results)

    assert values[:3] + values[4:] == [0, 1, 2, 4, 5]
    assert type(values[3]) is WorkerDied
