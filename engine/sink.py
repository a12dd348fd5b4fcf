"""The results sink: one task that owns the ledger file, and the readers that need no lock.

Many callers record at once; one task takes what is there, writes it with one write and one sync, and only then wakes
those who wait. What it has said to be durable stays true: after the first error of the disk it says nothing more.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

import anyio

from engine.errors import ConfigError, EngineError, Stop
from engine.ledger import Chain, State, Verdict, encode, judge, seal, timestamp
from engine.model import Entry, Json

BATCH_LINES: Final = 256
FLUSH_SECONDS: Final = 10.0
"""How long the end of a run waits for the disk."""

_REST_BYTES: Final = 64 * 2**20
"""More than one batch: what is longer was not torn by one write."""
_NO_LEDGER: Final = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
_AGAIN: Final = "Free or mend that disk, then run the same command again: it goes on where this one stopped."


# ---- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A ledger as it was found. `torn` while a run writes is only the write that is going on."""

    path: Path
    state: State
    """The fold of the good lines."""
    verdict: Verdict
    end: Chain
    """Where the good lines end."""

    def refusal(self) -> EngineError | None:
        """Why nothing may be written behind this; None: whole, or only torn."""
        line = self.verdict.line
        match self.verdict.kind:
            case "damaged":
                return Stop(
                    "ledger_damaged",
                    f"{self.path}: line {line} is damaged and later ones are whole, so a crash did not do it",
                    next=f"See what is left with `promptferry ledger check {self.path}`, or restore a copy.",
                )
            case "newer":
                return Stop(
                    "ledger_mismatch",
                    f"{self.path}: line {line} was written by a newer version of promptferry",
                    next="Run it with the version that wrote this ledger, or a later one.",
                )
            case "foreign":
                return ConfigError(f"{self.path}: this file is no ledger of promptferry: name another one")
            case "whole" | "torn":
                return None


def read_ledger(path: Path) -> Reading:
    """Folds the good lines; needs no lock. Raises ConfigError when there is no such file, Stop when the disk fails."""
    try:
        with _open_to_read(path) as file:
            return _read(path, file)
    except OSError as exc:
        raise _refused(path, exc, "read") from exc


def entries(path: Path) -> Iterator[dict[str, Json]]:
    """The good lines as they stand, first to last; ends where they end. Raises what read_ledger raises."""
    try:
        with _open_to_read(path) as file:
            yield from _good_lines(file, Chain())
    except OSError as exc:
        raise _refused(path, exc, "read") from exc


def _open_to_read(path: Path) -> BinaryIO:
    if not path.exists():
        raise ConfigError(f"{path}: there is no ledger here: name another one, or run the migration first")
    if not path.is_file():
        raise ConfigError(f"{path}: this is no file: name a ledger")
    return path.open("rb")


def _read(path: Path, file: BinaryIO) -> Reading:
    state, end = State(), Chain()
    for line in _good_lines(file, end):
        state.fold(line)
    file.seek(end.offset)
    rest = file.read(_REST_BYTES)
    verdict = judge(rest, end)
    if verdict.kind == "torn" and len(rest) == _REST_BYTES:
        verdict = Verdict("damaged", verdict.line, verdict.offset)
    return Reading(path=path, state=state, verdict=verdict, end=end)


def _good_lines(file: BinaryIO, chain: Chain) -> Iterator[dict[str, Json]]:
    for line in iter(partial(file.readline, _REST_BYTES), b""):
        fields = chain.accept(line)
        if fields is None:
            return
        yield fields


# ---- opening ---------------------------------------------------------------------------------------------------------


def _open_locked(path: Path) -> tuple[int, bool]:
    """The descriptor of the file that is at `path` now, locked, and whether it was made."""
    while True:
        created = not path.exists()
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError(f"{path}: this is no file: name a ledger")
            _lock(fd, path)
            # Between open and lock it may have been replaced by rename, or removed by a run that left it empty
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd, created
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Stop(
            "ledger_in_use",
            f"{path}: another run holds this ledger",
            next="Wait until it ends, then run the same command again; `promptferry status` works meanwhile.",
        ) from None


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _recover(path: Path, fd: int) -> Reading:
    """Reads the file, keeps a torn tail aside and cuts it off."""
    with open(fd, "rb", closefd=False) as file:
        found = _read(path, file)
        if refusal := found.refusal():
            raise refusal
        if found.end.offset < os.fstat(fd).st_size:
            file.seek(found.end.offset)
            _keep(path, file)
            os.ftruncate(fd, found.end.offset)
    os.fsync(fd)  # also what a killed run had written and not synced: this run builds on it
    return found


def _keep(path: Path, rest: BinaryIO) -> None:
    """Copies the torn tail to LEDGER.torn-N, the first N that is free."""
    kept = next(name for number in count(1) if not (name := path.with_name(f"{path.name}.torn-{number}")).exists())
    try:
        with open(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as copy:
            shutil.copyfileobj(rest, copy)
            copy.flush()
            os.fsync(copy.fileno())
        _sync_folder(path.parent)
    except OSError:
        kept.unlink(missing_ok=True)
        raise


def _refused(path: Path, exc: OSError, verb: str) -> EngineError:
    why = exc.strerror or str(exc)
    if exc.errno in _NO_LEDGER:
        return ConfigError(f"{path}: no ledger can be here ({why}): name another place")
    return Stop("disk", f"{path}: the ledger cannot be {verb} ({why})", next=_AGAIN)


# ---- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
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
            _make_folder(path.parent)
            fd, created = _open_locked(path)
            try:
                if created:
                    _sync_folder(path.parent)
                return cls(fd, _recover(path, fd), run=run, clock=clock, created=created)
            except BaseException:
                os.close(fd)
                raise
        except OSError as exc:
            raise _refused(path, exc, "opened") from exc

    def close(self) -> None:
        """Frees the ledger for others. A file that this open made and nothing was written to is removed."""
        if self._fd < 0 or self._writing:  # a disk that hangs keeps its descriptor until the process ends
            return
        if self.created and os.fstat(self._fd).st_size == 0:
            self.path.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = -1

    async def __aenter__(self) -> Self:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
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
            self._fail(Stop("disk", f"{self.path}: the disk did not answer for {FLUSH_SECONDS:g} s", next=_AGAIN))
            self._shield.cancel()
        self._thread.shutdown(wait=False)
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
        waiting = _Waiting(entries, [encode(entry) for entry in entries], asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
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
            await asyncio.get_running_loop().run_in_executor(self._thread, self._write, data)
        except OSError as exc:
            why = exc.strerror or str(exc)
            self._fail(Stop("disk", f"{self.path}: the ledger cannot be written ({why})", next=_AGAIN))
            return
        self._end = end
        for waiting in batch:
            self._queue.popleft()
            for entry in waiting.entries:
                self.state.fold({**entry.fields, "ts": ts, "run": self.run, "kind": entry.kind})
            if not waiting.durable.done():
                waiting.durable.set_result(True)

    def _write(self, data: bytes) -> None:
        try:
            self._append(data)
            # Never repeated: after an error the kernel may call lost pages clean, and a second sync would succeed
            os.fdatasync(self._fd)
        finally:
            self._writing = False

    def _append(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
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
