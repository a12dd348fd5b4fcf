"""The search for the number in flight, against simulated registries with so many workers and so long a way to them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from statistics import mean, median
from typing import Protocol

import pytest

from engine.concurrency_search import FIRST_LIMIT, ConcurrencySearch

SEEDS = 10
CEILING = 64


class Search(Protocol):
    """What decides how many are in flight."""

    limit: int

    def finished(self, kind: str, seconds: float, *, crowded: bool) -> None: ...


@dataclass
class Fixed:
    """Always the same."""

    limit: int

    def finished(self, kind: str, seconds: float, *, crowded: bool) -> None:
        """Learns nothing."""


Draw = Callable[[], float]


@dataclass(frozen=True)
class Registry:
    """`way`: seconds there and back; `service`: seconds of one of its workers, for a read or a write, at a time."""

    way: Callable[[Draw, float], float]
    workers: int
    service: Callable[[Draw, str], float]


NEAR = Registry(lambda draw, now: 0.0003, 1, lambda draw, kind: 0.0008 * (1 + 0.2 * draw()))
FAR = Registry(lambda draw, now: 0.3, 1000, lambda draw, kind: 0.001)
REGISTRIES = {
    "near, one thread": NEAR,
    "far": FAR,
    "far, noisy": Registry(lambda draw, now: 0.3 * 2 ** (4 * draw() - 2), 1000, lambda draw, kind: 0.001),
    "far, 8 workers": Registry(lambda draw, now: 0.2, 8, lambda draw, kind: 0.1),
    "writes take 5 times as long": Registry(
        lambda draw, now: 0.02, 16, lambda draw, kind: 0.01 if kind == "read" else 0.05
    ),
}


@dataclass
class Ran:
    """`seconds` for all of it; the limit after each request."""

    seconds: float = 0.0
    ends: list[float] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    @property
    def second_half(self) -> float:
        """Requests a second."""
        half = len(self.ends) // 2
        return (len(self.ends) - half) / (self.ends[-1] - self.ends[half])


def run(search: Search, registry: Registry, requests: int, seed: int) -> Ran:
    draw = random.Random(seed).random
    free, under_way, ran = [0.0] * registry.workers, list[tuple[float, int, str, float]](), Ran()
    now, crowded_at, sent = 0.0, -1.0, 0
    while len(ran.ends) < requests:
        while sent < requests and len(under_way) < search.limit:
            kind, way = ("read", "write")[sent % 2], registry.way(draw, now)
            begins = max(heapq.heappop(free), now + way / 2)
            ends = begins + registry.service(draw, kind)
            heapq.heappush(free, ends)
            heapq.heappush(under_way, (ends + way / 2, sent, kind, now))
            sent += 1
        if sent < requests:
            crowded_at = now
        now, _, kind, at = heapq.heappop(under_way)
        search.finished(kind, now - at, crowded=crowded_at >= at)
        ran.ends.append(now)
        ran.limits.append(search.limit)
    ran.seconds = now
    return ran


@cache
def best(name: str, requests: int) -> float:
    """The most requests a second that any fixed number in flight gives."""
    return max(
        run(Fixed(limit), REGISTRIES[name], requests, 1).second_half for limit in (1, 2, 4, 8, 12, 16, 24, 32, 64)
    )


@pytest.mark.parametrize("name", REGISTRIES)
def test_throughput_is_that_of_the_best_fixed_number(name: str) -> None:
    found = [run(ConcurrencySearch(ceiling=CEILING), REGISTRIES[name], 4000, seed).second_half for seed in range(SEEDS)]
    assert median(found) >= 0.9 * best(name, 4000)


def test_a_near_registry_settles_at_a_few() -> None:
    found = [run(ConcurrencySearch(ceiling=CEILING), NEAR, 6000, seed).limits[3000:] for seed in range(SEEDS)]
    assert median(mean(limits) for limits in found) <= 5


def test_a_far_registry_gets_dozens_soon() -> None:
    ran = run(ConcurrencySearch(ceiling=CEILING), FAR, 2000, 1)
    assert next(end for end, limit in zip(ran.ends, ran.limits, strict=True) if limit >= 48) <= 12 * 0.3
    assert ran.seconds <= 1.4 * run(Fixed(CEILING), FAR, 2000, 1).seconds


def test_what_nobody_waited_behind_says_nothing() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    for _ in range(1000):
        search.finished("read", 0.3, crowded=False)
    assert search.limit == FIRST_LIMIT


@pytest.mark.parametrize("ceiling", [1, 2, 3, 5])
def test_it_stays_between_one_and_the_ceiling(ceiling: int) -> None:
    for registry in REGISTRIES.values():
        ran = run(ConcurrencySearch(ceiling=ceiling), registry, 1500, 1)
        assert 1 <= min(ran.limits) <= max(ran.limits) <= ceiling


def test_a_slow_spell_does_no_lasting_harm() -> None:
    spell = Registry(lambda draw, now: 0.3 if 3 < now < 5 else 0.05, 1000, lambda draw, kind: 0.001)
    assert mean(run(ConcurrencySearch(ceiling=CEILING), spell, 8000, 1).limits[6000:]) >= 48


def test_it_shrinks_when_only_latency_grows() -> None:
    search = ConcurrencySearch(ceiling=CEILING)
    run(search, FAR, 2000, 1)
    assert search.limit > 32
    run(search, NEAR, 30_000, 1)
    assert search.limit <= 8
