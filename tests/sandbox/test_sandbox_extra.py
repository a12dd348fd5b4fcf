"""The sandbox is an extra: without it, whoever asks for it is told what to install, and everything else works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = "import sys; sys.modules['mystace'] = None; sys.argv[0] = 'promptferry'; from engine.cli import main; main()"
FILE = "name: m\nsource: {base_url: sandbox}\n"


def without_it(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command where mystace is not installed."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("words", [("sandbox",), ("run", "m.yaml"), ("check", "m.yaml"), ("plan", "m.yaml")])
def test_it_says_what_to_install(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "m.yaml").write_text(FILE)
    done = without_it(tmp_path, *words)
    assert done.returncode == 2
    assert "pip install 'promptferry[sandbox]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_needs_no_sandbox_works_without_it(tmp_path: Path) -> None:
    (tmp_path / "one.md").write_text("---\nname: one\n---\nHello {{name}}\n")
    (tmp_path / "m.yaml").write_text(
        "name: m\nsource: {kind: files, path: .}\ntarget: {kind: files, path: out.jsonl}\n"
    )
    done = without_it(tmp_path, "run", "m.yaml")
    assert done.returncode == 0, done.stderr
