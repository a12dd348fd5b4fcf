"""Langfuse's side of the sandbox against an independent witness: the vendor's own SDK."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import anyio.to_thread
import pytest
from langfuse import Langfuse
from langfuse.api import Error, MethodNotAllowedError, NotFoundError, UnauthorizedError
from langfuse.api.core import ApiError

from engine.sandbox import LangfuseQuirks, Sandbox, SandboxOptions, serve

T = TypeVar("T")


@pytest.fixture
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    quirks = LangfuseQuirks(**getattr(request, "param", {}))
    async with serve(SandboxOptions(prompts=0, langfuse=quirks)) as running:
        yield running


def served(**quirks: Any) -> pytest.MarkDecorator:
    """The fixture with those manners."""
    return pytest.mark.parametrize("sandbox", [quirks], indirect=True)


EACH = pytest.mark.parametrize("sandbox", [{"manner": 2}, {"manner": 3}], indirect=True, ids=["v2", "v3"])


async def using(sandbox: Sandbox, use: Callable[[Langfuse], T], workspace: str = "main") -> T:
    """The SDK blocks: it works in a thread of its own."""
    public, secret = sandbox.langfuse_keys(workspace)

    def run() -> T:
        client = Langfuse(public_key=public, secret_key=secret, base_url=sandbox.langfuse_url, tracing_enabled=False)
        try:
            return use(client)
        finally:
            client.shutdown()

    return await anyio.to_thread.run_sync(run)


@EACH
async def test_texts_are_created_read_and_compiled(sandbox: Sandbox) -> None:
    def use(client: Langfuse) -> None:
        config = {"model": "gpt-4o", "temperature": 0.2, "tools": [{"type": "function", "function": {"name": "f"}}]}
        made = client.create_prompt(
            name="folder/greet me?", prompt="Hi {{name}} ☕", labels=["production"], tags=["x"], config=config
        )
        assert (made.name, made.version, made.labels) == ("folder/greet me?", 1, ["production", "latest"])
        read = client.get_prompt("folder/greet me?", cache_ttl_seconds=0)
        assert (read.prompt, read.config, read.tags) == ("Hi {{name}} ☕", config, ["x"])
        assert read.variables == ["name"]
        assert read.compile(name="Ada") == "Hi Ada ☕"

    await using(sandbox, use)


@EACH
async def test_chats_are_created_read_and_compiled(sandbox: Sandbox) -> None:
    def use(client: Langfuse) -> None:
        messages: list[Any] = [{"role": "system", "content": "Be {{how}}"}, {"role": "user", "content": "{{question}}"}]
        client.create_prompt(name="chat", type="chat", prompt=messages, labels=["production"])
        read = client.get_prompt("chat", type="chat", cache_ttl_seconds=0)
        assert read.compile(how="brief", question="Why?") == [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "Why?"},
        ]

    await using(sandbox, use)


async def test_placeholders_are_filled_in(sandbox: Sandbox) -> None:
    def use(client: Langfuse) -> None:
        messages: list[Any] = [{"role": "system", "content": "Be brief"}, {"type": "placeholder", "name": "history"}]
        client.create_prompt(name="chat", type="chat", prompt=messages, labels=["production"])
        read = client.get_prompt("chat", type="chat", cache_ttl_seconds=0)
        assert read.compile(history=[{"role": "user", "content": "before"}]) == [
            {"role": "system", "content": "Be brief"},
            {"role": "user", "content": "before"},
        ]

    await using(sandbox, use)


async def test_versions_and_labels(sandbox: Sandbox) -> None:
    def use(client: Langfuse) -> None:
        for number in (1, 2, 3):
            made = client.create_prompt(name="f/a", prompt=f"text {number}", commit_message=f"change {number}")
            assert (made.version, made.commit_message) == (number, f"change {number}")
        with pytest.raises(NotFoundError):
            client.get_prompt("f/a", cache_ttl_seconds=0)
        changed = client.update_prompt(name="f/a", version=2, new_labels=["production", "staging"])
        assert (changed.version, changed.labels) == (2, ["production", "staging"])
        assert client.get_prompt("f/a", cache_ttl_seconds=0).prompt == "text 2"
        assert client.get_prompt("f/a", version=1, cache_ttl_seconds=0).commit_message == "change 1"
        assert client.get_prompt("f/a", label="latest", cache_ttl_seconds=0).version == 3
        client.update_prompt(name="f/a", version=3, new_labels=["production"])
        assert client.get_prompt("f/a", cache_ttl_seconds=0).version == 3
        with pytest.raises(Error):
            client.update_prompt(name="f/a", version=1, new_labels=["latest"])

    await using(sandbox, use)
    labels = [one["labels"] for one in sandbox.langfuse_versions(name="f/a")]
    assert labels == [[], ["staging"], ["production", "latest"]]


@served(manner=2)
async def test_the_older_server_has_no_labels_to_change_and_drops_commit_messages(sandbox: Sandbox) -> None:
    def use(client: Langfuse) -> None:
        made = client.create_prompt(name="a", prompt="x", commit_message="lost")
        assert made.commit_message is None
        with pytest.raises(ApiError) as error:
            client.update_prompt(name="a", version=1, new_labels=["production"])
        assert error.value.status_code == 404

    await using(sandbox, use)


async def test_the_list_is_read_page_by_page(sandbox: Sandbox) -> None:
    for index in range(5):
        sandbox.add_langfuse_prompt(f"p{index}", labels=["production"] if index % 2 else [])

    def use(client: Langfuse) -> None:
        pages = [client.api.prompts.list(page=number, limit=2) for number in (1, 2, 3)]
        assert [row.name for page in pages for row in page.data] == [f"p{index}" for index in range(5)]
        assert (pages[0].meta.total_pages, pages[0].meta.total_items) == (3, 5)
        assert (pages[0].data[1].versions, pages[0].data[1].labels) == ([1], ["latest", "production"])
        found = client.api.prompts.list(label="production", from_updated_at=pages[0].data[0].last_updated_at)
        assert [row.name for row in found.data] == ["p1", "p3"]
        with pytest.raises(Error):
            client.api.prompts.list(limit=101)

    await using(sandbox, use)


async def test_references_are_replaced_or_left_as_asked(sandbox: Sandbox) -> None:
    text = "@@@langfusePrompt:name=tone|label=production@@@ {{x}}"
    sandbox.add_langfuse_prompt("tone", prompt="Be kind.", labels=["production"])

    def use(client: Langfuse) -> None:
        client.create_prompt(name="a", prompt=text, labels=["production"])
        assert client.get_prompt("a", cache_ttl_seconds=0).compile(x="Now.") == "Be kind. Now."
        raw = client.api.prompts.get("a", resolve=False)
        assert (raw.prompt, raw.resolution_graph) == (text, None)
        resolved = client.api.prompts.get("a")
        assert resolved.resolution_graph is not None
        assert resolved.resolution_graph["root"]["name"] == "a"

    await using(sandbox, use)


@EACH
async def test_delete_is_not_allowed(sandbox: Sandbox) -> None:
    sandbox.add_langfuse_prompt("a")

    def use(client: Langfuse) -> None:
        with pytest.raises(MethodNotAllowedError):
            client.api.prompts.delete("a")

    await using(sandbox, use)


@served(deletes=True)
async def test_a_newer_server_deletes(sandbox: Sandbox) -> None:
    for name in ("a", "a", "b"):
        sandbox.add_langfuse_prompt(name)

    def use(client: Langfuse) -> None:
        client.api.prompts.delete("a", version=2)
        client.api.prompts.delete("b")

    await using(sandbox, use)
    assert [(one["name"], one["version"]) for one in sandbox.langfuse_versions()] == [("a", 1)]


@EACH
async def test_what_is_refused_is_told_by_the_class_of_its_error(sandbox: Sandbox) -> None:
    def use(client: Langfuse) -> None:
        client.create_prompt(name="a", prompt="x")
        parts: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
        with pytest.raises(ValueError, match="validation error"):
            client.create_prompt(name="b", type="chat", prompt=parts)
        with pytest.raises(Error, match="different prompt type"):
            client.create_prompt(name="a", type="chat", prompt=[])
        with pytest.raises(ApiError) as error:
            client.create_prompt(name="b", prompt="x" * 1024 * 1024)
        assert (error.value.status_code, error.value.body) == (413, "Body exceeded 1mb limit")

    await using(sandbox, use)


async def test_projects_are_apart(sandbox: Sandbox) -> None:
    await using(sandbox, lambda client: client.create_prompt(name="a", prompt="mine", labels=["production"]))

    def use(client: Langfuse) -> None:
        with pytest.raises(NotFoundError):
            client.get_prompt("a", cache_ttl_seconds=0)
        assert client.create_prompt(name="a", prompt="theirs", labels=["production"]).version == 1
        assert client.get_prompt("a", cache_ttl_seconds=0).prompt == "theirs"

    await using(sandbox, use, "other")


async def test_wrong_keys_are_told(sandbox: Sandbox) -> None:
    def use() -> None:
        client = Langfuse(public_key="pk-wrong", secret_key="x", base_url=sandbox.langfuse_url, tracing_enabled=False)
        with pytest.raises(UnauthorizedError):
            client.api.prompts.list()
        client.shutdown()

    await anyio.to_thread.run_sync(use)


async def test_the_whole_library_is_loaded_and_compiled() -> None:
    async with serve(SandboxOptions(prompts=200)) as sandbox:

        def use(client: Langfuse) -> int:
            rows = client.api.prompts.list(limit=100).data
            for row in rows:
                for version in row.versions:
                    prompt = client.get_prompt(row.name, version=version, cache_ttl_seconds=0)
                    values = dict.fromkeys(prompt.variables, "VALUE")
                    assert "{{" not in str(prompt.compile(**values))
            return sum(len(row.versions) for row in rows)

        assert await using(sandbox, use) == len(sandbox.langfuse_versions()) > 20
