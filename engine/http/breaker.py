"""What one client saw in this run: when an answer ends it, and when the registry counts as down.

A registry that has answered well before is waited for: it counts as down after 20 failures in a row, or when retries
have used up their budget, and nothing is sent to it but a probe from time to time. One that never answered well is
given up at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from engine.errors import Stop
from engine.http.responses import INFRASTRUCTURE, LONGEST_PAUSE, NETWORK_LOGIN, Fate, Request, Run, Verdict, retry_after

FAILURES_IN_A_ROW: Final = 20
SECONDS_THROTTLED: Final = 15 * 60.0
SECONDS_DOWN: Final = 15 * 60.0
FIRST_PROBE: Final = 5.0
LONGEST_PROBE: Final = 60.0
BUDGET: Final = 100
"""Points for retries: one gives back a point for each success, so that no more than a sixth of all can be retries."""
RETRY_COSTS: Final = 5
TIMEOUT_COSTS: Final = 10
SECONDS_TO_FIRST_ANSWER: Final = 30.0
REFUSALS_AT_FIRST: Final = 5

LATER: Final = "Run the same command again later: it goes on where this one stopped."


class CircuitBreaker:
    """Answers and failures of one end, called `end` ("source (host)") in messages.

    `clock` counts seconds and never goes back, `now` is the date in seconds. `attempts`: tries before a registry that
    has never answered is given up. `address`: the key of the migration file that says where it is, `form`: how such an
    address looks, for advice.
    """

    def __init__(
        self,
        end: str,
        attempts: int,
        *,
        address: str,
        form: str = "",
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._end = end
        self._address = address
        self._form = form and f" ({form})"
        self._attempts = attempts
        self._clock = clock
        self._now = now
        self.successes = 0
        """Answers that say the registry is well, whatever they say of their request."""
        self.down = ""
        """Why it counts as down; blank: it does not."""
        self._first_try: float | None = None
        self._answered = False
        self._known = False
        """An answer in JSON has come: an API is there."""
        self._proofs: dict[str, Request] = {}
        self._asked = ""
        self._failures = 0
        self._budget = BUDGET
        self._down_since = 0.0
        self._throttled_since: float | None = None
        self._refusals: dict[str, int] = {}
        self._allowed: set[str] = set()

    def sending(self) -> None:
        """A request is about to leave."""
        if self._first_try is None:
            self._first_try = self._clock()

    def see(self, verdict: Verdict, tries: int) -> Stop | None:
        """Takes note of one try, the `tries`-th that failed; a Stop when it ends the run."""
        if verdict.answer.status is not None:
            self._answered = True
        self._known |= verdict.fate is Fate.DONE or verdict.said is not None
        if verdict.fate is Fate.DONE:
            self._succeeded(verdict.request)
            return None
        if verdict.meaning.run is Run.STOP:
            return self._redirected(verdict) if verdict.error == "redirected" else self._key(verdict)
        if verdict.answer.over_cap and verdict.request.listing:
            return self._listing_too_large(verdict)
        if verdict.foreign and not self._known and verdict.fate is Fate.RETRY and self._given_up(tries):
            return self._foreign(verdict)
        if verdict.meaning.run is Run.PAUSE and (stop := self._pause_too_long(verdict)):
            return stop
        if verdict.error in INFRASTRUCTURE:
            return self._failed(verdict, tries)
        self._failures = 0
        if verdict.error == "throttled":
            return self._throttled()
        self.successes += 1
        return self._forbidden(verdict)

    @property
    def proof(self) -> Request:
        """A read that it has answered well before: what it is asked when it counts as down."""
        return self._proofs.get(self._asked) or next(reversed(self._proofs.values()))

    def at_fault(self, verdict: Verdict, *, since: int) -> bool:
        """Whether a failure is the registry's rather than the request's: nobody had an answer `since` then."""
        if verdict.error not in INFRASTRUCTURE or not self._proven(verdict):
            return False
        return bool(self.down) or self.successes == since

    def doubt(self, verdict: Verdict) -> None:
        """A request has used up its tries, and nobody had an answer meanwhile: it may not be the request's fault."""
        self._count_as_down(verdict, f"{verdict.request.call} failed again and again: {_why(verdict)}")

    def probes(self) -> Iterator[float]:
        """Seconds to wait before each question to a registry that counts as down; ends when it is to be given up.

        The first one comes at once where only one request is in doubt.
        """
        seconds = FIRST_PROBE
        if self._failures < FAILURES_IN_A_ROW and self._budget > 0:
            yield 0.0
        while self._clock() - self._down_since < SECONDS_DOWN:
            yield seconds
            seconds = min(2 * seconds, LONGEST_PROBE)

    def up(self) -> None:
        """It has answered again."""
        self.down, self._failures, self._budget = "", 0, BUDGET

    def given_up(self) -> Stop:
        """It has not answered for as long as it is waited for."""
        message = f"The {self._end} is down since {SECONDS_DOWN / 60:.0f} minutes: {self.down}."
        return Stop("registry_down", message, next=LATER)

    def _succeeded(self, request: Request) -> None:
        self.successes += 1
        self._failures, self._throttled_since = 0, None
        if self._budget < BUDGET:
            self._budget += 1
        if request.method == "GET":
            self._proofs.pop(request.call, None)
            self._proofs[request.call] = request
        self._allowed.add(request.call)

    def _proven(self, verdict: Verdict) -> bool:
        """Whether it has answered such a read before; of writes, any read."""
        return verdict.request.call in self._proofs if verdict.request.method == "GET" else bool(self._proofs)

    def _count_as_down(self, verdict: Verdict, why: str) -> None:
        if not self.down:
            self.down, self._down_since, self._asked = why, self._clock(), verdict.request.call

    def _key(self, verdict: Verdict) -> Stop:
        if verdict.error == "quota":
            message = f"The {self._end} answered {verdict.request.call} with 402: its quota is used up."
            return Stop("quota", message, next="Raise the quota or make room, then run the same command again.")
        message = f"The {self._end} refused the key at {verdict.request.call} ({verdict.answer.status})."
        return Stop("key_refused", message, next="Check that the key is right, not expired and switched on.")

    def _redirected(self, verdict: Verdict) -> Stop:
        where = _host(verdict.answer.headers.get("Location", ""))
        return Stop(
            "check_failed",
            f"The {self._end} answered {verdict.answer.status}: a redirect to {where}, which is not followed.",
            next=f"Set {self._address} to the address where the registry itself answers.",
        )

    def _foreign(self, verdict: Verdict) -> Stop:
        status, call = verdict.answer.status, verdict.request.call
        if status == NETWORK_LOGIN:
            message = f"A network on the way to the {self._end} answered {call} with {status}: it wants a login first."
            return Stop("check_failed", message, next="Log in to that network, then run the same command again.")
        return Stop(
            "check_failed",
            f"The {self._end} answers {call} with {status} and a page that is no JSON: {self._address} is not its API.",
            next=f"Set {self._address} to where the API itself answers{self._form}, then run the same command again.",
        )

    def _listing_too_large(self, verdict: Verdict) -> Stop:
        return Stop(
            "check_failed",
            f"The {self._end} answered {verdict.request.call} with a listing of more than {verdict.request.cap} bytes.",
            next="Migrate from a smaller workspace: this version reads no larger listing.",
        )

    def _pause_too_long(self, verdict: Verdict) -> Stop | None:
        seconds = retry_after(verdict.answer.headers, self._now())
        if seconds is None or seconds <= LONGEST_PAUSE:
            return None
        until = datetime.fromtimestamp(self._now() + seconds, UTC)
        return Stop(
            "registry_down",
            f"The {self._end} asks to wait {seconds:.0f} seconds, until {until:%Y-%m-%d %H:%M:%S} UTC.",
            next="Run the same command again after that time: it goes on where this one stopped.",
        )

    def _failed(self, verdict: Verdict, tries: int) -> Stop | None:
        self._failures += 1
        why = _why(verdict)
        if not self._answered and verdict.fate is Fate.RETRY and self._given_up(tries):
            return Stop(
                "registry_down",
                f"The {self._end} could not be reached in {tries} tries: {why}.",
                next=f"Check {self._address}, the network and the proxy, then run the same command again.",
            )
        if verdict.fate is Fate.RETRY:
            self._budget -= TIMEOUT_COSTS if verdict.answer.timed_out else RETRY_COSTS
        down = ""
        if self._failures >= FAILURES_IN_A_ROW:
            down = f"it failed {self._failures} times in a row; the last time: {why}"
        elif self._budget <= 0:
            down = f"too many requests to it had to be repeated; the last one: {why}"
        if down and not self.down and not self._proven(verdict):
            return Stop("registry_down", f"The {self._end} is down: {down}.", next=LATER)
        if down:
            self._count_as_down(verdict, down)
        return None

    def _given_up(self, tries: int) -> bool:
        begun = self._clock() if self._first_try is None else self._first_try
        return tries >= self._attempts or self._clock() - begun >= SECONDS_TO_FIRST_ANSWER

    def _throttled(self) -> Stop | None:
        if self._throttled_since is None:
            self._throttled_since = self._clock()
        if self._clock() - self._throttled_since < SECONDS_THROTTLED:
            return None
        return Stop(
            "registry_down",
            f"The {self._end} answers 429 (too many requests), and nothing has succeeded for 15 minutes.",
            next="Run the same command again later, with a lower limits.rate.",
        )

    def _forbidden(self, verdict: Verdict) -> Stop | None:
        call = verdict.request.call
        if verdict.error != "forbidden":
            self._allowed.add(call)
            return None
        self._refusals[call] = self._refusals.get(call, 0) + 1
        if call in self._allowed or self._refusals[call] < REFUSALS_AT_FIRST:
            return None
        return Stop(
            "forbidden",
            f"The {self._end} answered the first {REFUSALS_AT_FIRST} requests to {call} with 403 (forbidden).",
            next=f"Give the key the right to {call}, or use the key of the right workspace, then run again.",
        )


def _why(verdict: Verdict) -> str:
    return verdict.answer.fault or f"it answered {verdict.answer.status}"


def _host(location: str) -> str:
    try:
        return urlsplit(location).hostname or "another path of the same host"
    except ValueError:
        return "an address that cannot be read"
