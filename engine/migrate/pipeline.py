"""Producer -> ids queue -> fetch pool -> replicas queue -> post pool -> ledger. One direction; nothing flows back.

A stage ends the next one by one end marker for each of its workers. When the run is asked to end, workers go on
emptying their queue without doing anything, so that no stage before them hangs on a full one. Whoever writes takes its
turn (`trial`): while the first write goes alone, the others wait with what they have in hand, and reading goes on until
the replicas queue is full.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import anyio

from engine.errors import Stop
from engine.migrate import entries
from engine.migrate.context import Context, Elsewhere
from engine.migrate.decide import Decision, decide
from engine.migrate.job import Job
from engine.migrate.limit import is_compared
from engine.migrate.post import post, revise
from engine.migrate.task import Ready, Rest, Task, packed_tasks
from engine.migrate.trial import IDLE, Canaries, as_marked, finish_in_turn, judge_canaries, write_alone
from engine.taskgroup import task_group

BULKS: Final = 2
"""Bulks at once: one is being filled while another one is under way."""
GRACE_S: Final = 10.0
"""Seconds that requests in flight get after the run was asked to end."""
WITHOUT_WRITE: Final = (*IDLE, "failed", "conflict")
"""Decisions after which nothing is sent."""


async def migrate(
    job: Job, context: Context, tasks: Sequence[Task], *, canary: int = 0, limit: int | None = None
) -> Rest:
    """Creates the replicas of these tasks; every outcome is in the ledger when it returns.

    `canary`: so many that need something first, read back whole; the run ends when one of them is not as it should be.
    `limit`: so many that need something at most, of tasks in turn (`limit.in_turn`). Returns what is beyond it.
    """
    rest = Rest(tasks)
    if canary:
        canaries = Canaries(canary if limit is None else min(canary, limit))
        await _all(job, context, rest, canaries)
        if context.halt.stop is None:
            await until_stopped(context, partial(judge_canaries, job, context, canaries.taken))
        rest.put_back(canaries.left)
        limit = None if limit is None else limit - len(canaries.taken)
    if limit is None:
        await _anywhere(job, context, rest)
        return rest
    while rest and limit and context.halt.stop is None:
        limit -= await _some(job, context, rest, limit)
    return rest


async def _some(job: Job, context: Context, rest: Rest, limit: int) -> int:
    """The next ones: all that are to be compared, until so many need something, or so many of the others. How many did
    need something.
    """
    records = context.state.records
    if compared := rest.take(len(rest), lambda task: is_compared(task, records.get(task.row.id))):
        part, found = Rest(compared), Canaries(limit)
        await _all(job, context, part, found)
        rest.put_back([*found.left, *part.take(len(part))])
        return len(found.taken)
    idle = context.idle
    some = rest.take(limit, lambda task: not is_compared(task, records.get(task.row.id)))
    await _anywhere(job, context, Rest(some))
    return len(some) - (context.idle - idle)


async def _anywhere(job: Job, context: Context, rest: Rest) -> None:
    if context.elsewhere is not None:
        rest = await _elsewhere(job, context, rest, context.elsewhere)
    await _all(job, context, rest)


async def _elsewhere(job: Job, context: Context, rest: Rest, elsewhere: Elsewhere) -> Rest:
    """Creates go to other processes once one was read back here. The rest, for this one: an update keeps a copy of what
    was there before beside the ledger.
    """
    creates, others = packed_tasks(), packed_tasks()
    while rest:
        task = rest.pop()
        (creates if task.action == "create" else others).append(task)
    rest = Rest(creates)
    while rest and context.halt.stop is None and not context.first.over(create=True):
        first = Canaries(1, idle=WITHOUT_WRITE)
        await _all(job, context, rest, first)
        rest.put_back(first.left)
    if rest and context.halt.stop is None:
        await until_stopped(context, partial(elsewhere, job, context, rest))
    return Rest(others)


async def _all(job: Job, context: Context, rest: Rest, canaries: Canaries | None = None) -> None:
    if rest and context.halt.stop is None:
        await until_stopped(context, partial(run_pools, job, context, rest, canaries))


async def until_stopped(context: Context, work: Callable[[], Awaitable[None]], *, seconds: float = GRACE_S) -> None:
    """Runs a stage; so long after the run was asked to end, what is still in flight is dropped and stays an intent."""

    async def grace(scope: anyio.CancelScope) -> None:
        await context.halt.wait()
        await anyio.sleep(seconds)
        scope.cancel()

    async with task_group() as group:
        group.start_soon(grace, group.cancel_scope)
        try:
            await work()
        except Stop as stop:
            context.halt.request(stop)
        group.cancel_scope.cancel()


async def _write(job: Job, context: Context, batch: Sequence[Ready]) -> None:
    """Creates in one call, updates one by one; nothing when the run was asked to end."""
    if context.halt.stop is not None:
        return
    batch = await as_marked(job, context, batch)
    if creates := [one for one in batch if one.prepared.revision is None]:
        await post(job, context, creates)
    for update in batch:
        if update.prepared.revision is not None:
            await revise(job, context, update)


async def run_pools(job: Job, context: Context, rest: Rest, canaries: Canaries | None = None) -> None:
    """The stages over these tasks. Every outcome is in the ledger when it returns."""
    # no more workers than may be in flight: whoever waits for a place costs time and sends nothing
    workers = min((job.concurrency + 1) // 2, len(rest))
    posters = workers if job.target.batch == 1 else min(workers, BULKS)
    await _Pools(job, context, rest, canaries).run(workers, posters)


class _Pools:
    """The stages over these tasks, or over the canaries among them: what was not taken up stays in `rest`."""

    def __init__(self, job: Job, context: Context, rest: Rest, canaries: Canaries | None) -> None:
        self.job, self.context, self.rest, self.canaries = job, context, rest, canaries
        self.ids: asyncio.Queue[Task | None] = asyncio.Queue(job.concurrency)
        self.ready: asyncio.Queue[Ready | None] = asyncio.Queue(job.concurrency)

    async def run(self, workers: int, posters: int) -> None:
        async with task_group() as group:
            group.start_soon(self._produce, workers)
            group.start_soon(self._fetch_pool, workers, posters)
            for _ in range(posters):
                group.start_soon(self._post_worker)

    async def _produce(self, workers: int) -> None:
        while self.rest and self.context.halt.stop is None and not (self.canaries and self.canaries.full):
            await self.ids.put(self.rest.pop())
        for _ in range(workers):
            await self.ids.put(None)

    async def _fetch_pool(self, workers: int, posters: int) -> None:
        async with task_group() as group:
            for _ in range(workers):
                group.start_soon(self._fetch_worker)
        for _ in range(posters):
            await self.ready.put(None)

    async def _fetch_worker(self) -> None:
        while (task := await self.ids.get()) is not None:
            if self.context.halt.stop is not None:
                continue
            try:
                if (ready := await self._fetch(task)) is not None:
                    await self._hand_over(ready)
            except Stop as stop:
                self.context.halt.request(stop)

    async def _hand_over(self, ready: Ready) -> None:
        if self.job.target.batch > 1 and ready.prepared.revision is not None:
            if not await write_alone(self.job, self.context, ready):
                await _write(self.job, self.context, [ready])  # one by one: nothing that fills a bulk waits for it
            return
        while self.job.target.batch == 1 and self.ready.full() and (first := self.ready.get_nowait()) is not None:
            await self._post_next(first)  # writes take longer than reads: lend them a hand
        await self.ready.put(ready)

    async def _post_worker(self) -> None:
        while (first := await self.ready.get()) is not None:
            await self._post_next(first)

    async def _post_next(self, first: Ready) -> None:
        try:
            if not await write_alone(self.job, self.context, first):
                await _write(self.job, self.context, await self._filled(first))
        except Stop as stop:
            self.context.halt.request(stop)

    async def _filled(self, first: Ready) -> list[Ready]:
        """As much as the target takes in one call; waits for it, for a bulk of one costs as much as a full one."""
        batch = [first]
        while len(batch) < self.job.target.batch:
            item = await self.ready.get()
            if item is None:
                self.ready.put_nowait(item)  # the end of a worker, not of this one's batch
                break
            batch.append(item)
        return batch

    async def _fetch(self, task: Task) -> Ready | None:
        """Reads what decides and prepares what is sent; None when nothing is, and the ledger says why."""
        job, context, canaries = self.job, self.context, self.canaries
        if canaries is not None and canaries.full:
            canaries.left.append(task)
            return None
        record = context.state.records.get(task.row.id)
        decision = await decide(job, task, record, now=context.clock(), mark_in=context.mark_in)
        if canaries is not None and decision.action not in canaries.idle and not canaries.take(task):
            return None
        origin = entries.origin_of(task.row, job.ends.source.collections)
        if decision.action == "replica":
            context.replicas.add(task.row.id)  # a replica of ours that has been renamed, and that no ledger knows
        elif decision.action == "finish":
            await finish_in_turn(job, context, task, origin)
        elif decision.prepared is not None:
            return Ready(task, origin, decision.prepared, decision.pending)
        elif decision.entry is not None and not _never_sent(context, decision):
            await context.record(decision.entry)
        return None


def _never_sent(context: Context, decision: Decision) -> bool:
    """The run was asked to end before its definition was read: the prompt is as it was."""
    return context.halt.stop is not None and decision.failure is not None and decision.failure.error == "not_sent"
