"""Langfuse's side of the sandbox over its wire: both manners, labels, paging, races, references, faults, projects."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from yarl import URL

from engine.sandbox import LangfuseQuirks, Quirks, Sandbox, SandboxOptions, serve
from tests.e2e import started
from tests.sandbox_api import Clock

PROMPTS = "/api/public/v2/prompts"
BOTH = pytest.mark.parametrize("manner", [2, 3])
TONE = "@@@langfusePrompt:name=tone|label=production@@@"


class Api:
    """Requests with a pair of keys, and their answers: decoded, or text when it is no JSON."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.session = session
        self.sandbox = sandbox
        self.keys = (sandbox.langfuse_public_key, sandbox.langfuse_secret_key)

    async def ask(
        self, method: str, path: str = "", body: Any = None, raw: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        data = io.BytesIO(raw or b"" if body is None else json.dumps(body).encode())
        url = URL(self.sandbox.langfuse_url + PROMPTS + path, encoded=True)
        known = {"Authorization": aiohttp.encode_basic_auth(*self.keys), "Content-Type": "application/json"}
        async with self.session.request(method, url, data=data, headers=known | headers) as response:
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text

    async def get(self, path: str = "") -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def create(self, name: str = "a", **fields: Any) -> Any:
        status, answer = await self.ask("POST", body={"name": name, "prompt": "Hello {{name}}", **fields})
        assert status == 201, answer
        return answer

    async def refused(self, **fields: Any) -> Any:
        status, answer = await self.ask("POST", body={"name": "a", "prompt": "Hello {{name}}", **fields})
        assert (status, self.sandbox.langfuse_versions()) == (400, []), answer
        return answer

    async def label(self, name: str, version: int | str, *labels: str) -> tuple[int, Any]:
        return await self.ask("PATCH", f"/{quote(name, safe='')}/versions/{version}", {"newLabels": labels})

    def labels(self, name: str = "a") -> list[list[str]]:
        return [one["labels"] for one in self.sandbox.langfuse_versions(name=name)]


@asynccontextmanager
async def langfuse(prompts: int = 0, *, more: Any = None, **quirks: Any) -> AsyncIterator[Api]:
    options = SandboxOptions(prompts=prompts, langfuse=LangfuseQuirks(**quirks), **(more or {}))
    async with serve(options) as sandbox, aiohttp.ClientSession() as session:
        yield Api(session, sandbox)


# ---- creating and reading --------------------------------------------------------------------------------------------


@BOTH
async def test_what_is_created_comes_back(manner: int) -> None:
    odd = 'Grüße ☕ \u2028 "{{ name }}" ${x}\r\n\\n @@@langfusePrompt:name=gone@@@'
    config = {"model": "gpt-4o", "tools": [{"a": None, "ok": True}], "temperature": 0.2, "": [[]]}
    async with langfuse(manner=manner, more={"clock": Clock()}) as api:
        made = await api.create("a/b c", prompt=odd, config=config, labels=["production"], tags=["x", "x"])
        expected = {
            "name": "a/b c",
            "version": 1,
            "type": "text",
            "prompt": odd,
            "config": config,
            "labels": ["production", "latest"],
            "tags": ["x"],
            "isActive": None,
            "createdBy": "API",
            "projectId": api.sandbox.workspace_id(),
            "createdAt": "2027-01-15T08:00:00.000Z",
            "updatedAt": "2027-01-15T08:00:00.000Z",
        } | ({"commitMessage": None} if manner == 3 else {})
        assert made == expected | {"id": made["id"]}
        assert await api.get("/a%2Fb%20c") == made | ({"resolutionGraph": None} if manner == 3 else {})
        assert (await api.ask("GET", "/a/b%20c"))[0] == 404


@BOTH
async def test_everybody_may_ask_which_version_it_is(manner: int) -> None:
    async with langfuse(manner=manner) as api:
        async with api.session.get(f"{api.sandbox.langfuse_url}/api/public/health") as response:
            told = await response.json()
        assert (response.status, told["status"]) == (200, "OK")
        assert told["version"].startswith(f"{manner}.")


async def test_the_body_is_kept_as_a_server_in_javascript_over_postgres_keeps_it() -> None:
    async with langfuse() as api:
        made = await api.create(config={"bb": 1.0, "a": 2**60 + 1, "ab": [-0.0, 0.5, 10**400, 2**53 - 1]})
        assert json.dumps(made["config"]) == json.dumps(
            {"a": 1.152921504606847e18, "ab": [0, 0.5, None, 2**53 - 1], "bb": 1}
        )
        assert [(await api.create(config=value))["config"] for value in ("text", [1], None)] == ["text", [1], {}]


@BOTH
async def test_a_create_of_a_name_that_is_there_appends_a_version(manner: int) -> None:
    async with langfuse(manner=manner) as api:
        for text in ("one", "two", "three"):
            await api.create(prompt=text, labels=["production"] if text != "three" else [])
        assert api.labels() == [[], ["production"], ["latest"]]
        assert (await api.get("/a"))["prompt"] == "two"
        assert (await api.get("/a?version=1"))["prompt"] == "one"
        assert (await api.get("/a?label=latest"))["prompt"] == "three"
        assert (await api.get("/a?version=0&label="))["prompt"] == "two"


@BOTH
async def test_what_is_not_there_is_404_as_is_an_unlabelled_prompt(manner: int) -> None:
    async with langfuse(manner=manner) as api:
        await api.create()
        for path, which in (
            ("/a", "'a' with label 'production'"),
            ("/a?label=staging", "'a' with label 'staging'"),
            ("/a?version=2", "'a' with version 2"),
            ("/a?version=-1", "'a' with version -1"),
            ("/b?label=latest", "'b' with label 'latest'"),
        ):
            said = {"message": f"Prompt not found: {which}", "error": "LangfuseNotFoundError"}
            assert await api.ask("GET", path) == (404, said)
        for path in ("/a?version=x", "/a?version=1.5", "/a?version=1&label=latest"):
            assert (await api.ask("GET", path))[0] == 400


@BOTH
async def test_chats_keep_roles_and_contents_and_drop_other_keys_without_a_word(manner: int) -> None:
    messages = [
        {"type": "chatmessage", "role": "developer", "content": "{{x}}", "name": "n", "tool_calls": []},
        {"role": "", "content": ""},
    ]
    async with langfuse(manner=manner) as api:
        made = await api.create(type="chat", prompt=messages)
        assert made["prompt"] == [{"role": "developer", "content": "{{x}}"}, {"role": "", "content": ""}]
        assert (await api.create("empty", type="chat", prompt=[]))["prompt"] == []
        other = await api.ask("POST", body={"name": "a", "prompt": "text"})
        assert (other[0], other[1]["error"]) == (400, "InvalidRequestError")
        assert "different prompt type" in other[1]["message"]
        assert len(api.labels()) == 1


async def test_placeholders_are_of_the_newer_manner() -> None:
    messages = [{"type": "placeholder", "name": "history", "more": 1}]
    async with langfuse() as api:
        assert (await api.create(type="chat", prompt=messages))["prompt"] == [
            {"type": "placeholder", "name": "history"}
        ]
        bad = await api.ask(
            "POST", body={"name": "b", "type": "chat", "prompt": [{"type": "placeholder", "name": "1"}]}
        )
        assert bad[0] == 400
    async with langfuse(manner=2) as api:
        await api.refused(type="chat", prompt=messages)


@BOTH
@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"type": "chat", "prompt": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}, ["prompt", 0]),
        ({"type": "chat", "prompt": [{"role": "user", "content": "x"}, {"role": "user"}]}, ["prompt", 1]),
        ({"type": "chat", "prompt": ["x"]}, ["prompt", 0]),
        ({"type": "chat", "prompt": "x"}, ["prompt"]),
        ({"prompt": [{"role": "user", "content": "x"}]}, ["prompt"]),
        ({"prompt": None}, ["prompt"]),
        ({"type": "image"}, ["type"]),
        ({"name": 1}, ["name"]),
        ({"labels": ["ok", "Not Ok"]}, ["labels", 1]),
        ({"labels": ["a/b"]}, ["labels", 0]),
        ({"labels": ["ok\n"]}, ["labels", 0]),
        ({"labels": [""]}, ["labels", 0]),
        ({"labels": "production"}, ["labels"]),
        ({"tags": [1]}, ["tags", 0]),
    ],
)
async def test_what_is_not_of_the_form_is_refused_with_its_place(manner: int, fields: Any, path: Any) -> None:
    async with langfuse(manner=manner) as api:
        answer = await api.refused(**fields)
        assert answer["message"] == "Invalid request data"
        assert [issue["path"] for issue in answer["error"]] == [path]


@pytest.mark.parametrize("name", ["", "a|b", "a//b", "/a", "a/", "new", "  ", "two\nlines"])
async def test_the_newer_manner_refuses_names_that_the_older_takes(name: str) -> None:
    async with langfuse() as api:
        assert [issue["path"] for issue in (await api.refused(name=name))["error"]] == [["name"]]
    async with langfuse(manner=2) as api:
        assert (await api.create(name))["name"] == name
        assert [row["name"] for row in (await api.get())["data"]] == [name]


async def test_the_newer_manner_trims_names() -> None:
    async with langfuse() as api:
        assert (await api.create(" a b\u00a0"))["name"] == "a b"
        assert (await api.create("a b"))["version"] == 2


async def test_commit_messages_are_of_the_newer_manner_and_not_long() -> None:
    async with langfuse(manner=2) as api:
        assert "commitMessage" not in await api.create(commitMessage="x" * 501)
    async with langfuse() as api:
        for bad in (1, "x" * 501):
            assert (await api.refused(commitMessage=bad))["error"][0]["path"] == ["commitMessage"]
        assert (await api.create(commitMessage="x" * 500))["commitMessage"] == "x" * 500
    async with langfuse(commit_limit=None) as api:
        await api.create(commitMessage="x" * 501)


@BOTH
async def test_a_body_that_is_too_large_or_no_json_is_refused_in_plain_text(manner: int) -> None:
    head, tail = b'{"name": "a", "prompt": "', b'"}'
    fits = head + b"x" * (1024 * 1024 - len(head) - len(tail)) + tail
    async with langfuse(manner=manner) as api:
        assert await api.ask("POST", raw=fits + b" ") == (413, "Body exceeded 1mb limit")
        assert await api.ask("POST", raw=b'{"name": "a"') == (400, "Invalid JSON")
        assert (await api.ask("POST", raw=b"[]"))[0] == 400
        assert (await api.ask("POST"))[0] == 400
        assert api.sandbox.langfuse_versions() == []
        assert (await api.ask("POST", raw=fits))[0] == 201


# ---- labels and tags -------------------------------------------------------------------------------------------------


async def test_labels_move_to_the_version_that_claims_them_and_are_never_taken_away() -> None:
    clock = Clock()
    async with langfuse(more={"clock": clock}) as api:
        await api.create("f/a", labels=["production", "dev"])
        await api.create("f/a", labels=["staging"])
        await api.create("f/a")
        clock.now += 1
        status, answer = await api.label("f/a", 2, "production", "production")
        assert (status, answer["version"], answer["labels"]) == (200, 2, ["production", "staging"])
        assert api.labels("f/a") == [["dev"], ["production", "staging"], ["latest"]]
        assert (await api.label("f/a", 2))[1]["labels"] == ["production", "staging"]
        times = [one["updatedAt"] > one["createdAt"] for one in api.sandbox.langfuse_versions(name="f/a")]
        assert times == [True, True, False]


async def test_labels_that_cannot_be_given() -> None:
    async with langfuse() as api:
        await api.create()
        for label in ("latest", "Bad", ""):
            assert (await api.label("a", 1, label))[0] == 400
        bodies: list[Any] = [[], {}, {"newLabels": "x"}]
        for body in bodies:
            assert (await api.ask("PATCH", "/a/versions/1", body))[0] == 400
        for name, version in (("a", 2), ("a", "x"), ("b", 1)):
            status, answer = await api.label(name, version, "x")
            assert (status, answer["message"]) == (404, f"Prompt not found: {name}")
        assert api.labels() == [["latest"]]


async def test_the_older_manner_has_no_route_for_labels() -> None:
    async with langfuse(manner=2) as api:
        await api.create()
        status, page = await api.label("a", 1, "x")
        assert (status, page.startswith("<!DOCTYPE html>")) == (404, True)
        assert api.labels() == [["latest"]]


@BOTH
async def test_tags_are_those_of_the_newest_create_that_named_some(manner: int) -> None:
    async with langfuse(manner=manner) as api:
        for tags, kept in ((["x"], ["x"]), (None, ["x"]), (["y", "z"], ["y", "z"]), ([], [])):
            assert (await api.create(tags=tags))["tags"] == kept
            assert {tuple(one["tags"]) for one in api.sandbox.langfuse_versions()} == {tuple(kept)}


# ---- listing ---------------------------------------------------------------------------------------------------------


@BOTH
async def test_pages_cover_the_list_once_in_the_order_of_names(manner: int) -> None:
    names = ["z", "a/b", "A", "é", "10", "2"]
    async with langfuse(manner=manner) as api:
        for name in names:
            await api.create(name)
        pages = [await api.get(f"?page={number}&limit=4") for number in (1, 2, 3)]
        assert [[row["name"] for row in page["data"]] for page in pages] == [["10", "2", "A", "a/b"], ["z", "é"], []]
        assert pages[1]["meta"] == {"page": 2, "limit": 4, "totalPages": 2, "totalItems": 6}
        assert (await api.get())["meta"] == {"page": 1, "limit": 10, "totalPages": 1, "totalItems": 6}
        for query in ("limit=101", "limit=0", "limit=x", "page=0", "page=1.5", "page=-1", "fromUpdatedAt=today"):
            status, answer = await api.ask("GET", f"?{query}")
            assert (status, answer["error"][0]["path"]) == (400, [query.partition("=")[0]])
        assert len((await api.get("?limit=100"))["data"]) == 6


@pytest.mark.parametrize("typed", [True, False])
async def test_a_row_sums_up_the_versions_and_has_no_text(typed: bool) -> None:
    clock = Clock()
    async with langfuse(typed_rows=typed, more={"clock": clock}) as api:
        await api.create(labels=["production"], config={"n": 1}, tags=["x"])
        clock.now += 60
        await api.create(config={"n": 2}, labels=["dev"])
        (row,) = (await api.get())["data"]
        assert row == {
            "name": "a",
            "versions": [1, 2],
            "labels": ["dev", "latest", "production"],
            "tags": ["x"],
            "lastUpdatedAt": "2027-01-15T08:01:00.000Z",
            "lastConfig": {"n": 2},
        } | ({"type": "text"} if typed else {})


async def test_filters_leave_only_the_versions_that_they_mean() -> None:
    clock = Clock()
    async with langfuse(more={"clock": clock}) as api:
        await api.create("a", labels=["production"], tags=["x", "☕"], config={"n": 1})
        clock.now += 60
        await api.create("a")
        await api.create("b", labels=["production"])

        async def found(query: str) -> Any:
            page = await api.get(f"?{query}")
            assert page["meta"]["totalItems"] == len(page["data"])
            return [(row["name"], row["versions"]) for row in page["data"]]

        assert await found("name=a") == [("a", [1, 2])]
        assert await found("name=A") == []
        assert await found("label=production") == [("a", [1]), ("b", [1])]
        assert await found("label=latest") == [("a", [2]), ("b", [1])]
        assert await found(f"tag={quote('☕')}") == [("a", [1, 2])]
        assert await found("name=b&tag=x") == []
        # the first version lost `latest` to the second: that is an update of it
        assert await found("fromUpdatedAt=2027-01-15T08:01:00Z") == [("a", [1, 2]), ("b", [1])]
        assert await found("fromUpdatedAt=2027-01-15T09:01:00.001%2B01:00") == []
        assert await found("toUpdatedAt=2027-01-15T08:01:00Z") == []
        assert (await api.get("?name=a&label=production"))["data"][0]["lastConfig"] == {"n": 1}


async def test_a_late_row_is_listed_later_and_read_at_once() -> None:
    clock = Clock()
    async with langfuse(more={"clock": clock, "faults": {"late_listing": 1.0}}) as api:
        await api.create()
        assert (await api.get())["meta"]["totalItems"] == 0
        assert (await api.get("/a?label=latest"))["version"] == 1
        clock.now += 5
        assert (await api.get())["meta"]["totalItems"] == 1


# ---- races -----------------------------------------------------------------------------------------------------------


class Gathering:
    """A sleep that ends when so many sleep at once."""

    def __init__(self, many: int) -> None:
        self.barrier = asyncio.Barrier(many)

    async def __call__(self, _seconds: float) -> None:
        await self.barrier.wait()


@BOTH
async def test_of_concurrent_creates_of_one_name_one_wins(manner: int) -> None:
    async with langfuse(manner=manner, more={"sleep": Gathering(16)}) as api:
        body: Any = {"name": "a", "prompt": "x"}
        answers = await asyncio.gather(*(api.ask("POST", body=body) for _ in range(16)))
        losers = [answer for answer in answers if answer[0] != 201]
        assert len(losers) == 15
        assert len(api.sandbox.langfuse_versions()) == 1
        if manner == 2:
            said = {"message": "Internal Server Error", "error": "An unknown error occurred"}
            assert all(answer == (500, said) for answer in losers)
        else:
            message = (
                "Failed to create prompt 'a' due to unique constraint failure. This is likely due to too many"
                " concurrent prompt creations for this prompt name. Please add a delay."
            )
            assert all(answer == (400, {"message": message, "error": "InvalidRequestError"}) for answer in losers)


async def test_creates_of_different_names_and_one_after_the_other_do_not_run_into_each_other() -> None:
    async with langfuse(more={"sleep": Gathering(16)}) as api:
        made = await asyncio.gather(*(api.create(f"p{index}") for index in range(16)))
        assert {one["version"] for one in made} == {1}
    settings: list[Any] = [{}, {"create_s": 0, "more": {"sleep": Gathering(2)}}]
    for quirks in settings:
        async with langfuse(**quirks) as api:
            assert [(await api.create())["version"] for _ in range(3)] == [1, 2, 3]


# ---- references ------------------------------------------------------------------------------------------------------


async def test_references_are_kept_and_replaced_only_when_a_prompt_is_read() -> None:
    async with langfuse() as api:
        inner = await api.create("end", prompt='"$1" {{x}}')
        middle = await api.create(
            "tone", prompt="<@@@langfusePrompt:name=end|version=1@@@>", labels=["production", "dev"]
        )
        text = f"{TONE} and @@@langfusePrompt:name=tone|label=dev@@@"
        made = await api.create("outer", prompt=text, labels=["production"])
        chat = await api.create("chat", type="chat", prompt=[{"role": "system", "content": TONE}])
        assert (made["prompt"], chat["prompt"][0]["content"]) == (text, TONE)

        read = await api.get("/outer")
        assert read["prompt"] == '<"$1" {{x}}> and <"$1" {{x}}>'
        node = {"id": middle["id"], "name": "tone", "version": 1}
        leaf = {"id": inner["id"], "name": "end", "version": 1}
        assert read["resolutionGraph"] == {
            "root": {"id": made["id"], "name": "outer", "version": 1},
            "dependencies": {made["id"]: [node, node], middle["id"]: [leaf, leaf]},
        }
        assert (await api.get("/chat?label=latest"))["prompt"] == [{"role": "system", "content": '<"$1" {{x}}>'}]
        raw = await api.get("/outer?resolve=false")
        assert (raw["prompt"], raw["resolutionGraph"]) == (text, None)


async def test_an_older_server_always_resolves_and_the_oldest_never() -> None:
    async with langfuse(knows_resolve=False) as api:
        await api.create("tone", prompt="friendly", labels=["production"])
        await api.create(prompt=TONE)
        assert (await api.get("/a?label=latest&resolve=false"))["prompt"] == "friendly"
    async with langfuse(manner=2) as api:
        await api.create(prompt=TONE)
        assert (await api.get("/a?label=latest"))["prompt"] == TONE


async def test_references_that_lead_nowhere_are_refused() -> None:
    async with langfuse() as api:

        async def refused(name: str, text: str) -> str:
            status, answer = await api.ask("POST", body={"name": name, "prompt": text})
            assert status == 400
            return str(answer["message"])

        assert await refused("a", TONE) == "Prompt dependency not found: tone - label production"
        await api.create("tone", type="chat", prompt=[], labels=["production"])
        assert await refused("a", TONE) == "Prompt dependency is not a text prompt: tone - label production"
        await api.create("self", prompt="x")
        assert "Circular dependency" in await refused("self", "@@@langfusePrompt:name=self|version=1@@@")
        for depth in range(5):
            above = f"@@@langfusePrompt:name=p{depth - 1}|version=1@@@" if depth else "x"
            await api.create(f"p{depth}", prompt=above)
        assert "nesting depth" in await refused("deep", "@@@langfusePrompt:name=p4|version=1@@@")


async def test_a_reference_follows_its_label_and_a_ring_that_comes_so_is_read_only_raw() -> None:
    async with langfuse() as api:
        await api.create("tone", prompt="one", labels=["production"])
        await api.create("outer", prompt=TONE, labels=["old"])
        assert api.sandbox.add_langfuse_prompt("tone", labels=["production"])["createdBy"] == "somebody"
        assert (await api.get("/outer?label=old"))["prompt"] == "Hello {{name}}"
        await api.create("outer", prompt="new")
        await api.create("tone", prompt="@@@langfusePrompt:name=outer|label=latest@@@")
        await api.label("tone", 3, "production")
        assert await api.ask("GET", "/outer?label=old") == (
            500,
            {"message": "Internal Server Error", "error": "An unknown error occurred"},
        )
        assert (await api.get("/outer?label=old&resolve=false"))["prompt"] == TONE


# ---- deleting --------------------------------------------------------------------------------------------------------


@BOTH
async def test_delete_is_not_allowed_on_the_servers_that_were_measured(manner: int) -> None:
    async with langfuse(manner=manner) as api:
        await api.create()
        said = {"message": "Method not allowed", "error": "MethodNotAllowedError"}
        for method, path in (("DELETE", "/a"), ("PUT", "/a"), ("DELETE", "")):
            assert await api.ask(method, path) == (405, said)
        assert len(api.sandbox.langfuse_versions()) == 1


async def test_a_newer_server_deletes_versions_and_hands_latest_on() -> None:
    async with langfuse(deletes=True) as api:
        for labels in (["production"], ["dev"], []):
            await api.create(labels=labels)
        assert await api.ask("DELETE", "/a?version=3") == (204, "")
        assert api.labels() == [["production"], ["dev", "latest"]]
        assert await api.ask("DELETE", "/a?label=production") == (204, "")
        assert api.labels() == [["dev", "latest"]]
        assert (await api.create())["version"] == 3
        assert (await api.ask("DELETE", "/a?version=3&label=latest"))[0] == 400
        assert await api.ask("DELETE", "/a") == (204, "")
        assert api.sandbox.langfuse_versions() == []
        for path in ("/a", "/a?version=1"):
            status, answer = await api.ask("DELETE", path)
            assert (status, answer["message"]) == (404, "Prompt not found")


async def test_what_others_refer_to_is_not_deleted() -> None:
    async with langfuse(deletes=True) as api:
        await api.create("tone", prompt="one", labels=["production"])
        await api.create("tone", prompt="two")
        await api.create(prompt=TONE)
        assert (await api.ask("DELETE", "/tone?version=2"))[0] == 204
        status, answer = await api.ask("DELETE", "/tone")
        assert (status, "a v1 depends on tone" in answer["message"]) == (400, True)
        await api.create("chat", type="chat", prompt=[{"role": "user", "content": f"x {TONE}"}])
        assert (await api.ask("DELETE", "/a"))[0] == 204
        status, answer = await api.ask("DELETE", "/tone?version=1")
        assert (status, "chat v1 depends on tone" in answer["message"]) == (400, True)
        assert (await api.ask("DELETE", "/chat"))[0] == 204
        assert (await api.ask("DELETE", "/tone"))[0] == 204


# ---- keys, limits, faults --------------------------------------------------------------------------------------------


@BOTH
async def test_only_the_pair_of_keys_opens(manner: int) -> None:
    async with langfuse(manner=manner) as api:
        public, secret = api.keys
        other, theirs = api.sandbox.langfuse_keys("other")
        wrong = [
            aiohttp.encode_basic_auth(*pair)
            for pair in ((public, "x"), ("x", secret), (public, theirs), (other, secret), (public, api.sandbox.api_key))
        ]
        for header in (*wrong, f"Bearer {public}", "Basic %", "Basic /w==", ""):
            status, answer = await api.ask("GET", Authorization=header)
            assert (status, answer["error"]) == (401, "UnauthorizedError")
            assert secret not in answer["message"]
        async with api.session.get(f"{api.sandbox.langfuse_url}{PROMPTS}") as response:
            assert (response.status, await response.json()) == (
                401,
                {"message": "No authorization header", "error": "UnauthorizedError"},
            )


async def test_a_pair_of_keys_is_for_one_project() -> None:
    async with langfuse() as api:
        mine, theirs = api.keys, api.sandbox.langfuse_keys("other")
        assert theirs == api.sandbox.langfuse_keys("other")
        await api.create("a", prompt="mine")
        api.keys = theirs
        assert (await api.ask("GET", "/a?label=latest"))[0] == 404
        assert (await api.get())["data"] == []
        made = await api.create("a", prompt="theirs")
        assert (made["version"], made["projectId"]) == (1, api.sandbox.workspace_id("other"))
        api.keys = mine
        assert (await api.get("/a?label=latest"))["prompt"] == "mine"
        assert [one["prompt"] for one in api.sandbox.langfuse_versions("other")] == ["theirs"]


async def test_the_rate_limit_is_for_one_project_and_says_how_long() -> None:
    async with langfuse(more={"rate_limit": 1, "clock": Clock()}) as api:
        await api.get()
        status, said = await api.ask("GET")
        assert (status, "rate limit" in said) == (429, True)
        api.keys = api.sandbox.langfuse_keys("other")
        await api.get()


@pytest.mark.parametrize(
    ("fault", "status", "kept"),
    [("429", 429, 0), ("503", 503, 0), ("reset_before", 0, 0), ("reset_after", 0, 1), ("not_json", 201, 1)],
)
async def test_faults_come_before_or_after_the_change(fault: str, status: int, kept: int) -> None:
    async with langfuse() as api:
        api.sandbox.faults.plan(fault, method="POST")
        body = {"name": "a", "prompt": "x"}
        if status:
            assert (await api.ask("POST", body=body))[0] == status
        else:
            with pytest.raises(aiohttp.ClientConnectionError):
                await api.ask("POST", body=body)
        assert len(api.sandbox.langfuse_versions()) == kept
        assert api.sandbox.requests[-1] == ("POST", PROMPTS, status)


async def test_refusals_may_repeat_the_key() -> None:
    async with langfuse(more={"quirks": Quirks(echo_key=True)}) as api:
        status, answer = await api.ask("GET", "/none")
        assert (status, aiohttp.encode_basic_auth(*api.keys) in answer["message"]) == (404, True)


async def test_paths_that_are_not_there_are_pages_and_the_neighbours_stay() -> None:
    async with langfuse(prompts=3) as api:
        for path in ("/", "/a/b", "/a/versions"):
            status, page = await api.ask("GET", path)
            assert (status, page.startswith("<!DOCTYPE html>")) == (404, True)
        async with api.session.get(f"{api.sandbox.conductor_url}/prompts") as response:
            assert (response.status, (await response.json())["error"]) == (401, "INVALID_TOKEN")


# ---- the store and the library ---------------------------------------------------------------------------------------


async def test_the_library_is_small_varied_and_the_same_for_a_seed() -> None:
    libraries: list[Any] = []
    for prompts in (95, 95, 2000, 2000):
        async with langfuse(prompts, manner=2 if len(libraries) == 3 else 3, more={"seed": 7}) as api:
            libraries.append(api.sandbox.langfuse_versions())
            names = [row["name"] for row in (await api.get("?limit=100"))["data"]]
            assert len(names) == len(set(names)) == (10 if prompts == 95 else 20)
            unlabelled = [name for name in names if (await api.ask("GET", f"/{quote(name, safe='')}"))[0] == 404]
            assert 0 < len(unlabelled) < len(names) / 4
    assert libraries[0] == libraries[1]
    assert len(libraries[2]) == len(libraries[3])
    text = json.dumps(libraries[2])
    assert all(part in text for part in ("placeholder", "@@@langfusePrompt", "response_format", "look_up"))
    assert {one["type"] for one in libraries[2]} == {"text", "chat"}
    assert {one["version"] for one in libraries[2]} == {1, 2, 3}
    assert any("/" in one["name"] for one in libraries[2])
    assert "placeholder" not in json.dumps(libraries[3])


async def test_a_restart_keeps_versions_labels_and_keys(tmp_path: Path) -> None:
    more = {"store": tmp_path / "s.sqlite", "seed": 5}
    async with langfuse(10, more=more) as api:
        await api.create("\ud800 a\0", labels=["production"], tags=["x"])
        await api.label("\ud800 a\0".encode("utf-8", "replace").decode(), 1, "x")
        kept, keys = api.sandbox.langfuse_versions(), api.sandbox.langfuse_keys("other")
    async with langfuse(10, more=more | {"seed": 6}) as api:
        assert api.sandbox.langfuse_versions() == kept
        assert api.sandbox.langfuse_keys("other") == keys
        assert (await api.create("\ud800 a\0"))["version"] == 2


async def test_what_was_answered_outlives_kill_9_and_the_first_line_says_how_to_reach_it(tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    with started("sandbox", "--store", store, "--prompts", "0", cwd=tmp_path) as process:
        first = json.loads(process.first_line())
        keys = ["langfuse_public_key", "langfuse_secret_key"]
        assert list(first) == ["portkey", "conductor", "langfuse", "api_key", *keys]
        headers = {"Authorization": aiohttp.encode_basic_auth(*map(first.get, keys))}
        async with aiohttp.ClientSession(headers=headers) as session:
            for index in range(20):
                body = {"name": f"p{index:02}", "prompt": "x"}
                async with session.post(f"{first['langfuse']}{PROMPTS}", json=body) as answer:
                    assert answer.status == 201
        process.kill()
        process.wait(30)
    async with serve(SandboxOptions(store=store)) as sandbox:
        assert [one["name"] for one in sandbox.langfuse_versions()] == [f"p{index:02}" for index in range(20)]
