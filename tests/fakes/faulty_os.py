"""What the share's rooms take from ``os``, and ``open``, as calls that go through a faulty mount."""

from __future__ import annotations

import builtins
import errno
import os
from collections.abc import Sequence
from io import FileIO
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakes.faulty_share import FaultyShare

READ_TROUBLE = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT)


def failed(number: int) -> OSError:
    """An error as the system makes it."""
    return OSError(number, os.strerror(number))


class FaultyOs:
    """What the share takes from ``os``, through the mounts; everything else is the real thing."""

    def __init__(self, share: FaultyShare) -> None:
        self._share = share

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def urandom(self, n_bytes: int) -> bytes:
        return self._share.chance.randbytes(n_bytes)

    def listdir(self, path: str) -> list[str]:
        share = self._share
        if not share.knows(path):
            return os.listdir(path)
        return share.call("listdir", lambda: share.listing(path))  # type: ignore[no-any-return]

    def symlink(self, target: str, path: str) -> None:
        share = self._share

        def make() -> None:
            try:
                os.symlink(target, path)
            except FileExistsError:
                share.forget_absence(path)
                raise
            share.changed(path)
            share.on_link(target, path)

        if not share.knows(path):
            make()
        else:
            share.call("symlink", make, creates=True)

    def readlink(self, path: str) -> str:
        share = self._share

        def read() -> str:
            share.look_up(path)
            return os.readlink(path)

        return share.call("readlink", read) if share.knows(path) else os.readlink(path)  # type: ignore[no-any-return]

    def mkdir(self, path: str, mode: int = 0o777) -> None:
        share = self._share

        def make() -> None:
            try:
                os.mkdir(path, mode)
            except FileExistsError:
                share.forget_absence(path)
                raise
            share.changed(path)

        if not share.knows(path):
            make()
        else:
            share.call("mkdir", make, creates=True)

    def unlink(self, path: str) -> None:
        share = self._share

        def remove() -> None:
            if os.path.lexists(path):
                share.on_unlink(path)
            os.unlink(path)
            share.changed(path)

        if not share.knows(path):
            remove()
        else:
            share.call("unlink", remove)

    def stat(self, path: str) -> os.stat_result:
        share = self._share

        def look() -> os.stat_result:
            share.look_up(path)
            return os.stat(path)

        return share.call("stat", look) if share.knows(path) else os.stat(path)  # type: ignore[no-any-return]

    def statvfs(self, path: str) -> Any:
        """A disk of plenty, whatever the real one is like: being full is an error of writing here."""
        room = SimpleNamespace(f_blocks=1 << 30, f_bavail=1 << 30, f_frsize=4096)
        return self._share.call("stat", lambda: room) if self._share.knows(path) else room

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        share = self._share

        def do() -> int:
            is_new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
            if not flags & os.O_CREAT:
                share.look_up(path)
            fd = os.open(path, flags, mode)
            if is_new:
                share.changed(path)
            return fd

        if not share.knows(path):
            return os.open(path, flags, mode)
        found: list[int] = []
        try:
            share.call("open", lambda: found.append(do()), creates=bool(flags & os.O_EXCL))
        except BaseException:
            for fd in found:
                os.close(fd)
            raise
        return share.opened(found[0])

    def close(self, fd: int) -> None:
        share = self._share
        if share.process is None:
            os.close(fd)
        elif share.is_ours(fd):
            share.closed(fd)
            is_new = fd in share.written  # the system says at closing what became of writing
            share.written.discard(fd)
            if is_new and not share.process.is_dead and share.hit(share.weather.late):
                raise failed(share.chance.choice((errno.EIO, errno.ENOSPC, errno.EDQUOT)))

    def writev(self, fd: int, parts: Sequence[Any]) -> int:
        share = self._share
        if share.process is None:
            return os.writev(fd, parts)

        def write() -> int:
            share.written.add(fd)
            if share.hit(share.weather.short):
                parts_now = [memoryview(parts[0])[: max(1, len(parts[0]) // 3)]]
                return os.writev(fd, parts_now)
            return os.writev(fd, parts)

        return share.call("writev", write)  # type: ignore[no-any-return]

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        share = self._share
        if share.process is None:
            return os.pwrite(fd, data, offset)

        def write() -> int:
            is_torn = share.hit(share.weather.short)
            return os.pwrite(fd, data[: len(data) // 2] if is_torn else data, offset)

        return share.call("pwrite", write)  # type: ignore[no-any-return]

    def read(self, fd: int, n_bytes: int) -> bytes:
        share = self._share
        if share.process is None:
            return os.read(fd, n_bytes)
        is_short = share.hit(share.weather.short)
        return share.call("read", lambda: os.read(fd, max(1, n_bytes // 2) if is_short else n_bytes))  # type: ignore[no-any-return]

    def pread(self, fd: int, n_bytes: int, offset: int) -> bytes:
        share = self._share
        if share.process is None:
            return os.pread(fd, n_bytes, offset)
        is_short = share.hit(share.weather.short)
        return share.call("pread", lambda: os.pread(fd, n_bytes // 2 if is_short else n_bytes, offset))  # type: ignore[no-any-return]

    def fopen(self, path: str, mode: str = "r", **more: Any) -> Any:
        share = self._share
        if not share.knows(path) or mode != "rb":
            return builtins.open(path, mode, **more)

        def look() -> None:
            share.look_up(path)
            os.stat(path)

        share.call("open", look)
        return _FaultyFile(share, path)


class _FaultyFile(FileIO):
    """A file that is read in pieces, some of which fail."""

    def __init__(self, share: FaultyShare, path: str) -> None:
        super().__init__(path, "rb")
        self._share = share

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer)
        share = self._share
        if len(view) > 1 and share.hit(share.weather.short):
            view = view[: len(view) // 2]
        if share.hit(share.weather.trouble):
            raise failed(share.chance.choice(READ_TROUBLE))
        return super().readinto(view)  # type: ignore[return-value]
