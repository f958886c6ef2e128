"""The magics in a real kernel: replies, tracebacks, interrupts, loading at its start, whole maps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest
from fakes.golem_double import GolemDouble
from kernel_session import KernelSession, started_kernel

ROOT = Path(__file__).parents[2]
Kernel: TypeAlias = KernelSession


def test_the_magics_are_there_without_loading_and_help_and_complete(kernel: Kernel) -> None:
    assert kernel.value("'golem_magic' in get_ipython().extension_manager.loaded") == "True"
    assert kernel.value("'requests' in __import__('sys').modules") == "False"

    kernel.run("def my_function(x): return x")

    assert kernel.complete("%golem_map my_fun") == ["my_function"]
    assert kernel.complete("r = %golem_map my_function my_xs --on-error sk") == ["skip"]
    assert "already loaded" in kernel.run("%load_ext golem_magic").text


def test_a_mistake_stops_a_run_of_all_cells_with_one_line(kernel: Kernel) -> None:
    for cell in ("%%golemize -o 1x [1]\ndef f(x): return x", "%golem_map f", "%golem nope"):
        done = kernel.run(cell)

        assert done.status == "error"
        assert done.text.startswith("UsageError: ")
        assert done.text.count("\n") == 1
        assert done.data == []


def test_an_error_in_the_cell_is_shown_once_with_the_notebooks_line(kernel: Kernel) -> None:
    kernel.run("pass")

    failed = kernel.run("%%golemize [1]\n\ndef f(x):\n    return 1 / x\n\nf(0)")
    broken = kernel.run("%%golemize [1]\ndef f(x):\n    return x x")

    assert (failed.status, broken.status) == ("error", "error")
    assert failed.text.count("ZeroDivisionError: division by zero") == 1
    assert "line 6" in failed.text
    assert "line 4, in f(x)" in failed.text
    assert "golem_magic" not in failed.text
    assert broken.text.count("SyntaxError") == 1
    assert "line 3" in broken.text
    assert "Traceback" not in broken.text


def test_a_cell_becomes_a_job(kernel: Kernel) -> None:
    cell = "offset = 5\ndef square(x, offset):\n    return x * x + offset"
    done = kernel.run(f"%%golemize -o squares -c offset range(20)\n{cell}")

    assert (done.status, done.text) == ("ok", "")
    assert "square" in done.data[0]["text/plain"]
    assert kernel.value("list(squares) == [x * x + 5 for x in range(20)]") == "True"
    assert kernel.value("square(2, 1)") == "5"


def test_a_line_becomes_a_job_and_its_results_are_a_value(kernel: Kernel) -> None:
    assert kernel.run("%golem_map -o out (lambda x: x + 1) [x**2 for x in range(9) if x % 2]").status == "ok"
    assert kernel.value("list(out)") == "[2, 10, 26, 50]"
    assert kernel.run("r = %golem_map divmod zip([7, 8], [2, 3]) --star --wait").status == "ok"
    assert kernel.value("list(r)") == "[(3, 1), (2, 2)]"


def test_a_mappable_function_goes_to_the_engine(kernel: Kernel) -> None:
    kernel.run("%%golemize\ndef fact(n):\n    return n * fact(n - 1) if n else 1")

    assert kernel.value("fact(5)") == "120"
    assert kernel.value("list(fact.map(range(5)))") == "[1, 1, 2, 6, 24]"


def test_options_of_a_line_are_kept_by_the_workers(kernel: Kernel, tmp_path: Path) -> None:
    tried = tmp_path / "tried"
    kernel.run(
        "%%golemize [1, 2, 3] -o out --workers 1 --chunk-size 1 --setup load --retries 1 "
        "--retry-on (OSError, KeyError) --timeout 1 --on-error return --quiet\n"
        "import time\n"
        "def load():\n    return 10\n"
        "def f(x, loaded):\n"
        f"    with open({str(tried)!r}, 'a') as file: file.write(f'{{x}} ')\n"
        "    if x == 1: raise OSError('again')\n"
        "    if x == 2: time.sleep(600)\n"
        "    return x * loaded"
    )
    assert kernel.value("[type(value).__name__ for value in out]") == "['OSError', 'TaskTimeout', 'int']"
    assert kernel.value("out[2]") == "30"
    assert tried.read_text().split().count("1") == 2

    kernel.run("import time\nfail_or_sleep = lambda x: time.sleep(600) if x else 1 / x")
    kernel.run("%golem_map fail_or_sleep [0, 1] -o stopped --workers 1 --chunk-size 1 --on-error stop")
    kernel.run("stopped.wait()")
    assert kernel.value("stopped.progress.state.value") == "'cancelled'"


def test_inputs_without_end_are_mapped_within_a_budget(kernel: Kernel) -> None:
    kernel.run(
        "%%golemize itertools.count() -o out --stream --keep unread --disk-budget 100K --quiet\n"
        "import itertools\ndef block(n):\n    return bytes(1000), n"
    )

    assert kernel.value("[next(out)[1] for _ in range(1000)] == list(range(1000))") == "True"
    assert "ResultConsumed" in kernel.run("out[0]").text
    kernel.run("out.cancel()")
    assert kernel.value("out.wait(30)") == "True"


def test_lines_of_a_cell_with_magics_are_those_of_the_notebook_here_and_on_the_worker(
    kernel: Kernel,
) -> None:
    cell = (
        "%%golemize [1, 0] -o out --quiet\n\n"
        "%precision 3\n"
        "words = !echo one; echo two\n"
        "!true\n"
        "def inverse(x):\n"
        "    y = x\n"
        "    return 1 / y\n"
    )
    here = kernel.run(f"{cell}\n%time inverse(0)")
    kernel.run(cell)
    there = kernel.run("out[1]")

    assert (here.status, there.status) == ("error", "error")
    assert "line 8, in inverse" in here.text
    assert re.search(r"Cell In\[2\], line 8, in inverse\n    return 1 / y\n", there.text)
    assert kernel.value("words") == "['one', 'two']"


def test_what_a_task_raises_shows_its_remote_lines(kernel: Kernel) -> None:
    kernel.run("%%golemize -o out [1, 0]\ndef inverse(x):\n    return 1 / x")

    done = kernel.run("list(out)")

    assert done.status == "error"
    assert "ZeroDivisionError" in done.text
    assert "return 1 / x" in done.text
    assert "in inverse" in done.text


def test_an_interrupt_stops_waiting_and_nothing_else(kernel: Kernel, tmp_path: Path) -> None:
    flag = tmp_path / "go"
    kernel.run(
        f"%%golemize -o out [1]\nimport os, time\ndef slow(x):\n"
        f"    while not os.path.exists({str(flag)!r}): time.sleep(0.01)\n    return x"
    )

    done = kernel.run(
        "import threading\nthreading.Timer(0.5, lambda: print('the bell', flush=True)).start()\n"
        "%golem_map slow [2] -o second --wait",
        interrupt_when="the bell",
    )
    flag.touch()

    job = kernel.value("second.job_id[:8]").strip("'")
    assert f"stopped waiting; job {job} goes on - cancel it with %golem cancel {job}" in done.text
    assert kernel.value("list(out) + list(second)") == "[1, 2]"


def test_a_job_is_listed_cancelled_and_attached(kernel: Kernel) -> None:
    kernel.run("%%golemize -o out [1, 2, 3] --label naps\nimport time\ndef nap(x):\n    time.sleep(600)")
    job = kernel.value("out.job_id[:8]").strip("'")

    listed = kernel.run("%golem jobs").text
    cancelled = kernel.run("%golem cancel out")
    attached = kernel.run(f"%golem attach {job} -o again")

    assert [line.split()[:3] for line in listed.splitlines()][1] == [job, "nap", "naps"]
    assert (cancelled.status, attached.status) == ("ok", "ok")
    assert kernel.value("again.wait(30), again.progress.state.value") == "(True, 'cancelled')"


def test_a_job_outlives_its_kernel(tmp_path: Path, state_dir: Path) -> None:
    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        kernel.run("%%golemize -o out range(5)\ndef square(x):\n    return x * x")
        job = kernel.value("out.job_id").strip("'")

    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        kernel.run(f"%golem attach {job[:10]} -o out")

        assert kernel.value("list(out)") == "[0, 1, 4, 9, 16]"


@pytest.mark.parametrize("engine", ["golem", "nowhere"])
def test_an_engine_that_is_not_set_up_is_told_in_one_line(kernel: Kernel, engine: str) -> None:
    done = kernel.run(f"%golem_map abs [-1] --engine {engine}")

    assert done.status == "error"
    assert done.text.startswith("UsageError: ")
    assert engine in done.text


# A process of its own: nbclient leaves sockets to the garbage collector, which warns of each.
EXECUTE = """
import sys, nbformat, nbclient
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in sys.argv[1:]])
nbclient.NotebookClient(notebook, timeout=60, store_widget_state=False).execute()
print(nbformat.writes(notebook))
"""


def test_a_notebook_run_without_a_browser_keeps_the_end_of_its_jobs(tmp_path: Path, state_dir: Path) -> None:
    cells = [
        "%load_ext golem_magic",
        "%%golemize range(30)\nimport time\ndef nap(x):\n    time.sleep(0.02)\n    return x",
        "sum(nap_results)",
    ]
    world = {
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(tmp_path),
        "GOLEM_MAGIC_SHARE": str(tmp_path / "share"),
    }

    command = [sys.executable, "-c", EXECUTE, *cells]
    executed = subprocess.run(command, env=os.environ | world, stdout=subprocess.PIPE, check=True)

    mapped, summed = [cell["outputs"] for cell in json.loads(executed.stdout)["cells"][1:]]
    assert summed[0]["data"]["text/plain"] == ["435"]
    assert [output["output_type"] for output in mapped] == ["display_data"]
    assert "30/30 done" in mapped[0]["data"]["text/plain"][0]
    assert set(mapped[0]["data"]) == {"text/plain", "text/html"}  # no widget, which would be dead


def test_an_engine_that_does_not_answer_is_told_at_once_or_under_the_cell(
    kernel: Kernel, tmp_path: Path
) -> None:
    with GolemDouble(tmp_path / "golem", password="right", slots=()) as golem:  # nothing runs there
        kernel.run(
            f"import os\nos.environ['GOLEM_MAGIC_SERVER_URL'] = {golem.url!r}\n"
            "os.environ['GOLEM_MAGIC_SERVER_PASSWORD'] = 'right'"
        )
        kernel.run("%golem_map -o out abs [-1] --engine golem --workers 1")
        kernel.run(
            "views = [view for _, view in get_ipython().magics_manager.registry['GolemMagics']._shown]"
        )

    waiting = "while not out.progress.note: pass\nviews[0]"  # the kernel has a deadline
    [shown] = kernel.run(waiting).data
    kernel.run("out.cancel()")
    refused = kernel.run("%golem_map -o more abs [-1] --engine golem --workers 1")

    for kind in ("text/plain", "text/html"):
        assert "the engine does not answer, asking again: " in shown[kind]
        assert golem.url in shown[kind]
    assert refused.text.startswith("UsageError: ")
    assert golem.url in refused.text
    assert (refused.text.count("\n"), kernel.value("'more' in globals()")) == (1, "False")
