"""Real MLflow and Phoenix servers, started from their packages: what is proved here is proved on registries that no one
here wrote. `make test-real` sets all of it up; an environment that is missing is a failure.
"""

import sys
from pathlib import Path

_TESTS = str(Path(__file__).resolve().parent.parent)
if _TESTS not in sys.path:  # reached as tests.real: pytest finds this folder by itself
    sys.path.insert(0, _TESTS)
