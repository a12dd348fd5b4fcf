"""JSON of LangChain, loaded and rendered by its own core, and written by it as its hub would."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder, PromptTemplate
from langchain_core.prompts.structured import StructuredPrompt

from engine.connectors.files.format import Unreadable
from engine.connectors.files.formats.table import FORMATS
from engine.content.chats import messages_of, spelled
from engine.content.digest import differences
from engine.model import Prompt
from tests.formats import DATA, Said, arriving, file_of, read, rewritten, said, values_for

LANGCHAIN = FORMATS["langchain"]
ROLES = {"human": "user", "ai": "assistant"}

pytestmark = pytest.mark.filterwarnings("ignore:The (default value of|class|function|method|parameter) .*")


def loaded(content: bytes | str) -> Any:
    """By the vendor."""
    text = content if isinstance(content, str) else content.decode()
    return loads(text, allowed_objects="core", init_validator=None)  # it takes Jinja2 only from those it trusts


def rendered(content: bytes | str, values: dict[str, Any]) -> Said:
    """By the vendor."""
    template = loaded(content)
    if isinstance(template, PromptTemplate):
        return [("user", template.invoke(values).to_string())]
    return [(_role(one), _text(one.content)) for one in template.invoke(values).to_messages()]


def _role(message: BaseMessage) -> str:
    return getattr(message, "role", None) or ROLES.get(message.type, message.type)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def chat(*messages: tuple[str, str]) -> str:
    return spelled([{"role": role, "content": content} for role, content in messages])


def prompt(text: str = "Hello {name}", **fields: Any) -> Prompt:
    return Prompt(**{"id": "a", "name": "Greeting", "text": text, "dialect": "langchain", **fields})


# ---- what we write ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_every_real_prompt_renders_alike_or_is_refused_by_name() -> None:
    arrived, refused, lossy = arriving("langchain")
    assert len(arrived) + refused + lossy > 500
    assert len(arrived) >= 552
    for source, replica in arrived:
        content, values = file_of(replica, "langchain"), values_for(source)
        assert rendered(content, values) == said(source, values), source.name
        assert not differences(replica, read(content, "langchain", replica.id))
        assert loaded(content).name == source.name


def source_prompt(**fields: Any) -> Prompt:
    known: dict[str, Any] = {
        "id": "pp-1",
        "name": "Weather report",
        "text": json.dumps(
            [{"role": "system", "content": "In {{city}}: {x}"}, {"role": "assistant", "content": "Yes?"}]
        ),
        "model": "gpt-4o",
        "provider": "openai",
        "collection": "support",
        "description": "Two\nlines",
        "parameters": {"max_tokens": 200, "stop": "END", "city": "Bern", "response_format": {"type": "json_object"}},
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
        "tool_choice": "auto",
        "functions": [{"name": "f"}],
        "metadata": {"owner": "ops", "tags": ["a", "b"], "like": {"lc": 1, "id": ["x"], "type": "secret"}},
        "variables": frozenset({"city"}),
    }
    return Prompt(**known | fields)


def test_everything_has_its_own_place() -> None:
    done = rewritten(source_prompt(provider="groq"), LANGCHAIN)
    assert (done.refused, done.losses) == ((), ())
    content = file_of(done.prompt, "langchain")
    found = loaded(content)
    assert isinstance(found, ChatPromptTemplate)
    assert (found.name, found.tags, found.partial_variables) == ("Weather report", ["a", "b"], {"city": "Bern"})
    assert found.metadata is not None
    assert found.metadata["like"] == {"lc": 1, "id": ["x"], "type": "secret"}
    assert found.metadata["promptferry.file"]["parameters"]["max_tokens"] == 200
    assert rendered(content, {}) == [("system", "In Bern: {x}"), ("assistant", "Yes?")]
    assert not differences(done.prompt, read(content, "langchain", "pp-1"))


@pytest.mark.parametrize(
    ("provider", "key", "stop"), [("openai", "model_name", "stop"), ("anthropic", "model", "stop_sequences")]
)
def test_a_model_that_langchain_knows_stands_behind_the_prompt(provider: str, key: str, stop: str) -> None:
    done = rewritten(source_prompt(provider=provider), LANGCHAIN)
    content = file_of(done.prompt, "langchain")
    sequence = json.loads(content)
    assert sequence["id"][-1] == "RunnableSequence"
    bound = sequence["kwargs"]["last"]["kwargs"]
    arguments = bound["bound"]["kwargs"]
    assert (arguments[key], arguments["max_tokens"], arguments[stop]) == ("gpt-4o", 200, ["END"])
    assert arguments[f"{provider}_api_key"] == {"lc": 1, "type": "secret", "id": [f"{provider.upper()}_API_KEY"]}
    assert bound["kwargs"] == {"tools": done.prompt.tools, "tool_choice": "auto"}
    assert rendered(json.dumps(sequence["kwargs"]["first"]), {}) == [("system", "In Bern: {x}"), ("assistant", "Yes?")]
    assert not differences(done.prompt, read(content, "langchain", "pp-1"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"text": chat(("user", "a { b"))}, "otherwise"),
        ({"text": '[{"role": "user", "content": null}]'}, "a message 1 with a content"),
        ({"text": '[{"role": "user", "content": "a", "name": "b"}]'}, "a message 1 that is more than"),
        ({"text": '[{"role": "user", "content": [{"type": "input_audio"}]}]'}, "a message 1 with a part"),
        ({"text": chat(("placeholder", "history"))}, "a message 1 that is more than"),
        ({"model": "m", "provider": "openai", "parameters": {"tools": 1}}, "parameters called tools"),
        ({"metadata": {"promptferry.file": 1}}, "promptferry.file"),
    ],
)
def test_what_no_file_can_say_is_refused_by_name(fields: dict[str, Any], says: str) -> None:
    one = prompt(**fields)
    if says == "otherwise":  # an f-string that is not well formed stays what it is
        assert read(file_of(one, "langchain"), "langchain").text == one.text
        return
    with pytest.raises(ValueError, match=re.escape(says)):
        file_of(one, "langchain")
    assert any(says in reason for reason in rewritten(one, LANGCHAIN).refused)


# ---- what others write -----------------------------------------------------------------------------------------------


def test_a_prompt_that_the_core_writes_is_read_and_written_alike() -> None:
    template = ChatPromptTemplate.from_messages(
        [
            SystemMessage("Braces {stay}"),
            ("system", "Be {mood}, {{literally}}."),
            MessagesPlaceholder("history", optional=True),
            ("human", [{"type": "text", "text": "See {what}"}, {"type": "image_url", "image_url": {"url": "{link}"}}]),
            ("ai", "Yes?"),
        ],
    ).partial(mood="kind")
    template.metadata = {"lc_hub_repo": "concierge"}
    template.tags = ["a"]
    found = read(dumps(template), "langchain", "team/concierge")
    assert (found.name, found.dialect, found.parameters) == ("concierge", "langchain", {"mood": "kind"})
    assert messages_of(found.text) == [
        {"role": "system", "content": "Braces {{stay}}"},
        {"role": "system", "content": "Be {mood}, {{literally}}."},
        {"role": "placeholder", "content": "{*history}", "optional": True},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See {what}"}, {"type": "image_url", "image_url": {"url": "{link}"}}],
        },
        {"role": "assistant", "content": "Yes?"},
    ]
    written = file_of(found, "langchain")
    values = {"what": "this", "link": "http://x", "history": [HumanMessage("a"), AIMessage("b")]}
    assert loaded(written).invoke(values).to_messages() == template.invoke(values).to_messages()
    assert not differences(found, read(written, "langchain", "team/concierge"))
    assert read(written, "langchain", "team/concierge").extra == found.extra
    # what else has placeholders takes them, and refuses the image
    there = rewritten(found, FORMATS["dotprompt"])
    assert "placeholder for messages" in " ".join(there.refused)


def manifest(template: Any, model: dict[str, Any], bound: dict[str, Any] | None = None, *more: Any) -> str:
    """As the hub gives a prompt with its model."""
    last: dict[str, Any] = {"lc": 1, "type": "constructor", **model}
    if bound is not None:
        path = ["langchain", "schema", "runnable", "RunnableBinding"]
        last = {"lc": 1, "type": "constructor", "id": path, "kwargs": {"bound": last, "kwargs": bound, "config": {}}}
    steps = [json.loads(dumps(template)), last, *more]
    kwargs = {"first": steps[0], **({"middle": steps[1:-1]} if len(steps) > 2 else {}), "last": steps[-1]}
    path = ["langchain", "schema", "runnable", "RunnableSequence"]
    return json.dumps({"lc": 1, "type": "constructor", "id": path, "kwargs": kwargs})


def test_a_manifest_with_its_model_is_read() -> None:
    template = PromptTemplate.from_template("Hello {name}")
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    secret = {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]}
    model = {
        "id": ["langchain", "chat_models", "openai", "ChatOpenAI"],
        "kwargs": {"model_name": "gpt-4o", "temperature": 0.10, "stop": ["E"], "openai_api_key": secret, "n": None},
    }
    found = read(manifest(template, model, {"tools": tools, "tool_choice": "auto", "strict": True}), "langchain")
    assert (found.model, found.provider, found.tools, found.tool_choice) == ("gpt-4o", "openai", tools, "auto")
    assert (found.parameters, found.text) == ({"temperature": 0.1, "stop": ["E"]}, "Hello {name}")
    assert found.extra == {"bound/strict": True}
    written = json.loads(file_of(found, "langchain"))
    assert written["kwargs"]["last"]["kwargs"]["bound"]["kwargs"]["openai_api_key"] == secret
    assert written["kwargs"]["last"]["kwargs"]["kwargs"]["strict"] is True


def test_another_model_keeps_its_class_and_what_stands_behind_it() -> None:
    template = ChatPromptTemplate.from_messages([("human", "{x}")])
    model = {"id": ["langchain_groq", "chat_models", "ChatGroq"], "kwargs": {"model": "llama", "temperature": 0}}
    parser = {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "StrOutputParser"],
        "kwargs": {},
    }
    content = manifest(template, model, None, parser)
    found = read(content, "langchain")
    assert (found.model, found.provider, found.parameters) == ("llama", "groq", {"temperature": 0})
    assert found.extra == {"model/id": model["id"], "steps": [parser]}
    written = json.loads(file_of(found, "langchain"))
    assert [written["kwargs"]["middle"][0]["id"], written["kwargs"]["last"]] == [model["id"], parser]
    assert not differences(found, read(json.dumps(written), "langchain"))


def test_a_structured_prompt_says_the_form_of_the_answer() -> None:
    schema = {"title": "A name", "type": "object", "properties": {"a": {"type": "string"}}}
    found = read(dumps(StructuredPrompt([("user", "{x}")], schema_=schema)), "langchain")
    there = rewritten(found, FORMATS["dotprompt"])
    assert there.prompt.parameters == {"output": {"format": "json", "schema": schema, "name": "A_name"}}
    written = loaded(file_of(found, "langchain"))
    assert isinstance(written, StructuredPrompt)
    assert written.schema_ == schema


@pytest.mark.parametrize(
    ("form", "text", "values"),
    [
        ("mustache", "{{#names}}{{.}} {{/names}}and {{name}}", {"names": ["a", "b"], "name": "c"}),
        ("jinja2", "{% for one in names %}{{one}} {% endfor %}and {{name}}\n", {"names": ["a", "b"], "name": "c"}),
        ("f-string", "{name:>8} and {{name}}", {"name": "c"}),
    ],
)
def test_each_form_of_a_template_stays_what_it_is(form: Any, text: str, values: dict[str, Any]) -> None:
    template = PromptTemplate.from_template(text, template_format=form)
    found = read(dumps(template), "langchain")
    kept = rewritten(found, LANGCHAIN)
    assert (kept.refused, kept.losses, kept.prompt.text) == ((), (), text)
    written = file_of(kept.prompt, "langchain")
    assert loaded(written).invoke(values) == template.invoke(values)
    there = rewritten(found, FORMATS["dotprompt"])
    assert there.refused


def test_jinja2_is_read_as_langchain_renders_it() -> None:
    template = PromptTemplate.from_template("Hello {{ name }}{{ '{{' }}\n", template_format="jinja2")
    there = rewritten(read(dumps(template), "langchain"), FORMATS["dotprompt"]).prompt
    assert there.text == "Hello {{name}}\\{{"
    assert template.invoke({"name": "x"}).to_string() == "Hello x{{"


@pytest.mark.parametrize("content", ["[1, 2]", '{"name": "a package"}', "3"])
def test_other_json_is_passed_over(content: str) -> None:
    assert LANGCHAIN.read(content.encode(), "a", {}) == []


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ('{\n"lc": 1,\n', 3, "is no JSON"),
        (
            '{"lc": 1, "type": "constructor",\n"id": ["a", "FewShotPromptTemplate"], "kwargs": {}}',
            1,
            "FewShotPromptTemplate",
        ),
        ('{"lc": 1,\n"lc": 1}', 2, "stands in this object already"),
        (dumps(ChatPromptTemplate([AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "i"}])])), 1, "message 1"),
        (b"\xff\xfe{\x00", 1, "UTF-16"),
    ],
)
def test_a_file_that_is_not_well_formed_is_refused_by_line(content: str | bytes, line: int, says: str) -> None:
    with pytest.raises(Unreadable) as error:
        read(content, "langchain")
    assert (error.value.line, says in error.value.message) == (line, True)


# ---- any -------------------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(["{{a}}", "{{ b }}", *"{}\n \0x", "{{", "\r\n", "\u2028", "\ud800", "\U0001f600"])
TEXTS = st.lists(PIECES, max_size=8).map("".join)


CHATS = st.lists(st.tuples(st.sampled_from(["system", "user", "developer"]), TEXTS)).map(lambda each: chat(*each))


@settings(deadline=None)
@given(st.one_of(TEXTS, CHATS))
def test_any_text_of_mustache_is_rendered_alike_or_refused(text: str) -> None:
    source = Prompt(id="a", name="a", text=text)
    done = rewritten(source, LANGCHAIN)
    if done.refused:
        return
    values = values_for(source)
    content = file_of(done.prompt, "langchain")
    assert not differences(done.prompt, read(content, "langchain", "a"))
    assert rendered(content, values) == said(source, values)
