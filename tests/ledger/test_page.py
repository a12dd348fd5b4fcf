"""engine/ledger/README.md: it names every field of every kind of line, and its `jq` lines run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import pytest

from engine.config import load_migration
from engine.content.rewrite import Rewritten
from engine.content.shard import Shard
from engine.http.limiter import RateLimiter
from engine.ledger.file import entries as lines_of
from engine.ledger.lines import RESERVED
from engine.ledger.merge import merge
from engine.ledger.sink import Sink
from engine.migrate import entries
from engine.migrate.task import Prepared
from engine.model import Completion, Created, Entry, Failed, Mark, Part, Prompt, Replica, Row
from engine.run import run_migration
from engine.run.after import rollback_migration, verify_migration
from engine.session import VerbOptions
from engine.session.pace import Pace

PAGE = (Path(__file__).parents[2] / "engine" / "ledger" / "README.md").read_text(encoding="utf-8")
JQ = re.findall(r"^jq .*$", PAGE, flags=re.MULTILINE)
LEDGER = "ledgers/demo.jsonl"


def prompt(name: str, text: str) -> str:
    return f"---\nname: {name}\nmodel: old\n---\n{text}\n"


async def migrated(folder: Path) -> Path:
    """A ledger of some runs from files to files, with a line of every kind."""
    source, target = folder / "prompts", folder / "replicas"
    source.mkdir()
    for name in ("greeting", "farewell", "apology"):
        (source / f"{name}.md").write_text(prompt(name, f"Hello from {name}"))
    (source / "broken.md").write_text("no front matter\n")
    file = folder / "migration.yaml"
    ends = {kind: {"kind": "files", "path": path.name} for kind, path in (("source", source), ("target", target))}
    file.write_text(
        json.dumps({"name": "demo", **ends, "rewrite": {"name": "{name}", "model": "new"}, "ledger": LEDGER})
    )
    migration = load_migration(file)
    await run_migration(migration)
    (source / "greeting.md").write_text(prompt("greeting", "Hello again"))
    (source / "farewell.md").rename(source / "bye.md")
    await run_migration(migration)
    (target / "apology.md").write_text((target / "apology.md").read_text().replace("Hello", "Sorry"))
    await verify_migration(migration, VerbOptions())
    (source / "apology.md").write_text(prompt("apology", "Another text"))
    await run_migration(migration)
    await rollback_migration(migration, VerbOptions())
    sink = Sink.open(migration.ledger, run="by hand")
    try:
        async with sink:
            await sink.record(*others(), paced())
    finally:
        sink.close()
    return migration.ledger


async def merged(folder: Path) -> Path:
    """The same migration by a shard, and what is made of its ledger."""
    shard = load_migration(folder / "migration.yaml").of_shard(Shard(0, 1), folder / "shard.jsonl")
    await run_migration(shard)
    merge(folder / "all.jsonl", [shard.ledger], run="merge", now=0.0)
    return folder / "all.jsonl"


def paced() -> Entry:
    """What only a run that takes longer comes to."""
    source, target = (RateLimiter(rate=None, concurrency=1) for _ in range(2))
    return Pace(source, target).entry()


def others() -> list[Entry]:
    """What files never come to."""
    row = Row(id="p", name="p")
    origin, now = entries.origin_of(row, None), 1_795_176_000.0
    mark = Mark(migration="demo", key="k", source_id="p", source_digest="a" * 64, replica_digest="b" * 64)
    prompt = Prompt(id="p", name="p", text="t")
    rewritten = Rewritten(source=prompt, prompt=prompt, losses=(), notes=(), missing=())
    prepared = Prepared(replica=Replica(source=prompt, prompt=prompt, mark=mark), body=b"", rewritten=rewritten)
    called = Completion(how="plain", answered=True, seconds=0.1)
    return [
        entries.adopted(origin, row, prompt, row, mark, now=now, pending=True),
        entries.of(origin, prepared, Created(target_id="t", version="v-1"), now=now, seen={}),
        entries.version(origin, "t", "1", "2"),
        entries.finished(origin, "t", None, now=now),
        entries.unchanged(origin, source_updated_at=None, target_updated_at=None, mark=mark, edited=True),
        entries.skipped(origin, "gone", op="update"),
        entries.conflict(origin, "exists", "t", op="update"),
        entries.failed(origin, "fetch", Failed(error="e", message="m"), entries.seen(None, None, now), op="update"),
        *parts(),
        entries.verified(origin, "t", "differs", ["string"], completions=[asdict(called)]),
        entries.answers({"same": 1}),
        entries.published(origin, "t", "published", before="1", version="2"),
        entries.rolled_back(
            origin, "t", "restored", undone=1, source_digest="", replica_digest="", source_updated_at=None
        ),
        Entry(
            "unknown",
            {**entries.origin_of(Row(id="q", name="q"), None), **entries.UPDATE, "stage": "update", "error": "e"},
        ),
    ]


def parts() -> list[Entry]:
    """What files do not have: a partial that is made and taken back."""
    part = Part(what="partial", id="s", slug="s", name="Tone", text="t", version="2")
    made = Created(target_id="t", target_slug="tone")
    return [entries.part_made(part, part, "k", made), entries.part_unmade(part.key, "t", "deleted")]


def told() -> dict[str, set[str]]:
    """Kind -> the fields that the page has for it, but for those of every line about a prompt."""
    found = {}
    for section in PAGE.split("\n### ")[1:]:
        section = section.split("\n## ")[0]
        head, _, body = section.partition("\n")
        cells = "\n".join(row.split("|")[1] for row in body.split("\n") if row.startswith("| "))
        prose = "\n".join(row for row in body.split("\n") if not row.startswith("|"))
        kind = head.split("`")[1]
        found[kind] = set(re.findall(r"`(\w+)`", cells + prose)) - {"created"}
    found["updated"] |= found["created"]
    return found


def test_the_page_has_what_the_ledger_puts_into_each_line() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.split("## Kinds")[0], flags=re.MULTILINE)) == RESERVED


async def test_the_page_has_the_fields_that_lines_have(tmp_path: Path) -> None:
    seen: dict[str, set[str]] = defaultdict(set)
    for line in chain(lines_of(await migrated(tmp_path)), lines_of(await merged(tmp_path))):
        about = {"source_id", "source_name", "source_collection"} if "source_id" in line else set()
        if about and line["kind"] not in ("created", "updated"):
            about |= {"source_slug", "source_collection_id"}
        seen[line["kind"]] |= line.keys() - RESERVED - about
    page = told()
    assert seen.keys() == page.keys()
    for kind, fields in seen.items():
        assert fields <= page[kind], kind
        if kind != "finished":  # of a whole history it says more
            assert page[kind] - fields <= ({"pending"} if kind == "updated" else set()), kind  # files have no labels


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", "-c", line], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed (the Debian package jq)")
async def test_the_jq_lines_of_the_page_run(tmp_path: Path) -> None:
    await migrated(tmp_path)
    assert len(JQ) > 5
    said = {}
    for line in JQ:
        done = shell(line, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), line
        assert done.stdout, line
        said[line] = done.stdout
    by_start = {line.partition(")")[0]: out for line, out in said.items()}
    assert "broken.md\tfetch\tnot_a_prompt" in by_start['jq -r \'select(.kind == "failed"']
    assert any(out == "q\n" for out in said.values())  # the one in doubt
    assert any("apology\tdiffers\tstring" in out for out in said.values())
