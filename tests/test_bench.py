"""The benchmark runs and prints ratios; what they are is for people to judge, never asserted."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_benchmark_prints_a_ratio_to_every_peer(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "W8", "W1d", "--rounds", "1"]
    environment = {**os.environ, "GOLEM_MAGIC_BENCH_DIR": str(tmp_path)}

    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)

    assert run.returncode == 0, run.stderr
    ratios = re.findall(
        r"(mp\.Pool|joblib), chunk \S+\s+[\d.]+ ms  golem_magic takes +[\d.]+ x this", run.stdout
    )
    assert ratios.count("mp.Pool") == 3
    assert ratios.count("joblib") == 3
