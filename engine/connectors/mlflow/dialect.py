"""How MLflow writes its prompts, and what they, their tags and their aliases may be called.

Source: `mlflow/prompt/constants.py` and `entities/model_registry/prompt_version.py` of MLflow 3.17.2, which is what its
client goes by when it loads and fills in a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from engine.content.chats import messages_of
from engine.content.templates import (
    BRACE,
    BRACKET,
    DIGITS,
    JINJA_BLOCK,
    JINJA_COMMENT,
    JINJA_EXPRESSION,
    SIGN,
    SPACE,
    TEXT,
    UNCLOSED,
    VARIABLE,
    literal,
    variables_cut,
    variables_of,
)
from engine.model import Json, Prompt
from engine.model.dialect import (
    Chat,
    Construct,
    Dialect,
    Fitted,
    Grammar,
    MetadataRule,
    NameRule,
    Parameter,
    ParameterNames,
    Token,
)

_NAME: Final = "[a-zA-Z_][a-zA-Z0-9_]*"
_VARIABLE: Final = re.compile(rf"\{{\{{\s*({_NAME}(?:\.{_NAME})*)\s*\}}\}}")
_JINJA: Final = re.compile(r"(\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\})", re.DOTALL)
_SIGNS: Final = {JINJA_BLOCK: ("{% ", " %}"), JINJA_COMMENT: ("{# ", " #}"), UNCLOSED: ("{%", "")}


# ---- templates -------------------------------------------------------------------------------------------------------


def _tokens(text: str) -> list[Token]:
    """A text that has both signs of a block anywhere is one of Jinja2; else it has variables and nothing besides."""
    return _jinja(text) if "{%" in text and "%}" in text else variables_cut(text, _VARIABLE)


def _jinja(text: str) -> list[Token]:
    pieces = enumerate(_JINJA.split(text))
    tokens = [token for at, piece in pieces for token in (_tag(piece) if at % 2 else literal(piece))]
    return tokens if any(token.kind == JINJA_BLOCK for token in tokens) else [Token(UNCLOSED, "")]


def _tag(piece: str) -> list[Token]:
    if (variable := _VARIABLE.fullmatch(piece)) is not None:
        return [Token(VARIABLE, variable[1])]
    kind = {"{%": JINJA_BLOCK, "{#": JINJA_COMMENT}.get(piece[:2], JINJA_EXPRESSION)
    return [Token(kind, piece[2:-2].strip())]


def _text(tokens: Iterable[Token]) -> str:
    return "".join(_pieces(tokens))


def _pieces(tokens: Iterable[Token]) -> Iterator[str]:
    for token in tokens:
        before, after = ("", "") if token.kind == TEXT else _SIGNS.get(token.kind, ("{{", "}}"))
        yield f"{before}{token.body}{after}"


_NO_VARIABLE: Final = "text, and no variable"
_GRAMMAR: Final = Grammar(
    name="MLflow's double braces",
    tokens=_tokens,
    text=_text,
    shown=_VARIABLE.findall,
    variable="{{name}}, {{ name }} of letters, digits and _",
    opening="{%",
    constructs=(
        Construct(
            name="Jinja2",
            kinds=frozenset({JINJA_BLOCK, JINJA_EXPRESSION, JINJA_COMMENT}),
            words="all of Jinja2, where {% and %} stand in the text",
        ),
    ),
    names=dict.fromkeys((SPACE, BRACE, SIGN, BRACKET, DIGITS), _NO_VARIABLE),
    literal=(
        ("literal {{name}}", "it would become a variable, and there is no escape"),
        ("literal {% with %}", "the whole text would be read as Jinja2"),
    ),
)


# ---- parameters ------------------------------------------------------------------------------------------------------

_WRAPPED: Final = "response"
"""What a schema that comes without a name is called, where one is needed."""
_OPENAI_FORMATS: Final = ("text", "json_object", "json_schema")


def _is_openai(value: Json) -> bool:
    """Whether it has the form that OpenAI takes."""
    return isinstance(value, dict) and value.get("type") in _OPENAI_FORMATS


def _from_schema(value: Json) -> Json:
    """Clients of MLflow write a bare JSON schema; others name it."""
    if not isinstance(value, dict) or _is_openai(value):
        return value
    return {"type": "json_schema", "json_schema": {"name": _WRAPPED, "schema": value}}


def _to_schema(value: Json) -> Json:
    """Exactly what the other way makes becomes bare again; all else stays."""
    match value:
        case {"type": "json_schema", "json_schema": {"name": str(name), "schema": dict(schema), **inner}, **outer} if (
            name == _WRAPPED and not inner and not outer and not _is_openai(schema)
        ):
            return schema
    return value


LONGEST_VALUE: Final = 100_000
"""Characters of a tag: the server refuses one more (tried on 3.17.2)."""


def _room(_: Prompt, text: str) -> str | None:
    if len(text) <= LONGEST_VALUE:
        return None
    return f"MLflow keeps {LONGEST_VALUE:,} characters in a tag, and with it there would be {len(text):,}"


# ---- what its own client cannot fill in ------------------------------------------------------------------------------

UNFILLED: Final = ("allow_partial", "prompt", "self", "use_jinja_sandbox")
"""Variables that nobody can give a value: what its client calls arguments of its own when it fills a prompt in."""


def fit(prompt: Prompt) -> Fitted:
    """All of it is held; what MLflow's own client loads and cannot fill in is said."""
    return Fitted(prompt=prompt, notes=tuple(_notes(prompt)))


def _notes(prompt: Prompt) -> Iterator[str]:
    unfilled = "MLflow's own client loads that and cannot fill it in"
    if names := sorted(variables_of(prompt.text, _GRAMMAR).intersection(UNFILLED)):
        yield f"it has a variable with the name {', '.join(names)}: {unfilled}"
    if any(not isinstance(one.get("content"), str) for one in messages_of(prompt.text) or ()):
        yield f"it has a message whose content is no text: {unfilled}"


MLFLOW: Final = Dialect(
    name="mlflow",
    registry="MLflow",
    grammar=_GRAMMAR,
    parameters=ParameterNames(
        known={
            "stop_sequences": Parameter(neutral="stop"),
            "response_format": Parameter(
                neutral="response_format",
                read=_from_schema,
                write=_to_schema,
                own=", also a bare JSON schema",
            ),
        },
        open=True,
    ),
    chat=Chat(messages=True, parts=frozenset({"text", "image_url", "input_audio", "reasoning"})),
    metadata=MetadataRule(says="tags; what is no text as JSON in one of them", room=_room),
    fit=fit,
    says={
        f"variables {', '.join(UNFILLED)}; contents that are no text": "kept; a note, for MLflow's client cannot fill "
        "them in",
    },
)


# ---- names -----------------------------------------------------------------------------------------------------------

LONGEST_NAME: Final = 256
"""Of its columns, which sqlite does not hold to and other databases do."""
NAMES: Final = NameRule(
    says="in MLflow a name has letters A to Z, digits, and the signs _ . - alone, and at most 256 characters",
    takes=lambda name: re.fullmatch(r"[A-Za-z0-9_.-]+", name) and name not in (".", "..") and len(name) <= LONGEST_NAME,
)
_RESERVED: Final = re.compile(r"latest|v\d+", re.IGNORECASE)
ALIASES: Final = NameRule(
    says="in MLflow an alias has letters, digits, _ and - alone, and is neither latest nor v with a number",
    takes=lambda name: re.fullmatch(r"[\w-]{1,255}", name) and not _RESERVED.fullmatch(name),
)
