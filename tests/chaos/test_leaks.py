"""Answers that repeat the key and the prompt's text: neither is in anything that the command writes.

Every other campaign searches its folder too, see `Campaign.search_leaks`; here the registry does its worst.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.campaign import CANARY, SCALE, Tally, campaign, each
from tests.chaos.faultserver import Plan, echo
from tests.chaos.test_faults import spoiled

STATUSES: Final = (200, 302, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503)
GONE: Final = ("GET", 404)
"""Nothing is said of a prompt that is not there any more."""
METHODS: Final = ("GET", "POST")
FORMATS: Final = ("json", "console")


@dataclass(frozen=True)
class Case:
    """Every answer to these requests says it all, with this status."""

    folder: Path
    method: str
    status: int
    log_format: str


def echoed(case: Case) -> Tally:
    """The first two listings are as they should be, or the run would not get far."""
    plan = Plan(echo(case.status), case.method, nth=3 if case.method == "GET" else 1, on=True)
    limits = {"settle": "0.1s", "attempts": 1}
    flags = ["--log-level", "debug", "--log-format", case.log_format, "--summary", "summary.json"]
    if case.status == 429:  # there is no end to these
        flags += ["--max-duration", "1s"]
    with spoiled(case.folder, prompts=3, seed=1, limits=limits) as (one, proxy):
        proxy.suffer(plan)
        one.run(*flags)
        one.disturbed(plan.spoiled)
        if not plan.spoiled:
            one.complain("no answer was spoiled", undetected=1)
    return one.tally


def cases(folder: Path) -> list[Case]:
    """All statuses, on reads and on creates, in both formats of the log."""
    every = [case for case in product(METHODS, STATUSES, FORMATS) if case[:2] != GONE]
    return [Case(folder / "-".join(map(str, case)), *case) for case in every]


def test_answers_that_repeat_key_and_text_leak_nothing(tmp_path: Path) -> None:
    every = cases(tmp_path)
    share = every if SCALE > 1 else every[::3]  # all statuses and methods come, the formats take turns
    tally = each(echoed, share, jobs=8)
    assert tally.clean, tally


@pytest.mark.parametrize("secret", ["key", "text"])
def test_the_search_finds_what_leaks(secret: str, tmp_path: Path) -> None:
    with campaign(tmp_path / "leaky", prompts=1, seed=1) as one:
        leak = one.registry.api_key if secret == "key" else CANARY
        (one.folder / "debug.log").write_text(f"sent {leak} to the registry")
    assert one.tally.leaked == 1


def long_leaks(_scale: int, jobs: int) -> Tally:
    """All cases."""
    with tempfile.TemporaryDirectory() as folder:
        return each(echoed, cases(Path(folder)), jobs=jobs, told="echoed secrets")
