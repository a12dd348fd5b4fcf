"""Picoschema, the short form of a JSON schema in dotprompt files, as JSON schema. Pure.

Source: google.github.io/dotprompt/reference/picoschema, and `picoschema.py` of dotpromptz 0.2.0.
"""

from __future__ import annotations

import re
from typing import Final

from engine.model import Json

_SCALARS: Final = ("string", "number", "integer", "boolean", "null", "any")
_KEY: Final = re.compile(r"(?P<name>[^(?]+)(?P<optional>\??)(?:\((?P<kind>array|object|enum)(?:,\s*(?P<says>.*))?\))?")
_REST: Final = "(*)"


class NoSchema(ValueError):
    """It is none, or names one that stands elsewhere."""


def is_json_schema(schema: Json) -> bool:
    """Whether its readers take it for JSON schema and not for the short form."""
    return isinstance(schema, dict) and (
        schema.get("type") in (*_SCALARS, "object", "array") or isinstance(schema.get("properties"), dict)
    )


def json_schema(schema: Json) -> Json:
    """The JSON schema. Raises NoSchema."""
    if is_json_schema(schema):
        return schema
    return _of(schema)


def _of(value: Json) -> Json:
    if isinstance(value, str):
        return _scalar(value)
    if not isinstance(value, dict):
        raise NoSchema("neither a map nor a type")
    properties: dict[str, Json] = {}
    required: list[str] = []
    more: Json = False
    for key, inner in value.items():
        if key == _REST:
            more = _of(inner)
            continue
        found = _KEY.fullmatch(key)
        if found is None:
            raise NoSchema("a key that is none")
        required += [] if found["optional"] else [found["name"]]
        properties[found["name"]] = _property(found, inner)
    schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": more}
    return schema if required else {name: one for name, one in schema.items() if name != "required"}


def _scalar(text: str) -> Json:
    kind, comma, says = text.partition(",")
    if kind.strip() not in _SCALARS:
        raise NoSchema("the name of a schema that stands elsewhere")
    schema = {} if kind.strip() == "any" else {"type": kind.strip()}
    return {**schema, "description": says.strip()} if comma and says.strip() else schema


def _property(found: re.Match[str], inner: Json) -> Json:
    schema: dict[str, Json]
    if found["kind"] == "enum":
        if not isinstance(inner, list):
            raise NoSchema("an enum that is no list")
        schema = {"enum": [*inner, None] if found["optional"] and None not in inner else inner}
    elif found["kind"] == "array":
        schema = {"type": "array", "items": _of(inner)}
    else:
        schema = _of(inner)
    if found["optional"] and isinstance(schema.get("type"), str):
        schema = {**schema, "type": [schema["type"], "null"]}
    return {**schema, "description": found["says"].strip()} if found["says"] else schema
