"""The state folder does not grow for ever, however long a master lives."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from engines.engine_contract import wait_until

IMPATIENT = """
import sys
from golem_magic.master import __main__ as master
master.SWEEP_S = 0.1
sys.exit(master.main(["--state", sys.argv[1], "--slots", "1", "--linger", "inf"]))
"""

NOTE = """
import os, sys
before = set(sys.modules)
os.environ["GOLEM_MAGIC_SEEDS"] = sys.argv[1]
import numpy
from golem_magic.worker import seeds
seeds.note(before)
"""


@pytest.mark.meets("GR-12")
def test_output_of_a_week_ago_goes_while_a_master_lives(state_dir: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", IMPATIENT, str(state_dir)], stdout=subprocess.DEVNULL)
    try:
        wait_until((state_dir / "golem.json").exists, "the master's address", 20)
        for days, name in ((8, "old"), (6, "young"), (8, "older")):
            path = state_dir / "output" / f"{name}.err.txt"
            path.write_text("what a task said")
            then = time.time() - days * 86_400
            os.utime(path, (then, then))
            if days == 8:
                wait_until(lambda path=path: not path.exists(), f"the end of {name}", 20)  # type: ignore[misc]
    finally:
        process.terminate()
        process.wait(20)

    assert [path.name for path in (state_dir / "output").iterdir()] == ["young.err.txt"]


def test_a_package_is_noted_once_however_many_workers_use_it(tmp_path: Path) -> None:
    noted = tmp_path / "noted"
    for _ in range(2):
        subprocess.run([sys.executable, "-c", NOTE, str(noted)], check=True, timeout=60)

    names = noted.read_text().split()

    assert "numpy" in names
    assert len(names) == len(set(names))
