"""``%golem_map FILE::NAME``, in a shell without a kernel."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fakes.here_client import HereClient

from golem_magic.cells import parse_map_line, parse_place
from golem_magic.errors import CellError

Run = Callable[[str], Any]
Refusal = Callable[[str], str]
nb: Any = nbformat.v4  # untyped


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: HereClient) -> Path:
    """The folder with a notebook, in which the shell is."""
    cells = ["%matplotlib inline\nN = 2", "1 / 0", "def score(x):\n    return x * N"]
    made = nb.new_notebook(cells=[nb.new_code_cell(text) for text in cells])
    nbformat.write(made, tmp_path / "other one.ipynb")  # type: ignore[no-untyped-call]
    nbformat.write(made, tmp_path / "other.ipynb")  # type: ignore[no-untyped-call]
    (tmp_path / "model.py").write_text("N = 3\ndef score(x):\n    return x * N\nraise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a.ipynb::f", ("a.ipynb", "f")),
        ("../a-b/c.py::A.f", ("../a-b/c.py", "A.f")),
        ("pkg.mod::f", ("pkg.mod", "f")),
        ("'a b.ipynb::f'", ("a b.ipynb", "f")),
        ('"a b.ipynb"::f', ("a b.ipynb", "f")),
        ("f", None),
        ("fs[::2]", None),
        ("fs[a::b]", None),
        ("fs[a::b].g", None),
        ("fs['a::b']", None),
        ("::f", None),
    ],
)
def test_places_are_told_from_expressions(text: str, place: tuple[str, str] | None) -> None:
    assert parse_place(text) == place
    if not text.startswith("::"):
        assert parse_map_line(f"{text}, range(3)").function == text


@pytest.mark.unit
@pytest.mark.parametrize("text", ["a.ipynb::", "a.py::2", "a.py::f.", "'a b.py'::f-1"])
def test_what_is_no_name_is_told(text: str) -> None:
    with pytest.raises(CellError, match="names no function: write FILE::NAME"):
        parse_map_line(f"{text} [1]")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("place", "values", "said"),
    [
        ("other.ipynb::score", [2, 4], "score: cells 1, 3 of other.ipynb\n"),
        ("'other one.ipynb'::score,", [2, 4], "score: cells 1, 3 of other one.ipynb\n"),
        ("./model.py::score", [3, 6], "score: lines 1-3 of model.py\n"),
    ],
)
def test_a_function_of_another_file_is_mapped(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str], place: str, values: list[int], said: str
) -> None:
    path = list(sys.path)

    run(f"%golem_map {place} [1, 2] -o out")

    assert said in capsys.readouterr().out
    assert run("list(out)") == values
    assert sys.path == path


@pytest.mark.unit
def test_imports_find_what_the_file_finds_while_a_job_is_sent(folder: Path, run: Run) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "echo.py").write_text("def echo(x):\n    return x\n")

    run("import sys")
    run("%golem_map deep/echo.py::echo (sys.path[0] for _ in [1]) -o out --quiet")

    assert run("list(out)") == [str(folder / "deep")]


@pytest.mark.unit
def test_nothing_is_said_where_nothing_shall_be(
    folder: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(run("%golem_map other.ipynb::score [1] --quiet")) == [2]
    assert "cells" not in capsys.readouterr().out


@pytest.mark.unit
def test_what_is_wrong_is_told_on_a_line(folder: Path, refusal: Refusal) -> None:
    assert refusal("%golem_map other.ipynb::scor [1]") == (
        "other.ipynb does not define scor, did you mean score?"
    )
    assert refusal("%golem_map other.ipynb::N [1]") == (
        "other.ipynb::N cannot be mapped: it is a int, not a function"
    )
    assert "cannot read" in refusal("%golem_map nowhere.ipynb::f [1]")


@pytest.mark.unit
def test_starting_needs_no_notebook_library(run: Run, client: HereClient) -> None:
    code = (
        "import sys, golem_magic.magics, golem_magic.cli\n"
        "assert not {'nbformat', 'golem_magic.sources'} & set(sys.modules)"
    )
    run(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {code!r}], check=True)")
