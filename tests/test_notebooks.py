"""The notebooks: their runner sees a wrong number, and the quickstart gives the committed ones."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(*printed: str) -> nbformat.NotebookNode:
    v4 = nbformat.v4
    cells = [v4.new_code_cell("pass", outputs=[v4.new_output("stream", text=text)]) for text in printed]
    for n, cell in enumerate(cells):
        cell["id"] = f"cell-{n}"
    made: nbformat.NotebookNode = v4.new_notebook(cells=cells)
    return made


@pytest.mark.unit
@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("r = 0.997 of 435", "r = 0.9970 of 435", True),
        ("r = 0.997", "r = 0.998", True),  # the last printed digit may round either way
        ("r = 0.997", "r = 0.999", False),
        ("435 pairs", "436 pairs", False),
        ("p = 1e-3", "p = 1.1e-3", False),
        ("r = 0.5", "q = 0.5", False),
        ("[ 1.00,  2.00]", "[1.00, 2.00]", False),
        ("one", "(nothing)", False),
    ],
)
def test_lines_are_compared_by_the_value_of_their_numbers(
    runner: ModuleType, one: str, other: str, same: bool
) -> None:
    assert runner.same_line(one, other, 1e-6) is same


@pytest.mark.unit
def test_a_number_that_changed_is_named_with_its_cell(runner: ModuleType) -> None:
    found = list(runner.differences(notebook("a 1\n", "b 2\n"), notebook("a 1\n", "b 3\n"), 1e-6))

    assert found == ["cell cell-1: 'b 2', now 'b 3'"]


@pytest.mark.unit
def test_a_line_that_is_missing_or_new_differs(runner: ModuleType) -> None:
    short, long = notebook("a 1\n"), notebook("a 1\nb 2\n")

    assert len(list(runner.differences(short, long, 1e-6))) == 1
    assert len(list(runner.differences(long, short, 1e-6))) == 1


@pytest.mark.unit
def test_a_notebook_without_outputs_cannot_agree(runner: ModuleType) -> None:
    assert list(runner.differences(notebook(""), notebook(""), 1e-6))


@pytest.mark.unit
def test_tidying_leaves_neither_dead_views_nor_counters(runner: ModuleType) -> None:
    v4 = nbformat.v4
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    outputs = [
        v4.new_output("display_data", data=dict(view)),
        v4.new_output("display_data", data={**view, "text/html": "job"}),
        v4.new_output("stream", text="The golem_magic extension is already loaded.\n"),
        v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=7),
    ]
    one = v4.new_notebook(cells=[v4.new_code_cell("1", execution_count=7, outputs=outputs)])
    one.metadata["widgets"] = {"state": {}}

    runner.tidy(one)

    left = [dict(output.data) for output in one.cells[0].outputs]
    assert left == [{"text/html": "job"}, {"text/plain": "1"}]
    assert one.cells[0].execution_count is None
    assert one.cells[0].outputs[1].execution_count is None
    assert "widgets" not in one.metadata


@pytest.mark.unit
def test_print_that_the_kernel_cut_in_two_is_joined(runner: ModuleType) -> None:
    cut = notebook("a 1")
    cut.cells[0].outputs.append(nbformat.v4.new_output("stream", text="\nb 2\n"))

    runner.tidy(cut)

    assert [output.text for output in cut.cells[0].outputs] == ["a 1\nb 2\n"]


@pytest.mark.unit
@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_committed_notebooks_are_tidy_and_executed(runner: ModuleType, path: Path) -> None:
    committed = nbformat.read(path, as_version=4)

    tidied = nbformat.from_dict(committed)
    runner.tidy(tidied)

    assert tidied == committed
    assert any(cell.get("outputs") for cell in committed.cells), f"run notebooks/execute.py --write {path}"


def test_the_quickstart_gives_the_committed_numbers(state_dir: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(NOTEBOOKS / "execute.py"),
        "--check",
        "--out",
        str(tmp_path),
        "quickstart.ipynb",
    ]

    run = subprocess.run(
        command,
        cwd=NOTEBOOKS,
        env=os.environ | {"PYTHONPATH": str(NOTEBOOKS.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout
    assert "2 Golem jobs" in run.stdout
    assert (tmp_path / "quickstart.ipynb").exists()
