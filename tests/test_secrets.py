"""Passwords are nowhere to be seen: repr, logs, tracebacks with variables, notebooks, processes, files."""

import json
import logging
import os
import re
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from engines.engine_contract import wait_until
from fakes.golem_double import Fault, FaultKind, GolemDouble
from fakes.world import embedded_client
from kernel_session import started_kernel

from golem_magic import Client, EngineError
from golem_magic.engines.base import EngineOptions
from golem_magic.settings import load_settings

PASSWORD = "swordfish-7f3a"
WRONG = "tell-tale-91c0"
SECRETS = (PASSWORD, WRONG)


def assert_silent(text: str) -> None:
    for secret in SECRETS:
        at = text.find(secret)
        assert at < 0, f"... {text[max(0, at - 200) : at + 40]} ..."


@pytest.fixture
def golem(tmp_path: Path) -> Iterator[GolemDouble]:
    """A master whose nodes have an environment of their own, as on a cluster."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    with GolemDouble(tmp_path / "golem", password=PASSWORD, environment=environment) as double:
        yield double


@pytest.fixture
def client(golem: GolemDouble, share: Path) -> Iterator[Client]:
    with Client(engine="golem", server_url=golem.url, server_password=PASSWORD, share=share) as client:
        yield client


# --- what is shown of objects ---


def test_no_object_shows_it(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    results = client.map(abs, range(5))
    assert list(results) == list(range(5))

    shown = [client, client.settings, results, results.progress, client.jobs(), vars(client)]
    options = EngineOptions(server_password=PASSWORD)
    assert_silent(repr([*shown, options]) + "".join(map(str, [*shown, options])))
    assert "urllib3" in caplog.text  # the libraries' own words were heard
    assert_silent(caplog.text)


# --- tracebacks, also as tools show them that print every variable of every frame ---


def test_the_check_for_variables_sees_one() -> None:
    names: dict[str, Any] = {"secret": lambda: WRONG}
    exec(compile("def fail():\n    password = secret()\n    1 / 0", "elsewhere.py", "exec"), names)

    text = with_variables(names["fail"])

    assert f"password = '{WRONG}'" in text


def with_variables(call: Callable[[], object]) -> str:
    """The traceback of a call that must fail, with all variables of all its frames but those in this file."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is, it is searched
        call()
    return "".join(_shown(caught.value))


def _shown(error: BaseException | None) -> Iterator[str]:
    """An error and what led to it, as the most talkative tool would show them."""
    while error is not None:
        yield f"{error!r}\n"
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename != __file__:
                yield f"  {frame.f_code.co_filename}:{line} {frame.f_code.co_name}\n"
                yield from (f"    {name} = {_tried(value)}\n" for name, value in frame.f_locals.items())
        error = error.__cause__ or error.__context__


def _tried(value: object) -> str:
    try:
        return repr(value)
    except Exception as error:  # noqa: BLE001 - objects that are half made may not know their repr
        return f"({error})"


@pytest.mark.parametrize("kind", ["close", "500", "garbage", "html", "half-head", "half-body"])
@pytest.mark.parametrize("prefix", ["GET /nodes/", "POST /jobs/"])
def test_a_traceback_of_a_broken_exchange_is_silent(
    golem: GolemDouble, client: Client, kind: FaultKind, prefix: str
) -> None:
    golem.faults.append(Fault(kind, prefix, times=9))

    text = with_variables(lambda: client.map(abs, [1]))

    assert "EngineError" in text
    assert_silent(text)


def test_a_traceback_of_a_refused_connection_is_silent(share: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with Client(engine="golem", server_url=url, server_password=PASSWORD, share=share) as client:
            text = with_variables(lambda: client.map(abs, [1]))

    assert "refused" in text
    assert_silent(text)


@pytest.mark.parametrize(
    "said",
    [
        {"server_password": PASSWORD, "workers": 0},
        {"server_password": PASSWORD, "passwrd": 1},
        {"server_url": f"https://me:{PASSWORD}@host"},
        {"serverPassword": PASSWORD, "share": ""},
    ],
)
def test_a_traceback_of_a_wrong_setting_is_silent(said: dict[str, Any]) -> None:
    text = with_variables(lambda: Client(**said))

    assert "load_settings" in text
    assert_silent(text)


def test_a_traceback_of_a_wrong_file_is_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    monkeypatch.setenv("GOLEM_MAGIC_CONFIG", str(path))
    for text in (
        json.dumps({"serverPassword": PASSWORD, "workers": 0}),
        json.dumps({"serverPassword": PASSWORD, "server_password": WRONG}),
        json.dumps({"server_url": f"http://{PASSWORD}@host"}),
        f'{{"serverPassword": "{PASSWORD}", ',
    ):
        path.write_text(text)
        assert_silent(with_variables(load_settings))


# --- processes and files while a job runs ---

LOOK = """
def look(x):
    import os, pathlib
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            found.append((folder / "cmdline").read_bytes().decode(errors="replace"))
        except OSError:
            pass
    pid, environments = os.getpid(), []
    while pid > 1:
        try:
            environments.append(pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace"))
            stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        if "pytest" in found[-1] and pid == TESTER:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
        if pid == TESTER:
            break
    return found, environments, sorted(os.environ.items())
"""


def looks(client: Client) -> str:
    """Everything that tasks of a running job can see of processes and environments."""
    names: dict[str, Any] = {"TESTER": os.getpid(), "__name__": "__main__"}
    exec(LOOK, names)
    results = list(client.map(names["look"], range(4)))
    assert any("golem_magic" in line or "/runtimes/" in line for line in results[0][0])
    assert len(results[0][1]) >= 2  # runner, keeper
    return repr(results)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_process_shows_it_while_a_job_runs_on_golem(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLEM_MAGIC_SERVER_PASSWORD", PASSWORD)

    assert_silent(looks(client))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_no_process_shows_it_while_a_job_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the embedded master's own password nor the one of a cluster, from the environment."""
    monkeypatch.setenv("GOLEM_MAGIC_SERVER_PASSWORD", PASSWORD)
    with embedded_client(tmp_path) as client:
        seen = looks(client)
        state = Path(str(client.settings.state_dir))
        own = json.loads((state / "golem.json").read_text())["password"]
        assert len(own) >= 16
        assert own not in seen
        assert_silent(seen)
        for path in files_of(tmp_path, state):
            assert path.name == "golem.json" or own.encode() not in content(path), path
        assert (state / "golem.json").stat().st_mode & 0o077 == 0


def test_no_file_holds_it(client: Client, golem: GolemDouble, share: Path) -> None:
    assert list(client.map(abs, range(20), label="a label")) == list(range(20))

    paths = files_of(share, golem.folder)
    assert len(paths) > 5
    for path in paths:
        assert_silent(content(path).decode(errors="replace"))


def content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:  # a journal's file of a job that has just ended
        return b""


def files_of(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


# --- an executed notebook ---


def test_an_executed_notebook_does_not_hold_it(
    golem: GolemDouble, share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the most talkative tracebacks, of a map that works, one that is refused, one that finds nobody."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{bound.getsockname()[1]}"
        cells = [
            "%load_ext golem_magic\n%xmode Verbose\nimport os, golem_magic",
            "%%golemize -o xs range(5)\ndef double(x):\n    return 2 * x",
            "print(list(xs)); xs",
            "golem_magic.Client()",
            "golem_magic.Client().settings",
            "os.environ['GOLEM_MAGIC_SERVER_PASSWORD'] = open('wrong').read()",
            "golem_magic.golem_map(double, range(5))",
            "%golem_map double range(5)",
            f"os.environ['GOLEM_MAGIC_SERVER_URL'] = {nobody!r}",
            "golem_magic.golem_map(double, range(5))",
            "os.environ['GOLEM_MAGIC_WORKERS'] = 'many'",
            "golem_magic.golem_map(double, range(5))",
        ]
        (tmp_path / "wrong").write_text(WRONG)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GOLEM_MAGIC_ENGINE", "golem")
        monkeypatch.setenv("GOLEM_MAGIC_SHARE", str(share))
        monkeypatch.setenv("GOLEM_MAGIC_SERVER_URL", golem.url)
        monkeypatch.setenv("GOLEM_MAGIC_SERVER_PASSWORD", PASSWORD)
        notebook = executed(cells, tmp_path)

    assert "[0, 2, 4, 6, 8]" in notebook
    assert re.search("the password is wrong or missing", notebook)
    assert re.search("refused", notebook)
    assert re.search("GOLEM_MAGIC_WORKERS in the environment", notebook)
    assert_silent(notebook)


def executed(cells: list[str], folder: Path) -> str:
    """The text of a notebook with everything that its cells have shown."""
    v4 = nbformat.v4
    made = v4.new_notebook()
    with started_kernel(folder / "ipython") as kernel:
        for source in cells:
            done = kernel.run(source)
            outputs = [v4.new_output("stream", text=done.text)]
            outputs += [v4.new_output("display_data", data=data) for data in done.data]
            made.cells.append(v4.new_code_cell(source, outputs=outputs))
    return str(nbformat.writes(made))


# --- a password that becomes wrong later ---


@pytest.mark.meets("GM-05")
def test_a_password_that_is_changed_on_the_master_ends_the_job_in_one_line(
    golem: GolemDouble, client: Client
) -> None:
    assert list(client.map(abs, [-1])) == [1]
    golem.password = WRONG

    results = client.map(abs, range(5))
    with pytest.raises(EngineError, match="the password is wrong or missing") as caught:
        list(results)

    wait_until(lambda: results.progress.state.is_final, "the end of the job")
    assert results.progress.state.name == "FAILED"
    assert "\n" not in str(caught.value)
    assert_silent(f"{caught.value}{results.progress}")
