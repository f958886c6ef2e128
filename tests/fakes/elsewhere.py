"""Cells of a notebook, and a process that knows nothing of them."""

import linecache
import subprocess
import sys
from typing import Any

from golem_magic import payload


class Notebook:
    """Cells that share one namespace, as a kernel runs them."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self._n_cells = 0

    def run(self, cell: str) -> None:
        self._n_cells += 1
        file = f"<cell {self._n_cells} of a notebook>"
        linecache.cache[file] = (len(cell), None, cell.splitlines(keepends=True), file)
        exec(compile(cell, file, "exec"), self.names)

    def function(self, name: str = "f") -> payload.Frame:
        return payload.dump_function(self.names[name], name)


ELSEWHERE = """
import sys, traceback
from golem_magic import payload
size = int(sys.argv[1])
data = sys.stdin.buffer.read()
try:
    function = payload.load_function(memoryview(data[:size]))
    arguments = payload.load(memoryview(data[size:]))[0]
    print(repr(function(*arguments)))
except Exception:
    print(traceback.format_exc())
"""


def bytes_of(frame: payload.Frame) -> bytes:
    return b"".join(frame.parts)


def call_elsewhere(function: payload.Frame, *arguments: Any, before: str = "") -> str:
    """Call in a new process, which knows nothing of these cells; give what it prints.

    Args:
        function: What is called, as it travels.
        *arguments: For the function.
        before: Python that the process runs first.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + ELSEWHERE, str(function.size)],
        input=bytes_of(function) + bytes_of(payload.dump(arguments)),
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stderr == b"", done.stderr.decode()
    return done.stdout.decode().strip()
