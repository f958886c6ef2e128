"""The jobs that lie on one share: listed, told of, cancelled, cleaned away; needs no engine."""

from golem_magic.clock import Clock, wall_time
from golem_magic.errors import GolemMagicError
from golem_magic.model import JobId, JobSnapshot
from golem_magic.share import cleaning, files, jobs, retries
from golem_magic.share.cleaning import Cleaned
from golem_magic.share.layout import SharePaths
from golem_magic.share.logs import Logs, read_logs
from golem_magic.share.pictures import picture

OLDER_DAYS = 7.0  # what has been over for less stays unless one says otherwise


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

    def clean(self, *, older_days: float | None = None, dry_run: bool = False) -> Cleaned:
        """Remove jobs that have been over for long, and what no job needs any more.

        Jobs that are not over stay, and so do those that a worker or a client is busy with.

        Args:
            older_days: How long a job must have been over, in days >= 0; None for a week.
            dry_run: Only tell what would be removed.

        Raises:
            ShareError: The share cannot be read or written.
        """
        older_s = (OLDER_DAYS if older_days is None else older_days) * cleaning.DAY_S
        return cleaning.clean(self._share, older_s, self._clock.sleep, dry_run=dry_run)
