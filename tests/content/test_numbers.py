"""A number that Python cannot hold as it is written is still a number: it equals, sorts, and is read and written."""

from __future__ import annotations

import copy
import json
import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.lossless_json.numbers import NotKept, Number, dumps, loads, number, yaml_number

digits = st.text("0123456789", min_size=1, max_size=20)
written = st.builds(
    lambda sign, whole, fraction, exponent: f"{sign}{whole.lstrip('0') or '0'}{fraction}{exponent}",
    st.sampled_from(["", "-"]),
    digits,
    st.just("") | digits.map(".{}".format),
    st.just("") | st.integers(-30, 30).map("e{}".format),
)


@given(written, written)
def test_they_equal_and_sort_as_decimals_do(one: str, other: str) -> None:
    first, second = Number(one), Number(other)
    assert (first == second, first < second, first > second) == (
        Decimal(one) == Decimal(other),
        Decimal(one) < Decimal(other),
        Decimal(one) > Decimal(other),
    )
    assert first != second or (hash(first) == hash(second) and repr(first.canonical()) == repr(second.canonical()))
    assert Decimal(first.canonical().text) == Decimal(one)
    assert (math.floor(first), math.ceil(first), bool(first)) == (
        math.floor(Decimal(one)),
        math.ceil(Decimal(one)),
        bool(Decimal(one)),
    )


@given(written, st.integers() | st.floats(allow_nan=False, allow_infinity=False))
def test_they_equal_and_sort_with_ints_and_floats_as_these_are_written(one: str, other: float) -> None:
    theirs = Decimal(repr(other))
    for text in (one, repr(other)):
        assert (Number(text) == other, Number(text) < other, other < Number(text)) == (
            Decimal(text) == theirs,
            Decimal(text) < theirs,
            theirs < Decimal(text),
        )
    same = Number(repr(other)).plain()
    assert (same, type(same)) == (other, type(other))


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("1.50", 1.5),
        ("1E+2", 100.0),
        ("-0", 0),
        ("-0.000", -0.0),
        ("1e23", 1e23),
        ("9007199254740993.0", 9007199254740993),
        ("123456789012345678901234567890.0", 123456789012345678901234567890),
        ("1e400", 10**400),
        ("0.1000000000000000055511151231257827", None),
        ("1e-400", None),
        ("1e4300", None),
        ("1" * 4301, None),
        ("1e99999999999999999999", None),
    ],
)
def test_the_int_or_float_that_is_the_same_number(text: str, plain: float | None) -> None:
    assert repr(Number(text).plain()) == repr(plain)


def test_infinity_is_beyond_and_nan_is_nowhere() -> None:
    huge = Number("1e400")
    assert -math.inf < huge < math.inf
    assert not huge > math.inf
    assert (huge < math.nan, huge > math.nan, huge == math.nan, huge == "1e400") == (False, False, False, False)


@pytest.mark.parametrize(
    "text", ["", "x", "NaN", "Infinity", "01", "1.", ".5", "+1", "1e", " 1", "1\n", "1_0", "\u0661"]
)
def test_what_is_no_number_of_json_is_none(text: str) -> None:
    with pytest.raises(NotKept):
        Number(text)


@given(written)
def test_ints_and_floats_are_taken_where_they_are_written_so_again(text: str) -> None:
    found = number(text)
    assert dumps(found) == text
    assert isinstance(found, Number) == (dumps(json.loads(text)) != text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("+1", "1"),
        (".5", "0.5"),
        ("-.5e3", "-0.5e3"),
        ("1.", "1.0"),
        ("1.e5", "1.0e5"),
        ("+1.50", "1.50"),
        ("4e2", "4e2"),
        ("0.12345678901234567890", "0.12345678901234567890"),
        ("0", "0"),
        ("0e1", "0e1"),
        *(
            (text, None)
            for text in ("0123", "00", "00.5", "01e5", "-01", ".", "-", "+", "e5", "1_000", "12:30", "0x1F")
        ),
        *((text, None) for text in ("2024-01-01", "1 ", "1e", "1e+", "1.2.3", ".inf", "\u0661")),
    ],
)
def test_a_number_in_yaml(text: str, found: str | None) -> None:
    assert repr(yaml_number(text)) == repr(found).strip("'")


def test_they_are_copied_whole_and_written_among_everything_else() -> None:
    told = loads('{"b": [1.50, "\\ud800", {"1e5": 1e5}], "a": -0, "t": "1.50"}')
    assert dumps(copy.deepcopy(told), sort_keys=True) == '{"a": -0, "b": [1.50, "\\ud800", {"1e5": 1e5}], "t": "1.50"}'
    with pytest.raises(TypeError, match="no JSON value: set"):
        dumps([{1}])
