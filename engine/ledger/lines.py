"""One line of the ledger: its form, its checksum, the chain that holds lines together, and what a bad one means. Pure.

A line is a JSON object: `v seq ts run kind`, the entry's own fields, then `b` (number of its batch), `n` (how many
lines of the batch follow) and `crc` (CRC-32 of the bytes before it, continued from the line before). A batch is one
write and one sync, so what a crash can tear lies within the last batch; a bad line before a later batch is damage.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import orjson

from engine.model import Entry, Json

VERSION: Final = 1
"""The format that is written here."""

RESERVED: Final = frozenset({"v", "seq", "ts", "run", "kind", "b", "n", "crc"})
"""What the ledger itself puts into a line."""
_CRC: Final = len(b',"crc":"01234567"}')
_BODY: Final = -_CRC - 1
"""Where the bytes of a line end that its checksum is of."""
_HEAD: Final = b'{"v":1,"seq":'
_FORMAT: Final = re.compile(rb'\{"v":(\d{1,9}),')
_WHOLE: Final = re.compile(rb'\{"v":1,"seq":(\d{1,18}),.*,"b":(\d{1,18}),"n":\d{1,18}', re.DOTALL)
_STORED: Final = re.compile(rb',"crc":"([0-9a-f]{8})"\}')
_BREAK: Final = re.compile(rb'\n|(?<=,"crc":"[0-9a-f]{8}"\})[^\n]')
"""Where a line ends; also where its newline was overwritten, so that the line behind it is still found."""


# ---- lines -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Chain:
    """The end of the good lines so far: what the next line must continue."""

    seq: int = 0
    """Number of the last line; lines are numbered from 1 without gaps."""
    batch: int = 0
    left: int = 0
    """Lines of the last batch that should still follow."""
    crc: int = 0
    offset: int = 0
    """Bytes."""

    @property
    def last_bytes(self) -> bytes:
        """What the good lines end with: of another file, or of the same written anew, it is something else."""
        return b',"crc":"%08x"}\n' % self.crc if self.seq else b""

    def accept(self, line: bytes) -> dict[str, Json] | None:
        """The fields of the next line, when it is good; None, and no move, when it is not."""
        crc = zlib.crc32(line[:_BODY], self.crc)
        if not line.endswith(b',"crc":"%08x"}\n' % crc):
            return None
        fields, seq = _decode(line), self.seq + 1
        if fields is None or fields.get("v") != VERSION or fields.get("seq") != seq:
            return None
        batch, left = fields.get("b"), fields.get("n")
        if not isinstance(batch, int) or not isinstance(left, int):
            return None
        self.seq, self.batch, self.left, self.crc = seq, batch, left, crc
        self.offset += len(line)
        return fields


def encode_line(entry: Entry) -> bytes:
    """The entry's own part of its line. Raises ValueError or TypeError for what cannot be written: a bug."""
    if not RESERVED.isdisjoint(entry.fields):
        raise ValueError(f"a {entry.kind} entry has a field that belongs to the ledger itself")
    return _dumps({"kind": entry.kind, **entry.fields})[1:-1]


def seal(parts: Sequence[bytes], after: Chain, *, ts: str, run: str) -> tuple[bytes, Chain]:
    """The lines of one batch from what `encode_line` gave, ready to be written, and where they end."""
    batch, crc, last = after.batch + 1, after.crc, after.seq + len(parts)
    stamp = b',"ts":%b,"run":%b,' % (_dumps(ts), _dumps(run))
    lines = []
    for seq, part in enumerate(parts, after.seq + 1):
        body = b'{"v":%d,"seq":%d%b%b,"b":%d,"n":%d' % (VERSION, seq, stamp, part, batch, last - seq)
        crc = zlib.crc32(body, crc)
        lines.append(b'%b,"crc":"%08x"}\n' % (body, crc))
    data = b"".join(lines)
    return data, Chain(seq=last, batch=batch, left=0, crc=crc, offset=after.offset + len(data))


def timestamp(seconds: float) -> str:
    """Epoch seconds as `2026-11-20T23:06:09.123Z`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dumps(value: Json) -> bytes:
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:  # lone surrogates and integers above 64 bits
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def _decode(line: bytes) -> dict[str, Json] | None:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError:
        try:
            value = json.loads(line)
        except ValueError:
            return None
    return value if isinstance(value, dict) else None


# ---- what the end of a file means ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """What is to be done with a ledger file.

    whole: nothing. torn: cut it at `offset`, the last write did not end. damaged: refuse, acknowledged lines are bad.
    foreign: leave it alone, it is no ledger. newer: leave it alone, a later version wrote it.
    """

    kind: Literal["whole", "torn", "damaged", "foreign", "newer"]
    line: int
    """Number of the first line that is not good, from 1."""
    offset: int
    """Bytes of good lines."""


def condition_of(rest: bytes, good: Chain) -> Condition:
    """What the bytes behind the good lines mean; empty at the end of a whole file."""
    return Condition(_kind(rest, good), line=good.seq + 1, offset=good.offset)


def _kind(rest: bytes, good: Chain) -> Literal["whole", "torn", "damaged", "foreign", "newer"]:
    if not rest:
        return "torn" if good.left else "whole"
    if _acknowledged(rest, good):
        return "damaged"
    if (version := _FORMAT.match(rest)) and int(version[1]) > VERSION:
        return "newer"  # even where its checksum is wrong: a later version may compute another one
    if good.seq == 0 and rest[: len(_HEAD)] != _HEAD[: len(rest)] and rest.strip(b"\0"):
        return "foreign"
    return "torn"


def _acknowledged(rest: bytes, good: Chain) -> bool:
    """Whether a whole line of a later batch stands behind the first bad line: then that one had been synced.

    A line is whole when its checksum continues the line before it: what that line says of itself, or, right behind the
    bad part, what its bytes come to. Where lines were taken out, the first one left claims a later number and batch.
    """
    batch = good.batch if good.left else good.batch + 1
    start, summed, own, before = 0, 0, good.crc, None
    for piece in _BREAK.split(rest):
        body, tail = piece[:-_CRC], _STORED.fullmatch(piece[-_CRC:])
        stored = int(tail[1], 16) if tail else None
        until = max(summed, start - 1 - _CRC)
        own, summed = zlib.crc32(rest[summed:until], own), until
        place = _WHOLE.fullmatch(body) if tail else None
        if place and int(place[2]) > batch:
            follows = any(crc is not None and zlib.crc32(body, crc) == stored for crc in (before, own))
            removed = start == 0 and int(place[1]) > good.seq + 1
            if follows or removed:
                return True
        start, before = start + len(piece) + 1, stored
    return False


def salvage(rest: bytes) -> Iterator[dict[str, Json]]:
    """The lines behind a damaged one that surely are as they were written: each continues the line before it."""
    before: int | None = None
    for piece in _BREAK.split(rest):
        tail = _STORED.fullmatch(piece[-_CRC:])
        stored = int(tail[1], 16) if tail else None
        if before is not None and zlib.crc32(piece[:-_CRC], before) == stored and (fields := _decode(piece)):
            yield fields
        before = stored
