"""The commands that look and do not touch, as a newcomer and an operator run them."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from engine.cli.common import Common, is_migration
from engine.sandbox import FAULTS, SandboxOptions
from tests.e2e import Ended, lines, promptferry, served, started, write_migration
from tests.forks import ROOT

FAST = ("--rate", "3000")


def demo(folder: Path) -> Path:
    return Path(shutil.copy(ROOT / "configs" / "sandbox.yaml", folder / "demo.yaml"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo that has been run: demo.yaml and its ledger."""
    folder = tmp_path_factory.mktemp("done")
    demo(folder)
    assert promptferry("run", "demo.yaml", *FAST, cwd=folder).code == 0
    return folder


def refused(ended: Ended) -> str:
    """The sentence of a refusal: exit code 2, nothing on stdout."""
    assert (ended.code, ended.out) == (2, "")
    return ended.sentence()


# ---- the demo --------------------------------------------------------------------------------------------------------


def test_the_demo_creates_everything_and_the_second_time_has_nothing_to_do(tmp_path: Path) -> None:
    demo(tmp_path)
    first = promptferry("run", "demo.yaml", *FAST, cwd=tmp_path)
    assert (first.code, first.summary["counts"]["created"], first.summary["reason"]) == (0, 200, "done")
    logged = [json.loads(line) for line in first.err.splitlines()]
    assert sum(line["event"] == "prompt.created" for line in logged) == 200
    second = promptferry("run", "demo.yaml", *FAST, cwd=tmp_path).summary
    assert (second["counts"]["created"], second["counts"]["unchanged"], second["exit_code"]) == (0, 200, 0)
    assert second["next"] == "Nothing to do."
    assert second["requests"]["writes"] == 0


def test_version_and_help_are_results(tmp_path: Path) -> None:
    assert promptferry("--version", cwd=tmp_path).out == "promptferry 0.1.0\n"
    listed = promptferry("--help", cwd=tmp_path)
    assert listed.code == 0
    for name in (
        "init",
        "inventory",
        "check",
        "plan",
        "run",
        "status",
        "ids",
        "repoint",
        "approve",
        "ledger",
        "sandbox",
        "schema",
    ):
        assert f"  {name} " in listed.out
        shown = promptferry(*((name, "check") if name == "ledger" else (name,)), "--help", cwd=tmp_path)
        assert "Example: promptferry" in shown.out


def test_the_schema_is_that_of_the_migration_file(tmp_path: Path) -> None:
    schema = promptferry("schema", cwd=tmp_path).json
    assert {"name", "source", "rewrite", "limits", "ledger"} <= schema["properties"].keys()


# ---- init ------------------------------------------------------------------------------------------------------------


def test_init_writes_a_file_that_check_plan_and_run_take(tmp_path: Path) -> None:
    flags = ("--name", "tryout", "--base-url", "sandbox", "--model", "gpt-4o", "--provider", "openai-prod")
    assert promptferry("init", "new.yaml", *flags, cwd=tmp_path).code == 0
    assert promptferry("check", "new.yaml", cwd=tmp_path).code == 0
    plan = promptferry("plan", "new.yaml", *FAST, "--json", cwd=tmp_path).json
    run = promptferry("run", "new.yaml", *FAST, cwd=tmp_path).summary
    assert run["counts"]["created"] == plan["counts"]["create"] == 135
    assert run["ledger"] == str(tmp_path / "ledgers" / "tryout.jsonl")


def test_init_writes_over_nothing_unless_it_is_told_to(tmp_path: Path) -> None:
    (tmp_path / "migration.yaml").write_text("mine")
    assert "is there already" in refused(promptferry("init", cwd=tmp_path))
    assert (tmp_path / "migration.yaml").read_text() == "mine"
    assert promptferry("init", "--force", cwd=tmp_path).code == 0
    assert (tmp_path / "migration.yaml").read_text() != "mine"


# ---- inventory and check ---------------------------------------------------------------------------------------------


def test_inventory_counts_and_names_near_misses(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("{name: m, source: {base_url: sandbox}, select: {models: ['claude-3-7*']}}")
    found = promptferry("inventory", "m.yaml", "--json", cwd=tmp_path).json
    assert (found["listed"], found["selected"]) == (200, 91)
    assert sum(group["listed"] for group in found["models"]) == 200
    assert found["near_misses"] == ["us.anthropic.claude-3-7-sonnet-20250219-v1:0"]
    text = promptferry("inventory", "m.yaml", "--expect-none", "*claude-3-7*", cwd=tmp_path)
    assert text.code == 3
    assert "us.anthropic.claude-3-7-sonnet-20250219-v1:0 (44)" in text.out
    assert promptferry("inventory", "m.yaml", "--expect-none", "claude-2*", cwd=tmp_path).code == 0


def post(base_url: str, key: str, path: str, body: dict[str, Any]) -> Any:
    headers = {"x-portkey-api-key": key, "Content-Type": "application/json"}
    request = urllib.request.Request(f"{base_url}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def test_check_names_every_thing_that_is_missing_in_the_other_workspace(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0)) as registry:
        other = registry.ask(lambda sandbox: sandbox.key("other"))
        slug = post(registry.base_url, registry.api_key, "/collections", {"name": "Only Here"})["slug"]
        registry.ask(
            lambda sandbox: [
                sandbox.add_prompt("placed", collection=slug),
                sandbox.add_prompt("ghostly", virtual_key="ghost-provider"),
                sandbox.add_prompt("composed", "Hello {{>pl-nowhere-1}} and {{>pl-nowhere-2@3}}"),
                sandbox.add_prompt("plain"),
            ]
        )
        end = {"base_url": registry.base_url, "api_key": "${OTHER}"}
        rules = {"partials": {"old": "pl-named-in-file"}, "rules": [{"when": {"name": "x"}, "provider": "named-too"}]}
        path = write_migration(tmp_path, registry.base_url, target=end, rewrite=rules)
        keys = {"KEY": registry.api_key, "OTHER": other}
        checked = promptferry("check", path, cwd=tmp_path, env=keys)
        assert checked.code == 4
        for name in (slug, "ghost-provider", "pl-nowhere-1", "pl-nowhere-2", "pl-named-in-file", "named-too"):
            assert sum(line.startswith("PROBLEM") and f"'{name}'" in line for line in checked.out.splitlines()) == 1
        levels = [one["level"] for one in promptferry("check", path, "--json", cwd=tmp_path, env=keys).json["findings"]]
        assert levels.count("problem") == 6
        assert registry.prompts("other") == []
    assert not (tmp_path / "ledger.jsonl").exists()


# ---- plan ------------------------------------------------------------------------------------------------------------


def test_plan_says_what_a_run_would_do_and_writes_nothing(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=5)) as registry:
        drop = {"parameters": {"drop": ["temperature"]}, "model": "gpt-4o"}
        path = write_migration(tmp_path, registry.base_url, rewrite=drop)
        keys = {"KEY": registry.api_key}
        plan = promptferry("plan", path, "--json", cwd=tmp_path, env=keys).json
        assert {"prompts", "counts", "requests", "seconds"} <= plan.keys()
        assert (plan["counts"]["listed"], plan["counts"]["selected"], plan["counts"]["create"]) == (5, 5, 5)
        for prompt in plan["prompts"]:
            assert {"source_id", "name", "action", "changes", "losses", "notes"} <= prompt.keys()
            changed = {change["field"]: change for change in prompt["changes"]}
            assert changed["name"]["after"] == f"{prompt['name']}-replica"
            assert changed["parameters.temperature"]["after"] is None
        assert promptferry("plan", path, "--detailed-exitcode", cwd=tmp_path, env=keys).code == 3
        assert len(registry.prompts()) == 5
        assert not (tmp_path / "ledger.jsonl").exists()
        one = promptferry("plan", path, "--json", "--only", plan["prompts"][0]["name"], cwd=tmp_path, env=keys).json
        assert [prompt["source_id"] for prompt in one["prompts"]] == [plan["prompts"][0]["source_id"]]
        run = promptferry("run", path, cwd=tmp_path, env=keys).summary
        assert plan["requests"] - run["requests"]["total"] in (-1, 0)  # the first replica is read back
        assert promptferry("plan", path, "--detailed-exitcode", cwd=tmp_path, env=keys).code == 0


# ---- what a run left -------------------------------------------------------------------------------------------------


def test_status_and_ids_take_the_migration_or_its_ledger(done: Path) -> None:
    ledger = "ledgers/demo.jsonl"
    status = promptferry("status", "demo.yaml", "--json", cwd=done).json
    assert (status["counts"]["created"], status["reason"], status["migration"]) == (200, "done", "demo")
    assert promptferry("status", done / ledger, "--json", cwd=done).json == status
    assert "200  created" in promptferry("status", ledger, cwd=done).out
    rows = list(csv.DictReader(io.StringIO(promptferry("ids", "demo.yaml", cwd=done).out)))
    header = "source_id,source_slug,target_id,target_slug,source_name,name,source_version,target_version"
    assert ",".join(rows[0]) == header
    found = promptferry("ids", ledger, "--format", "json", cwd=done).json
    assert [one["target_id"] for one in found] == [row["target_id"] for row in rows]
    assert {(one["source_id"], one["target_id"]) for one in found} == {
        (line["source_id"], line["target_id"]) for line in lines(done / ledger) if line["kind"] == "created"
    }
    variables = promptferry("ids", ledger, "--format", "env", cwd=done).out.splitlines()
    slug = found[0]["source_slug"]
    assert variables[0] == f"PROMPT_{slug.upper().replace('-', '_')}={found[0]['target_slug']}"


def test_ids_of_the_chosen_only(done: Path) -> None:
    found = promptferry("ids", "demo.yaml", "--format", "json", "--collection", "hr", cwd=done).json
    assert 0 < len(found) < 200
    (done / "some.txt").write_text(f"# two\n{found[0]['source_id']}\n\n{found[1]['source_slug']}\n")
    chosen = promptferry("ids", "demo.yaml", "--format", "json", "--ids-file", "some.txt", cwd=done).json
    assert chosen == found[:2]
    named = promptferry("ids", "demo.yaml", "--json", "--only", found[0]["source_name"], cwd=done).json
    assert named == found[:1]


def test_a_reader_who_has_seen_enough_is_no_error(done: Path) -> None:
    with started("ids", "demo.yaml", cwd=done) as process:
        process.stdout.close()
        assert process.end().err == ""
        assert process.returncode == 0


def test_ledger_check_tells_whole_torn_and_damaged_apart(done: Path, tmp_path: Path) -> None:
    whole = (done / "ledgers" / "demo.jsonl").read_bytes()
    ledger = tmp_path / "l.jsonl"
    verdicts = {}
    for verdict, data in {
        "whole": whole,
        "torn": whole[:-10],
        "damaged": whole.replace(b'"created"', b'"cremated"', 1),
        "foreign": b"hello\n",
    }.items():
        ledger.write_bytes(data)
        checked = promptferry("ledger", "check", ledger, "--json", cwd=tmp_path)
        verdicts[verdict] = (checked.json["verdict"], checked.code)
        assert ledger.read_bytes() == data
    assert verdicts == {
        "whole": ("whole", 0), "torn": ("torn", 0), "damaged": ("damaged", 4), "foreign": ("foreign", 4),
    }  # fmt: skip
    assert "no ledger here" in refused(promptferry("ledger", "check", "nope.jsonl", cwd=tmp_path))


# ---- the sandbox -----------------------------------------------------------------------------------------------------


def test_the_sandbox_says_where_it_is_and_keeps_its_store(tmp_path: Path) -> None:
    names = []
    for prompts in ("3", "50"):  # seeded only when it is empty
        with started("sandbox", "--store", "s.sqlite", "--prompts", prompts, cwd=tmp_path) as process:
            first = json.loads(process.first_line())
            headers = {"x-portkey-api-key": first["api_key"]}
            request = urllib.request.Request(f"{first['portkey']}/prompts", headers=headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                names.append([row["name"] for row in json.loads(answer.read())["data"]])
            process.terminate()
            assert process.wait(30) == 0
    assert len(names[0]) == 3
    assert names[0] == names[1]


def test_the_sandbox_rehearses_a_far_registry_with_a_limit_by_the_hour(tmp_path: Path) -> None:
    flags = ("--prompts", "3", "--latency", "20-30", "--rate-limit", "2", "--rate-window", "3600")
    with started("sandbox", *flags, cwd=tmp_path) as process:
        first = json.loads(process.first_line())
        request = urllib.request.Request(f"{first['portkey']}/prompts", headers={"x-portkey-api-key": first["api_key"]})
        for _ in range(2):
            urllib.request.urlopen(request, timeout=10).close()
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=10)
        process.terminate()
    error.value.close()
    assert error.value.code == 429
    assert 3500 < int(error.value.headers["Retry-After"]) <= 3600


def test_the_sandbox_refuses_what_it_does_not_know_and_a_port_that_is_taken(tmp_path: Path) -> None:
    said = refused(promptferry("sandbox", "--fault", "earthquake=1", cwd=tmp_path))
    assert all(name in said for name in FAULTS)
    assert "probability" in refused(promptferry("sandbox", "--fault", "429=2", cwd=tmp_path))
    for wrong in ("soon", "50-", "-5", "150-50"):
        assert "--latency" in refused(promptferry("sandbox", f"--latency={wrong}", cwd=tmp_path))
    assert "--rate-limit" in refused(promptferry("sandbox", "--rate-window", "60", cwd=tmp_path))
    with served(SandboxOptions(prompts=0)) as registry:
        port = registry.base_url.split(":")[2].partition("/")[0]
        said = refused(promptferry("sandbox", "--port", port, "--prompts", "0", cwd=tmp_path))
        assert "in use" in said


# ---- what is not there -----------------------------------------------------------------------------------------------


def test_a_wrong_flag_of_another_command_has_no_summary(tmp_path: Path) -> None:
    wrong = promptferry("plan", "m.yaml", "--bogus", cwd=tmp_path)
    assert (wrong.code, wrong.out) == (2, "")
    assert "--bogus" in wrong.err


def test_a_ledger_is_repaired_and_compacted_and_the_migration_goes_on(tmp_path: Path) -> None:
    demo(tmp_path)
    ledger = tmp_path / "ledgers" / "demo.jsonl"
    assert promptferry("run", "demo.yaml", "--limit", "20", cwd=tmp_path).code == 0
    before = ledger.read_bytes()

    text = promptferry("ledger", "compact", str(ledger), cwd=tmp_path).out
    assert "the file as it was is kept as" in text
    assert (tmp_path / "ledgers" / "demo.jsonl.before-compact-1").read_bytes() == before
    assert len(ledger.read_bytes()) < len(before)

    whole = ledger.read_bytes()
    lines = whole.splitlines(keepends=True)
    ledger.write_bytes(b"".join([*lines[:5], lines[5].replace(b'"kind"', b'"kinb"'), *lines[6:]]))
    assert promptferry("ledger", "check", str(ledger), cwd=tmp_path).code == 4
    assert promptferry("ledger", "repair", str(ledger), cwd=tmp_path).code == 4
    assert promptferry("ledger", "repair", str(ledger), "--force", cwd=tmp_path).code == 0
    summary = promptferry("run", "demo.yaml", "--limit", "10", "--canary", "2", cwd=tmp_path).summary
    assert summary["counts"]["unresolved"] == summary["counts"]["failed"] == summary["counts"]["conflicts"] == 0
    assert summary["counts"]["created"] + summary["counts"]["unchanged"] >= 30


@pytest.mark.parametrize(
    "command",
    [
        "run LONG.yaml",
        "run demo.yaml --summary LONG.json",
        "plan demo.yaml --ledger LONG.jsonl",
        "rollback demo.yaml --ledger LONG.jsonl --yes",
        "status LONG.yaml",
        "report LONG.jsonl --json",
        "report demo.yaml --html LONG.html --ledger LONG.jsonl",
        "repoint . --migration LONG.yaml",
        "ledger compact LONG.jsonl",
        "ledger merge all.jsonl LONG.jsonl LONG.2.jsonl",
        "init LONG.yaml",
    ],
)
def test_what_nobody_may_look_at_is_named_and_is_no_bug(command: str, tmp_path: Path) -> None:
    """A name that is too long, as a folder that is not ours: whether it is there is refused already."""
    demo(tmp_path)
    long = "x" * 300
    ended = promptferry(*command.replace("LONG", long).split(), cwd=tmp_path)
    assert (ended.code, long in ended.sentence()) == (2, True), ended.err
    assert not (tmp_path / "ledgers").exists()  # nothing was sent


# ---- a migration file or a ledger ------------------------------------------------------------------------------------

LEDGER = b'{"v":1,"seq":1,"ts":"2026-01-01T00:00:00.000Z"}\n'


@pytest.mark.parametrize(
    ("name", "content", "migration"),
    [
        ("m.conf", b"name: demo\n", True),
        ("M.YAML", b"name: demo\n", True),
        ("m", b'{"name": "demo"}', True),
        ("m.json", b'{"verify": {}, "name": "demo"}', True),
        ("m.yaml", b"name: demo\n", True),
        ("m.yml", LEDGER, False),
        ("ledger", LEDGER, False),
        ("ledger.log", LEDGER.replace(b"1", b"2", 1), False),
        ("torn", LEDGER[:3], False),
        ("l.jsonl", b"damaged from its first line on", False),
        ("l.jsonl", b"", False),
        ("m.yml", b"", True),
        ("l.jsonl", None, False),
        ("m.yaml", None, True),
        ("m.YML", None, True),
        ("not-begun.log", None, False),
    ],
)
def test_what_a_file_is_says_its_content_and_only_without_one_its_name(
    name: str, content: bytes | None, migration: bool, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert is_migration(path) is migration
    if content and migration:
        assert Common().ledger_of(path) == tmp_path / "ledgers" / "demo.jsonl"


def test_a_folder_is_no_migration_and_a_pipe_is_no_ledger(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert (is_migration(tmp_path), is_migration(tmp_path / "pipe")) == (False, True)


@pytest.mark.parametrize("name", ["fmig.conf", "mig"])
def test_what_is_asked_after_a_run_takes_a_migration_file_of_any_name(name: str, done: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text((done / "demo.yaml").read_text())
    shutil.copytree(done / "ledgers", tmp_path / "ledgers")
    assert promptferry("status", path, "--json", cwd=tmp_path).json["counts"]["created"] == 200
    assert promptferry("report", path, "--json", cwd=tmp_path).json["asked"]
    path.write_text("- no\n- migration\n")
    told = refused(promptferry("status", path, cwd=tmp_path))
    assert "must be a map of keys" in told
    assert "it is no ledger of promptferry" in told
