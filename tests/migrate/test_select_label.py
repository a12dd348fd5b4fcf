"""`select.label`: the version that carries it is copied, and a prompt without it is not selected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.errors import Rejected, Transient
from engine.ledger.state import State
from engine.migrate.survey import survey
from engine.model import Replica, Row, Select
from engine.sandbox import LangfuseQuirks, SandboxOptions
from tests import phoenix_server
from tests.e2e import Served, promptferry, served
from tests.routes import COLLECTION, MODEL, Folder, Langfuse, Phoenix, Portkey, Route, did, route
from tests.workspaces import Wrapped, job_of, memory, prompt, run

COUNT = 9


@pytest.fixture
def registry() -> Iterator[Served]:
    """Nine prompts; every third has the label canary on a draft that is not published."""
    with served(SandboxOptions(prompts=0, langfuse=LangfuseQuirks(deletes=True))) as found:
        found.ask(lambda sandbox: sandbox.key("copy"))
        for number in range(COUNT):
            made = found.ask(
                lambda sandbox, number=number: sandbox.add_prompt(  # type: ignore[misc]
                    f"p{number}", f"live {number}", model=MODEL, collection=COLLECTION
                )
            )
            found.edit(made, publish=False, string=f"draft {number}")
            if number % 3 == 0:
                label(found, made)
        yield found


def label(registry: Served, prompt_id: str, name: str = "canary", *, version: int = -1) -> None:
    """Somebody puts it on a version, by its place in the history."""
    known = {one["name"]: one["id"] for one in registry.call("GET", "/labels")["data"]}
    label_id = known.get(name) or registry.call("POST", "/labels", {"name": name})["id"]
    version_id = registry.versions(prompt_id)[version]["prompt_version_id"]
    registry.call("PUT", f"/prompts/{prompt_id}/versions/{version_id}", {"label_id": label_id})


def ids(registry: Served) -> dict[str, str]:
    return {name: one["id"] for name, one in Portkey(registry).prompts().items()}


def canary(folder: Path, registry: Served, target: Any = None, **select: Any) -> Route:
    target = Portkey(registry, "copy") if target is None else target
    return route(folder, registry, Portkey(registry), target, select={"label": "canary", **select})


def test_the_version_that_carries_it_is_copied_and_prompts_without_it_are_not_selected(
    tmp_path: Path, registry: Served
) -> None:
    way = canary(tmp_path, registry)
    ended = way.run()
    counts = ended.summary["counts"]
    assert (counts["listed"], counts["selected"], did(ended)) == (COUNT, 3, {"created": 3})
    assert "6 more prompts have no version with the label 'canary'" in ended.summary["notes"]
    texts = Portkey(registry, "copy").texts()
    assert texts == {name: f"draft {name[1:]}" for name in ("p0", "p3", "p6")}
    assert way.ask("verify", "--json").json["counts"] == {"same": 3, "differs": 0, "missing": 0, "source_changed": 0}
    assert did(way.run()) == {"unchanged": 3}


def test_a_label_that_moved_to_another_version_is_noticed(tmp_path: Path, registry: Served) -> None:
    way, copy = canary(tmp_path, registry), Portkey(registry, "copy")
    assert did(way.run()) == {"created": 3}
    label(registry, ids(registry)["p3"], version=0)
    assert did(way.run()) == {"updated": 1, "unchanged": 2}
    assert copy.texts()["p3"] == "live 3"
    label(registry, ids(registry)["p1"])
    assert did(way.run()) == {"created": 1, "unchanged": 3}


def test_a_prompt_that_lost_its_label_keeps_its_replica_and_is_told_by_verify(tmp_path: Path, registry: Served) -> None:
    way = canary(tmp_path, registry)
    assert did(way.run()) == {"created": 3}
    version_id = registry.versions(known := ids(registry)["p3"])[-1]["prompt_version_id"]
    registry.call("PUT", f"/prompts/{known}/versions/{version_id}", {"label_id": None})
    ended = way.run()
    assert (did(ended), ended.summary["orphaned"]) == ({"unchanged": 2}, 0)
    (one,) = [one for one in way.ask("verify", "--json").json["prompts"] if one["result"] != "same"]
    assert (one["source_id"], one["result"]) == (known, "source_changed")
    assert one["notes"] == ["its source is gone, or no version of it carries the label 'canary' any more"]
    assert len(Portkey(registry, "copy").prompts()) == 3


def test_a_file_without_the_label_copies_what_is_published(tmp_path: Path, registry: Served) -> None:
    assert did(canary(tmp_path, registry).run()) == {"created": 3}
    way = route(tmp_path, registry, Portkey(registry), copy := Portkey(registry, "copy"))
    assert did(way.run()) == {"created": 6, "updated": 3}
    assert copy.texts() == {f"p{number}": f"live {number}" for number in range(COUNT)}


def test_models_are_those_of_the_version_that_carries_it(tmp_path: Path, registry: Served) -> None:
    known = ids(registry)
    registry.edit(known["p0"], publish=False, string="draft 0", model="gpt-4o")
    label(registry, known["p0"])
    assert canary(tmp_path, registry, models=["gpt-*"]).run().summary["counts"]["selected"] == 1
    assert Portkey(registry, "copy").texts() == {"p0": "draft 0"}


def test_a_label_that_no_prompt_has_is_a_problem_of_check_and_a_note(tmp_path: Path, registry: Served) -> None:
    way = route(tmp_path, registry, Portkey(registry), Portkey(registry, "copy"), select={"label": "canari"})
    says = "no prompt that select takes has a version with the label 'canari'; did you mean 'canary'?"
    checked = way.ask("check", "--json")
    assert checked.code == 4
    assert [one["text"] for one in checked.json["findings"] if one["level"] == "problem"] == [says]
    ended = way.run()
    assert (ended.code, ended.summary["counts"]["selected"]) == (0, 0)
    assert says in ended.summary["notes"]
    assert says in way.ask("plan", "--json").json["notes"]
    assert says in way.ask("inventory", "--json").json["notes"]


def test_an_inventory_counts_those_that_carry_it(tmp_path: Path, registry: Served) -> None:
    found = canary(tmp_path, registry).ask("inventory", "--json").json
    assert (found["listed"], found["selected"], found["unread"]) == (COUNT, 3, [])
    assert {one["name"]: (one["listed"], one["selected"]) for one in found["models"]} == {MODEL: (COUNT, 3)}
    assert "6 more prompts have no version with the label 'canary'" in found["notes"]


def test_prompts_are_changed_where_they_stand_by_the_version_that_carries_it(tmp_path: Path, registry: Served) -> None:
    way = route(
        tmp_path,
        registry,
        source := Portkey(registry),
        None,
        mode="update",
        select={"label": "canary"},
        rewrite={"model": "gpt-4.1"},
    )
    assert did(way.run()) == {"updated": 3}
    assert source.texts()["p3"] == "live 3", "it is staged"
    assert did(way.run()) == {"unchanged": 3}
    assert way.ask("publish", "--yes").code == 0
    assert (source.texts()["p3"], source.prompts()["p3"]["model"]) == ("draft 3", "gpt-4.1")
    assert way.ask("rollback", "--yes").code == 0
    assert (source.texts()["p3"], source.prompts()["p3"]["model"]) == ("live 3", MODEL)


def test_a_label_of_langfuse_and_a_tag_of_phoenix_choose_the_version_too(tmp_path: Path, registry: Served) -> None:
    langfuse, homes = Langfuse(registry), [tmp_path / name for name in ("1", "2")]
    for home in homes:
        home.mkdir()
    for number in range(3):
        langfuse.add(f"p{number}", f"live {number}")
        langfuse.add(f"p{number}", f"draft {number}", labels=["staging"] if number else [])
    with phoenix_server.running() as serving:
        phoenix = Phoenix(serving.url)
        openai = {"name": "{name}", "provider": "OPENAI"}
        way = route(homes[0], registry, langfuse, phoenix, select={"label": "staging"}, rewrite=openai)
        ended = way.run()
        assert (did(ended), ended.summary["counts"]["selected"]) == ({"created": 2}, 2)
        assert phoenix.texts() == {"p1": "draft 1", "p2": "draft 2"}
        phoenix.edit("p1", "live <x>")
        on = route(homes[1], registry, phoenix, folder := Folder(homes[1] / "out"), select={"label": "staging"})
        assert did(on.run()) == {"created": 2}
        assert folder.texts() == {"p1": "draft 1", "p2": "draft 2"}


@pytest.mark.parametrize(
    ("select", "says"),
    [
        ({"label": "x", "version": "latest"}, "select.label: select.version is latest: choose one of both"),
        ({"label": "x", "version": "all"}, "select.label: select.version is all: choose one of both"),
        ({"label": ""}, "select.label: must not be empty"),
    ],
)
def test_a_version_and_a_label_are_chosen_by_one_of_both(
    tmp_path: Path, registry: Served, select: dict[str, Any], says: str
) -> None:
    ended = route(tmp_path, registry, Portkey(registry), Portkey(registry, "copy"), select=select).run()
    assert ended.code == 2
    assert says in ended.err


def test_kinds_without_labels_refuse_it(tmp_path: Path, registry: Served) -> None:
    (tmp_path / "prompts").mkdir()
    way = route(tmp_path, registry, Folder(tmp_path / "prompts"), Portkey(registry), select={"label": "canary"})
    ended = promptferry("plan", way.path, cwd=tmp_path, env=way.environ)
    assert ended.code == 2
    assert "kind files has no labels: take `label` out" in ended.err


# ---- what is read ----------------------------------------------------------------------------------------------------


class Telling(Wrapped):
    """A workspace whose rows tell labels."""

    async def pages(self) -> Any:
        async for page in super().pages():
            told = [one.labels for one in self.inner.prompts.values()]
            rows = [Row(id=row.id, name=row.name, labels=told[-1 - at]) for at, row in enumerate(page.rows)]
            yield type(page)(rows=rows, total=page.total)


async def test_where_rows_tell_labels_only_prompts_that_carry_it_are_read() -> None:
    there = Telling(memory(prompt("a", labels=("canary",)), prompt("b"), prompt("c", labels=("other",))))
    found = await survey(job_of(there, select=Select(version="label:canary")), State(), now=1e9)
    assert [task.row.id for task in found.tasks] == ["a"]
    assert there.fetched == ["a"]


async def test_a_label_that_moved_is_noticed_though_no_time_of_change_tells(tmp_path: Path) -> None:
    there, target = memory(prompt("a", version="1", text="one")), memory()
    one, two = (prompt("a", version=version, text=text) for version, text in (("1", "one"), ("2", "two")))
    there.history["a"] = [replace(one, labels=("canary",)), two]
    job = partial(job_of, there, target, select=Select(version="label:canary"))
    assert (await run(job(), tmp_path / "ledger.jsonl")).status("a") == "created"
    there.history["a"] = [one, replace(two, labels=("canary",))]
    assert (await run(job(), tmp_path / "ledger.jsonl")).status("a") == "updated"
    assert [found.text for found in target.prompts.values()] == ["two"]


class Picky(Wrapped):
    """A workspace that cannot write every text."""

    def encode(self, replica: Replica) -> bytes:
        if "bad" in replica.prompt.text:
            raise Rejected("it cannot be written", error="not_encodable")
        return super().encode(replica)


async def test_a_prompt_that_failed_for_good_is_taken_up_when_the_label_moved_though_no_time_tells(
    tmp_path: Path,
) -> None:
    there = memory(prompt("a", version="2", text="live"))
    bad, good = (prompt("a", version=version, text=text) for version, text in (("1", "bad"), ("3", "good")))
    history = [replace(bad, labels=("canary",)), prompt("a", version="2", text="live"), good]
    there.history["a"] = history
    target, ledger = Picky(memory()), tmp_path / "ledger.jsonl"
    job = partial(job_of, there, target, select=Select(version="label:canary"))
    assert (await run(job(), ledger)).status("a") == "failed"
    assert (await run(job(), ledger)).status("a") == "failed"
    there.history["a"] = [bad, history[1], replace(good, labels=("canary",))]
    assert (await run(job(), ledger)).status("a") == "created"
    assert [one.text for one in target.inner.prompts.values()] == ["good"]


async def test_a_prompt_that_cannot_be_read_fails_and_is_not_left_out() -> None:
    async def on_fetch(prompt_id: str) -> None:
        if prompt_id == "b":
            raise Transient("it is down", error="server_error", status=500)

    there = Wrapped(memory(prompt("a", labels=("canary",)), prompt("b"), prompt("c")), on_fetch=on_fetch)
    found = await survey(job_of(there, select=Select(version="label:canary")), State(), now=1e9)
    assert {task.row.id: task.action for task in found.tasks} == {"a": "create", "b": "unread"}
