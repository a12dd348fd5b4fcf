"""`status --follow` beside a process that runs, is killed, and is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from engine.cli.follow import Seen
from engine.content.filter import Chosen
from engine.ledger.holder import Holder
from engine.ledger.status import StatusFold, read_status
from engine.sandbox import SandboxOptions
from tests.cli.test_terminal import CTRL_C, terminal
from tests.e2e import Served, Started, promptferry, served, started, wait_for_lines, write_migration

PROMPTS: Final = 16


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=PROMPTS)) as found:
        yield found


def told(followed: Started) -> list[dict[str, Any]]:
    """All that it printed, once it has ended by itself."""
    ended = followed.end()
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


def test_a_run_is_followed_from_before_its_beginning_to_its_death_and_to_its_end(
    tmp_path: Path, registry: Served
) -> None:
    path = write_migration(tmp_path, registry.base_url, limits={"rate": 4, "settle": "0.5s"})
    ledger, env = tmp_path / "ledger.jsonl", {"KEY": registry.api_key}
    with started("status", ledger, "--follow", "--json", cwd=tmp_path) as followed:
        first = json.loads(followed.first_line())
        assert (first["run"], first["life"], first["process"]) == ("", "none", None)
        with started("run", path, cwd=tmp_path, env=env) as run:
            seen = [first]
            while seen[-1]["process"] != run.pid or not seen[-1]["counts"]["created"]:
                seen.append(json.loads(followed.first_line()))
            assert seen[-1]["life"] == "running"
            run.kill()
        seen += told(followed)
    assert seen[-1]["life"] == "killed"
    assert seen[-1]["counts"] == read_status(ledger, Chosen()).counts
    assert seen[-1]["counts"]["created"] > 0
    assert [one["counts"]["created"] for one in seen] == sorted(one["counts"]["created"] for one in seen)

    with started("run", path, "--rate", "500", cwd=tmp_path, env=env) as run:
        assert wait_for_lines(ledger, ledger.read_bytes().count(b"\n") + 3, run)
        with started("status", path, "-f", cwd=tmp_path) as followed:
            text = followed.end()
        assert run.end().code == 0
    assert (text.code, text.out.splitlines()[-2]) == (0, f"{read_status(ledger, Chosen()).rate:g} prompts a second")
    assert "ended: done" in text.out

    assert promptferry("ledger", "compact", ledger, cwd=tmp_path).code == 0
    with started("status", ledger, "--follow", "--json", cwd=tmp_path) as followed:
        (last,) = told(followed)  # there is nothing to wait for
    assert (last["life"], last["counts"]["not_started"]) == ("ended", 0)


def test_a_line_says_in_short_how_far_it_is() -> None:
    fold = StatusFold()
    for line in (
        {"kind": "run", "ts": "2026-01-01T00:00:00.000Z", "run": "r", "migration": "m"},
        {"kind": "listed", "ts": "2026-01-01T00:00:00.000Z", "run": "r", "count": 9, "selected": 8},
        {"kind": "intent", "ts": "2026-01-01T00:00:01.000Z", "run": "r", "source_id": "p1", "op": "create"},
        {"kind": "failed", "ts": "2026-01-01T00:00:02.000Z", "run": "r", "source_id": "p2", "error": "loss"},
    ):
        fold.take(line)
    seen = Seen(fold.status(Path("l.jsonl")), "running", Holder(7, "1"), with_failed=False)
    counts = "1 failed, 1 unresolved, 6 not started"
    assert seen.line() == f"m: 1 of 8 prompts settled ({counts}), 0.5 a second, running"
    assert "goes on; process 7 holds the ledger" in seen.text()
    assert "failed: loss" in seen.text()
    assert "no word after its intent" not in seen.text()  # it is in flight, and nothing to worry about


def test_damage_ends_it_with_what_a_run_would_say(tmp_path: Path) -> None:
    (tmp_path / "notes.jsonl").write_text("not a ledger\n")
    ended = promptferry("status", tmp_path / "notes.jsonl", "--follow", cwd=tmp_path)
    assert ended.code == 2
    assert "no ledger of promptferry" in ended.sentence()


def test_on_a_terminal_it_is_drawn_in_place_until_somebody_has_seen_enough(tmp_path: Path, registry: Served) -> None:
    path = write_migration(tmp_path, registry.base_url, limits={"rate": 1, "settle": "0.5s"})
    with (
        started("run", path, cwd=tmp_path, env={"KEY": registry.api_key}),
        terminal("status", path, "--follow", cwd=tmp_path) as screen,
    ):
        screen.wait_for("goes on; process")
        screen.wait_for("\x1b[1A")  # up again, to draw over it
        screen.type(CTRL_C)
        assert screen.end() == 0
    assert screen.shown.rfind("\x1b[?25h") > screen.shown.rfind("\x1b[?25l")
    assert "Traceback" not in screen.shown
    assert "error" not in screen.shown
