"""`--canary N`: so many first, read back whole; any difference stops the run before the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.errors import Rejected
from engine.model import Created, Outcome, Rule, Sending
from tests.workspaces import Put, Wrapped, job_of, memory, prompt, run


class Changing(Memory):
    """A registry that changes the n-th replica it is given."""

    nth = 0

    async def create(self, bodies: Any, sending: Sending) -> list[Outcome]:
        (outcome,) = await super().create(bodies, sending)
        assert isinstance(outcome, Created)
        if self.creates == self.nth:
            self.prompts[outcome.target_id] = replace(self.prompts[outcome.target_id], text="changed", raw=True)
        return [outcome]


@pytest.mark.parametrize(("nth", "creates"), [(1, 3), (3, 3), (4, 10)])
async def test_only_a_difference_among_the_canaries_stops_the_run(nth: int, creates: int, ledger: Path) -> None:
    there = Changing()
    there.nth = nth
    ran = await run(job_of(memory(*(prompt(f"p{number}") for number in range(10))), there), ledger, canary=3)
    assert there.creates == creates
    if creates == 10:
        assert ran.stop is None
        return
    assert ran.stop is not None
    assert (ran.stop.reason, ran.stop.exit_code) == ("canary", 4)
    assert "1 of 3 canaries" in str(ran.stop)
    assert "raw, string" in str(ran.stop) or "string, raw" in str(ran.stop)


async def test_a_canary_that_cannot_be_made_stops_the_run(ledger: Path) -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "p8":  # the second newest, so among the first
            raise Rejected("it is refused", error="rejected", status=400)

    there = memory()
    source = Wrapped(memory(*(prompt(f"p{number}") for number in range(10))), on_fetch=on_fetch)
    ran = await run(job_of(source, there), ledger, canary=3)
    assert ran.stop is not None
    assert "p8" in str(ran.stop)
    assert "failed" in str(ran.stop)
    assert there.creates == 2


@pytest.mark.parametrize("publish", [True, False])
@pytest.mark.parametrize("wrong", [False, True])
async def test_prompts_changed_in_place_are_compared_with_what_was_written(
    publish: bool, wrong: bool, ledger: Path
) -> None:
    """With `publish: false` that is a version which nobody is served yet."""
    there = memory(*(prompt(f"p{number}") for number in range(6)))
    updated: list[str] = []  # whose turn it was, in order

    async def on_update(target_id: str, put: Put, sending: Sending) -> Outcome:
        updated.append(target_id)
        first = updated[0]
        if wrong and len(updated) == 4:  # the first went alone, and is proved by now
            there.history[first][-1] = replace(there.history[first][-1], text="changed meanwhile")
            there.prompts[first] = replace(there.prompts[first], text="changed meanwhile")
        return await put()

    rules = (Rule(name="{name} in place", model=(("*", "new"),)),)
    job = job_of(Wrapped(there, on_update=on_update), in_place=True, publish=publish, rules=rules)
    ran = await run(job, ledger, canary=2 if not wrong else 4)
    assert (ran.stop is not None, there.updates) == (wrong, 4 if wrong else 6)
    if wrong:
        assert updated[0] in str(ran.stop)


async def test_what_needs_nothing_is_no_canary(ledger: Path) -> None:
    """Three that are new are written and read back, however many unchanged ones stand before them."""
    there = Changing()
    source = memory(*(prompt(f"n{number}") for number in range(5)))
    await run(job_of(source, there), ledger)
    for number in range(10):
        source.prompts = {f"p{number}": prompt(f"p{number}"), **source.prompts}  # listed last
    there.nth = 5 + 3
    ran = await run(job_of(source, there, rewrites="others"), ledger, canary=3)
    assert (there.creates, ran.stop is not None) == (8, True)
    assert "1 of 3 canaries" in str(ran.stop)
    again = await run(job_of(source, there, rewrites="others"), ledger)
    assert (there.creates, set(again.statuses.values())) == (15, {"created"})


async def test_fewer_prompts_than_canaries_are_all_canaries(ledger: Path) -> None:
    there = memory()
    ran = await run(job_of(memory(prompt("a"), prompt("b")), there), ledger, canary=5)
    assert ran.stop is None
    assert there.creates == 2
