"""Words to the engine, carried in threads of their own.

A master may take ten seconds to say nothing. Meanwhile results come in on the
share, and the dispatcher's thread must be free to see them.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from golem_magic.clock import Clock
from golem_magic.dispatcher.site import Site
from golem_magic.engines.base import Engine
from golem_magic.errors import EngineError

Answer = TypeVar("Answer")
Errand = Literal["place", "ask", "end", "nodes", "roll"]


@dataclass(slots=True)
class _Trip:
    """One word on its way, and what came of it."""

    word: Callable[[Engine], Any]
    then: Callable[[Any], None]
    failed: Callable[[EngineError], None]
    began_s: float
    is_over: threading.Event
    answer: Any = None
    error: Exception | None = None


class Courier:
    """Carries one word of each kind at a time; used by the dispatcher's thread alone.

    The engine's lock keeps the words apart, so one may wait for another.
    """

    def __init__(self, site: Site, clock: Clock) -> None:
        self._site = site
        self._clock = clock
        self._trips: dict[Errand, _Trip] = {}

    def is_at(self, errand: Errand) -> bool:
        """Whether a word of this kind is on its way, or its answer not collected."""
        return errand in self._trips

    @property
    def busy_s(self) -> float:
        """For how long the oldest word has been on its way, 0 if there is none."""
        return max((self._clock.now() - trip.began_s for trip in self._trips.values()), default=0.0)

    def send(
        self,
        errand: Errand,
        word: Callable[[Engine], Answer],
        then: Callable[[Answer], None],
        failed: Callable[[EngineError], None] = lambda _: None,
    ) -> bool:
        """Have a word carried; False, and nothing done, while another of its kind is, or without an engine.

        Args:
            errand: Its kind.
            word: Called with the engine, in another thread.
            then: Called with its answer, by :meth:`collect`.
            failed: Called with its error instead.
        """
        if errand in self._trips or self._site.engine is None:
            return False
        trip = self._trips[errand] = _Trip(word, then, failed, self._clock.now(), threading.Event())
        name = f"golem-courier-{errand}"
        threading.Thread(target=self._carry, args=(trip,), name=name, daemon=True).start()
        return True

    def collect(self) -> None:
        """Hand the answers that have come to whoever asked.

        Raises:
            Exception: What an engine should not raise.
        """
        for errand, trip in list(self._trips.items()):
            if not trip.is_over.is_set():
                continue
            del self._trips[errand]
            if trip.error is None:
                trip.then(trip.answer)
            elif isinstance(trip.error, EngineError):
                trip.failed(trip.error)
            else:
                raise trip.error

    def _carry(self, trip: _Trip) -> None:
        try:
            assert self._site.engine is not None
            with self._site.lock:
                trip.answer = trip.word(self._site.engine())
        except Exception as error:  # noqa: BLE001 - raised where the answer is collected
            trip.error = error
        finally:
            trip.is_over.set()
