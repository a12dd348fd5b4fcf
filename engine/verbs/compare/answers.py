"""LEDGER.answers.jsonl: what originals and replicas answered. Readable by its owner only; no other file has the words.

A line `asked` is on the disk before a call leaves, a line `answer` as soon as its answer is there, and a line `end`
when nothing is left to be called: what was asked and has no answer was under way when a command was killed, and may
have been paid for. Whoever writes holds the lock of the ledger.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import anyio

from engine.errors import ConfigError, Stop
from engine.ledger.durable import PRIVATE, open_locked, sync_data, write_all
from engine.ledger.file import AGAIN
from engine.ledger.lines import timestamp
from engine.log import scrub
from engine.lossless_json import NotKept, encode
from engine.model import Json, Reply, ToolCall

VERSION: Final = 1
Side = Literal["original", "replica"]


class Asked(NamedTuple):
    """What is asked: one prompt as it was in one version, with the values of one case."""

    side: Side
    prompt: str
    """Its id."""
    edition: str
    """The version; its digest, where the registry counts none."""
    values: str
    """Digest of the variables."""


def digest_of(variables: Mapping[str, Json]) -> str:
    """Of the values that a prompt is called with: the same in whatever order they are given."""
    return sha256(json.dumps(variables, sort_keys=True, default=str).encode()).hexdigest()


def answers_file(ledger: Path) -> Path:
    """Where the answers of a migration are."""
    return ledger.with_name(f"{ledger.name}.answers.jsonl")


@dataclass(slots=True)
class Recorded:
    """What the file has. `end`: bytes of whole lines; what stands behind them was torn by a kill."""

    replies: defaultdict[Asked, dict[int, Reply]] = field(default_factory=lambda: defaultdict(dict))
    """By number, from 1: a case may be asked several times."""
    left: set[tuple[Asked, int]] = field(default_factory=set)
    """Asked, and nothing came of it that was kept."""
    again: set[tuple[Asked, int]] = field(default_factory=set)
    """Refused in a command that did all it had to do: somebody may have mended it since."""
    end: int = 0
    _any: set[Asked] = field(default_factory=set)
    """What has an answer in whatever version."""

    def of(self, asked: Asked) -> list[Reply]:
        """All that is known, in the order of their numbers."""
        return [reply for _, reply in sorted(self.replies.get(asked, {}).items())]

    def settled(self, asked: Asked, number: int) -> bool:
        """Whether it need not be asked."""
        return number in self.replies.get(asked, {}) and (asked, number) not in self.again

    def others(self, asked: Asked) -> bool:
        """Whether the same prompt has answers to these values in another version."""
        return asked._replace(edition="") in self._any

    def add(self, line: Mapping[str, Any]) -> None:
        """Folds a line. Raises KeyError, TypeError and ValueError for one that is none of ours."""
        if line["kind"] == "end":
            self.again |= {
                (asked, number)
                for asked, found in self.replies.items()
                for number, reply in found.items()
                if asked.side == line["side"] and reply.outcome == "refused"
            }
            return
        asked = Asked(line["side"], line["prompt"], line["edition"], line["values"])
        call = (asked, int(line["number"]))
        if line["kind"] == "asked":
            self.left.add(call)
            return
        self.replies[asked][call[1]] = _reply(line["reply"])
        self._any.add(asked._replace(edition=""))
        self.left.discard(call)
        self.again.discard(call)


def _reply(value: Mapping[str, Any]) -> Reply:
    calls = tuple(ToolCall(one["name"], one["arguments"]) for one in value["tool_calls"])
    return Reply(**{**value, "tool_calls": calls})


# ---- reading ---------------------------------------------------------------------------------------------------------


def read_answers(path: Path) -> Recorded:
    """What is there, nothing where there is no file. Raises Stop when a line is damaged, ConfigError when it cannot be
    read.
    """
    try:
        body = path.read_bytes() if os.path.lexists(path) else b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    found = Recorded()
    lines = body.split(b"\n")
    for number, line in enumerate(lines[:-1], 1):
        try:
            found.add(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            if number == len(lines) - 1:  # the last one: a crash may leave its length without its bytes
                break
            raise _damaged(path, number) from None
        found.end += len(line) + 1
    return found


def _damaged(path: Path, line: int) -> Stop:
    advice = "Restore a copy, or take that line out: what it says is asked again then."
    return Stop("ledger_damaged", f"{path}: line {line} is damaged", next=advice)


# ---- writing ---------------------------------------------------------------------------------------------------------


class AnswersFile:
    """Open behind what was read of it; what `asked`, `answered` and `ended` are told is durable when they return."""

    def __init__(self, path: Path, fd: int, known: Recorded, *, run: str, secrets: Collection[str]) -> None:
        self.known: Final = known
        self._path = path
        self._fd = fd
        self._run = run
        self._secrets = secrets
        self._lock = anyio.Lock()

    async def asked(self, of: Asked, number: int, **told: Json) -> None:
        """It is about to leave. `told`: what a reader of the file wants to know besides. Raises Stop."""
        await self._append("asked", of, number, told)

    async def answered(self, of: Asked, number: int, reply: Reply, **told: Json) -> None:
        """It was answered, or refused. Raises Stop."""
        await self._append("answer", of, number, {**told, "reply": self._clean(asdict(reply))})

    async def ended(self, side: Side) -> None:
        """All that was to be asked on this side was asked. Raises Stop."""
        await self._write({"kind": "end", "side": side})

    async def _append(self, kind: str, of: Asked, number: int, told: Mapping[str, Json]) -> None:
        await self._write({"kind": kind, **of._asdict(), "number": number, **told})

    async def _write(self, fields: Mapping[str, Json]) -> None:
        line = {"v": VERSION, "ts": timestamp(time.time()), "run": self._run, **fields}
        with anyio.CancelScope(shield=True):  # it was paid for: whatever ends the command now, it is kept
            async with self._lock:
                await anyio.to_thread.run_sync(partial(self._put, _encoded(line)))
        self.known.add(line)

    def _put(self, line: bytes) -> None:
        try:
            write_all(self._fd, line)
            sync_data(self._fd)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self.known.end)
            message = f"{self._path}: the answers cannot be written ({error.strerror})"
            raise Stop("disk", message, next=AGAIN) from error
        self.known.end += len(line)

    def _clean(self, value: Json) -> Json:
        """Without a key that an answer may have quoted."""
        if isinstance(value, str):
            return scrub(value, self._secrets)
        if isinstance(value, dict):
            return {name: self._clean(inner) for name, inner in value.items()}
        return [self._clean(inner) for inner in value] if isinstance(value, list | tuple) else value


def _encoded(line: Mapping[str, Json]) -> bytes:
    try:
        return encode(line) + b"\n"
    except NotKept:  # the name of a prompt, or of a case, may hold what no UTF-8 has
        return json.dumps(line).encode("ascii") + b"\n"


@contextmanager
def open_answers(path: Path, known: Recorded, *, run: str, secrets: Collection[str]) -> Iterator[AnswersFile]:
    """The file, behind what is `known` of it; made when it is not there, without a torn end. Raises ConfigError."""
    try:
        fd, _ = open_locked(path, mode=PRIVATE)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    try:
        os.ftruncate(fd, known.end)
        yield AnswersFile(path, fd, known, run=run, secrets=secrets)
    finally:
        os.close(fd)
