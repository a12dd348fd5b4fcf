"""`fleet run`: every migration of a fleet, `parallel` at a time, each with its own ledger and its own summary."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from engine.config import Fleet, Migration
from engine.content.filter import Chosen
from engine.errors import EngineError, Stop
from engine.fleet.common import Done, each, exit_code_of, shared_by
from engine.fleet.summary import NO_REQUESTS, FleetSummary, summarise
from engine.ledger import report
from engine.ledger.report import Summary
from engine.ledger.status import read_status
from engine.migrate.context import MaxFailures
from engine.migrate.interrupt import asked_to_end
from engine.migrate.needs import Need
from engine.run import Live, RunOptions, preview_migration, run_migration
from engine.session.connect import Machines, Shared
from engine.taskgroup import task_group

MEND: Final = "Mend what is named, then run the same command again."


@dataclass(slots=True)
class Board:
    """What a display may look at while a fleet goes on."""

    fleet: str
    total: int
    """Migrations."""
    shared: Shared
    running: dict[str, Live] = field(default_factory=dict)
    ended: dict[str, Summary] = field(default_factory=dict)
    not_started: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a fleet would do, as it is asked before the first write: migration -> prompts to create or update, and ->
    why it cannot be known; `made`: what is made for them, each once for a workspace.
    """

    tasks: Mapping[str, int]
    made: Sequence[Need]
    problems: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOptions:
    """The flags of `fleet run`: those of `run`, for each migration; `rate` and `max_duration` are for the whole."""

    retry_failed: bool = False
    max_duration: float | None = None
    """Seconds."""
    max_failures: MaxFailures | None = None
    rate: float | None = None
    reason: str | None = None
    confirm: Callable[[Preview], Awaitable[bool]] | None = None
    """Asked once before the first write of all."""
    watch: Callable[[Board], Coroutine[Any, Any, None]] | None = None
    signals: bool = False
    lock_wait: float = 0.0
    """Seconds to wait for a ledger that somebody holds."""
    machines: Machines | None = None
    """See `RunOptions.machines`."""


async def run_fleet(fleet: Fleet, options: FleetOptions | None = None) -> FleetSummary:
    """Does all its migrations, or goes on with them. What stopped one of them is in its summary and ends no other, but
    for the exit codes in `stop_on`; what is raised is a bug.
    """
    options = options or FleetOptions()
    begun = time.monotonic()
    gates = options.machines.gate if options.machines is not None else None
    async with shared_by(fleet, rate=options.rate, gates=gates) as shared:
        board = Board(fleet.name, len(fleet.migrations), shared)
        async with asked_to_end(shared.halt, signals=options.signals, seconds=options.max_duration):
            await _run(fleet, options, board)
    return summarise(
        fleet.name,
        [board.ended[one.name] for one in fleet.migrations],
        not_started=board.not_started,
        duration_s=round(time.monotonic() - begun, 3),
    )


async def _run(fleet: Fleet, options: FleetOptions, board: Board) -> None:
    if options.confirm is not None:
        await _confirmed(fleet, options, board.shared, options.confirm)
    async with task_group() as group:
        if options.watch is not None:
            group.start_soon(options.watch, board)
        await each(fleet, board.shared, partial(_one, options, board), partial(_ended, fleet, board))
        group.cancel_scope.cancel()


async def _confirmed(
    fleet: Fleet, options: FleetOptions, shared: Shared, confirm: Callable[[Preview], Awaitable[bool]]
) -> None:
    """Where there is something to write, somebody must agree; else the end is asked for."""
    try:
        preview = await shared.halt.guard(_preview(fleet, options, shared))
        if any(preview.tasks.values()):
            await shared.halt.confirm(confirm(preview))
    except Stop as stop:
        shared.halt.request(stop)


async def _preview(fleet: Fleet, options: FleetOptions, shared: Shared) -> Preview:
    tasks: dict[str, int] = {}
    problems: dict[str, str] = {}
    made: dict[Hashable, Need] = {}
    asking = RunOptions(retry_failed=options.retry_failed, shared=shared)

    targets = {one.name: one.ends[1].identity for one in fleet.migrations}

    def ended(done: Done[tuple[int, Sequence[Need]]]) -> None:
        if done.error is not None:
            problems[done.name] = str(done.error)
        tasks[done.name], found = done.value or (0, ())
        made.update({(targets[done.name], need.key): need for need in found})

    await each(fleet, shared, partial(preview_migration, options=asking), ended)
    return Preview(tasks=tasks, made=list(made.values()), problems=problems)


async def _one(options: FleetOptions, board: Board, migration: Migration) -> Summary:
    live = board.running[migration.name] = Live(migration.name)
    more = RunOptions(
        retry_failed=options.retry_failed,
        max_failures=options.max_failures,
        reason=options.reason,
        live=live,
        shared=board.shared,
        lock_wait=options.lock_wait,
        machines=options.machines,
    )
    try:
        return await run_migration(migration, more)
    finally:
        del board.running[migration.name]


def _ended(fleet: Fleet, board: Board, done: Done[Summary]) -> None:
    migration = next(one for one in fleet.migrations if one.name == done.name)
    summary = done.value
    if done.error is not None:
        left = done.error is board.shared.halt.stop
        if left:
            board.not_started.add(done.name)
        summary = _not_run(migration, done.error, f"not started: {done.error}" if left else str(done.error))
    assert summary is not None  # one of both is there
    board.ended[done.name] = summary
    if summary.exit_code in fleet.stop_on:
        board.shared.halt.request(
            Stop(
                "interrupted",
                f"{done.name} ended with exit code {summary.exit_code}, and stop_on has it",
                next=f"See to {done.name} first, then run the same command again.",
            )
        )


def _not_run(migration: Migration, error: EngineError, message: str) -> Summary:
    """Of a migration that this run has not touched: its prompts, as far as its ledger knows them, are not started."""
    counts, this_run = _left(migration.ledger)
    stop = error if isinstance(error, Stop) else None
    return Summary(
        migration=migration.name,
        run="",
        mode=migration.mode,
        exit_code=exit_code_of(error),
        reason=stop.reason if stop is not None else "config",
        message=message,
        next=stop.next if stop is not None else MEND,
        counts=counts,
        this_run=this_run,
        requests=NO_REQUESTS,
        duration_s=0.0,
        ledger=str(migration.ledger),
    )


def _left(ledger: Path) -> tuple[dict[str, int], dict[str, int]]:
    """The books of what earlier runs have done and left."""
    counts, this_run = report.nothing()
    try:
        found = dict(read_status(ledger, Chosen()).counts)
    except EngineError:  # there is none, or whoever is to write it says what is wrong with it
        return counts, this_run
    found["unchanged"] += found["created"] + found["updated"]
    return found | {"created": 0, "updated": 0}, this_run | {"not_started": found["not_started"]}
