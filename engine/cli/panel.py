"""How the live display is drawn: what a narrow terminal has no room for is cut off its bar and the ends of lines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import TYPE_CHECKING, Final

from engine.cli.figures import Figures, Pace
from engine.http.limiter import Requests
from engine.ledger.report import OUTCOME_OF

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_WORDS: Final = {kind: word for kind, word in {**OUTCOME_OF, "unknown": "not answered"}.items() if kind != "intent"}
"""Kind of outcome -> its word, in the order of the books."""
_STAGES: Final = {"migrating": "", "looking up what is in doubt": "looking up"}
"""What is said of a part."""
_NAME: Final = 32
"""Columns of a name at most."""
_LABEL: Final = 9


def on_stderr() -> Console:
    """Where a display is drawn."""
    from rich.console import Console

    return Console(file=sys.stderr)


def panel(name: str, now: Figures, pace: Pace, below: Iterable[tuple[str, Figures]] = ()) -> RenderableType:
    """The whole display. `below`: parts of the whole, each with a bar of its own."""
    from rich.console import Group

    return Group(_bars(name, now, pace, below), _facts(now, pace))


def _bars(name: str, now: Figures, pace: Pace, below: Iterable[tuple[str, Figures]]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(style="bold", no_wrap=True, overflow="ellipsis", max_width=_NAME)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=5)
    table.add_column(justify="right", no_wrap=True)
    parts = [(f"  {part}", one, _STAGES.get(one.stage, one.stage)) for part, one in below]
    for title, one, left in [(name, now, _left(now, pace)), *parts]:
        bar = ProgressBar(total=one.total or 1, completed=one.done)
        share = f"{100 * one.done // one.total} %" if one.total else ""
        table.add_row(title, bar, f"{one.done:,}/{one.total:,} prompts", share, left)
    return table


def _left(now: Figures, pace: Pace) -> str:
    if now.done >= now.total:
        return ""
    return f"{duration(pace.left_s)} left" if pace.left_s is not None else "-:-- left"


def duration(seconds: float) -> str:
    """`45 s`, `2 min 10 s`, `1 h 05 min`."""
    whole = ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60:02d} min"


def _facts(now: Figures, pace: Pace) -> Table:
    from rich.table import Table

    table = Table.grid(expand=True, padding=(0, 1))
    table.add_column(style="dim", no_wrap=True, min_width=_LABEL)
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    table.add_row("prompts", _joined(_prompts(now, pace)))
    table.add_row("requests", _joined(_requests(now, pace)))
    if throttle := _joined(_throttle(now)):
        table.add_row("throttle", throttle, style="bold yellow" if now.pause else "yellow")
    for kind, style in (("failed", "red"), ("conflict", "yellow")):
        if why := _joined(_reasons(kind, now.why)):
            table.add_row(_WORDS[kind], why, style=style)
    return table


def _joined(parts: Iterable[str]) -> str:
    return " · ".join(part for part in parts if part)


def _prompts(now: Figures, pace: Pace) -> Iterator[str]:
    yield f"{pace.prompts:.3g}/s"
    yield now.stage if now.stage != "migrating" else ""
    yield from (f"{now.outcomes[kind]:,} {word}" for kind, word in _WORDS.items() if now.outcomes.get(kind))


def _requests(now: Figures, pace: Pace) -> Iterator[str]:
    sent: Requests = now.requests
    yield f"{pace.requests:.3g}/s of {now.rate:.3g}/s allowed"
    yield f"{now.in_flight} in flight"
    yield f"{sent.total:,} sent"
    yield f"{sent.retries:,} repeated" if sent.retries else ""
    yield f"{sent.reads:,} reads, {sent.writes:,} writes"


def _throttle(now: Figures) -> Iterator[str]:
    yield now.pause
    yield f"{now.requests.throttled:,} throttled" if now.requests.throttled else ""
    yield f"paused {duration(now.paused_s)} in all" if now.paused_s >= 1 else ""
    yield f"takes about {now.limit:.3g}/s" if now.limit is not None and now.requests.throttled else ""


def _reasons(kind: str, why: Mapping[tuple[str, str], int]) -> Iterator[str]:
    """The most frequent first."""
    for (of, reason), count in sorted(why.items(), key=lambda one: -one[1]):
        if of == kind:
            yield f"{count:,} {reason.replace('_', ' ')}"
