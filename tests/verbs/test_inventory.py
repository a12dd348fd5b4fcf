"""One listing, counted by model and collection, and what `select` takes of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model import Named, Row, Select
from engine.verbs.inventory import NO_MODEL, NOT_KNOWN, Group, count

COLLECTIONS = (Named(id="c1", slug="support", name="Support"), Named(id="c2", slug="sales", name="Sales"))
ROWS = (
    Row(id="1", name="a", model="claude-3-7-sonnet", collection="c1"),
    Row(id="2", name="b", model="us.anthropic.claude-3-7-sonnet", collection="c1"),
    Row(id="3", name="c", model="claude-3-7-sonnet", collection="c2"),
    Row(id="4", name="d", model=None, collection=None),
    Row(id="5", name="a-replica", model="claude-3-7-sonnet", collection="c9"),
)


def test_prompts_are_counted_by_model_and_by_the_slug_of_their_collection() -> None:
    found = count(ROWS, Select(models=("claude-3-7*",)), COLLECTIONS, {"5"})
    assert (found.listed, found.replicas, found.selected) == (5, 1, 2)
    assert found.models == [
        Group(name="claude-3-7-sonnet", listed=3, selected=2),
        Group(name=NO_MODEL, listed=1, selected=0),
        Group(name="us.anthropic.claude-3-7-sonnet", listed=1, selected=0),
    ]
    assert found.collections == [
        Group(name="support", listed=2, selected=1),
        Group(name=NO_MODEL, listed=1, selected=0),
        Group(name="c9", listed=1, selected=0),
        Group(name="sales", listed=1, selected=1),
    ]


def test_models_that_were_probably_meant_are_told() -> None:
    assert count(ROWS, Select(models=("claude-3-7*",)), COLLECTIONS, ()).near_misses == [
        "us.anthropic.claude-3-7-sonnet"
    ]
    assert count(ROWS, Select(), COLLECTIONS, ()).near_misses == []


@pytest.mark.parametrize(
    ("glob", "models"),
    [
        ("claude-3-7*", ["claude-3-7-sonnet"]),
        ("*claude-3-7*", ["claude-3-7-sonnet", "us.anthropic.claude-3-7-sonnet"]),
        ("gpt*", []),
    ],
)
def test_a_model_that_must_not_be_there_is_found(glob: str, models: list[str]) -> None:
    found = count(ROWS, Select(), COLLECTIONS, ())
    assert [group.name for group in found.matching(glob)] == models


def test_without_a_catalog_collections_are_counted_by_id() -> None:
    found = count(ROWS, Select(), None, ())
    assert {group.name for group in found.collections} == {"c1", "c2", "c9", NO_MODEL}


def test_a_prompt_that_could_not_be_read_counts_as_selected_and_as_still_there() -> None:
    """Nobody knows its model: it is neither left out nor is it taken for gone."""
    found = count(ROWS, Select(models=("gpt*",)), COLLECTIONS, (), unread={"4"}, notes=["a note"])
    assert (found.selected, found.unread, found.notes) == (1, ["d"], ["a note"])
    assert [group.name for group in found.matching("gpt*")] == [NOT_KNOWN]
    assert count(ROWS, Select(models=("gpt*",), names=("a",)), COLLECTIONS, (), unread={"4"}).selected == 0


def test_an_inventory_is_json() -> None:
    found = count(ROWS, Select(), COLLECTIONS, ()).to_json()
    assert json.loads(json.dumps(found)) == found
    assert found["models"][0] == {"name": "claude-3-7-sonnet", "listed": 3, "selected": 3}


rows = st.lists(
    st.builds(
        Row,
        id=st.text(min_size=1, max_size=3),
        name=st.sampled_from(["a", "b"]),
        model=st.sampled_from([None, "m1", "m2"]),
        collection=st.sampled_from([None, "c1", "c2"]),
    ),
    unique_by=lambda row: row.id,
    max_size=20,
)


@given(
    rows=rows,
    select=st.sampled_from([Select(), Select(names=("a",)), Select(models=("m1",))]),
    replicas=st.sets(st.text(max_size=3)),
)
def test_every_way_to_count_gives_the_same_sum(rows: list[Row], select: Select, replicas: set[str]) -> None:
    found = count(rows, select, COLLECTIONS, replicas)
    for groups in (found.models, found.collections):
        assert sum(group.listed for group in groups) == found.listed == len(rows)
        assert sum(group.selected for group in groups) == found.selected
        assert [group.listed for group in groups] == sorted((group.listed for group in groups), reverse=True)
    assert found.selected + found.replicas <= found.listed
