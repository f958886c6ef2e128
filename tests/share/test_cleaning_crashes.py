"""What a crash leaves on the share, found and removed later."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from share.old_jobs import Holder, clean_all, environment, left, make

from golem_magic.share import files, holds, jobs
from golem_magic.share.cleaned import Cleaned
from golem_magic.share.layout import SharePaths
from golem_magic.share.retention import DAY_S


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


# Each ends its own process, as the system would, at a point of what a client or a worker does.
CRASH = """
import os, signal, sys
from golem_magic import payload
from golem_magic.model import Digest, JobId
from golem_magic.share import cleaning, files, jobs, outcome_files, retention, runtime, store
from golem_magic.share.inputs_log import InputWriter
from share.old_jobs import MANIFEST, replace

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

share = jobs.make_share(sys.argv[1])
job = share.job(JobId("1" * 32))
manifest = replace(MANIFEST, job_id=JobId("1" * 32), function=Digest("a" * 64))

def half_an_object():
    os.replace = die
    store.put(share, payload.dump(bytes(100_000)))

def half_a_runtime():
    os.replace = die
    runtime.stage(share)

def a_folder_without_manifest():
    files.create = die
    jobs.make_job(job, manifest)

def half_of_the_inputs():
    jobs.make_job(job, manifest)
    client = files.BeatWriter(job.client_beat(jobs.become_client(job, "here-1-0")))
    writer = InputWriter(job)
    writer.append(payload.dump([1, 2, 3]), 3)
    os.kill(os.getpid(), signal.SIGKILL)

def outcomes_without_an_entry():
    jobs.make_job(job, manifest)
    jobs.ask_to_cancel(job)
    outcome_files.write(job, 0, payload.dump(([1], {})), (1, 0), "w+1")
    os.kill(os.getpid(), signal.SIGKILL)

def a_retry_that_nobody_was_told_of():
    jobs.make_job(job, replace(manifest, retry_of=JobId("2" * 32)))
    InputWriter(job).append(payload.dump([1]), 1)
    os.symlink("1", job.closed)
    os.kill(os.getpid(), signal.SIGKILL)

def half_of_the_deletion():
    outcomes_without_an_entry_but_alive = jobs.make_job(job, manifest)
    jobs.ask_to_cancel(job)
    cleaning.shutil.rmtree = die
    zero = retention.Limits(read_s=-1.0, unread_s=-1.0)
    cleaning.clean(share, zero, lambda _: None, dry_run=False)

{point}()
"""
POINTS = [
    ("half_an_object", "objects"),
    ("half_a_runtime", "runtimes"),
    ("a_folder_without_manifest", "jobs"),
    ("half_of_the_inputs", "jobs"),
    ("outcomes_without_an_entry", "jobs"),
    ("a_retry_that_nobody_was_told_of", "jobs"),
    ("half_of_the_deletion", "trash"),
]


@pytest.mark.parametrize(("point", "folder"), POINTS, ids=[point for point, _ in POINTS])
def test_what_a_crash_leaves_is_found_and_removed_later(paths: SharePaths, point: str, folder: str) -> None:
    crash = CRASH.replace("{point}", point)
    died = subprocess.run([sys.executable, "-c", crash, paths.root], env=environment(), timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert len(files.names(f"{paths.root}/{folder}")) == 1

    at_once = clean_all(paths) if folder != "trash" else Cleaned(dry_run=False)
    still_there = files.names(f"{paths.root}/{folder}")
    for at, folders, names in os.walk(paths.root):
        for name in [*folders, *names]:
            long_ago(f"{at}/{name}")
    later = clean_all(paths)

    assert len(still_there) == 1
    assert at_once.jobs == []
    assert files.names(f"{paths.root}/{folder}") == []
    assert (len(later.jobs), later.n_objects) == (
        int(folder == "jobs"),
        int(folder in ("objects", "runtimes")),
    )


def long_ago(path: str) -> None:
    then = time.time() - 31 * DAY_S
    os.utime(path, (then, then), follow_symlinks=False)


def test_a_fork_that_drops_its_copy_of_the_results_does_not_let_them_go(paths: SharePaths) -> None:
    job, holder = make(paths, 1), Holder()
    holds.hold(job, holder)
    pid = os.fork()
    if pid == 0:
        del holder
        os._exit(0)
    os.waitpid(pid, 0)

    assert holds.is_held(job, elsewhere=False)


def test_who_has_died_or_cannot_be_asked_holds_nothing_for_ever(paths: SharePaths) -> None:
    crashed, young, old = make(paths, 1), make(paths, 2, days=6), make(paths, 3, days=8)
    hold = (
        "import os, sys; from golem_magic.share import holds; from golem_magic.share.layout import JobPaths"
    )
    hold += "; keep = set(); holds.hold(JobPaths(sys.argv[1]), keep); os._exit(9)"
    assert subprocess.run([sys.executable, "-c", hold, crashed.root], env=environment()).returncode == 9
    assert len(files.names(crashed.clients)) == 1
    for job in (young, old):
        files.create(f"{job.clients}/another-host-1-0123abcd.held", [])

    clean_all(paths, older_days=0)

    assert left(paths) == {2}
