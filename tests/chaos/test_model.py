"""Ledger, survey and reconciler against a model: lost answers, late rows, kills, lost ledgers, strangers, in any order.

Time is virtual: waiting moves the clock. What a killed run had written is what stands in its file at that moment.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from engine.connectors.memory import Memory
from engine.content.digest import read_mark
from engine.ledger import report
from engine.ledger.before_images import BeforeImages
from engine.ledger.file import read_ledger
from engine.ledger.sink import Sink
from engine.migrate.context import Context
from engine.migrate.halt import Halt
from engine.migrate.pipeline import migrate
from engine.migrate.reconcile import reconcile, settle
from engine.migrate.survey import survey
from engine.model import Created, Entry, Failed, Outcome, Page, Replica, Sending, Unknown
from tests.chaos.campaign import SCALE, Tally
from tests.workspaces import CATALOG, job_of, prompt

SETTLE: Final = 10.0
LAG: Final = 15.0
"""Seconds that a late row is late: the first look-up after the settle time misses it, the second one does not."""
EXAMPLES: Final = 200 * SCALE
RESUMES: Final = 3
FATES: Final = (
    *("ok", "late", "lost", "lost, no effect", "lost, late", "refused", "not sent"),
    *("killed before", "killed after", "killed, late"),
)


class Killed(BaseException):
    """The process is dead: nothing in the engine may catch this."""


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Patient(Halt):
    """Waiting takes no time but moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    async def pause(self, seconds: float) -> None:
        self._clock.now += max(0.0, seconds)


class World(Memory):
    """A workspace whose answers have fates, and which watches what is asked of it. `prompts` is the truth."""

    def __init__(self, clock: Clock, ledger: Path) -> None:
        super().__init__((), CATALOG)
        self.fates: dict[str, list[str]] = {}
        """Source id -> what becomes of its next creates."""
        self.at_death: bytes | None = None
        """What the ledger held when the run was killed."""
        self._clock = clock
        self._ledger = ledger
        self._hidden: dict[str, float] = {}
        self._listed: list[float] = []
        self._doubts: dict[str, float] = {}
        """Source id -> when its create in doubt was sent."""
        self._in_flight: set[str] = set()
        self._replicas: dict[bytes, Replica] = {}

    async def pages(self) -> AsyncIterator[Page]:
        self._listed.append(self._clock())
        rows = [row async for page in super().pages() for row in page.rows]
        rows = [row for row in rows if self._hidden.get(row.id, 0.0) <= self._clock()]
        yield Page(rows=rows, total=len(rows))

    def encode(self, replica: Replica) -> bytes:
        body = super().encode(replica)
        self._replicas[body] = replica
        return body

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        (body,) = bodies
        source_id = self._replicas[body].source.id
        if self.at_death is not None:
            raise Killed
        await sending()
        self._watch(source_id)
        self._in_flight.add(source_id)
        self._doubts[source_id] = self._clock()
        try:
            return [await self._suffer(body, source_id)]
        finally:
            self._in_flight.discard(source_id)

    async def _suffer(self, body: bytes, source_id: str) -> Outcome:
        fate = self.fates[source_id].pop(0) if self.fates.get(source_id) else "ok"
        outcome: Outcome = Failed(error=fate.replace(" ", "_"), message=fate, retriable=fate == "not sent")
        if fate not in ("refused", "not sent", "lost, no effect", "killed before"):
            (outcome,) = await super().create([body], _nothing)
            if "late" in fate and isinstance(outcome, Created):
                self._hidden[outcome.target_id] = self._clock() + LAG
        if "killed" in fate:
            self.die()
        if "lost" in fate:
            return Unknown(error="no_answer", message=fate)
        del self._doubts[source_id]
        return outcome

    def die(self) -> None:
        """What the file holds now is all that is left of the run."""
        if self.at_death is None:
            self.at_death = self._ledger.read_bytes()
        raise Killed

    def forget(self) -> None:
        """After the ledger was lost nobody can know what is in doubt; by then all rows are listed."""
        self._clock.now += LAG
        self._doubts.clear()

    def _watch(self, source_id: str) -> None:
        """The intent is durable, no other create is under way, and one in doubt was looked for in vain."""
        lines = [json.loads(line) for line in self._ledger.read_bytes().splitlines()]
        told = [line["kind"] for line in lines if line.get("source_id") == source_id]
        assert told[-1:] == ["intent"], "a create left before its intent was durable"
        assert source_id not in self._in_flight, "two creates of one prompt at once"
        if (sent := self._doubts.get(source_id)) is not None:
            looked = [when for when in self._listed if when >= sent + SETTLE]
            assert looked, "sent again without a look-up after the settle time"


async def _nothing() -> None:
    return


class Migrations(RuleBasedStateMachine):
    """Runs of one migration, and what befalls it in between."""

    examples = 0
    killed = 0

    def __init__(self) -> None:
        super().__init__()
        Migrations.examples += 1
        self._folder = tempfile.TemporaryDirectory()
        self._ledger = Path(self._folder.name) / "m.jsonl"
        self._runner = asyncio.Runner()
        self._clock = Clock()
        self._world = World(self._clock, self._ledger)
        self._job = job_of(self._world, settle=SETTLE, concurrency=3)
        self._sources: dict[str, str] = {}
        """Id -> name."""
        self._runs = 0
        for number in range(3):
            self._add(f"first-{number}")

    # ---- what may happen

    @rule(fates=st.lists(st.lists(st.sampled_from(FATES), max_size=3), max_size=6), again=st.booleans())
    def run(self, fates: list[list[str]], again: bool) -> None:
        self._world.fates = dict(zip(self._sources, fates, strict=False))
        self._run(retry_failed=again)

    @rule()
    def add_source(self) -> None:
        if len(self._sources) < 6:
            self._add(f"later-{len(self._world.prompts)}")

    @rule(number=st.integers(0, 5))
    def delete_source(self, number: int) -> None:
        if number < len(self._sources):
            source_id = list(self._sources)[number]
            del self._sources[source_id], self._world.prompts[source_id]

    @rule(number=st.integers(0, 5))
    def stranger(self, number: int) -> None:
        """Somebody else makes a prompt of the name that the replica is to have; it is a source as well."""
        if number < len(self._sources) and len(self._sources) < 6:
            self._add(f"{list(self._sources.values())[number]}-replica")

    @rule(seconds=st.sampled_from((1.0, SETTLE, 2 * SETTLE)))
    def wait(self, seconds: float) -> None:
        self._clock.now += seconds

    @rule()
    def lose_ledger(self) -> None:
        self._world.forget()
        self._ledger.unlink(missing_ok=True)

    # ---- what must hold

    @invariant()
    def nothing_is_doubled(self) -> None:
        counts = Counter(self._replicas())
        assert not [source_id for source_id, count in counts.items() if count > 1]

    @invariant()
    def what_the_ledger_claims_is_there(self) -> None:
        if self._ledger.exists():
            first, second = read_ledger(self._ledger), read_ledger(self._ledger)
            assert first.verdict.kind == "whole"
            assert first.state == second.state
            targets = defaultdict(set)
            for target_id, one in self._world.prompts.items():
                if mark := read_mark(one.metadata, one.description):
                    targets[mark.source_id].add(target_id)
            for source_id, record in first.state.records.items():
                assert not record.made or record.target_id in targets[source_id]

    def teardown(self) -> None:
        """No more faults: the migration comes to its end, and nothing is lost."""
        try:
            self._come_to_the_end()
        finally:
            self._runner.close()
            self._folder.cleanup()

    # ---- how

    def _come_to_the_end(self) -> None:
        self._world.fates = {}
        self._clock.now += LAG
        outcomes: dict[str, str] = {}
        for _ in range(RESUMES):
            outcomes = self._run(retry_failed=True)
        self.nothing_is_doubled()
        done = {source_id for source_id, outcome in outcomes.items() if outcome in ("created", "unchanged")}
        names = [one.name for one in self._world.prompts.values()]
        assert done <= set(self._replicas())
        assert {outcomes[source_id] for source_id in outcomes.keys() - done} <= {"conflicts"}
        for source_id in outcomes.keys() - done:
            assert f"{self._sources[source_id]}-replica" in names, "a conflict with nobody"

    def _add(self, name: str) -> None:
        source = prompt(f"s{self._runs}-{len(self._world.prompts)}", name)
        self._world.prompts[source.id] = source
        self._sources[source.id] = name

    def _replicas(self) -> list[str]:
        """The source id of each replica there is."""
        marks = (read_mark(one.metadata, one.description) for one in self._world.prompts.values())
        return [mark.source_id for mark in marks if mark is not None]

    def _run(self, *, retry_failed: bool) -> dict[str, str]:
        """One run, and what became of each source; killed or not, the file is what is left."""
        self._runs += 1
        self._world.at_death = None
        try:
            return self._runner.run(self._whole_run(retry_failed))
        except BaseException as error:
            if not _all_killed(error) or self._world.at_death is None:
                raise
            Migrations.killed += 1
            self._ledger.write_bytes(self._world.at_death)
            return {}

    async def _whole_run(self, retry_failed: bool) -> dict[str, str]:
        sink = Sink.open(self._ledger, run=f"run-{self._runs}", clock=self._clock)
        try:
            async with sink:
                found = await survey(self._job, sink.state, now=self._clock(), retry_failed=retry_failed)
                copies = BeforeImages(self._ledger, run=sink.run)
                context = Context(sink=sink, halt=Patient(self._clock), clock=self._clock, copies=copies)
                await context.record(Entry("run", {"migration": self._job.migration}))
                tasks = [task for task in found.tasks if task.action == "create"]
                await settle(self._job, context, found.tasks)
                await migrate(self._job, context, tasks)
                waiting = [task for task in found.tasks if task.action == "wait"]
                await reconcile(self._job, context, [task.row for task in (*waiting, *tasks)])
            selected = [task.row.id for task in found.tasks if task.row.id not in context.replicas]
            assert context.halt.stop is None
            assert set(selected) == set(self._sources), "a source was left out, or a replica taken for one"
            self._judge_books(context, selected)
            return {one: report.outcome_of(context.state.records.get(one), sink.run) for one in selected}
        finally:
            sink.close()

    def _judge_books(self, context: Context, selected: list[str]) -> None:
        """They balance, every prompt has an outcome, and the file says what the run believes."""
        counts, _ = report.books(context.state, selected, listed=0, run=context.sink.run)
        assert counts["selected"] == sum(counts[name] for name in report.OUTCOMES)
        assert report.lost_track(counts, stop=None, limited=False) is None
        assert read_ledger(self._ledger).state == context.state


def _all_killed(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_all_killed(one) for one in error.exceptions)
    return isinstance(error, Killed)


def explore(examples: int, *, same: bool) -> Tally:
    """So many random histories, or always the same; the first that breaks a rule is raised, as short as it can be."""
    Migrations.examples = Migrations.killed = 0
    run_state_machine_as_test(
        Migrations,
        settings=settings(
            max_examples=examples,
            stateful_step_count=12,
            deadline=None,
            derandomize=same,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return Tally(runs=Migrations.examples, faults=Migrations.killed)


@pytest.mark.timeout(300)
def test_no_history_doubles_or_loses_a_prompt() -> None:
    assert explore(EXAMPLES, same=SCALE == 1).faults > EXAMPLES // 10


def long_model(scale: int, _jobs: int) -> Tally:
    """2,000 histories."""
    return explore(2_000 * scale, same=False)
