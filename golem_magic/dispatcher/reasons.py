"""Why a job is given up when its workers end before they publish anything, or never come; and why not."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from golem_magic.dispatcher.site import Site
from golem_magic.errors import NoWorkersError
from golem_magic.model import JobId, PlacementStatus
from golem_magic.share import files
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths


def no_workers(
    paths: JobPaths, manifest: Manifest, site: Site, bad: Collection[PlacementStatus], last_words: str
) -> NoWorkersError:
    """The error for placements that all came to nothing.

    A worker that opened its log has found Python and the share, and says there what
    stopped it. Where there is no log, one of the two is missing.

    Args:
        paths: Of the job.
        manifest: Of the job.
        site: Where it was to run.
        bad: What the engine said of the placements.
        last_words: What they last printed, as far as the engine keeps it; may be empty.
    """
    n_errored = sum(status.n_errored for status in bad)
    what = f"{n_errored} workers in {len(bad)} placements ended before they published anything"
    logs = sorted(name for name in files.names(paths.workers) if name.endswith(".log"))
    tails = [tail for name in logs if (tail := files.tail(f"{paths.workers}/{name}").strip())]
    if tails:
        return NoWorkersError(
            f"{what}; the last said: {tails[-1].splitlines()[-1]} (logs in {paths.workers})"
        )
    reasons = [status.reason for status in bad if status.reason]
    said = last_words or (reasons or ["nothing"])[-1]
    python, share = " ".join(site.argv[:-3]), paths.root.rpartition("/jobs/")[0]
    message = (
        f"{what}, or opened a log; the last word was: {said}. On their machines either {python} is not "
        f"there, or the share {share} is not to be seen: set `python` and `share` to what they have "
        f"(Python {manifest.python})"
    )
    return NoWorkersError(message)


def never_came(n_absent: int, n_slots: int | None) -> NoWorkersError:
    """The error for workers that machines were given and never started."""
    slots = f", and no other slot is there (of {n_slots})" if n_slots and n_absent >= n_slots else ""
    message = (
        f"{n_absent} workers were handed to machines and never came{slots}: restart Golem's workers there, "
        f"then attach to the job or map again"
    )
    return NoWorkersError(message)


@contextmanager
def saying_that_it_goes_on(job_id: JobId) -> Iterator[None]:
    """Let an interrupt say that it has only ended the waiting, and how to end the job."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        job = job_id[:8]
        interrupt.add_note(f"job {job} goes on - cancel it with %golem cancel {job} or results.cancel()")
        raise
