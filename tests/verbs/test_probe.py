"""Which calls a library comes to, which rules mend what is refused of them, and what is told of the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_migration
from engine.errors import Stop, Transient
from engine.migrate.job import Job
from engine.model import Clamp, Completion, Json, ParameterRules, Prompt, Refused, Reply, Rule, Tried
from engine.verbs.check import examine_ends
from engine.verbs.probe.shapes import Kinds, shapes_of
from engine.verbs.probe.trying import Probed, probe
from tests.workspaces import job_of, memory, prompt

TOOL = {"type": "function", "function": {"name": "find_order", "description": "Canary words", "parameters": {}}}
THINKING = {"type": "enabled", "budget_tokens": 2048}
ANSWERED = Tried(answered=True)
LISTED = frozenset({"claude-3-7", "x"})


class Models:
    """Refuses what `refuse` says of a call, counts calls, and lists `listed`."""

    def __init__(self, refuse: Any = lambda call: None, listed: Collection[str] | None = LISTED) -> None:
        self.refuse, self.listed = refuse, listed
        self.calls: list[tuple[str | None, dict[str, Json]]] = []

    async def models(self) -> Collection[str] | None:
        return self.listed

    async def attempt(self, provider: str | None, request: Mapping[str, Json]) -> Tried:
        self.calls.append((provider, dict(request)))
        found = self.refuse(request)
        if isinstance(found, Tried):
            return found
        return ANSWERED if found is None else Tried(answered=False, refused=[found], error="no")

    async def render(self, ref: str, variables: Mapping[str, Json]) -> Mapping[str, Json]:
        raise AssertionError("nothing is rendered")

    async def complete(self, ref: str, variables: Mapping[str, Json], **how: Any) -> Completion:
        raise AssertionError("no prompt is called")

    async def ask(self, ref: str, variables: Mapping[str, Json], **how: Any) -> Reply:
        raise AssertionError("no prompt is called")


def job(*rules: Rule) -> Job:
    return job_of(memory(), rules=rules)


def gathered(given: Job, prompts: Sequence[Prompt]) -> Kinds:
    kinds = Kinds()
    for one in prompts:
        kinds.add(given.rewritten(one))
    return kinds


async def probed(models: Models, *prompts: Prompt, given: Job | None = None, may_call: bool = True) -> Probed:
    async def confirm(what: str, calls: int) -> bool:
        assert str(calls) in what
        return True

    given = given or job()
    kinds = gathered(given, prompts)
    return await probe(given, kinds, models, may_call=may_call, key="gateway_key", confirm=confirm)


def refusing(path: str, why: Any = "unknown", when: Any = lambda call: True, **more: Any) -> Any:
    return lambda call: Refused(path=path, why=why, **more) if path in call and when(call) else None


async def mended(models: Models, *prompts: Prompt, given: Job | None = None) -> tuple[Probed, Probed]:
    """The first probe, and the one with its rules, read back as a migration file has them."""
    given = given or job()
    first = await probed(models, *prompts, given=given)
    models.calls.clear()
    return first, await probed(models, *prompts, given=replace(given, rules=(*given.rules, *as_loaded(first))))


def as_loaded(found: Probed) -> tuple[Rule, ...]:
    """The rules that were written, as a migration file of nothing else has them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "migration.yaml"
        path.write_text(f"name: m\nsource: {{base_url: sandbox}}\n{found.rules}", encoding="utf-8")
        return load_migration(path).rules()[1:]


def told(found: Probed, level: str = "problem") -> list[str]:
    return [f"{one.where}: {one.text} {one.advice}".strip() for one in found.findings() if one.level == level]


# ---- what is said beforehand -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "most", "said"),
    [
        ([{"max_tokens": 9}, {"max_tokens": 9, "top_p": 0}], 2, "2 calls, one for each shape of 2 prompts, will be"),
        ([{}, {"top_p": 0}], 4, "at most 4 calls, one for each shape of 2 prompts and one more where the model has"),
        ([{"max_tokens": 9}, {"top_p": 0}], 3, "at most 3 calls, "),
    ],
)
async def test_no_more_calls_are_made_than_were_said(parameters: list[dict[str, Json]], most: int, said: str) -> None:
    told: list[tuple[str, int]] = []

    async def confirm(what: str, calls: int) -> bool:
        told.append((what, calls))
        return True

    renaming = Models(refusing("max_tokens", "unsupported", instead="max_completion_tokens"))
    library = [prompt(f"{number}", parameters=one) for number, one in enumerate(parameters)]
    found = await probe(job(), gathered(job(), library), renaming, may_call=True, key="k", confirm=confirm)
    ((what, calls),) = told
    assert (what.startswith(said), calls, found.calls) == (True, most, most), what


# ---- shapes ----------------------------------------------------------------------------------------------------------


def shapes(*prompts: Prompt) -> list[Mapping[str, Json]]:
    return [shape.call for shape in shapes_of(gathered(job(), prompts))]


def test_texts_make_no_shape_and_everything_else_does() -> None:
    other = {"type": "function", "function": {**TOOL["function"], "description": "Other", "name": "g"}}  # type: ignore[dict-item]
    alike = [prompt("a", tools=(TOOL,)), prompt("b", text="Bye", tools=(other,), description="x")]
    assert len(shapes(*alike)) == 1
    apart = [
        *alike,
        prompt("c", tools=(TOOL, TOOL)),
        prompt("d", tools=(TOOL,), tool_choice="auto"),
        prompt("e", tools=({**TOOL, "function": {**TOOL["function"], "parameters": {"type": "object"}}},)),  # type: ignore[dict-item]
        prompt("f", tools=({**TOOL, "function": {**TOOL["function"], "name": "no good name"}},)),  # type: ignore[dict-item]
        prompt("g", parameters={"temperature": 0.1}),
        prompt("h", parameters={"temperature": 0.2}),
        prompt("i", model="other"),
        prompt("j", provider="anthropic-prod"),
        prompt("k", parameters={"response_format": {"type": "json_object"}}),
        prompt("l", functions=({"name": "f"},)),
    ]
    assert len(shapes(*apart)) == 11


def test_the_limit_is_one_token_where_that_says_nothing_less() -> None:
    assert [call["max_tokens"] for call in shapes(prompt("a"))] == [1]
    # every model takes as much, so that these are one call
    assert [
        call["max_tokens"] for call in shapes(*(prompt(f"{n}", parameters={"max_tokens": n}) for n in (5, 4096)))
    ] == [1]
    assert [call["max_tokens"] for call in shapes(prompt("a", parameters={"max_tokens": 4097}))] == [4097]
    assert shapes(prompt("a", parameters={"max_tokens": 9, "thinking": THINKING}))[0]["max_tokens"] == 9
    assert shapes(prompt("a", parameters={"thinking": THINKING}))[0]["max_tokens"] == 2049
    assert shapes(prompt("a", parameters={"max_tokens": "many"}))[0]["max_tokens"] == "many"


def test_the_limit_has_the_name_that_prompts_of_the_model_have_for_it() -> None:
    named = prompt("a", parameters={"max_completion_tokens": 9, "top_p": 1})
    for call in shapes(named, prompt("b"), prompt("c", parameters={"top_p": 0})):
        assert call["max_completion_tokens"] == 1
        assert "max_tokens" not in call
    assert "max_tokens" in shapes(named, prompt("b", model="other"))[1]


def test_default_values_of_variables_are_no_parameters() -> None:
    one = prompt(
        "a", parameters={"name": "Ann", "user": {"x": 1}, "top_p": 1}, variables=frozenset({"name", "user.first"})
    )
    assert shapes(one) == [{"top_p": 1, "max_tokens": 1, "model": "claude-3-7"}]


# ---- what is refused, and the rules ----------------------------------------------------------------------------------


async def test_what_a_model_does_not_know_is_dropped_for_the_model() -> None:
    library = [
        prompt("a", parameters={"top_k": 1}),
        prompt("b", parameters={"top_k": 2}),
        prompt("c"),
        prompt("d", model="x"),
    ]
    first, second = await mended(Models(refusing("top_k")), *library)
    assert told(first)[0].startswith(
        "rewrite.parameters: claude-3-7 refuses top_k, which it does not know (2 prompts: a, b)"
    )
    assert "mended by `parameters: {drop: [top_k]}` in a rule for claude-3-7" in told(first)[0]
    (mend,) = first.mends
    assert [rule.parameters for rule in mend.rules] == [ParameterRules(drop=("top_k",))]
    assert not second.mends
    # both came to the same call as `c` by that
    assert len(second.shapes) == 2


async def test_a_number_is_brought_to_its_bound_and_a_name_is_changed() -> None:
    library = [prompt("a", parameters={"max_tokens": 64000}), prompt("b", parameters={"max_tokens": 9000, "top_p": 1})]
    first, second = await mended(
        Models(refusing("max_tokens", "too_large", lambda call: call["max_tokens"] > 8192, bound=8192)), *library
    )
    assert {rule.parameters for mend in first.mends for rule in mend.rules} == {
        ParameterRules(clamp=(("max_tokens", Clamp(max=8192)),))
    }
    assert not second.mends
    first, second = await mended(
        Models(refusing("max_tokens", "unsupported", instead="max_completion_tokens")), *library
    )
    assert "{rename: {max_tokens: max_completion_tokens}}" in told(first)[0]
    assert not second.mends
    low = prompt("a", parameters={"thinking": {"type": "enabled", "budget_tokens": 5}})
    small = Refused(path="thinking.budget_tokens", why="too_small", bound=1024)
    models = Models(lambda call: small if call["thinking"]["budget_tokens"] < 1024 else None)
    first, second = await mended(models, low)
    assert "{clamp: {thinking.budget_tokens: {min: 1024}}}" in told(first)[0]
    assert not second.mends


async def test_tools_go_with_what_chooses_among_them() -> None:
    library = [prompt("a", tools=(TOOL,), tool_choice="auto"), prompt("b", tools=(TOOL,)), prompt("c")]
    first, second = await mended(Models(refusing("tools", "unsupported")), *library)
    assert all("if they can do without tools; else name another model for them" in line for line in told(first))
    assert not second.mends
    assert all("tool_choice" not in call and "tools" not in call for _, call in models_called(second))


def models_called(found: Probed) -> list[tuple[str | None, Mapping[str, Json]]]:
    return [(shape.provider, shape.call) for shape in found.shapes]


async def test_a_rule_changes_no_prompt_that_is_answered() -> None:
    """Temperature is only refused beside thinking: a rule for the model would take it from all others."""
    thinks = {"temperature": 0.2, "thinking": THINKING, "max_tokens": 4096}
    library = [
        *(prompt(name, parameters=thinks) for name in ("a", "b [old]*?", 'c "d"\u2028')),
        prompt("plain", parameters={"temperature": 0.2}),
    ]
    models = Models(refusing("temperature", "value", lambda call: "thinking" in call))
    first, second = await mended(models, *library)
    (mend,) = first.mends
    assert len(mend.rules) == 3
    assert "in rules for these alone, as others of their model are answered as they are" in told(first)[0]
    assert not second.mends
    assert {"temperature": 0.2, "max_tokens": 1, "model": "claude-3-7"} in [call for _, call in models_called(second)]


async def test_prompts_that_no_rule_can_tell_apart_get_none_and_are_told() -> None:
    library = [
        prompt("a", "twin", parameters={"temperature": 0.2, "thinking": THINKING}),
        prompt("b", "twin", parameters={"temperature": 0.2}),
    ]
    found = await probed(Models(refusing("temperature", "value", lambda call: "thinking" in call)), *library)
    assert found.rules == ""
    assert "others of the same name and model are answered as they are: rename these first" in told(found)[0]


async def test_a_rule_is_for_the_name_that_a_parameter_has_at_the_source() -> None:
    renamed = job(Rule(parameters=ParameterRules(rename=(("topK", "top_k"),))))
    first, second = await mended(Models(refusing("top_k")), prompt("a", parameters={"topK": 5}), given=renamed)
    # rules stand behind those of the file, so that it is called as it arrives
    assert [rule.parameters.drop for mend in first.mends for rule in mend.rules] == [("top_k",)]
    assert not second.mends


async def test_what_a_file_sets_again_is_mended_behind_it() -> None:
    given = job(Rule(parameters=ParameterRules(set=(("top_k", 5),))))
    first, second = await mended(Models(refusing("top_k")), prompt("a"), given=given)
    assert first.rules
    assert not second.mends


async def test_a_model_that_is_refused_is_told_and_not_mended() -> None:
    models = Models(lambda call: Refused(path="model", why="model"), listed={"claude-3-7"})
    found = await probed(models, prompt("a"))
    assert told(found) == [
        "rewrite.model: claude-3-7 is refused itself: name another model, or enable it there (1 prompt: a)"
    ]
    assert found.rules == ""


# ---- the catalogue, and what cannot be judged ------------------------------------------------------------------------


async def test_a_model_that_the_catalogue_has_not_is_a_problem_unless_it_answers() -> None:
    library = [prompt("a", provider="anthropic-prod", model="claude-3-7"), prompt("b", provider=None, model="m")]
    listed = {"@anthropic-prod/claude-3-5", "@openai-prod/m"}
    found = await probed(Models(listed=listed), *library, may_call=False)
    (line,) = told(found)
    assert line.startswith(
        "models: claude-3-7 at anthropic-prod is not in the catalogue of the target, which has claude-3-5"
    )
    assert line.endswith("(1 prompt: a)")
    (note,) = told(found, "note")
    assert "no call was made" in note
    assert "gateway_key" in note
    assert (found.calls, found.to_json()["models"][1]["listed"]) == (0, True)
    found = await probed(Models(listed=listed), *library)
    assert told(found) == []
    assert "and answers all the same" in told(found, "note")[0]
    found = await probed(Models(listed=None), *library)
    assert "may not list them" in told(found, "note")[0]


async def test_what_could_not_be_judged_is_no_refusal() -> None:
    models = Models(lambda call: Tried(answered=None, error="The gateway answered completions with 429."))
    found = await probed(models, prompt("a"))
    assert (told(found), len(found.unjudged)) == ([], 1)
    assert "could not be judged: The gateway answered completions with 429. (1 prompt: a)" in told(found, "note")[0]
    assert found.to_json()["shapes"][0]["result"] == "unjudged"


async def test_a_refusal_that_nobody_can_read_is_one_all_the_same() -> None:
    models = Models(lambda call: Tried(answered=False, error="The gateway answered completions with 400: no."))
    found = await probed(models, prompt("a"))
    assert told(found) == [
        "probe: claude-3-7 refuses a call, and nobody can read for what: The gateway answered completions with 400: "
        "no. (1 prompt: a)"
    ]


async def test_the_limit_that_was_put_in_is_not_held_against_the_prompt() -> None:
    renaming = Models(refusing("max_tokens", "unsupported", instead="max_completion_tokens"))
    found = await probed(renaming, prompt("a"))
    assert (found.calls, told(found)) == (2, [])
    assert renaming.calls[-1][1] == {"max_completion_tokens": 1, "model": "claude-3-7"}
    both = Models(lambda call: renaming.refuse(call) or refusing("max_completion_tokens", "too_small", bound=9)(call))
    found = await probed(both, prompt("a"))
    assert (found.calls, told(found), len(found.unjudged)) == (2, [], 1)
    least = Models(refusing("max_tokens", "too_small", bound=16))
    for one in (prompt("a"), prompt("a", parameters={"max_tokens": 300})):
        found = await probed(least, one)
        assert (told(found), len(found.unjudged)) == ([], 1)


async def test_without_a_yes_nothing_is_called() -> None:
    models = Models()

    async def no(what: str, calls: int) -> bool:
        return False

    with pytest.raises(Stop, match="not confirmed"):
        await probe(job(), gathered(job(), [prompt("a")]), models, may_call=True, key="k", confirm=no)
    assert models.calls == []


async def test_a_catalogue_that_does_not_answer_stops() -> None:
    class Down(Models):
        async def models(self) -> Collection[str] | None:
            raise Transient("no answer", error="no_answer")

    with pytest.raises(Stop, match="the models could not be listed"):
        await probed(Down(), prompt("a"))


async def test_a_prompt_without_a_model_is_not_called_and_one_that_would_not_arrive_neither() -> None:
    lost = job_of(memory(), rules=(Rule(collection=(("*", "nowhere"),)),))
    models = Models()
    assert not (await probed(models, prompt("a"), given=lost)).shapes
    found = await probed(models, prompt("a", model=None))
    assert models.calls == []
    assert "1 prompt without a model, or nested too deep to be called, not tried" in told(found, "note")[-1]


@pytest.mark.parametrize("where", ["parameters", "tools"])
async def test_every_selected_prompt_is_read_for_it_and_one_that_is_nested_too_deep_fails_alone(where: str) -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    seen: list[str] = []
    fields: dict[str, Any] = {where: {"deep": deep}}
    given = job_of(memory(prompt("a"), prompt("b", **fields), prompt("c")))
    findings = (await examine_ends(given, (), (), each=lambda rewritten: seen.append(rewritten.source.id))).findings
    assert sorted(seen) == ["a", "c"]
    (problem,) = (finding for finding in findings if finding.level == "problem")
    assert "of b are nested too deep" in problem.text
