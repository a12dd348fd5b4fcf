"""One write: its intent durable before the first byte leaves, its outcome recorded, whatever it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from engine.content.digest import digest
from engine.errors import AnswerError, Rejected, Stop, Transient
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.entries import UPDATE
from engine.migrate.job import Job
from engine.migrate.task import Prepared, Ready, Revision, Task
from engine.model import Entry, Failed, Json, Outcome, Sending

READ_BACK_TRIES: Final = 6
"""About six seconds in all: reads after writes may be stale."""

Write = Callable[[Sending], Awaitable[list[Outcome]]]


# ---- one request -----------------------------------------------------------------------------------------------------


def send(job: Job, context: Context, batch: Sequence[Ready], write: Write) -> Awaitable[list[Outcome | None]]:
    """See `intended`: of prompts."""

    def intents() -> list[Entry]:
        return [entries.intent(ready.origin, ready.prepared, _attempt(context, ready) + 1) for ready in batch]

    def refused(failure: Failed) -> list[Entry]:
        return [outcome_entry(job, context, ready, failure) for ready in batch]

    return intended(context, write, len(batch), intents, refused)


async def intended(
    context: Context,
    write: Write,
    count: int,
    intents: Callable[[], Sequence[Entry]],
    refused: Callable[[Failed], Sequence[Entry]],
) -> list[Outcome | None]:
    """Each intent is durable before the first byte leaves. None: the run was asked to end before this one was sent, so
    it is as it was; whatever else comes before an intent is an outcome like any other.

    `count`: of what is written together; `refused`: the lines for a refusal that stops the run, and had no effect.
    """
    begun = False

    async def sending() -> None:
        nonlocal begun
        await context.record(*intents())
        begun = True

    try:
        outcomes = await write(sending)
    except Stop as stop:
        # surely no effect: nothing is in doubt; of a bulk, a part may have been carried out
        if begun and count == 1 and isinstance(stop.__cause__, (Rejected, Transient)):
            await context.record(*refused(entries.failure(stop.__cause__, retriable=True)))
        raise
    if len(outcomes) != count:
        raise RuntimeError(f"{count} writes were sent, and the target told what became of {len(outcomes)}")
    return [outcome if begun or not _unsent(context, outcome) else None for outcome in outcomes]


def _unsent(context: Context, outcome: Outcome) -> bool:
    """Of what came back though no intent was written: whether it is only that the run was asked to end."""
    if not isinstance(outcome, Failed):
        raise RuntimeError(f"something was sent before its intent was written: {type(outcome).__name__}")
    return context.dropped(outcome)


def outcome_entry(job: Job, context: Context, ready: Ready, outcome: Outcome) -> Entry:
    """What the ledger says of it."""
    seen = seen_source(job, context, ready) if isinstance(outcome, Failed) else {}
    return entries.of(ready.origin, ready.prepared, outcome, now=context.clock(), seen=seen, pending=ready.pending)


def seen_source(job: Job, context: Context, ready: Ready) -> dict[str, Json]:
    """The source, should this fail with it."""
    if job.select.version == "all":
        return listed_source(context, ready.task)
    there, made_from = ready.prepared.revision, ready.prepared.replica.mark.source_digest
    found = digest(there.before) if job.in_place and there is not None else made_from
    return entries.seen(ready.task.row.updated_at, found, context.clock())


def listed_source(context: Context, task: Task) -> dict[str, Json]:
    """The same, where more than the content of one version decides."""
    return entries.seen(task.row.updated_at, None, context.clock())


def _attempt(context: Context, ready: Ready) -> int:
    record = context.state.records.get(ready.task.row.id)
    return record.attempt if record is not None else 0


def revision_of(prepared: Prepared) -> Revision:
    assert prepared.revision is not None  # only updates come here
    return prepared.revision


def makes_no_version(job: Job, revision: Revision) -> bool:
    """Whether all that it changes is what a prompt has once."""
    return revision.fields is not None and revision.fields <= job.target.can.once


async def record_refused(
    context: Context, origin: Mapping[str, Json], stage: str, error: AnswerError, seen: Mapping[str, Json]
) -> None:
    if context.dropped(error):
        return
    failure = entries.failure(error, retriable=isinstance(error, Transient))
    await context.record(entries.failed(origin, stage, failure, seen, **UPDATE))
