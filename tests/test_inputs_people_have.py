"""What scientists map over: arrays, frames, groups, products; by place, spread, or by name."""

import importlib
import itertools
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from engines.engine_contract import wait_until
from fakes.world import embedded_client

from golem_magic import Client, PayloadError, SettingsError
from golem_magic.errors import JobCancelled, JobError
from golem_magic.inputs import Ahead, Drawer, known_count
from golem_magic.model import JobId
from golem_magic.options import check_arguments, checked
from golem_magic.payload import Packer, load
from golem_magic.share.inputs_log import InputReader, InputWriter
from golem_magic.share.layout import SharePaths


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("people")) as client:
        yield client


def frames(inputs: Iterable[Any], **how: bool) -> list[bytes]:
    """The blocks of a map over ``inputs``, as they lie on the share."""
    drawer, packer, blocks, n = Drawer(inputs, **how), Packer(), [], 0
    while block := drawer.next_block():
        frame = packer.inputs(block, n)
        drawer.learn(frame.size, len(block))
        n += len(block)
        blocks.append(b"".join(frame.parts))
    return blocks


def arrived(inputs: Iterable[Any], **how: bool) -> list[Any]:
    """What the tasks are given over there."""
    return [each for block in frames(inputs, **how) for each in load(memoryview(bytearray(block)))[0]]


def people() -> pd.DataFrame:
    table = {
        "name": ["Ann", "Bob", "Cid"],
        "born": [1970, 1980, 1990],
        "tall in m": [1.5, float("inf"), 1.75],
    }
    return pd.DataFrame(table, index=["a", "b", "c"])


def polar(frame: pd.DataFrame) -> pl.DataFrame:
    """The same in the other library."""
    return pl.DataFrame(frame.to_dict("list"))


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same class."""
    if isinstance(left, np.ndarray):
        return type(left) is type(right) and left.dtype == right.dtype and bool(np.array_equal(left, right))
    return type(left) is type(right) and bool(left == right)


# --- arrays ---


ARRAYS: dict[str, Callable[[], Any]] = {
    "rows": lambda: np.arange(3000.0).reshape(1000, 3),
    "rows of another order": lambda: np.asfortranarray(np.arange(60).reshape(20, 3)),
    "every other column": lambda: np.arange(80).reshape(20, 4)[:, ::2],
    "turned round": lambda: np.arange(80).reshape(20, 4)[::-1],
    "images": lambda: np.arange(5 * 4 * 3, dtype="uint8").reshape(5, 4, 3),
    "large rows": lambda: np.arange(400_000.0).reshape(4, 100_000),
    "numbers": lambda: np.arange(100.0),
    "whole numbers": lambda: np.arange(100, dtype="int16"),
    "days": lambda: np.arange("2026-01-01", "2026-03-01", dtype="M8[D]"),
    "words": lambda: np.array(["one", "two", "three"]),
    "records": lambda: np.array([(1, 2.0), (3, 4.0)], dtype=[("a", int), ("b", float)]),
    "objects": lambda: np.array([None, "x", 3, {"y": 1}], dtype=object),
    "rows of objects": lambda: np.array([[None, 1], ["x", 2]], dtype=object),
    "none": lambda: np.empty((0, 3)),
    "no columns": lambda: np.empty((3, 0)),
    "read only": lambda: np.broadcast_to(np.arange(3), (5, 3)),
}


@pytest.mark.unit
@pytest.mark.meets("G-07")
@pytest.mark.parametrize("what", ARRAYS)
def test_of_an_array_the_rows_arrive(what: str) -> None:
    array = ARRAYS[what]()

    found = arrived(array)

    assert len(found) == len(array)
    assert all(map(same, found, array))


@pytest.mark.unit
def test_masked_rows_stay_masked_and_mapped_files_can_be_read(tmp_path: Path) -> None:
    masked = np.ma.masked_less(np.arange(20.0).reshape(10, 2), 3)
    mapped = np.memmap(tmp_path / "numbers", dtype="f8", mode="w+", shape=(10, 2))
    mapped[:] = np.arange(20).reshape(10, 2)

    assert [row.tolist() for row in arrived(masked)] == masked.tolist()
    assert [row.tolist() for row in arrived(mapped)] == mapped.tolist()


@pytest.mark.unit
@pytest.mark.meets("G-07")
def test_rows_of_an_array_take_their_own_space_only() -> None:
    array = np.arange(300_000.0).reshape(100_000, 3)

    assert sum(map(len, frames(array))) < 1.01 * array.nbytes
    assert sum(map(len, frames(array[::10_000]))) < 1000
    assert sum(map(len, frames(array[:, 0]))) < 1.01 * array[:, 0].nbytes


@pytest.mark.unit
@pytest.mark.meets("G-07")
def test_rows_that_are_drawn_ahead_travel_as_one_array_too() -> None:
    array = np.arange(60_000.0).reshape(20_000, 3)
    drawer = Drawer(array)
    first = drawer.next_block()
    drawer.learn(100, 1)
    ahead, found, n_bytes = Ahead(drawer, "ahead"), list(first), 0
    while not ahead.is_over:
        block = ahead.take(5000)
        frame = Packer().inputs(block, 0)
        n_bytes += frame.size if block else 0
        found += load(memoryview(bytearray(b"".join(frame.parts))))[0]
        ahead.wait(0.01)

    assert np.array_equal(np.stack(found), array)
    assert n_bytes < 1.1 * array.nbytes + 500 * 40  # a few hundred bytes for each block


@pytest.mark.unit
def test_what_a_task_does_to_its_row_is_its_own_business() -> None:
    rows = arrived(np.zeros((9, 3)))

    rows[3] += 1

    assert sum(row.sum() for row in rows) == 3


@pytest.mark.unit
def test_a_number_that_is_an_array_is_no_inputs() -> None:
    with pytest.raises(PayloadError, match="inputs of type ndarray cannot be iterated over"):
        Drawer(np.array(5))


# --- frames ---


@pytest.mark.unit
@pytest.mark.parametrize("n", [1, 3, 5000])
def test_rows_of_a_pandas_frame_are_those_of_itertuples(n: int) -> None:
    frame = pd.concat([people()] * (n // 3 + 1))[:n]

    found = arrived(frame)

    assert found == list(frame.itertuples())
    assert found[0]._fields == ("Index", "name", "born", "_3")
    assert (found[0].Index, found[0].name, found[0].born) == ("a", "Ann", 1970)
    assert [type(each) for each in found[0]] == [str, str, int, float]
    assert len({type(row) for row in found}) == 1


@pytest.mark.unit
def test_a_row_that_is_spread_has_no_index() -> None:
    rows = [("Ann", 1970, 1.5), ("Bob", 1980, float("inf")), ("Cid", 1990, 1.75)]

    assert arrived(people(), star=True) == rows
    assert arrived(polar(people()), star=True) == rows


@pytest.mark.unit
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_row_by_name_is_a_mapping_of_all_columns(library: str) -> None:
    frame: Any = people() if library == "pandas" else polar(people())

    found = arrived(frame, kwargs=True)

    assert found[0] == {"name": "Ann", "born": 1970, "tall in m": 1.5}
    assert found == people().to_dict("records")


@pytest.mark.unit
def test_rows_of_a_polars_frame_are_namedtuples() -> None:
    found = arrived(polar(people()))

    assert found[2]._fields == ("name", "born", "_2")
    assert found[2] == ("Cid", 1990, 1.75)
    assert found[2].born == 1990


@pytest.mark.unit
def test_values_of_a_series_and_pairs_of_a_groupby_are_as_a_loop_gives_them() -> None:
    frame = pd.concat([people()] * 4, ignore_index=True)

    assert arrived(frame["born"]) == [1970, 1980, 1990] * 4
    assert arrived(pl.Series([1, None])) == [1, None]
    groups = arrived(frame.groupby("name"))
    assert [name for name, _ in groups] == ["Ann", "Bob", "Cid"]
    pd.testing.assert_frame_equal(groups[1][1], frame[frame["name"] == "Bob"])
    (key, part), *_ = arrived(polar(frame).group_by("name", maintain_order=True))
    assert (key, part["born"].to_list()) == (("Ann",), [1970] * 4)


@pytest.mark.unit
def test_a_lazy_frame_is_refused_with_the_way_out() -> None:
    with pytest.raises(PayloadError, match=r"LazyFrame, .*: give frame\.collect\(\)"):
        Drawer(polar(people()).lazy())  # type: ignore[arg-type]


@pytest.mark.unit
def test_two_columns_of_one_name_cannot_be_spread_by_name() -> None:
    frame = pd.DataFrame([[1, 2]], columns=["x", "x"])

    assert arrived(frame) == [(0, 1, 2)]
    with pytest.raises(PayloadError, match="two are called 'x': rename one"):
        Drawer(frame, kwargs=True)


@pytest.mark.unit
def test_a_frame_travels_as_columns_and_its_class_once_a_block() -> None:
    frame = pd.DataFrame({"a": range(20_000), "b": np.arange(20_000) / 7})

    blocks = frames(frame)

    assert sum(map(len, blocks)) < 20 * len(frame)  # 9 bytes the float, at most 5 each number
    assert len({block.count(b"_make") for block in blocks}) == 1 < len(blocks)


@pytest.mark.unit
@pytest.mark.parametrize("how", [{}, {"star": True}, {"kwargs": True}])
def test_what_cannot_be_sent_in_a_frame_is_named_by_its_row(how: dict[str, bool]) -> None:
    cells: list[Any] = [threading.Lock() if row == 700 else row for row in range(900)]
    frame = pd.DataFrame({"a": range(900), "b": cells})

    with pytest.raises(PayloadError, match=r"cannot send input 700 \(\w+\): .* is a lock"):
        frames(frame, **how)


def test_rows_need_no_library_of_frames_where_they_arrive(tmp_path: Path) -> None:
    """Nor does looking for frames load one here."""
    for name, frame in (("pandas", people()), ("polars", polar(people()))):
        (tmp_path / name).write_bytes(frames(frame)[0])
    code = """
import json, sys
from golem_magic.inputs import Drawer
from golem_magic.payload import load
list(Drawer([1]).source)
rows = [load(memoryview(open(file, "rb").read()))[0] for file in sys.argv[1:]]
loaded = [name for name in ("numpy", "pandas", "polars") if name in sys.modules]
print(json.dumps([[row.name for (row, *_) in rows], loaded]))
"""
    files = [tmp_path / "pandas", tmp_path / "polars"]
    run = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True)

    assert json.loads(run.stdout) == [["Ann", "Ann"], []]


# --- what Python itself has ---


@pytest.mark.unit
def test_a_dict_gives_its_keys_and_items_are_asked_for() -> None:
    ages = {"Ann": 56, "Bob": 46}

    assert arrived(ages) == ["Ann", "Bob"]
    assert arrived(ages.items()) == [("Ann", 56), ("Bob", 46)]


@pytest.mark.unit
def test_files_of_a_folder_arrive_as_paths(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.csv"):
        (tmp_path / name).touch()

    assert sorted(arrived(tmp_path.glob("*.txt"))) == [tmp_path / "a.txt", tmp_path / "b.txt"]


def begun(inputs: Iterator[Any]) -> Iterator[Any]:
    next(inputs)
    return inputs


class Uncountable:
    def __len__(self) -> int:
        raise OSError("the server is down")

    def __iter__(self) -> Iterator[int]:
        return iter([1, 2])


COUNTED: list[tuple[Any, int | None]] = [
    ([1, 2], 2),
    (range(10**9), 10**9),
    ({"x": 1}.items(), 1),
    (iter([1, 2, 3]), 3),
    (np.zeros((7, 2)), 7),
    (people(), 3),
    (polar(people()), 3),
    (people().groupby("name"), 3),
    (itertools.product(range(1000), "abc", repeat=2), 9_000_000),
    (itertools.product([], "abc"), 0),
    (itertools.product(), 1),
    (itertools.permutations(range(10)), 3_628_800),
    (itertools.permutations("ab", 3), 0),
    (itertools.combinations(range(100), 3), 161_700),
    (itertools.combinations_with_replacement(range(10), 2), 55),
    (itertools.combinations_with_replacement([], 0), 1),
    (itertools.combinations_with_replacement([], 2), 0),
    (begun(itertools.product("ab", "cd")), None),
    (begun(itertools.combinations("abcd", 2)), None),
    (itertools.count(), None),
    ((x for x in "abc"), None),
    (Uncountable(), None),
]


@pytest.mark.unit
@pytest.mark.parametrize(("inputs", "count"), COUNTED, ids=[type(inputs).__name__ for inputs, _ in COUNTED])
def test_inputs_are_counted_where_that_takes_no_drawing(inputs: Any, count: int | None) -> None:
    if sys.version_info >= (3, 14) and type(inputs).__module__ == "itertools":
        count = None  # they cannot be looked into any more

    assert known_count(inputs) == count
    assert Drawer(inputs).count == count


@pytest.mark.unit
def test_counting_draws_nothing() -> None:
    for inputs in (itertools.product("ab", repeat=2), itertools.combinations("abc", 2), iter("abc")):
        n = known_count(inputs)
        assert len(list(inputs)) == n or n is None
    assert known_count(itertools.product("ab")) == 2 or sys.version_info >= (3, 14)


# --- by name ---


def score(alpha: float, beta: float = 0.0) -> float:
    return alpha - beta


def weighed(table: Any, /, alpha: float, beta: float) -> Any:
    return table, alpha, beta


BY_NAME: list[tuple[Callable[..., Any], dict[str, Any], list[Any], str]] = [
    (score, {}, [{"alpha": 1}], ""),
    (score, {}, [{"alpha": 1, "beta": 2}], ""),
    (score, {}, [], ""),
    (dict, {}, [{"anything": 1}], ""),
    (lambda **names: 0, {"common": 3}, [{}], "too many positional arguments"),
    (lambda *_, **names: 0, {"common": 3, "setup": dict}, [{"x": 1}], ""),
    (weighed, {"common": 3}, [{"alpha": 1, "beta": 2}], ""),
    (
        score,
        {},
        [{"beta": 1}],
        "score cannot be called with the keys of input 0, beta (missing a required argument: 'alpha')",
    ),
    (score, {}, [{"alpha": 1, "gamma": 1}], "(got an unexpected keyword argument 'gamma')"),
    (score, {}, [{}], "score cannot be called with no keys (missing a required argument: 'alpha')"),
    (
        score,
        {"common": 3},
        [{"alpha": 1}],
        "score cannot be called with the keys of input 0, alpha, the common data first "
        "(multiple values for argument 'alpha'): change its parameters, the keys or common",
    ),
    (
        weighed,
        {"setup": dict},
        [{"alpha": 1}],
        "alpha, the set-up value first (missing a required argument: 'beta')",
    ),
    (
        score,
        {},
        [{f"key{n}": n for n in range(100)}],
        "key0, key1, key2, key3, key4, key5, key6, key7, ... (",
    ),
    (score, {}, [(1, 2)], "kwargs calls f(**x), and input 0 is of type tuple: give mappings"),
    (score, {}, ["alpha"], "input 0 is of type str"),
    (score, {}, [{1: 2}], "input 0 has the key 1: let keys be names of parameters"),
]


@pytest.mark.unit
@pytest.mark.parametrize(("function", "said", "first", "message"), BY_NAME)
def test_a_function_that_does_not_know_the_names_is_refused(
    function: Callable[..., Any], said: dict[str, Any], first: list[Any], message: str
) -> None:
    options = checked({"kwargs": True, **said})
    name = getattr(function, "__name__", "")
    if not message:
        check_arguments(function, name, options, first)
        return
    with pytest.raises(SettingsError) as caught:
        check_arguments(function, name, options, first)

    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_an_input_is_spread_in_one_way_only() -> None:
    with pytest.raises(SettingsError, match=r"star calls f\(\*x\) and kwargs calls f\(\*\*x\): give one"):
        checked({"star": True, "kwargs": True})


# --- jobs ---


def test_inputs_are_spread_by_name(client: Client) -> None:
    grid = [{"alpha": a, "beta": b} for a in range(40) for b in range(3)]

    assert list(client.map(score, grid, kwargs=True)) == [each["alpha"] - each["beta"] for each in grid]
    assert list(client.map(dict, grid, kwargs=True)) == grid


def test_common_data_and_the_set_up_value_come_before_the_names(client: Client) -> None:
    def told(table: str, connection: str, *, alpha: int) -> tuple[str, str, int]:
        return table, connection, alpha

    rows = [{"alpha": 1}, {"alpha": 2}]
    results = client.map(told, rows, common="table", setup=lambda: "connection", kwargs=True)

    assert list(results) == [("table", "connection", 1), ("table", "connection", 2)]
    assert list(client.map(weighed, [{"alpha": 1, "beta": 2}], common="table", kwargs=True)) == [
        ("table", 1, 2)
    ]


def test_a_later_input_without_names_is_its_own_tasks_error(client: Client) -> None:
    first, second, third = client.map(score, [{"alpha": 1}, 7, {"alpha": 3}], kwargs=True, on_error="return")

    assert (first, third) == (1, 3)
    assert isinstance(second, TypeError)


def test_a_map_with_wrong_names_submits_nothing(client: Client) -> None:
    before = len(client.jobs())

    with pytest.raises(SettingsError, match="missing a required argument: 'alpha'"):
        client.map(score, people(), kwargs=True)
    assert len(client.jobs()) == before


def test_failed_tasks_are_spread_by_name_again(client: Client, tmp_path: Path) -> None:
    flag = tmp_path / "mended"

    def picky(alpha: int) -> int:
        if alpha == 2 and not flag.exists():
            raise OSError("not yet")
        return alpha

    results = client.map(picky, [{"alpha": a} for a in range(4)], kwargs=True)
    assert results.wait(60)
    assert list(results.errors()) == [2]
    flag.touch()

    assert list(results.retry_errors()) == [0, 1, 2, 3]


@pytest.mark.meets("G-07")
def test_rows_of_arrays_and_frames_reach_the_function(client: Client) -> None:
    array = np.arange(1200.0).reshape(300, 4)
    frame = pd.DataFrame(array, columns=list("abcd"))
    sums = array.sum(axis=1).tolist()

    maps = [
        client.map(lambda row: float(row.sum()), array),
        client.map(lambda row: row.a + row.b + row.c + row.d, frame),
        client.map(lambda row: row.a + row.b + row.c + row.d, polar(frame)),
        client.map(lambda a, b, c, d: a + b + c + d, frame, star=True),
        client.map(lambda a, b, c, d: float(a + b + c + d), array, star=True),
        client.map(lambda **names: sum(names.values()), frame, kwargs=True),
    ]

    for results in maps:
        assert list(results) == sums
    groups = frame.groupby(frame["a"] % 3)
    assert list(client.map(lambda key, part: (key, len(part)), groups, star=True)) == [
        (key, len(part)) for key, part in groups
    ]


@pytest.mark.meets("G-07")
def test_rows_that_are_streamed_arrive_in_order(client: Client) -> None:
    array = np.arange(40_000.0).reshape(20_000, 2)

    rows = client.map(tuple, array, stream=True)
    named = client.map(tuple, pd.DataFrame(array), stream=True)

    assert list(rows) == [tuple(row) for row in array]
    assert list(named) == [(at, *row) for at, row in enumerate(array)]


def test_rows_can_be_results(client: Client) -> None:
    array = np.arange(30.0).reshape(10, 3)

    assert [row.tolist() for row in client.map(lambda row: row, array)] == array.tolist()
    assert list(client.map(lambda row: row, people())) == list(people().itertuples())


def test_a_stream_that_can_be_counted_tells_its_length_before_it_is_drawn(
    client: Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"

    def wait(x: int, _: int) -> int:
        import time

        while not gate.exists():
            time.sleep(0.01)
        return x

    results = client.map(wait, itertools.product(range(10**6), range(3)), star=True, stream=True)
    counted = sys.version_info < (3, 14)
    if counted:
        assert len(results) == 3 * 10**6
        assert results.progress.n_staged < 10**6
    results.cancel()
    gate.touch()
    assert results.wait(60)
    wait_until(lambda: len(results) < 3 * 10**6, "the number of those that were drawn", 60)


# --- all of it as a table ---


def picky(x: int) -> Any:
    if x % 4 == 3:
        raise ValueError(f"{x} is odd in two ways")
    return x * 1.5


def test_the_table_has_input_output_and_error_side_by_side(client: Client) -> None:
    frame = client.map(picky, range(50)).to_frame()

    assert list(frame.columns) == ["input", "output", "error", "seconds", "host"]
    assert frame.index.name == "index"
    assert frame["input"].tolist() == list(range(50))
    good = frame[frame["error"].isna()]
    assert good["output"].tolist() == [x * 1.5 for x in range(50) if x % 4 != 3]
    assert frame["output"].dtype == float
    bad = frame[frame["error"].notna()]
    assert bad.index.tolist() == list(range(3, 50, 4))
    assert bad["output"].isna().all()
    assert all(type(error) is ValueError for error in bad["error"])
    assert str(frame["error"][7]) == "7 is odd in two ways"
    assert (frame["seconds"] >= 0).all()
    assert set(frame["host"]) == {socket.gethostname()}


@pytest.mark.meets("IP-08")
def test_values_of_all_kinds_stay_what_they_are_in_the_table(client: Client) -> None:
    def several(x: int) -> Any:
        return [None, np.ones(2), {"a": 1}, (1, 2), pd.DataFrame({"a": [1]}), ValueError("returned")][x]

    frame = client.map(several, range(6)).to_frame()
    arrays = client.map(lambda row: row * 2, np.arange(6.0).reshape(3, 2)).to_frame()

    kinds = [type(None), np.ndarray, dict, tuple, pd.DataFrame, ValueError]
    assert [type(each) for each in frame["output"]] == kinds
    assert frame["error"].isna().all()
    assert [row.tolist() for row in arrays["input"]] == [[0, 1], [2, 3], [4, 5]]
    assert [row.tolist() for row in arrays["output"]] == [[0, 2], [4, 6], [8, 10]]


def test_inputs_with_names_become_columns(client: Client) -> None:
    rows = [{"alpha": a, "beta": b} for a in (1, 2) for b in (10, 20, 30)]
    by_name = client.map(score, rows, kwargs=True).to_frame()
    by_row = client.map(lambda row: row.born, people()).to_frame()

    wide = by_name.join(pd.DataFrame(list(by_name["input"])))
    assert wide.pivot(index="alpha", columns="beta", values="output").loc[2, 30] == -28
    wide = by_row.join(pd.DataFrame(list(by_row["input"])))
    assert (wide["born"] == wide["output"]).all()


def test_the_table_of_a_cancelled_job_says_what_is_missing(client: Client, tmp_path: Path) -> None:
    def stuck(x: int) -> int:
        import time

        while x > 2:
            time.sleep(0.01)
        return x

    results = client.map(stuck, range(5), chunk_size=1)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.cancel()

    for frame in (results.to_frame(), client.attach(results.job_id).to_frame()):
        assert frame["input"].tolist() == list(range(5))
        assert frame["output"].tolist()[:3] == [0, 1, 2]
        assert [type(each) for each in frame["error"][3:]] == [JobCancelled] * 2


def test_the_table_waits_and_shows_what_was_run_again(client: Client, tmp_path: Path) -> None:
    flag = tmp_path / "mended"

    def fickle(x: int) -> int:
        if x == 2 and not flag.exists():
            raise OSError("not yet")
        return x

    results = client.map(fickle, range(4))
    assert type(results.to_frame()["error"][2]) is OSError
    flag.touch()
    frame = results.retry_errors().to_frame()

    assert frame["output"].tolist() == [0, 1, 2, 3]
    assert frame["error"].isna().all()


def test_the_table_of_nothing_has_its_columns(client: Client) -> None:
    frame = client.map(score, []).to_frame()

    assert len(frame) == 0
    assert list(frame.columns) == ["input", "output", "error", "seconds", "host"]


def test_the_table_of_a_limited_stream_is_complete(client: Client) -> None:
    results = client.map(lambda x: bytes(1000), iter(range(300)), stream=True, disk_budget=20_000)

    frame = results.to_frame()

    assert frame["input"].tolist() == list(range(300))
    assert set(frame["output"]) == {bytes(1000)}


def test_what_ended_the_inputs_ends_the_table_too(client: Client) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise OSError("the tape is torn")

    results = client.map(abs, source())

    with pytest.raises(OSError, match="the tape is torn"):
        results.to_frame()


class Stubborn:
    """Cannot be loaded again."""

    def __reduce__(self) -> Any:
        return __import__, ("no_such_package_at_all",)


def test_inputs_that_cannot_be_loaded_stand_as_their_reason(client: Client) -> None:
    frame = client.map(type, [1, Stubborn()], chunk_size=1).to_frame()

    assert frame["input"][0] == 1
    assert type(frame["input"][1]) is PayloadError
    assert "no_such_package_at_all" in str(frame["input"][1])
    assert "notebook's Python" in str(frame["input"][1])
    assert frame["error"][1] is not None


def test_a_job_that_frees_what_was_read_has_no_table(client: Client) -> None:
    results = client.map(abs, range(5), keep="unread")

    with pytest.raises(JobError, match=r"frees inputs and results as they are read .*: iterate over it"):
        results.to_frame()
    assert list(results) == [0, 1, 2, 3, 4]


def test_without_pandas_the_table_says_at_once_how_to_get_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = tmp_path / "gate"

    def wait(x: int) -> None:
        import time

        until = time.monotonic() + 30
        while not gate.exists() and time.monotonic() < until:
            time.sleep(0.01)

    results = client.map(wait, range(5))
    monkeypatch.setitem(sys.modules, "pandas", None)

    with pytest.raises(JobError, match=r"makes a table of pandas, .*: install it \(%pip install pandas\)"):
        results.to_frame()
    assert not results.progress.state.is_final
    gate.touch()


def test_looking_at_inputs_leaves_the_users_modules_alone(
    share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was sent is the text of then; the notebook goes on with what is there now."""
    (tmp_path / "my_shapes.py").write_text("class Shape:\n    sides = 4\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    shapes = importlib.import_module("my_shapes")
    packer = Packer()
    packer.function(len, "len")
    frame = packer.inputs([shapes.Shape()], 0)  # not known before, so the text of its module goes along
    paths = SharePaths(str(share)).job(JobId(32 * "a"))
    for folder in (paths.root, *paths.folders):
        Path(folder).mkdir(mode=0o700, parents=True)
    writer = InputWriter(paths)
    writer.append(frame, 1)
    writer.close()
    reader = InputReader(paths, is_worker=False)
    assert reader.refresh() == 1

    assert type(reader.tasks(0, 1)[0]) is shapes.Shape
    (tmp_path / "my_shapes.py").write_text("class Shape:\n    sides = 55555\n")
    importlib.invalidate_caches()
    del sys.modules["my_shapes"]
    assert importlib.import_module("my_shapes").Shape.sides == 55555
    del sys.modules["my_shapes"]
