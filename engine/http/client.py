"""Client: sends a request until it is settled. What an answer means stands in responses, what ends a run in breaker."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol
from urllib.parse import urlencode

from engine.errors import Transient
from engine.http.breaker import CircuitBreaker
from engine.http.limiter import Kind, RateLimiter, Turn
from engine.http.responses import (
    INFRASTRUCTURE,
    Answer,
    Fate,
    Request,
    Run,
    Special,
    Verdict,
    Whole,
    backoff,
    error_of,
    rate_hint,
    read_answer,
    retry_after,
)
from engine.lossless_json import Json

Params = Mapping[str, str] | Sequence[tuple[str, str]]
Sending = Callable[[], Awaitable[None]]
Leave = Callable[[], Awaitable[bool]]
"""Awaited when a connection is there, before the first byte leaves; False: it must not leave now."""
Send = Callable[[Request, Mapping[str, str], Leave], Awaitable[Answer]]
"""Sends a request with these headers once, and raises nothing but what is a bug. The answer is `held` when it was not
let leave."""


_PATH: Final = re.compile(r'/[!"$->@-~]*')
"""What can be seen of ASCII, but for ? and #."""
MOST_REFRESHED: Final = 8
"""Tokens that may expire under one request, each after it has worked for others."""
MOST_STALE: Final = 8
"""Kept connections that may break under one request before that counts as a failure."""


@dataclass(frozen=True)
class RequestLimits:
    """`timeout`: seconds for one request in all; `attempts`: of one that may be repeated; caps in bytes of a body."""

    timeout: float
    attempts: int
    connect: float = 10
    body_cap: int = 8 * 2**20
    listing_cap: int = 64 * 2**20


@dataclass(frozen=True)
class Timing:
    """Where time and chance come from. `clock` never goes back, `now` is the date in seconds, `draw` gives 0 to 1."""

    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], float] = time.time
    draw: Callable[[], float] = random.random


class Auth(Protocol):
    """What signs requests. The values of its headers are kept out of every message."""

    def headers(self) -> Mapping[str, str]:
        """The headers of the next request."""
        ...

    async def refresh(self, stale: Mapping[str, str]) -> bool:
        """Get others than `stale`, which were refused; False: there are none. Never called twice at once."""
        ...


@dataclass(slots=True)
class _Progress:
    """Where a request stands. `sending`: what writes its intent."""

    sending: Sending | None = None
    intended: float | None = None
    """When that was begun last."""
    sent: int = 0
    failures: int = 0
    successes: int = 0
    """What others had got when it failed first."""
    refreshed: int = 0
    stale: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Those of the last try."""


class Client:
    """Requests to one registry with one key. Made by `engine.http.session.open_client`.

    `call` names the kind of request ("list", "retrieve", "create") for messages and for the rule about 403. Paths begin
    with a slash and are percent-encoded already. Every method raises

    - Stop: the run must end. Its `__cause__` is what became of this request: Rejected and Transient, surely no effect;
      UnknownOutcome, in doubt.
    - Rejected, or its children Gone and Exists: surely no effect, and repeating it will not help.
    - Transient: it was tried `limits.attempts` times, or (`not_sent`) surely never left.
    """

    def __init__(
        self,
        send: Send,
        base_url: str,
        auth: Auth,
        gate: RateLimiter,
        limits: RequestLimits,
        *,
        end: str,
        address: str,
        form: str = "",
        secrets: Collection[str],
        errors: Sequence[Special] = (),
        timing: Timing,
    ) -> None:
        self.limits: Final = limits
        self._send = send
        self._base_url = base_url.rstrip("/")
        self._auth = auth
        self._gate = gate
        self._end = end
        self._secrets = secrets
        self._errors = errors
        self._timing = timing
        self._health = CircuitBreaker(
            end, limits.attempts, address=address, form=form, clock=timing.clock, now=timing.now
        )
        self._refreshing = asyncio.Lock()
        self._accepted: deque[Mapping[str, str]] = deque(maxlen=4)
        """The newest headers that were good once."""

    async def read(self, call: str, path: str, params: Params | None = None, *, cap: int | None = None) -> Json:
        """GET. `cap`: bytes of a listing that comes in one piece; one that is larger stops the run."""
        request = Request(
            end=self._end,
            call=call,
            method="GET",
            url=self._url(path, params),
            cap=self.limits.body_cap if cap is None else cap,
            listing=cap is not None,
        )
        return await self._settle(request, _Progress())

    async def create(
        self,
        call: str,
        method: str,
        path: str,
        body: bytes,
        sending: Sending,
        *,
        params: Params | None = None,
        content_type: str = "application/json",
        blank: bool = False,
    ) -> Json:
        """A create, or a PUT that makes a version: repeated only where the try before surely had no effect.

        `sending` is awaited once, when the gate has let the first try through, or, where it leases, will soon, and
        before its first byte leaves; not at all when the gate lets none through. `blank`: a blank answer is a whole
        one, given as None. Also raises UnknownOutcome: it may have happened.
        """
        request = Request(
            end=self._end,
            call=call,
            method=method,
            url=self._url(path, params),
            body=body,
            content_type=content_type,
            repeatable=False,
            cap=self.limits.body_cap,
            blank=blank,
        )
        return await self._settle(request, _Progress(sending=sending))

    async def repeatable(
        self,
        call: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        params: Params | None = None,
        content_type: str = "application/json",
        hushed: bool = False,
    ) -> Json:
        """Whatever may be sent twice (makeDefault, labels, delete, render): like a read; a blank answer is None.

        `hushed`: the answer may quote a template that is not in `body`; no error holds what it says, but for a code.
        """
        request = Request(
            end=self._end,
            call=call,
            method=method,
            url=self._url(path, params),
            body=body,
            content_type="" if body is None else content_type,
            cap=self.limits.body_cap,
            blank=True,
            hushed=hushed,
        )
        return await self._settle(request, _Progress())

    async def complete(
        self, call: str, path: str, body: bytes, sending: Sending | None = None, *, hushed: bool = True
    ) -> Whole:
        """POST that makes a model answer, in JSON or in an event stream. It costs money: repeated like a create, after
        429 until it was sent `limits.attempts` times. `sending`: as in `create`. Not `hushed` only where the answer can
        quote nothing but `body`. Also raises UnknownOutcome: it may have been paid for.
        """
        request = Request(
            end=self._end,
            call=call,
            method="POST",
            url=self._url(path, None),
            body=body,
            content_type="application/json",
            repeatable=False,
            cap=self.limits.body_cap,
            hushed=hushed,
            completion=True,
        )
        whole: Whole = await self._settle(request, _Progress(sending=sending))
        return whole

    def _url(self, path: str, params: Params | None) -> str:
        if _PATH.fullmatch(path) is None:
            raise ValueError("a path begins with a slash and is percent-encoded")
        return f"{self._base_url}{path}?{urlencode(params)}" if params else f"{self._base_url}{path}"

    async def _settle(self, request: Request, progress: _Progress) -> Json:
        while True:
            if not (signed := self._auth.headers()):
                await self._refresh(signed)
            verdict = await self._try(request, progress)
            if verdict.fate is Fate.DONE:
                self._health.see(verdict, progress.failures)
                return verdict.value
            if verdict.outcome == 401 and self._expired(progress) and await self._refresh(progress.headers):
                progress.refreshed += 1
            elif verdict.answer.stale and verdict.fate is Fate.RETRY and progress.stale < MOST_STALE:
                # nothing is wrong with the registry: the connection was only too old, and so may others be
                progress.stale += 1
            else:
                await self._failed(verdict, progress)

    def _expired(self, progress: _Progress) -> bool:
        """Whether others may be accepted: once for each request, and again where these have been good before."""
        return not progress.refreshed or (progress.headers in self._accepted and progress.refreshed < MOST_REFRESHED)

    async def _try(self, request: Request, progress: _Progress, *, probe: bool = False) -> Verdict:
        """One exchange. The gate learns how it was answered."""
        kind: Kind = "read" if request.method == "GET" else "write"
        intend = None
        if progress.sending is not None and progress.intended is None:
            intend = partial(self._intend, progress, progress.sending)
        ahead = intend if self._gate.leases else None
        async with self._gate.turn(kind, retry=progress.sent > 0, probe=probe, ahead=ahead) as turn:
            if intend is not None and ahead is None:
                await intend()
            turn.intended = progress.intended
            answer = await self._send_in_turn(request, progress, turn)
            progress.sent += 1
        verdict = read_answer(request, answer, self._errors)
        if verdict.outcome != 401 and answer.status is not None and progress.headers not in self._accepted:
            self._accepted.append(progress.headers)
        if answer.status is not None:
            self._tell(turn, verdict, progress)
        return verdict

    def _intend(self, progress: _Progress, sending: Sending) -> Awaitable[None]:
        progress.intended = self._gate.clock()
        return sending()

    async def _send_in_turn(self, request: Request, progress: _Progress, turn: Turn) -> Answer:
        while True:
            await turn.ready()
            if progress.sending is not None and turn.outdated:
                await self._intend(progress, progress.sending)
                turn.intended = progress.intended
            self._health.sending()
            progress.headers = self._auth.headers()  # now: a token may have expired while this waited for its turn
            answer = await self._send(request, progress.headers, turn.departs)
            if not answer.held:
                return answer

    def _tell(self, turn: Turn, verdict: Verdict, progress: _Progress) -> None:
        answer = verdict.answer
        if hint := rate_hint(answer.headers, self._timing.now()):
            self._gate.hint(*hint)
        if verdict.meaning.run is not Run.PAUSE:
            self._gate.accepted(turn)
            return
        asked = retry_after(answer.headers, self._timing.now())
        why = f"the {self._end} answered {answer.status}"
        if verdict.error == "throttled":
            self._gate.refused(turn, asked, why)
        else:
            self._gate.pause(backoff(progress.failures + 1, self._timing.draw()) if asked is None else asked, why)

    async def _refresh(self, stale: Mapping[str, str]) -> bool:
        async with self._refreshing:
            # somebody else may have done it while we waited
            return self._auth.headers() != stale or await self._auth.refresh(stale)

    async def _failed(self, verdict: Verdict, progress: _Progress) -> None:
        """Returns when it is to be sent again, now. Else raises what became of it."""
        fate, health = verdict.fate, self._health
        if fate is not Fate.WAIT:
            progress.successes = progress.successes if progress.failures else health.successes
            progress.failures += 1
        stop = health.see(verdict, progress.failures)
        error = error_of(verdict, self._hidden(progress.headers))
        if stop:
            raise stop from error
        tries = {Fate.WAIT: progress.failures + 1, Fate.RETRY: self.limits.attempts, Fate.ONCE: 2}.get(fate, 1)
        worn_out = progress.failures >= tries
        if fate is Fate.WAIT and verdict.request.completion:
            worn_out = progress.sent >= self.limits.attempts
        forgiven = fate is Fate.RETRY and health.at_fault(verdict, since=progress.successes)
        if worn_out and forgiven:
            health.doubt(verdict)
        if health.down:
            self._gate.close(self._probe, f"the {self._end} is down: {health.down}")
        if worn_out and not forgiven:
            raise error
        if not worn_out and verdict.meaning.run is not Run.PAUSE:
            seconds = backoff(progress.failures, self._timing.draw())
            await self._gate.unless_halted(lambda: self._timing.sleep(seconds))

    async def _probe(self) -> None:
        """Asks a registry that counts as down what it has answered before; raises Stop when it stays down."""
        health = self._health
        for seconds in health.probes():
            await self._timing.sleep(seconds)
            progress = _Progress(sent=1)
            verdict = await self._try(health.proof, progress, probe=True)
            if stop := health.see(verdict, 1):
                raise stop from error_of(verdict, self._hidden(progress.headers))
            if verdict.error not in INFRASTRUCTURE:
                health.up()
                return
        raise health.given_up() from Transient("This request was not sent.", error="not_sent")

    def _hidden(self, headers: Mapping[str, str]) -> set[str]:
        # of "Bearer KEY", the key alone is a secret too; and a refresh may have changed it since
        values = {*headers.values(), *self._auth.headers().values()}
        return {*self._secrets, *values, *(word for value in values for word in value.split() if len(word) > 8)}
