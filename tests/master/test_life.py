"""A master comes alone, stays while it is needed, costs nothing meanwhile, and leaves."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from master.running_master import Master, is_running, running_master, wait_until

MASTER = [sys.executable, "-m", "golem_magic.master"]


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    return [
        int(word)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for word in path.read_text().split()
    ]


@pytest.mark.meets("GM-20")
def test_only_the_user_can_read_the_address(master: Master) -> None:
    address = master.state / "golem.json"

    assert stat.S_IMODE(address.stat().st_mode) == 0o600
    assert stat.S_IMODE(master.state.stat().st_mode) == 0o700
    assert set(master.address) == {"url", "password", "pid", "version"}
    assert master.address["pid"] == master.process.pid
    assert len(master.password or "") >= 32
    assert (master.password or "") not in Path(f"/proc/{master.process.pid}/cmdline").read_text()


def test_a_terminated_master_takes_its_address_along(master: Master) -> None:
    (zygote,) = children_of(master.process.pid)

    master.process.send_signal(signal.SIGTERM)

    assert master.process.wait(5) == 0
    assert not (master.state / "golem.json").exists()
    wait_until(lambda: not is_running(zygote), "the zygote's end")


def test_ten_starts_at_once_give_one_master(state_dir: Path) -> None:
    command = [*MASTER, "--state", str(state_dir), "--slots", "1", "--detach", "--linger", "inf"]
    (state_dir / "golem.json").write_text('{"url": "http://127.0.0.1:9", "password": "x", "pid": 999999999}')

    starts = [subprocess.Popen(command) for _ in range(10)]

    assert [start.wait(30) for start in starts] == [0] * 10
    mark = f"--state\0{state_dir}\0".encode()

    def alive() -> list[int]:
        pids = [int(path.parent.name) for path in Path("/proc").glob("[0-9]*/cmdline") if mark in _read(path)]
        return [pid for pid in pids if is_running(pid)]

    one = [json.loads((state_dir / "golem.json").read_text())["pid"]]
    wait_until(lambda: alive() == one, "the end of those who came too late")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_it_leaves_when_its_last_client_has_gone(state_dir: Path) -> None:
    with running_master(state_dir, "--linger", "0.2") as master, subprocess.Popen(["sleep", "300"]) as client:
        assert master.ask("POST", f"/clients/{client.pid}").status == 200
        with pytest.raises(subprocess.TimeoutExpired):
            master.process.wait(2.5)

        client.kill()
        client.wait()

        assert master.process.wait(5) == 0
        assert not (state_dir / "golem.json").exists()


def test_it_stays_while_a_job_is_unfinished(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir, "--linger", "0.1") as master:
        with subprocess.Popen(["sleep", "300"]) as client:
            master.ask("POST", f"/clients/{client.pid}")
            script = f"while [ ! -e {tmp_path}/release ]; do sleep 0.01; done"
            master.submit((1, ["/bin/sh", "-c", script]))
            client.kill()
        with pytest.raises(subprocess.TimeoutExpired):
            master.process.wait(2.5)

        (tmp_path / "release").touch()

        assert master.process.wait(5) == 0


def test_a_master_asked_to_leave_does_so_when_its_last_job_has_ended(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir) as master:
        master.ask("POST", f"/clients/{os.getpid()}")
        script = f"while [ ! -e {tmp_path}/release ]; do sleep 0.01; done"
        job_id = master.submit((1, ["/bin/sh", "-c", script]))

        assert master.ask("POST", "/leave").status == 200

        late = master.submit((1, ["/bin/sh", "-c", script]))
        with pytest.raises(subprocess.TimeoutExpired):
            master.process.wait(2.0)
        (tmp_path / "release").touch()
        assert master.process.wait(5) == 0
    with running_master(state_dir) as after:
        assert [after.job(each)["Status"] for each in (job_id, late)] == ["SUCCESS", "SUCCESS"]


@pytest.mark.meets("GM-19")
def test_an_idle_master_uses_no_measurable_cpu(state_dir: Path) -> None:
    with running_master(state_dir, "--linger", "3") as master:
        master.ask("POST", f"/clients/{os.getpid()}")
        master.wait_for_end(master.submit((1, ["/bin/true"])))
        pids = [master.process.pid, *children_of(master.process.pid)]
        before_s = sum(map(cpu_seconds, pids))

        time.sleep(3)  # the thing measured, not a hope

        assert sum(map(cpu_seconds, pids)) - before_s <= 0.03


def test_a_killed_master_leaves_its_tasks_running(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir) as master:
        (zygote,) = children_of(master.process.pid)
        script = (
            f"echo $$ > {tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid;"
            f" while [ ! -e {tmp_path}/release ]; do sleep 0.01; done; : > {tmp_path}/done"
        )
        master.submit((1, ["/bin/sh", "-c", script]))
        wait_until((tmp_path / "pid").exists, "the task")

        master.process.kill()
        master.process.wait()

    assert is_running(int((tmp_path / "pid").read_text()))
    assert is_running(zygote), "it waits for its task, to note how that ends"
    (tmp_path / "release").touch()
    wait_until((tmp_path / "done").exists, "the task's own end")
    wait_until(lambda: not is_running(zygote), "the zygote's end")


def test_a_killed_masters_address_is_replaced(state_dir: Path) -> None:
    with running_master(state_dir) as first:
        first.process.kill()
        first.process.wait()
        assert (state_dir / "golem.json").exists()

        with running_master(state_dir) as second:
            assert second.address["pid"] == second.process.pid != first.address["pid"]
            assert second.ask("GET", "/jobs/").json["Items"] == []


def test_a_second_master_by_hand_sees_the_first_and_leaves(master: Master) -> None:
    second = subprocess.run(
        [*MASTER, "--state", str(master.state)], capture_output=True, text=True, timeout=20
    )

    assert (second.returncode, second.stdout) == (1, "")
    assert second.stderr.startswith(f"another master serves {master.state} already (")
    assert master.ask("GET", "/jobs/").status == 200


def test_a_folder_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    run = subprocess.run(
        [*MASTER, "--state", str(tmp_path / "file"), "--detach"], capture_output=True, text=True, timeout=20
    )

    assert run.returncode == 1
    assert len(run.stderr.splitlines()) == 1
    assert str(tmp_path / "file") in run.stderr
