"""The runtime is checked before it is used: an interpreter runs it before anything of ours can look at it."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from golem_magic.share import jobs, runtime
from golem_magic.share.layout import SharePaths


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


@pytest.fixture
def runtime_path(paths: SharePaths) -> Path:
    return Path(runtime.stage(paths))


def sound(path: str) -> bool:
    found = os.lstat(path)
    with zipfile.ZipFile(path) as archive:
        is_whole = archive.testzip() is None and b"main" in archive.read("__main__.py")
    return is_whole and found.st_mode == 0o100600 and found.st_uid == os.geteuid() and found.st_nlink == 1


def give_away(file: Path) -> None:
    os.chown(file, 65534, -1)


def let_everybody_write(file: Path) -> None:
    file.chmod(0o666)


def link_symbolically(file: Path) -> None:
    file.symlink_to(file.rename(file.with_name("aside")))


def link_hard(file: Path) -> None:
    os.link(file, file.with_name("aside"))


def be_a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file, 0o600)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
DAMAGES = [
    pytest.param(give_away, marks=only_root),
    let_everybody_write,
    link_symbolically,
    link_hard,
    be_a_pipe,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_runtime_that_is_not_ours_alone_is_replaced(
    paths: SharePaths, runtime_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(runtime_path)

    assert runtime.stage(paths) == str(runtime_path)
    assert sound(str(runtime_path))


@pytest.mark.parametrize("name", ["__main__.py", "golem_magic/worker/main.pyc", "cloudpickle/__init__.py"])
def test_a_runtime_with_a_wrong_bit_is_replaced(paths: SharePaths, runtime_path: Path, name: str) -> None:
    with zipfile.ZipFile(runtime_path) as archive:
        begin = (
            archive.getinfo(name).header_offset + 30 + len(name)
        )  # of the content, which is not compressed
    data = bytearray(runtime_path.read_bytes())
    data[begin + 40] ^= 4
    runtime_path.write_bytes(data)

    runtime.stage(paths)

    assert runtime_path.read_bytes() != data
    assert sound(str(runtime_path))


@pytest.mark.parametrize("name", ["__main__.py", "golem_magic/worker/main.pyc", "extra.py"])
def test_a_whole_archive_of_other_code_is_replaced(paths: SharePaths, runtime_path: Path, name: str) -> None:
    with zipfile.ZipFile(runtime_path) as archive:
        contents = {each: archive.read(each) for each in archive.namelist()}
    contents[name] = b"raise SystemExit('ANOTHER')"
    with zipfile.ZipFile(runtime_path, "w") as archive:
        for each, content in contents.items():
            archive.writestr(each, content)

    runtime.stage(paths)

    assert sound(str(runtime_path))
    with zipfile.ZipFile(runtime_path) as archive:
        assert b"ANOTHER" not in b"".join(map(archive.read, archive.namelist()))


def test_a_runtime_that_nobody_touched_is_not_written_again(paths: SharePaths, runtime_path: Path) -> None:
    before = os.stat(runtime_path).st_ino
    os.utime(runtime_path, (1.0, 1.0))  # by another process: looked at again

    runtime.stage(paths)
    runtime.stage(paths)

    assert os.stat(runtime_path).st_ino == before
    assert os.stat(runtime_path).st_mtime > 1.0
