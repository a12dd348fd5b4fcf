"""What a fleet uses of one limit that all its migrations share: `python -m tests.benchmarks.fleet [--rate R]`.

By default 200 migrations of 50 prompts each, by default settings, against one sandbox that allows so many requests a
second for their one key. The whole command counts, its start included; what is refused is counted by the sandbox.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

from engine.sandbox import SandboxOptions
from tests.fleets import Fleet, balanced, fleet


def main() -> None:
    """Prints one row."""
    given = arguments()
    options = SandboxOptions(prompts=0, rate_limit=given.rate)
    with (
        tempfile.TemporaryDirectory() as folder,
        fleet(
            Path(folder), given.migrations, given.prompts, options=options, limits={}, parallel=given.parallel
        ) as one,
    ):
        row = measured(one, given.rate)
    print("| migrations | prompts | limit | at a time | seconds | used | refused | peak | open files |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    print(f"| {given.migrations} | {given.prompts} each | {given.rate:g}/s | {given.parallel} | {row} |")


def measured(one: Fleet, rate: float) -> str:
    """The figures of one run."""
    before = len(one.registry.ask(lambda sandbox: sandbox.requests))
    begun = time.monotonic()
    ended = one.run_whole()
    seconds = time.monotonic() - begun
    balanced(ended.summary)
    assert ended.code == 0, ended.summary["message"]
    assert not list(one.complaints())
    seen = Counter(one.status for one in one.registry.ask(lambda sandbox: list(sandbox.requests))[before:])
    taken = sum(seen.values()) - seen[429]
    used, refused = taken / (rate * seconds), seen[429] / sum(seen.values())
    return f"{seconds:.0f} | {used:.1%} | {refused:.2%} | {ended.peak_kib / 1024:.0f} MiB | {ended.files}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.add_argument(
        "--rate", type=float, default=50, help="requests a second that the key is allowed (default: 50)"
    )
    parser.add_argument("--migrations", type=int, default=200)
    parser.add_argument("--prompts", type=int, default=50, help="of each migration (default: 50)")
    parser.add_argument("--parallel", type=int, default=4, help="migrations at a time (default: 4)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
