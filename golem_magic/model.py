"""The nouns: ids, states and frozen records that several rooms speak of."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, NamedTuple, NewType

JobId = NewType("JobId", str)
WorkerId = NewType("WorkerId", str)
NativeId = NewType("NativeId", str)
Digest = NewType("Digest", str)

OnError = Literal["raise", "return", "skip", "stop"]
Keep = Literal["all", "unread"]


class JobState(StrEnum):
    """Where a job stands; the order is that of its life."""

    STAGING = "staging"  # inputs are being drawn, nothing is placed yet
    QUEUED = "queued"  # placed, no worker has come yet
    RUNNING = "running"
    DONE = "done"  # every task has an outcome, errors included
    FAILED = "failed"  # given up: tasks without an outcome remain
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no further outcome can come."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class PlacementState(StrEnum):
    """What an engine says of one placement. Unknown is a state, not a failure."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementStatus:
    """An engine's answer about one placement.

    Attributes:
        state: Of the placement as a whole.
        n_workers: Workers asked for.
        n_ended: Workers that have ended, whichever way.
        n_errored: Of these, the ones that ended badly.
        reason: The engine's own words, if it gave any.
    """

    state: PlacementState
    n_workers: int = 0
    n_ended: int = 0
    n_errored: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """A request for worker processes: all that an engine ever learns of a job.

    Attributes:
        argv: Program and arguments; the engine appends what identifies the worker.
        count: Processes to start, >= 1.
        native_id: The id we wish the placement to have, so that asking twice places once.
        label: Free text shown with the placement.
        owner: Free text shown with the placement.
    """

    argv: tuple[str, ...]
    count: int
    native_id: NativeId
    label: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine as an engine sees it: its slots, and how many of them are taken, by whomever."""

    host: str
    n_slots: int
    n_running: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MapOptions:
    """How one map is to be run; both entrances build it at once and pass it on whole.

    Attributes:
        common: Data every task gets as its second argument, if ``has_common``.
        chunk_size: Tasks per lease; None lets the length follow the measured speed.
        on_error: What an iterator does at a task that failed.
        workers: How many to place; None asks the engine.
        label: Free text shown with the job.
        star: Unpack each input into positional arguments.
        kwargs: Unpack each input, a mapping, into arguments by name.
        unordered: Iterate in the order in which outcomes come.
        timeout_s: Longest time a task may take, in seconds; None for no limit.
        setup: Called once per worker; its value is every task's last argument. None for no set-up.
        retries: How often a task that raised is tried again.
        retry_on: Qualified names of the exceptions worth another try; empty for any Exception.
        stream: Draw inputs in a thread, a window ahead of the work, instead of all at once.
        keep: ``unread`` frees a result once the iterator has passed it.
        disk_budget: Bytes of results on the share that nobody has read; None for no limit.
        error_log: File, an absolute path, to which workers append each failure; None for none.
        memory_bytes: Most memory of one worker, the processes of its tasks included; None for no limit.
        reuse: Give results of a job that is the same and runs, if this process follows one.
    """

    common: Any = None
    has_common: bool = False
    chunk_size: int | None = None
    on_error: OnError = "raise"
    workers: int | None = None
    label: str = ""
    star: bool = False
    kwargs: bool = False
    unordered: bool = False
    timeout_s: float | None = None
    setup: Callable[[], Any] | None = None
    retries: int = 0
    retry_on: tuple[str, ...] = ()
    stream: bool = False
    keep: Keep = "all"
    disk_budget: int | None = None
    memory_bytes: int | None = None
    error_log: str | None = None
    reuse: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """A round: tasks ``[start, end)`` cut into slots of ``length`` tasks, the last one maybe shorter."""

    start: int
    length: int
    slots: int
    end: int

    def slot(self, number: int) -> tuple[int, int] | None:
        """Give the range of a slot, or None if it lies behind the end."""
        first = self.start + number * self.length
        return (first, min(first + self.length, self.end)) if first < self.end else None

    def ranges(self) -> list[tuple[int, int]]:
        """Give all ranges, in order."""
        return [(a, min(a + self.length, self.end)) for a in range(self.start, self.end, self.length)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The outcome of a task that gave no value.

    Attributes:
        kind: ``raised`` by the function, ``unpicklable`` result, ``died`` with its worker, ended by
            its ``timeout``, or ``unloadable``: its value is on the share and cannot be loaded here.
        exception: The pickled exception, None where it cannot be pickled.
        type_name: Qualified name of the exception's type.
        message: ``str()`` of the exception.
        traceback: Remote traceback as text, frames of the worker itself left out.
        host: Machine it happened on.
        worker: Id of the worker.
        attempt: How often the task had been tried, counted from 1.
    """

    kind: Literal["raised", "unpicklable", "died", "timeout", "unloadable"]
    exception: bytes | None
    type_name: str
    message: str
    traceback: str
    host: str
    worker: str
    attempt: int = 1

    @property
    def summary(self) -> str:
        """One line: type and message."""
        first_line = self.message.strip().partition("\n")[0]
        return f"{self.type_name}: {first_line}" if first_line else self.type_name


class Timing(NamedTuple):
    """What one task took.

    Attributes:
        task: Its index.
        seconds: From its beginning to its end, of the try that counts; the mean of its neighbours where
            tasks are too short to be timed one by one, NaN where nobody knows.
        host: Machine that it ran on, empty where nobody knows.
        worker: Worker that published its outcome.
    """

    task: int
    seconds: float
    host: str
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnapshot:
    """A picture of a job, true at one moment, that never changes afterwards.

    Attributes:
        function: Name of the mapped function.
        n_tasks: Number of inputs; None while they are still being drawn.
        n_staged: Inputs drawn so far.
        n_done: Tasks with a value.
        n_failed: Tasks whose outcome is an error.
        n_running: Workers that hold tasks now, each at one of them.
        n_retried: Times that a task which had failed was asked to be run again.
        n_workers_lost: Workers that fell silent or died whole, so that others got their tasks.
        last_takeover: The last of them, and the worker that went on with its tasks.
        n_workers: Workers seen alive.
        elapsed_s: Seconds since submission, standing still once the job is final.
        first_failure: ``(task index, one line)`` of the failed task with the lowest index known.
        note: Something the user should know now, such as why nothing starts.
        is_unread: It has ended, and nobody was handed outcomes since, as far as its folder tells.
    """

    job_id: JobId
    function: str
    label: str
    state: JobState
    n_tasks: int | None
    n_staged: int
    n_done: int
    n_failed: int
    n_running: int
    n_workers: int
    elapsed_s: float
    first_failure: tuple[int, str] | None = None
    note: str = ""
    n_retried: int = 0
    n_workers_lost: int = 0
    last_takeover: tuple[str, str] | None = None
    is_unread: bool = False

    @property
    def n_lost(self) -> int:
        """Tasks that will get no outcome: the job was over before they had one."""
        return self.n_waiting if self.state.is_final else 0

    @property
    def n_waiting(self) -> int:
        """Tasks drawn that neither have an outcome nor run."""
        return max(0, self.n_staged - self.n_done - self.n_failed - self.n_running)


def qualified_name(kind: type) -> str:
    """A class's name with its module, as both sides call it."""
    return f"{kind.__module__}.{kind.__qualname__}"


SnapshotSource = Callable[[], JobSnapshot]
