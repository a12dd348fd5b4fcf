"""The ledger as a file: read it without a lock, or open, lock and recover it to write behind it."""

from __future__ import annotations

import errno
import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

from engine.errors import ConfigError, EngineError, Stop
from engine.ledger import durable as disk
from engine.ledger.durable import PRIVATE, NotAFile, new_file, sync, sync_folder
from engine.ledger.lines import Chain, Condition, condition_of
from engine.ledger.state import State
from engine.model import Json

_REST_BYTES: Final = 64 * 2**20
"""More than one batch: what is longer was not torn by one write."""
_BUFFER_BYTES: Final = 256 * 1024
"""Many lines at a time: to ask the system for each eight kilobytes takes as long as to find the lines in them."""
_NO_LEDGER: Final = {errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG}
AGAIN: Final = "Free or mend that disk, then run the same command again: it goes on where this one stopped."


# ---- reading ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A ledger as it was found. `torn` while a run writes is only the write that is going on."""

    path: Path
    state: State
    """The fold of the good lines."""
    verdict: Condition
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
        raise refused(path, exc, "read") from exc


def entries(path: Path) -> Iterator[dict[str, Json]]:
    """The good lines as they stand, first to last; ends where they end. Raises what read_ledger raises."""
    try:
        with _open_to_read(path) as file:
            yield from _good_lines(file, Chain())
    except OSError as exc:
        raise refused(path, exc, "read") from exc


def _open_to_read(path: Path) -> BinaryIO:
    if not path.exists():
        raise ConfigError(f"{path}: there is no ledger here: name another one, or run the migration first")
    if not path.is_file():
        raise ConfigError(f"{path}: this is no file: name a ledger")
    return path.open("rb", buffering=_BUFFER_BYTES)


def _read(path: Path, file: BinaryIO) -> Reading:
    state, end = State(), Chain()
    with _uncollected():
        state.fold_all(_good_lines(file, end))
    file.seek(end.offset)
    rest = file.read(_REST_BYTES)
    verdict = condition_of(rest, end)
    if verdict.kind == "torn" and len(rest) == _REST_BYTES:
        verdict = Condition("damaged", verdict.line, verdict.offset)
    return Reading(path=path, state=state, verdict=verdict, end=end)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing of a fold is garbage: to look for cycles in it, again and again, would take a fifth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _good_lines(file: BinaryIO, chain: Chain) -> Iterator[dict[str, Json]]:
    """Up to the first one that is not. No loop of Python: a ledger has two lines for each prompt."""
    lines = iter(partial(file.readline, _REST_BYTES), b"")
    return iter(partial(next, map(chain.accept, lines)), None)


# ---- opening ---------------------------------------------------------------------------------------------------------


def open_ledger(path: Path) -> tuple[int, bool]:
    """The descriptor of the file that is at `path` now, locked, and whether it was made. Raises Stop, ConfigError."""
    try:
        return disk.open_locked(path, mode=PRIVATE)
    except NotAFile:
        raise ConfigError(f"{path}: this is no file: name a ledger") from None
    except BlockingIOError:
        raise Stop(
            "ledger_in_use",
            f"{path}: another run holds this ledger",
            next="Wait until it ends, then run the same command again; `promptferry status` works meanwhile.",
        ) from None


def recover(path: Path, fd: int) -> Reading:
    """Reads the file, keeps a torn tail aside and cuts it off."""
    with open(fd, "rb", buffering=_BUFFER_BYTES, closefd=False) as file:
        found = _read(path, file)
        if refusal := found.refusal():
            raise refusal
        if found.end.offset < os.fstat(fd).st_size:
            file.seek(found.end.offset)
            _keep(path, file)
            os.ftruncate(fd, found.end.offset)
    sync(fd)  # also what a killed run had written and not synced: this run builds on it
    return found


def _keep(path: Path, rest: BinaryIO) -> None:
    """Copies the torn tail to LEDGER.torn-N, the first N that is free."""
    kept = next(name for number in count(1) if not (name := path.with_name(f"{path.name}.torn-{number}")).exists())
    with new_file(kept, mode=PRIVATE) as copy:
        shutil.copyfileobj(rest, copy)
    sync_folder(path.parent)


def refused(path: Path, exc: OSError, verb: str) -> EngineError:
    """What the disk's refusal means for the caller."""
    why = exc.strerror or str(exc)
    if exc.errno in _NO_LEDGER:
        return ConfigError(f"{path}: no ledger can be here ({why}): name another place")
    return Stop("disk", f"{path}: the ledger cannot be {verb} ({why})", next=AGAIN)
