"""The flags of `run`, each seen from outside: exit code, summary, ledger, and what the registry holds."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import SandboxOptions
from tests.e2e import (
    COMMAND,
    Ended,
    Served,
    lines,
    promptferry,
    replicas,
    served,
    started,
    write_migration,
)
from tests.forks import environment

PROMPTS = 30


@dataclass(frozen=True)
class Place:
    """A folder with a migration file, and its registry."""

    folder: Path
    path: Path
    registry: Served

    def run(self, *flags: str | Path, **more: Any) -> Ended:
        return promptferry("run", self.path, *flags, cwd=self.folder, env=self.keys, **more)

    def ask(self, *arguments: str | Path) -> Ended:
        return promptferry(*arguments, cwd=self.folder, env=self.keys)

    @property
    def keys(self) -> dict[str, str]:
        return {"KEY": self.registry.api_key}

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.jsonl"

    def made(self) -> int:
        return len(replicas(self.registry.prompts()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served(SandboxOptions(prompts=PROMPTS)) as registry:
        yield Place(tmp_path, write_migration(tmp_path, registry.base_url), registry)


# ---- which prompts ---------------------------------------------------------------------------------------------------


def test_selectors_take_their_prompts_and_leave_the_rest_as_they_were(place: Place) -> None:
    prompts = place.registry.prompts()
    name = prompts[0]["name"]
    only = place.run("--only", name).summary
    assert (only["exit_code"], only["reason"]) == (0, "done")
    assert (only["counts"]["selected"], only["counts"]["created"], only["counts"]["not_started"]) == (PROMPTS, 1, 29)
    by_id = place.run("--only", prompts[1]["id"]).summary["counts"]
    assert (by_id["created"], by_id["unchanged"], by_id["not_started"]) == (1, 1, 28)
    (place.folder / "ids.txt").write_text(f"{prompts[2]['id']}\n{prompts[3]['slug']}\n")
    by_file = place.run("--ids-file", "ids.txt").summary["counts"]
    assert (by_file["created"], by_file["unchanged"], by_file["not_started"]) == (2, 2, 26)
    slugs = {prompt["collection_id"] for prompt in prompts}
    collection = next(one for one in slugs if one != prompts[0]["collection_id"])
    inside = sum(prompt["collection_id"] == collection for prompt in prompts[4:])
    assert place.run("--collection", collection).summary["counts"]["created"] == inside > 0
    assert place.run().summary["counts"]["unchanged"] == PROMPTS - (26 - inside)
    assert [len(found) for found in replicas(place.registry.prompts()).values()] == [1] * PROMPTS


def test_a_limit_ends_with_0_and_the_next_run_does_the_rest(place: Place) -> None:
    first = place.run("--limit", "10").summary
    assert (first["exit_code"], first["reason"]) == (0, "limit")
    assert (first["counts"]["created"], first["counts"]["not_started"]) == (10, 20)
    assert place.made() == 10
    rest = place.run("--limit", "20").summary
    assert (rest["reason"], rest["counts"]["created"], rest["counts"]["unchanged"]) == ("done", 20, 10)
    assert place.made() == PROMPTS


# ---- failures --------------------------------------------------------------------------------------------------------


def refusing(place: Place, count: int) -> list[str]:
    """Names of prompts whose create the registry will refuse: it has not their provider."""
    names = [f"refused-{number}" for number in range(count)]
    for name in names:
        place.registry.ask(lambda sandbox, name=name: sandbox.add_prompt(name, virtual_key="gone-provider"))  # type: ignore[misc]
    return names


def test_retry_failed_takes_up_what_a_plain_run_leaves(place: Place) -> None:
    names = refusing(place, 2)
    first = place.run()
    assert (first.code, first.summary["reason"], first.summary["counts"]["failed"]) == (1, "failures", 2)
    assert "status --failed" in first.summary["next"]
    status = place.ask("status", place.path, "--failed", "--json").json
    assert {one["name"] for one in status["failed"]} == set(names)
    assert all({"source_id", "name", "stage", "error", "message"} == one.keys() for one in status["failed"])
    text = place.ask("status", place.path, "--failed").out
    assert all(name in text for name in names)
    again = place.run().summary
    assert (again["counts"]["failed"], again["this_run"]["failed"], again["requests"]["writes"]) == (2, 0, 0)
    mended = write_migration(place.folder, place.registry.base_url, rewrite={"provider": "anthropic-prod"})
    retried = promptferry("run", mended, "--retry-failed", cwd=place.folder, env=place.keys).summary
    assert (retried["exit_code"], retried["counts"]["created"], retried["counts"]["failed"]) == (0, 2, 0)
    assert place.ask("status", place.path, "--failed", "--json").json["failed"] == []


@pytest.mark.parametrize("most", ["3", "10%"])
def test_too_many_failures_end_the_run(place: Place, most: str) -> None:
    refusing(place, 40)
    slow = write_migration(place.folder, place.registry.base_url, limits={"concurrency": 1, "rate": 2000})
    ended = promptferry("run", slow, "--only", "refused-*", "--max-failures", most, cwd=place.folder, env=place.keys)
    assert (ended.code, ended.summary["reason"]) == (4, "too_many_failures")
    assert "--max-failures" in ended.sentence()
    failed = ended.summary["counts"]["failed"]
    assert 3 < failed < 40 if most == "3" else 20 <= failed < 40
    assert place.made() == 0


def test_the_time_box_ends_a_run_that_the_next_one_goes_on_with(place: Place) -> None:
    ended = place.run("--rate", "5", "--max-duration", "1.5s")
    assert (ended.code, ended.summary["reason"]) == (75, "time_box")
    assert "--max-duration" in ended.sentence()
    assert ended.summary["counts"]["not_started"] > 0
    rest = place.run().summary
    assert (rest["exit_code"], rest["counts"]["not_started"], place.made()) == (0, 0, PROMPTS)


# ---- what is noted and told ------------------------------------------------------------------------------------------


def test_the_reason_and_the_rate_are_noted(place: Place) -> None:
    summary = place.run("--reason", "ticket 12", "--rate", "500").summary
    first = lines(place.ledger)[0]
    assert (first["kind"], first["reason"], first["run"]) == ("run", "ticket 12", summary["run"])
    plan = place.ask("plan", place.path, "--rate", "1", "--json").json
    assert plan["seconds"] == plan["requests"]


def test_the_summary_file_is_replaced_by_rename(place: Place) -> None:
    target = place.folder / "summary.json"
    target.write_text("older")
    before = target.stat().st_ino
    ended = place.run("--limit", "1", "--summary", target)
    assert json.loads(target.read_text()) == ended.summary
    assert target.stat().st_ino != before
    assert sorted(path.name for path in place.folder.iterdir()) == ["e2e.yaml", "ledger.jsonl", "summary.json"]


def test_the_summary_goes_plainly_into_a_pipe_and_through_a_link(place: Place) -> None:
    pipe = place.folder / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    ended = place.run("--limit", "0", "--summary", pipe)
    reader.join(30)
    assert json.loads(read[0]) == ended.summary
    with (place.folder / "fd.json").open("w") as file:
        command = [*COMMAND, "run", str(place.path), "--limit", "0", "--summary", f"/dev/fd/{file.fileno()}"]
        out = subprocess.run(
            command, cwd=place.folder, env=environment(**place.keys), stdout=subprocess.PIPE, pass_fds=[file.fileno()]
        ).stdout
    assert json.loads((place.folder / "fd.json").read_text()) == json.loads(out)
    assert Path("/dev/fd").is_symlink()


def test_a_summary_that_could_not_be_written_is_refused_before_anything_is_sent(place: Place) -> None:
    for nowhere in (place.folder / "none" / "s.json", place.folder):
        ended = place.run("--summary", nowhere)
        assert (ended.code, ended.summary["reason"]) == (2, "config")
        assert "--summary" in ended.sentence()
    assert place.registry.ask(lambda sandbox: len(sandbox.requests)) == 0
    assert not place.ledger.exists()


def test_a_full_stdout_is_told_and_costs_nothing(place: Place) -> None:
    command = [*COMMAND, "run", str(place.path), "--summary", "s.json"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command, cwd=place.folder, env=environment(**place.keys), stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 75
    assert b"stdout" in done.stderr
    assert b"Traceback" not in done.stderr
    assert json.loads((place.folder / "s.json").read_text())["counts"]["created"] == PROMPTS


def test_the_ledger_is_where_the_flag_or_the_environment_says(place: Place) -> None:
    place.run("--limit", "1", "--ledger", "other/here.jsonl")
    assert lines(place.folder / "other" / "here.jsonl")[-1]["kind"] == "end"
    promptferry("run", place.path, cwd=place.folder, env=place.keys | {"PROMPTFERRY_LEDGER_DIR": "elsewhere"})
    found = place.ask("ids", place.folder / "elsewhere" / "ledger.jsonl", "--json").json
    assert len(found) == PROMPTS
    assert not place.ledger.exists()


def test_logs_as_they_are_asked_for(place: Place) -> None:
    console = place.run("--limit", "2", "--log-format", "console").err.splitlines()
    assert sum("prompt.created" in line and not line.startswith("{") for line in console) == 2
    assert "\x1b[" not in "".join(console)
    assert place.run("--limit", "2", "--quiet").err == ""
    assert place.run("--limit", "2", "--log-level", "warning", "--no-progress").err == ""
    as_lines = place.run("--limit", "2", "--log-level", "debug", "--log-format", "json", "--json")
    assert all(json.loads(line)["event"] for line in as_lines.err.splitlines())
    assert as_lines.summary["counts"]["created"] == 2


def test_status_answers_while_a_run_holds_the_ledger(place: Place) -> None:
    with started("run", place.path, "--rate", "2", cwd=place.folder, env=place.keys) as process:
        while not place.ledger.exists() or b'"kind":"created"' not in place.ledger.read_bytes():
            assert process.poll() is None
            time.sleep(0.002)
        status = place.ask("status", place.path, "--json").json
        assert status["going_on"]
        assert status["counts"]["created"] >= 1
        assert status["counts"]["selected"] == PROMPTS
        assert process.poll() is None


# ---- wrong usage -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--bogus"], "--bogus"),
        (["--limit", "-1"], "--limit"),
        (["--limit", "many"], "--limit"),
        (["--rate", "0"], "--rate"),
        (["--log-level", "loud"], "--log-level"),
        (["--log-format", "xml"], "--log-format"),
        (["--max-duration", "soon"], "--max-duration"),
        (["--max-failures", "some"], "--max-failures"),
        (["--ids-file", "none.txt"], "none.txt"),
        (["--canary", "-1"], "--canary"),
        (["--plan", "p.json"], "p.json"),
        (["another.yaml"], "another.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_flags_are_named_and_the_summary_is_there_all_the_same(
    flags: list[str], named: str, tmp_path: Path
) -> None:
    write_migration(tmp_path, "http://127.0.0.1:1/v1")
    ended = promptferry("run", "e2e.yaml", *flags, cwd=tmp_path, env={"KEY": "key-for-tests"})
    summary = ended.summary
    assert (ended.code, summary["exit_code"], summary["reason"]) == (2, 2, "config")
    assert not any(summary["counts"].values())
    assert not any(summary["requests"].values())
    assert named in ended.err
    assert named in summary["message"]
    assert "Traceback" not in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["e2e.yaml"]


def test_a_run_without_a_migration_has_a_summary_too(tmp_path: Path) -> None:
    ended = promptferry("run", cwd=tmp_path)
    assert (ended.code, ended.summary["reason"]) == (2, "config")
    assert "MIGRATION" in ended.err


# ---- what is named and is not there ----------------------------------------------------------------------------------


def test_a_selector_that_takes_nothing_says_so(place: Place) -> None:
    summary = place.ask("run", place.path, "--only", "no-such-*").summary
    assert (summary["exit_code"], summary["counts"]["not_started"]) == (0, PROMPTS)
    assert any("--only takes none of the" in note for note in summary["notes"])


def test_status_and_ids_of_a_migration_file_need_no_key(place: Place) -> None:
    assert place.ask("run", place.path, "--limit", "2").code == 0
    for verb in ("status", "ids"):
        found = promptferry(verb, place.path, "--json", cwd=place.folder)
        assert found.code == 0
        assert json.loads(found.out)


def test_a_limit_that_nobody_told_of_is_found_and_told(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=40, rate_limit=12)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"share": 1.0})
        found = promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key})
        again = promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key})
    assert found.code == 0, found.err
    source = found.summary["throttle"]["source"]
    assert again.summary["throttle"]["source"]["limit"] == source["limit"], "the next run begins with it"
    assert again.summary["requests"]["throttled"] == 0
    assert found.summary["requests"]["throttled"] >= 1
    assert 6 <= source["limit"] <= 30
    assert source["paused_s"] >= 1
    assert source == found.summary["throttle"]["target"]
    assert '"event":"throttle.paused"' in found.err.replace(": ", ":")
    assert '"event":"throttle.rate"' in found.err.replace(": ", ":")


def test_ceilings_of_reads_and_writes(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=12)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits={"rate": 1000, "reads": 500, "writes": 10})
        found = promptferry("run", path, cwd=tmp_path, env={"KEY": registry.api_key})
    assert found.code == 0, found.err
    assert found.summary["duration_s"] >= 1.1, "twelve writes at ten a second"
