"""The user's own modules go with the function, as they are at submission, and are never stale."""

import importlib
import importlib.util
import json
import os
import py_compile
import subprocess
import sys
import textwrap
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import pytest
from fakes.elsewhere import Notebook, call_elsewhere
from fakes.world import ROOT, cell, embedded_client

from golem_magic import Client, payload
from golem_magic.errors import PayloadError


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with embedded_client(tmp_path_factory.mktemp("travel")) as client:
        yield client


class Folder:
    """A folder on this process's import path, whose modules workers cannot see."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.tops = {"zipped", "edited", "installed_here", "shut"}

    def write(self, name: str, text: str) -> Path:
        self.tops.add(name.partition("/")[0].removesuffix(".py"))
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
        importlib.invalidate_caches()
        return path

    def vanish(self) -> None:
        """Move it away, so that nobody can read it any more."""
        self.path.rename(self.path.with_name("moved away"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    path = tmp_path / "beside the notebook"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    beside = Folder(path)
    yield beside
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in beside.tops:
            del sys.modules[name]


# --- whatever layout ---

LAYOUTS: dict[str, tuple[dict[str, str], str, str]] = {
    "a file": ({"one.py": "def g(x): return x + 1"}, "import one\ndef f(x): return one.g(x)", "4"),
    "a name of a file": (
        {"one.py": "k = 5\ndef g(x): return x + k"},
        "from one import g\ndef f(x): return g(x)",
        "8",
    ),
    "the function itself": ({"one.py": "def g(x): return x + 2"}, "from one import g as f", "5"),
    "a method of an object": (
        {"one.py": "class C:\n    n = 3\n    def go(self, x): return self.n * x"},
        "import one\nf = one.C().go",
        "9",
    ),
    "a package with relative imports": (
        {
            "pack/__init__.py": "from .core import go",
            "pack/core.py": "from . import deep as d\nfrom .deep.bottom import n\ngo = lambda x: x * n + d.k",
            "pack/deep/__init__.py": "k = 1",
            "pack/deep/bottom.py": "n = 7",
        },
        "import pack\ndef f(x): return pack.go(x)",
        "22",
    ),
    "a module of a package": (
        {"pack/__init__.py": "", "pack/a.py": "from pack import b\nn = b.n", "pack/b.py": "n = 4"},
        "import pack.a\ndef f(x): return x * pack.a.n",
        "12",
    ),
    "a namespace package": (
        {"space/inner/one.py": "from space.two import n", "space/two.py": "n = 6"},
        "from space.inner.one import n\nimport space.inner.one as one\ndef f(x): return one.n * x",
        "18",
    ),
    "an import inside": ({"one.py": "n = 1"}, "def f(x):\n    import one\n    return one.n + x", "4"),
    "an import inside, of a package nobody imported here": (
        {"pack/__init__.py": "n = 1", "pack/a/__init__.py": "", "pack/a/b.py": "from .. import n"},
        "def f(x):\n    from pack.a import b\n    return b.n + x",
        "4",
    ),
    "an import inside, of a namespace nobody imported here": (
        {"space/inner/one.py": "n = 6"},
        "def f(x):\n    def g():\n        from space.inner import one\n        return one.n\n    return g()",
        "6",
    ),
    "an import inside a method of a class": (
        {"one.py": "n = 1"},
        "class C:\n    def go(self, x):\n        import one\n        return one.n + x\nf = C().go",
        "4",
    ),
    "an import inside a function of a module": (
        {"one.py": "def g(x):\n    from two import n\n    return n * x", "two.py": "from three import n",
         "three.py": "n = 9"},
        "from one import g\ndef f(x): return g(x)",
        "27",
    ),
    "modules that import each other": (
        {"one.py": "import two\ndef g(x): return two.h(x)", "two.py": "import one\ndef h(x): return x - 1"},
        "import one\ndef f(x): return one.g(x)",
        "2",
    ),
    "a closure that a module made": (
        {"one.py": "import two\ndef adder(n):\n    def add(x): return x + n + two.k\n    return add",
         "two.py": "k = 10"},
        "import one\nf = one.adder(5)",
        "18",
    ),
    "a decorator": (
        {"one.py": "import functools\ndef twice(g):\n    @functools.wraps(g)\n"
                   "    def inner(x): return g(g(x))\n    return inner"},
        "from one import twice\n@twice\ndef f(x): return x * 3",
        "27",
    ),
    "a cached function": (
        {"one.py": "import functools\n@functools.cache\ndef g(x): return x and x + g(x - 1)"},
        "import one\ndef f(x): return one.g(x)",
        "6",
    ),
    "a parent class, an enumeration and a dataclass": (
        {"one.py": "import enum, dataclasses\nclass A:\n    def go(self): return 2\n"
                   "class E(enum.Enum):\n    X = 3\n@dataclasses.dataclass\nclass D:\n    a: int"},
        "import one\nclass B(one.A): pass\nx, d = one.E.X, one.D(4)\n"
        "def f(n): return B().go(), x is one.E.X, d == one.D(4), isinstance(B(), one.A)",
        "(2, True, True, True)",
    ),
    "what a package loads by name": (
        {"pack/__init__.py": "import importlib\nplug = importlib.import_module('pack.' + 'hidden')\n"
                             "def go(x): return plug.n + x",
         "pack/hidden.py": "n = 8"},
        "import pack\ndef f(x): return pack.go(x)",
        "11",
    ),
    "a text in another encoding": (
        {"one.py": "# -*- coding: latin-1 -*-\ns = 'h\\xf6'\n"},
        "import one\ndef f(x): return one.s",
        "'hö'",
    ),
    "a module that hides one of the standard library": (
        {"colorsys.py": "n = 3"},
        "import colorsys\ndef f(x): return colorsys.n + x",
        "6",
    ),
}  # fmt: skip


@pytest.mark.meets("IP-12")
@pytest.mark.meets("G-23")
@pytest.mark.parametrize(("files", "source", "answer"), LAYOUTS.values(), ids=LAYOUTS.keys())
def test_a_module_that_is_nowhere_else_travels(
    folder: Folder, files: dict[str, str], source: str, answer: str
) -> None:
    for name, text in files.items():
        folder.write(name, text)
    notebook = Notebook()
    notebook.run(source)
    frame = notebook.function()
    folder.vanish()

    assert call_elsewhere(frame, 3) == answer


def test_a_module_in_a_zip_archive_travels(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = folder.path / "more.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped/__init__.py", "from .part import n")
        file.writestr("zipped/part.py", "n = 11")
    monkeypatch.syspath_prepend(archive)
    notebook = Notebook()
    notebook.run("import zipped\ndef f(x): return zipped.n + x")
    frame = notebook.function()
    folder.vanish()

    assert call_elsewhere(frame, 3) == "14"


def test_an_editable_install_travels(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package lies elsewhere, and a finder, which is installed, knows where."""
    init = folder.write("checkout/src/edited/__init__.py", "from edited.part import n")
    folder.write("checkout/src/edited/part.py", "n = 12")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            return importlib.util.spec_from_file_location(name, init) if name == "edited" else None

    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    notebook = Notebook()
    notebook.run("def f(x):\n    import edited\n    return edited.n + x")
    not_imported_here = notebook.function()
    notebook.run("import edited\ndef f(x): return edited.n * x")
    imported_here = notebook.function()
    folder.vanish()

    assert call_elsewhere(not_imported_here, 3) == "15"
    assert call_elsewhere(imported_here, 3) == "36"


def test_data_files_of_a_package_are_found_where_the_folder_can_be_seen(folder: Folder) -> None:
    folder.write("pack/__init__.py", "")
    folder.write("pack/table.txt", "some data")
    notebook = Notebook()
    notebook.run("import pack, importlib.resources")
    notebook.run("def f(x): return importlib.resources.files(pack).joinpath('table.txt').read_text()")

    assert call_elsewhere(notebook.function(), 3) == "'some data'"


@pytest.mark.meets("IP-12")
@pytest.mark.parametrize("archive", [False, True])
def test_the_users_own_part_of_the_import_path_holds_there_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, archive: bool
) -> None:
    """For modules whose names no text shows, where their folder can be seen; it hides nothing."""
    folder.write("plugins/plug_a.py", "n = 17")
    folder.write("plugins/colorsys.py", "raise ValueError('another of this name comes first')")
    place = folder.path / "plugins"
    if archive:
        place = folder.path / "plugins.zip"
        with zipfile.ZipFile(place, "w") as file:
            file.writestr("plug_a.py", "n = 17")
    monkeypatch.setattr(sys, "path", [*sys.path, str(place)])
    notebook = Notebook()
    notebook.run("def f(x):\n    from importlib import import_module as load\n    load('color' + 'sys')\n"
                 "    return load('plug_' + 'a').n + x")  # fmt: skip
    frame = notebook.function()

    assert call_elsewhere(frame, 3) == "20"
    folder.vanish()
    assert "No module named 'plug_a'" in call_elsewhere(frame, 3)


# --- what does not travel ---


@pytest.mark.unit
def test_what_is_installed_stays_where_it_is() -> None:
    notebook = Notebook()
    notebook.run("import numpy as np, sklearn.linear_model, json, golem_magic, cloudpickle, email.mime.text")
    notebook.run(
        "def f(x):\n    import xml.dom, pytest\n    return np, sklearn, json, golem_magic, cloudpickle"
    )

    frame = notebook.function()

    stream = bytes(frame.pieces[1])
    assert frame.size < 3000
    for text in (b"import numpy", b"NumPy", b"GolemMagicError", b"Packer"):
        assert text not in stream


def test_a_package_that_is_installed_only_here_is_missed_by_name(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.write("site-packages/installed_here.py", "n = 1")
    monkeypatch.syspath_prepend(folder.path / "site-packages")
    notebook = Notebook()
    notebook.run("import installed_here\ndef f(x): return installed_here.n")

    assert "ModuleNotFoundError: No module named 'installed_here'" in call_elsewhere(notebook.function(), 3)


def test_a_compiled_module_is_imported_from_its_place_or_asked_for(folder: Folder) -> None:
    source = folder.write("source/shut.py", "n = 13")
    py_compile.compile(str(source), str(folder.path / "shut.pyc"), doraise=True)
    importlib.invalidate_caches()
    notebook = Notebook()
    notebook.run("import shut\ndef f(x): return shut.n")
    frame = notebook.function()

    assert call_elsewhere(frame, 3) == "13"
    folder.vanish()
    shown = call_elsewhere(frame, 3)
    assert "module shut is compiled, so it does not travel, and" in shown
    assert "install it for the workers' Python" in shown


def test_what_a_module_made_at_run_time_defines_travels_by_value(monkeypatch: pytest.MonkeyPatch) -> None:
    made = ModuleType("made_here")
    exec("k = 4\nclass C:\n    def go(self, x): return x * k\ndef g(x): return C().go(x)", made.__dict__)
    monkeypatch.setitem(sys.modules, "made_here", made)
    notebook = Notebook()
    notebook.run("import made_here\nfrom made_here import g, C\nc = C()")
    notebook.run("def f(x): return g(x), c.go(x), made_here.k")

    frame = notebook.function()

    assert call_elsewhere(frame, 3) == "(12, 12, 4)"
    assert not cloudpickle.list_registry_pickle_by_value()


@pytest.mark.unit
def test_a_module_that_is_being_edited_is_told_with_its_line(folder: Folder) -> None:
    folder.write("one.py", "def g(x): return x")
    notebook = Notebook()
    notebook.run("import one\ndef f(x): return one.g(x)")
    folder.write("one.py", "def g(x): return x\n\ndef h(x) return")

    with pytest.raises(PayloadError, match=r"^module one cannot travel: [^\n]*one\.py, line 3 ") as caught:
        notebook.function()

    assert "\n" not in str(caught.value)


def test_two_threads_that_send_modules_made_at_run_time_do_not_disturb_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ModuleType("made_here")
    exec("\n".join(f"def g{i}(x): return x" for i in range(100)), made.__dict__)
    monkeypatch.setitem(sys.modules, "made_here", made)
    notebook = Notebook()
    notebook.run("import made_here\ngs = [getattr(made_here, f'g{i}') for i in range(100)]")
    notebook.run("def f(x): return gs")
    sizes: set[int] = set()

    def send() -> None:
        for _ in range(20):
            sizes.add(notebook.function().size)

    threads = [threading.Thread(target=send) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert len(sizes) == 1, "by name in some, by value in others"
    assert not cloudpickle.list_registry_pickle_by_value()


# --- never stale ---


def edited(number: int) -> str:
    """Of equal length for all numbers: no size tells two versions apart."""
    return f"from deep import m\n\ndef g(x):\n    return x * 1000 + {number:03} % 100 + m()\n"


@pytest.mark.meets("G-23")
def test_fifty_edits_give_fifty_right_answers_from_warm_workers(client: Client, folder: Folder) -> None:
    folder.write("deep.py", "def m(): return 0")
    folder.write("helper.py", edited(100))
    outside = cell("import helper\ndef f(x): return helper.g(x)")["f"]
    inside = cell("def f(x):\n    import inner\n    return inner.g(x)")["f"]
    answers, wanted = [], []

    for number in range(100, 150):
        folder.write("helper.py", edited(number))
        folder.write("inner.py", edited(number))
        if number % 2:
            importlib.reload(sys.modules["helper"])
        else:
            del sys.modules["helper"]
            outside = cell("import helper\ndef f(x): return helper.g(x)")["f"]
        if number == 125:
            folder.write("deep.py", "def m(): return 500")
        answers.append([*client.map(outside, range(2)), *client.map(inside, [1])])
        extra = number % 100 + (500 if number >= 125 else 0)
        wanted.append([extra, 1000 + extra, 1000 + extra])

    assert answers == wanted


def test_a_file_that_was_edited_but_not_reloaded_counts_as_it_is_on_disk(
    client: Client, folder: Folder
) -> None:
    folder.write("one.py", "def g(x): return 'old'")
    f = cell("import one\ndef f(x): return one.g(x)")["f"]
    folder.write("one.py", "def g(x): return 'new'")

    assert list(client.map(f, [1])) == ["new"]
    assert f(1) == "old"


def test_bytecode_beside_a_file_is_not_taken_for_it(folder: Folder) -> None:
    """Python trusts it if time and length agree, and an editor can be that quick."""
    file = folder.write("one.py", "n = 1")
    py_compile.compile(str(file), doraise=True)
    compiled_at = file.stat().st_mtime_ns
    folder.write("one.py", "n = 2")
    os.utime(file, ns=(compiled_at, compiled_at))
    notebook = Notebook()
    notebook.run("def f(x):\n    import one\n    return one.n")

    assert call_elsewhere(notebook.function(), 3) == "2"


def test_what_the_job_was_submitted_with_counts_whatever_becomes_of_the_file(
    client: Client, folder: Folder, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    folder.write("one.py", "def g(x): return 'as submitted'")
    wait = """
        import os, time
        def f(x, gate):
            limit = time.monotonic() + 60
            while not os.path.exists(gate) and time.monotonic() < limit:
                time.sleep(0.002)
            import one
            return one.g(x)
    """
    results = client.map(cell(textwrap.dedent(wait))["f"], [1], common=str(gate))

    folder.write("one.py", "def g(x): return 'too late'")
    gate.touch()

    assert list(results) == ["as submitted"]


def test_a_module_hides_an_installed_one_of_its_name_that_a_warm_worker_has_loaded(
    folder: Folder, tmp_path: Path
) -> None:
    other = tmp_path / "site-packages"
    other.mkdir()
    (other / "shade.py").write_text("n = 'installed'")
    folder.write("shade.py", "n = 'mine'")
    notebook = Notebook()
    notebook.run("import shade\ndef f(x): return shade.n")
    warm = f"import sys; sys.path.insert(0, {str(other)!r}); import shade; assert shade.n == 'installed'\n"

    assert call_elsewhere(notebook.function(), 3, before=warm) == "'mine'"


# --- both directions, and in all that is sent ---


def test_objects_of_a_module_come_back_as_what_they_are(client: Client, folder: Folder) -> None:
    folder.write("shapes.py", "class P:\n    def __init__(self, x): self.x = x\nclass Oops(Exception): pass")
    names = cell("import shapes\ndef f(x):\n    if x < 0: raise shapes.Oops(x)\n    return shapes.P(x)")
    shapes = sys.modules["shapes"]

    found = list(client.map(names["f"], [1, 2]))

    assert [type(each) for each in found] == [shapes.P, shapes.P]
    assert [each.x for each in found] == [1, 2]
    with pytest.raises(shapes.Oops):
        list(client.map(names["f"], [-1]))


def test_inputs_common_data_and_set_up_take_their_modules_along(client: Client, folder: Folder) -> None:
    for name in ("mod_i", "mod_c", "mod_s"):
        folder.write(f"{name}.py", "class K:\n    def __init__(self, x): self.x = x\ndef make(): return K(3)")
    i, c, s = (importlib.import_module(name) for name in ("mod_i", "mod_c", "mod_s"))
    f = cell("def f(a, b, c): return a.x, b.x, c.x, [type(each).__module__ for each in (a, b, c)]")["f"]

    found = list(client.map(f, [i.K(1)], common=c.K(2), setup=s.make))

    assert found == [(1, 2, 3, ["mod_i", "mod_c", "mod_s"])]


def test_a_module_that_only_a_late_input_needs_goes_with_it(client: Client, folder: Folder) -> None:
    folder.write("late.py", "class K:\n    def __repr__(self): return 'late ' + str(number())\n"
                            "def number():\n    import later\n    return later.n")  # fmt: skip
    folder.write("later.py", "n = 5")
    late = importlib.import_module("late")

    found = list(client.map(repr, [*range(20_000), late.K(), *range(5)], chunk_size=5000))

    assert (found[19_999], found[20_000], found[20_001]) == ("19999", "late 5", "0")


@pytest.mark.unit
def test_a_module_is_sent_once_with_the_function_and_not_with_every_block(folder: Folder) -> None:
    folder.write("heavy.py", "class K: pass\n" + "# a long text\n" * 10_000)
    heavy = importlib.import_module("heavy")
    packer = payload.Packer()

    first = packer.inputs([heavy.K()], 0)
    function = packer.function(cell("def f(x): return x")["f"], "f")
    second = packer.inputs([heavy.K()], 1)
    folder.write("light.py", "class K: pass")
    third = packer.inputs([heavy.K(), importlib.import_module("light").K()], 2)

    assert function.size > 100_000
    assert max(first.size, second.size) < 200
    assert second.size < third.size < 500


# --- tracebacks ---


def test_tracebacks_show_lines_of_modules_as_they_were_sent(client: Client, folder: Folder) -> None:
    folder.write("one.py", "import two\ndef g(x):\n    return two.h(x)  # in one")
    folder.write("two.py", "def h(x):\n    return 1 / x  # in two")
    f = cell("import one\ndef f(x):\n    import os, time\n"
             "    while not os.path.exists(x): time.sleep(0.01)\n"
             "    return one.g(0)  # in the cell")["f"]  # fmt: skip
    gate = folder.path / "gate"
    results = client.map(f, [str(gate)])
    folder.write("two.py", "# quite\n# another text\n")
    gate.touch()

    with pytest.raises(ZeroDivisionError) as caught:
        list(results)

    shown = "\n".join(caught.value.__notes__)
    for words in ("# in the cell", "# in one", "# in two", "two.py"):
        assert words in shown, shown
    assert "another text" not in shown


# --- the same again ---


def test_an_unchanged_function_is_the_same_object_again(client: Client, folder: Folder) -> None:
    folder.write("one.py", "class C: pass\ndef g(x): return x + 1")
    names = cell(
        "import one\nfrom dataclasses import dataclass\n@dataclass\nclass D:\n    a: int\n"
        "def outer(n):\n    def f(x):\n        import json\n        return one.g(x) + n, D(x)\n    return f\n"
        "f = outer(1)"
    )
    objects = Path(client.settings.share or "") / "objects"

    def submitted() -> set[str]:
        list(client.map(names["f"], range(3)))
        return set(os.listdir(objects))

    before = submitted()
    payload.dump(names["D"](1))  # pickle leaves a note on the class
    again = submitted()
    folder.write("one.py", "class C: pass\ndef g(x): return x + 2")
    changed = submitted()

    assert again == before
    assert len(changed - before) == 1


IN_A_FRESH_PROCESS = """
import json, sys
sys.path[:0] = [{folder!r}, {tests!r}]
from fakes.world import cell
from golem_magic import payload
names = cell({source!r})
names["f"](1)
print(json.dumps([payload.dump_function(names["f"], "f").digest() for _ in range(2)]))
"""


def test_a_function_without_classes_is_the_same_object_in_a_fresh_process(folder: Folder) -> None:
    folder.write("one.py", "import two\ndef g(x): return x + two.n")
    folder.write("two.py", "n = 1")
    source = (
        "import one, json\nimport numpy as np\ntable = {'a': [1.5, None], 'b': np.arange(3)}\n"
        "def twice(x: int, *, k=2) -> int:\n    'Doc.'\n    return k * x\n"
        "def f(x):\n    from two import n\n    return [one.g(twice(x)) for _ in table], lambda: n"
    )
    code = IN_A_FRESH_PROCESS.format(folder=str(folder.path), tests=str(ROOT / "tests"), source=source)

    found: list[str] = []
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
        found += json.loads(done.stdout)

    assert len(found) == 6
    assert len(set(found)) == 1
