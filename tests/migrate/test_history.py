"""`select.version: all`: a replica has the whole history of its source, in order, and the same version published."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import Quirks, Sandbox, SandboxOptions
from tests.e2e import Place as Migrated
from tests.e2e import lines, promptferry, replicas, served, started, wait_for_lines, write_migration

LENGTHS = (1, 2, 3, 5, 8, 13, 30)
"""Versions of each prompt; of every second one an older version is published."""
NEW = "anthropic.claude-3-5-sonnet"
CONTENT = (
    *("string", "functions", "tools", "tool_choice", "is_raw_template", "virtual_key", "prompt_version_description"),
)

Version = dict[str, Any]


@dataclass(frozen=True)
class Place(Migrated):
    def sources(self) -> dict[str, Version]:
        return {one["id"]: one for one in self.registry.prompts() if "promptferry" not in one["template_metadata"]}

    def numbers(self, source_id: str) -> dict[int, int]:
        """The ledger's map of a prompt: number of the source's version -> number of the replica's."""
        told = [line for line in lines(self.ledger) if line["kind"] == "version" and line["source_id"] == source_id]
        found = {line["source_version"]: line["target_version"] for line in told}
        assert len(found) == len(told)  # each version arrived once
        return found


def content(version: Mapping[str, Any]) -> dict[str, Any]:
    parameters = {name: value for name, value in version["parameters"].items() if name != "model"}
    return {name: version[name] for name in CONTENT} | {"parameters": parameters}


def grown(place: Place) -> None:
    """Gives the prompts their histories; some versions say what an earlier one says."""
    for position, (length, source_id) in enumerate(zip(LENGTHS, place.sources(), strict=True)):
        for number in range(2, length + 1):
            text = f"text {number % 4} of {{{{name}}}}"
            published = number == length if position % 2 else number == length // 2
            place.registry.edit(source_id, publish=published, string=text, is_raw_template=0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Histories whose numbers have gaps, in a registry that numbers new versions without any."""
    store = tmp_path / "store.sqlite"
    with served(SandboxOptions(prompts=len(LENGTHS), store=store, quirks=Quirks(version_step=3))) as registry:
        grown(Place(registry, tmp_path))
    with served(SandboxOptions(store=store)) as registry:
        yield Place(registry, migration(tmp_path, registry.base_url))


def migration(folder: Path, base_url: str, **parts: Any) -> Path:
    value: dict[str, Any] = {
        "select": {"version": "all"},
        "rewrite": {"model": NEW},
        "limits": {"rate": 2000, "settle": "0.1s", "timeout": 5},
    }
    return write_migration(folder, base_url, **value | parts)


def whole(place: Place, *, but: Collection[str] = ()) -> None:
    """Every history came out in order and whole, under the numbers that the ledger says, the same one published."""
    for source_id, source in place.sources().items():
        if source_id in but:
            continue
        replica = place.replica_of(source_id)
        theirs, ours = place.registry.versions(source_id), place.registry.versions(replica["id"])
        assert [content(one) for one in ours] == [content(one) for one in theirs]
        assert {one["model"] for one in ours} == {NEW}
        numbers = {a["prompt_version"]: b["prompt_version"] for a, b in zip(theirs, ours, strict=True)}
        assert place.numbers(source_id) == numbers
        assert replica["prompt_version"] == numbers[source["prompt_version"]]
        assert replica["name"] == f"{source['name']}-replica"
    assert any(one["prompt_version"] > 30 for one in place.sources().values())
    assert {len(ones) for ones in replicas(place.registry.prompts()).values()} == {1}


def settled(place: Place) -> None:
    """A run that has nothing left to do."""
    writes = place.registry.ask(lambda sandbox: sum(method != "GET" for method, _, _ in sandbox.requests))
    last = place.run()
    assert (last.code, last.summary["counts"]["unchanged"]) == (0, len(LENGTHS))
    assert last.summary["requests"]["writes"] == 0
    assert place.registry.ask(lambda sandbox: sum(method != "GET" for method, _, _ in sandbox.requests)) == writes


def test_histories_come_out_in_order_and_whole(place: Place) -> None:
    first = place.run()
    assert (first.code, first.summary["counts"]["created"]) == (0, len(LENGTHS))
    whole(place)
    # one create and, for each further version, one update; at most one cut-over for a prompt
    versions = sum(len(place.registry.versions(source_id)) for source_id in place.sources())
    assert versions <= first.summary["requests"]["writes"] <= versions + len(LENGTHS) + labels(place)
    settled(place)


def labels(place: Place) -> int:
    return sum(
        len(version["prompt_version_labels"])
        for source_id in place.sources()
        for version in place.registry.versions(source_id)
    )


def test_killed_in_the_middle_again_and_again(place: Place) -> None:
    kills = 0
    for more in (1, 5, 9, 14, 18):
        written = place.ledger.read_bytes().count(b"\n") if place.ledger.exists() else 0
        with started("run", place.path, cwd=place.path.parent, env=place.env) as process:
            wait_for_lines(place.ledger, written + more, process)
            process.kill()
            process.wait()
        kills += process.returncode == -signal.SIGKILL
    assert kills > 3
    for _ in range(3):
        if place.run().code == 0:
            break
    whole(place)
    settled(place)


@pytest.mark.parametrize("fault", ["reset_after", "truncate"])
def test_lost_answers_double_no_version(fault: str, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_updates(sandbox: Sandbox) -> None:
        """A label or a cut-over is only sent again, and one that meets all six is given up."""
        draw = sandbox.faults.draw
        spared = ("/versions/", "/makeDefault")
        monkeypatch.setattr(
            sandbox.faults,
            "draw",
            lambda method, path: None if any(map(path.__contains__, spared)) else draw(method, path),
        )

    place.registry.ask(of_updates)
    place.registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="PUT", times=6))
    place.registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="POST", times=2))
    first = place.run()
    assert (first.code, first.summary["counts"]["created"]) == (0, len(LENGTHS))
    assert sum(line["kind"] == "unknown" for line in lines(place.ledger)) >= 3
    whole(place)
    settled(place)


def test_new_versions_of_the_source_are_appended(place: Place) -> None:
    place.run()
    draft, published, *_ = place.sources()
    place.registry.edit(draft, publish=False, string="a draft {{name}}", is_raw_template=0)
    for text in ("better {{name}}", "best {{name}}"):
        place.registry.edit(published, string=text, is_raw_template=0)
    planned = promptferry("plan", place.path, "--json", cwd=place.path.parent, env=place.env).json
    assert planned["counts"]["update"] == 2
    night = place.run()
    assert (night.code, night.summary["this_run"]["updated"], night.summary["this_run"]["unchanged"]) == (0, 2, 5)
    whole(place)
    assert place.replica_of(published)["string"] == "best {{name}}"
    settled(place)


def test_another_version_published_at_the_source_is_published_here(place: Place) -> None:
    place.run()
    *_, source_id = place.sources()
    first = place.registry.versions(source_id)[0]["prompt_version"]
    place.registry.call("PUT", f"/prompts/{source_id}/makeDefault", {"version": first})
    assert place.run().code == 0
    whole(place)
    assert place.replica_of(source_id)["prompt_version"] == 1
    settled(place)


def test_a_replica_with_a_version_by_hand_is_left_alone(place: Place) -> None:
    place.run()
    source_id, other, *_ = place.sources()
    replica = place.replica_of(source_id)["id"]
    by_hand = place.registry.edit(replica, string="by hand {{name}}", is_raw_template=0)
    for one in (source_id, other):
        place.registry.edit(one, string="new {{name}}", is_raw_template=0)
    night = place.run()
    assert (night.code, night.summary["this_run"]["conflicts"], night.summary["this_run"]["updated"]) == (1, 1, 1)
    assert place.registry.versions(replica)[-1]["prompt_version"] == by_hand
    assert place.replica_of(source_id)["string"] == "by hand {{name}}"
    assert place.replica_of(other)["string"] == "new {{name}}"


def test_a_version_that_is_refused_stops_its_own_history_alone(place: Place) -> None:
    source_id, *_ = place.sources()
    refused = place.registry.edit(source_id, publish=False, virtual_key="nowhere")
    place.registry.edit(source_id, publish=False, string="behind it", is_raw_template=0, virtual_key="openai-prod")
    first = place.run()
    assert (first.code, first.summary["counts"]["failed"]) == (1, 1)
    (failed,) = (line for line in lines(place.ledger) if line["kind"] == "failed")
    assert (failed["source_id"], failed["status"]) == (source_id, 400)
    arrived = place.registry.versions(place.replica_of(source_id)["id"])
    before = [one for one in place.registry.versions(source_id) if one["prompt_version"] < refused]
    assert [content(one) for one in arrived] == [content(one) for one in before]
    whole(place, but={source_id})
