"""Serves the page live on 127.0.0.1, to whoever has its address: it reads one ledger, and writes nothing.

The address holds a token, without which nothing is answered. Host and Origin must be the server's own, so that neither
a page from elsewhere nor a name that somebody leads to 127.0.0.1 gets anything. The one thing that can be asked for is
the end of the run, where that is allowed.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

import anyio
from aiohttp import http, web

from engine.errors import ConfigError
from engine.ledger.follow import News, follow
from engine.ledger.holder import Holder, interrupt, life_of
from engine.ledger.lines import Condition
from engine.web.encoding import encoded
from engine.web.page import Live, page, policy
from engine.web.view import Beside, View

HOST: Final = "127.0.0.1"
VIEWERS: Final = 100
"""Pages that are told of what is new at the same time; the next one is refused."""
HEARTBEAT_S: Final = 15.0
"""So often a page that nothing is told is written to: a connection that is gone is found by that."""
LEAVE_S: Final = 2.0
HEADERS: Final = {
    "Content-Security-Policy": f"{policy(live=True)}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "promptferry",
}


_log: Final = logging.getLogger("promptferry.watch")


# ---- what is shown ---------------------------------------------------------------------------------------------------


class Watched:
    """A ledger as it was last seen."""

    def __init__(self, path: Path, beside: Beside) -> None:
        self.path = path
        self.holder: Holder | None = None
        self.look = 0
        """How often there was something new."""
        self.over = False
        """Nothing new will come any more."""
        self._beside = beside
        self._view = self._next = View(path, beside)
        self._news = News(there=False, condition=Condition("whole", 1, 0))
        self._changed = anyio.Event()
        self._answers: dict[object, bytes] = {}
        """Of this look: many pages ask for the same."""

    async def follow(self) -> None:
        """Takes what is new, without end. Raises what a look at the ledger raises."""
        try:
            async with aclosing(follow(self.path)) as all_news:
                async for news in all_news:
                    self._take(news)
        finally:
            self.over = True
            self._changed.set()

    def _take(self, news: News) -> None:
        if news.anew:
            self._next = View(self.path, self._beside, generation=self._view.generation + 1)
        self._next.take_all(news.lines)
        if news.behind and self._view.revision:  # a file that was written anew is shown when it was read to its end
            return
        self._view, self._news, self.holder = self._next, news, news.holder
        self.look += 1
        self._answers.clear()
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    def view(self) -> bytes:
        """The answer to `GET view`."""
        return self._answer("view", self._summary)

    def _summary(self) -> object:
        life = life_of(self._view.fold.run, self._view.fold.end, self.holder)
        return self._view.summary(self._news.condition, there=self._news.there, now=time.time(), life=life)

    def rows(self, since: int) -> bytes:
        """The answer to `GET rows`."""
        return self._answer(since, lambda: self._view.rows(since))

    def _answer(self, what: object, value: Callable[[], object]) -> bytes:
        if what not in self._answers:
            self._answers[what] = encoded(value())
        return self._answers[what]

    async def events(self) -> AsyncGenerator[bytes, None]:
        """What the stream of events says, the first at once; from time to time something that means nothing."""
        told = 0
        while not self.over:
            changed = self._changed
            if told != self.look:
                told = self.look
                state = {"revision": self._view.revision, "generation": self._view.generation, "look": told}
                yield b"data: %b\n\n" % encoded(state)
            with anyio.move_on_after(HEARTBEAT_S) as waited:
                await changed.wait()
            if waited.cancelled_caught:
                yield b":\n\n"
        yield b"event: gone\ndata:\n\n"


# ---- who may see it --------------------------------------------------------------------------------------------------


class Guard:
    """What a request must have. `own`: the server's addresses, HOST:PORT."""

    def __init__(self, port: int) -> None:
        self.token = secrets.token_urlsafe(32)
        self.address = f"http://{HOST}:{port}/?token={self.token}"
        self._hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        self._origins = {f"http://{host}" for host in self._hosts}

    def refusal(self, request: web.Request) -> str:
        """Why it is not answered; blank: it is."""
        origin, given = request.headers.get("Origin"), request.query.get("token", "")
        if request.headers.get("Host") not in self._hosts:
            return "this server answers under its own name only"
        if origin is not None and origin not in self._origins:
            return "this server answers its own page only"
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            return "the address needs its token: open the one that `promptferry watch` printed"
        return ""


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


# ---- the server ------------------------------------------------------------------------------------------------------


class _Site:
    """The answers."""

    def __init__(self, watched: Watched, *, allow_stop: bool) -> None:
        self._watched = watched
        self._page = page(None, live=Live(stop=allow_stop))
        self._allow_stop = allow_stop
        self._stopped: Holder | None = None
        """The process that was asked to end: a second signal would let nothing in flight end."""
        self._viewers = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self._get_page),
            web.get("/view", self._get_view),
            web.get("/rows", self._get_rows),
            web.get("/events", self._get_events, allow_head=False),
            web.post("/stop", self._post_stop),
        ]

    async def _get_page(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._page, content_type="text/html", charset="utf-8")

    async def _get_view(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._watched.view(), content_type="application/json")

    async def _get_rows(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        if not (since.isascii() and since.isdecimal() and len(since) < 16):
            return web.Response(status=400, text="since: a revision, such as 0\n")
        return web.Response(body=self._watched.rows(int(since)), content_type="application/json")

    async def _get_events(self, request: web.Request) -> web.StreamResponse:
        if self._viewers >= VIEWERS:
            return web.Response(status=503, text=f"{VIEWERS} pages are open already: close some\n")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        self._viewers += 1
        try:
            await response.prepare(request)
            async with aclosing(self._watched.events()) as events:
                async for event in events:
                    await response.write(event)
        except ConnectionError:  # its page was closed
            pass
        finally:
            self._viewers -= 1
        return response

    async def _post_stop(self, request: web.Request) -> web.Response:
        if not self._allow_stop:
            return web.Response(status=403, text="start `promptferry watch` with --allow-stop to stop runs from here\n")
        if request.headers.get("X-Promptferry") != "stop" or "Origin" not in request.headers:
            return web.Response(status=403, text="this server answers its own page only\n")
        holder = self._watched.holder
        if holder is None:
            return web.Response(status=409, text="no process can be seen that holds this ledger\n")
        if holder == self._stopped:
            return web.Response(status=409, text="it was asked to stop already, and lets end what is in flight\n")
        try:
            sent = interrupt(self._watched.path, holder)
        except PermissionError:
            return web.Response(status=409, text=f"process {holder.pid} is another user's\n")
        if not sent:
            return web.Response(status=409, text="that process does not hold this ledger any more\n")
        self._stopped = holder
        return web.Response(status=202, text=f"process {holder.pid} was asked to stop\n")


def _is_ours(record: logging.LogRecord) -> bool:
    """Whether somebody should see it. What is no HTTP was answered with 400, and is no bug of this server."""
    return not (record.exc_info and isinstance(record.exc_info[1], http.HttpProcessingError))


_log.addFilter(_is_ours)


@asynccontextmanager
async def serving(watched: Watched, *, port: int, allow_stop: bool) -> AsyncIterator[str]:
    """Serves it until the block ends; gives the address. `port`: 0, any. Raises ConfigError: it cannot be had."""
    listening = socket.socket()
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise ConfigError(f"--port {port}: cannot be had ({error.strerror}); name another one, or 0 for any") from error
    guard = Guard(listening.getsockname()[1])

    @web.middleware
    async def guarded(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if refusal := guard.refusal(request):
            return web.Response(status=403, text=f"{refusal}\n")
        return await handler(request)

    application = web.Application(middlewares=[guarded], client_max_size=1024)
    application.add_routes(_Site(watched, allow_stop=allow_stop).routes())
    application.on_response_prepare.append(_add_headers)
    runner = web.AppRunner(application, access_log=None, logger=_log, handle_signals=False, shutdown_timeout=LEAVE_S)
    await runner.setup()
    try:
        await web.SockSite(runner, listening).start()
        yield guard.address
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()
