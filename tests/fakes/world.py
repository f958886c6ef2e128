"""Worlds to run jobs in: a client with an embedded Golem of its own, notebook cells, other processes."""

import contextlib
import itertools
import json
import linecache
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines.engine_contract import wait_until

import golem_magic
from golem_magic import Client

ROOT = Path(golem_magic.__file__).parents[1]
_serial = itertools.count()
# Lines are seen at once, and a crash says where it was.
_PLAIN = {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}


@contextlib.contextmanager
def embedded_client(folder: Path, **settings: Any) -> Iterator[Client]:
    """A client whose share lies in ``folder``, with two workers; its embedded Golem ends with it."""
    share = folder / "a share's folder"
    state = Path(tempfile.mkdtemp(prefix="gm-", dir="/tmp"))
    chosen: dict[str, Any] = {"share": share, "state_dir": state, "workers": 2, **settings}
    try:
        with Client(**chosen) as client:
            yield client
    finally:
        end_master(state)
        shutil.rmtree(state, ignore_errors=True)


def master_pid(state: Path) -> int | None:
    """The embedded Golem of a state folder, if one has written its address."""
    try:
        return int(json.loads((state / "golem.json").read_text())["pid"])
    except OSError:
        return None


def end_master(state: Path) -> None:
    """End the embedded Golem of a state folder as the system would, and wait until it is gone."""
    pid = master_pid(state)
    if pid is not None and is_running(pid):
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid), "the end of the embedded Golem", 10)


def cell(source: str, **names: Any) -> dict[str, Any]:
    """Run ``source`` as a notebook would: in ``__main__``, its lines known to tracebacks; give its names."""
    file = f"<cell {next(_serial)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    namespace = {"__name__": "__main__", **names}
    exec(compile(source, file, "exec"), namespace)
    return namespace


# --- other processes ---


def script(source: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """Start Python on ``source`` (also in ``__main__``); stdout is a pipe, errors go where ours go."""
    path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), **_PLAIN, **environment},
    )


def said(process: "subprocess.Popen[str]", timeout_s: float = 60) -> str:
    """What a script printed, once it has ended well."""
    out, _ = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, (process.returncode, out)
    return out


def is_running(pid: int) -> bool:
    """Whether the process runs; one that has died but was not reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def parent(pid: int) -> int:
    """The parent of a process; 0 if it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def processes_with(word: str) -> dict[int, str]:
    """Running processes, by pid, that have ``word`` in their command line or environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (folder / "cmdline").read_bytes() + b"\0" + (folder / "environ").read_bytes()
            if word.encode() in text and int(folder.name) != os.getpid() and is_running(int(folder.name)):
                found[int(folder.name)] = (
                    text.partition(b"\0\0")[0].replace(b"\0", b" ").decode(errors="replace")
                )
    return found
