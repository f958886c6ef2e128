"""What tasks leave running in sessions of their own: the keeper adopts it and ends it with the runner.

Linux gives the orphans among a process's descendants to the nearest ancestor that asks for them,
instead of to init (prctl(2), PR_SET_CHILD_SUBREAPER). Elsewhere they are not found.
"""

import os
import signal
import sys
from contextlib import suppress

from golem_magic.clock import Clock

PR_SET_CHILD_SUBREAPER = 36  # <sys/prctl.h>
PATIENCE_S = 1.0  # with processes that do not even die of SIGKILL at once
PAUSE_S = 0.001


def adopt() -> None:
    """Become the parent of every descendant whose own parent ends, from now on."""
    if sys.platform == "linux":
        import ctypes

        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end(clock: Clock, *, besides: int) -> None:
    """Kill and reap all children but one; children of theirs become ours meanwhile, hence the rounds.

    Args:
        clock: Time.
        besides: The child that is somebody else's to await.
    """
    until = clock.now() + PATIENCE_S
    while (orphans := _children() - {besides}) and clock.now() < until:
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
        clock.sleep(PAUSE_S)


def _children() -> set[int]:
    """The children of this process, which has one thread; none where the system does not list them."""
    with suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(map(int, file.read().split()))
    return set()
