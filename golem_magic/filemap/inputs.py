"""Inputs out of files, one after the other; the name's ending tells what is in them."""

import csv
import json
import os
import pickle
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

from golem_magic.errors import FileError

STDIN = "-"


def read_inputs(path: str) -> Iterable[Any]:
    """Give the inputs that are in a file.

    ``.jsonl`` and standard input (``-``) hold a JSON value per line, ``.csv`` and ``.tsv`` a dict of texts
    per row under a head, ``.npy`` a row of the array each, ``.pickle`` an object to iterate over; every
    other file a text per line. Only arrays and pickles are not read bit by bit.

    Raises:
        FileError: The file cannot be read. What is wrong further down is raised where it is, with its line.
    """
    if path == STDIN:
        return _json_lines(sys.stdin, "standard input")
    try:
        open(path, "rb").close()
    except OSError as error:
        message = f"cannot read the inputs from {path} ({error.strerror or error})"
        raise FileError(message) from error
    return _READERS.get(os.path.splitext(path)[1], _lines)(path)


def _lines(path: str) -> Iterator[str]:
    with _opened(path) as opened:
        for line in _decoded(opened, path):
            yield line.rstrip("\r\n")


def _opened(path: str) -> TextIO:
    return open(path, encoding="utf-8-sig", newline="")


def _decoded(opened: TextIO, path: str) -> Iterator[str]:
    try:
        yield from opened
    except UnicodeDecodeError as error:
        message = f"{path} is no text in UTF-8 ({error.reason} at byte {error.start} of a block)"
        raise FileError(message) from error


def _json_file(path: str) -> Iterator[Any]:
    with _opened(path) as opened:
        yield from _json_lines(opened, path)


def _json_lines(opened: TextIO, path: str) -> Iterator[Any]:
    for number, line in enumerate(_decoded(opened, path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            message = f"{path}, line {number} is not JSON: {error}"
            raise FileError(message) from error
        yield value


def _table(path: str) -> Iterator[dict[str, str]]:
    with _opened(path) as opened:
        delimiter = "\t" if path.endswith(".tsv") else ","
        rows = csv.reader(_decoded(opened, path), delimiter=delimiter, strict=True)
        try:
            yield from _under_head(rows, path)
        except csv.Error as error:
            message = f"{path}, line {rows.line_num}: {error}"
            raise FileError(message) from error


def _under_head(rows: Any, path: str) -> Iterator[dict[str, str]]:
    head: list[str] = next(filter(None, rows), [])
    for row in filter(None, rows):
        if len(row) != len(head):
            message = f"{path}, line {rows.line_num} has {len(row)} values under {len(head)} names"
            raise FileError(message)
        yield dict(zip(head, row, strict=True))


def _array(path: str) -> Iterator[Any]:
    try:
        import numpy as np
    except ImportError as error:
        message = f"{path} needs numpy, which is not installed: pip install numpy"
        raise FileError(message) from error
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        message = f"{path} is no array that can be read ({error})"
        raise FileError(message) from error
    if not array.ndim:
        message = f"{path} holds one number, not an array: give an array whose rows are the inputs"
        raise FileError(message)
    return (np.array(row) if array.ndim > 1 else row for row in array)


def _pickled(path: str) -> Iterable[Any]:
    with open(path, "rb") as opened:
        found = os.fstat(opened.fileno())
        if found.st_uid not in (os.geteuid(), 0) or found.st_mode & stat.S_IWOTH:
            message = (
                f"{path} belongs to uid {found.st_uid} (mode {found.st_mode & 0o777:o}): a pickle runs code "
                f"of whoever wrote it, so make a copy of your own if you trust it"
            )
            raise FileError(message)
        try:
            value: Iterable[Any] = pickle.load(opened)  # noqa: S301 - the user's own, as was just seen
        except Exception as error:
            message = f"{path} cannot be unpickled ({type(error).__name__}: {error})"
            raise FileError(message) from error
    return value


_READERS: dict[str, Callable[[str], Iterable[Any]]] = {
    ".jsonl": _json_file,
    ".ndjson": _json_file,
    ".csv": _table,
    ".tsv": _table,
    ".npy": _array,
    ".pickle": _pickled,
    ".pkl": _pickled,
}
