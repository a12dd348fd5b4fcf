"""`check --probe`: 500 prompts in 12 shapes, three refusals, and the rules that make the next one clean."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Ended, Served, promptferry, served, write_migration

PROMPTS = 500
CANARY = "Canary words that nobody else may read"
CLAUDE, GPT = ("claude-3-7-sonnet-20250219", "anthropic-prod"), ("gpt-4o", "openai-prod")
TOOL = {"type": "function", "function": {"name": "find_order", "description": CANARY, "parameters": {}}}
THINKING = {"type": "enabled", "budget_tokens": 2048}
REWRITE = {
    "model": {"claude-3-7-*": "anthropic.claude-3-5-sonnet", "*": "gpt-4o-mini"},
    "provider": {"anthropic-prod": "bedrock-prod"},
}
SHAPES: list[tuple[tuple[str, str], dict[str, Any], dict[str, Any]]] = [
    (CLAUDE, {"temperature": 0.2, "max_tokens": 256}, {}),
    (CLAUDE, {"temperature": 0.7, "max_tokens": 1024}, {}),
    (CLAUDE, {"temperature": 1, "max_tokens": 4096, "thinking": THINKING}, {}),  # the new model does not think
    (CLAUDE, {"temperature": 0.2, "max_tokens": 64_000}, {}),  # nor write as much
    (CLAUDE, {"temperature": 0.2}, {"tools": [TOOL], "tool_choice": "auto"}),
    (CLAUDE, {"temperature": 0.2, "stop": [CANARY], "top_p": 0.9}, {}),
    (CLAUDE, {"top_k": 5, "stream": True}, {}),
    (GPT, {"temperature": 0.2, "max_tokens": 256}, {}),
    (GPT, {"response_format": {"type": "json_object"}}, {}),
    (GPT, {"seed": 7}, {"tools": [TOOL]}),
    (GPT, {"temperature": 0.2, "top_k": 5}, {}),  # no parameter of OpenAI's
    (GPT, {"temperature": 1.5}, {}),
]
REFUSED = {
    2: ("thinking", "{drop: [thinking]}"),
    3: ("max_tokens", "{clamp: {max_tokens: 8192}}"),
    10: ("top_k", "{drop: [top_k]}"),
}


def plant(sandbox: Sandbox) -> None:
    for number in range(PROMPTS):
        shape = number % len(SHAPES)
        (model, provider), parameters, more = copy.deepcopy(SHAPES[shape])
        for tool in more.get("tools", ()):
            tool["function"]["description"] += f" {number}"
        known = {"model": model, "virtual_key": provider, "parameters": parameters, **more}
        sandbox.add_prompt(name(number), f"{CANARY} {number} {{{{x}}}}", **known)


def name(number: int) -> str:
    return f"p{number:03}-of-{number % len(SHAPES)}"


@pytest.fixture(scope="module")
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(plant)
        yield registry


def check(registry: Served, folder: Path, *flags: str, gateway: str | None = None, **parts: Any) -> tuple[Ended, int]:
    """What the command says, and how many calls of a model it made."""
    key = {} if gateway == "" else {"gateway_key": "${GATEWAY}"}
    source = {"kind": "portkey", "base_url": registry.base_url, "api_key": "${KEY}", **key}
    path = write_migration(folder, registry.base_url, **{"source": source, "rewrite": REWRITE, **parts})
    before = called(registry)
    env = {"KEY": registry.api_key, "GATEWAY": gateway or registry.api_key}
    ended = promptferry("check", path, *flags, cwd=folder, env=env)
    assert CANARY[:16] not in ended.out + ended.err
    assert registry.api_key not in ended.out + ended.err
    return ended, called(registry) - before


def called(registry: Served) -> int:
    return registry.ask(lambda sandbox: sum(one.path.endswith("/completions") for one in sandbox.requests))


def test_500_prompts_in_12_shapes_take_12_calls_and_its_rules_make_the_next_one_clean(
    registry: Served, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    ended, calls = check(registry, tmp_path, "--probe", "--write-rules", str(rules), "--json")
    assert (ended.code, calls) == (4, 12)
    assert "at most 19 calls, one for each shape of 500 prompts and one more where" in ended.err  # 7 have no limit
    assert "will be made with gateway_key of the target" in ended.err
    assert f"wrote {rules}" in ended.err
    found = ended.json
    assert not found["ok"]
    assert {shape["result"] for shape in found["probe"]["shapes"]} == {"answered", "refused"}
    refused = {one["path"]: one for one in found["probe"]["refused"]}
    assert len(refused) == len(found["probe"]["refused"]) == 3
    problems = [one for one in found["findings"] if one["level"] == "problem"]
    for shape, (path, change) in REFUSED.items():
        assert refused[path]["mended_by"] == change
        names = {name(number) for number in range(shape, PROMPTS, len(SHAPES))}
        assert {one["name"] for one in refused[path]["prompts"]} == names
        (told,) = (one for one in problems if f" refuses {path}," in one["text"])
        assert f"({len(names)} prompts: {min(names)}" in told["text"]
        assert f"`parameters: {change}`" in told["advice"]

    written = YAML(typ="safe").load(rules)
    assert found["probe"]["rules"] == rules.read_text()
    again, calls = check(registry, tmp_path, "--probe", rewrite=REWRITE | written["rewrite"])
    # without top_k that shape is as another one
    assert (again.code, calls) == (0, 11)
    assert "ok       probe: 11 calls: 11 of 11 shapes answered" in again.out
    assert again.out.splitlines()[-1] == "all is there"


def test_what_is_there_is_not_written_over_and_nothing_is_sent_before_that_is_said(
    registry: Served, tmp_path: Path
) -> None:
    there = tmp_path / "rules.yaml"
    there.write_text("mine")
    before = registry.ask(lambda sandbox: len(sandbox.requests))
    for flags, said in (
        (("--probe", "--write-rules", str(there)), "is there already; name another file, or remove it first"),
        (("--write-rules", str(tmp_path / "other.yaml")), "give both"),
    ):
        ended, _ = check(registry, tmp_path, *flags)
        assert ended.code == 2
        assert said in ended.sentence()
    files = {"kind": "files", "path": str(tmp_path / "out")}
    ended, _ = check(registry, tmp_path, "--probe", target=files, rewrite={})
    assert (ended.code, "kind files has no gateway" in ended.sentence()) == (2, True)
    assert (there.read_text(), registry.ask(lambda sandbox: len(sandbox.requests))) == ("mine", before)


def test_without_a_key_for_it_only_the_catalogue_is_asked(registry: Served, tmp_path: Path) -> None:
    select, rules = {"names": ["p00*"]}, str(tmp_path / "rules.yaml")
    ended, calls = check(registry, tmp_path, "--probe", "--write-rules", rules, gateway="", select=select)
    assert (ended.code, calls) == (0, 0)
    assert "note     probe: no call was made" in ended.out
    assert "not written, for there is no rule to write" in ended.err
    assert not (tmp_path / "rules.yaml").exists()
    other = REWRITE | {"model": "gpt-4o-minni", "provider": "openai-prod"}
    ended, calls = check(registry, tmp_path, "--probe", gateway="", select=select, rewrite=other)
    assert (ended.code, calls) == (4, 0)
    assert "gpt-4o-minni at openai-prod is not in the catalogue of the target, which has gpt-4o-mini" in ended.out


def test_what_could_not_be_judged_is_asked_for_again_later(registry: Served, tmp_path: Path) -> None:
    limits = {"rate": 2000, "attempts": 1}
    registry.ask(lambda sandbox: sandbox.faults.plan("500", path_end="/chat/completions", times=1))
    ended, calls = check(registry, tmp_path, "--probe", select={"names": ["p000*", "p001*"]}, limits=limits)
    assert (ended.code, calls) == (75, 2)
    (line,) = (line for line in ended.out.splitlines() if "could not be judged: The" in line)
    assert "answered completions with 500" in line
    assert "1 prompt: p00" in line
    assert ended.out.splitlines()[-1] == "1 call could not be judged: run it again later"
    weak = registry.ask(lambda sandbox: sandbox.key("main", ("prompts.list",)))
    ended, _ = check(registry, tmp_path, "--probe", select={"names": ["p000*"]}, gateway=weak)
    assert (ended.code, weak in ended.out + ended.err) == (4, False)
    assert "completions.write" in ended.err.splitlines()[-1]


def test_above_50_calls_somebody_must_say_yes(tmp_path: Path) -> None:
    def many(sandbox: Sandbox) -> None:
        for number in range(26):
            sandbox.add_prompt(name(number), model=GPT[0], virtual_key=GPT[1], parameters={"seed": number})

    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(many)
        ended, calls = check(registry, tmp_path, "--probe")
        assert (ended.code, calls) == (2, 0)
        assert "--yes" in ended.sentence()
        ended, calls = check(registry, tmp_path, "--probe", "--yes")
        assert ("at most 52 calls" in ended.err, ended.code, calls) == (True, 0, 26)
