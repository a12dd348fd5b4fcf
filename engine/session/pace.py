"""How fast a run goes, told in the ledger every few seconds, for whoever looks at it later or from elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

import anyio

from engine.errors import Stop
from engine.http.limiter import RateLimiter
from engine.migrate.context import Context
from engine.model import Entry, Json

EVERY_S: Final = 5.0
"""A line of some 300 bytes: what a prompt takes is three times as much."""


class Pace:
    """What the gates of both ends did since they were last looked at."""

    def __init__(self, source: RateLimiter, target: RateLimiter, clock: Callable[[], float] = time.monotonic) -> None:
        self._gates = {"target": target} if source is target else {"source": source, "target": target}
        self._clock = clock
        self._before = {end: _counts(gate) for end, gate in self._gates.items()}
        self._at = clock()
        self._told = False

    async def tell(self, context: Context) -> None:
        """A line now and then, until it is cancelled."""
        try:
            while True:
                await anyio.sleep(EVERY_S)
                self._told = True
                await context.record(self.entry())
        except Stop as stop:
            context.halt.request(stop)

    def rest(self) -> Iterator[Entry]:
        """What is left to tell at the end of a run that took long enough to be told of at all."""
        if self._told:
            yield self.entry()

    def entry(self) -> Entry:
        """Since the last one."""
        now = self._clock()
        seconds, self._at = now - self._at, now
        return Entry("pace", {"seconds": round(seconds, 3), **{end: self._since(end) for end in self._gates}})

    def _since(self, end: str) -> dict[str, Json]:
        gate, before = self._gates[end], self._before[end]
        self._before[end] = counts = _counts(gate)
        throttle = gate.throttle
        found = {name: round(counts[name] - before[name], 3) for name in counts}
        return {**found, "rate": throttle.rate, "limit": throttle.limit}


def _counts(gate: RateLimiter) -> dict[str, float]:
    return {
        "requests": gate.requests.total,
        "throttled": gate.requests.throttled,
        "paused_s": gate.throttle.paused_s,
    }
