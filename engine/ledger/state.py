"""What a ledger says of each prompt: the fold of its entries, the same from any crash point. Pure.

A line and what a bad one means stand in `lines`.
"""

from __future__ import annotations

import sys
from binascii import unhexlify
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, get_args

from engine.ledger.parts import PartRecord, seconds, tell_part
from engine.model import Json, PartKey, version_ref

# ---- the fold --------------------------------------------------------------------------------------------------------

Status = Literal["intent", "unknown", "created", "updated", "unchanged", "skipped", "conflict", "failed", "rolled_back"]
_STATUSES: Final = frozenset(get_args(Status))
_DIGEST: Final = 32
"""Hex digits of a digest that are remembered: enough to tell contents apart, and half the memory."""


class Original(NamedTuple):
    """A prompt that was changed in place, as it was before us: its version, and what a prompt has only once."""

    version: str | None
    name: str | None
    collection: str | None
    renamed: str | None
    """The name that we gave it."""


@dataclass(slots=True)
class Doubt:
    """The last intent of a prompt, and what became of it so far."""

    name: str | None = None
    ts: str = ""
    attempt: int = 0
    base: str | None = None
    """Of an update: the newest version that was there before it."""
    expected: str | None = None
    """Digest of what it was to make."""
    original: Original | None = None
    published: str | None = None
    """Of an update: the version that was published before it."""


@dataclass(slots=True, unsafe_hash=True)  # only so that one of them may be everybody's default
class Rare:
    """What few records have."""

    target_updated_at: str | None = None
    """The replica's time of change when it was last seen to be as we made it."""
    edited: bool = False
    """Somebody edited the replica by hand, and its source had not changed."""
    pending: bool = False
    """It is there, and its labels or the rest of its history are not yet."""
    staged: tuple[str | None, str] | None = None
    """The version that is published, and the newer one of ours that is not yet."""
    original: Original | None = None
    versions: dict[str, str] = field(default_factory=dict)
    """The source's version -> the replica's: of a whole history, and of updates."""


_NOTHING_RARE: Final = Rare()


class Failure(NamedTuple):
    """What a prompt failed with: it is worth another try when one of these has changed. None: not known."""

    rules: str | None
    """Digest of the rewrite."""
    updated_at: str | None
    """The source's time of change."""
    digest: str | None
    """Of the source."""


@dataclass(slots=True)
class Record:
    """What the ledger knows of one prompt of the source."""

    status: Status = "intent"
    target_id: str | None = None
    """Its replica, or in mode update the prompt itself; None: nothing was written."""
    run: str = ""
    """The run that said so."""
    retriable: bool = False
    reason: str | None = None
    """Why it was skipped or is in conflict, or the error."""
    updated_at: str | None = None
    """The source's time of change when it was last compared; None: compare it again."""
    rules: str | None = None
    """Digest of the rewrite under which it was last compared."""
    digests: bytes | None = None
    """Of the source that it was made from and of the replica as it was made, half of each."""
    doubt: Doubt | None = None
    rare: Rare = _NOTHING_RARE
    told: str = ""
    """The run that last said what became of it; of what was compared and found the same, not the one that made it."""
    failure: Failure | None = None

    @property
    def doubtful(self) -> bool:
        """Something was sent, or was about to be, and nobody knows what became of it."""
        return self.status in ("intent", "unknown")

    @property
    def made(self) -> bool:
        """It is on the target, whatever became of later updates."""
        return self.target_id is not None

    @property
    def name(self) -> str | None:
        """The replica's name, while in doubt."""
        return self.doubt.name if self.doubt is not None and self.doubtful else None

    @property
    def since(self) -> float:
        """When its last intent was written, in epoch seconds, while in doubt."""
        return seconds(self.doubt.ts) if self.doubt is not None and self.doubt.ts and self.doubtful else 0.0

    @property
    def attempt(self) -> int:
        """Of the last intent."""
        return self.doubt.attempt if self.doubt is not None else 0

    def was_made_from(self, source_digest: str | None) -> bool:
        """Whether this is the content that the replica was made from."""
        return source_digest is not None and self._half(0) == source_digest[:_DIGEST]

    def was_made_as(self, replica_digest: str | None) -> bool:
        """Whether this is the content that was written."""
        return replica_digest is not None and self._half(1) == replica_digest[:_DIGEST]

    def _half(self, which: int) -> str | None:
        if self.digests is None:
            return None
        size = _DIGEST // 2
        return self.digests[which * size : (which + 1) * size].hex()


@dataclass(slots=True)
class State:
    """The fold of a ledger: the same from its file and from the entries that went into it."""

    records: dict[str, Record] = field(default_factory=dict)
    """By id of the source's prompt."""
    targets: set[str] = field(default_factory=set)
    """Ids of the prompts that this migration created and did not roll back."""
    parts: dict[PartKey, PartRecord] = field(default_factory=dict)
    """What prompts refer to, where it was to be made; in the order in which that was begun."""
    identity: Mapping[str, Json] | None = None
    """What the newest run said it was, see `mismatch`; None: no run yet."""
    rules: Json = None
    """Digest of the rules of the newest run."""
    rewrites: str | None = None
    """Digest of the part of them that decides what a replica holds."""
    runs: int = 0
    last_run: str | None = None
    throttle: dict[str, dict[str, float]] = field(default_factory=dict)
    """End -> `limit` and `latency_s` as the newest run found them that did; empty in old ledgers."""

    def fold(self, line: Mapping[str, Json]) -> None:
        """Takes a line, or an entry's fields with `ts`, `run` and `kind`; a kind it does not know changes nothing."""
        kind: Json = line.get("kind")
        if kind == "run":
            self.identity, self.rules = {part: line.get(part) for part in PARTS}, line.get("rules")
            self.rewrites = line.get("rewrites")
            self.runs, self.last_run = self.runs + 1, line["run"]
        elif kind == "end":
            self._remember(line.get("throttle"))
        elif isinstance(what := line.get("what"), str):
            tell_part(self.parts, what, line)
        elif isinstance(source_id := line.get("source_id"), str):
            if kind == "moved":
                self._move(source_id, line)
            record = self.records.get(source_id)
            if kind in _STATUSES:
                if record is None:
                    record = self.records[source_id] = Record()
                self._tell(record, kind, line)
            elif record is not None:
                self._add(record, kind, line)

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
        self.records[source_id] = record
        if record.target_id in self.targets and isinstance(target_id, str):
            self.targets.remove(record.target_id)
            self.targets.add(target_id)
            record.target_id = target_id

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
            record.target_id = record.target_id or line.get("target_id")
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
        record.target_id = line.get("target_id")
        if kind == "created":
            record.rare = _NOTHING_RARE
            if record.target_id is not None:
                self.targets.add(record.target_id)
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
            self._say(record, "created" if record.target_id in self.targets else "updated", line)
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
            record.digests = unhexlify(source[:_DIGEST] + replica[:_DIGEST])
        if record.rare is not _NOTHING_RARE:
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
        if record.rare is not _NOTHING_RARE:
            record.rare.staged = None
        if line.get("result") == "restored" and line.get("source_digest"):  # back to what an earlier run made
            self._say(record, "created" if target_id in self.targets else "updated", line)
            self._see(record, line)
            record.updated_at = record.rules = None  # the next run compares it, whatever the rules are then
            return
        if target_id is not None:
            self.targets.discard(target_id)
        if record.target_id == target_id:  # not an earlier replica of the same prompt
            self._say(record, "rolled_back", line)
            record.target_id = record.updated_at = record.digests = None
            record.rare = _NOTHING_RARE

    def _add(self, record: Record, kind: Json, line: Mapping[str, Json]) -> None:
        """Lines that say more of what is made."""
        source, target = version_ref(line.get("source_version")), version_ref(line.get("target_version"))
        if kind == "version" and source is not None and target is not None:
            _rare(record).versions[source] = target
            if record.doubtful and record.made:  # the update in doubt was this one
                record.status = "created" if record.target_id in self.targets else "updated"
        elif kind == "published" and line.get("result") in ("published", "already"):
            _rare(record).staged = None
        elif kind == "finished" and record.made:
            status: Status = "created" if record.target_id in self.targets else "updated"
            self._say(record, record.status if record.status in ("created", "updated") else status, line)
            if line.get("replica_digest"):
                self._see(record, line)
            elif record.rare is not _NOTHING_RARE:
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
    if record.rare is _NOTHING_RARE:
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
