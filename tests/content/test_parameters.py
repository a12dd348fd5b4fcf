from __future__ import annotations

import copy
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.content.parameters import change_parameters
from engine.lossless_json.numbers import Number
from engine.model import Clamp, ParameterRules

LONG = Number("0.1000000000000000055511151231257827")


@pytest.mark.parametrize(
    ("before", "rules", "after"),
    [
        ({"a": 1, "b": 2}, ParameterRules(drop=("a", "nothing")), {"b": 2}),
        ({"t": {"x": 1, "y": 2}}, ParameterRules(drop=("t.x",)), {"t": {"y": 2}}),
        ({"t": 1}, ParameterRules(drop=("t.x",)), {"t": 1}),
        ({"t.x": 1, "t": {"x": 2}}, ParameterRules(drop=("t.x",)), {"t": {"x": 2}}),
        ({"a.b": {"c": 1}}, ParameterRules(drop=("a.b.c",)), {"a.b": {}}),
        ({"max_tokens": 5}, ParameterRules(rename=(("max_tokens", "max"),)), {"max": 5}),
        ({"a": 5}, ParameterRules(rename=(("a", "t.b"),)), {"t": {"b": 5}}),
        ({"t": {"b": None}}, ParameterRules(rename=(("t.b", "a"),)), {"t": {}, "a": None}),
        ({"t": {"b": 1}}, ParameterRules(rename=(("t", "t.b"),)), {"t": {"b": {"b": 1}}}),
        ({"a": 5}, ParameterRules(rename=(("a", "a"),)), {"a": 5}),
        ({"a.b": {}}, ParameterRules(rename=(("a.b", "a.b.c"),)), {"a.b": {"c": {}}}),
        ({"b": 5}, ParameterRules(rename=(("a", "c"),)), {"b": 5}),
        ({"n": 9000}, ParameterRules(clamp=(("n", Clamp(max=8192)),)), {"n": 8192}),
        ({"n": 9000}, ParameterRules(clamp=(("n", Clamp(max=8192.5)),)), {"n": 8192}),
        ({"n": 1}, ParameterRules(clamp=(("n", Clamp(min=1.5)),)), {"n": 2}),
        ({"n": 5}, ParameterRules(clamp=(("n", Clamp(min=1, max=8)),)), {"n": 5}),
        ({"n": 1.75}, ParameterRules(clamp=(("n", Clamp(max=1)),)), {"n": 1.0}),
        ({"n": True}, ParameterRules(clamp=(("n", Clamp(max=0)),)), {"n": True}),
        ({"n": "9000"}, ParameterRules(clamp=(("n", Clamp(max=8)),)), {"n": "9000"}),
        ({}, ParameterRules(clamp=(("n", Clamp(max=8)),)), {}),
        ({"t": {"n": 9}}, ParameterRules(clamp=(("t.n", Clamp(max=8)),)), {"t": {"n": 8}}),
        ({"n": LONG}, ParameterRules(clamp=(("n", Clamp(max=0.1)),)), {"n": 0.1}),
        ({"n": LONG}, ParameterRules(clamp=(("n", Clamp(max=1)),)), {"n": LONG}),
        ({"n": LONG}, ParameterRules(clamp=(("n", Clamp(min=1)),)), {"n": 1.0}),
        ({"n": 0.2}, ParameterRules(clamp=(("n", Clamp(max=LONG)),)), {"n": LONG}),
        ({"n": 0.1}, ParameterRules(clamp=(("n", Clamp(min=LONG)),)), {"n": LONG}),
        ({"n": 5}, ParameterRules(clamp=(("n", Clamp(max=LONG)),)), {"n": 0}),
        ({"n": -5}, ParameterRules(clamp=(("n", Clamp(min=LONG)),)), {"n": 1}),
        ({"n": 0.5}, ParameterRules(clamp=(("n", Clamp(max=LONG)),)), {"n": LONG}),
        ({"n": Number("1e400")}, ParameterRules(clamp=(("n", Clamp(max=8)),)), {"n": 8.0}),
        ({"n": Number("1e500")}, ParameterRules(clamp=(("n", Clamp(max=10**400)),)), {"n": Number(f"1{'0' * 400}.0")}),
        ({"n": Number("1e-400")}, ParameterRules(clamp=(("n", Clamp(min=0.5)),)), {"n": 0.5}),
        ({"n": Number("1" * 5000)}, ParameterRules(clamp=(("n", Clamp(max=8192)),)), {"n": 8192}),
        ({"n": Number("-0")}, ParameterRules(clamp=(("n", Clamp(min=1)),)), {"n": 1}),
        ({"n": Number("1.50")}, ParameterRules(clamp=(("n", Clamp(max=1.5)),)), {"n": Number("1.50")}),
        ({"n": 9e99}, ParameterRules(clamp=(("n", Clamp(max=2**80 + 1)),)), {"n": Number(f"{2**80 + 1}.0")}),
        ({"n": math.inf}, ParameterRules(clamp=(("n", Clamp(max=LONG)),)), {"n": LONG}),
        ({"a": LONG}, ParameterRules(rename=(("a", "b.c"),)), {"b": {"c": LONG}}),
        ({}, ParameterRules(set=(("a.b", LONG),)), {"a": {"b": LONG}}),
        ({}, ParameterRules(set=(("a.b.c", 1), ("a.b.d", 2))), {"a": {"b": {"c": 1, "d": 2}}}),
        ({"a.b": 1}, ParameterRules(set=(("a.b", 2),)), {"a.b": 2}),
        ({"a.b": {}}, ParameterRules(set=(("a.b.c", 2),)), {"a.b": {"c": 2}}),
        ({"a": "on"}, ParameterRules(set=(("a.b", 2),)), {"a": {"b": 2}}),
        (
            {"thinking": {}, "max_tokens": 9000},
            ParameterRules(
                drop=("thinking",), rename=(("max_tokens", "m"),), clamp=(("m", Clamp(max=8192)),), set=(("k", 40),)
            ),
            {"m": 8192, "k": 40},
        ),
        ({"a": 1}, ParameterRules(rename=(("a", "b"), ("b", "c"))), {"c": 1}),
    ],
)
def test_rules(before: dict[str, Any], rules: ParameterRules, after: dict[str, Any]) -> None:
    changed, notes = change_parameters(before, rules, ())
    assert (changed, notes) == (after, ())
    assert repr(changed) == repr(after)


def test_rename_keeps_what_is_there_and_says_so() -> None:
    changed, notes = change_parameters({"a": 1, "b": 2}, ParameterRules(rename=(("a", "b"),)), ())
    assert changed == {"b": 2}
    assert notes == ("parameters.a is dropped, for parameters.b has a value of its own, which is kept",)


@pytest.mark.parametrize(
    "rules",
    [
        ParameterRules(drop=("customer",)),
        ParameterRules(drop=("customer.name",)),
        ParameterRules(rename=(("customer", "n"),)),
        ParameterRules(rename=(("n", "customer"),)),
        ParameterRules(rename=(("n", "customer.name"),)),
        ParameterRules(clamp=(("customer.age", Clamp(max=8)),)),
        ParameterRules(set=(("customer", "x"),)),
        ParameterRules(set=(("customer.name", "x"),)),
    ],
)
@pytest.mark.parametrize("variable", ["customer", "customer.name"])
def test_defaults_of_template_variables_are_never_touched(rules: ParameterRules, variable: str) -> None:
    before = {"customer": {"name": "Ada", "age": 36}, "n": 5}
    changed, notes = change_parameters(before, rules, [variable])
    assert changed == before
    assert notes == ("parameters.customer is left as it is: 'customer' is a variable of the template",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "a.b"]), inner, max_size=3),
    max_leaves=6,
)
paths = st.sampled_from(["a", "b", "a.b", "a.b.a", "b.a", "a.b.a.b"])
rules = st.builds(
    ParameterRules,
    drop=st.lists(paths, max_size=2).map(tuple),
    rename=st.lists(st.tuples(paths, paths), max_size=2).map(tuple),
    clamp=st.lists(st.tuples(paths, st.just(Clamp(min=0, max=3))), max_size=2).map(tuple),
    set=st.lists(st.tuples(paths, json_values), max_size=2).map(tuple),
)
parameters = st.dictionaries(st.sampled_from(["a", "b", "a.b"]), json_values, max_size=3)


@given(parameters, rules, st.sets(st.sampled_from(["a", "b"])))
def test_the_input_is_never_changed_nor_shared_and_variables_stay(
    before: dict[str, Any], rules: ParameterRules, variables: set[str]
) -> None:
    untouched, untouched_rules = copy.deepcopy(before), copy.deepcopy(rules)
    changed, _ = change_parameters(before, rules, variables)
    assert {name: changed.get(name) for name in variables} == {name: before.get(name) for name in variables}
    _scribble(changed)
    assert (before, rules) == (untouched, untouched_rules)


def _scribble(value: Any) -> None:
    inner = list(value.values()) if isinstance(value, dict) else list(value)
    value.clear()
    for one in inner:
        if isinstance(one, dict | list):
            _scribble(one)
