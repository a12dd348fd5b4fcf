"""What one run did over time, in few bins however long it takes. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
from typing import Final

from engine.ledger.report import OUTCOME_OF
from engine.model import Json

BINS: Final = 240
"""At most; when a run outgrows them, each two become one of twice the width."""
_ANSWERED: Final = ("created", "updated", "failed")
_EDGES: Final = tuple(0.001 * 1.2**step for step in range(80))
"""Upper ends of the classes that seconds are counted in, each a fifth wider than the one before: from 1 ms to half an
hour."""
EVERY: Final = 0.5
MOST: Final = 0.95


@dataclass(slots=True)
class _Bin:
    counts: Counter[str] = field(default_factory=Counter)
    waits: Counter[int] = field(default_factory=Counter)
    """Class of seconds from intent to answer -> prompts."""


@dataclass(slots=True)
class _Pace:
    """What the gate of an end did in some seconds. `limit`: requests a second, as it was found by then."""

    at: float
    seconds: float
    requests: int
    throttled: int
    paused_s: float
    limit: float | None

    def __add__(self, later: _Pace) -> _Pace:
        return _Pace(
            self.at,
            self.seconds + later.seconds,
            self.requests + later.requests,
            self.throttled + later.throttled,
            self.paused_s + later.paused_s,
            later.limit if later.limit is not None else self.limit,
        )

    @property
    def rate(self) -> float:
        return round(self.requests / self.seconds, 2) if self.seconds else 0.0


class Timeline:
    """Times are epoch seconds."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.width = 1.0
        """Seconds of a bin."""
        self._bins: dict[int, _Bin] = {}
        self._paces: dict[str, list[_Pace]] = {}
        """End -> what its gate did, one after the other."""
        self._sent: dict[str, float] = {}
        """Prompts whose answer is awaited -> when their intent was written."""

    @property
    def busy(self) -> bool:
        """Whether it did anything."""
        return bool(self._bins)

    def take(self, at: float, kind: str, source_id: str, line: Mapping[str, Json]) -> None:
        """A line about a prompt."""
        if kind == "intent":
            self._sent[source_id] = at
            return
        outcome, sent = OUTCOME_OF.get(kind), self._sent.pop(source_id, None)
        if outcome is None:
            return
        found = self._bin(at)
        found.counts[outcome] += 1
        if sent is not None and kind in _ANSWERED and line.get("how") != "lookup":
            found.waits[bisect_left(_EDGES, at - sent)] += 1

    def pace(self, at: float, line: Mapping[str, Json]) -> None:
        """A line that tells how fast it goes."""
        seconds = line["seconds"]
        for end in ("source", "target"):
            if (told := line.get(end)) is not None:
                paces = self._paces.setdefault(end, [])
                counts = told["requests"], told["throttled"], told["paused_s"], told["limit"]
                paces.append(_Pace(at - seconds, seconds, *counts))
                if len(paces) >= 2 * BINS:
                    paces[:] = map(add, paces[::2], paces[1::2])

    def _bin(self, at: float) -> _Bin:
        place = max(0, int((at - self.start) / self.width))
        while place >= BINS:
            self._halve()
            place //= 2
        found = self._bins.get(place)
        if found is None:
            found = self._bins[place] = _Bin()
        return found

    def _halve(self) -> None:
        self.width *= 2
        bins, self._bins = self._bins, {}
        for place, one in bins.items():
            into = self._bins.setdefault(place // 2, _Bin())
            into.counts.update(one.counts)
            into.waits.update(one.waits)

    def to_json(self) -> dict[str, Json]:
        """Columns with one value a bin. `counts`: outcome -> prompts. `p50`, `p95`: seconds from intent to answer."""
        places = range(max(self._bins, default=-1) + 1)
        bins = [self._bins.get(place) or _Bin() for place in places]
        outcomes = [name for name in dict.fromkeys(OUTCOME_OF.values()) if any(one.counts[name] for one in bins)]
        return {
            "start": self.start,
            "width": self.width,
            "counts": {name: [one.counts[name] for one in bins] for name in outcomes},
            "p50": [share_of(one.waits, EVERY) for one in bins],
            "p95": [share_of(one.waits, MOST) for one in bins],
            "pace": {end: _columns(paces) for end, paces in self._paces.items()},
        }


def _columns(paces: Sequence[_Pace]) -> dict[str, Json]:
    """`rate`: requests a second that were sent."""
    names = ("at", "seconds", "rate", "limit", "throttled", "paused_s")
    return {name: [getattr(pace, name) for pace in paces] for name in names}


def share_of(waits: Mapping[int, int], share: float) -> float | None:
    """The seconds within which that share of prompts was answered, to a tenth; None: there are none."""
    left = share * sum(waits.values())
    for place in sorted(waits):
        left -= waits[place]
        if left <= 0:
            return round(float(_EDGES[min(place, len(_EDGES) - 1)] / 1.2**0.5), 4)
    return None
