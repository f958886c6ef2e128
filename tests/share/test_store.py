"""Content-addressed objects: stored once, mapped privately, refused where others could have written."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from golem_magic import payload
from golem_magic.errors import FormatError, ShareError
from golem_magic.model import Digest
from golem_magic.share import jobs, runtime, store
from golem_magic.share.layout import SharePaths

TABLE = np.arange(50_000.0)


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


@pytest.fixture
def digest(paths: SharePaths) -> Digest:
    """Of an object with one big array, in the store."""
    return store.put(paths, payload.dump({"table": TABLE}))


def objects(paths: SharePaths) -> list[Path]:
    return list(Path(paths.objects).iterdir())


@pytest.mark.unit
def test_what_was_put_is_got_mapped_and_writing_to_it_changes_no_file(
    paths: SharePaths, digest: Digest
) -> None:
    before = Path(paths.object(digest)).read_bytes()

    view = store.get(paths, digest)
    table = payload.load(view)[0]["table"]

    np.testing.assert_array_equal(table, TABLE)
    assert np.shares_memory(table, np.frombuffer(view, dtype=np.uint8))
    table[:] = 0
    assert Path(paths.object(digest)).read_bytes() == before
    np.testing.assert_array_equal(payload.load(store.get(paths, digest))[0]["table"], TABLE)


@pytest.mark.unit
@pytest.mark.meets("G-05")
def test_the_same_data_is_stored_once_however_often_it_is_put(paths: SharePaths, digest: Digest) -> None:
    before = os.stat(paths.object(digest))
    os.utime(paths.object(digest), (1.0, 1.0))

    again = store.put(paths, payload.dump({"table": TABLE.copy()}))

    after = os.stat(paths.object(digest))
    assert again == digest
    assert len(objects(paths)) == 1
    assert after.st_ino == before.st_ino
    assert after.st_mtime > 1.0, "whoever sweeps old objects must see that it is in use"


@pytest.mark.unit
def test_an_object_is_private(paths: SharePaths, digest: Digest) -> None:
    assert os.stat(paths.object(digest)).st_mode & 0o777 == 0o600
    for folder in (paths.jobs, paths.objects, paths.runtimes):
        assert os.stat(folder).st_mode & 0o777 == 0o700


@pytest.mark.unit
@pytest.mark.parametrize("at", [0, 100, 5000, -1])
@pytest.mark.parametrize("size", [0, 1000, 10**6])
def test_an_object_that_was_spoiled_is_written_anew_by_the_next_one_who_puts_it(
    paths: SharePaths, digest: Digest, at: int, size: int
) -> None:
    data = bytearray(Path(paths.object(digest)).read_bytes())
    data[at] ^= 1
    Path(paths.object(digest)).write_bytes(data[:size])

    store.put(paths, payload.dump({"table": TABLE}))

    np.testing.assert_array_equal(payload.load(store.get(paths, digest))[0]["table"], TABLE)
    assert len(objects(paths)) == 1


@pytest.mark.unit
@pytest.mark.parametrize("at", [0, 5, 12, 20, 100, 5000, -1])
def test_an_altered_object_is_refused(paths: SharePaths, digest: Digest, at: int) -> None:
    data = bytearray(Path(paths.object(digest)).read_bytes())
    data[at] ^= 1
    Path(paths.object(digest)).write_bytes(data)

    with pytest.raises(FormatError):
        store.get(paths, digest)


@pytest.mark.unit
@pytest.mark.parametrize("size", [0, 1, 16, 20, 500, 400_000])
def test_an_object_that_was_cut_is_refused(paths: SharePaths, digest: Digest, size: int) -> None:
    os.truncate(paths.object(digest), size)

    with pytest.raises(FormatError) as caught:
        store.get(paths, digest)

    assert paths.object(digest) in str(caught.value), "the message must name the file"


@pytest.mark.unit
def test_another_whole_object_under_this_name_is_refused(paths: SharePaths, digest: Digest) -> None:
    other = store.put(paths, payload.dump("another"))
    os.replace(paths.object(other), paths.object(digest))

    with pytest.raises(FormatError, match="not what its name says"):
        store.get(paths, digest)


@pytest.mark.unit
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_an_object_that_others_can_write_is_refused(paths: SharePaths, digest: Digest, mode: int) -> None:
    os.chmod(paths.object(digest), mode)

    with pytest.raises(ShareError, match="are not unpickled"):
        store.get(paths, digest)


@pytest.mark.unit
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_an_object_of_somebody_else_is_refused(paths: SharePaths, digest: Digest) -> None:
    os.chown(paths.object(digest), 12345, -1)

    with pytest.raises(ShareError, match="belongs to uid 12345"):
        store.get(paths, digest)


@pytest.mark.unit
def test_an_object_that_is_not_there_is_named(paths: SharePaths) -> None:
    with pytest.raises(ShareError, match="0123"):
        store.get(paths, Digest("0123"))


PUTTER = """
import sys
from golem_magic import payload
from golem_magic.share import store
from golem_magic.share.layout import SharePaths
for number in range(50):
    frame = payload.dump((number, bytes(100_000)))
    print(store.put(SharePaths(sys.argv[1]), frame))
"""


def test_two_who_put_the_same_objects_at_once_agree(paths: SharePaths) -> None:
    putters = [
        subprocess.Popen([sys.executable, "-c", PUTTER, paths.root], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    digests = [putter.communicate(timeout=30)[0].split() for putter in putters]

    assert digests[0] == digests[1]
    assert {path.name for path in objects(paths)} == set(digests[0])
    for digest in digests[0]:
        store.get(paths, Digest(digest))


# --- the runtime ---


def test_the_runtime_is_staged_once_and_has_what_a_worker_imports(paths: SharePaths) -> None:
    first = runtime.stage(paths)
    before = os.stat(first)
    second = runtime.stage(paths)

    assert first == second == paths.runtime(runtime.digest())
    assert os.stat(second).st_ino == before.st_ino
    assert len(list(Path(paths.runtimes).iterdir())) == 1
    with zipfile.ZipFile(first) as archive:
        names = set(archive.namelist())
    assert {"__main__.py", "golem_magic/worker/main.py", "cloudpickle/__init__.py"} <= names
    assert "golem_magic/worker/main.pyc" in names
    assert "golem_magic/client.py" in names  # a module of the user's may import it
    assert "golem_magic/client.pyc" not in names
