"""The workers of one job as the engine knows them: asked for, asked about, taken back.

The id of a placement is on the share before the engine knows it, and is used
again until the engine has answered: asking twice places once.
"""

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

from golem_magic.clock import Clock
from golem_magic.dispatcher.absence import Absence
from golem_magic.dispatcher.courier import Courier
from golem_magic.dispatcher.site import Site
from golem_magic.engines.base import AskedRarely, KeepsOutput
from golem_magic.errors import EngineError
from golem_magic.model import NativeId, PlacementState, PlacementStatus, WorkerSpec
from golem_magic.share import files
from golem_magic.share.layout import JobPaths

ASK_S = (0.1, 3.0)  # pauses between two questions to the engine, growing; it may want others
EAGER_ASK_S = 0.25  # the longest pause while there is work that nobody holds, on a local engine
RETRY_S = (0.2, 5.0)  # pauses between two requests that the engine did not answer
FORGET_S = 10.0  # after the last wish for workers, trouble with placing them is forgotten
END_S = 1.0  # between two wishes that workers be gone
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
SILENT_S = 3.0  # an answer that takes longer is told to be missing; chosen by feel


class Placements:
    """All placements of one job; used by its dispatcher's thread alone.

    Attributes:
        refused: It refused for good to place workers, when last asked.
        statuses: The engine's newest word on each placement.
        absence: Which of the workers placed have not come.
    """

    def __init__(self, paths: JobPaths, site: Site, clock: Clock) -> None:
        self._paths = paths
        self._site = site
        self._clock = clock
        self._courier = Courier(site, clock)
        self.absence = Absence(paths, self._courier, clock)
        self.statuses: dict[NativeId, PlacementStatus] = {}
        self._troubles: dict[str, tuple[EngineError, float]] = {}  # what failed, why, since when
        self.refused = False
        self._wish: tuple[NativeId, int] | None = None
        self._n_placed = 0
        self._ask_at_s = 0.0
        self._ask_pause_s = self._pauses_s[0]
        self._is_eager = False
        self._retry_at_s = self._end_at_s = self._wanted_at_s = 0.0
        self._bad: dict[NativeId, PlacementStatus] = {}
        self._excused: set[str] = set()
        self._asked: dict[NativeId, int] = {}
        self._n_outcomes = 0
        self._n_outcomes_at: dict[NativeId, int] = {}  # when it was placed
        self._recover()

    @property
    def trouble(self) -> EngineError | None:
        """Why the engine could not be reached or refused, None if all was answered when last asked."""
        return min(self._troubles.values(), key=lambda each: each[1])[0] if self._troubles else None

    @property
    def trouble_s(self) -> float:
        """For how long something has failed whenever it was tried, 0 if nothing has."""
        return max((self._clock.now() - since for _, since in self._troubles.values()), default=0.0)

    def note(self, planned: int) -> str:
        """What the user should know of the engine and of workers that do not come; empty if all is well."""
        if self.trouble is not None:
            return f"the engine does not answer, asking again: {self.trouble}"
        if self._courier.busy_s > SILENT_S:
            return f"the engine has owed an answer for {self._courier.busy_s:.0f} s; what runs goes on"
        return self.absence.note(planned)

    @property
    def bad(self) -> Mapping[NativeId, PlacementStatus]:
        """Placements in a row that are gone, or whose workers never came, and brought no outcome."""
        absent = {
            native: status
            for native, status in self.statuses.items()
            if self.absence.is_whole(native, status) and self._is_fruitless(native)
        }
        return {**self._bad, **absent}

    @property
    def n_absent(self) -> int:
        """Workers that the engine counts as running and that have not come for long."""
        return sum(self.absence.n_absent(native, status) for native, status in self.statuses.items())

    @property
    def unfinished(self) -> list[NativeId]:
        """Placements that have not ended, as far as is known."""
        return [
            native for native, status in self.statuses.items() if status.state is not PlacementState.ENDED
        ]

    def word_on(self, worker: str) -> PlacementState:
        """What the engine says of the placement that a worker belongs to."""
        placement = worker.partition("-")[0]
        states = [status.state for native, status in self.statuses.items() if native.startswith(placement)]
        return states[0] if states else PlacementState.UNKNOWN

    def place(self, count: int) -> bool:
        """Ask for workers, unless the engine was in trouble a moment ago; whether it was asked."""
        now = self._wanted_at_s = self._clock.now()
        if now < self._retry_at_s or self._courier.is_at("place"):
            return False
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
        self._n_outcomes_at.setdefault(native_id, self._n_outcomes)
        return self._courier.send(
            "place",
            lambda engine: engine.submit(spec),
            partial(self._accepted, native_id, count),
            self._not_accepted,
        )

    def _accepted(self, native_id: NativeId, count: int, _: object) -> None:
        self._troubles.pop("place", None)
        self._wish, self.refused = None, False
        self._asked[native_id] = count
        self.statuses[native_id] = PlacementStatus(state=PlacementState.PENDING, n_workers=count)
        self._n_placed += count
        self._ask_pause_s = self._pauses_s[0]
        self._ask_at_s = self._clock.now() + self._ask_pause_s

    def _not_accepted(self, error: EngineError) -> None:
        self._note_trouble("place", error)
        self.refused = not error.transient
        self._retry_at_s = self._clock.now() + min(RETRY_S[1], max(RETRY_S[0], self.trouble_s / 2))

    def ask(self, *, n_outcomes: int, eagerly: bool = False, now: bool = False) -> bool:
        """Take in what the engine has answered; ask about what has not ended, at growing intervals.

        Whether there was news: workers that have ended may have published a moment before.

        Args:
            n_outcomes: Outcomes there are; new ones forgive placements that ended badly.
            eagerly: There is work that nobody holds, so news matters: the pauses begin anew.
            now: Whatever the interval, unless the engine wants to be asked rarely.
        """
        if n_outcomes > self._n_outcomes:
            self._bad.clear()
            self._n_outcomes = n_outcomes
        before = dict(self.statuses)
        self._courier.collect()
        if self._clock.now() - self._wanted_at_s > FORGET_S:
            self._troubles.pop("place", None)  # nobody minds any more
        self._ask_again(eagerly=eagerly, now=now)
        return self.statuses != before

    def _ask_again(self, *, eagerly: bool, now: bool) -> None:
        shortest_s, longest_s = self._pauses_s
        if eagerly and not self._is_eager:
            self._ask_pause_s = shortest_s
            self._ask_at_s = min(self._ask_at_s, self._clock.now() + shortest_s)
        self._is_eager = eagerly
        is_due = self._clock.now() >= self._ask_at_s or (now and shortest_s <= ASK_S[0])
        if not is_due or self._courier.is_at("ask"):
            return
        if eagerly and self._site.share_is_local:
            longest_s = min(longest_s, EAGER_ASK_S)
        self._ask_pause_s = min(1.5 * self._ask_pause_s, longest_s)
        self._ask_at_s = self._clock.now() + self._ask_pause_s
        is_unanswered = self._wish is not None and not self._courier.is_at("place")
        ids = self.unfinished + ([self._wish[0]] if self._wish and is_unanswered else [])
        if ids:
            self._courier.send("ask", lambda engine: engine.poll(ids), self._told, self._not_told)

    def _told(self, answers: Mapping[NativeId, PlacementStatus]) -> None:
        self._troubles.pop("ask", None)
        wish, n_wished = self._wish or ("", 0)
        for native, told in answers.items():
            status = _at_most(told, self._asked.get(native, told.n_workers))
            if native == wish:
                if status.state is PlacementState.UNKNOWN:
                    continue
                self._accepted(native, n_wished, None)  # only the answer to our request was lost
            self.statuses[native] = status
            is_gone = status.state in (PlacementState.ENDED, PlacementState.UNKNOWN)
            if is_gone and self._is_fruitless(native):
                self._bad[native] = status

    def _not_told(self, error: EngineError) -> None:
        self._note_trouble("ask", error)
        self._ask_at_s = self._clock.now() + self._ask_pause_s

    def _note_trouble(self, what: str, error: EngineError) -> None:
        _, since_s = self._troubles.get(what, (error, self._clock.now()))
        self._troubles[what] = (error, since_s)

    def _is_fruitless(self, native: NativeId) -> bool:
        """Whether there has been no outcome, by anybody, since it was placed."""
        return native[:8] not in self._excused and self._n_outcomes_at.get(native, 0) == self._n_outcomes

    def excuse(self, worker: str) -> None:
        """Forgive the placement of a worker that was lost with a lease: that counts against its tasks."""
        placement = worker.partition("-")[0]
        self._excused.add(placement)
        self._bad = {native: each for native, each in self._bad.items() if native[:8] != placement}

    def end(self) -> bool:
        """Wish all workers gone, repeatedly but not too often; False while another word is on its way."""
        ids = self.unfinished + ([self._wish[0]] if self._wish else [])
        if not ids or self._clock.now() < self._end_at_s:
            return True
        if not self._courier.send(
            "end",
            lambda engine: engine.cancel(ids),
            lambda _: None,
            lambda error: self._note_trouble("ask", error),
        ):
            return self._site.engine is None
        self._end_at_s = self._clock.now() + max(END_S, self._pauses_s[0])
        return True

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

    @property
    def _pauses_s(self) -> tuple[float, float]:
        """The shortest and the longest pause between two questions."""
        if self._site.engine is None:
            return ASK_S
        engine = self._site.engine()
        return engine.ask_s if isinstance(engine, AskedRarely) else ASK_S

    def _recover(self) -> None:
        """Know what earlier clients of this job placed."""
        for name in files.names(self._paths.placements):
            text = files.read_link(f"{self._paths.placements}/{name}") if _ID.fullmatch(name) else None
            if text is None or not text.isdecimal():
                continue  # a file system's own name, or not readable yet
            count = int(text)
            self.statuses[NativeId(name)] = PlacementStatus(state=PlacementState.PENDING, n_workers=count)
            self._asked[NativeId(name)] = count
            self._n_placed += count


def _at_most(status: PlacementStatus, n_asked: int) -> PlacementStatus:
    """What an engine says, without workers that nobody has asked for."""
    if status.n_workers <= n_asked:
        return status
    n_ended = n_asked - min(status.n_workers - status.n_ended, n_asked)
    return replace(status, n_workers=n_asked, n_ended=n_ended, n_errored=min(status.n_errored, n_ended))
