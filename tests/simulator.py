"""Registries and migrations in virtual time: how much of a limit a run uses, and how often it is refused.

The whole path is the engine's own, from the walk through the listing over the Client to the RateLimiter; only the wire
is simulated: connections that are set up, the way there and back, the registry's limit, and timers that are late.
The pools are those of a migration: a read and a create for each prompt, creates after their reads.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from operator import itemgetter
from typing import Any, Protocol

import anyio

from engine.connectors.portkey.walk import walk
from engine.errors import EngineError
from engine.http.client import Client, Leave, RequestLimits, Timing
from engine.http.limiter import Known, RateLimiter, Throttle
from engine.http.responses import Answer, Request
from engine.http.session import KEEP_ALIVE, KeyAuth
from engine.taskgroup import for_each
from tests.virtual import in_virtual_time, now

PAGE = 100
INTENT_S = 0.002
"""The ledger is synced before a create leaves."""
EPOCH = 1_700_000_000.0
"""What the registry's clock says when a run begins."""


class Limit(Protocol):
    """A registry's limit."""

    def takes(self, now: float) -> float | None:
        """None: accepted; else the seconds until it takes one again."""
        ...

    def allowed(self, start: float, end: float) -> float:
        """How many requests it would take in that time, at a steady rate."""
        ...

    def told(self, now: float) -> tuple[float, float]:
        """What `X-RateLimit-*` says: the requests that remain, and the seconds until there are more."""
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

    def told(self, now: float) -> tuple[float, float]:
        return max(0.0, self.tokens), (self.capacity - self.tokens) / self._rate(now)

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

    def told(self, now: float) -> tuple[float, float]:
        return self.requests - self.used, self.seconds - now % self.seconds


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

    def told(self, now: float) -> tuple[float, float]:
        return self.requests - len(self.times), self.seconds


@dataclass
class Unlimited:
    """It takes everything."""

    def takes(self, now: float) -> float | None:
        return None

    def allowed(self, start: float, end: float) -> float:
        return math.inf

    def told(self, now: float) -> tuple[float, float]:
        return 1e6, 1.0


# ---- the way there and back ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Latency:
    """Seconds from a request to its answer, evenly spread; `tail`: a part of them takes `tail_s`.

    Half of the least is the way there and back, the rest the registry's work. `way`: seconds by which the way there
    differs.
    """

    least: float = 0.0
    most: float = 0.0
    tail: float = 0.0
    tail_s: float = 5.0
    way: float = 0.0

    def draw(self, draw: random.Random) -> tuple[float, float]:
        """There, and from there to the answer."""
        whole = self.tail_s if self.tail and draw.random() < self.tail else draw.uniform(self.least, self.most)
        there = self.least / 4 + draw.uniform(0, self.way)
        return there, max(0.0, whole - there)


NEAR = Latency(0.05, 0.15)
FAR = Latency(0.3, 0.6)
TAIL = Latency(0.05, 0.15, tail=0.01)

RetryAfter = str
"""`seconds`, `date`, or blank: none is sent."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Where a run happens. `late`: timers come up to so many seconds late. `headers`: the limit is told with each
    answer. `others`: requests a second of another client, at random moments, that never slows down.
    """

    limit: Callable[[], Limit]
    latency: Latency = Latency()
    late: float = 0.0
    retry_after: RetryAfter = "seconds"
    headers: bool = False
    others: float = 0.0
    workers: int | None = None
    """Requests that the registry works on at once; the others wait. None: all."""


@dataclass(kw_only=True)
class Seen:
    """What happened in one run, by the registry's own book. Times are those at which requests left."""

    left: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: int = 0
    others_refused: int = 0
    pauses: list[tuple[float, float]] = field(default_factory=list)
    """From the moment at which the client knew of it."""
    ended: float = 0.0
    limit: Limit = field(default_factory=Unlimited)
    throttle: Throttle | None = None
    rates: dict[int, float] = field(default_factory=dict)
    """Second -> the rate that was allowed then."""
    beside: list[int] = field(default_factory=list)
    """Requests that were on their way, each time one left, itself included."""
    took: list[float] = field(default_factory=list)
    """Seconds of each, until its answer."""

    def used(self, seconds: float, start: float = 0.0) -> float:
        """The accepted part of what was allowed."""
        return sum(start <= moment < seconds for moment in self.accepted) / self.limit.allowed(start, seconds)

    @property
    def limit_found(self) -> float:
        """As the client tells it; 0: none."""
        return (self.throttle.limit if self.throttle is not None else None) or 0.0

    @property
    def refused_part(self) -> float:
        return len(self.refused) / max(1, len(self.refused) + len(self.accepted))

    @property
    def in_pauses(self) -> int:
        """Requests that left in a pause."""
        return sum(begin < moment < end for begin, end in self.pauses for moment in self.left)


class Wire:
    """Connections to one registry."""

    def __init__(self, world: World, draw: random.Random, seen: Seen, rows: int) -> None:
        self._world, self._draw, self._seen, self._rows = world, draw, seen, rows
        self._kept: deque[float] = deque()
        """When each free connection was used last, newest last."""
        self._free = anyio.Semaphore(world.workers) if world.workers else None

    async def send(self, request: Request, headers: Mapping[str, str], leave: Leave) -> Answer:
        """One exchange."""
        while self._kept and self._kept[0] < now() - KEEP_ALIVE:
            self._kept.popleft()
        if self._kept:
            self._kept.pop()
        else:
            await asyncio.sleep(2 * self._world.latency.least / 2)  # TCP and TLS: there and back, twice
        if not await leave():
            self._kept.append(now())
            return Answer(held=True)
        left = now()
        self._seen.left.append(left)
        self._seen.beside.append(len(self._seen.left) - len(self._seen.took))
        there, back = self._world.latency.draw(self._draw)
        await asyncio.sleep(there)
        asked = self._seen.limit.takes(now())
        (self._seen.accepted if asked is None else self._seen.refused).append(left)
        answer = self._answer(request, asked)
        if self._free is not None:
            async with self._free:
                await asyncio.sleep(back)
        else:
            await asyncio.sleep(back)
        self._kept.append(now())
        self._seen.took.append(now() - left)
        if asked is not None and self._world.retry_after:
            self._seen.pauses.append((now() + 1e-4, now() + max(1.0, math.ceil(asked)) - 1e-3))
        return answer

    def _answer(self, request: Request, asked: float | None) -> Answer:
        headers = {"Date": formatdate(EPOCH + now(), usegmt=True)}
        if self._world.headers:
            left, seconds = self._seen.limit.told(now())
            headers |= {"X-RateLimit-Remaining": str(int(left)), "X-RateLimit-Reset": str(math.ceil(seconds))}
        if asked is not None:
            seconds = max(1, math.ceil(asked))
            if self._world.retry_after == "date":
                headers["Retry-After"] = formatdate(math.floor(EPOCH + now()) + seconds, usegmt=True)
            elif self._world.retry_after:
                headers["Retry-After"] = str(seconds)
            return Answer(status=429, headers=headers, body=b'{"error":"slow down"}')
        return Answer(status=200, headers=headers, body=self._body(request))

    def _body(self, request: Request) -> bytes:
        if request.call != "list":
            return b"{}"
        page = int(request.url.rpartition("current_page=")[2]) if "current_page" in request.url else 0
        rows = range(page * PAGE, min((page + 1) * PAGE, self._rows))
        listed = [{"id": f"p{number}", "created_at": f"{10**9 - number:012d}"} for number in rows]
        return json.dumps({"data": listed, "total": self._rows}).encode()


# ---- a migration -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Run:
    """How a migration works; without `seconds` it ends with its last prompt."""

    prompts: int = 100_000
    seconds: float | None = 70.0
    listed: int | None = None
    """Rows of the listing; None: one for each prompt."""
    rate: float | None = None
    share: float = 0.9
    concurrency: int = 64
    known: Known | None = None
    clients: int = 1
    """With one key."""
    fleet: int | None = None
    """So many migrations of `prompts` each, by one gate."""
    parallel: int = 4
    """Migrations of the fleet at a time."""


def migrated(world: World, run: Run, seed: int) -> list[Seen]:
    """What each client of one run did."""
    draw = random.Random(seed)

    async def work() -> list[Seen]:
        limit = world.limit()
        all_seen = [Seen(limit=limit) for _ in range(run.clients)]
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(run.seconds if run.seconds is not None else math.inf):
                async with anyio.create_task_group() as inner:
                    if world.others:
                        tasks.start_soon(_others, world, draw, all_seen[0])
                    for seen in all_seen:
                        inner.start_soon(_one, world, run, draw, seen)
            tasks.cancel_scope.cancel()
        return all_seen

    return in_virtual_time(work, late=(lambda: draw.uniform(0, world.late)) if world.late else None)


async def _others(world: World, draw: random.Random, seen: Seen) -> None:
    while True:
        await asyncio.sleep(draw.expovariate(world.others))
        seen.others += 1
        seen.others_refused += seen.limit.takes(now()) is not None


async def _one(world: World, run: Run, draw: random.Random, seen: Seen) -> None:
    gate = RateLimiter(rate=run.rate, concurrency=run.concurrency, share=run.share, known=run.known, jitter=draw.random)
    rows = min(run.prompts, 10_000) if run.listed is None else run.listed

    async def watch() -> None:
        for second in range(10):
            seen.rates[second] = gate.rate
            await asyncio.sleep(1)

    async def migration(_: int) -> None:
        wire, way = Wire(world, draw, seen, rows), gate.another()
        await _migrate(_client(wire, way, draw), run, rows)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            await for_each(range(run.fleet or 1), migration, limit=run.parallel if run.fleet else 1)
            tasks.cancel_scope.cancel()
    finally:
        seen.ended, seen.throttle = now(), gate.throttle


def _client(wire: Wire, gate: RateLimiter, draw: random.Random) -> Client:
    return Client(
        wire.send,
        "http://registry",
        KeyAuth("x-key", "k"),
        gate,
        RequestLimits(timeout=1e6, attempts=5),
        end="source",
        secrets=(),
        address="base_url",
        timing=Timing(clock=now, now=lambda: EPOCH + now(), draw=draw.random),
    )


async def _migrate(client: Client, run: Run, rows: int) -> None:
    first, tried = asyncio.Lock(), False

    async def sending() -> None:
        await asyncio.sleep(INTENT_S)

    async def fetch() -> None:
        await client.read("retrieve", "/prompts/p")

    async def post() -> None:
        with suppress(EngineError):
            await client.create("create", "POST", "/prompts", b"{}", sending)

    async def create() -> None:
        nonlocal tried
        async with first:
            if not tried:
                await post()
                await fetch()  # the first one is read back
                tried = True
                return
        await post()

    def listed(page: Mapping[str, str]) -> Awaitable[Any]:
        return client.read("list", "/prompts", page)

    async with anyio.create_task_group() as survey:
        survey.start_soon(client.read, "catalog", "/collections")
        if rows:
            survey.start_soon(walk, listed, "prompts", lambda row: row, itemgetter("created_at"))
    workers = (run.concurrency + 1) // 2
    left = iter(range(run.prompts - 1))
    ready: asyncio.Queue[int | None] = asyncio.Queue(run.concurrency)

    async def fetcher() -> None:
        for number in left:
            await fetch()
            while ready.full() and ready.get_nowait() is not None:
                await create()
            await ready.put(number)

    async def poster() -> None:
        while await ready.get() is not None:
            await create()

    async with anyio.create_task_group() as posters:
        for _ in range(workers):
            posters.start_soon(poster)
        async with anyio.create_task_group() as fetchers:
            for _ in range(workers):
                fetchers.start_soon(fetcher)
        for _ in range(workers):
            await ready.put(None)
