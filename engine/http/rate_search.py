"""Finds how many requests a second a registry takes, from nothing but its answers. Pure: time is passed in.

Without a memory the rate grows with each answer until the first refusal (slow start, as TCP has it). A refusal says
that the registry has no tokens left, and two of them what it was given meanwhile: the refusals of one moment tell the
limit roughly, the time to the next ones exactly, once it is known how many tokens can be saved up, which the slow start
has shown. Only time in which the rate was what bound counts, not pauses and not seconds with nothing to send. A share
of the limit is used, and at growing intervals the rate creeps beyond it, to see whether it holds; where much more than
the limit is accepted, it is another one, and is looked for anew. So does BBR (measure, rest below, probe).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

FIRST_RATE: Final = 20.0
LEAST_RATE: Final = 0.1
GAIN: Final = 0.5
"""Requests by which those in flight may grow with each answer, while no limit is known."""
LEAST_LATENCY_S: Final = 0.05
ANEW_LATENCY_S: Final = 1.0
"""The rate does not double much faster than in this time, at first and when a limit was raised."""
UNPROVEN: Final = 8
"""Requests in flight that answers allow although the rate was not what held the requests back."""
RESERVE: Final = 0.997
"""Of a limit that is given: what differs on the way there must not add up to a refusal."""
CLOSE_TO: Final = 0.99
"""Of a limit that was found: a rest is there at most."""
FELL: Final = 0.5
"""Where only so much of the limit was accepted among refusals, it has fallen."""
CUT: Final = 0.85
"""A limit is not believed to be lower than this part of itself for one short time."""
AGREES: Final = 0.15
"""Measurements that differ by no more are of one limit."""
MANY: Final = 8
"""So many accepted among refusals tell the limit, where nothing better is known."""
MEASURED_S: Final = 3.0
"""A limit that was measured over less is measured again before the rate rests."""
LONGEST_S: Final = 60.0
"""More seconds than this give a measurement no more weight."""
FIRST_REST_S: Final = 20.0
LONGEST_REST_S: Final = 40.0
ALL_FIRST_REST_S: Final = 10.0
ALL_LONGEST_REST_S: Final = 30.0
"""Where all of a limit is used: its rise must be seen soon, for there is nothing in reserve."""
RESTS_GROW: Final = 1.6
RETURN_S: Final = 1.0
"""From a rest to the limit."""
RAISED: Final = 1.5
"""So many times the limit, and more tokens than can have been saved up: the limit is another one."""
UNSURE: Final = 1.6
"""So many times as fast does the rate creep up from a limit that was not measured well yet."""
FAR_OFF: Final = 2.5
"""So many times a limit that was not measured well yet: it was a wrong guess."""
SAVED_S: Final = 3.0
"""The most seconds of the limit that are believed to have been saved up."""
REMEMBERED_PART: Final = 0.8
REMEMBERED_S: Final = 2.0
"""A run begins at that part of the limit of the run before, so long."""
LONG_PAUSE_S: Final = 5.0
"""A registry that wants such pauses counts requests in long windows."""
PROBE_RATE: Final = 2.0
"""Where one pause was not enough: one request tells as much as many."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
MOST_POINTS: Final = 1024
SHORT_S: Final = 0.5
"""So short a time tells a high rate from many tokens badly."""
LAST: Final = 16
STEP: Final = 0.02
NOISE_S: Final = 0.03
NOISE_PART: Final = 0.02
"""By so many seconds of the limit, or such a part, a count is wrong: requests do not arrive as evenly as they leave."""
BEYOND: Final = 4.0
"""Requests that a limit was passed by, when refusals are no surprise."""


class Sent(NamedTuple):
    """A request that left. `number`: how many have by then; `idle`: seconds until then in which the rate did not bind;
    `bound`: it had to wait for the rate; `beside`: requests in flight with it.
    """

    at: float
    number: int
    idle: float
    rate: float
    bound: bool
    beside: int


class _Refusals:
    """Refusals that came one upon another: the registry had nothing left from the first to the last."""

    def __init__(self, first: Sent, now: float) -> None:
        self.first = self.last = first
        self.count = 1
        self.ends = now
        """What was sent by then was under way when the first one was answered."""

    def add(self, sent: Sent) -> None:
        self.count += 1
        self.first = min(self.first, sent)
        self.last = max(self.last, sent)

    @property
    def accepted(self) -> int:
        """What was accepted among them."""
        return self.last.number - self.first.number + 1 - self.count

    def rate(self, *, more: float = 0.0) -> float:
        """The limit: what was accepted among them, at least one, and `more`, a second. Infinite: there is only one."""
        seconds = self.last.at - self.first.at
        return (max(self.accepted, 1) + more) / seconds if seconds > 0 else math.inf


class _Trail:
    """How many requests had left when: the newest exactly, those long ago at fewer and fewer moments."""

    def __init__(self) -> None:
        self._points: list[tuple[float, int]] = []

    def add(self, sent: Sent) -> None:
        self._points.append((sent.at, sent.number))
        if len(self._points) > MOST_POINTS:
            del self._points[: MOST_POINTS // 2 : 2]

    def rate(self, end: Sent) -> float:
        """At which the last few left until then; infinite: they are too few."""
        last = [at for at, number in self._points if end.number - LAST < number <= end.number]
        return (len(last) - 1) / (last[-1] - last[0]) if len(last) == LAST and last[-1] > last[0] else math.inf

    def saved(self, rate: float, end: Sent) -> float:
        """The tokens that must have been saved up for these requests, where so many come each second, when the last
        one was used at `end`.
        """
        beyond = (end.number - number + 1 - rate * (end.at - at) for at, number in self._points if at <= end.at)
        return max(1.0, max(beyond, default=1.0))


class RateSearch:
    """`ceiling`: a rate that is known, started at and never passed; None: it is found. `share`: of a limit that was
    found. `known`: the limit that an earlier run has found.

    Times are seconds of a clock that never goes back, rates are requests a second.
    """

    def __init__(self, *, ceiling: float | None, share: float, known: float | None = None) -> None:
        self.limit: float | None = None if ceiling is not None else known
        """What the registry takes, as far as it was found."""
        self._ceiling = math.inf if ceiling is None else ceiling * RESERVE
        self._share = share
        self._start = FIRST_RATE if ceiling is None else self._ceiling
        """The rate while no limit is known."""
        self._remembered = self.limit is not None
        self._sure = MEASURED_S if self._remembered else 0.0
        """Seconds over which the limit was measured."""
        self._rest = self._first_rest
        self._grown = 0.0
        """Seconds since the last refusals in which the rate was what bound."""
        self._excess = 0.0
        """Requests beyond the limit since it was reached last."""
        self._latency = 0.0
        self._pace = LEAST_LATENCY_S
        self._trail = _Trail()
        """What has left since the last refusals."""
        self._burst: tuple[_Trail, Sent] | None = None
        """The trail to the first refusal, or to the first one of another limit: then everything saved up was used."""
        self._last: Sent | None = None
        self._began = 0.0
        self._idle = 0.0
        self._mark: Sent | None = None
        """The last refusal but those that came just now; None: since then another limit is looked for."""
        self._refusals: _Refusals | None = None
        self._looking: _Refusals | None = None
        """The newest refusals, while more of them may come."""
        self._ended = _Trail()
        """The trail that led to them."""
        self._pause_ends = 0.0
        self._long = False
        """The pause before the trail was so long that the registry must count in windows."""
        self._most = math.inf
        """The rate at which the newest refusals began."""
        self._refused_at = -math.inf
        self._closed = 0
        """Refusals one after another, with nothing accepted between them."""
        self._hinted = math.inf
        self._hint_ends = 0.0
        self._hint_long = False

    @property
    def _first_rest(self) -> float:
        return FIRST_REST_S if self._share < 1 else ALL_FIRST_REST_S

    @property
    def firm(self) -> float | None:
        """The rate that the registry is known to take; None: nobody knows."""
        if self.limit is not None:
            return min(self.limit, self._ceiling)
        return self._ceiling if self._ceiling < math.inf else None

    # ---- what the gate tells and asks --------------------------------------------------------------------------------

    def rate(self, now: float) -> float:
        """What is allowed now."""
        if self._looking is not None and now >= self._pause_ends:
            self._look_back(self._looking)
        rate = self._wanted()
        if self._closed > 1:
            rate = min(rate, PROBE_RATE)
        return min(rate, self._hinted) if now < self._hint_ends else rate

    def sent(self, now: float, *, bound: bool, beside: int) -> Sent:
        """A request leaves. `bound`: it had to wait for the rate, and for nothing else; `beside`: so many are in flight
        with it.
        """
        rate, last = self._wanted(), self._last
        if last is None:
            number, gap, extra = 1, 0.0, 0.0
            self._began = now
        else:
            number, gap = last.number + 1, now - last.at
            paused = last.at < self._pause_ends
            extra = gap if paused else 0.0 if bound else max(0.0, gap - 1 / rate)
        self._idle += extra
        self._grown += gap - extra
        self._last = Sent(now, number, self._idle, rate, bound, beside)
        self._trail.add(self._last)
        if self.limit is not None and rate > self.limit:
            self._excess += 1 - min(1.0, self.limit * (gap - extra))
            raised = rate > RAISED * self.limit and self._excess > self._saved
            if raised if self._sure >= MEASURED_S else rate > FAR_OFF * self.limit:
                self._look_anew(rate)
        return self._last

    def accepted(self, now: float, sent: Sent) -> None:
        """An answer that is no refusal."""
        self._latency += (now - sent.at - self._latency) / 8 if self._latency else now - sent.at
        if sent.at > self._refused_at:
            self._closed = 0
        needed = self._start * self._latency
        proven = needed < UNPROVEN or (sent.bound and sent.beside >= needed / 2)
        if self.limit is None and self._looking is None and proven:
            self._start = min(self._ceiling, self._start + GAIN / max(self._pace, self._latency))

    def refused(self, now: float, sent: Sent, asked: float | None, draw: float) -> float:
        """A 429. Returns the seconds in which nothing is to be sent: `asked`, or a guess that grows.

        `draw` is a number from 0 to 1.
        """
        if self._refusals is not None and sent.at <= self._refusals.ends:
            self._refusals.add(sent)
        elif self._closed:
            # while nothing is accepted the registry is closed for everyone: that is no matter of the rate
            self._closed += 1
            self._refused_at = now
            if self._refusals is not None:
                self._refusals.add(sent)
        else:
            self._closed = 1
            self._refused_at = now
            self._cut(sent, now)
        guess = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._closed - 1, 16)) * (0.5 + 0.5 * draw)
        seconds = guess if asked is None else asked
        self._pause_ends = max(self._pause_ends, now + seconds)
        if self._closed > 1 and self._refusals is not None and self._looking is None:
            self._count_in_windows(self._refusals)
        return seconds

    def hint(self, now: float, remaining: float, seconds: float) -> None:
        """The registry takes `remaining` requests in the next `seconds`. That may only slow down, and only so long."""
        if seconds <= 1 <= remaining:
            # whole seconds, rounded up: it may as well be in a moment
            self._hint_ends = self._hint_ends if self._hint_long else now
            return
        self._hint_long = seconds > 1
        self._hinted = self._share * max(remaining, 1.0) / seconds
        self._hint_ends = now + seconds

    # ---- the search --------------------------------------------------------------------------------------------------

    def _wanted(self) -> float:
        """The rate, whatever the registry says of this moment."""
        # asked several times for each request, and mostly answered by the first
        aim = self._start if self.limit is None and self._looking is None else self._aim()
        return min(max(aim, LEAST_RATE), self._ceiling)

    def _aim(self) -> float:
        if self._looking is not None:
            return CUT * self._looking.first.rate
        assert self.limit is not None  # else it is the one to start with
        if self._sure < MEASURED_S:
            return self.limit * _creep(UNSURE * self._grown)
        at_rest = min(self._share, CLOSE_TO) * self.limit
        if self._remembered and self._grown < REMEMBERED_S:
            return min(at_rest, REMEMBERED_PART * self.limit)
        beyond = self._grown - self._rest
        if beyond <= 0:
            return at_rest
        if beyond < RETURN_S:
            return at_rest + (self.limit - at_rest) * beyond / RETURN_S
        return self.limit * _creep(beyond - RETURN_S)

    @property
    def _saved(self) -> float:
        """Requests that the registry may have saved up for us."""
        assert self.limit is not None
        most = SAVED_S * self.limit
        return max(1.0, most if self._burst is None else min(1.2 * self._capacity(self.limit), most))

    def _look_anew(self, rate: float) -> None:
        """The limit is another one."""
        self.limit, self._start, self._sure, self._rest = None, rate, 0.0, self._first_rest
        self._mark, self._remembered, self._trail, self._pace = None, False, _Trail(), ANEW_LATENCY_S

    def _cut(self, sent: Sent, now: float) -> None:
        """The first refusal after a while."""
        if self._refusals is not None:
            self._long = self._pause_ends - self._refusals.first.at >= LONG_PAUSE_S
            self._mark = self._refusals.last if self.limit is not None else None
        self._refusals = self._looking = _Refusals(sent, now)
        self._ended, self._trail = self._trail, _Trail()
        self._grown = self._excess = 0.0
        self._remembered = False

    def _look_back(self, refusals: _Refusals) -> None:
        """A pause has ended: what was under way when it began has been answered by now."""
        self._looking = None
        first = refusals.first
        actual = self._ended.rate(first)
        self._most = first.rate if first.rate < 2 * actual else actual
        if self._mark is None:
            self._burst = self._ended, first
            self._guess(refusals)
        else:
            self._measured(self._mark, first)
        assert self.limit is not None
        if self._sure < MEASURED_S and refusals.accepted >= MANY:
            self.limit = min(refusals.rate(), first.rate)
        if FELL * self.limit > (rate := refusals.rate(more=2.0)):
            self.limit, self._sure, self._rest = rate, 0.0, self._first_rest
        self._count_in_windows(refusals)

    def _guess(self, refusals: _Refusals) -> None:
        """What the first refusals tell."""
        guess = min(self._most, refusals.rate())
        if guess == self._most:
            guess *= CUT
        if self.limit is None:
            self.limit, self._sure = guess, 0.0
        elif self._ended.saved(self.limit, refusals.first) < BEYOND:
            # it was refused before it had gone beyond
            self.limit, self._sure = min(self.limit, guess), 0.0

    def _count_in_windows(self, refusals: _Refusals) -> None:
        """Nothing was accepted for long: all there is was used before, in a part of the time."""
        if self._mark is None and self._pause_ends - refusals.first.at >= LONG_PAUSE_S:
            self.limit, self._sure = refusals.first.number / (self._pause_ends - self._began), MEASURED_S

    def _measured(self, mark: Sent, sent: Sent) -> None:
        """The registry's tokens were used up at both: what it took between them is what it has been given since."""
        idle = sent.idle - mark.idle
        seconds = sent.at - mark.at - idle
        accepted = sent.number - mark.number - 1
        found = self._fit(sent, accepted, max(seconds, 1e-3), idle)
        assert self.limit is not None
        before, sure = self.limit, self._sure
        if abs(found / before - 1) <= AGREES:
            weight = min(sure, LONGEST_S)
            self.limit, self._sure = (weight * before + seconds * found) / (weight + seconds), sure + seconds
            self._rest = min(RESTS_GROW * self._rest, LONGEST_REST_S if self._share < 1 else ALL_LONGEST_REST_S)
        elif seconds < min(MEASURED_S, sure):
            self.limit, self._sure, self._rest = max(found, CUT * before), 0.0, self._first_rest
        else:
            self.limit, self._sure, self._rest = found, seconds, self._first_rest
        self.limit = min(self.limit, self._most)

    def _fit(self, sent: Sent, accepted: int, seconds: float, idle: float) -> float:
        """The rate at which tokens came: at least what was accepted, and as many more as could not be saved up because
        the registry was full.
        """
        least = accepted / (seconds + idle)
        if self._long:
            return least
        highest = found = max(least, self._most)
        # from above: with a lower rate and more tokens than there are, the same may be explained once more
        while found > least:
            beyond = self._ended.saved(found, sent) - self._capacity(found)
            if beyond <= 0:
                highest = found
            elif beyond > min(0.5 + NOISE_S * found, NOISE_PART * found * seconds):
                break
            found *= 1 - STEP
        else:
            if self._sure >= MEASURED_S and self.limit is not None and least <= self.limit <= self._most:
                # the last refusals came about as the first ones did: any rate explains both
                return self.limit
        if found <= least and least * (1 + STEP) < highest:
            found = highest
        assert self.limit is not None
        found = min(max(self.limit, found), highest) if self._sure >= MEASURED_S else (found + highest) / 2
        part = max(0.5, min(1.0, seconds / SHORT_S))
        return math.pow(least, 1 - part) * math.pow(found, part)

    def _capacity(self, rate: float) -> float:
        """What the registry can save up, if that is its rate."""
        assert self._burst is not None  # it has refused something
        trail, end = self._burst
        return trail.saved(rate, end)


def _creep(seconds: float) -> float:
    """Slowly at first, then faster: a limit that holds is passed by little, one that was raised is found soon."""
    return 1 + 0.01 * seconds + 0.004 * seconds**2
