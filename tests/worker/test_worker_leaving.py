"""How workers leave: asked to, cancelled, nothing left, or at the door."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from worker.running_worker import Job, is_running, kill, make_job, runner_of, wait_until

from golem_magic.model import JobId
from golem_magic.share import jobs

SLOW = "def task(x):\n    time.sleep(0.01)\n    return x"


@pytest.mark.parametrize("chunk_size", [1, 100, None])
def test_a_worker_that_is_asked_to_leave_publishes_and_hands_back_the_rest(
    share: Path, chunk_size: int | None
) -> None:
    job = make_job(share, SLOW, range(120), chunk_size=chunk_size)

    with job.worker() as worker:
        wait_until(lambda: len(job.calls) > 20, "some tasks")
        asked = time.monotonic()
        kill(worker.pid, signal.SIGTERM)
        assert worker.wait(10) == 0
        took_s = time.monotonic() - asked

    assert took_s < 1
    n_run = len(job.calls)
    assert n_run < 110
    assert job.outcomes() == {x: x for x in job.calls}, "everything it ran is published"
    assert not job.look().open_leases()
    if chunk_size == 100:
        assert list(Path(job.staged.paths.offers).iterdir()), "the rest is announced"

    job.work()  # whoever comes next goes on, and repeats nothing

    assert job.outcomes() == {x: x for x in range(120)}
    assert set(job.calls.values()) == {1}


def test_a_worker_that_is_asked_to_leave_during_a_long_task_hands_back_what_is_behind_it(share: Path) -> None:
    job = make_job(
        share, "def task(x):\n    time.sleep(1.0 if x == 3 else 0)\n    return x", range(50), chunk_size=50
    )

    with job.worker(0) as first:
        wait_until(lambda: len(job.calls) == 4, "the long task")
        kill(first.pid, signal.SIGTERM)
        job.work()
        assert len(job.outcomes()) >= 49
        assert first.wait(10) == 0

    assert job.outcomes() == {x: x for x in range(50)}
    assert set(job.calls.values()) == {1}


GRANDCHILD = """
import subprocess
def task(x):
    child = subprocess.Popen(["sleep", "300"])
    with open(calls + ".pid", "w") as file:
        file.write(str(child.pid))
    os.rename(calls + ".pid", calls + ".child")
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(300)
"""


@pytest.mark.meets("GM-13")
def test_a_cancelled_job_ends_its_workers_and_what_their_tasks_started(share: Path) -> None:
    job = make_job(share, GRANDCHILD, range(3), beat_s=0.5)

    with job.worker() as worker:
        child_file = Path(f"{job.calls_file}.child")
        wait_until(child_file.exists, "a grandchild")
        grandchild, runner = int(child_file.read_text()), runner_of(worker.pid)
        assert is_running(grandchild)
        asked = time.monotonic()
        jobs.ask_to_cancel(job.staged.paths)
        assert worker.wait(5) == 0
        assert time.monotonic() - asked < 5

    wait_until(lambda: not is_running(grandchild) and not is_running(runner), "their end", 1.0)
    assert not job.look().open_leases(), "its lease is closed, so that nobody waits for it"


def test_a_cancelled_job_keeps_what_was_finished(share: Path) -> None:
    job = make_job(share, SLOW, range(1000), beat_s=0.1)

    with job.worker() as worker:
        wait_until(lambda: len(job.calls) > 30, "some tasks")
        jobs.ask_to_cancel(job.staged.paths)
        assert worker.wait(5) == 0

    assert job.outcomes() == {x: x for x in job.calls}
    assert len(job.calls) < 1000


def test_a_worker_that_comes_to_a_cancelled_job_does_next_to_nothing(share: Path) -> None:
    job = make_job(share, SLOW, range(1000), beat_s=0.1)
    jobs.ask_to_cancel(job.staged.paths)

    job.work(timeout_s=5)

    assert len(job.calls) < 20


@pytest.mark.meets("IP-14")
def test_a_worker_leaves_when_the_job_is_over(share: Path) -> None:
    job = make_job(share, "def task(x): return x", range(10))
    job.work()
    before = job.outcomes()

    began = time.monotonic()
    job.work(3)

    assert time.monotonic() - began < 5
    assert job.outcomes() == before
    assert set(job.calls.values()) == {1}


def test_a_worker_whose_job_was_removed_leaves_quietly(share: Path) -> None:
    job = make_job(share, SLOW, range(10))
    shutil.rmtree(job.staged.paths.root)

    done = subprocess.run(job.argv(), capture_output=True, text=True, timeout=20)

    assert done.returncode == 0
    assert "is not there: the job was removed" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_worker_that_does_not_see_the_share_says_so_and_fails(share: Path) -> None:
    job = make_job(share, SLOW, range(10))
    runtime = share.parent / "runtime.zip"
    shutil.copy(job.argv()[1], runtime)
    argv = [job.argv()[0], str(runtime), *job.argv()[2:]]
    shutil.rmtree(share)

    done = subprocess.run(argv, capture_output=True, text=True, timeout=20)

    assert done.returncode == 1
    assert "the share is not mounted on this machine" in done.stderr


def test_a_worker_whose_job_is_removed_under_it_ends(share: Path) -> None:
    job = make_job(share, SLOW, range(10_000), beat_s=0.1)

    with job.worker() as worker:
        wait_until(lambda: len(job.calls) > 10, "some tasks")
        os.rename(job.staged.paths.root, share / "gone")

        assert worker.wait(5) == 0

    assert len(job.calls) < 2000


def other_job(job: Job, **changes: object) -> tuple[list[str], Path]:
    """The same job with another manifest: a worker's command, and the folder of its logs."""
    job_id = JobId("f" * 32)
    paths = job.staged.share.job(job_id)
    digest = jobs.make_job(paths, replace(job.staged.manifest, job_id=job_id, **changes))  # type: ignore[arg-type]
    return [*job.argv()[:2], paths.root, digest, *job.argv()[4:]], Path(paths.workers)


def last_words(workers: Path) -> str:
    (log,) = workers.glob("*.log")
    return log.read_text()


@pytest.mark.meets("IP-14")
def test_another_python_is_refused_in_a_plain_sentence(share: Path) -> None:
    argv, workers = other_job(make_job(share, SLOW, range(3)), python="3.1")

    done = subprocess.run(argv, timeout=20)

    assert done.returncode == 1
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    words = last_words(workers)
    assert words.startswith(f"golem_magic worker: this worker runs Python {found} (")
    assert "the notebook 3.1" in words
    assert "Traceback" not in words
    assert words.count("\n") == 1


def test_another_manifest_than_the_one_it_was_started_for_is_refused(share: Path) -> None:
    job = make_job(share, SLOW, range(3))
    manifest = Path(job.staged.paths.manifest)
    manifest.write_text(manifest.read_text().replace('"workers": 1', '"workers": 2'))

    done = subprocess.run(job.argv(), timeout=20)

    assert done.returncode == 1
    assert "altered" in last_words(Path(job.staged.paths.workers))
    assert not job.calls


STANDARD = """
def task(x):
    import decimal, fractions, json, sys
    assert "cloudpickle" in sys.modules and "numpy" not in sys.modules
    return json.loads(json.dumps([x, str(fractions.Fraction(x, 7)), sorted(os.environ)]))
"""


@pytest.mark.meets("GR-16")
def test_a_plain_interpreter_in_an_empty_environment_is_enough(share: Path) -> None:
    """No site-packages, nothing of ours installed: only the runtime on the share and the standard library."""
    job = make_job(share, STANDARD, range(50))
    plain = Path(sys._base_executable)  # type: ignore[attr-defined]
    argv = [str(plain.resolve()), "-I", "-S", *job.argv()[1:]]

    done = subprocess.run(argv, env={}, cwd="/", capture_output=True, timeout=20)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), job.log()
    outcomes = job.outcomes()
    assert [outcomes[x][:2] for x in (0, 14, 15)] == [[0, "0"], [14, "2"], [15, "15/7"]]
    assert len(outcomes) == 50
    assert not job.failures()
