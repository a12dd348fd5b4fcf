"""The sandbox misbehaving on purpose, and surviving being killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from asyncio import create_subprocess_exec
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from engine.sandbox import FAULTS, Sandbox, SandboxOptions, serve
from tests.sandbox_api import Clock

ROOT = Path(__file__).parents[2]
BODY = {"name": "n", "collection_id": "hr", "string": "s", "parameters": {}, "model": "m", "virtual_key": "openai-prod"}
SERVE_FOR_EVER = """
import asyncio, json, pathlib, sys
from engine.sandbox import SandboxOptions, serve

async def main():
    async with serve(SandboxOptions(prompts=20, seed=3, store=pathlib.Path(sys.argv[1]))) as sandbox:
        print(json.dumps([sandbox.base_url, sandbox.api_key]), flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[tuple[Sandbox, aiohttp.ClientSession]]:
    async with (
        serve(SandboxOptions(prompts=0, **options)) as sandbox,
        aiohttp.ClientSession(headers={"x-portkey-api-key": sandbox.api_key}) as session,
    ):
        yield sandbox, session


async def create(sandbox: Sandbox, session: aiohttp.ClientSession) -> tuple[int, bytes]:
    async with session.post(f"{sandbox.base_url}/prompts", json=BODY) as response:
        return response.status, await response.read()


# ---- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "status", "code"), [("429", 429, "AB06"), ("503", 503, "AB04")])
async def test_refused_before_the_change(name: str, status: int, code: str) -> None:
    async with running(faults={name: 1.0}) as (sandbox, session):
        async with session.post(f"{sandbox.base_url}/prompts", json=BODY) as response:
            assert (response.status, response.headers["Retry-After"]) == (status, "1")
            assert (await response.json())["data"]["errorCode"] == code
        assert sandbox.prompts() == []
        sandbox.faults.chances.clear()
        assert (await create(sandbox, session))[0] == 200


@pytest.mark.parametrize(("name", "applied"), [("reset_before", 0), ("reset_after", 1)])
async def test_a_reset_connection_before_or_after_the_change(name: str, applied: int) -> None:
    async with running(faults={name: 1.0}) as (sandbox, session):
        with pytest.raises(aiohttp.ClientOSError, match="reset"):
            await create(sandbox, session)
        assert len(sandbox.prompts()) == applied
        assert list(sandbox.requests) == [("POST", "/v1/prompts", 0)]


async def test_after_an_internal_error_nobody_knows() -> None:
    async with running(faults={"500": 1.0}) as (sandbox, session):
        statuses = [(await create(sandbox, session))[0] for _ in range(40)]
        assert statuses == [500] * 40
        assert 5 < len(sandbox.prompts()) < 35


async def test_a_truncated_answer_follows_the_change() -> None:
    async with running(faults={"truncate": 1.0}) as (sandbox, session):
        with pytest.raises(aiohttp.ClientPayloadError):
            await create(sandbox, session)
        assert len(sandbox.prompts()) == 1


@pytest.mark.parametrize("name", ["blank", "not_json"])
async def test_a_spoilt_answer_follows_the_change(name: str) -> None:
    async with running(faults={name: 1.0}) as (sandbox, session):
        status, body = await create(sandbox, session)
        assert status == 200
        with pytest.raises(json.JSONDecodeError):
            json.loads(body)
        assert len(sandbox.prompts()) == 1


async def test_a_slow_answer_waits_and_is_whole() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with running(faults={"slow": 1.0}, sleep=sleep, slow_s=7.0) as (sandbox, session):
        assert (await create(sandbox, session))[0] == 200
        assert waits == [7.0]


async def test_a_late_row_is_listed_later() -> None:
    clock = Clock()
    async with running(faults={"late_listing": 1.0}, clock=clock) as (sandbox, session):
        await create(sandbox, session)

        async def total() -> int:
            async with session.get(f"{sandbox.base_url}/prompts") as response:
                return int((await response.json())["total"])

        assert (await total(), len(sandbox.prompts())) == (0, 1)
        clock.now += 5
        assert await total() == 1


async def test_faults_can_be_planned_one_by_one() -> None:
    async with running() as (sandbox, session):
        sandbox.faults.plan("503", method="POST", path_end="/prompts", times=2)
        assert (await session.get(f"{sandbox.base_url}/prompts")).status == 200
        assert [(await create(sandbox, session))[0] for _ in range(4)] == [503, 503, 200, 200]
        assert [seen.status for seen in sandbox.requests] == [200, 503, 503, 200, 200]


async def test_faults_fall_with_their_probability_and_the_same_for_a_seed() -> None:
    async def statuses() -> list[int]:
        async with running(faults={"503": 0.2, "429": 0.2}, seed=9) as (sandbox, session):
            return [(await create(sandbox, session))[0] for _ in range(200)]

    first = await statuses()
    assert first == await statuses()
    assert 20 < first.count(503) < 60
    assert 20 < first.count(429) < 60


async def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=FAULTS[3]):
        async with serve(SandboxOptions(prompts=0, faults={"explode": 1.0})):
            pass


async def test_a_probability_is_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        async with serve(SandboxOptions(prompts=0, faults={"429": 5.0})):
            pass


# ---- rate limit ------------------------------------------------------------------------------------------------------


async def test_the_rate_limit_holds_for_each_key() -> None:
    clock = Clock()
    async with running(rate_limit=0.5, clock=clock) as (sandbox, session):

        async def ask(key: str) -> tuple[int, str | None]:
            url = f"{sandbox.base_url}/prompts"
            async with session.get(url, headers={"x-portkey-api-key": key}) as response:
                return response.status, response.headers.get("Retry-After")

        other = sandbox.key("other")
        assert await ask(sandbox.api_key) == (200, None)
        assert await ask(sandbox.api_key) == (429, "2")
        assert await ask(other) == (200, None)
        clock.now += 1
        assert await ask(sandbox.api_key) == (429, "1")
        clock.now += 1
        assert await ask(sandbox.api_key) == (200, None)


async def test_a_second_lets_its_rate_through() -> None:
    clock = Clock()
    async with running(rate_limit=10, clock=clock) as (sandbox, session):

        async def let_through(asked: int) -> int:
            return [(await create(sandbox, session))[0] for _ in range(asked)].count(200)

        assert await let_through(30) == 10
        clock.now += 0.5
        assert await let_through(30) == 5


async def test_a_window_of_a_minute_lets_its_number_through() -> None:
    clock = Clock()
    async with running(rate_limit=6, rate_window=60, clock=clock) as (sandbox, session):

        async def ask(key: str) -> tuple[int, str | None]:
            url = f"{sandbox.base_url}/prompts"
            async with session.get(url, headers={"x-portkey-api-key": key}) as response:
                return response.status, response.headers.get("Retry-After")

        assert [(await ask(sandbox.api_key))[0] for _ in range(8)] == [200] * 6 + [429] * 2
        clock.now += 20.5
        assert await ask(sandbox.api_key) == (429, "40")
        assert await ask(sandbox.key("other")) == (200, None)
        clock.now += 39.5
        assert [(await ask(sandbox.api_key))[0] for _ in range(8)] == [200] * 6 + [429] * 2


async def test_every_answer_comes_after_its_latency() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with running(latency=(0.05, 0.15), rate_limit=2, clock=Clock(), sleep=sleep) as (sandbox, session):
        statuses = [(await create(sandbox, session))[0] for _ in range(20)]
    assert statuses == [200] * 2 + [429] * 18
    assert len(slept) == 20
    assert 0.05 <= min(slept) < 0.08 < 0.12 < max(slept) <= 0.15


# ---- the store -------------------------------------------------------------------------------------------------------


async def test_a_store_is_seeded_once_and_keeps_everything(tmp_path: Path) -> None:
    store = tmp_path / "sandbox.sqlite"
    async with serve(SandboxOptions(prompts=15, seed=4, store=store)) as first:
        first.add_prompt("mine", '{"kept": "\ud800"}', template_metadata={"a": 2**80})
        prompts = first.prompts()
        keys = (first.api_key, first.admin_key, first.key("other"), first.key("main", ["prompts.list"]))
    async with serve(SandboxOptions(prompts=99, seed=5, store=store)) as second:
        assert second.prompts() == prompts
        assert keys == (second.api_key, second.admin_key, second.key("other"), second.key("main", ["prompts.list"]))
        assert all(key.startswith("sandbox-") for key in keys)
        second.add_prompt("another")
        assert len({prompt["id"] for prompt in second.prompts()}) == 17
    async with serve(SandboxOptions(seed=4, store=store)) as third:
        third.key("made with the seed of the first opening, but with no id of it")


async def test_a_killed_process_loses_nothing_that_it_answered(tmp_path: Path) -> None:
    store = tmp_path / "sandbox.sqlite"
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await create_subprocess_exec(sys.executable, "-c", SERVE_FOR_EVER, str(store), stdout=PIPE, env=environ)
    assert process.stdout is not None
    try:
        base_url, key = json.loads(await process.stdout.readline())
        answered: list[str] = []
        async with aiohttp.ClientSession(headers={"x-portkey-api-key": key}) as session:
            for number in range(50):
                body = BODY | {"name": f"created {number}"}
                async with session.post(f"{base_url}/prompts", json=body) as response:
                    answered.append((await response.json())["id"])
            async with session.delete(f"{base_url}/prompts/{answered.pop()}") as response:
                assert response.status == 200
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    async with serve(SandboxOptions(store=store)) as sandbox:
        assert sandbox.api_key == key
        assert [prompt["id"] for prompt in sandbox.prompts()][20:] == answered


async def test_a_file_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("not a database, but long enough to be looked at as one " * 10)
    for path in (notes, tmp_path / "nowhere" / "store.sqlite"):
        with pytest.raises(OSError, match=path.name):
            async with serve(SandboxOptions(store=path)):
                pass
    assert notes.read_text().startswith("not a database")


async def test_half_seeded_is_not_seeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "sandbox.sqlite"

    def killed(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("engine.sandbox.store.Store.finish_seeding", killed)
        with pytest.raises(KeyboardInterrupt):
            async with serve(SandboxOptions(prompts=5, store=store)):
                pass
    async with serve(SandboxOptions(prompts=5, store=store)) as sandbox:
        assert len(sandbox.prompts()) == 5


async def test_late_pages_use_the_index(tmp_path: Path) -> None:
    """Paging through a large library stays quick because no page sorts: said by SQLite's own plan, not by a clock."""
    store = tmp_path / "sandbox.sqlite"
    async with serve(SandboxOptions(prompts=5, store=store)):
        pass
    database = sqlite3.connect(store)
    query = "SELECT seq FROM templates WHERE kind = ? AND workspace = ? AND visible_at <= ?"
    plan = database.execute(f"EXPLAIN QUERY PLAN {query} ORDER BY created_at DESC, seq DESC", ("a", "b", 0)).fetchall()
    database.close()
    assert [step[3] for step in plan] == [
        "SEARCH templates USING COVERING INDEX templates_in_order (kind=? AND workspace=?)"
    ]
