"""The grammars of templates: mustache, `${name}`, f-strings. Each cuts a text into tokens and writes it of them. Pure.

What the tags are called is shared by all of them, and so are the kinds of name that grammars read in ways of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from string import Formatter
from typing import Final

from engine.model.dialect import Construct, Grammar, Token

TEXT: Final = "text"
VARIABLE: Final = "variable"
UNCLOSED: Final = "tag that is not closed"
"""The last token of a text that is not well formed."""
SECTION: Final = "section"
INVERTED: Final = "inverted section"
SECTION_END: Final = "end of a section"
PARTIAL: Final = "partial"
PRIVATE_PARTIAL: Final = "private partial"
COMMENT: Final = "comment"
DELIMITERS: Final = "change of delimiters"
TRIPLE: Final = "triple mustache"
AMPERSAND: Final = "variable with &"
FORMATTED: Final = "variable with a format"
JINJA_BLOCK: Final = "Jinja2 block"
JINJA_EXPRESSION: Final = "Jinja2 expression"
JINJA_COMMENT: Final = "Jinja2 comment"

ASKING: Final = frozenset({VARIABLE, TRIPLE, AMPERSAND, FORMATTED})
"""Tags that ask for the value of a variable."""
BARE: Final = frozenset({COMMENT, DELIMITERS, UNCLOSED})
"""Tags without a name: what stands in them is text of the template."""

DOT: Final = "dot"
SPACE: Final = "whitespace"
BRACE: Final = "brace"
SIGN: Final = "sign"
BRACKET: Final = "bracket"
DIGITS: Final = "digits"
"""Kinds of name."""


def literal(text: str) -> list[Token]:
    """A token, unless the text is empty."""
    return [Token(TEXT, text)] if text else []


def joined(several: Iterable[Iterable[Token]], between: str = "") -> list[Token]:
    """One list of tokens in which no literal stands beside another."""
    found: list[Token] = []
    for number, tokens in enumerate(several):
        for token in (*(literal(between) if number else ()), *tokens):
            if found and token.kind == TEXT == found[-1].kind:
                found[-1] = Token(TEXT, found[-1].body + token.body)
            else:
                found.append(token)
    return found


def names_in(tokens: Sequence[Token]) -> list[str]:
    """Of the variables, each once, in order; none where the text is not well formed."""
    if any(token.kind == UNCLOSED for token in tokens):
        return []
    return list(dict.fromkeys(token.body for token in tokens if token.kind in ASKING))


def variables_of(text: str, grammar: Grammar) -> frozenset[str]:
    """The names of the variables that are found in the text; none when it is not well formed."""
    return frozenset(names_in(grammar.tokens(text)))


def variables_cut(text: str, tag: re.Pattern[str]) -> list[Token]:
    """Literals and variables, of a grammar that has nothing else: its tags are found by `tag`, whose first group is the
    name. A blank name is text.
    """
    tokens: list[Token] = []
    here = 0
    for found in tag.finditer(text):
        if found[1].strip():
            tokens += [*literal(text[here : found.start()]), Token(VARIABLE, found[1])]
            here = found.end()
    return tokens + literal(text[here:])


# ---- mustache --------------------------------------------------------------------------------------------------------

_SIGILS: Final = {
    "#": SECTION,
    "^": INVERTED,
    "/": SECTION_END,
    ">": PARTIAL,
    "!": COMMENT,
    "=": DELIMITERS,
    "{": TRIPLE,
    "&": AMPERSAND,
}
_OPENING: Final = {kind: sigil for sigil, kind in _SIGILS.items()} | {PRIVATE_PARTIAL: ">>"}
_CLOSING: Final = {"{": "}", "=": "="}
_MUSTACHE_TAG: Final = re.compile(r"\{\{\{?\s*[#^&]?\s*([^\s{}#^&/!>]+)\s*\}?\}\}")


def _mustache(text: str) -> list[Token]:
    tokens: list[Token] = []
    start, end = "{{", "}}"
    here = 0
    while (tag := text.find(start, here)) >= 0:
        tokens += literal(text[here:tag])
        inner = tag + len(start)
        sigil = text[inner : inner + 1] if text[inner : inner + 1] in _SIGILS else ""
        closing = _CLOSING.get(sigil, "") + end
        close = text.find(closing, inner + len(sigil))
        body = text[inner + len(sigil) : close].strip()
        if close < 0 or (sigil == "=" and len(body.split()) != 2):
            return [*tokens, Token(UNCLOSED, "")]
        tokens.append(_tag(sigil, body))
        here = close + len(closing)
        if sigil == "=":
            start, end = body.split()
    return tokens + literal(text[here:])


def _tag(sigil: str, body: str) -> Token:
    if sigil == ">" and body.startswith(">"):
        return Token(PRIVATE_PARTIAL, body[1:].strip())
    return Token(_SIGILS.get(sigil, VARIABLE), body)


def _as_mustache(tokens: Iterable[Token]) -> str:
    return "".join(_mustache_pieces(tokens))


def _mustache_pieces(tokens: Iterable[Token]) -> Iterator[str]:
    start, end = "{{", "}}"
    for token in tokens:
        if token.kind == TEXT:
            yield token.body
        elif token.kind == UNCLOSED:
            yield start
        else:
            sigil = _OPENING.get(token.kind, "")
            yield f"{start}{sigil}{token.body}{_CLOSING.get(sigil, '')}{end}"
        if token.kind == DELIMITERS and len(token.body.split()) == 2:
            start, end = token.body.split()


MUSTACHE: Final = Grammar(
    name="mustache",
    tokens=_mustache,
    text=_as_mustache,
    shown=_MUSTACHE_TAG.findall,
    variable="{{name}}, {{ name }}",
    opening="{{",
    constructs=(
        Construct(
            name="sections",
            kinds=frozenset({SECTION, INVERTED, SECTION_END}),
            words="sections {{#x}}, inverted sections {{^x}}",
        ),
        Construct(
            name="partials",
            kinds=frozenset({PARTIAL, PRIVATE_PARTIAL}),
            words="partials {{>x}}, private partials {{>>x}}",
            otherwise="refused: put their text in",
        ),
        Construct(name="comments", kinds=frozenset({COMMENT}), words="comments {{! }}"),
        Construct(name="delimiters", kinds=frozenset({DELIMITERS}), words="other delimiters {{= =}}"),
        Construct(
            name="unescaped variables",
            kinds=frozenset({TRIPLE, AMPERSAND}),
            words="{{{name}}}, {{&name}}",
            otherwise="refused: write {{name}}",
        ),
    ),
    names={DOT: "a path", SPACE: "trimmed", BRACE: "an end of the tag", SIGN: "a sign of its own"},
    partials=re.compile(r"(\{\{\s*>\s*)([^\s{}>@]+)((?:\s*@[^\s{}]*)?\s*\}\})"),  # not {{>>Private}}
    literal=(
        ("literal {{", "it would become a tag"),
        ("{ before a variable", "it would become {{{name}}}"),
    ),
)
"""As mustache(5) has it. A blank inside the braces is no part of a name."""

# ---- ${name} ---------------------------------------------------------------------------------------------------------

_DOLLAR_TAG: Final = re.compile("\\$\\{([^\n\r\x85\u2028\u2029]*?)\\}")
"""On one line, as Java counts lines."""


def _as_dollars(tokens: Iterable[Token]) -> str:
    return "".join(token.body if token.kind == TEXT else f"${{{token.body}}}" for token in tokens)


DOLLARS: Final = Grammar(
    name="${name}",
    tokens=partial(variables_cut, tag=_DOLLAR_TAG),
    text=_as_dollars,
    shown=re.compile(r"\$\{(.*?)\}").findall,
    variable="${name}",
    opening="${",
    names={BRACE: "a part of the name"},
    literal=(("literal ${name}", "it would become a variable, and there is no escape"),),
)
"""A blank name is text, and nothing escapes."""

# ---- f-strings -------------------------------------------------------------------------------------------------------

_BRACED_NAME: Final = re.compile(r"\{([^{}!:]+)[^{}]*\}")


def _f_string(text: str) -> list[Token]:
    return joined(_f_pieces(text))


def _f_pieces(text: str) -> Iterator[list[Token]]:
    try:
        for before, name, how, conversion in Formatter().parse(text):
            yield literal(before)
            if name is not None:
                more = f"!{conversion}" if conversion else ""
                more += f":{how}" if how else ""
                yield [Token(FORMATTED if more else VARIABLE, name + more)]
    except ValueError:  # a brace by itself
        yield [Token(UNCLOSED, "")]


def _as_f_string(tokens: Iterable[Token]) -> str:
    return "".join(_f_piece(token) for token in tokens)


def _f_piece(token: Token) -> str:
    if token.kind == TEXT:
        return token.body.replace("{", "{{").replace("}", "}}")
    return "{" if token.kind == UNCLOSED else f"{{{token.body}}}"


F_STRING: Final = Grammar(
    name="f-string",
    tokens=_f_string,
    text=_as_f_string,
    shown=_BRACED_NAME.findall,
    variable="{name}",
    opening="{",
    constructs=(
        Construct(
            name="formats",
            kinds=frozenset({FORMATTED}),
            words="formats {name:8}, conversions {name!r}",
            otherwise="refused: write {name}",
        ),
    ),
    names={
        DOT: "an attribute",
        BRACE: "a field in a field",
        BRACKET: "an index",
        DIGITS: "a position",
    },
)
"""As `str.format` reads it: a brace that stands for itself is doubled."""
