"""JSON as it stands on the wire, read and written without loss.

orjson is fast and strict, but it turns integers above 64 bits into floats, rounds long decimals without a word and
refuses lone surrogates, which registries do send. So it reads only what it would write again as it was; the standard
library reads the rest, and a number that Python cannot hold stays as it was written (`engine.numbers`).
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

import orjson

from engine.numbers import NotKept, dumps, fragment, loads

__all__ = ["Json", "NotKept", "decode", "encode"]

Json = Any

# The numbers that orjson may not write as it read them: of 16 characters or more, with an exponent, with a zero at the
# end of a fraction or many at its beginning, and minus zero. Each stands at the start or behind a structural character,
# so that ids inside of texts do not send every body to the slow reader.
_ODD_NUMBER: Final = re.compile(
    rb"(?:^|[:,\[\s])-?(?:[0-9][0-9.]{15}|[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]"
    rb"|[0-9]+\.(?:[0-9]+0(?:[\s,}\]]|\Z)|0000)|(?<=-)0(?:[\s,}\]]|\Z))"
)
# What tells in a fraction of the time that there is none: pieces of such numbers, in a body or in its shape, where a
# digit is 0, the letter of an exponent e and its sign -.
_SHAPES: Final = {**dict.fromkeys(b"0123456789", b"0"), **dict.fromkeys(b"eE", b"e"), **dict.fromkeys(b"+-", b"-")}
_SHAPE: Final = b"".join(b"." if char == b"."[0] else _SHAPES.get(char, b" ") for char in range(256))
_LONG: Final = (b"0" * 16, b"0" * 7 + b".")
_FRACTION: Final = re.compile(rb"\.(?:[0-9]+0(?:[\s,}\]]|\Z)|0000|[0-9.]{9})")
_MINUS_ZERO: Final = re.compile(rb"-0(?:[\s,}\]]|\Z)")
_EXPONENTS: Final = (b"0e0", b"0e-0")
_DIGITS: Final = b"0."
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
    if not body.strip():
        raise ValueError("a blank body")
    if _has_odd_number(body):
        return _decode_exactly(body, finite)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
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
    except ValueError as error:
        # from None: the text of json's own error holds the value
        where = _not_finite(value) if "Circular" not in str(error) else None
        what = f"{where} is not finite" if where else "a number that cannot be kept, or a value that contains itself"
        raise NotKept(what) from None
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


# ---- the quick look --------------------------------------------------------------------------------------------------


def _has_odd_number(body: bytes) -> bool:
    """Whether it holds a number that orjson may not write as it read it."""
    shape = body.translate(_SHAPE)
    if _LONG[0] in shape or _LONG[1] in shape or _FRACTION.search(body) or _MINUS_ZERO.search(body):
        return _ODD_NUMBER.search(body) is not None
    return any(_has_exponent(body, shape, piece) for piece in _EXPONENTS if piece in shape)


def _has_exponent(body: bytes, shape: bytes, piece: bytes) -> bool:
    at = shape.find(piece)
    while at >= 0:
        begin = at
        while begin and shape[begin - 1] in _DIGITS:  # at most 16 times: longer ones are known by then
            begin -= 1
        if _ODD_NUMBER.match(body, max(0, begin - 2)) or _ODD_NUMBER.match(body, max(0, begin - 1)):
            return True
        at = shape.find(piece, at + 1)
    return False
