"""Progress never lies: the numbers add up at every moment and end at the truth."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.engine_contract import wait_until
from fakes.world import cell, embedded_client

from golem_magic import Client, Results
from golem_magic.model import JobSnapshot, JobState
from golem_magic.progress.picture import as_text


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("counts")) as client:
        yield client


class Watcher:
    """Looks at a job all the time, from a thread."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._over = threading.Event()
        self.seen: list[JobSnapshot] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.002):
            self.seen.append(self._results.progress)

    def stop(self) -> list[JobSnapshot]:
        self._over.set()
        self._thread.join()
        return self.seen


@pytest.mark.meets("IP-06")
def test_the_numbers_add_up_at_every_moment_and_end_at_the_truth(client: Client, tmp_path: Path) -> None:
    """300 tasks, every tenth fails, one keeper is killed on the way."""
    names = cell(
        "import os, time\n"
        "def f(x):\n"
        "    with open(f'{folder}/keeper', 'w') as file:\n"
        "        file.write(str(os.getppid()))\n"
        "    time.sleep(0.003)\n"
        "    if x % 10 == 9:\n"
        "        raise ValueError(x)\n"
        "    return x\n",
        folder=str(tmp_path),
    )
    results = client.map(names["f"], range(300), chunk_size=20, on_error="return")
    watcher = Watcher(results)
    wait_until(lambda: results.progress.n_done > 60, "some outcomes")
    os.kill(int((tmp_path / "keeper").read_text()), signal.SIGKILL)
    values = list(results)
    assert results.wait(30)
    seen = watcher.stop()

    assert sum(isinstance(value, ValueError) for value in values) == 30
    for snapshot in seen:
        parts = (snapshot.n_done, snapshot.n_failed, snapshot.n_running, snapshot.n_waiting)
        assert min(parts) >= 0
        assert sum(parts) == snapshot.n_staged == 300 or snapshot.n_running > snapshot.n_waiting
        assert (snapshot.n_lost, snapshot.n_retried) == (0, 0)
    for before, after in itertools.pairwise(seen):
        assert after.n_done >= before.n_done
        assert after.n_failed >= before.n_failed
        assert list(JobState).index(after.state) >= list(JobState).index(before.state)
    end = results.progress
    assert (end.state, end.n_done, end.n_failed, end.n_running) == (JobState.DONE, 270, 30, 0)
    assert end.n_workers_lost == 1
    assert end.last_takeover is not None
    lost, other = end.last_takeover  # the view names both
    assert lost != other
    assert f"{other} took over from {lost}" in as_text(end)
    assert end.first_failure == (9, "ValueError: 9")

    attached = client.attach(results.job_id).progress
    listed = next(job for job in client.jobs() if job.job_id == results.job_id)
    for other in (attached, listed):
        assert (other.state, other.n_done, other.n_failed) == (JobState.DONE, 270, 30)
        assert other.n_workers_lost == 1


def test_queued_is_not_running_and_what_is_lost_is_told(client: Client, tmp_path: Path) -> None:
    """Two workers are busy with one job; a second one waits, is cancelled, and has lost its tasks."""
    names = cell(
        "import os, time\n"
        "def wait(x):\n"
        "    while not os.path.exists(gate):\n"
        "        time.sleep(0.005)\n"
        "    return x\n",
        gate=str(tmp_path / "gate"),
    )
    first = client.map(names["wait"], range(4), chunk_size=1)
    wait_until(lambda: first.progress.n_running == 2, "two running tasks")
    assert (first.progress.n_workers, first.progress.n_waiting) == (2, 2)
    second = client.map(names["wait"], range(3), chunk_size=1)
    wait_until(lambda: second.progress.state is JobState.QUEUED, "a job that is queued")
    queued = second.progress
    assert (queued.n_workers, queued.n_running, queued.n_waiting, queued.n_lost) == (0, 0, 3, 0)

    for job, n in ((second, 3), (first, 4)):
        job.cancel()
        assert job.wait(10)
        end = job.progress
        assert (end.state, end.n_done, end.n_running, end.n_lost) == (JobState.CANCELLED, 0, 0, n)


def test_a_retry_moves_tasks_from_failed_to_waiting_to_done(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, time\n"
        "def f(x):\n"
        "    if not os.path.exists(f'{folder}/mended'):\n"
        "        raise ValueError(x)\n"
        "    while not os.path.exists(f'{folder}/gate'):\n"
        "        time.sleep(0.005)\n"
        "    if x == 5:\n"
        "        raise KeyError(x)\n"
        "    return x\n",
        folder=str(tmp_path),
    )
    results = client.map(names["f"], range(6), chunk_size=1, on_error="return")
    assert results.wait(30)
    assert results.progress.n_failed == 6
    before_s = results.progress.elapsed_s
    (tmp_path / "mended").touch()
    results.retry_errors()
    wait_until(lambda: results.progress.n_running == 2, "two running tasks")
    amid = results.progress
    assert (amid.state, amid.n_done, amid.n_failed, amid.n_waiting) == (JobState.RUNNING, 0, 0, 4)
    assert (amid.n_tasks, amid.n_retried) == (6, 6)

    (tmp_path / "gate").touch()
    deadline = time.monotonic() + 30
    while not results.progress.state.is_final and time.monotonic() < deadline:
        snapshot = results.progress
        assert snapshot.n_done + snapshot.n_failed + snapshot.n_running + snapshot.n_waiting == 6
    end = results.progress
    assert (end.state, end.n_done, end.n_failed, end.n_retried) == (JobState.DONE, 5, 1, 6)
    assert end.first_failure == (5, "KeyError: 5")
    assert end.elapsed_s > before_s
