"""JSON as it stands on the wire, read and written without loss.

orjson is fast and strict, but it turns integers above 64 bits into floats, rounds long decimals without a word and
refuses lone surrogates, which registries do send. So it reads only what it cannot change; the standard library reads
the rest, and what Python cannot hold as it was written is refused.
"""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any, Final, NoReturn

import orjson

Json = Any

MOST_DIGITS: Final = 4300
"""Python's own limit on turning text into an integer, and back."""

# A number of 16 characters or more, or one with an exponent: the ones that orjson may round. It stands at the start or
# behind a structural character, so that ids inside of texts do not send every body to the slow reader. The shape of a
# body, its digits and points as 0 and its e and E as e, tells in a fraction of the time that there is none.
_LONG_NUMBER: Final = re.compile(rb"(?:^|[:,\[\s])-?(?:[0-9][0-9.]{15}|[0-9.]+[eE])")
_SHAPE: Final = bytes(b"0"[0] if char in b"0123456789." else b"e"[0] if char in b"eE" else 32 for char in range(256))
_DIGIT: Final = b"0"[0]
_LONG_SHAPE: Final = b"0" * 16
_EXPONENT_SHAPE: Final = b"0e"
_PLAIN: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
_NULL: Final = b"null"
"""What orjson writes for NaN and Infinity too."""
_SPLIT_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")


class NotKept(ValueError):
    """JSON with a value that cannot be kept exactly as it was written."""


def decode(body: bytes) -> Json:
    """The value that `body` holds, nothing rounded.

    Raises NotKept for a number that cannot be kept, ValueError for what is no JSON: a blank body, bytes that are not
    UTF-8, NaN, Infinity, anything malformed or nested too deeply. No message holds any of the body.
    """
    if not body.strip():
        raise ValueError("a blank body")
    if _may_be_rounded(body):
        return _decode_exactly(body)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _decode_exactly(body)


def encode(value: Json) -> bytes:
    """`value` as compact UTF-8 JSON; lone surrogates are escaped, integers are written in full.

    Raises NotKept for what would not come back as it is: NaN, Infinity, an integer of more than MOST_DIGITS digits, and
    a text that holds the two halves of a surrogate pair as two characters. Raises TypeError for what is not JSON.
    """
    try:
        body = orjson.dumps(value, option=_PLAIN)
    except TypeError:  # a lone surrogate, an integer above 64 bits, or what is no JSON at all
        return _encode_slowly(value)
    return body if _NULL not in body or _all_finite(value) else _encode_slowly(value)


def _all_finite(value: Json) -> bool:
    """Whether no number in it is NaN or Infinity, which orjson writes as null."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest.extend(one.values())
        elif isinstance(one, list | tuple):
            rest.extend(one)
        elif isinstance(one, float) and not math.isfinite(one):
            return False
    return True


def _encode_slowly(value: Json) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # from None: the text of json's own error holds the value
        raise NotKept("a number that cannot be kept, or a value that contains itself") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _encode_surrogates(text)


def _may_be_rounded(body: bytes) -> bool:
    """Whether it holds a number that orjson may round."""
    shape = body.translate(_SHAPE)
    if _LONG_SHAPE in shape:
        return _LONG_NUMBER.search(body) is not None
    at = shape.find(_EXPONENT_SHAPE)
    while at >= 0:
        begin = at
        while begin and shape[begin - 1] == _DIGIT:  # at most 15 times
            begin -= 1
        if _LONG_NUMBER.match(body, max(0, begin - 2)) or _LONG_NUMBER.match(body, max(0, begin - 1)):
            return True
        at = shape.find(_EXPONENT_SHAPE, at + 1)
    return False


def _encode_surrogates(text: str) -> bytes:
    if _SPLIT_PAIR.search(text):
        raise NotKept("a text with a surrogate pair in two characters, which would come back as one")
    # inside of a JSON text, Python's way to write a surrogate with a backslash is JSON's own
    return text.encode(errors="backslashreplace")


def _decode_exactly(body: bytes) -> Json:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8") from None
    try:
        return json.loads(text, parse_float=_exact_float, parse_int=_exact_int, parse_constant=_no_constant)
    except json.JSONDecodeError as exc:
        # from None: json's error carries the whole text
        raise ValueError(f"not JSON, at byte {len(text[: exc.pos].encode(errors='replace'))}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply") from None


def _exact_float(written: str) -> float:
    number = float(written)
    if not math.isfinite(number) or Decimal(repr(number)) != Decimal(written):
        raise NotKept("a number that cannot be kept")
    return number


def _exact_int(written: str) -> int:
    if len(written.lstrip("-")) > MOST_DIGITS:
        raise NotKept("a number that cannot be kept")
    return int(written)


def _no_constant(_written: str) -> NoReturn:
    raise ValueError("NaN or Infinity, which JSON does not have")
