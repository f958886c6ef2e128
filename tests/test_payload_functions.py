"""Whatever can be defined in cells runs elsewhere, and what cannot be sent is refused by name."""

import threading
from collections.abc import Callable

import pytest
from fakes.elsewhere import Notebook, bytes_of, call_elsewhere

from golem_magic import payload
from golem_magic.errors import PayloadError


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


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
    "recursion between cells, closed over a loop": (
        [
            "fs = {}\nfor n in range(3):\n    def step(x, n=n):\n"
            "        return x if x > 20 else fs[(n + 1) % 3](x + n)\n"
            "    fs[n] = step",
            "f = fs[1]",
        ],
        "21",
    ),
    "nested functions that share a variable": (
        [
            "def make():\n    count = 0\n    def up():\n        nonlocal count\n        count += 1\n"
            "    def f(x):\n        up(); up()\n        return count + x\n    return f",
            "f = make()",
        ],
        "5",
    ),
    "a decorator with arguments on a method": (
        [
            "import functools\ndef times(n):\n    def wrap(g):\n        @functools.wraps(g)\n"
            "        def inner(self, x): return n * g(self, x)\n        return inner\n    return wrap",
            "class C:\n    @times(4)\n    def go(self, x): return x\nf = C().go",
        ],
        "12",
    ),
    "class methods, static methods and properties": (
        [
            "class C:\n    k = 2\n    @classmethod\n    def a(cls, x): return cls.k * x\n"
            "    @staticmethod\n    def b(x): return -x\n    @property\n    def c(self): return 9",
            "def f(x): return C.a(x), C.b(x), C().c",
        ],
        "(6, -3, 9)",
    ),
    "a cached property": (
        [
            "import functools\nclass C:\n    @functools.cached_property\n    def slow(self): return [1]",
            "def f(x):\n    c = C()\n    return c.slow is c.slow, vars(c)",
        ],
        "(True, {'slow': [1]})",
    ),
    "a function with an implementation for each type": (
        [
            "import functools\n@functools.singledispatch\ndef f(x): return 'any'",
            "@f.register\ndef _(x: int): return 'whole'",
            "f(1)  # fills its cache",
        ],
        "'whole'",
    ),
    "a generic class, with annotations": (
        [
            "from typing import Generic, TypeVar, Annotated\nT = TypeVar('T')\nclass Box(Generic[T]):\n"
            "    def __init__(self, x: T) -> None: self.x = x\n    def get(self) -> T: return self.x",
            "class Ints(Box[int]): pass",
            "def f(x: Annotated[int, 'one']) -> 'Box[int] | None': return Ints(x).get(), Box[str]('s').get()",
        ],
        "(3, 's')",
    ),
    "new names for types": (
        [
            "import typing\nId = typing.NewType('Id', int)\nP = typing.ParamSpec('P')\n"
            "Ts = typing.TypeVarTuple('Ts')",
            "def f(x: Id) -> Id: return Id(x), P.__name__, Ts.__name__",
        ],
        "(3, 'P', 'Ts')",
    ),
    "named tuples and typed dicts": (
        [
            "import typing, collections\nclass N(typing.NamedTuple):\n    a: int\n    b: int = 2\n"
            "class D(typing.TypedDict):\n    a: int\nM = collections.namedtuple('M', 'a')",
            "def f(x): return N(x), D(a=x), M(x)",
        ],
        "(N(a=3, b=2), {'a': 3}, M(a=3))",
    ),
    "an abstract class and a protocol": (
        [
            "import abc, typing\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def go(self): ...\n"
            "@typing.runtime_checkable\nclass P(typing.Protocol):\n    def go(self): ...",
            "class B(A):\n    def go(self): return 1",
            "def f(x):\n    try: A()\n    except TypeError: return isinstance(B(), P), isinstance(x, P)",
        ],
        "(True, False)",
    ),
    "flags, names as values, methods of enumerations": (
        [
            "import enum\nclass F(enum.Flag):\n    A = enum.auto()\n    B = enum.auto()\nboth = F.A | F.B\n"
            "class S(enum.StrEnum):\n    LOW = enum.auto()\n    def up(self): return self.upper()",
            "def f(x): return F.B in both, F(x) is both, S.LOW.up(), S('low') is S.LOW",
        ],
        "(True, True, 'LOW', True)",
    ),
    "a dataclass with slots, factories and order": (
        [
            "import dataclasses\n@dataclasses.dataclass(slots=True, order=True)\nclass P:\n    a: int\n"
            "    b: list = dataclasses.field(default_factory=list)\n"
            "    c: int = dataclasses.field(init=False)\n"
            "    def __post_init__(self): self.c = 2 * self.a",
            "def f(x): return P(x, [1]) > P(1), P(x).b, P(x).c, [g.name for g in dataclasses.fields(P)]",
        ],
        "(True, [], 6, ['a', 'b', 'c'])",
    ),
    "a partial of a partial of a method": (
        [
            "import functools\nclass C:\n    def go(self, a, b, c): return a, b, c",
            "f = functools.partial(functools.partial(C().go, 1), c=2)",
        ],
        "(1, 3, 2)",
    ),
    "a context manager": (
        [
            "import contextlib\n@contextlib.contextmanager\ndef doubled(x):\n    yield 2 * x",
            "def f(x):\n    with doubled(x) as y: return y",
        ],
        "6",
    ),
    "a class made by a function, twice": (
        [
            "def make(k):\n    class C:\n        def get(self): return k\n    return C",
            "A, B = make(1), make(2)",
            "def f(x): return A().get(), B().get(), A is B",
        ],
        "(1, 2, False)",
    ),
    "super, slots and a metaclass": (
        [
            "class M(type):\n    def __call__(cls, *a): return super().__call__(*a)\n"
            "class A(metaclass=M):\n    __slots__ = ('x',)\n    def __init__(self, x): self.x = x\n"
            "class B(A):\n    __slots__ = ()\n    def __init__(self, x): super().__init__(x + 1)",
            "def f(x): return B(x).x, type(B).__name__",
        ],
        "(4, 'M')",
    ),
    "a fitted model": (
        [
            "import numpy as np\nfrom sklearn.linear_model import LinearRegression\n"
            "from sklearn.pipeline import make_pipeline\n"
            "from sklearn.preprocessing import FunctionTransformer",
            "x = np.arange(10.0)[:, None]\ndef double(a): return 2 * a\n"
            "model = make_pipeline(FunctionTransformer(double), LinearRegression()).fit(x, 6 * x[:, 0])",
            "def f(x): return round(float(model.predict(np.array([[x]]))[0]), 6)",
        ],
        "18.0",
    ),
    "numpy's generators, types and masks": (
        [
            "import numpy as np\nrng = np.random.default_rng(1)\ntype_ = np.dtype([('a', 'i4')])\n"
            "masked = np.ma.array([1, 2], mask=[0, 1])",
            "def f(x): return int(rng.integers(1)), np.zeros(1, type_)['a'].tolist(), int(masked.sum())",
        ],
        "(0, [0], 1)",
    ),
    "tables": (
        [
            "import pandas as pd\nkinds = pd.Categorical(['a', 'b', 'a', 'b'])\n"
            "days = pd.date_range('2020-01-01', periods=4, tz='UTC')\n"
            "table = pd.DataFrame({'n': range(4), 'kind': kinds, 'text': list('wxyz')}, index=days)\n"
            "sums = table.groupby('kind', observed=True)['n']",
            "def f(x):\n    row = table.iloc[x]\n"
            "    return str(table.dtypes['kind']), int(row['n']), row['text'], str(row.name), "
            "sums.sum().tolist()",
        ],
        "('category', 3, 'z', '2020-01-04 00:00:00+00:00', [2, 4])",
    ),
    "the standard streams": (
        ["from sys import stdout", "def f(x): return stdout.writable() and x"],
        "3",
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
def test_a_class_of_the_notebook_is_not_changed_by_objects_that_come_back(notebook: Notebook) -> None:
    notebook.run("k = 1\nclass P:\n    def get(self): return k\n    def again(self): return P")
    kind = notebook.names["P"]
    data = bytes_of(payload.dump([kind()]))
    before = dict(vars(kind))

    ((found,),) = payload.load(memoryview(data))
    notebook.run("k = 2")

    assert type(found) is kind
    assert dict(vars(kind)) == before
    assert found.get() == 2


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
