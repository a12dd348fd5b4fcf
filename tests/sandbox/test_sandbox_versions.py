"""Updates of the sandbox: versions, publishing, labels, and the trap in `patch`."""

from __future__ import annotations

import pytest

from engine.sandbox import Quirks
from tests.sandbox_api import api, code


async def test_patch_carries_the_draft_along() -> None:
    async with api() as portkey:
        made = await portkey.create(string="published", tools=[{"a": 1}], template_metadata={"k": 1})
        path = f"/prompts/{made['id']}"
        await portkey.put(path, {"patch": True, "string": "draft"})
        answer = await portkey.put(path, {"patch": True, "model": "gpt-4o-mini"})
        assert answer == {"id": made["id"], "slug": made["slug"], "prompt_version_id": answer["prompt_version_id"]}
        newest = await portkey.get(f"{path}?version=latest")
        assert (newest["prompt_version"], newest["string"], newest["tools"]) == (3, "draft", [{"a": 1}])
        assert newest["model"] == newest["parameters"]["model"] == "gpt-4o-mini"
        assert newest["template_metadata"] == {"k": 1}
        now = await portkey.get(path)
        assert (now["prompt_version"], now["string"], now["model"]) == (1, "published", "gpt-4o")
        await portkey.put(f"{path}/makeDefault", {"version": 3})
        assert (await portkey.get(path))["string"] == "draft"
        assert (await portkey.get("/prompts"))["data"][0]["model"] == "gpt-4o-mini"


async def test_an_older_back_end_ignores_patch() -> None:
    async with api(quirks=Quirks(knows_patch=False)) as portkey:
        made = await portkey.create()
        status, answer = await portkey.ask("PUT", f"/prompts/{made['id']}", {"patch": True, "string": "x"})
        assert (status, code(answer)) == (400, "AB01")


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ({"name": "Renamed"}, "name", "Renamed"),
        ({"version_description": "why"}, "prompt_version_description", "why"),
        ({"virtual_key": "bedrock-prod"}, "virtual_key", "bedrock-prod"),
    ],
)
async def test_some_updates_make_no_version(body: dict[str, str], field: str, value: str) -> None:
    async with api() as portkey:
        made = await portkey.create()
        assert await portkey.put(f"/prompts/{made['id']}", body) == {}
        prompt = await portkey.get(f"/prompts/{made['id']}")
        assert (prompt[field], prompt["prompt_version"]) == (value, 1)
        assert (await portkey.get(f"/prompts/{made['id']}/versions"))["total"] == 1


async def test_a_whole_update_keeps_nothing_of_before() -> None:
    async with api() as portkey:
        path = f"/prompts/{(await portkey.create(tools=[{}], is_raw_template=1))['id']}"
        await portkey.put(path, {"string": "{}", "parameters": {"a": 1}, "model": "gpt-4o"})
        newest = await portkey.get(f"{path}?version=2")
        assert (newest["tools"], newest["is_raw_template"], newest["virtual_key"]) == (None, 0, "openai-prod")


async def test_version_numbers_may_have_gaps() -> None:
    async with api(quirks=Quirks(version_step=3)) as portkey:
        path = f"/prompts/{(await portkey.create())['id']}"
        made = await portkey.put(path, {"patch": True, "string": "x"})
        versions = (await portkey.get(f"{path}/versions"))["data"]
        assert (versions[0]["prompt_version"], versions[0]["id"]) == (4, made["prompt_version_id"])
        status, answer = await portkey.ask("PUT", f"{path}/makeDefault", {"version": 2})
        assert (status, code(answer)) == (404, "AB08")


async def test_labels_move_between_versions_and_null_removes_them() -> None:
    async with api() as portkey:
        path = f"/prompts/{(await portkey.create())['id']}"
        second = (await portkey.put(path, {"patch": True, "string": "x"}))["prompt_version_id"]
        first = (await portkey.get(path))["prompt_version_id"]
        labels = {label["name"]: label["id"] for label in (await portkey.get("/labels"))["data"]}
        for version, label in ((first, "production"), (first, "staging"), (second, "production")):
            await portkey.put(f"{path}/versions/{version}", {"label_id": labels[label]})
        assert [label["name"] for label in (await portkey.get(path))["prompt_version_labels"]] == ["staging"]
        assert (await portkey.get(f"{path}@production"))["prompt_version"] == 2
        await portkey.put(f"{path}/versions/{second}", {"label_id": None})
        assert (await portkey.ask("GET", f"{path}@production"))[0] == 404
        status, _ = await portkey.ask("PUT", f"{path}/versions/{second}", {"string": "no"})
        assert status == 400
