"""Opens both ends of a migration: addresses, keys, one gate per host and key, and the embedded sandbox."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from engine.config import Migration
from engine.connectors import DIALECTS, REGISTRIES
from engine.connectors.endpoint import Address, Endpoint, Opening
from engine.content.references import Ends, kinds_needed
from engine.errors import ConfigError, Stop
from engine.http.limiter import Known, RateLimiter
from engine.http.session import RequestLimits
from engine.migrate.job import Job
from engine.migrate.listing import catalog_of
from engine.model import Gateway, Target
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
    source_gateway: Gateway | None = None
    target_gateway: Gateway | None = None
    """Where prompts are rendered and called, when that was asked for."""

    @property
    def gates(self) -> list[RateLimiter]:
        """Each gate once."""
        return [self.source_gate] if self.source_gate is self.target_gate else [self.source_gate, self.target_gate]

    @property
    def same(self) -> bool:
        """Whether replicas are made beside their originals."""
        return self.source is self.target


@asynccontextmanager
async def open_ends(
    migration: Migration,
    *,
    rate: float | None = None,
    gateways: bool = False,
    writes: bool = False,
    throttle: Mapping[str, Mapping[str, float]] | None = None,
) -> AsyncIterator[Workspaces]:
    """Both ends of the migration; `rate` overrides `limits.rate`. Nothing is sent yet. `writes`: into the target.
    `throttle`: what the ledger knows of each end's `limit` and `latency_s`.
    """
    async with AsyncExitStack() as stack:
        gates: defaultdict[Address, RateLimiter] = defaultdict(lambda: _gate(migration, rate, Known()))
        used: list[RateLimiter] = []
        opened: list[Target] = []
        called: list[Gateway] = []
        sandbox = _Sandbox(migration.ledger, stack)
        ends = migration.ends[:1] if migration.same_workspace else migration.ends
        for name, written in zip(("source", "target"), ends, strict=False):
            end = await sandbox.serving(written) if written.is_sandbox else written
            known = Known(**(throttle or {}).get(name, {}))
            opening = Opening(
                name=name,
                gate=gates.setdefault(end.address, _gate(migration, rate, known)),
                limits=_limits(migration),
                writes=writes and written is migration.ends[1],
                batch=migration.limits.batch,
                dialects=DIALECTS,
            )
            used.append(opening.gate)
            opened.append(await stack.enter_async_context(REGISTRIES[end.kind].connect(end, opening)))
            if gateways:
                whose = f"{name}'s gateway" if migration.target is not None else "gateway"
                called.append(await stack.enter_async_context(_gateway(end, replace(opening, name=whose), gates)))
        yield Workspaces(
            source=opened[0],
            target=opened[-1],
            source_gate=used[0],
            target_gate=used[-1],
            source_gateway=called[0] if called else None,
            target_gateway=called[-1] if called else None,
        )


def _gateway(
    end: Endpoint, opening: Opening, gates: Mapping[Address, RateLimiter]
) -> AbstractAsyncContextManager[Gateway]:
    """Of this end; under the registry's own gate where host and key are the same."""
    connect = REGISTRIES[end.kind].gateway
    if connect is None or end.gateway is None:
        raise ConfigError(f"kind {end.kind} has no gateway that renders or answers prompts: verify without that")
    return connect(end, replace(opening, gate=gates[end.gateway]))


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


def _gate(migration: Migration, rate: float | None, known: Known) -> RateLimiter:
    limits = migration.limits
    return RateLimiter(
        rate=rate if rate is not None else limits.rate,
        reads=limits.reads,
        writes=limits.writes,
        share=limits.share,
        concurrency=limits.concurrency,
        known=known,
    )


class _Sandbox:
    """The embedded stand-in, started when the first end asks for it; its store lies beside the ledger."""

    def __init__(self, ledger: Path, stack: AsyncExitStack) -> None:
        self._store = ledger.with_name(f"{ledger.name}.sandbox.sqlite")
        self._stack = stack
        self._served: Sandbox | None = None

    async def serving(self, end: Endpoint) -> Endpoint:
        """The end as it is served: `sandbox` is the first workspace, `sandbox:NAME` another one in the same store."""
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


def the_sandbox() -> ModuleType:
    """The package of the stand-ins, which is an extra: a real migration never needs it. Raises ConfigError."""
    try:
        return import_module("engine.sandbox")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mystace":
            raise
        raise ConfigError("the sandbox is not installed here: pip install 'promptferry[sandbox]'") from error
