"""Giving space on the share back: jobs that are over, and what no job refers to any more.

Rules of the file. What is in doubt stays. Nothing is deleted in its place: a name is renamed into
``trash/``, which takes it away at once and whole, and is deleted there; what a crash leaves in the
trash, the next clean deletes. Ages are differences between times that the share itself noted, never
between two machines' clocks.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from golem_magic.errors import FormatError, ShareError
from golem_magic.model import JobId
from golem_magic.share import files, jobs, runtime
from golem_magic.share.layout import JobPaths, SharePaths
from golem_magic.share.pictures import picture

DAY_S = 86_400.0
OBJECT_AGE_S = 7 * DAY_S  # a client touches what it is about to refer to, long before this
QUIET_S = 3600.0  # a beat older than this needs no second look; chosen by feel
_DIGEST = re.compile(rb"[0-9a-f]{64}")


@dataclass(slots=True)
class Cleaned:
    """What was removed, or would be.

    Attributes:
        jobs: Ids of the jobs.
        n_objects: Functions, common data and runtimes, and what writing such left half done.
        n_bytes: Space of all that.
        kept: How many jobs stay, by the reason.
        dry_run: Whether nothing was touched.
    """

    dry_run: bool
    jobs: list[JobId] = field(default_factory=list)
    n_objects: int = 0
    n_bytes: int = 0
    kept: Counter[str] = field(default_factory=Counter)


def clean(share: SharePaths, older_s: float, sleep: Callable[[float], None], *, dry_run: bool) -> Cleaned:
    """Remove jobs that have been over for ``older_s`` seconds, then objects that no job needs.

    Raises:
        ShareError: The share cannot be read or written.
    """
    done = Cleaned(dry_run)
    with files.explained("clean", share.root):
        files.make_folder(share.trash)
        _empty(share, done)
        now_s = _share_time(share)
        over = _jobs_over(share, now_s - older_s, done.kept)
        for job_id in _still(share, over, now_s, sleep, done.kept):
            done.jobs.append(job_id)
            _remove(share, share.job(job_id).root, done)
        for path in _unneeded(share, set(done.jobs), now_s - OBJECT_AGE_S):
            done.n_objects += 1
            _remove(share, path, done)
    return done


# --- jobs ---


def _jobs_over(share: SharePaths, before_s: float, kept: Counter[str]) -> dict[JobId, float]:
    """The jobs that ended before a time, with their seconds per beat; what keeps the others is counted."""
    over = {}
    for job_id in jobs.list_jobs(share):
        paths = share.job(job_id)
        try:
            manifest = jobs.read_manifest(paths)
            is_over = picture(paths, manifest, 0.0).state.is_final
        except FormatError:
            kept["of another version or damaged"] += 1
            continue
        except (OSError, ShareError):  # it is being made, or removed by somebody else
            kept["not readable"] += 1
            continue
        if not is_over:
            kept["not finished"] += 1
        elif _last_change(paths) > before_s:
            kept["finished too short a time ago"] += 1
        else:
            over[job_id] = manifest.beat_s
    return over


def _still(
    share: SharePaths,
    over: dict[JobId, float],
    now_s: float,
    sleep: Callable[[float], None],
    kept: Counter[str],
) -> list[JobId]:
    """Those of ``over`` with which nobody is busy: no beat of a worker or a client moves."""
    first = {job_id: beats for job_id in over if (beats := _fresh_beats(share.job(job_id), now_s - QUIET_S))}
    if first:
        sleep(2.5 * max(over[job_id] for job_id in first))
    moving = {job_id for job_id, beats in first.items() if any(map(_has_moved, beats, beats.values()))}
    kept["in use"] += len(moving)
    return [job_id for job_id in over if job_id not in moving]


def _fresh_beats(paths: JobPaths, since_s: float) -> dict[str, tuple[int, str] | None]:
    """The beats that were written lately, by file."""
    folders = (paths.workers, paths.clients)
    every = [
        f"{folder}/{name}" for folder in folders for name in files.names(folder) if name.endswith(".beat")
    ]
    return {path: files.read_beat(path) for path in every if _mtime(path) > since_s}


def _has_moved(path: str, before: tuple[int, str] | None) -> bool:
    return files.read_beat(path) != before


def _last_change(paths: JobPaths) -> float:
    return max(_mtime(paths.data), _mtime(paths.control), _mtime(paths.manifest))


# --- objects and runtimes ---


def _unneeded(share: SharePaths, gone: set[JobId], before_s: float) -> Iterator[str]:
    """Old files that no job's manifest names, those of ``gone`` left out."""
    used: set[str] = {runtime.digest()}
    may_need_runtimes = False
    for job_id in jobs.list_jobs(share):
        if job_id in gone:
            continue
        paths = share.job(job_id)
        try:
            with open(paths.manifest, "rb") as file:  # of any version: its digests look the same
                used |= {digest.decode() for digest in _DIGEST.findall(file.read())}
        except FileNotFoundError:  # removed just now, or being made, after its objects were touched
            continue
        may_need_runtimes = may_need_runtimes or not _is_over(paths)
    for folder in (share.objects, share.runtimes):
        for name in files.names(folder):
            is_kept = name.split(".")[0] in used and not name.endswith(".part")
            is_kept = is_kept or (folder == share.runtimes and may_need_runtimes)  # no manifest names those
            path = f"{folder}/{name}"
            if not is_kept and 0 < _mtime(path) < before_s:
                yield path


def _is_over(paths: JobPaths) -> bool:
    with suppress(OSError, ShareError):
        return picture(paths, jobs.read_manifest(paths), 0.0).state.is_final
    return False


# --- one step ---


def _remove(share: SharePaths, path: str, done: Cleaned) -> None:
    n_bytes = _size(path)
    if not done.dry_run:
        try:
            os.rename(path, f"{share.trash}/{os.path.basename(path)}.{os.urandom(4).hex()}")
        except FileNotFoundError:  # somebody else cleans too
            return
        _empty(share)
    done.n_bytes += n_bytes


def _empty(share: SharePaths, done: Cleaned | None = None) -> None:
    """Delete what lies in the trash; what cannot be deleted now stays for the next time."""
    for name in files.names(share.trash):
        path = f"{share.trash}/{name}"
        if done is not None:
            done.n_bytes += _size(path)
            if done.dry_run:
                continue
        with suppress(OSError):
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            shutil.rmtree(path, ignore_errors=True) if is_folder else os.unlink(path)


def _share_time(share: SharePaths) -> float:
    """What time the share's own clock has."""
    path = f"{share.objects}/now.{os.urandom(8).hex()}.part"  # a crash leaves it to the next clean
    files.create(path, [b"."])
    try:
        return _mtime(path)
    finally:
        os.unlink(path)


def _mtime(path: str) -> float:
    """When a file was written; 0 if it is not there."""
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _size(path: str) -> int:
    """The space of a file, or of a folder with everything in it."""
    if not os.path.isdir(path):
        return _space(path)
    return sum(_space(f"{at}/{name}") for at, _, names in os.walk(path) for name in names)


def _space(path: str) -> int:
    with suppress(OSError):
        return os.lstat(path).st_size
    return 0
