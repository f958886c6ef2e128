"""A job's folder: its manifest is believed only as it was written, and ids cannot lead elsewhere."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from golem_magic.errors import FormatError, ShareError
from golem_magic.model import Digest, JobId
from golem_magic.share import jobs
from golem_magic.share.layout import JobPaths, SharePaths

pytestmark = pytest.mark.unit


@pytest.fixture
def paths(share: Path) -> SharePaths:
    return jobs.make_share(str(share))


def manifest(job_id: str) -> jobs.Manifest:
    return jobs.Manifest(
        job_id=JobId(job_id),
        function_name="f",
        label='a label with ünïcode and "quotes"',
        python="3.11",
        function=Digest("12"),
        common=None,
        star=False,
        workers=2,
        chunk_size=None,
        beat_s=1.0,
        lease_s=2.0,
        max_attempts=3,
        created_s=0.0,
        on_error="raise",
        host="here",
        engine="local",
        folder="",
        uid=os.getuid(),
    )


def make(paths: SharePaths, job_id: str) -> tuple[JobPaths, Digest]:
    job = paths.job(JobId(job_id))
    return job, jobs.make_job(job, manifest(job_id))


A, B, C = "a" * 32, "ab" + "0" * 30, "c" * 32


def test_a_manifest_is_read_as_it_was_written(paths: SharePaths) -> None:
    job, digest = make(paths, A)

    assert jobs.read_manifest(job) == jobs.read_manifest(job, digest) == manifest(A)
    assert jobs.manifest_digest(job) == digest


def test_all_folders_are_there_and_private(paths: SharePaths) -> None:
    job, _ = make(paths, A)

    for folder in (job.root, *job.folders):
        assert os.stat(folder).st_mode & 0o777 == 0o700
    assert os.stat(job.manifest).st_mode & 0o777 == 0o600


def test_an_id_is_used_once(paths: SharePaths) -> None:
    make(paths, A)

    with pytest.raises(ShareError, match=A):
        make(paths, A)


def test_an_altered_manifest_is_refused_by_whoever_knows_its_digest(paths: SharePaths) -> None:
    job, digest = make(paths, A)
    text = Path(job.manifest).read_text()
    Path(job.manifest).write_text(text.replace('"workers": 2', '"workers": 3'))

    with pytest.raises(FormatError, match="altered"):
        jobs.read_manifest(job, digest)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None])
def test_a_manifest_of_another_format_is_refused_with_both_versions(paths: SharePaths, version: Any) -> None:
    job, _ = make(paths, A)
    record = asdict(manifest(A)) | {"format": version, "of the future": 1}
    Path(job.manifest).write_text(json.dumps(record))

    with pytest.raises(FormatError, match=f"has format {version}, this golem_magic reads {jobs.FORMAT}"):
        jobs.read_manifest(job)


DAMAGES: dict[str, Callable[[str], str]] = {
    "empty": lambda _: "",
    "cut": lambda text: text[:-5],
    "no object": lambda _: "[1]",
    "without a format": lambda _: "{}",
    "a word is missing": lambda text: text.replace('"label"', '"lobel"'),
    "a word too many": lambda text: text.replace("{", '{"x": 1,', 1),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_manifest_is_refused(paths: SharePaths, damage: Callable[[str], str]) -> None:
    job, _ = make(paths, A)
    Path(job.manifest).write_text(damage(Path(job.manifest).read_text()))

    with pytest.raises(FormatError, match=r"manifest\.json is damaged"):
        jobs.read_manifest(job)


def test_a_manifest_of_bytes_that_are_no_text_is_refused(paths: SharePaths) -> None:
    job, _ = make(paths, A)
    Path(job.manifest).write_bytes(b"\xff\xfe\x00")

    with pytest.raises(FormatError, match="damaged"):
        jobs.read_manifest(job)


def test_a_job_that_is_not_there_is_named(paths: SharePaths) -> None:
    with pytest.raises(ShareError, match=A):
        jobs.read_manifest(paths.job(JobId(A)))


# --- finding ---


def test_a_job_is_found_by_any_beginning_that_only_it_has(paths: SharePaths) -> None:
    for job_id in (A, B, C):
        make(paths, job_id)

    assert jobs.find_job(paths, "c") == C
    assert jobs.find_job(paths, "aa") == A
    assert jobs.find_job(paths, "ab0") == B
    assert jobs.find_job(paths, A) == A


def test_a_beginning_that_several_have_is_refused_with_their_number(paths: SharePaths) -> None:
    for job_id in (A, B, C):
        make(paths, job_id)

    with pytest.raises(ShareError, match="2 jobs start so"):
        jobs.find_job(paths, "a")


def test_a_beginning_that_none_has_is_refused(paths: SharePaths) -> None:
    with pytest.raises(ShareError, match="no single job dd"):
        jobs.find_job(paths, "dd")


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        ".",
        "..",
        "../objects",
        "/",
        "/etc",
        "a/../..",
        "A",
        "g",
        "a b",
        "a\n",
        "*",
        "a" * 33,
        "\0",
        "\uff41",
    ],
)
def test_what_is_no_beginning_of_an_id_is_refused_unseen(paths: SharePaths, prefix: str) -> None:
    make(paths, A)

    with pytest.raises(ShareError, match="is no job id"):
        jobs.find_job(paths, prefix)


def test_only_folders_with_an_id_for_a_name_are_jobs(paths: SharePaths) -> None:
    make(paths, A)
    for name in ("notes.txt", "a" * 31, "A" * 32, "x" * 32, f"{A}.old"):
        Path(paths.jobs, name).mkdir()

    assert jobs.list_jobs(paths) == [A]


def test_a_share_without_jobs_has_none(tmp_path: Path) -> None:
    assert jobs.list_jobs(SharePaths(str(tmp_path / "none"))) == []
    with pytest.raises(ShareError, match="mount it again"):
        jobs.check_visible(SharePaths(str(tmp_path / "none")))


# --- ending ---


def test_a_job_is_cancelled_once_asked(paths: SharePaths) -> None:
    job, _ = make(paths, A)
    before = jobs.is_cancelled(job)

    jobs.ask_to_cancel(job)
    jobs.ask_to_cancel(job)

    assert (before, jobs.is_cancelled(job)) == (False, True)
