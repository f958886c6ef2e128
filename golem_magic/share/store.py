"""Content-addressed objects: a function or common data, written once, mapped by every worker."""

import mmap
import os

from golem_magic import payload
from golem_magic.errors import FormatError, ShareError
from golem_magic.model import Digest
from golem_magic.share import files
from golem_magic.share.layout import SharePaths


def put(paths: SharePaths, frame: payload.Frame) -> Digest:
    """Store a frame under its digest, unless it is there; give the digest.

    The bytes go to a name of their own and are renamed: of two writers the last
    wins, and both wrote the same. An object that is there is touched first, so
    that the sweeper, which spares young objects, leaves it alone.

    Raises:
        ShareError: It could not be written.
    """
    digest = frame.digest()
    path = paths.object(digest)
    with files.explained("write", path):
        if _is_there(paths, digest):
            os.utime(path)
            return digest
        part = f"{path}.{os.urandom(8).hex()}.part"
        files.create(part, frame.parts)
        os.replace(part, path)
    return digest


def get(paths: SharePaths, digest: Digest) -> memoryview:
    """Map an object; writing to the map changes only this process's copy.

    Raises:
        ShareError: It is not there, or not what its name says.
    """
    path = paths.object(digest)
    with files.explained("read", path):
        fd = files.open_own(path)
        try:
            view = memoryview(mmap.mmap(fd, 0, access=mmap.ACCESS_COPY))
        except ValueError as error:
            message = f"{path} is empty: the client's disk may have been full, submit the job again"
            raise FormatError(message) from error
        finally:
            os.close(fd)
    try:
        found = str(payload.digest(view))
    except FormatError as error:
        found = str(error)
    if found != digest:
        message = f"{path} is not what its name says ({found}): it was altered, submit the job again"
        raise FormatError(message)
    return view


def _is_there(paths: SharePaths, digest: Digest) -> bool:
    """Whether the object is there and what its name says; one that was spoiled is written again."""
    try:
        get(paths, digest)
    except ShareError:
        return False
    return True
