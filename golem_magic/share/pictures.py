"""A job as its folder shows it, without following the job."""

from golem_magic.model import JobSnapshot, JobState
from golem_magic.share import attention, files
from golem_magic.share.book import Book
from golem_magic.share.inputs_log import count_inputs
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths


def picture(paths: JobPaths, manifest: Manifest, now_s: float) -> JobSnapshot:
    """Draw a job.

    Args:
        paths: Of the job.
        manifest: Of the job.
        now_s: Seconds since 1970, as in the manifest.
    """
    book = Book(paths)
    book.look()
    n_tasks = count_inputs(paths)
    control = files.names(paths.control)
    state = _state(control, book, n_tasks)
    is_to_read = state in (JobState.DONE, JobState.FAILED) and n_tasks != 0
    if manifest.retry_of is not None:  # read with the first job
        is_to_read = False
    return JobSnapshot(
        job_id=manifest.job_id,
        function=manifest.function_name,
        label=manifest.label,
        state=state,
        n_tasks=n_tasks,
        n_staged=n_tasks if n_tasks is not None else book.n_in_rounds,
        n_done=book.n_outcomes - book.n_failed,
        n_failed=book.n_failed,
        n_running=len(book.open_leases()),
        n_workers=len({log.worker for log in book.open_leases()}),
        n_workers_lost=len(book.lost),
        last_takeover=book.last_takeover,
        elapsed_s=max(0.0, now_s - manifest.created_s),
        is_unread=is_to_read and not attention.is_read(control),
    )


def _state(control: list[str], book: Book, n_tasks: int | None) -> JobState:
    if n_tasks is not None and book.n_outcomes >= n_tasks:
        return JobState.DONE
    if "cancel" in control:
        return JobState.CANCELLED
    if "failed" in control:
        return JobState.FAILED
    if n_tasks is None:
        return JobState.STAGING
    return JobState.RUNNING if book.top else JobState.QUEUED
