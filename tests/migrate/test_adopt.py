"""A ledger that is lost: replicas are taken over, and what happened to them since is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.ledger.file import entries
from engine.ledger.state import State
from engine.migrate.plan import plan
from engine.migrate.survey import survey
from engine.model import Rule
from tests.workspaces import Forgetful, job_of, memory, prompt, run

NEW_RULES = (Rule(name="{name}-replica"), Rule(model=(("*", "claude-3-5"),)))


def edit(workspace: Memory, prompt_id: str, **fields: Any) -> None:
    workspace.prompts[prompt_id] = replace(workspace.prompts[prompt_id], **fields)


def replica_of(workspace: Memory, name: str) -> str:
    return next(one.id for one in workspace.prompts.values() if one.name == f"{name}-replica")


async def test_edits_of_replicas_and_sources_are_known_from_the_marks(ledger: Path) -> None:
    source, target = memory(*(prompt(f"p{number}", version="3") for number in range(5))), memory()
    job = job_of(source, target)
    await run(job, ledger)
    ledger.unlink()
    edit(target, replica_of(target, source.prompts["p1"].name), text="edited by hand")
    edit(source, "p2", text="changed since", version="4")

    ran = await run(job, ledger)
    assert ran.statuses == {"p0": "created", "p1": "created", "p2": "updated", "p3": "created", "p4": "created"}
    assert target.creates == 5
    assert target.prompts[replica_of(target, source.prompts["p2"].name)].text == "changed since"
    notes = {task.row.id: task.note for task in ran.survey.tasks}
    assert notes["p0"] is None
    assert "edited" in str(notes["p1"])
    assert "source changed" in str(notes["p2"])
    assert sum("1 replicas taken over" in note for note in ran.survey.notes) == 2
    versions = {line["source_id"]: line["source_version"] for line in entries(ledger) if line["kind"] == "created"}
    assert versions == {"p0": 3, "p1": 3, "p2": None, "p3": 3, "p4": 3}
    assert target.prompts[replica_of(target, source.prompts["p1"].name)].text == "edited by hand"


@pytest.mark.parametrize("edited", [False, True])
async def test_without_digests_only_what_we_would_make_now_is_taken_over(edited: bool, ledger: Path) -> None:
    source, target = memory(*(prompt(f"p{number}") for number in range(4))), Forgetful()
    job = job_of(source, target)
    await run(job, ledger)
    ledger.unlink()
    if edited:
        edit(target, replica_of(target, source.prompts["p1"].name), text="edited by hand")

    ran = await run(job, ledger)
    assert target.creates == 4
    assert ran.status("p1") == ("conflict" if edited else "created")
    assert [ran.status(f"p{number}") for number in (0, 2, 3)] == ["created"] * 3
    if edited:
        (line,) = [line for line in entries(ledger) if line["kind"] == "conflict"]
        assert (line["reason"], line["target_id"]) == ("edited", replica_of(target, source.prompts["p1"].name))


async def test_what_was_made_by_other_rules_is_brought_up_to_date_by_the_run_that_takes_it_over(ledger: Path) -> None:
    source, target = memory(*(prompt(f"p{number}") for number in range(3))), memory()
    await run(job_of(source, target), ledger)
    ledger.unlink()
    edit(target, replica_of(target, "p1"), text="edited by hand")
    job = job_of(source, target, rules=NEW_RULES)

    found = await survey(job, State(), now=0.0)
    planned = await plan(job, found, State(), None, now=0.0, rate=1.0, asked=0)
    assert {one.source_id: one.action for one in planned.prompts} == {"p0": "update", "p1": "conflict", "p2": "update"}
    assert all(any("is taken over" in note for note in one.notes) for one in planned.prompts)

    ran = await run(job, ledger)
    assert ran.statuses == {"p0": "updated", "p1": "conflict", "p2": "updated"}
    models = {one.name: one.model for one in target.prompts.values()}
    assert models == {"p0-replica": "claude-3-5", "p1-replica": "claude-3-7", "p2-replica": "claude-3-5"}
    assert target.creates == 3


async def test_on_change_leaves_alone_what_other_rules_made(ledger: Path) -> None:
    source, target = memory(prompt("p0")), memory()
    await run(job_of(source, target), ledger)
    ledger.unlink()
    ran = await run(job_of(source, target, rules=NEW_RULES, on_change="skip"), ledger)
    assert ran.statuses == {"p0": "created"}
    assert [one.model for one in target.prompts.values()] == ["claude-3-7"]
