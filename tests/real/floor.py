"""How fast the official clients fill a registry, which ours is held against: `python -m tests.real.floor`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

from tests.real.official import Official, official
from tests.real.servers import MLFLOW, PHOENIX, Server, running

THREADS: Final = (1, 4, 8, 16)
WARM_UP: Final = 20
TEXT: Final = "You are {{ persona }}. " + "Answer in two sentences, and say so when you do not know. " * 15
"""About 900 characters, as a prompt of some care has."""


@dataclass(frozen=True, slots=True)
class Rate:
    """What one filling of an empty registry took. `p95_s`: of one create."""

    threads: int
    per_second: float
    p50_s: float
    p95_s: float


def prompts(registry: str, number: int) -> list[dict[str, Any]]:
    """So many, each with one version, as the client's script takes them."""
    if registry == MLFLOW.name:
        return [{"name": f"floor-{one:05}", "template": TEXT} for one in range(number)]
    messages = [{"role": "user", "content": TEXT}]
    return [{"name": f"floor-{one:05}", "messages": messages, "more": {"model_name": "m"}} for one in range(number)]


def measured(client: Official, server: Server, number: int, threads: int) -> Rate:
    """Empties the registry, and fills it with the official client."""
    name = server.registry.name
    do = "register_all" if name == MLFLOW.name else "create_all"
    for count in (WARM_UP, number):
        server.empty()
        took = client(do, prompts=prompts(name, count), threads=threads)
    cuts = quantiles(took["each"], n=20)
    return Rate(threads, number / took["seconds"], cuts[9], cuts[18])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a line for each number of threads."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.floor")
    parser.add_argument("--prompts", type=int, default=200)
    number = parser.parse_args(arguments).prompts
    for registry in (MLFLOW, PHOENIX):
        with (
            tempfile.TemporaryDirectory() as folder,
            running(registry, Path(folder)) as server,
            official(registry.name, server.base_url, Path(folder)) as client,
        ):
            for threads in THREADS:
                rate = measured(client, server, number, threads)
                figures = f"{rate.per_second:.1f}/s, p50 {1e3 * rate.p50_s:.0f} ms, p95 {1e3 * rate.p95_s:.0f} ms"
                print(f"{registry.name}, {threads} threads: {figures}", flush=True)


if __name__ == "__main__":
    main()
