"""What `--only`, `--collection` and `--ids-file` take: of a listing, and of a ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.content.selection import needs_definition, selects, takes, two_readings
from engine.model import Json, Named, Row, Select


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

    @property
    def parts(self) -> Select:
        """What of it a row of a listing has to tell, as parts of a selection."""
        return Select(ids=self.ids, collections=self.collections)

    def takes_row(self, row: Row, collections: Sequence[Named] | None) -> bool:
        """Whether this prompt of a listing is one of them, or may be, where the row does not tell."""
        if not self._named(row.name, row.id):
            return False
        return selects(self.parts, row, collections) or needs_definition(self.parts, row, collections)

    def readings(self, rows: Iterable[Row]) -> list[str]:
        """A sentence for each glob of `--only` that these rows allow to be read both ways."""
        return list(two_readings([("--only", glob) for glob in self.only], (row.name for row in rows)))

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
