"""Which module may import which of ours, and who may touch what: the shape of the engine, held still."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "engine"

# Parts: a file, a folder, or files that are one thing in several files. Each part may import what stands behind it, and
# `model`, `errors` and `log` may be imported by all that are not pure.
PARTS = {
    "config": "config",
    "sandbox": "sandbox",
    "cli": "cli",
    "rewrite": "rewrite parameters selection translate",
    "http": "http client answers health scrub",
    "registry": "connectors.portkey connectors.portkey_probe connectors.portkey_gateway"
    " connectors.walk connectors.outcomes"
    " connectors.conductor connectors.conductor_bulk connectors.conductor_format",
    "files": "connectors.files connectors.files_folder connectors.files_lines"
    " connectors.files_listing connectors.files_tree"
    " connectors.files_format connectors.files_store connectors.files_yaml",
    "memory": "connectors.memory",
    "app": "app verbs",
    "connectors": "connectors",
    "api": "__init__",
    "main": "__main__",
}
ALLOWED = {
    "model": "numbers",
    "numbers": "",
    "errors": "",
    "log": "",
    "sandbox": "",
    "starter": "",
    "wire": "numbers",
    "tasks": "errors",
    "disk": "errors",
    "textfile": "",
    # pure
    "digest": "model numbers",
    "rewrite": "model numbers digest",
    "ledger": "model",
    "rate_search": "",
    "concurrency_search": "",
    "chosen": "model rewrite",
    "inventory": "model rewrite",
    "report": "errors ledger",
    # the edges
    "config": "model numbers errors textfile",
    "ledgerfile": "model errors ledger disk",
    "sink": "model errors ledger ledgerfile disk",
    "mend": "model errors ledger ledgerfile disk",
    "throttle": "errors log rate_search concurrency_search",
    "http": "errors throttle wire api",
    "registry": "model errors http throttle wire digest tasks",
    "files": "model numbers errors log wire digest disk textfile",
    "memory": "model errors",
    "connectors": "model registry files",
    "status": "model ledgerfile ledger chosen report",
    # the core: protocols, never a connector
    "job": "model errors rewrite digest tasks",
    "entries": "model errors job rewrite",
    "lookup": "model errors job digest tasks",
    "copies": "model errors wire disk",
    "interrupt": "errors job tasks",
    "made": "model chosen ledgerfile",
    "cases": "model errors textfile wire",
    "render": "model errors rewrite digest cases",
    "completions": "model",
    "flow": "model errors log job digest ledger sink copies survey",
    "trial": "model errors log job digest ledger flow entries survey post tasks",
    "decide": "model errors job digest ledger entries survey",
    "post": "model errors job digest flow entries survey decide",
    "verify": "model errors job rewrite digest flow entries lookup made cases render completions tasks",
    "publish": "errors job flow entries made tasks",
    "rollback": "model errors job digest flow entries made tasks",
    "adopt": "model errors job digest lookup",
    "moved": "model errors job rewrite digest ledger entries lookup",
    "survey": "model job rewrite ledger entries adopt lookup moved tasks",
    "pipeline": "errors job flow entries survey decide post tasks trial",
    "reconcile": "model log job flow entries lookup survey pipeline tasks trial",
    "planner": "model errors job rewrite digest ledger survey decide tasks",
    "planfile": "errors job ledger planner textfile",
    "check": "model errors job rewrite lookup tasks",
    # the top
    "ends": "model errors config connectors http throttle job lookup rewrite check tasks sandbox",
    "api": "app config disk",
    "main": "cli",
}
ALLOWED["app"] = " ".join(ALLOWED)  # everything but the command line
ALLOWED["cli"] = " ".join(ALLOWED)
LAZY = {("ends", "sandbox"), ("http", "api"), ("app", "api")}
"""Arrows that may turn: an import inside a function, and the version number of the package itself."""


def modules() -> dict[str, ast.Module]:
    """Name without `engine.` -> its tree."""
    found = {}
    for path in sorted(ENGINE.rglob("*.py")):
        parts = path.relative_to(ENGINE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()
PART_OF = {member: part for part, members in PARTS.items() for member in members.split()}


def part_of(module: str) -> str:
    """The part that a module belongs to."""
    return PART_OF.get(module) or PART_OF.get(module.partition(".")[0]) or module


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of all that is imported, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole.removeprefix("engine.") in MODULES else str(node.module)


def ours(tree: ast.AST) -> set[str]:
    """Our modules that are imported; `__init__` is the package itself."""
    names = {name for name in imported(tree) if name.partition(".")[0] == "engine"}
    return {name.removeprefix("engine.") if name != "engine" else "__init__" for name in names}


def foreign(tree: ast.AST) -> set[str]:
    """Top names of what is not ours."""
    return {name.partition(".")[0] for name in imported(tree)} - {"engine"}


ARROWS = {
    (part_of(module), part_of(other))
    for module, tree in MODULES.items()
    for other in ours(tree)
    if part_of(module) != part_of(other)
}


def test_every_module_has_its_place_in_the_table() -> None:
    assert {part_of(module) for module in MODULES} == set(ALLOWED)


def test_the_parts_name_modules_that_are_there() -> None:
    members = {member for part in PARTS.values() for member in part.split()}
    assert members <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_what_it_may(module: str) -> None:
    part = part_of(module)
    turned = {part_of(other) for other in ours(MODULES[module])} - {part} - set(ALLOWED[part].split())
    assert turned == set()


def test_no_two_parts_import_each_other_even_in_a_ring() -> None:
    graph: dict[str, set[str]] = {part: set() for part in ALLOWED}
    for part, other in ARROWS - LAZY:
        graph[part].add(other)
    assert len(list(TopologicalSorter(graph).static_order())) == len(ALLOWED)  # CycleError names a ring


def test_no_two_modules_import_each_other_while_they_are_loaded() -> None:
    graph = {
        module: {other for other in ours(_at_load(tree)) if other != "__init__" and other != module}
        for module, tree in MODULES.items()
        if module not in ("__init__", "__main__")
    }
    # a module of a package loads the package first: that may import it, but nothing that imports the package
    graph = {
        module: {other for other in others if not module.startswith(f"{other}.")} for module, others in graph.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def _at_load(tree: ast.Module) -> ast.Module:
    """Without what is imported for type checkers and inside of functions."""
    body = [
        node
        for node in tree.body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(body=body, type_ignores=[])


def test_no_arrow_of_the_table_is_unused() -> None:
    """A table that allows more than there is hides the next arrow that turns."""
    exact = {part: others.split() for part, others in ALLOWED.items() if part not in ("app", "cli")}
    assert {(part, other) for part, others in exact.items() for other in others} - ARROWS == set()


def test_nothing_imports_the_command_line() -> None:
    assert {part for part, other in ARROWS if other == "cli"} == {"main"}


def test_the_core_knows_no_connector() -> None:
    assert {part for part, other in ARROWS if other in ("connectors", "registry", "memory")} <= {"ends", "connectors"}


# ---- who may use what ------------------------------------------------------------------------------------------------


def users(package: str) -> set[str]:
    return {part_of(module) for module, tree in MODULES.items() if package in foreign(tree)}


def test_the_client_of_aiohttp_is_in_one_file() -> None:
    assert {module for module, tree in MODULES.items() if "aiohttp" in foreign(tree)} - {
        module for module in MODULES if part_of(module) == "sandbox"
    } == {"http"}
    for module, tree in MODULES.items():
        if part_of(module) == "sandbox":
            assert {name for name in imported(tree) if name.startswith("aiohttp")} <= {"aiohttp"}
            assert "ClientSession" not in ast.unparse(tree)


def test_pydantic_stands_at_the_edge() -> None:
    assert users("pydantic") == {"config"}


def test_typer_and_rich_are_for_the_command_line() -> None:
    assert users("typer") == {"cli"}
    assert users("rich") == {"cli"}


def test_rich_is_loaded_only_where_something_is_shown() -> None:
    for module, tree in MODULES.items():
        assert "rich" not in foreign(_at_load(tree)), module


PURE = ("rewrite", "ledger", "report", "chosen", "inventory", "entries", "model", "errors")
IMPURE = {"random", "time", "os", "secrets", "asyncio", "anyio", "socket", "subprocess", "pathlib", "io"}


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in PURE])
def test_what_is_pure_has_no_await_no_clock_no_chance_and_no_file(module: str) -> None:
    tree = MODULES[module]
    assert foreign(tree) & IMPURE == set()
    nodes = list(ast.walk(tree))
    if module != "model":  # protocols are promises, not code
        assert not [node for node in nodes if isinstance(node, ast.Await | ast.AsyncFunctionDef)]
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    assert not calls & {"open", "print", "input", "datetime.now", "datetime.utcnow", "datetime.today"}


def test_only_the_configuration_reads_the_environment() -> None:
    readers = {
        module
        for module, tree in MODULES.items()
        if any(isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") for node in ast.walk(tree))
    }
    assert {part_of(module) for module in readers} <= {"cli", "api", "config", "starter"}


def test_nothing_is_caught_that_is_a_bug() -> None:
    for module, tree in MODULES.items():
        caught = {
            ast.unparse(node.type) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type
        }
        assert "Exception" not in caught or module == "cli.start", module  # it says that it is a bug, and stops
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None], (
            module
        )
