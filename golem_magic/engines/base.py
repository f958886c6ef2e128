"""The contract of an engine: it places worker processes on machines, and nothing else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from golem_magic.model import NativeId, Node, PlacementStatus, WorkerSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What the settings say about engines; each engine takes what concerns it.

    Attributes:
        server_url: Base URL of a Golem master; a URL without scheme means https.
        server_password: Its shared password; never shown.
        server_ca: PEM file of the authorities to trust instead of the system's.
        server_fingerprint: SHA-256 of the one certificate to trust.
        server_verify: False accepts any certificate.
        server_legacy_tls: Accept TLS 1.0 and short keys.
        server_plain: Whether http may leave this machine.
        server_env_proxies: Whether the environment's proxies are used.
        workers: How many workers the local engine may run at once, None for all CPUs.
        state_dir: Folder of the embedded Golem's address file and logs, None for the default.
        slurm_options: Further arguments of Slurm's ``sbatch``, one text as in a shell.
    """

    server_url: str | None = None
    server_password: str | None = field(default=None, repr=False)
    server_ca: str | None = None
    server_fingerprint: str | None = None
    server_verify: bool = True
    server_legacy_tls: bool = False
    server_plain: bool = False
    server_env_proxies: bool = False
    workers: int | None = None
    state_dir: str | None = None
    slurm_options: str | None = None


class Engine(Protocol):
    """Places worker processes on machines, and nothing else.

    An engine never sees a function, an input or a result. It is told which
    command to start and how often. One engine object is used from one thread
    at a time.
    """

    @property
    def share_is_local(self) -> bool:
        """Whether all workers run on this machine, so that the share has no slow caches."""

    def submit(self, spec: WorkerSpec) -> NativeId:
        """Ask for ``spec.count`` workers and return the engine's name for them.

        A return means the request was accepted: :meth:`poll` knows the id from
        now on, and all later news, failure included, arrives there. An exception
        means nothing was started. Asking again with the same ``native_id`` is
        harmless: the first request stands.

        Raises:
            EngineError: The request was refused, or the engine not reached.
                ``transient`` tells whether trying again later may help.
        """

    def poll(self, ids: Collection[NativeId]) -> Mapping[NativeId, PlacementStatus]:
        """Report on all ``ids``.

        Every id asked about is in the answer. An id the engine cannot find is
        UNKNOWN, which is not the same as ended: engines forget. The reason of one
        that is PENDING is shown to the user: why it waits, in words, or nothing.

        Raises:
            EngineError: The engine could not be asked; nothing is known.
        """

    def cancel(self, ids: Collection[NativeId]) -> None:
        """Wish these workers gone. Repeating it, or naming a stranger, is harmless.

        Raises:
            EngineError: The engine could not be told.
        """

    def n_slots(self) -> int | None:
        """How many workers can run at once; None if the engine is there but cannot tell.

        A client asks this before it writes anything, so what would make :meth:`submit` fail
        should show here, as far as that costs little.

        Raises:
            EngineError: The engine could not be asked, or would refuse us.
        """

    def close(self) -> None:
        """Let go of connections. Workers run on; closing twice is harmless."""


@runtime_checkable
class AskedRarely(Protocol):
    """What an engine adds if its questions cost something that many people share."""

    @property
    def ask_s(self) -> tuple[float, float]:
        """The shortest and the longest pause between two questions, in seconds."""


@runtime_checkable
class TellsNodes(Protocol):
    """What an engine adds if it knows its machines."""

    def nodes(self) -> list[Node]:
        """The machines, as they are known now.

        Raises:
            EngineError: The engine was not reached.
        """


@runtime_checkable
class TellsStarted(Protocol):
    """What an engine adds if it can tell workers that wait from those that it has handed to machines."""

    def n_started(self, native_id: NativeId) -> int | None:
        """How many workers of a placement were handed to machines so far; None if it cannot be known.

        Raises:
            EngineError: The engine was not reached.
        """


@runtime_checkable
class KeepsOutput(Protocol):
    """What an engine adds if it keeps what its processes print."""

    def output(self, native_id: NativeId, kind: Literal["out", "err", "log"]) -> str | None:
        """What the processes of a placement printed, or the engine's log of them; None if it is not known.

        Raises:
            EngineError: The engine was not reached.
        """
