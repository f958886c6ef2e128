"""The magics in a plain shell, with a client that runs everything here at once."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle
import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from golem_magic import cells
from golem_magic.errors import EngineError, JobError, PayloadError, SettingsError
from golem_magic.magics import GolemMagics, load, unload
from golem_magic.model import JobId, JobSnapshot, JobState

Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only
ROOT = Path(__file__).parents[2]


class HereResults:
    """Results of a job that ran here; if it runs on, it does so until ``end`` is called."""

    def __init__(self, job_id: str, function: str, label: str, values: list[Any], state: JobState) -> None:
        self.job_id = JobId(job_id)
        self._function, self._label, self._values = function, label, values
        self._state = state
        self.n_waits = 0
        self.interrupts_after: int | None = None

    @property
    def progress(self) -> JobSnapshot:
        n_tasks = len(self._values)
        return JobSnapshot(
            job_id=self.job_id,
            function=self._function,
            label=self._label,
            state=self._state,
            n_tasks=n_tasks,
            n_staged=n_tasks,
            n_done=n_tasks,
            n_failed=0,
            n_running=0,
            n_workers=0,
            elapsed_s=0.0,
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def wait(self, timeout: float | None = None) -> bool:
        """End at the second look, unless somebody presses the stop button before."""
        self.n_waits += 1
        if self.n_waits == self.interrupts_after:
            raise KeyboardInterrupt
        if self.n_waits == 2:
            self.end()
        return self._state.is_final

    def cancel(self) -> None:
        self._state = JobState.CANCELLED

    def end(self) -> None:
        self._state = JobState.DONE


class HereClient:
    """Maps in this process, but sends the function through pickle as any client must."""

    def __init__(self) -> None:
        self.started: list[HereResults] = []
        self.options: dict[str, Any] = {}
        self.is_closed = False
        self.jobs_run_on = False
        self.waits_are_interrupted = False

    def map(self, function: Callable[..., Any], inputs: Iterable[Any], **options: Any) -> HereResults:
        if options.get("engine") == "nowhere":
            raise EngineError("engine 'nowhere' is not known, known are local")
        try:
            function = pickle.loads(cloudpickle.dumps(function))
        except TypeError as error:
            raise PayloadError(f"cannot send {function.__name__}: {error}") from error
        self.options = options
        more = [options["common"]] if "common" in options else []
        values = [function(*each, *more) if options.get("star") else function(each, *more) for each in inputs]
        job_id = f"{len(self.started) + 10:032x}"[::-1]
        state = JobState.RUNNING if self.jobs_run_on else JobState.DONE
        results = HereResults(job_id, function.__name__, options.get("label", ""), values, state)
        results.interrupts_after = 1 if self.waits_are_interrupted else None
        self.started.append(results)
        return results

    def attach(self, job: str) -> HereResults:
        found = [results for results in self.started if results.job_id.startswith(job)]
        if len(found) != 1:
            raise JobError(f"{len(found)} jobs begin with {job}")
        return found[0]

    def cancel(self, job: str) -> JobId:
        self.attach(job).cancel()
        return self.attach(job).job_id

    def jobs(self) -> list[JobSnapshot]:
        return [results.progress for results in self.started]

    def close(self) -> None:
        self.is_closed = True
        for results in self.started:
            results.end()


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    """A shell of its own whose namespace is ``__main__``, as in a kernel."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    make_shell: Any = InteractiveShell
    config = {"HistoryManager": {"enabled": False}, "InteractiveShell": {"colors": "nocolor"}}
    shell = make_shell(config=Config(config))
    yield shell
    unload(shell)
    shell.restore_sys_module_state()


@pytest.fixture
def client(shell: Shell) -> HereClient:
    """The client that the shell's magics use."""
    client = HereClient()
    shaped_like_the_real_one: Any = client
    load(shell, make_client=lambda: shaped_like_the_real_one)
    return client


def run(shell: Shell, cell: str) -> Any:
    """Run a cell that must succeed and give its value."""
    done = shell.run_cell(cell, store_history=True)
    done.raise_error()
    return done.result


def refusal(shell: Shell, cell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a cell that must fail with one line, and give that line."""
    capsys.readouterr()
    done = shell.run_cell(cell, store_history=True)
    shown = capsys.readouterr()
    assert not done.success
    assert shown.out == ""
    line, end = shown.err.split("\n", 1)
    assert end == ""
    assert line.startswith("UsageError: ")
    return line.removeprefix("UsageError: ")


# --- %%golemize ---


def test_a_cell_is_run_and_its_function_mapped(shell: Shell, client: HereClient) -> None:
    value = run(shell, "%%golemize range(n)\nn = 4\ndef square(x):\n    return x * x\n")

    assert value is None
    assert list(shell.user_ns["square_results"]) == [0, 1, 4, 9]
    assert shell.user_ns["square"](5) == 25
    assert client.options == {}


def test_the_line_of_the_readme(shell: Shell, client: HereClient) -> None:
    run(shell, "a, b = 10, 20")
    run(shell, "%%golemize -o effects -c (a, b) range(2)\ndef effect(seed, table):\n    return seed, table")

    assert list(shell.user_ns["effects"]) == [(0, (10, 20)), (1, (10, 20))]


def test_every_option_reaches_the_client(shell: Shell, client: HereClient) -> None:
    run(
        shell,
        "%%golemize -f add --chunk-size 5 --on-error skip --workers 3 --engine golem --label 'a b' --star "
        "--unordered --quiet -c None [(1, 2)] -o sums\n"
        "def add(a, b, common):\n    return a + b, common\n"
        "def other(x):\n    return x",
    )

    assert list(shell.user_ns["sums"]) == [(3, None)]
    assert client.options == {
        "chunk_size": 5,
        "on_error": "skip",
        "workers": 3,
        "engine": "golem",
        "label": "a b",
        "star": True,
        "unordered": True,
        "common": None,
    }


def test_an_automatic_chunk_size_can_be_said(shell: Shell, client: HereClient) -> None:
    run(shell, "%golem_map abs [1] --chunk-size auto")

    assert client.options == {"chunk_size": "auto"}


def test_dollars_and_braces_of_an_expression_stay(shell: Shell, client: HereClient) -> None:
    run(shell, "n = 3\nx = 1\ntext = '$n'")
    run(shell, "%%golemize -o got sorted({n, x})\ndef same(x): return x")
    run(shell, "%golem_map -o texts str ['$n', '{n}']")

    assert list(shell.user_ns["got"]) == [1, 3]
    assert list(shell.user_ns["texts"]) == ["$n", "{n}"]


def test_an_assigned_lambda_is_a_function_too(shell: Shell, client: HereClient) -> None:
    run(shell, "%%golemize [1, 2]\ntwice = lambda x: 2 * x")

    assert list(shell.user_ns["twice_results"]) == [2, 4]


def test_magics_and_commands_work_in_the_cell(shell: Shell, client: HereClient) -> None:
    run(shell, "%%golemize words\nwords = !echo one\n%precision 3\ndef shout(x):\n    return x.upper()")

    assert list(shell.user_ns["shout_results"]) == ["ONE"]


def test_the_last_expression_of_the_cell_is_shown(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "%%golemize [1] --quiet\ndef f(x):\n    return x + 41\nf(1)")
    shown = capsys.readouterr().out
    run(shell, "%%golemize [1] --quiet\ndef f(x):\n    return x + 41\nf(1);")

    assert "42" in shown
    assert capsys.readouterr().out == ""


def test_the_source_of_the_function_can_be_found(shell: Shell, client: HereClient) -> None:
    run(shell, "%%golemize [1]\n\ndef f(x):\n    return x")
    run(shell, "import inspect\nlines, first = inspect.getsourcelines(f)")

    assert shell.user_ns["lines"] == ["def f(x):\n", "    return x\n"]
    assert shell.user_ns["first"] == 3  # the magic's own line is the first


def test_an_error_in_the_cell_is_shown_once_at_its_line(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "pass")
    done = shell.run_cell("%%golemize [1]\ndef f(x):\n    return x\n\n1 / 0", store_history=True)

    shown = capsys.readouterr().out
    assert isinstance(done.error_in_exec, ZeroDivisionError)
    assert shown.count("Traceback (most recent call last)") == 1
    assert "----> 5 1 / 0" in shown
    assert "running.py" not in shown
    assert "magics.py" not in shown
    assert client.started == []


def test_a_cell_that_is_not_python_fails_once_at_its_line(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    done = shell.run_cell("%%golemize [1]\nran = True\ndef f(x) return x", store_history=True)

    shown = capsys.readouterr()
    assert not done.success
    assert (shown.out + shown.err).count("SyntaxError") == 1
    assert "line 3" in shown.out + shown.err or ":3" in shown.out + shown.err
    assert "Traceback" not in shown.out + shown.err
    assert "ran" not in shell.user_ns


def test_the_namespace_of_the_cell_keeps_its_future(shell: Shell, client: HereClient) -> None:
    run(shell, "from __future__ import annotations")
    run(shell, "%%golemize [1]\ndef f(x: no_such_name):\n    return x")

    assert list(shell.user_ns["f_results"]) == [1]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%golemize -o 1x xs\nran = True", "'1x' cannot name a variable"),
        ("%%golemize xs --chunk-size ten\nran = True", "--chunk-size is 'ten', allowed: a whole number"),
        ("%%golemize xs --retries 2\nran = True", "--retries is not available yet"),
        ("%%golemize [1]\nran = True", "the cell defines no function"),
        ("%%golemize [1] -f g\nran = True", "the cell does not define g"),
        ("%%golemize [1]\nran = True\nasync def f(x): ...", "async def f cannot be mapped"),
    ],
)
def test_a_mistake_on_the_line_is_told_before_the_cell_runs(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str], cell: str, words: str
) -> None:
    assert words in refusal(shell, cell, capsys)
    assert "ran" not in shell.user_ns


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%golemize [1] -f g\nif False:\n    g = 1", "g cannot be mapped: it is a NoneType"),
        ("%%golemize [1] -f g\ng = 1", "g cannot be mapped: it is a int, not a function"),
        ("%golem_map [1] [2]", "[1] cannot be mapped: it is a list, not a function"),
        ("%golem_map f", "INPUTS are missing"),
        ("%golem_map abs [1] --engine nowhere", "engine 'nowhere' is not known"),
        ("%golem_map (lambda x: lock) [1]", "cannot send <lambda>: cannot pickle"),
        ("%golem attach fff", "0 jobs begin with fff"),
        ("%golem cancel fff", "0 jobs begin with fff"),
        ("%golem logs", "%golem logs is not available yet; known are attach, cancel, jobs"),
    ],
)
def test_our_own_errors_are_one_line(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str], cell: str, words: str
) -> None:
    run(shell, "import threading\nlock = threading.Lock()")

    assert words in refusal(shell, cell, capsys)


def test_settings_that_are_wrong_are_one_line_and_may_be_mended(
    shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    client = HereClient()
    faults = ["workers in the call is 0, allowed: a whole number >= 1"]

    def make_client() -> Any:
        if faults:
            raise SettingsError(faults.pop())
        return client

    load(shell, make_client=make_client)

    assert "workers in the call is 0" in refusal(shell, "%golem_map abs [1]", capsys)
    assert list(run(shell, "%golem_map abs [-1] --quiet")) == [1]


def test_an_error_in_the_inputs_is_the_users_own(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    done = shell.run_cell("%%golemize [1 / 0]\ndef f(x):\n    return x", store_history=True)

    shown = capsys.readouterr().out
    assert isinstance(done.error_in_exec, ZeroDivisionError)
    assert "[1 / 0]" in shown
    assert "running.py" not in shown


# --- a function that can be mapped ---


def test_without_inputs_the_function_becomes_mappable(shell: Shell, client: HereClient) -> None:
    run(shell, "%%golemize -c 10 --label first\ndef add(x, y):\n    return x + y")
    run(
        shell, "here = add(1, 2)\nr = add.map([1, 2], label='second')\ns = add.map([1], common=1, quiet=True)"
    )

    assert shell.user_ns["here"] == 3
    assert list(shell.user_ns["r"]) == [11, 12]
    assert list(shell.user_ns["s"]) == [2]
    assert [results.progress.label for results in client.started] == ["second", "first"]


def test_what_makes_it_mappable_stays_at_home(shell: Shell, client: HereClient) -> None:
    run(shell, "%%golemize\ndef fact(n):\n    return n * fact(n - 1) if n else 1")
    payload = cloudpickle.dumps(shell.user_ns["fact"])

    code = (
        "import pickle, sys\nf = pickle.load(sys.stdin.buffer)\n"
        "print(f(5), f.map, any(name.startswith(('golem_magic', 'IPython')) for name in sys.modules))"
    )
    there = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, check=True)

    assert there.stdout.split() == [b"120", b"None", b"False"]
    assert list(shell.user_ns["fact"].map([3, 4])) == [6, 24]


def test_a_callable_without_attributes_is_refused(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(shell, "%%golemize -f size\nsize = len", capsys)

    assert "takes no attribute map: give INPUTS on the line, or use %golem_map" in line


# --- %golem_map ---


def test_a_function_that_is_there_is_mapped(shell: Shell, client: HereClient) -> None:
    run(shell, "xs = [1, 0, 2]\ndef f(x): return -x")
    run(shell, "r = %golem_map f [x**2 for x in xs if x]")
    run(shell, "%golem_map (lambda x: x + 1), range(3) -o out")

    assert list(shell.user_ns["r"]) == [-1, -4]
    assert list(shell.user_ns["out"]) == [1, 2, 3]


def test_the_results_are_the_value_of_the_line(shell: Shell, client: HereClient) -> None:
    assert run(shell, "%golem_map abs [-1]") is client.started[0]
    assert run(shell, "%golem_map abs [-1] -o out") is None
    assert run(shell, "%golem_map abs [-1];") is None
    assert len(client.started) == 3


def test_names_of_the_calling_function_are_seen(shell: Shell, client: HereClient) -> None:
    run(
        shell,
        "k = 1\ndef outer(k, xs):\n    factor = 3\n"
        "    r = %golem_map (lambda x: x * factor + k) [x + k for x in xs]\n    return list(r)",
    )

    assert run(shell, "outer(10, [1, 2])") == [43, 46]


def test_a_lambda_of_the_line_has_its_source(shell: Shell, client: HereClient) -> None:
    run(shell, "import linecache, sys")
    run(shell, "def line():\n    return linecache.getline(sys._getframe(1).f_code.co_filename, 1)")
    run(shell, "%golem_map (lambda x: line()) [1] -o out")

    assert list(shell.user_ns["out"]) == ["((lambda x: line())\n"]


def test_a_variable_whose_job_runs_on_is_replaced_with_a_word(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs_run_on = True
    run(shell, "%golem_map abs [-1] -o out --quiet")
    capsys.readouterr()
    run(shell, "%golem_map abs [-1] -o out --quiet")
    job = client.started[0].job_id[:8]
    said = capsys.readouterr().err
    client.started[1].end()
    run(shell, "%golem_map abs [-1] -o out --quiet")

    assert f"%golem attach {job} -o NAME" in said
    assert capsys.readouterr().err == ""


def test_objects_that_answer_to_every_name_are_no_results(shell: Shell, client: HereClient) -> None:
    run(shell, "class Yes:\n    def __getattr__(self, name): raise RuntimeError(name)\nout = Yes()")
    run(shell, "%golem_map abs [-1] -o out")

    assert list(shell.user_ns["out"]) == [1]


# --- waiting ---


def test_waiting_ends_with_the_job(shell: Shell, client: HereClient) -> None:
    client.jobs_run_on = True
    run(shell, "%golem_map abs [-1] -o out --wait")

    assert client.started[0].n_waits == 2
    assert client.started[0].progress.state is JobState.DONE


@pytest.mark.parametrize(
    ("switch", "state", "words"),
    [
        (False, JobState.RUNNING, "stopped waiting; job {0} goes on - cancel it with %golem cancel {0}\n"),
        (True, JobState.CANCELLED, "stopped waiting; job {0} is cancelled\n"),
    ],
)
def test_an_interrupt_stops_waiting(
    shell: Shell,
    client: HereClient,
    capsys: pytest.CaptureFixture[str],
    switch: bool,
    state: JobState,
    words: str,
) -> None:
    client.jobs_run_on = True
    run(shell, f"%config GolemMagics.interrupt_cancels = {switch}")
    client.waits_are_interrupted = True
    run(shell, "%%golemize [-1] --wait --quiet\ndef f(x): return x")

    assert capsys.readouterr().out == words.format(client.started[0].job_id[:8])
    assert client.started[0].progress.state is state
    assert shell.user_ns["f_results"] is client.started[0]


# --- %golem ---


def test_jobs_are_listed(shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.jobs_run_on = True
    run(shell, "%golem jobs")
    nothing = capsys.readouterr().out
    run(
        shell,
        "%golem_map abs [-1, 2] -o out --label 'a rather long label that\tgoes on and on and on' --quiet",
    )
    run(shell, "%golem jobs")

    head, row = capsys.readouterr().out.splitlines()
    assert nothing == "no jobs\n"
    assert head.split() == ["job", "function", "label", "state", "done/failed/total"]
    words = ["a", "rather", "long", "label", "that", "go..."]
    assert row.split() == [client.started[0].job_id[:8], "abs", *words, "running", "2/0/2"]


def test_a_job_is_found_again(shell: Shell, client: HereClient) -> None:
    run(shell, "%golem_map abs [-1] -o out")
    job = client.started[0].job_id

    run(shell, f"%golem attach {job[:6]} -o again")

    assert shell.user_ns["again"] is client.started[0]
    assert run(shell, f"%golem attach {job}") is client.started[0]


def test_a_job_is_cancelled_by_id_or_by_variable(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs_run_on = True
    run(shell, "%golem_map abs [-1] -o first --quiet\n%golem_map abs [-1] -o second --quiet")
    ids = [results.job_id for results in client.started]
    run(shell, f"%golem cancel first\n%golem cancel {ids[1]}")

    assert [results.progress.state for results in client.started] == [JobState.CANCELLED] * 2
    said = capsys.readouterr().out
    assert [f"job {job_id[:8]} is cancelled" in said for job_id in ids] == [True, True]


# --- what is shown ---


def test_progress_is_shown_unless_it_should_be_quiet(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run(shell, "%golem_map abs [-1] -o out --quiet")
    quiet = capsys.readouterr()
    run(shell, "%golem_map abs [-1] -o out2")

    assert quiet.out + quiet.err == ""
    assert client.started[1].job_id[:8] in capsys.readouterr().err


def test_the_end_of_a_job_is_drawn_after_the_next_cell(
    shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs_run_on = True
    run(shell, "%golem_map abs [-1] -o out")
    client.started[0].end()
    capsys.readouterr()
    run(shell, "pass")

    assert "finished" in capsys.readouterr().err


# --- help, completion, loading ---


def test_the_help_names_every_option(shell: Shell) -> None:
    for magic, method in [("%%golemize", GolemMagics.golemize), ("%golem_map", GolemMagics.golem_map)]:
        help_text = method.__doc__ or ""
        missing = [word for word in cells.words_of(magic) if word not in help_text]
        assert missing == []
    assert all(word in (GolemMagics.golem.__doc__ or "") for word in cells.command_words())


def completions(shell: Shell, text: str) -> list[str]:
    with provisionalcompleter():
        found = list(shell.Completer.completions(text, len(text)))
    return sorted(text[: each.start] + each.text for each in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%golem_map --la", ["%golem_map --label"]),
        ("%golem_map f xs --u", ["%golem_map f xs --unordered"]),
        ("r = %golem_map --sta", ["r = %golem_map --star"]),
        ("%%golemize --fu", ["%%golemize --function"]),
        ("%%golemize xs --on-error s", ["%%golemize xs --on-error skip"]),
        ("%golem_map my_fu", ["%golem_map my_function"]),
        ("%golem_map -o out my_fu", ["%golem_map -o out my_function"]),
        ("%golem att", ["%golem attach"]),
    ],
)
def test_lines_are_completed(shell: Shell, text: str, expected: list[str]) -> None:
    load(shell)
    run(shell, "def my_function(x): return x\nmy_functional = 3")

    assert completions(shell, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%golem_map f my_inp", "%golem_map f my_inputs"),
        ("%golem_map f enumer", "%golem_map f enumerate"),
        ("%%golemize -c my_inp", "%%golemize -c my_inputs"),
        ("%golem_map f [x for x in my_inp", "%golem_map f [x for x in my_inputs"),
        ("%golem_map f text.capital", "%golem_map f text.capitalize"),
    ],
)
def test_expressions_are_completed(shell: Shell, text: str, expected: str) -> None:
    load(shell)
    run(shell, "my_inputs = [3]\ntext = ''")

    assert completions(shell, text) == [expected]


def test_unloading_leaves_nothing_behind(shell: Shell) -> None:
    def traces() -> tuple[Any, ...]:
        manager = shell.magics_manager
        return (
            {kind: sorted(names) for kind, names in manager.magics.items()},
            list(shell.Completer.custom_matchers),
            list(shell.events.callbacks["post_run_cell"]),
            [each for each in shell.configurables if isinstance(each, GolemMagics)],
            sorted(manager.registry),
        )

    run(shell, "%unload_ext golem_magic")  # nothing there yet, but the shell loads its own magics lazily
    before = traces()
    run(shell, "%load_ext golem_magic\n%reload_ext golem_magic")
    loaded = traces()
    run(shell, "%unload_ext golem_magic")

    assert loaded != before
    assert traces() == before


def test_unloading_closes_the_client(shell: Shell, client: HereClient) -> None:
    run(shell, "%golem_map abs [1] -o out --quiet")
    unload(shell)

    assert client.is_closed


def test_loading_brings_nothing_heavy() -> None:
    code = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell\n"
        "shell = InteractiveShell.instance()\nknown = set(sys.modules)\n"
        "import golem_magic\ngolem_magic.load_ipython_extension(shell)\n"
        "print(*set(sys.modules) - known)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    heavy = {
        "requests",
        "ipywidgets",
        "cloudpickle",
        "nbformat",
        "golem_magic.client",
        "golem_magic.progress",
    }
    assert heavy.isdisjoint(loaded.stdout.split())


def test_the_configuration_names_what_can_be_loaded() -> None:
    said = json.loads((ROOT / "jupyter-config/ipython_kernel_config.json").read_text())

    assert said == {"InteractiveShellApp": {"extra_extensions": ["golem_magic"]}}
