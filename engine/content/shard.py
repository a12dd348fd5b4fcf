"""Whose a prompt is when several machines share one migration: shard I of N, from 0. Pure.

A prompt belongs to the shard that the first 8 bytes of the SHA-256 of its source id come to (UTF-8, big-endian, modulo
N): the same on every machine, in every version, and for anybody who works it out elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

_WRITTEN: Final = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")
_NAMED: Final = re.compile(r"\.[0-9]+-of-[0-9]+(?=\.[^.]*$|$)")
_COMMAND: Final = re.compile(r"`promptferry (?:plan|status|ids|verify|publish|rollback)\b[^`]*")
"""The commands that take --shard."""


def shard_of(source_id: str, count: int) -> int:
    """The number of its shard, of so many."""
    digest = sha256(source_id.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") % count


@dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` parts; `index` is from 0."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, source_id: str) -> bool:
        """Whether this prompt is one of its own."""
        return shard_of(source_id, self.count) == self.index

    def ledger_name(self, name: str) -> str:
        """Of its own ledger, where the whole migration has this one: `NAME.0-of-3.jsonl` beside `NAME.jsonl`."""
        stem, dot, ending = name.rpartition(".")
        own = f"{self.index}-of-{self.count}"
        return f"{stem}.{own}{dot}{ending}" if stem else f"{name}.{own}"

    def said(self, sentence: str) -> str:
        """The same with --shard in the commands that it names."""
        return _COMMAND.sub(lambda command: f"{command[0]} --shard {self}", sentence)


def shard_from(text: str) -> Shard:
    """From `I/N`. Raises ValueError."""
    if (match := _WRITTEN.fullmatch(text)) is None:
        raise ValueError("must be I/N, such as 0/4 for the first of four")
    shard = Shard(int(match[1]), int(match[2]))
    if not shard.count:
        raise ValueError("there must be one shard at least, such as 0/1")
    if shard.index >= shard.count:
        raise ValueError(f"shards are counted from 0, so the last of {shard.count} is {shard.count - 1}/{shard.count}")
    return shard


def names_a_shard(name: str) -> bool:
    """Whether the name of a ledger says whose it is."""
    return _NAMED.search(name) is not None


def whole_name(name: str) -> str:
    """The name of the whole migration's ledger, from that of one of its shards or from itself."""
    return _NAMED.sub("", name)
