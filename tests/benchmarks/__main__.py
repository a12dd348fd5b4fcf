"""Runs every client in turn, several times over, and writes the table: `python -m tests.benchmarks [--quick]`.

Every client reads and creates the same prompts at the same server, each in a process of its own. What is compared is
the CPU time of that process by the prompt: the difference between a large run and a small one, so that starting costs
nobody anything. The table stands in README.md between two marks.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.request import urlopen

from benchmarks.clients import CLIENTS, IN_FLIGHT

README: Final = Path(__file__).with_name("README.md")
ROOT: Final = Path(__file__).parents[2]
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
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()


def ran(client: str, prompts: int) -> Mapping[str, float]:
    """What one run took. Raises when it did not create every prompt once: a benchmark that loses work is none."""
    with serving(prompts) as address, tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        command = [sys.executable, "-m", "tests.benchmarks.clients", client, address, str(prompts), folder]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        with urlopen(f"{address}/created") as answer:
            created = json.load(answer)
    if sorted(created["names"].values()) != [1] * prompts or created["least_bytes"] < LEAST_BYTES:
        raise SystemExit(f"{client}: {len(created['names'])} of {prompts} prompts were created once and whole")
    took: Mapping[str, float] = json.loads(done.stdout)
    return took


def by_prompt(client: str, size: Size) -> Mapping[str, float]:
    """Seconds for one prompt more, of CPU and of the clock."""
    small, large = size.of(client)
    few, many = ran(client, small), ran(client, large)
    return {name: (many[name] - few[name]) / (large - small) for name in ("cpu_s", "wall_s")}


def measured(size: Size) -> Mapping[str, Sequence[Mapping[str, float]]]:
    """Client -> one measurement for each round. In turns, so that what the machine does meanwhile hits all alike."""
    found: dict[str, list[Mapping[str, float]]] = {client: [] for client in CLIENTS}
    for number in range(size.rounds):
        for client in CLIENTS:
            found[client].append(by_prompt(client, size))
            print(f"round {number + 1}: {client} {1e6 * found[client][-1]['cpu_s']:.0f} us", file=sys.stderr)
    return found


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Medians, and the ratio to the bare loop within each round."""
    lines = [
        "| client | CPU by the prompt | spread | times the bare loop | prompts/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for client, rounds in found.items():
        cpu = [1e6 * one["cpu_s"] for one in rounds]
        times = median(one["cpu_s"] / base["cpu_s"] for one, base in zip(rounds, found[BASE], strict=True))
        rate = 1 / median(one["wall_s"] for one in rounds)
        spread = f"{min(cpu):,.0f}-{max(cpu):,.0f}"
        lines.append(f"| {client} | {median(cpu):,.0f} us | {spread} | {times:.2f} | {rate:,.0f} |")
    return "\n".join(lines)


def write(text: str) -> None:
    """Puts the table into the README, with the machine by its cores only."""
    found = README.read_text(encoding="utf-8")
    head = f"{os.cpu_count()} cores, {IN_FLIGHT} in flight, medians of {FULL.rounds}:"
    marked = f"<!-- table -->\n{head}\n\n{text}\n<!-- end of table -->"
    README.write_text(re.sub(r"<!-- table -->.*<!-- end of table -->", lambda _: marked, found, flags=re.DOTALL))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table; without --quick it is written to the README too."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("--quick", action="store_true", help="a handful of prompts, to see that it works")
    quick: Any = parser.parse_args(arguments).quick
    text = table(measured(QUICK if quick else FULL))
    print(text)
    if not quick:
        write(text)


if __name__ == "__main__":
    main()
