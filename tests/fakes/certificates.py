"""Certificates as masters have them, made by the openssl program."""

import re
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

CONFIG = """
[req]
distinguished_name = name
prompt = no
x509_extensions = extensions
[name]
O = golem
CN = master-host
[extensions]
keyUsage = digitalSignature, keyEncipherment
subjectKeyIdentifier = 01020304
"""


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key in one PEM file."""

    pem: Path

    @property
    def fingerprint(self) -> str:
        """SHA-256 as openssl prints it: pairs of capital hex digits with colons."""
        command = ["openssl", "x509", "-in", str(self.pem), "-noout", "-sha256", "-fingerprint"]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        return run.stdout.strip().rpartition("=")[2]

    def context(self, *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """What a server with it needs; ``newest`` makes one of an age that knew nothing newer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # Go decides by itself what it takes, so the system's wishes must not spoil the imitation.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(self.pem)
        if newest is not None:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = newest
        return context


def made_by_a_master(folder: Path, *, digest: str = "sha256") -> Certificate:
    """As a Golem master makes one at its start: self-signed, RSA 1024, no host name but in CN."""
    return _made(folder, CONFIG, 1024, digest)


def made_by_an_administrator(folder: Path, names: str = "IP:127.0.0.1, DNS:localhost") -> Certificate:
    """As it should be: 2048 bits, with the names under which the master is reached."""
    usage = CONFIG.replace("keyEncipherment", "keyEncipherment, keyCertSign")
    more = f"subjectAltName = {names}\nbasicConstraints = critical, CA:true\n"
    return _made(folder, usage + more, 2048, "sha256")


def _made(folder: Path, config: str, bits: int, digest: str) -> Certificate:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config").write_text(config)
    key, pem = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-nodes", "-days", "365", "-newkey", f"rsa:{bits}", f"-{digest}"]
    command += ["-config", str(folder / "config"), "-keyout", str(key), "-out", str(pem)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, re.sub(r"\s+", " ", run.stderr)
    pem.write_text(key.read_text() + pem.read_text())
    return Certificate(pem)
