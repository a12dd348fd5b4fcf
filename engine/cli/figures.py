"""What there is to show of a run while it goes on: the figures of a moment, and how fast they change."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

from engine.http.limiter import RateLimiter, Requests
from engine.run import Live

_SPEED_S: Final = 10.0
"""How far a speed looks back; the time left looks back further, for it is not to jump about."""
_LEFT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What there is to show. Prompts and requests are apart: most prompts take two requests, and a retry one more."""

    stage: str
    done: int
    """Prompts whose outcome is known, of `total`."""
    total: int
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """Kind of outcome -> prompts."""
    why: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(`failed` or `conflict`, why) -> prompts."""
    requests: Requests = field(default_factory=Requests)
    """That were sent."""
    in_flight: int = 0
    rate: float = 0.0
    """Requests a second that the gates allow."""
    limit: float | None = None
    """Requests a second that a registry was found to take."""
    pause: str = ""
    """Why and how long nothing is sent; empty when nothing holds it."""
    paused_s: float = 0.0
    """Seconds of all pauses so far."""

    @property
    def failed(self) -> int:
        """Prompts."""
        return self.outcomes.get("failed", 0)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast it goes now. `prompts` and `requests`: a second; `left_s`: seconds to the end, None: nobody can say."""

    prompts: float = 0.0
    requests: float = 0.0
    left_s: float | None = None


class Stopwatch:
    """Turns figures that are seen one after the other into a pace. `clock`: seconds, and never goes back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int, int]] = deque()

    def see(self, now: Figures) -> Pace:
        """The pace until this moment."""
        at = self._clock()
        self._seen.append((at, now.done, now.requests.total))
        while self._seen[0][0] < at - _LEFT_S:
            self._seen.popleft()
        prompts, requests = self._since(at - _SPEED_S)
        steady, _ = self._since(at - _LEFT_S)
        return Pace(prompts, requests, (now.total - now.done) / steady if steady else None)

    def _since(self, begin: float) -> tuple[float, float]:
        first = next(point for point in self._seen if point[0] >= begin)
        last = self._seen[-1]
        seconds = last[0] - first[0]
        return ((last[1] - first[1]) / seconds, (last[2] - first[2]) / seconds) if seconds else (0.0, 0.0)


def figures(live: Live) -> Figures:
    """The run at this moment."""
    context = live.context
    return Figures(
        stage="looking up what is in doubt" if context is not None and context.looking_up else live.stage,
        done=context.settled if context is not None else 0,
        total=context.total if context is not None else 0,
        outcomes=context.done if context is not None else {},
        why=context.why if context is not None else {},
        requests=live.requests,
        **of_gates(live.ends.gates if live.ends is not None else ()),
    )


def of_gates(gates: Iterable[RateLimiter]) -> dict[str, Any]:
    """What all gates together tell of a `Figures`."""
    gates = list(gates)
    throttles = [gate.throttle for gate in gates]
    return {
        "in_flight": sum(gate.in_flight for gate in gates),
        "rate": sum(gate.rate for gate in gates),
        "limit": min((one.limit for one in throttles if one.limit is not None), default=None),
        "pause": _pause(gates),
        "paused_s": sum(one.paused_s for one in throttles),
    }


def _pause(gates: Iterable[RateLimiter]) -> str:
    """The longest in words, or what holds a gate without an end that is known; empty where none rests."""
    seconds, why = max(((gate.paused_for, gate.why) for gate in gates), default=(0.0, ""))
    return f"paused {ceil(seconds)} s: {why}" if seconds else why


def told(now: Figures, pace: Pace) -> dict[str, Any]:
    """The fields of a line of progress."""
    return {
        "prompts_done": now.done,
        "prompts": now.total,
        "prompts_failed": now.failed,
        "why": {f"{kind} {reason}": count for (kind, reason), count in now.why.items()},
        "prompts_per_s": _short(pace.prompts),
        "left_s": None if pace.left_s is None else ceil(pace.left_s),
        "requests": now.requests.total,
        "requests_sent_per_s": _short(pace.requests),
        "requests_per_s": _short(now.rate),
        "throttled": now.requests.throttled,
        "paused_s": now.paused_s,
        "pause": now.pause,
    }


def _short(number: float) -> float:
    return float(f"{number:.3g}")


def summed(all_counts: Iterable[Mapping[Any, int]]) -> Counter[Any]:
    """Counts of several together."""
    whole: Counter[Any] = Counter()
    for counts in all_counts:
        whole.update(counts)
    return whole
