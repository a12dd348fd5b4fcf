"""Prompty files, read by the library that applications read them with, and written as people write them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import prompty
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.connectors.files.format import Unreadable
from engine.connectors.files.formats.table import FORMATS
from engine.content.chats import messages_of, spelled
from engine.content.digest import differences
from engine.model import Prompt
from tests.formats import (
    DATA,
    Said,
    asks_for_a_map,
    file_of,
    read,
    real_prompts,
    rewritten,
    said,
    templates,
    values_for,
)

PROMPTY = FORMATS["prompty"]
LINES = {"string.line_ends", "string.outer_lines"}


def loaded(content: bytes, folder: Path) -> Any:
    """By the vendor."""
    path = folder / "one.prompty"
    path.write_bytes(content)
    return prompty.load(path)


def rendered(content: bytes, values: dict[str, Any], folder: Path) -> Said:
    """By the vendor."""
    return [(one.role, one.text) for one in prompty.prepare(loaded(content, folder), values)]


def chat(*messages: tuple[str, str]) -> str:
    return spelled([{"role": role, "content": content} for role, content in messages])


def prompt(text: str = "Hello {{name}}", **fields: Any) -> Prompt:
    return Prompt(**{"id": "a", "name": "Greeting", "text": text, "dialect": "prompty", **fields})


def as_it_keeps_lines(told: Said) -> Said:
    """A message without the blank lines around it, its lines ended by line feeds."""
    return [(role, "\n".join(text.splitlines()).strip("\n")) for role, text in told]


# ---- what we write ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_every_real_prompt_renders_alike_or_is_refused_by_name(tmp_path: Path) -> None:
    counts = {"whole": 0, "without lines": 0, "lost": 0, "refused": 0}
    for source in real_prompts():
        done = rewritten(source, PROMPTY)
        if done.refused or not {*done.losses} <= LINES:
            counts["refused" if done.refused else "lost"] += 1
            continue
        content, values = file_of(done.prompt, "prompty"), values_for(source)
        wanted = said(source, values, "system")
        found = wanted if asks_for_a_map(source) else rendered(content, values, tmp_path)
        if done.losses:
            wanted = as_it_keeps_lines([(role, text.lstrip() if len(wanted) == 1 else text) for role, text in wanted])
        assert found == wanted, source.name
        assert not differences(done.prompt, read(content, "prompty", source.id))
        counts["without lines" if done.losses else "whole"] += 1
    assert counts["whole"] >= 279
    assert counts["whole"] + counts["without lines"] >= 525
    assert sum(counts.values()) > 500


def test_everything_has_its_own_key(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": True}}
    source = Prompt(
        id="pp-1",
        name="Weather --- report",
        text=json.dumps([{"role": "system", "content": "In {{city}}."}, {"role": "assistant", "content": "Yes?"}]),
        model="gpt-4o",
        provider="openai",
        collection="support",
        description="Two\n--- lines +++",
        parameters={
            "max_tokens": 200,
            "top_p": 0.5,
            "stop": "END",
            "seed": 7,
            "user": 1e-5,
            "city": "Bern",
            "response_format": {"type": "json_object"},
        },
        tools=[tool],
        tool_choice="auto",
        functions=[{"name": "f"}],
        metadata={"owner": "ops", "---": "~"},
        variables=frozenset({"city"}),
    )
    done = rewritten(source, PROMPTY)
    assert (done.refused, done.losses) == ((), ())
    content = file_of(done.prompt, "prompty")
    found = loaded(content, tmp_path)
    assert (found.name, found.description) == ("Weather --- report", "Two\n--- lines +++")
    assert (found.model.id, found.model.provider) == ("gpt-4o", "openai")
    options = found.model.options
    assert (options.max_output_tokens, options.top_p, options.stop_sequences, options.seed) == (200, 0.5, ["END"], 7)
    more = {"tools": [tool], "tool_choice": "auto", "response_format": {"type": "json_object"}, "user": 1e-5}
    assert options.additional_properties == more
    assert found.metadata["owner"] == "ops"
    assert rendered(content, {}, tmp_path) == [("system", "In Bern."), ("assistant", "Yes?")]
    assert not differences(done.prompt, read(content, "prompty", "pp-1"))


TRICKY = (
    "Hello {{name}} and {{ name }}",
    "A literal {{ '{{' }}name}}, {% raw %}{% if %}{% endraw %} } and {",
    "{{ '{' }}{{name}}",
    '{{ a["items"] }} {{a.b}}',
    "  blanks on both sides  ",
    "a\n\n  b\n\tc",
    "---\nname: no front matter\n---",
    "+++ and --- inside",
    "not a head: system:",
    "system : prompt",
    "{% for x in names %}- {{x}}\n{%- endfor %}",
    "{# a remark #}said",
    "${env:HOME}",
)


@pytest.mark.parametrize("text", TRICKY)
@pytest.mark.parametrize("form", ["text", "first", "last"])
def test_a_text_is_said_as_it_stands(text: str, form: str, tmp_path: Path) -> None:
    messages = {"first": [("system", text), ("user", "b")], "last": [("user", "a"), ("assistant", text)]}
    one = prompt(text if form == "text" else chat(*messages[form]))
    if text.startswith("  ") and form == "text":
        assert rewritten(one, PROMPTY).losses == ("string.outer_lines",)
        return
    content = file_of(one, "prompty")
    values = {"name": "Ada", "a": {"items": 1, "b": 2}, "names": ["x", "y"]}
    assert read(content, "prompty").text == one.text
    expected = [(role, render_alone(each, values)) for role, each in templates(one, "system")]
    assert rendered(content, values, tmp_path) == expected


def render_alone(text: str, values: dict[str, Any]) -> str:
    """As Jinja2 says it."""
    from jinja2 import Environment

    return Environment(keep_trailing_newline=True).from_string(text).render(values)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": chat(("user", "a\nuser:\nb"))}, "a line 2 of message 1 that would be read as the head"),
        ({"text": chat(("user", "# System: "))}, "a line 1 of message 1"),
        ({"text": chat(("user", "{{who}}:\nb"))}, "a line 1 of message 1"),
        ({"text": 'a\nuser[name="x"]:\nb\nuser:\nc'}, ""),
        ({"text": chat(("tool", "a"))}, "a message 1 with a role"),
        ({"text": " "}, "blank"),
        ({"text": "a\0b"}, "NUL"),
        ({"description": "${env:HOME}"}, ""),
        ({"model": "${env:HOME}"}, "a model in ${ }"),
        ({"parameters": {"name": [1]}}, "a default of the variable name"),
        ({"parameters": {"tools": 1}}, "parameters called tools"),
        ({"extra": {"model": 1}}, "fields called model"),
    ],
)
def test_what_no_file_can_say_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    one = prompt(**fields)
    if says:
        with pytest.raises(ValueError, match=re.escape(says)):
            file_of(one, "prompty")
        assert any(says in reason for reason in rewritten(one, PROMPTY).refused)


def test_a_text_that_looks_like_a_chat_is_refused(tmp_path: Path) -> None:
    plain = Prompt(id="a", name="a", text="system:\nBe kind.\n\nuser:\nHello")
    (reason,) = rewritten(plain, PROMPTY).refused
    assert "line 1 of the text" in reason


def test_the_lines_that_go_are_a_loss_by_name() -> None:
    ends = rewritten(Prompt(id="a", name="a", text="one\r\ntwo"), PROMPTY)
    assert (ends.losses, ends.prompt.text) == (("string.line_ends",), "one\ntwo")
    outer = rewritten(Prompt(id="a", name="a", text=chat(("user", "\none\n\n"))), PROMPTY)
    assert (outer.losses, outer.prompt.text) == (("string.outer_lines",), chat(("user", "one")))


# ---- what others write -----------------------------------------------------------------------------------------------

SECOND = """\
---
name: basic
displayName: Basic Prompt
description: A basic prompt
metadata:
  authors: [sethjuarez]
  tags: [basic]
model:
  id: gpt-4o
  provider: foundry
  apiType: chat
  connection:
    kind: reference
    name: my-foundry
  options:
    temperature: 0.7
    maxOutputTokens: 1000
    additionalProperties:
      logit_bias: {"50256": -100}
inputs:
  - name: firstName
    kind: string
    default: Jane
  - name: question
    kind: string
    description: What they ask
    required: true
---
system:
You are an AI assistant.
{% if firstName %}The user is {{firstName}}.{% endif %}

# user:
{{question}}
"""
FIRST = """\
---
name: Contoso Chat Prompt
description: A retail assistant
authors:
  - Cassie Breviu
model:
  api: chat
  configuration:
    type: azure_openai
    azure_deployment: gpt-35-turbo
    azure_endpoint: ${AZURE_OPENAI_ENDPOINT}
  parameters:
    max_tokens: 128
    temperature: 0.2
    stop: END
inputs:
  question: {type: string, default: Hi}
sample:
  question: How are you?
template: jinja2
---
system:
You are an agent.

user:
{{question}}
"""


def test_a_file_of_the_documentation_is_read_as_its_library_reads_it(tmp_path: Path) -> None:
    found = read(SECOND, "prompty", "team/basic")
    assert (found.name, found.provider, found.model, found.id) == ("basic", "foundry", "gpt-4o", "team/basic")
    assert found.parameters["firstName"] == "Jane"
    assert found.parameters["maxOutputTokens"] == 1000
    assert found.extra["model/connection"]["kind"] == "reference"
    assert found.extra["inputs"] == {"question": {"kind": "string", "description": "What they ask", "required": True}}
    assert messages_of(found.text) == [
        {
            "role": "system",
            "content": "You are an AI assistant.\n{% if firstName %}The user is {{firstName}}.{% endif %}",
        },
        {"role": "user", "content": "{{question}}"},
    ]
    written = file_of(found, "prompty")
    assert not differences(found, read(written, "prompty", "team/basic"))
    assert read(written, "prompty", "team/basic").extra == found.extra
    values = {"question": "Why?"}
    assert rendered(written, values, tmp_path) == rendered(SECOND.encode(), values, tmp_path)


def test_a_file_of_the_first_generation_is_read() -> None:
    found = read(FIRST, "prompty")
    assert (found.provider, found.model) == ("azure_openai", "gpt-35-turbo")
    assert found.parameters == {"maxOutputTokens": 128, "temperature": 0.2, "stopSequences": "END", "question": "Hi"}
    assert found.extra == {
        "authors": ["Cassie Breviu"],
        "sample": {"question": "How are you?"},
        "model/configuration": {"azure_endpoint": "${AZURE_OPENAI_ENDPOINT}"},
    }
    neutral = rewritten(found, FORMATS["dotprompt"]).prompt
    assert neutral.parameters == {**found.parameters, "stopSequences": ["END"]}
    assert not differences(found, read(file_of(found, "prompty"), "prompty"))


def test_a_file_of_mustache_stays_one(tmp_path: Path) -> None:
    template = "template: {format: {kind: mustache}, parser: {kind: prompty}}"
    content = f"---\nname: a\n{template}\n---\nuser:\n{{{{#names}}}}{{{{.}}}} {{{{/names}}}}and {{{{&name}}}}\n"
    found = read(content, "prompty")
    assert found.dialect == "prompty-mustache"
    kept = rewritten(found, PROMPTY)
    assert (kept.refused, kept.losses, kept.prompt.text) == ((), (), found.text)
    written = file_of(kept.prompt, "prompty")
    values = {"names": ["a", "b"], "name": "<c>"}
    assert rendered(written, values, tmp_path) == rendered(content.encode(), values, tmp_path)
    assert "{{#names}}" in rewritten(replace(found, dialect="portkey"), PROMPTY).refused[0]


@pytest.mark.parametrize(
    "body",
    [
        "system:\nBe kind.\n{% for one in history %}\n{{one.role}}:\n{{one.content}}\n{% endfor %}\n\nuser:\n{{q}}",
        "{% if formal %}\nsystem:\nBe formal.\n{% endif %}\nuser:\n{{question}}",
        'system:\nBe kind.\nuser[name="Ada"]:\n{{question}}',
    ],
)
def test_messages_that_are_made_while_rendering_stay_one_text(body: str) -> None:
    found = read(f"---\nname: a\n---\n{body}", "prompty")
    assert found.text == body
    assert read(file_of(found, "prompty"), "prompty").text == body
    kept = rewritten(found, PROMPTY)
    assert (kept.losses, kept.refused, kept.prompt.raw) == ((), (), True)
    assert "only when it is rendered" in rewritten(found, FORMATS["dotprompt"]).refused[0]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("name: a", 1, "front matter"),
        ("---\nname: [a\n---\nb", 3, "is not YAML"),
        ("---\nname: a\nmodel: 3\n---\nb", 3, "`model`"),
        ("---\nname: a\ntemplate: {format: liquid}\n---\nb", 3, "neither jinja2 nor mustache"),
        ("---\nname: a\n\ninputs: [{kind: string}]\n---\nb", 4, "`inputs`"),
        ("---\nname: a\nmodel: {options: 3}\n---\nb", 3, "`model.options`"),
    ],
)
def test_a_file_that_is_not_well_formed_is_refused_by_line(content: str, line: int, says: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(content, "prompty")
    assert (error.value.line, says in error.value.message) == (line, True)


# ---- any -------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["{{a}}", "{{ b.c }}", "{{ '{{' }}", "{%", "%}", "}}", "---", *"{}#'\"\\\n \t-x", "\r\n", "\u2028", "\x1e", "user:"]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join)
ROLES = st.sampled_from(["system", "user", "assistant", "developer"])


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.one_of(TEXTS, st.lists(st.tuples(ROLES, TEXTS), min_size=1, max_size=4).map(lambda each: chat(*each))))
def test_any_text_of_mustache_is_rendered_alike_or_refused(text: str, tmp_path: Path) -> None:
    source = Prompt(id="a", name="a", text=text)
    done = rewritten(source, PROMPTY)
    if done.refused:
        return
    values = {"a": "A", "b": {"c": "C"}, "'{{'": "Q"}
    content = file_of(done.prompt, "prompty")
    assert not differences(done.prompt, read(content, "prompty", "a"))
    expected = said(done.prompt, values, "system")
    assert rendered(content, values, tmp_path) == expected
    assert bool(done.losses) == (expected != said(source, values, "system"))
