"""What it takes to add a registry: a folder, a row of the table, a fixture of the conformance suite; nothing else."""

from __future__ import annotations

import filecmp
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.forks import ROOT, environment

TOY: Final = Path(__file__).parent / "toy"
ROW: Final = "    Registry(endpoint=FilesEndpoint, "
TABLE: Final = Path("engine/connectors/__init__.py")
SUITE: Final = Path("tests/conformance/test_conformance.py")
FIXTURE: Final = """
    "toy": Kind(open=open_toy, target=Toy, names=True, tells=False),
}
"""
OPEN_TOY: Final = """
@asynccontextmanager
async def open_toy() -> AsyncIterator[End]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "toys.json")
        async with REGISTRIES["toy"].connect(ToyEndpoint.model_construct(path=str(path)), ends.opening()) as target:

            def there() -> dict[str, Any]:
                return json.loads(path.read_text()) if path.exists() else {}

            async def plant(prompt: Prompt) -> str:
                version = {"ref": f"planted-{prompt.id}", **{name: getattr(prompt, name) for name in HELD}}
                path.write_text(json.dumps({**there(), prompt.name: {"versions": [version], "labels": {}}}))
                return prompt.name

            def draft(prompt_id: str, text: str) -> None:
                everything = there()
                versions = everything[prompt_id]["versions"]
                everything[prompt_id]["labels"]["production"] = versions[-1]["ref"]
                versions.append({**versions[-1], "ref": "drafted", "text": text})
                path.write_text(json.dumps(everything))

            async def count() -> int:
                return len(there())

            yield End(target, "c", "p", plant, count, draft)


# ---- what each of them keeps"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout with one more registry in it."""
    copy = tmp_path_factory.mktemp("toy") / "checkout"
    for name in ("engine", "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    shutil.copytree(TOY, copy / "engine/connectors/toy", ignore=shutil.ignore_patterns("__pycache__"))
    _replace(
        copy / TABLE,
        (ROW, f"    Registry(endpoint=toy.ToyEndpoint, can=toy.Toy.can, connect=toy.connect),\n{ROW}"),
        ("\nTABLE: Final", "from engine.connectors.toy import registry as toy\n\nTABLE: Final"),
    )
    _replace(
        copy / SUITE,
        (
            "\nfrom engine.content.digest",
            "\nfrom engine.connectors.toy.registry import HELD, Toy, ToyEndpoint\nfrom engine.content.digest",
        ),
        ("\n}\n\n\n@pytest.fixture(params=KINDS)", f"{FIXTURE}\n\n@pytest.fixture(params=KINDS)"),
        ("\n# ---- what each of them keeps", OPEN_TOY),
    )
    return copy


def _replace(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert text.count(old) == 1, f"{path.name} has {old!r} {text.count(old)} times"
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def _places(ours: Path, theirs: Path, below: Path = Path()) -> Iterator[str]:
    """What is new or different, a new folder once."""
    found = filecmp.dircmp(ours / below, theirs / below, ignore=["__pycache__"])
    yield from (str(below / name) for name in (*found.right_only, *found.left_only, *found.diff_files))
    for name in found.common_dirs:
        yield from _places(ours, theirs, below / name)


def _python(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    surroundings = environment(PYTHONPATH=str(checkout))
    surroundings.pop("COVERAGE_PROCESS_CONFIG", None)
    return subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=surroundings, capture_output=True, text=True, check=False
    )


def test_a_new_registry_is_three_places(checkout: Path) -> None:
    places = [place for name in ("engine", "tests") for place in _places(ROOT / name, checkout / name)]
    assert sorted(places) == ["conformance/test_conformance.py", "connectors/__init__.py", "connectors/toy"]


def test_the_conformance_suite_holds_it_to_every_promise(checkout: Path) -> None:
    suite = _python(
        checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(SUITE), "-k", "toy or every_connector"
    )
    assert suite.returncode == 0, suite.stdout[-4000:]
    assert " passed" in suite.stdout


MIGRATION: Final = """
name: NAME
source: SOURCE
target: TARGET
rewrite: {name: "{name}-NAME"}
allow_loss: [raw, tools, tool_choice, functions]
limits: {rate: 3000}
"""


def test_prompts_go_there_and_back_with_every_verb(checkout: Path, tmp_path: Path) -> None:
    there = tmp_path / "toys.json"
    routes = {
        "in": ("{base_url: sandbox}", f"{{kind: toy, path: {there}}}"),
        "out": (f"{{kind: toy, path: {there}}}", "{kind: files, path: prompts}"),
    }
    for name, (source, target) in routes.items():
        text = MIGRATION.replace("NAME", name).replace("SOURCE", source).replace("TARGET", target)
        (tmp_path / f"{name}.yaml").write_text(text)

    def ask(command: str, name: str, *flags: str) -> Any:
        done = _python(checkout, "-m", "engine", command, str(tmp_path / f"{name}.yaml"), *flags)
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    made = ask("run", "in", "--limit", "30")["this_run"]
    count = made["created"]
    assert (count + made["failed"], made["failed"] < 10) == (30, True)  # raw templates are refused by name
    assert ask("verify", "in", "--json")["counts"]["same"] == count
    held = json.loads(there.read_text())
    assert len(held) == count
    parameters = [one["versions"][-1]["parameters"] for one in held.values()]
    assert any("heat" in one for one in parameters)
    assert not any("temperature" in one for one in parameters)
    assert ask("run", "in", "--limit", "0")["this_run"]["created"] == 0
    out = ask("run", "out")
    assert (out["exit_code"], out["this_run"]["created"]) == (0, count)
    assert ask("rollback", "in", "--yes", "--json")["counts"]["deleted"] == count
    assert json.loads(there.read_text()) == {}
