"""``make bench``: figures of golem_magic as ratios to its peers in the same run.

Each case is run by every system in turn, round after round, so that whatever
else the machine does meets all of them; the medians of all rounds but the
first (which warms up) are compared.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bench.peers import Joblib, Ours, Pool, folder, until_first_and_last

# Here, in __main__, as a notebook would have them: they travel by value.


def increment(x: int) -> int:
    return x + 1


def megabyte(x: int) -> bytes:
    return bytes([x % 256]) * (1 << 20)


@dataclass(frozen=True)
class Case:
    """One kind of work; ``chunk`` is what each peer gets ("own" is the peer's default)."""

    name: str
    function: Callable[[Any], Any]
    inputs: Any
    pool_chunks: tuple[int, ...]
    joblib_chunks: tuple[int | None, ...]
    what: str = "last"  # the time that counts: to the first or to the last result


CASES = {
    "W1": Case("200,000 x (x+1)", increment, range(200_000), (10_000,), (None, 10_000)),
    "W1d": Case("20,000 x (x+1)", increment, range(20_000), (1, 1_000), (None, 1_000)),
    "W6": Case("400 results of 1 MB", megabyte, range(400), (1, 10), (None,)),
    "W8": Case("warm: call to first of ten", increment, range(10), (1,), (None,), "first"),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", help="also write the figures to this file")
    arguments = parser.parse_args()
    where = folder()
    pool, ours, others = Pool(), Ours(where), Joblib()  # the pool forks first, before any thread
    try:
        figures = {
            name: measure(CASES[name], ours, pool, others, arguments.rounds) for name in arguments.cases
        }
    finally:
        for system in (ours, pool, others):
            system.close()
        shutil.rmtree(where, ignore_errors=True)
    sys.stdout.write(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, share on {where}\n")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(figures, file, indent=1)


def measure(case: Case, ours: Ours, pool: Pool, others: Joblib, rounds: int) -> dict[str, float]:
    """Medians in ms of every system and size, printed as they come."""
    runs: list[tuple[str, Any, int | None]] = [("golem_magic", ours, None)]
    runs += [(f"mp.Pool, chunk {chunk}", pool, chunk) for chunk in case.pool_chunks]
    runs += [(f"joblib, chunk {chunk or 'own'}", others, chunk) for chunk in case.joblib_chunks]
    times: dict[str, list[float]] = {name: [] for name, _, _ in runs}
    for number in range(rounds + 1):
        for name, system, chunk in runs:
            began = time.perf_counter()
            results = system.map(case.function, case.inputs, chunk)
            mapped = time.perf_counter() - began
            first, last, count = until_first_and_last(results)
            assert count == len(case.inputs), (name, count)
            if number:
                times[name].append(1e3 * (mapped + (first if case.what == "first" else last)))
            time.sleep(0.05)
    medians = {name: statistics.median(values) for name, values in times.items()}
    own = medians["golem_magic"]
    sys.stdout.write(f"\n{case.name}\n")
    for name, median in medians.items():
        ratio = "" if name == "golem_magic" else f"  golem_magic takes {own / median:5.2f} x this"
        sys.stdout.write(f"  {name:24s} {median:8.1f} ms{ratio}\n")
    sys.stdout.flush()
    return medians


if __name__ == "__main__":
    main()
