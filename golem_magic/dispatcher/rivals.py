"""Other clients of the same job: who lives, and whether one of them is newer and so places workers."""

from golem_magic.clock import Clock
from golem_magic.share import files, jobs
from golem_magic.share.layout import JobPaths


class Rivals:
    """What the other clients' beats say, compared with themselves by our own clock.

    Attributes:
        any_newer: A client with a higher number lives: it places workers, we only heal.
        any_alive: Any other client lives.
    """

    def __init__(self, paths: JobPaths, own_number: int, lease_s: float, clock: Clock) -> None:
        self._paths = paths
        self._own_number = own_number
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[int, tuple[object, float]] = {}
        self.any_newer = False
        self.any_alive = True  # until we have looked for a while

    def look(self, control: list[str]) -> None:
        """Read all beats; a client that is new to us counts as alive at first."""
        others = [number for number in jobs.client_numbers(control) if number != self._own_number]
        alive = [number for number in others if self._is_alive(number)]
        self.any_alive = bool(alive)
        self.any_newer = any(number > self._own_number for number in alive)

    def _is_alive(self, number: int) -> bool:
        now = self._clock.now()
        beat = files.read_beat(self._paths.client_beat(number))
        last, since = self._seen.get(number, (None, now))
        if number not in self._seen or beat != last:
            self._seen[number] = (beat, now)
            return True
        return now - since <= self._lease_s
