"""How tests speak to the sandbox over its wire."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from engine.sandbox import Sandbox, SandboxOptions, serve


class Api:
    """Requests with a key, and their decoded answers."""

    def __init__(self, session: aiohttp.ClientSession, sandbox: Sandbox) -> None:
        self.session = session
        self.sandbox = sandbox
        self.key = sandbox.api_key

    async def ask(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        headers = {"x-portkey-api-key": self.key if key is None else key}
        data = None if body is None else io.BytesIO(json.dumps(body).encode())
        url = self.sandbox.base_url + path
        async with self.session.request(method, url, data=data, headers=headers) as response:
            return response.status, json.loads(await response.text())

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def post(self, path: str, body: Any) -> Any:
        status, answer = await self.ask("POST", path, body)
        assert status == 200, answer
        return answer

    async def put(self, path: str, body: Any) -> Any:
        status, answer = await self.ask("PUT", path, body)
        assert status == 200, answer
        return answer

    async def body(self, **fields: Any) -> dict[str, Any]:
        collection = (await self.get("/collections"))["data"][0]["slug"]
        known = {"name": "New", "collection_id": collection, "string": "Hi", "parameters": {}, "model": "gpt-4o"}
        return known | {"virtual_key": "openai-prod"} | fields

    async def create(self, **fields: Any) -> Any:
        return await self.post("/prompts", await self.body(**fields))


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def api(prompts: int = 0, **options: Any) -> AsyncIterator[Api]:
    async with serve(SandboxOptions(prompts=prompts, **options)) as sandbox, aiohttp.ClientSession() as session:
        yield Api(session, sandbox)


def code(answer: Any) -> str:
    return str(answer["data"]["errorCode"])


async def rendered(portkey: Api, prompt: str, variables: dict[str, Any], **overrides: Any) -> Any:
    return (await portkey.post(f"/prompts/{prompt}/render", {"variables": variables, **overrides}))["data"]
