"""The one place for durability: every sync, lock, write loop and rename of a file that must not be lost.

macOS has no `fdatasync`, and its `fsync` leaves what it was given in the drive's cache: F_FULLFSYNC does not. Windows
has none of this, so importing this module there raises Unsupported. Everything in it raises OSError.
"""

from __future__ import annotations

import sys

from engine.errors import Unsupported

try:
    if sys.platform == "win32":
        raise ImportError
    import fcntl
except ImportError:
    raise Unsupported from None

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

PRIVATE: Final = 0o600
"""Mode of a file for its owner only."""
PUBLIC: Final = 0o666
"""Mode of a file for whom the umask lets read it."""
_NOT_SUPPORTED: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
"""What a file system says that does not know F_FULLFSYNC, as those of networks do not."""
_WRITE_BYTES: Final = 2**20


class NotAFile(OSError):
    """A folder, a pipe or a device, where a file is due."""


# ---- what was written is on the disk ---------------------------------------------------------------------------------


def sync(fd: int) -> None:
    """What was written to it survives a loss of power. An error is final: the lost pages may count as clean by then."""
    if not _synced_by_the_drive(fd):
        os.fsync(fd)


def sync_data(fd: int) -> None:
    """The same without times and mode, which is faster where the system knows the difference."""
    if not _synced_by_the_drive(fd):
        getattr(os, "fdatasync", os.fsync)(fd)


def _synced_by_the_drive(fd: int) -> bool:
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_sync is None:
        return False
    try:
        fcntl.fcntl(fd, full_sync)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
        return False
    return True


def sync_folder(folder: Path) -> None:
    """Makes names in it durable: of files made, renamed or removed."""
    fd = open_folder(folder)
    try:
        sync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Makes it and its parents, durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


# ---- opening ---------------------------------------------------------------------------------------------------------


def open_folder(folder: Path) -> int:
    """A descriptor to lock it by, and to sync it."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def lock(fd: int) -> None:
    """For as long as `fd` is open, nobody else has this lock. Raises BlockingIOError when somebody has it."""
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def open_locked(path: Path, *, mode: int) -> tuple[int, bool]:
    """The descriptor of the file that is at `path` now, locked, to read and to append; and whether it was made.

    Makes its folder too, and makes both names durable. Raises BlockingIOError when somebody holds it, and NotAFile.
    """
    make_folder(path.parent)
    while True:
        made = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise NotAFile(errno.EINVAL, "it is no file", str(path))
            lock(fd)
            # between open and lock it may have been replaced by rename, or removed by a run that left it empty
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                if made:
                    sync_folder(path.parent)
                return fd, made
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_all(fd: int, content: bytes) -> None:
    """Writes the whole of it."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def append_line(path: Path, line: bytes, *, mode: int) -> None:
    """Adds a line that ends with a line break, behind one that may be torn; durable when it returns."""
    made = not path.exists()
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        size = os.fstat(fd).st_size
        torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
        write_all(fd, b"\n" + line if torn else line)
        sync_data(fd)
    finally:
        os.close(fd)
    if made:
        sync_folder(path.parent)


@contextmanager
def new_file(path: Path, *, mode: int, over: bool = False) -> Iterator[BinaryIO]:
    """A file that is on the disk when the block ends, and gone when it fails; its name is not durable yet.

    `over`: also over a file that is there; else FileExistsError. A link is never followed.
    """
    how = os.O_TRUNC if over else os.O_EXCL
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how, mode)
    try:
        with open(fd, "wb", _WRITE_BYTES) as file:
            yield file
            file.flush()
            sync(fd)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def put_in_place(new: Path, path: Path) -> None:
    """Whoever opens `path` finds the old file or the new one, whole. Durable when its folder is synced, too."""
    try:
        new.rename(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
