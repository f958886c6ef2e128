"""Giving space on the share back: jobs that are over, and what no job refers to any more.

Rules of the file. What is in doubt stays. Nothing is deleted in its place: a name is renamed into
``trash/``, which takes it away at once and whole, and is deleted there; what a crash leaves in the
trash, the next clean deletes. Ages are differences between times that the share itself noted, never
between two machines' clocks.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, TypeVar

from golem_magic.errors import FormatError, ShareError
from golem_magic.model import JobId, JobState
from golem_magic.share import attention, files, holds, jobs, retries, runtime
from golem_magic.share.cleaned import Cleaned, Gone
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths, SharePaths
from golem_magic.share.pictures import picture
from golem_magic.share.retention import DAY_S as DAY_S
from golem_magic.share.retention import STAGING_S, WAITING_S, Family, Limits, choose

OBJECT_AGE_S = 7 * DAY_S  # a client touches what it is about to refer to, long before this
ELSEWHERE_S = 7 * DAY_S  # programs on other machines that hold results cannot be asked
QUIET_S = 3600.0  # a beat older than this needs no second look; chosen by feel
_DIGEST = re.compile(rb"[0-9a-f]{64}")
Item = TypeVar("Item")


def clean(
    share: SharePaths,
    limits: Limits,
    sleep: Callable[[float], None],
    *,
    dry_run: bool,
    is_late: Callable[[], bool] = lambda: False,
) -> Cleaned:
    """Remove the jobs that are kept no longer, then objects that no job needs.

    Args:
        share: Where they are.
        limits: What is kept.
        sleep: Waits, to see whether beats move.
        dry_run: Only tell.
        is_late: Asked between two jobs: whether the rest shall be left to the next time.

    Raises:
        ShareError: The share cannot be read or written.
    """
    done = Cleaned(dry_run)
    with files.explained("clean", share.root):
        files.make_folder(share.trash)
        _empty(share, done)
        now_s = _share_time(share)
        looks = [look for job_id in _until(is_late, jobs.list_jobs(share)) if (look := _look(share, job_id))]
        if is_late():  # who has not seen all jobs cannot tell what all of them take
            limits = replace(limits, max_bytes=None, max_jobs=None)
        for family, why in _choose(share, looks, limits, now_s, sleep, done):
            if is_late():
                break
            for job_id in family.jobs:
                n_bytes = _remove(share, share.job(job_id).root, done)
                if n_bytes is not None:
                    done.gone.append(Gone(job_id, why, family.age_s, n_bytes))
        for path in _until(is_late, _unneeded(share, set(done.jobs), now_s - OBJECT_AGE_S)):
            done.n_objects += 1
            _remove(share, path, done)
        if not dry_run:
            os.utime(share.trash)
    return done


def is_due(share: SharePaths, witness: str) -> bool:
    """Whether nobody has cleaned for a day before a file of this share was written.

    A share that was never cleaned is young, or of a time when nothing was removed by itself: its first
    day begins now.
    """
    if not _mtime(share.trash):
        with files.explained("write", share.root):
            files.make_folder(share.trash)
        return False
    return _mtime(witness) - _mtime(share.trash) > DAY_S


# --- jobs ---


class _Look(NamedTuple):
    """One job, as a look found it; without a manifest there is nothing to know."""

    job_id: JobId
    manifest: Manifest | None = None
    state: JobState | None = None
    is_read: bool = False
    is_told: bool = True  # by its job, if it is a retry
    changed_s: float = 0.0
    n_bytes: int = 0
    stays: str = ""


def _look(share: SharePaths, job_id: JobId) -> _Look | None:
    """Look at a job; None if it is being removed by somebody else."""
    paths = share.job(job_id)
    try:
        if "manifest.json" not in os.listdir(paths.root):
            return _Look(job_id, changed_s=_newest(paths.root, *paths.folders), n_bytes=_size(paths.root))
        manifest = jobs.read_manifest(paths)
        state = picture(paths, manifest, 0.0).state
        origin = manifest.retry_of
        return _Look(
            job_id,
            manifest,
            state,
            is_read=attention.is_read(files.names(paths.control)),
            is_told=origin is None or job_id in retries.found(share.job(origin)),
            changed_s=_newest(*_signs(paths, is_over=state.is_final)),
            n_bytes=_size(paths.root),
        )
    except FormatError:
        return _Look(job_id, n_bytes=_size(paths.root), stays="of another version or damaged")
    except (OSError, ShareError):
        if not os.path.isdir(paths.root):
            return None
        return _Look(job_id, n_bytes=_size(paths.root), stays="not readable")


def _signs(paths: JobPaths, *, is_over: bool) -> list[str]:
    """What changes as long as somebody is at work; of a job that is over, what its end and readers change."""
    signs = [paths.data, paths.control, paths.manifest]
    if is_over:
        return signs
    beats = [beat for folder in (paths.workers, paths.clients) for beat in _beats(folder)]
    return [*signs, *beats, paths.inputs_index, paths.rounds, paths.placements, paths.offers]


def _choose(
    share: SharePaths,
    looks: list[_Look],
    limits: Limits,
    now_s: float,
    sleep: Callable[[float], None],
    done: Cleaned,
) -> list[tuple[Family, str]]:
    """What goes, oldest first; with what somebody is busy is found out only where it would go."""
    groups = _groups(looks)
    families = {group[0].job_id: _family(share, group, now_s) for group in groups}
    going, kept = choose(families.values(), limits)
    first = {look.job_id: look for group in groups for look in group}
    fresh = [first[each] for family, _ in going for each in family.jobs if _fresh_beats(share, each, now_s)]
    if fresh:
        everyone = [look for look in looks if look.manifest is not None and not look.stays]
        moving = set(_moving(share, everyone, now_s, sleep))
        for name, family in families.items():
            if moving.intersection(family.jobs):
                families[name] = replace(family, stays="in use")
        going, kept = choose(families.values(), limits)
    done.kept = kept
    return going


def _groups(looks: Iterable[_Look]) -> list[list[_Look]]:
    """Jobs with their retries; a retry that its job does not tell of, or that has lost it, is alone."""
    by_id = {look.job_id: [look] for look in looks}
    groups = dict(by_id)
    for job_id, (look, *_) in by_id.items():
        origin = look.manifest.retry_of if look.manifest else None
        if origin in groups and look.is_told:
            groups[origin].append(look)
            del groups[job_id]
    return list(groups.values())


def _family(share: SharePaths, group: list[_Look], now_s: float) -> Family:
    first, age_s = group[0], now_s - max(look.changed_s for look in group)
    stays = next((look.stays for look in group if look.stays), "")
    is_held = any(
        holds.is_held(share.job(look.job_id), elsewhere=age_s < ELSEWHERE_S) for look in group if not stays
    )
    return Family(
        jobs=[look.job_id for look in group],
        age_s=age_s,
        n_bytes=sum(look.n_bytes for look in group),
        stays="a program holds its results" if is_held else stays,
        given_up_s=max((_given_up_s(look) for look in group), default=0.0) or None,
        is_half_made=first.manifest is None and not first.stays,
        is_read=first.is_read,
    )


def _given_up_s(look: _Look) -> float:
    """How long a job that is not over may be silent; 0 for others."""
    if look.state is None or look.state.is_final:
        return 0.0
    return STAGING_S if look.state is JobState.STAGING or not look.is_told else WAITING_S


def _moving(
    share: SharePaths, looks: list[_Look], now_s: float, sleep: Callable[[float], None]
) -> Iterator[JobId]:
    """The jobs with which somebody is busy: a beat of a worker or a client moves."""
    first = {look.job_id: _fresh_beats(share, look.job_id, now_s) for look in looks}
    sleep(2.5 * max(look.manifest.beat_s for look in looks if look.manifest and first[look.job_id]))
    for job_id, beats in first.items():
        if any(files.read_beat(path) != before for path, before in beats.items()):
            yield job_id


def _fresh_beats(share: SharePaths, job_id: JobId, now_s: float) -> dict[str, files.Beat | None]:
    """The beats that were written lately, by file."""
    paths = share.job(job_id)
    every = [*_beats(paths.workers), *_beats(paths.clients)]
    return {path: files.read_beat(path) for path in every if _mtime(path) > now_s - QUIET_S}


def _beats(folder: str) -> list[str]:
    return [f"{folder}/{name}" for name in files.names(folder) if name.endswith(".beat")]


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


def _remove(share: SharePaths, path: str, done: Cleaned) -> int | None:
    """Remove a folder or a file; give its space, None if somebody else has removed it."""
    n_bytes = _size(path)
    if not done.dry_run:
        try:
            os.rename(path, f"{share.trash}/{os.path.basename(path)}.{os.urandom(4).hex()}")
        except FileNotFoundError:  # somebody else cleans too
            return None
        _empty(share)
    done.n_bytes += n_bytes
    return n_bytes


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


def _until(is_late: Callable[[], bool], items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        if is_late():
            return
        yield item


def _newest(*paths: str) -> float:
    return max(map(_mtime, paths))


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
