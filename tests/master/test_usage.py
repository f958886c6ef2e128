"""How much was going on is noted while there is work, for later, in little space."""

import stat
import time
from pathlib import Path

import pytest
from master.running_master import running_master, wait_until

from golem_magic.engines.usage import Use, read_usage
from golem_magic.master.jobs import Job, Line
from golem_magic.master.usage import MAX_BYTES, STEP_S, Usage
from golem_magic.progress.tables import usage_table

HOUR_S = 3600.0


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def now(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def job(n_running: int) -> Job:
    made = Job(job_id="a", label="", owner="", kind="", lines=[Line(9, ("/bin/true",))])
    for key in range(n_running):
        made.take(key, 0.0)
    return made


@pytest.mark.unit
@pytest.mark.meets("GM-21")
def test_a_line_is_added_every_ten_seconds_while_there_is_work(tmp_path: Path) -> None:
    clock, jobs = Hand(), [job(2), job(1), job(0)]
    usage = Usage(tmp_path / "usage", clock)

    usage.look(list, n_running=0, n_slots=4)
    assert not (tmp_path / "usage").exists(), "nothing to do, nothing to write"
    for _ in range(25):
        usage.look(lambda: jobs, n_running=3, n_slots=4)
        clock.now_s += 1.0

    begin_s, records = read_usage(tmp_path, HOUR_S)
    assert STEP_S == 10.0
    assert [use[1:] for use in records] == [(2, 1, 3, 4)] * 3
    assert begin_s + HOUR_S == pytest.approx(records[0].at_s, abs=60)
    assert stat.S_IMODE((tmp_path / "usage").stat().st_mode) == 0o600


@pytest.mark.unit
def test_the_older_half_goes_when_the_file_is_full(tmp_path: Path) -> None:
    clock, path = Hand(), tmp_path / "usage"
    lines = [f"{number} 1 0 2 2\n" for number in range(1_000_000, 1_000_000 + MAX_BYTES // 16)]
    path.write_text("".join(lines))
    usage = Usage(path, clock)

    usage.look(lambda: [job(1)], n_running=1, n_slots=2)
    usage.look(lambda: [job(1)], n_running=1, n_slots=2)  # too early

    kept = path.read_text().splitlines(keepends=True)
    assert 0.4 * MAX_BYTES < path.stat().st_size <= MAX_BYTES // 2
    assert kept[:-1] == lines[-(len(kept) - 1) :]
    assert kept[-1].endswith(" 1 0 1 2\n")
    assert [file.name for file in tmp_path.iterdir()] == ["usage"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.unit
def test_a_folder_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    Usage(tmp_path / "gone" / "usage", Hand()).look(lambda: [job(1)], n_running=1, n_slots=2)

    assert read_usage(tmp_path / "gone", HOUR_S)[1] == []


@pytest.mark.unit
def test_records_of_all_versions_within_the_time_are_read_and_torn_ones_are_not(tmp_path: Path) -> None:
    now_s = int(time.time())
    (tmp_path / "version-9").mkdir()
    (tmp_path / "usage").write_text(f"{now_s - 4000} 1 0 1 2\n{now_s - 20} 1 0 1 2\n\0\0\n{now_s} 1 0")
    (tmp_path / "version-9/usage").write_text(f"{now_s - 3000} 3 0 1 2\n{now_s - 10} 1 0 1 2\n")

    _, records = read_usage(tmp_path, HOUR_S)

    assert records == [
        Use(now_s - 3000, 3, 0, 1, 2),
        Use(now_s - 20, 1, 0, 1, 2),
        Use(now_s - 10, 1, 0, 1, 2),
    ]


@pytest.mark.unit
def test_the_table_tells_the_most_jobs_and_the_mean_of_the_slots_in_each_part() -> None:
    begin_s = 1_700_000_000.0
    first = [(int(begin_s) + 10 * n, 1, n % 3, 2, 4) for n in range(15)]  # half of its five minutes
    late = [(int(begin_s) + 3590, 5, 0, 4, 4)]

    head, *rows = usage_table([*first, *late], begin_s=begin_s, last_s=HOUR_S).splitlines()

    assert head.split() == ["from", "jobs", "waiting", "slots", "taken", "of"]
    assert [row.split()[2:] for row in rows] == [["1", "2", "1.0", "4"], ["5", "0", "0.1", "4"]]
    assert usage_table([], begin_s=begin_s, last_s=HOUR_S) == "no work\n"
    assert usage_table(late, begin_s=begin_s + 3589, last_s=1).splitlines()[1].split()[2:] == [
        "5",
        "0",
        "4.0",
        "4",
    ]


@pytest.mark.meets("GM-21")
def test_what_a_killed_master_has_noted_can_be_read_and_is_continued(state_dir: Path, tmp_path: Path) -> None:
    def records() -> list[tuple[int, ...]]:
        return [use[1:] for use in read_usage(state_dir, HOUR_S)[1]]

    with running_master(state_dir, slots=2) as first:
        wait = f"while [ ! -e {tmp_path}/release ]; do sleep 0.01; done"
        job_id = first.submit((3, ["/bin/sh", "-c", wait]))
        wait_until(lambda: records() == [(1, 0, 2, 2)], "the first record")
        first.process.kill()
        first.process.wait()
    with running_master(state_dir, slots=2) as second:
        wait_until(lambda: records() == [(1, 0, 2, 2)] * 2, "the next one's first")
        (tmp_path / "release").touch()
        second.wait_for_end(job_id)
