"""The ledger under its lock, both ends open (`connect`), and the way to end: what every verb begins with.

May import the connectors, the configuration, http, migrate, ledger, content, the model, errors and task groups; the
sandbox only when a migration asks for it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from engine.config import Migration
from engine.content.filter import Chosen
from engine.errors import ConfigError, Stop
from engine.ledger.before_images import BeforeImages
from engine.ledger.sink import Sink
from engine.ledger.state import State, mismatch
from engine.migrate.context import Context
from engine.migrate.halt import Halt
from engine.migrate.interrupt import interruptible
from engine.migrate.job import Job
from engine.migrate.needs import with_made
from engine.session.connect import Shared, Workspaces, open_ends, open_job
from engine.taskgroup import task_group


def check_identity(migration: Migration, state: State) -> None:
    """Raises Stop for the ledger of another migration."""
    if state.identity is None:
        return
    if different := mismatch(state.identity, migration.identity()):
        raise Stop(
            "ledger_mismatch",
            f"{migration.ledger} belongs to another migration: {different}",
            next="Give this migration another name or ledger, or set back what was changed in the file.",
        )


def new_run_id() -> str:
    """The time, and what tells two runs of one second apart."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbOptions:
    """The flags that the three have in common. `confirm`: asked once with what is to be done; None: not asked."""

    chosen: Chosen = field(default_factory=Chosen)
    rate: float | None = None
    confirm: Callable[[str], Awaitable[bool]] | None = None
    signals: bool = False
    shared: Shared | None = None
    """What it has in common with the other migrations of a fleet."""
    halt: Halt = field(default_factory=Halt)
    """Says afterwards whether the end was asked for."""


@asynccontextmanager
async def opened(
    migration: Migration,
    halt: Halt,
    *,
    run: str,
    rate: float | None,
    signals: bool,
    seconds: float | None = None,
    gateways: bool = False,
    writes: bool = True,
    shared: Shared | None = None,
) -> AsyncIterator[tuple[Sink, Workspaces]]:
    """The ledger under its lock, and both ends, until `halt` is asked for or `seconds` are over: then nothing that
    still waits for its turn is sent. Raises Stop and ConfigError.
    """
    async with interruptible(halt, signals=signals, seconds=seconds, within=shared.halt if shared else None):
        sink = Sink.open(migration.ledger, run=run)
        how: dict[str, Any] = {"rate": rate, "gateways": gateways, "writes": writes, "shared": shared}
        try:
            check_identity(migration, sink.state)
            async with (
                sink,
                open_ends(migration, throttle=sink.state.throttle, **how) as ends,
                task_group() as group,
            ):
                group.start_soon(_stop_sending, halt, ends)
                yield sink, ends
                group.cancel_scope.cancel()
        finally:
            sink.close()


@asynccontextmanager
async def resumed(
    migration: Migration, options: VerbOptions, *, gateways: bool = False, writes: bool = True, begun: bool = True
) -> AsyncIterator[tuple[Job, Context, Workspaces]]:
    """The same for what comes after a run, and its job. Raises ConfigError where nothing was migrated yet, unless it
    need not have `begun`.
    """
    if begun and not migration.ledger.exists():
        raise ConfigError(f"{migration.ledger}: there is no ledger: nothing was migrated yet, or it lies elsewhere")
    halt, run = options.halt, new_run_id()
    how: dict[str, Any] = {"rate": options.rate, "signals": options.signals, "gateways": gateways, "writes": writes}
    async with opened(migration, halt, run=run, shared=options.shared, **how) as (sink, ends):
        job = await halt.guard(with_made(await halt.guard(open_job(migration, ends)), sink.state))
        yield job, Context(sink=sink, halt=halt, clock=time.time, copies=BeforeImages(migration.ledger, run=run)), ends


async def _stop_sending(halt: Halt, ends: Workspaces) -> None:
    await halt.wait()
    for gate in ends.gates:
        gate.halt()
