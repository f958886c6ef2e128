"""What the embedded Golem has noted of its use, which it need not run for."""

import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from golem_magic.clock import wall_time

FILE = "usage"
FORM = re.compile(r"([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+) ([0-9]+)")


class Use(NamedTuple):
    """What was going on in ten seconds; there is no record of seconds without work."""

    at_s: int  # since 1970
    n_jobs: int  # of which a task ran
    n_waiting: int  # jobs that waited for their first slot
    n_running: int  # slots taken
    n_slots: int


def read_usage(state_dir: Path, last_s: float) -> tuple[float, list[Use]]:
    """The second since 1970 that was ``last_s`` ago, and the records since then, oldest first.

    Args:
        state_dir: Folder of the embedded Golems of all versions; it need not be there.
        last_s: How far to look back.
    """
    begin_s = wall_time() - last_s
    found: list[Use] = []
    for path in (state_dir / FILE, *state_dir.glob(f"version-*/{FILE}")):
        with suppress(OSError):
            lines = path.read_text(errors="replace").splitlines()
            found += [Use(*map(int, form.groups())) for line in lines if (form := FORM.fullmatch(line))]
    return begin_s, sorted(use for use in found if use.at_s >= begin_s)
