"""What has to be read before a prompt's turn comes is not read again when it has come."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.migrate.readings import Readings
from engine.model import Page, Rule, Select, Version, When
from tests.workspaces import Wrapped, job_of, memory, names, prompt, run

MANY = 12
SELECT = Select(models=("claude*",))


class Silent(Wrapped):
    """A registry whose listing says nothing of models."""

    def __init__(self, inner: Memory, **more: Any) -> None:
        super().__init__(inner, **more)
        self.histories: list[str] = []

    async def pages(self) -> AsyncIterator[Page]:
        async for page in super().pages():
            yield replace(page, rows=[row._replace(model=None) for row in page.rows])

    async def versions(self, prompt_id: str) -> list[Version]:
        self.histories.append(prompt_id)
        return await super().versions(prompt_id)


def prompts(**fields: Any) -> Memory:
    return memory(*(prompt(f"p{number:02}", **fields) for number in range(MANY)))


def once(source: Wrapped) -> dict[str, int]:
    return dict.fromkeys(source.inner.prompts, 1)


async def test_a_definition_that_was_read_for_the_selection_is_read_once(ledger: Path) -> None:
    source, target = Silent(prompts()), memory()
    await run(job_of(source, target, select=SELECT), ledger)
    assert names(target) == [f"p{number:02}-replica" for number in range(MANY)]
    assert Counter(source.fetched) == once(source)


async def test_a_definition_that_was_read_for_its_place_is_read_once(ledger: Path) -> None:
    source, target = Silent(prompts()), memory()
    rules = (Rule(name="{name}-replica", when=When(model="claude*")),)
    await run(job_of(source, target, rules=rules), ledger)
    assert len(names(target)) == MANY
    assert Counter(source.fetched) == once(source)


@pytest.mark.parametrize("room", [0, 1, 5])
async def test_what_does_not_fit_is_read_again(room: int, ledger: Path) -> None:
    source, target = Silent(prompts(text="ten chars.")), memory()
    await run(job_of(source, target, select=SELECT, readings=Readings(10 * room)), ledger)
    assert len(names(target)) == MANY
    assert len(source.fetched) == 2 * MANY - room


def test_what_is_handed_on_makes_room() -> None:
    readings = Readings(10)
    first, second = prompt("a", text="0123456789"), prompt("b", text="0123456789")
    readings.keep(first, "published")
    readings.keep(second, "published")
    assert readings.look("a", "published") == readings.take("a", "published") == first
    assert readings.take("a", "published") is None
    assert readings.take("b", "published") is None
    readings.keep(second, "published")
    assert readings.take("b", "latest") is None
    assert readings.take("b", "published") == second


@pytest.mark.parametrize("labels", [(), ("production",)], ids=["", "whose labels follow"])
@pytest.mark.parametrize("kind", [Wrapped, Silent])
async def test_the_source_of_a_replica_that_is_taken_over_is_read_once(
    kind: type[Wrapped], labels: tuple[str, ...], ledger: Path
) -> None:
    source, target = kind(prompts(labels=labels)), memory()
    await run(job_of(source, target, select=SELECT), ledger)
    ledger.unlink()
    source.fetched.clear()
    ran = await run(job_of(source, target, select=SELECT), ledger)
    assert set(ran.statuses.values()) == {"created"}
    assert target.creates == MANY
    assert Counter(source.fetched) == once(source)


async def test_the_history_of_a_prompt_is_listed_once_a_run(ledger: Path) -> None:
    source, target = Silent(prompts()), memory()
    for known in source.inner.prompts.values():
        source.inner.history[known.id] = [
            replace(known, version=str(number), text=f"text {number}") for number in (1, 2, 3)
        ]
        source.inner.prompts[known.id] = source.inner.history[known.id][-1]
    select = replace(SELECT, version="all")
    await run(job_of(source, target, select=select), ledger)
    assert {len(history) for history in target.history.values()} == {3}
    assert Counter(source.histories) == once(source)
    source.histories.clear()
    source.fetched.clear()
    for known in [*source.inner.prompts.values()]:  # a night later each has one more
        history = source.inner.history[known.id]
        source.inner.history[known.id] = [*history, replace(history[-1], version="4", text="text 4")]
        source.inner.prompts[known.id] = replace(source.inner.history[known.id][-1], updated_at="2026-02-01T00:00:00Z")
    await run(job_of(source, target, select=select), ledger)
    assert {len(history) for history in target.history.values()} == {4}
    assert Counter(source.histories) == once(source)
    assert Counter(source.fetched) == once(source)
