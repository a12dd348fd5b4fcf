"""A field that nobody knows is a loss: that prompt fails by name, until the loss is accepted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from engine.sandbox import SandboxOptions
from tests.e2e import TIMEOUT, lines, promptferry, replicas, served, write_migration

FIELD = "guardrail_config"


@contextmanager
def between(base_url: str, change: Callable[[dict[str, Any]], None]) -> Iterator[str]:
    """The address of a proxy before that registry, which changes the JSON of every answer to a GET of one prompt."""
    ready: Future[tuple[str, Callable[[], object]]] = Future()

    async def main() -> None:
        done = asyncio.Event()
        async with aiohttp.ClientSession() as session:
            app = web.Application()
            app.router.add_route("*", "/{rest:.*}", _forward(session, base_url, change))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            loop = asyncio.get_running_loop()
            port = runner.addresses[0][1]
            ready.set_result((f"http://127.0.0.1:{port}/v1", lambda: loop.call_soon_threadsafe(done.set)))
            await done.wait()
            await runner.cleanup()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    address, stop = ready.result(TIMEOUT)
    try:
        yield address
    finally:
        stop()
        thread.join(TIMEOUT)


def _forward(
    session: aiohttp.ClientSession, base_url: str, change: Callable[[dict[str, Any]], None]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def forward(request: web.Request) -> web.Response:
        key = {"x-portkey-api-key": request.headers["x-portkey-api-key"], "Content-Type": "application/json"}
        address = f"{base_url.removesuffix('/v1')}{request.path_qs}"
        async with session.request(request.method, address, headers=key, data=await request.read()) as answer:
            value = await answer.json()
            if request.method == "GET" and "string" in value:
                change(value)
            return web.json_response(value, status=answer.status)

    return forward


def test_an_unknown_field_fails_its_prompts_until_it_is_accepted(tmp_path: Path) -> None:
    def plant(prompt: dict[str, Any]) -> None:
        prompt["new_and_null"] = None
        if prompt["name"].startswith("special"):
            prompt[FIELD] = {"deny": ["everything"]}

    with served(SandboxOptions(prompts=10)) as registry, between(registry.base_url, plant) as address:
        special = {registry.ask(lambda sandbox, n=n: sandbox.add_prompt(f"special {n}")) for n in range(3)}  # type: ignore[misc]
        path, keys = write_migration(tmp_path, address), {"KEY": registry.api_key}
        plan = promptferry("plan", path, "--json", cwd=tmp_path, env=keys).json
        assert {one["source_id"]: one["losses"] for one in plan["prompts"] if one["losses"]} == {
            prompt_id: [FIELD] for prompt_id in special
        }
        first = promptferry("run", path, cwd=tmp_path, env=keys)
        assert (first.code, first.summary["counts"]["created"], first.summary["counts"]["failed"]) == (1, 10, 3)
        failed = [line for line in lines(tmp_path / "ledger.jsonl") if line["kind"] == "failed"]
        assert {line["source_id"] for line in failed} == special
        assert all(line["error"] == "loss" and FIELD in line["message"] for line in failed)
        assert "everything" not in (tmp_path / "ledger.jsonl").read_text()
        assert f"allow_loss: [{FIELD}]" in promptferry("status", path, "--failed", cwd=tmp_path, env=keys).out
        before = replicas(registry.prompts())

        path = write_migration(tmp_path, address, allow_loss=[FIELD])
        second = promptferry("run", path, cwd=tmp_path, env=keys)
        counts = second.summary["counts"]
        assert (second.code, counts["created"], counts["unchanged"], counts["failed"]) == (0, 3, 10, 0)
        after = replicas(registry.prompts())
        assert {key: after[key] for key in before} == before
        assert len(after) == 13
