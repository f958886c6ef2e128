"""How far readers have come, for whoever holds inputs back until there is room for their results."""

from collections.abc import Callable

from golem_magic.share.layout import Done


class Reading:
    """What has been handed to readers of one job; written by the reading threads, step by step.

    Attributes:
        wanted: Tasks that readers need: up to the one behind those handed out, or the one asked for.
        n_bytes: Size of all outcomes handed out.
        on_freed: Called with the task behind the last one whose outcome was freed.
    """

    def __init__(self) -> None:
        self.wanted = 1
        self.n_bytes = 0
        self.on_freed: Callable[[int], None] = lambda _task: None
        self._seen: set[int] = set()

    def want(self, task: int) -> None:
        """A reader waits for this task's outcome."""
        self.wanted = max(self.wanted, task + 1)

    def note(self, entry: Done) -> None:
        """A reader was handed an entry's outcomes; the same ones again count nothing."""
        if entry.start not in self._seen:
            self._seen.add(entry.start)
            self.n_bytes += entry.size
        self.want(entry.end)

    def note_kept(self, n_kept: int, n_bytes: int) -> None:
        """Of ``n_bytes`` of outcomes only so many are on the share: the others were read somewhere."""
        self.n_bytes = max(self.n_bytes, n_bytes - n_kept)

    def note_freed(self, entry: Done) -> None:
        """An entry's outcomes are gone from the share."""
        self.on_freed(entry.end)
