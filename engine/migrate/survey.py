"""What is there, and what is to be done with each prompt: the same judgement for `plan`, `run` and a resume.

Both workspaces are listed to the end before anything is written: replicas are created at the front of the listing that
is being read, and a name that is taken must be known beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from engine.content.rewrite import Placement, clashes, free_name, place
from engine.content.selection import glob_readings, needs_definition, selects
from engine.ledger.state import Failure, Record, State
from engine.migrate import moved
from engine.migrate.adopt import CHANGED, EDITED, examine, is_unfinished
from engine.migrate.entries import EXISTS
from engine.migrate.job import Job, digest_of
from engine.migrate.listing import (
    Listed,
    Told,
    definition,
    label_notes,
    listings,
    told_by_definitions,
    with_definitions,
    with_labelled,
)
from engine.migrate.lookup import Found, look_up, numbered
from engine.migrate.task import Task
from engine.model import Entry, Failed, Prompt, Row, Select
from engine.taskgroup import for_each

UNFINISHED: Final = "a prompt equal to it is there already, without a mark: it is taken over"
EVERYTHING: Final = Select()
EDITED_BEFORE: Final = "its replica was edited by hand; it stays as it is"
_OPEN: Final = ("conflict", "failed", "skipped", "rolled_back")
"""What a made prompt may be called while something is still to be done for it."""


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
    moved: Sequence[Entry] = ()
    """Lines for the ledger, before any other: prompts and replicas that have another id than in earlier runs."""

    @property
    def listed(self) -> int:
        """How many prompts the source has."""
        return len(self.rows)


async def survey(
    job: Job,
    state: State,
    *,
    now: float,
    retry_failed: bool = False,
    narrowed: Select = EVERYTHING,
    listed: Listed | None = None,
) -> Survey:
    """Lists, selects, places and judges. `now` in epoch seconds. Raises Stop when a listing is not whole.

    `narrowed`: of the selected prompts, what else the rows have to tell. `listed`: both listings, where they were made.
    """
    source_rows, total, target_rows = listed or await listings(job.source, job.target, same=job.ends.same)
    moves = moved.Moves(sources={row.id for row in source_rows})
    lines = await _follow(job, state, source_rows, target_rows, moves)
    found, selected = await _select(job, state, source_rows, narrowed)
    readable = [row for row in selected if row.id not in found.unread]
    tasks, replicas = await judge(job, state, readable, target_rows, now=now, retry_failed=retry_failed, moves=moves)
    if found.unread:
        judged = {task.row.id: task for task in tasks}
        tasks = [judged.get(row.id) or _unread(state, row, found.unread[row.id]) for row in selected]
    # Replicas of ours that no ledger knows are no sources.
    tasks = _twins([task for task in tasks if task.row.id not in replicas])
    return Survey(
        rows=found.rows,
        total=total,
        tasks=tasks,
        orphaned=_orphaned(state, found.rows),
        notes=[
            *job.ends.source.notes,
            *moved.moved_notes(lines, moves),
            *told_by_definitions(found.read, job.select),
            *label_notes(job.select, found, len(selected), job.ends.source.labels),
            *glob_readings(job.select, job.rules, found.rows, job.ends.source.collections),
            *_notes(job, state, tasks, target_rows),
        ],
        moved=lines,
    )


async def _follow(
    job: Job, state: State, rows: Sequence[Row], target_rows: Sequence[Row], moves: moved.Moves
) -> list[Entry]:
    """Finds the replicas and the prompts that have another id than `state` knows, and tells it; the ledger's lines."""
    if job.in_place:
        return []
    ours = job.replicas_among(state.targets)
    selected = [row for row in rows if row.id not in ours and _is_selected(job, state, row)]
    lines = []
    if lost := moved.lost(job, state, selected, target_rows):
        placed = _known(lost, (await _place(job, lost))[0])
        lines += await moved.replicas_elsewhere(job, state, placed, target_rows)
    left = moved.left_behind(job, state, moves.sources, target_rows)
    new = [row for row in selected if not _settled(state.records.get(row.id))] if left else []
    lines += await moved.heirs(job, _known(new, (await _place(job, new))[0]), left, moves)
    for line in lines:
        state.fold({"kind": line.kind, **line.fields})
    return lines


def _known(rows: Iterable[Row], placements: Mapping[str, Placement | None]) -> list[tuple[Row, Placement]]:
    return [(row, placement) for row in rows if (placement := placements[row.id]) is not None]


async def _select(job: Job, state: State, listed: list[Row], narrowed: Select) -> tuple[Told, list[Row]]:
    """The listing with what had to be read for it, and its rows that are selected, or that nobody can judge."""
    ours, collections = job.replicas_among(state.targets), job.ends.source.collections

    def silent(row: Row) -> bool:
        if row.id in ours:
            return False
        if needs_definition(job.select, row, collections) and not _was_changed(job, state, row):
            return True
        return needs_definition(narrowed, row, collections) and _is_selected(job, state, row)

    found = await (
        with_labelled(
            listed,
            job.select,
            collections,
            job.read_ahead,
            among=lambda row: row.id not in ours and not _was_changed(job, state, row),
            concurrency=job.concurrency,
        )
        if job.select.label is not None
        else with_definitions(listed, silent, job.read_ahead, concurrency=job.concurrency)
    )
    selected = [
        row
        for row in found.rows
        if row.id not in ours
        and row.id not in found.unlabelled
        and (row.id in found.unread or _is_selected(job, state, row))
    ]
    return found, selected


def _is_selected(job: Job, state: State, row: Row) -> bool:
    """What was changed in place stays selected: by its new model it would not be."""
    return _was_changed(job, state, row) or selects(job.select, row, job.ends.source.collections)


def _was_changed(job: Job, state: State, row: Row) -> bool:
    record = state.records.get(row.id)
    return job.in_place and record is not None and record.made


def _unread(state: State, row: Row, failure: Failed | None) -> Task:
    """A prompt of which nobody can say whether it is selected, or what its replica is called. None: it is gone."""
    record = state.records.get(row.id)
    if record is not None and record.doubtful:  # a line that says it failed would say that nothing was written
        return Task(row=row, action="wait", reason="its last write is in doubt and is looked up first")
    if record is not None and record.status == "failed" and not record.retriable:
        return Task(row=row, action="keep", reason=record.reason)
    if failure is None:
        return Task(row=row, action="skip", reason="gone")
    return Task(row=row, action="unread", reason=failure.message, failure=failure)


async def judge(
    job: Job,
    state: State,
    rows: Sequence[Row],
    target_rows: Iterable[Row],
    *,
    now: float,
    retry_failed: bool = False,
    moves: moved.Moves | None = None,
) -> tuple[list[Task], set[str]]:
    """A task for each row, and the ids of the target's prompts that are replicas of this migration. `moves`: where
    prompts may have other ids than when their replicas were made.
    """
    target_rows = list(target_rows)
    again = {row.id for row in rows} if retry_failed else await _mended(job, state, rows)
    if job.in_place:
        in_place = _Judgement(job=job, state=state, there=_by_id(target_rows), now=now, again=again)
        return [in_place.compared(row, state.records.get(row.id)) for row in rows], set()
    pending = [row for row in rows if not _settled(state.records.get(row.id))]
    placements, unread = await _place(job, pending)
    names = {placed.name for placed in placements.values() if placed is not None}
    names.update(record.name for row in pending if (record := state.records.get(row.id)) and record.name)
    found = await look_up(job, names, lambda: {job.key(row.id) for row in pending}, target_rows, state.targets)
    del names
    replicas = {*job.replicas_among({match.row.id for matches in found.ours.values() for match in matches})}
    placed = _known((row for row in pending if row.id not in replicas), placements)
    if moves is not None:
        await moved.inherit(job, found, placed, moves)
    judgement = _Judgement(
        job=job,
        state=state,
        found=found,
        there=_by_id(target_rows) if len(pending) < len(rows) else {},
        clashing=clashes([*placed, *_made(state, rows, target_rows)], twins=not job.target.can.unique),
        taken=_taken(target_rows, placed) if job.on_existing == "rename" else set(),
        unclear=moves.unclear if moves is not None else (),
        now=now,
        again=again,
    )
    tasks = [
        _unread(state, row, unread[row.id]) if row.id in unread else judgement.task(row, placements.get(row.id))
        for row in rows
    ]
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


async def _place(job: Job, rows: Sequence[Row]) -> tuple[dict[str, Placement | None], dict[str, Failed | None]]:
    """Row id -> where its replica goes, and why that is not known; reads the definition only where a rule asks for it.

    Without its name nobody can look for a replica that no ledger knows, so such a prompt must not be created.
    """
    placements = {row.id: place(row, job.rules, job.ends) for row in rows}
    unread: dict[str, Failed | None] = {}

    async def read(row: Row) -> None:
        prompt = await definition(job.read_ahead(row.id))
        if isinstance(prompt, Prompt):
            done = job.rewritten(prompt).prompt
            placements[row.id] = Placement(name=done.name, collection=done.collection)
        else:
            unread[row.id] = prompt

    await for_each((row for row in rows if placements[row.id] is None), read, limit=job.concurrency)
    return placements, unread


async def _mended(job: Job, state: State, rows: Sequence[Row]) -> set[str]:
    """Ids of the prompts that failed for good, and whose source or rules are not what they failed with. A definition is
    read only where times of change do not tell.
    """
    records = [(row, state.records.get(row.id)) for row in rows]
    failed = [(row, record.failure) for row, record in records if record and record.failure and not record.retriable]
    judged = [(row, failure, _is_mended(job, row, failure)) for row, failure in failed]
    mended = {row.id for row, _, is_mended in judged if is_mended}

    async def read(one: tuple[Row, Failure, bool | None]) -> None:
        row, failure, _ = one
        prompt = await definition(job.read_ahead(row.id))
        if isinstance(prompt, Prompt) and digest_of(prompt) != failure.digest:  # else it would fail again
            mended.add(row.id)

    await for_each((one for one in judged if one[2] is None), read, limit=job.concurrency)
    return mended


def _is_mended(job: Job, row: Row, failure: Failure) -> bool | None:
    """None: only its definition can tell."""
    if failure.rules is not None and failure.rules != job.rewrites:
        return True
    known = failure.updated_at is not None
    if failure.digest is None:
        return known and row.updated_at != failure.updated_at
    return False if known and row.updated_at == failure.updated_at and job.select.label is None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judgement:
    """All that decides about one prompt."""

    job: Job
    state: State
    there: Mapping[str, Row]
    """The target's prompts by id."""
    now: float
    again: Collection[str]
    """Ids of the failed prompts that are taken up though they are not retriable."""
    found: Found = field(default_factory=Found)
    clashing: Collection[str] = ()
    unclear: Collection[str] = ()
    """Ids of prompts that may be renamed ones."""
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
        elif record is not None and self._is_kept(row, record):
            return Task(row=row, action="keep", reason=record.reason)
        if row.id in self.unclear:
            return Task(row=row, action="conflict", reason=moved.RENAMED)
        if row.id in self.clashing:
            return Task(row=row, action="conflict", reason="name_clash")
        return self._create(row, record, placement)

    def compared(self, row: Row, record: Record | None) -> Task:
        """What is there already, and in mode update every prompt: nothing is read that cannot have changed."""
        if record is None:
            return self._update(row, row)
        if record.doubtful and self.now < record.since + 2 * self.job.settle:
            return Task(row=row, action="wait", reason="its update is in doubt and is looked up first")
        if self._is_kept(row, record):
            return Task(row=row, action="keep", reason=record.reason)
        same = row.updated_at is not None and row.updated_at == record.updated_at and record.rules == self.job.rewrites
        same = same and self.job.select.label is None  # no time of change tells that a label was moved
        return self._changed(row, record, same=same)

    def _changed(self, row: Row, record: Record, *, same: bool) -> Task:
        target_id = record.target_id or row.id
        replica = self.there.get(target_id)
        open_ = record.doubtful or record.rare.pending or record.status in _OPEN
        if not open_ and (replica is None or (self.job.on_change == "skip" and record.made)):
            return Task(row=row, action="unchanged", target_id=target_id)
        if replica is None:
            return Task(row=row, action="update", target_id=target_id)
        if open_ or not same:
            return self._update(row, replica)
        if self.job.in_place or record.rare.edited or _untouched(replica, record):
            return Task(
                row=row, action="unchanged", target_id=target_id, note=EDITED_BEFORE if record.rare.edited else None
            )
        return Task(row=row, action="update", target_id=target_id, look="replica")

    def _update(self, row: Row, there: Row) -> Task:
        job = self.job
        task = Task(row=row, action="update", target_id=there.id)
        placement = (
            place(row, job.rules, job.ends) if job.on_existing == "rename" or not job.target.can.renames else None
        )
        if placement is None:
            return task
        if job.on_existing == "rename" and numbered(there.name) == placement.name:
            return replace(task, name=there.name)  # it got a number behind its name, because the name was taken
        return replace(task, failure=renamed(job, there.name, placement.name))

    def _is_kept(self, row: Row, record: Record) -> bool:
        return record.status == "failed" and not record.retriable and row.id not in self.again

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


def renamed(job: Job, there: str, wanted: str) -> Failed | None:
    """Why a prompt that is there cannot be what is wanted, where it would need another name and cannot get one."""
    if job.target.can.renames or there == wanted:
        return None
    message = f"it is called {there!r}, would become {wanted!r}, and this target renames no prompt: it stays as it is. "
    message += "Let rewrite.name or one of rewrite.rules give it the name that it has"
    if not job.in_place:
        message += "; to have it under the new one, take it back with `promptferry rollback --only`, then run again"
    return Failed(error="renamed", message=message, retriable=True)


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

    async def one(task: Task) -> None:
        row = task.row
        matches = found.ours.get(job.key(row.id)) or [unmarked[task.target_id or ""]]
        prompt = matches[0].prompt
        if prompt is not None:
            if await is_unfinished(job, row, prompt):
                examined[row.id] = Task(row=row, action="create", note=UNFINISHED)
            else:
                record = judgement.state.records.get(row.id)
                examined[row.id] = judgement.beside(row, record, placements.get(row.id), matches[0].row)
            return
        adoption = await examine(job, row, matches[0])
        if adoption is None:
            examined[row.id] = replace(task, action="conflict", reason="edited")
            return
        rest = ", ".join(match.row.id for match in matches[1:])
        more = [f"has more than one replica; the oldest was taken, these are left alone: {rest}"] if rest else []
        examined[row.id] = replace(task, adopt=adoption, note="; ".join([*more, *adoption.notes]) or None)

    await for_each((task for task in tasks if task.action == "adopt"), one, limit=job.concurrency)
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


def _notes(job: Job, state: State, tasks: Sequence[Task], target_rows: Iterable[Row]) -> list[str]:
    """What is worth saying of the whole and is nobody's failure."""
    there = {row.id for row in target_rows}
    unread = sum(task.action == "unread" for task in tasks)
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
    if unread:
        notes.append(f"{unread} prompts could not be read, so nobody knows whether select takes them; they fail")
    if gone:
        notes.append(f"{gone} replicas of earlier runs are no longer on the target; they are left as they are")
    if changed:
        notes.append(f"{changed} sources changed since their replica was made; on_change leaves those as they are")
    if by_hand:
        notes.append(f"{by_hand} replicas were edited by hand, and their sources did not change; they stay as they are")
    if job.select.label is not None:  # that they are read is told already
        pass
    elif timeless:
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
