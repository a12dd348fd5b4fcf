"""The rate, the pauses and the requests in flight of one host and one key.

Everything that is sent passes one RateLimiter: reads, writes, retries, look-ups. Whoever waits stands in one line,
first come, first served; only its head waits for a host that is down, for the end of a pause, for a free place and for
the rate. Which rate and how many places serve best is found by the two searches; this module keeps to what they say.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import anyio
from aiolimiter import AsyncLimiter

from engine.errors import Transient
from engine.http.concurrency_search import ConcurrencySearch
from engine.http.rate_search import RateSearch
from engine.log import log

Kind = Literal["read", "write"]
T = TypeVar("T")

BURST_SECONDS: Final = 0.02
"""What the bucket holds: less than this and timers cannot keep the rate, more and the registry sees bursts."""
SMALL_SECONDS: Final = BURST_SECONDS / 2
"""Requests that cost more are spaced one by one: of fewer than 100 a second no two come together."""
PAUSE_JITTER: Final = 0.1


@dataclass(slots=True, kw_only=True)
class Requests:
    """What has been let through. `throttled`: answers that asked for a pause."""

    total: int = 0
    reads: int = 0
    writes: int = 0
    retries: int = 0
    throttled: int = 0

    def count(self, kind: Kind, *, retry: bool) -> None:
        """One more."""
        self.total += 1
        self.retries += retry
        if kind == "read":
            self.reads += 1
        else:
            self.writes += 1

    def __add__(self, other: Requests) -> Requests:
        """Both together."""
        return Requests(**{part.name: getattr(self, part.name) + getattr(other, part.name) for part in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """What a gate has come to, for people. `limit`: the registry's own rate as it was found; None: not found."""

    rate: float
    """Requests a second."""
    limit: float | None
    concurrency: int
    paused_s: float


class _Bucket:
    """Lets requests leave at a rate that may change at any moment.

    The limiter's unit is a second: it leaks one a second, and a request costs 1 / rate of it. So a new rate needs no
    new limiter, which would have to be empty and grant a burst, or full and make everyone wait. Where a request costs
    more than the limiter holds, the next one is not before its time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock: Final = clock
        self._limiter = AsyncLimiter(BURST_SECONDS, BURST_SECONDS)
        self._free_at = 0.0

    async def paid(self, cost: float) -> bool:
        """Pays when that takes no time; False: it would."""
        if cost > SMALL_SECONDS:
            if self._free_at > self.clock() or not self._limiter.has_capacity(SMALL_SECONDS):
                return False
            await self.pay(cost)
        elif (self._free_at > 0 and self._free_at > self.clock()) or not self._limiter.has_capacity(cost):
            return False
        else:
            await self._limiter.acquire(cost)
        return True

    async def pay(self, cost: float) -> None:
        """Returns when a request that costs so many seconds may leave."""
        due = self.clock()
        while self._free_at > self.clock():
            due = self._free_at
            await asyncio.sleep(due - self.clock())
        await self._limiter.acquire(min(cost, SMALL_SECONDS))
        if cost > SMALL_SECONDS:
            # from when it was due: a timer that is late now and then must not slow the whole run down
            self._free_at = max(due, self.clock() - SMALL_SECONDS) + cost

    async def pay_again(self, cost: float, since: float) -> None:
        """For a request that was paid for and then held up: what has leaked is paid again, so that no burst follows."""
        if cost > SMALL_SECONDS:
            self._free_at = self.clock() + cost
        else:
            await self._limiter.acquire(min(cost, self.clock() - since))


class _Ticket:
    """A place in the line."""

    __slots__ = ("_call",)

    def __init__(self) -> None:
        self._call: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Until there may be something new for whoever stands here."""
        self._call = asyncio.get_running_loop().create_future()
        await self._call

    def wake(self) -> None:
        """Has no effect on one who is not waiting."""
        if self._call is not None and not self._call.done():
            self._call.set_result(None)


class _Lane:
    """The line of reads or of writes, where these have a ceiling of their own."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.line: Final = asyncio.Lock()
        self.clock: Final = clock
        self._cost = 1 / rate
        self._bucket = _Bucket(clock)
        self._paid_at = 0.0

    async def pay(self) -> None:
        """Returns when the next request of this kind may leave."""
        await self._bucket.pay(self._cost)
        self._paid_at = self.clock()

    async def pay_again(self) -> None:
        """It was held up since."""
        await self._bucket.pay_again(self._cost, self._paid_at)


class Turn:
    """One request on its way: `async with` lets it through, and frees its place when it has ended.

    `entered`: when the gate let it through; `seconds`: how long it had its place.
    """

    __slots__ = ("_gate", "_inside", "_retry", "entered", "kind", "probe", "seconds")

    def __init__(self, gate: RateLimiter, kind: Kind, retry: bool, probe: bool) -> None:
        self.kind = kind
        self.probe = probe
        self._gate = gate
        self._retry = retry
        self._inside = False

    async def __aenter__(self) -> Self:
        self.entered = await self._gate.enter(self.kind, probe=self.probe)
        self._inside = True
        return self

    async def sending(self) -> None:
        """To be awaited last before the first byte leaves: a pause that began since it was let through holds it too."""
        gate = self._gate
        while gate.held and not self.probe:
            self._inside = False
            gate.leave()
            await self.__aenter__()
        gate.requests.count(self.kind, retry=self._retry)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        # with the time in which a create's intent is written: it has its place meanwhile
        self.seconds = self._gate.clock() - self.entered
        if self._inside:
            self._gate.leave()


class RateLimiter:
    """Lets requests through in the order they came: at a rate, so many at once, and none during a pause.

    `rate` is a hard ceiling, in requests a second; None: it is found. `share`: how much of a limit that was found is
    used. `reads` and `writes` are ceilings of their own below it. `concurrency`: the most in flight. In any window of T
    seconds at most rate x T + max(1, rate x 20 ms) requests are let through, of each kind as of all. Made inside of
    a running loop, whose time it goes by. `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        rate: float | None,
        concurrency: int,
        share: float = 1.0,
        reads: float | None = None,
        writes: float | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.clock: Final = asyncio.get_running_loop().time
        self.requests: Final = Requests()
        """The counts so far."""
        self.in_flight = 0
        """Turns that were let through and have not ended."""
        self._search = RateSearch(ceiling=rate, share=share)
        self._places = ConcurrencySearch(ceiling=concurrency)
        self._jitter = jitter
        self._bucket = _Bucket(self.clock)
        self._line: deque[_Ticket] = deque()
        self._lanes = {
            kind: _Lane(ceiling, self.clock) for kind, ceiling in (("read", reads), ("write", writes)) if ceiling
        }
        self._crowded_at = -1.0
        self._paused_until = 0.0
        self._paused_seconds = 0.0
        self._why = ""
        self._probe: Callable[[], Awaitable[None]] | None = None
        self._scopes: set[anyio.CancelScope] = set()
        self._halted = False

    @property
    def rate(self) -> float:
        """Requests a second, at this moment."""
        return self._search.rate(self.clock())

    @property
    def paused_for(self) -> float:
        """Seconds until the pause ends; 0: there is none."""
        return max(0.0, self._paused_until - self.clock())

    @property
    def why(self) -> str:
        """What holds everyone; blank: nothing does."""
        return self._why if self.held else ""

    @property
    def throttle(self) -> Throttle:
        """What it has come to."""
        return Throttle(
            rate=round(self.rate, 1),
            limit=None if self._search.limit is None else round(self._search.limit, 1),
            concurrency=self._places.limit,
            paused_s=round(self._paused_seconds - self.paused_for, 1),
        )

    def turn(self, kind: Kind, *, retry: bool = False, probe: bool = False) -> Turn:
        """One request, to be sent inside of the `with`. Raises Transient `not_sent` once the gate is halted.

        `probe`: one that asks a closed host whether it is well, past the line.
        """
        return Turn(self, kind, retry, probe)

    def accepted(self, turn: Turn) -> None:
        """It was answered, and not with a refusal for coming too fast."""
        self._search.accepted(turn.entered)
        places = self._places.limit
        self._places.finished(turn.kind, turn.seconds, crowded=self._crowded_at >= turn.entered)
        if self._places.limit > places:
            self._wake()

    def refused(self, turn: Turn, asked: float | None, why: str) -> None:
        """It came too fast (429). `asked`: the seconds that the registry wants everyone to wait."""
        now = self.clock()
        before = self._search.rate(now)
        seconds = self._search.refused(now, turn.entered, asked, self._jitter())
        if (after := self._search.rate(now)) < before:
            log.info("throttle.rate", before=round(before, 1), after=round(after, 1), why=why)
        self.pause(seconds, why)

    def pause(self, seconds: float, why: str) -> None:
        """Nobody passes for `seconds` and up to 10 % more. The longest pause wins; it never gets shorter."""
        self.requests.throttled += 1
        now = self.clock()
        until = now + seconds * (1 + PAUSE_JITTER * self._jitter())
        if until > self._paused_until:
            if now >= self._paused_until:
                log.info("throttle.paused", seconds=round(until - now, 1), why=why)
            self._paused_seconds += until - max(now, self._paused_until)
            self._paused_until, self._why = until, why

    def hint(self, remaining: float, seconds: float) -> None:
        """A header says that so many more requests fit into so many seconds: that may only slow down."""
        self._search.hint(self.clock(), remaining, seconds)

    def close(self, probe: Callable[[], Awaitable[None]], why: str) -> None:
        """Nobody passes until `probe` has returned, which the first in the line awaits; what it raises goes to him."""
        if self._probe is None:
            log.warning("throttle.closed", why=why)
            self._probe, self._why = probe, why

    def halt(self) -> None:
        """Everyone who waits, and whoever comes later, leaves at once with Transient `not_sent`. For good."""
        self._halted = True
        for scope in self._scopes:
            scope.cancel()
        for ticket in self._line:
            ticket.wake()

    async def unless_halted(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Awaits what only waits; raises Transient `not_sent` when the gate is halted before it is done."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._halted:
                    return await wait()
            finally:
                self._scopes.remove(scope)
        raise _not_sent()

    # ---- what a turn calls -------------------------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """Nobody passes now: the host is down, or there is a pause."""
        return self._probe is not None or self._paused_until > self.clock()

    async def enter(self, kind: Kind, *, probe: bool) -> float:
        """Returns when a request of this kind may be sent: the time at that moment."""
        lane = self._lanes.get(kind)
        if probe:
            await self.unless_halted(self._pass_by)
        elif lane is not None:
            async with lane.line:
                await self.unless_halted(lane.pay)
                await self._stand_in_line(lane)
        elif self._line or self._halted or self._full or self.held or not await self._bucket.paid(1 / self.rate):
            await self._stand_in_line()
        return self._let_in()

    def leave(self) -> None:
        """It has ended."""
        self.in_flight -= 1
        self._wake()

    # ---- the line ----------------------------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return self.in_flight >= self._places.limit

    def _let_in(self) -> float:
        now = self.clock()
        self.in_flight += 1
        self._search.sent(now)
        if self._line and self._full:
            self._crowded_at = now
        else:
            self._wake()
        return now

    async def _stand_in_line(self, lane: _Lane | None = None) -> None:
        ticket = _Ticket()
        self._line.append(ticket)
        if self._full:
            self._crowded_at = self.clock()
        try:
            await self._pass(ticket)
            if lane is not None:
                await lane.pay_again()
        except BaseException:
            self._line.remove(ticket)
            self._wake()
            raise
        self._line.popleft()

    async def _pass(self, ticket: _Ticket) -> None:
        """Only the head of the line waits for anything but to become it."""
        while True:
            if self._halted:
                raise _not_sent()
            if self._line[0] is not ticket:
                await ticket.wait()
            elif self._probe is not None:
                await self._ask(self._probe)
            elif self.held:
                await self.unless_halted(self._end_of_pause)
            elif self._full:
                # a place first: a token taken earlier would be spent late, on top of those that have grown since
                await ticket.wait()
            elif await self._paid():
                return

    def _wake(self) -> None:
        if self._line:
            self._line[0].wake()

    async def _paid(self) -> bool:
        """False: a pause began meanwhile, during which the bucket fills: a token from before it would be one too
        many."""
        cost = 1 / self.rate
        if await self._bucket.paid(cost):
            return True
        await self.unless_halted(partial(self._bucket.pay, cost))
        return not self.held

    async def _pass_by(self) -> None:
        await self._end_of_pause()
        await self._bucket.pay(1 / self.rate)

    async def _ask(self, probe: Callable[[], Awaitable[None]]) -> None:
        await self.unless_halted(probe)
        self._probe = None
        log.info("throttle.opened")

    async def _end_of_pause(self) -> None:
        while seconds := self.paused_for:  # noqa: ASYNC110 - a pause may grow while it is waited for
            await asyncio.sleep(seconds)


def _not_sent() -> Transient:
    return Transient("The run is stopping: this request was not sent.", error="not_sent")
