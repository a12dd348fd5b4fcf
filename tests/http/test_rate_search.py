"""The search for the rate: alone, and in whole migrations against simulated registries (medians of a few seeds).

The grid in benchmarks/README.md holds the same worlds, and more of them, with 20 seeds each.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import pytest

from engine.http.limiter import Known
from engine.http.rate_search import FIRST_RATE, LONGEST_PAUSE_S, RESERVE, RateSearch, Sent
from tests.simulator import (
    FAR,
    NEAR,
    TAIL,
    Bucket,
    Latency,
    Limit,
    Run,
    Seen,
    Sliding,
    Unlimited,
    Window,
    World,
    migrated,
)

SEEDS = 3
LATE = 0.02


def ran(world: World, run: Run, seeds: int = SEEDS) -> list[Seen]:
    """One client each."""
    found = [migrated(world, run, seed)[0] for seed in range(seeds)]
    assert not any(seen.in_pauses for seen in found)
    return found


def used(found: list[Seen], seconds: float = 70.0, start: float = 0.0) -> float:
    return median(seen.used(seconds, start) for seen in found)


def refused(found: list[Seen]) -> float:
    return median(seen.refused_part for seen in found)


def bucket(rate: float, capacity: float) -> Callable[[], Limit]:
    return lambda: Bucket([(0, rate)], capacity)


# ---- a limit that nobody told of, by default settings ----------------------------------------------------------------


@pytest.mark.parametrize("capacity", [10, 50])
@pytest.mark.parametrize(
    ("latency", "share", "least", "most"),
    [(NEAR, 0.9, 0.82, 0.01), (NEAR, 1.0, 0.9, 0.02), (FAR, 0.9, 0.75, 0.025), (FAR, 1.0, 0.85, 0.025)],
)
def test_a_limit_is_found_used_and_told(
    capacity: float, latency: Latency, share: float, least: float, most: float
) -> None:
    found = ran(World(limit=bucket(50, capacity), latency=latency, late=LATE), Run(share=share))
    assert used(found) >= least
    assert refused(found) <= most
    assert median(seen.limit_found for seen in found) == pytest.approx(50, rel=0.05)


def test_a_fleet_uses_the_one_limit_that_its_migrations_share() -> None:
    world = World(limit=bucket(50, 50), latency=Latency(0.005, 0.02), late=LATE)
    found = ran(world, Run(prompts=50, fleet=40, seconds=None), seeds=2)
    assert median(seen.used(seen.ended) for seen in found) >= 0.9
    assert refused(found) <= 0.01
    assert all(len(seen.accepted) >= 40 * 100 for seen in found)


@pytest.mark.parametrize("retry_after", ["date", ""])
def test_a_wait_may_be_a_date_or_not_be_told_at_all(retry_after: str) -> None:
    found = ran(World(limit=bucket(50, 10), latency=NEAR, late=LATE, retry_after=retry_after), Run())
    assert used(found) >= 0.80
    assert refused(found) <= 0.01


@pytest.mark.parametrize("latency", [Latency(), NEAR, FAR])
def test_ten_a_second(latency: Latency) -> None:
    found = ran(World(limit=bucket(10, 10), latency=latency, late=LATE), Run())
    assert used(found) >= 0.82
    assert refused(found) <= 0.03


def test_a_few_answers_that_take_very_long_change_nothing() -> None:
    found = ran(World(limit=bucket(50, 50), latency=TAIL, late=LATE), Run())
    assert used(found) >= 0.80
    assert refused(found) <= 0.01


def test_a_capacity_of_one() -> None:
    found = ran(World(limit=bucket(50, 1), latency=NEAR), Run())
    assert used(found) >= 0.75
    assert refused(found) <= 0.02


@pytest.mark.parametrize("retry_after", ["seconds", ""])
@pytest.mark.parametrize("limit", [Window, Sliding])
def test_a_limit_by_the_minute(limit: Callable[[int, float], Limit], retry_after: str) -> None:
    found = ran(World(limit=lambda: limit(600, 60.0), latency=NEAR, late=LATE, retry_after=retry_after), Run())
    assert used(found) >= 0.80


def test_headers_that_tell_the_limit_are_kept_to() -> None:
    found = ran(World(limit=lambda: Window(600, 60.0), latency=NEAR, late=LATE, headers=True), Run())
    assert used(found) >= 0.80
    assert refused(found) == 0
    found = ran(World(limit=bucket(50, 50), latency=NEAR, late=LATE, headers=True), Run())
    assert used(found) >= 0.80


@pytest.mark.parametrize("low", [5, 25])
def test_a_limit_that_drops_and_comes_back(low: float) -> None:
    phases = [(0.0, 50.0), (60.0, low), (120.0, 50.0)]
    found = ran(World(limit=lambda: Bucket(phases, 50), latency=NEAR, late=LATE), Run(seconds=180))
    assert used(found, 180) >= 0.75
    assert refused(found) <= 0.02


@pytest.mark.parametrize("capacity", [10, 50])
def test_another_client_is_left_alone(capacity: float) -> None:
    found = ran(World(limit=bucket(50, capacity), latency=NEAR, late=LATE, others=20), Run())
    assert used(found) >= 0.8 * 0.6
    assert median(seen.others_refused / seen.others for seen in found) <= 0.01


def test_two_runs_with_one_key_share_it() -> None:
    world = World(limit=bucket(50, 50), latency=NEAR, late=LATE)
    both = [migrated(world, Run(clients=2), seed) for seed in range(SEEDS)]
    assert median(sum(seen.used(70) for seen in found) for found in both) >= 0.8
    assert median(max(seen.refused_part for seen in found) for found in both) <= 0.04


# ---- a limit that is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("latency", "least"), [(Latency(0.05, 0.1), 0.97), (FAR, 0.95)])
def test_a_limit_that_is_given_is_used_and_never_met(latency: Latency, least: float) -> None:
    found = ran(World(limit=bucket(100, 10), latency=latency, late=LATE), Run(rate=100))
    assert used(found) >= least
    assert not any(seen.refused for seen in found)


def test_not_even_in_the_first_second_and_with_a_capacity_of_one() -> None:
    found = ran(World(limit=bucket(100, 1), latency=FAR), Run(rate=100, seconds=20))
    assert not any(seen.refused for seen in found)


def test_a_limit_that_was_given_too_high_is_searched_below_it() -> None:
    found = ran(World(limit=bucket(20, 20), latency=NEAR, late=LATE), Run(rate=50))
    assert used(found) >= 0.8
    assert refused(found) <= 0.02


@pytest.mark.parametrize("latency", [NEAR, FAR])
def test_a_second_run_begins_where_the_first_one_ended(latency: Latency) -> None:
    found = ran(World(limit=bucket(50, 10), latency=latency, late=LATE), Run(known=Known(limit=50, latency_s=0.2)))
    assert all(seen.rates[2] >= 0.8 * 50 for seen in found)
    assert median(seen.limit_found for seen in found) == pytest.approx(50, rel=0.05)
    assert used(found) >= 0.8
    assert refused(found) <= 0.01


def test_a_memory_that_is_wrong_does_no_lasting_harm() -> None:
    for limit in (15, 400):
        found = ran(World(limit=bucket(50, 50), latency=NEAR, late=LATE), Run(known=Known(limit=limit), seconds=90))
        assert used(found, 90, 40) >= 0.8
        assert refused(found) <= 0.02


# ---- without a limit -------------------------------------------------------------------------------------------------


def test_a_far_registry_without_a_limit_is_forty_times_faster_than_one_by_one() -> None:
    run = Run(prompts=1000, seconds=None)
    (seen,) = ran(World(limit=Unlimited, latency=Latency(0.15, 0.15)), run, seeds=1)
    assert len(seen.left) * 0.15 / seen.ended >= 40


# ---- alone -----------------------------------------------------------------------------------------------------------


def departing(search: RateSearch, now: float, *, bound: bool = True, beside: int = 64) -> Sent:
    search.rate(now)
    return search.sent(now, bound=bound, beside=beside)


def test_without_any_limit_the_rate_doubles_within_few_round_trips() -> None:
    search, now = RateSearch(ceiling=None, share=1.0), 0.0
    under_way: list[Sent] = []
    while now < 2.0:
        under_way.append(departing(search, now))
        while under_way[0].at <= now - 0.1:
            search.accepted(now, under_way.pop(0))
        now += 1 / search.rate(now)
    assert search.rate(now) >= FIRST_RATE * 2**6
    assert search.limit is None


def test_it_does_not_grow_while_it_is_not_what_binds() -> None:
    search = RateSearch(ceiling=None, share=1.0)
    for number in range(1000):
        sent = departing(search, number / 5, bound=False, beside=1)
        search.accepted(number / 5 + 1, sent)
    assert search.rate(200.0) == FIRST_RATE


def test_a_few_answers_one_by_one_are_evidence_too() -> None:
    search = RateSearch(ceiling=None, share=1.0)
    for number in range(20):
        search.accepted(number / 5 + 0.1, departing(search, number / 5, bound=False, beside=1))
    assert FIRST_RATE * 2 < search.rate(5.0) < FIRST_RATE * 5


def test_refusals_of_what_was_under_way_are_one_event() -> None:
    search = RateSearch(ceiling=100.0, share=1.0)
    sent = [departing(search, 0.01 * number) for number in range(300)]
    for one in [*sent[:280], *sent[281::2]]:
        search.accepted(one.at + 0.2, one)
    for one in sent[280::2]:
        assert search.refused(one.at + 0.2, one, 1.0, 0.5) == 1.0
    first = search.rate(4.5)
    assert first == search.rate(4.6)
    assert 40 < first < 60


def test_a_registry_that_stays_closed_costs_pauses_that_grow() -> None:
    search, now, pauses = RateSearch(ceiling=100.0, share=1.0), 0.0, []
    search.accepted(0.1, departing(search, 0.0))
    for _ in range(9):
        now += 0.2
        sent = departing(search, now)
        pauses.append(search.refused(now + 0.05, sent, None, 1.0))
        now += 0.05 + pauses[-1]
    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert search.rate(now) <= 2.0, "one request tells as much as many"


def test_a_wait_that_was_asked_for_is_kept() -> None:
    search = RateSearch(ceiling=None, share=1.0)
    assert search.refused(1.0, departing(search, 0.5), 37.0, 0.0) == 37.0


def test_a_header_slows_down_and_only_so_long() -> None:
    search = RateSearch(ceiling=100.0, share=1.0)
    search.hint(0.0, 30.0, 10.0)
    assert search.rate(0.0) == 3.0
    search.hint(0.0, 0.0, 10.0)
    assert search.rate(0.0) == 0.1
    search.hint(0.0, 1e6, 10.0)
    assert search.rate(0.0) == 100.0 * RESERVE, "no header makes it faster"
    search.hint(0.0, 30.0, 10.0)
    assert search.rate(10.0) == 100.0 * RESERVE


def test_a_second_that_is_only_rounded_up_slows_nothing_down() -> None:
    search = RateSearch(ceiling=100.0, share=1.0)
    search.hint(0.0, 0.0, 1.0)
    search.hint(0.1, 30.0, 1.0)
    assert search.rate(0.1) == 100.0 * RESERVE


def test_of_a_header_only_the_share_is_taken() -> None:
    search = RateSearch(ceiling=None, share=0.5)
    search.hint(0.0, 30.0, 10.0)
    assert search.rate(0.0) == 1.5


def test_the_rate_of_an_earlier_run_is_where_this_one_begins() -> None:
    search = RateSearch(ceiling=None, share=0.9, known=50.0)
    assert search.rate(0.0) == 40.0
    assert search.limit == 50.0
    assert RateSearch(ceiling=20.0, share=0.9, known=50.0).rate(0.0) == 20.0 * RESERVE
