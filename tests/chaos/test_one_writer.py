"""One ledger, several processes: one of them writes, the others leave at once; readers are served all the same."""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import EXIT_OK, EXIT_RETRY
from tests.chaos.campaign import SCALE, Campaign, Tally, campaign, each, wait_until
from tests.chaos.disk import check_intents
from tests.e2e import lines, promptferry, started

PROMPTS = 20


# ---- a second run, while the first one stands still ------------------------------------------------------------------


@dataclass(frozen=True)
class Second:
    """A run is stopped in the middle of its work, holding the ledger; then others come."""

    folder: Path
    seed: int


def second(case: Second) -> Tally:
    with campaign(case.folder, prompts=PROMPTS, seed=case.seed) as one:
        line = random.Random(case.seed).randint(1, 30)
        with one.start("--rate", "100") as first:
            held = wait_until(first, lambda: one.size() > 0 and one.ledger.read_bytes().count(b"\n") >= line)
            if held and first.stand_still():
                before = one.ledger.read_bytes()
                check_refused(one)
                check_readers(one)
                if one.ledger.read_bytes() != before:
                    one.complain("something else wrote into a ledger that is held", undetected=1)
                first.send_signal(signal.SIGCONT)
                one.disturbed()
            one.hear(first.end())
        check_intents(one, lines(one.ledger))
        one.resume()
    return one.tally


def check_refused(one: Campaign) -> None:
    """A second run leaves at once, and has sent nothing that changes anything."""
    ended = one.run()
    if ended.code != EXIT_RETRY or ended.reason != "ledger_in_use":
        one.complain(f"a second run ended with {ended.code}: {ended.out}", undetected=1)


def check_readers(one: Campaign) -> None:
    """`status` and `ledger check` need no lock."""
    for command in (("status", one.path), ("ledger", "check", one.ledger)):
        read = promptferry(*command, cwd=one.folder, env={"KEY": one.registry.api_key})
        (one.folder / f"read-{command[0]}.txt").write_text(read.out + read.err)
        if read.code != EXIT_OK:
            one.complain(f"{command[0]} while a run holds the ledger: {read.code}: {read.err}", undetected=1)


# ---- all at once -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Race:
    """Four runs start at the same moment."""

    folder: Path
    seed: int
    lie: str | None = None


def race(case: Race) -> Tally:
    plan = {"lie": case.lie} if case.lie else None
    with campaign(case.folder, prompts=PROMPTS, seed=case.seed) as one:
        ready(4, one, plan)
        with ExitStack() as stack:
            runs = [stack.enter_context(one.start("--rate", "100", plan=plan)) for _ in range(4)]
            ended = [run.end() for run in runs]
        codes = sorted(one.code for one in ended)
        if codes[0] != EXIT_OK or not {*codes} <= {EXIT_OK, EXIT_RETRY}:
            one.complain(f"four runs at once ended with {codes}", undetected=1)
        if any(found.code == EXIT_RETRY and found.reason != "ledger_in_use" for found in ended):
            one.complain("a run that lost the race gave another reason", undetected=1)
        one.disturbed(faults=codes.count(EXIT_RETRY))
        one.resume()
    return one.tally


def ready(count: int, one: Campaign, plan: Mapping[str, Any] | None) -> None:
    """So many can start within moments: what they are forked from takes seconds to be there."""
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(started("--version", cwd=one.folder, plan=plan, covered=False))


def campaigns(folder: Path, count: int) -> Iterator[Second | Race]:
    """Seeded; every second one a race."""
    for seed in range(count):
        yield Race(folder / f"race-{seed}", seed) if seed % 2 else Second(folder / f"second-{seed}", seed)


def written(case: Second | Race) -> Tally:
    return race(case) if isinstance(case, Race) else second(case)


# ---- in CI, and by hand ----------------------------------------------------------------------------------------------


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    tally = each(written, campaigns(tmp_path, 6 * SCALE))
    assert tally.clean, tally
    assert tally.faults >= 6 * SCALE


def test_the_oracle_sees_a_ledger_that_nobody_locks(tmp_path: Path) -> None:
    tally = race(Race(tmp_path, 1, lie="unlocked"))
    assert tally.doubled, tally


def long_writers(scale: int, jobs: int) -> Tally:
    """100 campaigns."""
    with tempfile.TemporaryDirectory() as folder:
        return each(written, campaigns(Path(folder), 100 * scale), jobs=jobs, told="one writer")
