"""Whose log is that of a task."""

import os
from pathlib import Path

import pytest

from golem_magic import payload
from golem_magic.errors import JobError
from golem_magic.model import Failure, WorkerId
from golem_magic.share import files, outcome_files
from golem_magic.share.layout import JobPaths
from golem_magic.share.logs import read_logs

pytestmark = pytest.mark.unit

LOST = Failure(
    kind="died",
    exception=None,
    type_name="WorkerDied",
    message="lost",
    traceback="",
    host="?",
    worker="lost-0-0000",
)


@pytest.fixture
def job(share: Path) -> JobPaths:
    """Tasks 0 of a worker, 1 of a lost worker, told by a client, 2 held by a worker, 3 of nobody."""
    paths = JobPaths(str(share / "job"))
    for folder in (paths.root, *paths.folders, f"{paths.rounds}/0"):
        os.mkdir(folder)
    files.link("0 1 4 4", f"{paths.rounds}/0/head")
    for task, worker in enumerate(("done-0-0000", "lost-0-0000", "busy-0-0000")):
        files.link(f"{worker}+1", f"{paths.rounds}/0/{task}-{task + 1}.1")
        Path(paths.log(WorkerId(worker))).write_text(f"I had {task}\n")
    publish(paths, 0, "done-0-0000+1", {})
    publish(paths, 1, "client-1-ab12", {0: LOST})
    return paths


def publish(paths: JobPaths, task: int, writer: str, failures: dict[int, Failure]) -> None:
    target = outcome_files.write(paths, task, payload.dump(([None], failures)), (1, len(failures)), writer)
    files.link(target, f"{paths.rounds}/0/{task}-{task + 1}.1+0")


def test_the_log_is_that_of_the_worker_that_published_was_lost_with_or_holds_the_task(job: JobPaths) -> None:
    assert [dict(read_logs(job, task)) for task in range(3)] == [
        {"done-0-0000": "I had 0\n"},
        {"lost-0-0000": "I had 1\n"},
        {"busy-0-0000": "I had 2\n"},
    ]
    with pytest.raises(JobError, match="no worker has begun with task 3 of job job"):
        read_logs(job, 3)


def test_without_a_task_the_log_written_last_comes_first(job: JobPaths) -> None:
    for age, worker in enumerate(("busy-0-0000", "done-0-0000", "lost-0-0000")):
        os.utime(job.log(WorkerId(worker)), (1000 - age, 1000 - age))

    assert list(read_logs(job)) == ["busy-0-0000", "done-0-0000", "lost-0-0000"]
