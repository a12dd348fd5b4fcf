"""Walks numbered pages of a listing that says its total, and never takes a short list for the whole.

Neither the number of the first page nor the largest page is documented, other people create and delete meanwhile,
and rows may be repeated. So rows are counted by id against the total, a walk in which the total moved is no walk, and
the first page is read once more at the end: a row there that was not seen means that rows have shifted. That shows
every change only where new rows come first; in any other order two walks must find the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from engine.errors import Rejected, Stop
from engine.model import Json
from engine.model.packed import PackedList
from engine.taskgroup import task_group

T = TypeVar("T")

PAGE_SIZE: Final = 100
WALKS: Final = 4
MOST_AHEAD: Final = 256
"""Pages that are read together: a registry that repeats itself must not be asked for all that it claims to have."""
QUIET_PAGES: Final = 2
"""Pages running without a new id after which a walk is over: the first page may answer to both 0 and 1."""
SIZE_REFUSED: Final = (400, 422)
NO_SUCH_PAGE: Final = (400, 404, 422)


@dataclass(frozen=True, slots=True)
class Listing:
    """One answer: its rows, objects that have an id, and the total it claims."""

    rows: Sequence[dict[str, Json]]
    total: int


Rows = list[T] | PackedList[T]
Rowed = tuple[int, dict[str, T]] | None
"""The total that a page tells and its rows by id; None: the registry has no page of that number."""
ReadPage = Callable[[dict[str, str]], Awaitable[Json]]


@dataclass(slots=True)
class _Walked(Generic[T]):
    """What a walk has found so far: each row once, where it first stood."""

    rows: Rows[T]
    created: Callable[[T], Json]
    ids: set[str] = field(default_factory=set)
    newest_first: bool = True
    """Then whatever is created while a walk goes on shows on the first page."""
    _oldest: Json = None

    def take(self, page: Mapping[str, T]) -> bool:
        """Whether there was a new one among them."""
        known = len(self.ids)
        for prompt_id, row in page.items():
            if prompt_id not in self.ids:
                self.ids.add(prompt_id)
                self.rows.append(row)
                self._compare(self.created(row))
        return len(self.ids) > known

    def _compare(self, time: Json) -> None:
        follows = self._oldest is None or (isinstance(time, str) and self._oldest >= time)
        self.newest_first = self.newest_first and isinstance(time, str) and follows
        self._oldest = time if self.newest_first else None


async def walk(
    read: ReadPage,
    what: str,
    keep: Callable[[Json], T],
    created: Callable[[T], Json],
    rows: Callable[[], Rows[T]] = list,
) -> Rows[T]:
    """Every row of a listing, each id once. `read` takes the paging parameters; Stop when it cannot be had whole.

    `keep` makes of a row what is kept of it, page by page, for rows as they come are large; `created`: when that was
    created; `rows`: what they are put in, empty.
    """
    size, first = await _first(read, what)
    found = _Walked(rows(), created)
    found.take(_by_id(first.rows, keep))
    if len(found.ids) == first.total and len(found.ids) < PAGE_SIZE:
        return found.rows
    totals: set[int] = {first.total}
    before = found.ids
    for _ in range(WALKS):
        before, found = found.ids, _Walked(rows(), created)
        pages = math.ceil(max(totals) / max(1, len(first.rows)))
        settled = await _once(read, size, what, pages, totals, keep, found)
        if settled and (found.newest_first or found.ids == before):
            return found.rows
    raise _not_whole(what, len(found.ids), totals, same=found.ids == before)


async def walk_raw(read: ReadPage, what: str) -> list[Json]:
    """The same, with rows as they come."""
    return list(await walk(read, what, lambda row: row, lambda row: row.get("created_at")))


async def _first(read: ReadPage, what: str) -> tuple[dict[str, str], Listing]:
    """The answer without a page number, and the page size to go on with: a server may refuse ours."""
    size = {"page_size": str(PAGE_SIZE)}
    try:
        return size, listing(await read(size), what)
    except Rejected as error:
        if error.status not in SIZE_REFUSED:
            raise
    return {}, listing(await read({}), what)


async def _once(
    read: ReadPage,
    size: dict[str, str],
    what: str,
    pages: int,
    totals: set[int],
    keep: Callable[[Json], T],
    found: _Walked[T],
) -> bool:
    """One walk of so many `pages`, or a few more: whether what it has `found` is the whole."""
    moved: set[int] = set()
    number = quiet = 0
    together = min(pages, MOST_AHEAD)

    def take(page: Rowed[T]) -> None:
        nonlocal quiet, together
        if page is None:
            quiet += 1
            return
        total, rows = page
        moved.add(total)
        quiet = 0 if found.take(rows) else quiet + 1
        # a full page proves nothing: the total may be that of the page
        if len(found.ids) > total or (len(found.ids) == total and len(rows) < PAGE_SIZE):
            together = 0

    while quiet < QUIET_PAGES and together:
        asked = range(number, number + together)
        await _pages(read, size, what, asked, keep, take)
        number += len(asked)
        together = min(together, max(1, pages - number), MOST_AHEAD)
    again = listing(await read(size), what)
    moved.add(again.total)
    totals |= moved
    return moved == {len(found.ids)} and _by_id(again.rows, keep).keys() <= found.ids


async def _pages(
    read: ReadPage,
    size: dict[str, str],
    what: str,
    numbers: Sequence[int],
    keep: Callable[[Json], T],
    take: Callable[[Rowed[T]], None],
) -> None:
    """Reads these pages together; `take` gets them in their order, each as soon as all before it are there."""
    found: dict[int, Rowed[T]] = {}
    due = iter(numbers)
    following = next(due)

    async def one(number: int) -> None:
        nonlocal following
        page = await _page(read, {**size, "current_page": str(number)}, what)
        found[number] = None if page is None else (page.total, _by_id(page.rows, keep))
        while following in found:
            take(found.pop(following))
            following = next(due, -1)

    async with task_group() as group:
        for number in numbers:
            group.start_soon(one, number)


async def _page(read: ReadPage, parameters: dict[str, str], what: str) -> Listing | None:
    """One page; None when the registry has no page of that number."""
    try:
        return listing(await read(parameters), what)
    except Rejected as error:
        if error.status in NO_SUCH_PAGE:
            return None
        raise


def listing(answer: Json, what: str) -> Listing:
    """One page of a listing. Stop for anything else, which is no answer of this registry's API."""
    fields = answer if isinstance(answer, dict) else {}
    rows, total = fields.get("data"), fields.get("total")
    if isinstance(answer, list):  # the published form of some listings: bare and whole
        rows, total = answer, len(answer)
    if not isinstance(rows, list) or not isinstance(total, int) or isinstance(total, bool):
        raise no_listing(what, "came without rows or without a total, so nobody can tell whether it is whole")
    if not all(_has_id(row) for row in rows):
        raise no_listing(what, "has a row without an id")
    return Listing(rows, total)


def no_listing(what: str, why: str) -> Stop:
    """What came in its place is no answer of this registry's API."""
    advice = "Check base_url: it should be the address of the registry's API."
    return Stop("check_failed", f"the listing of {what} {why}", next=advice)


def _has_id(row: Json) -> bool:
    return isinstance(row, dict) and isinstance(row.get("id"), str) and bool(row["id"])


def _by_id(rows: Sequence[dict[str, Json]], keep: Callable[[Json], T]) -> dict[str, T]:
    return {row["id"]: keep(row) for row in rows}


def _not_whole(what: str, found: int, totals: set[int], *, same: bool) -> Stop:
    """Why the walks did not give the whole; `same`: the last two found the same rows."""
    said = " then ".join(str(total) for total in sorted(totals))
    if len(totals) > 1 or not same or found in totals:
        return Stop(
            "registry_down",
            f"the listing of {what} did not hold still: {WALKS} walks found {found}, and the registry claimed {said}; "
            "somebody is creating or deleting meanwhile",
            next="Run it again when nobody else is changing this workspace.",
        )
    if found > max(totals):
        return Stop(
            "check_failed",
            f"the listing of {what} is longer than it says: {WALKS} walks found {found} or more, "
            f"and the registry claims {said}",
            next="Ask the registry's operator why its total is less than its rows; nothing was taken for the whole.",
        )
    return Stop(
        "check_failed",
        f"the listing of {what} is short: {WALKS} walks found {found} of the {said} that the registry claims",
        next="Ask the registry's operator why pages repeat or rows are missing; nothing was taken for the whole.",
    )
