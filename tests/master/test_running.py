"""How tasks are placed, shared, stopped and ended."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from master.running_master import Master, is_running, running_master, wait_until

# Leaves its own number, that of a child in its group, and that of a grandchild which has fled
# into a session of its own and lost its parent. All ignore SIGTERM.
FAMILY = """
import os, signal, sys, time
folder = sys.argv[1]
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def leave(name):
    with open(os.path.join(folder, "part-" + name), "w") as file:
        file.write(str(os.getpid()))
    os.rename(file.name, os.path.join(folder, name))
def rest(name):
    leave(name)
    time.sleep(300)
    os._exit(0)
if os.fork() == 0:
    rest("child")
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        rest("daemon")
    os._exit(0)
rest("task")
"""


def wait_task(folder: Path, code: str = "") -> list[str]:
    """A command that says when it runs and ends when the file "release" appears."""
    script = f'{code} : > "{folder}/$2-$3"; while [ ! -e "{folder}/release" ]; do sleep 0.01; done'
    return ["/bin/sh", "-c", script, "task"]


def family_in(folder: Path) -> list[int]:
    return [
        int((folder / name).read_text()) for name in ("task", "child", "daemon") if (folder / name).exists()
    ]


@pytest.mark.meets("GM-13")
def test_kill_ends_the_whole_tree_within_five_seconds(master: Master, tmp_path: Path) -> None:
    job_id = master.submit((1, [sys.executable, "-c", FAMILY, str(tmp_path)]))
    wait_until(lambda: len(family_in(tmp_path)) == 3, "the family")
    family = family_in(tmp_path)
    assert all(map(is_running, family))

    begun_s = time.monotonic()
    assert master.ask("POST", f"/jobs/{job_id}/kill").status == 200
    wait_until(lambda: not any(map(is_running, family)), "the end of the family", 5.0)

    assert time.monotonic() - begun_s > 1, "they ignore SIGTERM, and are given time all the same"
    job = master.wait_for_end(job_id)
    assert (job["Status"], job["Progress"]["Errored"]) == ("STOPPED", 1)


@pytest.mark.meets("GM-13")
def test_a_polite_task_may_clean_up_when_killed(master: Master, tmp_path: Path) -> None:
    script = (
        f"trap ': > \"{tmp_path}/cleaned\"; exit 0' TERM; : > '{tmp_path}/runs'; while :; do sleep 0.01; done"
    )
    job_id = master.submit((1, ["/bin/sh", "-c", script]))
    wait_until((tmp_path / "runs").exists, "the task")

    master.ask("POST", f"/jobs/{job_id}/kill")

    wait_until((tmp_path / "cleaned").exists, "the trap")
    master.wait_for_end(job_id)


def test_a_killed_job_leaves_another_job_alone(master: Master, tmp_path: Path) -> None:
    victim, other = master.submit((1, wait_task(tmp_path))), master.submit((1, wait_task(tmp_path / "..")))

    master.ask("POST", f"/jobs/{victim}/kill")

    master.wait_for_end(victim)
    assert master.job(other)["Running"] == 1
    master.ask("POST", f"/jobs/{other}/kill")
    master.wait_for_end(other)


def test_a_job_killed_in_the_moment_of_its_start_ends(master: Master) -> None:
    for _ in range(10):
        job_id = master.submit((2, ["/bin/sh", "-c", "exec sleep 300"]))
        master.ask("POST", f"/jobs/{job_id}/kill")

        assert master.wait_for_end(job_id)["Status"] == "STOPPED"


@pytest.mark.meets("GM-08", "GM-13")
def test_stop_lets_running_tasks_finish_and_stays_a_stop(master: Master, tmp_path: Path) -> None:
    job_id = master.submit((5, wait_task(tmp_path)))
    wait_until(lambda: len(list(tmp_path.glob("0-*"))) == 2, "two tasks")

    master.ask("POST", f"/jobs/{job_id}/stop")

    job = master.job(job_id)
    assert (job["State"], job["Status"], job["Running"]) == ("COMPLETE", "STOPPED", 2)
    (tmp_path / "release").touch()
    job = master.wait_for_end(job_id)
    assert job["Progress"] == {"Total": 5, "Finished": 2, "Errored": 0}
    assert job["Status"] == "STOPPED"
    assert "COMPLETED" not in master.output(job_id, "log")


@pytest.mark.meets("GM-08")
def test_a_stop_when_all_run_already_stays_a_stop(master: Master, tmp_path: Path) -> None:
    job_id = master.submit((2, wait_task(tmp_path)))

    master.ask("POST", f"/jobs/{job_id}/stop")
    (tmp_path / "release").touch()

    assert master.wait_for_end(job_id)["Status"] == "STOPPED"


def test_a_stop_after_the_end_changes_nothing(master: Master) -> None:
    job_id = master.submit((1, ["/bin/true"]))
    master.wait_for_end(job_id)

    assert master.ask("POST", f"/jobs/{job_id}/stop").status == 200
    assert master.job(job_id)["Status"] == "SUCCESS"


@pytest.mark.meets("GM-11")
def test_two_jobs_take_turns(state_dir: Path, tmp_path: Path) -> None:
    order = tmp_path / "order"
    with running_master(state_dir, slots=1) as master:
        gate = master.submit((1, wait_task(tmp_path)))
        for name in ("a", "b"):
            master.submit((4, ["/bin/sh", "-c", f"echo {name} >> {order}"]), preassigned_id=name)
        (tmp_path / "release").touch()
        for job_id in (gate, "a", "b"):
            master.wait_for_end(job_id)

    assert order.read_text().split() == ["a", "b"] * 4


@pytest.mark.meets("GM-12")
def test_a_node_can_be_resized_and_suspended(master: Master, tmp_path: Path) -> None:
    node = master.node()["Uri"]
    assert master.ask("POST", f"{node}/resize/0").status == 200
    job_id = master.submit((3, wait_task(tmp_path)))
    assert master.job(job_id)["Running"] == 0
    assert master.job(job_id)["State"] == "RUNNING"

    master.ask("POST", f"{node}/resize/3")

    wait_until(lambda: len(list(tmp_path.glob("0-*"))) == 3, "three tasks at once")
    assert (master.node()["MaxJobs"], master.node()["RunningJobs"], master.node()["Running"]) == (3, 3, True)
    assert master.ask("POST", f"{node}/resize/many").status == 400
    assert master.ask("POST", f"{node}/resize/-1").status == 200
    assert master.node()["MaxJobs"] == 0
    (tmp_path / "release").touch()
    assert master.wait_for_end(job_id)["Status"] == "SUCCESS"


def test_a_task_finds_a_clean_world(master: Master) -> None:
    code = (
        "import os, signal, sys; print(os.getcwd(), os.getsid(0) == os.getpid(), sys.stdin.read() == '',"
        " signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set(), sorted(os.listdir('/proc/self/fd')))"
    )
    job_id = master.submit((1, [sys.executable, "-I", "-S", "-c", code]))
    master.wait_for_end(job_id)

    (line,) = master.output(job_id, "out")

    assert line == f"{master.state / 'work'} True True True True ['0', '1', '2', '3']"  # 3 lists the folder


def test_a_dead_zygote_is_replaced_and_its_tasks_are_errors(master: Master, tmp_path: Path) -> None:
    job_id = master.submit(
        (
            1,
            [
                "/bin/sh",
                "-c",
                f"echo $PPID $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pids; exec sleep 300",
            ],
        )
    )
    wait_until((tmp_path / "pids").exists, "the task")
    zygote, task = map(int, (tmp_path / "pids").read_text().split())

    os.kill(zygote, signal.SIGKILL)

    assert master.wait_for_end(job_id)["Status"] == "ERROR"
    assert not is_running(task)
    again = master.submit((1, ["/bin/echo", "back"]))
    assert master.wait_for_end(again)["Status"] == "SUCCESS"


def test_many_short_tasks_all_get_counted(master: Master) -> None:
    job_ids = [master.submit((50, ["/bin/true"]), (50, ["/bin/false"])) for _ in range(3)]

    for job_id in job_ids:
        assert master.wait_for_end(job_id)["Progress"] == {"Total": 100, "Finished": 50, "Errored": 50}
    assert master.node()["RunningJobs"] == 0
