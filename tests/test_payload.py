"""Objects survive the trip, buffers are neither copied nor shared too much, and damage is found."""

import io
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from fakes.elsewhere import bytes_of
from hypothesis import given
from hypothesis import strategies as st

from golem_magic import payload
from golem_magic.errors import FormatError
from golem_magic.payload import pickler

Array = npt.NDArray[Any]
BIG = 2 * payload.OUT_OF_BAND  # bytes


def read(data: bytes, size: int, checksum: int) -> Any:
    return payload.unpack(payload.fetch(io.BytesIO(data), size, checksum), "it")


def read_back(*objects: object) -> Any:
    frame = payload.dump(*objects)
    return read(bytes_of(frame), frame.size, frame.checksum())


# --- data ---

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(), inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


@pytest.mark.unit
@given(value=plain)
def test_plain_data_survives_both_ways(value: Any) -> None:
    frame = payload.dump(value)
    data = bytes_of(frame)

    assert len(data) == frame.size
    assert read(data, frame.size, frame.checksum()) == value
    assert payload.load(memoryview(data)) == [value]


@pytest.mark.unit
@given(values=st.lists(plain, min_size=1, max_size=4))
def test_several_objects_in_one_frame_come_back_in_order(values: list[Any]) -> None:
    data = bytes_of(payload.dump(*values))

    assert payload.load(memoryview(data), len(values)) == values


ARRAYS: dict[str, Array] = {
    "empty": np.zeros((0, 3)),
    "of no dimension": np.array(3.5),
    "small": np.arange(10),
    "big": np.arange(BIG / 8),
    "of Fortran's order": np.asfortranarray(np.arange(BIG / 8).reshape(64, -1)),
    "strided": np.arange(BIG / 4)[::2],
    "backwards": np.arange(BIG / 8)[::-1],
    "part of a table": np.arange(4 * BIG / 8).reshape(256, -1)[:, 3:50],
    "of records": np.zeros(BIG // 12, dtype=[("a", "i4"), ("b", "f8")]),
    "of objects": np.array([{"a": 1}, "x", None], dtype=object),
    "of booleans": np.ones(BIG, dtype=bool),
    "of dates": np.arange(BIG // 8).astype("datetime64[s]"),
}


@pytest.mark.unit
@pytest.mark.meets("G-07")
@pytest.mark.parametrize("array", ARRAYS.values(), ids=ARRAYS.keys())
def test_an_array_survives_and_can_be_written(array: Array) -> None:
    found = read_back([array, "between", array.copy()])

    for each in (found[0], found[2]):
        np.testing.assert_array_equal(each, array)
        assert each.dtype == array.dtype
        assert each.flags.writeable
        each[...] = each.copy()


@pytest.mark.unit
def test_a_table_survives_its_columns_beside_the_pickle_and_can_be_written() -> None:
    n_rows = BIG // 8
    table = pd.DataFrame(
        {"a": np.arange(n_rows), "b": np.ones(n_rows), "c": pd.Categorical(["x", "y"] * (n_rows // 2))},
        index=pd.date_range("2020-01-01", periods=n_rows, freq="min", tz="UTC"),
    )

    frame = payload.dump([table, table["a"]])
    found, column = read(bytes_of(frame), frame.size, frame.checksum())

    pd.testing.assert_frame_equal(found, table, check_freq=True)
    pd.testing.assert_series_equal(column, table["a"])
    assert sum(map(len, frame.pieces[2:])) >= 2 * BIG, "columns of numbers are not copied into the stream"
    found.loc[found.index[0], "b"] = 7.0
    assert found["b"].iloc[0] == 7.0


@pytest.mark.unit
@pytest.mark.parametrize(("n_bytes", "n_beside"), [(payload.OUT_OF_BAND - 1, 0), (payload.OUT_OF_BAND, 1)])
def test_only_big_buffers_lie_beside_the_pickle(n_bytes: int, n_beside: int) -> None:
    frame = payload.dump(np.ones(n_bytes, dtype=np.uint8))

    _head, stream, *beside = frame.pieces
    assert len(beside) == n_beside
    assert (len(stream) > n_bytes) == (n_beside == 0)


@pytest.mark.unit
def test_dumping_copies_no_big_array() -> None:
    array = np.zeros(BIG, dtype=np.uint8)

    frame = payload.dump([array])

    assert np.shares_memory(np.frombuffer(frame.pieces[2], dtype=np.uint8), array)


@pytest.mark.unit
def test_an_array_that_occurs_twice_is_sent_once_and_is_one_array_again() -> None:
    array = np.zeros(BIG, dtype=np.uint8)

    frame = payload.dump([array, {"again": array}])
    first, again = read(bytes_of(frame), frame.size, frame.checksum())

    assert frame.size < 1.5 * BIG
    assert again["again"] is first


def owner_of(array: Array) -> Any:
    base: Any = array
    while getattr(base, "base", None) is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


@pytest.mark.unit
@pytest.mark.meets("G-07")
def test_each_array_that_is_read_has_memory_of_its_own() -> None:
    """Keeping one result must not keep its neighbours."""
    first, second = read_back([np.zeros(BIG, dtype=np.uint8), np.ones(2 * BIG, dtype=np.uint8)])

    assert not np.shares_memory(first, second)
    assert (len(owner_of(first)), len(owner_of(second))) == (BIG, 2 * BIG)


@pytest.mark.unit
@pytest.mark.meets("G-07")
def test_a_mapped_frame_is_loaded_without_copying_and_its_file_never_changes(tmp_path: Path) -> None:
    file = tmp_path / "frame"
    file.write_bytes(bytes_of(payload.dump({"table": np.arange(BIG / 8), "n": 3})))
    before = file.read_bytes()
    with file.open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)

    (found,) = payload.load(memoryview(mapped))

    table = found["table"]
    assert np.shares_memory(table, np.frombuffer(mapped, dtype=np.uint8))
    assert table.ctypes.data % payload.ALIGNMENT == 0
    table[:] = -1.0
    assert table.sum() == -table.size
    assert file.read_bytes() == before


# --- damage ---


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> payload.Frame:
    """A frame with two buffers that is short enough to spoil each of its bytes."""
    monkeypatch.setattr(pickler, "OUT_OF_BAND", 32)
    return payload.dump({"a": np.arange(40, dtype=np.uint8), "b": np.arange(10.0)}, [1, 2])


@pytest.mark.unit
def test_every_truncation_is_found_when_a_frame_is_read(small_pieces: payload.Frame) -> None:
    data = bytes_of(small_pieces)

    for end in range(len(data)):
        with pytest.raises(FormatError):
            read(data[:end], small_pieces.size, small_pieces.checksum())


@pytest.mark.unit
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_every_altered_byte_is_found_when_a_frame_is_read(small_pieces: payload.Frame, flip: int) -> None:
    data = bytes_of(small_pieces)

    for at in range(len(data)):
        altered = bytearray(data)
        altered[at] ^= flip
        with pytest.raises(FormatError):
            read(bytes(altered), small_pieces.size, small_pieces.checksum())


@pytest.mark.unit
def test_a_frame_of_another_size_is_found(small_pieces: payload.Frame) -> None:
    data = bytes_of(small_pieces)

    with pytest.raises(FormatError):
        read(data, small_pieces.size + 1, small_pieces.checksum())


@pytest.mark.unit
def test_a_mapped_frame_that_was_cut_is_no_frame(small_pieces: payload.Frame) -> None:
    data = bytes_of(small_pieces)

    for end in range(len(data)):
        for look in (payload.digest, payload.load):
            with pytest.raises(FormatError):
                look(memoryview(data)[:end])


@pytest.mark.unit
def test_a_digest_sees_every_byte_that_loading_uses(small_pieces: payload.Frame) -> None:
    data = bytes_of(small_pieces)
    digest = small_pieces.digest()
    assert payload.digest(memoryview(data)) == digest

    unseen = []
    for at in range(len(data)):
        altered = bytearray(data)
        altered[at] ^= 0x40
        try:
            if payload.digest(memoryview(altered)) == digest:
                unseen.append(at)
        except FormatError:
            continue

    assert all(data[at] == 0 for at in unseen)
    assert len(unseen) < 2 * payload.ALIGNMENT + 32, "only the padding between pieces may be free"
    for at in unseen:
        altered = bytearray(data)
        altered[at] ^= 0x40
        one, two = payload.load(memoryview(altered), 2)
        assert (one["a"].sum(), one["b"].sum(), two) == (780, 45.0, [1, 2])


@pytest.mark.unit
@given(first=plain, second=plain)
def test_digests_tell_values_apart(first: Any, second: Any) -> None:
    a, b = payload.dump(first), payload.dump(second)

    assert (a.digest() == b.digest()) == (bytes_of(a) == bytes_of(b))
    if first != second:
        assert a.digest() != b.digest()


@pytest.mark.unit
def test_digests_tell_big_arrays_apart_by_content_order_and_type() -> None:
    one, two = np.zeros(BIG, dtype=np.uint8), np.zeros(BIG, dtype=np.uint8)
    two[-1] = 1
    variants = [[one, two], [two, one], [one], [two], [one.view(np.int8), two], [one.reshape(2, -1), two]]

    assert len({payload.dump(variant).digest() for variant in variants}) == len(variants)
