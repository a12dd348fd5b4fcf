"""What a connector asks of MLflow's prompt registry, in this process: fast, and as rude as a test wants it.

Held to the real one by tests/real: the same tests run against both.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any, Final, TypeVar

from aiohttp import web

from tests.forks import PATIENCE_S

API: Final = "/api/2.0/mlflow/"
IS_PROMPT: Final = "mlflow.prompt.is_prompt"
LONGEST: Final = 100_000

T = TypeVar("T")
Item = dict[str, Any]
Spoil = Callable[[str, Item], Awaitable[web.StreamResponse | None]]
"""Path and body or query of a request that has been carried out, if `late`, or that comes in."""


class Refusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


async def as_it_is(_path: str, _given: Item) -> None:
    return None


@dataclass
class MlflowServer:
    """`early` may answer a request before anything is done, `late` instead of what was done."""

    port: int = 0
    models: dict[str, Item] = field(default_factory=dict)
    requests: list[tuple[str, str, Item]] = field(default_factory=list)
    early: Spoil = as_it_is
    late: Spoil = as_it_is
    clock: int = 1_700_000_000_000

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def calls(self) -> list[str]:
        """Method and path of what was asked since the last time this was asked."""
        found = [f"{method} {path}" for method, path, _ in self.requests]
        self.requests.clear()
        return found

    def texts(self, name: str) -> list[str]:
        """Of every version, oldest first."""
        return [version["tags"]["mlflow.prompt.text"] for version in self.models[name]["versions"].values()]

    def plant(self, name: str, *texts: str, **tags: str) -> None:
        """A prompt with these versions, as its own client would make it."""
        if name not in self.models:
            self.do("registered-models/create", {"name": name, "tags": sent({IS_PROMPT: "true"})})
        for text in texts:
            given = {IS_PROMPT: "true", "mlflow.prompt.text": text, "_mlflow_prompt_type": "text", **tags}
            self.do("model-versions/create", {"name": name, "source": "dummy-source", "tags": sent(given)})

    # ---- what it does ------------------------------------------------------------------------------------------------

    def do(self, path: str, given: Item) -> Item:
        self.clock += 1
        return {
            "registered-models/create": self._create,
            "registered-models/get": lambda one: {"registered_model": self._row(self._model(one))},
            "registered-models/search": self._search,
            "registered-models/alias": self._alias,
            "registered-models/set-tag": lambda one: self._set_tag(self._model(one), one),
            "registered-models/delete": self._delete,
            "model-versions/create": self._add,
            "model-versions/get": lambda one: {"model_version": self._shown(self._version(one))},
            "model-versions/search": self._search_versions,
            "model-versions/set-tag": lambda one: self._set_tag(self._version(one), one),
            "model-versions/update": self._describe,
            "model-versions/delete": self._delete_version,
        }[path](given)

    def _create(self, given: Item) -> Item:
        name, tags = given.get("name"), kept(given)
        if not isinstance(name, str) or not name.isprintable() or {*"/:"} & {*name}:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", f"Invalid model name {name!r}.")
        if name in self.models:
            told = "Prompt" if IS_PROMPT in self.models[name]["tags"] else "taken by a registered model; Prompt"
            raise Refusal(400, "RESOURCE_ALREADY_EXISTS", f"{told} (name={name}) already exists.")
        new = {"name": name, "description": given.get("description"), "tags": tags, "created": self.clock}
        self.models[name] = {**new, "versions": {}, "aliases": {}, "last": 0}
        return {"registered_model": self._row(self.models[name])}

    def _add(self, given: Item) -> Item:
        model, tags = self._model(given), kept(given)
        if given.get("source") not in ("dummy-source", "prompt-template") or IS_PROMPT not in tags:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", "Prompt sources must use an MLflow placeholder.")
        model["last"] += 1
        number = str(model["last"])
        model["versions"][number] = {
            "name": given["name"],
            "version": number,
            "description": given.get("description") or "",
            "tags": tags,
            "source": given["source"],
            "current_stage": "None",
            "status": "READY",
            "creation_timestamp": self.clock,
        }
        return {"model_version": self._shown(model["versions"][number])}

    def _alias(self, given: Item) -> Item:
        if not re.fullmatch(r"[\w-]+", given["alias"]) or re.fullmatch(r"(?i)latest|v\d+", given["alias"]):
            raise Refusal(400, "INVALID_PARAMETER_VALUE", f"Invalid alias name: {given['alias']!r}.")
        self._version(given)
        self._model(given)["aliases"][given["alias"]] = given["version"]
        return {}

    def _set_tag(self, there: Item, given: Item) -> Item:
        there["tags"] |= kept({"tags": [given]})
        return {}

    def _describe(self, given: Item) -> Item:
        self._version(given)["description"] = given["description"]
        return {}

    def _delete(self, given: Item) -> Item:
        self._model(given)
        del self.models[given["name"]]
        return {}

    def _delete_version(self, given: Item) -> Item:
        self._version(given)
        model = self._model(given)
        del model["versions"][given["version"]]
        model["aliases"] = {alias: on for alias, on in model["aliases"].items() if on != given["version"]}
        return {}

    def _search(self, given: Item) -> Item:
        if f"tags.`{IS_PROMPT}` = 'true'" not in given.get("filter", ""):
            return {}
        found = [self._row(one) for _, one in sorted(self.models.items()) if IS_PROMPT in one["tags"]]
        return self._page("registered_models", found, given)

    def _search_versions(self, given: Item) -> Item:
        name = re.match(r"name = (['\"])(.*?)\1 AND", given["filter"])
        assert name
        model = self.models.get(name[2], {"versions": {}})
        return self._page("model_versions", [self._shown(one) for one in model["versions"].values()], given)

    def _page(self, what: str, found: list[Item], given: Item) -> Item:
        begin = json.loads(b64decode(given["page_token"]))["offset"] if "page_token" in given else 0
        end = begin + int(given["max_results"])
        more = {"next_page_token": b64encode(json.dumps({"offset": end}).encode()).decode()} if end < len(found) else {}
        return ({what: found[begin:end]} if found[begin:end] else {}) | more

    def _model(self, given: Item) -> Item:
        if (found := self.models.get(given["name"])) is None:
            message = f"Registered Model with name={given['name']} not found"
            raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", message)
        return found

    def _version(self, given: Item) -> Item:
        found: Item | None = self._model(given)["versions"].get(given["version"])
        if found is None:
            raise Refusal(404, "RESOURCE_DOES_NOT_EXIST", f"Model Version (version={given['version']}) not found")
        return found

    def _row(self, model: Item) -> Item:
        row: Item = {"name": model["name"], "creation_timestamp": model["created"], "tags": sent(model["tags"])}
        newest = [self._shown(one) for one in [*model["versions"].values()][-1:]]
        aliases = [{"alias": alias, "version": on} for alias, on in model["aliases"].items()]
        told = {"description": model["description"], "latest_versions": newest, "aliases": aliases}
        return row | {name: value for name, value in told.items() if value}

    def _shown(self, version: Item) -> Item:
        return {**version, "tags": sent(version["tags"])}

    # ---- the wire ----------------------------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix(API)
        given: Item = await request.json() if request.can_read_body else dict(request.query)
        self.requests.append((request.method, path, given))
        if (spoiled := await self.early(path, given)) is not None:
            return spoiled
        try:
            done, status = self.do(path, given), 200
        except Refusal as no:
            done, status = {"error_code": no.code, "message": no.message}, no.status
        return await self.late(path, given) or web.json_response(done, status=status)


def sent(tags: dict[str, str]) -> list[Item]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def kept(given: Item) -> dict[str, str]:
    tags = {tag["key"]: tag["value"] for tag in given.get("tags", ())}
    for key, value in tags.items():
        bad = not re.fullmatch(r"[/\w.\- :]+", key) or normpath(key) != key or key.startswith(("..", "/")) or key == "."
        if bad or len(key) > 250 or len(value) > LONGEST:
            raise Refusal(400, "INVALID_PARAMETER_VALUE", f"{key}: not a tag, or exceeds the maximum length")
    return {key: "" if re.search("[\ud800-\udfff]", value) else value for key, value in tags.items()}


@asynccontextmanager
async def serve_mlflow() -> AsyncIterator[MlflowServer]:
    """A server without prompts, for as long as the block."""
    server = MlflowServer()
    app = web.Application(client_max_size=2**30)
    app.router.add_route("*", "/{any:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()


class ServedMlflow:
    """A server on a thread and loop of its own, so that it answers while a test waits for a process."""

    def __init__(self, server: MlflowServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server, self._loop = server, loop
        self.url = server.url

    def ask(self, question: Callable[[MlflowServer], T]) -> T:
        """The answer of the server, on its own thread."""

        async def answer() -> T:
            return question(self._server)

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(PATIENCE_S)


@contextmanager
def served_mlflow() -> Iterator[ServedMlflow]:
    """A server without prompts, on a thread."""
    ready: Future[ServedMlflow] = Future()
    done: list[asyncio.Event] = []

    async def main() -> None:
        async with serve_mlflow() as server:
            done.append(asyncio.Event())
            ready.set_result(ServedMlflow(server, asyncio.get_running_loop()))
            await done[0].wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    found = ready.result(PATIENCE_S)
    try:
        yield found
    finally:
        found._loop.call_soon_threadsafe(done[0].set)
        thread.join(PATIENCE_S)
