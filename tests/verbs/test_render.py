"""A replica that asks its model for something else than its source is found, and nothing of either is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.content.references import Ends
from engine.content.rewrite import rewrite
from engine.errors import Gone, Rejected, Stop, Transient
from engine.model import Catalog, Choice, Completion, Json, Named, ParameterRules, Prompt, Reply, Rule, Sending
from engine.verbs.cases import Case
from engine.verbs.render import Rendered, compare, may_differ_of

CANARY = "Canary words that nobody else may read"
MESSAGES = [{"role": "user", "content": CANARY}]
BASE: dict[str, Any] = {"messages": MESSAGES, "model": "m1", "max_tokens": 9, "n": 1, "tools": [{"type": "function"}]}
ONE = [Case("p1", {"a": 1})]


class Renders:
    """A gateway that renders what it is told to, by the value of `a`; an error is raised."""

    def __init__(self, *answers: Mapping[str, Json] | Exception) -> None:
        self.answers = answers
        self.asked: list[tuple[str, Mapping[str, Json]]] = []

    async def render(self, ref: str, variables: Mapping[str, Json]) -> Mapping[str, Json]:
        self.asked.append((ref, variables))
        number: int = variables["a"]
        answer = self.answers[number - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask(self, ref: str, variables: Mapping[str, Json], *, stream: bool, sending: Sending) -> Reply:
        raise AssertionError("no answer was asked for")

    async def complete(
        self, ref: str, variables: Mapping[str, Json], *, stream: bool, overrides: Mapping[str, Json]
    ) -> Completion:
        raise AssertionError("a render costs nothing")


async def compared(
    before: Mapping[str, Json] | Exception, after: Mapping[str, Json] | Exception, *may_differ: str
) -> Rendered:
    return await compare(Renders(before), Renders(after), "p1@3", "t1@latest", ONE, may_differ)


async def test_both_are_rendered_with_the_same_values() -> None:
    source, target = Renders(BASE), Renders(BASE)
    assert await compare(source, target, "p1@3", "t1@latest", ONE, ()) == Rendered((), None)
    assert (source.asked, target.asked) == ([("p1@3", {"a": 1})], [("t1@latest", {"a": 1})])


DIFFERENT: dict[str, tuple[dict[str, Any], str]] = {
    "a text": ({"messages": [{"role": "user", "content": CANARY + " "}]}, "render.messages"),
    "a message more": ({"messages": [*MESSAGES, *MESSAGES]}, "render.messages"),
    "true for one": ({"n": True}, "render.n"),
    "another number": ({"max_tokens": 8}, "render.max_tokens"),
    "another model": ({"model": "m2"}, "render.model"),
    "inside a tool": ({"tools": [{"type": "function", "x": None}]}, "render.tools"),
    "one more": ({"top_p": 1}, "render.top_p"),
    "one less": ({"max_tokens": None}, "render.max_tokens"),
    "a prompt as well": ({"prompt": CANARY}, "render.prompt"),
}


@pytest.mark.parametrize("kind", DIFFERENT)
async def test_whatever_differs_has_a_field(kind: str) -> None:
    changes, field = DIFFERENT[kind]
    assert (await compared(BASE, BASE | changes)).fields == (field,)
    assert (await compared(BASE | changes, BASE)).fields == (field,)


async def test_null_is_as_good_as_nothing_and_order_is_nothing() -> None:
    backwards = dict(reversed([*BASE.items()]))
    assert (await compared(BASE, backwards | {"seed": None, "max_tokens": 9.0})).fields == ()


async def test_fields_are_sorted() -> None:
    after = {"prompt": "x", "model": "m2", "b": 1, "a": 1, "n": 1, "max_tokens": 9, "tools": BASE["tools"]}
    fields = (await compared(BASE, after)).fields
    assert fields == ("render.a", "render.b", "render.messages", "render.model", "render.prompt")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("model", "model"),
        ("tools", "tools"),
        ("parameters.max_tokens", "max_tokens"),
        ("parameters.thinking.budget", "thinking"),
        ("parameters.a.b", "a.b"),
    ],
)
async def test_what_the_rules_changed_may_differ(name: str, key: str) -> None:
    assert (await compared(BASE, BASE | {key: "new"}, name)).fields == ()
    assert (await compared(BASE, BASE | {key: "new"}, "parameters.o", f"parameters.{key}x")).fields == (
        f"render.{key}",
    )


async def test_the_text_never_may_differ() -> None:
    after = {"messages": [], "prompt": "x"}
    fields = (await compared({"messages": MESSAGES}, after, "messages", "prompt", "parameters.prompt")).fields
    assert fields == ("render.messages", "render.prompt")


# ---- what cannot be rendered -----------------------------------------------------------------------------------------

REFUSED = Rejected("The source (a.test) answered render with 400 AB01.", error="rejected", status=400)


@pytest.mark.parametrize("error", [REFUSED, Gone("It is gone.", error="gone", status=404)])
async def test_a_source_that_cannot_be_rendered_is_a_problem_and_no_difference(error: Rejected) -> None:
    target = Renders(BASE)
    found = await compare(Renders(error), target, "p1", "t1", ONE, ())
    assert found.fields == ()
    assert found.problem is not None
    assert "verify.cases" in found.problem
    assert str(error) in found.problem
    assert target.asked == []


async def test_a_replica_that_cannot_be_rendered_differs() -> None:
    assert await compared(BASE, REFUSED) == Rendered(("render",), None)


@pytest.mark.parametrize("error", [Stop("quota", "No.", next="Pay."), Transient("Not now.", error="unavailable")])
async def test_an_end_that_gives_no_answer_is_no_verdict(error: Exception) -> None:
    for before, after in ((error, BASE), (BASE, error)):
        with pytest.raises(type(error)):
            await compared(before, after)


async def test_several_cases_each_with_its_label() -> None:
    cases = [
        *(Case("p1", {"a": 1}), Case("p1", {"a": 2}, "empty cart"), Case("p1", {"a": 3}, "no user")),
        *(Case("p1", {"a": 4}), Case("p1", {"a": 5}), Case("p1", {"a": 6}, "late")),
    ]
    other = BASE | {"messages": []}
    before = Renders(BASE, BASE, REFUSED, BASE, BASE, REFUSED)
    after = Renders(other, other | {"x": 1}, BASE, REFUSED, other, BASE)
    found = await compare(before, after, "p1", "t1", cases, ())
    assert found.fields == ("render", "render.messages", "render.messages [empty cart]", "render.x [empty cart]")
    assert found.problem is not None
    assert "[no user]" in found.problem
    assert "[late]" not in found.problem
    assert CANARY not in repr(found)


# ---- what may differ -------------------------------------------------------------------------------------------------

PROVIDERS = (Named(id="v1", slug="old", name="Old"), Named(id="v2", slug="new", name="New"))
ENDS = Ends(same=True, source=Catalog(providers=PROVIDERS), target=Catalog(providers=PROVIDERS))


def allowed(**rules: Any) -> frozenset[str]:
    parameters = {"max_tokens": 9, "thinking": {"budget": 1}}
    prompt = Prompt(id="p1", name="n", text="t", model="m1", provider="old", parameters=parameters)
    return may_differ_of(rewrite(prompt, [Rule(**rules)], ENDS, Memory.fields))


def anything(value: str) -> Choice:
    return (("*", value),)


def test_what_may_differ_is_what_the_rules_changed() -> None:
    assert allowed() == frozenset()
    assert allowed(name="{name}-replica", model=anything("m2")) == {"name", "model"}
    assert allowed(provider=anything("new")) == {"provider", "virtual_key"}


def test_a_renamed_parameter_may_go_and_come() -> None:
    rules = ParameterRules(rename=(("max_tokens", "max_completion_tokens"),), set=(("thinking.budget", 2),))
    assert allowed(parameters=rules) == {
        "parameters.max_tokens",
        "parameters.max_completion_tokens",
        "parameters.thinking.budget",
    }
