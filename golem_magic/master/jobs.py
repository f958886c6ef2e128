"""What the embedded Golem knows of a job and of a task."""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

from golem_magic.master.taskfiles import TaskFiles

PLACEMENT = "golemize"  # the type that our client gives to the jobs which place its workers


class Refused(Exception):  # noqa: N818 - an answer to a request, not a fault of ours
    """A request that is answered with an error status, one line of text and maybe further headers."""

    def __init__(self, status: int, text: str, extra: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.extra = extra


@dataclass(frozen=True, slots=True)
class Line:
    """One command line of a submission and how often it is to run."""

    count: int
    args: tuple[str, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class Task:
    """One run of one command line, from being handed out to its end.

    Attributes:
        key: Its number in this master, by which the zygote speaks of it.
        line: Index of its line in the job.
        number: Running number in the job, across all lines.
        begun_s: When it was handed out, on the monotonic clock.
        pid: Its process, leader of a session of its own; None until the zygote has told.
        is_worker: Whether it is a fork of ours, which leaves politely when sent SIGTERM.
        is_leaving: Whether it has been asked to leave in favour of another job.
        files: What it prints, and the note about its process; None before it has any.
        copied: How much of what it has printed, by kind, was added to its job's output.
    """

    key: int
    job: "Job"
    line: int
    number: int
    begun_s: float
    pid: int | None = None
    is_worker: bool = False
    is_leaving: bool = False
    files: TaskFiles | None = None
    copied: dict[str, int] = field(default_factory=lambda: {"out": 0, "err": 0})

    @property
    def args(self) -> tuple[str, ...]:
        """The command as submitted."""
        return self.job.lines[self.line].args

    @property
    def identity(self) -> list[str]:
        """The three arguments that are appended to every command: job, line, task."""
        return [self.job.job_id, str(self.line), str(self.number)]


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """A submission: its command lines, how far they were handed out, and how they ended.

    Attributes:
        n_taken: So many tasks, from the first, have been handed out,
        again: except these, which an earlier master handed out but which never started.
    """

    job_id: str
    label: str
    owner: str
    kind: str
    lines: Sequence[Line]
    total: int = field(init=False)
    finished: int = 0
    errored: int = 0
    is_stopped: bool = False
    is_killed: bool = False
    n_being_killed: int = 0  # threads that still look for processes of this job
    running: dict[int, Task] = field(default_factory=dict)
    forget_at_s: float | None = None
    created: str = field(default_factory=lambda: _now())
    modified: str = ""
    n_taken: int = 0
    again: list[int] = field(default_factory=list)
    _ends: list[int] = field(init=False)  # the number behind each line's last task

    def __post_init__(self) -> None:
        self._ends = list(accumulate(line.count for line in self.lines))
        self.total = self._ends[-1] if self._ends else 0

    @property
    def has_waiting(self) -> bool:
        """Whether there is a task to hand out."""
        return self.n_waiting > 0

    @property
    def n_waiting(self) -> int:
        """Tasks still to be handed out."""
        return 0 if self.is_stopped else self.total - self.n_taken + len(self.again)

    @property
    def group(self) -> tuple[str, ...]:
        """Jobs of one group count as one where slots are shared.

        The placements of one map are such jobs: their command lines differ in the last
        argument only, the number of their first worker.
        """
        return self.lines[0].args[:-1] if self.kind == PLACEMENT and self.lines else (self.job_id,)

    @property
    def n_alive(self) -> int:
        """Tasks that run now; at least 1 while a kill has not been verified."""
        return max(len(self.running), min(1, self.n_being_killed))

    @property
    def is_complete(self) -> bool:
        """Whether no further task will be handed out and, unless it was stopped, none runs.

        That a stopped job is complete at once is the protocol's; ``Running`` tells the rest.
        """
        return self.is_stopped or not (self.has_waiting or self.running)

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs, nor will."""
        return self.is_complete and not self.n_alive

    @property
    def status(self) -> str:
        """How it went; unlike the original's, this tells of errors and a stop stays a stop."""
        if self.is_stopped:
            return "STOPPED"
        if not self.is_complete:
            return "READY"
        return "ERROR" if self.errored else "SUCCESS"

    def take(self, key: int, now_s: float) -> Task:
        """Hand out the next task; only with :attr:`has_waiting`."""
        if self.again:
            return self.run(self.again.pop(0), key, now_s)
        self.n_taken += 1
        return self.run(self.n_taken - 1, key, now_s)

    def run(self, number: int, key: int, now_s: float) -> Task:
        """Note that a task runs."""
        line = bisect_right(self._ends, number)
        self.running[key] = task = Task(key=key, job=self, line=line, number=number, begun_s=now_s)
        return task

    def resume(self, ended: Mapping[int, bool], started: Collection[int]) -> None:
        """Take up what an earlier master has left.

        Args:
            ended: Tasks whose end was counted, and whether it was a good one.
            started: Tasks that were started; whoever calls lets them :meth:`run`.
        """
        begun = ended.keys() | set(started)
        self.n_taken = max(begun, default=-1) + 1
        self.again = [number for number in range(self.n_taken) if number not in begun]
        self.finished = sum(ended.values())
        self.errored = len(ended) - self.finished

    def end(self, task: Task, *, is_good: bool) -> None:
        """Note the end of a task that was handed out."""
        del self.running[task.key]
        self.finished += is_good
        self.errored += not is_good
        self.touch()

    def touch(self) -> None:
        """Note that something about the job has changed."""
        self.modified = _now()

    def as_json(self, state: str = "") -> dict[str, object]:
        """The job as the protocol shows it.

        Args:
            state: Overrides the state; the reply to a submission says SCHEDULED.
        """
        return {
            "JobId": self.job_id,
            "Uri": f"/jobs/{self.job_id}",
            "Owner": self.owner,
            "Label": self.label,
            "Type": self.kind,
            "FirstCreated": self.created,
            "LastModified": self.modified,
            "Progress": {"Total": self.total, "Finished": self.finished, "Errored": self.errored},
            "State": state or ("COMPLETE" if self.is_complete else "RUNNING"),
            "Status": "READY" if state else self.status,
            "Running": self.n_alive,  # ours; the original never tells
        }


def _now() -> str:
    """The form of the original's time stamps, which are for people only."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC")
