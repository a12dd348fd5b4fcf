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
# behind a structural character, so that ids inside of texts do not send every body to the slow reader.
_LONG_NUMBER: Final = re.compile(rb"(?:^|[:,\[\s])-?(?:[0-9][0-9.]{15}|[0-9.]+[eE])")
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
    if _LONG_NUMBER.search(body):
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
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # from None: the text of json's own error holds the value
        raise NotKept("a number that cannot be kept, or a value that contains itself") from None
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _encode_surrogates(text)


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
