"""JSON whose numbers come back byte for byte as they were sent, whatever Python makes of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

_LONGEST: Final = 4300
"""Digits of an integer that Python reads."""
_HELD: Final = uuid4().hex
"""Stands for a number while the standard library writes the rest."""


class Written:
    """A number that Python would write otherwise: `1.50`, `1E+2`, `-0`, or more digits than a float has."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text: Final = text


def loads(text: str | bytes, *, constant: Callable[[str], Any] = float) -> Any:
    """As `json.loads`; such numbers are `Written`, and `constant` is given NaN, Infinity and -Infinity."""
    return json.loads(text, parse_float=_float, parse_int=_int, parse_constant=constant)


def dumps(value: Any, **how: Any) -> str:
    """As `json.dumps`, numbers as they were written."""
    held: list[str] = []

    def hold(one: object) -> str:
        if not isinstance(one, Written):
            raise TypeError(f"no JSON value: {type(one).__name__}")
        held.append(one.text)
        return f"{_HELD}{len(held) - 1}"

    text = json.dumps(value, default=hold, **how)
    return re.sub(f'"{_HELD}([0-9]+)"', lambda found: held[int(found[1])], text) if held else text


def _float(text: str) -> float | Written:
    return value if repr(value := float(text)) == text else Written(text)


def _int(text: str) -> int | Written:
    return int(text) if len(text) <= _LONGEST and text != "-0" else Written(text)
