"""Numbers that no float can hold, sent by a registry: every one arrives as it was written, by every way."""

from __future__ import annotations

import json
import random
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from engine.sandbox import Sandbox, SandboxOptions
from engine.sandbox.numbers import loads
from tests.e2e import MARK, Ended, Served, promptferry, served, write_migration

NUMBERS: Final = (
    *("0.1000000000000000055511151231257827", "3.141592653589793238462643383279", "0.12345678901234567890"),
    *("1E+2", "1e-400", "-1e400", "1e99999999999999999999", "2.5E-07", "12e4567", "-0", "-0.0", "1.0", "1.50", "0.70"),
    *("123456789012345678901234567890", "-999999999999999999999999999999", "9007199254740993", "18446744073709551616"),
    *("9007199254740993.0", "0.00001", "100000000000000000000000.0", "0", "7", "0.5", "-0.000", "1" * 4400),
)
TEXTS: Final = (
    "plain",
    "1e5",
    "0x10",
    "1_000",
    "null",
    "~",
    "2024-01-01",
    "=",
    "\ud83d alone",
    "NUL \x00",
    "12:30",
    "",
)
FIELDS: Final = ("string", "parameters", "tools", "template_metadata", "model", "prompt_version_description")


def hostile(number: int) -> dict[str, Any]:
    """A prompt whose values are drawn from both, as a create has it."""
    draw = random.Random(number)
    a, b, c, d, e, f, g = draw.choices(NUMBERS, k=7)
    text = f'{{"temperature":{a},"seed":{b},"deep":{{"1e5":[{c},{{"x":{d}}}]}},"top_p":{e}}}'
    schema = f'[{{"type":"function","function":{{"name":"f","parameters":{{"maximum":{f},"default":null}}}}}}]'
    said, about, sha = draw.choices(TEXTS, k=3)
    return {
        "string": f'{said} {{{{who}}}} 1.50, -0 and 1e5 "{g}"',
        "parameters": loads(text) | {"stop": [draw.choice(TEXTS)]},
        "tools": loads(schema) if number % 3 else None,
        "template_metadata": {"sha": sha, "count": loads(g)},
        "version_description": about or "none",
        "model": draw.choice(["4e2", "123", "gpt-4o"]),
    }


def fill(count: int) -> Callable[[Sandbox], None]:
    def work(sandbox: Sandbox) -> None:
        for number in range(count):
            fields = {name: value for name, value in hostile(number).items() if value is not None}
            sandbox.add_prompt(f"{number:03d}", **fields)

    return work


def as_sent(registry: Served, prompt_id: str) -> dict[str, Any]:
    """The prompt as its bytes are on the wire: every number is the text that stands there."""
    address = f"{registry.base_url}/prompts/{prompt_id}"
    request = urllib.request.Request(address, headers={"x-portkey-api-key": registry.api_key})
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.loads(answer.read(), parse_float="number {}".format, parse_int="number {}".format)
    found["template_metadata"].pop(MARK, None)
    return {name: found[name] for name in FIELDS}


def by_name(registry: Served) -> dict[str, dict[str, Any]]:
    return {one["name"]: as_sent(registry, one["id"]) for one in registry.prompts()}


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


def test_400_prompts_of_a_hostile_registry_arrive_as_they_were_sent(tmp_path: Path, registry: Served) -> None:
    registry.ask(fill(400))
    path, keys = write_migration(tmp_path, registry.base_url), {"KEY": registry.api_key}

    def ask(command: str) -> Ended:
        return promptferry(command, path, cwd=tmp_path, env=keys)

    ended = ask("run")
    assert (ended.code, ended.summary["counts"]["created"]) == (0, 400), ended.err
    assert "replica.differs" not in ended.err
    found = by_name(registry)
    assert len(found) == 800
    for number in range(400):
        assert found[f"{number:03d}-replica"] == found[f"{number:03d}"]
    assert ask("run").summary["counts"]["unchanged"] == 400
    assert ask("verify").code == 0


@pytest.mark.parametrize("where", ["prompts", "prompts.jsonl"])
def test_through_files_and_back_they_are_the_same(where: str, tmp_path: Path, registry: Served) -> None:
    registry.ask(fill(40))
    before, keys = by_name(registry), {"KEY": registry.api_key}
    portkey = {"base_url": registry.base_url, "api_key": "${KEY}"}
    files = {"kind": "files", "path": where}
    out = write_migration(
        tmp_path, registry.base_url, name="out", target=files, rewrite={"name": "{name}"}, ledger="out.jsonl"
    )
    back = write_migration(
        tmp_path, registry.base_url, name="back", source=files, target=portkey, rewrite={"name": "{name} again"}
    )
    for path in (out, back):
        ended = promptferry("run", path, cwd=tmp_path, env=keys)
        assert (ended.code, ended.summary["counts"]["created"]) == (0, 40), ended.err
        assert promptferry("verify", path, cwd=tmp_path, env=keys).code == 0
    found = by_name(registry)
    assert {name: found[f"{name} again"] for name in before} == before


def test_rules_work_on_them_and_a_plan_says_them(tmp_path: Path, registry: Served) -> None:
    text = '{"a":0.1000000000000000055,"b":123456789012345678901234567890,"c":1E+2,"d":1.50,"e":1e400}'
    registry.ask(lambda sandbox: sandbox.add_prompt("p", parameters=loads(text)))
    rules = """
name: rules
source: {kind: portkey, base_url: BASE, api_key: "${KEY}"}
rewrite:
  parameters:
    rename: {c: renamed}
    clamp: {a: 0.1, b: 123456789012345678901234567889, d: {min: 1.50000000000000000001}, e: {max: 8}}
    set: {f: 0.1000000000000000055511151231257827}
limits: {rate: 2000.00000000000000000001}
ledger: ledger.jsonl
"""
    path, keys = tmp_path / "rules.yaml", {"KEY": registry.api_key}
    path.write_text(rules.replace("BASE", registry.base_url))
    planned = promptferry("plan", path, "--json", cwd=tmp_path, env=keys)
    assert '{"field":"parameters.a","before":0.1000000000000000055,"after":0.1}' in planned.out, planned.err
    assert promptferry("run", path, cwd=tmp_path, env=keys).code == 0
    sent = by_name(registry)["p-replica"]["parameters"]
    assert {name: value for name, value in sent.items() if name != "model"} == {
        "a": "number 0.1",
        "b": "number 123456789012345678901234567889",
        "d": "number 1.50000000000000000001",
        "e": "number 8.0",
        "f": "number 0.1000000000000000055511151231257827",
        "renamed": "number 1E+2",
    }


def front_matter(**fields: str) -> str:
    told = "".join(f"{name}: {value}\n" for name, value in fields.items())
    return f"---\n{told}---\nHi {{{{who}}}}\n"


def test_a_folder_that_somebody_wrote_is_read_as_it_is_written(tmp_path: Path, registry: Served) -> None:
    (tmp_path / "prompts").mkdir()
    precise = front_matter(
        name="4e2",
        model="123",
        parameters="{temperature: 0.12345678901234567890, top_p: 1e-400, k: 12e4567, n: .5, h: 0x1F}",
        metadata="{sha: 0123456, zip: 01e5, at: 12:30, on: 2024-01-01, yes: no, thousand: 1_000, number: 4e2}",
    )
    (tmp_path / "prompts" / "precise.md").write_text(precise)
    (tmp_path / "prompts" / "infinite.md").write_text(front_matter(name="bad", model="m", parameters="{top_p: .inf}"))
    ended = imported(tmp_path, registry, {"kind": "files", "path": "prompts"})
    assert (ended.code, failed(ended, tmp_path)) == (1, {"bad": "parameters.top_p is not finite"})
    (found,) = (as_sent(registry, one["id"]) for one in registry.prompts() if one["name"] == "4e2")
    assert found["model"] == found["parameters"].pop("model") == "123"
    assert found["parameters"] == {
        "temperature": "number 0.12345678901234567890",
        "top_p": "number 1e-400",
        "k": "number 12e4567",
        "n": "number 0.5",
        "h": "number 31",
    }
    assert found["template_metadata"] == {
        "sha": "0123456",
        "zip": "01e5",
        "at": "12:30",
        "on": "2024-01-01",
        "yes": "no",
        "thousand": "1_000",
        "number": "number 4e2",
    }


@pytest.mark.parametrize("number", ["NaN", "-Infinity"])
def test_a_line_with_what_no_registry_takes_fails_by_name_and_the_others_go(
    number: str, tmp_path: Path, registry: Served
) -> None:
    written = [
        '{"id":"q1","name":"good","string":"Hi","model":"m"}',
        '{"id":"q2","name":"precise","string":"Hi","model":"m","parameters":{"temperature":0.12345678901234567890}}',
        f'{{"id":"q3","name":"bad","string":"Hi","model":"m","parameters":{{"stop":[{number}],"top_p":1.50}}}}',
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(written))  # no line end: it is not torn
    source = {"kind": "files", "path": "prompts.jsonl"}
    fixed = {"name": "{name}", "parameters": {"set": {"stop": ["x"]}}}
    planned = ask_imported(tmp_path, registry, source, "plan", "--json", rewrite=fixed)
    (bad,) = (one for one in json.loads(planned.out, parse_constant=pytest.fail)["prompts"] if one["name"] == "bad")
    told = {change["field"]: (change["before"], change["after"]) for change in bad["changes"]}
    assert told["parameters.stop"] == ([str(float(number))], ["x"])

    ended = imported(tmp_path, registry, source)
    assert (ended.code, failed(ended, tmp_path)) == (1, {"bad": "parameters.stop is not finite"})
    found = by_name(registry)
    assert {*found} == {"good", "precise"}
    assert found["precise"]["parameters"]["temperature"] == "number 0.12345678901234567890"
    # what is set over it is sent
    ended = ask_imported(tmp_path, registry, source, "run", "--retry-failed", rewrite=fixed)
    assert (ended.code, by_name(registry)["bad"]["parameters"]["top_p"]) == (0, "number 1.50"), ended.err


def imported(folder: Path, registry: Served, source: Mapping[str, Any]) -> Ended:
    return ask_imported(folder, registry, source, "run", rewrite={"name": "{name}"})


def ask_imported(
    folder: Path, registry: Served, source: Mapping[str, Any], *command: str, rewrite: Mapping[str, Any]
) -> Ended:
    """What comes from files, into the registry under its own name; every prompt has a place there."""
    target = {"base_url": registry.base_url, "api_key": "${KEY}"}
    collection = {"collection": "sales", "provider": "anthropic-prod"}
    path = write_migration(folder, "", source=source, target=target, rewrite={**collection, **rewrite})
    name, *flags = command
    return promptferry(name, path, *flags, cwd=folder, env={"KEY": registry.api_key})


def failed(ended: Ended, folder: Path) -> dict[str, str]:
    """Name of each prompt that failed -> the end of what is said about it."""
    assert ended.code == 1, ended.err
    told = [json.loads(line) for line in (folder / "ledger.jsonl").read_text().splitlines()]
    wrong = [line for line in told if line["kind"] == "failed"]
    assert ended.summary["counts"]["failed"] == len(wrong)
    return {line["source_name"]: line["message"].rpartition(": ")[2] for line in wrong}


def test_a_front_matter_of_ours_is_what_any_reader_of_yaml_takes_for_it(tmp_path: Path, registry: Served) -> None:
    words = ["1e5", "0x10", "1_000", "null", "~", "2024-01-01", "=", "yes", "0123456", "12e4567", ".inf", "4e2", "-0"]
    metadata = {f"k{at}": word for at, word in enumerate(words)} | dict.fromkeys(words, "key")
    registry.ask(lambda sandbox: sandbox.add_prompt("123", template_metadata=metadata, model="1e5"))
    path = write_migration(
        tmp_path, registry.base_url, target={"kind": "files", "path": "prompts"}, rewrite={"name": "{name}"}
    )
    ended = promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key})
    assert ended.code == 0, ended.err
    (file,) = (tmp_path / "prompts").rglob("*.md")
    front = YAML(typ="safe", pure=True).load(file.read_text().split("---\n")[1])
    front["metadata"].pop(MARK)
    assert (front["name"], front["model"], front["metadata"]) == ("123", "1e5", metadata)
