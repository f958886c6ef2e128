"""A master that is killed costs a restart and nothing else: what was accepted is done, once."""

import contextlib
import http.client
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from master.running_master import Master, detached_master, is_running, running_master, wait_until

# A task that says it starts, waits until it is released, and ends with the code it finds then.
STARTS = (
    'echo "$3 $$" >> "{folder}/starts"; echo "out of $3"; echo "err of $3" >&2;'
    ' while [ ! -e "{folder}/release-$3" ]; do sleep 0.01; done;'
    ' read code < "{folder}/release-$3"; exit $code'
)


def task(folder: Path) -> list[str]:
    return ["/bin/sh", "-c", STARTS.format(folder=folder), "task"]


def starts(folder: Path) -> dict[int, int]:
    """Process of each task; a task that started twice is a failure."""
    with contextlib.suppress(FileNotFoundError):
        lines = (folder / "starts").read_text().splitlines()
        started = {int(number): int(pid) for number, pid in (line.split() for line in lines)}
        assert len(started) == len(lines), lines
        return started
    return {}


def release(folder: Path, *numbers: int, code: int = 0) -> None:
    for number in numbers:
        part = folder / f"part-{number}"
        part.write_text(f"{code}\n")
        part.rename(folder / f"release-{number}")


def counts(master: Master, job_id: str) -> tuple[int, int]:
    progress = master.job(job_id)["Progress"]
    return progress["Finished"], progress["Errored"]


def zygote_of(master: Master) -> int:
    path = Path(f"/proc/{master.process.pid}/task/{master.process.pid}/children")
    return int(path.read_text().split()[0])


def kill(master: Master) -> None:
    master.process.kill()
    master.process.wait()


def wait_for_starts(folder: Path, n_tasks: int) -> dict[int, int]:
    wait_until(lambda: len(starts(folder)) == n_tasks, f"{n_tasks} tasks")
    return starts(folder)


@pytest.mark.meets("GM-21")
def test_after_a_kill_queued_tasks_start_and_running_ones_are_not_started_again(
    state_dir: Path, tmp_path: Path
) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit((6, task(tmp_path)), label="mine")
        wait_for_starts(tmp_path, 2)
        release(tmp_path, 0, 1)
        wait_until(lambda: counts(first, job_id) == (2, 0), "two counted")
        wait_for_starts(tmp_path, 4)
        kill(first)

    with running_master(state_dir) as second:
        job = second.job(job_id)
        assert (job["Label"], job["State"], job["Running"]) == ("mine", "RUNNING", 2)
        assert counts(second, job_id) == (2, 0)
        assert second.node()["RunningJobs"] == 2
        assert len(starts(tmp_path)) == 4, "the slots are taken by those that run on"
        release(tmp_path, 2, 3, 4, 5)
        job = second.wait_for_end(job_id)

        assert (job["Status"], job["Progress"]["Finished"]) == ("SUCCESS", 6)
        assert sorted(starts(tmp_path)) == [0, 1, 2, 3, 4, 5]
        log = second.output(job_id, "log")
        assert log.count("COMPLETED") == 1
        assert sum(line.startswith("FINISHED ") for line in log) == 6
        assert sorted(second.output(job_id, "out")) == [f"out of {number}" for number in range(6)]


@pytest.mark.meets("GM-21")
def test_a_job_that_was_waiting_when_the_master_died_is_done_by_the_next(
    state_dir: Path, tmp_path: Path
) -> None:
    with running_master(state_dir, slots=0) as first:
        job_id = first.submit((2, ["/bin/echo", "a"]), (1, ["/bin/echo", "b"]))
        kill(first)

    with running_master(state_dir) as second:
        assert second.wait_for_end(job_id)["Status"] == "SUCCESS"
        lines = [f"a {job_id} 0 0", f"a {job_id} 0 1", f"b {job_id} 1 2"]
        assert sorted(second.output(job_id, "out")) == lines


@pytest.mark.meets("GM-21")
def test_what_was_answered_is_known_after_a_kill_at_any_moment(state_dir: Path) -> None:
    for delay_s in (0.05, 0.1, 0.15):
        answered: list[str] = []
        with running_master(state_dir, slots=0) as master:
            death = threading.Timer(delay_s, master.process.kill)
            death.start()
            with contextlib.suppress(OSError, http.client.HTTPException):
                while True:
                    answered.append(master.submit((1, ["/bin/true"])))
            death.join()
            master.process.wait()

        assert answered
        with running_master(state_dir, slots=0) as master:
            known = {job["JobId"] for job in master.ask("GET", "/jobs/").json["Items"]}
            assert set(answered) <= known
            assert len(known - set(answered)) <= 3, "at most the ones that death has left unanswered"
        for path in (state_dir / "jobs").iterdir():
            path.unlink()


@pytest.mark.meets("GM-21")
def test_how_tasks_ended_while_no_master_ran_is_known(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit((2, task(tmp_path)))
        pids = wait_for_starts(tmp_path, 2)
        zygote = zygote_of(first)
        kill(first)
    release(tmp_path, 0)
    release(tmp_path, 1, code=3)
    wait_until(lambda: not any(map(is_running, [*pids.values(), zygote])), "the end of all")

    with running_master(state_dir) as second:
        assert counts(second, job_id) == (1, 1)
        assert second.job(job_id)["Status"] == "ERROR"
        assert sorted(second.output(job_id, "out")) == ["out of 0", "out of 1"]
        assert list((state_dir / "tasks").iterdir()) == []
    assert len(starts(tmp_path)) == 2


@pytest.mark.meets("GM-21")
def test_a_task_whose_end_nobody_saw_is_an_error_and_not_run_again(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit((2, task(tmp_path)))
        pids = wait_for_starts(tmp_path, 2)
        zygote = zygote_of(first)
        kill(first)
    os.kill(zygote, signal.SIGKILL)
    wait_until(lambda: not is_running(zygote), "the zygote's end")
    release(tmp_path, 0)
    wait_until(lambda: not is_running(pids[0]), "the task's end")

    with running_master(state_dir) as second:
        wait_until(lambda: counts(second, job_id) == (0, 1), "the loss of one")
        assert is_running(pids[1])
        assert second.job(job_id)["Running"] == 1
        release(tmp_path, 1)
        second.wait_for_end(job_id)
        assert counts(second, job_id) == (0, 2)
        lost = [line for line in second.output(job_id, "err") if line.startswith("Lost task")]
        assert [line[:12] for line in lost] == ["Lost task 0:", "Lost task 1:"]
    assert len(starts(tmp_path)) == 2


def test_a_task_that_was_not_noted_yet_is_found_by_its_mark(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit((1, task(tmp_path)))
        wait_for_starts(tmp_path, 1)
        zygote = zygote_of(first)
        kill(first)
    os.kill(zygote, signal.SIGKILL)
    (state_dir / "tasks" / f"{job_id}.0.note").unlink()

    with running_master(state_dir) as second:
        time.sleep(3.5)  # longer than a process is missed
        assert second.job(job_id)["Running"] == 1
        assert second.ask("POST", f"/jobs/{job_id}/kill").status == 200
        second.wait_for_end(job_id)
        wait_until(lambda: not any(map(is_running, starts(tmp_path).values())), "the task's end")
    assert len(starts(tmp_path)) == 1


@pytest.mark.meets("GM-21")
def test_tasks_that_were_handed_out_but_never_started_are_started_by_the_next(
    state_dir: Path, tmp_path: Path
) -> None:
    with running_master(state_dir) as first:
        zygote = zygote_of(first)
        os.kill(zygote, signal.SIGSTOP)  # the orders wait in its socket
        job_id = first.submit((3, task(tmp_path)))
        assert first.job(job_id)["Running"] == 2
        kill(first)
        os.kill(zygote, signal.SIGKILL)
    assert starts(tmp_path) == {}

    with running_master(state_dir) as second:
        release(tmp_path, 0, 1, 2)
        assert second.wait_for_end(job_id)["Status"] == "SUCCESS"
    assert sorted(starts(tmp_path)) == [0, 1, 2]


@pytest.mark.meets("GM-21")
def test_the_next_master_begins_when_the_zygote_of_the_last_can_start_nothing_more(
    state_dir: Path, tmp_path: Path
) -> None:
    """Otherwise both could start the same task."""
    with running_master(state_dir) as first:
        zygote = zygote_of(first)
        os.kill(zygote, signal.SIGSTOP)
        job_id = first.submit((2, task(tmp_path)))
        kill(first)
        wake = threading.Timer(1.0, os.kill, (zygote, signal.SIGCONT))
        wake.start()
        begun_s = time.monotonic()

        with running_master(state_dir) as second:
            assert time.monotonic() - begun_s >= 1.0
            release(tmp_path, 0, 1)
            second.wait_for_end(job_id)
        wake.join()
    assert sorted(starts(tmp_path)) == [0, 1]


@pytest.mark.meets("GM-21")
def test_a_suspended_node_stays_so_when_its_master_is_killed(state_dir: Path, tmp_path: Path) -> None:
    """Whoever suspends a node must not find it at work after a crash."""
    with running_master(state_dir, slots=2) as first:
        first.ask("POST", f"{first.node()['Uri']}/resize/0")
        job_id = first.submit((3, task(tmp_path)))
        kill(first)

    with detached_master(state_dir, slots=2) as second:
        assert second.node()["MaxJobs"] == 0
        assert second.job(job_id)["Running"] == 0
        second.ask("POST", f"{second.node()['Uri']}/resize/1")
        release(tmp_path, 0, 1, 2)
        second.wait_for_end(job_id)
    assert sorted(starts(tmp_path)) == [0, 1, 2]

    with detached_master(state_dir, slots=2) as third:
        assert third.node()["MaxJobs"] == 2, "nothing was left when the second one ended"


def test_slots_named_at_a_terminal_count_and_end_what_was_kept(state_dir: Path) -> None:
    with detached_master(state_dir, slots=2) as first:
        first.ask("POST", f"{first.node()['Uri']}/resize/0")
        first.submit((1, ["/bin/true"]))
        kill(first)
    with running_master(state_dir, slots=0) as named:
        kill(named)
    with detached_master(state_dir, slots=2) as third:
        assert third.node()["MaxJobs"] == 2


def test_slots_that_cannot_be_read_are_as_if_never_kept(state_dir: Path) -> None:
    (state_dir / "slots").touch()
    with detached_master(state_dir, slots=3) as master:
        assert master.node()["MaxJobs"] == 3


def test_a_stop_outlives_the_master(state_dir: Path, tmp_path: Path) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit((5, task(tmp_path)))
        wait_for_starts(tmp_path, 2)
        first.ask("POST", f"/jobs/{job_id}/stop")
        kill(first)

    with running_master(state_dir) as second:
        job = second.job(job_id)
        assert (job["State"], job["Status"], job["Running"]) == ("COMPLETE", "STOPPED", 2)
        release(tmp_path, 0, 1)
        assert second.wait_for_end(job_id)["Progress"] == {"Total": 5, "Finished": 2, "Errored": 0}


def test_a_kill_that_was_cut_short_is_finished_by_the_next_master(state_dir: Path, tmp_path: Path) -> None:
    stubborn = ["/bin/sh", "-c", f"trap '' TERM; echo 0 $$ >> {tmp_path}/starts; while :; do sleep 1; done"]
    with running_master(state_dir) as first:
        job_id = first.submit((1, stubborn))
        (pid,) = wait_for_starts(tmp_path, 1).values()
        first.ask("POST", f"/jobs/{job_id}/kill")
        kill(first)
    assert is_running(pid)

    with running_master(state_dir) as second:
        assert second.wait_for_end(job_id)["Status"] == "STOPPED"
        assert not is_running(pid)


@pytest.mark.meets("GM-21")
def test_torn_lines_are_as_if_never_written(state_dir: Path) -> None:
    with running_master(state_dir, slots=0) as first:
        job_id = first.submit((12, ["/bin/true"]))
        kill(first)
    with (state_dir / "output" / f"{job_id}.log.txt").open("a") as log:
        log.write(f"FINISHED {job_id} 0 0 /bin/true\nERRORED {job_id} 1")  # of task 11
    with (state_dir / "jobs" / f"{job_id}.jsonl").open("a") as journal:
        journal.write('{"stopped": tr')
    (state_dir / "jobs" / "neveranswered.0a0b0c0d.part").write_text('{"format": 1, "job_id"')
    (state_dir / "jobs" / "strange.jsonl").write_text('{"format": 2}\n')

    with running_master(state_dir, slots=0) as second:
        assert counts(second, job_id) == (1, 0)
        assert second.job(job_id)["State"] == "RUNNING"
        assert second.ask("GET", "/jobs/").json["NumberOfItems"] == 1
        second.ask("POST", f"{second.node()['Uri']}/resize/2")
        assert second.wait_for_end(job_id)["Progress"] == {"Total": 12, "Finished": 12, "Errored": 0}
        log_lines = second.output(job_id, "log")
        assert {line.split()[0] for line in log_lines} == {"SUBMITTED", "FINISHED", "COMPLETED"}
    assert [path.name for path in (state_dir / "jobs").iterdir()] == [f"{job_id}.jsonl"]


@pytest.mark.meets("GM-21")
def test_the_journal_keeps_little_of_a_job_that_is_over(state_dir: Path) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit(*[(1, ["/bin/sh", "-c", f"exit {n % 2}", "x" * 500]) for n in range(100)])
        assert (state_dir / "jobs" / f"{job_id}.jsonl").stat().st_size > 50_000
        job = first.wait_for_end(job_id)
        assert (state_dir / "jobs" / f"{job_id}.jsonl").stat().st_size < 500
        kill(first)

    with running_master(state_dir) as second:
        again = second.job(job_id)
        assert (again["Progress"], again["Status"]) == (job["Progress"], "ERROR")
        assert (again["Progress"]["Finished"], again["Progress"]["Errored"]) == (50, 50)
        assert second.post_jobs(b"[]", preassigned_id=job_id).status == 409


@pytest.mark.meets("GM-21")
def test_old_jobs_are_dropped(state_dir: Path) -> None:
    with running_master(state_dir, slots=0) as first:
        fresh, stale = (first.submit((1, ["/bin/true"])) for _ in range(2))
        over = first.post_jobs(b"[]").json["JobId"]
        kill(first)
    for job_id, days in ((stale, 8), (over, 2), (fresh, 2)):
        then_s = time.time() - days * 86_400
        os.utime(state_dir / "jobs" / f"{job_id}.jsonl", (then_s, then_s))

    with running_master(state_dir, slots=0) as second:
        assert [job["JobId"] for job in second.ask("GET", "/jobs/").json["Items"]] == [fresh]


@pytest.mark.meets("GM-10")
def test_an_archived_job_is_forgotten_after_its_time_and_its_output_stays(state_dir: Path) -> None:
    with running_master(state_dir) as first:
        job_id = first.submit((1, ["/bin/echo", "kept"]))
        first.wait_for_end(job_id)
        first.ask("POST", f"/jobs/{job_id}/archive")
        record = state_dir / "jobs" / f"{job_id}.jsonl"
        assert 86_400 - (time.time() - record.stat().st_mtime) == pytest.approx(900, abs=10)
        kill(first)
    os.utime(record, (time.time() - 86_401,) * 2)

    with running_master(state_dir) as second:
        assert second.ask("GET", f"/jobs/{job_id}").status == 404
        assert second.output(job_id, "out") == [f"kept {job_id} 0 0"]
        assert second.post_jobs(b"[]", preassigned_id=job_id).status == 200


def test_a_job_that_cannot_be_written_down_is_not_accepted(master: Master) -> None:
    (master.state / "jobs").rename(master.state / "elsewhere")

    answer = master.post_jobs(b'[{"Count":1,"Args":["/bin/true"]}]', preassigned_id="one")

    assert (answer.status, str(master.state / "jobs") in answer.text) == (500, True)
    assert master.ask("GET", "/jobs/one").status == 404
    (master.state / "elsewhere").rename(master.state / "jobs")


def test_every_record_is_a_line_of_json_for_this_user_alone(state_dir: Path) -> None:
    with running_master(state_dir, slots=0) as master:
        job_id = master.submit((3, ["/bin/echo", "Größe\nzwei"]), owner="me")
        path = state_dir / "jobs" / f"{job_id}.jsonl"

        (line,) = path.read_text().splitlines()
        assert json.loads(line)["lines"] == [[3, ["/bin/echo", "Größe\nzwei"]]]
        assert path.stat().st_mode & 0o777 == 0o600
