"""What the user's object gives: results in order while the job runs, by index, as they come, and errors."""

import asyncio
import itertools
import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.world import cell, embedded_client, said, script

from golem_magic import (
    Client,
    InfiniteRecursionError,
    JobCancelled,
    JobError,
    Results,
    SettingsError,
    TaskError,
)
from golem_magic.model import JobState


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("results")) as client:
        yield client


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A file for which tasks wait; it is made at the end at the latest."""
    yield tmp_path / "gate"
    (tmp_path / "gate").touch()


def held(gate: Path, *indices: int) -> Any:
    """A squaring function whose tasks ``indices`` last until the gate is open."""
    path = str(gate)

    def square(x: int) -> int:
        limit = time.monotonic() + 60  # nobody may be left to open the gate
        while x in indices and not os.path.exists(path) and time.monotonic() < limit:
            time.sleep(0.002)
        return x * x

    return square


def squares(n: int) -> list[int]:
    return [x * x for x in range(n)]


# --- in order, while the job runs ---


@pytest.mark.meets("G-12", "G-15")
def test_results_come_in_order_while_the_job_runs(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 9), range(10), chunk_size=1)

    there = iter(results)
    first = [next(there) for _ in range(9)]

    assert first == squares(9)
    assert results.progress.state is JobState.RUNNING
    assert results.progress.n_done == 9
    gate.touch()
    assert next(there) == 81
    assert list(there) == []


@pytest.mark.meets("G-12", "G-39")
def test_a_slow_first_task_does_not_change_the_order(client: Client) -> None:
    def delayed(x: int) -> int:
        time.sleep(0.1 if x == 0 else 0.001)
        return x

    assert list(client.map(delayed, range(40), chunk_size=2)) == list(range(40))


@pytest.mark.meets("G-39", "G-12")
def test_acceptance_example_of_a_generator_of_random_lengths(client: Client) -> None:
    lengths = np.random.default_rng(1).integers(0, 1000, 50)

    results = client.map(lambda n: "nyan" * n, (int(n) for n in lengths))

    assert list(results) == ["nyan" * n for n in lengths]


@pytest.mark.meets("G-39", "G-16", "G-17")
def test_acceptance_example_of_a_division_by_zero_amid_good_ones(client: Client) -> None:
    results = client.map(lambda x: 1.0 / x, range(-100, 100))

    each = iter(results)
    before = [next(each) for _ in range(100)]
    with pytest.raises(ZeroDivisionError, match="float division by zero"):
        next(each)
    after = list(each)

    assert before == [1.0 / x for x in range(-100, 0)]
    assert after == [1.0 / x for x in range(1, 100)]


# --- by index, again, as they come ---


def test_results_can_be_counted_and_indexed(client: Client) -> None:
    results = client.map(lambda x: x * x, range(20))

    assert len(results) == 20
    assert (results[0], results[19], results[-1], results[-20]) == (0, 361, 361, 0)
    assert results[np.int64(3)] == 9
    for index in (20, -21):
        with pytest.raises(IndexError, match=f"result {index} of 20"):
            results[index]


@pytest.mark.parametrize(
    "cut", [slice(3, 7), slice(None), slice(-3, None), slice(None, None, -1), slice(15, 2, -4), slice(9, 9)]
)
def test_slices_are_those_of_a_list(client: Client, cut: slice) -> None:
    results = client.map(lambda x: x * x, range(20), chunk_size=3)

    assert results[cut] == squares(20)[cut]


def test_an_index_waits_for_its_task_and_for_no_other(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 0), range(10), chunk_size=1)

    assert results[9] == 81
    assert not results.progress.state.is_final
    gate.touch()
    assert results[0] == 0


@pytest.mark.meets("G-14")
def test_each_iteration_starts_anew_and_next_has_a_position_of_its_own(client: Client) -> None:
    results = client.map(lambda x: x * x, range(6))

    assert (next(results), next(results)) == (0, 1)
    one, other = iter(results), iter(results)
    assert (next(one), next(one), next(other)) == (0, 1, 0)
    assert list(results) == list(results) == results.to_list() == squares(6)
    assert list(one) == squares(6)[2:]
    assert next(results) == 4
    for _ in range(3):
        next(results)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(results)


@pytest.mark.meets("G-13")
def test_a_result_that_was_handed_out_is_not_kept(client: Client) -> None:
    each = iter(client.map(lambda n: np.zeros(n), [5] * 8, chunk_size=8))

    result = next(each)
    seen = weakref.ref(result)
    del result

    assert seen() is None
    assert sum(len(rest) for rest in each) == 35


def test_as_completed_gives_pairs_as_they_come(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 0), range(8), chunk_size=1)

    pairs = results.as_completed()
    early = [next(pairs) for _ in range(7)]
    gate.touch()
    late = list(pairs)

    assert sorted(early) == [(x, x * x) for x in range(1, 8)]
    assert late == [(0, 0)]


def test_unordered_iterates_as_they_come(client: Client, gate: Path) -> None:
    each = iter(client.map(held(gate, 0), range(8), chunk_size=1, unordered=True))

    early = [next(each) for _ in range(7)]
    gate.touch()

    assert sorted(early) == squares(8)[1:]
    assert list(each) == [0]


def test_wait_returns_in_time_and_tells_whether_the_job_is_over(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 1), range(2))

    began = time.monotonic()
    assert results.wait(0.1) is False
    assert 0.1 <= time.monotonic() - began < 2

    gate.touch()
    assert results.wait() is True
    assert results.wait(0) is True


def test_several_threads_may_read_one_object(client: Client) -> None:
    results = client.map(lambda x: time.sleep(0.001) or x, range(200))
    read: list[list[int]] = []
    threads = [threading.Thread(target=lambda: read.append(list(results))) for _ in range(4)]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert read == [list(range(200))] * 4


def test_repr_tells_name_state_counts_and_id(client: Client) -> None:
    namespace = cell("def half(x):\n    return 1 / x\n")
    results = client.map(namespace["half"], [0, 1, 2])
    results.wait()

    text = repr(results)
    assert text.startswith("<Results of half: done, 2/3 done, 1 failed")
    assert text.endswith(f"job {results.job_id[:8]}>")
    assert repr(client).startswith("Client(engine='local', share=")


# --- errors ---


@pytest.fixture
def broken() -> Any:
    """A function that fails for 1, 4, 7 and so on, defined as in a notebook."""
    return cell("def broken(x):\n    if x % 3 == 1:\n        raise KeyError(x)\n    return x\n")["broken"]


@pytest.mark.meets("G-16", "G-17", "G-18")
def test_an_error_is_raised_at_its_place_and_iteration_goes_on(client: Client, broken: Any) -> None:
    each = iter(client.map(broken, range(8), chunk_size=4))

    seen: list[Any] = []
    for _ in range(8):
        try:
            seen.append(next(each))
        except KeyError as error:
            seen.append(error.args)
    with pytest.raises(StopIteration):
        next(each)

    assert seen == [0, (1,), 2, 3, (4,), 5, 6, (7,)]


def test_a_for_loop_ends_at_the_error(client: Client, broken: Any) -> None:
    results = client.map(broken, range(4))
    seen: list[int] = []

    with pytest.raises(KeyError):
        seen.extend(results)  # what a for loop does

    assert seen == [0]
    assert (next(results), next(results.__iter__())) == (0, 0)


def test_on_error_return_gives_the_exception_in_its_place(client: Client, broken: Any) -> None:
    results = client.map(broken, range(5), on_error="return")

    values = list(results)

    assert [type(value) for value in values] == [int, KeyError, int, int, KeyError]
    assert isinstance(results[1], KeyError)
    assert {index: type(value) for index, value in results.as_completed()}[4] is KeyError
    assert [type(value) for value in results[3:]] == [int, KeyError]


def test_on_error_skip_leaves_it_out(client: Client, broken: Any) -> None:
    results = client.map(broken, range(8), on_error="skip")

    assert list(results) == [0, 2, 3, 5, 6]
    assert dict(results.as_completed()) == {x: x for x in (0, 2, 3, 5, 6)}
    assert len(results) == 8


def test_errors_are_listed_by_index_and_counted(client: Client, broken: Any) -> None:
    results = client.map(broken, range(8), chunk_size=2)
    results.wait()

    errors = results.errors()

    assert sorted(errors) == [1, 4, 7]
    assert {index: error.args for index, error in errors.items()} == {1: (1,), 4: (4,), 7: (7,)}
    snapshot = results.progress
    assert (snapshot.state, snapshot.n_done, snapshot.n_failed) == (JobState.DONE, 5, 3)
    assert snapshot.first_failure == (1, "KeyError: 1")


@pytest.mark.meets("G-16", "GR-16")
def test_the_users_own_exception_works_with_except_and_tells_where_it_happened(client: Client) -> None:
    source = (
        "class Unstable(Exception):\n"
        "    def __init__(self, value):\n"
        "        super().__init__(value)\n"
        "        self.value = value\n"
        "\n"
        "def step(x):\n"
        "    if x == 2:\n"
        "        raise Unstable(x * 10)  # the line to be shown\n"
        "    return x\n"
    )
    namespace = cell(source)
    results = client.map(namespace["step"], range(4))

    with pytest.raises(namespace["Unstable"]) as caught:
        list(results)

    assert caught.value.value == 20
    note = "\n".join(caught.value.__notes__)
    assert f"task 2 on {socket.gethostname()}" in note
    assert "in step\n    raise Unstable(x * 10)  # the line to be shown" in note
    assert "golem_magic" not in note  # the user's frames only


@pytest.mark.meets("G-19")
@pytest.mark.parametrize(
    "kind",
    [StopIteration, StopAsyncIteration, GeneratorExit, asyncio.CancelledError, SystemExit, KeyboardInterrupt],
)
def test_what_would_end_something_else_here_becomes_a_task_error(
    client: Client, kind: type[BaseException]
) -> None:
    def stop(x: int) -> int:
        if x == 1:
            raise kind("enough")
        return x

    each = iter(client.map(stop, range(4)))

    assert next(each) == 0
    with pytest.raises(TaskError, match=f"task 1 raised {kind.__name__}: enough") as caught:
        next(each)
    assert type(caught.value.__cause__) is kind
    assert list(each) == [2, 3]  # the loop does not end early


def test_an_own_base_exception_becomes_a_task_error(client: Client) -> None:
    namespace = cell("class Halt(BaseException): pass\ndef stop(x):\n    raise Halt(x)\n")

    with pytest.raises(TaskError, match="task 0 raised Halt: 5") as caught:
        list(client.map(namespace["stop"], [5]))

    assert type(caught.value.__cause__) is namespace["Halt"]


@pytest.mark.meets("G-16")
def test_an_exception_whose_init_takes_more_than_its_text_keeps_its_class(client: Client) -> None:
    source = (
        "class TwoParts(Exception):\n"
        "    def __init__(self, one, two):\n"
        "        super().__init__(f'{one} and {two}')\n"
        "        self.two = two\n"
        "def fail(x):\n"
        "    raise TwoParts(1, x)\n"
    )
    names = cell(source)

    with pytest.raises(names["TwoParts"], match="1 and 2") as caught:
        list(client.map(names["fail"], [2]))

    assert caught.value.two == 2


def test_an_exception_that_cannot_be_rebuilt_becomes_a_task_error(client: Client) -> None:
    source = (
        "import threading\n"
        "class Unmade(Exception):\n"
        "    def __reduce__(self):\n"
        "        return (open, ('/nowhere/at/all',))\n"
        "def fail(x):\n"
        "    if x:\n"
        "        raise Unmade('1 and 2')\n"
        "    raise ValueError(threading.Lock())\n"
    )
    results = client.map(cell(source)["fail"], [0, 1], on_error="return")

    unsent, unmade = list(results)

    assert type(unsent) is type(unmade) is TaskError
    assert str(unsent).startswith("task 0 raised ValueError: <unlocked _thread.lock")
    assert str(unmade) == "task 1 raised Unmade: 1 and 2"
    assert "raise Unmade('1 and 2')" in unmade.__notes__[0]


@pytest.mark.meets("G-17", "G-28")
def test_a_result_that_cannot_be_pickled_fails_alone(client: Client) -> None:
    results = client.map(
        lambda x: threading.Lock() if x == 1 else x, range(4), on_error="return", chunk_size=4
    )

    values = list(results)

    assert [values[0], *values[2:]] == [0, 2, 3]
    assert isinstance(values[1], TaskError)
    assert "the result of task 1 cannot be sent back" in str(values[1])


def test_a_map_inside_a_task_is_refused(client: Client) -> None:
    def nested(x: int) -> list[int]:
        import golem_magic

        return list(golem_magic.golem_map(abs, [x]))

    before = len(client.jobs())

    with pytest.raises(InfiniteRecursionError, match="tried to start a job of its own"):
        list(client.map(nested, [1]))

    assert len(client.jobs()) == before + 1


# --- what is called, and with what ---


@pytest.mark.meets("G-01", "G-05")
def test_common_data_come_second_even_if_they_are_none(client: Client) -> None:
    assert list(client.map(lambda x, offset: x + offset, range(3), common=10)) == [10, 11, 12]
    assert list(client.map(lambda x, common: common is None, range(2), common=None)) == [True, True]
    assert list(client.map(lambda pair: sum(pair), [(1, 2), (3, 4)])) == [3, 7]


def test_star_unpacks_the_inputs(client: Client) -> None:
    assert list(client.map(lambda x, y: x * y, [(2, 3), (4, 5)], star=True)) == [6, 20]
    assert list(client.map(lambda x, y, c: x * y + c, [(2, 3), (4, 5)], star=True, common=1)) == [7, 21]


@pytest.mark.meets("G-06", "GR-16")
def test_methods_builtins_and_instances_can_be_mapped(client: Client) -> None:
    source = (
        "class Scale:\n"
        "    def __init__(self, factor): self.factor = factor\n"
        "    def apply(self, x): return self.factor * x\n"
        "    __call__ = apply\n"
    )
    scale = cell(source)["Scale"](3)

    assert list(client.map(scale.apply, [1, 2])) == [3, 6]
    assert list(client.map(scale, [1, 2])) == [3, 6]
    assert list(client.map(len, ["a", "bc"])) == [1, 2]
    assert list(client.map(int, ["1", "2"])) == [1, 2]


@pytest.mark.meets("G-01")
@pytest.mark.parametrize(
    ("function", "inputs", "options"),
    [
        (lambda x, y: x, [1], {}),
        (lambda: 1, [1], {}),
        (lambda x: x, [1], {"common": 1}),
        (lambda x, y: x, [(1, 2, 3)], {"star": True}),
        (lambda x, *, key: x, [1], {}),
    ],
)
def test_a_function_that_cannot_be_called_so_is_refused_before_anything_is_submitted(
    client: Client, function: Any, inputs: list[Any], options: dict[str, Any]
) -> None:
    before = len(client.jobs())

    with pytest.raises(SettingsError, match=r"<lambda>.*argument"):
        client.map(function, inputs, **options)

    assert len(client.jobs()) == before


@pytest.mark.meets("G-07")
def test_numpy_arrays_travel_as_input_common_and_result(client: Client) -> None:
    table = np.arange(200_000, dtype=np.float64).reshape(1000, 200)  # 1.6 MB: beside the pickle
    rows = [np.arange(200.0) * k for k in range(5)]
    whole = np.random.default_rng(0).random((300, 300))

    products = list(client.map(lambda row, table: table @ row, rows, common=table))
    (back,) = client.map(lambda a: a.T, [whole])

    for row, product in zip(rows, products, strict=True):
        np.testing.assert_array_equal(product, table @ row)
    np.testing.assert_array_equal(back, whole.T)
    back[0, 0] = 1.0  # its own memory, writable
    products[0][0] = 1.0


@pytest.mark.meets("G-05")
def test_common_data_are_stored_once_however_many_tasks_and_maps(client: Client) -> None:
    common = np.random.default_rng(2).random(250_000)  # 2 MB that nothing else holds
    share = Path(str(client.settings.share))

    def n_bytes() -> int:
        return sum(path.stat().st_size for path in share.rglob("*") if path.is_file())

    before = n_bytes()
    for _ in range(2):
        assert len(list(client.map(lambda i, c: c[i], range(300), common=common, chunk_size=3))) == 300

    assert common.nbytes < n_bytes() - before < 1.5 * common.nbytes


# --- options ---


@pytest.mark.parametrize(
    "option",
    [
        {"resources": {"cores": 2}},
        {"seed": 1},
        {"cache": True},
    ],
)
def test_an_option_of_later_is_refused_not_ignored(client: Client, option: dict[str, Any]) -> None:
    (name,) = option
    drawn: list[int] = []

    with pytest.raises(SettingsError, match=f"{name}.*not available yet"):
        client.map(abs, (drawn.append(x) for x in range(3)), **option)

    assert drawn == []


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ({"chunk_sise": 3}, "unknown option 'chunk_sise': did you mean 'chunk_size'"),
        ({"chunk_size": 0}, "chunk_size is 0"),
        ({"chunk_size": "big"}, "chunk_size is 'big'"),
        ({"chunk_size": 2.5}, "chunk_size"),
        ({"chunk_size": True}, "chunk_size"),
        ({"on_error": "explode"}, "on_error is 'explode'"),
        ({"on_error": None}, "on_error"),
        ({"workers": 0}, "workers is 0"),
        ({"workers": "2"}, "workers is '2'"),
        ({"label": 5}, "label is 5"),
        ({"engine": "golem"}, "server_url"),
        ({"engine": "nowhere", "share": 1}, "unknown option 'share'"),
    ],
)
def test_a_wrong_option_is_named_before_anything_is_submitted(
    client: Client, option: dict[str, Any], word: str
) -> None:
    before = len(client.jobs())
    drawn: list[int] = []

    with pytest.raises(SettingsError, match=word):
        client.map(abs, (drawn.append(x) for x in range(3)), **option)

    assert len(client.jobs()) == before
    assert drawn == []


def test_an_unknown_engine_is_named_before_anything_is_submitted(client: Client) -> None:
    before = len(client.jobs())

    with pytest.raises(SettingsError, match=r"no engine 'locale'.*did you mean local"):
        client.map(abs, [1], engine="locale")
    with pytest.raises(SettingsError, match="cannot be called"):
        client.map("abs", [1])  # type: ignore[arg-type]

    assert len(client.jobs()) == before


def test_options_at_their_default_are_accepted(client: Client) -> None:
    defaults: dict[str, Any] = {"retries": 0, "timeout": None, "setup": None, "seed": None, "keep": "all"}

    assert list(client.map(abs, [-1], label="a label", engine=None, workers=None, **defaults)) == [1]


@pytest.mark.meets("G-08", "GM-17")
def test_empty_inputs_give_an_empty_iterator_at_once(client: Client) -> None:
    began = time.monotonic()
    results = client.map(abs, iter(()))

    assert list(results) == list(results.as_completed()) == results[:] == []
    assert time.monotonic() - began < 1
    assert len(results) == 0
    assert results.wait() is True
    assert results.progress.state is JobState.DONE
    with pytest.raises(IndexError):
        results[0]


# --- jobs found again ---


def test_a_job_is_found_again_by_the_beginning_of_its_id(client: Client) -> None:
    results = client.map(lambda x: x + 1, range(5), on_error="return")
    values = list(results)

    again = client.attach(results.job_id[:12])

    assert isinstance(again, Results)
    assert again.job_id == results.job_id
    assert list(again) == values
    assert again.wait(5)
    assert again.progress.state is JobState.DONE


def test_jobs_are_listed_newest_first(client: Client, gate: Path) -> None:
    done = client.map(abs, [1], label="first")
    done.wait()
    running = client.map(held(gate, 0), range(3), label="second", chunk_size=1)
    assert running[1] == 1

    newest, older = client.jobs()[:2]

    assert (newest.job_id, newest.label, newest.state, newest.n_tasks) == (
        running.job_id,
        "second",
        JobState.RUNNING,
        3,
    )
    assert (older.job_id, older.function, older.state, older.n_done) == (done.job_id, "abs", JobState.DONE, 1)


def test_a_job_is_cancelled_by_the_beginning_of_its_id(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 0), range(3), chunk_size=1)
    assert results[1] == 1

    assert client.cancel(results.job_id[:10]) == results.job_id

    assert results.wait(5) is True
    assert results.progress.state is JobState.CANCELLED
    assert client.jobs()[0].state is JobState.CANCELLED


def test_cancelling_ends_the_job_and_keeps_what_is_published(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 0), range(3), chunk_size=1)
    assert (results[1], results[2]) == (1, 4)

    results.cancel()
    results.cancel()

    assert results.wait(5) is True
    assert results.progress.state is JobState.CANCELLED
    assert (results[1], results[1:]) == (1, [1, 4])
    each = iter(results)
    with pytest.raises(JobCancelled, match="was cancelled before task 0 had an outcome"):
        next(each)
    assert list(each) == [1, 4]
    with pytest.raises(JobCancelled, match="task 0"):
        results[0]
    pairs = results.as_completed()
    assert sorted([next(pairs), next(pairs)]) == [(1, 1), (2, 4)]
    with pytest.raises(JobCancelled):
        next(pairs)
    assert results.errors() == {}


def test_every_result_that_is_missing_after_a_cancel_says_so(client: Client, gate: Path) -> None:
    results = client.map(held(gate, 2), range(5), chunk_size=1, workers=1)
    assert next(results) == 0
    assert next(results) == 1

    results.cancel()

    for index in (2, 3, 4):
        with pytest.raises(JobCancelled, match=f"task {index}"):
            next(results)
    with pytest.raises(StopIteration):
        next(results)


# --- the surroundings stay as they are ---

WATCHED = """
import os, sys
changes = []
sys.addaudithook(lambda event, _: changes.append(event) if event in ("os.chdir", "os.fchdir") else None)
from golem_magic import Client
here, environment = os.getcwd(), dict(os.environ)
with Client(share=sys.argv[1], state_dir=sys.argv[2], workers=1) as client:
    assert list(client.map(lambda x: x + 1, range(3))) == [1, 2, 3]
    try:
        list(client.map(lambda x: 1 / x, [0]))
    except ZeroDivisionError:
        pass
    try:
        client.map(lambda x: x, [sys.stdout])
    except Exception as error:
        assert "cannot be pickled" in str(error), error
assert os.getcwd() == here
assert dict(os.environ) == environment
print(changes)
"""


@pytest.mark.meets("G-11")
def test_the_working_directory_is_never_changed(tmp_path: Path, state_dir: Path) -> None:
    assert said(script(WATCHED, tmp_path / "share", state_dir)) == "[]\n"


@pytest.mark.parametrize("stream", [False, True])
def test_another_kernel_sees_what_ended_the_inputs(client: Client, stream: bool) -> None:
    def source() -> Iterator[int]:
        yield from range(20)
        raise LookupError("the list ends here")

    results = client.map(abs, source(), stream=stream)
    for reader in (results, client.attach(results.job_id)):
        iterator = iter(reader)
        assert list(itertools.islice(iterator, 20)) == list(range(20))
        with pytest.raises(LookupError, match="the list ends here"):
            next(iterator)
        assert list(iterator) == []


def test_another_kernel_sees_the_words_of_what_it_cannot_rebuild(client: Client) -> None:
    names = cell(
        "class Strange(Exception):\n"
        "    def __reduce__(self):\n"
        "        return exec, ('raise SystemExit',)\n"
        "def source():\n"
        "    yield 1\n"
        "    raise Strange('odd')\n"
    )
    results = client.map(abs, names["source"]())
    iterator = iter(client.attach(results.job_id))
    assert next(iterator) == 1
    with pytest.raises(JobError, match=r"ended with .*Strange: odd"):
        next(iterator)
