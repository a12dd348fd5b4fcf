"""`watch` as a process beside runs that are killed, stopped from its page, and resumed: every page has, at every step,
what the ledger says by then.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.from_thread
from aiohttp import ClientSession, ClientTimeout

from engine.ledger.report import OUTCOMES
from engine.sandbox import SandboxOptions
from tests.chaos.campaign import CANARY
from tests.e2e import TIMEOUT, Served, Started, lines, served, started, wait_for_lines, write_migration

PROMPTS: Final = 300
"""tests/real/test_watch_long.py does the same with 2,000."""
VIEWERS: Final = 20
OUTCOME: Final = {
    "created": "created",
    "unchanged": "unchanged",
    "failed": "failed",
    "conflict": "conflicts",
    "intent": "unresolved",
    "unknown": "unresolved",
}
"""Kind of a prompt's last line -> what became of it, as long as the run that said so is the newest."""


@dataclass
class Page:
    """One browser: it asks for what is new whenever it is told that there is something."""

    address: str
    seen: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """Revision -> the last view that it had of it."""
    states: set[str] = field(default_factory=set)
    rows: dict[int, str] = field(default_factory=dict)
    """Number of a row -> id of its prompt."""
    served: bytearray = field(default_factory=bytearray)
    gone: bool = False
    _have: int = 0

    async def look(self, session: ClientSession) -> None:
        """Until the server says that nothing will come any more."""
        async with session.get(self._at("events")) as events:
            async for line in events.content:
                self.gone |= line == b"event: gone\n"
                if line.startswith(b"data: {"):
                    await self._ask(session)

    async def _ask(self, session: ClientSession) -> None:
        view, rows = await self._get(session, "view"), await self._get(session, f"rows?since={self._have}")
        self.seen[view["revision"]] = view
        self.states.add(view["state"])
        numbers = rows.get("number") or range(len(rows["columns"]["id"]))
        self.rows.update(zip(numbers, rows["columns"]["id"], strict=True))
        self._have = rows["revision"]

    async def _get(self, session: ClientSession, what: str) -> Any:
        async with session.get(self._at(what)) as response:
            data = await response.read()
            assert response.status == 200, data
            self.served += data
            return json.loads(data)

    def _at(self, what: str) -> str:
        base, _, token = self.address.partition("?")
        return f"{base}{what}{'&' if '?' in what else '?'}{token}"


class Pages:
    """Twenty of them, on a thread of their own; to be used as a block, at whose end the server must have gone."""

    def __init__(self, address: str) -> None:
        self.all = [Page(address) for _ in range(VIEWERS)]
        self._failed: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            anyio.run(self._look)
        except BaseException as error:
            self._failed.append(error)

    async def _look(self) -> None:
        async with ClientSession(timeout=ClientTimeout(total=None)) as session, anyio.create_task_group() as group:
            async with session.get(self.all[0].address) as response:
                self.all[0].served += await response.read()
            for page in self.all:
                group.start_soon(page.look, session)

    def __enter__(self) -> Pages:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(TIMEOUT)
        assert not self._thread.is_alive()
        assert not self._failed, self._failed

    def wait_for(self, state: str, least: int = 0) -> None:
        """Until every page shows that state, of a ledger of so many lines."""
        for page in self.all:
            while state not in page.states or max(page.seen) < least:
                assert not self._failed, self._failed
                threading.Event().wait(0.02)


def expected(ledger: Sequence[Mapping[str, Any]], revisions: Iterable[int]) -> dict[int, dict[str, int]]:
    """Revision -> the counts, counted here from the lines themselves."""
    found: dict[int, dict[str, int]] = {}
    last: dict[str, tuple[str, str]] = {}
    newest, end, listed = "", None, 0
    wanted = set(revisions)
    for revision, line in enumerate(ledger, 1):
        kind = line["kind"]
        if kind == "run":
            newest, end = line["run"], None
        elif kind == "listed":
            listed = line["selected"]
        elif kind == "end":
            end = line["counts"]
        elif kind in OUTCOME or kind == "finished":
            before = last.get(line["source_id"], ("", ""))
            kept = kind == "unchanged" and before[0] == "created"
            last[line["source_id"]] = before if kept else ("created" if kind == "finished" else kind, line["run"])
        if revision in wanted:
            counts = Counter(
                "unchanged" if kind == "created" and run != newest else OUTCOME[kind] for kind, run in last.values()
            )
            counts["not_started"] += max(0, listed - counts.total())
            found[revision] = end or {name: counts[name] for name in OUTCOMES}
    return found


def stop(address: str) -> tuple[int, str]:
    """Presses the button."""

    async def press() -> tuple[int, str]:
        base, _, token = address.partition("/?")
        headers = {"Origin": base, "X-Promptferry": "stop"}
        async with ClientSession() as session, session.post(f"{base}/stop?{token}", headers=headers) as response:
            return response.status, await response.text()

    return anyio.run(press)


def run_on(path: Path, registry: Served) -> AbstractContextManager[Started]:
    return started("run", path, cwd=path.parent, env={"KEY": registry.api_key})


def test_twenty_pages_have_what_the_ledger_says_through_a_kill_a_stop_and_the_end(tmp_path: Path) -> None:
    all_watched(tmp_path, PROMPTS)


def all_watched(tmp_path: Path, prompts: int) -> None:
    """So many prompts are moved while twenty pages look."""
    with served(SandboxOptions(prompts=prompts)) as registry:
        registry.ask(lambda sandbox: sandbox.add_prompt("canary", CANARY))
        path = write_migration(tmp_path, registry.base_url, limits={"rate": prompts, "settle": "0.5s", "timeout": 5})
        ledger = tmp_path / "ledger.jsonl"
        with started("watch", path, "--allow-stop", cwd=tmp_path) as watch:
            address = watch.first_line().strip()
            with Pages(address) as pages:
                pages.wait_for("empty")
                with run_on(path, registry) as run:
                    assert wait_for_lines(ledger, prompts // 2, run)
                    run.kill()
                pages.wait_for("killed")

                with run_on(path, registry) as run:
                    assert wait_for_lines(ledger, prompts * 5 // 4, run)
                    assert stop(address) == (202, f"process {run.pid} was asked to stop\n")
                    assert stop(address)[0] == 409  # a second signal would let nothing in flight end
                    ended = run.end()
                    assert (ended.code, ended.reason) == (75, "interrupted")
                pages.wait_for("stopped")

                with run_on(path, registry) as run:
                    assert run.end().code == 0
                pages.wait_for("finished", len(lines(ledger)))
                watch.send_signal(signal.SIGINT)
            assert watch.end().code == 0

    written = lines(ledger)
    revisions = {revision for page in pages.all for revision in page.seen if revision}
    assert len(revisions) > 10
    right = expected(written, revisions)
    for page in pages.all:
        assert page.gone
        assert page.states == {"empty", "running", "killed", "stopped", "finished"}
        for revision, view in page.seen.items():
            if revision:
                counts = view["status"]["counts"]
                assert {name: counts[name] for name in OUTCOMES} == {name: right[revision][name] for name in OUTCOMES}
        assert set(page.rows.values()) == {line["source_id"] for line in written if "source_id" in line}
        for secret in (registry.api_key, CANARY.partition(":")[0]):
            assert secret.encode() not in page.served
    assert pages.all[0].seen[len(written)]["status"]["counts"]["created"] > 0


def test_quiet_leaves_the_address_alone(tmp_path: Path) -> None:
    with started("watch", tmp_path / "ledger.jsonl", "--quiet", cwd=tmp_path) as watch:
        assert watch.first_line().startswith("http://127.0.0.1:")
        watch.send_signal(signal.SIGINT)
        ended = watch.end()
    assert (ended.code, ended.err) == (0, "")
