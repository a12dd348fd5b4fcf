"""A prompt of one dialect written in the other: template, messages, parameters, metadata. Pure.

A text is cut into literals and variables by the grammar that it is in, written in the other one, and cut again: what
does not come out the same is refused by name. Nothing is repaired, and what has no place is returned as a loss.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final

from engine.lossless_json.numbers import Number
from engine.model import MARK_KEY, Dialect, Inputs, Json, Prompt


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


TABLE: Final[Mapping[tuple[Dialect, Dialect], Sequence[tuple[str, str]]]] = {
    ("portkey", "conductor"): (
        ("{{name}}, {{ name }}", "${name}"),
        ("sections {{#x}}, inverted sections {{^x}}", "refused"),
        ("partials {{>x}}, private partials {{>>x}}", "refused: put their text in"),
        ("comments {{! }}, other delimiters {{= =}}", "refused"),
        ("{{{name}}}, {{&name}}", "refused: write {{name}}"),
        ("names with dots, whitespace, or one of { } # ^ / > ! & =", "refused: rename the variable"),
        ("literal ${name}", "refused: it would become a variable, and there is no escape"),
        ("messages", "rewrite.messages: refuse | system-only | transcript; a loss when roles or messages go"),
        ("images, tool calls and other parts that are no text", "refused"),
        ("raw template that is no list of messages", "refused"),
        ("temperature", "temperature"),
        ("top_p", "topP"),
        ("stop, a list of texts", "stopWords"),
        ("stop, a single text", "a loss: make it a list of one with rewrite.parameters"),
        ('response_format {"type": "text"}, {"type": "json_object"}', 'responseFormat "text", "json"'),
        ("other parameters, default values of variables", "a loss"),
        ("metadata: a text, or a sorted list of different texts", "tags"),
        ("other metadata", "a loss"),
        ("functions, tools, tool_choice, raw", "a loss"),
    ),
    ("conductor", "portkey"): (
        ("${name}", "{{name}}"),
        ("names with dots, whitespace, or one of { # ^ / > ! & =", "refused: rename the variable"),
        ("literal {{", "refused: it would become a tag"),
        ("{ before a variable", "refused: it would become {{{name}}}"),
        ("a text that is a JSON list of messages", "refused: it would become a chat"),
        # \\uXXXX is the usual notation of such an escape
        ('a text with \\n, \\" or \\uXXXX written out', "copied as it is, with a note"),
        ("temperature", "temperature"),
        ("topP", "top_p"),
        ("stopWords", "stop"),
        ('responseFormat "text", "json"', 'response_format {"type": "text"}, {"type": "json_object"}'),
        ("other parameters, and one whose new name is a variable of the text", "a loss"),
        ("tags", "metadata: a text, or a sorted list of texts where a key has several"),
        ("integrations besides that of provider and model", "a loss"),
    ),
}
"""Per direction: field or construct, and what becomes of it."""


def translate(prompt: Prompt, to: Dialect, *, messages: str = "refuse") -> Translated:
    """The prompt as it is to be written where `to` is spoken; as it is when it is in that already.

    `messages`, for a chat that goes where one text is kept: `system-only` keeps the text of the system messages,
    `transcript` every message as `role: text`; anything else refuses. Functions, tools, raw, integrations and extra
    stay on the prompt.
    """
    if prompt.dialect == to:
        return Translated(prompt=prompt)
    taken = _chat_as_text(prompt, messages) if to == "conductor" else _Taken(_TOKENS[prompt.dialect](prompt.text))
    refused = taken.refused or _refusals(taken.tokens, prompt, to)
    parameters, lost_parameters = _parameters(prompt, to)
    metadata, lost_metadata = _tags(prompt.metadata) if to == "conductor" else (prompt.metadata, [])
    after = replace(prompt, dialect=to, parameters=parameters, metadata=metadata)
    if not refused:
        names = tuple(_names(taken.tokens))
        text = _written(taken.tokens, to)
        after = replace(after, text=text, variables=frozenset(names), inputs=Inputs(variables=names))
    return Translated(
        prompt=after,
        losses=tuple(sorted({*taken.losses, *lost_parameters, *lost_metadata})),
        refused=_few(refused),
        notes=(*taken.notes, *_escaped(prompt)),
    )


def variables_of(text: str, dialect: Dialect) -> frozenset[str]:
    """The names of the variables that a registry of that dialect finds in the text; none when it is not mustache."""
    return frozenset(_names(_TOKENS[dialect](text)))


# ---- tokens ----------------------------------------------------------------------------------------------------------

_TEXT: Final = "text"
_VARIABLE: Final = "variable"
_UNCLOSED: Final = "tag that is not closed"
_SIGILS: Final = {
    "#": "section",
    "^": "inverted section",
    "/": "end of a section",
    ">": "partial",
    "!": "comment",
    "=": "change of delimiters",
    "{": "triple mustache",
    "&": "variable with &",
}
_RAW: Final = (_SIGILS["{"], _SIGILS["&"])
_OPENING: Final = {word: sigil for sigil, word in _SIGILS.items()}
_BARE: Final = (_SIGILS["!"], _SIGILS["="], _UNCLOSED)
"""Tags without a name: what stands in them is text of the template."""
_DOLLAR_TAG: Final = re.compile("\\$\\{([^\n\r\x85\u2028\u2029]*?)\\}")
"""On one line, as Java counts lines."""
_TAG: Final[Mapping[Dialect, tuple[str, str]]] = {"portkey": ("{{", "}}"), "conductor": ("${", "}")}
_REGISTRY: Final[Mapping[Dialect, str]] = {"portkey": "Portkey", "conductor": "Conductor"}
_LONGEST: Final = 60
"""Characters of a name that a sentence quotes."""
_MOST: Final = 4
"""Sentences on one prompt."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A literal, or a tag: what kind it is and what stands in it."""

    kind: str
    body: str = field(repr=False)


Tokens = list[_Token]


def _mustache(text: str) -> Tokens:
    """Literals and tags. A tag that is not closed is the last token, and then the text is no mustache."""
    tokens: Tokens = []
    start, end = _TAG["portkey"]
    here = 0
    while (tag := text.find(start, here)) >= 0:
        tokens += _literal(text[here:tag])
        inner = tag + len(start)
        sigil = text[inner : inner + 1] if text[inner : inner + 1] in _SIGILS else ""
        closing = {"{": f"}}{end}", "=": f"={end}"}.get(sigil, end)
        close = text.find(closing, inner + len(sigil))
        body = text[inner + len(sigil) : close].strip()
        if close < 0 or (sigil == "=" and len(body.split()) != 2):
            return [*tokens, _Token(_UNCLOSED, "")]
        tokens.append(_Token(_SIGILS.get(sigil, _VARIABLE), body))
        here = close + len(closing)
        if sigil == "=":
            start, end = body.split()
    return tokens + _literal(text[here:])


def _dollars(text: str) -> Tokens:
    """Literals and variables; a blank name is text, and nothing escapes."""
    tokens: Tokens = []
    here = 0
    for tag in _DOLLAR_TAG.finditer(text):
        if tag[1].strip():
            tokens += [*_literal(text[here : tag.start()]), _Token(_VARIABLE, tag[1])]
            here = tag.end()
    return tokens + _literal(text[here:])


_TOKENS: Final[Mapping[Dialect, Callable[[str], Tokens]]] = {"portkey": _mustache, "conductor": _dollars}


def _literal(text: str) -> Tokens:
    return [_Token(_TEXT, text)] if text else []


def _names(tokens: Sequence[_Token]) -> list[str]:
    """Of the variables, each once, in order."""
    if any(token.kind == _UNCLOSED for token in tokens):
        return []
    return list(dict.fromkeys(token.body for token in tokens if token.kind == _VARIABLE or token.kind in _RAW))


def _written(tokens: Iterable[_Token], dialect: Dialect) -> str:
    start, end = _TAG[dialect]
    return "".join(token.body if token.kind == _TEXT else f"{start}{token.body}{end}" for token in tokens)


def _joined(texts: Iterable[Tokens], between: str) -> Tokens:
    """One list of tokens in which no literal stands beside another."""
    joined: Tokens = []
    for number, tokens in enumerate(texts):
        for token in (_literal(between) if number else []) + tokens:
            if joined and token.kind == _TEXT == joined[-1].kind:
                joined[-1] = _Token(_TEXT, joined[-1].body + token.body)
            else:
                joined.append(token)
    return joined


# ---- what cannot be said in the other dialect ------------------------------------------------------------------------

_ONLY_HERE: Final = (
    (re.compile(r"\A\Z"), "has no name"),
    (re.compile(r"\."), "has a dot in its name, which is a path in Portkey and a plain name in Conductor"),
    (re.compile(r"\s"), "has whitespace in its name, which the registries do not read alike"),
    (re.compile(r"[{}]"), "has a brace in its name, which the registries do not read alike"),
    (re.compile(r"[#^/>!&=]"), "has one of # ^ / > ! & = in its name, which is a sign of its own in mustache"),
)
"""Names that only one of the registries takes for what it is, and why."""
_INSTEAD: Final = {
    "partial": "put the text of the partial in at the source",
    "private partial": "put the text of the partial in at the source",
    "triple mustache": "write it with two braces at the source",
    "variable with &": "write it without & at the source",
}


def _refusals(tokens: Tokens, prompt: Prompt, to: Dialect) -> list[str]:
    """Why these tokens cannot be a text in that dialect, each reason once, in order."""
    refused = [*_constructs(tokens, prompt.dialect), *_bad_names(tokens, prompt.dialect)]
    return refused or [*_changed(tokens, to), *_read_otherwise(prompt)]


def _constructs(tokens: Tokens, dialect: Dialect) -> Iterator[str]:
    sections = any(token.kind in ("section", "inverted section") for token in tokens)
    for token in tokens:
        kind = "private partial" if token.kind == "partial" and token.body.startswith(">") else token.kind
        if kind == _UNCLOSED:
            yield "{{ is not closed or not well formed, so the text is no mustache: mend it at the source"
        elif kind not in (_TEXT, _VARIABLE) and not (sections and kind == "end of a section"):
            instead = _INSTEAD.get(kind, "take it out at the source")
            yield f"{_shown(token, dialect)} ({kind}) has no counterpart in Conductor: {instead}"


def _bad_names(tokens: Tokens, dialect: Dialect) -> Iterator[str]:
    for token in tokens:
        reason = next((reason for only, reason in _ONLY_HERE if only.search(token.body)), None)
        if token.kind == _VARIABLE and reason:
            yield f"{_shown(token, dialect)} {reason}: rename the variable at the source"


def _changed(tokens: Tokens, to: Dialect) -> Iterator[str]:
    """The first tag that the target would read out of the text though it is none, or another one."""
    found = _TOKENS[to](_written(tokens, to))
    at = next((at for at, (one, other) in enumerate(zip_longest(tokens, found)) if one != other), None)
    if at is not None:
        tag = next(token for token in found[at:] if token.kind != _TEXT)
        there = f"{_REGISTRY[to]} would read {_shown(tag, to)} ({tag.kind}) in the text"
        yield f"{there}, which is no such tag here and cannot be escaped there: reword it at the source"
    elif _messages(_written(tokens, "portkey")) is not None:
        yield "the text is a JSON list with roles, which Portkey reads as messages: reword it at the source"


def _read_otherwise(prompt: Prompt) -> Iterator[str]:
    """Where the registry itself found other variables, its grammar is not the one known here."""
    own = frozenset(prompt.inputs.variables)
    known = variables_of(prompt.text, prompt.dialect)
    strings = _strings(_messages(prompt.text)) if prompt.dialect == "portkey" else ()
    inside = frozenset[str]().union(*(variables_of(text, prompt.dialect) for text in strings))
    if own and own not in (known, inside):
        others = ", ".join(_cut(name) for name in sorted(own ^ known)[:_MOST])
        yield f"its registry finds other variables in it: {others}; save it again at the source, or leave it out"


def _shown(token: _Token, dialect: Dialect) -> str:
    """The tag as a user would look for it, cut; never what is text of the template."""
    start, end = _TAG[dialect]
    if token.kind in _BARE:
        return start + {_SIGILS["!"]: f"! {end}", _SIGILS["="]: f"= ={end}"}.get(token.kind, "")
    extra = "}" if token.kind == "triple mustache" else ""
    return f"{start}{_OPENING.get(token.kind, '')}{_cut(token.body)}{extra}{end}"


def _cut(name: str) -> str:
    one_line = re.sub(r"\s", " ", name[: _LONGEST + 1])
    return one_line if len(one_line) <= _LONGEST else f"{one_line[: _LONGEST - 3]}..."


def _few(sentences: Iterable[str]) -> tuple[str, ...]:
    each = tuple(dict.fromkeys(sentences))
    return each if len(each) <= _MOST else (*each[:_MOST], f"and {len(each) - _MOST} more reasons of this sort")


def _escaped(prompt: Prompt) -> Iterator[str]:
    """Some clients of Conductor write newlines, quotes and other characters out when they save a text."""
    if prompt.dialect != "conductor":
        return
    signs = [r"\n"] if r"\n" in prompt.text and "\n" not in prompt.text else []
    signs += [r"\""] if r"\"" in prompt.text else []
    # the notation of the table above, whatever the digits are
    signs += [r"\uXXXX"] if re.search(r"\\u[0-9a-fA-F]{4}", prompt.text) else []
    if signs:
        yield f"the text holds {', '.join(signs)} written out, as some clients store it: copied as it is, check it"


# ---- messages --------------------------------------------------------------------------------------------------------

_SYSTEM: Final = ("system", "developer")
_CALLS: Final = ("tool_calls", "function_call", "tool_call_id")


@dataclass(frozen=True, slots=True)
class _Taken:
    """The tokens that a text is made of, and what there is to say about that."""

    tokens: Tokens
    refused: Sequence[str] = ()
    losses: Sequence[str] = ()
    notes: Sequence[str] = ()


def _messages(text: str) -> list[dict[str, Json]] | None:
    """The messages, where Portkey reads the text as such; else None."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = json.loads(text)
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


def _chat_as_text(prompt: Prompt, how: str) -> _Taken:
    """One text of what Portkey keeps, a text or messages."""
    messages = _messages(prompt.text)
    if messages is None:
        unmade = "it is a raw template, which is a list of messages only when it is rendered: leave it out"
        return _Taken(_mustache(prompt.text), [unmade] if prompt.raw else [])
    if how not in ("system-only", "transcript"):
        count = f"{len(messages)} message{'' if len(messages) == 1 else 's'}"
        advice = "set rewrite.messages to system-only or transcript"
        return _Taken([], [f"it is a chat of {count} and Conductor keeps one text: {advice}"])
    numbered = [(at, one) for at, one in enumerate(messages, 1) if how == "transcript" or one["role"] in _SYSTEM]
    refused = [reason for at, one in numbered for reason in _no_text(at, one)]
    if refused:
        return _Taken([], refused)
    tokens = _joined((_message(one, how) for _, one in numbered), "\n\n")
    empty = f"it is a chat without {'system' if how == 'system-only' else 'any'} messages"
    whole = how == "system-only" and len(numbered) == len(messages) and all(_plain(one) for one in messages)
    return _Taken(
        tokens,
        [] if tokens else [f"{empty} that have a text: leave it out, or change rewrite.messages"],
        [] if whole else ["messages"],
        [f"{len(numbered)} of its {len(messages)} messages became one text (rewrite.messages: {how})"],
    )


def _no_text(at: int, message: Mapping[str, Json]) -> Iterator[str]:
    """What of a message cannot stand in a text."""
    advice = "leave the prompt out, or change it at the source"
    if not isinstance(message["role"], str):
        yield f"message {at} has a role that is no text: {advice}"
    for name in _CALLS:
        if message.get(name):
            yield f"message {at} has {name}, and Conductor keeps text alone: {advice}"
    content = message.get("content")
    if not isinstance(content, str | list | None):
        yield f"message {at} has a content that is no text: {advice}"
    for part in content if isinstance(content, list) else ():
        if not (isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            kind = part.get("type") if isinstance(part, dict) else None
            named = f"a part {_cut(kind)!r}" if isinstance(kind, str) and kind != "text" else "a part that is no text"
            yield f"message {at} has {named}, and Conductor keeps text alone: {advice}"


def _message(message: Mapping[str, Json], how: str) -> Tokens:
    """Every string by itself: a tag cannot begin in one and end in another."""
    content = message.get("content") or ""
    parts = [content] if isinstance(content, str) else [part["text"] for part in content]
    text = _joined(map(_mustache, parts), "\n")
    return text if how == "system-only" else _joined([_mustache(message["role"]), _literal(": "), text], "")


def _plain(message: Mapping[str, Json]) -> bool:
    """Whether role and text are all there is to it."""
    parts = content if isinstance(content := message.get("content"), list) else []
    return message.keys() <= {"role", "content"} and all(part.keys() <= {"type", "text"} for part in parts)


# ---- parameters and metadata -----------------------------------------------------------------------------------------


def _number(value: Json) -> Json:
    return value if isinstance(value, int | float | Number) and not isinstance(value, bool) else None


def _texts(value: Json) -> Json:
    return value if isinstance(value, list) and value and all(isinstance(one, str) for one in value) else None


def _format(value: Json) -> Json:
    return next((word for whole, word in _FORMATS if whole == value), None)


def _whole_format(value: Json) -> Json:
    return next((dict(whole) for whole, word in _FORMATS if word == value), None)


_FORMATS: Final = (({"type": "text"}, "text"), ({"type": "json_object"}, "json"))
_SHARED: Final[Sequence[tuple[str, str, Callable[[Json], Json], Callable[[Json], Json]]]] = (
    ("temperature", "temperature", _number, _number),
    ("top_p", "topP", _number, _number),
    ("stop", "stopWords", _texts, _texts),
    ("response_format", "responseFormat", _format, _whole_format),
)
"""Portkey's name and Conductor's, and the value there and back; None: it has no place."""
_TO_CONDUCTOR: Final = {own: (other, there) for own, other, there, _ in _SHARED}
_TO_PORTKEY: Final = {other: (own, back) for own, other, _, back in _SHARED}


def _parameters(prompt: Prompt, to: Dialect) -> tuple[dict[str, Json], list[str]]:
    """The parameters by their new names, and the losses. Null is as good as nothing."""
    names = _TO_CONDUCTOR if to == "conductor" else _TO_PORTKEY
    variables = variables_of(prompt.text, prompt.dialect).union(prompt.variables)
    kept: dict[str, Json] = {}
    losses = []
    for name, value in prompt.parameters.items():
        other, change = names.get(name, (name, None))
        # Portkey keeps the default value of a variable among the parameters, under its name
        default = (name if to == "conductor" else other) in variables
        if change and not default and (changed := change(value)) is not None:
            kept[other] = changed
        elif value is not None:
            losses.append(f"parameters.{name}")
    return kept, losses


def _tags(metadata: Mapping[str, Json]) -> tuple[dict[str, Json], list[str]]:
    """What can be tags, and the losses; the mark is left to the connector."""
    kept = {key: value for key, value in metadata.items() if key == MARK_KEY or _is_tag(value)}
    return kept, [f"metadata.{key}" for key, value in metadata.items() if key not in kept and value is not None]


def _is_tag(value: Json) -> bool:
    if isinstance(value, list):
        texts = [one for one in value if isinstance(one, str)]
        return len(value) > 1 and value == sorted(set(texts))
    return isinstance(value, str)
