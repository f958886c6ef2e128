"""GolemEngine against the double of the real master: the contract, and the master's quirks."""

import socket
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from engines.engine_contract import ServerEngineContract, new_id, recorded, recorder, wait_for_end, wait_until
from fakes.golem_double import Fault, FaultKind, GolemDouble

from golem_magic.engines.golem import LOST_S, SETTLE_S, GolemEngine
from golem_magic.engines.golem_submission import MAX_ARG_BYTES
from golem_magic.errors import EngineError
from golem_magic.model import NativeId, PlacementState, WorkerSpec

PASSWORD = "open sesame ä"
KINDS: tuple[Literal["out", "err", "log"], ...] = ("out", "err", "log")


class ClockByHand:
    """Time that passes only when told to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


@pytest.fixture
def golem(tmp_path: Path) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as double:
        yield double


@pytest.fixture
def engine(golem: GolemDouble) -> Iterator[GolemEngine]:
    engine = GolemEngine(golem.url, PASSWORD, request_timeout_s=5.0)
    yield engine
    engine.close()


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class TestContract(ServerEngineContract):
    @pytest.fixture
    def stranger_engine(self, golem: GolemDouble) -> Iterator[GolemEngine]:
        engine = GolemEngine(golem.url, "wrong")
        yield engine
        engine.close()

    @pytest.fixture
    def deserted_engine(self, unused_port: int) -> Iterator[GolemEngine]:
        engine = GolemEngine(f"http://127.0.0.1:{unused_port}", PASSWORD)
        yield engine
        engine.close()


# --- submitting ---


@pytest.mark.meets("GM-03", "GM-04")
def test_a_submission_looks_as_the_master_wants_it(golem: GolemDouble, engine: GolemEngine) -> None:
    spec = WorkerSpec(
        argv=("/bin/echo", "x"), count=3, native_id=new_id(), label=" Ünder\nthe <bridge> ", owner="me@x"
    )

    engine.submit(spec)

    job = golem.cluster.jobs[spec.native_id]
    assert (job.label, job.owner, job.type, job.total) == ("Ünder the <bridge>", "me@x", "golemize", 3)
    assert golem.seen == ["POST /jobs/"]


def test_a_lost_answer_to_a_submission_places_once(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    """The connection breaks after the work is done; the second try is told 409."""
    golem.faults.append(Fault("close", "POST /jobs/", after_work=True))
    spec = recorder(tmp_path, count=2)

    engine.submit(spec)

    assert golem.seen[:2] == ["POST /jobs/", "POST /jobs/"]
    assert wait_for_end(engine, spec.native_id).n_ended == 2
    assert len(recorded(tmp_path)) == 2


def test_a_submission_without_answer_can_be_asked_again(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    impatient = GolemEngine(golem.url, PASSWORD, request_timeout_s=0.1)
    golem.faults.append(Fault("hang", "POST /jobs/", after_work=True))
    spec = recorder(tmp_path)

    with pytest.raises(EngineError, match=r"no answer within 0\.1 s") as caught:
        impatient.submit(spec)
    impatient.close()
    assert caught.value.transient
    engine.submit(spec)

    assert wait_for_end(engine, spec.native_id).n_workers == 1
    assert len(recorded(tmp_path)) == 1


def test_an_id_taken_by_another_job_is_a_permanent_fault(engine: GolemEngine, tmp_path: Path) -> None:
    spec = recorder(tmp_path)
    engine.submit(spec)

    with pytest.raises(EngineError, match="another job") as caught:
        engine.submit(replace(spec, count=7))

    assert not caught.value.transient
    wait_for_end(engine, spec.native_id)


@pytest.mark.parametrize(
    "fault",
    [
        {"argv": ()},
        {"argv": ("",)},
        {"argv": ("/bin/echo", "two\nlines")},
        {"argv": ("/bin/echo", "nul\0")},
        {"argv": ("/bin/echo", "\udc80")},
        {"argv": ("/bin/echo", "ä" * 65_536)},
        {"count": 0},
        {"count": -1},
        {"native_id": "../escape"},
        {"native_id": ""},
        {"native_id": "x" * 65},
        {"native_id": "a\n"},
    ],
)
def test_what_would_harm_the_master_is_never_sent(
    golem: GolemDouble, engine: GolemEngine, fault: dict[str, object]
) -> None:
    fields: dict[str, Any] = {"argv": ("/bin/true",), "count": 1, "native_id": new_id(), **fault}

    with pytest.raises(EngineError) as caught:
        engine.submit(WorkerSpec(**fields))

    assert not caught.value.transient
    assert golem.seen == []


def test_the_longest_word_allowed_arrives(engine: GolemEngine, tmp_path: Path) -> None:
    spec = recorder(tmp_path, "x" * MAX_ARG_BYTES)

    status = wait_for_end(engine, engine.submit(spec))

    assert (status.n_ended, status.n_errored) == (1, 0)


# --- polling ---


def test_a_job_that_never_had_a_node_is_not_ended(tmp_path: Path) -> None:
    with (
        GolemDouble(tmp_path / "golem", slots=()) as golem,
        closing(GolemEngine(golem.url, "test")) as engine,
    ):
        native_id = engine.submit(recorder(tmp_path))

        assert engine.poll([native_id])[native_id].state is PlacementState.RUNNING
        assert engine.n_slots() == 0


@pytest.mark.meets("GM-07", "GM-08")
def test_a_stopped_job_is_running_while_its_tasks_are(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    """COMPLETE/STOPPED comes at once; the counters tell when it is true."""
    native_id = engine.submit(recorder(tmp_path, count=2, wait=True))
    wait_until(lambda: len(recorded(tmp_path)) == 2, "two workers running")
    engine.cancel([native_id])

    status = engine.poll([native_id])[native_id]

    assert (status.state, status.reason) == (PlacementState.RUNNING, "COMPLETE/STOPPED")
    (tmp_path / "release").touch()
    status = wait_for_end(engine, native_id)
    assert (status.n_ended, status.reason) == (2, "COMPLETE/SUCCESS")


def test_a_stopped_job_that_stands_still_is_ended_for_all_a_busy_node_says(
    golem: GolemDouble, tmp_path: Path
) -> None:
    """A node that lost its worker may look busy for ever."""
    clock = ClockByHand()
    with closing(GolemEngine(golem.url, PASSWORD, clock=clock)) as engine:
        native_id = engine.submit(recorder(tmp_path, count=6, wait=True))
        wait_until(lambda: len(recorded(tmp_path)) == 2, "two workers running")
        engine.cancel([native_id])

        before = engine.poll([native_id])[native_id]
        clock.now_s += SETTLE_S
        after = engine.poll([native_id])[native_id]

    assert (before.state, after.state) == (PlacementState.RUNNING, PlacementState.ENDED)
    assert after.n_ended == 0


def test_a_lost_node_leaves_its_job_running_for_ever(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    """Golem never hands lost tasks out again: to notice that is the work of whoever polls."""
    native_id = engine.submit(recorder(tmp_path, count=3, wait=True))
    wait_until(lambda: len(recorded(tmp_path)) == 2, "two workers running")
    (node,) = golem.cluster.nodes.values()
    golem.cluster.lose_node(node, ghost=False)
    (tmp_path / "release").touch()
    golem.cluster.add_node(2)

    wait_until(lambda: engine.poll([native_id])[native_id].n_ended == 1, "the one task that was left")

    assert engine.poll([native_id])[native_id].state is PlacementState.RUNNING
    engine.cancel([native_id])
    assert engine.poll([native_id])[native_id].state is PlacementState.ENDED


def test_a_ghost_swallows_tasks_of_the_next_job(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    (node,) = golem.cluster.nodes.values()
    golem.cluster.lose_node(node)
    golem.cluster.add_node(2)

    native_id = engine.submit(recorder(tmp_path, count=6))

    wait_until(lambda: engine.poll([native_id])[native_id].n_ended == 4, "what the ghost left")
    assert engine.poll([native_id])[native_id].state is PlacementState.RUNNING


def test_what_no_node_can_be_running_has_ended_badly(golem: GolemDouble, tmp_path: Path) -> None:
    """The ghost of a lost node took two of six; the other slots are free, so they do not wait either."""
    (node,) = golem.cluster.nodes.values()
    golem.cluster.lose_node(node)
    golem.cluster.add_node(2)
    clock = ClockByHand()
    with closing(GolemEngine(golem.url, PASSWORD, clock=clock)) as engine:
        native_id = engine.submit(recorder(tmp_path, count=6))
        wait_until(lambda: golem.cluster.jobs[native_id].finished == 4, "what the ghost left")
        before = engine.poll([native_id])[native_id]
        clock.now_s += LOST_S
        after = engine.poll([native_id])[native_id]

    assert (before.state, before.n_ended, before.n_errored) == (PlacementState.RUNNING, 4, 0)
    assert (after.state, after.n_ended, after.n_errored) == (PlacementState.ENDED, 6, 2)
    assert "2 on no node" in after.reason


@pytest.mark.parametrize(
    ("count", "slots"),
    [pytest.param(2, 1, id="all run, a slot is free"), pytest.param(6, 0, id="some wait, no slot is free")],
)
def test_what_runs_or_waits_is_not_lost_however_long_it_takes(
    golem: GolemDouble, tmp_path: Path, count: int, slots: int
) -> None:
    golem.cluster.add_node(slots)
    clock = ClockByHand()
    with closing(GolemEngine(golem.url, PASSWORD, clock=clock)) as engine:
        native_id = engine.submit(recorder(tmp_path, count=count, wait=True))
        wait_until(lambda: len(recorded(tmp_path)) == 2, "two workers running")
        for _ in range(3):
            clock.now_s += LOST_S
            status = engine.poll([native_id])[native_id]
            assert (status.state, status.n_ended) == (PlacementState.RUNNING, 0)


def test_a_node_without_a_soul_looks_busy(golem: GolemDouble, tmp_path: Path) -> None:
    """A worker that outlived its master shows its slots as taken: from here that cannot be told from work."""
    golem.restart(zombies=True)
    golem.cluster.add_node(1)
    clock = ClockByHand()
    with closing(GolemEngine(golem.url, PASSWORD, clock=clock)) as engine:
        native_id = engine.submit(recorder(tmp_path, count=3))
        wait_until(lambda: golem.cluster.jobs[native_id].finished == 1, "the one on the living node")
        engine.poll([native_id])
        clock.now_s += LOST_S
        status = engine.poll([native_id])[native_id]

    assert (status.state, status.n_ended) == (PlacementState.RUNNING, 1)


def test_a_restarted_master_knows_nobody(golem: GolemDouble, engine: GolemEngine, tmp_path: Path) -> None:
    spec = recorder(tmp_path)
    wait_for_end(engine, engine.submit(spec))

    golem.restart()

    assert engine.poll([spec.native_id])[spec.native_id].state is PlacementState.UNKNOWN
    engine.cancel([spec.native_id])
    wait_for_end(engine, engine.submit(spec))  # asking again is a new request to the new master
    assert len(recorded(tmp_path)) == 2


def test_an_id_that_is_none_of_ours_never_becomes_part_of_a_url(
    golem: GolemDouble, engine: GolemEngine
) -> None:
    stranger = NativeId("../nodes/die")

    engine.cancel([stranger])
    engine.kill(stranger)

    assert engine.poll([stranger])[stranger].state is PlacementState.UNKNOWN
    assert golem.seen == []


def test_an_answer_that_does_not_name_the_job_is_no_success(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    """As when a redirect has made a question of the submission: 200, and the list of jobs."""
    golem.faults.append(Fault("listing", "POST /jobs/"))

    with pytest.raises(EngineError, match="does not name the job") as caught:
        engine.submit(recorder(tmp_path))

    assert caught.value.transient  # asked again, under the same id


def test_a_job_that_is_refused_as_known_and_then_forgotten_can_be_asked_for_again(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path
) -> None:
    """The master restarted between two questions."""
    golem.faults.append(Fault("409", "POST /jobs/"))
    spec = recorder(tmp_path)

    with pytest.raises(EngineError, match="then forgot it: try again") as caught:
        engine.submit(spec)

    assert caught.value.transient
    wait_for_end(engine, engine.submit(spec))
    assert len(recorded(tmp_path)) == 1


def test_reading_needs_no_password(golem: GolemDouble, engine: GolemEngine, tmp_path: Path) -> None:
    native_id = engine.submit(recorder(tmp_path))
    with closing(GolemEngine(golem.url, "wrong")) as stranger:
        assert wait_for_end(stranger, native_id).n_ended == 1


# --- what was printed ---


@pytest.mark.meets("GM-16")
def test_what_tasks_printed_and_the_log_can_be_read(golem: GolemDouble, engine: GolemEngine) -> None:
    code = "import sys; print('said'); print('warned', file=sys.stderr)"
    spec = WorkerSpec(argv=(sys.executable, "-I", "-S", "-c", code), count=2, native_id=new_id())
    wait_for_end(engine, engine.submit(spec))

    out, err, log = (engine.output(spec.native_id, kind) for kind in KINDS)

    assert out == "said\nsaid\n"
    assert err is not None
    assert err.count("warned\n") == 2
    assert log is not None
    assert log.count(f"FINISHED {spec.native_id} ") == 2
    assert log.endswith("COMPLETED\n")


@pytest.mark.meets("GM-16")
def test_a_job_that_printed_nothing_has_no_such_file(golem: GolemDouble, engine: GolemEngine) -> None:
    spec = WorkerSpec(argv=(sys.executable, "-I", "-S", "-c", ""), count=1, native_id=new_id())
    wait_for_end(engine, engine.submit(spec))

    assert engine.output(spec.native_id, "out") is None
    assert engine.output(spec.native_id, "err") is None
    assert engine.output(NativeId("nobody"), "log") is None
    assert engine.output(NativeId("../nodes/die"), "log") is None


@pytest.mark.meets("GM-16")
@pytest.mark.parametrize("kind", ["elsewhere", "moved", "away", "html"])
def test_a_master_that_serves_no_output_is_no_fault(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path, kind: FaultKind
) -> None:
    native_id = engine.submit(recorder(tmp_path))
    wait_for_end(engine, native_id)
    golem.faults.append(Fault(kind, "GET /output/"))

    assert engine.output(native_id, "log") is None


@pytest.mark.meets("GM-16")
def test_trouble_while_output_is_read_is_a_fault(golem: GolemDouble, engine: GolemEngine) -> None:
    golem.faults.append(Fault("500", "GET /output/"))

    with pytest.raises(EngineError, match="500"):
        engine.output(NativeId("some-job"), "log")


# --- stopping ---


@pytest.mark.parametrize("knob", ["stops_ignored", "stops_refused"])
def test_a_stop_without_effect_is_repeated(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path, knob: str
) -> None:
    native_id = engine.submit(recorder(tmp_path, count=6, wait=True))
    setattr(golem, knob, 2)

    engine.cancel([native_id])

    assert golem.cluster.jobs[native_id].state == "COMPLETE"
    assert golem.seen.count(f"POST /jobs/{native_id}/stop") == 3
    (tmp_path / "release").touch()
    wait_for_end(engine, native_id)


def test_a_master_that_never_stops_a_job_is_a_passing_fault(golem: GolemDouble, tmp_path: Path) -> None:
    golem.stops_ignored = 1000
    with closing(GolemEngine(golem.url, PASSWORD, clock=ClockByHand())) as engine:
        native_id = engine.submit(recorder(tmp_path, wait=True))

        with pytest.raises(EngineError, match="did not stop") as caught:
            engine.cancel([native_id])

    assert caught.value.transient


@pytest.mark.meets("GM-13")
def test_the_old_kill_ends_nobody(golem: GolemDouble, engine: GolemEngine, tmp_path: Path) -> None:
    native_id = engine.submit(recorder(tmp_path, count=2, wait=True))
    wait_until(lambda: len(recorded(tmp_path)) == 2, "two workers running")

    engine.kill(native_id)

    assert engine.poll([native_id])[native_id].n_ended == 0
    (tmp_path / "release").touch()
    assert wait_for_end(engine, native_id).n_errored == 0


def test_killing_a_stranger_is_harmless(engine: GolemEngine) -> None:
    engine.kill(NativeId("nobody"))


# --- slots and bare requests ---


@pytest.mark.meets("GM-01", "GM-12")
def test_slots_are_summed_over_nodes_and_follow_a_resize(golem: GolemDouble, engine: GolemEngine) -> None:
    node = golem.cluster.add_node(3)
    assert engine.n_slots() == 5

    assert engine.request("POST", f"/nodes/{node.id}/resize/-4") is None

    assert engine.n_slots() == 2


def test_a_list_of_nodes_that_does_not_come_is_no_fault(golem: GolemDouble) -> None:
    """A wedged master never sends it, while jobs are still answered."""
    golem.faults.append(Fault("hang", "GET /nodes/"))
    with closing(GolemEngine(golem.url, PASSWORD, request_timeout_s=0.1)) as engine:
        assert engine.n_slots() is None


def test_a_bare_request_gives_the_decoded_answer(engine: GolemEngine) -> None:
    assert engine.request("GET", "/jobs/") == {"Items": [], "NumberOfItems": 0}
    with pytest.raises(EngineError):
        engine.request("GET", "/jobs/nope")
