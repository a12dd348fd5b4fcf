"""Progress while a run goes on: a live display on a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, Final

import anyio

from engine.log import log
from engine.run import Live

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

LINE_EVERY_S: Final = 30.0
REFRESH_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Figures:
    """What there is to show."""

    stage: str
    done: int
    """Prompts, as are `total` and `failed`."""
    total: int
    failed: int
    rate: float
    """Requests a second that the gates allow."""
    pause: str
    """Why and how long nothing is sent; empty when nothing holds it."""


def figures(live: Live) -> Figures:
    """The run at this moment."""
    gates = live.ends.gates if live.ends is not None else []
    down = next((gate.why for gate in gates if gate.why), "")
    context = live.context
    return Figures(
        stage="looking up what is in doubt" if context is not None and context.looking_up else live.stage,
        done=context.settled if context is not None else 0,
        total=context.total if context is not None else 0,
        failed=context.done["failed"] if context is not None else 0,
        rate=sum(gate.rate for gate in gates),
        pause=longest_pause((gate.paused_for, gate.why) for gate in gates) or down,
    )


def longest_pause(pauses: Iterable[tuple[float, str]]) -> str:
    """Of pairs (seconds, why), one a gate, the longest in words; empty where none rests."""
    seconds, why = max(pauses, key=lambda pause: pause[0], default=(0.0, ""))
    return f"paused {ceil(seconds)} s: {why}" if seconds else ""


def watch() -> Callable[[Live], Coroutine[Any, Any, None]]:
    """What fits stderr."""
    return live_display if sys.stderr.isatty() else progress_lines


async def progress_lines(live: Live) -> None:
    """One log line every 30 s."""
    while True:
        await anyio.sleep(LINE_EVERY_S)
        now = figures(live)
        log.info(
            "run.progress",
            stage=now.stage,
            prompts_done=now.done,
            prompts=now.total,
            prompts_failed=now.failed,
            requests_per_s=float(f"{now.rate:.3g}"),
            pause=now.pause,
        )


async def live_display(live: Live, console: Console | None = None) -> None:
    """A bar with the count of prompts, the rate of requests, what failed and the time left, until it is cancelled."""
    progress = progress_bar(console)
    with progress:
        task = progress.add_task(live.migration, total=None, note="", rate="")
        try:
            while True:
                show(progress, task, figures(live))
                await anyio.sleep(REFRESH_S)
        finally:
            show(progress, task, figures(live))


def progress_bar(console: Console | None = None) -> Progress:
    """The columns of the display; on stderr unless there is another console."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        MofNCompleteColumn(),
        TextColumn("prompts"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(ratio=2, no_wrap=True, overflow="ellipsis")),
        expand=True,  # what a narrow terminal has no room for is cut off bar and note, and not off the figures
        console=console or Console(file=sys.stderr),
    )


def show(progress: Progress, task: object, now: Figures) -> None:
    """Brings the display up to date."""
    stage = now.stage if now.stage != "migrating" else ""
    notes = [stage, f"[red]{now.failed} failed[/]" if now.failed else "", now.pause]
    progress.update(
        task,  # type: ignore[arg-type]  # rich's TaskID, an int by another name
        completed=now.done,
        total=now.total or None,
        rate=f"{now.rate:.3g} requests/s",
        note=" · ".join(note for note in notes if note),
    )
