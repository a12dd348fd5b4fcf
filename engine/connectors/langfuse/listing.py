"""Walks the numbered pages of the listing, and never takes what shifted meanwhile for the whole.

Pages are cut anew for every request: whoever makes or deletes a prompt between two of them moves rows from one page to
another, and one is missed though the total is as before. One page is whole by itself; of several, two walks must find
the same rows. Rows of one name that differ in tags, which a server shows while it changes them, are one prompt.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from engine.connectors.langfuse.format import Item, texts_in
from engine.errors import Stop
from engine.model import Json

PAGE_SIZE: Final = 100
"""The most that a server takes."""
WALKS: Final = 4

ReadPage = Callable[[Mapping[str, str]], Awaitable[Json]]


async def walk(read: ReadPage, **filters: str) -> list[Item]:
    """Every prompt that the filters take, once each. Raises Stop when the listing cannot be had whole."""
    before: dict[str, Item] | None = None
    for _ in range(WALKS):
        rows, whole, pages = await _once(read, filters)
        if whole and (pages <= 1 or rows == before):
            return list(rows.values())
        before = rows if whole else None
    raise Stop(
        "registry_down",
        f"the listing of prompts did not hold still: {WALKS} walks over its pages found other rows each time; "
        "somebody is creating or deleting meanwhile",
        next="Run it again when nobody else is changing this project.",
    )


async def _once(read: ReadPage, filters: Mapping[str, str]) -> tuple[dict[str, Item], bool, int]:
    """One walk: the prompts by name, whether they are as many as is claimed on each page, and how many pages."""
    rows: dict[str, Item] = {}
    totals: set[int] = set()
    number, pages, count = 0, 1, 0
    while number < pages:
        number += 1
        data, pages, total = _page(await read({**filters, "page": str(number), "limit": str(PAGE_SIZE)}))
        totals.add(total)
        count += len(data)
        for row in data:
            name = row["name"]
            rows[name] = _merged(rows[name], row) if name in rows else row
    return rows, totals <= {len(rows)} or totals <= {count}, pages


def _merged(one: Item, other: Item) -> Item:
    newest, older = (one, other) if _last(one) >= _last(other) else (other, one)
    return newest | {
        "versions": sorted({*_versions(one), *_versions(other)}),
        "labels": sorted({*texts_in(one.get("labels")), *texts_in(other.get("labels"))}),
        "lastUpdatedAt": max(str(newest.get("lastUpdatedAt")), str(older.get("lastUpdatedAt"))),
    }


def _versions(row: Item) -> list[int]:
    versions = row.get("versions")
    return [one for one in versions if isinstance(one, int)] if isinstance(versions, list) else []


def _last(row: Item) -> int:
    return max(_versions(row), default=0)


def _page(answer: Json) -> tuple[list[Item], int, int]:
    """Rows, how many pages there are, and how many rows in all. Stop for what is no listing."""
    fields: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    meta = fields["meta"] if isinstance(fields.get("meta"), dict) else {}
    data, pages, total = fields.get("data"), meta.get("totalPages"), meta.get("totalItems")
    if (
        not isinstance(data, list)
        or not isinstance(pages, int)
        or not isinstance(total, int)
        or not all(_has_name(row) for row in data)
    ):
        raise Stop(
            "check_failed",
            "the listing of prompts came without rows, names or a total, so nobody can tell whether it is whole",
            next="Check base_url: it should be the address of the Langfuse server, without /api.",
        )
    return data, pages, total


def _has_name(row: Json) -> bool:
    return isinstance(row, dict) and isinstance(row.get("name"), str)
