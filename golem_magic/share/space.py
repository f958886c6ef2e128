"""How much room a share's disk has, and when that is so little that no new work should be begun."""

import os
from typing import NamedTuple

from golem_magic.share import files

LEAST_BYTES = 1 << 30
LEAST_PART = 0.05  # of the disk, if that is more
MOST_PART = 0.1  # of the disk: a small one need not be half empty


class Space(NamedTuple):
    """Bytes of a disk: free for this user, in all, and how many must stay free."""

    free: int
    total: int
    least: int

    @property
    def is_low(self) -> bool:
        """Whether results that nobody frees would soon fill the disk."""
        return self.free < self.least


def space_at(path: str) -> Space:
    """The room on the disk that holds a folder.

    Raises:
        ShareError: It cannot be asked.
    """
    with files.explained("look at", path):
        found = os.statvfs(path)
    total = found.f_blocks * found.f_frsize
    least = min(max(LEAST_BYTES, total * LEAST_PART), total * MOST_PART)
    return Space(found.f_bavail * found.f_frsize, total, int(least))
