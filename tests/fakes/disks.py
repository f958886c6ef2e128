"""Real file systems that misbehave: small, read-only for a while, away for a while."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _mount(*arguments: str) -> None:
    command = ["mount", *arguments]
    if sys.platform != "linux" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting needs root on Linux")


def _unmount(folder: Path) -> None:
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory; skips the test where none may be mounted."""
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", options, "tmpfs", str(folder))
    try:
        yield folder
    finally:
        _unmount(folder)


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """A folder that cannot be written meanwhile; files that are open for writing stay so."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        _unmount(folder)


@contextmanager
def away(folder: Path) -> Iterator[None]:
    """A folder that is not there meanwhile."""
    elsewhere = folder.with_name(f"{folder.name} is away")
    folder.rename(elsewhere)
    try:
        yield
    finally:
        elsewhere.rename(folder)
