"""The accepted jobs on disk, from before the answer to the submission until they are forgotten.

One file for each job, ``<job>.jsonl``. Its first line is the submission; each further line holds
what has changed since. A line without its end was torn by a death and says nothing. Which tasks
have ended is not repeated here: the job's log tells (``output.py``), and the tasks' own notes
(``taskfiles.py``). When the job is over the file becomes a single short line, without the
commands, so all files together stay small and a start reads little.

Nothing is flushed to the disk itself: what is written outlives this process, however it ends, and
a machine that loses power loses the tasks as well.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golem_magic.clock import wall_time
from golem_magic.master.jobs import Job, Line

FORMAT = 1
KNOWN_S = 86_400.0  # a job that is over, after its last change; chosen by feel
RESUMED_S = 7 * 86_400.0  # one that is not: nobody waits for it any more


@dataclass(frozen=True, slots=True)
class Record:
    """One job as the journal has it.

    Attributes:
        age_s: Since its last change.
        is_over: Whether it had ended, so that only its numbers are left.
    """

    job: Job
    age_s: float
    is_over: bool


class Journal:
    """The folder of these files. Only the one master writes it, with its lock on jobs held."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def draft(self, job: Job) -> Path:
        """Write a submission under a name that does not count yet; needs no lock."""
        part = self._folder / f"{job.job_id}.{os.urandom(4).hex()}.part"
        self._write(part, {**_head(job), "lines": [[line.count, line.args] for line in job.lines]})
        return part

    def accept(self, draft: Path, job: Job) -> None:
        """From now on the job outlives us."""
        draft.rename(self._path(job.job_id))

    def note(self, job: Job, **changes: object) -> None:
        """Note that something has changed."""
        with suppress(OSError):  # a full disk must not keep anybody from stopping a job
            descriptor = os.open(self._path(job.job_id), os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                os.write(descriptor, json.dumps(changes).encode() + b"\n")
            finally:
                os.close(descriptor)

    def close(self, job: Job) -> None:
        """Keep of a job that is over only what is asked for later."""
        fields = {"is_over": True, "total": job.total, "finished": job.finished, "errored": job.errored}
        part = self._path(job.job_id).with_suffix(".part")
        with suppress(OSError):  # then the next master reads how it ended from the log again
            self._write(part, {**_head(job), **fields, "stopped": job.is_stopped, "modified": job.modified})
            part.rename(self._path(job.job_id))

    def forget_in(self, job: Job, delay_s: float) -> None:
        """Have the next master, too, forget a job that is over at that time."""
        then_s = wall_time() + delay_s - KNOWN_S
        with suppress(OSError):
            os.utime(self._path(job.job_id), (then_s, then_s))

    def drop(self, job_id: str) -> None:
        """Forget a job."""
        self._path(job_id).unlink(missing_ok=True)

    def load(self) -> list[Record]:
        """Read all jobs in the order of their submission; what cannot be read is removed."""
        for part in self._folder.glob("*.part"):  # never answered, or the shorter form of one that is there
            part.unlink(missing_ok=True)
        records = [record for path in self._folder.glob("*.jsonl") for record in _read(path)]
        return sorted(records, key=lambda record: record.job.created)

    def _path(self, job_id: str) -> Path:
        return self._folder / f"{job_id}.jsonl"

    @staticmethod
    def _write(path: Path, fields: Mapping[str, object]) -> None:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(fields) + "\n")
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _head(job: Job) -> dict[str, object]:
    return {
        "format": FORMAT,
        "job_id": job.job_id,
        "label": job.label,
        "owner": job.owner,
        "kind": job.kind,
        "created": job.created,
    }


def _read(path: Path) -> Iterator[Record]:
    try:
        age_s = wall_time() - path.stat().st_mtime
        lines = path.read_bytes().splitlines(keepends=True)
        changes = [json.loads(line) for line in lines if line.endswith(b"\n")]
        fields = {key: value for change in changes for key, value in change.items()}
        if fields["format"] == FORMAT:
            yield Record(_job(fields), age_s, "is_over" in fields)
            return
        reason = f"format {fields['format']}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = str(error)
    sys.stderr.write(f"a job is forgotten: {path} cannot be used ({reason})\n")
    path.unlink(missing_ok=True)


def _job(fields: Mapping[str, Any]) -> Job:
    is_over = "is_over" in fields
    lines = [Line(fields["total"], ())] if is_over else [Line(n, tuple(args)) for n, args in fields["lines"]]
    return Job(
        job_id=fields["job_id"],
        label=fields["label"],
        owner=fields["owner"],
        kind=fields["kind"],
        lines=lines,
        created=fields["created"],
        modified=fields.get("modified", ""),
        finished=fields.get("finished", 0),
        errored=fields.get("errored", 0),
        n_taken=fields["total"] if is_over else 0,
        is_stopped=fields.get("stopped", False),
        is_killed=fields.get("killed", False),
    )
