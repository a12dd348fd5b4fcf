"""The question before the first write: whenever there may be one, and with the numbers of what is to be written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from engine import load_migration, run_migration
from engine.cli.run import said_of
from engine.connectors.portkey.registry import Portkey
from engine.content.filter import Chosen
from engine.errors import Stop
from engine.ledger.report import Summary
from engine.model import Outcome, Sending
from engine.run import RunOptions
from engine.run.after import rollback_migration
from engine.run.totals import Totals
from engine.sandbox import SandboxOptions
from engine.session import VerbOptions
from tests.e2e import Served, served, write_migration

COUNT = 4


@dataclass
class Place:
    registry: Served
    folder: Path
    asked: list[Totals] = field(default_factory=list)
    answer: bool = True

    async def confirm(self, totals: Totals) -> bool:
        self.asked.append(totals)
        return self.answer

    async def run(self, parts: dict[str, Any] | None = None, **options: Any) -> Summary:
        path = write_migration(self.folder, self.registry.base_url, **parts or {})
        self.asked.clear()
        return await run_migration(
            load_migration(path, {"KEY": self.registry.api_key}),
            RunOptions(confirm=self.confirm, max_duration=5, **options),
        )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served(SandboxOptions(prompts=COUNT)) as registry:
        yield Place(registry, tmp_path)


async def test_a_create_in_doubt_is_not_sent_again_unasked(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def killed(_: Portkey, bodies: list[bytes], sending: Sending) -> list[Outcome]:
        await sending()
        raise Stop("interrupted", "killed behind its intent", next="Again.")

    slow = {"limits": {"settle": "1m"}}
    monkeypatch.setattr(Portkey, "create", killed)
    await place.run(slow, limit=1)
    monkeypatch.undo()
    place.answer = False
    summary = await place.run(slow, limit=0)
    (totals,) = place.asked
    assert (totals.doubtful, totals.creates, totals.compared) == (1, 0, 0)
    assert (summary.exit_code, summary.requests["writes"]) == (75, 0)
    assert "nothing was written" in summary.message


async def test_what_replicas_are_short_of_is_not_brought_unasked(place: Place) -> None:
    history = {"select": {"version": "all"}}
    await place.run(history)
    (place.folder / "ledger.jsonl").unlink()
    place.answer = False
    summary = await place.run(history)
    (totals,) = place.asked
    assert (totals.short, totals.creates, totals.compared) == (COUNT, 0, 0)
    assert (summary.exit_code, summary.requests["writes"]) == (75, 0)


async def test_a_rollback_brings_nothing_to_what_it_takes_back(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    create = Portkey.create

    async def killed(self: Portkey, bodies: list[bytes], sending: Sending) -> list[Outcome]:
        await create(self, bodies, sending)
        raise Stop("interrupted", "killed before the answer was recorded", next="Again.")

    async def no(_: str) -> bool:
        return False

    for one in place.registry.prompts():
        place.registry.edit(one["id"], string="Second")
    history: dict[str, Any] = {"select": {"version": "all"}, "limits": {"settle": "0.1s"}}
    monkeypatch.setattr(Portkey, "create", killed)
    await place.run(history, limit=1)
    monkeypatch.undo()
    path = write_migration(place.folder, place.registry.base_url, **history)
    with pytest.raises(Stop, match="not confirmed"):
        await rollback_migration(load_migration(path, {"KEY": place.registry.api_key}), VerbOptions(confirm=no))
    (replica,) = [one for one in place.registry.prompts() if is_made(one)]
    assert len(place.registry.versions(replica["id"])) == 1


async def test_with_nothing_that_may_be_written_nothing_is_asked(place: Place) -> None:
    summary = await place.run(limit=0)
    assert (place.asked, summary.exit_code, summary.requests["writes"]) == ([], 0, 0)


async def test_the_numbers_are_those_of_the_prompts_that_it_is_about(place: Place) -> None:
    await place.run(limit=1)
    (first,) = place.asked
    assert (first.creates, first.compared, first.selected) == (1, 0, COUNT)
    (made,) = [one["template_metadata"]["promptferry"]["source_id"] for one in place.registry.prompts() if is_made(one)]
    await place.run({"rewrite": {"model": "new"}}, chosen=Chosen(only=[made]))
    (totals,) = place.asked
    assert (totals.creates, totals.compared, totals.chosen, totals.selected) == (0, 1, 1, COUNT)


def is_made(one: dict[str, Any]) -> bool:
    return "promptferry" in (one.get("template_metadata") or {})


NOTHING = Totals(listed=8, selected=8, chosen=8)


@pytest.mark.parametrize(
    ("totals", "said"),
    [
        (replace(NOTHING, creates=8), "8 replicas will be created; 8 of 8 prompts are selected"),
        (
            Totals(listed=1, selected=1, chosen=1, creates=1),
            "1 replica will be created; 1 of 1 prompt is selected",
        ),
        (
            replace(NOTHING, compared=1, chosen=1),
            "0 replicas will be created and 1 compared, and updated where something changed; "
            "8 of 8 prompts are selected, 1 of them chosen",
        ),
        (
            replace(NOTHING, creates=2, compared=3, doubtful=1, short=1, limit=2),
            "2 replicas will be created and 3 compared, and updated where something changed; of these no more "
            "than 2 are written in this run; 1 prompt in doubt is looked up, and written again where nothing has "
            "arrived; 1 replica found there may get labels or versions that are missing; 8 of 8 prompts are selected",
        ),
        (
            replace(NOTHING, doubtful=2, listed=2_000),
            "0 replicas will be created; 2 prompts in doubt are looked up, and written again where nothing has "
            "arrived; 8 of 2,000 prompts are selected",
        ),
    ],
)
def test_it_says_what_may_be_written(totals: Totals, said: str) -> None:
    assert "; ".join(said_of(totals)) == said
