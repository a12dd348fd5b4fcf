"""How Phoenix writes its prompts, what they may be called, and what it holds of one as a whole.

Sources: the formatters of its official client, which is what applications render with, and `PromptVersionData` of its
API. The server never parses a template, so what it would take and nobody could render is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from engine.connectors.phoenix.messages import KEYS, complaints
from engine.connectors.phoenix.parameters import EXTRA_BODY, PROVIDERS, Family, Placed, family_of, place
from engine.connectors.phoenix.tools import foreign_to_google
from engine.content.chats import messages_of
from engine.content.templates import (
    BRACE,
    BRACKET,
    DIGITS,
    DOT,
    F_STRING,
    SIGN,
    SPACE,
    UNCLOSED,
    VARIABLE,
    literal,
    variables_cut,
)
from engine.lossless_json.numbers import dumps
from engine.model import Json, Prompt
from engine.model.dialect import Chat, Dialect, Fitted, Grammar, NameRule, ParameterNames, Token

# ---- templates -------------------------------------------------------------------------------------------------------

_TAG: Final = re.compile(r"(?<!\\)\{\{\s*(\w+)\s*\}\}")
_NO_TAG: Final = "no tag"
_KINDS: Final = (DOT, SPACE, BRACE, SIGN, BRACKET)


def _text(tokens: Iterable[Token]) -> str:
    return "".join(f"{{{{{token.body}}}}}" if token.kind == VARIABLE else token.body for token in tokens)


WORDS: Final = Grammar(
    name="mustache of Phoenix",
    tokens=partial(variables_cut, tag=_TAG),
    text=_text,
    shown=_TAG.findall,
    variable="{{name}}, {{ name }}",
    opening="{{",
    names=dict.fromkeys(_KINDS, _NO_TAG),
    literal=(
        ("literal {{name}}", "it would become a variable"),
        (r"\ before a variable", "the variable would become text"),
    ),
)
r"""Variables alone: a tag holds one word of letters, digits and underscores, and no `\` stands before it. All else,
such as a section, is text."""

NOTHING: Final = Grammar(
    name="no template",
    tokens=literal,
    text=lambda tokens: "".join(token.body for token in tokens),
    shown=lambda text: (),
    variable="none",
    opening="",
    names=dict.fromkeys((*_KINDS, DIGITS), _NO_TAG),
)

# ---- what a prompt is as a whole -------------------------------------------------------------------------------------

UNTOLD: Final = "OPENAI"
"""What is sent for a prompt that has no provider, and remembered with it: there is none without."""
CHOICES: Final = {"none": "none", "auto": "zero_or_more", "required": "one_or_more"}
"""Choices of tools in a word."""
_ANTHROPIC: Final = "ANTHROPIC"
_GOOGLE: Final = "GOOGLE"
_WITHOUT_DEVELOPERS: Final = (_ANTHROPIC, _GOOGLE)


def fit(prompt: Prompt) -> Fitted:
    """What Phoenix holds of a prompt, which hangs on its provider in the main."""
    if (provider := prompt.provider) and provider not in PROVIDERS:
        sentence = f"provider {provider!r} is none of Phoenix's: map it in rewrite.provider to {', '.join(PROVIDERS)}"
        return Fitted(prompt=prompt, refused=(sentence,))
    family = family_of(provider or UNTOLD)
    parameters, notes = _with_lists(prompt.parameters, family)
    placed = place(parameters, family, tools=bool(prompt.tools))
    kept = {name: value for name, value in parameters.items() if name not in placed.lost}
    lost = losses(prompt, placed)
    choice = None if "tool_choice" in lost else prompt.tool_choice
    after, developers = _without_developers(replace(prompt, parameters=kept, tool_choice=choice))
    return Fitted(
        prompt=after,
        losses=(*lost, *developers),
        refused=tuple(_refused(after, family, placed.fields)),
        notes=(*notes, *_notes(prompt)),
    )


def _with_lists(parameters: Any, family: Family) -> tuple[dict[str, Json], list[str]]:
    """A single text to stop at as a list of one, which means the same."""
    stop = parameters.get("stop")
    if not isinstance(stop, str) or "stop" not in family.fields:
        return dict(parameters), []
    return {**parameters, "stop": [stop]}, ["parameters.stop became a list of one text: Phoenix keeps no other"]


def losses(prompt: Prompt, placed: Placed) -> tuple[str, ...]:
    """The names of what has no place, as users know them."""
    has_choice = bool(prompt.tools) and choice_of(prompt.tool_choice) is not None
    lost = ("tool_choice",) if prompt.tool_choice and not has_choice else ()
    return (*(f"parameters.{name}" for name in placed.lost), *lost)


def choice_of(choice: Json) -> Json:
    """As Phoenix writes it; None: it has no place, or there is none."""
    match choice:
        case str(word) if word in CHOICES:
            return {"type": CHOICES[word]}
        case {"type": "function", "function": {"name": str(name), **more}, **others} if not more and not others:
            return {"type": "specific_function", "function_name": name}
    return None


def _without_developers(prompt: Prompt) -> tuple[Prompt, tuple[str, ...]]:
    """Some providers have no such role, and Phoenix's client cannot render it: it becomes `system`, a loss by name."""
    without = prompt.provider in _WITHOUT_DEVELOPERS and "developer" in prompt.text
    messages = messages_of(prompt.text) if without else None
    if messages is None or all(one["role"] != "developer" for one in messages):
        return prompt, ()
    renewed = [{**one, "role": "system"} if one["role"] == "developer" else one for one in messages]
    return replace(prompt, text=dumps(renewed, ensure_ascii=False)), ("messages.role developer",)


def _refused(prompt: Prompt, family: Family, fields: dict[str, Json]) -> Iterator[str]:
    messages = messages_of(prompt.text)
    yield from complaints(messages or ())
    if prompt.provider == _GOOGLE:
        yield from foreign_to_google(prompt.tools)
    if family.needed and family.needed not in fields:
        yield (
            f"parameters.{family.needed} is missing or no whole number, and {prompt.provider} needs it: "
            "set it with rewrite.parameters.set"
        )
    if prompt.dialect == F_STRINGS.name and any(
        map(_is_malformed, _texts(prompt.text if messages is None else messages))
    ):
        yield "{ or } is not closed or stands alone, so the text is no f-string: mend it at the source"


def _is_malformed(text: str) -> bool:
    return any(token.kind == UNCLOSED for token in F_STRING.tokens(text))


def _texts(value: Json) -> Iterator[str]:
    """Of a content or of messages."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one.get("content", one.get("text")) if isinstance(one, dict) else one)


def _notes(prompt: Prompt) -> Iterator[str]:
    if not prompt.provider:
        yield f"it has no provider, and Phoenix takes none without: {UNTOLD} is written, and remembered as none"
    if messages_of(prompt.text) is None:
        yield "its text becomes the message of a user, and is remembered as a text: Phoenix keeps chats alone"


# ---- the dialects ----------------------------------------------------------------------------------------------------

_CHAT: Final = Chat(messages=True, keys=KEYS, parts=frozenset({"text", "tool_call", "tool_result"}))
_OPEN: Final = ParameterNames(open=True)
F_STRINGS: Final = Dialect(
    name="phoenix-f-string",
    registry="Phoenix (F_STRING)",
    grammar=F_STRING,
    parameters=_OPEN,
    chat=_CHAT,
)
NO_TEMPLATES: Final = Dialect(
    name="phoenix-none",
    registry="Phoenix (NONE)",
    grammar=NOTHING,
    parameters=_OPEN,
    chat=_CHAT,
)
PHOENIX: Final = Dialect(
    name="phoenix",
    registry="Phoenix",
    grammar=WORDS,
    parameters=_OPEN,
    chat=_CHAT,
    variants=(F_STRINGS, NO_TEMPLATES),
    fit=fit,
    says={
        "a text that is no chat": "the message of a user, remembered as a text",
        "providers": f"{', '.join(PROVIDERS)}; any other is refused; none: {UNTOLD}, remembered as none",
        "parameters on GOOGLE": "temperature, top_p, top_k, max_tokens, stop, frequency_penalty, presence_penalty, "
        "thinking_config; others a loss",
        "parameters on AWS": "temperature, top_p, max_tokens, stop; others a loss",
        "parameters on ANTHROPIC": f"all; max_tokens is needed; what has no field goes into {EXTRA_BODY}",
        "parameters on the others": f"all; what has no field goes into {EXTRA_BODY}",
        "role developer on ANTHROPIC, GOOGLE": "system, a loss",
        "tools on GOOGLE": "functions, and Google's own; others refused",
        "a tool_choice without tools": "a loss",
        "messages with another role, or without content": "refused",
    },
)


def in_parts(text: str, prompt: Prompt) -> bool:
    """Whether a system message has to say this as a part of its content: for Anthropic, Phoenix's client fills in parts
    alone, and leaves the variables of a text by itself as they stand.
    """
    if prompt.provider != _ANTHROPIC:
        return False
    dialect = next((one for one in PHOENIX.variants if one.name == prompt.dialect), PHOENIX)
    return list(dialect.grammar.tokens(text)) != literal(text)


FORMATS: Final = {"MUSTACHE": PHOENIX.name, "F_STRING": F_STRINGS.name, "NONE": NO_TEMPLATES.name}
"""`template_format` -> the dialect that it stands for."""

# ---- names -----------------------------------------------------------------------------------------------------------

_NAME: Final = re.compile(r"[a-z0-9](?:[_a-z0-9-]*[a-z0-9])?")
NAMES: Final = NameRule(
    says="Phoenix takes a-z, 0-9, dashes and underscores, with a letter or digit at both ends", takes=_NAME.fullmatch
)
"""Of prompts and of tags."""
