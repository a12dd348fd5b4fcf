"""The search for the number in flight, against simulated registries with so many workers and so long a way to them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from statistics import mean, median
from typing import Protocol

import pytest

from engine.http.concurrency_search import FIRST_LIMIT, ConcurrencySearch
from tests.simulator import Latency, Run, Unlimited, World, migrated

SEEDS = 20
CEILING = 64


class Search(Protocol):
    """What decides how many are in flight."""

    limit: int

    def finished(self, kind: str, seconds: float, *, in_flight: int, crowded: bool) -> None: ...


@dataclass
class Fixed:
    """Always the same."""

    limit: int

    def finished(self, kind: str, seconds: float, *, in_flight: int, crowded: bool) -> None:
        """Learns nothing."""


@dataclass(frozen=True)
class Registry:
    """`way`: seconds there and back at a time; `service`: seconds of one of its workers for a read or a write."""

    way: Callable[[random.Random, float], float]
    workers: int
    service: Callable[[random.Random, str], float]
    rate: float | None = None
    """The most that the client sends a second, whatever the search says; None: there is no such limit."""
    row: int = 1
    """So many reads are followed by as many writes."""


def always(seconds: float) -> Callable[[random.Random, object], float]:
    return lambda draw, _: seconds


def steady(seconds: float) -> Callable[[random.Random, object], float]:
    """A fifth more or less."""
    return lambda draw, _: seconds * draw.uniform(0.8, 1.2)


def noisy(seconds: float, spread: float) -> Callable[[random.Random, object], float]:
    """Lognormal: with a spread of 1, one in 40 takes seven times as long."""
    return lambda draw, _: seconds * draw.lognormvariate(0.0, spread)


def one_in_five(seconds: float) -> Callable[[random.Random, object], float]:
    """A fifth are large, and take so long; the others next to nothing."""
    return lambda draw, _: seconds if draw.random() < 0.2 else 0.001


def pauses(draw: random.Random, _: str) -> float:
    return 0.05 if draw.random() < 0.002 else 0.0008


def slow_writes(draw: random.Random, kind: str) -> float:
    return 0.01 if kind == "read" else 0.05


NEAR = Registry(always(0.0003), 1, steady(0.0008))
FAR = Registry(always(0.3), 1000, always(0.001))
NEARBY = {
    "near, one thread": NEAR,
    "near, noisy": Registry(always(0.0003), 1, noisy(0.0008, 0.6)),
    "near, stops for 50 ms now and then": Registry(always(0.0003), 1, pauses),
    "near, slow writes in rows": Registry(always(0.001), 1, slow_writes, row=300),
}
FAR_AWAY = {
    "far": FAR,
    "far, noisy": Registry(noisy(0.3, 0.5), 1000, always(0.001)),
    "far, very noisy": Registry(noisy(0.3, 1.0), 1000, always(0.001)),
    "far, small and large": Registry(always(0.3), 1000, one_in_five(1.0)),
}
BETWEEN = {
    "far, 8 workers": Registry(always(0.2), 8, always(0.1)),
    "8 slow workers": Registry(always(0.05), 8, steady(0.25)),
    "small and large through one pipe": Registry(always(0.05), 1, one_in_five(0.005)),
    "writes take 5 times as long": Registry(always(0.02), 16, slow_writes),
    # the client's own processor is a worker like any other
    "the client itself is busy": Registry(always(0.02), 1, steady(0.002)),
}
REGISTRIES = NEARBY | FAR_AWAY | BETWEEN


@dataclass
class Ran:
    """When each request ended, and the limit after it."""

    ends: list[float] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """For all of it."""
        return self.ends[-1]

    @property
    def second_half(self) -> float:
        """Requests a second."""
        half = len(self.ends) // 2
        return (len(self.ends) - half) / (self.ends[-1] - self.ends[half])


def run(search: Search, registry: Registry, requests: int, seed: int) -> Ran:
    draw = random.Random(seed)
    free, under_way, ran = [0.0] * registry.workers, list[tuple[float, int, str, float, int]](), Ran()
    now, crowded_at, sent, not_before = 0.0, -1.0, 0, 0.0
    while len(ran.ends) < requests:
        while sent < requests and len(under_way) < search.limit and not_before <= now:
            kind, way = ("read", "write")[sent // registry.row % 2], registry.way(draw, now)
            begins = max(heapq.heappop(free), now + way / 2)
            ends = begins + registry.service(draw, kind)
            heapq.heappush(free, ends)
            heapq.heappush(under_way, (ends + way / 2, sent, kind, now, len(under_way) + 1))
            sent += 1
            if registry.rate is not None:
                not_before = now + 1 / registry.rate
        if sent < requests and len(under_way) >= search.limit:
            crowded_at = now
        elif sent < requests and (not under_way or not_before < under_way[0][0]):
            now = not_before
            continue
        now, _, kind, at, beside = heapq.heappop(under_way)
        search.finished(kind, now - at, in_flight=beside, crowded=crowded_at >= at)
        ran.ends.append(now)
        ran.limits.append(search.limit)
    return ran


def searched(registry: Registry, requests: int) -> list[Ran]:
    return [run(ConcurrencySearch(ceiling=CEILING), registry, requests, seed) for seed in range(SEEDS)]


@cache
def fixed(name: str, requests: int) -> tuple[float, float]:
    """The best that any fixed number in flight gives: requests a second in the second half, and seconds in all."""
    ran = [run(Fixed(limit), REGISTRIES[name], requests, 1) for limit in (1, 2, 4, 8, 12, 16, 24, 32, 64)]
    return max(one.second_half for one in ran), min(one.seconds for one in ran)


@pytest.mark.parametrize("name", REGISTRIES)
def test_throughput_is_that_of_the_best_fixed_number(name: str) -> None:
    assert median(ran.second_half for ran in searched(REGISTRIES[name], 4000)) >= 0.9 * fixed(name, 4000)[0]


@pytest.mark.parametrize("name", REGISTRIES)
def test_no_run_is_spoilt_by_bad_luck_at_its_start(name: str) -> None:
    assert max(ran.seconds for ran in searched(REGISTRIES[name], 2000)) <= 2.5 * fixed(name, 2000)[1]


@pytest.mark.parametrize(("name", "most"), [*zip(NEARBY, (4, 5, 5, 4), strict=True)])
def test_a_near_registry_settles_at_a_few(name: str, most: float) -> None:
    assert median(mean(ran.limits[4000:]) for ran in searched(NEARBY[name], 8000)) <= most


@pytest.mark.parametrize("name", FAR_AWAY)
def test_a_far_registry_settles_at_dozens(name: str) -> None:
    assert median(mean(ran.limits[2000:]) for ran in searched(FAR_AWAY[name], 4000)) >= 56


def test_a_far_registry_gets_dozens_soon() -> None:
    ran = run(ConcurrencySearch(ceiling=CEILING), FAR, 2000, 1)
    assert next(end for end, limit in zip(ran.ends, ran.limits, strict=True) if limit == CEILING) <= 10 * 0.3
    assert ran.seconds <= 1.4 * run(Fixed(CEILING), FAR, 2000, 1).seconds


def test_few_requests_are_not_kept_waiting() -> None:
    assert run(ConcurrencySearch(ceiling=CEILING), FAR, 30, 1).seconds < 30 * 0.3 / FIRST_LIMIT


def test_what_nobody_waited_behind_says_nothing() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    for _ in range(1000):
        search.finished("read", 0.3, in_flight=4, crowded=False)
    assert search.limit == FIRST_LIMIT


def test_it_does_not_grow_where_a_rate_holds_the_requests_back() -> None:
    slowly = replace(FAR, rate=0.7 * FIRST_LIMIT / 0.3)
    assert set(run(ConcurrencySearch(ceiling=CEILING), slowly, 2000, 1).limits) == {FIRST_LIMIT}


def test_more_writes_than_before_are_not_taken_for_a_slower_registry() -> None:
    for seed in range(SEEDS):
        search, draw, limits = ConcurrencySearch(ceiling=CEILING), random.Random(seed), list[int]()
        for _ in range(130):
            kind, seconds = draw.choice([("read", 0.1), ("write", 0.9)])
            search.finished(kind, seconds, in_flight=search.limit, crowded=True)
            limits.append(search.limit)
        assert limits == sorted(limits)
        assert limits[-1] == CEILING


def test_reads_do_not_speak_for_writes() -> None:
    search, limits = ConcurrencySearch(ceiling=CEILING), [FIRST_LIMIT]
    for _ in range(2000):
        # another kind at every limit that is tried, and no limit is of use
        kind = "read" if len(limits) % 2 else "write"
        search.finished(kind, 0.1 * search.limit, in_flight=search.limit, crowded=True)
        if search.limit != limits[-1]:
            limits.append(search.limit)
    assert max(limits) <= 2 * FIRST_LIMIT


@pytest.mark.parametrize("ceiling", [1, 2, 3, 5])
def test_it_stays_between_one_and_the_ceiling(ceiling: int) -> None:
    for registry in REGISTRIES.values():
        ran = run(ConcurrencySearch(ceiling=ceiling), registry, 1500, 1)
        assert 1 <= min(ran.limits) <= max(ran.limits) <= ceiling


def test_a_ceiling_below_the_first_limit_is_made_use_of() -> None:
    assert set(run(ConcurrencySearch(ceiling=1), FAR, 500, 1).limits) == {1}
    assert median(run(ConcurrencySearch(ceiling=2), FAR, 2000, 1).limits) == 2


@pytest.mark.parametrize(("begin", "end"), [(0.1, 0.6), (0.8, 2.5), (3.0, 5.0), (3.0, 30.0)])
def test_a_slow_spell_does_no_lasting_harm(begin: float, end: float) -> None:
    spell = replace(FAR, way=lambda draw, now: 0.3 if begin < now < end else 0.05)
    ran = run(ConcurrencySearch(ceiling=CEILING), spell, 20_000, 1)
    assert mean(limit for at, limit in zip(ran.ends, ran.limits, strict=True) if at > end + 5) >= 48


@pytest.mark.parametrize("moment", [0.05, 0.2, 0.5, 8.0])
def test_a_longer_way_for_good_is_lived_with(moment: float) -> None:
    changed = replace(FAR, way=lambda draw, now: 0.02 if now < moment else 0.2)
    ran = run(ConcurrencySearch(ceiling=CEILING), changed, 40_000, 1)
    assert mean(limit for at, limit in zip(ran.ends, ran.limits, strict=True) if at > moment + 10) >= 48


def test_it_shrinks_when_only_latency_grows() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    run(search, FAR, 2000, 1)
    assert search.limit > 32
    run(search, NEAR, 30_000, 1)
    assert search.limit <= 8


def test_it_grows_soon_when_the_registry_is_another_one() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    run(search, NEAR, 8000, 1)
    assert search.limit <= 4
    ran = run(search, FAR, 4000, 1)
    assert next(end for end, limit in zip(ran.ends, ran.limits, strict=True) if limit >= 48) <= 20


def test_it_uses_workers_that_come_later() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    run(search, Registry(always(0.05), 2, always(0.05)), 40_000, 1)
    assert search.limit <= 6
    ran = run(search, Registry(always(0.05), 64, always(0.05)), 12_000, 1)
    assert mean(ran.limits[6000:]) >= 48


# ---- a rate and a latency --------------------------------------------------------------------------------------------


def of(
    seconds: float, *, kind: str = "read", in_flight: int = 1, search: ConcurrencySearch | None = None
) -> ConcurrencySearch:
    """A search that has seen so many seconds with so few in flight."""
    search = search or ConcurrencySearch(ceiling=CEILING)
    for _ in range(16):
        search.finished(kind, seconds, in_flight=in_flight, crowded=False)
    return search


def test_a_rate_that_is_known_never_waits_for_a_place() -> None:
    search = of(0.45)
    search.expect(100.0, firm=True)
    assert search.limit >= 0.45 * 100 * 1.3


def test_before_the_first_answer_nothing_is_expected_of_the_latency() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    search.expect(100.0, firm=True)
    assert search.limit == FIRST_LIMIT


def test_an_earlier_run_tells_the_latency() -> None:
    search = ConcurrencySearch(ceiling=CEILING, latency=0.1)
    search.expect(50.0, firm=True)
    assert 5 < search.limit < CEILING


def test_latency_that_jitters_takes_no_places_away() -> None:
    search, draw = of(0.45), random.Random(1)
    search.expect(100.0, firm=True)
    for _ in range(2000):
        seconds = 5.0 if draw.random() < 0.01 else draw.uniform(0.3, 0.6)
        search.finished("read", seconds, in_flight=50, crowded=draw.random() < 0.2)
        search.expect(100.0, firm=True)
        assert search.limit >= 0.45 * 100


def test_a_registry_that_more_in_flight_only_slows_down_does_not_get_more() -> None:
    """It takes 90 a second, whatever the file says."""
    search = of(0.01)
    for _ in range(3000):
        search.expect(100.0, firm=True)
        search.finished("read", search.limit / 90, in_flight=search.limit, crowded=True)
    assert search.limit <= 12


def test_a_way_that_becomes_longer_gets_the_places_it_needs() -> None:
    search = of(0.05)
    search.expect(100.0, firm=True)
    for _ in range(3):
        of(0.4, search=search)
    search.expect(100.0, firm=True)
    assert search.limit >= 0.4 * 100 * 1.3


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "most"), [(1, 4), (2, 6), (8, 32)])
def test_a_registry_that_a_few_keep_busy_is_not_asked_by_dozens(workers: int, most: int) -> None:
    """It refuses nothing, so that its rate is never known; the more are in flight the longer all wait."""
    work = 0.06
    for seed in range(3):
        world = World(limit=Unlimited, latency=Latency(work, work), workers=workers)
        (seen,) = migrated(world, Run(prompts=1000, seconds=None), seed)
        assert median(seen.beside) <= most
        assert seen.ended <= 1.15 * len(seen.left) * work / workers
