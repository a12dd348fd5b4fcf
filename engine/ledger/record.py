"""What the ledger knows of one prompt, and of a million of them. Pure."""

from __future__ import annotations

from binascii import unhexlify
from collections.abc import Iterable
from dataclasses import dataclass, field
from marshal import loads
from typing import Final, Literal, NamedTuple, TypeGuard

from engine.ledger.parts import seconds
from engine.model.packed import Fields, Form, PackedDict, packed, packed_key

Status = Literal["intent", "unknown", "created", "updated", "unchanged", "skipped", "conflict", "failed", "rolled_back"]
DOUBTFUL: Final = frozenset({"intent", "unknown"})
"""What is said of a prompt of which nobody knows what became of it."""
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


NOTHING_RARE: Final = Rare()


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
    rare: Rare = NOTHING_RARE
    told: str = ""
    """The run that last said what became of it; of what was compared and found the same, not the one that made it."""
    failure: Failure | None = None
    ours: bool = field(default=False, compare=False)
    """Its replica was created by this migration."""

    @property
    def doubtful(self) -> bool:
        """Something was sent, or was about to be, and nobody knows what became of it."""
        return self.status in DOUBTFUL

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

    def remember(self, source_digest: str, replica_digest: str) -> None:
        """What it was made from and as."""
        self.digests = digests_of(source_digest, replica_digest)

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


def digests_of(source_digest: str, replica_digest: str) -> bytes:
    """What is remembered of both."""
    return unhexlify(source_digest[:_DIGEST] + replica_digest[:_DIGEST])


# ---- a million of them -----------------------------------------------------------------------------------------------

Said = tuple[Status, str, bool, str | None, str | None, str, bool]
"""status, run, retriable, reason, rules, told, ours: a million records share a handful of these."""


class Records(PackedDict[Record]):
    """Records by id of the source's prompt. What is settled is packed, and given as a copy; what is in doubt, failed or
    rare stays whole.
    """

    def __init__(self, values: Iterable[tuple[str, Record]] = ()) -> None:
        self._said: list[Said] = []
        self._numbers: dict[Said, int] = {}
        super().__init__(Form(self._flat, self._whole), values)

    def settle_first(
        self, source_id: str, said: Said, target_id: str | None, updated_at: str | None, digests: bytes | None
    ) -> bool:
        """Puts a record that has no more than this, without making it; False, and none put, where there is one."""
        key = packed_key(source_id)
        if key in self._values:
            return False
        self._values[key] = packed((self._number(said), target_id, updated_at, digests))
        return True

    def said_of(self, source_id: str) -> tuple[Status, str] | None:
        """What was last said of this prompt, and the run that did; no record is made for the answer."""
        value = self._values.get(packed_key(source_id))
        if type(value) is bytes:
            said = self._said[loads(value)[0]]
            return said[0], said[1]
        return None if value is None else (value.status, value.run)  # type: ignore[union-attr]

    def reason_of(self, source_id: str) -> str | None:
        """Why, as it was last said; no record is made for the answer."""
        value = self._values.get(packed_key(source_id))
        if value is None or not isinstance(value, bytes):
            return None if value is None else value.reason
        said: Said = self._said[loads(value)[0]]
        return said[3]

    def is_made(self, source_id: str) -> bool:
        """Whether this prompt has a replica, see `Record.made`; no record is made for the answer."""
        value = self._values.get(packed_key(source_id))
        return value is not None and _is_made(value)

    def replicas(self, *, ours: bool = False) -> set[str]:
        """Ids of all that these prompts have, or of those that this migration created; no records are made for it."""
        wanted = [not ours or said[-1] for said in self._said]
        found = {
            target_id
            for number, target_id, *_ in map(loads, filter(_is_packed, self._values.values()))
            if wanted[number] and target_id is not None
        }
        rest = (record for _, record in self.whole_items() if record.ours or not ours)
        return found.union(record.target_id for record in rest if record.target_id is not None)

    def made_beside(self, source_ids: Iterable[str]) -> int:
        """How many prompts that are none of these have a replica."""
        if not self._values:  # nobody goes through a whole library for that
            return 0
        others = set(self._values)
        others.difference_update(map(packed_key, source_ids))
        return sum(_is_made(self._values[key]) for key in others)

    def _flat(self, record: Record) -> Fields | None:
        if record.doubt is not None or record.failure is not None or record.rare is not NOTHING_RARE or record.doubtful:
            return None
        said = (
            record.status, record.run, record.retriable, record.reason, record.rules, record.told, record.ours
        )  # fmt: skip
        return self._number(said), record.target_id, record.updated_at, record.digests

    def _number(self, said: Said) -> int:
        number = self._numbers.setdefault(said, len(self._said))
        if number == len(self._said):
            self._said.append(said)
        return number

    def _whole(self, fields: Fields) -> Record:
        number, target_id, updated_at, digests = fields
        status, run, retriable, reason, rules, told, ours = self._said[number]
        return Record(status, target_id, run, retriable, reason, updated_at, rules, digests, told=told, ours=ours)


def _is_packed(value: bytes | Record) -> TypeGuard[bytes]:
    return type(value) is bytes


def _is_made(value: bytes | Record) -> bool:
    return loads(value)[1] is not None if isinstance(value, bytes) else value.made
