"""A shell without a kernel, with a client that runs everything here; and a real kernel."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from fakes.here_client import HereClient
from IPython.core.interactiveshell import InteractiveShell
from kernel_session import ROOT, KernelSession, started_kernel
from traitlets.config import Config

from golem_magic.magics import load, unload

Shell: TypeAlias = Any  # an InteractiveShell, which is typed in parts only


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


@pytest.fixture
def run(shell: Shell) -> Callable[[str], Any]:
    """Run a cell that must succeed and give its value."""

    def run(cell: str) -> Any:
        done = shell.run_cell(cell, store_history=True)
        done.raise_error()
        return done.result

    return run


@pytest.fixture
def refusal(shell: Shell, capsys: pytest.CaptureFixture[str]) -> Callable[[str], str]:
    """Run a cell that must fail with one line, and give that line."""

    def refusal(cell: str) -> str:
        capsys.readouterr()
        done = shell.run_cell(cell, store_history=True)
        shown = capsys.readouterr()
        assert not done.success
        assert shown.out == ""
        line, end = shown.err.split("\n", 1)
        assert end == ""
        assert line.startswith("UsageError: ")
        return str(line.removeprefix("UsageError: "))

    return refusal


@pytest.fixture
def kernel(tmp_path: Path, state_dir: Path) -> Iterator[KernelSession]:
    """A kernel that reads our configuration file as an installed one would, and a world of its own."""
    profile = tmp_path / "profile_default"
    profile.mkdir()
    shutil.copy(ROOT / "jupyter-config/ipython_config.json", profile)
    with started_kernel(tmp_path) as kernel:
        yield kernel
