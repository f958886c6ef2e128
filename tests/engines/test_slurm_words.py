"""What Slurm's commands print, judged by recordings of a real one; and what they are told."""

import shlex
from pathlib import Path

import pytest
from engines.engine_contract import NOBODY, new_id

from golem_magic.engines.base import EngineOptions
from golem_magic.engines.batch import Element, check, environment, exit_words, script
from golem_magic.engines.registry import load_engine
from golem_magic.engines.slurm import SlurmEngine, explained, parse_nodes, parse_queue
from golem_magic.errors import EngineError, SettingsError
from golem_magic.model import NativeId, Node, PlacementState, PlacementStatus, WorkerSpec

pytestmark = pytest.mark.unit

RECORDINGS = Path(__file__).parents[1] / "cluster" / "recordings"
PENDING, RUNNING, ENDED = PlacementState.PENDING, PlacementState.RUNNING, PlacementState.ENDED


def recording(name: str) -> str:
    return (RECORDINGS / name).read_text()


class Recorded(SlurmEngine):
    """An engine whose queue is text, and that notes what it would have run."""

    def __init__(self, *listings: str, options: str = "") -> None:
        super().__init__(options)
        self.listings = list(listings)
        self.cancelled: list[str] = []

    def _listed(self) -> list[Element]:
        return parse_queue(self.listings.pop(0) if len(self.listings) > 1 else self.listings[0])

    def _explained(self, element: Element) -> Element:
        return element

    def _cancel(self, job_ids: object) -> None:
        self.cancelled += list(job_ids)  # type: ignore[call-overload]

    def one(self, native_id: str) -> PlacementStatus:
        return self.poll([NativeId(native_id)])[NativeId(native_id)]


# --- the queue ---


def test_a_recorded_queue_is_read() -> None:
    elements = {(each.name, each.index): each for each in parse_queue(recording("squeue.txt"))}

    assert elements["gm-busy.4", 2] == Element("gm-busy.4", "54", 2, RUNNING)
    assert elements["gm-late.1", 0].is_error
    assert elements["gm-late.1", 0].reason == "it was ended at its time limit"
    assert elements["gm-busy.4", 1] == Element("gm-busy.4", "54", 1, ENDED, reason="it was cancelled")
    assert "no array | odd" not in {name for name, _ in elements}, "no array of ours"


@pytest.mark.parametrize(
    ("native_id", "reason"),
    [
        ("held", "you hold it: release it with scontrol release (JobHeldUser)"),
        ("big", "its partition does not give what it asks for: change slurm_options (PartitionConfig)"),
        ("later", "it may start a little later, as after the loss of a node (BeginTime)"),
    ],
)
def test_why_a_placement_waits_is_told_in_words(native_id: str, reason: str) -> None:
    status = Recorded(recording("squeue.txt")).one(native_id)

    assert (status.state, status.reason) == (PENDING, reason)


def test_a_reason_nobody_has_heard_of_is_told_as_it_is() -> None:
    assert Recorded("1|0|PENDING|BrandNew|gm-x.1").one("x").reason == "BrandNew"


@pytest.mark.parametrize("state", ["COMPLETING", "CONFIGURING", "SUSPENDED", "SOMETHING_NEW"])
def test_a_state_that_is_not_final_is_alive(state: str) -> None:
    assert Recorded(f"1|0|{state}|None|gm-x.1").one("x").state is RUNNING


@pytest.mark.meets("EX-14")
@pytest.mark.parametrize(
    ("state", "n_errored"),
    [("TIMEOUT", 1), ("OUT_OF_MEMORY", 1), ("NODE_FAIL", 1), ("CANCELLED", 0), ("PREEMPTED", 0)],
)
def test_each_way_to_end_is_told(state: str, n_errored: int) -> None:
    status = Recorded(f"1|0|{state}|None|gm-x.1").one("x")

    assert (status.state, status.n_ended, status.n_errored) == (ENDED, 1, n_errored)
    assert bool(status.reason) == bool(n_errored)


def test_what_was_seen_and_is_listed_no_more_has_ended() -> None:
    engine = Recorded("1|0|RUNNING|None|gm-x.2\n1|1|FAILED|NonZeroExitCode|gm-x.2", "")

    assert (engine.one("x").state, engine.one("x").state) == (RUNNING, ENDED)
    assert (engine.one("x").n_ended, engine.one("x").n_errored) == (2, 1), "how it ended is remembered"


def test_of_a_queue_that_forgot_some_the_rest_counts() -> None:
    """A client that attaches later sees only what is left, and the name says how many there were."""
    status = Recorded("1|3|RUNNING|None|gm-x.5").one("x")

    assert (status.state, status.n_workers, status.n_ended) == (RUNNING, 5, 4)


def test_only_what_has_not_ended_is_cancelled_and_strangers_are_left_alone() -> None:
    engine = Recorded("1|0|RUNNING|None|gm-x.1\n2|0|COMPLETED|None|gm-y.1\n3|0|RUNNING|None|gm-other.1")

    engine.cancel([NativeId("x"), NativeId("y"), NOBODY])

    assert engine.cancelled == ["1"]


# --- details ---


def failed(job_id: str, name: str) -> Element:
    return next(each for each in parse_queue(recording("squeue.txt")) if each.name == name)


@pytest.mark.parametrize(
    ("name", "file", "reason"),
    [
        ("gm-missing.1", "scontrol-missing-program.txt", "its program was not found (exit code 127) on n1"),
        ("gm-killed.1", "scontrol-killed.txt", "it was ended by SIGKILL on n1"),
        ("gm-late.1", "scontrol-killed.txt", "it was ended at its time limit"),
    ],
)
def test_how_a_worker_ended_is_told(name: str, file: str, reason: str) -> None:
    assert explained(failed("", name), recording(file)).reason == reason


def test_a_job_that_is_forgotten_keeps_its_reason() -> None:
    element = failed("", "gm-missing.1")

    assert explained(element, "slurm_load_jobs error: Invalid job id specified") == element


def test_signals_without_a_name_have_a_number() -> None:
    assert exit_words(0, 77) == "it was ended by signal 77"


def test_nodes_that_are_up_count_once_in_the_default_partition() -> None:
    assert parse_nodes(recording("sinfo-n2-down.txt")) == [Node("n1", 1, 0)]


def test_slots_follow_partition_and_cpus_of_a_worker() -> None:
    text = "debug*|a|3/5/0/8\nfast|b|0/4/0/4\nfast|a|3/5/0/8\nold|c|0/0/16/16"

    assert parse_nodes(text, ["fast"], 2) == [Node("b", 2, 0), Node("a", 4, 2)]
    assert parse_nodes(text.replace("*", "")) == [Node("a", 8, 3), Node("b", 4, 0)], "no default partition"


# --- what Slurm is told ---


def test_options_come_from_the_settings() -> None:
    engine = load_engine("slurm", EngineOptions())

    assert isinstance(engine, SlurmEngine)
    assert not engine.share_is_local


@pytest.mark.parametrize("options", ["--account 'x", "--wait", "-W", "--wrap=ls", "--cpus-per-task=many"])
def test_options_that_cannot_be_served_are_refused(options: str) -> None:
    with pytest.raises(SettingsError, match="slurm_options"):
        SlurmEngine(options)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (WorkerSpec(argv=("x",), count=1, native_id=NativeId("../x")), "letters"),
        (WorkerSpec(argv=("x",), count=0, native_id=NativeId("x")), "1 or more"),
        (WorkerSpec(argv=(), count=1, native_id=NativeId("x")), "program"),
        (WorkerSpec(argv=("a\0b",), count=1, native_id=NativeId("x")), "NUL"),
    ],
)
def test_what_no_scheduler_can_carry_is_refused(spec: WorkerSpec, what: str) -> None:
    with pytest.raises(EngineError, match=what):
        check(spec)


def test_the_script_is_the_command_and_the_three_words() -> None:
    argv = ("/a path/it's", "", "$HOME", "two\nlines")
    spec = WorkerSpec(argv=argv, count=1, native_id=new_id())

    first, command = script(spec, "$INDEX").split("\n", 1)

    assert first == "#!/bin/sh"
    assert shlex.split(command) == ["exec", *argv, spec.native_id, "0", "$INDEX"]


@pytest.mark.meets("GR-04")
def test_secrets_and_what_is_true_here_only_stay_here(monkeypatch: pytest.MonkeyPatch) -> None:
    home = {
        "GOLEM_MAGIC_SERVER_PASSWORD": "x",
        "GITHUB_TOKEN": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "OPENAI_API_KEY": "x",
        "PGPASSWORD": "x",
        "DATABASE": "postgres://me:x@host/db",
        "JPY_API_URL": "x",
        "DISPLAY": ":0",
        "TMPDIR": "/scratch/of/this/machine",
        "SLURM_JOB_ID": "17",
        "SQUEUE_FORMAT": "%i",
    }
    away = {
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": "2",
        "SLURM_CONF": "/etc/x",
        "NOTE": "a:b@c",
    }
    for name, value in {**home, **away}.items():
        monkeypatch.setenv(name, value)

    passed = environment(SlurmEngine.own_variables, SlurmEngine.passed_variables)

    assert set(home).isdisjoint(passed)
    assert away.items() <= passed.items()
