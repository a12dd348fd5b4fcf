"""What is tried before many are under way: the first write of a run, and the canaries that `--canary` asks for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from engine.content.digest import differences, digest, make_replica, read_mark
from engine.errors import Gone, Rejected, Stop, Transient
from engine.ledger.state import Record
from engine.log import log
from engine.migrate import entries
from engine.migrate.context import Context
from engine.migrate.history import finish
from engine.migrate.job import Job, prepare
from engine.migrate.post import post, revise
from engine.migrate.send import READ_BACK_TRIES, seen_source
from engine.migrate.task import Prepared, Ready, Task, packed_tasks
from engine.model import Created, Failed, Json, Prompt
from engine.model.packed import PackedList
from engine.taskgroup import for_each

# ---- the first write -------------------------------------------------------------------------------------------------


async def write_alone(job: Job, context: Context, ready: Ready) -> bool:
    """Sends it alone as long as the first write of its kind is to be made; False: it may go with the others.

    Whoever comes meanwhile waits here. What a create was made into is read back before the next one leaves; after a
    write that failed the next one is alone again.
    """
    create = ready.prepared.revision is None
    if context.first.over(create=create):
        return False
    async with context.first.turn(create=create) as alone:
        if alone and context.halt.stop is None:
            await (_create_first(job, context, ready) if create else _revise_first(job, context, ready))
        return alone


async def _create_first(job: Job, context: Context, ready: Ready) -> None:
    for marked in await as_marked(job, context, [ready]):
        outcomes = await post(job, context, [marked])
        if outcomes and isinstance(outcomes[0], Created):
            context.first.arrived = True
            await _learn(job, context, marked.prepared, outcomes[0].target_id)
            context.first.read_back = True


async def _revise_first(job: Job, context: Context, ready: Ready) -> None:
    for marked in await as_marked(job, context, [ready]):
        await revise(job, context, marked)
        context.first.arrived = context.first.arrived or _arrived(context, marked.task)


async def finish_in_turn(job: Job, context: Context, task: Task, origin: Mapping[str, Json]) -> None:
    """Brings what a replica is short of; like every write not beside the first one."""
    async with context.first.turn(create=False):
        if context.halt.stop is None:
            await finish(job, context, task, origin)
            context.first.arrived = context.first.arrived or _arrived(context, task)


def _arrived(context: Context, task: Task) -> bool:
    record = context.state.records.get(task.row.id)
    return record is not None and record.status in ("created", "updated") and not record.rare.pending


async def as_marked(job: Job, context: Context, batch: Sequence[Ready]) -> Sequence[Ready]:
    """The same, with their marks where the first create has shown that they survive: most were read before that. What
    cannot be written so is recorded and left out.
    """
    if context.mark_in == "metadata":
        return batch
    marked = []
    for ready in batch:
        prepared = _marked(job, context, ready)
        if isinstance(prepared, Failed):
            op = {} if ready.prepared.revision is None else entries.UPDATE
            await context.record(
                entries.failed(ready.origin, "rewrite", prepared, seen_source(job, context, ready), **op)
            )
        else:
            marked.append(ready if prepared is ready.prepared else replace(ready, prepared=prepared))
    return marked


def _marked(job: Job, context: Context, ready: Ready) -> Prepared | Failed:
    prepared = ready.prepared
    if read_mark(prepared.replica.prompt.metadata, None) is None:
        return prepared
    again = prepare(job, prepared.replica.source, name=prepared.replica.prompt.name, mark_in=context.mark_in)
    if isinstance(again, Failed) or prepared.revision is None:
        return again
    try:
        return again.revising(prepared.revision, job.target)
    except Rejected as error:
        return Failed(error=error.error, message=str(error))


async def _learn(job: Job, context: Context, prepared: Prepared, target_id: str) -> None:
    """Reads the first replica back whole. What the registry did to it is said; it does not stop the run."""
    found = await _read_back(job, context, target_id)
    if found is None:
        log.warning("replica.not_readable", target_id=target_id)
        return
    if (mark := read_mark(found.metadata, None)) is None or mark.key != prepared.replica.mark.key:
        await _move_mark(job, context, prepared, target_id)
    if fields := differences(prepared.replica.prompt, found):
        log.warning("replica.differs", target_id=target_id, fields=list(fields))


async def _move_mark(job: Job, context: Context, prepared: Prepared, target_id: str) -> None:
    """From now on marks stand in the description, where the target has one for them."""
    kept = job.target.can.marks[0]
    if "description" not in job.target.can.marks:
        log.warning("mark.lost", reason=f"the registry does not keep it in the {kept}, and there is no other place")
        return
    context.mark_in = "description"
    log.warning("mark.moved", reason=f"the registry does not keep it in the {kept}", to="version description")
    await _mark_again(job, prepared, target_id)


async def _mark_again(job: Job, prepared: Prepared, target_id: str) -> None:
    """Gives the first replica the mark that all later ones carry, so that a lost ledger does not lose it."""
    marked = make_replica(
        prepared.replica.source,
        prepared.rewritten.prompt,
        migration=job.migration,
        registry=job.registry,
        mark_in="description",
    )
    try:
        await job.target.describe(target_id, marked.prompt.description or "")
    except (Rejected, Transient) as error:
        log.warning("replica.not_marked", target_id=target_id, message=str(error))


async def _read_back(job: Job, context: Context, target_id: str, version: str = "published") -> Prompt | None:
    """The replica, polled for some seconds because reads may be stale; None when it does not appear."""
    for attempt in range(READ_BACK_TRIES):
        try:
            return await job.target.fetch(target_id, version)
        except Gone:
            await context.halt.pause(0.1 * 2**attempt)
        except (Rejected, Transient) as error:
            log.warning("replica.not_readable", target_id=target_id, message=str(error))
            return None
    return None


# ---- canaries --------------------------------------------------------------------------------------------------------


IDLE: Final = ("unchanged", "skip", "replica")
"""Decisions after which a prompt was no canary."""


@dataclass(frozen=True, slots=True)
class Canaries:
    """The first `wanted` prompts that need something, and those that were read beyond them: their turn comes later.
    `idle`: decisions after which a prompt needs nothing.
    """

    wanted: int
    idle: Collection[str] = IDLE
    taken: PackedList[Task] = field(default_factory=packed_tasks)
    left: list[Task] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """There are enough of them."""
        return len(self.taken) >= self.wanted

    def take(self, task: Task) -> bool:
        """Whether it is one of them."""
        if self.full:
            self.left.append(task)
            return False
        self.taken.append(task)
        return True


async def judge_canaries(job: Job, context: Context, tasks: Collection[Task]) -> None:
    """Raises Stop unless each of them was written and is, read back, what the rules make of its source."""
    wrong: dict[str, str] = {}

    async def judge(task: Task) -> None:
        record = context.state.records.get(task.row.id)
        if record is None or record.target_id is None:
            wrong[task.row.id] = f"{task.row.name}: {record.status if record is not None else 'not created'}"
        elif fields := await _differences(job, context, task, record, record.target_id):
            wrong[task.row.id] = f"{task.row.name}: {', '.join(fields)}"

    await for_each(tasks, judge, limit=job.concurrency)
    if wrong:
        told = "; ".join(wrong[task.row.id] for task in tasks if task.row.id in wrong)
        raise Stop(
            "canary",
            f"{len(wrong)} of {len(tasks)} canaries are not as they should be: {told}",
            next="Look at these replicas; mend the migration file or the registry, then run it again.",
        )


async def _differences(job: Job, context: Context, task: Task, record: Record, target_id: str) -> Sequence[str]:
    """The fields in which a replica differs from what the rules make of its source now."""
    staged = record.rare.staged
    found = await _read_back(job, context, target_id, "published" if staged is None else str(staged[1]))
    if found is None:
        return ["cannot be read back"]
    if job.in_place:  # its source is what was written over
        return [] if record.was_made_as(digest(found)) else ["it does not hold what was written"]
    try:
        prepared = prepare(job, await job.source.fetch(task.row.id, job.select.speaking), name=task.name)
    except (Rejected, Transient):
        return ["its source cannot be read any more"]
    if isinstance(prepared, Failed):
        return [prepared.message]
    return differences(prepared.replica.prompt, found)
