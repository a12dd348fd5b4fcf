"""Which process holds the lock of a ledger, as the system tells it to whoever asks; asking takes no lock.

Linux tells in /proc/locks, of processes in the asker's own container alone; others tell nothing.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from engine.model import Json

Life = Literal["none", "running", "ended", "killed", "unknown"]
"""none: there is no run yet. running: a process holds the ledger. ended: the newest run has written its end. killed: it
has not, and there is no process. unknown: it has not, and whether there is a process cannot be seen from here.
"""
LOCKS: Final = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a ledger's lock. `started`: tells it from a later process of the same number."""

    pid: int
    started: str


def life_of(run: Mapping[str, Json], end: Mapping[str, Json], holder: Holder | None) -> Life:
    """Of the newest run, by its first and its last line; both empty where there is none."""
    if holder is not None:
        return "running"
    if not run or end:
        return "ended" if run else "none"
    return "killed" if LOCKS.exists() and run.get("host") == socket.gethostname() else "unknown"


def holder_of(path: Path) -> Holder | None:
    """None: there is no such process, or it cannot be seen from here."""
    try:
        there = os.stat(path)
        locks = LOCKS.read_text("ascii", "replace")
    except OSError:
        return None
    device = f"{os.major(there.st_dev):02x}:{os.minor(there.st_dev):02x}"
    for pid, found, inode in _write_locks(locks):
        # a file system of many volumes names another device here than for the file: then the process itself must tell
        if inode == there.st_ino and (found == device or _has_open(pid, there)) and (started := _started(pid)):
            return Holder(pid, started)
    return None


def _write_locks(locks: str) -> Iterator[tuple[int, str, int]]:
    """pid, device and inode of each whole-file lock that somebody has; who waits for one has `->` in its line."""
    for line in locks.splitlines():
        fields = line.split()
        if fields[1:2] == ["FLOCK"] and fields[3] == "WRITE":
            device, _, inode = fields[5].rpartition(":")
            yield int(fields[4]), device, int(inode)


def _has_open(pid: int, there: os.stat_result) -> bool:
    with suppress(OSError):  # it has ended, or it is somebody else's
        for fd in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.path.samestat(os.stat(fd.path), there):
                    return True
    return False


def _started(pid: int) -> str:
    """Blank: it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    state, *fields = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else fields[18]


def interrupt(path: Path, holder: Holder) -> bool:
    """Sends it one SIGINT, if it still holds the lock; False: it does not. Raises PermissionError: it is not ours."""
    try:
        fd = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return False
    try:
        # now the number cannot become another process's any more
        if holder_of(path) != holder:
            return False
        signal.pidfd_send_signal(fd, signal.SIGINT)
    except ProcessLookupError:
        return False
    finally:
        os.close(fd)
    return True
