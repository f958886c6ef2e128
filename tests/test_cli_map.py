"""``golem-magic map``: a function in one file, inputs in another, results into a third."""

import json
import os
import pickle
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from engines.engine_contract import wait_until

import golem_magic
from golem_magic import Client
from golem_magic.cli import main
from golem_magic.errors import FileError
from golem_magic.filemap.inputs import read_inputs
from golem_magic.filemap.outputs import check_output, writing

ROOT = Path(golem_magic.__file__).parent.parent
CLI = [sys.executable, "-m", "golem_magic"]
DEADLINE_S = 60
Told = Callable[..., tuple[int, str, str]]
Say = Callable[..., "subprocess.CompletedProcess[str]"]
nb: Any = nbformat.v4  # untyped
CELLS = [
    "%matplotlib inline\nimport math",
    "raise SystemExit('an unrelated cell was run')",
    "table = [10, 20]\ndef load():\n    return 1000",
    "def score(x):\n    import beside\n    return math.floor(beside.half(x))",
    "def third(row, common, loaded):\n    return {'sum': float(row['x']) + common[1] + loaded}",
]


def environment() -> dict[str, str]:
    """That of a shell, in which the current folder is not on the import path, as for the console script."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    (path / "nb").mkdir(parents=True)
    made = nb.new_notebook(cells=[nb.new_code_cell(text) for text in CELLS])
    nbformat.write(made, path / "nb" / "analysis.ipynb")  # type: ignore[no-untyped-call]
    (path / "nb" / "beside.py").write_text("def half(x):\n    return 10 // x\n")
    (path / "whole.py").write_text("def double(x):\n    return 2 * x\n")
    return path


@pytest.fixture
def say(folder: Path, state_dir: Path) -> Say:
    """Run ``golem-magic map`` in the folder."""

    def say(*words: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*CLI, *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            cwd=folder,
            **more,
        )

    return say


def written(path: Path, *values: Any) -> str:
    """What a file holds after these results."""
    with writing(str(path)) as sink:
        for index, value in enumerate(values):
            sink.put(index, value)
    return path.read_text()


@pytest.fixture
def told(
    folder: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run it in this process: give the exit code, what was written, and the complaints."""
    monkeypatch.chdir(folder)

    def told(*words: str) -> tuple[int, str, str]:
        try:
            code = main(words)
        except SystemExit as end:
            code = int(str(end.code))
        return code, *capsys.readouterr()

    return told


# --- inputs ---


@pytest.mark.unit
def test_inputs_are_read_as_the_files_ending_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('1\n\n{"x": [2]}\n"three"\n')
    (tmp_path / "a.csv").write_text('\ufeffx,y\r\n1,"a, b"\r\n\r\n2,\r\n', encoding="utf-8")
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2\n")
    (tmp_path / "a.txt").write_text("one\n\n two\r\nthree")
    np.save(tmp_path / "a.npy", np.arange(4).reshape(2, 2))
    np.save(tmp_path / "b.npy", np.arange(2))
    (tmp_path / "a.pickle").write_bytes(pickle.dumps({1, 2}))

    def read(name: str) -> list[Any]:
        return list(read_inputs(str(tmp_path / name)))

    assert read("a.jsonl") == [1, {"x": [2]}, "three"]
    assert read("a.csv") == [{"x": "1", "y": "a, b"}, {"x": "2", "y": ""}]
    assert read("a.tsv") == [{"x": "1", "y": "2"}]
    assert read("a.txt") == ["one", "", " two", "three"]
    assert [row.tolist() for row in read("a.npy")] == [[0, 1], [2, 3]]
    assert {type(row) for row in read("a.npy")} == {np.ndarray}
    assert read("b.npy") == [0, 1]
    assert read("a.pickle") == [1, 2]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b"1\n2\n{x\n", "a.jsonl, line 3 is not JSON: Expecting property name"),
        ("a.csv", b"x,y\n1,2\n1\n", "a.csv, line 3 has 1 values under 2 names"),
        ("a.csv", b'x,y\n1,"2\n', "a.csv, line 2: unexpected end of data"),
        ("a.txt", b"a\n\xff\n", "a.txt is no text in UTF-8"),
        ("a.npy", b"nothing", "a.npy is no array that can be read"),
        ("a.pickle", b"nothing", "a.pickle cannot be unpickled (UnpicklingError"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(
    tmp_path: Path, name: str, data: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(FileError, match=re.escape(said)):
        list(read_inputs(str(tmp_path / name)))


@pytest.mark.unit
def test_files_that_are_not_there_and_pickles_of_others_are_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.pickle").write_bytes(pickle.dumps([1]))
    (tmp_path / "a.pickle").chmod(0o666)
    np.save(tmp_path / "a.npy", np.array(3))

    for name, said in [
        ("none.jsonl", "No such file"),
        ("none.npy", "No such file"),
        (".", "Is a directory"),
        ("a.pickle", "a pickle runs code of whoever wrote it"),
        ("a.npy", "holds one number"),
    ]:
        with pytest.raises(FileError, match=said):
            read_inputs(str(tmp_path / name))


# --- results ---


@pytest.mark.unit
def test_results_are_written_as_the_files_ending_says(tmp_path: Path) -> None:
    error = ValueError("no, never")

    assert written(tmp_path / "a.jsonl", 1, error, np.arange(2), np.float64(0.5), {"x": (1,)}) == (
        '1\n{"error": {"type": "ValueError", "message": "no, never"}}\n[0, 1]\n0.5\n{"x": [1]}\n'
    )
    assert written(tmp_path / "a.csv", error, {"x": 1, "y": "a,b"}, error) == (
        'x,y,error\n,,"ValueError: no, never"\n1,"a,b",\n,,"ValueError: no, never"\n'
    )
    assert written(tmp_path / "b.csv", 1, 2.5) == "value,error\n1,\n2.5,\n"
    assert written(tmp_path / "c.tsv", (1, 2)) == "0\t1\terror\n1\t2\t\n"
    assert written(tmp_path / "d.csv") == "value,error\n"
    assert written(tmp_path / "e.csv", error) == 'value,error\n,"ValueError: no, never"\n'
    with writing(str(tmp_path / "a.pickle")) as sink:
        for index, value in enumerate([{1, 2}, error]):
            sink.put(index, value)
    values = pickle.loads((tmp_path / "a.pickle").read_bytes())
    assert (values[0], repr(values[1])) == ({1, 2}, repr(error))


@pytest.mark.unit
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("before")

    def write_and_stop() -> None:
        with writing(str(path)) as sink:
            sink.put(0, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_stop()

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.unit
def test_values_that_do_not_fit_are_told_with_their_task(tmp_path: Path) -> None:
    for name, values, said in [
        ("a.jsonl", [1, object()], r"task 1 gave what JSON cannot hold \(a object\): write a .pickle file"),
        ("a.csv", [{"x": 1}, {"y": 1}], "task 1 gave columns y, those before it x: write a .jsonl file"),
        ("a.pickle", [lambda: 1], "task 0 gave a function that cannot be written"),
    ]:
        with pytest.raises(FileError, match=said):
            written(tmp_path / name, *values)
    assert not list(tmp_path.iterdir())


@pytest.mark.unit
def test_files_that_cannot_be_written_are_refused_before_the_map(tmp_path: Path) -> None:
    for name in ("a.xlsx", "a", "none/a.csv"):
        with pytest.raises(FileError, match=r"results are written as|is no folder that you can write"):
            check_output(str(tmp_path / name))


# --- the command ---


@pytest.mark.meets("G-23")
def test_a_map_from_file_to_file_is_quiet_in_a_pipe(say: Say, folder: Path) -> None:
    (folder / "inputs.jsonl").write_text("1\n2\n5\n")
    (folder / "rows.csv").write_text("x\n1\n2.5\n")

    plain = say("map", "nb/analysis.ipynb::score", "inputs.jsonl", "-o", "scores.jsonl", "--workers", "1")
    piped = say("map", "nb/analysis.ipynb::score", "-", "--workers", "1", input="10\n1\n")
    more = say(
        "map", "nb/analysis.ipynb::third", "rows.csv", "-c", "table", "--setup", "load", "-o", "sums.csv"
    )
    module = say("map", "whole::double", "inputs.jsonl")

    assert [(each.returncode, each.stderr) for each in (plain, piped, more, module)] == [(0, "")] * 4
    assert (plain.stdout, (folder / "scores.jsonl").read_text()) == ("", "10\n5\n2\n")
    assert piped.stdout == "1\n10\n"
    assert (folder / "sums.csv").read_text() == "sum,error\n1021.0,\n1022.5,\n"
    assert module.stdout == "2\n4\n10\n"


def test_failures_keep_their_place_and_end_with_a_code(told: Told, folder: Path) -> None:
    (folder / "inputs.jsonl").write_text("1\n0\n2\nnonsense\n")

    code, out, err = told("map", "nb/analysis.ipynb::score", "inputs.jsonl", "-o", "scores.jsonl")

    lines = [json.loads(line) for line in (folder / "scores.jsonl").read_text().splitlines()]
    assert [lines[0], lines[2]] == [10, 5]
    assert lines[1]["error"]["type"] == "ZeroDivisionError"
    assert (code, out) == (1, "")
    assert err.startswith("golem-magic: inputs.jsonl, line 4 is not JSON: ")
    assert len(err.splitlines()) == 1


def test_what_failed_is_told_on_a_line(told: Told, folder: Path) -> None:
    (folder / "inputs.txt").write_text("x\n")

    code, out, err = told("map", "nb/analysis.ipynb::score", "inputs.txt")

    assert code == 1
    assert json.loads(out)["error"]["type"] == "TypeError"
    assert err.startswith("golem-magic: 1 of 1 tasks failed, the first is task 0: TypeError: ")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (
            ["nb/analysis.ipynb::scor", "in.txt"],
            1,
            "analysis.ipynb does not define scor, did you mean score?",
        ),
        (["analysis.ipynb", "in.txt"], 1, "analysis.ipynb names no function: write FILE::NAME"),
        (["nb/analysis.ipynb::table", "in.txt"], 1, "cannot be called"),
        (["nb/analysis.ipynb::score", "none.txt"], 1, "cannot read the inputs from none.txt (No such file"),
        (["nb/analysis.ipynb::score", "in.txt", "-o", "x.png"], 1, "x.png: results are written as .jsonl"),
        (
            ["nb/analysis.ipynb::score", "in.txt", "--workers", "0"],
            2,
            "argument --workers: 0 is no whole number",
        ),
        (["nb/analysis.ipynb::score"], 2, "the following arguments are required: INPUTS"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_sent(
    told: Told, folder: Path, share: Path, words: list[str], code: int, said: str
) -> None:
    (folder / "in.txt").write_text("x\n")

    ended, out, err = told("map", *words)

    assert (ended, out) == (code, "")
    assert said in err.splitlines()[-1]
    assert not list(share.iterdir())


def test_an_interrupt_stops_waiting_and_says_how_to_get_the_results(say: Say, folder: Path) -> None:
    (folder / "slow.py").write_text(
        "import os, time\ndef wait(x):\n    open('begun', 'w').close()\n"
        "    while not os.path.exists('release'):\n        time.sleep(0.01)\n    return x\n"
    )
    (folder / "in.jsonl").write_text("1\n2\n")
    process = subprocess.Popen(
        [*CLI, "map", "slow.py::wait", "in.jsonl", "-o", "out.jsonl", "--workers", "1"],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    assert process.stderr is not None
    with process.stderr:
        # The last thing before it waits: its own file for the results.
        wait_until(lambda: (folder / "begun").exists() and bool(list(folder.glob("*.part"))), "the wait")
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == 130
        told = process.stderr.read()
    found = re.search(r"stopped waiting; job (\w+) goes on - (golem-magic attach \w+ -o out.jsonl)", told)
    assert found is not None
    assert not list(folder.glob("out*"))
    (folder / "release").touch()

    attached = say(*found[2].split()[1:])

    assert (attached.returncode, attached.stderr) == (0, "")
    assert (folder / "out.jsonl").read_text() == "1\n2\n"
    with Client() as client:
        assert len(client.jobs()) == 1


def test_a_terminal_shows_what_was_used_and_a_line_of_progress(folder: Path, state_dir: Path) -> None:
    (folder / "in.jsonl").write_text("1\n2\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*CLI, "map", "nb/analysis.ipynb::score", "in.jsonl", "-o", "out.jsonl", "--workers", "1"],
        env=environment(),
        stderr=theirs,
        cwd=folder,
    )
    os.close(theirs)
    shown = b""
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        try:
            while part := terminal.read(4096):
                shown += part
        except OSError:  # so Linux says that the other side is closed
            pass
    assert process.wait(DEADLINE_S) == 0
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert lines[0] == "score: cells 1, 4 of analysis.ipynb"
    assert "2/2" in lines[-1]
