"""`--shard`, `ledger merge` and `--lock-wait` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.commands import shard_by, shared_rate, waiting
from engine.config import load_fleet, load_migration
from engine.content.shard import Shard, shard_of
from engine.errors import ConfigError, Stop
from engine.ledger.sink import Sink
from engine.migrate.halt import Halt
from engine.run import RunOptions, run_migration
from engine.sandbox import SandboxOptions
from engine.session import when_free
from tests.e2e import Ended, lines, promptferry, served, write_migration
from tests.fleets import FAST, balanced, fleet
from tests.virtual import in_virtual_time, now

PROMPTS = 12
ENV = {"KEY": "k"}


def test_two_shards_and_the_ledger_that_is_made_of_theirs(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=PROMPTS)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits=dict(FAST))
        ids = [one["id"] for one in registry.prompts()]

        def ask(*arguments: str | Path, index: str = "") -> Ended:
            env = {"KEY": registry.api_key, **({"JOB_COMPLETION_INDEX": index} if index else {})}
            return promptferry(*arguments, cwd=tmp_path, env=env)

        ledgers = [tmp_path / f"ledger.{index}-of-2.jsonl" for index in (0, 1)]
        first = ask("run", path, "--shard", "0/2", "--rate-share").summary
        second = ask("run", path, "--shards", "2", index="1").summary
        for index, summary in enumerate((first, second)):
            assert summary["ledger"] == str(ledgers[index])
            assert summary["counts"]["created"] == sum(shard_of(one, 2) == index for one in ids)
            assert f"`promptferry ids --shard {index}/2`" in summary["next"]
            assert "`promptferry ledger merge`" in summary["next"]
            assert {line["shard"] for line in lines(ledgers[index]) if line["kind"] == "run"} == {f"{index}/2"}
        assert first["throttle"]["source"]["rate"] <= FAST["rate"] / 2 < second["throttle"]["source"]["rate"]
        assert not (tmp_path / "ledger.jsonl").exists()

        # the ledger of another one, or of another number of them, or of all
        for flags, words in (
            (("--shard", "1/2"), "is the ledger of shard 0/2, and this is shard 1/2"),
            (("--shard", "0/3"), "is the ledger of shard 0/2, and this is shard 0/3"),
            ((), "is the ledger of shard 0/2, and this is the whole migration"),
        ):
            refused = ask("run", path, *flags, "--ledger", ledgers[0]).summary
            assert (refused["exit_code"], refused["reason"]) == (4, "ledger_mismatch")
            assert words in refused["message"]
        assert ask("plan", path, "--ledger", ledgers[0]).code == 4

        # every command that is about what a ledger has
        own = first["counts"]["created"]
        assert ask("verify", path, "--shard", "0/2", "--json").json["counts"]["same"] == own
        assert ask("status", path, "--shard", "0/2", "--json").json["counts"]["created"] == own
        assert len(ask("ids", path, "--shard", "0/2", "--json").json) == own
        assert ask("plan", path, "--shard", "0/2", "--json").json["counts"]["unchanged"] == own

        merged = ask("ledger", "merge", "ledger.jsonl", *ledgers, "--json").json
        assert (merged["prompts"], merged["notes"]) == (PROMPTS, [])
        again = ask("run", path).summary
        assert (again["exit_code"], again["counts"]["unchanged"]) == (0, PROMPTS)
        assert again["requests"]["writes"] == 0
        refused = ask("run", path, "--shard", "0/2", "--ledger", tmp_path / "ledger.jsonl").summary
        assert refused["counts"]["selected"] == own  # beside the one that is named
        taken = ask("ledger", "merge", "ledger.jsonl", *ledgers)
        assert (taken.code, "is there already" in taken.sentence()) == (2, True)


def test_a_trial_and_then_two_shards(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=PROMPTS)) as registry:
        path = write_migration(tmp_path, registry.base_url, limits=dict(FAST))

        def ask(*arguments: str | Path) -> Ended:
            return promptferry(*arguments, cwd=tmp_path, env={"KEY": registry.api_key})

        assert ask("run", path, "--limit", "3").summary["counts"]["created"] == 3
        ledgers = [tmp_path / f"ledger.{index}-of-2.jsonl" for index in (0, 1)]
        found = [ask("run", path, "--shard", f"{index}/2").summary["counts"]["created"] for index in (0, 1)]
        assert sum(found) == PROMPTS
        assert "--ledger from then on" in ask("ledger", "merge", "ledger.jsonl", *ledgers).sentence()
        merged = ask("ledger", "merge", "all.jsonl", "ledger.jsonl", *ledgers, "--json")
        assert (merged.code, merged.json["prompts"]) == (0, PROMPTS)
        assert ask("status", "all.jsonl", "--json").json["counts"]["created"] == PROMPTS
        again = ask("run", path, "--ledger", "all.jsonl").summary
        assert (again["exit_code"], again["counts"]["unchanged"], again["requests"]["writes"]) == (0, PROMPTS, 0)
        back = ask("rollback", path, "--ledger", "all.jsonl", "--yes", "--json")
        assert (back.code, back.json["counts"]["deleted"]) == (0, PROMPTS)
        assert len(registry.prompts()) == PROMPTS


# ---- which shard it is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shard", "shards", "index", "found"),
    [
        (None, None, "1", None),
        ("1/3", None, "", Shard(1, 3)),
        ("1/3", 3, "2", Shard(1, 3)),
        (None, 3, "2", Shard(2, 3)),
    ],
)
def test_which_it_is(
    shard: str | None, shards: int | None, index: str, found: Shard | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
    assert shard_by(shard, shards) == found


@pytest.mark.parametrize(
    ("shard", "shards", "index", "words"),
    [
        ("3/3", None, "", "--shard 3/3: shards are counted from 0, so the last of 3 is 2/3"),
        ("three", None, "", "--shard three: must be I/N"),
        ("0/2", 3, "", "do not agree"),
        (None, 3, "", "which of them"),
        (None, 3, "3", "JOB_COMPLETION_INDEX=3 --shards 3: .* the last of 3 is 2/3"),
        (None, 3, "x", "JOB_COMPLETION_INDEX=x --shards 3: must be"),
    ],
)
def test_what_is_none_is_told(
    shard: str | None, shards: int | None, index: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
    with pytest.raises(ConfigError, match=words):
        shard_by(shard, shards)


def test_its_part_of_a_limit(tmp_path: Path) -> None:
    assert shared_rate(10, Shard(0, 4), share=True) == 2.5
    assert shared_rate(10, Shard(0, 4), share=False) == 10
    assert shared_rate(None, Shard(0, 4), share=True) is None
    with pytest.raises(ConfigError, match="give --shard, too"):
        shared_rate(10, None, share=True)
    path = write_migration(tmp_path, "http://127.0.0.1:9/v1", limits={"rate": 10, "writes": 4, "share": 0.5})
    limits = load_migration(path, ENV).sharing(4).limits
    assert (limits.rate, limits.reads, limits.writes, limits.share) == (2.5, None, 1.0, 0.5)


def test_where_no_limit_is_known_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    ends = {end: {"kind": "files", "path": end} for end in ("source", "target")}
    (tmp_path / "source").mkdir()
    path.write_text(json.dumps({"name": "m", **ends}))
    found = promptferry("run", path, "--shard", "0/2", "--rate-share", cwd=tmp_path)
    assert (found.code, "no limits.rate is known of m" in found.err) == (0, True)


@pytest.mark.parametrize("name", ["m.jsonl", "m.1-of-2.jsonl"])
def test_shards_have_one_sandbox(name: str, tmp_path: Path) -> None:
    from engine.session.connect import store_beside

    assert store_beside(tmp_path / name).name == "m.jsonl.sandbox.sqlite"


def test_what_two_would_both_make_is_refused(tmp_path: Path) -> None:
    there = {"kind": "portkey", "base_url": "https://there.example/v1", "api_key": "${KEY}"}
    path = write_migration(tmp_path, "https://here.example/v1", target=there, create_missing=["collections"])
    loaded = load_migration(path, ENV)
    with pytest.raises(ConfigError, match="create_missing: two shards would both make"):
        loaded.of_shard(Shard(0, 2), loaded.ledger)
    assert loaded.of_shard(Shard(0, 1), loaded.ledger).shard == Shard(0, 1)


# ---- a fleet ---------------------------------------------------------------------------------------------------------


def test_a_shard_of_a_fleet_takes_whole_migrations(tmp_path: Path) -> None:
    with fleet(tmp_path, 4, 2) as teams:
        own = [sorted(one for one in teams.workspaces if shard_of(one, 3) == index) for index in range(3)]
        for index in range(3):
            ended = teams.ask("run", "--shard", f"{index}/3")
            summary = json.loads(ended.out)
            balanced(summary)
            assert ended.code == 0
            assert sorted(one["migration"] for one in summary["migrations"]) == own[index]
        assert any(not one for one in own)  # nothing to do is no error
        assert not list(teams.complaints())  # one ledger each, as without shards: nothing is to be merged
        assert teams.ask("status", "--json").json["counts"]["created"] == 8
        for index, names in enumerate(own):
            of_it = ("--shard", f"{index}/3", "--json")
            for verb, key in (
                ("plan", "migration"),
                ("status", "migration"),
                ("verify", "migration"),
                ("report", "name"),
            ):
                found = teams.ask(verb, *of_it)
                assert (found.code, sorted(one[key] for one in found.json["migrations"])) == (0, names), verb
            gone = teams.ask("rollback", *of_it, "--yes")
            assert (gone.code, gone.json["counts"].get("deleted", 0)) == (0, 2 * len(names))
            assert teams.ask("plan", *of_it[:2]).code == 0  # also of a part that has no migration
        assert all(len(teams.registry.prompts(name)) == 2 for name in teams.workspaces)


def test_migrations_of_two_shards_that_would_make_the_same_are_refused(tmp_path: Path) -> None:
    there = {"kind": "portkey", "base_url": "https://there.example/v1", "api_key": "${KEY}"}
    here = {**there, "base_url": "https://here.example/v1"}
    apart = next(name for name in ("b", "c", "d", "e") if shard_of(name, 2) != shard_of("a", 2))
    defaults = {"source": here, "target": there, "create_missing": ["collections"]}
    items = [{"name": "a"}, {"name": apart, "target": {"workspace": "w"}}]
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps({"name": "f", "defaults": defaults, "migrations": items}))
    assert load_fleet(path, ENV).of_shard(Shard(0, 2)).migrations  # they write to two workspaces
    path.write_text(json.dumps({"name": "f", "defaults": defaults, "migrations": [{"name": "a"}, {"name": apart}]}))
    with pytest.raises(ConfigError, match=f"create_missing: a and {apart} are of two shards"):
        load_fleet(path, ENV).of_shard(Shard(0, 2))


# ---- a ledger in use -------------------------------------------------------------------------------------------------


def in_use(free_at: float) -> Callable[[], str]:
    def attempt() -> str:
        if now() < free_at:
            raise Stop("ledger_in_use", "another run holds it", next="wait")
        return "open"

    return attempt


def test_it_waits_for_a_ledger_as_long_as_it_may() -> None:
    async def waits(free_at: float, seconds: float) -> tuple[str, float]:
        try:
            return await when_free(in_use(free_at), Halt(), seconds), now()
        except Stop as stop:
            return stop.reason, now()

    found, when = in_virtual_time(lambda: waits(7200, 9000))
    assert (found, 7200 <= when < 7201) == ("open", True)
    found, when = in_virtual_time(lambda: waits(100, 30))
    assert (found, 30 <= when < 31) == ("ledger_in_use", True)
    found, when = in_virtual_time(lambda: waits(100, 0))
    assert (found, when < 0.01) == ("ledger_in_use", True)


def test_whoever_waits_may_be_interrupted() -> None:
    async def interrupted() -> str:
        halt = Halt()
        halt.request(Stop("interrupted", "SIGTERM", next="again"))
        try:
            return await when_free(in_use(1e9), halt, 1e9)
        except Stop as stop:
            return stop.reason

    assert in_virtual_time(interrupted) == "interrupted"


@pytest.mark.parametrize(("text", "seconds"), [(None, 0), ("0", 0), ("30", 30), ("15m", 900)])
def test_how_long(text: str | None, seconds: float) -> None:
    assert waiting(text) == seconds
    with pytest.raises(ConfigError, match="--lock-wait 'soon'"):
        waiting("soon")


async def test_a_run_goes_on_when_the_other_one_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").mkdir()
    ends = {end: {"kind": "files", "path": end} for end in ("source", "target")}
    (tmp_path / "m.yaml").write_text(json.dumps({"name": "m", **ends, "ledger": "m.jsonl"}))
    migration = load_migration(tmp_path / "m.yaml")
    other = Sink.open(migration.ledger, run="other")
    assert (await run_migration(migration)).reason == "ledger_in_use"
    pause = Halt.pause

    async def ends_now(self: Halt, seconds: float) -> None:
        other.close()
        await pause(self, 0)

    monkeypatch.setattr(Halt, "pause", ends_now)
    assert (await run_migration(migration, RunOptions(lock_wait=60))).reason == "done"
