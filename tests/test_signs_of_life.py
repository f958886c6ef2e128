"""Signs of life: how often workers give them, and after what silence they are taken for dead."""

from pathlib import Path

import pytest
from fakes.golem_double import GolemDouble
from fakes.world import cell, embedded_client

from golem_magic import Client
from golem_magic import client as client_module
from golem_magic.results import Results
from golem_magic.share import jobs
from golem_magic.share.layout import SharePaths


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


@pytest.mark.slow
@pytest.mark.meets("GR-07", "IP-07")
def test_a_task_that_waits_without_using_the_processor_is_left_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a person or the network is legal work, however long: several leases long, here."""
    monkeypatch.setitem(client_module.BEAT_S, True, 0.2)
    monkeypatch.setitem(client_module.LEASE_S, True, 2.0)
    names = cell(
        "import time\n"
        "def f(seconds):\n"
        "    with open(calls, 'a') as file:\n"
        "        file.write('call\\n')\n"
        "    time.sleep(seconds)\n"
        "    return seconds\n",
        calls=str(tmp_path / "calls"),
    )
    with embedded_client(tmp_path) as client:
        results = client.map(names["f"], [8.0])
        notes = set()
        while not results.wait(0.2):
            notes.add(results.progress.note)

        assert pace_of(client, results) == (0.2, 2.0)
        assert list(results) == [8.0]
        assert results.progress.n_workers_lost == 0
    assert (tmp_path / "calls").read_text() == "call\n"
    assert notes == {""}
