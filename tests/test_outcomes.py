"""Exceptions rebuilt from what a worker recorded of them."""

import asyncio
import sys
import traceback
from typing import Any

import pytest

from golem_magic import JobError, TaskError, WorkerDied, outcomes, payload
from golem_magic.model import Failure

pytestmark = pytest.mark.unit

REMOTE = 'Traceback (most recent call last):\n  File "cell", line 3, in f\n    raise it\n'


def failure(error: BaseException | bytes | None, **fields: Any) -> Failure:
    """A failure as a worker records it; ``error`` may be the pickled exception itself."""
    pickled = b"".join(payload.dump(error).parts) if isinstance(error, BaseException) else error
    said: dict[str, Any] = {
        "kind": "raised",
        "exception": pickled,
        "type_name": type(error).__qualname__,
        "message": str(error),
        "traceback": REMOTE,
        "host": "node7",
        "worker": "w-3",
        "attempt": 2,
    }
    return Failure(**{**said, **fields})


@pytest.mark.meets("G-16")
@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("by zero"),
        KeyError("a key"),
        FileNotFoundError(2, "No such file", "/nowhere"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        ExceptionGroup("two", [ValueError("one"), TypeError("other")]),
        RuntimeError(),
        Exception("an\nother line", 3),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_exception_keeps_type_arguments_and_text(error: Exception) -> None:
    rebuilt = outcomes.rebuild(failure(error), 5)

    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert repr(rebuilt) == repr(error)
    assert rebuilt.__cause__ is None


@pytest.mark.meets("G-16")
def test_a_note_tells_input_host_attempt_and_the_remote_lines() -> None:
    rebuilt = outcomes.rebuild(failure(ValueError("x")), 5)

    (note,) = rebuilt.__notes__
    assert note == f"task 5 on node7, attempt 2 (worker w-3)\n{REMOTE.rstrip()}"
    assert note in "".join(traceback.format_exception(rebuilt))


def test_the_users_own_notes_and_attributes_stay() -> None:
    error = ValueError("x")
    error.add_note("seen at low pressure")
    error.pressure = 3  # type: ignore[attr-defined]

    rebuilt = outcomes.rebuild(failure(error), 0)

    assert rebuilt.__notes__[0] == "seen at low pressure"
    assert len(rebuilt.__notes__) == 2
    assert rebuilt.pressure == 3  # type: ignore[attr-defined]


def test_each_reading_gives_an_exception_of_its_own() -> None:
    recorded = failure(ValueError("x"))

    first, second = outcomes.rebuild(recorded, 0), outcomes.rebuild(recorded, 0)

    assert first is not second
    assert len(second.__notes__) == 1


@pytest.mark.meets("G-19")
@pytest.mark.parametrize(
    "kind",
    [
        StopIteration,
        StopAsyncIteration,
        GeneratorExit,
        asyncio.CancelledError,
        SystemExit,
        KeyboardInterrupt,
        BaseException,
        type("Halt", (BaseException,), {}),
        type("Enough", (StopIteration,), {}),
    ],
)
def test_what_means_something_else_here_is_wrapped_with_the_original_as_cause(
    kind: type[BaseException],
) -> None:
    rebuilt = outcomes.rebuild(failure(kind("enough")), 4)

    assert type(rebuilt) is TaskError
    assert str(rebuilt) == f"task 4 raised {kind.__qualname__}: enough"
    assert isinstance(rebuilt.__cause__, kind)
    assert rebuilt.__notes__[0].startswith("task 4 on node7")


def quits() -> None:
    sys.exit(3)


class Quits(Exception):  # noqa: N818 - says what it does
    """Ends the process of whoever unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (quits, ())


class IsAnotherThing(Exception):  # noqa: N818
    """Comes back as something that cannot be raised."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (int, ("5",))


@pytest.mark.parametrize(
    "recorded",
    [
        failure(Quits("this and that"), type_name="Unmade"),
        failure(IsAnotherThing("this and that"), type_name="Unmade"),
        failure(None, type_name="Unmade", message="this and that"),
        failure(b"", type_name="Unmade", message="this and that"),
        failure(b"no frame at all, but long enough for one", type_name="Unmade", message="this and that"),
    ],
    ids=["exits", "no exception", "unpicklable", "empty", "damaged"],
)
def test_what_cannot_be_rebuilt_becomes_a_task_error_with_its_text(recorded: Failure) -> None:
    rebuilt = outcomes.rebuild(recorded, 9)

    assert type(rebuilt) is TaskError
    assert isinstance(rebuilt, JobError)
    assert str(rebuilt) == "task 9 raised Unmade: this and that"
    assert rebuilt.__cause__ is None
    assert "raise it" in rebuilt.__notes__[0]


def test_a_long_message_is_one_line_in_a_task_error() -> None:
    assert str(outcomes.rebuild(failure(SystemExit("one\ntwo")), 0)) == "task 0 raised SystemExit: one"
    assert str(outcomes.rebuild(failure(SystemExit()), 0)) == "task 0 raised SystemExit"


def test_a_dead_worker_is_told_by_its_cause() -> None:
    rebuilt = outcomes.rebuild(
        failure(None, kind="died", type_name="WorkerDied", message="the worker was ended by SIGSEGV"), 3
    )

    assert type(rebuilt) is WorkerDied
    assert str(rebuilt) == "task 3 gave no outcome: the worker was ended by SIGSEGV"
    assert isinstance(rebuilt, TaskError)


@pytest.mark.meets("G-28")
def test_a_result_that_could_not_be_sent_says_what_to_do() -> None:
    reason = TypeError("cannot pickle '_thread.lock' object")

    rebuilt = outcomes.rebuild(failure(reason, kind="unpicklable"), 1)

    assert type(rebuilt) is TaskError
    assert "the result of task 1 cannot be sent back: cannot pickle" in str(rebuilt)
    assert "return something that can be pickled" in str(rebuilt)
    assert isinstance(rebuilt.__cause__, TypeError)


def test_errors_are_shown_one_to_a_line_with_their_place() -> None:
    errors = outcomes.Errors(
        {k: outcomes.rebuild(failure(ValueError(f"no {k}\nmore")), k) for k in range(12)}
    )

    lines = repr(errors).splitlines()

    assert lines[0] == "12 tasks failed"
    assert lines[1] == "  task 0: ValueError: no 0"
    assert lines[2].strip().endswith("line 3, in f: raise it")
    assert lines[-1] == "  and 2 more"
    assert repr(outcomes.Errors()) == "no task has failed"
