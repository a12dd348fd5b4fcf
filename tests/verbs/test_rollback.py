"""`rollback`: what a migration did is taken back, and only that; the registry's own truth says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import SandboxOptions
from tests.e2e import Ended, Served, lines, replicas, served, write_migration
from tests.e2e import Place as Migrated

MANY: Final = 80
FEW: Final = 20
BREAKS: Final = "applications that already call these replicas will break."
IN_PLACE: Final = {"name": "{name} (new)", "model": "gpt-4o", "provider": "openai-prod", "collection": "sales"}

Prompt = dict[str, Any]


@dataclass(frozen=True)
class Place(Migrated):
    """A migration in a registry."""

    def rollback(self, *flags: str) -> Ended:
        return self.ask("rollback", "--yes", "--json", *flags)

    def change_file(self, **parts: Any) -> None:
        write_migration(self.path.parent, self.registry.base_url, **parts)

    def prompts(self) -> dict[str, Prompt]:
        """The registry's own truth by id."""
        return {one["id"]: one for one in self.registry.prompts()}

    def numbers(self, prompt_id: str) -> list[int]:
        return [one["prompt_version"] for one in self.registry.versions(prompt_id)]

    def writes(self) -> int:
        """How many requests changed something or were to."""
        return self.registry.ask(lambda sandbox: sum(one.method != "GET" for one in sandbox.requests))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with served(SandboxOptions(prompts=FEW)) as registry:
        yield Place(registry, write_migration(tmp_path, registry.base_url))


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Place]:
    with served(SandboxOptions(prompts=MANY)) as registry:
        yield Place(registry, write_migration(tmp_path, registry.base_url))


def did(ended: Ended) -> tuple[int, int, int]:
    """Created, updated and failed."""
    counts = ended.summary["this_run"]
    return counts["created"], counts["updated"], counts["failed"]


def became(ended: Ended) -> dict[str, int]:
    """What a rollback says it did, but for what it did to none."""
    counts: dict[str, int] = ended.json["counts"]
    assert counts == {name: sum(one["result"] == name for one in ended.json["prompts"]) for name in counts}
    return {name: count for name, count in counts.items() if count}


def timeless(prompts: dict[str, Prompt]) -> dict[str, Prompt]:
    """The prompts without the times of their last change."""
    return {key: {name: one[name] for name in one.keys() - {"last_updated_at"}} for key, one in prompts.items()}


# ---- replicas --------------------------------------------------------------------------------------------------------


def await_the_end_of_what_was_under_way(registry: Served) -> None:
    """Requests that a registry has received are carried out, whether or not somebody still waits for their answers."""
    seen = [-1]
    while len(seen) < 5 or len({*seen[-4:]}) > 1:
        for _ in range(20):
            registry.call("GET", "/prompts?page_size=1")
        seen.append(len(registry.prompts()))


def test_a_killed_run_is_taken_back_apart_from_what_somebody_did_since(library: Place) -> None:
    place, registry = library, library.registry
    before = place.prompts()
    registry.ask(lambda sandbox: sandbox.faults.plan("reset_after", method="POST", path_end="/prompts", times=4))
    place.kill("run", after=MANY)
    await_the_end_of_what_was_under_way(registry)
    known = {line["target_id"] for line in lines(place.ledger) if line["kind"] == "created"}
    unheard_of = place.prompts().keys() - before.keys() - known
    assert len(known) > 10
    assert len(unheard_of) >= 4
    short = {line["target_id"] for line in lines(place.ledger) if line.get("pending")}
    short -= {line["target_id"] for line in lines(place.ledger) if line["kind"] == "finished"}
    edited, drafted, *_ = sorted(known - short)  # what lacks its labels is finished by the next run, which counts it
    registry.edit(edited, string="by hand {{name}}")
    registry.edit(drafted, string="by hand {{name}}", publish=False)
    somebodys = registry.ask(lambda sandbox: sandbox.add_prompt("somebody's"))
    there, written, sent = place.prompts(), place.ledger.read_bytes(), place.writes()

    shown = place.ask("rollback", "--dry-run", "--json")
    assert (shown.code, became(shown)) == (1, {"deleted": len(known) - 2, "kept": 2})
    assert shown.json["in_doubt"] >= len(unheard_of)
    refused = place.ask("rollback")
    assert refused.code == 2
    assert "--yes" in refused.sentence()
    assert (place.prompts(), place.ledger.read_bytes(), place.writes()) == (there, written, sent)

    done = place.rollback()
    assert done.code == 1
    assert BREAKS in done.err
    assert became(done) == {"deleted": len(known | unheard_of) - 2, "kept": 2}
    assert {one["target_id"] for one in done.json["prompts"] if one["result"] == "kept"} == {edited, drafted}
    assert place.prompts() == before | {one: there[one] for one in (edited, drafted, somebodys)}
    told = Counter(line["result"] for line in lines(place.ledger) if line["kind"] == "rolled_back")
    assert (told["deleted"], told["kept"]) == (len(known | unheard_of) - 2, 2)

    sent = place.writes()
    again = place.rollback()
    assert (again.code, became(again), place.writes()) == (1, {"kept": 2}, sent)

    assert did(place.ask("run")) == (MANY + 1 - 2, 0, 0)
    keys = replicas(registry.prompts())
    assert len(keys) == MANY + 1
    assert {len(ones) for ones in keys.values()} == {1}


def test_a_rollback_that_was_killed_is_made_again(library: Place) -> None:
    place = library
    before = place.prompts()
    place.ask("run")
    place.kill("rollback", "--yes", after=20)
    left = len(place.prompts()) - MANY
    assert 0 < left < MANY
    told = place.ledger.read_text().count('"kind":"rolled_back"')
    done = place.rollback()
    assert done.code == 0
    assert sum(became(done).values()) == MANY - told  # what was under way when it was killed may have landed since
    assert became(done)["deleted"] <= left
    assert place.prompts() == before


def test_what_would_be_done_is_shown_and_then_done_once(place: Place) -> None:
    before = place.prompts()
    place.ask("run")
    replicas_there = {one["id"]: one for one in place.prompts().values() if one["id"] not in before}
    written, sent = place.ledger.read_bytes(), place.writes()
    shown = place.ask("rollback", "--dry-run")
    *would, total = shown.out.splitlines()
    names = {one: prompt["name"].removesuffix("-replica") for one, prompt in replicas_there.items()}
    assert sorted(would) == sorted(f"would be deleted {name} ({target_id})" for target_id, name in names.items())
    assert (shown.code, total) == (0, f"would be: {FEW} deleted")
    assert (place.ledger.read_bytes(), place.writes()) == (written, sent)

    done = place.ask("rollback", "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, f"{FEW} deleted")
    assert place.prompts() == before
    sent = place.writes()
    again = place.ask("rollback", "--yes")
    assert (again.code, again.out.strip(), place.writes()) == (0, "nothing to take back", sent)
    assert BREAKS not in again.err


def test_only_what_was_chosen_is_taken_back(place: Place) -> None:
    place.ask("run")
    one, other = place.plain(2)
    gone = place.replica_of(one["id"])["id"]
    place.registry.call("DELETE", f"/prompts/{place.replica_of(other['id'])['id']}")
    there = place.prompts()
    done = place.rollback("--only", one["id"], "--only", other["id"])
    assert (done.code, became(done)) == (0, {"deleted": 1, "gone": 1})
    assert place.prompts() == {key: value for key, value in there.items() if key != gone}


def test_replicas_with_a_history_are_taken_back_whole(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0)) as registry:
        names = [f"p{number}" for number in range(12)]
        sources = registry.ask(lambda sandbox: [sandbox.add_prompt(name) for name in names])
        for source in sources:
            for number in range(2, 7):
                registry.edit(source, string=f"Hello {number} {{{{name}}}}", publish=number < 6)
        place = Place(registry, write_migration(tmp_path, registry.base_url, select={"version": "all"}))
        before = place.prompts()
        place.kill("run", after=90)
        assert place.prompts() != before
        done = place.rollback()
        assert (done.code, place.prompts()) == (0, before)
        assert did(place.ask("run")) == (12, 0, 0)
        assert {tuple(place.numbers(place.replica_of(source)["id"])) for source in sources} == {(1, 2, 3, 4, 5, 6)}
        registry.edit(place.replica_of(sources[0])["id"], string="by hand {{name}}")
        kept = place.replica_of(sources[0])
        done = place.rollback()
        assert (done.code, became(done)) == (1, {"deleted": 11, "kept": 1})
        assert place.prompts() == before | {kept["id"]: kept}


# ---- the last run ----------------------------------------------------------------------------------------------------


def change(place: Place, chosen: Sequence[Prompt], word: str) -> None:
    for one in chosen:
        place.registry.edit(one["id"], string=f"{one['string']} {word}")


def test_of_the_last_night_only_that_is_taken_back(place: Place) -> None:
    place.ask("run")
    first_night = place.prompts()
    changed = place.plain(3)
    change(place, changed, "Be brief.")
    place.registry.ask(lambda sandbox: [sandbox.add_prompt(name) for name in ("new one", "new two")])
    assert did(place.ask("run")) == (2, 3, 0)

    done = place.rollback("--run", "last")
    assert (done.code, became(done)) == (0, {"deleted": 2, "restored": 3})
    assert BREAKS in done.err
    for one in changed:
        replica = place.replica_of(one["id"])
        assert (replica["prompt_version"], replica["string"]) == (1, one["string"])
        assert next(said for said in done.json["prompts"] if said["target_id"] == replica["id"])["versions"] == [2]
    known = first_night.keys() - {one["id"] for one in changed}
    assert {key: one for key, one in timeless(place.prompts()).items() if key in known} == {
        key: one for key, one in timeless(first_night).items() if key in known
    }
    assert len(place.prompts()) == 2 * FEW + 2

    sent = place.writes()
    again = place.rollback("--run", "last")
    assert (again.code, became(again), place.writes()) == (0, {}, sent)
    assert did(place.ask("run")) == (2, 3, 0)

    change(place, changed, "Be polite.")
    assert did(place.ask("run")) == (0, 3, 0)
    third = place.rollback("--run", "last")
    assert [one["versions"] for one in third.json["prompts"]] == [[3]] * 3
    for one in changed:  # the second night stays
        replica = place.replica_of(one["id"])
        assert (replica["prompt_version"], replica["string"]) == (2, f"{one['string']} Be brief.")


def test_updates_by_new_rules_are_made_again_after_they_were_taken_back(place: Place) -> None:
    place.ask("run")
    before = timeless(place.prompts())
    place.change_file(rewrite={"model": "new-model"})
    assert did(place.ask("run")) == (0, FEW, 0)
    done = place.rollback("--run", "last")
    assert (done.code, became(done), timeless(place.prompts())) == (0, {"restored": FEW}, before)
    assert did(place.ask("run")) == (0, FEW, 0)
    assert {ones[0]["model"] for ones in replicas(place.registry.prompts()).values()} == {"new-model"}


def test_a_second_night_that_was_killed_is_taken_back(place: Place) -> None:
    place.ask("run")
    before = timeless(place.prompts())
    place.change_file(rewrite={"model": "new-model"})
    place.registry.ask(lambda sandbox: sandbox.faults.plan("reset_after", method="PUT", times=3))
    place.kill("run", after=34)
    assert timeless(place.prompts()) != before
    done = place.rollback("--run", "last")
    assert (done.code, timeless(place.prompts())) == (0, before)
    listed = {one["target_id"]: [1, *one["versions"]] for one in done.json["prompts"]}
    assert {one: place.numbers(one) for one in listed} == listed
    assert place.ask("run").code == 0
    assert {ones[0]["model"] for ones in replicas(place.registry.prompts()).values()} == {"new-model"}


# ---- changed in place ------------------------------------------------------------------------------------------------


def in_place(place: Place, **more: Any) -> dict[str, list[int]]:
    """Makes it a migration that changes prompts where they stand; the versions that each has before."""
    place.change_file(mode="update", rewrite=IN_PLACE, **more)
    return {one: place.numbers(one) for one in place.prompts()}


def is_as_before(place: Place, before: dict[str, Prompt], numbers: dict[str, list[int]], done: Ended) -> None:
    """Everything that is published is what it was, and the versions that were made are listed."""
    assert timeless(place.prompts()) == timeless(before)
    listed = {one["target_id"]: one["versions"] for one in done.json["prompts"]}
    made = {one: [number for number in place.numbers(one) if number not in numbers[one]] for one in numbers}
    assert {one: found for one, found in made.items() if found} == {
        one: found for one, found in listed.items() if found
    }


@pytest.mark.parametrize("how", ["staged", "cut over"])
def test_prompts_changed_in_place_are_as_they_were(place: Place, how: str) -> None:
    numbers, before = in_place(place), place.prompts()
    assert did(place.ask("run")) == (0, FEW, 0)
    if how == "cut over":
        assert place.ask("publish", "--yes").code == 0
        assert {one["model"] for one in place.prompts().values()} == {"gpt-4o"}

    done = place.rollback()
    assert (done.code, became(done)) == (0, {"restored": FEW})
    assert BREAKS not in done.err
    is_as_before(place, before, numbers, done)
    for one in before:  # what had that model already got another name and collection, which have no versions
        more = 0 if before[one]["model"] == IN_PLACE["model"] else 1
        assert len(place.numbers(one)) - len(numbers[one]) == more
    if how != "cut over":
        return
    assert did(place.ask("run")) == (0, FEW, 0)
    assert place.ask("publish", "--yes").code == 0
    assert {(one["model"], one["name"].endswith(" (new)")) for one in place.prompts().values()} == {("gpt-4o", True)}


def test_updates_in_place_that_were_killed_are_taken_back_by_a_rollback_that_was_killed_too(library: Place) -> None:
    place = library
    in_place(place, publish=True)
    before = place.prompts()
    place.registry.ask(lambda sandbox: sandbox.faults.plan("reset_after", method="PUT", times=4))
    place.kill("run", after=MANY)
    assert timeless(place.prompts()) != timeless(before)
    place.kill("rollback", "--yes", after=10)
    assert timeless(place.prompts()) != timeless(before)
    done = place.rollback()
    assert (done.code, list(became(done))) == (0, ["restored"])
    assert timeless(place.prompts()) == timeless(before)


def test_versions_of_updates_in_doubt_are_listed_too(place: Place) -> None:
    numbers, before = in_place(place), place.prompts()
    place.registry.ask(lambda sandbox: sandbox.faults.plan("reset_after", method="PUT", times=5))
    place.kill("run", after=FEW)
    is_as_before(place, before, numbers, place.rollback())


def test_what_somebody_did_to_prompts_changed_in_place_stays(place: Place) -> None:
    in_place(place, publish=True)
    before = place.prompts()
    place.ask("run")
    edited, renamed, drafted = (one["id"] for one in place.plain(3))
    place.registry.edit(edited, string="by hand {{name}}")
    place.registry.call("PUT", f"/prompts/{renamed}", {"name": "by somebody"})
    place.registry.edit(drafted, string="by hand {{name}}", publish=False)
    there = place.prompts()
    done = place.rollback()
    assert done.code == 1
    assert next(one["result"] for one in done.json["prompts"] if one["target_id"] == edited) == "kept"
    assert place.prompts()[edited] == there[edited]
    assert place.prompts()[renamed]["name"] == "by somebody"
    assert place.registry.versions(drafted)[-1]["string"] == "by hand {{name}}"
    rest = before.keys() - {edited, renamed}
    assert timeless({one: place.prompts()[one] for one in rest}) == timeless({one: before[one] for one in rest})
