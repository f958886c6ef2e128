"""One lease while it is held: its outcomes so far, publishing them, handing back what is left.

Invariants: ``published <= len(out) <= len(todo)`` except between an append and
the end of a taken-back cut; entry ``k`` is created by us or not at all; once an
entry of somebody else is met, nothing is published any more.
"""

import socket
import threading
from array import array
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.model import Failure
from golem_magic.share import files, outcome_files
from golem_magic.share.layout import JobPaths, Lease
from golem_magic.share.outcome_files import Spent
from golem_magic.worker.patience import patiently

ENTRY_ROOM = 1 << 20  # publish on the way whenever about so many bytes of outcomes have gathered


HOST = socket.gethostname()
Value = TypeVar("Value")


class RevokedError(Exception):
    """Somebody closed this lease; what is not published belongs to others now."""


class Tenure:
    """Outcomes of tasks ``[base, base + len(todo))`` of a lease.

    Attributes:
        todo: Inputs, shortened from behind when a part is handed back.
        out: Values, in order; its length says which task is running. None stands
            where ``errors`` has a failure, and for what is published already.
        errors: Failures by position in ``out``.
        spent: Seconds that each took, by position in ``out``; what is missing is told as a mean.
        is_marked: Whether each task is timed.
        bound: Positions before it are not handed back: nobody else knows which were tried enough.
        published: How many outcomes are on the share.
        mean_bytes: Size of one published outcome, 0 before the first.
        frame_bytes: Size of everything published.
        n_failed: Failures among what is published.
    """

    def __init__(  # noqa: PLR0913 - one lease with all that is known of it, made in one place
        self,
        paths: JobPaths,
        lease: Lease,
        signature: str,
        clock: Clock,
        leaving: Callable[[], bool],
        *,
        base: int,
        todo: list[Any],
        next_entry: int = 0,
        on_failure: Callable[[int, Any, Failure], None] | None = None,
    ) -> None:
        self._paths = paths
        self._name = str(lease)
        self._signature = signature
        self._leaving = leaving
        self._clock = clock
        self._next_entry = next_entry
        self._on_failure = on_failure
        self.lease = lease
        self.base = base
        self.todo = todo
        self.out: list[Any] = []
        self.errors: dict[int, Failure] = {}
        self.spent: list[float] = []
        self.is_marked = False
        self.published = self.bound = 0
        self.frame_bytes = 0
        self.n_failed = 0
        self.revoked = False
        self.lock = threading.Lock()
        self.started_s = self.published_s = clock.now()

    @property
    def mean_bytes(self) -> float:
        """Bytes per published outcome."""
        return self.frame_bytes / self.published if self.published else 0.0

    def publish(self, upto: int, unpicklable: Callable[[BaseException], Failure] | None) -> None:
        """Put the outcomes before position ``upto`` on the share; the caller holds the lock.

        Args:
            upto: Position behind the last outcome to publish.
            unpicklable: Makes the failure of a value that cannot be pickled. None while a
                task runs, which may be changing what an earlier one returned: then
                nothing is published.

        Raises:
            RevokedError: The lease is closed; the outcomes are dropped.
            Exception: Whatever pickling raises, without ``unpicklable``.
        """
        first = self.published
        if upto <= first:
            return
        if self.revoked:
            raise RevokedError
        values = self.out[first:upto]
        errors = {at - first: failure for at, failure in self.errors.items() if first <= at < upto}
        frame = _outcomes(values, errors, self._spent(first, upto), unpicklable)
        counts = (upto - first, len(errors))
        target = self._patiently(
            lambda: outcome_files.write(self._paths, self.base + first, frame, counts, self._signature)
        )
        try:
            self._enter(target)
        except RevokedError:
            outcome_files.remove(self._paths, target)
            raise
        self.published = upto
        self.published_s = self._clock.now()
        self.frame_bytes += frame.size
        self.n_failed += len(errors)
        if self._on_failure is not None:
            for at, failure in errors.items():
                self._on_failure(self.base + first + at, self.todo[first + at], failure)
        self.out[first:upto] = [None] * (upto - first)  # big values need not wait for the lease's end

    def _spent(self, first: int, upto: int) -> Spent:
        seconds = self.spent[first:upto]
        if len(seconds) < upto - first:  # a batch of very short tasks, or one that has ended just now
            mean_s = (self._clock.now() - self.published_s - sum(seconds)) / (upto - first - len(seconds))
            if not seconds:
                return HOST, mean_s
            seconds += [mean_s] * (upto - first - len(seconds))
        return HOST, seconds[0] if len(seconds) == 1 else array("f", seconds).tobytes()

    def cut(self, keep: int) -> tuple[int, int] | None:
        """Hand back all tasks from position ``keep`` on, unless the runner is already there.

        Returns:
            The tasks that are free now; None if nothing could be handed back.

        Raises:
            RevokedError: The lease is closed.
        """
        if self.revoked or len(self.todo) <= keep:
            return None
        tail = self.todo[keep:]
        del self.todo[keep:]
        if len(self.out) >= keep:  # the runner may have got past the cut: take it back
            self.todo.extend(tail)
            return None
        start = self.base + keep
        self._enter(f"cut:{start}")
        return start, start + len(tail)

    def _enter(self, target: str) -> None:
        path = f"{self._paths.rounds}/{self._name}+{self._next_entry}"
        if not self._patiently(lambda: files.link(target, path)):
            self.revoked = True
            del self.todo[len(self.out) :]  # what is left belongs to others: do not compute it in vain
            raise RevokedError
        self._next_entry += 1

    def _patiently(self, step: Callable[[], Value]) -> Value:
        return patiently(step, self._clock, self._leaving)


def _outcomes(
    values: list[Any],
    errors: dict[int, Failure],
    spent: Spent,
    unpicklable: Callable[[BaseException], Failure] | None,
) -> payload.Frame:
    """Pickle outcomes; a value that cannot be pickled becomes a failure of its own task."""
    try:
        return payload.dump((values, errors, spent))
    except Exception:  # a user's object may raise anything; each is tried alone below
        if unpicklable is None:
            raise
        for position, value in enumerate(values):
            try:
                payload.dump(value)
            except Exception as error:  # noqa: BLE001 - as above; it is the outcome
                errors[position] = _explained(unpicklable(error), value, error)
                values[position] = None
    return payload.dump((values, errors, spent))


def _explained(failure: Failure, value: object, error: Exception) -> Failure:
    """The same failure, saying what in the result cannot be pickled, and how one gets to it."""
    from golem_magic.payload import culprit  # needed only now, by few workers

    try:
        return replace(failure, message=culprit.located(value, error)[0])
    except Exception:  # noqa: BLE001 - anybody's objects; what pickling raised is told anyway
        return failure
