"""Finds replicas on the target by name and mark: the answer to a lost answer, and to a lost ledger."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import anyio

from engine.digest import read_mark
from engine.errors import Gone, Rejected, Stop, Transient
from engine.job import Job, task_group
from engine.model import Catalog, Mark, Row, Source

_NUMBERED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands on the target under names of ours."""

    ours: dict[str, list[tuple[Row, Mark]]] = field(default_factory=lambda: defaultdict(list))
    """Key -> the replicas that carry it, oldest first."""
    others: dict[str, Row] = field(default_factory=dict)
    """Name -> somebody else's prompt of that name."""


async def rows_of(end: Source) -> tuple[list[Row], int]:
    """The whole listing and the total that the registry said. Raises Stop: without it nothing can be done."""
    rows: list[Row] = []
    total = 0
    try:
        async for page in end.pages():
            rows.extend(page.rows)
            total = page.total
    except Transient as error:
        raise _down("the prompts could not be listed", error) from error
    except Rejected as error:
        reason = "forbidden" if error.status == 403 else "check_failed"
        advice = "Give the key the right to list prompts, or mend base_url and workspace in the migration file."
        raise Stop(reason, f"the prompts could not be listed: {error}", next=advice) from error
    return rows, total


async def catalog_of(end: Source, kinds: Collection[str]) -> Catalog:
    """What prompts of that workspace refer to. Raises Stop when it cannot be asked for now."""
    try:
        return await end.catalog(kinds)
    except Transient as error:
        raise _down(f"{', '.join(sorted(kinds))} could not be listed", error) from error


def _down(what: str, error: Transient) -> Stop:
    return Stop("registry_down", f"{what}: {error}", next="Run it again later.")


async def look_up(
    job: Job, names: Collection[str], keys: Collection[str], rows: Iterable[Row], known: Collection[str]
) -> Found:
    """Reads the target's prompts with these names, but for the `known` replicas, and sorts them by their marks.

    A mark in a description names no migration: there the key must be one of `keys`. Raises Stop when one of them
    cannot be read now.
    """
    candidates = [row for row in rows if row.id not in known and _is_named(row.name, names)]
    candidates.reverse()  # registries list newest first: that tells apart what was made in one second
    marks = await _marks(job, candidates)
    found = Found()
    for row in sorted(candidates, key=lambda row: row.created_at or ""):
        mark = marks.get(row.id)
        if mark is not None and (mark.migration == job.migration or (not mark.migration and mark.key in keys)):
            found.ours[mark.key].append((row, mark))
        elif row.id in marks:
            found.others.setdefault(row.name, row)
    return found


def _is_named(name: str, names: Collection[str]) -> bool:
    """Under this name, or under the number that `on_existing: rename` puts behind it."""
    if name in names:
        return True
    numbered = _NUMBERED.fullmatch(name)
    return numbered is not None and numbered[1] in names


async def _marks(job: Job, candidates: Sequence[Row]) -> dict[str, Mark | None]:
    """Row id -> its mark; rows that are gone by now are left out."""
    marks: dict[str, Mark | None] = {}
    limiter = anyio.CapacityLimiter(job.concurrency)

    async def read(row: Row) -> None:
        async with limiter:
            try:
                prompt = await job.target.fetch(row.id)
            except Gone:
                return
            except Rejected:  # it is there, but nobody can say whose it is: not ours to take
                marks[row.id] = None
                return
            except Transient as error:  # it may be ours, and going on could double it
                raise _down(f"a prompt that may be a replica, {row.id}, could not be read", error) from error
            marks[row.id] = read_mark(prompt.metadata, prompt.description)

    async with task_group() as group:
        for row in candidates:
            group.start_soon(read, row)
    return marks
