"""Opens both ends of a migration: addresses, keys, one gate per host and key, and the embedded sandbox."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final, Protocol

import anyio

from engine.config import Limits, Migration
from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.endpoint import Address, Endpoint, Opening
from engine.content.references import Ends, kinds_needed
from engine.content.shard import whole_name
from engine.errors import ConfigError, Stop
from engine.http.limiter import Known, RateLimiter
from engine.http.session import RequestLimits
from engine.migrate.claims import Claims
from engine.migrate.context import Elsewhere
from engine.migrate.halt import Halt
from engine.migrate.job import Job
from engine.migrate.listing import catalog_of
from engine.migrate.shared_parts import SharedParts
from engine.model import Catalog, ModelGateway, Target
from engine.taskgroup import both

if TYPE_CHECKING:
    from engine.sandbox import Sandbox

SANDBOX_PROMPTS: Final = 200


@dataclass(slots=True, kw_only=True)
class Workspaces:
    """Both ends, open. In one workspace `source` and `target` are the same object."""

    source: Target
    target: Target
    source_gate: RateLimiter
    target_gate: RateLimiter
    """The same object as `source_gate` where host and key are the same."""
    shared: Shared
    """Where both came from."""
    source_gateway: ModelGateway | None = None
    target_gateway: ModelGateway | None = None
    """Where prompts are rendered and called, when that was asked for."""
    gateway_gates: Sequence[RateLimiter] = ()
    """Those of gateways that have another host or key than their end."""

    @property
    def gates(self) -> list[RateLimiter]:
        """Each gate once."""
        one = self.source_gate is self.target_gate
        return [self.source_gate, *([] if one else [self.target_gate]), *self.gateway_gates]

    @property
    def same(self) -> bool:
        """Whether replicas are made beside their originals."""
        return self.source is self.target


class Gates(Protocol):
    """What makes a gate for a host and a key. `written`: that address as the migration file has it."""

    def __call__(self, written: Address, limits: Sequence[Limits], *, rate: float | None, known: Known) -> RateLimiter:
        """The strictest of these limits; `rate` overrides theirs."""
        ...


class Machines(Protocol):
    """Other processes that do a part of the work."""

    @property
    def gate(self) -> Gates:
        """Makes gates that are shared with them."""
        ...

    def executor(self, migration: Migration, ends: Workspaces) -> Elsewhere:
        """What runs the pools of this migration there."""
        ...


class Stands(Protocol):
    """What says where the stand-in of a registry is served."""

    @property
    def known(self) -> Mapping[tuple[str, str], tuple[str, str]]:
        """Kind and address as a file has them -> address and key as they are served, of all that were asked for."""
        ...

    async def serving(self, end: Endpoint) -> Endpoint:
        """The end as it is served. Raises Stop."""
        ...


Recall = Callable[[Migration, str], Known]
"""The migration and its end, source or target -> what is known of the registry from earlier runs."""
Unsettled = Callable[[Migration], float]
"""When all that earlier runs made or may have made for its prompts is settled, see `settled_by`."""


def _settled(_migration: Migration) -> float:
    return 0.0


class Shared:
    """What several migrations have in common: one gate for each host and key, one sandbox, one way to end, what they
    make in the same workspace for their prompts, and the names that they give there.

    Where they set different `limits`, the strictest hold for all who share a gate. `rate` overrides `limits.rate`.
    """

    def __init__(
        self,
        migrations: Sequence[Migration],
        sandbox: Stands,
        *,
        recall: Recall,
        unsettled: Unsettled = _settled,
        rate: float | None = None,
        gates: Gates | None = None,
    ) -> None:
        self.halt = Halt()
        """Asked to end, every migration ends."""
        self.sandbox = sandbox
        self.recall = recall
        self._migrations = migrations
        self._unsettled = unsettled
        self._parts: dict[tuple[str, tuple[str, ...]], SharedParts] = {}
        places = Counter(one.ends[1].place for one in migrations)
        self._claims = {place: Claims() for place, writers in places.items() if writers > 1}
        self._rate = rate
        self._make_gate = gates or gate_of
        self._gates: dict[Address, RateLimiter] = {}
        self._limits: defaultdict[Address, list[Limits]] = defaultdict(list)
        for migration in migrations:
            for address in _addresses(migration):
                self._limits[address].append(migration.limits)

    @property
    def gates(self) -> list[RateLimiter]:
        """Each gate once, in the order in which they were first asked for."""
        return list(self._gates.values())

    def way(self, address: Address, written: Address, known: Callable[[], Known]) -> RateLimiter:
        """A migration's own way through the gate of an address. `written`: the same as the migration file has it;
        `known`: asked when it is the first one.
        """
        if address not in self._gates:
            limits = self._limits[written]
            self._gates[address] = self._make_gate(written, limits, rate=self._rate, known=known())
        return self._gates[address].another()

    def parts_of(self, migration: Migration) -> SharedParts:
        """What is made in its target. Two keys may mean one workspace, and two: whoever has another key takes turns
        all the same, and knows nothing that its own listing does not tell.
        """
        end = migration.ends[1]
        if (end.identity, end.keys) not in self._parts:
            alike = [parts for (identity, _), parts in self._parts.items() if identity == end.identity]
            turn = alike[0].turn if alike else anyio.Lock()
            unsure = alike[0].unsure if alike else self._unsure(end.identity)
            self._parts[end.identity, end.keys] = SharedParts(turn, unsure)
        return self._parts[end.identity, end.keys]

    def claims_of(self, migration: Migration) -> Claims | None:
        """The names given in its target; None: no other one writes there, as far as the files tell."""
        return self._claims.get(migration.ends[1].place)

    def _unsure(self, identity: str) -> dict[str, float]:
        those = (one for one in self._migrations if one.create_missing and one.ends[1].identity == identity)
        return {one.name: until for one in those if (until := self._unsettled(one))}


@asynccontextmanager
async def open_ends(
    migration: Migration,
    *,
    rate: float | None = None,
    gateways: bool = False,
    target_gateway: bool = False,
    writes: bool = False,
    throttle: Mapping[str, Mapping[str, float]] | None = None,
    shared: Shared | None = None,
    gates: Gates | None = None,
) -> AsyncIterator[Workspaces]:
    """Both ends of the migration; `rate` overrides `limits.rate`. Nothing is sent yet. `gateways`: those of both ends;
    `target_gateway`: the target's alone. `writes`: into the target.
    `throttle`: what the ledger knows of each end's `limit` and `latency_s`. `shared`: with the others of a fleet, which
    has the last word on rate, on what is known, and on what makes the `gates`.
    """
    async with AsyncExitStack() as stack:
        if shared is None:
            sandbox = await stack.enter_async_context(embedded_sandbox(store_beside(migration.ledger)))
            recall = partial(_of_ledger, throttle or {})
            shared = Shared([migration], sandbox, recall=recall, rate=rate, gates=gates)
        ways = _Ways(migration, shared)
        used: list[RateLimiter] = []
        opened: list[Target] = []
        called: list[ModelGateway] = []
        ends = migration.ends[:1] if migration.same_workspace else migration.ends
        for name, written in zip(("source", "target"), ends, strict=False):
            end = await shared.sandbox.serving(written) if written.is_sandbox else written
            opening = Opening(
                name=name,
                gate=ways.of(end.address, _as_written(written, written.address), name),
                limits=_limits(migration),
                writes=writes and written is migration.ends[1],
                batch=migration.limits.batch,
                dialects=DIALECTS,
            )
            used.append(opening.gate)
            opened.append(await stack.enter_async_context(REGISTRIES[end.kind].connect(end, opening)))
            if gateways or (target_gateway and written is ends[-1]):
                whose = f"{name}'s gateway" if migration.target is not None else "gateway"
                opening = replace(opening, name=whose)
                called.append(await stack.enter_async_context(_gateway(written, end, opening, ways)))
        yield Workspaces(
            source=opened[0],
            target=opened[-1],
            source_gate=used[0],
            target_gate=used[-1],
            shared=shared,
            source_gateway=called[0] if gateways else None,
            target_gateway=called[-1] if called else None,
            gateway_gates=[way for way in ways.ways.values() if not any(way is one for one in used)],
        )


@dataclass(frozen=True, slots=True)
class _Ways:
    """The ways of one migration: one for each host and key."""

    migration: Migration
    shared: Shared
    ways: dict[Address, RateLimiter] = field(default_factory=dict)

    def of(self, address: Address, written: Address, end: str) -> RateLimiter:
        if address not in self.ways:
            self.ways[address] = self.shared.way(address, written, partial(self.shared.recall, self.migration, end))
        return self.ways[address]


def _addresses(migration: Migration) -> Iterator[Address]:
    """What a migration may ask, each once, as its file has them."""
    found = set[Address]()
    for end in migration.ends:
        found.add(_as_written(end, end.address))
        if end.gateway is not None:
            found.add(_as_written(end, end.gateway))
    yield from found


def addresses_as_written(migration: Migration) -> tuple[Hashable, Hashable]:
    """Of source and target: what tells their gates apart."""
    source, target = migration.ends
    return _as_written(source, source.address), _as_written(target, target.address)


def is_asked(end: Endpoint) -> bool:
    """Whether it is a service that other machines reach, too; else it lies on this one."""
    return end.able(REGISTRIES[end.kind].can).asked


def _as_written(end: Endpoint, address: Address) -> Address:
    """At the sandbox each kind of registry has an address of its own, whatever the word for it."""
    return replace(address, url=f"{end.kind} {address.url}") if end.is_sandbox else address


def _of_ledger(throttle: Mapping[str, Mapping[str, float]], _migration: Migration, end: str) -> Known:
    return Known(**throttle.get(end, {}))


def _gateway(
    written: Endpoint, end: Endpoint, opening: Opening, ways: _Ways
) -> AbstractAsyncContextManager[ModelGateway]:
    """Of this end; under the registry's own gate where host and key are the same."""
    connect = REGISTRIES[end.kind].gateway
    if connect is None or end.gateway is None or written.gateway is None:
        raise ConfigError(f"kind {end.kind} has no gateway that renders or answers prompts: go without that")
    gate = ways.of(end.gateway, _as_written(written, written.gateway), "gateway")
    return connect(end, replace(opening, gate=gate))


Ask = Callable[[str, Callable[[], Awaitable[Catalog]]], Awaitable[Catalog]]
"""The end, source or target, and how it is asked for its catalog -> that, or what is gone on with instead."""


async def _plainly(_end: str, question: Callable[[], Awaitable[Catalog]]) -> Catalog:
    return await question()


async def open_job(migration: Migration, ends: Workspaces, *, also: Collection[str] = (), ask: Ask = _plainly) -> Job:
    """Asks both ends for what the rules need to know of them, and for `also`. The first requests are sent here. Raises
    Stop, unless `ask` knows better.
    """
    select, rules = migration.selection(), migration.rules()
    create = frozenset() if ends.same else frozenset(migration.create_missing)
    kinds = kinds_needed(rules, create, same=ends.same).union(also, () if select.label is None else ("labels",))
    if ends.same:
        source = target = await ask("source", partial(catalog_of, ends.source, kinds))
    else:
        source, target = await both(
            ask("source", partial(catalog_of, ends.source, kinds)),
            ask("target", partial(catalog_of, ends.target, kinds)),
        )
    return job_of(migration, ends, known_of(ends, source, target, create))


def known_of(ends: Workspaces, source: Catalog, target: Catalog, create: frozenset[str] = frozenset()) -> Ends:
    """What both ends have, by their catalogs."""
    can = ends.target.can
    return Ends(ends.same, source, target, dialects=DIALECTS, dialect=can.dialect, names=can.names, create=create)


def job_of(migration: Migration, ends: Workspaces, known: Ends) -> Job:
    """The migration between these ends, of which this is known."""
    limits = migration.limits
    return Job(
        migration=migration.name,
        registry=migration.source.identity,
        source=ends.source,
        target=ends.target,
        ends=known,
        select=migration.selection(),
        rules=migration.rules(),
        allow_loss=frozenset(migration.allow_loss),
        carry=frozenset(migration.carry),
        on_existing=migration.on_existing,
        in_place=migration.in_place,
        on_change=migration.on_change,
        on_edited=migration.on_edited,
        publish=migration.publishes,
        rewrites=migration.rewrites_digest(),
        settle=limits.settle_seconds,
        concurrency=limits.concurrency,
        attempts=limits.attempts,
        shard=migration.shard,
    )


def _limits(migration: Migration) -> RequestLimits:
    return RequestLimits(timeout=migration.limits.timeout, attempts=migration.limits.attempts)


def gate_of(_written: Hashable, limits: Sequence[Limits], *, rate: float | None, known: Known) -> RateLimiter:
    """A gate of this process alone."""
    one = strictest(limits, rate)
    return RateLimiter(
        rate=one.rate, reads=one.reads, writes=one.writes, share=one.share, concurrency=one.concurrency, known=known
    )


def strictest(limits: Sequence[Limits], rate: float | None) -> Limits:
    """The lowest of each; `rate` overrides theirs."""
    return limits[0].model_copy(
        update={
            "rate": rate if rate is not None else _least(one.rate for one in limits),
            "reads": _least(one.reads for one in limits),
            "writes": _least(one.writes for one in limits),
            "share": min(one.share for one in limits),
            "concurrency": min(one.concurrency for one in limits),
        }
    )


def _least(ceilings: Iterable[float | None]) -> float | None:
    return min((one for one in ceilings if one is not None), default=None)


class EmbeddedSandbox:
    """The embedded stand-in, started when the first end asks for it."""

    def __init__(self, store: Path, stack: AsyncExitStack) -> None:
        self._store = store
        self._stack = stack
        self._served: Sandbox | None = None
        self.known: Mapping[tuple[str, str], tuple[str, str]] = {}
        self._starting = anyio.Lock()

    async def serving(self, end: Endpoint) -> Endpoint:
        """The end as it is served: `sandbox` is the first workspace, `sandbox:NAME` another one in the same store.
        Raises Stop.
        """
        async with self._starting:
            if self._served is None:
                self._served = await self._serve()
        _, _, workspace = end.url.partition(":")
        key = self._served.credential(end.kind, *filter(None, [workspace]))
        self.known = {**self.known, (end.kind, end.url): (self._served.urls[end.kind], key)}
        return end.in_sandbox(self._served.urls[end.kind], key)

    async def _serve(self) -> Sandbox:
        sandbox = the_sandbox()
        options = sandbox.SandboxOptions(store=self._store, prompts=SANDBOX_PROMPTS)
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            served: Sandbox = await self._stack.enter_async_context(sandbox.serve(options))
            return served
        except OSError as error:
            raise Stop(
                "disk",
                f"the embedded sandbox cannot be started: {error.strerror or error}",
                next="Make the folder of the ledger writable, or name another one with --ledger, and run it again.",
            ) from error


@dataclass(frozen=True, slots=True)
class ServedElsewhere:
    """A stand-in that another process has started: kind and address as the file has them -> as they are served."""

    known: Mapping[tuple[str, str], tuple[str, str]]

    async def serving(self, end: Endpoint) -> Endpoint:
        """The end as it is served."""
        return end.in_sandbox(*self.known[end.kind, end.url])


@asynccontextmanager
async def embedded_sandbox(store: Path) -> AsyncIterator[EmbeddedSandbox]:
    """It serves until the end of the block, from this SQLite file."""
    async with AsyncExitStack() as stack:
        yield EmbeddedSandbox(store, stack)


def store_beside(ledger: Path) -> Path:
    """Where the sandbox keeps what it serves for a migration of its own; all its shards have one."""
    return ledger.with_name(f"{whole_name(ledger.name)}.sandbox.sqlite")


def the_sandbox() -> ModuleType:
    """The package of the stand-ins, which is an extra: a real migration never needs it. Raises ConfigError."""
    try:
        return import_module("engine.sandbox")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mystace":
            raise
        raise ConfigError("the sandbox is not installed here: pip install 'promptferry[sandbox]'") from error
