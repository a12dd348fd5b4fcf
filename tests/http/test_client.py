"""What an answer means, on a real socket: reads go on where they may, creates never happen twice."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import shutil
import socket
import ssl
import subprocess
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from email.utils import formatdate
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import AnswerError, EngineError, Rejected, Stop, Transient
from engine.http.limiter import RateLimiter
from engine.http.rate_search import Sent
from engine.http.redact import clean
from engine.http.responses import (
    FIRST_BACKOFF,
    LONGEST_BACKOFF,
    LONGEST_DATE,
    Special,
    backoff,
    error_body,
    meaning_of,
    rate_hint,
    retry_after,
)
from engine.http.session import Auth, Client, KeyAuth, RequestLimits, Timing, open_client
from tests.raw_server import RawServer, Step, answer, close, drip, hang, raw, reset, truncated

KEY = "canary-key-0123456789"
OK = answer(200, b'{"id":"7"}')
CHINESE = "你是一个专业的翻译助手,请把下面的文本翻译成英文"
NEVER = "Fri, 31 Dec 9999 23:59:59 GMT"
TOO_FAST = answer(429, b"{}", {"Retry-After": "0"})
PROSE = b'{"string":"Canary words that nobody else may ever read"}'


class Wire:
    """A client, the gate it passes, and what it slept."""

    def __init__(self, client: Client, gate: RateLimiter, slept: list[float]) -> None:
        self.client = client
        self.gate = gate
        self.slept = slept
        self.intents = 0

    async def read(self, call: str = "retrieve") -> Any:
        return await self.client.read(call, "/prompts/7")

    async def create(self) -> Any:
        async def sending() -> None:
            self.intents += 1

        return await self.client.create("create", "POST", "/prompts", PROSE, sending)

    async def repeatable(self) -> Any:
        return await self.client.repeatable("publish", "PUT", "/prompts/7/makeDefault", b'{"version":2}')


@asynccontextmanager
async def wired(
    url: str,
    *,
    auth: Auth | None = None,
    attempts: int = 3,
    total: float = 5.0,
    clock: Callable[[], float] | None = None,
    draw: float = 0.0,
    body_cap: int = 2**20,
    errors: Sequence[Special] = (),
) -> AsyncIterator[Wire]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    gate = RateLimiter(rate=20_000, concurrency=8, jitter=lambda: 0.0)
    timing = Timing(sleep=sleep, clock=clock or (lambda: sum(slept)), now=lambda: 1_000_000_000.0, draw=lambda: draw)
    limits = RequestLimits(timeout=total, attempts=attempts, connect=2, body_cap=body_cap)
    async with open_client(
        url, auth or KeyAuth("x-api-key", KEY), gate, limits, name="target", timing=timing, errors=errors
    ) as client:
        yield Wire(client, gate, slept)


async def caught(work: Awaitable[Any]) -> EngineError | None:
    try:
        await work
    except EngineError as exc:
        error = exc
    else:
        return None
    assert KEY not in f"{error} {error!r} {error.__cause__} {vars(error)}"
    return error


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - what is waited for has no event, and no time passes
        await asyncio.sleep(0)


def say(error: EngineError | None) -> str:
    """The error as the table below writes it."""
    if isinstance(error, Stop):
        return f"Stop {error.reason} {type(error.__cause__).__name__}"
    return "ok" if error is None else type(error).__name__


GARBAGE = raw(b"220 mail.example ESMTP\r\n\r\n")
LONG_HEADER = raw(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\nContent-Length: 2\r\n\r\n{}")
HTML = answer(200, b"<html>Sign in</html>", {"Content-Type": "text/html"})
BOMB = gzip.compress(bytes(64 * 2**20))

ROWS: list[tuple[str, Step, str, str, str]] = [
    # name, the answer, what a read makes of it, ... when it always comes, what a create makes of it
    ("200", OK, "ok", "ok", "ok"),
    ("201", answer(201, b'{"id":1}'), "ok", "ok", "ok"),
    ("truncated", truncated(), "ok", "Transient", "UnknownOutcome"),
    ("blank", answer(200, b""), "ok", "Transient", "UnknownOutcome"),
    ("204", raw(b"HTTP/1.1 204 No\r\n\r\n", keep=True), "ok", "Transient", "UnknownOutcome"),
    ("html", HTML, "ok", "Stop check_failed Transient", "UnknownOutcome"),
    ("not json", answer(200, b'{"id":'), "ok", "Transient", "UnknownOutcome"),
    ("bad gzip", answer(200, b"no gzip", {"Content-Encoding": "gzip"}), "ok", "Transient", "UnknownOutcome"),
    ("bomb", answer(200, BOMB, {"Content-Encoding": "gzip"}), "ok", "Transient", "UnknownOutcome"),
    ("number", answer(200, b'{"id":1e' + b"9" * 4301 + b"}"), "Rejected", "Rejected", "UnknownOutcome"),
    ("301", answer(301), "Stop check_failed Rejected", "", "Stop check_failed Rejected"),
    ("302", answer(302), "Stop check_failed Rejected", "", "Stop check_failed UnknownOutcome"),
    ("303", answer(303), "Stop check_failed Rejected", "", "Stop check_failed UnknownOutcome"),
    ("304", answer(304, b""), "Stop check_failed Rejected", "", "Stop check_failed Rejected"),
    ("307", answer(307), "Stop check_failed Rejected", "", "Stop check_failed Rejected"),
    ("308", answer(308), "Stop check_failed Rejected", "", "Stop check_failed Rejected"),
    *((str(status), answer(status), "Rejected", "Rejected", "Rejected") for status in (400, 413, 414, 415, 422)),
    ("401", answer(401), "Stop key_refused Rejected", "", "Stop key_refused Rejected"),
    ("402", answer(402), "Stop quota Rejected", "", "Stop quota Rejected"),
    ("403", answer(403, b'{"data":{"errorCode":"AB03"}}'), "Rejected", "Rejected", "Rejected"),
    ("firewall", answer(403, b"<html>"), "Rejected", "Rejected", "Rejected"),
    ("404", answer(404), "Gone", "Gone", "Gone"),
    *((str(status), answer(status), "Rejected", "Rejected", "Rejected") for status in (405, 410, 412, 418, 446)),
    ("truncated 400", truncated(400), "Rejected", "Rejected", "Rejected"),
    ("408", answer(408), "ok", "Transient", "UnknownOutcome"),
    ("409", answer(409), "ok", "Rejected", "Exists"),
    ("429", TOO_FAST, "ok", "", "ok"),
    ("truncated 429", raw(b"HTTP/1.1 429 Words\r\nRetry-After: 0\r\nContent-Length: 100\r\n\r\n{"), "ok", "", "ok"),
    *((str(s), answer(s, b"oops"), "ok", "Transient", "UnknownOutcome") for s in (500, 501, 502, 503, 504, 599)),
    ("truncated 500", truncated(500), "ok", "Transient", "UnknownOutcome"),
    ("600", answer(600), "ok", "Transient", "UnknownOutcome"),
    ("closed", close, "ok", "Stop registry_down Transient", "UnknownOutcome"),
    ("reset", reset, "ok", "Stop registry_down Transient", "UnknownOutcome"),
    ("garbage", GARBAGE, "ok", "Stop registry_down Transient", "UnknownOutcome"),
    ("long header", LONG_HEADER, "ok", "Stop registry_down Transient", "UnknownOutcome"),
]
EVERY_ROW = pytest.mark.parametrize(("name", "step", "once", "always", "create"), ROWS, ids=[row[0] for row in ROWS])


@EVERY_ROW
async def test_the_first_answer(name: str, step: Step, once: str, always: str, create: str) -> None:
    async with RawServer(step, OK) as server, wired(server.url) as wire:
        assert say(await caught(wire.read())) == once
        assert wire.gate.requests.total == len(server.received)
        assert wire.gate.requests.retries == len(server.received) - 1
    async with RawServer(step, OK) as server, wired(server.url) as wire:
        assert say(await caught(wire.repeatable())) == once
    async with RawServer(step, OK) as server, wired(server.url) as wire:
        assert say(await caught(wire.create())) == create
        assert wire.intents == 1
        assert len(server.received) == (2 if "429" in name else 1)


@EVERY_ROW
async def test_the_second_answer(name: str, step: Step, once: str, always: str, create: str) -> None:
    async with RawServer(OK, step, OK) as server, wired(server.url) as wire:
        assert await wire.read() == {"id": "7"}
        assert say(await caught(wire.read())) == once
    async with RawServer(OK, step, OK) as server, wired(server.url) as wire:
        assert await wire.create() == {"id": "7"}
        assert say(await caught(wire.create())) == create
        assert wire.intents == 2
        assert len(server.received) == (3 if "429" in name else 2)


@EVERY_ROW
async def test_every_answer(name: str, step: Step, once: str, always: str, create: str) -> None:
    ticks = count(step=100)
    for method in ("read", "repeatable"):
        async with RawServer(step) as server, wired(server.url, clock=lambda: next(ticks)) as wire:
            error = await caught(getattr(wire, method)())
            if "429" in name:
                assert say(error) == "Stop registry_down Transient"
                assert "15 minutes" in str(error)
            elif method == "repeatable" and name in {"blank", "204"}:
                assert error is None
            else:
                assert say(error) == (always or once)
            if isinstance(error, Transient):
                assert len(server.received) == 3
    async with RawServer(step) as server, wired(server.url, clock=lambda: next(ticks)) as wire:
        error = await caught(wire.create())
        assert say(error) == ("Stop registry_down Transient" if "429" in name else create)
        assert wire.intents == 1
        assert "429" in name or len(server.received) == 1


def test_no_outcome_is_without_a_row() -> None:
    assert {status: meaning_of(status).error for status in (100, 199, 600, 999)} == dict.fromkeys(
        (100, 199, 600, 999), "bad_answer"
    )


# ---- nothing is sent twice, nothing goes elsewhere -------------------------------------------------------------------


@pytest.mark.parametrize("broken", [close, reset])
async def test_a_kept_connection_that_died(broken: Step) -> None:
    """aiohttp would send GET and PUT again unseen: here the read's repeat is counted, and the version is made once."""
    async with RawServer(OK, broken, OK) as server, wired(server.url, attempts=1) as wire:
        await wire.read()
        assert await wire.read() == {"id": "7"}
        assert (len(server.received), server.connections) == (3, 2)
        assert (wire.gate.requests.total, wire.gate.requests.retries, wire.slept) == (3, 1, [])
    for method in ("POST", "PUT"):
        async with RawServer(OK, broken, OK) as server, wired(server.url) as wire:
            await wire.read()

            async def sending() -> None:
                return None

            error = await caught(wire.client.create("update", method, "/prompts/7", b"{}", sending))
            assert say(error) == "UnknownOutcome"
            assert "may have happened" in str(error)
            assert [seen.method for seen in server.received] == ["GET", method]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_never_followed(status: int) -> None:
    async with RawServer(OK) as other:
        away = answer(status, b"", {"Location": f"http://localhost:{other.port}/path?secret=1"})
        async with RawServer(away) as server, wired(server.url) as wire:
            for work in (wire.read(), wire.create(), wire.repeatable()):
                error = await caught(work)
                assert isinstance(error, Stop)
                assert f"{status}: a redirect to localhost," in str(error)
                assert "secret" not in str(error)
        assert other.connections == 0


async def test_what_is_sent() -> None:
    async with RawServer(OK) as server, wired(server.url + "/v1/") as wire:
        await wire.client.read("list", "/prompts/a%2Fb", {"search": "a b&c", "current_page": "0"})
        await wire.create()
        await wire.client.repeatable("delete", "DELETE", "/prompts/7")
        listing, create, delete = server.received
        assert (listing.method, listing.target) == ("GET", "/v1/prompts/a%2Fb?search=a+b%26c&current_page=0")
        assert (create.method, create.target, create.body) == ("POST", "/v1/prompts", PROSE)
        assert (delete.method, delete.body) == ("DELETE", b"")
        assert create.headers["content-type"] == "application/json"
        assert {seen.headers["x-api-key"] for seen in server.received} == {KEY}
        assert create.headers["user-agent"].startswith("promptferry/")


@pytest.mark.parametrize("path", ["prompts", "/a b", "/a?b=1", "/a#b", "/\r\nX: y", "/ä"])
async def test_a_path_that_is_not_encoded_is_a_bug(path: str) -> None:
    async with RawServer(OK) as server, wired(server.url) as wire:
        with pytest.raises(ValueError, match="percent-encoded"):
            await wire.client.read("retrieve", path)
        assert server.connections == 0


async def test_cookies_are_not_kept() -> None:
    async with RawServer(answer(200, b"{}", {"Set-Cookie": "a=b"})) as server, wired(server.url) as wire:
        await wire.read()
        await wire.read()
        assert "cookie" not in server.received[1].headers


async def test_a_proxy_of_the_environment_is_used_and_a_netrc_is_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine registry.test login me password mine\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with RawServer(OK) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with wired("http://registry.test") as wire:
            await wire.read()
        assert proxy.received[0].target == "http://registry.test/prompts/7"
        assert "authorization" not in proxy.received[0].headers
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with RawServer(OK) as server, wired(server.url) as wire:
            await wire.read()
        assert len(proxy.received) == 1


# ---- the intent comes first ------------------------------------------------------------------------------------------


async def test_sending_is_awaited_once_and_before_the_server_sees_a_byte() -> None:
    async with RawServer(TOO_FAST, TOO_FAST, OK) as server, wired(server.url) as wire:
        seen: list[tuple[int, int]] = []

        async def sending() -> None:
            seen.append((server.connections, wire.gate.in_flight))

        await wire.client.create("create", "POST", "/prompts", b"{}", sending)
        assert seen == [(0, 1)], "before the connection, after the gate"
        assert len(server.received) == 3


async def test_an_intent_that_has_become_too_old_is_written_anew_before_its_create_leaves() -> None:
    """Whoever is given up for lost, and is not, must not send what is being looked up by then."""
    async with RawServer(TOO_FAST, OK) as server, wired(server.url) as wire:
        now, seen = [0.0], list[int]()
        wire.gate.clock = lambda: now[0]
        wire.gate.renew_after = 30.0

        async def sending() -> None:
            seen.append(len(server.received))
            now[0] += 100.0 if len(seen) in (1, 3) else 20.0  # the first takes long; the third is after the refusal

        await wire.client.create("create", "POST", "/prompts", b"{}", sending)
        assert seen[:2] == [0, 0], "nothing had left"
        assert len(server.received) == 2


async def test_sending_that_fails_sends_nothing() -> None:
    async with RawServer(OK) as server, wired(server.url) as wire:

        async def sending() -> None:
            raise Stop("disk", "The disk is full.", next="Make room.")

        with pytest.raises(Stop, match="disk is full"):
            await wire.client.create("create", "POST", "/prompts", b"{}", sending)
        assert (server.connections, wire.gate.in_flight) == (0, 0)


async def test_a_halted_gate_leaves_no_intent() -> None:
    async with RawServer(OK) as server, wired(server.url) as wire:
        wire.gate.halt()
        error = await caught(wire.create())
        assert isinstance(error, Transient)
        assert (error.error, wire.intents, server.connections) == ("not_sent", 0, 0)


async def test_cancelled_in_flight() -> None:
    async with RawServer(hang) as server, wired(server.url) as wire:
        create = asyncio.ensure_future(wire.create())
        await until(lambda: server.received)
        create.cancel()
        with pytest.raises(asyncio.CancelledError):
            await create
        assert wire.gate.in_flight == 0


# ---- no answer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [hang, drip])
async def test_time_is_up(step: Step) -> None:
    async with RawServer(OK, step) as server, wired(server.url, total=0.1, attempts=2) as wire:
        await wire.read()
        error = await caught(wire.create())
        assert say(error) == "UnknownOutcome"
        assert "no whole answer within the time allowed" in str(error)
        error = await caught(wire.read())
        assert say(error) == "Stop registry_down Transient"
        assert "no whole answer within the time allowed" in str(error)
        assert [request.method for request in server.received[:4]] == ["GET", "POST", "GET", "GET"]


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_refused() -> None:
    async with wired(f"http://127.0.0.1:{unused_port()}", attempts=4) as wire:
        for work in (wire.read(), wire.create()):
            error = await caught(work)
            assert say(error) == "Stop registry_down Transient"
            assert "target (127.0.0.1) could not be reached in 4 tries: no connection (connection refused)" in str(
                error
            )
        assert wire.gate.requests.total == 8
        assert wire.intents == 1


async def test_no_new_try_30_seconds_after_the_first_when_no_answer_has_come() -> None:
    moments = iter([0.0, 10.0, 29.0, 31.0])
    async with wired(f"http://127.0.0.1:{unused_port()}", attempts=100, clock=lambda: next(moments)) as wire:
        error = await caught(wire.read())
        assert say(error) == "Stop registry_down Transient"
        assert "in 3 tries" in str(error)


async def test_not_sent_after_a_first_answer_is_the_prompts_own_affair() -> None:
    server = RawServer(answer(404, b"", {"Connection": "close"}))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(server)
        async with wired(server.url) as wire:
            assert say(await caught(wire.read())) == "Gone"
            await stack.aclose()
            error = await caught(wire.create())
            assert isinstance(error, Transient)
            assert (error.error, error.status, wire.intents) == ("not_sent", None, 1)
            assert wire.gate.requests.total == 4


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with wired("http://registry.test") as wire:
        error = await caught(wire.create())
        assert say(error) == "Stop registry_down Transient"
        assert "registry.test" in str(error)
        assert "DNS" in str(error)


async def test_no_tls_there() -> None:
    async def talk_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 This is no TLS\r\n\r\n")
        writer.close()

    plain = await asyncio.start_server(talk_plainly, "127.0.0.1", 0)
    async with plain, wired(f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}") as wire:
        error = await caught(wire.create())
        assert say(error) == "Stop registry_down Transient"
        assert "TLS could not be set up" in str(error)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    wanted = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", *wanted, *names, "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


async def test_certificates(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    async with RawServer(OK, tls=context) as server:
        async with wired(server.url) as wire:
            error = await caught(wire.create())
            assert say(error) == "Stop registry_down Transient"
            assert "TLS certificate was not accepted" in str(error)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
        async with wired(server.url) as wire:
            assert await wire.create() == {"id": "7"}


# ---- a registry that is down -----------------------------------------------------------------------------------------

DOWN = "the target (127.0.0.1) is down: it failed 20 times in a row; the last time: it answered 500"


async def test_20_failures_in_a_row_and_only_probes_are_sent_for_15_minutes() -> None:
    async with RawServer(OK, answer(500)) as server, wired(server.url, attempts=100) as wire:
        await wire.read()
        tried, waiting = (asyncio.ensure_future(caught(wire.read())) for _ in range(2))
        await until(lambda: wire.gate.why)
        assert wire.gate.why == DOWN
        later = asyncio.ensure_future(caught(wire.create()))
        for task in (tried, waiting, later):
            error = await task
            assert say(error) == "Stop registry_down Transient"
            assert str(error).startswith("The target (127.0.0.1) is down since 15 minutes: it failed 20 times in a row")
        assert wire.intents == 0, "nothing was even about to be sent"
        probes = [5, 10, 20, 40, *[60] * 14]
        assert [seconds for seconds in wire.slept if seconds][: len(probes)] == probes
        # 1 that was answered, 20 that failed, at most one more each that was under way, and the probes
        assert 21 + len(probes) <= len(server.received) <= 24 + 3 * len(probes)


async def test_nobody_fails_for_a_registry_that_comes_back() -> None:
    """Fewer tries than it takes to count as down, and still every read is answered and the create is sent once."""
    steps = [OK, *(answer(502) for _ in range(29)), OK]
    async with RawServer(*steps) as server, wired(server.url, attempts=3) as wire:
        await wire.read()
        answers = await asyncio.gather(*(wire.read() for _ in range(8)), wire.read())
        assert answers == [{"id": "7"}] * 9
        assert await wire.create() == {"id": "7"}
        assert wire.intents == 1
        assert wire.gate.why == ""
        assert {request.method for request in server.received[:-1]} == {"GET"}


async def test_a_read_of_another_kind_that_was_under_way_is_waited_for_too() -> None:
    """A registry that counts as down by what it answered before is down for whatever was never asked of it yet."""

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if server.received[-1].target == "/labels":
            asked.set()
            await until(lambda: wire.gate.why or well)
        return await (OK if well else answer(500))(reader, writer)

    well, asked = [True], asyncio.Event()
    async with RawServer(step) as server, wired(server.url, attempts=100, clock=lambda: 0.0) as wire:
        await wire.read()
        well.clear()
        labels = asyncio.ensure_future(wire.client.read("list labels", "/labels"))
        await asked.wait()
        others = asyncio.ensure_future(wire.read())
        await until(lambda: sum(request.target == "/prompts/7" for request in server.received) > 22)
        assert not labels.done()
        well.append(True)
        assert (await others, await labels) == ({"id": "7"}, {"id": "7"})


async def test_a_request_that_always_fails_is_its_own_affair_when_the_registry_answers_others() -> None:
    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        bad = server.received[-1].target == "/prompts/8"
        return await (answer(500) if bad else OK)(reader, writer)

    async with RawServer(step) as server, wired(server.url, attempts=3) as wire:
        await wire.read()
        error = await caught(wire.client.read("retrieve", "/prompts/8"))
        assert isinstance(error, Transient)
        targets = [request.target for request in server.received]
        # nobody else asks meanwhile, so one question tells whether the registry is well
        assert targets == ["/prompts/7", *["/prompts/8"] * 3, "/prompts/7", "/prompts/8"]
        assert await wire.read() == {"id": "7"}


async def test_retries_have_a_budget() -> None:
    """Never twenty failures in a row, and yet far more repeated than answered: that is a registry in trouble."""
    steps = [OK, *[answer(502), answer(502), answer(502), OK] * 20]
    async with RawServer(*steps) as server, wired(server.url, attempts=5) as wire:
        await wire.read()
        closed = 0
        for _ in range(9):
            await wire.read()
            closed += 5 in wire.slept
            wire.slept.clear()
        assert closed == 1, "100 points, 15 for each read that was repeated three times"


async def test_failures_that_are_not_in_a_row() -> None:
    steps = [OK, *(answer(502) for _ in range(3)), OK]
    async with RawServer(*steps * 3) as server, wired(server.url, attempts=100) as wire:
        for _ in range(6):
            await wire.read()
        assert len(server.received) == 15
        assert 5 not in wire.slept


async def test_a_registry_that_never_answered_well_is_given_up_at_once() -> None:
    async with RawServer(answer(500)) as server, wired(server.url, attempts=100) as wire:
        error = await caught(wire.read())
        assert say(error) == "Stop registry_down Transient"
        assert "is down: it failed 20 times in a row; the last time: it answered 500" in str(error)
        assert len(server.received) == 20


async def test_the_20th_create_in_doubt_stops_the_run_and_is_in_doubt() -> None:
    async with RawServer(OK, close) as server, wired(server.url) as wire:
        await wire.create()
        said = [say(await caught(wire.create())) for _ in range(20)]
        assert said == ["UnknownOutcome"] * 19 + ["Stop registry_down UnknownOutcome"]


# ---- large bodies ----------------------------------------------------------------------------------------------------


async def test_a_bomb_is_not_unpacked() -> None:
    bomb = answer(200, BOMB, {"Content-Encoding": "gzip"})
    async with RawServer(bomb, OK) as server, wired(server.url) as wire:
        tracemalloc.start()
        try:
            assert await wire.read() == {"id": "7"}
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 8 * 2**20


async def test_a_listing_over_its_cap_stops_the_run() -> None:
    rows = answer(200, b"[" + b"1," * 500 + b"1]")
    async with RawServer(rows) as server, wired(server.url, body_cap=100) as wire:
        assert len(await wire.client.read("list", "/prompts", cap=2000)) == 501
        error = await caught(wire.client.read("list", "/prompts", cap=1000))
        assert say(error) == "Stop check_failed Transient"
        assert "listing of more than 1000 bytes" in str(error)
        assert say(await caught(wire.read())) == "Transient"


async def test_a_long_error_page_is_no_listing_and_is_not_read() -> None:
    page = b'{"message":"' + b"x " * 50_000 + b'"}'
    async with RawServer(answer(400, page)) as server, wired(server.url) as wire:
        error = await caught(wire.client.read("list", "/prompts", cap=2**20))
        assert say(error) == "Rejected"
        assert str(error) == "The target (127.0.0.1) answered list with 400."


# ---- pauses ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wait", ["601", formatdate(1_000_000_000 + 601, usegmt=True), NEVER, "9" * 400])
async def test_a_wait_that_is_too_long(status: int, wait: str) -> None:
    async with RawServer(answer(status, b"", {"Retry-After": wait})) as server, wired(server.url) as wire:
        error = await caught(wire.create())
        assert say(error) == f"Stop registry_down {'Transient' if status == 429 else 'UnknownOutcome'}"
        assert isinstance(error, Stop)
        assert error.exit_code == 75
        if wait not in (NEVER, "9" * 400):
            assert "until 2001-09-09 01:56:41 UTC" in str(error)


@pytest.mark.parametrize("status", [429, 503])
async def test_everybody_waits_as_long_as_was_asked(status: int) -> None:
    async with RawServer(answer(status, b"", {"Retry-After": "599"})) as server, wired(server.url) as wire:
        waiting = asyncio.ensure_future(caught(wire.create() if status == 429 else wire.read()))
        await until(lambda: wire.gate.paused_for)
        assert 590 < wire.gate.paused_for <= 599
        assert wire.gate.why == f"the target (127.0.0.1) answered {status}"
        assert wire.gate.requests.throttled == 1
        wire.gate.halt()
        assert isinstance(await waiting, Transient)
        assert len(server.received) == 1


@pytest.mark.parametrize("method", ["read", "create", "repeatable"])
async def test_nothing_leaves_in_a_pause_that_began_while_a_connection_was_set_up(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with RawServer(OK, OK) as server, wired(server.url) as wire:
        gate, held = wire.gate, list[bool]()
        inner = gate._gate
        space, sent = inner.space_at_once, inner.search.sent

        def spaced(now: float) -> bool:
            if not gate.requests.throttled:
                assert server.connections == 1
                gate.pause(0.05, "busy")
            return space(now)

        def leaves(now: float, *, bound: bool, beside: int) -> Sent:
            held.append(gate.held)
            return sent(now, bound=bound, beside=beside)

        monkeypatch.setattr(inner, "space_at_once", spaced)
        monkeypatch.setattr(inner.search, "sent", leaves)
        await getattr(wire, method)()
        assert held == [False]
        assert (len(server.received), gate.requests.total, gate.in_flight) == (1, 1, 0)


async def test_503_leaves_a_create_in_doubt_and_pauses_the_others() -> None:
    async with RawServer(answer(503, b"", {"Retry-After": "599"})) as server, wired(server.url) as wire:
        assert say(await caught(wire.create())) == "UnknownOutcome"
        assert wire.gate.paused_for > 590


async def test_429_uses_up_no_tries_and_is_bounded_by_time_without_success() -> None:
    steps = [*(TOO_FAST for _ in range(6)), OK]
    async with RawServer(*steps) as server, wired(server.url, attempts=1) as wire:
        assert await wire.create() == {"id": "7"}
        assert wire.intents == 1
        assert wire.gate.requests.throttled == 6
    steps = [TOO_FAST, answer(500), TOO_FAST, TOO_FAST, OK]
    async with RawServer(*steps) as server, wired(server.url, attempts=2) as wire:
        assert await wire.read() == {"id": "7"}


async def test_15_minutes_of_429_count_from_the_last_success() -> None:
    now = 0.0

    def at(moment: float, step: Step) -> Step:
        async def timed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
            nonlocal now
            now = moment
            return await step(reader, writer)

        return timed

    no = TOO_FAST
    steps = [at(0, no), at(899, OK), at(1000, no), at(1899, no), at(1900, no)]
    async with RawServer(*steps) as server, wired(server.url, clock=lambda: now) as wire:
        await wire.read()
        assert "15 minutes" in str(await caught(wire.read()))
        assert len(server.received) == 5


@pytest.mark.parametrize(
    ("headers", "hint"),
    [
        ({}, None),
        ({"X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "10"}, (30, 10)),
        ({"RateLimit-Remaining": "0", "RateLimit-Reset": "2.5"}, (0, 2.5)),
        ({"X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "1000000060"}, (30, 60)),
        ({"X-RateLimit-Remaining": "30"}, None),
        ({"X-RateLimit-Remaining": "many", "X-RateLimit-Reset": "10"}, None),
        ({"X-RateLimit-Remaining": "-1", "X-RateLimit-Reset": "10"}, None),
        ({"X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "0"}, None),
        ({"X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "601"}, None),
        ({"X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "1000000601"}, None),
        ({"X-RateLimit-Remaining": "30", "X-RateLimit-Reset": "1m0s"}, None),
        ({"X-RateLimit-Remaining": "9" * 400, "X-RateLimit-Reset": "10"}, None),
    ],
)
def test_what_rate_headers_say(headers: Mapping[str, str], hint: tuple[float, float] | None) -> None:
    assert rate_hint(headers, 1_000_000_000.0) == hint


async def test_a_rate_header_slows_the_next_requests_down() -> None:
    told = answer(200, b"{}", {"X-RateLimit-Remaining": "20", "X-RateLimit-Reset": "10"})
    async with RawServer(told) as server, wired(server.url) as wire:
        assert wire.gate.rate > 1000
        await wire.read()
        assert wire.gate.rate == 2.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 1.5 "}, 1.5),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": formatdate(1060, usegmt=True)}, 60),
        ({"Retry-After": formatdate(940, usegmt=True)}, 0),
        ({"Retry-After": formatdate(5030, usegmt=True), "Date": formatdate(5000, usegmt=True)}, 30),
        ({"Retry-After": "Fri, 99 Nov 2026 00:00:00 GMT"}, None),
        ({"Retry-After": NEVER}, LONGEST_DATE),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, 1000.0) == seconds


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_backoff_is_capped_and_jittered_in_full(tries: int, draw: float) -> None:
    assert 0 <= backoff(tries, draw) <= min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(tries - 1, 50))
    assert backoff(tries, draw) == pytest.approx(draw * backoff(tries, 1.0))


async def test_tries_wait_longer_each_time() -> None:
    async with RawServer(answer(500)) as server, wired(server.url, attempts=5, draw=1.0) as wire:
        await caught(wire.read())
        assert wire.slept == [0.5, 1.0, 2.0, 4.0]


# ---- keys and rights -------------------------------------------------------------------------------------------------


class Token:
    """Tokens that run out; each is fetched slowly."""

    def __init__(self, last: int) -> None:
        self.number = 1
        self.last = last
        self.refreshes = 0

    def headers(self) -> Mapping[str, str]:
        return {"x-token": f"token-{self.number}"}

    async def refresh(self, stale: Mapping[str, str]) -> bool:
        self.refreshes += 1
        number = self.number
        await asyncio.sleep(0)
        if number == self.last:
            return False
        self.number = number + 1
        return True


def wants(token: str, refusal: Step) -> tuple[RawServer, Step]:
    server = RawServer()

    async def step(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        fits = server.received[-1].headers["x-token"] == token
        return await (OK if fits else refusal)(reader, writer)

    server.steps = [step]
    return server, step


ERRORS = (Special(status=403, codes=frozenset({"EXPIRED_TOKEN"}), read_as=401),)
EXPIRED = answer(403, b'{"error":"EXPIRED_TOKEN","message":"Token expired"}')


@pytest.mark.parametrize("refusal", [answer(401), EXPIRED])
async def test_one_refresh_for_everyone(refusal: Step) -> None:
    server, _ = wants("token-2", refusal)
    token = Token(last=2)
    async with server, wired(server.url, auth=token, errors=ERRORS) as wire:
        creates = await asyncio.gather(*(wire.create() for _ in range(8)), *(wire.read() for _ in range(8)))
        assert creates == [{"id": "7"}] * 16
        assert token.refreshes == 1
        assert wire.intents == 8


@pytest.mark.parametrize("refusal", [answer(401), EXPIRED])
async def test_a_key_that_stays_refused(refusal: Step) -> None:
    for last, refreshes, sent in ((1, 1, 1), (9, 1, 2)):
        server, _ = wants("another", refusal)
        token = Token(last=last)
        async with server, wired(server.url, auth=token, errors=ERRORS) as wire:
            error = await caught(wire.create())
            assert say(error) == "Stop key_refused Rejected"
            assert (token.refreshes, len(server.received)) == (refreshes, sent)


FORBIDDEN = answer(403, b'{"success":false,"data":{"message":"No.","errorCode":"AB03"}}')


async def test_403_at_first_stops_the_run_and_later_not() -> None:
    async with RawServer(FORBIDDEN) as server, wired(server.url) as wire:
        said = [say(await caught(wire.read(call))) for call in ["list"] * 4 + ["retrieve"] + ["list"]]
        assert said == ["Rejected"] * 5 + ["Stop forbidden Rejected"]
    steps = [FORBIDDEN] * 4 + [OK, FORBIDDEN]
    async with RawServer(*steps) as server, wired(server.url) as wire:
        said = [say(await caught(wire.read())) for _ in range(12)]
        assert said == ["Rejected"] * 4 + ["ok"] + ["Rejected"] * 7


async def test_a_firewall_is_told_from_the_registry() -> None:
    async with RawServer(answer(403, b"<html>blocked</html>")) as server, wired(server.url) as wire:
        for _ in range(6):
            error = await caught(wire.create())
            assert isinstance(error, Rejected)
            assert (error.error, error.status, error.code) == ("firewall", 403, None)
            assert "firewall in front of the target" in str(error)
            assert "because of the prompt's text" in str(error)


# ---- messages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b'{"success":false,"data":{"message":"m","errorCode":"AB01"}}', "m", "AB01"),
        (
            b'{"status_code":400,"success":false,"error":{"message":"m","slug":"s","code":"AB01","type":"t"}}',
            "m",
            "AB01",
        ),
        (b'{"message":"m"}', "m", None),
        (b'{"status":"failure","message":"m"}', "m", None),
        (b'{"status":403,"error":"EXPIRED_TOKEN","message":"m"}', "m", "EXPIRED_TOKEN"),
        (b'{"error":"INVALID_TOKEN"}', "INVALID_TOKEN", "INVALID_TOKEN"),
        (b'{"status":404,"error":"NO_SUCH_THING","message":"m","code":"404"}', "m", "NO_SUCH_THING"),
        (b'{"error":"Not Found","message":"m","code":"AB02"}', "m", "AB02"),
        (b'{"error":"Not Found","message":"m"}', "m", "Not Found"),
        (b'{"error_code":"ALREADY_THERE","message":"m"}', "m", "ALREADY_THERE"),
        (b'{"error":"m"}', "m", None),
        (b'{"error":{"code":17},"data":{"message":"m"}}', "m", "17"),
        (b'{"error":null,"data":[],"message":["m"]}', "", None),
        (
            b'{"message":"m","error":[{"path":["a",0],"message":"n"},{"message":"o"},{"path":["b"]},1]}',
            "m: a.0: n; o",
            None,
        ),
        (b'{"message":"m","error":[]}', "m", None),
        (b'"m"', "m", None),
        (b"[1]", "", None),
    ],
)
def test_error_bodies(body: bytes, message: str, code: str | None) -> None:
    assert error_body(body) == (message, code)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b'{"message":'])
def test_error_bodies_that_are_no_json(body: bytes) -> None:
    assert error_body(body) is None


async def test_what_the_registry_says_arrives_without_key_and_text() -> None:
    echo = f"bad\\u0000 request\\n with {KEY} near 'words that nobody else may ever'".encode()
    body = b'{"data":{"message":"' + echo + b'","errorCode":"' + KEY.encode() + b'"}}'
    async with RawServer(answer(400, body)) as server, wired(server.url) as wire:
        error = await caught(wire.create())
        assert isinstance(error, AnswerError)
        assert str(error) == "The target (127.0.0.1) answered create with 400 ***: bad request with *** near '***'"
        assert (error.error, error.status, error.code) == ("rejected", 400, "***")


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (
            {"prompt": "你是一个专业的翻译助手,请把下面的文本翻译成英文"},
            "Invalid prompt: 你是一个专业的翻译助手,请把下面的文本翻译成英文",
        ),
        ({"prompt": "Grüßgott"}, "Invalid prompt: Grüßgott?"),
        ({"tags": [{"key": "text", "value": "one\ntwo\nthree"}]}, "bad tag: one two three"),
        ({"tags": [{"key": "text", "value": "one\ntwo\nthree"}]}, r"bad tag: one\ntwo\nthree"),
        ({"string": '[{"role":"user","content":"nobody-is-told"}]'}, "bad message 'nobody-is-told'"),
        ({"string": r'[{"content":"\u4f60\u662f\u4e00\u4e2a\u4e13\u4e1a"}]'}, "bad message 你是一个专业"),
        ({"string": "tell-nobody-the-discount"}, "bad string tell-nobody-the-discount"),
    ],
)
def test_no_piece_of_what_was_sent_is_told_whatever_it_is_written_in(sent: Any, said: str) -> None:
    told = clean(said, [], json.dumps(sent).encode())
    assert re.fullmatch(r"(Invalid prompt: |bad \w+:? )'?\*\*\*'?\??", told)


def test_ids_and_slugs_are_told() -> None:
    sent = json.dumps({"name": "support-bot-number-7", "collection_id": "c0ffee-0123456789abcdef"}).encode()
    said = "support-bot-number-7 is in c0ffee-0123456789abcdef already"
    assert clean(said, [], sent) == said


async def test_a_bearer_key_is_hidden_without_its_first_word() -> None:
    body = b'{"message":"no ' + KEY.encode() + b'"}'
    auth = KeyAuth("Authorization", f"Bearer {KEY}")
    async with RawServer(answer(400, body)) as server, wired(server.url, auth=auth) as wire:
        assert str(await caught(wire.read())).endswith(": no ***")


@given(st.text(), st.text(min_size=1), st.text())
def test_clean_is_one_short_line(before: str, secret: str, after: str) -> None:
    line = clean(f"{before}{KEY}{after}" + secret * 100, [KEY])
    assert len(line.encode()) <= 500
    assert line == "" or line.isprintable()
    assert KEY not in line


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(KeyAuth("x-api-key", KEY))
