"""What is done with a ledger after its runs: verify, publish, rollback. Each holds its lock, and may be interrupted."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.config import Migration
from engine.content.filter import Chosen
from engine.errors import ConfigError, Rejected, Transient
from engine.ledger.state import Record
from engine.ledger.writes import Writes, read_made, runs_of
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.migrate.listing import listings
from engine.migrate.reconcile import settle
from engine.migrate.survey import judge
from engine.model import Row
from engine.session import VerbOptions, resumed
from engine.session.connect import open_ends, open_job
from engine.taskgroup import for_each
from engine.verbs.cases import Case, read_cases, skeleton
from engine.verbs.completions import CALLS_EACH
from engine.verbs.publish import CutOver, publish, staged
from engine.verbs.rollback import Rollback, Undo, rollback, undoing
from engine.verbs.verify import Checks, Verification, verify


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
    async with resumed(migration, options, gateways=render or completions > 0, writes=False) as (job, context, ends):
        pairs = read_made(migration.ledger, options.chosen)
        if completions:
            await _ask(options, _calls(migration, min(completions, len(pairs))))
        checks = Checks(
            source=ends.source_gateway,
            target=ends.target_gateway,
            render=render,
            completions=completions,
            cases=cases,
            variables=wanted.variables,
        )
        return await context.halt.guard(verify(job, context, pairs, checks, clock=time.time))


def _calls(migration: Migration, prompts: int) -> str:
    """What completions will do, said before they start."""
    _, target = migration.ends
    key = target.gateway_key_name
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

        async def one(made: Writes) -> None:
            try:
                lines[made.source_id] = skeleton(await job.source.fetch(made.source_id))
            except (Rejected, Transient) as error:
                raise ConfigError(f"{made.name}: its variables could not be read: {error}") from error

        await for_each(pairs, one, limit=job.concurrency)
    return [lines[made.source_id] for made in pairs]


def _made(migration: Migration, options: VerbOptions) -> list[Writes]:
    pairs = read_made(migration.ledger, options.chosen) if migration.ledger.exists() else []
    if not pairs:
        raise ConfigError(f"{migration.ledger}: nothing was migrated yet; run the migration first")
    return pairs


async def publish_migration(migration: Migration, options: VerbOptions, *, verified_only: bool = False) -> CutOver:
    """Makes what was staged the published versions. Raises Stop and ConfigError."""
    async with resumed(migration, options) as (job, context, _):
        pairs = staged(read_made(migration.ledger, options.chosen))
        if pairs:
            await _ask(
                options, f"{len(pairs)} prompts get the version that this migration wrote as their published one"
            )
        return await publish(job, context, pairs, verified_only=verified_only)


async def rollback_migration(
    migration: Migration, options: VerbOptions, *, run: str | None = None, dry_run: bool = False
) -> Rollback:
    """Takes back what was done, or what one run did (`last`: the newest). Raises Stop and ConfigError."""
    async with resumed(migration, options, writes=not dry_run) as (job, context, _):
        which = _run_named(migration.ledger, run)
        left = (
            len(_doubtful(context))
            if dry_run
            else await context.halt.guard(_settle_doubts(job, context, options.chosen))
        )
        undos = undoing(read_made(migration.ledger, options.chosen), which)
        if undos and not dry_run:
            await _ask(options, undo_sentence(undos, history=job.target.can.history))
        return replace(await rollback(job, context, undos, dry_run=dry_run), in_doubt=left)


def undo_sentence(undos: Sequence[Undo], *, history: bool) -> str:
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


async def _ask(options: VerbOptions, what: str) -> None:
    if options.confirm is not None:
        await options.halt.confirm(options.confirm(what))


def _doubtful(context: Context) -> dict[str, Record]:
    return {one: record for one, record in context.state.records.whole_items() if record.doubtful and not record.made}


async def _settle_doubts(job: Job, context: Context, chosen: Chosen) -> int:
    """Looks up the creates whose answer was lost: what is there is taken over, what is not was never made. Returns how
    many are left, because nobody can tell whether what is there is what was made.
    """
    doubtful = _doubtful(context)
    if not doubtful:
        return 0
    due = max(record.since for record in doubtful.values()) + 2 * job.settle
    await context.halt.pause(due - context.clock())
    listed, _, target_rows = await listings(job.source, job.target, same=job.ends.same)
    rows = [row for row in listed if row.id in doubtful]
    rows += [Row(id=one, name="", whole=True) for one in doubtful.keys() - {row.id for row in rows}]
    rows = [row for row in rows if chosen.takes_row(row, job.ends.source.collections)]
    tasks, _ = await judge(job, context.state, rows, target_rows, now=context.clock())
    adopting = [task for task in tasks if task.action == "adopt"]
    await settle(job, context, adopting)
    absent = [task for task in tasks if task.action == "create"]
    for task in absent:
        await context.record(entries.rolled_back({"source_id": task.row.id}, None, "absent"))
    return len(tasks) - len(adopting) - len(absent)
