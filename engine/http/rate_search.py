"""Finds how many requests a second a registry takes, from nothing but its refusals. Pure: time is passed in.

A limit that is not known is looked for from below: the rate grows by half each second until the first refusal. A
refusal cuts it; then it comes back towards the limit and creeps beyond, slowly at first and faster the longer nobody
refuses, so that a limit that holds is touched rarely and one that was raised is found soon. The limit is what was
accepted between two cuts, for that is what the registry lets through, whether it counts by the second or by the minute.
Where only a share of it is to be used, the rate rests at that share and looks for more at growing intervals.
"""

from __future__ import annotations

import math
from typing import Final

FIRST_RATE: Final = 10.0
LEAST_RATE: Final = 0.1
GROWTH: Final = 1.5
"""A second, until the first refusal."""
CUT: Final = 0.7
CLOSE_TO: Final = 0.97
"""Of the limit: so far it comes back at once."""
COMEBACK_S: Final = 0.5
HOLD_S: Final = 8.0
"""It stays there so long."""
CREEP: Final = 0.0005
"""Beyond that, by this times the cube of the seconds."""
RAISED: Final = 2.0
"""So many times the requests beyond the limit that met a refusal before, and none comes: the limit is another one."""
LEAST_EXCESS: Final = 3.0
LEAST_EXCESS_S: Final = 0.3
"""Fewer requests beyond the limit than either, the latter by its seconds, say nothing."""
STEP_S: Final = 0.25
STEP_REQUESTS: Final = 3
"""The rate changes after this time and this many requests."""
BINDING: Final = 0.7
"""Of what it allows: with fewer requests than this the rate is not what binds, and does not grow."""
MEASURED_S: Final = 2.0
MEASURED_REQUESTS: Final = 10
"""Less than this between two cuts says nothing about the limit."""
UNDERCOUNT: Final = 1.05
"""What is accepted between two cuts is less than the limit: the way back from the first one is in it. Where a share is
to be left to others, that errs on their side."""
UNMEASURED: Final = 0.85
"""Of the rate that was refused: the limit, as far as one refusal tells."""
SMOOTH_PAUSES: Final = 0.25
"""Pauses of a larger part of the time are no way to keep a limit: it is shared out over all of the time then."""
MEASUREMENTS: Final = 2
FIRST_REST_S: Final = 30.0
LONGEST_REST_S: Final = 480.0
PROBE_RATE: Final = 2.0
"""Where one pause was not enough: one request tells as much as many."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0


class RateSearch:
    """`ceiling`: a rate that is known, started at and never passed; None: it is found. `share`: of a limit that was
    found.

    Times are seconds of a clock that never goes back, rates are requests a second.
    """

    def __init__(self, *, ceiling: float | None, share: float) -> None:
        self.limit: float | None = None
        """What the registry takes, as far as it was found."""
        self._ceiling = math.inf if ceiling is None else ceiling
        self._share = share
        self._rate = min(self._ceiling, FIRST_RATE) if ceiling is None else ceiling
        self._base = self._rate
        """The rate after the last cut."""
        self._grown = 0.0
        """Seconds since then in which the rate was what bound."""
        self._rest = FIRST_REST_S
        self._to_measure = 0
        """Cuts that are still needed before the limit is known well enough to rest at a share of it."""
        self._excess = 0.0
        """Requests beyond the limit since the last cut."""
        self._tolerated = 0.0
        """How many there were when a refusal came."""
        self._raised_at = math.inf
        self._step_began: float | None = None
        self._step_sent = 0
        self._cut_at = -math.inf
        self._accepted = 0
        """Requests that were sent and accepted since the last cut."""
        self._paused = 0.0
        self._pause_ends = 0.0
        self._refused_at = -math.inf
        self._closed = 0
        """Refusals one after another, with nothing accepted between them."""
        self._hinted = math.inf
        self._hint_ends = 0.0

    # ---- what the gate tells and asks --------------------------------------------------------------------------------

    def rate(self, now: float) -> float:
        """What is allowed now."""
        if self.limit is None and self._rate == self._ceiling and now >= self._hint_ends:
            return self._rate  # a known one that was never refused
        if self._step_began is None:
            self._step_began = now
        elapsed = now - self._step_began
        if elapsed >= STEP_S and elapsed * self._rate >= STEP_REQUESTS:
            self._step(now, elapsed)
        rate = min(self._rate, PROBE_RATE) if self._closed > 1 else self._rate
        return min(rate, self._hinted) if now < self._hint_ends else rate

    def sent(self, now: float) -> None:
        """A request was let through."""
        self._step_sent += 1

    def accepted(self, sent_at: float) -> None:
        """An answer that is no refusal, to a request that was let through at `sent_at`."""
        if sent_at > self._cut_at:
            self._accepted += 1
        if sent_at > self._refused_at:
            self._closed = 0

    def refused(self, now: float, sent_at: float, asked: float | None, draw: float) -> float:
        """A 429. Returns the seconds in which nothing is to be sent: `asked`, or a guess that grows.

        `draw` is a number from 0 to 1.
        """
        if sent_at > self._refused_at:
            # while nothing is accepted the registry is closed for everyone: that is no matter of the rate
            if self._closed == 0:
                self._cut(now)
            self._closed += 1
            self._refused_at = now
        guess = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._closed - 1, 16)) * (0.5 + 0.5 * draw)
        seconds = guess if asked is None else asked
        ends = max(self._pause_ends, now + seconds)
        self._paused += ends - max(now, self._pause_ends)
        self._pause_ends = ends
        self._step_began, self._step_sent = ends, 0
        return seconds

    def hint(self, now: float, remaining: float, seconds: float) -> None:
        """The registry takes `remaining` requests in the next `seconds`. That may only slow down, and only so long."""
        self._hinted = max(remaining, 1.0) / seconds
        self._hint_ends = now + seconds

    # ---- the search --------------------------------------------------------------------------------------------------

    def _step(self, now: float, elapsed: float) -> None:
        if self._step_sent >= BINDING * self._rate * elapsed:
            self._grown += elapsed
            if self.limit is not None:
                self._excess += max(0.0, self._step_sent - self.limit * elapsed)
        self._step_began, self._step_sent = now, 0
        self._rate = min(max(self._wanted(), LEAST_RATE), self._ceiling)

    def _wanted(self) -> float:
        if self.limit is None:
            return self._base * math.pow(GROWTH, self._grown)
        close = CLOSE_TO * self.limit
        if not self._rests:
            return self._beyond(self._base, close, self._grown)
        at_rest = min(self._share * self.limit, close)
        if self._grown < self._rest:
            return _approach(self._base, at_rest, self._grown)
        return self._beyond(at_rest, close, self._grown - self._rest)

    @property
    def _rests(self) -> bool:
        return self._share < 1 and self._to_measure == 0

    def _beyond(self, start: float, close: float, seconds: float) -> float:
        """Back close to the limit, then beyond it, and far beyond when it must be another one."""
        creeping = max(0.0, seconds - HOLD_S)
        rate = _approach(start, close, seconds) * (1 + CREEP * creeping**3)
        if self._raised_at == math.inf and creeping and self._excess > RAISED * self._tolerated:
            self._raised_at = seconds
        return rate * math.pow(GROWTH, max(0.0, seconds - self._raised_at))

    def _cut(self, now: float) -> None:
        refused, measured = self._rate, self._measured(now)
        if self.limit is None or self._raised_at < math.inf:
            self._believe(UNMEASURED * refused)
        elif self._rests and self._grown < self._rest:
            # even the share was too much
            self._believe(UNMEASURED * refused)
        elif self._rests:
            self._rest = min(2 * self._rest, LONGEST_REST_S)
        elif measured is not None:
            undercount = UNDERCOUNT if self._share == 1 else 1.0
            self.limit = min(max(undercount * measured, refused / 2), refused)
            self._to_measure = max(0, self._to_measure - 1)
        else:
            self.limit = UNMEASURED * min(self.limit, refused)
        self._tolerated = max(self._excess, LEAST_EXCESS, LEAST_EXCESS_S * (self.limit or 0.0))
        self._base = self._rate = max(LEAST_RATE, CUT * refused)
        self._grown, self._excess, self._raised_at = 0.0, 0.0, math.inf
        self._cut_at, self._accepted, self._paused = now, 0, 0.0

    def _believe(self, limit: float) -> None:
        self.limit, self._rest, self._to_measure = limit, FIRST_REST_S, MEASUREMENTS

    def _measured(self, now: float) -> float | None:
        """What was accepted a second since the last cut; None: too little to tell."""
        seconds = now - self._cut_at
        if self._accepted < MEASURED_REQUESTS or not MEASURED_S <= seconds < math.inf:
            return None
        active = max(seconds - self._paused, STEP_S)
        return self._accepted / (seconds if self._paused > SMOOTH_PAUSES * seconds else active)


def _approach(start: float, end: float, seconds: float) -> float:
    return end - (end - start) * math.exp(-seconds / COMEBACK_S)
