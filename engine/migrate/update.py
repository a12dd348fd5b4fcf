"""A new version of a prompt that is there: put, found in the list of versions, and proved by reading it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.content.digest import differences
from engine.errors import Gone
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.entries import UPDATE
from engine.migrate.job import Job
from engine.migrate.send import READ_BACK_TRIES, makes_no_version, outcome_entry, revision_of, seen_source, send
from engine.migrate.task import Ready, Revision
from engine.model import Entry, Failed, Outcome, Sending, Updated, Version, ordinal_of

# ---- an update -------------------------------------------------------------------------------------------------------


async def put_and_prove(job: Job, context: Context, ready: Ready) -> str | None:
    """The version that holds what is wanted; None when there is none, and the ledger says why, or the run
    was asked to end.
    """
    outcome = await _put(job, context, ready)
    partial = revision_of(ready.prepared).fields is not None
    if partial and isinstance(outcome, Failed) and outcome.status == 400:  # a back end that does not know `patch`
        ready = _whole(job, ready)
        outcome = await _put(job, context, ready)
    if not isinstance(outcome, Updated):
        await _not_made(job, context, ready, outcome)
        return None
    made, wrong = await _proved(job, context, ready, outcome)
    if (
        wrong
        and revision_of(ready.prepared).fields is not None
        and not makes_no_version(job, revision_of(ready.prepared))
    ):
        # somebody's draft came in between, and the registry filled ours from it
        ready = _whole(job, ready)
        outcome = await _put(job, context, ready)
        if not isinstance(outcome, Updated):
            await _not_made(job, context, ready, outcome)
            return None
        made, wrong = await _proved(job, context, ready, outcome)
    if made is None or wrong:
        await context.record(_differs(job, context, ready, made, wrong))
        return None
    return made


async def _not_made(job: Job, context: Context, ready: Ready, outcome: Outcome | None) -> None:
    if outcome is not None:
        await context.record(outcome_entry(job, context, ready, outcome))


async def _put(job: Job, context: Context, ready: Ready) -> Outcome | None:
    """None: the run was asked to end before it was sent."""

    async def write(sending: Sending) -> list[Outcome]:
        return [await job.target.update(revision_of(ready.prepared).target_id, ready.prepared.body, sending)]

    (outcome,) = await send(job, context, [ready], write)
    return outcome


def _whole(job: Job, ready: Ready) -> Ready:
    whole = replace(revision_of(ready.prepared), fields=None)
    return replace(ready, prepared=ready.prepared.revising(whole, job.target))


async def _proved(job: Job, context: Context, ready: Ready, made: Updated) -> tuple[str | None, Sequence[str]]:
    """What the list of versions calls what was made, and the fields in which it is not as wanted."""
    revision, wanted = revision_of(ready.prepared), ready.prepared.replica.prompt
    ref, wrong = None, ["not readable"]
    for attempt in range(READ_BACK_TRIES):
        if attempt:
            await context.halt.pause(0.1 * 2**attempt)
        if makes_no_version(job, revision):
            ref = revision.published
        elif ref is None:
            ref = _ref_of(await job.target.versions(revision.target_id), made, revision)
        if ref is None:
            continue
        try:
            found = await job.target.fetch(revision.target_id, ref)
        except Gone:
            continue
        if not (wrong := list(differences(wanted, found))):
            break
    return ref, wrong


def _ref_of(versions: Sequence[Version], made: Updated, revision: Revision) -> str | None:
    """Never the last one plus one: numbers have gaps, and others make versions too."""
    base = ordinal_of(versions, revision.base)
    for version in reversed(versions):
        if version.id == made.version_id or (made.version_id is None and version.ordinal > base):
            return version.ref
    return None


def _differs(job: Job, context: Context, ready: Ready, made: str | None, wrong: Sequence[str]) -> Entry:
    what = "its new version is not in the list of versions" if made is None else f"version {made} is not as wanted"
    message = f"{what} ({', '.join(wrong)}); it was not published"
    failure = Failed(error="differs", message=message)
    return entries.failed(ready.origin, "read_back", failure, seen_source(job, context, ready), **UPDATE)
