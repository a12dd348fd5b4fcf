"""What Phoenix lists: prompts, versions, tags, a page after the other; and what was made since the last look.

Listings go by a key, newest first, so rows stay where they are, and what is new stands before them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import anyio

from engine.connectors.phoenix.format import Head, head_of
from engine.errors import Stop
from engine.http.session import Client
from engine.model import Json

PROMPTS: Final = "/v1/prompts"
PAGE: Final = 100
NEWEST: Final = 20
"""Rows of a page where what was made meanwhile is looked for: most looks need one."""
WALKS: Final = 8
"""Looks at the first page for what was made meanwhile, before a listing counts as one that does not hold still."""


class Listing:
    """Of one server. `heads`: name -> what a prompt has besides versions, as the last listing or our own writes say."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.heads: dict[str, Head] = {}
        self.is_whole = False
        """Whether `heads` have all that was there at some time."""
        self._listed: set[str] = set()
        """Names that were in that listing, or found by a look."""
        self._looking = anyio.Lock()
        self._begun = self._looked = 0
        """Looks that began, and the last of these that went well."""

    async def whole(self) -> dict[str, Head]:
        """Every prompt once by its name, newest first. Stop when the listing does not hold still."""
        self.heads = await self._whole()
        self._listed, self.is_whole = set(self.heads), True
        return self.heads

    async def look(self) -> None:
        """Takes in what was made since the last listing or look. A look that began after a caller asked serves him."""
        asked = self._begun
        async with self._looking:
            if self._looked > asked:
                return
            self._begun += 1
            # down to a row that was listed before: one that is known because it was made here says nothing of others
            found = _by_name(await self.walk("prompts", PROMPTS, NEWEST, until=self._listed))
            self.heads |= found
            self._listed |= found.keys()
            self._looked = self._begun

    async def walk(
        self, what: str, path: str, size: int, cursor: str | None = None, *, until: Collection[str] = ()
    ) -> list[Json]:
        """Every row from the cursor on, as they come; to the first page, if any, that has a name of `until`."""
        rows, cursor = await self.page(what, path, size, cursor)
        seen: set[str] = set()
        more = rows
        while cursor is not None and not (until and any(name in until for name in _by_name(more))):
            if cursor in seen:
                raise _no_listing(what, "goes in a ring: a page names one that came before it")
            seen.add(cursor)
            more, cursor = await self.page(what, path, size, cursor)
            rows += more
        return rows

    async def page(self, what: str, path: str, size: int, cursor: str | None = None) -> tuple[list[Json], str | None]:
        """Rows, and where the next page begins; None: nowhere."""
        asked = {"limit": str(size), **({"cursor": cursor} if cursor is not None else {})}
        answer = await self._client.read(f"list {what}", path, asked, cap=self._client.limits.listing_cap)
        fields = answer if isinstance(answer, dict) else {}
        rows, after = fields.get("data"), fields.get("next_cursor")
        if not isinstance(rows, list) or not isinstance(after, str | None):
            raise _no_listing(what, "came without rows, or with a cursor that is none")
        return rows, after

    async def _whole(self) -> dict[str, Head]:
        rows, cursor = await self.page("prompts", PROMPTS, PAGE)
        if cursor is None:  # all in one answer
            return _by_name(rows)
        found = _by_name([*rows, *await self.walk("prompts", PROMPTS, PAGE, cursor)])
        for _ in range(WALKS):
            newer = _by_name((await self.page("prompts", PROMPTS, PAGE))[0])
            if newer.keys() <= found.keys():
                return found
            if newer.keys().isdisjoint(found):  # more was made meanwhile than a page holds
                newer = _by_name(await self.walk("prompts", PROMPTS, PAGE))
            found = newer | found
        raise Stop(
            "registry_down",
            f"the listing of prompts did not hold still: each of {WALKS} looks found new ones",
            next="Run it again when nobody else is creating prompts on this server.",
        )


def _by_name(rows: Sequence[Json]) -> dict[str, Head]:
    return {head.name: head for head in map(head_of, rows)}


def _no_listing(what: str, why: str) -> Stop:
    advice = "Check base_url: it should be the address of a Phoenix server, without /v1."
    return Stop("check_failed", f"the listing of {what} {why}", next=advice)
