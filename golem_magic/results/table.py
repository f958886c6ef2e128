"""All of a job as one table: the input of each task, and beside it what the task gave."""

import importlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from golem_magic.errors import JobError, PayloadError
from golem_magic.model import Timing
from golem_magic.share.inputs_log import InputReader
from golem_magic.share.layout import JobPaths


class Given(NamedTuple):
    """What a task gave: a value, or an error and no value."""

    value: Any
    error: BaseException | None = None


def library() -> Any:
    """Import pandas, only when a table is asked for.

    Raises:
        JobError: It is not installed.
    """
    try:
        return importlib.import_module("pandas")
    except ImportError as error:
        message = (
            f"to_frame makes a table of pandas, which cannot be imported here ({error}): install it "
            f"(%pip install pandas), or use zip(inputs, results)"
        )
        raise JobError(message) from error


def table(paths: JobPaths, given: Sequence[Given], timings: Sequence[Timing]) -> Any:
    """Put the table together.

    Args:
        paths: Of the job.
        given: By all tasks, in order.
        timings: Of the tasks that have ended.

    Raises:
        ShareError: The inputs cannot be read.
    """
    pandas = library()
    spent = {each.task: each for each in timings}
    nobody = Timing(-1, math.nan, "", "")
    columns = {
        "input": _inputs(paths, len(given)),
        "output": [each.value for each in given],
        "error": [each.error for each in given],
        "seconds": [spent.get(task, nobody).seconds for task in range(len(given))],
        "host": [spent.get(task, nobody).host for task in range(len(given))],
    }
    index = pandas.RangeIndex(len(given), name="index")
    return pandas.DataFrame(
        {  # objects as they are, and only what is all numbers, texts or times made a column of such
            name: pandas.Series(values, index=index, dtype=object).infer_objects()
            for name, values in columns.items()
        }
    )


def _inputs(paths: JobPaths, count: int) -> list[Any]:
    """The inputs of the first tasks; in the place of what cannot be loaded here, the reason."""
    reader = InputReader(paths, is_worker=False)
    reader.refresh()
    found: list[Any] = []
    while len(found) < count:
        start = len(found)
        end = min(count, reader.end_of_block(start))
        try:
            found += reader.tasks(start, end)
        except PayloadError as error:
            found += [error] * (end - start)
    return found
