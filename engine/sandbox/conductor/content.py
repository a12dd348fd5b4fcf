"""What a version of a Conductor prompt holds: checked, completed, and shown as the service shows it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from zlib import crc32

from engine.sandbox.answers import Json, Kinds, check, invalid
from engine.sandbox.conductor.store import Content, Tag
from engine.sandbox.options import ConductorQuirks

SAMPLING: Final = ("temperature", "topP", "responseFormat", "stopWords")
LARGEST_VERSION: Final = 2**31 - 1
_LARGEST_NUMBER: Final = 2**1023
_KINDS: Final[Kinds] = {
    "name": str,
    "template": str,
    "description": str,
    "integrations": list,
    "version": int,
    "tags": list,
    "temperature": (int, float),
    "topP": (int, float),
    "responseFormat": str,
    "stopWords": list,
}
# a regex of Java without DOTALL: its dot stops at more line ends than Python's
_VARIABLE: Final = re.compile("\\$\\{([^\n\r\x85\u2028\u2029]*?)\\}")


def check_item(item: Json, quirks: ConductorQuirks) -> Content:
    """The fields of a bulk item that are kept; null is as good as absent. Refusal (400) when it is not well formed."""
    if not isinstance(item, dict):
        raise invalid("every item must be a JSON object")
    kept = {field: item[field] for field in _KINDS if item.get(field) is not None}
    check(kept, _KINDS, required=("name", "template"))
    if not kept["name"]:
        raise invalid('"name" must not be empty')
    if not 1 <= kept.get("version", 1) <= LARGEST_VERSION:
        raise invalid('"version" must be 1 or more')
    if quirks.description_limit is not None and len(kept.get("description", "")) > quirks.description_limit:
        raise invalid('"description" is too long')
    _check_values(kept)
    return kept | {"tags": check_tags(kept.get("tags", []))}


def check_tags(tags: Sequence[Json]) -> list[Tag]:
    """Refusal (400) when they are none."""
    for tag in tags:
        if not isinstance(tag, dict) or not all(isinstance(tag.get(part), str) for part in ("key", "value")):
            raise invalid("a tag must be an object with the texts key and value")
    return [{part: tag[part] for part in ("key", "value", "type") if isinstance(tag.get(part), str)} for tag in tags]


def _check_values(kept: Mapping[str, Json]) -> None:
    for field in ("temperature", "topP"):
        if abs(kept.get(field, 0)) > _LARGEST_NUMBER:
            raise invalid(f'"{field}" is out of range')
    for field in ("integrations", "stopWords"):
        if not all(isinstance(value, str) for value in kept.get(field, ())):
            raise invalid(f'"{field}" must hold texts')


def sampling(item: Mapping[str, Json]) -> Content:
    """The sampling fields of a bulk item; numbers are doubles to the service."""
    given = {field: item[field] for field in SAMPLING if field in item}
    return {field: float(value) if isinstance(value, int) else value for field, value in given.items()}


def variables(template: str) -> list[str]:
    """Names as they stand between `${` and `}`, not trimmed; blank ones are none."""
    return unordered(name for name in _VARIABLE.findall(template) if name.strip())


def render(template: str, values: Mapping[str, Json]) -> str:
    """With the values in their places; what has none stays as it stands."""

    def value_of(match: re.Match[str]) -> str:
        value = values.get(match[1])
        if value is None:
            return match[0]
        return value if isinstance(value, str) else json.dumps(value)

    return _VARIABLE.sub(value_of, template)


def unordered(values: Iterable[str]) -> list[str]:
    """Each once, in the order of no caller: the service keeps sets, and nobody may count on their order."""
    return sorted(set(values), key=lambda value: (crc32(value.encode("utf-8", "surrogatepass")), value))


def unquoted(text: str) -> str:
    """A raw template as the single calls keep it: without the double quotes that enclose it."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text
