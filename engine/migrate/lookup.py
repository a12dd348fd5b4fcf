"""Finds replicas on the target by name and mark: the answer to a lost answer, and to a lost ledger."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from engine.content.digest import digest, read_mark
from engine.errors import Gone, Rejected, Transient
from engine.migrate.job import Job
from engine.migrate.listing import down
from engine.migrate.task import Match
from engine.model import Mark, Row
from engine.taskgroup import for_each

NO_MARK: Final = Mark(migration="", key="", source_id="")
_NUMBERED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True, slots=True)
class Found:
    """What stands on the target under names of ours."""

    ours: dict[str, list[Match]] = field(default_factory=lambda: defaultdict(list))
    """Key -> the replicas that carry it, oldest first."""
    others: dict[str, Row] = field(default_factory=dict)
    """Name -> somebody else's prompt of that name."""
    unmarked: dict[str, Match] = field(default_factory=dict)
    """Name -> one of those that has no mark at all, where a mark comes by a second call: it may be ours."""


async def look_up(
    job: Job, names: Collection[str], keys: Callable[[], Collection[str]], rows: Iterable[Row], known: Collection[str]
) -> Found:
    """Reads the target's prompts with these names, but for the `known` replicas, and sorts them by their marks.

    A mark in a description or a tag names no migration: there the key must be one of `keys`, which are made when they
    are needed. Raises Stop when a prompt cannot be read now.
    """
    if not names:
        return Found()
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

    async def read(row: Row) -> None:
        try:
            prompt = await job.target.fetch(row.id)
        except Gone:
            return
        except Rejected:  # it is there, but nobody can say whose it is: not ours to take
            matches[row.id] = None
            return
        except Transient as error:  # it may be ours, and going on could double it
            raise down(f"a prompt that may be a replica, {row.id}, could not be read", error) from error
        mark = read_mark(prompt.metadata, prompt.description) or (None if job.target.can.marked_at_once else NO_MARK)
        kept = prompt if mark == NO_MARK else None
        matches[row.id] = Match(row, mark, digest(prompt), kept) if mark is not None else None

    await for_each(candidates, read, limit=job.concurrency)
    return matches
