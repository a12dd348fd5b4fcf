from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.content.digest import canonical, differences, digest, key_of, make_replica, read_mark
from engine.lossless_json import decode
from engine.model import Mark, Prompt

PROMPT = Prompt(
    id="p-1",
    name="hello",
    text="Hello {{name}}",
    slug="pp-hello",
    collection="c-1",
    model="claude",
    provider="anthropic",
    parameters={"temperature": 1, "stop": ["x"], "thinking": {"budget": 5}},
    tools=[{"name": "find", "default": None}],
    metadata={"team": "a"},
    description="First",
    version="3",
    updated_at="2026-01-01T00:00:00Z",
)
MARKED = "[promptferry:0123456789abcdef]"


def test_canonical_is_sorted_json_of_the_content_alone() -> None:
    assert json.loads(canonical(PROMPT)) == {
        "name": "hello",
        "text": "Hello {{name}}",
        "collection": "c-1",
        "model": "claude",
        "provider": "anthropic",
        "parameters": {"temperature": 1, "stop": ["x"], "thinking": {"budget": 5}},
        "tools": [{"name": "find", "default": None}],
        "metadata": {"team": "a"},
        "description": "First",
    }
    assert canonical(PROMPT).startswith(b'{"collection":"c-1","description":"First","metadata":{"team":"a"},')
    assert digest(PROMPT) == hashlib.sha256(canonical(PROMPT)).hexdigest()


@pytest.mark.parametrize(
    "alike",
    [
        {"id": "p-2", "slug": None, "version": 1, "updated_at": None, "variables": ["name"]},
        {"extra": {"x": 1}, "notes": ["a label"]},
        {"parameters": {"thinking": {"budget": 5}, "stop": ["x"], "temperature": 1}},
        {"parameters": {**PROMPT.parameters, "temperature": 1.0}},
        {"parameters": {**PROMPT.parameters, "top_p": None}},
        {"metadata": {"team": "a", "owner": None, "promptferry": {"key": "k"}}},
        {"description": f"First {MARKED}"},
        {"functions": [], "tool_choice": {}},
    ],
)
def test_what_a_registry_owns_or_may_give_back_otherwise_does_not_count(alike: dict[str, Any]) -> None:
    other = replace(PROMPT, **alike)
    assert digest(other) == digest(PROMPT)
    assert differences(PROMPT, other) == ()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "hello "}, ("name",)),
        ({"text": "Hello {{name}}\n"}, ("string",)),
        ({"text": ""}, ("string",)),
        ({"collection": None}, ("collection",)),
        ({"model": "other"}, ("model",)),
        ({"provider": "other"}, ("provider",)),
        ({"parameters": {}}, ("parameters.stop", "parameters.temperature", "parameters.thinking")),
        ({"parameters": {**PROMPT.parameters, "temperature": True}}, ("parameters.temperature",)),
        ({"parameters": {**PROMPT.parameters, "temperature": 1.5}}, ("parameters.temperature",)),
        ({"parameters": {**PROMPT.parameters, "thinking": {"budget": 6}}}, ("parameters.thinking.budget",)),
        ({"parameters": {**PROMPT.parameters, "thinking": {"budget": 5, "x": []}}}, ("parameters.thinking.x",)),
        ({"functions": [{}]}, ("functions",)),
        ({"tools": [{"name": "find"}]}, ("tools",)),
        ({"tools": None}, ("tools",)),
        ({"tool_choice": "auto"}, ("tool_choice",)),
        ({"raw": True}, ("raw",)),
        ({"metadata": {}}, ("metadata",)),
        ({"description": f"First{MARKED}"}, ("version_description",)),
        ({"description": f"{MARKED} First"}, ("version_description",)),
        ({"model": None, "text": "x"}, ("model", "string")),
    ],
)
def test_what_differs_is_named_and_changes_the_digest(change: dict[str, Any], named: tuple[str, ...]) -> None:
    other = replace(PROMPT, **change)
    assert differences(PROMPT, other) == named
    assert differences(other, PROMPT) == named
    assert digest(other) != digest(PROMPT)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (9007199254740993, 9007199254740993.0),
        (2**64, 2**64 + 1),
        ("1", 1),
        ("\ud800", "\ud801"),
        ("a\x00", "a"),
        ("\r\n", "\n"),
        ("\u2028", "\n"),
        ([None], []),
        ({"a": None}, {}),
    ],
)
def test_values_that_are_not_the_same_stay_apart(one: Any, other: Any) -> None:
    first, second = (replace(PROMPT, parameters={"x": value}) for value in (one, other))
    assert digest(first) != digest(second)
    assert differences(first, second) in (("parameters.x",), ("parameters.x.a",))


@pytest.mark.parametrize(
    "alike",
    [
        ("1.0", "1", "1E0", "1.00", "10e-1", "0.1e1"),
        ("0", "-0", "0.0", "-0.0", "0e5", "-0.000e-400"),
        ("1.5", "1.50", "15e-1", "0.15E+1"),
        ("100", "1E+2", "1e2", "100.0"),
        ("123456789012345678901234567890", "1.2345678901234567890123456789e29", "123456789012345678901234567890.0"),
        ("0.1000000000000000055", "0.10000000000000000550", "1000000000000000055e-19"),
        ("1e-400", "10e-401", "0.1E-399", f"0.{'0' * 399}1"),
        ("1e400", "10e399", f"1{'0' * 400}", f"1{'0' * 400}.0"),
        ("1e5000", "10e4999", f"1{'0' * 5000}"),
        ("1e99999999999999999999", "10e99999999999999999998"),
        ("1e23", "1.0E+23", "10e22"),
    ],
)
def test_all_forms_of_a_number_are_the_same_content(alike: tuple[str, ...]) -> None:
    first, *others = (replace(PROMPT, parameters=decode(f'{{"x":[{text}]}}'.encode())) for text in alike)
    for other in others:
        assert digest(other) == digest(first)
        assert differences(first, other) == ()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.1", "0.1000000000000000055511151231257827"),
        ("0.12345678901234567890", "0.12345678901234568"),
        ("1e-400", "0"),
        ("1e-400", "-1e-400"),
        ("1e400", "1e401"),
        ("9007199254740993.0", "9007199254740992.0"),
        ("3.141592653589793238462643383279", "3.141592653589793"),
        ("3.141592653589793238462643383279", '"3.141592653589793238462643383279"'),
    ],
)
def test_numbers_that_are_not_the_same_stay_apart(one: str, other: str) -> None:
    first, second = (replace(PROMPT, parameters=decode(f'{{"x":{text}}}'.encode())) for text in (one, other))
    assert digest(first) != digest(second)
    assert differences(first, second) == ("parameters.x",)


def plainly(body: str) -> Any:
    """As these numbers were read before any was kept as it is written: what ledgers and marks were made of."""
    return json.loads(body)


@given(
    st.lists(
        st.integers(-(2**70), 2**70).map(str)
        | st.floats(allow_nan=False, allow_infinity=False).map(repr)
        | st.decimals(allow_nan=False, allow_infinity=False, places=3).map(lambda one: f"{one:f}"[:15].rstrip("."))
        | st.builds("{}{}e{}".format, st.sampled_from(["", "-"]), st.integers(0, 999), st.integers(-300, 290))
    )
)
def test_what_could_be_read_before_has_the_digest_that_it_had(numbers: list[str]) -> None:
    body = f'{{"x":[{",".join(numbers)}]}}'
    found, before = (replace(PROMPT, parameters=value) for value in (decode(body.encode()), plainly(body)))
    assert digest(found) == digest(before)


def test_the_digest_of_old_ledgers() -> None:
    """As the version before this one made it."""
    body = (
        '{"a":1.50,"b":1e2,"c":[1E+2,1e23,-0,-0.0,0.00001,1e-7,1.0],'
        '"d":{"x":0.30000000000000004,"y":18446744073709551616}}'
    )
    prompt = Prompt(id="p", name="n", text="t", parameters=decode(body.encode()))
    assert digest(prompt) == "a5d8ece80d2e723c1077be1f6f95570c64a76d0e72a8ec38806676c75ce91b67"


texts = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates too
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(2**63, 2**80) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


def turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return [turned(one) for one in value] if isinstance(value, list) else value


@given(texts, st.dictionaries(texts, json_values, max_size=4), json_values)
def test_digest_is_total_and_blind_to_the_order_of_keys(text: str, parameters: dict[str, Any], tools: Any) -> None:
    prompt = replace(PROMPT, text=text, parameters=parameters, tools=tools, metadata=parameters)
    other = replace(PROMPT, text=text, parameters=turned(parameters), tools=turned(tools), metadata=turned(parameters))
    assert canonical(prompt) == canonical(other)
    assert differences(prompt, other) == ()


@given(st.dictionaries(texts, json_values, max_size=3), st.dictionaries(texts, json_values, max_size=3))
def test_differences_are_empty_exactly_when_the_digests_agree(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = replace(PROMPT, parameters=one), replace(PROMPT, parameters=other)
    assert (differences(first, second) == ()) == (digest(first) == digest(second))


# ---- marks -----------------------------------------------------------------------------------------------------------


def test_key_is_sixteen_digits_of_the_three_parts() -> None:
    assert key_of("m", "portkey w", "p-1") == hashlib.sha256(b"m\x00portkey w\x00p-1").hexdigest()[:16]
    assert len({key_of("m", "w", "p"), key_of("mw", "", "p"), key_of("m", "wp", ""), key_of("n", "w", "p")}) == 4


def test_a_replica_carries_its_mark_beside_the_metadata_in_place_of_any_other() -> None:
    source = replace(PROMPT, metadata={"team": "a", "promptferry": {"key": "old"}}, description=f"First {MARKED}")
    rewritten = replace(source, name="hello-replica")
    replica = make_replica(source, rewritten, migration="m", registry="portkey w")
    key = key_of("m", "portkey w", "p-1")
    assert replica.mark == Mark(
        migration="m", key=key, source_id="p-1", source_digest=digest(PROMPT), replica_digest=digest(rewritten)
    )
    assert replica.prompt.metadata == {
        "team": "a",
        "promptferry": {
            "migration": "m",
            "key": key,
            "source_id": "p-1",
            "source_digest": digest(PROMPT),
            "replica_digest": digest(rewritten),
        },
    }
    assert (replica.source, replica.prompt.name, replica.prompt.description) == (source, "hello-replica", "First")
    assert source.metadata["promptferry"] == {"key": "old"}
    assert digest(replica.prompt) == replica.mark.replica_digest
    assert read_mark(replica.prompt.metadata, f"First {MARKED}") == replica.mark


@pytest.mark.parametrize("description", [None, "", "First", f"First {MARKED}", MARKED, "a\nb "])
def test_the_mark_in_the_description_where_metadata_does_not_survive(description: str | None) -> None:
    source = replace(PROMPT, description=description, metadata={"promptferry": {"key": "old"}})
    replica = make_replica(source, source, migration="m", registry="w", mark_in="description")
    assert replica.prompt.metadata == {}
    assert replica.prompt.description is not None
    assert replica.prompt.description.count("promptferry") == 1
    assert read_mark({}, replica.prompt.description) == Mark(migration="", key=key_of("m", "w", "p-1"), source_id="")
    assert digest(replica.prompt) == digest(source) == replica.mark.replica_digest


GOOD = {"migration": "m", "key": "k", "source_id": "s", "source_digest": "d"}


@pytest.mark.parametrize(
    ("metadata", "description", "mark"),
    [
        ({"promptferry": GOOD}, None, Mark(migration="m", key="k", source_id="s", source_digest="d")),
        ({"promptferry": "k"}, None, None),
        ({"promptferry": [GOOD]}, None, None),
        ({"promptferry": None}, None, None),
        ({"promptferry": {**GOOD, "key": 7}}, None, None),
        ({"promptferry": {**GOOD, "source_id": None}}, None, None),
        ({"promptferry": {"key": "k"}}, None, None),
        ({"promptferry": {**GOOD, "replica_digest": 7}}, None, None),
        ({"promptferry": 7}, f"x {MARKED}", Mark(migration="", key="0123456789abcdef", source_id="")),
        ({}, MARKED, Mark(migration="", key="0123456789abcdef", source_id="")),
        ({}, f"x{MARKED}", None),
        ({}, f"x {MARKED} ", None),
        ({}, f"x {MARKED}\n", None),
        ({}, "x [promptferry:0123]", None),
        ({}, "x [promptferry:0123456789ABCDEF]", None),
        ({}, "", None),
        ({}, None, None),
    ],
)
def test_read_mark(metadata: dict[str, Any], description: str | None, mark: Mark | None) -> None:
    assert read_mark(metadata, description) == mark
