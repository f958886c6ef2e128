"""The command line, as a shell runs it."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from engines.engine_contract import wait_until

import golem_magic
from golem_magic import Client

ROOT = Path(golem_magic.__file__).parent.parent
CLI = [sys.executable, "-m", "golem_magic"]
DEADLINE_S = 60


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def golem_magic_says(*words: str, **more: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*CLI, *words], env=environment(**more), capture_output=True, text=True, timeout=DEADLINE_S, cwd="/"
    )


@contextlib.contextmanager
def serving(*options: str) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """``golem-magic serve`` in the foreground of a process group of its own, and what it says first."""
    process = subprocess.Popen(
        [*CLI, "serve", *options],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        try:
            yield process, process.stdout.readline()
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(DEADLINE_S)


def n_running(state: Path) -> int:
    """Tasks that the embedded Golem runs."""
    address = json.loads((state / "golem.json").read_text())
    headers = {"x-golem-apikey": address["password"]}
    with urlopen(Request(f"{address['url']}/nodes/", headers=headers), timeout=DEADLINE_S) as answer:
        return int(json.load(answer)["Items"][0]["RunningJobs"])


@pytest.fixture
def client(state_dir: Path) -> Iterator[Client]:
    with Client(workers=2) as client:
        yield client


def divide_if_it_is_there(x: int, mended: str) -> int:
    if not os.path.exists(mended):
        raise ValueError(x)
    return x


def wait_then_divide(x: int, folder: str) -> int:
    import os
    import time

    while not os.path.exists(f"{folder}/release"):
        time.sleep(0.01)
    return 1 // (x + 1)


# --- serve ---


def test_serve_runs_the_embedded_golem_where_notebooks_look_until_it_is_interrupted(state_dir: Path) -> None:
    with serving("--slots", "1") as (process, said):
        assert re.match(r"http://127\.0\.0\.1:\d+ \(password in .*golem\.json\)$", said)
        assert json.loads((state_dir / "golem.json").read_text())["pid"] == process.pid
        with Client() as client:
            assert list(client.map(abs, [-1, -2])) == [1, 2]
        wait_until(lambda: n_running(state_dir) == 0, "the worker's end")

        os.killpg(process.pid, signal.SIGINT)  # as a terminal does for Ctrl-C

        assert process.wait(DEADLINE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert not (state_dir / "golem.json").exists()


def test_serve_stays_without_clients_unless_told_to_linger_only_so_long(state_dir: Path) -> None:
    with serving("--state", str(state_dir / "a")) as (process, _), pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)


def test_serve_tells_what_it_leaves_for_the_next_start(state_dir: Path, tmp_path: Path) -> None:
    with serving("--slots", "1") as (process, _), Client() as client:
        results = client.map(wait_then_divide, range(4), common=str(tmp_path), chunk_size=1, workers=3)
        wait_until(lambda: bool(results.progress.n_running), "a running task")

        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)
        assert process.stderr is not None
        told = process.stderr.readline()
        (tmp_path / "release").touch()
        results.wait()

    assert told == "1 tasks run on, 2 wait for the next start with this folder\n"


def test_a_second_serve_says_where_the_first_is(state_dir: Path) -> None:
    with serving():
        second = golem_magic_says("serve")

    assert (second.returncode, second.stdout) == (1, "")
    assert str(state_dir / "golem.json") in second.stderr
    assert len(second.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [["serve", "--slots", "0"], ["serve", "--port", "x"], ["serve", "--linger", "soon"], ["dance"], [],
     ["autoload", "maybe"], ["attach"], ["jobs", "x"], ["nodes", "--last", "0"],
     ["nodes", "--last", "soon"]],
)  # fmt: skip
def test_a_wrong_command_line_is_refused(words: list[str]) -> None:
    said = golem_magic_says(*words)

    assert said.returncode == 2
    assert said.stderr.splitlines()[-1].startswith("golem-magic")


# --- jobs, attach, cancel ---


def test_jobs_are_listed_attached_and_end_with_a_code(client: Client, tmp_path: Path) -> None:
    good = client.map(abs, [-1, -2], label="fine")
    bad = client.map(wait_then_divide, [-1, 0, 1], common=str(tmp_path))
    good.wait()

    attaching = subprocess.Popen(
        [*CLI, "attach", bad.job_id[:8]], env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    listed = golem_magic_says("jobs")
    (tmp_path / "release").touch()
    out, err = attaching.communicate(timeout=DEADLINE_S)

    assert listed.returncode == 0
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert rows[0] == ["job", "function", "label", "state", "done/failed/total"]
    assert rows[1][:2] == [bad.job_id[:8], "wait_then_divide"]
    assert rows[2] == [good.job_id[:8], "abs", "fine", "done,", "unread", "2/0/2"]
    assert (attaching.returncode, out) == (1, b"")
    last = err.decode().splitlines()[-1]
    assert "finished with errors" in last
    assert "ZeroDivisionError" in last
    assert golem_magic_says("attach", good.job_id).returncode == 0


def test_what_failed_is_run_again(client: Client, tmp_path: Path) -> None:
    results = client.map(divide_if_it_is_there, [1, 2, 0, 4], common=str(tmp_path / "mended"))
    assert results.wait(DEADLINE_S)

    assert golem_magic_says("retry", results.job_id).returncode == 1  # tasks fail again
    (tmp_path / "mended").touch()
    told = golem_magic_says("retry", results.job_id[:8])

    assert told.returncode == 0
    assert "4/4" in told.stderr.splitlines()[-1]
    assert list(results) == [1, 2, 0, 4]


def test_an_interrupt_of_attach_stops_waiting_and_nothing_else(client: Client, tmp_path: Path) -> None:
    results = client.map(wait_then_divide, [1], common=str(tmp_path))
    attaching = subprocess.Popen([*CLI, "attach", results.job_id], env=environment(), stderr=subprocess.PIPE)
    assert attaching.stderr is not None
    with attaching.stderr:
        attaching.stderr.readline()  # its first line: now it waits

        attaching.send_signal(signal.SIGINT)

        assert attaching.wait(DEADLINE_S) == 130
        assert f"job {results.job_id[:8]} goes on" in attaching.stderr.read().decode()
    (tmp_path / "release").touch()
    assert list(results) == [0]


def test_cancel_says_what_became_of_the_job(client: Client, tmp_path: Path) -> None:
    done = client.map(abs, [1])
    assert list(done) == [1]
    results = client.map(wait_then_divide, [1, 2], common=str(tmp_path))

    cancelled = golem_magic_says("cancel", results.job_id[:8])
    late = golem_magic_says("cancel", done.job_id)

    assert cancelled.stdout == f"job {results.job_id[:8]} is cancelled; results that are there stay\n"
    assert late.stdout == f"job {done.job_id[:8]} was over already: nothing to cancel\n"
    assert (cancelled.returncode, late.returncode) == (0, 0)
    assert results.wait(DEADLINE_S)
    assert golem_magic_says("attach", results.job_id).returncode == 1


@pytest.mark.parametrize("word", ["attach", "cancel"])
def test_a_job_that_is_not_there_is_told_in_one_line(state_dir: Path, word: str) -> None:
    said = golem_magic_says(word, "feed")

    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("golem-magic: ")
    assert len(said.stderr.splitlines()) == 1


def test_a_reader_that_has_seen_enough_is_no_error(state_dir: Path) -> None:
    process = subprocess.Popen(
        [*CLI, "config"], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(DEADLINE_S)


# --- nodes ---


def test_nodes_and_how_much_they_were_used_are_listed(
    client: Client, tmp_path: Path, state_dir: Path
) -> None:
    flag = str(tmp_path / "flag")

    def wait_for_flag(x: int) -> int:
        while not os.path.exists(flag):
            time.sleep(0.01)
        return x

    before = golem_magic_says("nodes", "--last", "0.5")
    results = client.map(wait_for_flag, range(2), workers=1)
    wait_until((state_dir / "usage").exists, "the first record")
    nodes, used = golem_magic_says("nodes"), golem_magic_says("nodes", "--last", "0.5")
    Path(flag).touch()
    assert results.wait(DEADLINE_S)

    host = socket.gethostname()
    assert (before.returncode, before.stdout) == (0, "no work\n")
    assert [row.split() for row in nodes.stdout.splitlines()] == [
        ["node", "slots", "running"],
        [host, "2", "1"],
    ]
    [_, row] = used.stdout.splitlines()
    assert row.split()[2:4] == ["1", "0"]
    assert 0 < float(row.split()[4]) <= 1
    assert row.split()[5] == "2"


def test_a_golem_elsewhere_keeps_no_record_that_we_could_read(state_dir: Path) -> None:
    said = golem_magic_says("nodes", "--last", "1", GOLEM_MAGIC_ENGINE="golem")

    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("golem-magic: engine golem keeps no record of its use")


# --- config ---


def test_config_tells_each_setting_and_its_place_but_never_the_password(
    state_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "golem.json"
    file.write_text(json.dumps({"server_password": "sesame", "workers": 3, "taskSize": 10}))

    said = golem_magic_says("config", GOLEM_MAGIC_CONFIG=str(file), GOLEM_MAGIC_WORKERS="5")

    rows = {line.split("  ")[0]: re.split(" {2,}", line)[1:] for line in said.stdout.splitlines()}
    assert rows["setting"] == ["value", "from"]
    assert rows["workers"] == ["5", "GOLEM_MAGIC_WORKERS"]
    assert rows["server_password"] == ["set, not shown", str(file)]
    assert rows["engine"] == ["local", "default"]
    assert rows["share"] == [os.environ["GOLEM_MAGIC_SHARE"], "GOLEM_MAGIC_SHARE"]
    assert rows["state_dir"] == [str(state_dir), "GOLEM_MAGIC_STATE"]
    assert said.stderr.startswith(f"taskSize in {file} is not used")
    assert "sesame" not in said.stdout + said.stderr


def test_config_with_faults_names_them_all(state_dir: Path) -> None:
    said = golem_magic_says("config", GOLEM_MAGIC_WORKERS="0", GOLEM_MAGIC_SERVER_URL="ftp://sesame@x")

    assert said.returncode == 1
    assert "GOLEM_MAGIC_WORKERS" in said.stderr
    assert "GOLEM_MAGIC_SERVER_URL" in said.stderr
    assert "sesame" not in said.stderr


# --- the program itself ---


def test_the_console_script_is_this_program() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, name = scripts["golem-magic"].partition(":")

    assert import_module(module) is sys.modules["golem_magic.cli"]
    assert callable(getattr(import_module(module), name))


def test_help_and_version_need_nothing_heavy() -> None:
    code = (
        "import contextlib, sys; from golem_magic.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['--version'])\n"
        "print(sorted({'IPython', 'requests', 'ipywidgets'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())

    assert run.stdout == f"golem-magic {golem_magic.__version__}\n[]\n"
    assert "serve" in golem_magic_says("--help").stdout
