"""From the state of a ledger to what a person or a scheduler reads. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from engine.errors import EXIT_ACT, EXIT_OK, EXIT_UNFINISHED, Stop
from engine.ledger.state import Record, State

SCHEMA: Final = 1
OUTCOMES: Final = (
    "created",
    "updated",
    "unchanged",
    "skipped",
    "failed",
    "conflicts",
    "unresolved",
    "not_started",
)
"""What becomes of a selected prompt: `selected` is the sum of these."""

_OUTCOME_OF: Final = {
    "created": "created",
    "updated": "updated",
    "unchanged": "unchanged",
    "skipped": "skipped",
    "failed": "failed",
    "conflict": "conflicts",
    "intent": "unresolved",
    "unknown": "unresolved",
}


_NAMED: Final = 3
"""Ids that a sentence names."""

END_FIELDS: Final = (
    "reason",
    "counts",
    "exit_code",
    "next",
    "this_run",
    "orphaned",
    "requests",
    "throttle",
    "duration_s",
)
"""What the ledger keeps of a summary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The end of a run: one line of JSON on stdout, and what `run_migration` returns."""

    schema: int = SCHEMA
    migration: str
    run: str
    mode: str
    exit_code: int
    reason: str
    message: str
    """What stopped the run; empty when nothing did."""
    next: str
    counts: Mapping[str, int]
    this_run: Mapping[str, int]
    orphaned: int = 0
    verified: Mapping[str, int] | None = None
    """Result -> replicas, when the run was verified at its end."""
    requests: Mapping[str, int]
    throttle: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """End -> `rate` and `limit` (requests a second; null: none was found), `concurrency`, `paused_s`, as they ended."""
    duration_s: float
    ledger: str
    notes: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """The object of `--json` and `--summary`."""
        return asdict(self)

    def __getitem__(self, name: str) -> Any:
        """A field by its name in the JSON: `summary["counts"]["created"]`."""
        return self.to_json()[name]


def outcome_of(record: Record | None, run: str | None, *, due: bool = False) -> str:
    """What became of one selected prompt, seen from this run (None: from no run).

    `due`: the run had something to do for it. Then what an earlier run made is unchanged only if this one says so.
    """
    if record is None or record.status not in _OUTCOME_OF:
        return "not_started"
    outcome = _OUTCOME_OF[record.status]
    if outcome in ("created", "updated") and record.run != run:
        outcome = "unchanged"
    return "not_started" if due and outcome == "unchanged" and record.told != run else outcome


def books(
    state: State, selected: Iterable[str], due: Collection[str] = (), *, listed: int, run: str
) -> tuple[dict[str, int], dict[str, int]]:
    """`counts` over every selected prompt, and `this_run`: what this run itself did, found unchanged, or left.

    `due`: those for which this run had something to do; of the others no line is needed.
    """
    counts: Counter[str] = Counter()
    this_run: Counter[str] = Counter()
    for source_id in selected:
        record = state.records.get(source_id)
        outcome = outcome_of(record, run, due=source_id in due)
        counts[outcome] += 1
        if outcome in ("unchanged", "not_started") or (record is not None and record.run == run):
            this_run[outcome] += 1
    whole = {"listed": listed, "selected": counts.total()} | {name: counts[name] for name in OUTCOMES}
    return whole, {name: this_run[name] for name in OUTCOMES}


def nothing() -> tuple[dict[str, int], dict[str, int]]:
    """The books of a run that ended before it had listed anything."""
    return {"listed": 0, "selected": 0} | dict.fromkeys(OUTCOMES, 0), dict.fromkeys(OUTCOMES, 0)


def without_outcome(state: State, taken: Iterable[str], run: str) -> list[str]:
    """Those of the prompts taken up of which this run does not say what became of them: nothing at all, or of one that
    it made not that it is whole. A doubt is unresolved, and counted as that.
    """
    records = ((source_id, state.records.get(source_id)) for source_id in taken)
    return [one for one, record in records if record is None or not (record.doubtful or _is_told(record, run))]


def _is_told(record: Record, run: str) -> bool:
    made = record.status in ("created", "updated")
    return record.told == run and not (made and record.rare.pending)


def lost_track(chosen: Mapping[str, int], lost: Sequence[str] = (), *, stop: Stop | None, limited: bool) -> str | None:
    """What is wrong with the books, if anything is: a run that ends by itself has an outcome for every prompt.

    `lost`: see `untold`, which does not trust the counts.
    """
    count = max(len(lost), 0 if limited else chosen["not_started"])
    if stop is not None or not count:
        return None
    among = f" (among them {', '.join(lost[:_NAMED])})" if lost else ""
    return f"the books do not balance: {count} prompts were taken up and have no outcome{among}"


def verdict(
    chosen: Mapping[str, int],
    *,
    stop: Stop | None,
    limited: bool,
    problem: str | None,
    kept: bool = False,
    mode: str = "replicate",
) -> tuple[int, str, str]:
    """Exit code, reason, and what to do now. `chosen` are the counts of the prompts that this run was about; `kept`:
    some of them failed so that a plain run leaves them alone until something changes; `mode`: replicate | staged | in
    place.
    """
    if stop is not None:
        return stop.exit_code, stop.reason, stop.next
    if problem is not None:
        return EXIT_ACT, "failures", "Report this with the ledger: the numbers above cannot be trusted."
    if sentence := _open(chosen, kept=kept):
        return EXIT_UNFINISHED, "failures", sentence
    if limited:
        return EXIT_OK, "limit", "Run the same command again for the rest."
    return EXIT_OK, "done", _done(chosen, mode)


def _open(counts: Mapping[str, int], *, kept: bool) -> str:
    """What a person can do about what did not arrive."""
    parts = []
    if counts["failed"]:
        parts.append("see why prompts failed with `promptferry status --failed`, mend it, and run it again")
        if kept:
            parts[-1] += ", with --retry-failed where neither the prompt nor the rewrite changed"
    if counts["conflicts"]:
        parts.append("rename or remove what is in the way of the conflicts, or say what to do with on_existing")
    if counts["unresolved"]:
        parts.append("run it again to look up what was not answered, and to finish what was begun")
    sentence = "; ".join(parts)
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""


_AFTER_UPDATE: Final = {
    "staged": "Compare it with `promptferry verify`, then cut over with `promptferry publish`.",
    "in place": "Applications get the new versions; compare them with `promptferry verify`.",
}


def _done(counts: Mapping[str, int], mode: str) -> str:
    if counts["updated"] and mode in _AFTER_UPDATE:
        return _AFTER_UPDATE[mode]
    if counts["created"] or counts["updated"]:
        return "Point applications to the replicas: `promptferry ids` prints the map old to new."
    return "Nothing to do."


def _throttled(summary: Summary) -> Iterator[str]:
    """What held the run back, where something did; both ends in one line when they are one workspace."""
    told = set[str]()
    for end, throttle in summary.throttle.items():
        limit, paused = throttle["limit"], throttle["paused_s"] or 0
        found = f"takes about {limit:.3g} requests/s" if limit else ""
        asked = f"asked for {paused:.0f} s of pauses" if paused >= 1 else ""
        if (line := ", ".join(part for part in (found, asked) if part)) and line not in told:
            told.add(line)
            yield f"the {end} {line}"


def to_text(summary: Summary) -> str:
    """The summary for a person."""
    counts = summary.counts
    lines = [f"{summary.migration}: {summary.reason.replace('_', ' ')}"]
    if summary.message:
        lines.append(summary.message)
    lines.append(f"{counts['selected']} of {counts['listed']} prompts selected")
    lines.extend(f"  {counts[name]:>7,}  {name.replace('_', ' ')}" for name in OUTCOMES if counts[name])
    requests = summary.requests
    lines.append(
        f"{requests['total']:,} requests ({requests['retries']:,} repeated, {requests['throttled']:,} throttled) "
        f"in {summary.duration_s:.1f} s; ledger {summary.ledger}"
    )
    lines.extend(_throttled(summary))
    if summary.verified is not None:
        lines.append(f"verified: {counted(summary.verified)}")
    lines.extend(f"note: {note}" for note in summary.notes)
    lines.append(summary.next)
    return "\n".join(lines)


def counted(results: Mapping[str, int], nothing: str = "nothing") -> str:
    """`12 same, 1 differs`."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in results.items() if count) or nothing
