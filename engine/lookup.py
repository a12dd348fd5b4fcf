"""Finds replicas on the target by name and mark: the answer to a lost answer, and to a lost ledger."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import anyio

from engine.content.digest import digest, read_mark
from engine.errors import Gone, Rejected, Stop, Transient
from engine.job import Job
from engine.model import Catalog, Failed, Mark, Prompt, Row, Source
from engine.tasks import both, for_each, task_group

NO_MARK: Final = Mark(migration="", key="", source_id="")
_NUMBERED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True, slots=True)
class Match:
    """A replica that was found, its mark, and the digest of what it holds now."""

    row: Row
    mark: Mark
    digest: str
    prompt: Prompt | None = None
    """As it is there, when it has no mark."""


@dataclass(frozen=True, slots=True)
class Found:
    """What stands on the target under names of ours."""

    ours: dict[str, list[Match]] = field(default_factory=lambda: defaultdict(list))
    """Key -> the replicas that carry it, oldest first."""
    others: dict[str, Row] = field(default_factory=dict)
    """Name -> somebody else's prompt of that name."""
    unmarked: dict[str, Match] = field(default_factory=dict)
    """Name -> one of those that has no mark at all, where a mark comes by a second call: it may be ours."""


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


async def listings(job: Job) -> tuple[list[Row], int, list[Row]]:
    """The rows of the source and their total, and the rows of the target: read at the same time, and only once where
    both are one workspace. Raises Stop.
    """
    if job.ends.same:
        rows, total = await rows_of(job.source)
        return rows, total, rows
    (rows, total), (target_rows, _) = await both(rows_of(job.source), rows_of(job.target))
    return rows, total, target_rows


@dataclass(frozen=True, slots=True)
class Told:
    """A listing whose rows answer what was asked of them. `read`: how many definitions were read for that."""

    rows: list[Row]
    read: int = 0
    unread: Mapping[str, Failed | None] = field(default_factory=dict)
    """Row id -> why its definition could not be read (None: it is gone); the row is as silent as it was."""


async def told(
    source: Source, rows: list[Row], silent: Callable[[Row], bool], *, version: str, concurrency: int
) -> Told:
    """The same rows; those that are `silent` on model or collection with what their definitions say. Raises Stop."""
    found: dict[str, Row] = {}
    unread: dict[str, Failed | None] = {}

    async def read(row: Row) -> None:
        prompt = await definition(source, row.id, version)
        if isinstance(prompt, Prompt):
            found[row.id] = replace(row, model=prompt.model, collection=prompt.collection, whole=True)
        else:
            unread[row.id] = prompt

    await for_each((row for row in rows if silent(row)), read, limit=concurrency)
    if not found and not unread:
        return Told(rows)
    return Told([found.get(row.id, row) for row in rows], len(found), unread)


async def definition(source: Source, prompt_id: str, version: str) -> Prompt | Failed | None:
    """What has to be read before a prompt can be judged. Failed: not in this run; None: it is gone. Raises Stop."""
    try:
        return await source.fetch(prompt_id, version)
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
        raise _down(f"{', '.join(sorted(kinds))} could not be listed", error) from error


def _down(what: str, error: Transient) -> Stop:
    return Stop("registry_down", f"{what}: {error}", next="Run it again later.")


async def look_up(
    job: Job, names: Collection[str], keys: Callable[[], Collection[str]], rows: Iterable[Row], known: Collection[str]
) -> Found:
    """Reads the target's prompts with these names, but for the `known` replicas, and sorts them by their marks.

    A mark in a description or a tag names no migration: there the key must be one of `keys`, which are made when they
    are needed. Raises Stop when a prompt cannot be read now.
    """
    candidates = [row for row in rows if row.id not in known and _is_named(row.name, names)]
    candidates.reverse()  # registries list newest first: that tells apart what was made in one second
    matches = await _matches(job, candidates)
    nameless = any(match is not None and match.mark.key and not match.mark.migration for match in matches.values())
    ours = keys() if nameless else ()
    found = Found()
    for row in sorted(candidates, key=lambda row: row.created_at or ""):
        match = matches.get(row.id)
        if match is not None and _is_ours(job, match.mark, ours):
            found.ours[match.mark.key].append(match)
        elif row.id in matches:
            found.others.setdefault(row.name, row)
            if match is not None and match.mark == NO_MARK:
                found.unmarked.setdefault(row.name, match)
    return found


def _is_ours(job: Job, mark: Mark, keys: Collection[str]) -> bool:
    return job.made(mark) or (not mark.migration and mark.key in keys)


def _is_named(name: str, names: Collection[str]) -> bool:
    """Under this name, or under the number that `on_existing: rename` puts behind it."""
    return name in names or numbered(name) in names


def numbered(name: str) -> str | None:
    """The name without the number that `on_existing: rename` put behind it; None: it has none."""
    found = _NUMBERED.fullmatch(name)
    return found[1] if found is not None else None


async def _matches(job: Job, candidates: Sequence[Row]) -> dict[str, Match | None]:
    """Row id -> the replica that it is, None for a prompt without a mark; rows that are gone by now are left out."""
    matches: dict[str, Match | None] = {}
    limiter = anyio.CapacityLimiter(job.concurrency)

    async def read(row: Row) -> None:
        async with limiter:
            try:
                prompt = await job.target.fetch(row.id)
            except Gone:
                return
            except Rejected:  # it is there, but nobody can say whose it is: not ours to take
                matches[row.id] = None
                return
            except Transient as error:  # it may be ours, and going on could double it
                raise _down(f"a prompt that may be a replica, {row.id}, could not be read", error) from error
            mark = read_mark(prompt.metadata, prompt.description) or (None if job.target.can.marks else NO_MARK)
            kept = prompt if mark == NO_MARK else None
            matches[row.id] = Match(row, mark, digest(prompt), kept) if mark is not None else None

    async with task_group() as group:
        for row in candidates:
            group.start_soon(read, row)
    return matches
