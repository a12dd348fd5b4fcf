"""What a ledger says of each prompt: the fold of its entries, the same from any crash point. Pure.

A line and what a bad one means stand in `lines`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from engine.ledger.parts import PartRecord, tell_part
from engine.ledger.record import NOTHING_RARE, Doubt, Rare, Records, Said, Status, digests_of
from engine.ledger.record import Failure as Failure
from engine.ledger.record import Original as Original
from engine.ledger.record import Record as Record
from engine.model import Json, PartKey, version_ref

# ---- the fold --------------------------------------------------------------------------------------------------------

_STATUSES: Final = frozenset(get_args(Status))
_RARELY: Final = frozenset({"reason", "error", "retriable", "pending", "target_updated_at", "what"})
"""Fields of few `created` lines: those that a record remembers, and the one that tells of a part of a library."""


@dataclass(slots=True)
class State:
    """The fold of a ledger: the same from its file and from the entries that went into it."""

    records: Records = field(default_factory=Records)
    """By id of the source's prompt. What is settled is given as a copy: `fold` alone changes what is known."""
    earlier: set[str] = field(default_factory=set)
    """Ids of replicas that this migration created and that are no longer the one of their prompt."""
    gone: set[str] = field(default_factory=set)
    """Ids of replicas that were rolled back, or that have another id by now."""
    parts: dict[PartKey, PartRecord] = field(default_factory=dict)
    """What prompts refer to, where it was to be made; in the order in which that was begun."""
    identity: Mapping[str, Json] | None = None
    """What the newest run said it was, see `mismatch`; None: no run yet."""
    shard: str | None = None
    """Which part of the prompts it is about, as `0/3`; None: all of them."""
    merged: tuple[str, ...] = ()
    """Parts whose ledgers were put together in it; no longer told where a run of all prompts came behind them."""
    newest: tuple[str, ...] = ()
    """The newest run; of a merged ledger, the newest run of each."""
    rules: Json = None
    """Digest of the rules of the newest run."""
    rewrites: str | None = None
    """Digest of the part of them that decides what a replica holds."""
    runs: int = 0
    last_run: str | None = None
    throttle: dict[str, dict[str, float]] = field(default_factory=dict)
    """End -> `limit` and `latency_s` as the newest run found them that did; empty in old ledgers."""

    @property
    def targets(self) -> set[str]:
        """Ids of the prompts that this migration created and did not roll back; made anew for each caller."""
        return (self.records.replicas(ours=True) | self.earlier) - self.gone

    def fold(self, line: Mapping[str, Json]) -> None:
        """Takes a line, or an entry's fields with `ts`, `run` and `kind`; a kind it does not know changes nothing."""
        kind: Json = line.get("kind")
        if kind == "run":
            self.identity, self.rules = {part: line.get(part) for part in PARTS}, line.get("rules")
            self.rewrites, self.shard = line.get("rewrites"), line.get("shard")
            self.runs, self.last_run = self.runs + 1, line["run"]
            self.merged, self.newest = (), (line["run"],)
        elif kind == "merged":
            self.shard, self.newest = None, tuple(line["runs"])
            self.merged = tuple(shard for shard in line["shards"] if shard is not None)
        elif kind == "end":
            self._remember(line.get("throttle"))
        elif isinstance(what := line.get("what"), str):
            tell_part(self.parts, what, line)
        elif isinstance(source_id := line.get("source_id"), str):
            if kind == "moved":
                self._move(source_id, line)
            record = self.records.get(source_id)
            if kind in _STATUSES:
                record = record or Record()
                self._tell(record, kind, line)
                self.records[source_id] = record
            elif record is not None:
                self._add(record, kind, line)
                self.records[source_id] = record

    def fold_all(self, lines: Iterable[Mapping[str, Json]]) -> None:
        """Takes the lines of a whole file: the same as to `fold` each, at half the price.

        An intent to create that a `created` follows leaves no trace, and both together are nearly all of a ledger.
        """
        intents: dict[str, Mapping[str, Json]] = {}
        for line in lines:
            source_id = line.get("source_id")
            if line.get("kind") != "created" or not isinstance(source_id, str):
                self._hold_or_fold(line, intents)
                continue
            intents.pop(source_id, None)
            if not self.make_first(source_id, line):
                self.fold(line)
        for line in intents.values():
            self.fold(line)

    def _hold_or_fold(self, line: Mapping[str, Json], intents: dict[str, Mapping[str, Json]]) -> None:
        """Puts an intent to create to the others that are held; of anything else the prompt's intent was not settled by
        a create, and goes before it.
        """
        kind, source_id = line.get("kind"), line.get("source_id")
        if not isinstance(source_id, str) or isinstance(line.get("what"), str):
            self.fold(line)
            return
        for held in [*intents] if kind == "moved" else [source_id] if source_id in intents else ():
            self.fold(intents.pop(held))
        if kind == "intent" and line.get("op") == "create":
            intents[source_id] = line
        else:
            self.fold(line)

    def make_first(self, source_id: str, line: Mapping[str, Json]) -> bool:
        """Of an ordinary `created` that is the first thing known of its prompt, what `fold` would make of it; no record
        is made on the way. False, and nothing done, where it is something else.
        """
        target_id, run, get = line.get("target_id"), sys.intern(line["run"]), line.get
        source, replica = get("source_digest"), get("replica_digest")
        if not isinstance(target_id, str) or not line.keys().isdisjoint(_RARELY):
            return False
        said: Said = ("created", run, False, None, self.rewrites, run, True)
        digests = digests_of(source, replica) if source and replica else None
        first = self.records.settle_first(source_id, said, target_id, get("source_updated_at"), digests)
        if first:
            self.gone.discard(target_id)
        return first

    def _remember(self, throttle: Json) -> None:
        for end, found in throttle.items() if isinstance(throttle, dict) else ():
            known = {name: found.get(name) for name in ("limit", "latency_s")} if isinstance(found, dict) else {}
            for name, value in known.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                    self.throttle.setdefault(end, {})[name] = float(value)

    def _move(self, source_id: str, line: Mapping[str, Json]) -> None:
        """A prompt has another id, or its replica has. What is known of it stays."""
        record, target_id = self.records.pop(str(line.get("was")), None), line.get("target_id")
        if record is None:
            return
        if (replaced := self.records.get(source_id)) is not None:
            self._point(replaced, None)
        if self._is_ours(record, record.target_id) and isinstance(target_id, str):
            self.gone.add(str(record.target_id))
            record.target_id = target_id
            self.gone.discard(target_id)
        self.records[source_id] = record

    def _point(self, record: Record, target_id: str | None, *, created: bool = False) -> None:
        """That is its replica now; an earlier one that is ours stays ours."""
        if record.ours and record.target_id is not None and record.target_id != target_id:
            self.earlier.add(record.target_id)
        record.ours = target_id is not None and (created or self._is_ours(record, target_id))
        record.target_id = target_id
        if created and target_id is not None:
            self.gone.discard(target_id)

    def _is_ours(self, record: Record, target_id: str | None) -> bool:
        """Whether this migration created that replica, which is or was the one of this prompt, and it is there."""
        created = (record.ours and record.target_id == target_id) or target_id in self.earlier
        return created and target_id not in self.gone

    def _tell(self, record: Record, kind: Status, line: Mapping[str, Json]) -> None:
        match kind:
            case "intent":
                self._intend(record, line)
            case "unknown":
                self._doubt(record, line)
            case "created" | "updated":
                self._make(record, kind, line)
            case "unchanged":
                self._compare(record, line)
            case "skipped" | "conflict" | "failed":
                self._settle(record, kind, line)
            case "rolled_back":
                self._roll_back(record, line)

    def _intend(self, record: Record, line: Mapping[str, Json]) -> None:
        if record.made and line.get("op") != "update":
            return  # a created line is the last word on a create
        self._say(record, "intent", line)
        record.doubt = Doubt(line.get("name"), line["ts"], line.get("attempt") or 0)
        if line.get("op") == "update":
            self._point(record, record.target_id or line.get("target_id"))
            doubt = record.doubt
            doubt.base, doubt.expected = version_ref(line.get("base_version")), line.get("replica_digest")
            doubt.original, doubt.published = _original(record, line), version_ref(line.get("before_version"))

    def _doubt(self, record: Record, line: Mapping[str, Json]) -> None:
        if record.made and not record.doubtful and line.get("op") != "update":
            return
        self._say(record, "unknown", line)
        if record.doubt is None or not record.doubt.ts:
            record.doubt = Doubt(ts=line["ts"])

    def _make(self, record: Record, kind: Literal["created", "updated"], line: Mapping[str, Json]) -> None:
        self._say(record, kind, line)
        self._point(record, line.get("target_id"), created=kind == "created")
        if kind == "created":
            record.rare = NOTHING_RARE
        self._see(record, line)
        if line.get("pending"):
            _rare(record).pending = True
        if kind == "updated":
            self._stage(record, line)

    def _stage(self, record: Record, line: Mapping[str, Json]) -> None:
        before, after, source = (
            version_ref(line.get(name)) for name in ("before_version", "after_version", "source_version")
        )
        if after is not None:
            _rare(record).staged = None if line.get("published") or before == after else (before, after)
            if source is not None:
                _rare(record).versions[source] = after
        if line.get("target_id") == line.get("source_id"):
            _rare(record).original = _original(record, line)

    def _compare(self, record: Record, line: Mapping[str, Json]) -> None:
        """It was looked at and nothing was to be done; what was made stays of the run that made it."""
        if record.made:
            run = record.run
            self._say(record, "created" if self._is_ours(record, record.target_id) else "updated", line)
            record.run = run
        else:
            self._say(record, "unchanged", line)
        self._see(record, line)
        if line.get("edited"):
            _rare(record).edited = True

    def _see(self, record: Record, line: Mapping[str, Json]) -> None:
        """What it was compared with."""
        record.updated_at = line.get("source_updated_at")
        record.rules = self.rewrites
        source, replica = line.get("source_digest"), line.get("replica_digest")
        if source and replica:
            record.remember(source, replica)
        if record.rare is not NOTHING_RARE:
            record.rare.edited = record.rare.pending = False
            record.rare.target_updated_at = None
        if (seen := line.get("target_updated_at")) is not None:
            _rare(record).target_updated_at = seen

    def _settle(self, record: Record, kind: Status, line: Mapping[str, Json]) -> None:
        if not record.made or record.doubtful or line.get("op") == "update":
            self._say(record, kind, line)  # of what is there already, this speaks of an update that had no effect
            if kind == "failed":
                record.failure = Failure(self.rewrites, line.get("source_updated_at"), line.get("source_digest"))

    def _roll_back(self, record: Record, line: Mapping[str, Json]) -> None:
        target_id = line.get("target_id") or record.target_id
        if line.get("result") == "kept":
            return
        if record.rare is not NOTHING_RARE:
            record.rare.staged = None
        if line.get("result") == "restored" and line.get("source_digest"):  # back to what an earlier run made
            self._say(record, "created" if self._is_ours(record, target_id) else "updated", line)
            self._see(record, line)
            record.updated_at = record.rules = None  # the next run compares it, whatever the rules are then
            return
        if target_id is not None:
            self.gone.add(target_id)
        if record.target_id == target_id:  # not an earlier replica of the same prompt
            self._say(record, "rolled_back", line)
            record.target_id = record.updated_at = record.digests = None
            record.ours = False
            record.rare = NOTHING_RARE

    def _add(self, record: Record, kind: Json, line: Mapping[str, Json]) -> None:
        """Lines that say more of what is made."""
        source, target = version_ref(line.get("source_version")), version_ref(line.get("target_version"))
        if kind == "version" and source is not None and target is not None:
            _rare(record).versions[source] = target
            if record.doubtful and record.made:  # the update in doubt was this one
                record.status = "created" if self._is_ours(record, record.target_id) else "updated"
        elif kind == "published" and line.get("result") in ("published", "already"):
            _rare(record).staged = None
        elif kind == "finished" and record.made:
            status: Status = "created" if self._is_ours(record, record.target_id) else "updated"
            self._say(record, record.status if record.status in ("created", "updated") else status, line)
            if line.get("replica_digest"):
                self._see(record, line)
            elif record.rare is not NOTHING_RARE:
                record.rare.pending = False

    def _say(self, record: Record, status: Status, line: Mapping[str, Json]) -> None:
        record.status = status
        record.run = sys.intern(line["run"])  # a million records share a handful of runs and reasons
        reason = line.get("reason") or line.get("error")
        record.reason = sys.intern(str(reason)) if reason else None
        record.retriable = bool(line.get("retriable"))
        record.failure = None
        if status != "intent":
            record.told = record.run
        if status in ("created", "updated"):
            record.doubt = None


def _original(record: Record, line: Mapping[str, Json]) -> Original:
    """What an update began with; where it began with what an earlier one had renamed, the name from before that."""
    name, collection = line.get("before_name"), line.get("before_collection")
    if (earlier := record.rare.original) is not None and earlier.renamed == name:
        name, collection = earlier.name, earlier.collection
    return Original(version_ref(line.get("source_version")), name, collection, line.get("name"))


def _rare(record: Record) -> Rare:
    """The record's own, to be changed."""
    if record.rare is NOTHING_RARE:
        record.rare = Rare()
    return record.rare


# ---- whose ledger it is ----------------------------------------------------------------------------------------------

PARTS: Final = {
    "migration": "the name of the migration",
    "mode": "the mode",
    "source": "the source (kind, base_url or workspace)",
    "target": "the target (kind, base_url or workspace)",
    "selects": "select.version",
}


def mismatch(recorded: Mapping[str, str], wanted: Mapping[str, str]) -> str | None:
    """The first part in which the ledger's migration is not the wanted one, with both values; None: it is the same."""
    for part, words in PARTS.items():
        if recorded.get(part) != wanted.get(part):
            return f"{words} is {recorded.get(part)!r} there and {wanted.get(part)!r} here"
    return None
