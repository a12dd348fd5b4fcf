"""The distribution: built and checked as for publishing, installed where nothing is, and run by one line."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from tests.real.servers import environment_of
from tests.real.tools import ROOT, needed, passed, ran

BIN = Path(sys.executable).parent
UV = BIN / "uv"
EXACT = ("--system-certs", "--quiet", "--constraint", ROOT / ".ci" / "constraints.txt")
DEMO = ROOT / "configs" / "sandbox.yaml"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both distributions, built from a copy: a build leaves things beside what it builds."""
    folder = tmp_path_factory.mktemp("dist")
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "ledgers", "build", "dist", "__pycache__")
    source = shutil.copytree(ROOT, folder / "source", ignore=left_out)
    path = {"PATH": f"{BIN}:{environment_of('operations')}:/usr/bin:/bin"}
    tools = environment_of("operations")
    told = passed(tools / "python", "-m", "build", "--installer", "uv", "--outdir", folder, cwd=source, env=path)
    assert "Successfully built" in told
    passed(tools / "twine", "check", "--strict", *folder.glob("promptferry-*"), cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel and what it asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    passed(UV, "venv", "--quiet", "--python", sys.executable, folder / "v", cwd=folder)
    where = ("--python", folder / "v" / "bin" / "python")
    passed(UV, "pip", "install", *EXACT, *where, f"promptferry[sandbox] @ {wheel.as_uri()}", cwd=folder)
    return folder / "v"


def test_the_demo_runs_where_nothing_but_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    shutil.copy(DEMO, tmp_path / "demo.yaml")
    for created in (200, 0):
        ended = ran(installed / "bin" / "promptferry", "run", "demo.yaml", cwd=tmp_path)
        assert (ended.code, ended.summary["this_run"]["created"]) == (0, created), ended.err
    passed(installed / "bin" / "promptferry", "report", "demo.yaml", "--html", "report.html", cwd=tmp_path)
    assert "</html>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_templates_and_types_are_in_the_wheel(installed: Path, wheel: Path, tmp_path: Path) -> None:
    there = "from engine.verbs import compare; from importlib.resources import files; "
    there += (
        "print(len(files(compare).joinpath('page.html').read_bytes()), files('engine').joinpath('py.typed').is_file())"
    )
    size, typed = passed(installed / "bin" / "python", "-c", there, cwd=tmp_path).split()
    assert (int(size) > 1000, typed) == (True, "True")


def test_the_manual_page_is_where_man_finds_it(installed: Path, tmp_path: Path) -> None:
    man, share = needed("man"), installed / "share" / "man"
    page = passed(man, "-M", share, "-P", "cat", "promptferry", cwd=tmp_path, env={"MANWIDTH": "80", "LC_ALL": "C"})
    assert "EXIT STATUS" in page
    warned = ran(man, "--warnings", "-l", share / "man1" / "promptferry.1", cwd=tmp_path, env={"LC_ALL": "C.UTF-8"})
    assert (warned.code, warned.err) == (0, "")
    assert passed(needed("mandoc"), "-Tlint", share / "man1" / "promptferry.1", cwd=tmp_path) == ""


def test_one_line_runs_it_from_an_index(dist: Path, tmp_path: Path) -> None:
    shutil.copy(DEMO, tmp_path / "demo.yaml")
    constraints = ("--constraints", ROOT / ".ci" / "constraints.txt")
    index = ("--system-certs", "--quiet", "--find-links", dist, "--refresh-package", "promptferry", *constraints)
    home = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_PYTHON": sys.executable}
    command = (UV, "tool", "run", *index, "--from", "promptferry[sandbox]", "promptferry")
    ended = ran(*command, "run", "demo.yaml", "--limit", "5", cwd=tmp_path, env=home)
    assert (ended.code, ended.summary["this_run"]["created"]) == (0, 5), ended.err


def test_the_source_has_the_ready_files_and_no_half_of_the_tests(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"CHANGELOG.md", "LICENSE", "README.md", "engine/cli/promptferry.1", "configs/sandbox.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests", "configs/ledgers"))]
