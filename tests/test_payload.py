"""Objects survive the trip, buffers are neither copied nor shared too much, and damage is found."""

import io
import linecache
import mmap
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golem_magic import payload
from golem_magic.errors import FormatError, PayloadError
from golem_magic.payload import pickler

Array = npt.NDArray[Any]
BIG = 2 * payload.OUT_OF_BAND  # bytes


def bytes_of(frame: payload.Frame) -> bytes:
    return b"".join(frame.parts)


def read(data: bytes, size: int, checksum: int) -> Any:
    return payload.read(io.BytesIO(data), size, checksum)


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


# --- functions ---


class Notebook:
    """Cells that share one namespace, as a kernel runs them."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._n_cells = 0

    def run(self, cell: str) -> None:
        self._n_cells += 1
        file = f"<cell {self._n_cells} of a notebook>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        exec(compile(cell, file, "exec"), self.names)

    def function(self, name: str = "f") -> payload.Frame:
        return payload.dump_function(self.names[name], name)


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


ELSEWHERE = """
import sys, traceback
from golem_magic import payload
size = int(sys.argv[1])
data = sys.stdin.buffer.read()
function = payload.load_function(memoryview(data[:size]))
try:
    arguments = payload.load(memoryview(data[size:]))[0]
    print(repr(function(*arguments)))
except Exception:
    print(traceback.format_exc())
"""


def call_elsewhere(function: payload.Frame, *arguments: Any) -> str:
    """Call in a new process, which knows nothing of these cells; give what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ELSEWHERE, str(function.size)],
        input=bytes_of(function) + bytes_of(payload.dump(arguments)),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b""
    return done.stdout.decode().strip()


CELLS: dict[str, tuple[list[str], str]] = {
    "a lambda": (["f = lambda x: x + 1"], "4"),
    "a closure": (
        ["def outer(n):\n    def f(x):\n        return x * n\n    return f\n", "f = outer(5)"],
        "15",
    ),
    "a closure that is a lambda in a loop": (
        ["fs = [lambda x, n=n: x + n for n in range(3)]", "f = fs[2]"],
        "5",
    ),
    "functions of other cells": (
        [
            "def half(x):\n    return x / 2",
            "def third(x):\n    return half(x) / 3",
            "def f(x): return third(x)",
        ],
        "0.5",
    ),
    "an imported module": (["import math as m", "def f(x): return m.floor(m.pi * x)"], "9"),
    "an import inside": (
        ["def f(x):\n    import fractions\n    return fractions.Fraction(x, 6)"],
        "Fraction(1, 2)",
    ),
    "recursion": (["def f(x): return 1 if x < 2 else x * f(x - 1)"], "6"),
    "functions that call each other": (
        ["def f(x): return x == 0 or g(x - 1)", "def g(x): return x != 0 and f(x - 1)"],
        "False",
    ),
    "a decorator": (
        [
            "import functools\n"
            "def twice(g):\n"
            "    @functools.wraps(g)\n"
            "    def wrapper(x):\n"
            "        return g(g(x))\n"
            "    return wrapper",
            "@twice\ndef f(x): return x * 10",
        ],
        "300",
    ),
    "a cache": (["import functools", "@functools.lru_cache\ndef f(x): return x and x + f(x - 1)"], "6"),
    "a typed cache of limited size, in a class": (
        [
            "import functools",
            "class C:\n    @functools.lru_cache(maxsize=7, typed=True)\n    def g(self, x): return x",
            "def f(x): return C().g(x), C.g.cache_parameters()",
        ],
        "(3, {'maxsize': 7, 'typed': True})",
    ),
    "a class with a parent": (
        [
            "class A:\n    k = 2\n    def __init__(self, x): self.x = x\n"
            "    def get(self): return self.x * self.k",
            "class B(A):\n    def get(self): return super().get() + 1",
            "def f(x): return B(x).get()",
        ],
        "7",
    ),
    "a class that is the function": (
        ["class f:\n    def __init__(self, x): self.x = x\n    def __repr__(self): return f'<{self.x}>'"],
        "<3>",
    ),
    "a dataclass": (
        [
            "from dataclasses import dataclass, replace",
            "@dataclass(frozen=True)\nclass P:\n    a: int\n    b: int = 2",
            "def f(x): return replace(P(x), b=9) == P(3, 9), hash(P(1)) == hash(P(1, 2))",
        ],
        "(True, True)",
    ),
    "an enumeration": (
        ["import enum", "class E(enum.Enum):\n    A = 1\n    B = 3", "def f(x): return E(x).name"],
        "'B'",
    ),
    "a partial": (["import functools", "def g(a, x): return a - x", "f = functools.partial(g, 10)"], "7"),
    "a callable object": (
        [
            "class C:\n    def __init__(self, n): self.n = n\n    def __call__(self, x): return x ** self.n",
            "f = C(2)",
        ],
        "9",
    ),
    "a generator inside": (
        ["def g(n):\n    yield from range(n)", "def f(x): return list(g(x))"],
        "[0, 1, 2]",
    ),
    "keyword defaults and annotations": (
        ["class T: pass", "def f(x: 'T', *, n: int = 4) -> T: return x + n"],
        "7",
    ),
    "an array as a global": (
        ["import numpy as np", "table = np.arange(20_000.0)", "def f(x): return float(table[x])"],
        "3.0",
    ),
    "an exception class": (
        [
            "class Oops(ValueError): pass",
            "def f(x):\n    try:\n        raise Oops(x)\n    except Oops as e:\n        return e",
        ],
        "Oops(3)",
    ),
    "a function of the library": (
        ["from os.path import basename", "f = lambda x: basename(f'/a/{x}')"],
        "'3'",
    ),
}


@pytest.mark.meets("GR-16")
@pytest.mark.parametrize(("cells", "answer"), CELLS.values(), ids=CELLS.keys())
def test_anything_defined_in_cells_runs_elsewhere(notebook: Notebook, cells: list[str], answer: str) -> None:
    for cell in cells:
        notebook.run(cell)

    assert call_elsewhere(notebook.function(), 3) == answer


@pytest.mark.meets("G-06")
def test_a_bound_method_takes_its_object_along(notebook: Notebook) -> None:
    notebook.run("class C:\n    def __init__(self): self.n = 5\n    def get(self, x): return self.n - x")
    notebook.run("c = C(); f = c.get")

    assert call_elsewhere(notebook.function(), 3) == "2"


def test_an_input_of_a_class_of_the_notebook_is_of_the_functions_class(notebook: Notebook) -> None:
    """They travel in different frames, and must meet as one class."""
    notebook.run("class P:\n    def __init__(self, x): self.x = x")
    notebook.run("def f(p): return isinstance(p, P), type(p) is P, p.x")

    assert call_elsewhere(notebook.function(), notebook.names["P"](4)) == "(True, True, 4)"


@pytest.mark.unit
def test_globals_are_as_they_were_at_submission(notebook: Notebook) -> None:
    notebook.run("n = 1\nthings = [1]\ndef helper(): return n")
    notebook.run("def f(x): return x, n, helper(), list(things)")
    frame = notebook.function()

    notebook.run("n = 2\nthings.append(2)\ndef helper(): return 'another'")

    assert payload.load_function(memoryview(bytes_of(frame)))(0) == (0, 1, 1, [1])
    assert notebook.names["f"](0) == (0, 2, "another", [1, 2])


@pytest.mark.unit
def test_only_what_is_used_travels(notebook: Notebook) -> None:
    notebook.run("import threading\nunused = threading.Lock()\nhuge = bytes(10_000_000)\nn = 1")
    notebook.run("def f(x): return x + n")

    assert notebook.function().size < 5000


def test_the_lines_of_all_cells_travel_for_tracebacks(notebook: Notebook) -> None:
    notebook.run("def inner(x):\n    y = x - 3\n    return 1 / y  # divides by nothing")
    notebook.run("class C:\n    def go(self, x):\n        return inner(x)  # in a method")
    notebook.run("f = lambda x: C().go(x)  # where it starts")

    shown = call_elsewhere(notebook.function(), 3)

    assert "ZeroDivisionError" in shown
    for line in ("# divides by nothing", "# in a method", "# where it starts", "<cell 1 of a notebook>"):
        assert line in shown, shown


SENDERS: dict[str, Callable[[Notebook], None]] = {
    "a lock": lambda book: book.names.update(thing=threading.Lock()),
    "a generator": lambda book: book.names.update(thing=(x for x in [1])),
    "what refuses": lambda book: book.run(
        "class R:\n    def __reduce__(self): raise RuntimeError('not me')\nthing = R()"
    ),
}


@pytest.mark.unit
@pytest.mark.parametrize("make", SENDERS.values(), ids=SENDERS.keys())
def test_what_cannot_be_sent_is_refused_by_name(notebook: Notebook, make: Callable[[Notebook], None]) -> None:
    make(notebook)
    notebook.run("def use_it(x): return thing, x")

    with pytest.raises(PayloadError, match=r"^cannot send use_it: [^\n]+$") as caught:
        notebook.function("use_it")

    assert caught.value.__cause__ is not None
    assert str(caught.value.__cause__) in str(caught.value)
