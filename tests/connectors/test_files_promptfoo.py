"""Configurations of promptfoo, as we write them and as people do. Its own command line runs in tests/real."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from engine.connectors import DIALECTS
from engine.connectors.files.format import Unreadable
from engine.connectors.files.formats.table import FORMATS
from engine.content.chats import messages_of, spelled
from engine.content.digest import differences
from engine.model import Prompt
from tests.formats import DATA, arriving, file_of, read, rewritten

PROMPTFOO = FORMATS["promptfoo"]


def chat(*messages: tuple[str, str]) -> str:
    return spelled([{"role": role, "content": content} for role, content in messages])


def prompt(text: str = "Hello {{name}}", **fields: Any) -> Prompt:
    return Prompt(**{"id": "a", "name": "Greeting", "text": text, "dialect": "promptfoo", **fields})


def several(content: str | bytes, prompt_id: str) -> list[Prompt]:
    """All prompts of a file."""
    given_ = content.encode() if isinstance(content, str) else content
    return [one.prompt for one in PROMPTFOO.read(given_, prompt_id, DIALECTS)]


# ---- what we write ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_every_real_prompt_comes_back_or_is_refused_by_name() -> None:
    arrived, refused, lossy = arriving("promptfoo")
    assert len(arrived) + refused + lossy > 500
    assert len(arrived) >= 542
    for _, replica in arrived:
        assert not differences(replica, read(file_of(replica, "promptfoo"), "promptfoo", replica.id))


def test_everything_has_its_own_key() -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    source = Prompt(
        id="pp-1",
        name="Weather report",
        text=json.dumps([{"role": "system", "content": "In {{city}}."}, {"role": "assistant", "content": "Yes?"}]),
        model="gpt-4o",
        provider="openai",
        integrations=("anthropic:messages:claude-3-7-sonnet",),
        collection="support",
        description="Two\nlines",
        parameters={"max_tokens": 200, "stop": "END", "city": "Bern", "response_format": {"type": "json_object"}},
        tools=[tool],
        tool_choice="auto",
        functions=[{"name": "f"}],
        metadata={"owner": "ops"},
        variables=frozenset({"city"}),
    )
    done = rewritten(source, PROMPTFOO)
    assert (done.refused, done.losses) == ((), ())
    found = YAML(typ="safe").load(file_of(done.prompt, "promptfoo"))
    (entry,) = found["prompts"]
    assert json.loads(entry.pop("raw")) == messages_of(source.text)
    parameters = {"max_tokens": 200, "stop": "END", "response_format": {"type": "json_object"}}
    called = {"tools": [tool], "tool_choice": "auto", "functions": [{"name": "f"}]}
    assert entry == {"label": "Weather report", "config": {**parameters, **called}}
    assert found["providers"] == ["openai:gpt-4o", "anthropic:messages:claude-3-7-sonnet"]
    assert (found["description"], found["defaultTest"]) == ("Two\nlines", {"vars": {"city": "Bern"}})
    assert found["metadata"] == {"owner": "ops", "promptferry.file": {"collection": "support"}}
    assert not differences(done.prompt, read(file_of(done.prompt, "promptfoo"), "promptfoo", "pp-1"))


@pytest.mark.parametrize(
    ("text", "raw"),
    [
        ("Look at prompts/a.txt", "{{ '}' if false\n}}Look at prompts/a.txt"),
        ('{"a": 1}', "{{ '}' if false\n}}{\"a\": 1}"),
        ("42", "{{ '}' if false\n}}42"),
        ("portkey://pp-1\nx", "{{ '}' if false\n}}portkey://pp-1\nx"),
        ("two/lines\nhere", "two/lines\nhere"),
        ("Plain {{name}}", "Plain {{name}}"),
    ],
)
def test_a_text_is_no_path_and_no_json(text: str, raw: str) -> None:
    content = file_of(prompt(text), "promptfoo")
    assert YAML(typ="safe").load(content)["prompts"][0]["raw"] == raw
    assert read(content, "promptfoo").text == text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("{{#x}} {% if %} {{{", ""),
        ("a {% b %}", "a {{ '{' }}% b %}"),
        ("{# a #}", "{{ '{' }}# a #{{ '}' }}"),
        ("{", "{"),
    ],
)
def test_what_would_be_a_tag_is_escaped(text: str, written: str) -> None:
    done = rewritten(Prompt(id="a", name="a", text=text), PROMPTFOO)
    assert done.prompt.text == (written or text)
    assert bool(done.refused) is not bool(written)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": ""}, "an empty text"),
        ({"text": "a\0b"}, "NUL"),
        ({"tools": [{"$ref": "#/a"}]}, "a $ref"),
        ({"description": "file://secret"}, "replaces by a file"),
        ({"metadata": {"a": "{{ env.HOME }}"}}, "replaces by a file"),
        ({"parameters": {"tools": 1}}, "parameters called tools"),
        ({"parameters": {"name": ["a", "b"]}}, "a default of the variable name"),
        ({"parameters": {"name": "a\n"}}, "a default of the variable name"),
        ({"extra": {"prompts": 1}}, "fields called prompts"),
    ],
)
def test_what_no_file_can_say_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    one = prompt(**fields)
    with pytest.raises(ValueError, match=re.escape(says)):
        file_of(one, "promptfoo")
    assert any(says in reason for reason in rewritten(one, PROMPTFOO).refused)


def test_the_environment_is_no_variable() -> None:
    assert rewritten(Prompt(id="a", name="a", text="{{env.HOME}} {{env}}"), PROMPTFOO).refused


# ---- what others write -----------------------------------------------------------------------------------------------

CONFIG = """\
description: Which one translates better
prompts:
  - 'Translate to {{language}}: {{input}}'
  - file://prompts/other.txt
  - label: As a chat
    raw: |
      [
        {"role": "system", "content": "You translate to {{language}}."},
        {"role": "user", "content": "{{input}}"}
      ]
    config: {temperature: 0}
providers:
  - id: openai:chat:gpt-4o
    config: {temperature: 0.50, max_tokens: 100, tools: [{type: function, function: {name: f}}]}
defaultTest:
  vars: {language: German}
  assert: [{type: icontains, value: a}]
tests:
  - vars: {input: Hello}
"""


def test_a_configuration_of_the_documentation_is_read() -> None:
    first, second = several(CONFIG, "team/promptfooconfig")
    assert (first.id, first.name, first.text) == (
        "team/promptfooconfig#1",
        "promptfooconfig#1",
        "Translate to {{language}}: {{input}}",
    )
    assert (second.id, second.name) == ("team/promptfooconfig#2", "As a chat")
    assert (first.provider, first.model) == ("openai:chat", "gpt-4o")
    assert first.parameters == {"temperature": 0.5, "max_tokens": 100, "language": "German"}
    assert second.parameters["temperature"] == 0
    assert first.tools == [{"type": "function", "function": {"name": "f"}}]
    assert messages_of(second.text) == [
        {"role": "system", "content": "You translate to {{language}}."},
        {"role": "user", "content": "{{input}}"},
    ]
    assert first.extra.keys() == {"tests", "defaultTest"}
    there = rewritten(first, FORMATS["dotprompt"])
    assert (there.refused, there.losses) == ((), ("tools",))  # one without a schema has no form there
    kept = read(file_of(rewritten(first, PROMPTFOO).prompt, "promptfoo"), "promptfoo")
    assert kept.extra == first.extra


def test_several_providers_are_integrations_unless_they_say_more() -> None:
    begin = "prompts: [a]\nproviders:\n"
    (plain,) = several(f"{begin}  - openai:gpt-4o\n  - id: anthropic:messages:claude-3\n", "a")
    assert (plain.provider, plain.model, plain.integrations) == ("openai", "gpt-4o", ("anthropic:messages:claude-3",))
    (more,) = several(f"{begin}  - openai:gpt-4o\n  - id: b:c\n    config: {{x: 1}}\n", "a")
    assert (more.provider, more.model) == (None, None)
    assert more.extra["providers"][1]["config"] == {"x": 1}
    assert not differences(more, read(file_of(more, "promptfoo"), "promptfoo"))


@pytest.mark.parametrize(
    ("content", "prompt_id", "texts"),
    [
        ("One {{a}}\n---\nTwo\r\nlines\n---\n", "a.txt", ["One {{a}}", "Two\nlines"]),
        ('[{"role": "user", "content": "{{a}}"}]', "a.json", [chat(("user", "{{a}}"))]),
        ("- role: user\n  content: '{{a}}'\n", "a", [chat(("user", "{{a}}"))]),
        ('{"prompts": ["Hello {{a}}"], "providers": ["openai:gpt-4o"]}', "b.json", ["Hello {{a}}"]),
        ("prompts: {'Hello {{a}}': greeting, file://b.txt: other}", "a", ["Hello {{a}}"]),
        ("prompts: [file://a.txt, prompts/*.json, a.py:run]", "a", []),
        ("services: {db: {image: x}}", "compose", []),
        ('{"name": "package"}', "package.json", []),
        ("- a\n- b\n", "list", []),
    ],
)
def test_files_of_prompts_are_read_and_others_passed_over(content: str, prompt_id: str, texts: list[str]) -> None:
    assert [one.text for one in several(content, prompt_id)] == texts


@pytest.mark.parametrize(
    ("content", "prompt_id", "line", "says"),
    [
        ("prompts: [a\n", "a", 2, "is not YAML"),
        ("description: a\nprompts: 3\n", "a", 2, "`prompts`"),
        ("prompts:\n  - {label: 3}\n", "a", 1, "an entry of `prompts`"),
        ('{"prompts": [\n', "a.json", 2, "is no JSON"),
        ("prompts: [a]\nmetadata: {promptferry.file: 3}\n", "a", 2, "promptferry.file"),
        (b"\xff\xfea\x00", "a.txt", 1, "UTF-16"),
    ],
)
def test_a_file_that_is_not_well_formed_is_refused_by_line(
    content: str | bytes, prompt_id: str, line: int, says: str
) -> None:
    with pytest.raises(Unreadable) as error:
        several(content, prompt_id)
    assert (error.value.line, says in error.value.message) == (line, True)


# ---- any -------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(["{{a}}", "{{ b.c }}", "{%", "%}", "{#", "#}", "file://", *"{}'\"\\\n x/*", "\r\n", "\u2028"])
TEXTS = st.lists(PIECES, max_size=8).map("".join)
CHATS = st.lists(st.tuples(st.sampled_from(["system", "user"]), TEXTS), max_size=3).map(lambda each: chat(*each))


@settings(deadline=None)
@given(st.one_of(TEXTS, CHATS))
def test_any_text_comes_back_or_is_refused(text: str) -> None:
    done = rewritten(Prompt(id="a", name="a", text=text), PROMPTFOO)
    if not done.refused:
        assert not differences(done.prompt, read(file_of(done.prompt, "promptfoo"), "promptfoo", "a"))
