"""Prompts in files: what a run leaves on the disk, whatever stops it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from engine.connectors import DIALECTS
from engine.connectors.files import folder as files_folder
from engine.connectors.files.format import Document, to_line, to_markdown
from engine.connectors.files.registry import Files, open_files
from engine.content.digest import differences, make_replica, read_mark
from engine.errors import ConfigError, Gone, Rejected, Stop, Transient
from engine.log import log
from engine.model import Created, Failed, Outcome, Prompt, Replica, Row, Updated
from tests.workspaces import REGISTRY, job_of, memory, run

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"
BOTH = pytest.mark.parametrize("where", ["prompts", "prompts.jsonl"])


def prompt(prompt_id: str = "p1", **fields: Any) -> Prompt:
    return Prompt(**{"id": prompt_id, "name": f"prompt-{prompt_id}", "text": "Hello {{name}}", **fields})


def replica_of(source: Prompt, migration: str = "m") -> Replica:
    return make_replica(source, source, migration=migration, registry=REGISTRY)


async def nothing() -> None:
    """Nobody has to be told before a test writes."""


async def put(files: Files, *sources: Prompt, migration: str = "m") -> list[str]:
    bodies = [files.encode(replica_of(source, migration)) for source in sources]
    outcomes: list[Outcome] = []
    for start in range(0, len(bodies), files.batch):
        outcomes += await files.create(bodies[start : start + files.batch], nothing)
    assert all(isinstance(outcome, Created) for outcome in outcomes)
    return [outcome.target_id for outcome in outcomes if isinstance(outcome, Created)]


async def rows(files: Files) -> list[Row]:
    return [row async for page in files.pages() for row in page.rows]


async def ids(path: Path) -> list[str]:
    async with open_files(path, name="source", writes=False, dialects=DIALECTS) as files:
        return [row.id for row in await rows(files)]


async def export(path: Path, *sources: Prompt, migration: str = "m") -> list[str]:
    async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
        return await put(files, *sources, migration=migration)


async def problems(path: Path, *, writes: bool = False, name: str = "target") -> str:
    with pytest.raises(ConfigError) as caught:
        async with open_files(path, name=name, writes=writes, dialects=DIALECTS):
            pass
    return str(caught.value)


async def failing(path: Path, *, writes: bool = False) -> dict[str, str]:
    """Name -> what is wrong with it, of the prompts of a source that cannot be read."""
    found = {}
    async with open_files(path, name="source", writes=writes, dialects=DIALECTS) as files:
        for row in await rows(files):
            try:
                await files.fetch(row.id)
            except Rejected as error:
                found[row.name] = str(error).replace(f"{path}/", "").replace(str(path), path.name)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---- both ------------------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "slug": "pp-1",
    "collection": "c1",
    "model": "gpt-4o",
    "provider": "openai",
    "parameters": {"temperature": 1.0, "seed": 2**70},
    "tools": [{"type": "function"}],
    "metadata": {"team": "a"},
    "description": "first",
    "integrations": ("openai:gpt-4o",),
    "dialect": "conductor",
    "extra": {"unknown": [1, {"a": None}]},
    "labels": ("prod",),
    "version": "7",
    "updated_at": "2020-01-01T00:00:00.000Z",
}


@BOTH
async def test_a_prompt_comes_back_with_its_mark_as_version_one(tmp_path: Path, where: str) -> None:
    source = prompt(**WHOLE)
    (target_id,) = await export(tmp_path / where, source)
    async with open_files(tmp_path / where, name="source", writes=False, dialects=DIALECTS) as files:
        found = await files.fetch(target_id)
        assert [(one.ref, one.ordinal) for one in await files.versions(target_id)] == [("1", 1)]
        assert await files.fetch(target_id, "1") == await files.fetch(target_id, "latest") == found
        with pytest.raises(Gone):
            await files.fetch(target_id, "7")
        assert (await rows(files))[0].updated_at == found.updated_at
    mark = read_mark(found.metadata, None)
    assert mark is not None
    assert (mark.source_id, found.version, found.slug, found.extra) == ("p1", "1", "pp-1", source.extra)
    assert differences(source, found) == ()
    assert (found.integrations, found.dialect, found.labels) == (source.integrations, "conductor", ("prod",))


@BOTH
async def test_the_version_at_the_source_stays_known(tmp_path: Path, where: str) -> None:
    await export(tmp_path / where, prompt(**WHOLE))
    files = [tmp_path / where] if where.endswith("l") else list((tmp_path / where).iterdir())
    assert "source_version" in files[0].read_text()


@BOTH
async def test_what_is_not_there_is_made_only_to_be_written(tmp_path: Path, where: str) -> None:
    path = tmp_path / "deep" / where
    told = await problems(path, name="source")
    assert "is not there" in told
    assert str(path) in told
    assert not path.parent.exists()
    assert await export(path) == []
    assert await ids(path) == []


@BOTH
async def test_an_update_replaces_and_what_is_the_same_stays_untouched(tmp_path: Path, where: str) -> None:
    path, source = tmp_path / where, prompt(**WHOLE)
    async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
        (target_id,) = await put(files, source)
        seen = [files.encode_update(replica_of(one), None) for one in (source, replace(source, text="new", tools=None))]
        before = await files.fetch(target_id)
        assert await files.update(target_id, seen[0], nothing) == Updated(version_id="1")
        assert await files.fetch(target_id) == before
        assert await files.update(target_id, seen[1], nothing) == Updated(version_id="1")
        found = await files.fetch(target_id, "1")
        assert (found.text, found.tools, found.version) == ("new", None, "1")
        outcome = await files.update("nobody", seen[0], nothing)
        assert isinstance(outcome, Failed)
        assert outcome.status == 404
    assert await ids(path) == [target_id]


@BOTH
async def test_an_update_of_some_fields_keeps_the_others(tmp_path: Path, where: str) -> None:
    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
        (target_id,) = await put(files, prompt(text="kept", model="old"))
        wanted = make_replica(
            prompt(), prompt(model="new", text="not sent"), migration="m", registry=REGISTRY, mark_in="nowhere"
        )
        await files.update(target_id, files.encode_update(wanted, {"model"}), nothing)
        await files.describe(target_id, "told")
        found = await files.fetch(target_id)
    assert (found.text, found.model, found.description) == ("kept", "new", "told")
    assert read_mark(found.metadata, None) is not None


@BOTH
@pytest.mark.parametrize("slug", [None, "pp-1"])
async def test_what_is_changed_in_place_keeps_where_it_came_from(tmp_path: Path, where: str, slug: str | None) -> None:
    path = tmp_path / where
    await export(path, prompt(**WHOLE | {"slug": slug}))
    (file,) = [path] if path.is_file() else path.iterdir()
    before = file.read_bytes()
    for text in ("changed", "Hello {{name}}"):
        async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
            (row,) = await rows(files)
            there = await files.fetch(row.id)
            wanted = make_replica(
                there, replace(there, text=text), migration="other", registry=REGISTRY, mark_in="nowhere"
            )
            await files.update(row.id, files.encode_update(wanted, None), nothing)
        assert (file.read_bytes() == before) is (text != "changed")


@BOTH
async def test_what_is_deleted_is_gone_now_and_later(tmp_path: Path, where: str) -> None:
    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
        first, second = await put(files, prompt("a"), prompt("b"))
        await files.delete(first)
        with pytest.raises(Gone):
            await files.delete(first)
        with pytest.raises(Gone):
            await files.fetch(first)
    assert await ids(tmp_path / where) == [second]


@BOTH
async def test_a_create_whose_answer_was_lost_may_be_repeated(tmp_path: Path, where: str) -> None:
    once = await export(tmp_path / where, prompt())
    assert await export(tmp_path / where, prompt()) == once
    assert await ids(tmp_path / where) == once


@BOTH
async def test_what_belongs_to_another_migration_is_not_replaced(tmp_path: Path, where: str) -> None:
    path = tmp_path / where
    made = [(await export(path, prompt(), migration=migration))[0] for migration in ("a", "b", "c")]
    assert len(set(made)) == 3
    assert sorted(await ids(path)) == sorted(made)


@BOTH
async def test_only_one_run_writes(tmp_path: Path, where: str) -> None:
    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS):
        with pytest.raises(Stop, match="another run") as caught:
            async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS):
                pass
        assert (caught.value.exit_code, caught.value.reason) == (75, "ledger_in_use")
        assert await ids(tmp_path / where) == []
    assert await export(tmp_path / where) == []


@BOTH
async def test_labels_are_refused_and_publishing_is_nothing(tmp_path: Path, where: str) -> None:
    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
        (target_id,) = await put(files, prompt())
        await files.publish(target_id, "1")
        for call in (files.label(target_id, "1", "l"), files.create_label("prod"), files.retract(target_id, "1")):
            with pytest.raises(Rejected, match="files"):
                await call
        assert (await files.catalog({"collections"})).words == {"collections", "providers", "partials"}


@BOTH
async def test_the_write_test_leaves_nothing(tmp_path: Path, where: str) -> None:
    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
        assert [finding.level async for finding in files.write_test("c1")] == ["ok"]
        assert await rows(files) == []


@BOTH
async def test_a_prompt_that_files_cannot_hold_is_refused_before_anything_is_written(
    tmp_path: Path, where: str
) -> None:
    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
        with pytest.raises(Rejected, match="without loss") as caught:
            files.encode(replica_of(prompt(text="secret \ud83d\ude00", parameters={"secret": float("inf")})))
    assert "secret" not in str(caught.value)


@BOTH
async def test_a_whole_run_and_a_second_one_that_has_nothing_to_do(tmp_path: Path, ledger: Path, where: str) -> None:
    path = tmp_path / where
    source = memory(*(prompt(f"p{number}", updated_at="2026-01-01T00:00:00.000Z") for number in range(30)))
    written = []
    for _ in range(2):
        async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
            ran = await run(job_of(source, files, rules=()), ledger)
        assert ran.stop is None
        assert len(ran.survey.tasks) == 30
        assert set(ran.statuses.values()) <= {"created", "unchanged"}
        written.append({"": path.read_bytes()} if path.is_file() else contents(path))
    assert written[0] == written[1]
    assert len(await ids(path)) == 30


@BOTH
async def test_a_run_with_a_lost_ledger_finds_its_replicas(tmp_path: Path, where: str) -> None:
    source = memory(*(prompt(f"p{number}") for number in range(10)))
    for number in range(2):
        async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
            ran = await run(job_of(source, files, rules=()), tmp_path / f"{number}.ledger")
        assert ran.stop is None
        assert len(ran.survey.tasks) == 10
    assert len(await ids(tmp_path / where)) == 10


@BOTH
async def test_a_source_that_changed_changes_its_file(tmp_path: Path, ledger: Path, where: str) -> None:
    source = memory(prompt("a"), prompt("b"))
    for day, text in (("02", "one"), ("03", "two")):
        source.prompts["a"] = replace(source.prompts["a"], text=text, updated_at=f"2026-01-{day}T00:00:00.000Z")
        async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
            ran = await run(job_of(source, files, rules=()), ledger)
            assert ran.stop is None
            found = {row.name: await files.fetch(row.id) for row in await rows(files)}
        assert (found["prompt-a"].text, len(found)) == (text, 2)


@BOTH
async def test_what_was_exported_is_restored(tmp_path: Path, where: str) -> None:
    originals = [prompt(f"p{number}", text=f"one\r\n{number}\0") for number in range(5)]
    await export(tmp_path / where, *originals)
    target = memory()
    async with open_files(tmp_path / where, name="source", writes=False, dialects=DIALECTS) as files:
        job = job_of(files, target, rules=(), migration="back")
        assert (await run(job, tmp_path / "ledger")).stop is None
    assert sorted(one.text for one in target.prompts.values()) == [one.text for one in originals]


# ---- a folder --------------------------------------------------------------------------------------------------------


async def test_the_same_prompts_exported_twice_are_the_same_bytes(tmp_path: Path) -> None:
    sources = [prompt(f"p{number}", **WHOLE) for number in range(5)]
    later = [replace(one, updated_at="2027-01-01T00:00:00.000Z") for one in reversed(sources)]
    await export(tmp_path / "a", *sources)
    await export(tmp_path / "b", *later)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(contents(tmp_path / "a")) == [f"prompt-p{number}.md" for number in range(5)]


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
async def test_real_prompts_are_read_from_files_byte_for_byte_and_exported_twice_are_the_same(tmp_path: Path) -> None:
    told = [json.loads(line) for line in DATA.read_text(encoding="utf-8").strip().split("\n")]
    texts = [one["template"] if one["kind"] == "text" else json.dumps(one["messages"]) for one in told]
    sources = [
        prompt(f"p{number}", name=one["name"], text=text, parameters=one["parameters"] or {})
        for number, (one, text) in enumerate(zip(told, texts, strict=True))
    ]
    made = await export(tmp_path / "a", *sources)
    assert len({one.lower() for one in made}) == len(sources)
    assert await export(tmp_path / "b", *sources) == made
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    async with open_files(tmp_path / "a", name="source", writes=False, dialects=DIALECTS) as files:
        found = [(await files.fetch(prompt_id)).text for prompt_id in made]
    assert [text.encode() for text in found] == [text.encode() for text in texts]


async def test_names_that_meet_on_a_disk_without_case_are_kept_apart(tmp_path: Path) -> None:
    names = ["Support", "support", "SUPPORT", "a/b", "a b", "../../up", "con"]
    made = await export(tmp_path / "f", *(prompt(name, name=name) for name in names))
    assert len({one.lower() for one in made}) == len(names)
    assert made[1] == "support"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert len(list((tmp_path / "f").glob("*.md"))) == len(names)


async def test_a_file_of_that_name_in_another_case_is_not_met(tmp_path: Path) -> None:
    (tmp_path / "Support.md").write_bytes(to_markdown(Document(prompt=prompt(name="Support"))))
    (made,) = await export(tmp_path, prompt(name="support"))
    assert made.startswith("support~")


@pytest.mark.parametrize(
    "prompt_id",
    ["../x", "a/b", "a/../../x", "a/", "/x", "a//b", "a/.b", "..", ".", "", ".x", "a\0b", "a\\b", "x" * 400, "\ud83d"],
)
async def test_no_id_leads_out_of_the_folder(tmp_path: Path, prompt_id: str) -> None:
    (tmp_path / "x.md").write_text("---\nname: x\n---\n")
    async with open_files(tmp_path / "f", name="target", writes=True, dialects=DIALECTS) as files:
        with pytest.raises(Gone):
            await files.fetch(prompt_id)
        with pytest.raises(Gone):
            await files.delete(prompt_id)
    assert (tmp_path / "x.md").exists()


async def test_a_link_that_leads_out_is_refused_by_name(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside.md", tmp_path / "f"
    outside.write_text("---\nname: x\n---\nsecret")
    folder.mkdir()
    async with open_files(folder, name="target", writes=True, dialects=DIALECTS) as files:
        (folder / "prompt-p1.md").symlink_to(outside)
        with pytest.raises(Rejected, match=r"prompt-p1\.md is a link"):
            await files.fetch("prompt-p1")
        with pytest.raises(Stop, match=r"prompt-p1\.md is a link"):
            await rows(files)
        assert isinstance(
            await files.update("prompt-p1", files.encode_update(replica_of(prompt()), None), nothing), Failed
        )
        assert (await put(files, prompt()))[0].startswith("prompt-p1~")
    assert "prompt-p1.md is a link" in await problems(folder)
    assert "prompt-p1.md is a link" in (await failing(folder))["prompt-p1.md"]
    assert outside.read_text().endswith("secret")


async def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    await export(tmp_path, prompt())
    (tmp_path / "also.md").symlink_to("prompt-p1.md")
    async with open_files(tmp_path, name="target", writes=True, dialects=DIALECTS) as files:
        await files.describe("also", "changed")
        assert (await files.fetch("prompt-p1")).description == "changed"
    assert (tmp_path / "also.md").is_symlink()


async def test_files_that_are_no_prompts_are_named_with_their_lines(tmp_path: Path) -> None:
    await export(tmp_path, prompt())
    (tmp_path / "README.md").write_text("# What this is\n")
    (tmp_path / "notes.txt").write_text("secret")
    (tmp_path / ".hidden.md").write_text("secret")
    assert await ids(tmp_path) == ["prompt-p1"]
    (tmp_path / "a.md").write_text("# secret\n")
    (tmp_path / "b.md").write_text("---\nname: b\nmodle: secret\n---\n")
    (tmp_path / "c.md").symlink_to("nowhere")
    os.mkfifo(tmp_path / "d.md")
    told = await problems(tmp_path)
    places = ["a.md:1", "b.md:3", "c.md", "d.md"]
    assert [line.partition(": ")[0].removeprefix(f"{tmp_path}/") for line in told.split("\n")] == places
    assert "secret" not in told
    failed = await failing(tmp_path)
    assert sorted(failed) == ["a.md", "b.md", "c.md", "d.md"]
    assert sorted(message.partition(": ")[0] for message in failed.values()) == places


async def test_a_file_whose_name_is_not_utf_8_is_named(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.md")).write_text("---\nname: x\n---\n")
    assert b"not UTF-8" in (await problems(tmp_path)).encode()
    assert "not UTF-8" in (await failing(tmp_path))["'\\udcff.md'"]


async def test_a_file_that_an_edit_breaks_meanwhile_stops_the_listing(tmp_path: Path) -> None:
    await export(tmp_path, prompt())
    async with open_files(tmp_path, name="target", writes=False, dialects=DIALECTS) as files:
        (tmp_path / "prompt-p1.md").write_text("secret")
        with pytest.raises(Stop, match=r"prompt-p1\.md:1") as caught:
            await rows(files)
        assert "secret" not in str(caught.value)
        with pytest.raises(Rejected, match=r"prompt-p1\.md:1"):
            await files.fetch("prompt-p1")


async def test_an_edited_file_is_listed_as_edited(tmp_path: Path) -> None:
    await export(tmp_path, prompt())
    async with open_files(tmp_path, name="source", writes=False, dialects=DIALECTS) as files:
        (before,) = await rows(files)
        (tmp_path / "prompt-p1.md").write_text("---\nname: another\n---\nedited")
        os.utime(tmp_path / "prompt-p1.md", ns=(0, 1_700_000_000_123_999_999))
        (after,) = await rows(files)
        assert (before.name, after.name, after.updated_at) == ("prompt-p1", "another", "2023-11-14T22:13:20.123Z")
        assert (await files.fetch("prompt-p1")).updated_at == after.updated_at


async def test_the_newest_file_is_listed_first(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"{number}.md"
        path.write_text(f"---\nname: n{number}\n---\n")
        os.utime(path, (0, 10 - number))
    assert await ids(tmp_path) == ["0", "1", "2"]


async def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    (tmp_path / "g.jsonl").mkdir()
    assert "is no folder" in await problems(tmp_path / "f", writes=True)
    assert "is a folder" in await problems(tmp_path / "g.jsonl", writes=True)


# ---- a file of lines -------------------------------------------------------------------------------------------------


async def test_lines_are_sorted_by_source_id_when_the_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    await export(path, *(prompt(f"p{number}", **WHOLE) for number in (3, 1, 2)))
    told = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [line["id"] for line in told] == ["p1", "p2", "p3"]
    assert all(line["updated_at"] == WHOLE["updated_at"] and len(line["digest"]) == 64 for line in told)
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.jsonl"]


async def test_lines_are_sorted_after_an_error_too(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"

    async def broken_run() -> None:
        async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
            await put(files, prompt("b"), prompt("a"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await broken_run()
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["a", "b"]


async def test_an_update_leaves_one_line(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
        await put(files, prompt("a"), prompt("b"))
        await files.update("a", files.encode_update(replica_of(prompt("a", text="new")), None), nothing)
        assert len(path.read_bytes().splitlines()) == 3
        half = path.read_bytes()
    told = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(line["id"], line["string"], "replaces" in line) for line in told] == [
        ("a", "new", False),
        ("b", "Hello {{name}}", False),
    ]
    whole = path.read_bytes()
    path.write_bytes(half)  # as a killed run leaves it
    await export(path)
    assert path.read_bytes() == whole


def lines_of(*prompts: Prompt) -> bytes:
    return b"".join(to_line(Document(prompt=one)) for one in prompts)


@pytest.mark.parametrize("cut", [1, 5, 60])
async def test_a_torn_last_line_is_cut_by_who_writes_and_left_by_who_reads(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[dict[str, Any]] = []
    monkeypatch.setattr(log, "warning", lambda event, **fields: logs.append({"event": event, **fields}))
    path, whole = tmp_path / "p.jsonl", lines_of(prompt("a"))
    path.write_bytes(whole + lines_of(prompt("b"))[:cut])
    torn = path.read_bytes()
    assert await ids(path) == ["a"]
    assert [(one["event"], one["line"], one["cut"]) for one in logs] == [("files.torn", 2, False)]
    assert path.read_bytes() == torn
    await export(path)
    assert path.read_bytes() == whole


async def test_a_last_line_without_its_end_is_no_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(lines_of(prompt("c"), prompt("b")).rstrip())
    assert await ids(path) == ["b", "c"]
    await export(path, prompt("a"))
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["a", "b", "c"]


async def test_a_file_that_is_not_ours_is_never_cut(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"secret notes")
    told = await problems(path, writes=True)
    assert "p.jsonl:1: is no JSON" in told
    assert path.read_bytes() == b"secret notes"


async def test_lines_that_cannot_be_taken_are_all_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    edited = lines_of(prompt("b")).replace(b"Hello", b"Bye")
    path.write_bytes(lines_of(prompt("a")) + edited + b"\n[]\n" + lines_of(prompt("a"), prompt("c")) + b'{"id":"to')
    before = path.read_bytes()
    told = [line.removeprefix(f"{path}:") for line in (await problems(path, writes=True)).split("\n")]
    assert path.read_bytes() == before
    assert [line.partition(":")[0] for line in told] == ["2", "4", "5"]
    assert "take out `digest`" in told[0]
    assert "line 1" in told[2]


BAD: dict[bytes, str] = {
    b'{"id": "x1", "name": "twice", "string": "", "string": ""}': "twice",
    b'{"id": "x2", "name": "no number", "string": "", "parameters": {"a": 1e%b}}' % (b"9" * 5000): "no number",
    b'{"id": "x3", "name": "not utf-8", "string": "\xff"}': "not utf-8",
    b'{"id": "x4", "name": "a key", "strnig": ""}': "a key",
    b'{"id": "x5", "name": "comma", "string": "",}': "comma",
    b"secret": "p.jsonl:7",
}


async def test_a_line_that_is_no_prompt_fails_by_name_and_the_others_go(tmp_path: Path, ledger: Path) -> None:
    path, target = tmp_path / "p.jsonl", memory()
    path.write_bytes(
        lines_of(prompt("a")) + b"".join(line + b"\n" for line in BAD) + b"\n" + lines_of(prompt("b")).rstrip()
    )
    told = await failing(path)
    assert sorted(told) == sorted(BAD.values())
    for number, name in enumerate(BAD.values(), start=2):
        assert told[name].startswith(f"p.jsonl:{number}: ")
        assert "secret" not in told[name]
    assert "p.jsonl:2" in await problems(path)
    async with open_files(path, name="source", writes=False, dialects=DIALECTS) as files:
        assert (await files.catalog(set())).notes == [
            "lines that are no prompts, and fail by name (6): "
            "p.jsonl:2, p.jsonl:3, p.jsonl:4, p.jsonl:5, p.jsonl:6 and 1 more"
        ]
        ran = await run(job_of(files, target, rules=()), ledger)
    assert ran.stop is None
    assert sorted(one.name for one in target.prompts.values()) == ["prompt-a", "prompt-b"]
    assert ran.status("x2") == "failed"


async def test_lines_that_are_no_prompts_stay_as_they_are_when_the_others_are_changed(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in BAD) + lines_of(prompt("b"), prompt("a")))
    async with open_files(path, name="source", writes=True, dialects=DIALECTS) as files:
        await files.describe("a", "changed")
    assert set(path.read_bytes().splitlines()) >= set(BAD)
    assert len(path.read_bytes().splitlines()) == len(BAD) + 2
    assert len(await failing(path)) == len(BAD)


@pytest.mark.parametrize("name", ["source", "target"])
async def test_an_id_twice_is_an_error_that_names_both_lines(tmp_path: Path, name: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(lines_of(prompt("a"), prompt("b"), prompt("a")))
    assert f"{path}:3: has the id of line 1" in await problems(path, name=name)
    path.write_bytes(b'{"id": "a", "name": "x", "n": 1}\n' + lines_of(prompt("a")))
    assert f"{path}:" in await problems(path, name=name)


async def test_a_byte_order_mark_is_no_part_of_a_line(tmp_path: Path) -> None:
    path, mark = tmp_path / "p.jsonl", b"\xef\xbb\xbf"
    path.write_bytes(mark + lines_of(prompt("b")) + b"\r\n" + mark + lines_of(prompt("a")).rstrip())
    assert await ids(path) == ["a", "b"]
    async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
        assert (await files.fetch("b")).text == "Hello {{name}}"
        await files.describe("b", "changed")
        await put(files, prompt("c"))
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["a", "b", "c"]
    path.write_bytes(mark)
    assert await ids(path) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("name", ["source", "target"])
async def test_a_file_of_lines_in_another_encoding_is_refused_whole(tmp_path: Path, encoding: str, name: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(lines_of(prompt("a")).decode().encode(encoding))
    told = await problems(path, name=name)
    assert told.startswith(f"{path}:1: is UTF-")
    assert told.endswith("save it as UTF-8 text")


async def test_a_hand_written_line_without_a_digest_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "name": "n", "string": "Hi {{who}}"}\r\n')
    async with open_files(path, name="source", writes=False, dialects=DIALECTS) as files:
        found = await files.fetch("a")
    assert (found.name, found.text, set(found.variables)) == ("n", "Hi {{who}}", {"who"})


async def test_a_batch_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    await export(tmp_path / "p.jsonl", *(prompt(f"p{number:03}") for number in range(120)))
    assert len(synced) == 3
    assert len(await ids(tmp_path / "p.jsonl")) == 120


# ---- what stops a run ------------------------------------------------------------------------------------------------

CHILD = """
    import asyncio, os, resource, sys
    sys.path[:0] = [{tests!r}, {root!r}]
    from pathlib import Path
    from tests.connectors.test_files import DIALECTS, open_files, prompt, put, rows
    from engine.errors import Stop, Transient
    path = Path({path!r})
"""


def in_child(path: Path, script: str) -> subprocess.CompletedProcess[str]:
    begin = dedent(CHILD).format(tests=str(ROOT / "tests"), root=str(ROOT), path=str(path))
    return subprocess.run(
        [sys.executable, "-c", begin + dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )


KILLED = """
    def die(*_, **__):
        os._exit(9)

    async def main():
        async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
            await put(files, prompt("b"))
            {where} = die
            await put(files, prompt("a"))

    asyncio.run(main())
"""


@pytest.mark.parametrize("where", ["Path.rename", "os.fsync", "os.write"])
async def test_a_run_killed_between_write_and_rename_leaves_whole_files_only(tmp_path: Path, where: str) -> None:
    ran = in_child(tmp_path, KILLED.format(where=where))
    assert ran.returncode == 9, ran.stderr
    assert len(list(tmp_path.iterdir())) == 2, "a temporary file is left over"
    assert await ids(tmp_path) == ["prompt-b"]
    assert await export(tmp_path, prompt("a")) == ["prompt-a"]
    assert sorted(contents(tmp_path)) == ["prompt-a.md", "prompt-b.md"]


@pytest.mark.parametrize("where", ["Path.rename", "os.fdatasync", "os.fchmod"])
async def test_a_killed_run_leaves_lines_that_the_next_one_sorts(tmp_path: Path, where: str) -> None:
    path = tmp_path / "p.jsonl"
    ran = in_child(path, KILLED.format(where=where))
    assert ran.returncode == 9, ran.stderr
    assert sorted(await ids(path)) == ["a", "b"]
    await export(path, prompt("a"))
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()] == ["a", "b"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.jsonl"]


FULL = """
    async def main():
        try:
            async with open_files(path, name="target", writes=True, dialects=DIALECTS) as files:
                await put(files, prompt("b"))
                before = {p.name: p.read_bytes() for p in sorted(path.parent.rglob("*")) if p.is_file()}
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
                try:
                    await put(files, prompt("a", text="x" * 5000))
                finally:
                    after = {p.name: p.read_bytes() for p in sorted(path.parent.rglob("*")) if p.is_file()}
                    print(before == after, len(await rows(files)))
        except Stop as stop:
            print(stop.reason, stop.exit_code, type(stop.__cause__).__name__, stop.next)

    asyncio.run(main())
"""


@BOTH
async def test_a_full_disk_stops_the_run_and_leaves_what_was_there(tmp_path: Path, where: str) -> None:
    ran = in_child(tmp_path / where, FULL)
    told = "disk 75 Transient Make room on the disk, then run the same command again."
    assert ran.stdout.splitlines() == ["True 1", told], ran.stderr
    assert len(await ids(tmp_path / where)) == 1


@BOTH
async def test_when_the_disk_fails_behind_the_write_the_outcome_is_in_doubt(
    tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    async with open_files(tmp_path / where, name="target", writes=True, dialects=DIALECTS) as files:
        with monkeypatch.context() as patch:
            patch.setattr(os, "ftruncate", broken)
            patch.setattr(os, "fdatasync", broken)
            patch.setattr(files_folder, "sync_folder", broken)
            with pytest.raises(Stop) as caught:
                await put(files, prompt())
        assert not isinstance(caught.value.__cause__, Transient)
        assert caught.value.reason == "disk"
    assert len(await ids(tmp_path / where)) == 1


async def test_nothing_is_written_before_the_run_is_told(tmp_path: Path) -> None:
    seen: list[Sequence[str]] = []
    async with open_files(tmp_path, name="target", writes=True, dialects=DIALECTS) as files:

        async def sending() -> None:
            seen.append(os.listdir(tmp_path))

        await files.create([files.encode(replica_of(prompt()))], sending)
    assert seen == [[]]


@pytest.mark.parametrize("where", ["prompts", "prompts.jsonl"])
async def test_a_target_that_is_not_there_yet_is_empty_to_who_only_looks(where: str, tmp_path: Path) -> None:
    async with open_files(tmp_path / where, name="target", writes=False, dialects=DIALECTS) as files:
        assert [page.rows async for page in files.pages()] == [[]]
    assert list(tmp_path.iterdir()) == []
