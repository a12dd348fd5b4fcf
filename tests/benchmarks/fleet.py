"""What a fleet uses of one limit that all its migrations share: `python -m tests.benchmarks.fleet [--rate R]`.

By default 200 migrations of 50 prompts each, by default settings, against one sandbox that allows so many requests a
second for their one key. The whole command counts, its start included; what is refused is counted by the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from engine.sandbox import SandboxOptions
from tests.e2e import COMMAND
from tests.fleets import Fleet, balanced, fleet
from tests.forks import environment


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
    code, files, peak_kib = run(one)
    seconds = time.monotonic() - begun
    summary = json.loads((one.path.parent / "out").read_text())
    balanced(summary)
    assert code == summary["exit_code"] == 0, summary["message"]
    assert not list(one.complaints())
    seen = Counter(one.status for one in one.registry.ask(lambda sandbox: list(sandbox.requests))[before:])
    taken = sum(seen.values()) - seen[429]
    used, refused = taken / (rate * seconds), seen[429] / sum(seen.values())
    return f"{seconds:.0f} | {used:.1%} | {refused:.2%} | {peak_kib / 1024:.0f} MiB | {files}"


def run(one: Fleet) -> tuple[int, int, int]:
    """Its exit code, the most files that it had open (0 where there is no /proc), and its peak memory in KiB."""
    most, folder = 0, one.path.parent
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        command = [*COMMAND, "fleet", "run", str(one.path)]
        process = subprocess.Popen(command, cwd=folder, env=environment(**one.env), stdout=out, stderr=err)
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        with suppress(OSError):
            most = max(most, len(os.listdir(f"/proc/{process.pid}/fd")))
        time.sleep(0.1)
    process.returncode = os.waitstatus_to_exitcode(ended[1])
    return process.returncode, most, ended[2].ru_maxrss


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
