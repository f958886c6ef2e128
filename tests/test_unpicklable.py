"""What cannot be sent is refused before anything is written, with the way to it, in one line."""

import functools
import io
import socket
import sqlite3
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from fakes.world import cell, embedded_client, said, script
from IPython.core.interactiveshell import InteractiveShell

from golem_magic import payload
from golem_magic.errors import PayloadError

# --- seven ways, and some more ---


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _file(stack: ExitStack, mode: str) -> Any:
    return stack.enter_context(open(__file__ if "r" in mode else "/dev/null", mode))


def _connection(stack: ExitStack) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    stack.callback(connection.close)
    return connection


WAYS: dict[str, tuple[Callable[[ExitStack], Any], str, str]] = {
    "lock": (lambda _: threading.Lock(), "a lock", "make it inside the function"),
    "reentrant lock": (lambda _: threading.RLock(), "a lock", "make it inside the function"),
    "open file": (lambda stack: _file(stack, "r"), "an open file", "send its path"),
    "open binary file": (lambda stack: _file(stack, "rb"), "an open file", "send its path"),
    "open file to write": (lambda stack: _file(stack, "w"), "an open file", "send its path"),
    "generator": (lambda _: (x for x in [1]), "a generator", "send a list"),
    "socket": (lambda stack: stack.enter_context(socket.socket()), "a socket", "connect inside"),
    "database connection": (_connection, "a database connection", "connect inside"),
    "cursor": (lambda stack: _connection(stack).cursor(), "a database connection's cursor", "connect inside"),
    "widget": (lambda _: ipywidgets.IntSlider(), "a widget", "send its value"),
    "widget in a box": (
        lambda _: ipywidgets.VBox([ipywidgets.HTML("x")]),
        "a widget",
        "send its value",
    ),
    "kernel object": (lambda _: SHELL, "the notebook's kernel object", "work only in the notebook"),
    "thread": (lambda _: threading.current_thread(), "a thread", "start it inside"),
}


class _Shell(InteractiveShell):
    """A kernel's own is of a class derived from this one, and cannot be made twice."""

    def __init__(self) -> None:
        pass

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle 'sqlite3.Connection' object")


SHELL = object.__new__(_Shell)


class Table:
    """Something with attributes."""


class Slotted:
    __slots__ = ("handle",)


def deep(thing: object) -> Table:
    """``.rows[3].handle`` is the thing."""
    table, row = Table(), Slotted()
    row.handle = thing
    table.rows = [1, "two", {}, row]
    return table


def refused(send: Callable[[], object]) -> str:
    with pytest.raises(PayloadError) as caught:
        send()
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None
    return str(caught.value)


def function_refused(source: str, **names: object) -> str:
    function = cell(source, **names)["score"]
    return refused(lambda: payload.dump_function(function, "score"))


@pytest.mark.unit
@pytest.mark.meets("G-28")
@pytest.mark.parametrize(("make", "what", "advice"), WAYS.values(), ids=WAYS.keys())
def test_what_a_function_uses_is_named_with_the_way_to_it(
    make: Callable[[ExitStack], Any], what: str, advice: str, stack: ExitStack
) -> None:
    thing = make(stack)

    text = function_refused("def score(x): return table.rows", table=deep(thing))
    direct = function_refused("def score(x): return thing", thing=thing)

    assert text.startswith(f"cannot send score: table.rows[3].handle is {what} (")
    assert direct.startswith(f"cannot send score: thing is {what} (")
    assert advice in text


@pytest.mark.unit
@pytest.mark.meets("G-28")
@pytest.mark.parametrize(("make", "what", "advice"), WAYS.values(), ids=WAYS.keys())
def test_inputs_and_common_data_are_named_as_well(
    make: Callable[[ExitStack], Any], what: str, advice: str, stack: ExitStack
) -> None:
    thing = make(stack)
    name = type(thing).__name__

    direct = refused(lambda: payload.Packer().inputs([1, thing, 2], 40))
    inside = refused(lambda: payload.Packer().inputs([(0, 1), {"a": deep(thing)}], 40))
    common = refused(lambda: payload.Packer().common({"a": deep(thing)}))

    assert direct.startswith(f"cannot send input 41 ({name}): it is {what} (")
    assert inside.startswith(f"cannot send input 41 (dict): ['a'].rows[3].handle is {what} (")
    assert common.startswith(f"cannot send the common data: ['a'].rows[3].handle is {what} (")
    assert advice in direct
    assert advice in common


# --- the way to it ---

LOCK = threading.Lock()
PATHS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a variable of an enclosing function": (
        "def outer(a):\n    def score(x): return a\n    return score\nscore = outer({'k': lock})",
        {"lock": LOCK},
        "a['k'] is a lock",
    ),
    "a default": ("def score(x, a=[lock]): return x", {"lock": LOCK}, "the default of a[0] is a lock"),
    "a keyword's default": (
        "def score(x, *, a=lock): return x",
        {"lock": LOCK},
        "the default of a is a lock",
    ),
    "a function that it calls": (
        "def load(): return table\ndef half(x): return load()\ndef score(x): return half(x)",
        {"table": deep(LOCK)},
        "half -> load -> table.rows[3].handle is a lock",
    ),
    "a lambda within it": ("def score(x): return (lambda: lock)", {"lock": LOCK}, "lock is a lock"),
    "an attribute of it": (
        "def score(x): return x\nscore.seen = [lock]",
        {"lock": LOCK},
        ".seen[0] is a lock",
    ),
    "an object whose method it is": (
        "class C:\n    def go(self, x): return x\nc = C()\nc.guard = lock\nscore = c.go",
        {"lock": LOCK},
        ".__self__.guard is a lock",
    ),
    "a class": ("class score:\n    guard = lock", {"lock": LOCK}, ".guard is a lock"),
    "what a method of its object uses": (
        "class C:\n    def go(self): return lock\nc = C()\ndef score(x): return c.go()",
        {"lock": LOCK},
        "c.go -> lock is a lock",
    ),
    "an argument of a partial": (
        "import functools\nscore = functools.partial(max, 1, key=[lock])",
        {"lock": LOCK},
        ".keywords['key'][0] is a lock",
    ),
    "an item of a set": ("s = {lock}\ndef score(x): return s", {"lock": LOCK}, "s -> an item is a lock"),
    "a key": (
        "d = {(1, lock): 2}\ndef score(x): return d",
        {"lock": LOCK},
        "d -> the key <tuple>[1] is a lock",
    ),
    "an argument of an exception": (
        "e = ValueError('a', lock)\ndef score(x): return e",
        {"lock": LOCK},
        "e.args[1] is a lock",
    ),
    "the notebook's own function": (
        "def score(x): return get_ipython().user_ns",
        {"get_ipython": SHELL.get_ipython},
        "get_ipython.__self__ is the notebook's kernel object",
    ),
    "an array of objects": (
        "import numpy as np\ntable = {'a': np.array([1, lock], dtype=object)}\ndef score(x): return table",
        {"lock": LOCK},
        "table['a'] holds a lock",
    ),
    "what says no itself": (
        "class R:\n    def __reduce__(self): raise RuntimeError('not\\nme')\n"
        "r = [R()]\ndef score(x): return r",
        {},
        "r[0] is a R (not me)",
    ),
    "what has no end": (
        "d = []\nfor _ in range(100_000): d = [d]\ndef score(x): return d",
        {},
        "d[0][0][0][0][0][0][0] is nested too deeply (",
    ),
}


@pytest.mark.unit
@pytest.mark.meets("G-28")
@pytest.mark.parametrize(("source", "names", "words"), PATHS.values(), ids=PATHS.keys())
def test_the_way_is_told_as_one_would_write_it(source: str, names: dict[str, Any], words: str) -> None:
    text = function_refused(source, **names)

    assert text.startswith(f"cannot send score: {words}"), text


@pytest.mark.unit
def test_the_first_of_many_inputs_that_fails_is_found_among_those_that_look_alike() -> None:
    lock = threading.Lock()
    row = (1, 2)

    text = refused(lambda: payload.Packer().inputs([row, row, [row], [row, lock], [lock]], 0))

    assert text.startswith("cannot send input 3 (list): [1] is a lock (")


@pytest.mark.unit
@pytest.mark.parametrize(
    "thing",
    [
        io.StringIO("text"),
        io.BytesIO(b"bytes"),
        functools.partial(int, base=2),
        range(3),
        Path("/nowhere"),
        deep("text"),
        threading.Barrier,
        sqlite3.Connection,
    ],
    ids=repr,
)
def test_what_can_be_sent_is_not_refused(thing: object) -> None:
    payload.Packer().inputs([thing], 0)


def test_nothing_is_written_when_something_cannot_be_sent(tmp_path: Path) -> None:
    with embedded_client(tmp_path) as client:
        f = cell("def f(x, y=None): return x")["f"]
        g = cell("def g(x): return lock", lock=LOCK)["g"]
        for send in (
            lambda: client.map(g, [1]),
            lambda: client.map(f, [1], common=[LOCK]),
            lambda: client.map(f, [LOCK]),
        ):
            assert "is a lock" in refused(send)

        assert client.jobs() == []
        assert not list(tmp_path.rglob("objects/*"))


def test_an_open_file_is_no_result_either(tmp_path: Path) -> None:
    """It would come back as a copy of its text."""
    with embedded_client(tmp_path) as client:
        results = client.map(cell("def f(x): return open('/dev/null') if x == 1 else x")["f"], range(3))

        assert results.wait(60)
        assert list(results.errors()) == [1]
        assert "an open file" in str(results.errors()[1])


@pytest.mark.meets("G-28")
def test_a_result_is_named_with_the_way_to_it_and_fails_alone(tmp_path: Path) -> None:
    source = """
        import threading
        class Table: pass
        class Mute(Exception):
            def __str__(self): raise KeyError("no word")
        class Refuses:
            def __reduce__(self): raise Mute
        def f(x):
            table = Table()
            table.rows = [1, {"k": threading.Lock()}]
            return {1: table, 3: threading.Lock(), 5: (y for y in [1]), 7: Refuses()}.get(x, x)
    """
    with embedded_client(tmp_path) as client:
        results = client.map(cell(textwrap.dedent(source))["f"], range(9), chunk_size=3, on_error="return")
        found = list(results)

    begins = "the result of task {} cannot be sent back: "
    ends = ": return something that can be pickled"
    for at, words in {
        1: ".rows[1]['k'] is a lock (cannot pickle '_thread.lock' object)",
        3: "it is a lock (cannot pickle '_thread.lock' object)",
        5: "it is a generator (cannot pickle 'generator' object)",
    }.items():
        assert str(found[at]) == f"{begins.format(at)}{words}{ends}"
        assert isinstance(found[at].__cause__, TypeError)
    assert str(found[7]).startswith(begins.format(7)), "whatever the objects themselves do"
    assert "\n" not in str(found[7])
    assert found[::2] == [0, 2, 4, 6, 8]


A_KERNEL = """
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("from golem_magic import payload")
shell.run_cell("def score(x):\\n    return get_ipython().getoutput('ls')")
shell.run_cell("try: payload.dump_function(score, 'score')\\nexcept Exception as e: print(e)")
"""


def test_magics_inside_the_function_are_told_in_a_real_shell() -> None:
    out = said(script(A_KERNEL))

    assert out.startswith("cannot send score: get_ipython.__self__ is the notebook's kernel object (")
    assert "work only in the notebook" in out
