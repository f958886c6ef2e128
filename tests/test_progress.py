"""Pictures of snapshots, and the view in a terminal and in a kernel without a browser."""

import gc
import io
import os
import re
import sys
import threading
import time
import weakref
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import pytest
from fakes.fake_job import FakeJob

from golem_magic.model import JobId, JobSnapshot, JobState
from golem_magic.progress import JobView, as_html, as_text
from golem_magic.progress.picture import bar_widths

TESTS = Path(__file__).parent
PYTHON_PATH = os.pathsep.join([str(TESTS), str(TESTS.parent)])
IMPORTS = "from fakes.fake_job import FakeJob\nfrom golem_magic.progress import JobView\n"


def a_snapshot(**fields: Any) -> JobSnapshot:
    known: dict[str, Any] = {
        "job_id": JobId("0f3a9c1e5b7d2468ace013579bdf2468"),
        "function": "square",
        "label": "",
        "state": JobState.RUNNING,
        "n_tasks": 40,
        "n_staged": 40,
        "n_done": 20,
        "n_failed": 1,
        "n_running": 4,
        "n_workers": 4,
        "elapsed_s": 42.0,
    }
    return JobSnapshot(**known | fields)


NOTHING_YET = {"n_done": 0, "n_failed": 0, "n_running": 0, "n_workers": 0}
OVER = {"n_running": 0, "n_workers": 0}
FACTS = [
    (
        a_snapshot(),
        "square (job 0f3a9c1e): running on 4 workers, 20/40 done, 1 failed, 4 running, 15 waiting, "
        "42 s, about 38 s left",
    ),
    (
        a_snapshot(state=JobState.STAGING, n_tasks=None, n_staged=1200, **NOTHING_YET),
        "square (job 0f3a9c1e): drawing inputs, 0/1200+ done, 1200 waiting, 42 s",
    ),
    (
        a_snapshot(n_tasks=None, n_staged=50, n_failed=0),
        "square (job 0f3a9c1e): running on 4 workers, 20/50+ done, 4 running, 26 waiting, 42 s",
    ),
    (
        a_snapshot(state=JobState.QUEUED, note="all 8 slots are busy", **NOTHING_YET),
        "square (job 0f3a9c1e): queued, no worker yet, 0/40 done, 40 waiting, 42 s; all 8 slots are busy",
    ),
    (
        a_snapshot(n_running=0, n_workers=0, n_failed=0),
        "square (job 0f3a9c1e): running on no workers, 20/40 done, 20 waiting, 42 s, about 42 s left",
    ),
    (
        a_snapshot(state=JobState.DONE, n_done=40, n_failed=0, elapsed_s=3.21, label="night run", **OVER),
        "square [night run] (job 0f3a9c1e): finished, 40/40 done, 3.2 s",
    ),
    (
        a_snapshot(state=JobState.DONE, n_done=37, n_failed=3, first_failure=(7, "ValueError: no"), **OVER),
        "square (job 0f3a9c1e): finished with errors, 37/40 done, 3 failed, 42 s; "
        "first failure, task 7: ValueError: no",
    ),
    (
        a_snapshot(state=JobState.DONE, n_done=40, n_failed=0, n_retried=3, n_workers_lost=1, **OVER),
        "square (job 0f3a9c1e): finished, 40/40 done, 42 s; 3 failed tasks run again; "
        "1 worker lost, others took over",
    ),
    (
        a_snapshot(
            state=JobState.DONE, n_done=40, n_failed=0, n_workers_lost=2, last_takeover=("a", "b"), **OVER
        ),
        "square (job 0f3a9c1e): finished, 40/40 done, 42 s; 2 workers lost, b took over from a",
    ),
    (
        a_snapshot(state=JobState.FAILED, elapsed_s=4000, **OVER),
        "square (job 0f3a9c1e): given up, 20/40 done, 1 failed, 19 without an outcome, 67 min",
    ),
    (
        a_snapshot(state=JobState.CANCELLED, elapsed_s=20_000, **OVER),
        "square (job 0f3a9c1e): cancelled, 20/40 done, 1 failed, 19 not run, 5 h 33 min",
    ),
    (
        a_snapshot(state=JobState.DONE, n_tasks=0, n_staged=0, elapsed_s=0, **NOTHING_YET),
        "square (job 0f3a9c1e): finished, no inputs, 0.0 s",
    ),
]


@pytest.mark.unit
@pytest.mark.parametrize(("snapshot", "text"), FACTS, ids=lambda value: getattr(value, "state", None))
def test_the_text_line_says_everything(snapshot: JobSnapshot, text: str) -> None:
    assert as_text(snapshot) == text


class Words(HTMLParser):
    """What is left of html for a viewer that drops every style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.words += data.split()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)


@pytest.mark.unit
@pytest.mark.parametrize(("snapshot", "text"), FACTS, ids=lambda value: getattr(value, "state", None))
def test_the_words_of_the_html_say_what_the_text_line_says(snapshot: JobSnapshot, text: str) -> None:
    shown = " ".join(Words(as_html(snapshot)).words)

    for fact in re.split(r"[,;:] |\[|\] | ?\((?=job)|\)", text):
        assert fact in shown


@pytest.mark.unit
def test_the_html_is_dated() -> None:
    assert re.search(r"as of \d\d:\d\d on 20\d\d-\d\d-\d\d", as_html(a_snapshot()))


@pytest.mark.unit
@pytest.mark.parametrize("field", ["function", "label", "note", "first_failure"])
def test_no_string_of_the_user_becomes_html(field: str) -> None:
    evil = "<script>alert('&')</script>"
    snapshot = a_snapshot(**{field: (3, evil) if field == "first_failure" else evil})

    page = Words(as_html(snapshot))

    assert "script" not in page.tags
    assert evil in " ".join(page.words)


@pytest.mark.unit
def test_a_message_stays_on_one_bounded_line_without_control_characters() -> None:
    text = as_text(a_snapshot(first_failure=(0, "a\nb\x1b[2J\r" + "long " * 10_000), note="x" * 10_000))

    assert text.isprintable()
    assert "a b [2J long" in text
    assert len(text) < 1000
    assert len(as_html(a_snapshot(note="<" * 10_000))) < 5000


@pytest.mark.unit
@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        ({}, {"done": 50.0, "failed": 2.5, "running": 10.0, "waiting": 37.5}),
        ({"n_tasks": 3, "n_staged": 3, "n_done": 2, "n_running": 0}, {"done": 66.67, "failed": 33.33}),
        ({"n_tasks": 10**9, "n_staged": 9}, {"done": 1.0, "failed": 1.0, "running": 1.0, "waiting": 97.0}),
        ({"n_tasks": None, "n_staged": 0, "state": JobState.STAGING, **NOTHING_YET}, {"waiting": 100.0}),
        ({"n_tasks": 0, "n_staged": 0, "state": JobState.DONE, **NOTHING_YET}, {"done": 100.0}),
        ({"n_running": 400}, {"done": 50.0, "failed": 2.5, "running": 47.5}),
    ],
)  # fmt: skip
def test_the_bar_shows_every_kind_of_task(fields: dict[str, Any], widths: dict[str, float]) -> None:
    snapshot = a_snapshot(**fields)

    assert bar_widths(snapshot) == widths
    drawn = [float(width) for width in re.findall(r"width:([\d.]+)%;background", as_html(snapshot))]
    assert drawn == list(widths.values())


@pytest.mark.unit
@pytest.mark.parametrize("n_failed", [0, 1, 7, 5000])
@pytest.mark.parametrize("n_done", [0, 1, 333, 99_999])
@pytest.mark.parametrize("n_running", [0, 1, 64])
def test_widths_add_up_to_100(n_done: int, n_failed: int, n_running: int) -> None:
    n_tasks = n_done + n_failed + n_running + 3

    widths = bar_widths(
        a_snapshot(n_tasks=n_tasks, n_staged=n_tasks, n_done=n_done, n_failed=n_failed, n_running=n_running)
    )

    assert sum(widths.values()) == pytest.approx(100, abs=1e-6)
    assert min(widths.values()) >= 1


# -- the view without a notebook ----------------------------------------------


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def until(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not in {timeout_s} s: {what}"
        time.sleep(0.01)


def view_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("golem-magic-view")]


def no_view_thread_left() -> bool:
    return not view_threads()


@pytest.mark.unit
def test_a_log_gets_a_line_at_start_and_one_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", log := io.StringIO())

    view = JobView(FakeJob(8, task_s=0.3).snapshot).show()
    until(no_view_thread_left, "the follower ends with the job")
    view.refresh()

    first, last = log.getvalue().splitlines()
    assert "queued, no worker yet, 0/8 done" in first
    assert "finished, 8/8 done" in last
    assert view.error is None


@pytest.mark.unit
def test_a_terminal_redraws_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    monkeypatch.setenv("COLUMNS", "50")

    JobView(FakeJob(8, task_s=0.3, failing=[2]).snapshot).show()
    until(no_view_thread_left, "the follower ends with the job")

    *drawn, last = screen.getvalue().removesuffix("\n").split("\r\x1b[K")[1:]
    assert len(drawn) >= 2
    assert all(line.isprintable() and len(line) < 50 for line in drawn)
    assert "7/8 done, 1 failed" in last
    assert "first failure, task 2: ZeroDivisionError" in last


@pytest.mark.unit
def test_quiet_shows_nothing_and_starts_no_thread(capfd: pytest.CaptureFixture[str]) -> None:
    view = JobView(a_snapshot, quiet=True).show()
    view.refresh()

    assert no_view_thread_left()
    assert capfd.readouterr() == ("", "")


@pytest.mark.unit
def test_a_job_that_is_over_needs_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", log := io.StringIO())

    JobView(lambda: a_snapshot(state=JobState.DONE)).show()

    assert no_view_thread_left()
    assert log.getvalue().count("\n") == 1


@pytest.mark.unit
def test_who_waits_for_results_sees_the_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    seen = [a_snapshot()]
    view = JobView(lambda: seen[0], interval_s=60).show()
    [thread] = view_threads()
    assert thread.daemon

    seen[0] = a_snapshot(state=JobState.CANCELLED)
    view.refresh()
    view.refresh()

    assert log.getvalue().count("cancelled") == 1


@pytest.mark.unit
def test_a_job_that_has_ended_is_not_kept_alive_by_its_view(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    job = FakeJob(2, task_s=0, queued_s=0)
    view = JobView(job.snapshot, cancel=job.cancel).show()
    gone = weakref.ref(job)

    del job
    until(lambda: gc.collect() >= 0 and gone() is None, "the job is freed")

    assert "finished, 2/2 done" in repr(view)


@pytest.mark.unit
def test_a_view_that_cannot_draw_does_not_fail_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr("sys.stderr", Broken())
    before = set(view_threads())

    view = JobView(a_snapshot).show()
    view.refresh()

    assert isinstance(view.error, BrokenPipeError)
    assert set(view_threads()) == before


@pytest.mark.unit
def test_a_source_that_raises_shows_in_the_error_only() -> None:
    def source() -> JobSnapshot:
        raise OSError

    view = JobView(source).show()

    assert isinstance(view.error, OSError)
    assert repr(view) == "JobView()"
    assert view._repr_mimebundle_() == {"text/plain": "JobView()"}


def test_the_end_is_told_above_an_open_prompt(tmp_path: Path) -> None:
    pexpect = pytest.importorskip("pexpect", reason="comes with IPython")
    env = os.environ | {"PYTHONPATH": PYTHON_PATH, "IPYTHONDIR": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
    shell = pexpect.spawn(
        sys.executable,
        ["-m", "IPython", "--no-banner", "--colors=nocolor"],
        env=env | {"TERM": "xterm"},
        encoding="utf-8",
        dimensions=(40, 160),
        timeout=20,
    )
    try:
        shell.expect(r"In \[1\]")
        shell.sendline(
            IMPORTS.replace("\n", "; ") + "job = FakeJob(8, task_s=0.5); JobView(job.snapshot).show();"
        )
        shell.expect(r"In \[2\]")

        shell.expect("finished, 8/8 done")

        shell.expect(r"In \[2\]")  # drawn again, below
    finally:
        shell.close(force=True)


# -- the view in a kernel, without a browser ----------------------------------


def executed(tmp_path: Path, *cells: str) -> Any:
    """The notebook of these cells, run by nbclient."""
    from nbclient import NotebookClient

    write_cells: Any = nbformat.v4  # untyped
    notebook = write_cells.new_notebook(cells=[write_cells.new_code_cell(cell) for cell in cells])
    env = os.environ | {"PYTHONPATH": PYTHON_PATH, "IPYTHONDIR": str(tmp_path), "JUPYTER_PLATFORM_DIRS": "1"}
    client = NotebookClient(notebook, timeout=60, store_widget_state=False)
    client.execute(env=env, cwd=str(tmp_path))
    return notebook


def test_a_headless_run_keeps_the_static_summary(tmp_path: Path) -> None:
    notebook = executed(
        tmp_path,
        IMPORTS + "job = FakeJob(8, task_s=0.1, failing=[3])\n"
        "view = JobView(job.snapshot, cancel=job.cancel).show()",
        "print(len(list(job)))\nwhile not job.snapshot().state.is_final: pass\nview.refresh(); view.error",
    )

    [shown] = notebook.cells[0].outputs
    assert set(shown.data) == {"text/html", "text/plain"}
    assert "finished with errors, 7/8 done, 1 failed" in shown.data["text/plain"]
    assert "as of" in shown.data["text/html"]
    assert "widgets" not in notebook.metadata
    assert [output.text for output in notebook.cells[1].outputs] == ["7\n"]


def test_without_ipywidgets_the_picture_is_replaced_in_place(tmp_path: Path) -> None:
    # At the second look after a change, the picture of the first has been published.
    notebook = executed(
        tmp_path,
        "import sys, time; sys.modules['ipywidgets'] = None\n" + IMPORTS + "job = FakeJob(8, task_s=1)\n"
        "def source(): seen.append(job.snapshot()); return seen[-1]\n"
        "seen = []; view = JobView(source, cancel=job.cancel).show()\n"
        "while len([past for past in seen if past.n_done == 4]) < 2: time.sleep(0.01)\n",
    )

    [shown] = notebook.cells[0].outputs
    assert "4/8 done" in shown.data["text/plain"]
    assert "widget" not in shown.data["text/html"]


def test_a_quiet_view_leaves_no_output(tmp_path: Path) -> None:
    notebook = executed(tmp_path, IMPORTS + "job = FakeJob(1)\nJobView(job.snapshot, quiet=True).show();")

    assert notebook.cells[0].outputs == []
