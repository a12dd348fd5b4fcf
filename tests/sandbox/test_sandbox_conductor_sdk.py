"""Conductor's side of the sandbox against two independent witnesses: the vendor's own SDK, and its specification."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import anyio.to_thread
import pytest
from conductor.client.configuration.configuration import Configuration
from conductor.client.configuration.settings.authentication_settings import (
    AuthenticationSettings,
)
from conductor.client.http.rest import ApiException, AuthorizationException
from conductor.client.orkes.models.metadata_tag import MetadataTag
from conductor.client.orkes.orkes_integration_client import OrkesIntegrationClient
from conductor.client.orkes.orkes_prompt_client import OrkesPromptClient
from openapi_schema_validator import OAS30Validator
from ruamel.yaml import YAML

from engine.sandbox import ConductorQuirks, Sandbox, SandboxOptions, serve

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

SPEC = Path(__file__).parents[3] / "shared" / "contracts" / "conductor-prompts.openapi.yaml"
GPT = "openai-prod:gpt-4o"


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_HTTP2_ENABLED", "false")


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with serve(SandboxOptions(prompts=0)) as running:
        yield running


def settings(sandbox: Sandbox, workspace: str = "main") -> Any:
    secret = AuthenticationSettings(key_id="k", key_secret=sandbox.key(workspace))
    return Configuration(server_api_url=sandbox.conductor_url, authentication_settings=secret)


async def aside(use: Callable[[], Any]) -> Any:
    """The SDK blocks: it works in a thread of its own."""
    return await anyio.to_thread.run_sync(use)


async def prompts_of(sandbox: Sandbox) -> Any:
    known = settings(sandbox)
    return await aside(lambda: OrkesPromptClient(known))


async def integrations_of(sandbox: Sandbox) -> Any:
    known = settings(sandbox)
    return await aside(lambda: OrkesIntegrationClient(known))


# ---- the SDK ---------------------------------------------------------------------------------------------------------


async def test_what_is_saved_is_read_listed_and_deleted(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    await aside(lambda: client.save_prompt("greet me", "Desc with & ü", "Hello ${name}, ${ topic }", [GPT]))
    prompt = await aside(lambda: client.get_prompt("greet me"))
    assert (prompt.name, prompt.description, prompt.template) == (
        "greet me",
        "Desc with & ü",
        "Hello ${name}, ${ topic }",
    )
    assert (prompt.version, prompt.integrations, prompt.created_by) == (1, [GPT], "app:k")
    assert set(prompt.variables) == {"name", " topic "}
    assert [one.name for one in await aside(client.get_prompts)] == ["greet me"]
    await aside(lambda: client.delete_prompt("greet me"))
    assert await aside(lambda: client.get_prompt("greet me")) is None
    assert sandbox.conductor_prompts() == []


async def test_saving_without_a_version_overwrites_the_first_and_counts_on_demand(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    await aside(lambda: client.save_prompt("a", "one", "1"))
    await aside(lambda: client.save_prompt("a", "two", "2", auto_increment=True))
    await aside(lambda: client.save_prompt("a", "seven", "7", version=7))
    await aside(lambda: client.save_prompt("a", "again", "1 again"))
    kept = [(one["version"], one["template"]) for one in sandbox.conductor_versions("a")]
    assert kept == [(1, "1 again"), (2, "2"), (7, "7")]
    assert (await aside(lambda: client.get_prompt("a"))).template == "7"


async def test_the_store_holds_what_the_sdk_sends_and_it_sends_escaped_text(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    await aside(lambda: client.save_prompt("escaped", "d", 'one\ntwo é "${name}" end'))
    await aside(lambda: client.save_prompt("quoted", "d", '"quoted"'))
    await aside(lambda: client.save_prompt("empty", "d", ""))
    kept = {one["name"]: one["template"] for one in sandbox.conductor_prompts()}
    assert kept["escaped"] == 'one\\ntwo \\u00e9 \\"${name}\\" end'
    assert kept["quoted"] == '\\"quoted\\'
    assert kept["empty"] == ""


async def test_a_missing_integration_is_a_refusal_that_the_sdk_understands(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    with pytest.raises(ApiException) as missing:
        await aside(lambda: client.save_prompt("a", "d", "t", ["nobody:gpt"]))
    assert missing.value.is_not_found()
    assert sandbox.conductor_prompts() == []


async def test_a_forbidden_update_is_no_matter_of_the_token(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    sandbox.add_conductor_prompt("theirs")
    sandbox.forbid_update("theirs")
    with pytest.raises(AuthorizationException) as forbidden:
        await aside(lambda: client.save_prompt("theirs", "d", "mine now"))
    assert not forbidden.value.token_expired
    assert not forbidden.value.invalid_token
    assert sandbox.token_count == 1
    assert sandbox.conductor_prompts()[0]["template"] == "Hello ${name}"


async def test_tags_are_merged_and_taken_away(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    sandbox.add_conductor_prompt("a", tags={"team": "docs"})
    await aside(lambda: client.update_tag_for_prompt_template("a", [MetadataTag("stage", "beta")]))
    tags = await aside(lambda: client.get_tags_for_prompt_template("a"))
    assert {(tag.key, tag.value) for tag in tags} == {("team", "docs"), ("stage", "beta")}
    await aside(lambda: client.delete_tag_for_prompt_template("a", [MetadataTag("team", "docs")]))
    assert [(tag["key"], tag["value"]) for tag in sandbox.conductor_prompts()[0]["tags"]] == [("stage", "beta")]


async def test_the_test_call_renders_and_names_are_not_in_its_way_but_for_test(sandbox: Sandbox) -> None:
    client = await prompts_of(sandbox)
    said = await aside(lambda: client.test_prompt("Hi ${who} ${none}", {"who": "Ann"}, "openai-prod", "gpt-4o"))
    assert said == "You asked gpt-4o: Hi Ann ${none}"
    with pytest.raises(ApiException):
        await aside(lambda: client.save_prompt("test", "d", "this goes to the model call"))
    assert sandbox.conductor_prompts() == []


async def test_integrations(sandbox: Sandbox) -> None:
    client = await integrations_of(sandbox)
    sandbox.add_conductor_prompt("a", integrations=[GPT])
    sandbox.disable_integration("openai-prod:gpt-4o-mini")
    assert {one.name for one in await aside(client.get_integrations)} >= {"openai-prod", "SendGrid"}
    listed = await aside(client.get_providers_and_integrations)
    assert GPT in listed
    assert "openai-prod:gpt-4o-mini" not in listed
    assert (await aside(lambda: client.get_integration("openai-prod"))).models_count == 2
    assert await aside(lambda: client.get_integration("nobody")) is None
    assert [one.api for one in await aside(lambda: client.get_integration_apis("openai-prod"))] == ["gpt-4o"]
    assert [one.name for one in await aside(lambda: client.get_prompts_with_integration("openai-prod", "gpt-4o"))] == [
        "a"
    ]
    await aside(lambda: client.associate_prompt_with_integration("bedrock-prod", "anthropic.claude-3-opus", "a"))
    assert set(sandbox.conductor_prompts()[0]["integrations"]) == {GPT, "bedrock-prod:anthropic.claude-3-opus"}
    # the SDK swaps the two segments of the path: with its arguments in their order it finds nothing
    assert await aside(lambda: client.get_integration_api("gpt-4o", "openai-prod")) is None
    assert (await aside(lambda: client.get_integration_api("openai-prod", "gpt-4o"))).api == "gpt-4o"


@pytest.mark.parametrize("status", [401, 403])
async def test_an_expired_token_is_renewed_once_and_the_call_goes_through(status: Any) -> None:
    quirks = ConductorQuirks(token_requests=3, token_status=status)
    async with serve(SandboxOptions(prompts=0, conductor=quirks)) as sandbox:
        client = await prompts_of(sandbox)
        for index in range(7):
            await aside(partial(client.save_prompt, f"p{index}", "d", "t"))
        assert len(sandbox.conductor_prompts()) == 7
        assert sandbox.token_count == 3
        assert [seen.status for seen in sandbox.requests].count(status) == 2


# ---- the published specification -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spec() -> Any:
    if not SPEC.exists():
        pytest.skip(f"{SPEC.name} is not beside this checkout")
    return YAML(typ="safe").load(SPEC)


def strict(schema: Any) -> Any:
    """The same schema without room for fields that it does not know."""
    if isinstance(schema, dict):
        inner = {key: strict(value) for key, value in schema.items()}
        return inner | ({"additionalProperties": False} if "properties" in inner else {})
    return [strict(value) for value in schema] if isinstance(schema, list) else schema


def problems(spec: Any, schema: Any, answer: Any) -> list[str]:
    """What breaks the schema, a field that it does not know included."""
    validator = OAS30Validator(schema | {"components": strict(spec["components"])})
    return [error.message for error in validator.iter_errors(answer)]


def named(schema: str) -> Any:
    return {"$ref": f"#/components/schemas/{schema}"}


def promised(spec: Any, method: str, path: str, status: int) -> Any:
    """The schema of an answer; None: an empty body."""
    content = spec["paths"][path][method.lower()]["responses"][str(status)].get("content")
    return None if content is None else content["application/json"]["schema"]


PROVIDER = "/api/integrations/provider/{name}"
LINK = "/api/integrations/provider/{integration_provider}/integration/{integration_name}/prompt"
ITEM = {"name": "b", "template": "t", "temperature": 0.1, "stopWords": ["x"], "responseFormat": "json", "topP": 1}


@pytest.mark.parametrize(
    ("method", "path", "as_in_spec", "body", "status"),
    [
        ("GET", "/prompts", "/api/prompts", None, 200),
        ("POST", "/prompts/", "/api/prompts/", [ITEM], 200),
        ("POST", "/prompts/", "/api/prompts/", [ITEM | {"integrations": ["no:body"]}], 404),
        ("GET", "/prompts/a", "/api/prompts/{name}", None, 200),
        ("GET", "/prompts/none", "/api/prompts/{name}", None, 404),
        ("GET", "/prompts/a?version=9", "/api/prompts/{name}", None, 404),
        ("POST", "/prompts/a?description=d", "/api/prompts/{name}", None, 200),
        ("POST", "/prompts/a?description=d&models=no:body", "/api/prompts/{name}", None, 404),
        ("POST", "/prompts/kept?description=d", "/api/prompts/{name}", None, 403),
        ("PUT", "/prompts/a?description=d&models=openai-prod:gpt-4o", "/api/prompts/{name}", None, 200),
        ("PUT", "/prompts/kept?description=d", "/api/prompts/{name}", None, 403),
        ("DELETE", "/prompts/a", "/api/prompts/{name}", None, 200),
        ("GET", "/prompts/a/versions", "/api/prompts/{name}/versions", None, 200),
        ("GET", "/prompts/none/versions", "/api/prompts/{name}/versions", None, 404),
        ("DELETE", "/prompts/a/versions/1", "/api/prompts/{name}/versions/{version}", None, 200),
        ("GET", "/prompts/a/tags", "/api/prompts/{name}/tags", None, 200),
        ("PUT", "/prompts/a/tags", "/api/prompts/{name}/tags", [{"key": "k", "value": "v"}], 200),
        ("DELETE", "/prompts/a/tags", "/api/prompts/{name}/tags", [{"key": "team", "value": "docs"}], 200),
        ("GET", "/integrations/", "/api/integrations/", None, 200),
        ("GET", "/integrations/all", "/api/integrations/all", None, 200),
        ("GET", "/integrations/provider", "/api/integrations/provider", None, 200),
        ("GET", "/integrations/provider/openai-prod", PROVIDER, None, 200),
        ("GET", "/integrations/provider/openai-prod/integration", f"{PROVIDER}/integration", None, 200),
        ("GET", "/integrations/provider/openai-prod/integration/all", f"{PROVIDER}/integration/all", None, 200),
        (
            *("GET", "/integrations/provider/openai-prod/integration/gpt-4o"),
            *(f"{PROVIDER}/integration/{{integration_name}}", None, 200),
        ),
        ("GET", "/integrations/provider/openai-prod/integration/gpt-4o/prompt", LINK, None, 200),
        ("GET", "/integrations/provider/openai-prod/integration/none/prompt", LINK, None, 404),
        (
            *("POST", "/integrations/provider/openai-prod/integration/gpt-4o/prompt/a"),
            *(f"{LINK}/{{prompt_name}}", None, 200),
        ),
    ],
)
async def test_answers_fit_the_specification(
    sandbox: Sandbox, spec: Any, method: str, path: str, as_in_spec: str, body: Any, status: int
) -> None:
    sandbox.add_conductor_prompt(
        "a", tags={"team": "docs"}, integrations=[GPT], description="d", temperature=0.5, stopWords=["x"]
    )
    sandbox.add_conductor_prompt("kept")
    sandbox.forbid_update("kept")
    async with aiohttp.ClientSession() as session:
        asked = {"keyId": "k", "keySecret": sandbox.api_key}
        async with session.post(f"{sandbox.conductor_url}/token", json=asked) as answer:
            token = await answer.json()
        assert problems(spec, promised(spec, "POST", "/api/token", 200), token) == []
        headers = {"X-Authorization": token["token"]}
        async with session.request(method, sandbox.conductor_url + path, json=body, headers=headers) as answer:
            assert answer.status == status
            schema = promised(spec, method, as_in_spec, status)
            if schema is None:
                assert await answer.read() == b""
            else:
                assert problems(spec, schema, await answer.json()) == []


async def test_no_token_is_answered_as_specified(sandbox: Sandbox, spec: Any) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{sandbox.conductor_url}/prompts") as answer:
        assert answer.status == 401
        body = await answer.json()
        assert problems(spec, named("ErrorResponse"), body) == []
        assert body["error"] == "INVALID_TOKEN"


def test_the_specification_check_can_fail(spec: Any) -> None:
    assert problems(spec, named("MessageTemplate"), {"name": 1, "version": "1"}) != []
    assert problems(spec, named("MessageTemplate"), {"name": "a", "colour": "red"}) != []
    assert promised(spec, "PUT", "/api/prompts/{name}", 200) is None
