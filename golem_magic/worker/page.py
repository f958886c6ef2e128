"""One page of memory that keeper and runner share: what is running, and when to leave.

A dead runner cannot say what it died of; what it wrote here before each task
survives it. Plain stores of one machine word, no locks: each field has one
writer.
"""

import mmap

# Instead of a task: nothing that is known, the set-up function, unpickling inputs.
NONE, SETUP, LOADING = -1, -2, -3
_LEAVE, _TASK, _LENGTH, _OVER, _BEGAN = 0, 1, 2, 3, 4
_TEXT = 64


class Page:
    """Made before the fork, used on both sides of it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)
        self._words = memoryview(self._memory).cast("q")
        self.clear()

    def clear(self) -> None:
        """No task, no lease."""
        self._words[_TASK] = NONE
        self._words[_LENGTH] = 0
        self._words[_OVER] = 0

    @property
    def is_over(self) -> bool:
        """Whether the runner says itself that it has ended its work; an exit code can come from a task."""
        return self._words[_OVER] != 0

    @is_over.setter
    def is_over(self, value: bool) -> None:
        self._words[_OVER] = value

    @property
    def marks(self) -> memoryview:
        """The words, for a loop that stores the running task's index and beginning by itself."""
        return self._words

    @property
    def task(self) -> int:
        """Index of the task that is running; NONE, SETUP or LOADING if none is."""
        return self._words[_TASK]

    @task.setter
    def task(self, index: int) -> None:
        self._words[_TASK] = index

    @property
    def began_ns(self) -> int:
        """When the running task began, on this machine's monotonic clock."""
        return self._words[_BEGAN]

    @property
    def lease(self) -> str:
        """Name of the lease that the runner holds, empty for none."""
        length = self._words[_LENGTH]
        return self._memory[_TEXT : _TEXT + length].decode()

    @lease.setter
    def lease(self, name: str) -> None:
        data = name.encode()
        self._words[_LENGTH] = 0
        self._memory[_TEXT : _TEXT + len(data)] = data
        self._words[_LENGTH] = len(data)

    @property
    def leave(self) -> bool:
        """Whether the runner shall publish, hand back the rest and end."""
        return self._words[_LEAVE] != 0

    @leave.setter
    def leave(self, value: bool) -> None:
        self._words[_LEAVE] = value
