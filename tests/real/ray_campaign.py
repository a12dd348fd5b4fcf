"""Runs on Ray with two nodes of two workers while parts of it are killed: `python -m tests.real.ray_campaign`.

Prints a table of what the registry itself has seen. `make servers` makes the environment that it needs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.real.ray_site import Site, site

VICTIMS: Final = ("nothing", "worker", "node", "gate", "driver")
COLUMNS: Final = (
    *("killed", "run", "seconds", "created/s", "of the limit", "worst second", "refused", "doubled", "lost"),
    *("in the ledger", "exit codes"),
)
MOST_RUNS: Final = 4


def main() -> None:
    """Exit 1 when anything was doubled or lost."""
    given = arguments()
    print(f"| {' | '.join(COLUMNS)} |\n|---{'|---:' * (len(COLUMNS) - 2)}|---|", flush=True)
    wrong = False
    nodes = 2 + given.times * ("node" in given.victims)  # those that are killed do not come back
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        site(Path(folder), prompts=given.prompts, rate=given.rate, nodes=nodes) as one,
    ):
        for victim in given.victims:
            for number in range(1 if victim == "nothing" else given.times):
                row = campaign(one, victim, given)
                wrong |= bool(row["doubled"] or row["lost"])
                print(told(victim, number, row, given.rate), flush=True)
    sys.exit(wrong)


def campaign(one: Site, victim: str, given: argparse.Namespace) -> Mapping[str, Any]:
    """Runs until it says that it is done; the first run meets the accident."""
    one.forget()
    one.ledger.unlink(missing_ok=True)
    one.write(rate=None if given.search else given.rate or None, concurrency=given.concurrency)
    exits = []
    for number in range(MOST_RUNS):
        run = one.start()
        if number == 0 and victim != "nothing":
            one.wait_for(given.prompts // 3, run)
            one.kill(victim, run)
        out, usage = ended(run)
        exits.append(run.returncode)
        if given.verbose:
            print(one.errors.read_text()[-2000:], out[-800:], usage, file=sys.stderr)
        if run.returncode == 0:
            break
    return {**one.truth, "exits": exits, "ledger": one.created()}


def ended(run: subprocess.Popen[str]) -> tuple[str, float]:
    """What it printed, and the seconds of CPU that it used itself."""
    assert run.stdout is not None
    out = run.stdout.read()
    _, status, usage = os.wait4(run.pid, 0)
    run.returncode = os.waitstatus_to_exitcode(status)
    return out, usage.ru_utime + usage.ru_stime


def told(victim: str, number: int, row: Mapping[str, Any], rate: float) -> str:
    used = f"{row['creates_a_second'] * 2 / rate:.0%}" if rate else "-"
    over = f"{row['worst_second'] / rate - 1:+.1%}" if rate else str(row["worst_second"])
    figures = [f"{row['seconds']:.0f}", f"{row['creates_a_second']:.0f}", used, over, row["refused"]]
    figures += [row["doubled"], row["lost"], row["ledger"], " ".join(map(str, row["exits"]))]
    return f"| {victim} | {number + 1} | {' | '.join(map(str, figures))} |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.real.ray_campaign", description=__doc__)
    parser.add_argument("--prompts", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=2_000, help="requests a second that the registry takes; 0: any")
    parser.add_argument("--search", action="store_true", help="the rate is not told, it is to be found")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--times", type=int, default=3, help="that each is killed (default: 3)")
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=VICTIMS)
    parser.add_argument("--folder", type=Path, help="of migrations and ledgers (default: the system's)")
    parser.add_argument("--verbose", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
