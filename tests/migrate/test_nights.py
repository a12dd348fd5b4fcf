"""The same file run every night: what is new is created, what changed is updated, the rest is left alone."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Ended, Place, lines, replicas, served, started, wait_for_lines, write_migration

COUNT = 300


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served(SandboxOptions(prompts=COUNT)) as registry:
        yield Place(
            registry, write_migration(tmp_path, registry.base_url, rewrite={"parameters": {"drop": ["thinking"]}})
        )


def did(ended: Ended) -> dict[str, int]:
    counts = ended.summary["this_run"]
    return {name: counts[name] for name in ("created", "updated", "unchanged", "conflicts", "failed")}


def plain(place: Place, count: int) -> list[dict[str, Any]]:
    """Originals whose text anybody may change without breaking it."""
    return [one for one in place.originals() if not one["is_raw_template"] and not one["string"].startswith("[")][
        :count
    ]


def a_day(place: Place) -> tuple[str, str]:
    """Six sources change, two are new, one is deleted; the replica of one of the six is edited by hand: its source, and
    the one that is gone.
    """
    chosen = plain(place, 7)
    for one in chosen[:6]:
        place.registry.edit(one["id"], string=one["string"] + " And be brief.")
    for name in ("new one", "new two"):
        place.registry.ask(partial(Sandbox.add_prompt, name=name))
    place.registry.call("DELETE", f"/prompts/{chosen[6]['id']}")
    place.registry.edit(place.replica_of(chosen[0]["id"])["id"], string="by hand {{name}}")
    return chosen[0]["id"], chosen[6]["id"]


def test_three_nights(place: Place) -> None:
    assert did(place.run()) == {"created": COUNT, "updated": 0, "unchanged": 0, "conflicts": 0, "failed": 0}
    quiet = place.run()
    assert did(quiet)["unchanged"] == COUNT
    assert quiet.summary["requests"]["total"] <= 10  # one listing, and nothing is read

    edited, gone = a_day(place)
    second = place.run()
    assert did(second) == {"created": 2, "updated": 5, "unchanged": COUNT + 2 - 1 - 8, "conflicts": 1, "failed": 0}
    assert (second.code, second.summary["orphaned"]) == (1, 1)
    assert place.replica_of(edited)["string"] == "by hand {{name}}"
    assert place.replica_of(gone)
    for one in plain(place, 6)[1:]:
        assert place.replica_of(one["id"])["string"] == one["string"]

    third = place.run()
    assert did(third) == {"created": 0, "updated": 0, "unchanged": COUNT, "conflicts": 1, "failed": 0}
    assert (third.code, third.summary["orphaned"], third.summary["requests"]["writes"]) == (1, 1, 0)
    assert [line["reason"] for line in lines(place.path.parent / "ledger.jsonl") if line["kind"] == "conflict"] == [
        "edited",
        "edited",
    ]


def test_the_second_night_killed_again_and_again_ends_as_without(place: Place) -> None:
    place.run()
    edited, _ = a_day(place)
    ledger = place.path.parent / "ledger.jsonl"
    kills = 0
    for more in range(2, 60, 3):
        before = ledger.read_bytes().count(b"\n")
        with started("run", place.path, cwd=place.path.parent, env={"KEY": place.registry.api_key}) as process:
            in_time = wait_for_lines(ledger, before + more, process)
            process.kill()
            process.wait()
        kills += process.returncode == -signal.SIGKILL
        if not in_time:
            break
    for _ in range(4):
        last = place.run()
    assert kills > 3
    assert (last.code, did(last)) == (1, {"created": 0, "updated": 0, "unchanged": COUNT, "conflicts": 1, "failed": 0})
    for one in plain(place, 6)[1:]:
        replica = place.replica_of(one["id"])
        assert replica["string"] == one["string"]
        assert len(place.registry.versions(replica["id"])) == 2
    assert place.replica_of(edited)["string"] == "by hand {{name}}"
    assert {len(ones) for ones in replicas(place.registry.prompts()).values()} == {1}


@pytest.mark.parametrize(("on_edited", "kept", "count"), [("keep", True, "unchanged"), ("overwrite", False, "updated")])
def test_what_becomes_of_an_edited_replica_is_said_in_the_file(
    place: Place, on_edited: str, kept: bool, count: str
) -> None:
    place.run()
    edited, _ = a_day(place)
    write_migration(
        place.path.parent, place.registry.base_url, on_edited=on_edited, rewrite={"parameters": {"drop": ["thinking"]}}
    )
    ran = place.run()
    assert (ran.code, did(ran)["conflicts"], did(ran)["updated"]) == (0, 0, 5 if kept else 6)
    assert (place.replica_of(edited)["string"] == "by hand {{name}}") is kept
    assert did(place.run())["updated"] == 0


def test_an_edited_replica_whose_source_did_not_change_is_noted_and_left(place: Place) -> None:
    place.run()
    (one,) = plain(place, 1)
    replica = place.replica_of(one["id"])
    place.registry.edit(replica["id"], string="by hand {{name}}")
    # times are kept to the second: a change in the second of the create cannot be told by them
    for _ in range(2):
        ran = place.run()
        assert (ran.code, did(ran)["unchanged"], ran.summary["requests"]["writes"]) == (0, COUNT, 0)
    assert place.replica_of(one["id"])["string"] == "by hand {{name}}"


def test_new_rules_update_what_was_made_under_old_ones(place: Place) -> None:
    place.run("--limit", "20")
    write_migration(place.path.parent, place.registry.base_url, rewrite={"model": "new-model"}, on_change="skip")
    assert did(place.run("--limit", "0"))["updated"] == 0
    write_migration(place.path.parent, place.registry.base_url, rewrite={"model": "new-model"})
    planned = place.ask("plan", "--json").json
    ran = place.run()
    assert did(ran) == {"created": COUNT - 20, "updated": 20, "unchanged": 0, "conflicts": 0, "failed": 0}
    assert (planned["counts"]["create"], planned["counts"]["update"]) == (COUNT - 20, 20)
    changes = next(one["changes"] for one in planned["prompts"] if one["action"] == "update")
    assert {"field": "model", "before": changes[0]["before"], "after": "new-model"} in changes
    assert {ones[0]["model"] for ones in replicas(place.registry.prompts()).values()} == {"new-model"}
    assert did(place.run())["updated"] == 0
