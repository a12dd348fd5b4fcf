"""Creates whose answer is lost: looked up before anyone sends again, and at the registry's truth nothing is doubled."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.connectors.memory import Memory
from engine.errors import Stop, Transient
from engine.ledger.file import entries, read_ledger
from engine.migrate.halt import Halt
from engine.model import MARK_KEY, Created, Failed, Outcome, Prompt, Rule, Sending, Unknown
from tests.workspaces import SETTLE, OnCreate, Put, Wrapped, job_of, memory, prompt, run

LOST = Unknown(error="no_answer", message="the connection broke")
EXISTS = Failed(error="exists", message="something of that name is there", status=409, code="AB07", exists=True)

WITHOUT_EFFECT: dict[str, Outcome] = {
    "none": LOST,
    "exists": EXISTS,
    "refused": Failed(error="rejected", message="no", status=400),
    "not_sent": Failed(error="not_sent", message="no connection", retriable=True),
}

Decide = Callable[[str, int], str]
"""Source id and how many creates it has had -> done | lost | none | exists | refused | not_sent."""


def deciding(decide: Decide) -> OnCreate:
    """What becomes of each create: `lost` is carried out and not answered, `none` is neither."""
    tries: Counter[str] = Counter()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        source_id = replica.name.removesuffix("-replica")
        fate = decide(source_id, tries[source_id])
        tries[source_id] += 1
        if fate in ("done", "lost"):
            outcome = await put()
            return outcome if fate == "done" else LOST
        await sending()
        return WITHOUT_EFFECT[fate]

    return on_create


def made(there: Memory) -> Counter[str]:
    """Source id -> how many replicas of it are there."""
    marks = (one.metadata.get(MARK_KEY) for one in there.prompts.values())
    return Counter(mark["source_id"] for mark in marks if mark)


def prompts(count: int) -> list[Prompt]:
    return [prompt(f"p{number:03}") for number in range(count)]


def lines_of(ledger: Path, source_id: str) -> list[dict[str, Any]]:
    return [line for line in entries(ledger) if line.get("source_id") == source_id]


def kinds(ledger: Path, source_id: str) -> list[str]:
    return [line["kind"] for line in lines_of(ledger, source_id)]


# ---- one lost answer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 3, 9])
async def test_a_lost_answer_is_found_by_looking(ledger: Path, position: int) -> None:
    lost = f"p{position:03}"
    there = memory(*prompts(10))
    ran = await run(
        job_of(Wrapped(there, on_create=deciding(lambda one, _: "lost" if one == lost else "done"))), ledger
    )
    assert set(ran.statuses.values()) == {"created"}
    assert made(there) == Counter(one.id for one in prompts(10))
    assert kinds(ledger, lost) == ["intent", "unknown", "created"]
    assert lines_of(ledger, lost)[-1]["how"] == "lookup"
    assert {line["how"] for line in entries(ledger) if line["kind"] == "created" and line["source_id"] != lost} == {
        "response"
    }


@pytest.mark.parametrize("position", [0, 3, 9])
async def test_a_create_that_never_happened_is_sent_again(ledger: Path, position: int) -> None:
    lost = f"p{position:03}"
    there = memory(*prompts(10))
    decide: Decide = lambda one, tries: "none" if one == lost and tries == 0 else "done"  # noqa: E731
    target = Wrapped(there, on_create=deciding(decide))
    ran = await run(job_of(there, target), ledger)
    assert set(ran.statuses.values()) == {"created"}
    assert made(there) == Counter(one.id for one in prompts(10))
    lines = lines_of(ledger, lost)
    assert [line["kind"] for line in lines] == ["intent", "unknown", "intent", "created"]
    assert [line["attempt"] for line in lines if line["kind"] == "intent"] == [1, 2]
    first, second = (datetime.fromisoformat(line["ts"]).timestamp() for line in lines if line["kind"] == "intent")
    assert second - first >= 2 * SETTLE - 0.002
    assert target.listings >= 2  # one at the start, and no later create without a look


def lost_and_late(target: Wrapped, ledger: Path, source_id: str, settles: float, settle: float = SETTLE) -> OnCreate:
    """That create is carried out and not answered, and is listed only so many settle times after its intent."""

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        outcome = await put()
        assert isinstance(outcome, Created)
        if replica.name != f"{source_id}-replica":
            return outcome
        target.late[outcome.target_id] = read_ledger(ledger).state.records[source_id].since + settles * settle
        return LOST

    return on_create


async def test_a_replica_that_is_listed_late_is_not_sent_again(ledger: Path) -> None:
    """Seen only by the second look, after another settle time."""
    there = memory(*prompts(5))
    target = Wrapped(there)
    target.on_create = lost_and_late(target, ledger, "p002", 1.9)
    ran = await run(job_of(there, target), ledger)
    assert set(ran.statuses.values()) == {"created"}
    assert made(there)["p002"] == 1


async def test_a_look_counts_from_its_beginning_however_long_the_listing_takes(ledger: Path) -> None:
    """Begun after one settle time and ended after two, a listing has not seen what came in between."""
    there = memory(*prompts(3))
    passed = 0.0

    class Slow(Wrapped):
        async def pages(self) -> Any:
            nonlocal passed
            async for page in super().pages():
                yield page
            passed += 1.5 * SETTLE

    target = Slow(there)
    target.clock = lambda: time.time() + passed
    target.on_create = lost_and_late(target, ledger, "p001", 1.2)
    ran = await run(job_of(there, target), ledger, clock=target.clock)
    assert set(ran.statuses.values()) == {"created"}
    assert made(there)["p001"] == 1


async def test_one_listing_settles_all_that_wait(ledger: Path) -> None:
    there = memory(*prompts(40))
    target = Wrapped(there, on_create=deciding(lambda one, _: "lost" if one > "p000" else "done"))
    ran = await run(job_of(there, target, concurrency=40), ledger)
    assert made(there) == Counter(one.id for one in prompts(40))
    assert set(ran.statuses.values()) == {"created"}
    # the first ones are alone, and what is in doubt is looked for together
    assert target.listings <= 4


async def test_a_registry_that_never_answers_leaves_it_unresolved(ledger: Path) -> None:
    there = memory(*prompts(2))
    target = Wrapped(there, on_create=deciding(lambda one, _: "none"))
    ran = await run(job_of(there, target, attempts=2, settle=0.005), ledger)
    assert ran.stop is None
    assert set(ran.statuses.values()) == {"unknown"}
    assert there.creates == 0
    ran = await run(job_of(there), ledger)
    assert made(there) == Counter(one.id for one in prompts(2))


async def test_nothing_is_sent_again_before_two_settle_times_and_a_look(ledger: Path) -> None:
    """Each create looks into the ledger file and into the registry's truth before it is sent."""
    there = memory(*prompts(12))
    chance = Random(7)
    again: list[str] = []
    carry_out = deciding(
        lambda one, tries: chance.choice(["done", "lost", "none", "not_sent"]) if tries < 3 else "done"
    )

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        source_id = replica.name.removesuffix("-replica")
        record = read_ledger(ledger).state.records.get(source_id)
        if record is not None and record.doubtful:
            again.append(source_id)
            assert time.time() - record.since >= 2 * SETTLE
            assert made(there)[source_id] == 0
        return await carry_out(replica, put, sending)

    job = job_of(there, Wrapped(there, on_create=on_create))
    for _ in range(4):
        ran = await run(job, ledger)
    assert set(ran.statuses.values()) == {"created"}
    assert made(there) == Counter(one.id for one in prompts(12))
    assert again


# ---- the registry has that name --------------------------------------------------------------------------------------


async def test_a_name_that_is_taken_by_ours_is_ours(ledger: Path) -> None:
    """An attempt that was not answered happened, and the next one meets it."""
    there = memory(prompt("a"))

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        await put()
        return EXISTS

    ran = await run(job_of(there, Wrapped(there, on_create=on_create), settle=1000.0), ledger)  # nothing to wait for
    assert ran.statuses == {"a": "created"}
    assert made(there) == {"a": 1}


@pytest.mark.parametrize(("on_existing", "status"), [("fail", "conflict"), ("skip", "skipped"), ("rename", "created")])
async def test_a_name_that_somebody_took_meanwhile(ledger: Path, on_existing: str, status: str) -> None:
    source, there = memory(prompt("a")), memory()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        if replica.name == "a-replica":
            there.prompts["t1"] = prompt("t1", "a-replica")
            await sending()
            return EXISTS
        return await put()

    ran = await run(job_of(source, Wrapped(there, on_create=on_create), on_existing=on_existing), ledger)
    assert ran.statuses == {"a": status}
    assert there.creates == (status == "created")
    if status == "created":
        assert "a-replica-2" in {one.name for one in there.prompts.values()}


async def test_a_name_that_nobody_can_find_is_a_conflict(ledger: Path) -> None:
    ran = await run(job_of(memory(prompt("a")), Wrapped(memory(), on_create=deciding(lambda *_: "exists"))), ledger)
    assert ran.statuses == {"a": "conflict"}
    assert ran.context.state.records["a"].reason == "exists"


# ---- the run is asked to end -----------------------------------------------------------------------------------------


async def test_a_run_that_is_asked_to_end_while_it_waits_ends_and_resumes(ledger: Path) -> None:
    there = memory(*prompts(5))
    halt = Halt()
    fates = deciding(lambda one, _: "lost" if one == "p000" else "done")

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        outcome = await fates(replica, put, sending)
        if replica.name == "p000-replica":  # the last one
            halt.request(Stop("interrupted", "asked to end", next="Again."))
        return outcome

    ran = await run(job_of(there, Wrapped(there, on_create=on_create), settle=1000.0), ledger, halt=halt)
    assert ran.status("p000") == "unknown"
    assert there.creates == 5
    ran = await run(job_of(there), ledger)
    assert set(ran.statuses.values()) == {"created"}
    assert made(there) == Counter(one.id for one in prompts(5))


async def test_what_arrived_by_other_rules_than_those_of_now_is_brought_up_to_date(ledger: Path) -> None:
    there, halt = memory(prompt("a")), Halt()

    async def on_create(_replica: Prompt, put: Put, _sending: Sending) -> Outcome:
        await put()
        halt.request(Stop("interrupted", "asked to end", next="Again."))
        return LOST

    ran = await run(job_of(there, Wrapped(there, on_create=on_create)), ledger, halt=halt)
    assert ran.statuses == {"a": "unknown"}
    ran = await run(job_of(there, rules=(Rule(name="{name}-replica"), Rule(model=(("*", "claude-3-5"),)))), ledger)
    assert ran.statuses == {"a": "updated"}
    assert [one.model for one in there.prompts.values()] == ["claude-3-7", "claude-3-5"]
    assert there.creates == 1


async def test_a_listing_that_fails_while_looking_stops_the_run_with_the_doubt_kept(ledger: Path) -> None:
    there = memory(*prompts(3))

    class Failing(Wrapped):
        async def pages(self) -> Any:
            if self.listings:
                raise Transient("the registry answered 500", error="server_error", status=500)
            async for page in super().pages():
                yield page

    target = Failing(there, on_create=deciding(lambda one, _: "lost" if one == "p001" else "done"))
    ran = await run(job_of(there, target), ledger)
    assert ran.stop is not None
    assert (ran.stop.reason, ran.stop.exit_code) == ("registry_down", 75)
    assert ran.status("p001") == "unknown"
    ran = await run(job_of(there), ledger)
    assert made(there) == Counter(one.id for one in prompts(3))


# ---- any mixture -----------------------------------------------------------------------------------------------------

fates = st.lists(st.sampled_from(["done", "lost", "none", "refused", "not_sent"]), max_size=3)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schedule=st.lists(fates, max_size=8), stop_after=st.none() | st.integers(1, 8), late=st.booleans())
async def test_whatever_becomes_of_the_creates_nothing_is_doubled_or_lost(
    schedule: list[list[str]], stop_after: int | None, late: bool
) -> None:
    source, there = memory(*prompts(len(schedule))), memory()
    plan = {f"p{number:03}": one for number, one in enumerate(schedule)}
    tries: Counter[str] = Counter()
    halt = Halt()
    begun = 0

    def decide(source_id: str, _: int) -> str:
        nonlocal begun
        begun += 1
        if begun == stop_after:
            halt.request(Stop("interrupted", "asked to end", next="Again."))
        tries[source_id] += 1
        own = plan[source_id]
        return own[tries[source_id] - 1] if tries[source_id] <= len(own) else "done"

    carry_out = deciding(decide)

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        before = set(there.prompts)
        outcome = await carry_out(replica, put, sending)
        sent = read_ledger(ledger).state.records[replica.name.removesuffix("-replica")].since
        if late and outcome == LOST:
            target.late.update(dict.fromkeys(set(there.prompts) - before, sent + 1.9 * job.settle))
        return outcome

    target = Wrapped(there, on_create=on_create)
    with TemporaryDirectory() as folder:
        ledger = Path(folder) / "m.jsonl"
        job = job_of(source, target, settle=0.004, attempts=3)
        await run(job, ledger, halt=halt)
        for _ in range(4):
            ran = await run(job, ledger, retry_failed=True)
            if all(ran.status(source_id) == "created" for source_id in plan):
                break
        assert {source_id: ran.status(source_id) for source_id in plan} == dict.fromkeys(plan, "created")
        assert made(there) == Counter(list(plan))
        known = {record.target_id for record in ran.context.state.records.values()}
        assert known == set(there.prompts)
