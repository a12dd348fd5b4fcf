"""The sandbox over its wire: what goes in comes back, and every switchable manner shows."""

from __future__ import annotations

import io
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sandbox import Quirks, Sandbox, SandboxOptions, serve
from engine.sandbox.answers import decode, encode
from engine.sandbox.library import library

RETRIEVED = (
    "id collection_id name slug created_at last_updated_at status access_level share_organisation_id shared_at"
    " shared_by_user_id shared_from_version_id allow_all_workspaces forked_from_prompt_id"
    " forked_from_prompt_version_id prompt_owning_workspace_id model prompt_version_id prompt_version"
    " prompt_version_description prompt_version_status string variable_components parameters functions tools"
    " tool_choice template_metadata prompt_version_label_id prompt_version_label_name is_raw_template"
    " prompt_version_labels virtual_key object"
).split()
LISTED = [*RETRIEVED[: RETRIEVED.index("prompt_owning_workspace_id") + 1], "model", "object"]


class Api:
    """Requests with a key, and their decoded answers."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.session = session
        self.sandbox = sandbox
        self.key = sandbox.api_key

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        headers = {"x-portkey-api-key": self.key if key is None else key}
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        url = self.sandbox.base_url + path
        async with self.session.request(method, url, data=data, headers=headers) as response:
            return response.status, json.loads(await response.text())

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def post(self, path: str, body: Any) -> Any:
        status, answer = await self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    async def put(self, path: str, body: Any) -> Any:
        status, answer = await self.ask("PUT", path, body)
        assert status == 200, answer
        return answer

    async def body(self, **fields: Any) -> dict[str, Any]:
        collection = (await self.get("/collections"))["data"][0]["slug"]
        known = {"name": "New", "collection_id": collection, "string": "Hi", "parameters": {}, "model": "gpt-4o"}
        return known | {"virtual_key": "openai-prod"} | fields

    async def create(self, **fields: Any) -> Any:
        return await self.post("/prompts", await self.body(**fields))


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def api(prompts: int = 0, **options: Any) -> AsyncIterator[Api]:
    async with serve(SandboxOptions(prompts=prompts, **options)) as sandbox, aiohttp.ClientSession() as session:
        yield Api(session, sandbox)


def code(answer: Any) -> str:
    return str(answer["data"]["errorCode"])


# ---- shapes and fidelity ---------------------------------------------------------------------------------------------


async def test_rows_and_prompts_have_exactly_the_recorded_keys() -> None:
    async with api(prompts=40) as portkey:
        listed = await portkey.get("/prompts")
        assert list(listed) == ["object", "total", "data"]
        assert all(list(row) == LISTED for row in listed["data"])
        for row in listed["data"]:
            prompt = await portkey.get(f"/prompts/{row['slug']}")
            assert list(prompt) == RETRIEVED
            assert prompt["is_raw_template"] in (0, 1)
            assert type(prompt["is_raw_template"]) is int
            assert prompt["parameters"]["model"] == prompt["model"] == row["model"]


async def test_every_value_comes_back_equal() -> None:
    fields: dict[str, Any] = {
        "name": "odd \ud800 \0 name \u2028",
        "string": '[{"role": "user", "content": "\\u00e9 é \u2028 \\u0000"}] \r\n\t \ud83d \0 {{> x}} '
        + "ü" * 1_000_000,
        "parameters": {"seed": 2**200, "t": 0.1, "one": 1.0, "big": 1e300, "minus": -0.0, "\udfff": None, "": [True]},
        "tools": [{"type": "function", "function": {"parameters": {"maximum": -(2**64)}}}],
        "template_metadata": {"mine": {"deep": [1, 2.50, "\u2029"]}},
        "version_description": "\ud800",
    }
    async with api() as portkey:
        created = await portkey.create(**fields)
        prompt = await portkey.get(f"/prompts/{created['id']}")
        fields["parameters"] = fields["parameters"] | {"model": "gpt-4o"}
        fields["prompt_version_description"] = fields.pop("version_description")
        assert {key: prompt[key] for key in fields} == fields
        assert repr(prompt["parameters"]) == repr(fields["parameters"])
        assert (await portkey.get("/prompts"))["data"][0]["name"] == fields["name"]


def one_character_a_pair(text: str) -> str:
    """Two surrogates that make a pair are one character in JSON; single ones stay."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


texts = st.text(st.characters(exclude_categories=())).map(one_character_a_pair)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


@given(json_values)
def test_the_codec_keeps_values(value: Any) -> None:
    assert repr(decode(encode({"v": value}).encode())["v"]) == repr(value)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{", b'{"a": 1e999}', b'{"a": NaN}', b"\xff", b'{"a":' * 100_000, b'{"a": ' + b"9" * 5000 + b"}"],
)
async def test_what_cannot_be_kept_is_refused(raw: bytes) -> None:
    async with api() as portkey:
        headers = {"x-portkey-api-key": portkey.key}
        async with portkey.session.post(portkey.sandbox.base_url + "/prompts", data=raw, headers=headers) as response:
            assert response.status == 400
            answer = await response.json()
            assert code(answer) == "AB01"
            assert answer["data"]["message"].startswith("the body")


async def test_create_is_strict() -> None:
    async with api() as portkey:
        whole = await portkey.body()
        wrong: list[dict[str, Any]] = [
            {field: None} for field in ("collection_id", "tools", "functions", "version_description")
        ]
        wrong += [{"is_raw_template": True}, {"is_raw_template": 2}, {"tools": ["a"]}, {"parameters": []}, {"name": ""}]
        wrong += [{"virtual_key": "unknown"}, {"tool_choice": 1}]
        for fields in wrong:
            status, answer = await portkey.ask("POST", "/prompts", whole | fields)
            assert (status, code(answer)) == (400, "AB01"), fields
        for field in whole:
            status, _ = await portkey.ask("POST", "/prompts", {key: whole[key] for key in whole if key != field})
            assert status == 400, field
        status, answer = await portkey.ask("POST", "/prompts", whole | {"collection_id": "unknown"})
        assert (status, code(answer)) == (404, "AB08")
        assert portkey.sandbox.prompts() == []


async def test_slug_and_provider_are_the_servers() -> None:
    async with api() as portkey:
        providers = (await portkey.get("/providers"))["data"]
        created = await portkey.create(name="🧪 Protomold deluxe", virtual_key=providers[0]["id"])
        prompt = await portkey.get(f"/prompts/{created['slug']}")
        stem, digits = created["slug"].rsplit("-", 1)
        assert stem == "pp-protomold"
        assert len(digits) == 6
        assert int(digits, 16) >= 0
        assert prompt["virtual_key"] == providers[0]["slug"]
        await portkey.put(f"/prompts/{created['id']}", {"name": "Other"})
        assert (await portkey.get(f"/prompts/{created['id']}"))["slug"] == created["slug"]


async def test_the_server_parses_the_template() -> None:
    async with api() as portkey:
        text = "{{>pl-a}}{{>pl-b@5}}{{>>House Rules}}{{#list}}{{x}}{{/list}}{{^list}}{{{y}}}{{/list}}{{x}}{{! no }}"
        prompt = await portkey.get(f"/prompts/{(await portkey.create(string=text))['id']}")
        assert prompt["variable_components"] == {
            "partials": ["pl-a", "pl-b@5"],
            "sections": ["list"],
            "variables": ["x", "y"],
            "sectionVariables": {"list": ["x", "y"]},
            "variablePartials": ["House Rules"],
        }


# ---- updates and versions --------------------------------------------------------------------------------------------


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


# ---- listing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
async def test_pages_cover_the_list_once_newest_first(first: int) -> None:
    async with api(prompts=55, quirks=Quirks(first_page=first)) as portkey:
        rows: list[Any] = []
        for number in range(first, first + 6):
            rows += (await portkey.get(f"/prompts?current_page={number}&page_size=10"))["data"]
        everything = (await portkey.get("/prompts"))["data"]
        assert [row["id"] for row in rows] == [row["id"] for row in everything]
        assert [row["id"] for row in reversed(rows)] == [prompt["id"] for prompt in portkey.sandbox.prompts()]
        times = [row["created_at"] for row in rows]
        assert times == sorted(times, reverse=True)
        assert len(set(times)) < len(times)
        zero = (await portkey.get("/prompts?current_page=0&page_size=10"))["data"]
        assert zero == everything[:10]


async def test_page_sizes_are_cut_and_defaulted() -> None:
    async with api(prompts=55, quirks=Quirks(page_cap=20, default_page_size=10)) as portkey:
        assert len((await portkey.get("/prompts"))["data"]) == 10
        page = await portkey.get("/prompts?page_size=1000")
        assert (len(page["data"]), page["total"]) == (20, 55)
        for query in ("page_size=0", "page_size=-1", "page_size=x", "current_page=-1"):
            assert (await portkey.ask("GET", f"/prompts?{query}"))[0] == 400


async def test_filters_by_collection_and_part_of_the_name() -> None:
    async with api(prompts=60) as portkey:
        collections = (await portkey.get("/collections"))["data"]
        counted = {doc["slug"]: doc["collection_details"]["prompts_count"] for doc in collections}
        assert sum(counted.values()) == 60
        for doc in collections:
            by_id = await portkey.get(f"/prompts?collection_id={doc['id']}")
            assert by_id["total"] == counted[doc["slug"]]
            assert by_id == await portkey.get(f"/prompts?collection_id={doc['slug']}")
        found = await portkey.get("/prompts?search=SUPPORT&page_size=3")
        assert found["total"] == sum("support" in prompt["name"].lower() for prompt in portkey.sandbox.prompts()) > 3


async def test_new_rows_are_listed_later() -> None:
    clock = Clock()
    async with api(clock=clock, quirks=Quirks(listing_lag_s=4)) as portkey:
        made = await portkey.create()
        assert await portkey.get("/prompts") == {"object": "list", "total": 0, "data": []}
        assert (await portkey.get(f"/prompts/{made['id']}"))["name"] == "New"
        assert len(portkey.sandbox.prompts()) == 1
        clock.now += 4
        assert (await portkey.get("/prompts"))["total"] == 1


async def test_reads_after_an_update_are_stale_for_a_while() -> None:
    clock = Clock()
    async with api(clock=clock, quirks=Quirks(stale_reads_s=3)) as portkey:
        path = f"/prompts/{(await portkey.create())['id']}"
        await portkey.put(path, {"patch": True, "string": "second"})
        await portkey.put(f"{path}/makeDefault", {"version": 2})
        assert (await portkey.get(path))["prompt_version"] == 1
        assert (await portkey.get(f"{path}/versions"))["total"] == 1
        clock.now += 3
        assert (await portkey.get(path))["string"] == "second"


async def test_archived_prompts_may_be_hidden_from_listings() -> None:
    for listed in (True, False):
        async with api(quirks=Quirks(archived_listed=listed)) as portkey:
            prompt = portkey.sandbox.add_prompt("old", archived=True)
            assert (await portkey.get("/prompts"))["total"] == int(listed)
            assert (await portkey.get(f"/prompts/{prompt}"))["status"] == "archived"


# ---- other manners ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wins", "model"), [("model", "gpt-4o"), ("parameters", "claude-3-opus")])
async def test_which_model_wins(wins: Any, model: str) -> None:
    async with api(quirks=Quirks(model_wins=wins)) as portkey:
        made = await portkey.create(model="gpt-4o", parameters={"model": "claude-3-opus"})
        prompt = await portkey.get(f"/prompts/{made['id']}")
        assert prompt["model"] == prompt["parameters"]["model"] == model


async def test_metadata_may_not_survive() -> None:
    async with api(quirks=Quirks(metadata_survives=False)) as portkey:
        made = await portkey.create(template_metadata={"mine": 1, "template_type": "chat"})
        assert (await portkey.get(f"/prompts/{made['id']}"))["template_metadata"] == {"template_type": "chat"}


async def test_names_may_have_to_be_unique() -> None:
    async with api(quirks=Quirks(unique_names=True)) as portkey:
        await portkey.create(name="Taken")
        other = await portkey.create(name="Other")
        status, answer = await portkey.ask("POST", "/prompts", await portkey.body(name="Taken"))
        assert (status, code(answer)) == (409, "AB07")
        assert (await portkey.ask("PUT", f"/prompts/{other['id']}", {"name": "Taken"}))[0] == 409
        assert (await portkey.ask("PUT", f"/prompts/{other['id']}", {"name": "Other"}))[0] == 200


async def test_a_collection_may_be_left_out() -> None:
    async with api(quirks=Quirks(collection_required=False)) as portkey:
        body = await portkey.body()
        del body["collection_id"]
        made = await portkey.post("/prompts", body)
        assert (await portkey.get(f"/prompts/{made['id']}"))["collection_id"] is None


async def test_the_quota_ends() -> None:
    async with api(quirks=Quirks(prompt_quota=1)) as portkey:
        await portkey.create()
        status, answer = await portkey.ask("POST", "/prompts", await portkey.body())
        assert (status, code(answer)) == (402, "AB09")
        assert len(portkey.sandbox.prompts()) == 1


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("data", {"success": False, "data": {"message": "prompt not found", "errorCode": "AB08"}}),
        ("message", {"success": False, "message": "prompt not found", "errorCode": "AB08"}),
        ("gateway", {"status": "failure", "message": "prompt not found"}),
    ],
)
async def test_error_bodies(shape: Any, expected: Any) -> None:
    async with api(quirks=Quirks(error_shape=shape)) as portkey:
        assert await portkey.ask("GET", "/prompts/none") == (404, expected)


async def test_the_error_body_with_a_status_code() -> None:
    async with api(quirks=Quirks(error_shape="error", echo_key=True)) as portkey:
        status, answer = await portkey.ask("GET", "/prompts", key="sandbox-wrong")
        assert (status, answer["status_code"], answer["error"]["code"]) == (401, 401, "AB05")
        assert "sandbox-wrong" in answer["error"]["message"]


# ---- keys, scopes, workspaces ----------------------------------------------------------------------------------------


async def test_unknown_keys_and_unknown_routes() -> None:
    async with api() as portkey:
        for key in ("", "sandbox-other", "\u00fc"):
            status, answer = await portkey.ask("GET", "/prompts", key=key)
            assert (status, code(answer)) == (401, "AB05")
        status, answer = await portkey.ask("POST", "/prompts/x/publish", {})
        assert (status, code(answer)) == (404, "AB02")


async def test_a_workspace_key_is_locked_to_its_workspace() -> None:
    async with api(prompts=5) as portkey:
        other = portkey.sandbox.key("other")
        mine = portkey.sandbox.prompts()[0]
        assert (await portkey.ask("GET", "/prompts", key=other))[1]["total"] == 0
        for path in (f"/prompts/{mine['id']}", f"/prompts?workspace_id={portkey.sandbox.workspace_id()}"):
            status, answer = await portkey.ask("GET", path, key=other)
            assert (status, code(answer)) == (403, "AB03")
        body = (await portkey.body()) | {"collection_id": "support"}
        assert (await portkey.ask("POST", "/prompts", body, key=other))[0] == 200
        assert len(portkey.sandbox.prompts("other")) == 1
        assert len(portkey.sandbox.prompts()) == 5


async def test_workspaces_have_things_of_their_own() -> None:
    async with api() as portkey:
        other = portkey.sandbox.key("other")
        for path in ("/collections", "/providers", "/prompts/partials"):
            mine = (await portkey.get(path))["data"]
            theirs = (await portkey.ask("GET", path, key=other))[1]["data"]
            assert [row["name"] for row in mine] == [row["name"] for row in theirs]
            assert not {row["id"] for row in mine} & {row["id"] for row in theirs}


async def test_an_organisation_key_names_the_workspace() -> None:
    async with api(prompts=5) as portkey:
        admin = portkey.sandbox.admin_key
        status, answer = await portkey.ask("GET", "/prompts", key=admin)
        assert (status, code(answer)) == (400, "AB01")
        for ref in ("main", portkey.sandbox.workspace_id()):
            assert (await portkey.ask("GET", f"/prompts?workspace_id={ref}", key=admin))[1]["total"] == 5
        body = await portkey.body()
        assert (await portkey.ask("POST", "/prompts", body, key=admin))[0] == 400
        assert (await portkey.ask("POST", "/prompts", body | {"workspace_id": "main"}, key=admin))[0] == 200
        prompt = portkey.sandbox.prompts()[0]["id"]
        assert (await portkey.ask("GET", f"/prompts/{prompt}", key=admin))[0] == 200
        status, answer = await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": {}}, key=admin)
        assert (status, code(answer)) == (403, "AB03")
        assert (await portkey.ask("GET", "/prompts?workspace_id=none", key=admin))[0] == 404


async def test_a_scope_that_lacks_is_forbidden() -> None:
    async with api(prompts=3) as portkey:
        reader = portkey.sandbox.key("main", ["prompts.list", "prompts.read"])
        assert reader != portkey.key
        prompt = portkey.sandbox.prompts()[0]["id"]
        assert (await portkey.ask("GET", "/prompts", key=reader))[0] == 200
        assert (await portkey.ask("GET", f"/prompts/{prompt}", key=reader))[0] == 200
        for method, path in (("POST", "/prompts"), ("DELETE", f"/prompts/{prompt}"), ("GET", "/providers")):
            status, answer = await portkey.ask(method, path, {} if method == "POST" else None, key=reader)
            assert (status, code(answer)) == (403, "AB03")
        assert len(portkey.sandbox.prompts()) == 3


async def test_the_data_plane_takes_a_bearer_token() -> None:
    async with api() as portkey:
        path = f"{portkey.sandbox.base_url}/prompts/{portkey.sandbox.add_prompt('x')}/render"
        headers = {"Authorization": f"Bearer {portkey.key}"}
        async with portkey.session.post(path, json={"variables": {}}, headers=headers) as response:
            assert response.status == 200


# ---- collections, labels ---------------------------------------------------------------------------------------------


async def test_collections_that_cannot_be_deleted() -> None:
    async with api() as portkey:
        collections = {doc["slug"]: doc for doc in (await portkey.get("/collections"))["data"]}
        default = next(slug for slug, doc in collections.items() if doc["is_default"])
        assert sum(doc["is_default"] for doc in collections.values()) == 1
        await portkey.create(collection_id="hr")
        for slug, status in ((default, 404), ("hr", 409), ("support", 409), ("sales", 200)):
            assert (await portkey.ask("DELETE", f"/collections/{slug}"))[0] == status
        page = await portkey.get("/collections?current_page=1&page_size=2")
        assert (len(page["data"]), page["total"]) == (2, len(collections) - 1)


async def test_label_names_and_default_labels() -> None:
    async with api() as portkey:
        for name in ("latest", "default", "12", "a b", "", "production"):
            status, _ = await portkey.ask("POST", "/labels", {"name": name})
            assert status == (409 if name == "production" else 400), name
        label = (await portkey.get("/labels?search=stag"))["data"][0]
        assert (await portkey.ask("DELETE", f"/labels/{label['id']}"))[0] == 400


# ---- render and completions ------------------------------------------------------------------------------------------


async def rendered(portkey: Api, prompt: str, variables: dict[str, Any], **overrides: Any) -> Any:
    return (await portkey.post(f"/prompts/{prompt}/render", {"variables": variables, **overrides}))["data"]


async def test_a_raw_template_is_filled_before_it_is_parsed() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt(
            "raw", '[{"role": "user", "content": "{{q}}"}, {{more}}]', is_raw_template=1
        )
        data = await rendered(portkey, prompt, {"q": "<why>", "more": '{"role": "user"}'})
        assert data["messages"] == [{"role": "user", "content": "<why>"}, {"role": "user"}]
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": {}}))[0] == 400


async def test_partials_private_partials_and_pinned_ones() -> None:
    async with api() as portkey:
        partial = (await portkey.post("/prompts/partials", {"name": "p", "string": "one {{x}}"}))["slug"]
        await portkey.put(f"/prompts/partials/{partial}", {"string": "two {{>>Mine}}"})
        text = f"{{{{>{partial}}}}}|{{{{>{partial}@2}}}}|{{{{>> Mine}}}}|{{{{>nothing}}}}"
        prompt = portkey.sandbox.add_prompt("partials", text)
        variables = {"x": 1.5, "Mine": "private {{x}}"}
        assert (await rendered(portkey, prompt, variables))["prompt"] == "one 1.5|two private 1.5|private 1.5|"
        await portkey.put(f"/prompts/partials/{partial}/makeDefault", {"version": 2})
        assert (await rendered(portkey, prompt, variables))["prompt"].startswith("two")
        circle = {"Mine": "{{>>Mine}}"}
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": circle}))[0] == 400


async def test_parameters_that_are_variables_are_defaults_of_them() -> None:
    async with api() as portkey:
        fields: dict[str, Any] = {"parameters": {"company": "Acme", "top_p": 0.5}, "tools": [{"type": "function"}]}
        prompt = portkey.sandbox.add_prompt("d", "{{company}} {{flag}}{{#flag}}!{{/flag}}", **fields)
        data = await rendered(portkey, prompt, {"flag": True}, top_p=0.9)
        model = "claude-3-7-sonnet-20250219"
        assert data == {"prompt": "Acme true!", "model": model, "top_p": 0.9, "tools": [{"type": "function"}]}
        assert (await rendered(portkey, prompt, {"company": "B"}))["prompt"] == "B "


async def test_broken_mustache_is_kept_and_refused_at_render() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt("broken", "{{#a}} {{")
        assert (await portkey.get(f"/prompts/{prompt}"))["variable_components"]["variables"] == []
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {"variables": {}}))[0] == 400
        assert (await portkey.ask("POST", f"/prompts/{prompt}/render", {}))[0] == 400


async def test_a_stored_stream_flag_streams_unless_the_call_says_otherwise() -> None:
    async with api() as portkey:
        prompt = portkey.sandbox.add_prompt("s", parameters={"stream": True})
        headers, url = {"x-portkey-api-key": portkey.key}, f"{portkey.sandbox.base_url}/prompts/{prompt}/completions"
        async with portkey.session.post(url, json={"variables": {}}, headers=headers) as response:
            assert response.content_type == "text/event-stream"
            assert response.headers["Transfer-Encoding"] == "chunked"
            assert (await response.text()).endswith("\n\ndata: [DONE]\n\n")
        answer = await portkey.post(f"/prompts/{prompt}/completions", {"variables": {}, "stream": False})
        assert answer["object"] == "chat.completion"


# ---- the library -----------------------------------------------------------------------------------------------------


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


async def test_many_requests_at_random_do_not_upset_it() -> None:
    rng = random.Random(7)
    async with api(prompts=20) as portkey:
        values: list[Any] = [None, 1, -1, 2**70, 1.5, True, "", "x", "\ud800", [], {}, [1], {"a": 1}]
        fields = ["name", "string", "model", "parameters", "tools", "collection_id", "virtual_key", "version"]
        fields += [
            "label_id",
            "workspace_id",
            "patch",
            "variables",
            "parent_collection_id",
            "status",
            "prompt_metadata",
        ]
        paths = [
            f"/prompts/{rng.choice(portkey.sandbox.prompts())['id']}{end}" for end in ("", "/makeDefault", "/render")
        ]
        paths += ["/prompts", "/prompts/partials", "/collections", "/labels", "/prompts/%ff@\u00b2", "/labels/%00"]
        for _ in range(600):
            body = {field: rng.choice(values) for field in rng.sample(fields, rng.randrange(1, 6))}
            status, answer = await portkey.ask(rng.choice(("POST", "PUT")), rng.choice(paths), body)
            assert status < 500, (body, answer)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
