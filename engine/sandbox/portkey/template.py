"""Mustache as the service speaks it, through mystace.

Values go in as they are: no HTML escaping and no JSON escaping, for `{{v}}` and `{{{v}}}` alike (a raw template wants
values that are JSON already). A variable that was not given is the empty string; what is not a string goes in as JSON
(`true`, `1.5`, `[1,2]`). `{{>slug}}` and `{{>slug@n}}` are partials of the workspace, `{{>>Name}}` takes its text from
the variable of that name; an unknown partial is empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mystace
from mystace.tokenize import TokenTuple, TokenType

from engine.sandbox.answers import Json, invalid
from engine.sandbox.numbers import dumps

PartialText = Callable[[str], str | None]
"""The text of a partial by `slug` or `slug@n`."""


def components(text: str) -> dict[str, Json]:
    """The names in a template, each once, in order; all empty when the template is not Mustache."""
    partials: dict[str, None] = {}
    private: dict[str, None] = {}
    variables: dict[str, None] = {}
    sections: dict[str, dict[str, None]] = {}
    opened: list[str] = []
    for token in _tags(text) or ():
        if token.type is TokenType.PARTIAL:
            (private if token.data.startswith(">") else partials)[token.data.removeprefix(">").strip()] = None
        elif token.type in (TokenType.SECTION, TokenType.INVERTED_SECTION):
            sections.setdefault(token.data, {})
            opened.append(token.data)
        elif token.type is TokenType.END_SECTION and opened:
            opened.pop()
        elif token.type in (TokenType.VARIABLE, TokenType.RAW_VARIABLE):
            variables[token.data] = None
            for section in opened:
                sections[section][token.data] = None
    return {
        "partials": list(partials),
        "sections": list(sections),
        "variables": list(variables),
        "sectionVariables": {section: list(names) for section, names in sections.items()},
        "variablePartials": list(private),
    }


def fill(text: str, variables: Mapping[str, Json], partial_text: PartialText) -> str:
    """The template with its values; Refusal (400) when it is not Mustache or a partial includes itself."""
    partials = _partials(text, variables, partial_text, ())
    try:
        return mystace.render_from_template(text, dict(variables), partials, _stringify, _as_it_is)
    except mystace.MystaceError as exc:
        raise invalid("the template is not valid Mustache") from exc


def fill_all(value: Json, variables: Mapping[str, Json], partial_text: PartialText) -> Json:
    """Every string in a JSON value filled; keys of objects stay."""
    if isinstance(value, str):
        return fill(value, variables, partial_text)
    if isinstance(value, list):
        return [fill_all(item, variables, partial_text) for item in value]
    if isinstance(value, dict):
        return {key: fill_all(item, variables, partial_text) for key, item in value.items()}
    return value


def _tags(text: str) -> list[TokenTuple] | None:
    """The tokens, without the lines that hold no tag: mystace takes seconds for thousands of those."""
    kept = [line for line in text.split("\n") if "{" in line or "}" in line]
    reaches_over = "{{=" in text or any(line.count("{{") != line.count("}}") for line in kept)
    return _tokens(text if reaches_over else "\n".join(kept))


def _tokens(text: str) -> list[TokenTuple] | None:
    try:
        return mystace.mustache_tokenizer(text)
    except mystace.MystaceError:
        return None


def _partials(
    text: str, variables: Mapping[str, Json], partial_text: PartialText, inside: tuple[str, ...]
) -> dict[str, str]:
    """Texts of all partials that a text reaches, by the names mystace knows them by (`>Name` for private ones)."""
    found: dict[str, str] = {}
    names = {token.data for token in _tokens(text) or () if token.type is TokenType.PARTIAL}
    for name in sorted(names):
        if name in inside:
            raise invalid("a partial includes itself")
        given = variables.get(name[1:].strip()) if name.startswith(">") else partial_text(name)
        found[name] = given if isinstance(given, str) else ""
        found |= _partials(found[name], variables, partial_text, (*inside, name))
    return found


def _stringify(value: Json) -> str:
    return value if isinstance(value, str) else dumps(value, separators=(",", ":"))


def _as_it_is(text: str) -> str:
    return text
