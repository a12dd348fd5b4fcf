"""Prompts to Langfuse, out of it and inside of it, by the command: nothing doubled, nothing lost, taken back."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from langfuse import Langfuse as Client

from engine.sandbox import LangfuseQuirks, Quirks, Sandbox, SandboxOptions
from tests.e2e import Served, lines, promptferry, served, started, write_migration
from tests.forks import ROOT
from tests.routes import LIMITS, MODEL, PROVIDER, Folder, Langfuse, Portkey, did, results, route

DATA: Final = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"
PROMPTS: Final = "/api/public/v2/prompts"
CHAT: Final = json.dumps(
    [{"role": "system", "content": "Be {{tone}}."}, {"role": "user", "content": "{{q}}"}], indent=1
)


@dataclass
class Moment:
    """What happens when the requests that were planned as slow have come in; else they are answered at once."""

    then: Callable[[], object] = lambda: None
    left: int = 0

    async def __call__(self, seconds: float) -> None:
        if seconds < 1:  # what a create waits with
            return
        self.left -= 1
        if self.left == 0:
            self.then()


def options(**more: Any) -> SandboxOptions:
    return SandboxOptions(prompts=0, **{"langfuse": LangfuseQuirks(deletes=True), **more})


def plant(sandbox: Sandbox, count: int) -> None:
    """Texts and chats with all that has a place."""
    for number in range(count):
        fields: dict[str, Any] = {
            "parameters": {"temperature": 0.5, "stop": ["###"], "response_format": {"type": "json_object"}},
            "template_metadata": {"tags": ["a", "b"], "owner": {"team": number}},
            "version_description": f"number {number} ☕",
        }
        fields |= {"tools": [{"type": "function", "function": {"name": "f"}}]} if number % 3 else {}
        text = CHAT if number % 2 else f"Hello {{{{ who }}}}, this is {number}."
        sandbox.add_prompt(f"p{number}", text, model=MODEL, collection="sales", **fields)


def writes(registry: Served) -> int:
    """Of Langfuse, all that were answered."""
    seen = registry.ask(lambda sandbox: [one for one in sandbox.requests if one.path.startswith(PROMPTS)])
    return sum(one.method != "GET" and one.status < 300 for one in seen)


def only_ours(target: Langfuse, count: int) -> None:
    """So many prompts are there, each in one version that is published."""
    there = target.versions()
    assert len({one["name"] for one in there}) == len(there) == count
    assert all("production" in one["labels"] for one in there)


# ---- there, on to files, and back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("manner", [2, 3])
def test_portkey_to_langfuse_to_files_to_langfuse(manner: Any, tmp_path: Path) -> None:
    with served(options(langfuse=LangfuseQuirks(manner=manner, deletes=True))) as registry:
        registry.ask(lambda sandbox: plant(sandbox, 30))
        source, middle, copy = Portkey(registry), Langfuse(registry), Langfuse(registry, "copy")
        homes = [tmp_path / name for name in ("in", "out", "back")]
        for home in homes:
            home.mkdir()
        there = route(homes[0], registry, source, middle)
        assert (there.run().code, did(there.run())) == (0, {"unchanged": 30})
        only_ours(middle, 30)
        before = writes(registry)
        assert did(there.run()) == {"unchanged": 30}
        assert writes(registry) == before
        assert there.ask("verify", "--json").json["counts"]["same"] == 30

        out = route(homes[1], registry, middle, folder := Folder(homes[1] / "prompts"))
        assert did(out.run()) == {"created": 30}
        assert len(folder.files()) == 30
        assert out.ask("verify", "--json").json["counts"]["same"] == 30
        back = route(homes[2], registry, folder, copy)
        assert did(back.run()) == {"created": 30}
        assert back.ask("verify", "--json").json["counts"]["same"] == 30
        only_ours(copy, 30)
        for name, one in middle.prompts().items():
            other = copy.prompts()[name]
            assert (one["prompt"], one["type"], one["tags"]) == (other["prompt"], other["type"], other["tags"])
            assert {**one["config"], "promptferry": 0} == {**other["config"], "promptferry": 0}

        rolled = there.ask("rollback", "--yes", "--json")
        assert (rolled.code, set(results(rolled).values())) == (0, {"deleted"})
        assert middle.versions() == []


def test_the_embedded_sandbox_is_a_project_too(tmp_path: Path) -> None:
    path = write_migration(
        tmp_path,
        "sandbox",
        source={"base_url": "sandbox"},
        target={"kind": "langfuse", "base_url": "sandbox:copy"},
        rewrite={"name": "{name}"},
        limits=LIMITS,
    )
    made = promptferry("run", path, "--limit", "20", cwd=tmp_path).summary["this_run"]
    assert made["created"] > 10
    assert promptferry("verify", path, "--json", cwd=tmp_path).json["counts"]["same"] == made["created"]


def test_the_official_client_loads_and_renders_what_was_written(tmp_path: Path) -> None:
    with served(options()) as registry:
        registry.ask(lambda sandbox: plant(sandbox, 12))
        assert did(route(tmp_path, registry, Portkey(registry), Langfuse(registry)).run()) == {"created": 12}
        public, secret = registry.ask(lambda sandbox: sandbox.langfuse_keys("main"))
        url = registry.ask(lambda sandbox: sandbox.langfuse_url)
        client = Client(public_key=public, secret_key=secret, base_url=url, tracing_enabled=False)
        try:
            for number in range(12):
                kind: Any = "chat" if number % 2 else "text"
                found: Any = client.get_prompt(f"p{number}", type=kind, cache_ttl_seconds=0)
                assert (found.config["model"], found.config["temperature"], found.tags) == (MODEL, 0.5, ["a", "b"])
                if number % 2:
                    rendered = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]
                    assert found.compile(tone="kind", q="Why?") == rendered
                else:
                    assert found.compile(who="Ada") == f"Hello Ada, this is {number}."
        finally:
            client.shutdown()


def test_a_server_that_deletes_nothing_is_told_by_name(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0)) as registry:
        Portkey(registry).add("p0", "Hello <who>")
        way = route(tmp_path, registry, Portkey(registry), Langfuse(registry))
        way.run()
        rolled = way.ask("rollback", "--yes", "--json")
        assert (rolled.code, results(rolled)) == (1, {"p0": "failed"})
        assert "deletes no prompts over its API" in rolled.json["prompts"][0]["message"]
        only_ours(Langfuse(registry), 1)


def test_langfuse_to_portkey_and_what_cannot_go_there(tmp_path: Path) -> None:
    with served(options()) as registry:
        source, target = Langfuse(registry), Portkey(registry, "copy")
        config = {"model": MODEL, "provider": PROVIDER, "collection": "sales", "temperature": 0.5, "tools": [{"a": 1}]}
        source.add("full", "Hello <name>", config=config, tags=["x"], commitMessage="d")
        source.add("refers", "@@@langfusePrompt:name=full|label=production@@@")
        source.add("draft", "Not <yet>", config={**config}, labels=[])
        way = route(tmp_path, registry, source, target)
        plan = way.ask("plan", "--json")
        notes = {one["name"]: one["notes"] for one in plan.json["prompts"]}
        assert any("no version has the label 'production'" in note for note in notes["draft"])
        assert did(way.run()) == {"created": 2, "failed": 1}
        (failed,) = [line for line in lines(way.ledger) if line["kind"] == "failed"]
        assert (failed["source_name"], failed["error"]) == ("refers", "untranslatable")
        made = target.prompts()["full"]
        assert (made["string"], made["model"], made["virtual_key"]) == ("Hello {{name}}", MODEL, PROVIDER)
        assert (made["parameters"], made["tools"]) == ({"temperature": 0.5, "model": MODEL}, [{"a": 1}])
        assert (made["template_metadata"]["tags"], made["prompt_version_description"]) == (["x"], "d")
        assert way.ask("verify").code == 0


def test_a_project_with_references_goes_over_in_the_runs_that_it_takes(tmp_path: Path) -> None:
    with served(options()) as registry:
        source, target = Langfuse(registry), Langfuse(registry, "copy")
        source.add("z", "Be kind.")
        source.add("y", "@@@langfusePrompt:name=z|label=production@@@ <a>")
        source.add("x", "@@@langfusePrompt:name=y|label=production@@@ <b>", tags=["t"])
        way = route(tmp_path, registry, source, target, limits=LIMITS | {"concurrency": 1})
        runs = [way.run() for _ in range(4)]
        assert runs[-1].code == 0
        assert sum(did(one).get("created", 0) for one in runs) == 3
        assert target.texts() == source.texts()
        assert target.prompts()["x"]["tags"] == ["t"]
        assert way.ask("verify").code == 0


# ---- updates ---------------------------------------------------------------------------------------------------------


def test_a_source_that_changed_is_a_new_version_and_goes_back(tmp_path: Path) -> None:
    with served(options()) as registry:
        source, target = Portkey(registry), Langfuse(registry)
        for name in ("p0", "p1"):
            source.add(name, "Hello <who>")
        way = route(tmp_path, registry, source, target)
        way.run()
        first = target.prompts()
        source.edit("p0", "Good morning <who>")
        changed = way.run()
        assert did(changed) == {"updated": 1, "unchanged": 1}
        assert [sorted(one["labels"]) for one in target.versions("p0")] == [[], ["latest", "production"]]
        assert way.ask("verify").code == 0
        back = way.ask("rollback", "--yes", "--json", "--run", changed.summary["run"])
        assert (back.code, results(back)) == (0, {"p0": "restored"})
        assert target.texts() == {"p0": "Hello <who>", "p1": "Hello <who>"}
        assert target.prompts()["p0"]["id"] == first["p0"]["id"]


def test_prompts_changed_where_they_stand_are_staged_published_and_taken_back(tmp_path: Path) -> None:
    with served(options()) as registry:
        target = Langfuse(registry)
        for name in ("p0", "p1", "draft"):
            labels = [] if name == "draft" else ["production", "team"]
            target.add(name, "Hello <who>", config={"model": "old", "x": 1}, tags=["t"], labels=labels)
        rules = {"name": "{name}", "model": "new"}
        way = route(tmp_path, registry, target, None, mode="update", rewrite=rules)
        before = target.prompts()
        assert did(way.run()) == {"updated": 3}
        assert {one["config"]["model"] for one in target.prompts().values()} == {"old"}
        assert {name: len(target.versions(name)) for name in before} == dict.fromkeys(before, 2)
        assert {tuple(one["tags"]) for one in target.versions()} == {("t",)}
        assert way.ask("verify").code == 0
        assert did(way.run()) == {"unchanged": 3}
        assert way.ask("publish", "--yes").code == 0
        assert {json.dumps(one["config"]) for one in target.prompts().values()} == {'{"x": 1, "model": "new"}'}
        assert target.versions("p0")[0]["labels"] == ["team"]
        back = way.ask("rollback", "--yes", "--json")
        assert (back.code, set(results(back).values())) == (0, {"restored"})
        assert {one["config"]["model"] for one in target.prompts().values()} == {"old"}


def test_a_whole_history_arrives_in_its_order(tmp_path: Path) -> None:
    with served(options()) as registry:
        source, target = Langfuse(registry), Langfuse(registry, "copy")
        for number in range(4):
            labels = {1: ["production", "team"], 3: ["dev"]}.get(number, [])
            source.add("p", f"version {number}", labels=labels, commitMessage=f"m{number}")
        way = route(tmp_path, registry, source, target, select={"version": "all"})
        assert did(way.run()) == {"created": 1}
        assert did(way.run()) == {"unchanged": 1}
        for one, other in zip(source.versions("p"), target.versions("p"), strict=True):
            assert (one["prompt"], sorted(one["labels"])) == (other["prompt"], sorted(other["labels"]))
            assert one["commitMessage"] == other["commitMessage"]


# ---- what is there, what is lost, what is killed ---------------------------------------------------------------------


def test_somebody_elses_prompt_gets_no_new_version(tmp_path: Path) -> None:
    with served(options()) as registry:
        source, target = Portkey(registry), Langfuse(registry)
        for name in ("p0", "p1", "p2"):
            source.add(name, "Hello <who>")
        target.add("p0", "Somebody's <own>")
        target.add("p1", "Hello <who>", config={"model": MODEL, "provider": PROVIDER, "collection": "sales"})
        before = target.versions("p0") + target.versions("p1")
        way = route(tmp_path, registry, source, target)
        assert did(way.run()) == {"created": 1, "conflicts": 2}
        assert target.versions("p0") + target.versions("p1") == before


def test_a_name_that_was_taken_between_look_and_create_is_not_deleted_with_ours(tmp_path: Path) -> None:
    moment = Moment(left=1)
    with served(options(sleep=moment)) as registry:
        source, target = Portkey(registry), Langfuse(registry)
        source.add("p0", "Hello <who>")

        def prepare(sandbox: Sandbox) -> None:
            moment.then = partial(sandbox.add_langfuse_prompt, "p0", prompt="Somebody's own")
            sandbox.faults.plan("slow", method="POST", path_end=PROMPTS)

        registry.ask(prepare)
        way = route(tmp_path, registry, source, target)
        ended = way.run()
        assert "its name was taken in between" in ended.err
        assert [one["prompt"] for one in target.versions("p0")] == ["Somebody's own", "Hello {{who}}"]
        assert results(way.ask("rollback", "--yes", "--json")) == {"p0": "kept"}
        assert len(target.versions("p0")) == 2


def test_a_wrong_address_is_told_with_the_right_form(tmp_path: Path) -> None:
    with served(options()) as registry:
        Portkey(registry).add("p0", "Hello <who>")
        way = route(tmp_path, registry, Portkey(registry), Elsewhere(registry))
        for verb in ("check", "run"):
            ended = way.ask(verb)
            assert ended.code == 4
            assert "without /api" in ended.out + ended.err
            assert "Traceback" not in ended.err


@dataclass(frozen=True)
class Elsewhere(Langfuse):
    """The same with a path behind its address."""

    @property
    def part(self) -> Mapping[str, Any]:
        part = super().part
        return {**part, "base_url": f"{part['base_url']}/api/public"}


@pytest.mark.parametrize("fault", ["reset_after", "500", "429", "truncate"])
@pytest.mark.parametrize("manner", [2, 3])
def test_lost_answers_double_nothing(manner: Any, fault: str, tmp_path: Path) -> None:
    with served(options(langfuse=LangfuseQuirks(manner=manner))) as registry:
        registry.ask(lambda sandbox: plant(sandbox, 24))
        times = 3 if fault == "429" else 8  # nothing says how long to wait: each one doubles it
        registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="POST", path_end=PROMPTS, times=times))
        way = route(tmp_path, registry, Portkey(registry), Langfuse(registry), limits={**LIMITS, "concurrency": 4})
        for _ in range(4):
            if (ended := way.run()).code == 0:
                break
        assert ended.code == 0
        only_ours(Langfuse(registry), 24)
        assert way.ask("verify").code == 0


KILLS: Final = (1, 2, 3, 5, 8, 1, 4, 7, 2, 6)
"""In the n-th create of a run: it has come in, is carried out, and nobody is there any more to be answered."""


def test_killed_ten_times_doubles_nothing(tmp_path: Path) -> None:
    moment = Moment()
    with served(options(sleep=moment)) as registry:
        registry.ask(lambda sandbox: plant(sandbox, 70))
        target = Langfuse(registry)
        way = route(tmp_path, registry, Portkey(registry), target, limits=LIMITS | {"concurrency": 4})
        for count in KILLS:
            with started("run", way.path, cwd=way.folder, env=way.environ) as process:

                def prepare(sandbox: Sandbox, pid: int = process.pid, count: int = count) -> None:
                    moment.then, moment.left = partial(os.kill, pid, signal.SIGKILL), count
                    sandbox.faults.plan("slow", method="POST", path_end=PROMPTS, times=count)

                registry.ask(prepare)
                assert process.wait() == -signal.SIGKILL
        for _ in range(4):
            last = way.run()
            if did(last) == {"unchanged": 70}:
                break
        assert did(last) == {"unchanged": 70}
        only_ours(target, 70)
        assert way.ask("verify", "--json").json["counts"]["same"] == 70
    created = Counter(line["source_id"] for line in lines(way.ledger) if line["kind"] == "created")
    assert (len(created), set(created.values())) == (70, {1})


# ---- check, secrets, prompts that people wrote -----------------------------------------------------------------------


def test_check_says_what_the_server_is_and_can_do(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0, langfuse=LangfuseQuirks(manner=2))) as registry:
        Portkey(registry).add("p0", "Hello <who>")
        way = route(tmp_path, registry, Portkey(registry), Langfuse(registry))
        said = way.ask("check").out
        assert "the server is 2.95" in said
        assert "moves no labels" in said
        tested = way.ask("check", "--write-test")
        assert tested.code == 0
        assert "rollback can delete no replica" in tested.out


def test_what_is_live_at_once_is_not_staged(tmp_path: Path) -> None:
    with served(options()) as registry:
        way = route(tmp_path, registry, Langfuse(registry, published_by="newest"), None, mode="update")
        refused = way.run()
        assert refused.code == 2
        assert "live at once" in refused.err


TEXT: Final = "The canary sings in the mine at dawn"


def test_neither_keys_nor_text_turn_up(tmp_path: Path) -> None:
    with served(options(quirks=Quirks(echo_key=True))) as registry:
        for number in range(4):
            Portkey(registry).add(f"p{number}", f"{TEXT} <who> {number}")
        Langfuse(registry).add("p0", f"{TEXT}, somebody says")
        way = route(tmp_path, registry, Portkey(registry), Langfuse(registry))
        registry.ask(lambda sandbox: sandbox.faults.plan("429", method="POST", path_end=PROMPTS, times=1))
        ended = [way.ask(verb, "--log-level", "debug") for verb in ("run", "verify")]
        keys = registry.ask(lambda sandbox: sandbox.langfuse_keys("main"))
    assert did(ended[0]) == {"created": 3, "conflicts": 1}
    told = "".join(one.out + one.err for one in ended)
    told += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".yaml")
    for hidden in (*keys, TEXT):
        assert hidden not in told
        assert hidden[:16] not in told


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_every_real_prompt_arrives_or_is_refused(tmp_path: Path) -> None:
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    with served(options()) as registry:

        def planted(sandbox: Sandbox) -> None:
            for number, one in enumerate(originals):
                text = one["template"] if one["kind"] == "text" else json.dumps(one["messages"], ensure_ascii=False)
                parameters = {key: value for key, value in (one["parameters"] or {}).items() if key != "model"}
                sandbox.add_prompt(f"{number} {one['name']}", text, parameters=parameters, collection="sales")

        registry.ask(planted)
        way = route(tmp_path, registry, Portkey(registry), Langfuse(registry))
        counts = did(way.run())
        failed = [line for line in lines(way.ledger) if line["kind"] == "failed"]
        print(f"real prompts: {counts}, {Counter(line['error'] for line in failed)}")
        assert counts["created"] + counts.get("failed", 0) == len(originals)
        assert all(line["message"] for line in failed)
        assert way.ask("verify", "--json").json["counts"]["same"] == counts["created"]
