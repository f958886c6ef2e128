"""What people did with a job: whether they have read how it ended, and when something happened to it last."""

import os
from contextlib import suppress

from golem_magic.share import files, jobs
from golem_magic.share.layout import JobPaths

_READ = "read"


def note_read(paths: JobPaths) -> None:
    """Say that somebody was handed outcomes of a job that is over; twice is harmless, and so is never."""
    with suppress(OSError):
        files.touch(f"{paths.control}/{_READ}")


def is_read(control: list[str]) -> bool:
    """Whether somebody was, by the names in a job's ``control/``."""
    return _READ in control


def has_fresh_client(paths: JobPaths, control: list[str], since_s: float) -> bool:
    """Whether a client has beaten since a time by the share's clock; one that was killed a moment ago has."""
    return any(_changed_s(paths.client_beat(number)) > since_s for number in jobs.client_numbers(control))


def changed_s(paths: JobPaths) -> float:
    """When outcomes came last, or something was told of a job, in seconds since 1970 by the share's clock."""
    return max(_changed_s(paths.data), _changed_s(paths.control), _changed_s(paths.rounds))


def _changed_s(path: str) -> float:
    with suppress(OSError):
        return os.lstat(path).st_mtime
    return 0.0
