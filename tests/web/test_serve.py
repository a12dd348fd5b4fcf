"""The server of the live page: who gets an answer, what stands around it, and that all who look see the same."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import anyio
import pytest
from aiohttp import ClientResponse, ClientSession
from anyio.abc import TaskGroup

import engine.web.serve
from engine.errors import ConfigError
from engine.ledger.repair import compact
from engine.ledger.sink import Sink
from engine.model import Entry
from engine.web.serve import Watched, serving
from engine.web.view import Beside

PATHS: Final = ("/", "/view", "/rows", "/events")


@dataclass(frozen=True)
class Viewer:
    """Somebody with the address."""

    session: ClientSession
    address: str
    watched: Watched

    @property
    def base(self) -> str:
        return self.address.partition("/?")[0]

    @property
    def token(self) -> str:
        return self.address.partition("token=")[2]

    async def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        token: str | None = None,
        headers: Mapping[str, str] | None = None,
        since: str | None = None,
    ) -> ClientResponse:
        given = {"token": self.token if token is None else token} | ({} if since is None else {"since": since})
        return await self.session.request(method, self.base + path, params=given, headers=headers)

    async def get(self, path: str, *, since: str | None = None) -> Any:
        async with await self.ask(path, since=since) as response:
            assert response.status == 200, await response.text()
            return json.loads(await response.read())


async def event_of(response: ClientResponse) -> dict[str, Any]:
    """The next event of a stream that says something."""
    while True:
        line = (await response.content.readline()).decode()
        assert line, "the stream has ended"
        if line.startswith("data: "):
            found: dict[str, Any] = json.loads(line.removeprefix("data: "))
            return found
        assert line in ("\n", ":\n"), line


@asynccontextmanager
async def viewer(path: Path, *, allow_stop: bool = False) -> AsyncIterator[tuple[Viewer, TaskGroup]]:
    watched = Watched(path, Beside())
    async with (
        ClientSession() as session,
        serving(watched, port=0, allow_stop=allow_stop) as address,
        anyio.create_task_group() as group,
    ):
        group.start_soon(watched.follow)
        yield Viewer(session, address, watched), group
        group.cancel_scope.cancel()


async def write(path: Path, *numbers: int, run: str = "r1") -> None:
    sink = Sink.open(path, run=run)
    async with sink:
        await sink.record(Entry("run", {"migration": "m", "mode": "replicate"}))
        for number in numbers:
            known = {"source_id": f"p{number}", "source_name": f"name {number}"}
            await sink.record(Entry("intent", known | {"op": "create", "name": "n", "attempt": 1}))
            await sink.record(Entry("created", known | {"target_id": f"t{number}", "name": "n"}))
    sink.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


# ---- who gets an answer ----------------------------------------------------------------------------------------------


async def test_nobody_is_answered_without_the_token_from_elsewhere_or_under_another_name(path: Path) -> None:
    await write(path, 1)
    async with viewer(path, allow_stop=True) as (one, _):
        port = one.base.rpartition(":")[2]
        wrong: list[dict[str, Any]] = [
            *({"token": token} for token in ("", "x", one.token[:-1], one.token + "x", "é", one.token.swapcase())),
            *(
                {"headers": {"Host": host}}
                for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil.example:{port}")
            ),
            *(
                {"headers": {"Origin": origin}}
                for origin in (
                    "null",
                    "http://evil.example",
                    f"https://127.0.0.1:{port}",
                    "http://127.0.0.1",
                    "file://",
                )
            ),
        ]
        for path_, how in [(path_, how) for path_ in (*PATHS, "/stop", "/nowhere") for how in wrong]:
            async with await one.ask(path_, method="POST" if path_ == "/stop" else "GET", **how) as response:
                assert response.status == 403, (path_, how)
                said = await response.text()
                assert one.token not in said
                assert "p1" not in said
        for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
            async with await one.ask("/view", headers={"Host": host, "Origin": f"http://{host}"}) as response:
                assert response.status == 200


async def test_every_answer_has_the_headers_that_keep_a_page_to_itself(path: Path) -> None:
    async with viewer(path) as (one, _):
        answers = [await one.ask(path_) for path_ in (*PATHS, "/nowhere")]
        answers += [await one.ask("/view", token="x"), await one.ask("/view", method="PUT")]
        assert [answer.status for answer in answers] == [200, 200, 200, 200, 404, 403, 405]
        for answer in answers:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert answer.headers["Cache-Control"] == "no-store"
            assert answer.headers["Server"] == "promptferry"
            assert "Access-Control-Allow-Origin" not in answer.headers
            answer.close()


async def test_it_listens_on_this_machine_alone_and_says_when_a_port_is_taken(path: Path) -> None:
    async with viewer(path) as (one, _):
        assert one.base.startswith("http://127.0.0.1:")
        port = int(one.base.rpartition(":")[2])
        with pytest.raises(ConfigError, match=f"--port {port}"):
            async with serving(one.watched, port=port, allow_stop=False):
                raise AssertionError


# ---- nothing is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allow_stop", "headers", "status"),
    [
        (False, {"Origin": "own", "X-Promptferry": "stop"}, 403),
        (True, {"X-Promptferry": "stop"}, 403),
        (True, {"Origin": "own"}, 403),
        (True, {"Origin": "own", "X-Promptferry": "stop"}, 409),
    ],
    ids=["not allowed", "no origin", "as a form would", "nobody runs"],
)
async def test_a_stop_is_asked_for_by_the_page_alone_and_only_where_that_is_allowed(
    allow_stop: bool, headers: dict[str, str], status: int, path: Path
) -> None:
    await write(path, 1)
    async with viewer(path, allow_stop=allow_stop) as (one, _):
        sent = {name: one.base if value == "own" else value for name, value in headers.items()}
        async with await one.ask("/stop", method="POST", headers=sent) as response:
            assert (response.status, bool(await response.text())) == (status, True)
        async with await one.ask("/stop") as response:
            assert response.status == 405
        async with await one.ask("/") as response:
            assert ('"stop":true' in await response.text()) is allow_stop


async def test_looking_changes_nothing(path: Path) -> None:
    await write(path, 1, 2)
    before = path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())
    async with viewer(path) as (one, _):
        for path_ in PATHS[:3]:
            (await one.ask(path_)).close()
        await write(path.with_name("other.jsonl"), 1)
        path.with_name("other.jsonl").unlink()
    assert (path.read_bytes(), path.stat().st_mtime_ns, sorted(path.parent.iterdir())) == before


# ---- what is seen ----------------------------------------------------------------------------------------------------


async def test_what_is_new_is_told_at_once_also_of_a_ledger_that_comes_later_and_of_one_written_anew(
    path: Path,
) -> None:
    async with viewer(path) as (one, _):
        async with await one.ask("/events") as events:
            assert events.headers["Content-Type"] == "text/event-stream"
            first = await event_of(events)
            assert (first["revision"], (await one.get("/view"))["state"]) == (0, "empty")
            await write(path, 1, 2)
            while (told := await event_of(events))["revision"] < 5:
                pass
            view, rows = await one.get("/view"), await one.get("/rows")
            assert view["status"]["counts"]["created"] == 2
            assert rows["columns"]["id"] == ["p1", "p2"]
            await write(path, 3, run="r2")
            while (await event_of(events))["revision"] < 8:
                pass
            newer = await one.get("/rows", since=str(told["revision"]))
            assert newer["columns"]["id"] == ["p3"]
            compact(path)
            while (told := await event_of(events))["generation"] == view["generation"]:
                pass
        anew = await one.get("/view")
        assert anew["generation"] == told["generation"] > view["generation"]
        assert anew["status"]["counts"]["selected"] == 3


async def test_a_damaged_ledger_is_said_and_not_hidden(path: Path) -> None:
    await write(path, 1, 2, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(b"p", b"q", 1), *lines[4:]]))
    async with viewer(path) as (one, _):
        async with await one.ask("/events") as events:
            await event_of(events)
        view = await one.get("/view")
        assert (view["state"], view["health"]["line"]) == ("damaged", 4)


@pytest.mark.parametrize("since", ["-1", "x", "1e3", "9" * 40, "²"])
async def test_a_revision_that_is_none_is_refused(since: str, path: Path) -> None:
    async with viewer(path) as (one, _), await one.ask("/rows", since=since) as response:
        assert response.status == 400


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01 no HTTP\r\n\r\n", b"GET / HTTP/9\r\n\r\n"])
async def test_what_is_no_request_is_refused_and_no_bug(
    sent: bytes, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with viewer(path) as (one, _), await anyio.connect_tcp("127.0.0.1", int(one.base.rpartition(":")[2])) as peer:
        await peer.send(sent)
        assert (await peer.receive()).startswith(b"HTTP/1.")
        assert (await one.get("/view"))["state"] == "empty"
    assert caplog.records == []


async def test_when_it_ends_every_page_is_told(path: Path) -> None:
    await write(path, 1)
    async with viewer(path) as (one, group), await one.ask("/events") as events:
        await event_of(events)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            rest = await events.content.read()
        assert rest.decode().endswith("event: gone\ndata:\n\n")


async def test_a_page_that_was_closed_makes_room_for_another(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.web.serve, "VIEWERS", 2)
    monkeypatch.setattr(engine.web.serve, "HEARTBEAT_S", 0.01)
    async with viewer(path) as (one, _), AsyncExitStack() as pages:
        first, second = [await one.ask("/events") for _ in range(2)]
        pages.callback(second.close)
        await event_of(first)
        assert (await first.content.readline(), await first.content.readline()) == (b"\n", b":\n")  # it is still there
        assert (await one.ask("/events")).status == 503
        first.close()
        while (third := await one.ask("/events")).status == 503:
            third.close()
        pages.callback(third.close)
        assert third.status == 200
