"""What is around a map: waiting, the jobs, what is shown, help, completion, loading."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fakes.here_client import HereClient
from IPython.core.completer import provisionalcompleter

from golem_magic import cells
from golem_magic.magics import GolemMagics, load, unload
from golem_magic.model import JobState

Run: TypeAlias = Callable[[str], Any]
Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only
ROOT = Path(__file__).parents[2]

# --- waiting ---


def test_waiting_ends_with_the_job(run: Run, client: HereClient) -> None:
    client.jobs_run_on = True
    run("%golem_map abs [-1] -o out --wait")

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
    run: Run,
    shell: Shell,
    client: HereClient,
    capsys: pytest.CaptureFixture[str],
    switch: bool,
    state: JobState,
    words: str,
) -> None:
    client.jobs_run_on = True
    run(f"%config GolemMagics.interrupt_cancels = {switch}")
    client.waits_are_interrupted = True
    run("%%golemize [-1] --wait --quiet\ndef f(x): return x")

    assert capsys.readouterr().out == words.format(client.started[0].job_id[:8])
    assert client.started[0].progress.state is state
    assert shell.user_ns["f_results"] is client.started[0]


# --- %golem ---


def test_jobs_are_listed(run: Run, client: HereClient, capsys: pytest.CaptureFixture[str]) -> None:
    client.jobs_run_on = True
    run("%golem jobs")
    nothing = capsys.readouterr().out
    run(
        "%golem_map abs [-1, 2] -o out --label 'a rather long label that\tgoes on and on and on' --quiet",
    )
    run("%golem jobs")

    head, row = capsys.readouterr().out.splitlines()
    assert nothing == "no jobs\n"
    assert head.split() == ["job", "function", "label", "state", "done/failed/total"]
    words = ["a", "rather", "long", "label", "that", "go..."]
    assert row.split() == [client.started[0].job_id[:8], "abs", *words, "running", "2/0/2"]


def test_a_job_is_found_again(run: Run, shell: Shell, client: HereClient) -> None:
    run("%golem_map abs [-1] -o out")
    job = client.started[0].job_id

    run(f"%golem attach {job[:6]} -o again")

    assert shell.user_ns["again"] is client.started[0]
    assert run(f"%golem attach {job}") is client.started[0]


def test_a_job_is_cancelled_by_id_or_by_variable(
    run: Run, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs_run_on = True
    run("%golem_map abs [-1] -o first --quiet\n%golem_map abs [-1] -o second --quiet")
    ids = [results.job_id for results in client.started]
    run(f"%golem cancel first\n%golem cancel {ids[1]}")

    assert [results.progress.state for results in client.started] == [JobState.CANCELLED] * 2
    said = capsys.readouterr().out
    assert [f"job {job_id[:8]} is cancelled" in said for job_id in ids] == [True, True]


# --- what is shown ---


@pytest.mark.meets("G-10")
def test_progress_is_shown_unless_it_should_be_quiet(
    run: Run, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run("%golem_map abs [-1] -o out --quiet")
    quiet = capsys.readouterr()
    run("%golem_map abs [-1] -o out2")

    assert quiet.out + quiet.err == ""
    assert client.started[1].job_id[:8] in capsys.readouterr().err


def test_the_end_of_a_job_is_drawn_after_the_next_cell(
    run: Run, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    client.jobs_run_on = True
    run("%golem_map abs [-1] -o out")
    client.started[0].end()
    capsys.readouterr()
    run("pass")

    assert "finished" in capsys.readouterr().err


# --- help, completion, loading ---


def test_the_help_names_every_option() -> None:
    for magic, method in [("%%golemize", GolemMagics.golemize), ("%golem_map", GolemMagics.golem_map)]:
        help_text = method.__doc__ or ""
        missing = [word for word in cells.words_of(magic) if word not in help_text]
        assert missing == []
    help_text = GolemMagics.golem.__doc__ or ""
    assert [word for word in cells.command_words() if f"%golem {word}" not in help_text] == []
    assert all(
        option in help_text for word in cells.command_words() for option in cells.command_options(word)[:1]
    )


@pytest.mark.parametrize("magic", ["%%golemize", "%golem_map", "%golem"])
def test_a_question_mark_shows_use_options_and_examples(
    run: Run, client: HereClient, capsys: pytest.CaptureFixture[str], magic: str
) -> None:
    run(f"{magic}?")

    shown = capsys.readouterr().out
    assert f"\n    {magic} " in shown or f"    {magic} " in shown
    assert "Examples::" in shown
    assert "{options}" not in shown
    assert ("--disk-budget BYTES" in shown) == (magic != "%golem")
    assert max(map(len, shown.splitlines())) < 120


def test_the_traits_can_be_seen_and_set(
    run: Run, shell: Shell, client: HereClient, capsys: pytest.CaptureFixture[str]
) -> None:
    run("%config GolemMagics")
    shown = capsys.readouterr().out
    run("%config GolemMagics.interrupt_cancels = True")

    assert "GolemMagics.interrupt_cancels=<Bool>" in shown
    assert "Whether an interrupt of --wait also cancels the job" in shown
    assert shell.magics_manager.registry["GolemMagics"].interrupt_cancels is True


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
        ("%%golemize xs --on-error s", ["%%golemize xs --on-error skip", "%%golemize xs --on-error stop"]),
        ("%%golemize xs --keep u", ["%%golemize xs --keep unread"]),
        ("%golem_map f xs --ret", ["%golem_map f xs --retries", "%golem_map f xs --retry-on"]),
        ("%golem_map f xs --setup my_fu", ["%golem_map f xs --setup my_function"]),
        ("%golem_map my_fu", ["%golem_map my_function"]),
        ("%golem_map -o out my_fu", ["%golem_map -o out my_function"]),
        ("%golem att", ["%golem attach"]),
        ("%golem c", ["%golem cancel", "%golem clean", "%golem config"]),
        ("%golem clean --d", ["%golem clean --dry-run"]),
        ("%golem clean --older 3 --d", ["%golem clean --older 3 --dry-run"]),
        ("%golem attach 1f --o", ["%golem attach 1f --out"]),
        ("%golem config wor", ["%golem config workers="]),
    ],
)
def test_lines_are_completed(run: Run, shell: Shell, text: str, expected: list[str]) -> None:
    load(shell)
    run("def my_function(x): return x\nmy_functional = 3")

    assert completions(shell, text) == expected


def test_jobs_are_completed_by_their_ids_and_their_variables(
    run: Run, shell: Shell, client: HereClient
) -> None:
    run("%golem_map abs [-1] -o squares --quiet\n%golem_map abs [-1] -o other --quiet")
    short = sorted(results.job_id[:8] for results in client.started)
    whole = client.started[0].job_id

    assert completions(shell, "%golem attach ") == [f"%golem attach {job}" for job in short]
    assert completions(shell, f"%golem logs {short[0][:2]}") == [f"%golem logs {short[0]}"]
    assert completions(shell, "%golem cancel squ") == ["%golem cancel squares"]
    assert completions(shell, f"%golem cancel {whole[:9]}") == [f"%golem cancel {whole}"]
    assert completions(shell, f"%golem logs {short[0]} ") != [f"%golem logs {short[0]} {short[0]}"]


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
def test_expressions_are_completed(run: Run, shell: Shell, text: str, expected: str) -> None:
    load(shell)
    run("my_inputs = [3]\ntext = ''")

    assert completions(shell, text) == [expected]


def test_unloading_leaves_nothing_behind(run: Run, shell: Shell) -> None:
    def traces() -> tuple[Any, ...]:
        manager = shell.magics_manager
        return (
            {kind: sorted(names) for kind, names in manager.magics.items()},
            list(shell.Completer.custom_matchers),
            list(shell.events.callbacks["post_run_cell"]),
            [each for each in shell.configurables if isinstance(each, GolemMagics)],
            sorted(manager.registry),
        )

    run("%unload_ext golem_magic")  # nothing there yet, but the shell loads its own magics lazily
    before = traces()
    run("%load_ext golem_magic\n%reload_ext golem_magic")
    loaded = traces()
    run("%unload_ext golem_magic")

    assert loaded != before
    assert traces() == before


def test_unloading_closes_the_client(run: Run, shell: Shell, client: HereClient) -> None:
    run("%golem_map abs [1] -o out --quiet")
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
    said = json.loads((ROOT / "jupyter-config/ipython_config.json").read_text())

    assert said == {"InteractiveShellApp": {"extra_extensions": ["golem_magic"]}}
