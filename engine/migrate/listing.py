"""Listings and catalogs, whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial

from engine.content.selection import needs_definition, selects
from engine.errors import Gone, Rejected, Stop, Transient
from engine.model import Catalog, Failed, Named, Prompt, Row, Select, Source, packed_rows
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
        raise Stop(reason, f"the prompts could not be listed: {error}", next=_advice(error)) from error
    return rows, total


def _advice(error: Rejected) -> str:
    if error.status == 404:
        return "Mend base_url in the migration file: there is no list of prompts at that address."
    return "Give the key the right to list prompts, or mend base_url and workspace in the migration file."


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
    """A listing whose rows answer what was asked of them. `read`: how many definitions were read for that.
    `unlabelled`: ids of prompts that are selected but for the label that they lack.
    """

    rows: Sequence[Row]
    read: int = 0
    unread: Mapping[str, Failed | None] = field(default_factory=dict)
    """Row id -> why its definition could not be read (None: it is gone); the row is as silent as it was."""
    unlabelled: frozenset[str] = frozenset()


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
            found[row.id] = row._replace(model=prompt.model, collection=prompt.collection, whole=True)
        else:
            unread[row.id] = prompt

    await for_each((row for row in rows if silent(row)), ask, limit=concurrency)
    if not found and not unread:
        return Told(rows)
    return Told(packed_rows(found.get(row.id, row) for row in rows), len(found), unread)


async def with_labelled(
    rows: Sequence[Row],
    select: Select,
    collections: Sequence[Named] | None,
    read: Callable[[str], Awaitable[Prompt]],
    *,
    among: Callable[[Row], bool],
    concurrency: int,
) -> Told:
    """The same rows, where a label is selected: those that carry it with what that version says of itself. Raises Stop.

    `read` gives the version that carries the label, and Gone where none does; `among`: which rows are asked about.
    """
    candidates = [row for row in rows if among(row) and _may_be_selected(select, row, collections)]
    without = {row.id for row in candidates if row.labels is not None and select.label not in row.labels}
    asked = {row.id for row in candidates} - without
    told = await with_definitions(rows, lambda row: row.id in asked, read, concurrency=concurrency)
    without |= {prompt_id for prompt_id, failure in told.unread.items() if failure is None}
    unread = {prompt_id: failure for prompt_id, failure in told.unread.items() if failure is not None}
    return replace(told, unread=unread, unlabelled=frozenset(without))


def _may_be_selected(select: Select, row: Row, collections: Sequence[Named] | None) -> bool:
    """By all that another version of it has too: of models only the version that is asked for tells."""
    known = replace(select, models=(), collections=select.collections if row.collection is not None else ())
    return selects(known, row, collections)


async def inventoried(
    source: Source,
    rows: Sequence[Row],
    select: Select,
    collections: Sequence[Named] | None,
    replicas: Collection[str],
    *,
    concurrency: int,
) -> tuple[Told, Told]:
    """What the versions with the selected label say, and then all rows with their models. Raises Stop."""
    labelled, version = Told(rows), select.speaking
    if select.label is not None:
        read = partial(source.fetch, version=version)
        labelled = await with_labelled(
            rows, select, collections, read, among=lambda row: row.id not in replicas, concurrency=concurrency
        )
        version = "published"

    def silent(row: Row) -> bool:
        known = row.whole or row.id in labelled.unread
        return not known and (row.model is None or needs_definition(select, row, collections))

    read = partial(source.fetch, version=version)
    return labelled, await with_definitions(labelled.rows, silent, read, concurrency=concurrency)


def label_notes(select: Select, told: Told, selected: int, labels: Sequence[Named] | None) -> list[str]:
    """What is to be said of a label that prompts are selected by. `selected`: how many are; `labels`: of the source."""
    if select.label is None or not told.unlabelled:
        return []
    if not selected:
        near = get_close_matches(select.label, [one.name for one in labels or () if one.name != select.label], n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return [f"no prompt that select takes has a version with the label {select.label!r}{meant}"]
    count = len(told.unlabelled)
    return [f"{count} more {'prompt has' if count == 1 else 'prompts have'} no version with the label {select.label!r}"]


async def definition(reading: Awaitable[Prompt]) -> Prompt | Failed | None:
    """What has to be read before a prompt can be judged. Failed: not in this run; None: it is gone. Raises Stop."""
    try:
        return await reading
    except Gone:
        return None
    except (Rejected, Transient) as error:
        return Failed(error=error.error, message=str(error), status=error.status, code=error.code, retriable=True)


def told_by_definitions(count: int, select: Select) -> list[str]:
    """The note that `count` definitions were read to select by them."""
    if not count:
        return []
    if select.label is not None:
        return [f"{count} prompts were read to find the version with the label {select.label!r}: each run does so"]
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
