"""The clients that are compared. Each reads every prompt and creates its replica, in a process of its own.

`python -m tests.benchmarks.clients NAME ADDRESS PROMPTS FOLDER` prints what it took as JSON: seconds of CPU time, user
and system, and of the clock, and the most memory. Imports are done before either begins. NAME may be LEDGER_TIMED too.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx
import orjson
import requests

from engine import load_migration, run_migration
from engine.config import Migration
from engine.log import set_up
from tests.benchmarks.ledgertime import measure

IN_FLIGHT: Final = 32
KEY: Final = "key-for-benchmarks"
HEADERS: Final = {"x-portkey-api-key": KEY, "Content-Type": "application/json"}
MODEL: Final = "anthropic.claude-3-5-sonnet"
FIELDS: Final = (
    "collection_id",
    "virtual_key",
    "string",
    "tools",
    "is_raw_template",
    "template_metadata",
)


def replica_name(number: int) -> str:
    """Under which the server sees a prompt come back."""
    return f"prompt {number}-replica"


def replica(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the plain loops send: no marks, no digests, nothing checked."""
    return {
        **{name: found[name] for name in FIELDS},
        "name": f"{found['name']}-replica",
        "model": MODEL,
        "parameters": {**found["parameters"], "model": MODEL},
        "version_description": found["prompt_version_description"],
    }


# ---- the engine ------------------------------------------------------------------------------------------------------


def migration(address: str, folder: Path) -> Migration:
    """The same work for the engine: a rate that does not bind, and its ledger on the disk of `folder`."""
    path = folder / "bench.yaml"
    path.write_text(
        json.dumps(
            {
                "name": "bench",
                "source": {"base_url": address, "api_key": "${KEY}"},
                "rewrite": {"model": MODEL},
                "limits": {"rate": 100_000, "concurrency": IN_FLIGHT},
                "ledger": "bench.jsonl",
            }
        )
    )
    return load_migration(path, {"KEY": KEY})


def engine(address: str, prompts: int, folder: Path) -> Callable[[], None]:
    """The engine as a library: ledger, marks, digests, throttle; no log."""
    wanted = migration(address, folder)

    def work() -> None:
        summary = asyncio.run(run_migration(wanted))
        assert summary.counts["created"] == prompts, summary

    return work


def engine_logging(address: str, prompts: int, folder: Path) -> Callable[[], None]:
    """The same with the log of a scheduled job: a line of JSON for each prompt, into a file."""
    set_up(style="json", level="info", secrets=[KEY], stream=(folder / "bench.log").open("w"))
    return engine(address, prompts, folder)


# ---- the others ------------------------------------------------------------------------------------------------------


async def pool(prompts: int, one: Callable[[int], Any]) -> None:
    """32 workers that take the next number."""
    numbers = iter(range(prompts))

    async def worker() -> None:
        for number in numbers:
            await one(number)

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))


def bare_aiohttp(address: str, prompts: int, folder: Path) -> Callable[[], None]:
    """aiohttp and orjson, and nothing else."""

    async def main() -> None:
        async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:

            async def one(number: int) -> None:
                async with session.get(f"{address}/prompts/p-{number}") as answer:
                    found = orjson.loads(await answer.read())
                body = orjson.dumps(replica(found))
                async with session.post(f"{address}/prompts", data=body) as answer:
                    assert orjson.loads(await answer.read())["id"]

            await pool(prompts, one)

    return lambda: asyncio.run(main())


def httpx_pool(address: str, prompts: int, folder: Path) -> Callable[[], None]:
    """httpx.AsyncClient, as many in flight."""

    async def main() -> None:
        limits = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
        async with httpx.AsyncClient(headers=HEADERS, limits=limits, trust_env=False) as client:

            async def one(number: int) -> None:
                found = (await client.get(f"{address}/prompts/p-{number}")).json()
                answer = await client.post(f"{address}/prompts", json=replica(found))
                assert answer.json()["id"]

            await pool(prompts, one)

    return lambda: asyncio.run(main())


def guide(address: str, prompts: int, folder: Path) -> Callable[[], None]:
    """One prompt after the other with `requests`, a new connection each time, as migration guides show it."""

    def work() -> None:
        for number in range(prompts):
            found = requests.get(f"{address}/prompts/p-{number}", headers=HEADERS, timeout=30).json()
            answer = requests.post(f"{address}/prompts", headers=HEADERS, json=replica(found), timeout=30)
            assert answer.json()["id"]

    return work


CLIENTS: Final[Mapping[str, Callable[[str, int, Path], Callable[[], None]]]] = {
    "bare aiohttp": bare_aiohttp,
    "engine": engine,
    "engine, logging": engine_logging,
    "httpx pool": httpx_pool,
    "requests loop": guide,
}
LEDGER_TIMED: Final = "engine, ledger timed"
"""The engine, slower by many readings of the clock, to learn what part of it is the ledger."""


def cpu() -> float:
    """Seconds of CPU time of this process, all threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mib() -> float:
    """Of memory of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    name, address, prompts, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
    ledger = measure() if name == LEDGER_TIMED else None
    work = CLIENTS["engine" if ledger is not None else name](address, prompts, folder)
    began, used = time.perf_counter(), cpu()
    work()
    took = {"cpu_s": cpu() - used, "wall_s": time.perf_counter() - began}
    if ledger is not None:
        took["ledger_s"] = ledger.seconds
    print(json.dumps(took | {"peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
