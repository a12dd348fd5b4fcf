"""Finds how many requests in flight serve best. Pure: time is passed in.

With n in flight and a latency of t seconds a registry answers n / t a second. So a limit that is twice as high at the
same latency is twice the throughput, and one that only makes everyone wait longer is none: nearby registries are best
with a few, far ones with dozens. A limit is judged by the mean latency of a round of requests, of reads and of writes
apart, against that of the limit before it. Requests that nobody waited behind say nothing.

Where the registry is known to take a rate, as many as that rate and the latency need (Little's law) may always be in
flight: the latency is that with few in flight, so that a registry which is only made slow by more does not get more.
A rate that is only hoped for makes the next step bolder, and is judged like any other: a registry that one or two
requests keep busy has no refusals by which its rate could be known, and would be given all the places there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Literal

FIRST_LIMIT: Final = 4
DOUBLING: Final = 2.0
STEP: Final = 1.25
"""By this a limit is changed once doubling has been of no use."""
FAIR: Final = 0.2
"""A higher limit is kept when throughput grew by so much of the step, on a scale of logarithms: doubling by 15 %."""
NO_LOSS: Final = 0.97
"""A lower limit is kept when so much of the throughput is left."""
DOUBTS: Final = 3
"""Doubling ends when it was of no use so many times in a row: one may be a hiccup, which would cost the whole run."""
CHANGED: Final = 3.0
"""When the same limit takes so many times as long as before, or as short, doubling begins again."""
LEAST_ROUND: Final = 8
LEAST_SECONDS: Final = 0.03
"""Fewer requests, or less time, tell more of the machine's other work than of the registry."""
LONGER: Final = 4
"""Rounds are so many times as long once doubling is in doubt: a smaller gain is then to be told from noise."""
FIRST_REST: Final = 2
LONGEST_REST: Final = 32
"""Rounds between two trials."""
ROUNDS: Final = 4
"""So many rounds at one limit count fully; older ones fade. One round alone would be told from noise too badly."""
FEW: Final = 4
"""Fewer requests of a kind are not compared."""
BOLD: Final = 8
AT_EASE: Final = 1.5
"""A step is so many times at most, where requests take no longer than so many times those with few in flight."""
FULL: Final = 0.75
"""Nobody waits for a place at the ceiling, for there are no more workers: there, so full is crowded."""
HEAD_ROOM: Final = 2.0
SPARE: Final = 4
"""Times and beyond what rate and latency need on average: latencies differ, and some are very long."""
FAR_AWAY: Final = 4
"""A registry that needs so many times the first limit even for the first rate gets them at once."""
ALIKE: Final = 1.25
"""So many times as many in flight are no more."""
SAMPLE: Final = 8
"""Requests of one kind whose mean is a latency."""


@dataclass(slots=True)
class _Means:
    """Sums of latencies by kind, and of the requests that were in flight beside them."""

    seconds: dict[str, float] = field(default_factory=dict)
    count: dict[str, float] = field(default_factory=dict)
    flights: float = 0.0

    def add(self, kind: str, seconds: float, in_flight: float) -> None:
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
        self.count[kind] = self.count.get(kind, 0) + 1
        self.flights += in_flight

    @property
    def in_flight(self) -> float:
        """On the mean."""
        return self.flights / sum(self.count.values())

    def joined(self, newer: _Means) -> _Means:
        """Both; the older one counts half once it is of many rounds."""
        part = 0.5 if sum(self.count.values()) > ROUNDS * sum(newer.count.values()) else 1.0
        both = _Means(dict(newer.seconds), dict(newer.count), newer.flights + part * self.flights)
        for kind, count in self.count.items():
            both.seconds[kind] = both.seconds.get(kind, 0.0) + part * self.seconds[kind]
            both.count[kind] = both.count.get(kind, 0) + part * count
        return both

    def slower_than(self, other: _Means) -> float | None:
        """How many times as long requests take as there, weighed by their kinds; None: of none are enough in both."""
        kinds = [kind for kind, count in self.count.items() if count >= FEW <= other.count.get(kind, 0)]
        if not kinds:
            return None
        took = sum(self.seconds[kind] for kind in kinds)
        there = sum(self.count[kind] * other.seconds[kind] / other.count[kind] for kind in kinds)
        return took / there if there > 0 else None


class _Base:
    """The latency of one kind of request with few in flight, in seconds."""

    def __init__(self, seconds: float, in_flight: float) -> None:
        self.seconds = seconds
        self.in_flight = in_flight
        self._sum = self._flights = 0.0
        self._count = 0

    def add(self, seconds: float, in_flight: int) -> bool:
        """One request more; whether the latency may be another one by it."""
        self._sum += seconds
        self._flights += in_flight
        self._count += 1
        if self._count < SAMPLE:
            return False
        self._see(self._sum / SAMPLE, self._flights / SAMPLE)
        self._sum, self._flights, self._count = 0.0, 0.0, 0
        return True

    def _see(self, seconds: float, in_flight: float) -> None:
        if in_flight <= ALIKE * self.in_flight or seconds <= self.seconds:
            # no more in flight, so it is the way that has become longer
            self.seconds += (seconds - self.seconds) / 2
            self.in_flight = min(self.in_flight, in_flight)


class ConcurrencySearch:
    """`limit` requests may be in flight: from 4 up to `ceiling`, and down to 1. `latency`: that of an earlier run."""

    def __init__(self, *, ceiling: int, latency: float | None = None) -> None:
        self.limit = min(FIRST_LIMIT, ceiling)
        self._ceiling = ceiling
        self._least = 1
        self._hoped: int | None = None
        """What the rate and the latency need, whether the registry takes that rate or not."""
        self._bases: dict[str, _Base] = {}
        self.latency = latency
        """Seconds that a request takes with few in flight; None: nobody knows."""
        self._doubling = True
        self._doubts = 0
        self._begin()
        self._skip = self.limit
        """Requests that were under way when the limit changed."""
        self._kept: tuple[int, _Means] | None = None
        """The last limit that was kept, and what it gave."""
        self._resting = 0
        self._rest = FIRST_REST
        self._direction: Literal["up", "down"] = "up"

    def expect(self, rate: float, *, firm: bool) -> None:
        """So many requests a second are allowed. `firm`: the registry is known to take them."""
        if (latency := self.latency) is None:
            return
        needed = min(math.ceil(HEAD_ROOM * rate * latency) + SPARE * firm, self._ceiling)
        far_away = not firm and self._hoped is None and needed >= FAR_AWAY * self.limit
        self._least, self._hoped = needed if firm else 1, needed
        if far_away:
            self._kept = self.limit, self._few
        elif self._least <= self.limit:
            return
        self._move(needed)
        self._begin()

    def finished(self, kind: str, seconds: float, *, in_flight: int, crowded: bool) -> None:
        """A request was answered, and had its place for `seconds`, beside others: `in_flight` with it. `crowded`:
        another one waited for a place.
        """
        base = self._bases.get(kind)
        if base is None:
            self._bases[kind] = base = _Base(seconds, in_flight)
            self._learn()
        if base.add(seconds, in_flight):
            self._learn()
        if not (crowded or (self.limit == self._ceiling and in_flight >= FULL * self.limit)):
            return
        if self._skip > 0:
            self._skip -= 1
            return
        self._round.add(kind, seconds, in_flight)
        self._left -= 1
        self._needed_s -= seconds
        if self._needed_s <= 0 and (self._left <= 0 or self._is_clear):
            self._judge(self._round)

    def _learn(self) -> None:
        self.latency = sum(base.seconds for base in self._bases.values()) / len(self._bases)

    def _begin(self) -> None:
        self._round = _Means()
        self._extended = 0
        # what the round still needs: requests, and seconds of all of them together
        if self._bold:
            self._left, longer = max(self.limit // 2, LEAST_ROUND), 1
        else:
            self._left, longer = LONGER * max(self.limit, LEAST_ROUND), LONGER
        self._needed_s = longer * self.limit * LEAST_SECONDS

    def _judge(self, found: _Means) -> None:
        kept, before = self._kept or (self.limit, found)
        slower = found.slower_than(before)
        if kept == self.limit:
            self._look_again(before, found, slower)
        elif slower is None:
            if self._extended < LONGER:  # until there are some of one kind
                self._extended += 1
                self._left = max(self.limit, LEAST_ROUND)
                return
            self._move(kept)
        elif self._was_worth_it(found.in_flight / before.in_flight, slower):
            self._doubts = 0
            self._rest, self._resting = FIRST_REST, 0
            self._keep(found)
        else:
            self._go_back(kept)
        self._begin()

    def _look_again(self, before: _Means, found: _Means, slower: float | None) -> None:
        """One round more at the limit that is kept."""
        if slower is not None and not 1 / CHANGED < slower < CHANGED:
            self._start_over()
            self._keep(found)
        else:
            self._keep(found if found is before else before.joined(found))

    def _was_worth_it(self, step: float, slower: float) -> bool:
        return step / slower >= (step**FAIR if step > 1 else NO_LOSS)

    def _start_over(self) -> None:
        self._doubling = True
        self._doubts = 0
        self._rest, self._resting = FIRST_REST, 0
        self._direction = "up"

    def _keep(self, found: _Means) -> None:
        """The limit stands, and another one is tried unless it is time to rest."""
        self._kept = (self.limit, found)
        if self._resting > 0:
            self._resting -= 1
            return
        tried = self._next()
        if tried == self.limit:
            self._turn()
        else:
            self._move(tried)

    def _go_back(self, kept: int) -> None:
        self._move(max(kept, self._least))
        self._doubts += 1
        if not self._doubling or self._doubts == DOUBTS:
            self._turn()

    def _turn(self) -> None:
        self._doubling = False
        self._doubts = 0
        self._direction = "down" if self._direction == "up" else "up"
        self._resting, self._rest = self._rest, min(2 * self._rest, LONGEST_REST)

    def _next(self) -> int:
        if self._direction == "down":
            return max(self._least, min(self.limit - 1, int(self.limit / STEP)))
        factor = DOUBLING if self._doubling else STEP
        tried = max(self.limit + 1, int(self.limit * factor))
        if self._bold and self._kept is not None and self._at_ease(self._kept[1]):
            tried = max(tried, min(self._hoped or 0, BOLD * self.limit))
        return min(self._ceiling, tried)

    @property
    def _bold(self) -> bool:
        """More in flight have always been of use so far."""
        return self._doubling and not self._doubts

    @property
    def _is_clear(self) -> bool:
        """A few say as much as a round would."""
        if not self._bold or not self._at_ease(self._round):
            return False
        return self._kept is None or self._round.slower_than(self._kept[1]) is not None

    def _at_ease(self, means: _Means) -> bool:
        """These took hardly longer than with few in flight."""
        slower = means.slower_than(self._few)
        return slower is not None and slower < AT_EASE

    @property
    def _few(self) -> _Means:
        """What requests take with few in flight."""
        few = _Means()
        for kind, base in self._bases.items():
            for _ in range(FEW):
                few.add(kind, base.seconds, base.in_flight)
        return few

    def _move(self, limit: int) -> None:
        self._skip = max(self.limit, limit)
        self.limit = limit
