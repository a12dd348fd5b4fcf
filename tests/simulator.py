"""Registries and clients in virtual time: how often a search for the rate is refused, and how much of the limit it
uses.

Events come from a heap, so that twenty seeds of several minutes take a second.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from engine.http.rate_search import RateSearch

BURST_SECONDS = 0.02


class Limit(Protocol):
    """A registry's limit."""

    def takes(self, now: float) -> float | None:
        """None: accepted; else the seconds until it takes one again."""
        ...

    def allowed(self, start: float, end: float) -> float:
        """How many requests it would take in that time, at a steady rate."""
        ...


@dataclass
class Bucket:
    """A token bucket, whose rate may change: pairs of the moment and the rate from then on."""

    rates: Sequence[tuple[float, float]]
    capacity: float
    """Requests."""
    tokens: float = field(init=False)
    at: float = 0.0

    def __post_init__(self) -> None:
        self.tokens = self.capacity

    def takes(self, now: float) -> float | None:
        self.tokens = min(self.capacity, self.tokens + self.allowed(self.at, now))
        self.at = now
        if self.tokens >= 1 - 1e-9:
            self.tokens -= 1
            return None
        return (1 - self.tokens) / self._rate(now)

    def allowed(self, start: float, end: float) -> float:
        total = 0.0
        for (begin, rate), (until, _) in zip(self.rates, [*self.rates[1:], (math.inf, 0.0)], strict=True):
            total += rate * max(0.0, min(end, until) - max(start, begin))
        return total

    def _rate(self, now: float) -> float:
        return [rate for begin, rate in self.rates if begin <= now][-1]


@dataclass
class Window:
    """So many requests in each window of so many seconds, by the clock."""

    requests: int
    seconds: float
    number: int = -1
    used: int = 0

    def takes(self, now: float) -> float | None:
        number = int(now // self.seconds)
        if number != self.number:
            self.number, self.used = number, 0
        if self.used < self.requests:
            self.used += 1
            return None
        return (number + 1) * self.seconds - now

    def allowed(self, start: float, end: float) -> float:
        return self.requests / self.seconds * (end - start)


@dataclass
class Sliding:
    """So many requests in any so many seconds."""

    requests: int
    seconds: float
    times: deque[float] = field(default_factory=deque)

    def takes(self, now: float) -> float | None:
        while self.times and self.times[0] <= now - self.seconds:
            self.times.popleft()
        if len(self.times) < self.requests:
            self.times.append(now)
            return None
        return self.times[0] + self.seconds - now

    def allowed(self, start: float, end: float) -> float:
        return self.requests / self.seconds * (end - start)


@dataclass
class Seen:
    """What happened in one simulation. Times are those at which requests left."""

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: int = 0
    others_refused: int = 0
    paused: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """How a client works. `others`: requests a second of another client, at random moments, that never slows down."""

    seconds: float
    latency: float = 0.05
    jitter: float = 0.2
    """Of the latency, either way."""
    retry_after: bool = True
    others: float = 0.0
    others_from: float = 0.0
    demand: Callable[[float], float] = lambda now: math.inf
    """The most requests a second that there are to be sent."""


def simulate(search: RateSearch, limit: Limit, run: Run, seed: int) -> Seen:
    """One client with as much work as it can send, against one limit."""
    draw = random.Random(seed).random
    seen, events, number = Seen(), list[tuple[float, int, Callable[[float], None]]](), count()
    state = {"paused": 0.0, "credit": 0.0, "last": 0.0}

    def at(moment: float, what: Callable[[float], None]) -> None:
        heapq.heappush(events, (moment, next(number), what))

    def send(now: float) -> None:
        if now < state["paused"]:
            at(state["paused"], send)
            return
        rate = search.rate(now)
        search.sent(now)
        at(now + run.latency / 2 * (1 + run.jitter * (2 * draw() - 1)), lambda then: arrive(then, now))
        at(now + 1 / min(rate, run.demand(now)), send)

    def arrive(now: float, sent_at: float) -> None:
        asked = limit.takes(now)
        at(now + run.latency / 2 * (1 + run.jitter * (2 * draw() - 1)), lambda then: answer(then, sent_at, asked))

    def answer(now: float, sent_at: float, asked: float | None) -> None:
        if asked is None:
            seen.accepted.append(sent_at)
            search.accepted(sent_at)
            return
        seen.refused.append(sent_at)
        seconds = search.refused(now, sent_at, max(1.0, math.ceil(asked)) if run.retry_after else None, draw())
        until = now + seconds * (1 + 0.1 * draw())
        if until > state["paused"]:
            state["paused"] = until
            seen.paused.append((now, until))

    def other(now: float) -> None:
        if now >= run.others_from:
            seen.others += 1
            seen.others_refused += limit.takes(now) is not None
        at(now - math.log(1 - draw()) / run.others, other)

    at(0.0, send)
    if run.others:
        at(0.0, other)
    while events and events[0][0] < run.seconds:
        now, _, what = heapq.heappop(events)
        what(now)
    return seen
