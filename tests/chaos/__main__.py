"""The long form of every campaign, and one table of what came of it: `python -m tests.chaos [--scale N] [--only WORD]`.

Exit code 1 when anything was doubled, lost, lied about or leaked; what it was goes to stderr.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from tests.chaos import (
    test_content,
    test_damage,
    test_faults,
    test_fleet,
    test_full_disk,
    test_kill,
    test_leaks,
    test_lost_answers,
    test_model,
    test_one_writer,
    test_shards,
    test_signals,
    test_sync,
    test_workspaces,
)
from tests.chaos.campaign import Tally

Long = Callable[[int, int], Tally]
"""Scale and jobs -> what came of it."""

TESTS: Final[Mapping[str, Long]] = {
    "killed at every write and sync, and power cut": test_kill.long_calls,
    "ledger cut and flipped at every byte": test_damage.long_damage,
    "disk full at every byte": test_full_disk.long_full_disk,
    "EIO at every sync": test_sync.long_syncs,
    "faults of the wire": test_faults.long_faults,
    "answers lost, rows listed late": test_lost_answers.long_lost_answers,
    "signals at random moments": test_signals.long_signals,
    "several processes, one ledger": test_one_writer.long_writers,
    "answers that repeat key and text": test_leaks.long_leaks,
    "random histories against a model": test_model.long_model,
    "a fleet killed again and again": test_fleet.long_fleet,
    "shards killed and merged": test_shards.long_shards,
    "what prompts need, made and killed": test_workspaces.long_workspaces,
    "texts and numbers that are hard to carry": test_content.long_content,
}
HEAD: Final = "| test | runs | faults injected | doubled | lost | undetected |\n|---|---:|---:|---:|---:|---:|"


def main() -> int:
    """Prints the table."""
    given, total = arguments(), Tally()
    kills: Long = partial(test_kill.long_kills, given.campaigns)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # a killed client leaves half a request behind
    print(HEAD)
    for name, test in {"kill -9 at random moments": kills, **TESTS}.items():
        if given.only in name:
            tally = test(given.scale, given.jobs)
            total += tally
            row(name, tally.runs, tally.faults, tally.doubled, tally.lost, tally.undetected)
    row("key and canary text in what all of these wrote", total.runs, "-", "-", "-", total.leaked)
    for complaint in total.complaints:
        print(complaint, file=sys.stderr)
    return 0 if total.clean else 1


def row(*cells: str | int) -> None:
    """One line of the table, at once: the whole takes long."""
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--scale", type=int, default=1, help="multiplies the number of campaigns (default: 1)")
    parser.add_argument("--jobs", type=int, default=8, help="campaigns at the same time (default: 8)")
    parser.add_argument("--campaigns", type=int, default=500, help="of kill -9 at random moments (default: 500)")
    parser.add_argument("--only", default="", metavar="WORD", help="only tests with this in their name")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
