"""Start of a worker: from its command line to the keeper's exit code.

The command line, after interpreter and runtime::

    JOB_FOLDER MANIFEST_DIGEST FIRST_NUMBER   PLACEMENT LINE TASK

The last three are what Golem appends to every command.
"""

import os
import sys
from collections.abc import Sequence

from golem_magic.clock import SystemClock
from golem_magic.errors import GolemMagicError
from golem_magic.model import Digest, WorkerId
from golem_magic.share import jobs, runtime
from golem_magic.share.layout import JobPaths, SharePaths
from golem_magic.worker import seeds
from golem_magic.worker.keeper import Keeper, Post


def own_arguments(argv: Sequence[str]) -> list[str] | None:
    """Give the worker's arguments if ``argv`` starts a worker with exactly the code loaded here.

    Whoever has this module loaded may then fork instead of starting an interpreter.
    """
    if len(argv) < 3 or os.path.basename(argv[1]) != f"{runtime.digest()}.zip":
        return None
    return list(argv[2:]) if os.path.realpath(argv[0]) == os.path.realpath(sys.executable) else None


def main(arguments: Sequence[str]) -> int:
    """Be a worker (keeper, which forks its runner) in this process; give the exit code."""
    try:
        job_folder, digest, first_number, placement, _line, task = arguments
    except ValueError:
        sys.stderr.write(f"golem_magic worker: six arguments expected, got {list(arguments)}\n")
        return 2
    if "/" in placement + task:  # they become part of file names
        sys.stderr.write(f"golem_magic worker: {placement!r} and {task!r} are no ids\n")
        return 2
    paths = JobPaths(job_folder)
    if not os.path.isdir(job_folder):
        sys.stderr.write(f"golem_magic worker: {job_folder} is not there: the job was removed, or the share "
                         f"is not mounted on this machine\n")  # fmt: skip
        return 0 if os.path.isdir(os.path.dirname(job_folder)) else 1
    worker = WorkerId(f"{placement[:8]}-{task}-{os.urandom(2).hex()}")
    _log_to(paths.log(worker))
    seeds.tame_threads()
    os.environ["GOLEM_MAGIC_JOB"] = os.path.basename(job_folder)
    try:
        manifest = jobs.read_manifest(paths, Digest(digest))
        _check_python(manifest.python)
        share = SharePaths(os.path.dirname(os.path.dirname(job_folder)))
        number = int(first_number) + int(task)
        post = Post(share=share, paths=paths, manifest=manifest, worker=worker, number=number)
        return Keeper(post, SystemClock()).run()
    except (GolemMagicError, OSError) as error:
        sys.stderr.write(f"golem_magic worker: {error}\n")
        return 1


def _check_python(wanted: str) -> None:
    found = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if found != wanted:
        message = (
            f"this worker runs Python {found} ({sys.executable}), the notebook {wanted}: functions travel "
            f"only between equal minor versions, set the setting `python` to a Python {wanted}"
        )
        raise GolemMagicError(message)


def _log_to(path: str) -> None:
    """Send what this process and its tasks print to a file on the share."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(fd, number)
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # both are TextIOWrapper in a worker
    os.close(fd)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
