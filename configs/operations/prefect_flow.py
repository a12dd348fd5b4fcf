"""Prefect 3: one migration as a flow. `python prefect_flow.py` serves it every night; Promptferry may have an
environment of its own.

- Keys: the environment of the process that serves the flow, or a Secret block loaded into `KEYS`.
- The ledger lies in LEDGERS, on a disk that outlives the process.
- `limit=1` lets two never run at once, and the ledger's own lock keeps out whoever is left (75).
- The summary, the last line that the command prints, is the result of the flow, or stands in what it raises.
- 75 ("later") is tried again; 1, 2, 3 and 4 need a person first and fail at once, whatever `retries` says.
- A flow run that is cancelled gets SIGTERM and hands it on: what is in flight ends within 10 s, and the next run goes
  on. The runner kills it after 30 s.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

from prefect import flow, task

COMMAND = os.environ.get("PROMPTFERRY_COMMAND", "/opt/promptferry/bin/promptferry")
MIGRATION = os.environ.get("PROMPTFERRY_MIGRATION", "/etc/promptferry/migration.yaml")
LEDGERS = os.environ.get("PROMPTFERRY_LEDGER_DIR", "/var/lib/promptferry")
KEYS: Mapping[str, str] = {}
RETRY_LATER = 75


class Stopped(Exception):
    """The run ended with something else than 0. `summary`: its last line."""

    def __init__(self, summary: dict[str, Any]) -> None:
        super().__init__(summary)
        self.summary = summary

    def __str__(self) -> str:
        told = self.summary
        return f"exit code {told['exit_code']}, {told['reason']}: {told['message']} {told['next']}"


def later(_task: Any, _run: Any, state: Any) -> bool:
    """Whether trying again helps."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Stopped) and error.summary["exit_code"] == RETRY_LATER


@task(retries=6, retry_delay_seconds=300, retry_jitter_factor=0.5, retry_condition_fn=later)
def run_migration(migration: str, *flags: str) -> dict[str, Any]:
    """The summary."""
    env = {**os.environ, **KEYS, "PROMPTFERRY_LEDGER_DIR": LEDGERS}
    with subprocess.Popen([COMMAND, "run", migration, *flags], env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            told, _ = process.communicate()
        except BaseException:  # a cancelled flow run; leaving the block waits for the command
            process.terminate()
            raise
    summary: dict[str, Any] = json.loads(told.splitlines()[-1])
    if process.returncode:
        raise Stopped(summary)
    return summary


@flow(name="promptferry")
def migrate(migration: str = MIGRATION) -> dict[str, Any]:
    """The summary of the run that did the rest."""
    return run_migration(migration, "--max-duration", "6h")


if __name__ == "__main__":
    migrate.serve(name="nightly", cron="0 2 * * *", limit=1)
