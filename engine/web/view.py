"""What the page shows, folded from the lines of a ledger one by one. Pure: no file, no clock.

Nothing of it is kept twice: what became of prompts is `ledger.status`'s fold, and a prompt's row is some 400 bytes.
Times are epoch seconds.
"""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from marshal import loads
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import orjson

from engine.errors import EXIT_DIFFERENT, EXIT_OK, EXIT_UNFINISHED
from engine.ledger.file import check_command
from engine.ledger.holder import Life
from engine.ledger.lines import Condition
from engine.ledger.remedies import remedy
from engine.ledger.report import OUTCOMES
from engine.ledger.status import Status, StatusFold, advice_on
from engine.model import Json
from engine.model.packed import packed, packed_key
from engine.web.encoding import encoded
from engine.web.timeline import Timeline

SCHEMA: Final = 1
RUNS_SHOWN: Final = 50
"""Of more runs, the newest are shown."""
_TIMELINES: Final = 12
_AT_ONCE: Final = 4096
"""Rows that are unpacked at once: of a hundred thousand each value apart would take a hundred megabytes."""
_WHOLE: Final = Condition("whole", 1, 0)
_OPEN: Final = ("failed", "conflicts", "unresolved", "not_started")
_TOLD: Final = ("failed", "conflict", "skipped", "unknown")
"""Kinds whose lines say why."""
_WHY: Final = ("stage", "status", "code", "message")
"""Fields of these lines that are shown of one prompt."""
_RUN_FIELDS: Final = ("ts", "version", "actor", "host", "reason", "approvals", "shard", "mode")
_END_FIELDS: Final = ("ts", "reason", "exit_code", "next", "counts", "this_run", "requests", "throttle", "duration_s")
_PUT: Final = ("target_id", "target_slug", "name", "source_slug")
_BEFORE: Final = {"name": "before_name", "collection": "before_collection", "published version": "before_version"}
_REASONS_WITH_A_REMEDY: Final = ("failed", "conflicts", "unresolved", "skipped")


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is on the page and in no ledger. `asked`: (key of the migration file, its value as text). `command`: how the
    migration is named in commands. `console`: of an end as a ledger names it (kind, address, workspace) the address of
    one prompt in its console, with {id}, {slug} or {name} in it; empty where none is known. `notes`: sentences.
    """

    asked: Sequence[tuple[str, str]] = ()
    command: str = "MIGRATION"
    console: Callable[[str], str] = lambda end: ""
    notes: Sequence[str] = ()


@dataclass(slots=True)
class _Row:
    """One prompt. Texts that many share are numbers, see `View.texts`."""

    source_id: str
    source_name: str | None = None
    source_collection: int = 0
    said: int = 0
    reason: int = 0
    at: int = 0
    """When its newest line was written."""
    attempts: int = 0
    target_id: str | None = None
    target_slug: str | None = None
    name: str | None = None
    source_slug: str | None = None
    source_version: int = 0
    target_version: int = 0
    models: int = 0
    """The model before and after, see `View.models`."""
    changes: int = 0
    verified: int = 0
    retriable: bool = False
    more: str | None = None
    """A JSON object of what few prompts have."""


_FIELDS: Final = tuple(_Row.__slots__)
_flat = attrgetter(*_FIELDS)
COLUMNS: Final = {
    "id": "source_id",
    "name": "source_name",
    "collection": "source_collection",
    "said": "said",
    "reason": "reason",
    "at": "at",
    "attempts": "attempts",
    "target": "target_id",
    "target_slug": "target_slug",
    "replica": "name",
    "slug": "source_slug",
    "version": "source_version",
    "target_version": "target_version",
    "models": "models",
    "changes": "changes",
    "verified": "verified",
}
"""Column of the page -> field of a row."""


_SHARED: Final = ("source_collection", "reason", "source_version", "target_version", "verified")
"""Fields that hold the number of a text."""
_PLAIN: Final = ("source_id", "source_name", "source_slug", "target_id", "target_slug", "name", "at", "attempts")


@dataclass(slots=True)
class _Numbered:
    """Values by the number under which rows keep them; 0 is None."""

    values: list[Any] = field(default_factory=lambda: [None])
    numbers: dict[Any, int] = field(default_factory=lambda: {None: 0})

    def of(self, value: Any) -> int:
        number = self.numbers.get(value)
        if number is None:
            number = self.numbers[value] = len(self.values)
            self.values.append(value)
        return number


class View:
    """Give it each good line, first to last, and ask for `summary` and `rows` whenever they are wanted."""

    def __init__(self, path: Path, beside: Beside | None = None, *, generation: int = 0) -> None:
        """`generation`: another one for each file that was at `path`: a browser then forgets the rows of the last."""
        self.path = path
        self.beside = beside or Beside()
        self.generation = generation
        self.revision = 0
        """Lines that were taken."""
        self.fold = StatusFold()
        self.runs: list[dict[str, Any]] = []
        self._timelines: dict[str, Timeline] = {}
        self._texts, self._said, self._models, self._changes = _Numbered(), _Numbered(), _Numbered(), _Numbered()
        self._numbers: dict[bytes, int] = {}
        self._rows: list[bytes] = []
        self._changed = array("Q")
        """Revision of each row's last change."""
        self._groups: Counter[tuple[int, int, bool]] = Counter()
        """(said, reason, retriable) -> prompts."""
        self._flow: Counter[int] = Counter()
        self._cut_over: Counter[str] = Counter()
        self._taken_back: Counter[str] = Counter()
        self._completions: Counter[tuple[str, bool]] = Counter()
        self._answers: dict[str, Json] | None = None
        """What the newest comparison of answers came to."""
        self._attempts: dict[str, int] = {}
        self._parts: dict[tuple[str, str], dict[str, Json]] = {}
        self._stamp, self._at = "", 0.0

    # ---- in ----------------------------------------------------------------------------------------------------------

    def take_all(self, lines: Sequence[Mapping[str, Json]]) -> None:
        """The next good lines: the same as to take each, at two thirds of the price."""
        settled = set(_settled(lines))
        for place, line in enumerate(lines):
            if place in settled:
                self._pass(line)
            else:
                self.take(line)

    def _pass(self, line: Mapping[str, Json]) -> None:
        """An intent that a `created` follows leaves no trace but its time and how often it was tried."""
        self._next(line)
        if (timeline := self._timelines.get(line["run"])) is not None:
            timeline.take(self._at, line["kind"], line["source_id"], line)
        if (attempt := line.get("attempt") or 1) > 1:
            self._attempts[line["source_id"]] = attempt

    def _next(self, line: Mapping[str, Json]) -> None:
        self.revision += 1
        if line["ts"] != self._stamp:  # a batch has one time
            self._stamp, self._at = line["ts"], datetime.fromisoformat(line["ts"]).timestamp()

    def take(self, line: Mapping[str, Json]) -> None:
        """The next good line."""
        self._next(line)
        self.fold.take(line)
        source_id = line.get("source_id")
        if isinstance(source_id, str):
            self._take_prompt(source_id, line["kind"], line)
        elif isinstance(what := line.get("what"), str):
            self._parts[what, str(line.get("source_slug"))] = _part(line)
        else:
            self._take_run(line["kind"], line)

    def _take_run(self, kind: str, line: Mapping[str, Json]) -> None:
        if kind == "run":
            self.runs.append({"run": line["run"]} | {name: line.get(name) for name in _RUN_FIELDS} | {"end": None})
            self._timelines[line["run"]] = Timeline(self._at)
        elif kind == "merged":
            self.runs.append({"run": line["run"], "ledgers": line["ledgers"], "ts": line["ts"], "end": _end(line)})
        elif kind == "end" and (own := self._run(line["run"])) is not None:
            own["end"] = _end(line)
        elif kind == "pace" and (timeline := self._timelines.get(line["run"])) is not None:
            timeline.pace(self._at, line)
        elif kind == "answers":
            self._answers = {"counts": line["counts"], "at": self._at}

    def _run(self, run: str) -> dict[str, Any] | None:
        return next((one for one in reversed(self.runs) if one["run"] == run), None)

    def _take_prompt(self, source_id: str, kind: str, line: Mapping[str, Json]) -> None:
        number, row = self._row(source_id, line.get("was") if kind == "moved" else None)
        if row.said:  # it was counted
            self._count(row, -1)
        self._tell(row, kind, line)
        self._count(row, 1)
        self._rows[number] = packed(_flat(row))
        self._changed[number] = self.revision
        if (timeline := self._timelines.get(line["run"])) is not None:
            timeline.take(self._at, kind, source_id, line)

    def _row(self, source_id: str, was: Json) -> tuple[int, _Row]:
        """Its place and what is there; a new place where it has none."""
        key = packed_key(source_id)
        if isinstance(was, str) and (moved := self._numbers.pop(packed_key(was), None)) is not None:
            self._numbers[key] = moved
        number = self._numbers.setdefault(key, len(self._rows))
        if number < len(self._rows):
            row = _Row(*loads(self._rows[number]))
            row.source_id = source_id
            return number, row
        self._rows.append(b"")
        self._changed.append(self.revision)
        return number, _Row(source_id)

    def _count(self, row: _Row, by: int) -> None:
        self._groups[row.said, row.reason, row.retriable] += by
        if row.models and row.target_id is not None:
            self._flow[row.models] += by

    def _tell(self, row: _Row, kind: str, line: Mapping[str, Json]) -> None:
        row.at = int(self._at)
        if (name := line.get("source_name")) is not None:
            row.source_name = name
            row.source_collection = self._texts.of(line.get("source_collection"))
        before, row.said = row.said, self._said.of(self.fold.told)
        status = self.fold.told[0] if self.fold.told is not None else ""
        if kind in _TOLD and status == kind:
            self._tell_why(row, kind, line)
        elif row.said != before or status in ("created", "updated"):
            row.reason, row.retriable, row.more = 0, False, None
        if kind == "intent":
            row.attempts = line.get("attempt") or row.attempts + 1
        elif kind in ("created", "updated", "finished", "moved"):
            row.attempts = self._attempts.pop(row.source_id, row.attempts or 1)
            self._tell_made(row, kind, line)
        elif kind == "verified":
            self._tell_verified(row, line)
        elif kind in ("published", "rolled_back"):
            self._tell_after(row, kind, line)

    def _tell_why(self, row: _Row, kind: str, line: Mapping[str, Json]) -> None:
        row.reason = self._texts.of(str(line.get("error") or line.get("reason") or "unknown"))
        row.retriable = bool(line.get("retriable"))
        why = {name: line[name] for name in _WHY if line.get(name) is not None}
        if kind == "conflict" and line.get("target_id") is not None:
            why["in_the_way"] = line["target_id"]
        row.more = _json(why)

    def _tell_made(self, row: _Row, kind: str, line: Mapping[str, Json]) -> None:
        for name in _PUT:
            if (value := line.get(name)) is not None:
                setattr(row, name, value)
        if kind in ("created", "updated"):
            row.verified = 0
            row.target_version = self._text(line.get("after_version") or (1 if kind == "created" else None))
            row.changes, changes = self._changes_of(line)
            row.models = self._models.of((_model_before(line, changes), line.get("model")))
        if line.get("source_version") is not None:
            row.source_version = self._text(line["source_version"])

    def _text(self, value: Json) -> int:
        return self._texts.of(None if value is None else str(value))

    def _changes_of(self, line: Mapping[str, Json]) -> tuple[int, list[list[Json]]]:
        """[field, before, after] of all but the name, which is a column; also of the prompt that an update found."""
        found = [list(change) for change in line.get("changes") or ()]
        if line["kind"] == "updated":
            after = {"published version": line.get("after_version"), **line}
            known = {change[0] for change in found}
            found += [
                [name, line.get(old), after.get(name)]
                for name, old in _BEFORE.items()
                if name not in known and line.get(old) != after.get(name)
            ]
        return self._changes.of(_json(found)), found

    def _tell_verified(self, row: _Row, line: Mapping[str, Json]) -> None:
        row.verified = self._texts.of(line["result"])
        more = json.loads(row.more) if row.more else {}
        more = {**more, "fields": line.get("fields") or [], "completions": line.get("completions") or []}
        kept = {name: value for name, value in more.items() if value}
        row.more = _json(kept)
        for call in line.get("completions") or ():
            self._completions[str(call.get("how")), bool(call.get("answered"))] += 1

    def _tell_after(self, row: _Row, kind: str, line: Mapping[str, Json]) -> None:
        result = str(line.get("result"))
        if kind == "published":
            self._cut_over[result] += 1
            return
        self._taken_back[result] += 1
        row.verified = 0
        if self._status(row) == "rolled_back":
            row.target_id = row.target_slug = row.name = None
            row.target_version = row.changes = row.models = 0
            row.reason = self._texts.of(f"rolled back: {result}")

    def _status(self, row: _Row) -> str:
        said = self._said.values[row.said]
        return str(said[0]) if said else ""

    # ---- out ---------------------------------------------------------------------------------------------------------

    def summary(
        self, condition: Condition = _WHOLE, *, there: bool = True, now: float | None = None, life: Life = "unknown"
    ) -> dict[str, Json]:
        """Everything but the rows, ready for JSON; the same cost however many prompts there are.

        `condition`: how the file ends. `there`: there is a file. `life`: of the newest run, as whoever reads the ledger
        sees it; what is in flight is nothing to worry about. `now`: when this is told.
        """
        status = self.fold.status(self.path)
        return {
            "schema": SCHEMA,
            "revision": self.revision,
            "generation": self.generation,
            "now": now,
            "state": self._state(status, condition, life),
            "status": status.to_json(),
            "migration": self._identity(),
            "asked": [list(pair) for pair in self.beside.asked],
            "command": self.beside.command,
            "links": {end: self.beside.console(str(self.fold.run.get(end) or "")) for end in ("source", "target")},
            "notes": list(self.beside.notes),
            "outcomes": list(OUTCOMES),
            "rows": len(self._rows),
            "told": dict(self._told()),
            "reasons": [one for one in self._reasons() if life != "running" or one["outcome"] != "unresolved"],
            "models": self._models_told(),
            "proof": self._proof(),
            "parts": list(self._parts.values()),
            "runs": self._runs_told(),
            "health": self._health(condition, there=there),
        }

    def _state(self, status: Status, condition: Condition, life: Life) -> str:
        """empty | running | killed | unended (nobody knows which of these two) | finished | open (finished, and not all
        has arrived) | rolled_back (something was, since) | stopped | damaged.
        """
        if condition.kind in ("damaged", "newer", "foreign"):
            return "damaged"
        if self.revision == 0:
            return "empty"
        if status.going_on:
            return life if life in ("running", "killed") else "unended"
        if self.fold.taken_back:
            return "rolled_back"
        if status.exit_code not in (EXIT_OK, EXIT_UNFINISHED, EXIT_DIFFERENT):
            return "stopped"
        return "open" if any(status.counts[name] for name in _OPEN) else "finished"

    def _identity(self) -> dict[str, Json]:
        run = self.fold.run
        return {
            name: run.get(name) for name in ("migration", "mode", "source", "target", "selects", "rules", "version")
        }

    def _outcome(self, said: int) -> str:
        """What became of prompts of which that was said."""
        found = self._said.values[said]
        return self.fold.outcome(*found) if found is not None else "not_started"

    def _told(self) -> Counter[str]:
        """Outcome -> rows."""
        counts: Counter[str] = Counter()
        for (said, _, _), number in self._groups.items():
            counts[self._outcome(said)] += number
        return +counts

    def _reasons(self) -> list[dict[str, Json]]:
        """Why prompts did not arrive, and what to do; the most frequent first."""
        groups: dict[tuple[str, str], Counter[bool]] = {}
        for (said, reason, retriable), number in self._groups.items():
            outcome = self._outcome(said)
            if number and outcome in _REASONS_WITH_A_REMEDY:
                why = self._texts.values[reason] or "no word after its intent"
                groups.setdefault((outcome, why), Counter())[retriable] += number
        order = {outcome: place for place, outcome in enumerate(_REASONS_WITH_A_REMEDY)}
        ranked = sorted(groups.items(), key=lambda group: (order[group[0][0]], -group[1].total(), group[0][1]))
        return [self._reason(outcome, reason, numbers) for (outcome, reason), numbers in ranked]

    def _reason(self, outcome: str, reason: str, numbers: Counter[bool]) -> dict[str, Json]:
        found = remedy(outcome, reason)
        return {
            "outcome": outcome,
            "reason": reason,
            "count": numbers.total(),
            "retriable": numbers[True],
            "meaning": found.meaning,
            "advice": found.advice,
            "command": found.command.replace("MIGRATION", self.beside.command),
        }

    def _models_told(self) -> list[dict[str, Json]]:
        return [
            {"before": self._models.values[number][0], "after": self._models.values[number][1], "count": count}
            for number, count in self._flow.most_common()
            if count
        ]

    def _proof(self) -> dict[str, Json]:
        calls: dict[str, dict[str, int]] = {}
        for (how, answered), number in self._completions.items():
            calls.setdefault(how, {"answered": 0, "failed": 0})["answered" if answered else "failed"] += number
        return {
            "verified": dict(Counter(self.fold.verified.values())),
            "made": sum(self._groups_of("created", "updated")),
            "completions": calls,
            "answers": self._answers,
            "published": dict(self._cut_over),
            "rolled_back": dict(self._taken_back),
        }

    def _groups_of(self, *statuses: str) -> Iterator[int]:
        for (said, _, _), number in self._groups.items():
            found = self._said.values[said]
            if found is not None and found[0] in statuses:
                yield number

    def _runs_told(self) -> list[dict[str, Json]]:
        """The newest first; of few of them, what they did over time."""
        shown = list(reversed(self.runs[-RUNS_SHOWN:]))
        busy = [run["run"] for run in shown if run["run"] in self._timelines and self._timelines[run["run"]].busy]
        drawn = {run: self._timelines[run].to_json() for run in busy[:_TIMELINES]}
        return [{**run, "time": drawn.get(run["run"])} for run in shown]

    def _health(self, condition: Condition, *, there: bool) -> dict[str, Json]:
        return {
            "ledger": str(self.path),
            "there": there,
            "verdict": condition.kind,
            "line": condition.line,
            "lines": self.revision,
            "bytes": condition.offset,
            "runs": len(self.runs),
            "in_doubt": sum(self._groups_of("intent", "unknown")),
            "advice": advice_on(condition) if there and (self.revision or condition.kind != "whole") else "",
            "check": check_command(self.path),
        }

    def rows(self, since: int = 0) -> dict[str, Json]:
        """Rows that changed after that revision, column by column, for `encoded`; 0: all of them, in the order of their
        numbers.

        `number`: the number of each row, left out where they are all of them. `texts`, `models`, `changes`, `said`:
        what stands for the numbers in these columns.
        """
        numbers: Sequence[int] = range(len(self._rows))
        if since:
            numbers = [number for number, changed in enumerate(self._changed) if changed > since]
        columns = {name: bytearray() for name in COLUMNS}
        more: dict[str, orjson.Fragment] = {}
        suffixes = _Numbered()
        for start in range(0, len(numbers), _AT_ONCE):
            some = [loads(self._rows[number]) for number in numbers[start : start + _AT_ONCE]]
            by_name = dict(zip(_FIELDS, zip(*some, strict=True), strict=True))
            more |= {str(start + place): orjson.Fragment(one) for place, one in enumerate(by_name["more"]) if one}
            by_name["name"] = tuple(map(partial(_shortened, suffixes), by_name["source_name"], by_name["name"]))
            for name, own in COLUMNS.items():
                columns[name] += b"," * bool(start) + encoded(by_name[own])[1:-1]
        return {
            "revision": self.revision,
            "generation": self.generation,
            "since": since,
            **({"number": list(numbers)} if since else {}),
            "columns": {name: orjson.Fragment(b"".join((b"[", column, b"]"))) for name, column in columns.items()},
            "more": more,
            "suffixes": _json_of(suffixes.values),
            "texts": _json_of(self._texts.values),
            "models": _json_of(self._models.values),
            "changes": [orjson.Fragment(one) if one else None for one in self._changes.values],
            "said": [[*(said or ("", "")), self._outcome(number)] for number, said in enumerate(self._said.values)],
        }

    def prompts(self) -> Iterator[dict[str, Json]]:
        """One after the other, as JSON is read: every field by its name, with its outcome."""
        for row in (_Row(*loads(one)) for one in self._rows):
            said, models = self._said.values[row.said], self._models.values[row.models]
            before, after = models or (None, None)
            told = {name: getattr(row, name) for name in _PLAIN} | {
                name: self._texts.values[getattr(row, name)] for name in _SHARED
            }
            yield told | {
                "outcome": self._outcome(row.said),
                "run": said[1] if said else None,
                "model": after,
                "source_model": before,
                "changes": [
                    dict(zip(("field", "before", "after"), change, strict=True))
                    for change in json.loads(self._changes.values[row.changes] or "[]")
                ],
                **(json.loads(row.more) if row.more else {}),
            }


def _shortened(suffixes: _Numbered, name: str | None, replica: str | None) -> str | int | None:
    """Most replicas are called as their prompts, and something behind it: the number of that."""
    if replica is None or name is None or not replica.startswith(name):
        return replica
    return suffixes.of(replica[len(name) :])


def _json(value: Sequence[Json] | Mapping[str, Json]) -> str | None:
    """None: there is nothing in it."""
    return encoded(value).decode() if value else None


def _json_of(value: Sequence[Json]) -> orjson.Fragment:
    """To stand in other JSON."""
    return orjson.Fragment(encoded(value))


def _model_before(line: Mapping[str, Json], changes: list[list[Json]]) -> str | None:
    """None: this ledger does not say."""
    found = next((change[1] for change in changes if change[0] == "model"), None)
    return str(found) if found is not None else line.get("model") if "changes" in line else None


def _settled(lines: Sequence[Mapping[str, Json]]) -> Iterator[int]:
    """Places of the intents to create whose prompt's next line is `created`."""
    sent: dict[Json, int] = {}
    for place, line in enumerate(lines):
        kind = line["kind"]
        if kind == "intent" and line.get("op") == "create":
            sent[line.get("source_id")] = place
        elif kind == "moved":
            sent.clear()
        elif (intent := sent.pop(line.get("source_id"), None)) is not None and kind == "created":
            yield intent


def _end(line: Mapping[str, Json]) -> dict[str, Json]:
    return {name: line.get(name) for name in _END_FIELDS}


def _part(line: Mapping[str, Json]) -> dict[str, Json]:
    names = ("what", "source_slug", "kind", "name", "target_id", "target_slug", "result", "error", "message", "ts")
    return {name: line.get(name) for name in names}
