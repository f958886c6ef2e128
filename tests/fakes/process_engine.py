"""An engine that starts worker processes directly, on several views of one share; for tests of the share."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping
from pathlib import Path

from golem_magic.model import NativeId, PlacementState, PlacementStatus, WorkerSpec


class ProcessEngine:
    """Starts every command as a process of its own; worker number k sees the share at ``roots[k % n]``.

    ``root`` is the path that the client uses; in a worker's command it is
    replaced by that worker's own root.
    """

    share_is_local = True

    def __init__(self, root: Path, roots: list[Path]) -> None:
        self._root = str(root)
        self._roots = [str(each) for each in roots]
        self._placed: dict[NativeId, list[subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()
        self._n = 0

    def submit(self, spec: WorkerSpec) -> NativeId:
        with self._lock:
            if spec.native_id not in self._placed:
                self._placed[spec.native_id] = [self._start(spec, task) for task in range(spec.count)]
        return spec.native_id

    def _start(self, spec: WorkerSpec, task: int) -> "subprocess.Popen[bytes]":
        root = self._roots[self._n % len(self._roots)]
        self._n += 1
        argv = [word.replace(self._root, root) for word in spec.argv]
        return subprocess.Popen(
            [*argv, spec.native_id, "0", str(task)],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        return {native_id: self._status(native_id) for native_id in ids}

    def _status(self, native_id: NativeId) -> PlacementStatus:
        workers = self._placed.get(native_id)
        if workers is None:
            return PlacementStatus(state=PlacementState.UNKNOWN)
        codes = [worker.poll() for worker in workers]
        ended = [code for code in codes if code is not None]
        state = PlacementState.ENDED if len(ended) == len(codes) else PlacementState.RUNNING
        errored = sum(code != 0 for code in ended)
        return PlacementStatus(state=state, n_workers=len(codes), n_ended=len(ended), n_errored=errored)

    def cancel(self, ids: Collection[NativeId]) -> None:
        for native_id in ids:
            for worker in self._placed.get(native_id, ()):
                if worker.poll() is None:
                    worker.send_signal(signal.SIGTERM)

    def n_slots(self) -> int | None:
        return 2

    def keepers(self) -> list[int]:
        """Pids of all keepers that have not ended."""
        with self._lock:  # the dispatcher's thread places more meanwhile
            placed = [worker for workers in self._placed.values() for worker in workers]
        return [worker.pid for worker in placed if worker.poll() is None]

    def close(self) -> None:
        """End whatever is left."""
        for workers in self._placed.values():
            for worker in workers:
                if worker.poll() is None:
                    worker.send_signal(signal.SIGCONT)
                    worker.kill()
                worker.wait()


PYTHON = sys.executable
