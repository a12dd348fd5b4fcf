"""Listings and catalogs, whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.errors import Gone, Rejected, Stop, Transient
from engine.model import Catalog, Failed, Prompt, Row, Source, packed_rows
from engine.taskgroup import both, for_each

Listed = tuple[Sequence[Row], int, Sequence[Row]]
"""The rows of the source, their total, and the rows of the target."""


async def rows_of(end: Source) -> tuple[Sequence[Row], int]:
    """The whole listing and the total that the registry said. Raises Stop: without it nothing can be done."""
    rows = packed_rows()
    total = 0
    try:
        async for page in end.pages():
            rows.extend(page.rows)
            total = page.total
    except Transient as error:
        raise down("the prompts could not be listed", error) from error
    except Rejected as error:
        reason = "forbidden" if error.status == 403 else "check_failed"
        advice = "Give the key the right to list prompts, or mend base_url and workspace in the migration file."
        raise Stop(reason, f"the prompts could not be listed: {error}", next=advice) from error
    return rows, total


async def listings(source: Source, target: Source, *, same: bool) -> Listed:
    """The rows of the source and their total, and the rows of the target: read at the same time, and only once where
    both are one workspace. Raises Stop.
    """
    if same:
        rows, total = await rows_of(source)
        return rows, total, rows
    (rows, total), (target_rows, _) = await both(rows_of(source), rows_of(target))
    return rows, total, target_rows


@dataclass(frozen=True, slots=True)
class Told:
    """A listing whose rows answer what was asked of them. `read`: how many definitions were read for that."""

    rows: Sequence[Row]
    read: int = 0
    unread: Mapping[str, Failed | None] = field(default_factory=dict)
    """Row id -> why its definition could not be read (None: it is gone); the row is as silent as it was."""


async def with_definitions(
    rows: Sequence[Row], silent: Callable[[Row], bool], read: Callable[[str], Awaitable[Prompt]], *, concurrency: int
) -> Told:
    """The same rows; those that are `silent` on model or collection with what their definitions say. Raises Stop.

    `read` gives the definition of an id.
    """
    found: dict[str, Row] = {}
    unread: dict[str, Failed | None] = {}

    async def ask(row: Row) -> None:
        prompt = await definition(read(row.id))
        if isinstance(prompt, Prompt):
            found[row.id] = replace(row, model=prompt.model, collection=prompt.collection, whole=True)
        else:
            unread[row.id] = prompt

    await for_each((row for row in rows if silent(row)), ask, limit=concurrency)
    if not found and not unread:
        return Told(rows)
    return Told(packed_rows(found.get(row.id, row) for row in rows), len(found), unread)


async def definition(reading: Awaitable[Prompt]) -> Prompt | Failed | None:
    """What has to be read before a prompt can be judged. Failed: not in this run; None: it is gone. Raises Stop."""
    try:
        return await reading
    except Gone:
        return None
    except (Rejected, Transient) as error:
        return Failed(error=error.error, message=str(error), status=error.status, code=error.code, retriable=True)


def told_by_definitions(count: int) -> list[str]:
    """The note that `count` definitions were read to select by them."""
    if not count:
        return []
    return [f"the listing does not tell model and collection of {count} prompts: they were read to select by them"]


async def catalog_of(end: Source, kinds: Collection[str]) -> Catalog:
    """What prompts of that workspace refer to. Raises Stop when it cannot be asked for now."""
    try:
        return await end.catalog(kinds)
    except Transient as error:
        raise down(f"{', '.join(sorted(kinds))} could not be listed", error) from error


def down(what: str, error: Transient) -> Stop:
    """The registry cannot be asked now."""
    return Stop("registry_down", f"{what}: {error}", next="Run it again later.")
