"""The content of a prompt as one digest, and the mark by which a replica is known. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from hashlib import sha256
from typing import Any, Final, Literal

import orjson

from engine.lossless_json.numbers import Number, dumps_plainly, fragment
from engine.model import MARK_KEY, Json, Mark, Part, Prompt, Replica, altered

CONTENT: Final = (
    "name",
    "collection",
    "model",
    "provider",
    "text",
    "parameters",
    "functions",
    "tools",
    "tool_choice",
    "raw",
    "metadata",
    "description",
    "integrations",
)
"""The fields of Prompt that a person wrote; the registry owns the others."""

MarkIn = Literal["metadata", "description", "nowhere"]

_PLAIN: Final = (str, int)
_USER_NAMES: Final = {"text": "string", "description": "version_description"}
_MARK_FIELDS: Final = tuple(field.name for field in fields(Mark))
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_MARKED: Final = re.compile(r"(?:^| )\[promptferry:([0-9a-f]{16})\]\Z")


def user_name(field: str) -> str:
    """What a user calls a field of Prompt: the word that plan, losses and verify print."""
    return _USER_NAMES.get(field, field)


# ---- content ---------------------------------------------------------------------------------------------------------


def content(prompt: Prompt) -> dict[str, Json]:
    """The normalised content by field of Prompt: what is to be the same when a replica is read back.

    Without a mark of any migration. A field that is null, empty or false is left out, and so is a null among the
    parameters or the metadata, as registries give back either; deeper in, a null is content. 1.0 is 1: registries
    written in JavaScript give it back so, and so are all forms in which one number is written; what an int or a float
    is, is said as these always were. A number that lost digits is another one.
    """
    normal: dict[str, Json] = _normal(_values(prompt))
    return normal


def filled(prompt: Prompt, among: Iterable[str]) -> list[str]:
    """Those of the fields `among` these that `content` has."""
    return [*_values(prompt, among)]


def _values(prompt: Prompt, among: Iterable[str] = CONTENT) -> dict[str, Json]:
    """Those of these fields that have something that counts."""
    fields = vars(prompt)  # looked up many times for each prompt
    values = {name: value for name in among if (value := fields[name])}
    for name, what_counts in _COUNTS:
        if name in values:
            values[name] = what_counts(values[name])
            if not values[name]:
                del values[name]
    return values


def canonical(prompt: Prompt) -> bytes:
    """The content as JSON in UTF-8, keys sorted; every text has one, lone surrogates too, and no two have the same."""
    return _encode(content(prompt))


def digest(prompt: Prompt) -> str:
    """SHA-256 of the canonical content, in hex: of a source its `source_digest`, of a replica its `replica_digest`."""
    return sha256(canonical(prompt)).hexdigest()


def short_digest(text: str) -> str:
    """Tells texts apart where they must not be shown: `sha256:ab12cd34`."""
    return f"sha256:{sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def differences(expected: Prompt, found: Prompt) -> tuple[str, ...]:
    """The names, as users know them, of the fields whose content differs, parameters each by its path."""
    before, after = content(expected), content(found)
    parameters = changed_inside("parameters", before.pop("parameters", {}), after.pop("parameters", {}))
    fields = (user_name(name) for name in CONTENT if changed(before.get(name), after.get(name)))
    two_models = ("parameters.model",) if found.parameters_model is not None else ()
    return (*fields, *(name for name, _, _ in parameters), *two_models)


def changed_fields(before: Prompt, after: Prompt) -> frozenset[str]:
    """The fields of Prompt whose content differs."""
    old, new = content(before), content(after)
    return frozenset(name for name in CONTENT if changed(old.get(name), new.get(name)))


def changed(before: Json, after: Json) -> bool:
    """Whether two JSON values differ as content; unlike `!=` this tells 1 from true."""
    return before is not after and _encode(_normal(before)) != _encode(_normal(after))


def changed_inside(
    name: str, before: Mapping[str, Json], after: Mapping[str, Json]
) -> Iterator[tuple[str, Json, Json]]:
    """Dotted name, before and after of each value that differs, however deep in dicts; None where there is none."""
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from changed_inside(f"{name}.{key}", old, new)
        elif changed(old, new) or (key in before) != (key in after):
            yield f"{name}.{key}", old, new


def without_nulls(values: Mapping[str, Json]) -> dict[str, Json]:
    """Among parameters and metadata, null is as good as nothing."""
    return {key: value for key, value in values.items() if value is not None}


def _without_mark(metadata: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in metadata.items() if value is not None and key != MARK_KEY}


def _normal(value: Json) -> Any:
    # most values are texts, and a call for each would cost more than all the rest
    if isinstance(value, dict):
        return {key: inner if isinstance(inner, _PLAIN) else _normal(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [inner if isinstance(inner, _PLAIN) else _normal(inner) for inner in value]
    if value is None or isinstance(value, _PLAIN):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if isinstance(value, Number):
        same = value.plain()
        return value.canonical() if same is None else _normal(same)
    return _normal(dict(value)) if isinstance(value, Mapping) else value  # told slowly, so it comes last


def _encode(value: Json) -> bytes:
    try:
        return orjson.dumps(value, default=fragment, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # lone surrogates and integers above 64 bits
        text = dumps_plainly(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        return text.encode("utf-8", "surrogatepass")


# ---- marks -----------------------------------------------------------------------------------------------------------


def key_of(migration: str, source: str, source_id: str) -> str:
    """The key of a replica: 16 hex digits, the same without any ledger. `source`: registry and workspace as text."""
    return sha256("\0".join((migration, source, source_id)).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def make_replica(
    source: Prompt, rewritten: Prompt, *, migration: str, registry: str, mark_in: MarkIn = "metadata"
) -> Replica:
    """The replica to be made, with its mark in place of any mark that the source carried.

    `nowhere`: for a prompt that is changed in place, which is nobody's replica by that.

    `registry`: the source's registry and workspace as text, as in `key_of`. `mark_in`: `metadata`, or `description`
    for a registry that does not keep the metadata; there it is the key alone.
    """
    before = content(source)
    # most of it is the same, and is gone through once
    old, new = vars(source), vars(rewritten)
    differing = [name for name in CONTENT if old[name] is not new[name]]
    same = {name: value for name, value in before.items() if name not in differing}
    after = same | _normal(_values(rewritten, differing))
    mark = Mark(
        migration=migration,
        key=key_of(migration, registry, source.id),
        source_id=source.id,
        source_digest=sha256(_encode(before)).hexdigest(),
        replica_digest=sha256(_encode(after)).hexdigest(),
    )
    if mark_in == "nowhere":
        return Replica(source=source, prompt=rewritten, mark=mark)
    metadata = {key: value for key, value in rewritten.metadata.items() if key != MARK_KEY}
    description = _unmarked(rewritten.description)
    if mark_in == "description":
        description = marked(description, mark.key)
    else:
        metadata[MARK_KEY] = {name: getattr(mark, name) for name in _MARK_FIELDS}
    return Replica(source=source, prompt=altered(rewritten, metadata=metadata, description=description), mark=mark)


def read_mark(metadata: Mapping[str, Json], description: str | None) -> Mark | None:
    """The mark in the metadata, else the key at the end of the description (migration and source_id are "" then).

    What is not well formed is no mark.
    """
    mark = _mark_in(metadata.get(MARK_KEY))
    found = _MARKED.search(description or "")
    return mark or (Mark(migration="", key=found[1], source_id="") if found else None)


def _mark_in(value: Json) -> Mark | None:
    match value:
        case {"migration": str(migration), "key": str(key), "source_id": str(source_id)}:
            digests = {name: value.get(name) for name in ("source_digest", "replica_digest")}
            if all(isinstance(one, str | None) for one in digests.values()):
                return Mark(migration=migration, key=key, source_id=source_id, **digests)
        case str(key) if _KEY.fullmatch(key):  # where metadata are plain words
            return Mark(migration="", key=key, source_id="")
    return None


def marked(description: str | None, key: str) -> str:
    """A description with this key at its end, in place of another one."""
    return f"{_unmarked(description) or ''} [{MARK_KEY}:{key}]".lstrip()


def part_digest(part: Part) -> str:
    """SHA-256, in hex, of what a person wrote of a collection, partial or label, and where it lies; not of its mark."""
    said = [part.what, part.name, part.parent, part.text, _unmarked(part.description) or None, part.color]
    return sha256(_encode(said)).hexdigest()


def _unmarked(description: str | None) -> str | None:
    return _MARKED.sub("", description) if description and MARK_KEY in description else description


_COUNTS: Final[tuple[tuple[str, Callable[[Any], Json]], ...]] = (
    ("parameters", without_nulls),
    ("metadata", _without_mark),
    ("description", _unmarked),
)
"""Field -> what counts of its value."""
