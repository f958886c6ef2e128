"""The jobs that lie on one share: listed, told of, cancelled, cleaned away; needs no engine."""

import threading
from contextlib import suppress
from dataclasses import replace

from golem_magic.clock import Clock, wall_time
from golem_magic.errors import GolemMagicError
from golem_magic.model import JobId, JobSnapshot
from golem_magic.share import cleaning, files, jobs, retries
from golem_magic.share.cleaned import Cleaned
from golem_magic.share.layout import SharePaths
from golem_magic.share.logs import Logs, read_logs
from golem_magic.share.pictures import picture
from golem_magic.share.retention import DAY_S, Limits

DAILY_S = 20.0  # so long cleaning may take that nobody has asked for; chosen by feel


class Inventory:
    """What one share holds, whoever put it there."""

    def __init__(self, share: SharePaths, clock: Clock) -> None:
        self._share = share
        self._clock = clock

    def ids(self) -> list[JobId]:
        """The ids of all jobs, in no particular order."""
        return jobs.list_jobs(self._share)

    def jobs(self) -> list[JobSnapshot]:
        """All jobs, newest first, as their folders show them now."""
        found = []
        for job_id in self.ids():
            paths = self._share.job(job_id)
            try:
                manifest = jobs.read_manifest(paths)
                found.append((manifest.created_s, picture(paths, manifest, wall_time())))
            except GolemMagicError:  # another version, or being removed
                continue
        found.sort(key=lambda pair: pair[0], reverse=True)
        return [snapshot for _, snapshot in found]

    def cancel(self, job_id: str) -> JobId:
        """Cancel a job by its id or an unambiguous beginning of it, and its retries; give the whole id.

        Raises:
            ShareError: There is no such job, or its folder cannot be written.
        """
        found = jobs.find_job(self._share, job_id)
        paths = self._share.job(found)
        for each in (paths, *map(self._share.job, retries.found(paths))):
            if files.is_folder(each.root):  # a retry may be cleaned away
                jobs.ask_to_cancel(each)
        return found

    def logs(self, job_id: str, task: int | None = None) -> Logs:
        """What the workers of a job and their tasks wrote; with ``task``, only the worker that had it.

        Raises:
            ShareError: There is no such job.
            JobError: No worker has begun with that task.
        """
        return read_logs(self._share.job(jobs.find_job(self._share, job_id)), task)

    def clean(
        self,
        *,
        older_days: float | None = None,
        max_bytes: int | None = None,
        max_jobs: int | None = None,
        dry_run: bool = False,
    ) -> Cleaned:
        """Remove jobs that have been over for long, or are too many, and what no job needs any more.

        Jobs that are not over stay, and so do those that a worker or a client is busy with, or whose
        results a program of this machine holds. A job goes together with its retries.

        Args:
            older_days: How long a job must have been over, in days >= 0; None for a week if somebody has
                read its results, else for 30 days.
            max_bytes: Most space of all jobs, None for 20 GiB: what is above goes sooner, the oldest jobs
                first, and only those that were read.
            max_jobs: Most jobs, None for any number; likewise.
            dry_run: Only tell what would be removed.

        Raises:
            ShareError: The share cannot be read or written.
        """
        limits = Limits(max_jobs=max_jobs)
        if older_days is not None:
            limits = replace(limits, read_s=older_days * DAY_S, unread_s=older_days * DAY_S)
        if max_bytes is not None:
            limits = replace(limits, max_bytes=max_bytes)
        return cleaning.clean(self._share, limits, self._clock.sleep, dry_run=dry_run)

    def clean_daily(self, job_id: JobId) -> None:
        """Remove what has reached its age, in a thread of its own, unless that was done within a day.

        Trouble is nobody's who has just mapped something, so it is not told; nor is what was not reached
        within a time.

        Args:
            job_id: A job made just now, whose manifest tells what time it is on the share.
        """
        with suppress(OSError, GolemMagicError):
            if cleaning.is_due(self._share, self._share.job(job_id).manifest):
                threading.Thread(target=self._clean_by_age, name="golem-clean", daemon=True).start()

    def _clean_by_age(self) -> None:
        until_s = self._clock.now() + DAILY_S
        limits = Limits(max_bytes=None)
        with suppress(OSError, GolemMagicError):
            cleaning.clean(
                self._share,
                limits,
                self._clock.sleep,
                dry_run=False,
                is_late=lambda: self._clock.now() > until_s,
            )
