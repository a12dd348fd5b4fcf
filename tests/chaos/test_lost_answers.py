"""Creates that happen while their answers get lost, and rows that are listed late: one replica each, all the same."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.campaign import SCALE, Tally, each
from tests.chaos.faultserver import Plan
from tests.chaos.test_faults import spoiled

CHANCE = 0.3


@dataclass(frozen=True)
class Case:
    """`lag`: seconds after which every new row is listed; `late`: each row comes at its own time, at most five."""

    folder: Path
    seed: int
    prompts: int
    settle: float
    lag: float = 0.0
    late: bool = False
    fault: str = "reset after"


def lost_answers(case: Case) -> Tally:
    plan = Plan(case.fault, "POST", on=True, chance=CHANCE, seed=case.seed)
    registry = {"quirks": {"listing_lag_s": case.lag}, "faults": {"late_listing": 1.0} if case.late else {}}
    limits = {"settle": case.settle}
    with spoiled(case.folder, prompts=case.prompts, seed=case.seed, limits=limits, **registry) as (one, proxy):
        proxy.suffer(plan)
        one.run()
        one.disturbed(plan.spoiled)
        proxy.suffer(None)
        one.resume()
    return one.tally


def test_lost_answers_double_and_lose_nothing(tmp_path: Path) -> None:
    cases = [
        Case(tmp_path / f"{fault}-{lag}-{seed}".replace(" ", "-"), seed, 60, settle=settle, lag=lag, fault=fault)
        for seed in range(SCALE)
        for fault, settle, lag in (
            *(("reset after", 0.6, 0.0), ("truncated", 0.6, 0.0), ("reset after", 0.6, 0.5)),
            ("truncated", 1.0, 1.5),  # only the second look-up finds what is listed so late
        )
    ]
    tally = each(lost_answers, cases)
    assert tally.clean, tally
    assert tally.faults > 10 * len(cases)


def test_the_oracle_sees_rows_that_come_later_than_the_settle_time_allows(tmp_path: Path) -> None:
    tally = lost_answers(Case(tmp_path / "late", 1, 20, settle=0.1, lag=3.0))
    assert tally.doubled, tally


def long_lost_answers(scale: int, jobs: int) -> Tally:
    """300 prompts, rows at once and up to five seconds late, the settle time above that and half of it."""
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            Case(Path(folder) / f"{settle}-{late}-{seed}", seed, 300, settle=settle, late=late)
            for seed in range(5 * scale)
            for settle, late in ((0.4, False), (5.5, True), (2.7, True))
        ]
        return each(lost_answers, cases, jobs=jobs, told="lost answers")
