"""JSON of a shape that no registry should send, to every call of every connector: an error of ours, never a bug."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from engine.connectors.conductor import registry as conductor
from engine.connectors.conductor.registry import Conductor
from engine.connectors.endpoint import Opening
from engine.connectors.portkey import registry as portkey
from engine.connectors.portkey.gateway import PortkeyGateway
from engine.connectors.portkey.probe import Probe
from engine.connectors.portkey.registry import KEY_HEADER, Portkey
from engine.errors import EngineError, Stop
from engine.http.limiter import RateLimiter
from engine.http.session import KeyAuth, RequestLimits, open_client
from engine.model import Finding, Row, Target, no_intent
from tests import ends
from tests.unplugged import URL, unplugged

PROMPT = {"id": "p1", "string": "Hello", "name": "a", "template": "Hello"}
ITEM = {"name": "a", "template": "Hello"}
MANY = {"data": [{"id": "p1"}], "total": 1}
SHAPES: dict[str, Any] = {
    "null": None,
    "true": True,
    "number": 7,
    "text": "x",
    "empty list": [],
    "list of null": [None],
    "list of numbers": [1],
    "list of lists": [[]],
    "list of texts": ["p1"],
    "bare rows": [{"id": "p1", "name": "a"}],
    "empty object": {},
    "message": {"message": "ok"},
    "data null": {"data": None, "total": 0},
    "data a number": {"data": 5, "total": 5},
    "data an object": {"data": {"id": "p1"}, "total": 1},
    "data of numbers": {"data": [1], "total": 1},
    "data of null": {"data": [None], "total": 1},
    "data without ids": {"data": [{}], "total": 1},
    "data without total": {"data": [{"id": "p1"}]},
    "total a text": {"data": [{"id": "p1"}], "total": "1"},
    "total true": {"data": [{"id": "p1"}], "total": True},
    "models": {"object": "list", "data": [{"id": "gpt-4o", "object": "model"}]},
    "id a number": {"id": 5, "string": "x"},
    "id empty": {"id": "", "string": "x"},
    "no text": {"id": "p1"},
    "text a number": {"id": "p1", "string": 5},
    "parameters a list": PROMPT | {"parameters": [1]},
    "parameters a text": PROMPT | {"parameters": "x"},
    "metadata a list": PROMPT | {"template_metadata": []},
    "labels a number": PROMPT | {"prompt_version_labels": 5},
    "odd components": PROMPT | {"variable_components": {"variables": 5, "sections": {"a": 1}, "sectionVariables": 7}},
    "odd version": PROMPT | {"prompt_version": "one", "version": "one"},
    "odd row": {
        "data": [{"id": "p1", "slug": 5, "name": [], "model": {}, "collection_id": [], "status": {}}],
        "total": 1,
    },
    "odd times": {"data": [{"id": "p1", "created_at": 3, "last_updated_at": {}}], "total": 1},
    "odd versions": {"data": [{"id": "v1", "prompt_version": 1, "prompt_version_labels": 5}], "total": 1},
    "tags a number": ITEM | {"tags": 5},
    "tags a text": ITEM | {"tags": "abc"},
    "tags of numbers": ITEM | {"tags": [1, None, {"key": 5}]},
    "integrations a number": ITEM | {"integrations": 7},
    "integrations of numbers": ITEM | {"integrations": [7, None]},
    "items": [ITEM | {"tags": 5, "integrations": 7, "description": 3, "version": "x", "updateTime": 10**30}],
    "early": [ITEM | {"updateTime": -(10**15), "createTime": True}],
    "numbered": [{"version": 1}],
    "not numbered": [{"version": None}],
    "template null": {"name": "a", "template": None},
}
SHAPE = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


async def no_bug(work: Awaitable[Any]) -> Any:
    try:
        return await work
    except EngineError as error:
        return error


async def all_of(several: AsyncIterator[Any]) -> list[Any]:
    return [one async for one in several]


async def every_call(target: Target) -> None:
    """Whatever a connector can be asked for."""
    pages = await no_bug(all_of(target.pages()))
    for row in [row for page in pages for row in page.rows] if isinstance(pages, list) else []:
        assert isinstance(row, Row)
        assert all(value is None or isinstance(value, str) for value in (row.slug, row.model, row.created_at, row.name))
    body = json.dumps(ITEM | {"tags": []}).encode()
    for asked in ("p1", "a"):
        await no_bug(target.fetch(asked))
        await no_bug(target.versions(asked))
        (outcome,) = await target.create([body], no_intent)
        assert outcome
        assert await target.update(asked, body, no_intent)
        assert await target.complete(asked, body, no_intent)
        await no_bug(target.named([asked]))
        for work in (
            target.publish(asked, "1"),
            target.retract(asked, "1"),
            target.label(asked, "v1", "l1"),
            target.create_label("l"),
            target.describe(asked, "d"),
            target.delete(asked),
        ):
            await no_bug(work)
    await no_bug(target.catalog({"collections", "providers", "partials", "labels"}))
    await no_bug(all_of(target.write_test(None)))


def limits() -> RequestLimits:
    return RequestLimits(timeout=5, attempts=1)


def opening(name: str) -> Opening:
    return ends.opening(name=name, gate=gate(), limits=limits(), batch=5)


def gate() -> RateLimiter:
    return RateLimiter(rate=20_000, concurrency=8)


@SHAPE
async def test_portkey(shape: Any) -> None:
    with unplugged() as registry:
        registry.value(shape)
        connect = portkey.connect(ends.portkey(URL, "key"), opening("target"))
        async with connect as target:
            await every_call(target)


@SHAPE
async def test_conductor(shape: Any) -> None:
    with unplugged() as registry:
        registry.value({"token": "a-token"}, path="/token")
        registry.value(shape)
        connect = conductor.connect(ends.conductor(URL, "secret"), opening("target"))
        async with connect as target:
            await every_call(target)


@SHAPE
async def test_a_token(shape: Any) -> None:
    with unplugged() as registry:
        registry.value(shape)
        await _listed_by_conductor()


@pytest.mark.parametrize("token", ["", " ", "a b", "a\nb", "a\r\nX: y", "\0", "ä", 5, None, {"token": "x"}])
async def test_what_is_no_token_is_put_in_no_header(token: Any) -> None:
    with unplugged() as registry:
        registry.value({"token": token}, path="/token")
        registry.value([])
        assert isinstance(await _listed_by_conductor(), Stop)
        assert [url.rpartition("/")[2] for _, url, _ in registry.sent] == ["token"]


async def _listed_by_conductor() -> Any:
    connect = conductor.connect(ends.conductor(URL, "secret"), opening("target"))
    async with connect as target:
        return await no_bug(all_of(target.pages()))


@SHAPE
async def test_the_write_test_of_portkey(shape: Any) -> None:
    """It says that it could not go on, and still looks for what it may have made."""
    await _probed(lambda registry: registry.value(shape))


@SHAPE
async def test_the_write_test_of_portkey_after_its_create(shape: Any) -> None:
    """The create is answered well, and everything after it is not."""

    def answers(registry: Any) -> None:
        registry.answer(body=b'{"id":"p1"}', path="/prompts", method="POST")
        registry.value(shape)

    await _probed(answers)


async def _probed(answers: Callable[[Any], None]) -> None:
    async def sleep(_seconds: float) -> None:
        """Nothing will come of waiting."""

    with unplugged() as registry:
        answers(registry)
        async with open_client(URL, KeyAuth(KEY_HEADER, "key"), gate(), limits(), name="target") as client:
            found: list[Finding] = await all_of(Probe(client, {}, "c1", None, "m", sleep).run())
    assert [finding for finding in found if finding.level == "problem"]


@SHAPE
async def test_a_gateway(shape: Any) -> None:
    with unplugged() as registry:
        registry.value(shape)
        async with open_client(URL, KeyAuth(KEY_HEADER, "key"), gate(), limits(), name="gateway") as client:
            gateway = PortkeyGateway(client)
            await no_bug(gateway.render("p1", {}))
            await no_bug(gateway.complete("p1", {}, stream=False, overrides={}))
            await no_bug(gateway.models())
            await no_bug(gateway.attempt("p", {"model": "m"}))


@pytest.mark.parametrize("shape", [[], {"message": "ok"}, None, "ok", {"data": [{"id": "gpt-4o"}]}, [1], [[]]], ids=str)
async def test_another_api_is_not_taken_for_an_empty_registry(shape: Any) -> None:
    with unplugged() as registry:
        registry.value(shape)
        connect = portkey.connect(ends.portkey(URL, "key"), opening("source"))
        async with connect as source:
            error = await no_bug(all_of(source.pages()))
    assert isinstance(error, Stop)
    assert (error.reason, error.exit_code) == ("check_failed", 4)
    assert "base_url" in error.next


async def test_bare_rows_are_read_by_a_write_test_as_by_a_walk() -> None:
    with unplugged() as registry:
        registry.value(PROMPT | {"collection_id": None}, path="/prompts/p1")
        registry.value([{"id": "p1"}])
        async with open_client(URL, KeyAuth(KEY_HEADER, "key"), gate(), limits(), name="target") as client:
            (finding,) = await all_of(Portkey(client).write_test(None))
    assert "name one with --collection" in finding.text


def test_both_connectors_are_asked_for_all_they_can() -> None:
    """A method that a connector gets is asked for above."""
    asked = {"pages", "fetch", "versions", "catalog", "create", "update", "publish", "retract", "label", "create_label"}
    asked |= {"describe", "delete", "write_test", "named", "complete"}
    pure = {"encode", "encode_update"}
    parts_of_a_bulk = {"post", "found", "tag"}
    for connector in (Portkey, Conductor):
        public = {name for name, value in vars(connector).items() if callable(value) and not name.startswith("_")}
        assert public - pure - parts_of_a_bulk == asked
