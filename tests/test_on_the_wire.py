"""What goes between client and master, seen by a proxy: the embedded Golem, and the double of a real one."""

import json
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from engines.engine_contract import wait_until
from fakes.golem_double import GolemDouble
from fakes.recording_proxy import RecordingProxy
from fakes.world import ROOT, cell, embedded_client, is_running

from golem_magic import Client, EngineError, NoWorkersError
from golem_magic.engines.golem import NO_JOB
from golem_magic.model import JobState

PASSWORD = "open sesame"
KNOCK = f"POST /jobs/{NO_JOB}/stop"  # of a job that never was: tries the password and changes nothing
NOTEBOOK = ROOT / "notebooks/quickstart.ipynb"


@dataclass
class Wire:
    """A client, the proxy it speaks through, and the master's password."""

    client: Client
    proxy: RecordingProxy
    password: str
    share: Path

    def placements(self, job_id: str) -> list[str]:
        """What the share knows of a job's placements."""
        return sorted(os.listdir(self.share / "jobs" / job_id / "placements"))


@pytest.fixture(params=["embedded", "double"])
def wire(request: pytest.FixtureRequest, share: Path, tmp_path: Path) -> Iterator[Wire]:
    if request.param == "embedded":
        with embedded_client(tmp_path / "local") as local:
            assert list(local.map(abs, [-1])) == [1]  # now it runs
            address = json.loads((Path(str(local.settings.state_dir)) / "golem.json").read_text())
            yield from _through_proxy(address["url"], address["password"], share)
    else:
        with GolemDouble(tmp_path / "golem", password=PASSWORD) as golem:
            yield from _through_proxy(golem.url, PASSWORD, share)


def _through_proxy(url: str, password: str, share: Path) -> Iterator[Wire]:
    with (
        RecordingProxy(url) as proxy,
        Client(engine="golem", server_url=proxy.url, server_password=password, share=share) as client,
    ):
        yield Wire(client, proxy, password, share)


# --- a map ---


@pytest.mark.meets("GM-03", "GM-04", "GM-06", "GR-17", "G-09")
def test_a_map_is_one_submission_with_the_documented_parts(wire: Wire) -> None:
    results = wire.client.map(lambda x: x * x, range(1000), label="squares of ä")
    assert list(results) == [x * x for x in range(1000)]

    (post,) = wire.proxy.submissions

    assert re.fullmatch("multipart/form-data; boundary=.+", post.headers["content-type"])
    assert post.headers["x-golem-apikey"] == wire.password
    native_id = post.headers["x-golem-job-preassigned-id"]
    assert re.fullmatch("[0-9a-f]{32}", native_id)
    assert wire.placements(results.job_id) == [native_id]
    assert post.headers["x-golem-job-label"].encode("latin-1").decode() == "squares of ä"
    assert re.fullmatch(".+@.+", post.headers["x-golem-job-owner"])
    assert post.headers["x-golem-job-type"] == "golemize"
    assert [(part.name, part.filename is not None) for part in post.parts] == [
        ("command", False),
        ("jsonfile", True),
    ]
    (line,) = post.lines
    assert sorted(line) == ["Args", "Count"]
    assert line["Count"] == 2  # workers, not tasks
    assert all(isinstance(word, str) for word in line["Args"])
    assert line["Args"][0] == wire.client.settings.python[0]
    assert any(results.job_id in word for word in line["Args"])
    assert wire.password not in post.body.decode()


@pytest.mark.meets("G-35")
def test_workers_may_see_the_share_elsewhere(share: Path, tmp_path: Path) -> None:
    there = tmp_path / "as workers see it"
    there.symlink_to(share)

    with GolemDouble(tmp_path / "golem", password=PASSWORD) as golem, RecordingProxy(golem.url) as proxy:
        options = {"server_url": proxy.url, "server_password": PASSWORD, "share_on_workers": there}
        with Client(engine="golem", share=share, **options) as client:
            assert list(client.map(abs, range(-9, 0))) == list(range(9, 0, -1))
        (post,) = proxy.submissions

    paths = [word for word in post.lines[0]["Args"] if "/jobs/" in word or "/runtimes/" in word]
    assert len(paths) == 2
    assert all(word.startswith(f"{there}/") for word in paths)


@pytest.mark.meets("G-09")
def test_a_job_has_the_owner_that_the_settings_name(share: Path, tmp_path: Path) -> None:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as golem, RecordingProxy(golem.url) as proxy:
        options = {"server_url": proxy.url, "server_password": PASSWORD, "owner": "Mä <me@example.org>"}
        with Client(engine="golem", share=share, **options) as client:
            assert list(client.map(abs, [-1])) == [1]
        (post,) = proxy.submissions

    assert post.headers["x-golem-job-owner"].encode("latin-1").decode() == "Mä <me@example.org>"


@pytest.mark.meets("G-35")
def test_a_worker_that_replaces_a_lost_one_is_sent_to_the_same_place(share: Path, tmp_path: Path) -> None:
    there = tmp_path / "as workers see it"
    there.symlink_to(share)
    breaks_once = tmp_path / "python"
    breaks_once.write_text(
        f"#!/bin/sh\nmkdir '{tmp_path}/broken' 2>/dev/null && exit 1\nexec '{sys.executable}' \"$@\"\n"
    )
    breaks_once.chmod(0o755)

    with GolemDouble(tmp_path / "golem", password=PASSWORD) as golem, RecordingProxy(golem.url) as proxy:
        options = {"server_url": proxy.url, "server_password": PASSWORD, "share_on_workers": there}
        with Client(engine="golem", share=share, workers=1, python=str(breaks_once), **options) as client:
            assert list(client.map(abs, range(-9, 0))) == list(range(9, 0, -1))
        first, second = (post.lines[0]["Args"] for post in proxy.submissions)

    *words, number = first
    assert [word for word in words if word.startswith(f"{there}/")]
    assert second == [*words, str(int(number) + 1)]


def test_only_submissions_change_anything_on_the_master(wire: Wire) -> None:
    assert list(wire.client.map(abs, range(50))) == list(range(50))

    others = {f"{r.method} {r.path}" for r in wire.proxy.seen} - {"POST /jobs/"}

    (native_id,) = (post.headers["x-golem-job-preassigned-id"] for post in wire.proxy.submissions)
    assert others <= {"GET /nodes/", KNOCK, f"GET /jobs/{native_id}"}


def test_each_map_is_a_submission_of_its_own(wire: Wire) -> None:
    maps = [wire.client.map(abs, range(20), workers=n) for n in (1, 2, 3)]
    for results in maps:
        assert sum(results) == 190

    assert [post.lines[0]["Count"] for post in wire.proxy.submissions] == [1, 2, 3]
    ids = [post.headers["x-golem-job-preassigned-id"] for post in wire.proxy.submissions]
    assert [wire.placements(results.job_id) for results in maps] == [[each] for each in ids]


@pytest.mark.meets("G-08")
def test_empty_inputs_submit_nothing(wire: Wire) -> None:
    results = wire.client.map(abs, [])

    assert results.wait(5)
    assert list(results) == []
    assert {f"{r.method} {r.path}" for r in wire.proxy.seen if r.method != "GET"} <= {KNOCK}
    assert wire.placements(results.job_id) == []


def quickstart_cells() -> dict[str, str]:
    return {each["id"]: "".join(each["source"]) for each in json.loads(NOTEBOOK.read_text())["cells"]}


@pytest.mark.meets("GR-16")
def test_the_functions_of_the_quickstart_run_so(wire: Wire) -> None:
    cells = quickstart_cells()
    magic, _, function = cells["quickstart-05"].partition("\n")
    assert magic == "%%golemize -o effects -c (malignant, benign) range(4000)"
    source = "\n".join([cells["quickstart-03"], function, cells["quickstart-10"]])
    names = cell(source.replace("import matplotlib.pyplot as plt\n", ""))
    effect_sizes, correlation = names["effect_sizes"], names["correlation"]
    groups = (names["malignant"], names["benign"])
    pairs = list(enumerate(names["pairs"]))[:40]

    effects = list(wire.client.map(effect_sizes, range(60), common=groups))
    correlations = list(wire.client.map(correlation, iter(pairs), common=names["normed"]))

    np.testing.assert_array_equal(effects, [effect_sizes(seed, groups) for seed in range(60)])
    assert correlations == [correlation(task, names["normed"]) for task in pairs]
    assert len(wire.proxy.submissions) == 2


@pytest.mark.parametrize(
    "wire", ["embedded"], indirect=True
)  # the double's tasks are children of this process
def test_workers_are_no_descendants_of_the_kernel(wire: Wire) -> None:
    def ancestry(_: int) -> list[int]:
        chain = [os.getpid()]
        while chain[-1] > 1:
            with open(f"/proc/{chain[-1]}/stat") as file:
                chain.append(int(file.read().rpartition(")")[2].split()[1]))
        return chain

    chains = list(wire.client.map(ancestry, range(20)))

    assert len(wire.proxy.submissions) == 1
    assert len(chains) == 20
    for chain in chains:
        assert os.getpid() not in chain
        assert len(chain) >= 4  # runner, keeper, zygote, ...


# --- a master that cannot be reached ---


@pytest.mark.parametrize("wire", ["embedded"], indirect=True)
def test_a_master_that_leaves_before_it_placed_anybody_ends_the_job_with_an_engine_error(wire: Wire) -> None:
    def inputs() -> Iterator[int]:
        wire.proxy.refuse()
        yield from range(10)

    began = time.monotonic()

    results = wire.client.map(abs, inputs())
    with pytest.raises(EngineError, match=r"127\.0\.0\.1.*refused") as caught:
        list(results)

    assert time.monotonic() - began < 12
    assert results.progress.state is JobState.FAILED
    assert results.wait(0) is True
    assert results.progress.note == str(caught.value)
    assert wire.password not in str(caught.value)


@pytest.mark.parametrize("wire", ["embedded"], indirect=True)
@pytest.mark.parametrize("workers", [None, 2])
def test_without_a_master_the_map_itself_says_so(wire: Wire, workers: int | None) -> None:
    wire.proxy.refuse()
    inputs = iter(range(10))

    with pytest.raises(EngineError, match=r"127\.0\.0\.1.*refused"):
        wire.client.map(abs, inputs, workers=workers)

    assert list(inputs) == list(range(10))
    assert wire.client.jobs() == []


def test_a_master_that_is_lost_later_does_not_stop_the_job(wire: Wire, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")

    def wait(x: int) -> int:
        limit = time.monotonic() + 60
        while x and not os.path.exists(gate) and time.monotonic() < limit:
            time.sleep(0.005)
        return x

    results = wire.client.map(wait, range(10), chunk_size=1)
    assert results[0] == 0

    wire.proxy.refuse()
    (tmp_path / "gate").touch()

    assert list(results) == list(range(10))
    assert results.progress.state is JobState.DONE


# --- the status is not believed ---


@pytest.mark.meets("GM-08")
def test_tasks_that_fail_are_counted_whatever_the_master_says(share: Path, tmp_path: Path) -> None:
    with (
        GolemDouble(tmp_path / "golem", password=PASSWORD) as golem,
        Client(engine="golem", server_url=golem.url, server_password=PASSWORD, share=share) as client,
    ):
        results = client.map(lambda x: 1 / x, [0, 0, 1], on_error="return")
        results.wait(20)

        snapshot = results.progress
        assert (snapshot.state, snapshot.n_done, snapshot.n_failed) == (JobState.DONE, 1, 2)
        (job,) = golem.cluster.jobs.values()
        assert job.label == "<lambda>"


@pytest.mark.meets("GM-08", "GM-15")
def test_workers_that_never_start_fail_the_job_although_the_master_says_success(
    share: Path, tmp_path: Path
) -> None:
    with (
        GolemDouble(tmp_path / "golem", password=PASSWORD) as golem,
        Client(
            engine="golem", server_url=golem.url, server_password=PASSWORD, share=share, python="/no/python"
        ) as client,
    ):
        results = client.map(abs, range(5))

        with pytest.raises(NoWorkersError, match="ended before they published anything"):
            list(results)

        assert results.progress.state is JobState.FAILED
        assert {(job.state, job.status) for job in golem.cluster.jobs.values()} == {("COMPLETE", "SUCCESS")}


@pytest.mark.meets("GM-08", "GM-13")
@pytest.mark.parametrize("wire", ["double"], indirect=True)
def test_a_cancelled_job_stops_its_placement_and_its_workers_leave(wire: Wire, tmp_path: Path) -> None:
    def endless(x: int) -> None:
        open(f"{folder}/{os.getpid()}", "w").close()
        time.sleep(60)

    folder = str(tmp_path / "pids")
    os.mkdir(folder)
    results = wire.client.map(endless, range(10))
    wait_until(lambda: len(os.listdir(folder)) == 2, "two tasks")

    results.cancel()

    assert results.wait(15) is True  # workers on a share that may be slow look for the marker every 5 s
    assert results.progress.state is JobState.CANCELLED
    wait_until(lambda: not any(is_running(int(pid)) for pid in os.listdir(folder)), "the end of the tasks")
    (post,) = wire.proxy.submissions
    assert f"POST /jobs/{post.headers['x-golem-job-preassigned-id']}/stop" in [
        f"{request.method} {request.path}" for request in wire.proxy.seen
    ]
