"""Proves a migration: every replica is read back and compared, field by field, with what the rules make of its source.

What a registry makes of a prompt by itself is no difference: the model is set alike in both places, a provider named by
its id comes back by its slug, nulls and empty values are left out, 1.0 comes back as 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import anyio

from engine.content.digest import differences, digest, read_mark
from engine.content.selection import find
from engine.errors import Gone, Rejected, Transient
from engine.ledger.writes import Writes
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job, prepare
from engine.migrate.listing import rows_of
from engine.migrate.lookup import look_up
from engine.migrate.task import Prepared
from engine.model import Completion, Entry, Failed, Gateway, Json, Mark, Prompt, version_ref
from engine.taskgroup import for_each
from engine.verbs import completions, render
from engine.verbs.cases import Case, cases_for

RESULTS: Final = ("same", "differs", "missing", "source_changed")
STALE_S: Final = 10.0
"""Reads may be stale for so long after a write."""
GONE: Final = "its source is gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found of one replica. `fields`: names of what differs; `notes`: why something could not be compared."""

    source_id: str
    name: str
    target_id: str
    result: str
    fields: Sequence[str] = ()
    notes: Sequence[str] = ()
    completions: Sequence[Completion] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """All of it. `none_taken`: that the flags take none of what was written; where they do, nothing."""

    prompts: Sequence[Verified]
    counts: Mapping[str, int]
    notes: Sequence[str] = ()
    none_taken: Sequence[str] = ()

    @property
    def different(self) -> bool:
        """Some replica differs or is missing."""
        return bool(self.counts["differs"] or self.counts["missing"])

    @property
    def proved(self) -> bool:
        """No replica differs or is missing, and somebody looked."""
        return not self.different and not self.none_taken

    def beside(self, same: int) -> Verification:
        """With so many more that were found the same before."""
        return replace(self, counts={**self.counts, "same": self.counts["same"] + same})

    def to_json(self) -> dict[str, Any]:
        """The object of `verify --json`."""
        return {"prompts": [asdict(one) for one in self.prompts], "counts": self.counts, "notes": self.all_notes}

    @property
    def all_notes(self) -> Sequence[str]:
        """What there is to say besides."""
        return (*self.none_taken, *self.notes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What is done besides reading back. `source`, `target`: where prompts are rendered and called."""

    source: Gateway | None = None
    target: Gateway | None = None
    render: bool = False
    completions: int = 0
    """How many replicas are called."""
    cases: Sequence[Case] = ()
    variables: Mapping[str, Json] = field(default_factory=dict)

    @property
    def calls(self) -> bool:
        """Whether it takes a gateway."""
        return self.render or self.completions > 0


async def verify(
    job: Job, context: Context, pairs: Sequence[Writes], checks: Checks, *, clock: Callable[[], float]
) -> Verification:
    """Compares each pair and records what it finds. `clock`: epoch seconds. Raises Stop."""
    called = _called(pairs, checks)
    doubled = await _doubled(job, pairs, context)
    found: dict[str, Verified] = {}

    async def one(made: Writes) -> None:
        case = _Pair(job, made, checks, clock)
        verified = await case.verified(call=made.target_id in called, second=doubled.get(made.source_id, ()))
        found[made.source_id] = verified
        await context.record(_entry(made, verified))

    await for_each(pairs, one, limit=job.concurrency)
    prompts = [found[made.source_id] for made in pairs]
    counts = Counter(one.result for one in prompts)
    return Verification(prompts=prompts, counts={name: counts[name] for name in RESULTS}, notes=_notes(prompts))


def _entry(made: Writes, verified: Verified) -> Entry:
    more = {"completions": [asdict(one) for one in verified.completions]} if verified.completions else {}
    return entries.verified(made.origin, verified.target_id, verified.result, verified.fields, **more)


def _notes(prompts: Sequence[Verified]) -> tuple[str, ...]:
    return tuple(f"{one.name}: {note}" for one in prompts for note in one.notes)


def _called(pairs: Sequence[Writes], checks: Checks) -> set[str]:
    if not checks.completions:
        return set()
    models = [(made.target_id, made.last.get("model")) for made in pairs if made.writes]
    return set(completions.spread(models, checks.completions))


async def _doubled(job: Job, pairs: Sequence[Writes], context: Context) -> dict[str, list[str]]:
    """Source id -> further replicas of it: a create that landed after it had been given up."""
    if job.in_place or not pairs:
        return {}
    rows, _ = await rows_of(job.target)
    names = {str(made.last.get("name")) for made in pairs if made.writes}
    keys = {job.key(made.source_id): made.source_id for made in pairs}
    found = await look_up(job, names, lambda: keys.keys(), rows, context.state.targets)
    return {keys[key]: [match.row.id for match in matches] for key, matches in found.ours.items() if key in keys}


@dataclass(frozen=True, slots=True)
class _Pair:
    """One prompt and its replica."""

    job: Job
    made: Writes
    checks: Checks
    clock: Callable[[], float]

    async def verified(self, *, call: bool, second: Sequence[str]) -> Verified:
        """What is to be said of it."""
        made = self.made
        if not made.writes:
            return self._says("differs", ["unknown"], ["its update is in doubt: run the migration again first"])
        try:
            verified = await self._compared()
            if verified.result != "missing":
                verified = await self._used(verified, call=call)
        except (Rejected, Transient) as error:
            return self._says("differs", ["unreadable"], [str(error)])
        if second:
            fields = [*verified.fields, *(f"second replica {target_id}" for target_id in second)]
            return replace(verified, result="differs", fields=fields)
        return verified

    # ---- reading back ------------------------------------------------------------------------------------------------

    async def _compared(self) -> Verified:
        """Polled until it is as it should be, or reads cannot be stale any more."""
        try:
            source: Prompt | None = await self._source()
        except Gone:
            source = None
        written = datetime.fromisoformat(self.made.last["ts"]).timestamp()
        wait = 0.25
        while True:
            verified = await (self._once(source) if source is not None else self._alone())
            settled = verified.result in ("same", "source_changed") or not self.job.target.can.asked
            if settled or self.clock() + wait > written + STALE_S:
                return verified
            await anyio.sleep(wait)
            wait *= 2

    async def _source(self) -> Prompt:
        made = self.made
        if self.job.in_place:  # what was there before us
            return await self.job.source.fetch(made.source_id, str(made.writes[0].get("source_version")))
        return await self.job.source.fetch(made.source_id, self.job.select.speaking)

    async def _once(self, source: Prompt) -> Verified:
        made, job = self.made, self.job
        staged = job.in_place or made.staged is not None
        try:
            replica = await job.target.fetch(made.target_id, (made.version if staged else None) or "published")
        except Gone:
            return self._says("missing", ["deleted"])
        fields = self._fields(source, replica)
        changed = digest(source) != made.last.get("source_digest") and not job.in_place
        if changed and fields:
            return await self._against_the_version_copied(source, replica, fields)
        if not fields and job.select.version == "all":
            fields = await self._history()
        fields += await self._doubled_versions()
        return self._says("differs" if fields else "same", fields)

    @property
    def _gone(self) -> str:
        label = self.job.select.label
        return GONE if label is None else f"{GONE}, or no version of it carries the label {label!r} any more"

    async def _alone(self) -> Verified:
        """Its source is gone: the replica is judged by what the ledger says was written."""
        try:
            replica = await self.job.target.fetch(self.made.target_id)
        except Gone:
            return self._says("missing", ["deleted"], [self._gone])
        if digest(replica) != self.made.last.get("replica_digest"):
            return self._says("differs", ["edited"], [self._gone])
        return self._says("source_changed", ["deleted"], [self._gone])

    async def _against_the_version_copied(self, source: Prompt, replica: Prompt, now: Sequence[str]) -> Verified:
        """The source changed since: the replica is judged by what it was made from, as far as that is still there."""
        version = version_ref(self.made.last.get("source_version"))
        if digest(replica) == self.made.last.get("replica_digest"):
            return self._says("source_changed", now)
        try:
            before = await self.job.source.fetch(self.made.source_id, version) if version is not None else source
        except Gone:
            before = source
        fields = [name for name in self._fields(before, replica) if name not in self._unknown_by_now(before)]
        if replica.name != self.made.last.get("name"):
            fields.insert(0, "name")
        return self._says("differs", fields) if fields else self._says("source_changed", now)

    def _unknown_by_now(self, before: Prompt) -> set[str]:
        """What has no versions: an earlier version of the source comes with its present name and collection."""
        home = find(self.job.ends.source.collections, before.collection)
        here = home.slug if home is not None else before.collection
        return {"name"} if self.made.last.get("source_collection") == here else {"name", "collection"}

    async def _history(self) -> list[str]:
        """Of every version: `string (version 3)`."""
        fields = []
        for source_version, target_version in self.made.versions.items():
            source = await self.job.source.fetch(self.made.source_id, source_version)
            try:
                replica = await self.job.target.fetch(self.made.target_id, target_version)
            except Gone:
                fields.append(f"deleted (version {source_version})")
                continue
            fields += [f"{name} (version {source_version})" for name in self._fields(source, replica)]
        return fields

    async def _doubled_versions(self) -> list[str]:
        """Where a create appends, one that landed twice: a version of ours that holds what the one before it holds."""
        target, target_id = self.job.target, self.made.target_id
        if target.can.taken != "appends" or self.job.in_place:
            return []
        versions = await target.versions(target_id)
        found = [await target.fetch(target_id, version.ref) for version in versions] if len(versions) > 1 else []
        ours = [(digest(one), self._is_its_mark(read_mark(one.metadata, one.description))) for one in found]
        pairs = zip(found[1:], pairwise(ours), strict=True) if found else ()
        return [f"second version {one.version}" for one, (before, it) in pairs if it[1] and before == it]

    def _fields(self, source: Prompt, replica: Prompt) -> list[str]:
        prepared = self._draft(source)
        if isinstance(prepared, Failed):
            return [f"cannot be rewritten: {prepared.message}"]
        fields = list(differences(prepared.replica.prompt, replica))
        if "provider" in fields and self._same_provider(prepared.replica.prompt.provider, replica.provider):
            fields.remove("provider")
        mark = read_mark(replica.metadata, replica.description)
        return fields if self.job.in_place or self._is_its_mark(mark) else [*fields, "mark"]

    def _is_its_mark(self, mark: Mark | None) -> bool:
        """Also the mark of an earlier id, where the same prompt may have had another one."""
        job = self.job
        return mark is not None and (
            mark.key == job.key(self.made.source_id) or (job.source.can.moves and job.made(mark))
        )

    def _draft(self, source: Prompt) -> Prepared | Failed:
        name = str(self.made.last.get("name")) if self.job.on_existing == "rename" else None
        return prepare(self.job, source, name=name)

    def _same_provider(self, wanted: str | None, found: str | None) -> bool:
        """Sent as id, it comes back as slug."""
        known = find(self.job.ends.target.providers, wanted)
        return known is not None and known.slug == found

    # ---- rendering and calling ---------------------------------------------------------------------------------------

    async def _used(self, verified: Verified, *, call: bool) -> Verified:
        checks, made = self.checks, self.made
        if not (checks.render or call) or checks.source is None or checks.target is None:
            return verified
        try:
            source = await self._source()
        except Gone:  # that has been said
            return verified
        replica_ref = self._reference()
        cases = cases_for(source, checks.cases, checks.variables)
        prepared = self._draft(source)
        if checks.render:
            may_differ = render.may_differ_of(prepared.rewritten) if isinstance(prepared, Prepared) else frozenset()
            before = self._source_reference(source)
            rendered = await render.compare(checks.source, checks.target, before, replica_ref, cases, may_differ)
            verified = _with(verified, rendered.fields, rendered.problem)
        if call:
            parameters = (prepared.replica.prompt if isinstance(prepared, Prepared) else source).parameters
            done = await completions.call(checks.target, made.target_id, made.version, cases[0].variables, parameters)
            verified = replace(_with(verified, completions.differs(done), None), completions=done)
        return verified

    def _reference(self) -> str:
        """How the replica is called in the version that was written."""
        staged = self.made.staged
        return f"{self.made.target_id}@{staged}" if staged is not None else self.made.target_id

    def _source_reference(self, source: Prompt) -> str:
        if (self.job.in_place or self.job.select.label is not None) and source.version is not None:
            return f"{source.id}@{source.version}"
        return f"{source.id}@latest" if self.job.select.version == "latest" else source.id

    def _says(self, result: str, fields: Sequence[str] = (), notes: Sequence[str] = ()) -> Verified:
        made = self.made
        return Verified(
            source_id=made.source_id,
            name=made.name,
            target_id=made.target_id,
            result=result,
            fields=list(fields),
            notes=list(notes),
        )


def _with(verified: Verified, fields: Sequence[str], problem: str | None) -> Verified:
    result = "differs" if fields and verified.result == "same" else verified.result
    notes = [*verified.notes, problem] if problem else verified.notes
    return replace(verified, result=result, fields=[*verified.fields, *fields], notes=notes)
