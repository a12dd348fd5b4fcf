"""One prompt as bytes and back: nothing is lost, the same is the same, and what people wrote can be read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from engine.connectors import DIALECTS
from engine.connectors.files.format import (
    Document,
    Unreadable,
    file_stem,
    from_line,
    from_markdown,
    named_in_line,
    to_line,
    to_markdown,
)
from engine.connectors.files.yaml import MOST_DEEP, read_front, write_yaml
from engine.content.digest import differences
from engine.lossless_json.numbers import Number, dumps, number
from engine.model import Inputs, Prompt

DATA: Final = Path(__file__).parents[3] / "shared" / "data" / "real-prompts.jsonl"


def prompt(text: str = "Hello {{name}}", **fields: Any) -> Prompt:
    return Prompt(**{"id": "p1", "name": "support", "text": text, **fields})


def markdown(one: Prompt) -> str:
    return to_markdown(Document(prompt=one)).decode()


def read(content: str | bytes) -> Prompt:
    return from_markdown(content.encode() if isinstance(content, str) else content, "p1", DIALECTS).prompt


def content_of(one: Prompt) -> Prompt:
    """Without what a template shows by itself."""
    return replace(one, variables=())


def as_written(value: Any) -> str:
    """Tells 1 from 1.0 and from true."""
    return repr(value)


# ---- any values ------------------------------------------------------------------------------------------------------

texts = st.text(st.characters(exclude_categories=())).filter(
    # the two halves of one character as two cannot come back as two
    lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") == text
)
many_lines = st.lists(st.text(st.sampled_from("ab -#:|>'\"\t{}&*!%@`~.\\"), max_size=6), max_size=5).map("\n".join)
words = st.sampled_from(
    "null Null ~ true FALSE yes no 1 -1 1.0 1e5 0x1F 0o7 .5 .inf .nan 2026-01-01 --- ... = << # ? -".split()
)
any_text = texts | many_lines | words
long_numbers = st.decimals(allow_nan=False, allow_infinity=False).map(lambda one: number(str(one).replace("E", "e")))
numbers = st.integers(-(2**200), 2**200) | st.floats(allow_nan=False, allow_infinity=False) | long_numbers
values = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(any_text, values, max_size=4))
def test_any_json_comes_back_from_yaml_with_its_kinds(told: dict[str, Any]) -> None:
    assert as_written(dict(read_front(write_yaml(told)).values)) == as_written(told)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")) | many_lines | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(many_lines, plain_values, max_size=4))
def test_any_reader_of_yaml_1_2_sees_the_same(told: dict[str, Any]) -> None:
    assert (YAML(typ="safe", pure=True).load(StringIO(write_yaml(told))) or {}) == told


def test_a_key_may_be_longer_than_yaml_looks_for_its_colon() -> None:
    told = {"k" * 2000: {"é" * 3000: [1]}}
    assert read_front(write_yaml(told)).values == told


@pytest.mark.parametrize("char", ["\ufeff", "\u2028", "\x85", "\x7f", "\t", "\uffff", "\x1b"])
def test_what_no_editor_shows_is_written_as_an_escape(char: str) -> None:
    assert write_yaml({"a": f"x{char}\ny"}).removesuffix("\n").isprintable()


def test_values_are_nested_as_deep_as_they_can_be_read_and_no_deeper() -> None:
    value: Any = 1
    for _ in range(MOST_DEEP):
        value = {"a": value}
    assert read_front(write_yaml(value)).values == value
    with pytest.raises(ValueError, match="nested"):
        write_yaml({"a": [{"a": value}]})


def test_yaml_is_made_to_be_read() -> None:
    told = {
        "name": "a-b",
        "size": 1.0,
        "big": 2**70,
        "says": "1",
        "list": [{"a": 1, "b": []}, [1]],
        "doc": "one\n\n two\n",
    }
    assert write_yaml(told) == (
        'name: a-b\nsize: 1.0\nbig: 1180591620717411303424\nsays: "1"\nlist:\n  - a: 1\n    b: []\n  - - 1\n'
        "doc: |\n  one\n\n   two\n"
    )


# ---- any prompt ------------------------------------------------------------------------------------------------------

messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user"]), "content": any_text | st.lists(values, max_size=2)}
    )
    | st.dictionaries(st.text(max_size=4), values, max_size=2),
    min_size=1,
    max_size=3,
)
chats = st.builds(
    lambda told, indent, ascii_only: dumps(told, indent=indent, ensure_ascii=ascii_only),
    messages,
    st.sampled_from([None, 2, 4]),
    st.booleans(),
).filter(lambda text: text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass") == text)
sections = st.lists(
    st.sampled_from(["---", "--- user ---", "--- message as JSON ---", "chat: spaced", "", "x"]), max_size=6
).map("\n".join)
templates = any_text | chats | sections
maps = st.dictionaries(any_text, values, max_size=3)
prompts = st.builds(
    prompt,
    templates,
    name=any_text,
    slug=st.none() | any_text.filter(bool),
    model=st.none() | any_text.filter(bool),
    dialect=st.sampled_from(["portkey", "conductor"]),
    integrations=st.lists(any_text, max_size=2).map(lambda found: tuple(sorted(found))),
    description=st.none() | any_text.filter(bool),
    raw=st.booleans(),
    parameters=maps,
    tools=st.none() | st.lists(maps, min_size=1, max_size=2),
    tool_choice=st.none() | any_text.filter(bool),
    labels=st.lists(any_text, max_size=2).map(tuple),
    version=st.none() | st.integers(1, 99).map(str) | st.sampled_from(["pv-7f3a", "007", "v 1: #a", "true", "-1"]),
    extra=maps,
    metadata=maps,
)


@settings(max_examples=250, deadline=None)
@given(prompts)
def test_any_prompt_comes_back_from_markdown(one: Prompt) -> None:
    content = to_markdown(Document(prompt=one))
    found = read(content)
    assert found.text == one.text
    assert content_of(found) == content_of(one)
    assert to_markdown(Document(prompt=found)) == content


@settings(max_examples=150, deadline=None)
@given(prompts, st.builds(Inputs, variables=st.lists(texts).map(tuple), sections=st.just({"s": ("a",)})))
def test_any_prompt_comes_back_from_a_line(one: Prompt, inputs: Inputs) -> None:
    whole = replace(one, updated_at="2026-01-01T00:00:00.000Z", notes=("is shared",), inputs=inputs)
    line = to_line(Document(prompt=whole))
    found = from_line(line, 1, DIALECTS).prompt
    assert line.count(b"\n") == 1
    assert found.text == one.text
    assert replace(found, variables=(), inputs=Inputs()) == replace(whole, variables=(), inputs=Inputs())
    assert [list(found.inputs.variables), *found.inputs.sections] == [list(inputs.variables), "s"]
    assert to_line(Document(prompt=found)) == to_line(Document(prompt=replace(whole, variables=found.variables)))


def test_a_line_tells_nothing_from_what_is_empty() -> None:
    found = from_line(to_line(Document(prompt=prompt(tools=[], functions=None, tool_choice=""))), 1, DIALECTS).prompt
    assert (found.tools, found.functions, found.tool_choice) == ([], None, "")


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_real_prompts_come_back_byte_for_byte() -> None:
    chat = 0
    for told in map(json.loads, DATA.read_text(encoding="utf-8").strip().split("\n")):
        text = told["template"] if told["kind"] == "text" else json.dumps(told["messages"], ensure_ascii=False)
        one = prompt(text, name=told["name"], parameters=told["parameters"] or {}, tools=told["tools"])
        content = to_markdown(Document(prompt=one))
        assert read(content).text.encode() == text.encode()
        assert from_line(to_line(Document(prompt=one)), 1, DIALECTS).prompt.text.encode() == text.encode()
        assert differences(one, read(content)) == ()
        chat += read_front(content.decode().split("---\n")[1]).values.get("chat") is not None
    assert chat > 150, "chats are to be read as chats"


# ---- what a reviewer sees --------------------------------------------------------------------------------------------


def test_a_template_stands_in_the_file_as_it_is() -> None:
    one = prompt(
        "Hello {{name}}\r\n---\nno end ",
        model="gpt-4o",
        parameters={"top_p": 1.0, "max_tokens": 5},
        version="3",
        labels=("prod",),
        updated_at="2026-01-01T00:00:00.000Z",
    )
    assert markdown(one) == (
        "---\nname: support\nmodel: gpt-4o\nparameters:\n  max_tokens: 5\n  top_p: 1.0\nlabels:\n  - prod\n"
        "source_version: 3\n---\nHello {{name}}\r\n---\nno end "
    )


@pytest.mark.parametrize("text", ["a\0b", "\ud83d alone"])
def test_a_text_that_no_text_file_can_hold_is_a_json_string(text: str) -> None:
    content = markdown(prompt(text))
    assert content.endswith(f"string: {json.dumps(text)}\n---\n")
    assert read(content).text == text


CHATS: Final = {
    "spaced": json.dumps(
        [{"role": "system", "content": "é one\ntwo\n"}, {"role": "user", "content": ""}], ensure_ascii=False
    ),
    "spaced ascii": json.dumps([{"role": "user", "content": "é 🧪"}]),
    "compact": '[{"role":"user","content":[{"type":"text","text":"a\\n---\\nb"}]}]',
    "compact content-first": '[{"content":"a","role":"user"},{"content":[{"text":"t","type":"text"}],"role":"user"}]',
    "indented-2": json.dumps(
        [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "t", "content": "y"}], indent=2
    ),
}


def test_numbers_in_the_messages_of_a_chat_stand_as_they_are_written() -> None:
    text = '[{"role": "user", "content": "x", "n": [1e2, 1.50, 0.12345678901234567890, -0, 1e-400]}]'
    content = markdown(prompt(text))
    assert "\nchat: spaced\n---\n--- message as JSON ---\n" in content
    assert read(content).text == text


@pytest.mark.parametrize(("layout", "text"), CHATS.items(), ids=CHATS)
def test_a_chat_stands_in_sections(layout: str, text: str) -> None:
    content = markdown(prompt(text))
    assert f"\nchat: {layout}\n---\n--- " in content
    assert read(content).text == text


def test_the_sections_of_a_chat_can_be_read_and_edited() -> None:
    content = markdown(prompt(CHATS["spaced"]))
    assert content.endswith("---\n--- system ---\né one\ntwo\n\n--- user ---\n\n")
    edited = json.loads(read(content.replace("two", "three")).text)
    assert edited == [{"role": "system", "content": "é one\nthree\n"}, {"role": "user", "content": ""}]


@pytest.mark.parametrize(
    "text",
    [
        '[{"role":"user", "content":"x"}]',
        '[{"role": "user", "role": "user", "content": "x"}]',
        '[{"role": "user", "content": "a\\n--- user ---\\nb"}]',
        '[{"role": "user", "content": "\\ud83d"}]',
        "[1]",
        "[{{messages}}]",
    ],
)
def test_a_chat_that_sections_would_change_stays_as_it_is(text: str) -> None:
    content = markdown(prompt(text))
    assert content.endswith(f"---\n{text}")
    assert read(content).text == text


def test_the_order_inside_of_a_tool_and_a_schema_is_kept() -> None:
    schema: dict[str, Any] = {"properties": {"reason": {}, "answer": {}}}
    found = read(markdown(prompt(tools=[schema], parameters={"z": schema, "a": 1})))
    assert [*found.tools[0]["properties"]] == ["reason", "answer"] == [*found.parameters["z"]["properties"]]


def test_the_variables_of_a_template_are_known_in_its_own_dialect() -> None:
    assert set(read(markdown(prompt("{{a}} ${b}"))).variables) == {"a"}
    assert set(read(markdown(prompt("{{a}} ${b}", dialect="conductor"))).variables) == {"b"}


# ---- what is refused -------------------------------------------------------------------------------------------------

BROKEN: Final[dict[str, tuple[bytes, int]]] = {
    "no front matter": (b"# Notes\n", 1),
    "no end of it": (b"---\nname: a\n", 1),
    "no name": (b"---\nmodel: x\n---\n", 1),
    "a key nobody knows": (b"---\nname: a\nmodle: secret\n---\n", 3),
    "a map for a text": (b"---\nname: a\nmodel: {secret: 4}\n---\n", 3),
    "a text for a number": (b'---\nname: a\nsource_version: "4"\n---\n', 3),
    "a text for a map": (b"---\nname: a\nparameters: secret\n---\n", 3),
    "another dialect": (b"---\nname: a\ndialect: secret\n---\n", 3),
    "not YAML": (b"---\nname: a\nmodel: {secret\n---\n", 4),
    "a key twice": (b"---\nname: a\nname: secret\n---\n", 3),
    "an alias": (b"---\nname: &x a\nmodel: *x\n---\n", 2),
    "a tag": (b"---\nname: !secret a\n---\n", 2),
    "a number that nobody can count to": (b"---\nname: a\nparameters:\n  a: 1e" + b"9" * 4301 + b"\n---\n", 4),
    "not UTF-8 in front": (b"---\nname: \xff\n---\n", 2),
    "not UTF-8 below": (b"---\nname: a\n---\nx\n\xff", 5),
    "two texts": (b'---\nname: a\nstring: "b"\n---\nsecret', 3),
    "text before the first message": (b"---\nname: a\nchat: spaced\n---\nsecret", 5),
    "an unknown layout": (b"---\nname: a\nchat: secret\n---\n--- user ---\nx", 3),
    "a message that is no JSON": (
        b"---\nname: a\nchat: spaced\n---\n--- user ---\nx\n--- message as JSON ---\nsecret",
        7,
    ),
}


@pytest.mark.parametrize(("content", "line"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_prompt_is_refused_by_line_and_never_quoted(content: bytes, line: int) -> None:
    with pytest.raises(Unreadable) as caught:
        read(content)
    assert caught.value.line == line
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "word", ["4e2", "123", "0123456", "1.50", "true", "0x1F", ".inf", "2024-01-01", "-0", "=", "yes"]
)
def test_a_name_or_a_model_that_looks_like_something_else_is_a_text(word: str) -> None:
    keys = ("name", "slug", "collection", "model", "provider", "version_description", "string")
    front = "".join(f"{key}: {word}\n" for key in keys)
    found = read(f"---\n{front}integrations: [{word}]\nlabels:\n  - {word}\n---\n")
    assert {found.name, found.slug, found.collection, found.model, found.provider, found.description} == {word}
    assert (found.text, found.integrations, found.labels) == (word, (word,), (word,))


def test_a_null_is_nothing_even_where_a_text_is_due() -> None:
    found = read("---\nname: a\nmodel: null\nprovider: ~\ncollection:\n---\nHi")
    assert (found.model, found.provider, found.collection) == (None, None, None)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0.12345678901234567890", Number("0.12345678901234567890")),
        ("1e-400", Number("1e-400")),
        ("12e4567", Number("12e4567")),
        ("4e2", Number("4e2")),
        ("1.50", Number("1.50")),
        ("-0", Number("-0")),
        ("+1", 1),
        (".5", 0.5),
        ("1.", 1.0),
        ("0x1F", 31),
        ("0o17", 15),
        ("9" * 4400, Number("9" * 4400)),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        (".nan", math.nan),
        *(
            (text, text)
            for text in ("0123456", "007", "01e5", "00.5", "1_000", "12:30", "2024-01-01", "yes", "no", "on")
        ),
        *((text, text) for text in ("off", "NaN", "Infinity", "0b11", "1e5x", "-.nan", "=", "<<", "0o8", "2e")),
        ('"1e5"', "1e5"),
        ("'null'", "null"),
        ("null", None),
        ("~", None),
        ("True", True),
    ],
)
def test_what_a_person_writes_is_read_by_yaml_1_2_and_nothing_of_it_is_lost(written: str, value: Any) -> None:
    """But for zeros in front, which YAML would drop: they are part of a commit hash or a zip code."""
    found = read(f"---\nname: a\nmetadata: {{k: {written}}}\n---\n")
    assert as_written(found.metadata["k"]) == as_written(value)


def test_a_number_in_a_message_that_somebody_edits_is_kept() -> None:
    content = '---\nname: a\nchat: compact\n---\n--- message as JSON ---\n{"n": [0.12345678901234567890, 1.50]}\n'
    assert read(content).text == '[{"n":[0.12345678901234567890,1.50]}]'


def test_a_line_keeps_numbers_as_they_are_written_and_says_which_it_cannot() -> None:
    line = b'{"id":"a","name":"b","string":"","parameters":{"x":0.12345678901234567890,"y":NaN}}'
    found = from_line(line, 7, DIALECTS).prompt
    assert as_written(found.parameters) == "{'x': 0.12345678901234567890, 'y': nan}"
    with pytest.raises(Unreadable, match="a number that cannot be kept") as caught:
        from_line(line.replace(b"NaN", b"1e" + b"9" * 4301), 7, DIALECTS)
    assert caught.value.line == 7


def test_what_an_editor_on_windows_saves_is_read() -> None:
    found = read(b"\xef\xbb\xbf---\r\nname: a\r\nversion_description: |\r\n  b\r\n---\r\nHello\r\n")
    assert (found.name, found.text, found.description) == ("a", "Hello\r\n", "b\n")


@pytest.mark.parametrize("end", ["\r", "\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("form", ["{}", '"{}"', "'{}'", "|\n  {}", ">-\n  {}"])
def test_only_a_line_feed_ends_a_line_of_what_people_write(end: str, form: str) -> None:
    told = f"one {end}  two"
    found = read(f"---\nname: a\nversion_description: {form.format(told)}\n---\n{told}\n{end}")
    assert found.description is not None
    assert found.description.removesuffix("\n") == told
    assert found.text == f"{told}\n{end}"
    with pytest.raises(Unreadable) as caught:
        read(f"---\nname: a{end}b\nmodle: x\n---\n")
    assert caught.value.line == 3


ENDS: Final = ["a\r\nb", "a\r", "\r", "\n", "a\r\n", "\r\n", "a\u2028b", "a\x85", "\u2029", "a\x0bb\x0c"]


@pytest.mark.parametrize("ends", ENDS, ids=ascii)
def test_the_line_ends_inside_of_messages_are_kept(ends: str) -> None:
    told = [{"role": "system", "content": ends}, {"role": "user", "content": [{"type": "text", "text": ends}]}]
    for text in (ends, json.dumps(told, ensure_ascii=False), json.dumps(told)):
        assert read(markdown(prompt(text))).text == text
        assert from_line(to_line(Document(prompt=prompt(text))), 1, DIALECTS).prompt.text == text


def test_a_chat_that_an_editor_on_windows_saved_has_no_stray_line_ends() -> None:
    content = markdown(prompt(json.dumps([{"role": role, "content": "a\nb"} for role in ("system", "user")])))
    found = json.loads(read(content.replace("\n", "\r\n")).text)
    assert found == [{"role": role, "content": "a\r\nb"} for role in ("system", "user")]


CHATS_UNSAID: Final = {
    "ours": "Hello\n--- user ---\nHi",
    "ours, in a list": "--- assistant, in a list ---\r\nHi",
    "headings": "# System\nBe kind\n\n# User\nHi",
    "bold": "**System:**\nBe kind\n**User:**\nHi",
    "words": "system:\n  Be kind\nuser:\n  Hi",
    "roles": "- role: system\n  content: Be kind\n- role: user\n  content: Hi",
    "tokens": "<|im_start|>system\nBe kind\n<|im_start|>user\nHi",
    "dotprompt": '{{role "system"}}\nBe kind\n{{role "user"}}\nHi',
}


@pytest.mark.parametrize("text", CHATS_UNSAID.values(), ids=CHATS_UNSAID)
def test_a_chat_that_does_not_say_so_is_noticed_by_its_line(text: str) -> None:
    begin = f"---\nname: a\n---\n{text}".encode()
    found = from_markdown(begin, "p1", DIALECTS)
    assert found.prompt.text == text
    assert found.like_chat == (5 if text.startswith("Hello") else 4)
    ours = replace(found.prompt, metadata={"promptferry": "0123456789abcdef"})
    assert from_markdown(to_markdown(Document(prompt=ours)), "p1", DIALECTS).like_chat is None
    assert from_markdown(f"---\nname: a\nstring: {json.dumps(text)}\n---\n".encode(), "p1", DIALECTS).like_chat is None


@pytest.mark.parametrize(
    "text",
    ["# System\nYou are\n## Style\n", "The user: is\n", "---\nuser\n---\n", "--- Notes ---\n", '[{"role": "user"}]'],
)
def test_a_text_that_only_speaks_of_roles_is_no_chat(text: str) -> None:
    assert from_markdown(f"---\nname: a\n---\n{text}".encode(), "p1", DIALECTS).like_chat is None


def test_a_message_with_a_key_twice_is_refused_by_its_line() -> None:
    body = '--- message as JSON ---\n{"role": "user",\n "content": {"a": 1,\n  "a": "secret"}}\n'
    with pytest.raises(Unreadable) as caught:
        read(f"---\nname: a\nchat: spaced\n---\n{body}")
    assert caught.value.line == 8
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a", "name": "n", "string": "first", "string": "secret"}', "`string` twice"),
        ('{"id": "a", "name": "n", "string": "", "parameters": {"secret": 1, "secret": 1}}', "in this object"),
        ('{"id": "a", "name": "n", "string": "", "tools": [{"x": 1, "\\u0078": 2}]}', "in this object"),
        ('{"id": "a", "id": "b", "name": "n", "string": ""}', "`id` twice"),
    ],
)
def test_a_line_with_a_key_twice_is_refused(line: str, words: str) -> None:
    with pytest.raises(Unreadable, match=words) as caught:
        from_line(line.encode(), 3, DIALECTS)
    assert caught.value.line == 3
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b'{"id": "a", "name": "n", "string": 1e999}', ("a", "n")),
        (b'{"string": "\xff", "name": "n", "id": "a"}', ("a", "n")),
        (b'{"id": "a", "name": "n", "string": "torn', ("a", "n")),
        (b'{"id": "a\\"b", "x": }', ('a"b', None)),
        (b'{"id": "a", "id": "b", "name": "n"}', (None, "n")),
        (b'{"id": "\xff", "name": "n"}', (None, "n")),
        (b'{"id": 7, "name": ["n"]}', (None, None)),
        (b"[1]", (None, None)),
        (b"x", (None, None)),
        (b'{"a":' * 100_000, (None, None)),
    ],
)
def test_a_line_that_cannot_be_read_is_named_where_it_can_be(line: bytes, named: tuple[str, str]) -> None:
    assert named_in_line(line) == named


def test_an_edited_line_is_refused_until_its_digest_is_taken_out() -> None:
    line = to_line(Document(prompt=prompt()))
    told = json.loads(line) | {"string": "secret"}
    with pytest.raises(Unreadable, match="take out `digest`") as caught:
        from_line(json.dumps(told).encode(), 7, DIALECTS)
    assert caught.value.line == 7
    del told["digest"]
    assert from_line(json.dumps(told).encode(), 7, DIALECTS).prompt.text == "secret"


@pytest.mark.parametrize(
    "line", [b"[]", b"{}", b'{"id": 1}', b'{"id": "a", "name": "b"}', b"\xff", b'{"id": "a", "x": 1}']
)
def test_a_line_that_is_no_prompt_is_refused(line: bytes) -> None:
    with pytest.raises(Unreadable):
        from_line(line, 1, DIALECTS)


@pytest.mark.parametrize(
    "fields", [{"parameters": {"a": float("nan")}}, {"name": "\ud83d\ude00"}, {"text": "\ud83d\ude00"}]
)
@pytest.mark.parametrize("form", [to_markdown, to_line])
def test_what_would_not_come_back_is_not_written(form: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"pair|finite|kept"):
        form(Document(prompt=replace(prompt(), **fields)))


# ---- names of files --------------------------------------------------------------------------------------------------


def test_a_safe_name_is_the_name_of_its_file() -> None:
    assert [file_stem(name) for name in ("support", "a.b_c-1")] == ["support", "a.b_c-1"]


NAMES: Final = [
    *"Support ../../etc/passwd .. . con con.x lpt1 nul readme .hidden a/b a\\b a. -a support~abcdef 日本 İ".split(),
    *("", "a b", "a\0b", "\ud83d", "x" * 300),
]


def test_no_two_names_meet_on_a_disk_without_case() -> None:
    stems = [file_stem(name) for name in [*NAMES, "support", "SUPPORT", "y" + "x" * 299]]
    assert len({stem.lower() for stem in stems}) == len(stems)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_made_safe(name: str) -> None:
    stem = file_stem(name)
    assert set(stem) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-~")
    assert "~" in stem
    assert len(stem) <= 100
    assert stem[0] not in ".-~"
    assert stem.partition(".")[0] not in ("con", "nul", "lpt1", "readme")
