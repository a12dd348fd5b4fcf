"""Killed at any moment, with and without a power cut: the same command again ends with every replica there once."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from tests.chaos.campaign import SCALE, Campaign, Tally, campaign, each, wait_until
from tests.chaos.disk import check_intents, cut_power, diary, synced_lines, watched

LINE: Final = 570
"""Bytes of a line of the ledger, more or less."""
LATE: Final[Mapping[str, Any]] = {"quirks": {"listing_lag_s": 1.2}, "limits": {"settle": "1.5s"}}
"""Rows appear late: what was sent before a kill is not listed when the next run starts."""
SLOW: Final[Mapping[str, Any]] = {"faults": {"slow": 0.05}, "slow_s": 1.2, "limits": {"settle": "1.5s"}}
"""Requests are slow, and the registry drops those whose client is gone: what was sent before a kill never happens."""
VERY_LATE: Final[Mapping[str, Any]] = {"quirks": {"listing_lag_s": 3.0}, "limits": {"settle": "4s"}}
"""However long a run takes to start: only its ledger can tell it what was sent."""


# ---- kill -9 at random moments ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Killed:
    """Up to three runs that are killed, and the one that goes on to the end."""

    folder: Path
    seed: int
    prompts: int
    trouble: Mapping[str, Any]
    lie: str | None = None


def killed(case: Killed) -> Tally:
    rng = random.Random(case.seed)
    with campaign(case.folder, prompts=case.prompts, seed=case.seed, **case.trouble) as one:
        for _ in range(1 if case.lie else rng.randint(1, 3)):
            if not _killed_once(one, rng, case.lie):
                break
            one.disturbed()
        one.resume()
    return one.tally


def _killed_once(one: Campaign, rng: random.Random, lie: str | None) -> bool:
    """Kills a run once it has come so far, by what the registry answered or by the bytes of its ledger."""
    left = len(one.sources) - len(one.truth())
    requests = len(one.answered) + rng.randint(1, 2 * left + 4)
    size = one.size() + rng.randrange(2 * left * LINE + 1)
    by_size = lie is None and rng.random() < 0.5
    plan = {"lie": lie, **watched(one)} if lie else None
    with one.start(plan=plan) as process:
        if wait_until(process, lambda: one.size() > size if by_size else len(one.answered) >= requests):
            process.kill()
            return True
        one.hear(process.end())
        return False


def kills(folder: Path, campaigns: int, *, prompts: int, **more: Any) -> Iterator[Killed]:
    """Seeded; every third one with rows that come late, every third with slow requests."""
    for seed in range(campaigns):
        trouble = ({}, LATE, SLOW)[seed % 3]
        yield Killed(folder / f"kill-{seed}", seed, prompts, trouble, **more)


# ---- killed at every call of the disk --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """A run that dies at the `at`-th call; `power`: with it goes what was written and never synced."""

    folder: Path
    at: int
    fault: str
    concurrency: int
    trouble: Mapping[str, Any] = field(default_factory=dict)
    power: bool = False
    lie: str | None = None


def killed_at(case: Call) -> Tally:
    trouble = {**case.trouble, "limits": {**case.trouble.get("limits", {}), "concurrency": case.concurrency}}
    with campaign(case.folder, prompts=20, seed=case.at, **trouble) as one:
        counted = ("write",) if case.fault == "kill_half" else ("write", "fdatasync", "fsync")
        plan = {"at": case.at, "fault": case.fault, "calls": counted, "lie": case.lie, **watched(one)}
        with one.start(plan=plan) as process:
            code = process.wait()
            if code >= 0:
                one.hear(process.end())
        if code < 0:
            check_intents(one, synced_lines(one))
            if case.power:
                cut_power(one, random.Random(case.at))
            one.disturbed()
        one.resume()
    return one.tally


def calls(folder: Path, *, concurrency: int = 4, lie: str | None = None) -> list[str]:
    """The names of the calls that an undisturbed run makes."""
    with campaign(folder, prompts=20, seed=0, limits={"concurrency": concurrency}) as one:
        assert one.run(plan={"lie": lie, **watched(one)}).code == 0
        return [name for name, _ in diary(one)]


def every_call(folder: Path, *, concurrency: int) -> Iterator[Call]:
    """Before each call, after half of each write, and with a power cut before each call."""
    made = calls(folder / f"whole-{concurrency}", concurrency=concurrency)
    for at in range(1, _more(len(made))):
        yield Call(folder / f"c{concurrency}-before-{at}", at, "kill", concurrency)
        yield Call(folder / f"c{concurrency}-power-{at}", at, "kill", concurrency, LATE, power=True)
    for at in range(1, _more(made.count("write"))):
        yield Call(folder / f"c{concurrency}-half-{at}", at, "kill_half", concurrency)


def _more(calls: int) -> int:
    """How many entries share a write differs from run to run."""
    return calls + calls // 5 + 2


# ---- in CI -----------------------------------------------------------------------------------------------------------


def test_killed_at_random_moments(tmp_path: Path) -> None:
    tally = each(killed, kills(tmp_path, 25 * SCALE, prompts=60))
    assert tally.clean, tally
    assert tally.faults >= 25 * SCALE


def test_killed_at_every_call_of_the_disk(tmp_path: Path) -> None:
    tally = each(killed_at, every_call(tmp_path, concurrency=8))
    assert tally.clean, tally
    assert tally.faults > 30


@pytest.mark.parametrize("lie", ["unsynced", "intent_after"])
def test_the_oracle_sees_a_wrong_engine_that_is_killed(lie: str, tmp_path: Path) -> None:
    cases = [Killed(tmp_path / f"{seed}", seed, 60, VERY_LATE, lie) for seed in range(4 * SCALE)]
    tally = each(killed, cases)
    assert tally.doubled, tally


@pytest.mark.parametrize("lie", ["unsynced", "intent_after"])
def test_the_oracle_sees_a_wrong_engine_whose_power_is_cut(lie: str, tmp_path: Path) -> None:
    made = len(calls(tmp_path / "whole", lie=lie))
    cases = [
        Call(tmp_path / f"{at}", at, "kill", 4, VERY_LATE, power=True, lie=lie)
        for at in range(made // 3, made, max(1, made // 6))
    ]
    tally = each(killed_at, cases)
    assert tally.doubled, tally
    assert tally.undetected, tally


# ---- by hand ---------------------------------------------------------------------------------------------------------


def long_kills(campaigns: int, scale: int, jobs: int) -> Tally:
    """Campaigns of 200 prompts."""
    with tempfile.TemporaryDirectory() as folder:
        return each(killed, kills(Path(folder), campaigns * scale, prompts=200), jobs=jobs, told="kill -9")


def long_calls(_scale: int, jobs: int) -> Tally:
    """All calls, with few and with many entries to a write."""
    with tempfile.TemporaryDirectory() as folder:
        cases = [case for concurrency in (1, 4, 16) for case in every_call(Path(folder), concurrency=concurrency)]
        return each(killed_at, cases, jobs=jobs, told="kill at a call")
