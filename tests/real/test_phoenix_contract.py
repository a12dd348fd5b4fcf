"""What Phoenix's prompts do, as far as a connector stands on it: the contract, held to a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.real.servers import Server

AT_ONCE = 16
PROVIDERS = (
    "OPENAI AZURE_OPENAI ANTHROPIC GOOGLE DEEPSEEK XAI OLLAMA AWS CEREBRAS FIREWORKS GROQ MOONSHOT MINIMAX PERPLEXITY"
    " TOGETHER ZAI META"
).split()
OWN_FAMILIES = {"ANTHROPIC": "anthropic", "GOOGLE": "google", "AWS": "aws"}
"""The others take the family `openai`."""
OPENAI_LIKE = (
    "azure_openai deepseek xai ollama cerebras fireworks groq moonshot perplexity together zai meta openai".split()
)
TOOLS = {
    "type": "tools",
    "tools": [
        {
            "type": "function",
            "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
        },
        {"type": "raw", "raw": {"anything": [1, None]}},
    ],
    "tool_choice": {"type": "specific_function", "function_name": "f"},
    "disable_parallel_tool_calls": True,
}
RESPONSE_FORMAT = {
    "type": "json_schema",
    "json_schema": {"name": "o", "description": "d", "schema": {"type": "object"}, "strict": True},
}
OPENAI_PARAMETERS: dict[str, Any] = {
    "temperature": 0.1,
    "max_tokens": 1,
    "max_completion_tokens": 2,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "top_p": 0.5,
    "seed": 3,
    "stop": ["x"],
    "reasoning_effort": "low",
    "extra_body": {"top_k": 5, "deep": {"b": [1, None]}},
}


@pytest.fixture
def api(phoenix: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{phoenix.base_url}/v1/", trust_env=False, timeout=120) as client:
        yield client


def chat(*messages: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "chat", "messages": [{"role": role, "content": content} for role, content in messages]}


def body(text: Any = "Hi {{name}}", **fields: Any) -> dict[str, Any]:
    """A version."""
    known = {
        "model_provider": "OPENAI",
        "model_name": "gpt-4o",
        "template_type": "CHAT",
        "template_format": "MUSTACHE",
        "template": chat(("user", text)),
        "invocation_parameters": {"type": "openai", "openai": {}},
    }
    return known | fields


def parameters(family: str = "openai", **fields: Any) -> dict[str, Any]:
    return {"invocation_parameters": {"type": family, family: fields}}


def create(api: httpx.Client, name: str, version: Mapping[str, Any] | None = None, **prompt: Any) -> httpx.Response:
    return api.post("prompts", json={"prompt": {"name": name, **prompt}, "version": version or body()})


def add(api: httpx.Client, name: str, version: Mapping[str, Any], *tags: str) -> httpx.Response:
    return api.post(f"prompts/{name}/versions", json={"version": version, "tags": [{"name": tag} for tag in tags]})


def made(api: httpx.Client, name: str, *texts: str) -> list[str]:
    """A prompt of these versions; their ids, oldest first."""
    return [create(api, name, body(text)).json()["data"]["id"] for text in texts or ("one",)]


def kept(api: httpx.Client, **fields: Any) -> dict[str, Any]:
    """What came of these fields of a version."""
    answer = create(api, "kept", body(**fields))
    assert answer.status_code == 200, answer.text
    newest: dict[str, Any] = api.get("prompts/kept/latest").json()["data"]
    assert newest == answer.json()["data"]
    return {name: newest.get(name) for name in fields}


def complaints(answer: httpx.Response) -> list[tuple[str, str]]:
    """Of a 422: what is wrong, and where, as a path without the names of alternatives."""
    assert answer.status_code == 422, answer.text
    return [(one["type"], ".".join(str(part) for part in one["loc"])) for one in answer.json()["detail"]]


def listed(api: httpx.Client, **query: Any) -> dict[str, Any]:
    found: dict[str, Any] = api.get("prompts", params=query).json()
    return found


def names(found: Mapping[str, Any]) -> list[str]:
    return [row["name"] for row in found["data"]]


def texts(api: httpx.Client, name: str) -> list[str]:
    found = api.get(f"prompts/{name}/versions").json()["data"]
    return [version["template"]["messages"][0]["content"] for version in found]


def tags(api: httpx.Client, version: str) -> list[str]:
    return names(api.get(f"prompt_versions/{version}/tags").json())


def tag(api: httpx.Client, version: str, name: str, **more: str) -> httpx.Response:
    return api.post(f"prompt_versions/{version}/tags", json={"name": name, **more})


# ---- listing ---------------------------------------------------------------------------------------------------------


def test_nothing_is_a_list_without_rows(api: httpx.Client) -> None:
    assert listed(api) == {"data": [], "next_cursor": None}


def test_a_row_has_no_version_and_no_time(api: httpx.Client) -> None:
    create(api, "a", description="d", metadata={"k": {"n": [1, None, "ü"]}})
    (row,) = listed(api)["data"]
    assert row.pop("id")
    assert row == {"name": "a", "description": "d", "source_prompt_id": None, "metadata": {"k": {"n": [1, None, "ü"]}}}


def test_pages_are_newest_first_and_the_cursor_is_the_next_row(api: httpx.Client) -> None:
    for name in "abcd":
        made(api, name)
    first = listed(api, limit=2)
    assert names(first) == ["d", "c"]
    assert first["next_cursor"] == next(row["id"] for row in listed(api)["data"] if row["name"] == "b")
    last = listed(api, limit=2, cursor=first["next_cursor"])
    assert (names(last), last["next_cursor"]) == (["b", "a"], None)


def test_pages_stand_still_while_prompts_come_and_go(api: httpx.Client) -> None:
    for name in "abcd":
        made(api, name)
    first = listed(api, limit=2)
    made(api, "new")
    api.delete("prompts/d")
    api.delete("prompts/b")  # the row that the cursor names
    assert names(listed(api, limit=2, cursor=first["next_cursor"])) == ["a"]


def test_a_page_may_hold_any_number(api: httpx.Client) -> None:
    made(api, "a")
    assert names(listed(api, limit=1_000_000)) == ["a"]
    assert api.get("prompts", params={"limit": 0}).status_code == 422


def test_a_cursor_that_is_none_is_refused_in_words(api: httpx.Client) -> None:
    answer = api.get("prompts", params={"cursor": "x"})
    assert (answer.status_code, answer.text) == (422, "Invalid cursor format: x")


def test_one_prompt_cannot_be_asked_for(api: httpx.Client) -> None:
    """There is no such call: the page of its web interface answers, as 200."""
    made(api, "a")
    answer = api.get("prompts/a")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")


# ---- create and append -----------------------------------------------------------------------------------------------


def test_a_create_answers_200_with_the_version(api: httpx.Client) -> None:
    answer = create(api, "a", body(description="v1", metadata={"m": 1}))
    assert answer.status_code == 200
    found = answer.json()["data"]
    assert found.pop("id")
    assert found == body(description="v1", metadata={"m": 1})


def test_a_create_of_a_name_that_is_there_appends_a_version_and_says_nothing(api: httpx.Client) -> None:
    """So a create whose answer was lost must be looked up, never repeated."""
    create(api, "a", body("one"), description="first", metadata={"k": 1})
    assert create(api, "a", body("two"), description="second", metadata={"k": 2}).status_code == 200
    assert texts(api, "a") == ["two", "one"]
    (row,) = listed(api)["data"]
    assert (row["description"], row["metadata"]) == ("first", {"k": 1})  # what the second one brought is lost


def test_of_many_creates_at_once_each_is_a_version(api: httpx.Client) -> None:
    """Of a new name too: none is refused, and no two prompts come of it."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda number: create(api, "a", body(str(number))).status_code, range(AT_ONCE)))
    assert answers == [200] * AT_ONCE
    assert sorted(texts(api, "a")) == sorted(map(str, range(AT_ONCE)))
    assert names(listed(api)) == ["a"]


def test_a_version_is_added_as_201_with_its_tags(api: httpx.Client) -> None:
    made(api, "a")
    answer = add(api, "a", body("two", metadata={"m": 1}), "production", "staging")
    assert answer.status_code == 201
    assert sorted(tags(api, answer.json()["data"]["id"])) == ["production", "staging"]
    assert texts(api, "a") == ["two", "one"]


def test_a_version_of_a_prompt_that_is_not_there_is_404_in_words(api: httpx.Client) -> None:
    answer = add(api, "none", body())
    assert (answer.status_code, answer.text) == (404, "Prompt not found")


def test_a_tag_that_is_refused_takes_the_version_with_it(api: httpx.Client) -> None:
    made(api, "a")
    assert complaints(add(api, "a", body("two"), "NOT A TAG")) == [("string_pattern_mismatch", "body.tags.0.name")]
    assert texts(api, "a") == ["one"]


def test_where_a_prompt_came_from_is_not_kept(api: httpx.Client) -> None:
    made(api, "a")
    (row,) = listed(api)["data"]
    create(api, "b", source_prompt_id=row["id"])
    assert listed(api)["data"][0]["source_prompt_id"] is None


# ---- versions --------------------------------------------------------------------------------------------------------


def test_versions_are_newest_first_whole_and_in_pages(api: httpx.Client) -> None:
    ids = made(api, "a", "one", "two", "three")
    first = api.get("prompts/a/versions", params={"limit": 2}).json()
    assert [found["id"] for found in first["data"]] == [ids[2], ids[1]]
    assert first["next_cursor"] == ids[0]
    last = api.get("prompts/a/versions", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert ([found["id"] for found in last["data"]], last["next_cursor"]) == ([ids[0]], None)
    assert last["data"][0]["template"] == chat(("user", "one"))


def test_versions_of_a_prompt_that_is_not_there_are_none(api: httpx.Client) -> None:
    answer = api.get("prompts/none/versions")
    assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert api.get("prompts/none/latest").status_code == 404


def test_a_prompt_is_known_by_name_and_by_id_and_a_version_by_its_own(api: httpx.Client) -> None:
    ids = made(api, "a", "one", "two")
    (row,) = listed(api)["data"]
    for which in ("a", row["id"]):
        assert api.get(f"prompts/{which}/latest").json()["data"]["id"] == ids[1]
    assert api.get(f"prompt_versions/{ids[0]}").json()["data"]["template"] == chat(("user", "one"))
    assert api.get("prompt_versions/x").status_code == 422
    assert api.get(f"prompt_versions/{row['id']}").status_code == 422  # the id of a prompt is none of a version


def test_a_version_cannot_be_deleted(api: httpx.Client) -> None:
    (version,) = made(api, "a")
    assert api.delete(f"prompt_versions/{version}").status_code == 405


# ---- tags ------------------------------------------------------------------------------------------------------------


def test_a_tag_is_on_one_version_of_a_prompt_and_moves(api: httpx.Client) -> None:
    one, two = made(api, "a", "one", "two")
    assert tag(api, one, "production", description="d").status_code == 204
    assert api.get("prompts/a/tags/production").json()["data"]["id"] == one
    assert tag(api, two, "production").status_code == 204
    assert (tags(api, one), tags(api, two)) == ([], ["production"])
    assert api.get("prompts/a/tags/production").json()["data"]["id"] == two


def test_a_tag_that_is_not_there_is_404_and_one_that_cannot_be_is_422(api: httpx.Client) -> None:
    made(api, "a")
    assert api.get("prompts/a/tags/none").status_code == 404
    assert api.get("prompts/a/tags/NONE").status_code == 422


def test_a_tag_is_deleted_whichever_version_is_named(api: httpx.Client) -> None:
    one, two = made(api, "a", "one", "two")
    tag(api, two, "production")
    assert api.delete(f"prompt_versions/{one}/tags/production").status_code == 204
    assert tags(api, two) == []
    assert api.delete(f"prompt_versions/{two}/tags/production").status_code == 404


def test_pages_of_tags_overlap_by_one(api: httpx.Client) -> None:
    """Their cursor is the last row of the page, that of the others the first row of the next one."""
    (version,) = made(api, "a")
    for name in ("t1", "t2", "t3"):
        tag(api, version, name)
    first = api.get(f"prompt_versions/{version}/tags", params={"limit": 2}).json()
    assert names(first) == ["t3", "t2"]
    params = {"limit": 2, "cursor": first["next_cursor"]}
    assert names(api.get(f"prompt_versions/{version}/tags", params=params).json()) == ["t2", "t1"]


def test_latest_is_a_tag_as_any_other(api: httpx.Client) -> None:
    one, two = made(api, "a", "one", "two")
    assert tag(api, one, "latest").status_code == 204
    assert api.get("prompts/a/tags/latest").json()["data"]["id"] == one
    assert api.get("prompts/a/latest").json()["data"]["id"] == two


# ---- changes and deletes ---------------------------------------------------------------------------------------------


def test_description_and_metadata_are_patched_each_as_a_whole(api: httpx.Client) -> None:
    create(api, "a", description="old", metadata={"k": 1, "l": 2})
    answer = api.patch("prompts/a", json={"metadata": {"only": 1}})
    assert answer.status_code == 200
    assert (answer.json()["data"]["description"], answer.json()["data"]["metadata"]) == ("old", {"only": 1})
    assert api.patch("prompts/a", json={"description": " new "}).json()["data"]["description"] == "new"  # stripped
    api.patch("prompts/a", json={"description": None})
    (row,) = listed(api)["data"]
    assert (row["description"], row["metadata"]) == (None, {"only": 1})


@pytest.mark.parametrize("change", [{}, {"name": "b"}, {"metadata": None}])
def test_a_patch_that_changes_nothing_is_refused(api: httpx.Client, change: dict[str, Any]) -> None:
    """A name in particular stays as it is."""
    made(api, "a")
    assert api.patch("prompts/a", json=change).status_code == 422


def test_a_description_keeps_its_spaces_when_it_is_created(api: httpx.Client) -> None:
    create(api, "a", description=" d ")
    assert listed(api)["data"][0]["description"] == " d "


def test_a_deleted_prompt_is_gone_with_all_it_had_and_its_name_is_free(api: httpx.Client) -> None:
    old = made(api, "a", "one", "two")
    tag(api, old[0], "production")
    assert api.delete("prompts/a").status_code == 204
    assert api.delete("prompts/a").status_code == 404
    assert api.get(f"prompt_versions/{old[0]}").status_code == 404
    new = made(api, "a", "three")
    assert texts(api, "a") == ["three"]
    assert api.get("prompts/a/tags/production").status_code == 404
    assert not set(new) & set(old)


def test_the_id_of_the_newest_prompt_is_given_again_when_it_was_deleted(api: httpx.Client) -> None:
    """On sqlite: an id in a ledger may mean another prompt later. Ids of versions are never given again."""
    made(api, "a")
    (old,) = listed(api)["data"]
    api.delete("prompts/a")
    made(api, "b")
    (new,) = listed(api)["data"]
    assert (new["name"], new["id"]) == ("b", old["id"])


# ---- what it takes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0", "a", "9a", "a--b", "a__b", "a-_b9", "a" * 300, "a" * 5_000])
def test_names_that_it_takes(api: httpx.Client, name: str) -> None:
    assert create(api, name).status_code == 200
    (version,) = made(api, "tagged")
    assert tag(api, version, name).status_code == 204


@pytest.mark.parametrize("name", ["", "A", "a.b", "a/b", "a b", "ü", "-a", "_a", "a-", "a_", "a\n"])
def test_names_that_it_refuses(api: httpx.Client, name: str) -> None:
    assert complaints(create(api, name)) == [("string_pattern_mismatch", "body.prompt.name")]
    (version,) = made(api, "tagged")
    assert complaints(tag(api, version, name)) == [("string_pattern_mismatch", "body.name")]


@pytest.mark.parametrize("field", ["prompt", "version", "body"])
def test_fields_that_it_does_not_know_are_lost_without_a_word(api: httpx.Client, field: str) -> None:
    whole: dict[str, Any] = {"prompt": {"name": "a"}, "version": body()}
    (whole if field == "body" else whole[field])["unknown"] = 1
    answer = api.post("prompts", json=whole)
    assert answer.status_code == 200
    assert "unknown" not in answer.text


@pytest.mark.parametrize(
    "text", ["", "ü😀", " \r\n\ttrailing  \n", "\\ \" '", "a\u2028b\u0000c", "{{#if} {", "x" * 10**6]
)
@pytest.mark.parametrize("template_format", ["MUSTACHE", "F_STRING", "NONE"])
def test_a_text_comes_back_as_it_was_and_is_never_parsed(api: httpx.Client, text: str, template_format: str) -> None:
    template = chat(("system", text), ("user", text))
    assert kept(api, template=template, template_format=template_format)["template"] == template


def test_formats_of_templates_are_three(api: httpx.Client) -> None:
    assert complaints(create(api, "a", body(template_format="JINJA2"))) == [("enum", "body.version.template_format")]


def test_a_prompt_that_is_no_chat_is_refused_in_words(api: httpx.Client) -> None:
    answer = create(api, "a", body(template_type="STR", template={"type": "string", "template": "x"}))
    assert (answer.status_code, answer.text) == (422, "Only CHAT template type is supported for prompts")


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "ai", "model", "tool"])
def test_roles_that_it_takes_stay_as_they_are(api: httpx.Client, role: str) -> None:
    template = chat((role, "x"))
    assert kept(api, template=template)["template"] == template


@pytest.mark.parametrize("role", ["function", "human", "User", ""])
def test_roles_that_it_refuses(api: httpx.Client, role: str) -> None:
    answer = create(api, "a", body(template=chat((role, "x"))))
    assert complaints(answer) == [("literal_error", "body.version.template.chat.messages.0.role")]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        [{"type": "tool_call", "tool_call_id": "1", "tool_call": {"type": "function", "name": "f", "arguments": "{}"}}],
        [{"type": "tool_result", "tool_call_id": "1", "tool_result": {"a": [1, None]}}],
    ],
)
def test_messages_may_have_several_parts(api: httpx.Client, content: list[Any]) -> None:
    template = chat(("user", content))
    assert kept(api, template=template)["template"] == template


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "x", "name": "n"},
        {"role": "user", "content": None},
        {"role": "user", "content": []},
        {"role": "user", "content": ["x"]},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]},
        {"role": "assistant", "content": "x", "tool_calls": []},
    ],
)
def test_messages_that_it_refuses(api: httpx.Client, message: dict[str, Any]) -> None:
    """In particular names, pictures and the calls of tools as OpenAI writes them."""
    found = complaints(create(api, "a", body(template={"type": "chat", "messages": [message]})))
    assert {where.split(".messages.0.")[0] for _, where in found} == {"body.version.template.chat"}


def test_a_chat_may_have_no_messages(api: httpx.Client) -> None:
    assert kept(api, template=chat())["template"] == chat()


def test_tools_and_the_response_format_come_back_as_they_were(api: httpx.Client) -> None:
    assert kept(api, tools=TOOLS, response_format=RESPONSE_FORMAT) == {
        "tools": TOOLS,
        "response_format": RESPONSE_FORMAT,
    }


@pytest.mark.parametrize("choice", ["none", "zero_or_more", "one_or_more"])
def test_choices_of_tools(api: httpx.Client, choice: str) -> None:
    tools = TOOLS | {"tool_choice": {"type": choice}}
    assert kept(api, tools=tools)["tools"] == tools


def test_no_tools_is_no_field(api: httpx.Client) -> None:
    answer = create(api, "a", body(tools={"type": "tools", "tools": []}))
    assert complaints(answer) == [("too_short", "body.version.tools.tools")]


def test_a_response_format_is_a_schema_or_none(api: httpx.Client) -> None:
    answer = create(api, "a", body(response_format={"type": "json_object"}))
    assert complaints(answer) == [("union_tag_invalid", "body.version.response_format")]


def test_a_version_has_metadata_which_is_an_object(api: httpx.Client) -> None:
    metadata = {"deep": {"k": [1, None, "ü", 1.5]}, "long": "x" * 100_000}
    assert kept(api, metadata=metadata)["metadata"] == metadata
    assert complaints(create(api, "a", body(metadata=None))) == [("dict_type", "body.version.metadata")]


def test_what_is_empty_is_left_out_of_the_answer_but_for_the_description(api: httpx.Client) -> None:
    create(api, "a", body(metadata={}, tools=None, response_format=None, description=None))
    assert sorted(api.get("prompts/a/latest").json()["data"]) == sorted([*body(), "id", "description"])
    assert api.get("prompts/a/latest").json()["data"]["description"] == ""


# ---- providers and parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_providers_and_the_family_of_their_parameters(api: httpx.Client, provider: str) -> None:
    """A create takes any family; a version that is added has to have the provider's own."""
    assert create(api, "a", body(model_provider=provider)).status_code == 200
    strange = add(api, "a", body(model_provider=provider))
    if provider in OWN_FAMILIES:
        family = OWN_FAMILIES[provider]
        assert strange.status_code == 422
        assert strange.text == (
            f"Invocation parameters variant 'openai' does not match model provider '{provider}' (expected '{family}')."
        )
        own = parameters(family, **({"max_tokens": 5} if family == "anthropic" else {}))
        strange = add(api, "a", body(model_provider=provider, **own))
    assert strange.status_code == 201


@pytest.mark.parametrize("provider", ["MISTRAL", "openai", "COHERE", "BEDROCK", ""])
def test_providers_that_it_refuses(api: httpx.Client, provider: str) -> None:
    answer = create(api, "a", body(model_provider=provider))
    assert complaints(answer) == [("enum", "body.version.model_provider")]


def test_a_model_may_have_any_name(api: httpx.Client) -> None:
    for name in ("", "x" * 1_000, "accounts/fireworks/models/ü"):
        assert kept(api, model_name=name)["model_name"] == name


@pytest.mark.parametrize("family", OPENAI_LIKE)
def test_families_like_openai_become_openai(api: httpx.Client, family: str) -> None:
    sent = parameters(family, temperature=0.5)
    assert kept(api, **sent) == parameters("openai", temperature=0.5)


def test_parameters_of_openai_come_back_as_they_were(api: httpx.Client) -> None:
    assert kept(api, **parameters(**OPENAI_PARAMETERS)) == parameters(**OPENAI_PARAMETERS)


@pytest.mark.parametrize(
    ("family", "fields"),
    [
        ("anthropic", {"max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "stop_sequences": ["x"]}),
        ("anthropic", {"max_tokens": 5_000, "thinking": {"type": "enabled", "budget_tokens": 2_000}}),
        ("anthropic", {"max_tokens": 5, "output_config": {"effort": "low"}, "extra_body": {"top_k": 3}}),
        ("google", {"max_output_tokens": 5, "top_k": 3.0, "stop_sequences": ["x"], "presence_penalty": 0.5}),
        ("google", {"thinking_config": {"thinking_budget": 5, "include_thoughts": True}}),
        ("aws", {"max_tokens": 5, "temperature": 0.5, "top_p": 0.5, "stop_sequences": ["x"]}),
    ],
)
def test_parameters_of_the_other_families(api: httpx.Client, family: str, fields: dict[str, Any]) -> None:
    assert kept(api, **parameters(family, **fields)) == parameters(family, **fields)


@pytest.mark.parametrize(
    ("family", "fields", "kind", "field"),
    [
        ("openai", {"top_k": 1}, "extra_forbidden", "top_k"),
        ("openai", {"n": 1}, "extra_forbidden", "n"),
        ("openai", {"stop": "x"}, "list_type", "stop"),
        ("openai", {"temperature": None}, "float_type", "temperature"),
        ("openai", {"max_tokens": 1.5}, "int_from_float", "max_tokens"),
        ("openai", {"reasoning_effort": "huge"}, "literal_error", "reasoning_effort"),
        ("anthropic", {}, "missing", "max_tokens"),
        ("anthropic", {"max_tokens": 5, "top_k": 3}, "extra_forbidden", "top_k"),
        ("google", {"extra_body": {}}, "extra_forbidden", "extra_body"),
        ("aws", {"top_k": 5}, "extra_forbidden", "top_k"),
    ],
)
def test_parameters_that_it_refuses(
    api: httpx.Client, family: str, fields: dict[str, Any], kind: str, field: str
) -> None:
    where = f"body.version.invocation_parameters.{family}.{family}.{field}"
    assert complaints(create(api, "a", body(**parameters(family, **fields)))) == [(kind, where)]


@pytest.mark.parametrize("family", ["minimax", "mistral"])
def test_families_that_it_refuses(api: httpx.Client, family: str) -> None:
    answer = create(api, "a", body(**parameters(family)))
    assert complaints(answer) == [("union_tag_invalid", "body.version.invocation_parameters")]


def test_numbers_become_what_the_field_is(api: httpx.Client) -> None:
    sent: dict[str, Any] = {"temperature": 1, "seed": 1.0, "max_tokens": "5", "top_p": "0.5"}
    assert repr(kept(api, **parameters(**sent))) == repr(parameters(temperature=1.0, max_tokens=5, top_p=0.5, seed=1))


def written(api: httpx.Client, version: Mapping[str, Any], **numbers: str) -> httpx.Response:
    """A create whose bytes are ASCII, with numbers that Python does not write in the place of their names."""
    text = json.dumps({"prompt": {"name": "a"}, "version": version})
    for name, number in numbers.items():
        text = text.replace(f'"{name}"', number)
    headers = {"Content-Type": "application/json", "Connection": "close"}  # a 500 ends the connection too
    return api.post("prompts", content=text.encode(), headers=headers)


@pytest.mark.parametrize("field", ["description", "metadata", "template"])
def test_half_a_character_is_500_and_nothing_is_kept(api: httpx.Client, field: str) -> None:
    lone: dict[str, Any] = {"description": "\ud800", "metadata": {"\ud800": 1}, "template": chat(("user", "\ud800"))}
    assert written(api, body(**{field: lone[field]})).status_code == 500
    assert listed(api)["data"] == []


@pytest.mark.parametrize(
    ("sent", "comes_back"),
    [
        ("1", "1"),
        ("1.50", "1.5"),
        ("1E+2", "100.0"),
        ("-0.0", "-0.0"),
        ("18446744073709551615", "18446744073709551615"),
        ("0.10000000000000000555", "0.1"),
        ("1e400", "None"),
    ],
)
def test_numbers_of_metadata_are_doubles_and_integers_of_64_bits(api: httpx.Client, sent: str, comes_back: str) -> None:
    """One that is too large for a double is lost without a word."""
    assert written(api, body(metadata={"k": "NUMBER"}), NUMBER=sent).status_code == 200
    assert repr(api.get("prompts/a/latest").json()["data"]["metadata"]["k"]) == comes_back


def test_an_integer_of_more_than_64_bits_is_500_and_nothing_is_kept(api: httpx.Client) -> None:
    assert written(api, body(metadata={"k": "NUMBER"}), NUMBER=str(2**64)).status_code == 500
    assert listed(api)["data"] == []


def test_its_own_description_names_the_calls(api: httpx.Client, phoenix: Server) -> None:
    paths = api.get(f"{phoenix.base_url}/openapi.json").json()["paths"]
    assert {path for path in paths if "/prompt" in path} == {
        "/v1/prompts",
        "/v1/prompts/{prompt_identifier}",
        "/v1/prompts/{prompt_identifier}/latest",
        "/v1/prompts/{prompt_identifier}/tags/{tag_name}",
        "/v1/prompts/{prompt_identifier}/versions",
        "/v1/prompt_versions/{prompt_version_id}",
        "/v1/prompt_versions/{prompt_version_id}/tags",
        "/v1/prompt_versions/{prompt_version_id}/tags/{tag_name}",
    }
