"""Whole jobs on a real Slurm: two nodes of one CPU each."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster.running_slurm import Slurm
from engines.engine_contract import wait_until

from golem_magic import Client, EngineError, NoWorkersError
from golem_magic.model import JobState

pytestmark = pytest.mark.cluster("slurm")
CONSTANTS = "golem_magic.client"


@pytest.fixture
def client(slurm: Slurm, share: Path) -> Iterator[Client]:
    with Client(engine="slurm", share=share) as client:
        yield client


@pytest.fixture
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is lost is missed after seconds, not after a minute and a half."""
    monkeypatch.setattr(f"{CONSTANTS}.BEAT_S", {False: 1.0})
    monkeypatch.setattr(f"{CONSTANTS}.LEASE_S", {False: 8.0})


def noting(folder: Path, pause_s: float) -> Callable[[int], int]:
    """A function that leaves a file for each of its calls."""
    folder.mkdir()
    place = str(folder)

    def square(x: int) -> int:
        with open(f"{place}/{x}.{os.getpid()}.{time.monotonic_ns()}", "w"):
            time.sleep(pause_s)
        return x * x

    return square


def n_calls(folder: Path) -> int:
    return len(list(folder.iterdir()))


def n_placements(client: Client, job_id: str) -> int:
    return len(list(Path(client.settings.share or "", "jobs", job_id, "placements").iterdir()))


def test_a_function_is_mapped(client: Client, slurm: Slurm) -> None:
    table = {"a": 2, "b": 3}

    def power(x: int, table: dict[str, int]) -> int:
        return x ** table["b"]

    results = client.map(power, range(100), common=table)

    assert list(results) == [x**3 for x in range(100)]
    assert client.nodes()[0].host == "n1"
    wait_until(lambda: slurm.elements("RUNNING", "PENDING") == [], "an empty queue")


@pytest.mark.meets("GR-04")
def test_workers_have_the_notebooks_variables_but_no_secrets(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREETING", "hello world")
    monkeypatch.setenv("GOLEM_MAGIC_SERVER_PASSWORD", "swordfish")
    monkeypatch.setenv("MY_TOKEN", "swordfish")

    (variables,) = client.map(lambda _: dict(os.environ), [0])

    assert variables["GREETING"] == "hello world"
    assert "swordfish" not in str(variables)
    assert variables["SLURM_ARRAY_TASK_ID"] in ("0", "1")
    assert "LC_ALL" not in variables or os.environ.get("LC_ALL")


def test_a_worker_that_is_taken_away_is_replaced_and_nothing_is_lost(
    client: Client, slurm: Slurm, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    results = client.map(noting(calls, 0.1), range(120))
    wait_until(lambda: n_calls(calls) > 10, "work")

    slurm.run("scancel", slurm.elements("RUNNING")[0])

    assert list(results) == [x * x for x in range(120)]
    assert n_placements(client, results.job_id) > 1
    assert n_calls(calls) <= 121, "it handed back what it had not begun"


def test_a_cancelled_job_leaves_nobody_on_the_cluster(client: Client, slurm: Slurm, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    results = client.map(noting(calls, 0.1), range(1000), workers=5)
    wait_until(lambda: n_calls(calls) > 0, "work")
    assert slurm.elements("PENDING")

    results.cancel()

    results.wait(60)
    assert results.progress.state is JobState.CANCELLED
    wait_until(lambda: slurm.elements("RUNNING", "PENDING", "COMPLETING") == [], "an empty queue")
    assert n_calls(calls) < 1000


def test_why_workers_wait_is_shown(client: Client, slurm: Slurm, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    def wait(x: int) -> int:
        limit = time.monotonic() + 60
        while not os.path.exists(gate) and time.monotonic() < limit:
            time.sleep(0.05)
        return x

    first = client.map(wait, range(2), chunk_size=1)
    wait_until(lambda: len(slurm.elements("RUNNING")) == 2, "a full cluster")
    second = client.map(abs, range(5))

    def is_told() -> bool:
        note = second.progress.note
        return "(Resources)" in note or "(Priority)" in note

    wait_until(is_told, "the reason")
    assert second.progress.state is JobState.QUEUED
    Path(gate).touch()
    assert list(first) + list(second) == [0, 1, 0, 1, 2, 3, 4]


@pytest.mark.usefixtures("_brisk")
def test_a_node_that_goes_down_is_healed(client: Client, slurm: Slurm, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    results = client.map(noting(calls, 0.1), range(300))
    wait_until(lambda: n_calls(calls) > 20, "work")

    slurm.run("scontrol", "update", "NodeName=n1", "State=DOWN", "Reason=test")

    assert list(results) == [x * x for x in range(300)]
    assert results.progress.n_failed == 0


@pytest.mark.slow
@pytest.mark.usefixtures("_brisk")
def test_at_its_time_limit_a_worker_hands_back_what_it_has_not_begun(
    slurm: Slurm, share: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    with Client(engine="slurm", share=share, slurm_options="--time=1") as client:
        results = client.map(noting(calls, 0.2), range(500))

        assert list(results) == [x * x for x in range(500)]

        assert n_placements(client, results.job_id) > 1
        assert "TIMEOUT" not in slurm.run("squeue", "-h", "-t", "all", "-o", "%T")
        assert n_calls(calls) == 500, "no task ran twice"


@pytest.mark.meets("IP-14")
def test_a_python_that_is_not_on_the_nodes_is_told(slurm: Slurm, share: Path) -> None:
    with Client(engine="slurm", share=share, python="/nonexistent/bin/python") as client:
        results = client.map(abs, range(3))

        with pytest.raises(NoWorkersError, match=r"not found \(exit code 127\) on n"):
            list(results)


@pytest.mark.meets("EX-14")
def test_what_slurm_refuses_is_told_before_anything_is_written(slurm: Slurm, share: Path) -> None:
    drawn: list[Any] = []
    with (
        Client(engine="slurm", share=share, slurm_options="-p nonsense") as client,
        pytest.raises(EngineError, match=r"Invalid partition name.*slurm_options"),
    ):
        client.map(abs, (drawn.append(x) or x for x in range(3)))

    assert drawn == []
    assert list(share.iterdir()) == []


def test_another_client_attaches_to_a_job_and_ends_it(
    client: Client, slurm: Slurm, share: Path, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    results = client.map(noting(calls, 0.05), range(60))
    wait_until(lambda: n_calls(calls) > 0, "work")

    with Client(engine="slurm", share=share) as other:
        assert list(other.attach(results.job_id)) == [x * x for x in range(60)]

    assert list(results) == [x * x for x in range(60)]
    wait_until(lambda: slurm.elements("RUNNING", "PENDING") == [], "an empty queue")
