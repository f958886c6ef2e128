"""Other clients of the same job: only the newest one that lives places workers."""

from golem_magic.clock import Clock
from golem_magic.share import files, jobs
from golem_magic.share.layout import JobPaths


class Rivals:
    """Clients with higher numbers, and when each was last seen to beat, by our own clock."""

    def __init__(self, paths: JobPaths, own_number: int, lease_s: float, clock: Clock) -> None:
        self._paths = paths
        self._own_number = own_number
        self._lease_s = lease_s
        self._clock = clock
        self._seen: dict[int, tuple[object, float]] = {}

    def any_newer(self, control: list[str]) -> bool:
        """Whether a newer client lives; one that is new to us counts as alive at first."""
        newer = [number for number in jobs.client_numbers(control) if number > self._own_number]
        return any(self._is_alive(number) for number in newer)

    def _is_alive(self, number: int) -> bool:
        now = self._clock.now()
        beat = files.read_beat(self._paths.client_beat(number))
        last, since = self._seen.get(number, (None, now))
        if number not in self._seen or beat != last:
            self._seen[number] = (beat, now)
            return True
        return now - since <= self._lease_s
