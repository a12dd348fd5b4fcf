"""`fleet`: many migrations in one go, each with its own ledger, and one line of JSON for all of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engine.ledger.sink import Sink
from engine.model import Entry
from engine.sandbox import Sandbox, SandboxOptions
from tests.cli.test_terminal import CTRL_C, terminal
from tests.e2e import Ended, Started, lines, promptferry, served, started
from tests.fleets import FAST, Fleet, balanced, fleet, plant, source, write_fleet
from tests.forks import ROOT

WORKSPACES, PROMPTS = 5, 4
READY = ROOT / "configs" / "fleet.yaml"


@pytest.fixture
def teams(tmp_path: Path) -> Iterator[Fleet]:
    with fleet(tmp_path, WORKSPACES, PROMPTS, parallel=2) as found:
        yield found


def summary_of(ended: Ended) -> dict[str, Any]:
    """The only line of stdout; all books balance."""
    (line,) = ended.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    assert found["exit_code"] == ended.code
    assert found["next"]
    assert "Traceback" not in ended.err
    balanced(found)
    return found


def by_name(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {one["migration"]: one for one in summary["migrations"]}


def item(name: str, *, limits: Mapping[str, Any] | None = None, **source: Any) -> dict[str, Any]:
    """A migration of a list, in the workspace of its name."""
    return {"name": name, "source": {"workspace": name, **source}, "limits": dict(limits or {})}


def reasons(summary: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    return {one["migration"]: (one["exit_code"], one["reason"]) for one in summary["migrations"]}


# ---- from beginning to end -------------------------------------------------------------------------------------------


def test_all_of_them_once_and_then_nothing_to_do(teams: Fleet) -> None:
    first = summary_of(teams.ask("run"))
    assert (first["fleet"], first["reason"], first["counts"]["created"]) == ("teams", "done", WORKSPACES * PROMPTS)
    assert first["states"]["done"] == WORKSPACES
    assert [one["migration"] for one in first["migrations"]] == list(teams.workspaces)
    assert sorted(path.name for path in teams.ledgers.glob("*.jsonl")) == [f"{name}.jsonl" for name in teams.workspaces]
    assert not list(teams.complaints())
    second = summary_of(teams.ask("run"))
    assert (second["counts"]["unchanged"], second["next"]) == (WORKSPACES * PROMPTS, "Nothing to do.")


def test_every_verb(teams: Fleet) -> None:
    planned = teams.ask("plan", "--detailed-exitcode", "--json")
    assert (planned.code, planned.json["counts"]["create"]) == (3, WORKSPACES * PROMPTS)
    assert [one["migration"] for one in planned.json["migrations"]] == list(teams.workspaces)
    assert len(planned.json["migrations"][0]["prompts"]) == PROMPTS
    assert not teams.ledgers.exists()
    unrun = teams.ask("status", "--json")
    assert (unrun.code, unrun.json["counts"]["selected"]) == (0, 0)
    assert teams.ask("verify").code == 3, "what was not run is not proved"
    teams.ask("run")
    assert teams.ask("plan", "--detailed-exitcode").code == 0
    status = teams.ask("status", "--json").json
    assert (status["counts"]["created"], len(status["migrations"])) == (WORKSPACES * PROMPTS, WORKSPACES)
    verified = teams.ask("verify", "--json")
    assert (verified.code, verified.json["counts"]["same"]) == (0, WORKSPACES * PROMPTS)
    refused = teams.ask("rollback")
    assert (refused.code, "--yes" in refused.sentence()) == (2, True)
    would = teams.ask("rollback", "--dry-run", "--json")
    assert (would.code, would.json["counts"]["deleted"]) == (0, WORKSPACES * PROMPTS)
    done = teams.ask("rollback", "--yes", "--json")
    assert (done.code, done.json["counts"]["deleted"]) == (0, WORKSPACES * PROMPTS)
    assert f"{WORKSPACES * PROMPTS} replicas are deleted" in done.err
    assert all(len(teams.registry.prompts(name)) == PROMPTS for name in teams.workspaces)


def test_what_differs_in_one_is_the_worst_of_verify(teams: Fleet) -> None:
    teams.ask("run")
    replica = next(one for one in teams.registry.prompts("w3") if one["name"].endswith("-replica"))
    teams.registry.edit(replica["id"], string="edited by hand")
    found = teams.ask("verify", "--json")
    assert (found.code, found.json["counts"]["differs"]) == (3, 1)
    assert [one["exit_code"] for one in found.json["migrations"]] == [0, 0, 0, 3, 0]


def test_a_person_gets_a_table(teams: Fleet) -> None:
    with terminal("fleet", "run", teams.path, "--yes", cwd=teams.path.parent, **teams.env) as screen:
        assert screen.end() == 0
    assert f"{WORKSPACES} of {WORKSPACES} migrations" in screen.shown
    rows = [line.split() for line in screen.shown.splitlines()]
    assert ["w4", "done", "4", "4", "4"] in rows
    assert ["total", "20", "20", "20"] in rows
    assert '{"' not in screen.shown


def test_only_some_of_them(teams: Fleet) -> None:
    found = summary_of(teams.ask("run", "--migration", "w[12]", "--migration", "w4"))
    assert list(by_name(found)) == ["w1", "w2", "w4"]
    wrong = teams.ask("run", "--migration", "v*")
    assert (wrong.code, summary_of(wrong)["reason"]) == (2, "config")
    assert "'v*'" in wrong.sentence()


def test_the_reason_is_in_every_ledger_and_the_summary_in_a_file(teams: Fleet) -> None:
    found = teams.ask("run", "--reason", "ticket 7", "--summary", "summary.json")
    assert json.loads((teams.path.parent / "summary.json").read_text()) == summary_of(found)
    told = [line["reason"] for path in teams.ledgers.glob("*.jsonl") for line in lines(path) if line["kind"] == "run"]
    assert told == ["ticket 7"] * WORKSPACES


def test_ledgers_in_a_folder_that_is_named(teams: Fleet) -> None:
    found = summary_of(teams.ask("run", "--ledger", "elsewhere"))
    assert by_name(found)["w0"]["ledger"] == str(teams.path.parent / "elsewhere" / "w0.jsonl")
    assert teams.ask("status", "--ledger", "elsewhere", "--json").json["counts"]["created"] == WORKSPACES * PROMPTS


def test_log_lines_say_which_migration_they_are_of(teams: Fleet) -> None:
    logged = [json.loads(line) for line in teams.ask("run").err.splitlines()]
    created = [line["migration"] for line in logged if line["event"] == "prompt.created"]
    assert sorted(created) == sorted(name for name in teams.workspaces for _ in range(PROMPTS))


# ---- one limit, one sandbox ------------------------------------------------------------------------------------------


async def test_what_any_ledger_knows_of_the_limit_is_used(tmp_path: Path) -> None:
    with fleet(tmp_path, WORKSPACES, PROMPTS, limits={}, parallel=2) as teams:
        teams.ledgers.mkdir(parents=True)
        for age, (name, limit) in enumerate((("w3", 37.0), ("w1", 11.0), ("w4", None))):
            sink = Sink.open(teams.ledgers / f"{name}.jsonl", run="earlier")
            async with sink:
                await sink.record(Entry("end", {"throttle": {"source": {"limit": limit, "latency_s": 0.01}}}))
            sink.close()
            os.utime(sink.path, (10**9 - age, 10**9 - age))
        summary = summary_of(teams.ask("run"))
    assert {one["throttle"]["source"]["limit"] for one in summary["migrations"]} == {37.0}, "the newest one that knows"


@pytest.mark.parametrize(("flags", "most"), [((), 25), (("--rate", "12"), 12)])
def test_the_strictest_of_their_limits_holds_for_all(flags: tuple[str, ...], most: float, teams: Fleet) -> None:
    rows = [item(name, limits={"rate": 25 * (1 + place)}) for place, name in enumerate(teams.workspaces)]
    defaults = {"source": source(teams.registry), "limits": dict(FAST)}
    write_fleet(teams.path.parent, defaults=defaults, migrations=rows, parallel=3)
    found = summary_of(teams.ask("run", *flags))
    rates = {one["throttle"]["source"]["rate"] for one in found["migrations"]}
    assert len(rates) == 1
    assert max(rates) <= most
    assert found["requests"]["total"] <= most * found["duration_s"] + 1


def test_keys_that_differ_have_limits_of_their_own(teams: Fleet) -> None:
    keys = teams.registry.ask(lambda sandbox: {f"KEY_{name}": sandbox.key(name) for name in ("w0", "w1")})
    rows = [item(name, api_key=f"${{KEY_{name}}}", limits={"rate": rate}) for name, rate in (("w0", 100), ("w1", 200))]
    defaults = {"source": source(teams.registry), "limits": dict(FAST)}
    path = write_fleet(teams.path.parent, defaults=defaults, migrations=rows)
    found = summary_of(promptferry("fleet", "run", path, cwd=path.parent, env=keys))
    assert [round(one["throttle"]["source"]["rate"]) for one in found["migrations"]] == [100, 199]


def test_the_sandbox_is_one_for_all_of_them(tmp_path: Path) -> None:
    defaults = {
        "source": {"base_url": "sandbox"},
        "target": {"base_url": "sandbox:{team}"},
        "select": {"collections": ["{team}"], "names": ["*refund*", "*cold*", "*review*"]},
        "rewrite": {"name": "{name}"},
        "limits": dict(FAST),
    }
    path = write_fleet(tmp_path, matrix={"team": ["support", "sales", "engineering"]}, defaults=defaults)
    found = summary_of(promptferry("fleet", "run", path, cwd=tmp_path))
    assert found["counts"]["selected"] > 3
    assert {one.name for one in (tmp_path / "ledgers" / "teams").iterdir()} == {
        *("support.jsonl", "sales.jsonl", "engineering.jsonl", "sandbox.sqlite"),
    }
    assert [one["counts"]["listed"] for one in found["migrations"]] == [200] * 3


# ---- what stops one of them ------------------------------------------------------------------------------------------


def with_wrong_key(teams: Fleet, **parts: Any) -> dict[str, str]:
    """w1 has a key that is refused; the environment."""
    rows = [item(name, api_key="${WRONG}" if name == "w1" else "${KEY}") for name in teams.workspaces]
    defaults = {"source": source(teams.registry), "limits": dict(FAST)}
    write_fleet(teams.path.parent, defaults=defaults, migrations=rows, **parts)
    return {**teams.env, "WRONG": "not-a-key-of-this-registry"}


def test_a_wrong_key_stops_only_the_one_that_has_it(teams: Fleet) -> None:
    env = with_wrong_key(teams, parallel=2)
    found = promptferry("fleet", "run", teams.path, cwd=teams.path.parent, env=env)
    summary = summary_of(found)
    assert reasons(summary) == {
        **dict.fromkeys(teams.workspaces, (0, "done")),
        "w1": (4, "key_refused"),
    }
    assert (summary["exit_code"], summary["reason"], summary["counts"]["created"]) == (4, "key_refused", 16)
    assert summary["next"].startswith("w1: ")
    assert summary["message"].startswith("w1: The source")
    assert "not-a-key-of-this-registry" not in found.out + found.err
    assert promptferry("fleet", "plan", teams.path, cwd=teams.path.parent, env=env).code == 4
    right = summary_of(
        promptferry("fleet", "run", teams.path, cwd=teams.path.parent, env={**teams.env, **{"WRONG": teams.env["KEY"]}})
    )
    assert (right["exit_code"], right["counts"]["created"], right["counts"]["unchanged"]) == (0, 4, 16)


def test_stop_on_ends_the_others(teams: Fleet) -> None:
    env = with_wrong_key(teams, parallel=1, stop_on=[4])
    summary = summary_of(promptferry("fleet", "run", teams.path, cwd=teams.path.parent, env=env))
    assert (summary["exit_code"], summary["reason"]) == (4, "key_refused")
    assert reasons(summary) == {
        "w0": (0, "done"),
        "w1": (4, "key_refused"),
        **dict.fromkeys(("w2", "w3", "w4"), (75, "interrupted")),
    }
    assert summary["states"] == {"done": 1, "unfinished": 0, "differs": 0, "stopped": 1, "not_started": 3}
    assert "w1 ended with exit code 4" in by_name(summary)["w3"]["message"]


def names_taken_in_w2(sandbox: Sandbox) -> None:
    """Somebody else's prompts have the names that replicas would get."""
    for number in range(PROMPTS):
        sandbox.add_prompt(f"prompt-{number}-replica", workspace="w2")


def test_conflicts_are_each_migration_s_own(teams: Fleet) -> None:
    teams.registry.ask(names_taken_in_w2)
    summary = summary_of(teams.ask("run"))
    assert (summary["exit_code"], summary["counts"]["conflicts"]) == (1, PROMPTS)
    assert (by_name(summary)["w2"]["exit_code"], summary["states"]["unfinished"]) == (1, 1)
    assert summary["next"].startswith("w2: ")


@pytest.mark.parametrize("keys", [("${KEY}", "${KEY}"), ("${KEY}", "${OTHER}")])
def test_two_that_give_the_same_names_do_not_double_them(keys: tuple[str, str], tmp_path: Path) -> None:
    """Also where each asks the workspace with a key of its own."""
    with served(SandboxOptions(prompts=0, latency=(0.005, 0.01))) as registry:
        registry.ask(lambda sandbox: plant(sandbox, "w", PROMPTS))
        rows = [
            {"name": name, "source": source(registry, "w", key)} for name, key in zip(("a", "b"), keys, strict=True)
        ]
        defaults = {"rewrite": {"name": "{name}-r"}, "limits": dict(FAST)}
        path = write_fleet(tmp_path, defaults=defaults, migrations=rows)
        env = {
            "KEY": registry.ask(lambda sandbox: sandbox.admin_key),
            "OTHER": registry.ask(lambda sandbox: sandbox.key("w")),
        }
        planned = promptferry("fleet", "plan", path, "--json", cwd=tmp_path, env=env).json["counts"]
        assert (planned["create"], planned["conflict"]) == (PROMPTS, PROMPTS)
        summary = summary_of(promptferry("fleet", "run", path, cwd=tmp_path, env=env))
        assert (summary["exit_code"], summary["counts"]["created"], summary["counts"]["conflicts"]) == (1, 4, 4)
        made = Counter(one["name"] for one in registry.prompts("w") if one["name"].endswith("-r"))
        assert made == {f"prompt-{number}-r": 1 for number in range(PROMPTS)}
        assert [one["reasons"] for one in summary["migrations"] if one["counts"]["conflicts"]] == [
            {"conflicts": {"exists": PROMPTS}}
        ]


def test_a_ledger_that_cannot_be_used_stops_only_its_own(teams: Fleet) -> None:
    teams.ask("run", "--migration", "w[012]")
    (teams.ledgers / "w0.jsonl").write_text("this is no ledger\n" * 3)
    damaged = (teams.ledgers / "w1.jsonl").read_bytes().splitlines(keepends=True)
    (teams.ledgers / "w1.jsonl").write_bytes(b"".join([damaged[0], b"x" + damaged[1], *damaged[2:]]))
    summary = summary_of(teams.ask("run"))
    assert reasons(summary) == {
        "w0": (4, "config"),
        "w1": (4, "ledger_damaged"),
        **dict.fromkeys(("w2", "w3", "w4"), (0, "done")),
    }


def test_a_host_that_is_not_there_stops_only_those_that_ask_it(teams: Fleet) -> None:
    rows = [item("gone", base_url="http://127.0.0.1:9/v1"), item("w0"), item("w1")]
    defaults = {"source": source(teams.registry), "limits": {**FAST, "attempts": 2}}
    write_fleet(teams.path.parent, defaults=defaults, migrations=rows)
    summary = summary_of(teams.ask("run"))
    assert reasons(summary) == {"gone": (75, "registry_down"), "w0": (0, "done"), "w1": (0, "done")}
    assert summary["exit_code"] == 75


def refused_in_w2(sandbox: Sandbox) -> None:
    """Prompts there that no create can copy."""
    for number in range(PROMPTS):
        sandbox.add_prompt(f"odd-{number}", virtual_key="gone", workspace="w2")


def test_failures_are_counted_for_each_and_taken_up_again_when_asked(teams: Fleet) -> None:
    teams.registry.ask(refused_in_w2)
    stopped = summary_of(teams.ask("run", "--max-failures", "1"))
    assert reasons(stopped) == {**dict.fromkeys(teams.workspaces, (0, "done")), "w2": (4, "too_many_failures")}
    failed = summary_of(teams.ask("run"))
    assert (failed["exit_code"], failed["counts"]["failed"]) == (1, PROMPTS)
    assert summary_of(teams.ask("run"))["this_run"]["failed"] == 0
    assert summary_of(teams.ask("run", "--retry-failed"))["this_run"]["failed"] == PROMPTS


# ---- asked to end ----------------------------------------------------------------------------------------------------


def test_a_wrong_file_is_refused_before_anything_is_sent(teams: Fleet) -> None:
    write_fleet(teams.path.parent, csv="teams.csv", defaults={"source": source(teams.registry, key="${NOPE}")}, foo=1)
    found = teams.ask("run")
    summary = summary_of(found)
    assert (summary["exit_code"], summary["reason"], summary["migrations"]) == (2, "config", [])
    errors = [line for line in found.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert not teams.ledgers.exists()
    assert not teams.registry.ask(lambda sandbox: len(sandbox.requests))


def answered(teams: Fleet) -> int:
    return teams.registry.ask(lambda sandbox: len(sandbox.requests))


def wait_for_answers(teams: Fleet, count: int, process: Started) -> None:
    while answered(teams) < count:
        assert process.poll() is None


@pytest.mark.parametrize("numbers", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)], ids=["once", "twice"])
def test_asked_to_end_every_one_says_how_far_it_came(numbers: tuple[signal.Signals, ...], teams: Fleet) -> None:
    with started("fleet", "run", teams.path, "--rate", "10", cwd=teams.path.parent, env=teams.env) as process:
        wait_for_answers(teams, 12, process)
        for number in numbers:
            process.send_signal(number)
        summary = summary_of(process.end())
    assert (summary["exit_code"], summary["reason"]) == (75, "interrupted")
    assert len(summary["migrations"]) == WORKSPACES
    assert {one["exit_code"] for one in summary["migrations"]} <= {0, 75}
    assert summary["states"]["not_started"] >= 1
    assert summary["states"]["stopped"] >= 1
    assert summary["counts"]["not_started"] + summary["counts"]["unresolved"] > 0
    done = summary_of(teams.ask("run"))
    assert (done["exit_code"], done["counts"]["selected"]) == (0, WORKSPACES * PROMPTS)
    assert not list(teams.complaints())


def test_the_books_of_one_that_is_not_started_again(teams: Fleet) -> None:
    """Its ledger knows its prompts: those that are left are not started, the others are as they were."""
    teams.ask("run", "--migration", "w4")
    with started("fleet", "run", teams.path, "--rate", "10", cwd=teams.path.parent, env=teams.env) as process:
        wait_for_answers(teams, 30, process)
        process.send_signal(signal.SIGINT)
        summary = summary_of(process.end())
    last = by_name(summary)["w4"]
    assert (last["reason"], last["run"]) == ("interrupted", "")
    assert (last["counts"]["selected"], last["counts"]["unchanged"]) == (PROMPTS, PROMPTS)
    assert not any(last["this_run"].values())


def test_the_time_box_is_for_the_whole(teams: Fleet) -> None:
    summary = summary_of(teams.ask("run", "--rate", "5", "--max-duration", "1.5s"))
    assert (summary["exit_code"], summary["reason"]) == (75, "time_box")
    assert summary["states"]["not_started"] >= 1
    assert all("--max-duration" in one["message"] for one in summary["migrations"] if one["exit_code"] == 75)
    wrong = teams.ask("run", "--max-duration", "soon")
    assert (wrong.code, "'soon'" in wrong.sentence()) == (2, True)


def test_a_verification_that_is_interrupted(teams: Fleet) -> None:
    teams.ask("run")
    before = answered(teams)
    flags = ("--rate", "5", "--json")
    with started("fleet", "verify", teams.path, *flags, cwd=teams.path.parent, env=teams.env) as process:
        wait_for_answers(teams, before + 3, process)
        process.send_signal(signal.SIGINT)
        found = process.end()
    assert found.code == 75
    assert {one["reason"] for one in found.json["migrations"] if one["exit_code"] == 75} == {"interrupted"}


def test_a_rollback_that_is_interrupted_and_run_again(teams: Fleet) -> None:
    teams.ask("run")
    before = answered(teams)
    flags = ("--yes", "--rate", "8", "--json")
    with started("fleet", "rollback", teams.path, *flags, cwd=teams.path.parent, env=teams.env) as process:
        wait_for_answers(teams, before + 10, process)
        process.send_signal(signal.SIGINT)
        found = process.end()
    assert found.code == 75
    assert teams.ask("rollback", "--yes").code == 0
    assert all(len(teams.registry.prompts(name)) == PROMPTS for name in teams.workspaces)


def test_a_ledger_that_another_run_holds(teams: Fleet) -> None:
    with started("fleet", "run", teams.path, "--rate", "10", cwd=teams.path.parent, env=teams.env) as process:
        wait_for_answers(teams, 12, process)
        assert process.stand_still()
        summary = summary_of(teams.ask("run"))
        os.kill(process.pid, signal.SIGCONT)
    held = [one for one in summary["migrations"] if one["reason"] == "ledger_in_use"]
    assert held
    assert (summary["exit_code"], summary["reason"]) == (75, "ledger_in_use")


# ---- the question ----------------------------------------------------------------------------------------------------


def test_it_asks_once_for_the_whole(teams: Fleet) -> None:
    with terminal("fleet", "run", teams.path, cwd=teams.path.parent, **teams.env) as screen:
        screen.wait_for("go on? [y/N] ")
        assert f"{WORKSPACES} migrations, 2 at a time" in screen.shown
        assert f"{WORKSPACES * PROMPTS} prompts of {WORKSPACES} migrations will be created" in screen.shown
        assert teams.registry.base_url in screen.shown
        assert not teams.ledgers.exists()
        screen.type(b"y\n")
        assert screen.end() == 0
    assert screen.shown.count("go on?") == 1
    assert not list(teams.complaints())


def test_with_nothing_to_do_nothing_is_asked(tmp_path: Path) -> None:
    path = Path(shutil.copy(READY, tmp_path))
    promptferry("fleet", "run", path, "--migration", "hr", cwd=tmp_path)
    with terminal("fleet", "run", path, "--migration", "hr", cwd=tmp_path) as screen:
        assert screen.end() == 0
    assert "go on?" not in screen.shown


@pytest.mark.parametrize("answer", [b"n\n", CTRL_C], ids=["no", "Ctrl-C"])
def test_anything_but_yes_writes_nothing(answer: bytes, teams: Fleet) -> None:
    with terminal("fleet", "run", teams.path, cwd=teams.path.parent, **teams.env) as screen:
        screen.wait_for("go on? [y/N] ")
        screen.type(answer)
        assert screen.end() == 75
    assert "nothing was written" in screen.shown
    assert "Traceback" not in screen.shown
    assert not teams.ledgers.exists()


def test_a_rollback_asks_too(teams: Fleet) -> None:
    teams.ask("run")
    with terminal("fleet", "rollback", teams.path, cwd=teams.path.parent, **teams.env) as screen:
        screen.wait_for("go on? [y/N] ")
        assert f"{WORKSPACES * PROMPTS} replicas are deleted" in screen.shown
        screen.type(b"n\n")
        assert screen.end() == 75
    assert all(len(teams.registry.prompts(name)) == 2 * PROMPTS for name in teams.workspaces)
