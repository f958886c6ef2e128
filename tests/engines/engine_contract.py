"""What every engine promises, stated once, as tests to inherit.

Subclass :class:`EngineContract` in a test module and provide a fixture ``engine`` with two
free slots. An engine that speaks to a server also inherits :class:`ServerEngineContract`
and provides its two further fixtures.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from golem_magic.engines.base import Engine
from golem_magic.errors import EngineError
from golem_magic.model import NativeId, PlacementState, PlacementStatus, WorkerSpec

NOBODY = NativeId("nobody-has-this-id")
AWKWARD = ("two words", "quo'te", 'dou"ble', "$HOME `id` *", "back\\slash", "", "-x", "äß漢", "<&>", "a;b|c")
DEADLINE_S = 30.0

# Writes its arguments into a file of its own, then waits for the file "release" if told to.
WORKER = """
import json, os, sys, time
folder, wait = sys.argv[1], sys.argv[2] == "wait"
part = os.path.join(folder, f".{os.getpid()}")
with open(part, "w") as file:
    json.dump(sys.argv[3:], file)
os.rename(part, os.path.join(folder, f"{os.getpid()}.{time.monotonic_ns()}.ran"))
limit = time.monotonic() + 60
while wait and time.monotonic() < limit and not os.path.exists(os.path.join(folder, "release")):
    time.sleep(0.01)
"""

_serial = itertools.count()


def new_id() -> NativeId:
    return NativeId(f"contract-{os.getpid()}-{next(_serial)}")


def recorder(folder: Path, *arguments: str, count: int = 1, wait: bool = False) -> WorkerSpec:
    """Workers that leave one file each in ``folder``; see :data:`WORKER`."""
    program = folder / "worker.py"  # a file, since no engine need carry line breaks in a command
    program.write_text(WORKER)
    argv = (sys.executable, "-I", "-S", str(program), str(folder), "wait" if wait else "go", *arguments)
    return WorkerSpec(argv=argv, count=count, native_id=new_id(), label="a label", owner="me@example.org")


def recorded(folder: Path) -> list[list[str]]:
    """The arguments each worker saw, those the engine appended included."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.ran"))]


def wait_until(condition: Callable[[], bool], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Look every few milliseconds until ``condition`` holds."""
    limit = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < limit, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


def wait_for_end(engine: Engine, native_id: NativeId) -> PlacementStatus:
    def has_ended() -> bool:
        return engine.poll([native_id])[native_id].state is PlacementState.ENDED

    wait_until(has_ended, f"the end of {native_id}")
    return engine.poll([native_id])[native_id]


class EngineContract:
    """What every engine promises. Subclass it and provide an ``engine`` fixture with two slots."""

    @pytest.mark.meets("GM-01")
    def test_a_placed_worker_runs_and_its_placement_ends(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path, "hello"))

        status = wait_for_end(engine, native_id)

        assert (status.n_workers, status.n_ended, status.n_errored) == (1, 1, 0)
        assert recorded(tmp_path)[0][0] == "hello"

    @pytest.mark.meets("GM-04", "GM-06")
    def test_the_id_wished_for_is_the_id_given(self, engine: Engine, tmp_path: Path) -> None:
        spec = recorder(tmp_path)

        native_id = engine.submit(spec)

        assert native_id == spec.native_id
        wait_for_end(engine, native_id)

    def test_poll_knows_an_accepted_request_at_once(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path, wait=True))

        status = engine.poll([native_id])[native_id]

        assert status.state in (PlacementState.PENDING, PlacementState.RUNNING)
        assert (status.n_workers, status.n_ended) == (1, 0)
        (tmp_path / "release").touch()
        wait_for_end(engine, native_id)

    def test_as_many_workers_run_as_were_asked_for(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path, "x", count=5))

        status = wait_for_end(engine, native_id)

        assert (status.n_workers, status.n_ended) == (5, 5)
        assert len(recorded(tmp_path)) == 5

    def test_two_workers_run_side_by_side(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path, count=2, wait=True))

        wait_until(lambda: len(recorded(tmp_path)) == 2, "both workers at once")

        (tmp_path / "release").touch()
        wait_for_end(engine, native_id)

    @pytest.mark.meets("GM-09")
    def test_workers_of_one_placement_can_be_told_apart(self, engine: Engine, tmp_path: Path) -> None:
        """The engine appends what identifies a worker, the same number of words for each."""
        native_id = engine.submit(recorder(tmp_path, "mine", count=3))
        wait_for_end(engine, native_id)

        appended = [words[1:] for words in recorded(tmp_path)]

        assert len({tuple(words) for words in appended}) == 3
        assert len({len(words) for words in appended}) == 1

    def test_awkward_arguments_arrive_unchanged(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path, *AWKWARD))
        wait_for_end(engine, native_id)

        (arguments,) = recorded(tmp_path)

        assert tuple(arguments[: len(AWKWARD)]) == AWKWARD

    def test_asking_twice_places_once(self, engine: Engine, tmp_path: Path) -> None:
        spec = recorder(tmp_path, count=2)

        assert engine.submit(spec) == engine.submit(spec)

        status = wait_for_end(engine, spec.native_id)
        assert status.n_workers == 2
        assert len(recorded(tmp_path)) == 2

    def test_asking_again_after_the_end_places_nothing(self, engine: Engine, tmp_path: Path) -> None:
        spec = recorder(tmp_path)
        wait_for_end(engine, engine.submit(spec))

        engine.submit(spec)

        assert engine.poll([spec.native_id])[spec.native_id].state is PlacementState.ENDED
        assert len(recorded(tmp_path)) == 1

    @pytest.mark.meets("GM-15")
    def test_a_missing_program_ends_its_placement(self, engine: Engine) -> None:
        spec = WorkerSpec(argv=("/nonexistent/program", "x"), count=2, native_id=new_id())

        status = wait_for_end(engine, engine.submit(spec))

        assert (status.n_ended, status.n_errored) == (2, 2)

    @pytest.mark.meets("GM-08")
    def test_workers_that_end_badly_are_counted(self, engine: Engine) -> None:
        code = "import sys; sys.exit(3 if sys.argv[-1] == '0' else 0)"  # the last word counts the workers
        argv = (sys.executable, "-I", "-S", "-c", code)
        spec = WorkerSpec(argv=argv, count=3, native_id=new_id())

        status = wait_for_end(engine, engine.submit(spec))

        assert (status.n_ended, status.n_errored) == (3, 1)

    def test_a_stranger_is_unknown_not_failed(self, engine: Engine) -> None:
        """An engine that lost sight of a placement must not declare it dead."""
        assert engine.poll([NOBODY])[NOBODY].state is PlacementState.UNKNOWN

    def test_every_id_asked_about_is_answered(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path))

        answer = engine.poll([NOBODY, native_id])

        assert set(answer) == {NOBODY, native_id}
        assert engine.poll([]) == {}
        wait_for_end(engine, native_id)

    def test_a_cancelled_placement_starts_nobody_new_and_ends(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path, count=6, wait=True))
        wait_until(lambda: len(recorded(tmp_path)) == 2, "two workers running")

        engine.cancel([native_id])

        (tmp_path / "release").touch()
        wait_for_end(engine, native_id)
        assert len(recorded(tmp_path)) == 2

    def test_cancelling_twice_or_after_the_end_is_harmless(self, engine: Engine, tmp_path: Path) -> None:
        native_id = engine.submit(recorder(tmp_path))
        wait_for_end(engine, native_id)

        engine.cancel([native_id])
        engine.cancel([native_id])

        assert engine.poll([native_id])[native_id].n_ended == 1

    def test_cancelling_a_stranger_is_harmless(self, engine: Engine) -> None:
        engine.cancel([NOBODY])

        assert engine.poll([NOBODY])[NOBODY].state is PlacementState.UNKNOWN

    def test_it_tells_how_many_can_run_at_once(self, engine: Engine) -> None:
        assert engine.n_slots() == 2

    def test_closing_twice_is_harmless_and_leaves_workers_alone(self, engine: Engine, tmp_path: Path) -> None:
        engine.submit(recorder(tmp_path))

        engine.close()
        engine.close()

        wait_until(lambda: len(recorded(tmp_path)) == 1, "the worker of a closed engine")


class ServerEngineContract(EngineContract):
    """What an engine promises that speaks to a server with a password.

    Further fixtures: ``stranger_engine`` (same server, wrong password) and ``deserted_engine``
    (an address where nothing listens).
    """

    @pytest.mark.meets("GM-05")
    def test_a_wrong_password_is_a_permanent_fault(self, stranger_engine: Engine, tmp_path: Path) -> None:
        with pytest.raises(EngineError, match="password") as caught:
            stranger_engine.submit(recorder(tmp_path))

        assert not caught.value.transient
        assert recorded(tmp_path) == []

    def test_a_dead_server_is_a_passing_fault(self, deserted_engine: Engine, tmp_path: Path) -> None:
        calls: list[Callable[[], object]] = [
            lambda: deserted_engine.submit(recorder(tmp_path)),
            lambda: deserted_engine.poll([NOBODY]),
            lambda: deserted_engine.cancel([NOBODY]),
            lambda: deserted_engine.n_slots(),
        ]
        for call in calls:
            with pytest.raises(EngineError) as caught:
                call()
            assert caught.value.transient
