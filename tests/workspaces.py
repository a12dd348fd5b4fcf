"""Workspaces in memory that fail where they are told to, and one whole run over them as the application makes it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from engine.connectors.memory import Memory
from engine.content.references import Ends
from engine.errors import Stop
from engine.ledger.before_images import BeforeImages
from engine.ledger.sink import Sink
from engine.migrate.context import Context, MaxFailures
from engine.migrate.halt import Halt
from engine.migrate.job import Job
from engine.migrate.limit import in_turn
from engine.migrate.pipeline import migrate
from engine.migrate.reconcile import reconcile, settle, writes_of
from engine.migrate.survey import Survey, survey
from engine.migrate.task import packed_tasks
from engine.model import (
    Catalog,
    Created,
    Entry,
    Finding,
    Named,
    Outcome,
    Page,
    Parts,
    Prompt,
    Replica,
    Rule,
    Select,
    Sending,
    Target,
    Version,
)

SETTLE = 0.02
MIGRATION = "m"
REGISTRY = "memory here"
CATALOG = Catalog(
    collections=(Named(id="c1", slug="support", name="Support"), Named(id="c2", slug="sales", name="Sales")),
    providers=(Named(id="v1", slug="anthropic-prod", name="Anthropic"),),
    partials=(),
)

OnFetch = Callable[[str], Awaitable[None]]
Put = Callable[[], Awaitable[Outcome]]
OnCreate = Callable[[Prompt, Put, Sending], Awaitable[Outcome]]
OnUpdate = Callable[[str, Put, Sending], Awaitable[Outcome]]


def prompt(prompt_id: str, name: str | None = None, **fields: Any) -> Prompt:
    """A prompt with a template; its name is its id unless said."""
    known: dict[str, Any] = {
        "text": f"Hello {{{{name}}}}, this is {prompt_id}",
        "model": "claude-3-7",
        "collection": "c1",
        "updated_at": "2026-01-01T00:00:00.000Z",
    }
    return Prompt(**known | {"id": prompt_id, "name": name or prompt_id} | fields)


def memory(*prompts: Prompt) -> Memory:
    return Memory(prompts, CATALOG)


class Wrapped:
    """A workspace around another one. `on_fetch` may raise; `on_create` decides what becomes of a create, and may
    `put` it there; ids in `late` are left out of listings until that time."""

    can = Memory.can
    parts: Parts | None = None
    batch = 1
    fields: Collection[str] = Memory.fields

    def __init__(
        self,
        inner: Memory,
        *,
        on_fetch: OnFetch | None = None,
        on_create: OnCreate | None = None,
        on_update: OnUpdate | None = None,
    ) -> None:
        self.inner = inner
        self.on_update = on_update
        self.on_fetch = on_fetch
        self.on_create = on_create
        self.late: dict[str, float] = {}
        self.clock: Callable[[], float] = time.time
        self.listings = 0
        self.fetched: list[str] = []
        self._replicas: dict[bytes, Prompt] = {}

    async def pages(self) -> AsyncIterator[Page]:
        self.listings += 1
        now = self.clock()
        rows = [row async for page in self.inner.pages() for row in page.rows if self.late.get(row.id, 0) <= now]
        yield Page(rows=rows, total=len(rows))

    async def fetch(self, prompt_id: str, version: str = "published") -> Prompt:
        self.fetched.append(prompt_id)
        if self.on_fetch is not None:
            await self.on_fetch(prompt_id)
        return await self.inner.fetch(prompt_id, version)

    async def catalog(self, kinds: Collection[str]) -> Catalog:
        return await self.inner.catalog(kinds)

    def encode(self, replica: Replica) -> bytes:
        body = self.inner.encode(replica)
        self._replicas[body] = replica.prompt
        return body

    async def named(self, names: Collection[str]) -> Mapping[str, Prompt | None]:
        return await self.inner.named(names)

    async def complete(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        return await self.inner.complete(target_id, body, sending)

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        put = partial(self._put, bodies, sending)
        if self.on_create is None:
            return [await put()]
        return [await self.on_create(self._replicas[bodies[0]], put, sending)]

    async def versions(self, prompt_id: str) -> list[Version]:
        return await self.inner.versions(prompt_id)

    def encode_update(self, replica: Replica, changed: Collection[str] | None) -> bytes:
        return self.inner.encode_update(replica, changed)

    async def update(self, target_id: str, body: bytes, sending: Sending) -> Outcome:
        if self.on_update is None:
            return await self.inner.update(target_id, body, sending)
        return await self.on_update(target_id, partial(self.inner.update, target_id, body, sending), sending)

    async def publish(self, target_id: str, version: str) -> None:
        await self.inner.publish(target_id, version)

    async def retract(self, target_id: str, version: str) -> None:
        await self.inner.retract(target_id, version)

    async def label(self, target_id: str, version_id: str, label_id: str) -> None:
        await self.inner.label(target_id, version_id, label_id)

    async def create_label(self, name: str) -> str:
        return await self.inner.create_label(name)

    async def describe(self, target_id: str, description: str) -> None:
        await self.inner.describe(target_id, description)

    async def delete(self, target_id: str) -> None:
        await self.inner.delete(target_id)

    def write_test(self, collection: str | None) -> AsyncIterator[Finding]:
        return self.inner.write_test(collection)

    async def _put(self, bodies: Sequence[bytes], sending: Sending) -> Outcome:
        (outcome,) = await self.inner.create(bodies, sending)
        return outcome


class Forgetful(Memory):
    """A registry that keeps no metadata it does not know: marks go to the description, without digests."""

    async def create(self, bodies: Sequence[bytes], sending: Sending) -> list[Outcome]:
        outcomes = await super().create(bodies, sending)
        for outcome in outcomes:
            if isinstance(outcome, Created):
                self.prompts[outcome.target_id] = replace(self.prompts[outcome.target_id], metadata={})
        return outcomes


def job_of(source: Target, target: Target | None = None, **fields: Any) -> Job:
    """A migration in one workspace, or between two; every prompt becomes `NAME-replica` unless `fields` say more."""
    known: dict[str, Any] = {
        "migration": MIGRATION,
        "registry": REGISTRY,
        "source": source,
        "target": target or source,
        "ends": Ends(same=target is None, source=CATALOG, target=CATALOG),
        "select": Select(),
        "rules": (Rule(name="{name}-replica"),),
        "allow_loss": frozenset(),
        "on_existing": "fail",
        "settle": SETTLE,
        "concurrency": 4,
        "attempts": 5,
    }
    return Job(**known | fields)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run left behind."""

    survey: Survey
    context: Context

    @property
    def stop(self) -> Stop | None:
        return self.context.halt.stop

    def status(self, source_id: str) -> str | None:
        record = self.context.state.records.get(source_id)
        return record.status if record is not None else None

    @property
    def statuses(self) -> dict[str, str]:
        return {source_id: record.status for source_id, record in self.context.state.records.items()}


async def run(
    job: Job,
    ledger: Path,
    *,
    limit: int | None = None,
    max_failures: MaxFailures | None = None,
    retry_failed: bool = False,
    canary: int = 0,
    halt: Halt | None = None,
    clock: Callable[[], float] = time.time,
) -> Ran:
    """Survey, pipeline, reconciler over one ledger; what stops them is in the result."""
    sink = Sink.open(ledger, run="run", clock=clock)
    sink.run = f"run-{sink.state.runs + 1}"
    try:
        async with sink:
            found = await survey(job, sink.state, now=clock(), retry_failed=retry_failed)
            copies = BeforeImages(ledger, run=sink.run)
            context = Context(sink=sink, halt=halt or Halt(), clock=clock, copies=copies, max_failures=max_failures)
            await context.record(Entry("run", {"migration": job.migration, "identity": {}}), *found.moved)
            tasks = packed_tasks(one for task in found.tasks for one in writes_of(task))
            tasks = tasks if limit is None else in_turn(tasks, sink.state.records)
            waiting = [task for task in found.tasks if task.action == "wait"]
            try:
                await settle(job, context, found.tasks)
                beyond = await migrate(job, context, tasks, canary=canary, limit=limit)
                left = {task.row.id for task in beyond.take(len(beyond))} if context.halt.stop is None else ()
                await reconcile(job, context, [one.row for one in (*waiting, *tasks) if one.row.id not in left])
            except Stop as stop:
                context.halt.request(stop)
            return Ran(found, context)
    finally:
        sink.close()


def names(workspace: Memory) -> list[str]:
    """The names of all prompts there, as often as they are there."""
    return sorted(one.name for one in workspace.prompts.values())


def renamed(workspace: Memory, prompt_id: str, name: str) -> None:
    workspace.prompts[prompt_id] = replace(workspace.prompts[prompt_id], name=name)
