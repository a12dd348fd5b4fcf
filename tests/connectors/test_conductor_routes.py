"""Prompts from Portkey to Orkes Conductor: what a bulk leaves undone, tokens that expire, runs that are killed."""

from __future__ import annotations

import json
import os
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import ConductorQuirks, Quirks, Sandbox, SandboxOptions
from tests.e2e import Served, lines, served, started
from tests.forks import ROOT
from tests.routes import COLLECTION, LIMITS, MODEL, PROVIDER, Conductor, Portkey, Route, did, results, route

DATA: Final = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"
ABSENT: Final = "a-model-that-is-absent"
TAKEN: Final = ("p3", "p4", "p100", "p250", "p299")
UNPLACED: Final = ("p10", "p60", "p200")
INVALID: Final = "p77"

Prompt = dict[str, Any]


@dataclass
class Moment:
    """What happens when the requests that were planned as slow have come in; else they are answered at once."""

    then: Callable[[], Awaitable[None] | None] = lambda: None
    left: int = 0

    async def __call__(self, seconds: float) -> None:
        self.left -= 1
        if self.left == 0:
            self.then()


def hundreds(sandbox: Sandbox, count: int, **fields: Any) -> None:
    """Prompts that Conductor can say; `fields`: name -> what is different about it."""
    parameters = {"temperature": 0.5, "top_p": 0.9, "stop": ["###"], "response_format": {"type": "json_object"}}
    for number in range(count):
        string = f'Hello {{{{ who }}}}, this is {number}.\n"{{{{all}}}}" ☕'
        known = {"string": string, "parameters": parameters}
        known |= {"model": MODEL, "collection": COLLECTION, "version_description": f"number {number}"}
        sandbox.add_prompt(f"p{number}", **known | fields.get(f"p{number}", {}))


def as_written(source: Prompt) -> Prompt:
    """What of it Conductor is to hold."""
    return {
        "template": re.sub(r"\{\{ ?(\w+) ?\}\}", r"${\1}", source["string"]),
        "description": source["prompt_version_description"],
        "integrations": [f"{source['virtual_key']}:{source['model']}"],
        "temperature": 0.5,
        "topP": 0.9,
        "stopWords": ["###"],
        "responseFormat": "json",
        "version": 1,
        "variables": {"who", "all"},
    }


def held(there: Prompt) -> Prompt:
    """The same of what it does hold."""
    told = {name: there.get(name) for name in WRITTEN}
    return told | {"variables": set(there["variables"])}


WRITTEN: Final = (
    *("template", "description", "integrations", "temperature", "topP", "stopWords", "responseFormat", "version"),
)


def calls(registry: Served) -> Counter[str]:
    """How often Conductor was asked for what, since the last time this was asked."""

    def counted(sandbox: Sandbox) -> Counter[str]:
        seen = [one for one in sandbox.requests if one.path.startswith("/api/")]
        sandbox.requests.clear()
        paths = (re.sub(r"/prompts/[^/]+", "/prompts/NAME", one.path) for one in seen)
        return Counter(f"{one.method} {path}" for one, path in zip(seen, paths, strict=True))

    return registry.ask(counted)


def failures(way: Route) -> dict[str, tuple[str, str]]:
    """Name -> error and message of what failed in the newest run."""
    known = lines(way.ledger)
    return {
        line["source_name"]: (line["error"], line["message"])
        for line in known
        if line["kind"] == "failed" and line["run"] == known[-1]["run"]
    }


# ---- a bulk that is refused, halted, or not carried out in silence ---------------------------------------------------


def test_three_hundred_prompts_of_which_some_cannot_go(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0)) as registry:
        source, target = Portkey(registry), Conductor(registry)
        others = {name: {"model": ABSENT} for name in UNPLACED} | {INVALID: {"version_description": "d" * 10_001}}
        registry.ask(lambda sandbox: hundreds(sandbox, 300, **others))
        for name in TAKEN:
            target.add(name, "Somebody's <own>")
        before = target.prompts()
        way = route(tmp_path, registry, source, target)

        first = way.run()
        print(f"300 prompts: {dict(calls(registry))}")
        assert (first.code, did(first)) == (1, {"created": 291, "failed": 4, "conflicts": 5})
        there, originals = target.prompts(), source.prompts()
        new = there.keys() - before.keys()
        assert new == originals.keys() - {*TAKEN, *UNPLACED, INVALID}
        assert {name: held(there[name]) for name in new} == {name: as_written(originals[name]) for name in new}
        assert {name: there[name] for name in before} == before
        failed = failures(way)
        assert failed.keys() == {*UNPLACED, INVALID}
        assert all(failed[name][0] == "missing" and ABSENT in failed[name][1] for name in UNPLACED)
        assert '"description" is too long' in failed[INVALID][1]
        assert way.ask("verify").code == 0

        registry.ask(lambda sandbox: sandbox.add_integration(f"{PROVIDER}:{ABSENT}"))
        again = way.run()
        assert (again.code, did(again)) == (1, {"created": 3, "unchanged": 291, "conflicts": 5})
        assert again.summary["counts"]["failed"] == 1  # what is refused for what it is, is not sent again
        calls(registry)

        changed = sorted(new)[:5]
        for name in changed:
            registry.ask(partial(Sandbox.forbid_update, name=name))
            source.edit(name, "Good morning <who>, <all>")
        held_before = target.prompts()
        second = way.run()
        print(f"5 changed: {dict(calls(registry))}")
        assert (second.code, did(second)) == (1, {"unchanged": 289, "failed": 5, "conflicts": 5})
        refused = failures(way)
        assert refused.keys() == {*changed}
        assert all("no update permission" in refused[name][1] for name in changed)
        assert "no update permission" in way.ask("status", "--failed").out
        assert target.prompts() == held_before

        for name in changed:
            registry.ask(partial(Sandbox.allow_update, name=name))
        assert did(way.run("--retry-failed"))["updated"] == 5
        assert {target.texts()[name] for name in changed} == {"Good morning <who>, <all>"}


@pytest.mark.parametrize(
    ("takes_back", "error"),
    [(False, "missing"), (False, "forbidden"), (True, "missing")],
    ids=["the rest is undone", "not readable", "all is taken back"],
)
def test_integrations_that_vanish_before_the_bulk(takes_back: bool, error: str, tmp_path: Path) -> None:
    moment = Moment(left=1)
    options = SandboxOptions(prompts=0, conductor=ConductorQuirks(bulk_rolls_back=takes_back), sleep=moment)
    with served(options) as registry:
        target, gone = Conductor(registry), f"{PROVIDER}:{ABSENT}"

        def prepare(sandbox: Sandbox) -> None:
            hundreds(sandbox, 120, **{name: {"model": ABSENT} for name in ("p0", "p60", "p61")})
            sandbox.add_integration(gone)
            moment.then = partial(sandbox.remove_integration, gone)
            if error == "forbidden":
                moment.then = partial(sandbox.add_integration, gone, readable=False)
            sandbox.faults.plan("slow", method="GET", path_end="/api/prompts")  # after the list of integrations

        registry.ask(prepare)
        way = route(tmp_path, registry, Portkey(registry), target)
        assert did(way.run()) == {"created": 117, "failed": 3}
        asked = calls(registry)
        print(f"120 prompts, 3 of them halt: {dict(asked)}")
        assert asked["POST /api/prompts/"] <= (9 if not takes_back else 60)
        assert {name: why for name, (why, _) in failures(way).items()} == dict.fromkeys(("p0", "p60", "p61"), error)
        assert len(target.prompts()) == 117
        registry.ask(lambda sandbox: sandbox.add_integration(gone))
        assert did(way.run()) == {"created": 3, "unchanged": 117}


# ---- killed ----------------------------------------------------------------------------------------------------------

KILLS: Final = (
    ("POST", "/api/prompts/", 1),
    ("PUT", "/tags", 1),
    ("POST", "/api/prompts/", 2),
    ("GET", "/api/prompts", 3),
    ("PUT", "/tags", 7),
    ("POST", "/api/prompts/", 1),
    ("GET", "/api/prompts", 4),
    ("PUT", "/tags", 13),
    ("POST", "/api/prompts/", 2),
    ("PUT", "/tags", 4),
)
"""In the n-th of these requests: it has come in, is carried out, and nobody is there any more to be answered."""
COUNT: Final = 160
SMALL: Final = LIMITS | {"batch": 10, "concurrency": 4}


def final(target: Conductor) -> dict[str, Prompt]:
    """What is there, but for times and for the value of the mark; each in one version."""
    assert all(len(target.versions(name)) == 1 for name in target.prompts())
    there = target.prompts()
    for one in there.values():
        one["tags"] = sorted(tag["key"] for tag in one["tags"])
        del one["createTime"], one["updateTime"]
    return there


def test_killed_ten_times_ends_as_without(tmp_path: Path) -> None:
    moment = Moment()
    with served(SandboxOptions(prompts=0, sleep=moment)) as registry:
        registry.ask(lambda sandbox: hundreds(sandbox, COUNT))
        target = Conductor(registry)
        way = route(tmp_path, registry, Portkey(registry), target, limits=SMALL)
        for method, path_end, count in KILLS:
            killed(way, registry, moment, method, path_end, count)
        for _ in range(4):
            last = way.run()
            if did(last) == {"unchanged": COUNT}:
                break
        ended, wanted = final(target), undisturbed(tmp_path / "undisturbed")
    assert did(last) == {"unchanged": COUNT}
    assert last.summary["requests"]["writes"] == 1  # for the token
    assert ended == wanted
    created = Counter(line["source_id"] for line in lines(way.ledger) if line["kind"] == "created")
    assert set(created.values()) == {1}
    assert len(created) == COUNT


def killed(way: Route, registry: Served, moment: Moment, method: str, path_end: str, count: int) -> None:
    """Runs it until that request has come in, and ends it with kill -9 there."""
    with started("run", way.path, cwd=way.folder, env=way.environ) as process:

        def prepare(sandbox: Sandbox) -> None:
            moment.then, moment.left = partial(os.kill, process.pid, signal.SIGKILL), count
            sandbox.faults.plan("slow", method=method, path_end=path_end, times=count)

        registry.ask(prepare)
        assert process.wait() == -signal.SIGKILL


def undisturbed(folder: Path) -> dict[str, Prompt]:
    """What a run without kills leaves in another store."""
    folder.mkdir()
    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(lambda sandbox: hundreds(sandbox, COUNT))
        target = Conductor(registry)
        assert did(route(folder, registry, Portkey(registry), target, limits=SMALL).run()) == {"created": COUNT}
        return final(target)


# ---- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_one_refresh_for_each_token_that_expires(status: Any, tmp_path: Path) -> None:
    quirks = ConductorQuirks(token_requests=50, token_status=status)
    with served(SandboxOptions(prompts=0, conductor=quirks)) as registry:
        registry.ask(lambda sandbox: hundreds(sandbox, 200))
        way = route(
            tmp_path, registry, Portkey(registry), Conductor(registry), limits=LIMITS | {"batch": 50, "concurrency": 16}
        )
        assert did(way.run()) == {"created": 200}
        seen = registry.ask(lambda sandbox: list(sandbox.requests))
        issued = registry.ask(lambda sandbox: sandbox.token_count)
    asked = [one.status for one in seen if one.path.startswith("/api/") and one.path != "/api/token"]
    answered = sum(code != status for code in asked)
    print(f"{answered} requests, {issued} tokens, {asked.count(status)} refusals")
    assert set(asked) <= {200, 404, status}
    assert issued == -(-answered // 50) > 4
    assert asked.count(status) > issued  # several were in flight when it expired


# ---- prompts that people wrote ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
@pytest.mark.parametrize("messages", ["refuse", "transcript"])
def test_every_real_prompt_arrives_or_is_refused(messages: str, tmp_path: Path) -> None:
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(lambda sandbox: plant(sandbox, originals))
        source, target = Portkey(registry), Conductor(registry)
        way = route(tmp_path, registry, source, target, rewrite={"name": "{name}", "messages": messages})
        ended = way.run()
        counts = did(ended)
        print(f"{messages}: {counts}")
        assert counts.keys() == {"created", "failed"}
        assert sum(counts.values()) == len(originals)
        there, sources, failed = target.prompts(), source.prompts(), failures(way)
        assert there.keys() | failed.keys() == sources.keys()
        assert not there.keys() & failed.keys()
        for name, one in there.items():
            assert set(one["variables"]) == set(sources[name]["variable_components"]["variables"]), name
        assert all(error in ("loss", "untranslatable", "bad_name") and message for error, message in failed.values())


def plant(sandbox: Sandbox, prompts: Sequence[Prompt]) -> None:
    """Each as Portkey has it, with a number before its name; of its parameters those that Conductor has a place for."""
    for number, one in enumerate(prompts):
        string = one["template"] if one["kind"] == "text" else json.dumps(one["messages"], ensure_ascii=False)
        parameters = {name: value for name, value in (one["parameters"] or {}).items() if name != "model"}
        sandbox.add_prompt(f"{number} {one['name']}", string, parameters=parameters, collection=COLLECTION)


# ---- updates, and what is taken over ---------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


def numbers(target: Conductor, name: str) -> list[int]:
    return [one["version"] for one in target.versions(name)]


def test_an_update_is_a_version_that_is_taken_out_again(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for name in ("p0", "p1"):
        source.add(name, "Hello <who>")
    way = route(tmp_path, registry, source, target)
    way.run()
    first = target.prompts()
    source.edit("p0", "Good morning <who>")
    changed = way.run()
    assert (did(changed), numbers(target, "p0")) == ({"updated": 1, "unchanged": 1}, [1, 2])
    assert way.ask("verify").code == 0
    back = way.ask("rollback", "--yes", "--json", "--run", changed.summary["run"])
    assert (back.code, results(back), numbers(target, "p0")) == (0, {"p0": "restored"}, [1])
    assert target.prompts() == first


def test_a_rollback_says_which_create_it_could_not_settle(tmp_path: Path, registry: Served) -> None:
    """Its answer was lost and somebody edited it since; a tag holds no digest that could tell."""
    source, target = Portkey(registry), Conductor(registry)
    source.add("p0", "Hello <who>")
    way = route(tmp_path, registry, source, target)
    way.run()
    known = way.ledger.read_bytes().splitlines(keepends=True)
    before = [json.loads(line)["kind"] for line in known].index("created")
    way.ledger.write_bytes(b"".join(known[:before]))
    target.edit("p0", "By hand for <who>")
    back = way.ask("rollback", "--yes", "--json")
    assert (back.code, back.json["prompts"], back.json["in_doubt"]) == (1, [], 1)
    assert "1 creates are in doubt" in way.ask("rollback", "--yes").out
    assert target.texts() == {"p0": "By hand for <who>"}


def test_prompts_changed_where_they_stand_and_back(tmp_path: Path, registry: Served) -> None:
    target = Conductor(registry)
    for name in ("p0", "p1", "p2"):
        target.add(name, "Hello <who>", temperature=0.5, description="as it was")
    target.edit("p2", "Hello again <who>")
    before = target.prompts()
    rules = {"name": "{name}", "model": "claude-3-opus", "parameters": {"set": {"topP": 0.25}}}
    way = route(tmp_path, registry, target, None, mode="update", publish=True, rewrite=rules)
    assert did(way.run()) == {"updated": 3}
    assert way.ask("verify").code == 0
    changed = target.prompts()
    assert {name: numbers(target, name) for name in changed} == {"p0": [1, 2], "p1": [1, 2], "p2": [1, 2, 3]}
    assert all(one["integrations"] == [f"{PROVIDER}:claude-3-opus"] for one in changed.values())
    assert {(one["topP"], one["temperature"]) for one in changed.values()} == {(0.25, 0.5)}
    assert {name: one["tags"] for name, one in changed.items()} == {name: one["tags"] for name, one in before.items()}

    target.edit("p1", "By hand for <who>")
    by_hand = target.prompts()["p1"]
    back = way.ask("rollback", "--yes", "--json")
    assert (back.code, results(back)) == (1, {"p0": "restored", "p1": "kept", "p2": "restored"})
    assert target.prompts() == before | {"p1": by_hand}


def test_a_prompt_whose_tags_did_not_arrive_is_taken_over_when_it_is_equal(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for name in ("equal", "different"):
        source.add(name, "Hello <who>")
    target.add("equal", "Hello <who>", tags={})
    target.add("different", "Somebody's <own>", tags={})
    different = target.prompts()["different"]
    way = route(tmp_path, registry, source, target)
    assert did(way.run()) == {"created": 1, "conflicts": 1}
    there = target.prompts()
    assert there["different"] == different
    assert {tag["key"] for tag in there["equal"]["tags"]} == {"promptferry", "collection"}
    assert numbers(target, "equal") == [1]
    assert calls(registry)["POST /api/prompts/"] == 0  # nothing that is there is sent: a bulk overwrites


# ---- secrets ---------------------------------------------------------------------------------------------------------

TEXT: Final = "The canary sings in the mine at dawn"


@pytest.mark.parametrize("right", [True, False], ids=["a key that is right", "a key that is wrong"])
def test_neither_secret_nor_token_nor_text_turns_up(right: bool, tmp_path: Path) -> None:
    conductor = ConductorQuirks(names_item=True, token_requests=20)
    with served(SandboxOptions(prompts=0, quirks=Quirks(echo_key=True), conductor=conductor)) as registry:
        key = registry.ask(lambda sandbox: sandbox.key("main", ["prompts.list"]))  # another one than Portkey's
        for number in range(6):
            Portkey(registry).add(f"p{number}", f"{TEXT} <who> {number}")
        registry.ask(lambda sandbox: sandbox.add_prompt("long", TEXT, model=MODEL, version_description="d" * 10_001))
        Conductor(registry).add("p0", f"{TEXT}, somebody says")
        way = route(tmp_path, registry, Portkey(registry), Conductor(registry))
        given = key if right else "canary-0123456789-abcdefghij"
        way = replace(way, environ={**way.environ, "KEY_SECRET": given})
        ended = [way.ask(verb, "--log-level", "debug") for verb in (("run", "verify") if right else ("run", "check"))]
    assert ended[0].code == (1 if right else 4)
    told = "".join(one.out + one.err for one in ended)
    told += "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".yaml")
    assert ("***" in told) is right  # the registry did repeat what it was sent
    for hidden in (given, key, registry.api_key, TEXT, "eyJhbGciOi"):  # a token begins so
        assert hidden not in told
        assert hidden[:16] not in told


@pytest.mark.parametrize("fault", ["reset_after", "500", "429"])
def test_lost_answers_double_nothing(fault: str, tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for number in range(40):
        source.add(f"p{number}", "Hello <name>")
    registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="POST", path_end="/prompts/", times=4))
    way = route(tmp_path, registry, source, target, limits={**LIMITS, "batch": 5})
    if (ended := way.run()).code:
        ended = way.run()
    assert ended.code == 0
    assert target.texts() == source.texts()
    assert {one["version"] for one in target.prompts().values()} == {1}
    assert way.ask("verify").code == 0


def test_every_field_that_portkey_has_a_place_for_arrives_from_conductor(tmp_path: Path, registry: Served) -> None:
    source, target = Conductor(registry), Portkey(registry, "copy")
    sampling = {"temperature": 0.5, "topP": 0.25, "stopWords": ["a"], "responseFormat": "json"}
    source.add("full", "Hello <name>", tags={"team": "ops", "collection": COLLECTION}, description="d", **sampling)
    registry.ask(lambda sandbox: sandbox.add_conductor_prompt("literal", "Hello {{name}}"))
    source.add("several", "Hello", integrations=[f"{PROVIDER}:{MODEL}", "openai-prod:gpt-4o"])
    way = route(tmp_path, registry, source, target)
    assert (way.run().code, set(target.prompts())) == (1, {"full"})
    assert {name: error for name, (error, _) in failures(way).items()} == {
        "literal": "untranslatable",
        "several": "loss",
    }
    made = target.prompts()["full"]
    assert (made["string"], made["model"], made["virtual_key"]) == ("Hello {{name}}", MODEL, PROVIDER)
    assert made["parameters"] == {
        "temperature": 0.5,
        "top_p": 0.25,
        "stop": ["a"],
        "response_format": {"type": "json_object"},
        "model": MODEL,
    }
    assert (made["template_metadata"]["team"], made["prompt_version_description"]) == ("ops", "d")


def test_a_loss_that_is_accepted_is_no_difference_later(tmp_path: Path, registry: Served) -> None:
    source, target = Portkey(registry), Conductor(registry)
    tools = [{"type": "function", "function": {"name": "f"}}]
    more: Prompt = {"model": MODEL, "collection": COLLECTION, "tools": tools, "tool_choice": "auto"}
    registry.ask(partial(Sandbox.add_prompt, name="p", string="Hello {{name}}", **more))
    way = route(tmp_path, registry, source, target)
    assert way.run().code == 1
    assert "tool_choice, tools would be lost" in failures(way)["p"][1]
    way = route(tmp_path, registry, source, target, allow_loss=["tools", "tool_choice"])
    assert did(way.run()) == {"created": 1}
    assert way.ask("verify").code == 0
    assert did(way.run()) == {"unchanged": 1}
    source.edit("p", "Changed <name>")
    assert did(way.run()) == {"updated": 1}
    assert (way.ask("verify").code, target.texts()) == (0, {"p": "Changed <name>"})


def test_prompts_of_one_name_are_a_clash_where_names_are_unique(tmp_path: Path, registry: Served) -> None:
    for text in ("one", "the other"):
        registry.ask(partial(Sandbox.add_prompt, name="twin", string=text, model=MODEL, collection=COLLECTION))
    Portkey(registry).registry.ask(partial(Sandbox.add_prompt, name="alone", model=MODEL, collection=COLLECTION))
    way = route(tmp_path, registry, Portkey(registry), Conductor(registry))
    ended = way.run()
    assert (ended.code, did(ended)) == (1, {"created": 1, "conflicts": 2})
    assert {line["reason"] for line in lines(way.ledger) if line["kind"] == "conflict"} == {"name_clash"}
    assert set(Conductor(registry).prompts()) == {"alone"}


def test_a_plan_groups_what_changes_alike_whatever_the_texts(tmp_path: Path, registry: Served) -> None:
    source = Portkey(registry)
    for number in range(5):
        source.add(f"p{number}", f"Hello <name>, this is {number}")
    shown = route(tmp_path, registry, source, Conductor(registry)).ask("plan").out
    assert "create 5: p4, p3, p2 and 2 more" in shown
    assert "string: changed" in shown
    assert "{{name}}, {{ name }}" in shown  # the table of the way


def test_a_name_that_conductor_does_not_take_fails_in_the_plan_and_a_slug_mends_it(
    tmp_path: Path, registry: Served
) -> None:
    source, target = Portkey(registry), Conductor(registry)
    for name in ("Team/Reply", "fine"):
        source.add(name, "Hello <who>")
    way = route(tmp_path, registry, source, target)
    planned = {one["name"]: one["problem"] for one in way.ask("plan", "--json").json["prompts"]}
    assert planned["fine"] is None
    assert "'Team/Reply' cannot be used" in planned["Team/Reply"]
    assert "{name|slug}" in planned["Team/Reply"]
    assert did(way.run()) == {"created": 1, "failed": 1}
    assert failures(way)["Team/Reply"][0] == "untranslatable"

    way = route(tmp_path, registry, source, target, rewrite={"name": "{name|slug}"})
    assert did(way.run()) == {"created": 1, "unchanged": 1}
    assert set(target.prompts()) == {"fine", "team-reply"}


def test_prompts_that_meet_under_one_slug_are_a_clash(tmp_path: Path, registry: Served) -> None:
    source = Portkey(registry)
    for name in ("Team/Reply", "team-reply", "alone"):
        source.add(name, "Hello <who>")
    way = route(tmp_path, registry, source, Conductor(registry), rewrite={"name": "{name|slug}"})
    assert did(way.run()) == {"created": 1, "conflicts": 2}
    assert {line["reason"] for line in lines(way.ledger) if line["kind"] == "conflict"} == {"name_clash"}
    assert set(Conductor(registry).prompts()) == {"alone"}
