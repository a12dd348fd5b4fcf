"""How those values are declared of which a run makes one or more for each prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(*, kw_only: bool = False, slots: bool = True) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass to mypy, which lets nobody change one. Python does not look after that: to make one that it
    looks after takes three times as long.
    """
    return dataclass(kw_only=kw_only, slots=slots, unsafe_hash=True)
