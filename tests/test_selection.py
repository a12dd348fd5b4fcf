from __future__ import annotations

import pytest

from engine.model import Named, Row, Select
from engine.selection import near_misses, selects, unknown_collections

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
