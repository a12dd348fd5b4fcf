"""`status`, once or until the run has ended: redrawn in place on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from engine.cli import show
from engine.cli.common import note, run_async, say
from engine.content.filter import Chosen
from engine.errors import Stop
from engine.ledger.follow import follow
from engine.ledger.holder import Holder, Life, holder_of, life_of
from engine.ledger.report import OUTCOMES
from engine.ledger.status import Status, StatusFold, read_fold
from engine.lossless_json import encode

REDRAW_S: Final = 0.5
LINE_S: Final = 1.0
"""The shortest time between two lines."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A ledger at one moment, and who holds it."""

    status: Status
    life: Life
    holder: Holder | None
    with_failed: bool

    @property
    def over(self) -> bool:
        """Nothing more will come of this run."""
        return self.life in ("ended", "killed")

    def text(self) -> str:
        """All of it."""
        return show.status(self.status, with_failed=self.with_failed, life=self.life, holder=self.holder)

    def line(self) -> str:
        """In short."""
        counts = self.status.counts
        if not self.status.run:
            return self.text()
        left = counts["not_started"] + counts["unresolved"]
        settled = f"{counts['selected'] - left:,} of {counts['selected']:,} prompts settled"
        parts = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in OUTCOMES if counts[name]]
        said = f"ended: {self.status.reason or ''}".replace("_", " ") if not self.status.going_on else self.life
        return f"{self.status.migration}: {settled} ({', '.join(parts)}), {self.status.rate:g} a second, {said}"

    def json(self) -> str:
        """The object of `--json`."""
        pid = self.holder.pid if self.holder is not None else None
        value: dict[str, Any] = self.status.to_json(with_failed=self.with_failed)
        return encode(value | {"life": self.life, "process": pid}).decode()


def tell_status(ledger: Path, chosen: Chosen, *, with_failed: bool, as_json: bool) -> None:
    """Once. Raises what reading a ledger raises."""
    holder = holder_of(ledger)
    fold = read_fold(ledger, chosen)
    seen = _seen(fold, ledger, holder, with_failed)
    say(seen.json() if as_json else seen.text())
    note(fold.notes())


def follow_status(ledger: Path, chosen: Chosen, *, with_failed: bool, as_json: bool) -> None:
    """Until the newest run has ended and nobody holds the ledger any more, or until a signal; waits for a ledger that
    is not there yet. Raises EngineError when nobody can go on with it.
    """
    how = {"with_failed": with_failed}
    in_place = sys.stdout.isatty() and not as_json
    try:
        run_async(lambda: _redrawn(ledger, chosen, **how) if in_place else _lines(ledger, chosen, as_json, **how))
    except Stop as stop:
        if stop.reason != "interrupted":  # who stops looking has seen enough
            raise


async def _lines(ledger: Path, chosen: Chosen, as_json: bool, *, with_failed: bool) -> None:
    async with aclosing(_each(ledger, chosen, LINE_S, with_failed)) as all_seen:
        async for seen in all_seen:
            if not say(seen.json() if as_json else seen.text() if seen.over else seen.line()):
                return


async def _redrawn(ledger: Path, chosen: Chosen, *, with_failed: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    seen: Seen | None = None
    try:
        with Live(console=Console(), auto_refresh=False, transient=True) as live:
            async with aclosing(_each(ledger, chosen, REDRAW_S, with_failed)) as all_seen:
                async for seen in all_seen:
                    live.update(Text(seen.text()), refresh=True)
    finally:
        if seen is not None:
            say(seen.text())


async def _each(ledger: Path, chosen: Chosen, interval: float, with_failed: bool) -> AsyncGenerator[Seen, None]:
    """What is seen whenever it is something else; the last is of a run that is over."""
    fold, last = StatusFold(chosen), None
    async with aclosing(follow(ledger, interval=interval)) as all_news:
        async for news in all_news:
            if news.refusal is not None:
                raise news.refusal
            if news.anew:
                fold = StatusFold(chosen)
            for line in news.lines:
                fold.take(line)
            if news.behind or (seen := _seen(fold, ledger, news.holder, with_failed)) == last:
                continue
            yield seen
            if seen.over:
                return
            last = seen


def _seen(fold: StatusFold, ledger: Path, holder: Holder | None, with_failed: bool) -> Seen:
    return Seen(fold.status(ledger), life_of(fold.run, fold.end, holder), holder, with_failed)
