"""A fleet whose migrations need the same collections, partials and labels at one target: each is made once, whoever
comes first, and taken back when the prompts of all are gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.config import load_fleet
from engine.fleet.common import shared_by
from engine.ledger.sink import Sink
from engine.migrate import entries
from engine.model import Part
from tests.cli.test_terminal import terminal
from tests.e2e import Ended, promptferry
from tests.fleets import FAST, balanced, write_fleet
from tests.pair import ALL, ONE_EACH, PROVIDERS, Two, planted, two

TEAMS = 4
PROMPTS = 8


@contextmanager
def teams(folder: Path) -> Iterator[Two]:
    """Prompts p0, p1, ... of one workspace, by four migrations that all go at once."""
    with two(folder, latency=(0.0, 0.01)) as found:
        planted(found, PROMPTS)
        end = {"kind": "portkey", "base_url": found.registry.base_url}
        names = [[f"p{number}" for number in range(team, PROMPTS, TEAMS)] for team in range(TEAMS)]
        defaults = {
            "source": {**end, "api_key": "${KEY}"},
            "target": {**end, "api_key": "${THERE}"},
            "create_missing": list(ALL),
            "rewrite": {"name": "{name}", "provider": PROVIDERS},
            "limits": dict(FAST),
        }
        rows = [{"name": f"t{team}", "select": {"names": names[team]}} for team in range(TEAMS)]
        write_fleet(folder, defaults=defaults, migrations=rows, parallel=TEAMS)
        yield found


def ask(found: Two, verb: str, *flags: str) -> Ended:
    return promptferry("fleet", verb, "fleet.yaml", *flags, cwd=found.folder, env=found.env)


def test_what_several_need_is_made_once_and_taken_back_when_none_does(tmp_path: Path) -> None:
    with teams(tmp_path) as found:
        before = found.stored()
        planned = ask(found, "plan")
        assert planned.out.count("make collection Care (") == TEAMS
        done = ask(found, "run").json
        balanced(done)
        assert (done["exit_code"], done["counts"]["created"]) == (0, PROMPTS)
        assert found.names() == ONE_EACH
        would = ask(found, "rollback", "--dry-run", "--json").json
        results = Counter(part["result"] for one in would["migrations"] for part in one["made"])
        assert (would["exit_code"], results) == (0, {"deleted": 7})
        back = ask(found, "rollback", "--yes", "--json")
        assert (back.code, "that were made for them are deleted" in back.err) == (0, True)
        assert [one["made"] for one in back.json["migrations"]] == [one["made"] for one in would["migrations"]]
        assert found.stored() == before


def test_what_somebody_else_uses_stays_and_is_told(tmp_path: Path) -> None:
    with teams(tmp_path) as found:
        with terminal("fleet", "run", "fleet.yaml", cwd=tmp_path, **found.env) as screen:
            screen.wait_for("go on? [y/N] ")
            assert "made at the target first: 3 collections, 3 partials, 1 label" in screen.shown
            screen.type(b"y\n")
            assert screen.end() == 0
        (home,) = (one["id"] for one in found.listed("collections") if one["name"] == "Urgent")
        body = {"name": "mine", "collection_id": home, "string": "Hi", "parameters": {}, "model": "gpt-4o"}
        found.target("POST", "/prompts", {**body, "virtual_key": "openai-prod"})
        told = ask(found, "rollback", "--yes")
        assert told.code == 1
        assert "kept collection Urgent (" in told.out
        assert "it is used by mine; it stays as it is" in told.out
        assert found.names() == {"collections": {"Care": 1, "Urgent": 1}, "partials": {}, "labels": {}}


async def test_what_a_ledger_leaves_in_doubt_is_waited_for_by_all_of_that_workspace(tmp_path: Path) -> None:
    defaults = {"source": {"base_url": "sandbox"}, "create_missing": list(ALL), "limits": {"settle": 7}}
    rows = [{"name": name, "target": {"base_url": f"sandbox:{name[0]}"}} for name in ("a1", "a2", "b1")]
    loaded = load_fleet(write_fleet(tmp_path, defaults=defaults, migrations=rows))
    part = Part(what="label", id="s", slug="blue", name="blue")
    sink = Sink.open(tmp_path / "ledgers" / "teams" / "a1.jsonl", run="killed", clock=lambda: 1000.0)
    async with sink:
        await sink.record(entries.part_intent(part, part, "", 1))
    sink.close()
    async with shared_by(loaded, rate=None) as shared:
        a1, a2, b1 = map(shared.parts_of, loaded.migrations)
        assert a1 is a2
        assert a2.unsure == {"a1": 1014.0}
        assert (b1.unsure, b1.turn is a1.turn) == ({}, False)
