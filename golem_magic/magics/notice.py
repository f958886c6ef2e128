"""The one line about jobs that nobody minds, said once in the life of a kernel.

It comes after the first cell that uses the magics and not before, so kernels start no slower and the
first map is not kept waiting. The share is looked at in a thread: one that hangs costs the line,
nothing else.
"""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from golem_magic.model import JobSnapshot, JobState
from golem_magic.settings import load_settings

PATIENCE_S = 0.05  # what a cell waits for the line at most; else it comes after a later one
WORDS = {
    JobState.RUNNING: "running",
    JobState.QUEUED: "queued",
    JobState.STAGING: "cut short while its inputs were drawn",
    JobState.DONE: "finished and unread",
    JobState.FAILED: "failed and unread",
}


class Notice:
    """Looks once and says once.

    Args:
        find: Gives the jobs that nobody minds; called in a thread, may take long and may raise.
    """

    def __init__(self, find: Callable[[], Sequence[JobSnapshot]]) -> None:
        self._find = find
        self._line = ""
        self._is_wanted = self._is_over = False
        self._thread: threading.Thread | None = None
        self._has_seen_a_start = False

    def want(self) -> None:
        """The magics are being used."""
        self._is_wanted = True

    def drop(self) -> None:
        """The user is told of all jobs anyway."""
        self._is_over = True

    def cell_begins(self, _info: object = None) -> None:
        """Learn that we were there before this cell: it is not the one that loads us."""
        self._has_seen_a_start = True

    def cell_ends(self, _result: object = None) -> None:
        """Say the line under this cell if it is time for it; a cell that has loaded us wants it."""
        if self._is_over or not (self._is_wanted or not self._has_seen_a_start):
            return
        self._is_wanted = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="golem-magic-notice", daemon=True)
            self._thread.start()
            self._thread.join(PATIENCE_S)
        if not self._thread.is_alive():
            self._is_over = True
            sys.stdout.write(self._line)

    def _look(self) -> None:
        try:
            self._line = line(self._find())
        except Exception:  # noqa: BLE001 - whoever uses the jobs is told what is wrong; no line is owed
            self._line = ""


def on_the_share() -> Sequence[JobSnapshot]:
    """The jobs on the share of the moment that nobody minds."""
    from golem_magic.unattended import unattended  # with pickling, in the thread

    share = load_settings().share
    return unattended(share) if share is not None else ()


def line(jobs: Sequence[JobSnapshot]) -> str:
    """Put it in words; empty if there is nothing to say."""
    if not jobs:
        return ""
    counts = Counter(job.state for job in jobs)
    parts = ", ".join(f"{counts[state]} {words}" for state, words in WORDS.items() if counts[state])
    what = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    return f"{what} of yours: {parts} - %golem jobs lists them, %golem attach JOB gets results\n"
