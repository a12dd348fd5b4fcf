"""A plan that was written down is done exactly; and what a run that verifies at its end says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from engine.sandbox import SandboxOptions
from tests.e2e import Ended, Served, lines, promptferry, replicas, served, write_migration

COUNT = 40


class Place:
    def __init__(self, folder: Path, registry: Served) -> None:
        self.folder, self.registry = folder, registry
        self.path = write_migration(folder, registry.base_url, rewrite={"model": "new-model"})

    def do(self, command: str, *flags: str) -> Ended:
        return promptferry(command, self.path, *flags, cwd=self.folder, env={"KEY": self.registry.api_key})

    def planned(self, *flags: str) -> dict[str, Any]:
        """Writes the plan to plan.json."""
        ended = self.do("plan", "--json", "--out", "plan.json", *flags)
        assert ended.code == 0, ended.err
        assert sha256((self.folder / "plan.json").read_bytes()).hexdigest() in ended.err
        found: dict[str, Any] = ended.json
        return found

    def originals(self) -> list[dict[str, Any]]:
        return [one for one in self.registry.prompts() if "promptferry" not in one["template_metadata"]]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served(SandboxOptions(prompts=COUNT)) as registry:
        yield Place(tmp_path, registry)


def test_a_plan_is_done_exactly(place: Place) -> None:
    place.planned("--only", "*")
    text = (place.folder / "plan.json").read_text()
    for one in place.originals():
        assert one["id"] in text
        assert one["string"][:60] not in text
    place.registry.ask(lambda sandbox: sandbox.add_prompt("since then"))
    ran = place.do("run", "--plan", "plan.json")
    assert (ran.code, ran.summary["this_run"]["created"], ran.summary["counts"]["not_started"]) == (0, COUNT, 1)
    again = place.do("run", "--plan", "plan.json")
    assert (again.code, again.summary["counts"]["unchanged"], again.summary["requests"]["writes"]) == (0, COUNT, 0)


def test_what_changed_since_the_plan_is_a_conflict(place: Place) -> None:
    place.do("run", "--limit", "10")
    made = next(iter(replicas(place.registry.prompts()).values()))[0]["template_metadata"]["promptferry"]["source_id"]
    place.planned()
    new = next(one for one in place.originals() if one["id"] not in str(replicas(place.registry.prompts())))
    for prompt_id in (made, new["id"]):
        place.registry.edit(prompt_id, parameters={"temperature": 0.123})
    ran = place.do("run", "--plan", "plan.json")
    counts = ran.summary["counts"]
    assert (ran.code, counts["created"], counts["conflicts"], counts["updated"]) == (1, COUNT - 11, 2, 0)
    ledger = lines(place.folder / "ledger.jsonl")
    assert {line["source_id"]: line["reason"] for line in ledger if line["kind"] == "conflict"} == {
        made: "changed",
        new["id"]: "changed",
    }
    without = place.do("run").summary["this_run"]
    assert (without["created"], without["updated"], without["conflicts"]) == (1, 1, 0)


WRONG = {
    "no file": (None, "cannot be read"),
    "no plan": ("{}", "is no plan"),
    "no JSON": ("x", "is no plan"),
    "a later format": ('{"promptferry_plan": 9, "rules": "", "identity": {}, "prompts": []}', "another version"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_plan_is_refused(place: Place, case: str) -> None:
    data, words = WRONG[case]
    if data is not None:
        (place.folder / "plan.json").write_text(data)
    ran = place.do("run", "--plan", "plan.json")
    assert (ran.code, ran.summary["reason"]) == (2, "config")
    assert words in ran.sentence()
    assert not replicas(place.registry.prompts())


@pytest.mark.parametrize(
    ("parts", "words"),
    [({"rewrite": {"model": "other"}}, "was changed since"), ({"name": "another"}, "another migration")],
)
def test_a_plan_of_other_rules_or_another_migration_is_refused(place: Place, parts: dict[str, Any], words: str) -> None:
    place.planned()
    place.path = write_migration(place.folder, place.registry.base_url, **parts)
    ran = place.do("run", "--plan", "plan.json")
    assert (ran.code, words in ran.sentence()) == (2, True)


def test_a_plan_of_one_shard_is_none_of_another(place: Place) -> None:
    own = place.planned("--shard", "0/2")["counts"]["create"]
    refused = place.do("run", "--plan", "plan.json", "--shard", "1/2").summary
    assert (refused["exit_code"], "is the plan of shard 0/2, and this is shard 1/2" in refused["message"]) == (2, True)
    assert place.do("run", "--plan", "plan.json", "--shard", "0/2").summary["this_run"]["created"] == own
    place.planned()  # that of all is one for each of them
    rest = place.do("run", "--plan", "plan.json", "--shard", "1/2").summary
    assert (rest["this_run"]["created"], rest["counts"]["not_started"]) == (COUNT - own, 0)


def test_a_plan_tells_equal_changes_together(place: Place) -> None:
    text = place.do("plan").out
    found = re.search(r"^create (\d+): ", text, re.MULTILINE)
    assert found is not None
    assert int(found[1]) > 1
    assert json.dumps("new-model").strip('"') in text


def test_a_run_verifies_at_its_end_where_the_file_says_so(place: Place) -> None:
    place.path = write_migration(
        place.folder, place.registry.base_url, rewrite={"model": "new-model"}, verify={"after_run": True}
    )
    first = place.do("run")
    assert (first.code, first.summary["verified"]) == (
        0,
        {"same": COUNT, "differs": 0, "missing": 0, "source_changed": 0},
    )
    replica = next(iter(replicas(place.registry.prompts()).values()))[0]
    place.registry.edit(replica["id"], model="by-hand")
    second = place.do("run")
    assert (second.code, second.summary["verified"]["differs"], second.summary["reason"]) == (3, 1, "failures")
