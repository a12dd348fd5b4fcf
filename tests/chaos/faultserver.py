"""A proxy in front of a registry that spoils chosen answers, as networks, gateways and tired servers do.

The registry behind it keeps the truth: a create that was passed on has happened, whatever the client was told.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import random
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

WAIT_S: Final = 30
DRIP_S: Final = 0.02
BOMB_BYTES: Final = 80 * 2**20
LONG_HEADER: Final = b"x" * 100_000


class Request(NamedTuple):
    """One request, as bytes and as far as a fault asks for it."""

    method: str
    target: str
    head: bytes
    body: bytes
    reused: bool
    """It came on a connection that had served another one."""

    @property
    def listing(self) -> bool:
        return self.method == "GET" and urlsplit(self.target).path.endswith("/prompts")


class Answer(NamedTuple):
    """What the registry answered."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """`spoil` writes the answer and tells whether the connection stays open. `passed_on`: the registry has seen the
    request. `suits`: which requests can have it.
    """

    spoil: Callable[[asyncio.StreamWriter, Request, Answer], Awaitable[bool]]
    passed_on: bool = True
    suits: Callable[[Request], bool] = lambda _request: True


@dataclass(slots=True)
class Plan:
    """Which requests suffer: of this method, the n-th that suits, or all from the n-th on, each with this chance."""

    fault: str | Fault
    """A name in FAULTS, or one of one's own."""
    method: str
    nth: int = 1
    on: bool = False
    """That one and all later ones."""
    chance: float = 1.0
    seed: int = 0
    seen: int = 0
    spoiled: int = 0
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def what(self) -> Fault:
        return FAULTS[self.fault] if isinstance(self.fault, str) else self.fault

    def hits(self, request: Request) -> bool:
        """Whether this request suffers; counts it."""
        if request.method != self.method or not self.what.suits(request):
            return False
        self.seen += 1
        chosen = self.seen >= self.nth if self.on else self.seen == self.nth
        hit = chosen and self.rng.random() < self.chance
        self.spoiled += hit
        return hit


class FaultServer:
    """`plan` may be changed while it runs; None: every answer is passed on as it is."""

    def __init__(self, upstream: str) -> None:
        self.plan: Plan | None = None
        parts = urlsplit(upstream)
        self._host, self._upstream_port, self._path = parts.hostname or "", parts.port or 80, parts.path
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._refusing = False
        self.port = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self._path}"

    async def listen(self) -> None:
        """Takes connections, at the same port as before."""
        self._refusing = False
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Resets every connection and takes no others."""
        self._refusing = True
        if self._server is not None:
            server, self._server = self._server, None
            for sock in server.sockets:  # what was accepted in this round of the loop needs a server still
                asyncio.get_running_loop().remove_reader(sock.fileno())
            await asyncio.sleep(0)
            server.close()
        for writer in self._open:
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:  # it was accepted before, and its turn has come now
            _reset(writer)
            return
        self._open.add(writer)
        reused = False
        try:
            while (request := await _read_request(reader, reused=reused)) and await self._one(request, reader, writer):
                await writer.drain()
                reused = True
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as clients do when they wait no longer
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one(self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        plan = self.plan
        if plan is None or not plan.hits(request):
            _write_answer(writer, await self._pass_on(request))
            return True
        if plan.fault == "refuse":
            await self.refuse()
            return False
        if plan.fault == "hang":
            await reader.read()  # for as long as the client stays
            return False
        fault = plan.what
        answer = await self._pass_on(request) if fault.passed_on else Answer(200, b"")
        return await fault.spoil(writer, request, answer)

    async def _pass_on(self, request: Request) -> Answer:
        reader, writer = await asyncio.open_connection(self._host, self._upstream_port)
        writer.write(request.head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + request.body)
        whole = await reader.read(-1)
        writer.close()
        head, _, body = whole.partition(b"\r\n\r\n")
        return Answer(int(head.split(b" ", 2)[1]), body)


async def _read_request(reader: asyncio.StreamReader, *, reused: bool) -> Request | None:
    """None: the client has closed the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    body = await reader.readexactly(int(lengths[0])) if lengths else b""
    return Request(method, target, head, body, reused)


def _write_answer(
    writer: asyncio.StreamWriter, answer: Answer, headers: Mapping[str, bytes] | None = None, length: int | None = None
) -> None:
    fields = {"Content-Type": b"application/json", **(headers or {})}
    fields["Content-Length"] = str(len(answer.body) if length is None else length).encode()
    lines = [b"HTTP/1.1 %d Words" % answer.status, *(name.encode() + b": " + fields[name] for name in fields)]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + answer.body)


# ---- faults ----------------------------------------------------------------------------------------------------------


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST, not FIN."""
    if (sock := writer.get_extra_info("socket")) is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _never(_writer: asyncio.StreamWriter, _request: Request, _answer: Answer) -> bool:
    raise AssertionError("answered by the server itself")


async def _cut_off(writer: asyncio.StreamWriter, _request: Request, _answer: Answer) -> bool:
    _reset(writer)
    return False


async def _close(_writer: asyncio.StreamWriter, _request: Request, _answer: Answer) -> bool:
    return False


async def _truncate(writer: asyncio.StreamWriter, _request: Request, answer: Answer) -> bool:
    _write_answer(writer, Answer(answer.status, answer.body[: len(answer.body) // 2]), length=len(answer.body))
    return False


async def _drip(writer: asyncio.StreamWriter, _request: Request, answer: Answer) -> bool:
    _write_answer(writer, Answer(answer.status, b""), length=1_000_000)
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(DRIP_S)
    return False


def _instead(status: int | None, body: bytes, **headers: bytes) -> Callable[..., Awaitable[bool]]:
    """That body, and the registry's own status when `status` is None."""

    async def spoil(writer: asyncio.StreamWriter, _request: Request, answer: Answer) -> bool:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        _write_answer(writer, Answer(status or answer.status, body), fields)
        return True

    return spoil


async def _long_header(writer: asyncio.StreamWriter, _request: Request, answer: Answer) -> bool:
    _write_answer(writer, answer, {"X-Long": LONG_HEADER})
    return True


async def _bomb(writer: asyncio.StreamWriter, _request: Request, answer: Answer) -> bool:
    _write_answer(writer, Answer(answer.status, _bomb_body()), {"Content-Encoding": b"gzip"})
    return True


@cache
def _bomb_body() -> bytes:
    return gzip.compress(b" " * BOMB_BYTES)


def _listed_as(change: Callable[[Request, dict[str, Any]], object]) -> Callable[..., Awaitable[bool]]:
    """The registry's own listing, changed."""

    async def spoil(writer: asyncio.StreamWriter, request: Request, answer: Answer) -> bool:
        listing = json.loads(answer.body)
        change(request, listing)
        _write_answer(writer, Answer(answer.status, json.dumps(listing).encode()))
        return True

    return spoil


def _loop(_request: Request, listing: dict[str, Any]) -> None:
    """A total that pages never come to: each page is the first one, cut short."""
    listing["data"] = listing["data"][: len(listing["data"]) // 2]


def _repeat(_request: Request, listing: dict[str, Any]) -> None:
    listing["data"] = [row for row in listing["data"] for _ in range(2)]


def _echo(status: int) -> Callable[..., Awaitable[bool]]:
    """An answer that repeats what it was sent: key and text."""

    async def spoil(writer: asyncio.StreamWriter, request: Request, _answer: Answer) -> bool:
        text = json.loads(request.body)["string"] if request.body else ""
        key = next(line for line in request.head.decode().splitlines() if line.lower().startswith("x-portkey-api-key"))
        error = {"message": f"{text} {key}", "errorCode": f"{key.split()[1]} {text}"}
        _write_answer(writer, Answer(status, json.dumps({"data": error, "error": error}).encode()))
        return True

    return spoil


ELSEWHERE: Final = b"http://127.0.0.1:1/v1/prompts"
HTML: Final = b"<html><body>upstream connect error</body></html>"

FAULTS: Final[Mapping[str, Fault]] = {
    "refuse": Fault(_never, passed_on=False),
    "hang": Fault(_never, passed_on=False),
    "drip": Fault(_drip),
    "reset before": Fault(_cut_off, passed_on=False),
    "reset after": Fault(_cut_off),
    "truncated": Fault(_truncate),
    "blank": Fault(_instead(None, b"")),
    "bad json": Fault(_instead(None, b'{"id": "x", "string": ')),
    "html": Fault(_instead(None, HTML, Content_Type=b"text/html")),
    "long header": Fault(_long_header),
    "gzip bomb": Fault(_bomb),
    "302": Fault(_instead(302, b"", Location=ELSEWHERE)),
    "307": Fault(_instead(307, b"", Location=ELSEWHERE), passed_on=False),
    "page loop": Fault(_listed_as(_loop), suits=lambda request: request.listing),
    "repeated rows": Fault(_listed_as(_repeat), suits=lambda request: request.listing),
    "stale keep-alive": Fault(_close, passed_on=False, suits=lambda request: request.reused),
}


def echo(status: int) -> Fault:
    """The registry does nothing, and the answer repeats everything that must stay secret."""
    return Fault(_echo(status), passed_on=False)


# ---- on a thread of its own ------------------------------------------------------------------------------------------


class Between:
    """A FaultServer on a thread and loop of its own, so that it answers while a test waits for a command."""

    def __init__(self, server: FaultServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self.base_url = server.base_url

    def suffer(self, plan: Plan | None) -> None:
        """From now on; None: no more."""

        async def change() -> None:
            self._server.plan = plan
            await self._server.listen()

        asyncio.run_coroutine_threadsafe(change(), self._loop).result(WAIT_S)


@contextmanager
def between(upstream: str) -> Iterator[Between]:
    """A proxy before that registry."""
    ready: Future[tuple[Between, Callable[[], object]]] = Future()

    async def main() -> None:
        server, done = FaultServer(upstream), asyncio.Event()
        await server.listen()
        loop = asyncio.get_running_loop()
        ready.set_result((Between(server, loop), lambda: loop.call_soon_threadsafe(done.set)))
        await done.wait()
        await server.refuse()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    found, stop = ready.result(WAIT_S)
    try:
        yield found
    finally:
        stop()
        thread.join(WAIT_S)
