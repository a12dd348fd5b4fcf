"""The rate, the pauses and the requests in flight of one host and one key.

Everything that is sent passes one Gate: reads, writes, retries, look-ups. Whoever waits stands in one line; only its
head waits for a free place, for the end of a pause and for the rate, in this order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final, Literal

import anyio
from aiolimiter import AsyncLimiter

from engine.errors import Transient

Kind = Literal["read", "write"]

STARTING_RATE: Final = 20.0
"""Requests a second where no rate was given."""
BURST_SECONDS: Final = 0.02
"""What the bucket holds: less than this and timers cannot keep the rate, more and the registry sees bursts."""
PAUSE_JITTER: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What has been let through. `throttled`: answers that asked for a pause."""

    total: int = 0
    reads: int = 0
    writes: int = 0
    retries: int = 0
    throttled: int = 0


class Gate:
    """Lets requests through in the order they came: `rate` a second, `concurrency` at once, none during a pause.

    In any window of T seconds at most rate x T + max(1, rate x 20 ms) requests are let through. Time is the running
    loop's own. `jitter` gives numbers from 0 to 1.
    """

    def __init__(self, *, rate: float | None, concurrency: int, jitter: Callable[[], float] = random.random) -> None:
        self.rate: Final = STARTING_RATE if rate is None else rate
        self.concurrency: Final = concurrency
        self._jitter = jitter
        self._bucket = _bucket(self.rate)
        self._line = asyncio.Lock()
        self._left = asyncio.Event()
        self._in_flight = 0
        self._paused_until = 0.0
        self._why = ""
        self._head: anyio.CancelScope | None = None
        self._halted = False
        self._requests = Requests()

    @property
    def requests(self) -> Requests:
        """The counts so far."""
        return self._requests

    @property
    def in_flight(self) -> int:
        """Turns that were let through and have not ended."""
        return self._in_flight

    @property
    def paused_for(self) -> float:
        """Seconds until the pause ends; 0: there is none."""
        return max(0.0, self._paused_until - asyncio.get_running_loop().time())

    @property
    def why(self) -> str:
        """What the pause is for; blank: there is none."""
        return self._why if self.paused_for else ""

    @asynccontextmanager
    async def turn(self, kind: Kind, *, retry: bool = False) -> AsyncIterator[None]:
        """One request, to be sent inside of the `with`. Raises Transient `not_sent` once the gate is halted."""
        await self._enter()
        self._count(kind, retry=retry)
        try:
            yield
        finally:
            self._in_flight -= 1
            self._left.set()

    def pause(self, seconds: float, why: str = "") -> None:
        """Nobody passes for `seconds` and up to 10 % more. The longest pause wins; it never gets shorter."""
        self._requests = replace(self._requests, throttled=self._requests.throttled + 1)
        until = asyncio.get_running_loop().time() + seconds * (1 + PAUSE_JITTER * self._jitter())
        if until > self._paused_until:
            self._paused_until, self._why = until, why

    def halt(self) -> None:
        """Everyone who waits, and whoever comes later, leaves at once with Transient `not_sent`. For good."""
        self._halted = True
        if self._head:
            self._head.cancel()

    async def _enter(self) -> None:
        # whoever is behind the head of a halted line leaves when the lock reaches him, which takes no time
        async with self._line:
            with anyio.CancelScope() as self._head:
                if not self._halted:
                    await self._wait()
            if self._halted:
                raise Transient("The run is stopping: this request was not sent.", error="not_sent")
            self._in_flight += 1

    async def _wait(self) -> None:
        # a place first: a token taken earlier would be spent late, on top of those that have grown since
        while self._in_flight >= self.concurrency:
            self._left.clear()
            await self._left.wait()
        await self._bucket.acquire()
        while self.paused_for:
            await self._end_of_pause()
            # the bucket filled meanwhile: a token from before the pause would be one too many
            await self._bucket.acquire()

    async def _end_of_pause(self) -> None:
        while seconds := self.paused_for:  # noqa: ASYNC110 - a pause may grow while it is waited for
            await asyncio.sleep(seconds)

    def _count(self, kind: Kind, *, retry: bool) -> None:
        counts = self._requests
        self._requests = replace(
            counts,
            total=counts.total + 1,
            reads=counts.reads + (kind == "read"),
            writes=counts.writes + (kind == "write"),
            retries=counts.retries + retry,
        )


def _bucket(rate: float) -> AsyncLimiter:
    capacity = max(1.0, rate * BURST_SECONDS)
    return AsyncLimiter(capacity, capacity / rate)
