"""Prompts from a registry into files and back, and every night of such a migration, as a user sees them."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Served, lines, served, started, wait_for_lines
from tests.forks import ROOT
from tests.routes import COLLECTION, MODEL, Conductor, End, Folder, Lines, Portkey, Route, did, results, route

DATA: Final = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"

Place = Callable[[Served, Path], End]

PLACES: Final[dict[str, Place]] = {
    "Portkey": lambda registry, _: Portkey(registry),
    "copy": lambda registry, _: Portkey(registry, "copy"),
    "Conductor": lambda registry, _: Conductor(registry),
    "folder": lambda _, folder: Folder(folder / "prompts"),
    "lines": lambda _, folder: Lines(folder / "prompts.jsonl"),
}
WAYS: Final = (
    ("Portkey", "Conductor"),
    ("Conductor", "Portkey"),
    ("Conductor", "folder"),
    ("Portkey", "lines"),
    ("lines", "Conductor"),
)


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


def timeless(planned: dict[str, Any]) -> dict[str, Any]:
    """A plan without how long its run takes."""
    return {name: value for name, value in planned.items() if name != "seconds"}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of prompts under it -> its bytes."""
    several = (*folder.rglob("*.md"), *folder.glob("prompts.jsonl"))
    return {path.name: path.read_bytes() for path in several}


def hellos(source: End, count: int) -> None:
    for number in range(count):
        source.add(f"p{number}", f"Hello <who>, this is {number} of <all>.\nYours")


@pytest.mark.parametrize(("from_", "to"), WAYS, ids=lambda name: name)
def test_the_nights_of_a_migration(from_: str, to: str, tmp_path: Path, registry: Served) -> None:
    source, target = (PLACES[name](registry, tmp_path) for name in (from_, to))
    hellos(source, 5)
    target.add("p4", "Somebody's <own>")
    way = route(tmp_path, registry, source, target)
    wanted = source.texts() | target.texts()
    assert did(way.run()) == {"created": 4, "conflicts": 1}
    assert target.texts() == wanted
    assert way.ask("verify").code == 0

    source.edit("p0", "Good morning <who>")
    source.edit("p1", "Good evening <who>")
    target.edit("p1", "By hand for <who>")
    assert did(way.run()) == {"updated": 1, "unchanged": 2, "conflicts": 2}
    wanted |= {"p0": "Good morning <who>", "p1": "By hand for <who>"}
    assert target.texts() == wanted
    back = way.ask("rollback", "--yes", "--json")
    assert results(back) == {"p0": "deleted", "p1": "kept", "p2": "deleted", "p3": "deleted"}
    assert target.texts() == {name: wanted[name] for name in ("p1", "p4")}


def test_a_plan_writes_nothing_and_tells_the_translation(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    hellos(source, 3)
    source.add("p3", "{{#some}}<who>{{/some}}")
    target.add("p0", "Somebody's <own>")
    before = target.prompts()
    way = route(tmp_path, registry, source, target)
    first, second = (way.ask("plan", "--json") for _ in range(2))
    assert timeless(first.json) == timeless(second.json)
    assert (first.json["counts"]["create"], first.json["counts"]["conflict"]) == (3, 1)
    assert {"what": "top_p", "becomes": "topP"} in first.json["translation"]
    (refused,) = (one for one in first.json["prompts"] if one["problem"])
    assert (refused["name"], "{{#some}}" in refused["problem"]) == ("p3", True)
    assert (target.prompts(), way.ledger.exists()) == (before, False)

    same = route(tmp_path, registry, source, Lines(tmp_path / "prompts.jsonl"))
    assert same.ask("plan", "--json").json["translation"] == []
    assert not (tmp_path / "prompts.jsonl").exists()


@pytest.mark.parametrize("to", ["Conductor", "folder"])
def test_a_lost_ledger_takes_over_what_is_ours(to: str, tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), PLACES[to](registry, tmp_path)
    hellos(source, 3)
    way = route(tmp_path, registry, source, target)
    way.run()
    target.edit("p1", "By hand for <who>")
    target.add("p3", "Somebody's <own>")
    source.add("p3", "Hello <who>")
    wanted = target.texts()
    way.ledger.unlink()
    again = way.run()
    # a tag holds the mark's key alone, so what was edited in Conductor cannot be told from what was written
    assert did(again) == ({"created": 2, "conflicts": 2} if to == "Conductor" else {"created": 3, "conflicts": 1})
    assert {line["how"] for line in lines(way.ledger) if line["kind"] == "created"} == {"lookup"}
    assert target.texts() == wanted
    source.edit("p0", "Good morning <who>")
    source.edit("p1", "Good evening <who>")
    assert did(way.run())["updated"] == 1
    assert target.texts() == wanted | {"p0": "Good morning <who>"}


# ---- where they stand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["folder", "lines"])
def test_files_are_changed_where_they_stand(where: str, tmp_path: Path, registry: Served) -> None:
    end = PLACES[where](registry, tmp_path)
    hellos(end, 3)
    texts = end.texts()
    rules = {"model": "gpt-4o", "parameters": {"set": {"temperature": 0}}}
    way = route(tmp_path, registry, end, None, mode="update", rewrite=rules, publish=True)
    assert did(way.run()) == {"updated": 3}
    written = b"".join(contents(tmp_path).values())
    assert written.count(b"gpt-4o") == 3
    assert MODEL.encode() not in written
    assert end.texts() == texts
    assert way.ask("verify").code == 0
    end.edit("p1", "By hand for <who>")
    by_hand = contents(tmp_path)
    assert did(way.run()) == {"unchanged": 3}
    # files keep one version: what was there before is beside the ledger, and nothing is changed behind git's back
    back = way.ask("rollback", "--yes", "--json")
    assert (back.code, results(back)) == (1, dict.fromkeys(texts, "kept"))
    assert ".before.jsonl" in back.json["prompts"][0]["message"]
    assert contents(tmp_path) == by_hand


# ---- prompts that people wrote ---------------------------------------------------------------------------------------


def killed_after(way: Route, count: int) -> None:
    """A run that is ended with kill -9 when it has written so many lines."""
    with started("run", way.path, cwd=way.folder, env=way.environ) as process:
        assert wait_for_lines(way.ledger, count, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_real_prompts_go_through_a_folder_byte_for_byte(tmp_path: Path, registry: Served) -> None:
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    registry.ask(lambda sandbox: plant(sandbox, originals))
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    for folder in (first, second, third):
        folder.mkdir()
    source, exported = Portkey(registry), Folder(first / "prompts")
    way = route(first, registry, source, exported)
    killed_after(way, len(originals))
    assert 10 < len(exported.contents()) < len(originals)
    assert way.run().code == 0
    written = exported.contents()
    assert len(written) == len(originals) > 500

    assert did(way.run()) == {"unchanged": len(originals)}
    assert exported.contents() == written
    way.ledger.unlink()
    assert way.run().code == 0
    assert exported.contents() == written
    fresh = Folder(second / "prompts")
    assert route(second, registry, source, fresh).run().code == 0
    assert fresh.contents() == written

    back = route(third, registry, fresh, Portkey(registry, "copy"), name="back")
    killed_after(back, len(originals))
    ended = back.run()
    strings = {name: one["string"] for name, one in source.prompts().items()}
    # the other workspace has not the partials that a few of them name
    partials = {name for name, string in strings.items() if re.search(r"\{\{\s*>", string)}
    assert (ended.code, ended.summary["counts"]["failed"]) == (1, len(partials))
    assert {name: one["string"] for name, one in Portkey(registry, "copy").prompts().items()} == {
        name: string for name, string in strings.items() if name not in partials
    }
    assert fresh.contents() == written


def plant(sandbox: Sandbox, prompts: Sequence[dict[str, Any]]) -> None:
    """Each as Portkey has it, with a number before its name."""
    for number, one in enumerate(prompts):
        string = one["template"] if one["kind"] == "text" else json.dumps(one["messages"], ensure_ascii=False)
        parameters = {name: value for name, value in (one["parameters"] or {}).items() if name != "model"}
        sandbox.add_prompt(f"{number} {one['name']}", string, parameters=parameters, collection=COLLECTION)


def test_what_was_exported_under_a_name_can_be_imported_under_it(tmp_path: Path, registry: Served) -> None:
    source, files, target = Portkey(registry), Folder(tmp_path / "prompts"), Portkey(registry, "copy")
    hellos(source, 3)
    assert did(route(tmp_path, registry, source, files).run()) == {"created": 3}
    back = route(tmp_path, registry, files, target, ledger="back.jsonl")
    assert did(back.run()) == {"created": 3}
    assert target.texts() == source.texts()


# ---- a disk that is full ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["folder", "lines"])
def test_a_full_disk_ends_with_75_and_is_gone_on_from(to: str, tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), PLACES[to](registry, tmp_path)
    hellos(source, 60)
    source.add("large", "x" * 200_000)
    way = route(tmp_path, registry, source, target)

    full = way.ask("run", file_limit=150_000)
    assert (full.code, full.summary["reason"]) == (75, "disk")
    assert "Traceback" not in full.err
    assert not list(tmp_path.rglob("*.tmp"))
    assert "large" not in target.texts()
    assert way.run().code == 0
    assert target.texts() == source.texts()
