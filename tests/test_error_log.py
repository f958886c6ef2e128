"""A file in which failures gather, with what was called and the remote traceback."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes.world import cell, embedded_client

from golem_magic import Client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("error log")) as client:
        yield client


@pytest.mark.meets("EX-16")
def test_failures_gather_in_one_file_that_serves_many_maps(client: Client, tmp_path: Path) -> None:
    names = cell(
        "import os, threading\n"
        "def divide(pair):\n"
        "    a, b = pair\n"
        "    return a / b\n"
        "def odd(x):\n"
        "    if x == 1:\n"
        "        os._exit(3)\n"
        "    return threading.Lock() if x == 2 else x\n"
    )
    log = tmp_path / "my errors.txt"

    pairs = [(i, i % 50) for i in range(100)]
    first = client.map(names["divide"], pairs, error_log=log, on_error="return")
    assert len(list(first)) == 100
    second = client.map(names["odd"], range(4), error_log=str(log), on_error="return", chunk_size=4)
    assert len(list(second)) == 4

    entries = log.read_text().split("--- ")[1:]
    assert len(entries) == 4
    for entry, index in zip(sorted(entries[:2]), (0, 50), strict=True):
        assert entry.startswith(f"divide, task {index} of job {first.job_id}, on ")
        assert f"input: ({index}, 0)\n" in entry
        assert "ZeroDivisionError: division by zero" in entry
        assert "return a / b" in entry  # the traceback
    died, unpicklable = sorted(entries[2:])
    assert "odd, task 1 of job" in died
    assert "input: 1\n" in died
    assert "ended with exit code 3" in died
    assert "odd, task 2 of job" in unpicklable
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_file_that_cannot_be_written_costs_no_task(client: Client, tmp_path: Path) -> None:
    names = cell("def fail(x):\n    raise ValueError(x)\n")
    results = client.map(names["fail"], range(3), error_log=tmp_path / "nowhere" / "x", on_error="return")
    assert [type(value) for value in results] == [ValueError] * 3
    assert "cannot append to the error log" in repr(results.logs())


def test_an_input_that_cannot_be_shown_is_said_so(client: Client, tmp_path: Path) -> None:
    names = cell(
        "class Shy:\n"
        "    def __repr__(self):\n"
        "        raise RuntimeError('no')\n"
        "def fail(x):\n"
        "    raise ValueError('bad')\n"
    )
    log = tmp_path / "log"
    results = client.map(names["fail"], [names["Shy"]()], error_log=log, on_error="return")
    assert len(list(results)) == 1
    assert "input: (cannot be shown: RuntimeError)\nValueError: bad\n" in log.read_text()
