"""What belongs to a replica besides its first version: its labels, and the versions before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from engine.content.digest import digest
from engine.errors import Rejected, Transient
from engine.migrate import entries
from engine.migrate.context import Flow
from engine.migrate.entries import UPDATE
from engine.migrate.job import Job, prepare
from engine.migrate.send import listed_source, record_refused
from engine.migrate.task import Prepared, Ready, Revision, Task
from engine.migrate.update import put_and_prove
from engine.model import Failed, Json, Prompt, Version, ordinal_of


async def finish(job: Job, flow: Flow, task: Task, whose: Mapping[str, Json]) -> None:
    """Brings what belongs to a replica besides its first version. May be repeated from any point."""
    target_id = flow.state.records[task.row.id].target_id
    assert target_id is not None  # it has been made
    try:
        if job.select.version == "all":
            await _History(job, flow, task, whose, target_id).copy(await job.read_versions(task.row.id))
        else:
            await _label_replica(job, flow, task, whose, target_id)
    except (Rejected, Transient) as error:
        await record_refused(flow, whose, "finish", error, listed_source(flow, task))


# ---- labels and histories --------------------------------------------------------------------------------------------


async def _label_replica(job: Job, flow: Flow, task: Task, whose: Mapping[str, Json], target_id: str) -> None:
    record = flow.state.records[task.row.id]
    source = await job.read(task.row.id, job.select.version)
    for version in reversed(await job.target.versions(target_id)):
        if record.was_made_as(digest(await job.target.fetch(target_id, version.ref))):
            await label(job, flow, target_id, version.id, source.labels)
            if job.puts_out and (await job.target.fetch(target_id)).version == version.ref:
                await job.target.publish(target_id, version.ref)  # what says so may be missing
            break
    else:
        if job.labels_follow(source):
            names = ", ".join(filter(job.target.can.carries, source.labels))
            raise Rejected(f"no version of it is as it was made, so these labels stay behind: {names}", error="differs")
    await flow.record(entries.finished(whose, target_id, None, now=flow.clock()))


async def label(job: Job, flow: Flow, target_id: str, version_id: str, names: Sequence[str]) -> None:
    """Puts these labels on a version, made where they are not there."""
    for name in filter(job.target.can.carries, names):
        await job.target.label(target_id, version_id, await flow.labels.id_of(job.target, name))


class _History:
    """The versions of one prompt, oldest first, into its replica."""

    def __init__(self, job: Job, flow: Flow, task: Task, whose: Mapping[str, Json], target_id: str) -> None:
        self.job, self.flow, self.task, self.whose, self.target_id = job, flow, task, whose, target_id
        record = flow.state.records[task.row.id]
        self.begun = record.rare.pending
        """It was never whole."""
        self.copies = dict(record.rare.versions)
        """The source's version -> the replica's."""
        self.newest: str | None = None
        """Of the copies."""

    async def copy(self, versions: Sequence[Version]) -> None:
        """Goes on where an earlier run stopped; every version is in the ledger before the next one is sent."""
        job, row = self.job, self.task.row
        before = await job.target.fetch(self.target_id)
        published = await job.read(row.id, job.select.speaking)
        there = await job.target.versions(self.target_id)
        self.newest = max(self.copies.values(), key=partial(ordinal_of, there), default=None)
        spare = [version for version in there if version.ref not in self.copies.values()]
        drafts: dict[str | None, Prepared] = {}
        for version in versions:
            if version.ref in self.copies and version.ref != published.version:
                continue
            prompt = published
            if version.ref != published.version:
                prompt = await job.read(row.id, version.ref)
            draft = prepare(job, prompt, name=self.task.name, mark_in=self.flow.mark_in)
            if isinstance(draft, Failed):
                seen = listed_source(self.flow, self.task)
                await self.flow.record(entries.failed(self.whose, "rewrite", draft, seen, **UPDATE))
                return
            drafts[version.ref] = draft
            if version.ref not in self.copies and not await self._bring(version.ref, draft, before, spare):
                return
        await self._publish(published.version or "", drafts[published.version], before)

    async def _bring(self, source: str, draft: Prepared, before: Prompt, spare: list[Version]) -> bool:
        """One version; False: it did not arrive, and the ledger says why, or the run was asked to end."""
        made = await self._claim(draft, spare)
        if made is None:
            if self.flow.halt.stop is not None:
                return False
            revision = Revision(
                target_id=self.target_id, base=self.newest, published=before.version, before=before, fields=None
            )
            ready = Ready(self.task, self.whose, draft.revising(revision, self.job.target))
            made = await put_and_prove(self.job, self.flow, ready)
            if made is None:
                return False
        labels = draft.replica.source.labels
        if any(map(self.job.target.can.carries, labels)):
            ids = {version.ref: version.id for version in await self.job.target.versions(self.target_id)}
            await label(self.job, self.flow, self.target_id, ids[made], labels)
        await self.flow.record(entries.version(self.whose, self.target_id, source, made))
        self.copies[source] = self.newest = made
        return True

    async def _claim(self, draft: Prepared, spare: list[Version]) -> str | None:
        """A version that is there already and holds the same: the first one, or one whose answer was lost."""
        for version in list(spare):
            found = await self.job.target.fetch(self.target_id, version.ref)
            if digest(found) == draft.replica.mark.replica_digest:
                del spare[: spare.index(version) + 1]
                return version.ref
        return None

    async def _publish(self, published: str, draft: Prepared, before: Prompt) -> None:
        if self.job.publish and not self.job.target.can.stages:
            newest = (await self.job.target.versions(self.target_id))[-1].ref
            # there the newest is in use: it is brought once more, as that
            if self.copies[published] != newest and not await self._bring(published, draft, before, []):
                return
        made = self.copies[published]
        if self.job.publish and self.job.target.can.stages and (self.job.puts_out or before.version != made):
            await self.job.target.publish(self.target_id, made)
        if self.begun:
            await self.flow.record(entries.finished(self.whose, self.target_id, draft, now=self.flow.clock()))
            return
        revision = Revision(
            target_id=self.target_id, base=None, published=before.version, before=before, fields=None, there=made
        )
        draft = draft.revising(revision, self.job.target)
        after = entries.updated(
            self.whose,
            draft,
            how="response",
            after=made,
            published=self.job.publish,
            now=self.flow.clock(),
            pending=False,
        )
        await self.flow.record(after)
