"""Results into files, in the order of the inputs; the name's ending tells how.

A file appears under its name when it is complete. Of a task that failed it holds the exception, so that
results stay in line with inputs.
"""

import csv
import json
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TextIO

from golem_magic.errors import FileError


class Sink(Protocol):
    """Takes results in order."""

    def put(self, index: int, value: Any) -> None:
        """Take the value of a task, or the exception that it raised."""

    def end(self) -> None:
        """There are no more."""


def check_output(path: str | None) -> None:
    """Refuse, before anything is computed, a file that could not be written.

    Raises:
        FileError: Its ending is not known, or its folder is not there or cannot be written.
    """
    if path is None:
        return
    if os.path.splitext(path)[1] not in _SINKS:
        message = f"{path}: results are written as {', '.join(_SINKS)}: let the name end with one of them"
        raise FileError(message)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK) or os.path.isdir(path):
        message = (
            f"cannot write results to {path}: {folder} is no folder that you can write, or {path} is one"
        )
        raise FileError(message)


@contextmanager
def writing(path: str | None) -> Iterator[Sink]:
    """Write to a file, or to standard output as JSON lines if there is none.

    Raises:
        FileError: A value cannot be written in this way, or the disk is full.
    """
    if path is None:
        sink: Sink = _JsonLines(sys.stdout)
        yield sink
        sink.end()
        return
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "x", encoding="utf-8", newline="") as file:
            sink = _SINKS[os.path.splitext(path)[1]](file)
            yield sink
            sink.end()
        os.replace(part, path)
    except OSError as error:
        message = f"cannot write results to {path} ({error.strerror or error})"
        raise FileError(message) from error
    finally:
        with suppress(OSError):  # mostly, because it has its name by now
            os.unlink(part)


class _JsonLines:
    """A value per line; of a failure ``{"error": {"type": ..., "message": ...}}``."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def put(self, index: int, value: Any) -> None:
        if isinstance(value, BaseException):
            value = {"error": {"type": type(value).__name__, "message": str(value)}}
        try:
            line = json.dumps(value, default=_plain)
        except (TypeError, ValueError) as error:
            message = f"task {index} gave what JSON cannot hold ({error}): write a .pickle file"
            raise FileError(message) from error
        self._file.write(f"{line}\n")

    def end(self) -> None:
        self._file.flush()


class _Table:
    """A row per task, its exception in the last column; what the columns are, the first value tells."""

    def __init__(self, file: TextIO, delimiter: str = ",") -> None:
        self._rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        self._head: list[str] | None = None
        self._early: list[str] = []  # exceptions before the first value

    def put(self, index: int, value: Any) -> None:
        if isinstance(value, BaseException):
            self._fail("".join(traceback.format_exception_only(type(value), value)).partition("\n")[0])
            return
        row = _as_row(value)
        if self._head is None:
            self._begin(list(row))
        if list(row) != self._head:
            message = (
                f"task {index} gave columns {', '.join(row)}, those before it {', '.join(self._head or [])}: "
                f"write a .jsonl file"
            )
            raise FileError(message)
        self._rows.writerow([*row.values(), ""])

    def end(self) -> None:
        if self._head is None:
            self._begin(["value"])

    def _fail(self, text: str) -> None:
        if self._head is None:
            self._early.append(text)
        else:
            self._rows.writerow([*([""] * len(self._head)), text])

    def _begin(self, head: list[str]) -> None:
        self._head = head
        self._rows.writerow([*head, "error"])
        for text in self._early:
            self._fail(text)
        self._early.clear()


class _Pickle:
    """One list; a failure is its exception, or a RuntimeError with its text if that cannot be pickled."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._values: list[Any] = []

    def put(self, index: int, value: Any) -> None:
        try:
            pickle.dumps(value, protocol=5)
        except Exception as error:
            if not isinstance(value, BaseException):
                message = (
                    f"task {index} gave a {type(value).__name__} that cannot be written ({error}): "
                    f"return plain values, or what can be imported"
                )
                raise FileError(message) from error
            value = RuntimeError(f"{type(value).__name__}: {value}")
        self._values.append(value)

    def end(self) -> None:
        self._file.flush()
        pickle.dump(self._values, self._file.buffer, protocol=5)


def _as_row(value: Any) -> dict[str, Any]:
    if hasattr(value, "_asdict"):  # a named tuple
        value = value._asdict()
    if isinstance(value, dict):
        return {str(name): each for name, each in value.items()}
    if hasattr(value, "tolist"):  # of numpy
        value = value.tolist()
    if isinstance(value, list | tuple):
        return {str(column): each for column, each in enumerate(value)}
    return {"value": value}


def _plain(value: Any) -> Any:
    """What JSON knows no word for: arrays and numbers of numpy, sets."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return list(value)
    message = f"a {type(value).__name__}"
    raise TypeError(message)


_SINKS: dict[str, Callable[[TextIO], Sink]] = {
    ".jsonl": _JsonLines,
    ".ndjson": _JsonLines,
    ".csv": _Table,
    ".tsv": lambda file: _Table(file, "\t"),
    ".pickle": _Pickle,
    ".pkl": _Pickle,
}
