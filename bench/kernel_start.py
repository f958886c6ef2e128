"""What autoload costs a kernel: seconds from its start to the answer to its first cell, with and without.

``python -m bench.kernel_start``. Both are measured in turn, in an environment made for that, so that
whatever else the machine does meets both.
"""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[1]
DEADLINE_S = 60


def make_environment(folder: Path) -> Path:
    """Make an environment with a prefix of its own that sees what is installed here; give its interpreter."""
    venv.create(folder, symlinks=True, with_pip=False)
    python = folder / "bin/python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    here = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n{ROOT}\n"
    (site / "beside.pth").write_text(here)
    return python


def autoload(python: Path, switch: str) -> str:
    """Run ``golem-magic autoload`` of that environment; give what it says."""
    command = [str(python), "-m", "golem_magic", "autoload", switch]
    return subprocess.run(command, cwd="/", check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def kernel_of(python: Path, home: Path) -> Iterator[tuple[Any, Any]]:
    """A kernel that this interpreter runs, and a client that its first cell has answered."""
    manager: Any = KernelManager()
    argv = [
        str(python),
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
        "--HistoryManager.enabled=False",
    ]
    manager._kernel_spec = KernelSpec(argv=argv, display_name="measured", language="python")
    manager.start_kernel(
        env={**os.environ, "IPYTHONDIR": str(home)}, cwd=str(home), stderr=subprocess.DEVNULL
    )
    client = manager.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=DEADLINE_S)
        client.execute_interactive("pass", timeout=DEADLINE_S, output_hook=lambda _: None)
        yield manager, client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kernel_start")
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    times: dict[str, list[float]] = {"off": [], "on": []}
    with tempfile.TemporaryDirectory() as folder:
        python = make_environment(Path(folder) / "environment")
        home = Path(folder) / "home"
        home.mkdir()
        for number in range(rounds + 1):
            for switch, measured in times.items():
                autoload(python, switch)
                begun = time.perf_counter()
                with kernel_of(python, home):
                    took = time.perf_counter() - begun
                if number:  # the first round warms up
                    measured.append(1e3 * took)
    for kind, figure in (("median", statistics.median), ("best", min)):
        off, on = (figure(times[switch]) for switch in ("off", "on"))
        sys.stdout.write(f"{kind:6s}  off {off:5.0f} ms  on {on:5.0f} ms  difference {on - off:4.0f} ms\n")


if __name__ == "__main__":
    main()
