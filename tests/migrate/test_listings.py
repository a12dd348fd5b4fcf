"""Listings that do not tell all, on a real socket: what is read for them, how much at once, and that they say so."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from engine import load_migration, run_migration
from engine.run import RunOptions
from engine.sandbox import ConductorQuirks, SandboxOptions
from tests.e2e import lines, promptferry, served, write_migration
from tests.raw_server import RawServer, answer
from tests.routes import KEY_ID, Conductor

COUNT = 200


def definition(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "slug": f"pp-{number}",
        "name": f"prompt {number}",
        "collection_id": "c1",
        "string": f"Hello {{{{name}}}}, this is {number}",
        "parameters": {"temperature": 1},
        "model": "claude-3-7" if number % 2 else "gpt-4o",
        "virtual_key": "v1",
        "prompt_version": 1,
        "created_at": f"2026-01-01T00:{number // 60:02}:{number % 60:02}.000Z",
        "last_updated_at": "2026-01-02T00:00:00.000Z",
        **fields,
    }


class Registry:
    """A Portkey whose rows leave out `silent`; a retrieve of `refused` is answered with 403."""

    def __init__(self, count: int, *, silent: tuple[str, ...] = (), refused: tuple[str, ...] = ()) -> None:
        self.prompts = {one["id"]: one for one in (definition(number) for number in range(count))}
        self.silent, self.refused = silent, refused
        self.latency = 0.0
        self.retrieved: list[str] = []
        self.busy = self.most = 0
        self.steps: list[str] = []
        self.server = RawServer(self._step)

    async def _step(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        request = self.server.received[-1]
        path = request.target.partition("?")[0]
        self.busy += 1
        self.most = max(self.most, self.busy)
        await asyncio.sleep(self.latency)
        self.busy -= 1
        status, value = self._answer(request.method, path, request.body)
        return await answer(status, json.dumps(value).encode())(reader, writer)

    def _row(self, prompt: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in prompt.items() if name not in ("string", *self.silent)}

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if path == "/prompts" and method == "POST":
            made = {**json.loads(body), "id": f"r{len(self.prompts)}", "prompt_version": 1}
            self.prompts[made["id"]] = {**definition(0), **made}
            return 200, {"id": made["id"], "slug": made["id"], "version_id": "v"}
        if path == "/prompts":
            rows = [self._row(one) for one in reversed(self.prompts.values())]
            return 200, {"object": "list", "total": len(rows), "data": rows}
        if path.startswith("/prompts/"):
            name = path.removeprefix("/prompts/")
            self.retrieved.append(name)
            if name in self.refused:
                return 403, {"error_code": "AB03", "message": "not this one"}
            return (200, self.prompts[name]) if name in self.prompts else (404, {})
        return 200, {"total": 1, "data": [{"id": "c1", "slug": "support", "name": "Support"}]}


def migration(folder: Path, server: RawServer, **parts: Any) -> Path:
    limits = {"rate": 2000, "concurrency": 32, "settle": "0.1s", "timeout": 5}
    select = {"models": ["claude*"]}
    return write_migration(folder, server.url, **{"select": select, "limits": limits, "name": "silent", **parts})


async def ask(path: Path, *arguments: str) -> Any:
    """The command in a process of its own, while the registry here answers."""
    command, *flags = arguments
    return await asyncio.to_thread(promptferry, command, path, *flags, cwd=path.parent, env={"KEY": "key-0123456789"})


async def test_a_listing_without_models_is_read_and_every_command_says_so(tmp_path: Path) -> None:
    registry = Registry(8, silent=("model",))
    async with registry.server:
        path = migration(tmp_path, registry.server)
        inventory = (await ask(path, "inventory", "--json")).json
        assert (inventory["listed"], inventory["selected"]) == (8, 4)
        assert {one["name"]: one["listed"] for one in inventory["models"]} == {"claude-3-7": 4, "gpt-4o": 4}
        assert "8 prompts" in inventory["notes"][0]
        text = (await ask(path, "inventory")).out
        assert f"note: {inventory['notes'][0]}" in text
        assert Counter(registry.retrieved) == Counter({f"p{number}": 2 for number in range(8)})
        assert (await ask(path, "inventory", "--expect-none", "gpt*")).code == 3
        assert (await ask(path, "inventory", "--expect-none", "o1*")).code == 0
        plan = (await ask(path, "plan", "--json")).json
        assert (plan["counts"]["selected"], plan["counts"]["create"]) == (4, 4)
        assert plan["notes"][0] == inventory["notes"][0]
        assert "takes 4 of 8 prompts" in (await ask(path, "check")).out
        summary = (await ask(path, "run")).summary
        assert (summary["exit_code"], summary["counts"]["created"]) == (0, 4)
        assert summary["notes"][0] == inventory["notes"][0]


async def test_a_near_miss_is_found_though_its_row_has_no_model(tmp_path: Path) -> None:
    registry = Registry(4, silent=("model",))
    registry.prompts["p1"]["model"] = "us.anthropic.claude-3-7"
    async with registry.server:
        inventory = (await ask(migration(tmp_path, registry.server), "inventory", "--json")).json
    assert (inventory["selected"], inventory["near_misses"]) == (1, ["us.anthropic.claude-3-7"])


async def test_what_cannot_be_read_is_named_and_never_taken_for_gone(tmp_path: Path) -> None:
    registry = Registry(8, silent=("model",), refused=("p3", "p4"))
    async with registry.server:
        path = migration(tmp_path, registry.server)
        found = await ask(path, "inventory", "--json", "--expect-none", "o1*")
        assert (found.code, found.json["selected"], sorted(found.json["unread"])) == (3, 5, ["prompt 3", "prompt 4"])
        text = (await ask(path, "inventory", "--expect-none", "o1*")).out
        assert "prompt 3" in text
        assert "(not known) (2)" in text
        plan = (await ask(path, "plan", "--json")).json
        wrong = {one["name"] for one in plan["prompts"] if one["problem"]}
        assert (wrong, plan["counts"]["create"]) == ({"prompt 3", "prompt 4"}, 5)
        summary = (await ask(path, "run")).summary
        assert (summary["exit_code"], summary["counts"]["created"], summary["counts"]["failed"]) == (1, 3, 2)
    failed = [line for line in lines(tmp_path / "ledger.jsonl") if line["kind"] == "failed"]
    assert {(line["source_name"], line["stage"], line["error"], line["retriable"]) for line in failed} == {
        ("prompt 3", "fetch", "forbidden", True),
        ("prompt 4", "fetch", "forbidden", True),
    }


async def test_unchanged_prompts_are_read_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred that need nothing, at concurrency 32."""
    monkeypatch.setenv("KEY", "key-0123456789")
    registry = Registry(COUNT)
    async with registry.server:
        path = migration(tmp_path, registry.server, select={"names": ["prompt *", "!*-replica"]})
        first = await run_migration(load_migration(path))
        assert first["counts"]["created"] == COUNT
        registry.most, registry.latency = 0, 0.02
        again = migration(
            tmp_path, registry.server, select={"names": ["prompt *", "!*-replica"]}, allow_loss=["other_rules"]
        )
        summary = await run_migration(load_migration(again), RunOptions())
    assert (summary["counts"]["unchanged"], summary["requests"]["writes"]) == (COUNT, 0)
    assert registry.most > 8


@pytest.mark.parametrize("tags", [True, False])
def test_a_cluster_that_lists_no_tags_is_asked_for_them(tags: bool, tmp_path: Path) -> None:
    """The collection of a prompt at Conductor is a tag."""
    with served(SandboxOptions(conductor=ConductorQuirks(tags_in_prompt=tags))) as registry:
        cluster = Conductor(registry)
        cluster.add("one", "Hello", tags={"collection": "sales"})
        cluster.add("other", "Hello", tags={"collection": "support"})
        keys = {"KEY_ID": KEY_ID, "KEY_SECRET": registry.api_key}
        path = write_migration(
            tmp_path,
            registry.base_url,
            source=cluster.part,
            target={"kind": "files", "path": "out"},
            select={"collections": ["sales"]},
            publish=True,
        )
        found = promptferry("plan", path, "--json", cwd=tmp_path, env=keys)
    assert [one["name"] for one in found.json["prompts"]] == ["one"]
    assert any("were read to select" in note for note in found.json["notes"]) is not tags


# ---- brackets --------------------------------------------------------------------------------------------------------


def bracketed(folder: Path, glob: str) -> Path:
    source = folder / "prompts"
    source.mkdir(exist_ok=True)
    for number, name in enumerate(("[v2] welcome", "v welcome", "2 be", "other")):
        (source / f"{number}.md").write_text(f"---\nname: {json.dumps(name)}\nmodel: m\n---\nHi\n")
    ends: dict[str, Any] = {
        "source": {"kind": "files", "path": "prompts"},
        "target": {"kind": "files", "path": "out.jsonl"},
    }
    return write_migration(folder, "", **ends, select={"names": [glob]}, rewrite={"name": "{name}"})


@pytest.mark.parametrize(
    ("glob", "taken", "noted"),
    [
        ("[v2]*", {"[v2] welcome", "v welcome", "2 be"}, True),
        ("![v2]*", {"other"}, True),
        ("[[]v2]*", {"[v2] welcome"}, False),
        ("![[]v2]*", {"v welcome", "2 be", "other"}, False),
        ("[vo]*", {"v welcome", "other"}, False),
    ],
)
def test_a_name_in_brackets_is_found_and_two_readings_are_said(
    glob: str, taken: set[str], noted: bool, tmp_path: Path
) -> None:
    path = bracketed(tmp_path, glob)
    told = [
        promptferry("inventory", path, "--json", cwd=tmp_path).json["notes"],
        promptferry("plan", path, "--json", cwd=tmp_path).json["notes"],
        promptferry("run", path, cwd=tmp_path).summary["notes"],
    ]
    assert {json.loads(line)["name"] for line in (tmp_path / "out.jsonl").read_text().splitlines()} == taken
    for notes in told:
        about = [note for note in notes if note.startswith("select.names: ")]
        assert len(about) == noted
        assert all("'[v2] welcome'" in note and "[[]v2]*'" in note for note in about)
        assert all("'v welcome'" in note or "'2 be'" in note for note in about)


def test_brackets_on_the_command_line(tmp_path: Path) -> None:
    path = bracketed(tmp_path, "*")
    planned = promptferry("plan", path, "--json", "--only", "[v2]*", cwd=tmp_path).json
    assert {one["name"] for one in planned["prompts"]} == {"[v2] welcome", "v welcome", "2 be"}
    assert any(note.startswith("--only: '[v2]*'") for note in planned["notes"])
    promptferry("run", path, "--only", "[[]v2]*", cwd=tmp_path)
    rows = promptferry("ids", path, "--format", "json", "--only", "[v2]*", cwd=tmp_path).json
    assert [row["source_name"] for row in rows] == ["[v2] welcome"]
