"""Approvals of a plan: a line for each in PLAN.approvals.jsonl, of exactly the bytes that were approved."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from engine.errors import ConfigError, Stop
from engine.ledger.durable import PUBLIC, append_line
from engine.ledger.lines import timestamp

_TEXTS: Final = ("name", "time", "sha256")


class Signer(Protocol):
    """Signs with one private key. `key` is the public one, as a line has it."""

    @property
    def key(self) -> str: ...

    def sign(self, content: bytes) -> str: ...


class Trust(Protocol):
    """The public keys that are trusted."""

    def doubts(self, key: object, content: bytes, signature: object) -> str | None:
        """Why this signature is none of theirs; None: it is."""
        ...


@dataclass(frozen=True, slots=True)
class Approvals:
    """Of one plan. `names`: of those who approved it, each once, as first written; `left_out`: what does not count."""

    names: Sequence[str]
    left_out: Sequence[str]


def approvals_file(plan: Path) -> Path:
    """Where approvals of this plan are."""
    return plan.with_name(f"{plan.name}.approvals.jsonl")


def approve(
    plan: Path, sha256: str, name: str, *, reason: str | None, signer: Signer | None, now: datetime
) -> Mapping[str, Any]:
    """Adds a line, which is durable when it returns; gives its fields. Raises ConfigError, and Stop on a full disk."""
    if not (name := " ".join(name.split())) or not name.isprintable():
        raise ConfigError("--as: say who approves it, in letters that can be seen")
    line: dict[str, Any] = {"name": name, "time": timestamp(now.timestamp()), "sha256": sha256, "reason": reason}
    if signer is not None:
        line["key"] = signer.key
        line["signature"] = signer.sign(content(line))
    file = approvals_file(plan)
    try:
        append_line(file, json.dumps(line).encode("ascii") + b"\n", mode=PUBLIC)
    except (PermissionError, IsADirectoryError, FileNotFoundError) as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
    except OSError as error:
        advice = "Free or mend that disk, then approve it again."
        raise Stop("disk", f"{file}: cannot be written: {error.strerror}", next=advice) from error
    return line


def content(line: Mapping[str, Any]) -> bytes:
    """What is signed: all fields but the signature, as JSON in the order of their names, without blanks, in ASCII."""
    signed = {name: value for name, value in line.items() if name != "signature"}
    return json.dumps(signed, sort_keys=True, separators=(",", ":")).encode("ascii")


def read_approvals(plan: Path, sha256: str, trust: Trust | None) -> Approvals:
    """What counts for a plan with this digest. Raises ConfigError when the file cannot be read."""
    file = approvals_file(plan)
    try:
        lines = file.read_bytes().split(b"\n") if os.path.lexists(file) else []
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    return count(lines, sha256, trust)


def count(lines: Iterable[bytes], sha256: str, trust: Trust | None) -> Approvals:
    """Of lines without their breaks. One name counts once, in capitals or not; one key is one name's. Pure."""
    counting = _Counting(sha256, trust)
    for number, line in enumerate(lines, 1):
        if line.strip() and (why := counting.doubts(line)) is not None:
            counting.left_out.append(f"line {number} {why}")
    return Approvals([*counting.names.values()], counting.left_out)


@dataclass(slots=True)
class _Counting:
    sha256: str
    trust: Trust | None
    names: dict[str, str] = field(default_factory=dict)
    """Folded -> as it was first written."""
    keys: dict[str, str] = field(default_factory=dict)
    """Key -> the folded name that it was used for first."""
    left_out: list[str] = field(default_factory=list)

    def doubts(self, line: bytes) -> str | None:
        """Counts it; or says why not."""
        if (found := _parsed(line)) is None:
            return "is damaged"
        if found["sha256"] != self.sha256:
            return "is of another plan, or of this one before it was changed"
        name = _folded(found["name"])
        if self.trust is not None:
            if (why := self.trust.doubts(found.get("key"), content(found), found.get("signature"))) is not None:
                return why
            if (other := self.keys.setdefault(str(found["key"]), name)) != name:
                return f"is signed with the key of {self.names[other]!r}"
        self.names.setdefault(name, found["name"])
        return None


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not all(isinstance(found.get(part), str) for part in _TEXTS):
        return None
    return found if _folded(found["name"]) else None


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def required(plan: Path, sha256: str, wanted: int, trust: Trust | None) -> tuple[str, ...]:
    """The names of those who approved exactly this plan. Raises Stop when they are fewer than `wanted`."""
    found = read_approvals(plan, sha256, trust)
    if len(found.names) >= wanted:
        return tuple(found.names)
    who = f" ({', '.join(found.names)})" if found.names else ""
    has = f"has {len(found.names)} of {wanted} approvals{who} of exactly this plan, SHA-256 {sha256}"
    not_counted = f"; not counted: {'; '.join(found.left_out)}" if found.left_out else ""
    raise Stop(
        "check_failed",
        f"{plan}: {has}{not_counted}",
        next=f"Have it approved with `promptferry approve {plan} --as NAME`, then run the same command again.",
    )
