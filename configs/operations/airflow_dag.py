"""Airflow 3: one migration every night. Put this file into the DAG folder; Promptferry has an environment of its own.

- Keys: the password of the connection `portkey`; rendered into the environment of the task, masked where it is shown.
- The ledger lies in LEDGERS, on a disk that every worker of this queue sees and that outlives them.
- `max_active_runs=1` lets two never run at once, and the ledger's own lock keeps out whoever is left (75).
- The summary, which is also the last line that the command prints, is the XCom of the task, however it ended.
- 75 ("later") is tried again; 1, 2, 3 and 4 need a person first and fail at once, whatever `retries` says.
- A task that is killed or timed out sends SIGTERM: what is in flight ends within 10 s, and the next run goes on. So
  `[core] killed_task_cleanup_time` has to stay above that (60 by default).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Context
from airflow.sdk.exceptions import AirflowException, AirflowFailException

COMMAND = os.environ.get("PROMPTFERRY_COMMAND", "/opt/promptferry/bin/promptferry")
MIGRATION = os.environ.get("PROMPTFERRY_MIGRATION", "/etc/promptferry/migration.yaml")
LEDGERS = os.environ.get("PROMPTFERRY_LEDGER_DIR", "/var/lib/promptferry")
RETRY_LATER = 75


class PromptferryOperator(BaseOperator):
    """Runs a migration."""

    template_fields: Sequence[str] = ("migration", "flags", "env")

    def __init__(self, *, migration: str, flags: Sequence[str] = (), env: Mapping[str, str], **more: Any) -> None:
        super().__init__(**more)
        self.migration = migration
        self.flags = list(flags)
        self.env = dict(env)
        self.process = SubprocessHook()

    def execute(self, context: Context) -> dict[str, Any]:
        """The summary. An exception says whether trying again helps."""
        with TemporaryDirectory() as folder:  # what the hook gives as output may end with a line of the log
            told = Path(folder, "summary.json")
            command = [COMMAND, "run", self.migration, *self.flags, "--summary", str(told)]
            ended = self.process.run_command(command, env={**os.environ, **self.env})
            summary: dict[str, Any] = json.loads(told.read_text())
        if ended.exit_code:
            context["ti"].xcom_push(key="return_value", value=summary)
            why = f"exit code {ended.exit_code}, {summary['reason']}: {summary['message']} {summary['next']}"
            raise (AirflowException if ended.exit_code == RETRY_LATER else AirflowFailException)(why)
        return summary

    def on_kill(self) -> None:
        """The task is to end: so does the command, which leaves a whole ledger."""
        self.process.send_sigterm()


with DAG(
    dag_id="promptferry",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 6, "retry_delay": timedelta(minutes=5), "retry_exponential_backoff": True},
) as dag:
    PromptferryOperator(
        task_id="run",
        migration=MIGRATION,
        flags=["--max-duration", "6h"],
        env={
            "PORTKEY_API_KEY": "{{ conn.get('portkey').password if conn.get('portkey') else '' }}",
            "PROMPTFERRY_LEDGER_DIR": LEDGERS,
        },
        execution_timeout=timedelta(hours=7),
    )
