"""Signs of life: how often workers give them, and after what silence they are taken for dead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.golem_double import GolemDouble
from fakes.world import cell, embedded_client

from golem_magic import Client
from golem_magic.results import Results
from golem_magic.share import files, jobs
from golem_magic.share.layout import SharePaths
from golem_magic.worker import memory


def pace_of(client: Client, results: Results) -> tuple[float, float]:
    """Seconds between two beats, and of silence after which a worker is given up."""
    manifest = jobs.read_manifest(SharePaths(str(client.settings.share)).job(results.job_id))
    return manifest.beat_s, manifest.lease_s


@pytest.mark.meets("GR-07", "IP-07")
def test_silence_counts_sooner_on_one_machine_than_on_a_cluster(tmp_path: Path, share: Path) -> None:
    with embedded_client(tmp_path) as client:
        assert pace_of(client, client.map(abs, [])) == (1.0, 10.0)
    with (
        GolemDouble(tmp_path / "golem", password="secret") as golem,
        Client(engine="golem", server_url=golem.url, server_password="secret", share=share) as client,
    ):
        assert pace_of(client, client.map(abs, [])) == (5.0, 90.0)


@pytest.mark.meets("IP-07")
@pytest.mark.parametrize(("silence_s", "beat_s"), [(2, 0.4), (60, 1.0)])
def test_the_silence_that_counts_can_be_set(tmp_path: Path, silence_s: int, beat_s: float) -> None:
    with embedded_client(tmp_path, silence_s=silence_s) as client:
        assert pace_of(client, client.map(abs, [])) == (beat_s, silence_s)


@pytest.mark.meets("GR-07")
def test_a_task_that_waits_without_using_the_processor_is_told_and_left_in_peace(
    tmp_path: Path,
) -> None:
    """Waiting for a person or the network is legal work, however long; the one who computes is not named."""
    names = cell(
        "import os, time\n"
        "def f(is_busy):\n"
        "    begun = time.monotonic()\n"
        "    while time.monotonic() - begun < 6:\n"
        "        if not is_busy:\n"
        "            time.sleep(6)\n"
        "    return is_busy\n"
    )
    with embedded_client(tmp_path, silence_s=2) as client:
        results = client.map(names["f"], [True, False], chunk_size=1)
        notes = set()
        while not results.wait(0.1):
            notes.add(results.progress.note)

        assert list(results) == [True, False]
        idle = results.timings()[1].worker
    told = {note for note in notes if note}
    assert any(f"worker {idle} has used no processor for " in note for note in told)
    assert all(f"worker {idle} " in note for note in told)


@pytest.mark.unit
def test_a_beat_tells_memory_and_processor_time(tmp_path: Path) -> None:
    hoard = bytearray(b"x" * 50_000_000)
    code = "import time\nhoard = bytearray(b'x' * 80_000_000)\nprint(flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            used, cpu_s = memory.used_bytes(os.getpid()), memory.cpu_s(os.getpid())
        finally:
            child.kill()
    assert used > len(hoard) + 80_000_000
    assert 0 < cpu_s < 36_000

    writer = files.BeatWriter(str(tmp_path / "beat"))
    writer.beat("0/3-4.1", used, cpu_s)
    writer.close()
    beat = files.read_beat(str(tmp_path / "beat"))
    assert beat is not None
    assert (beat.number, beat.word, beat.memory_bytes) == (2, "0/3-4.1", used)
    assert beat.cpu_s == pytest.approx(cpu_s, abs=0.01)
