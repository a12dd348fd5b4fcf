"""Progress while a run goes on: a live display on a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final

import anyio

from engine.cli.figures import Stopwatch, figures, told
from engine.cli.panel import on_stderr, panel
from engine.log import log
from engine.run import Live

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

LINE_EVERY_S: Final = 30.0
REFRESH_S: Final = 0.25


def watch() -> Callable[[Live], Coroutine[Any, Any, None]]:
    """What fits stderr."""
    return live_display if sys.stderr.isatty() else progress_lines


async def progress_lines(live: Live) -> None:
    """One log line every 30 s."""
    stopwatch = Stopwatch()
    stopwatch.see(figures(live))
    while True:
        await anyio.sleep(LINE_EVERY_S)
        now = figures(live)
        log.info("run.progress", stage=now.stage, **told(now, stopwatch.see(now)))


async def live_display(live: Live, console: Console | None = None) -> None:
    """Bar, prompts, requests, what throttles them and why prompts fail, until it is cancelled."""
    stopwatch = Stopwatch()

    def drawn() -> RenderableType:
        now = figures(live)
        return panel(live.migration, now, stopwatch.see(now))

    await redrawn(drawn, console)


async def redrawn(drawn: Callable[[], RenderableType], console: Console | None = None) -> None:
    """Draws it in place again and again, until it is cancelled; what was drawn last stays."""
    from rich.live import Live as Display

    with Display(console=console or on_stderr(), auto_refresh=False) as display:
        try:
            while True:
                display.update(drawn(), refresh=True)
                await anyio.sleep(REFRESH_S)
        finally:
            display.update(drawn(), refresh=True)
