"""The user's exceptions rebuilt from the outcomes of tasks, so that ``except`` works here as there."""

from golem_magic import payload
from golem_magic.errors import TaskError, WorkerDied
from golem_magic.model import Failure


def rebuild(failure: Failure, index: int) -> BaseException:
    """The exception to raise for a task that failed: the user's own, wherever that is safe.

    Five kinds mean something else when raised here (they would end a loop, a
    generator, a coroutine or the kernel's cell): they become a TaskError with
    the original as its cause. So does what cannot be rebuilt.
    """
    note = f"task {index} on {failure.host}, attempt {failure.attempt} (worker {failure.worker})"
    original = _load(failure)
    if failure.kind == "raised" and isinstance(original, Exception) and _is_harmless(original):
        original.add_note(f"{note}\n{failure.traceback.rstrip()}")
        return original
    error = _task_error(failure, index)
    error.__cause__ = original
    error.add_note(f"{note}\n{failure.traceback.rstrip()}")
    return error


def _task_error(failure: Failure, index: int) -> TaskError:
    match failure.kind:
        case "died":
            return WorkerDied(f"task {index} gave no outcome: {failure.message}")
        case "unpicklable":
            return TaskError(
                f"the result of task {index} cannot be sent back ({failure.summary}): "
                f"return something that can be pickled"
            )
        case "raised":
            return TaskError(f"task {index} raised {failure.summary}")


def _is_harmless(error: BaseException) -> bool:
    return not isinstance(error, StopIteration | StopAsyncIteration)


def _load(failure: Failure) -> BaseException | None:
    if failure.exception is None:
        return None
    try:
        found = payload.load(memoryview(failure.exception))[0]
    except BaseException:  # noqa: BLE001 - rebuilding runs the exception's own code; its text is there anyway
        return None
    return found if isinstance(found, BaseException) else None
