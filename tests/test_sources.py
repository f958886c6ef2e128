"""Functions out of notebooks and scripts: what is run for them, what is not, and what is said."""

import inspect
import json
import math
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest

from golem_magic import Client, sources
from golem_magic.cells import Place
from golem_magic.errors import CellError
from golem_magic.sources import Taken

unit = pytest.mark.unit
BOOM = "raise SystemExit('an unrelated cell was run')"
Notebook = Callable[..., Path]
nb: Any = nbformat.v4  # untyped


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    """Write a notebook of these code cells, each behind a cell of text."""

    def write(*texts: str, name: str = "analysis.ipynb", **metadata: Any) -> Path:
        cells = [made for text in texts for made in (nb.new_markdown_cell("text"), nb.new_code_cell(text))]
        path = tmp_path / name
        nbformat.write(nb.new_notebook(cells=cells, metadata=metadata), path)  # type: ignore[no-untyped-call]
        return path

    return write


def take(path: Path, name: str = "score", *others: str) -> Taken:
    return sources.take(Place(str(path), name), *others)


def call(path: Path, *arguments: Any) -> Any:
    return take(path).values["score"](*arguments)


def used(path: Path) -> str:
    """The cells that were used, and what is said besides."""
    taken = take(path)
    return taken.used.removeprefix("score: ").removesuffix(" of analysis.ipynb") + taken.notes


def refusal(path: Path, name: str = "score") -> str:
    with pytest.raises(CellError) as caught:
        take(path, name)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is run ---


@unit
def test_only_what_a_function_needs_is_run(notebook: Notebook) -> None:
    path = notebook(
        "import math, json",
        BOOM,
        f"FACTOR = 2\nOTHER = 1 / 0\n{BOOM}",
        "def helper(x):\n    return math.sqrt(x) * FACTOR",
        BOOM,
        "def score(x):\n    return helper(x) + 1",
        BOOM,
    )

    taken = take(path)

    assert taken.values["score"](9) == 7
    assert taken.used == "score: cells 1, 3, 4, 6 of analysis.ipynb"


NEEDS = [
    ("a function and no more", ["1 / 0", "def score(x):\n    return -x"], -3, "cell 2"),
    ("a lambda", ["N = 2", "score = lambda x: x * N"], 6, "cells 1, 2"),
    ("a default", ["N = 2", "def score(x, n=N):\n    return x * n"], 6, "cells 1, 2"),
    (
        "a decorator",
        ["def twice(f):\n    return lambda x: 2 * f(x)", "@twice\ndef score(x):\n    return x"],
        6,
        "cells 1, 2",
    ),
    ("an annotation", ["from typing import Any", "def score(x: Any) -> Any:\n    return x"], 3, "cells 1, 2"),
    (
        "a base class",
        ["class A:\n    k = 2", "class B(A):\n    pass", "def score(x):\n    return B.k * x"],
        6,
        "cells 1, 2, 3",
    ),
    (
        "what a class's body and methods use",
        [
            "K = 2",
            "L = 5",
            "class A:\n    k = K\n    def get(self):\n        return L",
            "def score(x):\n    return A.k * x + A().get()",
        ],
        11,
        "cells 1, 2, 3, 4",
    ),
    (
        "two that call each other",
        ["def odd(n):\n    return n and score(n - 1)", "def score(n):\n    return not n or odd(n - 1)"],
        False,
        "cells 1, 2",
    ),
    (
        "a part of a tuple",
        ["a, (b, *c) = 1, (2, 3, 4)", "def score(x):\n    return c[-1] * x"],
        12,
        "cells 1, 2",
    ),
    (
        "several names of one import",
        ["import os.path", "import os", "def score(x):\n    return os.path.basename(str(x))"],
        "3",
        "cells 1, 2, 3",
    ),
    (
        "a name in a comprehension",
        ["K = [1, 2]", "T = [k * L for k in K]", "L = 5", "def score(x):\n    return L"],
        5,
        "cells 3, 4",
    ),
    ("a walrus", ["(n := 2)", "def score(x):\n    return n * x"], 6, "cells 1, 2"),
    (
        "an inner function's global",
        ["K = 2", "def score(x):\n    def inner():\n        return K\n    return inner()"],
        2,
        "cells 1, 2",
    ),
    # bound several times
    ("the last binding", ["N = 1", "N = 2", "def score(x):\n    return N", "N = 3"], 3, "cells 3, 4"),
    (
        "the one at definition time",
        ["N = 1", "N = 2", "def score(x, n=N):\n    return n", "N = 3"],
        2,
        "cells 2, 3",
    ),
    (
        "both, where both are used",
        ["N = 1", "def score(x, n=N):\n    return n + N", "N = 3"],
        4,
        "cells 1, 2, 3",
    ),
    (
        "a helper at the time of its call",
        ["N = 1", "def make():\n    return N", "T = make()", "N = 3", "def score(x):\n    return T"],
        1,
        "cells 1, 2, 3, 4, 5",
    ),
    (
        "the last function of that name",
        ["def score(x):\n    return 1", "def score(x):\n    return 2"],
        2,
        "cell 2",
    ),
    (
        "a decorator's helper at the end",
        [
            "N = 1",
            "def deco(f):\n    return lambda x: f(x) + N",
            "@deco\ndef score(x):\n    return 0",
            "N = 5",
        ],
        5,
        "cells 1, 2, 3, 4",
    ),
    # bound bit by bit
    ("an augmented assignment", ["N = 1", "N += 1", "def score(x):\n    return N"], 2, "cells 1, 2, 3"),
    ("itself before", ["N = 1", "N = N + 1", "def score(x):\n    return N"], 2, "cells 1, 2, 3"),
    (
        "a loop",
        ["T = {}", "for i in range(3):\n    T[i] = i * 10", "def score(x):\n    return T[x - 1]"],
        20,
        "cells 1, 2, 3",
    ),
    (
        "a loop that binds",
        ["for i in range(3):\n    last = i", "def score(x):\n    return last"],
        2,
        "cells 1, 2",
    ),
    (
        "a branch",
        ["N = 1", "if len('a') == 1:\n    N = 2", "def score(x):\n    return N"],
        2,
        "cells 1, 2, 3",
    ),
    (
        "a with block",
        [
            "import contextlib",
            "N = 0",
            "with contextlib.suppress(KeyError):\n    N = 4",
            "def score(x):\n    return N",
        ],
        4,
        "cells 1, 3, 4",
    ),
    (
        "a try",
        [
            "try:\n    import no_such_module as m\nexcept ImportError:\n    import math as m",
            "def score(x):\n    return m.sqrt(9)",
        ],
        3,
        "cells 1, 2",
    ),
    (
        "a method that changes it",
        ["T = []", "T.append(7)", "def score(x):\n    return T"],
        [7],
        "cells 1, 2, 3",
    ),
    ("an item", ["T = {}", "T['a'] = 1", "def score(x):\n    return T"], {"a": 1}, "cells 1, 2, 3"),
    (
        "a shuffle",
        ["import random", "T = [1, 1]", "random.shuffle(T)", "def score(x):\n    return T"],
        [1, 1],
        "cells 1, 2, 3, 4",
    ),
    (
        "a change before it is bound anew",
        ["T = []", "T.append(1)", "T = []", "def score(x):\n    return T"],
        [],
        "cells 3, 4",
    ),
    (
        "a registered case",
        [
            "import functools",
            "@functools.singledispatch\ndef score(x):\n    return 0",
            "@score.register\ndef _(x: int):\n    return 1",
        ],
        1,
        "cells 1, 2, 3",
    ),
    (
        "no loop that only uses the same letter",
        [
            "for i in range(3):\n    1 / 0",
            "T = [i for i in range(2)]\nfor i in T:\n    last = i",
            "def score(x):\n    return last",
        ],
        1,
        "cells 2, 3",
    ),
    (
        "a comprehension in a loop",
        [
            "for i in range(3):\n    1 / 0",
            "for i in [1]:\n    T = [i * j for j in [2]]",
            "def score(x):\n    return T",
        ],
        [2],
        "cells 2, 3",
    ),
    (
        "no function that would change it if it was called",
        ["T = [1]", "def other(x=1 / 0):\n    T.append(x)", "def score(x):\n    return T"],
        [1],
        "cells 1, 3",
    ),
    (
        "a function laid over itself",
        [
            "import functools",
            "def score(x):\n    return 2",
            "@functools.partial(lambda old, new: lambda x: old(x) + new(x), score)\n"
            "def score(x):\n    return 1",
        ],
        3,
        "cells 1, 2, 3",
    ),
    (
        "no plot of an imported module",
        ["import math as plt", "plt.show()", "def score(x):\n    return plt.pi"],
        math.pi,
        "cells 1, 3",
    ),
    # the whole file's
    (
        "the future of earlier cells",
        ["from __future__ import annotations", "def score(x: NoSuchThing):\n    return x"],
        3,
        "cell 2",
    ),
    (
        "a star import",
        ["from math import *", "def score(x):\n    return sqrt(9) + pow(2, 2)"],
        7.0,
        "cells 1, 2",
    ),
    # magics
    (
        "what magics surround",
        [
            "%load_ext autoreload\n%matplotlib inline\nN = 2\n!ls 'it\\\n (",
            "%%time\nM = 3",
            "%%golemize range(3)\n\ndef score(x):\n    return N * M * x",
        ],
        18,
        "cells 1, 2, 3",
    ),
    (
        "what %time runs",
        ["%time N = 2\nM = %time N + 1", "score?\n?score\ndef score(x):\n    return N * M"],
        6,
        "cells 1, 2",
    ),
    (
        "text that looks like magics",
        ["S = '''\n%d\n!ls\n'''\nP = ('%d'\n  % 3)", "def score(x):\n    return S + P"],
        "\n%d\n!ls\n3",
        "cells 1, 2",
    ),
    (
        "cells beside those that cannot be read",
        ["def broken(:", "return 3", "%%bash\nls", "%%html\n<b>", "def score(x):\n    return x"],
        3,
        "cell 5",
    ),
    (
        "no asynchronous cell",
        ["import asyncio\nawait asyncio.sleep(0)", "def score(x):\n    return x"],
        3,
        "cell 2",
    ),
]


@unit
@pytest.mark.parametrize(
    ("cells", "value", "said"), [row[1:] for row in NEEDS], ids=[row[0] for row in NEEDS]
)
def test_what_is_needed_is_run_as_from_top_to_bottom(
    notebook: Notebook, cells: list[str], value: object, said: str
) -> None:
    path = notebook(*cells)

    assert used(path) == said
    assert call(path, 3) == value


@unit
def test_statements_are_taken_not_whole_cells(notebook: Notebook) -> None:
    path = notebook("import json\nT = [1]\n1 / 0\ndef f(x):\n    return T\nprint(1 / 0)", "score = f")

    assert call(path, 0) == [1]


@unit
def test_nothing_is_run_twice(notebook: Notebook, capsys: pytest.CaptureFixture[str]) -> None:
    path = notebook("T = [print('run')]", "U = T", "def score(x, t=T):\n    return T is U is t")

    assert call(path, 0)
    assert capsys.readouterr().out == "run\n"


@unit
@pytest.mark.meets("G-25")
def test_a_script_needs_no_main_guard_and_with_one_it_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    text = "import math\n\n\ndef score(x):\n    return math.sqrt(x)\n\n\n"
    path.write_text(f"{text}{BOOM}\n")
    without = take(path)
    path.write_text(f"{text}if __name__ == '__main__':\n    {BOOM}\n")
    guarded = take(path)

    assert without.values["score"](9) == guarded.values["score"](9) == 3
    assert without.used == guarded.used == "score: lines 1, 4-5 of model.py"


@unit
def test_several_names_come_from_one_run(notebook: Notebook) -> None:
    path = notebook("T = [1]", "def score(x, t):\n    return t is T")

    taken = take(path, "score", "T")

    assert taken.values["score"](0, taken.values["T"])
    assert taken.used == "score, T: cells 1, 2 of analysis.ipynb"


@unit
def test_an_attribute_can_be_taken(notebook: Notebook) -> None:
    path = notebook("class Model:\n    @staticmethod\n    def predict(x):\n        return x + 1")

    assert take(path, "Model.predict").values["Model.predict"](1) == 2
    assert "no attribute 'fit'" in refusal(path, "Model.fit")


@unit
def test_dataclasses_find_their_own_names(notebook: Notebook) -> None:
    path = notebook(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom typing import ClassVar",
        "@dataclass\nclass Point:\n    k: ClassVar[int] = 2\n    x: int = 0",
        "def score(x):\n    return Point(x)",
    )

    assert repr(call(path, 3)) == "Point(x=3)"
    assert "Point" not in vars(sys.modules["__main__"])


# --- modules beside the file ---


@unit
@pytest.mark.meets("G-23")
def test_modules_beside_the_file_are_found_and_the_path_is_put_back(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside_of_notebook.py").write_text("def f(x):\n    return x + 1\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "deep_in_lib.py").write_text("def g(x):\n    return x * 10\n")
    path = notebook(
        "import os, sys\nfrom beside_of_notebook import f",
        f"if 'lib' not in sys.path:\n    sys.path.append({str(tmp_path / 'lib')!r})",
        "import deep_in_lib",
        "def score(x):\n    import later_in_lib\n    return deep_in_lib.g(f(x))",
    )
    before = list(sys.path)

    taken = take(path)

    assert sys.path == before
    assert taken.values["score"].__globals__["f"](1) == 2
    assert taken.used.startswith("score: cells 1, 2, 3, 4 ")
    with taken.importing():
        assert sys.path[0] == str(tmp_path)
        assert str(tmp_path / "lib") in sys.path
    assert sys.path == before
    for name in ("beside_of_notebook", "deep_in_lib"):
        monkeypatch.delitem(sys.modules, name)


@unit
def test_a_module_of_that_name_from_elsewhere_is_not_taken_for_it(
    notebook: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = notebook("import same_name", "def score(x):\n    return same_name.N")
    (tmp_path / "same_name.py").write_text("N = 1\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "same_name.py").write_text("N = 2\n")
    monkeypatch.syspath_prepend(str(tmp_path / "other"))
    __import__("same_name")

    said = refusal(path)
    monkeypatch.delitem(sys.modules, "same_name")

    assert said.startswith("cell 1, line 1 imports same_name, which is ")
    assert str(tmp_path / "other" / "same_name.py") in said


@unit
def test_a_module_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pkg_to_take").mkdir()
    (tmp_path / "pkg_to_take" / "__init__.py").touch()
    (tmp_path / "pkg_to_take" / "mod.py").write_text("def score(x):\n    return -x\n")
    monkeypatch.chdir(tmp_path)

    taken = sources.take(Place("pkg_to_take.mod", "score"))

    assert taken.values["score"](1) == -1
    assert taken.used == "score: module pkg_to_take.mod"
    for name in ("pkg_to_take", "pkg_to_take.mod"):
        monkeypatch.delitem(sys.modules, name)


# --- tracebacks ---


@unit
def test_tracebacks_show_the_cells_lines(notebook: Notebook) -> None:
    path = notebook("import math", "%matplotlib inline\n\ndef score(x):\n    # why\n    return 1 / x")
    function = take(path).values["score"]

    with pytest.raises(ZeroDivisionError) as caught:
        function(0)

    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "{path}, cell 2", line 5, in score\n    return 1 / x' in shown
    assert inspect.getsource(function) == "def score(x):\n    # why\n    return 1 / x\n"


# --- what is said ---


@unit
def test_what_is_left_out_is_told(notebook: Notebook) -> None:
    path = notebook(
        "T = [3, 1]\ndef tidy(t):\n    t.sort()",
        "tidy(T)",
        "print(T)\ndisplay(T)",
        "def score(x):\n    %precision 3\n    return T, tabel",
    )

    assert used(path) == (
        "cells 1, 4; without %precision 3 in cell 4; not run: tidy(T) in cell 2; "
        "bound by nothing in it: tabel"
    )


REFUSALS = [
    (["def store(x):\n    return x"], "analysis.ipynb does not define score, did you mean store?"),
    (["N = 1\nM = 2"], "analysis.ipynb does not define score: it defines M, N"),
    ([], "analysis.ipynb does not define score"),
    (
        ["%%cython\ndef score(x):\n    pass"],
        "analysis.ipynb does not define score; cell 1 has that word but is a %%cython cell",
    ),
    (
        ["N = 1", "def score(x:"],
        "analysis.ipynb does not define score: it defines N; cell 2 has that word but is not Python",
    ),
    (
        ["if __name__ == '__main__':\n    def score(x): pass"],
        "score is bound under the main guard only (cell 1), which is not run: move it out of there",
    ),
    (
        ["score = %who_ls"],
        "cell 1, line 1 of analysis.ipynb, which gets its value from the magic line score = %who_ls",
    ),
    (
        ["N = 1\nfiles = !ls", "def score(x):\n    return files"],
        "cell 1, line 2 of analysis.ipynb, which gets its value from the magic line files = !ls: ",
    ),
    (
        ["def score(x):\n    y = !ls\n    return y"],
        "score needs cell 1, line 1 of analysis.ipynb, which gets its value from the magic line y = !ls: ",
    ),
    (
        ["import asyncio\nN = await asyncio.sleep(0, 3)", "def score(x):\n    return N"],
        "score needs cell 1, line 2 of analysis.ipynb, which awaits at the top level",
    ),
    (
        ["\nN = (1 +\n     [][3])", "def score(x):\n    return N"],
        "cell 1, line 3 of analysis.ipynb, which fails: [][3]): IndexError: list index out of range",
    ),
    (
        ["raise_it = exit\nN = raise_it(3)", "def score(x):\n    return N"],
        "score needs cell 1, line 2 of analysis.ipynb, which fails: N = raise_it(3): SystemExit: 3",
    ),
    (["T = open('no such file')", "def score(x):\n    return T"], "; names of files start from "),
    (["def score(x):\n    return x", "del score"], "analysis.ipynb does not define score"),
    (["from math import *"], "analysis.ipynb does not define score, did you mean"),
    (
        ["def use(x=late):\n    return x", "late = use", "score = use"],
        "NameError: name 'late' is not defined",
    ),
]


@unit
@pytest.mark.parametrize(("cells", "said"), REFUSALS)
def test_what_cannot_be_taken_is_told_on_a_line(notebook: Notebook, cells: list[str], said: str) -> None:
    assert said in refusal(notebook(*cells))


@unit
def test_files_that_are_none_are_told_on_a_line(notebook: Notebook, tmp_path: Path) -> None:
    (tmp_path / "text.ipynb").write_text("no json")
    (tmp_path / "json.ipynb").write_text('{"cells": 3}')
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe")
    (tmp_path / "broken.py").write_text("def f(:\n")
    (tmp_path / "return.py").write_text("return 3\n")
    other = notebook("1", name="other.ipynb", kernelspec={"language": "R", "name": "ir", "display_name": "R"})

    assert f"cannot read {tmp_path / 'none.ipynb'} (No such file" in refusal(tmp_path / "none.ipynb")
    for name in ("text.ipynb", "json.ipynb", "bytes.ipynb"):
        assert f"{tmp_path / name} is not a notebook that can be read (" in refusal(tmp_path / name)
    assert "is a notebook in R: only functions in Python" in refusal(other)
    assert "broken.py is not Python (invalid syntax, line 1): mend it first" in refusal(
        tmp_path / "broken.py"
    )
    assert "return.py is not Python ('return' outside function" in refusal(tmp_path / "return.py")


@unit
def test_a_file_of_a_package_is_named_as_a_module(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text("from . import other\ndef score(x):\n    return other\n")

    assert "it belongs to a package, so name it as a module: package.part::score" in refusal(
        tmp_path / "part.py"
    )


@unit
@pytest.mark.parametrize("name", ["no_such_module", "json.no_such_module", "a folder/x.txt", ""])
def test_modules_that_are_none_are_told_on_a_line(name: str) -> None:
    with pytest.raises(CellError, match=r"cannot be imported|neither a notebook"):
        sources.take(Place(name, "score"))


@unit
def test_old_notebooks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    cell = {"cell_type": "code", "language": "python", "metadata": {}, "outputs": [], "collapsed": False}
    sheet = {"cells": [{**cell, "input": ["def score(x):\n", "    return x + 1"]}], "metadata": {}}
    path.write_text(
        json.dumps({"metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0, "worksheets": [sheet]})
    )

    assert call(path, 1) == 2


# --- real jobs ---


@pytest.mark.meets("G-23")
def test_a_notebook_and_a_script_run_on_workers(notebook: Notebook, tmp_path: Path, state_dir: Path) -> None:
    (tmp_path / "beside_all.py").write_text("def shift(x):\n    return x + 100\n")
    text = (
        "class Pair(tuple):\n    pass\n"
        "def score(x):\n    import beside_all\n    return Pair((beside_all.shift(1 // x), K))"
    )
    script = tmp_path / "model.py"
    script.write_text(f"import sys\nK = 1\nK += 1\n{text}\n{BOOM}\n")
    path = notebook("K = 1", BOOM, "%precision 3\nK += 1", text)

    with Client(workers=1) as client:
        for taken, place in ((take(path), f"{path}, cell 4"), (take(script), str(script))):
            with taken.importing():
                results = client.map(taken.values["score"], [1, 0])
            assert next(results) == (101, 2)
            with pytest.raises(ZeroDivisionError) as caught:
                next(results)
            notes = "".join(caught.value.__notes__)
            assert f'File "{place}", line' in notes
            assert "return Pair((beside_all.shift(1 // x), K))" in notes
