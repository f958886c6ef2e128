"""A kernel dies, at whatever moment: another one finds the job, and nothing published is computed again."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.engine_contract import wait_until
from fakes.world import processes_with, said, script
from kernel_session import started_kernel

from golem_magic import Client, JobError
from golem_magic.magics.notice import Notice
from golem_magic.magics.notice import line as line_of
from golem_magic.model import JobId, JobSnapshot, JobState
from golem_magic.unattended import unattended

N = 24
# Tasks note each execution as a file of its own; those from GATED on wait for the gate.
JOB = """
import os, sys, time, uuid
import golem_magic

def square(x, common):
    folder, n_open = common
    open(f"{folder}/{x}.{uuid.uuid4().hex}.run", "x").close()
    limit = time.monotonic() + 120
    while x >= n_open and not os.path.exists(f"{folder}/gate") and time.monotonic() < limit:
        time.sleep(0.005)
    return x * x
"""
MAP = JOB + (
    f"results = golem_magic.golem_map(square, range({N}), common=(sys.argv[1], int(sys.argv[2])), "
    "chunk_size=1, workers=2)\n"
    "print(results.job_id, flush=True)\n"
)
ATTACH = """
import sys
import golem_magic
with golem_magic.Client() as client:
    [job] = client.jobs()
    print(job.state, flush=True)
    results = client.attach(job.job_id)
    print(list(results), flush=True)
"""
SQUARES = [x * x for x in range(N)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where tasks note that they run, and where the gate opens."""
    made = tmp_path / "runs"
    made.mkdir()
    return made


def runs(folder: Path) -> Counter[int]:
    """How often each task has begun."""
    return Counter(int(path.name.split(".")[0]) for path in folder.glob("*.run"))


def line(process: "subprocess.Popen[str]") -> str:
    """The next line that a script prints."""
    assert process.stdout is not None
    text = process.stdout.readline()
    assert text, "the script ended early"
    return text.strip()


def kill(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextlib.contextmanager
def begun(folder: Path, n_open: int, more: str = "") -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A script that has started the job, and the job's id; it is killed at the latest in the end."""
    process = script(MAP + more, folder, n_open)
    try:
        yield process, line(process)
    finally:
        kill(process)


def state(job_id: str) -> JobState:
    """What the job's folder says, without following the job."""
    with Client() as client:
        return {job.job_id: job.state for job in client.jobs()}[job_id]  # type: ignore[index]


# --- when it dies ---


@pytest.mark.meets("EX-13", "G-21")
def test_killed_at_half_time(state_dir: Path, folder: Path) -> None:
    half = N // 2
    with begun(
        folder, half, f"for _, r in zip(range({half}), results): pass\nprint('half')\ntime.sleep(600)"
    ) as (
        kernel,
        _,
    ):
        assert line(kernel) == "half"
        kill(kernel)

        other = script(ATTACH)
        assert line(other) == "running"
        (folder / "gate").touch()

        assert said(other) == f"{SQUARES}\n"
    assert runs(folder) == Counter(range(N))


@pytest.mark.slow
@pytest.mark.meets("EX-13", "G-21")
def test_killed_while_reading_results(state_dir: Path, folder: Path) -> None:
    read = "for r in results:\n    print(r, flush=True)\n    time.sleep(0.02)"
    with begun(folder, N, read) as (kernel, _):
        assert [line(kernel) for _ in range(5)] == [str(x * x) for x in range(5)]
        kill(kernel)

        assert said(script(ATTACH)).splitlines()[1] == str(SQUARES)
    assert runs(folder) == Counter(range(N))


def test_killed_before_any_result_the_job_ends_without_a_client(state_dir: Path, folder: Path) -> None:
    with begun(folder, 0, "time.sleep(600)") as (kernel, job_id):
        wait_until(lambda: bool(runs(folder)), "a worker", 30)
        kill(kernel)
        assert state(job_id) is JobState.RUNNING
        (folder / "gate").touch()

        wait_until(lambda: state(job_id) is JobState.DONE, "the end of a job that nobody follows", 60)

    assert runs(folder) == Counter(range(N))
    assert said(script(ATTACH)) == f"done\n{SQUARES}\n"
    assert runs(folder) == Counter(range(N))


def test_killed_between_the_last_input_and_the_first_worker(state_dir: Path, folder: Path) -> None:
    """Nobody was asked for workers: the job waits for a client, which asks."""
    says = "self.n_tasks is not None and (print(self.manifest.job_id, flush=True), time.sleep(600))"
    hang = f"import golem_magic.dispatcher as d\nd.Dispatcher.start = lambda self: {says}\n"
    process = script(JOB + hang + MAP.removeprefix(JOB), folder, N)
    job_id = line(process)
    wait_until(lambda: state(job_id) is JobState.QUEUED or process.poll() is not None, "all inputs", 30)
    kill(process)

    assert state(job_id) is JobState.QUEUED
    assert said(script(ATTACH)) == f"queued\n{SQUARES}\n"
    assert runs(folder) == Counter(range(N))


def test_killed_while_inputs_are_drawn(
    state_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is computed and can be read in order; what was not is told."""
    drawing = JOB + (
        "import golem_magic.client\n"
        "golem_magic.client.BEAT_S = {True: 0.2}\ngolem_magic.client.LEASE_S = {True: 3.0}\n"
        "def inputs():\n"
        f"    for x in range({N}):\n"
        "        time.sleep(0.03)\n"  # so slow that each is sent by itself
        "        yield x\n"
        "    print('drawing', flush=True)\n"
        "    time.sleep(600)\n"
        "golem_magic.golem_map(square, inputs(), common=(sys.argv[1], 99), chunk_size=1, workers=2)\n"
    )
    kernel = script(drawing, folder)
    assert line(kernel) == "drawing"
    wait_until(lambda: len(runs(folder)) == N, "the tasks that were sent", 30)
    kill(kernel)

    with Client() as client:
        [job] = client.jobs()
        results = client.attach(job.job_id)
        each = iter(results)

        assert job.state is JobState.STAGING
        assert [next(each) for _ in range(N)] == SQUARES
        with pytest.raises(JobError, match="lost its client while that was drawing the inputs"):
            list(each)
        assert results.wait(30)
        assert list(results.available()) == list(enumerate(SQUARES))
    assert runs(folder) == Counter(range(N))


@pytest.mark.slow
def test_two_who_attach_at_once_act_once(state_dir: Path, folder: Path, share: Path) -> None:
    """Golem and all workers are gone too: leases are closed and workers placed by one of the two."""
    with begun(folder, 4, "for _, r in zip(range(4), results): pass\nprint('half')\ntime.sleep(600)") as (
        kernel,
        job_id,
    ):
        assert line(kernel) == "half"
        wait_until(lambda: set(runs(folder)) >= {0, 1, 2, 3, 4, 5}, "workers that wait", 30)
        kill(kernel)
    for pid in processes_with(str(state_dir)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes_with(str(state_dir)), "the end of everything", 10)
    (folder / "gate").touch()
    before = runs(folder)

    both = [script(ATTACH) for _ in range(2)]

    assert [said(each, 90).splitlines()[1] for each in both] == [str(SQUARES)] * 2
    again = runs(folder) - before
    assert all(again[task] == (0 if task < 4 else 1) for task in range(N) if task not in (4, 5))
    assert again[4] + again[5] == 2  # in flight when their workers were killed
    job = share / "jobs" / job_id
    closed = [each for each in job.glob("rounds/*/*+*") if os.readlink(each).startswith("lost:")]
    assert sorted(each.name.partition(".")[0] for each in closed) == ["4-5", "5-6"]
    counts = [int(os.readlink(each)) for each in (job / "placements").iterdir()]
    assert sorted(counts) == [2, 2]  # before, and once more


# --- what a new kernel says ---


def test_jobs_that_nobody_minds_are_told_until_they_are_read(
    tmp_path: Path, state_dir: Path, folder: Path, share: Path
) -> None:
    rest = "time.sleep(600)"
    with contextlib.ExitStack() as kernels:
        done, done_id = kernels.enter_context(begun(folder, N, rest))
        wait_until(lambda: state(done_id) is JobState.DONE, "the end of the first job", 60)
        running, running_id = kernels.enter_context(begun(folder, 0, rest))  # it takes all slots, for long
        wait_until(lambda: state(running_id) is JobState.RUNNING, "the beginning of the other", 60)
        assert unattended(str(share)) == []  # their kernels live
        kill(done)
        kill(running)

    with started_kernel(tmp_path) as kernel:
        # Where the magics are there from the start, the first use of one counts.
        text = kernel.run("%load_ext golem_magic").text + kernel.run("%golem config engine").text
        for _ in range(100):  # under a later cell if the share is slow
            text += kernel.run("import time\ntime.sleep(0.1)").text if " yours: " not in text else ""
        listed = {row.split()[0]: row for row in kernel.run("%golem jobs").text.splitlines()[1:]}
        kernel.run(f"%golem attach {done_id} -o out")
        assert kernel.value("sum(out)") == str(sum(SQUARES))

    notice = (
        "2 jobs of yours: 1 running, 1 finished and unread - "
        "%golem jobs lists them, %golem attach JOB gets results\n"
    )
    assert text.count(notice) == text.count(" yours: ") == 1
    assert ("unread" in listed[done_id[:8]], "unread" in listed[running_id[:8]]) == (True, False)
    assert [job.job_id for job in unattended(str(share))] == [running_id]
    (folder / "gate").touch()
    wait_until(lambda: state(running_id) is JobState.DONE, "the end of the other", 60)
    assert [(job.job_id, job.is_unread) for job in unattended(str(share))] == [(running_id, True)]
    with Client() as client:
        assert list(client.attach(running_id)) == SQUARES
    assert unattended(str(share)) == []


def test_a_share_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert unattended(str(tmp_path / "nowhere" / "share")) == []
    assert not (tmp_path / "nowhere").exists()


def job(number: int, state: JobState) -> JobSnapshot:
    return JobSnapshot(
        job_id=JobId(f"{number:032x}"),
        function="f",
        label="",
        state=state,
        n_tasks=1,
        n_staged=1,
        n_done=0,
        n_failed=0,
        n_running=0,
        n_workers=0,
        elapsed_s=0.0,
    )


def words(*states: JobState) -> str:
    return line_of([job(number, state) for number, state in enumerate(states)])


@pytest.mark.unit
def test_the_line_counts_what_there_is() -> None:
    assert words() == ""
    assert words(JobState.QUEUED).startswith("1 job of yours: 1 queued - %golem jobs ")
    assert words(JobState.DONE, JobState.STAGING, JobState.DONE).startswith(
        "3 jobs of yours: 1 cut short while its inputs were drawn, 2 finished and unread - "
    )


def a_cell(notice: Notice) -> None:
    """Run a cell from beginning to end, and give the notice's thread the time that it needs."""
    notice.cell_begins()
    notice.cell_ends()
    for thread in [each for each in threading.enumerate() if each.name == "golem-magic-notice"]:
        thread.join()


@pytest.mark.unit
@pytest.mark.parametrize("is_automatic", [True, False])
def test_it_is_said_once_under_the_cell_that_loads_or_first_uses_the_magics(
    is_automatic: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []

    def find() -> list[JobSnapshot]:
        looks.append(1)
        return [job(1, JobState.RUNNING)]

    notice = Notice(find)
    if is_automatic:
        a_cell(notice)
        a_cell(notice)
        assert (looks, capsys.readouterr().out) == ([], "")  # a kernel that never maps pays nothing
        notice.want()
    else:
        notice.cell_ends()

    for _ in range(3):
        a_cell(notice)

    assert capsys.readouterr().out.count("1 job of yours: 1 running") == 1
    assert looks == [1]


@pytest.mark.unit
def test_a_share_that_hangs_keeps_no_cell_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    answers = threading.Event()
    notice = Notice(lambda: [job(1, JobState.RUNNING)] if answers.wait(60) else [])
    notice.want()

    began = time.monotonic()
    notice.cell_ends()
    notice.cell_ends()
    assert time.monotonic() - began < 30
    assert capsys.readouterr().out == ""
    answers.set()
    a_cell(notice)
    a_cell(notice)

    assert capsys.readouterr().out.startswith("1 job of yours")


@pytest.mark.unit
def test_a_share_that_cannot_be_read_costs_only_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    def find() -> list[JobSnapshot]:
        raise OSError

    notice = Notice(find)
    notice.want()
    a_cell(notice)
    a_cell(notice)

    assert capsys.readouterr() == ("", "")
