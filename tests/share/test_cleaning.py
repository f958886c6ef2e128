"""Cleaning a share: what goes, what stays, and what a crash or a second cleaner leaves of that."""

import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from share.old_jobs import (
    MANIFEST,
    Holder,
    age,
    cancelled,
    clean_all,
    done,
    failed,
    left,
    make,
    no_beat_is_young_enough_to_wait_for,
    of_another_version,
    older,
    unfinished,
)

from golem_magic import payload
from golem_magic.model import Digest, JobId, WorkerId
from golem_magic.share import cleaning, files, holds, jobs, retries, runtime, store
from golem_magic.share.cleaned import Cleaned
from golem_magic.share.cleaning import clean
from golem_magic.share.layout import JobPaths, SharePaths
from golem_magic.share.retention import DAY_S, Limits

pytestmark = pytest.mark.unit


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


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
        "unread, finished too short a time ago": 3,
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

    cleaned = clean(paths, older(0), sleep, dry_run=False)
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


# --- read or not, held or not, with retries ---


def read(job: JobPaths, *, days: float) -> None:
    """Somebody has read the results, so many days ago."""
    files.touch(f"{job.control}/read")
    age(job.control, days)


def test_a_read_job_goes_after_a_week_and_an_unread_one_after_a_month(paths: SharePaths) -> None:
    for number, days in enumerate([6.9, 7.1, 29.0]):
        make(paths, number, days=days)
    read(make(paths, 10, days=20), days=6.9)
    read(make(paths, 11, days=20), days=7.1)
    make(paths, 12, days=30.1)

    dry = clean(paths, Limits(), no_beat_is_young_enough_to_wait_for, dry_run=True)
    wet = clean(paths, Limits(), no_beat_is_young_enough_to_wait_for, dry_run=False)

    assert left(paths) == {0, 1, 2, 10}
    assert [each._replace(age_s=0.0) for each in dry.gone] == [each._replace(age_s=0.0) for each in wet.gone]
    told = dry.describe().splitlines()
    assert told[0].startswith("would remove 2 jobs and 0 unused objects: ")
    assert [line.split(maxsplit=5)[::5] for line in told[1:3]] == [
        ["00000000", "unread, over for more than 30 days"],
        ["00000000", "read, over for more than 7 days"],
    ]
    assert told[3:] == [
        "kept 1 job: read, finished too short a time ago",
        "kept 3 jobs: unread, finished too short a time ago",
    ]


def test_space_is_made_by_the_oldest_read_jobs(paths: SharePaths) -> None:
    for number, days in enumerate([3, 2, 1]):
        job = make(paths, number, days=20)
        Path(f"{job.data}/0-1.0.5.00000000.w").write_bytes(bytes(100_000))
        age(job.data, 20)
        if number:
            read(job, days=days)

    clean(paths, Limits(max_bytes=250_000), no_beat_is_young_enough_to_wait_for, dry_run=False)
    assert left(paths) == {0, 2}  # the unread one is older, and stays

    clean(paths, Limits(max_jobs=0), no_beat_is_young_enough_to_wait_for, dry_run=False)
    assert left(paths) == {0}


def test_a_job_stays_as_long_as_its_results_are_held(paths: SharePaths) -> None:
    job, holder, another = make(paths, 1), Holder(), Holder()
    holds.hold(job, holder)
    holds.hold(job, another)

    held = clean_all(paths, older_days=0)
    del holder
    still_held = clean_all(paths, older_days=0)
    del another

    assert +held.kept == +still_held.kept == {"a program holds its results": 1}
    assert clean_all(paths, older_days=0).jobs == [f"{1:032x}"]


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_process_that_has_the_number_of_a_dead_one_holds_nothing(paths: SharePaths) -> None:
    job, holder = make(paths, 1), Holder()
    holds.hold(job, holder)
    [file] = Path(job.clients).glob("*.held")

    age(str(file), 1)  # the kernel of yesterday, in a container that was started again today

    assert clean_all(paths, older_days=0).jobs == [f"{1:032x}"]
    assert holder


def retry_of(paths: SharePaths, number: int, of: int, *, days: float = 30, told: bool = True) -> JobPaths:
    """Make a job that runs tasks of another one again."""
    job, origin = paths.job(JobId(f"{number:032x}")), paths.job(JobId(f"{of:032x}"))
    manifest = replace(MANIFEST, job_id=JobId(f"{number:032x}"), retry_of=JobId(f"{of:032x}"))
    jobs.make_job(job, manifest)
    done(job)
    if told:
        assert retries.announce(origin, manifest.job_id, len(retries.found(origin)))
    for path in (job.data, job.control, job.manifest, origin.control):
        age(path, days)
    return job


def test_a_job_and_its_retries_stay_and_go_together(paths: SharePaths) -> None:
    for number in (1, 2, 3):
        make(paths, number)
    retry_of(paths, 10, of=1)
    retry_of(paths, 20, of=2, days=3)  # keeps its job
    retry_of(paths, 21, of=2)
    age(paths.job(JobId(f"{2:032x}")).control, 30)
    held, holder = retry_of(paths, 30, of=3), Holder()
    holds.hold(held, holder)

    cleaned = clean_all(paths)

    assert [int(job_id, 16) for job_id in cleaned.jobs] == [1, 0x10 - 6]
    assert left(paths) == {2, 3, 20, 21, 30}
    assert +cleaned.kept == {"unread, finished too short a time ago": 3, "a program holds its results": 2}
    assert holder


def test_a_retry_that_has_lost_its_job_goes_by_its_own_age(paths: SharePaths) -> None:
    make(paths, 1)
    retry_of(paths, 2, of=1)
    retry_of(paths, 3, of=1, days=2)
    os.rename(paths.job(JobId(f"{1:032x}")).root, f"{paths.root}/taken away by hand")

    clean_all(paths)

    assert left(paths) == {3}


# --- cleaning that nobody has asked for ---


def test_a_share_is_due_once_a_day(paths: SharePaths) -> None:
    witness = make(paths, 1, days=0).manifest

    assert not cleaning.is_due(paths, witness)  # its first day begins
    age(paths.trash, 0.9)
    assert not cleaning.is_due(paths, witness)
    age(paths.trash, 1.1)
    assert cleaning.is_due(paths, witness)
    clean_all(paths)
    assert not cleaning.is_due(paths, witness)


def test_who_is_late_leaves_the_rest_and_makes_no_space(paths: SharePaths) -> None:
    for number in range(3):
        make(paths, number)
    read(make(paths, 4, days=1), days=1)
    questions = iter([False] * 6 + [True] * 20)  # four looks, the question after them, the first job

    def is_late() -> bool:
        return next(questions)

    limits = Limits(max_jobs=0)
    done = clean(paths, limits, no_beat_is_young_enough_to_wait_for, dry_run=False, is_late=is_late)
    late = clean(paths, limits, no_beat_is_young_enough_to_wait_for, dry_run=False, is_late=lambda: True)

    assert len(done.jobs) == 1
    assert late.jobs == []
    assert len(left(paths)) == 3
