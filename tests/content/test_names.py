"""Names: which a registry takes, and what a slug makes of those that it does not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.connectors.conductor.dialect import NAMES as CONDUCTOR
from engine.content.references import Ends
from engine.content.rewrite import clashes, place, rewrite
from engine.model import Catalog, Prompt, Row, Rule, When
from engine.model.dialect import Dialect, NameRule
from tests.content.test_rewrite import FIELDS

WORDS = NameRule(says="Words takes letters, digits, _ . and -", takes=re.compile(r"[A-Za-z0-9_.-]+").fullmatch)
LOWER = NameRule(
    says="Lower takes small letters, digits, _ and -, and ends with none of these two",
    takes=re.compile(r"[a-z0-9]([_a-z0-9-]*[a-z0-9])?").fullmatch,
)
FOLDERS = NameRule(
    says="Folders takes anything but | and //",
    takes=lambda name: name != "" and "|" not in name and "//" not in name,
)
RULES = {"conductor": CONDUCTOR, "words": WORDS, "lower": LOWER, "folders": FOLDERS}


def ends(rule: NameRule | None, dialect: Dialect | None = None) -> Ends:
    return Ends(same=False, source=Catalog(), target=Catalog(), names=rule, dialect=dialect)


def named(name: str, template: str, rule: NameRule | None, **fields: Any) -> str:
    """What the replica is called, the same from the definition and from the row."""
    prompt = Prompt(id="p", name=name, text="", **fields)
    after = rewrite(prompt, [Rule(name=template)], ends(rule), FIELDS).prompt.name
    placed = place(Row(id="p", name=name, whole=True, model=prompt.model), [Rule(name=template)], ends(rule))
    assert placed is not None
    assert placed.name == after
    return after


@pytest.mark.parametrize(
    ("name", "rule", "slug"),
    [
        ("Support Reply", WORDS, "support-reply"),
        ("Support / Reply: v2", WORDS, "support-reply-v2"),
        ("a_b.c", WORDS, "a_b.c"),
        ("a_b.c", LOWER, "a_b-c"),
        ("_Größe_", LOWER, "gr-e"),
        ("_a", LOWER, "a"),
        ("--A--b--", LOWER, "a-b"),
        ("team/Reply|x", FOLDERS, "team/reply-x"),
        ("team/Reply", CONDUCTOR, "team-reply"),
        (" Team Reply\\x ", CONDUCTOR, "team reply-x"),
        ("Any / Name", None, "any / name"),
        ("--Any--Name-", None, "any-name"),
        ("!!!", WORDS, ""),
    ],
)
def test_a_slug(name: str, rule: NameRule | None, slug: str) -> None:
    assert named(name, "{name|slug}", rule) == slug


def test_each_placeholder_has_its_own_filter() -> None:
    assert (
        named("A B", "X {name|slug} {model|slug}-{id|slug} {slug|slug}{name}", WORDS, model="GPT 4")
        == "X a-b gpt-4-p A B"
    )


@pytest.mark.parametrize("name", ["{name|slug}", "{name|slug", "|slug}"])
def test_what_stands_in_a_value_is_no_placeholder(name: str) -> None:
    assert named(name, "{name}", WORDS) == name


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@given(name=st.text(max_size=8) | st.text("aB/_-. |:", max_size=8))
@example(name="İ")
def test_a_slug_is_taken_or_empty_and_its_own_slug(rule: NameRule, name: str) -> None:
    slug = rule.slug(name)
    # what a rule says of a name as a whole no character can mend: it is refused in the plan
    assert slug == "" or rule.takes(slug) or slug in (".", "..") or "//" in slug
    assert rule.slug(slug) == slug
    assert "--" not in slug


@pytest.mark.parametrize(
    ("name", "rule"), [("a/b", CONDUCTOR), (" a", CONDUCTOR), ("a b", WORDS), ("", WORDS), ("A", LOWER)]
)
def test_a_name_that_is_not_taken_is_refused_with_what_to_do(name: str, rule: NameRule) -> None:
    done = rewrite(Prompt(id="p", name=name, text=""), [Rule(name="{name}")], ends(rule), FIELDS)
    (why,) = done.refused
    assert repr(name) in why
    assert rule.says in why
    assert "{name|slug}" in why


def test_any_name_is_taken_where_there_is_no_rule_and_every_name_that_the_rule_takes() -> None:
    for name, rule in (("a/b", None), ("a b", CONDUCTOR), ("A.b", WORDS), ("a", LOWER)):
        assert rewrite(Prompt(id="p", name=name, text=""), [], ends(rule), FIELDS).refused == ()


def test_two_prompts_that_meet_under_one_slug_clash() -> None:
    several = [Row(id=str(number), name=name) for number, name in enumerate(["A b", "a/b", "a.b", "other"])]
    placed = [(row, place(row, [Rule(name="{name|slug}")], ends(LOWER))) for row in several]
    assert clashes((row, where) for row, where in placed if where is not None) == {"0", "1", "2"}
    assert clashes(((row, where) for row, where in placed if where is not None), twins=False) == {"0", "1", "2"}


def test_a_filter_asks_for_what_the_row_does_not_tell_as_the_bare_name_does() -> None:
    for template in ("{model}", "{model|slug}", "{collection|slug}"):
        assert place(Row(id="p", name="n"), [Rule(name=template)], ends(None)) is None
    rules = [Rule(name="{name|slug}"), Rule(when=When(name="x*"), name="{model|slug}")]
    placed = place(Row(id="p", name="N"), rules, ends(None))
    assert placed is not None
    assert placed.name == "n"
