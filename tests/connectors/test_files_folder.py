"""Folders of prompts as people keep them: subfolders, capitals, links, odd names, and files that are no prompts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from engine.connectors import DIALECTS
from engine.connectors.files.registry import open_files
from engine.connectors.files.store import TEMPORARY
from engine.content.digest import make_replica
from engine.errors import Gone, Rejected
from engine.model import Catalog, Select, Updated
from tests.connectors.test_files import failing, ids, nothing, problems, replica_of, rows
from tests.e2e import promptferry, write_migration
from tests.migrate.test_moved import Move
from tests.workspaces import job_of, memory, run


def written(path: Path, name: str = "x", text: str = "Hi\n", **front: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    more = "".join(f"{key}: {value}\n" for key, value in front.items())
    path.write_text(f"---\nname: {name}\n{more}---\n{text}")


async def catalog(path: Path, name: str = "source") -> Catalog:
    async with open_files(path, name=name, writes=False, dialects=DIALECTS) as files:
        return await files.catalog({"collections"})


async def collections(path: Path) -> dict[str, str | None]:
    """Id -> collection, as the listing has it and as the prompt has it."""
    async with open_files(path, name="source", writes=False, dialects=DIALECTS) as files:
        found = {row.id: row.collection for row in await rows(files)}
        assert {one: (await files.fetch(one)).collection for one in found} == found
        return found


# ---- what is read ----------------------------------------------------------------------------------------------------


async def test_subfolders_are_read_and_are_the_collections(tmp_path: Path) -> None:
    written(tmp_path / "top.md")
    written(tmp_path / "own.md", collection="c1")
    written(tmp_path / "team" / "a.md")
    written(tmp_path / "team" / "same.md", collection="team")
    written(tmp_path / "team" / "other.md", collection="c1")
    written(tmp_path / "team" / "eu" / "a.MD")
    assert await collections(tmp_path) == {
        "top": None,
        "own": "c1",
        "team/a": "team",
        "team/same": "team",
        "team/other": "c1",
        "team/eu/a": "team/eu",
    }
    found = await catalog(tmp_path)
    assert [one.slug for one in found.collections or ()] == ["c1", "team", "team/eu"]
    assert [note for note in found.notes if "another collection" in note] == [
        "files that name another collection than their folder, and what they name counts (1): team/other.md"
    ]
    target = await catalog(tmp_path, "target")
    assert (target.collections, target.notes) == (None, ())


async def test_very_deep_folders_are_read(tmp_path: Path) -> None:
    deep = "/".join(["d"] * 300)
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(300):
            os.mkdir("d", dir_fd=here)
            before, here = here, os.open("d", os.O_RDONLY, dir_fd=here)
            os.close(before)
        file = os.open("x.md", os.O_WRONLY | os.O_CREAT, dir_fd=here)
        os.write(file, b"---\nname: x\n---\n")
        os.close(file)
    finally:
        os.close(here)
    assert await collections(tmp_path) == {f"{deep}/x": deep}


async def test_folders_deeper_than_a_path_can_be_fail_by_name(tmp_path: Path) -> None:
    written(tmp_path / "x.md")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        before, here = here, os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(before)
    os.close(here)
    (told,) = (await failing(tmp_path)).values()
    assert "cannot be looked into (File name too long)" in told
    assert "x" in await ids(tmp_path)
    async with open_files(tmp_path, name="target", writes=True, dialects=DIALECTS) as files:
        assert len(await rows(files)) == 1


ODD = ["a b", "c#", "-x", "a\\b", "\u00e9", "e\u0301", "\U0001f600", "a:b", "100%", "a\nb", "x.md", "con", "'\"", "~"]


async def test_any_name_of_a_file_is_an_id(tmp_path: Path) -> None:
    for number, name in enumerate(ODD):
        written(tmp_path / f"{name}.md", name=f"n{number}")
        written(tmp_path / "in" / name / f"{name}.md", name=f"m{number}")
    found = await collections(tmp_path)
    assert set(found) == {*ODD, *(f"in/{name}/{name}" for name in ODD)}
    async with open_files(tmp_path, name="target", writes=True, dialects=DIALECTS) as files:
        for prompt_id in found:
            await files.describe(prompt_id, "changed")
            await files.delete(prompt_id)
            with pytest.raises(Gone):
                await files.fetch(prompt_id)
        assert await rows(files) == []


async def test_two_files_that_would_have_one_id_are_both_named(tmp_path: Path) -> None:
    written(tmp_path / "team" / "a.md")
    written(tmp_path / "team" / "a.MD")
    for name in ("source", "target"):
        told = await problems(tmp_path, name=name)
        assert told == f"{tmp_path}/team/a.md: has the id of team/a.MD: rename one of them"


# ---- what is passed over ---------------------------------------------------------------------------------------------


async def test_what_is_passed_over_is_counted_and_named(tmp_path: Path) -> None:
    written(tmp_path / "team" / "a.md")
    (tmp_path / "README.md").write_text("# About\n")
    (tmp_path / "team" / "readme.MD").write_text("# About\n")
    for number in range(7):
        (tmp_path / f"{number}.prompt").touch()
    for hidden in (".drafts", ".git"):
        written(tmp_path / hidden / "b.md")
    (tmp_path / ".gitignore").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "team" / "up").symlink_to("..")
    (tmp_path / "odd\n.txt").touch()
    assert await ids(tmp_path) == ["team/a"]
    assert list((await catalog(tmp_path)).notes) == [
        "files passed over, because prompts are files that end in .md (8): "
        "0.prompt, 1.prompt, 2.prompt, 3.prompt, 4.prompt and 3 more",
        "files passed over, because they are hidden (1): .drafts",
        "files passed over, because links to folders are not followed (2): loop, team/up",
        "files passed over, because a README is a prompt only with front matter (2): README.md, team/readme.MD",
    ]
    (tmp_path / "own").symlink_to(tmp_path)
    async with open_files(tmp_path, name="source", writes=False, dialects=DIALECTS) as files:
        await rows(files)
        with pytest.raises(Rejected):
            await files.fetch("nobody/a")


async def test_a_link_that_leads_to_itself_or_nothing_fails_by_name(tmp_path: Path) -> None:
    written(tmp_path / "good.md")
    (tmp_path / "self.md").symlink_to("self.md")
    (tmp_path / "one.md").symlink_to("two.md")
    (tmp_path / "two.md").symlink_to("one.md")
    (tmp_path / "void.md").symlink_to("nothing")
    (tmp_path / "out.md").symlink_to("/etc/hostname")
    told = await failing(tmp_path)
    assert set(told) == {"self.md", "one.md", "two.md", "void.md", "out.md"}
    assert "leads out" in told["out.md"]
    assert "good" in await ids(tmp_path)


async def test_a_folder_that_is_a_link_leads_nowhere(tmp_path: Path) -> None:
    written(tmp_path / "outside" / "secret.md")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "in").symlink_to(tmp_path / "outside")
    async with open_files(tmp_path / "f", name="target", writes=True, dialects=DIALECTS) as files:
        assert await rows(files) == []
        with pytest.raises(Rejected, match="leads out"):
            await files.fetch("in/secret")
        with pytest.raises(Rejected, match="leads out"):
            await files.delete("in/secret")
    assert (tmp_path / "outside" / "secret.md").exists()


async def test_a_folder_that_nobody_may_read_fails_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "good.md")
    written(tmp_path / "shut" / "a.md")
    scandir = os.scandir

    def refusing(path: Path | str) -> object:
        if Path(path).name == "shut":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told = await failing(tmp_path)
    assert told == {"shut/": "shut: cannot be looked into (Permission denied): mend its rights"}
    assert sorted(await ids(tmp_path)) == ["good", "shut/"]
    async with open_files(tmp_path, name="target", writes=True, dialects=DIALECTS) as files:
        assert [row.id for row in await rows(files)] == ["good"]


# ---- what is no prompt -----------------------------------------------------------------------------------------------

BROKEN = {
    "empty.md": (b"", "empty.md:1: is empty"),
    "blank.md": (b"\n \n", "blank.md:1: is empty"),
    "plain.md": (b"# Notes\n", "plain.md:1: is no prompt: it does not begin with front matter"),
    "utf16.md": ("---\nname: x\n---\nHi".encode("utf-16"), "utf16.md:1: is UTF-16"),
    "wide.md": ("---\nname: x\n---\nHi".encode("utf-16-le"), "wide.md:1: is UTF-16"),
    "latin.md": (b"---\nname: x\n---\nHi\n\nna\xefve", "latin.md:6: is not UTF-8"),
    "mac.md": (b"---\rname: x\r---\rHi\r", "mac.md:1: ends its lines with carriage returns alone"),
    "twice.md": (b"---\nname: x\nname: y\n---\n", "twice.md:3: has a key"),
}


async def test_a_file_that_is_no_prompt_fails_by_name_and_the_others_go(tmp_path: Path, ledger: Path) -> None:
    for name, (content, _) in BROKEN.items():
        for folder in (tmp_path / "p", tmp_path / "p" / "sub"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    written(tmp_path / "p" / "good.md", name="good")
    told = await failing(tmp_path / "p")
    assert set(told) == {*BROKEN, *(f"sub/{name}" for name in BROKEN)}
    for name, (_, words) in BROKEN.items():
        assert told[name].startswith(words)
        assert told[f"sub/{name}"].startswith(f"sub/{words}")
    target = memory()
    async with open_files(tmp_path / "p", name="source", writes=False, dialects=DIALECTS) as files:
        ran = await run(job_of(files, target, rules=()), ledger)
    assert ran.stop is None
    assert [one.name for one in target.prompts.values()] == ["good"]
    assert sorted(ran.statuses.values()) == ["created", *["failed"] * 16]


async def test_a_file_that_was_mended_is_taken_up_again(tmp_path: Path, ledger: Path) -> None:
    path, target = tmp_path / "p" / "a.md", memory()
    path.parent.mkdir()
    path.write_text("no prompt")
    statuses = []
    for _ in range(3):
        async with open_files(tmp_path / "p", name="source", writes=False, dialects=DIALECTS) as files:
            ran = await run(job_of(files, target, rules=()), ledger)
        statuses.append(ran.statuses)
        written(path)
    assert statuses == [{"a": "failed"}, {"a": "created"}, {"a": "created"}]
    assert len(target.prompts) == 1


async def test_a_target_minds_what_is_no_prompt_only_where_its_replicas_are(tmp_path: Path) -> None:
    written(tmp_path / "a.md")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.md").write_text("# Notes")
    async with open_files(tmp_path, name="target", writes=True, dialects=DIALECTS) as files:
        assert [row.id for row in await rows(files)] == ["a"]
    (tmp_path / "notes.md").write_text("# Notes")
    assert "notes.md:1" in await problems(tmp_path, writes=True)


# ---- what is written -------------------------------------------------------------------------------------------------


async def test_a_file_in_a_subfolder_is_changed_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "team" / "a.MD"
    written(path)
    written(tmp_path / "team" / "said.md", collection="team")
    (tmp_path / "team" / f"{TEMPORARY}1-1.tmp").touch()
    async with open_files(tmp_path, name="source", writes=True, dialects=DIALECTS) as files:
        for prompt_id in ("team/a", "team/said"):
            there = await files.fetch(prompt_id)
            wanted = make_replica(there, there, migration="m", registry="r", mark_in="nowhere")
            body = files.encode_update(wanted, {"description"})
            before = {file.name: file.read_bytes() for file in path.parent.iterdir()}
            assert await files.update(prompt_id, body, nothing) == Updated(version_id="1")
            assert {file.name: file.read_bytes() for file in path.parent.iterdir()} == before
            await files.describe(prompt_id, "told")
    assert path.read_text() == "---\nname: x\nversion_description: told\n---\nHi\n"
    assert "collection: team" in (tmp_path / "team" / "said.md").read_text()
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.MD", "said.md"]


async def test_replicas_stay_in_the_folder_itself_whatever_their_source_lies_in(tmp_path: Path) -> None:
    move = Move(tmp_path, target_path="out")
    for folder in ("a", "b"):
        written(move.source / folder / "greet.md", name="greet", text=folder)
    for outcome in ("created", "unchanged"):
        assert await move.did() == {outcome: 2}
        assert sorted((await collections(move.target)).values(), key=str) == ["a", "b"]
        assert len(list(move.target.iterdir())) == 2


async def test_prompts_are_selected_by_the_folder_that_they_lie_in(tmp_path: Path, ledger: Path) -> None:
    for name in ("a/x.md", "a/b/y.md", "z.md"):
        written(tmp_path / "p" / name, name=name)
    async with open_files(tmp_path / "p", name="source", writes=False, dialects=DIALECTS) as files:
        job = job_of(files, memory(), rules=(), select=Select(collections=("a/b",)))
        assert set((await run(job, ledger)).statuses) == {"a/b/y"}


def test_check_inventory_plan_and_run_say_what_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path / "p" / "team" / "a.md")
    (tmp_path / "p" / "b.prompt").touch()
    (tmp_path / "p" / "c.md").write_text("--- user ---\nHi")
    written(tmp_path / "p" / "d.md", name="d", text="--- system ---\nBe kind\n--- user ---\nHi\n")
    file = {"kind": "files", "path": "p"}
    path = write_migration(tmp_path, "", source=file, target={"kind": "files", "path": "out.jsonl"})
    words = ("(1): b.prompt", "(1): c.md:1", "write `chat: spaced`", "(1): d.md:4")
    for command in ("check", "inventory", "plan", "run"):
        ended = promptferry(command, path, cwd=tmp_path)
        assert [word for word in words if word not in ended.out] == [], command
        assert "Traceback" not in ended.err
    assert json.loads(ended.out)["this_run"]["failed"] == 1
    checked = promptferry("check", path, cwd=tmp_path)
    assert (checked.code, "c.md:1: is no prompt" in checked.out) == (4, True)


def test_a_collection_that_is_no_folder_is_refused_with_the_nearest(tmp_path: Path) -> None:
    written(tmp_path / "p" / "support" / "a.md")
    path = write_migration(
        tmp_path,
        "",
        source={"kind": "files", "path": "p"},
        target={"kind": "files", "path": "out.jsonl"},
        select={"collections": ["suport"]},
    )
    ended = promptferry("check", path, cwd=tmp_path)
    assert (ended.code, "did you mean 'support'" in ended.out) == (4, True)


async def test_an_update_in_place_of_a_folder_with_a_bad_file_changes_the_others(tmp_path: Path, ledger: Path) -> None:
    written(tmp_path / "p" / "a.md", model="old")
    (tmp_path / "p" / "b.md").write_text("no prompt")
    async with open_files(tmp_path / "p", name="source", writes=True, dialects=DIALECTS) as files:
        there = await files.fetch("a")
        body = files.encode_update(replica_of(there), None)
        assert await files.update("a", body, nothing) == Updated(version_id="1")
        assert "b" in {row.id for row in await rows(files)}
    assert (tmp_path / "p" / "b.md").read_text() == "no prompt"
