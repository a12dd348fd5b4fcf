"""Conductor's side of the sandbox over its wire: bulks that halt and skip, versions, tags, tokens, manners, faults."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from engine.sandbox import ConductorQuirks, Sandbox, SandboxOptions, serve
from engine.sandbox.library import INTEGRATIONS, PROVIDERS
from tests.e2e import started
from tests.sandbox_api import Clock

GPT = "openai-prod:gpt-4o"
MINI = "openai-prod:gpt-4o-mini"


class Api:
    """Requests with a token of its own, and their answers: decoded, or None for an empty body."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.session = session
        self.sandbox = sandbox
        self.token = ""

    async def ask(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> tuple[int, Any]:
        data = raw if body is None else json.dumps(body).encode()
        url = URL(self.sandbox.conductor_url + path, encoded=True)
        headers = {"X-Authorization": self.token, "Content-Type": "application/json"}
        async with self.session.request(method, url, data=data, headers=headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if text else None

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def do(self, method: str, path: str, body: Any = None, raw: bytes | None = None) -> None:
        assert await self.ask(method, path, body, raw) == (200, None)

    async def bulk(self, *items: Any) -> tuple[int, Any]:
        return await self.ask("POST", "/prompts/", list(items))

    async def log_in(self, workspace: str = "main", **fields: Any) -> None:
        body = {"keyId": "k", "keySecret": self.sandbox.key(workspace), **fields}
        status, answer = await self.ask("POST", "/token", body)
        assert status == 200, answer
        self.token = answer["token"]

    def names(self) -> list[str]:
        return [one["name"] for one in self.sandbox.conductor_prompts()]


@asynccontextmanager
async def conductor(prompts: int = 0, *, more: Any = None, **quirks: Any) -> AsyncIterator[Api]:
    options = SandboxOptions(prompts=prompts, conductor=ConductorQuirks(**quirks), **(more or {}))
    async with serve(options) as sandbox, aiohttp.ClientSession() as session:
        api = Api(session, sandbox)
        await api.log_in()
        yield api


def item(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "template": f"Hello ${{name}}, this is {name}", "integrations": [GPT], "version": 1, **fields}


# ---- the bulk --------------------------------------------------------------------------------------------------------


async def test_a_bulk_keeps_every_field_and_answers_with_nothing() -> None:
    odd = {
        "name": 'odd {name} / "é" ☕ \ud800',
        "template": '"quoted"\r\n\u2028 \0 ${ a } ${b.c[0]} ${} ${ } ${{x}} ${o${i}} ${new\nline} ${b\rc} $${d} {{e}}',
        "description": "Grüße",
        "integrations": [MINI, GPT, GPT],
        "version": 4,
        "temperature": 1,
        "topP": 0.25,
        "responseFormat": "json",
        "stopWords": ["b", "a", "b"],
        "unknown": 1,
        "createdBy": "me",
    }
    async with conductor() as api:
        assert await api.bulk(odd) == (200, None)
        (kept,) = await api.get("/prompts")
        for field in ("name", "template", "description", "version", "topP", "responseFormat", "stopWords"):
            assert kept[field] == odd[field]
        assert repr(kept["temperature"]) == "1.0"
        assert sorted(kept["integrations"]) == [GPT, MINI]
        assert len(kept["variables"]) == 5
        assert set(kept["variables"]) == {" a ", "b.c[0]", "{x", "o${i", "d"}
        assert kept["createdBy"] == "app:k"
        assert "unknown" not in kept
        assert kept["tags"] == []


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ({"integrations": [GPT, "openai-prod:gone"]}, 404),
        ({"integrations": ["secret:model"]}, 403),
        ({"name": ""}, 400),
        ({"name": None}, 400),
        ({"template": None}, 400),
        ({"template": 5}, 400),
        ({"description": "x" * 10_001}, 400),
        ({"version": 0}, 400),
        ({"version": 2**31}, 400),
        ({"version": True}, 400),
        ({"temperature": "hot"}, 400),
        ({"temperature": 10**400}, 400),
        ({"integrations": [1]}, 400),
        ({"tags": [{"key": "k"}]}, 400),
    ],
)
async def test_a_bulk_halts_at_the_first_failure_and_keeps_what_came_before(fault: Any, status: int) -> None:
    async with conductor() as api:
        api.sandbox.add_integration("secret:model", readable=False)
        said, error = await api.bulk(item("a"), item("b"), item("c") | fault, item("d"))
        assert said == status
        assert (error["status"], error["retryable"]) == (status, False)
        assert error.get("error") not in ("EXPIRED_TOKEN", "INVALID_TOKEN")
        assert api.names() == ["a", "b"]
        assert not [word for word in ("'c'", "gone", "secret") if word in error["message"]]


async def test_the_error_of_a_bulk_names_the_item_where_that_is_the_manner() -> None:
    async with conductor(names_item=True) as api:
        _, error = await api.bulk(item("a"), item("culprit", integrations=["no:body"]))
        assert "'culprit'" in error["message"]
        assert "'no:body'" in error["message"]


async def test_a_bulk_that_rolls_back_leaves_nothing() -> None:
    async with conductor(bulk_rolls_back=True) as api:
        api.sandbox.add_conductor_prompt("b", "as it was")
        status, _ = await api.bulk(item("a"), item("b"), item("c", integrations=["no:body"]))
        assert status == 404
        assert [(one["name"], one["template"]) for one in api.sandbox.conductor_prompts()] == [("b", "as it was")]
        assert await api.bulk(item("a")) == (200, None)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[", b"\xff", b'[{"name": NaN}]', b"[1]", b"[null]"])
async def test_what_is_no_list_of_prompts_is_refused(raw: bytes) -> None:
    async with conductor() as api:
        status, error = await api.ask("POST", "/prompts/", raw=raw)
        assert (status, error["code"]) == (400, "INVALID_INPUT")


async def test_what_the_caller_may_not_update_is_skipped_in_silence() -> None:
    async with conductor() as api:
        api.sandbox.add_conductor_prompt("b", "theirs")
        api.sandbox.forbid_update("b")
        assert await api.bulk(item("a"), item("b"), item("b", version=2), item("c")) == (200, None)
        assert {one["name"]: one["template"] for one in api.sandbox.conductor_prompts()}["b"] == "theirs"
        assert len(api.sandbox.conductor_versions("b")) == 1
        assert sorted(api.names()) == ["a", "b", "c"]
        api.sandbox.edit_conductor_prompt("b", template="changed by its owner")
        assert (await api.get("/prompts/b"))["template"] == "changed by its owner"
        api.sandbox.allow_update("b")
        assert await api.bulk(item("b")) == (200, None)
        assert (await api.get("/prompts/b"))["template"] == item("b")["template"]


async def test_an_explicit_version_is_an_upsert_that_may_be_repeated() -> None:
    async with conductor(more={"clock": (clock := Clock())}) as api:
        api.sandbox.add_conductor_prompt("a", "theirs", description="d", temperature=0.5)
        clock.now += 10
        for _ in range(2):
            assert await api.bulk(item("a"), item("a", version=3)) == (200, None)
        first, third = await api.get("/prompts/a/versions")
        assert (first["version"], third["version"]) == (1, 3)
        assert {"description", "temperature"} & set(first) == set()
        assert (first["createdBy"], first["updatedBy"]) == ("somebody", "app:k")
        assert first["updateTime"] - first["createTime"] == 10_000
        assert [one["version"] for one in await api.get("/prompts")] == [3]
        assert (await api.get("/prompts/a?version=1"))["template"] == first["template"]
        assert (await api.ask("GET", "/prompts/a?version=2"))[0] == 404
        assert (await api.ask("GET", "/prompts/a?version=x"))[0] == 400


@pytest.mark.parametrize(("manner", "versions"), [("first", [1, 4]), ("latest", [4]), ("next", [4, 5])])
async def test_a_bulk_item_without_a_version_writes_the_one_of_the_manner(manner: Any, versions: list[int]) -> None:
    async with conductor(bulk_version=manner) as api:
        api.sandbox.add_conductor_prompt("a", version=4)
        assert await api.bulk(item("a", version=None)) == (200, None)
        assert [one["version"] for one in api.sandbox.conductor_versions("a")] == versions
        assert await api.bulk(item("new", version=None)) == (200, None)
        assert [one["version"] for one in api.sandbox.conductor_versions("new")] == [1]


async def test_an_older_server_drops_the_sampling_fields_in_silence() -> None:
    async with conductor(drops_sampling=True) as api:
        sampled = item("a", temperature=0.5, topP=1, responseFormat="json", stopWords=["x"], description="stays")
        assert await api.bulk(sampled) == (200, None)
        kept = await api.get("/prompts/a")
        assert {"temperature", "topP", "responseFormat", "stopWords"} & set(kept) == set()
        assert kept["description"] == "stays"


@pytest.mark.parametrize("stored", [False, True])
async def test_a_bulk_stores_tags_only_where_that_is_the_manner(stored: bool) -> None:
    mine = {"key": "promptferry", "value": "1"}
    async with conductor(bulk_tags=stored) as api:
        api.sandbox.add_conductor_prompt("a", tags={"team": "docs"})
        assert await api.bulk(item("a", tags=[mine])) == (200, None)
        expected = [{"key": "team", "value": "docs"}] + ([mine] if stored else [])
        assert await api.get("/prompts/a/tags") == expected
        assert (await api.get("/prompts/a"))["tags"] == expected


@pytest.mark.parametrize("merges", [False, True])
async def test_a_bulk_replaces_integrations_or_merges_them(merges: bool) -> None:
    async with conductor(bulk_merges=merges) as api:
        api.sandbox.add_conductor_prompt("a", integrations=[MINI])
        assert await api.bulk(item("a")) == (200, None)
        assert set((await api.get("/prompts/a"))["integrations"]) == ({GPT, MINI} if merges else {GPT})


@pytest.mark.parametrize(("missing", "status"), [(False, 200), (True, 404)])
async def test_a_disabled_integration_may_be_named_or_is_missing(missing: bool, status: int) -> None:
    async with conductor(disabled_missing=missing) as api:
        api.sandbox.disable_integration(GPT)
        assert (await api.bulk(item("a")))[0] == status


# ---- single calls ----------------------------------------------------------------------------------------------------


async def test_the_slash_at_the_end_is_another_route() -> None:
    async with conductor() as api:
        assert (await api.ask("POST", "/prompts", [item("a")]))[0] == 405
        assert (await api.ask("GET", "/prompts/"))[0] == 405
        assert api.names() == []


async def test_put_keeps_who_made_it_and_post_does_not() -> None:
    async with conductor() as api:
        api.sandbox.add_conductor_prompt("a", version=2, temperature=0.5)
        await api.do("PUT", "/prompts/a?description=by+put", raw=b"one")
        (kept,) = api.sandbox.conductor_versions("a")
        assert (kept["version"], kept["template"], kept["description"]) == (2, "one", "by put")
        assert (kept["createdBy"], kept["updatedBy"]) == ("somebody", "app:k")
        assert "temperature" not in kept
        await api.do("POST", f"/prompts/a?description=d&version=2&models={GPT}&models={MINI}", raw=b"two")
        (kept,) = api.sandbox.conductor_versions("a")
        assert (kept["template"], kept["createdBy"]) == ("two", "app:k")
        assert set(kept["integrations"]) == {GPT, MINI}
        await api.do("POST", "/prompts/a?description=d&autoIncrement=True&version=9", raw=b"three")
        assert [one["version"] for one in api.sandbox.conductor_versions("a")] == [2, 3]
        await api.do("PUT", "/prompts/new?description=", raw=b"four")
        assert [one["version"] for one in api.sandbox.conductor_versions("new")] == [1]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ('"quoted"', "quoted"),
        ('""', ""),
        ('"', '"'),
        ('"open', '"open'),
        ('""twice""', '"twice"'),
        ("a\nb \\n é", "a\nb \\n é"),
        ("", ""),
    ],
)
async def test_a_single_call_takes_raw_text_and_strips_the_quotes_that_enclose_it(sent: str, kept: str) -> None:
    async with conductor() as api:
        await api.do("PUT", "/prompts/a?description=d", raw=sent.encode())
        assert api.sandbox.conductor_prompts()[0]["template"] == kept


async def test_single_calls_are_refused_for_what_is_wrong_with_them() -> None:
    async with conductor() as api:
        api.sandbox.add_conductor_prompt("theirs")
        api.sandbox.forbid_update("theirs")
        for method in ("PUT", "POST"):
            assert (await api.ask(method, "/prompts/a", raw=b"no description"))[0] == 400
            assert (await api.ask(method, "/prompts/a?description=d", raw=b"\xff"))[0] == 400
            assert (await api.ask(method, "/prompts/a?description=d&version=0", raw=b"t"))[0] == 400
            assert (await api.ask(method, "/prompts/a?description=d&models=no:body", raw=b"t"))[0] == 404
            status, error = await api.ask(method, "/prompts/theirs?description=d", raw=b"t")
            assert (status, error["error"]) == (403, "FORBIDDEN")
        assert api.names() == ["theirs"]


async def test_delete_takes_versions_tags_and_grants_and_may_be_repeated() -> None:
    async with conductor() as api:
        for version in (1, 2):
            api.sandbox.add_conductor_prompt("a", version=version, tags={"team": "docs"})
        await api.do("DELETE", "/prompts/a/versions/2")
        assert (await api.get("/prompts/a"))["version"] == 1
        assert len(await api.get("/prompts/a/tags")) == 1
        await api.do("DELETE", "/prompts/a/versions/1")
        assert (await api.ask("GET", "/prompts/a"))[0] == 404
        for version in (1, 2):
            api.sandbox.add_conductor_prompt("a", version=version)
        assert await api.get("/prompts/a/tags") == []
        for _ in range(2):
            await api.do("DELETE", "/prompts/a")
        assert api.sandbox.conductor_versions("a") == []
        for path in ("/prompts/a", "/prompts/a/versions", "/prompts/a/tags"):
            assert (await api.ask("GET", path))[0] == 404


async def test_tags_are_pairs_that_belong_to_the_name() -> None:
    one, two = {"key": "k", "value": "1"}, {"key": "k", "value": "2", "type": "METADATA"}
    async with conductor() as api:
        api.sandbox.add_conductor_prompt("a")
        await api.do("PUT", "/prompts/a/tags", [one])
        await api.do("PUT", "/prompts/a/tags", [two, one])
        api.sandbox.add_conductor_prompt("a", version=2)
        assert await api.get("/prompts/a/tags") == [one, two]
        await api.do("DELETE", "/prompts/a/tags", [one, {"key": "none", "value": ""}])
        assert (await api.get("/prompts/a?version=1"))["tags"] == [two]
        assert (await api.ask("PUT", "/prompts/none/tags", [one]))[0] == 404
        api.sandbox.forbid_update("a")
        assert (await api.ask("PUT", "/prompts/a/tags", [one]))[0] == 403
    async with conductor(tags_in_prompt=False) as api:
        api.sandbox.add_conductor_prompt("a", tags={"k": "1"})
        assert "tags" not in await api.get("/prompts/a")
        assert await api.get("/prompts/a/tags") == [one]


NAMES = ["with space", "ünïcode ☕", "{braces}", "50%", "a+b", "a?b#c", "test", "new\nline", "%41"]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_may_be_anything_in_a_path_that_is_encoded(name: str) -> None:
    async with conductor() as api:
        assert await api.bulk(item(name)) == (200, None)
        path = "/prompts/" + "".join(f"%{byte:02X}" for byte in name.encode())
        assert (await api.get(path))["name"] == name
        await api.do("PUT", f"{path}/tags", [{"key": "k", "value": "v"}])
        await api.do("DELETE", path)
        assert api.names() == []


async def test_an_encoded_slash_is_refused_unless_the_manner_is_kinder() -> None:
    async with conductor() as api:
        assert await api.bulk(item("a/b")) == (200, None)
        assert (await api.ask("GET", "/prompts/a%2fb"))[0] == 400
        assert (await api.ask("GET", "/prompts/a/b"))[0] == 404
    async with conductor(encoded_slash=True) as api:
        assert await api.bulk(item("a/b")) == (200, None)
        assert (await api.get("/prompts/a%2Fb"))["name"] == "a/b"


async def test_post_to_test_asks_the_model_and_no_other_call_does() -> None:
    async with conductor() as api:
        await api.do("PUT", "/prompts/test?description=d", raw=b"t")
        assert (await api.ask("POST", "/prompts/test?description=d", raw=b"u"))[0] == 400
        assert api.sandbox.conductor_prompts()[0]["template"] == "t"
        body = {"llmProvider": "openai-prod", "model": "none", "prompt": "p"}
        assert (await api.ask("POST", "/prompts/test", body))[0] == 404


# ---- integrations ----------------------------------------------------------------------------------------------------


async def test_the_list_of_integrations_hides_what_is_disabled_or_not_readable() -> None:
    async with conductor() as api:
        planted = {f"{slug}:{model}" for slug, origin in PROVIDERS.items() for model in INTEGRATIONS[origin]}
        assert set(await api.get("/integrations/all")) == planted | {"SendGrid"}
        assert "bedrock-prod:anthropic.claude-3-5-sonnet" in planted
        api.sandbox.disable_integration(GPT)
        api.sandbox.remove_integration(MINI)
        api.sandbox.add_integration("ollama:llama3:8b")
        api.sandbox.add_integration("secret:model", readable=False)
        now = planted - {GPT, MINI} | {"ollama:llama3:8b"}
        assert set(await api.get("/integrations/all?type=AI_MODEL")) == now
        assert set(await api.get("/integrations/all?type=AI_MODEL&activeOnly=false")) == now | {GPT}
        assert (await api.get("/integrations/provider/ollama/integration/llama3:8b"))["api"] == "llama3:8b"
        assert (await api.ask("GET", "/integrations/provider/secret"))[0] == 404
        assert await api.bulk(item("a", integrations=["ollama:llama3:8b"])) == (200, None)


async def test_an_association_is_added_to_the_newest_version() -> None:
    async with conductor() as api:
        for version in (1, 2):
            api.sandbox.add_conductor_prompt("a", integrations=[MINI], version=version, temperature=0.5)
        path = "/integrations/provider/openai-prod/integration/gpt-4o/prompt"
        await api.do("POST", f"{path}/a")
        first, second = api.sandbox.conductor_versions("a")
        assert (first["integrations"], set(second["integrations"])) == ([MINI], {GPT, MINI})
        assert (second["temperature"], second["createdBy"]) == (0.5, "somebody")
        assert [one["name"] for one in await api.get(path)] == ["a"]
        assert (await api.ask("POST", f"{path}/none"))[0] == 404


# ---- tokens ----------------------------------------------------------------------------------------------------------


async def test_a_wrong_secret_or_token_is_refused() -> None:
    async with conductor() as api:
        for secret in ("wrong", "", api.sandbox.admin_key):
            status, error = await api.ask("POST", "/token", {"keyId": "k", "keySecret": secret})
            assert (status, error["error"]) == (401, "UNAUTHORIZED")
        assert (await api.ask("POST", "/token", {"keyId": "k"}))[0] == 400
        good = api.token
        for token in ("", "x", f"Bearer {good}", good[:-2], good + "x", f"{good[:40]}A{good[41:]}"):
            api.token = token
            status, error = await api.ask("GET", "/prompts")
            assert (status, error["error"]) == (401, "INVALID_TOKEN")
        assert api.sandbox.token_count == 1


async def test_a_token_expires_by_the_clock() -> None:
    async with conductor(more={"clock": (clock := Clock())}, token_lifetime_s=100) as api:
        claims = (await api.get("/token/userInfo?claims=true"))["claims"]
        assert claims["exp"] - claims["iat"] == 100
        clock.now += 100
        status, error = await api.ask("GET", "/prompts")
        assert (status, error["error"]) == (401, "EXPIRED_TOKEN")
        await api.log_in(expiration=5000)
        clock.now += 4
        await api.get("/prompts")
        clock.now += 1
        assert (await api.ask("GET", "/prompts"))[0] == 401
        await api.log_in(expiration=-1)
        clock.now += 10**9
        await api.get("/prompts")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_token_expires_by_its_use_and_another_one_does_not(status: Any) -> None:
    async with conductor(token_requests=3, token_status=status) as api:
        first = api.token
        await api.log_in()
        for _ in range(3):
            await api.get("/prompts")
        assert (await api.bulk(item("a")))[1]["error"] == "EXPIRED_TOKEN"
        assert (await api.ask("GET", "/prompts"))[0] == status
        assert api.names() == []
        api.token = first
        await api.get("/prompts")
        api.sandbox.expire_tokens()
        assert (await api.ask("GET", "/prompts"))[1]["error"] == "EXPIRED_TOKEN"
        await api.log_in()
        await api.get("/prompts")
        assert api.sandbox.token_count == 3


async def test_every_workspace_is_a_cluster_of_its_own() -> None:
    async with conductor(prompts=30) as api:
        assert len(await api.get("/prompts")) == 3
        await api.log_in("other")
        assert await api.get("/prompts") == []
        assert GPT in await api.get("/integrations/all")
        assert await api.bulk(item("a")) == (200, None)
        api.sandbox.remove_integration(GPT, workspace="other")
        assert (await api.bulk(item("b")))[0] == 404
        assert [one["name"] for one in api.sandbox.conductor_prompts("other")] == ["a"]
        assert "a" not in api.names()
        await api.log_in()
        assert await api.bulk(item("b")) == (200, None)


# ---- faults, lateness, limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "applied"), [("reset_before", False), ("reset_after", True)])
async def test_a_reset_comes_before_or_after_the_change(fault: str, applied: bool) -> None:
    async with conductor() as api:
        api.sandbox.faults.plan(fault, path_end="/api/prompts/")
        with pytest.raises(aiohttp.ClientError):
            await api.bulk(item("a"))
        assert api.names() == (["a"] if applied else [])


@pytest.mark.parametrize(
    ("fault", "code"), [("429", "RATE_LIMITED"), ("500", "INTERNAL_ERROR"), ("503", "BACKEND_ERROR")]
)
async def test_refusals_on_purpose_have_the_body_of_this_api(fault: str, code: str) -> None:
    async with conductor() as api:
        api.sandbox.faults.plan(fault, path_end="/api/prompts")
        status, error = await api.ask("GET", "/prompts")
        assert (status, error["code"], error["retryable"]) == (int(fault), code, True)
        assert "error" not in error


async def test_an_answer_that_is_cut_or_is_not_json() -> None:
    async with conductor() as api:
        api.sandbox.add_conductor_prompt("a")
        api.sandbox.faults.plan("truncate")
        with pytest.raises(aiohttp.ClientPayloadError):
            await api.get("/prompts")
        api.sandbox.faults.plan("not_json")
        with pytest.raises(json.JSONDecodeError):
            await api.get("/prompts")
        for fault in ("truncate", "blank"):  # there is nothing to spoil in the empty answer of a write
            api.sandbox.faults.plan(fault)
            assert await api.bulk(item(fault)) == (200, None)
        assert api.names() == ["a", "truncate", "blank"]


async def test_a_late_listing_hides_a_new_prompt_from_the_list_only() -> None:
    async with conductor(more={"clock": (clock := Clock()), "seed": 2}) as api:
        api.sandbox.faults.plan("late_listing", path_end="/api/prompts/")
        assert await api.bulk(item("a")) == (200, None)
        assert await api.get("/prompts") == []
        assert (await api.get("/prompts/a"))["name"] == "a"
        clock.now += 5
        assert len(await api.get("/prompts")) == 1


async def test_stale_reads_show_a_prompt_as_it_was() -> None:
    async with conductor(more={"clock": (clock := Clock())}, stale_reads_s=10) as api:
        api.sandbox.add_conductor_prompt("a", "old", tags={"k": "1"})
        clock.now += 10  # a prompt that was just made is stale in its tags
        assert await api.bulk(item("a", template="new", version=2)) == (200, None)
        await api.do("PUT", "/prompts/a/tags", [{"key": "k", "value": "2"}])
        assert (await api.get("/prompts"))[0]["template"] == (await api.get("/prompts/a"))["template"] == "old"
        assert len((await api.get("/prompts/a"))["tags"]) == 1
        assert api.sandbox.conductor_prompts()[0]["template"] == "new"
        clock.now += 10
        assert (await api.get("/prompts"))[0]["template"] == (await api.get("/prompts/a"))["template"] == "new"
        assert len((await api.get("/prompts/a"))["tags"]) == 2


async def test_the_rate_limit_counts_for_a_cluster() -> None:
    async with conductor(more={"clock": Clock(), "rate_limit": 2.0}) as api:
        statuses = [(await api.ask("GET", "/prompts"))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]


# ---- the store -------------------------------------------------------------------------------------------------------


async def test_the_library_is_small_and_always_the_same() -> None:
    libraries = []
    for prompts in (95, 95, 2000):
        async with serve(SandboxOptions(prompts=prompts, seed=7)) as sandbox:
            libraries.append(sandbox.conductor_prompts())
    assert libraries[0] == libraries[1]
    assert [len(one) for one in libraries] == [10, 10, 20]
    texts = "".join(one["template"] for one in libraries[2])
    assert "\\n" in texts
    assert "☕" in texts
    assert {one["version"] for one in libraries[2]} == {1, 3}
    assert {len(one["tags"]) for one in libraries[2]} == {0, 1}
    assert len({one["name"] for one in libraries[2]}) == 20


async def test_a_restart_keeps_prompts_grants_integrations_and_tokens(tmp_path: Path) -> None:
    options = SandboxOptions(prompts=10, store=tmp_path / "s.sqlite")
    async with serve(options) as sandbox, aiohttp.ClientSession() as session:
        api = Api(session, sandbox)
        await api.log_in()
        assert await api.bulk(item("a"), item("a", version=2), item("b")) == (200, None)
        sandbox.forbid_update("b")
        sandbox.remove_integration(MINI)
        kept = sandbox.conductor_prompts()
    async with serve(options) as sandbox, aiohttp.ClientSession() as session:
        again = Api(session, sandbox)
        again.token = api.token
        assert sandbox.conductor_prompts() == kept
        assert await again.bulk(item("b", template="changed")) == (200, None)
        assert sandbox.conductor_prompts() == kept
        assert (await again.bulk(item("c", integrations=[MINI])))[0] == 404


async def test_what_was_answered_outlives_kill_9(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    with started("sandbox", "--store", store, "--prompts", "0", cwd=tmp_path) as process:
        first = json.loads(process.first_line())
        assert {"conductor", "api_key"} <= first.keys()
        async with aiohttp.ClientSession() as session:
            asked = {"keyId": "k", "keySecret": first["api_key"]}
            async with session.post(f"{first['conductor']}/token", json=asked) as answer:
                headers = {"X-Authorization": (await answer.json())["token"]}
            items = [item(f"p{index}") for index in range(50)]
            async with session.post(f"{first['conductor']}/prompts/", json=items, headers=headers) as answer:
                assert answer.status == 200
        process.kill()
        process.wait(30)
    async with serve(SandboxOptions(store=store)) as sandbox:
        assert [one["name"] for one in sandbox.conductor_prompts()] == [f"p{index}" for index in range(50)]
