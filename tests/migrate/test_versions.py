"""Versions that are called by ids which say nothing of their age: copied, resumed, updated, published, taken back."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.content.filter import Chosen
from engine.errors import Stop
from engine.ledger.before_images import BeforeImages
from engine.ledger.file import entries
from engine.ledger.sink import Sink
from engine.ledger.state import State
from engine.ledger.writes import read_made
from engine.migrate.context import Context
from engine.migrate.halt import Halt
from engine.migrate.job import Job
from engine.model import Created, Json, Outcome, Prompt, Rule, Select, Sending, Unknown, Updated, Version
from engine.verbs.publish import CutOver, publish, staged
from engine.verbs.rollback import Rollback, rollback, undoing
from tests.workspaces import Ran, Wrapped, job_of, memory, prompt, run

NEW = "claude-3-5"
RULES = (Rule(name="{name}-replica", model=(("*", NEW),)),)
VERSIONS = ("source_version", "target_version", "before_version", "after_version", "base_version", "version")


class Opaque(Wrapped):
    """A workspace that calls its versions `pv-7f3a…`, and where labels are put on something else again."""

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        asked = version if version in ("published", "latest") else await self._number(prompt_id, version)
        found = await super().fetch(prompt_id, asked)
        return replace(found, version=ref(prompt_id, found.version or "1"))

    async def versions(self, prompt_id: str) -> list[Version]:
        found = await self.inner.versions(prompt_id)
        return [
            replace(one, ref=ref(prompt_id, one.ref), ordinal=place, id=f"id-{one.ref}")
            for place, one in enumerate(found, start=1)
        ]

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        return [
            replace(one, version=ref(one.target_id, "1"), version_id="id-1") if isinstance(one, Created) else one
            for one in await super().create(bodies, sending)
        ]

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        outcome = await super().update(target_id, body, sending)
        if isinstance(outcome, Updated) and outcome.version_id is not None:
            return Updated(version_id=f"id-{outcome.version_id}")
        return outcome

    async def publish(self, target_id: str, version: str) -> None:
        await self.inner.publish(target_id, await self._number(target_id, version))

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        assert version_id.startswith("id-")
        await self.inner.label(target_id, version_id.removeprefix("id-"), label_id)

    async def _number(self, prompt_id: str, version: str) -> str:
        numbers = [one.ref for one in await self.inner.versions(prompt_id)]
        return next((number for number in numbers if ref(prompt_id, number) == version), "none")


def ref(prompt_id: str, number: str) -> str:
    """Sorts otherwise than by age."""
    return f"pv-{sha256(f'{prompt_id} {number}'.encode()).hexdigest()[:8]}"


def refs(prompt_id: str, *numbers: int) -> list[str]:
    return [ref(prompt_id, str(number)) for number in numbers]


def grown(there: Memory, prompt_id: str, count: int, *, published: int | None = None) -> None:
    """So many versions, the fourth labelled."""
    first = there.prompts[prompt_id]
    there.history[prompt_id] = [
        replace(first, version=str(number), text=f"text {number}", labels=("production",) if number == 4 else ())
        for number in range(1, count + 1)
    ]
    there.prompts[prompt_id] = there.history[prompt_id][(published or count) - 1]


def edited(there: Memory, prompt_id: str, text: str) -> None:
    history = there._history(prompt_id)
    made = replace(history[-1], version=str(len(history) + 1), text=text, labels=())
    there.history[prompt_id] = [*history, made]
    there.prompts[prompt_id] = replace(made, updated_at=there._now())


def whole(source: Memory, target: Memory, replica: str = "memory-1") -> None:
    texts = [one.text for one in source._history("a")]
    assert [one.text for one in target._history(replica)] == texts
    assert {one.model for one in target._history(replica)} == {NEW}
    assert target.prompts[replica].text == source.prompts["a"].text


def told(ledger: Path, kind: str, *names: str) -> list[list[Json]]:
    return [[line[name] for name in names] for line in entries(ledger) if line["kind"] == kind]


def only_refs(ledger: Path) -> None:
    """What the ledger says of versions: what the registry calls them."""
    found = [line[name] for line in entries(ledger) for name in VERSIONS if line.get(name) is not None]
    assert found
    assert [one for one in found if not str(one).startswith("pv-")] == []


def histories(source: Wrapped, target: Wrapped, **fields: Any) -> Job:
    return job_of(source, target, **{"rules": RULES, "select": Select(version="all"), "publish": True} | fields)


async def acting(ledger: Path, command: str, job: Job, **more: Any) -> Any:
    """`publish` and `rollback` over what the ledger says."""
    made = read_made(ledger, Chosen())
    sink = Sink.open(ledger, run=command)
    try:
        async with sink:
            context = Context(sink=sink, halt=Halt(), clock=lambda: 0.0, copies=BeforeImages(ledger, run=command))
            if command == "publish":
                return await publish(job, context, staged(made), verified_only=False)
            return await rollback(job, context, undoing(made, more.get("run")), dry_run=False)
    finally:
        sink.close()


# ---- whole histories -------------------------------------------------------------------------------------------------


async def test_a_history_is_copied_and_the_ledger_has_the_texts(ledger: Path) -> None:
    source, target = memory(prompt("a")), memory()
    grown(source, "a", 6, published=3)
    ran = await run(histories(Opaque(source), Opaque(target)), ledger)
    assert ran.status("a") == "created"
    whole(source, target)
    assert [one.labels for one in target.history["memory-1"]] == [one.labels for one in source.history["a"]]
    pairs = [list(pair) for pair in zip(refs("a", *range(1, 7)), refs("memory-1", *range(1, 7)), strict=True)]
    assert told(ledger, "version", "source_version", "target_version") == pairs
    assert told(ledger, "created", "after_version") == [refs("memory-1", 1)]
    assert ran.context.state.records["a"].rare.versions == dict(pairs)
    only_refs(ledger)
    assert told(ledger, "finished", "source_version") == [refs("a", 3)]


@pytest.mark.parametrize("cut_after", [1, 2, 4])
@pytest.mark.parametrize("answered", [True, False], ids=["", "its last answer lost"])
async def test_a_history_that_was_cut_off_goes_on_where_it_was(cut_after: int, answered: bool, ledger: Path) -> None:
    source, target, halt = memory(prompt("a")), memory(), Halt()
    grown(source, "a", 6, published=3)

    async def cut(target_id: str, put: Any, sending: Sending) -> Outcome:
        outcome: Outcome = await put()
        if target.updates == cut_after:
            halt.request(Stop("interrupted", "Asked to end.", next="Go on."))
            return outcome if answered else Unknown(error="reset", message="no answer")
        return outcome

    first = await run(histories(Opaque(source), Opaque(target, on_update=cut)), ledger, halt=halt)
    assert first.stop is not None
    assert len(target.history["memory-1"]) == cut_after + 1

    await run(histories(Opaque(source), Opaque(target)), ledger)
    whole(source, target)
    assert (target.creates, target.updates) == (1, 5)
    arrived = told(ledger, "version", "source_version", "target_version")
    assert arrived == [[*pair] for pair in zip(refs("a", *range(1, 7)), refs("memory-1", *range(1, 7)), strict=True)]
    only_refs(ledger)


async def test_new_versions_of_a_history_follow_and_another_one_is_published(ledger: Path) -> None:
    source, target = memory(prompt("a")), memory()
    grown(source, "a", 4)
    await run(histories(Opaque(source), Opaque(target)), ledger)
    edited(source, "a", "better")
    edited(source, "a", "best")
    ran = await run(histories(Opaque(source), Opaque(target)), ledger)
    assert ran.status("a") == "updated"
    whole(source, target)
    assert target.updates == 5
    await source.publish("a", "2")
    await run(histories(Opaque(source), Opaque(target)), ledger)
    whole(source, target)
    await run(histories(Opaque(source), Opaque(target)), ledger)
    assert (target.creates, target.updates) == (1, 5)
    only_refs(ledger)
    undone: Rollback = await acting(ledger, "rollback", histories(Opaque(source), Opaque(target)))
    assert undone.counts["deleted"] == 1
    assert target.prompts == {}


# ---- updates, published and taken back -------------------------------------------------------------------------------


async def updated(ledger: Path, source: Memory, target: Memory, **fields: Any) -> Ran:
    """One night later, the source changed."""
    job = {"rules": RULES, "publish": False} | fields
    await run(job_of(Opaque(source), Opaque(target), **job), ledger)
    edited(source, "a", "changed")
    return await run(job_of(Opaque(source), Opaque(target), **job), ledger)


async def test_an_update_is_staged_published_and_taken_back(ledger: Path) -> None:
    source, target = memory(prompt("a", text="as it was")), memory()
    ran = await updated(ledger, source, target)
    first, second = refs("memory-1", 1, 2)
    assert ran.context.state.records["a"].rare.staged == (first, second)
    assert (target.prompts["memory-1"].text, target.history["memory-1"][-1].text) == ("as it was", "changed")

    job = job_of(Opaque(source), Opaque(target), rules=RULES, publish=False)
    done: CutOver = await acting(ledger, "publish", job)
    assert [(one["result"], one["before"], one["version"]) for one in done.to_json()["prompts"]] == [
        ("published", first, second)
    ]
    assert target.prompts["memory-1"].text == "changed"
    assert told(ledger, "published", "before_version", "version") == [[first, second]]

    undone: Rollback = await acting(ledger, "rollback", job, run="run-2")
    assert [(one["result"], one["versions"]) for one in undone.to_json()["prompts"]] == [("restored", [second])]
    assert target.prompts["memory-1"].text == "as it was"
    only_refs(ledger)


async def test_an_edit_by_hand_after_an_update_stays(ledger: Path) -> None:
    source, target = memory(prompt("a", text="as it was")), memory()
    await updated(ledger, source, target)
    edited(target, "memory-1", "by hand")
    job = job_of(Opaque(source), Opaque(target), rules=RULES, publish=False)
    done: CutOver = await acting(ledger, "publish", job)
    assert done.counts["edited"] == 1
    undone: Rollback = await acting(ledger, "rollback", job)
    assert undone.counts["kept"] == 1
    assert target.prompts["memory-1"].text == "by hand"


@pytest.mark.parametrize("landed", [True, False])
async def test_an_update_in_doubt_is_found_by_its_place_and_sent_once(landed: bool, ledger: Path) -> None:
    source, target = memory(prompt("a", text="as it was")), memory()
    await run(job_of(Opaque(source), Opaque(target), rules=RULES, publish=True), ledger)
    edited(source, "a", "changed")

    async def lost(target_id: str, put: Any, sending: Sending) -> Outcome:
        await (put() if landed else sending())
        return Unknown(error="reset", message="no answer")

    there = Opaque(target, on_update=lost)
    ran = await run(job_of(Opaque(source), there, rules=RULES, publish=True, attempts=0), ledger)
    assert ran.context.state.records["a"].doubtful
    await run(job_of(Opaque(source), Opaque(target), rules=RULES, publish=True), ledger)
    assert (target.updates, target.prompts["memory-1"].text) == (1, "changed")
    assert told(ledger, "updated", "how", "before_version", "after_version") == [
        ["lookup" if landed else "response", *refs("memory-1", 1, 2)]
    ]


async def test_a_text_that_an_older_version_has_comes_as_a_new_one(ledger: Path) -> None:
    """What is newer than what is published is told by its place."""
    source, target = memory(prompt("a", text="as it was")), memory()
    await updated(ledger, source, target, publish=True)
    edited(source, "a", "as it was")
    await run(job_of(Opaque(source), Opaque(target), rules=RULES, publish=True), ledger)
    assert [one.text for one in target.history["memory-1"]] == ["as it was", "changed", "as it was"]
    assert (target.prompts["memory-1"].version, target.updates) == ("3", 2)


@pytest.mark.parametrize("landed", [True, False])
async def test_an_update_in_doubt_is_taken_back(landed: bool, ledger: Path) -> None:
    source, target = memory(prompt("a", text="as it was")), memory()
    fields: dict[str, Any] = {"rules": RULES, "publish": True}
    await updated(ledger, source, target, **fields)
    edited(source, "a", "as it was")  # what the oldest version has, and the one in doubt

    async def lost(target_id: str, put: Any, sending: Sending) -> Outcome:
        await (put() if landed else sending())
        return Unknown(error="reset", message="no answer")

    await run(job_of(Opaque(source), Opaque(target, on_update=lost), attempts=0, **fields), ledger)
    undone: Rollback = await acting(ledger, "rollback", job_of(Opaque(source), Opaque(target), **fields), run="run-3")
    (one,) = undone.prompts
    assert (one.result, [*one.versions]) == ("restored", refs("memory-1", 3) if landed else [])
    assert target.prompts["memory-1"].text == "changed"


async def test_in_place_an_update_is_staged_and_taken_back(ledger: Path) -> None:
    there = memory(prompt("a", text="as it was"))
    grown(there, "a", 3)
    fields: dict[str, Any] = {"in_place": True, "publish": False, "rules": (Rule(name="{name}", model=(("*", NEW),)),)}
    await run(job_of(Opaque(there), **fields), ledger)
    done: CutOver = await acting(ledger, "publish", job_of(Opaque(there), **fields))
    assert (done.counts["published"], there.prompts["a"].model) == (1, NEW)
    again = await run(job_of(Opaque(there), **fields), ledger)
    assert (again.status("a"), there.updates) == ("updated", 1)
    undone: Rollback = await acting(ledger, "rollback", job_of(Opaque(there), **fields))
    assert [(one.result, *one.versions) for one in undone.prompts] == [("restored", *refs("a", 4))]
    assert (there.prompts["a"].model, there.prompts["a"].version) == ("claude-3-7", "3")


# ---- ledgers with numbers --------------------------------------------------------------------------------------------


def numbers_of(ledger: Path, names: Collection[str] = VERSIONS) -> list[Json]:
    lines = [json.loads(line) for line in ledger.read_bytes().splitlines()]
    return [line[name] for line in lines for name in names if line.get(name) is not None]


async def test_where_versions_are_numbers_the_ledger_has_numbers_and_goes_on_from_them(ledger: Path) -> None:
    source, target = memory(prompt("a")), memory()
    grown(source, "a", 4)
    await run(histories(Wrapped(source), Wrapped(target)), ledger)
    found = numbers_of(ledger)
    assert found
    assert {type(one) for one in found} == {int}
    assert told(ledger, "version", "source_version", "target_version") == [[1, 1], [2, 2], [3, 3], [4, 4]]
    edited(source, "a", "changed")
    await run(histories(Wrapped(source), Wrapped(target)), ledger)
    whole(source, target)
    assert target.updates == 4
    (made,) = read_made(ledger, Chosen())
    assert made.versions == {str(number): str(number) for number in range(1, 6)}


@pytest.mark.parametrize("one", [(2, 3, 4), ("pv-2", "pv-3", "pv-4")], ids=["numbers", "texts"])
def test_a_line_with_a_number_and_a_line_with_a_text_say_the_same(one: tuple[Json, Json, Json]) -> None:
    source, before, after = one
    state = State()
    known = {"run": "r1", "ts": "2026-01-01T00:00:00.000Z", "source_id": "a", "target_id": "t"}
    state.fold({**known, "kind": "created", "source_version": source})
    state.fold({**known, "kind": "intent", "op": "update", "base_version": before, "before_version": before})
    doubt = state.records["a"].doubt
    assert doubt is not None
    assert (doubt.base, doubt.published) == (str(before), str(before))
    versions = {"source_version": source, "before_version": before, "after_version": after}
    state.fold({**known, "kind": "updated", **versions, "published": False})
    record = state.records["a"]
    assert (record.rare.staged, record.rare.versions) == ((str(before), str(after)), {str(source): str(after)})
