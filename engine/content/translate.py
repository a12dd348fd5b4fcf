"""A prompt of one dialect written in another: template, messages, parameters, metadata. Pure.

A text is cut into tokens by the grammar that it is in, written in the other one, and cut again: what does not come out
the same is refused by name (`way`, `chats`). Parameters go by their neutral names, chats by their one form. So each
dialect says what it is itself, and nothing here knows two of them. Nothing is repaired, and what has no place is
returned as a loss.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from engine.content.carry import Cargo, restored, superseded
from engine.content.chats import carried, messages_of, respelled
from engine.content.digest import CONTENT, user_name
from engine.content.templates import variables_of
from engine.content.way import Left, Way
from engine.model import MARK_KEY, Inputs, Json, Prompt
from engine.model.dialect import Dialect, Fitted, ParameterNames


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """The prompt in the other dialect, and all there is to say about the way there.

    `losses`: names, as users know them, of what has no place there, but not whole fields of Prompt that the target
    has none for. `refused`: sentences on what cannot be said there; such a prompt must not be written, and its text is
    as it was. `notes`: sentences that fail nothing. None of them quotes more than the name of a tag. `left`: the values
    of what has no place, to be carried.
    """

    prompt: Prompt = field(repr=False)
    losses: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left: tuple[Left, ...] = ()


def translate(prompt: Prompt, source: Dialect, target: Dialect, *, messages: str = "refuse") -> Translated:
    """The prompt, which is in `source`, as it is to be written where `target` is spoken.

    `messages`, for a chat that goes where one text is kept: `system-only` keeps the text of the system messages,
    `transcript` every message as `role: text`; anything else refuses. Functions, tools, raw, integrations and extra
    stay on the prompt.
    """
    if target.takes(source.name):
        return Translated(prompt=respelled(prompt, target))
    way = Way(source=source, target=target)
    there = carried(prompt, way, messages)
    parameters, lost_parameters = _parameters(prompt, way)
    metadata, lost_metadata = _metadata(prompt.metadata, target)
    lost = [*lost_parameters, *lost_metadata]
    after = replace(prompt, dialect=target.name, parameters=parameters, metadata=metadata)
    if not there.refused:
        after = replace(after, text=there.text, variables=frozenset(there.names), inputs=Inputs(variables=there.names))
    return Translated(
        prompt=after,
        losses=tuple(sorted({*there.losses, *(one.name for one in lost)})),
        refused=_few(there.refused),
        notes=(*there.notes, *(_escaped(prompt.text) if source.escaped else ())),
        left=(*there.left, *lost),
    )


_MOST: Final = 4
"""Sentences on one prompt."""


def _few(sentences: Iterable[str]) -> tuple[str, ...]:
    each = tuple(dict.fromkeys(sentences))
    return each if len(each) <= _MOST else (*each[:_MOST], f"and {len(each) - _MOST} more reasons of this sort")


def _escaped(text: str) -> Iterator[str]:
    """Some clients write newlines, quotes and other characters out when they save a text."""
    signs = [r"\n"] if r"\n" in text and "\n" not in text else []
    signs += [r"\""] if r"\"" in text else []
    # each X is any hexadecimal digit, as RFC 8259 writes such an escape: readers know it so
    signs += [r"\uXXXX"] if re.search(r"\\u[0-9a-fA-F]{4}", text) else []
    if signs:
        yield f"the text holds {', '.join(signs)} written out, as some clients store it: copied as it is, check it"


# ---- parameters and metadata -----------------------------------------------------------------------------------------


def _parameters(prompt: Prompt, way: Way) -> tuple[dict[str, Json], list[Left]]:
    """The parameters by their new names, and what is lost. Null is as good as nothing."""
    variables = variables_of(prompt.text, way.source.grammar).union(prompt.variables)
    kept: dict[str, Json] = {}
    lost = []
    for name, value in prompt.parameters.items():
        other, changed = _parameter(name, value, variables, way)
        if other is not None and changed is not None:
            kept[other] = changed
        elif value is not None:
            lost.append(_left(name, value, way.source, variables))
    return kept, lost


def _left(name: str, value: Json, dialect: Dialect, variables: Collection[str]) -> Left:
    """A parameter of this dialect that has no place elsewhere."""
    loss = f"parameters.{name}"
    if dialect.parameters.defaults and name in variables:
        return Left(loss, ("defaults", name), value)
    neutral, between = _neutral(name, value, dialect.parameters)
    if neutral is None or between is None:
        return Left(loss, ("own", dialect.name, name), value)
    return Left(loss, ("parameters", neutral), between)


def _parameter(name: str, value: Json, variables: Collection[str], way: Way) -> tuple[str | None, Json]:
    """Its name and value there; None: it has no place."""
    source, target = way.source.parameters, way.target.parameters
    if source.defaults and name in variables:  # the default value of a variable, and no parameter
        return (name, value) if target.defaults else (None, None)
    neutral, between = _neutral(name, value, source)
    return _placed(neutral, between, target, variables) if neutral is not None else (None, None)


def _placed(neutral: str, value: Json, names: ParameterNames, variables: Collection[str]) -> tuple[str | None, Json]:
    """The name and value of a neutral one; None: it has no place."""
    there = own_name(neutral, names)
    if there is None or (names.defaults and there in variables):
        return None, None
    known = names.known.get(there)
    return there, known.write(value) if known is not None and value is not None else value


def _neutral(name: str, value: Json, names: ParameterNames) -> tuple[str | None, Json]:
    if (known := names.known.get(name)) is not None:
        return known.neutral, None if value is None else known.read(value)
    taken = any(one.neutral == name for one in names.known.values())
    return (name, value) if names.open and not taken else (None, None)


def own_name(neutral: str, names: ParameterNames) -> str | None:
    """What a parameter is called there; None: it has no place."""
    own = next((own for own, one in names.known.items() if one.neutral == neutral), None)
    return own or (neutral if names.open and neutral not in names.known else None)


def _metadata(metadata: Mapping[str, Json], target: Dialect) -> tuple[dict[str, Json], list[Left]]:
    """What is kept there, and what is lost; the mark is left to the connector."""
    keeps = target.metadata.keeps
    kept = {key: value for key, value in metadata.items() if keeps is None or key == MARK_KEY or keeps(value)}
    lost = ((key, value) for key, value in metadata.items() if key not in kept and value is not None)
    return kept, [Left(f"metadata.{key}", ("metadata", key), value) for key, value in lost]


# ---- what was carried, and what is to be -----------------------------------------------------------------------------


def brought_back(prompt: Prompt, cargo: Cargo, dialect: Dialect) -> Translated:
    """The prompt, which is in this dialect by now, with the parameters that were carried; `left`: those that have no
    place here either.
    """
    if not cargo:
        return Translated(prompt=prompt)
    variables = variables_of(prompt.text, dialect.grammar).union(prompt.variables)
    left: list[Left] = []
    found: dict[str, Json] = {}
    for name, value in cargo.get("parameters", {}).items():
        own, changed = _placed(name, value, dialect.parameters, variables)
        if own is None or changed is None:
            left.append(Left(f"parameters.{name}", ("parameters", name), value))
        else:
            found[own] = changed
    for name, value in cargo.get("defaults", {}).items():
        if dialect.parameters.defaults:
            found[name] = value
        else:
            left.append(Left(f"parameters.{name}", ("defaults", name), value))
    for word, own_ones in cargo.get("own", {}).items():
        if word == dialect.name:
            found |= own_ones
        else:
            left += [Left(f"parameters.{name}", ("own", word, name), value) for name, value in own_ones.items()]
    there = {name: value for name, value in prompt.parameters.items() if value is not None}
    new = [f"parameters.{name}" for name in found if name not in there]
    return Translated(
        prompt=replace(prompt, parameters={**found, **there}),
        losses=tuple(one.name for one in left),
        notes=(*restored(new), *superseded(name for name in found if name in there and found[name] != there[name])),
        left=tuple(left),
    )


def left_by(fitted: Fitted, before: Prompt, dialect: Dialect) -> list[Left]:
    """What a prompt of this dialect has no place for as a whole: the values of the losses."""
    after = fitted.prompt
    left = []
    for name in fitted.losses:
        head, _, rest = name.partition(".")
        if head == "parameters":
            left.append(_left(rest, before.parameters.get(rest), dialect, before.variables))
        elif head == "messages":
            left += _left_of_messages(name, rest.split(" ")[0], before.text, after.text)
        else:
            left += [Left(name, ("fields", name), getattr(before, one)) for one in CONTENT if user_name(one) == name]
    return left


def _left_of_messages(name: str, key: str, before: str, after: str) -> Iterator[Left]:
    pairs = zip(messages_of(before) or (), messages_of(after) or (), strict=True)
    for number, (message, other) in enumerate(pairs, 1):
        if key in message and message[key] != other.get(key):
            yield Left(name, ("messages", str(number), key), message[key])
