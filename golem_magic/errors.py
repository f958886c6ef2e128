"""The tree of errors that golem_magic raises.

::

    GolemMagicError
    |- SettingsError        a setting is missing or out of range; names the key and where it came from
    |- CellError            the cell or the magic's line does not say what the magic needs
    |- FileError            a file of inputs or results cannot be read or written; names it
    |- PayloadError         something cannot be pickled, or not unpickled over there; names it
    |- InfiniteRecursionError   a task tried to start a job
    |- ShareError           the shared folder cannot be read or written; names the path
    |  `- FormatError       a file is there but is not what we wrote, or of another version
    |- EngineError          an engine refused or was not reached; ``transient`` says if later may help
    |  `- NoWorkersError    nothing can be placed any more while tasks remain
    `- JobError
       |- JobCancelled      the outcome asked for will never come: the job was cancelled
       |- ResultConsumed    the space of this result was given back already
       |- TaskError         a task raised what must not, or cannot, be raised here as itself
       |  |- TaskTimeout    a task took longer than its time limit
       |  `- WorkerDied     a task killed its worker, as often as it was tried
       `- ExecutionFailure  outcomes are missing for good

A message says what failed, where, the likely reason and the next step, on one line.
"""


class GolemMagicError(Exception):
    """Everything that golem_magic itself has to complain about."""


class SettingsError(GolemMagicError):
    """A setting is missing or out of range."""


class CellError(GolemMagicError):
    """The cell or the magic's line does not say what the magic needs."""


class FileError(GolemMagicError):
    """A file of inputs cannot be read, or one of results not written."""


class PayloadError(GolemMagicError):
    """Something cannot be pickled here or unpickled there."""


class InfiniteRecursionError(GolemMagicError):
    """A task tried to start a job of its own."""

    @property
    def message(self) -> str:
        """What ``str`` gives; golemize had this name for it."""
        return str(self)


class ShareError(GolemMagicError):
    """The shared folder cannot be read or written."""


class FormatError(ShareError):
    """A file on the share is not what was written there."""


class EngineError(GolemMagicError):
    """An engine refused a request or was not reached.

    Attributes:
        transient: Whether the same request may succeed later.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class NoWorkersError(EngineError):
    """No worker can be placed any more while tasks remain."""


class JobError(GolemMagicError):
    """A job cannot give what was asked of it."""


class JobCancelled(JobError):  # noqa: N818 - the name of the state, as in concurrent.futures.CancelledError's family
    """The job was cancelled before this task had an outcome."""


class ResultConsumed(JobError):  # noqa: N818 - says what happened to the result; it is not a fault
    """The space of this result has been given back."""


class TaskError(JobError):
    """A task failed in a way that cannot be raised here as itself."""


class TaskTimeout(TaskError):  # noqa: N818 - named like TimeoutError's field word
    """A task took longer than its time limit."""


class WorkerDied(TaskError):  # noqa: N818 - names the event
    """A task ended its worker process, every time it was tried."""


class ExecutionFailure(JobError):  # noqa: N818 - golemize's name, kept
    """The job has ended and outcomes are missing for good."""
