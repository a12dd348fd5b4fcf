"""What is there, and what is to be done with each prompt: the same judgement for `plan`, `run` and a resume.

Both workspaces are listed to the end before anything is written: replicas are created at the front of the listing that
is being read, and a name that is taken must be known beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from engine.adopt import CHANGED, EDITED, Adoption, examine, is_unfinished
from engine.entries import EXISTS
from engine.errors import Rejected, Transient
from engine.job import Job
from engine.ledger import Record, State
from engine.lookup import Found, Match, look_up, numbered, rows_of
from engine.model import Row, Source
from engine.rewrite import Placement, clashes, free_name, place, rewrite
from engine.selection import selects
from engine.tasks import at_once, task_group

Listed = tuple[tuple[list[Row], int], list[Row]]
"""The rows of the source and their total; the rows of the target."""

UNFINISHED: Final = "a prompt equal to it is there already, without a mark: it is taken over"
EDITED_BEFORE: Final = "its replica was edited by hand; it stays as it is"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One selected prompt and what is to be done: create | update | adopt | unchanged | skip | conflict | keep | wait.

    `update`: to be compared, and updated where something changed. `keep`: failed for good in an earlier run. `wait`:
    a write in doubt whose settle time is not over.
    """

    row: Row
    action: str
    reason: str | None = None
    name: str | None = None
    """Name of the replica, when it is not the one that the rules give."""
    target_id: str | None = None
    adopt: Adoption | None = None
    note: str | None = None
    look: str = ""
    """`replica`: only the replica's time of change is new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Both listings, judged. `tasks` has one task for each selected prompt, in the order of the listing."""

    rows: Sequence[Row]
    """The whole listing of the source."""
    total: int
    tasks: list[Task] = field(default_factory=list)
    orphaned: int = 0
    """Replicas whose source is gone."""
    notes: list[str] = field(default_factory=list)

    @property
    def listed(self) -> int:
        """How many prompts the source has."""
        return len(self.rows)


async def survey(
    job: Job, state: State, *, now: float, retry_failed: bool = False, listed: Listed | None = None
) -> Survey:
    """Lists, selects, places and judges. `now` in epoch seconds; `listed`: it was listed already. Raises Stop when a
    listing is not whole.
    """
    (rows, total), target_rows = listed or await list_both(job.source, job.target, same=job.ends.same)
    ours = job.replicas_among(state.targets)
    selected = [row for row in rows if row.id not in ours and _is_selected(job, state, row)]
    tasks, replicas = await judge(job, state, selected, target_rows, now=now, retry_failed=retry_failed)
    # Replicas of ours that no ledger knows are no sources.
    tasks = _twins([task for task in tasks if task.row.id not in replicas])
    return Survey(
        rows=rows,
        total=total,
        tasks=tasks,
        orphaned=_orphaned(state, rows),
        notes=_notes(state, tasks, target_rows),
    )


async def list_both(source: Source, target: Source, *, same: bool) -> Listed:
    """Both listings at once; one, where both are one workspace. Raises Stop when a listing is not whole."""
    if same:
        found = await rows_of(source)
        return found, found[0]
    found, (target_rows, _) = await at_once(rows_of(source), rows_of(target))
    return found, target_rows


def _is_selected(job: Job, state: State, row: Row) -> bool:
    """What was changed in place stays selected: by its new model it would not be."""
    record = state.records.get(row.id)
    changed_by_us = job.in_place and record is not None and record.made
    return changed_by_us or selects(job.select, row, job.ends.source.collections)


async def judge(
    job: Job, state: State, rows: Sequence[Row], target_rows: Iterable[Row], *, now: float, retry_failed: bool = False
) -> tuple[list[Task], set[str]]:
    """A task for each row, and the ids of the target's prompts that are replicas of this migration."""
    target_rows = list(target_rows)
    if job.in_place:
        in_place = _Judgement(job=job, state=state, there=_by_id(target_rows), now=now, retry_failed=retry_failed)
        return [in_place.compared(row, state.records.get(row.id)) for row in rows], set()
    pending = [row for row in rows if not _settled(state.records.get(row.id))]
    placements = await _place(job, pending)
    names = {placed.name for placed in placements.values() if placed is not None}
    names.update(record.name for row in pending if (record := state.records.get(row.id)) and record.name)
    found = await look_up(job, names, lambda: {job.key(row.id) for row in pending}, target_rows, state.targets)
    del names
    replicas = {*job.replicas_among({match.row.id for matches in found.ours.values() for match in matches})}
    placed = [(row, placement) for row in pending if row.id not in replicas and (placement := placements[row.id])]
    judgement = _Judgement(
        job=job,
        state=state,
        found=found,
        there=_by_id(target_rows) if len(pending) < len(rows) else {},
        clashing=clashes([*placed, *_made(state, rows, target_rows)], twins=job.target.can.twins),
        taken=_taken(target_rows, placed) if job.on_existing == "rename" else set(),
        now=now,
        retry_failed=retry_failed,
    )
    tasks = [judgement.task(row, placements.get(row.id)) for row in rows]
    return await _adopted(judgement, tasks, placements), replicas


def _taken(target_rows: Iterable[Row], placed: Iterable[tuple[Row, Placement]]) -> set[str]:
    return {row.name for row in target_rows} | {placement.name for _, placement in placed}


def _by_id(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.id: row for row in rows}


def _settled(record: Record | None) -> bool:
    return record is not None and record.made


def _made(state: State, rows: Iterable[Row], target_rows: Iterable[Row]) -> list[tuple[Row, Placement]]:
    """Where the replicas of earlier runs are: a name that one of them has is given to no other prompt."""
    there = {row.id: Placement(name=row.name, collection=row.collection) for row in target_rows}
    records = [(row, state.records.get(row.id)) for row in rows]
    return [(row, there[record.target_id]) for row, record in records if record and record.target_id in there]


async def _place(job: Job, rows: Sequence[Row]) -> dict[str, Placement | None]:
    """Row id -> where its replica goes; reads the definition only where a rule asks for it."""
    placements = {row.id: place(row, job.rules, job.ends) for row in rows}
    limiter = anyio.CapacityLimiter(job.concurrency)

    async def read(row: Row) -> None:
        async with limiter:
            try:
                prompt = await job.source.fetch(row.id, job.select.version)
            except (Rejected, Transient):
                return  # the fetch pool meets it again and says what is wrong
        done = rewrite(prompt, job.rules, job.ends, job.target.fields).prompt
        placements[row.id] = Placement(name=done.name, collection=done.collection)

    async with task_group() as group:
        for row in rows:
            if placements[row.id] is None:
                group.start_soon(read, row)
    return placements


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """All that decides about one prompt."""

    job: Job
    state: State
    there: Mapping[str, Row]
    """The target's prompts by id."""
    now: float
    retry_failed: bool
    found: Found = field(default_factory=Found)
    clashing: Collection[str] = ()
    taken: set[str] = field(default_factory=set)

    def task(self, row: Row, placement: Placement | None) -> Task:
        record = self.state.records.get(row.id)
        if record is not None and _settled(record):
            return self.compared(row, record)
        if matches := self.found.ours.get(self.job.key(row.id)):
            return Task(row=row, action="adopt", target_id=matches[0].row.id)
        if record is not None and record.doubtful and not self._refused_name(record):
            if self.now < record.since + 2 * self.job.settle:
                return Task(row=row, action="wait", reason="its create is in doubt and is looked up first")
        elif record is not None and record.status == "failed" and not (record.retriable or self.retry_failed):
            return Task(row=row, action="keep", reason=record.reason)
        if row.id in self.clashing:
            return Task(row=row, action="conflict", reason="name_clash")
        return self._create(row, record, placement)

    def compared(self, row: Row, record: Record | None) -> Task:
        """What is there already, and in mode update every prompt: nothing is read that cannot have changed."""
        if record is None:
            return Task(row=row, action="update", target_id=row.id)
        if record.doubtful and self.now < record.since + 2 * self.job.settle:
            return Task(row=row, action="wait", reason="its update is in doubt and is looked up first")
        if record.status == "failed" and not (record.retriable or self.retry_failed):
            return Task(row=row, action="keep", reason=record.reason)
        same = row.updated_at is not None and row.updated_at == record.updated_at and record.rules == self.job.rewrites
        return self._changed(row, record, same=same)

    def _changed(self, row: Row, record: Record, *, same: bool) -> Task:
        target_id = record.target_id or row.id
        replica = self.there.get(target_id)
        open_ = record.doubtful or record.rare.pending or record.status in ("conflict", "failed", "rolled_back")
        if replica is None or (self.job.on_change == "skip" and record.made and not open_):
            return Task(row=row, action="unchanged", target_id=target_id)
        if open_ or not same:
            name = replica.name if self._is_renamed(row, replica) else None
            return Task(row=row, action="update", target_id=target_id, name=name)
        if self.job.in_place or record.rare.edited or _untouched(replica, record):
            return Task(
                row=row, action="unchanged", target_id=target_id, note=EDITED_BEFORE if record.rare.edited else None
            )
        return Task(row=row, action="update", target_id=target_id, look="replica")

    def _is_renamed(self, row: Row, replica: Row) -> bool:
        """It got a number behind its name, because the name was taken."""
        placement = place(row, self.job.rules, self.job.ends) if self.job.on_existing == "rename" else None
        return placement is not None and numbered(replica.name) == placement.name

    def _refused_name(self, record: Record) -> bool:
        """The registry said 409: there is nothing to wait for."""
        return record.status == "unknown" and record.reason == EXISTS

    def _create(self, row: Row, record: Record | None, placement: Placement | None) -> Task:
        other = self.found.others.get(placement.name) if placement is not None else None
        if other is not None and other.name in self.found.unmarked:
            return Task(row=row, action="adopt", target_id=other.id)  # if it is ours, left without its mark
        return self.beside(row, record, placement, other)

    def beside(self, row: Row, record: Record | None, placement: Placement | None, other: Row | None) -> Task:
        """A new replica, unless somebody else's prompt has its name."""
        if other is None and record is not None and self._refused_name(record):
            return Task(row=row, action="conflict", reason="exists")
        if other is None or placement is None:
            return Task(row=row, action="create")
        if self.job.on_existing == "skip":
            return Task(row=row, action="skip", reason="exists", target_id=other.id)
        if self.job.on_existing == "rename":
            name = free_name(placement.name, self.taken)
            self.taken.add(name)
            return Task(row=row, action="create", name=name, note=f"{placement.name!r} is taken; named {name!r}")
        return Task(row=row, action="conflict", reason="exists", target_id=other.id)


def _untouched(replica: Row, record: Record) -> bool:
    """Whether nobody can have changed the replica since it was made or last compared."""
    seen = record.rare.target_updated_at or replica.created_at
    return replica.updated_at is not None and replica.updated_at == seen


async def _adopted(
    judgement: _Judgement, tasks: Sequence[Task], placements: Mapping[str, Placement | None]
) -> list[Task]:
    """The same tasks, those that adopt with what is known of their replica; what nobody can vouch for is a conflict."""
    job, found = judgement.job, judgement.found
    unmarked = {match.row.id: match for match in found.unmarked.values()}
    examined: dict[str, Task] = {}
    limiter = anyio.CapacityLimiter(job.concurrency)

    async def one(task: Task, matches: Sequence[Match]) -> None:
        row, prompt = task.row, matches[0].prompt
        if prompt is not None:
            async with limiter:
                unfinished = await is_unfinished(job, row, prompt)
            if unfinished:
                examined[row.id] = Task(row=row, action="create", note=UNFINISHED)
            else:
                record = judgement.state.records.get(row.id)
                examined[row.id] = judgement.beside(row, record, placements.get(row.id), matches[0].row)
            return
        async with limiter:
            adoption = await examine(job, row, matches[0])
        if adoption is None:
            examined[row.id] = replace(task, action="conflict", reason="edited")
            return
        rest = ", ".join(match.row.id for match in matches[1:])
        more = [f"has more than one replica; the oldest was taken, these are left alone: {rest}"] if rest else []
        examined[row.id] = replace(task, adopt=adoption, note="; ".join([*more, *adoption.notes]) or None)

    async with task_group() as group:
        for task in tasks:
            if task.action == "adopt":
                group.start_soon(one, task, found.ours.get(job.key(task.row.id)) or [unmarked[task.target_id or ""]])
    return [examined.get(task.row.id, task) for task in tasks]


def _twins(tasks: Sequence[Task]) -> list[Task]:
    """Says of new prompts that share their name at the source that each gets its replica."""
    shared = Counter(task.row.name for task in tasks)
    note = "shares its name with another prompt; each gets its replica, told apart by its key"
    return [
        replace(task, note=task.note or note) if task.action == "create" and shared[task.row.name] > 1 else task
        for task in tasks
    ]


def _orphaned(state: State, rows: Iterable[Row]) -> int:
    there = {row.id for row in rows}
    return sum(_settled(record) and source_id not in there for source_id, record in state.records.items())


def _notes(state: State, tasks: Sequence[Task], target_rows: Iterable[Row]) -> list[str]:
    """What is worth saying of the whole and is nobody's failure."""
    there = {row.id for row in target_rows}
    done = [(task, state.records[task.row.id]) for task in tasks if task.action == "unchanged"]
    edited = sum(EDITED in task.adopt.notes for task in tasks if task.adopt is not None)
    moved = sum(CHANGED in task.adopt.notes for task in tasks if task.adopt is not None)
    gone = sum(record.target_id not in there for _, record in done if record.made)
    changed = sum(bool(record.updated_at and task.row.updated_at != record.updated_at) for task, record in done)
    by_hand = sum(task.note == EDITED_BEFORE for task, _ in done)
    compared = [task for task in tasks if task.action == "update" and task.target_id and task.row.id in state.records]
    timeless = sum(task.row.updated_at is None for task in compared)
    shared = Counter(task.row.name for task in tasks)
    twins = sum(count for count in shared.values() if count > 1)
    notes = []
    if gone:
        notes.append(f"{gone} replicas of earlier runs are no longer on the target; they are left as they are")
    if changed:
        notes.append(f"{changed} sources changed since their replica was made; on_change leaves those as they are")
    if by_hand:
        notes.append(f"{by_hand} replicas were edited by hand, and their sources did not change; they stay as they are")
    if timeless:
        notes.append(f"the listing has no time of change for {timeless} prompts, so they are read to be compared")
    elif compared:
        notes.append(
            f"{len(compared)} prompts made by earlier runs are read again: their times of change or the rules are new"
        )
    if edited:
        notes.append(f"{edited} replicas taken over were edited since they were made; they stay as they are")
    if moved:
        notes.append(f"{moved} replicas taken over have a source that changed since; the next run compares them")
    if twins:
        notes.append(f"{twins} prompts share their name with another one; each gets its replica, told apart by its key")
    return notes
