"""What is to be done with one prompt: tables of what changed, who changed it, and what the file says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.ledger.state import Record, State
from engine.migrate.decide import Decision, decide
from engine.migrate.job import Job
from engine.migrate.survey import survey
from engine.migrate.task import Task
from engine.model import Entry, Json, Outcome, ParameterRules, Prompt, Rule, Select, Sending, Unknown
from tests.workspaces import Ran, Wrapped, job_of, memory, prompt, run

NOW = 1_800_000_000.0
OLD, NEW, OTHER = "claude-3-7", "claude-3-5", "claude-3-opus"


def rules(model: str = NEW, name: str = "{name}-replica", **fields: Any) -> tuple[Rule, ...]:
    return (Rule(name=name, model=((f"{OLD}*", model),), **fields),)


async def made(there: Memory, ledger: Path, **fields: Any) -> Record:
    """Its record after one run."""
    ran = await run(job_of(there, **fields), ledger)
    return record_of(ran)


def record_of(ran: Ran) -> Record:
    return ran.context.state.records["a"]


async def decided(job: Job, record: Record | None) -> Decision:
    """Of prompt `a`, taken up as the survey would."""
    rows = [row async for page in job.source.pages() for row in page.rows]
    row = next(row for row in rows if row.id == "a")
    action = "update" if job.in_place or (record is not None and record.made) else "create"
    return await decide(job, Task(row=row, action=action), record, now=NOW)


def edited(there: Memory, prompt_id: str, **fields: Any) -> None:
    """Somebody makes a new version and publishes it."""
    was = there.prompts[prompt_id]
    version = after(there._history(prompt_id)[-1])
    there.history[prompt_id] = [*there._history(prompt_id), replace(was, version=version, labels=(), **fields)]
    there.prompts[prompt_id] = replace(was, version=version, labels=(), updated_at=there._now(), **fields)


def after(newest: Prompt) -> str:
    return str(int(newest.version or "1") + 1)


# ---- replicas --------------------------------------------------------------------------------------------------------

REPLICAS = {
    # what changed: source, rules, replica by hand; on_edited: what is done
    "nothing": ("", "", "", "conflict", "unchanged", False),
    "source": ("text", "", "", "conflict", "update", False),
    "rules": ("", "model", "", "conflict", "update", False),
    "both": ("text", "model", "", "conflict", "update", False),
    "rules that come to the same": ("", "no effect", "", "conflict", "unchanged", False),
    "replica": ("", "", "text", "conflict", "unchanged", False),
    "replica, rules that come to the same": ("", "no effect", "text", "conflict", "unchanged", False),
    "source, replica: conflict": ("text", "", "text", "conflict", "conflict", False),
    "source, replica: keep": ("text", "", "text", "keep", "unchanged", True),
    "source, replica: overwrite": ("text", "", "text", "overwrite", "update", False),
    "rules, replica: conflict": ("", "model", "text", "conflict", "conflict", False),
    "rules, replica: keep": ("", "model", "text", "keep", "unchanged", True),
    "rules, replica: overwrite": ("", "model", "text", "overwrite", "update", False),
    "replica renamed, source": ("text", "", "name", "conflict", "conflict", False),
    "replica brought to what is wanted by hand": ("text", "", "as wanted", "conflict", "unchanged", False),
}
CHANGED_RULES = {
    "": rules(),
    "model": rules(OTHER),
    "no effect": rules(parameters=ParameterRules(drop=("no such parameter",))),
}


@pytest.mark.parametrize(
    ("source", "rule", "replica", "on_edited", "action", "marked_edited"), REPLICAS.values(), ids=REPLICAS
)
async def test_what_is_done_with_a_replica(
    source: str, rule: str, replica: str, on_edited: str, action: str, marked_edited: bool, ledger: Path
) -> None:
    there = memory(prompt("a"))
    record = await made(there, ledger, rules=rules())
    if source:
        edited(there, "a", text="changed")
    if replica == "as wanted":
        edited(there, "memory-1", text="changed")
    elif replica:
        edited(there, "memory-1", **{replica: "by hand"})
    job = job_of(there, rules=CHANGED_RULES[rule], on_edited=on_edited, select=Select(ids=("a",)))
    decision = await decided(job, record)
    assert decision.action == action
    assert (decision.entry is not None) is (action != "update")
    if action == "conflict":
        assert entry(decision) == {"reason": "edited", "target_id": "memory-1", "op": "update"}
    if marked_edited:
        assert entry(decision)["edited"] is True
    if action == "update":
        draft = decision.prepared
        assert draft is not None
        assert draft.revision is not None
        wanted = (there.prompts["a"].text, OTHER if rule == "model" else NEW, "a-replica")
        assert (draft.replica.prompt.text, draft.replica.prompt.model, draft.replica.prompt.name) == wanted
        # never filled from what is newest there
        assert (draft.revision.target_id, draft.revision.fields, draft.revision.there) == ("memory-1", None, None)


def entry(decision: Decision) -> dict[str, Json]:
    assert isinstance(decision.entry, Entry)
    return {
        name: value
        for name, value in decision.entry.fields.items()
        if not name.startswith("source_") and name != "target_updated_at"
    }


async def test_a_replica_that_is_gone_is_left_gone(ledger: Path) -> None:
    there = memory(prompt("a"))
    record = await made(there, ledger, rules=rules())
    del there.prompts["memory-1"]
    edited(there, "a", text="changed")
    decision = await decided(job_of(there, rules=rules()), record)
    assert decision.action == "unchanged"
    assert decision.notes == ("its replica is no longer on the target",)


async def test_a_source_that_is_gone_is_skipped(ledger: Path) -> None:
    there = memory(prompt("a"))
    record = await made(there, ledger, rules=rules())
    listed = await survey(job_of(there, rules=rules()), State(), now=NOW)
    job, task = job_of(there, rules=rules()), Task(row=listed.rows[-1], action="update")
    assert task.row.id == "a"
    del there.prompts["a"]
    assert (await decide(job, task, record, now=NOW)).action == "skip"


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("draft_behind", [False, True])
async def test_an_update_in_doubt_is_looked_for_before_it_is_sent_again(
    landed: bool, draft_behind: bool, ledger: Path
) -> None:
    there = memory(prompt("a"))
    await made(there, ledger, rules=rules())
    edited(there, "a", text="changed")
    record = record_of(await run(job_of(lost(there, landed=landed), rules=rules(), attempts=0), ledger))
    assert record.doubtful
    assert there.updates == landed
    if draft_behind:
        newest = there._history("memory-1")[-1]
        there.history["memory-1"] = [
            *there._history("memory-1"),
            replace(newest, version=after(newest), text="somebody's draft"),
        ]
    decision = await decided(job_of(there, rules=rules()), record)
    assert decision.action == "update"
    assert decision.prepared is not None
    assert decision.prepared.revision is not None
    assert decision.prepared.revision.there == ("2" if landed else None)


def lost(there: Memory, *, landed: bool) -> Wrapped:
    """Whatever is sent to change something is not answered."""

    async def on_update(target_id: str, put: Any, sending: Sending) -> Outcome:
        if landed:
            await put()
        else:
            await sending()
        return Unknown(error="reset", message="no answer")

    return Wrapped(there, on_update=on_update)


# ---- in place --------------------------------------------------------------------------------------------------------

IN_PLACE = {
    # what was done before; what somebody published since; rules now: what is done, from which model and text
    "never touched": ("", {}, NEW, "update", (NEW, "as it was")),
    "staged": ("staged", {}, NEW, "unchanged", None),
    "published": ("published", {}, NEW, "unchanged", None),
    "staged, new rules": ("staged", {}, OTHER, "update", (OTHER, "as it was")),
    "published, new rules": ("published", {}, OTHER, "update", (OTHER, "as it was")),
    "staged, changed": ("staged", {"text": "changed"}, NEW, "update", (NEW, "changed")),
    "published, changed": ("published", {"text": "changed", "model": OLD}, NEW, "update", (NEW, "changed")),
    "published, changed, is as wanted": ("published", {"text": "changed"}, NEW, "unchanged", None),
    "staged, changed, new rules": ("staged", {"text": "changed"}, OTHER, "update", (OTHER, "changed")),
    "staged, done by hand": ("staged", {"model": NEW}, NEW, "unchanged", None),
}


async def in_place(there: Memory, ledger: Path, state: str, **fields: Any) -> Record | None:
    if not state:
        return None
    publishes = state.startswith("published")
    return await made(there, ledger, in_place=True, publish=publishes, **fields)


RENAMED = "{name} (new)"
# what somebody publishes later keeps the name that it has by then
IN_PLACE_NAMED = {f"{known}, with a new name": (*case, RENAMED) for known, case in IN_PLACE.items() if not case[1]}


@pytest.mark.parametrize(
    ("state", "since", "model", "action", "wanted", "name"),
    [*((*case, "{name}") for case in IN_PLACE.values()), *IN_PLACE_NAMED.values()],
    ids=[*IN_PLACE, *IN_PLACE_NAMED],
)
async def test_what_is_done_in_place(
    state: str,
    since: dict[str, str],
    model: str,
    action: str,
    wanted: tuple[str, str] | None,
    name: str,
    ledger: Path,
) -> None:
    there = memory(prompt("a", text="as it was", version="1"))
    record = await in_place(there, ledger, state, rules=rules(name=name), rewrites="first")
    if since:
        edited(there, "a", **since)
    job = job_of(
        there, in_place=True, publish=False, rules=rules(model, name), rewrites="first" if model == NEW else "second"
    )
    decision = await decided(job, record)
    assert decision.action == action
    if wanted is not None:
        assert decision.prepared is not None
        asked = decision.prepared.replica.prompt
        assert (asked.model, asked.text, asked.name) == (*wanted, name.format(name="a"))


FIELDS = {
    # rules, a newer draft: the fields that are sent; None: all of them
    "model": (Rule(name="{name}", model=(("*", NEW),)), False, {"model"}),
    "model, draft": (Rule(name="{name}", model=(("*", NEW),)), True, None),
    "name": (Rule(name="{name}!"), False, {"name"}),
    "name, draft": (Rule(name="{name}!"), True, {"name"}),
    "name and model": (Rule(name="{name}!", model=(("*", NEW),)), False, {"name", "model"}),
    "name and model, draft": (Rule(name="{name}!", model=(("*", NEW),)), True, None),
    "collection": (Rule(name="{name}", collection=(("*", "sales"),)), True, {"collection"}),
    # alone they would change the version that is published
    "description": (Rule(name="{name}", description="new"), False, None),
    "provider": (Rule(name="{name}", provider=(("*", "anthropic-prod"),)), False, {"provider", "model"}),
    "parameters": (
        Rule(name="{name}", parameters=ParameterRules(set=(("top_k", 1),))),
        False,
        {"parameters"},
    ),
}


@pytest.mark.parametrize(("rule", "draft", "fields"), FIELDS.values(), ids=FIELDS)
async def test_only_what_changes_is_sent(rule: Rule, draft: bool, fields: set[str] | None) -> None:
    there = memory(prompt("a", version="1"))
    if draft:
        there.history["a"] = [there.prompts["a"], replace(there.prompts["a"], version="2", text="a draft")]
    decision = await decided(job_of(there, in_place=True, publish=False, rules=(rule,)), None)
    assert decision.prepared is not None
    revision = decision.prepared.revision
    assert revision is not None
    assert revision.fields == fields
    newest = "2" if draft else "1"
    assert (revision.base, revision.published, revision.before.text) == (newest, "1", there.prompts["a"].text)
    assert any("newer draft" in note for note in decision.notes) is draft


async def test_a_draft_that_carries_on_is_not_what_was_published_before() -> None:
    there = memory(prompt("a", version="1"))
    there.history["a"] = [there.prompts["a"], replace(there.prompts["a"], version="2", text="a draft")]
    job = job_of(there, in_place=True, publish=False, rules=rules(name="{name}"), select=Select(version="latest"))
    decision = await decided(job, None)
    assert decision.prepared is not None
    revision = decision.prepared.revision
    assert revision is not None
    assert decision.prepared.replica.prompt.text == "a draft"
    assert (revision.base, revision.published) == ("2", "1")
    assert revision.fields == frozenset({"model"})


@pytest.mark.parametrize("landed", [False, True])
@pytest.mark.parametrize("name", ["{name}", "{name} (new)"], ids=["", "with a new name"])
async def test_an_update_in_place_in_doubt(landed: bool, name: str, ledger: Path) -> None:
    there = memory(prompt("a", version="1"))
    fields: dict[str, Any] = {"in_place": True, "publish": False, "rules": rules(name=name)}
    record = record_of(await run(job_of(lost(there, landed=landed), attempts=0, **fields), ledger))
    assert record.doubtful
    decision = await decided(job_of(there, **fields), record)
    assert decision.action == "update"
    assert decision.prepared is not None
    assert decision.prepared.revision is not None
    assert decision.prepared.revision.there == ("2" if landed else None)
    assert decision.prepared.replica.prompt.name == name.format(name="a")


async def test_a_lost_ledger_finds_what_was_staged(ledger: Path) -> None:
    there = memory(prompt("a", version="1"))
    fields: dict[str, Any] = {"in_place": True, "publish": False, "rules": rules(name="{name}")}
    await made(there, ledger, **fields)
    decision = await decided(job_of(there, **fields), None)
    assert decision.prepared is not None
    assert decision.prepared.revision is not None
    assert (decision.prepared.revision.there, decision.prepared.revision.published) == ("2", "1")


async def test_what_a_rule_would_not_change_is_unchanged() -> None:
    there = memory(prompt("a", model=NEW))
    decision = await decided(job_of(there, in_place=True, publish=False, rules=rules(name="{name}")), None)
    assert decision.action == "unchanged"
    assert there.updates == 0


# ---- whole histories -------------------------------------------------------------------------------------------------


def grown(count: int) -> Memory:
    first = prompt("a", version="1", text="text 1")
    there = memory(first)
    there.history["a"] = [replace(first, version=str(number), text=f"text {number}") for number in range(1, count + 1)]
    there.prompts["a"] = there.history["a"][-1]
    return there


@pytest.mark.parametrize("publish", [True, False])
@pytest.mark.parametrize(
    ("since", "action"),
    [("", "unchanged"), ("source", "finish"), ("replica", "unchanged"), ("both", "conflict"), ("moved", "finish")],
)
async def test_what_is_done_with_a_history(since: str, action: str, publish: bool, ledger: Path) -> None:
    there = grown(3)
    job = job_of(there, rules=rules(), select=Select(ids=("a",), version="all"), publish=publish)
    record = record_of(await run(job, ledger))
    assert record.rare.versions == {"1": "1", "2": "2", "3": "3"}
    if since in ("source", "both"):
        edited(there, "a", text="new")
    if since in ("replica", "both"):
        edited(there, "memory-1", text="by hand")
    if since == "moved":
        await there.publish("a", "1")
    if since == "moved" and not publish:
        action = "unchanged"  # which version applications get is not this migration's to say
    decision = await decided(job, record)
    assert decision.action == action


def newest(there: Memory, prompt_id: str) -> Prompt:
    return there._history(prompt_id)[-1]


async def test_a_history_is_copied_in_order(ledger: Path) -> None:
    there = grown(5)
    await run(job_of(there, rules=rules(), select=Select(ids=("a",), version="all")), ledger)
    assert [one.text for one in there.history["memory-1"]] == [f"text {number}" for number in range(1, 6)]
    assert there.prompts["memory-1"].version == "5"
    assert newest(there, "memory-1").model == NEW
