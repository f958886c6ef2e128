"""Whom to trust at the other end of a connection, and every fault of TLS in words.

A Golem master without a certificate of its own makes one at every start: self-signed, RSA of
1024 bits, no host name in it. No setting of normal verification accepts that, so there are four
ways (docs/decisions/0007-tls-and-pins.md):

============  =====================================================================
normal        the system's authorities, or those of one PEM file, and the host name
pinned        exactly one certificate, known by its SHA-256 fingerprint
insecure      any certificate, because the user said so
legacy        with any of these: also TLS 1.0, short keys, SHA-1
============  =====================================================================

All checks are made before the first byte of a request is sent, hence before the password.
"""

import contextlib
import errno
import hashlib
import os
import re
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter
from urllib3 import HTTPSConnectionPool
from urllib3.connection import HTTPSConnection

from golem_magic.errors import EngineError, SettingsError

SHA256_HEX = re.compile("[0-9a-f]{64}")
# What OpenSSL calls a partner that is too old for its defaults, in its various versions.
TOO_OLD = (
    "UNSUPPORTED_PROTOCOL",
    "PROTOCOL_VERSION",
    "NO_PROTOCOLS_AVAILABLE",
    "NO_CIPHERS_AVAILABLE",
    "HANDSHAKE_FAILURE",
    "KEY_TOO_SMALL",
    "LEGACY_SIGALG",
    "WRONG_SIGNATURE_TYPE",
    "UNSAFE_LEGACY_RENEGOTIATION",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """What a connection to a master must prove, and what may go unprotected.

    Attributes:
        ca: PEM file of the only authorities to trust; None for the system's.
        fingerprint: SHA-256 of the only certificate to trust, 64 hex digits, colons allowed.
        verify: False accepts any certificate.
        legacy: Accept TLS 1.0, short keys and SHA-1, which masters of 2013 need.
        plain: Whether http may leave this machine.
        env_proxies: Whether the proxies that the environment names are used.

    Raises:
        SettingsError: Two of them contradict each other, or one cannot be used.
    """

    ca: str | None = None
    fingerprint: str | None = None
    verify: bool = True
    legacy: bool = False
    plain: bool = False
    env_proxies: bool = False

    def __post_init__(self) -> None:
        said = {
            "server_ca": self.ca is not None,
            "server_fingerprint": self.fingerprint is not None,
            "server_verify=False": not self.verify,
        }
        names = [name for name, is_said in said.items() if is_said]
        if len(names) > 1:
            message = f"{' and '.join(names)} contradict each other about whom to trust: keep one of them"
            raise SettingsError(message)
        if self.fingerprint is not None and not SHA256_HEX.fullmatch(_bare(self.fingerprint)):
            message = (
                f"server_fingerprint {self.fingerprint!r} is no SHA-256 fingerprint: give 64 hex digits,"
                " as 'openssl x509 -noout -sha256 -fingerprint' prints them"
            )
            raise SettingsError(message)

    @property
    def checked_by(self) -> bool | str:
        """The argument ``verify`` of requests: by whom a certificate is vouched for."""
        if self.fingerprint is not None or not self.verify:
            return False
        return True if self.ca is None else self.ca

    def context(self) -> ssl.SSLContext:
        """A new context for clients.

        Raises:
            SettingsError: The PEM file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.sslsocket_class = _ClientSocket
        except OSError as error:  # ssl.SSLError is one of them: no certificate in it
            message = f"server_ca {self.ca} cannot be used ({error}): name a PEM file of certificates"
            raise SettingsError(message) from error
        if not self.checked_by:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.legacy:
            # Not TLSVersion.TLSv1, which warns; SSL 3 stays switched off by an option of its own.
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
        return context


class _ClientSocket(ssl.SSLSocket):
    """Closes itself when its partner has left before TLS began.

    ``SSLContext.wrap_socket`` of Python 3.11 raises then and leaves a socket open that nobody else
    knows (seen when a master ends while it is asked).
    """

    def getpeername(self) -> Any:
        """As the parent; a client without a partner is of no use, so it is closed."""
        try:
            return super().getpeername()
        except OSError as error:
            self.close()
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)) from error


class _AcceptingConnection(HTTPSConnection):
    """Takes any certificate without a warning at each connection: the user said so in the settings."""

    def connect(self) -> None:
        super().connect()
        self.is_verified = True


class _AcceptingPool(HTTPSConnectionPool):
    ConnectionCls = _AcceptingConnection


class SecureAdapter(HTTPAdapter):
    """The way of ``requests`` to open connections, with ``security`` laid down once for all of them."""

    def __init__(self, security: Security) -> None:
        self._context = security.context()
        self._security = security
        super().__init__()

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """As the parent, with our context."""
        super().init_poolmanager(connections, maxsize, block, **options, **self._options)
        self._accept(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """As the parent, with our context."""
        manager = super().proxy_manager_for(proxy, **options, **self._options)
        self._accept(manager)
        return manager

    @property
    def _options(self) -> dict[str, Any]:
        return {"ssl_context": self._context, "assert_fingerprint": self._security.fingerprint}

    def _accept(self, manager: Any) -> None:
        if not self._security.verify:
            manager.pool_classes_by_scheme = {**manager.pool_classes_by_scheme, "https": _AcceptingPool}


def is_loopback(host: str) -> bool:
    """Whether ``host`` is a name of this machine that never leaves it."""
    return host == "localhost" or host == "::1" or bool(re.fullmatch(r"127(\.\d{1,3}){3}", host))


def tls_fault(error: Exception, reason: str, request: str, url: str, security: Security) -> EngineError:
    """Put a TLS handshake that failed into words: what was found there, and what to set.

    Args:
        error: What the library raised, with all its wrapping.
        reason: Its innermost reason, in the words of OpenSSL.
        request: The request that was not sent.
        url: The master's base URL.
        security: What was asked of it.
    """
    detail, reason = str(error), re.sub(r" \(_ssl\.c:\d+\)|\[SSL[^\]]*\] ", "", reason)
    code = detail.upper().replace(" ", "_")  # some faults come without their code, in words only
    if "WRONG_VERSION" in detail or "RECORD_LAYER" in detail:
        is_near = is_loopback(urlsplit(url).hostname or "")
        allow = "" if is_near or security.plain else ", and server_plain to true if your network is trusted"
        return EngineError(
            f"{request} failed: no TLS there, perhaps plain HTTP: write http:// in server_url{allow}"
        )
    if "Fingerprints did not match" in detail:
        return _other_certificate(request, detail, security)
    if "CERTIFICATE_VERIFY_FAILED" in detail:
        return _untrusted(request, reason, url, security)
    if any(word in code for word in TOO_OLD):
        return _too_old(request, reason, security)
    if "EOF" in detail:
        message = f"{request} failed: the connection broke at the start of TLS; the master may be restarting"
        return EngineError(message, transient=True)
    return EngineError(f"{request} failed: TLS was refused ({reason}): check the master and server_url")


def _other_certificate(request: str, detail: str, security: Security) -> EngineError:
    found = next(iter(re.findall(r'got "?([0-9a-f]{64})', detail)), "")
    return EngineError(
        f"{request} was not sent: the certificate there has SHA-256 fingerprint {_with_colons(found)}, not"
        f" {_with_colons(_bare(security.fingerprint or ''))}: if the master was started anew (it then makes"
        " a new certificate), compare on its machine and set server_fingerprint to the new one; if not,"
        " somebody is in between"
    )


def _untrusted(request: str, reason: str, url: str, security: Security) -> EngineError:
    why = reason.removeprefix("certificate verify failed: ")
    by = f"the authorities in {security.ca}" if security.ca else "the authorities of this system"
    found = found_fingerprint(url)
    pin = (
        f"its SHA-256 fingerprint is {_with_colons(found)}; if that is the master's, set"
        " server_fingerprint to it"
        if found
        else "set server_fingerprint to the SHA-256 fingerprint of the master's certificate"
    )
    return EngineError(
        f"{request} was not sent: the certificate there is not trusted by {by} ({why}): {pin},"
        " or server_ca to the PEM file of its authority"
    )


def _too_old(request: str, reason: str, security: Security) -> EngineError:
    if security.legacy:
        return EngineError(
            f"{request} failed: no kind of TLS is common to both sides, TLS 1.0 included ({reason}):"
            " check the port in server_url"
        )
    return EngineError(
        f"{request} failed: only outdated TLS is spoken there ({reason}): for a master of that age set"
        " server_legacy_tls to true, together with server_fingerprint"
    )


def found_fingerprint(url: str, timeout_s: float = 3.0) -> str | None:
    """The SHA-256 fingerprint of the certificate at ``url``, whoever made it; nothing is sent there."""
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 443)
    with (
        contextlib.suppress(OSError),
        socket.create_connection(address, timeout=timeout_s) as plain,
        Security(verify=False, legacy=True).context().wrap_socket(plain) as connection,
    ):
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()
    return None


def _bare(fingerprint: str) -> str:
    return re.sub(r"[\s:]", "", fingerprint).lower()


def _with_colons(digest: str) -> str:
    """As openssl prints it, to be compared by eye."""
    return ":".join(re.findall("..", digest.upper()))
