"""The plan says what the run does, prompt by prompt, and writes nothing."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import EngineError, Gone, Rejected, Transient
from engine.ledger.state import State
from engine.migrate.job import Job, prepare
from engine.migrate.plan import Plan, Planned, plan
from engine.migrate.survey import survey
from engine.model import Failed, ParameterRules, Rule, Select, When
from tests.workspaces import Wrapped, job_of, memory, names, prompt, renamed, run

NOW = 1_800_000_000.0


async def planned(job: Job, state: State | None = None, chosen: set[str] | None = None) -> Plan:
    state = state or State()
    found = await survey(job, state, now=NOW)
    return await plan(job, found, state, chosen, now=NOW, rate=10, asked=2)


def of(made: Plan, source_id: str) -> Planned:
    return next(one for one in made.prompts if one.source_id == source_id)


async def test_a_plan_says_what_changes_and_writes_nothing() -> None:
    there = memory(prompt("a", parameters={"max_tokens": 100, "thinking": 1}))
    rules = (Rule(name="{name}-replica", model=(("*", "new-model"),), parameters=ParameterRules(drop=("thinking",))),)
    made = await planned(job_of(there, rules=rules))
    (one,) = made.prompts
    assert (one.source_id, one.name, one.action, one.problem) == ("a", "a", "create", None)
    assert list(one.changes) == [
        {"field": "name", "before": "a", "after": "a-replica"},
        {"field": "model", "before": "claude-3-7", "after": "new-model"},
        {"field": "parameters.thinking", "before": 1, "after": None},
    ]
    assert made.has_work
    assert there.creates == 0
    assert names(there) == ["a"]


async def test_a_plan_shows_the_free_name_that_the_run_gives() -> None:
    there = memory(prompt("a"), prompt("t", "a-replica"))
    made = await planned(job_of(there, on_existing="rename", select=Select(ids=("a",))))
    (one,) = made.prompts
    assert one.changes[0] == {"field": "name", "before": "a", "after": "a-replica-2"}
    assert any("a-replica-2" in note for note in one.notes)


async def test_losses_are_named_and_fail_the_prompt_unless_accepted() -> None:
    there = memory(prompt("a", extra={"guardrails": ["g"]}))
    (one,) = (await planned(job_of(there))).prompts
    assert list(one.losses) == ["guardrails"]
    assert one.problem is not None
    assert "allow_loss" in one.problem
    (one,) = (await planned(job_of(there, allow_loss=frozenset({"guardrails"})))).prompts
    assert list(one.losses) == ["guardrails"]
    assert one.problem is None


async def test_what_is_carried_is_no_loss_and_is_told() -> None:
    there = memory(prompt("a", extra={"guardrails": ["g"]}))
    (one,) = (await planned(job_of(there, carry=frozenset({"guardrails", "raw"})))).prompts
    assert (one.losses, one.carried, one.problem) == ([], ["guardrails"], None)
    assert one.to_json()["carried"] == ["guardrails"]


async def test_what_should_be_carried_and_cannot_is_told_also_where_its_loss_is_accepted() -> None:
    there = memory(prompt("a", extra={"guardrails": float("nan")}))
    wanted = frozenset({"guardrails"})
    (one,) = (await planned(job_of(there, carry=wanted))).prompts
    assert (list(one.losses), one.carried) == (["guardrails"], [])
    assert "; not carried: guardrails cannot be written as JSON without loss" in str(one.problem)
    (one,) = (await planned(job_of(there, carry=wanted, allow_loss=wanted))).prompts
    assert one.problem is None
    assert any(note.startswith("not carried: guardrails cannot be written") for note in one.notes)


async def test_where_metadata_do_not_last_nothing_is_carried() -> None:
    job = job_of(memory(), carry=frozenset({"guardrails"}))
    refused = prepare(job, prompt("a", extra={"guardrails": ["g"]}), mark_in="description")
    assert isinstance(refused, Failed)
    assert "the target does not keep metadata" in refused.message


async def test_notes_of_the_prompt_and_of_the_whole_are_told() -> None:
    there = memory(prompt("a", "same", notes=("is shared; the replica is not",)), prompt("b", "same"))
    made = await planned(job_of(there))
    twin = "shares its name with another prompt; each gets its replica, told apart by its key"
    assert list(of(made, "a").notes) == [twin, "is shared; the replica is not"]
    assert list(of(made, "b").notes) == [twin]
    assert any("share their name" in note for note in made.notes)


@pytest.mark.parametrize(
    ("error", "action", "has_problem"),
    [
        (Gone("it is gone", error="gone", status=404), "skip", False),
        (Rejected("it is refused", error="rejected", status=400), "create", True),
        (Transient("it is down", error="server_error", status=500), "create", True),
    ],
)
async def test_a_prompt_that_cannot_be_read_is_told_and_the_others_are_planned(
    error: EngineError, action: str, has_problem: bool
) -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "a":
            raise error

    made = await planned(job_of(Wrapped(memory(prompt("a"), prompt("b")), on_fetch=on_fetch)))
    assert of(made, "a").action == action
    assert (of(made, "a").problem is not None) is has_problem
    assert of(made, "b").problem is None


async def test_the_counts_tell_what_is_to_be_done(ledger: Path) -> None:
    there = memory(prompt("a"), prompt("b"), prompt("c"), prompt("t", "c-replica"))
    job = job_of(there, select=Select(ids=("a", "b", "c")))
    ran = await run(job, ledger, limit=1)
    made = await planned(job, ran.context.state)
    assert made.counts == {
        "listed": 5,
        "selected": 3,
        "create": 1,
        "update": 0,
        "unchanged": 1,
        "skip": 0,
        "conflict": 1,
    }
    # two listings, one definition to read, one create
    assert (made.requests, made.seconds) == (4, 0.4)


async def test_only_the_chosen_are_planned() -> None:
    there = Wrapped(memory(prompt("a"), prompt("b")))
    made = await planned(job_of(there), chosen={"b"})
    assert [one.source_id for one in made.prompts] == ["b"]
    assert there.fetched == ["b"]


async def test_what_failed_for_good_is_no_work() -> None:
    state = State()
    line = {"kind": "failed", "run": "r1", "ts": "2026-01-01T00:00:00Z", "source_id": "a", "error": "rejected"}
    state.fold(line)
    made = await planned(job_of(memory(prompt("a"))), state)
    assert [one.action for one in made.prompts] == ["skip"]
    assert "--retry-failed" in made.prompts[0].notes[0]
    assert not made.has_work


async def test_what_will_be_taken_over_is_unchanged(ledger: Path) -> None:
    there = memory(prompt("a"))
    job = job_of(there)
    await run(job, ledger)
    made = await planned(job)
    assert [one.action for one in made.prompts] == ["unchanged"]
    assert "memory-1" in made.prompts[0].notes[0]


async def test_a_renamed_replica_is_in_no_plan(ledger: Path) -> None:
    there = memory(prompt("a"))
    await run(job_of(there), ledger)
    renamed(there, "memory-1", "moved away")
    made = await planned(job_of(there, select=Select(names=("moved*",))))
    assert list(made.prompts) == []
    assert made.counts["selected"] == 0
    assert not made.has_work


# ---- plan and run agree ----------------------------------------------------------------------------------------------

errors = st.sampled_from(
    [
        None,
        None,
        None,
        Gone("gone", error="gone", status=404),
        Rejected("refused", error="rejected", status=400),
        Transient("down", error="server_error", status=500),
    ]
)
things = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["x", "y", "x-replica", "x-replica-2", "odd"]),
        "collection": st.sampled_from(["c1", "c2", None]),
        "model": st.sampled_from(["claude-3-7", "gpt-4o"]),
        "tools": st.sampled_from([None, [{"type": "function"}]]),
        "extra": st.sampled_from([{}, {}, {"guardrails": 1}]),
    }
)


@settings(max_examples=150, deadline=None)
@given(
    prompts=st.lists(st.tuples(things, errors), max_size=7),
    done=st.integers(0, 3),
    lost=st.booleans(),
    on_existing=st.sampled_from(["fail", "skip", "rename"]),
    select=st.sampled_from([Select(), Select(models=("claude*",)), Select(names=("!y",))]),
    looks_inside=st.booleans(),
)
async def test_what_the_plan_calls_create_is_what_the_run_creates(
    prompts: list[tuple[dict[str, Any], EngineError | None]],
    done: int,
    lost: bool,
    on_existing: str,
    select: Select,
    looks_inside: bool,
) -> None:
    inner = memory(*(prompt(f"p{number}", **fields) for number, (fields, _) in enumerate(prompts)))
    failing = {f"p{number}": error for number, (_, error) in enumerate(prompts) if error is not None}

    async def on_fetch(prompt_id: str) -> None:
        if prompt_id in failing:
            raise failing[prompt_id]

    inside = (Rule(when=When(has=("tools",)), name="with tools"),) if looks_inside else ()
    rules = (Rule(name="{name}-replica"), *inside)
    job = job_of(inner, on_existing=on_existing, select=select, rules=rules)
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "m.jsonl"
        state = State()
        if done:
            state = (await run(job, ledger, limit=done)).context.state
        if lost:
            ledger.unlink(missing_ok=True)
            state = State()
        job = job_of(
            Wrapped(inner, on_fetch=on_fetch), Wrapped(inner), on_existing=on_existing, select=select, rules=rules
        )
        made = await planned(job, state)
        before = set(inner.prompts)
        ran = await run(job, ledger)
    wanted = {one.source_id for one in made.prompts if one.action == "create" and one.problem is None}
    created = set(inner.prompts) - before
    of_target = {record.target_id: source_id for source_id, record in ran.context.state.records.items()}
    assert {of_target[target_id] for target_id in created} == wanted
    assert len(created) == len(wanted)
    names_planned = {one.source_id: one.changes[0]["after"] for one in made.prompts if one.source_id in wanted}
    assert {of_target[one]: inner.prompts[one].name for one in created} == names_planned
    failed = {one.source_id for one in made.prompts if one.problem is not None}
    assert failed == {one for one, status in ran.statuses.items() if status == "failed"}
    conflicts = {one.source_id for one in made.prompts if one.action == "conflict"}
    assert conflicts == {one for one, status in ran.statuses.items() if status == "conflict"}
