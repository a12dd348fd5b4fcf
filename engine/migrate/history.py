"""What belongs to a replica besides its first version: its labels, and the versions before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.content.digest import digest
from engine.errors import Rejected, Transient
from engine.migrate import entries
from engine.migrate.context import Flow
from engine.migrate.entries import UPDATE
from engine.migrate.job import Job, prepare
from engine.migrate.send import _listed, _refused
from engine.migrate.task import Prepared, Ready, Revision, Task
from engine.migrate.update import _put_and_prove
from engine.model import Failed, Json, Prompt, Version


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
        drafts: dict[int, Prepared] = {}
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

    async def _bring(self, source: int, draft: Prepared, before: Prompt, spare: list[Version]) -> bool:
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

    async def _claim(self, draft: Prepared, spare: list[Version]) -> int | None:
        """A version that is there already and holds the same: the first one, or one whose answer was lost."""
        for version in list(spare):
            found = await self.job.target.fetch(self.target_id, str(version.number))
            if digest(found) == draft.replica.mark.replica_digest:
                del spare[: spare.index(version) + 1]
                return version.number
        return None

    async def _publish(self, published: Prompt, draft: Prepared, before: Prompt) -> None:
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
