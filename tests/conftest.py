"""What every test stands on: tiers, a world of its own, programs that may be missing, and no leaks.

Tiers: ``--unit`` runs only tests marked ``unit``; without it everything runs except ``slow``;
``--slow`` adds those. Tests marked ``cluster("slurm")`` run only with ``--cluster=slurm``, or where
``GOLEM_MAGIC_CLUSTER`` names it; several with commas. ``GOLEM_MAGIC_REQUIRE=browser,bindfs`` turns "not
installed, skipped" into a failure, so that a machine that should have a program cannot pass without it;
``everything`` among these names does so with every skip: for root on a Linux where nothing is missing.
"""

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

# What a test may ask for: the programs that will do, and the line that installs one.
PROGRAMS = {
    "browser": (("chromium", "chromium-browser", "google-chrome"), "apt-get install -y chromium"),
    "bindfs": (("bindfs",), "apt-get install -y bindfs"),
    "slurm": (("/usr/sbin/slurmctld",), "as root: bash tests/cluster/slurm-up /tmp/slurm"),
}
# Threads and children that foreign libraries keep on purpose for the life of the process.
FOREIGN_THREADS = ("IPythonHistorySavingThread", "asyncio_", "IOPub", "pydevd", "pytest_timeout")
FOREIGN_CHILDREN = (b"resource_tracker", b"multiprocessing.forkserver", b"loky")
GRACE_S = 3.0  # chosen by feel: threads and children that are on their way out may finish


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--unit", action="store_true", help="only tests without process, server or browser")
    parser.addoption("--slow", action="store_true", help="also the tests that take long")
    named = os.environ.get("GOLEM_MAGIC_CLUSTER", "")
    parser.addoption("--cluster", default=named, help="also the tests on these real clusters, such as slurm")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    dropped = [item for item in items if not _is_in_tier(item, config)]
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in set(dropped)]


def _is_in_tier(item: pytest.Item, config: pytest.Config) -> bool:
    if config.getoption("--unit") and "unit" not in item.keywords:
        return False
    clusters = {name for mark in item.iter_markers("cluster") for name in mark.args}
    if clusters - set(config.getoption("--cluster").split(",")):
        return False
    return bool(config.getoption("--slow")) or "slow" not in item.keywords


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "browser" in item.keywords:
        find_program("browser")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and "everything" in os.environ.get("GOLEM_MAGIC_REQUIRE", "").split(","):
        report.outcome = "failed"
        report.longrepr = (
            f"{item.nodeid} was skipped, and GOLEM_MAGIC_REQUIRE names everything: {report.longrepr}"
        )
    return report


# --- programs that may be missing ---


def find_program(name: str) -> str:
    """Give the path of a program, skip the test with its install line, or fail if it is required."""
    candidates, install = PROGRAMS.get(name, ((name,), f"apt-get install -y {name}"))
    found = next(filter(None, map(shutil.which, candidates)), None)
    if found:
        return found
    reason = f"{name} is not installed; to run this test: {install}"
    if name in os.environ.get("GOLEM_MAGIC_REQUIRE", "").split(","):
        pytest.fail(f"{reason} (GOLEM_MAGIC_REQUIRE names it)", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def require() -> Callable[[str], str]:
    """``require("bindfs")`` gives its path, or skips, or fails where it is required."""
    return find_program


# --- a world of its own ---


@pytest.fixture(scope="session", autouse=True)
def _nobody_touches_the_real_home() -> Iterator[None]:
    """Give the whole run a home, state and share that vanish; single tests narrow them further."""
    with _short_folder() as folder, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GOLEM_MAGIC_")]:
            if name != "GOLEM_MAGIC_REQUIRE":
                patch.delenv(name)
        _point_environment_at(patch, folder)
        yield
        end_processes_of(folder / "state")


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """An empty share whose name has a space and a quote (Golem's argument lists forbid a newline)."""
    folder = tmp_path / "a share's folder"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A temporary folder with a path short enough for a Unix socket (104 bytes on macOS)."""
    with _short_folder() as folder:
        yield folder


@pytest.fixture
def state_dir(short_tmp: Path, share: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The state folder of a world of its own; an embedded Golem started in it ends with the test."""
    _point_environment_at(monkeypatch, short_tmp)
    monkeypatch.setenv("GOLEM_MAGIC_SHARE", str(share))
    yield short_tmp / "state"
    end_processes_of(short_tmp / "state")


@contextlib.contextmanager
def _short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="gm-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _point_environment_at(patch: pytest.MonkeyPatch, folder: Path) -> None:
    places = {"HOME": "home", "GOLEM_MAGIC_STATE": "state", "GOLEM_MAGIC_SHARE": "share"}
    for variable, name in places.items():
        (folder / name).mkdir(mode=0o700, exist_ok=True)
        patch.setenv(variable, str(folder / name))
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        patch.delenv(variable, raising=False)


# --- no leaks ---


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    """Fail the test that leaves a thread or a child process; a zombie is not counted."""
    threads, children = set(threading.enumerate()), set(_children())
    yield
    deadline = time.monotonic() + GRACE_S
    pause_s = 0.001
    while left := _left_threads(threads) + _left_children(children):
        if time.monotonic() > deadline:
            pytest.fail(f"left behind by this test: {'; '.join(left)}", pytrace=False)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, 0.1)


def _left_threads(before: set[threading.Thread]) -> list[str]:
    new = [thread for thread in threading.enumerate() if thread not in before]
    return [f"thread {thread.name}" for thread in new if not thread.name.startswith(FOREIGN_THREADS)]


def _left_children(before: set[int]) -> list[str]:
    lines = {pid: _words(pid) for pid in _children() if pid not in before}
    ours = {pid: line for pid, line in lines.items() if line and not any(w in line for w in FOREIGN_CHILDREN)}
    return [f"process {pid} {line.decode(errors='replace').strip()}" for pid, line in ours.items()]


def _children() -> list[int]:
    """List the direct children of this process where the system tells cheaply (Linux), else none."""
    listed: list[int] = []
    for task in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that ended meanwhile
            listed += map(int, task.read_text().split())
    return listed


def _words(pid: int, kind: str = "cmdline") -> bytes:
    """Give a process's command line or environment; empty when it is gone, foreign or a zombie."""
    try:
        return Path(f"/proc/{pid}/{kind}").read_bytes().replace(b"\0", b" ")
    except OSError:
        return b""


def end_processes_of(state: Path) -> None:
    """End the detached processes whose environment names this state folder, and wait for it."""
    marker = f"GOLEM_MAGIC_STATE={state}".encode()
    for sign in (signal.SIGTERM, signal.SIGKILL):
        for pid in _pids_with(marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
        deadline = time.monotonic() + GRACE_S
        while _pids_with(marker) and time.monotonic() < deadline:
            time.sleep(0.01)


def _pids_with(marker: bytes) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if pid != os.getpid() and marker in _words(pid, "environ").split(b" ")]
