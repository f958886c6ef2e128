"""The engine on Slurm: one ``sbatch --array`` per placement, one ``squeue`` for all of them, ``scancel``.

Needs no accounting: what ended is known from ``squeue -t all``, which lists it for some minutes, and from
what was seen before. Its output is asked for in a format of our own, which has been the same in all versions;
that of ``--json`` has not.
"""

import argparse
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NoReturn, Self

from golem_magic.engines.base import EngineOptions
from golem_magic.engines.batch import Answer, BatchEngine, Element, comment, exit_words, script
from golem_magic.errors import EngineError, SettingsError
from golem_magic.model import Node, PlacementState, WorkerSpec

# What people may say otherwise in slurm_options. Slurm keeps no output: workers write logs on the share. They
# are told half a minute before their time is over, and hand back what they have not begun.
DEFAULTS = (
    "--output=/dev/null",
    "--error=/dev/null",
    "--chdir=/tmp",
    "--ntasks=1",
    "--signal=B:TERM@30",
    "--requeue",
)
QUEUE_FORMAT = "%F|%K|%T|%r|%j"  # job, element, state, reason, name
NODE_FORMAT = "%P|%N|%C"  # partition, name, CPUs as allocated/idle/other/total
MAX_ARRAY_SIZE = 1001  # Slurm's own default
ENDED = {
    "COMPLETED": "",
    "CANCELLED": "it was cancelled",
    "PREEMPTED": "another job took its place",
    "REVOKED": "another cluster runs it",
    "FAILED": "it ended badly",
    "TIMEOUT": "it was ended at its time limit",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "it used more memory than it may have",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "its deadline passed",
}
BAD = frozenset(ENDED) - {"COMPLETED", "CANCELLED", "PREEMPTED", "REVOKED"}
WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
# Slurm's words for why something waits, by their beginnings, the first that fits.
WAITS = {
    "None": "Slurm has not looked at it yet",
    "Priority": "jobs of higher priority come first",
    "Resources": "what it asks for is not free yet",
    "JobArrayTaskLimit": "the array's own limit of workers at once is reached",
    "BeginTime": "it may start a little later, as after the loss of a node",
    "Dependency": "it depends on another job",
    "JobHeldUser": "you hold it: release it with scontrol release",
    "JobHeldAdmin": "an administrator holds it, or it could not be started: ask them",
    "launch failed": "it could not be started, and is held: ask an administrator",
    "Reserv": "it waits for a reservation",
    "ReqNodeNotAvail": "nodes that it needs are down, drained or reserved",
    "Nodes required for job are DOWN": "nodes that it needs are down, drained or reserved",
    "NodeDown": "a node that it needs is down",
    "PartitionDown": "its partition is closed",
    "PartitionInactive": "its partition is closed",
    "PartitionNodeLimit": "it asks for more nodes than its partition gives: change slurm_options",
    "PartitionTimeLimit": "it asks for more time than its partition gives: lower --time in slurm_options",
    "PartitionConfig": "its partition does not give what it asks for: change slurm_options",
    "BadConstraints": "no node has what it asks for: change slurm_options",
    "InvalidAccount": "its account may not be used: set another --account in slurm_options",
    "InvalidQOS": "its QOS may not be used: set another --qos in slurm_options",
    "AccountNotAllowed": "its account may not use this partition: change slurm_options",
    "QOSNotAllowed": "its QOS may not be used with this partition: change slurm_options",
    "Licenses": "the licenses that it needs are in use",
    "QOSMax": "your QOS allows no more at once",
    "QOSGrp": "all users of your QOS together have reached its limit",
    "AssocMax": "your account allows you no more at once",
    "AssocGrp": "all users of your account together have reached its limit",
}
# Words of a refusal that may pass; all others are the scheduler's last word.
PASSING = re.compile(
    r"unable to (contact|establish)|timed out|temporarily|connection refused|communication connection failure"
    r"|connect failure|zero bytes|not responding|standby|in recovery|try again"
    r"|munge|authentication|transport endpoint|controller",
    re.IGNORECASE,
)
# What a trial says of nodes that are down or busy as well: a submission waits for them.
NOT_NOW = re.compile(
    r"requested node configuration|nodes? (is|are) busy|required node not available", re.IGNORECASE
)
GONE = re.compile(r"invalid job id|already complet|job/step already", re.IGNORECASE)


class SlurmEngine(BatchEngine):
    """Places workers as the elements of a Slurm job array.

    Args:
        options: Further arguments of ``sbatch``, one string as in a shell; they overrule :data:`DEFAULTS`.

    Raises:
        SettingsError: ``options`` cannot be read.
    """

    scheduler = "Slurm"
    install = (
        "run the notebook where Slurm's commands are, such as a login node, or install them (slurm-client)"
    )
    own_variables = ("SLURM", "SQUEUE_", "SINFO_", "SCANCEL_", "SALLOC_", "SRUN_")
    passed_variables = ("SLURM_CONF", "SLURM_CLUSTERS")

    def __init__(self, options: str = "") -> None:
        super().__init__()
        self._words, self._wishes = _parsed(options)
        self._array_size = 0
        self._is_welcome = False

    @classmethod
    def from_options(cls, options: EngineOptions) -> Self:
        """Build the engine from the settings; starts nothing.

        Raises:
            SettingsError: ``slurm_options`` cannot be read.
        """
        return cls(options.slurm_options or "")

    def __repr__(self) -> str:
        return f"SlurmEngine({shlex.join(self._words)!r})"

    def n_slots(self) -> int | None:
        """How many workers the nodes that are up can run at once; the first time, whether Slurm lets us.

        Options, account and the like are refused at the submission otherwise, when all is staged.
        """
        if not self._is_welcome:
            self._knock()
        return super().n_slots()

    def nodes(self) -> list[Node]:
        """The nodes of the partition that are up, and how many workers each can run."""
        answer = self._asked("sinfo", "--noheader", "--Node", f"--format={NODE_FORMAT}")
        return parse_nodes(answer.out, self._wishes.partitions, self._wishes.cpus)

    def _knock(self) -> None:
        """Have Slurm say what it would say to a submission.

        Raises:
            EngineError: It would refuse it, or does not answer.
        """
        answer = self._run("sbatch", *DEFAULTS, *self._words, "--array=0", "--test-only", stdin="#!/bin/sh\n")
        if answer.status and not NOT_NOW.search(answer.err):
            raise _refusal(answer, is_question=False)
        self._is_welcome = True

    def _submit(self, spec: WorkerSpec, name: str) -> str:
        answer = self._run(
            "sbatch",
            *DEFAULTS,
            f"--comment={comment(spec)}",
            *self._words,
            f"--array=0-{spec.count - 1}",  # what we rely on comes last: the last word counts
            f"--job-name={name}",
            "--parsable",
            stdin=script(spec, "$SLURM_ARRAY_TASK_ID"),
        )
        job_id = answer.out.strip().partition(";")[0]
        if answer.status or not job_id.isdecimal():
            raise _refusal(answer, is_question=False)
        return job_id

    def _listed(self) -> list[Element]:
        user = f"--user={os.geteuid()}"
        answer = self._asked(
            "squeue", "--noheader", "--array", "--states=all", user, f"--format={QUEUE_FORMAT}"
        )
        return parse_queue(answer.out)

    def _cancel(self, job_ids: Sequence[str]) -> None:
        answer = self._run("scancel", "--quiet", *job_ids)
        if answer.status and not GONE.search(answer.err):
            raise _refusal(answer, is_question=True)

    def _most_at_once(self) -> int:
        if not self._array_size:
            found = re.search(
                r"^MaxArraySize\s*=\s*(\d+)", self._asked("scontrol", "show", "config").out, re.M
            )
            self._array_size = int(found[1]) if found else MAX_ARRAY_SIZE
        return max(1, self._array_size - 1)

    def _explained(self, element: Element) -> Element:
        """Ask for the exit code; a job that is forgotten already stays as it is."""
        answer = self._run("scontrol", "--oneliner", "show", "job", f"{element.job_id}_{element.index}")
        return explained(element, answer.out)

    def _asked(self, *words: str) -> Answer:
        """The answer to a question, to which trouble means no more than that nothing is known now."""
        answer = self._run(*words)
        if answer.status:
            raise _refusal(answer, is_question=True)
        return answer


def parse_queue(text: str) -> list[Element]:
    """Elements from ``squeue --array`` in our format; lines of anything but an array are left out."""
    fields = [line.split("|", 4) for line in text.splitlines()]
    return [
        _element(job_id, int(index), state, reason, name)
        for job_id, index, state, reason, name in (each for each in fields if len(each) == 5)
        if index.isdecimal()
    ]


def _element(job_id: str, index: int, state: str, reason: str, name: str) -> Element:
    if state in ENDED:
        return Element(name, job_id, index, PlacementState.ENDED, state in BAD, ENDED[state])
    if state in WAITING:
        return Element(name, job_id, index, PlacementState.PENDING, reason=_why(reason))
    return Element(name, job_id, index, PlacementState.RUNNING)


def _why(reason: str) -> str:
    """Why something waits: our words, and Slurm's own for an administrator."""
    bare = reason.strip("()")
    words = next((words for key, words in WAITS.items() if bare.startswith(key)), "")
    return f"{words} ({bare})" if words else bare


def explained(element: Element, text: str) -> Element:
    """The element with how it ended, from ``scontrol --oneliner show job``."""
    code = re.search(r" ExitCode=(\d+):(\d+) ", text)
    if element.reason != ENDED["FAILED"] or code is None or code.groups() == ("0", "0"):
        return element
    node = re.search(r" BatchHost=(\S+)", text)
    where = f" on {node[1]}" if node else ""
    return replace(element, reason=exit_words(int(code[1]), int(code[2])) + where)


def parse_nodes(text: str, partitions: Sequence[str] = (), cpus: int = 1) -> list[Node]:
    """Nodes that are up from ``sinfo --Node`` in our format, each once.

    Args:
        text: What sinfo printed.
        partitions: Those that count; none: the default one, or all where there is none.
        cpus: Of one worker.
    """
    lines = [line.split("|") for line in text.splitlines() if line.count("|") == 2]
    wanted = set(partitions) or {name.rstrip("*") for name, _, _ in lines if name.endswith("*")}
    nodes = {}
    for partition, host, counts in lines:
        taken, idle, *_ = map(int, counts.split("/"))
        if taken + idle and (not wanted or partition.rstrip("*") in wanted):
            nodes[host] = Node(host, (taken + idle) // cpus, -(-taken // cpus))
    return list(nodes.values())


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What bears on how many workers can run, of what ``sbatch`` is told."""

    partitions: tuple[str, ...] = ()
    cpus: int = 1


class _Options(argparse.ArgumentParser):
    """Reads the few of sbatch's options that we must understand ourselves, in all their spellings."""

    def __init__(self) -> None:
        super().__init__(add_help=False)
        self.add_argument("-p", "--partition", default=os.environ.get("SBATCH_PARTITION", ""))
        self.add_argument("-c", "--cpus-per-task", type=int, default=1)
        self.add_argument("-W", "--wait", action="store_true")

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def _parsed(options: str) -> tuple[list[str], _Wishes]:
    """The words of ``slurm_options``, and what they wish.

    Raises:
        SettingsError: They cannot be told apart, or mean something that we cannot serve.
    """
    try:
        words = shlex.split(options)
        said, _ = _Options().parse_known_args(words)
    except ValueError as error:
        message = f"slurm_options is {options!r}, which cannot be read ({error}): write it as for sbatch"
        raise SettingsError(message) from None
    if said.wait or any(word == "--wrap" or word.startswith("--wrap=") for word in words):
        message = (
            f"slurm_options is {options!r}: leave out --wait and --wrap, the workers' script is made here"
        )
        raise SettingsError(message)
    partitions = tuple(filter(None, said.partition.split(",")))
    return words, _Wishes(partitions, max(1, said.cpus_per_task))


def _refusal(answer: Answer, *, is_question: bool) -> EngineError:
    """What a command's failure means: trouble that may pass, or Slurm's last word."""
    if is_question or PASSING.search(answer.err):
        message = (
            f"{answer.command} failed ({answer.words}): Slurm may be busy or down, asking again may help"
        )
        return EngineError(message, transient=True)
    message = f"{answer.command} was refused ({answer.words}): {_advice(answer.words)}"
    return EngineError(message)


def _advice(words: str) -> str:
    small = words.lower()
    if "limit" in small and ("qos" in small or "association" in small):
        return "ask for less: lower the setting workers, or --time in slurm_options"
    return "change slurm_options, or ask Slurm's administrator"
