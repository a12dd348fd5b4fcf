"""Labels: what stands on the version that is copied stands on the replica's version too."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import SandboxOptions
from tests.e2e import Place as Migrated
from tests.e2e import lines, promptferry, replicas, served, started, wait_for_lines, write_migration

COUNT = 12


@dataclass(frozen=True)
class Place(Migrated):
    workspace: str
    """Of the replicas."""

    @property
    def env(self) -> dict[str, str]:
        return {"KEY": self.registry.api_key, "OTHER": self.registry.ask(lambda sandbox: sandbox.key("other"))}

    def write(self, **parts: Any) -> None:
        """The migration file anew."""
        migration(self.path.parent, self.registry.base_url, self.workspace, **parts)

    def sources(self) -> dict[str, dict[str, Any]]:
        return {one["id"]: one for one in self.registry.prompts() if "promptferry" not in one["template_metadata"]}

    def replicas(self) -> dict[str, dict[str, Any]]:
        """Source id -> its only replica."""
        found = [ones for ones in replicas(self.registry.prompts(self.workspace)).values() if ones]
        assert {len(ones) for ones in found} == {1}
        return {one["template_metadata"]["promptferry"]["source_id"]: dict(one) for (one,) in found}

    def label(self, prompt_id: str, name: str, *, version: int = -1) -> None:
        """Somebody puts a label on a version, by its place in the history; it is made when it is not there."""
        known = {one["name"]: one["id"] for one in self.registry.call("GET", "/labels")["data"]}
        label = known.get(name) or self.registry.call("POST", "/labels", {"name": name})["id"]
        version_id = self.registry.versions(prompt_id)[version]["prompt_version_id"]
        self.registry.call("PUT", f"/prompts/{prompt_id}/versions/{version_id}", {"label_id": label})

    def posts(self, path_end: str) -> int:
        seen = self.registry.ask(lambda sandbox: list(sandbox.requests))
        return sum(method == "POST" and path.endswith(path_end) for method, path, _ in seen)


def migration(folder: Path, base_url: str, workspace: str, **parts: Any) -> Path:
    value: dict[str, Any] = {
        "rewrite": {"model": "anthropic.claude-3-5-sonnet", "partials": {}},
        "limits": {"rate": 2000, "settle": "0.1s", "timeout": 5, "attempts": 1},
    }
    if workspace != "main":
        value["target"] = {"kind": "portkey", "base_url": base_url, "api_key": "${OTHER}"}
    return write_migration(folder, base_url, **value | parts)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Prompts with one label, several, or none; `canary` is a label of the source's workspace alone. The replicas go to
    another workspace unless a test says `main`.
    """
    workspace: str = getattr(request, "param", "other")
    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(lambda sandbox: sandbox.key("other"))
        registry.ask(lambda sandbox: [sandbox.add_prompt(f"prompt {number}") for number in range(COUNT)])
        found = Place(registry, migration(tmp_path, registry.base_url, workspace), workspace)
        for number, source_id in enumerate(found.sources()):
            if number % 3 == 0:
                found.label(source_id, "production")
            if number % 2 == 0:
                found.label(source_id, "canary")
        yield found


def labels(version: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(label["name"] for label in version["prompt_version_labels"])


def arrived(place: Place) -> None:
    """The version that is published has the labels of its source's, and no other version has any."""
    sources, made = place.sources(), place.replicas()
    assert made.keys() == sources.keys()
    assert {key: labels(made[key]) for key in sources} == {key: labels(one) for key, one in sources.items()}
    for one in made.values():
        number = one["prompt_version"]
        others = [version for version in place.registry.versions(one["id"]) if version["prompt_version"] != number]
        assert [labels(version) for version in others] == [frozenset()] * len(others)


def settled(place: Place) -> None:
    last = place.run()
    assert (last.code, last.summary["counts"]["unchanged"], last.summary["requests"]["writes"]) == (0, COUNT, 0)


@pytest.mark.parametrize("place", ["main", "other"], indirect=True, ids=["beside", "another workspace"])
def test_labels_go_onto_the_replicas_and_are_made_once_where_they_lack(place: Place) -> None:
    made_before = place.posts("/labels")
    first = place.run()
    assert (first.code, first.summary["counts"]["created"]) == (0, COUNT)
    arrived(place)
    assert place.posts("/labels") - made_before == (place.workspace == "other")
    settled(place)


def test_labels_follow_onto_a_new_version(place: Place) -> None:
    place.run()
    for source_id in place.sources():
        place.registry.edit(source_id, string="Hello again")
        place.label(source_id, "staging")
    second = place.run()
    assert (second.code, second.summary["this_run"]["updated"]) == (0, COUNT)
    made = place.replicas()
    assert {labels(one) for one in made.values()} == {frozenset({"staging"})}
    # the labels of the version before stay where they are, at the source and here
    for source_id in place.sources():
        ours, theirs = place.registry.versions(made[source_id]["id"]), place.registry.versions(source_id)
        assert [labels(version) for version in ours] == [labels(version) for version in theirs]
    settled(place)


def test_every_version_of_a_history_has_its_labels(place: Place) -> None:
    for source_id in place.sources():
        place.registry.edit(source_id, string="second")
        place.label(source_id, "staging")
        place.registry.edit(source_id, publish=False, string="third")
        place.label(source_id, "draft")
    place.write(select={"version": "all"})
    assert place.run().code == 0
    made = place.replicas()
    for source_id in place.sources():
        ours, theirs = place.registry.versions(made[source_id]["id"]), place.registry.versions(source_id)
        assert [labels(version) for version in ours] == [labels(version) for version in theirs]
    settled(place)


def test_killed_between_create_and_label(place: Place) -> None:
    kills = 0
    for more in range(2, 16, 4):
        written = place.ledger.read_bytes().count(b"\n") if place.ledger.exists() else 0
        with started("run", place.path, cwd=place.path.parent, env=place.env) as process:
            wait_for_lines(place.ledger, written + more, process)
            process.kill()
            process.wait()
        kills += process.returncode == -signal.SIGKILL
    assert kills > 2
    for _ in range(3):
        if place.run().code == 0:
            break
    arrived(place)
    settled(place)


@pytest.mark.parametrize("ledger_lost", [False, True], ids=["with its ledger", "without"])
def test_labels_that_a_key_may_not_set_arrive_with_one_that_may(ledger_lost: bool, place: Place) -> None:
    scopes = ("prompts.list", "prompts.read", "prompts.create", "providers.list", "virtual_keys.list")
    poor = place.registry.ask(lambda sandbox: sandbox.key(place.workspace, scopes))
    first = promptferry(
        "run",
        place.path,
        cwd=place.path.parent,
        env=place.env | {"KEY" if place.workspace == "main" else "OTHER": poor},
    )
    assert first.code == 4
    made = place.replicas()
    assert made
    assert not any(labels(one) for one in made.values())
    if ledger_lost:
        place.ledger.unlink()
    assert place.run("--retry-failed").code == 0
    arrived(place)
    settled(place)


@pytest.mark.parametrize("fault", ["reset_after", "truncate"])
def test_a_create_whose_answer_is_lost_gets_its_labels(fault: str, place: Place) -> None:
    place.registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="POST", path_end="/prompts", times=6))
    first = place.run()
    assert (first.code, first.summary["counts"]["created"]) == (0, COUNT)
    assert sum(line["kind"] == "created" and line["how"] == "lookup" for line in lines(place.ledger)) == 6
    arrived(place)
    settled(place)


def test_a_label_on_a_version_that_is_not_copied_is_a_note(place: Place) -> None:
    first, second, *_ = place.sources()
    place.registry.edit(first, publish=False, string="a draft")
    place.label(first, "next")
    planned = place.ask("plan", "--json").json
    notes = {one["source_id"]: [note for note in one["notes"] if "label" in note] for one in planned["prompts"]}
    assert len(notes) == COUNT
    assert {key for key, found in notes.items() if found} == {first}
    (note,) = notes[first]
    assert "'next'" in note
    assert "version 2" in note
    assert second in notes
    assert place.run().code == 0
    made = place.replicas()
    assert "next" not in {name for one in made.values() for name in labels(one)}
    assert len(place.registry.versions(made[first]["id"])) == 1
