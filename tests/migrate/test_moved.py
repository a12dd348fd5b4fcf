"""Prompts in files that are renamed, moved and copied between two runs: each keeps its one replica."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.config import Migration, load_migration
from engine.content.filter import Chosen
from engine.ledger.file import read_ledger
from engine.ledger.repair import compact
from engine.ledger.report import OUTCOMES, Summary
from engine.ledger.state import State
from engine.ledger.status import read_ids_map
from engine.migrate.plan import Plan
from engine.run import plan_migration, run_migration
from engine.run.after import rollback_migration, verify_migration
from engine.session import VerbOptions
from tests.e2e import lines


def written(path: Path, name: str = "Greeting", text: str = "Hi {{who}}\n", **front: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    more = "".join(f"{key}: {value}\n" for key, value in front.items())
    path.write_text(f"---\nname: {name}\nmodel: m\n{more}---\n{text}")


@dataclass(frozen=True)
class Move:
    """A migration from files into files."""

    root: Path
    source_path: str = "source"
    target_path: str = "target.jsonl"

    @property
    def source(self) -> Path:
        return self.root / self.source_path

    @property
    def target(self) -> Path:
        return self.root / self.target_path

    @property
    def migration(self) -> Migration:
        file = self.root / "m.yaml"
        ends = {"source": {"kind": "files", "path": self.source_path}}
        ends["target"] = {"kind": "files", "path": self.target_path}
        file.write_text(json.dumps({"name": "m", **ends, "rewrite": {"name": "{name}"}, "ledger": "ledger.jsonl"}))
        return load_migration(file, {})

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.jsonl"

    async def run(self) -> Summary:
        summary = await run_migration(self.migration)
        assert summary.counts["selected"] == sum(summary.counts[name] for name in OUTCOMES)
        return summary

    async def did(self) -> dict[str, int]:
        """What a run did, but for what it did to none."""
        return {name: count for name, count in (await self.run()).this_run.items() if count}

    async def plan(self) -> Plan:
        return await plan_migration(self.migration, chosen=Chosen())

    async def rollback(self, run: str | None = None) -> dict[str, str]:
        """Source id -> what became of it."""
        done = await rollback_migration(self.migration, VerbOptions(), run=run)
        return {one.source_id: one.result for one in done.prompts}

    async def verify(self) -> dict[str, str]:
        """Source id -> what was found."""
        return {one.source_id: one.result for one in (await verify_migration(self.migration, VerbOptions())).prompts}

    def pairs(self) -> dict[str, str]:
        """The map of ids, old to new."""
        return {str(one["source_id"]): str(one["target_id"]) for one in read_ids_map(self.ledger, Chosen())}

    def replicas(self) -> dict[str, str]:
        """Id -> text."""
        found = [json.loads(line) for line in self.target.read_bytes().splitlines()]
        return {one["id"]: one["string"] for one in found}

    def state(self) -> State:
        return read_ledger(self.ledger).state


@pytest.fixture
def move(tmp_path: Path) -> Move:
    (tmp_path / "source").mkdir()
    return Move(tmp_path)


RENAMES: dict[str, str] = {
    "another name": "hello.md",
    "another case": "GREETING.md",
    "an ending in capitals": "greeting.MD",
    "odd characters": "gr\u00fc\u00df #1 (a\\b).md",
}


@pytest.mark.parametrize("new", RENAMES.values(), ids=RENAMES)
async def test_a_renamed_file_keeps_its_replica(move: Move, new: str) -> None:
    written(move.source / "greeting.md")
    assert await move.did() == {"created": 1}
    before = move.target.read_bytes()
    (move.source / "greeting.md").rename(move.source / new)
    planned = await move.plan()
    assert (planned.counts["unchanged"], planned.counts["create"]) == (1, 0)
    moved = new[:-3] != "greeting"
    assert any("greeting -> " in note for note in planned.notes) is moved
    for _ in range(2):
        ran = await move.run()
        assert (ran.exit_code, ran.counts["unchanged"], ran.orphaned) == (0, 1, 0)
    assert move.target.read_bytes() == before
    assert await move.verify() == {new[:-3]: "same"}
    assert move.pairs() == {new[:-3]: "greeting"}
    assert [line["kind"] for line in lines(move.ledger)].count("moved") == moved


async def test_a_file_that_is_renamed_and_changed_changes_its_replica(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    (move.source / "greeting.md").unlink()
    written(move.source / "hello.md", text="Good morning {{who}}\n")
    assert await move.did() == {"updated": 1}
    assert move.replicas() == {"greeting": "Good morning {{who}}\n"}
    assert await move.did() == {"unchanged": 1}


async def test_a_file_that_is_moved_into_a_subfolder_is_of_that_collection(move: Move) -> None:
    written(move.source / "greeting.md")
    written(move.source / "said.md", name="Said", collection="own")
    await move.did()
    (move.source / "team").mkdir()
    for name in ("greeting.md", "said.md"):
        (move.source / name).rename(move.source / "team" / name)
    assert await move.did() == {"updated": 1, "unchanged": 1}
    found = {one["id"]: one["collection"] for one in map(json.loads, move.target.read_bytes().splitlines())}
    assert found == {"greeting": "team", "said": "own"}
    (move.source / "team").rename(move.source / "crew")
    assert await move.did() == {"updated": 1, "unchanged": 1}
    assert len(move.replicas()) == 2


async def test_a_lost_ledger_finds_the_replica_of_a_renamed_file_by_its_mark(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    move.ledger.unlink()
    (move.source / "greeting.md").rename(move.source / "hello.md")
    assert [one.action for one in (await move.plan()).prompts] == ["unchanged"]
    await move.did()
    assert list(move.replicas()) == ["greeting"]
    assert [line["how"] for line in lines(move.ledger) if line["kind"] == "created"] == ["lookup"]
    assert await move.did() == {"unchanged": 1}


async def test_a_copy_is_a_prompt_of_its_own_and_both_files_are_named(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    shutil.copy2(move.source / "greeting.md", move.source / "copy.md")
    ran = await move.run()
    assert ran.this_run["created"] == 1
    assert any("copy.md = greeting.md" in note for note in ran.notes)
    assert sorted(move.replicas()) == ["copy", "greeting"]


async def test_of_several_that_have_one_name_the_content_tells_which_is_which(move: Move) -> None:
    for number in range(3):
        written(move.source / f"{number}.md", text=f"text {number}")
    await move.did()
    before = move.replicas()
    for number in range(3):
        (move.source / f"{number}.md").rename(move.source / f"{chr(99 - number)}.md")
    assert await move.did() == {"unchanged": 3}
    assert move.replicas() == before
    assert move.pairs() == {"c": "0", "b": "1", "a": "2"}


async def test_twins_whose_folder_is_renamed_are_told_apart_by_their_files(move: Move) -> None:
    for name in ("one", "two"):
        written(move.source / "team" / f"{name}.md", text=f"text {name}")
    await move.did()
    (move.source / "team").rename(move.source / "crew")
    assert await move.did() == {"updated": 2}
    assert move.pairs() == {"crew/one": "team/one", "crew/two": "team/two"}
    assert move.replicas() == {"team/one": "text one", "team/two": "text two"}


async def test_what_nobody_can_tell_is_a_conflict_that_says_so(move: Move) -> None:
    for number in range(2):
        written(move.source / f"{number}.md", text=f"text {number}")
    await move.did()
    for number in range(2):
        (move.source / f"{number}.md").unlink()
    written(move.source / "new.md", text="another text")
    ran = await move.run()
    assert (ran.exit_code, ran.this_run["conflicts"]) == (1, 1)
    assert any("new; delete the replicas" in note for note in ran.notes)
    assert [line["reason"] for line in lines(move.ledger) if line["kind"] == "conflict"] == ["renamed"]
    assert len(move.replicas()) == 2
    move.target.write_bytes(move.target.read_bytes().splitlines(keepends=True)[0])
    assert await move.did() == {"updated": 1}
    assert list(move.replicas().values()) == ["another text"]


async def test_a_new_prompt_beside_an_orphan_of_another_name_is_new(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    (move.source / "greeting.md").unlink()
    written(move.source / "farewell.md", name="Farewell")
    ran = await move.run()
    assert (ran.this_run["created"], ran.orphaned) == (1, 1)


async def test_a_prompt_that_is_there_beside_a_new_one_keeps_its_own(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    (move.source / "greeting.md").rename(move.source / "hello.md")
    written(move.source / "greeting.md", name="Greeting", text="another one")
    assert await move.did() == {"created": 1, "updated": 1}, "the file of that name is the prompt of that name"
    assert move.replicas() == {"greeting": "another one", "hello": "Hi {{who}}\n"}


async def test_a_renamed_file_is_rolled_back_once(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    (move.source / "greeting.md").rename(move.source / "hello.md")
    await move.did()
    assert await move.rollback("last") == {}
    assert await move.rollback() == {"hello": "deleted"}
    assert move.replicas() == {}
    assert await move.did() == {"created": 1}


async def test_a_compacted_ledger_still_knows_who_was_renamed(move: Move) -> None:
    written(move.source / "greeting.md")
    await move.did()
    for old, new in (("greeting", "hello"), ("hello", "greeting"), ("greeting", "hi")):
        (move.source / f"{old}.md").rename(move.source / f"{new}.md")
        assert await move.did() == {"unchanged": 1}
    before = move.state()
    compact(move.ledger)
    after = move.state()
    assert (list(after.records), after.targets) == (list(before.records), before.targets) == (["hi"], {"greeting"})
    assert await move.did() == {"unchanged": 1}
    assert move.pairs() == {"hi": "greeting"}
    assert await move.verify() == {"hi": "same"}


# ---- lines -----------------------------------------------------------------------------------------------------------


def changed(path: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    told = change([json.loads(line) for line in path.read_bytes().splitlines()])
    path.write_text("".join(json.dumps(one) + "\n" for one in told))


@pytest.fixture
def of_lines(tmp_path: Path) -> Move:
    told = [{"id": f"p{number}", "name": f"name {number}", "string": f"text {number}"} for number in range(3)]
    (tmp_path / "source.jsonl").write_text("".join(json.dumps(one) + "\n" for one in told))
    return Move(tmp_path, "source.jsonl")


async def test_lines_in_another_order_with_other_ids_keep_their_replicas(of_lines: Move) -> None:
    assert await of_lines.did() == {"created": 3}
    before = of_lines.target.read_bytes()
    changed(of_lines.root / "source.jsonl", lambda told: [one | {"id": f"n-{one['id']}"} for one in reversed(told)])
    assert await of_lines.did() == {"unchanged": 3}
    assert of_lines.target.read_bytes() == before


async def test_a_replica_whose_id_a_person_changed_is_found_and_goes_on_being_updated(of_lines: Move) -> None:
    await of_lines.did()
    changed(of_lines.target, lambda told: [one | ({"id": "mine"} if one["id"] == "p1" else {}) for one in told])
    ran = await of_lines.run()
    assert (ran.exit_code, ran.counts["unchanged"]) == (0, 3)
    assert any("renamed on the target" in note and "mine" in note for note in ran.notes)
    changed(of_lines.root / "source.jsonl", lambda told: [one | {"string": "new"} for one in told])
    assert await of_lines.did() == {"updated": 3}
    assert of_lines.replicas() == {"p0": "new", "mine": "new", "p2": "new"}
    assert await of_lines.verify() == dict.fromkeys(("p0", "p1", "p2"), "same")
    assert await of_lines.rollback() == dict.fromkeys(("p0", "p1", "p2"), "deleted")
    assert of_lines.replicas() == {}


# ---- a folder as target ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", ["mine.md", "archive/2026/greeting.md"])
async def test_a_replica_whose_file_a_person_renamed_is_found(tmp_path: Path, new: str) -> None:
    move = Move(tmp_path, target_path="out")
    written(move.source / "greeting.md", collection="c1")
    await move.did()
    (file,) = (tmp_path / "out").iterdir()
    (tmp_path / "out" / new).parent.mkdir(parents=True, exist_ok=True)
    file.rename(tmp_path / "out" / new)
    assert await move.did() == {"unchanged": 1}
    written(move.source / "greeting.md", text="new", collection="c1")
    assert await move.did() == {"updated": 1}
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == [tmp_path / "out" / new]
    assert (tmp_path / "out" / new).read_text().endswith("---\nnew")
    move.ledger.unlink()
    await move.did()
    assert len(list((tmp_path / "out").rglob("*.md"))) == 1
