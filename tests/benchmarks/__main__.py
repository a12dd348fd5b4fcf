"""Runs every client in turn, several times over, and writes the table: `python -m tests.benchmarks [--quick]`.

Every client reads and creates the same prompts at the same server, each in a process of its own. What is compared is
the CPU time of that process by the prompt: the difference between a large run and a small one, so that starting costs
nobody anything. The table stands in README.md between two marks.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import cpu_count
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.request import ProxyHandler, build_opener

from tests.benchmarks.clients import CLIENTS, IN_FLIGHT, LEDGER_TIMED, replica_name
from tests.forks import ROOT, environment

README: Final = Path(__file__).with_name("README.md")
BASE: Final = "bare aiohttp"
SLOW: Final = ("requests loop", "httpx pool")
LEAST_BYTES: Final = 3_400


@dataclass(frozen=True)
class Size:
    """Prompts of the small and of the large run, and how often both are made."""

    small: int
    large: int
    rounds: int

    def of(self, client: str) -> tuple[int, int]:
        """Fewer for the slow ones, whose figures are as steady."""
        part = 4 if client in SLOW else 1
        return self.small // part, self.large // part


FULL: Final = Size(small=500, large=4_500, rounds=5)
QUICK: Final = Size(small=4, large=12, rounds=1)


@contextmanager
def serving(prompts: int) -> Iterator[str]:
    """The server in its own process; its address."""
    command = [sys.executable, "-m", "tests.benchmarks.server", str(prompts)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def ran(client: str, prompts: int) -> Mapping[str, float]:
    """What one run took. Raises when it did not create every prompt once: a benchmark that loses work is none."""
    # not in the system's folder for such things, which may be memory: the ledger's syncs should reach a disk
    with serving(prompts) as address, tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        command = [sys.executable, "-m", "tests.benchmarks.clients", client, address, str(prompts), folder]
        done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
        if complaint := complaint_of(address, prompts):
            raise SystemExit(f"{client}: {complaint}")
    took: Mapping[str, float] = json.loads(done.stdout)
    return took


def asked(address: str, name: str) -> Any:
    """What the server tells of itself."""
    with build_opener(ProxyHandler({})).open(f"{address}/{name}") as answer:
        return json.load(answer)


def complaint_of(address: str, prompts: int) -> str | None:
    """What is wrong with what it saw; see `lost`."""
    created = asked(address, "created")
    return lost(prompts, created["names"], created["least_bytes"])


def lost(prompts: int, created: Mapping[str, int], least_bytes: int) -> str | None:
    """What is wrong with what the server saw; None: every prompt was created exactly once, and whole.

    `created`: name -> how often. `least_bytes`: of the smallest body.
    """
    once = sum(created.get(replica_name(number), 0) == 1 for number in range(prompts))
    if once < prompts or created.keys() != {replica_name(number) for number in range(prompts)}:
        return f"{once} of {prompts} prompts were created once, under {len(created)} names"
    if least_bytes < LEAST_BYTES:
        return f"a body has only {least_bytes} bytes"
    return None


def by_prompt(client: str, size: Size) -> Mapping[str, float]:
    """Seconds for one prompt more, of CPU, of the clock and, where it was asked for, of the ledger."""
    small, large = size.of(client)
    few, many = ran(client, small), ran(client, large)
    return {name: (many[name] - few[name]) / (large - small) for name in few if name.endswith("_s")}


def measured(size: Size) -> Mapping[str, Sequence[Mapping[str, float]]]:
    """Client -> one measurement for each round. In turns, so that what the machine does meanwhile hits all alike."""
    found: dict[str, list[Mapping[str, float]]] = {client: [] for client in (*CLIENTS, LEDGER_TIMED)}
    for number in range(size.rounds):
        for client in found:
            found[client].append(by_prompt(client, size))
            print(f"round {number + 1}: {client} {1e6 * found[client][-1]['cpu_s']:.0f} us", file=sys.stderr)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Medians, the ratio to the bare loop within each round, and the ledger's part of the engine."""
    lines = [
        "| client | CPU by the prompt | spread | times the bare loop | prompts/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for client in CLIENTS:
        rounds = found[client]
        cpu = [1e6 * one["cpu_s"] for one in rounds]
        times = median(one["cpu_s"] / base["cpu_s"] for one, base in zip(rounds, found[BASE], strict=True))
        rate = 1 / median(one["wall_s"] for one in rounds)
        spread = f"{min(cpu):,.0f}-{max(cpu):,.0f}"
        lines.append(f"| {client} | {median(cpu):,.0f} us | {spread} | {times:.2f} | {rate:,.0f} |")
    parts = [100 * one["ledger_s"] / one["cpu_s"] for one in found[LEDGER_TIMED]]
    spread = f"{min(parts):.1f}-{max(parts):.1f}"
    return "\n".join([*lines, "", f"Ledger and sink: {median(parts):.1f} % of the engine's CPU time ({spread})."])


def mark(name: str, head: str, lines: Sequence[str]) -> None:
    """Puts a table into the README, between the marks of that name."""
    found = README.read_text(encoding="utf-8")
    marked = "\n".join((f"<!-- {name} -->", head, "", *lines, f"<!-- end of {name} -->"))
    README.write_text(re.sub(rf"<!-- {name} -->.*<!-- end of {name} -->", lambda _: marked, found, flags=re.DOTALL))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; without --quick it is written to the README too."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--quick", action="store_true", help="a handful of prompts, to see that it works")
    quick: Any = parser.parse_args(arguments).quick
    text = table(measured(QUICK if quick else FULL))
    print(text)
    if not quick:
        # the machine by its cores only
        mark("table", f"{cpu_count()} cores, {IN_FLIGHT} in flight, medians of {FULL.rounds}:", text.splitlines())


if __name__ == "__main__":
    main()
