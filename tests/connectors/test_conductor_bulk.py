"""A bulk of Conductor, carried out against a store in memory that is as treacherous as the real one may be."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connectors.conductor.bulk import Bulk
from engine.connectors.conductor.format import SAMPLING, Item, Tag, prompt_of, tags_of
from engine.content.digest import differences
from engine.errors import Gone, Rejected, Stop, Transient, UnknownOutcome
from engine.model import Created, Failed, Outcome, Sending, Unknown

MARK: Final = {"key": "promptferry", "value": "0123456789abcdef"}


@dataclass(slots=True, kw_only=True)
class Shelf:
    """Prompts by name. `faults`: names that a bulk is refused for; `hidden`: names that somebody else has, unseen, so
    that a bulk leaves them out; `answers`: what becomes of one answer after the other, then all are given.
    """

    prompts: dict[str, Item] = field(default_factory=dict)
    faults: Collection[str] = ()
    hidden: Collection[str] = ()
    takes_back: bool = False
    drops: bool = False
    stores_tags: bool = False
    refusal: Exception = field(default_factory=lambda: Gone("no integration", error="gone", status=404))
    answers: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)

    async def post(self, items: Sequence[Item], sending: Sending) -> None:
        await sending()
        self.log.append("post")
        becomes = self.answers.pop(0) if self.answers else "given"
        if becomes == "not sent":
            raise Transient("no connection", error="not_sent")
        before = dict(self.prompts)
        try:
            if becomes != "lost on the way":
                self._carry_out(items)
        except Rejected:
            if self.takes_back:
                self.prompts = before
            if becomes == "given":
                raise
        if becomes != "given":
            raise UnknownOutcome("it may have happened", error="no_answer")

    def _carry_out(self, items: Sequence[Item]) -> None:
        for item in items:
            if item["name"] in self.hidden:
                continue
            if item["name"] in self.faults:
                raise self.refusal
            gone = {*(SAMPLING if self.drops else ()), *(() if self.stores_tags else ("tags",))}
            self.prompts[item["name"]] = {key: value for key, value in item.items() if key not in gone}

    async def found(self, names: Sequence[str], *, surely: bool) -> dict[str, Item]:
        self.log.append("found")
        becomes = self.reads.pop(0) if self.reads else "given"
        if becomes != "given":
            raise Transient("no answer", error="no_answer")
        return {name: self.prompts[name] for name in names if name in self.prompts}

    async def tag(self, name: str, tags: Collection[Tag]) -> None:
        self.log.append("tag")
        item = self.prompts[name]
        every = sorted({*tags_of(item), *tags})
        self.prompts[name] = item | {"tags": [{"key": key, "value": value} for key, value in every]}

    async def delete(self, target_id: str) -> None:
        self.log.append("delete")
        del self.prompts[target_id]

    @property
    def posts(self) -> int:
        return self.log.count("post")


def item_at(number: int, **fields: Any) -> Item:
    return {
        "version": 1,
        "name": f"prompt {number}",
        "template": f"Hello ${{name}} {number}",
        "description": "",
        "integrations": ["openai:gpt-4o"],
        "tags": [MARK],
        **fields,
    }


def names_of(*numbers: int) -> set[str]:
    return {f"prompt {number}" for number in numbers}


async def carried_out(shelf: Shelf, items: Sequence[Item]) -> list[Outcome]:
    """What became of the items; `sending` is awaited once, before anything is written, or nothing was done."""

    async def sending() -> None:
        shelf.log.append("sending")

    outcomes = await Bulk(shelf, items, sending).carry_out()
    assert len(outcomes) == len(items)
    done = [call for call in shelf.log if call != "found"]
    assert done.count("sending") == min(1, len(done))
    assert done[:1] == ["sending"] or {type(outcome) for outcome in outcomes} == {Failed}
    return outcomes


def holds(shelf: Shelf, item: Item) -> bool:
    """It is there as it was to be, with its tags."""
    found = shelf.prompts.get(item["name"])
    return (
        found is not None and differences(prompt_of(item), prompt_of(found)) == () and tags_of(item) == tags_of(found)
    )


# ---- one manner at a time --------------------------------------------------------------------------------------------


async def test_a_bulk_without_a_fault_is_one_post_and_one_look() -> None:
    shelf = Shelf(stores_tags=True)
    outcomes = await carried_out(shelf, [item_at(number) for number in range(50)])
    assert outcomes == [Created(target_id=f"prompt {number}", version_id="1") for number in range(50)]
    assert shelf.log == ["sending", "post", "found"]


async def test_tags_that_a_bulk_does_not_store_are_set_by_a_call_each() -> None:
    shelf, items = Shelf(), [item_at(number) for number in range(3)]
    outcomes = await carried_out(shelf, items)
    assert [type(outcome) for outcome in outcomes] == [Created] * 3
    assert shelf.log[3:] == ["tag"] * 3
    assert all(holds(shelf, item) for item in items)


@pytest.mark.parametrize("takes_back", [False, True])
@pytest.mark.parametrize("at", [0, 7, 19])
@pytest.mark.parametrize(
    ("refusal", "error", "says"),
    [
        (Gone("no such integration", error="gone", status=404), "missing", "rewrite.provider"),
        (Rejected("no READ", error="forbidden", status=403), "forbidden", "grant"),
        (Rejected("invalid", error="rejected", status=400), "rejected", "invalid"),
    ],
)
async def test_the_one_at_fault_fails_with_its_reason_and_all_others_are_created(
    takes_back: bool, at: int, refusal: Rejected, error: str, says: str
) -> None:
    shelf = Shelf(faults=names_of(at), takes_back=takes_back, refusal=refusal, stores_tags=True)
    outcomes = await carried_out(shelf, [item_at(number) for number in range(20)])
    failed = outcomes.pop(at)
    assert isinstance(failed, Failed)
    assert (failed.error, failed.status, failed.exists) == (error, refusal.status, False)
    assert says in failed.message
    assert {type(outcome) for outcome in outcomes} == {Created}


async def test_what_is_left_out_without_a_word_says_that_permission_is_missing() -> None:
    shelf = Shelf(hidden=names_of(1))
    outcomes = await carried_out(shelf, [item_at(number) for number in range(3)])
    assert isinstance(outcomes[1], Failed)
    assert (outcomes[1].error, outcomes[1].message[:20]) == ("no_update_permission", "no update permission")
    assert [type(outcomes[number]) for number in (0, 2)] == [Created, Created]
    assert shelf.posts == 1


async def test_what_an_older_server_drops_is_named_and_its_replica_taken_back() -> None:
    shelf = Shelf(drops=True)
    outcomes = await carried_out(shelf, [item_at(1, temperature=0.5, topP=1), item_at(2)])
    assert isinstance(outcomes[0], Failed)
    assert outcomes[0].error == "loss"
    assert "parameters.temperature, parameters.topP" in outcomes[0].message
    assert isinstance(outcomes[1], Created)
    assert set(shelf.prompts) == names_of(2)


@pytest.mark.parametrize(("becomes", "kind"), [("lost on the way back", Created), ("lost on the way", Unknown)])
async def test_a_lost_answer_is_settled_by_looking_and_never_by_sending_again(becomes: str, kind: type) -> None:
    shelf = Shelf(answers=[becomes])
    outcomes = await carried_out(shelf, [item_at(number) for number in range(3)])
    assert [type(outcome) for outcome in outcomes] == [kind] * 3
    assert shelf.posts == 1


async def test_what_surely_never_left_fails_and_may_be_tried_again() -> None:
    shelf = Shelf(answers=["not sent"])
    (outcome,) = await carried_out(shelf, [item_at(1)])
    assert isinstance(outcome, Failed)
    assert outcome.retriable
    assert not shelf.prompts


async def test_what_cannot_be_read_back_is_in_doubt() -> None:
    shelf = Shelf(reads=["lost"])
    assert [type(outcome) for outcome in await carried_out(shelf, [item_at(1), item_at(2)])] == [Unknown, Unknown]


async def test_when_the_intent_cannot_be_written_nothing_is_sent() -> None:
    async def full() -> None:
        raise Stop("disk", "the disk is full", next="make room")

    shelf = Shelf()
    with pytest.raises(Stop):
        await Bulk(shelf, [item_at(1)], full).carry_out()
    assert not shelf.prompts


@pytest.mark.parametrize("takes_back", [False, True])
async def test_a_bulk_in_which_every_prompt_is_refused_ends(takes_back: bool) -> None:
    shelf = Shelf(faults=names_of(*range(1000)), takes_back=takes_back)
    outcomes = await carried_out(shelf, [item_at(number) for number in range(1000)])
    assert {type(outcome) for outcome in outcomes} == {Failed}
    assert shelf.posts <= 2 * 1000 + 2


async def test_what_is_dropped_does_not_hide_that_a_server_takes_back() -> None:
    shelf = Shelf(faults=names_of(49), takes_back=True, drops=True, stores_tags=True)
    items = [item_at(number, **({} if number == 49 else {"temperature": 0.5})) for number in range(50)]
    assert {outcome.error for outcome in await carried_out(shelf, items) if isinstance(outcome, Failed)} == {
        "loss",
        "missing",
    }
    assert shelf.posts <= 1 + 3 * 6


# ---- all of them together --------------------------------------------------------------------------------------------

kinds = st.sampled_from(["plain"] * 12 + ["sampled", "fault", "fault", "hidden"])
answers = st.sampled_from(["given"] * 4 + ["lost on the way", "lost on the way back", "not sent"])


@dataclass(frozen=True, slots=True)
class Case:
    """Items, and the store they are sent to."""

    items: list[Item]
    kinds: list[str]
    shelf: Shelf


@st.composite
def cases(draw: st.DrawFn, most: int = 40) -> Case:
    found = draw(st.lists(kinds, min_size=1, max_size=most))
    items = [
        item_at(number, **({"temperature": 0.5, "stopWords": ["#"]} if kind == "sampled" else {}))
        for number, kind in enumerate(found)
    ]
    shelf = Shelf(
        faults={item["name"] for item, kind in zip(items, found, strict=True) if kind == "fault"},
        hidden={item["name"] for item, kind in zip(items, found, strict=True) if kind == "hidden"},
        takes_back=draw(st.booleans()),
        drops=draw(st.booleans()),
        stores_tags=draw(st.booleans()),
    )
    return Case(items, found, shelf)


def innocent(case: Case) -> list[int]:
    """Numbers of the items that nothing speaks against."""
    good = {"plain"} if case.shelf.drops else {"plain", "sampled"}
    return [number for number, kind in enumerate(case.kinds) if kind in good]


@settings(max_examples=300, deadline=None)
@given(case=cases(), lost=st.lists(answers, max_size=6), reads=st.lists(st.sampled_from(["given"] * 4 + ["lost"])))
async def test_outcomes_are_true_whatever_is_lost(case: Case, lost: list[str], reads: list[str]) -> None:
    shelf = case.shelf
    shelf.answers, shelf.reads = lost, reads
    before = dict(shelf.prompts)
    sure = not {"lost on the way", "lost on the way back"} & {*lost} and "lost" not in reads
    outcomes = await carried_out(shelf, case.items)
    for item, outcome in zip(case.items, outcomes, strict=True):
        name = item["name"]
        if isinstance(outcome, Created):
            assert outcome == Created(target_id=name, version_id="1")
            assert holds(shelf, item)
        elif isinstance(outcome, Failed):
            assert shelf.prompts.get(name) == before.get(name)
        else:
            assert isinstance(outcome, Unknown)
            assert not sure


@settings(max_examples=300, deadline=None)
@given(case=cases())
async def test_every_innocent_prompt_is_created_and_nobody_else_is_touched(case: Case) -> None:
    before = dict(case.shelf.prompts)
    outcomes = await carried_out(case.shelf, case.items)
    created = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Created)]
    assert created == innocent(case)
    strangers = {case.items[number]["name"] for number, kind in enumerate(case.kinds) if kind == "hidden"}
    assert all(case.shelf.prompts.get(name) == before.get(name) for name in strangers)


def most_posts(case: Case) -> int:
    """Where the first part stays, two for each that is at fault and three for what is left out in silence, which may
    look like a server that takes back; else a search by halves.
    """
    faults, hidden = (case.kinds.count(kind) for kind in ("fault", "hidden"))
    if not case.shelf.takes_back:
        return 1 + 2 * faults + 3 * hidden
    return 1 + (faults + hidden) * (3 * ceil(log2(len(case.items) + 1)) + 1)


@settings(max_examples=400, deadline=None)
@given(case=cases(most=120))
async def test_the_fault_is_found_with_few_calls(case: Case) -> None:
    await carried_out(case.shelf, case.items)
    assert case.shelf.posts <= most_posts(case)
    assert case.shelf.log.count("found") <= 2 * case.shelf.posts
