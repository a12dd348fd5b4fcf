"""What is looked for, and what takes its place: from the map of a migration, in either direction. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from engine.errors import ConfigError, Problem
from engine.model import Json

Kind = Literal["id", "slug", "name"]
Row = Mapping[str, Json]
SIDES: Final = (("source_id", "source_slug", "source_name"), ("target_id", "target_slug", "name"))
"""Id, slug and name of the original, and of its replica."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One text that is looked for. `news`: what may take its place; of more than one nobody can tell which. `spared`:
    it may be any word of a text, and is found but not replaced.
    """

    old: str
    news: tuple[str, ...]
    kind: Kind
    spared: bool = False

    @property
    def new(self) -> str | None:
        """What it is called now; None: nobody can tell."""
        return self.news[0] if len(self.news) == 1 else None

    @property
    def perhaps(self) -> bool:
        """Whether nobody can tell that it is one: a name that nobody asked for. An id is one, though it is a name."""
        return self.spared and self.kind == "name"

    @property
    def instead(self) -> str | None:
        """What takes its place; None: it stays."""
        return None if self.spared else self.new


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All of them."""

    pairs: Sequence[Pair]

    @property
    def words(self) -> list[str]:
        """Ids and slugs that are no more than the name of their prompt, and are not replaced for it."""
        return [pair.old for pair in self.pairs if pair.spared and not pair.perhaps]

    @property
    def chained(self) -> list[str]:
        """What is both old and new: a second rewriting would go on where the first one ended."""
        replaced = [pair for pair in self.pairs if not pair.spared]
        news = {new for pair in replaced for new in pair.news}
        return [pair.old for pair in replaced if pair.old in news]

    @property
    def unclear(self) -> list[Pair]:
        """What nobody can replace."""
        return [pair for pair in self.pairs if pair.new is None and not pair.spared]


@dataclass(frozen=True, slots=True)
class _Way:
    """From one side of a row to the other. `plain`: it may be any word of a text."""

    old: str
    new: str
    kind: Kind
    plain: bool


def table_of(rows: Iterable[Row], *, names: bool, reverse: bool) -> Table:
    """Of rows as `ids` has them. `names`: names are replaced, too, and ids that are only the name of their prompt.

    Raises ConfigError where an id or slug stands for two others, and in `reverse` where anything does: each is named.
    """
    ways = [_turned(row, way) if reverse else way for row in rows for way in _ways(row)]
    certain = _joined(way for way in ways if not way.plain)
    plain = [way for way in ways if way.plain]
    named = _joined(sorted(plain, key=lambda way: way.kind == "name"))  # what is an id, too, is looked for as one
    if not names:
        named = {old: replace(pair, spared=True) for old, pair in named.items()}
    pairs = [pair for pair in {**named, **certain}.values() if pair.news != (pair.old,)]
    _refuse_doubt(pair for pair in pairs if pair.new is None and not pair.spared and (reverse or pair.old not in named))
    return Table(pairs=pairs)


def _ways(row: Row) -> Iterator[_Way]:
    """Id to id, slug to slug, or what there is of the two; name to name, unless the id is the name."""
    (own_id, own_slug, own_name), (its_id, its_slug, its_name) = (
        tuple(str(row.get(part) or "") for part in side) for side in SIDES
    )
    found: list[tuple[str, str, Kind]] = [(own_id, its_id or its_slug, "id"), (own_slug, its_slug or its_id, "slug")]
    if own_name not in (own_id, own_slug):
        found.append((own_name, its_name, "name"))
    for old, new, kind in found:
        if old and new:
            yield _Way(old, new, kind, plain=old == own_name)


def _turned(row: Row, way: _Way) -> _Way:
    return _Way(way.new, way.old, way.kind, plain=way.new == row.get("name"))


def _joined(ways: Iterable[_Way]) -> dict[str, Pair]:
    found: dict[str, Pair] = {}
    for way in ways:
        before = found.get(way.old) or Pair(way.old, (), way.kind)
        if way.new not in before.news:
            before = Pair(way.old, (*before.news, way.new), before.kind)
        found[way.old] = before
    return found


def _refuse_doubt(pairs: Iterable[Pair]) -> None:
    problems = [
        Problem(f"{pair.old!r} stands for {' and '.join(map(repr, pair.news))}: nobody can tell which is meant")
        for pair in pairs
    ]
    if problems:
        raise ConfigError(problems)
