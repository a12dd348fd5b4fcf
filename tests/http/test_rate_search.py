"""The search for the rate, against simulated registries: medians of 20 seeds, from the first cut or 30 s on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import pytest

from engine.http.rate_search import FIRST_RATE, LONGEST_PAUSE_S, RateSearch
from tests.simulator import Bucket, Limit, Run, Sliding, Window, simulate

SEEDS = 20


@dataclass(frozen=True)
class Figures:
    """Shares, each the median of all seeds: of what was allowed, of what was sent, of what others sent."""

    used: float
    refused: float
    others_refused: float


def figures(
    make: Callable[[], Limit],
    run: Run,
    *,
    share: float = 1.0,
    ceiling: float | None = None,
    start: float | None = None,
    seeds: int = SEEDS,
) -> Figures:
    found = [_one(make(), run, share, ceiling, start, seed) for seed in range(seeds)]
    return Figures(*(median(values) for values in zip(*found, strict=True)))


def _one(
    limit: Limit, run: Run, share: float, ceiling: float | None, start: float | None, seed: int
) -> tuple[float, float, float]:
    seen = simulate(RateSearch(ceiling=ceiling, share=share), limit, run, seed)
    begin = min(30.0, min(seen.refused, default=math.inf)) if start is None else start
    accepted = sum(moment > begin for moment in seen.accepted)
    refused = sum(moment > begin for moment in seen.refused)
    used = accepted / limit.allowed(begin, run.seconds)
    return used, refused / max(1, accepted + refused), seen.others_refused / max(1, seen.others)


@pytest.mark.parametrize("rate", [10, 50, 500])
@pytest.mark.parametrize("retry_after", [True, False])
def test_a_token_bucket_that_nobody_told_of(rate: int, retry_after: bool) -> None:
    found = figures(
        lambda: Bucket([(0, rate)], rate), Run(90, retry_after=retry_after), seeds=SEEDS if rate < 500 else 7
    )
    assert found.used >= 0.85
    assert found.refused <= 0.02


@pytest.mark.parametrize("rate", [10, 50])
def test_a_bucket_that_holds_a_single_token(rate: int) -> None:
    found = figures(lambda: Bucket([(0, rate)], 1), Run(90, jitter=0.0))
    assert found.used >= 0.80
    assert found.refused <= 0.02


def test_a_limit_that_is_known_is_used_and_never_passed() -> None:
    found = figures(lambda: Bucket([(0, 50)], 2), Run(90, jitter=0.01), ceiling=50, start=0)
    assert found.used >= 0.97
    assert found.refused == 0


def test_a_known_rate_that_was_too_high_after_all_is_searched_below_it() -> None:
    found = figures(lambda: Bucket([(0, 20)], 20), Run(90), ceiling=50)
    assert found.used >= 0.85
    assert found.refused <= 0.02


@pytest.mark.parametrize("retry_after", [True, False])
def test_a_window_of_a_minute(retry_after: bool) -> None:
    found = figures(lambda: Window(600, 60), Run(360, retry_after=retry_after), start=30)
    assert found.used >= 0.80
    assert found.refused <= 0.03


def test_a_sliding_window_of_a_minute() -> None:
    found = figures(lambda: Sliding(600, 60), Run(360), start=30)
    assert found.used >= 0.80
    assert found.refused <= 0.03


@pytest.mark.parametrize("retry_after", [True, False])
@pytest.mark.parametrize("seconds", [60, 120])
def test_a_limit_that_drops_and_comes_back(retry_after: bool, seconds: int) -> None:
    phases = [(0, 50), (seconds, 5), (2 * seconds, 50)]
    found = figures(lambda: Bucket(phases, 50), Run(3 * seconds, retry_after=retry_after), start=0)
    assert found.used >= 0.75
    assert found.refused <= 0.02


@pytest.mark.parametrize("rate", [20, 50])
def test_half_of_what_is_free_leaves_the_others_alone(rate: int) -> None:
    found = figures(lambda: Bucket([(0, rate)], rate), Run(180, others=0.4 * rate), share=0.5)
    assert found.others_refused <= 0.01
    assert 0.25 <= found.used <= 0.6


def test_the_default_share_leaves_a_part_unused_and_no_more() -> None:
    found = figures(lambda: Bucket([(0, 50)], 50), Run(180), share=0.9)
    assert 0.75 <= found.used <= 0.96
    assert found.refused <= 0.01


def test_without_any_limit_it_grows_by_half_each_second() -> None:
    search = RateSearch(ceiling=None, share=1.0)
    seen = simulate(search, Bucket([(0, 1e9)], 1e9), Run(8), seed=1)
    assert not seen.refused
    assert search.limit is None
    assert FIRST_RATE * 1.5**6 < search.rate(8.0) <= FIRST_RATE * 1.5**8


def test_it_does_not_grow_while_it_is_not_what_binds() -> None:
    search = RateSearch(ceiling=None, share=1.0)
    simulate(search, Bucket([(0, 1e9)], 1e9), Run(60, demand=lambda now: 5.0), seed=1)
    assert search.rate(60.0) == FIRST_RATE


def test_it_grows_alike_however_often_it_is_asked() -> None:
    rates = []
    for asked in (1, 20):
        search, now = RateSearch(ceiling=None, share=1.0), 0.0
        for _ in range(400):
            for part in range(asked):
                search.rate(now + 0.01 * part / asked)
            search.sent(now)
            now += 0.01
        rates.append(search.rate(now))
    assert rates[0] == pytest.approx(rates[1], rel=0.1)


def test_one_cut_for_all_that_was_under_way() -> None:
    search = RateSearch(ceiling=100.0, share=1.0)
    search.accepted(0.5)
    assert search.refused(2.0, 1.0, 1.0, 0.5) == 1.0
    assert search.rate(2.0) == pytest.approx(70.0)
    for moment in (2.0, 2.05, 2.1):
        search.refused(moment, 1.9, 1.0, 0.5)
    assert search.rate(2.1) == pytest.approx(70.0)


def test_a_registry_that_stays_closed_costs_pauses_and_not_the_rate() -> None:
    search, now, pauses = RateSearch(ceiling=100.0, share=1.0), 0.0, []
    search.accepted(0.0)
    for _ in range(9):
        now += 0.1
        pauses.append(search.refused(now, now - 0.05, None, 1.0))
        now += pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert search.rate(now) == 2.0, "one request tells as much as many"
    search.accepted(now)
    assert search.rate(now) == pytest.approx(70.0)


def test_a_wait_that_was_asked_for_is_kept() -> None:
    search = RateSearch(ceiling=None, share=1.0)
    assert search.refused(1.0, 0.5, 37.0, 0.0) == 37.0


def test_a_header_slows_down_and_only_so_long() -> None:
    search = RateSearch(ceiling=100.0, share=1.0)
    search.hint(0.0, 30.0, 10.0)
    assert search.rate(0.0) == 3.0
    search.hint(0.0, 0.0, 10.0)
    assert search.rate(0.0) == 0.1
    search.hint(0.0, 1e6, 10.0)
    assert search.rate(0.0) == 100.0, "no header makes it faster"
    search.hint(0.0, 30.0, 10.0)
    assert search.rate(10.0) == 100.0
