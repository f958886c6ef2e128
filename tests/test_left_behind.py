"""Nothing of a job is left when it is over: no process, thread, port or file; and Golem leaves by itself."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engines.engine_contract import wait_until
from fakes.world import is_running, master_pid, parent, processes_with, said, script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")

# A kernel's life: a small job, so that everything lasting exists, then the job in question; afterwards
# its threads and listening sockets must be those from before, and it says so.
KERNEL = """
import os, subprocess, sys, threading, time
import golem_magic

def listening():
    inodes = set()
    for name in ("tcp", "tcp6", "udp"):
        for line in open(f"/proc/self/net/{name}").read().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" or name == "udp":
                inodes.add(f"socket:[{fields[9]}]")
    return [link for link in links() if link in inodes]

def links():
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return found

def children():
    return [pid for task in os.listdir("/proc/self/task") for pid in
            open(f"/proc/self/task/{task}/children").read().split()]

def task(x, folder):
    note = lambda pid: open(f"{folder}/{pid}.pid", "w").close()
    note(os.getpid())
    if x == 0:  # a helper of its own, and one that tries to get away
        note(subprocess.Popen(["sleep", "120"]).pid)
        note(subprocess.Popen(["sleep", "120"], start_new_session=True).pid)
    if x == 5:
        WHAT_FIVE_DOES
    return x

def settled(look, wanted):
    limit = time.monotonic() + 5
    while look() != wanted and time.monotonic() < limit:
        time.sleep(0.01)
    return look()

assert list(golem_magic.golem_map(abs, [-1, -2], workers=2)) == [1, 2]
settled(threading.active_count, 1)
n_open = len(links())
results = golem_magic.golem_map(task, range(20), common=sys.argv[1], chunk_size=1, workers=2)
print(results.job_id, flush=True)
WHAT_FOLLOWS
print(settled(threading.active_count, 1), settled(listening, []), settled(children, []),
      settled(lambda: len(links()) - n_open, 0), flush=True)
"""

NORMAL = ("pass", "assert list(results) == list(range(20))")
ERROR = (
    "raise ValueError(x)",
    "try:\n    list(results)\nexcept ValueError:\n    pass\nresults.wait()",
)
CANCEL = (
    "time.sleep(60)",
    "while len(os.listdir(sys.argv[1])) < 4: time.sleep(0.01)\nresults.cancel()\nassert results.wait(5)",
)
DEATH = ("os.abort()", "try:\n    list(results)\nexcept golem_magic.WorkerDied:\n    pass\nresults.wait()")


def kernel(ending: tuple[str, str]) -> str:
    does, follows = ending
    return KERNEL.replace("WHAT_FIVE_DOES", does).replace("WHAT_FOLLOWS", follows)


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """A folder in which tasks note their processes; what is left is ended after the test."""
    folder = tmp_path / "pids"
    folder.mkdir()
    yield folder
    for pid in noted(folder):
        os.kill(pid, signal.SIGKILL)


def noted(folder: Path) -> list[int]:
    """Processes that the tasks noted and that still run."""
    return [pid for pid in (int(path.stem) for path in folder.glob("*.pid")) if is_running(pid)]


@pytest.fixture
def tidy(tmp_path: Path, state_dir: Path, share: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working and a temporary folder for the kernel; they and its home must be empty afterwards."""
    for name in ("cwd", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.chdir(tmp_path / "cwd")
    yield tmp_path / "cwd"
    for folder in (tmp_path / "cwd", tmp_path / "tmp", Path(os.environ["HOME"])):
        assert list(folder.rglob("*")) == []


def placements(share: Path, job_id: str) -> list[str]:
    return os.listdir(share / "jobs" / job_id / "placements")


def below(pid: int) -> list[int]:
    """The descendants of a process."""
    running = {int(path.name): parent(int(path.name)) for path in Path("/proc").glob("[0-9]*")}
    found = {pid}
    while more := {child for child, above in running.items() if above in found} - found:
        found |= more
    return sorted(found - {pid})


@pytest.mark.meets("GM-13")
@pytest.mark.parametrize(
    "ending", [NORMAL, ERROR, CANCEL, DEATH], ids=["normal end", "error", "cancel", "death of a worker"]
)
def test_nothing_is_left_of_a_job(
    ending: tuple[str, str], tidy: Path, share: Path, state_dir: Path, pids: Path
) -> None:
    ours = script(kernel(ending), pids)
    assert ours.stdout is not None
    job_id = ours.stdout.readline().strip()

    report = ours.stdout.readline()
    over = time.monotonic()

    assert report == "1 [] [] 0\n"  # threads, ports, children, descriptors more than before
    wait_until(lambda: not noted(pids), f"the end of {noted(pids)}", 5)
    (native_id,) = placements(share, job_id)[:1]
    wait_until(lambda: not processes_with(job_id), "processes that name the job", 5)
    wait_until(lambda: not processes_with(native_id), "processes that name its placement", 5)
    assert time.monotonic() - over < 5
    assert len(list(pids.glob("*.pid"))) >= 4
    said(ours)


def test_no_worker_and_no_zombie_stays_below_golem(tidy: Path, state_dir: Path, pids: Path) -> None:
    source = kernel(NORMAL) + "sys.stdin.readline()\n"
    ours = script(source, pids)
    assert ours.stdout is not None
    ours.stdout.readline()
    ours.stdout.readline()

    master = master_pid(state_dir)
    assert master is not None
    wait_until(lambda: len(below(master)) == 1, "only the zygote below the master", 5)

    ours.communicate(timeout=10)


def test_golem_leaves_by_itself_after_headless_runs(tmp_path: Path, short_tmp: Path, share: Path) -> None:
    """One script ends, one is killed while its job runs: the job is finished first, then Golem leaves."""
    gate = tmp_path / "gate"
    source = (
        "import os, sys, time, golem_magic\n"
        "def wait(x, gate):\n"
        "    limit = time.monotonic() + 60\n"
        "    while x and not os.path.exists(gate) and time.monotonic() < limit: time.sleep(0.005)\n"
        "    return x\n"
        "results = golem_magic.golem_map(wait, range(2), common=sys.argv[1])\n"
        "print(results.job_id, results[0], flush=True)\n"
        "assert list(results) == [0, 1]\n"
    )
    states = [short_tmp / "one", short_tmp / "two"]
    ends = script(source, "/", GOLEM_MAGIC_STATE=str(states[0]), GOLEM_MAGIC_SHARE=str(share))
    killed = script(source, gate, GOLEM_MAGIC_STATE=str(states[1]), GOLEM_MAGIC_SHARE=str(share))
    assert killed.stdout is not None
    job_id, _ = killed.stdout.readline().split()
    said(ends)
    masters = [master_pid(state) for state in states]
    zygotes = [below(master)[0] for master in masters if master is not None]
    assert len(zygotes) == 2

    killed.kill()
    killed.communicate()
    ended = time.monotonic()
    gate.touch()

    everybody = [pid for pid in [*masters, *zygotes] if pid is not None]
    assert len(everybody) == 4
    wait_until(lambda: not any(map(is_running, everybody)), "the end of both Golems", 8)
    assert time.monotonic() - ended > 2.0  # it lingers: the next script starts without it in milliseconds
    for state in states:
        assert not (state / "golem.json").exists()
        assert not processes_with(str(state))
    outcomes = os.listdir(share / "jobs" / job_id / "data")
    assert sum(1 for name in outcomes if name.startswith("1-2.0.")) == 1


def test_importing_and_asking_starts_and_writes_nothing(tidy: Path, state_dir: Path, share: Path) -> None:
    source = (
        "import os, threading\n"
        "import golem_magic\n"
        "with golem_magic.Client() as client:\n"
        "    repr(client)\n"
        "    print(threading.active_count(), os.listdir(os.environ['GOLEM_MAGIC_SHARE']))\n"
    )

    assert said(script(source)) == "1 []\n"
    assert list(state_dir.iterdir()) == []
