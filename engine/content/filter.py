"""What `--only`, `--collection` and `--ids-file` take: of a listing, and of a ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from engine.content.selection import needs_definition, selects, takes, two_readings
from engine.model import Json, Named, Row, Select

_COLLECTION: Final = ("source_collection", "source_collection_id")
"""What a line of a ledger says of it: its slug, and its id where that is something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The prompts that a command is about; empty: all of them."""

    only: Sequence[str] = ()
    """Globs on the name or the id."""
    collections: Sequence[str] = ()
    """Slugs or ids."""
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
            and (not self.collections or any(line.get(name) in self.collections for name in _COLLECTION))
            and (not self.ids or source_id in self.ids or line.get("source_slug") in self.ids)
        )

    def takes_none(self, taken: int, there: int, what: str) -> list[str]:
        """The note that these flags take none of what is there, where that is so. `what`: how the things are called."""
        if self.everything or taken or not there:
            return []
        flags = {"--only": self.only, "--collection": self.collections, "--ids-file": self.ids}
        given = " and ".join(flag for flag, value in flags.items() if value)
        return [f"{given} {'takes' if ' and ' not in given else 'take'} none of the {there:,} {what}"]

    def _named(self, name: str, prompt_id: str) -> bool:
        return not self.only or any(takes(glob, name) or takes(glob, prompt_id) for glob in self.only)
