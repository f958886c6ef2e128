"""The user's exceptions rebuilt from the outcomes of tasks, so that ``except`` works here as there."""

import re
from collections.abc import Callable

from golem_magic.errors import TaskError, TaskTimeout, WorkerDied
from golem_magic.model import Failure

# A place in a traceback, as Python writes it; the margin is that of exception groups.
_PLACE = re.compile(r'^([ |+]*)File "([^"\n]+)", line (\d+)', re.MULTILINE)
# A frame of a note, with its source line if that was known over there.
_FRAME = re.compile(r"^[ |+]*(.+, line \d+, in .+)(?:\n[ |+]*(?!File )(\S.*))?", re.MULTILINE)
_LISTED = 10  # failures that a repr shows; the others are counted

NameFile = Callable[[str], str | None]


def call_files(name_file: NameFile) -> None:
    """Let remote tracebacks call files by other names: a shell knows which cell is in which.

    Args:
        name_file: Gives another name for a file, such as ``Cell In[3]``; None leaves the file's own.
    """
    global _name_file
    _name_file = name_file


def own_name(_file: str) -> None:
    """Leave a file its own name; for :func:`call_files`."""


_name_file: NameFile = own_name


class Errors(dict[int, BaseException]):
    """The exceptions of tasks that failed, by task index; shows each on a line, with its place."""

    def __repr__(self) -> str:
        if not self:
            return "no task has failed"
        lines = [f"{len(self)} task{'' if len(self) == 1 else 's'} failed"]
        lines += [f"  {_listed(index, error)}" for index, error in list(self.items())[:_LISTED]]
        if len(self) > _LISTED:
            lines.append(f"  and {len(self) - _LISTED} more")
        return "\n".join(lines)


def rebuild(failure: Failure, index: int | None) -> BaseException:
    """The exception to raise for a task that failed: the user's own, wherever that is safe.

    Five kinds mean something else when raised here (they would end a loop, a
    generator, a coroutine or the kernel's cell): they become a TaskError with
    the original as its cause. So does what cannot be rebuilt.

    A note says which task, where, and shows the remote lines: IPython and
    Python print notes under the message.

    Args:
        failure: What the worker recorded.
        index: Of the task; None if it was the set-up function.
    """
    original = _load(failure)
    what = "the set-up function" if index is None else f"task {index}"
    if failure.kind == "raised" and isinstance(original, Exception) and _is_harmless(original):
        error: BaseException = original
    else:
        error = _task_error(failure, what)
        error.__cause__ = original
    where = f"{what} on {failure.host}, attempt {failure.attempt} (worker {failure.worker})"
    error.add_note(f"{where}\n{_with_cells(failure.traceback.rstrip())}")
    return error


def _task_error(failure: Failure, what: str) -> TaskError:
    match failure.kind:
        case "died":
            return WorkerDied(f"{what} gave no outcome: {failure.message}")
        case "unpicklable":
            return TaskError(
                f"the result of {what} cannot be sent back: {' '.join(failure.message.split())}: "
                f"return something that can be pickled"
            )
        case "raised":
            return TaskError(f"{what} raised {failure.summary}")
        case "timeout":
            return TaskTimeout(f"{what} gave no outcome: {failure.message}")
        case "unloadable":
            return TaskError(failure.message)


def _is_harmless(error: BaseException) -> bool:
    return not isinstance(error, StopIteration | StopAsyncIteration)


def _load(failure: Failure) -> BaseException | None:
    from golem_magic import (
        payload,
    )  # not before it is needed: the magics load this room at the kernel's start

    if failure.exception is None:
        return None
    try:
        found = payload.load(memoryview(failure.exception))[0]
    except BaseException:  # noqa: BLE001 - rebuilding runs the exception's own code; its text is there anyway
        return None
    return found if isinstance(found, BaseException) else None


def _with_cells(traceback: str) -> str:
    """Call the notebook's cells by their names instead of by their files."""

    def call(place: re.Match[str]) -> str:
        name = _name_file(place[2])
        return place[0] if name is None else f"{place[1]}{name}, line {place[3]}"

    return _PLACE.sub(call, traceback)


def _listed(index: int, error: BaseException) -> str:
    message = str(error).strip().partition("\n")[0]
    line = (
        f"task {index}: {type(error).__name__}: {message}"
        if message
        else f"task {index}: {type(error).__name__}"
    )
    frames = _FRAME.findall("\n".join(getattr(error, "__notes__", ())))
    if not frames:
        return line
    place, source = frames[-1]
    return f"{line}\n    {place}{': ' + source if source else ''}"
