"""What failed for good is taken up again when its source or the rules are not what it failed with, and only then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.content.digest import digest
from engine.errors import Gone, Rejected
from engine.ledger.state import State
from engine.model import Failed, Outcome, Rule, Select, Sending
from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Served, lines, served
from tests.migrate.test_survey import actions, surveyed, told
from tests.routes import COLLECTION, MODEL, Conductor, Folder, Lines, Portkey, Route, did, route
from tests.workspaces import Put, Wrapped, job_of, memory, prompt, run

FLAG = "--retry-failed"


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


def kept(way: Route, *, tokens: int = 0) -> None:
    """A run leaves the failed one as it is, sends nothing for it, and says which flag would take it up."""
    ended = way.run()
    assert (ended.code, ended.summary["counts"]["failed"], ended.summary["this_run"]["failed"]) == (1, 1, 0)
    assert ended.summary["requests"]["writes"] == tokens
    assert FLAG in ended.summary["next"]
    assert FLAG in "".join(way.ask("plan").out)


# ---- what people mend ------------------------------------------------------------------------------------------------


def test_a_file_that_is_mended_goes_and_one_that_is_only_touched_does_not(tmp_path: Path, registry: Served) -> None:
    source, target = Folder(tmp_path / "prompts"), Portkey(registry)
    source.add("good", "Hello <who>")
    source.add("fixme", "Hello <who>")
    path = source.files()["fixme"]
    whole = path.read_text()
    path.write_text(whole.replace(f"collection: {COLLECTION}\n", ""))
    way = route(tmp_path, registry, source, target)
    assert did(way.run()) == {"created": 1, "failed": 1}
    kept(way)
    os.utime(path)
    kept(way)
    path.write_text(whole)
    mended = way.run()
    assert (mended.code, did(mended)) == (0, {"created": 1, "unchanged": 1})
    assert set(target.texts()) == {"good", "fixme"}


def test_a_line_that_is_mended_does_not_send_the_others_again(tmp_path: Path, registry: Served) -> None:
    source, target = Lines(tmp_path / "prompts.jsonl"), Portkey(registry)
    for name in ("a", "b"):
        source.add(name, "Hello <who>")
    path = source.path
    whole = path.read_text()
    path.write_text(whole.replace(f'"{COLLECTION}"', "null"))
    way = route(tmp_path, registry, source, target)
    assert did(way.run()) == {"failed": 2}
    first, _ = whole.splitlines()
    _, second = path.read_text().splitlines()
    path.write_text(f"{first}\n{second}\n")
    assert did(way.run()) == {"created": 1}
    kept(way)


def test_other_rules_take_it_up(tmp_path: Path, registry: Served) -> None:
    source, target = Folder(tmp_path / "prompts"), Portkey(registry)
    source.add("fixme", "Hello <who>")
    path = source.files()["fixme"]
    path.write_text(path.read_text().replace(f"collection: {COLLECTION}\n", ""))
    way = route(tmp_path, registry, source, target)
    assert did(way.run()) == {"failed": 1}
    kept(way)
    rules = {"name": "{name}", "collection": COLLECTION}
    ended = route(tmp_path, registry, source, target, rewrite=rules).run()
    assert (ended.code, did(ended)) == (0, {"created": 1})


def test_one_of_a_bulk(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    source.add("good", "Hello <who>")
    add = partial(Sandbox.add_prompt, name="long", string="Hello", model=MODEL, collection=COLLECTION)
    registry.ask(partial(add, version_description="d" * 10_001))
    way = route(tmp_path, registry, source, target)
    assert did(way.run()) == {"created": 1, "failed": 1}
    kept(way, tokens=1)
    registry.edit(source.prompts()["long"]["id"], version_description="short")
    assert did(way.run()) == {"created": 1, "unchanged": 1}


# ---- each kind of failure --------------------------------------------------------------------------------------------

NEWER = "2026-01-05T00:00:00.000Z"
NO = Failed(error="rejected", message="no", status=400)


def refusing(there: Any) -> Wrapped:
    async def on_write(one: Any, put: Put, sending: Sending) -> Outcome:
        await sending()
        return NO

    return Wrapped(there, on_create=on_write, on_update=on_write)


@pytest.mark.parametrize("mended", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
async def test_a_refused_update(mended: bool, in_place: bool, ledger: Path) -> None:
    there = memory(prompt("a"))
    await run(job_of(there), ledger)
    there.prompts["a"] = prompt("a", text="new", updated_at=NEWER)
    more: dict[str, Any] = {"in_place": True, "rules": (Rule(model=(("*", "claude-4"),)),)} if in_place else {}
    job = job_of(refusing(there), **more, select=Select(ids=("a",)))
    assert (await run(job, ledger)).status("a") == "failed"
    if mended:
        there.prompts["a"] = prompt("a", text="newer", updated_at="2026-01-06T00:00:00.000Z")
    ran = await run(job_of(there, **more, select=Select(ids=("a",))), ledger)
    assert ran.status("a") == ("updated" if mended else "failed")


async def test_labels_that_were_refused(ledger: Path) -> None:
    class Unlabelled(Wrapped):
        async def label(self, target_id: str, version_id: str, label_id: str) -> None:
            raise Rejected("no right to label", error="forbidden", status=403)

    there = memory(prompt("a", labels=("production",)))
    ran = await run(job_of(Unlabelled(there)), ledger)
    assert (ran.status("a"), there.creates) == ("failed", 1)
    assert actions((await run(job_of(there), ledger)).survey) == {"a": "keep"}
    there.prompts["a"] = prompt("a", labels=("production",), updated_at=NEWER)
    ran = await run(job_of(there), ledger)
    assert (ran.status("a"), there.creates) == ("created", 1)


# ---- what is compared ------------------------------------------------------------------------------------------------

OLD = "2026-01-01T00:00:00.000Z"
"""The time of change of every prompt here."""


@pytest.mark.parametrize(
    ("rules", "updated_at", "of", "action"),
    [
        ("r1", OLD, "a", "keep"),
        ("r0", OLD, "a", "create"),
        ("r1", NEWER, "a", "keep"),  # touched, and the same
        ("r1", NEWER, "b", "create"),
        ("r1", None, "a", "keep"),  # a time that does not tell
        ("r1", None, "b", "create"),
        ("r1", OLD, None, "keep"),  # it could not be read
        ("r1", NEWER, None, "create"),
        ("r0", None, None, "create"),
        ("r1", None, None, "keep"),  # as older versions wrote it
        (None, None, None, "keep"),  # and still older ones
        (None, NEWER, "b", "create"),
    ],
)
@pytest.mark.parametrize("in_place", [False, True])
async def test_what_a_line_tells_decides(
    rules: str | None, updated_at: str | None, of: str | None, action: str, in_place: bool
) -> None:
    state = State()
    state.fold({"kind": "run", "run": "r1", "rewrites": rules})
    seen: Any = {"source_updated_at": updated_at, "source_digest": of and digest(prompt("a", text=of))}
    told(state, "failed", "a", stage="create", error="rejected", retriable=False, **seen)
    state.fold({"kind": "run", "run": "r2", "rewrites": "r1"})  # another run without a word about it
    there = Wrapped(memory(prompt("a", text="a")))
    found = await surveyed(job_of(there, rewrites="r1", in_place=in_place), state)
    assert actions(found) == {"a": "update" if in_place and action == "create" else action}
    assert len(there.fetched) <= (of is not None)


@pytest.mark.parametrize("error", [Gone("gone", error="gone"), Rejected("no", error="forbidden", status=403)])
async def test_what_cannot_be_read_now_would_fail_again(error: Exception) -> None:
    async def on_fetch(prompt_id: str) -> None:
        raise error

    state = told(State(), "failed", "a", stage="create", error="rejected", source_digest="0" * 64)
    found = await surveyed(job_of(Wrapped(memory(prompt("a")), on_fetch=on_fetch)), state)
    assert actions(found) == {"a": "keep"}


async def test_a_failed_line_says_what_it_failed_with(ledger: Path) -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "b":
            raise Rejected("no", error="forbidden", status=403)

    there = memory(prompt("a"), prompt("b"))
    wrapped = refusing(there)
    wrapped.on_fetch = on_fetch
    await run(job_of(wrapped), ledger)
    said = {line["source_id"]: line for line in lines(ledger) if line["kind"] == "failed"}
    assert (said["a"]["source_updated_at"], said["a"]["source_digest"]) == (OLD, digest(prompt("a")))
    assert (said["b"]["source_updated_at"], said["b"]["source_digest"]) == (OLD, None)


async def test_a_source_that_is_nested_too_deep_has_no_digest_and_stops_nothing(ledger: Path) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = {"a": deep}
    there = memory(prompt("a", tools=deep), prompt("b"))
    assert (await run(job_of(there), ledger)).statuses == {"a": "failed", "b": "created"}
    assert actions((await run(job_of(there), ledger)).survey) == {"a": "keep", "b": "unchanged"}
    there.prompts["a"] = prompt("a", updated_at=NEWER)
    assert (await run(job_of(there), ledger)).statuses == {"a": "created", "b": "created"}
