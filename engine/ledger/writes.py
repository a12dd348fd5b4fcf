"""What a ledger says was made, prompt by prompt: for the verbs that prove it, publish it, or take it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from engine.content.filter import Chosen
from engine.errors import EXIT_RETRY
from engine.ledger.file import entries
from engine.model import Json, version_ref

Line = Mapping[str, Json]
_COPIED: Final = ("source_version", "source_updated_at", "name", "model", "source_digest", "replica_digest")
"""What the line `finished` of a whole history says of the version that is published."""
FIRST: Final = "1"
"""The version that a create makes, where its line does not say another one."""
_AS_IT_WAS: Final = ("unchanged", "published")
"""Lines after which a replica is what it was."""
_WHOSE: Final = ("source_id", "source_name", "source_collection")


@dataclass(slots=True)
class Writes:
    """One prompt of the source, and all that was written for it and not taken back, oldest first."""

    source_id: str
    writes: list[Line] = field(default_factory=list)
    """Lines `created` and `updated`."""
    intent: Line | None = None
    """An update origin answer is not known."""
    cut_over: Line | None = None
    """The line `published` that speaks of the last write."""
    verified: str | None = None
    """Result of the last comparison since then."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of a whole history: the source's version -> the replica's."""

    @property
    def last(self) -> Line:
        """The last write."""
        return self.writes[-1]

    @property
    def target_id(self) -> str:
        """The replica, or in mode update the prompt itself."""
        return str((self.writes[-1] if self.writes else self.intent or {})["target_id"])

    @property
    def origin(self) -> dict[str, Json]:
        """What lines about it begin with."""
        line = self.writes[-1] if self.writes else self.intent or {}
        return {name: line.get(name) for name in _WHOSE}

    @property
    def name(self) -> str:
        """At the source."""
        return str(self.origin["source_name"])

    @property
    def version(self) -> str | None:
        """The version that the last write made, or began with where it made none."""
        written = version_ref(self.last.get("after_version"))
        return written or (FIRST if self.last["kind"] == "created" else None)

    @property
    def staged(self) -> str | None:
        """The version that was written and is not published by us; None: there is none."""
        if not self.writes or self.last["kind"] != "updated" or self.last.get("published") or self.cut_over:
            return None
        return self.version if self.version != version_ref(self.last.get("before_version")) else None


def read_made(path: Path, chosen: Chosen) -> list[Writes]:
    """Those of the chosen prompts for which something is on the target. Raises what `entries` raises."""
    found: dict[str, Writes] = {}
    picked: set[str] = set()
    for line in entries(path):
        source_id = line.get("source_id")
        if isinstance(source_id, str):
            if line["kind"] == "moved":
                _move(found, picked, line)
            made = found.get(source_id) or found.setdefault(source_id, Writes(source_id))
            _add(made, line)
            if chosen.takes_line(line):
                picked.add(source_id)
    return [made for source_id, made in found.items() if source_id in picked and (made.writes or made.intent)]


def proved_so_far(path: Path) -> set[str]:
    """Prompts that the runs before found the same at their ends, where those were asked to end, or killed, before they
    had compared all: what was written or found otherwise since is none of them. Raises what `entries` raises.
    """
    proved: set[str] = set()
    run, rules = None, None
    for line in entries(path):
        kind, source_id = line["kind"], line.get("source_id")
        if kind == "run":
            if line.get("rules") != rules:
                proved.clear()
            run, rules = line["run"], line.get("rules")
        elif kind == "end" and line.get("exit_code") != EXIT_RETRY:
            proved.clear()
        elif kind == "verified" and line["run"] == run and line.get("result") == "same":
            proved.add(str(source_id))
        elif isinstance(source_id, str) and not (kind in _AS_IT_WAS and not line.get("edited")):
            proved.discard(source_id)
    return proved


def none_taken(path: Path, chosen: Chosen, made: Sequence[object]) -> list[str]:
    """The note that these flags take nothing of what was written, where that is so. `made`: see `read_made`, which it
    raises as.
    """
    if made or chosen.everything:
        return []
    return chosen.takes_none(0, len(read_made(path, Chosen())), "prompts that were written")


def _move(found: dict[str, Writes], picked: set[str], line: Line) -> None:
    """All that was written for the prompt under its old id is now told under the new one."""
    was, source_id = line["was"], line["source_id"]
    if (made := found.pop(was, None)) is None:
        return
    found[source_id] = Writes(
        source_id,
        writes=[_moved(write, line, made.target_id) for write in made.writes],
        intent=_moved(made.intent, line, made.target_id) if made.intent is not None else None,
        cut_over=made.cut_over,
        verified=made.verified,
        versions=made.versions,
    )
    if was in picked:
        picked.add(source_id)


def _moved(written: Line, line: Line, target_id: str) -> Line:
    """A write as the line `moved` has it; an earlier replica of the same prompt stays where it was."""
    origin = {**written, **{name: line.get(name) for name in _WHOSE}}
    replica = {name: line.get(name) for name in ("target_id", "target_slug")}
    return {**origin, **(replica if written["target_id"] == target_id else {})}


def _add(made: Writes, line: Line) -> None:
    match line["kind"]:
        case "created" | "updated":
            made.writes.append(line)
            made.intent = made.cut_over = made.verified = None
        case "intent" if line.get("op") == "update":
            made.intent = line
        case "failed" | "conflict" | "unchanged":
            made.intent = None
        case "version":
            made.intent = None
            made.versions[str(line["source_version"])] = str(line["target_version"])
        case "finished" if made.writes and line.get("replica_digest"):
            made.writes[-1] = {**made.writes[-1], **{name: line.get(name) for name in _COPIED}}
        case "published" if line.get("result") in ("published", "already"):
            made.cut_over = line
        case "verified":
            made.verified = line.get("result")
        case "rolled_back":
            _take_back(made, line)


def _take_back(made: Writes, line: Line) -> None:
    target_id, undone = line.get("target_id"), line.get("undone")
    earlier = bool(made.writes) and target_id not in (None, made.target_id)
    if line.get("result") == "kept" or earlier:  # an earlier replica of the same prompt
        return
    if line.get("result") == "restored" and undone is not None:
        del made.writes[max(0, len(made.writes) - undone) :]
    else:  # whoever wrote it, also where a compacted ledger has fewer lines of that, or a merged one more
        made.writes = [one for one in made.writes if target_id is not None and one["target_id"] != target_id]
    made.intent = made.cut_over = made.verified = None


def runs_of(path: Path) -> Iterator[frozenset[str]]:
    """Ids of the runs, oldest first; where ledgers were merged, behind them the newest of each, which are as one."""
    for line in entries(path):
        if line["kind"] == "run":
            yield frozenset((line["run"],))
        elif line["kind"] == "merged":
            yield frozenset(line["runs"])
