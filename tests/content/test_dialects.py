"""Dialects that no registry of ours speaks: each says what it is itself, and every way between two follows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from engine.connectors import DIALECTS
from engine.content.dialects import described, table
from engine.content.templates import F_STRING, MUSTACHE, joined, literal
from engine.content.translate import Translated, translate
from engine.model import Json, Prompt
from engine.model.dialect import Chat, Dialect, MetadataRule, Parameter, ParameterNames, Token

TOY = Dialect(
    name="toy",
    registry="Toy",
    grammar=F_STRING,
    parameters=ParameterNames(
        known={
            "heat": Parameter(neutral="temperature"),
            "limit": Parameter(neutral="max_tokens"),
            "stopAt": Parameter(
                neutral="stop",
                read=lambda value: [value],
                write=lambda value: value[0] if isinstance(value, list) and len(value) == 1 else None,
            ),
        }
    ),
    chat=Chat(messages=True, text=False, keys=frozenset({"role", "content"}), parts=frozenset()),
    metadata=MetadataRule(says="texts", keeps=lambda value: isinstance(value, str)),
)
"""A registry of chats alone, whose messages are a role and a text."""
PLAIN = Dialect(
    name="plain",
    registry="Plain",
    grammar=replace(MUSTACHE, constructs=()),
    parameters=ParameterNames(open=True),
    chat=Chat(messages=True, parts=frozenset({"text", "image_url"})),
)
"""Mustache without sections, and with messages that may have images."""
WORD = re.compile(r"\{\{ *(\w+) *\}\}")


def words_of(text: str) -> list[Token]:
    return joined([Token("variable", one)] if at % 2 else literal(one) for at, one in enumerate(WORD.split(text)))


WORDS = Dialect(
    name="words",
    registry="Words",
    grammar=replace(MUSTACHE, name="words", tokens=words_of, constructs=(), names={}),
    parameters=ParameterNames(),
    chat=Chat(messages=True),
)
"""Double braces around a word alone; all else is text."""
KNOWN = {**DIALECTS, "toy": TOY, "plain": PLAIN, "words": WORDS}


def prompt(text: Json, dialect: str = "portkey", **more: Any) -> Prompt:
    whole = text if isinstance(text, str) else json.dumps(text)
    return Prompt(id="p", name="n", text=whole, dialect=dialect, **more)


def go(one: Prompt, to: str, **how: str) -> Translated:
    return translate(one, KNOWN[one.dialect], KNOWN[to], **how)


def messages(translated: Translated) -> Json:
    assert translated.refused == ()
    return json.loads(translated.prompt.text)


SYSTEM, USER = {"role": "system", "content": 'Say {"a": 1} to {{name}}'}, {"role": "user", "content": "Hi"}


# ---- every way ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [*permutations(["portkey", "conductor", "plain"], 2)])
def test_a_text_goes_every_way_and_comes_back(one: str, other: str) -> None:
    text = KNOWN[one].grammar.text(KNOWN["portkey"].grammar.tokens('Say {"a": 1} to {{name}} and {{größe}}.'))
    there = go(prompt(text, one), other)
    assert (there.refused, there.losses) == ((), ())
    assert there.prompt.variables == {"name", "größe"}
    back = go(there.prompt, one)
    assert (back.prompt.text, back.prompt.dialect, back.refused) == (text, one, ())


@pytest.mark.parametrize(("one", "other"), [*permutations(KNOWN, 2)])
def test_every_way_has_a_table(one: str, other: str) -> None:
    rows = dict(table(KNOWN[one], KNOWN[other], {"name", "text"}))
    assert any("loss" in becomes for becomes in rows.values())
    assert "variable" in described(KNOWN[one])


@pytest.mark.parametrize("to", ["portkey", "plain"])
def test_a_chat_goes_into_another_grammar_and_back(to: str) -> None:
    there = go(prompt([SYSTEM, USER], to), "toy")
    assert messages(there) == [{"role": "system", "content": 'Say {{"a": 1}} to {name}'}, USER]
    assert (there.losses, there.prompt.variables, there.prompt.dialect) == ((), {"name"}, "toy")
    assert messages(go(there.prompt, to)) == [SYSTEM, USER]


def test_a_chat_of_any_registry_becomes_one_text_where_one_is_kept() -> None:
    source = prompt([{"role": "system", "content": 'Say {{"a": 1}} to {name}'}, USER], "toy")
    assert "Conductor keeps one text" in go(source, "conductor").refused[0]
    there = go(source, "conductor", messages="transcript")
    assert there.prompt.text == 'system: Say {"a": 1} to ${name}\n\nuser: Hi'


def test_a_text_becomes_a_message_where_only_chats_are_kept() -> None:
    there = go(prompt("Cost ${price} {now}", "conductor"), "toy")
    assert messages(there) == [{"role": "user", "content": "Cost {price} {{now}}"}]
    assert "Toy keeps chats alone" in there.notes[0]
    assert go(prompt("[{{messages}}]", raw=True), "toy").refused  # it is no text either


def test_a_text_that_looks_like_a_chat_is_no_chat_where_texts_and_chats_are_kept() -> None:
    text = '[{"role": "user", "content": "${x}"}]'
    assert "Plain reads as messages" in go(prompt(text, "conductor"), "plain").refused[0]
    assert messages(go(prompt(text, "conductor"), "toy"))[0]["role"] == "user"


# ---- the same grammar -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["{{ a }}{{user.name}} {{#x}} {{", json.dumps([SYSTEM, USER], indent=1)])
def test_what_both_write_alike_stays_byte_for_byte(text: str) -> None:
    twin = replace(KNOWN["portkey"], name="twin", registry="Twin")
    there = translate(prompt(text), KNOWN["portkey"], twin)
    assert (there.prompt.text, there.prompt.dialect, there.refused) == (text, "twin", ())


def test_a_name_that_both_read_alike_may_be_odd() -> None:
    assert go(prompt("{{user.name}} {{a b}}"), "plain").prompt.text == "{{user.name}} {{a b}}"
    assert "{{#x}} (section) has no counterpart in Plain" in go(prompt("{{#x}}{{y}}{{/x}}"), "plain").refused[0]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{{user.name}}", "a path in Portkey and an attribute in Toy"),
        ("{{a[0]}}", "a plain name in Portkey and an index in Toy"),
        ("{{0}}", "a plain name in Portkey and a position in Toy"),
        ("{{a:b}}", "Toy would read {a...} (variable with a format)"),
    ],
)
def test_a_name_that_is_read_otherwise_is_refused_by_name(text: str, what: str) -> None:
    assert what in " ".join(sorted(go(prompt(text), "toy").refused[0].split(", which is ")))


@pytest.mark.parametrize("text", ["{{ a }} and {{b}}", json.dumps([SYSTEM, {**USER, "content": "{{ a }}"}], indent=1)])
def test_what_another_grammar_reads_alike_stays_byte_for_byte(text: str) -> None:
    there = go(prompt(text), "words")
    assert (there.prompt.text, there.refused) == (text, ())
    assert go(there.prompt, "portkey").prompt.text == text


@pytest.mark.parametrize("text", ["{{a-b}}", "Hi {{a-b}}, {{c}}", "{{c}} {{a-b}}!"])
def test_a_variable_that_would_be_plain_text_is_refused_by_name(text: str) -> None:
    (why,) = go(prompt(text), "words").refused
    assert "{{a-b}} (variable) would be plain text in Words" in why


@pytest.mark.parametrize("text", ["{x!r}", "{x:>8}", "{", "a } b", "{}", "{a.b}"])
def test_what_only_the_source_can_say_is_refused(text: str) -> None:
    (why,) = go(prompt([{"role": "user", "content": text}], "toy"), "portkey").refused
    assert "at the source" in why


# ---- what is kept of a message --------------------------------------------------------------------------------------

IMAGE = {"type": "image_url", "image_url": {"url": "{{url}}"}}
PARTS = [{"type": "text", "text": "a {{x}}"}, {"type": "text", "text": "b", "cache": 1}]


def test_keys_that_are_not_kept_are_losses() -> None:
    there = go(prompt([{**USER, "name": "boss", "tool_calls": [], "refusal": None}]), "toy")
    assert messages(there) == [USER]
    assert there.losses == ("messages.name",)


def test_parts_become_one_text_where_no_parts_are_kept() -> None:
    there = go(prompt([{"role": "user", "content": PARTS}]), "toy")
    assert messages(there) == [{"role": "user", "content": "a {x}\nb"}]
    assert there.losses == ("messages.content.cache",)
    assert "Toy keeps no parts" in there.notes[0]


def test_kinds_of_parts_that_are_not_kept_are_refused() -> None:
    assert "part 'image_url'" in go(prompt([{"role": "user", "content": [IMAGE]}]), "toy").refused[0]
    assert go(prompt([{"role": "user", "content": [*PARTS, IMAGE]}]), "plain").refused == ()
    sound = {"type": "input_audio", "input_audio": {}}
    assert "part 'input_audio'" in go(prompt([{"role": "user", "content": [sound]}]), "plain").refused[0]


def test_numbers_inside_of_messages_keep_their_digits() -> None:
    number = "0.12345678901234567890123"
    text = f'[{{"role": "user", "content": "{{{{x}}}}", "seed": {number}}}]'
    free = replace(TOY, chat=Chat(messages=True))
    assert number in translate(prompt(text), KNOWN["portkey"], free).prompt.text


# ---- parameters and metadata ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "one", "other", "there", "losses"),
    [
        ({"temperature": 1, "max_tokens": 5}, "portkey", "toy", {"heat": 1, "limit": 5}, ()),
        ({"heat": 1, "limit": 5}, "toy", "portkey", {"temperature": 1, "max_tokens": 5}, ()),
        ({"heat": 1, "limit": 5}, "toy", "conductor", {"temperature": 1}, ("parameters.limit",)),
        ({"topP": 0.5, "temperature": 1}, "conductor", "toy", {"heat": 1}, ("parameters.topP",)),
        ({"stopWords": ["x"]}, "conductor", "toy", {"stopAt": "x"}, ()),
        ({"stopWords": ["x", "y"]}, "conductor", "toy", {}, ("parameters.stopWords",)),
        ({"stopAt": "x"}, "toy", "conductor", {"stopWords": ["x"]}, ()),
        ({"heat": 1, "seed": 7}, "portkey", "plain", {"heat": 1, "seed": 7}, ()),
        ({"heat": 1}, "portkey", "toy", {}, ("parameters.heat",)),
        ({"temperature": 1}, "toy", "plain", {}, ("parameters.temperature",)),
        ({"heat": None}, "toy", "plain", {}, ()),
    ],
)
def test_parameters_go_by_their_neutral_names(
    parameters: dict[str, Json], one: str, other: str, there: dict[str, Json], losses: tuple[str, ...]
) -> None:
    source = prompt("x" if one == "conductor" else [USER], one, parameters=parameters)
    done = go(source, other)
    assert (done.prompt.parameters, done.losses) == (there, losses)


def test_default_values_of_variables_go_where_they_have_a_place() -> None:
    source = prompt("{{city}}", parameters={"city": "Bonn", "seed": 1})
    twin = replace(KNOWN["portkey"], name="twin")
    assert translate(source, KNOWN["portkey"], twin).prompt.parameters == {"city": "Bonn", "seed": 1}
    done = go(source, "plain")
    assert (done.prompt.parameters, done.losses) == ({"seed": 1}, ("parameters.city",))


def test_metadata_are_kept_as_far_as_the_target_can() -> None:
    done = go(prompt([USER], metadata={"team": "docs", "areas": ["a", "b"]}), "toy")
    assert (done.prompt.metadata, done.losses) == ({"team": "docs"}, ("metadata.areas",))
    assert go(prompt([USER], metadata={"areas": [1]}), "plain").prompt.metadata == {"areas": [1]}
