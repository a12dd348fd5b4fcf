from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from engine.connectors import DIALECTS
from engine.connectors.memory import Memory
from engine.content.references import Ends
from engine.content.rewrite import Change, Placement, Rewritten, clashes, free_name, place, rewrite
from engine.model import Catalog, Clamp, Named, ParameterRules, Prompt, Row, Rule, When

FIELDS = frozenset(Prompt.__dataclass_fields__) - {"extra"}
GENERAL = Rule(name="{name}-replica")
SOURCE = Catalog(
    collections=[
        Named(id="c-1", slug="support", name="Support Team"),
        Named(id="c-2", slug="sales-old", name="Sales"),
        Named(id="c-3", slug="lonely", name="Lonely"),
        Named(id="c-4", slug="twin-0", name="Twin"),
    ],
    providers=[Named(id="v-1", slug="anthropic", name="Anthropic"), Named(id="v-2", slug="azure-a", name="Azure")],
    partials=[
        Named(id="q-1", slug="tone-1", name="Tone"),
        Named(id="q-2", slug="rules", name="Rules"),
        Named(id="q-3", slug="gone-1", name="Gone"),
    ],
)
TARGET = Catalog(
    collections=[
        Named(id="d-1", slug="support", name="Anything"),
        Named(id="d-2", slug="sales-new", name="Sales"),
        Named(id="d-4", slug="twin-1", name="Twin"),
        Named(id="d-5", slug="twin-2", name="Twin"),
    ],
    providers=[Named(id="w-1", slug="anthropic", name="X"), Named(id="w-2", slug="azure-b", name="Azure")],
    partials=[Named(id="r-1", slug="tone-9", name="Tone"), Named(id="r-2", slug="rules", name="Other")],
)
SAME = Ends(same=True, source=SOURCE, target=SOURCE)
APART = Ends(same=False, source=SOURCE, target=TARGET)
BLIND = Ends(same=False, source=SOURCE, target=Catalog())
PROMPT = Prompt(
    id="p-1",
    name="hello",
    text="Hello {{who}}",
    slug="pp-hello",
    collection="c-1",
    model="claude-3-7-sonnet",
    provider="anthropic",
    parameters={"max_tokens": 9000, "thinking": {"budget": 5}, "who": "Ada"},
    description="First",
    variables=["who"],
)


def run(*rules: Rule, ends: Ends = SAME, fields: frozenset[str] = FIELDS, **change: Any) -> Rewritten:
    return rewrite(replace(PROMPT, **change), [GENERAL, *rules], ends, fields)


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


# ---- names, models, descriptions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "change", "name"),
    [
        ("{name}-replica", {}, "hello-replica"),
        ("{id}/{slug}/{model}/{collection}", {}, "p-1/pp-hello/claude-3-7-sonnet/support"),
        ("{collection}", {"collection": "c-unknown"}, "c-unknown"),
        ("[{slug}{model}{collection}]", {"slug": None, "model": None, "collection": None}, "[]"),
        ("{name}-{id}", {"name": "{id}{0}{name!r}"}, "{id}{0}{name!r}-p-1"),
        ("{name}", {"name": "50% {off"}, "50% {off"),
        ("{name}", {"name": r"\1\g<0>"}, r"\1\g<0>"),
        ("plain {other}", {}, "plain {other}"),
    ],
)
def test_name_templates(template: str, change: dict[str, Any], name: str) -> None:
    done = run(Rule(name=template), **change)
    assert done.prompt.name == name
    assert place(as_row(replace(PROMPT, **change)), [GENERAL, Rule(name=template)], SAME) == Placement(
        name, done.prompt.collection
    )


def test_the_model_is_the_first_glob_that_matches_the_source_and_else_kept() -> None:
    rule = Rule(model=(("claude-3-7-*", "new"), ("claude-*", "late"), ("*", "other")))
    assert run(rule).prompt.model == "new"
    assert run(rule, model="claude-2").prompt.model == "late"
    assert run(rule, model=None).prompt.model == "other"
    assert run(Rule(model=(("gpt-*", "new"),))).prompt.model == "claude-3-7-sonnet"
    assert run(rule, Rule(model=(("new", "chained"), ("claude-2", "x")))).prompt.model == "new"
    assert run(rule, Rule(model=(("claude-3-7-sonnet", "last"),))).prompt.model == "last"


@pytest.mark.parametrize(
    ("when", "change", "holds"),
    [
        (When(), {}, True),
        (When(model="*3-7*"), {}, True),
        (When(model="*opus*"), {}, False),
        (When(model="*opus*"), {"model": None}, False),
        (When(name="hel*"), {}, True),
        (When(name="hel"), {}, False),
        (When(collection="c-1"), {}, True),
        (When(collection="supp*"), {}, True),
        (When(collection="Support *"), {}, True),
        (When(collection="sales*"), {}, False),
        (When(collection="sup*"), {"collection": None}, False),
        (When(has=("tools",)), {}, False),
        (When(has=("tools",)), {"tools": []}, False),
        (When(has=("tools",)), {"tools": [{}]}, True),
        (When(has=("tools", "raw")), {"tools": [{}]}, False),
        (When(has=("raw",)), {"raw": True}, True),
        (When(model="*opus*", has=("description",)), {}, False),
    ],
)
def test_a_rule_is_for_the_prompts_that_all_of_when_takes(when: When, change: dict[str, Any], holds: bool) -> None:
    assert run(Rule(when=when, description="Second"), **change).prompt.description == ("Second" if holds else "First")


def test_when_looks_at_the_source_not_at_what_rules_made_of_it() -> None:
    done = run(Rule(model=(("*", "opus"),)), Rule(when=When(model="opus"), description="Second"))
    assert (done.prompt.model, done.prompt.description) == ("opus", "First")


def test_later_rules_override_parameters_follow_one_another_partials_merge() -> None:
    done = run(
        Rule(
            description="Second",
            parameters=ParameterRules(rename=(("max_tokens", "most"),)),
            partials=(("a", "a1"), ("b", "b1")),
        ),
        Rule(
            name="{name}!",
            parameters=ParameterRules(clamp=(("most", Clamp(max=10)),), set=(("who", "x"),)),
            partials=(("b", "b2"),),
        ),
        text="{{>a}}{{>b}}",
        ends=Ends(same=True, source=Catalog(), target=Catalog()),
    )
    assert (done.prompt.name, done.prompt.description, done.prompt.text) == ("hello!", "Second", "{{>a1}}{{>b2}}")
    assert done.prompt.parameters == {"most": 10, "thinking": {"budget": 5}, "who": "Ada"}
    assert done.notes == ("parameters.who is left as it is: 'who' is a variable of the template",)


# ---- collections, providers, partials --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ends", "kept", "becomes"),
    [
        (SAME, "c-3", "c-3"),
        (SAME, "c-unknown", "c-unknown"),
        (APART, None, None),
        (APART, "c-1", "d-1"),
        (APART, "c-2", "d-2"),
        (BLIND, "c-1", "c-1"),
        (Ends(same=False, source=Catalog(), target=TARGET), "d-1", "d-1"),
        (Ends(same=False, source=Catalog(), target=TARGET), "support", "d-1"),
    ],
)
def test_a_kept_collection_is_the_one_of_the_same_slug_else_name(
    ends: Ends, kept: str | None, becomes: str | None
) -> None:
    done = run(ends=ends, collection=kept)
    assert (done.prompt.collection, done.missing) == (becomes, ())


@pytest.mark.parametrize(
    ("chosen", "becomes"), [("d-2", "d-2"), ("sales-new", "d-2"), ("Sales", "d-2"), ("support", "d-1")]
)
def test_a_collection_named_in_a_rule_is_id_slug_or_name_at_the_target(chosen: str, becomes: str) -> None:
    assert run(Rule(collection=(("*", chosen),)), ends=APART).prompt.collection == becomes
    assert run(Rule(collection=(("*", chosen),)), ends=BLIND).prompt.collection == chosen


@pytest.mark.parametrize("glob", ["c-1", "supp*", "Support ?eam", "*"])
def test_collection_globs_match_id_slug_or_name(glob: str) -> None:
    assert run(Rule(collection=((glob, "sales-old"),))).prompt.collection == "c-2"
    assert run(Rule(collection=((glob, "sales-old"),)), collection="c-3").prompt.collection == (
        "c-2" if glob == "*" else "c-3"
    )


@pytest.mark.parametrize(
    ("rule", "change", "sentence"),
    [
        (
            Rule(),
            {"collection": "c-3"},
            "collection 'lonely' is not in the target workspace: create it there, or map it in rewrite.collection",
        ),
        (
            Rule(),
            {"collection": "c-4"},
            "collection 'twin-0' is ambiguous, 2 collections of that name are in the target workspace: "
            "give the slug of one in rewrite.collection",
        ),
        (
            Rule(),
            {"collection": "c-unknown"},
            "collection 'c-unknown' is not in the target workspace: create it there, or map it in rewrite.collection",
        ),
        (
            Rule(collection=(("*", "nowhere"),)),
            {},
            "collection 'nowhere' is not in the target workspace: create it there, or mend rewrite.collection",
        ),
        (
            Rule(collection=(("*", "Twin"),)),
            {},
            "collection 'Twin' is ambiguous, 2 collections of that name are in the target workspace: "
            "give the slug of one in rewrite.collection",
        ),
        (
            Rule(),
            {"provider": "openai"},
            "provider 'openai' is not in the target workspace: create it there, or map it in rewrite.provider",
        ),
        (
            Rule(provider=(("*", "nowhere"),)),
            {},
            "provider 'nowhere' is not in the target workspace: create it there, or mend rewrite.provider",
        ),
        (
            Rule(),
            {"text": "{{>gone-1}}"},
            "partial 'gone-1' is not in the target workspace: create it there, or map it in rewrite.partials",
        ),
        (
            Rule(partials=(("tone-1", "nowhere"),)),
            {"text": "{{>tone-1}}"},
            "partial 'nowhere' is not in the target workspace: create it there, or mend rewrite.partials",
        ),
    ],
)
def test_what_is_not_at_the_target_is_missing_by_name_and_left_as_it_is(
    rule: Rule, change: dict[str, Any], sentence: str
) -> None:
    done = run(rule, ends=APART, **change)
    assert done.missing == (sentence,)
    source = replace(PROMPT, **{"collection": "d-1", **change}) if "collection" in change else replace(PROMPT, **change)
    field = sentence.split()[0].replace("partial", "text")
    assert getattr(done.prompt, field) == getattr(source, field)


def test_a_slug_goes_before_a_name_and_an_id_before_both() -> None:
    target = Catalog(collections=[Named(id="x", slug="y", name="z"), Named(id="y", slug="z", name="x")])
    ends = Ends(same=True, source=target, target=target)
    assert [run(Rule(collection=(("*", text),)), ends=ends).prompt.collection for text in "xyz"] == ["x", "y", "y"]


@pytest.mark.parametrize(
    ("ends", "kept", "becomes"),
    [(SAME, "any", "any"), (APART, "anthropic", "anthropic"), (APART, "azure-a", "azure-b"), (APART, None, None)],
)
def test_a_kept_provider_is_the_one_of_the_same_slug_else_name(
    ends: Ends, kept: str | None, becomes: str | None
) -> None:
    done = run(ends=ends, provider=kept)
    assert (done.prompt.provider, done.missing) == (becomes, ())


def test_provider_maps_go_by_slug() -> None:
    rule = Rule(provider=(("azure-*", "anthropic"), ("*", "Azure")))
    assert run(rule, ends=APART, provider="azure-a").prompt.provider == "anthropic"
    assert run(rule, ends=APART, provider="other").prompt.provider == "azure-b"
    assert run(rule, ends=BLIND, provider=None).prompt.provider == "Azure"


def test_what_cannot_be_looked_up_is_noted_and_partials_are_missing() -> None:
    done = run(Rule(partials=(("b", "b2"),)), ends=BLIND, text="{{>a}}{{>b}}")
    assert done.notes == (
        "collection 'c-1' is kept unchecked: the target's collections are not known",
        "provider 'anthropic' is kept unchecked: the target's providers are not known",
    )
    assert done.missing == (
        "partial 'a' cannot be looked up in the target workspace: "
        "map it in rewrite.partials, or use a key that may list partials",
    )
    assert done.prompt.text == "{{>a}}{{>b2}}"


def test_what_has_no_place_at_the_target_is_a_loss_and_not_missing() -> None:
    fields = FIELDS - {"collection", "provider"}
    apart = run(ends=APART, fields=fields, collection="c-3", provider="openai")
    assert (apart.missing, apart.losses) == ((), ("collection", "provider"))
    assert run(ends=BLIND, fields=fields).notes == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{{>tone-1}}", "{{>tone-9}}"),
        ("a {{ > tone-1 @5 }} b\r\n\x00\ud800", "a {{ > tone-9 @5 }} b\r\n\x00\ud800"),
        ("{{> tone-1@latest}}{{>tone-1}}", "{{> tone-9@latest}}{{>tone-9}}"),
        ("{{>\n\ttone-1\n}}", "{{>\n\ttone-9\n}}"),
        ("{{>rules}}", "{{>rules}}"),
        ("{{>q-1}}", "{{>tone-9}}"),
        ("{{>>tone-1}} {{>> Tone}} {{> >Tone}}", "{{>>tone-1}} {{>> Tone}} {{> >Tone}}"),
        ("{{tone-1}} {>tone-1} {{#tone-1}}{{/tone-1}} {{!> tone-1}}",) * 2,
        ("{{>tone-1", "{{>tone-1"),
        ('[{"content":"{{>tone-1}}\\n \\u00e9"}]', '[{"content":"{{>tone-9}}\\n \\u00e9"}]'),
    ],
)
def test_the_text_changes_at_partial_tags_only(before: str, after: str) -> None:
    done = run(ends=APART, text=before)
    assert (done.prompt.text, done.missing) == (after, ())
    assert run(ends=SAME, text=before).prompt.text == before


WITHOUT_PARTIALS = [
    name for name, one in DIALECTS.items() if "partials" not in {two.name for two in one.grammar.constructs}
]


@pytest.mark.parametrize("dialect", WITHOUT_PARTIALS)
def test_what_is_a_partial_in_another_grammar_is_text(dialect: str) -> None:
    ends = replace(APART, dialects=DIALECTS)
    rules = (Rule(partials=(("tone-1", "rules"),)), Rule(when=When(has=("partials",)), model=(("*", "new"),)))
    done = run(*rules, ends=ends, text="a {{>tone-1}} and {{>gone-1}}", dialect=dialect)
    assert (done.prompt.text, done.prompt.model) == ("a {{>tone-1}} and {{>gone-1}}", "claude-3-7-sonnet")
    assert done.missing == ()


@pytest.mark.parametrize(
    ("ends", "rule", "notes"),
    [
        (APART, Rule(), ("partial 'tone-1' is pinned to @5: the versions of 'tone-9' may be numbered otherwise",)),
        (SAME, Rule(), ()),
        (
            SAME,
            Rule(partials=(("tone-1", "rules"),)),
            ("partial 'tone-1' is pinned to @5: the versions of 'rules' may be numbered otherwise",),
        ),
    ],
)
def test_pinned_partials_are_noted(ends: Ends, rule: Rule, notes: tuple[str, ...]) -> None:
    assert run(rule, ends=ends, text="{{>tone-1@5}} {{>tone-1@5}}").notes == notes


def test_a_pinned_partial_of_the_same_slug_elsewhere_is_noted_and_a_missing_one_is_not() -> None:
    note = "partial 'rules' is pinned to @3: the versions of 'rules' may be numbered otherwise"
    assert run(ends=APART, text="{{>rules@3}} {{>gone-1@4}}").notes == (note,)


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_changes_are_told_by_the_names_users_know_and_the_text_by_digest_only() -> None:
    done = run(
        Rule(
            model=(("*", "new"),),
            provider=(("*", "azure-b"),),
            description="Second",
            parameters=ParameterRules(drop=("thinking.budget",), set=(("top_k", 40), ("nothing", None))),
        ),
        ends=APART,
        text="{{>tone-1}} secret",
    )
    assert done.changes == (
        Change("name", "hello", "hello-replica"),
        Change("model", "claude-3-7-sonnet", "new"),
        Change("provider", "anthropic", "azure-b"),
        Change("collection", "c-1", "d-1"),
        Change("string", "sha256:0eae73e4", "sha256:42b3c25c"),
        Change("parameters.thinking.budget", 5, None),
        Change("parameters.top_k", None, 40),
        Change("version_description", "First", "Second"),
    )
    assert "secret" not in repr(done)


@pytest.mark.parametrize(
    ("rule", "row", "known"),
    [
        (Rule(when=When(model="claude*"), name="x"), {"model": None}, False),
        (Rule(when=When(model="claude*"), collection=(("*", "sales"),)), {"model": None}, False),
        (Rule(name="{model}"), {"model": None}, False),
        (Rule(name="{collection}"), {"collection": None}, False),
        (Rule(when=When(collection="supp*"), name="x"), {"collection": None}, False),
        (Rule(collection=(("supp*", "sales"),)), {"collection": None}, False),
        (Rule(collection=(("*", "sales"),)), {"collection": None, "model": None}, True),
        (Rule(when=When(model="claude*", name="other"), name="x"), {"model": None}, True),
        (Rule(when=When(model="claude*"), model=(("*", "new"),)), {"model": None}, True),
        (Rule(when=When(model="claude*"), name="x"), {"model": None, "whole": True}, True),
        (Rule(name="{name}"), {"model": None, "collection": None}, True),
    ],
)
def test_where_a_row_does_not_tell_what_a_rule_asks_the_definition_is_needed(
    rule: Rule, row: dict[str, Any], known: bool
) -> None:
    assert (place(as_row(PROMPT)._replace(**{"whole": False, **row}), [GENERAL, rule], SAME) is not None) is known


def test_tools_are_dropped_as_parameters_are_and_told_without_their_texts() -> None:
    tools: dict[str, Any] = {"tools": [{"name": "secret"}], "tool_choice": "auto", "functions": [{"name": "f"}]}
    rule = Rule(parameters=ParameterRules(drop=("tools", "tool_choice")))
    done = run(rule, **tools)
    assert (done.prompt.tools, done.prompt.tool_choice, done.prompt.functions) == (None, None, [{"name": "f"}])
    assert [(change.field, change.after) for change in done.changes[1:]] == [("tools", None), ("tool_choice", None)]
    assert "secret" not in repr(done.changes)
    # a parameter of that name is what is meant, where there is one
    own = run(rule, parameters={"tools": 1}, **tools)
    assert (own.prompt.tools, "tools" in own.prompt.parameters) == ([{"name": "secret"}], False)
    assert run(Rule(parameters=ParameterRules(drop=("tools.name",))), **tools).prompt.tools == [{"name": "secret"}]


def test_losses_are_what_has_a_value_and_no_place() -> None:
    fields = FIELDS - {"tools", "functions", "raw", "description", "metadata", "extra", "notes", "slug", "version"}
    full: dict[str, Any] = {
        "tools": [{}],
        "raw": True,
        "metadata": {"a": 1},
        "extra": {"zeta": 0, "alpha": [1]},
    }
    assert run(fields=fields, version="3", **full).losses == (
        "alpha",
        "metadata",
        "raw",
        "tools",
        "version_description",
        "zeta",
    )
    assert run(fields=FIELDS, **full).losses == ("alpha", "zeta")
    assert run(fields=fields, description=None, functions=[], metadata={"promptferry": {"key": "k"}}).losses == ()


def test_the_notes_of_the_source_come_first() -> None:
    assert run(ends=BLIND, provider=None, notes=["label production is not copied"]).notes == (
        "label production is not copied",
        "collection 'c-1' is kept unchecked: the target's collections are not known",
    )


# ---- places, clashes, free names -------------------------------------------------------------------------------------


def test_no_place_from_a_row_when_what_the_prompt_has_may_decide() -> None:
    tools = Rule(when=When(has=("tools",), model="claude*"), name="{name}-tools")
    assert place(as_row(PROMPT), [GENERAL, tools], SAME) is None
    assert place(as_row(PROMPT)._replace(model="gpt"), [GENERAL, tools], SAME) == Placement("hello-replica", "c-1")
    assert place(as_row(PROMPT), [GENERAL, replace(tools, name=None, collection=(("*", "sales"),))], SAME) is None
    other = replace(tools, name=None, model=(("*", "new"),))
    assert place(as_row(PROMPT), [GENERAL, other], SAME) == Placement("hello-replica", "c-1")


def rows(*placed: tuple[str, str, str, str | None]) -> list[tuple[Row, Placement]]:
    return [(Row(id=id_, name=own), Placement(name, collection)) for id_, own, name, collection in placed]


@pytest.mark.parametrize(
    ("placed", "clashing"),
    [
        (rows(("1", "a", "x", "c"), ("2", "b", "x", "c"), ("3", "b", "y", "c")), {"1", "2"}),
        (rows(("1", "a", "x", "c"), ("2", "b", "x", "d"), ("3", "b", "x", None)), set()),
        (rows(("1", "a", "x", None), ("2", "b", "x", None)), {"1", "2"}),
        (rows(("1", "a", "x", "c"), ("2", "a", "x", "c")), set()),
        (rows(("1", "a", "x", "c"), ("2", "a", "x", "c"), ("3", "b", "x", "c")), {"1", "2", "3"}),
        ([], set()),
    ],
)
def test_clashes(placed: list[tuple[Row, Placement]], clashing: set[str]) -> None:
    assert clashes(iter(placed)) == clashing


def test_free_name() -> None:
    assert free_name("a", {"a"}) == "a-2"
    assert free_name("a", {"a", "a-2", "a-4"}) == "a-3"


@pytest.mark.parametrize(("text", "model"), [("Hi {{> tone@3 }}", "new"), ("Hi {{>>Private}} {{tone}}", "old")])
def test_a_rule_for_prompts_that_have_partials(text: str, model: str) -> None:
    rules = (Rule(name="{name}"), Rule(when=When(has=("partials",)), model=(("*", "new"),)))
    one = Prompt(id="p", name="P", text=text, model="old")
    ends = Ends(same=True, source=Catalog(), target=Catalog())
    assert rewrite(one, rules, ends, Memory.fields).prompt.model == model
