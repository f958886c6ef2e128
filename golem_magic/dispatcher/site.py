"""Where a job runs: what a dispatcher is told of it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

from golem_magic.engines.base import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where a job runs.

    Attributes:
        engine: Gives the engine; called in a thread of the dispatcher's, when first needed. None
            if it is not ours to use: then the job is only watched and healed.
        lock: Held while the engine is used: it serves all jobs of a client.
        argv: The worker's command, up to and including the manifest's digest.
        label: Free text shown with placements.
        owner: Free text shown with placements.
        share_is_local: All workers see the share without slow caches.
    """

    engine: Callable[[], Engine] | None
    lock: threading.Lock
    argv: tuple[str, ...]
    label: str
    owner: str
    share_is_local: bool
