"""Rewriting, as properties over many prompts, rules and ends."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.content.references import Ends
from engine.content.rewrite import Change, Placement, Rewritten, place, rewrite
from engine.model import Catalog, Named, ParameterRules, Prompt, Row, Rule, When

FIELDS = frozenset(Prompt.__dataclass_fields__)
GENERAL = Rule(name="{name}-replica")
SOURCE = Catalog(
    collections=[
        Named(id=f"c-{slug}", slug=slug, name=slug.title()) for slug in ("support", "sales", "lonely", "twin")
    ],
    providers=[Named(id="v-1", slug="claude", name="Claude"), Named(id="v-2", slug="hello", name="Hello")],
    partials=[Named(id="q-1", slug="tone-1", name="Tone"), Named(id="q-2", slug="gone-1", name="Gone")],
)
TARGET = Catalog(
    collections=[
        Named(id="d-1", slug="support", name="Anything"),
        Named(id="d-2", slug="sales-2", name="Sales"),
        Named(id="d-3", slug="twin-1", name="Twin"),
        Named(id="d-4", slug="twin-2", name="Twin"),
    ],
    providers=[Named(id="w-1", slug="claude", name="X"), Named(id="w-2", slug="new", name="Hello")],
    partials=[Named(id="r-1", slug="tone-9", name="Tone"), Named(id="r-2", slug="rules", name="Other")],
)
SAME = Ends(same=True, source=SOURCE, target=SOURCE)
APART = Ends(same=False, source=SOURCE, target=TARGET)
BLIND = Ends(same=False, source=SOURCE, target=Catalog())
PROMPT = Prompt(id="p-1", name="hello", text="", collection="c-support", provider="claude")


def as_row(prompt: Prompt) -> Row:
    """A row that tells all that the definition does."""
    return Row(
        id=prompt.id,
        name=prompt.name,
        slug=prompt.slug,
        collection=prompt.collection,
        model=prompt.model,
        whole=True,
    )


words = st.sampled_from(["hello", "claude-3-7", "claude", "support", "{name}", "{{>tone-1}}", "*", ""])
globs = st.sampled_from(["*", "c*", "claude-*", "hello", "support", "c-s*"])
choices = st.lists(st.tuples(globs, st.sampled_from(["support", "Sales", "Twin", "new"])), max_size=2).map(tuple)
paths = st.sampled_from(["a", "a.b", "who", "c.d"])
parameter_rules = st.builds(
    ParameterRules,
    drop=st.lists(paths, max_size=1).map(tuple),
    rename=st.lists(st.tuples(paths, paths), max_size=1).map(tuple),
    set=st.lists(st.tuples(paths, st.just([1])), max_size=1).map(tuple),
)
rule_lists = st.lists(
    st.builds(
        Rule,
        when=st.builds(
            When,
            model=globs,
            collection=globs,
            name=globs,
            has=st.sets(st.sampled_from(["tools", "raw"]), max_size=1).map(tuple),
        ),
        name=st.none() | st.sampled_from(["{name}", "{name}-{model}", "{collection}{slug}"]),
        model=choices,
        provider=choices,
        collection=choices,
        partials=st.sampled_from([(), (("tone-1", "rules"),)]),
        description=st.none() | words,
        parameters=parameter_rules,
    ),
    max_size=3,
).map(lambda rules: [GENERAL, *rules])
prompts = st.builds(
    Prompt,
    id=st.just("p-1"),
    name=words,
    text=st.lists(st.sampled_from(["{{>tone-1@2}}", "{{> rules }}", "{{>gone-1}}", "{{>>p}}", "x", "{{"])).map("".join),
    slug=st.none() | words,
    collection=st.none() | st.sampled_from(["c-support", "c-sales", "c-lonely", "c-twin", "c-9", "d-1"]),
    model=st.none() | words,
    provider=st.none() | words,
    parameters=st.dictionaries(st.sampled_from(["a", "who", "c.d"]), st.just({"b": [1]}) | st.integers(), max_size=3),
    tools=st.none() | st.just([{"x": 1}]),
    raw=st.booleans(),
    variables=st.sampled_from([(), ("who",)]),
)
all_ends = st.sampled_from(
    [SAME, APART, BLIND, Ends(same=False, source=Catalog(), target=TARGET), Ends(True, Catalog(), Catalog())]
)


@given(prompts, rule_lists, all_ends)
def test_rewrite_never_changes_its_input(prompt: Prompt, rules: list[Rule], ends: Ends) -> None:
    before = copy.deepcopy((prompt, rules, ends))
    rewrite(prompt, rules, ends, FIELDS)
    assert (prompt, rules, ends) == before


@given(prompts, rule_lists, all_ends)
def test_place_agrees_with_rewrite(prompt: Prompt, rules: list[Rule], ends: Ends) -> None:
    placement = place(as_row(prompt), rules, ends)
    done = rewrite(prompt, rules, ends, FIELDS)
    if placement is None:
        assert any(rule.when.has for rule in rules)
    else:
        assert placement == Placement(done.prompt.name, done.prompt.collection)


@given(prompts, st.booleans())
def test_without_rules_only_the_name_changes(prompt: Prompt, known: bool) -> None:
    ends = SAME if known else Ends(same=True, source=Catalog(), target=Catalog())
    done = rewrite(prompt, [GENERAL], ends, FIELDS)
    name = f"{prompt.name}-replica"
    assert done == Rewritten(prompt, replace(prompt, name=name), (), (), ())
    assert done.changes == (Change("name", prompt.name, name),)


@given(prompts, rule_lists, all_ends)
def test_the_text_is_the_same_but_for_the_slugs_in_partial_tags(prompt: Prompt, rules: list[Rule], ends: Ends) -> None:
    done = rewrite(prompt, rules, ends, FIELDS)
    slug = re.compile(r"(?<=\{\{>)( ?)[a-z0-9-]+")
    assert slug.sub(r"\1_", done.prompt.text) == slug.sub(r"\1_", prompt.text)
    assert ("string" in {change.field for change in done.changes}) == (done.prompt.text != prompt.text)


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_without_partials_arrives_byte_for_byte(text: str) -> None:
    text = text.replace(">", "")
    assert rewrite(replace(PROMPT, text=text), [GENERAL], APART, FIELDS).prompt.text == text


def real_texts() -> Sequence[str]:
    path = Path(__file__).resolve().parents[3] / "shared" / "data" / "real-prompts.jsonl"
    if not path.exists():
        pytest.skip("the file of real prompts is not beside the checkout")
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [one["template"] if one["kind"] == "text" else json.dumps(one["messages"]) for one in found]


def test_real_prompts_keep_every_byte_and_every_partial_is_accounted_for() -> None:
    texts = real_texts()
    assert len(texts) > 500
    for text in texts:
        done = rewrite(replace(PROMPT, text=text), [GENERAL], APART, FIELDS)
        assert done.prompt.text == text
        assert all(sentence.startswith("partial '") for sentence in done.missing)
