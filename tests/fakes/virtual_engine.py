"""Beside a virtual job: the engine that starts its workers, and a referee where nothing is late."""

import os
from collections.abc import Callable, Collection, Mapping

from fakes.virtual_time import Process, World

from golem_magic.model import NativeId, PlacementState, PlacementStatus, WorkerSpec
from golem_magic.share.layout import Done, JobPaths, parse_entry


class Referee:
    """Sees every link and removal at the server, in the order in which they happen."""

    def __init__(self, paths: JobPaths) -> None:
        self._paths = paths
        self.recorded: dict[int, str] = {}
        self.complaints: list[str] = []

    def on_link(self, target: str, path: str) -> None:
        if not path.startswith(self._paths.rounds) or not target.startswith("../../data/"):
            return
        entry = parse_entry(target)
        assert isinstance(entry, Done)
        if not _is_whole(f"{self._paths.data}/{entry.file}", entry.size):
            self.complaints.append(f"{path} points at {entry.file}, which is not there in full")
        for task in range(entry.start, entry.end):
            if task in self.recorded:
                self.complaints.append(f"task {task}: {entry.file} after {self.recorded[task]}")
            self.recorded[task] = entry.file

    def on_unlink(self, path: str) -> None:
        if os.path.basename(path) in self.recorded.values():
            self.complaints.append(f"{path} was removed although an entry points at it")


class VirtualEngine:
    """Starts virtual workers, and tells of their ends with some delay."""

    share_is_local = False

    def __init__(self, world: World, start: Callable[[NativeId, int], Process], lag_s: float) -> None:
        self._world = world
        self._start = start
        self._lag_s = lag_s
        self._placed: dict[NativeId, list[Process]] = {}
        self._ended_s: dict[str, float] = {}

    def submit(self, spec: WorkerSpec) -> NativeId:
        if spec.native_id not in self._placed:
            first = int(spec.argv[-1])
            self._placed[spec.native_id] = [
                self._start(spec.native_id, first + task) for task in range(spec.count)
            ]
        return spec.native_id

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        return {native_id: self._status(native_id) for native_id in ids}

    def _status(self, native_id: NativeId) -> PlacementStatus:
        workers = self._placed.get(native_id)
        if workers is None:
            return PlacementStatus(state=PlacementState.UNKNOWN)
        n_ended = sum(self._is_known_to_have_ended(worker) for worker in workers)
        state = PlacementState.ENDED if n_ended == len(workers) else PlacementState.RUNNING
        return PlacementStatus(state=state, n_workers=len(workers), n_ended=n_ended)

    def _is_known_to_have_ended(self, worker: Process) -> bool:
        if not worker.is_over and not worker.is_dead:
            return False
        since = self._ended_s.setdefault(worker.name, self._world.now)
        return self._world.now - since >= self._lag_s

    def cancel(self, ids: Collection[NativeId]) -> None:
        """Wishes are not obeyed: the marker on the share must do."""

    def n_slots(self) -> int | None:
        return None


def _is_whole(path: str, size: int) -> bool:
    try:
        return os.stat(path).st_size == size
    except FileNotFoundError:
        return False
