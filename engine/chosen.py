"""What `--only`, `--collection` and `--ids-file` take: of a listing, and of a ledger. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.model import Json, Named, Row, Select
from engine.selection import selects, takes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The prompts that a command is about; empty: all of them."""

    only: Sequence[str] = ()
    """Globs on the name or the id."""
    collections: Sequence[str] = ()
    """Slugs, or ids where the slug is not known."""
    ids: Sequence[str] = ()

    @property
    def everything(self) -> bool:
        """Whether nothing was narrowed down."""
        return not (self.only or self.collections or self.ids)

    def takes_row(self, row: Row, collections: Sequence[Named] | None) -> bool:
        """Whether this prompt of a listing is one of them."""
        parts = Select(ids=self.ids, collections=self.collections)
        return self._named(row.name, row.id) and selects(parts, row, collections)

    def takes_line(self, line: Mapping[str, Json]) -> bool:
        """Whether this line of a ledger speaks of one of them."""
        source_id = line.get("source_id") or ""
        return (
            self._named(line.get("source_name") or "", source_id)
            and (not self.collections or line.get("source_collection") in self.collections)
            and (not self.ids or source_id in self.ids or line.get("source_slug") in self.ids)
        )

    def _named(self, name: str, prompt_id: str) -> bool:
        return not self.only or any(takes(glob, name) or takes(glob, prompt_id) for glob in self.only)
