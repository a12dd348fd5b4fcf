"""A new version of a prompt that is there: put, found in the list of versions, and proved by reading it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.content.digest import differences
from engine.errors import Gone
from engine.migrate import entries
from engine.migrate.context import Flow
from engine.migrate.entries import UPDATE
from engine.migrate.job import Job
from engine.migrate.send import READ_BACK_TRIES, _head_only, _revision, _send, _told, seen_source
from engine.migrate.task import Ready, Revision
from engine.model import Entry, Failed, Outcome, Sending, Updated, Version

# ---- an update -------------------------------------------------------------------------------------------------------


async def _put_and_prove(job: Job, flow: Flow, ready: Ready) -> int | None:
    """The number of the version that holds what is wanted; None when there is none, and the ledger says why, or the run
    was asked to end.
    """
    outcome = await _put(job, flow, ready)
    partial = _revision(ready.draft).fields is not None
    if partial and isinstance(outcome, Failed) and outcome.status == 400:  # a back end that does not know `patch`
        ready = _whole(job, ready)
        outcome = await _put(job, flow, ready)
    if not isinstance(outcome, Updated):
        await _not_made(job, flow, ready, outcome)
        return None
    number, wrong = await _proved(job, flow, ready, outcome)
    if wrong and _revision(ready.draft).fields is not None and not _head_only(_revision(ready.draft)):
        # somebody's draft came in between, and the registry filled ours from it
        ready = _whole(job, ready)
        outcome = await _put(job, flow, ready)
        if not isinstance(outcome, Updated):
            await _not_made(job, flow, ready, outcome)
            return None
        number, wrong = await _proved(job, flow, ready, outcome)
    if number is None or wrong:
        await flow.record(_differs(job, flow, ready, number, wrong))
        return None
    return number


async def _not_made(job: Job, flow: Flow, ready: Ready, outcome: Outcome | None) -> None:
    if outcome is not None:
        await flow.record(_told(job, flow, ready, outcome))


async def _put(job: Job, flow: Flow, ready: Ready) -> Outcome | None:
    """None: the run was asked to end before it was sent."""

    async def write(sending: Sending) -> list[Outcome]:
        return [await job.target.update(_revision(ready.draft).target_id, ready.draft.body, sending)]

    (outcome,) = await _send(job, flow, [ready], write)
    return outcome


def _whole(job: Job, ready: Ready) -> Ready:
    whole = replace(_revision(ready.draft), fields=None)
    return replace(ready, draft=ready.draft.revising(whole, job.target))


async def _proved(job: Job, flow: Flow, ready: Ready, made: Updated) -> tuple[int | None, Sequence[str]]:
    """The number that the list of versions gives to what was made, and the fields in which it is not as wanted."""
    revision, wanted = _revision(ready.draft), ready.draft.replica.prompt
    number, wrong = None, ["not readable"]
    for attempt in range(READ_BACK_TRIES):
        if attempt:
            await flow.halt.pause(0.1 * 2**attempt)
        if _head_only(revision):
            number = revision.published
        elif number is None:
            number = _number(await job.target.versions(revision.target_id), made, revision)
        if number is None:
            continue
        try:
            found = await job.target.fetch(revision.target_id, str(number))
        except Gone:
            continue
        if not (wrong := list(differences(wanted, found))):
            break
    return number, wrong


def _number(versions: Sequence[Version], made: Updated, revision: Revision) -> int | None:
    """Never the last one plus one: numbers have gaps, and others make versions too."""
    for version in reversed(versions):
        if version.id == made.version_id or (made.version_id is None and version.number > (revision.base or 0)):
            return version.number
    return None


def _differs(job: Job, flow: Flow, ready: Ready, number: int | None, wrong: Sequence[str]) -> Entry:
    what = "its new version is not in the list of versions" if number is None else f"version {number} is not as wanted"
    message = f"{what} ({', '.join(wrong)}); it was not published"
    failure = Failed(error="differs", message=message)
    return entries.failed(ready.whose, "read_back", failure, seen_source(job, flow, ready), **UPDATE)
