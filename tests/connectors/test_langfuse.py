"""Langfuse's connector against the stand-in of both generations, on a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest

from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.langfuse.dialect import LANGFUSE, NAMES
from engine.connectors.langfuse.listing import walk
from engine.content.digest import differences, make_replica
from engine.content.translate import translate
from engine.errors import Gone, Rejected, Stop
from engine.model import Created, Failed, Outcome, Prompt, Target, Unknown, Updated
from engine.sandbox import LangfuseQuirks, Sandbox, SandboxOptions, serve
from tests import ends
from tests.workspaces import REGISTRY

CHAT = [{"role": "system", "content": "You are {{who}}."}, {"role": "user", "content": "{{q}} ☕"}]


@dataclass(frozen=True, slots=True)
class Place:
    sandbox: Sandbox
    target: Target

    def plant(self, name: str, **fields: Any) -> dict[str, Any]:
        return self.sandbox.add_langfuse_prompt(name, **fields)

    def versions(self, name: str) -> list[dict[str, Any]]:
        return self.sandbox.langfuse_versions(name=name)

    def labels(self, name: str) -> list[list[str]]:
        return [sorted(one["labels"]) for one in self.versions(name)]


@asynccontextmanager
async def place(published_by: str = "production", **quirks: Any) -> AsyncIterator[Place]:
    async with serve(SandboxOptions(prompts=0, langfuse=LangfuseQuirks(**quirks))) as sandbox:
        keys = (sandbox.langfuse_public_key, sandbox.langfuse_secret_key)
        end = ends.langfuse(sandbox.langfuse_url, keys, published_by)
        async with REGISTRIES["langfuse"].connect(end, ends.opening()) as target:
            yield Place(sandbox, target)


BOTH = pytest.mark.parametrize("manner", [2, 3])


def prompt(name: str = "a", **fields: Any) -> Prompt:
    return Prompt(**{"id": "p1", "name": name, "text": "Hello {{name}}", "dialect": "langfuse", **fields})


def body_of(target: Target, one: Prompt, *, source: Prompt | None = None) -> bytes:
    replica = make_replica(source or one, one, migration="m", registry=REGISTRY)
    return target.encode(replica)


async def nothing() -> None:
    """An intent that nobody keeps."""


async def made(where: Place, one: Prompt, **more: Any) -> Outcome:
    (outcome,) = await where.target.create([body_of(where.target, one, **more)], nothing)
    return outcome


async def updated(where: Place, one: Prompt, changed: Sequence[str] | None = None) -> Outcome:
    replica = make_replica(one, one, migration="m", registry=REGISTRY)
    return await where.target.update(one.name, where.target.encode_update(replica, changed), nothing)


# ---- which version ---------------------------------------------------------------------------------------------------


@BOTH
async def test_the_label_says_which_version_is_published(manner: Any) -> None:
    async with place(manner=manner) as where:
        where.plant("a/b c?", prompt="one", labels=["production", "team"])
        where.plant("a/b c?", prompt="two", labels=["dev"])
        where.plant("never", prompt="draft")
        published = await where.target.fetch("a/b c?")
        assert (published.text, published.version, published.labels, published.notes) == ("one", "1", ("team",), ())
        assert (await where.target.fetch("a/b c?", "latest")).text == "two"
        assert (await where.target.fetch("a/b c?", "2")).labels == ("dev",)
        (note,) = (await where.target.fetch("never")).notes
        assert "no version has the label 'production'" in note
        assert (await where.target.fetch("never")).text == "draft"
        history = await where.target.versions("a/b c?")
        assert [(one.ref, one.ordinal, tuple(one.labels)) for one in history] == [
            ("1", 1, ("team",)),
            ("2", 2, ("dev",)),
        ]
        for missing in ("0", "3", "x", "1.0"):
            with pytest.raises(Gone):
                await where.target.fetch("a/b c?", missing)
        with pytest.raises(Gone):
            await where.target.versions("nothing")


async def test_another_label_publishes_and_production_is_then_one_like_others() -> None:
    async with place("live") as where:
        where.plant("a", prompt="one", labels=["live"])
        where.plant("a", prompt="two", labels=["production"])
        assert (await where.target.fetch("a")).text == "one"
        assert (await where.target.fetch("a", "latest")).labels == ("production",)
        catalog = await where.target.catalog({"labels"})
        assert [one.name for one in catalog.labels or ()] == ["production"]


async def test_the_newest_is_published_where_no_label_is_to_say_so() -> None:
    async with place("newest") as where:
        assert not where.target.can.stages
        assert isinstance(await made(where, prompt()), Created)
        assert where.labels("a") == [["latest"]]
        assert isinstance(await updated(where, prompt(text="two")), Updated)
        assert (await where.target.fetch("a")).text == "two"
        await where.target.publish("a", "2")
        with pytest.raises(Rejected, match="2 is newer"):
            await where.target.publish("a", "1")


async def test_an_update_is_staged_and_published_by_moving_the_label() -> None:
    async with place() as where:
        await made(where, prompt())
        assert await updated(where, prompt(text="two")) == Updated(version_id="2")
        assert (await where.target.fetch("a")).text == "Hello {{name}}"
        await where.target.publish("a", "2")
        await where.target.publish("a", "2")
        assert (await where.target.fetch("a")).text == "two"
        assert where.labels("a") == [[], ["latest", "production"]]


async def test_an_update_of_what_nobody_published_is_not_live_at_once() -> None:
    async with place() as where:
        where.plant("a", prompt="as it was")
        await updated(where, prompt(text="two"))
        assert (await where.target.fetch("a")).text == "as it was"
        assert where.labels("a") == [["production"], ["latest"]]


async def test_labels_come_with_the_create_and_move_later() -> None:
    async with place() as where:
        source = prompt(labels=("team", "production", "latest", "Not Here"))
        await made(where, prompt(), source=source)
        assert where.labels("a") == [["latest", "production", "team"]]
        await updated(where, prompt(text="two"))
        before = len(where.sandbox.requests)
        for label in source.labels:
            await where.target.label("a", "1", await where.target.create_label(label))
        assert len(where.sandbox.requests) == before  # all that can be there is there
        for label in source.labels:
            await where.target.label("a", "2", label)
        assert where.labels("a") == [["production"], ["latest", "team"]]  # never published by chance


async def test_a_server_of_the_second_generation_says_what_it_cannot_do() -> None:
    async with place(manner=2) as where:
        notes = " ".join((await where.target.catalog(set())).notes)
        assert "is 2.95" in notes
        assert "moves no labels" in notes
        await made(where, prompt(description="why", labels=()), source=prompt(labels=("team",)))
        assert (await where.target.fetch("a")).description == "why"
        await where.target.label("a", "1", "team")
        await updated(where, prompt(text="two"))
        for write in (where.target.publish("a", "2"), where.target.label("a", "2", "team")):
            with pytest.raises(Rejected, match=r"moves no labels over its API.*on version 2"):
                await write
        await where.target.publish("a", "1")  # it is there already
        where.plant("b", prompt="draft")
        refused = await updated(where, prompt("b"))
        assert isinstance(refused, Failed)
        assert len(where.versions("b")) == 1


async def test_what_is_not_deleted_is_said() -> None:
    async with place() as where:
        await made(where, prompt())
        with pytest.raises(Rejected, match="deletes no prompts over its API"):
            await where.target.delete("a")
    async with place(deletes=True) as where:
        await made(where, prompt())
        await where.target.delete("a")
        with pytest.raises(Gone):
            await where.target.delete("a")


@pytest.mark.parametrize("quirks", [{"manner": 2}, {"manner": 3}, {"deletes": True}], ids=str)
async def test_a_write_test_leaves_at_most_one_prompt(quirks: dict[str, Any]) -> None:
    async with place(**quirks) as where:
        for _ in range(2):
            findings = [one async for one in where.target.write_test(None)]
            assert not [one for one in findings if one.level == "problem"]
        left = {one["name"] for one in where.sandbox.langfuse_versions()}
        assert left == (set() if "deletes" in quirks else {"promptferry-write-test"})
        said = " ".join(one.text for one in findings)
        assert ("rollback can delete no replica" in said) is ("deletes" not in quirks)
        assert ("moves no labels" in said) is (quirks.get("manner") == 2)


# ---- what a prompt holds ---------------------------------------------------------------------------------------------

FULL: dict[str, Any] = {
    "text": json.dumps(CHAT, ensure_ascii=False),
    "model": "gpt-4o",
    "provider": "openai-prod",
    "collection": "support",
    "parameters": {
        "temperature": 0.1,
        "response_format": {"type": "json_object"},
        "stop": ["a"],
        # names that stand for something else in the config
        **{name: {"its": "own"} for name in ("model", "tools", "metadata", "parameters", "description", "promptferry")},
    },
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "aa": 2, "a": 1.5e300}}}],
    "tool_choice": "auto",
    "functions": [{"name": "g"}],
    "metadata": {"tags": ["x", "Y z"], "owner": {"team": ["ops", None, 0.1]}},
    "description": "why it is so ☕",
}


@BOTH
@pytest.mark.parametrize("looked", [False, True], ids=["unknown server", "known server"])
async def test_everything_arrives_whatever_the_server_is(manner: Any, looked: bool) -> None:
    async with place(manner=manner) as where:
        if looked:
            await where.target.catalog(set())
        assert isinstance(await made(where, prompt(**FULL)), Created)
        found = await where.target.fetch("a")
        assert differences(prompt(**FULL), found) == ()
        assert found.variables == {"who", "q"}
        assert not found.extra
        assert not found.notes
        (version,) = where.versions("a")
        assert (version["type"], version["prompt"], version["tags"]) == ("chat", CHAT, ["x", "Y z"])
        told = (version["config"]["model"], version["config"]["temperature"], version["config"]["tool_choice"])
        assert told == ("gpt-4o", 0.1, "auto")
        assert (version.get("commitMessage") == FULL["description"]) is (looked and manner == 3)


@pytest.mark.parametrize("metadata", [{"tags": []}, {"tags": ["a", "a"]}, {"tags": "a"}, {"tags": ["a", 1]}, {}])
async def test_what_is_no_list_of_tags_stays_what_it_is(metadata: dict[str, Any]) -> None:
    async with place() as where:
        await made(where, prompt(metadata=metadata))
        found = await where.target.fetch("a")
        assert {key: value for key, value in found.metadata.items() if key != "promptferry"} == metadata
        assert where.versions("a")[0]["tags"] == []


async def test_a_description_that_is_too_long_for_a_message_stands_in_the_config() -> None:
    async with place() as where:
        await where.target.catalog(set())
        for name, description in (("short", "☕" * 500), ("long", "🧪" * 251)):
            assert isinstance(await made(where, prompt(name, description=description)), Created)
            assert (await where.target.fetch(name)).description == description
            assert (where.versions(name)[0]["commitMessage"] is None) is (name == "long")


async def test_a_partial_update_leaves_the_tags_of_all_versions_alone() -> None:
    async with place() as where:
        where.plant("a", prompt="one", tags=["x"], labels=["production"])
        await updated(where, prompt(), ["text"])
        assert [one["tags"] for one in where.versions("a")] == [["x"], ["x"]]
        await updated(where, prompt(), ["metadata"])
        assert [one["tags"] for one in where.versions("a")] == [[], [], []]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"parameters": {"seed": 2**53 + 1}}, "parameters.seed: .*doubles"),
        ({"tools": [{"n": 2**70 + 1}]}, "tools.n: .*doubles"),
        ({"metadata": {"deep": [{"n": 10**400}]}}, "metadata.deep.n: .*doubles"),
        ({"parameters": {"a\0": 1}}, "a key of config: .*NUL"),
        ({"text": "half \ud83d"}, "string: .*half of a character"),
        ({"description": "nul \0"}, "version_description: .*NUL"),
        ({"text": "x" * 2**20}, "takes 1,048,576"),
        ({"text": '[{"role": "user", "content": null}]'}, "message 1 has a content that is no text"),
        ({"text": '[{"role": "user", "content": "a"}, {"role": 1, "content": "b"}]'}, "message 2 has a role"),
        ({"text": '[{"role": "user", "content": "a", "name": "Bo"}]'}, "message 1 has name, which Langfuse drops"),
    ],
)
async def test_what_would_not_come_back_is_refused_by_name(fields: dict[str, Any], said: str) -> None:
    async with place() as where:
        with pytest.raises(Rejected, match=said):
            body_of(where.target, prompt(**fields))


@pytest.mark.parametrize("name", ["", "a|b", "/a", "a/", "a//b", " a", "a ", "new", "a\nb", ".", "..", "\u3000a", "\0"])
async def test_a_name_that_it_does_not_take_is_refused_with_what_to_do(name: str) -> None:
    assert NAMES.refuses(name)
    async with place() as where:
        with pytest.raises(Rejected, match=r"rewrite\.name"):
            body_of(where.target, prompt(name))


@pytest.mark.parametrize("name", ["folder/sub/a", 'a?b#c %41 "d" 🧪', "a" * 200, "newer", "...", "-", "a.b", "<x>"])
async def test_a_name_that_it_takes_is_its_name(name: str) -> None:
    async with place() as where:
        assert NAMES.refuses(name) is None
        outcome = await made(where, prompt(name))
        assert outcome == Created(target_id=name, version="1", version_id="1")
        assert (await where.target.fetch(name)).name == name
        assert [version.ref for version in await where.target.versions(name)] == ["1"]


NATIVE = {
    "no JSON object": ({"config": ["x"]}, {"config": ["x"]}),
    "a model that is no text": ({"config": {"model": {"name": "x"}}}, {"config.model": {"name": "x"}}),
    "metadata that is a text": ({"config": {"metadata": "x"}}, {"config.metadata": "x"}),
    "two descriptions": (
        {"config": {"description": "x"}, "commitMessage": "y"},
        {"config.description": "x"},
    ),
    "two sorts of tags": ({"config": {"metadata": {"tags": ["x"]}}, "tags": ["y"]}, {"tags": ["y"]}),
    "a text that looks like a chat": ({"prompt": json.dumps(CHAT)}, {"type": "text"}),
}


@pytest.mark.parametrize(("fields", "extra"), NATIVE.values(), ids=NATIVE)
async def test_what_has_no_place_is_a_loss_and_not_forgotten(fields: dict[str, Any], extra: dict[str, Any]) -> None:
    async with place() as where:
        where.plant("a", labels=["production"], **fields)
        assert (await where.target.fetch("a")).extra == extra


async def test_the_config_of_others_is_read_as_they_mean_it() -> None:
    async with place() as where:
        config = {"model": "m", "temperature": 1, "parameters": {"top_p": 0.5}, "tools": [{"a": 1}], "x": None}
        where.plant("a", config=config, labels=["production"])
        found = await where.target.fetch("a")
        assert (found.model, found.tools) == ("m", [{"a": 1}])
        assert found.parameters == {"temperature": 1, "top_p": 0.5, "x": None}
        where.plant("b", config={"top_p": 1, "parameters": {"top_p": 0.5}}, labels=["production"])
        assert (await where.target.fetch("b")).parameters == {"top_p": 1, "parameters": {"top_p": 0.5}}


# ---- references and placeholders -------------------------------------------------------------------------------------

REFERRING = "@@@langfusePrompt:name=Tone of voice|label=production@@@ Hello {{name}}"


async def test_references_are_kept_as_they_are_written_and_told() -> None:
    async with place() as where:
        where.plant("Tone of voice", prompt="Be kind.", labels=["production"])
        where.plant("a", prompt=REFERRING, labels=["production"])
        found = await where.target.fetch("a")
        assert found.text == REFERRING
        assert found.notes == ("it takes in the prompt 'Tone of voice' by that name, which is kept as it is written",)
        assert isinstance(await made(where, replace(found, name="b", notes=())), Created)
        assert where.versions("b")[0]["prompt"] == REFERRING


async def test_what_a_prompt_refers_to_has_to_be_there_first_and_is_waited_for() -> None:
    async with place() as where:
        early = await made(where, prompt(text=REFERRING))
        assert isinstance(early, Failed)
        assert (early.error, early.retriable) == ("dependency", True)
        assert "Tone of voice" in early.message
        assert "run it again" in early.message


async def test_a_server_that_always_puts_references_in_is_not_believed() -> None:
    async with place(knows_resolve=False) as where:
        where.plant("Tone of voice", prompt="Be kind.", labels=["production"])
        where.plant("a", prompt=REFERRING, labels=["production"])
        with pytest.raises(Rejected, match="nobody can read what was written"):
            await where.target.fetch("a")


async def test_placeholders_go_there_and_back() -> None:
    async with place() as where:
        chat = [CHAT[0], {"type": "placeholder", "name": "history"}, CHAT[1]]
        where.plant("a", type="chat", prompt=chat, labels=["production"])
        found = await where.target.fetch("a")
        assert not found.extra
        await made(where, replace(found, name="b"))
        assert where.versions("b")[0]["prompt"] == chat
        refused = translate(found, LANGFUSE, DIALECTS["portkey"]).refused
        assert any("placeholder for messages" in one for one in refused)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (REFERRING, "reference to another prompt) has no counterpart in Portkey: put the text of that prompt in"),
        ("{{a.b}}", "dot in its name"),
        ("{{#a}}x", "sign of its own"),
        ("{{{a}}}", "brace in its name"),
    ],
)
def test_what_portkey_would_read_otherwise_is_refused(text: str, says: str) -> None:
    (refused,) = translate(prompt(text=text), LANGFUSE, DIALECTS["portkey"]).refused
    assert says in refused
    assert "at the source" in refused


@pytest.mark.parametrize("text", ["Hi {{ name }}!", "{{\nname }}{{b}}", "{}}", "{a} {{customer name}}", "$5 ${x}", ""])
def test_a_text_that_means_the_same_stays_byte_for_byte(text: str) -> None:
    source = prompt(text=text, dialect="portkey")
    there = translate(source, DIALECTS["portkey"], LANGFUSE)
    assert (there.prompt.text, there.refused, there.losses) == (text, (), ())
    back = translate(there.prompt, LANGFUSE, DIALECTS["portkey"])
    assert (back.prompt.text, back.refused) == (text, ())


@pytest.mark.parametrize(
    "text", ["{{#a}}x{{/a}}", "{{>a}}", "{{! a }}", "{{{a}}}", "{{&a}}", "open {{", "@@@placeholder:a@@@", REFERRING]
)
def test_what_langfuse_would_read_otherwise_is_refused(text: str) -> None:
    assert translate(prompt(text=text, dialect="portkey"), DIALECTS["portkey"], LANGFUSE).refused


@pytest.mark.parametrize("how", [{"indent": 2}, {"separators": (",", ":")}, {"ensure_ascii": True}, {}])
@pytest.mark.parametrize("dialect", ["portkey", "langfuse"])
async def test_a_chat_is_the_same_however_it_was_spelled(how: dict[str, Any], dialect: str) -> None:
    turned = [dict(reversed(one.items())) for one in CHAT]
    source = prompt(text=json.dumps(turned, **how), dialect=dialect)
    wanted = translate(source, DIALECTS[dialect], LANGFUSE).prompt
    async with place() as where:
        await made(where, wanted)
        assert differences(wanted, await where.target.fetch("a")) == ()
        assert where.versions("a")[0]["prompt"] == CHAT


# ---- what is there already -------------------------------------------------------------------------------------------


async def test_a_create_that_landed_late_is_found_and_nothing_is_doubled() -> None:
    async with place() as where:
        body = body_of(where.target, prompt())
        await where.target.create([body], nothing)
        found = (await where.target.named(["a", "b"]))["a"]
        assert found is not None
        assert await where.target.complete("a", body, nothing) == Created(target_id="a", version="1", version_id="1")
        assert len(where.versions("a")) == 1


async def test_somebody_elses_prompt_is_not_taken_over_though_it_is_equal() -> None:
    async with place() as where:
        where.plant("a", prompt="Hello {{name}}", labels=["production"])
        calls: list[int] = []

        async def sending() -> None:
            calls.append(1)

        outcome = await where.target.complete("a", body_of(where.target, prompt()), sending)
        assert isinstance(outcome, Failed)
        assert (outcome.exists, calls) == (True, [])


async def test_a_prompt_that_the_key_may_not_read_has_its_name() -> None:
    async with place(knows_resolve=False) as where:
        where.plant("tone", prompt="x", labels=["production"])
        where.plant("a", prompt="@@@langfusePrompt:name=tone|version=1@@@", labels=["production"])
        assert await where.target.named(["a", "b"]) == {"a": None}


# ---- answers ---------------------------------------------------------------------------------------------------------


async def test_creates_of_one_name_that_meet_are_sent_again_until_they_are_through() -> None:
    async with place() as where:
        body = body_of(where.target, prompt())
        outcomes: list[Outcome] = []

        async def one() -> None:
            outcomes.extend(await where.target.create([body], nothing))

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(one)
        assert all(isinstance(outcome, Created) for outcome in outcomes)
        assert sorted(one.version for one in outcomes if isinstance(one, Created)) == ["1", "2", "3", "4"]
        assert [one.status for one in where.sandbox.requests].count(400) > 0


async def test_on_the_second_generation_such_a_create_is_in_doubt() -> None:
    async with place(manner=2) as where:
        where.sandbox.faults.plan("500", method="POST", path_end="/prompts")
        assert isinstance(await made(where, prompt()), Unknown)


async def test_a_text_that_becomes_a_chat_is_refused_with_what_to_do() -> None:
    async with place() as where:
        await made(where, prompt())
        refused = await updated(where, prompt(text=json.dumps(CHAT)))
        assert isinstance(refused, Failed)
        assert "another name with rewrite.name" in refused.message
        assert not refused.retriable
        assert len(where.versions("a")) == 1


async def test_a_form_that_the_server_refuses_is_told_by_its_path() -> None:
    async with place(manner=2) as where:
        placed = [{"role": "placeholder", "content": "@@@placeholder:history@@@"}]
        refused = await made(where, prompt(text=json.dumps(placed)))
        assert isinstance(refused, Failed)
        assert "prompt.0: Invalid input" in refused.message


async def test_a_prompt_is_not_renamed() -> None:
    async with place() as where:
        await made(where, prompt())
        replica = make_replica(prompt("b"), prompt("b"), migration="m", registry=REGISTRY)
        refused = await where.target.update("a", where.target.encode_update(replica, None), nothing)
        assert isinstance(refused, Failed)
        assert refused.error == "renamed"
        assert len(where.sandbox.langfuse_versions()) == 1


async def test_an_address_with_too_much_in_it_is_told() -> None:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        keys = (sandbox.langfuse_public_key, sandbox.langfuse_secret_key)
        end = ends.langfuse(f"{sandbox.langfuse_url}/api/public", keys)
        async with REGISTRIES["langfuse"].connect(end, ends.opening()) as target:
            with pytest.raises((Rejected, Stop)):
                async for _ in target.pages():
                    pass


async def test_keys_that_are_refused_end_the_run_and_stay_unsaid() -> None:
    async with serve(SandboxOptions(prompts=0)) as sandbox:
        end = ends.langfuse(sandbox.langfuse_url, ("pk-lf-canary", "sk-lf-canary"))
        async with REGISTRIES["langfuse"].connect(end, ends.opening()) as target:
            with pytest.raises(Stop) as caught:
                await target.fetch("a")
            assert caught.value.reason == "key_refused"
            assert "canary" not in f"{caught.value} {caught.value.__cause__}"


# ---- the listing -----------------------------------------------------------------------------------------------------


def answer(names: Sequence[str], page: int, size: int = 2) -> dict[str, Any]:
    rows = [{"name": name, "versions": [1], "labels": [], "lastUpdatedAt": "t"} for name in names]
    there = rows[size * (page - 1) : size * page]
    return {"data": there, "meta": {"page": page, "totalPages": -(-len(rows) // size), "totalItems": len(rows)}}


async def walked(states: Sequence[Sequence[str]]) -> list[str]:
    """The names that a walk finds while the n-th request meets the n-th of these states, the last one from then on."""
    left = list(states)

    async def read(parameters: Any) -> Any:
        names = left.pop(0) if len(left) > 1 else left[0]
        return answer(names, int(parameters["page"]))

    return [row["name"] for row in await walk(read)]


async def test_a_listing_that_shifts_is_noticed_and_read_again() -> None:
    # one goes from the first page, another comes at the end: as many as before, and `c` is on no page that was read
    before, after = ["a", "b", "c", "d"], ["b", "c", "d", "e"]
    assert await walked([before, after]) == after
    assert await walked([["b", "c", "d"], ["a", "b", "c", "d"]]) == before


async def test_a_listing_that_does_not_hold_still_is_refused() -> None:
    states = [[f"{number}-{one}" for one in "abcd"] for number in range(20)]
    with pytest.raises(Stop, match="did not hold still"):
        await walked(states)


@pytest.mark.parametrize("wrong", [[], {"data": []}, {"data": [{}], "meta": {"totalPages": 1, "totalItems": 1}}, "x"])
async def test_what_is_no_listing_is_not_taken_for_one(wrong: Any) -> None:
    async def read(parameters: Any) -> Any:
        return wrong

    with pytest.raises(Stop, match="nobody can tell whether it is whole"):
        await walk(read)


async def test_rows_of_one_name_that_differ_in_tags_are_one_prompt() -> None:
    rows = [
        {"name": "a", "versions": [2], "labels": ["x"], "lastUpdatedAt": "2", "lastConfig": {"new": 1}},
        {"name": "a", "versions": [1], "labels": ["y"], "lastUpdatedAt": "3", "lastConfig": {"old": 1}},
    ]

    async def read(parameters: Any) -> Any:
        return {"data": rows, "meta": {"totalPages": 1, "totalItems": 2}}

    (row,) = await walk(read)
    assert (row["versions"], row["labels"], row["lastUpdatedAt"]) == ([1, 2], ["x", "y"], "3")
    assert row["lastConfig"] == {"new": 1}


async def test_rows_tell_model_and_collection_where_they_know_it() -> None:
    async with place() as where:
        config = {"model": "m", "collection": "c"}
        where.plant("one", labels=["production"], config=config)
        where.plant("one of several", labels=["production"], config={"model": "old"})
        where.plant("one of several", config=config)
        where.plant("drafts", config={"model": "old"})
        where.plant("drafts", config=config)
        where.plant("none", labels=["production"])
        rows = {row.name: row async for page in where.target.pages() for row in page.rows}
        told = {name: (row.model, row.collection, row.whole) for name, row in rows.items()}
        assert told == {
            "one": ("m", "c", True),
            "one of several": (None, None, False),
            "drafts": ("m", "c", True),
            "none": (None, None, True),
        }
        for name, row in rows.items():  # of a draft that is newer than what is published, too
            assert (await where.target.fetch(name)).updated_at == row.updated_at
