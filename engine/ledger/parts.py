"""What a ledger says of the collections, partials and labels that were made for the prompts. Pure.

Their lines have `what` and no `source_id`, so that they are nobody's who reads of prompts alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from engine.model import Json, PartKey, version_ref

_DONE: Final = ("failed", "skipped", "unmade")


@dataclass(slots=True)
class PartRecord:
    """One of them. `status`: intent | unknown | made | failed | skipped | unmade."""

    status: str
    run: str
    name: str = ""
    parent: str | None = None
    """Of a collection: the id of the one at the target that it lies in."""
    mark: str = ""
    """The key in its mark, where it carries one."""
    digest: str | None = None
    """Of what was to be made."""
    version: str | None = None
    """Of a partial: the version at the source that it was made from."""
    attempt: int = 0
    ts: str = ""
    """When its last intent was written."""
    target_id: str | None = None
    """None: it is not there, as far as anybody knows."""
    refused: bool = False
    """The registry said that something of that name is there."""

    @property
    def doubtful(self) -> bool:
        """It was sent, or was about to be, and nobody knows what became of it."""
        return self.status in ("intent", "unknown")

    @property
    def since(self) -> float:
        """When its last intent was written, in epoch seconds."""
        return seconds(self.ts)


def tell_part(parts: dict[PartKey, PartRecord], what: str, line: Mapping[str, Json]) -> None:
    """Takes a line about one of them; a kind that it does not know changes nothing."""
    kind, key = str(line.get("kind")), (what, str(line.get("source_slug")))
    record = parts.get(key)
    if kind == "intent":
        parts.pop(key, None)  # it takes its place behind what was begun before
        parts[key] = _intended(line)
    elif kind == "made":
        parts[key] = _made(record or _intended(line), line)
    elif record is not None and (kind in _DONE or kind == "unknown"):
        if kind == "unmade" and line.get("result") in ("kept", "failed"):
            return
        record.status, record.run = kind, line["run"]
        record.target_id, record.refused = None, line.get("error") == "exists"


def _intended(line: Mapping[str, Json]) -> PartRecord:
    return PartRecord(
        status="intent",
        run=line["run"],
        name=line.get("name") or "",
        parent=line.get("parent"),
        mark=line.get("key") or "",
        digest=line.get("replica_digest"),
        version=version_ref(line.get("source_version")),
        attempt=line.get("attempt") or 0,
        ts=line["ts"],
    )


def _made(record: PartRecord, line: Mapping[str, Json]) -> PartRecord:
    record.status, record.run, record.target_id = "made", line["run"], line.get("target_id")
    return record


def seconds(ts: str) -> float:
    """A time of the ledger, in epoch seconds."""
    return datetime.fromisoformat(ts).timestamp()
