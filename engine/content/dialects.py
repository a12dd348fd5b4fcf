"""What people are told of dialects: what becomes of each thing on a way, and what each dialect says of itself. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from engine.content.digest import CONTENT, user_name
from engine.content.translate import own_name
from engine.content.way import AS_IT_STANDS, KIND_WORDS, Way, odd_names
from engine.model.dialect import Dialect, ParameterNames


def table(source: Dialect, target: Dialect, fields: Collection[str]) -> list[tuple[str, str]]:
    """Construct or field of the one, and what becomes of it in the other, whose prompts have these `fields`."""
    way = Way(source=source, target=target)
    lost = [user_name(name) for name in CONTENT if name not in fields]
    return [
        *([("templates", "as they are")] if way.same_grammar else _grammar_rows(way)),
        *_chat_rows(way),
        *_parameter_rows(way),
        *target.says.items(),
        *_metadata_rows(way),
        *([(", ".join(lost), "a loss")] if lost else []),
    ]


def _grammar_rows(way: Way) -> Iterator[tuple[str, str]]:
    source, target = way.source.grammar, way.target.grammar
    yield source.variable, target.variable
    for one in source.constructs:
        other = next((there.words for there in target.constructs if one.kinds <= there.kinds), None)
        yield one.words, other or one.otherwise
    if odd := [KIND_WORDS[kind] for kind, _, _ in odd_names(way)]:
        yield f"names with {', '.join(odd)}", "refused: rename the variable"
    yield from ((what, f"refused: {becomes}") for what, becomes in target.literal)


def _chat_rows(way: Way) -> Iterator[tuple[str, str]]:
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
        # each X is any hexadecimal digit, as RFC 8259 writes such an escape: readers know it so
        yield 'a text with \\n, \\" or \\uXXXX written out', "copied as it is, with a note"


def _parameter_rows(way: Way) -> Iterator[tuple[str, str]]:
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
    own = own_name(neutral, names)
    if own is None or (known := names.known.get(own)) is None:
        values = next((one.values for one in others.known.values() if one.neutral == neutral), "")
        return own and f"{own}{values}"
    return f"{own}{known.own}"


def _metadata_rows(way: Way) -> Iterator[tuple[str, str]]:
    yield way.source.metadata.says, way.target.metadata.says
    if way.target.metadata.keeps is not None:
        yield "other metadata", "a loss"


def described(dialect: Dialect) -> dict[str, str]:
    """Everything that a dialect says of itself, by what it is about."""
    grammar, chat, parameters = dialect.grammar, dialect.chat, dialect.parameters
    return {
        "variable": grammar.variable,
        **{one.name: one.words for one in grammar.constructs},
        **{f"names with {words}": grammar.names.get(kind, AS_IT_STANDS) for kind, words in KIND_WORDS.items()},
        "text taken for a tag": "; ".join(what for what, _ in grammar.literal) or "none, it is escaped",
        "messages": "kept" if chat.messages else "one text",
        "a text": "kept" if chat.text else "the message of a user",
        **_message_words(dialect),
        **{one.neutral: f"{own}{one.own or one.values}" for own, one in parameters.known.items()},
        "other parameters": "kept" if parameters.open else "a loss",
        "default values of variables": "among the parameters" if parameters.defaults else "a loss",
        **dialect.says,
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
