"""What is wrong in a migration file, in plain words: values and unknown keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError

from engine.config.yamlfile import Place

Complaint = tuple[Place, str]
"""Where, and what is wrong there."""

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
        place = tuple(part for part in found["loc"] if part != "[key]")
        yield place, _sentence(found["type"], found.get("ctx", {}), place, root)


def _sentence(kind: str, context: Mapping[str, Any], place: Place, root: type[BaseModel]) -> str:
    match kind:
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f"must be {context['expected']}".replace("'", "`")
        case "extra_forbidden":
            return _unknown_key(str(place[-1]), list(_part_at(place[:-1], root).model_fields))
        case _:
            return _WORDS.get(kind, "cannot be used here; see the README for what can").format(**context)


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
