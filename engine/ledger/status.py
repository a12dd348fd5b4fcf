"""What a ledger says, while a run goes on or after it: counts, failures, the map old to new, health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from engine.content.filter import Chosen
from engine.ledger.file import entries, read_ledger
from engine.ledger.report import OUTCOMES, SCHEMA, outcome_of
from engine.ledger.state import State
from engine.ledger.writes import read_made
from engine.model import Json

ID_FIELDS: Final = (
    "source_id",
    "source_slug",
    "target_id",
    "target_slug",
    "source_name",
    "name",
    "source_version",
    "target_version",
)
GOES_ON: Final = "Wait for its end; if it was killed, run the same command again: it goes on where that one stopped."
_AFTER: Final = ("verified", "published")
"""Lines after a run that change nothing about what became of its prompts."""
_FAILED_FIELDS: Final = {"source_id": "source_id", "name": "source_name", "stage": "stage", "error": "error"}


@dataclass(slots=True)
class _Read:
    """One pass over the lines."""

    state: State = field(default_factory=State)
    run: Mapping[str, Json] = field(default_factory=dict)
    listed: Mapping[str, Json] = field(default_factory=dict)
    end: Mapping[str, Json] = field(default_factory=dict)
    """Of the newest run; empty while it goes on."""
    final: bool = False
    """Nothing was written since that end that changes its books."""
    failed: dict[str, dict[str, Json]] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)
    """Of replicas that were verified since they were last written: the result."""
    picked: set[str] = field(default_factory=set)
    first: str = ""
    last: str = ""
    """Times of the newest run's first and last line."""


def _read(path: Path, chosen: Chosen) -> _Read:
    found = _Read()
    for line in entries(path):
        found.state.fold(line)
        if line["kind"] == "run" or not found.end:  # what came after its end, such as a rollback, is no part of it
            found.last = line["ts"]
        source_id = line.get("source_id")
        if line["kind"] == "run":
            found.run, found.first, found.end, found.final = line, line["ts"], {}, False
        elif line["kind"] == "end":
            found.end, found.final = line, True
        elif line["kind"] == "listed":
            found.listed = line
        elif source_id is not None:
            if line["kind"] == "moved":
                _move(found, line["was"], source_id)
            if chosen.takes_line(line):
                found.picked.add(source_id)
            found.final &= line["kind"] in _AFTER
            found.failed.pop(source_id, None)
            if line["kind"] == "failed":
                found.failed[source_id] = line
            elif line["kind"] == "verified":
                found.verified[source_id] = line["result"]
            elif line["kind"] in ("created", "updated", "rolled_back"):
                found.verified.pop(source_id, None)
    return found


def _move(found: _Read, was: str, source_id: str) -> None:
    """What was said of a prompt under its old id holds under the new one."""
    if was in found.picked:
        found.picked.add(source_id)
    if was in found.failed:
        found.failed[source_id] = found.failed.pop(was) | {"source_id": source_id}
    if was in found.verified:
        found.verified[source_id] = found.verified.pop(was)


# ---- status ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The state of a migration as its ledger has it."""

    migration: str
    run: str
    mode: str
    going_on: bool
    """The newest run has not written its end: it goes on, or it was killed. What only an end tells is null then."""
    exit_code: int | None
    reason: str | None
    next: str
    counts: Mapping[str, int]
    this_run: Mapping[str, int]
    orphaned: int | None
    verified: Mapping[str, int] | None
    """Result -> replicas that were verified since they were last written."""
    requests: Mapping[str, int] | None
    throttle: Mapping[str, Mapping[str, float | None]] | None
    duration_s: float
    rate: float
    """Prompts settled a second in the newest run."""
    failed: Sequence[Mapping[str, Json]]
    why: Mapping[str, int]
    """Kind of failure -> prompts."""
    ledger: str

    def to_json(self, *, with_failed: bool = False) -> dict[str, Any]:
        """The object of `status --json`."""
        value = {"schema": SCHEMA} | asdict(self)
        if not with_failed:
            del value["failed"]
        return value


def read_status(path: Path, chosen: Chosen) -> Status:
    """Needs no lock. Raises what `entries` raises."""
    found = _read(path, chosen)
    run = found.state.last_run
    end = found.end
    counts, this_run = _counts(found, run, chosen)
    seconds = _seconds(found)
    settled = sum(record.run == run and not record.doubtful for record in found.state.records.values())
    failed = [line for source_id, line in found.failed.items() if source_id in found.picked]
    return Status(
        migration=found.run.get("migration") or "",
        run=run or "",
        mode=found.run.get("mode") or "",
        going_on=run is not None and not end,
        exit_code=end.get("exit_code"),
        reason=end.get("reason"),
        next=end.get("next") or GOES_ON,
        counts=counts,
        this_run=this_run,
        orphaned=end.get("orphaned"),
        verified=dict(Counter(found.verified[one] for one in found.picked & found.verified.keys())) or None,
        requests=end.get("requests"),
        throttle=end.get("throttle"),
        duration_s=end.get("duration_s") or seconds,
        rate=round(settled / seconds, 1) if seconds else 0.0,
        failed=[_failed(line) for line in failed],
        why=dict(Counter(str(line.get("error")) for line in failed).most_common()),
        ledger=str(path),
    )


def _counts(found: _Read, run: str | None, chosen: Chosen) -> tuple[dict[str, int], dict[str, int]]:
    """Of the chosen; prompts that no line speaks of are known by number only, when all are asked for.

    Which of those made earlier a run did not come to is known to the books that it ended with.
    """
    if chosen.everything and found.final and "this_run" in found.end:
        return dict(found.end["counts"]), dict(found.end["this_run"])
    picked = [record for one, record in found.state.records.items() if one in found.picked]
    counts = Counter(outcome_of(record, run) for record in picked)
    this_run = Counter(outcome_of(record, run) for record in picked if record.run == run)
    if chosen.everything:
        counts["not_started"] += max(0, found.listed.get("selected", 0) - counts.total())
    for outcome in ("unchanged", "not_started"):
        this_run[outcome] = counts[outcome]
    head = {"listed": found.listed.get("count", 0), "selected": counts.total()}
    return head | {name: counts[name] for name in OUTCOMES}, {name: this_run[name] for name in OUTCOMES}


def _seconds(found: _Read) -> float:
    """From the newest run's first line to the last one."""
    if not found.first:
        return 0.0
    return (datetime.fromisoformat(found.last) - datetime.fromisoformat(found.first)).total_seconds()


def _failed(line: Mapping[str, Json]) -> dict[str, Json]:
    return {name: line.get(key) for name, key in _FAILED_FIELDS.items()} | {"message": line.get("message")}


# ---- ids -------------------------------------------------------------------------------------------------------------


def read_ids_map(path: Path, chosen: Chosen) -> list[dict[str, Json]]:
    """The map old to new of the replicas that stand, in the order in which their prompts came up. Raises what `entries`
    raises.
    """
    lasts = (made.last for made in read_made(path, chosen) if made.writes)
    return [{name: line.get(name) for name in ID_FIELDS} | _versions(line) for line in lasts]


def _versions(line: Mapping[str, Json]) -> dict[str, Json]:
    """A create publishes version 1."""
    written = line.get("after_version")
    return {"target_version": written or 1 if line["kind"] == "created" else written}


# ---- health ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether a ledger can be gone on with."""

    ledger: str
    verdict: str
    """whole | torn | damaged | foreign | newer"""
    lines: int
    """Good lines."""
    prompts: int
    created: int
    in_doubt: int
    runs: int
    advice: str

    @property
    def usable(self) -> bool:
        """Whether a run goes on with it."""
        return self.verdict in ("whole", "torn")

    def to_json(self) -> dict[str, Any]:
        """The object of `ledger check --json`."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def examine_ledger(path: Path) -> Health:
    """Reads the whole file. Raises ConfigError when there is none."""
    reading = read_ledger(path)
    records = reading.state.records.values()
    return Health(
        ledger=str(path),
        verdict=reading.verdict.kind,
        lines=reading.verdict.line - 1,
        prompts=len(records),
        created=sum(record.made for record in records),
        in_doubt=sum(record.doubtful for record in records),
        runs=reading.state.runs,
        advice=" ".join(_advice(reading.verdict.kind, reading.verdict.line)),
    )


def _advice(kind: str, line: int) -> Iterator[str]:
    if kind == "whole":
        yield "Every line is good."
    elif kind == "torn":
        yield f"Line {line} was being written when a run ended, or is being written now."
        yield "The next run keeps it beside the ledger, cuts it off and goes on."
    elif kind == "newer":
        yield f"Line {line} was written by a newer version of promptferry: use that one."
    elif kind == "foreign":
        yield "This file is no ledger of promptferry."
    else:
        yield f"Line {line} is damaged and later lines are whole, so no crash did this: restore a copy of the file."
        yield "Without a copy, move it away and run again: replicas that are there are found by their marks."
