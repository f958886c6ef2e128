"""The embedded Golem's life: become the only one, listen, tell where, stay while needed, leave."""

import argparse
import contextlib
import os
import secrets
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from golem_magic.cpus import usable_cpus
from golem_magic.master.address import StateFolder
from golem_magic.master.clients import Clients
from golem_magic.master.server import MasterServer
from golem_magic.master.slots import Slots
from golem_magic.master.starter import Starter
from golem_magic.master.usage import Usage

LOOK_S = 1.0  # for clients that are gone
LOOK_AT_CONTENTION_S = 0.1
SWEEP_S = 3600.0  # between two looks for output that is a week old
LATE_S = 5.0  # for connections that have become silent
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
WOKEN, LEAVE = 0, 255  # bytes on the waking pipe that are no signal's number


class Alarm:
    """Wakes the main loop: by signal, from another thread, or when time is up."""

    def __init__(self) -> None:
        self._in, self._out = os.pipe()
        for descriptor in (self._in, self._out):
            os.set_blocking(descriptor, False)

    def catch_signals(self) -> None:
        """Turn the signals that end us into a byte, so that ending is the loop's work."""
        for number in ENDING:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._out, warn_on_full_buffer=False)

    def ring(self, byte: int = WOKEN) -> None:
        """Wake the loop; any thread may."""
        with contextlib.suppress(BlockingIOError):  # full: it is awake already
            os.write(self._out, bytes([byte]))

    def wait(self, timeout_s: float) -> bool:
        """Wait; whether it is time to leave."""
        readable, _, _ = select.select([self._in], [], [], timeout_s)
        received = os.read(self._in, 4096) if readable else b""
        return any(byte == LEAVE or byte in ENDING for byte in received)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the master, or see that one runs; the exit code says whether it is what was wanted."""
    options = _parser().parse_args(argv)
    os.environ.pop("GOLEM_MAGIC_SERVER_PASSWORD", None)  # of another master: no task of ours needs it
    try:
        state = StateFolder(Path(options.state).absolute())
        tell_ready = _detach(state.log) if options.detach else _tell_terminal
        if tell_ready is None:
            return 0
        with state.hold() as lock:
            if lock is None:
                return _see_another(state, tell_ready, is_fine=options.detach)
            _serve(state, lock, options, tell_ready)
    except OSError as error:
        sys.stderr.write(f"no master in {options.state}: {error}\n")
        return 1
    sys.stderr.flush()
    os._exit(0)  # threads that still answer or wait have nothing to lose


def _detach(log: Path) -> Callable[[str], None] | None:
    """Go on in a process of its own session whose streams end in the log.

    Returns:
        In the original process None, as soon as the other one is ready; there, what to call
        then. If the other one ends first, the original exits with code 1.
    """
    ready_in, ready_out = os.pipe()
    if os.fork():
        os.close(ready_out)
        if not os.read(ready_in, 1):
            sys.exit(1)
        return None
    os.close(ready_in)
    os.setsid()
    descriptors = [
        os.open(os.devnull, os.O_RDONLY),
        os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
    ]
    for number, descriptor in ((0, descriptors[0]), (1, descriptors[1]), (2, descriptors[1])):
        os.dup2(descriptor, number)
    for descriptor in descriptors:
        os.close(descriptor)

    def tell_ready(_: str) -> None:
        os.write(ready_out, b"!")
        os.close(ready_out)

    return tell_ready


def _see_another(state: StateFolder, tell_ready: Callable[[str], None], *, is_fine: bool) -> int:
    """Whoever starts a master to find it later is content with any; at a terminal this one was meant."""
    if is_fine:
        tell_ready("")
        return 0
    sys.stderr.write(
        f"another master serves {state.path} already ({state.address} says where): use it, end it, or name"
        " another folder by --state\n"
    )
    return 1


def _tell_terminal(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


def _serve(
    state: StateFolder, lock: int, options: argparse.Namespace, tell_ready: Callable[[str], None]
) -> None:
    alarm = Alarm()
    alarm.catch_signals()
    starter = Starter(state.work, lock)  # first: it warms up while we go on
    password = secrets.token_urlsafe(24)
    clients = Clients(options.linger)
    slots = Slots(state, starter, n_slots=_n_slots(state, options), on_contention=alarm.ring)
    server = MasterServer(
        options.port,
        slots,
        clients,
        password=password,
        is_open_to_read=options.open_reads,
        leave=lambda: alarm.ring(LEAVE),
    )
    slots.restore()
    threading.Thread(target=server.serve_forever, args=(LATE_S,), name="listener", daemon=True).start()
    state.publish(server.url, password)
    tell_ready(f"{server.url} (password in {state.address})")
    _stay(alarm, slots, clients, Usage(state.usage))
    if rest := slots.describe_rest():
        sys.stderr.write(f"{rest}\n")
    else:
        state.forget_size()


def _n_slots(state: StateFolder, options: argparse.Namespace) -> int:
    """As many as a master that left work behind was resized to, unless a person says otherwise."""
    kept = state.kept_size()
    if kept is not None and (options.detach or options.slots is None):
        return kept
    state.forget_size()
    return usable_cpus() if options.slots is None else int(options.slots)


def _stay(alarm: Alarm, slots: Slots, clients: Clients, usage: Usage) -> None:
    """Block until told to leave, or until nobody needs us any more."""
    sweep_at_s = time.monotonic()
    while not alarm.wait(LOOK_AT_CONTENTION_S if slots.is_contended else LOOK_S):
        slots.look_after_adopted()
        slots.share_fairly()
        slots.forget_old()
        if time.monotonic() >= sweep_at_s:
            slots.output.sweep()
            sweep_at_s = time.monotonic() + SWEEP_S
        usage.look(slots.unfinished, n_running=slots.n_running, n_slots=slots.n_slots)
        if clients.is_time_to_leave(is_idle=slots.is_idle) and slots.retire():
            return
    slots.retire(is_forced=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m golem_magic.master", description=__doc__)
    parser.add_argument("--state", metavar="DIR", required=True, help="folder of its address, log and output")
    parser.add_argument("--slots", metavar="N", type=int, help="tasks at once (default: usable CPUs)")
    parser.add_argument("--port", metavar="P", type=int, default=0, help="default: any free one")
    parser.add_argument("--open-reads", action="store_true", help="reading needs no password")
    parser.add_argument(
        "--linger",
        metavar="SECONDS",
        type=float,
        default=3.0,
        help="stay so long without clients and unfinished jobs; inf: for ever (default: 3)",
    )
    parser.add_argument("--detach", action="store_true", help="return when it answers; it runs on")
    return parser


if __name__ == "__main__":
    sys.exit(main())
