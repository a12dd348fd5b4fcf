"""The sandbox over its wire: what goes in comes back, and what is wrong is refused."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.sandbox.answers import decode, encode
from tests.sandbox_api import api, code

RETRIEVED = (
    "id collection_id name slug created_at last_updated_at status access_level share_organisation_id shared_at"
    " shared_by_user_id shared_from_version_id allow_all_workspaces forked_from_prompt_id"
    " forked_from_prompt_version_id prompt_owning_workspace_id model prompt_version_id prompt_version"
    " prompt_version_description prompt_version_status string variable_components parameters functions tools"
    " tool_choice template_metadata prompt_version_label_id prompt_version_label_name is_raw_template"
    " prompt_version_labels virtual_key object"
).split()
LISTED = [*RETRIEVED[: RETRIEVED.index("prompt_owning_workspace_id") + 1], "model", "object"]


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
    [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": -Infinity}', b"\xff", b'{"a":' * 100_000],
)
async def test_what_cannot_be_kept_is_refused(raw: bytes) -> None:
    async with api() as portkey:
        headers = {"x-portkey-api-key": portkey.key}
        async with portkey.session.post(portkey.sandbox.base_url + "/prompts", data=raw, headers=headers) as response:
            assert response.status == 400
            answer = await response.json()
            assert code(answer) == "AB01"
            assert answer["data"]["message"].startswith("the body")


async def test_numbers_are_given_back_byte_for_byte() -> None:
    numbers = ["1.50", "1E+2", "-0", "1e-400", "1e999", "0.1000000000000000055511151231257827", "9" * 5000]
    sent = "[" + ", ".join(numbers) + "]"
    async with api() as portkey:
        body = json.dumps(await portkey.body(parameters={"n": 0, "s": "\ud800"})).replace('"n": 0', f'"n": {sent}')
        headers = {"x-portkey-api-key": portkey.key}
        url = portkey.sandbox.base_url + "/prompts"
        async with portkey.session.post(url, data=body.encode(), headers=headers) as response:
            assert response.status == 200
            made = (await response.json())["id"]
        async with portkey.session.get(f"{url}/{made}", headers=headers) as response:
            assert sent in await response.text()
        rendered = portkey.session.post(f"{url}/{made}/render", data=b'{"variables":{"name":1.50}}', headers=headers)
        async with rendered as response:
            text = await response.text()
    assert sent in text
    assert '"Hi"' in text


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
