r"""The templates of dotprompt: Handlebars, without escaping of HTML, cut into tokens; and into messages. Pure.

Sources: the lexer of Handlebars 4.7 and of `dotpromptz-handlebars` 0.2.0, which read alike what is used here. `\{{` is
the text `{{`; of more backslashes before a tag one goes, and the tag stays. `~` in a tag takes the blanks on that side
of it. A name without arguments that is a helper calls that, `this.name` is always a variable.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Final

from engine.connectors.files.formats.parts import TEXTS_KEPT, Piece, without_blanks
from engine.content.templates import (
    AMPERSAND,
    BRACE,
    BRACKET,
    COMMENT,
    DIGITS,
    DOT,
    SIGN,
    SPACE,
    TEXT,
    TRIPLE,
    UNCLOSED,
    VARIABLE,
    joined,
    literal,
)
from engine.model.dialect import Construct, Grammar, Token

BLOCK: Final = "block"
BLOCK_END: Final = "end of a block"
OTHERWISE: Final = "other branch of a block"
PARTIAL_FILE: Final = "partial in a file"
ROLE: Final = "role of a message"
HISTORY: Final = "messages so far"
HELPER: Final = "helper"

BLANKS: Final = "\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(map(chr, range(0x2000, 0x200B)))
"""What `~` takes: the whitespace of JavaScript."""
_ID: Final = r"[^\s!\"#%-,./;->@\[-^`{-~]+"
_PATH: Final = re.compile(rf"(?:this\.|\./)?({_ID}(?:\.{_ID})*)")
_CALLED: Final = frozenset(
    "history ifEquals json log lookup media role section unlessEquals if unless each with else this true false null "
    "undefined blockHelperMissing helperMissing".split()
)
"""Names that stand for something else than a variable, where they stand alone."""
_TAG: Final = re.compile(
    r"\{\{\{\{(?P<raw>[^/}\s][^}]*)\}\}\}\}"
    r"|\{\{(?P<c1>~?)!--(?P<long>.*?)--(?P<c2>~?)\}\}"
    r"|\{\{(?P<t1>~?)\{(?P<triple>.*?)\}(?P<t2>~?)\}\}"
    r"|\{\{(?P<v1>~?)(?P<any>.*?)(?P<v2>~?)\}\}",
    re.DOTALL,
)
_ROLE: Final = re.compile(r"role\s+(?:\"(?P<double>[a-z]+)\"|'(?P<single>[a-z]+)')")
_SIGILS: Final = {"#": BLOCK, "/": BLOCK_END, ">": PARTIAL_FILE, "*": BLOCK}
_WRITTEN: Final = {
    VARIABLE: "{{%s}}",
    TRIPLE: "{{{%s}}}",
    AMPERSAND: "{{&%s}}",
    COMMENT: "{{!%s}}",
    PARTIAL_FILE: "{{>%s}}",
    UNCLOSED: "{{",
    TEXT: "%s",
}


# ---- tokens ----------------------------------------------------------------------------------------------------------


def pieces(text: str) -> list[Piece]:
    """All of it, no text beside another; the last one is UNCLOSED where the text is not well formed."""
    found: list[Piece] = []
    here, said = 0, ""  # the literal that began at `here`
    at = 0
    while (tag := text.find("{{", at)) >= 0:
        slashes = len(text[at:tag]) - len(text[at:tag].rstrip("\\"))
        said += text[at : tag - (1 if slashes else 0)]
        if slashes == 1:
            said, at = said + "{{", tag + 2
            continue
        found += [Piece(Token(TEXT, said), here, tag)] if said else []
        piece = _tag(text, tag)
        found.append(piece)
        if piece.kind == UNCLOSED:
            return found
        here = at = piece.end
        said = ""
    said += text[at:]
    return [*found, Piece(Token(TEXT, said), here, len(text))] if said else found


def _tag(text: str, at: int) -> Piece:
    found = _TAG.match(text, at)
    if found is None:
        return Piece(Token(UNCLOSED, ""), at, len(text))
    end = found.end()
    if (raw := found["raw"]) is not None:
        closing = f"{{{{{{{{/{raw.split()[0]}}}}}}}}}"
        close = text.find(closing, end)
        if close < 0:
            return Piece(Token(UNCLOSED, ""), at, len(text))
        return Piece(Token(BLOCK, raw), at, close + len(closing))
    if found["long"] is not None:
        return Piece(Token(COMMENT, f"--{found['long']}--"), at, end, bool(found["c1"]), bool(found["c2"]))
    if found["triple"] is not None:
        return Piece(_unescaped(TRIPLE, found["triple"].strip()), at, end, bool(found["t1"]), bool(found["t2"]))
    token = _token(found["any"])
    return Piece(token, at, end, bool(found["v1"]), bool(found["v2"]))


def _token(body: str) -> Token:
    sigil, inner = body[:1], body.strip()
    if sigil == "!":
        return Token(COMMENT, body[1:])
    if inner.startswith("&"):
        return _unescaped(AMPERSAND, inner[1:].strip())
    if (kind := _SIGILS.get(inner[:1])) is not None:
        return Token(kind, inner if kind in (BLOCK, BLOCK_END) else inner[1:].strip())
    if inner.startswith("^"):
        return Token(BLOCK if inner != "^" else OTHERWISE, inner)
    if inner == "else" or inner.startswith("else "):
        return Token(OTHERWISE, inner)
    path = _PATH.fullmatch(inner)
    if path is not None and (inner != path[1] or inner not in _CALLED) and not path[1].replace("-", "").isdigit():
        return Token(VARIABLE, path[1]) if "this" not in path[1].split(".") else Token(HELPER, inner)
    if _ROLE.fullmatch(inner):
        return Token(ROLE, inner)
    return Token(HISTORY if inner == "history" else HELPER, inner)


def _unescaped(kind: str, body: str) -> Token:
    """A variable that would be escaped, if anything were; what is no plain name is a helper here as well."""
    plain = _token(body) == Token(VARIABLE, body)
    return Token(kind, body) if plain else Token(HELPER, {TRIPLE: f"{{{body}}}"}.get(kind, f"&{body}"))


@lru_cache(maxsize=TEXTS_KEPT)
def _tokens(text: str) -> tuple[Token, ...]:
    bare = without_blanks(pieces(text), lambda _: True, BLANKS)
    return tuple(joined([piece.token] if piece.kind != TEXT else literal(piece.token.body) for piece in bare))


def _text(tokens: Iterable[Token]) -> str:
    several = list(tokens)
    return "".join(_written(one, last=at == len(several) - 1) for at, one in enumerate(several))


def _written(token: Token, *, last: bool) -> str:
    if token.kind == TEXT:
        said = token.body.replace("{{", "\\{{")
        return said if last or not said.endswith("\\") else f"{said}\\"
    if token.kind == VARIABLE and token.body in _CALLED:
        return f"{{{{this.{token.body}}}}}"
    return (_WRITTEN.get(token.kind) or "{{%s}}").replace("%s", token.body)


GRAMMAR: Final = Grammar(
    name="Handlebars",
    tokens=_tokens,
    text=_text,
    shown=lambda text: [token.body for token in _tokens(text) if token.kind in (VARIABLE, TRIPLE, AMPERSAND)],
    variable="{{name}}, {{ name }}",
    opening="{{",
    constructs=(
        Construct(
            name="blocks",
            kinds=frozenset({BLOCK, BLOCK_END, OTHERWISE}),
            words="blocks {{#if x}}, {{#each x}}, {{else}}",
        ),
        Construct(
            name="partials",
            kinds=frozenset({PARTIAL_FILE}),
            words="partials {{>x}} in files",
            otherwise="refused: put their text in",
            instead="put the text of the partial in at the source",
        ),
        Construct(name="comments", kinds=frozenset({COMMENT}), words="comments {{! }}"),
        Construct(
            name="unescaped variables",
            kinds=frozenset({TRIPLE, AMPERSAND}),
            words="{{{name}}}, {{&name}}",
            otherwise="refused: write {{name}}",
        ),
        Construct(
            name="helpers",
            kinds=frozenset({HELPER, ROLE, HISTORY}),
            words="helpers {{json x}}, {{media url=x}}, {{history}}; {{role}} inside a block",
        ),
    ),
    names={
        DOT: "a path",
        SPACE: "a helper with arguments",
        BRACE: "an end of the tag",
        SIGN: "a sign of its own",
        BRACKET: "a part of a path",
        DIGITS: "a number",
    },
    literal=(
        (r"\ before a literal {{", "it would become a tag"),
        ("{ before a variable", "it would become {{{name}}}"),
    ),
)
"""A literal `{{` is escaped, and a variable that is called as a helper is written `{{this.name}}`."""

# ---- messages --------------------------------------------------------------------------------------------------------

_ALONE: Final = frozenset({BLOCK, BLOCK_END, OTHERWISE, PARTIAL_FILE, COMMENT})
"""Tags that take their line with them when nothing else stands on it: so it counts what is beside them."""


def sections(text: str) -> list[tuple[str, str]] | None:
    """Role and template of each message; None: it is one text, or who says what is known only when it is rendered.

    A message of blanks alone is none, as the renderer has it.
    """
    found = pieces(text)
    heads = [at for at, piece in enumerate(found) if piece.kind == ROLE]
    if not heads or any(piece.kind in (UNCLOSED, HISTORY) for piece in found) or _is_dynamic(found, heads):
        return None
    starts, roles = [0, *(found[at].end for at in heads)], ["user", *(_role(found[at]) for at in heads)]
    after = [False, *(found[at].after for at in heads)]
    ends, before = [*(found[at].start for at in heads), len(text)], [*(found[at].before for at in heads), False]
    slices = [
        _slice(text[start:end], left, right, last=end == len(text))
        for start, end, left, right in zip(starts, ends, after, before, strict=True)
    ]
    return [(role, said) for role, said in zip(roles, slices, strict=True) if said.strip()]


def _role(piece: Piece) -> str:
    found = _ROLE.fullmatch(piece.token.body)
    return (found["double"] or found["single"]) if found is not None else ""


def _is_dynamic(found: Sequence[Piece], heads: Sequence[int]) -> bool:
    """Whether a role stands in a block, or beside a tag that would take its line, were it by itself."""
    deep = 0
    for at, piece in enumerate(found):
        deep += {BLOCK: 1, BLOCK_END: -1}.get(piece.kind, 0) if not piece.token.body.startswith("raw") else 0
        if at in heads and (deep or any(one.kind in _ALONE for one in found[max(at - 1, 0) : at + 2])):
            return True
    return any(piece.kind == HELPER and re.match(r"role\b", piece.token.body) for piece in found)


def _slice(said: str, left: bool, right: bool, *, last: bool) -> str:
    said = said.lstrip(BLANKS) if left else said
    said = said.rstrip(BLANKS) if right else said
    return said[:-1] if not last and not right and said.endswith("\\\\") else said


def written(messages: Iterable[tuple[str, str]]) -> str:
    """The template of these messages. What `sections` does not find again in it cannot be said."""
    return "".join(_pieces_of(list(messages)))


def is_blank(char: str) -> bool:
    """Whether any reader takes it for whitespace; their languages do not agree."""
    return bool(char) and (char in BLANKS or char.isspace())


def _pieces_of(messages: Sequence[tuple[str, str]]) -> Iterator[str]:
    apart = True  # whether the next role stands on a line of its own
    for at, (role, said) in enumerate(messages):
        first = pieces(said)[:1]
        bare = at == 0 and role == "user" and bool(first) and first[0].kind in _ALONE
        if not bare:
            head = f'role "{role}"'
            opened = "{{~" if at and apart else "{{"
            begins = bool(first) and first[0].kind not in _ALONE and not is_blank(said[:1])
            yield f"{opened}{head}~}}}}\n" if begins else f"{opened}{head}}}}}"
        apart = not (is_blank(said[-1:]) or pieces(said)[-1].kind in _ALONE)
        yield said
        if at < len(messages) - 1 and apart:
            yield "\n"
    if messages and is_blank(messages[-1][1][-1:]):
        yield '{{role "user"}}'  # of no message: it keeps the blanks before it from the end of the file
