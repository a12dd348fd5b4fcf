"""Values for renders: read from a file, or made up from what a template asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigError
from engine.model import Inputs, Prompt
from engine.verbs.cases import Case, cases_for, made_up, read_cases, skeleton

SECRET = "canary value that nobody may read"


def asking(raw: bool = False, **inputs: Any) -> Prompt:
    known = Inputs(**inputs)
    return Prompt(id="p1", name="Reply", slug="pp-reply", text="", raw=raw, inputs=known, variables=known.variables)


def written(folder: Path, *lines: str) -> Path:
    path = folder / "cases.jsonl"
    path.write_bytes("\n".join(lines).encode())
    return path


# ---- the file --------------------------------------------------------------------------------------------------------


def test_a_file_of_cases(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '{"prompt": "p1", "variables": {"a": [1, {"b": null}]}, "label": "empty cart"}\r',
        "",
        " \r",
        '{"prompt": "pp-reply", "variables": {"a": "first\u2028second"}, "label": ""}',
        '  {"prompt": "Reply", "label": null}',
    )
    assert read_cases(path) == [
        Case("p1", {"a": [1, {"b": None}]}, "empty cart"),
        Case("pp-reply", {"a": "first\u2028second"}),
        Case("Reply", {}),
    ]


def test_every_problem_is_told_at_once_and_no_value(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "{" + SECRET,
        f'["{SECRET}"]',
        f'{{"prompt": "p1", "variabels": "{SECRET}"}}',
        "",
        f'{{"prompt": 7, "variables": ["{SECRET}"], "label": "{SECRET}\\n"}}',
        '{"variables": {"a": 1e' + "9" * 4301 + "}}",
        '{"variables": {}}',
        '{"prompt": ""}',
        '{"prompt": "p1", "variables": {"a": NaN}}',
        '{"prompt": "p1", "variables": null, "label": 7}',
    )
    with pytest.raises(ConfigError) as caught:
        read_cases(path)
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [
        *((1, ""), (2, ""), (3, "variabels")),
        *((5, "prompt"), (5, "variables"), (5, "label")),
        *((6, ""), (7, "prompt"), (8, "prompt"), (9, ""), (10, "variables"), (10, "label")),
    ]
    assert {problem.file for problem in caught.value.problems} == {str(path)}
    assert "unknown key; known here are prompt, variables, label" in str(caught.value)
    assert "cannot be kept" in caught.value.problems[6].message
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_cases(tmp_path / "cases.jsonl")


# ---- which cases are a prompt's --------------------------------------------------------------------------------------


def test_cases_by_id_slug_and_name_have_what_is_shared_underneath() -> None:
    prompt = asking(variables=("a",))
    cases = [
        Case("Reply", {"a": 1}, "one"),
        Case("other", {"a": 2}),
        Case("p1", {"b": 3}),
        Case("pp-reply", {}, "three"),
    ]
    assert cases_for(prompt, cases, {"a": 0, "unknown": 9}) == [
        Case("Reply", {"a": 1, "unknown": 9}, "one"),
        Case("p1", {"a": 0, "unknown": 9, "b": 3}),
        Case("pp-reply", {"a": 0, "unknown": 9}, "three"),
    ]


def test_without_a_case_the_values_are_made_up_under_those_that_are_shared_and_known() -> None:
    prompt = asking(variables=("a", "b"), sections={"s": ()}, partials=("Mine",))
    (case,) = cases_for(prompt, [Case("other", {"a": 2})], {"a": 0, "s": False, "Mine": "m", "unknown": 9})
    assert case == Case("p1", {"a": 0, "b": "value of b", "s": False, "Mine": "m"})


def test_a_variable_that_only_the_text_shows_is_known_too() -> None:
    prompt = Prompt(id="p1", name="n", text="{{a}}", variables={"a"})
    assert cases_for(prompt, [], {"a": 1, "b": 2}) == [Case("p1", {"a": 1})]


def test_a_prompt_without_a_slug_has_no_case_of_nobody() -> None:
    prompt = Prompt(id="p1", name="n", text="")
    assert cases_for(prompt, [], {}) == [Case("p1", {})]


# ---- made up ---------------------------------------------------------------------------------------------------------


MADE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing": ({}, {}),
    "variables": ({"variables": ("a", "b")}, {"a": "value of a", "b": "value of b"}),
    "a partial": ({"partials": ("My part.1",)}, {"My part.1": "text of My part.1"}),
    "a section without variables": ({"sections": {"s": ()}}, {"s": True}),
    "a section": (
        {"variables": ("a", "b"), "sections": {"s": ("a",)}},
        {"a": "value of a", "b": "value of b", "s": [{"a": "value of a"}]},
    ),
    "variables only inside": (
        {"sections": {"s": ("a",)}},
        {"a": "value of a", "s": [{"a": "value of a"}]},
    ),
    "a section around itself": (
        {"variables": ("s",), "sections": {"s": ("s",)}},
        {"s": [{"s": "value of s"}]},
    ),
    "the item itself": ({"variables": (".",), "sections": {"s": (".",)}}, {"s": ["value of s"]}),
    "dotted": (
        {"variables": ("user.name", "user.home.town", "user")},
        {"user": {"name": "value of user.name", "home": {"town": "value of user.home.town"}}},
    ),
    "dotted after plain": ({"variables": ("user", "user.name")}, {"user": {"name": "value of user.name"}}),
    "dotted inside": (
        {"variables": ("item.name",), "sections": {"items": ("item.name",)}},
        {"item": {"name": "value of item.name"}, "items": [{"item": {"name": "value of item.name"}}]},
    ),
    "dotted with the name of its section": (
        {"variables": ("user.name",), "sections": {"user": ("user.name",)}},
        {"user": [{"user": {"name": "value of user.name"}}]},
    ),
    "a dotted section": ({"sections": {"user.vip": ()}}, {"user": {"vip": True}}),
    "no way": ({"variables": ("..", ".a", "a.")}, {}),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_is_made_up(kind: str) -> None:
    inputs, values = MADE[kind]
    assert made_up(asking(**inputs)) == values


def test_a_raw_template_gets_whole_numbers_and_its_partials_texts() -> None:
    prompt = asking(True, variables=("a", "user.b"), sections={"s": ("a",), "t": ()}, partials=("Mine",))
    values = made_up(prompt)
    assert values == {"a": 1, "user": {"b": 2}, "s": [{"a": 1}], "t": True, "Mine": "3"}


names = st.lists(st.text(alphabet="ab.", min_size=1, max_size=4), max_size=4)


@given(st.booleans(), names, st.dictionaries(st.text(alphabet="ab.", min_size=1, max_size=4), names, max_size=3), names)
def test_whatever_a_registry_lists_the_values_are_json_and_their_skeleton_is_a_case(
    raw: bool, variables: list[str], sections: dict[str, list[str]], partials: list[str]
) -> None:
    prompt = asking(raw, variables=variables, sections=sections, partials=partials)
    assert json.loads(json.dumps(made_up(prompt))) == made_up(prompt)
    assert json.loads(skeleton(prompt))["variables"].keys() == made_up(prompt).keys()


# ---- the skeleton ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("raw", [False, True])
def test_a_skeleton_is_a_line_to_fill_in(raw: bool, tmp_path: Path) -> None:
    inputs = {"variables": ("z", "a", "user.y", "user.b"), "sections": {"s": ("z",), "t": ()}, "partials": ("Mine",)}
    line = skeleton(asking(raw, **inputs))
    assert line == (
        b'{"label":"","prompt":"pp-reply","variables":{"Mine":"","a":"","s":[],"t":[],"user":{"b":"","y":""},"z":""}}\n'
    )
    path = tmp_path / "cases.jsonl"
    path.write_bytes(line)
    (case,) = read_cases(path)
    assert (case.prompt, case.label) == ("pp-reply", None)
    assert [found.variables for found in cases_for(asking(), [case], {})] == [case.variables]


def test_a_prompt_without_a_slug_is_named_by_its_id() -> None:
    assert json.loads(skeleton(Prompt(id="p1", name="n", text="")))["prompt"] == "p1"
