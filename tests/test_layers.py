"""Which module may import which of ours, and who may touch what: the shape of the engine, held still."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "engine"

# Parts: the folders and files directly in the engine. Each may import what stands behind it.
ALLOWED = {
    "errors": "",
    "log": "",
    "lossless_json": "",
    "model": "lossless_json",
    "taskgroup": "errors",
    "content": "model lossless_json",
    "durable": "errors",
    "ledger": "durable content model errors lossless_json",
    "http": "__init__ errors log lossless_json",
    "connectors": "http content model errors log lossless_json taskgroup durable",
    "migrate": "content ledger model errors log taskgroup",
    "config": "connectors content model errors lossless_json",
    "verbs": "migrate ledger durable content model errors lossless_json log taskgroup",
    "sandbox": "",
    "session": "connectors config http migrate ledger content model errors taskgroup sandbox",
    "run": "__init__ session config verbs migrate ledger content http model errors taskgroup",
    "fleet": "run session config verbs migrate ledger content http errors log taskgroup",
    "cluster": "__init__ session config http migrate ledger content model errors log taskgroup",
    "web": "__init__ ledger model errors",
    "__init__": "run config durable",
    "cli": "__init__ web fleet cluster run session config verbs migrate ledger durable content http model errors log"
    " taskgroup lossless_json sandbox",
    "__main__": "cli",
}
LAZY = {("session", "sandbox"), *(("__init__", part) for part in ("run", "config", "durable"))}
"""What is loaded when it is asked for: a server that a real migration never needs, and that need not be installed; and
what `import engine` offers, so that whoever wants to know its version need not load all of it."""


def modules() -> dict[str, ast.Module]:
    """Name without `engine.` -> its tree."""
    found = {}
    for path in sorted(ENGINE.rglob("*.py")):
        parts = path.relative_to(ENGINE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()
PACKAGE = "__init__"
OWN_PART = {"ledger.durable": "durable"}
"""A module that others may import than those who may import its folder."""


def part_of(module: str) -> str:
    """The part that a module belongs to."""
    return OWN_PART.get(module) or module.partition(".")[0]


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


def test_the_engine_is_no_flat_heap() -> None:
    """A reader sees the whole of it at a glance; what is new finds its place inside."""
    entries = {path.name for path in ENGINE.iterdir()} - {"__pycache__", "__init__.py", "__main__.py", "py.typed"}
    assert len(entries) <= 20, sorted(entries)


ARROWS = {
    (part_of(module), part_of(other))
    for module, tree in MODULES.items()
    for other in ours(tree)
    if part_of(module) != part_of(other)
}


def test_every_module_has_its_place_in_the_table() -> None:
    assert {part_of(module) for module in MODULES} == set(ALLOWED)


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
    exact = {part: others.split() for part, others in ALLOWED.items() if part != "cli"}
    assert {(part, other) for part, others in exact.items() for other in others} - ARROWS == set()


def test_nothing_imports_the_command_line() -> None:
    assert {part for part, other in ARROWS if other == "cli"} == {"__main__"}


def test_the_core_knows_no_connector() -> None:
    assert {part for part, other in ARROWS if other == "connectors"} <= {"session", "config", "connectors", "verbs"}


REGISTRY_WORDS = ("portkey", "conductor", "mlflow", "phoenix", "langfuse", "langsmith")
CORE = ("errors", "taskgroup", "content", "ledger", "http", "migrate", "verbs", "after_run", "run", "session")


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in CORE])
def test_the_core_names_no_registry(module: str) -> None:
    """What is said of one comes from its connector; docstrings may tell why something is as it is."""
    nodes = list(ast.walk(MODULES[module]))
    told = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    said = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
    ]
    assert [text for text in said if any(word in text.lower() for word in REGISTRY_WORDS)] == []


# ---- who may use what ------------------------------------------------------------------------------------------------


def users(package: str) -> set[str]:
    return {part_of(module) for module, tree in MODULES.items() if package in foreign(tree)}


def test_the_client_of_aiohttp_is_in_one_file() -> None:
    served = {module for module in MODULES if part_of(module) == "sandbox"} | {"web.serve"}
    assert {module for module, tree in MODULES.items() if "aiohttp" in foreign(tree)} - served == {"http.session"}
    for module in served:
        assert {name for name in imported(MODULES[module]) if name.startswith("aiohttp")} <= {"aiohttp"}
        assert "ClientSession" not in ast.unparse(MODULES[module])


def test_pydantic_stands_at_the_edge() -> None:
    edges = {module for module, tree in MODULES.items() if "pydantic" in foreign(tree) and part_of(module) != "config"}
    ends = {module for module in MODULES if module.startswith("connectors.") and module.endswith(".endpoint")}
    assert edges == ends | {"connectors.endpoint", "connectors.fields"}


def test_ray_is_loaded_by_one_file_which_is_loaded_when_it_is_asked_for() -> None:
    """It is an extra: whoever has no cluster need not have it."""
    assert {module for module, tree in MODULES.items() if "ray" in foreign(tree)} == {"cluster.on_ray"}
    assert not [module for module, tree in MODULES.items() if "cluster.on_ray" in ours(tree)]


def test_typer_and_rich_are_for_the_command_line() -> None:
    assert users("typer") == {"cli"}
    assert users("rich") == {"cli"}


def test_rich_is_loaded_only_where_something_is_shown() -> None:
    for module, tree in MODULES.items():
        assert "rich" not in foreign(_at_load(tree)), module


PURE = ("ledger.lines", "ledger.state", "ledger.report", "migrate.entries", "migrate.task", "model", "errors")
READS = "content.textfile"
"""It reads what people hand us: the one file of its folder that touches files."""
IMPURE = {"random", "time", "os", "secrets", "asyncio", "anyio", "socket", "subprocess", "pathlib", "io"}


@pytest.mark.parametrize(
    "module", [module for module in MODULES if module in PURE or (part_of(module) == "content" and module != READS)]
)
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
    assert {module for module in readers if part_of(module) not in ("cli", "config")} == {"connectors.fields"}


def test_nothing_is_caught_that_is_a_bug() -> None:
    for module, tree in MODULES.items():
        caught = {
            ast.unparse(node.type) for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type
        }
        assert "Exception" not in caught or module == "cli.start", module  # it says that it is a bug, and stops
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None], (
            module
        )
