"""What the selected prompts need at the target and is not there: collections, partials and labels that are to be made.

Found before anything is written, with all that each of them needs itself, in the order in which they are made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from engine.content.references import Counterpart, Ends, Mapped, counterpart, map_partials, partial_tag
from engine.content.selection import find
from engine.errors import Gone, Rejected, Stop, Transient
from engine.ledger.state import State
from engine.migrate.job import Job
from engine.migrate.listing import down
from engine.model import Catalog, Named, Part, PartKey, Prompt, Row, When
from engine.taskgroup import for_each

KINDS: Final = ("collection", "partial", "label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One of them. `part`: as it is at the source; `after`: what is made before it; `prompts`: how many of the selected
    need it, also by what they name; `problem`: why it cannot be made.
    """

    part: Part
    after: tuple[PartKey, ...] = ()
    prompts: int = 0
    problem: str = ""

    @property
    def key(self) -> PartKey:
        """By which it is known."""
        return self.part.key

    def to_json(self) -> dict[str, Any]:
        """As `plan --json` prints it; never its text."""
        what, slug = self.key
        after = [f"{kind} {one}" for kind, one in self.after]
        said = {"what": what, "source_slug": slug, "name": self.part.name, "after": after, "prompts": self.prompts}
        return {**said, "problem": self.problem or None}


async def needs(job: Job, rows: Iterable[Row]) -> list[Need]:
    """What these prompts need. Their definitions are read, and kept for their turn.

    Raises Stop where partials name each other in a circle, and where the source cannot be asked now.
    """
    if not job.ends.create:
        return []
    search = _Search(job)
    await for_each(rows, search.read, limit=job.concurrency)
    await search.close()
    return search.in_order()


@dataclass(slots=True)
class _Search:
    job: Job
    users: dict[PartKey, set[str]] = field(default_factory=dict)
    """Ids of the prompts that need it."""
    found: dict[PartKey, Part] = field(default_factory=dict)
    after: dict[PartKey, tuple[PartKey, ...]] = field(default_factory=dict)
    problems: dict[PartKey, str] = field(default_factory=dict)

    async def read(self, row: Row) -> None:
        """One prompt, in every version that is copied. What cannot be read fails by itself when its turn comes."""
        try:
            for prompt in await self._versions(row.id):
                for key in self._lacks(prompt):
                    self.users.setdefault(key, set()).add(row.id)
        except (Rejected, Transient, RecursionError):
            return

    async def _versions(self, prompt_id: str) -> list[Prompt]:
        job = self.job
        published = await job.read_ahead(prompt_id)
        if job.select.version != "all":
            return [published]
        versions = await job.source.versions(prompt_id)
        earlier = [await job.source.fetch(prompt_id, one.ref) for one in versions if one.ref != published.version]
        return [published, *earlier]

    def _lacks(self, prompt: Prompt) -> list[PartKey]:
        """A replica of ours that was renamed needs nothing: it is no source."""
        job = self.job
        if job.is_replica(prompt):
            return []
        there = job.ends.target.labels
        if "labels" not in job.ends.create or there is None:
            return [*job.rewritten(prompt).lacks]
        known = {one.name for one in there} | {name for what, name in job.ends.made if what == "label"}
        labels = [name for name in prompt.labels if job.target.can.carries(name) and name not in known]
        return [*job.rewritten(prompt).lacks, *(("label", name) for name in labels)]

    async def close(self) -> None:
        """Adds what they need themselves."""
        rest = sorted(self.users)
        while rest:
            key = rest.pop()
            if key in self.after:
                continue
            try:
                self.found[key] = await self._part(key)
            except (Gone, Rejected) as error:
                self.found[key] = _bare(key, self._own(key))
                self.problems[key] = f"it cannot be read at the source: {error}"
            except Transient as error:
                raise down(f"the {key[0]} '{key[1]}' could not be read", error) from error
            self.after[key] = self._needed_first(key, self.found[key])
            rest += self.after[key]

    async def _part(self, key: PartKey) -> Part:
        """As it is at the source; where that has none of its own, it is a word."""
        parts, own = self.job.source.parts, self._own(key)
        if key[0] == "collection" or parts is None or own is None:
            if key[0] == "partial":
                raise Rejected("this kind of source keeps no partials", error="no_parts")
            return _bare(key, own)
        return replace(await parts.read(key[0], own.id), slug=key[1])

    def _own(self, key: PartKey) -> Named | None:
        return find(listed(self.job.ends.source, key[0]), key[1])

    def _needed_first(self, key: PartKey, part: Part) -> tuple[PartKey, ...]:
        if key[0] == "partial":
            return mapped(self.job, part.text, self.job.ends).lacks
        parent = find(self.job.ends.source.collections, part.parent)
        if parent is None or counterpart("collection", parent, self.job.ends) != (None, ""):
            return ()
        return (("collection", parent.slug),)

    def in_order(self) -> list[Need]:
        """What is needed first comes first. Raises Stop for a circle."""
        try:
            sorter = TopologicalSorter({key: self.after[key] for key in sorted(self.after)})
            order = sorted(sorter.static_order(), key=lambda key: KINDS.index(key[0]))  # none needs one of another kind
        except CycleError as error:
            raise _circle(error.args[1]) from None
        for key in reversed(order):
            for first in self.after[key]:
                self.users.setdefault(first, set()).update(self.users.get(key, ()))
        ends = promised(self.job.ends, [Need(part=self.found[key]) for key in order])
        for key in order:
            if key not in self.problems and (why := self._why_not(key, ends)):
                self.problems[key] = why
        return [
            Need(
                part=self.found[key],
                after=self.after[key],
                prompts=len(self.users[key]),
                problem=self.problems.get(key, ""),
            )
            for key in order
        ]

    def _why_not(self, key: PartKey, ends: Ends) -> str:
        part = self.found[key]
        if failed := next((first for first in self.after[key] if first in self.problems), None):
            return f"it needs the {failed[0]} '{failed[1]}', which cannot be made"
        if key[0] == "partial":
            return "; ".join(mapped(self.job, part.text, ends).missing)
        parent = find(ends.source.collections, part.parent)
        return counterpart("collection", parent, ends)[1] if parent is not None else ""


def mapped(job: Job, text: str, ends: Ends) -> Mapped:
    """The text of a partial of the source, by the rules that hold for what is no prompt."""
    rules = [rule for rule in job.rules if rule.when == When()]
    return map_partials(text, partial_tag(job.source.can.dialect), rules, ends)


def listed(catalog: Catalog, what: str) -> Sequence[Named] | None:
    return {"collection": catalog.collections, "partial": catalog.partials, "label": catalog.labels}[what]


def _bare(key: PartKey, own: Named | None) -> Part:
    what, slug = key
    if own is None:
        return Part(what=what, id=slug, slug=slug, name=slug)
    return Part(what=what, id=own.id, slug=slug, name=own.name, parent=own.parent)


def _circle(keys: Sequence[PartKey]) -> Stop:
    names = " -> ".join(f"'{slug}'" for _, slug in reversed(keys))
    return Stop(
        "check_failed",
        f"{keys[0][0]}s name each other in a circle, so none of them can be made first: {names}",
        next="Break the circle at the source, or make these at the target by hand; then run the same command again.",
    )


# ---- what is known of them -------------------------------------------------------------------------------------------


def promised(ends: Ends, found: Iterable[Need]) -> Ends:
    """As if they had been made: with words in place of the ids and slugs that only the registry can give."""
    made = {need.key: _promise(need.key, need.part) for need in found if not need.problem}
    refused = {need.key: need.problem for need in found if need.problem}
    return replace(ends, made={**ends.made, **made}, unmade={**ends.unmade, **refused})


def rehearsed(ends: Ends, found: Iterable[Need]) -> Ends:
    """The same, and what was made already as if it were still to be: so a plan saw it that is older."""
    before = {key: Counterpart(_promise_named(key, one.named.name), one.version) for key, one in ends.made.items()}
    return replace(promised(ends, found), made={**before, **promised(ends, found).made, **before})


def _promise(key: PartKey, part: Part) -> Counterpart:
    return Counterpart(_promise_named(key, part.name), part.version)


def _promise_named(key: PartKey, name: str) -> Named:
    return Named(id=f"new:{key[1]}", slug=f"new:{key[1]}", name=name)


async def with_made(job: Job, state: State) -> Job:
    """The job with what earlier runs made and is still there, though a listing may not have it yet. Raises Stop."""
    made: dict[PartKey, Counterpart] = {}

    async def one(key: PartKey) -> None:
        record = state.parts[key]
        named = find(listed(job.ends.target, key[0]), record.target_id) or await _read(job, key, record.target_id or "")
        if named is not None:
            made[key] = Counterpart(named, record.version)

    await for_each([key for key, record in state.parts.items() if record.target_id], one, limit=job.concurrency)
    return replace(job, ends=replace(job.ends, made=made)) if made else job


async def _read(job: Job, key: PartKey, target_id: str) -> Named | None:
    try:
        part = await job.target.parts.read(key[0], target_id) if job.target.parts is not None else None
    except Rejected:
        return None
    except Transient as error:
        raise down(f"the {key[0]} '{key[1]}' that was made could not be read", error) from error
    return Named(id=part.id, slug=part.slug, name=part.name, parent=part.parent) if part is not None else None


def counted(keys: Collection[PartKey]) -> str:
    """How many of which: `3 collections, 1 label`."""
    counts: Mapping[str, int] = {what: sum(key[0] == what for key in keys) for what in KINDS}
    return ", ".join(f"{count} {what}{'s' if count > 1 else ''}" for what, count in counts.items() if count)
