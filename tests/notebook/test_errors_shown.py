"""What a person sees of a task's exception: the words, the remote lines, the cell; in a real kernel."""

import re
from pathlib import Path

import pytest
from kernel_session import KernelSession, started_kernel

HELPER = "def invert(x):\n    return 1 / x"
MAPPED = "%%golemize -o out [4, 2, 0, 1] --quiet\n\ndef inverse(x):\n    return invert(x)"
GOES_ON = """\
seen, values = [], iter(out)
while True:
    try:
        seen.append(next(values))
    except StopIteration:
        break
    except Exception as error:
        seen.append(type(error).__name__)
"""


@pytest.mark.meets("G-16", "G-17")
def test_the_users_exception_with_the_remote_lines_of_the_cells(kernel: KernelSession) -> None:
    kernel.run(HELPER)
    kernel.run(MAPPED)

    looped = kernel.run("for value in out:\n    print(value)")
    indexed = kernel.run("out[2]")

    assert (looped.status, indexed.status) == ("error", "error")
    assert looped.text.startswith("0.25\n0.5\n-----")
    for shown in (looped.text, indexed.text):
        words = r"ZeroDivisionError: division by zero\ntask 2 on \S+, attempt 1 \(worker \S+\)\n"
        assert re.search(words, shown)
        assert "  Cell In[2], line 4, in inverse\n    return invert(x)\n" in shown
        assert "  Cell In[1], line 2, in invert\n    return 1 / x\n" in shown
        assert "ipykernel" not in shown  # where the shell keeps its cells is no news
        assert shown.count("/golem_magic/") == 1  # of our own frames the shell shows the last, always


@pytest.mark.meets("G-17")
def test_iteration_goes_on_behind_errors_also_behind_stop_iteration(kernel: KernelSession) -> None:
    kernel.run(
        "%%golemize -o out [4, 2, 0, 'stop', 'exit', 1] --quiet\n"
        "def inverse(x):\n"
        "    if x == 'stop':\n        raise StopIteration('enough')\n"
        "    if x == 'exit':\n        raise SystemExit(3)\n"
        "    return 1 / x"
    )
    kernel.run(GOES_ON)
    stopped = kernel.run("list(out)[3:]\n")
    indexed = kernel.run("out[3]")

    assert kernel.value("seen") == "[0.25, 0.5, 'ZeroDivisionError', 'TaskError', 'TaskError', 1.0]"
    assert "ZeroDivisionError" in stopped.text  # list() did not end early either
    assert "TaskError: task 3 raised StopIteration: enough\ntask 3 on " in indexed.text
    assert "  Cell In[1], line 4, in inverse\n    raise StopIteration('enough')\n" in indexed.text


def test_results_and_their_errors_tell_what_failed_and_where(kernel: KernelSession) -> None:
    kernel.run("%golem_map -o fine abs [1] --quiet --wait")
    kernel.run(HELPER)
    kernel.run(f"{MAPPED}\n    # the last line")
    kernel.run("out.wait()")

    [shown] = kernel.run("out").data
    [listed] = kernel.run("out.errors()").data

    assert " 3/4 done, 1 failed (task 2: ZeroDivisionError: division by zero), job " in shown["text/plain"]
    assert listed["text/plain"] == (
        "1 task failed\n  task 2: ZeroDivisionError: division by zero\n"
        "    Cell In[2], line 2, in invert: return 1 / x"
    )
    assert kernel.value("str(fine.errors())") == "'no task has failed'"
    assert kernel.value("dict(out.errors())") == "{2: ZeroDivisionError('division by zero')}"


def test_an_exception_class_of_the_notebook_can_be_caught_whatever_it_is_made_of(
    kernel: KernelSession,
) -> None:
    kernel.run(
        "class TooFar(Exception):\n"
        "    def __init__(self, place, limit):\n"
        "        super().__init__(f'{place} is beyond {limit}')\n"
        "        self.place = place"
    )
    kernel.run(
        "%%golemize -o out [1, 9] --quiet\n"
        "def go(x):\n    if x > 5:\n        raise TooFar(x, 5)\n    return x"
    )
    kernel.run("try:\n    list(out)\nexcept TooFar as error:\n    caught = (str(error), error.place)")

    assert kernel.value("caught") == "('9 is beyond 5', 9)"


def test_errors_of_a_job_from_another_kernel_name_its_files(tmp_path: Path, state_dir: Path) -> None:
    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        kernel.run(HELPER)
        kernel.run(MAPPED)
        kernel.run("out.wait()")
        job = kernel.value("out.job_id").strip("'")

    with started_kernel(tmp_path) as kernel:
        kernel.run("%load_ext golem_magic")
        found = kernel.value(f"__import__('golem_magic').attach('{job}').progress")
        attached = kernel.run(f"%golem attach {job} -o out")
        failed = kernel.run("out[2]")

    # True from the first picture on.
    assert "JobState.DONE" in found
    assert "n_done=3, n_failed=1" in found
    assert "finished with errors, 3/4 done, 1 failed" in attached.data[0]["text/plain"]
    assert re.search(r'File "[^"]+\.py", line 4, in inverse\n    return invert\(x\)\n', failed.text)


def test_each_raise_of_what_ended_a_job_shows_only_its_own_frames(kernel: KernelSession) -> None:
    kernel.run("%%golemize -o out [1] --quiet\nimport time\ndef nap(x):\n    time.sleep(600)")
    kernel.run("out.cancel()\nout.wait()")
    cancelled = kernel.run("list(out)")
    # A job is given up when nothing can be placed for long; here only its reason matters.
    kernel.run("import golem_magic\nout._dispatcher.error = golem_magic.NoWorkersError('no worker came')")

    first, second = kernel.run("list(out)"), kernel.run("list(out)")

    assert re.search(r"JobCancelled: job \w{8} was cancelled before task 0 had an outcome", cancelled.text)
    assert "NoWorkersError: no worker came" in first.text
    assert len(second.text.splitlines()) == len(first.text.splitlines())
