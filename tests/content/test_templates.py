"""The grammars: how each cuts a text, and that it finds again what it has written."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.content.templates import DOLLARS, F_STRING, MUSTACHE, joined, literal, names_in, variables_of
from engine.model.dialect import Grammar, Token

GRAMMARS = [MUSTACHE, DOLLARS, F_STRING]
PIECES = [
    *"{}$#^>!&=:. a1[]\n",
    "{{",
    "}}",
    "${",
    "{{x}}",
    "{{#x}}",
    "{{=<% %>=}}",
    "<%",
    "%>",
    "${x}",
    "{x}",
    "{x!r:>{w}}",
]
rough = st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=10).map("".join)
texts = st.text("ab {}$\n", max_size=6)
names = st.text("xyz_ü-", min_size=1, max_size=4)
plain_tokens = st.lists(texts.map(literal) | names.map(lambda name: [Token("variable", name)]), max_size=6).map(joined)


def cut(text: str, grammar: Grammar) -> list[tuple[str, str]]:
    return [(token.kind, token.body) for token in grammar.tokens(text)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", []),
        ("plain", [("text", "plain")]),
        ("Hi {name}!", [("text", "Hi "), ("variable", "name"), ("text", "!")]),
        ("{a}{b}", [("variable", "a"), ("variable", "b")]),
        ('{{"a": {x}}}', [("text", '{"a": '), ("variable", "x"), ("text", "}")]),
        ("{{x}}", [("text", "{x}")]),
        ("{{{x}}}", [("text", "{"), ("variable", "x"), ("text", "}")]),
        (
            "{a.b} {a[0]} {0}",
            [("variable", "a.b"), ("text", " "), ("variable", "a[0]"), ("text", " "), ("variable", "0")],
        ),
        ("{}", [("variable", "")]),
        ("{x!r}", [("variable with a format", "x!r")]),
        ("{x:>{w}}", [("variable with a format", "x:>{w}")]),
        ("a {x} { b", [("text", "a "), ("variable", "x"), ("tag that is not closed", "")]),
        ("a } b", [("tag that is not closed", "")]),
    ],
)
def test_an_f_string_is_cut_as_python_reads_it(text: str, tokens: list[tuple[str, str]]) -> None:
    assert cut(text, F_STRING) == tokens


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("{{>>Private Tone}}", [("private partial", "Private Tone")]),
        ("{{> tone@3 }}", [("partial", "tone@3")]),
        ("{{=<% %>=}}<%a%>{{b}}", [("change of delimiters", "<% %>"), ("variable", "a"), ("text", "{{b}}")]),
    ],
)
def test_a_mustache_is_cut(text: str, tokens: list[tuple[str, str]]) -> None:
    assert cut(text, MUSTACHE) == tokens


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda one: one.name)
@given(text=rough)
@example(text="{{=<% %>=}}<%#a%>{{b}}<%/a%><%={{ }}=%>{{{c}}}")
@example(text="{{{x}}}")
def test_what_a_grammar_has_read_it_writes_as_it_would_read_it_again(grammar: Grammar, text: str) -> None:
    tokens = list(grammar.tokens(text))
    if not any(token.kind == "tag that is not closed" for token in tokens):
        assert list(grammar.tokens(grammar.text(tokens))) == tokens


@given(tokens=plain_tokens)
def test_an_f_string_can_say_any_text_and_python_reads_it_so(tokens: list[Token]) -> None:
    written = F_STRING.text(tokens)
    assert list(F_STRING.tokens(written)) == tokens
    values = {name: f"<{name}>" for name in names_in(tokens)}
    said = "".join(token.body if token.kind == "text" else values[token.body] for token in tokens)
    assert written.format(**values) == said


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda one: one.name)
@given(text=rough)
def test_no_literal_stands_beside_another(grammar: Grammar, text: str) -> None:
    kinds = [token.kind for token in grammar.tokens(text)]
    assert ("text", "text") not in pairwise(kinds)


@pytest.mark.parametrize("grammar", GRAMMARS, ids=lambda one: one.name)
def test_what_seems_to_be_asked_for_shows_in_a_broken_text_too(grammar: Grammar) -> None:
    tag = re.sub(r",.*", "", grammar.variable)
    assert variables_of(tag, grammar) == {"name"} == set(grammar.shown(tag))
    assert "name" in grammar.shown(f"{tag} {grammar.opening}")
