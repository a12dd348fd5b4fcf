"""Producer -> ids queue -> fetch pool -> replicas queue -> post pool -> ledger. One direction; nothing flows back.

A stage ends the next one by one end marker for each of its workers. When the run is asked to end, workers go on
emptying their queue without doing anything, so that no stage before them hangs on a full one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import anyio

from engine import entries
from engine.decide import Decision, decide
from engine.digest import differences, make_replica, read_mark
from engine.errors import Gone, Rejected, Stop, Transient
from engine.flow import Flow, Ready, Trial
from engine.job import Draft, Job, prepare
from engine.log import log
from engine.model import Created, Failed, Prompt
from engine.post import READ_BACK_TRIES, finish, post, revise
from engine.survey import Task
from engine.tasks import task_group

BULKS: Final = 2
"""Bulks at once: one is being filled while another one is under way."""
GRACE_S: Final = 10.0
"""Seconds that requests in flight get after the run was asked to end."""


async def migrate(job: Job, flow: Flow, tasks: Sequence[Task], *, first_alone: bool = True, canary: int = 0) -> None:
    """Creates the replicas of these tasks; every outcome is in the ledger when it returns.

    `canary`: so many first, read back whole; the run ends when one of them is not as it should be.
    """
    trial = Trial(over=not first_alone)
    if canary:
        await _all(job, flow, tasks[:canary], trial)
        if flow.halt.stop is None:
            await _until_stopped(flow, partial(_judge_canaries, job, flow, tasks[:canary]))
    await _all(job, flow, tasks[canary:], trial)


async def _all(job: Job, flow: Flow, tasks: Sequence[Task], trial: Trial) -> None:
    if tasks and flow.halt.stop is None:
        await _until_stopped(flow, partial(_pools, job, flow, tasks, trial))


async def _judge_canaries(job: Job, flow: Flow, tasks: Sequence[Task]) -> list[Task]:
    """Raises Stop unless each of them was created and is, read back, what the rules make of its source."""
    wrong: list[str] = []
    for task in tasks:
        record = flow.state.records.get(task.row.id)
        if record is None or record.target_id is None:
            wrong.append(f"{task.row.name}: {record.status if record is not None else 'not created'}")
        elif fields := await _differences(job, flow, task, record.target_id):
            wrong.append(f"{task.row.name}: {', '.join(fields)}")
    if wrong:
        raise Stop(
            "canary",
            f"{len(wrong)} of {len(tasks)} canaries are not as they should be: {'; '.join(wrong)}",
            next="Look at these replicas; mend the migration file or the registry, then run it again.",
        )
    return []


async def _differences(job: Job, flow: Flow, task: Task, target_id: str) -> Sequence[str]:
    """The fields in which a replica differs from what the rules make of its source now."""
    found = await _read_back(job, flow, target_id)
    if found is None:
        return ["cannot be read back"]
    try:
        prepared = prepare(job, await job.source.fetch(task.row.id, job.select.version), name=task.name)
    except (Rejected, Transient):
        return ["its source cannot be read any more"]
    if isinstance(prepared, Failed):
        return [prepared.message]
    return differences(prepared.replica.prompt, found)


async def _until_stopped(flow: Flow, work: Callable[[], Awaitable[list[Task]]]) -> list[Task] | None:
    """Runs a stage; GRACE_S after the run was asked to end, what is still in flight is dropped and stays an intent."""
    result: list[Task] | None = None

    async def grace(scope: anyio.CancelScope) -> None:
        await flow.halt.wait()
        await anyio.sleep(GRACE_S)
        scope.cancel()

    async with task_group() as group:
        group.start_soon(grace, group.cancel_scope)
        try:
            result = await work()
        except Stop as stop:
            flow.halt.request(stop)
        group.cancel_scope.cancel()
    return result


async def _try_first(job: Job, flow: Flow, ready: Ready) -> bool:
    """Sends it while nothing else is written, reads it back, and learns where its mark survives. False: it was not
    made.
    """
    if ready.draft.revision is not None:
        await revise(job, flow, ready)
        return True
    outcomes = await post(job, flow, [ready])
    if not outcomes or not isinstance(outcomes[0], Created):
        return False
    await _learn(job, flow, ready.draft, outcomes[0].target_id)
    return True


async def _learn(job: Job, flow: Flow, draft: Draft, target_id: str) -> None:
    """Reads the first replica back whole. What the registry did to it is said; it does not stop the run."""
    found = await _read_back(job, flow, target_id)
    if found is None:
        log.warning("replica.not_readable", target_id=target_id)
        return
    if (mark := read_mark(found.metadata, None)) is None or mark.key != draft.replica.mark.key:
        flow.mark_in = "description"
        log.warning("mark.moved", reason="the registry does not keep it in the metadata", to="version description")
        await _mark_again(job, draft, target_id)
    if fields := differences(draft.replica.prompt, found):
        log.warning("replica.differs", target_id=target_id, fields=list(fields))


async def _mark_again(job: Job, draft: Draft, target_id: str) -> None:
    """Gives the first replica the mark that all later ones carry, so that a lost ledger does not lose it."""
    marked = make_replica(
        draft.replica.source,
        draft.rewritten.prompt,
        migration=job.migration,
        registry=job.registry,
        mark_in="description",
    )
    try:
        await job.target.describe(target_id, marked.prompt.description or "")
    except (Rejected, Transient) as error:
        log.warning("replica.not_marked", target_id=target_id, message=str(error))


async def _read_back(job: Job, flow: Flow, target_id: str) -> Prompt | None:
    """The replica, polled for some seconds because reads may be stale; None when it does not appear."""
    for attempt in range(READ_BACK_TRIES):
        try:
            return await job.target.fetch(target_id)
        except Gone:
            await flow.halt.pause(0.1 * 2**attempt)
        except (Rejected, Transient) as error:
            log.warning("replica.not_readable", target_id=target_id, message=str(error))
            return None
    return None


async def _pools(job: Job, flow: Flow, tasks: Sequence[Task], trial: Trial) -> list[Task]:
    ids: asyncio.Queue[Task | None] = asyncio.Queue(job.concurrency)
    ready: asyncio.Queue[Ready | None] = asyncio.Queue(job.concurrency)
    # no more workers than may be in flight: whoever waits for a place costs time and sends nothing
    workers = min((job.concurrency + 1) // 2, len(tasks))
    posters = workers if job.target.batch == 1 else min(workers, BULKS)
    async with task_group() as group:
        group.start_soon(_produce, flow, tasks, ids, workers)
        group.start_soon(_fetch_pool, job, flow, ids, ready, workers, posters, trial)
        for _ in range(posters):
            group.start_soon(_post_worker, job, flow, ready, trial)
    return []


async def _produce(flow: Flow, tasks: Sequence[Task], ids: asyncio.Queue[Task | None], workers: int) -> None:
    for task in tasks:
        if flow.halt.stop is not None:
            break
        await ids.put(task)
    for _ in range(workers):
        await ids.put(None)


async def _fetch_pool(
    job: Job,
    flow: Flow,
    ids: asyncio.Queue[Task | None],
    ready: asyncio.Queue[Ready | None],
    workers: int,
    posters: int,
    trial: Trial,
) -> None:
    async with task_group() as group:
        for _ in range(workers):
            group.start_soon(_fetch_worker, job, flow, ids, ready, trial)
    for _ in range(posters):
        await ready.put(None)


async def _fetch_worker(
    job: Job, flow: Flow, ids: asyncio.Queue[Task | None], ready: asyncio.Queue[Ready | None], trial: Trial
) -> None:
    while (task := await ids.get()) is not None:
        if flow.halt.stop is not None:
            continue
        try:
            if (prepared := await _fetch(job, flow, task)) is not None:
                if prepared.draft.revision is not None and job.target.batch > 1:
                    # one by one: nothing that fills a bulk has to wait for it
                    await _after_trial(job, flow, prepared, trial)
                    continue
                while job.target.batch == 1 and ready.full() and (first := ready.get_nowait()) is not None:
                    await _post_next(job, flow, ready, first, trial)  # writes take longer than reads: lend a hand
                await ready.put(prepared)
        except Stop as stop:
            flow.halt.request(stop)


async def _post_worker(job: Job, flow: Flow, ready: asyncio.Queue[Ready | None], trial: Trial) -> None:
    while (first := await ready.get()) is not None:
        await _post_next(job, flow, ready, first, trial)


async def _tried(job: Job, flow: Flow, first: Ready, trial: Trial) -> bool:
    """Whether it was the first create of the run, and has been sent."""
    if trial.over:
        return False
    async with trial.turn:
        if trial.over or flow.halt.stop is not None:
            return False
        try:
            trial.over = await _try_first(job, flow, first)
        except Stop as stop:
            flow.halt.request(stop)
    return True


async def _after_trial(job: Job, flow: Flow, update: Ready, trial: Trial) -> None:
    if not await _tried(job, flow, update, trial) and flow.halt.stop is None:
        await revise(job, flow, update)


async def _marked(job: Job, flow: Flow, batch: Sequence[Ready]) -> list[Ready]:
    """The same with their marks where these survive: the first create may have told it after they were prepared."""
    again = [one if one.mark_in == flow.mark_in else await _fetch(job, flow, one.task) for one in batch]
    return [one for one in again if one is not None]


async def _post_next(job: Job, flow: Flow, ready: asyncio.Queue[Ready | None], first: Ready, trial: Trial) -> None:
    """Sends as much as the target takes in one call; waits for it, for a bulk of one costs as much as a full one."""
    if await _tried(job, flow, first, trial):
        return
    batch = [first]
    while len(batch) < job.target.batch:
        item = await ready.get()
        if item is None:
            ready.put_nowait(item)  # the end of a worker, not of this one's batch
            break
        batch.append(item)
    if flow.halt.stop is None:
        try:
            batch = await _marked(job, flow, batch)
            if creates := [one for one in batch if one.draft.revision is None]:
                await post(job, flow, creates)
            for update in batch:
                if update.draft.revision is not None:
                    await revise(job, flow, update)
        except Stop as stop:
            flow.halt.request(stop)


async def _fetch(job: Job, flow: Flow, task: Task) -> Ready | None:
    """Reads what decides and prepares what is sent; None when nothing is, and the ledger says why."""
    record = flow.state.records.get(task.row.id)
    mark_in = flow.mark_in
    decision = await decide(job, task, record, now=flow.clock(), mark_in=mark_in)
    whose = entries.origin(task.row, job.ends.source.collections)
    if decision.action == "replica":
        flow.replicas.add(task.row.id)  # a replica of ours that has been renamed, and that no ledger knows
    elif decision.action == "finish":
        await finish(job, flow, task, whose)
    elif decision.draft is not None:
        return Ready(task, whose, decision.draft, decision.pending, mark_in)
    elif decision.entry is not None and not _never_sent(flow, decision):
        await flow.record(decision.entry)
    return None


def _never_sent(flow: Flow, decision: Decision) -> bool:
    """The run was asked to end before its definition was read: the prompt is as it was."""
    return flow.halt.stop is not None and decision.failure is not None and decision.failure.error == "not_sent"
