"""The books see every prompt that a run takes up: an outcome that is lost on the way never passes for a success."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from engine import load_migration, run_migration
from engine.config import Migration
from engine.connectors.files.registry import Files
from engine.connectors.memory import Memory
from engine.content.filter import Chosen
from engine.errors import Stop
from engine.ledger import report
from engine.ledger.file import entries
from engine.ledger.report import OUTCOMES, Summary
from engine.ledger.status import read_status
from engine.migrate import send, update
from engine.migrate.context import Context
from engine.migrate.halt import Halt
from engine.model import Created, Entry, Failed, Outcome, Prompt, Rule, Sending, Unknown, Updated
from engine.run import RunOptions
from tests.e2e import lines
from tests.workspaces import Wrapped, job_of, memory, prompt, run

COUNT: Final = 6
ONE: Final = "p3"
"""The prompt of which nothing is said."""


@dataclass(frozen=True)
class Place:
    """A folder of prompts on its way into a file."""

    folder: Path

    def write(self, **parts: Any) -> Migration:
        value = {
            "name": "books",
            "source": {"kind": "files", "path": "prompts"},
            "target": {"kind": "files", "path": "out.jsonl"},
            "rewrite": {"name": "{name}"},
            "limits": {"settle": "0.1s", "batch": 4},
            "ledger": "ledger.jsonl",
        }
        path = self.folder / "books.yaml"
        path.write_text(json.dumps(value | parts))
        return load_migration(path)

    def prompt(self, name: str, text: str) -> None:
        (self.folder / "prompts").mkdir(exist_ok=True)
        (self.folder / "prompts" / f"{name}.md").write_text(f"---\nname: {name}\ncollection: c\n---\n{text}")

    def names(self) -> set[str]:
        return {line["name"] for line in lines(self.folder / "out.jsonl")}

    async def run(self, options: RunOptions | None = None, **parts: Any) -> Summary:
        summary = await run_migration(self.write(**parts), options)
        assert summary.counts["selected"] == sum(summary.counts[name] for name in OUTCOMES)
        return summary

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path)
    for number in range(COUNT):
        found.prompt(f"p{number}", f"Hello {{{{who}}}}, this is {number}\n")
    return found


# ---- the control: what a mutation drops is missed --------------------------------------------------------------------

Before = Callable[[Place], Awaitable[dict[str, Any]]]
"""What has happened before the run, and the parts of its migration file."""


async def nothing(place: Place) -> dict[str, Any]:
    return {}


async def an_edit(place: Place) -> dict[str, Any]:
    await place.run()
    place.prompt(ONE, "Good morning {{who}}\n")
    return {}


async def other_rules(place: Place) -> dict[str, Any]:
    """Everything is compared, and the same."""
    await place.run()
    return {"allow_loss": ["tools"]}


async def a_lost_ledger(place: Place) -> dict[str, Any]:
    await place.run()
    place.ledger.unlink()
    return {}


async def somebody_else(place: Place) -> dict[str, Any]:
    (place.folder / "out.jsonl").write_text(json.dumps({"id": "x", "name": ONE, "string": "mine"}) + "\n")
    return {}


async def somebody_else_to_skip(place: Place) -> dict[str, Any]:
    return await somebody_else(place) | {"on_existing": "skip"}


def silenced(monkeypatch: pytest.MonkeyPatch, kinds: Sequence[str] = ()) -> None:
    """No line (of these kinds) about that prompt reaches the ledger."""
    record = Context.record

    async def mutated(self: Context, *entries: Entry) -> None:
        said = [
            entry for entry in entries if entry.fields.get("source_id") != ONE or not (entry.kind in kinds or not kinds)
        ]
        await record(self, *said)

    monkeypatch.setattr(Context, "record", mutated)


@pytest.mark.parametrize("before", [nothing, an_edit, other_rules, a_lost_ledger, somebody_else, somebody_else_to_skip])
@pytest.mark.parametrize("counts_lie", [False, True], ids=["", "and the counts lie"])
async def test_a_dropped_outcome_is_caught_by_the_books(
    before: Before, counts_lie: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = await before(place)
    silenced(monkeypatch)
    if counts_lie:
        monkeypatch.setattr(report, "outcome_of", lambda record, run, *, due=False: "unchanged")
    summary = await place.run(**parts)
    assert (summary.exit_code, summary.reason) == (4, "failures")
    assert (
        summary.message == f"the books do not balance: 1 prompts were taken up and have no outcome (among them {ONE})"
    )
    assert "Report this" in summary.next
    assert counts_lie or summary.counts["not_started"] == 1
    assert lines(place.ledger)[-1]["exit_code"] == 4


@pytest.mark.parametrize("kind", ["updated", "unchanged"])
async def test_the_line_alone_is_missed_though_the_intent_is_there(
    kind: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update without its outcome is in doubt, and is found again; what was compared is not there twice."""
    parts = await (an_edit if kind == "updated" else other_rules)(place)
    silenced(monkeypatch, [kind])
    summary = await place.run(**parts)
    assert summary.exit_code == (1 if kind == "updated" else 4)
    assert summary.counts["unresolved" if kind == "updated" else "not_started"] == 1


async def test_whatever_is_taken_up_and_is_the_same_has_a_line_that_says_so(place: Place) -> None:
    summary = await place.run(**await other_rules(place))
    assert (summary.exit_code, summary.counts["unchanged"]) == (0, COUNT)
    said = {line["source_id"] for line in lines(place.ledger) if line["kind"] == "unchanged"}
    assert said == {f"p{number}" for number in range(COUNT)}


async def test_an_outcome_that_is_taken_for_the_end_of_the_run_is_caught(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(monkeypatch)
    monkeypatch.setattr(send, "_unsent", lambda context, outcome: True)
    summary = await place.run()
    assert (summary.exit_code, summary.counts["not_started"]) == (4, COUNT)
    assert "the books do not balance" in summary.message


# ---- outcomes that come before their intent --------------------------------------------------------------------------


def refusing(monkeypatch: pytest.MonkeyPatch, error: str = "refused") -> None:
    """The target refuses before anything is sent."""
    no = Failed(error=error, message="nobody looked", retriable=True)

    async def create(self: Files, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        return [no] * len(bodies)

    async def update(self: Files, target_id: str, body: bytes, sending: Sending) -> Outcome:
        return no

    monkeypatch.setattr(Files, "create", create)
    monkeypatch.setattr(Files, "update", update)


@pytest.mark.parametrize("error", ["refused", "not_sent"])
async def test_a_create_or_an_update_that_fails_before_it_is_sent_is_told_and_taken_up_again(
    error: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        refusing(patch, error)
        first = await place.run()
        assert (first.exit_code, first.counts["failed"]) == (1, COUNT)
    assert {line["kind"] for line in lines(place.ledger)} == {"run", "listed", "failed", "end"}
    assert (await place.run()).counts["created"] == COUNT
    place.prompt(ONE, "Good morning {{who}}\n")
    with monkeypatch.context() as patch:
        refusing(patch, error)
        second = await place.run()
        assert (second.exit_code, second.counts["failed"], second.counts["unchanged"]) == (1, 1, COUNT - 1)
        (failed,) = read_status(place.ledger, Chosen()).failed
        assert (failed["source_id"], failed["message"]) == (ONE, "nobody looked")
    assert (await place.run()).this_run["updated"] == 1


async def test_what_a_stop_left_is_not_started_and_not_unchanged(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await place.run()
    for number in range(COUNT):
        place.prompt(f"p{number}", f"Good morning {{{{who}}}} {number}\n")
    done: list[str] = []

    async def update(self: Files, target_id: str, body: bytes, sending: Sending) -> Outcome:
        if done:
            raise Stop("disk", "the disk is full", next="Make room.")
        done.append(target_id)
        return await change(self, target_id, body, sending)

    change = Files.update
    monkeypatch.setattr(Files, "update", update)
    summary = await place.run()
    assert (summary.exit_code, summary.message) == (75, "the disk is full")
    counts = {name: summary.counts[name] for name in ("updated", "not_started", "unchanged")}
    assert counts == {"updated": 1, "not_started": COUNT - 1, "unchanged": 0}
    assert read_status(place.ledger, Chosen()).counts == summary.counts
    monkeypatch.undo()
    assert (await place.run()).this_run["updated"] == COUNT - 1


async def test_what_is_beyond_a_limit_is_not_started_though_an_earlier_run_made_it(place: Place) -> None:
    await place.run()
    for number in range(COUNT):
        place.prompt(f"p{number}", f"Good morning {{{{who}}}} {number}\n")
    summary = await place.run(RunOptions(limit=2))
    assert (summary.exit_code, summary.reason) == (0, "limit")
    assert (summary.counts["updated"], summary.counts["not_started"]) == (2, COUNT - 2)
    rest = await place.run()
    assert (rest.counts["updated"], rest.counts["unchanged"]) == (COUNT - 2, 2)


# ---- what a connector may say ----------------------------------------------------------------------------------------


class Odd(Memory):
    """A registry whose connector says these outcomes of every write, before it asks for the intent."""

    says: Sequence[Outcome] | None = None

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        return list(self.says) if self.says is not None else await super().create(bodies, sending)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        return self.says[0] if self.says is not None else await super().update(target_id, body, sending)


@pytest.mark.parametrize(
    "says",
    [[Created(target_id="x")], [Unknown(error="no_answer", message="reset")], [], [Failed(error="e", message="m")] * 2],
    ids=["created", "unknown", "too few", "too many"],
)
async def test_an_outcome_that_cannot_be_is_a_bug_and_no_success(says: Sequence[Outcome], ledger: Path) -> None:
    there = Odd([prompt("a")])
    there.says = says
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await run(job_of(there), ledger)
    assert {line["kind"] for line in entries(ledger)} == {"run"}


async def test_an_update_that_cannot_be_is_a_bug_too(ledger: Path) -> None:
    there = Odd([prompt("a")])
    job = job_of(there, in_place=True, rules=())
    there.says = [Updated(version_id="2")]
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        await run(job_of(there, in_place=True), ledger)
    there.says = None
    assert (await run(job, ledger)).status("a") == "unchanged"


async def test_what_is_not_sent_because_the_run_ends_is_as_it_was(ledger: Path) -> None:
    halt = Halt()

    async def on_create(replica: Prompt, put: Any, sending: Sending) -> Outcome:
        halt.request(Stop("interrupted", "asked to end", next="Again."))
        return Failed(error="not_sent", message="the run is stopping", retriable=True)

    ran = await run(job_of(Wrapped(memory(prompt("a"), prompt("b")), on_create=on_create)), ledger, halt=halt)
    assert ran.statuses == {}


async def test_an_update_that_is_not_sent_because_the_run_ends_is_as_it_was(ledger: Path) -> None:
    there = memory(prompt("a"))
    await run(job_of(there), ledger)
    there.prompts["a"] = prompt("a", text="new", updated_at="2026-01-03T00:00:00.000Z")
    halt = Halt()

    async def on_update(target_id: str, put: Any, sending: Sending) -> Outcome:
        halt.request(Stop("interrupted", "asked to end", next="Again."))
        return Failed(error="not_sent", message="the run is stopping", retriable=True)

    ran = await run(job_of(Wrapped(there, on_update=on_update)), ledger, halt=halt)
    assert (ran.status("a"), ran.context.state.records["a"].run) == ("created", "run-1")
    assert (await run(job_of(there), ledger)).status("a") == "updated"


async def test_the_second_try_of_an_update_says_what_became_of_it(
    ledger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A draft came between, so the update is sent whole; that is refused, and its own reason is told."""
    tries: list[bytes] = []

    class Drafted(Memory):
        async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
            tries.append(body)
            if len(tries) == 2:
                await sending()
                return Failed(error="rejected", message="the second is refused", status=422)
            outcome = await super().update(target_id, body, sending)
            *earlier, newest = self.history[target_id]
            self.history[target_id] = [*earlier, prompt("a", text="a draft", version=newest.version)]
            return outcome

    there = Drafted([prompt("a", version="1")])
    monkeypatch.setattr(update, "READ_BACK_TRIES", 1)
    rules = (Rule(model=(("*", "claude-4"),)),)
    await run(job_of(there, in_place=True, publish=False, rules=rules), ledger)
    (failed,) = (line for line in entries(ledger) if line["kind"] == "failed")
    assert (len(tries), failed["message"]) == (2, "the second is refused")


# ---- what follows a create -------------------------------------------------------------------------------------------


async def test_labels_that_find_no_version_are_told(ledger: Path) -> None:
    class Changing(Memory):
        """Keeps other texts than it was sent, and does not say which version that made."""

        async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
            (outcome,) = await super().create(bodies, sending)
            assert isinstance(outcome, Created)
            kept = self.prompts[outcome.target_id]
            self.prompts[outcome.target_id] = prompt(kept.id, kept.name, text="changed", metadata=kept.metadata)
            return [Created(target_id=outcome.target_id)]

    there = Changing([prompt("a", labels=("production",))])
    ran = await run(job_of(there), ledger)
    assert ran.status("a") == "failed"
    (failed,) = (line for line in entries(ledger) if line["kind"] == "failed")
    assert (failed["stage"], "production" in failed["message"]) == ("finish", True)


async def test_a_replica_of_which_nobody_says_that_it_is_whole_is_missed(ledger: Path) -> None:
    """Its labels follow; unless the run was asked to end, a line says that they did, or why not."""
    there = memory(prompt("a", labels=("production",)))
    ran = await run(job_of(there), ledger)
    state = ran.context.state
    assert (ran.status("a"), report.without_outcome(state, ["a"], "run-1")) == ("created", [])
    state.records["a"].rare.pending = True
    assert report.without_outcome(state, ["a"], "run-1") == ["a"]
    assert report.outcome_of(state.records["a"], "run-1") == "created"  # it is there, when a stop came between
