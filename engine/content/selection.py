"""Which prompts: globs, the parts of `select`, and what a person may have meant by a part that takes nothing. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

from engine.model import Named, Row, Rule, Select

_WILD: Final = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")
_SEPARATORS: Final = re.compile(r"[^0-9a-z]+")
_SHORTEST_CORE: Final = 2  # the core of `o*` is in nearly every name; the one of `o1*` tells something


def takes(glob: str, value: str | None) -> bool:
    """Whether a glob takes the whole of a value, case-sensitive. No value at all: only `*` takes it.

    `[abc]` is one of these characters, and it is these five as well: names begin with `[prod]`, and nobody who writes
    that means one of its letters. `[[]` is a bracket and nothing else. See `two_readings`.
    """
    return glob == "*" or (value is not None and (fnmatchcase(value, glob) or _takes_as_written(glob, value)))


def _takes_as_written(glob: str, value: str) -> bool:
    """With brackets that stand for themselves."""
    return "[" in glob and "[" in value and fnmatchcase(value, glob.replace("[", "[[]"))


def two_readings(globs: Iterable[tuple[str, str]], values: Iterable[str]) -> Iterator[str]:
    """A sentence for each glob (and the key that it stands under) whose brackets these values allow to be read both
    ways: one value is taken by a character of the brackets, another one as it is written.
    """
    bracketed = [(key, written_down) for key, written_down in globs if "[" in written_down]
    values = list(values) if bracketed else ()  # of a whole library nobody makes a list for nothing
    for key, written_down in bracketed:
        glob = written_down.removeprefix("!")
        written = next((value for value in values if _takes_as_written(glob, value)), None)
        others = (value for value in values if fnmatchcase(value, glob) and not _takes_as_written(glob, value))
        if written is not None and (by_character := next(others, None)) is not None:
            alone = written_down.replace("[", "[[]")
            yield (
                f"{key}: {written_down!r} is for {written!r}, as it is written, and for {by_character!r}, by one of "
                f"the characters in its brackets; write {alone!r} where only the first is meant"
            )


def glob_readings(
    select: Select, rules: Sequence[Rule], rows: Collection[Row], collections: Sequence[Named] | None
) -> list[str]:
    """What `two_readings` says of all globs of a migration file whose values a listing tells: names, models,
    collections.
    """
    whens = [rule.when for rule in rules]
    by_name = [("select.names", glob) for glob in select.names]
    by_name += [("when.name", when.name) for when in whens]
    by_model = [("select.models", glob) for glob in select.models]
    by_model += [("when.model", when.model) for when in whens]
    by_model += [("rewrite.model", glob) for rule in rules for glob, _ in rule.model]
    by_collection = [("when.collection", when.collection) for when in whens]
    by_collection += [("rewrite.collection", glob) for rule in rules for glob, _ in rule.collection]
    homes = dict.fromkeys(text for one in collections or () for text in (one.slug, one.name, one.id))
    return [
        *two_readings(by_name, (row.name for row in rows)),
        *two_readings(by_model, (row.model for row in rows if row.model is not None)),
        *two_readings(by_collection, homes),
    ]


def find(known: Sequence[Named] | None, text: str | None) -> Named | None:
    """The one that a prompt means: by id, else by slug. None when it is not there or `known` is not known."""
    if known is None or text is None:
        return None
    by_slug = None
    for one in known:
        if one.id == text:
            return one
        if by_slug is None and one.slug == text:
            by_slug = one
    return by_slug


def meant(known: Sequence[Named], text: str) -> list[Named]:
    """Those that a value of the migration file may mean: the one of that id or slug, else all of that name."""
    one = find(known, text)
    return [one] if one is not None else [named for named in known if named.name == text]


def selects(select: Select, row: Row, collections: Sequence[Named] | None) -> bool:
    """Whether every part of `select` takes this row; an empty part takes all.

    `collections` are the source's; None (not known) leaves selected collections to be matched by id alone.
    """
    return (
        (not select.ids or row.id in select.ids or (row.slug is not None and row.slug in select.ids))
        and (not select.collections or _in_collections(select, row, collections))
        and _named(select.names, row.name)
        and (not select.models or any(takes(glob, row.model) for glob in select.models))
    )


def needs_definition(select: Select, row: Row, collections: Sequence[Named] | None) -> bool:
    """Whether nobody can say yet that this row is selected: a part asks for what only the definition tells, and every
    other part takes it.
    """
    if row.whole or (row.model is not None and row.collection is not None):
        return False
    models = select.models if row.model is not None else ()
    known = replace(select, models=models, collections=select.collections if row.collection is not None else ())
    return known != select and selects(known, row, collections) and not selects(select, row, collections)


def rows_tell(select: Select) -> bool:
    """Whether the rows of any listing tell what it asks for: `needs_definition` of none of them."""
    return not select.models and not select.collections


def takes_all(select: Select) -> bool:
    """Whether it `selects` every row."""
    return rows_tell(select) and not select.ids and not select.names


def _in_collections(select: Select, row: Row, collections: Sequence[Named] | None) -> bool:
    if row.collection is None:
        return False
    home = find(collections, row.collection)
    return row.collection in select.collections or (home is not None and home.slug in select.collections)


def _named(globs: Sequence[str], name: str) -> bool:
    wanted = [glob for glob in globs if not glob.startswith("!")]
    unwanted = [glob[1:] for glob in globs if glob.startswith("!")]
    return (not wanted or any(takes(glob, name) for glob in wanted)) and not any(takes(glob, name) for glob in unwanted)


def near_misses(globs: Sequence[str], models: Iterable[str]) -> list[str]:
    """The models that no glob takes though they contain the literal core of one, sorted, each once.

    The core is the longest stretch without wildcards. Case and the kind of separator do not count here, for a glob is
    missed by just these: `us.anthropic.claude-3-7-sonnet` and `Claude-3.7-Sonnet` are near misses of `claude-3-7*`.
    """
    cores = [core for glob in globs if len(core := _core(glob)) >= _SHORTEST_CORE]
    missed = {model for model in models if not any(takes(glob, model) for glob in globs)}
    return sorted(model for model in missed if any(core in _plain(model) for core in cores))


def _core(glob: str) -> str:
    return max((_plain(part) for part in _WILD.split(glob)), key=len)


def _plain(text: str) -> str:
    return _SEPARATORS.sub("-", text.casefold()).strip("-")


def unknown_collections(select: Select, collections: Sequence[Named] | None) -> list[str]:
    """A sentence for each selected collection that the source does not have, with the nearest it has.

    Empty when `collections` is None: nothing is known then.
    """
    if collections is None:
        return []
    known = {text for one in collections for text in (one.id, one.slug)}
    slugs = {text.casefold(): one.slug for one in collections for text in (one.name, one.slug)}
    return [_unknown(text, slugs) for text in select.collections if text not in known]


def _unknown(text: str, slugs: Mapping[str, str]) -> str:
    nearest = get_close_matches(text.casefold(), slugs, n=1)
    advice = f"did you mean '{slugs[nearest[0]]}'?" if nearest else "give the id or slug of one that is there"
    return f"collection '{text}' is not at the source: {advice}"
