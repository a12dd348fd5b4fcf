"""The bytes of a file as text, and back, so that what is not changed stays byte for byte. Pure.

UTF-8, also with a byte order mark or with bytes that are not UTF-8; UTF-16 and UTF-32 with a byte order mark; UTF-16
without one where it can only be that. Every step can be undone: bytes that are no character become lone surrogates.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from typing import Final

_MARKS: Final = (  # longest first: one of UTF-32 begins as one of UTF-16 does
    (codecs.BOM_UTF32_LE, "utf-32-le", 4),
    (codecs.BOM_UTF32_BE, "utf-32-be", 4),
    (codecs.BOM_UTF16_LE, "utf-16-le", 2),
    (codecs.BOM_UTF16_BE, "utf-16-be", 2),
)
_SAMPLE: Final = 8192
"""As far as git looks, too."""
_HARDLY: Final = 16
_NO_TEXT: Final = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")
"""What nothing holds that somebody wrote."""
_WIDE: Final = "surrogatepass"
"""How UTF-16 and UTF-32 keep half a pair."""
_LONE: Final = re.compile("[\ud800-\udfff]")
_ESCAPED: Final = range(0xDC80, 0xDD00)
"""The surrogates in which Python keeps the bytes 0x80 to 0xFF."""


@dataclass(frozen=True, slots=True)
class Text:
    """What a file holds. `rest`: bytes at its end that are half a character. `lone`: it has surrogates."""

    text: str
    codec: str
    errors: str
    rest: bytes = b""
    lone: bool = False

    @property
    def view(self) -> str:
        """The same to look at, character for character, without surrogates: bytes that are no UTF-8 as Latin-1."""
        return _LONE.sub(_shown, self.text) if self.lone else self.text

    def encoded(self, text: str) -> bytes:
        """`text`, which is this one but for some parts, as the file holds it."""
        return text.encode(self.codec, self.errors) + self.rest

    def may_hold(self, new: str) -> bool:
        """Whether it is known how the file would write this."""
        return new.isascii() or self.errors == _WIDE or not self.lone


def text_of(data: bytes) -> Text | None:
    """The text of a whole file; None: it is none."""
    for mark, codec, width in _MARKS:
        if data.startswith(mark):
            return _wide(data, codec, width)
    if b"\0" not in data[:_SAMPLE]:
        return None if b"\0" in data else _decoded(data, "utf-8", "surrogateescape")
    return _unmarked(data)


def may_be_text(head: bytes) -> bool:
    """Whether the rest of a file that begins so has to be read; needs all of the file, or its first 8 KiB."""
    return b"\0" not in head or text_of(head[:_SAMPLE]) is not None


def _wide(data: bytes, codec: str, width: int) -> Text | None:
    whole = len(data) - len(data) % width
    try:
        return _decoded(data[:whole], codec, _WIDE, data[whole:])
    except UnicodeDecodeError:
        return None


def _decoded(data: bytes, codec: str, errors: str, rest: bytes = b"") -> Text:
    try:
        return Text(data.decode(codec), codec, errors, rest)
    except UnicodeDecodeError:
        return Text(data.decode(codec, errors), codec, errors, rest, lone=True)


def _unmarked(data: bytes) -> Text | None:
    """UTF-16 of what is written mostly in our alphabet: every second byte of that is zero, and hardly another one."""
    head = data[:_SAMPLE]
    zeros = {"utf-16-be": head[::2].count(0), "utf-16-le": head[1::2].count(0)}
    rare, often = sorted(zeros, key=zeros.__getitem__)
    if zeros[rare] * _HARDLY > zeros[often] or zeros[often] * 4 < len(head):
        return None
    found = _wide(data, often, 2)
    return None if found is None or found.rest or found.lone or _NO_TEXT.search(found.text) else found


def _shown(lone: re.Match[str]) -> str:
    return chr(ord(lone[0]) - 0xDC00) if ord(lone[0]) in _ESCAPED else "\ufffd"
