"""The workers of one job as the engine knows them: asked for, asked about, taken back.

The id of a placement is on the share before the engine knows it, and is used
again until the engine has answered: asking twice places once.
"""

import threading
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from golem_magic.clock import Clock
from golem_magic.engines.base import Engine, KeepsOutput
from golem_magic.errors import EngineError
from golem_magic.model import NativeId, PlacementState, PlacementStatus, WorkerSpec
from golem_magic.share import files
from golem_magic.share.layout import JobPaths

ASK_S = (0.1, 3.0)  # pauses between two questions to the engine, growing
EAGER_ASK_S = 0.25  # the longest pause while there is work that nobody holds, on a local engine
RETRY_S = (0.2, 5.0)  # pauses between two requests that the engine did not answer
END_S = 1.0  # between two wishes that workers be gone

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a job runs.

    Attributes:
        engine: Gives the engine; called in the dispatcher's thread, when first needed. None
            if it is not ours to use: then the job is only watched and healed.
        lock: Held while the engine is used: it serves all jobs of a client.
        argv: The worker's command, up to and including the manifest's digest.
        label: Free text shown with placements.
        owner: Free text shown with placements.
        share_is_local: All workers see the share without slow caches.
    """

    engine: Callable[[], Engine] | None
    lock: threading.Lock
    argv: tuple[str, ...]
    label: str
    owner: str
    share_is_local: bool


class Placements:
    """All placements of one job; used by its dispatcher's thread alone.

    Attributes:
        trouble: Why the engine could not be reached or refused, None if it answered last.
        refused: It refused for good to place workers.
        statuses: The engine's newest word on each placement.
    """

    def __init__(self, paths: JobPaths, site: Site, clock: Clock) -> None:
        self._paths = paths
        self._site = site
        self._clock = clock
        self.statuses: dict[NativeId, PlacementStatus] = {}
        self.trouble: EngineError | None = None
        self._trouble_since_s: float | None = None
        self.refused = False
        self._wish: tuple[NativeId, int] | None = None
        self._n_placed = 0
        self._ask_at_s = 0.0
        self._ask_pause_s = ASK_S[0]
        self._retry_at_s = self._end_at_s = 0.0
        self._bad: dict[NativeId, PlacementStatus] = {}
        self._n_outcomes = 0
        self._n_outcomes_at: dict[NativeId, int] = {}  # when it was placed
        self._recover()

    @property
    def trouble_s(self) -> float:
        """Seconds since the engine last answered, 0 if it did."""
        return 0.0 if self._trouble_since_s is None else self._clock.now() - self._trouble_since_s

    @property
    def bad(self) -> Mapping[NativeId, PlacementStatus]:
        """Placements in a row that are gone and brought no outcome."""
        return self._bad

    @property
    def unfinished(self) -> list[NativeId]:
        """Placements that have not ended, as far as is known."""
        return [
            native for native, status in self.statuses.items() if status.state is not PlacementState.ENDED
        ]

    def place(self, count: int) -> None:
        """Ask for workers, unless the engine was in trouble a moment ago."""
        now = self._clock.now()
        if now < self._retry_at_s:
            return
        if self._wish is None:
            self._wish = (NativeId(uuid.uuid4().hex), count)
        native_id, count = self._wish
        files.link(str(count), f"{self._paths.placements}/{native_id}")
        spec = WorkerSpec(
            argv=(*self._site.argv, str(self._n_placed)),  # last: the number of the placement's first worker
            count=count,
            native_id=native_id,
            label=self._site.label,
            owner=self._site.owner,
        )
        if self._tell(lambda engine: engine.submit(spec)) is None:
            self.refused = self.trouble is not None and not self.trouble.transient
            self._retry_at_s = now + min(RETRY_S[1], max(RETRY_S[0], self.trouble_s / 2))
            return
        self._wish = None
        self._n_outcomes_at[native_id] = self._n_outcomes
        self.statuses[native_id] = PlacementStatus(state=PlacementState.PENDING, n_workers=count)
        self._n_placed += count
        self._ask_pause_s = ASK_S[0]
        self._ask_at_s = now + self._ask_pause_s

    def ask(self, *, n_outcomes: int, eagerly: bool = False, now: bool = False) -> None:
        """Ask about all placements that have not ended, at growing intervals.

        Args:
            n_outcomes: Outcomes there are; new ones forgive placements that ended badly.
            eagerly: There is work that nobody holds, so news matters.
            now: Whatever the interval.
        """
        if self._clock.now() < self._ask_at_s and not now:
            return
        longest_s = EAGER_ASK_S if eagerly and self._site.share_is_local else ASK_S[1]
        self._ask_pause_s = min(1.5 * self._ask_pause_s, longest_s)
        self._ask_at_s = self._clock.now() + self._ask_pause_s
        ids = self.unfinished
        answers = self._tell(lambda engine: engine.poll(ids)) if ids else None
        if answers is None:
            return
        self.statuses.update(answers)
        self._judge(answers, n_outcomes)

    def _judge(self, answers: Mapping[NativeId, PlacementStatus], n_outcomes: int) -> None:
        """Placements that are gone without an outcome since they were made are bad; any outcome forgives."""
        if n_outcomes > self._n_outcomes:
            self._bad.clear()
            self._n_outcomes = n_outcomes
        for native, status in answers.items():
            is_gone = status.state in (PlacementState.ENDED, PlacementState.UNKNOWN)
            if is_gone and self._n_outcomes_at.get(native, 0) == n_outcomes:
                self._bad[native] = status

    def end(self) -> None:
        """Wish all workers gone; repeated wishes are spaced out."""
        ids = self.unfinished + ([self._wish[0]] if self._wish else [])
        if ids and self._clock.now() >= self._end_at_s:
            self._end_at_s = self._clock.now() + END_S
            self._tell(lambda engine: engine.cancel(ids))

    def last_words(self) -> str:
        """The last error line of bad placements, as far as the engine keeps it; else empty."""
        if self._site.engine is None:
            return ""
        for native in reversed(list(self._bad)):
            with suppress(EngineError), self._site.lock:
                engine = self._site.engine()
                text = engine.output(native, "err") if isinstance(engine, KeepsOutput) else None
                lines = [line for line in (text or "").splitlines() if line and not line.startswith("TASK :")]
                if lines:
                    return lines[-1]
        return ""

    def has_ended(self, worker: str) -> bool:
        """Whether the engine says that a worker's whole placement has ended."""
        placement = worker.partition("-")[0]
        return any(
            native.startswith(placement) and status.state is PlacementState.ENDED
            for native, status in self.statuses.items()
        )

    def _tell(self, word: Callable[[Engine], Answer]) -> Answer | None:
        """Use the engine; None, and a note of the trouble, if it could not be used."""
        if self._site.engine is None:
            return None
        try:
            with self._site.lock:
                answer = word(self._site.engine())
        except EngineError as error:
            self.trouble = error
            if self._trouble_since_s is None:
                self._trouble_since_s = self._clock.now()
            return None
        self.trouble, self._trouble_since_s = None, None
        return answer

    def _recover(self) -> None:
        """Know what earlier clients of this job placed."""
        for name in files.names(self._paths.placements):
            count = int(files.read_link(f"{self._paths.placements}/{name}") or 0)
            self.statuses[NativeId(name)] = PlacementStatus(state=PlacementState.PENDING, n_workers=count)
            self._n_placed += count
