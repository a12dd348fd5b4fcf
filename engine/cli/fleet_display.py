"""Progress while a fleet goes on: a live display on a terminal, a log line every 30 s elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio

from engine.cli.display import LINE_EVERY_S, redrawn
from engine.cli.figures import Figures, Stopwatch, figures, of_gates, summed, told
from engine.cli.panel import panel
from engine.fleet.run import Board
from engine.http.limiter import Requests
from engine.ledger.report import Reasons
from engine.log import log
from engine.migrate.context import FINAL

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_LEFT: Final = ("not_started", "unresolved")
_KINDS: Final = {"conflicts": "conflict"}
"""Outcome -> kind of outcome, where these are two words."""


def stopped(board: Board) -> int:
    """Migrations that have ended before their time."""
    return sum(one.exit_code not in (0, 1, 3) for one in board.ended.values())


def fleet_figures(board: Board) -> Figures:
    """The whole at this moment: of those that have ended, and of those that go on as far as they have come."""
    now = [figures(live) for live in board.running.values()]
    ended = list(board.ended.values())
    settled = [{name: count for name, count in one.this_run.items() if name not in _LEFT} for one in ended]
    stages = [f"{len(ended)} of {board.total} migrations", f"{stopped(board)} stopped" if stopped(board) else ""]
    return Figures(
        stage=", ".join(stage for stage in stages if stage),
        done=sum(sum(one.values()) for one in settled) + sum(one.done for one in now),
        total=sum(sum(one.this_run.values()) for one in ended) + sum(one.total for one in now),
        outcomes=summed([_as_kinds(one) for one in settled] + [one.outcomes for one in now]),
        why=summed([_why(one.reasons) for one in ended] + [one.why for one in now]),
        requests=sum((Requests(**one.requests) for one in ended), sum((one.requests for one in now), Requests())),
        **of_gates(board.shared.gates),
    )


def _why(reasons: Reasons) -> dict[tuple[str, str], int]:
    kinds = ((_KINDS.get(outcome, outcome), of) for outcome, of in reasons.items())
    return {(kind, why): count for kind, of in kinds if kind in FINAL for why, count in of.items()}


def _as_kinds(counts: Mapping[str, int]) -> dict[str, int]:
    return {_KINDS.get(outcome, outcome): count for outcome, count in counts.items()}


def watch() -> Callable[[Board], Coroutine[Any, Any, None]]:
    """What fits stderr."""
    return live_display if sys.stderr.isatty() else progress_lines


async def progress_lines(board: Board) -> None:
    """One log line every 30 s."""
    stopwatch = Stopwatch()
    stopwatch.see(fleet_figures(board))
    while True:
        await anyio.sleep(LINE_EVERY_S)
        now = fleet_figures(board)
        log.info(
            "fleet.progress",
            migrations_done=len(board.ended),
            migrations=board.total,
            migrations_stopped=stopped(board),
            running=sorted(board.running),
            **told(now, stopwatch.see(now)),
        )


async def live_display(board: Board, console: Console | None = None) -> None:
    """The whole, and a bar for each migration that goes on, until it is cancelled."""
    await redrawn(drawing(board), console)


def drawing(board: Board) -> Callable[[], RenderableType]:
    """Draws the fleet as it is whenever it is called."""
    stopwatch = Stopwatch()

    def drawn() -> RenderableType:
        now = fleet_figures(board)
        parts = [(name, figures(live)) for name, live in board.running.items()]
        return panel(board.fleet, now, stopwatch.see(now), parts)

    return drawn
