"""Failed tasks run again: only those, on the same inputs, and seen wherever the job is read."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.world import cell, embedded_client

from golem_magic import Client, JobError
from golem_magic.errors import WorkerDied
from golem_magic.model import JobState


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("retried")) as client:
        yield client


@pytest.fixture
def flaky(tmp_path: Path) -> Callable[[int], int]:
    """Fails for multiples of 7 until a file appears; notes every call."""
    names = cell(
        "import os\n"
        f"mended, calls = {str(tmp_path / 'mended')!r}, {str(tmp_path / 'calls')!r}\n"
        "def flaky(x):\n"
        "    with open(calls, 'a') as file:\n"
        "        file.write(f'{x}\\n')\n"
        "    if x % 7 == 0 and not os.path.exists(mended):\n"
        "        raise ValueError(f'bad {x}')\n"
        "    return -x\n"
    )
    return names["flaky"]


def calls(tmp_path: Path) -> list[int]:
    return sorted(int(line) for line in (tmp_path / "calls").read_text().split())


@pytest.mark.parametrize("chunk_size", [1, 5, 100, "auto"])
def test_only_what_failed_runs_again_and_is_merged_in_place(
    client: Client, flaky: Callable[[int], int], tmp_path: Path, chunk_size: Any
) -> None:
    results = client.map(flaky, range(30), chunk_size=chunk_size, on_error="return")
    first = list(results)
    assert [i for i, value in enumerate(first) if isinstance(value, ValueError)] == [0, 7, 14, 21, 28]
    assert results.progress.n_failed == 5

    (tmp_path / "mended").touch()
    assert results.retry_errors() is results

    assert list(results) == [-x for x in range(30)]
    assert results[14] == -14
    assert results.errors() == {}
    assert dict(results.as_completed()) == {x: -x for x in range(30)}
    assert calls(tmp_path) == sorted([*range(30), 0, 7, 14, 21, 28])
    assert results.wait(10)
    progress = results.progress
    assert (progress.state, progress.n_done, progress.n_failed) == (JobState.DONE, 30, 0)
    assert (progress.n_retried, progress.n_lost, progress.first_failure) == (5, 0, None)


def test_an_iterator_keeps_to_the_error_that_it_handed_out(
    client: Client, flaky: Callable[[int], int], tmp_path: Path
) -> None:
    results = client.map(flaky, range(10), chunk_size=5)
    iterator = iter(results)
    with pytest.raises(ValueError, match="bad 0"):
        next(iterator)
    assert results.wait(30)
    (tmp_path / "mended").touch()
    results.retry_errors()

    assert list(iterator) == [-x for x in range(1, 10)]  # goes on behind it; task 7 is waited for
    assert list(results) == [-x for x in range(10)]


def test_what_fails_again_can_be_retried_again(
    client: Client, flaky: Callable[[int], int], tmp_path: Path
) -> None:
    results = client.map(flaky, range(20), on_error="return")
    results.wait(30)
    assert set(results.retry_errors().errors()) == {0, 7, 14}
    assert results.wait(30)
    assert {index: str(error) for index, error in results.errors().items()} == {
        0: "bad 0",
        7: "bad 7",
        14: "bad 14",
    }
    assert (results.progress.n_failed, results.progress.n_retried) == (3, 3)
    assert results.progress.first_failure == (0, "ValueError: bad 0")

    (tmp_path / "mended").touch()
    assert results.retry_errors().to_list() == [-x for x in range(20)]
    assert results.progress.n_retried == 6


def test_it_works_after_attach_and_is_seen_by_others(
    client: Client, flaky: Callable[[int], int], tmp_path: Path
) -> None:
    results = client.map(flaky, range(10), on_error="return")
    results.wait(30)
    (tmp_path / "mended").touch()
    with Client(client.settings) as other:
        attached = other.attach(results.job_id)
        assert attached.retry_errors().to_list() == [-x for x in range(10)]
    assert results.to_list() == [-x for x in range(10)]  # without having been told
    assert client.attach(results.job_id).progress.n_failed == 0


def test_tasks_that_are_being_retried_are_left_alone(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, time\n"
        f"folder = {str(tmp_path)!r}\n"
        "def f(x):\n"
        "    if not os.path.exists(f'{folder}/again'):\n"
        "        raise ValueError(x)\n"
        "    with open(f'{folder}/calls', 'a') as file:\n"
        "        file.write(f'{x}\\n')\n"
        "    while not os.path.exists(f'{folder}/gate'):\n"
        "        time.sleep(0.01)\n"
        "    return x\n"
    )
    results = client.map(names["f"], range(3), chunk_size=1, on_error="return")
    results.wait(30)
    (tmp_path / "again").touch()
    results.retry_errors()
    results.retry_errors()
    attached = client.attach(results.job_id, on_error="return")
    attached.retry_errors()
    progress = results.progress
    assert not progress.state.is_final
    assert progress.n_failed == 0
    assert dict(results.available()).keys() == {0, 1, 2}  # still failed meanwhile, and nobody waits

    (tmp_path / "gate").touch()
    assert results.to_list() == attached.to_list() == [0, 1, 2]
    assert calls(tmp_path) == [0, 1, 2]


def test_tasks_that_killed_their_worker_can_be_retried(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, signal\n"
        f"mended = {str(tmp_path / 'mended')!r}\n"
        "def f(x):\n"
        "    if x == 3 and not os.path.exists(mended):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return x\n"
    )
    results = client.map(names["f"], range(6))
    results.wait(30)
    assert list(results.errors()) == [3]
    assert isinstance(results.errors()[3], WorkerDied)
    (tmp_path / "mended").touch()
    assert results.retry_errors().to_list() == list(range(6))


def test_retrying_nothing_starts_nothing(client: Client) -> None:
    results = client.map(abs, range(5))
    assert results.wait(30)
    n_jobs = len(client.jobs())
    assert results.retry_errors().to_list() == list(range(5))
    assert len(client.jobs()) == n_jobs


def test_cancel_ends_a_retry_and_its_failures_stand(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, time\n"
        f"again = {str(tmp_path / 'again')!r}\n"
        "def f(x):\n"
        "    if os.path.exists(again):\n"
        "        time.sleep(60)\n"
        "    raise ValueError(x)\n"
    )
    results = client.map(names["f"], range(2), on_error="return")
    results.wait(30)
    (tmp_path / "again").touch()
    results.retry_errors()
    results.cancel()
    assert results.wait(10)
    assert [type(value) for value in results] == [ValueError, ValueError]
    assert (results.progress.state, results.progress.n_failed) == (JobState.DONE, 2)


def test_inputs_that_were_freed_cannot_be_retried(client: Client, flaky: Callable[[int], int]) -> None:
    results = client.map(flaky, range(10), keep="unread", on_error="return")
    results.wait(30)
    with pytest.raises(JobError, match="keep='unread'"):
        results.retry_errors()


def test_a_retry_is_a_job_that_says_of_what(client: Client, flaky: Callable[[int], int]) -> None:
    results = client.map(flaky, range(10), label="weather", on_error="return")
    results.wait(30)
    results.retry_errors().wait(30)
    retry = next(job for job in client.jobs() if job.job_id != results.job_id)
    assert retry.label == f"retry of {results.job_id[:8]}: weather"
    assert retry.n_tasks == 2
    with pytest.raises(JobError, match=f"attach to job {results.job_id[:8]}"):
        client.attach(retry.job_id).retry_errors()


# --- what is there now ---


def test_available_gives_what_is_there_in_order_without_waiting(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, time\n"
        f"gate = {str(tmp_path / 'gate')!r}\n"
        "def f(x):\n"
        "    while x == 2 and not os.path.exists(gate):\n"
        "        time.sleep(0.01)\n"
        "    if x == 4:\n"
        "        raise ValueError(x)\n"
        "    return 10 * x\n"
    )
    results = client.map(names["f"], range(6), chunk_size=1)
    assert list(client.map(abs, [])) == list(client.map(abs, []).available()) == []
    wait_until(lambda: results.missing() == [2], "all outcomes but one")
    there = results.available()
    assert [next(there) for _ in range(3)] == [(0, 0), (1, 10), (3, 30)]
    with pytest.raises(ValueError, match="4"):
        next(there)
    assert list(there) == [(5, 50)]

    (tmp_path / "gate").touch()
    results.wait(30)
    assert results.missing() == []
    with pytest.raises(ValueError, match="4"):
        dict(results.available())
