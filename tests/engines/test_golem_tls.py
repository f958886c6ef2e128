"""Whom the client trusts: four ways, each against a real TLS server, and every mismatch in one line."""

import contextlib
import gc
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from engines.engine_contract import ServerEngineContract
from fakes.certificates import Certificate, made_by_a_master, made_by_an_administrator
from fakes.golem_double import GolemDouble

from golem_magic.engines.golem import GolemEngine
from golem_magic.engines.tls import Security, found_fingerprint
from golem_magic.errors import EngineError, SettingsError
from golem_magic.model import NativeId

PASSWORD = "open sesame"
OTHER = ":".join(["AB"] * 32)


@pytest.fixture
def folder(tmp_path: Path, require: Callable[[str], str]) -> Path:
    require("openssl")
    return tmp_path / "certificates"


@pytest.fixture
def weak(folder: Path) -> Certificate:
    return made_by_a_master(folder / "weak")


@pytest.fixture
def proper(folder: Path) -> Certificate:
    return made_by_an_administrator(folder / "proper")


@pytest.fixture
def ancient(folder: Path) -> Certificate:
    return made_by_a_master(folder / "ancient", digest="sha1")


def tls_1_0(certificate: Certificate) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is why it is here
        return certificate.context(newest=ssl.TLSVersion.TLSv1)


@contextlib.contextmanager
def master(tmp_path: Path, tls: ssl.SSLContext | None) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD, tls=tls) as double:
        yield double


def slots(golem: GolemDouble, security: Security) -> int | None:
    with closing(GolemEngine(golem.url, PASSWORD, security=security)) as engine:
        return engine.n_slots()


def refusal(golem: GolemDouble, security: Security, *, transient: bool = False) -> str:
    """The one line of a refusal; nothing may have been sent."""
    with pytest.raises(EngineError) as caught:
        slots(golem, security)
    assert caught.value.transient is transient
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert golem.seen == []
    return str(caught.value)


# --- (a) authorities ---


def test_a_proper_certificate_is_accepted_by_its_authority(tmp_path: Path, proper: Certificate) -> None:
    with master(tmp_path, proper.context()) as golem:
        assert slots(golem, Security(ca=str(proper.pem))) == 2


def test_the_authorities_of_the_system_count_without_any_setting(
    tmp_path: Path, proper: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proper.pem))  # how OpenSSL is told where the system has them
    with master(tmp_path, proper.context()) as golem:
        assert slots(golem, Security()) == 2


def test_a_file_of_authorities_counts_instead_of_the_system(
    tmp_path: Path, proper: Certificate, weak: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(proper.pem))
    with master(tmp_path, proper.context()) as golem:
        message = refusal(golem, Security(ca=str(weak.pem)))

    assert f"not trusted by the authorities in {weak.pem}" in message
    assert proper.fingerprint in message


def test_a_name_that_the_certificate_does_not_bear_is_refused(tmp_path: Path, folder: Path) -> None:
    elsewhere = made_by_an_administrator(folder, "DNS:elsewhere")
    with master(tmp_path, elsewhere.context()) as golem:
        assert "mismatch" in refusal(golem, Security(ca=str(elsewhere.pem)))


def test_a_generated_certificate_is_refused_with_its_fingerprint_to_compare(
    tmp_path: Path, weak: Certificate
) -> None:
    with master(tmp_path, weak.context()) as golem:
        message = refusal(golem, Security())

    assert "not trusted by the authorities of this system" in message
    assert "weak" in message or "self-signed" in message
    assert weak.fingerprint in message
    assert "server_fingerprint" in message


def test_its_own_pem_does_not_make_a_generated_certificate_good(tmp_path: Path, weak: Certificate) -> None:
    """The key is too short, and it bears no name: hence pins."""
    with master(tmp_path, weak.context()) as golem:
        assert weak.fingerprint in refusal(golem, Security(ca=str(weak.pem)))


@pytest.mark.parametrize("name", ["missing.pem", "empty.pem"])
def test_a_file_without_authorities_is_a_settings_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.pem").touch()

    with pytest.raises(SettingsError, match=rf"server_ca .*{name} cannot be used"):
        GolemEngine("https://host:1", PASSWORD, security=Security(ca=str(tmp_path / name)))


# --- (b) a pin ---


@pytest.mark.meets("GM-20")
def test_a_pinned_certificate_is_accepted(tmp_path: Path, weak: Certificate) -> None:
    with master(tmp_path, weak.context()) as golem:
        assert slots(golem, Security(fingerprint=weak.fingerprint)) == 2
        assert slots(golem, Security(fingerprint=weak.fingerprint.replace(":", "").lower())) == 2


@pytest.mark.meets("GM-20")
def test_another_certificate_than_the_pinned_one_never_sees_the_password(
    tmp_path: Path, weak: Certificate
) -> None:
    with master(tmp_path, weak.context()) as golem:
        message = refusal(golem, Security(fingerprint=OTHER))

    assert weak.fingerprint in message
    assert OTHER in message
    assert "started anew" in message


def test_not_one_byte_is_sent_before_the_pin_is_checked(weak: Certificate) -> None:
    with eavesdropper(weak.context()) as (url, heard):
        with (
            closing(GolemEngine(url, PASSWORD, security=Security(fingerprint=OTHER))) as engine,
            pytest.raises(EngineError, match="was not sent"),
        ):
            engine.n_slots()
        assert heard() == b""


def test_the_eavesdropper_of_these_tests_hears_what_is_sent(weak: Certificate) -> None:
    with eavesdropper(weak.context()) as (url, heard):
        security = Security(fingerprint=weak.fingerprint)
        with (
            closing(GolemEngine(url, PASSWORD, security=security)) as engine,
            pytest.raises(EngineError),
        ):
            engine.n_slots()
        assert PASSWORD.encode() in heard()


@contextlib.contextmanager
def eavesdropper(tls: ssl.SSLContext) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """A TLS server that answers nothing and keeps what it is told."""
    pieces: list[bytes] = []

    def listen() -> None:
        while True:
            connection, _ = server.accept()
            with contextlib.suppress(OSError), tls.wrap_socket(connection, server_side=True) as secure:
                piece = secure.recv(65_536)
                pieces.append(piece)
                if piece == b"the end":
                    return

    def heard() -> bytes:
        """Everything, once the server has come to the end of it."""
        context = Security(verify=False, legacy=True).context()
        with (
            socket.create_connection(server.getsockname()) as plain,
            context.wrap_socket(plain) as secure,
        ):
            secure.sendall(b"the end")
        thread.join()
        return b"".join(pieces).removesuffix(b"the end")

    thread = threading.Thread(target=listen)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread.start()
        yield f"https://127.0.0.1:{server.getsockname()[1]}", heard
        thread.join(10)


# --- (c) anything ---


@pytest.mark.meets("GM-20")
def test_any_certificate_is_accepted_only_when_said_so(tmp_path: Path, weak: Certificate) -> None:
    """Without a warning too: warnings are errors here."""
    with master(tmp_path, weak.context()) as golem:
        assert slots(golem, Security(verify=False)) == 2


# --- (d) old masters ---


def test_tls_1_0_needs_to_be_allowed(tmp_path: Path, ancient: Certificate) -> None:
    with master(tmp_path, tls_1_0(ancient)) as golem:
        message = refusal(golem, Security(fingerprint=ancient.fingerprint))

    assert "outdated TLS" in message
    assert "server_legacy_tls" in message


def test_allowing_tls_1_0_trusts_nobody(tmp_path: Path, ancient: Certificate) -> None:
    with master(tmp_path, tls_1_0(ancient)) as golem:
        assert ancient.fingerprint in refusal(golem, Security(legacy=True))
        assert ancient.fingerprint in refusal(golem, Security(legacy=True, fingerprint=OTHER))


class TestContractWithAnOldMaster(ServerEngineContract):
    """TLS 1.0, SHA-1, 1024 bits, time stamps of 2013, no log files, no ``/output/``."""

    @pytest.fixture
    def golem(self, tmp_path: Path, ancient: Certificate) -> Iterator[GolemDouble]:
        with GolemDouble(
            tmp_path / "golem", password=PASSWORD, tls=tls_1_0(ancient), is_old=True, content=False
        ) as double:
            yield double

    @pytest.fixture
    def security(self, ancient: Certificate) -> Security:
        return Security(fingerprint=ancient.fingerprint, legacy=True)

    @pytest.fixture
    def engine(self, golem: GolemDouble, security: Security) -> Iterator[GolemEngine]:
        with closing(GolemEngine(golem.url, PASSWORD, security=security)) as engine:
            yield engine

    @pytest.fixture
    def stranger_engine(self, golem: GolemDouble, security: Security) -> Iterator[GolemEngine]:
        with closing(GolemEngine(golem.url, "wrong", security=security)) as engine:
            yield engine

    @pytest.fixture
    def deserted_engine(self, security: Security) -> Iterator[GolemEngine]:
        with socket.socket() as bound:  # bound but not listening: connections are refused
            bound.bind(("127.0.0.1", 0))
            url = f"127.0.0.1:{bound.getsockname()[1]}"
            with closing(GolemEngine(url, PASSWORD, security=security)) as engine:
                yield engine

    def test_it_is_as_old_as_it_says(self, golem: GolemDouble, engine: GolemEngine) -> None:
        spec_id = NativeId("old-job")
        golem.cluster.create(golem.cluster.new_job(spec_id, "", "", "", [(1, ["/bin/true"])]))

        answer = engine.request("GET", f"/jobs/{spec_id}")

        assert isinstance(answer, dict)
        assert "m=" not in answer["FirstCreated"]
        assert not list(golem.cluster.output.glob("*.log.txt"))
        assert engine.output(spec_id, "log") is None


# --- neither side speaks what the other expects ---


def test_plain_words_to_a_master_with_tls(tmp_path: Path, weak: Certificate) -> None:
    with (
        master(tmp_path, weak.context()) as golem,
        closing(GolemEngine(golem.url.replace("https://", "http://"), PASSWORD)) as engine,
        pytest.raises(EngineError, match="write https:// in server_url") as caught,
    ):
        engine.n_slots()

    assert not caught.value.transient


def test_plain_words_to_a_master_too_old_to_understand_them() -> None:
    """It answers with an alert of TLS instead of HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def alert() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(65_536)
                    connection.sendall(b"\x15\x03\x01\x00\x02\x02\x16")

        thread = threading.Thread(target=alert)
        thread.start()
        with (
            closing(GolemEngine(f"http://127.0.0.1:{server.getsockname()[1]}", PASSWORD)) as engine,
            pytest.raises(EngineError, match="write https:// in server_url") as caught,
        ):
            engine.n_slots()
        thread.join(10)

    assert not caught.value.transient


def test_tls_to_a_plain_master(tmp_path: Path) -> None:
    with (
        master(tmp_path, None) as golem,
        closing(GolemEngine(golem.url.removeprefix("http://"), PASSWORD)) as engine,
        pytest.raises(EngineError, match=r"no TLS there.*write http:// in server_url") as caught,
    ):
        engine.n_slots()

    assert not caught.value.transient
    assert golem.seen == []


# --- plain HTTP ---


@pytest.mark.unit
@pytest.mark.meets("GM-20")
@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"])
def test_plain_http_is_fine_on_this_machine(host: str) -> None:
    GolemEngine(f"http://{host}:8083", PASSWORD).close()


@pytest.mark.unit
@pytest.mark.meets("GM-20")
@pytest.mark.parametrize("host", ["master", "10.0.0.1", "127.0.0.1.example", "localhost.example", "[::2]"])
def test_plain_http_to_elsewhere_must_be_allowed(host: str) -> None:
    with pytest.raises(SettingsError, match="server_plain"):
        GolemEngine(f"http://{host}:8083", PASSWORD)

    GolemEngine(f"http://{host}:8083", PASSWORD, security=Security(plain=True)).close()


# --- settings that cannot be ---


@pytest.mark.unit
@pytest.mark.parametrize("fingerprint", ["", "AB:CD", "AB" * 20, "G" * 64, "AB" * 33])
def test_a_fingerprint_that_is_none_is_refused(fingerprint: str) -> None:
    with pytest.raises(SettingsError, match="server_fingerprint"):
        Security(fingerprint=fingerprint)


@pytest.mark.unit
def test_two_ways_to_trust_contradict_each_other() -> None:
    with pytest.raises(SettingsError, match="server_ca and server_fingerprint contradict"):
        Security(ca="/a.pem", fingerprint=OTHER)
    with pytest.raises(SettingsError, match="server_fingerprint and server_verify=False contradict"):
        Security(verify=False, fingerprint=OTHER)


def test_nobody_there_has_no_fingerprint() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert found_fingerprint(f"https://127.0.0.1:{bound.getsockname()[1]}") is None


def test_a_master_that_leaves_before_tls_begins_leaves_no_socket_open() -> None:
    context = Security(verify=False).context()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        partner, _ = server.accept()
        partner.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        partner.close()  # a reset, as from a process that was killed

        with pytest.raises(ConnectionResetError):
            context.wrap_socket(client)
    gc.collect()  # a socket left open would warn here, and every warning is a failure
