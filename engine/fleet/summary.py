"""From the summaries of its migrations to that of a fleet. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from engine.errors import EXIT_ACT, EXIT_DIFFERENT, EXIT_OK, EXIT_RETRY, EXIT_UNFINISHED
from engine.fleet.common import worst
from engine.ledger.report import SCHEMA, Summary, nothing

STATES: Final = ("done", "unfinished", "differs", "stopped", "not_started")
"""What became of a migration: their sum is how many there are."""
_STATE_OF: Final = {
    EXIT_OK: "done",
    EXIT_UNFINISHED: "unfinished",
    EXIT_DIFFERENT: "differs",
    EXIT_ACT: "stopped",
    EXIT_RETRY: "stopped",
}
_NAMED: Final = 3
"""Names that a sentence is said of."""
_SENTENCES: Final = 5
NO_REQUESTS: Final = dict.fromkeys(("total", "reads", "writes", "retries", "throttled"), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSummary:
    """The end of `fleet run`: one line of JSON on stdout."""

    schema: int = SCHEMA
    fleet: str
    exit_code: int
    """The worst of all: 4 over 75 over 1 over 3."""
    reason: str
    """That of the migration with this exit code, the first of them."""
    message: str
    """What went wrong where; empty when nothing did."""
    next: str
    states: Mapping[str, int]
    """State -> migrations."""
    counts: Mapping[str, int]
    """Prompts, over all migrations; of one that was not started, as its ledger has them."""
    this_run: Mapping[str, int]
    requests: Mapping[str, int]
    duration_s: float
    migrations: Sequence[Summary]

    def to_json(self) -> dict[str, Any]:
        """The object of `--json` and `--summary`."""
        return asdict(self)


def summarise(
    fleet: str, migrations: Sequence[Summary], *, not_started: Collection[str], duration_s: float
) -> FleetSummary:
    """The whole. `not_started`: names of those that were left when the end was asked for."""
    exit_code = worst([one.exit_code for one in migrations])
    first = next((one for one in migrations if one.exit_code == exit_code), None)
    states = Counter(state_of(one, not_started) for one in migrations)
    return FleetSummary(
        fleet=fleet,
        exit_code=exit_code,
        reason=first.reason if first is not None else "done",
        message=_told((one.message, one.migration) for one in migrations if one.message),
        next=_advice(migrations),
        states={name: states[name] for name in STATES},
        counts=_sum(nothing()[0], (one.counts for one in migrations)),
        this_run=_sum(nothing()[1], (one.this_run for one in migrations)),
        requests=_sum(NO_REQUESTS, (one.requests for one in migrations)),
        duration_s=duration_s,
        migrations=migrations,
    )


def state_of(summary: Summary, not_started: Collection[str]) -> str:
    """What became of one migration, in a word of STATES."""
    return "not_started" if summary.migration in not_started else _STATE_OF[summary.exit_code]


def _sum(zero: Mapping[str, int], parts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    whole = dict(zero)
    for part in parts:
        for name in whole:
            whole[name] += part[name]
    return whole


def _advice(migrations: Sequence[Summary]) -> str:
    """What to do about the worst of them."""
    exit_code = worst([one.exit_code for one in migrations])
    if exit_code == EXIT_OK:
        written = any(one.counts["created"] or one.counts["updated"] for one in migrations)
        points = "Point applications to the replicas: `promptferry ids LEDGER` prints the map old to new of each."
        return points if written else "Nothing to do."
    advice = {one.next for one in migrations}
    if len(advice) == 1:
        return advice.pop()
    return _told((one.next, one.migration) for one in migrations if one.exit_code == exit_code)


def _told(pairs: Iterable[tuple[str, str]]) -> str:
    """The first of these sentences, each with the names it is said of."""
    groups = list(_alike(pairs).items())
    told = [f"{_named(names)}: {sentence.removesuffix('.')}" for sentence, names in groups[:_SENTENCES]]
    if rest := sum(len(names) for _, names in groups[_SENTENCES:]):
        told.append(f"see `migrations` for {rest} more")
    return "; ".join(told)


def _alike(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Sentence -> names, in the order in which they come."""
    found: dict[str, list[str]] = {}
    for sentence, name in pairs:
        found.setdefault(sentence, []).append(name)
    return found


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
