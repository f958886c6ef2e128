"""Trouble with the share that may pass: the same step again, with growing pauses.

Nothing that was computed is given up for a full disk or a file server that
restarts, and no such trouble is ever recorded as the outcome of a task.
"""

import errno
import sys
from collections.abc import Callable
from typing import TypeVar

from golem_magic.clock import Clock
from golem_magic.errors import FormatError, ShareError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})  # somebody must make room: wait as long as it takes
PASSING = FULL | {
    errno.EIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EAGAIN,
    errno.EINTR,
    errno.ENOTCONN,
    errno.EHOSTDOWN,
    errno.ENETUNREACH,
    errno.EROFS,  # after an error of the disk, until somebody has seen to it
    errno.ENOENT,  # a late cache; names are asked for only after they were seen
}
PAUSE_S = (0.05, 5.0)
LONGEST_S = 60.0  # for trouble other than a full disk; chosen by feel, a file server restarts in less

Value = TypeVar("Value")


def patiently(step: Callable[[], Value], clock: Clock, leaving: Callable[[], bool]) -> Value:
    """Do ``step`` until it works, the trouble looks permanent, or this worker is to leave.

    Raises:
        OSError: The trouble did not pass.
        ShareError: The same, told by the share.
    """
    pause_s, longest_s = PAUSE_S
    began = clock.now()
    while True:
        try:
            return step()
        except (OSError, ShareError) as error:
            number = number_of(error)
            is_over = number not in FULL and clock.now() - began > LONGEST_S
            if number not in PASSING or is_over or leaving():
                raise
            sys.stderr.write(f"golem_magic worker: {error}; trying again in {pause_s:.2g} s\n")
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_s)


def may_pass(error: Exception) -> bool:
    """Whether this is trouble with the share itself, such as a server that is down; a missing file is not."""
    return number_of(error) in PASSING - {errno.ENOENT}


def number_of(error: Exception) -> int | None:
    """The system's number for an error on the share; None if it is of another kind."""
    if not isinstance(error, OSError | ShareError) or isinstance(error, FormatError):
        return None  # also where the user's class could not open a file of its own
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
