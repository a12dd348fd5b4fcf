"""How Portkey writes its prompts."""

from __future__ import annotations

from typing import Final

from engine.content.templates import MUSTACHE
from engine.model.dialect import Chat, Dialect, ParameterNames

PORTKEY: Final = Dialect(
    name="portkey",
    registry="Portkey",
    grammar=MUSTACHE,
    parameters=ParameterNames(open=True, defaults=True),
    chat=Chat(messages=True),
)
"""Its parameters have the neutral names, and its text the neutral form of a chat: see `engine/model/dialect.py`."""
