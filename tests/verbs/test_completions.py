"""Which prompts are called, in which ways, and what is told of those that gave no answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import Stop
from engine.model import Completion, Json, Reply, Sending
from engine.verbs.completions import CALLS_EACH, call, differs, spread


class Answers:
    """A gateway that answers all but the calls whose number is in `fail`; or raises."""

    def __init__(self, *fail: int, stop: Stop | None = None) -> None:
        self.fail = fail
        self.stop = stop
        self.calls: list[tuple[str, Mapping[str, Json], bool, Mapping[str, Json]]] = []

    async def render(self, ref: str, variables: Mapping[str, Json]) -> Mapping[str, Json]:
        raise AssertionError("no render was asked for")

    async def ask(self, ref: str, variables: Mapping[str, Json], *, stream: bool, sending: Sending) -> Reply:
        raise AssertionError("no answer was asked for")

    async def complete(
        self, ref: str, variables: Mapping[str, Json], *, stream: bool, overrides: Mapping[str, Json]
    ) -> Completion:
        self.calls.append((ref, variables, stream, overrides))
        if self.stop is not None:
            raise self.stop
        how = ("streamed" if stream else "plain") + ref.removeprefix("t1").replace("@", " @")
        return Completion(how=how, answered=len(self.calls) not in self.fail, seconds=0.0)


async def test_the_four_ways_of_a_call() -> None:
    gateway = Answers()
    found = await call(gateway, "t1", "3", {"a": 1}, {})
    assert gateway.calls == [
        ("t1", {"a": 1}, False, {}),
        ("t1", {"a": 1}, True, {}),
        ("t1@3", {"a": 1}, False, {}),
        ("t1@latest", {"a": 1}, True, {"max_tokens": 16}),
    ]
    assert len(found) == CALLS_EACH
    assert differs(found) == ()


@pytest.mark.parametrize(
    ("parameters", "override"),
    [
        ({"max_tokens": 900}, {"max_tokens": 16}),
        ({"max_completion_tokens": 900}, {"max_completion_tokens": 16}),
        ({"max_tokens": 8192, "thinking": {"type": "enabled", "budget_tokens": 2048}}, {"max_tokens": 8192}),
        ({"reasoning_effort": "low"}, {}),
    ],
)
async def test_an_answer_is_made_short_where_the_model_takes_that(
    parameters: dict[str, Json], override: dict[str, Json]
) -> None:
    gateway = Answers()
    await call(gateway, "t1", None, {}, parameters)
    assert gateway.calls[-1] == ("t1@latest", {}, True, override)


async def test_a_prompt_without_a_known_version_is_called_in_three_ways() -> None:
    gateway = Answers()
    await call(gateway, "t1", None, {}, {})
    assert [(ref, stream) for ref, _, stream, _ in gateway.calls] == [("t1", False), ("t1", True), ("t1@latest", True)]


async def test_what_was_not_answered_is_told_by_how_it_was_asked() -> None:
    assert differs(await call(Answers(1, 4), "t1", "3", {}, {})) == (
        "completions.plain",
        "completions.streamed @latest",
    )
    assert differs(await call(Answers(2, 3), "t1", "3", {}, {})) == ("completions.streamed", "completions.plain @3")


async def test_a_stop_ends_the_calls() -> None:
    gateway = Answers(stop=Stop("quota", "No.", next="Pay."))
    with pytest.raises(Stop):
        await call(gateway, "t1", "3", {}, {})
    assert len(gateway.calls) == 1


# ---- which prompts ---------------------------------------------------------------------------------------------------


def test_the_models_take_turns_and_the_one_with_most_prompts_begins() -> None:
    items = [("a", "m1"), ("b", None), ("c", "m2"), ("d", "m2"), ("e", "m2"), ("f", "m1")]
    assert spread(items, 3) == ["c", "a", "b"]
    assert spread(items, 5) == ["c", "a", "b", "d", "f"]
    assert spread(items, 99) == ["c", "a", "b", "d", "f", "e"]
    assert spread(items, 0) == spread([], 3) == []


models = st.sampled_from([None, "", "m1", "m2", "m3"])
prompts: Any = st.dictionaries(st.text(max_size=3), models, max_size=30).map(lambda found: list(found.items()))


@given(prompts, st.integers(0, 35), st.randoms(use_true_random=False))
def test_no_model_has_two_more_than_another_that_has_prompts_left(
    items: list[tuple[str, str | None]], count: int, random: Any
) -> None:
    picked = spread(items, count)
    assert len(picked) == len(set(picked)) == min(count, len(items))
    model_of = {prompt_id: model or "" for prompt_id, model in items}
    of_model = Counter(model_of[prompt_id] for prompt_id in picked)
    for model in {model_of[prompt_id] for prompt_id in model_of.keys() - set(picked)}:
        assert of_model[model] >= max(of_model.values(), default=0) - 1
    shuffled = list(items)
    random.shuffle(shuffled)
    assert spread(shuffled, count) == picked
