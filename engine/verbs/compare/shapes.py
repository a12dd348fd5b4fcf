"""The shape of JSON that a model answered: which keys, of which types, wherever they stand. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any, Final

from engine.model import Json

_FENCE: Final = re.compile(r"\s*```[A-Za-z0-9]*[ \t]*\n(.*?)\n?[ \t]*```\s*", re.DOTALL)
_PLAIN_NAME: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_.-]{0,39}")
"""What is surely a name that somebody chose; any other key of an answer may be data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is known of the values that stand, or may stand, in one place.

    `kinds`: null boolean number string array object. `required`: keys that every object had. `items`: of all items of
    all arrays together; None: they were all empty.
    """

    kinds: frozenset[str]
    keys: Mapping[str, Shape] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    items: Shape | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """An answer that is an object or an array. `fenced`: it stands in a code fence, where no parser takes it."""

    shape: Shape
    fenced: bool


def document(text: str | None) -> Document | None:
    """The answer as JSON; None: it is none. A bare number, word or text is none either: any sentence could be one."""
    fence = _FENCE.fullmatch(text or "")
    try:
        value = json.loads(fence[1] if fence is not None else text or "")
        return Document(shape_of(value), fence is not None) if isinstance(value, dict | list) else None
    except (ValueError, RecursionError):
        return None


def shape_of(value: Json) -> Shape:
    """Of one value."""
    if isinstance(value, dict):
        keys = {key: shape_of(inner) for key, inner in value.items()}
        return Shape(kinds=frozenset({"object"}), keys=keys, required=frozenset(keys))
    if isinstance(value, list):
        return Shape(kinds=frozenset({"array"}), items=together(map(shape_of, value)))
    return Shape(kinds=frozenset({_kind(value)}))


def _kind(value: Json) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else "boolean"
    return "string" if isinstance(value, str) else "number"


def together(shapes: Iterable[Shape]) -> Shape | None:
    """What all of them are; None: there are none."""
    found = list(shapes)
    return reduce(_both, found) if found else None


def _both(one: Shape, other: Shape) -> Shape:
    objects = [shape.required for shape in (one, other) if "object" in shape.kinds]
    common = {key: _both(one.keys[key], other.keys[key]) for key in one.keys.keys() & other.keys.keys()}
    return replace(
        one,
        kinds=one.kinds | other.kinds,
        keys={**one.keys, **other.keys, **common},
        required=frozenset.intersection(*objects) if objects else frozenset(),
        items=together(shape.items for shape in (one, other) if shape.items is not None),
    )


# ---- what is outside of it -------------------------------------------------------------------------------------------


def outside(shape: Shape, known: Shape, place: str = "$") -> Iterator[str]:
    """A few words for each place where `shape` is not as what is known."""
    if new := shape.kinds - known.kinds:
        yield f"{place} is {_words(new)}, was {_words(known.kinds)}"
    if {"object"} <= shape.kinds & known.kinds:
        yield from (f"{_inside(place, key)} is missing" for key in sorted(known.required - shape.required))
        yield from (f"{_inside(place, key)} is new" for key in sorted(shape.keys.keys() - known.keys.keys()))
    for key in sorted(shape.keys.keys() & known.keys.keys()):
        yield from outside(shape.keys[key], known.keys[key], _inside(place, key))
    if shape.items is not None and known.items is not None:
        yield from outside(shape.items, known.items, f"{place}[]")


def _words(kinds: Iterable[str]) -> str:
    return " or ".join(sorted(kinds))


def _inside(place: str, key: str) -> str:
    return f"{place}.{shown(key)}"


def shown(name: str) -> str:
    """The name, or `*` where it may be more than one."""
    return name if _PLAIN_NAME.fullmatch(name) else "*"


# ---- for others ------------------------------------------------------------------------------------------------------


def schema(shape: Shape) -> dict[str, Any]:
    """As JSON Schema: what is outside of the shape is no instance of it."""
    return _any_of([_schema_of(kind, shape) for kind in sorted(shape.kinds)])


def _any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}


def _schema_of(kind: str, shape: Shape) -> dict[str, Any]:
    if kind == "object":
        properties = {key: schema(inner) for key, inner in shape.keys.items()}
        required = sorted(shape.required)
        return {"type": kind, "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array" and shape.items is not None:
        return {"type": kind, "items": schema(shape.items)}
    return {"type": kind}
