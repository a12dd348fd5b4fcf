"""Campaigns that kill, starve and lie to whole runs, and judge them by what the registry really holds.

`python -m tests.chaos` runs the long form and prints one table; pytest runs a small share of each.
"""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:  # reached as tests.chaos: pytest finds the helpers beside this folder by itself
    sys.path.insert(0, _TESTS)
