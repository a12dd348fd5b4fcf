"""Memory of runs over 10,000 and 100,000 prompts, and what it takes to go on with a ledger of a million entries.

`python -m tests.benchmarks.scale` prints both; it takes two minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from engine.ledger.lines import Chain, encode_line, seal, timestamp
from engine.model import Entry
from tests.benchmarks.__main__ import serving
from tests.forks import ROOT, environment

RUNS: Final = (10_000, 100_000)
ENTRIES: Final = 1_000_000
BATCH: Final = 64
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


def run(prompts: int) -> float:
    """Peak MiB of a run of the engine."""
    with serving(prompts) as address, tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        command = [sys.executable, "-m", "tests.benchmarks.clients", "engine", address, str(prompts), folder]
        done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    peak: float = json.loads(done.stdout)["peak_mib"]
    return peak


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


def main() -> None:
    """Prints the figures."""
    peaks = {prompts: run(prompts) for prompts in RUNS}
    few, many = RUNS
    each = (peaks[many] - peaks[few]) * 2**20 / (many - few)
    print(f"{many:,} prompts: {peaks[many]:.0f} MiB at most, {each:.0f} bytes more by the prompt than {few:,}")
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        path = Path(folder) / "million.jsonl"
        write_ledger(path)
        opened = subprocess.run([sys.executable, "-c", OPENED, str(path)], cwd=ROOT, check=True, capture_output=True)
        print(f"a ledger of {ENTRIES:,} entries, {opened.stdout.decode().strip()}")


if __name__ == "__main__":
    main()
