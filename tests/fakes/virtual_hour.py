"""Hours of work in seconds: the product's own runners, claims and files, in a time that only tasks take.

Each worker is a thread, but one runs at a time: the one whose time is the earliest. A runner's second
thread is left out; what it would do while a task runs is done from within the task.
"""

import os
import pickle
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from golem_magic import payload
from golem_magic.model import Digest, JobId, WorkerId
from golem_magic.payload import frames
from golem_magic.share import jobs, store
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import JobPaths, SharePaths, signature
from golem_magic.worker.page import Page
from golem_magic.worker.runner import Runner
from golem_magic.worker.tenure import Tenure

LOOK_S = 0.25  # a runner's second thread looks every 10 ms, which here would be mostly idle steps
BLOCK = 10_000

_at: dict[int, "VirtualWorker"] = {}


def task(seconds: float) -> None:
    """What every virtual worker finds as the user's function."""
    _at[threading.get_ident()].spend(seconds)


class VirtualTime:
    """Whose turn it is."""

    def __init__(self) -> None:
        self.now: dict[object, float] = {}
        self.turn = threading.Condition()

    def pass_on(self, who: object, seconds: float) -> None:
        """Let time pass for one of them, and wait until nobody is behind."""
        with self.turn:
            self.now[who] += seconds
            self.turn.notify_all()
            self.turn.wait_for(lambda: self.now[who] <= min(self.now.values()))

    def leave(self, who: object) -> None:
        """Nobody waits for this one any more."""
        with self.turn:
            del self.now[who]
            self.turn.notify_all()


class VirtualWorker(Runner):
    """A runner, and the clock that it looks at."""

    def __init__(self, time: VirtualTime, share: SharePaths, manifest: jobs.Manifest, number: int) -> None:
        self._time = time
        time.now[self] = 0.0
        self.ended_s = 0.0
        self._looked: tuple[Tenure | None, int] = (None, 0)
        worker = WorkerId(f"virtual-{number}-0000")
        paths = share.job(manifest.job_id)
        super().__init__(share, paths, manifest, worker, signature(worker, 1), number, Page(), self)

    def now(self) -> float:
        """As a clock does."""
        return self._time.now[self]

    def sleep(self, seconds: float) -> None:
        """As a clock does."""
        self._time.pass_on(self, seconds)

    def work(self) -> None:
        """Be the thread of this worker."""
        _at[threading.get_ident()] = self
        try:
            self._time.pass_on(self, 0.0)
            self.run()
        finally:
            self.ended_s = self.now()
            self._time.leave(self)

    def spend(self, seconds: float) -> None:
        """Be busy, with a look of the second thread now and then."""
        while seconds > 0:
            step = min(seconds, LOOK_S - self.now() % LOOK_S or LOOK_S)
            self._time.pass_on(self, step)
            seconds -= step
            if self.now() % LOOK_S < 1e-9 or LOOK_S - self.now() % LOOK_S < 1e-9:
                self.look()

    def look(self) -> None:
        """What the second thread does every time."""
        tenure = self._current
        if tenure is None or tenure.revoked:
            return
        count = len(tenure.out)
        moved = count - self._looked[1] if self._looked[0] is tenure else count
        self._looked = (tenure, count)
        with tenure.lock:
            self._look_after(tenure, count, moved)

    def _watch(self) -> None:
        pass


def work_through(folder: Path, durations: list[float], *, workers: int = 2) -> tuple[JobPaths, float]:
    """Run tasks of these lengths, in seconds; give the job and how long it took."""
    share = jobs.make_share(str(folder))
    frame = frames.make(BytesIO(pickle.dumps(task)), [])
    manifest = _manifest(store.put(share, frame), workers)
    paths = share.job(manifest.job_id)
    jobs.make_job(paths, manifest)
    writer = InputWriter(paths)
    for start in range(0, len(durations), BLOCK):
        block = durations[start : start + BLOCK]
        writer.append(payload.dump(block), len(block))
    writer.close()
    time = VirtualTime()
    everyone = [VirtualWorker(time, share, manifest, number) for number in range(workers)]
    errors: list[BaseException] = []
    threads = [threading.Thread(target=_guarded(each, errors)) for each in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return paths, max(each.ended_s for each in everyone)


def _guarded(worker: VirtualWorker, errors: list[BaseException]) -> Callable[[], None]:
    def work() -> None:
        try:
            worker.work()
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the thread
            errors.append(error)

    return work


def _manifest(function: Digest, workers: int) -> jobs.Manifest:
    return jobs.Manifest(
        job_id=JobId("0" * 32),
        function_name="task",
        label="",
        python="",
        function=function,
        common=None,
        star=False,
        workers=workers,
        chunk_size=None,
        beat_s=1.0,
        lease_s=10.0,
        max_attempts=3,
        created_s=0.0,
        on_error="raise",
        host="here",
        engine="virtual",
        folder="/",
        uid=os.geteuid(),
    )


def n_files(paths: JobPaths) -> dict[str, int]:
    """How many files, links and folders each part of a job's folder has."""
    found = {}
    for part in (*paths.folders, paths.root):
        walk = [(path, folders, names) for path, folders, names in os.walk(part)]
        found[os.path.basename(part)] = sum(len(folders) + len(names) for _, folders, names in walk)
    return {**found, "all": found.pop(os.path.basename(paths.root))}
