"""What a listing says about a workspace: prompts by model and by collection, and what `select` takes of them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.content.selection import near_misses, needs_definition, selects, takes
from engine.model import Named, Row, Select

NO_MODEL = "(none)"
NOT_KNOWN = "(not known)"
"""The model of a prompt whose row does not tell it and whose definition could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """How many prompts have this model, or lie in this collection."""

    name: str
    listed: int
    selected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One workspace, counted. `near_misses`: models that the globs look as if they meant and do not take."""

    listed: int
    replicas: int
    """Of those listed: replicas of this migration, which are never selected."""
    selected: int
    models: Sequence[Group]
    collections: Sequence[Group]
    near_misses: Sequence[str]
    unread: Sequence[str] = ()
    """Names of the prompts that only their definitions could tell of, and that could not be read."""
    notes: Sequence[str] = ()
    """On what was passed over, read, or may be meant otherwise."""

    def to_json(self) -> dict[str, Any]:
        """The object of `inventory --json`."""
        return asdict(self)

    def matching(self, glob: str) -> list[Group]:
        """The models in use that a glob takes, for `--expect-none`, and those that nobody knows."""
        return [group for group in self.models if takes(glob, group.name) or group.name == NOT_KNOWN]


def count(
    rows: Sequence[Row],
    select: Select,
    collections: Sequence[Named] | None,
    replicas: Collection[str],
    *,
    unread: Collection[str] = (),
    unlabelled: Collection[str] = (),
    notes: Sequence[str] = (),
) -> Inventory:
    """Counts a whole listing; largest groups first. `replicas`: ids of this migration's own, as the ledger has them.
    `unread`: ids of rows that do not tell all; they count as selected where they may be. `unlabelled`: ids of those
    without the label that is selected.
    """

    def taken(row: Row) -> bool:
        return selects(select, row, collections) or (row.id in unread and needs_definition(select, row, collections))

    def model(row: Row) -> str:
        return row.model or (NOT_KNOWN if row.id in unread else NO_MODEL)

    spared = {*replicas, *unlabelled}
    selected = {row.id for row in rows if row.id not in spared and taken(row)}
    slugs = {one.id: one.slug for one in collections or ()}
    models = {row.model for row in rows if row.model is not None}
    return Inventory(
        listed=len(rows),
        replicas=sum(row.id in replicas for row in rows),
        selected=len(selected),
        models=_groups(((model(row), row.id) for row in rows), selected),
        collections=_groups(
            ((slugs.get(row.collection or "", row.collection or NO_MODEL), row.id) for row in rows), selected
        ),
        near_misses=near_misses(select.models, models),
        unread=[row.name for row in rows if row.id in unread],
        notes=list(notes),
    )


def _groups(pairs: Iterable[tuple[str, str]], selected: Collection[str]) -> list[Group]:
    listed: dict[str, list[str]] = {}
    for name, row_id in pairs:
        listed.setdefault(name, []).append(row_id)
    groups = [
        Group(name=name, listed=len(ids), selected=sum(one in selected for one in ids)) for name, ids in listed.items()
    ]
    return sorted(groups, key=lambda group: (-group.listed, group.name))
