"""The DAG of `configs/operations`, run by Airflow itself: runs under `.venv-airflow`, never under ours.

Arguments: a migration, one that is refused, and the ledger of the first, which it finds in use. One line of JSON on
stdout: of each run of the DAG its state, the tries of its task, and the XCom of it.
"""

from __future__ import annotations

import fcntl
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow_dag import dag  # Airflow finds it as it finds every DAG: in its folder


def run(migration: str, **more: Any) -> dict[str, Any]:
    task: Any = dag.get_task("run")
    task.migration, task.flags = migration, ["--quiet"]
    task.retry_delay, task.retry_exponential_backoff = timedelta(0), False
    for name, value in more.items():
        setattr(task, name, value)
    (ended,) = dag.test().get_task_instances()
    return {"state": str(ended.state), "tries": ended.try_number, "xcom": ended.xcom_pull(task_ids="run")}


def main() -> None:
    migration, refused, ledger = sys.argv[1:]
    held = Path(ledger).open("ab")  # noqa: SIM115 - whoever retries closes it
    fcntl.flock(held, fcntl.LOCK_EX)
    found = [
        run(migration, on_retry_callback=[lambda _context: held.close()]),
        run(refused, on_retry_callback=[]),
    ]
    print(json.dumps(found))


main()
