"""Ledgers that version 0.1.0 wrote before the engine had packages: they go on, and are judged as they were.

Each lies beside the store of its sandbox: `replicate`, `history` and `conductor` were killed in the middle (one with a
create in doubt, one between the versions of a prompt, one that had failed before under other rules), `update` waits to
be published. What is expected is what 0.1.0 itself made of a copy.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.e2e import promptferry

OLD = Path(__file__).parents[1] / "data" / "ledgers-0.1.0"
RESUMED = {
    "replicate": (0, {"listed": 21, "selected": 16, "created": 11, "unchanged": 5}),
    "update": (0, {"listed": 16, "selected": 9, "unchanged": 9}),
    "conductor": (1, {"listed": 16, "selected": 16, "created": 4, "unchanged": 1, "failed": 11}),
    "history": (0, {"listed": 12, "selected": 12, "created": 9, "unchanged": 3}),
}
SAME = {"replicate": 16, "update": 9, "conductor": 5, "history": 12}


@pytest.fixture(params=RESUMED)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The migration file of one of them, in a folder of its own with ledger and store."""
    name: str = request.param
    for path in OLD.glob(f"{name}.*"):
        if path.suffix == ".gz":
            (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, tmp_path)
    return tmp_path / f"{name}.yaml"


def test_a_ledger_of_the_last_release_resumes_and_what_it_made_is_proved(old: Path) -> None:
    exit_code, counts = RESUMED[old.stem]
    summary = promptferry("run", old, "--yes", cwd=old.parent).summary
    assert (summary["exit_code"], {name: count for name, count in summary["counts"].items() if count}) == (
        exit_code,
        counts,
    )
    verified = promptferry("verify", old, "--json", cwd=old.parent).json
    assert {name: count for name, count in verified["counts"].items() if count} == {"same": SAME[old.stem]}
    again = promptferry("run", old, "--yes", cwd=old.parent).summary
    assert not again["this_run"]["created"] + again["this_run"]["updated"]


def test_a_ledger_of_the_last_release_is_whole_and_can_be_compacted(old: Path) -> None:
    ledger = old.with_suffix(".jsonl")
    assert promptferry("ledger", "check", ledger, cwd=old.parent).code == 0
    before = promptferry("ids", ledger, "--format", "json", cwd=old.parent).json
    assert before
    done = promptferry("ledger", "compact", ledger, cwd=old.parent)
    assert done.code == 0, done.err
    assert promptferry("ids", ledger, "--format", "json", cwd=old.parent).json == before
    assert all(json.loads(line)["v"] == 1 for line in ledger.read_text().splitlines())
    assert promptferry("run", old, "--yes", cwd=old.parent).code == RESUMED[old.stem][0]
