"""An interrupt ends waiting and nothing else; a cancel ends every process, whoever gives it."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.engine_contract import wait_until
from fakes.golem_double import GolemDouble
from fakes.world import is_running, processes_with
from kernel_session import KernelSession, started_kernel

from golem_magic import Client
from golem_magic.model import JobState

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

# Task 0 gives a result; each of the others starts a process of its own, and one in a session of its own.
JOB = """
import os, subprocess, time
def task(x, folder):
    if x:
        for more in ({}, {"start_new_session": True}):
            open(f"{folder}/{subprocess.Popen(['sleep', '120'], **more).pid}.pid", "w").close()
        open(f"{folder}/{os.getpid()}.pid", "w").close()
        limit = time.monotonic() + 120
        while not os.path.exists(f"{folder}/gate") and time.monotonic() < limit:
            time.sleep(0.005)
    return x
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where tasks note their processes; those left are ended after the test."""
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    for pid in noted(folder):
        os.kill(pid, signal.SIGKILL)


def noted(folder: Path) -> list[int]:
    """Processes that tasks noted and that run."""
    return [pid for pid in (int(path.stem) for path in folder.glob("*.pid")) if is_running(pid)]


def all_ended(folder: Path, job_id: str, within_s: float) -> float:
    """Wait for the end of every process of a job; give the seconds that took."""
    began = time.monotonic()
    wait_until(lambda: not noted(folder), f"the end of {noted(folder)}", within_s)
    wait_until(lambda: not processes_with(job_id), "the end of workers", within_s)
    return time.monotonic() - began


@pytest.fixture
def kernel(tmp_path: Path, state_dir: Path) -> Iterator[KernelSession]:
    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        yield kernel


def started(kernel: KernelSession, folder: Path) -> str:
    """Start the job with two workers at work, and one result; give its id."""
    kernel.run(f"%%golemize range(3) -o out -c {str(folder)!r} --chunk-size 1 --workers 2\n{JOB}")
    assert kernel.value("out[0]") == "0"
    wait_until(lambda: len(noted(folder)) == 6, "two tasks and what they have started", 30)
    return kernel.value("out.job_id").strip("'")


def test_an_interrupt_ends_the_waiting_and_says_how_to_end_the_job(
    kernel: KernelSession, folder: Path
) -> None:
    job = started(kernel, folder)[:8]
    kernel.run("import threading")
    bell = "threading.Timer(0.2, lambda: print('the bell', flush=True)).start()\n"

    for waiting in ("list(out)", "out[2]", "out.wait()", "list(out.as_completed())"):
        done = kernel.run(bell + waiting, interrupt_when="the bell")

        assert done.status == "error"
        assert "KeyboardInterrupt" in done.text
        assert f"job {job} goes on - cancel it with %golem cancel {job} or results.cancel()" in done.text
    (folder / "gate").touch()
    assert kernel.value("list(out)") == "[0, 1, 2]"
    assert len(list(folder.glob("*.pid"))) == 6  # nothing was run again


@pytest.mark.meets("GM-13")
def test_a_cancel_ends_all_processes_and_leaves_what_is_published(
    kernel: KernelSession, folder: Path
) -> None:
    views = "get_ipython().magics_manager.registry['GolemMagics']._shown"
    button = f"{views}[-1][1]._surface._button.click()"

    for cancel in ("%golem cancel out", "out.cancel()", button):
        job_id = started(kernel, folder)
        assert kernel.run(cancel).status == "ok"

        assert all_ended(folder, job_id, 5) < 5
        ended = "(True, 'cancelled', 0)"
        assert kernel.value("out.wait(10), out.progress.state.value, out[0]") == ended


@pytest.mark.slow
@pytest.mark.meets("EX-13")
def test_a_kernel_that_is_shut_down_leaves_its_job_which_another_one_cancels(
    tmp_path: Path, state_dir: Path, folder: Path
) -> None:
    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        job_id = started(kernel, folder)
        kernel._manager.shutdown_kernel(now=False)
        assert not kernel._manager.is_alive()

        assert len(noted(folder)) == 6
    with Client() as client:
        assert client.jobs()[0].state is JobState.RUNNING
        results = client.attach(job_id)
        assert results[0] == 0
        client.cancel(job_id)

        assert all_ended(folder, job_id, 5) < 5
        assert results.wait(10)
        assert results[0] == 0


@pytest.mark.slow
def test_workers_that_no_engine_kills_end_soon_after_they_see_the_marker(
    tmp_path: Path, share: Path, folder: Path
) -> None:
    """On a Golem, whose word to stop ends nothing; the marker is put by hand, so it is not even told."""
    names: dict[str, object] = {"__name__": "__main__"}
    exec(JOB, names)
    task: object = names["task"]
    with (
        GolemDouble(tmp_path / "golem", password="secret") as golem,
        Client(
            engine="golem", server_url=golem.url, server_password="secret", share=share, workers=2
        ) as client,
    ):
        results = client.map(task, range(3), common=str(folder), chunk_size=1)  # type: ignore[arg-type]
        assert results[0] == 0
        wait_until(lambda: len(noted(folder)) == 6, "two tasks and what they have started", 60)

        (share / "jobs" / results.job_id / "control" / "cancel").touch()

        assert all_ended(folder, results.job_id, 5) < 5
        assert results.wait(30)
        assert (results.progress.state, results[0]) == (JobState.CANCELLED, 0)
