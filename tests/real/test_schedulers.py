"""The recipes for Airflow and Prefect, run by these: what is retried, what is not, and where the summary is found."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.real.servers import environment_of
from tests.real.tools import RECIPES, ROOT, passed

CLIENTS = Path(__file__).with_name("clients")
COMMAND = Path(sys.executable).with_name("promptferry")
PREPARATION = {
    "airflow": {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "AIRFLOW__CORE__DAGS_FOLDER": str(RECIPES),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "false",
    },
    "prefect": {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_LEVEL": "WARNING"},
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", PREPARATION)
def test_later_is_retried_and_what_a_person_must_mend_is_not(name: str, tmp_path: Path) -> None:
    programs = environment_of(name)
    migration = shutil.copy(ROOT / "configs" / "sandbox.yaml", tmp_path / "demo.yaml")
    ledgers = tmp_path / "ledgers"
    ledgers.mkdir()
    env = PREPARATION[name] | {
        "HOME": str(tmp_path),
        "AIRFLOW_HOME": str(tmp_path),
        "PROMPTFERRY_COMMAND": str(COMMAND),
        "PROMPTFERRY_LEDGER_DIR": str(ledgers),
        "PYTHONPATH": str(RECIPES),
    }
    if name == "airflow":
        passed(programs / "airflow", "db", "migrate", cwd=tmp_path, env=env)
    script, ledger = CLIENTS / f"recipe_{name}.py", ledgers / "demo.jsonl"
    told = passed(programs / "python", script, migration, tmp_path / "none.yaml", ledger, cwd=tmp_path, env=env)
    done, refused = json.loads(told.splitlines()[-1])
    assert (done["state"].lower(), done["tries"], read(done)["exit_code"]) == (done_word(name), 2, 0)
    assert read(done)["this_run"]["created"] == 200
    assert (refused["state"].lower(), refused["tries"]) == ("failed", 1)
    assert (read(refused)["exit_code"], read(refused)["reason"]) == (2, "config")


def read(run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = run.get("xcom") or run["summary"]
    return found


def done_word(name: str) -> str:
    return {"airflow": "success", "prefect": "completed"}[name]
