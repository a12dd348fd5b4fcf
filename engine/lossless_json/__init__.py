"""JSON as it stands on the wire, read and written without loss.

orjson is fast and strict, but it turns integers above 64 bits into floats, rounds long decimals without a word and
refuses lone surrogates, which registries do send. So what it read is taken only where it writes the very same bytes
again, as it does for what most registries send; the standard library reads the rest, and a number that Python cannot
hold stays as it was written (`numbers`). Imports nothing of ours.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

import orjson

from engine.lossless_json.numbers import NotKept, dumps, fragment, loads

__all__ = ["Json", "NotKept", "decode", "encode"]

Json = Any

_BLANKS: Final = b" \t\r\n"
_HEAD: Final = 64
_SPACED: Final = b'": '
"""What orjson never writes: a body that begins so need not be compared."""
_PLAIN: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_NULL: Final = b"null"
"""What orjson writes for NaN and Infinity too."""
_SPLIT_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def decode(body: bytes, *, finite: bool = True) -> Json:
    """The value that `body` holds, every number as it was written: see `engine.numbers`.

    Raises NotKept for a number that cannot be kept, ValueError for what is no JSON: a blank body, bytes that are not
    UTF-8, anything malformed or nested too deeply, and NaN or Infinity unless `finite` is false: no registry sends
    them, but writers of files do. No message holds any of the body.
    """
    text = body.strip(_BLANKS)
    if not text:
        raise ValueError("a blank body")
    if _SPACED not in text[:_HEAD]:
        try:
            value = orjson.loads(text)
            if orjson.dumps(value) == text:
                return value
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # the other reader has the last word
            pass
    return _decode_exactly(body, finite)


def encode(value: Json) -> bytes:
    """`value` as compact UTF-8 JSON; lone surrogates are escaped, numbers are written as they were read.

    Raises NotKept for what would not come back as it is: NaN, Infinity, an integer of more than MOST_DIGITS digits, and
    a text that holds the two halves of a surrogate pair as two characters. Raises TypeError for what is not JSON.
    """
    try:
        body = orjson.dumps(value, default=fragment, option=_PLAIN)
    except TypeError:  # a lone surrogate, an integer above 64 bits, or what is no JSON at all
        return _encode_slowly(value)
    return body if _NULL not in body or _not_finite(value) is None else _encode_slowly(value)


def _not_finite(value: Json) -> str | None:
    """The place of a number that is NaN or Infinity, which orjson writes as null; "it" where that is the whole."""
    rest: list[tuple[Json, Any]] = [(value, None)]
    while rest:
        one, way = rest.pop()
        if isinstance(one, dict):
            rest.extend((inner, (way, key)) for key, inner in one.items())
        elif isinstance(one, list | tuple):
            rest.extend((inner, way) for inner in one)
        elif isinstance(one, float) and not math.isfinite(one):
            return ".".join(_keys(way)) or "it"
    return None


def _keys(way: Any) -> list[str]:
    """The keys that lead to a place, outermost first."""
    return [*_keys(way[0]), str(way[1])] if way else []


def _encode_slowly(value: Json) -> bytes:
    try:
        text = dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except RecursionError:
        raise NotKept("a value that is nested too deep, or contains itself") from None
    except ValueError:
        # from None: the text of json's own error holds the value
        where = _not_finite(value)
        raise NotKept(f"{where} is not finite" if where else "a number that cannot be kept") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _encode_surrogates(text)


def _encode_surrogates(text: str) -> bytes:
    if _SPLIT_PAIR.search(text):
        raise NotKept("a text with a surrogate pair in two characters, which would come back as one")
    # inside of a JSON text, Python's way to write a surrogate with a backslash is JSON's own
    return text.encode(errors="backslashreplace")


def _decode_exactly(body: bytes, finite: bool) -> Json:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8") from None
    try:
        return loads(text, constant=_no_constant if finite else float)
    except json.JSONDecodeError as exc:
        # from None: json's error carries the whole text
        raise ValueError(f"not JSON, at byte {len(text[: exc.pos].encode(errors='replace'))}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _no_constant(_written: str) -> NoReturn:
    raise ValueError("NaN or Infinity, which JSON does not have")
