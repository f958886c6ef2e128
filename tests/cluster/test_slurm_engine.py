"""The engine on a real Slurm."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.running_slurm import Slurm
from engines.engine_contract import NOBODY, EngineContract, new_id, recorder, wait_for_end, wait_until
from fakes.world import is_running

from golem_magic.engines.slurm import SlurmEngine
from golem_magic.errors import EngineError
from golem_magic.model import Node, PlacementState, WorkerSpec

pytestmark = pytest.mark.cluster("slurm")


@pytest.fixture
def engine(slurm: Slurm) -> SlurmEngine:
    return SlurmEngine()


class TestSlurmEngine(EngineContract):
    """Two nodes with one CPU each."""


def test_a_program_that_is_missing_is_told(engine: SlurmEngine) -> None:
    spec = WorkerSpec(argv=("/nonexistent/program",), count=1, native_id=new_id())

    assert "not found (exit code 127) on n" in wait_for_end(engine, engine.submit(spec)).reason


def test_another_client_finds_a_placement_and_cancels_it(
    engine: SlurmEngine,
    slurm: Slurm,
    tmp_path: Path,
) -> None:
    spec = recorder(tmp_path, count=3, wait=True)
    engine.submit(spec)
    other = SlurmEngine()

    assert other.submit(spec) == spec.native_id, "it is there already"
    assert other.poll([spec.native_id])[spec.native_id].n_workers == 3
    SlurmEngine().cancel([spec.native_id])

    wait_for_end(other, spec.native_id)
    assert slurm.elements("RUNNING", "PENDING") == []


def test_one_worker_taken_away_is_one_less(engine: SlurmEngine, slurm: Slurm, tmp_path: Path) -> None:
    spec = recorder(tmp_path, count=3, wait=True)
    engine.submit(spec)
    wait_until(lambda: len(slurm.elements("RUNNING")) == 2, "two running workers")
    waiting = slurm.elements("PENDING")

    slurm.run("scancel", "--quiet", waiting[0])

    status = engine.poll([spec.native_id])[spec.native_id]
    assert (status.state, status.n_workers, status.n_ended) == (PlacementState.RUNNING, 3, 1)
    (tmp_path / "release").touch()
    wait_for_end(engine, spec.native_id)


def test_what_waits_says_for_what(engine: SlurmEngine, slurm: Slurm, tmp_path: Path) -> None:
    engine.submit(recorder(tmp_path, count=2, wait=True))
    wait_until(lambda: len(slurm.elements("RUNNING")) == 2, "a full cluster")
    later = engine.submit(recorder(tmp_path))

    def reason() -> str:
        return engine.poll([later])[later].reason

    wait_until(lambda: "not free yet (Resources)" in reason() or "(Priority)" in reason(), "the reason")
    (tmp_path / "release").touch()
    wait_for_end(engine, later)


def test_a_node_that_is_down_has_no_slots(engine: SlurmEngine, slurm: Slurm) -> None:
    assert engine.nodes() == [Node("n1", 1, 0), Node("n2", 1, 0)]

    with drained(slurm, "n2"):
        assert engine.nodes() == [Node("n1", 1, 0)]
        assert engine.n_slots() == 1


@contextlib.contextmanager
def drained(cluster: Slurm, node: str) -> Iterator[None]:
    """A node that is down would come back by itself; one that is drained stays away."""
    cluster.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    try:
        yield
    finally:
        cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--partition=nonsense", "Invalid partition"),
        ("--no-such-option", "no-such-option"),
        ("--time=soon", "Invalid --time"),
        ("--gres=gpu:1", "gres"),
    ],
)
@pytest.mark.usefixtures("slurm")
def test_what_slurm_refuses_is_refused_before_anything_is_submitted(options: str, words: str) -> None:
    engine = SlurmEngine(options)

    with pytest.raises(EngineError, match=words) as caught:
        engine.n_slots()

    assert not caught.value.transient
    with pytest.raises(EngineError, match=words):
        engine.submit(WorkerSpec(argv=("x",), count=1, native_id=new_id()))


@pytest.mark.usefixtures("slurm")
def test_a_partition_has_its_own_slots() -> None:
    assert SlurmEngine("-p one").n_slots() == 1


def test_a_full_cluster_refuses_nobody(engine: SlurmEngine, slurm: Slurm, tmp_path: Path) -> None:
    spec = recorder(tmp_path, count=2, wait=True)
    engine.submit(spec)
    wait_until(lambda: len(slurm.elements("RUNNING")) == 2, "a full cluster")

    assert SlurmEngine().n_slots() == 2, "others' jobs do not count: whoever comes next waits"

    (tmp_path / "release").touch()
    wait_for_end(engine, spec.native_id)


@pytest.mark.slow
def test_a_controller_that_is_away_is_a_passing_fault(
    engine: SlurmEngine,
    slurm: Slurm,
    tmp_path: Path,
) -> None:
    spec = recorder(tmp_path, wait=True)
    engine.submit(spec)
    wait_until(lambda: len(slurm.elements("RUNNING")) == 1, "the worker")
    controller = int((slurm.folder / "slurmctld.pid").read_text())
    os.kill(controller, signal.SIGTERM)
    wait_until(lambda: not is_running(controller), "the controller's end")

    for word in (lambda: engine.poll([NOBODY]), lambda: SlurmEngine().n_slots()):
        with pytest.raises(EngineError, match="may be busy or down") as caught:
            word()
        assert caught.value.transient

    slurm.up()
    assert engine.poll([spec.native_id])[spec.native_id].state is PlacementState.RUNNING
    (tmp_path / "release").touch()
    wait_for_end(engine, spec.native_id)
