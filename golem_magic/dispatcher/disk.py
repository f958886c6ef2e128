"""Why workers begin nothing new: results pile up on a disk that is nearly full."""

from golem_magic.clock import Clock
from golem_magic.share.jobs import Manifest
from golem_magic.share.layout import JobPaths
from golem_magic.share.space import space_at

LOOK_S = 1.0  # between two looks


class DiskWatch:
    """Looks at the disk of a job whose results nobody frees; workers look for themselves.

    Attributes:
        note: What the user should know and do; empty while there is room.
    """

    def __init__(self, paths: JobPaths, manifest: Manifest, clock: Clock) -> None:
        self.note = ""
        self._root = paths.root
        self._share = paths.root.rpartition("/jobs/")[0]
        self._is_off = manifest.keep != "all"
        self._clock = clock
        self._look_at_s = 0.0

    def look(self) -> None:
        """Look again, unless that was done a moment ago.

        Raises:
            ShareError: The disk cannot be asked.
        """
        now = self._clock.now()
        if self._is_off or now < self._look_at_s:
            return
        self._look_at_s = now + LOOK_S
        space = space_at(self._root)
        self.note = ""
        if space.is_low:
            self.note = (
                f"workers wait: {space.free >> 20} of {space.total >> 20} MiB are free on the disk of "
                f"{self._share}, {space.least >> 20} must stay; delete there what you can spare "
                f"(%golem clean --dry-run tells what could go) or cancel"
            )
