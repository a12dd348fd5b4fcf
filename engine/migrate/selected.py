"""Which prompts a run is about: those that are selected, and of other machines' those that may get in its way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from engine.content.rewrite import place
from engine.content.selection import needs_definition, rows_tell, selects, takes_all
from engine.ledger.state import State
from engine.migrate.job import Job
from engine.migrate.listing import Told, with_definitions, with_labelled
from engine.migrate.lookup import numbered
from engine.migrate.places import find_places
from engine.model import Row, Select, packed_rows

EVERYTHING: Final = Select()


async def select_rows(
    job: Job, state: State, listed: Sequence[Row], narrowed: Select = EVERYTHING, *, among: Callable[[str], bool]
) -> tuple[Told, Sequence[Row]]:
    """The listing with what had to be read for it, and its rows that are selected, or that nobody can judge; of these
    ids alone.
    """
    ours, collections = job.replicas_among(state.targets), job.ends.source.collections

    def silent(row: Row) -> bool:
        if row.id in ours or not among(row.id):
            return False
        if needs_definition(job.select, row, collections) and not _was_changed(job, state, row):
            return True
        return needs_definition(narrowed, row, collections) and is_selected(job, state, row)

    if job.select.label is not None:
        found = await with_labelled(
            listed,
            job.select,
            collections,
            job.read_ahead,
            among=lambda row: row.id not in ours and among(row.id) and not _was_changed(job, state, row),
            concurrency=job.concurrency,
        )
    elif rows_tell(job.select) and rows_tell(narrowed):
        found = Told(listed)
    else:
        found = await with_definitions(listed, silent, job.read_ahead, concurrency=job.concurrency)
    if job.shard is None and takes_all(job.select) and not (ours or found.unlabelled):
        return found, found.rows
    selected = packed_rows(
        row
        for row in found.rows
        if row.id not in ours
        and among(row.id)
        and row.id not in found.unlabelled
        and (row.id in found.unread or is_selected(job, state, row))
    )
    return found, selected


def is_selected(job: Job, state: State, row: Row) -> bool:
    """What was changed in place stays selected: by its new model it would not be."""
    return (
        takes_all(job.select) or _was_changed(job, state, row) or selects(job.select, row, job.ends.source.collections)
    )


def _was_changed(job: Job, state: State, row: Row) -> bool:
    return job.in_place and state.records.is_made(row.id)


async def find_rivals(job: Job, state: State, rows: Sequence[Row], selected: Sequence[Row]) -> list[Row]:
    """Selected prompts of other shards that decide what becomes of one of these: they may get its name, or it may be
    their replica; then it is theirs to say whose they are themselves.
    """
    if job.shard is None or job.in_place:
        return []
    pending = [row for row in selected if not state.records.is_made(row.id)]
    ours = job.replicas_among(state.targets)
    others = [row for row in rows if not job.takes(row.id) and row.id not in ours]
    by_name, untold = _by_placement(job, others)
    wanted = [*(await find_places(job, pending)).names()]
    wanted += [name for row in (*pending, *untold) for name in _names_of(row)]
    rivals = {row.id for row in untold}
    while wanted:
        for row in by_name.pop(wanted.pop(), ()):
            if row.id not in rivals:
                rivals.add(row.id)
                wanted += _names_of(row)
    told, found = await select_rows(job, state, rows, among=rivals.__contains__)
    return [row for row in found if row.id not in told.unread]


def _by_placement(job: Job, rows: Iterable[Row]) -> tuple[dict[str, list[Row]], list[Row]]:
    """Name of a replica -> the prompts that may get it; and those of which only their definitions tell."""
    by_name: defaultdict[str, list[Row]] = defaultdict(list)
    untold = []
    for row in rows:
        placement = place(row, job.rules, job.ends)
        if placement is None:
            untold.append(row)
            continue
        by_name[placement.name].append(row)
        if job.on_existing == "rename" and (name := numbered(placement.name)) is not None:
            by_name[name].append(row)  # it may have the number that one of those would get
    return by_name, untold


def _names_of(row: Row) -> list[str]:
    """What its replica's original would be placed under, if it is a replica."""
    name = numbered(row.name)
    return [row.name] if name is None else [row.name, name]


def in_order(listed: Iterable[Row], mine: Sequence[Row], rivals: Sequence[Row]) -> Sequence[Row]:
    """Both, as the listing has them: who comes first gets the first free name."""
    if not rivals:
        return mine
    both = {row.id: row for row in (*mine, *rivals)}
    return [both[row.id] for row in listed if row.id in both]
