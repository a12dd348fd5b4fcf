"""Progress of a fleet: what its lines and its bars say."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from engine.cli.display import LINE_EVERY_S
from engine.cli.fleet_display import drawing, fleet_figures, progress_lines
from engine.fleet.run import Board
from engine.http.limiter import Known
from engine.migrate.context import Context
from engine.run import Live
from engine.session.connect import EmbeddedSandbox, Shared
from tests.cli.test_terminal import COLOUR
from tests.fleet.test_summary import summary


def board() -> Board:
    """Two of five have ended, one is at work."""
    sandbox = EmbeddedSandbox(Path("nowhere"), AsyncExitStack())
    found = Board("teams", 5, Shared([], sandbox, recall=lambda _migration, _end: Known()))
    found.ended = {"a": summary("a", 0, created=7), "b": summary("b", 4, "quota", created=2)}
    found.ended["b"] = replace(found.ended["b"], reasons={"failed": {"loss": 2}, "conflicts": {"exists": 1}})
    why = Counter({("failed", "loss"): 1})
    counters = SimpleNamespace(settled=3, total=10, done=Counter(failed=1, created=2), why=why, looking_up=False)
    found.running = {"c": Live("c", stage="migrating", context=cast(Context, counters))}
    return found


def test_the_figures_are_of_those_that_ended_and_of_those_that_go_on() -> None:
    now = fleet_figures(board())
    assert (now.stage, now.done, now.total, now.failed) == ("2 of 5 migrations, 1 stopped", 12, 19, 1)
    assert +Counter(now.outcomes) == Counter(created=11, failed=1)
    assert now.why == {("failed", "loss"): 3, ("conflict", "exists"): 1}


async def test_a_line_every_half_a_minute_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[dict[str, Any]] = []
    slept: list[float] = []

    class Ended(Exception):
        pass

    async def once(seconds: float) -> None:
        slept.append(seconds)
        if said:
            raise Ended

    monkeypatch.setattr("engine.cli.fleet_display.anyio.sleep", once)
    monkeypatch.setattr(
        "engine.cli.fleet_display.log.info", lambda event, **fields: said.append({"event": event, **fields})
    )
    with pytest.raises(Ended):
        await progress_lines(board())
    (line,) = said
    assert slept[0] == LINE_EVERY_S == 30
    assert line == {
        "event": "fleet.progress",
        "migrations_done": 2,
        "migrations": 5,
        "migrations_stopped": 1,
        "running": ["c"],
        "prompts_done": 12,
        "prompts": 19,
        "prompts_failed": 1,
        "why": {"failed loss": 3, "conflict exists": 1},
        "prompts_per_s": 0.0,
        "left_s": None,
        "requests": 27,
        "requests_sent_per_s": 0.0,
        "requests_per_s": 0.0,
        "throttled": 0,
        "paused_s": 0,
        "pause": "",
    }


def test_the_display_has_a_bar_for_the_whole_and_for_each_that_goes_on() -> None:
    console = Console(width=120, force_terminal=True, no_color=True, file=io.StringIO())
    found = board()
    with console.capture() as shown:
        console.print(drawing(found)())
        found.running.clear()
        console.print(drawing(found)())
    whole, part, prompts, requests, failed, conflicts, *ended = COLOUR.sub("", shown.get()).splitlines()
    assert whole.startswith("teams ")
    assert "12/19 prompts  63 %" in whole
    assert part.startswith("  c ")
    assert "3/10 prompts  30 %" in part
    assert "2 of 5 migrations, 1 stopped · 11 created · 1 failed" in prompts
    assert "27 sent" in requests
    assert failed.strip() == "failed    3 loss"
    assert conflicts.strip() == "conflicts 1 exists"
    assert [line.split()[0] for line in ended] == ["teams", "prompts", "requests", "failed", "conflicts"], (
        "its bar goes when it has ended"
    )
