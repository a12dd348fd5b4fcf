"""What the rules do to `Prompt.parameters`: drop, rename, clamp, set, by dotted paths. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from engine.lossless_json.numbers import Number, number
from engine.model import Clamp, Json, ParameterRules


def change_parameters(
    parameters: Mapping[str, Json], rules: ParameterRules, variables: Collection[str]
) -> tuple[dict[str, Json], tuple[str, ...]]:
    """The changed parameters, a copy to the bottom, and notes on what a rule could not do.

    A dotted path reaches inside dicts; a key that itself contains the dot goes first. A top-level name that is one of
    the template's `variables` holds a default of that variable, no hyperparameter: no rule touches it.
    """
    values: dict[str, Json] = copied(parameters)
    notes: list[str] = []
    defaults = {name for variable in variables for name in (variable, variable.partition(".")[0])}

    def free(path: str) -> bool:
        top = _way(values, path)[0]
        if top in defaults:
            notes.append(f"parameters.{top} is left as it is: '{top}' is a variable of the template")
        return top not in defaults

    for path in filter(free, rules.drop):
        _drop(values, _way(values, path))
    for old, new in rules.rename:
        if free(old) and free(new) and _rename(values, old, new):
            notes.append(f"parameters.{old} is dropped, for parameters.{new} has a value of its own, which is kept")
    for path, bounds in rules.clamp:
        if free(path):
            _clamp(values, _way(values, path), bounds)
    for path, value in rules.set:
        if free(path):
            _put(values, _way(values, path), copied(value))
    return values, tuple(dict.fromkeys(notes))


def copied(value: Json) -> Any:
    """The same value, a copy to the bottom."""
    if value is None or isinstance(value, (str, int, float)):  # most are, and what is no Mapping is told slowly
        return value
    if isinstance(value, (list, tuple)):
        return [copied(inner) for inner in value]
    if isinstance(value, Mapping):
        return {key: copied(inner) for key, inner in value.items()}
    return value


def _way(values: Mapping[str, Json], path: str) -> tuple[str, ...]:
    """The keys that a dotted path stands for: the longest that are there, then one for each part."""
    if path in values:
        return (path,)
    parts = path.split(".")
    for size in range(len(parts) - 1, 0, -1):
        head = ".".join(parts[:size])
        if isinstance(inner := values.get(head), dict):
            return (head, *_way(inner, ".".join(parts[size:])))
    return tuple(parts)


def _holder(values: dict[str, Json], way: tuple[str, ...]) -> dict[str, Json] | None:
    """The dict that holds the last key of the way; None when the way ends nowhere."""
    holder: Json = values
    for key in way[:-1]:
        holder = holder.get(key)
        if not isinstance(holder, dict):
            return None
    return holder if way[-1] in holder else None


def _drop(values: dict[str, Json], way: tuple[str, ...]) -> None:
    if (holder := _holder(values, way)) is not None:
        del holder[way[-1]]


def _rename(values: dict[str, Json], old: str, new: str) -> bool:
    """Whether the destination had a value already: that one is kept and the old one dropped."""
    way, destination = _way(values, old), _way(values, new)
    holder = _holder(values, way)
    if holder is None:
        return False
    value = holder.pop(way[-1])
    # looked at only now, for a destination inside the old value has gone with it
    taken = _holder(values, destination) is not None
    if not taken:
        _put(values, destination, value)
    return taken


def _clamp(values: dict[str, Json], way: tuple[str, ...], bounds: Clamp) -> None:
    holder = _holder(values, way)
    if holder is None or isinstance(value := holder[way[-1]], bool) or not isinstance(value, int | float | Number):
        return
    if bounds.min is not None and value < bounds.min:
        value = holder[way[-1]] = _alike(value, bounds.min, math.ceil)
    if bounds.max is not None and value > bounds.max:
        holder[way[-1]] = _alike(value, bounds.max, math.floor)


def _alike(value: Number | float, bound: Number | float, whole: Callable[[Number | float], int]) -> Number | float:
    """The bound, as an integer where the value was one, else with a fraction."""
    if isinstance(value, int) or (isinstance(value, Number) and value.is_whole):
        return whole(bound)
    return number(f"{bound}.0") if isinstance(bound, int) else bound


def _put(values: dict[str, Json], way: tuple[str, ...], value: Json) -> None:
    holder = values
    for key in way[:-1]:
        inner = holder.get(key)
        holder[key] = inner if isinstance(inner, dict) else {}
        holder = holder[key]
    holder[way[-1]] = value
