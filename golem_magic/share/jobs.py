"""A job as a folder: its manifest, its birth, its list, its end."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Any

from golem_magic.errors import FormatError, ShareError
from golem_magic.model import Digest, JobId
from golem_magic.share import files
from golem_magic.share.layout import JobPaths, SharePaths

FORMAT = 1
_JOB_ID = re.compile(r"[0-9a-f]{32}")
_PREFIX = re.compile(r"[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a job is; written first, never changed.

    Attributes:
        star: Call ``f(*x)``.
        kwargs: Call ``f(**x)``, what else there is before that.
        workers: How many are planned; sets the slots of a round.
        chunk_size: Tasks per lease, None for lengths that follow the speed.
        beat_s: Seconds between two signs of life of a worker.
        lease_s: Seconds of silence after which a lease is taken away.
        setup: Function called once per worker, None for none.
        timeout_s: Longest time of a task in seconds, None for no limit.
        error_log: File to which workers append failures; None for none.
        memory_bytes: Most memory of a worker's runner and all that its tasks started, None for no limit.
        retries: How often a task that raised is tried again.
        keep: ``unread`` when results are freed once they were read.
        retry_on: Qualified names of the exceptions worth another try; empty for any Exception.
        max_attempts: How often a task may end its worker.
        created_s: Seconds since 1970, for people.
        share_is_local: All workers see the share as the client does, without caches in between.
        engine: Name of the engine whose workers run the job.
        folder: The client's working folder; workers that have it too work there and import from it.
        retry_of: The job some of whose tasks are run again; None for a job that stands for itself.
        retried: Which of its tasks, as half-open ranges of their indexes, ascending.
    """

    format: int = FORMAT
    job_id: JobId
    function_name: str
    label: str
    python: str
    function: Digest
    common: Digest | None
    setup: Digest | None = None
    star: bool
    kwargs: bool = False
    timeout_s: float | None = None
    memory_bytes: int | None = None
    error_log: str | None = None
    retries: int = 0
    retry_on: tuple[str, ...] = ()
    keep: str = "all"
    workers: int
    chunk_size: int | None
    beat_s: float
    lease_s: float
    max_attempts: int
    created_s: float
    on_error: str
    host: str
    engine: str
    folder: str
    uid: int
    share_is_local: bool = True
    retry_of: JobId | None = None
    retried: tuple[tuple[int, int], ...] = ()


def make_share(root: str) -> SharePaths:
    """Make the top folders, private to the user; those that are there must be so as well.

    What workers run is named by paths through these folders: the runtime, to start with.

    Raises:
        ShareError: They cannot be made, or others could put something in the place of what is in them.
    """
    paths = SharePaths(root)
    with files.explained("make", root):
        files.make_folders(root)
        files.check_folder(root)
        for folder in (paths.jobs, paths.objects, paths.runtimes):
            files.make_folder(folder)
            files.check_folder(folder)
    return paths


def make_job(paths: JobPaths, manifest: Manifest) -> Digest:
    """Make a job's folders and its manifest; give the manifest's digest.

    Raises:
        ShareError: They cannot be made; nothing refers to what was.
    """
    text = json.dumps(asdict(manifest), indent=1).encode()
    with files.explained("make", paths.root):
        for folder in (paths.root, *paths.folders):
            os.mkdir(folder, 0o700)
        files.create(paths.manifest, [text])
    return Digest(hashlib.sha256(text).hexdigest())


def read_manifest(paths: JobPaths, digest: Digest | None = None) -> Manifest:
    """Read what a job is; with ``digest``, only if it is exactly that one.

    Raises:
        ShareError: It cannot be read, or somebody else could have written it.
        FormatError: It is of another version or was altered.
    """
    text = _text(paths)
    if digest is not None and hashlib.sha256(text).hexdigest() != digest:
        message = f"{paths.manifest} is not the one this worker was started for: it was altered"
        raise FormatError(message)
    try:
        record: dict[str, Any] = json.loads(text)
        version = record["format"]
    except (ValueError, KeyError, TypeError) as error:
        message = f"{paths.manifest} is damaged ({error}): submit the job again"
        raise FormatError(message) from error
    if version != FORMAT:
        message = (
            f"{paths.manifest} has format {version}, this golem_magic reads {FORMAT}: use the other version"
        )
        raise FormatError(message)
    try:
        retried = tuple((start, end) for start, end in record.get("retried", ()))
        return Manifest(**{**record, "retry_on": tuple(record["retry_on"]), "retried": retried})
    except (TypeError, KeyError, ValueError) as error:
        message = f"{paths.manifest} is damaged ({error}): submit the job again"
        raise FormatError(message) from error


def manifest_digest(paths: JobPaths) -> Digest:
    """The digest of a manifest, for a worker's command line."""
    return Digest(hashlib.sha256(_text(paths)).hexdigest())


def _text(paths: JobPaths) -> bytes:
    with files.explained("read", paths.manifest):
        files.check_folder(paths.root)
        with open(paths.manifest, "rb", opener=files.open_own) as file:
            return file.read()


def is_cancelled(paths: JobPaths) -> bool:
    """Whether the marker is there, found by listing."""
    return "cancel" in files.names(paths.control)


def is_id(text: str) -> bool:
    """Whether this is the id of a job, and so leads nowhere else as the name of a folder."""
    return _JOB_ID.fullmatch(text) is not None


def list_jobs(paths: SharePaths) -> list[JobId]:
    """The ids of all jobs on the share, in no particular order."""
    return [JobId(name) for name in files.names(paths.jobs) if is_id(name)]


def find_job(paths: SharePaths, prefix: str) -> JobId:
    """The one job whose id starts with ``prefix``.

    Raises:
        ShareError: None does, or several do.
    """
    if not _PREFIX.fullmatch(prefix):
        message = f"{prefix!r} is no job id: up to 32 digits 0-9a-f are"
        raise ShareError(message)
    found = [job_id for job_id in list_jobs(paths) if job_id.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    known = f"{len(found)} jobs start so, give more digits" if found else "%golem jobs lists those there are"
    message = f"no single job {prefix} in {paths.jobs}: {known}"
    raise ShareError(message)


def become_client(paths: JobPaths, who: str) -> int:
    """Take the next client number: the client with the highest one places workers.

    Raises:
        ShareError: The job's folder cannot be written.
    """
    with files.explained("write", paths.control):
        number = 1 + max(client_numbers(files.names(paths.control)), default=0)
        while not files.link(who, f"{paths.control}/client-{number}"):
            number += 1
    return number


def client_numbers(control: list[str]) -> list[int]:
    """The numbers of all clients a job has had."""
    numbers = (name.removeprefix("client-") for name in control if name.startswith("client-"))
    return [int(number) for number in numbers if number.isdigit()]


def ask_to_cancel(paths: JobPaths) -> None:
    """Put the marker that workers look for.

    Raises:
        ShareError: It could not be written.
    """
    with files.explained("write", paths.cancel):
        os.close(os.open(paths.cancel, os.O_WRONLY | os.O_CREAT, 0o600))


def check_visible(paths: SharePaths) -> None:
    """Complain if the share is not there any more."""
    if not os.path.isdir(paths.jobs):
        message = f"{paths.root} is gone: mount it again, or choose another share (GOLEM_MAGIC_SHARE)"
        raise ShareError(message)
