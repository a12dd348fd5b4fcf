"""Templates of Jinja2, and of Nunjucks, which reads alike what is used here: cut into tokens. Pure.

Sources: the lexer of Jinja2 3.1 and of Nunjucks 3.2. What stands between `{{`, `{%` and `{#` and their ends is a tag;
there is no escape, but a tag may hold the brace itself: `{{ '{' }}{`. A variable whose name is one of the methods of a
map is found by its brackets alone: `{{ a["items"] }}`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from engine.connectors.files.formats.parts import TEXTS_KEPT, Piece, without_blanks
from engine.content.templates import (
    BRACE,
    BRACKET,
    DIGITS,
    DOT,
    JINJA_BLOCK,
    JINJA_COMMENT,
    JINJA_EXPRESSION,
    SIGN,
    SPACE,
    TEXT,
    UNCLOSED,
    VARIABLE,
    joined,
    literal,
)
from engine.model.dialect import Construct, Grammar, Token

_NAME: Final = "[a-zA-Z_][a-zA-Z0-9_]*"
_METHODS: Final = frozenset("clear copy fromkeys get items keys pop popitem setdefault update values".split())
_TAKEN: Final = frozenset(
    "and elif else false False if import in is not or none None null self super true True loop caller".split()
)
"""Words that stand for something else than a variable."""
_VARIABLE: Final = re.compile(rf"{_NAME}(?:\.{_NAME}|\[(?:\"{_NAME}\"|'{_NAME}')\])*")
_STEP: Final = re.compile(rf"\.?({_NAME})|\[[\"']({_NAME})[\"']\]")
_LITERAL: Final = re.compile(r"'([^'\\]*)'|\"([^\"\\]*)\"")
_RAW: Final = re.compile(
    r"\{%[-+]?\s*raw\s*(?P<first>-?)%\}(?P<said>.*?)\{%(?P<last>[-+]?)\s*endraw\s*[-+]?%\}", re.DOTALL
)
_TAG: Final = re.compile(
    r"\{\{(?P<before>[-+]?)(?P<shown>(?>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|.)*?)(?P<after>[-+]?)\}\}"
    r"|\{%(?P<b1>[-+]?)(?P<block>(?>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|.)*?)(?P<b2>[-+]?)%\}"
    r"|\{#(?P<c1>[-+]?)(?P<remark>.*?)(?P<c2>[-+]?)#\}",
    re.DOTALL,
)
_OPENING: Final = re.compile(r"\{(?=[{%#])")
_OPENING_OR_LAST: Final = re.compile(r"\{(?=[{%#]|\Z)")
_WRITTEN: Final = {
    JINJA_BLOCK: "{%% %s %%}",
    JINJA_COMMENT: "{# %s #}",
    JINJA_EXPRESSION: "{{ %s }}",
    UNCLOSED: "{{",
}


def pieces(text: str) -> list[Piece]:
    """All of it, texts as they stand; the last one is UNCLOSED where the text is not well formed."""
    found: list[Piece] = []
    here = 0
    while (opens := _OPENING.search(text, here)) is not None:
        at = opens.start()
        found += [Piece(Token(TEXT, text[here:at]), here, at)] if at > here else []
        piece = _raw(text, at) or _tag(text, at)
        found.append(piece)
        if piece.kind == UNCLOSED:
            return found
        here = piece.end
    return [*found, Piece(Token(TEXT, text[here:]), here, len(text))] if here < len(text) else found


def _raw(text: str, at: int) -> Piece | None:
    found = _RAW.match(text, at)
    if found is None:
        return None
    said = found["said"].lstrip() if found["first"] else found["said"]
    said = said.rstrip() if found["last"] == "-" else said
    opened, closed = found[0][2:3], found[0].rstrip("%}")[-1:]
    return Piece(Token(TEXT, said), at, found.end(), opened == "-", closed == "-")


def _tag(text: str, at: int) -> Piece:
    found = _TAG.match(text, at)
    if found is None:
        return Piece(Token(UNCLOSED, ""), at, len(text))
    if found["shown"] is not None:
        token, signs = _shown(found["shown"].strip()), (found["before"], found["after"])
    elif found["block"] is not None:
        token, signs = Token(JINJA_BLOCK, found["block"].strip()), (found["b1"], found["b2"])
    else:
        token, signs = Token(JINJA_COMMENT, found["remark"].strip()), (found["c1"], found["c2"])
    return Piece(token, at, found.end(), signs[0] == "-", signs[1] == "-")


def _shown(body: str) -> Token:
    if (text := _LITERAL.fullmatch(body)) is not None:
        return Token(TEXT, text[1] if text[1] is not None else text[2])
    if _VARIABLE.fullmatch(body) is None:
        return Token(JINJA_EXPRESSION, body)
    steps = [(step[1], step[2]) for step in _STEP.finditer(body)]
    if steps[0][0] in _TAKEN or any(dotted in _METHODS for dotted, _ in steps[1:]):
        return Token(JINJA_EXPRESSION, body)
    return Token(VARIABLE, ".".join(dotted or quoted for dotted, quoted in steps))


@lru_cache(maxsize=TEXTS_KEPT)
def _tokens(text: str) -> tuple[Token, ...]:
    found = pieces(text)
    if any(piece.kind == UNCLOSED for piece in found):
        return (Token(UNCLOSED, ""),)
    bare = without_blanks(found, _stands)
    return tuple(joined(literal(piece.token.body) if piece.kind == TEXT else [piece.token] for piece in bare))


def _stands(text: Piece) -> bool:
    """What a tag says itself is not touched by others."""
    return len(text.token.body) == text.end - text.start


def _text(tokens: Iterable[Token]) -> str:
    several = list(tokens)
    return "".join(_written(one, last=at == len(several) - 1) for at, one in enumerate(several))


def _written(token: Token, *, last: bool) -> str:
    if token.kind == TEXT:
        return (_OPENING if last else _OPENING_OR_LAST).sub("{{ '{' }}", token.body)
    if token.kind == VARIABLE:
        first, *rest = token.body.split(".")
        return "{{" + first + "".join(f'["{one}"]' if one in _METHODS else f".{one}" for one in rest) + "}}"
    return _WRITTEN.get(token.kind, "{{%s}}").replace("%s", token.body).replace("%%", "%")


def _names(text: str) -> list[str]:
    return [token.body for token in _tokens(text) if token.kind == VARIABLE]


def deep(several: Iterable[Piece]) -> int:
    """How many blocks are open behind these; a text that ends one too many is below zero."""
    count = 0
    for piece in several:
        word = re.match(r"\w*", piece.token.body) if piece.kind == JINJA_BLOCK else None
        if word is None:
            continue
        if word[0].startswith("end"):
            count -= 1
        elif word[0] in _WITH_END and not (word[0] == "set" and "=" in piece.token.body):
            count += 1
    return count


_WITH_END: Final = frozenset("autoescape block call filter for if macro raw set trans with".split())

JINJA: Final = Grammar(
    name="Jinja2",
    tokens=_tokens,
    text=_text,
    shown=_names,
    variable="{{name}}, {{ name }} of letters, digits and _",
    opening="{{",
    constructs=(
        Construct(
            name="Jinja2",
            kinds=frozenset({JINJA_BLOCK, JINJA_EXPRESSION, JINJA_COMMENT}),
            words="all of Jinja2: {% if x %}, {{ x | upper }}, {# #}",
        ),
    ),
    names={
        DOT: "a path",
        SPACE: "no name",
        BRACE: "an end of the tag",
        SIGN: "a sign of its own",
        BRACKET: "an index",
        DIGITS: "a number",
    },
)
"""A brace that it would take for the beginning of a tag stands in one: `{{ '{' }}`."""
