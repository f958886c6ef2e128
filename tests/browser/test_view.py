"""The progress view as people meet it: in a real JupyterLab in a real browser."""

from pathlib import Path

import pytest
from browser.conftest import SHOTS, OpenNotebook
from browser.labdriver import Notebook, files

pytestmark = pytest.mark.browser

WIDGET = "application/vnd.jupyter.widget-view+json"
IMPORTS = "from fakes.fake_job import FakeJob\nfrom golem_magic.progress import JobView\n"
SHOW = IMPORTS + "job = FakeJob({job})\nview = JobView(job.snapshot, cancel=job.cancel).show()"
CANCEL_FAILS_ONCE = """\
job = FakeJob(400, task_s=0.3)
answers = [job.cancel, None]
def cancel(): answers.pop()()
view = JobView(job.snapshot, cancel=cancel).show()
"""
BUSY = "import time\nwhile not job.snapshot().state.is_final: time.sleep(0.05)\nprint('waited')"


def done_percent(notebook: Notebook, cell: int = 0) -> float:
    """How much of the bar its first part fills, as the browser has laid it out."""
    measured = (
        "area => ['td', 'table'].map(part => area.querySelector(part).getBoundingClientRect().toJSON())"
    )
    part, whole = notebook.output(cell).evaluate(measured)  # at one moment: the next picture replaces both
    assert part["height"] >= 10
    return float(100 * part["width"] / whole["width"])


def test_the_bar_moves_while_a_later_cell_runs(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SHOW.format(job="task_s=0.4, failing=[3]"), BUSY)
    notebook.run(0)  # returns at once

    notebook.start(1)
    notebook.wait_for_text("7/40 done", cell=0)
    early = done_percent(notebook)
    notebook.wait_for_text("19/40 done", cell=0)
    late = done_percent(notebook)
    notebook.screenshot(SHOTS / "view-running.png")
    assert "waited" not in notebook.text(1)
    notebook.wait_until_idle()

    assert early < 25 < 45 < late
    notebook.wait_for_text("finished with errors", cell=0)
    assert notebook.output(0).get_by_role("button").count() == 0


def test_cancel_works_while_the_kernel_is_idle(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SHOW.format(job="n_tasks=400, task_s=0.3, label='a label'"))
    notebook.run_all()
    notebook.wait_for_text("running on 4 workers", cell=0)

    notebook.click("Cancel", cell=0)

    seen = notebook.wait_for_text("cancelled", cell=0)
    assert "not run" in seen


def test_cancel_works_while_a_cell_waits(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SHOW.format(job="n_tasks=400, task_s=0.3"), BUSY)
    notebook.run(0)
    notebook.start(1)
    notebook.wait_for_text("running on 4 workers", cell=0)

    notebook.click("Cancel", cell=0)

    notebook.wait_for_text("cancelled", cell=0, timeout_s=10)
    notebook.wait_until_idle()


def test_a_cancel_that_fails_can_be_tried_again(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(IMPORTS + CANCEL_FAILS_ONCE)
    notebook.run_all()

    notebook.click("Cancel", cell=0)
    notebook.click("Cancel (failed, try again)", cell=0)

    notebook.wait_for_text("cancelled", cell=0)


def test_a_page_that_was_away_shows_the_end(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SHOW.format(job="n_tasks=8, task_s=0.5"), BUSY)
    notebook.run(0)
    [stored] = notebook.stored_outputs(0)
    notebook.start(1)
    notebook.close()  # the kernel goes on

    again = open_notebook(again=notebook)

    assert WIDGET in stored.data
    again.wait_for_text("finished", cell=0)
    assert again.output(0).get_by_role("button").count() == 0


def test_a_reopened_notebook_shows_the_summary_without_its_kernel(open_notebook: OpenNotebook) -> None:
    notebook = open_notebook(SHOW.format(job="n_tasks=8, task_s=0.5, failing=[5]"))
    notebook.run_all()
    [running] = notebook.stored_outputs(0)
    notebook.wait_for_text("finished with errors", cell=0)
    [ended] = notebook.stored_outputs(0)
    notebook.shut_down()
    notebook.close()
    change_by_hand(notebook.path)

    again = open_notebook(again=notebook)
    again.shut_down()

    assert {WIDGET, "text/html", "text/plain"} <= set(running.data)
    assert set(ended.data) == {"text/html", "text/plain"}
    seen = again.wait_for_text("7/8 done", cell=0)
    assert "first failure, task 5: ZeroDivisionError" in seen
    assert "job 0f3a9c1e · as of" in seen
    assert again.output(0).locator(".jp-mod-trusted").count() == 0  # sanitized, and still a bar
    assert 80 < done_percent(again) < 90


def change_by_hand(path: Path) -> None:
    """Make the file one that this server has not signed, like any file from elsewhere."""
    notebook = files.read(path, 4)
    notebook.cells.append(files.v4.new_markdown_cell("changed"))
    files.write(notebook, path)
