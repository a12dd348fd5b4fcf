"""Sends what is ready: creates in bulk, updates one by one, and what belongs to a replica besides: labels, its history.

An intent is durable before the first byte of what cannot be repeated leaves, its outcome before the next step. What an
update made is read back before it is published: a registry fills an update from its newest version, which may be
somebody's draft.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence

from engine.content.digest import differences
from engine.errors import AnswerError, Rejected, Transient
from engine.migrate import entries
from engine.migrate.adopt import lacks_tags_only
from engine.migrate.context import Context
from engine.migrate.history import finish, label
from engine.migrate.job import Job
from engine.migrate.send import (
    listed_source,
    makes_no_version,
    outcome_entry,
    record_refused,
    revision_of,
    seen_source,
    send,
)
from engine.migrate.task import Ready
from engine.migrate.update import put_and_prove
from engine.model import Created, Failed, Outcome, Prompt, Sending


async def post(job: Job, context: Context, batch: Sequence[Ready]) -> list[Outcome | None]:
    """Creates replicas; each outcome is durable before this returns. None: as in `send`."""
    outcomes = await (
        _look_and_create(job, context, batch) if job.target.can.careless else _create(job, context, batch)
    )
    told = [(ready, outcome) for ready, outcome in zip(batch, outcomes, strict=True) if outcome is not None]
    await context.record(*[outcome_entry(job, context, ready, outcome) for ready, outcome in told])
    for ready, outcome in told:
        if ready.pending and isinstance(outcome, Created):
            await _finish_new(job, context, ready, outcome)
    return outcomes


def _create(job: Job, context: Context, batch: Sequence[Ready]) -> Awaitable[list[Outcome | None]]:
    bodies = [ready.prepared.body for ready in batch]
    return send(job, context, batch, lambda sending: job.target.create(bodies, sending))


# ---- where a create changes what has its name already ----------------------------------------------------------------


async def _look_and_create(job: Job, context: Context, batch: Sequence[Ready]) -> list[Outcome | None]:
    """Only what has a free name is sent: a create that landed late, or somebody else's prompt, may be there by now."""
    try:
        there = await job.target.named([ready.prepared.replica.prompt.name for ready in batch])
    except (Rejected, Transient) as error:
        return [None if context.dropped(error) else _not_looked_up(error) for _ in batch]
    found = [await _settled(job, context, ready, there) for ready in batch]
    free = [ready for ready, (taken, _) in zip(batch, found, strict=True) if not taken]
    made = iter(await _create(job, context, free) if free else ())
    return [outcome if taken else next(made) for taken, outcome in found]


async def _settled(
    job: Job, context: Context, ready: Ready, there: Mapping[str, Prompt | None]
) -> tuple[bool, Outcome | None]:
    """Whether its name is taken, and what that means for it."""
    wanted = ready.prepared.replica.prompt
    if wanted.name not in there:
        return False, None
    found = there[wanted.name]
    if found is None:
        message = "the key may not read the prompt that has this name, so nobody can say whose it is"
        return True, Failed(error="no_update_permission", message=message, retriable=True)
    if not lacks_tags_only(wanted, found):
        message = f"a prompt of that name is there and differs in {', '.join(differences(wanted, found))}"
        return True, Failed(error="exists", message=message, exists=True)
    body, target_id = ready.prepared.body, found.id

    async def complete(sending: Sending) -> list[Outcome]:
        return [await job.target.complete(target_id, body, sending)]

    (outcome,) = await send(job, context, [ready], complete)
    return True, outcome


def _not_looked_up(error: AnswerError) -> Failed:
    message = f"it was not sent, for nobody could tell whether a prompt of that name is there: {error}"
    return Failed(error=error.error, message=message, status=error.status, code=error.code, retriable=True)


# ---- what follows ----------------------------------------------------------------------------------------------------


async def _finish_new(job: Job, context: Context, ready: Ready, made: Created) -> None:
    """Labels go onto the version that was just made, without looking for it."""
    if job.select.version == "all" or made.version_id is None:
        await finish(job, context, ready.task, ready.origin)
        return
    try:
        await label(job, context, made.target_id, made.version_id, ready.prepared.replica.source.labels)
        await context.record(entries.finished(ready.origin, made.target_id, None, now=context.clock()))
    except (Rejected, Transient) as error:
        await record_refused(context, ready.origin, "finish", error, listed_source(context, ready.task))


async def revise(job: Job, context: Context, ready: Ready) -> None:
    """Makes a new version of a prompt that is there, proves it, and publishes it where that is wanted."""
    revision = revision_of(ready.prepared)
    try:
        number, how = revision.there, "lookup"
        if number is None:
            await context.copies.keep(ready.origin, revision.before)
            number, how = await put_and_prove(job, context, ready), "response"
            if number is None:
                return
        publish = job.publish and not makes_no_version(job, revision)
        if publish and number != revision.published and job.target.can.stages:
            await job.target.publish(revision.target_id, number)
        after = entries.updated(
            ready.origin,
            ready.prepared,
            how=how,
            after=number,
            published=publish or number == revision.published,
            now=context.clock(),
            pending=ready.pending,
        )
        await context.record(after)
    except (Rejected, Transient) as error:
        await record_refused(context, ready.origin, "update", error, seen_source(job, context, ready))
        return
    if ready.pending:
        await finish(job, context, ready.task, ready.origin)
