"""Asked to end at any moment: in-flight requests end, nothing new begins, the summary is true, a rerun goes on."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.errors import EXIT_OK, EXIT_RETRY
from engine.ledger.file import read_ledger
from tests.chaos.campaign import SCALE, Campaign, Tally, campaign, each, wait_until
from tests.e2e import Started

PROMPTS = 40
RATE = 200
BURST = RATE // 50
"""Requests that may pass at once: 20 ms of the rate."""
NUMBERS = (signal.SIGINT, signal.SIGTERM)


# ---- at random moments -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Signalled:
    """One run that gets a signal, and every second time another one."""

    folder: Path
    seed: int


def signalled(case: Signalled) -> Tally:
    rng = random.Random(case.seed)
    with campaign(case.folder, prompts=PROMPTS, seed=case.seed, faults={"slow": 0.1}, slow_s=0.3) as one:
        moment, twice = rng.randint(1, 2 * PROMPTS + 7), case.seed % 2
        with one.start("--rate", str(RATE), plan={"begun": str(begun(one))}) as process:
            if wait_until(process, lambda: len(one.answered) >= moment):
                ask_to_end(one, process, rng, twice=bool(twice))
                one.tally += Tally(faults=1 + twice)
                check_end(one, process)
            else:
                one.hear(process.end())
        one.resume()
    return one.tally


def ask_to_end(one: Campaign, process: Started, rng: random.Random, *, twice: bool) -> None:
    """The second signal is of the other number, at once or after some more answers: two of one may arrive as one."""
    first = rng.choice(NUMBERS)
    process.send_signal(first)
    if twice:
        moment = len(one.answered) + rng.choice((0, 1, 3, 10))
        wait_until(process, lambda: len(one.answered) >= moment or process.poll() is not None)
        process.send_signal(NUMBERS[1 - NUMBERS.index(first)])


def begun(one: Campaign) -> Path:
    return one.folder / "begun"


def check_end(one: Campaign, process: Started) -> None:
    """Its code, its ledger, and no create that began after the signal but for those already let through by the rate."""
    ended = process.end()
    one.hear(ended)
    if ended.code not in (EXIT_OK, EXIT_RETRY):
        one.complain(f"exit code {ended.code} after a signal: {ended.err[-800:]}", undetected=1)
    elif ended.code == EXIT_RETRY and json.loads(ended.out.splitlines()[-1])["reason"] != "interrupted":
        one.complain(f"interrupted, and says {ended.out}", undetected=1)
    if one.ledger.exists() and (verdict := read_ledger(one.ledger).verdict).kind != "whole":
        one.complain(f"the ledger is {verdict.kind} after a signal", undetected=1)
    after = begun(one).read_text().partition("halt")[2].count("intent")
    if after > BURST:
        one.complain(f"{after} creates began after the run was asked to end", undetected=1)


def signals(folder: Path, campaigns: int) -> Iterator[Signalled]:
    """Seeded."""
    return (Signalled(folder / f"signal-{seed}", seed) for seed in range(campaigns))


# ---- while the registry does not answer ------------------------------------------------------------------------------


class Held:
    """Slow answers, but for the first ones, wait until they are let go."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self._let_through = 3
        self.held = 0

    async def sleep(self, _seconds: float) -> None:
        self._let_through -= 1
        if self._let_through < 0:
            self.held += 1
            await self._go.wait()

    def let_go(self, one: Campaign) -> None:
        one.registry.ask(lambda _: self._go.set())


def signalled_while_held(folder: Path, *, grace: float, times: int) -> Tally:
    """Creates hang for ever. The run must end by its grace, or by the second signal where the grace has no end."""
    held = Held()
    with campaign(folder, prompts=PROMPTS, seed=times, limits={"timeout": 3600}, sleep=held.sleep) as one:
        one.registry.ask(lambda sandbox: sandbox.faults.plan("slow", method="POST", times=10**6))
        with one.start("--rate", str(RATE), plan={"grace": grace, "begun": str(begun(one))}) as process:
            assert wait_until(process, lambda: held.held >= 2)
            for number in NUMBERS[:times]:
                process.send_signal(number)
            check_end(one, process)
        if not (told := told_unresolved(one)):
            one.complain("nothing is unresolved while creates hang", undetected=1)
        one.tally += Tally(faults=times + told)
        held.let_go(one)
        one.resume()
    return one.tally


def told_unresolved(one: Campaign) -> int:
    """What the last run said was unresolved."""
    told = json.loads((one.folder / f"run-{one.started}.out").read_text())
    return int(told["counts"]["unresolved"])


# ---- in CI -----------------------------------------------------------------------------------------------------------


def test_a_signal_at_random_moments(tmp_path: Path) -> None:
    tally = each(signalled, signals(tmp_path, 20 * SCALE))
    assert tally.clean, tally
    assert tally.faults >= 15 * SCALE


def test_the_grace_ends_a_run_whose_requests_hang(tmp_path: Path) -> None:
    tally = signalled_while_held(tmp_path, grace=0.3, times=1)
    assert tally.clean, tally


def test_a_second_signal_ends_it_without_waiting(tmp_path: Path) -> None:
    tally = signalled_while_held(tmp_path, grace=3600, times=2)
    assert tally.clean, tally


# ---- by hand ---------------------------------------------------------------------------------------------------------


def long_signals(scale: int, jobs: int) -> Tally:
    """200 random moments, and both ends of a run that hangs."""
    with tempfile.TemporaryDirectory() as folder:
        tally = each(signalled, signals(Path(folder), 200 * scale), jobs=jobs, told="signals")
        for times, grace in ((1, 0.3), (2, 3600.0)):
            tally += signalled_while_held(Path(folder) / f"held-{times}", grace=grace, times=times)
        return tally
