"""How the JSON of a chat is laid out, so that the same bytes can be made of its messages again. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

from engine.lossless_json.numbers import dumps
from engine.model import Json

LAYOUTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "spaced": {"separators": (", ", ": ")},
    "compact": {"separators": (",", ":")},
    "indented-2": {"indent": 2},
    "indented-4": {"indent": 4},
}
ASCII: Final = "ascii"
"""Behind a layout: every other character is escaped."""
PLAIN: Final = "spaced"
"""What Python writes by itself."""


def layout_of(messages: Json, text: str) -> str | None:
    """The words for the layout in which exactly this text comes of the messages; None: none of those known."""
    return next((words for words in _layouts(text) if laid_out(messages, words) == text), None)


def _layouts(text: str) -> Iterator[str]:
    for layout, ascii_too in product(LAYOUTS, (False, True)):
        if not ascii_too or text.isascii():
            yield f"{layout} {ASCII}" if ascii_too else layout


def laid_out(messages: Json, words: str) -> str:
    """The text. KeyError for a layout that there is not."""
    layout, *more = words.split()
    return dumps(messages, ensure_ascii=ASCII in more, **LAYOUTS[layout])
