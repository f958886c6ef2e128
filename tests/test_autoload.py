"""The magics in every kernel and terminal, on and off, in environments with a prefix of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_session import KernelSession

from bench.kernel_start import autoload, kernel_of, make_environment
from golem_magic import autoload as switch
from golem_magic.errors import SettingsError

ROOT = Path(__file__).parents[1]
OURS = {"InteractiveShellApp": {"extra_extensions": ["golem_magic"]}}
LOADED = "'golem_map' in get_ipython().magics_manager.magics['line']"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an environment that has none yet; nothing else asks for the magics."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(switch, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path / "prefix/etc/ipython/ipython_config.json"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("environment"))


def said_by_ipython(python: Path, home: Path, code: str) -> str:
    """What a plain IPython of that environment prints."""
    command = [str(python), "-m", "IPython", "--no-banner", "--colors=NoColor", "-c", code]
    environment = {**os.environ, "IPYTHONDIR": str(home)}
    return subprocess.run(
        command, env=environment, cwd="/", check=True, capture_output=True, text=True
    ).stdout


def test_kernels_and_terminals_have_the_magics_when_on_and_only_then(python: Path, tmp_path: Path) -> None:
    in_kernels, in_terminals = {}, {}
    for word in ("on", "off"):
        assert autoload(python, word).startswith(f"{word}: ")
        assert autoload(python, "status").startswith(f"{word}: ")
        with kernel_of(python, tmp_path) as (manager, client):
            in_kernels[word] = KernelSession(manager, client).value(LOADED)
        in_terminals[word] = said_by_ipython(python, tmp_path, f"print({LOADED})").strip()

    assert in_kernels == in_terminals == {"on": "True", "off": "False"}
    assert not (python.parents[1] / "etc/ipython/ipython_config.json").exists()


def test_the_installed_wheel_brings_the_magics_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)  # it would hide what is installed
    fresh, pip = make_environment(tmp_path / "fresh"), [sys.executable, "-m", "pip", "--quiet"]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "dist").iterdir()
    options = ["--no-deps", "--no-index", "--disable-pip-version-check"]
    subprocess.run([*pip, "--python", str(fresh), "install", *options, str(wheel)], check=True)
    program = [str(fresh.parent / "golem-magic"), "autoload", "status"]
    where = "__import__('golem_magic').__file__"

    with kernel_of(fresh, tmp_path) as (manager, client):
        kernel = KernelSession(manager, client)
        in_kernel = kernel.value(LOADED), Path(eval(kernel.value(where)))
    loaded, file = said_by_ipython(fresh, tmp_path, f"print({LOADED})\nprint({where})").splitlines()
    status = subprocess.run(program, cwd="/", check=True, capture_output=True, text=True).stdout

    assert (loaded, Path(file)) == in_kernel
    assert loaded == "True"
    assert in_kernel[1].is_relative_to(tmp_path / "fresh")
    assert status.startswith("on: ")


def test_a_kernel_with_the_magics_is_still_light(python: Path, tmp_path: Path) -> None:
    autoload(python, "on")
    names = ("requests", "cloudpickle", "golem_magic.client")
    heavy = f"[name for name in {names} if name in __import__('sys').modules]"

    with kernel_of(python, tmp_path) as (manager, client):
        loaded = KernelSession(manager, client).value(heavy)

    assert loaded == "[]"


def test_the_packages_own_file_is_what_on_writes() -> None:
    shipped = ROOT / "jupyter-config/ipython_config.json"

    assert json.loads(shipped.read_text()) == OURS


@pytest.mark.unit
def test_on_and_off_leave_no_trace(file: Path) -> None:
    assert not switch.status().is_on

    assert switch.switch_on() == switch.Autoload(file, is_on=True, elsewhere=())
    assert json.loads(file.read_text()) == OURS
    assert switch.switch_on().is_on
    assert json.loads(file.read_text()) == OURS
    assert not switch.switch_off().is_on
    assert not switch.switch_off().is_on

    assert list(file.parent.iterdir()) == []


@pytest.mark.unit
@pytest.mark.parametrize(
    "others",
    [
        {"IPKernelApp": {"log_level": 10}},
        {"InteractiveShellApp": {"extra_extensions": ["autoreload"], "exec_lines": ["x = 1"]}},
        {"InteractiveShellApp": {"matplotlib": "inline"}, "version": 1},
    ],
)
def test_what_others_have_written_stays(file: Path, others: dict[str, object]) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(others))

    switch.switch_on()
    extensions = json.loads(file.read_text())["InteractiveShellApp"]["extra_extensions"]
    assert extensions[-1] == "golem_magic"
    switch.switch_off()

    assert json.loads(file.read_text()) == others


@pytest.mark.unit
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"InteractiveShellApp": ', "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[1]", "holds a JSON list, not an object"),
        (b'{"InteractiveShellApp": []}', "in a form that is no list"),
        (b'{"InteractiveShellApp": {"extra_extensions": "a"}}', "in a form that is no list"),
    ],
)
def test_a_file_that_cannot_be_understood_is_told_and_left_alone(
    file: Path, content: bytes, reason: str
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)

    for act in (switch.status, switch.switch_on, switch.switch_off):
        with pytest.raises(SettingsError, match=reason) as caught:
            act()
        assert str(file) in str(caught.value)
        assert "\n" not in str(caught.value)

    assert file.read_bytes() == content


@pytest.mark.unit
def test_a_file_that_cannot_be_written_is_told(file: Path) -> None:
    file.parents[1].parent.mkdir(parents=True)
    file.parents[1].write_text("a file where a folder must be")

    with pytest.raises(SettingsError, match=r"cannot (read|write) .*Not a directory"):
        switch.switch_on()


@pytest.mark.unit
@pytest.mark.parametrize("name", ["ipython_config.json", "ipython_kernel_config.json"])
def test_another_file_that_asks_for_the_magics_is_named(file: Path, tmp_path: Path, name: str) -> None:
    users = tmp_path / "ipython/profile_default" / name
    users.parent.mkdir(parents=True)
    users.write_text(json.dumps(OURS))

    assert switch.status() == switch.Autoload(file, is_on=False, elsewhere=(users,))

    for_kernels = file.with_name("ipython_kernel_config.json")
    for_kernels.parent.mkdir(parents=True)
    for_kernels.write_text(json.dumps(OURS))

    assert switch.status() == switch.Autoload(file, is_on=False, elsewhere=(for_kernels, users))


def test_the_command_tells_of_the_other_file_and_of_broken_ones(python: Path, tmp_path: Path) -> None:
    path = python.parents[1] / "etc/ipython/ipython_config.json"
    autoload(python, "off")
    users = tmp_path / "profile_default/ipython_config.json"
    users.parent.mkdir()
    users.write_text(json.dumps(OURS))
    command = [str(python), "-m", "golem_magic", "autoload", "status"]

    off = subprocess.run(command, cwd="/", capture_output=True, text=True, env={"IPYTHONDIR": str(tmp_path)})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{")
    broken = subprocess.run(command, cwd="/", capture_output=True, text=True)
    path.unlink()

    assert off.returncode == 0
    assert f"but {users} asks for them as well" in off.stdout
    assert (broken.returncode, broken.stdout) == (1, "")
    assert broken.stderr.startswith(f"golem-magic: {path} is not JSON")
    assert len(broken.stderr.splitlines()) == 1
