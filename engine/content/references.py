"""What a prompt refers to, and what stands for it at the target: collections, providers, partials. Pure.

What is missing there is said in a sentence; what is to be made there is named besides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from engine.content.selection import find, meant
from engine.content.templates import MUSTACHE
from engine.model import Catalog, Named, PartKey, Rule
from engine.model.dialect import Dialect, NameRule
from engine.model.frozen import frozen

_FIRST: Final = "1"
"""The version that a partial has when it was made."""


@dataclass(frozen=True, slots=True)
class Ends:
    """Both workspaces and what is in them. `same`: they are one, so what is kept needs no mapping. `dialects`: those
    that prompts of the source may be written in, by name; `dialect`: the target's, None: they go as they come; `names`:
    which it takes, None: any.
    """

    same: bool
    source: Catalog
    target: Catalog
    dialects: Mapping[str, Dialect] = field(default_factory=dict)
    dialect: Dialect | None = None
    names: NameRule | None = None
    create: frozenset[str] = frozenset()
    """What is to be made at the target where it is missing: fields of Catalog."""
    made: Mapping[PartKey, Counterpart] = field(default_factory=dict)
    """What was made there for what is at the source: it goes before whatever else is alike."""
    unmade: Mapping[PartKey, str] = field(default_factory=dict)
    """Why it could not be made."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """What was made at the target, or is going to be. `version`: of a partial, the one at the source that became its
    first.
    """

    named: Named
    version: str | None = None


@dataclass(frozen=True, slots=True)
class _Kind:
    """`key` is its place in the file, `of` finds them in a catalog, `held` is what a prompt holds of one."""

    word: str
    key: str
    of: Callable[[Catalog], Sequence[Named] | None]
    held: Callable[[Named], str]


@frozen()
class Reference:
    """What a reference becomes; left as it is when something is missing."""

    value: str | None
    missing: str = ""
    note: str = ""
    lacks: PartKey | None = None
    """It is missing, and is to be made."""
    made: Counterpart | None = None
    """It was."""


COLLECTION: Final = _Kind("collection", "rewrite.collection", attrgetter("collections"), attrgetter("id"))
PROVIDER: Final = _Kind("provider", "rewrite.provider", attrgetter("providers"), attrgetter("slug"))
_PARTIAL: Final = _Kind("partial", "rewrite.partials", attrgetter("partials"), attrgetter("slug"))


def _partial(slug: str, mapped: str | None, ends: Ends) -> Reference:
    if mapped or ends.same or ends.target.partials is not None or "partials" in ends.target.words:
        return refer(_PARTIAL, slug, mapped, ends)
    advice = "map it in rewrite.partials, or use a key that may list partials"
    # unlike a collection or a provider it would not be refused: it would render as nothing
    return Reference(slug, missing=f"partial '{slug}' cannot be looked up in the target workspace: {advice}")


def refer(kind: _Kind, kept: str | None, chosen: str | None, ends: Ends) -> Reference:
    if f"{kind.word}s" in ends.target.words:
        own = find(kind.of(ends.source), kept) if kept is not None else None
        return Reference(chosen or (own.slug if own is not None else kept))
    target = kind.of(ends.target)
    if chosen is not None:
        return Reference(chosen) if target is None else _named_in_file(kind, kept, chosen, target)
    if kept is None or ends.same:
        return Reference(kept)
    if target is None:
        return Reference(kept, note=f"{kind.word} '{kept}' is kept unchecked: the target's {kind.word}s are not known")
    own = find(kind.of(ends.source), kept)
    if own is None and f"{kind.word}s" in ends.create.intersection(ends.source.words):
        own = Named(id=kept, slug=kept, name=kept)
    return _unlisted(kind, kept, target) if own is None else _like(kind, kept, own, target, ends)


def _named_in_file(kind: _Kind, kept: str | None, chosen: str, target: Sequence[Named]) -> Reference:
    if len(found := meant(target, chosen)) == 1:
        return Reference(kind.held(found[0]))
    return Reference(kept, missing=_absent(kind, chosen, found, f"mend {kind.key}"))


def _unlisted(kind: _Kind, kept: str, target: Sequence[Named]) -> Reference:
    """What the source does not list: by id or slug alone."""
    one = find(target, kept)
    return (
        Reference(kind.held(one)) if one else Reference(kept, missing=_absent(kind, kept, (), f"map it in {kind.key}"))
    )


def _like(kind: _Kind, kept: str, own: Named, target: Sequence[Named], ends: Ends) -> Reference:
    """What was made for it; else of the same slug at the target, else of the same name."""
    key = (kind.word, own.slug)
    if (made := ends.made.get(key)) is not None:
        return Reference(kind.held(made.named), made=made)
    found = _alike(kind, own, target, ends)
    if len(found) == 1:
        return Reference(kind.held(found[0]))
    missing = _absent(kind, own.slug, found, f"map it in {kind.key}")
    if (why := ends.unmade.get(key)) is not None:
        missing = f"{kind.word} '{own.slug}' could not be made in the target workspace: {why}"
    return Reference(kept, missing=missing, lacks=key if f"{kind.word}s" in ends.create and not found else None)


def _alike(kind: _Kind, own: Named, target: Sequence[Named], ends: Ends) -> list[Named]:
    """Where collections are made, and a name alone does not tell which is meant, those that lie in the same ones."""
    if same_slug := [one for one in target if one.slug == own.slug]:
        return same_slug
    found = [one for one in target if one.name == own.name]
    if kind is not COLLECTION or "collections" not in ends.create:
        return found
    source = ends.source.collections or ()
    if len(found) > 1 or sum(one.name == own.name for one in source) > 1:
        return [one for one in found if _path(one, target) == _path(own, source)]
    return found


def _path(one: Named, among: Sequence[Named]) -> list[str]:
    """The names of the collections that it lies in, and its own, inmost first."""
    by_id, names, at = {other.id: other for other in among}, list[str](), one
    while at.id in by_id:
        names.append(by_id.pop(at.id).name)  # each once, whatever the registry says of parents
        at = by_id.get(at.parent or "", at)
    return names


def _absent(kind: _Kind, label: str, found: Sequence[Named], advice: str) -> str:
    if found:
        several = f"{len(found)} {kind.word}s of that name are in the target workspace"
        return f"{kind.word} '{label}' is ambiguous, {several}: give the slug of one in {kind.key}"
    return f"{kind.word} '{label}' is not in the target workspace: create it there, or {advice}"


@frozen()
class Mapped:
    """A text with the partials' slugs at the target, every other byte as it was. The other fields as in Rewritten."""

    text: str = field(repr=False)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    lacks: tuple[PartKey, ...] = ()


def partial_tag(dialect: Dialect | None) -> re.Pattern[str] | None:
    """How this dialect names a partial of its workspace; where nobody knows the dialect, as mustache does. None: it
    names none.
    """
    return (MUSTACHE if dialect is None else dialect.grammar).partials


def map_partials(text: str, tag_of: re.Pattern[str] | None, applied: Sequence[Rule], ends: Ends) -> Mapped:
    """The partials that a text names, as these rules and both workspaces have them. `tag_of`: see `partial_tag`."""
    if tag_of is None or ">" not in text:  # no tag of a partial, which is sooner told so by its sign
        return Mapped(text)
    mapped = {old: new for rule in applied for old, new in rule.partials}
    tags = list(tag_of.finditer(text))
    references = {slug: _partial(slug, mapped.get(slug), ends) for slug in dict.fromkeys(tag[2] for tag in tags)}
    pins = [_pin(tag[2], tag[3], references[tag[2]], ends) for tag in tags]
    renewed = (f"{tag[1]}{references[tag[2]].value}{pin.suffix}" for tag, pin in zip(tags, pins, strict=True))
    return Mapped(
        tag_of.sub(lambda _: next(renewed), text),
        missing=(
            *(one.missing for one in references.values() if one.missing),
            *(pin.missing for pin in pins if pin.missing),
        ),
        notes=(*(one.note for one in references.values() if one.note), *(pin.note for pin in pins if pin.note)),
        lacks=tuple(one.lacks for one in references.values() if one.lacks),
    )


def named_partials(text: str, tag_of: re.Pattern[str] | None) -> set[str]:
    """The slugs of the partials that it names."""
    return {tag[2] for tag in tag_of.finditer(text)} if tag_of is not None else set()


@dataclass(frozen=True, slots=True)
class _Pin:
    """What stands behind the slug of a partial: the rest of its tag, with the version that is meant."""

    suffix: str
    missing: str = ""
    note: str = ""


def _pin(slug: str, suffix: str, reference: Reference, ends: Ends) -> _Pin:
    if "@" not in suffix or reference.missing or (ends.same and reference.value == slug):
        return _Pin(suffix)
    version = suffix.removesuffix("}}").strip()
    if (made := reference.made) is None or made.version is None or not version[1:].isdigit():
        note = f"partial '{slug}' is pinned to {version}: the versions of '{reference.value}' may be numbered otherwise"
        return _Pin(suffix, note=note)
    if version[1:] == made.version:
        return _Pin(suffix.replace(version, f"@{_FIRST}"))
    why = f"partial '{slug}' is pinned to {version}, and of what is made only the published version is there"
    return _Pin(suffix, missing=f"{why}, {made.version}: pin it to that, or map it in rewrite.partials")


def counterpart(what: str, own: Named, ends: Ends) -> tuple[str | None, str]:
    """What a prompt at the target holds of this collection or partial; else None, and why. Where it is to be made, and
    is not yet, the sentence is empty.
    """
    kind = COLLECTION if what == "collection" else _PARTIAL
    found = _like(kind, own.slug, own, kind.of(ends.target) or (), ends)
    return (None, "" if found.lacks else found.missing) if found.missing else (found.value, "")


def kinds_needed(rules: Sequence[Rule], create: Collection[str] = (), *, same: bool) -> frozenset[str]:
    """Which catalogs these rules need to be judged, and those of what is made where it is missing; collections always,
    because results are told apart by them.
    """
    kinds = {"providers", "partials", *create} if not same else set()
    for rule in rules:
        if rule.provider:
            kinds.add("providers")
        if rule.partials:
            kinds.add("partials")
    return frozenset(kinds | {"collections"})
