"""Prompts that people wrote: every one arrives byte for byte, but for what the rewrite names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import MARK, promptferry, served, write_migration
from tests.forks import ROOT

DATA: Final = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"
MODEL: Final = "anthropic.claude-3-5-sonnet"
TOUCHED: Final = {"temperature", "max_tokens", "max_completion_tokens", "seed"}
REWRITE: Final = {
    "model": MODEL,
    "parameters": {
        "drop": ["temperature"],
        "rename": {"max_tokens": "max_completion_tokens"},
        "clamp": {"max_completion_tokens": 1000},
        "set": {"seed": 2**70},
    },
}
NEW: Final = {"id", "slug", "name", "model", "parameters", "template_metadata", "created_at", "last_updated_at"}
"""Fields that a replica has of its own; those of the version come on top."""

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")


def fields(prompt: dict[str, Any]) -> dict[str, Any]:
    """What a person would give a registry for it."""
    string = prompt["template"] if prompt["kind"] == "text" else json.dumps(prompt["messages"], ensure_ascii=False)
    parameters = {name: value for name, value in (prompt["parameters"] or {}).items() if name != "model"}
    given: dict[str, Any] = {"string": string, "parameters": parameters}
    if isinstance(prompt["tools"], list) and all(isinstance(tool, dict) for tool in prompt["tools"]):
        given["tools"] = prompt["tools"]
    return given


def rewritten(parameters: dict[str, Any]) -> dict[str, Any]:
    """What REWRITE makes of them."""
    kept = {name: value for name, value in parameters.items() if name not in TOUCHED}
    longest = parameters.get("max_tokens", parameters.get("max_completion_tokens"))
    if longest is not None:
        kept["max_completion_tokens"] = min(longest, 1000)
    return kept | {"model": MODEL, "seed": 2**70}


def content(prompt: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in prompt.items() if name not in NEW and not name.startswith("prompt_version_id")
    }


def test_every_real_prompt_arrives_whole(tmp_path: Path) -> None:
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    with served(SandboxOptions(prompts=0)) as registry:

        def fill(sandbox: Sandbox) -> None:
            for number, prompt in enumerate(originals):
                sandbox.add_prompt(f"{number} {prompt['name']}", **fields(prompt))

        registry.ask(fill)
        sources = {prompt["id"]: prompt for prompt in registry.prompts()}
        path = write_migration(tmp_path, registry.base_url, rewrite=REWRITE)
        ended = promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key})
        assert (ended.code, ended.summary["counts"]["created"]) == (0, len(originals))
        replicas = [prompt for prompt in registry.prompts() if prompt["id"] not in sources]
    assert len(replicas) == len(sources) == len(originals) > 500
    for replica in replicas:
        mark = replica["template_metadata"].pop(MARK)
        source = sources.pop(mark["source_id"])
        assert replica["string"].encode() == source["string"].encode()
        assert content(replica) == content(source)
        assert replica["template_metadata"] == source["template_metadata"]
        assert replica["name"] == f"{source['name']}-replica"
        assert replica["model"] == MODEL
        # a parameter that is the default of a template's variable of that name is not touched
        if not TOUCHED & set(source["variable_components"]["variables"]):
            assert replica["parameters"] == rewritten(source["parameters"])
    assert not sources
