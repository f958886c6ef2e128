"""What a map needs to know of its process: whose it is, where it works, whether it is a task."""

import getpass
import os
import platform

from golem_magic.errors import InfiniteRecursionError


def refuse_recursion() -> None:
    """Let no task start a job.

    Raises:
        InfiniteRecursionError: This process runs one.
    """
    if "GOLEM_MAGIC_JOB" in os.environ:
        message = (
            f"a task of job {os.environ['GOLEM_MAGIC_JOB'][:8]} tried to start a job of its own: map once "
            f"over all combinations, or use the built-in map inside the task"
        )
        raise InfiniteRecursionError(message)


def working_folder() -> str:
    """Where this process works."""
    try:
        return os.getcwd()
    except OSError:  # it was removed under us
        return "/"


def owner() -> str:
    """User and host, as they are shown with a job."""
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (OSError, KeyError):
        return f"uid {os.getuid()}"
