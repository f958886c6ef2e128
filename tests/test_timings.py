"""What tasks took, and where."""

import math
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.world import cell, embedded_client

from golem_magic import Client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("timings")) as client:
        yield client


@pytest.mark.parametrize("chunk_size", [1, 4, "auto"])
def test_each_task_is_timed(client: Client, chunk_size: "int | str") -> None:
    slow = cell("import time\ndef slow(x):\n    time.sleep(x)\n    return x\n")["slow"]
    inputs = [0.02 if x % 3 else 0.1 for x in range(12)]
    results = client.map(slow, inputs, chunk_size=chunk_size)
    assert list(results) == inputs

    timings = results.timings()

    assert [each.task for each in timings] == list(range(12))
    assert {each.host for each in timings} == {socket.gethostname()}
    for timing, asleep in zip(timings, inputs, strict=True):
        assert asleep <= timing.seconds < asleep + 5
    assert sum(each.seconds for each in timings) < 2 * results.progress.elapsed_s + 0.1


def test_very_short_tasks_share_a_mean(client: Client) -> None:
    results = client.map(abs, range(50_000))
    assert results.wait(60)
    timings = results.timings()
    assert len(timings) == 50_000
    assert all(0 < each.seconds < 1 for each in timings)
    assert sum(each.seconds for each in timings) < 2 * results.progress.elapsed_s


def test_failed_tasks_are_timed_and_those_that_died_are_not(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, time\n"
        "def f(x):\n"
        "    time.sleep(0.05)\n"
        "    if x == 1 and not os.path.exists(mended):\n"
        "        raise ValueError(x)\n"
        "    if x == 2:\n"
        "        os._exit(3)\n"
        "    return x\n",
        mended=str(tmp_path / "mended"),
    )
    results = client.map(names["f"], range(4), on_error="return")
    assert results.wait(60)
    seconds = [each.seconds for each in results.timings()]
    assert [math.isnan(each) for each in seconds] == [False, False, True, False]
    assert min(each for each in seconds if not math.isnan(each)) >= 0.05

    (tmp_path / "mended").touch()
    before = results.timings()[1]
    assert results.retry_errors().wait(60)
    again = results.timings()
    assert [each.task for each in again] == [0, 1, 2, 3]
    assert again[1].worker != before.worker


def test_what_was_freed_is_left_out(client: Client) -> None:
    results = client.map(time.sleep, [0.01] * 6, chunk_size=2, keep="unread")
    iterator = iter(results)
    for _ in range(3):
        next(iterator)
    assert results.wait(30)
    assert [each.task for each in results.timings()] == [2, 3, 4, 5]
