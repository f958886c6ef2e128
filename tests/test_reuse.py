"""A job that is mapped again while it runs: found if it is the same to the last byte, else run besides."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.world import cell, embedded_client, said, script
from kernel_session import started_kernel

from golem_magic import Client, PayloadError, SettingsError
from golem_magic.model import JobState

SLOW = """
import os, time
def slow(x, gate):
    with open(f"{gate}.{os.getpid()}.runs", "a") as file:
        file.write("x")
    limit = time.monotonic() + 60
    while not os.path.exists(gate) and time.monotonic() < limit:
        time.sleep(0.005)
    return x
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("reuse")) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[str]:
    """What the tasks wait for; it opens at the end of the test at the latest."""
    gate = tmp_path / "gate"
    yield str(gate)
    gate.touch()


def open_gate(gate: str) -> None:
    Path(gate).touch()


def n_runs(gate: str) -> int:
    folder, name = os.path.split(gate)
    return sum(path.stat().st_size for path in Path(folder).glob(f"{name}.*.runs"))


def slow() -> Any:
    return cell(SLOW)["slow"]


def test_the_same_map_takes_up_the_job_that_runs(client: Client, gate: str) -> None:
    function = slow()
    first = client.map(function, (str(n) for n in range(30)), common=gate)
    before = {job.job_id for job in client.jobs()}

    again = client.map(function, (str(n) for n in range(30)), common=gate, reuse=True)
    open_gate(gate)

    assert again is not first
    assert again.job_id == first.job_id
    assert list(again) == list(first) == [str(n) for n in range(30)]
    assert n_runs(gate) == 30
    assert {job.job_id for job in client.jobs()} == before  # nothing is left of the comparison


@pytest.mark.parametrize(
    "changed",
    [
        {"inputs": [*range(9), 99]},
        {"inputs": range(9)},
        {"inputs": range(11)},
        {"inputs": ()},
        {"function": lambda x, gate: x},
        {"common": "/"},
        {"retries": 1},
        {"label": "another"},
        {"workers": 1},
        {"reuse": False},
    ],
    ids=lambda changed: next(iter(changed)) + str(len(list(changed.get("inputs", ())))),
)
def test_whatever_is_different_makes_another_job(client: Client, gate: str, changed: dict[str, Any]) -> None:
    said = {"function": slow(), "inputs": range(10), "common": gate}
    first = client.map(**said)

    again = client.map(**{**said, "reuse": True, **changed})
    open_gate(gate)

    assert again.job_id != first.job_id
    assert list(again) == list(changed.get("inputs", range(10)))
    assert list(first) == list(range(10))


def test_inputs_are_compared_however_slowly_they_come(client: Client, gate: str) -> None:
    def slowly() -> Iterator[int]:
        for x in range(4):
            time.sleep(0.03)
            yield x

    function = slow()
    fast = client.map(function, range(4), common=gate, label="fast")
    slow_one = client.map(function, slowly(), common=gate, label="slow")

    again = client.map(function, slowly(), common=gate, label="fast", reuse=True)
    faster = client.map(function, range(4), common=gate, label="slow", reuse=True)
    open_gate(gate)

    assert (again.job_id, faster.job_id) == (fast.job_id, slow_one.job_id)
    assert list(again) == list(faster) == list(range(4))


def test_large_inputs_are_compared_in_their_blocks(client: Client, gate: str) -> None:
    inputs = [bytes([n]) * 300_000 for n in range(20)]
    changed = [*inputs[:-1], inputs[-1][:-1] + b"x"]
    function = slow()
    first = client.map(function, inputs, common=gate, workers=2)

    same = client.map(function, inputs, common=gate, workers=2, reuse=True)
    other = client.map(function, changed, common=gate, workers=2, reuse=True)
    open_gate(gate)

    assert same.job_id == first.job_id != other.job_id
    assert list(other) == changed
    assert list(same) == inputs


@pytest.mark.parametrize("how", ["done", "cancelled", "failing"])
def test_a_job_that_will_not_give_all_of_it_is_not_taken_up(client: Client, gate: str, how: str) -> None:
    source = SLOW
    if how == "failing":
        source = source.replace("    with open", "    if x == 0:\n        raise ValueError(x)\n    with open")
    function = cell(source)["slow"]
    if how == "done":
        open_gate(gate)
    first = client.map(function, range(4), common=gate, chunk_size=1, on_error="return")
    if how == "done":
        first.wait()
    elif how == "cancelled":
        wait_until(lambda: n_runs(gate) > 0, "a task", 30)
        first.cancel()  # and workers are still there
    else:
        wait_until(lambda: first.progress.n_failed == 1, "the failure", 30)

    again = client.map(function, range(4), common=gate, chunk_size=1, on_error="return", reuse=True)
    open_gate(gate)

    assert again.job_id != first.job_id
    assert again.wait(30)
    assert again.progress.state is JobState.DONE


def test_an_input_that_cannot_be_sent_leaves_no_job(client: Client, gate: str) -> None:
    function = slow()
    first = client.map(function, range(3), common=gate)
    before = {job.job_id for job in client.jobs()}

    with pytest.raises(PayloadError, match="input 1 "):
        client.map(function, [0, (n for n in ()), 2], common=gate, reuse=True)
    assert {job.job_id for job in client.jobs()} == before
    open_gate(gate)

    assert list(first) == [0, 1, 2]


def test_what_cannot_be_compared_is_refused(client: Client) -> None:
    for option in ({"stream": True}, {"keep": "unread"}, {"disk_budget": 1000}):
        with pytest.raises(SettingsError, match="reuse compares all inputs first"):
            client.map(abs, [1], reuse=True, **option)


def test_a_cell_that_is_run_again_gets_its_running_job(tmp_path: Path, state_dir: Path, gate: str) -> None:
    source = SLOW.replace("return x", "return (x, sorted(levels))")
    body = "levels = {'low', 'high', 'middle'}\n" + source
    mapped = f"%%golemize -o out -c {gate!r} range(10) --quiet\n{body}"
    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        first = kernel.run(mapped)
        job = kernel.value("out.job_id[:8]").strip("'")
        second = kernel.run(mapped)
        other_line = kernel.run(mapped.replace("-o out", "-o more"))
        forced = kernel.run(mapped.replace("--quiet", "--quiet --no-reuse"))
        jobs = kernel.value("[r.job_id[:8] for r in (out, more)]")
        open_gate(gate)
        values = kernel.value("[[x for x, _ in r] == [*range(10)] for r in (out, more)]")

    assert first.text == ""
    assert second.text == (
        f"job {job} does just this and is running: these are its results; for another run of it "
        f"add --no-reuse, or end it first with %golem cancel {job}\n"
    )
    assert other_line.text == ""
    assert f"out held the results of job {job}, which goes on" in forced.text
    assert job not in jobs
    assert values == "[True, True]"


# --- a process that ends right after its map ---


def test_a_script_that_only_maps_leaves_a_job_that_is_worked_at(state_dir: Path, tmp_path: Path) -> None:
    source = "import golem_magic\nprint(golem_magic.golem_map(abs, [-1, -2]).job_id)"

    job_id = said(script(source)).strip()

    with Client() as client:
        wait_until(lambda: client.jobs()[0].state is JobState.DONE, "the end of the job without a client", 30)
        assert list(client.attach(job_id)) == [1, 2]
