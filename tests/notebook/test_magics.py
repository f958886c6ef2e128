"""Maps by the magics, in a plain shell, with a client that runs everything here at once."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import cloudpickle
import pytest
from fakes.here_client import HereClient

from golem_magic import Client
from golem_magic.cells.options import OPTIONS
from golem_magic.errors import SettingsError
from golem_magic.magics import load
from golem_magic.options import DEFAULTS, KNOWN

Run: TypeAlias = Callable[[str], Any]
Refusal: TypeAlias = Callable[[str], str]
Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only

# --- %%golemize ---


def test_a_cell_is_run_and_its_function_mapped(run: Run, shell: Shell, client: HereClient) -> None:
    value = run("%%golemize range(n)\nn = 4\ndef square(x):\n    return x * x\n")

    assert value is None
    assert list(shell.user_ns["square_results"]) == [0, 1, 4, 9]
    assert shell.user_ns["square"](5) == 25
    assert client.options == {}


def test_the_line_of_the_readme(run: Run, shell: Shell, client: HereClient) -> None:
    run("a, b = 10, 20")
    run("%%golemize -o effects -c (a, b) range(2)\ndef effect(seed, table):\n    return seed, table")

    assert list(shell.user_ns["effects"]) == [(0, (10, 20)), (1, (10, 20))]


def test_every_option_reaches_the_client(run: Run, shell: Shell, client: HereClient) -> None:
    run(
        "%%golemize -f add --chunk-size 5 --on-error stop --workers 3 --engine golem --label 'a b' --star "
        "--stream --retries 2 --retry-on (OSError, Odd) --timeout 1.5 --setup load --keep all "
        "--disk-budget 2G --unordered --quiet -c None [(1, 2)] -o sums\n"
        "class Odd(ValueError): ...\n"
        "def load(): ...\n"
        "def add(a, b, common):\n    return a + b, common\n"
        "def other(x):\n    return x",
    )

    assert list(shell.user_ns["sums"]) == [(3, None)]
    assert client.options == {
        "chunk_size": 5,
        "on_error": "stop",
        "retries": 2,
        "retry_on": (OSError, shell.user_ns["Odd"]),
        "timeout": 1.5,
        "setup": shell.user_ns["load"],
        "keep": "all",
        "disk_budget": 2 * 2**30,
        "stream": True,
        "workers": 3,
        "engine": "golem",
        "label": "a b",
        "star": True,
        "unordered": True,
        "common": None,
    }


def test_the_options_of_a_line_are_keywords_of_a_map() -> None:
    keywords = inspect.signature(Client.map).parameters
    ours = {"out", "function", "no_reuse", "wait", "quiet"}
    of_a_line = {option.field for option in OPTIONS.values()} - ours

    assert of_a_line == set(KNOWN)
    assert of_a_line < set(keywords)
    assert {name: keywords[name].default for name in DEFAULTS} == DEFAULTS


@pytest.mark.meets("G-31")
def test_the_size_of_chunks_is_a_number_or_automatic_and_a_wrong_one_is_told_at_once(
    run: Run, refusal: Refusal, client: HereClient
) -> None:
    said = []
    for size in ("auto", "1", "12"):
        run(f"%golem_map abs [1] --chunk-size {size} -o out")
        said.append(client.options["chunk_size"])

    wrong = [refusal(f"%golem_map abs [1] --chunk-size {size}") for size in ("0", "-1", "ten", "1.5")]

    assert said == ["auto", 1, 12]
    assert len(client.started) == 3
    assert wrong[:2] == [
        f"chunk_size is {size}: give a whole number from 1 up, or 'auto'" for size in (0, -1)
    ]
    assert wrong[2:] == [
        f"--chunk-size is '{size}', allowed: a whole number or auto" for size in ("ten", "1.5")
    ]


def test_dollars_and_braces_of_an_expression_stay(run: Run, shell: Shell, client: HereClient) -> None:
    run("n = 3\nx = 1\ntext = '$n'")
    run("%%golemize -o got sorted({n, x})\ndef same(x): return x")
    run("%golem_map -o texts str ['$n', '{n}']")

    assert list(shell.user_ns["got"]) == [1, 3]
    assert list(shell.user_ns["texts"]) == ["$n", "{n}"]


def test_an_assigned_lambda_is_a_function_too(run: Run, shell: Shell, client: HereClient) -> None:
    run("%%golemize [1, 2]\ntwice = lambda x: 2 * x")

    assert list(shell.user_ns["twice_results"]) == [2, 4]


def test_magics_and_commands_work_in_the_cell(run: Run, shell: Shell, client: HereClient) -> None:
    run("%%golemize words\nwords = !echo one\n%precision 3\ndef shout(x):\n    return x.upper()")

    assert list(shell.user_ns["shout_results"]) == ["ONE"]


def test_the_last_expression_of_the_cell_is_shown(
    run: Run, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run("%%golemize [1] --quiet\ndef f(x):\n    return x + 41\nf(1)")
    shown = capsys.readouterr().out
    run("%%golemize [1] --quiet\ndef f(x):\n    return x + 41\nf(1);")

    assert "42" in shown
    assert capsys.readouterr().out == ""


def test_the_source_of_the_function_can_be_found(run: Run, shell: Shell, client: HereClient) -> None:
    run("%%golemize [1]\n\ndef f(x):\n    return x")
    run("import inspect\nlines, first = inspect.getsourcelines(f)")

    assert shell.user_ns["lines"] == ["def f(x):\n", "    return x\n"]
    assert shell.user_ns["first"] == 3  # the magic's own line is the first


def test_an_error_in_the_cell_is_shown_once_at_its_line(
    run: Run, shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pass")
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


def test_the_namespace_of_the_cell_keeps_its_future(run: Run, shell: Shell, client: HereClient) -> None:
    run("from __future__ import annotations")
    run("%%golemize [1]\ndef f(x: no_such_name):\n    return x")

    assert list(shell.user_ns["f_results"]) == [1]


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%golemize -o 1x xs\nran = True", "'1x' cannot name a variable"),
        ("%%golemize xs --chunk-size ten\nran = True", "--chunk-size is 'ten', allowed: a whole number"),
        ("%%golemize xs --chunk-size 0\nran = True", "chunk_size is 0: give a whole number from 1 up"),
        ("%%golemize xs --workers 0\nran = True", "workers is 0: give a whole number from 1 up"),
        ("%%golemize xs --retries -1\nran = True", "retries is -1: give a whole number from 0 up"),
        ("%%golemize xs --timeout 0\nran = True", "timeout is 0.0: give seconds above 0"),
        ("%%golemize xs --timeout nan\nran = True", "timeout is nan"),
        (
            "%%golemize xs --disk-budget 0\nran = True",
            "disk_budget is 0: give a whole number of bytes from 1 up",
        ),
        ("%%golemize xs --keep unread --unordered\nran = True", "leave unordered out"),
        ("%%golemize xs --seed 2\nran = True", "--seed is not available yet"),
        ("%%golemize xs --retires 2\nran = True", "unknown option --retires, did you mean --retries?"),
        ("%%golemize [1]\nran = True", "the cell defines no function"),
        ("%%golemize [1] -f g\nran = True", "the cell does not define g"),
        ("%%golemize [1]\nran = True\nasync def f(x): ...", "async def f cannot be mapped"),
    ],
)
def test_a_mistake_on_the_line_is_told_before_the_cell_runs(
    refusal: Refusal, shell: Shell, client: HereClient, cell: str, words: str
) -> None:
    assert words in refusal(cell)
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
        ("%golem doctor", "%golem doctor is not available yet; known are attach, cancel"),
        ("%golem_map nosuch [1]", "nosuch is not defined"),
        ("%golem_map abs range(lok)", "lok is not defined (in range(lok)), did you mean lock?"),
        ("%golem_map abs [x for x in [1] if y]", "y is not defined (in [x for x in [1] if y])"),
        ("%golem_map abs [1] -c nosuch", "nosuch is not defined"),
        ("%%golemize pritn(1)\ndef f(x): ...", "pritn is not defined (in pritn(1)), did you mean print?"),
    ],
)
def test_our_own_errors_are_one_line(
    run: Run, refusal: Refusal, client: HereClient, cell: str, words: str
) -> None:
    run("import threading\nlock = threading.Lock()")

    assert words in refusal(cell)


def test_settings_that_are_wrong_are_one_line_and_may_be_mended(
    run: Run, refusal: Refusal, shell: Shell
) -> None:
    client = HereClient()
    faults = ["workers in the call is 0, allowed: a whole number >= 1"]

    def make_client() -> Any:
        if faults:
            raise SettingsError(faults.pop())
        return client

    load(shell, make_client=make_client)

    assert "workers in the call is 0" in refusal("%golem_map abs [1]")
    assert list(run("%golem_map abs [-1] --quiet")) == [1]


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [("[1 / 0]", ZeroDivisionError), ("[broken()]", NameError), ("[[].x]", AttributeError)],
)
def test_an_error_in_the_inputs_is_the_users_own(
    run: Run, shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str], inputs: str, kind: type
) -> None:
    run("def broken():\n    return nosuch")
    done = shell.run_cell(f"%%golemize {inputs}\ndef f(x):\n    return x", store_history=True)

    shown = capsys.readouterr().out
    assert isinstance(done.error_in_exec, kind)
    assert inputs in shown
    assert "running.py" not in shown


# --- a function that can be mapped ---


def test_without_inputs_the_function_becomes_mappable(run: Run, shell: Shell, client: HereClient) -> None:
    run("%%golemize -c 10 --label first\ndef add(x, y):\n    return x + y")
    run("here = add(1, 2)\nr = add.map([1, 2], label='second')\ns = add.map([1], common=1, quiet=True)")

    assert shell.user_ns["here"] == 3
    assert list(shell.user_ns["r"]) == [11, 12]
    assert list(shell.user_ns["s"]) == [2]
    assert [results.progress.label for results in client.started] == ["second", "first"]


def test_what_makes_it_mappable_stays_at_home(run: Run, shell: Shell, client: HereClient) -> None:
    run("%%golemize\ndef fact(n):\n    return n * fact(n - 1) if n else 1")
    payload = cloudpickle.dumps(shell.user_ns["fact"])

    code = (
        "import pickle, sys\nf = pickle.load(sys.stdin.buffer)\n"
        "print(f(5), f.map, any(name.startswith(('golem_magic', 'IPython')) for name in sys.modules))"
    )
    there = subprocess.run([sys.executable, "-c", code], input=payload, capture_output=True, check=True)

    assert there.stdout.split() == [b"120", b"None", b"False"]
    assert list(shell.user_ns["fact"].map([3, 4])) == [6, 24]


def test_a_callable_without_attributes_is_refused(refusal: Refusal, client: HereClient) -> None:
    line = refusal("%%golemize -f size\nsize = len")

    assert "takes no attribute map: give INPUTS on the line, or use %golem_map" in line


# --- %golem_map ---


def test_a_function_that_is_there_is_mapped(run: Run, shell: Shell, client: HereClient) -> None:
    run("xs = [1, 0, 2]\ndef f(x): return -x")
    run("r = %golem_map f [x**2 for x in xs if x]")
    run("%golem_map (lambda x: x + 1), range(3) -o out")

    assert list(shell.user_ns["r"]) == [-1, -4]
    assert list(shell.user_ns["out"]) == [1, 2, 3]


def test_the_results_are_the_value_of_the_line(run: Run, client: HereClient) -> None:
    assert run("%golem_map abs [-1]") is client.started[0]
    assert run("%golem_map abs [-1] -o out") is None
    assert run("%golem_map abs [-1];") is None
    assert len(client.started) == 3


def test_names_of_the_calling_function_are_seen(run: Run, client: HereClient) -> None:
    run(
        "k = 1\ndef outer(k, xs):\n    factor = 3\n"
        "    r = %golem_map (lambda x: x * factor + k) [x + k for x in xs]\n    return list(r)",
    )

    assert run("outer(10, [1, 2])") == [43, 46]


def test_a_lambda_of_the_line_has_its_source(run: Run, shell: Shell, client: HereClient) -> None:
    run("import linecache, sys")
    run("def line():\n    return linecache.getline(sys._getframe(1).f_code.co_filename, 1)")
    run("%golem_map (lambda x: line()) [1] -o out")

    assert list(shell.user_ns["out"]) == ["((lambda x: line())\n"]


def test_a_variable_whose_job_runs_on_is_replaced_with_a_word(
    run: Run, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs_run_on = True
    run("%golem_map abs [-1] -o out --quiet")
    capsys.readouterr()
    run("%golem_map abs [-1] -o out --quiet")
    job = client.started[0].job_id[:8]
    said = capsys.readouterr().err
    client.started[1].end()
    run("%golem_map abs [-1] -o out --quiet")

    assert f"%golem attach {job} -o NAME" in said
    assert capsys.readouterr().err == ""


def test_objects_that_answer_to_every_name_are_no_results(run: Run, shell: Shell, client: HereClient) -> None:
    run("class Yes:\n    def __getattr__(self, name): raise RuntimeError(name)\nout = Yes()")
    run("%golem_map abs [-1] -o out")

    assert list(shell.user_ns["out"]) == [1]
