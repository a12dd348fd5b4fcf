"""`carry` by the command: what a registry has no place for travels with the prompt, and is there again behind it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from engine.content.carry import CARRY_KEY
from engine.sandbox import LangfuseQuirks, Sandbox, SandboxOptions
from tests import phoenix_server
from tests.e2e import Served, promptferry, served, write_migration
from tests.routes import COLLECTION, Folder, Langfuse, Phoenix, Portkey, Route, did, route

CARRY: Final = [
    "raw",
    "functions",
    "messages.name",
    "messages.content",
    "parameters.q",
]
FIELDS: Final = (
    "string",
    "parameters",
    "functions",
    "tools",
    "tool_choice",
    "is_raw_template",
    "prompt_version_description",
)
COUNT: Final = 12


def messages(number: int) -> list[dict[str, Any]]:
    parts = [
        {"type": "text", "text": "One {{q}}"},
        {"type": "text", "text": "two"},
    ]
    return [
        {"role": "system", "content": f"Be {{{{tone}}}}, {number}."},
        {"role": "user", "content": "Hi {{q}}", "name": "ada"},
        {"role": "user", "content": parts if number % 2 else "two"},
    ]


def plant(sandbox: Sandbox) -> None:
    for number in range(COUNT):
        fields: dict[str, Any] = {
            "parameters": {"temperature": 0.5, "q": "why"},
            "functions": [{"name": "f", "parameters": {"maximum": number}}],
            "template_metadata": {"owner": {"team": number}},
            "version_description": f"number {number}",
            "is_raw_template": int(number % 3 == 0),
        }
        sandbox.add_prompt(f"p{number}", json.dumps(messages(number)), model="gpt-4o", collection=COLLECTION, **fields)


def contents(end: Portkey) -> dict[str, Any]:
    """Name -> what a person wrote."""
    found = {}
    for name, one in end.prompts().items():
        told = {field: one[field] for field in FIELDS}
        metadata = {key: value for key, value in one["template_metadata"].items() if key != "promptferry"}
        found[name] = {**told, "string": json.loads(one["string"]), "metadata": metadata}
    return found


@pytest.fixture
def registry() -> Any:
    with served(SandboxOptions(prompts=0, langfuse=LangfuseQuirks(deletes=True))) as found:
        found.ask(plant)
        found.ask(lambda sandbox: sandbox.key("copy"))
        yield found


def hop(folder: Path, registry: Served, source: Any, target: Any, name: str, **parts: Any) -> Route:
    (home := folder / name).mkdir()
    return route(home, registry, source, target, **parts)


def arrives(way: Route) -> None:
    """All of it, and a second run has nothing to do."""
    assert did(way.run()) == {"created": COUNT}, way.ask("status", "--failed").out
    assert way.ask("verify", "--json").json["counts"]["same"] == COUNT
    assert did(way.run()) == {"unchanged": COUNT}


def test_a_library_goes_around_and_is_the_same(tmp_path: Path, registry: Served) -> None:
    source, langfuse, copy = Portkey(registry), Langfuse(registry), Portkey(registry, "copy")
    with phoenix_server.running() as served_phoenix:
        phoenix = Phoenix(served_phoenix.url)
        arrives(hop(tmp_path, registry, source, langfuse, "1", carry=CARRY))
        openai = {"name": "{name}", "provider": {"*": "OPENAI"}}
        arrives(hop(tmp_path, registry, langfuse, phoenix, "2", carry=CARRY, rewrite=openai))
        arrives(hop(tmp_path, registry, phoenix, folder := Folder(tmp_path / "files"), "3"))
        home = {"name": "{name}", "provider": "anthropic-prod"}
        arrives(hop(tmp_path, registry, folder, copy, "4", rewrite=home))
    assert contents(copy) == contents(source)
    config = langfuse.prompts()["p3"]["config"]
    assert json.loads(config["metadata"][CARRY_KEY])["fields"] == {"raw": True}
    assert config["promptferry"]["migration"] == "e2e"


def test_a_plan_shows_what_is_carried_and_what_would_be_lost(tmp_path: Path, registry: Served) -> None:
    ends = (Portkey(registry), Langfuse(registry))
    without = hop(tmp_path, registry, *ends, "1", carry=["raw"]).ask("plan", "--json").json["prompts"]
    assert {tuple(one["losses"]) for one in without} == {("messages.name",)}
    assert all("would be lost" in one["problem"] for one in without)
    way = hop(tmp_path, registry, *ends, "2", carry=CARRY)
    by_name = {one["name"]: one for one in way.ask("plan", "--json").json["prompts"]}
    assert (by_name["p3"]["losses"], by_name["p3"]["problem"]) == ([], None)
    assert by_name["p3"]["carried"] == ["messages.content", "messages.name", "raw"]
    assert "carried in its metadata: messages.name" in way.ask("plan").out


def test_a_change_of_what_is_carried_is_a_change_of_the_prompt(tmp_path: Path, registry: Served) -> None:
    source, target, copy = Portkey(registry), Langfuse(registry), Portkey(registry, "copy")
    way, back = (
        hop(tmp_path, registry, source, target, "1", carry=CARRY),
        hop(tmp_path, registry, target, copy, "2"),
    )
    arrives(way)
    arrives(back)
    changed = messages(4)
    changed[1]["name"] = "grace"
    registry.edit(source.prompts()["p4"]["id"], string=json.dumps(changed))
    assert did(way.run()) == {"updated": 1, "unchanged": COUNT - 1}
    assert did(back.run()) == {"updated": 1, "unchanged": COUNT - 1}
    assert contents(copy) == contents(source)


def test_what_somebody_edited_at_the_registry_is_lost_by_name_and_merged_with_nothing(
    tmp_path: Path, registry: Served
) -> None:
    source, target, copy = Portkey(registry), Langfuse(registry), Portkey(registry, "copy")
    arrives(hop(tmp_path, registry, source, target, "1", carry=CARRY))
    there = target.prompts()["p5"]
    text = [{**there["prompt"][0], "content": "Be {{tone}} and brief."}, *there["prompt"][1:]]
    target.add("p5", "", prompt=text, config=there["config"], type="chat")
    back = hop(tmp_path, registry, target, copy, "2")
    assert did(back.run()) == {"created": COUNT - 1, "failed": 1}
    (failed,) = back.ask("status", "--failed", "--json").json["failed"]
    assert "messages.content, messages.name would be lost" in failed["message"]
    accepting = write_migration(
        back.folder, "", source=target.part, target=copy.part, rewrite={"name": "{name}"},
        allow_loss=["messages.content", "messages.name"],
    )  # fmt: skip
    assert promptferry("run", accepting, cwd=back.folder, env=back.environ).code == 0
    assert json.loads(copy.prompts()["p5"]["string"]) == text


def test_a_name_in_the_file_that_can_be_no_loss_is_an_error_with_the_nearest(tmp_path: Path, registry: Served) -> None:
    way = hop(tmp_path, registry, Portkey(registry), Langfuse(registry), "1", carry=["raw", "tool_choise", "top_k"])
    ended = way.run()
    assert ended.code == 2
    assert "carry[1]: nothing of the name `tool_choise` can be lost; did you mean `tool_choice`?" in ended.err
    assert "carry[2]: nothing of the name `top_k` can be lost; did you mean `parameters.top_k`?" in ended.err
