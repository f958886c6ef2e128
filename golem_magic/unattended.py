"""Jobs that nobody minds: they go on, or have ended unread, and no program that lives holds their results.

For people only: clocks of machines are compared here, and a wrong one costs a line too many or too few.
"""

import os

from golem_magic.clock import wall_time
from golem_magic.errors import GolemMagicError
from golem_magic.model import JobId, JobSnapshot, JobState
from golem_magic.share import attention, files, holds, jobs
from golem_magic.share.layout import SharePaths
from golem_magic.share.pictures import picture

NEWS_S = 7 * 86_400.0  # for so long after its last change a job is told of; chosen by feel


def unattended(root: str) -> list[JobSnapshot]:
    """Look through a share for jobs of this user that nobody minds; it is not made if it is not there.

    Those whose client died while it drew their inputs are among them, still in the state of staging.
    """
    share = SharePaths(root)
    found = (_look(share, job_id) for job_id in jobs.list_jobs(share))
    return [snapshot for snapshot in found if snapshot is not None]


def _look(share: SharePaths, job_id: JobId) -> JobSnapshot | None:
    """One of them; the cheap questions first, as most jobs on a share are over and read."""
    paths, now_s = share.job(job_id), wall_time()
    control = files.names(paths.control)
    if attention.is_read(control) or "cancel" in control or now_s - attention.changed_s(paths) > NEWS_S:
        return None
    try:
        manifest = jobs.read_manifest(paths)
        is_followed = attention.has_fresh_client(paths, control, now_s - 2.5 * manifest.beat_s)
        if manifest.uid != os.geteuid() or holds.is_held(paths, elsewhere=is_followed):
            return None
        snapshot = picture(paths, manifest, now_s)
    except GolemMagicError:  # another version, or being removed
        return None
    if is_followed and snapshot.state is JobState.STAGING:  # the results come to be when all inputs are drawn
        return None
    return snapshot if snapshot.is_unread or not snapshot.state.is_final else None
