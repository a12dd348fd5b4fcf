"""The ledger as a file: read it without a lock, or open, lock and recover it to write behind it."""

from __future__ import annotations

import errno
import gc
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO, Final

from engine.content.shard import names_a_shard, whole_name
from engine.errors import ConfigError, EngineError, Stop
from engine.ledger import durable as disk
from engine.ledger.durable import PRIVATE, NotAFile, new_file, sync, sync_folder
from engine.ledger.lines import Chain, Condition, condition_of
from engine.ledger.state import State
from engine.model import Json

REST_BYTES: Final = 64 * 2**20
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
        return refusal_of(self.path, self.verdict)


def refusal_of(path: Path, verdict: Condition) -> EngineError | None:
    """Why nobody goes on with a ledger in this condition; None: whole, or only torn."""
    match verdict.kind:
        case "damaged":
            return Stop(
                "ledger_damaged",
                f"{path}: line {verdict.line} is damaged and later ones are whole, so a crash did not do it",
                next=f"See what is left with `{check_command(path)}`, or restore a copy.",
            )
        case "newer":
            return Stop(
                "ledger_mismatch",
                f"{path}: line {verdict.line} was written by a newer version of promptferry",
                next="Run it with the version that wrote this ledger, or a later one.",
            )
        case "foreign":
            return ConfigError(f"{path}: this file is no ledger of promptferry: name another one")
        case "whole" | "torn":
            return None


def check_command(path: Path) -> str:
    """What to type to see how a ledger is."""
    return f"promptferry ledger check {shlex.quote(str(path))}"


def is_there(path: Path) -> bool:
    """Whether there is a file, whatever it is. Raises what read_ledger raises where this may not be seen."""
    try:
        return path.exists()
    except OSError as exc:
        raise refused(path, exc, "read") from exc


def read_ledger(path: Path) -> Reading:
    """Folds the good lines; needs no lock. Raises ConfigError when there is no such file, Stop when the disk fails."""
    try:
        with _open_to_read(path) as file:
            return _read(path, file)
    except OSError as exc:
        raise refused(path, exc, "read") from exc


def entries(path: Path) -> Iterator[dict[str, Json]]:
    """The lines as they stand, first to last; a torn end is left out. Raises what read_ledger raises, and behind the
    good lines what `refusal_of` gives: what damaged ones said is not known, so nobody may take the rest for all.
    """
    try:
        with _open_to_read(path) as file:
            walk = _Walk(file)
            yield from walk.lines()
    except OSError as exc:
        raise refused(path, exc, "read") from exc
    if refusal := refusal_of(path, walk.verdict):
        raise refusal


def good_entries(path: Path) -> Iterator[dict[str, Json]]:
    """The good lines, also of a ledger that nobody may go on with. Raises what read_ledger raises."""
    try:
        with _open_to_read(path) as file:
            yield from _good_lines(file, Chain())
    except OSError as exc:
        raise refused(path, exc, "read") from exc


def no_ledger(path: Path) -> ConfigError:
    """Somebody asks for a ledger that is not there; those of shards may lie beside it."""
    said = f"{path}: there is no ledger here"
    if any(names_a_shard(one.name) and whole_name(one.name) == path.name for one in _beside(path)):
        return ConfigError(f"{said}, but of its shards: give --shard, or `promptferry ledger merge` their ledgers")
    return ConfigError(f"{said}: name another one, or run the migration first")


def _beside(path: Path) -> list[Path]:
    try:
        return list(path.parent.iterdir())
    except OSError:  # no such folder, or not for us to see
        return []


def _open_to_read(path: Path) -> BinaryIO:
    if not path.exists():
        raise no_ledger(path)
    if not path.is_file():
        raise ConfigError(f"{path}: this is no file: name a ledger")
    return path.open("rb", buffering=_BUFFER_BYTES)


def _read(path: Path, file: BinaryIO) -> Reading:
    state, walk = State(), _Walk(file)
    with uncollected():
        state.fold_all(walk.lines())
    return Reading(path=path, state=state, verdict=walk.verdict, end=walk.end)


@dataclass(slots=True)
class _Walk:
    """Through the good lines of a file, first to last."""

    file: BinaryIO
    end: Chain = field(default_factory=Chain)
    """Where those end that were taken."""
    verdict: Condition = field(default_factory=lambda: Condition("damaged", 1, 0))
    """What stands behind them, when all were taken."""

    def lines(self) -> Iterator[dict[str, Json]]:
        """To be taken once."""
        return chain.from_iterable(self._readings())

    def _readings(self) -> Iterator[Iterator[dict[str, Json]]]:
        before = -1
        # a line that was being written when it was read can be whole by now, and stand before others
        while self.verdict.kind == "damaged" and self.end.offset != before:
            before = self.end.offset
            yield _good_lines(self.file, self.end)
            self.file.seek(self.end.offset)
            self.verdict = judged(self.file.read(REST_BYTES), self.end)
            self.file.seek(self.end.offset)


def judged(rest: bytes, end: Chain) -> Condition:
    """What the first REST_BYTES behind the good lines mean."""
    verdict = condition_of(rest, end)
    if verdict.kind == "torn" and len(rest) == REST_BYTES:
        return Condition("damaged", verdict.line, verdict.offset)
    return verdict


@contextmanager
def uncollected() -> Iterator[None]:
    """Nothing of a fold or a page is garbage: to look for cycles, again and again, would take a fifth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _good_lines(file: BinaryIO, end: Chain) -> Iterator[dict[str, Json]]:
    """Up to the first one that is not. No loop of Python: a ledger has two lines for each prompt."""
    lines = iter(partial(file.readline, REST_BYTES), b"")
    return iter(partial(next, map(end.accept, lines)), None)


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
