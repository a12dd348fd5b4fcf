"""What a ledger says, while a run goes on or after it: counts, failures, the map old to new, health."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from engine.content.filter import Chosen
from engine.errors import EXIT_DIFFERENT
from engine.ledger.file import entries, read_ledger
from engine.ledger.lines import Condition
from engine.ledger.record import DOUBTFUL, Record
from engine.ledger.record import Status as Word
from engine.ledger.report import NO_WORD, OUTCOMES, SCHEMA, Reasons, outcome_of, ranked
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
NOT_BEGUN: Final = "It was not started yet."
TAKEN_BACK: Final = "It was rolled back since, in whole or in part: run it again only to have that back."
UNPROVED: Final = "Not all replicas are as they were written: `promptferry verify` names them, and what differs."
PROVED: Final = "What differed when that run was verified was found since to be as it was written."
CUT_OVER: Final = "What was staged is published: applications get it."
GOES_ON: Final = "Wait for its end; if it was killed, run the same command again: it goes on where that one stopped."
_REASONED: Final = frozenset({"failed", "conflict", "skipped", *DOUBTFUL})
"""What became of prompts of which the ledger says why."""
_AFTER: Final = ("verified", "published")
"""Lines after a run that change nothing about what became of its prompts."""
_FAILED_FIELDS: Final = {"source_id": "source_id", "name": "source_name", "stage": "stage", "error": "error"}


@dataclass(slots=True)
class StatusFold:
    """What the lines say so far, told of the chosen prompts: give it each good line, first to last, and ask for the
    `status` whenever it is wanted: neither costs more the longer the ledger is.
    """

    chosen: Chosen = field(default_factory=Chosen)
    state: State = field(default_factory=State)
    run: Mapping[str, Json] = field(default_factory=dict)
    """The newest `run` line."""
    listed: Mapping[str, Json] = field(default_factory=dict)
    end: Mapping[str, Json] = field(default_factory=dict)
    """Of the newest run; empty while it goes on."""
    final: bool = False
    """Nothing was written since that end that changes its books."""
    taken_back: bool = False
    """Something was rolled back since that end."""
    cut_over: bool = False
    """Something that was staged was published since that end."""
    failed: dict[str, Mapping[str, Json]] = field(default_factory=dict)
    verified: dict[str, str] = field(default_factory=dict)
    """Of replicas that were verified since they were last written: the result."""
    first: str = ""
    last: str = ""
    """Times of the newest run's first and last line."""
    told: tuple[Word, str] | None = None
    """What is said of the prompt that the last line spoke of, and the run that did."""
    _picked: set[str] = field(default_factory=set)
    """Prompts that are chosen, where not all are."""
    _said: Counter[tuple[Word, str, bool]] = field(default_factory=Counter)
    """(what became of it, the run that said so, whether it is chosen) -> prompts."""
    _why: Counter[tuple[Word, str, bool]] = field(default_factory=Counter)
    """(what became of it, why, whether it is chosen) -> prompts; of those that have a reason."""

    def take(self, line: Mapping[str, Json]) -> None:
        """The next good line."""
        kind, source_id = line["kind"], line.get("source_id")
        if kind == "run" or not self.end:  # what came after its end, such as a rollback, is no part of it
            self.last = line["ts"]
        if isinstance(source_id, str):
            self._take_prompt(kind, source_id, line)
            return
        self.state.fold(line)
        if kind == "run":
            self.run, self.first, self.end, self.final, self.taken_back = line, line["ts"], {}, False, False
            self.cut_over = False
        elif kind == "merged":  # what the runs of all have come to, as if they were one
            self.end, self.final = line, True
            self.listed = {"count": line["counts"]["listed"], "selected": line["counts"]["selected"]}
        elif kind == "end":
            self.end, self.final = line, True
        elif kind == "listed":
            self.listed = line

    def _take_prompt(self, kind: str, source_id: str, line: Mapping[str, Json]) -> None:
        if kind == "moved":
            self._count(line["was"], -1)
        self._count(source_id, -1)
        if kind != "created" or not self.state.make_first(source_id, line):  # most are, and it costs half
            self.state.fold(line)
        if kind == "moved":
            self._move(line["was"], source_id)
        if not self.chosen.everything and self.chosen.takes_line(line):
            self._picked.add(source_id)
        self.told = self._count(source_id, 1)
        self.final &= kind in _AFTER
        self.taken_back |= kind == "rolled_back" and bool(self.end) and line.get("result") != "kept"
        self.cut_over |= kind == "published" and bool(self.end) and line.get("result") in ("published", "already")
        self.failed.pop(source_id, None)
        if kind == "failed":
            self.failed[source_id] = line
        elif kind == "verified":
            self.verified[source_id] = line["result"]
        elif kind in ("created", "updated", "rolled_back"):
            self.verified.pop(source_id, None)

    def _count(self, source_id: str, by: int) -> tuple[Word, str] | None:
        """What is said of it, counted once more or less."""
        said = self.state.records.said_of(source_id)
        if said is not None:
            picked = self._is_picked(source_id)
            self._said[(*said, picked)] += by
            if said[0] in _REASONED:
                self._why[said[0], self.state.records.reason_of(source_id) or NO_WORD, picked] += by
        return said

    def _is_picked(self, source_id: str) -> bool:
        return self.chosen.everything or source_id in self._picked

    def _move(self, was: str, source_id: str) -> None:
        """What was said of a prompt under its old id holds under the new one."""
        if was in self._picked:
            self._picked.add(source_id)
        if was in self.failed:
            self.failed[source_id] = {**self.failed.pop(was), "source_id": source_id}
        if was in self.verified:
            self.verified[source_id] = self.verified.pop(was)

    def notes(self) -> list[str]:
        """That none of the prompts that the ledger speaks of is chosen, where that is so."""
        return self.chosen.takes_none(len(self._picked), len(self.state.records), "prompts that the ledger speaks of")

    def outcome(self, status: Word, run: str) -> str:
        """What became of a prompt of which a run last said this, as the newest run sees it."""
        return outcome_of(Record(status, run=run), run if run in self.state.newest else self.state.last_run)

    def status(self, path: Path) -> Status:
        """Of the ledger at `path`, as far as its lines were taken."""
        run, end = self.state.last_run, self.end
        counts, this_run = self._counts()
        seconds = end["duration_s"] if end.get("kind") == "merged" else self._seconds()
        settled = sum(
            n for (status, of, _), n in self._said.items() if of in self.state.newest and status not in DOUBTFUL
        )
        failed = [line for source_id, line in self.failed.items() if self._is_picked(source_id)]
        verified = Counter(result for source_id, result in self.verified.items() if self._is_picked(source_id))
        return Status(
            migration=self.run.get("migration") or "",
            run=run or "",
            mode=self.run.get("mode") or "",
            going_on=run is not None and not end,
            exit_code=end.get("exit_code"),
            reason=end.get("reason"),
            next=self._next(),
            counts=counts,
            this_run=this_run,
            reasons=self._reasons(),
            orphaned=end.get("orphaned"),
            verified=dict(verified) or None,
            requests=end.get("requests"),
            throttle=end.get("throttle"),
            duration_s=end.get("duration_s") or seconds,
            rate=round(settled / seconds, 1) if seconds else 0.0,
            failed=[_failed(line) for line in failed],
            why=dict(Counter(str(line.get("error")) for line in failed).most_common()),
            ledger=str(path),
        )

    def _next(self) -> str:
        if not self.run and not self.end:
            return NOT_BEGUN
        if self.taken_back:
            return TAKEN_BACK
        if not self.end:
            return GOES_ON
        told = str(self.end.get("next") or "")
        code = self.end.get("exit_code")
        open_still = told if code and code != EXIT_DIFFERENT else ""
        if not {"differs", "missing"}.isdisjoint(self.verified.values()):
            return f"{UNPROVED} {open_still}".rstrip()
        if self.cut_over and not open_still and not any(one.rare.staged for _, one in self.state.records.whole_items()):
            return CUT_OVER
        return PROVED if code == EXIT_DIFFERENT else told

    def _counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Of the chosen; prompts that no line speaks of are known by number only, when all are asked for.

        Which of those made earlier a run did not come to is known to the books that it ended with.
        """
        if self.chosen.everything and self.final and "this_run" in self.end:
            return dict(self.end["counts"]), dict(self.end["this_run"])
        counts: Counter[str] = Counter()
        this_run: Counter[str] = Counter()
        for (status, run, picked), number in self._said.items():
            if picked:
                counts[self.outcome(status, run)] += number
            if picked and run in self.state.newest:
                this_run[self.outcome(status, run)] += number
        if self.chosen.everything:
            counts["not_started"] += max(0, self.listed.get("selected", 0) - counts.total())
        for outcome in ("unchanged", "not_started"):
            this_run[outcome] = counts[outcome]
        head = {"listed": self.listed.get("count", 0), "selected": counts.total()}
        return head | {name: counts[name] for name in OUTCOMES}, {name: this_run[name] for name in OUTCOMES}

    def _reasons(self) -> Reasons:
        found: Counter[tuple[str, str]] = Counter()
        for (status, why, picked), number in self._why.items():
            if picked:
                found[outcome_of(Record(status), None), why] += number
        return ranked(found)

    def _seconds(self) -> float:
        """From the newest run's first line to the last one."""
        if not self.first:
            return 0.0
        seconds = (datetime.fromisoformat(self.last) - datetime.fromisoformat(self.first)).total_seconds()
        return max(0.0, seconds)  # a clock may be set back meanwhile


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
    reasons: Reasons
    """Why prompts failed, conflict, are unresolved or were skipped; the most frequent first."""
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
    return read_fold(path, chosen).status(path)


def read_fold(path: Path, chosen: Chosen) -> StatusFold:
    """All lines that are there, taken. Raises what `entries` raises."""
    found = StatusFold(chosen)
    for line in entries(path):
        found.take(line)
    return found


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
        advice=advice_on(reading.verdict),
    )


def advice_on(verdict: Condition) -> str:
    """What can be done with a ledger in this condition."""
    return " ".join(_advice(verdict.kind, verdict.line))


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
