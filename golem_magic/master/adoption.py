"""Tasks that an earlier master of this folder started: which of them run, and how they ended."""

from collections.abc import Callable

from golem_magic.clock import Clock
from golem_magic.master.jobs import Task
from golem_magic.master.trees import carries_mark, find_leader

MISSED_S = 2.0  # chosen by feel: between a task's death and its note lies a moment of the zygote's


class Adoption:
    """The adopted tasks that have not been found ended yet.

    Their own zygote goes on noting their ends. Where it has died too, the end of a task is all
    that can be seen, and not how it came.

    Args:
        mark_of: Gives the mark that the processes of a task carry.
        clock: Time.
    """

    def __init__(self, mark_of: Callable[[Task], str], clock: Clock) -> None:
        self._mark_of = mark_of
        self._clock = clock
        self._tasks: dict[int, Task] = {}
        self._missed_s: dict[int, float] = {}  # since when a process cannot be found

    def __contains__(self, key: int) -> bool:
        return key in self._tasks

    def adopt(self, task: Task) -> None:
        """Take a task in whose files are set; learn from them what is known."""
        assert task.files is not None
        note = task.files.read_note()
        task.pid, task.is_worker = note.pid, note.is_worker
        task.copied = {"out": note.copied_out, "err": note.copied_err}
        if task.pid is None:  # the zygote died before it could note it
            task.pid = find_leader(self._mark_of(task))
        self._tasks[task.key] = task

    def give_back_ended(self) -> list[tuple[Task, int, str]]:
        """The tasks that have ended, each with its status and a complaint if nobody knows that."""
        found = [(task, *fate) for task in self._tasks.values() if (fate := self._fate(task))]
        for task, _, _ in found:
            del self._tasks[task.key]
        return found

    def _fate(self, task: Task) -> tuple[int, str] | None:
        """None while it runs, or may run."""
        assert task.files is not None
        status = task.files.read_note().status
        if status is not None:
            return status, ""
        if task.pid is not None and carries_mark(task.pid, self._mark_of(task)):
            return None
        missed_s = self._missed_s.setdefault(task.key, self._clock.now())
        if self._clock.now() - missed_s < MISSED_S:
            return None
        return 1, f"Lost task {task.number}: it ended while no master ran, so nobody knows how"
