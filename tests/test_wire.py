"""JSON goes through unchanged, or is refused by name."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.wire import _LONG_NUMBER, NotKept, _may_be_rounded, decode, encode


def no_split_pair(text: str) -> bool:
    return not any("\ud800" <= a <= "\udbff" and "\udc00" <= b <= "\udfff" for a, b in pairwise(text))


texts = st.text(st.characters(exclude_categories=())).filter(no_split_pair)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=20)


def shape(value: Any) -> Any:
    """The value with its types spelled out, so that 1, 1.0 and True are three things."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value), repr(value)


@given(st.lists(st.sampled_from([*'019.eE-+:,[]{} "a\n', "0e", "1e5", "123456789", ":-", '"x-3e1"']), max_size=24))
def test_the_quick_look_misses_no_number_that_may_be_rounded(parts: list[str]) -> None:
    body = "".join(parts).encode()
    assert _may_be_rounded(body) == bool(_LONG_NUMBER.search(body))


@given(values)
def test_what_is_written_is_read_back_with_its_types(value: Any) -> None:
    assert shape(decode(encode(value))) == shape(value)


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a":1}', {"a": 1}),
        (b" 7 ", 7),
        (b"18446744073709551615", 2**64 - 1),
        (b"18446744073709551616", 2**64),
        (b'{"n": -123456789012345678901234567890}', {"n": -123456789012345678901234567890}),
        (b"[0.30000000000000004]", [0.30000000000000004]),
        (b"[1.5,2e3,1E-7]", [1.5, 2000.0, 1e-7]),
        (b"[1.00000000000000000000]", [1.0]),
        (b'"\\ud800"', "\ud800"),
        (b'["\\ud83d\\ude00", "\\udfff x"]', ["\U0001f600", "\udfff x"]),
        (b'"\\u0000\\r\\n"', "\0\r\n"),
        ('"\u2028 ä"'.encode(), "\u2028 ä"),
        (b'"12345678901234567890.12345678901234567890"', "12345678901234567890.12345678901234567890"),
    ],
)
def test_what_servers_send_is_kept(body: bytes, value: Any) -> None:
    assert shape(decode(body)) == shape(value)


@pytest.mark.parametrize(
    "body",
    [
        b"0.12345678901234567890",
        b"[1e400]",
        b"-1e400",
        b"[1e-400]",
        b'{"a":9007199254740993.0}',
        b"9" * 4301,
        b"[" + b"9" * 4301 + b"]",
    ],
)
def test_a_number_that_would_change_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(NotKept, match="a number that cannot be kept"):
        decode(body)


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "blank"),
        (b" \r\n\t", "blank"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "Infinity"),
        (b"<html>secret", "not JSON, at byte 0"),
        (b'{"a":1', "not JSON"),
        (b'{"a":1}{}', "not JSON"),
        ('["ä" x]'.encode(), "at byte 6"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_what_is_no_json_is_refused_and_not_quoted(body: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        decode(body)
    assert not isinstance(caught.value, NotKept)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], {"a": -float("inf")}, "\ud83d\ude00"])
def test_what_would_not_come_back_is_not_written(value: Any) -> None:
    with pytest.raises(NotKept):
        encode(value)


def test_an_integer_too_long_to_read_is_not_written() -> None:
    with pytest.raises(NotKept):
        encode([10**4301])


def test_surrogates_are_escaped_and_everything_else_is_plain() -> None:
    assert encode({"ä": "\\\udfff\u2028"}) == b'{"\xc3\xa4":"\\\\\\udfff\xe2\x80\xa8"}'
