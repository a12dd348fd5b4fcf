"""Opens both ends of a migration: addresses, keys, one gate per host and key, and the embedded sandbox."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from engine.check import kinds_needed
from engine.config import Endpoint, Migration
from engine.connectors import CONNECT, CONNECT_GATEWAY
from engine.errors import ConfigError, Stop
from engine.http import Limits
from engine.job import Job
from engine.lookup import catalog_of
from engine.model import Gateway, Target
from engine.rewrite import Ends
from engine.throttle import Gate, Known

if TYPE_CHECKING:
    from engine.sandbox import Sandbox

SANDBOX_PROMPTS: Final = 200
SANDBOX_KEY_ID: Final = "sandbox"


@dataclass(slots=True, kw_only=True)
class Workspaces:
    """Both ends, open. In one workspace `source` and `target` are the same object."""

    source: Target
    target: Target
    source_gate: Gate
    target_gate: Gate
    """The same object as `source_gate` where host and key are the same."""
    source_gateway: Gateway | None = None
    target_gateway: Gateway | None = None
    """Where prompts are rendered and called, when that was asked for."""

    @property
    def gates(self) -> list[Gate]:
        """Each gate once."""
        return [self.source_gate] if self.source_gate is self.target_gate else [self.source_gate, self.target_gate]

    @property
    def same(self) -> bool:
        """Whether replicas are made beside their originals."""
        return self.source is self.target


@dataclass(frozen=True, slots=True)
class _Address:
    """Where an end really is: the embedded sandbox has a new port every time. `keys`: what it is asked with."""

    base_url: str
    keys: tuple[str, ...]


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
        gates: dict[_Address, Gate] = {}
        used: list[Gate] = []
        opened: list[Target] = []
        called: list[Gateway] = []
        sandbox = _Sandbox(migration.ledger, stack)
        ends = migration.ends[:1] if migration.same_workspace else migration.ends
        for name, end in zip(("source", "target"), ends, strict=False):
            address = await sandbox.address(end) if end.is_sandbox else _address(end)
            known = Known(**(throttle or {}).get(name, {}))
            gate = gates.setdefault(address, _gate(migration, rate, known))
            used.append(gate)
            place = _place(migration, end, address, gate, writes=writes and end is migration.ends[1])
            connect = CONNECT[end.kind](**place, name=name)
            opened.append(await stack.enter_async_context(connect))
            if gateways:
                called.append(await _gateway(migration, end, name, address, gates, rate, stack))
        yield Workspaces(
            source=opened[0],
            target=opened[-1],
            source_gate=used[0],
            target_gate=used[-1],
            source_gateway=called[0] if called else None,
            target_gateway=called[-1] if called else None,
        )


async def _gateway(
    migration: Migration,
    end: Endpoint,
    name: str,
    registry: _Address,
    gates: dict[_Address, Gate],
    rate: float | None,
    stack: AsyncExitStack,
) -> Gateway:
    """Of this end; under the registry's own gate where host and key are the same."""
    key = end.gateway_key.get_secret_value() if end.gateway_key is not None else registry.keys[0]
    address = _Address(end.gateway_url or registry.base_url, (key,))
    if end.kind not in CONNECT_GATEWAY:
        raise ConfigError(f"kind {end.kind} has no gateway that renders or answers prompts: verify without that")
    connect = CONNECT_GATEWAY[end.kind](
        base_url=address.base_url,
        api_key=key,
        gate=gates.setdefault(address, _gate(migration, rate)),
        limits=_limits(migration),
        name=f"{name}'s gateway" if migration.target is not None else "gateway",
    )
    return await stack.enter_async_context(connect)


async def open_job(migration: Migration, ends: Workspaces, *, also: Collection[str] = ()) -> Job:
    """Asks both ends for what the rules need to know of them, and for `also`. The first requests are sent here."""
    select, rules = migration.selection(), migration.rules()
    kinds = kinds_needed(rules, same=ends.same).union(also)
    source = await catalog_of(ends.source, kinds)
    target = source if ends.same else await catalog_of(ends.target, kinds)
    limits = migration.limits
    return Job(
        migration=migration.name,
        registry=migration.source.identity,
        source=ends.source,
        target=ends.target,
        ends=Ends(same=ends.same, source=source, target=target, dialects=ends.target.can.dialects),
        select=select,
        rules=rules,
        allow_loss=frozenset(migration.allow_loss),
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


def _place(migration: Migration, end: Endpoint, address: _Address, gate: Gate, *, writes: bool) -> dict[str, Any]:
    """What its connector has to know of an end."""
    if end.path is not None:
        return {"path": end.path.path, "writes": writes}
    asked: dict[str, Any] = {"base_url": address.base_url, "gate": gate, "limits": _limits(migration)}
    if end.kind == "conductor":
        _, key_id, key_secret = address.keys
        return {**asked, "key_id": key_id, "key_secret": key_secret, "batch": migration.limits.batch}
    return {**asked, "api_key": address.keys[0], "workspace": end.workspace}


def _limits(migration: Migration) -> Limits:
    return Limits(timeout=migration.limits.timeout, attempts=migration.limits.attempts)


def _gate(migration: Migration, rate: float | None, known: Known | None = None) -> Gate:
    limits = migration.limits
    return Gate(
        rate=rate if rate is not None else limits.rate,
        reads=limits.reads,
        writes=limits.writes,
        share=limits.share,
        concurrency=limits.concurrency,
        known=known,
    )


def _address(end: Endpoint) -> _Address:
    return _Address(end.base_url, end.keys)


class _Sandbox:
    """The embedded stand-in, started when the first end asks for it; its store lies beside the ledger."""

    def __init__(self, ledger: Path, stack: AsyncExitStack) -> None:
        self._store = ledger.with_name(f"{ledger.name}.sandbox.sqlite")
        self._stack = stack
        self._served: Sandbox | None = None

    async def address(self, end: Endpoint) -> _Address:
        """`sandbox` is its first workspace, `sandbox:NAME` another one in the same store."""
        if self._served is None:
            self._served = await self._serve()
        _, _, workspace = end.base_url.partition(":")
        key = self._served.key(workspace) if workspace else self._served.api_key
        if end.kind == "conductor":
            return _Address(self._served.conductor_url, ("", end.keys[1] or SANDBOX_KEY_ID, end.keys[2] or key))
        return _Address(self._served.base_url, (end.keys[0] or key,))

    async def _serve(self) -> Sandbox:
        from engine.sandbox import SandboxOptions, serve  # a server that a real migration never needs

        options = SandboxOptions(store=self._store, prompts=SANDBOX_PROMPTS)
        try:
            self._store.parent.mkdir(parents=True, exist_ok=True)
            return await self._stack.enter_async_context(serve(options))
        except OSError as error:
            raise Stop(
                "disk",
                f"the embedded sandbox cannot be started: {error.strerror or error}",
                next="Make the folder of the ledger writable, or name another one with --ledger, and run it again.",
            ) from error
