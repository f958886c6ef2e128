"""One map: taken, submitted, followed, written."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from golem_magic import sources
from golem_magic.cells import parse_place
from golem_magic.errors import CellError, FileError, GolemMagicError, JobError
from golem_magic.filemap.inputs import read_inputs
from golem_magic.filemap.outputs import check_output, writing
from golem_magic.model import JobState

if TYPE_CHECKING:
    from golem_magic.client import Client
    from golem_magic.results import Results

INTERRUPTED = 130  # as a shell says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a map is about.

    Attributes:
        function: Where it is, ``FILE::NAME``.
        inputs: The file of the inputs.
        out: The file for the results; None for standard output.
        common: Name of the common data, in the file of the function.
        setup: Name of the set-up function, there too.
        options: Keywords of ``Client.map``.
    """

    function: str
    inputs: str
    out: str | None = None
    common: str | None = None
    setup: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def map_files(client: "Client", request: Request) -> int:
    """Map a function over the inputs of one file and write the results to another; give the exit code.

    Returns:
        0 if every task gave a value, 1 if not, 130 after an interrupt, which only stops waiting.

    Raises:
        GolemMagicError: Nothing was submitted; or all is computed, but cannot be written.
    """
    place = parse_place(request.function)
    if place is None:
        message = f"{request.function} names no function: write FILE::NAME, such as analysis.ipynb::score"
        raise CellError(message)
    check_output(request.out)
    inputs = read_inputs(request.inputs)
    more = {word: name for word in ("common", "setup") if (name := getattr(request, word))}
    taken = sources.take(place, *more.values())
    if sys.stderr.isatty() or taken.notes:
        sys.stderr.write(f"{taken.used}{taken.notes}\n")
    values = {word: taken.values[name] for word, name in more.items()}
    with taken.importing():
        results = client.map(taken.function, inputs, on_error="return", **values, **request.options)
    return save_results(results, request.out)


def save_results(results: "Results", out: str | None) -> int:
    """Write the results of a job as they come, with a line of progress on a terminal; give the exit code.

    Args:
        results: Of a job, with ``on_error="return"``.
        out: A file that :func:`check_output` has let pass, or None for standard output.

    Raises:
        FileError: They cannot be written. The job goes on.
    """
    from golem_magic.progress import JobView

    job, is_tty = results.job_id[:8], sys.stderr.isatty()
    view = JobView(lambda: results.progress, quiet=not is_tty).show()
    try:
        n_failed, first = _write(results, out)
    except KeyboardInterrupt:
        sys.stderr.write(
            f"\nstopped waiting; job {job} goes on - golem-magic attach {job} -o {out or 'FILE.jsonl'} "
            f"writes its results, golem-magic cancel {job} ends it\n"
        )
        return INTERRUPTED
    except FileError as error:
        message = f"{error}; job {job} keeps all results: golem-magic attach {job} -o FILE writes them"
        raise FileError(message) from error
    view.refresh()
    if n_failed:
        total = results.progress.n_staged
        sys.stderr.write(f"golem-magic: {n_failed} of {total} tasks failed, the first is {first}\n")
    return 0 if not n_failed and results.progress.state is JobState.DONE else 1


def _write(results: "Results", out: str | None) -> tuple[int, str]:
    """Write all results; give the number of failures and the first of them, in words."""
    n_failed, first = 0, ""
    ended: GolemMagicError | None = None
    with writing(out) as sink:
        passing = enumerate(results)
        while ended is None:
            try:
                index, value = next(passing)
            except StopIteration:
                return n_failed, first
            except (JobError, FileError) as error:  # cancelled, or a line of inputs cannot be read
                ended = error
            else:
                if isinstance(value, BaseException):
                    first = first or f"task {index}: {type(value).__name__}: {value}".partition("\n")[0]
                    n_failed += 1
                sink.put(index, value)
    raise ended
