"""Whole jobs on a Golem: wrong settings are told before anything is written, a wayward master is survived."""

import http.server
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.certificates import made_by_a_master, made_by_an_administrator
from fakes.golem_double import Fault, GolemDouble
from fakes.recording_proxy import RecordingProxy

from golem_magic import Client, EngineError, GolemMagicError, NoWorkersError
from golem_magic.model import JobState

PASSWORD = "open sesame"
# Words that forget jobs or end workers: nothing of ours may depend on them, or send them.
HARMFUL = ("archive", "kill", "restart", "die", "resize")


@pytest.fixture
def golem(tmp_path: Path) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as double:
        yield double


@pytest.fixture
def client(golem: GolemDouble, share: Path) -> Iterator[Client]:
    with Client(engine="golem", server_url=golem.url, server_password=PASSWORD, share=share) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file for which the tasks of :func:`gated` wait."""
    return tmp_path / "gate"


def gated(gate: Path) -> Callable[[int], int]:
    path = str(gate)

    def task(x: int) -> int:
        limit = time.monotonic() + 60
        while x and not os.path.exists(path) and time.monotonic() < limit:
            time.sleep(0.005)
        return x

    return task


# --- wrong before it begins ---


def refusal(share: Path, **settings: Any) -> str:
    """The one line that a map says at once; nothing may be drawn, written or left."""
    inputs = iter(range(5))
    began = time.monotonic()
    chosen: dict[str, Any] = {"engine": "golem", "server_password": PASSWORD, "share": share, **settings}
    with Client(**chosen) as client, pytest.raises(GolemMagicError) as caught:
        client.map(abs, inputs)
    assert time.monotonic() - began < 10
    assert list(inputs) == list(range(5))
    assert list(share.iterdir()) == []
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    return str(caught.value)


@contextmanager
def nobody() -> Iterator[str]:
    """An address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """A web server that is no Golem."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.meets("IP-14")
def test_nobody_there(share: Path) -> None:
    with nobody() as url:
        assert "nothing listens there" in refusal(share, server_url=url)


def test_a_wrong_password(golem: GolemDouble, share: Path) -> None:
    message = refusal(share, server_url=golem.url, server_password="tell-tale")

    assert "the password is wrong or missing" in message
    assert "tell-tale" not in message
    assert golem.cluster.jobs == {}


def test_no_golem(share: Path, tmp_path: Path) -> None:
    with web_server(tmp_path) as url:
        assert "did not reach a Golem master" in refusal(share, server_url=url)


def test_a_host_without_a_name(share: Path) -> None:
    message = refusal(share, server_url="https://no-such-host.invalid:8083")

    assert "no such host is known" in message


def test_plain_http_to_elsewhere(share: Path) -> None:
    assert "server_plain" in refusal(share, server_url="http://master.invalid:8083")


def test_tls_where_none_is_spoken(golem: GolemDouble, share: Path) -> None:
    assert "write http://" in refusal(share, server_url=golem.url.removeprefix("http://"))
    assert golem.seen == []


def test_faults_of_tls(share: Path, tmp_path: Path, require: Callable[[str], str]) -> None:
    require("openssl")
    weak = made_by_a_master(tmp_path / "weak")
    proper = made_by_an_administrator(tmp_path / "proper")
    with GolemDouble(tmp_path / "golem", password=PASSWORD, tls=weak.context()) as golem:
        url = golem.url
        assert "write https://" in refusal(share, server_url=url.replace("https", "http"))
        assert weak.fingerprint in refusal(share, server_url=url)
        assert weak.fingerprint in refusal(share, server_url=url, server_ca=proper.pem)
        assert "fingerprint" in refusal(share, server_url=url, server_fingerprint=proper.fingerprint)
        assert "contradict" in refusal(share, server_url=url, server_ca=proper.pem, server_verify=False)
        assert "cannot be used" in refusal(share, server_url=url, server_ca=tmp_path / "none.pem")
        assert golem.seen == []


# --- every way to trust, from the settings to the results ---


@pytest.mark.meets("GM-20")
def test_a_job_runs_over_every_kind_of_tls(
    share: Path, tmp_path: Path, require: Callable[[str], str]
) -> None:
    require("openssl")
    weak = made_by_a_master(tmp_path / "weak")
    proper = made_by_an_administrator(tmp_path / "proper")
    ways: list[tuple[Any, dict[str, Any]]] = [
        (proper, {"server_ca": proper.pem}),
        (weak, {"server_fingerprint": weak.fingerprint}),
        (weak, {"server_verify": "insecure"}),
        (weak, {"server_fingerprint": weak.fingerprint, "server_legacy_tls": True}),
    ]
    for n, (certificate, settings) in enumerate(ways):
        tls = certificate.context()
        with (
            GolemDouble(tmp_path / f"golem {n}", password=PASSWORD, tls=tls) as golem,
            Client(
                engine="golem", server_url=golem.url, server_password=PASSWORD, share=share, **settings
            ) as client,
        ):
            assert list(client.map(abs, range(-3, 3))) == [3, 2, 1, 0, 1, 2]


# --- what the master forgets, refuses or does not say ---


@pytest.mark.meets("GM-10")
def test_results_do_not_depend_on_what_the_master_remembers(
    golem: GolemDouble, client: Client, gate: Path
) -> None:
    """Archived, or restarted: the job is unknown while it runs, and afterwards."""
    results = client.map(gated(gate), range(10), chunk_size=1)
    assert results[0] == 0

    golem.cluster.forget_jobs()
    gate.touch()

    assert list(results) == list(range(10))
    assert results.progress.state is JobState.DONE
    golem.cluster.forget_jobs()
    assert list(client.attach(results.job_id)) == list(range(10))


@pytest.mark.meets("GM-10")
def test_nothing_is_sent_that_forgets_or_ends(golem: GolemDouble, client: Client, gate: Path) -> None:
    assert list(client.map(abs, range(5))) == list(range(5))
    cancelled = client.map(gated(gate), range(1, 9))
    wait_until(lambda: cancelled.progress.n_workers > 0, "somebody at work")
    cancelled.cancel()
    gate.touch()
    assert cancelled.wait(20)

    words = {word for request in golem.seen for word in request.split("/")}
    assert words.isdisjoint(HARMFUL)


def test_a_list_of_nodes_that_never_comes_costs_some_speed_only(golem: GolemDouble, client: Client) -> None:
    golem.faults.append(Fault("hang", "GET /nodes/", times=99))

    results = client.map(abs, range(10))

    assert list(results) == list(range(10))


@pytest.mark.meets("G-34")
def test_trouble_at_every_other_question_is_not_noticed(
    golem: GolemDouble, client: Client, gate: Path
) -> None:
    """Completion is found by asking, and asking again: an answer that is no good is none."""
    assert list(client.map(abs, [-1])) == [1]
    golem.faults += [Fault("half-body", "POST /jobs/", after_work=True), Fault("500", "GET /jobs/", times=3)]

    results = client.map(gated(gate), range(6))
    wait_until(lambda: golem.faults[1].times == 0, "all the trouble")
    gate.touch()

    assert list(results) == list(range(6))
    assert len(golem.cluster.jobs) == 2


def test_two_workers_that_a_ghost_swallowed_are_replaced(
    golem: GolemDouble, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of a lost worker takes the whole first placement."""
    monkeypatch.setattr("golem_magic.engines.golem.LOST_S", 0.5)
    (node,) = golem.cluster.nodes.values()
    golem.cluster.lose_node(node)
    golem.cluster.add_node(2)

    results = client.map(abs, range(10))

    assert list(results) == list(range(10))
    assert len(golem.cluster.jobs) == 2


@pytest.mark.meets("IP-08", "IP-14")
def test_a_wedged_cluster_ends_the_job_and_says_what_to_restart(
    golem: GolemDouble, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("golem_magic.engines.golem.LOST_S", 0.3)
    (node,) = golem.cluster.nodes.values()
    node.is_wedged = True

    results = client.map(abs, range(10))
    with pytest.raises(NoWorkersError, match=r"on no node.* need to be restarted") as caught:
        list(results)

    assert "\n" not in str(caught.value)
    assert results.progress.state is JobState.FAILED


def test_a_task_that_leaves_a_process_behind_does_not_keep_its_slot(
    golem: GolemDouble, client: Client, tmp_path: Path
) -> None:
    """A Golem waits for the end of everything that holds the output of a task."""
    note = str(tmp_path / "pid")

    def leave(x: int) -> int:
        process = subprocess.Popen(["sleep", "60"])
        with open(f"{note}-{x}", "w") as file:
            file.write(str(process.pid))
        return x

    assert list(client.map(leave, range(2))) == [0, 1]

    (node,) = golem.cluster.nodes.values()
    wait_until(lambda: node.running == 0, "free slots")


def test_a_submission_is_too_short_to_be_spooled(golem: GolemDouble, share: Path) -> None:
    """A master never deletes the temporary file that it makes of more than 10 kB."""
    with (
        RecordingProxy(golem.url) as proxy,
        Client(engine="golem", server_url=proxy.url, server_password=PASSWORD, share=share) as client,
    ):
        assert sum(client.map(len, ["x" * 1000] * 1000)) == 1_000_000

        (post,) = proxy.submissions
        assert len(post.body) < 5_000


def test_workers_do_not_care_where_they_are_started(golem: GolemDouble, client: Client) -> None:
    """In a folder of the site's choice, one for all tasks of a node; nothing is left in it."""
    (node,) = golem.cluster.nodes.values()

    assert list(client.map(abs, range(5))) == list(range(5))

    assert list(node.folder.iterdir()) == []


def test_a_master_that_goes_for_good_before_it_placed_anybody_ends_the_job(
    golem: GolemDouble, share: Path
) -> None:
    """A master that answers the first questions and is gone before the submission."""

    def inputs() -> Iterator[int]:
        golem.close()
        yield from range(5)

    with Client(engine="golem", server_url=golem.url, server_password=PASSWORD, share=share) as client:
        results = client.map(abs, inputs())
        with pytest.raises(EngineError, match="nothing listens there"):
            list(results)
        assert results.progress.state is JobState.FAILED
