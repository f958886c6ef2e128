"""A real Slurm for tests: two nodes of one CPU each, which ``slurm-up`` starts for this run."""

import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Slurm:
    """The cluster, seen by its administrator."""

    folder: Path

    def run(self, *words: str) -> str:
        """What one of Slurm's commands says."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def elements(self, *states: str) -> list[str]:
        """Elements in these states (of all users), as ``255_0``."""
        return self.run("squeue", "-h", "-r", "-o", "%F_%K", "-t", ",".join(states)).split()

    def up(self) -> None:
        """Start what does not run."""
        run_script("slurm-up", self.folder)

    def down(self) -> None:
        run_script("slurm-down", self.folder)


def run_script(name: str, folder: Path) -> None:
    done = subprocess.run(["bash", HERE / name, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def three_free_ports() -> int:
    for first in range(27817, 32000, 3):
        try:
            for port in range(first, first + 3):
                with socket.socket() as listener:
                    listener.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")
