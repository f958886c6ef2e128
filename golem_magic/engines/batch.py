"""What all schedulers have in common that are spoken to by submit, query and cancel commands.

The id that we wish for travels in the name of the scheduler's job, with the number of its workers. So one
query of the user's jobs finds all our placements, whoever submitted them, and a submission whose answer was
lost is found before it would be repeated.

Schedulers forget: what has ended vanishes from their queue, at once or after some minutes. Hence an engine
remembers what it has seen. A worker that was there and is no longer listed has ended.
"""

import os
import re
import shlex
import signal
import subprocess
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from golem_magic.errors import EngineError
from golem_magic.model import NativeId, Node, PlacementState, PlacementStatus, WorkerSpec

# Chosen by feel: a controller that is busy makes its own commands wait, for ten seconds each time.
TIMEOUT_S = 40.0
SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
JOB_NAME = re.compile(r"gm-(?P<id>[A-Za-z0-9_-]{1,64})\.(?P<count>[0-9]{1,9})")
# What must not reach the queue, where administrators and sometimes everybody can read it, and what means
# something on the machine of the notebook only.
NOT_PASSED = re.compile(
    r"""GOLEM_MAGIC_ | JPY_ | JUPYTER | KERNEL_ | SSH_ | XDG_ | DBUS_
    | (DISPLAY|WAYLAND_DISPLAY|XAUTHORITY|TMP|TEMP|TMPDIR|PWD|OLDPWD|SHLVL|_)\Z
    | .* (PASSW | PASSPHRASE | SECRET | TOKENS?(_|\Z) | CREDENTIAL | COOKIE | (API|ACCESS|PRIVATE)_?KEY)""",
    re.VERBOSE | re.IGNORECASE,
)
PASSWORD_IN_URL = re.compile(r"://[^/\s@]*:[^/\s@]+@")


@dataclass(frozen=True, slots=True)
class Element:
    """One worker of a placement, as the queue lists it.

    Attributes:
        name: Of the scheduler's job; see :func:`job_name`.
        job_id: The scheduler's own number of that job, which all workers of a placement have in common.
        index: Of the worker within it, from 0.
        state: Pending, running or ended.
        is_error: It has ended badly.
        reason: Why it waits, or how it ended, in words; empty if there is nothing to say.
    """

    name: str
    job_id: str
    index: int
    state: PlacementState
    is_error: bool = False
    reason: str = ""


@dataclass(slots=True)
class _Placement:
    """What is remembered of a placement: its job, and the newest word on each worker ever seen."""

    job_id: str
    n_workers: int
    elements: dict[int, Element] = field(default_factory=dict)


class Answer(NamedTuple):
    """What a scheduler's command printed."""

    command: str
    status: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """Its complaint, on one line."""
        lines = [line.strip() for line in (self.err or self.out).splitlines()]
        return "; ".join(dict.fromkeys(filter(None, lines))) or f"exit status {self.status}"


class BatchEngine(ABC):
    """An engine on a scheduler with commands; its subclasses know one scheduler each.

    Attributes:
        ask_s: The shortest and the longest pause between two questions; schedulers serve many people.
        scheduler: What it is called in messages.
        install: What to do where its commands are missing.
    """

    ask_s: tuple[float, float] = (2.0, 60.0)
    scheduler = "the scheduler"
    install = "install its client commands"
    own_variables: tuple[str, ...] = ()  # beginnings of names: options of its commands, marks of its jobs
    passed_variables: tuple[str, ...] = ()  # those of them that say which cluster is meant

    def __init__(self) -> None:
        self._placements: dict[NativeId, _Placement] = {}

    @property
    def share_is_local(self) -> bool:
        """False: workers run on other machines."""
        return False

    def submit(self, spec: WorkerSpec) -> NativeId:
        """Ask for workers, but no more than the scheduler takes at once; see :meth:`Engine.submit`.

        If it took fewer, :meth:`poll` tells so: ``n_workers`` is what was asked of the scheduler.
        """
        check(spec)
        if spec.native_id not in self._placements:
            self._look()  # it may be there from a request whose answer was lost, or from another client
        if spec.native_id not in self._placements:
            count = min(spec.count, self._most_at_once())
            spec = replace(spec, count=count)
            self._placements[spec.native_id] = _Placement(self._submit(spec, job_name(spec)), count)
        return spec.native_id

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        """Report on all ``ids``, with one query; see :meth:`Engine.poll`."""
        if ids:
            self._look()
        return {native_id: self._status(self._placements.get(native_id)) for native_id in ids}

    def cancel(self, ids: Collection[NativeId]) -> None:
        """Take back those that wait and end those that run; see :meth:`Engine.cancel`."""
        if any(native_id not in self._placements for native_id in ids):
            self._look()
        known = [self._placements[native_id] for native_id in ids if native_id in self._placements]
        job_ids = [placement.job_id for placement in known if not _has_ended(placement)]
        if job_ids:
            self._cancel(job_ids)

    def n_slots(self) -> int | None:
        """How many workers the machines that are up can run at once, others' jobs aside."""
        return min(sum(node.n_slots for node in self.nodes()), self._most_at_once())

    @abstractmethod
    def nodes(self) -> list[Node]:
        """The machines that are up; see :class:`TellsNodes`."""

    def close(self) -> None:  # noqa: B027 - nothing is held
        """Do nothing: there is no connection. Workers run on."""

    # --- what a subclass knows ---

    @abstractmethod
    def _submit(self, spec: WorkerSpec, name: str) -> str:
        """Submit one job of that name with ``spec.count`` elements; give the scheduler's number for it."""

    @abstractmethod
    def _listed(self) -> list[Element]:
        """What the queue has of this user's jobs; those that are not ours may be among them."""

    @abstractmethod
    def _cancel(self, job_ids: Sequence[str]) -> None:
        """End whole jobs; those that have ended are no error."""

    def _most_at_once(self) -> int:
        """The longest array that the scheduler takes."""
        return 1000

    def _explained(self, element: Element) -> Element:
        """The same element, which has ended badly, with what else can be found out about that."""
        return element

    # --- what they share ---

    def _look(self) -> None:
        """Take in what the queue says, for all placements that are ours."""
        listed: dict[NativeId, dict[int, Element]] = {}
        for element in self._listed():
            match = JOB_NAME.fullmatch(element.name)
            if match:
                native_id = NativeId(match["id"])
                listed.setdefault(native_id, {})[element.index] = element
                if native_id not in self._placements:
                    self._placements[native_id] = _Placement(element.job_id, int(match["count"]))
        for native_id, placement in self._placements.items():
            if not _has_ended(placement):
                self._take_in(placement, listed.get(native_id, {}))

    def _take_in(self, placement: _Placement, listed: Mapping[int, Element]) -> None:
        is_explained = any(element.is_error for element in placement.elements.values())
        for index in range(placement.n_workers):
            before, now = placement.elements.get(index), listed.get(index)
            if now is None:
                now = Element("", placement.job_id, index, PlacementState.ENDED)
                if before is not None and before.state is PlacementState.ENDED:
                    now = before
            elif now.is_error and not is_explained:  # one is enough to tell, and each costs a question
                now, is_explained = self._explained(now), True
            placement.elements[index] = now

    def _status(self, placement: _Placement | None) -> PlacementStatus:
        if placement is None:
            reason = f"{self.scheduler} does not know it"
            return PlacementStatus(state=PlacementState.UNKNOWN, reason=reason)
        elements = placement.elements.values()
        states = Counter(element.state for element in elements)
        n_ended = states[PlacementState.ENDED]
        state = PlacementState.PENDING
        if n_ended == placement.n_workers:
            state = PlacementState.ENDED
        elif states[PlacementState.RUNNING]:
            state = PlacementState.RUNNING
        return PlacementStatus(
            state=state,
            n_workers=placement.n_workers,
            n_ended=n_ended,
            n_errored=sum(element.is_error for element in elements),
            reason=_reason(elements),
        )

    # --- commands ---

    def _run(self, *words: str, stdin: str | None = None) -> Answer:
        """Run one of the scheduler's commands; with a script as ``stdin``, it hands its variables to workers.

        Raises:
            EngineError: The command is not there, or does not end.
        """
        variables = environment(self.own_variables, self.passed_variables)
        try:
            done = subprocess.run(
                words,
                input=os.fsencode(stdin or ""),
                capture_output=True,
                timeout=TIMEOUT_S,
                env=variables if stdin is not None else {**variables, "LC_ALL": "C"},
                cwd="/",
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            said = Answer(words[0], 1, "", _text(error.stderr)).words if error.stderr else "nothing"
            message = (
                f"{words[0]} has not ended within {TIMEOUT_S:.0f} s, and said: {said}: "
                f"{self.scheduler} may be busy or down, trying again may help"
            )
            raise EngineError(message, transient=True) from None
        except FileNotFoundError:
            message = f"there is no command {words[0]} here: {self.install}"
            raise EngineError(message) from None
        except OSError as error:
            message = f"{words[0]} cannot be run here ({error.strerror}): {self.install}"
            raise EngineError(message) from error
        return Answer(words[0], done.returncode, _text(done.stdout), _text(done.stderr))


def check(spec: WorkerSpec) -> None:
    """Refuse what no scheduler can carry.

    Raises:
        EngineError: Permanent; nothing was submitted.
    """
    if not SAFE_ID.fullmatch(spec.native_id):
        message = f"placement {spec.native_id!r} must be 1 to 64 letters, digits, '-' or '_'"
        raise EngineError(message)
    if spec.count < 1:
        message = f"placement {spec.native_id} asks for {spec.count} workers: ask for 1 or more"
        raise EngineError(message)
    if not spec.argv or not spec.argv[0]:
        message = f"placement {spec.native_id} names no program to start"
        raise EngineError(message)
    if any("\0" in word or "\r" in word for word in spec.argv):
        message = (
            f"the command of placement {spec.native_id} holds NUL or a carriage return: rename that path"
        )
        raise EngineError(message)


def job_name(spec: WorkerSpec) -> str:
    """The name of the scheduler's job, from which :data:`JOB_NAME` reads id and count."""
    return f"gm-{spec.native_id}.{spec.count}"


def script(spec: WorkerSpec, index: str) -> str:
    """The shell script of one worker: its command and the three words that name the worker.

    Args:
        spec: What to start.
        index: The worker's number from 0, as an expression of the shell.
    """
    return f'#!/bin/sh\nexec {shlex.join(spec.argv)} {spec.native_id} 0 "{index}"\n'


def comment(spec: WorkerSpec) -> str:
    """What people shall read with the job: one line."""
    return " ".join(f"{spec.label} {spec.owner}".split())


def exit_words(code: int, number: int) -> str:
    """How a worker ended, in words, from its exit code and the signal that ended it."""
    if number:
        try:
            return f"it was ended by {signal.Signals(number).name}"
        except ValueError:
            return f"it was ended by signal {number}"
    what = {126: "its program cannot be run", 127: "its program was not found"}.get(code, "it ended badly")
    return f"{what} (exit code {code})"


def environment(own: Sequence[str], passed: Sequence[str]) -> dict[str, str]:
    """This process's variables, without what looks like a secret or is true on this machine only.

    Args:
        own: Beginnings of names that the scheduler gives a meaning: this process may itself be one of
            its jobs, whose marks would garble another one.
        passed: Those of them that stay.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if not NOT_PASSED.match(name)
        and not PASSWORD_IN_URL.search(value)
        and (name in passed or not name.startswith(tuple(own)))
    }


def _has_ended(placement: _Placement) -> bool:
    elements = placement.elements
    return len(elements) == placement.n_workers and all(
        element.state is PlacementState.ENDED for element in elements.values()
    )


def _reason(elements: Collection[Element]) -> str:
    """The commonest reason of those that wait, else of those that ended badly."""
    waiting = Counter(each.reason for each in elements if each.state is PlacementState.PENDING)
    failed = Counter(each.reason for each in elements if each.is_error)
    for reasons in (waiting, failed):
        reasons.pop("", None)
        if reasons:
            return reasons.most_common(1)[0][0]
    return ""


def _text(data: bytes) -> str:
    return data.decode(errors="replace")
