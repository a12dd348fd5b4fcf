"""Translation, as properties over many texts: what is not refused and no loss comes back as it was."""

from __future__ import annotations

import json
import re

import mystace
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.content.digest import content
from engine.model import Json, Prompt
from engine.sandbox.portkey.template import components
from tests.content.test_translate import translate, variables_of

TAG = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)
NAMES = ["x", "größe", "user-name", "a.b", "a b", "{x", "#x", "a/b", "$", "temperature", "top_p", ""]
PIECES = [
    *'{}$#^>!&=. \n\r\\"a',
    "{{",
    "}}",
    "${",
    "$$",
    "{{{",
    "}}}",
    "[]",
    "\u2028",
    "{{!c}}",
    "{{=<% %>=}}",
    '[{"role": "user", "content": "',
    '"}]',
]
mustache_tags = st.sampled_from(NAMES).flatmap(
    lambda name: st.sampled_from([f"{{{{{name}}}}}", f"{{{{ {name} }}}}", f"{{{{{{{name}}}}}}}", f"{{{{\n{name}}}}}"])
)
dollar_tags = st.sampled_from(NAMES).map(lambda name: f"${{{name}}}")
rough = st.lists(st.sampled_from(PIECES) | mustache_tags | dollar_tags | st.text(max_size=3), max_size=8).map("".join)
plain = st.text(st.characters(exclude_characters="{$"), max_size=6)
smooth_mustache = st.lists(plain | st.sampled_from(["{{x}}", "{{ größe }}", "$", "{ ", "}"]), max_size=8).map("".join)
smooth_dollars = st.lists(plain | st.sampled_from(["${x}", "${größe}", "$", "{ ", "}"]), max_size=8).map("".join)
numbers = st.integers(0, 2) | st.floats(0, 2)
texts = st.lists(st.text(max_size=3), min_size=1, max_size=3)
portkey_parameters = st.fixed_dictionaries(
    {},
    optional={
        "temperature": numbers | st.none() | st.text(max_size=2),
        "top_p": numbers | st.booleans(),
        "stop": texts | st.text(max_size=2),
        "response_format": st.sampled_from([{"type": "text"}, {"type": "json_object"}, {"type": "json_schema"}]),
        "max_tokens": st.integers(),
        "x": numbers,
    },
)
conductor_parameters = st.fixed_dictionaries(
    {},
    optional={
        "temperature": numbers,
        "topP": numbers,
        "stopWords": texts,
        "responseFormat": st.sampled_from(["text", "json", "xml"]),
    },
)
tags = st.dictionaries(
    st.text(max_size=3), st.text(max_size=3) | st.lists(st.text(max_size=2), min_size=2, unique=True).map(sorted)
)
loose_values = st.integers() | st.none() | st.lists(st.integers() | st.text(max_size=2), max_size=2)
portkey_prompts = st.builds(
    Prompt,
    id=st.just("p-1"),
    name=st.just("hello"),
    text=rough | smooth_mustache,
    parameters=portkey_parameters,
    metadata=tags | st.dictionaries(st.text(max_size=3), loose_values),
    description=st.none() | st.text(max_size=3),
)
conductor_prompts = st.builds(
    Prompt,
    id=st.just("p-1"),
    name=st.just("hello"),
    text=rough | smooth_dollars,
    parameters=conductor_parameters,
    metadata=tags,
    dialect=st.just("conductor"),
)


def trimmed(text: str) -> str:
    """The text with nothing but the name in each tag."""
    return TAG.sub(r"{{\1}}", text)


def kept(prompt: Prompt, losses: tuple[str, ...]) -> dict[str, Json]:
    """The content that is no loss; an empty parameter or metadata field is as good as none."""
    fields = content(prompt)
    for name in ("parameters", "metadata"):
        inside = {key: value for key, value in fields.pop(name, {}).items() if f"{name}.{key}" not in losses}
        fields |= {name: inside} if inside else {}
    return fields


@settings(max_examples=400, deadline=None)
@given(portkey_prompts)
@example(Prompt(id="p", name="n", text="${{x}}{{x}}}{{ x }}${}"))
@example(Prompt(id="p", name="n", text="{{temperature}}", parameters={"temperature": 30}))
def test_portkey_to_conductor_and_back(source: Prompt) -> None:
    there = translate(source, "conductor")
    assert there.prompt.dialect == "conductor"
    back = translate(there.prompt, "portkey")
    if there.refused:
        assert there.prompt.text == source.text
        return
    assert (back.refused, back.losses, back.prompt.dialect) == ((), (), "portkey")
    before, after = kept(source, there.losses), kept(back.prompt, ())
    assert before.pop("text", "") == source.text
    assert after.pop("text", "") == trimmed(source.text)
    assert after == before
    assert set(components(back.prompt.text)["variables"]) == set(components(source.text)["variables"])


@settings(max_examples=400, deadline=None)
@given(conductor_prompts)
@example(Prompt(id="p", name="n", text="$${x}${x}}${}${ }", dialect="conductor"))
def test_conductor_to_portkey_and_back(source: Prompt) -> None:
    there = translate(source, "portkey")
    assert there.prompt.dialect == "portkey"
    if there.refused:
        assert there.prompt.text == source.text
        return
    back = translate(there.prompt, "conductor")
    assert (back.refused, back.losses) == ((), ())
    assert back.prompt.text.encode("utf-8", "surrogatepass") == source.text.encode("utf-8", "surrogatepass")
    assert kept(back.prompt, ()) == kept(source, there.losses)


@settings(max_examples=300, deadline=None)
@given(smooth_mustache, st.sampled_from(["", "v", "${y}", "{{y}}"]))
def test_both_registries_would_send_the_same_to_the_model(text: str, value: str) -> None:
    there = translate(Prompt(id="p", name="n", text=text), "conductor")
    if there.refused:
        return
    values = dict.fromkeys(there.prompt.variables, value)
    filled = re.sub(r"\$\{(.+?)\}", lambda tag: values.get(tag[1], tag[0]), there.prompt.text)
    assert filled == mystace.render_from_template(text, values, {}, str, str)


@settings(max_examples=200, deadline=None)
@given(smooth_mustache, smooth_dollars)
def test_ordinary_texts_are_not_refused(mustache: str, dollars: str) -> None:
    for text, dialect, to in ((mustache, "portkey", "conductor"), (dollars, "conductor", "portkey")):
        source = Prompt(id="p", name="n", text=text, dialect=dialect)
        if "${ " not in text:
            assert translate(source, to).refused == ()


@settings(max_examples=400, deadline=None)
@given(rough)
def test_variables_of_portkey_are_those_that_another_parser_finds(text: str) -> None:
    assert variables_of(text, "portkey") == set(components(text)["variables"])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["system", "user", "{{role}}"]), rough | smooth_mustache), max_size=3))
def test_a_chat_is_refused_or_says_what_its_strings_said(messages: list[tuple[str, str]]) -> None:
    source = Prompt(id="p", name="n", text=json.dumps([{"role": role, "content": text} for role, text in messages]))
    assert translate(source, "conductor").refused
    for how, texts in (
        ("system-only", [text for role, text in messages if role == "system"]),
        ("transcript", [f"{role}: {text}" for role, text in messages]),
    ):
        there = translate(source, "conductor", messages=how)
        if not there.refused:
            assert trimmed("\n\n".join(texts)) == translate(there.prompt, "portkey").prompt.text
            assert ("messages" in there.losses) == (how == "transcript" or len(texts) < len(messages))
