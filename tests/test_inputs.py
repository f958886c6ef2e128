"""Inputs: anything that can be drawn from, drawn once, in order, and let go of."""

import time
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines.engine_contract import wait_until
from fakes.world import embedded_client

from golem_magic import Client, PayloadError
from golem_magic.inputs import BLOCK_BYTES, MOST_INPUTS, Drawer
from golem_magic.model import JobState


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("inputs")) as client:
        yield client


def drawn(drawer: Drawer, n_bytes_each: int = 10) -> list[list[Any]]:
    """All blocks, as a client draws them."""
    blocks = []
    while block := drawer.next_block():
        blocks.append(block)
        drawer.learn(n_bytes_each * len(block), len(block))
    return blocks


# --- blocks ---


@pytest.mark.unit
@pytest.mark.meets("G-03")
@pytest.mark.parametrize("n", [0, 1, 2, 9, MOST_INPUTS, MOST_INPUTS + 1, 3 * MOST_INPUTS + 7])
def test_blocks_hold_the_inputs_in_order_and_are_never_too_long(n: int) -> None:
    blocks = drawn(Drawer(iter(range(n))))

    assert [value for block in blocks for value in block] == list(range(n))
    assert all(len(block) <= MOST_INPUTS for block in blocks)
    assert [len(block) for block in blocks[:1]] == [1] * min(n, 1)  # it teaches the size of an input


@pytest.mark.unit
def test_large_inputs_make_short_blocks() -> None:
    blocks = drawn(Drawer(range(50)), n_bytes_each=BLOCK_BYTES // 3)

    assert max(len(block) for block in blocks) == 3
    assert max(map(len, drawn(Drawer(range(9)), n_bytes_each=5 * BLOCK_BYTES))) == 1


@pytest.mark.unit
def test_a_machine_that_stands_still_does_not_end_the_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1, 10_000))
    monkeypatch.setattr("golem_magic.inputs.time.monotonic", lambda: float(next(ticks)))

    assert [value for block in drawn(Drawer(range(20))) for value in block] == list(range(20))


@pytest.mark.unit
@pytest.mark.parametrize(
    "inputs", [[1, 2], (1, 2), {1: 0, 2: 0}, {1, 2}, range(1, 3), deque([1, 2]), b"\1\2"]
)
def test_anything_that_a_for_loop_takes_will_do(inputs: Any) -> None:
    assert [value for block in drawn(Drawer(inputs)) for value in block] == [1, 2]


@pytest.mark.unit
def test_what_cannot_be_iterated_over_is_named() -> None:
    with pytest.raises(PayloadError, match="inputs of type int cannot be iterated over"):
        Drawer(5)  # type: ignore[arg-type]


@pytest.mark.unit
def test_a_source_is_not_asked_again_after_its_end() -> None:
    asked = []

    class Once:
        def __iter__(self) -> "Once":
            return self

        def __next__(self) -> int:
            asked.append(1)
            if len(asked) > 3:
                raise StopIteration
            return len(asked)

    drawer = Drawer(Once())

    assert [value for block in drawn(drawer) for value in block] == [1, 2, 3]
    assert drawer.next_block() == []
    assert len(asked) == 4


@pytest.mark.unit
def test_an_error_of_the_source_comes_after_all_that_was_before_it() -> None:
    def source() -> Iterator[int]:
        yield from range(700)
        raise OSError("the tape is torn")

    drawer = Drawer(source())
    blocks = drawn(drawer)

    assert [value for block in blocks for value in block] == list(range(700))
    assert str(drawer.error) == "the tape is torn"


@pytest.mark.unit
def test_an_interrupt_while_drawing_is_no_end_of_the_inputs() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    drawer = Drawer(source())

    with pytest.raises(KeyboardInterrupt):
        drawn(drawer)
    assert drawer.error is None


@pytest.mark.unit
def test_a_slow_source_delivers_what_it_has() -> None:
    def source() -> Iterator[int]:
        for x in range(4):
            time.sleep(0.03)
            yield x

    drawer = Drawer(source())
    drawer.next_block()
    drawer.learn(10, 1)

    assert len(drawer.next_block()) < 3


# --- a map ---


class Ware:
    """Something that a weak reference can follow, and that is large when pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (bytes, (b"x" * (BLOCK_BYTES // 2),))


@pytest.mark.meets("G-03")
def test_an_input_is_let_go_of_once_its_block_is_written(client: Client) -> None:
    followed: list[weakref.ref[Ware]] = []
    alive: list[int] = []

    def source() -> Iterator[Ware]:
        for _ in range(40):
            alive.append(sum(ref() is not None for ref in followed))
            ware = Ware()
            followed.append(weakref.ref(ware))
            yield ware
            del ware

    results = client.map(len, source())

    assert max(alive) <= 5  # two to a block: the one being drawn and the one before
    assert [ref() for ref in followed] == [None] * 40
    assert list(results) == [BLOCK_BYTES // 2] * 40


@pytest.mark.meets("G-03")
def test_a_generator_is_drawn_once_in_order_whatever_is_read(client: Client) -> None:
    asked: list[int] = []

    results = client.map(abs, (asked.append(x) or x for x in range(3000)))

    assert asked == list(range(3000))
    assert list(results) == list(results) == results[:] == asked
    assert len(asked) == 3000


@pytest.mark.meets("G-04")
def test_work_starts_before_the_inputs_end(client: Client, tmp_path: Path) -> None:
    """The source goes on until the first task has left its mark."""
    mark = tmp_path / "mark"
    name = str(mark)

    def source() -> Iterator[int]:
        limit = time.monotonic() + 20
        while not mark.exists():
            assert time.monotonic() < limit, "no task ran while inputs were drawn"
            time.sleep(0.01)
            yield 1

    def leave_mark(x: int) -> int:
        open(name, "w").close()
        return x

    results = client.map(leave_mark, source())

    assert set(results) == {1}
    assert len(results) > 2


def test_what_is_changed_afterwards_changes_nothing(client: Client) -> None:
    inputs = [[x] for x in range(200)]
    common = {"factor": 2}
    results = client.map(lambda x, c: x[0] * c["factor"], inputs, common=common)

    for each in inputs:
        each[0] = -1
    inputs.clear()
    common["factor"] = 0

    assert list(results) == [2 * x for x in range(200)]


def torn(n: int) -> Iterator[int]:
    yield from range(n)
    message = "the tape is torn"
    raise OSError(message)


@pytest.mark.parametrize("n", [0, 1, 5, 500])
def test_an_error_of_the_source_is_raised_at_its_place(client: Client, n: int) -> None:
    results = client.map(lambda x: x * x, torn(n))

    for _ in range(2):  # each iteration
        each = iter(results)
        assert [next(each) for _ in range(n)] == [x * x for x in range(n)]
        with pytest.raises(OSError, match="the tape is torn"):
            next(each)
        assert list(each) == []
    assert len(results) == n
    assert results.wait(5)
    assert results.progress.state is JobState.DONE
    with pytest.raises(IndexError):
        results[n]


@pytest.mark.parametrize("unordered", [False, True])
def test_an_error_of_the_source_is_raised_in_any_order_of_reading(client: Client, unordered: bool) -> None:
    results = client.map(abs, torn(20), unordered=unordered)
    each = iter(results) if unordered else results.as_completed()
    seen = []

    with pytest.raises(OSError, match="the tape is torn"):  # noqa: PT012 - what came before counts
        for value in each:
            seen.append(value)  # noqa: PERF402

    assert len(seen) == 20
    assert list(each) == []


def test_an_input_that_cannot_be_pickled_is_named_and_its_job_ends(client: Client) -> None:
    before = {snapshot.job_id for snapshot in client.jobs()}

    with pytest.raises(PayloadError, match=r"cannot send input 0 \(generator\): it is a generator"):
        client.map(abs, [torn(3)])
    assert {snapshot.job_id for snapshot in client.jobs()} == before  # nothing was submitted

    with pytest.raises(PayloadError, match=r"cannot send input 7 \(generator\): it is a generator"):
        client.map(abs, [*range(7), torn(3), 8])

    (started,) = {snapshot.job_id for snapshot in client.jobs()} - before

    def state() -> JobState:
        return next(snapshot.state for snapshot in client.jobs() if snapshot.job_id == started)

    wait_until(lambda: state() is JobState.CANCELLED, "the end of a job whose inputs broke off", 5)


def test_an_interrupt_while_drawing_cancels_the_job(client: Client) -> None:
    def source() -> Iterator[int]:
        yield from range(100)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.map(abs, source())

    assert client.jobs()[0].state is JobState.CANCELLED


def test_inputs_of_all_kinds_come_back_as_they_went(client: Client) -> None:
    inputs = [
        None,
        float("nan"),
        float("inf"),
        -0.0,
        "ä\udc80",
        b"\0",
        (1, [2, {3}]),
        {"a": ...},
        int,
        1 << 200,
    ]

    back = list(client.map(lambda x: x, inputs))

    assert [repr(value) for value in back] == [repr(value) for value in inputs]
