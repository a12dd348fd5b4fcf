"""From the state of a ledger to what a person or a scheduler reads. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from engine.content.shard import Shard
from engine.errors import EXIT_ACT, EXIT_DIFFERENT, EXIT_OK, EXIT_UNFINISHED, Stop
from engine.ledger.remedies import remedy
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
WITH_REASON: Final = ("failed", "conflicts", "unresolved", "skipped")
"""Those of which the ledger says why."""
NO_WORD: Final = "no word after its intent"
"""Why a prompt is unresolved of which nothing more is known."""
Reasons = Mapping[str, Mapping[str, int]]
"""Outcome -> why -> prompts."""

OUTCOME_OF: Final = {
    "created": "created",
    "updated": "updated",
    "unchanged": "unchanged",
    "skipped": "skipped",
    "failed": "failed",
    "conflict": "conflicts",
    "intent": "unresolved",
    "unknown": "unresolved",
}
"""Kind of a prompt's last line -> what has become of it, in the order of the books."""


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
    reasons: Reasons = field(default_factory=dict)
    """Why the selected prompts failed, conflict, are unresolved or were skipped; the most frequent first."""
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
    if record is None or record.status not in OUTCOME_OF:
        return "not_started"
    outcome = OUTCOME_OF[record.status]
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


def why(state: State, selected: Iterable[str]) -> Counter[tuple[str, str]]:
    """(outcome, why) -> prompts, of those that have a reason."""
    found: Counter[tuple[str, str]] = Counter()
    for source_id in selected:
        said = state.records.said_of(source_id)
        if said is not None and (outcome := OUTCOME_OF.get(said[0])) in WITH_REASON:
            found[outcome, state.records.reason_of(source_id) or NO_WORD] += 1
    return found


def ranked(found: Mapping[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    """By outcome, the most frequent reason first."""
    order = sorted(found.items(), key=lambda one: (-one[1], one[0][1]))
    whole = {name: {why: count for (outcome, why), count in order if outcome == name and count} for name in WITH_REASON}
    return {name: reasons for name, reasons in whole.items() if reasons}


def together(parts: Iterable[Reasons]) -> dict[str, dict[str, int]]:
    """The reasons of several migrations."""
    whole: Counter[tuple[str, str]] = Counter()
    for part in parts:
        whole.update({(outcome, why): count for outcome, of in part.items() for why, count in of.items()})
    return ranked(whole)


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


_REST: Final = "Run the same command again for the rest."


def verdict(
    chosen: Mapping[str, int],
    *,
    stop: Stop | None,
    limited: bool,
    problem: str | None,
    kept: bool = False,
    mode: str = "replicate",
    proved: bool = True,
) -> tuple[int, str, str]:
    """Exit code, reason, and what to do now. `chosen` are the counts of the prompts that this run was about; `kept`:
    some of them failed so that a plain run leaves them alone until something changes; `mode`: replicate | staged | in
    place; `proved`: no replica was found to differ when the run was verified at its end.
    """
    if stop is not None:
        return stop.exit_code, stop.reason, stop.next
    if problem is not None:
        return EXIT_ACT, "failures", "Report this with the ledger: the numbers above cannot be trusted."
    if sentence := _open(chosen, kept=kept):
        return EXIT_UNFINISHED, "failures", f"{sentence} {_REST}" if limited and chosen["not_started"] else sentence
    if not proved:
        return EXIT_DIFFERENT, "failures", "See what differs with `promptferry verify`."
    if limited:
        return EXIT_OK, "limit", _REST
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


def of_shard(sentence: str, shard: Shard, exit_code: int) -> str:
    """The same of a run that was about a part of the prompts."""
    done = " When every shard is done, `promptferry ledger merge` makes one ledger of theirs."
    return shard.said(sentence) + (done if exit_code == EXIT_OK else "")


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
    lines.extend(reasons_table(summary.reasons))
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


def reasons_table(reasons: Reasons) -> Iterator[str]:
    """A line for each reason, with what to do about it; nothing where there is none."""
    rows = [(name, why, count) for name, of in reasons.items() for why, count in of.items()]
    width = max((len(name) + len(why) for name, why, _ in rows), default=0) + 2
    for name, why, count in rows:
        title = f"{name}: {why.replace('_', ' ')}"
        yield f"  {count:>7,}  {title:<{width}}  {remedy(name, why).advice}"


def counted(results: Mapping[str, int], nothing: str = "nothing") -> str:
    """`12 same, 1 differs`."""
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in results.items() if count) or nothing


def several(number: int, what: str) -> str:
    """`1 prompt`, `2,000 prompts`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
