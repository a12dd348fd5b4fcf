"""The way from one dialect to another, and which tokens cannot go it: by name, and with what to do. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Final

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
)
from engine.model import Json
from engine.model.dialect import Dialect, Grammar, Token


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """From one dialect to another."""

    source: Dialect
    target: Dialect

    @property
    def same_grammar(self) -> bool:
        """A text stays as it is, byte for byte."""
        return self.source.grammar == self.target.grammar


@dataclass(frozen=True, slots=True)
class Left:
    """What has no place at the end of the way: the name of its loss, where `content/carry.py` keeps it, its value."""

    name: str
    place: tuple[str, ...]
    value: Json = field(repr=False)


def written(text: str, tokens: Sequence[Token], way: Way) -> str:
    """The text, which has these tokens, in the other grammar; byte for byte where that reads it alike."""
    alike = way.same_grammar or list(way.target.grammar.tokens(text)) == list(tokens)
    return text if alike else way.target.grammar.text(tokens)


# ---- what cannot be said in the other dialect ------------------------------------------------------------------------

_LONGEST: Final = 60
"""Characters of a name that a sentence quotes."""
_MOST_WORDS: Final = 3
"""Words of one."""
_NO_NAME: Final = re.compile(r"[\"'`:]")
_NAMES: Final = (
    (DOT, re.compile(r"\."), "has a dot in its name, which is {readings}"),
    (SPACE, re.compile(r"\s"), "has whitespace in its name, which the registries do not read alike"),
    (BRACE, re.compile(r"[{}]"), "has a brace in its name, which the registries do not read alike"),
    (SIGN, re.compile(r"[#^/>!&=]"), "has one of # ^ / > ! & = in its name, which is a sign of its own in mustache"),
    (BRACKET, re.compile(r"[\[\]]"), "has a bracket in its name, which is {readings}"),
    (DIGITS, re.compile(r"\A\d+\Z"), "has a number for a name, which is {readings}"),
)
"""Kinds of name that grammars may read otherwise, and why such a variable is refused."""
AS_IT_STANDS: Final = "a plain name"
_INSTEAD: Final = {
    PARTIAL: "put the text of the partial in at the source",
    PRIVATE_PARTIAL: "put the text of the partial in at the source",
    TRIPLE: "write it with two braces at the source",
    AMPERSAND: "write it without & at the source",
    FORMATTED: "write it without a format at the source",
}


def refusals(tokens: Sequence[Token], way: Way) -> list[str]:
    """Why these tokens cannot be a text in the other dialect, each reason once, in order."""
    if way.same_grammar:
        return []
    return [*_constructs(tokens, way), *_bad_names(tokens, way)] or [*_changed(tokens, way)]


def _constructs(tokens: Sequence[Token], way: Way) -> Iterator[str]:
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
            own = next(
                (one.instead for one in grammar.constructs if token.kind in one.kinds), "take it out at the source"
            )
            instead = _INSTEAD.get(token.kind, own)
            yield f"{_shown(token, grammar)} ({token.kind}) has no counterpart in {way.target.registry}: {instead}"


def _bad_names(tokens: Sequence[Token], way: Way) -> Iterator[str]:
    for token in tokens:
        if token.kind == VARIABLE and (reason := _bad_name(token.body, way)):
            yield f"{_shown(token, way.source.grammar)} {reason}: rename the variable at the source"


def _bad_name(name: str, way: Way) -> str | None:
    if not name:
        return "has no name"
    kind, sentence = next(((kind, why) for kind, only, why in odd_names(way) if only.search(name)), ("", ""))
    # sorted, so that both ways there say it alike
    both = (way.source, way.target)
    readings = sorted(f"{one.grammar.names.get(kind, AS_IT_STANDS)} in {one.registry}" for one in both)
    return sentence.format(readings=" and ".join(readings)) or None


def odd_names(way: Way) -> Iterator[tuple[str, re.Pattern[str], str]]:
    """The kinds of name that the two do not read alike."""
    here, there = way.source.grammar.names, way.target.grammar.names
    return ((kind, only, why) for kind, only, why in _NAMES if here.get(kind) != there.get(kind))


def _changed(tokens: Sequence[Token], way: Way) -> Iterator[str]:
    """The first tag that the target would read out of the text though it is none, or another one; else the first that
    it would take for text.
    """
    target, source = way.target.grammar, way.source.grammar
    found = target.tokens(target.text(tokens))
    at = next((at for at, (one, other) in enumerate(zip_longest(tokens, found)) if one != other), None)
    if at is None:
        return
    rest = [one for one in found[at:] if one.kind != TEXT]
    lost = next((one for one in tokens[at:] if one.kind != TEXT and one not in rest), None)
    new = next((one for one in rest if one not in tokens[at:]), rest[0] if rest and lost is None else None)
    if new is not None:
        there = f"{way.target.registry} would read {_shown(new, target)} ({new.kind}) in the text"
        yield f"{there}, which is no such tag here and cannot be escaped there: reword it at the source"
    elif lost is not None:
        there = f"{_shown(lost, source)} ({lost.kind}) would be plain text in {way.target.registry}"
        yield f"{there}, which knows no such name: rename the variable at the source"
    else:
        yield f"{way.target.registry} would read some of the text otherwise than it stands: reword it at the source"


def _shown(token: Token, grammar: Grammar) -> str:
    """The tag as a user would look for it; never what is text of the template."""
    return grammar.text([Token(token.kind, " " if token.kind in BARE else named(token.body))])


def named(body: str) -> str:
    """What stands in a tag, as far as it is a name: where a literal or a format begins there is text of the template,
    and so is a name of many words.
    """
    name = _NO_NAME.split(re.sub(r"\s", " ", body), maxsplit=1)[0]
    words = name.split()
    if len(words) > _MOST_WORDS:
        name = " ".join(words[: _MOST_WORDS - 1])
    if len(name) > _LONGEST:
        name = name[: _LONGEST - 3]
    return name if len(name) == len(body) else f"{name}..."


KIND_WORDS: Final = {
    DOT: "dots",
    SPACE: "whitespace",
    BRACE: "braces",
    SIGN: "one of # ^ / > ! & =",
    BRACKET: "brackets",
    DIGITS: "digits alone",
}
