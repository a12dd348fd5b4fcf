"""Shards of one migration: together they do exactly what one run does, in whatever order they come."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.content.digest import read_mark
from engine.content.shard import Shard, shard_of
from engine.model import Prompt, Rule, Select, When
from tests.workspaces import Forgetful, Ran, job_of, memory, prompt, run

Job = dict[str, Any]


async def shards(here: Memory, there: Memory | None, ledger: Path, count: int, seed: int, **job: Any) -> list[Ran]:
    """Each of them, in some order."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return [
        await run(job_of(here, there, shard=Shard(one, count), **job), ledger.with_name(f"{one}.jsonl"))
        for one in order
    ]


def made(workspace: Memory) -> dict[str, str]:
    """Source id of each replica -> its name."""
    marks = [(read_mark(one.metadata, one.description), one) for one in workspace.prompts.values()]
    found = [(mark.source_id or mark.key, one.name) for mark, one in marks if mark is not None]
    assert len(dict(found)) == len(found), "doubled"
    return dict(found)


def statuses(ran: Sequence[Ran]) -> dict[str, str]:
    found = [pair for one in ran for pair in one.statuses.items()]
    assert len(dict(found)) == len(found), "two shards had it"
    return dict(found)


BY_NAME = {"rules": (Rule(name="{name}-replica"), Rule(when=When(name="same-*"), name="same"))}
"""Two prompts of other names meet under one."""
SOME = [prompt(f"p{number}") for number in range(8)]
MEET = [prompt("x1", "same-1"), prompt("x2", "same-2"), prompt("x3", "same-3", model="other")]
TWINS = [prompt("t1", "twin"), prompt("t2", "twin"), prompt("t3", "twin", collection="c2")]
CHAIN = [prompt("c1", "chain"), prompt("c2", "chain-replica"), prompt("c3", "chain-replica-replica")]
"""What one becomes is what the next one is called."""
NUMBERS = [prompt("n1", "n"), prompt("n2", "n"), prompt("n3", "n-replica-2", collection="c2")]
TAKEN = [prompt("theirs", "n-replica"), prompt("theirs2", "twin-replica")]


@pytest.mark.parametrize("seed", [1])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize(
    ("prompts", "taken", "job"),
    [
        (SOME + MEET, (), BY_NAME),
        (SOME + MEET, (), BY_NAME | {"select": Select(models=("claude*",))}),
        (SOME + TWINS, (), {}),
        (SOME + CHAIN, (), {}),
        (SOME + CHAIN, (), {"on_existing": "rename"}),
        (TWINS + NUMBERS, TAKEN, {"on_existing": "rename"}),
        (TWINS + NUMBERS, TAKEN, {"on_existing": "skip"}),
        (TWINS + NUMBERS, TAKEN, {}),
    ],
)
async def test_they_do_what_one_run_does(
    prompts: list[Prompt], taken: list[Prompt], job: Job, same: bool, seed: int, tmp_path: Path
) -> None:
    there = None if same else memory(*taken)
    here = memory(*prompts, *(taken if same else ()))
    one = await run(job_of(here, there, **job), tmp_path / "one.jsonl")
    wanted = made(there or here)

    for folder in (tmp_path / "first", tmp_path / "lost"):  # the second time each has lost its ledger
        folder.mkdir()
        if folder.name == "first":
            there = None if same else memory(*taken)
            here = memory(*prompts, *(taken if same else ()))
        ran = await shards(here, there, folder / "x", 3, seed, **job)
        assert statuses(ran) == one.statuses
        assert made(there or here) == wanted
        for one_shard in ran:
            assert {task.row.id for task in one_shard.survey.tasks} >= one_shard.statuses.keys()
        assert sum(len(one_shard.survey.tasks) for one_shard in ran) == len(one.survey.tasks)
        before = (there or here).creates
        again = await shards(here, there, folder / "x", 3, seed + 1, **job)
        assert (there or here).creates == before
        assert sum(len(one_shard.survey.tasks) for one_shard in again) == len(one.survey.tasks)


@pytest.mark.parametrize("workspace", [Memory, Forgetful])
async def test_the_replicas_of_another_shard_are_no_prompts(workspace: Callable[..., Memory], tmp_path: Path) -> None:
    """In one workspace they are listed, too: as somebody else's prompts, if nobody looked."""
    here = workspace([prompt(f"p{number}") for number in range(12)])
    for _ in range(3):
        ran = await shards(here, None, tmp_path / "x", 4, 1)
        assert sum(len(one.survey.tasks) for one in ran) == 12
    assert here.creates == 12
    assert not any(one.name.endswith("-replica-replica") for one in here.prompts.values())


async def test_a_shard_reads_no_more_than_it_must(tmp_path: Path) -> None:
    """Where a listing does not tell the model, of other shards' prompts only those are read that meet one of these."""
    prompts = [prompt(f"p{number}") for number in range(40)] + MEET

    class Silent(Memory):
        reads = 0

        async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
            self.reads += 1
            return await super().fetch(prompt_id, version)

    here = Silent(prompts, memory()._catalog)
    shard = Shard(shard_of("x1", 4), 4)
    own = sum(shard.takes(one.id) for one in prompts)
    ran = await run(job_of(here, memory(), shard=shard, **BY_NAME), tmp_path / "x.jsonl")
    assert ran.status("x1") == "conflict"
    assert here.reads <= own


async def test_what_clashes_with_a_replica_that_another_shard_made(tmp_path: Path) -> None:
    """As in one run, the replica that is there has the name, whatever the rules say of its prompt by now."""
    here, there = memory(*SOME, MEET[0]), memory()
    await shards(here, there, tmp_path / "x", 3, 1, **BY_NAME)
    here.prompts |= {one.id: one for one in MEET[1:]}
    ran = await shards(here, there, tmp_path / "x", 3, 2, **BY_NAME)
    told = statuses(ran)
    assert (told["x1"], told["x2"], told["x3"]) == ("created", "conflict", "conflict")
    assert list(made(there).values()).count("same") == 1


async def test_a_renamed_file_of_another_shard_keeps_its_replica(tmp_path: Path) -> None:
    """Its new id may be another shard's, whose ledger does not know it."""

    class Places(Memory):
        can = replace(Memory.can, moves=True)

    here, there = Places([prompt("a/one", "one"), prompt("b/two", "two")], memory()._catalog), Places([])
    job = {"rules": (Rule(name="{name}"),)}
    await shards(here, there, tmp_path / "x", 3, 1, **job)
    new = next(f"z{number}/one" for number in range(99) if shard_of(f"z{number}/one", 3) != shard_of("a/one", 3))
    here.prompts[new] = replace(here.prompts.pop("a/one"), id=new)
    await shards(here, there, tmp_path / "x", 3, 1, **job)
    assert there.creates == 2
