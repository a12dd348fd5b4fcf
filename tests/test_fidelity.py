"""Content that is hard to carry: equal at the target, or a failure that names the prompt."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import Quirks, Sandbox, SandboxOptions
from tests.e2e import MARK, Served, lines, promptferry, served, write_migration

HARD: Final[dict[str, dict[str, Any]]] = {
    "big integers": {"string": "x", "parameters": {"seed": 2**70, "bias": {"1": -(2**80), "2": 2**63}}},
    "numbers": {"string": "x", "parameters": {"a": 0.1, "b": 1e-300, "c": 1e22, "d": 5e-324, "e": 0.30000000000000004}},
    "lone surrogates": {"string": "high \ud83d low \ude00 end", "template_metadata": {"\udfff": "\ud800"}},
    "surrogate \udc80 in the name": {"string": "x"},
    "control characters": {"string": "NUL \x00 BEL \x07 ESC \x1b RS \x1e DEL \x7f", "version_description": "\x00"},
    "line ends": {"string": "CRLF\r\nCR\rLF\n\u2028LS\u2029PS\x85NEL\x0bVT\x0cFF\r\n\r\n"},
    "blanks": {"string": " \t leading and trailing \u00a0\u3000\ufeff "},
    "composed and decomposed": {"string": "\u00e9 e\u0301 \ufb01 \u212b"},
    "a megabyte": {"string": ("Zeile für Zeile \u2603 " * 60 + "\n") * 1_000},
    "a long name ": {"string": "x", "version_description": "y" * 10_000},
    "raw, no JSON": {"string": '[{"role": "user", {{chat}} ,,', "is_raw_template": 1},
    "looks escaped": {"string": '\\u0041 \\ud83d &lt;b&gt; %7B "quoted" \\\\n', "parameters": {"stop": ["\\n", "\n"]}},
    "empty": {"string": ""},
    "falsy parameters": {"string": "x", "parameters": {"a": 0, "b": False, "c": "", "d": [], "e": {}, "f": [None]}},
    "tools": {
        "string": "[]",
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"maximum": 2**65, "x": None}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "functions": [{"name": "\u2028"}],
    },
    "deep": {"string": "x", "parameters": {"a": json.loads("[" * 200 + "]" * 200)}},
}
SAME: Final = (
    *("string", "parameters", "functions", "tools", "tool_choice", "is_raw_template", "template_metadata", "model"),
    *("virtual_key", "collection_id", "prompt_version_description", "variable_components"),
)


def fill(sandbox: Sandbox) -> None:
    for name, fields in HARD.items():
        sandbox.add_prompt(name, **fields)


def as_text(prompt: dict[str, Any], field: str) -> str:
    """As JSON, so that 1, 1.0 and true are three things."""
    return json.dumps(prompt[field], sort_keys=True)


def test_hard_content_arrives_as_it_was(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(fill)
        path, keys = write_migration(tmp_path, registry.base_url), {"KEY": registry.api_key}
        plan = promptferry("plan", path, "--json", cwd=tmp_path, env=keys)
        assert len(plan.json["prompts"]) == len(HARD)
        assert promptferry("plan", path, cwd=tmp_path, env=keys).code == 0
        ended = promptferry("run", path, cwd=tmp_path, env=keys)
        assert (ended.code, ended.summary["counts"]["created"]) == (0, len(HARD)), ended.err
        assert "replica.differs" not in ended.err
        prompts = registry.prompts()
        compare(registry, prompts)
        pairs = {
            (one["source_name"], one["name"]) for one in promptferry("ids", path, "--json", cwd=tmp_path, env=keys).json
        }
        assert pairs == {(name, f"{name}-replica") for name in HARD}
        rows = list(csv.DictReader(io.StringIO(promptferry("ids", path, cwd=tmp_path, env=keys).out)))
        assert len(rows) == len(HARD)
        again = promptferry("run", path, "--log-format", "console", cwd=tmp_path, env=keys)
        assert again.summary["counts"]["unchanged"] == len(HARD)


def compare(registry: Served, prompts: list[dict[str, Any]]) -> None:
    by_name = {prompt["name"]: prompt for prompt in prompts}
    for name in HARD:
        source, replica = by_name[name], by_name[f"{name}-replica"]
        assert replica["template_metadata"].pop(MARK)["source_id"] == source["id"]
        for field in SAME:
            assert as_text(replica, field) == as_text(source, field), f"{name}: {field}"


@pytest.mark.parametrize("required", [True, False])
def test_a_prompt_without_a_collection_fails_by_name_or_has_none_again(required: bool, tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=2, quirks=Quirks(collection_required=required))) as registry:
        registry.ask(lambda sandbox: sandbox.add_prompt("homeless", collection=None))
        path, keys = write_migration(tmp_path, registry.base_url), {"KEY": registry.api_key}
        ended = promptferry("run", path, cwd=tmp_path, env=keys)
        (replica, *_) = [*(one for one in registry.prompts() if one["name"] == "homeless-replica"), {}]
    if required:
        assert (ended.code, ended.summary["counts"]["failed"], replica) == (1, 1, {})
        (failed,) = [line for line in lines(tmp_path / "ledger.jsonl") if line["kind"] == "failed"]
        assert (failed["source_name"], failed["status"]) == ("homeless", 400)
        assert "homeless" in promptferry("status", path, "--failed", cwd=tmp_path, env=keys).out
    else:
        assert (ended.code, replica["collection_id"]) == (0, None)
