"""Sends requests over aiohttp, whose errors end here: an Answer comes back, whatever happened.

aiohttp's exceptions carry the headers of the request, and so the key. That is why they are turned into words and never
chained.
"""

from __future__ import annotations

import functools
import io
import os
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Self
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.connector import Connection
from yarl import URL

from engine import __version__
from engine.errors import ConfigError
from engine.http.client import Auth, Client, Leave, RequestLimits, Send, Timing
from engine.http.limiter import RateLimiter
from engine.http.responses import Answer, Request, Special

__all__ = ["Auth", "Client", "KeyAuth", "NoAuth", "RequestLimits", "Timing", "open_client"]

OBSERVED: Final[ContextVar[Callable[[Send], Send]]] = ContextVar("OBSERVED", default=lambda send: send)
"""What is put around the sending of requests, for clients that are opened within: telemetry, where it is asked for."""
KEEP_ALIVE: Final = 4.0
"""Seconds an idle connection is kept: below the 5 s after which many servers close theirs. A request that leaves on a
connection while the server closes it is in doubt."""
DNS_CACHE: Final = 60
ERROR_CAP: Final = 64 * 1024
LARGE_BODY: Final = 2**20


@dataclass(frozen=True)
class KeyAuth:
    """A key that stays as it is."""

    header: str
    secret: str = field(repr=False)

    def headers(self) -> Mapping[str, str]:
        """The key in its header."""
        return {self.header: self.secret}

    @classmethod
    def basic(cls, user: str, password: str) -> Self:
        """RFC 7617."""
        return cls("Authorization", f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}")

    async def refresh(self, stale: Mapping[str, str]) -> bool:
        """There is no other key."""
        return False


@dataclass(frozen=True)
class NoAuth:
    """No key: for a registry that is open, and for the request that gets a token."""

    def headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    async def refresh(self, stale: Mapping[str, str]) -> bool:
        """There is nothing to refresh."""
        return False


@asynccontextmanager
async def open_client(
    base_url: str,
    auth: Auth,
    gate: RateLimiter,
    limits: RequestLimits,
    *,
    name: str,
    address: str = "base_url",
    form: str = "",
    secrets: Collection[str] = (),
    errors: Sequence[Special] = (),
    timing: Timing | None = None,
) -> AsyncIterator[Client]:
    """A Client of the registry at `base_url`, the source or target (`name`); no message holds any of `secrets`.

    `address`: the key of the migration file that holds `base_url`, `form`: how such an address looks; for what messages
    advise.
    `errors`: what this registry means otherwise than the table of responses says.
    """
    url = URL(base_url)
    async with _open_session(url, limits) as session:
        yield Client(
            OBSERVED.get()(functools.partial(_exchange, session)),
            base_url,
            auth,
            gate,
            limits,
            end=f"{name} ({url.host})",
            address=address,
            form=form,
            secrets=secrets,
            errors=errors,
            timing=timing or Timing(),
        )


class _Broken(aiohttp.ClientError):
    """In the place of the errors after which aiohttp would send a request again by itself."""


@asynccontextmanager
async def _open_session(url: URL, limits: RequestLimits) -> AsyncIterator[aiohttp.ClientSession]:
    # a context of our own, for aiohttp's was made at import and knows nothing of a later SSL_CERT_FILE
    tls = ssl.create_default_context() if url.scheme == "https" else True
    # no limit of connections: whoever has passed the gate must not wait a second time, out of its sight
    connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_CACHE, keepalive_timeout=KEEP_ALIVE, ssl=tls)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"promptferry/{__version__}", "Accept": "application/json"},
        proxy=_proxy(url),
        request_class=_Request,
        timeout=aiohttp.ClientTimeout(total=limits.timeout, connect=limits.connect),
    ) as session:
        yield session


class _Held(aiohttp.ClientError):
    """It must not leave now."""


async def _exchange(
    session: aiohttp.ClientSession, request: Request, headers: Mapping[str, str], leave: Leave
) -> Answer:
    trip = _Trip(leave)
    _TRIP.set(trip)
    try:
        async with session.request(
            request.method,
            URL(request.url, encoded=True),
            data=_data(request.body),
            headers={"Content-Type": request.content_type, **headers} if request.content_type else headers,
            allow_redirects=False,
        ) as response:
            answer = await _read(response, request.cap)
            answer.seconds = time.monotonic() - trip.left_at
            return answer
    except _Held:
        return Answer(left=False, held=True)
    except (aiohttp.ClientError, TimeoutError) as exc:
        broke = isinstance(exc, (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, _Broken))
        return Answer(
            fault=_words(exc),
            left=trip.left,
            timed_out=isinstance(exc, TimeoutError),
            stale=trip.reused and broke,
        )


def _data(body: bytes | None) -> io.BytesIO | bytes | None:
    # aiohttp warns of large bytes: it would write them in one go
    return io.BytesIO(body) if body is not None and len(body) > LARGE_BODY else body


async def _read(response: aiohttp.ClientResponse, cap: int) -> Answer:
    status, headers = response.status, response.headers
    success = 200 <= status < 300
    if not success:
        cap = min(cap, ERROR_CAP)
    try:
        whole = await response.content.readany()  # most bodies come in one piece
        if response.content.at_eof() and len(whole) <= cap:
            return Answer(status=status, headers=headers, body=whole)
        body = bytearray(whole)
        while piece := await response.content.readany():
            body += piece
            if len(body) > cap:
                break
        if len(body) > cap:
            response.close()
            fault = f"it has more than {cap} bytes"
            return Answer(status=status, headers=headers, fault=fault, over_cap=success)
    except (aiohttp.ClientError, TimeoutError) as exc:
        return Answer(status=status, headers=headers, fault=_words(exc), timed_out=isinstance(exc, TimeoutError))
    return Answer(status=status, headers=headers, body=bytes(body))


class _Request(aiohttp.ClientRequest):
    """A request that says when it leaves, and leaves once.

    A trace would tell too, at a sixth of the price of the whole request. aiohttp sends GET, PUT and DELETE a second
    time, unseen, when a kept connection breaks. A PUT may make a version, and every request passes the gate: here
    nothing is sent twice but by the Client.
    """

    def __init__(self, method: str, url: URL, **rest: Any) -> None:
        if _TRIP.get().left:
            raise _Broken("the connection broke")
        super().__init__(method, url, **rest)

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        trip = _TRIP.get()
        if not await trip.leave():
            raise _Held
        trip.left, trip.left_at = True, time.monotonic()
        connection = conn.protocol
        trip.reused = connection in _SERVED
        if not trip.reused:
            _SERVED.add(connection)
        return await super().send(conn)


@dataclass(slots=True)
class _Trip:
    leave: Leave
    left: bool = False
    """Its headers went to a connection, or were about to."""
    left_at: float = 0.0
    reused: bool = False
    """The connection had served another request before."""


_TRIP: Final[ContextVar[_Trip]] = ContextVar("_TRIP")
"""Of the request that this task sends."""
_SERVED: Final[WeakSet[object]] = WeakSet()
"""Connections on which a request has been sent."""


def _proxy(url: URL) -> URL | None:
    """That of the environment. Raises ConfigError, which does not repeat it: it may hold a password."""
    # not by trust_env, which would send passwords from ~/.netrc along and asks a thread twice at every request
    if url.host is None or proxy_bypass(url.host) or not (written := getproxies().get(url.scheme)):
        return None
    try:
        proxy = URL(written if "://" in written else f"http://{written}")
    except ValueError:
        proxy = URL()
    if proxy.scheme not in ("http", "https") or not proxy.host:
        variable = f"{url.scheme.upper()}_PROXY"
        raise ConfigError(f"{variable}: the proxy named there is no address such as http://HOST:PORT; mend or unset it")
    return proxy


def _words(exc: aiohttp.ClientError | TimeoutError) -> str:
    """What happened, in words that hold nothing of the request or the answer."""
    match exc:
        case aiohttp.ConnectionTimeoutError():
            return "no connection within the time allowed"
        case aiohttp.ClientConnectorCertificateError():
            reason = getattr(exc.certificate_error, "verify_message", "no reason given")
            return f"its TLS certificate was not accepted ({reason})"
        case aiohttp.ClientConnectorSSLError():
            return "TLS could not be set up"
        case aiohttp.ClientConnectorDNSError():
            return "its name could not be resolved (DNS)"
        case aiohttp.ClientProxyConnectionError():
            return "the proxy could not be reached"
        case aiohttp.ClientConnectorError():
            return f"no connection ({os.strerror(exc.errno).lower() if exc.errno else 'no reason given'})"
        case aiohttp.ClientHttpProxyError():
            return "the proxy refused to connect"
        case aiohttp.ClientResponseError():
            return "what came back is not HTTP"
        case aiohttp.ClientPayloadError():
            return "the answer broke off"
        case TimeoutError():
            return "no whole answer within the time allowed"
        case _:
            return "the connection broke"
