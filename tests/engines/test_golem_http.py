"""The way to a Golem master and back: its faults in words, and the settings that lead there."""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engines.engine_contract import recorder
from fakes.golem_double import Fault, FaultKind, GolemDouble
from fakes.recording_proxy import RecordingProxy

from golem_magic.engines.base import EngineOptions
from golem_magic.engines.golem import NO_JOB, GolemEngine
from golem_magic.engines.tls import Security
from golem_magic.errors import EngineError, SettingsError
from golem_magic.model import NativeId

PASSWORD = "open sesame ä"


@pytest.fixture
def golem(tmp_path: Path) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as double:
        yield double


@pytest.fixture
def engine(golem: GolemDouble) -> Iterator[GolemEngine]:
    with closing(GolemEngine(golem.url, PASSWORD)) as engine:
        yield engine


@pytest.mark.parametrize(
    ("kind", "transient", "words"),
    [
        ("400", False, r"was refused \(400, unexpected EOF\)"),
        ("500", True, "500, internal trouble"),
        ("close", True, "connection broke"),
        ("garbage", True, "not JSON"),
        ("truncated", True, "not JSON"),
        ("half-head", True, "connection broke"),
        ("half-body", True, "connection broke"),
        ("html", True, "did not reach a Golem master"),
        ("elsewhere", True, "did not reach a Golem master"),
    ],
)
def test_a_fault_names_the_url_the_reason_and_the_next_step(
    golem: GolemDouble, engine: GolemEngine, tmp_path: Path, kind: FaultKind, transient: bool, words: str
) -> None:
    golem.faults.append(Fault(kind, times=100))
    calls: list[Callable[[], object]] = [
        lambda: engine.submit(recorder(tmp_path)),
        lambda: engine.poll([NativeId("some-job")]),
        lambda: engine.cancel([NativeId("some-job")]),
        engine.n_slots,
    ]
    for call in calls:
        with pytest.raises(EngineError, match=words) as caught:
            call()
        assert caught.value.transient is transient
        assert golem.url in str(caught.value)
        assert "\n" not in str(caught.value)
        assert PASSWORD not in f"{caught.value!r}{engine!r}"


def test_a_connection_broken_once_is_not_even_noticed(golem: GolemDouble, engine: GolemEngine) -> None:
    golem.faults.append(Fault("close", "GET /nodes/"))

    assert engine.n_slots() == 2


def test_silence_is_a_passing_fault(golem: GolemDouble) -> None:
    golem.faults.append(Fault("hang", "GET /jobs/"))
    with closing(GolemEngine(golem.url, PASSWORD, request_timeout_s=0.1)) as engine:
        with pytest.raises(EngineError, match="no answer within") as caught:
            engine.poll([NativeId("some-job")])
        assert caught.value.transient


def test_a_wedged_master_is_told_from_one_that_is_silent_altogether(golem: GolemDouble) -> None:
    """The list of nodes may never come while jobs are still answered: then it is there."""
    golem.faults.append(Fault("hang", "GET /nodes/", times=2))
    with closing(GolemEngine(golem.url, PASSWORD, request_timeout_s=0.2)) as engine:
        assert engine.n_slots() is None
        golem.faults.append(Fault("hang", "POST /jobs/"))
        with pytest.raises(EngineError, match=r"no answer within 0\.2 s") as caught:
            engine.n_slots()

    assert caught.value.transient


@pytest.mark.meets("IP-14")
@pytest.mark.skipif(sys.platform != "linux", reason="other systems answer when the queue is full")
def test_a_way_that_ends_nowhere_is_no_silence() -> None:
    """As behind a firewall: the wish to connect is dropped."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):  # fill the queue; nobody will take these in
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        engine = stack.enter_context(closing(GolemEngine(url, PASSWORD, request_timeout_s=0.2)))
        with pytest.raises(EngineError, match="found no way there within") as caught:
            engine.n_slots()

    assert caught.value.transient


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n", b"220 mail.example ESMTP\r\n"])
def test_a_server_of_another_kind_is_no_golem(greeting: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        with (
            closing(GolemEngine(f"http://127.0.0.1:{server.getsockname()[1]}", PASSWORD)) as engine,
            pytest.raises(EngineError, match="did not reach a Golem master") as caught,
        ):
            engine.n_slots()
        thread.join(10)

    assert not caught.value.transient


@pytest.mark.meets("GM-05")
def test_a_wrong_password_shows_at_the_first_question(golem: GolemDouble) -> None:
    """Reading needs none, so the first question to a master is followed by one that does."""
    with (
        closing(GolemEngine(golem.url, "tell-tale")) as engine,
        pytest.raises(EngineError, match="the password is wrong or missing") as caught,
    ):
        engine.n_slots()

    assert not caught.value.transient
    assert "tell-tale" not in str(caught.value)
    assert golem.cluster.jobs == {}


def test_the_password_is_tried_once(golem: GolemDouble, engine: GolemEngine) -> None:
    for _ in range(3):
        assert engine.n_slots() == 2

    assert [request for request in golem.seen if request.startswith("POST")] == [f"POST /jobs/{NO_JOB}/stop"]


def test_https_to_a_plain_master_says_so(golem: GolemDouble) -> None:
    with closing(GolemEngine(golem.url.removeprefix("http://"), PASSWORD)) as engine:
        with pytest.raises(EngineError, match="http://") as caught:
            engine.n_slots()
        assert not caught.value.transient


@pytest.mark.meets("GM-01")
def test_a_redirect_is_not_followed(golem: GolemDouble, engine: GolemEngine, tmp_path: Path) -> None:
    """A submission that was redirected would come back as the list of jobs, and look like success."""
    golem.faults.append(Fault("moved", "POST /jobs/"))

    with pytest.raises(EngineError, match="did not reach a Golem master") as caught:
        engine.submit(recorder(tmp_path))

    assert caught.value.transient  # a gateway may say so while the master restarts
    assert golem.seen == ["POST /jobs/"]


@pytest.fixture
def meddling_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything by which an environment tells HTTP clients whom to talk to, and how."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password tell-tale\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nonexistent.pem")
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nonexistent.pem")
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")  # a reserved port: nothing listens there
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("meddling_environment")
def test_the_environment_does_not_decide_whom_it_talks_to(engine: GolemEngine) -> None:
    assert engine.n_slots() == 2


@pytest.mark.usefixtures("meddling_environment")
def test_no_other_password_is_sent_along(golem: GolemDouble) -> None:
    with RecordingProxy(golem.url) as proxy, closing(GolemEngine(proxy.url, PASSWORD)) as engine:
        engine.n_slots()
        assert proxy.seen
        assert all("authorization" not in request.headers for request in proxy.seen)


@pytest.mark.usefixtures("meddling_environment")
def test_the_environments_proxy_is_used_when_said_so(
    golem: GolemDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double stands in for the proxy: it sees that it is asked for another server."""
    security = Security(plain=True, env_proxies=True)
    with closing(GolemEngine("http://far.example", PASSWORD, security=security)) as engine:
        with pytest.raises(EngineError, match=r"at the proxy that the environment names.*refused") as caught:
            engine.n_slots()
        monkeypatch.setenv("http_proxy", golem.url)
        with pytest.raises(EngineError, match="did not reach a Golem master"):
            engine.n_slots()

    assert caught.value.transient
    assert golem.seen == ["GET http://far.example/nodes/"]


# --- settings ---


@pytest.mark.parametrize(
    ("server_url", "shown"),
    [
        ("host:8083", "https://host:8083"),
        ("  http://localhost:8083/ ", "http://localhost:8083"),
        ("https://[::1]:8083/golem/", "https://[::1]:8083/golem"),
    ],
)
def test_a_url_without_a_scheme_means_https(server_url: str, shown: str) -> None:
    with closing(GolemEngine(server_url, "secret")) as engine:
        assert repr(engine) == f"GolemEngine({shown!r})"


@pytest.mark.parametrize(
    "server_url", ["https://", "ftp://host", "http://host:99999", "http://[::1", "http://h/?q"]
)
def test_an_address_that_is_none_is_refused(server_url: str) -> None:
    with pytest.raises(SettingsError, match="server_url"):
        GolemEngine(server_url, "secret")


@pytest.mark.parametrize(
    ("server_url", "password"), [("http://me:tell-tale@host", "x"), ("https://host", "tell-tale\nx")]
)
def test_a_password_in_the_wrong_place_or_shape_is_refused_unseen(server_url: str, password: str) -> None:
    with pytest.raises(SettingsError) as caught:
        GolemEngine(server_url, password)

    assert "tell-tale" not in str(caught.value)


def test_options_without_a_url_are_refused() -> None:
    with pytest.raises(SettingsError, match="server_url"):
        GolemEngine.from_options(EngineOptions(server_password="x"))


def test_the_share_is_local_only_if_said_so() -> None:
    with (
        closing(GolemEngine("host", "x")) as far,
        closing(GolemEngine("host", "x", share_is_local=True)) as near,
    ):
        assert (far.share_is_local, near.share_is_local) == (False, True)
