"""What is done with a ledger after its runs: verify, compare, publish, rollback. Each holds its lock, and may be
interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.config import Migration
from engine.content.filter import Chosen
from engine.errors import ConfigError, Rejected, Transient
from engine.ledger.file import is_there
from engine.ledger.state import Record
from engine.ledger.writes import Writes, none_taken, read_made, runs_of
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.migrate.listing import down, listings
from engine.migrate.making import settle_parts
from engine.migrate.needs import counted as counted_parts
from engine.migrate.reconcile import settle
from engine.migrate.survey import judge
from engine.model import Gateway, PartKey, Row
from engine.session import VerbOptions, resumed
from engine.session.connect import Workspaces, open_ends, open_job
from engine.taskgroup import for_each
from engine.verbs.cases import Case, read_cases, skeleton
from engine.verbs.compare.answers import Recorded, answers_file, open_answers, read_answers
from engine.verbs.compare.asking import Asking, Call, Made, Originals, calls_of, cost, make_calls, read_all
from engine.verbs.compare.result import Comparison, Recording, Replicas, put_together
from engine.verbs.completions import CALLS_EACH
from engine.verbs.publish import CutOver, publish, staged
from engine.verbs.rollback import Rollback, Undo, rollback, undoing
from engine.verbs.unmake import Unmade, left, made_parts, unmake
from engine.verbs.verify import Checks, Verification, verify


async def verify_migration(
    migration: Migration,
    options: VerbOptions,
    *,
    render: bool = False,
    completions: int = 0,
) -> Verification:
    """Reads every replica back; `render` and `completions` go beyond it. Raises Stop and ConfigError."""
    checks = checks_of(migration, render=render, completions=completions)
    async with resumed(migration, options, gateways=checks.calls, writes=False) as (job, context, ends):
        pairs = read_made(migration.ledger, options.chosen)
        if checks.completions:
            await _ask(options, _calls(migration, min(checks.completions, len(pairs))))
        found = await verify_made(pairs, checks, job, context, ends)
        return replace(found, none_taken=none_taken(migration.ledger, options.chosen, pairs))


def checks_of(migration: Migration, *, render: bool = False, completions: int = 0) -> Checks:
    """What the migration file asks for, and these go beyond it. Raises ConfigError."""
    wanted = migration.verify
    return Checks(
        render=render or wanted.render,
        completions=completions or wanted.completions,
        cases=_cases(migration),
        variables=wanted.variables,
    )


async def verify_made(
    pairs: Sequence[Writes], checks: Checks, job: Job, context: Context, ends: Workspaces
) -> Verification:
    """Reads them back, and records what it finds. Raises Stop."""
    checks = replace(checks, source=ends.source_gateway, target=ends.target_gateway)
    return await context.halt.guard(verify(job, context, pairs, checks, clock=time.time))


def _cases(migration: Migration) -> Sequence[Case]:
    return read_cases(migration.verify.cases) if migration.verify.cases is not None else ()


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
            except Rejected as error:
                raise ConfigError(f"{made.name}: its variables could not be read: {error}") from error
            except Transient as error:
                raise down(f"the variables of {made.name} could not be read", error) from error

        await for_each(pairs, one, limit=job.concurrency)
    return [lines[made.source_id] for made in pairs]


def _made(migration: Migration, options: VerbOptions) -> list[Writes]:
    pairs = read_made(migration.ledger, options.chosen) if is_there(migration.ledger) else []
    if not pairs:
        raise _nothing_made(migration, options.chosen)
    return pairs


def _nothing_made(migration: Migration, chosen: Chosen) -> ConfigError:
    """Yet; or the flags take none of it."""
    told = none_taken(migration.ledger, chosen, ()) if is_there(migration.ledger) else []
    why = told[0] if told else "nothing was migrated yet; run the migration first"
    return ConfigError(f"{migration.ledger}: {why}")


# ---- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class AskOptions:
    """`repeat`: calls of each case. `confirm`: asked once with what is to be done and how many calls that is."""

    repeat: int = 1
    confirm: Callable[[str, int], Awaitable[bool]] | None = None


def has_answers(migration: Migration) -> bool:
    """Whether answers of originals are recorded. Raises Stop and ConfigError."""
    return any(asked.side == "original" for asked in read_answers(answers_file(migration.ledger)).replies)


async def record_answers(migration: Migration, options: VerbOptions, how: AskOptions) -> Recording:
    """Asks the originals, before a run or after it, and keeps what they answer. Raises Stop and ConfigError."""
    _need_gateways(migration)
    async with resumed(migration, options, gateways=True, writes=False, begun=False) as (job, context, ends):
        known = read_answers(answers_file(migration.ledger))
        asking = _asking(migration, options, job)
        found = await options.halt.guard(asking.selected(context.state.targets))
        _need_questions(migration, found)
        questions = [(one, one.prompt, one.asked) for one in found.questions]
        calls = calls_of(questions, known, how.repeat)
        wanted = len({asked for _, _, asked in questions}) * how.repeat
        made = await _answers(migration, options, how, context, ends.source_gateway, calls, known)
        return Recording(
            file=str(answers_file(migration.ledger)),
            prompts=len(found.prompts),
            cases=len(found.questions),
            already=wanted - len(calls),
            made=made,
            notes=found.notes,
        )


async def compare_migration(migration: Migration, options: VerbOptions, how: AskOptions) -> Comparison:
    """Asks the replicas the same, keeps what they answer, and puts both side by side. Raises Stop and ConfigError."""
    _need_gateways(migration)
    async with resumed(migration, options, gateways=True, writes=False) as (job, context, ends):
        known = read_answers(answers_file(migration.ledger))
        asking = _asking(migration, options, job)
        if not asking.made:
            raise _nothing_made(migration, options.chosen)
        found = await options.halt.guard(asking.migrated())
        _need_questions(migration, found)
        replicas = await options.halt.guard(_replicas(job, asking.made, found))
        questions = [
            (one, replica, one.asked_of(replica))
            for one in found.questions
            if (replica := replicas.prompts.get(one.prompt.id)) is not None and known.of(one.asked)
        ]
        calls = calls_of(questions, known, how.repeat)
        made = await _answers(migration, options, how, context, ends.target_gateway, calls, known)
        cases = put_together(
            found.questions, replicas, known, made, repeat=how.repeat, ended=options.halt.stop is not None
        )
        compared = Comparison(cases=list(cases), made=made, notes=[*found.notes, *asking.notes(known)])
        await context.record(entries.answers(compared.counts))
        return compared


def _need_gateways(migration: Migration) -> None:
    if without := [end.kind for end in migration.ends if end.gateway is None]:
        raise ConfigError(f"compare asks models through the gateway of each end, and kind {without[0]} has none")


def _need_questions(migration: Migration, found: Originals) -> None:
    if not found.questions:
        of_cases = " that verify.cases has cases of" if migration.verify.cases is not None else ""
        why = "".join(f"; {note}" for note in found.notes)
        raise ConfigError(f"there is nothing to ask: no prompt is selected{of_cases}{why}")


def _asking(migration: Migration, options: VerbOptions, job: Job) -> Asking:
    return Asking(
        job=job,
        made=read_made(migration.ledger, options.chosen),
        chosen=options.chosen,
        cases=_cases(migration),
        shared=migration.verify.variables,
    )


async def _replicas(job: Job, made: Iterable[Writes], found: Originals) -> Replicas:
    """The definitions of the replicas that are asked: in the version that was written, where it is not published."""
    asked = {prompt.id for prompt in found.prompts}
    ours = [one for one in made if one.source_id in asked]
    versions = {
        one.target_id: ((one.version if job.in_place or one.staged is not None else None) or "published")
        for one in ours
    }
    prompts, why = await read_all(job.target.fetch, versions, limit=job.concurrency)
    return Replicas(
        ids={one.source_id: one.target_id for one in ours},
        prompts={one.source_id: prompts[one.target_id] for one in ours if one.target_id in prompts},
        why={one.source_id: why[one.target_id] for one in ours if one.target_id in why},
    )


async def _answers(
    migration: Migration,
    options: VerbOptions,
    how: AskOptions,
    context: Context,
    gateway: Gateway | None,
    calls: Sequence[Call],
    known: Recorded,
) -> Made:
    """Says what it will cost, asks, and makes the calls; what was answered is in `known` too."""
    assert gateway is not None  # both ends have one
    if not calls:
        return Made()
    if how.confirm is not None:
        end = migration.ends[calls[0].asked.side == "replica"]
        await options.halt.confirm(how.confirm(cost(end.gateway_key_name, calls, known), len(calls)))
    path = answers_file(migration.ledger)
    with open_answers(path, known, run=context.sink.run, secrets=migration.secrets) as file:
        return await make_calls(context, gateway, calls, file, limit=migration.limits.concurrency)


# ---- cut-over and going back -----------------------------------------------------------------------------------------


async def publish_migration(migration: Migration, options: VerbOptions, *, verified_only: bool = False) -> CutOver:
    """Makes what was staged the published versions. Raises Stop and ConfigError."""
    async with resumed(migration, options) as (job, context, _):
        made = read_made(migration.ledger, options.chosen)
        pairs = staged(made)
        if pairs:
            await _ask(
                options, f"{len(pairs)} prompts get the version that this migration wrote as their published one"
            )
        done = await publish(job, context, pairs, verified_only=verified_only)
        return replace(done, notes=none_taken(migration.ledger, options.chosen, made))


async def rollback_migration(
    migration: Migration, options: VerbOptions, *, run: str | None = None, dry_run: bool = False, alone: bool = True
) -> Rollback:
    """Takes back what was done, or what one run did (`last`: the newest). Raises Stop and ConfigError.

    `alone`: nobody else is rolled back with it; else what was made for the prompts is left to `unmake_migration`.
    """
    async with resumed(migration, options, writes=not dry_run) as (job, context, _):
        which = _run_named(migration.ledger, run)
        doubtful = (
            len(_doubtful(context))
            if dry_run
            else await context.halt.guard(_settle_doubts(job, context, options.chosen))
        )
        pairs = read_made(migration.ledger, options.chosen)
        notes, undos = none_taken(migration.ledger, options.chosen, pairs), undoing(pairs, which)
        parts = made_parts(context.state, which)
        if (undos or parts) and not dry_run:
            await _ask(options, undo_sentence(undos, parts, history=job.target.can.history))
        done = replace(await rollback(job, context, undos, dry_run=dry_run), notes=notes)
        if not options.chosen.everything and context.state.targets - done.gone:
            parts = []  # the replicas that stay need them
        if not alone:
            return replace(done, in_doubt=doubtful, made=left(context.state, parts))
        return replace(done, in_doubt=doubtful, made=await unmake(job, context, parts, done.gone, dry_run=dry_run))


async def unmake_migration(
    migration: Migration, options: VerbOptions, gone: Collection[str], *, dry_run: bool = False
) -> list[Unmade]:
    """Takes back what was made for the prompts. `gone`: see `unmake`. Raises Stop and ConfigError."""
    async with resumed(migration, options, writes=not dry_run) as (job, context, _):
        state = context.state
        parts = [key for key in made_parts(state, None) if state.parts[key].target_id not in gone]
        return await unmake(job, context, parts, gone, dry_run=dry_run)


def undo_sentence(undos: Sequence[Undo], parts: Sequence[PartKey] = (), *, history: bool) -> str:
    """What a rollback will do, in one or two sentences."""
    deletes = sum(undo.action == "delete" for undo in undos)
    sentences = []
    if deletes:
        sentences.append(f"{deletes} replicas are deleted: applications that already call these replicas will break.")
    if restores := len(undos) - deletes:
        back = "get back the version that was published before" if history else "stay: they have no earlier version"
        sentences.append(f"{restores} prompts {back}.")
    if parts:
        sentences.append(parts_sentence(parts))
    return " ".join(sentences)


def parts_sentence(parts: Sequence[PartKey]) -> str:
    """What a rollback will do with what was made for prompts."""
    return f"{counted_parts(parts)} that were made for them are deleted where nothing else uses them."


def _run_named(ledger: Path, run: str | None) -> frozenset[str] | None:
    """Ids of the runs that are meant; None: all."""
    if run is None:
        return None
    runs = list(runs_of(ledger))
    if run == "last" and runs:
        return runs[-1]
    if frozenset((run,)) not in runs:
        newest = ", ".join(sorted(runs[-1])) if runs else "none"
        raise ConfigError(f"--run {run!r}: the ledger has no such run; its newest is {newest}")
    return frozenset((run,))


async def _ask(options: VerbOptions, what: str) -> None:
    if options.confirm is not None:
        await options.halt.confirm(options.confirm(what))


def _doubtful(context: Context) -> dict[str, Record]:
    return {one: record for one, record in context.state.records.whole_items() if record.doubtful and not record.made}


async def _settle_doubts(job: Job, context: Context, chosen: Chosen) -> int:
    """Looks up the creates whose answer was lost: what is there is taken over, what is not was never made. Returns how
    many are left, because nobody can tell whether what is there is what was made.
    """
    await settle_parts(job, context)
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
    await settle(job, context, adopting, completes=False)  # what is taken back needs nothing more
    absent = [task for task in tasks if task.action == "create"]
    for task in absent:
        await context.record(entries.rolled_back({"source_id": task.row.id}, None, "absent"))
    return len(tasks) - len(adopting) - len(absent)
