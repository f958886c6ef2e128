"""The atomic steps everything on the share is made of.

Rules of the file: a name is created exclusively or not at all; a name that
only others create is found by listing, never by asking for it (a failed
look-up is remembered by network file systems); nothing that decides is ever
changed. Small changing files (beats) are overwritten in place, fixed width.
Reading follows no link at the end of a path, and never waits, as for a writer
at the other end of a pipe.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from golem_magic.errors import ShareError

BEAT_BYTES = 128
# For files that stay open while others read them. A network file system may else keep what was written on
# this machine for half a minute, and send two files in any order.
THROUGH = os.O_DSYNC
MOST_PARTS = 512  # below IOV_MAX everywhere
READING = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
OTHERS_WRITE = 0o022
_NO_FILE = {errno.ELOOP: "a symbolic link", errno.ENXIO: "a socket"}


@contextmanager
def explained(doing: str, path: str) -> Iterator[None]:
    """Turn an OSError into a ShareError that names the path and the likely remedy."""
    try:
        yield
    except OSError as error:
        message = f"cannot {doing} {path} ({error.strerror}): {_remedy(error)}"
        raise ShareError(message) from error


def open_own(path: str, flags: int = os.O_RDONLY) -> int:
    """Open a file for reading if only this user can have written it: what it holds may be run.

    The open descriptor is asked, so what was checked is what is read, whatever its name means
    by then. Can be the ``opener`` of :func:`open`.

    Raises:
        ShareError: See :func:`check_owner`.
        OSError: It cannot be opened.
    """
    try:
        fd = os.open(path, flags | READING)
    except OSError as error:
        if error.errno in _NO_FILE:
            message = f"{path} is no file but {_NO_FILE[error.errno]}: it was altered, remove it"
            raise ShareError(message) from None
        raise
    try:
        check_owner(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def check_owner(fd: int, path: str) -> None:
    """Refuse a file that somebody else could have written or put there: unpickling it would run their code.

    Raises:
        ShareError: It belongs to another user, others may write it, it has another name as well,
            under which it may mean something else, or it is no file at all.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        message = f"{path} is no file (mode {stat.filemode(found.st_mode)}): it was altered, remove it"
        raise ShareError(message)
    if found.st_uid != os.geteuid() or found.st_mode & OTHERS_WRITE:
        message = (
            f"{path} belongs to uid {found.st_uid} (mode {found.st_mode & 0o777:o}), you are {os.geteuid()}: "
            f"files that others can write are not unpickled"
        )
        raise ShareError(message)
    if found.st_nlink > 1:  # 0 is none of this: it was replaced just now
        message = (
            f"{path} has {found.st_nlink} names (hard links), and may be meant for another one: copy it to a "
            f"file of its own to have it read"
        )
        raise ShareError(message)


def check_folder(path: str) -> None:
    """Refuse a folder in which others could put something in the place of what is ours.

    Root may, as everywhere. In a sticky one everybody can create names, but replace only their own.

    Raises:
        ShareError: It belongs to somebody else, or others may write it.
        OSError: It is not there.
    """
    found = os.stat(path)
    if found.st_uid not in (os.geteuid(), 0):
        message = (
            f"{path} belongs to uid {found.st_uid}, you are {os.geteuid()}: what others can replace is not "
            f"run, choose another share (GOLEM_MAGIC_SHARE)"
        )
        raise ShareError(message)
    if found.st_mode & OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        message = (
            f"others can write to {path} (mode {found.st_mode & 0o777:o}), and what they can replace is not "
            f"run: take that away with chmod go-w, or choose another share (GOLEM_MAGIC_SHARE)"
        )
        raise ShareError(message)


def create(path: str, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Write a new file under a name of its own.

    Raises:
        FileExistsError: The name is taken.
        OSError: It could not be written in full; the name is removed again.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, parts)
    except OSError:
        with suppress(OSError):
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def write_all(fd: int, parts: Sequence[bytes | bytearray | memoryview]) -> None:
    """Write all parts, however little the system takes at a time."""
    rest = [memoryview(part) for part in parts if len(part)]
    while rest:
        written = os.writev(fd, rest[:MOST_PARTS])
        while rest and written >= len(rest[0]):
            written -= len(rest.pop(0))
        if written:
            rest[0] = rest[0][written:]


def link(target: str, path: str) -> bool:
    """Create ``path`` as a link to ``target`` if the name is free: the one step that decides.

    Returns:
        Whether the name says ``target`` now because of us. A name that exists
        with exactly our target is ours: the request was sent twice.

    Raises:
        OSError: It could not be created, or is there and cannot be read: nothing is decided.
    """
    try:
        os.symlink(target, path)
    except FileExistsError:
        try:
            return os.readlink(path) == target
        except OSError as error:
            if error.errno != errno.EINVAL:  # no link at all is not ours
                raise
            return False
    return True


def read_link(path: str) -> str | None:
    """What a link says; None if it is not there, or not yet."""
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return None


def names(folder: str) -> list[str]:
    """List a folder; empty if it is not there, or not yet."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def is_folder(path: str) -> bool:
    """Whether a folder is there; trouble in asking is raised, not taken for a no."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


def touch(path: str) -> None:
    """Create an empty file, whoever else does.

    A name that is known here but gone on the server can answer "not found": it
    was there, and somebody took it away.
    """
    with suppress(FileNotFoundError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def make_folder(path: str) -> None:
    """Create a folder if it is not there."""
    with suppress(FileExistsError):
        os.mkdir(path, 0o700)


def make_folders(path: str) -> None:
    """Create a folder and those above it, as far as they are missing: all private, whatever the umask."""
    if not os.path.isdir(path):
        parent = os.path.dirname(path.rstrip("/"))
        if parent:
            make_folders(parent)
        make_folder(path)


def tail(path: str, n_bytes: int = 2000) -> str:
    """The end of a text file; empty if it cannot be read."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - n_bytes))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


class BeatWriter:
    """Overwrites one line of fixed width in place: a counter and a word.

    Args:
        path: Of the line.
        through: Other machines read it: see :data:`THROUGH`.
    """

    def __init__(self, path: str, *, through: bool = False) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (THROUGH if through else 0)
        self._fd = os.open(path, flags, 0o600)
        self._count = 0
        self.beat("-")

    def beat(self, word: str, memory_bytes: int = 0, cpu_s: float = 0.0) -> None:
        """Count one up; a full disk does not keep us from it. After closing: nothing.

        Args:
            word: What to say, without blanks.
            memory_bytes: What the tasks' processes use now.
            cpu_s: Processor time that they have used so far.
        """
        self._count += 1
        if self._fd < 0:
            return
        line = f"{self._count} {word} {memory_bytes} {cpu_s:.2f}"
        with suppress(OSError):
            os.pwrite(self._fd, line.encode().ljust(BEAT_BYTES - 1) + b"\n", 0)

    def close(self) -> None:
        """Stop beating; doing it twice is harmless."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Beat(NamedTuple):
    """A sign of life: see :meth:`BeatWriter.beat`."""

    number: int
    word: str
    memory_bytes: int
    cpu_s: float


def read_beat(path: str) -> Beat | None:
    """What a beat file says; None counts as no news."""
    try:
        fd = os.open(path, READING)
    except OSError:
        return None
    try:
        count, word, memory_bytes, cpu_s = os.read(fd, BEAT_BYTES).split()
        return Beat(int(count), word.decode(), int(memory_bytes), float(cpu_s))
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | READING)


def _remedy(error: OSError) -> str:
    remedies = {
        errno.ENOSPC: "the disk is full, free space there or choose another share",
        errno.EDQUOT: "your quota is used up, free space there or choose another share",
        errno.EACCES: "you may not write there, choose another share (GOLEM_MAGIC_SHARE)",
        errno.EROFS: "it is read-only, choose another share (GOLEM_MAGIC_SHARE)",
        errno.ENOTDIR: "it is no folder, choose another share (GOLEM_MAGIC_SHARE)",
        errno.ENOENT: "the folder is missing, create it or choose another share (GOLEM_MAGIC_SHARE)",
    }
    return remedies.get(error.errno or 0, "check that the share is mounted and writable")
