"""Failures in a file of the user's, appended as they are recorded: what was called, with what, what came."""

import os
import sys
from typing import Any

from golem_magic.model import Failure
from golem_magic.share.jobs import Manifest

MOST_CHARS = 10_000  # of one input


class _NotLoaded:
    """Stands for an input that is not unpickled once more, as that may be what ended its workers."""

    def __repr__(self) -> str:
        return "(not loaded again: its worker died)"


NOT_LOADED = _NotLoaded()


def append(path: str, manifest: Manifest, index: int, value: Any, failure: Failure) -> None:
    """Add one failure; a file that cannot be written costs a line in the worker's log, never the task.

    One write to a file opened for appending, so that several workers of a machine may share it.

    Args:
        path: Of the file, as this machine sees it.
        manifest: Of the job.
        index: Of the task.
        value: Its input.
        failure: Its outcome.
    """
    remote = failure.traceback.rstrip()
    text = (
        f"--- {manifest.function_name}, task {index} of job {manifest.job_id}, on {failure.host}, "
        f"attempt {failure.attempt}\ninput: {_shown(value)}\n{failure.summary}\n{remote}\n\n"
    )
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, text.encode(errors="replace"))
        finally:
            os.close(fd)
    except OSError as error:
        sys.stderr.write(f"golem_magic worker: cannot append to the error log {path} ({error.strerror})\n")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:MOST_CHARS]
    except Exception as error:  # noqa: BLE001 - a broken __repr__ must not spoil the outcome
        return f"(cannot be shown: {type(error).__name__})"
