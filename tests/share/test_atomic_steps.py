"""The atomic steps: one winner per name, nothing half written, beats that are read whole."""

import errno
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from golem_magic.errors import ShareError
from golem_magic.share import files

N_NAMES = 3000

RACER = """
import random, sys
from golem_magic.share import files
folder, me, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
order = list(range(n))
random.Random(1).shuffle(order)  # one order for both, so that they meet
sys.stdout.write("ready\\n"); sys.stdout.flush()
sys.stdin.readline()
sys.stdout.write(" ".join(str(i) for i in order if files.link(me, f"{folder}/{i}")))
"""


def race(folder: Path) -> list[set[int]]:
    """Two processes take the same names in the same order; the names that each has got."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, folder, me, str(N_NAMES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for me in ("one", "two")
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"

    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    return [set(map(int, racer.communicate(timeout=30)[0].split())) for racer in racers]


def test_of_two_processes_racing_for_a_name_exactly_one_wins(tmp_path: Path) -> None:
    for n in range(
        50
    ):  # one may be through before the system lets the other begin: such a race shows nothing
        folder = tmp_path / str(n)
        folder.mkdir()
        won = race(folder)
        assert won[0] | won[1] == set(range(N_NAMES))
        assert not won[0] & won[1]
        if min(map(len, won)) > 0:
            break
    assert min(map(len, won)) > 0, "they never met"
    for me, names in zip(("one", "two"), won, strict=True):
        assert all(files.read_link(f"{folder}/{name}") == me for name in names)


CLIENTS = """
import sys
from golem_magic.share import jobs
from golem_magic.share.layout import JobPaths
for _ in range(100):
    print(jobs.become_client(JobPaths(sys.argv[1]), sys.argv[2]))
"""


def test_clients_that_come_at_once_get_numbers_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    clients = [
        subprocess.Popen([sys.executable, "-c", CLIENTS, tmp_path, me], stdout=subprocess.PIPE, text=True)
        for me in ("one", "two")
    ]
    numbers = [int(word) for client in clients for word in client.communicate(timeout=30)[0].split()]

    assert sorted(numbers) == list(range(1, 201))


@pytest.mark.unit
def test_a_link_is_ours_once_or_if_it_says_what_we_say(tmp_path: Path) -> None:
    path = str(tmp_path / "name")

    assert files.link("me", path)
    assert files.link("me", path), "a request that was sent twice"
    assert not files.link("you", path)
    assert files.read_link(path) == "me"


@pytest.mark.unit
def test_a_name_that_is_there_but_cannot_be_read_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "name").touch()

    with suppress(OSError):
        assert not files.link("me", str(tmp_path / "name"))


@pytest.mark.unit
def test_a_link_into_a_folder_that_is_gone_is_an_error_not_a_loss(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.link("me", str(tmp_path / "gone" / "name"))


@pytest.mark.unit
def test_a_file_is_created_whole_private_and_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    parts = [random.Random(1).randbytes(size) for size in [0, 1, 70_000, 0, *range(1000), 3_000_000]]

    files.create(str(path), parts)

    assert path.read_bytes() == b"".join(parts)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        files.create(str(path), [b"another"])
    assert path.read_bytes() == b"".join(parts)


LIMITED = """
import errno, resource, sys
from golem_magic.share import files
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    files.create(sys.argv[1], [b"x" * 60_000, b"y" * 60_000])
except OSError as error:
    sys.exit(0 if error.errno == errno.EFBIG else 2)
sys.exit(1)
"""


def test_a_file_that_cannot_be_written_in_full_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"

    done = subprocess.run([sys.executable, "-c", LIMITED, path], timeout=30)

    assert done.returncode == 0
    assert not path.exists()


@pytest.mark.unit
def test_a_pipe_that_takes_little_at_a_time_gets_everything() -> None:
    read, write = os.pipe()
    parts = [b"a" * 50_000, b"b" * 30_000, b"", b"c"]  # more than a pipe takes at once
    child = os.fork()
    if not child:
        os.close(read)
        files.write_all(write, parts)
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        found = pipe.read()
    os.waitpid(child, 0)

    assert found == b"".join(parts)


@pytest.mark.unit
def test_a_folder_that_is_not_there_has_no_names(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()

    assert files.names(str(tmp_path / "a")) == ["x"]
    assert files.names(str(tmp_path / "b")) == []
    assert files.read_link(str(tmp_path / "b" / "x")) is None


@pytest.mark.unit
def test_touching_and_making_folders_can_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        files.make_folder(str(tmp_path / "a"))
        files.touch(str(tmp_path / "a" / "x"))

    files.touch(str(tmp_path / "gone" / "x"))  # a name that was taken away meanwhile: no error

    assert [path.name for path in (tmp_path / "a").iterdir()] == ["x"]


@pytest.mark.unit
def test_the_tail_of_a_file_is_its_end_and_never_an_error(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\xff" * 10 + b"the end")

    assert files.tail(str(path), 7) == "the end"
    assert files.tail(str(path)).endswith("the end")
    assert files.tail(str(tmp_path / "none")) == ""


@pytest.mark.unit
@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.ENOSPC, "full"), (errno.EDQUOT, "quota"), (errno.EACCES, "may not"), (errno.EIO, "mounted")],
)
def test_an_error_names_the_path_the_reason_and_a_remedy(number: int, word: str) -> None:
    with pytest.raises(ShareError, match=word) as caught, files.explained("write", "/some/path"):
        raise OSError(number, os.strerror(number))

    assert f"cannot write /some/path ({os.strerror(number)}): " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_said_to_be_full() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(ShareError, match="the disk is full"), files.explained("write", "there"):
            files.write_all(fd, [b"x"])
    finally:
        os.close(fd)


# --- beats ---


@pytest.mark.unit
def test_a_beat_counts_and_names(tmp_path: Path) -> None:
    path = str(tmp_path / "beat")
    assert files.read_beat(path) is None
    writer = files.BeatWriter(path)

    seen = [(files.read_beat(path) or ())[:2]]
    for word in ("12/100-200.1", "-"):
        writer.beat(word)
        seen.append((files.read_beat(path) or ())[:2])
    writer.close()

    assert seen == [(1, "-"), (2, "12/100-200.1"), (3, "-")]
    assert (tmp_path / "beat").stat().st_size == files.BEAT_BYTES


@pytest.mark.unit
@pytest.mark.parametrize("text", [b"", b"\0" * files.BEAT_BYTES, b"12", b"x y\n", b"1 2 3\n", b"\xff \xfe\n"])
def test_a_beat_that_does_not_parse_is_no_news(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "beat").write_bytes(text)

    assert files.read_beat(str(tmp_path / "beat")) is None


BEATER = """
import itertools, sys
from golem_magic.share import files
beat = files.BeatWriter(sys.argv[1])
for number in itertools.count():
    beat.beat(sys.argv[2])
"""


def test_a_beat_is_news_while_it_is_overwritten(tmp_path: Path) -> None:
    """A reading may mix two beats: it must then still name the lease, or count as no news."""
    path, lease = str(tmp_path / "beat"), "12/100-200.1"
    counts: list[int] = []
    n_readings = 0
    deadline = time.monotonic() + 20
    with subprocess.Popen([sys.executable, "-c", BEATER, path, lease]) as writer:
        try:
            while len(set(counts)) < 300:
                assert time.monotonic() < deadline
                found = files.read_beat(path)
                n_readings += bool(counts)
                if found is not None and found[1] == lease:
                    counts.append(found[0])
        finally:
            writer.kill()

    assert len(counts) > 0.9 * n_readings
