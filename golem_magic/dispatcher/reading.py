"""How far readers have come, for whoever holds inputs back until there is room for their results."""

from golem_magic.share.layout import Done


class Reading:
    """What has been handed to readers of one job; written by the reading threads, step by step.

    Attributes:
        to: The task behind the last one whose outcome was handed out.
        n_bytes: Size of all outcomes handed out.
        freed_to: The task behind the last one whose outcome was freed.
    """

    def __init__(self) -> None:
        self.to = 0
        self.n_bytes = 0
        self.freed_to = 0
        self._seen: set[int] = set()

    def note(self, entry: Done) -> None:
        """A reader was handed an entry's outcomes; the same ones again count nothing."""
        if entry.start not in self._seen:
            self._seen.add(entry.start)
            self.n_bytes += entry.size
        self.to = max(self.to, entry.end)

    def note_freed(self, entry: Done) -> None:
        """An entry's outcomes are gone from the share."""
        self.freed_to = max(self.freed_to, entry.end)
