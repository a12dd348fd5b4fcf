"""The protocol by which a part is made, against a registry in memory that does as it is told."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import anyio
import pytest

from engine.connectors.memory import Memory
from engine.content.references import Counterpart, Ends
from engine.errors import Gone, Rejected, Stop, Transient
from engine.ledger.before_images import BeforeImages
from engine.ledger.file import entries as lines_of
from engine.ledger.sink import Sink
from engine.migrate.context import Context
from engine.migrate.halt import Halt
from engine.migrate.job import Job
from engine.migrate.making import make
from engine.migrate.needs import Need, needs, with_made
from engine.migrate.shared_parts import SharedParts
from engine.model import Catalog, Created, Entry, Failed, Named, Outcome, Part, Prompt, Row, Sending, Unknown
from tests.workspaces import job_of

COLLECTION = Part(what="collection", id="s1", slug="care-1", name="Care")
INNER = Part(what="collection", id="s2", slug="urgent-2", name="Urgent", parent="s1")
PARTIAL = Part(what="partial", id="s3", slug="base-3", name="Base", text="t", version="4")
LABEL = Part(what="label", id="s4", slug="blue", name="blue")
SOURCE = Catalog(
    collections=(
        Named(id="s1", slug="care-1", name="Care"),
        Named(id="s2", slug="urgent-2", name="Urgent", parent="s1"),
    ),
    partials=(Named(id="s3", slug="base-3", name="Base"),),
    labels=(Named(id="s4", slug="blue", name="blue"),),
)
LOST = Unknown(error="no_answer", message="nothing came back")
TAKEN = Failed(error="exists", message="is there", status=409, exists=True)
NO = Failed(error="forbidden", message="the key may not", status=403)


class There(Memory):
    """A target whose parts are as they were put there. `answers`: what the next creates meet in place of an answer;
    with `lands` they are made all the same.
    """

    def __init__(self, *answers: Outcome | Stop, lands: bool = False) -> None:
        super().__init__()
        self.there: list[Part] = []
        self.answers = deque(answers)
        self.lands = lands
        self.sent = 0
        self.parts = self

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        named = {
            f"{what}s": [
                Named(id=one.id, slug=one.slug, name=one.name, parent=one.parent)
                for one in self.there
                if one.what == what
            ]
            for what in ("collection", "partial", "label")
        }
        return Catalog(**{kind: named.get(kind, ()) for kind in kinds})  # type: ignore[arg-type]

    async def read(self, what: str, part_id: str, version: str = "published") -> Part:
        for one in self.there:
            if one.id == part_id:
                return one
        raise Gone("it is not there", error="gone", status=404)

    async def make(self, part: Part, sending: Sending) -> Outcome:
        await sending()
        self.sent += 1
        answer = self.answers.popleft() if self.answers else None
        if answer is None or self.lands:
            made = self.put(part)
        if isinstance(answer, Stop):
            raise answer
        return answer or Created(target_id=made.id, target_slug=made.slug)

    async def remove(self, what: str, part_id: str) -> None:
        self.there = [one for one in self.there if one.id != part_id]

    def put(self, part: Part) -> Part:
        number = len(self.there) + 1
        self.there.append(replace(part, id=f"t{number}", slug=f"{part.name.lower()}-t{number}"))
        return self.there[-1]


def job(there: There, *, source: Memory | None = None, **fields: object) -> Job:
    ends = Ends(
        same=False,
        source=SOURCE,
        target=Catalog(collections=(), partials=(), labels=(), providers=()),
        create=frozenset({"collections", "partials", "labels"}),
    )
    return job_of(source or Memory(), there, ends=ends, **fields)


@asynccontextmanager
async def running(folder: Path, run: str = "run-1") -> AsyncIterator[Context]:
    sink = Sink.open(folder / "ledger.jsonl", run=run)
    try:
        async with sink:
            copies = BeforeImages(folder / "ledger.jsonl", run=run)
            yield Context(sink=sink, halt=Halt(), clock=time.time, copies=copies)
    finally:
        sink.close()


def kinds(folder: Path) -> list[str]:
    return [line["kind"] for line in lines_of(folder / "ledger.jsonl")]


@pytest.mark.parametrize("part", [COLLECTION, PARTIAL, LABEL], ids=lambda part: part.what)
@pytest.mark.parametrize(
    ("lands", "told", "sent"),
    [
        (True, ["intent", "unknown", "made"], 1),
        (False, ["intent", "unknown", "intent", "made"], 2),
    ],
)
async def test_what_was_not_answered_is_looked_up_first(
    part: Part, lands: bool, told: list[str], sent: int, tmp_path: Path
) -> None:
    there = There(LOST, lands=lands)
    async with running(tmp_path) as context:
        done = await make(job(there), context, [Need(part=part)])
    assert kinds(tmp_path) == told
    assert (there.sent, len(there.there)) == (sent, 1)
    assert done.ends.made[part.key].named.id == "t1"


async def test_a_name_that_is_taken_meanwhile_is_used_and_not_ours(tmp_path: Path) -> None:
    there = There(TAKEN)
    theirs = there.put(LABEL)
    async with running(tmp_path) as context:
        done = await make(job(there), context, [Need(part=LABEL)])
        assert done.ends.made[LABEL.key].named.id == theirs.id
        assert context.state.parts[LABEL.key].target_id is None
    assert kinds(tmp_path) == ["intent", "unknown", "skipped"]


async def test_the_same_after_a_lost_answer_is_ours(tmp_path: Path) -> None:
    """The first create lands late, so that the second one meets it."""
    there = There(LOST, TAKEN)
    async with running(tmp_path) as context:
        lost = There.make

        async def late(part: Part, sending: Sending) -> Outcome:
            if there.sent == 1:
                there.put(part)
            return await lost(there, part, sending)

        there.make = late  # type: ignore[method-assign]
        await make(job(there), context, [Need(part=LABEL)])
        assert context.state.parts[LABEL.key].target_id == "t1"
    assert len(there.there) == 1


async def test_somebody_elses_partial_of_that_name_is_not_taken_for_a_lost_one(tmp_path: Path) -> None:
    there = There(LOST)
    there.put(PARTIAL)
    async with running(tmp_path) as context:
        done = await make(job(there), context, [Need(part=PARTIAL)])
    assert done.ends.made[PARTIAL.key].named.id == "t2"


async def test_a_409_without_anything_there_is_a_failure_by_name(tmp_path: Path) -> None:
    there = There(TAKEN)
    async with running(tmp_path) as context:
        done = await make(job(there), context, [Need(part=LABEL)])
    assert done.ends.unmade == {LABEL.key: "the registry says that it is there, and does not list it"}


async def test_what_needs_what_was_refused_is_not_tried(tmp_path: Path) -> None:
    there = There(NO)
    async with running(tmp_path) as context:
        found = [Need(part=COLLECTION), Need(part=INNER, after=(COLLECTION.key,))]
        done = await make(job(there), context, found)
        assert context.done.total() == 0  # no prompt failed
    assert there.sent == 1
    assert done.ends.unmade == {
        COLLECTION.key: "the key may not",
        INNER.key: "it needs the collection 'care-1', which could not be made",
    }
    assert kinds(tmp_path) == ["intent", "failed"]


async def test_a_refusal_that_stops_the_run_leaves_nothing_in_doubt(tmp_path: Path) -> None:
    stop = Stop("quota", "the subscription is used up", next="Pay.")
    stop.__cause__ = Rejected("used up", error="quota", status=402)
    async with running(tmp_path) as context:
        with pytest.raises(Stop, match="used up"):
            await make(job(There(stop)), context, [Need(part=LABEL)])
        assert not context.state.parts[LABEL.key].doubtful


async def test_the_attempts_of_a_run_are_counted(tmp_path: Path) -> None:
    there = There(*[LOST] * 9)
    async with running(tmp_path) as context:
        done = await make(job(there, attempts=2), context, [Need(part=LABEL)])
    assert there.sent == 2
    assert done.ends.unmade == {LABEL.key: "2 attempts were not answered"}


async def test_a_later_run_adopts_what_an_earlier_one_left_in_doubt(tmp_path: Path) -> None:
    """Also where it is there by now, so that no prompt lacks it."""
    there = There(LOST, lands=True)
    async with running(tmp_path) as context:
        context.halt.pause = _stop_at_once(context.halt)  # type: ignore[method-assign]
        await make(job(there), context, [Need(part=PARTIAL)])
        assert context.state.parts[PARTIAL.key].doubtful
    async with running(tmp_path, "run-2") as context:
        wanted = job(there)
        listed = await there.catalog({"collections", "partials", "labels"})
        await make(replace(wanted, ends=replace(wanted.ends, target=listed)), context, [])
        assert context.state.parts[PARTIAL.key].target_id == "t1"
        known = await with_made(wanted, context.state)  # though a listing does not have it yet
        assert known.ends.made[PARTIAL.key].version == "4"
    assert there.sent == 1


def _stop_at_once(halt: Halt):  # type: ignore[no-untyped-def]
    async def pause(seconds: float) -> None:
        halt.request(Stop("interrupted", "now", next=""))

    return pause


async def test_a_prompt_that_cannot_be_read_fails_by_itself(tmp_path: Path) -> None:
    class Shy(Memory):
        async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
            raise Transient("not now", error="no_answer")

    assert await needs(job(There(), source=Shy()), [Row(id="p", name="p")]) == []


# ---- several migrations ----------------------------------------------------------------------------------------------


async def test_what_others_made_or_sent_is_known_before_it_is_made_again(tmp_path: Path) -> None:
    """One of them has made a collection that is not listed yet, another one sent a partial without an answer."""
    there, parts = There(), SharedParts(anyio.Lock(), {"third": time.time() + 60, "mine": time.time() + 999})
    made = {COLLECTION.key: Counterpart(Named(id="t9", slug="care-t9", name="Care"))}
    first = job(there)
    parts.learn(replace(first, ends=replace(first.ends, made=made)))
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)
        there.put(PARTIAL)

    async with running(tmp_path) as context:
        context.halt.pause = pause  # type: ignore[method-assign]
        async with parts.taking_turns(first, context):
            known = await parts.known(replace(first, migration="mine"), context)
    assert [round(seconds) for seconds in paused] == [60]
    assert known.ends.target.providers == ()
    assert [one.id for one in known.ends.target.collections or ()] == ["t9"]
    assert [one.name for one in known.ends.target.partials or ()] == ["Base"]


async def test_whoever_is_stopped_leaves_its_turn_and_what_it_sent_is_unsure(tmp_path: Path) -> None:
    there, parts = There(Stop("quota", "used up", next="Pay.")), SharedParts(anyio.Lock(), {})
    async with running(tmp_path) as context:
        wanted = job(there, migration="mine", settle=5)
        with pytest.raises(Stop, match="used up"):
            async with parts.taking_turns(wanted, context):
                await make(wanted, context, [Need(part=LABEL)])
        assert not parts.turn.locked()
        assert parts.unsure["mine"] == context.state.parts[LABEL.key].since + 10
        waiting = asyncio.create_task(_take_a_turn(parts, wanted, context))
        async with parts.turn:
            await asyncio.sleep(0)
            context.halt.request(Stop("interrupted", "now", next=""))
            with pytest.raises(Stop, match="now"):
                await waiting


async def _take_a_turn(parts: SharedParts, wanted: Job, context: Context) -> None:
    async with parts.taking_turns(wanted, context):
        raise AssertionError("it is somebody else's turn")


# ---- killed ----------------------------------------------------------------------------------------------------------


class Killed(Exception):
    """The process is gone."""


class Doomed(There):
    """Ends the process at the step whose number is `at`, of all that are taken: before and behind every line that
    becomes durable, and every create that arrives.
    """

    def __init__(self) -> None:
        super().__init__()
        self.at = self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed

    async def make(self, part: Part, sending: Sending) -> Outcome:
        await sending()
        self.step()
        made = self.put(part)
        self.step()
        return Created(target_id=made.id, target_slug=made.slug)


async def _made(folder: Path, there: Doomed, run: str) -> None:
    """One run; what it needs is found again, as every run does."""
    async with running(folder, run) as context:
        record = context.sink.record

        async def recorded(*lines: Entry) -> None:
            there.step()
            await record(*lines)
            there.step()

        context.sink.record = recorded  # type: ignore[method-assign]
        wanted = job(there, settle=0.005, concurrency=1)
        target = await there.catalog({"collections", "partials", "labels"})
        wanted = await with_made(replace(wanted, ends=replace(wanted.ends, target=target)), context.state)
        found = [Need(part=COLLECTION), Need(part=INNER, after=(COLLECTION.key,)), Need(part=PARTIAL), Need(part=LABEL)]
        await make(wanted, context, found)


async def test_killed_between_any_two_steps_nothing_is_made_twice(tmp_path: Path) -> None:
    alive = False
    for at in count(1):
        folder, there = tmp_path / str(at), Doomed()
        folder.mkdir()
        there.at = at
        try:
            await _made(folder, there, "run-1")
            alive = True
        except* Killed:
            pass
        await _made(folder, there, "run-2")
        assert sorted(one.name for one in there.there) == ["Base", "Care", "Urgent", "blue"], at
        assert sum(kind == "made" for kind in kinds(folder)) == 4, at
        if alive:
            break
    assert at == 4 * 6 + 1
