"""Takes back the collections, partials and labels that were made for the prompts, after the prompts themselves.

What somebody changed since, or uses, is kept. What was made last goes first: a partial before those that it names, a
collection before the one that it lies in. Every step may be repeated, so an interrupted rollback is run again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from engine.content.digest import part_digest
from engine.content.references import named_partials, partial_tag
from engine.errors import Gone, Rejected, Transient
from engine.ledger.parts import PartRecord
from engine.ledger.state import State
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.entries import CLOCKS_APART_S
from engine.migrate.job import Job
from engine.migrate.listing import catalog_of, rows_of
from engine.model import Catalog, Named, PartKey, Row
from engine.taskgroup import for_each

TAKEN_BACK: Final = ("deleted", "gone")
"""Results that leave nothing there."""
_NAMED: Final = 3
"""So many users are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmade:
    """What became of one. `result`: deleted | gone | kept | failed | not_started."""

    what: str
    source_slug: str
    name: str
    target_id: str
    result: str
    message: str = ""


def made_parts(state: State, runs: Collection[str] | None) -> list[PartKey]:
    """What is there of ours, or of what these runs made; last made first."""
    made = [key for key, one in state.parts.items() if one.target_id is not None and (runs is None or one.run in runs)]
    return made[::-1]


def left(state: State, keys: Sequence[PartKey]) -> list[Unmade]:
    """What was not taken up."""
    return [_said(key, state.parts[key], "not_started") for key in keys]


async def unmake(
    job: Job, context: Context, keys: Sequence[PartKey], gone: Collection[str], *, dry_run: bool
) -> list[Unmade]:
    """Takes each back; every result is in the ledger when it returns. Raises Stop.

    `gone`: ids of what is deleted at the target already, or with `dry_run` would be, and is none of these.
    """
    if not keys or context.halt.stop is not None:
        return left(context.state, keys)
    rows, _ = await context.halt.guard(rows_of(job.target))
    catalog = await context.halt.guard(catalog_of(job.target, {f"{what}s" for what, _ in keys}))
    rows = [row for row in rows if row.id not in gone]
    unmaking = _Unmaking(job, context, rows, catalog, dry_run, removed={*gone})
    await context.halt.guard(unmaking.read(keys))
    return [await unmaking.one(key) for key in keys]


@dataclass(slots=True)
class _Unmaking:
    job: Job
    context: Context
    rows: Sequence[Row]
    """The prompts that stay."""
    catalog: Catalog
    dry_run: bool
    removed: set[str]
    """Ids of what is gone by now, or would be."""
    partials: dict[str, dict[str, str]] = field(default_factory=dict)
    """Slug of a partial -> the prompts and partials that name it: id and name."""
    labelled: dict[str, dict[str, str]] = field(default_factory=dict)
    """Id of a label -> the prompts that carry it."""
    unread: str = ""
    """Why nobody knows all that is used."""

    # ---- who uses what -----------------------------------------------------------------------------------------------

    async def read(self, keys: Sequence[PartKey]) -> None:
        """Who uses partials and labels stands nowhere but in the prompts, and in other partials."""
        kinds = {what for what, _ in keys}
        records = [self.context.state.parts[key] for key in keys if key[0] == "partial"]
        since = min((record.since for record in records), default=0.0)
        if "partial" in kinds:
            changed = [row for row in self.rows if _changed_since(row, since)]
            await for_each(changed, self._read_prompt, limit=self.job.concurrency)
            await for_each(self.catalog.partials or (), self._read_partial, limit=self.job.concurrency)
        if "label" in kinds:
            await for_each(self.rows, self._read_labels, limit=self.job.concurrency)

    async def _read_prompt(self, row: Row) -> None:
        """As it is published, and its draft."""
        for version in ("published", "latest"):
            try:
                text = (await self.job.target.fetch(row.id, version)).text
            except Gone:
                return
            except (Rejected, Transient) as error:
                self.unread = f"the prompt {row.name} could not be read: {error}"
                return
            self._names(text, row.id, row.name)

    async def _read_partial(self, one: Named) -> None:
        try:
            for version in ("published", "latest"):
                self._names((await self.job.parts.read("partial", one.id, version)).text, one.id, one.name)
        except Gone:
            return
        except (Rejected, Transient) as error:
            self.unread = f"the partial {one.name} could not be read: {error}"

    def _names(self, text: str, user_id: str, name: str) -> None:
        for slug in named_partials(text, partial_tag(self.job.target.can.dialect)):
            self.partials.setdefault(slug, {})[user_id] = name

    async def _read_labels(self, row: Row) -> None:
        try:
            versions = await self.job.target.versions(row.id)
        except Gone:
            return
        except (Rejected, Transient) as error:
            self.unread = f"the versions of {row.name} could not be listed: {error}"
            return
        for label_id in {label for version in versions for label in version.labels}:
            self.labelled.setdefault(label_id, {})[row.id] = row.name

    def _users(self, what: str, part_id: str, slug: str) -> Iterator[str]:
        if what == "collection":
            yield from (row.name for row in self.rows if row.collection == part_id)
            inside = (one for one in self.catalog.collections or () if one.parent == part_id)
            yield from (one.name for one in inside if one.id not in self.removed)
            return
        users = self.partials.get(slug, {}) if what == "partial" else self.labelled.get(part_id, {})
        yield from (name for user_id, name in users.items() if user_id not in self.removed)

    # ---- one of them -------------------------------------------------------------------------------------------------

    async def one(self, key: PartKey) -> Unmade:
        record, what = self.context.state.parts[key], key[0]
        target_id, parts = record.target_id or "", self.job.parts
        if self.context.halt.stop is not None:
            return _said(key, record, "not_started")
        try:
            found = await parts.read(what, target_id)
            newest = await parts.read(what, target_id, "latest") if what == "partial" else found
            if {part_digest(found), part_digest(newest)} != {record.digest}:
                return await self._kept(key, record, "it was edited since")
            if users := sorted(self._users(what, target_id, found.slug)):
                return await self._kept(key, record, _used_by(users))
            if what != "collection" and self.unread:
                return await self._kept(key, record, f"nobody can tell whether it is used: {self.unread}")
            if not self.dry_run:
                await parts.remove(what, target_id)
            result = "deleted"
        except Gone:
            result = "gone"
        except Rejected as error:
            return await self._kept(key, record, str(error))
        except Transient as error:
            return _said(key, record, "not_started" if self.context.dropped(error) else "failed", str(error))
        self.removed.add(target_id)
        said = _said(key, record, result)
        if not self.dry_run:
            await self.context.record(entries.part_unmade(key, target_id, result))
        return said

    async def _kept(self, key: PartKey, record: PartRecord, why: str) -> Unmade:
        if not self.dry_run:
            await self.context.record(entries.part_unmade(key, record.target_id, "kept"))
        return _said(key, record, "kept", f"{why}; it stays as it is")


def _changed_since(row: Row, since: float) -> bool:
    """Whether it may name what was made then: its slug was nobody's before."""
    try:
        return datetime.fromisoformat(row.updated_at or "").timestamp() >= since - CLOCKS_APART_S
    except ValueError:
        return True


def _used_by(users: Sequence[str]) -> str:
    more = f" and {len(users) - _NAMED} more" if len(users) > _NAMED else ""
    return f"it is used by {', '.join(users[:_NAMED])}{more}"


def _said(key: PartKey, record: PartRecord, result: str, message: str = "") -> Unmade:
    what, slug = key
    target_id = record.target_id or ""
    return Unmade(what=what, source_slug=slug, name=record.name, target_id=target_id, result=result, message=message)
