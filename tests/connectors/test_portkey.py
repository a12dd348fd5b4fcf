"""Portkey's wire: every field of a retrieve ends somewhere, a create sends what the registry takes and nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openapi_schema_validator import OAS30Validator
from ruamel.yaml import YAML

from engine.connectors.portkey.registry import connect
from engine.content.digest import digest, make_replica, read_mark
from engine.errors import Rejected, Stop
from engine.model import Created, Failed, Outcome, Prompt, Target, Unknown, Updated, no_intent
from engine.sandbox import Sandbox, SandboxOptions, serve
from tests import ends
from tests.raw_server import RawServer, Step, answer
from tests.workspaces import REGISTRY

SPEC = Path(__file__).parents[3] / "shared" / "contracts" / "portkey-prompts.openapi.yaml"
KEY = "a-key-of-a-test"

RECORDED: dict[str, Any] = {
    "id": "4b1f0f6e-0000-4000-8000-000000000001",
    "collection_id": "4b1f0f6e-0000-4000-8000-0000000000c1",
    "name": "Support reply",
    "slug": "pp-support-re-0a1b2c",
    "created_at": "2026-05-01T10:00:00.000Z",
    "last_updated_at": "2026-06-01T10:00:00.000Z",
    "status": "active",
    "access_level": "all",
    "share_organisation_id": None,
    "shared_at": None,
    "shared_by_user_id": None,
    "shared_from_version_id": None,
    "allow_all_workspaces": 0,
    "forked_from_prompt_id": None,
    "forked_from_prompt_version_id": None,
    "prompt_owning_workspace_id": "4b1f0f6e-0000-4000-8000-0000000000aa",
    "model": "claude-sonnet-4-6",
    "prompt_version_id": "4b1f0f6e-0000-4000-8000-0000000000b1",
    "prompt_version": 3,
    "prompt_version_description": None,
    "prompt_version_status": "active",
    "string": '[{"role": "user", "content": "{{question}}"}]',
    "variable_components": {"partials": [], "sections": [], "variables": ["question"], "sectionVariables": {}},
    "parameters": {"model": "claude-sonnet-4-6", "max_tokens": 1024, "question": "a default"},
    "functions": None,
    "tools": None,
    "tool_choice": None,
    "template_metadata": {},
    "prompt_version_label_id": None,
    "prompt_version_label_name": None,
    "is_raw_template": 0,
    "prompt_version_labels": [],
    "virtual_key": "anthropic",
    "object": "prompt",
}
"""The keys of a recorded retrieve, no more and no less."""

ARRIVES: dict[str, tuple[Any, str, Any]] = {
    # key of the wire: a value, the field of Prompt, the value there
    "collection_id": ("c9", "collection", "c9"),
    "name": ("Another", "name", "Another"),
    "model": ("gpt-4o", "model", "gpt-4o"),
    "prompt_version_description": ("better", "description", "better"),
    "string": ("Hi {{x}}\r\n", "text", "Hi {{x}}\r\n"),
    "parameters": ({"model": "claude-sonnet-4-6", "a": {"b": [1]}}, "parameters", {"a": {"b": [1]}}),
    "functions": ([{"name": "f"}], "functions", [{"name": "f"}]),
    "tools": ([{"type": "function"}], "tools", [{"type": "function"}]),
    "tool_choice": ("auto", "tool_choice", "auto"),
    "template_metadata": ({"template_type": "chat"}, "metadata", {"template_type": "chat"}),
    "is_raw_template": (1, "raw", True),
    "virtual_key": ("openai", "provider", "openai"),
}
OWNED = {
    "created_at": "2020-01-01T00:00:00.000Z",
    "access_level": "restricted",
    "shared_by_user_id": "u1",
    "shared_from_version_id": "v1",
    "forked_from_prompt_id": "f1",
    "forked_from_prompt_version_id": "f2",
    "prompt_owning_workspace_id": "w2",
    "prompt_version_id": "v9",
    "prompt_version_label_id": "l1",
    "object": "something",
}
IDENTIFIES = {"id", "slug", "prompt_version", "last_updated_at", "variable_components"}
NOTED: dict[str, tuple[Any, str]] = {
    "status": ("archived", "archived"),
    "prompt_version_status": ("archived", "archived"),
    "share_organisation_id": ("o1", "shared"),
    "shared_at": ("2026-05-01T10:00:00.000Z", "shared"),
    "allow_all_workspaces": (1, "shared"),
}


LABELS = ("prompt_version_label_name", "prompt_version_labels")


@asynccontextmanager
async def opened(base_url: str, key: str = KEY, workspace: str | None = None) -> AsyncIterator[Target]:
    async with connect(ends.portkey(base_url, key, workspace), ends.opening(name="source", attempts=1)) as target:
        yield target


@asynccontextmanager
async def answering(*steps: Step, workspace: str | None = None) -> AsyncIterator[tuple[Target, RawServer]]:
    async with RawServer(*steps) as server, opened(f"{server.url}/v1", workspace=workspace) as target:
        yield target, server


def says(value: Any, status: int = 200) -> Step:
    return answer(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


async def fetched(changes: Mapping[str, Any] | None = None) -> Prompt:
    """What is made of the recorded retrieve with these changes."""
    wire = RECORDED | dict(changes or {})
    async with answering(says(wire)) as (target, _):
        return await target.fetch(wire["id"])


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_every_recorded_key_is_spoken_for() -> None:
    assert set(RECORDED) == {*ARRIVES, *OWNED, *IDENTIFIES, *NOTED, *LABELS}


async def test_the_recorded_prompt_is_read_whole() -> None:
    found = await fetched()
    assert (found.id, found.slug, found.version) == (RECORDED["id"], RECORDED["slug"], "3")
    assert found.updated_at == RECORDED["last_updated_at"]
    assert found.parameters == {"max_tokens": 1024, "question": "a default"}
    assert "question" in found.variables
    assert not found.extra
    assert not found.notes


@pytest.mark.parametrize("key", ARRIVES)
async def test_content_arrives_in_its_field(key: str) -> None:
    value, field, expected = ARRIVES[key]
    found = await fetched({key: value})
    assert getattr(found, field) == expected
    assert digest(found) != digest(await fetched())
    assert not found.extra


@pytest.mark.parametrize("key", OWNED)
async def test_what_the_server_owns_is_no_loss(key: str) -> None:
    assert await fetched({key: OWNED[key]}) == await fetched()


@pytest.mark.parametrize("key", NOTED)
async def test_what_is_not_copied_is_noted(key: str) -> None:
    value, words = NOTED[key]
    found = await fetched({key: value})
    assert any(words in note for note in found.notes), found.notes
    assert not found.extra
    assert digest(found) == digest(await fetched())


async def test_labels_are_those_of_the_version() -> None:
    assert (await fetched()).labels == ()
    assert (await fetched({"prompt_version_label_name": "production"})).labels == ("production",)
    several = [{"id": "l1", "name": "production"}, {"id": "l2", "name": "eu"}]
    assert (await fetched({"prompt_version_labels": several})).labels == ("production", "eu")


@pytest.mark.parametrize("value", ["x", 0, False, [], {"a": 1}])
async def test_an_unknown_key_with_a_value_is_a_loss(value: Any) -> None:
    found = await fetched({"guardrails": value})
    assert found.extra == {"guardrails": value}


async def test_an_unknown_key_without_a_value_is_nothing() -> None:
    assert await fetched({"guardrails": None}) == await fetched()


@pytest.mark.parametrize("key", [key for key, value in RECORDED.items() if key not in ("id", "string")])
async def test_any_other_field_may_be_null_or_missing(key: str) -> None:
    assert (await fetched({key: None})).text == RECORDED["string"]
    wire = {name: value for name, value in RECORDED.items() if name != key}
    async with answering(says(wire)) as (target, _):
        assert (await target.fetch(RECORDED["id"])).id == RECORDED["id"]


async def test_a_model_that_stands_only_inside_the_parameters_is_the_model() -> None:
    found = await fetched({"model": None, "parameters": {"model": "gpt-4o"}})
    assert found.model == "gpt-4o"
    assert found.parameters == {}


async def test_two_models_that_differ_are_noted_and_model_wins() -> None:
    found = await fetched({"parameters": {"model": "gpt-4o"}})
    assert found.model == "claude-sonnet-4-6"
    assert any("gpt-4o" in note and "claude-sonnet-4-6" in note for note in found.notes)


async def test_a_default_of_a_variable_called_model_is_a_loss() -> None:
    found = await fetched({"parameters": {"model": {"name": "x"}}})
    assert found.extra == {"parameters.model": {"name": "x"}}


@pytest.mark.parametrize(("stored", "raw"), [(0, False), (1, True), (False, False), (True, True), (None, False)])
async def test_a_raw_template_is_told_by_number_or_truth(stored: Any, raw: bool) -> None:
    assert (await fetched({"is_raw_template": stored})).raw is raw


@pytest.mark.parametrize("asked", [RECORDED["id"], RECORDED["slug"]])
async def test_a_prompt_is_asked_for_by_id_or_slug(asked: str) -> None:
    async with answering(says(RECORDED)) as (target, server):
        assert (await target.fetch(asked)).id == RECORDED["id"]
    assert urlsplit(server.received[0].target).path == f"/v1/prompts/{asked}"
    assert server.received[0].headers["x-portkey-api-key"] == KEY


@pytest.mark.parametrize("wire", [[], "text", {}, {"id": "p1"}, {"id": "p1", "string": None}, RECORDED])
async def test_an_answer_that_is_not_that_prompt_is_refused(wire: Any) -> None:
    async with answering(says(wire)) as (target, _):
        with pytest.raises(Rejected) as caught:
            await target.fetch("p1")
    assert caught.value.error == "bad_answer"


@pytest.mark.parametrize("key", ["name", "parameters", "template_metadata", "prompt_version_description", "model"])
async def test_a_field_of_another_type_is_refused_by_name(key: str) -> None:
    with pytest.raises(Rejected, match=key):
        await fetched({key: ["of", "another", "type"]})


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from([key for key in RECORDED if key != "id"]), anything, max_size=4))
async def test_whatever_stands_in_a_field_one_prompt_fails_at_most(changes: dict[str, Any]) -> None:
    try:
        found = await fetched(changes)
    except Rejected:
        return
    read_mark(found.metadata, found.description)
    assert len(digest(found)) == 64


ERRORS = {
    "data": {"success": False, "data": {"message": "it is wrong", "errorCode": "AB01"}},
    "error": {"status_code": 400, "success": False, "error": {"message": "it is wrong", "slug": "x", "code": "AB01"}},
    "root": {"message": "it is wrong", "code": "AB01"},
    "gateway": {"status": "failure", "message": "it is wrong"},
}


@pytest.mark.parametrize("shape", ERRORS)
async def test_every_shape_of_error_gives_message_and_code(shape: str) -> None:
    async with answering(says(ERRORS[shape], 400)) as (target, _):
        with pytest.raises(Rejected) as caught:
            await target.fetch("p1")
    assert "it is wrong" in str(caught.value)
    assert caught.value.status == 400
    assert caught.value.code == (None if shape == "gateway" else "AB01")


# ---- writing ---------------------------------------------------------------------------------------------------------

WHOLE: dict[str, Any] = {
    "tools": [{"type": "function", "function": {"name": "f"}}],
    "functions": [{"name": "f"}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "template_metadata": {"template_type": "chat"},
    "prompt_version_description": "first",
    "is_raw_template": 1,
}


def body_of(target: Target, prompt: Prompt) -> dict[str, Any]:
    replica = make_replica(prompt, prompt, migration="m", registry=REGISTRY)
    body: dict[str, Any] = json.loads(target.encode(replica))
    return body


async def test_a_create_has_every_field_that_it_takes() -> None:
    async with answering(says(RECORDED | WHOLE)) as (target, _):
        body = body_of(target, await target.fetch(RECORDED["id"]))
    assert set(body) == set(
        "name collection_id string parameters functions tools tool_choice model virtual_key version_description"
        " template_metadata is_raw_template".split()
    )
    assert body["string"] == RECORDED["string"]
    assert body["version_description"] == "first"
    assert body["is_raw_template"] == 1
    assert body["template_metadata"]["template_type"] == "chat"
    assert body["template_metadata"]["promptferry"]["source_id"] == RECORDED["id"]


async def test_a_create_has_no_nulls() -> None:
    async with answering(says(RECORDED)) as (target, _):
        body = body_of(target, await target.fetch(RECORDED["id"]))
    assert None not in body.values()
    assert not {"functions", "tools", "tool_choice", "version_description", "workspace_id"} & set(body)
    assert body["is_raw_template"] == 0


async def test_a_create_says_the_model_twice_and_alike() -> None:
    async with answering(says(RECORDED | {"parameters": {"model": "gpt-4o", "top_p": 1}})) as (target, _):
        body = body_of(target, await target.fetch(RECORDED["id"]))
    assert body["model"] == "claude-sonnet-4-6"
    assert body["parameters"] == {"top_p": 1, "model": "claude-sonnet-4-6"}


async def test_a_prompt_that_cannot_be_written_is_refused() -> None:
    async with answering(says(RECORDED)) as (target, _):
        source = Prompt(id="p1", name="n", text="t", parameters={"n": float("nan")})
        with pytest.raises(Rejected) as caught:
            body_of(target, source)
    assert caught.value.error == "not_encodable"


async def created(*steps: Step) -> Outcome:
    async def sending() -> None:
        pass

    async with answering(*steps) as (target, _):
        (outcome,) = await target.create([b"{}"], sending)
        return outcome


async def test_what_a_create_answers_is_what_became_of_it() -> None:
    assert await created(says({"id": "t1", "slug": "pp-t1"})) == Created(target_id="t1", target_slug="pp-t1")
    assert await created(says({"id": "t1"})) == Created(target_id="t1")
    blanks: list[Any] = [{}, {"id": ""}, {"id": None}, {"id": 7}, [], None]
    for blank in blanks:
        assert isinstance(await created(says(blank)), Unknown)
    exists = await created(says({"data": {"message": "there", "errorCode": "AB07"}}, 409))
    assert isinstance(exists, Failed)
    assert exists.exists
    assert isinstance(await created(says({}, 500)), Unknown)


async def test_a_spent_quota_and_a_refused_key_end_the_run() -> None:
    for status, reason in ((401, "key_refused"), (402, "quota")):
        with pytest.raises(Stop) as caught:
            await created(says({}, status))
        assert caught.value.reason == reason


@pytest.mark.parametrize("changes", [{}, WHOLE, {"parameters": {}}, {"model": None, "parameters": {"model": "m"}}])
async def test_a_create_is_as_the_published_description_wants_it(changes: dict[str, Any]) -> None:
    if not SPEC.exists():
        pytest.skip("the published description of the API is not here")
    spec = YAML(typ="safe").load(SPEC)
    schema = spec["paths"]["/prompts"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    async with answering(says(RECORDED | changes)) as (target, _):
        body = body_of(target, await target.fetch(RECORDED["id"]))
    assert [error.message for error in OAS30Validator(schema).iter_errors(body)] == []
    undescribed = set(body) - set(schema["properties"])
    assert undescribed <= {"is_raw_template"}  # the description lacks it; the guides of the product have it
    for name in schema["required"]:
        broken = {key: value for key, value in body.items() if key != name}
        assert list(OAS30Validator(schema).iter_errors(broken))


# ---- keys and workspaces ---------------------------------------------------------------------------------------------

READS = {"prompts.list", "prompts.read"}


@pytest.mark.parametrize(
    ("scopes", "asked", "there"),
    [
        ({"providers.list"}, ["/v1/providers"], True),
        ({"virtual_keys.list"}, ["/v1/providers", "/v1/virtual-keys"], True),
        (set(), ["/v1/providers", "/v1/virtual-keys"], False),
    ],
)
async def test_providers_are_looked_for_in_both_places(scopes: set[str], asked: list[str], there: bool) -> None:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        async with opened(sandbox.base_url, sandbox.key("main", READS | scopes)) as target:
            found = (await target.catalog({"providers"})).providers
        assert [seen.path for seen in sandbox.requests] == asked
    assert (found is not None) is there
    if found is not None:
        assert "anthropic-prod" in {one.slug for one in found}


async def test_a_key_of_the_organisation_says_its_workspace_everywhere() -> None:
    async with serve(SandboxOptions(prompts=3)) as sandbox:
        async with opened(sandbox.base_url, sandbox.admin_key, workspace="main") as target:
            rows = [row for page in [page async for page in target.pages()] for row in page.rows]
            source = await target.fetch(rows[0].id)
            found = await target.catalog({"collections", "providers", "partials"})
            outcome = await _created_at(target, source)
        assert len(rows) == 3
        assert None not in (found.collections, found.providers, found.partials)
        assert isinstance(outcome, Created)
        assert len(sandbox.prompts()) == 4


async def test_a_key_of_the_organisation_reaches_no_workspace_without_its_name() -> None:
    async with serve(SandboxOptions(prompts=3)) as sandbox, opened(sandbox.base_url, sandbox.admin_key) as target:
        with pytest.raises(Rejected):
            [page async for page in target.pages()]


async def test_the_workspace_is_in_the_query_of_reads_and_the_body_of_creates() -> None:
    listing = {"object": "list", "total": 0, "data": []}
    async with answering(says(RECORDED), says(listing), workspace="w1") as (target, server):
        source = await target.fetch(RECORDED["id"])
        assert [page.total async for page in target.pages()] == [0]
        await target.catalog({"collections", "providers", "partials"})
        body = body_of(target, source)
    for received in server.received:
        assert parse_qs(urlsplit(received.target).query)["workspace_id"] == ["w1"]
    assert len(server.received) == 5
    assert body["workspace_id"] == "w1"


async def _created_at(target: Target, source: Prompt) -> Outcome:
    async def sending() -> None:
        pass

    replica = make_replica(source, source, migration="m", registry=REGISTRY)
    (outcome,) = await target.create([target.encode(replica)], sending)
    return outcome


async def test_an_update_takes_away_what_the_prompt_is_not_to_have_any_more() -> None:
    """A patch cannot say so: what it leaves out the registry takes from the latest version."""
    async with serve(SandboxOptions(prompts=0)) as sandbox, opened(sandbox.base_url, sandbox.api_key) as target:
        prompt_id = sandbox.add_prompt("a", tools=[{"type": "function"}], tool_choice="auto", parameters={"top_p": 1})
        source = await target.fetch(prompt_id)
        wanted = replace(source, tools=None, tool_choice=None)
        replica = make_replica(source, wanted, migration="m", registry=REGISTRY, mark_in="nowhere")
        assert isinstance(await target.update(prompt_id, target.encode_update(replica, {"tools"}), no_intent), Updated)
        found = await target.fetch(prompt_id, "latest")
    assert (found.tools, found.tool_choice, found.parameters) == (None, None, {"top_p": 1})
    assert (found.text, found.provider) == (source.text, source.provider)


async def test_an_archived_prompt_is_listed_as_archived() -> None:
    def row(sandbox: Sandbox) -> str:
        return sandbox.add_prompt("old", archived=True)

    async with serve(SandboxOptions(prompts=0)) as sandbox:
        prompt_id = row(sandbox)
        async with opened(sandbox.base_url, sandbox.api_key) as target:
            (found,) = [one for page in [page async for page in target.pages()] for one in page.rows]
    assert (found.id, found.archived) == (prompt_id, True)
