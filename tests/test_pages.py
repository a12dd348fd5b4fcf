"""The READMEs say what is: parts made of the code are up to date, links lead somewhere, examples load, names exist."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from engine.config import load_fleet, load_migration
from engine.connectors import REGISTRIES
from engine.lossless_json.numbers import dumps_plainly
from tests.manual import PAGE, manual
from tests.pages import EXAMPLES, FLEET_EXAMPLES, PAGES, ROOT, written
from tests.test_layers import ENGINE

READMES = sorted(
    path
    for place in ("", "configs", "engine", "tests")
    for path in (ROOT / place).glob("*.md" if not place else "**/*.md")
)


def lines_outside_code(page: str) -> Iterator[str]:
    yield from re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE).split("\n")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_as_the_code_has_it(name: str) -> None:
    page = (ROOT / name).read_text(encoding="utf-8")
    assert page == written(page, PAGES[name]), "write it anew with: python -m tests.pages"


def test_the_manual_page_is_as_the_commands_have_it() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual(), "write it anew with: make pages"


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


def test_the_campaigns_are_where_the_page_says() -> None:
    page = (ROOT / "tests" / "README.md").read_text(encoding="utf-8")
    rows = [row for row in page.split("\n") if re.match(r"\| T\d+ \|", row)]
    named = {name for row in rows for name in re.findall(r"`([a-z_/]+\.py)`", row)}
    assert len(rows) == 16
    assert {f"chaos/{path.name}" for path in (ROOT / "tests" / "chaos").glob("test_*.py")} <= named
    assert all((ROOT / "tests" / name).exists() for name in named)


# ---- links -----------------------------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = [line.lstrip("#").strip() for line in lines_outside_code(page) if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(lines_outside_code(path.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith("http"):
            place, _, anchor = link.partition("#")
            there = (path.parent / place).resolve() if place else path
            there = there / "README.md" if there.is_dir() and anchor else there
            assert there.exists(), link
            assert not anchor or anchor in anchors(there.read_text(encoding="utf-8")), link


def test_every_ready_file_is_in_the_list() -> None:
    page = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "configs").glob("*.yaml")} == set(
        re.findall(r"\]\(([a-z0-9-]+\.yaml)\)", page)
    )


# ---- the migration file ----------------------------------------------------------------------------------------------

ENDS: dict[str, dict[str, Any]] = {
    "portkey": {"kind": "portkey", "api_key": "${PORTKEY_API_KEY}"},
    "conductor": {
        "kind": "conductor",
        "base_url": "https://conductor.example/api",
        "key_id": "${CONDUCTOR_KEY_ID}",
        "key_secret": "${CONDUCTOR_KEY_SECRET}",
    },
    "mlflow": {"kind": "mlflow", "base_url": "http://127.0.0.1:5000"},
    "phoenix": {"kind": "phoenix", "base_url": "http://localhost:6006"},
    "langfuse": {"kind": "langfuse", "public_key": "${LANGFUSE_PUBLIC_KEY}", "secret_key": "${LANGFUSE_SECRET_KEY}"},
    "files": {"kind": "files", "path": "prompts"},
}
TOGETHER = {"mlflow.username": "mlflow.password", "mlflow.password": "mlflow.username"}
"""Keys of an end that need another one beside them."""
KEYS = {
    **{"PORTKEY_API_KEY": "pk", "CONDUCTOR_KEY_ID": "id", "CONDUCTOR_KEY_SECRET": "ck", "PHOENIX_API_KEY": "xk"},
    **{"MLFLOW_TRACKING_TOKEN": "mt", "MLFLOW_TRACKING_USERNAME": "mu", "MLFLOW_TRACKING_PASSWORD": "mp"},
    **{"LANGFUSE_PUBLIC_KEY": "lp", "LANGFUSE_SECRET_KEY": "ls"},
}


def file_with(key: str) -> dict[str, Any]:
    """A migration file in which this key has the value of its example."""
    file: dict[str, Any] = {"name": "m", "source": dict(ENDS["portkey"])}
    way = key.split(".")[:-1]
    place: Any = file
    if way and way[0] in REGISTRIES:
        place = file["source"] = dict(ENDS[way.pop(0)])
    for step in way:
        place = place.setdefault(step, [{"model": "other"}] if step == "rules" else {})
        place = place[0] if isinstance(place, list) else place
    for one in (key, *([TOGETHER[key]] if key in TOGETHER else [])):
        place[one.rpartition(".")[2]] = YAML(typ="safe").load(EXAMPLES[one])
    if key.startswith("rewrite.rules.when."):
        file["rewrite"]["rules"][0].setdefault("when", {})
    return file


@pytest.mark.parametrize("key", EXAMPLES)
def test_every_example_loads(key: str, tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    for name, text in {
        "secrets/gateway.key": "gk",
        "secrets/conductor.key": "ck",
        "secrets/langfuse.key": "ls",
        "ids.txt": "pp-1\n",
        "cases.jsonl": '{"prompt": "a"}\n',
    }.items():
        (tmp_path / name).write_text(text)
    path = tmp_path / "migration.yaml"
    path.write_text(dumps_plainly(file_with(key)))
    load_migration(path, {**KEYS, "PATH": "/usr/bin:/bin"})


@pytest.mark.parametrize("key", FLEET_EXAMPLES)
def test_every_example_of_a_fleet_loads(key: str, tmp_path: Path) -> None:
    (tmp_path / "teams.csv").write_text("name\nsupport\n")
    file = {"name": "f", "defaults": {"source": {"base_url": "sandbox"}}}
    one_of = {} if key in ("migrations", "matrix", "csv") else {"migrations": [{"name": "m"}]}
    (tmp_path / "fleet.yaml").write_text(json.dumps(file | one_of | {key: YAML(typ="safe").load(FLEET_EXAMPLES[key])}))
    assert load_fleet(tmp_path / "fleet.yaml", {}).migrations


# ---- the engine ------------------------------------------------------------------------------------------------------

NAMES = sorted(
    {
        name
        for page in ("engine/README.md", "engine/connectors/README.md")
        for line in lines_outside_code((ROOT / page).read_text(encoding="utf-8"))
        for name in re.findall(r"`((?:[a-z_]+\.)+[A-Za-z_.]+)`", line)
        if (ENGINE / name.partition(".")[0]).is_dir() or (ENGINE / f"{name.partition('.')[0]}.py").exists()
    }
)


@pytest.mark.parametrize("name", NAMES)
def test_what_the_pages_name_is_there(name: str) -> None:
    if name.endswith(".py"):
        assert (ENGINE / name).exists()
        return
    module, parts = "engine", name.split(".")
    while parts and ((ENGINE.parent / module.replace(".", "/") / parts[0]).is_dir() or is_module(module, parts[0])):
        module = f"{module}.{parts.pop(0)}"
    found: Any = import_module(module)
    for part in parts:
        found = getattr(found, part)
    assert found is not None


def is_module(package: str, name: str) -> bool:
    return (ENGINE.parent / package.replace(".", "/") / f"{name}.py").exists()


@pytest.mark.parametrize("path", sorted(ENGINE.rglob("__init__.py")), ids=lambda path: path.parent.name)
def test_every_folder_says_what_lives_there_and_what_it_may_import(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert re.search(r"\bimports?\b", text.lower())
    assert len(re.findall(r"[.:](?:\s|$)", text)) >= 2
