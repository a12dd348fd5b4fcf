"""What the command costs: memory by the number of prompts, and the time until it says anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.e2e import separate, write_migration
from tests.forks import ROOT, environment

PROMPTS: Final = int(os.environ.get("PROMPTFERRY_SCALE_PROMPTS", "5000"))
"""20000 by hand."""
FEW: Final = 200
MIB_FOR_20000: Final = 22
HELP_CPU_SECONDS: Final = 0.4

MEASURED: Final = (
    "import json, resource, subprocess, sys\n"
    "done = subprocess.run([sys.executable, *sys.argv[1:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)\n"
    "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
    "print(json.dumps([done.returncode, used.ru_maxrss, used.ru_utime + used.ru_stime, done.stdout.decode()]))\n"
)


def measured(arguments: Sequence[str], *, cwd: Path, key: str = "") -> tuple[float, float, str]:
    """Peak memory in MiB and CPU seconds of a Python that exits with 0, and what it printed."""
    env = {name: value for name, value in environment(KEY=key).items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], cwd=cwd, env=env, capture_output=True, timeout=300, check=True
    )
    code, kilobytes, seconds, out = json.loads(done.stdout)
    assert code == 0, out
    return kilobytes / 1024, seconds, out


def peak(folder: Path, prompts: int) -> float:
    """MiB of a run over so many prompts."""
    folder.mkdir()
    with separate(folder / "store.sqlite", "--prompts", str(prompts)) as registry:
        path = write_migration(folder, registry.base_url, limits={"rate": 5000})
        memory, _, out = measured(["-m", "engine", "run", str(path)], cwd=folder, key=registry.api_key)
    assert json.loads(out)["counts"]["created"] == prompts
    return memory


def test_memory_grows_by_a_small_row_a_prompt(tmp_path: Path) -> None:
    grown = peak(tmp_path / "many", PROMPTS) - peak(tmp_path / "few", FEW)
    print(f"{grown:.1f} MiB more for {PROMPTS} prompts than for {FEW}")
    assert grown <= MIB_FOR_20000 * PROMPTS / 20_000


def test_help_answers_at_once(tmp_path: Path) -> None:
    seconds = min(measured(["-m", "engine", "--help"], cwd=tmp_path)[1] for _ in range(3))
    assert seconds <= HELP_CPU_SECONDS


def test_help_imports_nothing_heavy_and_a_run_without_a_terminal_no_display(tmp_path: Path) -> None:
    shown = (
        "import sys\nfrom engine.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(*sorted({'aiohttp', 'pydantic', 'anyio', 'rich.progress'} & sys.modules.keys()))"
    )
    _, _, out = measured(["-c", shown, "--help"], cwd=tmp_path)
    assert out.splitlines()[-1] == ""
    run = ("run", str(ROOT / "configs" / "sandbox.yaml"), "--ledger", "l.jsonl", "--limit", "3")
    _, _, out = measured(["-c", shown, *run], cwd=tmp_path)
    assert out.splitlines()[-1] == "aiohttp anyio pydantic"
