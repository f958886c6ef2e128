"""One job whose workers are killed and stopped at random, and what came of it."""

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fakes.process_engine import PYTHON, ProcessEngine

from golem_magic import payload
from golem_magic.clock import SystemClock
from golem_magic.dispatcher import Dispatcher, Site
from golem_magic.model import Digest, JobId
from golem_magic.results import Results, Retries
from golem_magic.share import jobs, outcome_files, runtime, store
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import JobPaths, SharePaths


@dataclass
class Staged:
    """A job on a share, ready to be dispatched."""

    share: SharePaths
    paths: JobPaths
    manifest: jobs.Manifest
    site: Site
    engine: ProcessEngine

    def results(self, dispatcher: Dispatcher) -> Results:
        """What a client would give for it."""

        def follow(job_id: JobId) -> Dispatcher:
            paths = self.share.job(job_id)
            return Dispatcher(paths, jobs.read_manifest(paths), self.site, SystemClock())

        return Results(dispatcher, Retries(self.share, dispatcher, follow))


def by_value(source: str, name: str, **names: Any) -> Callable[..., Any]:
    """A function as a notebook cell would define it: it travels by value."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(source, "<cell>", "exec"), namespace)
    return namespace[name]  # type: ignore[no-any-return]


def stage(
    root: Path,
    roots: list[Path],
    function: Callable[..., Any],
    inputs: list[Any],
    *,
    workers: int,
    chunk_size: int | None = None,
    beat_s: float = 0.1,
    lease_s: float = 1.0,
    max_attempts: int = 3,
) -> Staged:
    """Put a job on the share, without a client's defaults."""
    import threading

    share = jobs.make_share(str(root))
    digest = store.put(share, payload.dump_function(function, "f"))
    job_id = JobId(os.urandom(16).hex())
    manifest = jobs.Manifest(
        job_id=job_id,
        function_name="f",
        label="",
        python=".".join(map(str, __import__("sys").version_info[:2])),
        function=digest,
        common=None,
        star=False,
        workers=workers,
        chunk_size=chunk_size,
        beat_s=beat_s,
        lease_s=lease_s,
        max_attempts=max_attempts,
        created_s=0.0,
        on_error="raise",
        host="here",
        engine="tests",
        folder="/",
        uid=os.geteuid(),
    )
    paths = share.job(job_id)
    manifest_digest: Digest = jobs.make_job(paths, manifest)
    writer = InputWriter(paths)
    for start in range(0, len(inputs), 100):
        block = inputs[start : start + 100]
        writer.append(payload.dump(block), len(block))
    writer.close()
    engine = ProcessEngine(root, roots)
    site = Site(
        engine=lambda: engine,
        lock=threading.Lock(),
        argv=(PYTHON, runtime.stage(share), paths.root, manifest_digest),
        label="f",
        owner="tests",
        share_is_local=True,
    )
    return Staged(share, paths, manifest, site, engine)


@dataclass(frozen=True)
class Run:
    """One call of the function, as it noted itself: ``ended_s`` is None if it was cut short."""

    task: int
    pid: int
    began_s: float
    ended_s: float | None


# What tasks begin with and end with; each note is one write to a file opened for appending.
NOTING = """
import os, time

def note(word, task):
    with open(calls, "ab", buffering=0) as file:
        file.write(b"%s %d %d %d\\n" % (word, task, os.getpid(), time.monotonic_ns()))
"""


def runs_noted(calls: Path) -> list[Run]:
    """All calls, in the order in which they began."""
    open_runs: dict[tuple[int, int], float] = {}
    found = []
    for line in calls.read_text().splitlines():
        word, task, pid, now_ns = line.split()
        key, now_s = (int(task), int(pid)), int(now_ns) / 1e9
        if word == "begin":
            open_runs[key] = now_s
        else:
            found.append(Run(*key, open_runs.pop(key), now_s))
    found += [Run(*key, began_s, None) for key, began_s in open_runs.items()]
    return sorted(found, key=lambda run: run.began_s)


@dataclass
class Report:
    """What a trial shows.

    Attributes:
        calls: Where the calls have noted themselves, as with :data:`NOTING`.
        outcomes: Tuples whose second part is the process that gave them.
        struck: Processes that were killed or stopped, the runners of such keepers, and when that was, last.
        stood: Spans of time in which processes were stopped.
    """

    calls: Path
    kills: int
    stops: int
    seconds: float
    outcomes: list[Any]
    struck: dict[int, float]
    stood: dict[int, list[tuple[float, float]]]

    @cached_property
    def runs(self) -> list[Run]:
        return runs_noted(self.calls)

    @property
    def executions(self) -> Counter[int]:
        return Counter(run.task for run in self.runs)

    @property
    def in_vain(self) -> list[Run]:
        """Calls whose outcome is not the recorded one."""
        return [run for run in self.runs if run.pid != self.outcomes[run.task][1]]

    @property
    def most_lost_s(self) -> float:
        """The most finished work that one process had not published when it was struck, in seconds.

        A task that was in flight while its process stood still has worked only before and after that.
        """
        lost: dict[int, float] = {}
        for run in self.in_vain:
            if run.ended_s is not None and run.ended_s <= self.struck.get(run.pid, 0.0):
                stood = sum(
                    max(0.0, min(run.ended_s, until) - max(run.began_s, since))
                    for since, until in self.stood.get(run.pid, ())
                )
                lost[run.pid] = lost.get(run.pid, 0.0) + run.ended_s - run.began_s - stood
        return max(lost.values(), default=0.0)

    @property
    def repeated(self) -> dict[int, int]:
        return {task: count for task, count in self.executions.items() if count > 1}

    @property
    def most(self) -> int:
        return max(self.executions.values())

    @property
    def extra(self) -> int:
        """Executions beyond the first of each task."""
        return sum(self.repeated.values()) - len(self.repeated)

    def __str__(self) -> str:
        return (
            f"{self.seconds:.1f} s, {self.kills} SIGKILL, {self.stops} SIGSTOP; "
            f"of {len(self.outcomes)} tasks {len(self.repeated)} ran more than once "
            f"({self.extra} extra executions, most for one task {self.most}); "
            f"most finished work that one process lost {1000 * self.most_lost_s:.0f} ms"
        )


class Reaper:
    """Kills and stops keepers and runners at random, and lets the stopped ones go on after a while."""

    def __init__(
        self, engine: ProcessEngine, chance: random.Random, n_events: int, share_of_kills: float
    ) -> None:
        self._share_of_kills = share_of_kills
        self._engine = engine
        self._chance = chance
        self._n_events = n_events
        self._stopped: list[tuple[float, int]] = []
        self.kills = self.stops = 0
        self.struck: dict[int, float] = {}
        self.stood: dict[int, list[tuple[float, float]]] = {}

    def strike(self) -> None:
        now = time.monotonic()
        for until, pid in [pair for pair in self._stopped if pair[0] < now]:
            self._stopped.remove((until, pid))
            _signal(pid, signal.SIGCONT)
            since, until = self.stood[pid].pop()
            self.stood[pid].append((since, min(until, time.monotonic())))
        victim = _victim(self._engine, self._chance) if self.kills + self.stops < self._n_events else None
        if victim is None:
            return
        self.struck |= dict.fromkeys((victim, *_children(victim)), now)
        if self._chance.random() < self._share_of_kills:
            self.kills += _signal(victim, signal.SIGKILL)
        elif _signal(victim, signal.SIGSTOP):
            self._stopped.append((now + self._chance.uniform(0.1, 2.5), victim))
            spans = self.stood.setdefault(victim, [])
            if not spans or spans[-1][1] <= now:  # else it stands already, till the first of both ends
                spans.append((now, float("inf")))
            self.stops += 1

    def release(self) -> None:
        for _, pid in self._stopped:
            _signal(pid, signal.SIGCONT)


def run_with_kills(
    staged: Staged,
    calls: Path,
    *,
    n_events: int,
    seed: int,
    pause_s: float = 0.1,
    timeout_s: float = 120.0,
    share_of_kills: float = 0.6,
) -> Report:
    """Dispatch a staged job while keepers and runners are killed and stopped at random."""
    chance = random.Random(seed)
    dispatcher = Dispatcher(staged.paths, staged.manifest, staged.site, SystemClock())
    dispatcher.start()
    results = staged.results(dispatcher)
    reaper = Reaper(staged.engine, chance, n_events, share_of_kills)
    first_seen: dict[int, list[Any]] = {}
    started = time.monotonic()
    while not results.progress.state.is_final:
        assert time.monotonic() - started < timeout_s, f"stuck: {results.progress}"
        reaper.strike()
        for entry in list(dispatcher.book.order):  # what was seen once must never change
            if entry.start not in first_seen:
                first_seen[entry.start] = outcome_files.read(staged.paths, entry)
        time.sleep(chance.uniform(0.2, 1.8) * pause_s)
    seconds = time.monotonic() - started
    reaper.release()
    outcomes = list(results)
    for start, values in first_seen.items():
        assert outcomes[start : start + len(values)] == values, f"outcomes from {start} on have changed"
    return Report(calls, reaper.kills, reaper.stops, seconds, outcomes, reaper.struck, reaper.stood)


def _victim(engine: ProcessEngine, chance: random.Random) -> int | None:
    """A keeper or a runner, alike often."""
    keepers = engine.keepers()
    if not keepers:
        return None
    keeper = chance.choice(keepers)
    if chance.random() < 0.5:
        return keeper
    children = _children(keeper)
    return chance.choice(children) if children else keeper


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def mount(bindfs: str, source: Path, target: Path) -> None:
    """One more view of a folder, with caches as late as those of a network file system."""
    target.mkdir()
    caches = "attr_timeout=10,entry_timeout=10,negative_timeout=10"
    subprocess.run([bindfs, "-o", caches, str(source), str(target)], check=True)


def unmount(target: Path) -> None:
    subprocess.run(["umount", "-l", str(target)], check=True)
