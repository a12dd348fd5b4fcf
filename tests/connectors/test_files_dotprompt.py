"""Dotprompt files, read by the library that applications read them with, and written as people write them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from dotpromptz import Dotprompt
from dotpromptz.picoschema import picoschema_to_json_schema
from dotpromptz.typing import DataArgument, ParsedPrompt, RenderedPrompt
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.connectors.files.format import Unreadable
from engine.connectors.files.formats.picoschema import json_schema
from engine.connectors.files.formats.table import FORMATS
from engine.content.chats import messages_of, spelled
from engine.content.digest import differences
from engine.model import Prompt
from tests.formats import DATA, Said, arriving, asks_for_a_map, file_of, read, rewritten, said, values_for

DOTPROMPT = FORMATS["dotprompt"]
NEUTRAL = {"model": "assistant"}


async def rendered(content: bytes, values: dict[str, Any]) -> Said:
    """By the vendor."""
    dotprompt: Dotprompt = Dotprompt()
    made: RenderedPrompt[Any] = await dotprompt.render(content.decode(), DataArgument(input=values))
    return [
        (NEUTRAL.get(message.role.value, message.role.value), "".join(part.text for part in message.content))  # type: ignore[union-attr]
        for message in made.messages
    ]


def parsed(content: bytes) -> ParsedPrompt[Any]:
    return Dotprompt().parse(content.decode())


def chat(*messages: tuple[str, str]) -> str:
    return spelled([{"role": role, "content": content} for role, content in messages])


def prompt(text: str = "Hello {{name}}", **fields: Any) -> Prompt:
    return Prompt(**{"id": "a", "name": "Greeting", "text": text, "dialect": "dotprompt", **fields})


# ---- what we write ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
async def test_every_real_prompt_renders_alike_or_is_refused_by_name() -> None:
    arrived, refused, lossy = arriving("dotprompt")
    assert len(arrived) + refused + lossy > 500
    assert len(arrived) >= 555
    assert sum(asks_for_a_map(source) for source, _ in arrived) == 1
    for source, replica in arrived:
        content, values = file_of(replica, "dotprompt"), values_for(source)
        assert asks_for_a_map(source) or await rendered(content, values) == said(source, values), source.name
        assert not differences(replica, read(content, "dotprompt", replica.id))
        assert parsed(content).name == source.name


async def test_everything_has_its_own_key() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": "weather", "description": "Says it", "parameters": schema, "strict": True}
    source = Prompt(
        id="pp-1",
        name="Weather report",
        text=json.dumps([{"role": "system", "content": "In {{city}}."}, {"role": "assistant", "content": "Yes?"}]),
        model="gemini-2.5-flash",
        provider="googleai",
        collection="support",
        description="Two\nlines",
        parameters={
            "max_tokens": 200,
            "top_p": 0.5,
            "stop": "END",
            "seed": 1e-5,
            "city": "Bern",
            "response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": schema, "strict": True}},
        },
        tools=[{"type": "function", "function": function}],
        tool_choice="auto",
        metadata={"owner": "ops", "none": "~"},
        variables=frozenset({"city"}),
    )
    done = rewritten(source, DOTPROMPT)
    assert (done.refused, done.losses) == ((), ())
    content = file_of(done.prompt, "dotprompt")
    found = parsed(content)
    assert (found.name, found.model, found.description) == ("Weather report", "googleai/gemini-2.5-flash", "Two\nlines")
    assert found.config == {"maxOutputTokens": 200, "topP": 0.5, "stopSequences": ["END"], "seed": 1e-5}
    assert found.input is not None
    assert found.output is not None
    assert found.tool_defs is not None
    assert found.input.default == {"city": "Bern"}
    assert (found.output.format, found.output.schema) == ("json", schema)
    assert (found.tool_defs[0].name, found.tool_defs[0].input_schema) == ("weather", schema)
    assert found.raw is not None
    assert found.raw["metadata"]["owner"] == "ops"
    assert await rendered(content, {}) == [("system", "In Bern."), ("assistant", "Yes?")]
    back = rewritten(read(content, "dotprompt", "pp-1"), FORMATS["dotprompt"]).prompt
    assert not differences(done.prompt, back)


TRICKY = (
    "Hello {{name}} and {{ name }}",
    "A literal \\{{name}}, {one}, } and {",
    "a backslash\\",
    "\\\\{{name}} after a backslash",
    "{{this.role}} {{this.history}} {{this.json}} are variables",
    "\n\n  begins with blank lines",
    "  begins with blanks",
    "ends with blanks  \n\n",
    "line\r\nends\r\nof Windows",
    "---\nname: no front matter\n---\n",
    "system:\nno role",
    "\u2028\x1e\x85 other line ends",
    "{{name}}",
    "\ufeffa mark",
)


@pytest.mark.parametrize("text", TRICKY)
@pytest.mark.parametrize("form", ["text", "first", "last", "both"])
async def test_a_text_is_said_as_it_stands(text: str, form: str) -> None:
    messages = {"first": [("system", text), ("user", "b")], "last": [("user", "a"), ("assistant", text)]}
    one = prompt(text if form == "text" else chat(*messages.get(form, [("user", text), ("user", text)])))
    content = file_of(one, "dotprompt")
    values = {"name": "Ada", "role": "R", "history": "H", "json": "J"}
    plain = text.replace("\\{{name}}", "{{name}}") if text.startswith("A literal") else text
    plain = plain.replace("\\\\{{", "\\{{") if text.startswith("\\\\") else plain
    if not text.startswith("A literal"):
        plain = plain.replace("{{name}}", "Ada").replace("{{ name }}", "Ada")
    for name, value in values.items():
        plain = plain.replace(f"{{{{this.{name}}}}}", value)
    expected = [(role, plain if said_ == text else said_) for role, said_ in _templates(one)]
    assert await rendered(content, values) == expected
    assert read(content, "dotprompt").text == one.text


def _templates(one: Prompt) -> Said:
    messages = messages_of(one.text)
    return [("user", one.text)] if messages is None else [(each["role"], each["content"]) for each in messages]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": "a <<<dotprompt:role:system>>> b"}, "<<<dotprompt:"),
        ({"text": " \n "}, "blank"),
        ({"text": chat(("user", "a"), ("system", " "))}, "a message 2 that is blank"),
        ({"text": chat(("developer", "a"))}, "a message 1 with a role"),
        ({"text": chat(("model", "a"))}, "a message 1 with a role"),
        ({"text": "a\0b"}, "NUL"),
        ({"text": "a\ud800b"}, "half a character"),
        ({"text": '[{"role": "user", "content": null}]'}, "a content that is no text"),
        ({"extra": {"name": "x"}}, "fields called name"),
        ({"metadata": {"promptferry.file": 1}}, "promptferry.file"),
        ({"parameters": {"a": float("nan")}}, "not finite"),
    ],
)
def test_what_no_file_can_say_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    one = prompt(**fields)
    with pytest.raises(ValueError, match=re.escape(says)):
        file_of(one, "dotprompt")
    assert any(says in reason for reason in rewritten(one, DOTPROMPT).refused)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{#some}}{{name}}{{/some}}", "{{#some}}"),
        ("{{>card}}", "{{>card}}"),
        ("{{first name}}", "whitespace"),
        ("{{{{name}}}}", ""),
        ("a { {{name}} {{{name}}}", ""),
        ("a {{{name}} b", ""),
    ],
)
def test_what_handlebars_reads_otherwise_is_refused_or_arrives_alike(text: str, says: str) -> None:
    done = rewritten(Prompt(id="a", name="a", text=text), DOTPROMPT)
    assert bool(done.refused) == bool(says) or not says
    assert all(says in reason for reason in done.refused)


# ---- what others write -----------------------------------------------------------------------------------------------

SAMPLE = """\
# Copyright 2025 Somebody
#
# Licensed to whom it may concern

---
model: googleai/gemini-1.5-flash
config:
  temperature: 0.9
  maxOutputTokens: 100
input:
  schema:
    location: string
    style?: string
  default:
    style: dry
output:
  schema:
    theme: string, what it is about
    tags(array, all of them): string
    mood?(enum): [HAPPY, SAD]
tools: [lookUp]
myorg.owner: ops
---

{{role "system"}}
You are the concierge of a hotel in {{location}}.

{{~role "user"~}}
A guest asks, {{style}}.
"""


async def test_a_file_of_the_documentation_is_read_as_its_library_reads_it() -> None:
    found = read(SAMPLE, "dotprompt", "team/concierge")
    assert (found.name, found.provider, found.model) == ("concierge", "googleai", "gemini-1.5-flash")
    values = {"location": "Bern", "style": "dry"}
    assert await rendered(SAMPLE.encode(), {"location": "Bern"}) == said(found, values)
    assert found.parameters["style"] == "dry"
    assert found.extra == {
        "tools": ["lookUp"],
        "myorg.owner": "ops",
        "input.schema": {"location": "string", "style?": "string"},
    }
    written = file_of(found, "dotprompt")
    assert not differences(found, read(written, "dotprompt", "team/concierge"))
    assert await rendered(written, values) == said(found, values)
    assert parsed(written).ext == {"myorg": {"owner": "ops"}}
    there = rewritten(found, FORMATS["promptferry"])
    assert (there.losses, there.prompt.dialect) == ((), "dotprompt")


async def test_picoschema_is_the_json_schema_that_its_library_makes_of_it() -> None:
    for schema in (
        {"a": "string", "b?": "integer, how many", "c(array, some)": "number", "(*)": "any, the rest"},
        {"a(object, inside)": {"b?(array)": {"c": "boolean"}}, "d?(object)": {"e": "any"}},
        {"a(enum, one of)": ["X", "Y"], "b?(enum)": ["X"], "c": "null"},
        {"type": "object", "properties": {"a": {"type": "string"}}},
        "string, a word",
    ):
        assert json_schema(schema) == await picoschema_to_json_schema(json.loads(json.dumps(schema)))


@pytest.mark.parametrize(
    "template",
    [
        '{{#each history}}{{role this.role}}{{this.text}}{{/each}}{{role "user"}}{{question}}',
        '{{role "system"}}Be kind.{{history}}{{role "user"}}{{question}}',
        '{{#if formal}}{{role "system"}}Be formal.{{/if}}{{question}}',
    ],
)
def test_messages_that_are_made_while_rendering_stay_one_text(template: str) -> None:
    found = read(f"---\nname: a\n---\n{template}", "dotprompt")
    assert found.text == template
    assert file_of(found, "dotprompt").endswith(f"\n{template}\n".encode())
    there = rewritten(found, FORMATS["dotprompt"])
    assert there.refused == ()


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("---\nname: [a\n---\nb", 3, "is not YAML"),
        ("---\nname: a\nconfig: 3\n---\nb", 3, "`config`"),
        ("# licence\n\n---\nname: a\nmodel: {a: b}\n---\nb", 5, "`model`"),
        ("---\nname: a\ninput: {default: [1]}\n---\nb", 3, "`input.default`"),
        ("---\nname: a\nmetadata: {promptferry.file: 3}\n---\nb", 3, "promptferry.file"),
        (b"---\nname: a\n---\n\xff", 4, "UTF-8"),
    ],
)
def test_a_file_that_is_not_well_formed_is_refused_by_line(content: str | bytes, line: int, says: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(content, "dotprompt")
    assert (error.value.line, says in error.value.message) == (line, True)


# ---- any -------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["{{a}}", "{{ b.c }}", "{{this.role}}", "\\{{", "}}", "---", *"{}\\\n \t~x", "\r\n", "é\u2028", "\x1e"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant", "tool"])


@settings(deadline=None)
@given(st.one_of(TEXTS, st.lists(st.tuples(ROLES, TEXTS), min_size=1, max_size=4).map(lambda each: chat(*each))))
async def test_any_text_is_rendered_as_our_grammar_says_or_refused(text: str) -> None:
    one = prompt(text)
    try:
        content = file_of(one, "dotprompt")
    except ValueError:
        return
    assert read(content, "dotprompt").text == text
    values = {"a": "A", "b": {"c": "C"}, "role": "R"}
    grammar = DOTPROMPT.dialect.grammar if DOTPROMPT.dialect is not None else None
    assert grammar is not None
    if any("that is not closed" in token.kind or token.kind == "helper" for token in grammar.tokens(text)):
        return
    expected = [pair for pair in said(one, values) if pair[1]]
    assert await rendered(content, values) == expected
