"""Prompts into Phoenix and out of it by the command line: again, changed, staged, taken back, killed, unanswered."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from engine.sandbox import Sandbox, SandboxOptions
from tests import phoenix_server
from tests.e2e import Served, lines, served, started
from tests.forks import ROOT
from tests.routes import COLLECTION, LIMITS, MODEL, PROVIDER, Folder, Phoenix, Portkey, Route, did, results, route

DATA: Final = ROOT.parent / "shared" / "data" / "real-prompts.jsonl"
REWRITE: Final = {"name": "{name|slug}", "provider": {"*": "OPENAI"}}
COUNT: Final = 60
KILLS: Final = (
    ("POST", "/v1/prompts", 1),
    ("POST", "/tags", 1),
    ("POST", "/v1/prompts", 2),
    ("GET", "/v1/prompts", 1),
    ("POST", "/tags", 5),
    ("GET", "/versions", 7),
    ("POST", "/v1/prompts", 9),
    ("POST", "/tags", 2),
    ("GET", "/v1/prompts", 2),
    ("POST", "/v1/prompts", 4),
)
"""In the n-th of these requests: it has come in, is carried out, and nobody is there any more to be answered."""


@pytest.fixture
def registry() -> Iterator[Served]:
    with served(SandboxOptions(prompts=0)) as found:
        yield found


@pytest.fixture
def phoenix() -> Iterator[phoenix_server.Phoenix]:
    with phoenix_server.running() as found:
        yield found


def to_phoenix(folder: Path, registry: Served, target: Phoenix, **parts: Any) -> Route:
    return route(folder, registry, Portkey(registry), target, **{"rewrite": REWRITE, **parts})


def hundreds(registry: Served, count: int = COUNT) -> None:
    """Prompts that Phoenix can say, every other one a chat."""

    def fill(sandbox: Sandbox) -> None:
        for number in range(count):
            text = f"Hello {{{{ who }}}}, this is {number} ☕"
            chat = [{"role": "system", "content": text}, {"role": "user", "content": "{{q}}"}]
            sandbox.add_prompt(
                f"P {number}",
                json.dumps(chat, ensure_ascii=False) if number % 2 else text,
                parameters={"temperature": 1, "top_k": 5, "stop": ["#"]},
                model=MODEL,
                collection=COLLECTION,
                version_description=f"number {number}",
            )

    registry.ask(fill)


def whole(target: Phoenix, count: int = COUNT) -> None:
    """Every prompt is there in one version, which has the tag."""
    assert target.rows().keys() == {f"p-{number}" for number in range(count)}
    for name in target.rows():
        (version,) = target.versions(name)
        assert target.tags(version["id"]) == {"production"}, name


# ---- there and back --------------------------------------------------------------------------------------------------


def test_what_is_written_and_that_it_is_written_once(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    target = Phoenix(phoenix.url)
    hundreds(registry, 4)
    way = to_phoenix(tmp_path, registry, target)
    assert way.ask("check").code == 0
    first = way.run()
    assert did(first) == {"created": 4}
    whole(target, 4)
    made = target.published("p-1")
    assert made["template"]["messages"][0] == {"role": "system", "content": "Hello {{ who }}, this is 1 ☕"}
    parameters = {"temperature": 1, "stop": ["#"], "extra_body": {"top_k": 5}}
    assert made["invocation_parameters"] == {"type": "openai", "openai": parameters}
    assert (made["model_provider"], made["model_name"], made["description"]) == ("OPENAI", MODEL, "number 1")
    assert target.rows()["p-1"]["metadata"] == {"collection": "sales"}
    assert way.ask("verify").code == 0
    again = way.run()
    assert (did(again), again.summary["requests"]["writes"]) == ({"unchanged": 4}, 0)
    back = way.ask("rollback", "--yes", "--json")
    assert (back.code, set(results(back).values())) == (0, {"deleted"})
    assert target.rows() == {}


def test_into_phoenix_and_out_again_everything_is_as_it_was(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    hundreds(registry, 6)
    to_phoenix(tmp_path, registry, Phoenix(phoenix.url)).run()
    out = tmp_path / "out"
    out.mkdir()
    copy = Portkey(registry, "copy")
    rewrite = {"name": "{name}", "provider": {"OPENAI": PROVIDER}}
    back = route(out, registry, Phoenix(phoenix.url), copy, rewrite=rewrite)
    ended = back.run()
    assert did(ended) == {"created": 6}, ended.err
    originals = {name.lower().replace(" ", "-"): one for name, one in Portkey(registry).prompts().items()}
    for name, one in copy.prompts().items():
        for field in ("string", "parameters", "model", "prompt_version_description"):
            assert one[field] == originals[name][field], (name, field)


def test_an_update_is_a_version_and_a_rollback_moves_the_tag_back(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    source, target = Portkey(registry), Phoenix(phoenix.url)
    for name in ("p0", "p1"):
        source.add(name, "Hello <who>")
    way = to_phoenix(tmp_path, registry, target)
    way.run()
    source.edit("p0", "Good morning <who>")
    changed = way.run()
    assert did(changed) == {"updated": 1, "unchanged": 1}
    assert target.texts() == {"p0": "Good morning <who>", "p1": "Hello <who>"}
    assert way.ask("verify").code == 0
    back = way.ask("rollback", "--yes", "--json", "--run", changed.summary["run"])
    assert (back.code, results(back)) == (0, {"p0": "restored"})
    assert target.texts() == {"p0": "Hello <who>", "p1": "Hello <who>"}
    assert len(target.versions("p0")) == 2  # no version can be taken out


def test_a_new_version_waits_until_it_is_published(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    source, target = Portkey(registry), Phoenix(phoenix.url)
    source.add("p0", "Hello <who>")
    way = to_phoenix(tmp_path, registry, target, publish=False)
    way.run()
    source.edit("p0", "Good morning <who>")
    assert did(way.run()) == {"updated": 1}
    assert target.texts() == {"p0": "Hello <who>"}
    assert way.ask("publish", "--yes").code == 0
    assert target.texts() == {"p0": "Good morning <who>"}


def test_prompts_without_the_tag_stay_published_while_a_newer_one_waits(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    """Where they stand: the newest was published until then, and no tag said so."""
    target = Phoenix(phoenix.url)
    target.add("p0", "Hello <who>")
    way = route(tmp_path, registry, target, None, mode="update", rewrite={"name": "{name}", "model": "gpt-4.1"})
    assert did(way.run()) == {"updated": 1}
    assert [one["model_name"] for one in target.versions("p0")] == ["gpt-4o", "gpt-4.1"]
    assert target.published("p0")["model_name"] == "gpt-4o"
    assert way.ask("publish", "--yes").code == 0
    assert target.published("p0")["model_name"] == "gpt-4.1"
    assert way.ask("verify").code == 0
    assert results(way.ask("rollback", "--yes", "--json")) == {"p0": "restored"}
    assert target.published("p0")["model_name"] == "gpt-4o"


def test_where_the_newest_is_published_it_is_live_at_once(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    source, target = Portkey(registry), Phoenix(phoenix.url, tag="newest")
    source.add("p0", "Hello <who>")
    way = to_phoenix(tmp_path, registry, target)
    way.run()
    assert target.tags(target.versions("p0")[0]["id"]) == set()
    source.edit("p0", "Good morning <who>")
    assert did(way.run()) == {"updated": 1}
    assert way.ask("verify").code == 0
    (tmp_path / "later").mkdir()
    refused = to_phoenix(tmp_path / "later", registry, target, publish=False).run()
    assert refused.code == 2
    assert "live at once" in refused.err


def test_what_its_provider_has_no_place_for_fails_until_it_is_accepted(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    parameters = {"temperature": 1, "seed": 3}
    registry.ask(lambda sandbox: sandbox.add_prompt("p0", "x", parameters=parameters, collection=COLLECTION))
    rewrite = {"name": "{name}", "provider": {"*": "AWS"}}
    way = to_phoenix(tmp_path, registry, Phoenix(phoenix.url), rewrite=rewrite)
    assert did(way.run()) == {"failed": 1}
    assert lines(way.ledger)[-2]["message"].startswith("parameters.seed would be lost: accept it with allow_loss")
    way = to_phoenix(tmp_path, registry, Phoenix(phoenix.url), rewrite=rewrite, allow_loss=["parameters.seed"])
    assert did(way.run()) == {"created": 1}
    assert way.ask("verify").code == 0
    assert Phoenix(phoenix.url).published("p0")["invocation_parameters"] == {"type": "aws", "aws": {"temperature": 1}}


def test_a_provider_that_phoenix_does_not_have_is_named_before_anything_is_sent(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    Portkey(registry).add("p0", "Hello <who>")
    registry.ask(lambda sandbox: sandbox.add_prompt("p1", "x", collection=COLLECTION, virtual_key=PROVIDER))
    way = to_phoenix(tmp_path, registry, Phoenix(phoenix.url), rewrite={"name": "{name}"})
    told = way.ask("check").out
    assert f"provider '{PROVIDER}' is not in the target workspace" in told
    assert Phoenix(phoenix.url).rows() == {}


# ---- what others have ------------------------------------------------------------------------------------------------


def test_what_somebody_has_of_that_name_is_never_appended_to(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    source, target = Portkey(registry), Phoenix(phoenix.url)
    for name in ("mine", "theirs"):
        source.add(name, "Hello <who>")
    target.add("theirs", "Somebody's <own>")
    before = target.versions("theirs")
    way = to_phoenix(tmp_path, registry, target)
    ended = way.run()
    assert (ended.code, did(ended)) == (1, {"created": 1, "conflicts": 1})
    assert target.versions("theirs") == before


def test_a_prompt_with_a_version_of_somebody_else_is_not_deleted(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    """Theirs landed between our look and our create: ours is the newest, and has the tag."""
    source, target = Portkey(registry), Phoenix(phoenix.url)
    source.add("p0", "Hello <who>")

    def theirs_first(method: str, path: str, number: int) -> None:
        if (method, path) == ("POST", "/v1/prompts"):
            phoenix.fault = lambda *_: None
            version = {"version": VERSION, "prompt": {"name": "p0", "metadata": {"collection": COLLECTION}}}
            phoenix.answered("POST", "/v1/prompts", {}, version)

    phoenix.fault = theirs_first
    way = to_phoenix(tmp_path, registry, target)
    assert did(way.run()) == {"created": 1}
    back = way.ask("rollback", "--yes", "--json")
    assert (back.code, results(back)) == (1, {"p0": "kept"})
    assert len(target.versions("p0")) == 2


VERSION: Final[dict[str, Any]] = {
    "model_provider": "OPENAI",
    "model_name": "gpt-4o",
    "template_type": "CHAT",
    "template_format": "MUSTACHE",
    "template": {"type": "chat", "messages": [{"role": "user", "content": "Somebody's own"}]},
    "invocation_parameters": {"type": "openai", "openai": {}},
}


def test_a_version_that_landed_twice_is_found_by_verify(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    source, target = Portkey(registry), Phoenix(phoenix.url)
    source.add("p0", "Hello <who>")
    way = to_phoenix(tmp_path, registry, target)
    way.run()
    (made,) = phoenix.of("p0")
    twice = {key: value for key, value in made.items() if key not in ("id", "name")}
    phoenix.answered("POST", "/v1/prompts/p0/versions", {}, {"version": twice})
    ended = way.ask("verify", "--json")
    assert ended.code == 3
    (found,) = ended.json["prompts"]
    assert found["fields"] == [f"second version {target.versions('p0')[1]['id']}"]


def test_labels_become_tags_but_none_publishes_by_chance(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    """Of two versions at the source the older has the label `production`, and the newer is published."""
    target = Phoenix(phoenix.url)

    prompt_id = registry.ask(lambda sandbox: sandbox.add_prompt("p0", "one", model=MODEL, collection=COLLECTION))
    (first,) = registry.call("GET", f"/prompts/{prompt_id}/versions")["data"]
    for name in ("production", "staging"):
        labels = {one["name"]: one["id"] for one in registry.call("GET", "/labels")["data"]}
        label = labels.get(name) or registry.call("POST", "/labels", {"name": name})["id"]
        registry.call("PUT", f"/prompts/{prompt_id}/versions/{first['id']}", {"label_id": label})
    registry.edit(prompt_id, string="two")
    way = to_phoenix(tmp_path, registry, target, select={"version": "all"})
    notes = [note for one in way.ask("plan", "--json").json["prompts"] for note in one["notes"]]
    assert any("says what is published there; these stay behind: production" in note for note in notes)
    assert did(way.run()) == {"created": 1}
    one, two = target.versions("p0")
    assert (target.tags(one["id"]), target.tags(two["id"])) == ({"staging"}, {"production"})


# ---- killed and unanswered -------------------------------------------------------------------------------------------


def killed(way: Route, phoenix: phoenix_server.Phoenix, method: str, path_end: str, count: int) -> None:
    """Runs it until that request has come in, and ends it with kill -9 there."""
    with started("run", way.path, cwd=way.folder, env=way.environ) as process:
        left = [count]

        def fault(asked: str, path: str, number: int) -> None:
            left[0] -= (asked, path.endswith(path_end)) == (method, True)
            if left[0] == 0:
                os.kill(process.pid, signal.SIGKILL)

        phoenix.fault = fault
        process.wait()
        phoenix.fault = lambda *_: None


def test_killed_ten_times_nothing_is_doubled_and_nothing_lost(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    target = Phoenix(phoenix.url)
    hundreds(registry)
    way = to_phoenix(tmp_path, registry, target, limits=LIMITS | {"concurrency": 4})
    for method, path_end, count in KILLS:
        killed(way, phoenix, method, path_end, count)
    for _ in range(4):
        last = way.run()
        if did(last) == {"unchanged": COUNT}:
            break
    assert did(last) == {"unchanged": COUNT}
    assert last.summary["requests"]["writes"] == 0
    whole(target)
    created = Counter(line["source_id"] for line in lines(way.ledger) if line["kind"] == "created")
    assert set(created.values()) == {1}
    assert len(created) == COUNT
    assert way.ask("verify").code == 0


def test_creates_whose_answer_is_lost_are_found_and_not_sent_again(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    target = Phoenix(phoenix.url)
    hundreds(registry)
    phoenix.lose = COUNT // 2
    way = to_phoenix(tmp_path, registry, target)
    ended = way.run()
    assert did(ended) == {"created": COUNT}, ended.err
    whole(target)
    assert way.ask("verify").code == 0


# ---- prompts that people wrote ---------------------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.exists(), reason="the collection of real prompts is not beside this checkout")
def test_every_real_prompt_arrives_or_is_refused(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    originals = [json.loads(line) for line in DATA.read_text(encoding="utf-8").split("\n") if line]

    def fill(sandbox: Sandbox) -> None:
        for number, one in enumerate(originals):
            text = one["template"] if one["kind"] == "text" else json.dumps(one["messages"], ensure_ascii=False)
            parameters = {name: value for name, value in (one["parameters"] or {}).items() if name != "model"}
            tools: dict[str, Any] = {"tools": one["tools"]} if isinstance(one["tools"], list) else {}
            sandbox.add_prompt(f"{number} {one['name']}", text, parameters=parameters, collection=COLLECTION, **tools)

    registry.ask(fill)
    target = Phoenix(phoenix.url)
    way = to_phoenix(tmp_path, registry, target)
    counts = did(way.run())
    print(counts, Counter(line["message"][:90] for line in lines(way.ledger) if line["kind"] == "failed"))
    assert sum(counts.values()) == len(originals)
    assert counts.keys() <= {"created", "failed"}
    failed = [line for line in lines(way.ledger) if line["kind"] == "failed"]
    assert {line["error"] for line in failed} <= {"loss", "untranslatable", "bad_name"}
    assert way.ask("verify").code == 0


def test_phoenix_to_files(tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix) -> None:
    target = Folder(tmp_path / "prompts")
    Phoenix(phoenix.url).add("p0", "Hello <who>")
    Phoenix(phoenix.url).add("p1", "Hello {who}", template_format="F_STRING")
    way = route(tmp_path, registry, Phoenix(phoenix.url), target)
    assert did(way.run()) == {"created": 2}
    dialects = {name: path.read_text().split("dialect: ")[1].split("\n")[0] for name, path in target.files().items()}
    assert dialects == {"p0": "phoenix", "p1": "phoenix-f-string"}
    assert way.ask("verify").code == 0
    assert did(way.run()) == {"unchanged": 2}


def test_the_write_test_says_what_the_server_does(
    tmp_path: Path, registry: Served, phoenix: phoenix_server.Phoenix
) -> None:
    way = to_phoenix(tmp_path, registry, Phoenix(phoenix.url))
    ended = way.ask("check", "--write-test")
    assert ended.code == 0, ended.err
    for said in ("its key creates prompts", "an update makes a version of its own", "the tag 'production' moves"):
        assert said in ended.out
    assert Phoenix(phoenix.url).rows() == {}
