"""The flow of `configs/operations`, run by Prefect itself: runs under `.venv-prefect`, never under ours.

Arguments: a migration, one that is refused, and the ledger of the first, which it finds in use. One line of JSON on
stdout: of each run of the flow its state, the tries of its task, and its summary.
"""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path
from typing import Any

import prefect_flow
from prefect.testing.utilities import prefect_test_harness

START_S = 200
again = 0
held: Any = None


def counted(task: Any, run: Any, state: Any) -> bool:
    """The recipe's own answer; whoever held the ledger has ended."""
    global again
    helps: bool = prefect_flow.later(task, run, state)
    again += helps
    held.close()
    return helps


def run(migration: str) -> dict[str, Any]:
    global again
    again = 0
    state: Any = prefect_flow.migrate(migration, return_state=True)
    told: Any = state.result(raise_on_failure=False)
    return {"state": state.type.value, "tries": 1 + again, "summary": getattr(told, "summary", told)}


def main() -> None:
    global held
    migration, refused, ledger = sys.argv[1:]
    held = Path(ledger).open("ab")  # noqa: SIM115 - whoever retries closes it
    fcntl.flock(held, fcntl.LOCK_EX)
    quick = prefect_flow.run_migration.with_options(
        retry_delay_seconds=0, retry_jitter_factor=0, retry_condition_fn=counted
    )
    prefect_flow.run_migration = quick
    with prefect_test_harness(server_startup_timeout=START_S):
        found = [run(migration), run(refused)]
    print(json.dumps(found))


main()
