"""What is to be done with one prompt, once it is read: the same judgement for `plan` and for `run`.

A prompt that has no replica gets one. A replica is compared with what the rules make of its source now: it is updated
when either changed, unless somebody edited it by hand meanwhile. In mode update the prompt is compared with itself.
Times of change only save reads; what decides are the digests in the ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal

from engine.content.digest import MarkIn, changed_fields, digest
from engine.errors import AnswerError, Gone, Rejected, Transient
from engine.ledger.state import Original, Record
from engine.migrate import entries
from engine.migrate.entries import UPDATE
from engine.migrate.job import Job, digest_of, prepare
from engine.migrate.survey import renamed
from engine.migrate.task import Prepared, Revision, Task
from engine.model import Entry, Failed, Json, Mark, Prompt, Version, ordinal_of
from engine.model.frozen import frozen

Action = Literal["create", "update", "finish", "unchanged", "skip", "conflict", "failed", "replica"]
_NEVER_EMPTIED: Final = frozenset({"functions", "tools", "tool_choice", "description", "provider", "model"})
"""What an update cannot send as nothing."""
MOST_CANDIDATES: Final = 10
"""So many of the newest versions are looked through for one that an update in doubt has made."""
EDITED: Final = "was edited by hand since it was made; it stays as it is"


@frozen(kw_only=True)
class Decision:
    """create and update have a `prepared`; finish: labels or versions are missing; replica: it is no source.

    The others need nothing but `entry` in the ledger.
    """

    action: Action
    prepared: Prepared | None = None
    pending: bool = False
    """Labels or the rest of the history follow."""
    entry: Entry | None = None
    notes: tuple[str, ...] = ()
    failure: Failed | None = None
    source: Prompt | None = None
    """As it was read."""


async def decide(job: Job, task: Task, record: Record | None, *, now: float, mark_in: MarkIn = "metadata") -> Decision:
    """Reads what it needs. `now`: epoch seconds. Raises Stop; what else goes wrong is the prompt's failure."""
    case = _Case(job, task, record, now, mark_in, entries.origin_of(task.row, job.ends.source.collections))
    try:
        return case.as_planned(await _decided(case))
    except Gone:
        entry = entries.skipped(case.origin, "gone", **(UPDATE if task.action == "update" else {}))
        return Decision(action="skip", entry=entry, notes=("gone",))
    except (Rejected, Transient) as error:
        return case.refused(error)


async def _decided(case: _Case) -> Decision:
    job = case.job
    if case.task.failure is not None:
        return case.failed(case.task.failure, None, of_update=True)
    if case.task.action == "create":
        return await case.create()
    if job.in_place:
        return await case.in_place()
    return await (case.history() if job.select.version == "all" else case.replica())


@frozen()
class _Case:
    """One prompt, and all that is known of it."""

    job: Job
    task: Task
    record: Record | None
    now: float
    mark_in: MarkIn
    origin: Mapping[str, Json]

    # ---- what may become of it ---------------------------------------------------------------------------------------

    async def create(self) -> Decision:
        job, row = self.job, self.task.row
        version = job.select.version
        if version == "all":
            versions = await job.read_versions(row.id)
            job.readings.keep_versions(row.id, versions)  # its turn goes on
            version = versions[0].ref
        prompt = await job.read(row.id, version)
        if job.is_replica(prompt):
            return Decision(action="replica")
        prepared = prepare(job, prompt, name=self.task.name, mark_in=self.mark_in)
        if isinstance(prepared, Failed):
            return self.failed(prepared, prompt)
        pending = job.labels_follow(prompt) or job.select.version == "all"
        return Decision(action="create", prepared=prepared, pending=pending, notes=self._notes(prepared), source=prompt)

    async def replica(self) -> Decision:
        """It was made: compared with what the rules make of its source now."""
        job, record = self.job, self._record
        if self.task.look == "replica":
            return self._looked_at(await self._replica())
        prompt = await job.read(self.task.row.id, job.select.version)
        prepared = prepare(job, prompt, name=self.task.name, mark_in=self.mark_in)
        if isinstance(prepared, Failed):
            return self.failed(prepared, prompt)
        mark = prepared.replica.mark
        settled = not record.doubtful and not record.rare.pending
        if settled and record.was_made_from(mark.source_digest) and record.was_made_as(mark.replica_digest):
            return self._same(prompt, None, edited=record.rare.edited)
        replica = await self._replica()
        if replica is None:
            return self._same(prompt, None, note="its replica is no longer on the target")
        found = digest(replica)
        if found == mark.replica_digest and not record.doubtful:
            return self._finish(prompt) if record.rare.pending else self._same(prompt, replica, mark)
        if not self._is_ours(found) and not self._is_staged(replica):
            if record.was_made_as(mark.replica_digest):
                return self._same(prompt, replica, mark, edited=True, note=EDITED)
            if (left := self._left_edited(prompt, replica)) is not None:
                return left
        return await self._update(prepared, prompt, replica)

    async def history(self) -> Decision:
        """Every version is copied: those that are new at the source follow."""
        job, record = self.job, self._record
        if self.task.look == "replica":
            return self._looked_at(await self._replica())
        prompt = await job.read(self.task.row.id, job.select.speaking)
        replica = await self._replica()
        if replica is None:
            return self._same(prompt, None, note="its replica is no longer on the target")
        versions = await job.read_versions(self.task.row.id)
        refs = {version.ref for version in versions}
        copies = record.rare.versions
        behind = bool(refs - copies.keys())
        unsettled = record.rare.pending or record.doubtful
        if not unsettled and not self._is_copied(prompt, replica):
            if not behind and record.was_made_from(digest(prompt)):
                return self._same(prompt, replica, edited=True, note=EDITED)
            if (left := self._left_edited(prompt, replica)) is not None:
                return left
        moved = job.publish and (prompt.version is None or copies.get(prompt.version) != replica.version)
        if not (behind or moved or unsettled):
            return self._same(prompt, replica)
        job.readings.keep_versions(prompt.id, versions)
        return self._finish(prompt)

    async def in_place(self) -> Decision:
        """Mode update: compared with what the rules make of the prompt as it was before us."""
        job, record = self.job, self.record
        prompt = await job.read(self.task.row.id, job.select.version)
        base, found = self._base(), digest(prompt)
        doubtful = record is not None and record.doubtful
        ours = record is not None and record.made and (self._is_ours(found) or self._is_staged(prompt))
        untouched = base is not None and prompt.version == base.version
        made = record is not None and record.digests is not None and (ours or untouched) and not doubtful
        if record is not None and made and record.rules == job.rewrites:
            return self._same(prompt, prompt)
        original = await self._original(prompt, base, fetched=untouched or not ours)
        prepared = prepare(job, original)
        if isinstance(prepared, Failed):
            return self.failed(prepared, prompt, of_update=True)
        mark = prepared.replica.mark
        if not doubtful and (found == mark.replica_digest or (made and self._record.was_made_as(mark.replica_digest))):
            return self._same(prompt, prompt, mark)
        return await self._update(prepared, original, prompt)

    def as_planned(self, decision: Decision) -> Decision:
        """The same, unless a plan says otherwise: then it is a conflict."""
        step = (self.job.planned or {}).get(self.task.row.id)
        if step is None or decision.action not in ("create", "update", "finish"):
            return decision
        wanted = (step.source_digest, step.replica_digest)
        if decision.action in ("finish", step.action) and wanted in self._digests(decision.prepared):
            return decision
        return self._conflict("changed", self.record.target_id if self.record is not None else None)

    def _digests(self, prepared: Prepared | None) -> Iterator[tuple[str | None, str | None]]:
        """Of source and replica, also with what was made meanwhile as the plan called it."""
        if prepared is None:
            yield None, None
            return
        mark, ends = prepared.replica.mark, self.job.rehearsed
        yield mark.source_digest, mark.replica_digest
        if ends is not None:
            job, before = replace(self.job, ends=ends), prepared.replica
            again = prepare(job, before.source, name=before.prompt.name, mark_in=self.mark_in)
            if isinstance(again, Prepared):
                yield again.replica.mark.source_digest, again.replica.mark.replica_digest

    # ---- parts -------------------------------------------------------------------------------------------------------

    @property
    def _record(self) -> Record:
        assert self.record is not None  # only what was made is compared
        return self.record

    def _notes(self, prepared: Prepared) -> tuple[str, ...]:
        can = self.job.target.can
        labels = [one for one in prepared.replica.source.labels if not can.carries(one)]
        if not labels or "labels" in self.job.target.fields:
            return prepared.rewritten.notes
        why = "the target has no labels" if can.label_names is None else can.label_names.says
        return (*prepared.rewritten.notes, f"{why}; these stay behind: {', '.join(labels)}")

    async def _replica(self) -> Prompt | None:
        target_id = self._record.target_id
        assert target_id is not None
        try:
            return await self.job.target.fetch(target_id)
        except Gone:
            return None

    def _left_edited(self, source: Prompt, replica: Prompt) -> Decision | None:
        """What is changed and was edited by hand meanwhile, unless it is to be overwritten."""
        if self.job.on_edited == "conflict":
            return self._conflict("edited", self._record.target_id)
        if self.job.on_edited == "keep":
            return self._same(source, replica, edited=True, note=EDITED)
        return None

    def _base(self) -> Original | None:
        """What the last update in place began with, also one in doubt."""
        if self.record is None:
            return None
        doubt = self.record.doubt if self.record.doubtful else None
        return doubt.original if doubt is not None else self.record.rare.original

    async def _original(self, prompt: Prompt, base: Original | None, *, fetched: bool) -> Prompt:
        """The prompt as it was before us: a name or a collection that we gave it is not its own. `fetched`: its
        version is the one that was read.
        """
        if base is None:
            return prompt
        if not fetched and base.version is not None:
            prompt = await self.job.source.fetch(prompt.id, base.version)
        if prompt.name == base.renamed and base.name is not None:
            return replace(prompt, name=base.name, collection=base.collection)
        return prompt

    def _is_ours(self, found: str) -> bool:
        """Whether this is what we wrote, or what an update in doubt was to write."""
        record = self._record
        expected = record.doubt.expected if record.doubt is not None and record.doubtful else None
        return record.was_made_as(found) or (expected is not None and expected == found)

    def _is_copied(self, source: Prompt, replica: Prompt) -> bool:
        """Whether the version that is published is one of those copied, under the name that it was given."""
        if self._is_ours(digest(replica)):
            return True
        if replica.version not in self._record.rare.versions.values():
            return False
        prepared = prepare(self.job, source, name=self.task.name, mark_in=self.mark_in)
        if isinstance(prepared, Failed):
            return False
        wanted = prepared.replica.prompt
        return (replica.name, replica.collection) == (wanted.name, wanted.collection)

    def _is_staged(self, replica: Prompt) -> bool:
        """Whether what we wrote last waits to be published, and nobody published anything else meanwhile."""
        staged = self._record.rare.staged
        return staged is not None and replica.version in staged

    async def _update(self, prepared: Prepared, source: Prompt, before: Prompt) -> Decision:
        """`before`: what is there now."""
        job = self.job
        if (refused := renamed(job, before.name, prepared.replica.prompt.name)) is not None:
            return self.failed(refused, source, of_update=True)
        versions = await job.target.versions(before.id)
        newest = versions[-1].ref if versions else before.version
        fields = self._fields(prepared, source, before, newest)
        there = await self._there(prepared, before, versions)
        revision = await self._began_with(
            Revision(
                target_id=before.id, base=newest, published=before.version, before=before, fields=fields, there=there
            ),
            source,
        )
        notes = self._notes(prepared)
        if newest not in (before.version, there):
            notes = (*notes, f"version {newest} is a newer draft; it stays in the history, nothing of it is copied")
        pending = job.labels_follow(source) and not job.in_place
        return Decision(
            action="update",
            prepared=prepared.revising(revision, job.target),
            pending=pending,
            notes=notes,
            source=source,
        )

    def _fields(self, prepared: Prepared, source: Prompt, before: Prompt, newest: str | None) -> frozenset[str] | None:
        """What an update sends: in place only what changes, where the registry fills in the rest as it should."""
        changed = changed_fields(before, prepared.replica.prompt)
        if not self.job.in_place:
            return None
        once = self.job.target.can.once
        if changed <= once:
            return changed
        if (
            newest != before.version
            or source.version != before.version
            or not _patchable(changed, prepared.replica.prompt, once)
        ):
            return None
        # alone, a provider would change the published version of an older back end
        return changed | {"model"} if changed - once == {"provider"} else changed

    async def _began_with(self, revision: Revision, source: Prompt) -> Revision:
        """What was published and what it was called before: not what an update in doubt has made of it."""
        record = self.record
        if record is not None and record.doubtful and record.doubt is not None and record.doubt.original is not None:
            before = revision.before
            if self.job.in_place:
                before = replace(before, name=source.name, collection=source.collection)
            return replace(revision, published=record.doubt.published, before=before)
        if self.job.in_place and self.job.select.version != "published":
            published = await self.job.source.fetch(source.id)
            return replace(revision, published=published.version)
        return revision

    async def _there(self, prepared: Prepared, before: Prompt, versions: Sequence[Version]) -> str | None:
        """The version that holds what is wanted already: published, newer than that, or than the update in doubt."""
        record, wanted = self.record, prepared.replica.mark.replica_digest
        if digest(before) == wanted:
            return before.version
        since = ordinal_of(versions, before.version)
        if record is not None and record.doubtful and record.doubt is not None and record.doubt.base is not None:
            since = min(since, ordinal_of(versions, record.doubt.base))
        for version in [one for one in reversed(versions) if one.ordinal > since][:MOST_CANDIDATES]:
            found = await self.job.target.fetch(before.id, version.ref)
            if digest(found) == wanted:
                return version.ref
        return None

    # ---- what the ledger is told -------------------------------------------------------------------------------------

    def _same(
        self, source: Prompt, replica: Prompt | None, mark: Mark | None = None, *, edited: bool = False, note: str = ""
    ) -> Decision:
        entry = entries.unchanged(
            self.origin,
            source_updated_at=entries.compared_at(source.updated_at, self.now),
            target_updated_at=self._seen(replica),
            mark=mark,
            edited=edited,
        )
        return Decision(action="unchanged", entry=entry, notes=(note,) if note else (), source=source)

    def _looked_at(self, replica: Prompt | None) -> Decision:
        """Only the replica's time of change is new."""
        edited = replica is not None and not (self._record.was_made_as(digest(replica)) or self._is_staged(replica))
        entry = entries.unchanged(
            self.origin,
            source_updated_at=self._record.updated_at,
            target_updated_at=self._seen(replica),
            edited=edited,
        )
        return Decision(action="unchanged", entry=entry, notes=(EDITED,) if edited else ())

    def _seen(self, replica: Prompt | None) -> str | None:
        if replica is None:
            return self._record.rare.target_updated_at if self.record is not None else None
        return entries.compared_at(replica.updated_at, self.now)

    def _finish(self, source: Prompt) -> Decision:
        self.job.readings.keep(source, self.job.select.speaking)
        return Decision(action="finish", source=source)

    def _conflict(self, reason: str, target_id: str | None) -> Decision:
        entry = entries.conflict(self.origin, reason, target_id, **UPDATE)
        return Decision(action="conflict", entry=entry, notes=(reason,))

    def failed(self, failure: Failed, source: Prompt | None, *, of_update: bool = False) -> Decision:
        """`source`: None: it was not read."""
        op = UPDATE if of_update or (self.record is not None and self.record.made) else {}
        entry = entries.failed(self.origin, "rewrite", failure, self._failed_with(source), **op)
        return Decision(action="failed", entry=entry, failure=failure, source=source)

    def refused(self, error: AnswerError) -> Decision:
        """A read that was not answered as it should be."""
        # what is wrong in a file is mended there, and to read it again costs nothing
        retriable = isinstance(error, Transient) or not self.job.source.can.asked
        failure = entries.failure(error, retriable=retriable)
        op = UPDATE if self.task.action == "update" else {}
        entry = entries.failed(self.origin, "fetch", failure, self._failed_with(None), **op)
        return Decision(action="failed", entry=entry, failure=failure)

    def _failed_with(self, source: Prompt | None) -> Mapping[str, Json]:
        if self.job.select.version == "all":
            source = None  # more versions than this one decide
        return entries.seen(self.task.row.updated_at, digest_of(source) if source is not None else None, self.now)


def _patchable(changed: frozenset[str], wanted: Prompt, once: frozenset[str]) -> bool:
    """Whether sending these fields alone makes a version that holds what is wanted: nothing can be emptied that way,
    and a description alone would change the version that is there.
    """
    emptied = [name for name in changed & _NEVER_EMPTIED if not getattr(wanted, name)]
    return changed <= once or (changed - once != {"description"} and not emptied)
