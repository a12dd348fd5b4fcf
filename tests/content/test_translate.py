"""From one dialect to the other: what arrives, what is lost, what is refused and by which name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from engine.connectors import DIALECTS
from engine.content.dialects import table
from engine.content.templates import variables_of as variables_in
from engine.content.translate import Translated
from engine.content.translate import translate as translate_between
from engine.model import MARK_KEY, Inputs, Json, Prompt
from engine.sandbox.portkey.template import components
from tests.test_real_prompts import DATA, fields

SYSTEM = {"role": "system", "content": "Be {{ tone }}."}
USER = {"role": "user", "content": "Hi {{name}}"}


def translate(prompt: Prompt, to: str, *, messages: str = "refuse") -> Translated:
    return translate_between(prompt, DIALECTS[prompt.dialect], DIALECTS[to], messages=messages)


def variables_of(text: str, dialect: str) -> frozenset[str]:
    return variables_in(text, DIALECTS[dialect].grammar)


def portkey(text: str = "", **given: Any) -> Prompt:
    return Prompt(id="p-1", name="hello", text=text, **given)


def conductor(text: str = "", **given: Any) -> Prompt:
    return Prompt(id="p-1", name="hello", text=text, dialect="conductor", **given)


def chat(*messages: Json) -> Prompt:
    return portkey(json.dumps(messages))


def reason(translated: Translated) -> str:
    (sentence,) = translated.refused
    return sentence


# ---- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mustache", "dollars"),
    [
        ("", ""),
        ("no variable", "no variable"),
        ("Hello {{name}}!", "Hello ${name}!"),
        ("Hello {{ name }}!", "Hello ${name}!"),
        ("{{\n name\t}}", "${name}"),
        ("{{a}}{{b}}{{a}}", "${a}${b}${a}"),
        ("${{price}}", "$${price}"),
        ("{{x}}}", "${x}}"),
        ("{ {{x}} }", "{ ${x} }"),
        ('{"a": {"b": {}}}', '{"a": {"b": {}}}'),
        ("cost ${} ${ } $5 {x} }}", "cost ${} ${ } $5 {x} }}"),
        ("${\n}", "${\n}"),
        ("{{größe}} {{user-name}} {{a[0]}} {{a|b}} {{$x}}", "${größe} ${user-name} ${a[0]} ${a|b} ${$x}"),
        ("two\r\nlines\\n {{x}}\n", "two\r\nlines\\n ${x}\n"),
    ],
)
def test_a_text_is_written_in_the_other_grammar_and_back(mustache: str, dollars: str) -> None:
    there = translate(portkey(mustache), "conductor")
    assert (there.prompt.text, there.prompt.dialect) == (dollars, "conductor")
    assert (there.losses, there.refused, there.notes) == ((), (), ())
    back = translate(there.prompt, "portkey")
    assert (back.refused, back.losses, back.prompt.dialect) == ((), (), "portkey")
    assert translate(back.prompt, "conductor").prompt.text == dollars


@pytest.mark.parametrize(
    ("text", "tag", "what"),
    [
        ("{{#items}}{{x}}{{/items}}", "{{#items}}", "section"),
        ("{{^items}}none{{/items}}", "{{^items}}", "inverted section"),
        ("a {{/items}}", "{{/items}}", "end of a section"),
        ("{{> tone }}", "{{>tone}}", "partial"),
        ("{{>tone@3}}", "{{>tone@3}}", "partial"),
        ("{{>>Private Tone}}", "{{>>Private Tone}}", "private partial"),
        ("{{! secret words }}", "{{! }}", "comment"),
        ("{{=<% %>=}}", "{{= =}}", "delimiters"),
        ("{{{x}}}", "{{{x}}}", "triple mustache"),
        ("{{& x}}", "{{&x}}", "&"),
        ("{{user.name}}", "{{user.name}}", "dot"),
        ("{{.}}", "{{.}}", "dot"),
        ("{{ user name }}", "{{user name}}", "whitespace"),
        ("{{a\nb}}", "{{a b}}", "whitespace"),
        ("{{a}b}}", "{{a}b}}", "brace"),
        ("{{a{b}}", "{{a{b}}", "brace"),
        ("{{a/b}}", "{{a/b}}", "# ^ / > ! & ="),
        ("{{ }}", "{{}}", "no name"),
        ("a {{ b secret", "{{", "not closed"),
        ("{{=secret=}}", "{{", "not well formed"),
        ("cd ${HOME}", "${HOME}", "variable"),
        ("cost ${ {{x}} }", "${ ${x}", "variable"),
    ],
)
def test_what_conductor_cannot_hold_is_refused_by_name(text: str, tag: str, what: str) -> None:
    translated = translate(portkey(text), "conductor")
    assert tag in reason(translated)
    assert what in reason(translated)
    assert "secret" not in reason(translated)
    assert (translated.prompt.text, translated.prompt.dialect) == (text, "conductor")


@pytest.mark.parametrize(
    ("text", "tag", "what"),
    [
        ("${user.name}", "${user.name}", "dot"),
        ("${ a }", "${ a }", "whitespace"),
        ("${a b}", "${a b}", "whitespace"),
        ("${{x}}", "${{x}", "brace"),
        ("${outer${inner}}", "${outer${inner}", "brace"),
        *((f"${{a{sign}b}}", f"${{a{sign}b}}", "# ^ / > ! & =") for sign in "#^/>!&="),
        ("answer {{question}}", "{{question}}", "variable"),
        ("{{#x}}secret{{/x}}", "{{#x}}", "section"),
        ("{{! secret }}", "{{! }}", "comment"),
        ("a {{ secret", "{{", "not closed"),
        ("{${x}}", "{{{x}}}", "triple mustache"),
        ("{${x} secret", "{{", "not closed"),
        ('[{"role": "user", "content": "${secret}"}]', "JSON list", "messages"),
        (" [] ", "JSON list", "messages"),
    ],
)
def test_what_portkey_would_read_otherwise_is_refused_by_name(text: str, tag: str, what: str) -> None:
    translated = translate(conductor(text), "portkey")
    assert tag in reason(translated)
    assert what in reason(translated)
    assert "secret" not in reason(translated)
    assert (translated.prompt.text, translated.prompt.dialect) == (text, "portkey")


@pytest.mark.parametrize(
    ("text", "dialect", "tag"),
    [
        ('Answer as {"verdict": "tell nobody the discount"} for {x}', "langchain", "{...}"),
        ("Answer as {verdict:tell nobody the discount} for {x}", "langchain", "{verdict...}"),
        ("{tell nobody the discount.} for {x}", "langchain", "{tell nobody...}"),
        ('{% if x == "tell nobody" %}a{% endif %}', "mlflow", "{% if x == ... %}"),
        ('{{ "tell nobody" | upper }}', "promptfoo", "{{ ... }}"),
        ('{{#if "tell nobody"}}a{{/if}}', "dotprompt", "{{#if ...}}"),
        ("{{tell nobody the discount}}", "portkey", "{{tell nobody...}}"),
        ("${tell nobody the discount.}", "conductor", "${tell nobody...}"),
    ],
)
def test_a_refusal_names_a_tag_and_quotes_no_text(text: str, dialect: str, tag: str) -> None:
    to = "portkey" if dialect == "conductor" else "conductor"
    refused = translate(Prompt(id="p", name="n", text=text, dialect=dialect), to).refused
    assert tag in "; ".join(refused)
    assert not any(word in "; ".join(refused) for word in ("discount", "nobody the", '"tell'))


def test_a_text_that_becomes_messages_when_its_tags_are_trimmed_could_not_come_back() -> None:
    assert "messages" in reason(translate(portkey('[{"role": "{{a\n}}"}]'), "conductor"))


@pytest.mark.parametrize("name", ["x" * 61 + ".", "x" * 500 + "."])
def test_a_long_name_is_cut(name: str) -> None:
    sentence = reason(translate(portkey(f"{{{{{name}}}}}"), "conductor"))
    assert "x" * 57 + "..." in sentence
    assert "x" * 58 not in sentence


def test_many_reasons_are_counted_each_once() -> None:
    text = "".join(f"{{{{a.{number}}}}}" for number in range(9))
    refused = translate(portkey(text * 2), "conductor").refused
    assert [f"{{{{a.{number}}}}}" in sentence for number, sentence in enumerate(refused[:4])] == [True] * 4
    assert refused[4:] == ("and 5 more reasons of this sort",)


def test_the_same_dialect_is_left_alone() -> None:
    for prompt, to in ((portkey("${x} {{#a}}", parameters={"n": 1}), "portkey"), (conductor("{{x}}"), "conductor")):
        assert translate(prompt, to) == Translated(prompt=prompt)


def test_no_text_shows_in_a_repr() -> None:
    assert "secret" not in repr(translate(portkey("secret {{secret}}"), "conductor"))


@pytest.mark.parametrize(
    ("text", "dialect", "names"),
    [
        ("{{ a }}{{b.c}}{{{d}}}{{&e}}{{#f}}{{g}}{{/f}}{{>h}}{{!i}}", "portkey", {"a", "b.c", "d", "e", "g"}),
        ("{{=<% %>=}}<%a%>{{b}}", "portkey", {"a"}),
        ("{{a}} {{b", "portkey", set()),
        ("${a} ${ b } $${c} ${{d}} ${} ${ } ${e\n} ${f${g}}", "conductor", {"a", " b ", "c", "{d", "f${g"}),
    ],
)
def test_variables_are_those_that_the_registry_finds(text: str, dialect: str, names: set[str]) -> None:
    assert variables_of(text, dialect) == names


def test_a_translated_prompt_has_the_variables_that_the_target_will_find() -> None:
    source = portkey("{{b}} {{a}} {{b}}", variables={"a", "b"}, inputs=Inputs(variables=("b", "a")))
    translated = translate(source, "conductor").prompt
    assert (translated.variables, translated.inputs) == ({"a", "b"}, Inputs(variables=("b", "a")))


@pytest.mark.parametrize(
    ("prompt", "other"),
    [
        (portkey("{{a}}", inputs=Inputs(variables=("a", "strange"))), "strange"),
        (portkey("{{a}} {{b}}", inputs=Inputs(variables=("a",))), "b"),
        (conductor("${a}", inputs=Inputs(variables=("strange",))), "strange"),
    ],
)
def test_a_registry_that_finds_other_variables_speaks_another_grammar(prompt: Prompt, other: str) -> None:
    sentence = reason(translate(prompt, "portkey" if prompt.dialect == "conductor" else "conductor"))
    assert "finds other variables" in sentence
    assert other in sentence.partition(";")[0]


@pytest.mark.parametrize(
    ("text", "signs"),
    [
        (r"a\nb", r"\n"),
        (r"say \"x\"", r"\""),
        (r"caf\u00e9", r"\uXXXX"),  # each X is any hexadecimal digit, as RFC 8259 writes it
        (r"a\n\"b\"", r"\n, \""),
        ("a\\nb\nc", None),
        (r"\unknown \x", None),
    ],
)
def test_a_text_that_a_client_escaped_is_noted_and_not_mended(text: str, signs: str | None) -> None:
    translated = translate(conductor(text), "portkey")
    assert translated.prompt.text == text
    assert [note.partition(" written")[0] for note in translated.notes] == (
        [f"the text holds {signs}"] if signs else []
    )
    assert translate(portkey(text), "conductor").notes == ()


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("messages", [(SYSTEM,), (SYSTEM, USER), ()])
def test_a_chat_is_refused_unless_the_rules_say_how(messages: tuple[Json, ...]) -> None:
    sentence = reason(translate(chat(*messages), "conductor"))
    assert f"{len(messages)} message" in sentence
    assert "rewrite.messages" in sentence


@pytest.mark.parametrize(
    ("messages", "how", "text", "losses"),
    [
        ((SYSTEM,), "system-only", "Be ${tone}.", ()),
        ((SYSTEM, USER), "system-only", "Be ${tone}.", ("messages",)),
        ((SYSTEM, {"role": "developer", "content": "B"}), "system-only", "Be ${tone}.\n\nB", ()),
        (({**SYSTEM, "name": "boss"},), "system-only", "Be ${tone}.", ("messages",)),
        ((SYSTEM, USER), "transcript", "system: Be ${tone}.\n\nuser: Hi ${name}", ("messages",)),
        ((SYSTEM,), "transcript", "system: Be ${tone}.", ("messages",)),
        (
            ({"role": "assistant", "content": None}, USER),
            "transcript",
            "assistant: \n\nuser: Hi ${name}",
            ("messages",),
        ),
        (({"role": "{{who}}", "content": "x"},), "transcript", "${who}: x", ("messages",)),
    ],
)
def test_a_chat_becomes_one_text(messages: tuple[Json, ...], how: str, text: str, losses: tuple[str, ...]) -> None:
    translated = translate(chat(*messages), "conductor", messages=how)
    assert (translated.prompt.text, translated.losses, translated.refused) == (text, losses, ())
    assert translated.prompt.variables == variables_of(text, "conductor")
    assert "became one text" in translated.notes[0]


def test_the_text_parts_of_a_message_stand_in_lines() -> None:
    parts = [{"type": "text", "text": "{"}, {"type": "text", "text": "{{x}} $"}, {"type": "text", "text": "{y}"}]
    translated = translate(chat({"role": "system", "content": parts}), "conductor", messages="system-only")
    assert (translated.prompt.text, translated.losses, translated.refused) == ("{\n${x} $\n{y}", (), ())
    parts[0]["cache_control"] = "on"
    assert translate(chat({"role": "system", "content": parts}), "conductor", messages="system-only").losses == (
        "messages",
    )


IMAGE = {"type": "image_url", "image_url": {"url": "secret"}}


@pytest.mark.parametrize(
    ("messages", "how", "named"),
    [
        ((USER,), "system-only", "without system messages"),
        (({"role": "system", "content": ""},), "system-only", "without system messages"),
        ((), "transcript", "without any messages"),
        ((USER, {"role": "user", "content": [IMAGE]}), "transcript", "message 2 has a part 'image_url'"),
        (({"role": "system", "content": [IMAGE]},), "system-only", "message 1 has a part 'image_url'"),
        (({"role": "user", "content": ["secret"]},), "transcript", "message 1 has a part that is no text"),
        (({"role": "user", "content": {"secret": 1}},), "transcript", "message 1 has a content that is no text"),
        (({"role": 1, "content": "secret"},), "transcript", "message 1 has a role that is no text"),
        (({"role": "assistant", "tool_calls": [{"id": "secret"}]},), "transcript", "message 1 has tool_calls"),
        (({"role": "tool", "tool_call_id": "secret", "content": "x"},), "transcript", "message 1 has tool_call_id"),
        (({"role": "system", "content": "{{"}, {"role": "user", "content": "}}"}), "transcript", "not closed"),
        (({"role": "system", "content": "echo ${HOME}"},), "system-only", "${HOME}"),
    ],
)
def test_what_is_no_text_is_refused_by_its_place(messages: tuple[Json, ...], how: str, named: str) -> None:
    sentence = reason(translate(chat(*messages), "conductor", messages=how))
    assert named in sentence
    assert "secret" not in sentence


def test_what_is_left_out_refuses_nothing() -> None:
    dropped = {"role": "user", "content": [IMAGE, {"type": "text", "text": "{{#x}}{{y.z}}{{/x}} ${HOME}"}]}
    source = chat(SYSTEM, dropped)
    parsed = components(source.text)["variables"]
    translated = translate(
        Prompt(id="p", name="n", text=source.text, inputs=Inputs(variables=parsed)), "conductor", messages="system-only"
    )
    assert (translated.prompt.text, translated.refused, translated.losses) == ("Be ${tone}.", (), ("messages",))
    assert translated.prompt.inputs == Inputs(variables=("tone",))


@pytest.mark.parametrize("found", ["größe", r"gr\u00f6\u00dfe"])
def test_a_registry_may_look_for_variables_in_the_json_or_in_its_strings(found: str) -> None:
    text = json.dumps([{"role": "system", "content": "{{größe}}"}])
    translated = translate(portkey(text, inputs=Inputs(variables=(found,))), "conductor", messages="system-only")
    assert (translated.prompt.text, translated.refused) == ("${größe}", ())


def test_a_raw_template_goes_only_when_it_is_messages_already() -> None:
    assert "raw template" in reason(translate(portkey("[{{messages}}]", raw=True), "conductor", messages="transcript"))
    whole = translate(portkey(json.dumps([SYSTEM]), raw=True), "conductor", messages="system-only")
    assert (whole.prompt.text, whole.prompt.raw, whole.refused) == ("Be ${tone}.", True, ())


@pytest.mark.parametrize("text", ["[1, 2]", '[{"content": "x"}]', '{"role": "user"}', "[not json]", "[" * 100_000])
def test_what_only_looks_like_messages_is_a_text(text: str) -> None:
    assert translate(portkey(text), "conductor").prompt.text == text
    back = translate(conductor(text), "portkey")
    assert (back.prompt.text, back.refused) == (text, ())


# ---- parameters, metadata, the rest ----------------------------------------------------------------------------------


BOTH: list[tuple[dict[str, Json], dict[str, Json]]] = [
    ({"temperature": 0}, {"temperature": 0}),
    ({"temperature": 0.7, "top_p": 1}, {"temperature": 0.7, "topP": 1}),
    ({"stop": ["END", "\n"]}, {"stopWords": ["END", "\n"]}),
    ({"response_format": {"type": "text"}}, {"responseFormat": "text"}),
    ({"response_format": {"type": "json_object"}}, {"responseFormat": "json"}),
]


@pytest.mark.parametrize(("own", "other"), BOTH)
def test_parameters_that_both_have_go_there_and_back(own: dict[str, Json], other: dict[str, Json]) -> None:
    there = translate(portkey(parameters=own), "conductor")
    assert (there.prompt.parameters, there.losses) == (other, ())
    back = translate(conductor(parameters=other), "portkey")
    assert (back.prompt.parameters, back.losses) == (own, ())


@pytest.mark.parametrize(
    ("parameters", "losses"),
    [
        ({"max_tokens": 5, "seed": 1, "nothing": None}, ["max_tokens", "seed"]),
        ({"temperature": "0.7"}, ["temperature"]),
        ({"temperature": True}, ["temperature"]),
        ({"temperature": None, "stop": None}, []),
        ({"stop": "END"}, ["stop"]),
        ({"stop": []}, ["stop"]),
        ({"stop": ["a", 1]}, ["stop"]),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, ["response_format"]),
        ({"response_format": "json"}, ["response_format"]),
        ({"topP": 1, "stopWords": ["x"]}, ["stopWords", "topP"]),
        ({"n": 0, "logprobs": False}, ["logprobs", "n"]),
    ],
)
def test_parameters_without_a_place_in_conductor_are_losses(parameters: dict[str, Json], losses: list[str]) -> None:
    translated = translate(portkey(parameters=parameters), "conductor")
    assert translated.losses == tuple(f"parameters.{name}" for name in losses)
    assert (translated.prompt.parameters, translated.refused) == ({}, ())


@pytest.mark.parametrize(
    ("parameters", "losses"),
    [
        ({"tokens": 5, "nothing": None}, ["tokens"]),
        ({"top_p": 1}, ["top_p"]),
        ({"stopWords": "x"}, ["stopWords"]),
        ({"responseFormat": "xml"}, ["responseFormat"]),
        ({"responseFormat": {"type": "text"}}, ["responseFormat"]),
    ],
)
def test_parameters_without_a_place_in_portkey_are_losses(parameters: dict[str, Json], losses: list[str]) -> None:
    translated = translate(conductor(parameters=parameters), "portkey")
    assert translated.losses == tuple(f"parameters.{name}" for name in losses)
    assert (translated.prompt.parameters, translated.refused) == ({}, ())


def test_a_default_value_of_a_variable_is_no_parameter() -> None:
    source = portkey("{{temperature}} today", variables={"top_p"}, parameters={"temperature": 30, "top_p": 1})
    there = translate(source, "conductor")
    assert (there.prompt.parameters, there.losses) == ({}, ("parameters.temperature", "parameters.top_p"))
    given = {"topP": 0.5, "temperature": 0.5}
    back = translate(conductor("${top_p}", parameters=given), "portkey")
    assert (back.prompt.parameters, back.losses) == ({"temperature": 0.5}, ("parameters.topP",))
    back = translate(conductor("${topP}", parameters=given), "portkey")
    assert (back.prompt.parameters, back.losses) == ({"temperature": 0.5, "top_p": 0.5}, ())


def test_metadata_become_tags_where_they_can() -> None:
    mark = {"migration": "m", "key": "k"}
    kept: dict[str, Json] = {"team": "docs", "empty": "", "areas": ["a", "b"], MARK_KEY: mark}
    lost: dict[str, Json] = {
        "n": 1,
        "o": {"a": 1},
        "one": ["a"],
        "unsorted": ["b", "a"],
        "twice": ["a", "a"],
        "x": [1, 2],
    }
    translated = translate(portkey(metadata={**kept, **lost, "nothing": None}), "conductor")
    assert translated.prompt.metadata == kept
    assert translated.losses == tuple(sorted(f"metadata.{key}" for key in lost))


def test_tags_stay_as_they_are() -> None:
    tags = {"team": "docs", "areas": ["a", "b"], MARK_KEY: "k"}
    translated = translate(conductor(metadata=tags), "portkey")
    assert (translated.prompt.metadata, translated.losses) == (tags, ())


def test_what_the_fields_of_the_target_show_is_left_to_them() -> None:
    given: dict[str, Any] = {
        "tools": [{"a": 1}],
        "functions": [{"b": 1}],
        "tool_choice": "auto",
        "extra": {"c": 1},
        "description": "d",
        "model": "m",
        "provider": "v",
        "collection": "c-1",
        "labels": ("production",),
    }
    translated = translate(portkey("x", **given), "conductor")
    assert translated.losses == ()
    assert {name: getattr(translated.prompt, name) for name in given} == given


@pytest.mark.parametrize("way", [("portkey", "conductor"), ("conductor", "portkey")])
def test_the_table_of_a_way_has_a_row_for_every_parameter_and_lost_field(way: tuple[str, str]) -> None:
    source, target = (DIALECTS[name] for name in way)
    rows = dict(table(source, target, {"name", "text", "model", "description"}))
    for pair in BOTH:
        names = pair if way[0] == "portkey" else reversed(pair)
        for name, other in zip(*names, strict=True):
            (becomes,) = {becomes for what, becomes in rows.items() if what.split(" ")[0].rstrip(",") == name} - {
                "a loss: make a single text a list of one with rewrite.parameters"
            }
            assert becomes.split(" ")[0].rstrip(",") == other
    lost = "collection, provider, parameters, functions, tools, tool_choice, raw, metadata, integrations"
    assert rows[lost] == "a loss"


def test_the_table_says_what_is_refused() -> None:
    there = dict(table(DIALECTS["portkey"], DIALECTS["conductor"], ()))
    assert there["sections {{#x}}, inverted sections {{^x}}"] == "refused"
    assert there["literal ${name}"].startswith("refused")
    assert there["names with dots, whitespace, braces, one of # ^ / > ! & ="] == "refused: rename the variable"
    back = dict(table(DIALECTS["conductor"], DIALECTS["portkey"], ()))
    assert back["literal {{"].startswith("refused")
    assert back["a text that is a JSON list of messages"] == "refused: it would become a chat"


# ---- prompts that people wrote ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
@pytest.mark.parametrize("how", ["refuse", "system-only", "transcript"])
def test_every_real_prompt_is_either_translated_with_its_variables_or_refused(how: str) -> None:
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    translated = 0
    for original in originals:
        given = fields(original)
        parsed = components(given["string"])
        source = portkey(
            given["string"],
            parameters=given["parameters"],
            variables=set(parsed["variables"]),
            inputs=Inputs(variables=parsed["variables"]),
        )
        there = translate(source, "conductor", messages=how)
        if there.refused:
            assert all(there.refused)
            assert there.prompt.text == source.text
            continue
        translated += 1
        assert there.prompt.variables == variables_of(there.prompt.text, "conductor") <= set(parsed["variables"])
        if original["kind"] == "text" or how == "transcript":
            assert there.prompt.variables == set(parsed["variables"])
        back = translate(there.prompt, "portkey")
        assert back.refused == ()
        assert set(components(back.prompt.text)["variables"]) == there.prompt.variables
        if original["kind"] == "text":
            assert back.prompt.text == tag_trimmed(source.text)
    at_least = {"refuse": 250, "system-only": 400, "transcript": 400}
    assert at_least[how] < translated < len(originals)


def tag_trimmed(text: str) -> str:
    """The text with every plain tag as `{{name}}`."""
    pieces = text.split("{{")
    tags = [piece.partition("}}") for piece in pieces[1:]]
    return pieces[0] + "".join("{{" + name.strip() + end + rest for name, end, rest in tags)
