"""An engine that many people share is asked rarely, and why it lets workers wait is told."""

import threading
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from engines.engine_contract import wait_until
from fakes.world import cell
from share.chaos import Staged, stage

from golem_magic.dispatcher.placements import Placements
from golem_magic.model import NativeId, PlacementState, PlacementStatus, WorkerSpec


class Hours:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now(self) -> float:
        return self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds


class Scheduler:
    """Keeps everybody waiting, and notes when it is asked."""

    ask_s = (2.0, 60.0)
    share_is_local = False

    def __init__(self, clock: Hours) -> None:
        self._clock = clock
        self.asked_s: list[float] = []
        self.cancelled_s: list[float] = []

    def submit(self, spec: WorkerSpec) -> NativeId:
        return spec.native_id

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        self.asked_s.append(self._clock.now())
        waits = PlacementStatus(state=PlacementState.PENDING, n_workers=2, reason="others come first")
        return dict.fromkeys(ids, waits)

    def cancel(self, ids: Collection[NativeId]) -> None:
        self.cancelled_s.append(self._clock.now())

    def n_slots(self) -> int | None:
        return 2

    def close(self) -> None:
        pass


@pytest.fixture
def staged(share: Path) -> Iterator[Staged]:
    staged = stage(share, [share], cell("def f(x):\n    return x\n")["f"], [1], workers=1)
    yield staged
    staged.engine.close()


def nobody_carries() -> bool:
    return not any(thread.name == "golem-courier" for thread in threading.enumerate())


def test_a_scheduler_is_asked_rarely_and_more_rarely_the_longer_it_waits(staged: Staged) -> None:
    clock = Hours()
    engine = Scheduler(clock)
    site = replace(staged.site, engine=lambda: engine, share_is_local=False)
    placements = Placements(staged.paths, site, clock)

    def pass_time(seconds: int, *, eagerly: bool, now: bool = False) -> list[float]:
        begun = len(engine.asked_s)
        for _ in range(4 * seconds):
            clock.sleep(0.25)
            placements.ask(n_outcomes=0, eagerly=eagerly, now=now)
            placements.absence.look(placements.statuses, is_idle=True)
            wait_until(nobody_carries, "the answer")
        return engine.asked_s[begun:]

    placements.place(2)
    wait_until(nobody_carries, "the acceptance")
    placed_s = clock.now()
    first = pass_time(600, eagerly=True)
    pauses = [later - earlier for earlier, later in zip([placed_s, *first], first, strict=False)]

    assert pauses == sorted(pauses)
    assert 2 <= pauses[0] <= 3
    assert 59 <= pauses[-1] <= 61
    assert "others come first" in placements.note(2)

    while not pass_time(1, eagerly=True):
        pass
    assert pass_time(30, eagerly=False, now=True) == [], "not even at the end of a job"
    begun_s = clock.now()
    assert pass_time(10, eagerly=True)[0] - begun_s <= 3, "new work that nobody holds begins anew"

    for _ in range(40):
        clock.sleep(0.25)
        placements.end()
        wait_until(nobody_carries, "the cancellation")
        placements.ask(n_outcomes=0)
        wait_until(nobody_carries, "the answer")
    assert len(engine.cancelled_s) <= 6
