"""What ended the inputs of a job before their source was through, for readers in other kernels."""

import traceback
from contextlib import suppress

from golem_magic import payload
from golem_magic.errors import JobError
from golem_magic.share import files
from golem_magic.share.layout import JobPaths


def write(paths: JobPaths, error: BaseException) -> None:
    """Keep an exception; called once, before the inputs are closed.

    Raises:
        ShareError: The job's folder cannot be written.
    """
    words = "".join(traceback.format_exception_only(error)).strip()
    try:
        pickled: bytes | None = b"".join(payload.dump(error).parts)
    except Exception:  # noqa: BLE001 - an exception may carry anything; its text goes anyway
        pickled = None
    with files.explained("write", paths.source_error), suppress(FileExistsError):
        files.create(paths.source_error, payload.dump((pickled, words)).parts)


def read(paths: JobPaths) -> Exception | None:
    """The exception, or one with its words if it cannot be rebuilt here; None if the inputs just ended.

    Raises:
        ShareError: It is there and cannot be read.
        FormatError: It is not what was written.
    """
    if paths.source_error.rpartition("/")[2] not in files.names(paths.control):
        return None
    with (
        files.explained("read", paths.source_error),
        open(paths.source_error, "rb", opener=files.open_own) as file,
    ):
        pickled, words = payload.load(memoryview(file.read()))[0]
    with suppress(BaseException):  # rebuilding runs the exception's own code; its words are there anyway
        found = payload.load(memoryview(pickled))[0] if pickled else None
        if isinstance(found, Exception) and not isinstance(found, StopIteration | StopAsyncIteration):
            return found
    return JobError(f"the source of the inputs ended with {words}: the results before that can be read")
