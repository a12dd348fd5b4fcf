"""Texts and chats on their way to another dialect: what arrives, what is lost, what is refused. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from engine.content.templates import joined, literal, names_in, variables_of
from engine.content.way import Left, Way, named, refusals, written
from engine.lossless_json.numbers import dumps, loads
from engine.model import Json, Prompt
from engine.model.dialect import Dialect, Grammar, Token

Message = dict[str, Json]
_MOST_NAMES: Final = 4
"""Variables that a sentence names."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What a text becomes, the names of its variables, and what there is to say about that. `left`: what of a chat has
    no place there, in the other grammar, losses or not.
    """

    text: str = field(default="", repr=False)
    names: tuple[str, ...] = ()
    refused: Sequence[str] = ()
    losses: Sequence[str] = ()
    notes: Sequence[str] = ()
    left: Sequence[Left] = ()


def carried(prompt: Prompt, way: Way, how: str) -> Carried:
    """The text of a prompt at the end of its way; `how` a chat becomes one text, where that is all that is kept."""
    messages = messages_of(prompt.text) if way.source.chat.messages else None
    if messages is None:
        return _text(prompt, way)
    return _chat(prompt, messages, way) if way.target.chat.messages else _one_text(prompt, messages, way, how)


def _text(prompt: Prompt, way: Way) -> Carried:
    if prompt.raw:
        unmade = "it is a raw template, which is a list of messages only when it is rendered: leave it out"
        return Carried(refused=[unmade])
    tokens = way.source.grammar.tokens(prompt.text)
    if refused := [*refusals(tokens, way), *_read_otherwise(prompt, way.source, [])]:
        return Carried(refused=refused)
    text = written(prompt.text, tokens, way)
    names = tuple(names_in(tokens))
    if way.target.chat.text:
        return Carried(text, names, list(_like_messages(text, tokens, way)))
    chat = spelled([{"role": "user", "content": text}])
    return Carried(
        chat, names, notes=[f"its text became the message of a user: {way.target.registry} keeps chats alone"]
    )


def _like_messages(text: str, tokens: Sequence[Token], way: Way) -> Iterator[str]:
    """Whether a text that is no chat would be read as one, there or when it comes back."""
    back = text if way.same_grammar else way.source.grammar.text(tokens)
    for one, there in ((way.target, text), (way.source, back)):
        if one.chat.messages and messages_of(there) is not None:
            yield f"the text is a JSON list with roles, which {one.registry} reads as messages: reword it at the source"
            return


def _read_otherwise(prompt: Prompt, source: Dialect, messages: Sequence[Message]) -> Iterator[str]:
    """Where the registry itself found other variables, its grammar is not the one known here."""
    own = frozenset(prompt.inputs.variables)
    known = variables_of(prompt.text, source.grammar)
    inside = frozenset[str]().union(*(variables_of(text, source.grammar) for text in _strings(list(messages))))
    if own and own not in (known, inside):
        others = ", ".join(named(name) for name in sorted(own ^ known)[:_MOST_NAMES])
        yield f"its registry finds other variables in it: {others}; save it again at the source, or leave it out"


# ---- messages --------------------------------------------------------------------------------------------------------

_SYSTEM: Final = ("system", "developer")
_CALLS: Final = ("tool_calls", "function_call", "tool_call_id")
_ADVICE: Final = "leave the prompt out, or change it at the source"


def messages_of(text: str) -> list[Message] | None:
    """The messages, where the text is a chat; else None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return None
    return value if all(isinstance(one, dict) and "role" in one for one in value) else None


def spelled(messages: Sequence[Message]) -> str:
    """The one form in which a chat stands in `Prompt.text` where its registry keeps messages and not their JSON."""
    first = ("content", "role")
    ordered = [
        {key: one[key] for key in sorted(one, key=lambda key: (key not in first, key != "role", key))}
        for one in messages
    ]
    return dumps(ordered, ensure_ascii=False)


def respelled(prompt: Prompt, target: Dialect) -> Prompt:
    """The prompt of that dialect with its chat in that form, where that is what comes back."""
    messages = None if target.chat.spelled or not target.chat.messages else messages_of(prompt.text)
    return prompt if messages is None else replace(prompt, text=spelled(messages))


def _strings(value: Json) -> Iterator[str]:
    """Every string in a JSON value but the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _one_text(prompt: Prompt, messages: Sequence[Message], way: Way, how: str) -> Carried:
    """One text of a chat."""
    if how not in ("system-only", "transcript"):
        count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}"
        advice = "set rewrite.messages to system-only or transcript"
        return Carried(refused=[f"it is a chat of {count} and {way.target.registry} keeps one text: {advice}"])
    numbered = [(at, one) for at, one in enumerate(messages, 1) if how == "transcript" or one["role"] in _SYSTEM]
    if refused := [reason for at, one in numbered for reason in _no_text(at, one, way.target)]:
        return Carried(refused=refused)
    tokens = joined((_message(one, how, way.source.grammar) for _, one in numbered), "\n\n")
    if not tokens:
        empty = f"it is a chat without {'system' if how == 'system-only' else 'any'} messages"
        return Carried(refused=[f"{empty} that have a text: leave it out, or change rewrite.messages"])
    whole = how == "system-only" and len(numbered) == len(messages) and all(_is_plain(one) for one in messages)
    text = way.target.grammar.text(tokens)
    refused = [*refusals(tokens, way), *_read_otherwise(prompt, way.source, messages)]
    return Carried(
        text,
        tuple(names_in(tokens)),
        refused or [*_like_messages(text, tokens, way)],
        [] if whole else ["messages"],
        [f"{len(numbered)} of its {len(messages)} messages became one text (rewrite.messages: {how})"],
        _whole_chat(messages, way),
    )


def _whole_chat(messages: Sequence[Message], way: Way) -> list[Left]:
    """All of it, where it can be said there."""
    if not _can_be_said(messages, way):
        return []
    there = _mapped(list(messages), partial(_rewritten, way=way))
    return [Left("messages", ("chat",), dumps(there, ensure_ascii=False))]


def _no_text(at: int, message: Message, target: Dialect) -> Iterator[str]:
    """What of a message cannot stand in a text."""
    if not isinstance(message["role"], str):
        yield f"message {at} has a role that is no text: {_ADVICE}"
    for name in _CALLS:
        if message.get(name):
            yield f"message {at} has {name}, and {target.registry} keeps text alone: {_ADVICE}"
    yield from _no_text_parts(at, message, target)


def _no_text_parts(at: int, message: Message, target: Dialect) -> Iterator[str]:
    content = message.get("content")
    if not isinstance(content, str | list | None):
        yield f"message {at} has a content that is no text: {_ADVICE}"
    for part in content if isinstance(content, list) else ():
        if not _is_text(part):
            yield f"message {at} has {_part_named(part)}, and {target.registry} keeps text alone: {_ADVICE}"


def _is_text(part: Json) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _part_named(part: Json) -> str:
    kind = part.get("type") if isinstance(part, dict) else None
    return f"a part {named(kind)!r}" if isinstance(kind, str) and kind != "text" else "a part that is no text"


def _message(message: Message, how: str, grammar: Grammar) -> list[Token]:
    """Every string by itself: a tag cannot begin in one and end in another."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part["text"] for part in content]
    text = joined(map(grammar.tokens, parts), "\n")
    return text if how == "system-only" else joined([grammar.tokens(message["role"]), literal(": "), text])


def _is_plain(message: Message) -> bool:
    """Whether role and text are all there is to it."""
    parts = content if isinstance(content := message.get("content"), list) else []
    return message.keys() <= {"role", "content"} and all(part.keys() <= {"type", "text"} for part in parts)


# ---- a chat that stays one -------------------------------------------------------------------------------------------


def _chat(prompt: Prompt, messages: Sequence[Message], way: Way) -> Carried:
    """The messages in the other grammar; byte for byte where nothing of them changes."""
    refused = [reason for at, one in enumerate(messages, 1) for reason in _no_message(at, one, way.target)]
    kept = [_kept(one, way.target) for one in messages]
    tokens = [way.source.grammar.tokens(text) for text in _strings(kept)]
    refused += [reason for each in tokens for reason in refusals(each, way)]
    refused += _read_otherwise(prompt, way.source, messages)
    if refused:
        return Carried(refused=refused)
    after = kept if way.same_grammar else _mapped(kept, partial(_rewritten, way=way))
    same = prompt.text if after == messages else dumps(after, ensure_ascii=False)
    return Carried(
        same if way.target.chat.spelled else spelled(after),
        tuple(dict.fromkeys(name for each in tokens for name in names_in(each))),
        losses=[f"messages.{key}" for key in {key for one in messages for key in _lost(one, way.target)}],
        notes=_lines_note(messages, way.target),
        left=[*_left(messages, kept, way)],
    )


def _no_message(at: int, message: Message, target: Dialect) -> Iterator[str]:
    """What of a message cannot be one there."""
    parts, content = target.chat.parts, message.get("content")
    if parts is None:
        return
    if not parts:
        yield from _no_text_parts(at, message, target)
        return
    for part in content if isinstance(content, list) else ():
        if not isinstance(part, dict) or part.get("type") not in parts:
            yield f"message {at} has {_part_named(part)}, which {target.registry} does not keep: {_ADVICE}"


def _lost(message: Message, target: Dialect) -> list[str]:
    """The keys of a message that have a value and no place there; those inside of its parts with them."""
    keys = target.chat.keys
    lost = [] if keys is None else [key for key, value in message.items() if key not in keys and value]
    if target.chat.parts is None or target.chat.parts:
        return lost
    parts = content if isinstance(content := message.get("content"), list) else []
    return lost + [f"content.{key}" for part in parts if isinstance(part, dict) for key in part.keys() - _TEXT_PART]


def _left(messages: Sequence[Message], kept: Sequence[Message], way: Way) -> Iterator[Left]:
    """What of each message is left out or changed, under each name that a loss of it has; what cannot be said in the
    other grammar is not among it.
    """
    for number, (message, other) in enumerate(zip(messages, kept, strict=True), 1):
        for key, value in message.items():
            if (key in other and other[key] == value) or not _can_be_said(value, way):
                continue
            there = value if way.same_grammar else _mapped(value, partial(_rewritten, way=way))
            inside = _lost(message, way.target) if key == "content" else ()
            names = [f"messages.{key}", *(f"messages.{name}" for name in inside if name.startswith("content."))]
            yield from (Left(name, ("messages", str(number), key), there) for name in names)


def _can_be_said(value: Json, way: Way) -> bool:
    return not any(refusals(way.source.grammar.tokens(text), way) for text in _strings(value))


_TEXT_PART: Final = {"type", "text"}


def _kept(message: Message, target: Dialect) -> Message:
    """What of a message has a place there; text parts in lines, where a content is one text."""
    keys = target.chat.keys
    kept = {key: value for key, value in message.items() if keys is None or key in keys}
    content = kept.get("content")
    if target.chat.parts is not None and not target.chat.parts and isinstance(content, list):
        kept["content"] = "\n".join(part["text"] for part in content if _is_text(part))
    return kept


def _lines_note(messages: Sequence[Message], target: Dialect) -> list[str]:
    several = target.chat.parts is not None and not target.chat.parts
    if not several or not any(isinstance(one.get("content"), list) for one in messages):
        return []
    return [f"the text parts of a message became lines of one text: {target.registry} keeps no parts"]


def _mapped(value: Json, change: Callable[[str], str]) -> Json:
    """The same value with every string in it changed, but the keys."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list) else value


def _rewritten(text: str, *, way: Way) -> str:
    return written(text, way.source.grammar.tokens(text), way)
