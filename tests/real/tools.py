"""Programs that are not ours: of the system, without which tests are skipped, and of what `make servers` makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import Ended
from tests.real.servers import surroundings

ROOT: Final = Path(__file__).resolve().parents[2]
RECIPES: Final = ROOT / "configs" / "operations"
PATIENCE_S: Final = 600
"""Some import a thousand modules, on a busy machine."""


def needed(program: str) -> str:
    """Its path; the test is skipped where the system does not have it."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"needs {program}, which `make servers` installs on Debian as root")
    return found


def ran(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None, text: str = "") -> Ended:
    """Runs a program to its end. `text`: on its standard input."""
    process = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=surroundings(**(env or {})),
        input=text,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE_S,
    )
    return Ended(process.returncode, process.stdout, process.stderr)


def passed(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None, text: str = "") -> str:
    """What it wrote to stdout; it ended well."""
    ended = ran(*command, cwd=cwd, env=env, text=text)
    assert ended.code == 0, ended.out + ended.err
    return ended.out
