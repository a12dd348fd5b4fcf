"""The results sink: one task that owns the ledger file.

Many callers record at once; one task takes what is there, writes it with one write and one sync, and only then wakes
those who wait. What it has said to be durable stays true: after the first error of the disk it says nothing more.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

import anyio

from engine.errors import Stop
from engine.ledger.durable import sync_data, write_all
from engine.ledger.file import AGAIN, Reading, open_ledger, recover, refused
from engine.ledger.lines import encode_line, seal, timestamp
from engine.model import Entry

BATCH_LINES: Final = 256
FLUSH_SECONDS: Final = 10.0
"""How long the end of a run waits for the disk."""


# ---- writing ---------------------------------------------------------------------------------------------------------


@dataclass(slots=True)  # a value, and not frozen: there are two of them for each prompt
class _Waiting:
    """What one caller handed over, and how it learns that it is durable: True, or False after an error."""

    entries: tuple[Entry, ...]
    parts: list[bytes]
    durable: asyncio.Future[bool]


class Sink:
    """The one writer of a ledger. Open it, enter it with `async with`, record, leave it, close it."""

    def __init__(self, fd: int, found: Reading, *, run: str, clock: Callable[[], float], created: bool) -> None:
        self.path = found.path
        self.run = run
        self.state = found.state
        self.created = created
        """The file was made by this open."""
        self.cut = found.verdict.kind == "torn"
        """The last write of an earlier run did not end: what it had acknowledged may be lost, so look it up by key."""
        self.broken: Stop | None = None
        """The first error of the disk; nothing was durable after it."""
        self._fd = fd
        self._end = found.end
        self._clock = clock
        self._writes: SimpleQueue[tuple[bytes, asyncio.Future[None]] | None] = SimpleQueue()
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._leaving = False
        self._writing = False

    @classmethod
    def open(cls, path: Path, *, run: str, clock: Callable[[], float] = time.time) -> Self:
        """Makes or locks, reads, and where its tail is torn mends the ledger. `clock`: epoch seconds.

        Raises Stop `ledger_in_use`, `ledger_damaged`, `ledger_mismatch` (of a newer version) or `disk`, and ConfigError
        when `path` cannot be a ledger.
        """
        path = path.absolute()
        try:
            fd, created = open_ledger(path)
            try:
                return cls(fd, recover(path, fd), run=run, clock=clock, created=created)
            except BaseException:
                os.close(fd)
                raise
        except OSError as exc:
            raise refused(path, exc, "opened") from exc

    def close(self) -> None:
        """Frees the ledger for others. A file that this open made and nothing was written to is removed."""
        if self._fd < 0 or self._writing:  # a disk that hangs keeps its descriptor until the process ends
            return
        if self.created and os.fstat(self._fd).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        threading.Thread(target=self._write_all, name="ledger", daemon=True).start()
        self._ended.clear()
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        self._group.start_soon(self._serve)
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._leaving = True
        self._arrived.set()
        with anyio.move_on_after(FLUSH_SECONDS, shield=True):
            await self._ended.wait()
        if not self._ended.is_set():
            self._fail(Stop("disk", f"{self.path}: the disk did not answer for {FLUSH_SECONDS:g} s", next=AGAIN))
            self._shield.cancel()
        self._writes.put(None)
        if isinstance(exc, asyncio.CancelledError):
            return await self._group.__aexit__(exc_type, exc, trace)
        await self._group.__aexit__(None, None, None)  # an error of the body goes on as it is, in no group
        return None

    async def record(self, *entries: Entry) -> None:
        """Returns when all are durable, in this order; they are written even when the caller is cancelled meanwhile.

        Callers wait for their own entries, so what is queued is bounded by how many there are. Raises Stop `disk`.
        """
        if self._ended.is_set() or self.broken is not None:
            raise self._refusal()
        durable: asyncio.Future[bool] | None = None
        for start in range(0, len(entries), BATCH_LINES):
            durable = self._enqueue(entries[start : start + BATCH_LINES])
        if durable is not None and not await durable:
            raise self._refusal()

    def _enqueue(self, entries: tuple[Entry, ...]) -> asyncio.Future[bool]:
        waiting = _Waiting(entries, list(map(encode_line, entries)), self._loop.create_future())
        if not self._queue:  # else it is awake, or writes
            self._arrived.set()
        self._queue.append(waiting)
        return waiting.durable

    def _refusal(self) -> Exception:
        if self.broken is None:
            return RuntimeError("the sink takes entries only inside `async with`")
        # A new one each time: many callers raise it at once, and each traceback is its own
        return Stop(self.broken.reason, str(self.broken), next=self.broken.next)

    async def _serve(self) -> None:
        # Shielded: a run that is cancelled still writes what it was handed; leaving ends this, within its bound
        try:
            with anyio.CancelScope(shield=True) as self._shield:
                while self._queue or not self._leaving:
                    if self._queue:
                        await self._commit(self._batch())
                    else:
                        self._arrived.clear()
                        await self._arrived.wait()
        finally:
            self._ended.set()
            self._drop()

    def _batch(self) -> list[_Waiting]:
        """What is there, at most BATCH_LINES entries; what one caller handed over stays together."""
        lines, batch = 0, []
        for waiting in self._queue:
            lines += len(waiting.entries)
            if lines > BATCH_LINES:
                break
            batch.append(waiting)
        return batch

    async def _commit(self, batch: list[_Waiting]) -> None:
        ts = timestamp(self._clock())
        data, end = seal([part for waiting in batch for part in waiting.parts], self._end, ts=ts, run=self.run)
        self._writing = True
        try:
            written: asyncio.Future[None] = self._loop.create_future()
            self._writes.put((data, written))
            await written
        except OSError as exc:
            why = exc.strerror or str(exc)
            self._fail(Stop("disk", f"{self.path}: the ledger cannot be written ({why})", next=AGAIN))
            return
        self._end = end
        for waiting in batch:
            self._queue.popleft()
            for entry in waiting.entries:
                self.state.fold({**entry.fields, "ts": ts, "run": self.run, "kind": entry.kind})
            if not waiting.durable.done():
                waiting.durable.set_result(True)

    def _write_all(self) -> None:
        """The one thread that touches the disk. A daemon: a disk that hangs must not keep the process."""
        while (write := self._writes.get()) is not None:
            data, written = write
            error: BaseException | None = None
            try:
                self._write(data)
            except BaseException as exc:  # it is raised again by whoever waits
                error = exc
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_settle, written, error)

    def _write(self, data: bytes) -> None:
        try:
            self._append(data)
            # Never repeated: after an error the kernel may call lost pages clean, and a second sync would succeed
            sync_data(self._fd)
        finally:
            self._writing = False

    def _append(self, data: bytes) -> None:
        try:
            write_all(self._fd, data)
        except OSError:  # EFBIG too: Python ignores SIGXFSZ from its start
            os.ftruncate(self._fd, self._end.offset)
            raise

    def _fail(self, stop: Stop) -> None:
        self.broken = stop
        self._drop()

    def _drop(self) -> None:
        for waiting in self._queue:
            if not waiting.durable.done():
                waiting.durable.set_result(False)
        self._queue.clear()


def _settle(written: asyncio.Future[None], error: BaseException | None) -> None:
    if written.done():  # who waited has gone
        return
    if error is None:
        written.set_result(None)
    else:
        written.set_exception(error)
