"""MLflow as source and target, call by call: what others wrote, answers that refuse, listings that shift."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from engine.config import load_migration
from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.mlflow.dialect import ALIASES, MLFLOW, NAMES
from engine.connectors.mlflow.format import held_of, prompt_of
from engine.connectors.mlflow.messages import unloadable
from engine.content.digest import differences, make_replica
from engine.content.translate import translate
from engine.errors import ConfigError, EngineError, Gone, Rejected, Stop
from engine.model import Created, Failed, Outcome, Prompt, Target, Unknown, no_intent
from tests import ends
from tests.mlflow_server import Item, MlflowServer, sent, serve_mlflow
from tests.raw_server import RawServer, answer

IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
BODIES = Path(__file__).parents[1] / "real" / "bodies" / "mlflow.json"


@pytest.fixture
async def server() -> AsyncIterator[MlflowServer]:
    async with serve_mlflow() as opened:
        yield opened


@asynccontextmanager
async def target_at(url: str, **end: Any) -> AsyncIterator[Target]:
    async with REGISTRIES["mlflow"].connect(ends.mlflow(url, **end), ends.opening(attempts=1)) as opened:
        yield opened


@pytest.fixture
async def target(server: MlflowServer) -> AsyncIterator[Target]:
    async with target_at(server.url) as opened:
        yield opened


def one(**fields: Any) -> Prompt:
    return Prompt(**{"id": "p", "name": "a", "text": "Hi {{ name }}", "dialect": "mlflow"} | fields)


def body(target: Target, source: Prompt, migration: str = "m") -> bytes:
    return target.encode(make_replica(source, source, migration=migration, registry="r"))


async def create(target: Target, source: Prompt, migration: str = "m") -> Outcome:
    (outcome,) = await target.create([body(target, source, migration)], no_intent)
    return outcome


def refused(target: Target, **fields: Any) -> str:
    with pytest.raises(Rejected) as caught:
        body(target, one(**fields))
    return str(caught.value)


# ---- what others wrote -----------------------------------------------------------------------------------------------


def recorded(call: str) -> Prompt:
    """The prompt as its own client made it, in the last answer of that call that has it whole."""
    (found,) = (one for one in json.loads(BODIES.read_text()) if one["call"] == call)
    rows = [wire["answer"]["registered_model"] for wire in found["wire"] if "registered_model" in wire["answer"]]
    held = held_of(rows[-1])
    assert held.newest
    return prompt_of(held, held.newest, "production")


def test_what_its_own_client_wrote_is_read_whole() -> None:
    found = recorded("register_prompt, a second version, with all there is")
    assert (found.text, found.description, found.version) == ("Hello {{ name }}", "kinder", "2")
    assert (found.provider, found.model) == ("openai", "gpt-4o")
    assert found.parameters == {
        "temperature": 0.1,
        "max_tokens": 100,
        "top_p": 0.9,
        "top_k": 5,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "stop_sequences": ["x"],
        "seed": 3,
        "response_format": {
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "required": ["answer"],
        },
    }
    assert (found.metadata, dict(found.extra), found.notes) == ({"team": "support"}, {}, ())


def test_a_chat_of_its_own_client_is_a_chat() -> None:
    found = recorded("register_prompt, chat, with all there is")
    assert json.loads(found.text)[0] == {"role": "system", "content": "You are {{ persona }}."}
    assert not found.extra


async def test_what_is_said_of_the_prompt_counts_for_versions_of_others(server: MlflowServer, target: Target) -> None:
    tags = {"mlflow.prompt.is_prompt": "true", "team": "docs", "collection": "support"}
    server.do("registered-models/create", {"name": "a", "description": "of the prompt", "tags": sent(tags)})
    server.plant("a", "one", "two", team="sales")
    server.do("model-versions/update", {"name": "a", "version": "2", "description": "of the version"})
    first, second = await target.fetch("a", "1"), await target.fetch("a", "2")
    assert (first.description, first.collection, first.metadata) == ("of the prompt", "support", {"team": "sales"})
    assert second.description == "of the version"
    assert second.metadata == {"team": "sales", "prompt_description": "of the prompt"}


async def test_a_version_of_ours_says_all_of_itself(server: MlflowServer, target: Target) -> None:
    source = one(metadata={"team": "docs"}, description="why", collection="support")
    assert isinstance(await create(target, source), Created)
    for key, value in {"team": "sales", "more": "x", "_mlflow_experiment_ids": ",0,"}.items():
        server.do("registered-models/set-tag", {"name": "a", "key": key, "value": value})
    changed = one(metadata={}, description=None, collection=None, text="bye")
    replica = make_replica(changed, changed, migration="m", registry="r")
    assert differences(source, await target.fetch("a")) == ()
    await target.update("a", target.encode_update(replica, None), no_intent)
    assert differences(changed, await target.fetch("a", "latest")) == ()
    assert differences(source, await target.fetch("a")) == ()


@pytest.mark.parametrize(
    ("tags", "extra"),
    [
        ({"_mlflow_prompt_type": "chat"}, {"_mlflow_prompt_type": "chat"}),
        ({"mlflow.prompt.text": '[{"role": "user", "content": "x"}]'}, {"_mlflow_prompt_type": "text"}),
        ({"mlflow.prompt.text": "[]", "_mlflow_prompt_type": "chat"}, {}),
        ({"_mlflow_prompt_tools": "[1]"}, {"_mlflow_prompt_tools": "[1]"}),
        ({"_mlflow_prompt_model_config": "[1]"}, {"model_config": "[1]"}),
        ({"_mlflow_prompt_model_config": '{"model_name": 5}'}, {"model_config.model_name": 5}),
        (
            {"_mlflow_prompt_model_config": '{"response_format": 1}', "_mlflow_prompt_response_format": "2"},
            {"model_config.response_format": 1},
        ),
        ({"mlflow.prompt.associatedRunIds": "1,2"}, {}),
    ],
)
async def test_what_has_no_field_is_extra(
    tags: dict[str, str], extra: Item, server: MlflowServer, target: Target
) -> None:
    server.plant("a", "text", **tags)
    assert (await target.fetch("a")).extra == extra


async def test_a_stage_is_a_note_and_a_missing_text_is_no_prompt(server: MlflowServer, target: Target) -> None:
    server.plant("a", "text")
    server.models["a"]["versions"]["1"]["current_stage"] = "Production"
    assert "is in the stage Production, which is not copied" in (await target.fetch("a")).notes
    del server.models["a"]["versions"]["1"]["tags"]["mlflow.prompt.text"]
    with pytest.raises(Rejected, match="has no text"):
        await target.fetch("a")


async def test_without_its_alias_the_newest_counts_and_a_note_says_so(server: MlflowServer, target: Target) -> None:
    server.plant("a", "one", "two")
    found = await target.fetch("a")
    assert (found.text, len(found.notes)) == ("two", 1)
    assert "no version has the alias production" in found.notes[0]
    server.do("registered-models/alias", {"name": "a", "alias": "production", "version": "1"})
    server.do("registered-models/alias", {"name": "a", "alias": "staging", "version": "1"})
    found = await target.fetch("a")
    assert (found.text, found.notes, found.labels) == ("one", (), ("staging",))
    assert [(one.ref, one.labels) for one in await target.versions("a")] == [("1", ("staging",)), ("2", ())]
    async with target_at(server.url, published_by="newest") as other:
        found = await other.fetch("a")
        assert (found.text, found.notes, found.labels) == ("two", (), ())


async def test_the_newest_version_is_the_one_with_the_largest_number() -> None:
    versions = [{"version": number, "tags": [{"key": "mlflow.prompt.text", "value": number}]} for number in ("9", "10")]
    held = held_of({"name": "a", "latest_versions": versions})
    assert held.newest
    assert prompt_of(held, held.newest, "production").text == "10"


@pytest.mark.parametrize("name", ["it's", 'say "x"', "both ' and \""])
async def test_versions_of_a_name_with_quotes(name: str, server: MlflowServer, target: Target) -> None:
    server.plant(name, "one", "two", "three")
    server.do("model-versions/delete", {"name": name, "version": "2"})
    assert [one.ref for one in await target.versions(name)] == ["1", "3"]


# ---- the listing -----------------------------------------------------------------------------------------------------


async def names(target: Target) -> list[str]:
    return [row.name for page in [page async for page in target.pages()] for row in page.rows]


def shifting(server: MlflowServer, *changes: Callable[[], object]) -> None:
    """These happen between the first page of a listing and the next one."""
    left = list(changes)

    async def late(path: str, given: Item) -> None:
        if path == "registered-models/search" and "page_token" not in given and left:
            left.pop(0)()

    server.late = late


async def test_a_prompt_that_is_deleted_between_pages_hides_none(server: MlflowServer, target: Target) -> None:
    for number in range(250):
        server.plant(f"p{number:03}", "text")
    shifting(server, lambda: server.models.pop("p000"))
    assert await names(target) == sorted(server.models)


async def test_a_prompt_that_is_created_between_pages_shows_none_twice(server: MlflowServer, target: Target) -> None:
    for number in range(250):
        server.plant(f"p{number:03}", "text")
    shifting(server, lambda: server.plant("a", "text"))
    assert await names(target) == sorted(server.models)


async def test_a_listing_that_does_not_hold_still_is_refused(server: MlflowServer, target: Target) -> None:
    for number in range(250):
        server.plant(f"p{number:03}", "text")
    shifting(server, *(lambda at=at: server.models.pop(f"p{at:03}") for at in range(9)))
    with pytest.raises(Stop, match="did not hold still"):
        await names(target)


async def test_models_that_are_no_prompts_are_not_there(server: MlflowServer, target: Target) -> None:
    server.do("registered-models/create", {"name": "model"})
    assert await names(target) == []
    with pytest.raises(Gone, match="no prompt"):
        await target.fetch("model")


async def test_a_row_tells_of_what_is_published_or_nothing(server: MlflowServer, target: Target) -> None:
    config = json.dumps({"model_name": "gpt"})
    server.plant("a", "one", "two", _mlflow_prompt_model_config=config, collection="c")
    server.plant("half")
    (told, half) = [row for page in [page async for page in target.pages()] for row in page.rows]
    assert (told.model, told.collection, told.whole, told.updated_at) == ("gpt", "c", True, None)
    assert (half.name, half.model, half.whole) == ("half", None, False)
    server.do("registered-models/alias", {"name": "a", "alias": "production", "version": "1"})
    (told, _) = [row for page in [page async for page in target.pages()] for row in page.rows]
    assert (told.model, told.collection, told.whole) == (None, None, False)


# ---- a create in two calls -------------------------------------------------------------------------------------------


async def test_a_prompt_of_ours_without_a_version_is_finished(server: MlflowServer, target: Target) -> None:
    parts = json.loads(body(target, one()))
    server.do("registered-models/create", parts["prompt"])
    with pytest.raises(Gone):
        await target.fetch("a")
    server.calls()
    made = await create(target, one())
    assert made == Created(target_id="a", version="1", version_id="1")
    assert (server.texts("a"), server.models["a"]["aliases"]) == (["Hi {{ name }}"], {"production": "1"})


@pytest.mark.parametrize("origin", ["nobody's", "another migration's", "with a version"])
async def test_a_name_that_is_not_ours_is_never_finished(origin: str, server: MlflowServer, target: Target) -> None:
    if origin == "another migration's":
        server.do("registered-models/create", json.loads(body(target, one(), "other"))["prompt"])
    else:
        server.plant("a", *(["theirs"] if origin == "with a version" else []))
    before = json.dumps(server.models)
    made = await create(target, one())
    assert isinstance(made, Failed)
    assert (made.exists, made.status) == (True, 400)
    assert json.dumps(server.models) == before


async def test_somebody_elses_prompt_without_a_version_fails_by_name(server: MlflowServer, target: Target) -> None:
    server.plant("half")
    with pytest.raises(Rejected, match="'half' has no version") as caught:
        await target.fetch("half")
    assert not isinstance(caught.value, Gone)


@pytest.mark.parametrize(
    ("path", "status", "kind", "left"),
    [
        ("registered-models/create", 400, Failed, 0),
        ("registered-models/create", 502, Unknown, 0),
        ("model-versions/create", 400, Failed, 0),
        ("model-versions/create", 502, Unknown, 1),
        ("registered-models/alias", 400, Unknown, 1),
        ("registered-models/alias", 502, Unknown, 1),
    ],
)
async def test_each_call_of_a_create_may_go_wrong(
    path: str, status: int, kind: type, left: int, server: MlflowServer, target: Target
) -> None:
    async def early(asked: str, _given: Item) -> web.StreamResponse | None:
        return web.json_response({"error_code": "NO", "message": "no"}, status=status) if asked == path else None

    server.early = early
    made = await create(target, one())
    assert isinstance(made, kind)
    assert len(server.models) == left


async def test_an_answer_without_a_version_is_in_doubt(server: MlflowServer, target: Target) -> None:
    async def late(path: str, _given: Item) -> web.StreamResponse | None:
        return web.json_response({}) if path == "model-versions/create" else None

    server.late = late
    assert isinstance(await create(target, one()), Unknown)


# ---- what is refused before it is sent -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"text": "x" * 100_001}, "its text: 100,001 characters, and MLflow keeps 100,000"),
        ({"text": "\ud83d"}, "its text holds half a character"),
        ({"description": "\ud83d"}, "version_description holds half a character"),
        ({"parameters": {"response_format": "x" * 100_001}}, "parameters.response_format: 100,003 characters"),
        ({"parameters": {"deep": "x" * 100_001}}, "the parameters and tools: 1"),
        ({"parameters": {"model_name": "x"}}, "parameters.model_name: that name means something else in MLflow"),
        ({"metadata": {"n": ["x" * 100_001]}}, "metadata.n: 1"),
        ({"collection": "x" * 100_001}, "collection: 100,001 characters"),
        ({"name": "a b"}, "the name 'a b' cannot be used"),
        ({"parameters": {"x": float("nan")}}, "cannot be written as JSON without loss"),
        ({"text": '[{"role": 1, "content": "x"}]'}, "message 1 has a role that is no text"),
    ],
)
async def test_a_refusal_says_what_and_why(fields: dict[str, Any], why: str, target: Target) -> None:
    assert why in refused(target, **fields)


async def test_a_text_of_the_most_characters_goes(server: MlflowServer, target: Target) -> None:
    assert isinstance(await create(target, one(text="ü" * 100_000)), Created)


METADATA = {
    "plain": "text",
    "number": 1,
    "nested": {"a": [None]},
    "a,b": "comma",
    "": "no key",
    "/a": "a path",
    "k" * 251: "long",
    "half": "\ud83d",
    "big": "x" * 100_001,
    "collection": "not the one",
    "_mlflow_prompt_type": "not this one",
    "promptferry.metadata": "nor this",
}


@pytest.mark.parametrize("key", METADATA)
async def test_metadata_arrive_whatever_they_are(key: str, server: MlflowServer, target: Target) -> None:
    source = one(metadata={key: METADATA[key], "other": "x"})
    if key == "big":
        assert "metadata.big: 100," in refused(target, metadata=source.metadata)
        return
    assert isinstance(await create(target, source), Created)
    assert differences(source, await target.fetch("a")) == ()
    assert server.models["a"]["versions"]["1"]["tags"]["other"] == "x"


MESSAGES: list[tuple[dict[str, Any], bool]] = [
    ({"content": None}, True),
    ({"content": "x", "name": "n", "anything": [1]}, True),
    ({"content": 5}, False),
    ({"content": "x", "refusal": 5}, False),
    ({"content": "x", "tool_call_id": []}, False),
    ({"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]}, True),
    ({"tool_calls": []}, True),
    ({"tool_calls": {}}, False),
    ({"tool_calls": [{"function": {"name": "f"}}]}, False),
    ({"tool_calls": [{"id": "1", "function": {"arguments": {}}}]}, False),
    ({"tool_calls": [{"id": "1"}]}, False),
    ({"content": [{"type": "text", "text": "x"}]}, True),
    ({"content": [{"type": "text"}]}, False),
    ({"content": ["x"]}, False),
    ({"content": [{"type": "image_url", "image_url": {"url": "u", "detail": "low"}}]}, True),
    ({"content": [{"type": "image_url", "image_url": {"url": "u", "detail": "best"}}]}, False),
    ({"content": [{"type": "image_url", "image_url": "u"}]}, False),
    ({"content": [{"type": "input_audio", "input_audio": {"data": "d", "format": "wav"}}]}, True),
    ({"content": [{"type": "input_audio", "input_audio": {"data": "d", "format": "ogg"}}]}, False),
    ({"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "x"}], "id": 1}]}, True),
    ({"content": [{"type": "reasoning", "summary": [{"text": "x"}]}]}, False),
    ({"content": [{"type": "tool_result"}]}, False),
    ({"content": [{"type": ["text"]}]}, False),
]
"""What its own client takes of a message, and what it does not: tests/real asks that client."""


@pytest.mark.parametrize(("message", "loads"), MESSAGES)
def test_messages_that_its_client_can_load(message: dict[str, Any], loads: bool) -> None:
    assert (unloadable([{"role": "user", **message}]) is None) == loads


# ---- its answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "text", "words"),
    [
        (
            403,
            "text/plain",
            b"Invalid Host header - possible DNS rebinding attack detected",
            "MLFLOW_SERVER_ALLOWED_HOSTS",
        ),
        (403, "text/plain", b"Permission denied", "give it the permission in MLflow"),
        (404, "text/html", b"<!doctype html><title>404 Not Found</title>", "404"),
        (200, "text/html", b"<!doctype html>", "base_url is not its API"),
        (200, "application/json", b"[]", "not a list of registered_models"),
        (200, "application/json", b'{"registered_models": [{}]}', "it has no name"),
        (200, "application/json", b'{"registered_models": [{"name": "a", "tags": 5}]}', "tags of another type"),
        (
            200,
            "application/json",
            b'{"registered_models": [{"name": "a", "latest_versions": [{}]}]}',
            "without a number",
        ),
    ],
)
async def test_an_answer_that_is_no_listing_is_a_sentence(status: int, kind: str, text: bytes, words: str) -> None:
    async with RawServer(answer(status, text, {"Content-Type": kind})) as raw, target_at(raw.url) as target:
        with pytest.raises(EngineError) as caught:
            await names(target)
        assert words in str(caught.value)
        assert "firewall" not in str(caught.value)


ODD: list[Any] = [
    None,
    "x",
    5,
    [],
    {},
    {"registered_model": None},
    {"registered_model": {"name": 5}},
    {"registered_model": {"name": "b"}},
    {"registered_model": {"name": "a", "tags": [None, {"key": 5}, {"key": "k", "value": 5}]}},
    {"registered_model": {"name": "a", "tags": [IS_PROMPT], "aliases": [5, {"alias": 5}, {"alias": "production"}]}},
    {"registered_model": {"name": "a", "tags": [IS_PROMPT], "latest_versions": [{"version": "x"}]}},
    {"registered_model": {"name": "a", "tags": [IS_PROMPT], "latest_versions": [{"version": 2, "tags": 5}]}},
    {"registered_model": {"name": "a", "tags": [IS_PROMPT], "latest_versions": [{"version": True}]}},
    {"model_version": None},
    {"model_version": {"version": []}},
    {"registered_models": None},
    {"registered_models": [5]},
    {"registered_models": [], "next_page_token": "again"},
    {"registered_models": [{"name": "a", "creation_timestamp": 10**30}]},
]


@pytest.mark.parametrize("shape", ODD, ids=json.dumps)
async def test_an_answer_of_any_shape_is_an_error_of_ours(shape: Any) -> None:
    async with RawServer(answer(200, json.dumps(shape).encode())) as raw, target_at(raw.url) as target:
        replica = body(target, one())
        assert all(isinstance(one, Created | Failed | Unknown) for one in await target.create([replica], no_intent))
        assert await target.update("a", replica, no_intent)
        findings = [finding async for finding in target.write_test(None)]
        assert any(finding.level == "problem" for finding in findings)
        for work in (
            names(target),
            target.fetch("a"),
            target.fetch("a", "latest"),
            target.fetch("a", "3"),
            target.versions("a"),
            target.publish("a", "1"),
            target.label("a", "1", "x"),
            target.describe("a", "d"),
            target.delete("a"),
        ):
            with suppress(EngineError):
                await work


@pytest.mark.parametrize("shape", [[], {"message": "ok"}, None, "ok", {"data": []}, {"registered_models": 5}], ids=str)
async def test_another_api_is_not_taken_for_an_empty_registry(shape: Any) -> None:
    async with RawServer(answer(200, json.dumps(shape).encode())) as raw, target_at(raw.url) as target:
        with pytest.raises(Rejected, match="not a list"):
            await names(target)


@pytest.mark.parametrize(
    ("end", "header"),
    [
        ({}, None),
        ({"token": SecretStr("tok")}, "Bearer tok"),
        ({"username": "me", "password": SecretStr("pw")}, f"Basic {b64encode(b'me:pw').decode()}"),
    ],
)
async def test_keys_are_sent_as_the_server_wants_them(end: dict[str, Any], header: str | None) -> None:
    async with RawServer(answer(200, b"{}")) as raw, target_at(raw.url, **end) as target:
        assert await names(target) == []
        assert raw.received[0].headers.get("authorization") == header


async def test_a_password_that_is_refused_ends_the_run_and_is_not_shown() -> None:
    end = {"username": "me", "password": SecretStr("s3cretpw")}
    steps = answer(401, b"You are not authenticated. s3cretpw", {"Content-Type": "text/plain"})
    async with RawServer(steps) as raw, target_at(raw.url, **end) as target:
        with pytest.raises(Stop) as caught:
            await names(target)
        assert (caught.value.reason, "s3cretpw" in str(caught.value)) == ("key_refused", False)


# ---- the migration file ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "key", "words"),
    [
        ({}, "base_url", "is required"),
        ({"base_url": "sandbox"}, "base_url", "MLflow has no stand-in"),
        ({"username": "me"}, "password", "is required beside username"),
        ({"password": "${PW}"}, "password", "needs username beside it"),
        ({"token": "${PW}", "username": "me", "password": "${PW}"}, "username", "stands beside token"),
        ({"username": "a:b", "password": "${PW}"}, "username", "colon"),
        ({"published_by": "latest"}, "published_by", "is no alias"),
        ({"published_by": "v1"}, "published_by", "is no alias"),
        ({"published_by": "a.b"}, "published_by", "is no alias"),
        ({"published": "x"}, "published", "published_by"),
    ],
)
def test_a_wrong_end_is_told_by_its_key(end: dict[str, Any], key: str, words: str, tmp_path: Path) -> None:
    known = {"base_url": "http://127.0.0.1:5000"} if end else {}
    path = tmp_path / "m.yaml"
    path.write_text(json.dumps({"name": "m", "source": {"kind": "mlflow", **known, **end}}))
    with pytest.raises(ConfigError) as caught:
        load_migration(path, {"PW": "pw"})
    assert f"source.{key}" in str(caught.value)
    assert words in str(caught.value)


def test_its_rules_for_names() -> None:
    assert all(map(NAMES.takes, ["A.b_c-9", "...", "x" * 256]))
    assert not any(map(NAMES.takes, ["", ".", "..", "a b", "a/b", "ü", "x" * 257, "a\n"]))
    assert all(map(ALIASES.takes, ["PROD", "1", "prod-1_x", "ü", "version"]))
    assert not any(map(ALIASES.takes, ["latest", "Latest", "v1", "V30", "a b", "a.b", "", "x" * 256]))


# ---- its dialect -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("{{a}} {{ b_1 }} {{\n c.d }}", ["a", "b_1", "c.d"]),
        ("{{a-b}} {{1}} {{#x}} {{}} {{ü}} { {a} }", []),
        ("{{{x}}}", ["x"]),
        ("{% if a %}{{ b }}{{ c|upper }}{# d #}{% endif %}", ["b"]),
    ],
)
def test_variables_are_those_that_its_client_finds(text: str, variables: list[str]) -> None:
    tokens = MLFLOW.grammar.tokens(text)
    assert [token.body for token in tokens if token.kind == "variable"] == variables
    if "{%" not in text:
        assert MLFLOW.grammar.tokens(MLFLOW.grammar.text(tokens)) == tokens


@pytest.mark.parametrize("text", ["{% if a %}{{ b }}{% endif %}", "%} {%", "{{{x}}}", "{{#x}}"])
def test_what_only_mlflow_reads_so_is_refused_elsewhere(text: str) -> None:
    assert translate(one(text=text), MLFLOW, DIALECTS["portkey"]).refused


FORMATS: list[tuple[Any, Any]] = [
    (
        {"type": "object", "properties": {}},
        {"type": "json_schema", "json_schema": {"name": "response", "schema": {"type": "object", "properties": {}}}},
    ),
    ({"type": "json_object"}, {"type": "json_object"}),
    (
        {"type": "json_schema", "json_schema": {"name": "reply", "schema": {}, "strict": True}},
        {"type": "json_schema", "json_schema": {"name": "reply", "schema": {}, "strict": True}},
    ),
]


@pytest.mark.parametrize(("there", "here"), FORMATS)
def test_a_response_format_goes_and_comes_back(there: Any, here: Any) -> None:
    away = translate(one(parameters={"response_format": there}), MLFLOW, DIALECTS["portkey"])
    assert (away.prompt.parameters, away.losses) == ({"response_format": here}, ())
    back = translate(away.prompt, DIALECTS["portkey"], MLFLOW)
    assert back.prompt.parameters == {"response_format": there}


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("{{ prompt }} and {{self}}", ["prompt, self"]),
        (json.dumps([{"role": "user", "content": "{{allow_partial}}"}]), ["allow_partial"]),
        (json.dumps([{"role": "user", "content": [{"type": "text", "text": "x"}]}]), ["content is no text"]),
        ("{{ prompts }} {prompt} {{user.prompt}}", []),
    ],
)
def test_what_its_own_client_cannot_fill_in_is_told_and_written(text: str, notes: list[str]) -> None:
    told = translate(one(text=text, dialect="portkey"), DIALECTS["portkey"], MLFLOW).prompt
    assert MLFLOW.fit is not None
    fitted = MLFLOW.fit(told)
    assert (fitted.losses, fitted.refused, fitted.prompt) == ((), (), told)
    assert [note for note, word in zip(fitted.notes, notes, strict=True) if word in note] == [*fitted.notes]
