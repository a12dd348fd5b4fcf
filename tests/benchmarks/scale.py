"""What a large library takes: memory, speed from its first prompts to its last ones, and going on with its ledger.

`python -m tests.benchmarks.scale` compares the memory of runs over 10,000 and 100,000 prompts, and goes on with a
ledger of a million entries; that takes some minutes. `--prompts 1000000` is one run over so many, and what follows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from engine.ledger.lines import Chain, encode_line, seal, timestamp
from engine.model import Entry
from engine.run import Live, RunOptions, run_migration
from tests.benchmarks.__main__ import asked as told
from tests.benchmarks.__main__ import complaint_of, serving
from tests.benchmarks.clients import cpu, migration, peak_mib
from tests.forks import ROOT, environment

RUNS: Final = (10_000, 100_000)
ENTRIES: Final = 1_000_000
BATCH: Final = 64
TENTHS: Final = 10
LOOK_S: Final = 0.05
"""Seconds between two looks at a run."""
RUN: Final = "import sys\nfrom tests.benchmarks.scale import run_here\nrun_here(*sys.argv[1:])\n"
OPENED: Final = (
    "import resource, sys\n"
    "from pathlib import Path\n"
    "from engine.ledger.sink import Sink\n"
    "before = resource.getrusage(resource.RUSAGE_SELF)\n"
    "sink = Sink.open(Path(sys.argv[1]), run='next')\n"
    "after = resource.getrusage(resource.RUSAGE_SELF)\n"
    "cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime\n"
    "print(f'{len(sink.state.records):,} prompts: {cpu:.1f} s of CPU time, {after.ru_maxrss / 1024:.0f} MiB')\n"
    "sink.close()\n"
)


# ---- one run, in a process of its own --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """A look at a run: how many prompts it had settled, and what that had taken, in seconds.

    `server_s`: CPU time of the server, which does the same for every prompt: it tells how fast the machine was.
    """

    settled: int
    wall_s: float
    cpu_s: float
    server_s: float


class Watch:
    """Looks at a run whenever another tenth of its prompts is settled."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.seen: list[Seen] = []

    async def __call__(self, live: Live) -> None:
        assert live.context is not None
        try:
            while True:
                if live.context.settled * TENTHS >= len(self.seen) * live.context.total:
                    self.look(live.context.settled)
                await asyncio.sleep(LOOK_S)
        finally:  # the last prompt is settled: the books of all prompts are no part of the last tenth
            self.look(live.context.settled)

    def look(self, settled: int) -> None:
        """Notes how far it is."""
        self.seen.append(Seen(settled, time.perf_counter(), cpu(), told(self.address, "cpu")))


def run_here(address: str, folder: str, seconds: str) -> None:
    """A run, and one line of JSON on what it took."""
    watch, used = Watch(address), cpu()
    options = RunOptions(watch=watch, max_duration=float(seconds))
    summary = asyncio.run(run_migration(migration(address, Path(folder)), options))
    took = {"counts": summary.counts, "reason": summary.reason, "cpu_s": cpu() - used, "peak_mib": peak_mib()}
    print(json.dumps(took | {"seen": [asdict(one) for one in watch.seen]}))


def ran(address: str, folder: Path, seconds: float) -> Mapping[str, Any]:
    """The same, in a process of its own."""
    command = [sys.executable, "-c", RUN, address, str(folder), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    took: Mapping[str, Any] = json.loads(done.stdout)
    return took


def tenths(seen: Sequence[Seen]) -> str | None:
    """The last tenth beside the first; None: there are no two of them."""
    if len(seen) < TENTHS:
        return None
    first, last = _pace(*seen[:2]), _pace(*seen[TENTHS - 1 : TENTHS + 1])
    of = {name: f"{100 * last[name] / first[name]:.0f} %" for name in first}
    return (
        f"last tenth beside the first: {last['wall_s']:,.0f} prompts/s and {first['wall_s']:,.0f} ({of['wall_s']}), "
        f"{last['cpu_s']:,.0f} and {first['cpu_s']:,.0f} by the second of CPU time ({of['cpu_s']}); "
        f"the server {of['server_s']} by the second of its own"
    )


def _pace(before: Seen, after: Seen) -> Mapping[str, float]:
    """Prompts by the second of each clock."""
    one, two = asdict(before), asdict(after)
    return {name: (two["settled"] - one["settled"]) / (two[name] - one[name]) for name in one if name != "settled"}


def library(prompts: int, seconds: float) -> None:
    """Prints what one run over so many prompts takes, a second run, and opening its ledger."""
    with serving(prompts) as address, tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as name:
        folder = Path(name)
        took = ran(address, folder, seconds)
        print(f"{took['counts']['created']:,} of {prompts:,} prompts created ({took['reason']}): "
              f"{took['peak_mib']:.0f} MiB at most, {took['cpu_s']:.0f} s of CPU time", flush=True)  # fmt: skip
        if (text := tenths([Seen(**one) for one in took["seen"]])) is not None:
            print(text, flush=True)
        if took["reason"] == "done":
            print(opened(folder / "bench.jsonl"), flush=True)
            print(complaint_of(address, prompts) or "the server saw every prompt once", flush=True)
            again = ran(address, folder, seconds)
            print(f"a second run, with nothing to do: {again['peak_mib']:.0f} MiB at most, "
                  f"{again['cpu_s']:.1f} s of CPU time with its listing")  # fmt: skip


# ---- memory by the prompt, and a ledger that was made up -------------------------------------------------------------


def write_ledger(path: Path) -> None:
    """A run that created half as many prompts as there are entries."""
    end, ts, digest = Chain(), timestamp(time.time()), "0123456789abcdef" * 4
    with path.open("wb") as file:
        for start in range(0, ENTRIES // 2, BATCH // 2):
            parts = []
            for number in range(start, min(start + BATCH // 2, ENTRIES // 2)):
                origin = {"source_id": f"p-{number}", "source_name": f"prompt {number}", "source_collection": "main"}
                intent = {"op": "create", "key": digest[:16], "name": f"prompt {number}-replica", "attempt": 1}
                made = {"target_id": f"r-{number}", "how": "response", "replica_digest": digest}
                parts += [encode_line(Entry("intent", {**origin, **intent, "body_sha256": digest})),
                          encode_line(Entry("created", {**origin, **made, "source_digest": digest}))]  # fmt: skip
            data, end = seal(parts, end, ts=ts, run="first")
            file.write(data)


def opened(path: Path) -> str:
    """What it takes to read a ledger before the next run."""
    done = subprocess.run([sys.executable, "-c", OPENED, str(path)], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    return f"going on with a ledger of {path.stat().st_size / 2**20:.0f} MiB, {done.stdout.decode().strip()}"


def growth(seconds: float) -> None:
    """Prints how memory grows with the number of prompts."""
    peaks = {}
    for prompts in RUNS:
        with serving(prompts) as address, tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
            took = ran(address, Path(folder), seconds)
        assert took["counts"]["created"] == prompts, took
        peaks[prompts] = took["peak_mib"]
    few, many = RUNS
    each = (peaks[many] - peaks[few]) * 2**20 / (many - few)
    print(f"{many:,} prompts: {peaks[many]:.0f} MiB at most, {each:.0f} bytes more by the prompt than {few:,}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.scale", description=__doc__)
    parser.add_argument("--prompts", type=int, metavar="N", help="one run over N prompts, and what follows it")
    parser.add_argument("--minutes", type=float, default=240, help="after which a run is ended (default: 240)")
    asked: Any = parser.parse_args(arguments)
    if asked.prompts is not None:
        library(asked.prompts, 60 * asked.minutes)
        return
    growth(60 * asked.minutes)
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        path = Path(folder) / "million.jsonl"
        write_ledger(path)
        print(opened(path))


if __name__ == "__main__":
    main()
