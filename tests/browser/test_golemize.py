"""Real jobs as people meet them: the magics in a real JupyterLab in a real browser."""

import pytest
from browser.conftest import SHOTS, OpenNotebook
from browser.labdriver import Notebook
from browser.test_view import WIDGET, change_by_hand, done_percent

pytestmark = pytest.mark.browser

LOAD = "%load_ext golem_magic"


def job_of(notebook: Notebook) -> str:
    """The short id under the first cell that shows a job."""
    return notebook.text(1).rpartition("job ")[2][:8]


def test_a_cell_becomes_a_job_whose_bar_moves_while_another_cell_runs(open_notebook: OpenNotebook) -> None:
    mapped = (
        "%%golemize -o squares range(400) --label 'first try'\nimport time\n"
        "def square(x):\n    time.sleep(0.012)\n    return x * x"
    )
    reading = (
        "seen = []\nfor value in squares:\n    seen.append(value)\nprint(seen == [x * x for x in range(400)])"
    )
    notebook = open_notebook(LOAD, mapped, reading, "squares")
    notebook.run(0)
    notebook.run(1)  # returns at once

    notebook.start(2)
    notebook.wait_for_text("running on 2 workers", cell=1)
    early = done_percent(notebook, 1)
    notebook.screenshot(SHOTS / "golemize-running.png")
    notebook.wait_until(lambda: done_percent(notebook, 1) > early + 20)
    assert "True" not in notebook.text(2)
    notebook.wait_until_idle()
    notebook.run(3)

    assert notebook.text(2).strip() == "True"
    assert "400/400 done" in notebook.wait_for_text("finished", cell=1)
    assert "<Results of square: done, 400/400 done" in notebook.text(3)
    notebook.screenshot(SHOTS / "golemize-done.png")


def test_the_cancel_button_cancels_the_job_and_keeps_what_is_there(open_notebook: OpenNotebook) -> None:
    mapped = "%%golemize -o naps range(500)\nimport time\ndef nap(x):\n    time.sleep(0.05)\n    return x"
    reading = (
        "from golem_magic import JobCancelled\nread = []\ntry:\n    for value in naps: read.append(value)\n"
        "except JobCancelled: print('read', len(read), read == list(range(len(read))), naps.progress.state)"
    )
    notebook = open_notebook(LOAD, mapped, reading, "%golem jobs")
    notebook.run(0)
    notebook.run(1)
    notebook.start(2)  # waits for results, so the click must pass a busy kernel
    notebook.wait_until(lambda: done_percent(notebook, 1) > 2)

    notebook.click("Cancel", cell=1)

    shown = notebook.wait_for_text("cancelled", cell=1, timeout_s=10)
    notebook.wait_until_idle()
    notebook.run(3)
    notebook.screenshot(SHOTS / "golemize-cancelled.png")
    word, n_read, in_order, state = notebook.text(2).split()
    assert "not run" in shown
    assert (word, in_order, state) == ("read", "True", "cancelled")
    assert 0 < int(n_read) < 500
    assert [job_of(notebook), "cancelled"] == [notebook.text(3).split()[i] for i in (5, 7)]
    assert notebook.output(1).get_by_role("button").count() == 0


def test_a_failure_is_seen_at_once_and_the_summary_without_a_kernel(open_notebook: OpenNotebook) -> None:
    mapped = "%%golemize -o inverses [4, 2, 0, 1]\n\ndef inverse(x):\n    return 1 / x"
    notebook = open_notebook(LOAD, mapped, "for value in inverses:\n    print(value)", "inverses.errors()")
    for cell in range(4):
        notebook.run(cell)
    notebook.wait_for_text("finished with errors", cell=1)
    failure, listed = notebook.text(2), notebook.text(3)
    notebook.screenshot(SHOTS / "golemize-failed.png")
    [stored] = notebook.stored_outputs(1)
    notebook.shut_down()
    notebook.close()
    change_by_hand(notebook.path)  # not signed here: the html is sanitized

    again = open_notebook(again=notebook)
    again.shut_down()

    assert failure.startswith("0.25\n0.5\n")
    assert "ZeroDivisionError: division by zero\ntask 2 on " in failure
    assert "Cell In[2], line 4, in inverse\n" in failure
    assert "1 task failed" in listed
    assert WIDGET not in stored.data
    assert "first failure, task 2: ZeroDivisionError" in again.wait_for_text("3/4 done", cell=1)
    assert 70 < done_percent(again, 1) < 80
