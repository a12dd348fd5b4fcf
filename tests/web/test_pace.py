"""How fast a run goes, as its ledger tells it: a line now and then, which is no business of whoever goes on with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_migration
from engine.content.filter import Chosen
from engine.http.limiter import RateLimiter
from engine.ledger.file import entries, read_ledger
from engine.ledger.status import read_status
from engine.run import run_migration
from engine.session import pace
from engine.session.pace import Pace


async def test_a_line_tells_what_was_done_since_the_one_before() -> None:
    now = [100.0]
    source, target = (RateLimiter(rate=50, concurrency=4) for _ in range(2))
    told = Pace(source, target, clock=lambda: now[0])
    for _ in range(3):
        target.requests.count("write", retry=False)
    target.requests.throttled += 1
    now[0] += 5.0
    fields = told.entry().fields
    assert fields["seconds"] == 5.0
    counts = {"requests": 3, "throttled": 1, "paused_s": 0.0}
    assert fields["target"] == {**counts, "rate": target.throttle.rate, "limit": None}
    assert fields["source"]["requests"] == 0
    now[0] += 2.5
    assert told.entry().fields["target"]["requests"] == 0


async def test_one_gate_is_told_of_once() -> None:
    gate = RateLimiter(rate=50, concurrency=4)
    assert set(Pace(gate, gate).entry().fields) == {"seconds", "target"}


async def migrated(folder: Path, prompts: int) -> Path:
    source = folder / "prompts"
    source.mkdir()
    for number in range(prompts):
        front = f"name: p{number}\nmodel: old\nparameters: {{temperature: 0.5, seed: 9007199254740993}}"
        (source / f"p{number}.md").write_text(f"---\n{front}\n---\nHello\n")
    ends: dict[str, Any] = {end: {"kind": "files", "path": str(folder / end)} for end in ("target",)}
    ends["source"] = {"kind": "files", "path": str(source)}
    file = folder / "m.yaml"
    rewrite = {"model": "new", "parameters": {"drop": ["temperature", "seed"]}}
    file.write_text(json.dumps({"name": "paced", **ends, "rewrite": rewrite, "ledger": str(folder / "l.jsonl")}))
    await run_migration(load_migration(file))
    return folder / "l.jsonl"


async def test_a_run_tells_it_and_nothing_else_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "EVERY_S", 0.001)
    path = await migrated(tmp_path, 20)
    kinds = [line["kind"] for line in entries(path)]
    assert kinds.count("pace") > 1
    assert kinds[-2:] == ["pace", "end"]  # what was left to tell
    assert read_status(path, Chosen()).counts["created"] == 20
    assert read_ledger(path).verdict.kind == "whole"


async def test_a_short_run_has_no_such_line_and_tells_what_its_rules_changed(tmp_path: Path) -> None:
    lines = list(entries(await migrated(tmp_path, 2)))
    assert "pace" not in {line["kind"] for line in lines}
    made = [line["changes"] for line in lines if line["kind"] == "created"]
    seed = ["parameters.seed", "9007199254740993", None]  # as a number it would be another one in a browser
    assert made == [[["model", "old", "new"], seed, ["parameters.temperature", 0.5, None]]] * 2
