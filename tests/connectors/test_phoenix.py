"""Phoenix's wire: what is sent for a prompt, what comes of an answer, and what each error means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.connectors.phoenix.dialect import F_STRINGS, NAMES, NO_TEMPLATES, PHOENIX, fit
from engine.connectors.phoenix.format import Head, body_of, head_of, prompt_of
from engine.connectors.phoenix.listing import NEWEST, WALKS
from engine.connectors.phoenix.parameters import PROVIDERS
from engine.connectors.phoenix.registry import Phoenix, connect
from engine.connectors.portkey.dialect import PORTKEY
from engine.content.digest import differences
from engine.content.translate import translate
from engine.errors import Gone, Rejected, Stop
from engine.lossless_json import decode
from engine.model import Created, Failed, Mark, Prompt, Replica, Unknown, Updated, no_intent
from tests import ends, phoenix_server
from tests.test_shapes import SHAPES as ANY_SHAPE
from tests.test_shapes import all_of, no_bug

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"q": "{{q}}"}'}}
PART = {
    "type": "tool_call",
    "tool_call_id": "c1",
    "tool_call": {"type": "function", "name": "f", "arguments": '{"q": "{{q}}"}'},
}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {}, "strict": True}}


def prompt(text: str = "Hello {{name}}", **fields: Any) -> Prompt:
    known: dict[str, Any] = {"id": "p", "name": "p", "provider": "OPENAI", "model": "m", "dialect": "phoenix"}
    return Prompt(text=text, **known | fields)


def chat(*messages: dict[str, Any]) -> str:
    return json.dumps(messages, ensure_ascii=False)


def replica(source: Prompt) -> Replica:
    return Replica(source=source, prompt=source, mark=Mark(migration="", key="", source_id=""))


def sent(source: Prompt) -> dict[str, Any]:
    body: dict[str, Any] = decode(body_of(replica(source)))
    return body


def version(source: Prompt) -> dict[str, Any]:
    found: dict[str, Any] = sent(source)["version"]
    return found


def back(source: Prompt) -> Prompt:
    """As it is read again."""
    body = sent(source)
    return prompt_of(head_of(body["prompt"]), {"id": "v1", **body["version"]})


def refusal(source: Prompt) -> str:
    with pytest.raises(Rejected) as caught:
        body_of(replica(source))
    return str(caught.value)


# ---- texts and chats -------------------------------------------------------------------------------------------------


def test_a_text_is_the_message_of_a_user_and_comes_back_as_a_text() -> None:
    sends = version(prompt("Hi"))
    assert sends["template"] == {"type": "chat", "messages": [{"role": "user", "content": "Hi"}]}
    assert sends["metadata"] == {"promptferry.form": {"text": True}}
    assert back(prompt("Hi")).text == "Hi"


def test_a_text_that_somebody_made_a_chat_of_is_a_chat() -> None:
    body = version(prompt("Hi"))
    body["template"]["messages"].append({"role": "assistant", "content": "Ho"})
    found = prompt_of(Head("p"), {"id": "v2", **body})
    assert found.text == chat({"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"})
    assert "promptferry.form" not in found.metadata


def test_a_chat_that_python_has_written_needs_nothing_to_be_remembered() -> None:
    source = prompt(chat({"role": "system", "content": "ü"}, {"role": "user", "content": "{{q}}"}))
    assert "metadata" not in version(source)
    assert back(source).text == source.text


@pytest.mark.parametrize(
    "text",
    [
        '[{"role":"user","content":"ü"}]',
        '[{"role": "user", "content": "\\u00fc"}]',
        json.dumps([{"role": "user", "content": "x"}], indent=2),
        '[ {"content":"x" , "role":"user"} ]',
        "[]",
        chat({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
        chat({"role": "assistant", "content": None, "tool_calls": [CALL]}),
        chat({"role": "assistant", "content": "so", "tool_calls": [CALL, CALL]}),
        chat({"role": "assistant", "tool_calls": [CALL]}),
        chat({"role": "tool", "tool_call_id": "c1", "content": "42"}),
        chat({"role": "tool", "content": "42", "tool_call_id": "c1"}),
        chat({"role": "tool", "content": "42"}),
        chat({"role": "assistant", "content": "x", "tool_calls": []}),
    ],
)
def test_the_text_of_a_chat_comes_back_byte_for_byte(text: str) -> None:
    assert back(prompt(text)).text == text


def test_an_edited_chat_is_what_stands_there_and_not_what_was_remembered() -> None:
    body = version(prompt('[ {"content":"x" , "role":"user"} ]'))
    body["template"]["messages"][0]["content"] = "y"
    assert prompt_of(Head("p"), {"id": "v2", **body}).text == chat({"role": "user", "content": "y"})


SYSTEM = {"role": "system", "content": "Be {{tone}}"}
PARTED = {"role": "system", "content": [{"type": "text", "text": "Be {{tone}}"}]}
PLAIN_SYSTEM = {"role": "system", "content": "Be {kind}"}
PARTED_PLAIN = {"role": "system", "content": [{"type": "text", "text": "Be {kind}"}]}
USER = {"role": "user", "content": "Be {{tone}}"}


def of_anthropic(*said: dict[str, Any], **fields: Any) -> Prompt:
    text = json.dumps(said, indent=fields.pop("indent", None))
    return prompt(text, provider="ANTHROPIC", parameters={"max_tokens": 5}, **fields)


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (of_anthropic(SYSTEM, PLAIN_SYSTEM, USER), [PARTED, PLAIN_SYSTEM, USER]),
        (of_anthropic(SYSTEM, indent=1), [PARTED]),
        (of_anthropic(PARTED, SYSTEM), [PARTED, PARTED]),
        (of_anthropic(PARTED), [PARTED]),
        (of_anthropic(SYSTEM, dialect="phoenix-none"), [SYSTEM]),
        (of_anthropic(PLAIN_SYSTEM, dialect="phoenix-f-string"), [PARTED_PLAIN]),
        (prompt(chat(SYSTEM)), [SYSTEM]),
        (prompt(chat(SYSTEM), provider="GOOGLE"), [SYSTEM]),
    ],
)
def test_the_system_of_anthropic_is_a_part_where_it_has_variables(source: Prompt, messages: list[Any]) -> None:
    """Phoenix's client fills in parts there, and no text by itself: tests/real/test_official_clients.py."""
    written = version(source)["template"]["messages"]
    assert written == messages
    assert back(source).text == source.text


def test_a_system_part_that_somebody_edited_is_what_stands_there() -> None:
    body = version(of_anthropic(SYSTEM))
    body["template"]["messages"][0]["content"][0]["text"] = "Be {{kind}}"
    edited = prompt_of(Head("p"), {"id": "v2", **body})
    assert edited.text == chat({"role": "system", "content": "Be {{kind}}"})
    body["template"]["messages"][0]["content"].append({"type": "text", "text": "more"})
    assert len(json.loads(prompt_of(Head("p"), {"id": "v3", **body}).text)[0]["content"]) == 2


def test_calls_of_tools_become_parts_and_parts_become_calls() -> None:
    source = chat(
        {"role": "assistant", "content": "so", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    )
    parts = version(prompt(source))["template"]["messages"]
    assert parts == [
        {"role": "assistant", "content": [{"type": "text", "text": "so"}, PART]},
        {"role": "tool", "content": [{"type": "tool_result", "tool_call_id": "c1", "tool_result": "42"}]},
    ]
    native = {**version(prompt("x")), "metadata": {}, "template": {"type": "chat", "messages": parts}}
    assert prompt_of(Head("p"), {"id": "v", **native}).text == source


@pytest.mark.parametrize(
    "parts",
    [
        [PART, {"type": "text", "text": "after"}],
        [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, PART],
        [{"type": "tool_result", "tool_call_id": "c", "tool_result": {"a": [1, None]}}],
        [{"type": "text", "text": "a"}],
    ],
)
def test_parts_that_openai_has_no_words_for_stay_as_they_are(parts: list[Any]) -> None:
    message = {"role": "assistant", "content": parts}
    native = {**version(prompt("x")), "metadata": {}, "template": {"type": "chat", "messages": [message]}}
    found = prompt_of(Head("p"), {"id": "v", **native})
    assert json.loads(found.text) == [message]
    assert version(found)["template"]["messages"] == [message]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "function", "content": "x"}, "has a role that is none of system, developer"),
        ({"role": "user", "content": "x", "name": "n"}, "has name, which Phoenix does not keep"),
        ({"role": "user", "content": None}, "has no content"),
        ({"role": "user", "content": []}, "has no content"),
        ({"role": "user"}, "has no content"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}, "neither a text nor"),
        ({"role": "user", "content": 7}, "neither a text nor"),
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "has tool_calls that Phoenix does not keep"),
        ({"role": "assistant", "tool_calls": [{"id": "c"}]}, "calls a tool in a way"),
        ({"role": "user", "content": "x", "tool_call_id": "c"}, "has a tool_call_id that"),
        ({"role": "tool", "content": None, "tool_call_id": "c"}, "has a tool_call_id that"),
    ],
)
def test_messages_without_a_place_are_refused_by_number_and_reason(message: dict[str, Any], why: str) -> None:
    source = prompt(chat({"role": "user", "content": "ok"}, message))
    assert why in refusal(source)
    (told,) = fit(source).refused
    assert told.startswith("message 2 ")
    assert why in told


# ---- providers and parameters ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", PROVIDERS)
def test_every_provider_gets_the_family_of_its_own(provider: str) -> None:
    sends = version(prompt(provider=provider, parameters={"max_tokens": 5, "stop": ["x"]}))
    own = {
        "ANTHROPIC": {"type": "anthropic", "anthropic": {"max_tokens": 5, "stop_sequences": ["x"]}},
        "GOOGLE": {"type": "google", "google": {"max_output_tokens": 5, "stop_sequences": ["x"]}},
        "AWS": {"type": "aws", "aws": {"max_tokens": 5, "stop_sequences": ["x"]}},
    }
    others = {"type": "openai", "openai": {"max_tokens": 5, "stop": ["x"]}}
    assert sends["invocation_parameters"] == own.get(provider, others)
    assert back(prompt(provider=provider, parameters={"max_tokens": 5, "stop": ["x"]})).parameters == {
        "max_tokens": 5,
        "stop": ["x"],
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", 5),
        ("n", 1),
        ("stop", "x"),
        ("temperature", True),
        ("temperature", 2**60 + 1),
        ("temperature", "0.5"),
        ("max_tokens", 1.5),
        ("seed", False),
        ("reasoning_effort", "huge"),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "o", "strict": None}}),
        ("parallel_tool_calls", False),
        ("extra_body", {"deep": [1, None]}),
    ],
)
def test_what_no_field_takes_as_it_is_goes_into_the_extra_body(name: str, value: Any) -> None:
    source = prompt(parameters={name: value})
    assert version(source)["invocation_parameters"] == {"type": "openai", "openai": {"extra_body": {name: value}}}
    assert back(source).parameters == {name: value}
    assert refusal(prompt(provider="AWS", parameters={name: value})).startswith(f"parameters.{name}: there is no place")


@pytest.mark.parametrize("provider", ["GOOGLE", "AWS"])
def test_where_there_is_no_extra_body_it_is_a_loss_that_may_be_accepted(provider: str) -> None:
    source = prompt(provider=provider, parameters={"temperature": 0.5, "seed": 3, "logit_bias": {"1": 2}})
    fitted = fit(source)
    assert fitted.losses == ("parameters.seed", "parameters.logit_bias")
    assert fitted.prompt.parameters == {"temperature": 0.5}
    assert fit(fitted.prompt).losses == ()
    assert differences(fitted.prompt, back(fitted.prompt)) == ()


def test_a_single_text_to_stop_at_becomes_a_list_with_a_note() -> None:
    fitted = fit(prompt(parameters={"stop": "x"}))
    assert fitted.prompt.parameters == {"stop": ["x"]}
    assert any(note.startswith("parameters.stop became a list") for note in fitted.notes)


@pytest.mark.parametrize("parameters", [{}, {"max_tokens": None}, {"max_tokens": 1.5}, {"max_completion_tokens": 5}])
def test_anthropic_without_max_tokens_is_refused_with_what_to_do(parameters: dict[str, Any]) -> None:
    source = prompt(provider="ANTHROPIC", parameters=parameters)
    (told,) = fit(source).refused
    assert "set it with rewrite.parameters.set" in told
    assert "parameters.max_tokens is missing" in refusal(source)


@pytest.mark.parametrize(
    ("thinking", "field"),
    [
        ({"type": "enabled", "budget_tokens": 2_000}, "thinking"),
        ({"type": "adaptive"}, "thinking"),
        ({"type": "disabled"}, "thinking"),
        ({"type": "enabled"}, "extra_body"),
        ({"type": "enabled", "budget_tokens": 5}, "extra_body"),
        ({"type": "enabled", "budget_tokens": 5_000}, "extra_body"),
        ({"type": "enabled", "budget_tokens": 2_000, "other": 1}, "extra_body"),
        ("enabled", "extra_body"),
    ],
)
def test_thinking_goes_where_the_server_takes_it(thinking: Any, field: str) -> None:
    source = prompt(provider="ANTHROPIC", parameters={"max_tokens": 5_000, "thinking": thinking})
    assert set(version(source)["invocation_parameters"]["anthropic"]) == {"max_tokens", field}
    assert back(source).parameters == source.parameters


@pytest.mark.parametrize("provider", ["MISTRAL", "openai", "anthropic-prod"])
def test_a_provider_that_is_none_of_its_own_is_refused_with_those_that_are(provider: str) -> None:
    (told,) = fit(prompt(provider=provider)).refused
    assert provider in told
    assert "AZURE_OPENAI" in told
    assert provider in refusal(prompt(provider=provider))


@pytest.mark.parametrize("provider", [None, ""])
def test_no_provider_is_remembered_as_none(provider: str | None) -> None:
    source = prompt(provider=provider, model=None)
    assert version(source)["model_provider"] == "OPENAI"
    assert version(source)["model_name"] == ""
    assert (back(source).provider, back(source).model) == (None, None)
    assert any("it has no provider" in note for note in fit(source).notes)


def test_a_parameter_that_stands_there_twice_is_told_and_not_forgotten() -> None:
    native = version(prompt())
    native["invocation_parameters"]["openai"] = {"temperature": 0.1, "extra_body": {"temperature": 0.2, "top_k": 1}}
    found = prompt_of(Head("p"), {"id": "v", **native})
    assert found.parameters == {"temperature": 0.1, "top_k": 1}
    assert found.extra == {"extra_body.temperature": 0.2}


# ---- tools, metadata and the rest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "wire"),
    [
        ("none", {"type": "none"}),
        ("auto", {"type": "zero_or_more"}),
        ("required", {"type": "one_or_more"}),
        ({"type": "function", "function": {"name": "f"}}, {"type": "specific_function", "function_name": "f"}),
    ],
)
def test_tools_and_their_choice_come_back(choice: Any, wire: Any) -> None:
    source = prompt(tools=[TOOL, {"type": "web_search"}], tool_choice=choice, parameters={"parallel_tool_calls": False})
    assert version(source)["tools"] == {
        "type": "tools",
        "tools": [TOOL, {"type": "raw", "raw": {"type": "web_search"}}],
        "tool_choice": wire,
        "disable_parallel_tool_calls": True,
    }
    assert differences(source, back(source)) == ()


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", "function": {"name": "f", "strict": None}},
        {"type": "function", "function": {"name": "f", "more": 1}},
        {"type": "function", "function": {}},
        {"type": "function", "function": {"name": "f"}, "cache_control": {}},
        {},
    ],
)
def test_a_tool_that_its_own_form_would_change_is_kept_raw(tool: dict[str, Any]) -> None:
    source = prompt(tools=[tool])
    assert version(source)["tools"]["tools"] == [{"type": "raw", "raw": tool}]
    assert back(source).tools == [tool]


RAW_FUNCTION = {"type": "function", "function": {"name": "f", "parameters": None}}


@pytest.mark.parametrize(
    ("tools", "refused"),
    [
        ([TOOL], []),
        ([{"google_search": {}}, {"codeExecution": {}, "url_context": {}}], []),
        ([TOOL, {"kind": "openapi", "name": "weather"}, RAW_FUNCTION], ["number 2", "number 3"]),
    ],
)
def test_what_no_client_could_render_for_google_is_refused(tools: list[Any], refused: list[str]) -> None:
    told = fit(prompt(provider="GOOGLE", tools=tools)).refused
    assert [one for one, word in zip(told, refused, strict=True) if word in one] == [*told]
    assert fit(prompt(provider="OPENAI", tools=tools)).refused == ()


@pytest.mark.parametrize(("tools", "choice"), [(None, "auto"), ([TOOL], "any"), ([TOOL], {"type": "any"})])
def test_a_choice_without_a_place_is_a_loss(tools: Any, choice: Any) -> None:
    source = prompt(tools=tools, tool_choice=choice)
    assert fit(source).losses == ("tool_choice",)
    assert refusal(source).startswith("tool_choice: there is no place")


def test_a_schema_is_the_response_format() -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "o", "schema": {"type": "object"}, "strict": True}}
    source = prompt(parameters={"response_format": schema})
    assert version(source)["response_format"] == schema
    assert version(source)["invocation_parameters"] == {"type": "openai", "openai": {}}
    assert back(source).parameters == source.parameters


def test_the_prompt_s_own_description_and_metadata_travel_and_return() -> None:
    native = version(prompt(chat({"role": "user", "content": "x"}), metadata={"own": 1}, description="v1"))
    row = {"id": "P", "name": "p", "description": "d", "metadata": {"collection": "c", "team": ["a", None]}}
    found = prompt_of(head_of(row), {"id": "v", **native})
    assert (found.collection, found.description) == ("c", "v1")
    assert found.metadata == {"own": 1, "phoenix": {"description": "d", "metadata": {"team": ["a", None]}}}
    sends = sent(found)
    assert sends["prompt"] == {name: value for name, value in row.items() if name != "id"}
    assert sends["version"] == native


def test_metadata_called_phoenix_that_mean_something_else_stay_with_the_version() -> None:
    for value in ({"description": 7}, {"other": 1}, "x", {}):
        source = prompt(metadata={"phoenix": value})
        assert version(source)["metadata"]["phoenix"] == value
        assert back(source).metadata == {"phoenix": value}


def test_what_is_not_known_is_told() -> None:
    found = prompt_of(Head("p", forked=True), {"id": "v", **version(prompt()), "evaluators": [1], "nothing": None})
    assert found.extra == {"evaluators": [1]}
    assert found.notes == ("was made from another prompt; the replica is not",)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"text": "half \ud83d"}, "version.template.messages.content has half a character"),
        ({"parameters": {"seed": 2**64}}, "openai.extra_body.seed has a number"),
        ({"metadata": {"deep": {"n": [-(2**63) - 1]}}}, "metadata.deep.n has a number"),
        ({"metadata": {"half \ud83d": 1}}, "half a character"),
        ({"model": "\udc00"}, "model_name has half a character"),
    ],
)
def test_what_the_server_breaks_down_at_is_refused_by_place(fields: dict[str, Any], where: str) -> None:
    assert where in refusal(prompt(**fields))


def test_a_number_that_is_no_double_is_refused_and_one_that_is_arrives() -> None:
    assert "metadata.n has a number" in refusal(prompt(metadata=decode(b'{"n": 1e400}')))
    assert "metadata.n has a number" in refusal(prompt(metadata=decode(b'{"n": 0.1000000000000000000001}')))
    same = prompt(parameters=decode(b'{"temperature": 1.50, "top_p": 1}'))
    assert differences(same, replace(same, parameters={"temperature": 1.5, "top_p": 1.0})) == ()
    assert b'"temperature":1.50' in body_of(replica(same))


@pytest.mark.parametrize("name", ["A", "a.b", "a/b", "a b", "ü", "-a", "a_", "", "a\n"])
def test_names_are_refused_with_what_to_do(name: str) -> None:
    assert "use rewrite.name" in refusal(prompt(name=name))
    assert NAMES.slug("Größe: A/B_ ") == "gr-e-a-b"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = ("temperature", "top_p", "max_tokens", "stop", "seed", "thinking", "response_format", "extra_body", "x")
contents = (
    st.text()
    | st.just("{{x}}")
    | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}), min_size=1)
)
messages = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": contents})


@given(
    st.sampled_from(PROVIDERS) | st.none(),
    st.dictionaries(st.sampled_from(FIELDS), json_values),
    st.dictionaries(st.text(), json_values, max_size=3),
    st.text() | st.lists(messages, min_size=1, max_size=3).map(json.dumps),
    st.none() | st.text(),
)
def test_all_that_is_fitted_comes_back(
    provider: str | None, parameters: dict[str, Any], metadata: dict[str, Any], text: str, collection: str | None
) -> None:
    parameters = {"max_tokens": 5} | parameters if provider == "ANTHROPIC" else parameters
    source = prompt(text, provider=provider, parameters=parameters, metadata=metadata, collection=collection)
    fitted = fit(source)
    if not fitted.refused:
        assert differences(fitted.prompt, back(fitted.prompt)) == ()
        assert fit(fitted.prompt).prompt == fitted.prompt
    lost = {name.removeprefix("parameters.") for name in fitted.losses}
    assert fitted.prompt.parameters.keys() | lost == parameters.keys()


# ---- templates -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("{{a}} {{ b }} {{ü_1}}", ["a", "b", "ü_1"]),
        ("{{a.b}} {{a-b}} {{#s}} {{^s}} {{/s}} {{>p}} {{&x}} {{! c }} {{a b}} { {{", []),
        ("{{{a}}}", ["a"]),
        (r"\{{a}} \\{{b}}", []),
        ("{{1}}", ["1"]),
    ],
)
def test_a_tag_is_one_word_and_all_else_is_text(text: str, variables: list[str]) -> None:
    tokens = PHOENIX.grammar.tokens(text)
    assert [token.body for token in tokens if token.kind == "variable"] == variables


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{a.b}}", "has a dot in its name"),
        ("{{a-b}}", "{{a-b}} (variable) would be plain text in Phoenix"),
        ("{{#s}}x{{/s}}", "(section) has no counterpart in Phoenix"),
        ("{{{a}}}", "(triple mustache) has no counterpart"),
        ("{{#if}", "is not closed or not well formed"),
        ("{{a", "is not closed or not well formed"),
        ("\\{{a}}", "{{a}} (variable) would be plain text in Phoenix"),
    ],
)
def test_mustache_that_phoenix_would_read_otherwise_is_refused(text: str, why: str) -> None:
    for written in (text, chat({"role": "user", "content": text})):
        refused = translate(prompt(written, dialect="portkey"), PORTKEY, PHOENIX).refused
        assert any(why in one for one in refused), refused


def test_bytes_stay_where_both_read_them_alike() -> None:
    text = "Hello {{ name }}, { {not} a tag } \r\n"
    assert translate(prompt(text, dialect="portkey"), PORTKEY, PHOENIX).prompt.text == text


def test_f_strings_and_texts_without_variables_stay_what_they_are() -> None:
    for dialect, word in ((F_STRINGS, "F_STRING"), (NO_TEMPLATES, "NONE"), (PHOENIX, "MUSTACHE")):
        source = prompt("Hello {name}", dialect=dialect.name)
        assert PHOENIX.takes(dialect.name)
        assert version(source)["template_format"] == word
        assert back(source).dialect == dialect.name


def test_f_strings_become_mustache_where_that_is_exact() -> None:
    source = prompt("Hello {name}, {{literal}}", dialect=F_STRINGS.name)
    assert translate(source, F_STRINGS, PORTKEY).prompt.text == "Hello {{name}}, {literal}"
    for text in ("{x!r}", "{x:>5}", "{a.b}", "{0}", "{}", "{unclosed"):
        assert translate(replace(source, text=text), F_STRINGS, PORTKEY).refused, text
    assert translate(prompt("{{a}}", dialect=NO_TEMPLATES.name), NO_TEMPLATES, PORTKEY).refused


def test_an_f_string_that_nobody_could_render_is_refused() -> None:
    for text in ("{", chat({"role": "user", "content": [{"type": "text", "text": "}"}]})):
        (told,) = fit(prompt(text, dialect=F_STRINGS.name)).refused
        assert "is no f-string" in told


@pytest.mark.parametrize("provider", ["ANTHROPIC", "GOOGLE"])
def test_a_developer_is_the_system_where_there_is_no_such_role(provider: str) -> None:
    text = chat({"role": "developer", "content": "x"}, {"role": "user", "content": "developer"})
    fitted = fit(prompt(text, provider=provider, parameters={"max_tokens": 5}))
    assert fitted.losses == ("messages.role developer",)
    assert fitted.prompt.text == text.replace('"role": "developer"', '"role": "system"')
    assert fit(prompt(text)).losses == ()


# ---- against a server ------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[phoenix_server.Phoenix]:
    with phoenix_server.running() as found:
        yield found


@asynccontextmanager
async def opened(server: phoenix_server.Phoenix, key: str | None = None, **more: Any) -> AsyncIterator[Phoenix]:
    tag = more.pop("published_by", "production")
    async with connect(ends.phoenix(server.url, key, tag), ends.opening(attempts=2, **more)) as target:
        yield target


async def create(target: Phoenix, source: Prompt) -> Any:
    (outcome,) = await target.create([target.encode(replica(source))], no_intent)
    return outcome


async def names(target: Phoenix) -> list[str]:
    return [row.name async for page in target.pages() for row in page.rows]


def fill(server: phoenix_server.Phoenix, count: int, prefix: str = "p") -> None:
    for number in range(count):
        server.post("prompts", prompt={"name": f"{prefix}{number}"}, version=version(prompt()))


async def test_prompts_that_are_made_while_the_listing_is_read_are_in_it(server: phoenix_server.Phoenix) -> None:
    fill(server, 150)

    def meanwhile(method: str, path: str, number: int) -> None:
        if number == 2:
            fill(server, 3, "late")

    server.fault = meanwhile
    async with opened(server) as target:
        found = await names(target)
    assert sorted(found) == sorted(server.prompts)
    assert found[:3] == ["late2", "late1", "late0"]


async def test_more_than_a_page_that_is_made_meanwhile_is_read_too(server: phoenix_server.Phoenix) -> None:
    fill(server, 150)
    server.fault = lambda method, path, number: fill(server, 230, "late") if number == 2 else None
    async with opened(server) as target:
        assert sorted(await names(target)) == sorted(server.prompts)


async def test_a_listing_that_never_holds_still_stops_the_run(server: phoenix_server.Phoenix) -> None:
    fill(server, 101)
    server.fault = lambda method, path, number: fill(server, 1, f"late{number}-")
    async with opened(server) as target:
        with pytest.raises(Stop, match="did not hold still"):
            await names(target)
    assert len(server.requests) == 2 + WALKS


# ---- whose name is free ----------------------------------------------------------------------------------------------


async def test_a_free_name_is_told_by_one_look_for_all_who_ask(server: phoenix_server.Phoenix) -> None:
    fill(server, 3)
    async with opened(server) as target:
        await names(target)
        server.requests.clear()
        asked = [target.named([f"new{number}"]) for number in range(16)]
        assert await asyncio.gather(*asked) == [{}] * 16
        assert server.requests == [("GET", f"/v1/prompts?limit={NEWEST}")]


async def test_what_somebody_made_behind_many_of_ours_is_there(server: phoenix_server.Phoenix) -> None:
    fill(server, 3)
    async with opened(server) as target:
        await names(target)
        fill(server, 1, "theirs")
        for number in range(2 * NEWEST):
            await create(target, prompt(name=f"ours{number}"))
        assert set(await target.named(["theirs0", "new", "ours1"])) == {"theirs0", "ours1"}
        fill(server, 3 * NEWEST, "more")
        assert list(await target.named(["more0"])) == ["more0"]


async def test_what_is_listed_and_gone_is_free(server: phoenix_server.Phoenix) -> None:
    fill(server, 3)
    async with opened(server) as target:
        await names(target)
        server.answered("DELETE", "/v1/prompts/p1", {}, None)
        assert list(await target.named(["p1", "p2"])) == ["p2"]


async def test_a_look_that_failed_tells_nobody_that_a_name_is_free(server: phoenix_server.Phoenix) -> None:
    async with opened(server) as target:
        await names(target)
        fill(server, 1)
        server.fault = lambda method, path, number: (403, "no") if number == 2 else None
        answers = await asyncio.gather(*(target.named(["p0"]) for _ in range(3)), return_exceptions=True)
    refused = [one for one in answers if isinstance(one, Rejected)]
    assert len(refused) == 1
    assert [list(one) for one in answers if isinstance(one, dict)] == [["p0"], ["p0"]]


async def test_tags_are_told_once_though_their_pages_overlap(server: phoenix_server.Phoenix) -> None:
    async with opened(server) as target:
        made = await create(target, prompt())
        for number in range(120):
            await target.label("p", made.version, f"t{number}")
        found = await target.fetch("p")
        assert sorted(found.labels) == sorted(f"t{number}" for number in range(120))
        (one,) = await target.versions("p")
    assert (one.ref, one.ordinal, one.id) == (made.version, 1, made.version)
    assert tuple(one.labels) == found.labels


async def test_what_is_published_is_what_has_the_tag(server: phoenix_server.Phoenix) -> None:
    async with opened(server) as target, opened(server, published_by="newest") as other:
        first = await create(target, prompt("one"))
        body = target.encode_update(replica(prompt("two")), None)
        second = await target.update("p", body, no_intent)
        assert isinstance(second, Updated)
        assert [one.ref for one in await target.versions("p")] == [first.version, second.version_id]
        assert (await target.fetch("p")).text == "one"
        assert (await target.fetch("p", "latest")).text == (await other.fetch("p")).text == "two"
        assert (await target.fetch("p", str(second.version_id))).text == "two"
        await target.publish("p", str(second.version_id))
        assert (await target.fetch("p")).text == "two"
        assert not (await target.fetch("p")).notes
        server.tags.clear()
        assert "counts as published" in (await target.fetch("p")).notes[0]


async def test_a_change_of_the_collection_alone_makes_no_version(server: phoenix_server.Phoenix) -> None:
    async with opened(server) as target:
        await create(target, prompt(collection="a", metadata={"phoenix": {"description": "kept"}}))
        moved = prompt(collection="b", metadata={"phoenix": {"description": "kept"}})
        outcome = await target.update("p", target.encode_update(replica(moved), {"collection"}), no_intent)
        assert outcome == Updated()
        assert (await target.fetch("p")).collection == "b"
    assert len(server.of("p")) == 1
    assert server.prompts["p"]["description"] == "kept"


async def test_a_create_that_could_not_be_tagged_is_in_doubt_and_can_be_completed(
    server: phoenix_server.Phoenix,
) -> None:
    server.fault = lambda method, path, number: (403, "Viewers cannot perform this action.") if "tags" in path else None
    async with opened(server) as target:
        outcome = await create(target, prompt())
        assert isinstance(outcome, Unknown)
        assert "Viewers cannot perform this action." in outcome.message
        server.fault = lambda *_: None
        done = await target.complete("p", target.encode(replica(prompt())), no_intent)
    assert isinstance(done, Created)
    assert server.tags == {("p", "production"): done.version}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ((422, "Only CHAT template type is supported"), Failed, "Only CHAT template type is supported"),
        (
            (422, {"detail": [{"loc": ["body", "version", "x"], "msg": "Input should be y", "input": "SECRET TEXT"}]}),
            Failed,
            "body.version.x: Input should be y",
        ),
        ((403, "Viewers cannot perform this action."), Failed, "Viewers cannot perform this action."),
        ((413, "Too Large"), Failed, "larger than the server or a proxy before it takes"),
        ((405, "Method Not Allowed"), Failed, "405"),
        ((500, "Internal Server Error"), Unknown, "it may have happened"),
        ((200, phoenix_server.PAGE), Unknown, "cannot be used"),
        ((200, {"data": {}}), Unknown, "has no id"),
    ],
)
async def test_each_answer_to_a_create_has_its_fate_and_a_clear_sentence(
    server: phoenix_server.Phoenix, answer: Any, kind: type[Failed | Unknown], words: str
) -> None:
    server.fault = lambda method, path, number: answer if method == "POST" else None
    async with opened(server) as target:
        await names(target)
        outcome = await create(target, prompt())
    assert isinstance(outcome, kind), outcome
    assert words in outcome.message
    assert "SECRET" not in outcome.message


@pytest.mark.parametrize(
    ("status", "body", "reason", "words"),
    [(401, "Invalid token", "key_refused", "refused the key"), (507, "storage", "quota", "make room")],
)
async def test_what_a_person_must_mend_stops_the_run(
    server: phoenix_server.Phoenix, status: int, body: str, reason: str, words: str
) -> None:
    server.fault = lambda method, path, number: (status, body)
    async with opened(server) as target:
        with pytest.raises(Stop) as caught:
            await names(target)
    assert caught.value.reason == reason
    assert words in f"{caught.value} {caught.value.next}"


async def test_a_web_page_is_not_the_server_of_an_api(server: phoenix_server.Phoenix) -> None:
    async with connect(ends.phoenix(f"{server.url}/v1"), ends.opening(attempts=2)) as target:
        with pytest.raises(Stop, match="is not its API"):
            await names(target)


async def test_the_key_goes_as_a_bearer_and_stays_out_of_messages(server: phoenix_server.Phoenix) -> None:
    server.key = "canary-key-0123456789"
    async with opened(server, key="canary-key-0123456789") as target:
        assert await names(target) == []
    async with opened(server, key="canary-wrong-0123456789") as target:
        with pytest.raises(Stop) as caught:
            await names(target)
    assert "canary" not in str(caught.value)


async def test_reads_of_what_is_not_there(server: phoenix_server.Phoenix) -> None:
    async with opened(server) as target:
        for prompt_id in ("none", "No Name"):
            with pytest.raises(Gone):
                await target.fetch(prompt_id)
            with pytest.raises(Gone):
                await target.versions(prompt_id)
            with pytest.raises(Gone):
                await target.delete(prompt_id)
        await create(target, prompt())
        with pytest.raises(Gone):
            await target.fetch("p", "no-version")
        assert await target.named(["none", "No Name"]) == {}


async def test_what_a_version_or_a_label_cannot_be(server: phoenix_server.Phoenix) -> None:
    async with opened(server) as target:
        made = await create(target, prompt())
        for attempt in (target.retract("p", made.version), target.describe("p", "x"), target.create_label("V 1")):
            with pytest.raises(Rejected):
                await attempt
        with pytest.raises(Rejected, match="production says what is published there"):
            await target.create_label("production")
        renamed = await target.update("p", target.encode(replica(prompt(name="q"))), no_intent)
        assert isinstance(renamed, Failed)
        assert renamed.error == "renamed"
    assert len(server.of("p")) == 1


async def test_a_lost_answer_is_in_doubt(server: phoenix_server.Phoenix) -> None:
    server.lose = 1
    async with opened(server) as target:
        assert isinstance(await create(target, prompt()), Unknown)
        assert list(await target.named(["p"])) == ["p"]
    assert len(server.of("p")) == 1


# ---- answers of a shape that no registry should send -----------------------------------------------------------------

ROW = {"id": "P", "name": "p", "description": "d", "metadata": {}}
WHOLE = {"id": "v", **version(prompt(tools=[TOOL], tool_choice="auto"))}
PARTS = ("text", "tool_call", "tool_result", "image", 7)
ODD: list[Any] = [None, True, 7, "x", [], [None], [1], [[]], ["x"], {}, {"type": []}, {"data": None}]
DEEP: list[dict[str, Any]] = [
    *({"template": {"type": "chat", "messages": odd}} for odd in ODD),
    *({"template": {"type": "chat", "messages": [{"role": "user", "content": odd}]}} for odd in ODD),
    *({"template": {"type": "chat", "messages": [{"role": odd, "content": "x"}]}} for odd in ODD),
    *({"template": {"messages": [{"role": "assistant", "content": [{"type": kind}]}]}} for kind in PARTS),
    *({"invocation_parameters": {"type": "openai", "openai": odd}} for odd in ODD),
    *({"invocation_parameters": {"type": "openai", "openai": {"extra_body": odd}}} for odd in ODD),
    *({"tools": {"tools": odd, "tool_choice": odd, "disable_parallel_tool_calls": odd}} for odd in ODD),
    *({"metadata": {"promptferry.form": odd}} for odd in ODD),
    *({"metadata": {"promptferry.form": {"layout": odd, "chat": odd, "text": odd, "provider": odd}}} for odd in ODD),
]
ITEMS = [
    *ANY_SHAPE.values(),
    *(WHOLE | {name: odd} for name in [*WHOLE, "response_format", "description"] for odd in ODD),
    *(WHOLE | more for more in DEEP),
]
SHAPES = [*ANY_SHAPE.values(), *({"data": odd} for odd in ODD)]
ROWS = [{"data": [ROW | {name: odd}], "next_cursor": odd} for name in ROW for odd in ODD]


def test_a_version_of_any_shape_is_read_or_refused_and_never_a_bug() -> None:
    read = 0
    for item in ITEMS:
        with suppress(Rejected):
            found = prompt_of(Head("p"), item)
            read += 1
            with suppress(Rejected):
                body_of(replica(found))
            fit(found)
    assert 40 < read < len(ITEMS) - 40


async def test_rows_of_any_shape_are_an_error_of_ours_and_never_a_bug(server: phoenix_server.Phoenix) -> None:
    server.fault = lambda method, path, number: (200, json.dumps(ROWS[number % len(ROWS)]).encode())
    async with opened(server) as target:
        for _ in ROWS:
            await no_bug(all_of(target.pages()))
            await no_bug(target.versions("p"))


async def test_an_answer_of_any_shape_is_an_error_of_ours_and_never_a_bug(server: phoenix_server.Phoenix) -> None:
    source = prompt()
    create_body, update_body = body_of(replica(source)), body_of(replica(source), {"collection"})
    shapes: list[Any] = []
    server.fault = lambda method, path, number: (200, json.dumps(shapes[-1]).encode())
    async with opened(server) as target:
        for shape in SHAPES:
            shapes.append(shape)
            await no_bug(all_of(target.pages()))
            for version_asked in ("published", "latest", "v"):
                await no_bug(target.fetch("p", version_asked))
            await no_bug(target.versions("p"))
            await no_bug(target.named(["p"]))
            assert await no_bug(target.create([create_body], no_intent))
            assert await no_bug(target.complete("p", create_body, no_intent))
            for body in (create_body, update_body):
                assert await no_bug(target.update("p", body, no_intent))
            for work in (target.publish("p", "v"), target.label("p", "v", "l"), target.delete("p")):
                await no_bug(work)
            assert await no_bug(all_of(target.write_test(None)))
