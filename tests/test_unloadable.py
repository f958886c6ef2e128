"""What raises while it is unpickled costs what it travels with, never the job, and is told in a line."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.world import cell, embedded_client

from golem_magic import Client, TaskError
from golem_magic.errors import PayloadError
from golem_magic.model import JobState

HERE = f"GM_TEST_AT_HOME_{os.getpid()}"  # set in this process alone, once workers can be started
SPOILT = f"""
import os
class Spoilt:
    def __init__(self, where, how): self.where, self.how = where, how
    def __setstate__(self, state):
        if (state["where"] == "here") == ({HERE!r} in os.environ):
            if state["how"] == "raises": raise RuntimeError("no such\\n thing")
            if state["how"] == "misses a file": open("/no/such/file")
            if state["how"] == "misses a package": import no_such_package
            if state["how"] == "exits": raise SystemExit(3)
        self.__dict__.update(state)
class Function(Spoilt):
    def __call__(self, *_): return 1
"""
WAYS = {
    "raises": "(RuntimeError: no such thing): loading runs code of its class",
    "misses a file": "No such file or directory: '/no/such/file'): loading runs code of its class",
    "misses a package": "No module named 'no_such_package'): probably a package is missing there",
    "exits": "(SystemExit: 3): loading runs code of its class",
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("unloadable")) as client:
        assert list(client.map(abs, [-1])) == [1]
        yield client


@pytest.fixture
def names(client: Client, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setenv(HERE, "yes")
    return cell(SPOILT)


def told(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert f" cannot be loaded on {socket.gethostname()} (" in text
    return text


# --- what is sent ---


@pytest.mark.meets("G-27")
@pytest.mark.parametrize(("how", "words"), WAYS.items(), ids=WAYS.keys())
def test_an_input_that_cannot_be_loaded_costs_its_block_and_no_other_task(
    client: Client, names: dict[str, Any], how: str, words: str
) -> None:
    """The first block holds one input, the second one about a hundred: a lease spans two of them."""
    fill, spoilt = bytes(10_000), names["Spoilt"]("there", how)
    inputs = [(x, spoilt if x == 30 else fill + bytes([x])) for x in range(250)]

    results = client.map(cell("def f(x): return x[0]")["f"], inputs, chunk_size=75, on_error="return")
    found = list(results)

    failed = [i for i, each in enumerate(found) if isinstance(each, PayloadError)]
    text = told(found[30])
    assert text.startswith(f"one of inputs 1 to {failed[-1]}, which travel together, cannot be loaded")
    assert words in text
    assert failed == list(range(1, failed[-1] + 1))
    assert 75 < failed[-1] < 149, "it ends within a lease"
    assert [found[0], *found[failed[-1] + 1 :]] == [0, *range(failed[-1] + 1, 250)]
    assert results.progress.state is JobState.DONE


def test_an_input_alone_in_its_block_is_named_alone(client: Client, names: dict[str, Any]) -> None:
    results = client.map(cell("def f(x): return x")["f"], [names["Spoilt"]("there", "raises"), 1])

    each = iter(results)
    with pytest.raises(PayloadError) as caught:
        next(each)
    assert told(caught.value).startswith("input 0 cannot be loaded")
    assert "in __setstate__" in caught.value.__notes__[0], "the remote lines of the class are shown"
    assert list(each) == [1]


@pytest.mark.meets("G-27")
@pytest.mark.parametrize("what", ["Function", "the common data", "the set-up function"])
@pytest.mark.parametrize(("how", "words"), WAYS.items(), ids=WAYS.keys())
def test_what_all_tasks_need_and_cannot_be_loaded_is_every_tasks_error(
    client: Client, names: dict[str, Any], what: str, how: str, words: str
) -> None:
    spoilt, function = names["Function"]("there", how), cell("def f(x, more=0): return x")["f"]
    options = {"the common data": {"common": spoilt}, "the set-up function": {"setup": spoilt}}.get(what, {})
    if what == "Function":
        function = spoilt

    results = client.map(function, range(3), on_error="return", **options)

    for error in results:
        assert told(error).startswith(f"{what} cannot be loaded")
        assert words in str(error)
    assert results.progress.n_failed == 3
    assert results.progress.state is JobState.DONE


# --- what comes back ---


@pytest.mark.meets("G-18")
@pytest.mark.parametrize("keep", ["all", "unread"])
@pytest.mark.parametrize(("how", "words"), WAYS.items(), ids=WAYS.keys())
def test_a_result_that_cannot_be_loaded_here_is_told_and_iteration_goes_on(
    client: Client, names: dict[str, Any], how: str, words: str, keep: Any
) -> None:
    """It is neither trouble of the share, nor a result that was freed, nor the end of the kernel's cell."""
    source = "def f(x): return Spoilt('here', how) if x == 1 else x"
    results = client.map(cell(SPOILT + source, how=how)["f"], range(4), chunk_size=1, keep=keep)
    assert results.wait(60)

    found: list[Any] = []
    each = iter(results)
    for _ in range(4):
        try:
            found.append(next(each))
        except TaskError as error:
            found.append(error)

    text = told(found[1])
    assert text.startswith("the result of task 1 cannot be loaded")
    assert words.replace("workers'", "notebook's") in text
    assert [found[0], *found[2:]] == [0, 2, 3]


def test_results_that_came_together_fail_together_and_say_so(client: Client, names: dict[str, Any]) -> None:
    source = "def f(x): return Spoilt('here', 'raises') if x == 60 else x"
    results = client.map(cell(SPOILT + source)["f"], range(100), chunk_size=50, workers=1, on_error="return")

    found = list(results)

    failed = [i for i, each in enumerate(found) if isinstance(each, TaskError)]
    assert 60 in failed
    assert failed == list(range(failed[0], failed[-1] + 1))
    assert failed[0] >= 50
    assert f"one of the results of tasks {failed[0]} to {failed[-1]}, which came together," in str(found[60])
