"""The table of jobs and the slots they share: who runs, who is next, who has to leave.

One lock guards everything here; what is said to the zygote and to the log files is said under
it, so that the order of events is the same for all. Callers are the threads of the HTTP
server, the starter's thread (news of tasks) and the main loop (the passing of time).
"""

import itertools
import os
import secrets
import signal
import sys
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress

from golem_magic.clock import Clock, SystemClock
from golem_magic.master.fairness import choose_leavers
from golem_magic.master.jobs import Job, Refused, Task
from golem_magic.master.output import OutputFolder
from golem_magic.master.starter import Starter
from golem_magic.master.trees import end_tree

FORGET_AFTER_S = 900.0  # the protocol's


class Slots:
    """All jobs of this master, and the one node they run on.

    Args:
        output: Where their text goes.
        starter: Starts their processes.
        n_slots: How many tasks may run at once; 0 suspends.
        on_contention: Called when jobs begin to wait for slots, so that the main loop looks
            at :meth:`share_fairly` more often.
        clock: Time.
    """

    def __init__(
        self,
        output: OutputFolder,
        starter: Starter,
        *,
        n_slots: int,
        on_contention: Callable[[], None] = lambda: None,
        clock: Clock | None = None,
    ) -> None:
        self.output = output
        self.n_slots = n_slots
        self._starter = starter
        self._on_contention = on_contention
        self._clock = clock or SystemClock()
        self._lock = threading.RLock()
        self._token = secrets.token_hex(8)  # tells our tasks from those of another master
        self._keys = itertools.count()
        self._jobs: dict[str, Job] = {}
        self._running: dict[int, Task] = {}
        self._waiting: deque[Job] = deque()
        self._can_start = True
        starter.listen(self)

    # --- what requests ask for ---

    def submit(self, job: Job) -> dict[str, object]:
        """Take a job in and start what fits; give the reply.

        Raises:
            Refused: 409, its id is known.
        """
        with self._lock:
            if job.job_id in self._jobs:
                raise Refused(409, f"job already exists: {job.job_id}")
            self.output.open_job(job.job_id)
            self._jobs[job.job_id] = job
            reply = job.as_json("SCHEDULED")
            if job.total == 0:
                self.output.log_completed(job.job_id)
            job.touch()
            self._waiting.append(job)
            self._hand_out()
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

    def kill(self, job_id: str) -> None:
        """Stop the job and end all of its processes; gone within five seconds of the return.

        Raises:
            Refused: 404.
        """
        with self._lock:
            job = self._find(job_id)
            self.stop(job_id)
            job.is_killed = True
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

    def resize(self, n_slots: int) -> None:
        """Change how many tasks may run at once; running ones are not touched."""
        with self._lock:
            self.n_slots = max(0, n_slots)
            self._hand_out()

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

    def on_ended(self, key: int, code: int) -> None:
        """Count the task, and give its slot away."""
        with self._lock:
            task = self._running.pop(key, None)
            if task is None:
                return
            task.job.end(task, is_good=code == 0)
            self.output.log_ended(task, is_good=code == 0)
            self._hand_out()

    def on_starter_lost(self) -> None:
        """Count all running tasks as errored, and make that true."""
        with self._lock:
            self._can_start = False
            lost = list(self._running.values())
            for task in lost:
                self.output.complain(
                    task.job.job_id, f"Lost task {task.number}: the process starting it died"
                )
            for job in {task.job for task in lost}:
                self._end_processes(job, list(job.running.values()))
            for task in lost:
                self.on_ended(task.key, 1)

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
        with self._lock:
            return all(job.is_over for job in self._jobs.values())

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

    def forget_archived(self) -> None:
        """Drop the jobs whose time is over."""
        with self._lock:
            now_s = self._clock.now()
            for job in list(self._jobs.values()):
                if job.forget_at_s is not None and job.forget_at_s <= now_s:
                    del self._jobs[job.job_id]

    # --- inside, with the lock held ---

    def _find(self, job_id: str) -> Job:
        if job_id not in self._jobs:
            raise Refused(404, f"job {job_id} not found")
        return self._jobs[job_id]

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
        job_id = task.job.job_id
        self._running[task.key] = task
        self._starter.start(
            {
                "key": task.key,
                "argv": list(task.args),
                "identity": task.identity,
                "mark": f"{self._mark(task.job)}{task.number}",
                "out": str(self.output.path(job_id, "out")),
                "err": str(self.output.path(job_id, "err")),
            }
        )
        self.output.log_submitted(task)

    def _mark(self, job: Job) -> str:
        return f"{self._token}:{job.job_id}:"

    def _end_processes(self, job: Job, tasks: list[Task]) -> None:
        """End the tasks' process trees, and whatever else carries the job's mark, in a thread."""
        roots = [task.pid for task in tasks if task.pid is not None]
        has_workers = any(task.is_worker for task in tasks)
        job.n_being_killed += 1

        def end() -> None:
            left = end_tree(roots, self._mark(job), ask_roots_only=has_workers)
            with self._lock:
                job.n_being_killed -= 1
            if left:
                sys.stderr.write(f"job {job.job_id}: processes {left} survived SIGKILL\n")

        threading.Thread(target=end, name=f"end of {job.job_id}", daemon=True).start()
