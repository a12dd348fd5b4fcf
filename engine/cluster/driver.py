"""The driver's side: hands pages to workers, writes their lines into the ledger, and takes up what a lost one had.

Nothing in here knows how the messages travel: `Crew` does.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import ClassVar, Final, Protocol, TypeVar

import anyio

from engine import __version__
from engine.cluster.messages import Halted, Order, Part, Refusal, Reply, Setup, Work, bare
from engine.cluster.pages import PAGE, Book, Page
from engine.config import Limits, Migration
from engine.errors import ConfigError, EngineError, Rejected, Stop, Transient
from engine.http.leases import Line, Terms
from engine.http.limiter import Known, RateLimiter, Requests
from engine.log import log
from engine.migrate import entries
from engine.migrate.context import Context, Elsewhere
from engine.migrate.halt import AGAIN
from engine.migrate.job import Job
from engine.migrate.task import Rest, Task
from engine.migrate.trial import finish_in_turn
from engine.session.connect import Workspaces, addresses_as_written, is_asked, strictest
from engine.taskgroup import for_each, task_group

T = TypeVar("T")

PAGES_EACH: Final = 3
"""Pages that a worker has at once: while the last prompts of one are under way, the next one is begun."""
LEAVE_S: Final = 0.1
"""So long is a worker told that it is not needed: that must leave, and nobody waits for its answer."""
LOOK_S: Final = 1.0
"""So often is the gate asked what it has come to."""


class Lost(EngineError):
    """A worker is gone, or was given up; what it was about to do, nobody knows."""


class Hand(Protocol):
    """One worker."""

    async def exchange(self, station: str, order: Order, setup: Setup | None) -> Reply:
        """`setup`: with the first order to this station. Raises Lost; never sends an order twice by itself."""
        ...

    def dismiss(self) -> None:
        """Ends it at once, whatever it does."""
        ...


@dataclass
class Losses:
    """Workers that were lost at a place one soon after another, of which there is an end."""

    MOST: ClassVar[int] = 5
    SOON_S: ClassVar[float] = 60.0
    _soon: dict[int, int] = field(default_factory=dict)

    def too_many(self, place: int, served_s: float) -> bool:
        """Another one was lost there, which had served so long by its last answer: 0 where it never gave one."""
        self._soon[place] = self._soon.get(place, 0) + 1 if served_s < self.SOON_S else 1
        return self._soon[place] >= self.MOST


class Crew(Protocol):
    """The workers, and those who hold the limits."""

    size: int

    def line(self, number: int) -> Line:
        """The way to the holder of a limit."""
        ...

    def hold(self, terms: Terms) -> int:
        """Makes one, and gives its number."""
        ...

    def hand(self, place: int) -> Hand:
        """Who works there now."""
        ...

    async def replaced(self, place: int, lost: Hand) -> Hand:
        """Another one in the place of who was lost there. Raises Stop when that happens too often."""
        ...


def refuse_what_stays_here(migrations: Sequence[Migration]) -> None:
    """Raises ConfigError for what other machines cannot do."""
    for migration in migrations:
        if migration.in_place:
            raise ConfigError(
                f"{migration.name}: --executor ray is for copies: mode update changes prompts where they stand, and "
                "keeps what was there before on this machine; run it without --executor"
            )
        for end in migration.ends:
            if not is_asked(end):
                raise ConfigError(
                    f"{migration.name}: --executor ray needs registries that every machine reaches, and kind "
                    f"{end.kind} lies on this one; run it without --executor"
                )


@dataclass(slots=True)
class Cluster:
    """What runs have in common that work on the same machines: the crew, and a gate for each host and key."""

    crew: Crew
    _parts: dict[Hashable, Part] = field(default_factory=dict)
    _stations: Iterator[int] = field(default_factory=count)

    def gate(self, written: Hashable, limits: Sequence[Limits], *, rate: float | None, known: Known) -> RateLimiter:
        """The driver's way through the gate that it shares with all workers; see `session.connect.Gates`."""
        one, size = strictest(limits, rate), self.crew.size
        number = self.crew.hold(Terms(rate=one.rate, share=one.share, known=known.limit))
        self._parts[written] = Part(
            number=number,
            among=size,
            concurrency=max(1, one.concurrency // size),
            reads=None if one.reads is None else one.reads / size,
            writes=None if one.writes is None else one.writes / size,
            latency=known.latency_s,
        )
        return RateLimiter.leased(
            self.crew.line(number),
            among=1,
            concurrency=one.concurrency,
            reads=one.reads,
            writes=one.writes,
            latency=known.latency_s,
        )

    def executor(self, migration: Migration, ends: Workspaces) -> Elsewhere:
        """What runs the pools of this migration on the workers."""
        return partial(self._run, migration, ends)

    async def _run(self, migration: Migration, ends: Workspaces, job: Job, context: Context, rest: Rest) -> None:
        setup = self._setup(migration, ends, job, context)
        shift = _Shift(self.crew, setup, migration.fingerprints(setup.salt), ends, job, context, Book(rest))
        await shift.run(f"{context.sink.run} {next(self._stations)}")

    def _setup(self, migration: Migration, ends: Workspaces, job: Job, context: Context) -> Setup:
        gates = ends.source_gate, ends.target_gate
        named = zip(("source", "target"), addresses_as_written(migration), gates, strict=True)
        return Setup(
            version=__version__,
            run=context.sink.run,
            written=migration.written,
            identity=migration.identity(),
            salt=secrets.token_bytes(16),
            gates={
                name: replace(self._parts[address], latency=gate.throttle.latency_s) for name, address, gate in named
            },
            served=ends.shared.sandbox.known,
            known=bare(job.ends),
            rehearsed=None if job.rehearsed is None else bare(job.rehearsed),
            planned=job.planned is not None,
            mark_in=context.mark_in,
        )


@dataclass(slots=True)
class _Shift:
    """The work of all hands on the tasks of one migration."""

    crew: Crew
    setup: Setup
    fingerprints: Mapping[str, bytes]
    ends: Workspaces
    job: Job
    context: Context
    book: Book
    short: list[Task] = field(default_factory=list)
    """They were made, and their labels or histories may be missing."""
    changed: anyio.Event = field(default_factory=anyio.Event)
    whole: anyio.Event = field(default_factory=anyio.Event)

    async def run(self, station: str) -> None:
        """Until every task has its lines in the ledger, or the run was asked to end."""
        # no more than may be in flight, nor so many that each has only a few
        hands = min(self.crew.size, self.job.concurrency, math.ceil(4 * len(self.book) / PAGE))
        async with task_group() as group:
            group.start_soon(self._look)
            async with task_group() as working:
                for place in range(hands):
                    working.start_soon(self._serve, place, f"{station} {place}")
            group.cancel_scope.cancel()
        for gate in self.ends.gates:
            await gate.look()
        await for_each(self.short, self._finish, limit=self.job.concurrency)

    async def _look(self) -> None:
        while True:
            await anyio.sleep(LOOK_S)
            for gate in self.ends.gates:
                await gate.look()

    async def _finish(self, task: Task) -> None:
        origin = entries.origin_of(task.row, self.job.ends.source.collections)
        await finish_in_turn(self.job, self.context, task, origin)

    # ---- one place ---------------------------------------------------------------------------------------------------

    async def _serve(self, place: int, station: str) -> None:
        try:
            await self._serve_with_any(place, station)
        except Stop as stop:
            self.context.halt.request(stop)  # the others end what is in flight

    async def _serve_with_any(self, place: int, station: str) -> None:
        hand = self.crew.hand(place)
        for number in count():
            try:
                await _Seat(self, place, hand, f"{station} {number}").serve()
                return
            except Lost as lost:
                hand.dismiss()
                self._give_back(place, str(lost))
            if self.over(place):
                return
            hand = await self.crew.replaced(place, hand)

    def over(self, place: int) -> bool:
        """Whether there is nothing more to do for who works there."""
        if self.book.whole:
            self.whole.set()
        return self.book.whole or (self.context.halt.stop is not None and not self.book.held(place))

    def _give_back(self, place: int, why: str) -> None:
        """What has no line of this run is taken up again. What has an intent is looked up when its time has come."""
        run, records = self.context.sink.run, self.context.state.records

        def told(task: Task) -> bool:
            record = records.get(task.row.id)
            return record is not None and record.run == run

        pages = self.book.held(place)
        for task in self.book.lost(place, told):
            record = records[task.row.id]
            if record.made and record.rare.pending and not record.doubtful:
                self.short.append(task)
        log.warning("worker.lost", place=place, pages=pages, why=why)
        self.wake()

    def wake(self) -> None:
        """There may be something for those who have nothing to do."""
        self.changed.set()
        self.changed = anyio.Event()


@dataclass(slots=True)
class _Seat:
    """One worker's exchange with the driver, from its setup until it is closed."""

    shift: _Shift
    place: int
    hand: Hand
    station: str
    durable: int = 0
    requests: dict[str, Requests] = field(default_factory=dict)

    async def serve(self) -> None:
        """Raises Lost, and what ends the run."""
        shift = self.shift
        reply = await self._unless_whole(partial(self.hand.exchange, self.station, Order(), shift.setup))
        if reply is None:
            await self._leave()
            return
        try:
            self._check(reply)
        except Stop:
            await self._leave()
            raise
        while True:
            answered = await self._take(reply)
            if shift.over(self.place):
                break
            works = [] if shift.context.halt.stop is not None else [self._work(page) for page in self._pages()]
            if not (works or answered or shift.book.held(self.place)):
                await self._unless_whole(shift.changed.wait)
                reply = Reply()
                continue
            order = Order(durable=self.durable, works=works, labels=answered, stop=self._stop())
            reply = await self.hand.exchange(self.station, order, None)
        shift.wake()
        await self._take(await self.hand.exchange(self.station, Order(durable=self.durable, last=True), None))

    async def _leave(self) -> None:
        """The station would stay open, and its connections, for as long as there is the worker."""
        with anyio.move_on_after(LEAVE_S, shield=True), suppress(Lost):
            await self.hand.exchange(self.station, Order(last=True), None)

    async def _unless_whole(self, wait: Callable[[], Awaitable[T]]) -> T | None:
        """None: all is done before, or the run is asked to end."""
        found: list[T] = []

        async def leave(event: Callable[[], Awaitable[None]]) -> None:
            await event()
            group.cancel_scope.cancel()

        async with task_group() as group:
            group.start_soon(leave, self.shift.whole.wait)
            group.start_soon(leave, self.shift.context.halt.wait)
            found.append(await wait())
            group.cancel_scope.cancel()
        return found[0] if found else None

    def _pages(self) -> Iterator[Page]:
        return self.shift.book.hand_out(self.place, PAGES_EACH, self.shift.crew.size * PAGES_EACH)

    def _work(self, page: Page) -> Work:
        known, planned = self.shift.context.state.records, self.shift.job.planned or {}
        ids = [task.row.id for task in page.tasks]
        return Work(
            page=page,
            records={one: record for one in ids if (record := known.get(one)) is not None},
            steps={one: planned[one] for one in ids if one in planned},
        )

    def _stop(self) -> Halted | None:
        stop = self.shift.context.halt.stop
        return None if stop is None else Halted.of(stop)

    def _check(self, reply: Reply) -> None:
        """Raises Stop where the worker has found other secrets: it would read and write in another workspace."""
        ours, theirs = self.shift.fingerprints, reply.fingerprints
        other = [place for place in ours if place in theirs and theirs[place] != ours[place]]
        if other:
            message = f"a worker has found another secret for {', '.join(other)} on its machine than the driver here"
            raise Stop("check_failed", message, next=f"Set the same environment on all machines. {AGAIN}")

    async def _take(self, reply: Reply) -> Mapping[str, str | Refusal]:
        """Its lines are durable when this returns, and what it asked for is known."""
        shift, context = self.shift, self.shift.context
        self._count(reply.requests)
        context.replicas.update(reply.replicas)
        if reply.lines:
            await context.record(*reply.entries)
            self.durable += len(reply.lines)
        for number in reply.ended:
            shift.book.ended(self.place, number)
        if reply.bug is not None:
            log.error("worker.bug", where=list(reply.bug))
            raise RuntimeError(f"a worker ended with {reply.bug[-1]}")
        if reply.stop is not None:
            context.halt.request(reply.stop.stop)
        return {name: await self._label(name) for name in reply.labels}

    async def _label(self, name: str) -> str | Refusal:
        try:
            return await self.shift.context.labels.id_of(self.shift.job.target, name)
        except (Rejected, Transient) as error:
            return Refusal.of(error)

    def _count(self, requests: Mapping[str, Requests]) -> None:
        gates = {"source": self.shift.ends.source_gate, "target": self.shift.ends.target_gate}
        for end, so_far in requests.items():
            gates[end].requests += so_far - self.requests.get(end, Requests())
            self.requests[end] = so_far
