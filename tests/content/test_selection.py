from __future__ import annotations

import pytest

from engine.content.filter import Chosen
from engine.content.selection import (
    glob_readings,
    near_misses,
    needs_definition,
    selects,
    takes,
    two_readings,
    unknown_collections,
)
from engine.model import Named, Row, Rule, Select, When

SUPPORT = Named(id="c-1", slug="support", name="Support Team")
SALES = Named(id="c-2", slug="sales", name="Sales")
ROW = Row(id="p-1", name="support-hello", slug="pp-hello-1", collection="c-1", model="claude-3-7-sonnet")
BARE = Row(id="p-2", name="bare")


@pytest.mark.parametrize(
    ("select", "taken"),
    [
        (Select(), True),
        (Select(ids=["p-1"]), True),
        (Select(ids=["pp-hello-1"]), True),
        (Select(ids=["p-"]), False),
        (Select(collections=["c-1"]), True),
        (Select(collections=["support"]), True),
        (Select(collections=["Support Team"]), False),
        (Select(collections=["sales", "support"]), True),
        (Select(collections=["sales"]), False),
        (Select(names=["support-*"]), True),
        (Select(names=["Support-*"]), False),
        (Select(names=["support"]), False),
        (Select(names=["hello"]), False),
        (Select(names=["*", "!*-hello"]), False),
        (Select(names=["!*-hello", "*"]), False),
        (Select(names=["!*-old"]), True),
        (Select(names=["!support-*"]), False),
        (Select(names=["sales-*", "!*-old"]), False),
        (Select(models=["claude-3-7*"]), True),
        (Select(models=["gpt-*", "claude-*"]), True),
        (Select(models=["claude"]), False),
        (Select(models=["*"]), True),
        (Select(ids=["p-1"], models=["gpt-*"]), False),
    ],
)
def test_every_part_of_select_must_take_the_row(select: Select, taken: bool) -> None:
    assert selects(select, ROW, [SUPPORT, SALES]) is taken


@pytest.mark.parametrize(
    ("select", "taken"),
    [
        (Select(models=["*"]), True),
        (Select(models=["**"]), False),
        (Select(models=["claude*"]), False),
        (Select(collections=["support"]), False),
        (Select(ids=["None"]), False),
        (Select(names=["bare"]), True),
    ],
)
def test_a_row_without_model_slug_or_collection(select: Select, taken: bool) -> None:
    assert selects(select, BARE, [SUPPORT]) is taken


def test_without_the_collections_only_their_ids_are_matched() -> None:
    assert selects(Select(collections=["c-1"]), ROW, None)
    assert not selects(Select(collections=["support"]), ROW, None)


SILENT = Row(id="p-1", name="support-hello")
TOLD = Row(id="p-1", name="support-hello", whole=True)


@pytest.mark.parametrize(
    ("select", "row", "silent"),
    [
        (Select(models=["claude*"]), SILENT, True),
        (Select(collections=["support"]), SILENT, True),
        (Select(models=["claude*"], collections=["support"]), SILENT, True),
        (Select(models=["claude*"], names=["support-*"], ids=["p-1"]), SILENT, True),
        (Select(models=["claude*"], names=["!support-*"]), SILENT, False),
        (Select(models=["claude*"], ids=["p-2"]), SILENT, False),
        (Select(models=["claude*", "*"]), SILENT, False),
        (Select(names=["support-*"]), SILENT, False),
        (Select(models=["claude*"]), TOLD, False),
        (Select(models=["gpt*"]), ROW, False),
        (Select(models=["claude*"]), ROW._replace(model=None), True),
        (Select(models=["claude*"], collections=["sales"]), ROW._replace(model=None), False),
        (Select(models=["gpt*"], collections=["support"]), ROW._replace(collection=None), False),
        (Select(models=["claude*"], collections=["support"]), ROW._replace(collection=None), True),
    ],
)
def test_what_a_row_does_not_tell_only_the_definition_can(select: Select, row: Row, silent: bool) -> None:
    assert needs_definition(select, row, [SUPPORT, SALES]) is silent


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        ("[prod]*", ["[prod] hi", "p hi", "draft"]),
        ("[[]prod]*", ["[prod] hi"]),
        ("[dopr]*", ["p hi", "draft"]),
        ("[!p]*", ["[prod] hi", "draft", "a[1]", "v2"]),
        ("?[1]", ["a[1]"]),
        ("[a-b]*", ["a[1]"]),
        ("v[0-9]", ["v2"]),
        ("*]", ["a[1]"]),
        ("*[*", ["[prod] hi", "a[1]"]),
        ("[prod", []),
    ],
)
def test_brackets_are_characters_to_choose_from_and_themselves(glob: str, taken: list[str]) -> None:
    names = ["[prod] hi", "p hi", "draft", "a[1]", "v2"]
    assert [name for name in names if takes(glob, name)] == taken
    assert [name for name in names if selects(Select(names=[f"!{glob}"]), Row(id="1", name=name), None)] == [
        name for name in names if name not in taken
    ]


@pytest.mark.parametrize(
    ("glob", "values", "said"),
    [
        ("[prod]*", ["[prod] hi", "p hi"], "write '[[]prod]*'"),
        ("![prod]*", ["a", "p hi", "[prod] hi"], "write '![[]prod]*'"),
        ("*[a]*", ["x[a]", "banana"], "'banana'"),
        ("[prod]*", ["[prod] hi", "x"], ""),
        ("[prod]*", ["p hi", "d"], ""),
        ("[[]prod]*", ["[prod] hi", "p hi"], ""),
        ("p*", ["[prod] hi", "p hi"], ""),
        ("*", ["[prod] hi", "p hi"], ""),
    ],
)
def test_where_both_readings_take_something_a_sentence_names_both(glob: str, values: list[str], said: str) -> None:
    told = list(two_readings([("select.names", glob)], values))
    assert len(told) == bool(said)
    for sentence in told:
        assert sentence.startswith(f"select.names: {glob!r} is for ")
        assert said in sentence
        assert sum(repr(value) in sentence for value in values) == 2


def test_every_glob_whose_values_a_listing_tells_is_looked_at() -> None:
    """The key of each is said."""
    rows = [
        Row(id="1", name="[x] n", model="[x] m", collection="c"),
        Row(id="2", name="x n", model="x m", collection="c"),
    ]
    collections = [Named(id="c", slug="s", name="[x] c"), Named(id="d", slug="t", name="x c")]
    rules = [
        Rule(model=(("[x]*", "new"),), collection=(("[x]*", "s"),)),
        Rule(when=When(name="[x]*")),
        Rule(when=When(model="[x]*")),
        Rule(when=When(collection="[x]*")),
    ]
    told = glob_readings(Select(names=["[x]*"], models=["[x]*"]), rules, rows, collections)
    assert sorted(sentence.partition(": ")[0] for sentence in told) == [
        "rewrite.collection",
        "rewrite.model",
        "select.models",
        "select.names",
        "when.collection",
        "when.model",
        "when.name",
    ]
    assert Chosen(only=("[x]*",)).readings(rows)[0].startswith("--only: ")


def test_a_name_with_a_line_end_is_matched_to_its_end() -> None:
    row = Row(id="p-3", name="first\nsecond")
    assert selects(Select(names=["first*second"]), row, None)
    assert not selects(Select(names=["first"]), row, None)
    assert not selects(Select(names=["first"]), Row(id="p-4", name="first\n"), None)


@pytest.mark.parametrize(
    ("globs", "models", "missed"),
    [
        (["claude-3-7*"], ["us.anthropic.claude-3-7-sonnet", "claude-3-7-sonnet"], ["us.anthropic.claude-3-7-sonnet"]),
        (
            ["claude-3-7-*"],
            ["anthropic/claude-3.7-sonnet", "Claude-3-7"],
            ["Claude-3-7", "anthropic/claude-3.7-sonnet"],
        ),
        (["claude-3-7*"], ["claude-3-5-sonnet", "gpt-4o"], []),
        (["claude-3-7*", "*sonnet*"], ["us.claude-3-7-sonnet"], []),
        (["us.*.claude-[0-9]-sonnet"], ["eu.anthropic.claude-x"], ["eu.anthropic.claude-x"]),
        (["*"], ["gpt-4o"], []),
        (["?"], ["gpt-4o"], []),
        (["o*"], ["gpt-4o"], []),
        (["o1*"], ["openai/o1-mini"], ["openai/o1-mini"]),
        (["gpt*"], ["b-gpt", "a-gpt", "b-gpt"], ["a-gpt", "b-gpt"]),
        ([], ["gpt-4o"], []),
    ],
)
def test_near_misses(globs: list[str], models: list[str], missed: list[str]) -> None:
    assert near_misses(globs, models) == missed


def test_unknown_collections_are_told_with_the_nearest() -> None:
    select = Select(collections=["support", "c-2", "suport", "Support team", "zzz"])
    assert unknown_collections(select, [SUPPORT, SALES]) == [
        "collection 'suport' is not at the source: did you mean 'support'?",
        "collection 'Support team' is not at the source: did you mean 'support'?",
        "collection 'zzz' is not at the source: give the id or slug of one that is there",
    ]
    assert unknown_collections(select, None) == []
    assert len(unknown_collections(select, [])) == 5
