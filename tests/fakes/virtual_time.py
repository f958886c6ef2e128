"""Threads and processes in virtual time: one at a time, in an order that a seed decides.

Each virtual thread is a real one that holds a gate; the world opens one gate at a time. A thread gives
the others a chance wherever it sleeps, waits or touches the share, and nowhere else. A process that is
ended gets :class:`EndedError` at its next such place, and whatever it still tries on its way out fails alike.
"""

import heapq
import random
import threading
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any

STACK_BYTES = 256 * 1024


class EndedError(BaseException):
    """This virtual process is dead: nothing it does has any effect."""


class StuckError(AssertionError):
    """No virtual thread can go on, or they go on for ever."""


class Process:
    """Some threads that die together."""

    def __init__(self, name: str, host: str) -> None:
        self.name = name
        self.host = host
        self.is_dead = False
        self.is_over = False
        self.error: BaseException | None = None
        self.stopped_until = 0.0
        self.threads: list[VirtualThread] = []
        self.on_end: list[Callable[[], None]] = []


class VirtualThread:
    """One line of execution of a process."""

    def __init__(self, world: "World", process: Process, run: Callable[[], Any]) -> None:
        self._world = world
        self._run = run
        self.process = process
        self.gate = threading.Lock()
        self.gate.acquire()
        self.is_over = False
        self.turn = 0  # of several wishes to be woken only the newest counts
        self.thread = threading.Thread(target=self._main, daemon=True, name=f"virtual {process.name}")

    def _main(self) -> None:
        self.gate.acquire()
        try:
            if not self.process.is_dead:
                self._run()
        except EndedError:
            pass
        except BaseException as error:  # noqa: BLE001 - the end of this process; who waits for it looks
            self.process.error = self.process.error or error
        self._world.thread_ended(self)


class World:
    """The clock, who is to go on when, and stand-ins for ``threading`` and a clock."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.now = 0.0
        self.n_steps = 0
        self.current: VirtualThread | None = None
        self.processes: list[Process] = []
        self._due: list[tuple[float, float, int, VirtualThread]] = []
        self._main = threading.Lock()
        self._main.acquire()
        self._until = lambda: True
        self.clock = SimpleNamespace(now=lambda: self.now, sleep=self.sleep)
        self.threading = _threading(self)

    # -- what tests use --------------------------------------------------------------------------------

    def start(self, name: str, host: str, run: Callable[[], Any]) -> Process:
        """A new process that runs ``run``."""
        process = Process(name, host)
        self.processes.append(process)
        self.spawn(process, run)
        return process

    def spawn(self, process: Process, run: Callable[[], Any]) -> VirtualThread:
        """One more thread of a process."""
        thread = VirtualThread(self, process, run)
        process.threads.append(thread)
        before = threading.stack_size(STACK_BYTES)
        try:
            thread.thread.start()
        finally:
            threading.stack_size(before)
        self.wake(thread)
        return thread

    def run(self, until: Callable[[], bool], *, latest: float, most_steps: int = 400_000) -> None:
        """Let everybody go on until ``until()``.

        Raises:
            StuckError: That does not come true by the time ``latest``, or in so many steps.
        """
        last_step = self.n_steps + most_steps
        self._until = lambda: until() or self.now > latest or self.n_steps > last_step
        self._hand_over(None)
        if not until():
            raise StuckError(f"not over at {self.now:.1f} s, after {self.n_steps} steps")

    def end(self, process: Process) -> None:
        """Kill a process; its threads find out when they would go on."""
        if process.is_dead or process.is_over:
            return
        process.is_dead = True
        for action in process.on_end:
            action()
        process.stopped_until = 0.0
        for thread in process.threads:
            if not thread.is_over and thread is not self.current:
                self.wake(thread)
        if self.current is not None and self.current.process is process:
            raise EndedError

    def close(self) -> None:
        """End everything and wait until no thread is left."""
        for process in self.processes:
            self.end(process)

        def threads() -> list[VirtualThread]:
            return [thread for process in self.processes for thread in process.threads]

        self._until = lambda: all(thread.is_over for thread in threads())
        if not self._until():
            self._hand_over(None)
        for thread in threads():
            thread.thread.join(10)

    def sleep(self, seconds: float) -> None:
        """Let the current thread wait, and others go on."""
        me = self.current
        assert me is not None, "only virtual threads sleep"
        if me.process.is_dead:
            raise EndedError
        self.wake(me, seconds)
        self._hand_over(me)

    # -- for the stand-ins -----------------------------------------------------------------------------

    def wake(self, thread: VirtualThread, after_s: float = 0.0) -> None:
        """Put a thread among those that are due."""
        thread.turn += 1
        heapq.heappush(self._due, (self.now + after_s, self.chance.random(), thread.turn, thread))

    def wait(self, waiting: list[VirtualThread], timeout_s: float | None = None) -> None:
        """Wait in a list until somebody wakes its members, or for so long."""
        me = self.current
        assert me is not None, "only virtual threads wait"
        if me.process.is_dead:
            raise EndedError
        waiting.append(me)
        me.turn += 1
        if timeout_s is not None:
            self.wake(me, timeout_s)
        try:
            self._hand_over(me)
        finally:
            if me in waiting:
                waiting.remove(me)

    def thread_ended(self, thread: VirtualThread) -> None:
        """The last act of a thread."""
        thread.is_over = True
        process = thread.process
        process.is_over = all(each.is_over for each in process.threads)
        if process.is_over and not process.is_dead:
            for action in process.on_end:
                action()
        following = self._choose()
        (self._main if following is None else following.gate).release()

    def _hand_over(self, me: VirtualThread | None) -> None:
        """Let the next one go on (None is whoever called :meth:`run`); come back when it is our turn."""
        following = self._choose()
        if following is not me:
            (self._main if following is None else following.gate).release()
            (self._main if me is None else me.gate).acquire()
        if me is not None and me.process.is_dead:
            raise EndedError

    def _choose(self) -> VirtualThread | None:
        self.current = None if self._until() else self._next()
        return self.current

    def _next(self) -> VirtualThread | None:
        while self._due:
            at, _, turn, thread = heapq.heappop(self._due)
            if thread.is_over or turn != thread.turn:
                continue
            if thread.process.stopped_until > at:
                heapq.heappush(self._due, (thread.process.stopped_until, self.chance.random(), turn, thread))
                continue
            self.now = max(self.now, at)
            self.n_steps += 1
            return thread
        return None


# --- what the product takes from ``threading``, for one world ---


class _Lock:
    def __init__(self, world: World) -> None:
        self._world = world
        self._holder: VirtualThread | None = None
        self._waiting: list[VirtualThread] = []

    def __enter__(self) -> "_Lock":
        while self._holder is not None and not self._holder.process.is_dead:
            self._world.wait(self._waiting)
        self._holder = self._world.current
        return self

    def __exit__(self, *_: object) -> None:
        self._holder = None
        for thread in self._waiting[:1]:
            self._waiting.remove(thread)
            self._world.wake(thread)


class _Condition(_Lock):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._listening: list[VirtualThread] = []

    def wait(self, timeout: float | None = None) -> None:
        self.__exit__()
        self._world.wait(self._listening, timeout)
        self.__enter__()

    def notify_all(self) -> None:
        listening, self._listening[:] = self._listening[:], []
        for thread in listening:
            self._world.wake(thread)


class _Event:
    def __init__(self, world: World) -> None:
        self._world = world
        self._is_set = False
        self._waiting: list[VirtualThread] = []

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting[:] = self._waiting[:], []
        for thread in waiting:
            self._world.wake(thread)

    def clear(self) -> None:
        self._is_set = False

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._world.wait(self._waiting, timeout)
        return self._is_set


class _Thread:
    def __init__(
        self,
        world: World,
        target: Callable[..., Any],
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._world = world
        self._run = lambda: target(*args, **(kwargs or {}))
        self._thread: VirtualThread | None = None

    def start(self) -> None:
        assert self._world.current is not None
        self._thread = self._world.spawn(self._world.current.process, self._run)

    def join(self) -> None:
        while self._thread is not None and not self._thread.is_over:
            self._world.sleep(0.01)


def _threading(world: World) -> SimpleNamespace:
    def thread(
        target: Callable[..., Any], args: Iterable[Any] = (), kwargs: Any = None, **_: object
    ) -> _Thread:
        return _Thread(world, target, args, kwargs)

    return SimpleNamespace(
        Lock=lambda: _Lock(world),
        Condition=lambda: _Condition(world),
        Event=lambda: _Event(world),
        Thread=thread,
    )
