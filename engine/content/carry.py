"""What has no place at the target and travels all the same: as JSON in one value of its metadata. Pure.

`pack` puts it there, under `promptferry.carry`, and `unpack` takes it out when the prompt goes on to another dialect;
while it stays in one, the value is metadata like any other, copied as it is. It is a text on every registry, so that no
number in it changes its form. Its keys:

- `fields`: by the names that users know (`raw`, `integrations`, ...); `metadata` and `extra`: by key;
- `parameters`: by neutral name; `defaults`: of variables, by variable; `own`: dialect -> those without a neutral name;
- `messages`: number of a message, from 1 -> its keys that were changed or left out, in the grammar of the text that was
  written; `chat`: a whole chat of which one text was made; `of`: the digest of that text. Should the text be another
  one by now, neither is merged into it, nor are defaults given to what is no variable any more: they are lost, by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from typing import Any, Final

from engine.content.chats import messages_of
from engine.content.digest import CONTENT, user_name
from engine.content.way import Left
from engine.lossless_json import decode, encode
from engine.lossless_json.numbers import dumps
from engine.model import Json, Prompt, altered
from engine.model.dialect import Dialect, MetadataRule
from engine.model.frozen import frozen

CARRY_KEY: Final = "promptferry.carry"
"""The key of `Prompt.metadata` under which it stands."""

Cargo = Mapping[str, Any]
"""The JSON, as it is described above."""

_MAPS: Final = ("fields", "parameters", "own", "defaults", "metadata", "extra", "messages")
_TEXTS: Final = ("chat", "of")
_OF_A_TEXT: Final = ("messages", "chat", "defaults")
_FIELDS: Final = {user_name(name): name for name in CONTENT}
_LISTS: Final = frozenset({"integrations"})
_IN_CHAT: Final = frozenset({"raw"})
"""What only a chat can have, once it is translated."""


def cargo_of(metadata: Mapping[str, Json]) -> Cargo | None:
    """What these carry; None: nothing, or something that nobody of us has put there."""
    text = metadata.get(CARRY_KEY)
    if not isinstance(text, str):
        return None
    try:
        cargo = decode(text.encode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    if not isinstance(cargo, dict) or not cargo.keys() <= {*_MAPS, *_TEXTS}:
        return None
    maps = all(isinstance(cargo.get(key, {}), dict) for key in _MAPS)
    inside = all(isinstance(one, dict) for key in ("own", "messages") for one in cargo.get(key, {}).values())
    return cargo if maps and inside and all(isinstance(cargo.get(key, ""), str) for key in _TEXTS) else None


def text_digest(text: str) -> str:
    """By which carried messages know the text that they belong to."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


# ---- onto a prompt ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """The prompt with what it carries. `carried`: names of losses that are none by that; `uncarried`: sentences on what
    should be carried and cannot.
    """

    prompt: Prompt = field(repr=False)
    carried: tuple[str, ...] = ()
    uncarried: tuple[str, ...] = ()


def pack(prompt: Prompt, left: Iterable[Left], wanted: Collection[str], rule: MetadataRule | None) -> Packed:
    """Of what is left of this prompt, what is `wanted`, by its names, added to what it carries already. What is too
    large stays behind, the largest first. `rule`: of the target's metadata; None: it has none.
    """
    parts: dict[str, list[Left]] = {}
    for one in left:
        if one.name in wanted:
            parts.setdefault(one.name, []).append(one)
    if not parts:
        return Packed(prompt=prompt)
    base = cargo_of(prompt.metadata)
    if rule is None:
        return Packed(prompt=prompt, uncarried=("the target has no metadata of its own",))
    if base is None and prompt.metadata.get(CARRY_KEY) is not None:
        return Packed(prompt=prompt, uncarried=(f"metadata.{CARRY_KEY} is there, and is somebody else's",))
    return _packed(prompt, base or {}, parts, rule)


def _packed(prompt: Prompt, base: Cargo, parts: Mapping[str, Sequence[Left]], rule: MetadataRule) -> Packed:
    uncarried = []
    sizes: dict[str, int] = {}
    for name, several in parts.items():
        try:
            sizes[name] = sum(len(encode(one.value)) for one in several)
        except ValueError as error:
            uncarried.append(f"{name} cannot be written as JSON without loss: {error}")
    names = sorted(sizes, key=lambda name: (sizes[name], name))
    while names:
        text = _written(base, [one for name in names for one in parts[name]], prompt.text)
        why = _refusal(rule, prompt, text)
        if why is None:
            carrying = altered(prompt, metadata={**prompt.metadata, CARRY_KEY: text})
            return Packed(prompt=carrying, carried=tuple(sorted(names)), uncarried=tuple(uncarried))
        uncarried.append(f"{names.pop()}: {why}")
    return Packed(prompt=prompt, uncarried=tuple(uncarried))


def _refusal(rule: MetadataRule, prompt: Prompt, text: str) -> str | None:
    if rule.keeps is not None and not rule.keeps(text):
        return f"that is no value that it keeps ({rule.says})"
    return rule.room(prompt, text) if rule.room is not None else None


def _written(base: Cargo, left: Iterable[Left], text: str) -> str:
    cargo: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for one in left:
        *way, last = one.place
        holder = cargo
        for step in way:
            holder[step] = holder = dict(holder.get(step, {}))
        holder[last] = one.value
        if one.place[0] in _OF_A_TEXT:
            cargo["of"] = text_digest(text)
    return encode(cargo).decode()


# ---- off it again ----------------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Unpacked:
    """The prompt with what it carried in its place, in its own dialect. `rest`: parameters, which have one only in the
    dialect that it goes to; `chat`: its text is a chat, though its registry keeps texts alone. `losses` and `notes`:
    what does not fit any more.
    """

    prompt: Prompt = field(repr=False)
    rest: Cargo = field(default_factory=dict, repr=False)
    chat: bool = False
    losses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def unpack(prompt: Prompt, dialect: Dialect, *, messages: bool = True) -> Unpacked:
    """What it carries put back; `dialect`: the one that it is in. What somebody gave a value meanwhile keeps that.
    Without `messages` those stay as they are, and what is carried of them is lost.
    """
    cargo = cargo_of(prompt.metadata)
    if cargo is None:
        return Unpacked(prompt=prompt)
    metadata = {key: value for key, value in prompt.metadata.items() if key != CARRY_KEY}
    bare = altered(prompt, metadata=metadata)
    whole, chat, losses = _with_messages(bare, cargo, dialect, wanted=messages)
    notes: list[str] = []
    changes: dict[str, Any] = {
        "metadata": _added(metadata, cargo.get("metadata", {}), "metadata.", notes),
        "extra": _added(whole.extra, cargo.get("extra", {}), "", notes),
    }
    rest = {key: cargo[key] for key in ("parameters", "own") if key in cargo}
    if defaults := cargo.get("defaults", {}):
        rest["defaults"] = dict(defaults) if _is_its_text(prompt, cargo) else _asked_for(defaults, whole, dialect)
        losses += [f"parameters.{name}" for name in defaults if name not in rest["defaults"]]
    for name, value in cargo.get("fields", {}).items():
        own = _FIELDS.get(name)
        if own is None or (own in _IN_CHAT and messages_of(whole.text) is None):
            losses.append(name)
        elif getattr(whole, own):
            notes.append(_superseded(name))
        else:
            changes[own] = tuple(value) if own in _LISTS else value
    back = [user_name(name) for name in changes if name not in ("metadata", "extra")]
    back += [*(f"metadata.{key}" for key in cargo.get("metadata", {})), *cargo.get("extra", {})]
    notes += restored([*back, *(["messages"] if whole is not bare else [])])
    return Unpacked(
        prompt=altered(whole, **changes),
        rest=rest,
        chat=chat,
        losses=tuple(losses),
        notes=tuple(notes),
    )


def _is_its_text(prompt: Prompt, cargo: Cargo) -> bool:
    return cargo.get("of") == text_digest(prompt.text)


def _asked_for(defaults: Mapping[str, Json], prompt: Prompt, dialect: Dialect) -> dict[str, Json]:
    """Of default values, those whose variables are in the text."""
    shown = {*dialect.grammar.shown(prompt.text)}
    return {name: value for name, value in defaults.items() if name in shown}


def restored(names: Collection[str]) -> tuple[str, ...]:
    """The note on what has its place again."""
    return (f"{CARRY_KEY} brings back {', '.join(names)}",) if names else ()


def _superseded(name: str) -> str:
    return f"{name} was carried, and has another value by now, which is kept"


def _added(there: Mapping[str, Json], carried: Mapping[str, Json], word: str, notes: list[str]) -> dict[str, Json]:
    taken = [key for key in carried if there.get(key) is not None and there[key] != carried[key]]
    notes += [_superseded(f"{word}{key}") for key in taken]
    return {**carried, **{key: value for key, value in there.items() if value is not None or key not in carried}}


def _with_messages(prompt: Prompt, cargo: Cargo, dialect: Dialect, *, wanted: bool) -> tuple[Prompt, bool, list[str]]:
    """The prompt with the chat that it was, whether its registry keeps no chats, and what does not fit its text."""
    chat, several = cargo.get("chat"), cargo.get("messages", {})
    if chat is None and not several:
        return prompt, False, []
    text = None
    if wanted and _is_its_text(prompt, cargo):
        text = chat if chat is not None else _merged(prompt.text, several)
    if text is None:
        keys = {key for one in several.values() for key in one}
        return prompt, False, ["messages"] if chat is not None else [f"messages.{key}" for key in sorted(keys)]
    names = frozenset({*prompt.variables, *dialect.grammar.shown(text)})
    return altered(prompt, text=text, variables=names), chat is not None, []


def _merged(text: str, several: Mapping[str, Mapping[str, Json]]) -> str | None:
    messages = messages_of(text) or []
    known = {str(number) for number in range(1, len(messages) + 1)}
    if not several.keys() <= known:
        return None
    whole = [{**one, **several.get(str(number), {})} for number, one in enumerate(messages, 1)]
    return dumps(whole, ensure_ascii=False)


def superseded(names: Iterable[str]) -> tuple[str, ...]:
    """Notes on parameters that were carried and have another value by now."""
    return tuple(_superseded(f"parameters.{name}") for name in names)


# ---- names that a file may have --------------------------------------------------------------------------------------

_WHOLE: Final = frozenset(_FIELDS) - {"name", "string", "parameters", "metadata"}
_INSIDE: Final = ("parameters", "metadata", "messages")
_NEVER: Final = {
    "name": "a name always arrives or is refused",
    "string": "a text always arrives or is refused",
    "labels": "labels are notes, and no losses",
    "parameters": "name each: parameters.NAME",
    "metadata": "name each: metadata.KEY",
}
_OWNED: Final = ("id", "slug", "version", "variables", "updated_at", "notes", "dialect", "inputs")


def never_lost(name: str, parameters: Collection[str] = ()) -> str | None:
    """Why nothing of this name can be a loss anywhere, with the nearest that can; None: it can, if only as a field of a
    registry that is not known here. `parameters`: names that are known to be some.
    """
    head, dot, rest = name.partition(".")
    if name in _WHOLE or name == "messages" or (dot and rest and head in _INSIDE):
        return None
    if name in _NEVER:
        return f"`{name}` is no loss: {_NEVER[name]}"
    if name in _OWNED:
        return f"`{name}` is never lost: it is the registry's own"
    if near := get_close_matches(name, [f"parameters.{one}" for one in parameters], n=1, cutoff=0.85):
        return None if near[0] == name else f"nothing of the name `{name}` can be lost; did you mean `{near[0]}`?"
    if head in parameters:
        return f"nothing of the name `{name}` can be lost; did you mean `parameters.{name}`?"
    if near := get_close_matches(head, [*_WHOLE, *_INSIDE, "description"], n=1, cutoff=0.7):
        known = {"description": "version_description"}.get(near[0], near[0])
        meant = f"{known}.{rest or 'NAME'}" if known in _INSIDE else known
        return f"nothing of the name `{name}` can be lost; did you mean `{meant}`?"
    return None
