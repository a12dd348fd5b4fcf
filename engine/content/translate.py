"""A prompt of one dialect written in another: template, messages, parameters, metadata. Pure.

A text is cut into tokens by the grammar that it is in, written in the other one, and cut again: what does not come out
the same is refused by name. Parameters go by their neutral names, chats by their one form. So each dialect says what it
is itself, and nothing here knows two of them. Nothing is repaired, and what has no place is returned as a loss.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest
from typing import Final

from engine.content.digest import CONTENT, user_name
from engine.content.templates import (
    AMPERSAND,
    BARE,
    BRACE,
    BRACKET,
    DIGITS,
    DOT,
    FORMATTED,
    INVERTED,
    PARTIAL,
    PRIVATE_PARTIAL,
    SECTION,
    SECTION_END,
    SIGN,
    SPACE,
    TEXT,
    TRIPLE,
    UNCLOSED,
    VARIABLE,
    joined,
    literal,
    names_in,
)
from engine.lossless_json.numbers import dumps, loads
from engine.model import MARK_KEY, Dialect, Grammar, Inputs, Json, ParameterNames, Prompt, Token

Message = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Translated:
    """The prompt in the other dialect, and all there is to say about the way there.

    `losses`: names, as users know them, of what has no place there, but not whole fields of Prompt that the target
    has none for. `refused`: sentences on what cannot be said there; such a prompt must not be written, and its text is
    as it was. `notes`: sentences that fail nothing. None of them quotes more than the name of a tag.
    """

    prompt: Prompt = field(repr=False)
    losses: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """From one dialect to another."""

    source: Dialect
    target: Dialect

    @property
    def same_grammar(self) -> bool:
        return self.source.grammar == self.target.grammar


def translate(prompt: Prompt, source: Dialect, target: Dialect, *, messages: str = "refuse") -> Translated:
    """The prompt, which is in `source`, as it is to be written where `target` is spoken.

    `messages`, for a chat that goes where one text is kept: `system-only` keeps the text of the system messages,
    `transcript` every message as `role: text`; anything else refuses. Functions, tools, raw, integrations and extra
    stay on the prompt.
    """
    if source.name == target.name:
        return Translated(prompt=prompt)
    way = _Way(source=source, target=target)
    carried = _carried(prompt, way, messages)
    parameters, lost_parameters = _parameters(prompt, way)
    metadata, lost_metadata = _metadata(prompt.metadata, target)
    after = replace(prompt, dialect=target.name, parameters=parameters, metadata=metadata)
    if not carried.refused:
        after = replace(
            after, text=carried.text, variables=frozenset(carried.names), inputs=Inputs(variables=carried.names)
        )
    return Translated(
        prompt=after,
        losses=tuple(sorted({*carried.losses, *lost_parameters, *lost_metadata})),
        refused=_few(carried.refused),
        notes=(*carried.notes, *(_escaped(prompt.text) if source.escaped else ())),
    )


def variables_of(text: str, grammar: Grammar) -> frozenset[str]:
    """The names of the variables that are found in the text; none when it is not well formed."""
    return frozenset(names_in(grammar.tokens(text)))


# ---- the text --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Carried:
    """What a text becomes, the names of its variables, and what there is to say about that."""

    text: str = field(default="", repr=False)
    names: tuple[str, ...] = ()
    refused: Sequence[str] = ()
    losses: Sequence[str] = ()
    notes: Sequence[str] = ()


def _carried(prompt: Prompt, way: _Way, how: str) -> _Carried:
    messages = _messages(prompt.text) if way.source.chat.messages else None
    if messages is None:
        return _text(prompt, way)
    return _chat(prompt, messages, way) if way.target.chat.messages else _one_text(prompt, messages, way, how)


def _text(prompt: Prompt, way: _Way) -> _Carried:
    if prompt.raw:
        unmade = "it is a raw template, which is a list of messages only when it is rendered: leave it out"
        return _Carried(refused=[unmade])
    tokens = way.source.grammar.tokens(prompt.text)
    if refused := [*_refusals(tokens, way), *_read_otherwise(prompt, way.source, [])]:
        return _Carried(refused=refused)
    text = prompt.text if way.same_grammar else way.target.grammar.text(tokens)
    names = tuple(names_in(tokens))
    if way.target.chat.text:
        return _Carried(text, names, list(_like_messages(text, tokens, way)))
    chat = dumps([{"role": "user", "content": text}], ensure_ascii=False)
    return _Carried(
        chat, names, notes=[f"its text became the message of a user: {way.target.registry} keeps chats alone"]
    )


def _like_messages(text: str, tokens: Sequence[Token], way: _Way) -> Iterator[str]:
    """Whether a text that is no chat would be read as one, there or when it comes back."""
    back = text if way.same_grammar else way.source.grammar.text(tokens)
    for one, written in ((way.target, text), (way.source, back)):
        if one.chat.messages and _messages(written) is not None:
            yield f"the text is a JSON list with roles, which {one.registry} reads as messages: reword it at the source"
            return


# ---- what cannot be said in the other dialect ------------------------------------------------------------------------

_LONGEST: Final = 60
"""Characters of a name that a sentence quotes."""
_MOST: Final = 4
"""Sentences on one prompt."""
_NAMES: Final = (
    (DOT, re.compile(r"\."), "has a dot in its name, which is {readings}"),
    (SPACE, re.compile(r"\s"), "has whitespace in its name, which the registries do not read alike"),
    (BRACE, re.compile(r"[{}]"), "has a brace in its name, which the registries do not read alike"),
    (SIGN, re.compile(r"[#^/>!&=]"), "has one of # ^ / > ! & = in its name, which is a sign of its own in mustache"),
    (BRACKET, re.compile(r"[\[\]]"), "has a bracket in its name, which is {readings}"),
    (DIGITS, re.compile(r"\A\d+\Z"), "has a number for a name, which is {readings}"),
)
"""Kinds of name that grammars may read otherwise, and why such a variable is refused."""
_AS_IT_STANDS: Final = "a plain name"
_INSTEAD: Final = {
    PARTIAL: "put the text of the partial in at the source",
    PRIVATE_PARTIAL: "put the text of the partial in at the source",
    TRIPLE: "write it with two braces at the source",
    AMPERSAND: "write it without & at the source",
    FORMATTED: "write it without a format at the source",
}


def _refusals(tokens: Sequence[Token], way: _Way) -> list[str]:
    """Why these tokens cannot be a text in the other dialect, each reason once, in order."""
    if way.same_grammar:
        return []
    return [*_constructs(tokens, way), *_bad_names(tokens, way)] or [*_changed(tokens, way)]


def _constructs(tokens: Sequence[Token], way: _Way) -> Iterator[str]:
    sections = any(token.kind in (SECTION, INVERTED) for token in tokens)
    grammar = way.source.grammar
    known = {TEXT, VARIABLE, *(way.target.grammar.kinds & grammar.kinds)}
    for token in tokens:
        if token.kind == UNCLOSED:
            yield (
                f"{grammar.opening} is not closed or not well formed, so the text is no {grammar.name}: "
                "mend it at the source"
            )
        elif token.kind not in known and not (sections and token.kind == SECTION_END):
            instead = _INSTEAD.get(token.kind, "take it out at the source")
            yield f"{_shown(token, grammar)} ({token.kind}) has no counterpart in {way.target.registry}: {instead}"


def _bad_names(tokens: Sequence[Token], way: _Way) -> Iterator[str]:
    for token in tokens:
        if token.kind == VARIABLE and (reason := _bad_name(token.body, way)):
            yield f"{_shown(token, way.source.grammar)} {reason}: rename the variable at the source"


def _bad_name(name: str, way: _Way) -> str | None:
    if not name:
        return "has no name"
    kind, sentence = next(((kind, why) for kind, only, why in _odd(way) if only.search(name)), ("", ""))
    # sorted, so that both ways there say it alike
    both = (way.source, way.target)
    readings = sorted(f"{one.grammar.names.get(kind, _AS_IT_STANDS)} in {one.registry}" for one in both)
    return sentence.format(readings=" and ".join(readings)) or None


def _odd(way: _Way) -> Iterator[tuple[str, re.Pattern[str], str]]:
    """The kinds of name that the two do not read alike."""
    here, there = way.source.grammar.names, way.target.grammar.names
    return ((kind, only, why) for kind, only, why in _NAMES if here.get(kind) != there.get(kind))


def _changed(tokens: Sequence[Token], way: _Way) -> Iterator[str]:
    """The first tag that the target would read out of the text though it is none, or another one."""
    grammar = way.target.grammar
    found = grammar.tokens(grammar.text(tokens))
    at = next((at for at, (one, other) in enumerate(zip_longest(tokens, found)) if one != other), None)
    if at is not None:
        tag = next(token for token in found[at:] if token.kind != TEXT)
        there = f"{way.target.registry} would read {_shown(tag, grammar)} ({tag.kind}) in the text"
        yield f"{there}, which is no such tag here and cannot be escaped there: reword it at the source"


def _read_otherwise(prompt: Prompt, source: Dialect, messages: Sequence[Message]) -> Iterator[str]:
    """Where the registry itself found other variables, its grammar is not the one known here."""
    own = frozenset(prompt.inputs.variables)
    known = variables_of(prompt.text, source.grammar)
    inside = frozenset[str]().union(*(variables_of(text, source.grammar) for text in _strings(list(messages))))
    if own and own not in (known, inside):
        others = ", ".join(_cut(name) for name in sorted(own ^ known)[:_MOST])
        yield f"its registry finds other variables in it: {others}; save it again at the source, or leave it out"


def _shown(token: Token, grammar: Grammar) -> str:
    """The tag as a user would look for it, cut; never what is text of the template."""
    return grammar.text([Token(token.kind, " " if token.kind in BARE else _cut(token.body))])


def _cut(name: str) -> str:
    one_line = re.sub(r"\s", " ", name[: _LONGEST + 1])
    return one_line if len(one_line) <= _LONGEST else f"{one_line[: _LONGEST - 3]}..."


def _few(sentences: Iterable[str]) -> tuple[str, ...]:
    each = tuple(dict.fromkeys(sentences))
    return each if len(each) <= _MOST else (*each[:_MOST], f"and {len(each) - _MOST} more reasons of this sort")


def _escaped(text: str) -> Iterator[str]:
    """Some clients write newlines, quotes and other characters out when they save a text."""
    signs = [r"\n"] if r"\n" in text and "\n" not in text else []
    signs += [r"\""] if r"\"" in text else []
    # the usual notation of such an escape, whatever the digits are
    signs += [r"\uXXXX"] if re.search(r"\\u[0-9a-fA-F]{4}", text) else []
    if signs:
        yield f"the text holds {', '.join(signs)} written out, as some clients store it: copied as it is, check it"


# ---- messages --------------------------------------------------------------------------------------------------------

_SYSTEM: Final = ("system", "developer")
_CALLS: Final = ("tool_calls", "function_call", "tool_call_id")
_ADVICE: Final = "leave the prompt out, or change it at the source"


def _messages(text: str) -> list[Message] | None:
    """The messages, where the text is a chat; else None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = loads(text)
    except (ValueError, RecursionError):
        return None
    return value if all(isinstance(one, dict) and "role" in one for one in value) else None


def _strings(value: Json) -> Iterator[str]:
    """Every string in a JSON value but the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def _one_text(prompt: Prompt, messages: Sequence[Message], way: _Way, how: str) -> _Carried:
    """One text of a chat."""
    if how not in ("system-only", "transcript"):
        count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}"
        advice = "set rewrite.messages to system-only or transcript"
        return _Carried(refused=[f"it is a chat of {count} and {way.target.registry} keeps one text: {advice}"])
    numbered = [(at, one) for at, one in enumerate(messages, 1) if how == "transcript" or one["role"] in _SYSTEM]
    if refused := [reason for at, one in numbered for reason in _no_text(at, one, way.target)]:
        return _Carried(refused=refused)
    tokens = joined((_message(one, how, way.source.grammar) for _, one in numbered), "\n\n")
    if not tokens:
        empty = f"it is a chat without {'system' if how == 'system-only' else 'any'} messages"
        return _Carried(refused=[f"{empty} that have a text: leave it out, or change rewrite.messages"])
    whole = how == "system-only" and len(numbered) == len(messages) and all(_is_plain(one) for one in messages)
    text = way.target.grammar.text(tokens)
    refused = [*_refusals(tokens, way), *_read_otherwise(prompt, way.source, messages)]
    return _Carried(
        text,
        tuple(names_in(tokens)),
        refused or [*_like_messages(text, tokens, way)],
        [] if whole else ["messages"],
        [f"{len(numbered)} of its {len(messages)} messages became one text (rewrite.messages: {how})"],
    )


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
    return f"a part {_cut(kind)!r}" if isinstance(kind, str) and kind != "text" else "a part that is no text"


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


def _chat(prompt: Prompt, messages: Sequence[Message], way: _Way) -> _Carried:
    """The messages in the other grammar; byte for byte where nothing of them changes."""
    refused = [reason for at, one in enumerate(messages, 1) for reason in _no_message(at, one, way.target)]
    kept = [_kept(one, way.target) for one in messages]
    tokens = [way.source.grammar.tokens(text) for text in _strings(kept)]
    refused += [reason for each in tokens for reason in _refusals(each, way)]
    refused += _read_otherwise(prompt, way.source, messages)
    if refused:
        return _Carried(refused=refused)
    written = kept if way.same_grammar else _mapped(kept, partial(_rewritten, way=way))
    return _Carried(
        prompt.text if written == messages else dumps(written, ensure_ascii=False),
        tuple(dict.fromkeys(name for each in tokens for name in names_in(each))),
        losses=[f"messages.{key}" for key in {key for one in messages for key in _lost(one, way.target)}],
        notes=_lines_note(messages, way.target),
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


def _rewritten(text: str, *, way: _Way) -> str:
    return way.target.grammar.text(way.source.grammar.tokens(text))


# ---- parameters and metadata -----------------------------------------------------------------------------------------


def _parameters(prompt: Prompt, way: _Way) -> tuple[dict[str, Json], list[str]]:
    """The parameters by their new names, and the losses. Null is as good as nothing."""
    variables = variables_of(prompt.text, way.source.grammar).union(prompt.variables)
    kept: dict[str, Json] = {}
    losses = []
    for name, value in prompt.parameters.items():
        other, changed = _parameter(name, value, variables, way)
        if other is not None and changed is not None:
            kept[other] = changed
        elif value is not None:
            losses.append(f"parameters.{name}")
    return kept, losses


def _parameter(name: str, value: Json, variables: Collection[str], way: _Way) -> tuple[str | None, Json]:
    """Its name and value there; None: it has no place."""
    source, target = way.source.parameters, way.target.parameters
    if source.defaults and name in variables:  # the default value of a variable, and no parameter
        return (name, value) if target.defaults else (None, None)
    neutral, between = _neutral(name, value, source)
    there = _own(neutral, target) if neutral is not None else None
    if neutral is None or there is None or (target.defaults and there in variables):
        return None, None
    known = target.known.get(there)
    return there, known.write(between) if known is not None and between is not None else between


def _neutral(name: str, value: Json, names: ParameterNames) -> tuple[str | None, Json]:
    if (known := names.known.get(name)) is not None:
        return known.neutral, None if value is None else known.read(value)
    taken = any(one.neutral == name for one in names.known.values())
    return (name, value) if names.open and not taken else (None, None)


def _own(neutral: str, names: ParameterNames) -> str | None:
    """What a parameter is called there; None: it has no place."""
    own = next((own for own, one in names.known.items() if one.neutral == neutral), None)
    return own or (neutral if names.open and neutral not in names.known else None)


def _metadata(metadata: Mapping[str, Json], target: Dialect) -> tuple[dict[str, Json], list[str]]:
    """What is kept there, and the losses; the mark is left to the connector."""
    keeps = target.metadata.keeps
    kept = {key: value for key, value in metadata.items() if keeps is None or key == MARK_KEY or keeps(value)}
    return kept, [f"metadata.{key}" for key, value in metadata.items() if key not in kept and value is not None]


# ---- what to tell of it ----------------------------------------------------------------------------------------------


def table(source: Dialect, target: Dialect, fields: Collection[str]) -> list[tuple[str, str]]:
    """Construct or field of the one, and what becomes of it in the other, whose prompts have these `fields`."""
    way = _Way(source=source, target=target)
    lost = [user_name(name) for name in CONTENT if name not in fields]
    return [
        *([("templates", "as they are")] if way.same_grammar else _grammar_rows(way)),
        *_chat_rows(way),
        *_parameter_rows(way),
        *_metadata_rows(way),
        *([(", ".join(lost), "a loss")] if lost else []),
    ]


def _grammar_rows(way: _Way) -> Iterator[tuple[str, str]]:
    source, target = way.source.grammar, way.target.grammar
    yield source.variable, target.variable
    for one in source.constructs:
        other = next((there.words for there in target.constructs if one.kinds <= there.kinds), None)
        yield one.words, other or one.otherwise
    if odd := [_KIND_WORDS[kind] for kind, _, _ in _odd(way)]:
        yield f"names with {', '.join(odd)}", "refused: rename the variable"
    yield from ((what, f"refused: {becomes}") for what, becomes in target.literal)


_KIND_WORDS: Final = {
    DOT: "dots",
    SPACE: "whitespace",
    BRACE: "braces",
    SIGN: "one of # ^ / > ! & =",
    BRACKET: "brackets",
    DIGITS: "digits alone",
}


def _chat_rows(way: _Way) -> Iterator[tuple[str, str]]:
    source, target = way.source.chat, way.target.chat
    if source.messages and not target.messages:
        yield "messages", "rewrite.messages: refuse | system-only | transcript; a loss when roles or messages go"
        yield "images, tool calls and other parts that are no text", "refused"
    elif source.messages:
        yield "messages", "messages"
        if target.keys is not None:
            yield f"keys of a message besides {', '.join(sorted(target.keys))}", "a loss"
        if target.parts is not None:
            yield f"parts of a message besides {', '.join(sorted(target.parts | {'text'}))}", "refused"
    if source.messages:
        yield "raw template that is no list of messages", "refused"
    elif target.messages and target.text:
        yield "a text that is a JSON list of messages", "refused: it would become a chat"
    if not target.text:
        yield "a text", "the message of a user"
    if way.source.escaped:
        # \\uXXXX is the usual notation of such an escape
        yield 'a text with \\n, \\" or \\uXXXX written out', "copied as it is, with a note"


def _parameter_rows(way: _Way) -> Iterator[tuple[str, str]]:
    source, target = way.source.parameters, way.target.parameters
    for neutral in dict.fromkeys(one.neutral for names in (source, target) for one in names.known.values()):
        if (here := _parameter_words(neutral, source, target)) is not None:
            yield here, _parameter_words(neutral, target, source) or "a loss"
    for one in target.known.values():
        if one.advice:
            yield f"{one.neutral}, other values", f"a loss: {one.advice}"
    if not (source.open and target.open):
        also = ", default values of variables" if source.defaults and not target.defaults else ""
        also += ", and one whose new name is a variable of the text" if target.defaults else ""
        yield f"other parameters{also}", "a loss"


def _parameter_words(neutral: str, names: ParameterNames, others: ParameterNames) -> str | None:
    """What a dialect calls a parameter, and which values of it the other one knows too."""
    own = _own(neutral, names)
    if own is None or (known := names.known.get(own)) is None:
        values = next((one.values for one in others.known.values() if one.neutral == neutral), "")
        return own and f"{own}{values}"
    return f"{own}{known.own}"


def _metadata_rows(way: _Way) -> Iterator[tuple[str, str]]:
    yield way.source.metadata.says, way.target.metadata.says
    if way.target.metadata.keeps is not None:
        yield "other metadata", "a loss"


def described(dialect: Dialect) -> dict[str, str]:
    """Everything that a dialect says of itself, by what it is about."""
    grammar, chat, parameters = dialect.grammar, dialect.chat, dialect.parameters
    return {
        "variable": grammar.variable,
        **{one.name: one.words for one in grammar.constructs},
        **{f"names with {words}": grammar.names.get(kind, _AS_IT_STANDS) for kind, words in _KIND_WORDS.items()},
        "text taken for a tag": "; ".join(what for what, _ in grammar.literal) or "none, it is escaped",
        "messages": "kept" if chat.messages else "one text",
        "a text": "kept" if chat.text else "the message of a user",
        **_message_words(dialect),
        **{one.neutral: f"{own}{one.own or one.values}" for own, one in parameters.known.items()},
        "other parameters": "kept" if parameters.open else "a loss",
        "default values of variables": "among the parameters" if parameters.defaults else "a loss",
        "metadata": dialect.metadata.says,
    }


def _message_words(dialect: Dialect) -> dict[str, str]:
    keys, parts = dialect.chat.keys, dialect.chat.parts
    if not dialect.chat.messages:
        return {}
    return {
        "keys of a message": "all" if keys is None else ", ".join(sorted(keys)),
        "parts of a content": "all" if parts is None else ", ".join(sorted(parts)) or "one text",
    }
