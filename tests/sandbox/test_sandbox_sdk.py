"""The sandbox against two independent witnesses: the vendor's own SDK, and the vendor's published specification."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import aiohttp
import anyio.to_thread
import pytest
from openapi_schema_validator import OAS30Validator
from portkey_ai import AsyncPortkey, Portkey
from portkey_ai.api_resources.exceptions import BadRequestError, NotFoundError
from ruamel.yaml import YAML

from engine.sandbox import Sandbox, SandboxOptions, serve

SPEC = Path(__file__).parents[3] / "shared" / "contracts" / "portkey-prompts.openapi.yaml"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serve(SandboxOptions(prompts=30)) as running:
        yield running


@pytest.fixture
async def portkey(sandbox: Sandbox) -> AsyncIterator[Any]:
    client = AsyncPortkey(api_key=sandbox.api_key, base_url=sandbox.base_url)
    yield client
    await client.close()


async def plain(call: Awaitable[Any]) -> Any:
    """What the SDK gives back, as plain dicts."""
    return (await call).model_dump()


async def made(portkey: Any, **fields: Any) -> Any:
    collections = await plain(portkey.collections.list())
    known: dict[str, Any] = {
        "name": "Greeting",
        "collection_id": collections["data"][0]["id"],
        "string": "Hello {{name}}",
        "parameters": {"temperature": 0.5},
        "model": "gpt-4o",
        "virtual_key": "openai-prod",
    }
    return await plain(portkey.prompts.create(**(known | fields)))


# ---- the SDK ---------------------------------------------------------------------------------------------------------


async def test_list_gives_all_rows_and_takes_filters(portkey: Any) -> None:
    everything = await plain(portkey.prompts.list())
    assert everything["total"] == len(everything["data"]) == 30
    page = await plain(portkey.prompts.list(current_page=1, page_size=7))
    assert [row["id"] for row in page["data"]] == [row["id"] for row in everything["data"][7:14]]
    found = await plain(portkey.prompts.list(search="REFUND reply"))
    names = {row["name"] for row in everything["data"]}
    assert {row["name"] for row in found["data"]} <= {name for name in names if "efund" in name}


async def test_create_and_retrieve_bring_back_what_was_sent(portkey: Any) -> None:
    answer = await made(portkey, tools=[{"type": "function"}], tool_choice={"type": "any"}, version_description="one")
    assert answer["object"] == "prompt"
    prompt = await plain(portkey.prompts.retrieve(answer["slug"]))
    assert prompt["id"] == answer["id"]
    assert prompt["prompt_version_id"] == answer["version_id"]
    assert prompt["prompt_version"] == 1
    assert prompt["string"] == "Hello {{name}}"
    assert dict(prompt["parameters"]) == {"temperature": 0.5, "model": "gpt-4o"}
    assert prompt["tools"] == [{"type": "function"}]
    assert prompt["prompt_version_description"] == "one"


async def test_update_needs_the_three_fields_together_and_does_not_publish(portkey: Any) -> None:
    slug = (await made(portkey))["slug"]
    with pytest.raises(BadRequestError, match="AB01"):
        await plain(portkey.prompts.update(slug, model="gpt-4o-mini"))
    fields = {"string": "Bye {{name}}", "parameters": {}, "model": "gpt-4o-mini"}
    version_id = (await plain(portkey.prompts.update(slug, **fields)))["prompt_version_id"]
    assert (await plain(portkey.prompts.retrieve(slug)))["string"] == "Hello {{name}}"
    assert (await plain(portkey.prompts.retrieve(f"{slug}@latest")))["prompt_version_id"] == version_id
    await plain(portkey.prompts.publish(slug, version=2))
    assert (await plain(portkey.prompts.retrieve(slug)))["string"] == "Bye {{name}}"
    assert (await plain(portkey.prompts.retrieve(f"{slug}@1")))["string"] == "Hello {{name}}"


async def test_versions_are_listed_newest_first_and_carry_labels(portkey: Any) -> None:
    slug = (await made(portkey))["slug"]
    await plain(portkey.prompts.update(slug, string="Bye", parameters={}, model="gpt-4o"))
    versions = (await plain(portkey.prompts.versions.list(slug)))["data"]
    assert [version["prompt_version"] for version in versions] == [2, 1]
    labels = (await plain(portkey.labels.list()))["data"]
    assert {label["name"] for label in labels} == {"production", "staging", "development"}
    label = labels[0]
    await plain(portkey.prompts.versions.update(slug, versions[0]["id"], label_id=label["id"]))
    newest = await plain(portkey.prompts.versions.retrieve(slug, versions[0]["id"]))
    assert newest["prompt_version_label_name"] == label["name"]
    assert (await plain(portkey.prompts.retrieve(f"{slug}@{label['name']}")))["string"] == "Bye"


async def test_delete_leaves_nothing(portkey: Any) -> None:
    slug = (await made(portkey))["slug"]
    await plain(portkey.prompts.delete(slug))
    with pytest.raises(NotFoundError, match="AB08"):
        await plain(portkey.prompts.retrieve(slug))
    assert (await plain(portkey.prompts.list()))["total"] == 30


async def test_partials(portkey: Any) -> None:
    partials = portkey.prompts.partials
    slug = (await plain(partials.create(name="Sign off", string="Yours, {{name}}")))["slug"]
    assert slug in {row["slug"] for row in (await plain(partials.list()))["data"]}
    await plain(partials.update(slug, string="Cheers"))
    assert (await plain(partials.retrieve(slug)))["string"] == "Yours, {{name}}"
    await plain(partials.publish(slug, version=2))
    assert (await plain(partials.retrieve(slug)))["string"] == "Cheers"
    assert [row["version"] for row in (await plain(partials.versions.list(slug)))["data"]] == [2, 1]
    await plain(partials.delete(slug))
    with pytest.raises(NotFoundError, match="AB08"):
        await plain(partials.retrieve(slug))


async def test_render_shows_what_would_be_asked(portkey: Any) -> None:
    chat = json.dumps([{"role": "user", "content": "Hi {{name}}, {{#big}}big{{/big}}{{^big}}small{{/big}} <b>"}])
    slug = (await made(portkey, string=chat))["slug"]
    rendered = await portkey.prompts.render(prompt_id=f"{slug}@1", variables={"name": '"A&B"'}, temperature=0.1)
    assert rendered.success is True
    assert rendered.data.model == "gpt-4o"
    assert rendered.data.temperature == 0.1
    assert rendered.data.messages[0].content == 'Hi "A&B", small <b>'


async def test_completions_answer_whole_and_as_a_stream(portkey: Any) -> None:
    slug = (await made(portkey, parameters={"stream": True}))["slug"]
    whole = await portkey.prompts.completions.create(prompt_id=slug, variables={"name": "Ann"}, model="gpt-4o-mini")
    assert whole.model == "gpt-4o-mini"
    stream = await portkey.prompts.completions.create(prompt_id=slug, variables={"name": "Ann"}, stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert len(pieces) > 3
    assert "".join(pieces) == whole.choices[0].message.content


async def test_collections_and_labels(portkey: Any) -> None:
    made_collection = await plain(portkey.collections.create(name="Winter"))
    await plain(portkey.collections.update(made_collection["id"], name="Summer"))
    assert (await plain(portkey.collections.retrieve(made_collection["slug"])))["name"] == "Summer"
    await plain(portkey.collections.delete(made_collection["slug"]))
    with pytest.raises(NotFoundError, match="AB08"):
        await plain(portkey.collections.retrieve(made_collection["id"]))
    label = (await plain(portkey.labels.create(name="canary")))["id"]
    await plain(portkey.labels.update(label, description="five percent"))
    assert (await plain(portkey.labels.retrieve(label)))["description"] == "five percent"
    await plain(portkey.labels.delete(label))
    assert (await plain(portkey.labels.list()))["total"] == 3


async def test_providers_integrations_and_models(portkey: Any) -> None:
    providers = await plain(portkey.providers.list())
    assert {row["slug"] for row in providers["data"]} == {"anthropic-prod", "bedrock-prod", "openai-prod"}
    assert {row["slug"] for row in (await plain(portkey.virtual_keys.list()))["data"]} == {
        row["slug"] for row in providers["data"]
    }
    integrations = await plain(portkey.integrations.list())
    assert {row["slug"] for row in integrations["data"]} == {row["integration_id"] for row in providers["data"]}
    models = await plain(portkey.integrations.models.list(slug="bedrock"))
    assert "anthropic.claude-3-5-sonnet" in {row["slug"] for row in models["models"]}


async def test_the_sync_sdk_works_too(sandbox: Sandbox) -> None:
    def total() -> int:
        client = Portkey(api_key=sandbox.api_key, base_url=sandbox.base_url)
        try:
            return int(client.prompts.list().total)
        finally:
            client.close()

    assert await anyio.to_thread.run_sync(total) == 30


# ---- the published specification -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec() -> Any:
    if not SPEC.exists():
        pytest.skip(f"{SPEC.name} is not beside this checkout")
    return YAML(typ="safe").load(SPEC)


def problems(spec: Any, schema: str, answer: Any) -> set[str]:
    """The paths at which an answer breaks the schema of that name."""
    validator = OAS30Validator({"$ref": f"#/components/schemas/{schema}", "components": spec["components"]})
    return {".".join(str(part) for part in error.absolute_path) for error in validator.iter_errors(answer)}


async def test_answers_fit_the_specification_where_it_is_right(sandbox: Sandbox, spec: Any) -> None:
    async with aiohttp.ClientSession(headers={"x-portkey-api-key": sandbox.api_key}) as session:

        async def get(path: str, **sent: Any) -> Any:
            async with session.request("POST" if sent else "GET", sandbox.base_url + path, **sent) as response:
                assert response.status == 200
                assert response.content_type == "application/json"
                return await response.json()

        prompts = await get("/prompts")
        for row in prompts["data"]:
            assert problems(spec, "PromptSummary", row) == set()
        # nulls, the 0/1 of a raw template and a tool_choice in words are where the specification is wrong
        wrong = {"is_raw_template", "tool_choice", "functions", "tools"}
        wrong |= {"prompt_version_description", "prompt_version_label_id"}
        for prompt in sandbox.prompts():
            assert problems(spec, "Prompt", await get(f"/prompts/{prompt['id']}")) <= wrong
        versions = await get(f"/prompts/{prompt['slug']}/versions")
        assert problems(spec, "PromptVersionSummary", versions["data"][0]) <= {"label_id", "prompt_description"}
        partials = await get("/prompts/partials")
        assert problems(spec, "PromptPartialSummary", partials["data"][0]) == set()
        partial = await get(f"/prompts/partials/{partials['data'][0]['slug']}")
        assert problems(spec, "PromptPartial", partial) <= {"version_description"}
        collections = await get("/collections")
        for collection in collections["data"]:
            assert problems(spec, "CollectionWithDetails", collection) == set()
            whole = await get(f"/collections/{collection['slug']}")
            assert problems(spec, "CollectionWithChildCollections", whole) == set()
        assert problems(spec, "ListLabelsResponse", await get("/labels")) == set()
        text = sandbox.add_prompt("plain", json.dumps([{"role": "user", "content": "Hi"}]))
        completion = await get(f"/prompts/{text}/completions", json={"variables": {}})
        assert problems(spec, "CreateChatCompletionResponse", completion) == set()


def test_the_specification_check_can_fail(spec: Any) -> None:
    assert problems(spec, "PromptSummary", {"id": 1, "model": None}) == {"id", "model"}
