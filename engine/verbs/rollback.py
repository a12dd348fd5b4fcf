"""Takes back what a ledger says a migration did, and only that.

A replica that is as we made it is deleted; a prompt that was updated gets back the version that was published before,
its name and its collection, and the versions made stay in its history, for no registry can take one out. What somebody
edited since is kept. Every step may be repeated, so an interrupted rollback is run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

from engine.content.digest import digest, make_replica
from engine.errors import Gone, Rejected, Transient
from engine.ledger.writes import FIRST, Line, Writes
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.model import Failed, Prompt, Updated, Version, newer, no_intent, ordinal_of, stored_version, version_ref
from engine.taskgroup import for_each
from engine.verbs.unmake import TAKEN_BACK, Unmade

RESULTS: Final = ("deleted", "restored", "gone", "kept", "failed", "not_started")
_LEFT: Final = ("kept", "failed", "not_started")
NO_HISTORY: Final = "no earlier version is kept there; as it was before, it is in the ledger's .before.jsonl file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undo:
    """One prompt: `delete` its replica, or `restore` what was there before `first`, of the last `count` writes."""

    made: Writes
    action: str
    first: Line
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What became of one prompt. `kept`: it was edited since. `versions`: what stays in its history."""

    source_id: str
    name: str
    target_id: str
    action: str
    result: str
    versions: Sequence[str] = ()
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollback:
    """All of it; with `dry_run` what would be done."""

    prompts: Sequence[Undone]
    counts: Mapping[str, int]
    dry_run: bool
    in_doubt: int = 0
    """Creates whose answer was lost. Without `dry_run` they are looked up first, and these are left, because nobody can
    tell whether what is there is what was made.
    """
    made: Sequence[Unmade] = ()
    """What was made for the prompts besides."""
    notes: Sequence[str] = ()

    @property
    def gone(self) -> frozenset[str]:
        """Ids of the replicas that are not at the target any more, or would not be."""
        return frozenset(one.target_id for one in self.prompts if one.result in TAKEN_BACK)

    def with_made(self, made: Sequence[Unmade]) -> Rollback:
        """With what became of these, of which it said something else before."""
        found = {(one.what, one.source_slug): one for one in (*self.made, *made)}
        return replace(self, made=tuple(found.values()))

    @property
    def whole(self) -> bool:
        """Nothing was kept or left."""
        left = self.in_doubt and not self.dry_run
        ends = {name for name, count in self.counts.items() if count} | {one.result for one in self.made}
        return not left and ends.isdisjoint(_LEFT)

    def to_json(self) -> dict[str, Any]:
        """The object of `rollback --json`."""
        prompts = [{**asdict(one), "versions": [*map(stored_version, one.versions)]} for one in self.prompts]
        return {**asdict(self), "prompts": prompts}


def undoing(pairs: Sequence[Writes], runs: Collection[str] | None) -> list[Undo]:
    """What is to be taken back: everything, or what these runs wrote last."""
    found = []
    for made in pairs:
        writes = [line for line in made.writes if runs is None or line["run"] in runs]
        if made.intent is not None and (runs is None or made.intent["run"] in runs):
            writes.append(made.intent)
        if not writes:
            continue
        first = writes[0]
        since = made.writes.index(first) if first in made.writes else len(made.writes)
        action = "delete" if first["kind"] == "created" else "restore"
        found.append(Undo(made=made, action=action, first=first, count=len(made.writes) - since))
    return found


async def rollback(job: Job, context: Context, undos: Sequence[Undo], *, dry_run: bool) -> Rollback:
    """Takes each back; every result is in the ledger when it returns. Raises Stop."""
    found: dict[str, Undone] = {}

    async def one(undo: Undo) -> None:
        found[undo.made.source_id] = await _Undoing(job, context, undo).undone(dry_run=dry_run)

    await for_each(undos, one, limit=job.concurrency)
    prompts = [found[undo.made.source_id] for undo in undos]
    counts = Counter(one.result for one in prompts)
    return Rollback(prompts=prompts, counts={name: counts[name] for name in RESULTS}, dry_run=dry_run)


@dataclass(frozen=True, slots=True)
class _Undoing:
    job: Job
    context: Context
    undo: Undo

    async def undone(self, *, dry_run: bool) -> Undone:
        made = self.undo.made
        left: list[str] = []
        if self.context.halt.stop is not None:
            return self._says("not_started")
        try:
            current = await self.job.target.fetch(made.target_id)
            versions = await self.job.target.versions(made.target_id)
            if not await self._is_ours(current, versions):
                if not dry_run:
                    await self.context.record(entries.rolled_back(made.origin, made.target_id, "kept"))
                return self._says("kept", "it was edited since; it stays as it is")
            if self.undo.action == "restore" and not self.job.target.can.history:
                return self._says("kept", NO_HISTORY)
            left = await self._made_here(versions) if self.undo.action == "restore" else []
            if not dry_run:
                await (self._delete() if self.undo.action == "delete" else self._restore(current, versions, left))
            if self.job.target.can.retracts:
                left = []
            result = "deleted" if self.undo.action == "delete" else "restored"
        except Gone:
            result = "gone"
        except (Rejected, Transient) as error:
            return self._says("not_started" if self.context.dropped(error) else "failed", str(error))
        if not dry_run:
            await self.context.record(entries.rolled_back(made.origin, made.target_id, result, **self._back_to()))
        return self._says(result, versions=left)

    @property
    def _lines(self) -> list[Line]:
        made = self.undo.made
        return [*made.writes, *([made.intent] if made.intent is not None else [])]

    async def _is_ours(self, current: Prompt, versions: Sequence[Version]) -> bool:
        """Whether what is published is what we wrote, or what was there before us; of what is to be deleted, whether
        nobody made a draft of it either, nor, where a create appends, had the prompt before we came.
        """
        made, found = self.undo.made, digest(current)
        known: Collection[str | None] = {line.get("replica_digest") for line in self._lines}
        refs = {version_ref(line.get(name)) for line in self._lines for name in ("before_version", "after_version")}
        if self.undo.action == "restore":
            return found in known or current.version in refs
        refs |= {*made.versions.values(), *([FIRST] if self.undo.first.get("after_version") is None else [])}
        copied = current.version in made.versions.values() and current.name == made.last.get("name")
        told = versions if self.job.target.can.taken == "appends" else versions[-1:]
        ours = [await self._is_known(version.ref, refs, known) for version in told]
        return (found in known or copied) and all(ours)

    async def _is_known(self, version: str, refs: Collection[str | None], known: Collection[str | None]) -> bool:
        """Of an update in doubt nobody knows the version."""
        if version in refs:
            return True
        return digest(await self.job.target.fetch(self.undo.made.target_id, version)) in known

    async def _made_here(self, versions: Sequence[Version]) -> list[str]:
        """The versions that stay in the history: those of the writes that are undone, and of an update in doubt."""
        made, count = self.undo.made, self.undo.count
        undone = made.writes[len(made.writes) - count :] if count else []
        refs = {line.get("after_version") for line in undone if line.get("after_version") != line.get("before_version")}
        here = {str(ref) for ref in refs if ref is not None}
        if made.intent is not None:
            base, wanted = version_ref(made.intent.get("base_version")), made.intent.get("replica_digest")
            for version in newer(versions, base):
                if await self._is_known(version.ref, (), (wanted,)):
                    here.add(version.ref)
        return sorted(here, key=partial(ordinal_of, versions))

    async def _delete(self) -> None:
        await self.job.target.delete(self.undo.made.target_id)

    async def _restore(self, current: Prompt, versions: Sequence[Version], made_here: Sequence[str]) -> None:
        first, last, target = self.undo.first, self._lines[-1], self.job.target
        before = version_ref(first.get("before_version"))
        if target.can.retracts:
            for version in reversed(made_here):
                await target.retract(current.id, version)
        elif before is not None and current.version != before:
            await target.publish(current.id, before)
        version_id = next((version.id for version in versions if version.ref == before), None)
        if (
            version_id is not None and not self.job.in_place and target.can.labels == "written"
        ):  # in place no label was moved
            for label in first.get("before_labels") or ():
                await target.label(current.id, version_id, await self.context.labels.id_of(target, label))
        wanted = current
        if current.collection == last.get("collection", current.collection):  # else somebody moved it since
            wanted = replace(wanted, collection=first.get("before_collection"))
        if current.name == last.get("name"):  # else somebody renamed it since
            wanted = replace(wanted, name=first.get("before_name") or current.name)
        # what a prompt has in each version came back with the version
        once = target.can.once & {"name", "collection"}
        head = frozenset(name for name in once if getattr(wanted, name) != getattr(current, name))
        if head and target.can.stages:
            replica = make_replica(current, wanted, migration=self.job.migration, registry="", mark_in="nowhere")
            outcome = await target.update(current.id, target.encode_update(replica, head), no_intent)
            if not isinstance(outcome, Updated):
                unsent = isinstance(outcome, Failed) and outcome.error == "not_sent"
                raise Transient(
                    f"its name and collection were not set back: {outcome}",
                    error="not_sent" if unsent else "not_restored",
                )

    def _back_to(self) -> dict[str, Any]:
        """What the writes that stay had made."""
        made = self.undo.made
        left = made.writes[: len(made.writes) - self.undo.count]
        names = ("source_digest", "replica_digest", "source_updated_at")
        earlier = {name: left[-1].get(name) for name in names} if left and self.undo.action == "restore" else {}
        return {"undone": self.undo.count, **earlier}

    def _says(self, result: str, message: str = "", *, versions: Sequence[str] = ()) -> Undone:
        made = self.undo.made
        return Undone(
            source_id=made.source_id,
            name=made.name,
            target_id=made.target_id,
            action=self.undo.action,
            result=result,
            versions=versions,
            message=message,
        )
