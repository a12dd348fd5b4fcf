"""What a prompt costs: this engine beside other ways to send the same two requests."""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:  # reached as tests.benchmarks: pytest finds this folder by itself
    sys.path.insert(0, _TESTS)
