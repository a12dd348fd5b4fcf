"""A worker's part of one migration: the same pools as in one process, fed by pages; its lines go into the driver's
ledger.

A line counts as recorded when the driver has said that it is durable, so no create leaves before its intent is on the
driver's disk. Nothing in here knows how the messages travel.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import anyio
from anyio.abc import TaskGroup

from engine import __version__
from engine.cluster.messages import Halted, Order, Part, Refusal, Reply, Setup, Work
from engine.cluster.pages import PAGE
from engine.config import Limits, read_again
from engine.content.references import Ends
from engine.errors import ConfigError, Stop
from engine.http.leases import Line
from engine.http.limiter import Known, RateLimiter, Requests
from engine.ledger.before_images import BeforeImages
from engine.ledger.lines import timestamp
from engine.ledger.state import State
from engine.migrate.context import Context, FirstWrite
from engine.migrate.halt import AGAIN, Halt
from engine.migrate.job import Job
from engine.migrate.pipeline import GRACE_S, run_pools, until_stopped
from engine.migrate.task import Rest
from engine.model import Entry, Target
from engine.session.connect import (
    ServedElsewhere,
    Shared,
    Workspaces,
    addresses_as_written,
    job_of,
    known_of,
    open_ends,
)
from engine.taskgroup import task_group

IDLE_S: Final = 1.0
"""So long may a reply take where there is nothing to tell."""
LINGER_S: Final = 0.1
LINGER_PART: Final = 30
"""So long does one wait for more to tell: each reply costs the driver as much as fifty lines. And no longer than such a
part of the settle time: an intent must leave within a third of it.
"""
UNDER_WAY: Final = PAGE
"""Prompts of a page that are read or written at once, however few requests may be in flight: most wait for the driver,
twice each.
"""
MANY_LINES: Final = 256
GRACE_HERE_S: Final = GRACE_S - 2.0
"""What is in flight at the end: its lines must reach the driver before the driver's own time is over."""


class Courier:
    """Stands in for the ledger's sink: lines wait here until the driver has fetched them and made them durable."""

    def __init__(self, run: str) -> None:
        self.run = run
        self.state = State()
        """Of the pages that are here."""
        self.news = anyio.Event()
        self._lines: list[Entry] = []
        self._count = 0
        self._waiting: deque[tuple[int, Sequence[Entry], anyio.Event]] = deque()

    async def record(self, *entries: Entry) -> None:
        """Durable when it returns. Its lines are fetched even when the caller is cancelled meanwhile."""
        if not entries:
            return
        self._lines.extend(entries)
        self._count += len(entries)
        durable = anyio.Event()
        self._waiting.append((self._count, entries, durable))
        self.news.set()
        await durable.wait()

    @property
    def full(self) -> bool:
        """There is enough to be told."""
        return len(self._lines) >= MANY_LINES

    @property
    def settled(self) -> bool:
        """Every line is durable."""
        return not self._waiting

    def fetch(self) -> list[Entry]:
        """What was not fetched yet."""
        lines, self._lines = self._lines, []
        return lines

    def durable(self, upto: int, now: str) -> None:
        """So many of all lines are. `now`: as the ledger writes times."""
        while self._waiting and self._waiting[0][0] <= upto:
            _, entries, durable = self._waiting.popleft()
            for entry in entries:
                self.state.fold({**entry.fields, "ts": now, "run": self.run, "kind": entry.kind})
            durable.set()


class FarLabels:
    """The driver knows the labels, so that no two workers make the same one."""

    def __init__(self, courier: Courier) -> None:
        self.asked: list[str] = []
        self._courier = courier
        self._ids: dict[str, str | Refusal] = {}
        self._waiting: dict[str, anyio.Event] = {}

    def learn(self, name: str, label_id: str) -> None:
        """One that was just made."""
        self._ids[name] = label_id

    async def id_of(self, target: Target, name: str) -> str:
        """Raises what the driver was told."""
        if name not in self._ids:
            if name not in self._waiting:
                self._waiting[name] = anyio.Event()
                self.asked.append(name)
                self._courier.news.set()
            await self._waiting[name].wait()
        found = self._ids[name]
        if isinstance(found, Refusal):
            raise found.error
        return found

    def told(self, labels: Mapping[str, str | Refusal]) -> None:
        """What was asked."""
        self._ids.update(labels)
        for name in labels:
            self._waiting.pop(name, anyio.Event()).set()


@dataclass(slots=True)
class Gates:
    """The gates of a worker: its parts of those that all share, each opened once, whatever migration asks first."""

    lines: Mapping[int, Line]
    opened: dict[int, RateLimiter] = field(default_factory=dict)

    def of(self, part: Part) -> RateLimiter:
        """A way through it."""
        if part.number not in self.opened:
            self.opened[part.number] = RateLimiter.leased(
                self.lines[part.number],
                among=part.among,
                concurrency=part.concurrency,
                reads=part.reads,
                writes=part.writes,
                latency=part.latency,
            )
        return self.opened[part.number]


class Station:
    """One migration in a worker, from its setup until the driver closes it."""

    def __init__(self, setup: Setup, gates: Gates) -> None:
        self._setup = setup
        self._gates = gates
        self._courier = Courier(setup.run)
        self._labels = FarLabels(self._courier)
        self._halt = Halt()
        self._opened = anyio.Event()
        self._closing = anyio.Event()
        self._linger = LINGER_S
        self._ended: list[int] = []
        self._reply = Reply()
        """What was not told yet, besides lines."""
        self._ends: Workspaces | None = None
        self._job: Job | None = None
        self._context: Context | None = None
        self._group: TaskGroup | None = None

    async def run(self) -> None:
        """Until it is closed. What goes wrong is told by `exchange`."""
        try:
            async with self._open():
                await self._closing.wait()
        except ConfigError as error:
            self._refuse(f"a worker cannot open the migration on its machine: {error}")
        except Stop as stop:
            self._stopped(stop)
        except BaseException as bug:
            self._reply = replace(self._reply, bug=tuple(_where(bug)))
            if not isinstance(bug, (Exception, BaseExceptionGroup)):
                raise
        finally:
            self._opened.set()
            self._courier.news.set()

    async def exchange(self, order: Order) -> Reply:
        """Takes what the driver says, and tells what is new as soon as there is enough of it."""
        await self._opened.wait()
        self._courier.durable(order.durable, _now())
        self._labels.told(order.labels)
        if order.stop is not None:
            self._halt.request(order.stop.stop)
        for work in order.works:
            self._begin(work)
        if order.last:
            self._closing.set()
        else:
            await self._wait()
        return self._collect()

    # ---- opening -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        setup = self._setup
        if setup.version != __version__:
            raise ConfigError(f"promptferry {__version__} is installed there, and {setup.version} runs here")
        migration = read_again(setup.written)
        if migration.identity() != setup.identity:
            raise ConfigError("its address or workspace is another one there: set the same environment on all machines")
        parts = dict(zip(addresses_as_written(migration), (setup.gates["source"], setup.gates["target"]), strict=True))

        def gate(written: Hashable, limits: Sequence[Limits], *, rate: float | None, known: Known) -> RateLimiter:
            return self._gates.of(parts[written])

        shared = Shared([migration], ServedElsewhere(setup.served), recall=lambda *_: Known(), gates=gate)
        async with open_ends(migration, writes=True, shared=shared) as ends, task_group() as group:
            for one in ends.gates:
                one.renew_after = migration.limits.settle_seconds / 3
            self._linger = min(LINGER_S, migration.limits.settle_seconds / LINGER_PART)
            self._ends, self._group = ends, group
            known = known_of(ends, setup.known.source, setup.known.target, setup.known.create)
            job = job_of(migration, ends, _whole(known, setup.known))
            rehearsed = None if setup.rehearsed is None else _whole(known, setup.rehearsed)
            self._job = replace(job, rehearsed=rehearsed, concurrency=UNDER_WAY)
            self._context = self._in_context()
            self._reply = Reply(fingerprints=migration.fingerprints(setup.salt))
            group.start_soon(self._stop_sending, ends)
            self._opened.set()
            yield
            group.cancel_scope.cancel()

    def _in_context(self) -> Context:
        first = FirstWrite()
        first.arrived = first.read_back = True  # the driver has seen to it
        return Context(
            sink=self._courier,
            halt=self._halt,
            clock=time.time,
            copies=BeforeImages(Path("none"), run=self._setup.run),  # creates keep none
            labels=self._labels,
            first=first,
            mark_in=self._setup.mark_in,
        )

    async def _stop_sending(self, ends: Workspaces) -> None:
        await self._halt.wait()
        for gate in ends.gates:
            gate.halt()

    # ---- working -----------------------------------------------------------------------------------------------------

    def _begin(self, work: Work) -> None:
        if self._group is not None:
            self._group.start_soon(self._work, work)

    async def _work(self, work: Work) -> None:
        assert self._job is not None  # it was opened
        assert self._context is not None
        context = self._context
        for source_id, record in work.records.items():
            context.state.records[source_id] = record
        job = replace(self._job, planned=work.steps if self._setup.planned else None)
        pools = partial(run_pools, job, context, Rest(work.page.tasks))
        await until_stopped(context, pools, seconds=GRACE_HERE_S)
        for task in work.page.tasks:
            context.state.records.pop(task.row.id, None)
        if self._halt.stop is not None:
            self._stopped(self._halt.stop)
        self._ended.append(work.page.number)
        self._courier.news.set()

    def _stopped(self, stop: Stop) -> None:
        self._reply = replace(self._reply, stop=Halted.of(stop))
        self._courier.news.set()

    def _refuse(self, message: str) -> None:
        advice = f"Mend it there. {AGAIN}"
        self._reply = replace(self._reply, stop=Halted("check_failed", message, advice))

    # ---- telling -----------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        if self._reply != Reply():
            return
        with anyio.move_on_after(IDLE_S):
            await self._courier.news.wait()
            if not self._courier.full:
                await anyio.sleep(self._linger)

    def _collect(self) -> Reply:
        self._courier.news = anyio.Event()
        lines = self._courier.fetch()
        # a page has ended when its last line is durable, so not with that line itself
        ended, self._ended = self._ended, []
        asked, self._labels.asked = self._labels.asked, []
        replicas: list[str] = []
        if self._context is not None and self._context.replicas:
            replicas = [*self._context.replicas]
            self._context.replicas.clear()
        reply, self._reply = self._reply, Reply()
        return replace(
            reply,
            lines=[(entry.kind, entry.fields) for entry in lines],
            ended=ended,
            replicas=replicas,
            labels=asked,
            requests={} if self._ends is None else _requests(self._ends),
        )


def _whole(known: Ends, told: Ends) -> Ends:
    """What the driver told, with what the program itself knows."""
    return replace(known, source=told.source, target=told.target, made=told.made, unmade=told.unmade)


def _requests(ends: Workspaces) -> dict[str, Requests]:
    found = {"source": replace(ends.source_gate.requests)}
    if ends.target_gate is not ends.source_gate:
        found["target"] = replace(ends.target_gate.requests)
    return found


def _now() -> str:
    return timestamp(time.time())


def _where(bug: BaseException) -> Iterator[str]:
    """Never its text, which may hold a prompt."""
    if isinstance(bug, BaseExceptionGroup):
        for one in bug.exceptions:
            yield from _where(one)
        return
    yield from traceback.format_tb(bug.__traceback__)
    yield f"{type(bug).__module__}.{type(bug).__qualname__}"
