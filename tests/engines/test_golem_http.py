"""The way to a Golem master and back: its faults in words, and the settings that lead there."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engines.engine_contract import recorder
from fakes.golem_double import Fault, FaultKind, GolemDouble

from golem_magic.engines.base import EngineOptions
from golem_magic.engines.golem import GolemEngine
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
        ("500", True, "500, internal trouble"),
        ("close", True, "connection broke"),
        ("garbage", False, "not JSON"),
        ("truncated", False, "not JSON"),
        ("html", False, "did not reach a Golem master"),
        ("elsewhere", False, "did not reach a Golem master"),
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

    assert not caught.value.transient
    assert golem.seen == ["POST /jobs/"]


def test_the_environment_does_not_decide_whom_it_talks_to(
    engine: GolemEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # a reserved port: nothing listens there
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert engine.n_slots() == 2


# --- settings ---


@pytest.mark.parametrize(
    ("server_url", "shown"),
    [
        ("host:8083", "https://host:8083"),
        ("  http://host:8083/ ", "http://host:8083"),
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
    ("server_url", "password"), [("http://me:tell-tale@host", "x"), ("http://host", "tell-tale\nx")]
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
