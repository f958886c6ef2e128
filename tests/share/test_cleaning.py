"""Cleaning a share: what goes, what stays, and what a crash or a second cleaner leaves of that."""

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from golem_magic import payload
from golem_magic.model import Digest, JobId, WorkerId
from golem_magic.share import files, jobs, runtime, store
from golem_magic.share.cleaning import DAY_S, Cleaned, clean
from golem_magic.share.inputs_log import InputWriter
from golem_magic.share.layout import JobPaths, SharePaths

pytestmark = pytest.mark.unit

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


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


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


def clean_all(paths: SharePaths, *, older_days: float = 7, dry_run: bool = False) -> Cleaned:
    def no_beat_is_young_enough_to_wait_for(_: float) -> None:
        raise AssertionError

    return clean(paths, older_days * DAY_S, no_beat_is_young_enough_to_wait_for, dry_run=dry_run)


def left(paths: SharePaths) -> set[int]:
    return {int(job_id, 16) for job_id in jobs.list_jobs(paths)}


def test_jobs_that_have_been_over_for_long_go_and_all_others_stay(paths: SharePaths) -> None:
    for number, end in enumerate([done, cancelled, failed]):
        make(paths, number, end)
        make(paths, 10 + number, end, days=6.9)
    make(paths, 20, unfinished)
    make(paths, 21, of_another_version)

    cleaned = clean_all(paths)

    assert left(paths) == {10, 11, 12, 20, 21}
    assert {int(job_id, 16) for job_id in cleaned.jobs} == {0, 1, 2}
    assert +cleaned.kept == {
        "finished too short a time ago": 3,
        "not finished": 1,
        "of another version or damaged": 1,
    }
    assert files.names(paths.trash) == []


def test_the_space_is_told_and_a_dry_run_tells_the_same_but_touches_nothing(paths: SharePaths) -> None:
    job = make(paths, 1)
    Path(f"{job.data}/0-1.0.5.00000000.w").write_bytes(bytes(500_000))
    age(job.data, 30)
    before = sorted(Path(paths.root).rglob("*"))

    dry = clean_all(paths, dry_run=True)
    after = sorted(Path(paths.root).rglob("*"))
    wet = clean_all(paths)

    assert set(after) - set(before) == {Path(paths.trash)}
    assert (dry.jobs, dry.n_bytes, dry.kept) == (wet.jobs, wet.n_bytes, wet.kept)
    assert 500_000 < wet.n_bytes < 510_000
    assert left(paths) == set()


@pytest.mark.parametrize("whose", ["a worker", "a client"])
def test_a_job_whose_beats_move_stays_and_one_whose_beats_stand_goes(paths: SharePaths, whose: str) -> None:
    moving, standing = make(paths, 1, cancelled), make(paths, 2, cancelled)
    beats = []
    for job in (moving, standing):
        path = job.beat(WorkerId("w")) if whose == "a worker" else job.client_beat(1)
        beats.append(files.BeatWriter(path))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        beats[0].beat("-")

    cleaned = clean(paths, 0, sleep, dry_run=False)
    for each in beats:
        each.close()

    assert left(paths) == {1}
    assert +cleaned.kept == {"in use": 1}
    assert waits == [2.5]  # more than two beats of these jobs


def put(paths: SharePaths, value: object, days: float) -> str:
    digest = store.put(paths, payload.dump(value))
    age(paths.object(digest), days)
    return digest


def test_objects_go_when_no_job_that_stays_names_them_and_they_are_old(paths: SharePaths) -> None:
    used, of_a_job_that_goes, nobodys, young = (put(paths, n, 30) for n in range(4))
    age(paths.object(Digest(young)), 6.9)
    half_written = f"{paths.objects}/{used}.0123.part"
    Path(half_written).write_bytes(b"...")
    age(half_written, 30)
    make(paths, 1, days=1, function=used)
    make(paths, 2, function=of_a_job_that_goes)

    dry = clean_all(paths, dry_run=True)
    wet = clean_all(paths)

    assert sorted(files.names(paths.objects)) == sorted([used, young])
    assert dry.n_objects == wet.n_objects == 3
    assert nobodys not in files.names(paths.objects)


def test_objects_of_a_job_of_another_version_stay(paths: SharePaths) -> None:
    used = put(paths, 1, 30)
    make(paths, 1, of_another_version, function=used)

    clean_all(paths)

    assert files.names(paths.objects) == [used]


def test_old_runtimes_go_once_every_job_is_over_but_not_the_one_in_use(paths: SharePaths) -> None:
    ours, old = runtime.stage(paths), paths.runtime(Digest("f" * 64))
    Path(old).write_bytes(b"zip")
    for path in (ours, old):
        age(path, 30)
    job = make(paths, 1, unfinished, days=1)

    clean_all(paths)
    while_it_runs = set(files.names(paths.runtimes))
    cancelled(job)
    clean_all(paths)

    assert while_it_runs == {os.path.basename(path) for path in (ours, old)}
    assert files.names(paths.runtimes) == [os.path.basename(ours)]


def test_staging_a_runtime_that_is_there_makes_it_young(paths: SharePaths) -> None:
    path = runtime.stage(paths)
    age(path, 30)
    runtime.stage(paths)

    assert time.time() - os.stat(path).st_mtime < DAY_S


def test_what_a_cleaner_that_died_left_is_deleted_by_the_next(paths: SharePaths) -> None:
    job = make(paths, 1)
    files.make_folder(paths.trash)
    os.rename(job.root, f"{paths.trash}/{1:032x}.aaaa")
    Path(f"{paths.trash}/{'0' * 64}.bbbb").write_bytes(bytes(10_000))

    cleaned = clean_all(paths)

    assert files.names(paths.trash) == []
    assert cleaned.n_bytes > 10_000
    assert (cleaned.jobs, cleaned.n_objects) == ([], 0)


def test_two_cleaners_at_once_share_the_work(paths: SharePaths) -> None:
    for number in range(60):
        make(paths, number)
    both: list[Cleaned] = []
    threads = [threading.Thread(target=lambda: both.append(clean_all(paths))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(both) == 2
    assert left(paths) == set()
    assert files.names(paths.trash) == []
