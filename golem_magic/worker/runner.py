"""The process that runs the user's function: claim, run, publish, until nothing is left.

Two threads. The main one runs tasks; the other looks every few milliseconds
whether outcomes should be published before the lease ends, whether the lease
is late and part of it should be handed to others, and whether to leave.
"""

import math
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from time import monotonic_ns
from typing import Any

from golem_magic import payload
from golem_magic.clock import Clock
from golem_magic.model import Failure, WorkerId, qualified_name
from golem_magic.pacing import Pace, publish_s
from golem_magic.share import outcome_files
from golem_magic.share.book import LeaseLog
from golem_magic.share.inputs_log import InputReader
from golem_magic.share.jobs import Manifest, ask_to_cancel
from golem_magic.share.layout import JobPaths, SharePaths
from golem_magic.worker import error_log
from golem_magic.worker.calls import Call, Calls, Unreadable, raise_unreadable, reading
from golem_magic.worker.claims import Claims
from golem_magic.worker.page import LOADING, NONE, SETUP, Page
from golem_magic.worker.patience import number_of, patiently
from golem_magic.worker.tenure import ENTRY_ROOM, RevokedError, Tenure

WATCH_S = (0.01, 1.0)  # how often the second thread looks: on a quick and on a slow share
MARK_S = 20e-6  # tasks that take longer are marked singly on the page; the mark costs 40 ns
_TASK_WORD, _BEGAN_WORD = 1, 4  # where Page keeps the running task and when it began
RETRY_PAUSE_S = (0.1, 5.0)  # before a task is tried again, growing; chosen by feel
OURS = "golem_magic.worker."  # frames of these modules are not the user's business


class Runner:
    """Runs tasks of one job in this process, until there is nothing left for it."""

    def __init__(  # noqa: PLR0913 - what a worker is, handed over once by the keeper
        self,
        share: SharePaths,
        paths: JobPaths,
        manifest: Manifest,
        worker: WorkerId,
        signature: str,
        number: int,
        page: Page,
        clock: Clock,
    ) -> None:
        self._paths = paths
        self._manifest = manifest
        self._worker = worker
        self._page = page
        self._clock = clock
        self._host = socket.gethostname()
        self._inputs = InputReader(paths)
        self._calls = Calls(share, manifest, clock, self._is_leaving)
        self._claims = Claims(paths, manifest, self._inputs, clock, self._is_leaving, signature, number)
        self._signature = signature
        self._keeper = os.getppid()
        self._born_s = clock.now()
        self._pace = Pace()
        self._current: Tenure | None = None
        self._over = threading.Event()
        self._has_unreadable = False

    def run(self, resume: LeaseLog | None = None, condemned: dict[int, Failure] | None = None) -> None:
        """Work until nothing is left.

        Args:
            resume: The lease that a runner before this one died on.
            condemned: Outcomes of tasks that have ended their process too often
                and are not tried again, by task index.
        """
        watch = threading.Thread(target=self._watch, name="golem-watch", daemon=True)
        watch.start()
        if resume is not None and self._is_set_up():
            self._hold(resume, condemned or {}, careful=True)
        while not self._page.leave and self._is_set_up():
            before = self._clock.now()
            lease = self._claims.next(self._pace)
            if lease is None:
                break
            claimed_s = self._clock.now() - before
            log = LeaseLog(lease, self._worker)
            self._hold(log, {}, careful=lease.generation > 1, claimed_s=claimed_s)
        self._over.set()
        watch.join()

    def _is_set_up(self) -> bool:
        """Call the set-up function if that has not been done; if it raises, the job cannot be done."""
        self._page.task = SETUP
        try:
            self._calls.set_up()
        except BaseException as error:  # noqa: BLE001 - whatever the user's function raises is the reason
            failure = self._failure("raised", error)
            patiently(
                lambda: outcome_files.write_fatal(self._paths, self._worker, failure),
                self._clock,
                self._is_leaving,
            )
            self._page.leave = True
            return False
        finally:
            self._page.task = NONE
        return True

    def _is_leaving(self) -> bool:
        return self._page.leave

    def _tenure(self, log: LeaseLog, *, is_hopeless: bool) -> Tenure:
        """Begin with a lease; the inputs of one whose every task is condemned may be why, and stay unread."""
        base, end, path = log.done_to, log.end, self._manifest.error_log
        return Tenure(
            self._paths,
            log.lease,
            self._signature,
            self._clock,
            self._is_leaving,
            base=base,
            todo=[error_log.NOT_LOADED] * (end - base) if is_hopeless else self._load_inputs(base, end),
            next_entry=log.next_entry,
            on_failure=partial(error_log.append, path, self._manifest) if path else None,
        )

    def _load_inputs(self, base: int, end: int) -> list[Any]:
        """Inputs of tasks; trouble with the share passes or ends this runner, and is no task's outcome."""
        try:
            self._claims.wait_for_inputs(end)
            self._page.task = LOADING
            return patiently(lambda: self._inputs.tasks(base, end), self._clock, self._is_leaving)
        except Exception as error:
            if number_of(error) is not None:
                raise
            middle = self._inputs.end_of_block(base)
            if middle < end:  # blocks fail each for itself
                return self._load_inputs(base, middle) + self._load_inputs(middle, end)
            self._has_unreadable = True
            return [Unreadable(error)] * (end - base)  # damaged, or its own unpickling raised
        finally:
            self._page.task = NONE

    def _hold(
        self, log: LeaseLog, condemned: dict[int, Failure], *, careful: bool, claimed_s: float = 0.0
    ) -> None:
        """Run one lease to its end, publish, and learn from it."""
        self._page.lease = str(log.lease)  # before its inputs are loaded, which may take long
        span = range(log.done_to, log.end)
        condemned = {index: condemned[index] for index in span if index in condemned} if condemned else {}
        tenure = self._tenure(log, is_hopeless=len(condemned) == len(span))
        tenure.bound = max(condemned) - tenure.base + 1 if condemned else 0
        self._current = tenure
        started = self._clock.now()
        try:
            self._run_all(tenure, condemned, careful=careful)
            ended = self._clock.now()
            self._page.task = NONE  # trouble while publishing is not the last task's
            with tenure.lock:
                self._current = None
                self._publish(tenure, len(tenure.out), self._unpicklable)
            self._learn(tenure, ended - started, claimed_s + self._clock.now() - ended)
        except RevokedError:
            self._current = None
        self._page.clear()

    def _run_all(self, tenure: Tenure, condemned: dict[int, Failure], *, careful: bool) -> None:
        todo, out = tenure.todo, tenure.out
        task_s = self._pace.task_s
        marked = careful or self._manifest.timeout_s is not None or task_s is None or task_s >= MARK_S
        tenure.is_marked = marked
        run = self._run_marked if marked else self._run_fast
        call = reading(self._calls.call) if self._has_unreadable else self._calls.call
        tasks: Iterator[Any] | None = None
        while True:
            failure = condemned.pop(tenure.base + len(out), None)
            if failure is not None:
                self._fail(tenure, failure)
            else:
                try:
                    if condemned:  # one by one up to the last of them
                        tasks = iter(todo[len(out) : len(out) + 1])
                    tasks = tasks or islice(todo, len(out), None)
                    run(tenure, call, tasks)
                except BaseException as error:  # noqa: BLE001 - whatever the user's function raises is the outcome
                    self._settle(tenure, call, error)
                    continue
            self._page.task = NONE  # what is done is not late, however long the share takes
            with tenure.lock:
                if len(out) >= len(todo) or tenure.revoked:
                    return
                if len(out) - tenure.published >= self._entry_room(tenure):
                    self._publish(tenure, len(out), self._unpicklable)
            tasks = None  # a cut was taken back, or it was time to publish

    def _settle(self, tenure: Tenure, call: Call, error: BaseException) -> None:
        """Give the task that raised its outcome: of another try, where those are wanted, or the failure."""
        attempt, pause_s = 1, RETRY_PAUSE_S[0]
        index = tenure.base + len(tenure.out)
        while attempt <= self._manifest.retries and self._is_worth_a_retry(error):
            self._page.task = NONE  # a pause is nobody's time
            self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_PAUSE_S[1])
            if self._page.leave:  # the tries that are left belong to whoever goes on with this lease
                with tenure.lock:
                    del tenure.todo[len(tenure.out) :]
                return
            value = self._fresh_input(index)
            attempt += 1
            try:
                self._mark(index)
                if type(value) is Unreadable:
                    raise_unreadable(value)
                tenure.out.append(call(value))
                self._note_spent(tenure)
            except BaseException as another:  # noqa: BLE001 - as for the first try
                error = another
            else:
                return
        self._fail(tenure, self._failure("raised", error, attempt))

    def _fail(self, tenure: Tenure, failure: Failure) -> None:
        """Make this the outcome of the task that comes next; tell it at once where it stops the job."""
        tenure.errors[len(tenure.out)] = failure
        tenure.out.append(None)
        self._note_spent(tenure, failure)
        self._page.task = NONE
        if self._manifest.on_error == "stop":
            with tenure.lock:
                self._publish(tenure, len(tenure.out), self._unpicklable)

    def _publish(
        self, tenure: Tenure, upto: int, unpicklable: Callable[[BaseException], Failure] | None
    ) -> None:
        """Put outcomes on the share; a failure among them may be the end of the job."""
        tenure.publish(upto, unpicklable)
        if tenure.n_failed and self._manifest.on_error == "stop":
            patiently(lambda: ask_to_cancel(self._paths), self._clock, self._is_leaving)

    def _fresh_input(self, index: int) -> Any:
        """An input as it was sent: the try that failed may have changed its copy."""
        self._inputs.forget()
        return self._load_inputs(index, index + 1)[0]

    def _note_spent(self, tenure: Tenure, failure: Failure | None = None) -> None:
        """How long the task took that has its outcome now, where that is known of those before it too.

        Of a task that died with another runner, nobody has measured it.
        """
        if tenure.is_marked and len(tenure.spent) == len(tenure.out) - 1:
            is_ours = failure is None or failure.kind in ("raised", "unpicklable")
            spent_s = (monotonic_ns() - self._page.began_ns) * 1e-9
            tenure.spent.append(spent_s if is_ours else math.nan)

    def _mark(self, index: int) -> None:
        """Note which task begins now."""
        self._page.marks[_BEGAN_WORD] = monotonic_ns()
        self._page.task = index

    def _is_worth_a_retry(self, error: BaseException) -> bool:
        if not self._manifest.retry_on:
            return isinstance(error, Exception)
        return any(qualified_name(kind) in self._manifest.retry_on for kind in type(error).__mro__)

    def _run_fast(self, tenure: Tenure, call: Call, tasks: Iterator[Any]) -> None:
        append = tenure.out.append
        self._page.task = NONE
        for value in tasks:
            append(call(value))

    def _run_marked(self, tenure: Tenure, call: Call, tasks: Iterator[Any]) -> None:
        """Return early when it is time to publish: trouble there must not look like a task's."""
        out, spent, marks, base = tenure.out, tenure.spent, self._page.marks, tenure.base
        room = self._entry_room(tenure)
        for value in tasks:
            began_ns = marks[_BEGAN_WORD] = monotonic_ns()
            marks[_TASK_WORD] = base + len(out)
            out.append(call(value))
            spent.append((monotonic_ns() - began_ns) * 1e-9)
            if len(out) - tenure.published >= room:
                return

    def _entry_room(self, tenure: Tenure) -> float:
        """How many outcomes make one publication."""
        mean = tenure.mean_bytes or self._pace.outcome_bytes
        return max(1.0, ENTRY_ROOM / mean) if mean else float("inf")

    def _learn(self, tenure: Tenure, busy_s: float, share_s: float) -> None:
        self._pace = Pace(
            task_s=max(busy_s / max(len(tenure.out), 1), 1e-8),
            share_s=0.7 * self._pace.share_s + 0.3 * share_s,
            outcome_bytes=tenure.mean_bytes,
            age_s=self._clock.now() - self._born_s,
        )

    def _watch(self) -> None:
        """Publish and hand back while a lease is late."""
        counted: tuple[Tenure | None, int] = (None, 0)
        while not self._over.wait(min(max(20 * self._pace.share_s, WATCH_S[0]), WATCH_S[1])):
            if os.getppid() != self._keeper:  # where the system did not end us with it
                os._exit(1)
            tenure = self._current
            if tenure is None or tenure.revoked:
                continue
            count = len(tenure.out)
            moved = count - counted[1] if counted[0] is tenure else count
            counted = (tenure, count)
            try:
                with tenure.lock:
                    if self._current is tenure:
                        self._look_after(tenure, count, moved)
            except RevokedError:
                pass
            except Exception as error:  # noqa: BLE001 - tried again at the next look, and at the lease's end
                sys.stderr.write(f"golem_magic worker: could not publish on the way: {error!r}\n")

    def _look_after(self, tenure: Tenure, count: int, moved: int) -> None:
        now = self._clock.now()
        expected_s = (self._pace.task_s or 0.0) * len(tenure.todo)
        late = now - tenure.started_s >= max(2 * expected_s, 2 * WATCH_S[0])
        is_due = self._page.leave or now - tenure.published_s >= publish_s(self._pace)
        if is_due or (late and not moved):
            self._publish(tenure, count, None)
        if late or self._page.leave:
            keep = count + 1 + (0 if self._page.leave else 2 * moved)  # what may start meanwhile stays ours
            free = tenure.cut(max(keep, tenure.bound))
            if free is not None:
                self._claims.released(*free, tenure.lease)

    def _unpicklable(self, error: BaseException) -> Failure:
        return self._failure("unpicklable", error)

    def _failure(self, kind: Any, error: BaseException, attempt: int = 1) -> Failure:
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals.get("__name__", "").startswith(OURS):
            frames = frames.tb_next
        shown = "".join(traceback.format_exception(type(error), error, frames))
        return Failure(
            kind=kind,
            exception=_pickled(error),
            type_name=type(error).__qualname__,
            message=_text(error),
            traceback=shown,
            host=self._host,
            worker=self._worker,
            attempt=attempt,
        )


def _pickled(error: BaseException) -> bytes | None:
    try:
        return b"".join(payload.dump(error).parts)
    except Exception:  # noqa: BLE001 - an exception may carry anything; its text travels anyway
        return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as another:  # noqa: BLE001 - a broken __str__ must not spoil the outcome
        return f"(its message cannot be shown: {another!r})"
