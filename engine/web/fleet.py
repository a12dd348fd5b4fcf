"""The page of many migrations: a row for each, its books, and why prompts did not arrive, over all. Pure; no script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from engine.ledger.report import OUTCOMES, counted
from engine.web.page import policy_of, rendered, style

STATES: Final = {
    "empty": "not started",
    "running": "running",
    "unended": "has not ended",
    "killed": "was killed",
    "stopped": "stopped",
    "rolled_back": "rolled back",
    "damaged": "damaged ledger",
    "finished": "finished",
    "open": "finished, not all arrived",
}
_WIDE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One migration. `summary`: of its `View`. `link`: of its own page, beside this one; empty where there is none."""

    name: str
    summary: Mapping[str, Any]
    link: str = ""


def fleet_page(fleet: str, rows: Sequence[Row], *, now: float) -> bytes:
    """The whole document in UTF-8. `now`: epoch seconds."""
    total = totals(rows)
    return rendered(
        "fleet.html",
        fleet=fleet,
        rows=rows,
        total=total,
        shown=[name for name in OUTCOMES if total[name]],
        reasons=reasons(rows),
        words=STATES,
        parts=_parts,
        sentence=_sentence,
        linked=any(row.link for row in rows),
        when=datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        policy=policy_of({"style-src": [style()]}),
    ).encode()


def totals(rows: Sequence[Row]) -> dict[str, int]:
    """The books of all."""
    total: Counter[str] = Counter({"listed": 0, "selected": 0} | dict.fromkeys(OUTCOMES, 0))
    for row in rows:
        total.update(row.summary["status"]["counts"])
    return dict(total)


def reasons(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Why prompts did not arrive, with the migrations in which that is so; the most frequent first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        for one in row.summary["reasons"]:
            of = found.setdefault((one["outcome"], one["reason"]), {**one, "count": 0, "migrations": []})
            of["count"] += one["count"]
            of["migrations"].append(row.name)
    return sorted(found.values(), key=lambda one: (one["outcome"] == "skipped", -one["count"]))


def _parts(counts: Mapping[str, int]) -> Iterator[tuple[str, float, float]]:
    """Outcome, where its part of the bar begins, and how wide it is."""
    left, whole = 0.0, sum(counts[name] for name in OUTCOMES)
    for name in OUTCOMES:
        if counts[name]:
            width = _WIDE * counts[name] / whole
            yield name, round(left, 2), round(width, 2)
            left += width


def _sentence(counts: Mapping[str, int]) -> str:
    return f"{counts['selected']:,} prompts selected: {counted({name: counts[name] for name in OUTCOMES})}"
