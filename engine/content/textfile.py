"""Text that people hand us in files: UTF-8, with or without a byte order mark; and JSON in which no key is lost."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Final

BOM: Final = codecs.BOM_UTF8
_OTHERS: Final = {
    # longest first: one of UTF-32 begins as one of UTF-16 does
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_FIRST: Final = 4
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|[{}]', re.DOTALL)
"""A text in JSON, a key if a colon follows; or where an object begins or ends."""


class NotText(ValueError):
    """It is no such text. `line` counts from 1; the message never quotes it."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def read_text(path: Path) -> str:
    """The text of a file, its lines ended by line feeds. Raises NotText that says why it cannot be read."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NotText("no such file; check the path") from None
    except IsADirectoryError:
        raise NotText("is a folder, not a file") from None
    except OSError as error:
        raise NotText(f"cannot be read: {error.strerror}") from None
    return text_of(content).replace("\r\n", "\n").replace("\r", "\n")


def text_of(content: bytes) -> str:
    """The text of a whole file, without its byte order mark. Raises NotText."""
    if (other := other_encoding(content)) is not None:
        raise NotText(other, 1)
    return decoded(content.removeprefix(BOM))


def decoded(content: bytes) -> str:
    """The text of a part of a file, every character kept. Raises NotText with the line in this part."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise NotText("is not UTF-8; save it as UTF-8 text", line) from None


def other_encoding(content: bytes) -> str | None:
    """What the first bytes of a file say is wrong with all of it: it is text, but not UTF-8."""
    for mark, name in _OTHERS.items():
        if content.startswith(mark):
            return f"is {name}; save it as UTF-8 text"
    if b"\0" in content[:_FIRST]:  # every second byte of what is written in our alphabet
        return "is UTF-16 or no text at all; save it as UTF-8 text"
    return None


def repeated_key(text: str) -> tuple[str, int] | None:
    """The first key that stands twice in one object of this JSON, and the line of the second. `text`: surely JSON."""
    objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            objects.append(set())
        elif token[0] == "}":
            objects.pop()
        elif token[1] is not None:
            key = json.loads(token[0][: -len(token[1])])
            if key in objects[-1]:
                return key, text.count("\n", 0, token.start()) + 1
            objects[-1].add(key)
    return None
