"""One exchange with a Golem master, with every fault of it put into words; ``requests`` lives here."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

from golem_magic.engines.tls import SecureAdapter, Security, is_loopback, tls_fault
from golem_magic.errors import EngineError, SettingsError

PASSWORD_HEADER = "x-golem-apikey"
# Worth asking again later: too early or too late, too much, refused to stop, or the server's own trouble.
TRANSIENT_STATUSES = frozenset({408, 417, 425, 429, 500, 502, 503, 504})


class NoAnswerError(EngineError):
    """The server was reached, but said nothing in time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: a status that was asked for, text, and the kind of text (``Content-Type``)."""

    request: str
    status: int
    text: str
    kind: str = ""

    def decoded(self) -> Any:
        """The body as JSON.

        Raises:
            EngineError: It is something else.
        """
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            message = "the answer is not JSON"
            raise self.unexpected(message) from None

    def unexpected(self, what: str) -> EngineError:
        """An error for an answer that no Golem would give."""
        return _no_golem(self.request, f"{what}: {_one_line(self.text)}")


class GolemConnection:
    """A kept-alive connection to one master. The password travels in a header and is shown nowhere.

    Args:
        server_url: Base URL; without a scheme it means https.
        password: The shared password; None or empty for a master without.
        security: Whom to trust, and what may go unprotected.
        timeout_s: Longest wait for a connection, and for each part of an answer.

    Raises:
        SettingsError: The URL, the password or the security cannot be used.
    """

    def __init__(
        self, server_url: str, password: str | None, *, security: Security | None = None, timeout_s: float
    ) -> None:
        self._security = security or Security()
        self.url = _base_url(server_url, is_plain_allowed=self._security.plain)
        self._timeout_s = timeout_s
        self._session = requests.Session()
        self._session.mount("https://", SecureAdapter(self._security))
        # Proxy variables, .netrc and REQUESTS_CA_BUNDLE must not decide whom we talk to.
        self._session.trust_env = False
        if password:
            self._session.headers[PASSWORD_HEADER] = _password_bytes(password)

    def send(
        self,
        method: str,
        path: str,
        *,
        accept: tuple[int, ...] = (200,),
        timeout_s: float | None = None,
        **content: Any,
    ) -> Answer:
        """Ask, and return the answer if its status is one of ``accept``.

        A connection that broke without an answer is tried a second time: an idle one may have
        gone stale. So a request must be one that does no harm the second time.

        Args:
            method: ``GET`` or ``POST``.
            path: Below the base URL, with its leading slash.
            accept: Statuses that are no fault.
            timeout_s: Instead of the connection's own.
            content: ``headers`` and ``files`` as in ``requests``.

        Raises:
            NoAnswerError: Nothing came in time.
            EngineError: Anything else that is no answer of the accepted kind.
        """
        wait_s = timeout_s or self._timeout_s
        request = f"{method} {self.url}{path}"
        try:
            try:
                response = self._exchange(method, path, wait_s, content)
            except requests.ConnectionError as error:
                if type(error) is not requests.ConnectionError:  # TLS, or no connection in time
                    raise
                response = self._exchange(method, path, wait_s, content)
        except requests.RequestException as error:
            raise self._translated(error, request, wait_s) from _without_frames(error)
        text = response.content.decode("utf-8", "replace")
        answer = Answer(request, response.status_code, text, response.headers.get("Content-Type", ""))
        if answer.status not in accept:
            raise _refusal(answer)
        return answer

    def close(self) -> None:
        """Close the connection; the next request would open another."""
        self._session.close()

    def _exchange(
        self, method: str, path: str, wait_s: float, content: Mapping[str, Any]
    ) -> requests.Response:
        # No redirects: a POST would be repeated as a GET and report success without doing anything.
        url = self.url + path
        return self._session.request(
            method,
            url,
            timeout=wait_s,
            allow_redirects=False,
            verify=self._security.checked_by,
            proxies=requests.utils.get_environ_proxies(url) if self._security.env_proxies else None,
            **content,
        )

    def _translated(self, error: requests.RequestException, request: str, wait_s: float) -> EngineError:
        if isinstance(error, requests.exceptions.SSLError):
            return tls_fault(error, _cause(error), request, self.url, self._security)
        return _translated(error, request, wait_s)


def header_bytes(text: str) -> bytes:
    """Free text as a header can carry it: UTF-8, which Golem gives back unchanged, on one line."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return printable.strip().encode("utf-8", "replace")


def _base_url(server_url: str, *, is_plain_allowed: bool) -> str:
    text = server_url.strip()
    url = text if "://" in text else f"https://{text}"
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
        parts = urlsplit("")
    if "@" in url:
        message = "server_url must not hold a user or password: use server_password"
        raise SettingsError(message)
    if not is_usable or parts.query or parts.fragment:
        message = f"server_url {server_url!r} is no base URL: write one like https://host:8083"
        raise SettingsError(message)
    if parts.scheme == "http" and not is_plain_allowed and not is_loopback(parts.hostname or ""):
        message = (
            f"server_url {server_url!r} would send the password unencrypted: write https:// if the master"
            " speaks TLS, or set server_plain to true if everybody on your network may read it"
        )
        raise SettingsError(message)
    return url.rstrip("/")


def _password_bytes(password: str) -> bytes:
    if not password.isprintable() or password != password.strip():
        message = (
            "server_password holds a line break, another control character or a blank at an end,"
            " which no header can carry: check where it is read from"
        )
        raise SettingsError(message)
    return password.encode()


def _without_frames(error: BaseException) -> BaseException:
    """The same error, and what led to it, without the frames of the libraries.

    Their variables hold the request as it was sent, password included, and some tools show the
    variables of every frame of a traceback.
    """
    chain: BaseException | None = error
    while chain is not None:
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__
    return error


def _translated(error: requests.RequestException, request: str, wait_s: float) -> EngineError:
    detail = str(error)
    match error:
        case requests.exceptions.ProxyError():
            message = (
                f"{request} failed at the proxy that the environment names ({_cause(error)}): correct the"
                " proxy variables, or set server_env_proxies to false"
            )
            return EngineError(message, transient=True)
        case requests.ConnectTimeout():
            message = (
                f"{request} found no way there within {wait_s:g} s: check the host and port in server_url,"
                " the network and its firewalls"
            )
            return EngineError(message, transient=True)
        case requests.Timeout():
            message = (
                f"{request} got no answer within {wait_s:g} s: the master is overloaded or wedged, or it is"
                " no Golem; if it lasts, restart the master and its workers"
            )
            return NoAnswerError(message, transient=True)
        case requests.ConnectionError() if "\\x15\\x03" in detail:  # a TLS alert where HTTP was expected
            return EngineError(f"{request} failed: TLS is spoken there: write https:// in server_url")
        case requests.ConnectionError() if "BadStatusLine" in detail and "'HTTP/" not in detail:
            return _no_golem(request, f"no HTTP is spoken there: {_cause(error)}", transient=False)
        case requests.ConnectionError() | requests.exceptions.ChunkedEncodingError():
            message = f"{request} failed ({_cause(error)}): {_why_unreached(detail)}"
            return EngineError(message, transient=True)
        case _:
            return EngineError(f"{request} failed ({_one_line(detail)}): check server_url")


def _why_unreached(detail: str) -> str:
    if "refused" in detail:
        return "nothing listens there; start the master, or correct server_url"
    if "NameResolution" in detail or "resolve" in detail:
        return "no such host is known; check the name in server_url and the network"
    if any(word in detail for word in ("Remote end closed", "reset", "IncompleteRead", "BadStatusLine")):
        return "the connection broke; the master may have crashed or restarted, or speaks TLS (https://)"
    return "check the network and server_url"


def _refusal(answer: Answer) -> EngineError:
    said = f"{answer.status}, {_one_line(answer.text) or 'no text'}"
    if answer.status == 403:
        return EngineError(
            f"{answer.request} was refused ({said}): the password is wrong or missing;"
            " set server_password to the master's"
        )
    if answer.status == 400 and "HTTPS server" in answer.text:
        return EngineError(f"{answer.request} failed ({said}): write https:// in server_url")
    if 200 <= answer.status < 400 or answer.status == 404:
        return _no_golem(answer.request, said)
    if answer.status in TRANSIENT_STATUSES:
        return EngineError(f"{answer.request} failed ({said}): try again later", transient=True)
    return EngineError(f"{answer.request} was refused ({said}): look into the master's log")


def _no_golem(request: str, what: str, *, transient: bool = True) -> EngineError:
    """No refusal: a gateway shows such pages while a master restarts, and a map asks before it writes."""
    message = f"{request} did not reach a Golem master ({what}): check server_url and its port"
    return EngineError(message, transient=transient)


def _cause(error: BaseException) -> str:
    """The innermost reason, which is the only readable part of a chain of wrapped errors."""
    inner: object = error
    while isinstance(inner, BaseException):
        reason, inner = inner, getattr(inner, "reason", None)
        if not isinstance(inner, BaseException):
            inner = next((each for each in reason.args if isinstance(each, BaseException)), None)
    text = str(reason)
    return _one_line(text.rpartition(": ")[2] if "Errno" in text else text)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:200]}..."
