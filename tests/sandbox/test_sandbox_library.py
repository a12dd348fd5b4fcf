"""The prompts that the sandbox is seeded with, and those that tests plant."""

from __future__ import annotations

import json

import pytest

from engine.sandbox.library import library
from tests.sandbox_api import api, rendered


async def test_the_library_is_the_same_for_a_seed_and_has_every_sort_of_prompt() -> None:
    async with api(prompts=100, seed=5) as first, api(prompts=100, seed=5) as second, api(prompts=100) as other:
        prompts = first.sandbox.prompts()
        assert prompts == second.sandbox.prompts()
        assert first.key == second.key != other.key
        assert [prompt["id"] for prompt in prompts] != [prompt["id"] for prompt in other.sandbox.prompts()]
        assert len({prompt["name"] for prompt in prompts}) == 100
        assert all(prompt["status"] == "active" for prompt in prompts)
        for field in ("tools", "functions", "tool_choice", "prompt_version_description", "prompt_version_label_name"):
            assert any(prompt[field] is not None for prompt in prompts), field
            assert any(prompt[field] is None for prompt in prompts), field
        for key in ("stream", "thinking", "company"):
            assert any(key in prompt["parameters"] for prompt in prompts), key
        raw = [prompt["string"] for prompt in prompts if prompt["is_raw_template"]]
        assert {is_json(text) for text in raw} == {True, False}
        assert any(prompt["variable_components"]["partials"] for prompt in prompts)
        assert any(len(first.sandbox.versions(prompt["id"])) > 1 for prompt in prompts)
        models = {prompt["model"] for prompt in prompts}
        assert {"claude-3-7-sonnet-20250219", "us.anthropic.claude-3-7-sonnet-20250219-v1:0"} < models


async def test_every_seeded_prompt_can_be_rendered() -> None:
    async with api(prompts=60) as portkey:
        history = '{"role": "user", "content": "x"}'
        for prompt in portkey.sandbox.prompts():
            data = await rendered(portkey, prompt["slug"], {"chat_history": history, "customer_name": "Ann"})
            assert data["model"] == prompt["model"]


def test_a_large_library_has_unique_names() -> None:
    seeds = list(library(20_000, 1, {"Tone of voice": "a", "JSON only": "b", "Safety": "c"}))
    assert len({seed.name for seed in seeds}) == 20_000
    assert [seed.at for seed in seeds] == sorted(seed.at for seed in seeds)


async def test_prompts_can_be_planted() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt("x", "one", collection=None, parameters={"a": 1}, version_description="d")
        assert portkey.sandbox.add_version(prompt, string="two") == 2
        assert portkey.sandbox.add_version(prompt, model="gpt-4o", publish=True) == 3
        shown = await portkey.get(f"/prompts/{prompt}")
        assert (shown["string"], shown["model"], shown["collection_id"]) == ("two", "gpt-4o", None)
        assert [version["prompt_version"] for version in portkey.sandbox.versions(prompt)] == [1, 2, 3]
        hidden = portkey.sandbox.add_prompt("y", workspace="main", collection="hr", model="m", virtual_key="unknown")
        assert (await portkey.get(f"/prompts/{hidden}"))["virtual_key"] == "unknown"
        with pytest.raises(LookupError, match="nowhere"):
            portkey.sandbox.add_prompt("z", workspace="nowhere")


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
