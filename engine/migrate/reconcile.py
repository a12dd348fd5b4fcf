"""Settles what was sent and never answered: asks the registry before anyone posts again.

A create in doubt is looked up by name and key when the settle time is over, and once more after another one, because a
slow request may still land and a listing may be late. Only then is it sent again, by the post pool's own function.
One listing serves all that wait.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from engine.log import log
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.job import Job
from engine.migrate.listing import rows_of
from engine.migrate.pipeline import migrate
from engine.migrate.survey import judge
from engine.migrate.task import Adoption, Task
from engine.migrate.trial import finish_in_turn
from engine.model import Entry, Row
from engine.taskgroup import for_each


async def reconcile(job: Job, context: Context, rows: Iterable[Row]) -> None:
    """Until none of these rows is in doubt, the attempts are used up, or the run is asked to end."""
    doubtful = [] if context.halt.stop is not None else _in_doubt(context, rows)
    for _ in range(2 * job.attempts):
        doubtful = _in_doubt(context, doubtful)
        if not doubtful or context.halt.stop is not None:
            return
        context.looking_up = True
        await context.halt.pause(_due(job, context, doubtful) - context.clock())
        if context.halt.stop is not None:
            return
        now = context.clock()  # before the listing: what landed while it was read is not in it
        target_rows, _ = await context.halt.guard(rows_of(job.target))
        rivals = {row.id for row in job.rivals}
        judged = judge(job, context.state, [*job.rivals, *doubtful], target_rows, now=now, rivals=rivals)
        tasks, _ = await context.halt.guard(judged)
        await settle(job, context, tasks)
        again = [one for task in tasks for one in writes_of(task)]
        if again:
            await migrate(job, context, again)


async def settle(job: Job, context: Context, tasks: Iterable[Task], *, completes: bool = True) -> None:
    """Records what a judgement found without sending anything: adopted, in conflict, unread, to be left alone. Then
    brings what adopted replicas are short of, where it `completes` them.
    """
    short: list[Task] = []
    for task in tasks:
        if task.note:
            log.warning("prompt.note", source_id=task.row.id, note=task.note)
        origin = entries.origin_of(task.row, job.ends.source.collections)
        if task.adopt is not None:
            await context.record(taken_over(job, task, task.adopt, context.clock()))
            if completes and is_short(job, task):
                short.append(task)
        elif task.action == "conflict":
            op = entries.UPDATE if job.in_place else {}
            await context.record(entries.conflict(origin, task.reason or "exists", task.target_id, **op))
        elif task.action == "skip":
            await context.record(entries.skipped(origin, task.reason or "exists"))
        elif task.action == "unread" and task.failure is not None:
            record = context.state.records.get(task.row.id)
            op = entries.UPDATE if job.in_place or (record is not None and record.made) else {}
            seen = entries.seen(task.row.updated_at, None, context.clock())
            await context.record(entries.failed(origin, "fetch", task.failure, seen, **op))

    async def complete(task: Task) -> None:
        await finish_in_turn(job, context, task, entries.origin_of(task.row, job.ends.source.collections))

    await for_each(short, complete, limit=job.concurrency)


def writes_of(task: Task) -> Iterator[Task]:
    """What may come to a write of it; of what is taken over, once it was."""
    if task.action in ("create", "update"):
        yield task
    elif task.adopt is not None and task.adopt.then is not None:
        yield task.adopt.then


def taken_over(job: Job, task: Task, adopt: Adoption, now: float) -> Entry:
    """What is recorded of a replica of ours that was found."""
    origin = entries.origin_of(task.row, job.ends.source.collections)
    found, pending = adopt.match, is_short(job, task)
    return entries.adopted(origin, task.row, adopt.source, found.row, found.mark, now=now, pending=pending)


def is_short(job: Job, task: Task) -> bool:
    """Whether it adopts a replica that may lack labels or versions, which are then brought."""
    return task.adopt is not None and (job.select.version == "all" or task.adopt.labelled or job.puts_out)


def _in_doubt(context: Context, rows: Iterable[Row]) -> list[Row]:
    """Those of these rows that are; mostly none is, and then nobody goes through a whole library for them."""
    doubtful = {source_id for source_id, record in context.state.records.whole_items() if record.doubtful}
    return [row for row in rows if row.id in doubtful] if doubtful else []


def _due(job: Job, context: Context, rows: Sequence[Row]) -> float:
    """When all of them may be looked up."""
    records = [context.state.records[row.id] for row in rows]
    waiting = [record for record in records if not (record.status == "unknown" and record.reason == entries.EXISTS)]
    return look_up_at([record.since for record in waiting], job.settle, context.clock())


def look_up_at(sent: Collection[float], settle: float, now: float) -> float:
    """When all that was sent at these times may be looked up: one settle time after the last, then another one."""
    first = max((one + settle for one in sent), default=now)
    return first if now < first else max((one + 2 * settle for one in sent), default=now)
