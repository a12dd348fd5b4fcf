"""Workers in this process: the same stations and the same holders of limits as on Ray, and accidents where they are
asked for.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from engine.cluster.driver import Cluster, Hand, Lost
from engine.cluster.messages import Order, Reply, Setup
from engine.cluster.station import Gates, Station
from engine.config import Migration, load_migration
from engine.http.leases import Ask, Lease, Lessor, Line, Terms
from engine.ledger.report import Summary
from engine.run import RunOptions, run_migration
from tests.benchmarks.limited import LimitedRegistry
from tests.benchmarks.server import Connection

KEY = "key-of-a-test-0123456789abcdef"


@dataclass
class InProcess:
    """The way to a holder of a limit in this process."""

    lessor: Lessor

    async def lease(self, ask: Ask) -> Lease:
        await asyncio.sleep(0)
        return await self.lessor.lease(ask)

    def tell(self, ask: Ask) -> None:
        self.lessor.tell(ask)


@dataclass(eq=False)
class Worker:
    """It is lost with its `dies_at`-th reply, or, when `deaf`, before it takes the order."""

    crew: Workers
    dies_at: int | None
    deaf: bool
    gates: Gates
    dead: bool = False
    scopes: list[anyio.CancelScope] = field(default_factory=list)
    stations: dict[str, Station] = field(default_factory=dict)
    orders: int = 0

    async def exchange(self, station: str, order: Order, setup: Setup | None) -> Reply:
        self.orders += 1
        dies = self.orders == self.dies_at
        self.crew.wire += (sent := pickle.dumps((order, setup)))
        order, setup = pickle.loads(sent)
        if self.dead or (dies and self.deaf):
            raise Lost("a test")
        if setup is not None:
            self.stations[station] = Station(setup, self.gates)
            self.crew.group.start_soon(self._run, self.stations[station])
        reply = await self.stations[station].exchange(order)
        if order.last:
            del self.stations[station]
        if dies or self.dead:  # while it had this order
            raise Lost("a test")
        self.crew.wire += (sent := pickle.dumps(reply))
        answer: Reply = pickle.loads(sent)
        return answer

    async def _run(self, station: Station) -> None:
        with anyio.CancelScope() as scope:
            self.scopes.append(scope)
            await station.run()

    def dismiss(self) -> None:
        self.dead = True
        for scope in self.scopes:
            scope.cancel()


@dataclass
class Workers:
    """A crew; `accidents`: number of a worker, in the order in which they are hired -> when it is lost, and how."""

    group: TaskGroup
    size: int = 2
    accidents: Mapping[int, tuple[int, bool]] = field(default_factory=dict)
    hired: list[Worker] = field(default_factory=list)
    lines: dict[int, Line] = field(default_factory=dict)
    hands: dict[int, Worker] = field(default_factory=dict)
    wire: bytearray = field(default_factory=bytearray)
    """All that went between them, as it would travel."""

    def line(self, number: int) -> Line:
        return self.lines[number]

    def hold(self, terms: Terms) -> int:
        self.lines[len(self.lines)] = InProcess(Lessor(terms))
        return len(self.lines) - 1

    def hand(self, place: int) -> Hand:
        if place not in self.hands:
            self.hands[place] = self._hire()
        return self.hands[place]

    async def replaced(self, place: int, lost: Hand) -> Hand:
        if self.hands[place] is lost:
            self.hands[place] = self._hire()
        return self.hands[place]

    def _hire(self) -> Worker:
        dies_at, deaf = self.accidents.get(len(self.hired), (None, False))
        self.hired.append(Worker(self, dies_at, deaf, Gates(self.lines)))
        return self.hired[-1]


@dataclass
class Place:
    """A registry that keeps its own truth, and a migration in it."""

    registry: LimitedRegistry
    url: str
    file: Path
    environ: dict[str, str]

    def load(self) -> Migration:
        return load_migration(self.file, self.environ)

    async def run(
        self, accidents: Mapping[int, tuple[int, bool]] | None = None, **options: Any
    ) -> tuple[Summary, Workers]:
        """One run of it with two workers."""
        async with anyio.create_task_group() as group:
            workers = Workers(group, accidents=accidents or {})
            summary = await run_migration(self.load(), RunOptions(machines=Cluster(workers), **options))
            group.cancel_scope.cancel()
        return summary, workers

    @property
    def doubled(self) -> list[str]:
        return [name for name, many in self.registry.names.items() if many > 1]

    @property
    def lost(self) -> set[str]:
        wanted = {f"prompt {number}-replica" for number in range(self.registry.prompts)}
        return wanted - self.registry.names.keys()


@asynccontextmanager
async def place(folder: Path, prompts: int, *, rate: float = 0, told: str = "null") -> AsyncIterator[Place]:
    """`rate`: that it takes, 0: any; `told`: limits.rate."""
    registry = LimitedRegistry(prompts, rate)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(registry), "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        file = folder / "spread.yaml"
        file.write_text(
            f"name: spread\nsource: {{kind: portkey, base_url: {url}, api_key: '${{KEY}}'}}\n"
            f"limits: {{rate: {told}, timeout: 5, settle: 0.3, concurrency: 16}}\n"
        )
        yield Place(registry, url, file, {"KEY": KEY})
