"""JSON goes through unchanged, or is refused by name."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.lossless_json import NotKept, decode, encode
from engine.lossless_json.numbers import Number


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


digits = st.text("0123456789", min_size=1, max_size=25) | st.sampled_from(["0", "00", "5", "000000", "10", "9" * 400])
written = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole.lstrip('0') or '0'}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    digits,
    st.just("") | digits.map(".{}".format),
    st.just("") | st.builds("{}{}{}".format, st.sampled_from("eE"), st.sampled_from(["", "-", "+"]), digits),
)


@settings(max_examples=400)
@given(st.lists(written, min_size=1, max_size=4), st.sampled_from(["", "a text", "\ud800", "1e5, -0"]), st.booleans())
def test_every_number_comes_back_as_it_was_written(numbers: list[str], text: str, spaced: bool) -> None:
    """Beside a lone surrogate too, where another writer is at work; and whatever stands between."""
    head = json.dumps(text)
    comma, colon = (" , ", " : ") if spaced else (",", ":")
    body = f'[{comma.join([head, *numbers])},{{"n"{colon}{numbers[0]}}},{numbers[-1]}]'
    told = f'[{",".join([head, *numbers])},{{"n":{numbers[0]}}},{numbers[-1]}]'
    assert encode(decode(body.encode())) == told.encode()
    assert encode(decode(numbers[0].encode())) == numbers[0].encode()


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
        (b"[1.5,2e3,1E-7]", [1.5, Number("2e3"), Number("1E-7")]),
        (b"[1.00000000000000000000]", [Number("1.00000000000000000000")]),
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
    "number",
    [
        "0.1000000000000000055511151231257827",
        "3.141592653589793238462643383279",
        "0.12345678901234567890",
        "1E+2",
        "1e400",
        "-1e400",
        "1e-400",
        "1e99999999999999999999",
        "9007199254740993.0",
        "123456789012345678901234567890",
        "-0",
        "-0.0",
        "1.0",
        "1.50",
        "0.00001",
        "-0.000000",
        "1e-7",
        "1e+16",
        "9" * 4301,
    ],
)
@pytest.mark.parametrize("around", ["{}", "[{}]", '{{"a":{}}}', '{{"a":[1,{}],"b":"\\ud800"}}', '{{"a":{},"b":{}}}'])
def test_a_number_that_no_float_can_hold_comes_back_as_it_was_written(number: str, around: str) -> None:
    body = around.replace("{}", number).replace("{{", "{").replace("}}", "}").encode()
    assert encode(decode(body)) == body


def test_a_number_is_its_own_and_not_a_float_of_the_same_text() -> None:
    assert shape(decode(b"[1.5,1.50,15,1e400]")) == shape([1.5, Number("1.50"), 15, Number("1e400")])


def test_an_exponent_that_no_computer_can_count_to_is_refused_by_name() -> None:
    with pytest.raises(NotKept, match="a number that cannot be kept"):
        decode(b'{"a":1e' + b"9" * 4301 + b"}")


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


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (math.nan, "it is not finite"),
        ([math.inf], "it is not finite"),
        ({"a": 1, "b": {"c": [1, -math.inf]}}, "b.c is not finite"),
        ({"a": math.nan, "b": "\ud800"}, "a is not finite"),
        ("\ud83d\ude00", "surrogate"),
    ],
)
def test_what_would_not_come_back_is_not_written(value: Any, what: str) -> None:
    with pytest.raises(NotKept, match=what):
        encode(value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_read_only_where_files_may_hold_it(number: str) -> None:
    assert repr(decode(f'{{"a":{number},"b":1.50}}'.encode(), finite=False)) == repr(
        {"a": float(number), "b": Number("1.50")}
    )
    with pytest.raises(ValueError, match="NaN or Infinity"):
        decode(f'{{"a":{number}}}'.encode())


def test_an_integer_too_long_to_read_is_not_written() -> None:
    with pytest.raises(NotKept):
        encode([10**4301])


def test_a_value_that_contains_itself_is_not_written() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(NotKept, match="contains itself"):
        encode(value)


def test_surrogates_are_escaped_and_everything_else_is_plain() -> None:
    assert encode({"ä": "\\\udfff\u2028"}) == b'{"\xc3\xa4":"\\\\\\udfff\xe2\x80\xa8"}'
