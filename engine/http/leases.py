"""One limit for several processes: who holds it leases permits, some at once; the others keep to them and tell what
they were answered.

No time of a clock crosses, only seconds from now: clocks of machines differ. So what arrives late is used late, never
early, and what is too late is not used at all. A refusal is told at once, what was accepted with the next lease.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from engine.http.rate_search import FIRST_PAUSE_S, FIRST_RATE, RateSearch, Sent

BLOCK_S: Final = 0.02
"""So much of the whole rate is leased at once: the others wait so long at most, and no more is under way when a pause
begins."""
MOST_PERMITS: Final = 100
AHEAD_S: Final = 0.02
"""A lease is given so long before its first permit is due: it is on its way meanwhile."""
LATE_S: Final = 0.02
"""By so much may the line be late without slowing the others down: what was missed is caught up, and no more."""
EXPIRED_S: Final = 0.1
"""A permit that is so late is not used: many of them at once would be a burst."""
OPENING_S: Final = 0.5
"""Whoever holds the limit anew waits so long: what was leased before is used up, and the others tell what they know."""
PAUSE_JITTER: Final = 0.1
MOST_UNTOLD: Final = 100_000
"""Permits of which nobody has told yet what became of them; of processes that ended nobody will."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a limit begins with; see `RateSearch`."""

    rate: float | None
    share: float
    known: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a process has seen since it asked last, and how many permits it wants; 0: it only tells."""

    wanted: int = 0
    in_flight: int = 0
    accepted: Sequence[tuple[int, float]] = ()
    """Number of the permit, and seconds until the answer."""
    refused: Sequence[tuple[int, float | None]] = ()
    """Number of the permit, and the seconds that the registry asked to wait."""
    pauses: Sequence[tuple[float, str]] = ()
    hint: tuple[float, float] | None = None
    """Requests that fit into so many seconds."""
    limit: float | None = None
    """The limit that it was told last, for a holder that has lost it; and the pause that it is in."""
    paused: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """`count` permits, the first due `delay` seconds after this arrives, each of the others `gap` later."""

    first: int = 0
    """Number of the first one."""
    count: int = 0
    delay: float = 0.0
    gap: float = 0.0
    paused: float = 0.0
    """Seconds in which nobody is to send; then there are no permits."""
    why: str = ""
    rate: float
    """Of all together."""
    limit: float | None
    firm: float | None


class Line(Protocol):
    """The way to whoever holds a limit. Losing an answer, or asking twice, costs permits and nothing else."""

    async def lease(self, ask: Ask) -> Lease:
        """Returns when there are permits, or a pause. May take as long as a holder that was lost needs to be back."""
        ...

    def tell(self, ask: Ask) -> None:
        """Returns at once."""
        ...


# ---- who holds it ----------------------------------------------------------------------------------------------------


class Lessor:
    """Holds one limit: its search for the rate, and its pauses. `again`: another one held it before, and was lost.

    Made inside of a running loop, whose time it goes by. `jitter` gives numbers from 0 to 1.
    """

    def __init__(self, terms: Terms, *, again: bool = False, jitter: Callable[[], float] = random.random) -> None:
        self._clock: Final = asyncio.get_running_loop().time
        self._terms = terms
        self._jitter = jitter
        self._search = RateSearch(ceiling=terms.rate, share=terms.share, known=terms.known)
        self._opens = self._clock() + OPENING_S if again else 0.0
        self._due = self._opens
        self._line = asyncio.Lock()
        self._waiting = 0
        self._pressed = False
        self._paused_until = 0.0
        self._why = ""
        self._paused = asyncio.Event()
        self._numbers = 0
        self._sent: dict[int, Sent] = {}

    async def lease(self, ask: Ask) -> Lease:
        """See `Line.lease`: those who ask are served in their order."""
        self.tell(ask)
        if not ask.wanted:
            return self._told()
        self._waiting += 1
        try:
            async with self._line:
                return await self._granted(ask)
        finally:
            self._waiting -= 1

    def tell(self, ask: Ask) -> None:
        """Takes note of what was answered."""
        now = self._clock()
        if now < self._opens:
            self._recall(ask, now)
        for number, seconds in ask.accepted:
            if (sent := self._sent.pop(number, None)) is not None:
                self._search.accepted(sent.at + seconds, sent)
        for number, asked in ask.refused:
            sent = self._sent.pop(number, None) or self._unknown(now)
            self._pause(self._search.refused(now, sent, asked, self._jitter()), "it answered 429")
        for seconds, why in ask.pauses:
            self._pause(seconds, why)
        if ask.hint is not None:
            self._search.hint(now, *ask.hint)

    def _recall(self, ask: Ask, now: float) -> None:
        """What the others know of the time before: the lowest limit, the longest pause."""
        if ask.paused > 0:
            self._until(now + ask.paused, "a pause goes on")
        known, limit = self._search.limit, ask.limit
        if limit is not None and self._terms.rate is None and (known is None or limit < known):
            self._search = RateSearch(ceiling=None, share=self._terms.share, known=limit)

    def _unknown(self, now: float) -> Sent:
        """In the place of a permit that another one gave."""
        return Sent(now, self._numbers, 0.0, self._search.rate(now), True, 1)

    def _pause(self, seconds: float, why: str) -> None:
        self._until(self._clock() + seconds * (1 + PAUSE_JITTER * self._jitter()), why)

    def _until(self, until: float, why: str) -> None:
        if until > self._paused_until:
            self._paused_until, self._why = until, why
            self._paused.set()

    async def _granted(self, ask: Ask) -> Lease:
        """Only the head of the line is here."""
        waited = False
        while (now := self._clock()) >= self._paused_until:
            ahead = self._due - now
            if ahead <= AHEAD_S:
                return self._grant(ask, now, bound=waited or self._pressed)
            waited = True
            self._paused.clear()
            try:
                async with asyncio.timeout(ahead - AHEAD_S / 2):
                    await self._paused.wait()
            except TimeoutError:
                continue
        return self._told()

    def _grant(self, ask: Ask, now: float, *, bound: bool) -> Lease:
        rate = self._search.rate(now)
        count = max(1, min(ask.wanted, MOST_PERMITS, int(rate * BLOCK_S)))
        start = max(self._due, now - LATE_S if bound else now)
        first, self._numbers = self._numbers, self._numbers + count
        for number in range(count):
            at = start + number / rate
            self._sent[first + number] = self._search.sent(at, bound=bound or number > 0, beside=ask.in_flight + number)
        while len(self._sent) > MOST_UNTOLD:
            del self._sent[next(iter(self._sent))]
        self._due, self._pressed = start + count / rate, self._waiting > 1
        return self._told(first=first, count=count, delay=max(0.0, start - now), gap=1 / rate)

    def _told(self, *, first: int = 0, count: int = 0, delay: float = 0.0, gap: float = 0.0) -> Lease:
        now = self._clock()
        return Lease(
            first=first,
            count=count,
            delay=delay,
            gap=gap,
            paused=max(0.0, self._paused_until - now),
            why=self._why,
            rate=self._search.rate(now),
            limit=self._search.limit,
            firm=self._search.firm,
        )


# ---- who keeps to it -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Seen:
    """What was not told yet."""

    accepted: list[tuple[int, float]] = field(default_factory=list)
    refused: list[tuple[int, float | None]] = field(default_factory=list)
    pauses: list[tuple[float, str]] = field(default_factory=list)
    hint: tuple[float, float] | None = None


class Leases:
    """Stands in for a search for the rate and for the spacing by it, where another process has both.

    `among`: so many processes share the limit. The gate that it is a part of sets the rest: `demand` tells how many
    permits are wanted, `in_flight` the requests under way, `paused_for` the pause that it is in; `pause` begins one.
    """

    def __init__(self, line: Line, *, among: int) -> None:
        self._clock: Final = asyncio.get_running_loop().time
        self._line = line
        self._among = among
        self._permits: deque[tuple[float, int]] = deque()
        self._used: deque[int] = deque()
        """Of those that passed and have not left."""
        self._seen = _Seen()
        self._told = Lease(rate=FIRST_RATE, limit=None, firm=None)
        self.demand: Callable[[], int] = lambda: 1
        self.in_flight: Callable[[], int] = lambda: 0
        self.paused_for: Callable[[], float] = lambda: 0.0
        self.pause: Callable[[float, str], None] = lambda _seconds, _why: None

    # ---- as a search -------------------------------------------------------------------------------------------------

    @property
    def limit(self) -> float | None:
        """As the holder found it."""
        return self._told.limit

    @property
    def firm(self) -> float | None:
        """This process's part of it."""
        return None if self._told.firm is None else self._told.firm / self._among

    def rate(self, now: float) -> float:
        """Of all together."""
        return self._told.rate

    def sent(self, now: float, *, bound: bool, beside: int) -> Sent:
        """A request leaves: by the permit that was taken first."""
        number = self._used.popleft() if self._used else -1
        return Sent(now, number, 0.0, self._told.rate, bound, beside)

    def accepted(self, now: float, sent: Sent) -> None:
        """Told with the next lease."""
        if sent.number >= 0:
            self._seen.accepted.append((sent.number, now - sent.at))

    def refused(self, now: float, sent: Sent, asked: float | None, draw: float) -> float:
        """Told with the pause that follows; the holder may make it longer."""
        self._seen.refused.append((sent.number, asked))
        return FIRST_PAUSE_S * (0.5 + 0.5 * draw) if asked is None else asked

    def paused(self, seconds: float, why: str) -> None:
        """Told at once."""
        self._seen.pauses.append((seconds, why))
        self._line.tell(self._ask(0))

    def hint(self, now: float, remaining: float, seconds: float) -> None:
        """Told with the next lease."""
        self._seen.hint = remaining, seconds

    # ---- as a spacing ------------------------------------------------------------------------------------------------

    @property
    def due(self) -> float:
        """When the next one may pass; infinite: a permit is needed first."""
        while self._permits and self._permits[0][0] < self._clock() - EXPIRED_S:
            self._permits.popleft()
        return self._permits[0][0] if self._permits else float("inf")

    def take(self, now: float, rate: float, *, late: float = 0.0) -> None:
        """One passes now."""
        self._used.append(self._permits.popleft()[1])
        while len(self._used) > self.in_flight() + 1:  # who was held after he had passed needs another one
            self._used.popleft()

    async def wait(self, seconds: float) -> None:
        """Until the next one may be due."""
        if seconds < float("inf"):
            await asyncio.sleep(seconds)
            return
        self._take(await self._line.lease(self._ask(max(1, self.demand()))))

    async def look(self) -> None:
        """Asks what it has come to, and for no permit."""
        self._take(await self._line.lease(self._ask(0)))

    def _take(self, lease: Lease) -> None:
        self._told = lease
        first = self._clock() + lease.delay
        self._permits.extend((first + number * lease.gap, lease.first + number) for number in range(lease.count))
        if lease.paused > 0:
            self.pause(lease.paused, lease.why)

    def _ask(self, wanted: int) -> Ask:
        seen, self._seen = self._seen, _Seen()
        return Ask(
            wanted=wanted,
            in_flight=self.in_flight() * self._among,
            accepted=seen.accepted,
            refused=seen.refused,
            pauses=seen.pauses,
            hint=seen.hint,
            limit=self._told.limit,
            paused=self.paused_for(),
        )
