"""The engine that needs no configuration."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.engine_contract import NOBODY, EngineContract, new_id, recorder, wait_for_end, wait_until

from golem_magic.engines.base import EngineOptions
from golem_magic.engines.local import LocalEngine, _order, default_state_dir
from golem_magic.errors import EngineError
from golem_magic.model import PlacementState, WorkerSpec


@pytest.fixture
def engine(state_dir: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine.from_options(EngineOptions(workers=2))
    yield engine
    engine.close()


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has died but was not reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def master_pid(state: Path) -> int:
    return int(json.loads((state / "golem.json").read_text())["pid"])


class TestLocalEngine(EngineContract):
    """The embedded Golem, through the engine that starts it."""


def test_nothing_is_started_before_the_first_submission(engine: LocalEngine, state_dir: Path) -> None:
    assert engine.share_is_local
    assert engine.n_slots() == 2
    assert engine.poll([NOBODY])[NOBODY].state is PlacementState.UNKNOWN
    engine.cancel([NOBODY])

    assert list(state_dir.iterdir()) == []


def test_without_a_number_of_workers_the_usable_cpus_count(state_dir: Path) -> None:
    engine = LocalEngine()

    assert engine.n_slots() in range(1, len(os.sched_getaffinity(0)) + 1)
    assert list(state_dir.iterdir()) == []


def test_two_engines_share_one_master(engine: LocalEngine, state_dir: Path, tmp_path: Path) -> None:
    other = LocalEngine()
    wait_for_end(engine, engine.submit(recorder(tmp_path)))
    spec = recorder(tmp_path, wait=True)
    other.submit(spec)

    assert engine.poll([spec.native_id])[spec.native_id].state is PlacementState.RUNNING

    (tmp_path / "release").touch()
    wait_for_end(engine, spec.native_id)
    other.close()


def test_cancelled_workers_are_ended_not_only_stopped(engine: LocalEngine, tmp_path: Path) -> None:
    busy = recorder(tmp_path, wait=True)
    spec = WorkerSpec(
        argv=("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 300"), count=3, native_id=new_id()
    )
    engine.submit(busy)
    engine.submit(spec)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text() != "", "the worker")

    engine.cancel([spec.native_id])

    wait_for_end(engine, spec.native_id)  # although the node is busy with another job
    assert engine.poll([busy.native_id])[busy.native_id].state is PlacementState.RUNNING
    (tmp_path / "release").touch()
    wait_for_end(engine, busy.native_id)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_master_that_vanished_is_replaced_at_the_next_submission(
    engine: LocalEngine, state_dir: Path, tmp_path: Path, number: signal.Signals
) -> None:
    old = engine.submit(recorder(tmp_path))
    wait_for_end(engine, old)
    first = master_pid(state_dir)
    os.kill(first, number)
    wait_until(lambda: not is_running(first), "the master's end")

    new = engine.submit(recorder(tmp_path))

    assert wait_for_end(engine, new).n_ended == 1
    assert master_pid(state_dir) != first
    assert engine.poll([old])[old].state is PlacementState.ENDED, "the next master knows its jobs"


def test_polling_after_the_masters_death_knows_nobody(
    engine: LocalEngine, state_dir: Path, tmp_path: Path
) -> None:
    native_id = engine.submit(recorder(tmp_path))
    wait_for_end(engine, native_id)
    pid = master_pid(state_dir)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid), "the master's end")

    assert engine.poll([native_id])[native_id].state is PlacementState.UNKNOWN
    assert engine.n_slots() == 2
    engine.cancel([native_id])


def pretend_version(state: Path, version: str) -> None:
    address = json.loads((state / "golem.json").read_text())
    (state / "golem.json").write_text(json.dumps({**address, "version": version}))


def test_an_older_master_is_asked_to_leave_when_idle(
    engine: LocalEngine, state_dir: Path, tmp_path: Path
) -> None:
    busy = engine.submit(recorder(tmp_path, wait=True))
    old = master_pid(state_dir)
    pretend_version(state_dir, "0.0.1")
    upgraded, other = LocalEngine(state_dir, 1), LocalEngine(state_dir)

    wait_for_end(upgraded, upgraded.submit(recorder(tmp_path / "..")))

    (inner,) = state_dir.glob("version-*")
    assert master_pid(inner) != old
    assert is_running(old), "it has an unfinished job"
    assert engine.poll([busy])[busy].state is PlacementState.RUNNING
    (tmp_path / "release").touch()
    wait_until(lambda: not is_running(old), "the old one's end, although its client lives")
    assert not (state_dir / "golem.json").exists()
    assert other.n_slots() == 1, "the new one is found where it is, while the first folder is free"
    for each in (upgraded, other):
        each.close()


def test_a_newer_master_is_left_alone(engine: LocalEngine, state_dir: Path, tmp_path: Path) -> None:
    wait_for_end(engine, engine.submit(recorder(tmp_path)))
    newer = master_pid(state_dir)
    pretend_version(state_dir, "99.0")
    older = LocalEngine(state_dir, 1)

    wait_for_end(older, older.submit(recorder(tmp_path)))

    assert older.n_slots() == 1
    with pytest.raises(subprocess.TimeoutExpired):  # longer than it takes to look round
        subprocess.run(["sleep", "9"], timeout=1.5)
    assert is_running(newer)
    older.close()


def test_a_kernel_whose_package_was_replaced_is_content_with_the_new_master(
    engine: LocalEngine, state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait_for_end(engine, engine.submit(recorder(tmp_path)))
    monkeypatch.setattr("golem_magic.__version__", "0.0.1")  # what this kernel has loaded is older
    outdated = LocalEngine(state_dir, 1)

    wait_for_end(outdated, outdated.submit(recorder(tmp_path)))
    again = LocalEngine(state_dir)

    assert again.n_slots() == 1, "one master for all kernels of the old version"
    assert [path.name for path in state_dir.rglob("golem.json")].count("golem.json") == 2
    for each in (outdated, again):
        each.close()


@pytest.mark.unit
def test_versions_sort_as_they_came_out() -> None:
    versions = ["0.2.0rc1", "0.10.0", "0.1.0", "1.0", "0.1.0.dev0", "0.2.0", "0.0.9"]

    assert sorted(versions, key=_order) == [
        "0.0.9",
        "0.1.0.dev0",
        "0.1.0",
        "0.2.0rc1",
        "0.2.0",
        "0.10.0",
        "1.0",
    ]


def test_a_master_that_cannot_start_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    (tmp_path / "output").touch()  # where a folder must be
    engine = LocalEngine(tmp_path)

    with pytest.raises(EngineError, match=r"exit code 1.*master\.log.*output") as caught:
        engine.submit(recorder(tmp_path))

    assert "\n" not in str(caught.value)


def test_a_kernels_files_do_not_hide_standard_modules(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('the wrong json')")
    monkeypatch.chdir(tmp_path)

    wait_for_end(engine, engine.submit(recorder(tmp_path)))


def test_the_master_leaves_after_the_kernel(state_dir: Path, tmp_path: Path) -> None:
    code = (
        "from golem_magic.engines.local import LocalEngine; from golem_magic.model import WorkerSpec;"
        "LocalEngine(workers=1).submit(WorkerSpec(argv=('/bin/true',), count=1, native_id='x'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
    pid = master_pid(state_dir)

    wait_until(lambda: not is_running(pid), "the master's end", 10)

    assert not (state_dir / "golem.json").exists()


@pytest.mark.unit
def test_the_state_folder_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLEM_MAGIC_STATE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_dir().is_relative_to(tmp_path / ".local/state/golem-magic")

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert default_state_dir() == tmp_path / "golem-magic"

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "nowhere"))
    assert default_state_dir().is_relative_to(tmp_path / ".local")
