"""Sends what is ready: creates in bulk, updates one by one, and what belongs to a replica besides: labels, its history.

An intent is durable before the first byte of what cannot be repeated leaves, its outcome before the next step. What an
update made is read back before it is published: a registry fills an update from its newest version, which may be
somebody's draft.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.errors import Rejected, Transient
from engine.migrate import entries
from engine.migrate.context import Flow
from engine.migrate.history import finish, label
from engine.migrate.job import Job
from engine.migrate.send import (
    is_head_only,
    listed_source,
    outcome_entry,
    record_refused,
    revision_of,
    seen_source,
    send,
)
from engine.migrate.task import Ready
from engine.migrate.update import put_and_prove
from engine.model import Created, Outcome


async def post(job: Job, flow: Flow, batch: Sequence[Ready]) -> list[Outcome | None]:
    """Creates replicas; each outcome is durable before this returns. None: as in `send`."""
    bodies = [ready.draft.body for ready in batch]
    outcomes = await send(job, flow, batch, lambda sending: job.target.create(bodies, sending))
    made = [
        outcome_entry(job, flow, ready, outcome)
        for ready, outcome in zip(batch, outcomes, strict=True)
        if outcome is not None
    ]
    await flow.record(*made)
    for ready, outcome in zip(batch, outcomes, strict=True):
        if ready.pending and isinstance(outcome, Created):
            await _finish_new(job, flow, ready, outcome)
    return outcomes


async def _finish_new(job: Job, flow: Flow, ready: Ready, made: Created) -> None:
    """Labels go onto the version that was just made, without looking for it."""
    if job.select.version == "all" or made.version_id is None:
        await finish(job, flow, ready.task, ready.whose)
        return
    try:
        await label(job, flow, made.target_id, made.version_id, ready.draft.replica.source.labels)
        await flow.record(entries.finished(ready.whose, made.target_id, None, now=flow.clock()))
    except (Rejected, Transient) as error:
        await record_refused(flow, ready.whose, "finish", error, listed_source(flow, ready.task))


async def revise(job: Job, flow: Flow, ready: Ready) -> None:
    """Makes a new version of a prompt that is there, proves it, and publishes it where that is wanted."""
    revision = revision_of(ready.draft)
    try:
        number, how = revision.there, "lookup"
        if number is None:
            await flow.copies.keep(ready.whose, revision.before)
            number, how = await put_and_prove(job, flow, ready), "response"
            if number is None:
                return
        publish = job.publish and not is_head_only(revision)
        if publish and number != revision.published and job.target.can.stages:
            await job.target.publish(revision.target_id, number)
        after = entries.updated(
            ready.whose,
            ready.draft,
            how=how,
            after=number,
            published=publish or number == revision.published,
            now=flow.clock(),
            pending=ready.pending,
        )
        await flow.record(after)
    except (Rejected, Transient) as error:
        await record_refused(flow, ready.whose, "update", error, seen_source(job, flow, ready))
        return
    if ready.pending:
        await finish(job, flow, ready.task, ready.whose)
