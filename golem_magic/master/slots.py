"""The table of jobs and the slots they share: who runs, who is next, who has to leave.

One lock guards everything here; what is said to the zygote and to the log files is said under
it, so that the order of events is the same for all. Callers are the threads of the HTTP
server, the starter's thread (news of tasks) and the main loop (the passing of time).

Tasks of an earlier master are adopted: they hold slots like others, and the main loop looks for
their ends, of which no starter tells.
"""

import itertools
import os
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from golem_magic.clock import Clock, SystemClock
from golem_magic.master.address import StateFolder
from golem_magic.master.adoption import Adoption
from golem_magic.master.fairness import choose_leavers
from golem_magic.master.jobs import Job, Refused, Task
from golem_magic.master.journal import KNOWN_S, RESUMED_S, Journal, Record
from golem_magic.master.output import OutputFolder
from golem_magic.master.starter import Starter
from golem_magic.master.taskfiles import TaskFiles, tasks_in
from golem_magic.master.trees import end_tree

FORGET_AFTER_S = 900.0  # the protocol's


class Slots:
    """All jobs of this master, and the one node they run on.

    Args:
        state: The folder of this master.
        starter: Starts their processes.
        n_slots: How many tasks may run at once; 0 suspends.
        on_contention: Called when jobs begin to wait for slots, so that the main loop looks
            at :meth:`share_fairly` more often.
        clock: Time.
    """

    def __init__(
        self,
        state: StateFolder,
        starter: Starter,
        *,
        n_slots: int,
        on_contention: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.output = OutputFolder(state.output, os.uname().nodename)
        self.n_slots = n_slots
        self._starter = starter
        self._on_contention = on_contention
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._state = state
        self._journal = Journal(state.jobs)
        self._is_retired = False
        self._keys = itertools.count()
        self._jobs: dict[str, Job] = {}
        self._running: dict[int, Task] = {}
        self._adopted = Adoption(self._mark, self._clock)  # those of them which an earlier master started
        self._waiting: deque[Job] = deque()
        self._can_start = True
        starter.listen(self)

    def restore(self) -> None:
        """Take up what an earlier master of this folder has left; call it before listening."""
        with self._lock:
            left = tasks_in(self._state.tasks)
            for record in self._journal.load():
                self._take_up(record, left.pop(record.job.job_id, set()))
            for job_id, numbers in left.items():  # forgotten, or never answered
                for number in numbers:
                    TaskFiles(self._state.tasks, job_id, number).remove()
            self.look_after_adopted()
            self._hand_out()

    # --- what requests ask for ---

    def submit(self, job: Job) -> dict[str, object]:
        """Take a job in and start what fits; give the reply.

        Raises:
            Refused: 409, its id is known; or we are leaving.
            OSError: It cannot be written down, so it is not accepted.
        """
        draft = self._journal.draft(job)
        with self._lock:
            try:
                self._accept(job, draft)
            finally:
                draft.unlink(missing_ok=True)
            reply = job.as_json("SCHEDULED")
            job.touch()
            self._waiting.append(job)
            self._hand_out()
            self._settle(job)
            return reply

    def jobs(self) -> list[dict[str, object]]:
        """All jobs in the order of their submission."""
        with self._lock:
            return [job.as_json() for job in self._jobs.values()]

    def job(self, job_id: str) -> dict[str, object]:
        """One job.

        Raises:
            Refused: 404.
        """
        with self._lock:
            return self._find(job_id).as_json()

    def stop(self, job_id: str) -> None:
        """Hand out no more of its tasks; those running run on.

        Raises:
            Refused: 404.
        """
        with self._lock:
            job = self._find(job_id)
            if not job.is_complete:
                job.is_stopped = True
                job.touch()
                self._journal.note(job, stopped=True)
                self._settle(job)

    def kill(self, job_id: str) -> None:
        """Stop the job and end all of its processes; gone within five seconds of the return.

        Raises:
            Refused: 404.
        """
        with self._lock:
            job = self._find(job_id)
            self.stop(job_id)
            if not job.is_over:
                job.is_killed = True
                self._journal.note(job, killed=True)
            self._end_processes(job, list(job.running.values()))

    def archive(self, job_id: str) -> None:
        """Forget the job in 900 seconds.

        Raises:
            Refused: 404, or 409 if it is not over.
        """
        with self._lock:
            job = self._find(job_id)
            if not job.is_over:
                raise Refused(409, f"job {job_id} is not complete")
            job.forget_at_s = self._clock.now() + FORGET_AFTER_S
            self._journal.forget_in(job, FORGET_AFTER_S)

    def resize(self, n_slots: int) -> None:
        """Change how many tasks may run at once; running ones are not touched."""
        with self._lock:
            self.n_slots = max(0, n_slots)
            self._state.keep_size(self.n_slots)
            self._hand_out()

    def collect_output(self, job_id: str) -> None:
        """Bring the job's output up to date with what its running tasks have printed."""
        with self._lock:
            job = self._jobs.get(job_id)
            running = list(job.running.values()) if job else []
        for task in running:
            self.output.collect(task, is_over=False)

    @property
    def n_running(self) -> int:
        """Slots in use."""
        return len(self._running)

    # --- what the zygote tells ---

    def on_started(self, key: int, pid: int, *, is_worker: bool) -> None:
        """Note the task's process."""
        with self._lock:
            task = self._running.get(key)
            if task is None:
                return
            task.pid, task.is_worker = pid, is_worker
            if task.job.is_killed:
                self._end_processes(task.job, [task])

    def on_ended(self, key: int, code: int, error: str = "") -> None:
        """Count the task, and give its slot away."""
        task = self._running.get(key)
        if task is None:
            return
        self.output.collect(task, is_over=True)  # without the lock, since it may be much
        with self._lock:
            if error:
                self.output.complain(task.job.job_id, error)
            del self._running[key]
            task.job.end(task, is_good=code == 0)
            is_logged = self.output.log_ended(task, is_good=code == 0)
            if is_logged and task.files is not None:
                task.files.remove()
            self._settle(task.job)
            self._hand_out()

    def on_starter_lost(self) -> None:
        """Count all tasks that it had started as errored, and make that true."""
        with self._lock:
            self._can_start = False
            lost = [task for key, task in self._running.items() if key not in self._adopted]
            for job in {task.job for task in lost}:
                self._end_processes(job, [task for task in lost if task.job is job])
            for task in lost:
                self.on_ended(task.key, 1, f"Lost task {task.number}: the process starting it died")

    def on_starter_back(self) -> None:
        """Go on handing out."""
        with self._lock:
            self._can_start = True
            self._hand_out()

    # --- what time brings ---

    @property
    def is_contended(self) -> bool:
        """Whether a job waits while all slots are taken."""
        with self._lock:
            return self._has_waiting() and self.n_running >= self.n_slots > 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs, nor will."""
        return not self.unfinished()

    def unfinished(self) -> list[Job]:
        """The jobs of which something runs or will."""
        with self._lock:
            return [job for job in self._jobs.values() if not job.is_over]

    def share_fairly(self) -> None:
        """Ask workers of greedy jobs to leave; each once, by SIGTERM."""
        with self._lock:
            if not self.is_contended:
                return
            jobs = {task.job for task in self._running.values()} | set(self._waiting)
            for task in choose_leavers(jobs, n_slots=self.n_slots, now_s=self._clock.now()):
                task.is_leaving = True
                if task.pid is not None:
                    with suppress(ProcessLookupError):  # it has just left; the news is on its way
                        os.kill(task.pid, signal.SIGTERM)

    def look_after_adopted(self) -> None:
        """Count the adopted tasks that have ended."""
        with self._lock:
            for task, status, error in self._adopted.give_back_ended():
                self.on_ended(task.key, status, error)

    def retire(self, *, is_forced: bool = False) -> bool:
        """Accept no job any more, if nothing runs or waits; tell whether that is so now."""
        with self._lock:
            self._is_retired = self._is_retired or is_forced or self.is_idle
            return self._is_retired

    @property
    def is_retired(self) -> bool:
        """Whether we are leaving."""
        return self._is_retired

    def describe_rest(self) -> str:
        """What is left for the next master of this folder, in words; empty if nothing is."""
        with self._lock:
            waiting = sum(job.n_waiting for job in self._jobs.values())
            if not (self._running or waiting):
                return ""
            return f"{self.n_running} tasks run on, {waiting} wait for the next start with this folder"

    def forget_old(self) -> None:
        """Drop the jobs whose time is over."""
        with self._lock:
            now_s = self._clock.now()
            for job in list(self._jobs.values()):
                if job.forget_at_s is not None and job.forget_at_s <= now_s:
                    del self._jobs[job.job_id]
                    self._journal.drop(job.job_id)

    # --- inside, with the lock held ---

    def _find(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise Refused(404, f"job {job_id} not found")
        return self._jobs[job_id]

    def _accept(self, job: Job, draft: Path) -> None:
        if self._is_retired:
            raise Refused(503, "this master is leaving")
        if job.job_id in self._jobs:
            raise Refused(409, f"job already exists: {job.job_id}")
        self.output.open_job(job.job_id)
        self._journal.accept(draft, job)
        self._jobs[job.job_id] = job
        if job.total == 0:
            self.output.log_completed(job.job_id)

    def _take_up(self, record: Record, left: set[int]) -> None:
        """Go on with one job.

        Args:
            record: What the journal says of it.
            left: Its tasks that were started, and whose end has not been counted for certain.
        """
        job = record.job
        if record.age_s > (KNOWN_S if record.is_over else RESUMED_S) and not left:
            self._journal.drop(job.job_id)
            return
        self._jobs[job.job_id] = job
        if record.is_over:
            job.forget_at_s = self._clock.now() + KNOWN_S - record.age_s
            return
        ended = self.output.read_log(job.job_id)
        for number in left & ended.keys():
            TaskFiles(self._state.tasks, job.job_id, number).remove()
        job.resume(ended, left - ended.keys())
        for number in sorted(left - ended.keys()):
            task = job.run(number, next(self._keys), self._clock.now())
            task.files = TaskFiles(self._state.tasks, job.job_id, number)
            self._adopted.adopt(task)
            self._running[task.key] = task
        if job.finished + job.errored == job.total and not self.output.is_completed(job.job_id):
            self.output.log_completed(job.job_id)
        if job.is_killed:
            self._end_processes(job, list(job.running.values()))
        self._waiting.append(job)
        self._settle(job)

    def _settle(self, job: Job) -> None:
        """Once a job is over, keep only its numbers, and these for a day."""
        if job.is_over and job.forget_at_s is None:
            job.forget_at_s = self._clock.now() + KNOWN_S
            self._journal.close(job)

    def _has_waiting(self) -> bool:
        """Whether any job has a task to hand out; drops the jobs that have none left."""
        while self._waiting and not self._waiting[0].has_waiting:
            self._waiting.popleft()
        return bool(self._waiting)

    def _hand_out(self) -> None:
        """Give free slots to the waiting jobs: the group that runs least first, in turn among equals."""
        while self._can_start and self.n_running < self.n_slots and self._has_waiting():
            n_held = Counter(task.job.group for task in self._running.values())
            ready = (job for job in self._waiting if job.has_waiting)
            job = min(ready, key=lambda job: n_held[job.group])
            self._waiting.remove(job)
            self._waiting.append(job)
            self._begin(job.take(next(self._keys), self._clock.now()))
        if self.is_contended:
            self._on_contention()

    def _begin(self, task: Task) -> None:
        self._running[task.key] = task
        task.files = TaskFiles(self._state.tasks, task.job.job_id, task.number)
        self._starter.start(
            {
                "key": task.key,
                "argv": list(task.args),
                "identity": task.identity,
                "mark": self._mark(task),
                **{kind: task.files.path(kind) for kind in ("out", "err", "note")},
            }
        )
        self.output.log_submitted(task)

    def _mark(self, task: Task) -> str:
        return f"{self._mark_of(task.job)}{task.number}"

    def _mark_of(self, job: Job) -> str:
        return f"{self._state.token}:{job.job_id}:"

    def _end_processes(self, job: Job, tasks: list[Task]) -> None:
        """End the tasks' process trees, and whatever else carries the job's mark, in a thread."""
        roots = [task.pid for task in tasks if task.pid is not None]
        has_workers = any(task.is_worker for task in tasks)
        job.n_being_killed += 1

        def end() -> None:
            left = end_tree(roots, self._mark_of(job), ask_roots_only=has_workers)
            with self._lock:
                job.n_being_killed -= 1
                self._settle(job)
            if left:
                sys.stderr.write(f"job {job.job_id}: processes {left} survived SIGKILL\n")

        threading.Thread(target=end, name=f"end of {job.job_id}", daemon=True).start()
