"""Every status there is, every form of a header, and pages in the place of JSON: what depends on an answer alone."""

from __future__ import annotations

import asyncio
import re
import tomllib
from itertools import count

import aiohttp
import pytest
from packaging.requirements import Requirement

from engine.errors import Stop
from engine.http import session as http
from engine.http.breaker import FAILURES_IN_A_ROW
from tests.forks import ROOT
from tests.http.test_client import OK, caught, say, until, wired
from tests.raw_server import RawServer, Step, answer
from tests.unplugged import URL, unplugged

PAGE = b"<!doctype html><html><body>Sign in</body></html>"
STATUSES = [*range(200, 600)]

# ---- every status, as section 3 of the reliability rules says --------------------------------------------------------


def read_makes(status: int) -> str:
    if status < 300:
        return "ok"
    if status < 400:
        return "Stop check_failed Rejected"
    named = {401: "Stop key_refused Rejected", 402: "Stop quota Rejected", 404: "Gone"}
    named |= {408: "Transient", 429: "Stop registry_down Transient"}
    return named.get(status, "Rejected" if status < 500 else "Transient")


def create_makes(status: int) -> str:
    named = {302: "Stop check_failed UnknownOutcome", 303: "Stop check_failed UnknownOutcome"}
    named |= {408: "UnknownOutcome", 409: "Exists"}
    return named.get(status, read_makes(status) if status < 500 else "UnknownOutcome")


@pytest.mark.parametrize("status", STATUSES)
async def test_every_status_on_a_read_and_on_a_create(status: int) -> None:
    ticks = count(step=100)
    with unplugged() as registry:
        registry.answer(status, b'{"id":"7"}', headers={"Retry-After": "0"})
        async with wired(URL, attempts=1, clock=lambda: next(ticks)) as wire:
            assert say(await caught(wire.read())) == read_makes(status)
        async with wired(URL, attempts=1, clock=lambda: next(ticks)) as wire:
            assert say(await caught(wire.create())) == create_makes(status)
            assert wire.intents == 1


# ---- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Retry-After", "retry-after", "RETRY-AFTER"])
@pytest.mark.parametrize("status", [429, 503])
async def test_however_a_wait_is_written_everybody_waits(name: str, status: int) -> None:
    with unplugged() as registry:
        registry.answer(status, headers={name: "599"})
        async with wired(URL) as wire:
            waiting = asyncio.ensure_future(caught(wire.read()))
            await until(lambda: wire.gate.paused_for)
            assert 590 < wire.gate.paused_for <= 599
            wire.gate.halt()
            await waiting


@pytest.mark.parametrize("prefix", ["X-RateLimit", "x-ratelimit", "RateLimit", "ratelimit"])
async def test_however_a_limit_is_written_it_is_kept(prefix: str) -> None:
    with unplugged() as registry:
        registry.answer(headers={f"{prefix}-Remaining": "20", f"{prefix}-Reset": "10"})
        async with wired(URL) as wire:
            await wire.read()
            assert wire.gate.rate == 2.0


async def test_what_every_request_carries() -> None:
    with unplugged() as registry:
        registry.answer()
        async with wired(URL) as wire:
            await wire.read()
            await wire.create()
        (_, _, read), (method, url, create) = registry.sent
        assert (method, url, create["Content-Type"]) == ("POST", f"{URL}/prompts", "application/json")
        assert "Content-Type" not in read
        assert {headers["Accept"] for headers in (read, create)} == {"application/json"}
        assert {headers["x-api-key"] for headers in (read, create)} == {"canary-key-0123456789"}


# ---- a page in the place of JSON -------------------------------------------------------------------------------------

PAGES = [
    ("text/html", PAGE),
    ("text/html; charset=utf-8", b"\r\n\r\n" + PAGE),
    ("text/plain", b"OK"),
    ("text/plain", b"It works!"),
    ("application/json", PAGE),
    ("application/json", b"OK"),
    ("application/xml", b"<?xml version='1.0'?><error/>"),
    ("application/octet-stream", b"\x1f\x8b\x08\x00"),
]


@pytest.mark.parametrize(("content_type", "body"), PAGES)
@pytest.mark.parametrize("attempts", [1, 3])
async def test_an_address_that_only_ever_gives_pages_is_not_the_registry(
    content_type: str, body: bytes, attempts: int
) -> None:
    with unplugged() as registry:
        registry.answer(200, body, content_type=content_type)
        async with wired(URL, attempts=attempts) as wire:
            error = await caught(wire.read())
            assert isinstance(error, Stop)
            assert (error.reason, error.exit_code) == ("check_failed", 4)
            assert "base_url" in str(error)
            assert "base_url" in error.next
            assert str(error).startswith("The target (registry.test) answers retrieve with 200")
            assert wire.gate.requests.total == attempts


@pytest.mark.parametrize("body", [b"", b" \n", b'{"id":', b'[{"id":"7"}, {"i'])
async def test_an_answer_that_is_blank_or_cut_off_is_no_page(body: bytes) -> None:
    with unplugged() as registry:
        registry.answer(200, body)
        async with wired(URL, attempts=2) as wire:
            assert say(await caught(wire.read())) == "Transient"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_page_of_a_load_balancer_says_that_the_registry_is_down(status: int) -> None:
    with unplugged() as registry:
        registry.answer(status, PAGE, content_type="text/html", headers={"Retry-After": "0"})
        async with wired(URL, attempts=2) as wire:
            assert say(await caught(wire.read())) == "Transient"
        async with wired(URL, attempts=FAILURES_IN_A_ROW) as wire:
            assert say(await caught(wire.read())) == "Stop registry_down Transient"


async def test_a_network_that_wants_a_login() -> None:
    with unplugged() as registry:
        registry.answer(511, PAGE, content_type="text/html")
        async with wired(URL) as wire:
            error = await caught(wire.read())
            assert say(error) == "Stop check_failed Transient"
            assert "login" in str(error)


@pytest.mark.parametrize("known", [OK, answer(404, b'{"message":"no such prompt"}')])
async def test_a_page_after_good_answers_is_tried_again_and_costs_one_request_at_most(known: Step) -> None:
    page = answer(200, PAGE, {"Content-Type": "text/html"})
    async with RawServer(known, page, page, OK) as server, wired(server.url) as wire:
        await caught(wire.read())
        assert await wire.read() == {"id": "7"}
    async with RawServer(known, page) as server, wired(server.url) as wire:
        await caught(wire.read())
        assert say(await caught(wire.read())) in ("Transient", "Stop registry_down Transient")


async def test_a_page_in_the_place_of_a_create_leaves_it_in_doubt() -> None:
    with unplugged() as registry:
        registry.answer(200, PAGE, content_type="text/html")
        async with wired(URL) as wire:
            assert say(await caught(wire.create())) == "UnknownOutcome"


# ---- what we lean on in aiohttp --------------------------------------------------------------------------------------


def test_aiohttp_is_bound_to_the_versions_whose_inside_we_know() -> None:
    """Our request overrides `ClientRequest.send`: a version that does not call it would count creates as not sent."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (one for one in map(Requirement, project["dependencies"]) if one.name == "aiohttp")
    assert wanted.specifier.contains(aiohttp.__version__)
    major, minor, *_ = (int(part) for part in re.findall(r"\d+", aiohttp.__version__))
    assert not wanted.specifier.contains(f"{major}.{minor + 1}.0")
    assert not wanted.specifier.contains(f"{major + 1}.0.0")


async def test_aiohttp_asks_our_request_before_anything_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []
    send = http._Request.send

    async def watched(self: http._Request, conn: object) -> aiohttp.ClientResponse:
        trip = http._TRIP.get()
        before = trip.left
        response = await send(self, conn)  # type: ignore[arg-type]
        seen.append((before, trip.reused))
        return response

    monkeypatch.setattr(http._Request, "send", watched)
    async with RawServer(OK) as server, wired(server.url) as wire:
        await wire.read()
        await wire.create()
    assert seen == [(False, False), (False, True)]
    assert aiohttp.ClientRequest.send is not send, "there is one to override"
