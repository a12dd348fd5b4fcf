"""A target that cannot rename, as in Conductor the name is the prompt: each prompt is told why, and nothing moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.connectors.memory import Memory
from engine.ledger.state import State
from engine.model import Abilities, Rule, When
from engine.sandbox import SandboxOptions
from tests.e2e import Served, lines, served
from tests.migrate.test_survey import actions, surveyed, task_of, told
from tests.routes import Conductor, Folder, Lines, Portkey, did, route
from tests.workspaces import job_of, memory, prompt

NAMES = ("p0", "p1", "p2")
OLD = {"name": "old-{name}"}


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


@pytest.mark.parametrize(
    ("rules", "edited"),
    [
        ({"name": "new-{name}"}, False),
        ({"name": "new-{name}"}, True),
        ({**OLD, "rules": [{"when": {"has": ["provider"]}, "name": "new-{name}"}]}, False),
    ],
    ids=["known from the rows", "and the source changed", "known from the definitions"],
)
def test_each_prompt_is_told_why_and_the_names_stay(
    rules: dict[str, Any], edited: bool, tmp_path: Path, registry: Served
) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for name in NAMES:
        source.add(name, "Hello <who>")
    assert did(route(tmp_path, registry, source, target, rewrite=OLD).run()) == {"created": 3}
    before = target.prompts()
    if edited:
        source.edit("p0", "Good morning <who>")

    way = route(tmp_path, registry, source, target, rewrite=rules)
    planned = {one["name"]: one["problem"] for one in way.ask("plan", "--json").json["prompts"]}
    for _ in range(2):
        ended = way.run()
        assert (ended.code, did(ended), ended.summary["message"]) == (1, {"failed": 3}, "")
        assert "status --failed" in ended.summary["next"]
        assert "--retry-failed" not in ended.summary["next"]
    failed = {one["name"]: one["message"] for one in way.ask("status", "--failed", "--json").json["failed"]}
    assert planned == failed
    assert failed.keys() == set(NAMES)
    for name, message in failed.items():
        assert f"'old-{name}'" in message
        assert f"'new-{name}'" in message
        assert all(word in message for word in ("rewrite.name", "rollback"))
    assert target.prompts() == before

    again = route(tmp_path, registry, source, target, rewrite=OLD).run()
    assert (again.code, did(again)) == (0, {"updated": 1, "unchanged": 2} if edited else {"unchanged": 3})


def test_what_the_message_advises_works(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for name in NAMES:
        source.add(name, "Hello <who>")
    route(tmp_path, registry, source, target).run()
    way = route(tmp_path, registry, source, target, rewrite={"name": "new-{name}"})
    assert way.run().code == 1
    assert way.ask("rollback", "--yes", "--only", "p1").code == 0
    assert did(way.run()) == {"created": 1, "failed": 2}
    rule = {"when": {"name": "p[02]"}, "name": "{name}"}
    settled = route(tmp_path, registry, source, target, rewrite={"name": "new-{name}", "rules": [rule]}).run()
    assert (settled.code, did(settled)) == (0, {"unchanged": 3})
    assert set(target.prompts()) == {"p0", "new-p1", "p2"}


def test_a_source_that_was_renamed_is_told_too(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for name in NAMES:
        source.add(name, "Hello <who>")
    way = route(tmp_path, registry, source, target)
    way.run()
    registry.call("PUT", f"/prompts/{source.prompts()['p0']['id']}", {"name": "other", "patch": True})
    ended = way.run()
    assert (ended.code, did(ended)) == (1, {"failed": 1, "unchanged": 2})
    (line,) = (line for line in lines(way.ledger) if line["kind"] == "failed")
    assert (line["source_name"], line["error"], "'p0'" in line["message"]) == ("other", "renamed", True)
    assert set(target.prompts()) == set(NAMES)


def test_in_place_too(tmp_path: Path, registry: Served) -> None:
    target = Conductor(registry)
    for name in NAMES:
        target.add(name, "Hello <who>")
    before = target.prompts()
    rules = {"name": "new-{name}", "model": "claude-3-opus"}
    ended = route(tmp_path, registry, target, None, mode="update", publish=True, rewrite=rules).run()
    assert (ended.code, did(ended)) == (1, {"failed": 3})
    assert target.prompts() == before
    kept = route(tmp_path, registry, target, None, mode="update", publish=True, rewrite=rules | {"name": "{name}"})
    assert did(kept.run()) == {"updated": 3}


@pytest.mark.parametrize("to", ["Portkey", "folder", "lines"])
def test_where_prompts_can_be_renamed_they_are(to: str, tmp_path: Path, registry: Served) -> None:
    places: dict[str, Any] = {
        "Portkey": Portkey(registry, "copy"),
        "folder": Folder(tmp_path / "prompts"),
        "lines": Lines(tmp_path / "prompts.jsonl"),
    }
    source, target = Portkey(registry), places[to]
    for name in NAMES:
        source.add(name, "Hello <who>")
    route(tmp_path, registry, source, target).run()
    way = route(tmp_path, registry, source, target, rewrite={"name": "new-{name}"})
    assert did(way.run()) == {"updated": 3}
    assert set(target.texts()) == {f"new-{name}" for name in NAMES}
    assert way.ask("verify").code == 0


class Fixed(Memory):
    can = Abilities(renames=False)


async def test_the_survey_settles_what_the_rows_tell_and_reads_nothing() -> None:
    target = Fixed([prompt(f"t-{name}", f"old-{name}") for name in NAMES])
    source = memory(*(prompt(name) for name in NAMES))
    state = State()
    for name in NAMES:
        told(state, "created", name, target_id=f"t-{name}")
    kept = (Rule(name="new-{name}"), Rule(name="old-{name}", when=When(name="p1")))
    found = await surveyed(job_of(source, target, rules=kept, rewrites="other"), state)
    assert actions(found) == dict.fromkeys(NAMES, "update")
    refused = {name for name in NAMES if task_of(found, name).failure is not None}
    assert refused == {"p0", "p2"}
