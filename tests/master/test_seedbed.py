"""Packages that tasks have used are imported ahead of the next workers, and never stale."""

import subprocess
import sys
import time
from pathlib import Path

from golem_magic import Client

BED = """
import importlib, os, sys, threading
sys.path.insert(0, sys.argv[1])
from golem_magic.master.seedbed import Seedbed
bed = Seedbed(sys.argv[2])
while bed.has_wishes:
    bed.plant_one()
print("calm" in sys.modules, "calm.part" in sys.modules, "threaded" in sys.modules, bed.is_stale())
with open(sys.argv[1] + "/calm/__init__.py", "a") as file:
    file.write("new = 1\\n")
print(bed.is_stale())
"""

NOTE = """
import os, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
os.environ["GOLEM_MAGIC_SEEDS"] = sys.argv[1] + "/noted"
import mine, numpy, json
from golem_magic.worker import seeds
seeds.note(before)
"""


def test_the_next_job_finds_numpy_imported(state_dir: Path, share: Path) -> None:
    def how(_: int) -> bool:
        import sys

        was_there = "numpy" in sys.modules
        import numpy as np

        return was_there and bool(np.arange(3).sum() == 3)

    deadline = time.monotonic() + 20
    with Client(engine="local", share=str(share), workers=1) as client:
        assert client.map(how, [0])[0] is False
        while client.map(how, [0])[0] is False:
            assert time.monotonic() < deadline, "numpy was never imported ahead"
            time.sleep(0.5)


def test_what_starts_threads_is_refused_and_what_changed_on_disk_is_stale(tmp_path: Path) -> None:
    packages, noted = tmp_path / "packages", tmp_path / "noted"
    (packages / "calm").mkdir(parents=True)
    (packages / "calm" / "__init__.py").write_text("")
    (packages / "calm" / "part.py").write_text("")
    (packages / "threaded.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
    )
    noted.write_text("calm\ncalm.part\nthreaded\nbroken_since\n")

    run = subprocess.run(
        [sys.executable, "-c", BED, str(packages), str(noted)], capture_output=True, text=True, timeout=30
    )

    assert run.stdout.splitlines() == ["True True False False", "True"], run.stderr
    assert "!threaded" in noted.read_text().split()


def test_a_users_own_module_is_never_noted(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    subprocess.run([sys.executable, "-c", NOTE, str(tmp_path)], check=True, timeout=30)

    noted = (tmp_path / "noted").read_text().split()

    assert "numpy" in noted
    assert not {"mine", "json", "golem_magic"} & set(noted)
