"""`--limit N`, again and again: at most N that need something each time, and at last there is nothing left."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest

from engine import load_migration, run_migration
from engine.content.filter import Chosen
from engine.errors import Rejected, Transient
from engine.ledger.report import OUTCOMES, Summary, verdict
from engine.migrate import plan_file
from engine.migrate.plan_file import PlanFile
from engine.run import RunOptions, plan_migration
from tests.cluster.crew import KEY
from tests.cluster.crew import place as far
from tests.workspaces import Wrapped, job_of, memory, prompt, run

COUNT: Final = 7
MOST: Final = 40
"""Runs after which a loop has no end."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A migration between ends whose listings tell no times: what was made is compared in every run."""
    (tmp_path / "prompts").mkdir()
    for number in range(COUNT):
        write(tmp_path, number, "Hello")
    return written(tmp_path / "m.yaml")


def write(folder: Path, number: int, text: str) -> None:
    (folder / "prompts" / f"p{number}.md").write_text(f"---\nname: p{number}\ncollection: c\n---\n{text} {number}\n")


def written(file: Path, **parts: Any) -> Path:
    value = {
        "name": "limited",
        "source": {"kind": "files", "path": "prompts"},
        "target": {"kind": "files", "path": "out.jsonl"},
        "rewrite": {"name": "{name}"},
        "limits": {"settle": "0.1s", "batch": 2},
        "ledger": "ledger.jsonl",
    }
    file.write_text(json.dumps(value | parts))
    return file


async def again_and_again(step: Callable[[], Awaitable[Summary]], limit: int) -> list[Summary]:
    """All runs, until one has another reason than its limit."""
    ran = [await step()]
    while ran[-1].reason == "limit":
        ran.append(await step())
        assert len(ran) < MOST, "it never ends"
    for one in ran:
        assert one.counts["selected"] == sum(one.counts[name] for name in OUTCOMES)
        assert one.exit_code or one.this_run["created"] + one.this_run["updated"] <= limit
    return ran


@pytest.mark.parametrize("limit", [1, 2, 3, COUNT, COUNT + 1])
async def test_what_is_found_unchanged_takes_nothing_of_a_limit(file: Path, limit: int) -> None:
    ran = await again_and_again(lambda: run_migration(load_migration(file), RunOptions(limit=limit)), limit)
    made = [one.this_run["created"] for one in ran]
    assert made == [min(limit, COUNT - limit * number) for number in range(len(ran))]
    assert [one.counts["not_started"] for one in ran] == [max(0, COUNT - limit * (n + 1)) for n in range(len(ran))]
    assert [one.counts["unchanged"] for one in ran] == [limit * number for number in range(len(ran))]
    assert (sum(made), ran[-1].reason, ran[-1].exit_code) == (COUNT, "done", 0)


async def test_a_limit_counts_updates_beside_creates_and_with_canaries(file: Path) -> None:
    await run_migration(load_migration(file), RunOptions(limit=4))
    for number in (4, 5, 6):  # among the first of the listing
        write(file.parent, number, "Good morning")
    ran = await again_and_again(lambda: run_migration(load_migration(file), RunOptions(limit=2, canary=1)), 2)
    did = [one.this_run["created"] + one.this_run["updated"] for one in ran]
    assert (did, ran[-1].reason) == ([2, 2, 2], "done")
    assert sum(one.this_run["updated"] for one in ran) == 3
    texts = (file.parent / "out.jsonl").read_text()
    assert (texts.count("Good morning"), texts.count("Hello")) == (3, COUNT - 3)


async def test_a_plan_is_done_a_few_at_a_time(file: Path) -> None:
    migration = load_migration(file)
    data = plan_file.write(
        await plan_migration(migration, chosen=Chosen()), migration.identity(), migration.rules_digest()
    )
    planned: PlanFile = plan_file.read(data, "plan", migration.identity(), migration.rules_digest())
    ran = await again_and_again(lambda: run_migration(migration, RunOptions(limit=2, plan=planned)), 2)
    assert ([one.this_run["created"] for one in ran], ran[-1].reason) == ([2, 2, 2, 1], "done")
    assert {one.counts["conflicts"] for one in ran} == {0}


async def test_in_place_the_first_of_the_listing_are_taken(file: Path) -> None:
    where = {"source": {"kind": "files", "path": "prompts"}, "target": None, "mode": "update"}
    written(file, **where, rewrite={"model": "new"}, publish=True)
    ran = await again_and_again(lambda: run_migration(load_migration(file), RunOptions(limit=3)), 3)
    assert ([one.this_run["updated"] for one in ran], ran[-1].reason) == ([3, 3, 1], "done")


async def test_other_machines_make_no_more_than_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", KEY)
    async with far(tmp_path, 50) as one:

        async def step() -> Summary:
            return (await one.run(limit=20))[0]

        ran = await again_and_again(step, 20)
        assert ([one.this_run["created"] for one in ran], ran[-1].reason) == ([20, 20, 10], "done")
        assert (one.doubled, one.lost) == ([], set())


# ---- what fails each time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Transient, Rejected])
async def test_prompts_that_fail_each_time_hold_up_no_others(
    ledger: Path, error: type[Transient] | type[Rejected]
) -> None:
    bad = {"p9", "p8", "p7"}  # the newest, so the first of the listing

    async def on_fetch(prompt_id: str) -> None:
        if prompt_id in bad:
            raise error("no", error="odd")

    there = memory()
    source = Wrapped(memory(*(prompt(f"p{number}") for number in range(10))), on_fetch=on_fetch)
    tried: list[int] = []
    for _ in range(5):
        before = len(source.fetched)
        await run(job_of(source, there, attempts=1), ledger, limit=2, retry_failed=True)
        tried.append(len({*source.fetched[before:]} & bad))
    assert there.creates == 7
    assert tried == [2, 1, 0, 0, 0]


async def test_those_tried_the_longest_ago_are_tried_first(ledger: Path) -> None:
    async def on_fetch(prompt_id: str) -> None:
        raise Rejected("no", error="odd")

    source = Wrapped(memory(*(prompt(f"p{number}") for number in range(5))), on_fetch=on_fetch)
    rounds: list[list[str]] = []
    for _ in range(5):
        source.fetched.clear()
        await run(job_of(source, memory()), ledger, limit=2, retry_failed=True)
        rounds.append(sorted(source.fetched))
    assert rounds == [["p3", "p4"], ["p1", "p2"], ["p0", "p4"], ["p2", "p3"], ["p1", "p4"]]


def test_beside_what_failed_the_rest_is_told() -> None:
    counts = dict.fromkeys(OUTCOMES, 0) | {"failed": 1, "not_started": 3}
    for limited in (True, False):
        code, reason, advice = verdict(counts, stop=None, limited=limited, problem=None)
        assert (code, reason, advice.endswith("Run the same command again for the rest.")) == (1, "failures", limited)
