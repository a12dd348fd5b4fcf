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
from typing import Any, Final, TypeVar

import anyio

from engine.config import Migration
from engine.content.filter import Chosen
from engine.errors import ConfigError, Stop
from engine.ledger.before_images import BeforeImages
from engine.ledger.file import is_there
from engine.ledger.sink import Sink
from engine.ledger.state import State, mismatch
from engine.migrate.context import Context
from engine.migrate.halt import Halt
from engine.migrate.interrupt import interruptible
from engine.migrate.job import Job
from engine.migrate.needs import with_made
from engine.session.connect import Gates, Shared, Workspaces, open_ends, open_job
from engine.taskgroup import task_group

T = TypeVar("T")

LOOK_AGAIN_S: Final = 0.2
"""A lock that is waited for in the kernel could not be given up at a signal."""


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


def check_shard(migration: Migration, state: State) -> None:
    """Raises Stop for the ledger of another part of its prompts."""
    ours = str(migration.shard) if migration.shard is not None else None
    if state.identity is None or state.shard == ours:
        return
    theirs = _whose(state.shard)
    advice = f"run it with --shard {state.shard}" if state.shard else "run it without --shard"
    merge = ", or merge the ledgers of all shards with `promptferry ledger merge`" if ours is None else ""
    raise Stop(
        "ledger_mismatch",
        f"{migration.ledger} is the ledger of {theirs}, and this is {_whose(ours)}",
        next=f"Name the ledger of this one with --ledger, or {advice}{merge}.",
    )


def _whose(shard: str | None) -> str:
    return f"shard {shard}" if shard is not None else "the whole migration"


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
    lock_wait: float = 0.0
    """Seconds to wait for a ledger that somebody holds."""
    halt: Halt = field(default_factory=Halt)
    """Says afterwards whether the end was asked for."""


async def when_free(attempt: Callable[[], T], halt: Halt, seconds: float) -> T:
    """What `attempt` gives, which is tried for so long as somebody holds the ledger. Raises what it raises in the end,
    and the Stop of `halt`.
    """
    until = anyio.current_time() + seconds
    while True:
        try:
            return attempt()
        except Stop as stop:
            left = until - anyio.current_time()
            if stop.reason != "ledger_in_use" or left <= 0:
                raise
        await halt.pause(min(left, LOOK_AGAIN_S))
        if halt.stop is not None:
            raise halt.stop


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
    gates: Gates | None = None,
    lock_wait: float = 0.0,
) -> AsyncIterator[tuple[Sink, Workspaces]]:
    """The ledger under its lock, for which it waits so long, and both ends, until `halt` is asked for or `seconds` are
    over: then nothing that still waits for its turn is sent. Raises Stop and ConfigError.
    """
    async with interruptible(halt, signals=signals, seconds=seconds, within=shared.halt if shared else None):
        sink = await when_free(lambda: Sink.open(migration.ledger, run=run), halt, lock_wait)
        how: dict[str, Any] = {"rate": rate, "gateways": gateways, "writes": writes, "shared": shared, "gates": gates}
        try:
            check_identity(migration, sink.state)
            if migration.shard is not None:
                check_shard(migration, sink.state)
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
    if begun and not is_there(migration.ledger):
        raise ConfigError(f"{migration.ledger}: there is no ledger: nothing was migrated yet, or it lies elsewhere")
    halt, run = options.halt, new_run_id()
    how: dict[str, Any] = {"rate": options.rate, "signals": options.signals, "gateways": gateways, "writes": writes}
    how |= {"shared": options.shared, "lock_wait": options.lock_wait}
    async with opened(migration, halt, run=run, **how) as (sink, ends):
        job = await job_now(migration, halt, sink.state, ends)
        yield job, Context(sink=sink, halt=halt, clock=time.time, copies=BeforeImages(migration.ledger, run=run)), ends


async def job_now(migration: Migration, halt: Halt, state: State, ends: Workspaces) -> Job:
    """The job, by what both ends say of themselves now. Raises Stop."""
    return await halt.guard(with_made(await halt.guard(open_job(migration, ends)), state))


async def _stop_sending(halt: Halt, ends: Workspaces) -> None:
    await halt.wait()
    for gate in ends.gates:
        gate.halt()
