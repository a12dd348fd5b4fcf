"""Looks at pages in the browser that `make servers` finds or installs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

MODULE: Final = Path(__file__).resolve().parents[2] / ".npm-browser"
CHROMIUM: Final = shutil.which("chromium")
LONGEST_S: Final = 280


def looked(looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What one browser saw, look by look; see page.mjs. To start it takes seconds."""
    asked = json.dumps({"module": str(MODULE), "chromium": CHROMIUM, "looks": looks})
    command = ["node", str(Path(__file__).with_name("page.mjs")), asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_S, check=False)
    assert done.returncode == 0, done.stderr
    seen: list[dict[str, Any]] = json.loads(done.stdout)
    return seen
