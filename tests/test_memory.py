"""The client's memory stays flat, however many inputs and however large the results."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.world import end_master, said, script

MOST_MB = 200.0

# Prints "<figure> MB" of growth: the largest of what was sampled and what the system remembers.
CLIENT = """
import os, resource, sys, threading
from golem_magic import Client

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6

def watch():
    global peak
    while not over.wait(0.01):
        peak = max(peak, resident_mb())

def run(client, n):
    {body}

with Client(share=sys.argv[1], state_dir=sys.argv[2], workers=2) as client:
    assert list(client.map(abs, [-1, -2])) == [1, 2]  # everything is imported
    start, peak, over = resident_mb(), 0.0, threading.Event()
    remembered = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3
    watcher = threading.Thread(target=watch)
    watcher.start()
    run(client, int(sys.argv[3]))
    over.set()
    watcher.join()
    now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1.024e-3
    peak = max(peak, now if now > remembered else 0.0)
    print(f"{{peak - start:.1f}} MB above {{start:.1f}} MB")
"""

SMALL_INPUTS = """
    results = client.map(lambda x: -x, (i for i in range(n)))
    total = 0
    for value in results:
        total += value
    assert total == -n * (n - 1) // 2
"""

LARGE_RESULTS = """
    results = client.map(lambda i: bytes([i % 256]) * 1_000_000, range(n))
    for index, value in enumerate(results):
        assert len(value) == 1_000_000 and value[0] == value[-1] == index % 256
    assert index == n - 1
"""

LARGE_INPUTS = """
    results = client.map(len, (bytes([i % 256]) * 1_000_000 for i in range(n)))
    assert all(length == 1_000_000 for length in results)
"""


@pytest.fixture
def world(tmp_path: Path, short_tmp: Path) -> Iterator[tuple[Path, Path]]:
    """Share and state; gigabytes of results are removed at once."""
    yield tmp_path / "share", short_tmp / "state"
    end_master(short_tmp / "state")
    shutil.rmtree(tmp_path / "share")


@pytest.mark.skipif(sys.platform != "linux", reason="samples /proc")
@pytest.mark.parametrize(
    ("what", "body", "n"),
    [
        pytest.param(
            "small inputs",
            SMALL_INPUTS,
            1_000_000,
            marks=pytest.mark.meets("G-03", "G-13"),
            id="small inputs",
        ),
        pytest.param(
            "results of 1 MB", LARGE_RESULTS, 2000, marks=pytest.mark.meets("G-13"), id="large results"
        ),
        pytest.param(
            "inputs of 1 MB", LARGE_INPUTS, 1000, marks=pytest.mark.meets("G-03"), id="large inputs"
        ),
    ],
)
def test_the_client_stays_small(
    world: tuple[Path, Path], capsys: pytest.CaptureFixture[str], what: str, body: str, n: int
) -> None:
    client = script(CLIENT.format(body=body.strip()), *world, n)

    text = said(client, 300).strip()

    with capsys.disabled():
        print(f"\nclient's memory, {n} {what}: {text}")
    growth = re.match(r"(-?[0-9.]+) MB", text)
    assert growth
    assert float(growth[1]) < MOST_MB
