"""What is done with a ledger after its runs: verify, publish, rollback. Each holds its lock, and may be interrupted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio

from engine import entries
from engine.app import check_identity, new_run_id
from engine.cases import Case, read_cases, skeleton
from engine.chosen import Chosen
from engine.completions import CALLS_EACH
from engine.config import Migration
from engine.copies import Copies
from engine.ends import Workspaces, open_ends, open_job
from engine.errors import ConfigError, Rejected, Stop, Transient
from engine.flow import Flow
from engine.interrupt import AGAIN, interruptible
from engine.job import Halt, Job
from engine.ledger import Record
from engine.lookup import rows_of
from engine.made import Made, read_made, runs_of
from engine.model import Row
from engine.publish import CutOver, publish, staged
from engine.reconcile import settle
from engine.rollback import Rollback, Undo, rollback, undoing
from engine.sink import Sink
from engine.survey import judge
from engine.tasks import task_group
from engine.verify import Checks, Verification, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class VerbOptions:
    """The flags that the three have in common. `confirm`: asked once with what is to be done; None: not asked."""

    chosen: Chosen = field(default_factory=Chosen)
    rate: float | None = None
    confirm: Callable[[str], bool] | None = None
    signals: bool = False
    halt: Halt = field(default_factory=Halt)
    """Says afterwards whether the end was asked for."""


async def verify_migration(
    migration: Migration,
    options: VerbOptions,
    *,
    render: bool = False,
    completions: int = 0,
) -> Verification:
    """Reads every replica back; `render` and `completions` go beyond it. Raises Stop and ConfigError."""
    wanted = migration.verify
    render, completions = render or wanted.render, completions or wanted.completions
    cases: Sequence[Case] = read_cases(wanted.cases) if wanted.cases is not None else ()
    async with _opened(migration, options, gateways=render or completions > 0, writes=False) as (job, flow, ends):
        pairs = read_made(migration.ledger, options.chosen)
        if completions:
            _ask(options, _calls(migration, min(completions, len(pairs))))
        checks = Checks(
            source=ends.source_gateway,
            target=ends.target_gateway,
            render=render,
            completions=completions,
            cases=cases,
            variables=wanted.variables,
        )
        return await flow.halt.guard(verify(job, flow, pairs, checks, clock=time.time))


def _calls(migration: Migration, prompts: int) -> str:
    """What completions will do, said before they start."""
    _, target = migration.ends
    key = "gateway_key" if target.gateway_key is not None else "api_key"
    return (
        f"{prompts * CALLS_EACH} completions of {prompts} prompts will be called with {key} of the target, "
        "which needs the right to complete (completions.write); models cost money"
    )


async def case_lines(migration: Migration, options: VerbOptions) -> list[bytes]:
    """The skeleton of a cases file, a line for each prompt that was migrated. Raises Stop and ConfigError."""
    pairs = _made(migration, options)
    lines: dict[str, bytes] = {}
    async with open_ends(migration, rate=options.rate) as ends:
        job = await open_job(migration, ends)
        limiter = anyio.CapacityLimiter(job.concurrency)

        async def one(made: Made) -> None:
            async with limiter:
                try:
                    lines[made.source_id] = skeleton(await job.source.fetch(made.source_id))
                except (Rejected, Transient) as error:
                    raise ConfigError(f"{made.name}: its variables could not be read: {error}") from error

        async with task_group() as group:
            for made in pairs:
                group.start_soon(one, made)
    return [lines[made.source_id] for made in pairs]


def _made(migration: Migration, options: VerbOptions) -> list[Made]:
    pairs = read_made(migration.ledger, options.chosen) if migration.ledger.exists() else []
    if not pairs:
        raise ConfigError(f"{migration.ledger}: nothing was migrated yet; run the migration first")
    return pairs


async def publish_migration(migration: Migration, options: VerbOptions, *, verified_only: bool = False) -> CutOver:
    """Makes what was staged the published versions. Raises Stop and ConfigError."""
    async with _opened(migration, options) as (job, flow, _):
        pairs = staged(read_made(migration.ledger, options.chosen))
        if pairs:
            _ask(options, f"{len(pairs)} prompts get the version that this migration wrote as their published one")
        return await publish(job, flow, pairs, verified_only=verified_only)


async def rollback_migration(
    migration: Migration, options: VerbOptions, *, run: str | None = None, dry_run: bool = False
) -> Rollback:
    """Takes back what was done, or what one run did (`last`: the newest). Raises Stop and ConfigError."""
    async with _opened(migration, options, writes=not dry_run) as (job, flow, _):
        which = _run_named(migration.ledger, run)
        if not dry_run:
            await flow.halt.guard(_settle_doubts(job, flow, options.chosen))
        undos = undoing(read_made(migration.ledger, options.chosen), which)
        if undos and not dry_run:
            _ask(options, told(undos, history=job.target.can.history))
        done = await rollback(job, flow, undos, dry_run=dry_run)
        return replace(done, in_doubt=len(_doubtful(flow))) if dry_run else done


def told(undos: Sequence[Undo], *, history: bool) -> str:
    """What a rollback will do, in one or two sentences."""
    deletes = sum(undo.action == "delete" for undo in undos)
    parts = []
    if deletes:
        parts.append(f"{deletes} replicas are deleted: applications that already call these replicas will break.")
    if restores := len(undos) - deletes:
        back = "get back the version that was published before" if history else "stay: they have no earlier version"
        parts.append(f"{restores} prompts {back}.")
    return " ".join(parts)


def _run_named(ledger: Path, run: str | None) -> str | None:
    if run is None:
        return None
    runs = list(runs_of(ledger))
    if run == "last" and runs:
        return runs[-1]
    if run not in runs:
        raise ConfigError(f"--run {run!r}: the ledger has no such run; its newest is {runs[-1] if runs else 'none'}")
    return run


def _ask(options: VerbOptions, what: str) -> None:
    if options.confirm is not None and not options.confirm(what):
        raise Stop("interrupted", "it was not confirmed; nothing was written", next=AGAIN)


@asynccontextmanager
async def _opened(
    migration: Migration, options: VerbOptions, *, gateways: bool = False, writes: bool = True
) -> AsyncIterator[tuple[Job, Flow, Workspaces]]:
    """The ledger under its lock, and both ends."""
    if not migration.ledger.exists():
        raise ConfigError(f"{migration.ledger}: there is no ledger: nothing was migrated yet, or it lies elsewhere")
    halt, run = options.halt, new_run_id()
    async with interruptible(halt, signals=options.signals):
        sink = Sink.open(migration.ledger, run=run)
        try:
            check_identity(migration, sink.state)
            async with (
                sink,
                open_ends(
                    migration,
                    rate=options.rate,
                    gateways=gateways,
                    writes=writes,
                    throttle=sink.state.throttle,
                ) as ends,
                task_group() as group,
            ):
                group.start_soon(_stop_sending, halt, ends)
                job = await halt.guard(open_job(migration, ends))
                copies = Copies(migration.ledger, run=run)
                yield job, Flow(sink=sink, halt=halt, clock=time.time, copies=copies), ends
                group.cancel_scope.cancel()
        finally:
            sink.close()


async def _stop_sending(halt: Halt, ends: Workspaces) -> None:
    await halt.wait()
    for gate in ends.gates:
        gate.halt()


def _doubtful(flow: Flow) -> dict[str, Record]:
    return {one: record for one, record in flow.state.records.items() if record.doubtful and not record.made}


async def _settle_doubts(job: Job, flow: Flow, chosen: Chosen) -> None:
    """Looks up the creates whose answer was lost: what is there is taken over, what is not was never made."""
    doubtful = _doubtful(flow)
    if not doubtful:
        return
    due = max(record.since for record in doubtful.values()) + 2 * job.settle
    await flow.halt.pause(due - flow.clock())
    listed, _ = await rows_of(job.source)
    rows = [row for row in listed if row.id in doubtful]
    rows += [Row(id=one, name="") for one in doubtful.keys() - {row.id for row in rows}]
    rows = [row for row in rows if chosen.takes_row(row, job.ends.source.collections)]
    target_rows = listed if job.ends.same else (await rows_of(job.target))[0]
    tasks, _ = await judge(job, flow.state, rows, target_rows, now=flow.clock())
    adopting = [task for task in tasks if task.action == "adopt"]
    await settle(job, flow, adopting)
    for task in tasks:
        if task.action == "create":
            await flow.record(entries.rolled_back({"source_id": task.row.id}, None, "absent"))
