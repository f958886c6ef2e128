"""Real faults under real workers: what comes is right, or an error that names the place; never a hang."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.disks import away, read_only, small_disk
from fakes.world import embedded_client
from share.chaos import Staged, by_value, mount, stage, unmount

from golem_magic.clock import SystemClock
from golem_magic.dispatcher import Dispatcher
from golem_magic.errors import FormatError, GolemMagicError, ShareError
from golem_magic.model import JobState
from golem_magic.results import Results
from golem_magic.share import files

LIMIT_S = 60.0  # far beyond what any of this takes

NOTED = """
import os, time

def f(x):
    with open(calls, "ab", buffering=0) as file:
        file.write(b"%d\\n" % x)
    time.sleep(pause_s)
    return x, bytes([x % 251]) * n_bytes
"""


@contextmanager
def dispatched(staged: Staged) -> Iterator[Results]:
    dispatcher = Dispatcher(staged.paths, staged.manifest, staged.site, SystemClock())
    dispatcher.start()
    results = staged.results(dispatcher)
    try:
        yield results
    finally:
        results.cancel()
        results.wait(LIMIT_S)
        staged.engine.close()


@pytest.fixture
def noted(tmp_path: Path) -> Callable[..., Callable[..., Any]]:
    """Makes functions that note their calls outside of the share."""
    (tmp_path / "calls").touch()

    def make(pause_s: float = 0.01, n_bytes: int = 10) -> Callable[..., Any]:
        return by_value(NOTED, "f", calls=str(tmp_path / "calls"), pause_s=pause_s, n_bytes=n_bytes)

    return make


def n_calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().split())


def check_all(results: Results, n_tasks: int, n_bytes: int = 10) -> None:
    deadline = time.monotonic() + LIMIT_S
    assert results.wait(LIMIT_S), f"stuck: {results.progress}"
    assert results.progress.state is JobState.DONE, results.progress
    for task, (found, data) in enumerate(results):
        assert (found, data) == (task, bytes([task % 251]) * n_bytes)
        assert time.monotonic() < deadline
    assert len(results) == n_tasks


# --- the share as a whole: full, read-only, away ---


def test_a_share_that_is_full_for_a_while_costs_nothing(tmp_path: Path, noted: Any) -> None:
    """Workers begin nothing new on a disk that is nearly full; what they have begun may still not fit."""
    n_tasks, n_bytes = 6, 1_500_000
    with small_disk(tmp_path / "disk", "size=12m") as disk:
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(6_000_000))
        staged = stage(disk, [disk], noted(0.005, n_bytes), list(range(n_tasks)), workers=2)
        with dispatched(staged) as results:
            wait_until(lambda: "No space left" in logs(staged), "workers that tell", LIMIT_S)
            assert not results.progress.state.is_final
            ballast.unlink()
            check_all(results, n_tasks, n_bytes)
    assert n_calls(tmp_path) == n_tasks, "what was computed was given up"


def logs(staged: Staged) -> str:
    return "".join(file.read_text() for file in Path(staged.paths.workers).glob("*.log"))


def test_a_share_that_is_read_only_for_a_while_costs_nothing(share: Path, tmp_path: Path, noted: Any) -> None:
    n_tasks = 300
    staged = stage(share, [share], noted(), list(range(n_tasks)), workers=2, lease_s=20.0)
    with dispatched(staged) as results:
        wait_until(lambda: results.progress.n_done > 20, "some results", LIMIT_S)
        with read_only(share):
            before = results.progress.n_done
            wait_until(lambda: "Read-only" in logs(staged), "workers that tell", LIMIT_S)
            assert results.progress.n_done < n_tasks, (before, results.progress)
        check_all(results, n_tasks)
    assert n_calls(tmp_path) == n_tasks, "what was computed was given up"


@pytest.mark.parametrize("seconds", [0.3, pytest.param(5.0, marks=pytest.mark.slow)])
def test_a_share_that_is_away_for_a_while_comes_to_its_results(
    share: Path, noted: Any, seconds: float
) -> None:
    n_tasks = 300
    staged = stage(share, [share], noted(), list(range(n_tasks)), workers=2)
    with dispatched(staged) as results:
        wait_until(lambda: results.progress.n_done > 20, "some results", LIMIT_S)
        with away(share):
            wait_until(lambda: "does not answer" in results.progress.note, "a word to the user", LIMIT_S)
            time.sleep(seconds)
        check_all(results, n_tasks)
        assert "does not answer" not in results.progress.note


@pytest.mark.slow
def test_a_stream_that_fills_the_share_says_so_and_ends_with_the_reason(tmp_path: Path) -> None:
    """Results need room as well: they wait until somebody makes it, and none is lost."""

    def endless() -> Iterator[bytes]:
        while True:
            yield os.urandom(200_000)

    with (
        small_disk(tmp_path / "disk", "size=8m") as disk,
        embedded_client(tmp_path, share=disk / "share") as client,
    ):
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        results = client.map(len, endless(), stream=True, workers=1)
        wait_until(lambda: "No space left" in results.progress.note, "a word to the user", LIMIT_S)
        ballast.unlink()

        n_values, error = until_the_error(results)

        assert isinstance(error, ShareError)
        assert "No space left on device" in str(error)
        assert str(disk) in str(error)
        assert n_values > 5


def until_the_error(results: Results) -> tuple[int, Exception]:
    """How many results come before the error that ends them."""
    n_values = 0
    try:
        for value in results:
            assert value == 200_000
            n_values += 1
    except GolemMagicError as error:
        return n_values, error
    raise AssertionError("the inputs have no end, and the disk has one")


# --- single files: short, altered, gone ---


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)


def emptied(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)


def flip(path: Path, at: int | None = None) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 0x10
    path.write_bytes(data)


def removed(path: Path) -> None:
    path.unlink()


def also(*harms: Callable[[Path], None]) -> list[Any]:
    """More ways, in the long tier."""
    return [pytest.param(harm, marks=pytest.mark.slow) for harm in harms]


@pytest.mark.parametrize("harm", [cut_short, flip, *also(emptied, removed)])
def test_a_harmed_file_of_outcomes_is_named_and_costs_only_its_own(
    share: Path, noted: Any, harm: Callable[[Path], None]
) -> None:
    n_tasks = 40
    staged = stage(share, [share], noted(0.0), list(range(n_tasks)), workers=2, chunk_size=4)
    with dispatched(staged) as results:
        assert results.wait(LIMIT_S)
        (victim,) = Path(staged.paths.data).glob("12-*")
        spoiled = range(12, int(victim.name.split(".")[0].partition("-")[2]))
        harm(victim)

        for task in range(n_tasks):
            if task not in spoiled:
                assert results[task][0] == task
                continue
            with pytest.raises(ShareError) as caught:
                results[task]
            assert str(victim) in str(caught.value)
            assert "\n" not in str(caught.value)
        each = iter(results)
        assert [next(each)[0] for _ in range(12)] == list(range(12))
        for _ in range(2):  # and not passed over when asked again
            with pytest.raises(ShareError):
                next(each)


def outcomes(results: Results, n_tasks: int) -> list[Any]:
    """Values and exceptions by index."""
    found: list[Any] = []
    for task in range(n_tasks):
        try:
            found.append(results[task])
        except GolemMagicError as error:
            found.append(error)
    return found


@pytest.mark.parametrize("harm", [flip, *also(cut_short)])
def test_a_harmed_block_of_inputs_is_the_error_of_its_tasks(
    share: Path, noted: Any, harm: Callable[[Path], None]
) -> None:
    """Blocks have a hundred inputs here; cut off is the end of the last one, flipped a byte in the middle."""
    n_tasks = 300
    staged = stage(share, [share], noted(0.0), list(range(n_tasks)), workers=2)
    harm(Path(staged.paths.inputs_log(0)))
    spoiled = range(200, 300) if harm is cut_short else range(100, 200)

    with dispatched(staged) as results:
        assert results.wait(LIMIT_S), results.progress
        found = outcomes(results, n_tasks)

    for task, outcome in enumerate(found):
        if task in spoiled:
            assert isinstance(outcome, FormatError), outcome
            assert staged.paths.inputs_log(0) in str(outcome)
        else:
            assert outcome[0] == task


@pytest.mark.slow
@pytest.mark.parametrize("harm", [cut_short, flip])
def test_inputs_that_the_index_has_lost_are_told_as_missing(
    share: Path, noted: Any, harm: Callable[[Path], None]
) -> None:
    n_tasks = 300
    staged = stage(share, [share], noted(0.0), list(range(n_tasks)), workers=2)
    harm(Path(staged.paths.inputs_index))
    known = 200 if harm is cut_short else 100

    with dispatched(staged) as results:
        assert results.wait(4 * LIMIT_S), results.progress  # three placements look for them, a minute each
        assert results.progress.state is JobState.FAILED
        found = outcomes(results, n_tasks)

    assert [outcome[0] for outcome in found[:known]] == list(range(known))
    for outcome in found[known:]:
        assert isinstance(outcome, GolemMagicError), outcome
        assert "\n" not in str(outcome)


@pytest.mark.parametrize("harm", [flip, *also(cut_short, emptied)])
def test_a_harmed_function_is_every_tasks_error(
    share: Path, noted: Any, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    staged = stage(share, [share], noted(0.0), list(range(10)), workers=2)
    harm(Path(staged.share.object(staged.manifest.function)))

    with dispatched(staged) as results:
        assert results.wait(LIMIT_S), results.progress
        found = outcomes(results, 10)

    for outcome in found:
        assert isinstance(outcome, FormatError), outcome
        assert "submit the job again" in str(outcome)
    assert n_calls(tmp_path) == 0


# --- mounts that cache as network file systems do ---


def test_the_caching_mounts_do_remember_what_was_not_there(
    tmp_path: Path, require: Callable[[str], str]
) -> None:
    """What tests/share/test_chaos.py runs on: without these caches it would show nothing."""
    bindfs = require("bindfs")
    real, mounts = tmp_path / "real", [tmp_path / "a", tmp_path / "b"]
    real.mkdir()
    (real / "grows").write_text("1")
    for each in mounts:
        mount(bindfs, real, each)
    try:
        one, other = map(str, mounts)
        assert files.read_link(f"{other}/name") is None
        assert os.stat(f"{other}/grows").st_size == 1
        assert files.link("me", f"{one}/name")
        with open(f"{one}/grows", "a") as file:
            file.write("2")

        assert files.names(other) == ["grows", "name"] or files.names(other) == ["name", "grows"]
        assert files.read_link(f"{other}/name") is None, "a failed look-up is remembered"
        assert os.stat(f"{other}/grows").st_size == 1, "growth is seen late"
        assert not files.link("you", f"{other}/name")
        assert files.read_link(f"{other}/name") == "me", "after a refused creation it is known"
    finally:
        for each in mounts:
            unmount(each)
