"""What is there, and what is to be done with each prompt: the same judgement for `plan`, `run` and a resume.

Both workspaces are listed to the end before anything is written: replicas are created at the front of the listing that
is being read, and a name that is taken must be known beforehand.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from engine.content.rewrite import Placement, clashes, free_name, place
from engine.content.selection import glob_readings
from engine.ledger.state import Failure, Record, State
from engine.migrate import moved
from engine.migrate.adopt import examine, is_unfinished
from engine.migrate.entries import EXISTS
from engine.migrate.job import Job, digest_of
from engine.migrate.listing import (
    Listed,
    definition,
    label_notes,
    listings,
    told_by_definitions,
)
from engine.migrate.lookup import Found, look_up, numbered
from engine.migrate.notes import EDITED_BEFORE, survey_notes
from engine.migrate.places import Placed, Places, find_places
from engine.migrate.selected import EVERYTHING, find_rivals, in_order, is_selected, select_rows
from engine.migrate.task import Task, packed_tasks
from engine.model import ROW, Entry, Failed, Prompt, Row, Select, packed_rows
from engine.model.packed import PackedDict, PackedList
from engine.taskgroup import for_each

UNFINISHED: Final = "a prompt equal to it is there already, without a mark: it is taken over"
_OPEN: Final = ("conflict", "failed", "skipped", "rolled_back")
"""What a made prompt may be called while something is still to be done for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Both listings, judged. `tasks`: one for each selected prompt of the shard, in the order of the listing."""

    rows: Sequence[Row]
    """The whole listing of the source."""
    total: int
    tasks: PackedList[Task] = field(default_factory=packed_tasks)
    orphaned: int = 0
    """Replicas whose source is gone."""
    notes: list[str] = field(default_factory=list)
    rivals: Sequence[Row] = ()
    """See `Job.rivals`."""
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
    moves = moved.Moves(sources={row.id for row in source_rows} if job.source.can.moves else frozenset())
    lines = await _follow(job, state, source_rows, target_rows, moves)
    found, selected = await select_rows(job, state, source_rows, narrowed, among=job.takes)
    readable = packed_rows(row for row in selected if row.id not in found.unread) if found.unread else selected
    rivals = await find_rivals(job, state, found.rows, readable)
    tasks, replicas = await judge(
        job,
        state,
        in_order(found.rows, readable, rivals),
        target_rows,
        now=now,
        retry_failed=retry_failed,
        moves=moves,
        rivals={row.id for row in rivals},
    )
    if found.unread:
        tasks = packed_tasks(_with_unread(state, selected, found.unread, tasks))
    if replicas:  # those of ours that no ledger knows are no sources
        tasks = packed_tasks(task for task in tasks if task.row.id not in replicas)
    if twins := _several(row.name for row in chain(selected, rivals) if row.id not in replicas):
        tasks = packed_tasks(_as_twin(task, twins) for task in tasks)
    return Survey(
        rows=found.rows,
        total=total,
        tasks=tasks,
        orphaned=state.records.made_beside(row.id for row in found.rows),
        notes=[
            *job.ends.source.notes,
            *moved.moved_notes(lines, moves),
            *told_by_definitions(found.read, job.select),
            *label_notes(job.select, found, len(selected), job.ends.source.labels),
            *glob_readings(job.select, job.rules, found.rows, job.ends.source.collections),
            *survey_notes(job, state, tasks, target_rows, twins),
        ],
        rivals=rivals if job.on_existing == "rename" else (),
        moved=lines,
    )


async def _follow(
    job: Job, state: State, rows: Sequence[Row], target_rows: Sequence[Row], moves: moved.Moves
) -> list[Entry]:
    """Finds the replicas and the prompts that have another id than `state` knows, and tells it; the ledger's lines."""
    if job.in_place or not (job.source.can.moves or job.target.can.moves):
        return []
    ours = job.replicas_among(state.targets)
    selected = [row for row in rows if job.takes(row.id) and row.id not in ours and is_selected(job, state, row)]
    lines = []
    if lost := moved.lost(job, state, selected, target_rows):
        placed = list((await find_places(job, lost)).known())
        lines += await moved.replicas_elsewhere(job, state, placed, target_rows)
    left = moved.left_behind(job, state, moves.sources, target_rows)
    new = [row for row in selected if not state.records.is_made(row.id)] if left else []
    lines += await moved.heirs(job, (await find_places(job, new)).known(), left, moves)
    for line in lines:
        state.fold({"kind": line.kind, **line.fields})
    return lines


def _with_unread(
    state: State, selected: Iterable[Row], unread: Mapping[str, Failed | None], tasks: Iterable[Task]
) -> Iterator[Task]:
    """The tasks of all that are selected; `tasks` are those of the ones that could be read, in the same order."""
    judged = iter(tasks)
    for row in selected:
        yield _unread(state, row, unread[row.id]) if row.id in unread else next(judged)


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
    target_rows: Sequence[Row],
    *,
    now: float,
    retry_failed: bool = False,
    moves: moved.Moves | None = None,
    rivals: Collection[str] = (),
) -> tuple[PackedList[Task], set[str]]:
    """A task for each row, and the ids of the target's prompts that are replicas of this migration. `moves`: where
    prompts may have other ids than when their replicas were made; `rivals`: ids of rows that are judged as the others
    and get no task, for they are another shard's.
    """
    again = await _taken_up(job, state, rows, retry_failed=retry_failed)
    if job.in_place:
        in_place = _Judgement(job=job, state=state, there=_by_id(target_rows), now=now, again=again)
        return packed_tasks(in_place.compared(row, state.records.get(row.id)) for row in rows), set()
    places = await find_places(job, rows, lambda row: not state.records.is_made(row.id))
    replicas, found = await _look_up(job, state, places, target_rows)
    if moves is not None:
        await moved.inherit(job, found, _new(places, replicas, {}), moves)
    stands = _stands(job, found, rivals)
    made = state.records.replicas()
    there = _by_id(row for row in target_rows if row.id in made) if made else {}
    del made
    judgement = _Judgement(
        job=job,
        state=state,
        found=found,
        there=there,
        clashing=_clashing(job, state, places, replicas, there, stands),
        taken=_taken(target_rows, _new(places, replicas, stands)) if job.on_existing == "rename" else set(),
        unclear=moves.unclear if moves is not None else (),
        now=now,
        again=again,
    )
    tasks = (
        _unread(state, row, places.unread[row.id]) if row.id in places.unread else judgement.task(row, placement)
        for row, placement in places
    )
    own = packed_tasks(task for task in tasks if task.row.id not in rivals) if rivals else packed_tasks(tasks)
    return await _adopted(judgement, own, places), replicas


def _stands(job: Job, found: Found, rivals: Iterable[str]) -> dict[str, Placement]:
    """Where replicas of other shards' prompts are that are there already."""
    matches = ((source_id, found.ours.get(job.key(source_id))) for source_id in rivals)
    return {
        source_id: Placement(name=of_it[0].row.name, collection=of_it[0].row.collection)
        for source_id, of_it in matches
        if of_it
    }


async def _look_up(job: Job, state: State, places: Places, target_rows: Sequence[Row]) -> tuple[set[str], Found]:
    """What stands on the target under names of ours, and the ids of the replicas among it."""
    doubtful = {one: record.name for one, record in state.records.whole_items() if record.name and not record.made}
    names = set(places.names())
    names.update(doubtful[row.id] for row in (places.rows if doubtful else ()) if row.id in doubtful)

    def keys() -> set[str]:
        return {job.key(row.id) for row in places.rows if not state.records.is_made(row.id)}

    if not names:
        return set(), Found()
    found = await look_up(job, names, keys, target_rows, state.targets)
    return {*job.replicas_among({match.row.id for matches in found.ours.values() for match in matches})}, found


def _new(places: Places, replicas: Collection[str], stands: Mapping[str, Placement]) -> Iterator[Placed]:
    """The prompts that get a place, or have one already, but for those that are replicas themselves."""
    return ((row, stands.get(row.id, placement)) for row, placement in places.known() if row.id not in replicas)


def _clashing(
    job: Job,
    state: State,
    places: Places,
    replicas: Collection[str],
    there: Mapping[str, Row],
    stands: Mapping[str, Placement],
) -> Collection[str]:
    """Ids of the prompts that would get a name that another one gets, or that a replica of an earlier run has."""
    if next(places.names(), None) is None:
        return ()
    shared = _several(
        chain(places.names(), (one.name for one in stands.values()), (row.name for row in there.values()))
    )
    if not shared:
        return ()
    placed = [(row, placement) for row, placement in _new(places, replicas, stands) if placement.name in shared]
    return clashes([*placed, *_made(state, places.rows, there, shared)], twins=not job.target.can.unique)


def _several(names: Iterable[str]) -> set[str]:
    """The names that occur more than once."""
    seen: set[str] = set()
    several: set[str] = set()
    for name in names:
        (several if name in seen else seen).add(name)
    return several


def _taken(target_rows: Iterable[Row], placed: Iterable[Placed]) -> set[str]:
    return {row.name for row in target_rows} | {placement.name for _, placement in placed}


def _by_id(rows: Iterable[Row]) -> Mapping[str, Row]:
    return PackedDict(ROW, ((row.id, row) for row in rows))


def _made(state: State, rows: Iterable[Row], there: Mapping[str, Row], names: Collection[str]) -> Iterator[Placed]:
    """Where the replicas of earlier runs are: a name that one of them has is given to no other prompt."""
    for row in rows:
        record = state.records.get(row.id)
        replica = there.get(record.target_id) if record is not None and record.target_id is not None else None
        if replica is not None and replica.name in names:
            yield row, Placement(name=replica.name, collection=replica.collection)


async def _taken_up(job: Job, state: State, rows: Iterable[Row], *, retry_failed: bool) -> set[str]:
    """Ids of the prompts that failed for good and are tried again: all, or those whose source or rules are not what
    they failed with.
    """
    failures = {
        source_id: record.failure
        for source_id, record in state.records.whole_items()
        if record.failure is not None and not record.retriable
    }
    if not failures or retry_failed:
        return set(failures)
    return await _mended(job, [(row, failures[row.id]) for row in rows if row.id in failures])


async def _mended(job: Job, failed: Sequence[tuple[Row, Failure]]) -> set[str]:
    """A definition is read only where times of change do not tell."""
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
        if record is not None and record.made:
            return self.compared(row, record)
        if self.found.ours and (matches := self.found.ours.get(self.job.key(row.id))):
            return Task(row=row, action="adopt", target_id=matches[0].row.id)
        if record is not None and record.doubtful and not self._refused_name(record):
            if self.now < record.since + 2 * self.job.settle:
                self._claim(record.name)
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
            return task._replace(name=there.name)  # it got a number behind its name, because the name was taken
        return task._replace(failure=renamed(job, there.name, placement.name))

    def behind(self, row: Row, replica: Row) -> Task | None:
        """What becomes of a replica that was taken over and is not what the rules make of its source now."""
        return self._update(row, replica) if self.job.on_change == "update" else None

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
        claimer = self._claim(placement.name if placement is not None else None) if other is None else None
        if placement is None or (other is None and claimer is None):
            return Task(row=row, action="create")
        if self.job.on_existing == "rename":
            return self._numbered(row, placement.name)
        action = "skip" if self.job.on_existing == "skip" else "conflict"
        note = f"{placement.name!r} is what migration {claimer} of this fleet calls a replica" if claimer else None
        return Task(
            row=row, action=action, reason="exists", target_id=other.id if other is not None else None, note=note
        )

    def _numbered(self, row: Row, taken: str) -> Task:
        """A new replica under the first number that nobody has."""
        name = taken
        while name == taken or self._claim(name):
            name = free_name(taken, self.taken)
            self.taken.add(name)
        return Task(row=row, action="create", name=name, note=f"{taken!r} is taken; named {name!r}")

    def _claim(self, name: str | None) -> str | None:
        """The other migration of a fleet that has this name for a replica."""
        return self.job.claim(name) if name is not None else None


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


async def _adopted(judgement: _Judgement, tasks: PackedList[Task], places: Places) -> PackedList[Task]:
    """The same tasks, those that adopt with what is known of their replica; what nobody can vouch for is a conflict."""
    job, found = judgement.job, judgement.found
    if not found.ours and not found.unmarked:
        return tasks
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
                examined[row.id] = judgement.beside(row, record, places.of(row), matches[0].row)
            return
        adoption = await examine(job, row, matches[0])
        if adoption is None:
            examined[row.id] = task._replace(action="conflict", reason="edited")
            return
        if adoption.source is None:
            adoption = replace(adoption, then=judgement.behind(row, matches[0].row))
        rest = ", ".join(match.row.id for match in matches[1:])
        more = [f"has more than one replica; the oldest was taken, these are left alone: {rest}"] if rest else []
        examined[row.id] = task._replace(adopt=adoption, note="; ".join([*more, *adoption.notes]) or None)

    await for_each((task for task in tasks if task.action == "adopt"), one, limit=job.concurrency)
    return packed_tasks(examined.get(task.row.id, task) for task in tasks)


def _as_twin(task: Task, twins: Collection[str]) -> Task:
    """Says of a new prompt that shares its name at the source that each gets its replica."""
    if task.action != "create" or task.note or task.row.name not in twins:
        return task
    return task._replace(note="shares its name with another prompt; each gets its replica, told apart by its key")
