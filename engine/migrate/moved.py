"""Prompts that have another id than in earlier runs: their file was renamed, or somebody wrote another id into a line.

Where an id is only a place (`Abilities.moves`), a prompt that is new and one whose source is gone are the same prompt
when their replicas have one name: it keeps its replica. Where several have that name the content tells them apart, then
the last part of the id; what stays unclear is for a person to decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.content.digest import digest
from engine.content.rewrite import Placement
from engine.errors import Rejected, Transient
from engine.ledger.state import State
from engine.migrate import entries
from engine.migrate.job import Job
from engine.migrate.lookup import Found, look_up, numbered
from engine.model import Entry, Row

RENAMED: Final = "renamed"
"""The reason of a conflict: it may be one of several prompts that are gone, and nobody can tell which."""
_MOST_NAMED: Final = 5

Placed = tuple[Row, Placement]


@dataclass(frozen=True, slots=True)
class Left:
    """A replica whose source is gone. `made_from`: whether this is the digest of the source that it was made from."""

    source_id: str
    target: Row
    made_from: Callable[[str], bool]


@dataclass(slots=True, kw_only=True)
class Moves:
    """`sources`: all ids that the source has now; `unclear`: those that may be one of several that are gone."""

    sources: Collection[str]
    unclear: set[str] = field(default_factory=set)


# ---- replicas --------------------------------------------------------------------------------------------------------


def lost(job: Job, state: State, rows: Iterable[Row], target_rows: Iterable[Row]) -> list[Row]:
    """The prompts whose replica is no longer where it was, and may be elsewhere."""
    if not job.target.can.moves:
        return []
    there = {row.id for row in target_rows}
    records = ((row, state.records.get(row.id)) for row in rows)
    return [row for row, record in records if record is not None and record.made and record.target_id not in there]


async def replicas_elsewhere(
    job: Job, state: State, placed: Collection[Placed], target_rows: Sequence[Row]
) -> list[Entry]:
    """The lines of the `lost` ones whose replica was found by its mark."""
    rows = {job.key(row.id): row for row, _ in placed}
    found = await look_up(job, {one.name for _, one in placed}, rows.keys, target_rows, state.targets)
    return [_line(job, rows[key], rows[key].id, matches[0].row) for key, matches in found.ours.items() if key in rows]


# ---- sources ---------------------------------------------------------------------------------------------------------


def left_behind(job: Job, state: State, sources: Collection[str], target_rows: Iterable[Row]) -> list[Left]:
    """The replicas of the ledger that are there, and whose source is not."""
    if not job.source.can.moves:
        return []
    there = {row.id: row for row in target_rows}
    return [
        Left(source_id, there[record.target_id], record.was_made_from)
        for source_id, record in state.records.items()
        if source_id not in sources and record.target_id in there
    ]


async def heirs(job: Job, new: Iterable[Placed], left: Iterable[Left], moves: Moves) -> list[Entry]:
    """The lines of the `new` prompts that keep a replica that is left."""
    return [_line(job, row, one.source_id, one.target) for row, one in await _matched(job, new, left, moves)]


async def inherit(job: Job, found: Found, new: Iterable[Placed], moves: Moves) -> None:
    """The same where only the marks of the replicas tell of them: what was `found` under their keys is now theirs."""
    if not job.source.can.moves:
        return
    marks = [(matches[0], matches[0].mark) for matches in found.ours.values()]
    left = [
        Left(mark.source_id, match.row, lambda source, mark=mark: source == mark.source_digest)  # type: ignore[misc]
        for match, mark in marks
        if mark.source_id and mark.source_id not in moves.sources
    ]
    nameless = [(row, placement) for row, placement in new if job.key(row.id) not in found.ours]
    for row, one in await _matched(job, nameless, left, moves):
        found.ours[job.key(row.id)] = found.ours.pop(job.key(one.source_id))


async def _matched(job: Job, new: Iterable[Placed], left: Iterable[Left], moves: Moves) -> list[tuple[Row, Left]]:
    left_by_name: dict[str, list[Left]] = defaultdict(list)
    for one in left:
        name = numbered(one.target.name) if job.on_existing == "rename" else None
        left_by_name[name or one.target.name].append(one)
    new_by_name: dict[str, list[Row]] = defaultdict(list)
    for row, placement in new:
        if placement.name in left_by_name:
            new_by_name[placement.name].append(row)
    return [pair for name, rows in new_by_name.items() for pair in await _pairs(job, rows, left_by_name[name], moves)]


async def _pairs(job: Job, rows: list[Row], left: list[Left], moves: Moves) -> list[tuple[Row, Left]]:
    """Those of one name."""
    if len(rows) == len(left) == 1:
        return [(rows[0], left[0])]
    digests = {row.id: await _digest(job, row) for row in rows}
    pairs = _taken(rows, left, lambda row, one: one.made_from(digests[row.id]))
    pairs += _taken(rows, left, lambda row, one: _last_part(row.id) == _last_part(one.source_id))
    if len(rows) == len(left) == 1:
        return [*pairs, (rows[0], left[0])]
    if left:
        moves.unclear.update(row.id for row in rows)
    return pairs


def _taken(rows: list[Row], left: list[Left], fits: Callable[[Row, Left], bool]) -> list[tuple[Row, Left]]:
    """The pairs that fit, taken out of both."""
    pairs = []
    for row in list(rows):
        if (one := next((one for one in left if fits(row, one)), None)) is not None:
            pairs.append((row, one))
            rows.remove(row)
            left.remove(one)
    return pairs


def _last_part(source_id: str) -> str:
    return source_id.rpartition("/")[2].lower()


async def _digest(job: Job, row: Row) -> str:
    """Empty when it cannot be read now."""
    try:
        return digest(await job.read_ahead(row.id))
    except (Rejected, Transient):
        return ""


# ---- what is said of it ----------------------------------------------------------------------------------------------


def _line(job: Job, row: Row, was: str, target: Row) -> Entry:
    return entries.moved(entries.origin_of(row, job.ends.source.collections), was, target)


def moved_notes(lines: Sequence[Entry], moves: Moves) -> list[str]:
    """Sentences on prompts and replicas that have another id, and on those that may have."""
    ids = [f"{line.fields['was']} -> {line.fields['source_id']}" for line in lines if _renamed(line)]
    others = [str(line.fields["target_id"]) for line in lines if not _renamed(line)]
    notes = []
    if ids:
        notes.append(f"{len(ids)} prompts have another id than before, and keep their replicas: {_some(ids)}")
    if others:
        notes.append(f"{len(others)} replicas were renamed on the target, and are found there: {_some(others)}")
    if moves.unclear:
        notes.append(
            f"{len(moves.unclear)} prompts have the name of several replicas whose sources are gone, so nobody can "
            f"tell whether they are renamed ones: {_some(sorted(moves.unclear))}; delete the replicas that are no "
            "longer needed, or give these prompts other names"
        )
    return notes


def _renamed(line: Entry) -> bool:
    return bool(line.fields["was"] != line.fields["source_id"])


def _some(ids: Sequence[str]) -> str:
    rest = len(ids) - _MOST_NAMED
    return ", ".join(ids[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
