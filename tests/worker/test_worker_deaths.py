"""Runners and keepers that are killed: nothing is lost, the guilty task is named, nobody else is blamed."""

import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from share.chaos import run_with_kills
from worker.running_worker import is_running, kill, make_job, runner_of, wait_until

from golem_magic.errors import WorkerDied
from golem_magic.outcomes import rebuild

DEATHS = {
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "os.kill(os.getpid(), signal.SIGSEGV)",
    "exit code 3": "os._exit(3)",
}


@pytest.mark.parametrize("chunk_size", [1, 7, 100, None])
@pytest.mark.parametrize("death", DEATHS)
def test_a_task_that_kills_its_process_is_named_and_its_neighbours_arrive(
    share: Path, death: str, chunk_size: int | None
) -> None:
    task = f"def task(x):\n    if x == 37:\n        print('before the end'); {DEATHS[death]}\n    return x"
    job = make_job(share, task, range(120), chunk_size=chunk_size)

    job.work()

    (failure,) = job.failures().values()
    error = rebuild(failure, 37)
    assert isinstance(error, WorkerDied)
    assert death in str(error)
    assert "task 37" in str(error)
    assert failure.attempt == 3
    assert "before the end" in failure.traceback
    assert {x for x, value in job.outcomes().items() if value == x} == set(range(120)) - {37}
    # where tasks are very short the first death only tells the lease
    assert 3 <= job.calls[37] <= 4
    assert max(count for x, count in job.calls.items() if x > 37) == 1, "those behind it have never begun"


@pytest.mark.parametrize("chunk_size", [7, 100, None])
def test_what_is_published_is_not_run_again_when_a_neighbour_kills_the_process(
    share: Path, chunk_size: int | None
) -> None:
    task = "def task(x):\n    if x == 5:\n        time.sleep(0.3); os._exit(1)\n    return x"
    job = make_job(share, task, range(20), chunk_size=chunk_size)

    job.work()

    assert set(job.failures()) == {5}
    assert 3 <= job.calls[5] <= 4
    assert {x for x, count in job.calls.items() if count > 1} == {5}


def test_several_deadly_tasks_in_one_chunk_are_all_named(share: Path) -> None:
    deadly = {0, 3, 4, 19}
    task = "def task(x):\n    if x in deadly: os._exit(1)\n    return x"
    job = make_job(share, task, range(20), chunk_size=20, deadly=deadly)

    job.work()

    assert set(job.failures()) == deadly
    assert len(job.outcomes()) == 20


def test_a_task_that_dies_once_is_run_again(share: Path) -> None:
    task = (
        "def task(x):\n    if x == 5 and not os.path.exists(calls + '.died'):\n"
        "        open(calls + '.died', 'x').close(); os._exit(1)\n    return x"
    )
    job = make_job(share, task, range(20))

    job.work()

    assert job.outcomes() == {x: x for x in range(20)}
    assert job.calls[5] == 2


def test_a_runner_that_is_killed_in_the_middle_costs_nothing(share: Path) -> None:
    job = make_job(share, "def task(x):\n    time.sleep(0.005)\n    return x", range(200))

    with job.worker() as worker:
        wait_until(lambda: len(job.calls) > 40, "some tasks")
        kill(runner_of(worker.pid))
        assert worker.wait(20) == 0

    assert job.outcomes() == {x: x for x in range(200)}
    repeated = sum(job.calls.values()) - 200
    assert repeated <= 40, "a tenth of a second of finished work and the task in flight"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_runner_does_not_outlive_its_keeper(share: Path) -> None:
    job = make_job(share, "def task(x): time.sleep(60)", range(3))

    with job.worker() as worker:
        runner = runner_of(worker.pid)
        wait_until(lambda: job.calls, "a task")
        kill(worker.pid)
        worker.wait()

        wait_until(lambda: not is_running(runner), "the runner's end", 1.0)


@pytest.mark.meets("IP-07")
def test_a_task_that_holds_the_interpreter_is_not_taken_for_dead(share: Path, tmp_path: Path) -> None:
    """Three seconds in which no thread of the runner can run, with leases that lapse after one."""
    task = (
        "import ctypes\ndef task(x):\n    if x == 3:\n        began = time.monotonic()\n"
        "        while time.monotonic() - began < 3: ctypes.PyDLL(None).usleep(500_000)\n    return x"
    )
    job = make_job(share, task, range(10), beat_s=0.1, lease_s=1.0)

    try:
        report = run_with_kills(job.staged, job.calls_file, n_events=0, seed=0)
    finally:
        job.staged.engine.close()

    assert report.seconds > 3
    assert report.outcomes == list(range(10))
    assert sorted(job.calls) == list(range(10))


@pytest.mark.meets("IP-06", "GR-07", "GR-08")
def test_a_worker_that_is_stopped_for_good_loses_its_lease(share: Path) -> None:
    """The counterpart of the test above: whoever shows no sign of life for a second is replaced."""
    task = "def task(x):\n    time.sleep(0.05)\n    return x"
    job = make_job(share, task, range(20), beat_s=0.1, lease_s=1.0)

    with job.worker() as frozen:
        wait_until(lambda: job.calls, "a task")
        os.killpg(frozen.pid, signal.SIGSTOP)
        kill(runner_of(frozen.pid), signal.SIGSTOP)
        try:
            report = run_with_kills(job.staged, job.calls_file, n_events=0, seed=0)
        finally:
            job.staged.engine.close()
            kill(runner_of(frozen.pid), signal.SIGCONT)
            os.killpg(frozen.pid, signal.SIGCONT)
        before = job.outcomes()
        assert frozen.wait(10) == 0, "woken up late, it finds that all is done"

    assert report.outcomes == list(range(20))
    assert job.outcomes() == before


def test_outcomes_are_published_ten_times_a_second(share: Path) -> None:
    job = make_job(share, "def task(x):\n    time.sleep(0.02)\n    return x", range(60), chunk_size=100)

    job.work()

    paths = job.staged.paths
    links = [link for link in Path(paths.rounds).glob("*/*+*") if "data" in os.readlink(link)]
    times = sorted(link.lstat().st_mtime for link in links)
    first = min(link.lstat().st_mtime for link in Path(paths.rounds).glob("0/*.1"))
    gaps = [b - a for a, b in pairwise([first, *times])]
    assert len(times) >= 5
    assert sorted(gaps)[len(gaps) // 2] < 0.15
    assert max(gaps) < 0.5, gaps  # a busy machine may be late once


def test_outcomes_before_a_long_task_do_not_wait_for_it(share: Path) -> None:
    task = "def task(x):\n    if x == 9: time.sleep(60)\n    return x"
    job = make_job(share, task, range(10), chunk_size=10)

    with job.worker():
        began = time.monotonic()
        wait_until(lambda: len(job.calls) == 10, "the long task")
        wait_until(lambda: len(job.outcomes()) == 9, "what was done before it", 1.0)

    assert time.monotonic() - began < 5
