"""Opens both ends of a migration: addresses, keys, one gate per host and key, and the embedded sandbox."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

import anyio

from engine.config import Limits, Migration
from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.endpoint import Address, Endpoint, Opening
from engine.content.references import Ends, kinds_needed
from engine.errors import ConfigError, Stop
from engine.http.limiter import Known, RateLimiter
from engine.http.session import RequestLimits
from engine.migrate.halt import Halt
from engine.migrate.job import Job
from engine.migrate.listing import catalog_of
from engine.migrate.shared_parts import SharedParts
from engine.model import ModelGateway, Target
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
    source_gateway: ModelGateway | None = None
    target_gateway: ModelGateway | None = None
    """Where prompts are rendered and called, when that was asked for."""

    @property
    def gates(self) -> list[RateLimiter]:
        """Each gate once."""
        return [self.source_gate] if self.source_gate is self.target_gate else [self.source_gate, self.target_gate]

    @property
    def same(self) -> bool:
        """Whether replicas are made beside their originals."""
        return self.source is self.target


Recall = Callable[[Migration, str], Known]
"""The migration and its end, source or target -> what is known of the registry from earlier runs."""
Unsettled = Callable[[Migration], float]
"""When all that earlier runs made or may have made for its prompts is settled, see `settled_by`."""


def _settled(_migration: Migration) -> float:
    return 0.0


class Shared:
    """What several migrations have in common: one gate for each host and key, one sandbox, one way to end, and what
    they make in the same workspace for their prompts.

    Where they set different `limits`, the strictest hold for all who share a gate. `rate` overrides `limits.rate`.
    """

    def __init__(
        self,
        migrations: Sequence[Migration],
        sandbox: EmbeddedSandbox,
        *,
        recall: Recall,
        unsettled: Unsettled = _settled,
        rate: float | None = None,
    ) -> None:
        self.halt = Halt()
        """Asked to end, every migration ends."""
        self.sandbox = sandbox
        self.recall = recall
        self._migrations = migrations
        self._unsettled = unsettled
        self._parts: dict[tuple[str, tuple[str, ...]], SharedParts] = {}
        self._rate = rate
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
            self._gates[address] = _gate(self._limits[written], self._rate, known())
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
) -> AsyncIterator[Workspaces]:
    """Both ends of the migration; `rate` overrides `limits.rate`. Nothing is sent yet. `gateways`: those of both ends;
    `target_gateway`: the target's alone. `writes`: into the target.
    `throttle`: what the ledger knows of each end's `limit` and `latency_s`. `shared`: with the others of a fleet, which
    has the last word on rate and on what is known.
    """
    async with AsyncExitStack() as stack:
        if shared is None:
            sandbox = await stack.enter_async_context(embedded_sandbox(store_beside(migration.ledger)))
            shared = Shared([migration], sandbox, recall=partial(_of_ledger, throttle or {}), rate=rate)
        gates = _Gates(migration, shared)
        used: list[RateLimiter] = []
        opened: list[Target] = []
        called: list[ModelGateway] = []
        ends = migration.ends[:1] if migration.same_workspace else migration.ends
        for name, written in zip(("source", "target"), ends, strict=False):
            end = await shared.sandbox.serving(written) if written.is_sandbox else written
            opening = Opening(
                name=name,
                gate=gates.of(end.address, _as_written(written, written.address), name),
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
                called.append(await stack.enter_async_context(_gateway(written, end, opening, gates)))
        yield Workspaces(
            source=opened[0],
            target=opened[-1],
            source_gate=used[0],
            target_gate=used[-1],
            source_gateway=called[0] if gateways else None,
            target_gateway=called[-1] if called else None,
        )


@dataclass(frozen=True, slots=True)
class _Gates:
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


def _as_written(end: Endpoint, address: Address) -> Address:
    """At the sandbox each kind of registry has an address of its own, whatever the word for it."""
    return replace(address, url=f"{end.kind} {address.url}") if end.is_sandbox else address


def _of_ledger(throttle: Mapping[str, Mapping[str, float]], _migration: Migration, end: str) -> Known:
    return Known(**throttle.get(end, {}))


def _gateway(
    written: Endpoint, end: Endpoint, opening: Opening, gates: _Gates
) -> AbstractAsyncContextManager[ModelGateway]:
    """Of this end; under the registry's own gate where host and key are the same."""
    connect = REGISTRIES[end.kind].gateway
    if connect is None or end.gateway is None or written.gateway is None:
        raise ConfigError(f"kind {end.kind} has no gateway that renders or answers prompts: go without that")
    gate = gates.of(end.gateway, _as_written(written, written.gateway), "gateway")
    return connect(end, replace(opening, gate=gate))


async def open_job(migration: Migration, ends: Workspaces, *, also: Collection[str] = ()) -> Job:
    """Asks both ends for what the rules need to know of them, and for `also`. The first requests are sent here."""
    select, rules = migration.selection(), migration.rules()
    create = frozenset() if ends.same else frozenset(migration.create_missing)
    kinds = kinds_needed(rules, create, same=ends.same).union(also, () if select.label is None else ("labels",))
    if ends.same:
        source = target = await catalog_of(ends.source, kinds)
    else:
        source, target = await both(catalog_of(ends.source, kinds), catalog_of(ends.target, kinds))
    limits, can = migration.limits, ends.target.can
    return Job(
        migration=migration.name,
        registry=migration.source.identity,
        source=ends.source,
        target=ends.target,
        ends=Ends(ends.same, source, target, dialects=DIALECTS, dialect=can.dialect, names=can.names, create=create),
        select=select,
        rules=rules,
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
    )


def _limits(migration: Migration) -> RequestLimits:
    return RequestLimits(timeout=migration.limits.timeout, attempts=migration.limits.attempts)


def _gate(limits: Iterable[Limits], rate: float | None, known: Known) -> RateLimiter:
    """The strictest of these limits."""
    each = list(limits)
    return RateLimiter(
        rate=rate if rate is not None else _least(one.rate for one in each),
        reads=_least(one.reads for one in each),
        writes=_least(one.writes for one in each),
        share=min(one.share for one in each),
        concurrency=min(one.concurrency for one in each),
        known=known,
    )


def _least(ceilings: Iterable[float | None]) -> float | None:
    return min((one for one in ceilings if one is not None), default=None)


class EmbeddedSandbox:
    """The embedded stand-in, started when the first end asks for it."""

    def __init__(self, store: Path, stack: AsyncExitStack) -> None:
        self._store = store
        self._stack = stack
        self._served: Sandbox | None = None
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


@asynccontextmanager
async def embedded_sandbox(store: Path) -> AsyncIterator[EmbeddedSandbox]:
    """It serves until the end of the block, from this SQLite file."""
    async with AsyncExitStack() as stack:
        yield EmbeddedSandbox(store, stack)


def store_beside(ledger: Path) -> Path:
    """Where the sandbox keeps what it serves for a migration of its own."""
    return ledger.with_name(f"{ledger.name}.sandbox.sqlite")


def the_sandbox() -> ModuleType:
    """The package of the stand-ins, which is an extra: a real migration never needs it. Raises ConfigError."""
    try:
        return import_module("engine.sandbox")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mystace":
            raise
        raise ConfigError("the sandbox is not installed here: pip install 'promptferry[sandbox]'") from error
