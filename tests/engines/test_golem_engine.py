"""GolemEngine against the double of the real master: the contract, and the master's quirks."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.engine_contract import ServerEngineContract
from fakes.golem_double import GolemDouble

from golem_magic.engines.golem import GolemEngine

PASSWORD = "open sesame ä"


@pytest.fixture
def golem(tmp_path: Path) -> Iterator[GolemDouble]:
    with GolemDouble(tmp_path / "golem", password=PASSWORD) as double:
        yield double


@pytest.fixture
def engine(golem: GolemDouble) -> Iterator[GolemEngine]:
    engine = GolemEngine(golem.url, PASSWORD, request_timeout_s=5.0)
    yield engine
    engine.close()


@pytest.fixture
def unused_port() -> Iterator[int]:
    with socket.socket() as bound:  # bound but not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


class TestContract(ServerEngineContract):
    @pytest.fixture
    def stranger_engine(self, golem: GolemDouble) -> Iterator[GolemEngine]:
        engine = GolemEngine(golem.url, "wrong")
        yield engine
        engine.close()

    @pytest.fixture
    def deserted_engine(self, unused_port: int) -> Iterator[GolemEngine]:
        engine = GolemEngine(f"http://127.0.0.1:{unused_port}", PASSWORD)
        yield engine
        engine.close()
