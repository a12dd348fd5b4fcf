"""Progress while a fleet goes on: a live display on a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anyio

from engine.cli.display import LINE_EVERY_S, REFRESH_S, figures, longest_pause, progress_bar
from engine.fleet.run import Board
from engine.log import log

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


@dataclass(frozen=True, slots=True)
class FleetFigures:
    """The whole at this moment. `done`, `total`, `failed`: prompts; `ended`, and `stopped` among them: migrations."""

    ended: int
    stopped: int
    done: int
    total: int
    failed: int
    rate: float
    """Requests a second that the gates allow."""
    pause: str


def fleet_figures(board: Board) -> FleetFigures:
    """Of those that have ended, and of those that go on as far as they have come."""
    now = [figures(live) for live in board.running.values()]
    ended = [one.this_run for one in board.ended.values()]
    left = sum(one["not_started"] + one["unresolved"] for one in ended)
    whole = sum(sum(one.values()) for one in ended)
    gates = board.shared.gates
    return FleetFigures(
        ended=len(board.ended),
        stopped=sum(one.exit_code not in (0, 1, 3) for one in board.ended.values()),
        done=whole - left + sum(one.done for one in now),
        total=whole + sum(one.total for one in now),
        failed=sum(one["failed"] for one in ended) + sum(one.failed for one in now),
        rate=sum(gate.rate for gate in gates),
        pause=longest_pause((gate.paused_for, gate.why) for gate in gates),
    )


def watch() -> Callable[[Board], Coroutine[Any, Any, None]]:
    """What fits stderr."""
    return live_display if sys.stderr.isatty() else progress_lines


async def progress_lines(board: Board) -> None:
    """One log line every 30 s."""
    while True:
        await anyio.sleep(LINE_EVERY_S)
        now = fleet_figures(board)
        log.info(
            "fleet.progress",
            migrations_done=now.ended,
            migrations=board.total,
            migrations_stopped=now.stopped,
            running=sorted(board.running),
            prompts_done=now.done,
            prompts=now.total,
            prompts_failed=now.failed,
            requests_per_s=float(f"{now.rate:.3g}"),
            pause=now.pause,
        )


async def live_display(board: Board, console: Console | None = None) -> None:
    """A bar for the whole and one for each migration that goes on, until it is cancelled."""
    progress = progress_bar(console)
    with progress:
        rows = {"": progress.add_task(board.fleet, total=None, note="", rate="")}
        try:
            while True:
                show(progress, rows, board)
                await anyio.sleep(REFRESH_S)
        finally:
            show(progress, rows, board)


def show(progress: Progress, rows: dict[str, TaskID], board: Board) -> None:
    """Brings the display up to date: `rows` by name of the migration, the whole under no name."""
    for name in rows.keys() - board.running.keys() - {""}:
        progress.remove_task(rows.pop(name))
    for name, live in board.running.items():
        now = figures(live)
        if name not in rows:
            rows[name] = progress.add_task(f"  {name}", total=None, note="", rate="")
        note = " · ".join(part for part in (now.stage, f"[red]{now.failed} failed[/]" if now.failed else "") if part)
        progress.update(rows[name], completed=now.done, total=now.total or None, note=note)
    whole = fleet_figures(board)
    notes = [
        f"{whole.ended} of {board.total} migrations",
        f"[red]{whole.stopped} stopped[/]" if whole.stopped else "",
        f"[red]{whole.failed} prompts failed[/]" if whole.failed else "",
        whole.pause,
    ]
    rate, note = f"{whole.rate:.3g} requests/s", " · ".join(part for part in notes if part)
    progress.update(rows[""], completed=whole.done, total=whole.total or None, rate=rate, note=note)
