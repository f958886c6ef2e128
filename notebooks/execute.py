"""Execute notebooks as a person would, and tell what happened.

Three uses, one run each::

    python notebooks/execute.py quickstart.ipynb            executed copy in out/, with a report
    python notebooks/execute.py --check quickstart.ipynb    and its numbers must be the committed ones
    python notebooks/execute.py --write quickstart.ipynb    and the committed notebook is renewed

The kernel is this very interpreter: it is found through a kernel description written for this run,
never through what the user has installed. IPython's profile and the kernel's files go to a temporary
folder; only golem_magic itself uses the user's home.
"""

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

ROOT = Path(__file__).resolve().parent.parent
CELL_TIMEOUT_S = 600  # a cell of ours takes seconds; this only ends a hang
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
# Asked in the same kernel after the last cell, and never saved.
QUESTION = """
import json as _json, golem_magic as _golem
_jobs = {value.job_id: (name, len(value)) for name, value in list(globals().items())
         if isinstance(value, _golem.Results) and not name.startswith("_")}
print(_json.dumps(_jobs))
"""

Notebook = Any  # nbformat's node: a dict with attributes, untyped upstream


def main(arguments: Sequence[str]) -> int:
    """Execute the notebooks named in the arguments; 0 when all went well."""
    options = _parser().parse_args(arguments)
    return max(_treat(path.resolve(), options) for path in options.notebooks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Execute notebooks and tell what happened.")
    parser.add_argument("notebooks", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder for the executed copies")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="relative, for --check")
    deed = parser.add_mutually_exclusive_group()
    deed.add_argument("--check", action="store_true", help="compare the numbers with the committed ones")
    deed.add_argument("--write", action="store_true", help="renew the notebook itself")
    return parser


def _treat(path: Path, options: argparse.Namespace) -> int:
    committed = nbformat.read(path, as_version=4)
    print(f"executing {_shown(path)} ...", flush=True)
    started = time.monotonic()
    copy = options.out.resolve() / path.name
    executed = nbformat.from_dict(committed)
    try:
        jobs = execute(executed, path.parent)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        print(f"{_shown(path)} stopped at an error:\n{ANSI.sub('', str(error))}")
        _save(executed, copy)
        print(f"as far as it came: {_shown(copy)}")
        return 1
    tidy(executed)
    _save(executed, path if options.write else copy)
    _report(jobs, time.monotonic() - started, path if options.write else copy)
    return _compare(committed, executed, options.tolerance) if options.check else 0


# --- running ---


def execute(notebook: Notebook, folder: Path) -> dict[str, tuple[str, int]]:
    """Run all cells in place; give the jobs that are bound at the end, as ``{job id: (name, tasks)}``."""
    notebook.cells.append(nbformat.v4.new_code_cell(QUESTION))
    with _private_kernel() as manager:
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=CELL_TIMEOUT_S,
            store_widget_state=False,
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(cleanup_kc=True)  # or the kernel would live until this process ends
        finally:
            question = notebook.cells.pop()
    answer = "".join(output.get("text", "") for output in question.outputs)
    return {job_id: (name, n_tasks) for job_id, (name, n_tasks) in json.loads(answer).items()}


@contextmanager
def _private_kernel() -> Iterator[AsyncKernelManager]:
    """Give a kernel of this interpreter that reads nothing of, and leaves nothing in, the user's home."""
    # /tmp, because the kernel listens on Unix sockets in there and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="gm-", dir="/tmp") as name:
        folder = Path(name)
        described = folder / "kernels" / "python3"
        described.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (described / "kernel.json").write_text(json.dumps(kernel))
        os.environ |= {
            "JUPYTER_PATH": name,
            "JUPYTER_RUNTIME_DIR": name,
            "IPYTHONDIR": str(folder / "ipython"),
            # Kept beside the interpreter: drawing the list of fonts anew costs seconds.
            "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(Path(sys.prefix) / "matplotlib")),
        }
        yield AsyncKernelManager(kernel_name="python3", transport="ipc", ip=str(folder / "kernel"))


# --- saving ---


def tidy(notebook: Notebook) -> None:
    """Take out what differs from run to run without saying anything, and views that died with the kernel."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = _joined([output for output in cell.outputs if _says_something(output)])


def _says_something(output: Notebook) -> bool:
    # Where the package is installed its magics are there already, and IPython answers %load_ext with this.
    if "extension is already loaded" in output.get("text", ""):
        return False
    if "execution_count" in output:
        output.execution_count = None
    if "data" not in output:
        return True
    output.data.pop(WIDGET_VIEW, None)
    return bool(output.data)


def _joined(outputs: list[Notebook]) -> list[Notebook]:
    """Join what was printed in one go: where the kernel cut it is chance."""
    joined: list[Notebook] = []
    for output in outputs:
        is_stream = output.output_type == "stream"
        if is_stream and joined and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _save(notebook: Notebook, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def _report(jobs: dict[str, tuple[str, int]], seconds: float, path: Path) -> None:
    for job_id, (name, n_tasks) in jobs.items():
        print(f"  Golem job {job_id}: {n_tasks} tasks, results in `{name}`")
    print(f"{len(jobs)} Golem jobs, {seconds:.1f} s in all; the executed notebook is {_shown(path)}")


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


# --- comparing ---


def _compare(committed: Notebook, executed: Notebook, tolerance: float) -> int:
    faults = list(differences(committed, executed, tolerance))
    for fault in faults:
        print(f"  differs: {fault}")
    print(
        "numbers differ from the committed notebook" if faults else "all numbers as in the committed notebook"
    )
    return 1 if faults else 0


def differences(committed: Notebook, executed: Notebook, tolerance: float) -> Iterator[str]:
    """Name each place where the text of two runs differs, numbers by value and the rest by letter.

    Compared are printed text and values of cells (where jobs and times do not show), and that each
    picture is there; a cell tagged ``varies`` is left out. A notebook without any output has nothing
    to compare and differs too.
    """
    pairs = list(zip(committed.cells, executed.cells, strict=True))
    if not any(_text(cell) for cell, _ in pairs):
        yield "the committed notebook holds no outputs; renew it with --write"
    for cell, again in pairs:
        if "varies" not in cell.metadata.get("tags", []):
            for line, other in zip_longest(_text(cell), _text(again), fillvalue="(nothing)"):
                if not same_line(line, other, tolerance):
                    yield f"cell {cell.get('id')}: {line!r}, now {other!r}"


def _text(cell: Notebook) -> list[str]:
    if cell.cell_type != "code":
        return []
    lines: list[str] = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            lines += output.text.splitlines()
        elif output.output_type == "execute_result":
            lines += output.data.get("text/plain", "").splitlines()
        elif "data" in output and "image/png" in output.data:
            lines.append("(picture)")
    return lines


def same_line(one: str, other: str, tolerance: float) -> bool:
    """Whether two lines say the same, their numbers compared by value.

    A printed decimal may be off by one in its last digit: rounding may fall either way on another machine.

    >>> same_line("p = 0.300", "p = 0.3", 1e-6), same_line("p = 0.3", "q = 0.3", 1e-6)
    (True, False)
    >>> same_line("r = 0.997", "r = 0.998", 1e-6), same_line("310 pairs", "311 pairs", 1e-6)
    (True, False)
    """
    if NUMBER.sub("#", one).split() != NUMBER.sub("#", other).split():
        return False
    pairs = zip(NUMBER.findall(one), NUMBER.findall(other), strict=True)
    return all(_is_close(ours, theirs, tolerance) for ours, theirs in pairs)


def _is_close(one: str, other: str, tolerance: float) -> bool:
    decimals = min(len(number.partition(".")[2]) for number in (one, other))
    slack = 1.001 * 10.0**-decimals if decimals and "e" not in one.lower() else 0.0
    return math.isclose(float(one), float(other), rel_tol=tolerance, abs_tol=slack)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
