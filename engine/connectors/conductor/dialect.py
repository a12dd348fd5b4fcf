"""How Orkes Conductor writes its prompts, and what they may be called."""

from __future__ import annotations

from typing import Final

from engine.content.templates import DOLLARS
from engine.lossless_json.numbers import Number
from engine.model import Json
from engine.model.dialect import Chat, Dialect, MetadataRule, NameRule, Parameter, ParameterNames

_FORMATS: Final = (({"type": "text"}, "text"), ({"type": "json_object"}, "json"))
_SLASHES: Final = frozenset("/\\")


def _number(value: Json) -> Json:
    return value if isinstance(value, int | float | Number) and not isinstance(value, bool) else None


def _texts(value: Json) -> Json:
    return value if isinstance(value, list) and value and all(isinstance(one, str) for one in value) else None


def _format(value: Json) -> Json:
    return next((word for whole, word in _FORMATS if whole == value), None)


def _whole_format(value: Json) -> Json:
    return next((dict(whole) for whole, word in _FORMATS if word == value), None)


def _is_tag(value: Json) -> bool:
    if isinstance(value, list):
        texts = [one for one in value if isinstance(one, str)]
        return len(value) > 1 and value == sorted(set(texts))
    return isinstance(value, str)


CONDUCTOR: Final = Dialect(
    name="conductor",
    registry="Conductor",
    grammar=DOLLARS,
    parameters=ParameterNames(
        known={
            "temperature": Parameter(neutral="temperature", read=_number, write=_number),
            "topP": Parameter(neutral="top_p", read=_number, write=_number),
            "stopWords": Parameter(
                neutral="stop",
                read=_texts,
                write=_texts,
                values=", a list of texts",
                advice="make a single text a list of one with rewrite.parameters",
            ),
            "responseFormat": Parameter(
                neutral="response_format",
                read=_whole_format,
                write=_format,
                own=' "text", "json"',
                values=' {"type": "text"}, {"type": "json_object"}',
            ),
        }
    ),
    chat=Chat(messages=False),
    metadata=MetadataRule(says="tags: a text, or a sorted list of different texts", keeps=_is_tag),
    escaped=True,
)


def _stands_in_path(name: str) -> bool:
    """Names stand in paths, where servers refuse a slash, escaped or not."""
    plain = bool(name.strip()) and name == name.strip() and name.isprintable()
    return plain and name not in (".", "..") and not _SLASHES & {*name}


NAMES: Final = NameRule(
    says="it must stand in a path of Conductor, so it is printable, without a slash, and with no blank at either end",
    takes=_stands_in_path,
)
