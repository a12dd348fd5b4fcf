"""What is to be done with each prompt: the judgement that plan, run and resume share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.content.digest import make_replica
from engine.content.filter import Chosen
from engine.errors import Gone, Rejected, Stop, Transient
from engine.ledger.lines import timestamp
from engine.ledger.sink import Sink
from engine.ledger.state import State
from engine.migrate.claims import Claims
from engine.migrate.job import Job
from engine.migrate.survey import Survey, survey
from engine.migrate.task import Task
from engine.model import Entry, Rule, Select, When
from tests.workspaces import CATALOG, SETTLE, Wrapped, job_of, memory, names, prompt, renamed, run

NOW = 1_800_000_000.0


async def surveyed(job: Job, state: State | None = None, **more: Any) -> Survey:
    return await survey(job, state or State(), **({"now": NOW} | more))


def actions(found: Survey) -> dict[str, str]:
    return {task.row.id: task.action for task in found.tasks}


def task_of(found: Survey, source_id: str) -> Task:
    return next(task for task in found.tasks if task.row.id == source_id)


def told(state: State, kind: str, source_id: str, *, ts: float = NOW, **fields: Any) -> State:
    """A line of the ledger that is read before."""
    state.fold({"kind": kind, "run": "r1", "ts": timestamp(ts), "source_id": source_id, **fields})
    return state


def replica_of(job: Job, source_id: str, target_id: str, **fields: Any) -> Any:
    """The replica of a prompt as an earlier run of the job left it."""
    source = prompt(source_id)
    made = replace(source, name=f"{source.name}-replica")
    marked = make_replica(source, made, migration=job.migration, registry=job.registry)
    return replace(marked.prompt, id=target_id, **fields)


# ---- what is selected ------------------------------------------------------------------------------------------------


async def test_every_selected_prompt_has_one_task_in_the_order_of_the_listing() -> None:
    there = memory(prompt("a"), prompt("b", model="gpt-4o"), prompt("c"))
    found = await surveyed(job_of(there, select=Select(models=("claude*",))))
    assert [task.row.id for task in found.tasks] == ["c", "a"]
    assert set(actions(found).values()) == {"create"}
    assert (found.listed, found.total, found.orphaned) == (3, 3, 0)


async def test_both_ends_are_listed_once_and_one_workspace_only_once() -> None:
    source, target = Wrapped(memory(prompt("a"))), Wrapped(memory())
    await surveyed(job_of(source, target))
    assert (source.listings, target.listings) == (1, 1)
    alone = Wrapped(memory(prompt("a")))
    await surveyed(job_of(alone))
    assert alone.listings == 1


async def test_no_definition_is_read_where_rows_tell_enough() -> None:
    there = Wrapped(memory(prompt("a"), prompt("b")))
    await surveyed(job_of(there))
    assert there.fetched == []


async def test_replicas_of_another_migration_are_ordinary_prompts() -> None:
    there = memory(prompt("a"))
    other = replica_of(job_of(there, migration="other"), "a", "t1")
    there.prompts["t1"] = other
    found = await surveyed(job_of(there, rules=(Rule(name="{name} again"),)))
    assert actions(found) == {"a": "create", "t1": "create"}
    found = await surveyed(job_of(there))
    assert actions(found) == {"a": "conflict", "t1": "create"}
    assert task_of(found, "a").target_id == "t1"


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (Transient("no", error="server_error", status=500), "registry_down", 75),
        (Rejected("no", error="forbidden", status=403), "forbidden", 4),
        (Rejected("no", error="rejected", status=400), "check_failed", 4),
    ],
)
async def test_a_listing_that_cannot_be_had_stops_the_run(error: Exception, reason: str, code: int) -> None:
    class Mute(Wrapped):
        async def pages(self) -> Any:
            raise error
            yield

    with pytest.raises(Stop) as caught:
        await surveyed(job_of(Mute(memory())))
    assert (caught.value.reason, caught.value.exit_code) == (reason, code)
    assert caught.value.next


async def test_both_ends_are_listed_at_the_same_time() -> None:
    here, there = anyio.Event(), anyio.Event()

    class Listed(Wrapped):
        mine, other = here, there

        async def pages(self) -> Any:
            self.mine.set()
            with anyio.fail_after(10):
                await self.other.wait()
            async for page in super().pages():
                yield page

    class Other(Listed):
        mine, other = there, here

    found = await surveyed(job_of(Listed(memory(prompt("a"))), Other(memory())))
    assert actions(found) == {"a": "create"}


# ---- what rows do not tell -------------------------------------------------------------------------------------------


class Silent(Wrapped):
    """Its listing leaves out these parts."""

    untold: tuple[str, ...] = ("model",)

    async def pages(self) -> Any:
        async for page in super().pages():
            silent: dict[str, Any] = dict.fromkeys(self.untold)
            yield replace(page, rows=[row._replace(**silent) for row in page.rows])


CLAUDE = Select(models=("claude*",))


async def test_rows_without_a_model_are_read_to_select_by_it() -> None:
    there = Silent(memory(prompt("a"), prompt("b", model="gpt-4o"), prompt("c", model=None), prompt("d")))
    found = await surveyed(job_of(there, select=CLAUDE))
    assert actions(found) == {"a": "create", "d": "create"}
    assert sorted(there.fetched) == ["a", "b", "c", "d"]
    assert any("4 prompts" in note for note in found.notes)
    assert task_of(found, "a").row.model == "claude-3-7"


async def test_only_rows_that_every_other_part_takes_are_read() -> None:
    there = Silent(memory(prompt("a"), prompt("b"), prompt("c", collection="c2")))
    select = Select(models=("claude*",), names=("a", "c"), collections=("support",))
    assert actions(await surveyed(job_of(there, select=select))) == {"a": "create"}
    assert there.fetched == ["a"]
    there.fetched.clear()
    for select in (Select(), Select(models=("*",)), Select(names=("a",))):
        found = await surveyed(job_of(there, select=select))
        assert (there.fetched, found.notes) == ([], [])


async def test_rows_without_a_collection_are_read_to_select_by_it() -> None:
    there = Silent(memory(prompt("a"), prompt("b", collection="c2"), prompt("c", collection=None)))
    there.untold = ("collection", "model")
    found = await surveyed(job_of(there, select=Select(collections=("support",), models=("claude*",))))
    assert actions(found) == {"a": "create"}
    assert task_of(found, "a").row.collection == "c1"


async def test_what_a_command_is_narrowed_to_is_asked_of_the_selected_alone() -> None:
    there = Silent(memory(prompt("a"), prompt("b", collection="c2"), prompt("c")))
    there.untold = ("collection",)
    narrowed = Chosen(collections=("support",))
    found = await surveyed(job_of(there, select=Select(names=("a", "b"))), narrowed=narrowed.parts)
    assert actions(found) == {"a": "create", "b": "create"}
    assert [task.row.id for task in found.tasks if narrowed.takes_row(task.row, CATALOG.collections)] == ["a"]
    assert sorted(there.fetched) == ["a", "b"]


async def test_silent_rows_are_read_in_the_pool() -> None:
    busy = most = 0

    async def on_fetch(prompt_id: str) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await anyio.lowlevel.checkpoint()
        busy -= 1

    there = Silent(memory(*(prompt(f"p{number}") for number in range(50))), on_fetch=on_fetch)
    await surveyed(job_of(there, select=CLAUDE, concurrency=12))
    assert most == 12


def refusing(*ids: str, error: Exception) -> Any:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id in ids:
            raise error

    return on_fetch


@pytest.mark.parametrize("error", [Transient("no", error="x", status=500), Rejected("no", error="x", status=403)])
async def test_a_row_that_nobody_can_judge_fails_by_name_and_is_not_written(error: Exception, ledger: Path) -> None:
    """Even when it can be read a moment later: it may be none of those that the file selects."""
    asked: list[str] = []

    async def on_fetch(prompt_id: str) -> None:
        asked.append(prompt_id)
        if prompt_id == "b" and asked.count("b") == 1:
            raise error

    there = memory(prompt("a"), prompt("b", model="gpt-4o"), prompt("c"))
    source = Silent(there, on_fetch=on_fetch)
    ran = await run(job_of(source, target := memory(), select=CLAUDE), ledger)
    assert ran.statuses == {"a": "created", "b": "failed", "c": "created"}
    assert names(target) == ["a-replica", "c-replica"]
    assert ran.context.state.records["b"].retriable
    assert any("1 prompts could not be read" in note for note in ran.survey.notes)
    again = await run(job_of(source, target, select=CLAUDE), ledger)
    assert sorted(task.row.id for task in again.survey.tasks) == ["a", "c"]


async def test_a_silent_row_that_is_gone_is_skipped() -> None:
    gone = refusing("a", error=Gone("gone", error="gone", status=404))
    found = await surveyed(job_of(Silent(memory(prompt("a"), prompt("b")), on_fetch=gone), select=CLAUDE))
    assert actions(found) == {"a": "skip", "b": "create"}
    assert task_of(found, "a").reason == "gone"


@pytest.mark.parametrize(
    ("kind", "more", "action"),
    [
        ("intent", {"op": "create", "name": "a-replica"}, "wait"),
        ("unknown", {"stage": "create", "error": "no_answer"}, "wait"),
        ("failed", {"stage": "create", "error": "rejected", "retriable": False}, "keep"),
        ("failed", {"stage": "create", "error": "not_sent", "retriable": True}, "unread"),
        ("created", {"target_id": "t1"}, "unread"),
    ],
)
async def test_what_the_ledger_knows_of_it_is_not_forgotten(kind: str, more: dict[str, Any], action: str) -> None:
    """A line that it failed would say of a write in doubt that it had no effect."""
    no = refusing("a", error=Transient("no", error="x"))
    state = told(State(), kind, "a", **more)
    source = Silent(memory(prompt("a")), on_fetch=no)
    assert actions(await surveyed(job_of(source, memory(), select=CLAUDE), state)) == {"a": action}


async def test_a_replica_whose_source_nobody_can_judge_stays_made(ledger: Path) -> None:
    there = memory()
    source = Silent(memory(prompt("a")))
    await run(job_of(source, there, select=CLAUDE), ledger)
    source.on_fetch = refusing("a", error=Transient("no", error="x"))
    ran = await run(job_of(source, there, select=CLAUDE), ledger)
    assert (ran.status("a"), ran.context.state.records["a"].made) == ("failed", True)
    source.on_fetch = None
    ran = await run(job_of(source, there, select=CLAUDE), ledger)
    assert (ran.status("a"), there.creates) == ("created", 1)


async def test_a_registry_that_is_down_ends_the_survey() -> None:
    down = refusing("a", error=Stop("registry_down", "it is down", next="Later."))
    with pytest.raises(Stop):
        await surveyed(job_of(Silent(memory(prompt("a")), on_fetch=down), select=CLAUDE))


async def test_a_rule_for_models_finds_its_prompt_though_the_row_has_none(ledger: Path) -> None:
    """Else its replica would be looked for under another name than it was made with, and made twice."""
    rules = (Rule(name="{name}-replica"), Rule(when=When(model="claude*"), name="{name} for {model}"))
    source, there = Silent(memory(prompt("a"), prompt("b", model="gpt"))), memory()
    await run(job_of(source, there, rules=rules), ledger)
    assert names(there) == ["a for claude-3-7", "b-replica"]
    ledger.unlink()
    ran = await run(job_of(source, there, rules=rules), ledger)
    assert {task.action for task in ran.survey.tasks} == {"adopt"}
    assert there.creates == 2


async def test_a_whole_history_is_placed_by_its_published_version(ledger: Path) -> None:
    """`all` is no version that could be read."""
    rules = (Rule(name="{name}-replica"), Rule(when=When(has=("tools",)), name="with tools"))
    source = memory(prompt("a", tools=[{"type": "function"}]))
    found = await surveyed(job_of(source, memory(), rules=rules, select=Select(version="all")))
    assert actions(found) == {"a": "create"}


# ---- names -----------------------------------------------------------------------------------------------------------


async def test_different_prompts_that_would_share_a_name_are_conflicts_and_the_others_go_on() -> None:
    there = memory(prompt("a"), prompt("b"), prompt("c", collection="c2"), prompt("d", "kept"))
    rules = (Rule(name="one name"), Rule(when=When(name="kept"), name="another"))
    found = await surveyed(job_of(there, rules=rules))
    assert actions(found) == {"a": "conflict", "b": "conflict", "c": "create", "d": "create"}
    assert {task_of(found, one).reason for one in ("a", "b")} == {"name_clash"}


async def test_prompts_that_share_their_name_already_are_told_apart_by_key(ledger: Path) -> None:
    there = memory(prompt("a", "same"), prompt("b", "same"))
    job = job_of(there)
    found = await surveyed(job)
    assert set(actions(found).values()) == {"create"}
    assert any("share their name" in note for note in found.notes)
    await run(job, ledger)
    ledger.unlink()
    again = await surveyed(job)
    assert actions(again) == {"a": "adopt", "b": "adopt"}
    assert task_of(again, "a").target_id != task_of(again, "b").target_id


async def test_a_name_that_a_replica_of_an_earlier_run_has_is_given_to_no_other_prompt(ledger: Path) -> None:
    there = memory(prompt("a", "x"))
    job = job_of(there, rules=(Rule(name="one name"),))
    await run(job, ledger)
    there.prompts["b"] = prompt("b", "y")
    there.prompts["c"] = prompt("c", "z", collection="c2")
    ran = await run(job, ledger)
    assert actions(ran.survey) == {"a": "unchanged", "b": "conflict", "c": "create"}
    assert task_of(ran.survey, "b").reason == "name_clash"


@pytest.mark.parametrize(
    ("on_existing", "action", "name"),
    [("fail", "conflict", None), ("skip", "skip", None), ("rename", "create", "a-replica-3")],
)
async def test_a_name_that_somebody_else_has(on_existing: str, action: str, name: str | None) -> None:
    there = memory(prompt("a"), prompt("t1", "a-replica"), prompt("t2", "a-replica-2"))
    found = await surveyed(job_of(there, on_existing=on_existing, select=Select(ids=("a",))))
    (task,) = found.tasks
    assert (task.action, task.name) == (action, name)
    if action != "create":
        assert (task.reason, task.target_id) == ("exists", "t1")


@pytest.mark.parametrize(
    ("on_existing", "action", "name"),
    [("fail", "conflict", None), ("skip", "skip", None), ("rename", "create", "a-replica-3")],
)
async def test_a_name_that_another_migration_of_the_fleet_gives(
    on_existing: str, action: str, name: str | None
) -> None:
    """Neither has written anything yet, so that no listing tells."""
    there, claims = memory(prompt("a"), prompt("b")), Claims()
    rules = (Rule(name="a-replica"), Rule(when=When(name="b"), name="a-replica-2"))
    first = await surveyed(job_of(there, rules=rules, claims=claims))
    assert actions(first) == {"a": "create", "b": "create"}
    later = job_of(there, migration="later", on_existing=on_existing, select=Select(ids=("a",)), claims=claims)
    (task,) = (await surveyed(later)).tasks
    assert (task.action, task.name) == (action, name)
    if action != "create":
        assert (task.reason, task.target_id) == ("exists", None)
        assert task.note == "'a-replica' is what migration m of this fleet calls a replica"
    assert actions(await surveyed(job_of(there, rules=rules, claims=claims))) == actions(first), "a name stays its own"


async def test_the_name_of_a_create_in_doubt_is_given_to_no_other_migration() -> None:
    there, claims, state = memory(prompt("a")), Claims(), State()
    told(state, "intent", "a", op="create", key="k", name="a-replica", attempt=1)
    assert actions(await surveyed(job_of(there, claims=claims), state)) == {"a": "wait"}
    assert actions(await surveyed(job_of(there, migration="later", claims=claims))) == {"a": "conflict"}


async def test_new_names_are_free_among_themselves_and_beside_what_is_planned() -> None:
    """Two of one name, and a third one whose replica will have the next free name."""
    there = memory(prompt("a", "n"), prompt("b", "n"), prompt("c", "m"), prompt("t", "n-replica"))
    rules = (Rule(name="{name}-replica"), Rule(when=When(name="m"), name="n-replica-2"))
    found = await surveyed(job_of(there, rules=rules, on_existing="rename", select=Select(ids=("a", "b", "c"))))
    assert sorted(task.name or "n-replica-2" for task in found.tasks) == ["n-replica-2", "n-replica-3", "n-replica-4"]


async def test_a_rule_that_looks_inside_decides_the_name_by_the_definition() -> None:
    tools = [{"type": "function"}]
    there = Wrapped(memory(prompt("a", tools=tools), prompt("b"), prompt("t", "with tools")))
    rules = (Rule(name="{name}-replica"), Rule(when=When(has=("tools",)), name="with tools"))
    found = await surveyed(job_of(there, rules=rules, select=Select(ids=("a", "b"))))
    assert actions(found) == {"a": "conflict", "b": "create"}


@pytest.mark.parametrize("error", [Transient("no", error="x"), Rejected("no", error="x")])
async def test_without_its_definition_nobody_knows_its_name_so_it_is_not_created(
    error: Exception, ledger: Path
) -> None:
    """In the run it may be readable again, and its replica, unknown to a lost ledger, would be made a second time."""

    async def on_fetch(prompt_id: str) -> None:
        raise error

    there = Wrapped(memory(prompt("a")), on_fetch=on_fetch)
    rules = (Rule(name="{name}-replica"), Rule(when=When(has=("tools",)), name="with tools"))
    assert actions(await surveyed(job_of(there, rules=rules))) == {"a": "unread"}
    ran = await run(job_of(there, rules=rules), ledger)
    assert (ran.status("a"), there.inner.creates) == ("failed", 0)
    there.on_fetch = None
    assert (await run(job_of(there, rules=rules), ledger)).status("a") == "created"


# ---- what is there already -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("two_keys", [False, True])
async def test_a_lost_ledger_loses_nothing(ledger: Path, two_keys: bool) -> None:
    """All replicas are taken over, none is made again, and none of them is a source though all are selected."""
    there = memory(*(prompt(f"p{number}") for number in range(30)))
    source, target = Wrapped(there), Wrapped(there)
    job = job_of(source, target) if two_keys else job_of(there)
    await run(job, ledger)
    assert len(names(there)) == 60
    ledger.unlink()
    ran = await run(job, ledger)
    assert actions(ran.survey) == {f"p{number}": "adopt" for number in range(30)}
    assert len(names(there)) == 60
    assert set(ran.statuses.values()) == {"created"}
    records = ran.context.state.records
    assert {record.target_id for record in records.values()} == set(there.prompts) - set(records)
    again = await run(job, ledger)
    assert set(actions(again.survey).values()) == {"unchanged"}


async def test_replicas_are_no_sources_when_the_ledger_knows_them(ledger: Path) -> None:
    there = memory(prompt("a"))
    job = job_of(there)
    await run(job, ledger)
    ran = await run(job, ledger)
    assert actions(ran.survey) == {"a": "unchanged"}
    assert names(there) == ["a", "a-replica"]


async def test_a_renamed_replica_that_no_ledger_knows_is_no_source(ledger: Path) -> None:
    there = memory(prompt("a"))
    job = job_of(there)
    await run(job, ledger)
    renamed(there, "memory-1", "moved away")
    ledger.unlink()
    ran = await run(job_of(there, select=Select(names=("moved*",))), ledger)
    assert ran.context.replicas == {"memory-1"}
    assert names(there) == ["a", "moved away"]


async def test_of_two_replicas_of_one_key_the_oldest_is_taken_and_the_rest_is_named() -> None:
    there = memory(prompt("a"))
    job = job_of(there)
    for target_id in ("t1", "t2", "t3"):
        there.prompts[target_id] = replica_of(job, "a", target_id)
    (task,) = (await surveyed(job)).tasks
    assert (task.action, task.target_id) == ("adopt", "t1")
    assert task.note is not None
    assert "t2, t3" in task.note or "t3, t2" in task.note


async def test_a_replica_under_a_number_is_found_too() -> None:
    there = memory(prompt("a"), prompt("x", "a-replica"))
    job = job_of(there, on_existing="rename", select=Select(ids=("a",)))
    there.prompts["t1"] = replica_of(job, "a", "t1", name="a-replica-2")
    (task,) = (await surveyed(job)).tasks
    assert (task.action, task.target_id) == ("adopt", "t1")


async def test_a_candidate_that_cannot_be_read_now_stops_the_run_before_it_doubles() -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "t1":
            raise Transient("the registry answered 500", error="server_error", status=500)

    inner = memory(prompt("a"))
    inner.prompts["t1"] = replica_of(job_of(inner), "a", "t1")
    with pytest.raises(Stop) as caught:
        await surveyed(job_of(Wrapped(inner, on_fetch=on_fetch), on_existing="rename"))
    assert caught.value.reason == "registry_down"
    assert "t1" in str(caught.value)


async def test_a_candidate_that_may_not_be_read_is_somebody_elses() -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "t1":
            raise Rejected("the registry answered 403", error="forbidden", status=403)

    there = Wrapped(memory(prompt("a"), prompt("t1", "a-replica")), on_fetch=on_fetch)
    found = await surveyed(job_of(there, select=Select(ids=("a",))))
    assert actions(found) == {"a": "conflict"}


# ---- what an earlier run said ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "action"), [(0, "wait"), (1.9, "wait"), (2.1, "create"), (1000, "create")])
@pytest.mark.parametrize("kind", ["intent", "unknown"])
async def test_a_create_in_doubt_is_not_repeated_before_two_settle_times(age: float, action: str, kind: str) -> None:
    there = memory(prompt("a"))
    state = told(State(), "intent", "a", ts=NOW - age * SETTLE, name="a-replica", attempt=1)
    if kind == "unknown":
        told(state, "unknown", "a", ts=NOW, stage="create", error="no_answer")
    found = await surveyed(job_of(there), state)
    assert actions(found) == {"a": action}


async def test_a_create_in_doubt_that_happened_is_taken_over_under_the_name_it_was_sent_with() -> None:
    """The rules have changed since: the name in the ledger counts."""
    there = memory(prompt("a"))
    old = job_of(there)
    there.prompts["t1"] = replica_of(old, "a", "t1")
    state = told(State(), "intent", "a", name="a-replica", attempt=1)
    found = await surveyed(job_of(there, rules=(Rule(name="new {name}"),)), state)
    assert actions(found) == {"a": "adopt"}


async def test_a_name_that_the_registry_refused_is_looked_up_at_once() -> None:
    def refused() -> State:
        state = told(State(), "intent", "a", name="a-replica", attempt=1)
        return told(state, "unknown", "a", stage="create", error="exists")

    there = memory(prompt("a"))
    assert actions(await surveyed(job_of(there), refused())) == {"a": "conflict"}
    there.prompts["t1"] = prompt("t1", "a-replica")
    only = Select(ids=("a",))
    (task,) = (await surveyed(job_of(there, select=only), refused())).tasks
    assert (task.action, task.reason, task.target_id) == ("conflict", "exists", "t1")
    (task,) = (await surveyed(job_of(there, select=only, on_existing="rename"), refused())).tasks
    assert (task.action, task.name) == ("create", "a-replica-2")
    there.prompts["t1"] = replica_of(job_of(there), "a", "t1")
    assert actions(await surveyed(job_of(there), refused())) == {"a": "adopt"}


@pytest.mark.parametrize(
    ("retriable", "retry_failed", "action"), [(True, False, "create"), (False, False, "keep"), (False, True, "create")]
)
async def test_what_failed_for_good_is_taken_up_on_request(retriable: bool, retry_failed: bool, action: str) -> None:
    state = told(State(), "failed", "a", stage="create", error="rejected", retriable=retriable)
    found = await surveyed(job_of(memory(prompt("a"))), state, retry_failed=retry_failed)
    assert actions(found) == {"a": action}


@pytest.mark.parametrize("kind", ["conflict", "skipped", "rolled_back"])
async def test_what_was_in_the_way_or_undone_is_judged_anew(kind: str) -> None:
    state = told(State(), kind, "a", reason="exists", target_id=None)
    assert actions(await surveyed(job_of(memory(prompt("a"))), state)) == {"a": "create"}


async def test_what_changed_meanwhile_is_counted_and_left_alone(ledger: Path) -> None:
    there = memory(*(prompt(one, updated_at="2026-01-01T00:00:00Z") for one in ("a", "b", "c")))
    job = job_of(there, on_change="skip")
    first = await run(job, ledger)
    target_of = {source_id: record.target_id for source_id, record in first.context.state.records.items()}
    there.prompts["a"] = replace(there.prompts["a"], updated_at="2026-01-03T00:00:00Z")
    del there.prompts[str(target_of["b"])]
    del there.prompts["c"]
    ran = await run(job, ledger)
    assert actions(ran.survey) == {"a": "unchanged", "b": "unchanged"}
    assert ran.survey.orphaned == 1
    assert any(note.startswith("1 sources changed") for note in ran.survey.notes)
    assert any(note.startswith("1 replicas of earlier runs are no longer") for note in ran.survey.notes)


@pytest.mark.parametrize("kind", ["failed", "conflict", "unknown"])
async def test_what_was_open_when_its_replica_went_away_is_settled(kind: str, ledger: Path) -> None:
    there = memory(prompt("a"))
    first = await run(job_of(there), ledger)
    state = first.context.state
    told(state, kind, "a", op="update", reason="edited", retriable=True, ts=NOW - 100)
    del there.prompts[str(state.records["a"].target_id)]
    assert actions(await surveyed(job_of(there), state)) == {"a": "update"}
    await lines_added(ledger, {"kind": kind, "source_id": "a", "op": "update", "reason": "edited", "retriable": True})
    ran = await run(job_of(there), ledger)
    assert (ran.status("a"), ran.context.state.records["a"].told) == ("created", "run-2")
    assert actions(await surveyed(job_of(there), ran.context.state)) == {"a": "unchanged"}


async def lines_added(ledger: Path, *lines: dict[str, Any]) -> None:
    sink = Sink.open(ledger, run="run-1", clock=lambda: 1_700_000_000.0)
    async with sink:
        await sink.record(*(Entry(line.pop("kind"), line) for line in lines))
    sink.close()


async def test_a_made_prompt_whose_source_goes_away_meanwhile_is_skipped_and_looked_at_again(ledger: Path) -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "a":
            raise Gone("it is gone", error="gone", status=404)

    there = memory(prompt("a"))
    await run(job_of(there), ledger)
    there.prompts["a"] = replace(there.prompts["a"], updated_at="2026-01-03T00:00:00Z", text="new")
    ran = await run(job_of(Wrapped(there, on_fetch=on_fetch)), ledger)
    assert (ran.status("a"), ran.context.state.records["a"].made) == ("skipped", True)
    assert (await run(job_of(there), ledger)).status("a") == "updated"


# ---- any workspace ---------------------------------------------------------------------------------------------------

some_prompts = st.lists(
    st.tuples(st.sampled_from(["x", "y", "z", "x-replica", "x-2"]), st.sampled_from(["c1", "c2"])), max_size=8
)


@settings(max_examples=200, deadline=None)
@given(
    sources=some_prompts,
    others=some_prompts,
    on_existing=st.sampled_from(["fail", "skip", "rename"]),
    name=st.sampled_from(["{name}", "{name}-replica", "one", "{collection}"]),
)
async def test_no_replica_takes_the_name_of_another_prompt(
    sources: list[tuple[str, str]], others: list[tuple[str, str]], on_existing: str, name: str
) -> None:
    """Names that are created: not somebody else's, and shared only by prompts that share their own."""
    source = memory(*(prompt(f"p{n}", one, collection=home) for n, (one, home) in enumerate(sources)))
    target = memory(*(prompt(f"t{n}", one, collection=home) for n, (one, home) in enumerate(others)))
    found = await surveyed(job_of(source, target, on_existing=on_existing, rules=(Rule(name=name),)))
    assert len(found.tasks) == len(sources)
    planned: dict[tuple[str, str | None], set[str]] = {}
    for task in found.tasks:
        given_name = name.replace("{name}", task.row.name)
        final = task.name or given_name.replace(
            "{collection}", {"c1": "support", "c2": "sales"}[task.row.collection or ""]
        )
        if task.action == "create":
            assert final not in {one for one, _ in others}
            planned.setdefault((final, task.row.collection), set()).add(task.row.name)
        else:
            assert task.action in ("conflict", "skip")
    assert all(len(own) == 1 for own in planned.values())
