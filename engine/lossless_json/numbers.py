"""Numbers of JSON that neither an int nor a float of Python would write again as they were written. Pure.

A registry may keep `0.1000000000000000055511151231257827`, `1E+2`, `1.50` or `1e-400`; a float is another number, or
the same one in another form. Such a number is kept as its text. All others are plain ints and floats, as JSON readers
give them, so that nobody has to think of this module but where numbers are read, written and compared.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Any, Final
from uuid import uuid4

import orjson

MOST_DIGITS: Final = 4300
"""Python's own limit on turning text into an integer, and back."""

_JSON: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([-+]?[0-9]+))?")
_YAML: Final = re.compile(r"([-+]?)(0|[1-9][0-9]*|(?=\.[0-9]))(\.[0-9]*)?([eE][-+]?[0-9]+)?")
_HELD: Final = uuid4().hex
"""Stands for a number while the standard library writes the rest: no content can know it."""
_COMPLEMENT: Final = str.maketrans("0123456789", "9876543210")

_Order = tuple[int, float, str]
"""Sorts as the number does: sign, then places before the point, then digits; below zero both turned round."""


class NotKept(ValueError):
    """JSON with a value that cannot be kept exactly as it was written."""


class Number:
    """A number as it was written. It equals, and sorts with, ints and floats; a float is what its shortest form says.

    No dataclass: orjson and `asdict` would take it apart without a word. Raises NotKept for what is no number of JSON,
    and for an exponent of more than MOST_DIGITS digits.
    """

    __slots__ = ("_digits", "_point", "_sign", "text")

    def __init__(self, text: str) -> None:
        found = _JSON.fullmatch(text)
        if found is None or len(found[4] or "") > MOST_DIGITS:
            raise NotKept("a number that cannot be kept")
        self.text: Final = text
        fraction = found[3] or ""
        digits = (found[2] + fraction).lstrip("0")
        # the value is sign x 0.digits x 10 ** point
        self._point: Final = len(digits) - len(fraction) + int(found[4] or 0) if digits else 0
        self._digits: Final = digits.rstrip("0")
        self._sign: Final = (-1 if found[1] else 1) if digits else 0

    @property
    def is_whole(self) -> bool:
        """Whether it is written as an integer."""
        return self.text.lstrip("-").isdigit()

    def plain(self) -> int | float | None:
        """The int or the float that is the same number; None where there is none. Of two it is the one that readers of
        JSON take: the float for what has a point or an exponent.
        """
        if not self.is_whole:
            value = float(self.text)
            if math.isfinite(value) and self == value:
                return value
        zeros = self._point - len(self._digits)
        if zeros < 0 or self._point > MOST_DIGITS:
            return None
        return self._sign * int(f"{self._digits or 0}{'0' * zeros}")

    def canonical(self) -> Number:
        """The same number in the one form that all its forms have."""
        return Number(f"{'-' if self._sign < 0 else ''}{self._digits or 0}e{self._point - len(self._digits)}")

    def _order(self) -> _Order:
        if self._sign < 0:
            return -1, -self._point, self._digits.translate(_COMPLEMENT) + "~"  # the longer is the lesser
        return self._sign, self._point, self._digits

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Number | int | float) and self._order() == _order_of(other)

    def __lt__(self, other: Number | float) -> bool:
        theirs = _order_of(other)
        return theirs is not None and self._order() < theirs

    def __gt__(self, other: Number | float) -> bool:
        theirs = _order_of(other)
        return theirs is not None and self._order() > theirs

    def __hash__(self) -> int:
        return hash(self._order() if (same := self.plain()) is None else same)

    def __bool__(self) -> bool:
        return self._sign != 0

    def __floor__(self) -> int:
        return int(Decimal(self.text).to_integral_value(ROUND_FLOOR))

    def __ceil__(self) -> int:
        return int(Decimal(self.text).to_integral_value(ROUND_CEILING))

    def __float__(self) -> float:
        return float(self.text)

    def __repr__(self) -> str:
        return self.text


def _order_of(value: Number | float) -> _Order | None:
    """None: it is not a number, and is neither less nor more than any."""
    if isinstance(value, Number):
        return value._order()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else (int(math.copysign(1, value)), math.inf, "")
    return Number(repr(value + 0))._order()  # + 0: a bool is a number to Python


# ---- reading ---------------------------------------------------------------------------------------------------------


def number(text: str) -> int | float | Number:
    """The number that a text of JSON holds: an int or a float where these are written so again. Raises NotKept for an
    exponent of more than MOST_DIGITS digits.
    """
    if text.lstrip("-").isdigit():
        return int(text) if len(text) <= MOST_DIGITS and text != "-0" else Number(text)
    value = float(text)
    return value if orjson.dumps(value) == text.encode() else Number(text)


def yaml_number(text: str) -> int | float | Number | None:
    """The same for a plain scalar of YAML 1.2, which may have a plus, and no digits on one side of its point.

    None where it is none, and also with zeros in front: no number of JSON has them, and they would be lost, though they
    are part of what a short commit hash, a zip code or a telephone number says. Raises NotKept as `number` does.
    """
    found = _YAML.fullmatch(text)
    if found is None:
        return None
    sign, whole, fraction, exponent = (part or "" for part in found.groups())
    return number(f"{sign.strip('+')}{whole or 0}{f'{fraction}0' if fraction == '.' else fraction}{exponent}")


def loads(text: str, *, constant: Callable[[str], Any] = float) -> Any:
    """The value of a text of JSON, its numbers as `number` reads them; `constant` is given NaN, Infinity, -Infinity.
    Raises what `json.loads` raises, and what `constant` does.
    """
    return json.loads(text, parse_float=number, parse_int=number, parse_constant=constant)


# ---- writing ---------------------------------------------------------------------------------------------------------


def fragment(value: object) -> orjson.Fragment:
    """What `orjson.dumps(..., default=fragment)` writes for a Number. TypeError for what is no JSON."""
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    raise TypeError(f"no JSON value: {type(value).__name__}")


def dumps(value: Any, **how: Any) -> str:
    """As `json.dumps`, every number as it was written, and floats as orjson writes them."""
    return dumps_plainly(_settled(value), **how)


def dumps_plainly(value: Any, **how: Any) -> str:
    """The same with floats as Python writes them, which is what digests were always made of."""
    held: list[Number] = []

    def hold(one: object) -> str:
        if not isinstance(one, Number):
            raise TypeError(f"no JSON value: {type(one).__name__}")
        held.append(one)
        return f"{_HELD}{len(held) - 1}"

    text = json.dumps(value, default=hold, **how)
    return re.sub(f'"{_HELD}([0-9]+)"', lambda found: held[int(found[1])].text, text) if held else text


def _settled(value: Any) -> Any:
    """Floats that Python and orjson write in two forms, `1e-07` and `1e-7`, held to the one."""
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_settled(inner) for inner in value]
    if isinstance(value, float) and math.isfinite(value) and repr(value) != (text := orjson.dumps(value).decode()):
        return Number(text)
    return value
