"""Conductor's wire: tokens, names in paths, bulks that are believed only when they are read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from traceback import format_exception
from typing import Any

import anyio
import pytest

from engine.connectors.conductor.registry import Conductor, connect
from engine.content.digest import differences, key_of, make_replica
from engine.errors import EngineError, Gone, Rejected, Stop
from engine.lossless_json import decode
from engine.lossless_json.numbers import Number
from engine.model import Created, Failed, Finding, Outcome, Prompt, Replica, Row, Unknown, Updated, no_intent
from engine.sandbox import ConductorQuirks, Quirks, Sandbox, SandboxOptions, serve
from tests import ends
from tests.raw_server import RawServer, Step, answer
from tests.workspaces import REGISTRY

PAIR = "openai-prod:gpt-4o"
SECRET = "a-secret-of-a-test"


@asynccontextmanager
async def opened(
    url: str, secret: str = SECRET, *, attempts: int = 1, concurrency: int = 16, batch: int = 50
) -> AsyncIterator[Conductor]:
    opening = ends.opening(attempts=attempts, concurrency=concurrency, batch=batch)
    async with connect(ends.conductor(url, secret), opening) as target:
        yield target


@asynccontextmanager
async def cluster(**manners: Any) -> AsyncIterator[tuple[Sandbox, Conductor]]:
    async with serve(SandboxOptions(prompts=0, conductor=ConductorQuirks(**manners))) as sandbox:
        sandbox.add_integration(PAIR)
        async with opened(sandbox.conductor_url, sandbox.api_key) as target:
            yield sandbox, target


@asynccontextmanager
async def answering(*steps: Step) -> AsyncIterator[tuple[Conductor, RawServer]]:
    """A server of these answers, after that of /token; one request at a time."""
    async with (
        RawServer(says({"token": "eyJ-a-token"}), *steps) as server,
        opened(f"{server.url}/api", concurrency=1) as target,
    ):
        yield target, server


def says(value: Any, status: int = 200) -> Step:
    return answer(status, json.dumps(value).encode())


def calls(sandbox: Sandbox) -> Counter[str]:
    """Method and path of every request but those for tokens, names of prompts as `*`."""
    seen = [(one.method, one.path.removeprefix("/api").split("/")) for one in sandbox.requests]
    return Counter(
        f"{method} {'/'.join([*parts[:2], *('*' if part else '' for part in parts[2:3]), *parts[3:]])}"
        for method, parts in seen
        if parts[1] != "token"
    )


def token_calls(sandbox: Sandbox) -> int:
    return sum(one.path == "/api/token" for one in sandbox.requests)


def prompt_at(number: int = 1, **fields: Any) -> Prompt:
    known: dict[str, Any] = {
        "id": f"p{number}",
        "name": f"prompt {number}",
        "text": f"Hello ${{name}}, this is {number}",
        "provider": "openai-prod",
        "model": "gpt-4o",
        "dialect": "conductor",
    }
    return Prompt(**known | fields)


def replica_of(source: Prompt) -> Replica:
    return make_replica(source, source, migration="m", registry=REGISTRY)


async def nothing() -> None:
    """There is no intent to be written."""


async def made(target: Conductor, sources: Sequence[Prompt]) -> list[Outcome]:
    """A bulk of the replicas of these prompts."""
    return await target.create([target.encode(replica_of(source)) for source in sources], nothing)


async def encoded(number: int = 1, **fields: Any) -> dict[str, Any]:
    """A prompt as a bulk sends it."""
    async with cluster() as (_, target):
        item: dict[str, Any] = json.loads(target.encode(replica_of(prompt_at(number))))
        return item | fields


async def changed(target: Conductor, target_id: str, source: Prompt) -> Outcome:
    return await target.update(target_id, target.encode_update(replica_of(source), None), nothing)


async def rows_of(target: Conductor) -> list[Row]:
    return [row async for page in target.pages() for row in page.rows]


def kept(sandbox: Sandbox, name: str, *fields: str) -> list[Any]:
    """These fields of the newest version, as the registry has them."""
    (found,) = (one for one in sandbox.conductor_prompts() if one["name"] == name)
    return [found.get(field) for field in fields]


def marked(sandbox: Sandbox) -> set[str]:
    """Names of the prompts that carry the mark of the source their number says."""
    return {
        one["name"]
        for one in sandbox.conductor_prompts()
        if {"key": "promptferry", "value": key_of("m", REGISTRY, one["name"].replace("prompt ", "p"))} in one["tags"]
    }


# ---- tokens ----------------------------------------------------------------------------------------------------------


async def fetch_all(target: Conductor, names: Sequence[str], *, workers: int) -> None:
    """Each of them, so many in flight."""
    rest = iter(names)

    async def work() -> None:
        for name in rest:
            await target.fetch(name)

    async with anyio.create_task_group() as group:
        for _ in range(workers):
            group.start_soon(work)


async def test_requests_that_start_together_share_one_token() -> None:
    async with cluster() as (sandbox, target):
        sandbox.add_conductor_prompt("a")
        await fetch_all(target, ["a"] * 16, workers=16)
        assert (sandbox.token_count, token_calls(sandbox)) == (1, 1)
        assert calls(sandbox) == {"GET /prompts/*": 16}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("workers", [16, 400], ids=["16 in flight", "all of them at the gate"])
async def test_a_token_that_expires_every_50_requests_is_renewed_once_per_expiry(status: Any, workers: int) -> None:
    async with cluster(token_requests=50, token_status=status) as (sandbox, target):
        sandbox.add_conductor_prompt("a")
        await fetch_all(target, ["a"] * 400, workers=workers)
        good = sum(one.status == 200 for one in sandbox.requests if one.method == "GET")
        assert (good, sandbox.token_count, token_calls(sandbox)) == (400, 8, 8)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_bulk_that_meets_an_expired_token_is_carried_out_once(status: Any) -> None:
    async with cluster(token_status=status) as (sandbox, target):
        await target.catalog(())
        sandbox.expire_tokens()
        (outcome,) = await made(target, [prompt_at()])
        assert isinstance(outcome, Created)
        assert sandbox.token_count == 2


async def test_a_permission_that_is_missing_never_renews_the_token() -> None:
    async with cluster() as (sandbox, target):
        sandbox.add_integration("openai-prod:secret", readable=False)
        (outcome,) = await made(target, [prompt_at(model="secret")])
        assert isinstance(outcome, Failed)
        assert (outcome.error, outcome.status, outcome.retriable) == ("forbidden", 403, True)
        assert (sandbox.token_count, token_calls(sandbox)) == (1, 1)


@pytest.mark.parametrize("echo", [False, True])
async def test_a_wrong_secret_ends_the_run_and_is_not_told(echo: bool) -> None:
    async with serve(SandboxOptions(prompts=0, quirks=Quirks(echo_key=echo))) as sandbox:
        async with opened(sandbox.conductor_url) as target:
            with pytest.raises(Stop) as caught:
                await made(target, [prompt_at()])
        assert caught.value.reason == "key_refused"
        assert "key" in caught.value.next
        assert_nothing_secret(caught.value, SECRET)
        assert token_calls(sandbox) == 1


async def test_a_token_is_in_no_error_and_in_no_repr() -> None:
    options = SandboxOptions(prompts=0, quirks=Quirks(echo_key=True))
    async with serve(options) as sandbox, opened(sandbox.conductor_url, sandbox.api_key) as target:
        with pytest.raises(Gone) as caught:
            await target.fetch("not there")
        assert_nothing_secret(caught.value, sandbox.api_key)
        assert "eyJ" not in f"{target!r} {vars(target)!r}"


async def test_a_secret_that_any_answer_repeats_is_not_told() -> None:
    async with answering(says({"message": f"not there, says {SECRET} with eyJ-a-token"}, 404)) as (target, _):
        with pytest.raises(Gone, match="not there, says") as caught:
            await target.fetch("a")
        assert_nothing_secret(caught.value, SECRET)


def assert_nothing_secret(error: EngineError, secret: str) -> None:
    told = "".join(format_exception(error, chain=True)) + repr(error) + getattr(error, "next", "")
    assert secret not in told
    assert "eyJ" not in told


async def test_a_token_that_is_refused_at_once_again_ends_the_run() -> None:
    refused, again = (
        says({"status": 401, "error": "INVALID_TOKEN", "message": f"{token} is not valid"}, 401)
        for token in ("eyJ-a-token", "eyJ-another-token")
    )
    async with answering(refused, says({"token": "eyJ-another-token"}), again) as (target, server):
        with pytest.raises(Stop) as caught:
            await target.fetch("a")
        assert caught.value.reason == "key_refused"
        assert_nothing_secret(caught.value, SECRET)
        assert [one.target for one in server.received] == ["/api/token", "/api/prompts/a"] * 2


@pytest.mark.parametrize("step", [says({}), says([]), says({"token": ""}), says({"message": "no such route"}, 404)])
async def test_an_answer_without_a_token_ends_the_run(step: Step) -> None:
    async with RawServer(step) as server, opened(f"{server.url}/wrong") as target:
        with pytest.raises(Stop) as caught:
            await target.fetch("a")
        assert caught.value.reason == "key_refused"
        assert "/api" in caught.value.next


async def test_the_token_stands_alone_in_its_header() -> None:
    async with answering(says([])) as (target, server):
        assert await rows_of(target) == []
        first, second = server.received
        assert json.loads(first.body) == {"keyId": "tests", "keySecret": SECRET}
        assert "x-authorization" not in first.headers
        assert second.headers["x-authorization"] == "eyJ-a-token"


# ---- reading ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tags_in_prompt", [True, False])
async def test_tags_are_read_where_the_answer_carries_none(tags_in_prompt: bool) -> None:
    async with cluster(tags_in_prompt=tags_in_prompt) as (sandbox, target):
        sandbox.add_conductor_prompt("a", tags={"team": "ops", "collection": "support"})
        found = await target.fetch("a")
        assert (found.metadata, found.collection) == ({"team": "ops"}, "support")
        assert calls(sandbox)["GET /prompts/*/tags"] == (0 if tags_in_prompt else 1)


async def test_every_version_is_read_by_its_number_and_the_newest_is_the_one_in_use() -> None:
    async with cluster() as (sandbox, target):
        for number in (1, 10, 9):
            sandbox.add_conductor_prompt("a", f"text {number}", version=number)
        assert [(one.ordinal, one.ref, one.id) for one in await target.versions("a")] == [
            (1, "1", "1"),
            (9, "9", "9"),
            (10, "10", "10"),
        ]
        assert [(await target.fetch("a", asked)).version for asked in ("published", "latest", "9")] == ["10", "10", "9"]
        with pytest.raises(Gone):
            await target.fetch("a", "2")
        with pytest.raises(Gone):
            await target.versions("not there")


async def test_a_listing_is_one_call() -> None:
    async with cluster() as (sandbox, target):
        for number in range(30):
            sandbox.add_conductor_prompt(f"prompt {number}", integrations=[PAIR], tags={"collection": "support"})
        rows = await rows_of(target)
        assert {row.id for row in rows} == {f"prompt {number}" for number in range(30)}
        assert {(row.model, row.collection) for row in rows} == {("gpt-4o", "support")}
        assert calls(sandbox) == {"GET /prompts": 1}


async def test_the_catalog_is_one_call_and_tells_what_is_there_and_enabled() -> None:
    async with cluster() as (sandbox, target):
        sandbox.add_integration("a:off", enabled=False)
        sandbox.add_integration("a:hidden", readable=False)
        sandbox.add_integration("ollama:llama3:8b")
        found = await target.catalog({"providers", "collections", "partials", "labels"})
        assert found.integrations is not None
        assert {PAIR, "ollama:llama3:8b"} <= {*found.integrations}
        assert not {"a:off", "a:hidden"} & {*found.integrations}
        assert calls(sandbox) == {"GET /integrations/*": 1}


async def test_a_key_that_may_not_list_integrations_has_no_catalog_of_them() -> None:
    async with answering(says({"message": "no", "error": "FORBIDDEN"}, 403)) as (target, _):
        assert (await target.catalog({"providers"})).integrations is None


FULL: dict[str, Any] = {
    "name": "a",
    "template": "Hello ${name}",
    "description": "says hello",
    "integrations": ["zhipu:glm:4", "openai:gpt-4o", "azure:o3"],
    "version": 3,
    "variables": ["name"],
    "tags": [
        {"key": "team", "value": "risk", "type": "METADATA"},
        {"key": "team", "value": "ops"},
        {"key": "collection", "value": "support"},
        {"key": "owner", "value": "me"},
    ],
    "temperature": 0,
    "topP": 0.9,
    "responseFormat": "json",
    "stopWords": ["#"],
    "createTime": 1_700_000_000_000,
    "updateTime": 1_700_000_000_123,
    "createdBy": "somebody",
    "updatedBy": "somebody",
    "ownerApp": "app",
}


async def fetched(**changes: Any) -> Prompt:
    async with answering(says(FULL | changes)) as (target, _):
        return await target.fetch(changes.get("name", "a"))


async def test_every_field_ends_somewhere() -> None:
    assert await fetched() == Prompt(
        id="a",
        name="a",
        text="Hello ${name}",
        collection="support",
        provider="azure",
        model="o3",
        integrations=("openai:gpt-4o", "zhipu:glm:4"),
        parameters={"temperature": 0, "topP": 0.9, "responseFormat": "json", "stopWords": ["#"]},
        metadata={"team": ["ops", "risk"], "owner": "me"},
        description="says hello",
        version="3",
        updated_at="2023-11-14T22:13:20.123Z",
        dialect="conductor",
    )


@pytest.mark.parametrize("order", [FULL["integrations"], FULL["integrations"][::-1]])
async def test_integrations_are_a_set_that_reads_the_same_in_every_order(order: list[str]) -> None:
    assert differences(await fetched(), await fetched(integrations=order)) == ()


async def test_the_models_name_begins_behind_the_first_colon() -> None:
    found = await fetched(integrations=["ollama:llama3:8b"])
    assert (found.provider, found.model, found.integrations) == ("ollama", "llama3:8b", ())


@pytest.mark.parametrize("integrations", [None, []])
async def test_a_prompt_without_integrations_has_no_model(integrations: Any) -> None:
    found = await fetched(integrations=integrations)
    assert (found.provider, found.model, found.integrations) == (None, None, ())


async def test_what_is_not_known_but_has_a_value_is_kept_in_sight() -> None:
    found = await fetched(maxTokens=100, guardrails={"pii": True}, nothing=None)
    assert found.extra == {"maxTokens": 100, "guardrails": {"pii": True}}


@pytest.mark.parametrize(
    "changes",
    [{"template": None}, {"template": 3}, {"name": "b"}, {"integrations": "x"}, {"tags": {}}, {"version": "1"}],
)
async def test_an_answer_that_is_not_the_prompt_asked_for_is_refused_without_its_text(changes: dict[str, Any]) -> None:
    async with answering(says(FULL | changes)) as (target, _):
        with pytest.raises(Rejected) as caught:
            await target.fetch("a")
        assert caught.value.error == "bad_answer"
        assert "Hello" not in str(caught.value)


@pytest.mark.parametrize("value", [{}, [None], [{"template": "t"}], "text", [[]]])
async def test_a_listing_that_is_none_is_refused(value: Any) -> None:
    async with answering(says(value)) as (target, _):
        with pytest.raises(Rejected):
            await rows_of(target)


@pytest.mark.parametrize("name", ["a/b", "/", "a/../b"])
async def test_a_name_that_no_path_can_hold_is_read_from_the_listing(name: str) -> None:
    async with cluster() as (sandbox, target):
        sandbox.add_conductor_prompt(name, "first")
        sandbox.add_conductor_prompt("b", "second")
        assert [row.id for row in await rows_of(target) if row.name == name] == [name]
        assert (await target.fetch(name)).text == "first"
        with pytest.raises(Gone):
            await target.fetch(f"{name}/not there")


async def test_a_slash_in_a_name_is_encoded_for_a_server_that_takes_it() -> None:
    async with cluster(encoded_slash=True) as (sandbox, target):
        sandbox.add_conductor_prompt("a/b")
        assert [one.ref for one in await target.versions("a/b")] == ["1"]
        await target.delete("a/b")
        assert sandbox.conductor_prompts() == []


@pytest.mark.parametrize("text", ['First\\nsecond \\"${x}\\"', '"quoted"', "\\u00e9", "$${x}", "${{x}}", "{{x}}", "\\"])
async def test_a_template_that_looks_escaped_is_read_and_written_as_it_stands(text: str) -> None:
    async with cluster() as (sandbox, target):
        sandbox.add_conductor_prompt("a", text)
        assert (await target.fetch("a")).text == text
        assert isinstance((await made(target, [prompt_at(text=text)]))[0], Created)
        assert kept(sandbox, "prompt 1", "template") == [text]


# ---- names -----------------------------------------------------------------------------------------------------------

NAMES = [
    "with blanks in it",
    "ünï 🧪",
    "test",
    "versions",
    "a%2Fb",
    "a?b#c&d=e;f+g",
    "...",
    '"quoted"',
    "${x}",
    "a:b@c",
]
REFUSED = ["a/b", "/", "a\\b", ".", "..", "", " ", " a", "a ", "a\nb", "a\0b", "a\u2028b", "a\ud800"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_stands_in_every_path(name: str) -> None:
    async with cluster() as (sandbox, target):
        source = prompt_at(name=name, metadata={"team": "ops"})
        assert await made(target, [source]) == [Created(target_id=name, version_id="1")]
        assert differences(source, await target.fetch(name)) == ()
        changes = replace(source, text="changed", metadata={"owner": "me"})
        assert await changed(target, name, changes) == Updated(version_id="2")
        assert differences(changes, await target.fetch(name)) == ()
        await target.describe(name, "described")
        await target.retract(name, "1")
        assert [one["version"] for one in sandbox.conductor_versions(name)] == [2]
        assert kept(sandbox, name, "description") == ["described"]
        await target.delete(name)
        assert sandbox.conductor_prompts() == []


@pytest.mark.parametrize("name", REFUSED)
async def test_a_name_that_cannot_stand_in_a_path_is_refused_before_anything_is_sent(name: str) -> None:
    async with cluster() as (sandbox, target):
        with pytest.raises(Rejected) as caught:
            target.encode(replica_of(prompt_at(name=name)))
        assert caught.value.error == "bad_name"
        assert repr(name) in str(caught.value)
        assert "rewrite.name" in str(caught.value)
        assert not calls(sandbox)


# ---- bulks -----------------------------------------------------------------------------------------------------------


async def test_a_bulk_goes_to_the_path_with_the_slash_as_versions_one() -> None:
    async with cluster(bulk_tags=True) as (sandbox, target):
        outcomes = await made(target, [prompt_at(number) for number in range(50)])
        assert outcomes == [Created(target_id=f"prompt {number}", version_id="1") for number in range(50)]
        assert calls(sandbox)["POST /prompts/"] == 1
        assert not {"POST /prompts", "POST /prompts/*", "PUT /prompts/*"} & {*calls(sandbox)}
        assert len(marked(sandbox)) == 50


async def test_what_a_bulk_has_done_is_read_by_listings_and_not_one_by_one() -> None:
    async with cluster(bulk_tags=True) as (sandbox, target):
        await rows_of(target)
        sandbox.requests.clear()
        await made(target, [prompt_at(number) for number in range(50)])
        assert calls(sandbox) == {"GET /prompts": 1, "POST /prompts/": 1}
        assert len(await target.named([f"prompt {number}" for number in range(60)])) == 50
        assert calls(sandbox) == {"GET /prompts": 2, "POST /prompts/": 1}


@pytest.mark.parametrize("bulk_tags", [True, False])
async def test_the_mark_is_there_whether_a_bulk_stores_tags_or_not(bulk_tags: bool) -> None:
    async with cluster(bulk_tags=bulk_tags) as (sandbox, target):
        await made(target, [prompt_at(number, metadata={"team": "ops"}) for number in range(3)])
        assert marked(sandbox) == {"prompt 0", "prompt 1", "prompt 2"}
        assert calls(sandbox)["PUT /prompts/*/tags"] == (0 if bulk_tags else 3)


MANNERS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "takes back": {"bulk_rolls_back": True},
    "names the item": {"names_item": True},
    "merges": {"bulk_merges": True},
    "next version": {"bulk_version": "next"},
    "latest version": {"bulk_version": "latest"},
    "stores tags": {"bulk_tags": True},
    "shows no tags": {"tags_in_prompt": False},
    "tokens of twenty requests": {"token_requests": 20},
    "token codes with 403": {"token_requests": 20, "token_status": 403},
    "an older server": {"drops_sampling": True},
    "disabled is missing": {"disabled_missing": True},
}
UNDER_EACH = pytest.mark.parametrize("manners", MANNERS.values(), ids=MANNERS)


@UNDER_EACH
async def test_those_at_fault_fail_each_for_its_reason_and_all_others_are_created(manners: dict[str, Any]) -> None:
    async with cluster(**manners) as (sandbox, target):
        sandbox.add_integration("openai-prod:hidden", readable=False)
        for number in (4, 30):
            sandbox.add_conductor_prompt(f"prompt {number}", "mine")
        at_fault: dict[int, dict[str, Any]] = {
            0: {"model": "missing"},
            17: {"model": "missing"},
            18: {"model": "hidden"},
            49: {"description": "x" * 10_001},
        }
        outcomes = await made(target, [prompt_at(number, **at_fault.get(number, {})) for number in range(50)])
        errors = {number: outcome.error for number, outcome in enumerate(outcomes) if isinstance(outcome, Failed)}
        reasons = {0: "missing", 17: "missing", 18: "forbidden", 49: "rejected"}
        assert errors == reasons | {4: "exists", 30: "exists"}
        assert marked(sandbox) == {f"prompt {number}" for number in range(50)} - {f"prompt {n}" for n in errors}
        assert [kept(sandbox, f"prompt {number}", "template") for number in (4, 30)] == [["mine"], ["mine"]]
        assert len(sandbox.conductor_prompts()) == 46
        assert calls(sandbox)["POST /prompts/"] <= (40 if "bulk_rolls_back" in manners else 2 * 4 + 1)


@pytest.mark.parametrize("takes_back", [False, True])
async def test_a_halted_bulk_is_not_read_back_one_by_one(takes_back: bool) -> None:
    async with cluster(bulk_tags=True, bulk_rolls_back=takes_back) as (sandbox, target):
        await rows_of(target)
        sandbox.requests.clear()
        faults = (0, 17, 18, 49)
        await made(target, [prompt_at(n, model="missing" if n in faults else "gpt-4o") for n in range(50)])
        assert len(marked(sandbox)) == 46
        counted = calls(sandbox)
        assert counted["POST /prompts/"] <= (4 * 3 * 6 if takes_back else 2 * 4 + 1)
        assert counted["GET /prompts"] + counted["GET /prompts/*"] <= 2 * counted["POST /prompts/"] + 1


async def test_what_an_older_server_drops_fails_and_leaves_nothing() -> None:
    async with cluster(drops_sampling=True) as (sandbox, target):
        dropped, plain = await made(target, [prompt_at(1, parameters={"temperature": 0.5}), prompt_at(2)])
        assert isinstance(dropped, Failed)
        assert "parameters.temperature" in dropped.message
        assert isinstance(plain, Created)
        assert [one["name"] for one in sandbox.conductor_prompts()] == ["prompt 2"]


LONG = Number("0.1000000000000000055511151231257827")


async def test_a_number_that_the_server_rounds_to_a_double_fails_by_name_and_leaves_nothing() -> None:
    kept = {"temperature": Number("0.70"), "topP": Number("1E+0")}
    async with cluster() as (sandbox, target):
        sources = [prompt_at(1, parameters={"temperature": LONG}), prompt_at(2, parameters=kept)]
        rounded, plain = await made(target, sources)
        assert isinstance(rounded, Failed)
        assert "parameters.temperature: this server drops it, as older ones do, or keeps another" in rounded.message
        assert isinstance(plain, Created)
        assert [(one["name"], one["temperature"]) for one in sandbox.conductor_prompts()] == [("prompt 2", 0.7)]
        assert differences(sources[1], await target.fetch("prompt 2")) == ()


async def test_a_number_is_sent_as_it_is_written_and_read_as_the_server_writes_it() -> None:
    item = b'{"name":"a","template":"Hi","integrations":[],"tags":[],"temperature":%b,"topP":1e-400,"version":1}'
    there = item % LONG.text.encode()
    async with answering(answer(200, there)) as (target, server):
        found = await target.fetch("a")
        assert repr(found.parameters) == repr({"temperature": LONG, "topP": Number("1e-400")})
        body = target.encode(make_replica(found, found, migration="m", registry=REGISTRY))
        assert b'"temperature":0.1000000000000000055511151231257827,"topP":1e-400' in body
        await target.post([decode(body)], no_intent)
        assert b'"temperature":0.1000000000000000055511151231257827,"topP":1e-400' in server.received[-1].body


@pytest.mark.parametrize("tags_in_prompt", [True, False])
async def test_what_a_killed_create_left_gets_the_tags_that_it_lacks(tags_in_prompt: bool) -> None:
    async with cluster(tags_in_prompt=tags_in_prompt) as (sandbox, target):
        source = prompt_at()
        sandbox.add_conductor_prompt(source.name, source.text, integrations=[PAIR], description="", tags={"team": "a"})
        body = target.encode(make_replica(source, source, migration="m", registry=REGISTRY))
        assert await target.complete("prompt 1", body, nothing) == Created(target_id="prompt 1")
        assert calls(sandbox)["POST /prompts/"] == 0
        assert marked(sandbox) == {"prompt 1"}
        assert (await target.fetch("prompt 1")).metadata["team"] == "a"


@pytest.mark.parametrize(
    ("fault", "kind", "there"), [("reset_after", Created, 3), ("not_json", Created, 3), ("reset_before", Unknown, 0)]
)
async def test_a_lost_answer_is_settled_by_reading_and_the_bulk_is_not_sent_again(
    fault: str, kind: type, there: int
) -> None:
    async with cluster() as (sandbox, target):
        sandbox.faults.plan(fault, method="POST", path_end="/prompts/")
        outcomes = await made(target, [prompt_at(number) for number in range(3)])
        assert [type(outcome) for outcome in outcomes] == [kind] * 3
        assert len(sandbox.conductor_prompts()) == there
        assert calls(sandbox)["POST /prompts/"] == 1


async def test_a_bulk_that_arrives_twice_writes_the_same_version_twice() -> None:
    items = [await encoded(1), await encoded(2)]
    async with cluster(bulk_version="next") as (sandbox, target):
        for _ in range(2):
            await target.post(items, nothing)
        assert {one["name"]: one["version"] for one in sandbox.conductor_prompts()} == {"prompt 1": 1, "prompt 2": 1}
        assert len(sandbox.conductor_versions("prompt 1")) == 1


async def test_a_name_that_the_key_may_not_read_is_taken_and_stops_no_other() -> None:
    other = await encoded(2)
    refused = says({"message": "no READ permission on the prompt", "error": "FORBIDDEN"}, 403)
    async with answering(says([]), answer(200, b""), says([other]), refused) as (target, _):
        await rows_of(target)
        taken, created = await made(target, [prompt_at(1), prompt_at(2)])
        assert isinstance(taken, Failed)
        assert isinstance(created, Created)


async def test_a_name_whose_prompt_cannot_be_read_is_taken() -> None:
    refused = says({"message": "no READ permission on the prompt", "error": "FORBIDDEN"}, 403)
    async with answering(refused) as (target, _):
        assert await target.named(["prompt 1"]) == {"prompt 1": None}
    async with answering(says([]), says([{"name": "prompt 1", "template": 7}])) as (target, _):
        await rows_of(target)
        assert await target.named(["prompt 1", "prompt 2"]) == {"prompt 1": None}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"parameters": {"temperature": 1, "max_tokens": 5}}, "parameters.max_tokens"),
        ({"metadata": {"owner": {"team": "a"}}}, "metadata.owner"),
        ({"metadata": {"n": 1}}, "metadata.n"),
        ({"metadata": {"collection": "x"}, "collection": "y"}, "metadata.collection"),
        ({"text": "a \ud83d\udd25 secret in two halves"}, "surrogate"),
    ],
)
async def test_what_has_no_place_is_refused_by_name_before_anything_is_sent(fields: dict[str, Any], told: str) -> None:
    async with cluster() as (sandbox, target):
        with pytest.raises(Rejected) as caught:
            target.encode(replica_of(prompt_at(**fields)))
        assert told in str(caught.value)
        assert "secret" not in str(caught.value)
        assert not sandbox.requests


# ---- updates ---------------------------------------------------------------------------------------------------------


@UNDER_EACH
async def test_an_update_makes_the_next_version_and_keeps_the_earlier_ones(manners: dict[str, Any]) -> None:
    async with cluster(**manners) as (sandbox, target):
        sandbox.add_integration("openai-prod:gpt-4o-mini")
        await made(target, [prompt_at(metadata={"team": "ops"}, collection="support")])
        source = prompt_at(text="changed", model="gpt-4o-mini", metadata={"owner": "me"}, collection="sales")
        assert await changed(target, "prompt 1", source) == Updated(version_id="2")
        assert differences(source, await target.fetch("prompt 1")) == ()
        first, second = sandbox.conductor_versions("prompt 1")
        assert (first["template"], second["template"]) == ("Hello ${name}, this is 1", "changed")
        assert marked(sandbox) == {"prompt 1"}


async def test_the_version_of_an_update_stands_in_the_bulk_so_that_a_repeat_is_the_same() -> None:
    written = await encoded(version=8)
    async with answering(
        says([FULL | {"version": 1}, FULL | {"version": 7}]),
        answer(200, b""),
        says([written]),
        says([]),
        answer(200, b""),
    ) as (target, server):
        assert await changed(target, "prompt 1", prompt_at()) == Updated(version_id="8")
        (item,) = json.loads(server.received[2].body)
        assert (server.received[2].target, item["version"]) == ("/api/prompts/", 8)


async def test_an_update_that_is_left_out_in_silence_fails_for_want_of_permission() -> None:
    async with cluster() as (sandbox, target):
        await made(target, [prompt_at()])
        before = sandbox.conductor_prompts()
        sandbox.forbid_update("prompt 1")
        outcome = await changed(target, "prompt 1", prompt_at(text="changed", metadata={"team": "ops"}))
        assert isinstance(outcome, Failed)
        assert outcome.error == "no_update_permission"
        assert "no update permission" in outcome.message
        assert sandbox.conductor_prompts() == before
        sandbox.allow_update("prompt 1")
        assert await changed(target, "prompt 1", prompt_at(text="changed")) == Updated(version_id="2")


@pytest.mark.parametrize(
    ("fault", "method", "path_end", "versions"),
    [
        ("reset_after", "POST", "/prompts/", 2),
        ("reset_before", "POST", "/prompts/", 1),
        ("not_json", "GET", "/tags", 2),
        ("not_json", "PUT", "/tags", 2),
    ],
)
async def test_an_update_whose_end_nobody_saw_is_in_doubt(
    fault: str, method: str, path_end: str, versions: int
) -> None:
    async with cluster() as (sandbox, target):
        await made(target, [prompt_at()])
        sandbox.faults.plan(fault, method=method, path_end=path_end, times=2)
        outcome = await changed(target, "prompt 1", prompt_at(text="changed", metadata={"team": "ops"}))
        assert isinstance(outcome, Unknown)
        assert len(sandbox.conductor_versions("prompt 1")) == versions
        assert calls(sandbox)["POST /prompts/"] == 2


async def test_an_update_whose_tags_are_refused_is_not_said_to_have_had_no_effect() -> None:
    written = await encoded(version=2)
    steps = [says([FULL | {"version": 1}]), answer(200, b""), says([written]), says({"message": "no"}, 403)]
    async with answering(*steps) as (target, _):
        assert isinstance(await changed(target, "prompt 1", prompt_at()), Unknown)


async def test_an_update_that_an_older_server_cuts_is_not_said_to_be_done() -> None:
    async with cluster(drops_sampling=True) as (sandbox, target):
        await made(target, [prompt_at()])
        outcome = await changed(target, "prompt 1", prompt_at(parameters={"temperature": 0.5}))
        assert isinstance(outcome, Failed)
        assert "temperature" in outcome.message
        assert [one["version"] for one in sandbox.conductor_versions("prompt 1")] == [1]


async def test_an_update_that_names_a_missing_integration_fails_and_leaves_nothing() -> None:
    async with cluster() as (sandbox, target):
        await made(target, [prompt_at()])
        outcome = await changed(target, "prompt 1", prompt_at(model="missing"))
        assert isinstance(outcome, Failed)
        assert (outcome.status, outcome.exists) == (404, False)
        assert len(sandbox.conductor_versions("prompt 1")) == 1


async def test_an_update_of_what_is_gone_fails() -> None:
    async with cluster() as (sandbox, target):
        outcome = await changed(target, "prompt 1", prompt_at())
        assert isinstance(outcome, Failed)
        assert outcome.status == 404
        assert sandbox.conductor_prompts() == []


async def test_a_prompt_cannot_be_renamed() -> None:
    async with cluster() as (sandbox, target):
        await made(target, [prompt_at()])
        outcome = await changed(target, "prompt 1", prompt_at(name="another"))
        assert isinstance(outcome, Failed)
        assert [one["name"] for one in sandbox.conductor_prompts()] == ["prompt 1"]


# ---- what else is done to a prompt -----------------------------------------------------------------------------------


@UNDER_EACH
async def test_a_description_is_changed_and_nothing_else(manners: dict[str, Any]) -> None:
    async with cluster(**manners) as (sandbox, target):
        fields: dict[str, Any] = {"temperature": 0.5, "topP": 1.0, "responseFormat": "json", "stopWords": ["#"]}
        kept_fields = {} if manners == {"drops_sampling": True} else fields
        for version in (1, 2):
            sandbox.add_conductor_prompt("a", integrations=[PAIR], tags={"team": "ops"}, version=version, **kept_fields)
        before = await target.fetch("a")
        await target.describe("a", "described")
        assert differences(replace(before, description="described"), await target.fetch("a")) == ()
        assert [one.get("description") for one in sandbox.conductor_versions("a")] == [None, "described"]


async def test_a_description_that_may_not_be_changed_is_refused() -> None:
    async with cluster() as (sandbox, target):
        sandbox.add_conductor_prompt("a")
        sandbox.forbid_update("a")
        with pytest.raises(Rejected):
            await target.describe("a", "described")
        with pytest.raises(Gone):
            await target.describe("not there", "described")


async def test_a_prompt_is_deleted_with_its_history_and_once_more_without_harm() -> None:
    async with cluster() as (sandbox, target):
        for version in (1, 2):
            sandbox.add_conductor_prompt("a", version=version)
        await target.delete("a")
        await target.delete("a")
        assert sandbox.conductor_prompts() == []


async def test_a_version_is_taken_out_and_once_more_without_harm() -> None:
    async with cluster() as (sandbox, target):
        for version in (1, 2, 3):
            sandbox.add_conductor_prompt("a", version=version)
        for _ in range(2):
            await target.retract("a", "3")
        assert [one["version"] for one in sandbox.conductor_versions("a")] == [1, 2]
        await target.retract("not there", "1")


async def test_the_newest_version_is_published_and_no_other_can_be() -> None:
    async with cluster() as (sandbox, target):
        for version in (1, 2):
            sandbox.add_conductor_prompt("a", version=version)
        await target.publish("a", "2")
        with pytest.raises(Rejected, match="2"):
            await target.publish("a", "1")
        assert len(sandbox.conductor_versions("a")) == 2


async def test_there_are_no_labels() -> None:
    async with cluster() as (sandbox, target):
        with pytest.raises(Rejected):
            await target.create_label("prod")
        with pytest.raises(Rejected):
            await target.label("a", "1", "prod")
        assert not sandbox.requests


async def findings_of(target: Conductor) -> dict[str, Collection[str]]:
    """What the write test found, by level."""
    found: list[Finding] = [finding async for finding in target.write_test(None)]
    return {level: [one.text for one in found if one.level == level] for level in ("ok", "note", "problem")}


@UNDER_EACH
async def test_the_write_test_finds_no_problem_and_leaves_nothing(manners: dict[str, Any]) -> None:
    async with cluster(**manners) as (sandbox, target):
        sandbox.add_conductor_prompt("somebody's")
        found = await findings_of(target)
        assert found["problem"] == []
        dropped = ["temperature and topP are dropped: an older server"]
        assert found["note"] == (dropped if "drops_sampling" in manners else [])
        stores = "a bulk stores tags" if "bulk_tags" in manners else "tags are set by a second call"
        assert stores in found["ok"]
        assert [one["name"] for one in sandbox.conductor_prompts()] == ["somebody's"]


@pytest.mark.parametrize(
    ("fault", "method", "path_end"),
    [
        ("reset_before", "POST", "/prompts/"),
        ("reset_after", "POST", "/prompts/"),
        ("not_json", "PUT", "/tags"),
        ("not_json", "GET", "/versions"),
    ],
)
async def test_a_write_test_that_goes_wrong_says_so_and_takes_its_prompt_away(
    fault: str, method: str, path_end: str
) -> None:
    async with cluster() as (sandbox, target):
        sandbox.faults.plan(fault, method=method, path_end=path_end, times=2)
        found = await findings_of(target)
        assert len(found["problem"]) == 1
        assert sandbox.conductor_prompts() == []
