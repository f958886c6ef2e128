"""Our own workers are forks of the zygote, and make room for other jobs."""

import time
from pathlib import Path

import pytest
from master.running_master import Master, is_running, running_master, wait_until
from master.staged_job import stage

TELL = "import os; open({file!r} + str(os.getpid()), 'w').close()"


def zygote_of(master: Master) -> int:
    (pid,) = [
        int(word)
        for path in Path(f"/proc/{master.process.pid}/task").glob("*/children")
        for word in path.read_text().split()
    ]
    return pid


def test_a_worker_is_a_fork_of_the_zygote_and_does_the_job(
    master: Master, share: Path, tmp_path: Path
) -> None:
    file = str(tmp_path / "ppid-")
    paths, argv = stage(share, [(0.0, f"import os; open({file!r} + str(os.getppid()), 'w').close()")])

    job = master.wait_for_end(master.submit((1, argv)))

    assert (job["Status"], job["Progress"]["Finished"]) == ("SUCCESS", 1)
    keeper = next(tmp_path.glob("ppid-*")).name
    assert keeper != f"ppid-{zygote_of(master)}"
    (log,) = Path(paths.root, "logs").iterdir() if Path(paths.root, "logs").exists() else [None]
    assert master.output(job["JobId"], "err") == [], log


def test_a_forked_worker_says_what_is_wrong_in_the_jobs_error_file(master: Master, share: Path) -> None:
    _, argv = stage(share, [(0.0, "")])

    job = master.wait_for_end(master.submit((1, [*argv[:2], "/nonexistent/jobs/x", *argv[3:]])))

    assert job["Status"] == "ERROR"
    header, line = master.output(job["JobId"], "err")
    assert header.startswith('TASK : "')
    assert "/nonexistent/jobs/x is not there" in line


def test_a_warm_worker_runs_its_first_task_within_milliseconds(
    master: Master, share: Path, tmp_path: Path
) -> None:
    master.wait_for_end(master.submit((1, ["/bin/true"])))  # so that the zygote is warm
    delays_ms = []
    for number in range(7):
        mark = tmp_path / f"mark{number}"
        _, argv = stage(share, [(0.0, f"open({str(mark)!r}, 'w').close()")])
        begun_s = time.time()
        job_id = master.submit((1, argv))
        wait_until(mark.exists, "the first task")
        delays_ms.append((mark.stat().st_mtime - begun_s) * 1000)
        master.wait_for_end(job_id)

    assert sorted(delays_ms)[3] < 100, delays_ms  # starting an interpreter and its imports takes longer


@pytest.mark.meets("GM-13")
def test_kill_finds_what_a_forked_worker_has_left_behind(master: Master, share: Path, tmp_path: Path) -> None:
    """Neither session nor parent nor an exec tells of this grandchild, only the mark."""
    file = str(tmp_path / "pid")
    code = (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    if os.fork() == 0:\n"
        f"        os.rename(open({file + 'part'!r}, 'w').name, {file!r} + str(os.getpid()))\n"
        "        time.sleep(300)\n"
        "    os._exit(0)\n"
    )
    _, argv = stage(share, [(300.0, code)])
    job_id = master.submit((1, argv))
    wait_until(lambda: any(tmp_path.glob("pid[0-9]*")), "the daemon")
    daemon = int(next(tmp_path.glob("pid[0-9]*")).name.removeprefix("pid"))
    assert is_running(daemon)

    master.ask("POST", f"/jobs/{job_id}/kill")

    wait_until(lambda: not is_running(daemon), "the daemon's end", 5.0)
    master.wait_for_end(job_id)


@pytest.mark.meets("GM-11")
def test_workers_of_a_long_job_make_room_for_a_second_one(master: Master, share: Path) -> None:
    _, long_argv = stage(share, [(0.05, "")] * 2000)
    _, short_argv = stage(share, [(0.05, "")] * 2000)
    greedy = master.submit((2, long_argv))
    wait_until(lambda: bool(master.job(greedy)["Running"] == 2), "two workers")

    modest = master.submit((2, short_argv))

    wait_until(lambda: bool(master.job(modest)["Running"] == 1), "a slot for the second job", 4.0)
    job = master.job(greedy)
    assert (job["Running"], job["Progress"]["Finished"], job["Progress"]["Errored"]) == (1, 1, 0)
    for job_id in (greedy, modest):
        master.ask("POST", f"/jobs/{job_id}/kill")
        master.wait_for_end(job_id)


def test_a_foreign_command_is_never_asked_to_make_room(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir, slots=1) as master:
        script = f"while [ ! -e {tmp_path}/release ]; do sleep 0.01; done"
        first = master.submit((1, ["/bin/sh", "-c", script]))
        second = master.submit((1, ["/bin/true"]))

        time.sleep(1.5)  # longer than a turn: this is the time in which nothing may happen

        assert (master.job(first)["Running"], master.job(second)["Running"]) == (1, 0)
        (tmp_path / "release").touch()
        assert master.wait_for_end(first)["Status"] == "SUCCESS"
        master.wait_for_end(second)
