"""What all verbs of a fleet do alike: several migrations at a time, and what one of them raises is its own affair."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from engine.config import Fleet, Migration
from engine.errors import EXIT_ACT, EXIT_OK, WORST_FIRST, EngineError, Stop
from engine.http.limiter import Known
from engine.ledger.file import is_there, read_ledger
from engine.log import log_within
from engine.migrate.shared_parts import settled_by
from engine.session.connect import Gates, Shared, embedded_sandbox
from engine.taskgroup import for_each

T = TypeVar("T")


def worst(codes: Sequence[int]) -> int:
    """The exit code of all together."""
    return min(codes, key=WORST_FIRST.index, default=EXIT_OK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done(Generic[T]):
    """What came of one migration: a result, an error, or both where it was stopped on the way."""

    name: str
    value: T | None = None
    error: EngineError | None = None


@asynccontextmanager
async def shared_by(fleet: Fleet, *, rate: float | None, gates: Gates | None = None) -> AsyncIterator[Shared]:
    """What its migrations have in common; the sandbox's store lies among their ledgers. `gates`: what makes those."""
    async with embedded_sandbox(fleet.folder / "sandbox.sqlite") as sandbox:
        recall = _Remembered(fleet.migrations).recall
        yield Shared(fleet.migrations, sandbox, recall=recall, unsettled=_unsettled, rate=rate, gates=gates)


async def each(
    fleet: Fleet, shared: Shared, work: Callable[[Migration], Awaitable[T]], ended: Callable[[Done[T]], None]
) -> None:
    """Works on as many migrations at a time as the file says. Once the end is asked for, none is begun: that is told as
    the error of those that are left.
    """

    async def one(migration: Migration) -> None:
        stop = shared.halt.stop
        ended(Done(name=migration.name, error=stop) if stop is not None else await _done(migration, work))

    await for_each(fleet.migrations, one, limit=min(fleet.parallel, len(fleet.migrations)))


async def _done(migration: Migration, work: Callable[[Migration], Awaitable[T]]) -> Done[T]:
    with log_within(migration=migration.name):
        try:
            return Done(name=migration.name, value=await work(migration))
        except EngineError as error:
            return Done(name=migration.name, error=error)


def exit_code_of(error: EngineError) -> int:
    """Of a migration that could not go on; what is wrong with its ledger or its surroundings is for a person, too."""
    return error.exit_code if isinstance(error, Stop) else EXIT_ACT


class _Remembered:
    """What the ledgers of a fleet know of a registry: the newest that knows anything has the word."""

    def __init__(self, migrations: Sequence[Migration]) -> None:
        self._migrations = migrations

    def recall(self, migration: Migration, end: str) -> Known:
        """Reads no more ledgers than it must."""
        if end not in ("source", "target"):
            return Known()
        asked = migration.ends[end == "target"].address
        sharing = [(one.ledger, name) for one in self._migrations for name in _ends_at(one, asked)]
        for ledger, name in sorted(sharing, key=lambda one: _changed(one[0]), reverse=True):
            if _changed(ledger) and (known := _known(ledger, name)) is not None:
                return known
        return Known()


def _unsettled(migration: Migration) -> float:
    """See `Unsettled`."""
    try:
        parts = read_ledger(migration.ledger).state.parts.values() if is_there(migration.ledger) else ()
    except EngineError:  # whoever is to write it says what is wrong with it
        return 0.0
    return settled_by((one for one in parts if one.doubtful), migration.limits.settle_seconds)


def _ends_at(migration: Migration, address: object) -> list[str]:
    named = zip(("source", "target"), migration.ends, strict=True)
    return [name for name, end in named if end.address == address]


def _changed(ledger: Path) -> float:
    """When; 0: there is none."""
    try:
        return ledger.stat().st_mtime
    except OSError:
        return 0.0


def _known(ledger: Path, end: str) -> Known | None:
    try:
        found = read_ledger(ledger).state.throttle.get(end)
    except EngineError:  # whoever is to write it says what is wrong with it
        return None
    return Known(**found) if found and "limit" in found else None
