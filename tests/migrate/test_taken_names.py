"""Where a create appends to what has its name, or overwrites it: what is there by then is looked at right before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from engine.connectors.memory import Memory
from engine.content.digest import read_mark
from engine.errors import Rejected, Transient
from engine.ledger.file import entries
from engine.model import Created, Outcome, Prompt, Sending, Unknown
from tests.workspaces import job_of, memory, prompt, run


class Careless(Memory):
    """A create overwrites what has its name. `appears`: prompts that others put there after the listing."""

    appears: Sequence[Prompt] = ()
    unreadable: Collection[str] = ()
    refuses: Exception | None = None
    overwritten = 0
    completed = 0

    def __init__(self, taken: Literal["appends", "overwrites"] = "overwrites", *, marked_at_once: bool = True) -> None:
        super().__init__((), memory()._catalog)
        self.can = replace(Memory.can, taken=taken, marked_at_once=marked_at_once)

    async def named(self, names: Collection[str]) -> dict[str, Prompt | None]:
        if self.refuses is not None:
            raise self.refuses
        self.prompts.update({one.id: one for one in self.appears})
        there = {one.name: one for one in self.prompts.values() if one.name in names}
        return {name: None if name in self.unreadable else one for name, one in there.items()}

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        made, _ = self._encoded[bodies[0]]
        self.overwritten += any(one.name == made.name for one in self.prompts.values())
        return await super().create(bodies, sending)

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        await sending()
        self.completed += 1
        wanted, _ = self._encoded[body]
        self.prompts[target_id] = replace(self.prompts[target_id], metadata=wanted.metadata)
        return Created(target_id=target_id)


def theirs(name: str, **fields: object) -> Prompt:
    return prompt(f"theirs-{name}", name, **fields)


@pytest.mark.parametrize("taken", ["appends", "overwrites"])
async def test_what_appeared_after_the_listing_is_not_overwritten(
    taken: Literal["appends", "overwrites"], ledger: Path
) -> None:
    there = Careless(taken)
    there.appears = [theirs("a-replica", text="somebody's own")]
    ran = await run(job_of(memory(prompt("a"), prompt("b")), there), ledger)
    assert ran.statuses == {"a": "conflict", "b": "created"}
    assert there.overwritten == 0
    assert there.prompts["theirs-a-replica"].text == "somebody's own"
    assert [line["kind"] for line in entries(ledger) if line.get("source_id") == "a"] == ["unknown", "conflict"]


async def test_what_the_key_may_not_read_is_not_overwritten(ledger: Path) -> None:
    there = Careless()
    there.appears, there.unreadable = [theirs("a-replica")], ["a-replica"]
    ran = await run(job_of(memory(prompt("a"), prompt("b")), there), ledger)
    assert ran.statuses == {"a": "failed", "b": "created"}
    assert there.overwritten == 0
    (line,) = (line for line in entries(ledger) if line["kind"] == "failed")
    assert (line["error"], line["retriable"]) == ("no_update_permission", True)


@pytest.mark.parametrize(
    ("error", "retriable"),
    [
        (Rejected("not with this key", error="forbidden", status=403), True),
        (Transient("down", error="no_answer"), True),
    ],
)
async def test_where_nobody_can_look_nothing_is_sent(error: Exception, retriable: bool, ledger: Path) -> None:
    there = Careless()
    there.refuses = error
    ran = await run(job_of(memory(prompt("a")), there), ledger)
    assert ran.statuses == {"a": "failed"}
    assert not there.prompts
    (line,) = (line for line in entries(ledger) if line["kind"] == "failed")
    assert line["retriable"]
    assert "was not sent" in line["message"]


async def test_what_a_create_left_without_its_mark_is_completed_and_not_made_again(ledger: Path) -> None:
    there = Careless(marked_at_once=False)
    source = memory(prompt("a"))
    there.appears = [replace(prompt("left", "a-replica"), text=source.prompts["a"].text)]
    ran = await run(job_of(source, there), ledger)
    assert ran.statuses == {"a": "created"}
    assert (there.completed, there.overwritten, list(there.prompts)) == (1, 0, ["left"])
    assert read_mark(there.prompts["left"].metadata, None)
    assert [line["kind"] for line in entries(ledger) if line.get("source_id") == "a"] == ["intent", "created"]


async def test_a_create_that_lands_after_its_look_up_is_not_sent_again(ledger: Path) -> None:
    """Its answer is lost, the listing is late, and it is there when it would be sent once more."""

    class Late(Careless):
        hidden = True

        async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
            await super().create(bodies, sending)
            return [Unknown(error="no_answer", message="")]

        async def pages(self):  # type: ignore[no-untyped-def]
            async for page in super().pages():
                yield replace(page, rows=[] if self.hidden else page.rows, total=0 if self.hidden else page.total)

    there = Late()
    ran = await run(job_of(memory(prompt("a")), there), ledger)
    assert ran.statuses == {"a": "created"}
    assert (there.creates, there.overwritten, len(there.prompts)) == (1, 0, 1)
