"""Jobs that seem to have lain on a share for days."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from golem_magic.model import Digest, JobId
from golem_magic.share import files, jobs
from golem_magic.share.cleaned import Cleaned
from golem_magic.share.cleaning import clean
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import JobPaths, SharePaths
from golem_magic.share.retention import DAY_S, Limits

MANIFEST = jobs.Manifest(
    job_id=JobId(""),
    function_name="f",
    label="",
    python="3.11",
    function=Digest("0" * 64),
    common=None,
    star=False,
    workers=2,
    chunk_size=None,
    beat_s=1.0,
    lease_s=10.0,
    max_attempts=3,
    created_s=0.0,
    on_error="raise",
    host="here",
    engine="local",
    folder="",
    uid=os.getuid(),
)


def done(job: JobPaths) -> None:
    InputWriter(job).close()  # there are no inputs, so all of them have outcomes


def cancelled(job: JobPaths) -> None:
    jobs.ask_to_cancel(job)


def failed(job: JobPaths) -> None:
    files.link("../workers/w.failed", job.failed)


def unfinished(job: JobPaths) -> None:
    pass


def of_another_version(job: JobPaths) -> None:
    done(job)
    manifest = json.loads(Path(job.manifest).read_text())
    Path(job.manifest).write_text(json.dumps(manifest | {"format": 99}))


def make(
    paths: SharePaths,
    number: int,
    end: Callable[[JobPaths], None] = done,
    *,
    days: float = 30,
    function: str = "0" * 64,
) -> JobPaths:
    """Make a job whose folder has not changed for some days."""
    job = paths.job(JobId(f"{number:032x}"))
    jobs.make_job(job, replace(MANIFEST, job_id=JobId(f"{number:032x}"), function=Digest(function)))
    end(job)
    for path in (job.data, job.control, job.manifest):
        age(path, days)
    return job


def age(path: str, days: float) -> None:
    then = time.time() - days * DAY_S
    os.utime(path, (then, then))


def no_beat_is_young_enough_to_wait_for(_: float) -> None:
    raise AssertionError


def clean_all(paths: SharePaths, *, older_days: float = 7, dry_run: bool = False) -> Cleaned:
    return clean(paths, older(older_days), no_beat_is_young_enough_to_wait_for, dry_run=dry_run)


def older(days: float) -> Limits:
    return Limits(read_s=days * DAY_S, unread_s=days * DAY_S)


def left(paths: SharePaths) -> set[int]:
    return {int(job_id, 16) for job_id in jobs.list_jobs(paths)}


def environment() -> dict[str, str]:
    """What another process needs to import the tests' modules."""
    tests = Path(__file__).parents[1]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests.parent), str(tests)])}


class Holder:
    """Stands for results."""
