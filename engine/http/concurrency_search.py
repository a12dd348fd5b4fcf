"""Finds how many requests in flight serve best. Pure: time is passed in.

With n in flight and a latency of t seconds a registry answers n / t a second. So a limit that is twice as high at the
same latency is twice the throughput, and one that only makes everyone wait longer is none: nearby registries are best
with a few, far ones with dozens. A limit is judged by the mean latency of a round of requests, of reads and of writes
apart, against that of the limit before it. Requests that nobody waited behind say nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

FIRST_LIMIT: Final = 4
DOUBLING: Final = 2.0
STEP: Final = 1.25
"""By this a limit is changed once doubling has been of no use."""
FAIR: Final = 0.1
"""A higher limit is kept when throughput grew by so much of the step, on a scale of logarithms: doubling by 7 %."""
NO_LOSS: Final = 0.98
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
FIRST_REST: Final = 4
LONGEST_REST: Final = 8
"""Rounds between two trials: a limit that was judged badly must not stand for long."""


@dataclass(slots=True)
class _Means:
    """Sums of latencies by kind."""

    seconds: dict[str, float] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, seconds: float) -> None:
        self.seconds[kind] = self.seconds.get(kind, 0.0) + seconds
        self.count[kind] = self.count.get(kind, 0) + 1

    def slower_than(self, other: _Means) -> float | None:
        """How many times as long requests take as there, weighed by their kinds; None: no kind in common."""
        kinds = self.count.keys() & other.count.keys()
        if not kinds:
            return None
        took = sum(self.seconds[kind] for kind in kinds)
        there = sum(self.count[kind] * other.seconds[kind] / other.count[kind] for kind in kinds)
        return took / there if there > 0 else None


class ConcurrencySearch:
    """`limit` requests may be in flight: from 4 up to `ceiling`, and down to 1."""

    def __init__(self, *, ceiling: int) -> None:
        self.limit = min(FIRST_LIMIT, ceiling)
        self._ceiling = ceiling
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

    def finished(self, kind: str, seconds: float, *, crowded: bool) -> None:
        """A request was answered, and had its place for `seconds`. `crowded`: another one waited for a place."""
        if not crowded:
            return
        if self._skip > 0:
            self._skip -= 1
            return
        self._round.add(kind, seconds)
        self._left -= 1
        self._least -= seconds
        if self._left <= 0 and self._least <= 0:
            self._judge(self._round)
            self._begin()

    def _begin(self) -> None:
        self._round = _Means()
        # what the round still needs: requests, and seconds of all of them together
        longer = 1 if self._doubling and not self._doubts else LONGER
        self._left = longer * max(self.limit, LEAST_ROUND)
        self._least = longer * self.limit * LEAST_SECONDS

    def _judge(self, found: _Means) -> None:
        kept, before = self._kept or (self.limit, found)
        slower = found.slower_than(before)
        if kept == self.limit:
            if slower is not None and not 1 / CHANGED < slower < CHANGED:
                self._start_over()
            self._keep(found)
        elif slower is None:
            self._move(kept)
        elif self._was_worth_it(self.limit / kept, slower):
            self._doubts = 0
            self._rest, self._resting = FIRST_REST, 0
            self._keep(found)
        else:
            self._go_back(kept)

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
        self._move(kept)
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
            return max(1, min(self.limit - 1, int(self.limit / STEP)))
        factor = DOUBLING if self._doubling else STEP
        return min(self._ceiling, max(self.limit + 1, int(self.limit * factor)))

    def _move(self, limit: int) -> None:
        self._skip = max(self.limit, limit)
        self.limit = limit
