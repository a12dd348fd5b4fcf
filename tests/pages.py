"""What the READMEs take from the code: `python -m tests.pages` writes it anew between the marks of each page.

A part stands between `<!-- NAME -->` and `<!-- end of NAME -->`; tests/test_pages.py holds it to the code.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from engine.config import json_schema
from engine.config.fleet import FleetFile
from engine.connectors import DIALECTS, REGISTRIES
from engine.content.dialects import described
from engine.model import Abilities
from engine.model.dialect import Dialect, NameRule
from tests import losses as found
from tests.test_layers import ALLOWED

ROOT: Final = Path(__file__).parents[1]

# ---- the migration file ----------------------------------------------------------------------------------------------

EXAMPLES: Final[Mapping[str, str]] = {
    "name": "claude-37-to-35-bedrock",
    "mode": "update",
    "source": "{kind: portkey, api_key: '${PORTKEY_API_KEY}'}",
    "target": "{kind: files, path: prompts}",
    "select": '{models: ["*claude-3-7-*"]}',
    "rewrite": "{model: anthropic.claude-3-5-sonnet}",
    "allow_loss": "[tools, metadata.owner]",
    "carry": "[raw, messages.name, parameters.top_k]",
    "create_missing": "[collections, partials, labels]",
    "on_existing": "rename",
    "on_change": "skip",
    "on_edited": "keep",
    "publish": "false",
    "limits": "{rate: 10}",
    "ledger": '"ledgers/{name}.jsonl"',
    "verify": "{after_run: true}",
    "portkey.kind": "portkey",
    "portkey.base_url": "https://portkey.example/v1",
    "portkey.gateway_url": "https://gateway.example/v1",
    "portkey.api_key": "${PORTKEY_API_KEY}",
    "portkey.gateway_key": "{file: secrets/gateway.key}",
    "portkey.workspace": "ws-support",
    "conductor.kind": "conductor",
    "conductor.base_url": "https://conductor.example/api",
    "conductor.key_id": "${CONDUCTOR_KEY_ID}",
    "conductor.key_secret": "{command: [cat, secrets/conductor.key]}",
    "mlflow.kind": "mlflow",
    "mlflow.base_url": "http://127.0.0.1:5000",
    "mlflow.token": "${MLFLOW_TRACKING_TOKEN}",
    "mlflow.username": "${MLFLOW_TRACKING_USERNAME}",
    "mlflow.password": "${MLFLOW_TRACKING_PASSWORD}",
    "mlflow.published_by": "champion",
    "phoenix.kind": "phoenix",
    "phoenix.base_url": "http://localhost:6006",
    "phoenix.api_key": "${PHOENIX_API_KEY}",
    "phoenix.published_by": "newest",
    "langfuse.kind": "langfuse",
    "langfuse.base_url": "https://langfuse.example",
    "langfuse.public_key": "${LANGFUSE_PUBLIC_KEY}",
    "langfuse.secret_key": "{command: [cat, secrets/langfuse.key]}",
    "langfuse.published_by": "newest",
    "files.kind": "files",
    "files.path": "prompts.jsonl",
    "files.format": "dotprompt",
    "select.ids_file": "ids.txt",
    "select.ids": "[pp-support-3f2a1b]",
    "select.collections": "[support, sales]",
    "select.names": '["support-*", "!*-old"]',
    "select.models": '["*claude-3-7-*"]',
    "select.version": "all",
    "select.label": "staging",
    "rewrite.name": '"{collection}-{name}"',
    "rewrite.model": '{"*claude-3-7-*": anthropic.claude-3-5-sonnet, "gpt-4o*": gpt-4.1}',
    "rewrite.provider": "{anthropic-prod: bedrock-prod}",
    "rewrite.collection": "{sales: sales-2026}",
    "rewrite.partials": "{house-style-3f2a1b: house-style-9c8d7e}",
    "rewrite.description": "Replica for review",
    "rewrite.messages": "transcript",
    "rewrite.parameters": "{drop: [thinking]}",
    "rewrite.rules": '[{when: {model: "*opus*"}, model: anthropic.claude-3-opus}]',
    "rewrite.parameters.drop": "[thinking, logit_bias]",
    "rewrite.parameters.rename": "{max_tokens: max_completion_tokens}",
    "rewrite.parameters.clamp": "{max_tokens: 8192, temperature: {min: 0, max: 0.5}}",
    "rewrite.parameters.set": "{thinking.budget_tokens: 1024}",
    "rewrite.rules.when": '{name: "legal-*"}',
    "rewrite.rules.when.model": '"*opus*"',
    "rewrite.rules.when.collection": '"sales*"',
    "rewrite.rules.when.name": '"legal-*"',
    "rewrite.rules.when.has": "[tools, metadata]",
    "limits.rate": "10",
    "limits.reads": "20",
    "limits.writes": "5",
    "limits.share": "0.5",
    "limits.concurrency": "16",
    "limits.timeout": "90s",
    "limits.attempts": "3",
    "limits.settle": "2m",
    "limits.batch": "20",
    "verify.after_run": "true",
    "verify.render": "true",
    "verify.completions": "5",
    "verify.variables": "{customer: Ada}",
    "verify.cases": "cases.jsonl",
}
"""Key -> an example of its value, which a test loads."""

FLEET_EXAMPLES: Final[Mapping[str, str]] = {
    "name": "teams",
    "defaults": "{source: {base_url: sandbox}}",
    "migrations": "[{name: support, limits: {rate: 20}}, {name: sales}]",
    "matrix": "{team: [support, sales], env: [staging, prod]}",
    "csv": "teams.csv",
    "parallel": "8",
    "stop_on": "[4]",
}
"""The same for the fleet file."""

PARTS: Final[tuple[tuple[str, str, str], ...]] = (
    ("", "", "The file"),
    ("select", "Selection", "`select`"),
    ("rewrite", "Rewrite", "`rewrite`"),
    ("rewrite.parameters", "Parameters", "`rewrite.parameters`"),
    ("rewrite.rules.when", "WhenPart", "`when` of a rule"),
    ("limits", "Limits", "`limits`"),
    ("verify", "VerifySettings", "`verify`"),
)
"""Key, definition in the schema, and heading of each map in the file; those of the ends come from the connectors."""


def keys() -> Iterator[str]:
    """Every key of the migration file, with its values, default, meaning and an example, map by map."""
    schema = json_schema()
    for key, definition, heading in PARTS:
        part = schema["$defs"][definition] if definition else schema
        yield from _map(heading, part, key, part.get("required", ()))
        if not key:
            for kind, row in REGISTRIES.items():
                end = schema["$defs"][row.endpoint.__name__]
                required = {*row.endpoint.needed, *end.get("required", ())}
                yield from _map(f"`source` and `target`, kind {kind}", end, kind, required)
        elif key == "rewrite":
            when = schema["$defs"]["RewriteRule"]["properties"]["when"]["description"]
            yield from (
                "",
                f"Each of `rewrite.rules` has the keys of `rewrite` but `rules`, and `when`: {_lower(when)}",
            )


def fleet_keys() -> Iterator[str]:
    """Every key of the fleet file."""
    part = FleetFile.model_json_schema()
    yield from _table(part, FLEET_EXAMPLES, part["required"])


def _map(heading: str, part: Mapping[str, Any], key: str, required: Any) -> Iterator[str]:
    yield from ("", f"### {heading}", "", str(part["description"]), "")
    examples = {name: EXAMPLES[f"{key}.{name}".removeprefix(".")] for name in part["properties"]}
    yield from _table(part, examples, required)


def _table(part: Mapping[str, Any], examples: Mapping[str, str], required: Any) -> Iterator[str]:
    yield "| key | values | default | what it is | example |"
    yield "|---|---|---|---|---|"
    for name, value in part["properties"].items():
        example = examples[name]
        default = "required" if name in required else _default(value)
        yield _row(f"`{name}`", _values(value), default, value["description"], f"`{name}: {example}`")


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    if default is None or default == "" or isinstance(default, list | dict):
        return "-"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _values(value: Mapping[str, Any]) -> str:
    """The kinds of value in words."""
    if "enum" in value or "const" in value:
        return ", ".join(f"`{word}`" for word in value.get("enum", [value.get("const")]))
    if "oneOf" in value or "$ref" in value:
        return "map"
    if "anyOf" in value:
        found = [_values(one) for one in value["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(found))
    match value.get("type"):
        case "array":
            inner = _values(value["items"])
            return f"list of {inner}" if inner.startswith("`") else f"list of {inner}s"
        case "object":
            return "map"
        case "boolean":
            return "`true`, `false`"
        case "integer":
            return "whole number"
        case "string":
            return "text"
        case kind:
            return str(kind)


# ---- what arrives ----------------------------------------------------------------------------------------------------


def losses() -> Iterator[str]:
    """What becomes of all that a prompt may hold in each target, and what the registries say besides."""
    yield _row("of a prompt", *(place.title for place in found.PLACES))
    yield f"|---|{'---|' * len(found.PLACES)}"
    for what, cells in found.rows():
        yield _row(what, *cells)
    yield ""
    yield from found.remarks()


# ---- the code --------------------------------------------------------------------------------------------------------


def arrows() -> Iterator[str]:
    """Who may import whom, as tests/test_layers.py has it."""
    yield "| part | may import |"
    yield "|---|---|"
    for part, others in ALLOWED.items():
        name = f"{part} (`engine` itself)" if part == "__init__" else part
        yield f"| {name} | {', '.join(others.replace('__init__', '`engine`').split()) or '-'} |"


def _model() -> Mapping[str, ast.ClassDef]:
    tree = ast.parse((ROOT / "engine" / "model" / "__init__.py").read_text(encoding="utf-8"))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def promises() -> Iterator[str]:
    """The methods of Source, Target and their kin, and what their docstrings promise."""
    for name in ("Source", "Target", "Parts", "Gateway"):
        yield from ("", f"| of a `{name}` | promises |", "|---|---|")
        for node, after in _members(_model()[name]):
            if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef):
                arguments = ", ".join(one.arg for one in [*node.args.args[1:], *node.args.kwonlyargs])
                yield _row(f"`{node.name}({arguments})`", _joined(ast.get_docstring(node) or ""))
            elif isinstance(node, ast.AnnAssign) and after:
                yield _row(f"`{ast.unparse(node.target)}`", _joined(after))


def abilities() -> Iterator[str]:
    """Each ability, what it says, and what the registries of the table say of themselves."""
    yield f"| ability | says | {' | '.join(REGISTRIES)} |"
    yield f"|---|---|{'---|' * len(REGISTRIES)}"
    for node, says in _members(_model()[Abilities.__name__]):
        if isinstance(node, ast.AnnAssign):
            name = ast.unparse(node.target)
            yield _row(f"`{name}`", _joined(says), *(_word(getattr(row.can, name)) for row in REGISTRIES.values()))


def _members(found: ast.ClassDef) -> Iterator[tuple[ast.stmt, str]]:
    """What stands in a class, with the text behind it."""
    for node, behind in zip(found.body, [*found.body[1:], ast.Pass()], strict=True):
        is_text = isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant)
        yield node, str(ast.literal_eval(behind.value)) if is_text and isinstance(behind, ast.Expr) else ""


def _joined(text: str) -> str:
    return " ".join(text.split())


def _word(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "-"
        case Dialect():
            return value.name
        case NameRule():
            return value.says
        case frozenset() | tuple():
            return ", ".join(sorted(map(str, value)) if isinstance(value, frozenset) else value) or "-"
        case _:
            return str(value)


def dialects() -> Iterator[str]:
    """What each dialect says of itself; a prompt goes from any of them to any other one."""
    told = {one.registry: described(one) for one in DIALECTS.values()}
    neutral = {known.neutral for one in DIALECTS.values() for known in one.parameters.known.values()}
    yield _row("", *told)
    yield f"|---|{'---|' * len(told)}"
    for what in dict.fromkeys(what for says in told.values() for what in says):
        yield _row(what, *(says.get(what, what if what in neutral else "-") for says in told.values()))


# ---- the pages -------------------------------------------------------------------------------------------------------

PAGES: Final[Mapping[str, Mapping[str, Callable[[], Iterator[str]]]]] = {
    "configs/README.md": {"keys": keys, "losses": losses, "fleet keys": fleet_keys},
    "engine/README.md": {"arrows": arrows},
    "engine/connectors/README.md": {"promises": promises, "abilities": abilities, "dialects": dialects},
}


def written(page: str, parts: Mapping[str, Callable[[], Iterator[str]]]) -> str:
    """The page with its parts as they are to be."""
    for name, lines in parts.items():
        marked = f"<!-- {name} -->\n" + "\n".join(lines()).strip("\n") + f"\n<!-- end of {name} -->"
        page, count = re.subn(rf"<!-- {name} -->.*<!-- end of {name} -->", lambda _, m=marked: m, page, flags=re.DOTALL)  # type: ignore[misc]
        assert count == 1, f"the marks of {name} are missing"
    return page


def main() -> None:
    """Writes all of them."""
    for name, parts in PAGES.items():
        path = ROOT / name
        path.write_text(written(path.read_text(encoding="utf-8"), parts), encoding="utf-8")


if __name__ == "__main__":
    main()
