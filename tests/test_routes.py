"""Portkey to Conductor and to files and back, by the command: what arrives, what is refused, what a kill leaves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from e2e import MARK, Ended, Served, lines, promptferry, served, started, wait_for_lines
from test_real_prompts import DATA, fields

from engine.sandbox import ConductorQuirks, Sandbox, SandboxOptions
from engine.translate import variables_of

GPT, MISSING = "openai-prod:gpt-4o", "openai-prod:gpt-5-nano"
PROMPTS, TAKEN, LACKING = 300, 5, 3
LONG = "x" * 10_001
"""A description that a bulk refuses."""
LIMITS = {"rate": 2000, "settle": "0.5s", "timeout": 5}


class Route:
    """A sandbox, and migration files in a folder."""

    def __init__(self, registry: Served, folder: Path) -> None:
        self.registry, self.folder = registry, folder
        self.env = {"KEY": registry.api_key}
        address = registry.base_url.removesuffix("/v1")
        self.portkey = {"kind": "portkey", "base_url": registry.base_url, "api_key": "${KEY}"}
        keys = {"key_id": "${KEY}", "key_secret": "${KEY}"}
        self.conductor = {"kind": "conductor", "base_url": f"{address}/api", **keys}

    def write(self, name: str, source: Any, target: Any, **parts: Any) -> Path:
        known = {"rewrite": {"name": "{name}"}, "limits": LIMITS, "ledger": f"{name}.jsonl"}
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps({"name": name, "source": source, "target": target, **known, **parts}))
        return path

    def ask(self, verb: str, path: Path, *flags: str) -> Ended:
        return promptferry(verb, path, *flags, cwd=self.folder, env=self.env)

    def add(self, name: str, string: str = "Hello {{name}}", **more: Any) -> str:
        known = {"model": "gpt-4o", "virtual_key": "openai-prod"}
        return self.registry.ask(lambda sandbox: sandbox.add_prompt(name, string, **{**known, **more}))

    def there(self) -> dict[str, dict[str, Any]]:
        """Conductor's own truth."""
        return {prompt["name"]: prompt for prompt in self.registry.ask(Sandbox.conductor_prompts)}

    def calls(self) -> Counter[str]:
        """Requests to Conductor so far, by what they do."""
        seen = self.registry.ask(lambda sandbox: list(sandbox.requests))
        return Counter(call(one.method, one.path) for one in seen if one.path.startswith("/api/"))


def call(method: str, path: str) -> str:
    parts = path.removeprefix("/api").rstrip("/").split("/")
    if method == "POST" and path.endswith("/prompts/"):
        return "bulk"
    if parts[1] != "prompts":
        return parts[1]
    return {2: "list", 3: f"{method} prompt", 4: f"{method} {parts[-1]}"}.get(len(parts), path)


@pytest.fixture
def route(tmp_path: Path) -> Iterator[Route]:
    with served(SandboxOptions(prompts=0)) as registry:
        registry.ask(lambda sandbox: sandbox.add_integration(GPT))
        yield Route(registry, tmp_path)


def failures(route: Route, path: Path) -> Counter[str]:
    return Counter(one["error"] for one in route.ask("status", path, "--failed", "--json").json["failed"])


# ---- Portkey -> Conductor --------------------------------------------------------------------------------------------


def planted(route: Route) -> list[str]:
    """Names of 300 prompts: the first five are taken at the target, the next three name a missing integration, and the
    next one is refused by it.
    """
    names = [f"prompt {number}" for number in range(PROMPTS)]
    for number, name in enumerate(names):
        lacking = TAKEN <= number < TAKEN + LACKING
        long = {"version_description": LONG} if number == TAKEN + LACKING else {}
        more: dict[str, Any] = {"model": "gpt-5-nano"} if lacking else {}
        route.add(name, f"Hello {{{{name}}}}, this is {number}", **more, **long)
    for name in names[:TAKEN]:
        route.registry.ask(partial(Sandbox.add_conductor_prompt, name=name, template="somebody's"))
    return names


def test_three_hundred_prompts_some_of_which_cannot_go(route: Route, capsys: pytest.CaptureFixture[str]) -> None:
    names = planted(route)
    path = route.write("there", route.portkey, route.conductor)
    before = {name: route.there()[name] for name in names[:TAKEN]}
    first = route.ask("run", path)
    counts = first.summary["counts"]
    assert (first.code, counts["created"], counts["failed"], counts["conflicts"]) == (1, 291, 4, 5)
    assert failures(route, path) == {"missing": LACKING, "rejected": 1}
    there = route.there()
    made = {name: prompt for name, prompt in there.items() if name not in before}
    assert set(made) == set(names[TAKEN + LACKING + 1 :])
    assert all(made[name]["template"] == f"Hello ${{name}}, this is {name.split()[1]}" for name in made)
    assert all(MARK in {tag["key"] for tag in prompt["tags"]} for prompt in made.values())
    assert {name: there[name] for name in before} == before
    calls = route.calls()
    # a bulk for the first alone, six full ones, and two more for the prompt at fault; two listings around each
    assert calls["bulk"] <= 12
    assert calls["list"] <= 30
    assert calls["integrations"] == 1
    with capsys.disabled():
        print(f"\n291 of 300 created at Conductor with {dict(calls)}")

    route.registry.ask(lambda sandbox: sandbox.add_integration(MISSING))
    second = route.ask("run", path)
    assert (second.code, second.summary["this_run"]["created"]) == (1, LACKING)
    assert failures(route, path) == {"rejected": 1}

    changed = names[-5:]
    sources = {prompt["name"]: prompt["id"] for prompt in route.registry.prompts()}
    for name in changed:
        route.registry.ask(partial(Sandbox.forbid_update, name=name))
        route.registry.edit(sources[name], string="Changed {{name}}")
    third = route.ask("run", path)
    assert (third.code, third.summary["this_run"]["failed"]) == (1, 5)
    assert failures(route, path) == {"rejected": 1, "no_update_permission": 5}
    assert all(route.there()[name]["template"].startswith("Hello") for name in changed)
    for name in changed:
        route.registry.ask(partial(Sandbox.allow_update, name=name))
    fourth = route.ask("run", path, "--retry-failed")
    assert fourth.summary["this_run"]["updated"] == 5
    assert {route.there()[name]["template"] for name in changed} == {"Changed ${name}"}
    assert route.ask("verify", path).code == 0


def test_an_integration_that_goes_away_meanwhile_halts_a_bulk_and_fails_its_own_prompts(route: Route) -> None:
    route.registry.ask(lambda sandbox: sandbox.add_integration(MISSING))
    for number in range(40):
        route.add(f"prompt {number}", **({"model": "gpt-5-nano"} if number % 10 == 7 else {}))
    path = route.write("there", route.portkey, route.conductor)
    with started("run", path, cwd=route.folder, env=route.env) as process:
        wait_for_lines(route.folder / "there.jsonl", 3, process)
        route.registry.ask(lambda sandbox: sandbox.remove_integration(MISSING))
        ended = process.end()
    counts = ended.summary["counts"]
    assert (ended.code, counts["created"], counts["failed"]) == (1, 36, 4)
    assert failures(route, path) == {"missing": 4}
    assert len(route.there()) == 36


@pytest.mark.parametrize("rolls_back", [False, True])
def test_killed_in_the_middle_of_batches_ten_times(rolls_back: bool, tmp_path: Path) -> None:
    quirks = ConductorQuirks(bulk_rolls_back=rolls_back)
    with served(SandboxOptions(prompts=0, conductor=quirks)) as registry:
        registry.ask(lambda sandbox: sandbox.add_integration(GPT))
        route = Route(registry, tmp_path)
        names = [f"prompt {number}" for number in range(120)]
        for number, name in enumerate(names):
            route.add(name, f"Hello {{{{name}}}}, this is {number}")
        path = route.write("there", route.portkey, route.conductor, limits={**LIMITS, "batch": 10})
        ledger, kills = tmp_path / "there.jsonl", 0
        for _ in range(10):
            written = ledger.read_bytes().count(b"\n") if ledger.exists() else 0
            with started("run", path, cwd=tmp_path, env=route.env) as process:
                wait_for_lines(ledger, written + 9, process)
                process.kill()
                process.wait()
            kills += process.returncode == -9
        last = route.ask("run", path)
        assert kills > 5
        assert last.code == 0
        there = route.there()
        assert set(there) == set(names)
        assert {name: prompt["template"] for name, prompt in there.items()} == {
            name: f"Hello ${{name}}, this is {number}" for number, name in enumerate(names)
        }
        assert {prompt["version"] for prompt in there.values()} == {1}
        assert all(len([tag for tag in prompt["tags"] if tag["key"] == MARK]) == 1 for prompt in there.values())
        assert route.ask("verify", path).code == 0


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_expires_is_got_once_for_everybody(status: Any, tmp_path: Path) -> None:
    quirks = ConductorQuirks(token_requests=50, token_status=status)
    with served(SandboxOptions(prompts=0, conductor=quirks)) as registry:
        registry.ask(lambda sandbox: sandbox.add_integration(GPT))
        route = Route(registry, tmp_path)
        for number in range(120):
            route.add(f"prompt {number}")
        limits = {**LIMITS, "concurrency": 16}
        path = route.write("there", route.portkey, route.conductor, limits=limits)
        ended = route.ask("run", path)
        assert (ended.code, ended.summary["counts"]["created"]) == (0, 120)
        requests = sum(route.calls().values())
        tokens = registry.ask(lambda sandbox: sandbox.token_count)
        # each token answers fifty; up to fifteen more are refused with an old one and sent again
        assert requests / 66 - 1 <= tokens <= requests / 50 + 1
        assert tokens > 2


def real(route: Route) -> dict[str, dict[str, Any]]:
    """The real prompts at Portkey, by id."""
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]
    for number, prompt in enumerate(originals):
        name = f"{number} {prompt['name']}".replace("/", "-").strip()
        route.add(name, **{"string": "", **fields(prompt)})
    return {prompt["id"]: prompt for prompt in route.registry.prompts()}


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
@pytest.mark.parametrize("messages", ["refuse", "transcript"])
def test_every_real_prompt_is_created_with_its_variables_or_refused_by_name(messages: str, route: Route) -> None:
    sources = real(route)
    drops = sorted({name for prompt in sources.values() for name in prompt["parameters"]} - {"model", "temperature"})
    rewrite = {"name": "{name}", "messages": messages, "parameters": {"drop": drops}}
    path = route.write("there", route.portkey, route.conductor, rewrite=rewrite, allow_loss=["tools"])
    ended = route.ask("run", path)
    counts = ended.summary["counts"]
    assert counts["created"] + counts["failed"] == len(sources) > 500
    there = route.there()
    made = {
        line["source_id"]: line["target_id"]
        for line in lines(route.folder / "there.jsonl")
        if line["kind"] == "created"
    }
    assert len(made) == counts["created"] > 250
    for source_id, name in made.items():
        asked = sources[source_id]["variable_components"]["variables"]
        assert set(there[name]["variables"]) == set(asked), name
    refused = route.ask("status", path, "--failed", "--json").json["failed"]
    assert {one["source_id"] for one in refused} == sources.keys() - made.keys()
    assert all(one["message"] for one in refused)


# ---- files -----------------------------------------------------------------------------------------------------------


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_real_prompts_to_files_and_back(route: Route) -> None:
    sources = real(route)
    out = route.write("out", route.portkey, {"kind": "files", "path": "prompts"})
    ledger, folder = route.folder / "out.jsonl", route.folder / "prompts"
    with started("run", out, cwd=route.folder, env=route.env) as process:
        assert wait_for_lines(ledger, 300, process)
        process.kill()
        process.wait()
    assert 0 < len(content_of(folder)) < len(sources)
    assert route.ask("run", out).summary["counts"]["created"] > 0
    exported = content_of(folder)
    assert len(exported) == len(sources) > 500
    assert route.ask("run", out).code == 0
    assert content_of(folder) == exported
    ledger.unlink()
    again = route.ask("run", out)
    assert (again.code, again.summary["this_run"]["created"]) == (0, len(sources))  # taken over
    assert content_of(folder) == exported
    assert route.ask("verify", out).code == 0

    registry = route.registry
    second = {**route.portkey, "api_key": "${SECOND}"}
    route.env["SECOND"] = registry.ask(lambda sandbox: sandbox.key("second"))
    place = registry.call("GET", "/collections", key=route.env["SECOND"])["data"][0]["slug"]
    rewrite = {"name": "{name}", "collection": place}
    back = route.write("back", {"kind": "files", "path": "prompts"}, second, rewrite=rewrite)
    with started("run", back, cwd=route.folder, env=route.env) as process:
        assert wait_for_lines(route.folder / "back.jsonl", 300, process)
        process.kill()
        process.wait()
    ended = route.ask("run", back)
    assert ended.summary["counts"]["conflicts"] == 0
    # three of them name a partial, which another workspace does not have: that is refused by name
    refused = {one["name"] for one in route.ask("status", back, "--failed", "--json").json["failed"]}
    assert len(refused) == ended.summary["counts"]["failed"] == 3
    assert all("{{>" in prompt["string"].replace(" ", "") for prompt in sources.values() if prompt["name"] in refused)
    strings = Counter((one["name"], one["string"]) for one in sources.values() if one["name"] not in refused)
    assert Counter((prompt["name"], prompt["string"]) for prompt in registry.prompts("second")) == strings
    assert content_of(folder) == exported


@pytest.mark.parametrize("place", ["prompts", "prompts.jsonl"])
def test_a_night_later_only_what_changed_is_written(place: str, route: Route) -> None:
    ids = [route.add(f"Prompt {number}") for number in range(6)]
    path = route.write("out", route.portkey, {"kind": "files", "path": place})
    plan = route.ask("plan", path, "--json").json
    assert (plan["counts"]["create"], plan["translation"]) == (6, [])
    assert not (route.folder / place).exists()
    assert route.ask("run", path).summary["counts"]["created"] == 6
    route.registry.edit(ids[0], string="changed {{name}}")
    second = route.ask("run", path)
    assert (second.code, second.summary["this_run"]["updated"], second.summary["counts"]["unchanged"]) == (0, 1, 5)
    assert route.ask("run", path).summary["counts"]["unchanged"] == 6
    assert route.ask("verify", path).code == 0
    back = route.ask("rollback", path, "--yes", "--json")
    assert Counter(one["result"] for one in back.json["prompts"]) == {"deleted": 6}
    left = route.folder / place
    assert not list(left.iterdir()) if left.is_dir() else left.read_bytes() == b""


# ---- Conductor as source, and in place -------------------------------------------------------------------------------


def at_conductor(route: Route, **prompts: Mapping[str, Any]) -> None:
    for name, more in prompts.items():
        known = {"integrations": [GPT], "template": "Hello ${name}", **more}
        route.registry.ask(partial(Sandbox.add_conductor_prompt, name=name, **known))


def test_conductor_to_portkey(route: Route) -> None:
    at_conductor(
        route,
        plain={"temperature": 0.5, "topP": 0.25, "stopWords": ["a"], "tags": {"team": "ops"}, "description": "d"},
        literal={"template": "Hello {{name}}"},
    )
    (collection,) = [one["slug"] for one in route.registry.call("GET", "/collections")["data"]][:1]
    rewrite = {"name": "{name}", "collection": collection}
    path = route.write("back", route.conductor, route.portkey, rewrite=rewrite)
    ended = route.ask("run", path)
    assert (ended.code, ended.summary["counts"]["created"], ended.summary["counts"]["failed"]) == (1, 1, 1)
    assert failures(route, path) == {"untranslatable": 1}
    (made,) = route.registry.prompts()
    assert (made["string"], made["model"], made["virtual_key"]) == ("Hello {{name}}", "gpt-4o", "openai-prod")
    assert made["parameters"] == {"temperature": 0.5, "top_p": 0.25, "stop": ["a"], "model": "gpt-4o"}
    assert made["template_metadata"]["team"] == "ops"
    assert route.ask("verify", path).code == 0


def test_prompts_of_conductor_are_changed_in_place_and_back(route: Route) -> None:
    at_conductor(route, one={"temperature": 0.5}, two={"tags": {"team": "ops"}})
    before = route.there()
    rewrite = {"name": "{name}", "parameters": {"set": {"temperature": 0.1}}}
    path = route.write("new", route.conductor, None, mode="update", publish=True, rewrite=rewrite)
    assert route.ask("run", path).summary["counts"]["updated"] == 2
    assert {prompt["temperature"] for prompt in route.there().values()} == {0.1}
    assert {prompt["version"] for prompt in route.there().values()} == {2}
    assert route.ask("run", path).summary["counts"]["unchanged"] == 2
    assert route.ask("verify", path).code == 0
    assert route.ask("rollback", path, "--yes").code == 0
    assert route.there() == before


def test_a_prompt_without_its_mark_is_adopted_when_it_is_equal_and_a_conflict_when_not(route: Route) -> None:
    route.add("equal")
    route.add("different")
    at_conductor(route, equal={"tags": {"collection": "x"}}, different={"template": "Somebody's"})
    rule = {"when": {"name": "*"}, "collection": "x"}
    path = route.write("there", route.portkey, route.conductor, rewrite={"name": "{name}", "rules": [rule]})
    plan = {one["name"]: (one["action"], one["notes"]) for one in route.ask("plan", path, "--json").json["prompts"]}
    assert plan["equal"] == ("create", ["a prompt equal to it is there already, without a mark: it is taken over"])
    assert plan["different"][0] == "conflict"
    ended = route.ask("run", path)
    assert (ended.code, ended.summary["counts"]["conflicts"], ended.summary["counts"]["created"]) == (1, 1, 1)
    assert route.calls()["bulk"] == 0
    assert route.there()["different"]["template"] == "Somebody's"
    assert MARK in {tag["key"] for tag in route.there()["equal"]["tags"]}


def test_what_an_older_server_drops_is_a_loss_and_the_replica_is_taken_back(tmp_path: Path) -> None:
    with served(SandboxOptions(prompts=0, conductor=ConductorQuirks(drops_sampling=True))) as registry:
        registry.ask(lambda sandbox: sandbox.add_integration(GPT))
        route = Route(registry, tmp_path)
        route.add("warm", parameters={"temperature": 0.5})
        route.add("plain")
        path = route.write("there", route.portkey, route.conductor)
        ended = route.ask("run", path)
        assert (ended.code, ended.summary["counts"]["created"], failures(route, path)) == (1, 1, {"loss": 1})
        assert set(route.there()) == {"plain"}


@pytest.mark.parametrize("fault", ["reset_after", "500", "429"])
def test_lost_answers_double_nothing(fault: str, route: Route) -> None:
    for number in range(40):
        route.add(f"prompt {number}")
    path = route.write("there", route.portkey, route.conductor, limits={**LIMITS, "batch": 5})
    route.registry.ask(lambda sandbox: sandbox.faults.plan(fault, method="POST", path_end="/prompts/", times=4))
    ended = route.ask("run", path)
    if ended.code:
        ended = route.ask("run", path)
    assert ended.code == 0
    assert len(route.there()) == 40
    assert {prompt["version"] for prompt in route.there().values()} == {1}
    assert route.ask("verify", path).code == 0


def test_no_secret_is_told(route: Route) -> None:
    route.add("prompt")
    bad = {**route.conductor, "key_secret": "${BAD}"}
    route.env["BAD"] = "not-a-secret-that-is-known"
    path = route.write("there", route.portkey, bad)
    ended = route.ask("run", path, "--log-level", "debug")
    assert (ended.code, ended.summary["reason"]) == (4, "key_refused")
    told = ended.out + ended.err
    assert route.env["BAD"] not in told
    assert route.registry.api_key not in told
    assert variables_of("Hello ${name}", "conductor") == {"name"}
