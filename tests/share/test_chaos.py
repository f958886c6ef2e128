"""The assumption everything rests on, tried with real processes: each task gets exactly one outcome."""

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from share.chaos import NOTING, by_value, mount, run_with_kills, stage, unmount

FUNCTION = f"""{NOTING}
import random

def f(x):
    note(b"begin", x)
    time.sleep(random.choice([0, 0.0005, 0.002, 0.02 if x % 40 else 0.3]))
    note(b"end", x)
    return x, os.getpid(), random.random()
"""


@pytest.fixture
def views(tmp_path: Path, require: Callable[[str], str]) -> Iterator[tuple[Path, list[Path]]]:
    """A folder and two caching mounts of it."""
    bindfs = require("bindfs")
    real = tmp_path / "real"
    real.mkdir()
    mounts = [tmp_path / "a", tmp_path / "b"]
    for each in mounts:
        mount(bindfs, real, each)
    yield real, mounts
    for each in mounts:
        unmount(each)


@pytest.mark.meets("GM-14")
@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_kills_and_stops_on_two_caching_mounts_leave_one_outcome_per_task(
    views: tuple[Path, list[Path]], tmp_path: Path, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    _, mounts = views
    calls = tmp_path / "calls"
    calls.touch()
    n_tasks = 7000
    staged = stage(
        mounts[0],
        mounts,
        by_value(FUNCTION, "f", calls=str(calls)),
        list(range(n_tasks)),
        workers=8,
        max_attempts=6,  # eight kills a second meet the same innocent task now and then
    )

    try:
        report = run_with_kills(staged, calls, n_events=100, seed=seed, pause_s=0.07)
    finally:
        staged.engine.close()

    with capsys.disabled():
        sys.stdout.write(f"\nchaos on two caching mounts: {report}\n")
    assert [value[0] for value in report.outcomes] == list(range(n_tasks))
    assert report.kills + report.stops >= 100
    assert report.kills >= 30
    assert set(report.executions) == set(range(n_tasks))
    assert report.most <= 6
    # What ran in vain ran in a process that was struck; one may have been late by itself on a busy machine.
    assert len({run.pid for run in report.in_vain} - report.struck.keys()) <= 1
    assert report.extra <= 20 * (report.kills + report.stops)  # 0.1 s of finished work and the task in flight


@pytest.mark.meets("GM-14", "IP-06")
def test_stops_longer_than_a_lease_repeat_only_what_was_in_hand(
    share: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is killed: who was only stopped goes on when its lease is somebody else's."""
    calls = tmp_path / "calls"
    calls.touch()
    staged = stage(
        share, [share], by_value(FUNCTION, "f", calls=str(calls)), list(range(1500)), workers=4, lease_s=0.5
    )
    try:
        report = run_with_kills(staged, calls, n_events=12, seed=1, pause_s=0.2, share_of_kills=0)
    finally:
        staged.engine.close()

    with capsys.disabled():
        sys.stdout.write(f"\nchaos by stopping only: {report}\n")
    assert [value[0] for value in report.outcomes] == list(range(1500))
    assert (report.kills, report.stops) == (0, 12)
    vain = Counter(run.pid for run in report.in_vain)
    assert len(vain.keys() - report.struck.keys()) <= 1
    for task, count in report.executions.items():
        stopped = {run.pid for run in report.runs if run.task == task} & report.struck.keys()
        assert count <= 1 + max(1, len(stopped))  # twice at most for one worker that was stopped


def test_a_worker_that_starts_after_the_job_is_over_leaves_at_once(share: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    calls.touch()
    staged = stage(share, [share], by_value(FUNCTION, "f", calls=str(calls)), list(range(50)), workers=2)
    try:
        report = run_with_kills(staged, calls, n_events=0, seed=0)
    finally:
        staged.engine.close()

    began = time.monotonic()
    late = subprocess.run([*staged.site.argv, "5", "late", "0", "0"], capture_output=True, timeout=20)

    assert late.returncode == 0, late.stderr
    assert time.monotonic() - began < 5
    assert report.repeated == {}
    assert len(report.runs) == 50
