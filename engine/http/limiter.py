"""The rate, the pauses and the requests in flight of one host and one key.

Everything that is sent passes one gate: reads, writes, retries, look-ups. Whoever waits stands in one line, first come,
first served; only its head waits for the end of a pause, for a free place and for the rate. Behind the line a ledger
may be synced and a connection set up, for some longer than for others: so requests are spaced once more where they
leave. Where a limit is leased, the ledger is elsewhere and takes too long for that: intents are written in front of the
line. Which rate and how many places serve best is found by the two searches; this module keeps to what they say.

A RateLimiter is the way of one migration through the gate. Several may have one gate: then they take turns in the line,
and each has its own count of requests, its own end, and its own wait for a host that it found to be down. Several
processes may have one limit: then the rate and the pauses are with whoever holds it (`leases`), the rest is here.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from types import TracebackType
from typing import Final, Literal, Self, TypeVar

import anyio
from aiolimiter import AsyncLimiter

from engine.errors import Transient
from engine.http.concurrency_search import ConcurrencySearch
from engine.http.leases import Leases, Line
from engine.http.rate_search import RateSearch, Sent
from engine.log import log

Kind = Literal["read", "write"]
Intend = Callable[[], Awaitable[None]]
"""Writes an intent."""
T = TypeVar("T")

LATE_S: Final = 0.03
"""So late may a timer be without slowing the run down: what was missed is caught up, and no more."""
LINE_LATE_S: Final = 0.1
"""The same in the line: those who pass together for it are spaced where they leave."""
AT_ONCE_S: Final = 0.001
"""Timers cannot wait for less: requests that are to be closer together leave together."""
SOON_S: Final = 0.05
"""Of what is leased, what is not used so soon may be too late."""
PAUSE_JITTER: Final = 0.1
INTENDED_S: Final = 0.5
"""Intents are written ahead for so much of the rate, by all together: they are in doubt where a process is lost."""


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

    def __sub__(self, earlier: Requests) -> Requests:
        """What has been let through since."""
        return Requests(**{part.name: getattr(self, part.name) - getattr(earlier, part.name) for part in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttle:
    """What a gate has come to, for people. `limit`: the registry's own rate as it was found; None: not found."""

    rate: float
    """Requests a second."""
    limit: float | None
    concurrency: int
    paused_s: float
    latency_s: float | None = None
    """Of a request with few in flight; None: nothing was answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an earlier run found of a registry: where this one begins."""

    limit: float | None = None
    latency_s: float | None = None


class _Spacing:
    """Requests one after another at a rate that may change at any moment: no two come together."""

    def __init__(self) -> None:
        self.due = 0.0
        """When the next one may pass."""

    def take(self, now: float, rate: float, *, late: float = 0.0) -> None:
        """One passes now. `late`: by so many seconds at most it comes late only because its timer did."""
        self.due = max(self.due, now - late) + 1 / rate

    async def wait(self, seconds: float) -> None:
        """So long is it not due."""
        await asyncio.sleep(seconds)

    def paused(self, seconds: float, why: str) -> None:
        """Nobody else need know."""

    async def look(self) -> None:
        """Nobody else knows more."""


class _Ticket:
    """A place in the line. `round`: how often those who have the same way have stood in it, if they began at once.
    `intended`: its intent is written, so it is let through even when the run was asked to end.
    """

    __slots__ = ("_call", "intended", "round", "way")

    def __init__(self, way: RateLimiter, round: int, intended: bool) -> None:
        self.way = way
        self.round = round
        self.intended = intended
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
    """The line of reads or of writes, where these have a ceiling of their own. That one never changes."""

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self.line: Final = asyncio.Lock()
        """In front: the limiter does not serve in order."""
        self._rate = rate
        self._clock = clock
        capacity = 1 + rate * LATE_S
        self._limiter = AsyncLimiter(capacity, capacity / rate)
        self._paid_at = 0.0

    async def pay(self) -> None:
        """Returns when the next request of this kind may leave."""
        await self._limiter.acquire()
        self._paid_at = self._clock()

    async def pay_again(self) -> None:
        """It was held up since: what has leaked meanwhile is paid again, so that no burst follows."""
        await self._limiter.acquire(min(1.0, self._rate * (self._clock() - self._paid_at)))


class Turn:
    """One request on its way: `async with` lets it through, and frees its place when it has ended.

    `entered`: when the gate let it through; `seconds`: how long it had its place; `beside`: how many had one then.
    """

    __slots__ = (
        "_ahead",
        "_bound",
        "_counted",
        "_gate",
        "_inside",
        "_retry",
        "_way",
        "beside",
        "entered",
        "intended",
        "kind",
        "probe",
        "seconds",
        "sent",
    )

    def __init__(
        self, way: RateLimiter, gate: _Gate, kind: Kind, retry: bool, probe: bool, ahead: Intend | None
    ) -> None:
        self.kind = kind
        self.probe = probe
        self.sent: Sent | None = None
        """None: it has not left."""
        self.intended: float | None = None
        """When its intent was about to be written; None: it needs none."""
        self._way = way
        self._gate = gate
        self._retry = retry
        self._ahead = ahead
        self._inside = self._counted = False

    async def __aenter__(self) -> Self:
        ahead, self._ahead = self._ahead, None
        at_once = ahead is None and not self.probe
        if at_once and (now := self._gate.pass_at_once(self._way, self.kind)) is not None:
            self.entered, self._bound = now, False
        else:
            self.entered, self._bound = await self._way.enter(self.kind, probe=self.probe, ahead=ahead)
        self.beside = self._gate.in_flight
        self._inside = True
        return self

    async def ready(self) -> None:
        """To be awaited before it is sent: a pause that began since it was let through holds it too."""
        while self._way.held and not self.probe:
            self._inside = False
            self._gate.leave()
            await self.__aenter__()
        if not self._counted:
            self._counted = True
            self._way.requests.count(self.kind, retry=self._retry)

    @property
    def outdated(self) -> bool:
        """Its intent is so old that it needs a new one before it leaves."""
        return self.intended is not None and self._gate.clock() - self.intended > self._way.renew_after

    async def departs(self) -> bool:
        """To be awaited last before the first byte leaves; False: a pause has begun, or its intent has become too old:
        it must not, and is to be made `ready` again.
        """
        gate = self._gate
        now = gate.clock()
        if not gate.space_at_once(now):
            await gate.space()
            now = gate.clock()
        if (self._way.held and not self.probe) or self.outdated:
            return False
        self.sent = gate.search.sent(now, bound=self._bound, beside=self.beside)
        return True

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
    used. `reads` and `writes` are ceilings of their own below it. `concurrency`: the most in flight. `known`: what an
    earlier run found. In any window of T seconds at most rate x T + 1 requests leave; where timers were late, rate x
    30 ms more, and so of a kind with a ceiling of its own. Made inside of a running loop, whose time it goes by.
    `jitter` gives numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        rate: float | None,
        concurrency: int,
        share: float = 1.0,
        reads: float | None = None,
        writes: float | None = None,
        known: Known | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        known = known or Known()
        search = RateSearch(ceiling=rate, share=share, known=known.limit)
        places = ConcurrencySearch(ceiling=concurrency, latency=known.latency_s)
        self._lead_through(_Gate(search, _Spacing(), places, reads=reads, writes=writes, jitter=jitter))

    @classmethod
    def leased(
        cls,
        line: Line,
        *,
        among: int,
        concurrency: int,
        reads: float | None = None,
        writes: float | None = None,
        latency: float | None = None,
    ) -> Self:
        """By permits of whoever holds the limit, which `among` processes share. The ceilings are this process's own.
        `latency`: as an earlier run found it.
        """
        leases = Leases(line, among=among)
        places = ConcurrencySearch(ceiling=concurrency, latency=latency)
        way = object.__new__(cls)
        way._lead_through(_Gate(leases, leases, places, among=among, reads=reads, writes=writes, jitter=random.random))
        return way

    def _lead_through(self, gate: _Gate) -> None:
        self._gate = gate
        self.clock = gate.clock
        self.requests = Requests()
        """The counts so far."""
        self.round = 0
        """In which it stood in the line last."""
        self._in_front: defaultdict[Kind, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._probe: Callable[[], Awaitable[None]] | None = None
        self._why = ""
        self._probing = asyncio.Lock()
        self._scopes: set[anyio.CancelScope] = set()
        self.halted = False
        self.renew_after = math.inf
        """Seconds after which an intent is written anew before its request leaves: where this process may be given up
        for lost, and be alive. What it sent is looked up by the time of its intent.
        """

    def another(self) -> RateLimiter:
        """The way of another migration through the same gate: rate, pauses and places are for both together."""
        way = object.__new__(RateLimiter)
        way._lead_through(self._gate)
        return way

    @property
    def leases(self) -> bool:
        """Others use the same limit: what has its permit is to leave at once, or it leaves together with theirs."""
        return self._gate.leases

    @property
    def in_flight(self) -> int:
        """Turns that were let through and have not ended, whoever's they are."""
        return self._gate.in_flight

    @property
    def rate(self) -> float:
        """Requests a second, at this moment."""
        return self._gate.rate

    @property
    def paused_for(self) -> float:
        """Seconds until the pause ends; 0: there is none."""
        return self._gate.paused_for

    @property
    def why(self) -> str:
        """What holds everyone; blank: nothing does."""
        if self._probe is not None:
            return self._why
        return self._gate.why if self._gate.paused else ""

    @property
    def throttle(self) -> Throttle:
        """What it has come to."""
        return self._gate.throttle

    def turn(self, kind: Kind, *, retry: bool = False, probe: bool = False, ahead: Intend | None = None) -> Turn:
        """One request, to be sent inside of the `with`. Raises Transient `not_sent` once the gate is halted.

        `probe`: one that asks a closed host whether it is well, past the line. `ahead`: awaited before it stands in the
        line, when those who stand there may pass.
        """
        return Turn(self, self._gate, kind, retry, probe, ahead)

    def accepted(self, turn: Turn) -> None:
        """It was answered, and not with a refusal for coming too fast."""
        self._gate.accepted(turn)

    def refused(self, turn: Turn, asked: float | None, why: str) -> None:
        """It came too fast (429). `asked`: the seconds that the registry wants everyone to wait."""
        self.pause(self._gate.refused(turn, asked, why), why)

    def pause(self, seconds: float, why: str) -> None:
        """Nobody passes for `seconds` and up to 10 % more. The longest pause wins; it never gets shorter."""
        self.requests.throttled += 1
        self._gate.pause(seconds, why)

    def hint(self, remaining: float, seconds: float) -> None:
        """A header says that so many more requests fit into so many seconds: that may only slow down."""
        self._gate.hint(remaining, seconds)

    def close(self, probe: Callable[[], Awaitable[None]], why: str) -> None:
        """Nobody passes this way until `probe` has returned, which the first who comes awaits; what it raises goes to
        him.
        """
        if self._probe is None:
            log.warning("throttle.closed", why=why)
            self._probe, self._why = probe, why

    async def look(self) -> None:
        """Learns what the limit has come to, where another process holds it."""
        await self._gate.look()

    def halt(self) -> None:
        """Everyone who waits, and whoever comes later, leaves at once with Transient `not_sent`. For good."""
        self.halted = True
        for scope in self._scopes:
            scope.cancel()
        self._gate.wake(self)

    async def unless_halted(self, wait: Callable[[], Awaitable[T]]) -> T:
        """Awaits what only waits; raises Transient `not_sent` when the gate is halted before it is done."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self.halted:
                    return await wait()
            finally:
                self._scopes.remove(scope)
        raise _not_sent()

    # ---- what a turn calls -------------------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Nobody passes this way: its host is down."""
        return self._probe is not None

    @property
    def held(self) -> bool:
        """Nobody passes now: the host is down, or there is a pause."""
        # most runs never pause, and this is asked several times for each request
        return self._probe is not None or (self._gate.paused_until > 0.0 and self._gate.paused)

    async def enter(self, kind: Kind, *, probe: bool, ahead: Intend | None) -> tuple[float, bool]:
        """Returns when a request of this kind may be sent: the time at that moment, and whether the rate was what it
        waited for.
        """
        if probe:
            await self.unless_halted(self._gate.end_of_pause)
            return self._gate.let_in(), False
        if ahead is None:
            return await self._enter(kind, intended=False)
        await self.unless_halted(self._gate.intending.acquire)
        try:
            while self.held:
                await self.unless_halted(self._gate.end_of_pause if self._probe is None else self._reopen)
            await ahead()
            return await self._enter(kind, intended=True)
        finally:
            self._gate.intending.release()

    async def _enter(self, kind: Kind, *, intended: bool) -> tuple[float, bool]:
        while True:
            if self._probe is not None:
                await self.unless_halted(self._reopen)
            if (bound := await self._pass(kind, intended)) is not None:
                return self._gate.let_in(), bound

    async def _pass(self, kind: Kind, intended: bool) -> bool | None:
        if kind not in self._gate.lanes:
            return await self._gate.stand_in_line(self, intended)
        async with self._in_front[kind]:  # one at a time, so that others have their turn in the lane
            return await self._gate.pass_lane(self, self._gate.lanes[kind], intended)

    async def _reopen(self) -> None:
        async with self._probing:
            if self._probe is not None:
                await self._probe()
                self._probe = None
                log.info("throttle.opened")


class _Gate:
    """What all who pass have in common: one line, one rate, one pause, so many places."""

    def __init__(
        self,
        search: RateSearch | Leases,
        spacing: _Spacing | Leases,
        places: ConcurrencySearch,
        *,
        among: int = 1,
        reads: float | None,
        writes: float | None,
        jitter: Callable[[], float],
    ) -> None:
        self.clock: Final = asyncio.get_running_loop().time
        self.in_flight = 0
        self.why = ""
        """Of the newest pause."""
        ceilings: tuple[tuple[Kind, float | None], ...] = (("read", reads), ("write", writes))
        self.lanes: Final[Mapping[Kind, _Lane]] = {
            kind: _Lane(ceiling, self.clock) for kind, ceiling in ceilings if ceiling
        }
        self.search: Final = search
        self._places = places
        self._jitter = jitter
        self._spacing = spacing
        self._pressed = False
        """Whoever heads the line waits for the rate, and nobody has waited for anything else since that began."""
        self._departures = _Spacing()
        self._leaving = asyncio.Lock()
        self._intending = anyio.CapacityLimiter(1)
        self._among = among
        self._line: deque[_Ticket] = deque()
        self._round = 0
        """Of who passed the line last."""
        self._crowded_at = -1.0
        self.paused_until = 0.0
        """By the clock; 0: there has been no pause."""
        self._paused_seconds = 0.0
        self.leases: Final = isinstance(search, Leases)
        if isinstance(search, Leases):
            search.demand, search.in_flight = lambda: self._demand, lambda: self.in_flight
            search.paused_for, search.pause = lambda: self.paused_for, self._hold
        self._expect()

    @property
    def rate(self) -> float:
        return self.search.rate(self.clock())

    @property
    def intending(self) -> anyio.CapacityLimiter:
        """Room for those who write their intents before they stand in the line, as the rate is now."""
        self._intending.total_tokens = max(1, int(INTENDED_S * self.rate / self._among))
        return self._intending

    @property
    def paused(self) -> bool:
        return self.paused_until > self.clock()

    @property
    def paused_for(self) -> float:
        return max(0.0, self.paused_until - self.clock())

    @property
    def throttle(self) -> Throttle:
        return Throttle(
            rate=round(self.rate, 1),
            limit=None if self.search.limit is None else round(self.search.limit, 1),
            concurrency=self._places.limit,
            paused_s=round(self._paused_seconds - self.paused_for, 1),
            latency_s=None if self._places.latency is None else round(self._places.latency, 4),
        )

    async def look(self) -> None:
        await self._spacing.look()

    # ---- what answers tell -------------------------------------------------------------------------------------------

    def accepted(self, turn: Turn) -> None:
        if turn.sent is not None:
            self.search.accepted(turn.entered + turn.seconds, turn.sent)
        places = self._places.limit
        crowded = self._crowded_at >= turn.entered
        self._places.finished(turn.kind, turn.seconds, in_flight=turn.beside, crowded=crowded)
        self._expect()
        if self._places.limit > places:
            self._wake()

    def refused(self, turn: Turn, asked: float | None, why: str) -> float:
        """The seconds in which nobody is to pass."""
        now = self.clock()
        before = self.search.rate(now)
        sent = turn.sent
        assert sent is not None  # it was answered
        seconds = self.search.refused(now, sent, asked, self._jitter())
        if (after := self.search.rate(now)) < before:
            log.info("throttle.rate", before=round(before, 1), after=round(after, 1), why=why)
        return seconds

    def pause(self, seconds: float, why: str) -> None:
        self._hold(seconds, why)
        self._spacing.paused(seconds, why)

    def _hold(self, seconds: float, why: str) -> None:
        now = self.clock()
        until = now + seconds * (1 + PAUSE_JITTER * self._jitter())
        if until > self.paused_until:
            if now >= self.paused_until:
                log.info("throttle.paused", seconds=round(until - now, 1), why=why)
            self._paused_seconds += until - max(now, self.paused_until)
            self.paused_until, self.why = until, why

    def hint(self, remaining: float, seconds: float) -> None:
        self.search.hint(self.clock(), remaining, seconds)

    # ---- those who pass ----------------------------------------------------------------------------------------------

    def pass_at_once(self, way: RateLimiter, kind: Kind) -> float | None:
        """Lets it in, where nothing is to be waited for: the time at which it was. None: it is to stand in line."""
        now = self.clock()
        if self._line or self.in_flight >= self._places.limit or way.halted or way.held:
            return None
        if kind in self.lanes or self._spacing.due > now:
            return None
        self._spacing.take(now, self.search.rate(now))
        self.in_flight += 1
        return now

    async def pass_lane(self, way: RateLimiter, lane: _Lane, intended: bool) -> bool | None:
        """As `stand_in_line`, where a kind has a ceiling of its own."""
        async with lane.line:
            await way.unless_halted(lane.pay)
            return None if await self.stand_in_line(way, intended, lane) is None else False

    def let_in(self) -> float:
        """The time at which it was."""
        now = self.clock()
        self.in_flight += 1
        if self._line and self._full:
            self._crowded_at, self._pressed = now, False
        else:
            self._wake()
        return now

    def space_at_once(self, now: float) -> bool:
        """Whether the one before is far enough ahead, and nobody waits for that: then no lock is taken for nothing."""
        rate, soon = self.search.rate(now), self._departures.due - now
        if (soon > 0.0 and soon > _least(rate)) or self._leaving.locked():
            return False
        self._departures.take(now, rate)
        return True

    async def space(self) -> None:
        """Until the one before is far enough ahead."""
        waited = self._leaving.locked()
        async with self._leaving:
            least = _least(self.rate)
            while (seconds := self._departures.due - self.clock()) > least:
                waited = True
                await asyncio.sleep(seconds)
            self._departures.take(self.clock(), self.rate, late=LATE_S if waited else 0.0)

    def leave(self) -> None:
        """One of those who were let in has ended."""
        self.in_flight -= 1
        if self._line:
            self._wake()

    def wake(self, way: RateLimiter) -> None:
        """Whoever stands in the line on this way."""
        for ticket in self._line:
            if ticket.way is way:
                ticket.wake()

    async def end_of_pause(self) -> None:
        while seconds := self.paused_for:  # noqa: ASYNC110 - a pause may grow while it is waited for
            await asyncio.sleep(seconds)

    # ---- the line ----------------------------------------------------------------------------------------------------

    @property
    def _full(self) -> bool:
        return self.in_flight >= self._places.limit

    @property
    def _demand(self) -> int:
        """Permits that can be used before they expire: for who waits, where there is a place by then."""
        limit = self._places.limit
        soon = int(limit * SOON_S / max(self._places.latency or 0.0, AT_ONCE_S))
        return max(1, min(len(self._line), limit - self.in_flight + soon))

    def _expect(self) -> None:
        firm = self.search.firm
        self._places.expect(self.rate if firm is None else firm, firm=firm is not None)

    def _join(self, way: RateLimiter, intended: bool) -> _Ticket:
        """At the end of the line, or of those in front whose intents are written; where there are several ways, behind
        those who stand in it no oftener.
        """
        way.round = max(way.round + 1, self._round)
        ticket = _Ticket(way, way.round, intended)
        place = len(self._line)
        while place > 1:  # not before its head, who waits already
            last = self._line[place - 1]
            if last.round <= ticket.round and last.intended >= intended:
                break
            place -= 1
        self._line.insert(place, ticket)
        return ticket

    async def stand_in_line(self, way: RateLimiter, intended: bool, lane: _Lane | None = None) -> bool | None:
        """Whether the rate was what this waited for; None: the way was closed before it could pass."""
        ticket = self._join(way, intended)
        if self._full:
            self._crowded_at = self.clock()
        try:
            passed = await self._pass(ticket)
            if passed and lane is not None:
                await lane.pay_again()
        except BaseException:
            self._line.remove(ticket)
            self._wake()
            raise
        self._line.popleft()
        self._round = ticket.round
        if not passed:
            self._wake()
            return None
        bound = self._pressed
        if not self._line:
            self._pressed = False
        return bound

    async def _pass(self, ticket: _Ticket) -> bool:
        """Only the head of the line waits for anything but to become it. False: its way was closed meanwhile."""
        way = ticket.way
        while True:
            if way.halted and (way.held or not ticket.intended):
                raise _not_sent()
            if self._line[0] is not ticket:
                await ticket.wait()
            elif way.closed:
                self._pressed = False
                return False
            elif self.paused:
                self._pressed = False
                await way.unless_halted(self.end_of_pause)
            elif self._full:
                # a place first: whoever had been due earlier would pass late, together with those after him
                self._pressed = False
                await ticket.wait()
            elif (seconds := self._spacing.due - self.clock()) > 0:
                self._pressed = True
                if ticket.intended:
                    await self._spacing.wait(seconds)
                else:
                    await way.unless_halted(partial(self._spacing.wait, seconds))
            else:
                # pressed: whoever stood here has waited for nothing else
                self._spacing.take(self.clock(), self.rate, late=LINE_LATE_S if self._pressed else 0.0)
                return True

    def _wake(self) -> None:
        if self._line:
            self._line[0].wake()


def _least(rate: float) -> float:
    """The shortest time that is waited for."""
    return 0.0 if rate * AT_ONCE_S < 1 else AT_ONCE_S


def _not_sent() -> Transient:
    return Transient("The run is stopping: this request was not sent.", error="not_sent")
