"""Sends what is ready: creates in bulk, updates one by one, and what belongs to a replica besides: labels, its history.

An intent is durable before the first byte of what cannot be repeated leaves, its outcome before the next step. What an
update made is read back before it is published: a registry fills an update from its newest version, which may be
somebody's draft.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from engine import entries
from engine.content.digest import differences, digest
from engine.decide import HEAD
from engine.entries import UPDATE
from engine.errors import AnswerError, Gone, Rejected, Stop, Transient
from engine.flow import Flow, Ready
from engine.job import Draft, Job, Revision, prepare
from engine.model import Created, Entry, Failed, Json, Outcome, Prompt, Sending, Updated, Version
from engine.survey import Task

READ_BACK_TRIES: Final = 6
"""About six seconds in all: reads after writes may be stale."""

Write = Callable[[Sending], Awaitable[list[Outcome]]]


async def post(job: Job, flow: Flow, batch: Sequence[Ready]) -> list[Outcome | None]:
    """Creates replicas; each outcome is durable before this returns. None: as in `_send`."""
    bodies = [ready.draft.body for ready in batch]
    outcomes = await _send(job, flow, batch, lambda sending: job.target.create(bodies, sending))
    made = [
        _told(job, flow, ready, outcome) for ready, outcome in zip(batch, outcomes, strict=True) if outcome is not None
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
        await _label(job, flow, made.target_id, made.version_id, ready.draft.replica.source.labels)
        await flow.record(entries.finished(ready.whose, made.target_id, None, now=flow.clock()))
    except (Rejected, Transient) as error:
        await _refused(flow, ready.whose, "finish", error, _listed(flow, ready.task))


async def revise(job: Job, flow: Flow, ready: Ready) -> None:
    """Makes a new version of a prompt that is there, proves it, and publishes it where that is wanted."""
    revision = _revision(ready.draft)
    try:
        number, how = revision.there, "lookup"
        if number is None:
            await flow.copies.keep(ready.whose, revision.before)
            number, how = await _put_and_prove(job, flow, ready), "response"
            if number is None:
                return
        publish = job.publish and not _head_only(revision)
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
        await _refused(flow, ready.whose, "update", error, seen_source(job, flow, ready))
        return
    if ready.pending:
        await finish(job, flow, ready.task, ready.whose)


async def finish(job: Job, flow: Flow, task: Task, whose: Mapping[str, Json]) -> None:
    """Brings what belongs to a replica besides its first version. May be repeated from any point."""
    target_id = flow.state.records[task.row.id].target_id
    assert target_id is not None  # it has been made
    try:
        if job.select.version == "all":
            await _History(job, flow, task, whose, target_id).copy()
        else:
            await _label_replica(job, flow, task, whose, target_id)
    except (Rejected, Transient) as error:
        await _refused(flow, whose, "finish", error, _listed(flow, task))


# ---- one request -----------------------------------------------------------------------------------------------------


async def _send(job: Job, flow: Flow, batch: Sequence[Ready], write: Write) -> list[Outcome | None]:
    """Each intent is durable before the first byte leaves. None: the run was asked to end before this one was sent, so
    it is as it was; whatever else comes before an intent is an outcome like any other.
    """
    intended = False

    async def sending() -> None:
        nonlocal intended
        await flow.record(*(entries.intent(ready.whose, ready.draft, _attempt(flow, ready) + 1) for ready in batch))
        intended = True

    try:
        outcomes = await write(sending)
    except Stop as stop:
        # surely no effect: nothing is in doubt; of a bulk, a part may have been carried out
        if intended and len(batch) == 1 and isinstance(stop.__cause__, (Rejected, Transient)):
            failure = entries.failure(stop.__cause__, retriable=True)
            await flow.record(*(_told(job, flow, ready, failure) for ready in batch))
        raise
    if len(outcomes) != len(batch):
        raise RuntimeError(f"{len(batch)} prompts were sent, and the target told what became of {len(outcomes)}")
    return [outcome if intended or not _unsent(flow, outcome) else None for outcome in outcomes]


def _unsent(flow: Flow, outcome: Outcome) -> bool:
    """Of what came back though no intent was written: whether it is only that the run was asked to end."""
    if not isinstance(outcome, Failed):
        raise RuntimeError(f"a prompt was sent before its intent was written: {type(outcome).__name__}")
    return flow.dropped(outcome)


def _told(job: Job, flow: Flow, ready: Ready, outcome: Outcome) -> Entry:
    """What the ledger says of it."""
    seen = seen_source(job, flow, ready)
    return entries.of(ready.whose, ready.draft, outcome, now=flow.clock(), seen=seen, pending=ready.pending)


def seen_source(job: Job, flow: Flow, ready: Ready) -> dict[str, Json]:
    """The source, should this fail with it."""
    if job.select.version == "all":
        return _listed(flow, ready.task)
    there, made_from = ready.draft.revision, ready.draft.replica.mark.source_digest
    found = digest(there.before) if job.in_place and there is not None else made_from
    return entries.seen(ready.task.row.updated_at, found, flow.clock())


def _listed(flow: Flow, task: Task) -> dict[str, Json]:
    """The same, where more than the content of one version decides."""
    return entries.seen(task.row.updated_at, None, flow.clock())


def _attempt(flow: Flow, ready: Ready) -> int:
    record = flow.state.records.get(ready.task.row.id)
    return record.attempt if record is not None else 0


def _revision(draft: Draft) -> Revision:
    assert draft.revision is not None  # only updates come here
    return draft.revision


def _head_only(revision: Revision) -> bool:
    return revision.fields is not None and revision.fields <= HEAD


async def _refused(
    flow: Flow, whose: Mapping[str, Json], stage: str, error: AnswerError, seen: Mapping[str, Json]
) -> None:
    if flow.dropped(error):
        return
    failure = entries.failure(error, retriable=isinstance(error, Transient))
    await flow.record(entries.failed(whose, stage, failure, seen, **UPDATE))


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


# ---- labels and histories --------------------------------------------------------------------------------------------


async def _label_replica(job: Job, flow: Flow, task: Task, whose: Mapping[str, Json], target_id: str) -> None:
    record = flow.state.records[task.row.id]
    source = await job.source.fetch(task.row.id, job.select.version)
    for version in reversed(await job.target.versions(target_id)):
        if record.was_made_as(digest(await job.target.fetch(target_id, str(version.number)))):
            await _label(job, flow, target_id, version.id, source.labels)
            break
    else:
        if source.labels:
            names = ", ".join(source.labels)
            raise Rejected(f"no version of it is as it was made, so these labels stay behind: {names}", error="differs")
    await flow.record(entries.finished(whose, target_id, None, now=flow.clock()))


async def _label(job: Job, flow: Flow, target_id: str, version_id: str, names: Sequence[str]) -> None:
    for name in names:
        await job.target.label(target_id, version_id, await flow.labels.id_of(job.target, name))


class _History:
    """The versions of one prompt, oldest first, into its replica."""

    def __init__(self, job: Job, flow: Flow, task: Task, whose: Mapping[str, Json], target_id: str) -> None:
        self.job, self.flow, self.task, self.whose, self.target_id = job, flow, task, whose, target_id
        record = flow.state.records[task.row.id]
        self.begun = record.rare.pending
        """It was never whole."""
        self.numbers = dict(record.rare.versions)

    async def copy(self) -> None:
        """Goes on where an earlier run stopped; every version is in the ledger before the next one is sent."""
        job, row = self.job, self.task.row
        before = await job.target.fetch(self.target_id)
        published = await job.source.fetch(row.id)
        there = await job.target.versions(self.target_id)
        spare = [version for version in there if version.number not in self.numbers.values()]
        drafts: dict[int, Draft] = {}
        for version in await job.source.versions(row.id):
            if version.number in self.numbers and version.number != published.version:
                continue
            prompt = await job.source.fetch(row.id, str(version.number))
            draft = prepare(job, prompt, name=self.task.name, mark_in=self.flow.mark_in)
            if isinstance(draft, Failed):
                seen = _listed(self.flow, self.task)
                await self.flow.record(entries.failed(self.whose, "rewrite", draft, seen, **UPDATE))
                return
            drafts[version.number] = draft
            if version.number not in self.numbers and not await self._bring(version.number, draft, before, spare):
                return
        await self._publish(published, drafts[published.version or 0], before)

    async def _bring(self, source: int, draft: Draft, before: Prompt, spare: list[Version]) -> bool:
        """One version; False: it did not arrive, and the ledger says why, or the run was asked to end."""
        number = await self._claim(draft, spare)
        if number is None:
            if self.flow.halt.stop is not None:
                return False
            base = max(self.numbers.values(), default=None)
            revision = Revision(
                target_id=self.target_id, base=base, published=before.version, before=before, fields=None
            )
            ready = Ready(self.task, self.whose, draft.revising(revision, self.job.target))
            number = await _put_and_prove(self.job, self.flow, ready)
            if number is None:
                return False
        if (labels := draft.replica.source.labels) and self.job.target.can.labels:
            ids = {version.number: version.id for version in await self.job.target.versions(self.target_id)}
            await _label(self.job, self.flow, self.target_id, ids[number], labels)
        await self.flow.record(entries.version(self.whose, self.target_id, source, number))
        self.numbers[source] = number
        return True

    async def _claim(self, draft: Draft, spare: list[Version]) -> int | None:
        """A version that is there already and holds the same: the first one, or one whose answer was lost."""
        for version in list(spare):
            found = await self.job.target.fetch(self.target_id, str(version.number))
            if digest(found) == draft.replica.mark.replica_digest:
                del spare[: spare.index(version) + 1]
                return version.number
        return None

    async def _publish(self, published: Prompt, draft: Draft, before: Prompt) -> None:
        number = self.numbers[published.version or 0]
        if self.job.publish and not self.job.target.can.stages:
            newest = (await self.job.target.versions(self.target_id))[-1].number
            if number != newest:  # there the newest is in use: it is brought once more, as that
                if not await self._bring(published.version or 0, draft, before, []):
                    return
                number = self.numbers[published.version or 0]
        if self.job.publish and before.version != number and self.job.target.can.stages:
            await self.job.target.publish(self.target_id, number)
        if self.begun:
            await self.flow.record(entries.finished(self.whose, self.target_id, draft, now=self.flow.clock()))
            return
        revision = Revision(
            target_id=self.target_id, base=None, published=before.version, before=before, fields=None, there=number
        )
        draft = draft.revising(revision, self.job.target)
        after = entries.updated(
            self.whose,
            draft,
            how="response",
            after=number,
            published=self.job.publish,
            now=self.flow.clock(),
            pending=False,
        )
        await self.flow.record(after)
