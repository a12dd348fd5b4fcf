"""Whether anything is lost by the hour: `python -m tests.benchmarks.soak [--entries N]`.

Millions of entries go through the sink of a ledger, of always the same prompts: what is known of them does not grow, so
neither may memory. At every tenth a line tells memory and open files; the last line compares the last with the second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from engine.ledger.sink import Sink
from engine.model import Entry
from tests.forks import ROOT

ENTRIES: Final = 4_000_000
PROMPTS: Final = 20_000
WRITERS: Final = 64
TENTHS: Final = 10
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Seen:
    """What the process holds after so many entries."""

    entries: int
    mib: float
    files: int


def look(entries: int) -> Seen:
    """Memory that is resident now, not at most, and open descriptors."""
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return Seen(entries, resident * PAGE_BYTES / 2**20, len(os.listdir("/proc/self/fd")))


def written(number: int) -> tuple[Entry, Entry]:
    """What a create or an update of one prompt writes."""
    digest = f"{number:064x}"
    origin = {"source_id": f"p-{number % PROMPTS}", "source_name": "prompt", "source_collection": "main"}
    op = "create" if number < PROMPTS else "update"
    intent = {"op": op, "key": digest[:16], "name": "replica", "attempt": 1, "body_sha256": digest}
    made = {"target_id": f"r-{number % PROMPTS}", "how": "response", "replica_digest": digest, "source_digest": digest}
    return Entry("intent", {**origin, **intent}), Entry(f"{op}d", {**origin, **made})


async def soak(path: Path, entries: int) -> list[Seen]:
    """Writes so many, each prompt's intent before its outcome, and looks at every tenth."""
    numbers = iter(range(entries // 2))
    seen: list[Seen] = []
    sink = Sink.open(path, run="soak")
    async with sink:

        async def writer(mine: Sequence[int]) -> None:
            for number in mine:
                intent, outcome = written(number)
                await sink.record(intent)
                await sink.record(outcome)

        for tenth in range(1, TENTHS + 1):
            upto = entries // 2 * tenth // TENTHS - entries // 2 * (tenth - 1) // TENTHS
            part = list(islice(numbers, upto))
            await asyncio.gather(*(writer(part[start::WRITERS]) for start in range(WRITERS)))
            part.clear()
            seen.append(look(entries * tenth // TENTHS))
            print(f"{seen[-1].entries:,} entries: {seen[-1].mib:.1f} MiB, {seen[-1].files} open files", flush=True)
    sink.close()
    return seen


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.soak", description=__doc__)
    parser.add_argument("--entries", type=int, default=ENTRIES, metavar="N")
    asked: Any = parser.parse_args(arguments)
    before = look(0).files
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        seen = asyncio.run(soak(Path(folder) / "soak.jsonl", asked.entries))
    second, last = seen[1], seen[-1]
    print(f"from the second tenth to the last: {last.mib - second.mib:+.1f} MiB; open files {last.files}, after it "
          f"{look(0).files}, before it {before}")  # fmt: skip


if __name__ == "__main__":
    main()
