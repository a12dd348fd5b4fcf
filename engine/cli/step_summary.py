"""`GITHUB_STEP_SUMMARY`: the summary of a run in Markdown, on the page of the workflow that ran it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from engine.ledger.remedies import remedy
from engine.ledger.report import OUTCOMES, Reasons, together

_SPECIAL: Final = re.compile(r"[\\`*_{}\[\]()<>#+!|~&$@]")
_MOST: Final = 500
"""Rows and notes: GitHub drops a summary of more than a mebibyte."""


def append_step_summary(file: Path, summary: Mapping[str, Any]) -> None:
    """That it cannot be written is said on stderr and changes nothing else."""
    try:
        with file.open("a", encoding="utf-8", errors="backslashreplace") as page:
            page.write(markdown(summary))
    except OSError as error:
        print(f"warning: GITHUB_STEP_SUMMARY {file}: cannot be written: {error.strerror}", file=sys.stderr)


def markdown(summary: Mapping[str, Any]) -> str:
    """Of a run or of a fleet's; nothing in it can be taken for markup."""
    parts = list(_fleet(summary) if "migrations" in summary else _run(summary))
    return "\n\n".join(parts) + "\n\n"


def _run(summary: Mapping[str, Any]) -> Iterator[str]:
    counts = summary["counts"]
    yield _head(summary, summary["migration"])
    if summary["message"]:
        yield plain(summary["message"])
    rows = [(name.replace("_", " "), counts[name]) for name in ("listed", "selected")]
    rows += [(name.replace("_", " "), counts[name]) for name in OUTCOMES if counts[name]]
    yield _table(("prompts", ""), rows)
    yield from _reasons(summary["reasons"])
    yield from _end(summary)
    if notes := summary.get("notes"):
        yield "\n".join([*(f"- {plain(note)}" for note in notes[:_MOST]), *_more(notes)])


def _fleet(summary: Mapping[str, Any]) -> Iterator[str]:
    migrations = summary["migrations"]
    yield _head(summary, summary["fleet"])
    if summary["message"]:
        yield plain(summary["message"])
    there = [name for name in OUTCOMES if summary["counts"][name]]
    head = ("migration", "exit code", "reason", "selected", *(name.replace("_", " ") for name in there))
    rows = [_row(one, there) for one in migrations[:_MOST]]
    yield _table(head, [*rows, ("total", summary["exit_code"], "", *_counts(summary, there))])
    yield from _more(migrations)
    yield from _reasons(together(one["reasons"] for one in migrations))
    yield from _end(summary)


def _reasons(reasons: Reasons) -> Iterator[str]:
    rows = [
        (f"{name}: {why.replace('_', ' ')}", count, remedy(name, why).advice)
        for name, of in reasons.items()
        for why, count in of.items()
    ]
    if rows:
        yield _table(("why", "prompts", "what to do"), rows[:_MOST])
        yield from _more(rows)


def _row(one: Mapping[str, Any], there: Iterable[str]) -> tuple[Any, ...]:
    return (one["migration"], one["exit_code"], one["reason"].replace("_", " "), *_counts(one, there))


def _counts(one: Mapping[str, Any], there: Iterable[str]) -> list[int]:
    return [one["counts"][name] for name in ("selected", *there)]


def _head(summary: Mapping[str, Any], name: str) -> str:
    reason = summary["reason"].replace("_", " ")
    return f"### {plain(f'promptferry {name}'.rstrip())}: {reason} (exit code {summary['exit_code']})"


def _end(summary: Mapping[str, Any]) -> Iterator[str]:
    asked = summary["requests"]
    yield f"{asked['total']} requests, {asked['throttled']} of them throttled, in {summary['duration_s']:.1f} s"
    yield plain(summary["next"])


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    cells = [tuple(plain(str(cell)) for cell in row) for row in (head, *rows)]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|---" * len(cells[0]) + "|", *lines[1:]])


def _more(things: Any) -> list[str]:
    return [f"and {len(things) - _MOST} more"] if len(things) > _MOST else []


def plain(text: str) -> str:
    """On one line, and without a meaning in Markdown or HTML."""
    return _SPECIAL.sub(lambda one: f"\\{one[0]}", " ".join(text.split()))
