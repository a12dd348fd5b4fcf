"""Makes what the prompts refer to and is missing at the target, before the first of them: each once.

By the protocol of the prompts themselves: an intent is durable before the first byte leaves; what was never answered is
looked up when the settle time is over, and once more after another one, and only then is it sent again. Collections are
known again by their name and where they lie, labels by their names, partials by the mark in their description.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from engine.content.digest import key_of, marked, read_mark
from engine.content.references import Counterpart, counterpart
from engine.content.selection import find
from engine.errors import Rejected, Transient
from engine.ledger.parts import PartRecord
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.migrate.listing import catalog_of, down
from engine.migrate.needs import Need, counted, listed, mapped
from engine.migrate.reconcile import look_up_at
from engine.migrate.send import intended
from engine.model import Catalog, Created, Entry, Failed, Named, Outcome, Part, PartKey, Sending, Unknown
from engine.taskgroup import for_each

UNSETTLED: Final = "nobody knows yet whether it was made"


async def make(job: Job, context: Context, found: Sequence[Need]) -> Job:
    """The job that knows what is there now; every outcome is in the ledger when it returns. Raises Stop.

    First, what earlier runs left in doubt is looked up in the listing that was just made.
    """
    job = replace(job, ends=replace(job.ends, unmade={need.key: need.problem for need in found if need.problem}))
    making = _Making(job, context, [need for need in found if not need.problem])
    await making.settle(making.doubtful(), job.ends.target)
    await making.all()
    return making.job


def made_notes(job: Job, found: Sequence[Need]) -> list[str]:
    """What became of what was missing, for the summary."""
    ends = job.ends
    there = counted([need.key for need in found if need.key in ends.made])
    notes = [f"made at the target, or found there: {there}"] if there else []
    return notes + [f"the {what} '{slug}' was not made: {why}" for (what, slug), why in ends.unmade.items()]


async def settle_parts(job: Job, context: Context) -> None:
    """What is in doubt is looked up until it is sure; what was never made is said to be absent. Raises Stop."""
    making = _Making(job, context, ())
    while (doubtful := making.doubtful()) and context.halt.stop is None:
        for key in await making.look_up(doubtful):
            await context.record(entries.part_unmade(key, None, "absent"))


@dataclass(slots=True)
class _Making:
    job: Job
    context: Context
    needs: Sequence[Need]
    absent: set[PartKey] = field(default_factory=set)
    """In doubt, and surely not there."""
    tries: dict[PartKey, int] = field(default_factory=dict)
    """In this run."""

    async def all(self) -> None:
        """Until all is there that can be."""
        while self.context.halt.stop is None:
            ready = [need for need in self.needs if self._is_ready(need)]
            await for_each(ready, self._make, limit=self.job.concurrency)
            doubtful = [key for key in self.doubtful() if any(need.key == key for need in self.needs)]
            if not ready and not doubtful:
                break
            if doubtful:
                self.absent |= await self.look_up(doubtful)
        for need in self.needs:
            if need.key not in self.job.ends.made:
                self._give_up(need.key, UNSETTLED)

    def _is_ready(self, need: Need) -> bool:
        ends, record = self.job.ends, self.context.state.parts.get(need.key)
        if need.key in ends.made or need.key in ends.unmade:
            return False
        if failed := next((key for key in need.after if key in ends.unmade), None):
            self._give_up(need.key, f"it needs the {failed[0]} '{failed[1]}', which could not be made")
            return False
        unsure = record is not None and record.doubtful and need.key not in self.absent
        if unsure or not all(key in ends.made for key in need.after):
            return False
        if self.tries.get(need.key, 0) >= self.job.attempts:
            self._give_up(need.key, f"{self.job.attempts} attempts were not answered")
            return False
        return True

    # ---- one of them -------------------------------------------------------------------------------------------------

    async def _make(self, need: Need) -> None:
        if self.context.halt.stop is not None:
            return
        job, key = self.job, need.key
        mark = key_of(job.migration, job.registry, f"{key[0]}:{key[1]}")
        wanted = self._wanted(need.part, mark)
        record = self.context.state.parts.get(key)
        attempt = (record.attempt if record is not None else 0) + 1

        async def write(sending: Sending) -> list[Outcome]:
            return [await job.parts.make(wanted, sending)]

        def intents() -> list[Entry]:
            return [entries.part_intent(wanted, need.part, mark, attempt)]

        self.absent.discard(key)
        self.tries[key] = self.tries.get(key, 0) + 1
        (outcome,) = await intended(
            self.context, write, 1, intents, lambda failure: [entries.part_outcome(key, failure)]
        )
        if outcome is not None:
            await self._tell(need, wanted, mark, outcome)

    async def _tell(self, need: Need, wanted: Part, mark: str, outcome: Outcome) -> None:
        match outcome:
            case Created():
                await self.context.record(entries.part_made(wanted, need.part, mark, outcome))
                slug = outcome.target_slug or outcome.target_id
                named = Named(id=outcome.target_id, slug=slug, name=wanted.name, parent=wanted.parent)
                self._is_there(need.key, named, need.part.version)
            case Failed(exists=False):
                await self.context.record(entries.part_outcome(need.key, outcome))
                self._give_up(need.key, outcome.message)
            case Failed() | Unknown():
                await self.context.record(entries.part_outcome(need.key, outcome))
            case _:
                raise RuntimeError(f"the create of a {need.key[0]} ended as {type(outcome).__name__}")

    def _wanted(self, part: Part, mark: str) -> Part:
        """As it is to be at the target."""
        ends = self.job.ends
        if part.what == "partial":
            text = mapped(self.job, part.text, ends).text
            return replace(part, text=text, description=marked(part.description, mark))
        if part.parent is None:
            return part
        parent = find(ends.source.collections, part.parent)
        return replace(part, parent=counterpart("collection", parent, ends)[0] if parent is not None else None)

    def _is_there(self, key: PartKey, named: Named, version: str | None) -> None:
        ends = self.job.ends
        self.job = replace(self.job, ends=replace(ends, made={**ends.made, key: Counterpart(named, version)}))
        if key[0] == "label":
            self.context.labels.learn(named.name, named.id)

    def _give_up(self, key: PartKey, why: str) -> None:
        ends = self.job.ends
        self.job = replace(self.job, ends=replace(ends, unmade={key: why, **ends.unmade}))

    # ---- what is in doubt --------------------------------------------------------------------------------------------

    def doubtful(self) -> list[PartKey]:
        """What was sent, by any run, and nobody knows what became of it."""
        return [key for key, record in self.context.state.parts.items() if record.doubtful and key not in self.absent]

    async def look_up(self, keys: Sequence[PartKey]) -> set[PartKey]:
        """Those of them that were surely never made, once the settle time is over."""
        context, job = self.context, self.job
        records = [context.state.parts[key] for key in keys]
        now = context.clock()
        sent = [record.since for record in records if not record.refused]
        await context.halt.pause(look_up_at(sent, job.settle, now) - now)
        if context.halt.stop is not None:
            return set()
        now = context.clock()  # before the listing: what landed while it was read is not in it
        catalog = await context.halt.guard(catalog_of(job.target, {f"{what}s" for what, _ in keys}))
        left = await self.settle(keys, catalog)
        return {key for key in left if now >= context.state.parts[key].since + 2 * job.settle}

    async def settle(self, keys: Iterable[PartKey], catalog: Catalog) -> list[PartKey]:
        """Takes over what is there; the others."""
        left = []
        for key in keys:
            record = self.context.state.parts[key]
            taken = {one.target_id for one in self.context.state.parts.values()}
            named = [one for one in listed(catalog, key[0]) or () if one.name == record.name and one.id not in taken]
            found = await self._ours(key, record, named)
            if found is not None and not (record.refused and record.attempt == 1):
                await self.context.record(entries.part_found(key, record, found))
                self._is_there(key, found, record.version)
            elif record.refused:
                await self._others(key, named)
            else:
                left.append(key)
        return left

    async def _others(self, key: PartKey, named: Sequence[Named]) -> None:
        """The registry said 409 to the only create that there was."""
        await self.context.record(entries.part_skipped(key))
        if named:
            self._is_there(key, named[0], None)
        else:
            self._give_up(key, "the registry says that it is there, and does not list it")

    async def _ours(self, key: PartKey, record: PartRecord, named: Sequence[Named]) -> Named | None:
        """The one of these that is what was sent."""
        if key[0] == "collection":
            return next((one for one in named if one.parent == record.parent), None)
        if key[0] == "label":
            return named[0] if named else None
        for one in named:
            try:
                part = await self.job.parts.read(key[0], one.id)
            except Rejected:
                continue
            except Transient as error:
                raise down(f"the partial {one.id}, which may be ours, could not be read", error) from error
            if (mark := read_mark({}, part.description)) is not None and mark.key == record.mark:
                return one
        return None
