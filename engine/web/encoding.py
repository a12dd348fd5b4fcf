"""What a page's data is written with. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping

import orjson


def encoded(value: object) -> bytes:
    """As JSON, with parts that are JSON already (`orjson.Fragment`) as they are. Half a character, as a registry may
    have it in a name, and integers above 64 bits are written, too.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _part_by_part(value)


def _part_by_part(value: object) -> bytes:
    """Only what orjson cannot write is left to `json`: nobody can read what is in a Fragment."""
    if isinstance(value, Mapping):
        return b"{%b}" % b",".join(b"%b:%b" % (encoded(str(name)), encoded(inner)) for name, inner in value.items())
    if isinstance(value, list | tuple):
        return b"[%b]" % b",".join(map(encoded, value))
    return json.dumps(value).encode("ascii")
