"""What can be decided without a process: who makes room, what a form says, how many CPUs count."""

import secrets
from pathlib import Path

import pytest

from golem_magic import cpus
from golem_magic.master.fairness import choose_leavers
from golem_magic.master.jobs import Job, Line
from golem_magic.master.submission import lines_of_request

pytestmark = pytest.mark.unit


def job(n_running: int, n_waiting: int, *, begun_s: float = 0.0, is_worker: bool = True) -> Job:
    made = Job(
        job_id=secrets.token_hex(8),
        label="",
        owner="",
        kind="",
        lines=[Line(n_running + n_waiting, ("worker",))],
    )
    for key in range(n_running):
        made.take(key, begun_s + key / 1000).is_worker = is_worker
    return made


def placement(n_running: int, n_waiting: int, first: int, of: str) -> Job:
    made = job(n_running, n_waiting)
    made.kind, made.lines = "golemize", [Line(n_running + n_waiting, ("worker", of, str(first)))]
    return made


def n_asked(jobs: list[Job], n_slots: int, now_s: float = 10.0) -> list[int]:
    leavers = choose_leavers(jobs, n_slots=n_slots, now_s=now_s)
    assert len(set(leavers)) == len(leavers)
    return [sum(task.job is each for task in leavers) for each in jobs]


@pytest.mark.meets("GM-11")
@pytest.mark.parametrize(
    ("running_and_waiting", "asked"),
    [
        ([(8, 0), (0, 8)], [4, 0]),
        ([(8, 8), (0, 8)], [4, 0]),
        ([(8, 0), (0, 1)], [1, 0]),
        ([(5, 3), (3, 5)], [1, 0]),
        ([(4, 4), (4, 4)], [0, 0]),
        ([(8, 0), (0, 8), (0, 8)], [5, 0, 0]),
        ([(4, 0), (4, 0), (0, 8)], [1, 1, 0]),
        ([(8, 8)], [0]),
    ],
)
def test_jobs_come_to_hold_equal_shares(running_and_waiting: list[tuple[int, int]], asked: list[int]) -> None:
    assert n_asked([job(*numbers) for numbers in running_and_waiting], n_slots=8) == asked


def test_a_map_gains_nothing_by_placing_again_the_workers_that_made_room() -> None:
    """Otherwise two maps would chase each other's workers out for ever."""
    first, again, other = placement(4, 0, 0, "a"), placement(0, 4, 8, "a"), placement(4, 4, 0, "b")

    assert n_asked([first, again, other], n_slots=8) == [0, 0, 0]


def test_a_single_slot_is_passed_on() -> None:
    assert n_asked([job(1, 1), job(0, 1)], n_slots=1) == [1, 0]


def test_nobody_is_asked_within_the_first_second() -> None:
    assert n_asked([job(8, 0, begun_s=9.5), job(0, 8)], n_slots=8) == [0, 0]


def test_who_is_leaving_already_counts_for_the_one_who_waits() -> None:
    greedy, modest = job(8, 0), job(0, 8)
    for task in choose_leavers([greedy, modest], n_slots=8, now_s=10.0):
        task.is_leaving = True

    assert n_asked([greedy, modest], n_slots=8) == [0, 0]


def test_foreign_commands_are_never_asked() -> None:
    assert n_asked([job(8, 0, is_worker=False), job(0, 8)], n_slots=8) == [0, 0]


def test_the_longest_running_leaves_first() -> None:
    greedy, modest = job(3, 0), job(0, 1)

    (leaver,) = choose_leavers([greedy, modest], n_slots=3, now_s=10.0)

    assert leaver.number == 0


@pytest.mark.meets("GM-21")
def test_a_job_taken_up_hands_out_what_never_started_and_then_the_rest() -> None:
    left = Job(job_id="j", label="", owner="", kind="", lines=[Line(2, ("a",)), Line(0, ()), Line(4, ("b",))])

    left.resume(ended={0: True, 3: False}, started={4})
    left.run(4, key=0, now_s=0.0)

    assert (left.finished, left.errored, left.n_waiting, left.is_complete) == (1, 1, 3, False)
    tasks = [left.take(key, 0.0) for key in (1, 2, 3)]
    assert [(task.number, task.line, task.args) for task in tasks] == [
        (1, 0, ("a",)),
        (2, 2, ("b",)),
        (5, 2, ("b",)),
    ]
    assert not left.has_waiting


@pytest.mark.meets("GM-03")
def test_a_form_is_read_as_clients_write_it() -> None:
    body = (
        b'preamble\r\n--x y\r\nContent-Disposition: form-data; name="command"\r\n\r\nrun\r\n'
        b'--x y\r\ncontent-disposition: form-data; name="jsonfile"; filename="a.json"\r\n'
        b'Content-Type: text/plain\r\n\r\n[{"args": ["p", "--x y"], "COUNT": 2, "Other": 1}]\r\n'
        b"--x y--\r\nepilogue"
    )

    assert lines_of_request('multipart/form-data; boundary="x y"', body) == [Line(2, ("p", "--x y"))]


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/box/inner\n", {"box/cpu.max": "150000 100000\n", "box/inner/cpu.max": "max 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4.0),
        ("0::/\n", {}, None),
        (
            "4:memory:/a\n3:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "50000", "cpu/a/cpu.cfs_period_us": "100000"},
            0.5,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
)
def test_the_tightest_quota_counts(
    tmp_path: Path, membership: str, files: dict[str, str], quota: float | None
) -> None:
    (tmp_path / "cgroup").write_text(membership)
    for name, text in files.items():
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).write_text(text)

    assert cpus._quota(tmp_path / "cgroup", tmp_path / "top") == quota
    assert cpus.usable_cpus() >= 1
