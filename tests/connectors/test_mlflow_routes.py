"""Prompts from Portkey to MLflow and on: every verb, runs that are killed, answers that are lost."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.sandbox import Sandbox, SandboxOptions
from tests.e2e import Served, lines, served, started, wait_for_lines
from tests.mlflow_server import Item, MlflowServer, ServedMlflow, served_mlflow
from tests.routes import COLLECTION, MODEL, Folder, Portkey, did, mustache, results, route, shown

COUNT = 20


@dataclass(frozen=True)
class Mlflow:
    """A tracking server."""

    server: ServedMlflow
    published_by: str = "production"

    @property
    def part(self) -> Mapping[str, Any]:
        return {"kind": "mlflow", "base_url": self.server.url, "published_by": self.published_by}

    def models(self) -> dict[str, Item]:
        return self.server.ask(lambda server: json.loads(json.dumps(server.models)))

    def add(self, name: str, text: str) -> None:
        self.server.ask(lambda server: server.plant(name, mustache(text), collection=COLLECTION))

    def edit(self, name: str, text: str) -> None:
        def change(server: MlflowServer) -> None:
            newest = [*server.models[name]["versions"].values()][-1]
            tags = [{"key": key, "value": value} for key, value in newest["tags"].items()]
            tags.append({"key": "mlflow.prompt.text", "value": mustache(text)})
            made = server.do("model-versions/create", {"name": name, "source": "dummy-source", "tags": tags})
            number = made["model_version"]["version"]
            server.do("registered-models/alias", {"name": name, "alias": "production", "version": number})

        self.server.ask(change)

    def texts(self) -> dict[str, str]:
        return {name: shown(published(one)["tags"]["mlflow.prompt.text"]) for name, one in self.models().items()}


def published(model: Item) -> Item:
    """The version that applications load."""
    found: Item = model["versions"][model["aliases"]["production"]]
    return found


@pytest.fixture
def mlflow() -> Iterator[Mlflow]:
    with served_mlflow() as server:
        yield Mlflow(server)


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as sandbox:
        yield sandbox


def some(registry: Served, count: int = COUNT, **fields: Any) -> None:
    """Prompts that MLflow can say."""
    tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
    known: dict[str, Any] = {
        "parameters": {"temperature": 0.5, "stop": ["###"], "response_format": {"type": "json_object"}, "seed": 2**70},
        "tools": tools,
        "model": MODEL,
        "collection": COLLECTION,
        "template_metadata": {"team": "docs", "owner": {"level": 2}},
        "version_description": "why",
    }
    for number in range(count):
        string = f"Hello {{{{ who }}}}, this is {number}"
        if number % 2:
            string = json.dumps([{"role": "user", "content": string}], indent=1)
        registry.ask(partial(Sandbox.add_prompt, name=f"p{number}", string=string, **known | fields))


def whole(mlflow: Mlflow, count: int = COUNT, versions: int = 1) -> None:
    """Each prompt is there once, with so many versions, and one of them is published."""
    models = mlflow.models()
    assert sorted(models) == sorted(f"p{number}" for number in range(count))
    assert Counter(len(one["versions"]) for one in models.values()) == {versions: count}
    assert {*map(len, [one["aliases"] for one in models.values()])} == {1}


# ---- every verb ------------------------------------------------------------------------------------------------------


def test_there_and_back_with_every_verb(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry)
    source = Portkey(registry)
    way = route(tmp_path, registry, source, mlflow)
    assert way.ask("check").code == 0
    tested = way.ask("check", "--write-test")
    assert (tested.code, mlflow.models()) == (0, {})
    first = way.run()
    assert (first.code, did(first)) == (0, {"created": COUNT})
    whole(mlflow)
    assert mlflow.texts() == source.texts()
    calls = Counter(mlflow.server.ask(MlflowServer.calls))
    again = way.run()
    assert (again.code, did(again)) == (0, {"unchanged": COUNT})
    calls = Counter(mlflow.server.ask(MlflowServer.calls))
    assert {call.partition(" ")[0] for call in calls} == {"GET"}
    assert set(results(way.ask("verify", "--json")).values()) == {"same"}

    (tmp_path / "back").mkdir()
    back = route(tmp_path / "back", registry, mlflow, Portkey(registry, "copy"))
    assert did(back.run()) == {"created": COUNT}
    assert contents(registry.prompts("copy")) == contents(registry.prompts())

    undone = way.ask("rollback", "--yes", "--json")
    assert (undone.code, mlflow.models()) == (0, {})


def contents(prompts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """What a person wrote of each."""
    names = ("string", "parameters", "tools", "model", "virtual_key", "prompt_version_description")
    found = {}
    for one in prompts:
        metadata = {key: value for key, value in one["template_metadata"].items() if key != "promptferry"}
        found[one["name"]] = {**{name: one[name] for name in names}, "metadata": metadata}
    assert len(found) == len(prompts)
    return found


def test_to_files_and_into_another_server_it_stays_what_it_is(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry)
    assert route(tmp_path, registry, Portkey(registry), mlflow).run().code == 0
    (tmp_path / "out").mkdir()
    out = route(tmp_path / "out", registry, mlflow, Folder(tmp_path / "out" / "prompts"))
    assert did(out.run()) == {"created": COUNT}
    assert did(out.run()) == {"unchanged": COUNT}
    (tmp_path / "on").mkdir()
    with served_mlflow() as server:
        other = Mlflow(server, published_by="champion")
        on = route(tmp_path / "on", registry, Folder(tmp_path / "out" / "prompts"), other)
        assert did(on.run()) == {"created": COUNT}
        theirs, ours = other.models(), mlflow.models()
    assert {name: tags(one["versions"]["1"]) for name, one in theirs.items()} == {
        name: tags(one["versions"]["1"]) for name, one in ours.items()
    }
    assert {alias for one in theirs.values() for alias in one["aliases"]} == {"champion"}


def tags(version: Item) -> Item:
    """What is in them, but for the mark."""
    found = {key: value for key, value in version["tags"].items() if key != "promptferry"}
    return {key: json.loads(value) if value.startswith("{") else value for key, value in found.items()}


# ---- once, whatever happens ------------------------------------------------------------------------------------------


def test_killed_at_many_moments(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry)
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    kills = 0
    for more in (1, 2, 3, 5, 8, 4, 6, 2, 7, 3):
        written = len(lines(way.ledger)) if way.ledger.exists() else 0
        with started("run", way.path, cwd=way.folder, env=way.environ) as process:
            wait_for_lines(way.ledger, written + more, process)
            process.kill()
            kills += process.wait() == -signal.SIGKILL
    assert kills > 5
    ended = way.run()
    assert ended.code == 0, ended.err
    whole(mlflow)
    assert set(results(way.ask("verify", "--json")).values()) == {"same"}
    assert did(way.run()) == {"unchanged": COUNT}


def lost(path: str, times: int) -> Callable[[MlflowServer], None]:
    """So many answers to what was done at this path do not arrive."""
    left = [times]

    async def late(asked: str, _given: Item) -> web.StreamResponse | None:
        if asked != path or not left[0]:
            return None
        left[0] -= 1
        return web.Response(status=502)

    return lambda server: setattr(server, "late", late)


@pytest.mark.parametrize("path", ["registered-models/create", "model-versions/create", "registered-models/alias"])
def test_answers_that_are_lost(path: str, mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry)
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    mlflow.server.ask(lost(path, 7))
    for _ in range(3):
        if (ended := way.run()).code == 0:
            break
    assert ended.code == 0, ended.err
    whole(mlflow)
    assert mlflow.texts() == Portkey(registry).texts()


def test_a_create_that_was_ended_before_its_alias_gets_it(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    """Also without its ledger: what is found again is published as what is made."""
    some(registry)
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    assert way.run().code == 0
    mlflow.server.ask(lambda server: [one["aliases"].clear() for one in server.models.values()])
    way.ledger.unlink()
    again = way.run()
    assert (again.code, again.summary["counts"]["created"]) == (0, COUNT)
    whole(mlflow)


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("path", ["registered-models/create", "model-versions/create", "registered-models/alias"])
def test_a_database_without_a_free_connection_is_waited_for(
    path: str, when: str, mlflow: Mlflow, registry: Served, tmp_path: Path
) -> None:
    """As 3.17.2 says it when requests hold one connection each and wait for a second; carried out or not."""
    left = [3]
    full = {
        "error_code": "BAD_REQUEST",
        "message": "QueuePool limit of size 5 overflow 10 reached, connection timed out, timeout 30.00",
    }

    async def answer(asked: str, _given: Item) -> web.StreamResponse | None:
        if asked != path or not left[0]:
            return None
        left[0] -= 1
        return web.json_response(full, status=400)

    some(registry, 6)
    mlflow.server.ask(lambda server: setattr(server, when, answer))
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    ended = way.run()
    assert (ended.code, did(ended), left) == (0, {"created": 6}, [0]), ended.err
    whole(mlflow, 6)
    assert mlflow.texts() == Portkey(registry).texts()


def test_a_version_that_is_refused_leaves_no_prompt_behind(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    async def early(path: str, _given: Item) -> web.StreamResponse | None:
        body = {"error_code": "INVALID_PARAMETER_VALUE", "message": "a rule of tomorrow"}
        return web.json_response(body, status=400) if path == "model-versions/create" else None

    some(registry, 3)
    mlflow.server.ask(lambda server: setattr(server, "early", early))
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    ended = way.run()
    assert (ended.code, did(ended), mlflow.models()) == (1, {"failed": 3}, {})
    assert "a rule of tomorrow" in way.ask("status", "--failed").out


def test_what_somebody_has_under_a_name_stays(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry, 3)
    mlflow.add("p0", "Somebody's <own>")
    mlflow.server.ask(lambda server: server.plant("p1"))  # without a version
    mlflow.server.ask(lambda server: server.do("registered-models/create", {"name": "p2"}))  # no prompt
    before = mlflow.models()
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    ended = way.run()
    assert (ended.code, did(ended)) == (1, {"conflicts": 2, "failed": 1})
    assert mlflow.models() == before
    assert "no prompt" in way.ask("status", "--failed").out


# ---- versions, aliases, labels ---------------------------------------------------------------------------------------


def test_a_change_is_a_version_that_the_alias_moves_to_and_back(
    mlflow: Mlflow, registry: Served, tmp_path: Path
) -> None:
    some(registry)
    source = Portkey(registry)
    way = route(tmp_path, registry, source, mlflow)
    way.run()
    first = lines(way.ledger)[-1]["run"]
    for number in range(COUNT):
        source.edit(f"p{number}", "Good morning, <who>")
    second = way.run()
    assert (second.code, did(second)) == (0, {"updated": COUNT})
    whole(mlflow, versions=2)
    assert set(mlflow.texts().values()) == {"Good morning, <who>"}
    assert {one["aliases"]["production"] for one in mlflow.models().values()} == {"2"}
    run = lines(way.ledger)[-1]["run"]
    assert run != first
    assert way.ask("rollback", "--run", run, "--yes").code == 0
    assert {one["aliases"]["production"] for one in mlflow.models().values()} == {"1"}


def test_a_rollback_makes_no_version_of_its_own(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    """The collection is in the version: it comes back with that."""
    some(registry, 3)
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    way.run()
    way = route(tmp_path, registry, Portkey(registry), mlflow, rewrite={"name": "{name}", "collection": "elsewhere"})
    assert did(way.run()) == {"updated": 3}
    assert {published(one)["tags"]["collection"] for one in mlflow.models().values()} == {"elsewhere"}
    run = lines(way.ledger)[-1]["run"]
    assert way.ask("rollback", "--run", run, "--yes").code == 0
    whole(mlflow, 3, versions=2)
    assert {published(one)["tags"]["collection"] for one in mlflow.models().values()} == {COLLECTION}


def test_staged_and_then_published(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry, 4)
    source = Portkey(registry)
    way = route(tmp_path, registry, source, mlflow)
    way.run()
    source.edit("p0", "New, <who>")
    way = route(tmp_path, registry, source, mlflow, publish=False)
    assert did(way.run()) == {"updated": 1, "unchanged": 3}
    assert (mlflow.models()["p0"]["aliases"], len(mlflow.models()["p0"]["versions"])) == ({"production": "1"}, 2)
    assert way.ask("publish", "--yes").code == 0
    assert mlflow.texts()["p0"] == "New, <who>"


def test_prompts_are_updated_where_they_stand(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    """The new version is staged even where no alias says what is published."""
    config = json.dumps({"model_name": "old", "seed": 1})
    for number in range(4):
        fields = {"_mlflow_prompt_model_config": config, "team": "docs"}
        mlflow.server.ask(partial(_planted, number, fields))
    parts = {"mode": "update", "rewrite": {"model": "new", "provider": "other"}, "publish": False}
    way = route(tmp_path, registry, mlflow, None, **parts)
    first = way.run()
    assert (first.code, did(first)) == (0, {"updated": 4})
    for model in mlflow.models().values():
        assert (model["aliases"], sorted(model["versions"])) == ({"production": "1"}, ["1", "2"])
        two = model["versions"]["2"]["tags"]
        assert json.loads(two["_mlflow_prompt_model_config"]) == {"provider": "other", "model_name": "new", "seed": 1}
        assert (two["team"], two["mlflow.prompt.text"]) == ("docs", "Hi {{ who }}")
    assert did(way.run()) == {"unchanged": 4}
    assert way.ask("publish", "--yes").code == 0
    assert {one["aliases"]["production"] for one in mlflow.models().values()} == {"2"}
    assert way.ask("rollback", "--yes").code == 0
    assert {one["aliases"]["production"] for one in mlflow.models().values()} == {"1"}


def _planted(number: int, fields: Mapping[str, str], server: MlflowServer) -> None:
    server.plant(f"p{number}", "Hi {{ who }}", **fields)


def test_a_whole_history_with_its_labels_and_what_is_published(
    mlflow: Mlflow, registry: Served, tmp_path: Path
) -> None:
    some(registry, 3)
    for one in registry.prompts():
        registry.edit(one["id"], string="second")
        registry.edit(one["id"], publish=False, string="a draft")
    way = route(tmp_path, registry, Portkey(registry), mlflow, select={"version": "all"})
    assert way.run().code == 0
    for model in mlflow.models().values():
        texts = [version["tags"]["mlflow.prompt.text"] for version in model["versions"].values()]
        assert (texts[1:], model["aliases"]) == (["second", "a draft"], {"production": "2"})
    assert did(way.run()) == {"unchanged": 3}


def labelled(registry: Served, name: str, label: str) -> None:
    """Somebody puts a label on the newest version; it is made when it is not there."""
    known = {one["name"]: one["id"] for one in registry.call("GET", "/labels")["data"]}
    label_id = known.get(label) or registry.call("POST", "/labels", {"name": label})["id"]
    (one,) = (one for one in registry.prompts() if one["name"] == name)
    version_id = registry.versions(one["id"])[-1]["prompt_version_id"]
    registry.call("PUT", f"/prompts/{one['id']}/versions/{version_id}", {"label_id": label_id})


def test_labels_become_aliases_and_none_of_them_publishes(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry, 3)
    for name, label in (("p0", "staging"), ("p1", "production"), ("p2", "v1.2"), ("p2", "next")):
        labelled(registry, name, label)
    with_champion = Mlflow(mlflow.server, published_by="champion")
    way = route(tmp_path, registry, Portkey(registry), with_champion)
    assert way.run().code == 0
    aliases = {name: one["aliases"] for name, one in mlflow.models().items()}
    assert aliases == {
        "p0": {"champion": "1", "staging": "1"},
        "p1": {"champion": "1", "production": "1"},
        "p2": {"champion": "1", "next": "1"},
    }
    assert did(way.run()) == {"unchanged": 3}


def test_a_label_that_would_publish_stays_behind(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    some(registry, 1)
    source = Portkey(registry)
    way = route(tmp_path, registry, source, mlflow)
    way.run()
    source.edit("p0", "New, <who>")
    labelled(registry, "p0", "production")
    way = route(tmp_path, registry, source, mlflow, publish=False)
    (planned,) = way.ask("plan", "--json").json["prompts"]
    assert any("production" in note and "stay behind" in note for note in planned["notes"])
    assert did(way.run()) == {"updated": 1}
    assert mlflow.models()["p0"]["aliases"] == {"production": "1"}
    assert did(way.run()) == {"unchanged": 1}


def test_where_the_newest_counts_a_rollback_takes_versions_out(
    mlflow: Mlflow, registry: Served, tmp_path: Path
) -> None:
    some(registry, 3)
    newest = Mlflow(mlflow.server, published_by="newest")
    source = Portkey(registry)
    way = route(tmp_path, registry, source, newest)
    assert did(way.run()) == {"created": 3}
    source.edit("p0", "New, <who>")
    assert did(way.run()) == {"updated": 1, "unchanged": 2}
    assert mlflow.server.ask(lambda server: server.texts("p0"))[1:] == ["New, {{who}}"]
    assert not any(one["aliases"] for one in mlflow.models().values())
    run = lines(way.ledger)[-1]["run"]
    assert way.ask("rollback", "--run", run, "--yes").code == 0
    assert [*mlflow.models()["p0"]["versions"]] == ["1"]
    staged = route(tmp_path, registry, source, newest, publish=False)
    assert "live at once" in staged.ask("check").err


def test_what_mlflow_cannot_hold_fails_by_name_in_the_plan(mlflow: Mlflow, registry: Served, tmp_path: Path) -> None:
    refused = {
        "long": ("x" * 100_001, "100,001 characters"),
        "a b": ("Hi", "the name 'a b' cannot be used"),
        "section": ("{{#x}}{{/x}}", "has no counterpart in MLflow"),
        "dash": ("{{a-b}}", "would be plain text in MLflow"),
        "jinja": ("{% raw %}{{x}}", "Jinja2 block"),
        "half": ("\ud83d alone", "half a character"),
        "role": ('[{"role": 5, "content": "x"}]', "message 1 has a role that is no text"),
        "part": ('[{"role": "user", "content": [{"type": "tool_result"}]}]', "part 'tool_result'"),
    }
    for name, (string, _) in refused.items():
        registry.ask(partial(Sandbox.add_prompt, name=name, string=string, collection=COLLECTION, model=MODEL))
    way = route(tmp_path, registry, Portkey(registry), mlflow)
    planned = {one["name"]: one for one in way.ask("plan", "--json").json["prompts"]}
    ended = way.run()
    assert (ended.code, did(ended), mlflow.models()) == (1, {"failed": len(refused)}, {})
    told = {line["source_name"]: line["message"] for line in lines(way.ledger) if line["kind"] == "failed"}
    for name, (_, why) in refused.items():
        assert why in told[name]
        assert why in planned[name]["problem"]
