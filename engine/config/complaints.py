"""What is wrong in a migration file, in plain words: values and unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from engine.config.yamlfile import Place
from engine.connectors import REGISTRIES

Complaint = tuple[Place, str]
"""Where, and what is wrong there."""

_ENDS: Final = ("source", "target")
_WORDS: Final = {
    "missing": "is required",
    "string_type": "must be a text; put quotes around a number or a word such as true",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list, such as [one, two]",
    "dict_type": "must be a map of keys to values",
    "model_type": "must be a map of keys to values",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le:g}",
}


def complaints(error: ValidationError, root: type[BaseModel]) -> Iterator[Complaint]:
    """What validation of a file against `root` found, without the values: they may be secret."""
    for found in error.errors(include_url=False, include_input=False):
        kind, place = _without_kind(tuple(part for part in found["loc"] if part != "[key]"))
        if found["type"] == "kind":
            yield (*place, "kind"), must_be(REGISTRIES, _kind_said(error, found["loc"]))
        elif found["type"] == "extra_forbidden" and kind is not None:
            yield place, _foreign_key(str(place[-1]), kind)
        else:
            yield place, _sentence(found["type"], found.get("ctx", {}), place, root)


def _without_kind(place: Place) -> tuple[str | None, Place]:
    """The kind of an end, which stands behind its key, and the place without it."""
    if len(place) > 1 and place[0] in _ENDS and place[1] in REGISTRIES:
        return str(place[1]), (place[0], *place[2:])
    return None, place


def _kind_said(error: ValidationError, place: Place) -> str:
    """What the end at this place calls itself."""
    end = next((one["input"] for one in error.errors(include_url=False) if one["loc"] == place), None)
    kind = end.get("kind") if isinstance(end, dict) else None
    return kind if isinstance(kind, str) else ""


def must_be(words: Iterable[str], word: str) -> str:
    """That it is none of these words, and which of them is the nearest."""
    known = list(words)
    *first, last = (f"`{one}`" for one in known)
    nearest = difflib.get_close_matches(word.lower(), known, n=1)
    return f"must be {', '.join(first)} or {last}{f'; did you mean `{nearest[0]}`?' if nearest else ''}"


def _foreign_key(key: str, kind: str) -> str:
    """A key that this kind of registry does not have, though another one may."""
    if others := [other for other, row in REGISTRIES.items() if key in row.endpoint.model_fields]:
        return f"is for kind {' and '.join(others)}, and this is kind {kind}: take it out"
    return _unknown_key(key, list(REGISTRIES[kind].endpoint.model_fields))


def _sentence(kind: str, context: Mapping[str, Any], place: Place, root: type[BaseModel]) -> str:
    match kind:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"must be {context['expected']}".replace("'", "`")
        case "extra_forbidden":
            return _unknown_key(str(place[-1]), list(_part_at(place[:-1], root).model_fields))
        case _:
            return _WORDS.get(kind, "cannot be used here; `promptferry schema` says what can").format(**context)


def _unknown_key(key: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(key, known, n=1)
    return (
        f"unknown key; did you mean `{nearest[0]}`?" if nearest else f"unknown key; known here are {', '.join(known)}"
    )


def _part_at(place: Place, root: type[BaseModel]) -> type[BaseModel]:
    part = root
    for step in place:
        if step in part.model_fields:
            part = next(_parts_in(part.model_fields[str(step)].annotation), part)
    return part


def _parts_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _parts_in(inner)
