"""How fast a registry is filled by its official client and by ours, side by side: `python -m tests.real.floor`.

The client in its best number of threads is the floor. At Phoenix it, too, puts on the tag that says what is published;
at MLflow ours alone sets the alias. Times are of one server that takes turns: only their relation says something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import quantiles
from types import SimpleNamespace
from typing import Any, Final

import aiohttp

from engine import load_migration, run_migration
from engine.http import session
from tests.e2e import write_migration
from tests.real.official import Official, official
from tests.real.servers import MLFLOW, PHOENIX, Server, running

THREADS: Final = (1, 2, 4, 8, 16)
WARM_UP: Final = 20
PART: Final = 5
"""One of so many prompts is written to find what is best, and how long an answer takes when nothing else is asked."""
BAR: Final = 1.3
"""Times the floor."""
SLOWER: Final = 2
"""Times the p95 with one client."""
TEXT: Final = "You are {{ persona }}. " + "Answer in two sentences, and say so when you do not know. " * 15
"""About 900 characters, as a prompt of some care has."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one filling of an empty registry took: prompts a second; seconds of one create, or of one request."""

    who: str
    per_second: float
    p50_s: float
    p95_s: float

    @classmethod
    def of(cls, who: str, number: int, seconds: float, each: Sequence[float]) -> Rate:
        cuts = quantiles(each, n=20)
        return cls(who, number / seconds, cuts[9], cuts[18])

    def __str__(self) -> str:
        times = f"p50 {1e3 * self.p50_s:.0f} ms, p95 {1e3 * self.p95_s:.0f} ms"
        return f"{self.who}: {self.per_second:.1f} prompts/s, {times}"


# ---- the official client ---------------------------------------------------------------------------------------------


def prompts(registry: str, number: int) -> list[dict[str, Any]]:
    """So many, each with one version, as the client's script takes them."""
    if registry == MLFLOW.name:
        return [{"name": f"floor-{one:05}", "template": TEXT} for one in range(number)]
    messages = [{"role": "user", "content": TEXT}]
    more = {"more": {"model_name": "m"}, "tag": "production"}
    return [{"name": f"floor-{one:05}", "messages": messages, **more} for one in range(number)]


def measured(client: Official, server: Server, number: int, threads: int) -> Rate:
    """Empties the registry, and fills it with the official client."""
    name = server.registry.name
    do = "register_all" if name == MLFLOW.name else "create_all"
    for count in (WARM_UP, number):
        server.empty()
        took = client(do, prompts=prompts(name, count), threads=threads)
    return Rate.of(f"{name}'s client, {number} by {threads} threads", number, took["seconds"], took["each"])


# ---- ours ------------------------------------------------------------------------------------------------------------


def ours(server: Server, number: int, folder: Path, **limits: Any) -> Rate:
    """The same by a run of Promptferry from a file of lines, in a process of its own."""
    server.empty()
    lines = [{"id": f"{one}", "name": f"floor-{one:05}", "string": TEXT, "model": "m"} for one in range(number)]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        (Path(place) / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        path = write_migration(
            Path(place),
            "",
            source={"kind": "files", "path": "prompts.jsonl"},
            target={"kind": server.registry.name, "base_url": server.base_url},
            rewrite={"name": "{name}"},
            limits={"timeout": 60, **limits},
        )
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            seconds, each = process.submit(filled, path).result()
    assert server.rows(f"SELECT count(*) FROM {server.registry.tables[-1]}") == [(number,)]
    how = ", ".join(f"{name} {value}" for name, value in limits.items()) or "as it is"
    return Rate.of(f"ours, {number}, {how}", number, seconds, each)


def filled(path: Path) -> tuple[float, list[float]]:
    """Seconds of the run and of each request that writes."""
    with timed() as each:
        began = time.perf_counter()
        asyncio.run(run_migration(load_migration(path, {})))
        return time.perf_counter() - began, each


@contextmanager
def timed() -> Iterator[list[float]]:
    """How long each request that writes takes from here on, until its answer begins."""
    each: list[float] = []
    traces = aiohttp.TraceConfig()

    async def begins(_session: Any, context: SimpleNamespace, _params: Any) -> None:
        context.began = time.perf_counter()

    async def ends(_session: Any, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        if params.method != "GET":
            each.append(time.perf_counter() - context.began)

    traces.on_request_start.append(begins)
    traces.on_request_end.append(ends)
    before = aiohttp.ClientSession
    session.aiohttp.ClientSession = partial(before, trace_configs=[traces])  # type: ignore[attr-defined]
    try:
        yield each
    finally:
        session.aiohttp.ClientSession = before  # type: ignore[attr-defined]


# ---- side by side ----------------------------------------------------------------------------------------------------


def compare(client: Official, server: Server, number: int, folder: Path) -> Iterator[str]:
    """A line for each filling, and what they come to. The best number of threads is found with some of the prompts."""
    some = number // PART
    rates = {threads: measured(client, server, some, threads) for threads in THREADS}
    yield from map(str, rates.values())
    best = max(THREADS, key=lambda threads: rates[threads].per_second)
    yield str(alone := ours(server, some, folder, concurrency=1))
    yield str(before := measured(client, server, number, best))
    yield str(run := ours(server, number, folder))
    yield str(after := measured(client, server, number, best))
    floor = max(before.per_second, after.per_second)
    yield f"{server.registry.name}: {floor / run.per_second:.2f} times the floor (at most {BAR})"
    yield f"{server.registry.name}: p95 {run.p95_s / alone.p95_s:.2f} times that with one client (at most {SLOWER})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints what each registry comes to."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.floor")
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--registry", choices=[MLFLOW.name, PHOENIX.name])
    given = parser.parse_args(arguments)
    for registry in (MLFLOW, PHOENIX):
        if given.registry not in (None, registry.name):
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            running(registry, Path(folder)) as server,
            official(registry.name, server.base_url, Path(folder)) as client,
        ):
            for line in compare(client, server, given.prompts, Path(folder)):
                print(line, flush=True)


if __name__ == "__main__":
    main()
