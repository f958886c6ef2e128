"""Nobody gets in where they do not belong, as seen from outside: real workers, clients and other users."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.world import ROOT, embedded_client, end_master
from master.running_master import running_master
from share.chaos import by_value, stage
from worker.running_worker import Job

from golem_magic import Client, ShareError
from golem_magic.engines.local import LocalEngine
from golem_magic.model import NativeId
from golem_magic.share.book import Book
from golem_magic.share.layout import SharePaths

NOBODY = 65534
TIMEOUT_S = 60
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
OUTSIDE = (
    "../x",
    "..",
    ".",
    "../../etc",
    "/etc/passwd",
    "a/../b",
    "a/",
    "%2e%2e",
    "*",
    "?",
    "a\nb",
    "-",
    "~",
    "x" * 33,
    "",
)


class Mark:
    """Whoever unpickles this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


# --- workers ---


def give_away(file: Path) -> None:
    os.chown(file, NOBODY, -1)


def let_others_write(file: Path) -> None:
    file.chmod(0o606)


def link_elsewhere(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("aside")))


def be_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


def flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-2] ^= 1
    file.write_bytes(data)


DAMAGES = [give_away, let_others_write, link_elsewhere, be_a_pipe, flip_a_bit]
ALWAYS = {  # the readers themselves are tried with all of these in share/test_trust.py
    ("function", give_away),
    ("function", be_a_pipe),
    ("inputs.0.log", let_others_write),
    ("inputs.0.log", link_elsewhere),
    ("inputs.idx", be_a_pipe),
    ("manifest.json", flip_a_bit),
}


def _cases() -> Iterator[Any]:
    for which in ("function", "inputs.0.log", "inputs.idx", "manifest.json"):
        for damage in DAMAGES:
            marks = [] if (which, damage) in ALWAYS else [pytest.mark.slow]
            yield pytest.param(which, damage, marks=[*marks, only_root] if damage is give_away else marks)


@pytest.mark.parametrize(("which", "damage"), list(_cases()))
def test_a_worker_unpickles_nothing_that_others_could_have_written_and_says_why(
    share: Path, tmp_path: Path, which: str, damage: Callable[[Path], None]
) -> None:
    mark = tmp_path / "it was unpickled"
    inside = Mark(mark)
    function = by_value("def f(x, y=None): return 1", "f")
    if which == "function":
        function.__defaults__ = (inside,)  # type: ignore[attr-defined]
    staged = stage(share, [share], function, [0] if which == "function" else [inside], workers=1)
    function_file = Path(staged.share.object(staged.manifest.function))
    file = function_file if which == "function" else Path(staged.paths.root) / which
    damage(file)

    job = Job(staged, tmp_path)
    worker = subprocess.run([*job.argv()], capture_output=True, timeout=TIMEOUT_S, check=False)

    assert not mark.exists()
    book = Book(staged.paths)
    book.look()
    if which == "inputs.idx" and damage is flip_a_bit:  # such a record is not there yet
        assert (worker.returncode, book.n_outcomes) == (0, 0)
        return
    told = (
        job.log() + worker.stderr.decode() + "".join(failure.message for failure in job.failures().values())
    )
    assert file.name in told
    assert book.n_outcomes == book.n_failed
    assert book.n_failed == 1 or worker.returncode == 1


@only_root
@pytest.mark.meets("IP-13")
@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_what_the_process_list_shows_is_not_enough_to_take_part(short_tmp: Path, tmp_path: Path) -> None:
    """Another user who knows a worker's whole command line can neither read nor write anything of the job."""
    short_tmp.chmod(0o755)
    share = short_tmp / "share"
    staged = stage(share, [share], by_value("def f(x): return x + 1", "f"), [1, 2], workers=1)
    job = Job(staged, tmp_path)
    before = sorted(share.rglob("*"))
    copy = shutil.copy(
        staged.site.argv[1], short_tmp / Path(staged.site.argv[1]).name
    )  # it has the code anyway
    os.chmod(copy, 0o644)
    python = os.path.realpath(sys.executable)
    argv = [python, copy, *job.argv()[2:]]

    intruder = subprocess.run(
        argv,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd="/",
    )

    assert sorted(share.rglob("*")) == before
    assert b"is not there" in intruder.stderr or b"Permission denied" in intruder.stderr
    job.work()
    assert job.outcomes() == {0: 2, 1: 3}


@only_root
@pytest.mark.meets("IP-13")
def test_what_another_user_puts_in_the_place_of_an_outcome_is_not_taken(tmp_path: Path) -> None:
    with embedded_client(tmp_path) as client:
        results = client.map(by_value("def f(x): return x", "f"), range(3), chunk_size=1)
        assert list(results) == [0, 1, 2]
        data = SharePaths(str(client.settings.share)).job(results.job_id).data
        for name in os.listdir(data):
            if name.startswith("1-2."):
                os.chown(f"{data}/{name}", NOBODY, -1)

        again = client.attach(results.job_id)
        with pytest.raises(ShareError, match=f"belongs to uid {NOBODY}"):
            again[1]
        assert (again[0], again[2]) == (0, 2)


# --- private by default ---

WORLD = """
import os, sys
os.umask(0)
import golem_magic

def f(x):
    print("hello", x)
    if x == 3:
        raise ValueError(x)
    return os.getpid()

def fails():
    raise OSError("no")

if __name__ == "__main__":
    with golem_magic.Client(share=sys.argv[1], state_dir=sys.argv[2], workers=2) as client:
        results = client.map(f, range(20), on_error="skip", chunk_size=3)
        print(len(list(results)), flush=True)
        client.map(max, range(5), setup=fails).wait(60)
        client.map(__import__("time").sleep, [60] * 4).cancel()
        client.cancel(results.job_id)
        client.inventory.clean()
"""


def test_everything_that_is_made_is_private_under_any_umask(tmp_path: Path, short_tmp: Path) -> None:
    share, state = tmp_path / "new" / "share", short_tmp / "n" / "state"
    code = tmp_path / "world.py"
    code.write_text(WORLD)
    try:
        done = subprocess.run(
            [sys.executable, str(code), str(share), str(state)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == "19"
        open_to_others = [
            f"{stat.filemode(mode)} {path}"
            for top in (share.parent, state.parent)
            for path in (top, *top.rglob("*"))
            if not stat.S_ISLNK(mode := os.lstat(path).st_mode) and mode & 0o077
        ]
        assert not open_to_others, "\n".join(open_to_others)
        assert len(list(share.rglob("*"))) > 20
        assert (state / "master.log").exists()
    finally:
        end_master(state)


def test_the_folders_of_a_master_started_by_hand_are_private_under_any_umask(short_tmp: Path) -> None:
    state = short_tmp / "n" / "state"
    command = [sys.executable, "-m", "golem_magic.master", "--state", str(state), "--linger", "inf"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, umask=0) as master:
        assert master.stdout is not None
        said = master.stdout.readline()
        modes = [path.lstat().st_mode & 0o077 for path in (state.parent, state, *state.rglob("*"))]
        master.terminate()

    assert said.startswith(b"http://")
    assert len(modes) > 5
    assert set(modes) == {0}


def test_a_share_that_others_can_write_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with embedded_client(tmp_path) as client:
        assert list(client.map(abs, [-1])) == [1]
        Path(str(client.settings.share), "runtimes").chmod(0o777)

        with pytest.raises(ShareError, match=r"others can write .*runtimes.* chmod go-w") as caught:
            client.map(abs, [-1])

        assert "\n" not in str(caught.value)
        Path(str(client.settings.share), "runtimes").chmod(0o700)


# --- ids that try to get out ---


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[tuple[Client, Path]]:
    """A client, and beside its share a folder that looks like a job of it."""
    with embedded_client(tmp_path) as client:
        results = client.map(abs, [-1, -2])
        assert list(results) == [1, 2]
        paths = SharePaths(str(client.settings.share))
        for place in (f"{paths.root}/x", f"{paths.root}/../x"):
            shutil.copytree(paths.job(results.job_id).root, place, symlinks=True)
        yield client, Path(paths.root)


def test_no_id_leads_out_of_the_share(bait: tuple[Client, Path]) -> None:
    client, share = bait
    baits = (share / "x", share.parent / "x")
    before = [sorted(bait.rglob("*")) for bait in baits]

    for word in OUTSIDE:
        for ask in (client.attach, client.cancel, client.inventory.logs):
            with pytest.raises(ShareError) as caught:
                ask(word)
            assert "\n" not in str(caught.value)
            assert repr(word) in str(caught.value)
    assert {job.job_id for job in client.jobs()} == {os.listdir(share / "jobs")[0]}
    client.inventory.clean()

    assert [sorted(bait.rglob("*")) for bait in baits] == before


@pytest.mark.parametrize("word", ["../x", "/etc/passwd"])
@pytest.mark.parametrize("verb", ["attach", "cancel"])
def test_a_shell_word_that_is_no_id_is_told_so_in_one_line(state_dir: Path, verb: str, word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "golem_magic", verb, word],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        cwd="/",
    )

    assert done.returncode not in (0, 130)
    assert word in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_worker_whose_placement_is_a_path_writes_nowhere(share: Path, tmp_path: Path) -> None:
    staged = stage(share, [share], by_value("def f(x): return x", "f"), [1], workers=1)
    before = sorted(share.rglob("*"))

    worker = subprocess.run(
        [*staged.site.argv, "0", "../../x", "0", "0"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert worker.returncode == 2
    assert "../../x" in worker.stderr
    assert sorted(share.rglob("*")) == before


@only_root
def test_a_master_whose_address_somebody_else_has_written_gets_no_job(state_dir: Path) -> None:
    with running_master(state_dir):
        engine = LocalEngine(state_dir)
        assert engine.nodes()[0].n_slots == 2
        engine.close()
        os.chown(state_dir / "golem.json", NOBODY, -1)

        status = LocalEngine(state_dir).poll([NativeId("a")])[NativeId("a")]

        assert "no master runs" in status.reason


# --- secrets ---


def test_the_password_of_a_cluster_does_not_reach_the_tasks_of_a_master_started_beside_it(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLEM_MAGIC_SERVER_PASSWORD", "swordfish-7f3a")
    with running_master(state_dir) as master:
        job_id = master.submit((1, ["/bin/sh", "-c", "env"]))
        master.wait_for_end(job_id)
        shown = "\n".join(master.output(job_id, "out"))

    assert "GOLEM_MAGIC_STATE" in shown
    assert "swordfish" not in shown
    assert str(master.password) not in shown
