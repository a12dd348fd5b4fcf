"""The run: what fails alone, what ends everything, what the ledger says before and after each create."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

import engine.migrate.pipeline
from engine.connectors.memory import Memory
from engine.errors import EngineError, Gone, Rejected, Stop, Transient
from engine.ledger.file import entries, read_ledger
from engine.migrate.context import MaxFailures
from engine.migrate.halt import Halt
from engine.migrate.job import prepare
from engine.migrate.task import Prepared
from engine.model import MARK_KEY, Created, Failed, Outcome, Prompt, Sending, Unknown
from tests.workspaces import Forgetful, OnCreate, Put, Ran, Wrapped, job_of, memory, names, prompt, run


def prompts(count: int) -> list[Prompt]:
    return [prompt(f"p{number:03}") for number in range(count)]


def failing(*ids: str, error: EngineError) -> Callable[[str], Awaitable[None]]:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id in ids:
            raise error

    return on_fetch


def answered(outcomes: dict[str, Outcome | Stop]) -> OnCreate:
    """The outcome of the creates of these prompts, without any effect; the others are carried out."""

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        given = outcomes.get(replica.name.removesuffix("-replica"))
        if given is None:
            return await put()
        await sending()
        if isinstance(given, Stop):
            raise given
        return given

    return on_create


def once(ran: Ran, there: Memory, *, missing: Collection[str] = ()) -> bool:
    """Every prompt but the missing ones has one replica, and the ledger knows it."""
    own = {one.id for one in there.prompts.values() if MARK_KEY not in one.metadata}
    made = Counter(one.metadata[MARK_KEY]["source_id"] for one in there.prompts.values() if MARK_KEY in one.metadata)
    known = {source_id for source_id, status in ran.statuses.items() if status == "created"}
    wanted = own - set(missing)
    return made == Counter(wanted) and known == wanted


# ---- one prompt fails ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 7, 19])
@pytest.mark.parametrize(
    ("error", "status", "retriable"),
    [
        (Gone("it is gone", error="gone", status=404), "skipped", False),
        (Rejected("it is refused", error="forbidden", status=403, code="AB03"), "failed", False),
        (Transient("it is down", error="server_error", status=500), "failed", True),
    ],
)
async def test_a_definition_that_cannot_be_read_fails_alone(
    ledger: Path, position: int, error: EngineError, status: str, retriable: bool
) -> None:
    source_id = f"p{position:03}"
    there = memory(*prompts(20))
    ran = await run(job_of(Wrapped(there, on_fetch=failing(source_id, error=error))), ledger)
    assert ran.stop is None
    assert ran.status(source_id) == status
    assert ran.context.state.records[source_id].retriable is retriable
    assert once(ran, there, missing={source_id})


@pytest.mark.parametrize("position", [0, 7, 19])
@pytest.mark.parametrize(
    ("outcome", "retriable"),
    [
        (Failed(error="rejected", message="the string is too long", status=400, code="AB01"), False),
        (Failed(error="not_sent", message="no connection", retriable=True), True),
    ],
)
async def test_a_create_without_effect_fails_alone(
    ledger: Path, position: int, outcome: Failed, retriable: bool
) -> None:
    source_id = f"p{position:03}"
    there = memory(*prompts(20))
    ran = await run(job_of(Wrapped(there, on_create=answered({source_id: outcome}))), ledger)
    assert ran.stop is None
    assert once(ran, there, missing={source_id})
    (line,) = [line for line in entries(ledger) if line["kind"] == "failed"]
    assert (line["source_id"], line["stage"], line["error"]) == (source_id, "create", outcome.error)
    assert (line["status"], line["code"], line["retriable"]) == (outcome.status, outcome.code, retriable)
    assert line["message"] == outcome.message


async def test_every_prompt_may_fail_and_the_run_ends(ledger: Path) -> None:
    there = memory(*prompts(20))
    ids = [one.id for one in prompts(20)]
    error = Transient("down", error="server_error", status=500)
    ran = await run(job_of(Wrapped(there, on_fetch=failing(*ids, error=error))), ledger)
    assert set(ran.statuses.values()) == {"failed"}
    ran = await run(job_of(there), ledger)
    assert once(ran, there)


async def test_what_would_be_lost_fails_that_prompt_by_name_before_anything_is_sent(ledger: Path) -> None:
    there = memory(prompt("a", extra={"guardrails": 1}), prompt("b"))
    ran = await run(job_of(there), ledger)
    assert ran.statuses == {"a": "failed", "b": "created"}
    (line,) = [line for line in entries(ledger) if line["kind"] == "failed"]
    assert (line["stage"], line["error"]) == ("rewrite", "loss")
    assert "guardrails" in line["message"]
    assert not [line for line in entries(ledger) if line["kind"] == "intent" and line["source_id"] == "a"]


# ---- the run ends ----------------------------------------------------------------------------------------------------

QUOTA = Stop("quota", "its quota is used up", next="Make room.")


@pytest.mark.parametrize("position", [0, 1, 9, 19])
async def test_a_stop_while_reading_ends_the_run_and_a_resume_completes_it(ledger: Path, position: int) -> None:
    there = memory(*prompts(20))
    stop = Stop("registry_down", "it is down", next="Later.")
    ran = await run(job_of(Wrapped(there, on_fetch=failing(f"p{position:03}", error=stop))), ledger)
    assert ran.stop is stop
    assert there.creates < 20
    ran = await run(job_of(there), ledger)
    assert once(ran, there)


@pytest.mark.parametrize("position", [0, 1, 9, 19])
async def test_a_stop_without_effect_leaves_nothing_in_doubt(ledger: Path, position: int) -> None:
    source_id = f"p{position:03}"
    there = memory(*prompts(20))
    stop = Stop("quota", "its quota is used up", next="Make room.")
    stop.__cause__ = Rejected("402", error="quota", status=402)
    ran = await run(job_of(Wrapped(there, on_create=answered({source_id: stop}))), ledger)
    assert ran.stop is not None
    assert ran.stop.reason == "quota"
    assert ran.status(source_id) == "failed"
    assert ran.context.state.records[source_id].retriable
    assert not [record for record in ran.context.state.records.values() if record.doubtful]
    ran = await run(job_of(there), ledger)
    assert once(ran, there)


async def test_a_stop_after_a_lost_answer_leaves_that_prompt_in_doubt(ledger: Path) -> None:
    there = memory(*prompts(5))
    ran = await run(job_of(Wrapped(there, on_create=answered({"p002": QUOTA}))), ledger)
    assert ran.stop is QUOTA
    assert ran.status("p002") == "intent"
    ran = await run(job_of(there), ledger)
    assert once(ran, there)


async def test_a_bug_in_a_connector_is_no_failed_prompt(ledger: Path) -> None:
    class Bug(Exception):
        pass

    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "p003":
            raise Bug

    with pytest.RaisesGroup(Bug, flatten_subgroups=True):
        await run(job_of(Wrapped(memory(*prompts(9)), on_fetch=on_fetch)), ledger)
    assert "failed" not in {line["kind"] for line in entries(ledger)}


@pytest.mark.parametrize("after", [1, 2, 10, 39])
async def test_a_run_that_is_halted_ends_and_resumes_without_a_double(ledger: Path, after: int) -> None:
    there = memory(*prompts(40))
    halt = Halt()
    read_afterwards: list[str] = []

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        outcome = await put()
        if there.creates >= after:
            halt.request(Stop("interrupted", "asked to end", next="Again."))
        return outcome

    async def on_fetch(prompt_id: str) -> None:
        if halt.stop is not None:
            read_afterwards.append(prompt_id)

    source, target = Wrapped(there, on_fetch=on_fetch), Wrapped(there, on_create=on_create)
    ran = await run(job_of(source, target), ledger, halt=halt)
    assert ran.stop is not None
    assert read_afterwards == []
    assert after <= there.creates <= after + 8
    assert sum(status == "created" for status in ran.statuses.values()) == there.creates
    ran = await run(job_of(there), ledger)
    assert once(ran, there)


async def test_what_hangs_is_dropped_after_the_grace_and_stays_in_doubt(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.migrate.pipeline, "GRACE_S", 0.05)
    there = memory(*prompts(12))
    halt = Halt()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        outcome = await put()
        if replica.name == "p005-replica":
            halt.request(Stop("interrupted", "asked to end", next="Again."))
            await anyio.sleep_forever()
        return outcome

    ran = await run(job_of(Wrapped(there, on_create=on_create)), ledger, halt=halt)
    assert ran.status("p005") == "intent"
    ran = await run(job_of(there), ledger)
    assert once(ran, there)
    (made,) = [line for line in entries(ledger) if line["kind"] == "created" and line["source_id"] == "p005"]
    assert made["how"] == "lookup"


@pytest.mark.parametrize(("limit", "made"), [(0, 0), (1, 1), (7, 7), (50, 20)])
async def test_a_limit_takes_up_so_many(ledger: Path, limit: int, made: int) -> None:
    there = memory(*prompts(20))
    ran = await run(job_of(there), ledger, limit=limit)
    assert there.creates == made
    assert len(ran.statuses) == made
    ran = await run(job_of(there), ledger)
    assert once(ran, there)


@pytest.mark.parametrize(
    ("most", "failing_ones", "stopped"),
    [
        (MaxFailures(0), range(39, 40), True),
        (MaxFailures(3), range(37, 40), False),
        (MaxFailures(3), range(36, 40), True),
        (MaxFailures(10, percent=True), range(3), False),
        (MaxFailures(10, percent=True), range(37, 40), True),
        (MaxFailures(50, percent=True), range(30, 40), False),
    ],
)
async def test_too_many_failures_end_the_run(
    ledger: Path, most: MaxFailures, failing_ones: range, stopped: bool
) -> None:
    """Numbers are taken up from 39 down."""
    no = Failed(error="rejected", message="no", status=400)
    there = memory(*prompts(40))
    on_create = answered({f"p{number:03}": no for number in failing_ones})
    ran = await run(job_of(Wrapped(there, on_create=on_create)), ledger, max_failures=most)
    assert (ran.stop is not None) is stopped
    assert (there.creates < 40 - len(failing_ones)) is stopped
    if ran.stop is not None:
        assert (ran.stop.reason, ran.stop.exit_code) == ("too_many_failures", 4)


@pytest.mark.parametrize(
    ("failures", "taken", "exceeded"),
    [(19, 19, False), (2, 20, False), (3, 20, True), (10, 100, False), (11, 100, True)],
)
def test_a_percentage_means_something_from_the_twentieth_prompt_on(failures: int, taken: int, exceeded: bool) -> None:
    assert MaxFailures(10, percent=True).exceeded(failures, taken) is exceeded


# ---- durable before it is sent ---------------------------------------------------------------------------------------


async def test_an_intent_is_on_the_disk_before_anything_is_stored_and_one_create_a_prompt_is_in_doubt(
    ledger: Path,
) -> None:
    seen: list[str] = []
    in_doubt: Counter[str] = Counter()

    class Watching(Memory):
        """Reads the ledger file where a registry would receive the first byte."""

        async def create(self, bodies: Any, sending: Sending) -> list[Outcome]:
            async def checked() -> None:
                await sending()
                source_id = self._encoded[bodies[0]][0].metadata[MARK_KEY]["source_id"]
                record = read_ledger(ledger).state.records[source_id]
                seen.append(source_id)
                in_doubt[source_id] += 1
                assert record.status == "intent"
                assert record.name == f"{source_id}-replica"
                assert in_doubt[source_id] == 1
                assert record.attempt == 1

            return await super().create(bodies, checked)

    there = Watching(prompts(20))
    ran = await run(job_of(there), ledger)
    assert sorted(seen) == [f"p{number:03}" for number in range(20)]
    assert once(ran, there)


async def test_a_create_line_says_what_was_read_and_what_was_made(ledger: Path) -> None:
    there = memory(prompt("a", slug="pp-a", version="3", updated_at="then"))
    await run(job_of(there), ledger)
    intent, created = [line for line in entries(ledger) if line["kind"] in ("intent", "created")]
    assert (intent["op"], intent["name"], intent["attempt"], intent["base_version"]) == ("create", "a-replica", 1, None)
    assert intent["key"] == there.prompts["memory-1"].metadata[MARK_KEY]["key"]
    assert len(intent["body_sha256"]) == 64
    expected = {
        "source_id": "a",
        "source_slug": "pp-a",
        "source_name": "a",
        "source_version": 3,
        "source_collection": "support",
        "target_id": "memory-1",
        "target_slug": "pp-memory-1",
        "name": "a-replica",
        "how": "response",
    }
    assert {name: created[name] for name in expected} == expected
    assert created["replica_digest"] == there.prompts["memory-1"].metadata[MARK_KEY]["replica_digest"]


async def test_the_ledger_holds_no_template_text(ledger: Path) -> None:
    canary = "canary-7f3a of a template"
    there = memory(prompt("a", text=canary, description=canary), prompt("b", text=canary, extra={"x": canary}))
    await run(job_of(there), ledger)
    assert canary not in ledger.read_text()


# ---- the first create is alone ---------------------------------------------------------------------------------------


async def test_the_first_create_is_read_back_before_a_second_one_is_sent(ledger: Path) -> None:
    there = Wrapped(memory(*prompts(10)))
    order: list[str] = []

    async def on_fetch(prompt_id: str) -> None:
        order.append(f"fetch {prompt_id}")

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        order.append("create")
        return await put()

    there.on_fetch, there.on_create = on_fetch, on_create
    await run(job_of(there), ledger)
    writes = [step for step in order if not step.startswith("fetch p")]
    assert writes[:3] == ["create", "fetch memory-1", "create"]
    assert [step for step in writes[3:] if step.startswith("fetch memory")] == []


async def test_what_is_read_while_the_first_replica_is_read_back_waits_too(ledger: Path) -> None:
    there = Wrapped(memory(*prompts(10)))
    reading_back = anyio.Event()
    order: list[str] = []

    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "memory-1":
            reading_back.set()
            for _ in range(200):
                await anyio.lowlevel.checkpoint()
            order.append("read back")
        elif prompt_id != "p009":
            await reading_back.wait()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        order.append("create")
        return await put()

    there.on_fetch, there.on_create = on_fetch, on_create
    await run(job_of(there), ledger)
    assert order == ["create", "read back", *["create"] * 9]


@pytest.mark.parametrize("first", ["failed", "unknown", "gone"])
async def test_the_next_one_is_alone_when_the_first_did_not_arrive(ledger: Path, first: str) -> None:
    outcomes: dict[str, Outcome | Stop] = {}
    if first == "failed":
        outcomes["p009"] = Failed(error="rejected", message="no", status=400)
    elif first == "unknown":
        outcomes["p009"] = Unknown(error="no_answer", message="reset")
    in_flight = most = 0
    there = memory(*prompts(10))
    decide = answered(outcomes)

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        nonlocal in_flight, most
        in_flight += 1
        if there.creates == 0:
            most = max(most, in_flight)
        await anyio.lowlevel.checkpoint()
        outcome = await decide(replica, put, sending)
        outcomes.clear()
        in_flight -= 1
        return outcome

    gone = failing("p009", error=Gone("gone", error="gone", status=404)) if first == "gone" else None
    ran = await run(job_of(Wrapped(there, on_create=on_create, on_fetch=gone)), ledger)
    assert most == 1
    assert once(ran, there, missing=set() if first == "unknown" else {"p009"})


async def test_a_first_replica_that_can_be_read_only_later_is_waited_for(ledger: Path) -> None:
    late = 2

    async def on_fetch(prompt_id: str) -> None:
        nonlocal late
        if prompt_id == "memory-1" and late:
            late -= 1
            raise Gone("not yet", error="gone", status=404)

    there = Wrapped(memory(*prompts(3)), on_fetch=on_fetch)
    ran = await run(job_of(there), ledger)
    assert late == 0
    assert ran.context.mark_in == "metadata"
    assert once(ran, there.inner)


async def test_where_the_metadata_is_dropped_the_mark_goes_to_the_description(ledger: Path) -> None:
    there = Forgetful()
    job = job_of(memory(*prompts(10)), there)
    ran = await run(job, ledger)
    assert ran.context.mark_in == "description"
    assert Counter((one.description or "").endswith("]") for one in there.prompts.values()) == {True: 10}
    ledger.unlink()
    ran = await run(job, ledger)
    assert Counter(ran.statuses.values()) == {"created": 10}
    assert len(there.prompts) == there.creates == 10


async def test_what_a_registry_makes_of_the_first_replica_stops_nothing(ledger: Path) -> None:
    class Changing(Memory):
        async def create(self, bodies: Any, sending: Sending) -> list[Outcome]:
            (outcome,) = await super().create(bodies, sending)
            assert isinstance(outcome, Created)
            self.prompts[outcome.target_id] = replace(self.prompts[outcome.target_id], text="changed")
            return [outcome]

    there = Changing(prompts(5))
    ran = await run(job_of(there), ledger)
    assert ran.stop is None
    assert Counter(ran.statuses.values()) == {"created": 5}


async def compared_again(there: Memory, ledger: Path, **more: Any) -> Ran:
    """A second run under rules that make the same of everything: each source is read, nothing is written."""
    busy, most = 0, 0

    async def on_fetch(prompt_id: str) -> None:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        for _ in range(3):
            await anyio.lowlevel.checkpoint()
        busy -= 1

    created = there.creates
    ran = await run(job_of(Wrapped(there, on_fetch=on_fetch), rewrites="others", concurrency=32), ledger, **more)
    assert (there.creates, Counter(ran.statuses.values())) == (created, {"created": created})
    assert most > 8
    return ran


@pytest.mark.parametrize("canary", [0, 3])
async def test_a_run_that_writes_nothing_reads_in_the_pool(canary: int, ledger: Path) -> None:
    there = memory(*prompts(200))
    await run(job_of(there), ledger)
    ran = await compared_again(there, ledger, canary=canary)
    assert ran.stop is None


async def test_reading_goes_on_while_the_first_write_is_under_way(ledger: Path) -> None:
    """The first create ends only when everything else has been read."""
    everything = anyio.Event()
    source = memory(*prompts(40))
    read = Wrapped(source)

    async def on_fetch(prompt_id: str) -> None:
        if len(set(read.fetched)) == 40:
            everything.set()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        with anyio.fail_after(10):
            await everything.wait()
        return await put()

    read.on_fetch = on_fetch
    ran = await run(job_of(read, Wrapped(memory(), on_create=on_create), concurrency=32), ledger)
    assert set(ran.statuses.values()) == {"created"}


@pytest.mark.parametrize("concurrency", [1, 2, 3, 8])
async def test_many_more_prompts_than_the_queues_hold_wait_for_the_first_write(concurrency: int, ledger: Path) -> None:
    ahead: list[int] = []
    source = Wrapped(memory(*prompts(100)))
    there = memory()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        if there.creates == 0:
            for _ in range(500):
                await anyio.lowlevel.checkpoint()
            ahead.append(len(source.fetched))
        return await put()

    ran = await run(job_of(source, Wrapped(there, on_create=on_create), concurrency=concurrency), ledger)
    assert Counter(ran.statuses.values()) == {"created": 100}
    assert ahead[0] <= 3 * concurrency + 2  # memory stays flat


class Writes(Wrapped):
    """Knows which writes are under way at once: creates, updates and labels."""

    under_way = 0
    together = 0
    done = 0

    async def alone(self, put: Callable[[], Awaitable[Any]]) -> Any:
        self.under_way += 1
        if self.done == 0:
            self.together = max(self.together, self.under_way)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        try:
            return await put()
        finally:
            self.under_way -= 1
            self.done += 1

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        outcomes: list[Outcome] = await self.alone(partial(super().create, bodies, sending))
        return outcomes

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        outcome: Outcome = await self.alone(partial(super().update, target_id, body, sending))
        return outcome

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        await self.alone(partial(super().label, target_id, version_id, label_id))


async def test_the_first_write_holds_back_creates_updates_and_labels(ledger: Path) -> None:
    class NoLabels(Memory):
        allowed = False

        async def label(self, target_id: str, version_id: str, label_id: str) -> None:
            if not self.allowed:
                raise Rejected("not with this key", error="forbidden", status=403)
            await super().label(target_id, version_id, label_id)

    source = memory(*prompts(6), *(prompt(f"l{number}", labels=("prod",)) for number in range(6)))
    there = NoLabels((), source._catalog)
    await run(job_of(source, there), ledger)
    there.allowed = True
    for number in range(3):
        source.prompts[f"p{number:03}"] = prompt(f"p{number:03}", text="changed", updated_at="2026-02-01T00:00:00.000Z")
        source.prompts[f"n{number}"] = prompt(f"n{number}")
    target = Writes(there)
    ran = await run(job_of(source, target, concurrency=16), ledger, retry_failed=True)
    assert Counter(ran.statuses.values()) == {"created": 12, "updated": 3}
    assert there.labels
    assert (target.together, target.done >= 12) == (1, True)


async def test_a_create_is_read_back_alone_after_an_update_that_went_first(ledger: Path) -> None:
    """What survives of a mark only a create tells."""
    there = Forgetful()
    source = memory(prompt("a"))
    await run(job_of(source, there), ledger)
    del source.prompts["a"]
    for number in range(20):
        source.prompts[f"p{number:03}"] = prompt(f"p{number:03}")
    source.prompts["a"] = prompt("a", text="changed", updated_at="2026-02-01T00:00:00.000Z")  # listed first
    ran = await run(job_of(source, there), ledger)
    assert ran.status("a") == "updated"
    new = [one for one in there.prompts.values() if one.name != "a-replica"]
    assert Counter((one.description or "").endswith("]") for one in new) == {True: 20}


async def test_of_bulks_the_first_is_one_prompt_that_is_read_back(ledger: Path) -> None:
    steps: list[Any] = []

    class Bulk(Forgetful):
        batch = 7

        async def create(self, bodies: Any, sending: Sending) -> list[Outcome]:
            steps.append(len(bodies))
            await sending()

            async def told() -> None:
                pass

            return [outcome for body in bodies for outcome in await super(Bulk, self).create([body], told)]

        async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
            steps.append(prompt_id)
            return await super().fetch(prompt_id, version)

    there = Bulk()
    ran = await run(job_of(memory(*prompts(60)), there, concurrency=30), ledger)
    assert Counter(ran.statuses.values()) == {"created": 60}
    assert steps[:2] == [1, "memory-1"]
    assert max(size for size in steps[2:]) == 7
    assert Counter((one.description or "").endswith("]") for one in there.prompts.values()) == {True: 60}


async def test_a_run_that_is_asked_to_end_during_its_first_write_sends_no_second(ledger: Path) -> None:
    there = memory()
    halt = Halt()
    source = Wrapped(memory(*prompts(30)))

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        while len(source.fetched) < 10:
            await anyio.lowlevel.checkpoint()
        halt.request(Stop("interrupted", "asked to end", next="Again."))
        return await put()

    ran = await run(job_of(source, Wrapped(there, on_create=on_create), concurrency=16), ledger, halt=halt)
    assert (there.creates, Counter(ran.statuses.values())) == (1, {"created": 1})
    await run(job_of(source, there), ledger)
    assert there.creates == 30


# ---- many at once ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2, 7, 64])
async def test_whatever_the_concurrency_each_prompt_arrives_once(ledger: Path, concurrency: int) -> None:
    there = memory(*prompts(100))
    ran = await run(job_of(there, concurrency=concurrency), ledger)
    assert once(ran, there)
    assert names(there).count("p042-replica") == 1


async def test_no_more_than_the_concurrency_is_read_or_written_at_once(ledger: Path) -> None:
    most: Counter[str] = Counter()
    now: Counter[str] = Counter()

    async def busy(what: str) -> None:
        now[what] += 1
        most[what] = max(most[what], now[what])
        await anyio.lowlevel.checkpoint()
        now[what] -= 1

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        await busy("create")
        return await put()

    async def on_fetch(prompt_id: str) -> None:
        await busy("fetch")

    there = Wrapped(memory(*prompts(60)), on_fetch=on_fetch, on_create=on_create)
    await run(job_of(there, concurrency=5), ledger)
    assert 1 < most["create"] <= 5
    assert 1 < most["fetch"] <= 5


async def test_a_target_that_takes_bulks_gets_bulks(ledger: Path) -> None:
    sizes: list[int] = []

    class Bulk(Memory):
        batch = 7

        async def create(self, bodies: Any, sending: Sending) -> list[Outcome]:
            sizes.append(len(bodies))
            await sending()

            async def told() -> None:
                pass

            return [outcome for body in bodies for outcome in await super(Bulk, self).create([body], told)]

    there = Bulk(prompts(60))
    ran = await run(job_of(there, concurrency=30), ledger)
    assert once(ran, there)
    assert sum(sizes) == 60
    assert 1 < max(sizes) <= 7


def test_a_draft_shows_no_template() -> None:
    draft = prepare(job_of(memory()), prompt("a", text="canary-9b"))
    assert isinstance(draft, Prepared)
    assert "canary-9b" not in repr(draft)


# ---- who does what ---------------------------------------------------------------------------------------------------


async def test_slow_writes_get_nearly_all_that_may_be_in_flight(ledger: Path) -> None:
    """Six creates wait for each other: with as many workers for reads as for writes, four would wait for ever."""
    begun, together = 0, anyio.Event()

    async def on_create(replica: Prompt, put: Put, sending: Sending) -> Outcome:
        nonlocal begun
        begun += 1
        if begun == 7:
            together.set()
        if begun > 1:  # the first goes alone
            await together.wait()
        return await put()

    there = memory(*prompts(40))
    ran = await run(job_of(Wrapped(there, on_create=on_create), concurrency=8), ledger)
    assert once(ran, there)
