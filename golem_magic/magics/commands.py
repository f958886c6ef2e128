"""What ``%golem`` does; what it shows goes to the cell's output, as text."""

import getpass
import sys
from typing import TYPE_CHECKING, Any

from golem_magic import settings
from golem_magic.cells import Command
from golem_magic.errors import SettingsError
from golem_magic.model import JobState

if TYPE_CHECKING:
    from golem_magic.client import Client

PASSWORDS = ("server_password", "serverPassword")


def run(client: "Client", command: Command, job: str) -> None:
    """Do what needs nothing of the shell; ``job`` is the id, or its beginning, of the job meant."""
    match command.word:
        case "cancel":
            _cancel(client, job)
        case "logs":
            _say(repr(client.inventory.logs(job, command.task)))
        case "nodes":
            _show_nodes(client)
        case "clean":
            _clean(client, command)
        case _:
            _show_jobs(client)


def _cancel(client: "Client", job: str) -> None:
    """Cancel on the share, so that a job that this kernel has given up ends for all others too."""
    job_id = client.cancel(job)
    is_done = any(each.job_id == job_id and each.state is JobState.DONE for each in client.jobs())
    fate = "was over already: nothing to cancel" if is_done else "is cancelled; results that are there stay"
    _say(f"job {job_id[:8]} {fate}")


def _show_jobs(client: "Client") -> None:
    """List the jobs on the share."""
    from golem_magic.progress.tables import job_table

    sys.stdout.write(job_table(client.jobs()))


def _show_nodes(client: "Client") -> None:
    """List the engine's machines, with slots and how many of them are taken, by whomever."""
    from golem_magic.progress.tables import node_table

    sys.stdout.write(node_table(client.nodes()))


def _clean(client: "Client", command: Command) -> None:
    """Remove what is over from the share, or tell what would be removed."""
    done = client.inventory.clean(
        older_days=command.older_days,
        max_bytes=command.max_bytes,
        max_jobs=command.max_jobs,
        dry_run=command.dry_run,
    )
    sys.stdout.write(done.describe())


def show_config(key: str = "") -> None:
    """List the settings, or one of them, and where each comes from.

    Raises:
        SettingsError: There is no such setting, or the settings are faulty.
    """
    rows, notes = settings.describe_settings()
    chosen = [row for row in rows if key in ("", row[0])]
    if not chosen:
        settings.set_here(key, "")  # which tells what is wrong with it
    _table(("setting", "value", "from"), chosen)
    for note in notes if not key else ():
        _say(note)


def configure(key: str, value: str | None) -> None:
    """Change a setting for this kernel; a password is asked for, since a cell would keep it.

    Raises:
        SettingsError: There is no such setting, or the value is not allowed; nothing has changed.
    """
    if key in PASSWORDS:
        if value:
            message = f"{key} would stay readable in the notebook: %golem config {key} asks for it"
            raise SettingsError(message)
        value = getpass.getpass(f"{key}: ") if value is None else ""
    settings.set_here(key, value or "")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _table(head: tuple[str, ...], rows: list[Any]) -> None:
    from golem_magic.progress.tables import table

    sys.stdout.write(table([head, *(tuple(map(str, row)) for row in rows)]))
