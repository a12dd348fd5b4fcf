"""Where the replicas of a listing go: their names must be known before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from engine.content.rewrite import Placement, place
from engine.migrate.job import Job
from engine.migrate.listing import definition
from engine.model import Failed, Prompt, Row, packed_rows
from engine.model.packed import Columns, Fields, PackedList, maker
from engine.taskgroup import for_each

Placed = tuple[Row, Placement]


@dataclass(frozen=True, slots=True)
class Places:
    """Rows, and where the replica of each goes; None: nobody asked, or nobody knows."""

    job: Job
    rows: Sequence[Row]
    told: Sequence[Placement | None]
    """By the rows, in their order."""
    read: Mapping[str, Placement]
    """Row id -> what its definition says, where a rule asks for it."""
    unread: Mapping[str, Failed | None]
    """Row id -> why its definition could not be read; None: it is gone."""

    def __iter__(self) -> Iterator[tuple[Row, Placement | None]]:
        for row, told in zip(self.rows, self.told, strict=True):
            yield row, told or self.read.get(row.id)

    def names(self) -> Iterator[str]:
        """Of the replicas whose place is known."""
        return (placement.name for placement in chain(self.told, self.read.values()) if placement is not None)

    def of(self, row: Row) -> Placement | None:
        """Where the replica of one of them goes."""
        return self.read.get(row.id) or place(row, self.job.rules, self.job.ends)

    def known(self) -> Iterator[Placed]:
        """Those that are known."""
        return ((row, placement) for row, placement in self if placement is not None)


async def find_places(job: Job, rows: Sequence[Row], asked: Callable[[Row], bool] | None = None) -> Places:
    """Of the rows that are `asked` for; reads the definition only where a rule asks for it. Raises Stop.

    Without its name nobody can look for a replica that no ledger knows, so such a prompt must not be created.
    """
    read: dict[str, Placement] = {}
    unread: dict[str, Failed | None] = {}
    silent = packed_rows()

    def told(row: Row) -> Placement | None:
        if asked is not None and not asked(row):
            return None
        placement = place(row, job.rules, job.ends)
        if placement is None:
            silent.append(row)
        return placement

    async def ask(row: Row) -> None:
        prompt = await definition(job.read_ahead(row.id))
        if isinstance(prompt, Prompt):
            done = job.rewritten(prompt).prompt
            read[row.id] = Placement(name=done.name, collection=done.collection)
        else:
            unread[row.id] = prompt

    places = PackedList(_PLACEMENTS, map(told, rows))
    await for_each(silent, ask, limit=job.concurrency)
    return Places(job, rows, places, read, unread)


def _flat(page: Sequence[Placement | None]) -> Fields:
    return tuple(zip(*(placement or _NOWHERE for placement in page), strict=True))


def _whole(fields: Fields) -> list[Placement | None]:
    return [_made(flat) if flat[0] is not None else None for flat in zip(*fields, strict=True)]


_made: Final = maker(Placement)
_NOWHERE: Final = (None, None)
_PLACEMENTS: Final = Columns(_flat, _whole)
