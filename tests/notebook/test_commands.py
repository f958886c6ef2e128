"""What ``%golem`` tells and does about real jobs, on a share and an embedded Golem of their own."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fakes.golem_double import GolemDouble

from golem_magic.engines.local import LocalEngine
from golem_magic.magics import load
from golem_magic.settings import set_here

Run: TypeAlias = Callable[[str], Any]
Refusal: TypeAlias = Callable[[str], str]
Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only
Told: TypeAlias = Callable[[str], str]


@pytest.fixture
def told(
    shell: Shell, run: Run, state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[[str], str]]:
    """Run a cell that must succeed and give what it prints; the client is the real one."""

    def told(cell: str) -> str:
        capsys.readouterr()
        run(cell)
        return capsys.readouterr().out

    load(shell)
    yield told
    for key in ("workers", "engine", "share", "server_url", "server_password"):
        set_here(key, "")


# --- retry ---


def test_what_failed_is_run_again_by_job_or_by_variable(
    run: Run, told: Told, shell: Shell, refusal: Refusal, tmp_path: Path
) -> None:
    run(
        "%%golemize range(4) --wait --quiet\n"
        f"import os\nmended = {str(tmp_path / 'mended')!r}\n"
        "def half(x):\n    assert x != 2 or os.path.exists(mended), 'broken'\n    return x / 2"
    )
    results = shell.user_ns["half_results"]
    assert "AssertionError: broken" in repr(results)

    (tmp_path / "mended").touch()
    assert run("%golem retry half_results") is results
    assert results.wait(30)
    assert run("list(half_results)") == [0, 0.5, 1, 1.5]
    run("%%golemize [0, 1] -o inverses --wait --quiet\ndef inverse(x):\n    return 1 / x")
    run(f"%golem retry {shell.user_ns['inverses'].job_id[:8]} -o again")
    assert run("again.wait(30), list(again.errors())") == (True, [0])
    assert refusal("%golem retry half_results") == (
        f"job {results.job_id[:8]} has no failed tasks: nothing to retry"
    )


def test_a_name_that_means_no_job_is_told_as_such(refusal: Refusal, told: Told) -> None:
    for word in ("logs", "cancel"):
        assert refusal(f"%golem {word} nope") == (
            "nope is neither a variable with results nor a job's id: %golem jobs lists the jobs"
        )
    assert refusal("%golem logs beef").startswith("no single job beef in ")


# --- logs ---


@pytest.mark.meets("G-37")
def test_what_tasks_print_is_shown_on_demand_by_job_by_variable_and_by_task(
    run: Run, told: Told, shell: Shell, refusal: Refusal
) -> None:
    run(
        "%%golemize [3, 4] --chunk-size 1 --workers 1 --wait --quiet\n"
        "import sys\n"
        "def speak(x):\n    print('out', x)\n    sys.stderr.write(f'err {x}\\n')\n    return 1 / (x - 4)"
    )
    job = shell.user_ns["speak_results"].job_id

    texts = [told(f"%golem logs {which}") for which in ("speak_results", job[:8], "speak_results 1")]

    for text in texts:
        assert re.fullmatch(r"--- worker \S+\nout 3\nerr 3\nout 4\nerr 4\n", text)
    assert repr(run("speak_results.logs(1)")) == texts[2].rstrip("\n")
    # a failure names the worker whose log that is
    [note] = run("speak_results.errors()[1].__notes__")
    assert next(iter(run("speak_results.logs(1)"))) in note
    assert f"no worker has begun with task 2 of job {job[:8]}" in refusal("%golem logs speak_results 2")


@pytest.mark.meets("GR-07")
def test_logs_of_a_task_that_runs_and_of_one_that_kills_its_worker(
    run: Run, told: Told, tmp_path: Path
) -> None:
    flag = tmp_path / "go on"
    run(
        "%%golemize -o out ['waits', 'dies'] --chunk-size 1 --workers 2 --quiet\n"
        "import os, time\n"
        "def go(x):\n    print('begins', x)\n    if x == 'dies': os._exit(3)\n"
        f"    while not os.path.exists({str(flag)!r}): time.sleep(0.01)"
    )
    died = type(run("import contextlib\nwith contextlib.suppress(Exception):\n    out[1]\nout.errors()[1]"))
    running, dead = told("%golem logs out 0"), told("%golem logs out 1")
    flag.touch()
    run("out.wait()")

    assert died.__name__ == "WorkerDied"
    assert "begins waits\n" in running
    assert dead.count("begins dies\n") == 3


def test_only_the_ends_of_long_logs_and_of_many_are_shown(run: Run, told: Told, shell: Shell) -> None:
    run("%golem_map -o out print ['x' * 150_000, 'last words'] --workers 1 --chunk-size 2 --wait --quiet")
    results = shell.user_ns["out"]
    folder = Path(results.logs().folder)
    for n in range(12):
        (folder / f"{n}.log").write_text(f"I am {n}\n" if n else "")

    whole, all_of_them = told("%golem logs out 0"), told("%golem logs out")

    assert len(whole) < 110_000
    assert "[...]\n" in whole
    assert whole.endswith("last words\n")
    assert all_of_them.count("--- worker") == 10
    assert all_of_them.endswith(f"--- and 2 more in {folder}\n")


def test_silence_is_told(run: Run, told: Told, shell: Shell) -> None:
    run("%golem_map -o out abs [1] --workers 1 --wait --quiet")

    folder = shell.user_ns["out"].logs().folder
    assert told("%golem logs out") == told("%golem logs out 0") == f"nothing has been written ({folder})\n"


# --- nodes ---


def test_nodes_are_told_with_and_without_a_master(run: Run, told: Told, tmp_path: Path) -> None:
    before = told("%golem config workers=3\n%golem nodes")
    flag = tmp_path / "go on"
    run(
        "%%golemize -o out [1] --workers 1 --quiet\nimport os, time\n"
        f"def go(x):\n    while not os.path.exists({str(flag)!r}): time.sleep(0.01)"
    )
    run("while not out.progress.n_running: pass")
    during = told("%golem nodes")
    flag.touch()
    run("out.wait()")

    host = socket.gethostname()
    assert [line.split() for line in before.splitlines()] == [["node", "slots", "running"], [host, "3", "0"]]
    assert during.split()[3:] == [host, "3", "1"]


# --- settings ---


def test_settings_are_told_with_the_place_of_each(
    told: Told, share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"serverPassword": "hush", "workers": 2, "taskSize": 3}))
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", str(file))

    text = told("%golem config workers=5\n%golem config")

    rows = {line.split()[0]: line for line in text.splitlines()[1:]}
    assert rows["engine"].split() == ["engine", "local", "default"]
    assert re.split(r"  +", rows["share"])[1:] == [str(share), "GOLEM_MAGIC_SHARE"]
    assert rows["workers"].split(maxsplit=2)[1:] == ["5", "%golem config"]
    assert rows["server_password"].endswith(str(file))
    assert "hush" not in text
    assert f"taskSize in {file} is not used" in text
    assert told("%golem config workers").split() == ["setting", "value", "from", *rows["workers"].split()]


def test_a_setting_holds_for_this_kernel_until_it_is_taken_back(
    run: Run, told: Told, refusal: Refusal, tmp_path: Path
) -> None:
    run("%golem_map -o here abs [-1] --wait --quiet\nhere[0]")
    listed = told("%golem jobs")
    run(f"%golem config share='{tmp_path}/other share'")
    elsewhere = told("%golem jobs")
    run("import golem_magic\nthere = golem_magic.golem_map(abs, [-2])")
    from_python = told("%golem jobs")
    values = run("list(here) + list(there)")
    run("there.wait()\n%golem config share=")

    assert listed == told("%golem jobs")
    assert elsewhere == "no jobs\n"
    assert from_python.count(" abs ") == 1
    assert values == [1, 2]
    assert "workers in %golem config is '-1'" in refusal("%golem config workers=-1")


def test_a_password_is_asked_for(told: Told, refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"hush, {prompt}")  # there is no terminal here

    shown = told("%golem config server_password\n%golem config")
    taken_back = told("%golem config server_password=\n%golem config")

    assert re.search(r"server_password +set, not shown +%golem config\n", shown)
    assert "hush" not in shown
    assert re.search(r"server_password +- +default\n", taken_back)
    assert "hush" not in refusal("%golem config server_password=hush")


# --- cleaning ---


def test_what_is_over_is_cleaned_away(run: Run, told: Told, share: Path, tmp_path: Path) -> None:
    flag = tmp_path / "go on"
    run("%golem_map -o done (lambda x, y: y) [-1] -c 'a common thing' --wait --quiet")
    run(
        "%%golemize -o busy [1] --workers 1 --quiet\nimport os, time\n"
        f"def go(x):\n    while not os.path.exists({str(flag)!r}): time.sleep(0.01)"
    )
    job = run("done.job_id")

    young = told("%golem clean")
    held = told("%golem clean --older 0")
    run("del done")
    dry = told("%golem clean --older 0 --dry-run")
    both = sorted(path.name for path in (share / "jobs").iterdir())
    wet = told("%golem clean --older 0")
    left = [path.name for path in (share / "jobs").iterdir()]
    flag.touch()
    run("busy.wait()")

    assert young.splitlines() == [
        "removed 0 jobs and 0 unused objects: 0 bytes",
        "kept 1 job: a program holds its results",
        "kept 1 job: not finished",
    ]
    assert held == young
    assert dry.startswith("would remove 1 job and 0 unused objects: ")
    assert re.search(f"\\n  {job[:8]} +0 h .* over for more than 0 days\n", dry)
    assert both == sorted([job, run("busy.job_id")])
    assert wet == dry.replace("would remove", "removed")
    assert left == [run("busy.job_id")]
    assert run("list(busy)") == [None]


# --- what the engine is told ---


def test_the_label_is_shown_with_the_job_here_and_by_the_engine_with_its_owner(
    run: Run, told: Told, state_dir: Path
) -> None:
    run("%golem_map -o out abs [-1] --label 'my label' --wait --quiet")
    engine = LocalEngine(state_dir)
    golem = engine._find()
    assert golem is not None
    answer: Any = golem.request("GET", "/jobs/")
    engine.close()

    assert " my label " in told("%golem jobs")
    [job] = answer["Items"]
    assert job["Label"] == "my label"
    assert "@" in job["Owner"]


def test_nodes_of_a_master_are_listed_with_their_sum_and_a_master_that_is_not_there_is_told(
    told: Told, refusal: Refusal, tmp_path: Path
) -> None:
    with GolemDouble(tmp_path / "golem", password="right", slots=(2, 3)) as golem:
        told(
            f"%golem config server_url={golem.url}\n%golem config engine=golem\n"
            f"%golem config share={tmp_path}/share"
        )
        rows = [line.split() for line in told("%golem nodes").splitlines()]
    line = refusal("%golem nodes")

    assert rows[0] == ["node", "slots", "running"]
    assert sorted(row[1:] for row in rows[1:3]) == [["2", "0"], ["3", "0"]]
    assert rows[3] == ["all", "5", "0"]
    assert golem.url in line
