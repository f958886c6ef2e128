"""Who holds the results of a job: a file for each such object, as long as its process lives.

A client's beat ends with its job; its results can be read long after. So that nobody cleans them away
under somebody's hands, their object has a file ``clients/<host>-<pid>-<random>.held``, which goes when
the object does. One whose process has died says nothing any more. Other machines' processes cannot be
asked: their files count until cleaning comes to the job's age.
"""

import os
import socket
import weakref
from contextlib import suppress

from golem_magic.share import files
from golem_magic.share.layout import JobPaths

_END = ".held"
SLACK_S = 2.0  # between the clocks that noted a process's birth and its file's; chosen by feel


def hold(paths: JobPaths, holder: object) -> None:
    """Have a job stay as long as ``holder`` and this process live; a share that refuses costs only that."""
    path = f"{paths.clients}/{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}{_END}"
    with suppress(OSError):
        files.create(path, [])
        weakref.finalize(holder, _let_go, path, os.getpid())


def is_held(paths: JobPaths, *, elsewhere: bool) -> bool:
    """Whether a live process holds results of a job; those of other machines count as ``elsewhere`` says."""
    for name in files.names(paths.clients):
        if name.endswith(_END):
            host, _, process = name.removesuffix(_END).rpartition("-")[0].rpartition("-")
            is_here = host == socket.gethostname() and process.isdigit()
            if _is_maker(int(process), f"{paths.clients}/{name}") if is_here else elsewhere:
                return True
    return False


def is_running(pid: int) -> bool:
    """Whether a process of this user has this number; numbers come again, so True proves nothing."""
    try:
        os.kill(pid, 0)
    except OSError:  # it is gone, or somebody else's
        return False
    return True


def _is_maker(pid: int, path: str) -> bool:
    """Whether a process lives and was there when its file was made.

    In a container that is started again with its old name, the new kernel often has the old one's number.
    """
    if not is_running(pid):
        return False
    with suppress(OSError):
        return _began_s(pid) < os.stat(path).st_mtime + SLACK_S
    return False


def _began_s(pid: int) -> float:
    """When a process began, in seconds since 1970; 0 where the system does not tell."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        with open(f"/proc/{pid}/stat") as process, open("/proc/stat") as system:
            ticks = int(process.read().rpartition(")")[2].split()[19])
            booted = next(line.split()[1] for line in system if line.startswith("btime "))
        return int(booted) + ticks / os.sysconf("SC_CLK_TCK")
    return 0.0


def _let_go(path: str, pid: int) -> None:
    if os.getpid() == pid:  # a fork's copy of the object is not what holds the job
        with suppress(OSError):
            os.unlink(path)
