"""Faults inside the process of a command.

A plan is a JSON object:

ledger      path of the ledger whose calls count
at          number of the call, from 1, at which `fault` happens
calls       which calls count: write, fdatasync, fsync (default: all three)
fault       kill: before the call.  kill_half: after half of the bytes of a write.  eio: the call fails
diary       file that gets one JSON line for each call: [name, bytes that are synced after it]
lie         what a wrong engine would do, so that the oracle can be seen to notice
            unsynced: the ledger stays in memory until the end.  intent_after: the intent follows the create
            unlocked: nobody locks the ledger
begun       file that gets a line for each create that begins, and one when the run is asked to end: `intent`, `halt`
grace       seconds that requests in flight get after a signal
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from engine.connectors.portkey.registry import Portkey
from engine.errors import Stop
from engine.ledger.sink import Sink
from engine.migrate import pipeline
from engine.migrate.halt import Halt
from engine.model import Entry, Outcome, Sending

WRITE: Final = os.write
SYNCS: Final = {"fdatasync": os.fdatasync, "fsync": os.fsync}


# ---- faults and lies -------------------------------------------------------------------------------------------------


class Disk:
    """The disk under the ledger: counts calls, fails one of them, and keeps a diary of what is really synced."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._ledger: str = plan["ledger"]
        self._at: int | None = plan.get("at")
        self._counted: Sequence[str] = plan.get("calls", ("write", "fdatasync", "fsync"))
        self._fault: str | None = plan.get("fault")
        self._diary = os.open(plan["diary"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._calls = 0
        self._synced = 0
        self.kept: dict[int, bytearray] | None = {} if plan.get("lie") == "unsynced" else None
        """Descriptor -> what it has not been given yet."""

    def write(self, fd: int, data: bytes) -> int:
        if not self._is_ledger(fd):
            return WRITE(fd, data)
        self._meet("write", fd, bytes(data))
        if self.kept is not None:
            self.kept.setdefault(fd, bytearray()).extend(data)
            written = len(data)
        else:
            written = WRITE(fd, data)
        self._note("write")
        return written

    def sync(self, name: str, fd: int) -> None:
        """Folders are synced too: their calls count, but they make nothing of the file durable."""
        self._meet(name, fd, b"")
        if self.kept is None:
            SYNCS[name](fd)
            if self._is_ledger(fd):
                self._synced = os.fstat(fd).st_size
        self._note(name)

    def _meet(self, name: str, fd: int, data: bytes) -> None:
        self._calls += name in self._counted
        if name not in self._counted or self._calls != self._at:
            return
        self._note(f"{self._fault} at {name}")
        if self._fault == "eio":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self._fault == "kill_half":
            WRITE(fd, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, name: str) -> None:
        WRITE(self._diary, json.dumps([name, self._synced]).encode() + b"\n")

    def _is_ledger(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self._ledger))
        except FileNotFoundError:
            return False


def install(disk: Disk) -> None:
    """The engine's calls go through it."""
    os.write = disk.write  # type: ignore[assignment]
    for name in SYNCS:
        setattr(os, name, partial(disk.sync, name))
    if disk.kept is not None:
        _write_at_the_end(disk.kept)


def _write_at_the_end(kept: dict[int, bytearray]) -> None:
    close = Sink.close

    def write_and_close(self: Sink) -> None:
        for fd, data in kept.items():
            WRITE(fd, data)
        kept.clear()
        close(self)

    Sink.close = write_and_close  # type: ignore[method-assign]


def _intent_after_the_create() -> None:
    create: Callable[..., Any] = Portkey.create

    async def create_first(self: Portkey, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        async def not_yet() -> None:
            return

        outcomes: list[Outcome] = await create(self, bodies, not_yet)
        await sending()
        return outcomes

    Portkey.create = create_first  # type: ignore[method-assign]


def _note_what_begins(path: str) -> None:
    begun = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    record, request = Sink.record, Halt.request

    async def noted_record(self: Sink, *entries: Entry) -> None:
        WRITE(begun, b"intent\n" * sum(entry.kind == "intent" for entry in entries))
        await record(self, *entries)

    def noted_request(self: Halt, stop: Stop) -> None:
        WRITE(begun, b"halt\n")
        request(self, stop)

    Sink.record = noted_record  # type: ignore[method-assign]
    Halt.request = noted_request  # type: ignore[method-assign]


def _unlocked(_fd: int, _operation: int) -> None:
    return


def disturb(plan: Mapping[str, Any]) -> None:
    """Puts the faults and lies of the plan in place."""
    if "ledger" in plan:
        install(Disk(plan))
    if "begun" in plan:
        _note_what_begins(plan["begun"])
    if plan.get("lie") == "intent_after":
        _intent_after_the_create()
    if plan.get("lie") == "unlocked":
        fcntl.flock = _unlocked  # type: ignore[assignment]
    pipeline.GRACE_S = plan.get("grace", pipeline.GRACE_S)  # type: ignore[misc]
